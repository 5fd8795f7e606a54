/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftconf.h"

#include <errno.h>
#include <string.h>

#include <raft.h>

#include "raftstore/address.h"

#define FORMAT      1u
#define HEADER_SIZE 9u /* The format, and how many servers. */

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* Returns where the next one begins; NULL: it is none. */
static const uint8_t *read_server(const uint8_t *p, const uint8_t *end, struct raftconf_server *ret)
{
    struct address address;
    const uint8_t *nul;

    if (end - p < 8 || get64(p) == 0)
        return NULL;
    ret->id = get64(p);
    p += 8;
    nul = memchr(p, '\0', (size_t)(end - p));
    if (nul == NULL || nul + 1 == end || nul[1] > RAFT_SPARE ||
        address_parse((const char *)p, &address, NULL) < 0)
        return NULL;
    ret->address = (const char *)p;
    ret->role = nul[1];
    return nul + 2;
}

int raftconf_read(const void *bytes, size_t size, struct raftconf *ret)
{
    const uint8_t *p = bytes, *end = p + size;
    uint64_t count;

    if (size < HEADER_SIZE || p[0] != FORMAT || (count = get64(p + 1)) > RAFT_SERVERS_MAX)
        return -EBADMSG;
    p += HEADER_SIZE;
    for (uint64_t i = 0; i < count; i++) {
        p = read_server(p, end, &ret->servers[i]);
        if (p == NULL)
            return -EBADMSG;
    }
    ret->count = count;
    return 0;
}
