/* SPDX-License-Identifier: Apache-2.0 */
/* ssh: a shell or a command on a machine of the cluster, or on the one that has a unit (fleet-behaviour.md
 * §1.7). fleetctl finds the address, and then becomes the user's own ssh, so that its exit status, terminal
 * and signals are ssh's. What is to run on this very machine is run without ssh. */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/machine.h"
#include "fleetctl/output.h"
#include "fleetctl/ssh.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"
#include "units/name.h"

#define EXIT_SSH      255 /* As ssh has it where it is itself what failed. */
#define ID_FILE       "/etc/machine-id"
#define ID_SIZE_MAX   64 /* Of which 32 are digits. */
#define SHELL_DEFAULT "/bin/sh"

/* --- Which machine --- */

static int __attribute__((format(printf, 2, 3))) refuse(int code, const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    complain("Unable to proceed: %s", text);
    return code;
}

static int ask_machines(struct ctl *ctl, json_t **ret)
{
    struct err err = {0};
    int r = ctl_read_all(ctl, "machines?lost=yes", "machines", true, ret, &err);

    return r < 0 ? ctl_fail(&err, r, "Error retrieving list of machines") : CTL_EXIT_DONE;
}

/* *ret: the machine's entity, a new reference, or NULL if there is none. */
static int find_machine(struct ctl *ctl, const char *word, json_t **ret)
{
    _cleanup_(json_decrefp) json_t *machines = NULL;
    const json_t *machine = NULL;
    int r, code = ask_machines(ctl, &machines);

    if (code != CTL_EXIT_DONE)
        return code;
    r = machine_find(machines, word, &machine, NULL);
    if (r == -EEXIST)
        return refuse(CTL_EXIT_FAILED, "found more than one machine");
    *ret = json_incref((json_t *)machine);
    return CTL_EXIT_DONE;
}

/* *ret: the unit's entity, a new reference, or NULL if there is none. */
static int find_unit(struct ctl *ctl, const char *name, json_t **ret)
{
    _cleanup_(freep) char *escaped = api_escape(name), *path = xasprintf("units/%s", escaped);
    struct err err = {0};
    int r = ctl_read(ctl, path, ret, &err);

    if (r == 0 || r == -ENOENT)
        return CTL_EXIT_DONE;
    return ctl_fail(&err, r, "Error retrieving Unit %s", name);
}

static int machine_of_unit(struct ctl *ctl, const char *name, const json_t *unit, json_t **ret)
{
    const char *id = api_text(unit, "machineID"), *reason = api_text(unit, "reason");

    if (stored_is_global(unit))
        return refuse(CTL_EXIT_FAILED, "global units unsupported (--machine says which of its machines)");
    if (id[0] == '\0')
        return refuse(CTL_EXIT_FAILED, "unit %s is on no machine%s%s", name, reason[0] != '\0' ? ": " : "",
                      reason);
    *ret = json_incref((json_t *)ctl_machine(ctl, id));
    return *ret != NULL ? CTL_EXIT_DONE
                        : refuse(CTL_EXIT_FAILED, "machine %s of unit %s is not known", id, name);
}

/* Neither --machine nor --unit: 'word' is either. */
static int find_either(struct ctl *ctl, const char *word, json_t **ret)
{
    _cleanup_(json_decrefp) json_t *machine = NULL, *unit = NULL;
    _cleanup_(freep) char *name = unit_name_mangle(word);
    int code = find_machine(ctl, word, &machine);

    if (code == CTL_EXIT_DONE)
        code = find_unit(ctl, name, &unit);
    if (code != CTL_EXIT_DONE)
        return code;
    if (machine != NULL && unit != NULL)
        return refuse(CTL_EXIT_FAILED, "%s is both a machine and a unit; say --machine=%s or --unit=%s", word,
                      word, word);
    if (unit != NULL)
        return machine_of_unit(ctl, name, unit, ret);
    if (machine == NULL)
        return refuse(CTL_EXIT_NO_UNIT, "could not find matching unit or machine");
    *ret = TAKE_PTR(machine);
    return CTL_EXIT_DONE;
}

/* 'word': the first argument, where no option names the machine. */
static int find_target(struct ctl *ctl, const char *word, json_t **ret)
{
    const struct options *o = &ctl->options;
    _cleanup_(json_decrefp) json_t *unit = NULL;
    _cleanup_(freep) char *name = NULL;
    int code;

    if (o->machine != NULL) {
        code = find_machine(ctl, o->machine, ret);
        return code == CTL_EXIT_DONE && *ret == NULL ? refuse(CTL_EXIT_FAILED, "machine does not exist")
                                                     : code;
    }
    if (o->unit == NULL)
        return find_either(ctl, word, ret);
    name = unit_name_mangle(o->unit);
    code = find_unit(ctl, name, &unit);
    if (code == CTL_EXIT_DONE && unit == NULL)
        return refuse(CTL_EXIT_NO_UNIT, "unit does not exist");
    return code == CTL_EXIT_DONE ? machine_of_unit(ctl, name, unit, ret) : code;
}

/* --- What to run, and how --- */

/* The words from 'first' on as one command line; a "--" cuts off what stands before it. NULL: none, a shell.
 */
static char *command_of(const struct strlist *args, size_t first)
{
    struct strbuf b = {0};

    for (size_t i = first; i < args->count; i++)
        if (streq(args->items[i], "--")) {
            first = i + 1;
            break;
        }
    for (size_t i = first; i < args->count; i++)
        strbuf_addf(&b, "%s%s", i > first ? " " : "", args->items[i]);
    return first < args->count ? strbuf_take(&b) : NULL;
}

static bool is_this_machine(const char *id)
{
    _cleanup_(fclosep) FILE *f = fopen(ID_FILE, "re");
    char own[ID_SIZE_MAX] = "";

    if (f == NULL || fgets(own, sizeof own, f) == NULL)
        return false;
    own[strcspn(own, " \t\n")] = '\0';
    return own[0] != '\0' && streq(own, id);
}

/* Ends in another program, or returns an errno. Everything of ours ends first: a tunnel is a process. */
static int become(struct ctl *ctl, char **argv)
{
    api_free(TAKE_PTR(ctl->api));
    fflush(stdout);
    execvp(argv[0], argv);
    return -errno;
}

static int run_here(struct ctl *ctl, char *command)
{
    char *shell = getenv("SHELL");
    char *const script[] = {SHELL_DEFAULT, "-c", command, NULL};
    char *const login[] = {shell != NULL && shell[0] == '/' ? shell : SHELL_DEFAULT, NULL};
    int r = become(ctl, (char **)(command != NULL ? script : login));

    complain("Error running local command: %s", strerror(-r));
    return EXIT_SSH;
}

static int run_there(struct ctl *ctl, const char *ip, const char *command)
{
    const struct options *o = &ctl->options;
    const bool tunnelled = o->tunnel != NULL && o->tunnel[0] != '\0';
    _cleanup_(freep) char *proxy = NULL, *port = NULL, *destination = NULL;
    struct strlist argv = {0}, extra = {0};
    struct err err = {0};
    int r = tunnelled ? ssh_proxy_option(o, &proxy, &err) : 0;

    port = o->ssh_port != 0 ? xasprintf(":%d", o->ssh_port) : xstrdup("");
    destination = strchr(ip, ':') != NULL ? xasprintf("[%s]%s", ip, port) : xasprintf("%s%s", ip, port);
    if (proxy != NULL) {
        strlist_add(&extra, "-o");
        strlist_add(&extra, proxy);
    }
    if (o->forward_agent)
        strlist_add(&extra, "-A");
    if (command != NULL && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        strlist_add(&extra, "-t");
    strlist_take(&extra, NULL);
    if (r == 0)
        r = ssh_add_words(o, (const char *const *)extra.items, destination, &argv, &err);
    if (command != NULL) {
        strlist_add(&argv, "--");
        strlist_add(&argv, command);
    }
    strlist_take(&argv, NULL);
    if (r == 0)
        r = become(ctl, argv.items);
    ctl_fail(&err, r, "Failed building SSH client");
    strlist_done(&argv);
    strlist_done(&extra);
    return CTL_EXIT_FAILED;
}

int verb_ssh(struct ctl *ctl, const struct strlist *args)
{
    const struct options *o = &ctl->options;
    const bool named = o->machine != NULL || o->unit != NULL;
    _cleanup_(freep) char *command = command_of(args, named ? 0 : 1);
    _cleanup_(json_decrefp) json_t *machine = NULL;
    int code;

    if (o->machine != NULL && o->unit != NULL) {
        complain("Both machine and unit flags provided, please specify only one.");
        return CTL_EXIT_USAGE;
    }
    if (!named && args->count == 0)
        return refuse(CTL_EXIT_USAGE, "one machine or unit must be provided");
    code = find_target(ctl, named ? NULL : args->items[0], &machine);
    if (code != CTL_EXIT_DONE)
        return code;
    /* As another user, it is ssh that decides whether one may. */
    if (is_this_machine(api_text(machine, "id")) && (o->ssh_username == NULL || o->ssh_username[0] == '\0'))
        return run_here(ctl, command);
    if (api_text(machine, "primaryIP")[0] == '\0') {
        complain("Could not determine address of machine.");
        return CTL_EXIT_FAILED;
    }
    return run_there(ctl, api_text(machine, "primaryIP"), command);
}
