/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/drain.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/failing.h"

/* How many peers of peers (MachineOf) are looked at, all in all: groups are small. */
#define FOLLOWED_MAX 64u

/* How many plans are made until what leaves and what stays agree: two will mostly do. */
#define ROUNDS_MAX 8u

bool core_is_drained(const struct core *core, const struct registry_unit *unit)
{
    const struct registry_machine *machine = registry_machine(core->registry, unit->target);

    return machine != NULL && core_left_because(core, machine) != NULL;
}

/* ---- what wants to leave ---- */

/* Follows MachineOf upwards; a circle is refused at submit, and ends here in any case. */
static const struct failing *fails_above(const struct core *core, const struct registry_unit *unit,
                                         unsigned *left)
{
    const struct failing *failing = core_avoids(core, unit, unit->target);
    const struct strlist *peers = &unit->requirements->machine_of;

    for (size_t i = 0; failing == NULL && *left > 0 && i < peers->count; i++) {
        const struct registry_unit *peer = registry_unit(core->registry, peers->items[i]);

        (*left)--;
        if (peer != NULL && streq(peer->target, unit->target))
            failing = fails_above(core, peer, left);
    }
    return failing;
}

bool core_leaves_failing(const struct core *core, const struct registry_unit *unit)
{
    unsigned left = FOLLOWED_MAX;

    return core->avoided_count > 0 && !unit->requirements->global && fails_above(core, unit, &left) != NULL;
}

char *core_leave_reason(const struct core *core, const struct registry_unit *unit,
                        const struct plan_change *change)
{
    const struct failing *failing =
        core_is_drained(core, unit) ? NULL : core_avoids(core, unit, unit->target);
    _cleanup_(freep) char *why = failing != NULL ? core_failing_text(core, failing) : NULL;

    return why != NULL ? xasprintf("%s; %s", why, change->reason) : xstrdup(change->reason);
}

/* ---- what can leave ---- */

/* Whether a unit leaves for 'to'. */
static bool leaves_for(const struct drain *drain, const char *unit, const char *to)
{
    const struct plan *plan = drain->decision->plan;

    for (size_t i = 0; i < plan->change_count; i++)
        if (drain->leaves[i] && streq(plan->changes[i].unit, unit))
            return streq(plan->changes[i].to, to);
    return false;
}

static bool is_left_behind(const struct drain *drain, const struct registry_unit *other,
                           const struct registry_unit *unit, const char *to)
{
    return other != NULL && !other->requirements->global && streq(other->target, unit->target) &&
           !leaves_for(drain, other->name, to);
}

/* 'followers' are all placed units that have a MachineOf. */
static bool leaves_nobody_behind(const struct core *core, const struct drain *drain,
                                 const struct registry_unit *unit, const char *to,
                                 const struct registry_unit *const *followers, size_t count)
{
    const struct strlist *peers = &unit->requirements->machine_of;

    for (size_t i = 0; i < peers->count; i++)
        if (is_left_behind(drain, registry_unit(core->registry, peers->items[i]), unit, to))
            return false;
    for (size_t i = 0; i < count; i++)
        if (strlist_has(&followers[i]->requirements->machine_of, unit->name) &&
            is_left_behind(drain, followers[i], unit, to))
            return false;
    return true;
}

/* Takes out whoever would leave somebody behind, until nobody is. */
static void keep_together(const struct core *core, struct drain *drain,
                          const struct registry_unit *const *followers, size_t count)
{
    const struct plan *plan = drain->decision->plan;
    bool changed = true;

    while (changed) {
        changed = false;
        for (size_t i = 0; i < plan->change_count; i++) {
            const struct plan_change *change = &plan->changes[i];

            if (!drain->leaves[i] ||
                leaves_nobody_behind(core, drain, registry_unit(core->registry, change->unit), change->to,
                                     followers, count))
                continue;
            drain->leaves[i] = false;
            changed = true;
        }
    }
}

bool core_is_being_changed(const struct core *core, const struct registry_unit *unit)
{
    const struct core_report *report = core_report(core, unit->target, unit->name);

    return report != NULL && report->launched && report->generation < unit->generation;
}

/* Also of units that the plan takes for new ones. Who does not answer keeps what it has until it does, or is
 * lost: what runs there is not known, or cannot be stopped. What is about to be restarted there would begin
 * on both machines. */
static bool can_leave(const struct core *core, const struct plan_change *change)
{
    const struct registry_unit *unit = registry_unit(core->registry, change->unit);

    return change->to != NULL && unit->target[0] != '\0' && !streq(change->to, unit->target) &&
           core_machine_state(core, unit->target) == MACHINE_READY && !core_is_being_changed(core, unit) &&
           (core_is_drained(core, unit) ||
            (core_leaves_failing(core, unit) && core_avoids(core, unit, change->to) == NULL));
}

static struct drain *plan_leaving(const struct core *core, const bool *stays,
                                  const struct registry_unit *const *followers, size_t count)
{
    struct drain *drain = NEW0(struct drain);
    const struct plan *plan;

    drain->decision = core_decision_new(core, true, stays);
    plan = drain->decision->plan;
    drain->leaves = xcalloc(plan->change_count, sizeof *drain->leaves);
    for (size_t i = 0; i < plan->change_count; i++)
        drain->leaves[i] = can_leave(core, &plan->changes[i]);
    keep_together(core, drain, followers, count);
    return drain;
}

/* Whether a unit is to be somewhere else by a plan that is not carried out. The others must not be placed by
 * that: it may be in their way where it stays. */
static bool stays_against(const struct drain *drain, const struct registry_unit *unit)
{
    const struct plan *plan = drain->decision->plan;

    for (size_t i = 0; i < plan->change_count; i++)
        if (streq(plan->changes[i].unit, unit->name))
            return !drain->leaves[i] &&
                   (plan->changes[i].to == NULL || !streq(plan->changes[i].to, unit->target));
    return true; /* It has no place in that plan. */
}

/* Adds to 'stays' who fails and cannot leave. Returns whether somebody was added. */
static bool add_stays(const struct core *core, const struct drain *drain, bool *stays, bool all)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);
    bool added = false;

    for (size_t i = 0; i < count; i++) {
        if (stays[i] || units[i]->target[0] == '\0' || !core_leaves_failing(core, units[i]) ||
            !(all || stays_against(drain, units[i])))
            continue;
        stays[i] = true;
        added = true;
    }
    return added;
}

static struct drain *drain_new(const struct core *core)
{
    size_t count, follower_count = 0;
    const struct registry_unit *const *units = registry_units(core->registry, &count);
    _cleanup_(freep) const struct registry_unit **followers = xcalloc(count, sizeof *followers);
    _cleanup_(freep) bool *stays = xcalloc(count, sizeof *stays);
    struct drain *drain;

    for (size_t i = 0; i < count; i++)
        if (units[i]->target[0] != '\0' && units[i]->requirements->machine_of.count > 0)
            followers[follower_count++] = units[i];
    drain = plan_leaving(core, stays, followers, follower_count);
    /* Each round has fewer that may leave; the last one has none that fails. */
    for (unsigned round = 1; core->avoided_count > 0 && add_stays(core, drain, stays, round == ROUNDS_MAX);
         round++) {
        core_drain_free(drain);
        drain = plan_leaving(core, stays, followers, follower_count);
    }
    return drain;
}

void core_drain_free(struct drain *drain)
{
    if (drain == NULL)
        return;
    core_decision_free(drain->decision);
    free(drain->leaves);
    free(drain);
}

/* Whether anything may have to leave. */
static bool is_wanted(const struct core *core)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (core_left_because(core, machines[i]) != NULL)
            return true;
    return core->avoided_count > 0;
}

const struct drain *core_drain(const struct core *borrowed)
{
    struct core *core = (struct core *)borrowed; /* Like the plan only a cache. */

    if (core->drain == NULL && is_wanted(core))
        core->drain = drain_new(core);
    return core->drain;
}

const struct plan_change *core_drain_move(const struct core *core, const char *unit)
{
    const struct drain *drain = core_drain(core);

    if (drain == NULL)
        return NULL;
    for (size_t i = 0; i < drain->decision->plan->change_count; i++)
        if (drain->leaves[i] && streq(drain->decision->plan->changes[i].unit, unit))
            return &drain->decision->plan->changes[i];
    return NULL;
}

bool core_drain_goes_on(const struct core *core, const char *machine_id)
{
    const struct drain *drain = core_drain(core);

    for (size_t i = 0; drain != NULL && i < drain->decision->plan->change_count; i++) {
        const struct plan_change *change = &drain->decision->plan->changes[i];
        const struct registry_unit *unit = registry_unit(core->registry, change->unit);

        if (streq(unit->target, machine_id) && change->to != NULL && !streq(change->to, machine_id) &&
            (drain->leaves[i] || core_is_being_changed(core, unit)))
            return true;
    }
    return false;
}

/* ---- handing over ---- */

static bool conflicts_with_itself(const struct registry_unit *unit)
{
    const struct strlist *patterns = &unit->requirements->conflicts;

    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], unit->name))
            return true;
    return false;
}

bool core_may_hand_over(const struct core *core, const struct registry_unit *unit)
{
    const struct host *host = host_find(core->hosts, unit->target);
    const struct core_report *report = host != NULL ? host_report(host, unit->name) : NULL;

    return host != NULL && host->state == MACHINE_READY && report != NULL && report->launched &&
           (streq(report->active_state, "active") || streq(report->active_state, "reloading")) &&
           !conflicts_with_itself(unit) && !core_needs_lease(unit);
}

bool core_handover_is_through(const struct core *core, const struct registry_unit *unit)
{
    const struct host *host = host_find(core->hosts, unit->target);
    const struct core_report *report = host != NULL ? host_report(host, unit->name) : NULL;
    enum unit_outcome outcome;

    if (report == NULL || host->state == MACHINE_LOST || report->generation < unit->generation)
        return false;
    outcome = core_judge_report(unit->desired, report);
    return outcome != OUTCOME_WAITING && outcome != OUTCOME_FAILED;
}

/* It has let go already, perhaps as another leader has told it: what it has of the unit does not run. */
static bool has_let_go(const struct host *host, const char *unit)
{
    const struct core_report *report = host_report(host, unit);

    return report != NULL && !report->launched && !core_runs(report);
}

bool core_hands_over(const struct core *core, const struct host *host, const struct registry_unit *unit)
{
    return unit->handover && host->state != MACHINE_LOST && strlist_has(&unit->former, host->id) &&
           host_may_have(host, unit->name) && !host_lets_go(host, unit->name) &&
           !has_let_go(host, unit->name) && !core_handover_is_through(core, unit);
}
