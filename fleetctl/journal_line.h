/* SPDX-License-Identifier: Apache-2.0 */
/* Journal entries, as journalctl(1) shows them. An entry is JSON as the API has it (journalctl's own form);
 * whatever a service has written into it, only printable text gets to the terminal. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "fleetctl/options.h"

/* Prints one entry on stdout: one line, and one more for each further line of its message; with
 * OUTPUT_JSON_PRETTY several. OUTPUT_TEXT means OUTPUT_SHORT. */
void journal_line_print(const json_t *entry, enum output_mode mode);

/* Microseconds since 1970; 0: it does not say. */
uint64_t journal_line_usec(const json_t *entry);
