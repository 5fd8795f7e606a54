/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/assembly.h"

#include <stdlib.h>
#include <string.h>

static bool continues(const struct assembly *assembly, const struct raft_install_snapshot *next,
                      const struct raftwire_piece *piece)
{
    const struct raft_install_snapshot *have = &assembly->message.install_snapshot;

    return assembly->message.type != 0 && have->term == next->term && have->last_index == next->last_index &&
           have->last_term == next->last_term && have->conf_index == next->conf_index &&
           assembly->size == piece->size && have->data.len == piece->offset;
}

static void append(struct assembly *assembly, const struct raft_buffer *data)
{
    struct raft_buffer *have = &assembly->message.install_snapshot.data;

    if (assembly->capacity - have->len < data->len) {
        size_t capacity =
            have->len + data->len > 2 * assembly->capacity ? have->len + data->len : 2 * assembly->capacity;

        if (capacity > assembly->size)
            capacity = assembly->size;
        have->base = raft_realloc(have->base, capacity);
        if (have->base == NULL)
            abort();
        assembly->capacity = capacity;
    }
    memcpy((char *)have->base + have->len, data->base, data->len);
    have->len += data->len;
}

bool assembly_add(struct assembly *assembly, struct raft_message *message, const struct raftwire_piece *piece)
{
    if (piece->offset == 0) {
        assembly_done(assembly);
        assembly->message = *message;
        assembly->capacity = message->install_snapshot.data.len;
        assembly->size = piece->size;
    } else if (continues(assembly, &message->install_snapshot, piece)) {
        append(assembly, &message->install_snapshot.data);
        raftwire_message_done(message);
    } else {
        assembly_done(assembly);
        raftwire_message_done(message);
        return false;
    }
    memset(message, 0, sizeof(*message));
    if (assembly->message.install_snapshot.data.len < assembly->size)
        return false;
    *message = assembly->message;
    memset(assembly, 0, sizeof(*assembly));
    return true;
}

void assembly_done(struct assembly *assembly)
{
    raftwire_message_done(&assembly->message);
    memset(assembly, 0, sizeof(*assembly));
}
