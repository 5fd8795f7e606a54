/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/guard_members.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "raftstore/raftconf.h"

/* Whoever goes on without one of these goes by the wrong members: want of memory ends the process. */
static int add(struct raft_configuration *configuration, raft_id id, const char *address, int role)
{
    int r = raft_configuration_add(configuration, id, address, role);

    if (r == RAFT_NOMEM)
        abort();
    return r;
}

/* As raft does: what it can not read it does not take, and then it is none of ours either. */
static bool decode(const struct raft_buffer *buffer, struct raft_configuration *ret)
{
    struct raftconf read;
    int r = 0;

    if (raftconf_read(buffer->base, buffer->len, &read) < 0)
        return false;
    raft_configuration_init(ret);
    for (size_t i = 0; i < read.count && r == 0; i++)
        r = add(ret, read.servers[i].id, read.servers[i].address, read.servers[i].role);
    if (r != 0)
        raft_configuration_close(ret);
    return r == 0;
}

void guard_configuration_copy(const struct raft_configuration *from, struct raft_configuration *ret)
{
    raft_configuration_init(ret);
    for (unsigned i = 0; i < from->n; i++) {
        int r = add(ret, from->servers[i].id, from->servers[i].address, from->servers[i].role);

        assert(r == 0); /* They were in one before. */
        (void)r;
    }
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
    if (snapshot != NULL) {
        guard_configuration_copy(&snapshot->configuration, &copy);
        push(members, snapshot->configuration_index, &copy);
    }
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
            decode(&entries[i].buf, &configuration))
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
