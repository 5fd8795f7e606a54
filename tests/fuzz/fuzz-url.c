/* SPDX-License-Identifier: Apache-2.0 */
/* Any request target. What is accepted is a clean path; where it was not clean, the Location is one that a
 * browser takes for a path on this host, fits into a header, and leads to the same place. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/url.h"
#include "tests/fuzz/fuzz.h"

static void check_clean(const char *path)
{
    assert(path[0] == '/');
    while (*path != '\0') {
        size_t size = strcspn(++path, "/");

        assert(size > 0 || path[size] == '\0'); /* Only the last element may be empty: a slash at the end. */
        assert(!(size == 1 && path[0] == '.') && !(size == 2 && strncmp(path, "..", 2) == 0));
        path += size;
    }
}

static void check_same(const struct url *a, const struct url *b)
{
    assert(streq(a->path, b->path));
    assert(a->query_count == b->query_count);
    for (size_t i = 0; i < a->query_count; i++)
        assert(streq(a->query[i].key, b->query[i].key) && streq(a->query[i].value, b->query[i].value));
}

static void check_location(const struct url *url)
{
    struct url again;
    int r;

    assert(url->location[0] == '/' && url->location[1] != '/' && url->location[1] != '\\');
    for (const char *c = url->location; *c != '\0'; c++)
        assert(*c > ' ' && *c < 0x7f);
    r = url_parse(url->location, &again, NULL);
    assert(r == 0 && again.location == NULL);
    check_same(url, &again);
    url_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *target = xstrndup((const char *)data, size);
    struct url url;

    if (url_parse(target, &url, NULL) < 0)
        return 0;
    check_clean(url.path);
    assert(url.query_count <= URL_QUERY_MAX);
    for (size_t i = 0; i < url.query_count; i++)
        assert(url.query[i].key != NULL && url.query[i].value != NULL);
    if (url.location != NULL)
        check_location(&url);
    url_done(&url);
    return 0;
}
