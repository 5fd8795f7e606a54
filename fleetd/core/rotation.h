/* SPDX-License-Identifier: Apache-2.0 */
/* When a certificate is to be renewed, and when a rotation of the authority may go on (registry_security.h).
 * Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "raftstore/registry_security.h"

/* Whether a certificate is to be renewed: a third of 'lifetime_ms' is over; or it would hold much longer than
 * a new one would, for the lifetime was made shorter; or another authority issues now. Times are of the wall
 * clock. */
bool rotation_certificate_due(uint64_t not_after_ms, const uint8_t certified_by[FINGERPRINT_SIZE],
                              const uint8_t issuing_key[FINGERPRINT_SIZE], uint64_t lifetime_ms,
                              uint64_t now_ms);

enum rotation_step { ROTATION_STEP_NONE, ROTATION_STEP_ISSUE, ROTATION_STEP_FINISH };

/* What the rotation can do next; NONE where there is none, or machines are awaited. 'issuing_key': of the
 * authority that issues now. */
enum rotation_step rotation_next(const struct registry *registry,
                                 const uint8_t issuing_key[FINGERPRINT_SIZE]);

/* Whether the rotation waits for this machine. */
bool rotation_awaits(const struct registry_authorities *authorities,
                     const uint8_t issuing_key[FINGERPRINT_SIZE], const struct registry_machine *machine);
