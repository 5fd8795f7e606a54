/* SPDX-License-Identifier: Apache-2.0 */
/* "restart" of the first fleet's client sets the unit to loaded, and then waits until it sees it *launched*
 * before it sets it to launched again (fleet-behaviour.md §1.6.6). That worked only because its cluster was
 * slow: it looks 250 ms later, when our host has long stopped the unit, and would wait for ever while the
 * unit stays down. So this client, and no other, sees the unit launched once more after it has stopped it, as
 * if the host had not come to it yet. Its restart then restarts, and its stop takes one look more. */
#include <config.h>

#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"
#include "fleetd/api_private.h"

/* Long enough for a slow client; one that does not wait at all asks again by another command, later. */
#define LINGER_MS 10000u

void api_linger_begin(struct api *api, const struct registry_unit *unit)
{
    struct api_linger *linger = &api->lingers[api->next_linger++ % API_LINGER_MAX];

    free(linger->unit);
    linger->unit = xstrdup(unit->name);
    linger->generation = unit->generation;
    linger->until_ms = api->backend.now_ms(api->data) + LINGER_MS;
}

bool api_linger_end(struct api *api, const struct registry_unit *unit)
{
    for (size_t i = 0; i < API_LINGER_MAX; i++) {
        struct api_linger *linger = &api->lingers[i];
        bool same;

        if (linger->unit == NULL || !streq(linger->unit, unit->name))
            continue;
        same = linger->generation == unit->generation && /* Otherwise somebody has changed it since. */
               api->backend.now_ms(api->data) < linger->until_ms;
        free(linger->unit);
        linger->unit = NULL;
        if (same)
            return true;
    }
    return false;
}

void api_linger_free(struct api *api)
{
    for (size_t i = 0; i < API_LINGER_MAX; i++)
        free(api->lingers[i].unit);
}
