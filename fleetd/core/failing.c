/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/failing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "fleetd/core/core_private.h"

struct limit {
    unsigned burst;
    uint64_t interval_ms;
};

/* The unit's own, or the cluster's. */
static struct limit limit_of(const struct core *core, const struct registry_unit *unit)
{
    const struct requirements *r = unit->requirements;

    return (struct limit){
        .burst = r->has_failure_limit ? r->failure_burst : core->failure_burst,
        .interval_ms = r->failure_interval_ms > 0 ? r->failure_interval_ms : core->failure_interval_ms,
    };
}

static struct failing_unit *find_unit(const struct core *core, const char *unit)
{
    struct failing_unit *found;

    HASH_FIND_STR(core->failing, unit, found);
    return found;
}

static struct failing *find(const struct failing_unit *unit, const char *machine_id)
{
    struct failing *failing;

    DL_FOREACH (unit->machines, failing)
        if (streq(failing->machine_id, machine_id))
            return failing;
    return NULL;
}

static void forget(struct core *core, struct failing_unit *unit, struct failing *failing)
{
    core->avoided_count -= failing->avoided;
    DL_DELETE(unit->machines, failing);
    free(failing);
    if (unit->machines != NULL)
        return;
    HASH_DEL(core->failing, unit);
    free(unit->unit);
    free(unit);
}

static struct failing *get(struct core *core, const struct registry_unit *unit)
{
    struct failing_unit *known = find_unit(core, unit->name);
    struct failing *failing;

    if (known == NULL) {
        known = NEW0(struct failing_unit);
        known->unit = xstrdup(unit->name);
        memcpy(known->hash, unit->content->hash, sizeof known->hash);
        HASH_ADD_KEYPTR(hh, core->failing, known->unit, strlen(known->unit), known);
    }
    failing = find(known, unit->target);
    if (failing == NULL) {
        failing = NEW0(struct failing);
        snprintf(failing->machine_id, sizeof failing->machine_id, "%s", unit->target);
        DL_APPEND(known->machines, failing);
    }
    return failing;
}

bool core_is_failing(const struct core_report *report)
{
    return report->launched &&
           (streq(report->active_state, "failed") || streq(report->sub_state, "auto-restart"));
}

/* How many of the kept failures are no older than the interval. */
static unsigned recent(const struct core *core, const struct failing *failing, uint64_t interval_ms)
{
    unsigned n = 0;

    for (size_t i = 0; i < failing->count && i < FAILURES_MAX; i++)
        n += core->now_ms - failing->times_ms[i] <= interval_ms;
    return n;
}

bool core_note_failure(struct core *core, const struct registry_unit *unit, const struct core_report *report)
{
    const struct limit limit = limit_of(core, unit);
    struct failing *failing;

    if (limit.burst == 0 || unit->requirements->global)
        return false;
    failing = get(core, unit);
    failing->times_ms[failing->count++ % FAILURES_MAX] = core->now_ms;
    failing->until_ms = core->now_ms + limit.interval_ms;
    if (failing->until_ms < core->failures_due_ms)
        core->failures_due_ms = failing->until_ms;
    /* What has failed for good fails no second time. */
    if (failing->avoided ||
        (!streq(report->active_state, "failed") && recent(core, failing, limit.interval_ms) < limit.burst))
        return false;
    failing->avoided = true;
    core->avoided_count++;
    return true;
}

const struct failing *core_failures(const struct core *core, const char *unit)
{
    const struct failing_unit *known = find_unit(core, unit);

    return known != NULL ? known->machines : NULL;
}

const struct failing *core_avoids(const struct core *core, const struct registry_unit *unit,
                                  const char *machine_id)
{
    const struct failing_unit *known = core->avoided_count > 0 ? find_unit(core, unit->name) : NULL;
    const struct failing *failing = known != NULL ? find(known, machine_id) : NULL;

    return failing != NULL && failing->avoided ? failing : NULL;
}

/* Whether its failures say nothing of what is wanted now. */
static bool is_history(const struct core *core, const struct failing_unit *failing)
{
    const struct registry_unit *unit = registry_unit(core->registry, failing->unit);

    return unit == NULL || unit->desired != UNIT_STATE_LAUNCHED || !streq(unit->content->hash, failing->hash);
}

void core_review_failures(struct core *core)
{
    core->failures_due_ms = 0;
}

bool core_forget_failures(struct core *core)
{
    struct failing_unit *unit, *next_unit;
    size_t avoided = core->avoided_count;

    if (core->now_ms < core->failures_due_ms)
        return false;
    core->failures_due_ms = UINT64_MAX;
    HASH_ITER (hh, core->failing, unit, next_unit) {
        struct failing *failing, *next;
        bool history = is_history(core, unit);

        DL_FOREACH_SAFE (unit->machines, failing, next) {
            if (!history && core->now_ms < failing->until_ms && failing->until_ms < core->failures_due_ms)
                core->failures_due_ms = failing->until_ms;
            if (history || core->now_ms >= failing->until_ms)
                forget(core, unit, failing); /* The last one takes the unit along. */
        }
    }
    return core->avoided_count < avoided;
}

void core_forget_all_failures(struct core *core)
{
    while (core->failing != NULL)
        forget(core, core->failing, core->failing->machines);
    core->failures_due_ms = UINT64_MAX;
}

uint64_t core_failures_deadline_ms(const struct core *core)
{
    return core->failures_due_ms;
}
