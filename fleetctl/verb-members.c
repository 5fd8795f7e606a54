/* SPDX-License-Identifier: Apache-2.0 */
/* list-members, promote, demote, transfer-leadership: who votes, and who leads. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/listing.h"
#include "fleetctl/machine.h"
#include "fleetctl/members.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

#define PAUSE_MS         200u /* Between two looks at the members; nobody does this often. */
#define NOTE_MS          3000u
#define TRANSFER_WAIT_MS 10000u

/* --- list-members --- */

static char *cell_machine(struct ctl *ctl, const json_t *entity)
{
    return ctl_legend(ctl, api_text(entity, "machineID"), "");
}

static const char *role_of(const json_t *entity)
{
    const char *role = api_text(entity, "role");

    return streq(role, "host") ? "" : role;
}

static char *cell_role(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(role_of(entity));
}

static char *cell_leader(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(json_is_true(json_object_get(entity, "leader")) ? "yes" : "no");
}

/* What leaves is going to have no preference. */
static const char *preference_of(const json_t *entity)
{
    return json_is_true(json_object_get(entity, "leaving")) ? "leaves" : api_text(entity, "preference");
}

static char *cell_preference(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(preference_of(entity));
}

LISTING_TEXT_CELL(cell_hostname, "hostname")
LISTING_TEXT_CELL(cell_state, "state")
LISTING_TEXT_CELL(cell_spread, "value")
LISTING_TEXT_CELL(cell_address, "address")
LISTING_TEXT_CELL(cell_server, "serverID")

static json_t *member_to_json(struct ctl *ctl, const json_t *entity)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:s}", "machine",
                     api_text(entity, "machineID"), "hostname", api_text(entity, "hostname"), "server",
                     api_text(entity, "serverID"), "address", api_text(entity, "address"), "role",
                     api_text(entity, "role"), "leader", json_is_true(json_object_get(entity, "leader")),
                     "state", api_text(entity, "state"), "preference", preference_of(entity), "spread",
                     api_text(entity, "value"));
}

static const struct listing_field fields[] = {
    {"machine", cell_machine}, {"hostname", cell_hostname}, {"role", cell_role},
    {"leader", cell_leader},   {"state", cell_state},       {"preference", cell_preference},
    {"spread", cell_spread},   {"address", cell_address},   {"server", cell_server},
};

static const struct listing members = {
    fields, ARRAY_SIZE(fields), "machine,hostname,role,leader,state,preference,spread", member_to_json};

int verb_list_members(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *reply = NULL;
    struct err err = {0};
    int r = listing_check(ctl, &members);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read(ctl, "members", &reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving list of members");
    r = listing_print(ctl, &members, json_object_get(reply, "members"));
    fflush(stdout);
    if (api_text(reply, "doing")[0] != '\0')
        complain("Voters: %s", api_text(reply, "doing"));
    return r;
}

/* --- waiting --- */

/* What is waited for, and whether the members are so. */
struct goal {
    const json_t *ids; /* Of machines. */
    const char *role;  /* That all of them are to have; NULL: another one than 'from' is to lead. */
    const char *from;
};

static bool has_role(const json_t *list, const char *id, const char *role)
{
    const json_t *member;
    size_t i;

    json_array_foreach(list, i, member) if (streq(api_text(member, "machineID"), id)) return streq(
        api_text(member, "role"), role);
    return false;
}

/* The machine that leads; "": none is known. Borrowed. */
static const char *leader_of(const json_t *list)
{
    const json_t *member;
    size_t i;

    json_array_foreach(list, i, member) if (json_is_true(json_object_get(member, "leader"))) return api_text(
        member, "machineID");
    return "";
}

static bool is_reached(const struct goal *goal, const json_t *list)
{
    const char *leader = leader_of(list);
    const json_t *id;
    size_t i;

    if (goal->role == NULL)
        return leader[0] != '\0' && !streq(leader, goal->from);
    json_array_foreach(goal->ids, i, id) if (!has_role(list, json_string_value(id), goal->role)) return false;
    return true;
}

/* The leader may change meanwhile, and the answer to one question fail for it. */
static bool may_pass(int r)
{
    return r == -EAGAIN || r == -EINPROGRESS || r == -ETIMEDOUT;
}

/* Asks until the members are so, and says what is waited for. *ret is the last answer. Returns an enum
 * ctl_exit.
 */
static int wait_until(struct ctl *ctl, const struct goal *goal, uint64_t wait_ms, json_t **ret)
{
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
    uint64_t begin_ms = now_ms(), note_ms = begin_ms + NOTE_MS;
    _cleanup_(freep) char *said = xstrdup("");

    for (;; nanosleep(&pause, NULL)) {
        struct err err = {0};
        const char *doing;
        json_t *reply = NULL;
        int r = api_call(ctl->api, "GET", "members", NULL, 0, &reply, &err);

        if (r < 0 && (!may_pass(r) || now_ms() - begin_ms >= wait_ms))
            return ctl_fail(&err, r, "Error looking at the members");
        if (r < 0)
            continue;
        json_decref(*ret);
        *ret = reply;
        if (is_reached(goal, json_object_get(reply, "members")))
            return CTL_EXIT_DONE;
        doing = api_text(reply, "doing");
        if (now_ms() - begin_ms >= wait_ms) {
            complain("timed out waiting for it%s%s (it goes on: fleetctl list-members)",
                     doing[0] != '\0' ? ": " : "", doing);
            return CTL_EXIT_FAILED;
        }
        if (now_ms() >= note_ms && doing[0] != '\0' && !streq(said, doing)) {
            complain("Waiting: %s", doing);
            free(said);
            said = xstrdup(doing);
        }
    }
}

/* --- leaving --- */

int members_retire(struct ctl *ctl, const char *machine_id, bool leaves, uint64_t wait_ms)
{
    _cleanup_(json_decrefp) json_t *ids = json_pack("[s]", machine_id),
                                   *body = json_pack("{s:O, s:b}", "machines", ids, "leaving", leaves),
                                   *reply = NULL;
    const struct goal goal = {.ids = ids, .role = "host"};
    struct err err = {0};
    int r = api_call(ctl->api, "POST", "members", body, 0, NULL, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error taking the machine out of the consensus");
    return leaves ? wait_until(ctl, &goal, wait_ms, &reply) : CTL_EXIT_DONE;
}

/* --- promote, demote --- */

static void say_each(struct ctl *ctl, const json_t *ids, const char *what)
{
    const json_t *id;
    size_t i;

    json_array_foreach(ids, i, id)
    {
        const json_t *machine = ctl_machine(ctl, json_string_value(id));
        _cleanup_(freep) char *legend =
            ctl_legend(ctl, json_string_value(id), machine != NULL ? api_text(machine, "primaryIP") : "");

        printf("Machine %s %s\n", legend, what);
    }
    fflush(stdout);
}

static int set_preference(struct ctl *ctl, const struct strlist *args, const char *preference,
                          const char *role, const char *what)
{
    _cleanup_(json_decrefp) json_t *ids = json_array(), *body = NULL, *reply = NULL;
    const struct goal goal = {.ids = ids, .role = role};
    struct err err = {0};
    int code = machine_read_ids(ctl, args, ids), r;

    if (code != CTL_EXIT_DONE)
        return code;
    if (ctl->options.automatic)
        preference = "automatic";
    body = json_pack("{s:O, s:s}", "machines", ids, "preference", preference);
    r = api_call(ctl->api, "POST", "members", body, 0, NULL, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error changing who votes");
    if (ctl->options.automatic)
        what = "votes or does not vote as the cluster needs it";
    else if (!ctl->options.no_block)
        code = wait_until(ctl, &goal,
                          ctl->options.deadline_ms > 0 ? ctl->options.deadline_ms : WAIT_DEFAULT_MS, &reply);
    if (code == CTL_EXIT_DONE)
        say_each(ctl, ids, what);
    return code;
}

int verb_promote(struct ctl *ctl, const struct strlist *args)
{
    return set_preference(ctl, args, "voter", "voter", ctl->options.no_block ? "is to vote" : "votes");
}

int verb_demote(struct ctl *ctl, const struct strlist *args)
{
    return set_preference(ctl, args, "never", "host",
                          ctl->options.no_block ? "is not to vote" : "does not vote");
}

/* --- transfer-leadership --- */

static int say_leader(struct ctl *ctl, const char *id, const char *how)
{
    _cleanup_(json_decrefp) json_t *ids = json_pack("[s]", id);

    say_each(ctl, ids, how);
    return CTL_EXIT_DONE;
}

/* It has begun, or was not needed; 'to' NULL: any. */
static int finish_transfer(struct ctl *ctl, const char *from, const char *to)
{
    _cleanup_(json_decrefp) json_t *reply = NULL;
    const struct goal goal = {.from = from};
    uint64_t wait_ms = ctl->options.deadline_ms > 0 ? ctl->options.deadline_ms : TRANSFER_WAIT_MS;
    const char *leader;
    int code;

    if (ctl->options.no_block)
        return say_leader(ctl, from, "hands leadership over");
    code = wait_until(ctl, &goal, wait_ms, &reply);
    leader = leader_of(json_object_get(reply, "members"));
    if (code != CTL_EXIT_DONE)
        return code;
    say_leader(ctl, leader, "leads now");
    return to == NULL || streq(to, leader) ? CTL_EXIT_DONE : CTL_EXIT_FAILED;
}

int verb_transfer_leadership(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *ids = json_array(), *reply = NULL, *body = NULL;
    const char *from, *to;
    struct err err = {0};
    int code = machine_read_ids(ctl, args, ids), r;

    if (code != CTL_EXIT_DONE)
        return code;
    to = json_string_value(json_array_get(ids, 0));
    r = api_call(ctl->api, "GET", "members", NULL, 0, &reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving list of members");
    from = leader_of(json_object_get(reply, "members"));
    if (to != NULL && streq(from, to))
        return say_leader(ctl, to, "leads already");
    body = json_pack("{s:s, s:s*}", "from", from, "to", to);
    r = api_call(ctl->api, "POST", "leadership", body, 0, NULL, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error transferring leadership");
    return finish_transfer(ctl, from, to);
}
