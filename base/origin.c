/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/origin.h"

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

struct origin origin_of(const struct sockaddr *from)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    struct origin origin = {0};

    if (from->sa_family == AF_INET) {
        memcpy(origin.network, &in->sin_addr, 4);
    } else if (from->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        memcpy(origin.network, (const uint8_t *)&in6->sin6_addr + 12, 4);
    } else if (from->sa_family == AF_INET6) {
        memcpy(origin.network, &in6->sin6_addr, sizeof(origin.network));
        memcpy(origin.rest, (const uint8_t *)&in6->sin6_addr + 8, sizeof(origin.rest));
        origin.v6 = true;
    }
    return origin;
}

bool origin_same_network(const struct origin *a, const struct origin *b)
{
    return a->v6 == b->v6 && memcmp(a->network, b->network, sizeof(a->network)) == 0;
}

bool origin_same_address(const struct origin *a, const struct origin *b)
{
    return origin_same_network(a, b) && memcmp(a->rest, b->rest, sizeof(a->rest)) == 0;
}

typedef bool same_origin(const struct origin *a, const struct origin *b);

/* The first one of the place that most of them are of; with 'network', of these alone. */
static size_t fullest(const struct origin *origins, size_t count, const struct origin *network,
                      same_origin *same)
{
    size_t first = 0, most = 0;

    for (size_t i = 0; i < count; i++) {
        size_t before = 0, found = 0;

        if (network != NULL && !origin_same_network(&origins[i], network))
            continue;
        while (before < i && !same(&origins[before], &origins[i]))
            before++;
        if (before < i) /* Counted with that one already, as nearly all of a crowd. */
            continue;
        for (size_t k = i; k < count; k++)
            found += same(&origins[k], &origins[i]);
        if (found > most) {
            most = found;
            first = i;
        }
    }
    return first;
}

size_t origin_of_crowd(const struct origin *origins, size_t count)
{
    size_t first;

    assert(count > 0);
    first = fullest(origins, count, NULL, origin_same_network);
    return fullest(origins, count, &origins[first], origin_same_address);
}
