/* SPDX-License-Identifier: Apache-2.0 */
/* The drop-in that a unit with OnDisconnect=stop gets beside its file: it binds the unit to the host's lease,
 * sets how long it may take to stop, and puts its fencing token into its environment (docs/leases.md). It is
 * a runtime drop-in, DIRECTORY/UNIT.d/50-fleet.conf, and the only thing of ours there. */
#pragma once

#include <stdint.h>

#include "base/err.h"

#define AGENT_DROPIN_DIRECTORY "/run/systemd/system"

struct agent_dropin {
    uint64_t token, stop_ms; /* Both 0: there is none. */
};

/* What the drop-in of 'unit' says. */
struct agent_dropin agent_dropin_read(const char *directory, const char *unit);

/* Always with a later mtime than the one it replaces: systemd compares them to see whether it needs a reload.
 */
int agent_dropin_write(const char *directory, const char *unit, const struct agent_dropin *dropin,
                       struct err *err);

/* One that is not there is no error. */
int agent_dropin_remove(const char *directory, const char *unit, struct err *err);
