/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/failing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"

/* The unit's own, or the cluster's. */
static struct failure_limit limit_of(const struct core *core, const struct registry_unit *unit)
{
    const struct requirements *r = unit->requirements;

    return (struct failure_limit){
        .burst = r->has_failure_limit
                     ? r->failure_burst
                     : (unsigned)registry_setting_number(core->registry, SETTING_FAILURE_LIMIT_BURST),
        .own = r->has_failure_limit,
        .interval_ms = r->failure_interval_ms > 0
                           ? r->failure_interval_ms
                           : registry_setting_number(core->registry, SETTING_FAILURE_LIMIT_INTERVAL),
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

bool core_has_failed(const struct core_report *report)
{
    return report->launched && streq(report->active_state, "failed");
}

bool core_is_failing(const struct core_report *report)
{
    return core_has_failed(report) || (report->launched && streq(report->sub_state, "auto-restart"));
}

/* How many of the kept failures are no older than the interval. */
static unsigned recent(const struct core *core, const struct failing *failing, uint64_t interval_ms)
{
    unsigned n = 0;

    for (size_t i = 0; i < failing->count && i < FAILURES_MAX; i++)
        n += core->now_ms - failing->times_ms[i] <= interval_ms;
    return n;
}

/* It stays as it is for so long from now at least. */
static void prolong(struct core *core, struct failing *failing, uint64_t ms)
{
    if (core->now_ms + ms > failing->until_ms)
        failing->until_ms = core->now_ms + ms;
    if (failing->until_ms < core->failures_due_ms)
        core->failures_due_ms = failing->until_ms;
}

char *core_failing_text(const struct core *core, const struct failing *failing)
{
    const struct registry_machine *machine = registry_machine(core->registry, failing->machine_id);
    const char *name = machine != NULL ? machine->hostname : failing->machine_id,
               *key = failing->limit.own ? "its FailureLimitBurst" : "the cluster's failure_limit_burst";
    _cleanup_(freep) char *interval = duration_format(failing->limit.interval_ms);

    if (failing->gave_up)
        return xasprintf("has failed on %s, where systemd does not start it again (%s=%u)", name, key,
                         failing->limit.burst);
    return failing->failures == 1 ? xasprintf("has failed on %s (%s=1)", name, key)
                                  : xasprintf("has failed %u times within %s on %s (%s=%u)",
                                              failing->failures, interval, name, key, failing->limit.burst);
}

/* For as long as the interval; if it was avoided lately, for twice as long as then. */
static void avoid(struct core *core, const struct registry_unit *unit, struct failing *failing,
                  struct effects *out)
{
    uint64_t ms =
        2 * failing->avoid_ms < FAILURE_INTERVAL_MAX_MS ? 2 * failing->avoid_ms : FAILURE_INTERVAL_MAX_MS;
    _cleanup_(freep) char *why = core_failing_text(core, failing);

    failing->judge_ms = 0;
    failing->avoided = true;
    failing->avoid_ms = ms > failing->limit.interval_ms ? ms : failing->limit.interval_ms;
    prolong(core, failing, failing->avoid_ms);
    core->avoided_count++;
    core_forget_plan(core);
    core->plan_wanted = true;
    core_mark(core, unit->name);
    effects_add_log(out, NEWS_UNIT_FAILS, LOG_WARNING, failing->machine_id, unit->name, why,
                    "%s %s: it is tried elsewhere, if it fits", unit->name, why);
}

void core_note_failure(struct core *core, const struct registry_unit *unit, const struct core_report *report,
                       struct effects *out)
{
    const struct failure_limit limit = limit_of(core, unit);
    struct failing *failing;

    if (limit.burst == 0 || unit->requirements->global)
        return;
    failing = get(core, unit);
    failing->times_ms[failing->count++ % FAILURES_MAX] = core->now_ms;
    prolong(core, failing, limit.interval_ms);
    if (failing->avoided)
        return;
    failing->limit = limit;
    failing->failures = recent(core, failing, limit.interval_ms);
    failing->gave_up = false;
    if (failing->failures >= limit.burst) {
        avoid(core, unit, failing, out);
        return;
    }
    failing->judge_ms = 0;
    if (core_has_failed(report)) {
        failing->judge_ms = core->now_ms + FAILED_FOR_GOOD_MS;
        prolong(core, failing, FAILED_FOR_GOOD_MS);
        if (failing->judge_ms < core->failures_due_ms)
            core->failures_due_ms = failing->judge_ms;
    }
}

bool core_may_restart(const struct core *core, const struct registry_unit *unit)
{
    const struct failing_unit *known = find_unit(core, unit->name);
    const struct failing *failing = known != NULL ? find(known, unit->target) : NULL;

    return failing != NULL && failing->judge_ms > 0;
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

/* Whether the unit is there, and systemd has given it up. */
static bool lies_there(const struct core *core, const struct registry_unit *unit,
                       const struct failing *failing)
{
    const struct core_report *report = core_report(core, failing->machine_id, unit->name);

    return streq(unit->target, failing->machine_id) && report != NULL && core_has_failed(report);
}

/* It was failed when it was looked at last. */
static void judge(struct core *core, const struct registry_unit *unit, struct failing *failing,
                  struct effects *out)
{
    failing->judge_ms = 0;
    failing->gave_up = lies_there(core, unit, failing) && !core_is_being_changed(core, unit);
    core_mark(core, unit->name);
    if (failing->gave_up)
        avoid(core, unit, failing, out);
}

/* Its time is over. Returns whether it is to be forgotten; otherwise it has another time. */
static bool is_over(struct core *core, const struct registry_unit *unit, struct failing *failing)
{
    if (!failing->avoided)
        return true;
    if (lies_there(core, unit, failing)) {
        prolong(core, failing, failing->limit.interval_ms);
        return false;
    }
    failing->avoided = false;
    core->avoided_count--;
    prolong(core, failing, failing->avoid_ms);
    return false;
}

static void judge_unit(struct core *core, struct failing_unit *known, struct effects *out)
{
    const struct registry_unit *unit = registry_unit(core->registry, known->unit);
    struct failing *failing, *next;
    bool history = is_history(core, known);

    DL_FOREACH_SAFE (known->machines, failing, next) {
        if (!history && failing->judge_ms > 0 && core->now_ms >= failing->judge_ms)
            judge(core, unit, failing, out);
        if (history || (core->now_ms >= failing->until_ms && is_over(core, unit, failing))) {
            forget(core, known, failing); /* The last one takes the unit along. */
            continue;
        }
        if (failing->until_ms < core->failures_due_ms)
            core->failures_due_ms = failing->until_ms;
        if (failing->judge_ms > 0 && failing->judge_ms < core->failures_due_ms)
            core->failures_due_ms = failing->judge_ms;
    }
}

void core_judge_failures(struct core *core, struct effects *out)
{
    struct failing_unit *unit, *next;
    size_t avoided = core->avoided_count;

    if (core->now_ms < core->failures_due_ms)
        return;
    core->failures_due_ms = UINT64_MAX;
    HASH_ITER (hh, core->failing, unit, next)
        judge_unit(core, unit, out);
    if (core->avoided_count >= avoided)
        return;
    core_forget_plan(core);
    core->plan_wanted = true;
}

void core_forget_unlimited(struct core *core)
{
    struct failing_unit *unit, *next_unit;

    HASH_ITER (hh, core->failing, unit, next_unit) {
        const struct registry_unit *known = registry_unit(core->registry, unit->unit);
        struct failing *failing, *next;

        if (known != NULL && limit_of(core, known).burst > 0)
            continue;
        DL_FOREACH_SAFE (unit->machines, failing, next)
            forget(core, unit, failing);
    }
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
