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

static struct failing *find(const struct core *core, const char *unit, const char *machine_id)
{
    struct failing *failing;

    DL_FOREACH (core->failing, failing)
        if (streq(failing->unit, unit) && streq(failing->machine_id, machine_id))
            return failing;
    return NULL;
}

static void forget(struct core *core, struct failing *failing)
{
    DL_DELETE(core->failing, failing);
    free(failing->unit);
    free(failing);
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
    failing = find(core, unit->name, unit->target);
    if (failing == NULL) {
        failing = NEW0(struct failing);
        failing->unit = xstrdup(unit->name);
        memcpy(failing->hash, unit->content->hash, sizeof failing->hash);
        snprintf(failing->machine_id, sizeof failing->machine_id, "%s", unit->target);
        DL_APPEND(core->failing, failing);
    }
    failing->times_ms[failing->count++ % FAILURES_MAX] = core->now_ms;
    failing->until_ms = core->now_ms + limit.interval_ms;
    /* What has failed for good fails no second time. */
    if (streq(report->active_state, "failed") || recent(core, failing, limit.interval_ms) >= limit.burst)
        failing->avoided = true;
    return failing->avoided;
}

const struct failing *core_avoids(const struct core *core, const struct registry_unit *unit,
                                  const char *machine_id)
{
    const struct failing *failing = core->failing != NULL ? find(core, unit->name, machine_id) : NULL;

    return failing != NULL && failing->avoided ? failing : NULL;
}

static bool is_history(const struct core *core, const struct failing *failing)
{
    const struct registry_unit *unit = registry_unit(core->registry, failing->unit);

    return core->now_ms >= failing->until_ms || unit == NULL || unit->desired != UNIT_STATE_LAUNCHED ||
           !streq(unit->content->hash, failing->hash);
}

bool core_forget_failures(struct core *core)
{
    struct failing *failing, *next;
    bool changed = false;

    DL_FOREACH_SAFE (core->failing, failing, next) {
        if (!is_history(core, failing))
            continue;
        changed = changed || failing->avoided;
        forget(core, failing);
    }
    return changed;
}

void core_forget_all_failures(struct core *core)
{
    while (core->failing != NULL)
        forget(core, core->failing);
}

uint64_t core_failures_deadline_ms(const struct core *core)
{
    uint64_t deadline = UINT64_MAX;
    const struct failing *failing;

    DL_FOREACH (core->failing, failing)
        if (failing->until_ms < deadline)
            deadline = failing->until_ms;
    return deadline;
}
