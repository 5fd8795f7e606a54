/* SPDX-License-Identifier: Apache-2.0 */
/* What all list verbs share: the columns that --fields chooses, the table of them, and JSON instead. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fleetctl/ctl.h"

/* The cell of 'entity' (an item of the API's list); the caller owns it. "" is shown as "-". */
typedef char *listing_cell(struct ctl *ctl, const json_t *entity);

struct listing_field {
    const char *name;
    listing_cell *cell;
};

struct listing {
    const struct listing_field *fields;
    size_t field_count;
    const char *default_fields;
    json_t *(*to_json)(struct ctl *ctl, const json_t *entity); /* One object of stable keys; new reference. */
};

/* Are the --fields known? Said before anything is asked of the server. CTL_EXIT_DONE, or complains. */
int listing_check(const struct ctl *ctl, const struct listing *l);

/* Prints the array 'entities' as the options say. Returns an enum ctl_exit. */
int listing_print(struct ctl *ctl, const struct listing *l, const json_t *entities);

/* Prints a JSON value as --output says, with a newline. */
void listing_print_json(const struct ctl *ctl, const json_t *value);

/* For cells: the machine as its legend (§1.6.1) with the address that GET /machines knows. "" for no id. */
char *listing_legend(struct ctl *ctl, const char *machine_id);

/* For cells: the number at 'key', "" where there is none. */
char *listing_number(const json_t *entity, const char *key);

/* For cells: the moment at 'key' (milliseconds since 1970) in the time zone of whoever looks, as systemctl
 * shows it. "" where there is none. */
char *listing_moment(const json_t *entity, const char *key);

/* A cell: the text at 'key'. */
#define LISTING_TEXT_CELL(name, key)                         \
    static char *name(struct ctl *ctl, const json_t *entity) \
    {                                                        \
        return xstrdup(api_text(entity, key));               \
    }
