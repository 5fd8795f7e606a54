/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/verbs.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define ANY    SIZE_MAX
#define LIST   (OPTION_FULL | OPTION_NO_LEGEND | OPTION_FIELDS | OPTION_OUTPUT)
#define WAIT   (OPTION_NO_BLOCK | OPTION_BLOCK_ATTEMPTS | OPTION_FULL)
#define CREATE (OPTION_REPLACE | OPTION_SIGN | OPTION_FULL)

#define CREATE_DETAIL                                                         \
    "A unit that is not stored yet is read from the file of that name, or "   \
    "made from its template (stored or local). All units of one command are " \
    "stored together, or none of them."

#define CHECK_DETAIL                                                     \
    "Prints the state of each. Exit status: 0 if at least one is so, 3 " \
    "(is-active) or 1 (is-failed) if not, 4 if there is none of these units."

const struct verb verbs[] = {
    {"backup", "FILE|-", "Save the cluster's data in a file",
     "Everything that was acknowledged before is in it: units, what is wanted "
     "of them, where they are, machines, settings; no keys and no secrets of the "
     "cluster's, but those in unit files. \"fleetd --restore FILE\" begins a new "
     "cluster with it. - is standard output.",
     1, 1, "One file must be provided", OPTION_VERIFY, false, verb_backup},
    {"cat", "UNIT", "Print a stored unit file", NULL, 1, 1, "One unit file must be provided", 0, false,
     verb_cat},
    {"client-cert", "NAME", "Make a certificate for the remote API",
     "Makes a key, has the cluster certify it, and writes both, with the cluster's authorities, to one file "
     "that only its owner can read: what --cert-file takes on the computer where it is to be used, or "
     "~/.config/fleet/client.pem there. The key is nowhere else.",
     1, 1, "One name must be provided", OPTION_CLIENT_CERT | OPTION_TTL, false, verb_client_cert},
    {"confirm-lost", "MACHINE...", "Say that missing machines will not come back",
     "When more than a third of the machines vanish together, their units "
     "are not started elsewhere until enough of them are back. Nor is a unit "
     "with OnDisconnect=stop of which a lost machine may run an older copy. "
     "This starts those of the named machines elsewhere. Make sure that they "
     "are off.",
     1, ANY, "No machines given", OPTION_FULL, false, verb_confirm_lost},
    {"cordon", "MACHINE...", "Place no new units on machines", NULL, 1, ANY, "No machines given", OPTION_FULL,
     false, verb_cordon},
    {"demote", "MACHINE...", "Keep machines from voting",
     "Others get their votes first, and leadership if one of them leads. "
     "Refused if that would leave too few voters.",
     1, ANY, "No machines given", OPTION_AUTOMATIC | OPTION_NO_BLOCK | OPTION_DEADLINE | OPTION_FULL, false,
     verb_demote},
    {"destroy", "UNIT...", "Remove units from the cluster, stopping them first", NULL, 1, ANY,
     "No units given", WAIT, false, verb_destroy},
    {"drain", "MACHINE...", "Move units off machines, and place no new ones there",
     "A unit is started on its new machine before it is stopped on the old "
     "one. What fits nowhere else stays, and is named with the reason; global "
     "units stay, too.",
     1, ANY, "No machines given", OPTION_NO_BLOCK | OPTION_DEADLINE | OPTION_FULL, false, verb_drain},
    {"explain", "UNIT", "Say for every machine why the unit is there or not", NULL, 1, 1,
     "One unit must be provided", OPTION_FULL | OPTION_OUTPUT, false, verb_explain},
    {"fd-forward", "SOCKET", "Connect stdin and stdout to a Unix socket",
     "The far end of --tunnel; ssh runs it on the host that is tunnelled to.", 1, 1,
     "Provide a single argument", 0, true, verb_fd_forward},
    {"help", "[COMMAND]", "Print help", NULL, 0, 1, NULL, 0, true, verb_help},
    {"init", "", "Start a cluster, with this host as its first machine",
     "For a host that belongs to no cluster. The cluster makes an authority of its own; by its certificates "
     "all that hosts say to each other is secured.",
     0, 0, NULL, OPTION_INIT | OPTION_FULL, false, verb_init},
    {"is-active", "UNIT|PATTERN...", "Check whether one of the units is active", CHECK_DETAIL, 1, ANY,
     "No units given", OPTION_QUIET, false, verb_is_active},
    {"is-failed", "UNIT|PATTERN...", "Check whether one of the units has failed", CHECK_DETAIL, 1, ANY,
     "No units given", OPTION_QUIET, false, verb_is_failed},
    {"join", "HOST[:PORT]...", "Make this host a machine of a cluster",
     "For a host that belongs to no cluster. The secret of the token is sent only to who proves to be of the "
     "cluster that the token is for. Waits until the host is in, for 30 seconds unless --deadline says "
     "otherwise.",
     1, ANY, "No addresses of members given", OPTION_JOIN | OPTION_DEADLINE | OPTION_FULL, false, verb_join},
    {"join-token", "", "Make, list or revoke tokens that let hosts in",
     "Prints the token alone: it is a secret, and goes into a file that only root can read. Fields of "
     "--list: id, state, expires, used (the default), created.",
     0, 0, NULL, OPTION_JOIN_TOKEN | OPTION_TTL | LIST, false, verb_join_token},
    {"journal", "UNIT", "Print what a unit has written to journals",
     "The entries of all machines that have the unit, by time.", 1, 1, "One unit file must be provided.",
     OPTION_LINES | OPTION_FOLLOW | OPTION_OUTPUT | OPTION_FORMAT | OPTION_SUDO | OPTION_SSH_PORT, false,
     verb_journal},
    {"leave", "", "Take this host out of its cluster",
     "Drains it, removes it, and waits until it has forgotten that it was a machine of the cluster. It gets "
     "in again "
     "only with a new token.",
     0, 0, NULL, OPTION_FORCE | OPTION_DEADLINE | OPTION_FULL, false, verb_leave},
    {"list-client-certs", "", "List who has a certificate for the remote API",
     "Fields: name, role, state, expires, serial (the default), issued.", 0, 0, NULL, LIST, false,
     verb_list_client_certs},
    {"list-machines", "", "List the machines of the cluster",
     "Fields: machine, ip, metadata (the default), hostname, state, availability, address, units, version.",
     0, ANY, NULL, LIST, false, verb_list_machines},
    {"list-members", "", "List who votes, who leads, and what is under way",
     "Fields: machine, hostname, role, leader, state, preference, spread (the "
     "default), address, server. What is under way, and why, is said on stderr.",
     0, 0, NULL, LIST, false, verb_list_members},
    {"list-settings", "", "List what is set for the whole cluster",
     "Fields: name, value, default, limits, meaning (all but limits are the default).", 0, 0, NULL, LIST,
     false, verb_list_settings},
    {"list-unit-files", "[UNIT|PATTERN...]", "List what is stored, and where it is placed",
     "Fields: unit, hash, dstate, state, target (the default), tmachine, global, desc, reason.", 0, ANY, NULL,
     LIST, false, verb_list_unit_files},
    {"list-units", "[UNIT|PATTERN...]", "List what machines report about their units",
     "Fields: unit, machine, active, sub (the default), load, hash, result, error.", 0, ANY, NULL, LIST,
     false, verb_list_units},
    {"load", "UNIT...", "Place units on machines, without starting them", CREATE_DETAIL, 1, ANY,
     "No units given", CREATE | WAIT, false, verb_load},
    {"promote", "MACHINE...", "Have machines vote, rather than others",
     "They vote for as long as they are there; the number of voters stays what "
     "the setting voters says.",
     1, ANY, "No machines given", OPTION_AUTOMATIC | OPTION_NO_BLOCK | OPTION_DEADLINE | OPTION_FULL, false,
     verb_promote},
    {"remove-machine", "MACHINE...", "Take machines out of the cluster for good",
     "They are told so, stop what they have of the cluster's units, and get in again only with a new token. "
     "One that has units is drained first, or removed with --force: then they are stopped there before they "
     "are started elsewhere. Not even with --force goes one that votes while too few of the other voters "
     "answer.",
     1, ANY, "No machines given", OPTION_FORCE | OPTION_FULL, false, verb_remove_machine},
    {"restart", "UNIT|PATTERN...", "Restart what runs of units, on every machine",
     "A unit that is loaded, has finished or has failed is started.", 1, ANY, "No units given",
     WAIT | OPTION_SSH_PORT, false, verb_restart},
    {"revoke-client-cert", "NAME|SERIAL...", "End what certificates can do",
     "By a name: all certificates of that name.", 1, ANY, "No certificates given", 0, false,
     verb_revoke_client_cert},
    {"rotate-authority", "", "Replace the authority that signs certificates",
     "All machines first trust the new authority, then get certificates of it, then forget the old one. "
     "Connections of members do not end by it; those of whoever has signed himself a certificate with the "
     "old authority's key do. Machines that are away are waited for; with --force they are left behind, and "
     "need a new token to come back.",
     0, 0, NULL,
     OPTION_ROTATE | OPTION_FORCE | OPTION_NO_BLOCK | OPTION_DEADLINE | OPTION_FULL | OPTION_OUTPUT, false,
     verb_rotate_authority},
    {"set", "NAME=VALUE...", "Set what holds for the whole cluster",
     "fleetctl list-settings shows what there is. NAME= sets back to the "
     "default. All of them are set, or none.",
     1, ANY, "No settings given", 0, false, verb_set},
    {"ssh", "[MACHINE|UNIT] [COMMAND...]", "Open a shell or run a command on a machine",
     "MACHINE is a host name or the beginning of a machine id; a UNIT means "
     "the machine that has it. Before a command with options of its own stands "
     "a --: fleetctl ssh web@1 -- ls -l",
     0, ANY, NULL, OPTION_MACHINE | OPTION_UNIT | OPTION_FORWARD_AGENT | OPTION_SSH_PORT, false, verb_ssh},
    {"start", "UNIT...", "Place units on machines and start them", CREATE_DETAIL, 1, ANY, "No units given",
     CREATE | WAIT, false, verb_start},
    {"status", "[UNIT|PATTERN...]", "Show what systemd says of units, everywhere",
     "As \"systemctl status -l\" does. Exits with 3 if a unit is not active everywhere.", 0, ANY, NULL,
     OPTION_FULL | OPTION_OUTPUT | OPTION_LINES | OPTION_SSH_PORT, false, verb_status},
    {"stop", "UNIT|PATTERN...", "Stop units, leaving them on their machines", NULL, 1, ANY, "No units given",
     WAIT, false, verb_stop},
    {"submit", "UNIT...", "Store unit files, without placing the units", CREATE_DETAIL, 1, ANY,
     "No units given", CREATE, false, verb_submit},
    {"transfer-leadership", "[MACHINE]", "Have another voter lead",
     "The machine, or whichever voter is there. Says who leads when it is done.", 0, 1, NULL,
     OPTION_NO_BLOCK | OPTION_DEADLINE | OPTION_FULL, false, verb_transfer_leadership},
    {"uncordon", "MACHINE...", "Place new units on machines again", NULL, 1, ANY, "No machines given",
     OPTION_FULL, false, verb_uncordon},
    {"undrain", "MACHINE...", "Place units on machines again after a drain", NULL, 1, ANY,
     "No machines given", OPTION_FULL, false, verb_undrain},
    {"unload", "UNIT|PATTERN...", "Stop units and take them off their machines", NULL, 1, ANY,
     "No units given", WAIT, false, verb_unload},
    {"verify", "FILE...", "Check unit files, without asking the cluster",
     "Says what submit would refuse: names, grammar, the rules of [X-Fleet].", 1, ANY, "No units given", 0,
     true, verb_verify},
    {"version", "", "Print the version of fleetctl", NULL, 0, ANY, NULL, 0, true, verb_version},
};

const size_t verb_count = ARRAY_SIZE(verbs);

/* A word that was enough for the first fleet still is, whatever verbs there are today; but nothing is
 * destroyed by a word that could mean something else. */
static bool was_in_first_fleet(const char *name)
{
    static const char *const names[] = {
        "cat",        "fd-forward", "help",    "journal", "list-machines", "list-unit-files",
        "list-units", "load",       "restart", "ssh",     "start",         "status",
        "stop",       "submit",     "unload",  "verify",  "version"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (streq(names[i], name))
            return true;
    return false;
}

const struct verb *verb_find(const char *word, struct err *err)
{
    const struct verb *found = NULL, *old = NULL;
    _cleanup_(strbuf_done) struct strbuf candidates = {0};
    size_t count = 0, old_count = 0;

    for (size_t i = 0; i < verb_count; i++) {
        if (streq(verbs[i].name, word))
            return &verbs[i];
        if (!str_has_prefix(verbs[i].name, word))
            continue;
        found = &verbs[i];
        if (was_in_first_fleet(found->name)) {
            old = found;
            old_count++;
        }
        strbuf_addf(&candidates, "%s%s", count++ > 0 ? ", " : "", verbs[i].name);
    }
    if (count == 1)
        return found;
    if (old_count == 1)
        return old;
    if (count == 0)
        err_set(err, -ENOENT, "unknown command \"%s\" for \"fleetctl\" (fleetctl help lists them)", word);
    else
        err_set(err, -ENOENT, "unknown command \"%s\" for \"fleetctl\" (did you mean one of %s?)", word,
                candidates.text);
    return NULL;
}
