/* SPDX-License-Identifier: Apache-2.0 */
/* What a unit's [X-Fleet] section asks of the machine it runs on (fleet-behaviour.md §2.4, §2.5): the values
 * split, specifiers replaced for the unit's name, deprecated spellings folded into the modern ones. Plain
 * data; deciding where a unit goes is constraints/'s.
 *
 * OnDisconnect=stop asks for more than a place: at most one copy of the unit runs anywhere, ever
 * (docs/leases.md). How long it may take to stop then is read here too, because the leader waits for it: the
 * unit's own TimeoutStopSec= (TimeoutSec=), REQUIREMENTS_STOP_DEFAULT_MS without one.
 *
 * The limits bound what is kept and compared, whatever the input: what is beyond them is left out, and
 * 'too_large' makes requirements_check() refuse the unit. They count the text before specifiers are replaced,
 * each '%' for the longest name, so that they say the same for a template and for all its instances. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "units/file.h"

#define REQUIREMENTS_SIZE_MAX   (32 * 1024) /* Bytes of all values. */
#define REQUIREMENTS_VALUES_MAX 1024        /* After splitting. */
#define FAILURE_BURST_MAX       32          /* FailureLimitBurst= */
#define FAILURE_INTERVAL_MAX_MS (24u * 3600 * 1000)

/* For units with OnDisconnect=stop. */
#define REQUIREMENTS_STOP_DEFAULT_MS 10000
#define REQUIREMENTS_STOP_MAX_MS     300000

struct requirements_metadata { /* Any of 'values' will do for 'key'; different keys must all be met. */
    char *key;
    struct strlist values;
};

struct requirements {
    bool has_machine_id;
    char *machine_id;          /* Only where has_machine_id; may be "", which no machine matches. */
    struct strlist machine_of; /* Exact unit names. */
    struct requirements_metadata *metadata; /* In order of first appearance. */
    size_t metadata_count, metadata_capacity;
    struct strlist conflicts; /* Glob patterns. */
    struct strlist replaces;  /* Glob patterns. */
    bool global;
    bool has_failure_limit;
    unsigned failure_burst; /* With has_failure_limit: so many failures on one machine, 0: never mind... */
    uint64_t failure_interval_ms; /* ...within so long; 0: the cluster's. */
    char *wrong_failure_limit;    /* "Option=value" that makes no sense, or NULL. */
    uint64_t stop_ms; /* OnDisconnect=stop: so long it may take to stop, never 0. 0: OnDisconnect=keep. */
    char *wrong_disconnect;   /* An OnDisconnect= that is neither; NULL: none. */
    char *wrong_stop_timeout; /* With OnDisconnect=stop: a stop time that is none, or too long; NULL: none. */
    bool too_large;
};

/* Reads the requirements of 'file' as those of the unit 'name' (specifiers replaced), or, with a NULL name,
 * as they stand. Cannot fail: what the first fleet ignored is ignored. The caller owns the result. */
struct requirements *requirements_new(const struct unit_file *file, const char *name);
void requirements_free(struct requirements *r);
DEFINE_FREEP(struct requirements, requirements)

/* Whether two files mean the same to systemd: they differ in [X-Fleet] only, if at all. */
bool requirements_are_all_that_differs(const struct unit_file *a, const struct unit_file *b);

/* Refuses combinations that can never be placed (§2.5): -EINVAL and the first fleet's text. -E2BIG: a limit
 * was met. For new and replaced units alike, on requirements read without a name. */
/* Refuses combinations that can never be placed (§2.5): -EINVAL and the first fleet's text; and an
 * OnDisconnect= that cannot be kept. -E2BIG: a limit was met. For new and replaced units alike, on
 * requirements read without a name. */
int requirements_check(const struct requirements *r, struct err *err);

/* Names in [X-Fleet] of 'file' that fleet does not know, for a warning; borrowed from 'file', NULL when none
 * is left. Start with *position = 0. */
const char *requirements_next_unknown(const struct unit_file *file, size_t *position);

/* Go's path.Match on whole unit names (§2.4): '*' (not '/'), '?', classes, '\' escapes; a malformed pattern
 * matches nothing. Takes at most strlen(pattern) * strlen(name) steps. */
bool requirements_glob(const char *pattern, const char *name);
