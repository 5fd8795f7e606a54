/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/guard_members.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define FORMAT      1u
#define HEADER_SIZE 9u /* The format, and how many servers. */

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* As raft does: what it can not read it does not take, and then it is none of ours either. */
static int decode(const struct raft_buffer *buffer, struct raft_configuration *ret)
{
    const uint8_t *p = buffer->base, *end = p + buffer->len;
    uint64_t count;
    int r = 0;

    raft_configuration_init(ret);
    if (buffer->len < HEADER_SIZE || p[0] != FORMAT)
        return RAFT_MALFORMED;
    count = get64(p + 1);
    p += HEADER_SIZE;
    for (uint64_t i = 0; i < count && r == 0; i++) {
        const uint8_t *nul = end - p > 8 ? memchr(p + 8, '\0', (size_t)(end - p) - 8) : NULL;

        if (nul == NULL || nul + 1 == end) {
            r = RAFT_MALFORMED;
            break;
        }
        r = raft_configuration_add(ret, get64(p), (const char *)p + 8, nul[1]);
        p = nul + 2;
    }
    if (r != 0)
        raft_configuration_close(ret);
    return r;
}

int guard_configuration_copy(const struct raft_configuration *from, struct raft_configuration *ret)
{
    int r = 0;

    raft_configuration_init(ret);
    for (unsigned i = 0; i < from->n && r == 0; i++)
        r = raft_configuration_add(ret, from->servers[i].id, from->servers[i].address, from->servers[i].role);
    if (r != 0)
        raft_configuration_close(ret);
    return r;
}

/* Takes the configuration over. */
static void push(struct guard_members *members, raft_index index,
                 const struct raft_configuration *configuration)
{
    members->items = xrealloc(members->items, (members->count + 1) * sizeof *members->items);
    members->items[members->count++] =
        (struct guard_configuration){.index = index, .configuration = *configuration};
}

void guard_members_done(struct guard_members *members)
{
    guard_members_truncate(members, 0);
    free(members->items);
    *members = (struct guard_members){0};
}

void guard_members_load(struct guard_members *members, const struct raft_snapshot *snapshot,
                        raft_index start_index, const struct raft_entry entries[], size_t count)
{
    struct raft_configuration copy;

    guard_members_truncate(members, 0);
    if (snapshot != NULL && guard_configuration_copy(&snapshot->configuration, &copy) == 0)
        push(members, snapshot->configuration_index, &copy);
    guard_members_append(members, start_index, entries, count, 0);
}

void guard_members_append(struct guard_members *members, raft_index index, const struct raft_entry entries[],
                          size_t count, raft_index commit_index)
{
    size_t past = 0;

    for (size_t i = 0; i < count; i++) {
        const struct guard_configuration *last = guard_members_last(members);
        struct raft_configuration configuration;

        /* What a snapshot leaves of the log may go further back than it. */
        if (entries[i].type == RAFT_CHANGE && (last == NULL || last->index < index + i) &&
            decode(&entries[i].buf, &configuration) == 0)
            push(members, index + i, &configuration);
    }
    while (past + 1 < members->count && members->items[past + 1].index <= commit_index)
        raft_configuration_close(&members->items[past++].configuration);
    if (past == 0)
        return;
    members->count -= past;
    memmove(members->items, members->items + past, members->count * sizeof *members->items);
}

void guard_members_truncate(struct guard_members *members, raft_index index)
{
    while (members->count > 0 && members->items[members->count - 1].index >= index)
        raft_configuration_close(&members->items[--members->count].configuration);
}

const struct guard_configuration *guard_members_last(const struct guard_members *members)
{
    return members->count > 0 ? &members->items[members->count - 1] : NULL;
}
