/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "fleetd/core/failing.h"

/* Of one placement in a command, without name and reason: two machine ids, a number, and what frames them. */
#define PLACEMENT_BYTES (2 * MACHINE_ID_SIZE + 32)

/* ---- the plan ---- */

static const char *unavailable_text(const struct core *core, const struct registry_machine *machine,
                                    enum machine_state state)
{
    if (state == MACHINE_READY && core_machine_shuts_down(core, machine->id))
        return "the machine is shutting down";
    if (machine->availability == MACHINE_CORDONED)
        return "the machine is cordoned";
    if (machine->availability == MACHINE_DRAINING)
        return "the machine is being drained";
    return state == MACHINE_READY  ? NULL
           : state == MACHINE_HUNG ? "fleetd does not answer there"
                                   : "the machine does not answer at the moment";
}

static void add_machines(const struct core *core, bool drained, struct decision *decision)
{
    size_t count, label_count = 0, used = 0;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        label_count += machines[i]->label_count;
    decision->machines = xcalloc(count, sizeof *decision->machines);
    decision->labels = xcalloc(label_count, sizeof *decision->labels);
    for (size_t i = 0; i < count; i++) {
        enum machine_state state = core_machine_state(core, machines[i]->id);
        const char *left_because = drained ? core_left_because(core, machines[i]) : NULL;

        decision->machines[i] = (struct plan_machine){
            .id = machines[i]->id,
            .hostname = machines[i]->hostname,
            .labels = decision->labels + used,
            .label_count = machines[i]->label_count,
            .available = state == MACHINE_READY && machines[i]->availability == MACHINE_ACTIVE &&
                         !core_machine_shuts_down(core, machines[i]->id),
            .unavailable = unavailable_text(core, machines[i], state),
            .lost = state == MACHINE_LOST || left_because != NULL,
            .left_because = state != MACHINE_LOST ? left_because : NULL,
        };
        for (size_t j = 0; j < machines[i]->label_count; j++)
            decision->labels[used++] =
                (struct plan_label){machines[i]->labels[j].key, machines[i]->labels[j].value};
    }
    decision->facts.machines = decision->machines;
    decision->facts.machine_count = count;
}

static void add_avoided(const struct core *core, struct decision *decision)
{
    const struct failing *failing;
    size_t used = 0;

    decision->avoided = xcalloc(core->avoided_count, sizeof *decision->avoided);
    for (size_t i = 0; core->avoided_count > 0 && i < decision->facts.unit_count; i++) {
        struct plan_unit *unit = &decision->units[i];

        unit->avoided = decision->avoided + used;
        LL_FOREACH (core_failures(core, unit->name), failing)
            if (failing->avoided)
                decision->avoided[used++] = failing->machine_id;
        unit->avoided_count = (size_t)(decision->avoided + used - unit->avoided);
    }
}

/* Whether it is to be placed anew, where that is possible. */
static bool wants_away(const struct core *core, const struct registry_unit *unit)
{
    return unit->target[0] != '\0' && core_leaves_failing(core, unit);
}

/* Where the unit is placed, as far as the plan is concerned: a place where its lease ends is none. */
static const char *place_of(const struct core *core, const struct registry_unit *unit)
{
    const struct host *host = host_find(core->hosts, unit->target);

    if (unit->target[0] == '\0' || (host != NULL && core_lease_ends(host, unit)))
        return NULL;
    return unit->target;
}

static void add_units(const struct core *core, bool drained, const bool *stays, struct decision *decision)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    decision->units = xcalloc(count, sizeof *decision->units);
    for (size_t i = 0; i < count; i++) {
        bool away = drained && !(stays != NULL && stays[i]) && wants_away(core, units[i]);

        decision->units[i] = (struct plan_unit){
            .name = units[i]->name,
            .requirements = units[i]->requirements,
            .desired = units[i]->desired,
            .target = away ? NULL : place_of(core, units[i]),
            .pinned = core_stays_lost(core, units[i]),
        };
    }
    decision->facts.units = decision->units;
    decision->facts.unit_count = count;
    add_avoided(core, decision);
}

struct decision *core_decision_new(const struct core *core, bool drained, const bool *stays)
{
    struct decision *decision = NEW0(struct decision);

    add_machines(core, drained, decision);
    add_units(core, drained, stays, decision);
    decision->plan = plan_new(&decision->facts);
    return decision;
}

void core_decision_free(struct decision *decision)
{
    if (decision == NULL)
        return;
    plan_free(decision->plan);
    free(decision->units);
    free(decision->avoided);
    free(decision->labels);
    free(decision->machines);
    free(decision);
}

const struct plan *core_plan(const struct core *borrowed)
{
    struct core *core = (struct core *)borrowed; /* The plan is only a cache. */

    if (core->decision == NULL)
        core->decision = core_decision_new(core, false, NULL);
    return core->decision->plan;
}

void core_forget_plan(struct core *core)
{
    core_decision_free(core->decision);
    core->decision = NULL;
    core_drain_free(core->drain);
    core->drain = NULL;
}

/* ---- carrying it out ---- */

/* Adds a placement. Returns false if there is no room for another one: the rest comes when this is through.
 */
static bool add_placement(struct core *core, struct effect *schedule, const struct registry_unit *unit,
                          const char *to, const char *reason, bool handover)
{
    struct core_placement *placement;

    schedule->bytes += PLACEMENT_BYTES + strlen(unit->name) + strlen(reason);
    if (schedule->bytes > CORE_SCHEDULE_BYTES && schedule->placement_count > 0) {
        core->plan_wanted = true;
        return false;
    }
    GROW(schedule->placements, schedule->placement_capacity, schedule->placement_count + 1);
    placement = &schedule->placements[schedule->placement_count++];
    *placement = (struct core_placement){
        .unit = xstrdup(unit->name),
        .reason = xstrdup(reason),
        .generation = unit->generation,
        .former_gone = core_former_forgotten(core, unit),
        .handover = handover,
        .leased = to != NULL && streq(unit->target, to) && core_becomes_leased(core, unit),
    };
    memcpy(placement->from, unit->target, sizeof placement->from);
    snprintf(placement->to, sizeof placement->to, "%s", to != NULL ? to : "");
    return true;
}

/* Who runs it while it is handed over goes on with that until the next machine has it. */
static bool is_handed_on(const struct core *core, const struct registry_unit *unit)
{
    return unit->handover && !core_former_gone(core, unit);
}

/* Of what the plan changes, or else of what leaves the machines that are drained: a plan without them is made
 * from a cluster that is as the plan with them wants it. A plan names each unit once. */
static bool add_moves(struct core *core, struct effect *schedule)
{
    const struct plan *plan = core_plan(core);
    const struct drain *drain;

    for (size_t i = 0; i < plan->change_count; i++) {
        const struct registry_unit *unit = registry_unit(core->registry, plan->changes[i].unit);

        if (!add_placement(core, schedule, unit, plan->changes[i].to, plan->changes[i].reason,
                           is_handed_on(core, unit)))
            return false;
    }
    drain = plan->change_count == 0 ? core_drain(core) : NULL;
    for (size_t i = 0; drain != NULL && i < drain->decision->plan->change_count; i++) {
        const struct plan_change *change = &drain->decision->plan->changes[i];
        const struct registry_unit *unit = registry_unit(core->registry, change->unit);
        _cleanup_(freep) char *reason = drain->leaves[i] ? core_leave_reason(core, unit, change) : NULL;

        if (drain->leaves[i] && !add_placement(core, schedule, unit, change->to, reason,
                                               is_handed_on(core, unit) || core_may_hand_over(core, unit)))
            return false;
    }
    return true;
}

bool core_has_ended(const struct core *core, const struct registry_unit *unit)
{
    if (unit->target[0] == '\0')
        return false;
    return (unit->handover && core_former_gone(core, unit)) || core_becomes_leased(core, unit) ||
           ((unit->former.count > 0 || unit->anywhere) && core_former_forgotten(core, unit));
}

/* What is over, of units that do not move now: old machines have let go. */
static void add_ends(struct core *core, struct effect *schedule)
{
    size_t count, moves = schedule->placement_count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++) {
        bool moved = false;

        if (!core_has_ended(core, units[i]))
            continue;
        for (size_t j = 0; j < moves && !moved; j++)
            moved = streq(schedule->placements[j].unit, units[i]->name);
        if (!moved && !add_placement(core, schedule, units[i], units[i]->target, units[i]->reason, false))
            return;
    }
}

static void log_placement(const struct core *core, const struct core_placement *placement,
                          struct effects *out)
{
    const struct registry_machine *to = registry_machine(core->registry, placement->to);

    if (streq(placement->from, placement->to))
        return; /* Nothing happens. */
    if (to != NULL)
        effects_add_log(out, NEWS_PLACED, LOG_INFO, placement->to, placement->unit, placement->reason,
                        "%s goes to %s: %s", placement->unit, to->hostname, placement->reason);
    else
        effects_add_log(out, NEWS_UNPLACED, LOG_WARNING, placement->from, placement->unit, placement->reason,
                        "%s loses its place: %s", placement->unit, placement->reason);
}

void core_decide(struct core *core, struct effects *out)
{
    struct effect schedule = {.kind = EFFECT_SCHEDULE, .term = core->term};

    if (add_moves(core, &schedule))
        add_ends(core, &schedule);
    if (schedule.placement_count == 0)
        return;
    core->schedule_in_flight = true;
    *effects_add(out, EFFECT_SCHEDULE) = schedule;
    for (size_t i = 0; i < schedule.placement_count; i++)
        log_placement(core, &schedule.placements[i], &core->news);
}

static bool has_come_true(const struct core *core, const struct effect *news)
{
    const struct registry_unit *unit = registry_unit(core->registry, news->names.items[0]);

    return unit != NULL && streq(unit->target, news->news == NEWS_PLACED ? news->machine_id : "");
}

void core_decision_done(struct core *core, struct effects *out)
{
    core->schedule_in_flight = false;
    for (size_t i = 0; i < core->news.count; i++) {
        if (!has_come_true(core, &core->news.items[i]))
            continue;
        *effects_add(out, EFFECT_LOG) = core->news.items[i];
        core->news.items[i] = (struct effect){0}; /* Given away. */
    }
    effects_done(&core->news);
}

/* ---- questions ---- */

bool core_machine_wants(const struct core *core, const char *machine_id, const struct registry_unit *unit)
{
    if (unit->desired == UNIT_STATE_INACTIVE)
        return false;
    if (!unit->requirements->global)
        return streq(unit->target, machine_id);
    return plan_global_wanted(core_plan(core), unit->name, machine_id, NULL);
}

struct core_status_machine *core_explain(const struct core *core, const struct registry_unit *unit,
                                         size_t *ret_count)
{
    _cleanup_(plan_explanation_freep) struct plan_explanation *explanation =
        plan_explain(core_plan(core), unit->name);
    struct core_status_machine *machines;

    *ret_count = 0;
    if (explanation == NULL)
        return NULL;
    machines = xcalloc(explanation->count, sizeof *machines);
    for (size_t i = 0; i < explanation->count; i++) {
        const struct plan_verdict *verdict = &explanation->verdicts[i];
        const struct registry_machine *machine = registry_machine(core->registry, verdict->machine);

        snprintf(machines[i].machine_id, sizeof machines[i].machine_id, "%s", verdict->machine);
        machines[i].hostname = xstrdup(machine->hostname);
        machines[i].reason = xstrdup(verdict->text != NULL ? verdict->text : "");
    }
    *ret_count = explanation->count;
    return machines;
}
