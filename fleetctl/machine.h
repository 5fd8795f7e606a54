/* SPDX-License-Identifier: Apache-2.0 */
/* Machines as people name them: by id, by the beginning of an id, or by host name. */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "fleetctl/ctl.h"

/* The one machine of a list (as GET /machines has it) that 'word' names. An id in full, or a host name, is
 * that one machine's whatever else begins so. Borrowed. -ENOENT: none; -EEXIST: several; each with a text. */
int machine_find(const json_t *machines, const char *word, const json_t **ret, struct err *err);

/* Adds the ids of the machines that 'args' name to the array 'ids'. All of them must exist: a slip must not
 * change half of what was meant. Returns an enum ctl_exit. */
int machine_read_ids(struct ctl *ctl, const struct strlist *args, json_t *ids);
