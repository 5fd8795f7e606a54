/* SPDX-License-Identifier: Apache-2.0 */
/* Units that keep failing where they are, and are to be tried elsewhere: FailureLimitBurst= failures within
 * FailureLimitIntervalSec= on one machine, or one after which systemd does not start the unit again. That
 * machine is then avoided for this unit, for as long as the interval: it is placed there only if no other
 * fits, and leaves it if one does. What a unit does not say of the two, the cluster's settings say; a burst
 * of 0: never, the default. Part of the core; known to this leader only: the next one begins to count anew.
 *
 *      counted --limit--> avoided --time is over--> remembered --as long again--> forgotten
 *                            ^                          |
 *                            \--limit, twice as long----/
 *
 * So what fails on every machine goes round ever more slowly, at last once a day. Where a unit has failed for
 * good and still is, the machine stays avoided: it leaves as soon as another may be tried again.
 *
 * A failure is a report that says "failed", or "auto-restart", after one that did not; or that a unit is
 * found failed when its machine calls, or when the cluster's limit is changed. systemd (252) says "failed"
 * for a moment of a unit that it is about to restart, too: only what stays so has failed for good. */
#pragma once

#include <uthash.h>

#include "fleetd/core/core.h"

#define FAILURES_MAX 32u /* The largest burst. */

/* A unit that has been reported failed for so long is not restarted by systemd. */
#define FAILED_FOR_GOOD_MS 1000u

/* After 'burst' failures within 'interval_ms'; a burst of 0: never. */
struct failure_limit {
    unsigned burst;
    bool own; /* The burst is the unit's, not the cluster's. */
    uint64_t interval_ms;
};

/* On one machine. */
struct failing {
    char machine_id[MACHINE_ID_SIZE];
    uint64_t times_ms[FAILURES_MAX]; /* A ring: of the latest failures. */
    size_t count;                    /* Since it is kept. */
    uint64_t judge_ms; /* It was failed: if it still is then, it has failed for good; 0: nothing to judge. */
    bool avoided;
    uint64_t avoid_ms; /* For how long, this time or the last; 0: it was not. */
    uint64_t until_ms; /* It is avoided, or remembered, until then. */
    /* Why it is avoided: so many failures reached this limit, or systemd gave up. */
    struct failure_limit limit;
    unsigned failures;
    bool gave_up;
    struct failing *prev, *next;
};

struct failing_unit {
    char *unit;
    char hash[UNIT_HASH_SIZE]; /* Of its content then. */
    struct failing *machines;  /* In the order of its first failure there. */
    UT_hash_handle hh;
};

/* Whether what a report says is a failure; and one that may be for good. */
bool core_is_failing(const struct core_report *report);
bool core_has_failed(const struct core_report *report);

/* The unit has failed on the machine where it is placed, just now: if it is to be tried elsewhere from now
 * on, that is said. */
void core_note_failure(struct core *core, const struct registry_unit *unit, const struct core_report *report,
                       struct effects *out);

/* Whether it has just failed where it is, and it is about to show whether systemd starts it again there. */
bool core_may_restart(const struct core *core, const struct registry_unit *unit);

/* The record by which the unit avoids the machine now, or NULL. */
const struct failing *core_avoids(const struct core *core, const struct registry_unit *unit,
                                  const char *machine_id);

/* That record as a sentence without its subject: "has failed 3 times within 10min on host-a (...)". The
 * caller owns it. */
char *core_failing_text(const struct core *core, const struct failing *failing);

/* Where a unit has failed lately, as a list; NULL: nowhere. Borrowed until the next failure or settling. */
const struct failing *core_failures(const struct core *core, const char *unit);

/* What systemd has given up is to be tried elsewhere; what has been long enough ago is forgotten, and so is
 * what somebody has stopped, changed or removed since. */
void core_judge_failures(struct core *core, struct effects *out);
/* Units have changed: that is to be looked at when it settles. */
void core_review_failures(struct core *core);
void core_forget_all_failures(struct core *core);
/* The cluster's limit has changed: where there is none any more, nothing is avoided, or counted. */
void core_forget_unlimited(struct core *core);
uint64_t core_failures_deadline_ms(const struct core *core); /* When to judge again. */
