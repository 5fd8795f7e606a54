/* SPDX-License-Identifier: Apache-2.0 */
/* What this host's systemd says of a unit, for "fleetctl status": asked on a connection of its own. Blocks:
 * for a thread of its own (fleetd/host_query.h), never for the loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/err.h"

/* *ret, owned by the caller: {"unit":{...}, "processes":[{"path","pid","command"}...], "processesLeftOut":N},
 * as in docs/api.md; at most 'max_bytes' as text. Errors: systemd cannot be reached, or does not answer
 * within UNIT_STATUS_MS. */
int unit_status_read(const char *unit, bool user, size_t max_bytes, json_t **ret, struct err *err);

#define UNIT_STATUS_MS 4000u /* For one call. */
