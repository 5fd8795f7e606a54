/* SPDX-License-Identifier: Apache-2.0 */
/* How long a test waits for what must come: far longer than it takes, so that what fails is only what never
 * comes, and not a machine that has much else to do. Where a program runs many times slower than it should,
 * as under valgrind, FLEET_TEST_PATIENCE says how many times as long it waits (tools/check sets it). */
#pragma once

#include <stdlib.h>

#define DEADLINE_MS patient_ms(20000)

/* 'ms' for a program at its usual speed. */
static inline unsigned patient_ms(unsigned ms)
{
    const char *times = getenv("FLEET_TEST_PATIENCE");
    unsigned long n = times != NULL ? strtoul(times, NULL, 10) : 1;

    return n > 1 && n <= 100 ? ms * (unsigned)n : ms;
}
