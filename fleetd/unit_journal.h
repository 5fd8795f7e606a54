/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what this host's journal has of a unit: its own words, and what systemd says about it, as "journalctl
 * -u" does. Blocks: for a thread of its own (fleetd/host_query.h), never for the loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/err.h"

struct unit_journal_query {
    const char *unit;
    bool user;           /* A unit of the user's manager. */
    size_t lines;        /* At most so many entries... */
    const char *cursor;  /* ...behind this one; "": the last ones. */
    uint64_t until_ms;   /* If there are none behind the cursor, one is waited for until then (now_ms()). */
    uint64_t give_up_ms; /* Then what has been read so far is the answer. */
    size_t max_bytes;    /* Of the answer's text. */
    bool all_fields;
    int cancel_fd; /* Readable: the answer is not wanted any more. */
};

/* *ret, owned by the caller: {"entries":[...], "cursor":"...", "more":true}. 'cursor' is where to go on, and
 * "" in a journal without any entry; 'more': there are entries behind it already. -ECANCELED, -EINVAL: the
 * cursor is none, and whatever the journal cannot be read for. */
int unit_journal_read(const struct unit_journal_query *query, json_t **ret, struct err *err);
