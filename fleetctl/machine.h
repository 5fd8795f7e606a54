/* SPDX-License-Identifier: Apache-2.0 */
/* Machines as people name them: by id, by the beginning of an id, or by host name. */
#pragma once

#include <jansson.h>

#include "base/err.h"

/* The one machine of a list (as GET /machines has it) that 'word' names. An id in full, or a host name, is
 * that one machine's whatever else begins so. Borrowed. -ENOENT: none; -EEXIST: several; each with a text. */
int machine_find(const json_t *machines, const char *word, const json_t **ret, struct err *err);
