/* SPDX-License-Identifier: Apache-2.0 */
/* The target of an HTTP request line ("/fleet/v1/units/t%401.service?alt=json") taken apart. Pure: bytes from
 * outside in, plain data or an error out.
 *
 * Percent escapes are decoded once, and what is decoded is what counts, as in the first fleet: "%2F" is a
 * slash like any other. A NUL byte is refused. */
#pragma once

#include <stddef.h>

#include "base/err.h"

#define URL_QUERY_MAX 64u /* Parameters of one request. */

struct url_query {
    char *key, *value; /* Decoded; value is "" where none was given. */
};

/* All zero is valid and empty. Owns its strings. */
struct url {
    char *path; /* Decoded and clean: begins with "/", no empty, "." or ".." elements; one trailing slash may
                   stay. */
    char *location; /* Where the target was not clean: the clean one, still escaped, with the query. Else
                       NULL. */
    struct url_query *query;
    size_t query_count;
};

/* -EINVAL with a text: not a target that we serve (no leading slash, bad escape, NUL). -E2BIG: too many
 * parameters. The absolute form ("http://host/path") is taken as its path. A query parameter with a bad
 * escape is left out. */
int url_parse(const char *target, struct url *ret, struct err *err);

void url_done(struct url *url);
