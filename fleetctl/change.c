/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/change.h"

#include <errno.h>
#include <time.h>

#define RETRY_PAUSE_MS 100

/* How many units from 'start' on go into one request. */
static size_t chunk_size(const json_t *units, size_t start)
{
    size_t bytes = 0, i;

    for (i = start; i < json_array_size(units) && i - start < CHANGE_UNITS_MAX; i++) {
        bytes += json_dumpb(json_array_get(units, i), NULL, 0, JSON_COMPACT) + 1;
        if (bytes > CHANGE_BYTES_MAX && i > start)
            break;
    }
    return i - start;
}

static void note_generations(const json_t *reply, json_t *generations)
{
    const json_t *unit;
    size_t i;

    json_array_foreach(json_object_get(reply, "units"), i,
                       unit) if (json_is_integer(json_object_get(unit, "generation")))
        json_object_set(generations, api_text(unit, "name"), json_object_get(unit, "generation"));
}

static int post_chunk(struct api *api, const json_t *units, size_t start, size_t count, bool dry,
                      json_t *generations, struct err *err)
{
    _cleanup_(json_decrefp) json_t *chunk = json_array(), *body = json_object(), *reply = NULL;
    int r;

    for (size_t i = start; i < start + count; i++)
        json_array_append(chunk, json_array_get(units, i));
    json_object_set(body, "units", chunk);
    if (dry)
        json_object_set_new(body, "dryRun", json_true());
    r = api_call(api, "POST", "units", body, 0, &reply, err);
    if (r == 0 && !dry)
        note_generations(reply, generations);
    return r;
}

static int post_all(struct api *api, const json_t *units, bool dry, json_t *generations, struct err *err)
{
    const size_t total = json_array_size(units);

    for (size_t start = 0, count; start < total; start += count) {
        int r;

        count = chunk_size(units, start);
        r = post_chunk(api, units, start, count, dry, generations, err);
        if (r < 0 && start > 0 && !dry)
            return err_prefix(err, r, "the first %zu of %zu units are done, the others are not", start,
                              total);
        if (r < 0)
            return r;
    }
    return 0;
}

int change_post(struct api *api, const json_t *units, json_t *generations, struct err *err)
{
    const size_t total = json_array_size(units);

    if (total > 0 && chunk_size(units, 0) < total) {
        int r = post_all(api, units, true, generations, err);

        if (r < 0)
            return r;
    }
    return post_all(api, units, false, generations, err);
}

bool change_try_again(int r, unsigned try)
{
    const struct timespec pause = {.tv_nsec = RETRY_PAUSE_MS * 1000000L * try};

    if ((r != -ENOENT && r != -EEXIST && r != -EINPROGRESS) || try >= CHANGE_TRIES_MAX)
        return false;
    nanosleep(&pause, NULL);
    return true;
}
