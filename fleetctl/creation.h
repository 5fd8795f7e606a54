/* SPDX-License-Identifier: Apache-2.0 */
/* The rules by which submit, load and start make units out of what is on this computer and what is stored
 * (fleet-behaviour.md §1.5). First everything local is read and found good, then, per unit, what has to
 * change in the cluster is decided; sending it is verb-submit.c's. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "fleetctl/ctl.h"
#include "fleetctl/source.h"
#include "fleetctl/stored.h"
#include "units/state.h"

/* One unit of the command line. */
struct creation_item {
    char *name;
    char *path;                            /* Where its file would be... */
    char *template_name, *template_path;   /* ...and its template's; NULL if it is no instance. */
    struct source *local, *local_template; /* NULL: there is no such file. */
    bool created, global;                  /* Decided by creation_plan(). */
};

struct creation {
    struct ctl *ctl;
    enum unit_state desired; /* submit: inactive, load: loaded, start: launched. */
    struct creation_item *items;
    size_t count, capacity;
    struct stored stored;
    json_t *changes;            /* For change_post(). */
    struct strlist notes, news; /* Lines for stderr and stdout, to be said with the outcome. */
};

/* Reads what the arguments name on disk. Complains of all that is wrong with it, and returns -EINVAL then. */
int creation_read(struct creation *c, const struct strlist *args);

/* Looks at what is stored, and fills 'changes', 'notes' and 'news' anew. -ENXIO: a unit is neither stored nor
 * on disk; other errors as api_call(). */
int creation_plan(struct creation *c, struct err *err);

void creation_done(struct creation *c);
