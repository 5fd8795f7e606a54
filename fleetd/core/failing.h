/* SPDX-License-Identifier: Apache-2.0 */
/* Units that keep failing where they are, and are to be tried elsewhere: FailureLimitBurst= failures within
 * FailureLimitIntervalSec= on one machine, or one after which systemd does not start the unit again. That
 * machine is then avoided for this unit, for as long as the interval: it is placed there only if no other
 * fits, and leaves it if one does. Off (a burst of 0) unless the unit, or the cluster, says otherwise. Part
 * of the core; known to this leader only: the next one begins to count anew.
 *
 * A failure is a report that says "failed", or "auto-restart", after one that did not. */
#pragma once

#include <uthash.h>

#include "fleetd/core/core.h"

#define FAILURES_MAX 32u /* The largest burst. */

/* On one machine. */
struct failing {
    char machine_id[MACHINE_ID_SIZE];
    uint64_t times_ms[FAILURES_MAX]; /* A ring: of the latest failures. */
    size_t count;                    /* Since it is kept. */
    bool avoided;
    uint64_t until_ms; /* It is avoided, or remembered, until then. */
    struct failing *prev, *next;
};

struct failing_unit {
    char *unit;
    char hash[UNIT_HASH_SIZE]; /* Of its content then. */
    struct failing *machines;  /* In the order of its first failure there. */
    UT_hash_handle hh;
};

/* Whether what a report says is a failure. */
bool core_is_failing(const struct core_report *report);

/* The unit has failed on the machine where it is placed, just now. Returns whether that is news: it is to be
 * tried elsewhere from now on. */
bool core_note_failure(struct core *core, const struct registry_unit *unit, const struct core_report *report);

/* The record by which the unit avoids the machine now, or NULL. */
const struct failing *core_avoids(const struct core *core, const struct registry_unit *unit,
                                  const char *machine_id);

/* Where a unit has failed lately, as a list; NULL: nowhere. Borrowed until the next failure or settling. */
const struct failing *core_failures(const struct core *core, const char *unit);

/* What has been long enough ago is forgotten, and so is what somebody has stopped, changed or removed since.
 * Returns whether a machine is avoided no longer. */
bool core_forget_failures(struct core *core);
void core_review_failures(
    struct core *core); /* Units have changed: that is to be looked at when it settles. */
void core_forget_all_failures(struct core *core);
uint64_t core_failures_deadline_ms(const struct core *core); /* When to do that again. */
