/* SPDX-License-Identifier: Apache-2.0 */
/* What the cluster stores of the units that a command names: each is asked for once; all at once where many
 * are named, or a pattern is. */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/str.h"
#include "fleetctl/ctl.h"
#include "units/file.h"

#define STORED_SINGLE_MAX 8 /* More names than this: one listing is cheaper than that many requests. */

struct stored {
    struct ctl *ctl;
    json_t *units; /* Name -> unit entity, or null: known to be absent. */
    bool complete; /* What is not in 'units' is absent. */
};

/* 'expected': how many names will be asked for. Errors as api_call(). */
int stored_init(struct stored *s, struct ctl *ctl, size_t expected, struct err *err);
void stored_done(struct stored *s);

/* The unit, or NULL if it is not stored. Borrowed from 's'. */
int stored_get(struct stored *s, const char *name, const json_t **ret, struct err *err);

/* Whether 'arg' is a pattern, as systemctl's: with *, ? or [. */
bool stored_is_pattern(const char *arg);

/* Appends to 'names' the unit that 'arg' names, whether it is stored or not, or the stored ones that match
 * it, in order. No name twice. */
int stored_resolve(struct stored *s, const char *arg, struct strlist *names, struct err *err);

/* Does 'name' match one of 'args' (names or patterns)? True for no args. */
bool stored_matches(const struct strlist *args, const char *name);

/* The options of a unit entity. The caller owns the result. */
struct unit_file *stored_options(const json_t *unit);

/* The hash that the server says, or the one of its options. */
void stored_hash(const json_t *unit, char ret[static UNIT_HASH_SIZE]);

bool stored_is_global(const json_t *unit);
