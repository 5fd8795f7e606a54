/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/fake-core.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"

void fake_core_report(struct core *core, const char *unit, const char *machine_id, const char *active,
                      bool launched)
{
    core->reports[core->report_count++] = (struct fake_report){
        .unit = unit,
        .machine_id = machine_id,
        .report = {.load_state = (char *)"loaded",
                   .active_state = (char *)active,
                   .sub_state = (char *)"running",
                   .hash = (char *)"abc",
                   .result = (char *)"done",
                   .error = (char *)"",
                   .generation = 7,
                   .launched = launched},
    };
}

void fake_core_status(struct core *core, const char *unit, enum unit_outcome outcome, const char *machine_id,
                      const char *reason)
{
    struct fake_status *status = NULL;

    for (size_t i = 0; i < core->status_count; i++)
        if (streq(core->statuses[i].unit, unit))
            status = &core->statuses[i];
    if (status == NULL)
        status = &core->statuses[core->status_count++];
    *status = (struct fake_status){.unit = unit,
                                   .outcome = outcome,
                                   .machine_id = machine_id,
                                   .reason = reason,
                                   .active = "",
                                   .sub = ""};
}

const char *machine_state_to_string(enum machine_state state)
{
    static const char *const words[] = {"expected", "ready", "suspected", "hung", "missing", "lost"};

    return words[state];
}

const char *unit_outcome_to_string(enum unit_outcome outcome)
{
    static const char *const words[] = {"waiting",  "active", "finished", "loaded",
                                        "inactive", "failed", "unplaced", "gone"};

    return words[outcome];
}

bool core_leads(const struct core *core)
{
    return core->leads;
}

enum machine_state core_machine_state(const struct core *core, const char *machine_id)
{
    if (core->lost != NULL && streq(core->lost, machine_id))
        return MACHINE_LOST;
    if (core->missing != NULL && streq(core->missing, machine_id))
        return MACHINE_MISSING;
    if (core->expected != NULL && streq(core->expected, machine_id))
        return MACHINE_EXPECTED;
    return MACHINE_READY;
}

uint64_t core_machine_silent_ms(const struct core *core, const char *machine_id, uint64_t now_ms)
{
    return core->lost != NULL && streq(core->lost, machine_id) ? 34000 : 0;
}

const struct core_report *core_report(const struct core *core, const char *machine_id, const char *unit)
{
    for (size_t i = 0; i < core->report_count; i++)
        if (streq(core->reports[i].unit, unit) && streq(core->reports[i].machine_id, machine_id))
            return &core->reports[i].report;
    return NULL;
}

bool core_machine_had(const struct core *core, const char *machine_id, const char *unit)
{
    return core_machine_state(core, machine_id) == MACHINE_LOST && core->lost_had != NULL &&
           streq(core->lost_had, unit);
}

bool core_machine_leaves(const struct core *core, const char *machine_id)
{
    return core->leaving != NULL && streq(core->leaving, machine_id);
}

bool core_machine_awaited(const struct core *core, const char *machine_id)
{
    return core_machine_leaves(core, machine_id);
}

bool core_machine_shuts_down(const struct core *core, const char *machine_id)
{
    return core->going != NULL && streq(core->going, machine_id);
}

void core_reports_each(const struct core *core,
                       void (*each)(const char *unit, const char *machine_id,
                                    const struct core_report *report, void *data),
                       void *data)
{
    for (size_t i = 0; i < core->report_count; i++)
        if (core_machine_state(core, core->reports[i].machine_id) != MACHINE_LOST)
            each(core->reports[i].unit, core->reports[i].machine_id, &core->reports[i].report, data);
}

bool core_machine_wants(const struct core *core, const char *machine_id, const struct registry_unit *unit)
{
    return unit->requirements->global ? unit->desired != UNIT_STATE_INACTIVE
                                      : streq(unit->target, machine_id);
}

static const struct fake_status *find_status(const struct core *core, const char *unit)
{
    for (size_t i = 0; i < core->status_count; i++)
        if (streq(core->statuses[i].unit, unit))
            return &core->statuses[i];
    return NULL;
}

struct core_status *core_status_new(const struct core *core, const char *unit)
{
    const struct fake_status *fake = find_status(core, unit);
    struct core_status *status = NEW0(struct core_status);

    ((struct core *)core)->questions++;
    status->outcome = registry_unit(core->registry, unit) != NULL ? OUTCOME_WAITING : OUTCOME_GONE;
    if (fake != NULL) {
        status->outcome = fake->outcome;
        snprintf(status->machine_id, sizeof status->machine_id, "%s", fake->machine_id);
    }
    status->active_state = xstrdup(fake != NULL ? fake->active : "");
    status->sub_state = xstrdup(fake != NULL ? fake->sub : "");
    status->reason = xstrdup(fake != NULL ? fake->reason : "");
    if (fake != NULL && fake->machine != NULL) {
        status->machines = NEW0(struct core_status_machine);
        status->machine_count = 1;
        snprintf(status->machines[0].machine_id, MACHINE_ID_SIZE, "%s", fake->machine);
        status->machines[0].hostname = xstrdup("");
        status->machines[0].reason = xstrdup(fake->machine_reason);
    }
    return status;
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

struct core_status_machine *core_explain(const struct core *core, const struct registry_unit *unit,
                                         size_t *ret_count)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);
    struct core_status_machine *list = xcalloc(count, sizeof *list);

    for (size_t i = 0; i < count; i++) {
        snprintf(list[i].machine_id, MACHINE_ID_SIZE, "%s", machines[i]->id);
        list[i].hostname = xstrdup(machines[i]->hostname);
        list[i].reason = xstrdup(i == 0 ? "" : "too far");
    }
    *ret_count = count;
    return list;
}

void core_explain_free(struct core_status_machine *machines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(machines[i].hostname);
        free(machines[i].reason);
    }
    free(machines);
}
