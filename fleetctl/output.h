/* SPDX-License-Identifier: Apache-2.0 */
/* What fleetctl prints: tables on stdout, aligned to the byte as the first fleet did (fleet-behaviour.md
 * §1.8), JSON on stdout, and complaints on stderr. Nothing here knows what the cells mean. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/str.h"

struct table {
    size_t column_count;
    struct strlist cells; /* Row by row. */
};

/* Adds a cell; a row is full after 'column_count' of them. Control characters become blanks, so that neither
 * a script nor a terminal is led astray. */
void table_add(struct table *t, const char *cell);

/* The table as text. A column is as wide as its longest cell and one more, rounded up to a multiple of 8, and
 * is filled with tabs; the last column is not filled. The caller owns the result. */
char *table_render(const struct table *t);
void table_done(struct table *t);

/* Prints 'text' and a newline, broken into lines of at most OUTPUT_WIDTH columns (8 for a tab) between words,
 * and where it has a newline. 'at': the column that stdout is at; further lines begin at 'indent', 8 or more.
 */
#define OUTPUT_WIDTH 80
void print_wrapped(const char *text, size_t at, size_t indent);

/* One line on stderr; control characters in it become blanks. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Opens descriptors 0 to 2 where the caller had them closed, so that no socket of ours ends up there; writes
 * to a closed stdout then fails as they should. */
void output_prepare(void);

/* Whether everything said on stdout got out; complains otherwise. To be called once, at the end. */
bool output_finish(void);
