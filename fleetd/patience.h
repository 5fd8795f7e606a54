/* SPDX-License-Identifier: Apache-2.0 */
/* Asks systemd for patience (EXTEND_TIMEOUT_USEC=, sd_notify(3)) while the one thread that could do so is
 * busy: a long log is read before the loop runs, and a daemon that is killed in the middle of that, again and
 * again, never comes up. Not for ever: after PATIENCE_MAX_MS systemd's own limit holds. */
#pragma once

#include <stdint.h>

#define PATIENCE_STEP_MS 5000u
#define PATIENCE_MAX_MS  (3600u * 1000)

struct patience;

/* From now on, every 'step_ms', systemd is told "STATUS=<what> (<duration>)" and to wait for three steps
 * more. NULL, and nothing to do, where nobody listens. */
struct patience *patience_new(const char *what, uint64_t step_ms);
void patience_free(struct patience *patience); /* It is done. Nothing is told after this has returned. */
