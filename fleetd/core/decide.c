/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/alloc.h"
#include "fleetd/core/core_private.h"

/* Of one placement in a command, without name and reason: two machine ids, a number, and what frames them. */
#define PLACEMENT_BYTES (2 * MACHINE_ID_SIZE + 32)

/* ---- the plan ---- */

static void add_machines(const struct core *core, struct decision *decision)
{
    size_t count, label_count = 0, used = 0;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        label_count += machines[i]->label_count;
    decision->machines = xcalloc(count, sizeof *decision->machines);
    decision->labels = xcalloc(label_count, sizeof *decision->labels);
    for (size_t i = 0; i < count; i++) {
        enum machine_state state = core_machine_state(core, machines[i]->id);

        decision->machines[i] = (struct plan_machine){
            .id = machines[i]->id,
            .hostname = machines[i]->hostname,
            .labels = decision->labels + used,
            .label_count = machines[i]->label_count,
            .available = state == MACHINE_READY,
            .lost = state == MACHINE_LOST,
        };
        for (size_t j = 0; j < machines[i]->label_count; j++)
            decision->labels[used++] =
                (struct plan_label){machines[i]->labels[j].key, machines[i]->labels[j].value};
    }
    decision->facts.machines = decision->machines;
    decision->facts.machine_count = count;
}

static void add_units(const struct core *core, struct decision *decision)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    decision->units = xcalloc(count, sizeof *decision->units);
    for (size_t i = 0; i < count; i++)
        decision->units[i] = (struct plan_unit){
            .name = units[i]->name,
            .requirements = units[i]->requirements,
            .desired = units[i]->desired,
            .target = units[i]->target[0] != '\0' ? units[i]->target : NULL,
        };
    decision->facts.units = decision->units;
    decision->facts.unit_count = count;
}

const struct plan *core_plan(const struct core *borrowed)
{
    struct core *core = (struct core *)borrowed; /* The plan is only a cache. */

    if (core->decision == NULL) {
        core->decision = NEW0(struct decision);
        add_machines(core, core->decision);
        add_units(core, core->decision);
        core->decision->plan = plan_new(&core->decision->facts);
    }
    return core->decision->plan;
}

void core_forget_plan(struct core *core)
{
    struct decision *decision = core->decision;

    if (decision == NULL)
        return;
    plan_free(decision->plan);
    free(decision->units);
    free(decision->labels);
    free(decision->machines);
    free(decision);
    core->decision = NULL;
}

/* ---- carrying it out ---- */

/* Returns false if there is no room for another one. A plan names each unit once. */
static bool add_placement(const struct core *core, struct effect *schedule, const struct plan_change *change,
                          size_t *bytes)
{
    const struct registry_unit *unit = registry_unit(core->registry, change->unit);
    struct core_placement *placement;

    *bytes += PLACEMENT_BYTES + strlen(change->unit) + strlen(change->reason);
    if (*bytes > CORE_SCHEDULE_BYTES && schedule->placement_count > 0)
        return false;
    placement = &schedule->placements[schedule->placement_count++];
    *placement = (struct core_placement){
        .unit = xstrdup(change->unit),
        .reason = xstrdup(change->reason),
        .generation = unit->generation,
        .former_gone = core_former_gone(core, unit),
    };
    memcpy(placement->from, unit->target, sizeof placement->from);
    snprintf(placement->to, sizeof placement->to, "%s", change->to != NULL ? change->to : "");
    return true;
}

static void log_placement(const struct core *core, const struct core_placement *placement,
                          struct effects *out)
{
    const struct registry_machine *to = registry_machine(core->registry, placement->to);

    if (to != NULL)
        effects_add_log(out, LOG_INFO, placement->to, placement->unit, "%s goes to %s: %s", placement->unit,
                        to->hostname, placement->reason);
    else
        effects_add_log(out, LOG_WARNING, placement->from, placement->unit, "%s loses its place: %s",
                        placement->unit, placement->reason);
}

void core_decide(struct core *core, struct effects *out)
{
    const struct plan *plan = core_plan(core);
    size_t index = out->count, bytes = 0;
    struct effect *schedule;

    if (plan->change_count == 0)
        return;
    schedule = effects_add(out, EFFECT_SCHEDULE);
    schedule->term = core->term;
    schedule->placements = xcalloc(plan->change_count, sizeof *schedule->placements);
    for (size_t i = 0; i < plan->change_count && !core->plan_wanted; i++)
        core->plan_wanted = !add_placement(core, schedule, &plan->changes[i], &bytes);
    core->schedule_in_flight = true;
    /* Adding effects moves the array: look the schedule up by its index. */
    for (size_t i = 0; i < out->items[index].placement_count; i++)
        log_placement(core, &out->items[index].placements[i], out);
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
