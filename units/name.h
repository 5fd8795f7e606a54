/* SPDX-License-Identifier: Apache-2.0 */
/* Unit names: their parts, what is allowed, and how fleetctl completes them (fleet-behaviour.md §1.4, §2.1,
 * §2.2). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define UNIT_NAME_MAX 256 /* Bytes, without the NUL. systemd's own limit is 255. */

/* The parts of a name; pointers into it. NULL template_end: neither template nor instance. */
struct unit_name_parts {
    size_t prefix_size; /* %p: up to the first '@' left of the last dot, or the whole name without suffix. */
    size_t name_size;   /* %N: without the suffix. */
    bool has_at;        /* There is an '@' in the name part. */
    const char *instance; /* %i: empty for a template and for plain names; not NUL-terminated... */
    size_t instance_size; /* ...so this many bytes. */
    const char *suffix;   /* ".service", with the dot. */
};

/* -EINVAL where the name has no dot: not a unit name. Nothing else is checked. */
int unit_name_split(const char *name, struct unit_name_parts *ret);

/* The server's rules and texts (§2.2), plus: a type that systemd cannot load from a file (busname, snapshot,
 * scope) is refused, and so are the names of fleet's own units, which are on every host. -EINVAL. */
int unit_name_check(const char *name, struct err *err);

/* Whether a running unit of this name must be restarted for new content to be in force. Not targets (a start
 * pulls in what is new), slices (systemd applies new limits when it reloads) and devices. */
bool unit_name_restarts(const char *name);

/* Whether systemd can stop a unit of this name: not a device, which is active for as long as it is plugged
 * in. */
bool unit_name_stops(const char *name);

bool unit_name_is_template(const char *name); /* foo@.service */
bool unit_name_is_instance(const char *name); /* foo@bar.service */

/* foo@bar.service gives foo@.service; NULL for names that are no instance. Owned by the caller. */
char *unit_name_template(const char *name);

/* A user's argument as a unit name: the default suffix appended where the name ends in no known type (any
 * type that the API takes), then the last path component. Owned by the caller. */
char *unit_name_mangle(const char *arg);

/* Only the suffix is appended: the path where a local file is looked for. Owned by the caller. */
char *unit_name_mangle_path(const char *arg);

/* Replaces %n %N %p %i in 'text' for the unit 'name' (§2.4): plain replacement in this order, others are left
 * alone. For a 'name' that unit_name_check() would refuse for lack of a dot or for a '%', nothing is
 * replaced. The result can be UNIT_NAME_MAX / 2 times as long as 'text'. Owned by the caller. */
char *unit_name_expand(const char *name, const char *text);
