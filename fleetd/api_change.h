/* SPDX-License-Identifier: Apache-2.0 */
/* The rules for what clients want stored: the same for one unit (PUT), for many (POST), for new units and for
 * replaced ones. All return 0, or a negative errno and a text: -EINVAL bad, -E2BIG over a named limit,
 * -ENOSPC no room for more. */
#pragma once

#include <stdbool.h>

#include <jansson.h>

#include "base/err.h"
#include "raftstore/registry.h"
#include "units/file.h"
#include "units/requirements.h"

/* The JSON array of {"section", "name", "value"} as options. The caller owns *ret. */
int api_change_read_options(const json_t *options, struct unit_file **ret, struct err *err);

/* A unit's text as it would be stored. */
struct api_text {
    char *text;
    size_t size;
    char hash[UNIT_HASH_SIZE];
};
void api_text_set(struct api_text *text, const struct unit_file *file);
void api_text_done(struct api_text *text);

/* Whether 'file', whose text is 'text', may be stored. */
int api_change_check_text(const struct unit_file *file, const struct api_text *text, struct err *err);

/* A client's word for the state of 'name': "" is unchanged; a template can only be inactive. */
int api_change_check_state(const char *name, const char *word, Fleet__DesiredState *ret, struct err *err);

/* Whether so many more units have room. */
int api_change_check_room(const struct registry *registry, size_t created, size_t destroyed, struct err *err);

/* Whether a unit that is wanted on one machine becomes one that is wanted on all. The registry knows no
 * grammar of unit files (it would have to be the same in all versions), so its target is taken away by making
 * it inactive in between, in the same command. */
bool api_change_becomes_global(const struct registry_unit *before, const struct requirements *after);

/* Refuses units that wait for each other with MachineOf in a circle, or for themselves: they could never be
 * placed. 'peers' tells the MachineOf list of a unit as it will be, or NULL if there will be no such unit. */
typedef const struct strlist *api_peers(const char *name, void *data);
int api_cycle_check(const char *name, api_peers *peers, void *data, struct err *err);
