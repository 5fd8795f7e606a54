/* SPDX-License-Identifier: Apache-2.0 */
/* Who has changed what through the API, and who was refused: one line of the journal for each, with fields
 * that programs can look for (messages.h; fleetd(8) lists them). The leader writes of what it has decided, a
 * host of what it has turned away by itself.
 *
 * Changes are as many as the cluster can make. Refusals cost nothing to cause; so that nobody can drown the
 * journal in them, only so many are written one by one, and then how many were left out. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fleetd/access.h"

#define AUDIT_REFUSALS_BURST 200u /* At once... */
#define AUDIT_REFUSAL_MS     100u /* ...and one more each so often. */
#define AUDIT_TEXT_MAX       512u /* Bytes of a path. What is longer is cut. */

struct audit_event {
    const struct access_caller *caller;
    const char *peer; /* From where: an address, or a process. */
    const char *via;  /* The machine id of the host that has passed it on; NULL: it came here. */
    const char *method, *path;
    const uint8_t *request_id; /* REQUEST_ID_SIZE bytes; NULL: it has none. */
    unsigned status;           /* HTTP. */
    const char *outcome;       /* "done", or why not. */
};

struct audit_budget { /* All zero is a fresh one. */
    uint64_t full_ms; /* When everything may be written again. */
    uint64_t left_out;
};

void audit_change(const struct audit_event *event);
void audit_refusal(struct audit_budget *budget, const struct audit_event *event, uint64_t now_ms);

/* Whether one more may be written now, and how many were not before it. */
bool audit_allows(struct audit_budget *budget, uint64_t now_ms, uint64_t *ret_left_out);
