/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's settings: what holds for all hosts alike, whoever leads, and so is replicated rather than
 * written in the files of each. One row of the table in settings.c says all of a setting: its name, what its
 * value is, its default and its limits, what it means. The registry keeps the values, the API shows and
 * changes them by the table, and fleetctl knows of them by the API alone: a new setting is a row there, and
 * whoever goes by its value.
 *
 * A value is kept as text in one form (settings_format()), and only where somebody has set it. A setting may
 * be known to a newer version only; it is kept nevertheless, and means nothing here. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SETTING_VOTERS_MAX 7u

/* In the order of their names. */
enum setting_id {
    SETTING_CERTIFICATE_LIFETIME, /* Of machines' certificates, in milliseconds. */
    SETTING_FAILURE_LIMIT_BURST, /* After so many failures on one machine a unit is tried elsewhere; 0: never.
                                  */
    SETTING_FAILURE_LIMIT_INTERVAL, /* Within so many milliseconds. */
    SETTING_HOST_ROLE,    /* What one may do through a host without the cluster's data: an enum pki_role. */
    SETTING_VOTERS,       /* How many hosts vote: an odd number, so that half of them is no majority. */
    SETTING_VOTERS_GRACE, /* A voter that is away for so many milliseconds is replaced. */
    SETTING_VOTERS_SPREAD_BY, /* The metadata key by which voters are spread; "": by none. */
    SETTING_COUNT,
};

enum setting_type {
    SETTING_NUMBER,
    SETTING_DURATION, /* In milliseconds; as text, systemd.time(7)'s. */
    SETTING_WORD,     /* One of some words; the number is its place among them. */
    SETTING_TEXT,     /* Of 'min' to 'max' bytes, none of them blank. Its default is the empty one. */
};

struct setting {
    const char *name;
    enum setting_type type;
    uint64_t fallback; /* Its default. */
    uint64_t min, max;
    bool odd;                 /* Only odd numbers. */
    const char *meaning;      /* One line, for people. */
    const char *const *words; /* From 0 to 'max'. */
};

/* The row of a setting. Static. */
const struct setting *settings_row(enum setting_id id);

/* Whether there is a setting of that name, and which. */
bool settings_find(const char *name, enum setting_id *ret);

/* -EINVAL with a text that says what is allowed, where 'text' is no value of the setting. Of a text, *ret is
 * its size. */
int settings_parse(enum setting_id id, const char *text, uint64_t *ret, struct err *err);

/* As settings_parse(); *ret is the value in its one form. The caller owns it. */
int settings_normalise(enum setting_id id, const char *text, char **ret, struct err *err);

/* The one form of a number or a duration; of any setting's default; and what values are allowed, for people
 * ("0 to 32"). The caller owns them. */
char *settings_format(enum setting_id id, uint64_t value);
char *settings_fallback(enum setting_id id);
char *settings_limits(enum setting_id id);
