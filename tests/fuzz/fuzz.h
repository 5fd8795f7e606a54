/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target defines, and its drivers (libFuzzer or replay.c) call. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Returns 0; a property that does not hold aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
