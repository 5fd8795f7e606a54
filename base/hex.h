/* SPDX-License-Identifier: Apache-2.0 */
/* Ids as people read them: lower-case hex digits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void id_to_hex(const uint8_t *id, size_t size, char *hex);   /* Writes 2 * size digits and a NUL. */
bool id_from_hex(const char *hex, uint8_t *id, size_t size); /* False: not exactly that many digits. */
