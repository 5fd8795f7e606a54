/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/drain.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"

bool core_is_drained(const struct core *core, const struct registry_unit *unit)
{
    const struct registry_machine *machine = registry_machine(core->registry, unit->target);

    return machine != NULL && machine->availability == MACHINE_DRAINING;
}

/* ---- what can leave ---- */

static bool is_together(const struct registry_unit *a, const struct registry_unit *b)
{
    return strlist_has(&a->requirements->machine_of, b->name) ||
           strlist_has(&b->requirements->machine_of, a->name);
}

/* Whether a unit leaves for 'to'. */
static bool leaves_for(const struct drain *drain, const char *unit, const char *to)
{
    const struct plan *plan = drain->decision->plan;

    for (size_t i = 0; i < plan->change_count; i++)
        if (drain->leaves[i] && streq(plan->changes[i].unit, unit))
            return streq(plan->changes[i].to, to);
    return false;
}

/* Units on the same machine that belong together; 'residents' are all units on machines that are drained. */
static bool leaves_nobody_behind(const struct drain *drain, const struct registry_unit *unit, const char *to,
                                 const struct registry_unit *const *residents, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (residents[i] != unit && is_together(unit, residents[i]) &&
            streq(residents[i]->target, unit->target) && !leaves_for(drain, residents[i]->name, to))
            return false;
    return true;
}

/* Takes out whoever would leave somebody behind, until nobody is. */
static void keep_together(const struct core *core, struct drain *drain,
                          const struct registry_unit *const *residents, size_t count)
{
    const struct plan *plan = drain->decision->plan;
    bool changed = true;

    while (changed) {
        changed = false;
        for (size_t i = 0; i < plan->change_count; i++) {
            const struct plan_change *change = &plan->changes[i];

            if (!drain->leaves[i] || leaves_nobody_behind(drain, registry_unit(core->registry, change->unit),
                                                          change->to, residents, count))
                continue;
            drain->leaves[i] = false;
            changed = true;
        }
    }
}

static struct drain *drain_new(const struct core *core)
{
    struct drain *drain = NEW0(struct drain);
    size_t count, resident_count = 0;
    const struct registry_unit *const *units = registry_units(core->registry, &count);
    _cleanup_(freep) const struct registry_unit **residents = xcalloc(count, sizeof *residents);
    const struct plan *plan;

    for (size_t i = 0; i < count; i++)
        if (units[i]->target[0] != '\0' && core_is_drained(core, units[i]))
            residents[resident_count++] = units[i];
    drain->decision = core_decision_new(core, true);
    plan = drain->decision->plan;
    drain->leaves = xcalloc(plan->change_count, sizeof *drain->leaves);
    for (size_t i = 0; i < plan->change_count; i++)
        drain->leaves[i] = plan->changes[i].from != NULL && plan->changes[i].to != NULL &&
                           core_is_drained(core, registry_unit(core->registry, plan->changes[i].unit));
    keep_together(core, drain, residents, resident_count);
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

const struct drain *core_drain(const struct core *borrowed)
{
    struct core *core = (struct core *)borrowed; /* Like the plan only a cache. */
    size_t count;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);

    for (size_t i = 0; i < count && core->drain == NULL; i++)
        if (machines[i]->availability == MACHINE_DRAINING)
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
           !conflicts_with_itself(unit);
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

bool core_hands_over(const struct core *core, const struct host *host, const struct registry_unit *unit)
{
    return unit->handover && host->state != MACHINE_LOST && strlist_has(&unit->former, host->id) &&
           host_may_have(host, unit->name) && !host_lets_go(host, unit->name) &&
           !core_handover_is_through(core, unit);
}
