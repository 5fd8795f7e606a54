/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "fleetd/core/failing.h"
#include "raftstore/registry_security.h"

const char *machine_state_to_string(enum machine_state state)
{
    static const char *const names[] = {
        [MACHINE_EXPECTED] = "expected", [MACHINE_READY] = "ready",     [MACHINE_SUSPECTED] = "suspected",
        [MACHINE_HUNG] = "hung",         [MACHINE_MISSING] = "missing", [MACHINE_LOST] = "lost",
    };

    return names[state];
}

const char *unit_outcome_to_string(enum unit_outcome outcome)
{
    static const char *const names[] = {
        [OUTCOME_WAITING] = "waiting",   [OUTCOME_ACTIVE] = "active",     [OUTCOME_FINISHED] = "finished",
        [OUTCOME_LOADED] = "loaded",     [OUTCOME_INACTIVE] = "inactive", [OUTCOME_FAILED] = "failed",
        [OUTCOME_UNPLACED] = "unplaced", [OUTCOME_GONE] = "gone",
    };

    return names[outcome];
}

enum machine_state core_machine_state(const struct core *core, const char *machine_id)
{
    const struct host *host = host_find(core->hosts, machine_id);

    return host != NULL ? host->state : MACHINE_EXPECTED;
}

uint64_t core_machine_silent_ms(const struct core *core, const char *machine_id, uint64_t now_ms)
{
    const struct host *host = host_find(core->hosts, machine_id);

    return host != NULL && now_ms > host->heard_ms ? now_ms - host->heard_ms : 0;
}

const struct core_report *core_report(const struct core *core, const char *machine_id, const char *unit)
{
    const struct host *host = host_find(core->hosts, machine_id);

    return host != NULL ? host_report(host, unit) : NULL;
}

bool core_machine_had(const struct core *core, const char *machine_id, const char *unit)
{
    const struct host *host = host_find(core->hosts, machine_id);

    return host != NULL && host->state == MACHINE_LOST && strlist_has(&host->had, unit);
}

struct report_row {
    const char *unit, *machine_id;
    const struct core_report *report;
};

static int compare_rows(const void *a, const void *b)
{
    const struct report_row *x = a, *y = b;
    int r = strcmp(x->unit, y->unit);

    return r != 0 ? r : strcmp(x->machine_id, y->machine_id);
}

void core_reports_each(const struct core *core,
                       void (*each)(const char *unit, const char *machine_id,
                                    const struct core_report *report, void *data),
                       void *data)
{
    _cleanup_(freep) struct report_row *rows = NULL;
    size_t count = 0, capacity = 0;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next) {
            GROW(rows, capacity, count + 1);
            rows[count++] = (struct report_row){entry->unit, host->id, &entry->report};
        }
    if (count > 1)
        qsort(rows, count, sizeof *rows, compare_rows);
    for (size_t i = 0; i < count; i++)
        each(rows[i].unit, rows[i].machine_id, rows[i].report, data);
}

const char *core_hostname(const struct core *core, const char *machine_id)
{
    const struct registry_machine *machine = registry_machine(core->registry, machine_id);
    const struct registry_removed *removed = registry_removed(core->registry, machine_id);

    if (machine != NULL && machine->hostname[0] != '\0')
        return machine->hostname;
    return removed != NULL && removed->hostname[0] != '\0' ? removed->hostname : machine_id;
}

/* ---- the status of one unit ---- */

static void set(struct core_status *status, enum unit_outcome outcome, char *reason)
{
    status->outcome = outcome;
    free(status->reason);
    status->reason = reason;
}

static void set_report(struct core_status *status, const struct core_report *report)
{
    free(status->active_state);
    free(status->sub_state);
    status->active_state = xstrdup(report != NULL ? report->active_state : "");
    status->sub_state = xstrdup(report != NULL ? report->sub_state : "");
}

static void add_machine(struct core_status *status, const struct core *core, const char *machine_id,
                        const char *reason)
{
    struct core_status_machine *machine;

    status->machines = xrealloc(status->machines, (status->machine_count + 1) * sizeof *status->machines);
    machine = &status->machines[status->machine_count++];
    *machine = (struct core_status_machine){.hostname = xstrdup(core_hostname(core, machine_id)),
                                            .reason = xstrdup(reason)};
    snprintf(machine->machine_id, sizeof machine->machine_id, "%s", machine_id);
}

/* A machine that still has the unit, or, after a change of leader, may have it; NULL: none. */
static const struct host *who_has(const struct core *core, const char *unit)
{
    const struct registry_unit *known = registry_unit(core->registry, unit);
    const struct host *unknown = NULL;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (host_may_have(host, unit))
            return host;
        if (host->state == MACHINE_EXPECTED ||
            (host_is_unknown(host) && known != NULL && core_is_former(known, host)))
            unknown = host;
    }
    return unknown;
}

static void status_unwanted(struct core_status *status, const struct core *core, const char *unit,
                            enum unit_outcome goal)
{
    const struct host *host = who_has(core, unit);
    const struct core_report *report;

    if (host == NULL) {
        set(status, goal, xstrdup(""));
        return;
    }
    report = host_report(host, unit);
    set_report(status, report);
    memcpy(status->machine_id, host->id, sizeof status->machine_id);
    if (report == NULL)
        set(status, OUTCOME_WAITING,
            xasprintf("%s has not said yet whether it still has it", core_hostname(core, host->id)));
    else
        set(status, OUTCOME_WAITING,
            xasprintf("being stopped on %s (%s/%s)%s%s", core_hostname(core, host->id), report->active_state,
                      report->sub_state, report->error[0] != '\0' ? ": " : "", report->error));
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list != NULL; list++)
        if (streq(word, *list))
            return true;
    return false;
}

enum unit_outcome core_judge_report(enum unit_state desired, const struct core_report *report)
{
    static const char *const up[] = {"active", "reloading", NULL};
    bool done = streq(report->result, "done");

    if (desired == UNIT_STATE_LOADED)
        return done ? OUTCOME_LOADED : OUTCOME_FAILED;
    if (streq(report->active_state, "failed"))
        return OUTCOME_FAILED;
    if (streq(report->result, "error")) /* systemd has refused this content: what runs is an older one. */
        return OUTCOME_FAILED;
    if (is_one_of(report->active_state, up))
        return OUTCOME_ACTIVE;
    if (!done)
        return OUTCOME_FAILED;
    if (streq(report->active_state, "inactive"))
        return OUTCOME_FINISHED;
    return OUTCOME_WAITING;
}

/* The host says that it is done, but what runs there is older than the restart that was asked for. */
static bool lacks_restart(const struct registry_unit *unit, const struct core_report *report)
{
    return report->generation >= unit->generation && streq(report->result, "done") &&
           report->asked < unit->restart;
}

static bool is_carried_out(const struct registry_unit *unit, const struct core_report *report)
{
    return report != NULL && report->generation >= unit->generation && !lacks_restart(unit, report);
}

static char *failure_text(const struct core *core, const char *machine_id, const char *unit,
                          const struct core_report *report)
{
    if (report->error[0] != '\0')
        return xstrdup(report->error);
    return xasprintf("%s/%s, the start's result is \"%s\" (see: journalctl -u %s, on %s)",
                     report->active_state, report->sub_state, report->result, unit,
                     core_hostname(core, machine_id));
}

/* Of a lost machine that may run an older copy, with OnDisconnect=keep, of what has OnDisconnect=stop. */
static char *lost_text(const struct core *core, const struct host *host)
{
    const char *name = core_hostname(core, host->id);

    return xasprintf(
        "%s was lost before it had carried out OnDisconnect=stop, and may run an older copy on: nothing "
        "is started until it is back, or you are sure that it is off (fleetctl confirm-lost %s)",
        name, name);
}

static char *waiting_text(const struct core *core, const struct registry_unit *unit, const struct host *host,
                          const struct core_report *report)
{
    const char *name = core_hostname(core, host->id);
    const struct host *holder = core_held_by(core, unit, host->id);
    const char *peer = core_awaited_peer(core, host, unit), *conflict = core_awaited_conflict(host, unit);

    if (host->state == MACHINE_EXPECTED)
        return xasprintf("%s has not called the leader yet", name);
    if (host->state == MACHINE_SUSPECTED)
        return xasprintf("%s does not answer at the moment", name);
    if (core_lease_ends(host, unit))
        return xasprintf("fleetd does not answer on %s, and its lease ends: it is placed anew where it fits",
                         name);
    if (host->state == MACHINE_HUNG)
        return xasprintf("fleetd does not answer on %s, though the machine does: what runs there runs on",
                         name);
    if (host->state == MACHINE_MISSING && core_is_awaited(core, host))
        return xasprintf(
            "%s was a machine of the cluster that this one was restored from, and has not joined "
            "it: nothing is moved unless it is confirmed lost",
            name);
    if (host->state == MACHINE_MISSING)
        return xasprintf("%s is missing, together with others: nothing is moved unless it is confirmed lost",
                         name);
    if (holder == host)
        return xasprintf("%s is still stopping what it had", name);
    if (holder != NULL && core_lease_end_ms(core, holder, unit) != 0 && !host_may_have(holder, unit->name))
        return xasprintf("%s %s, and may run it for another %" PRIu64 " s", core_hostname(core, holder->id),
                         holder->state == MACHINE_LOST ? "is lost" : "has not called the leader yet",
                         (core_lease_end_ms(core, holder, unit) - core->now_ms + 999) / 1000);
    if (holder != NULL && holder->state == MACHINE_LOST)
        return lost_text(core, holder);
    if (holder != NULL && holder->leaving)
        return xasprintf("%s, which was removed, is still stopping it", core_hostname(core, holder->id));
    if (holder != NULL)
        return xasprintf("%s must let go of it first", core_hostname(core, holder->id));
    if (peer != NULL)
        return xasprintf("waits for %s to be on %s first (MachineOf)", peer, name);
    if (conflict != NULL)
        return xasprintf("%s is still stopping %s, which it conflicts with", name, conflict);
    if (report == NULL)
        return xasprintf("%s has just been told", name);
    if (lacks_restart(unit, report))
        return xasprintf(
            "the fleetd of %s is too old to restart units: it is restarted when that is upgraded", name);
    if (report->error[0] != '\0')
        return xasprintf("%s tries again: %s", name, report->error);
    return xasprintf("%s is at it (%s/%s)", name, report->active_state, report->sub_state);
}

/* The machine that runs a unit on until its new one does, or still stops it after that; NULL: none. One that
 * is being shut down and need not wait any longer stops everything, and says of it what it still can. */
static const struct host *old_home(const struct core *core, const struct registry_unit *unit)
{
    for (size_t i = 0; i < unit->former.count; i++) {
        const struct host *host = host_find(core->hosts, unit->former.items[i]);

        if (host != NULL && host->state != MACHINE_LOST && host->shutdown != SHUTDOWN_READY &&
            host_may_have(host, unit->name))
            return host;
    }
    return NULL;
}

/* It is active where it is: is that where it is to be? */
static void status_settled(struct core_status *status, const struct core *core,
                           const struct registry_unit *unit, enum unit_outcome outcome)
{
    const struct plan_change *move = core_is_drained(core, unit) ? core_drain_move(core, unit->name) : NULL;
    const struct host *old = unit->handover ? old_home(core, unit) : NULL;
    const struct host *lost = core_lost_with(core, unit, NULL);

    if (move != NULL)
        set(status, OUTCOME_WAITING,
            xasprintf("about to leave %s for %s", core_hostname(core, unit->target),
                      core_hostname(core, move->to)));
    else if (old != NULL)
        set(status, OUTCOME_WAITING, xasprintf("%s still stops it", core_hostname(core, old->id)));
    else if (core_is_drained(core, unit))
        set(status, outcome,
            xasprintf("%s %s, but it fits on no other machine (fleetctl explain %s)",
                      core_hostname(core, unit->target),
                      core_left_because(core, registry_machine(core->registry, unit->target)), unit->name));
    else if (lost != NULL)
        set(status, outcome,
            xasprintf("%s; but %s was lost before it had carried out OnDisconnect=stop, and may run an older "
                      "copy on "
                      "(if it is off: fleetctl confirm-lost %s)",
                      unit->reason, core_hostname(core, lost->id), core_hostname(core, lost->id)));
    else
        set(status, outcome, xstrdup(unit->reason));
}

static char *placed_failure_text(const struct core *core, const struct registry_unit *unit,
                                 const struct host *host, const struct core_report *report)
{
    _cleanup_(freep) char *text = failure_text(core, host->id, unit->name, report);
    const struct host *old = unit->handover ? old_home(core, unit) : NULL;

    if (old != NULL)
        return xasprintf("%s runs it on, for on %s it failed: %s", core_hostname(core, old->id),
                         core_hostname(core, host->id), text);
    if (core_avoids(core, unit, host->id) != NULL)
        return xasprintf("%s; no other machine fits on which it has not failed lately", text);
    return TAKE_PTR(text);
}

static void status_placed(struct core_status *status, const struct core *core,
                          const struct registry_unit *unit)
{
    const struct host *host = host_find(core->hosts, unit->target);
    const struct core_report *report = host != NULL ? host_report(host, unit->name) : NULL;
    enum unit_outcome outcome;

    memcpy(status->machine_id, unit->target, sizeof status->machine_id);
    status->wanted_count = 1;
    set_report(status, report);
    if (core_stays_lost(core, unit)) {
        set(status, OUTCOME_WAITING, lost_text(core, host));
        return;
    }
    if (host == NULL || host->state == MACHINE_LOST) {
        set(status, OUTCOME_WAITING,
            xasprintf("%s is lost, %s", core_hostname(core, unit->target),
                      core->idle ? "and nothing is placed: the leader has disable_engine set"
                                 : "it is being placed anew"));
        return;
    }
    if (host->state == MACHINE_MISSING || host->state == MACHINE_HUNG || !is_carried_out(unit, report)) {
        set(status, OUTCOME_WAITING, waiting_text(core, unit, host, report));
        return;
    }
    outcome = core_judge_report(unit->desired, report);
    if (outcome == OUTCOME_FAILED && core_may_restart(core, unit))
        set(status, OUTCOME_WAITING,
            xasprintf("it failed on %s, and it is about to show whether systemd starts it again there",
                      core_hostname(core, host->id)));
    else if (outcome == OUTCOME_FAILED && core_drain_move(core, unit->name) != NULL)
        set(status, OUTCOME_WAITING,
            xasprintf("it failed on %s, and is about to be tried elsewhere", core_hostname(core, host->id)));
    else if (outcome == OUTCOME_FAILED)
        set(status, outcome, placed_failure_text(core, unit, host, report));
    else if (outcome == OUTCOME_WAITING ||
             (host->state != MACHINE_READY && core_is_drained(core, unit))) /* It cannot leave yet. */
        set(status, OUTCOME_WAITING, waiting_text(core, unit, host, report));
    else
        status_settled(status, core, unit, outcome);
    status->done_count = status->outcome != OUTCOME_WAITING && status->outcome != OUTCOME_FAILED;
}

static int compare_pending(const void *name, const void *pending)
{
    return strcmp(name, ((const struct plan_pending *)pending)->unit);
}

const char *core_pending_reason(const struct plan *plan, const char *unit)
{
    const struct plan_pending *found =
        plan->pending_count > 0
            ? bsearch(unit, plan->pending, plan->pending_count, sizeof *plan->pending, compare_pending)
            : NULL;

    return found != NULL ? found->reason : "";
}

static void status_unplaced(struct core_status *status, const struct core *core,
                            const struct registry_unit *unit)
{
    size_t count;
    struct core_status_machine *machines = core_explain(core, unit, &count);
    bool fits = false;

    status->wanted_count = 1;
    if (core->leads && core->idle) {
        core_explain_free(machines, count);
        set(status, OUTCOME_WAITING,
            xstrdup("nothing is placed: the leader has disable_engine set, and no other host can lead"));
        return;
    }
    for (size_t i = 0; i < count; i++)
        fits = fits || machines[i].reason[0] == '\0';
    if (fits || (core->plan_wanted && count == 0)) {
        core_explain_free(machines, count);
        set(status, OUTCOME_WAITING, xstrdup("about to be placed"));
        return;
    }
    status->machines = machines;
    status->machine_count = count;
    set(status, OUTCOME_UNPLACED, xstrdup(core_pending_reason(core_plan(core), unit->name)));
}

/* Adds what one machine has made of a global unit. Returns whether it is still at it. */
static bool add_global(struct core_status *status, const struct core *core, const struct registry_unit *unit,
                       const struct host *host)
{
    const struct core_report *report = host_report(host, unit->name);
    enum unit_outcome outcome;

    status->wanted_count++;
    if (!is_carried_out(unit, report)) {
        _cleanup_(freep) char *why = waiting_text(core, unit, host, report);

        set(status, OUTCOME_WAITING, xstrdup(why));
        return true;
    }
    outcome = core_judge_report(unit->desired, report);
    if (outcome == OUTCOME_FAILED) {
        _cleanup_(freep) char *why = failure_text(core, host->id, unit->name, report);

        add_machine(status, core, host->id, why);
    } else if (outcome != OUTCOME_WAITING) {
        status->done_count++;
    } else {
        set(status, OUTCOME_WAITING, waiting_text(core, unit, host, report));
        return true;
    }
    return false;
}

static void status_global(struct core_status *status, const struct core *core,
                          const struct registry_unit *unit)
{
    bool waiting = false;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->state != MACHINE_LOST && core_machine_wants(core, host->id, unit))
            waiting = add_global(status, core, unit, host) || waiting;
    if (waiting)
        return;
    if (status->machine_count > 0)
        set(status, OUTCOME_FAILED,
            xasprintf("failed on %zu of %zu machines", status->machine_count, status->wanted_count));
    else
        set(status, unit->desired == UNIT_STATE_LOADED ? OUTCOME_LOADED : OUTCOME_ACTIVE,
            xasprintf("on %zu machines", status->wanted_count));
}

struct core_status *core_status_new(const struct core *core, const char *name)
{
    const struct registry_unit *unit = registry_unit(core->registry, name);
    struct core_status *status = NEW0(struct core_status);

    set_report(status, NULL);
    if (unit == NULL)
        status_unwanted(status, core, name, OUTCOME_GONE);
    else if (unit->desired == UNIT_STATE_INACTIVE)
        status_unwanted(status, core, name, OUTCOME_INACTIVE);
    else if (unit->requirements->global)
        status_global(status, core, unit);
    else if (unit->target[0] != '\0')
        status_placed(status, core, unit);
    else
        status_unplaced(status, core, unit);
    return status;
}

void core_explain_free(struct core_status_machine *machines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(machines[i].hostname);
        free(machines[i].reason);
    }
    free(machines);
}

void core_status_free(struct core_status *status)
{
    if (status == NULL)
        return;
    core_explain_free(status->machines, status->machine_count);
    free(status->active_state);
    free(status->sub_state);
    free(status->reason);
    free(status);
}
