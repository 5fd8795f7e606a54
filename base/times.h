/* SPDX-License-Identifier: Apache-2.0 */
/* Time and durations. Our code counts in uint64_t milliseconds of a monotonic clock, and gets "now" passed
 * in; only the shells around the pure code read a clock. */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* CLOCK_BOOTTIME in milliseconds: goes on during suspend, never jumps. */
uint64_t now_ms(void);

/* Wall clock in milliseconds since 1970, for showing to people only. */
uint64_t wall_ms(void);

/* Parses a duration: the first fleet's Go form ("30s", "1m30s", "1.5h", "300ms") or systemd.time(7)'s ("1min
 * 30s", a bare number is seconds). -EINVAL with a text otherwise; -ERANGE above a hundred years. */
int duration_parse(const char *text, uint64_t *ret_ms, struct err *err);

/* As systemd writes it, in days, hours, minutes, seconds and milliseconds: "1h 30min", "500ms", "0". Read
 * back it is the same. The caller owns it. */
char *duration_format(uint64_t ms);
