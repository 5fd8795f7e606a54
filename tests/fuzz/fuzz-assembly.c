/* SPDX-License-Identifier: Apache-2.0 */
/* Consensus messages one after the other, each behind its size in two bytes: pieces of snapshots among them.
 * Whatever they are: a snapshot that is whole is as large as was said, and made of the pieces that came last.
 */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "raftstore/assembly.h"
#include "raftstore/limits.h"
#include "tests/fuzz/fuzz.h"

static void check_whole(struct raft_message *message, uint64_t size, const struct strbuf *last)
{
    const struct raft_buffer *whole = &message->install_snapshot.data;

    assert(whole->len == size && whole->len <= last->size);
    assert(memcmp(whole->base, last->text + last->size - whole->len, whole->len) == 0);
    raftwire_message_done(message);
}

static void take(struct assembly *assembly, struct strbuf *pieces, const uint8_t *bytes, size_t size)
{
    struct raft_message message;
    struct raftwire_piece piece;
    struct err err = {0};

    if (raftwire_decode(bytes, size, &message, &piece, &err) < 0) {
        assert(err.text[0] != '\0');
        return;
    }
    if (message.type != RAFT_IO_INSTALL_SNAPSHOT) {
        raftwire_message_done(&message);
        return;
    }
    assert(piece.size <= SNAPSHOT_MAX && piece.offset + message.install_snapshot.data.len <= piece.size);
    strbuf_add_bytes(pieces, message.install_snapshot.data.base, message.install_snapshot.data.len);
    if (assembly_add(assembly, &message, &piece))
        check_whole(&message, piece.size, pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct assembly assembly = {0};
    struct strbuf pieces = {0};

    for (size_t at = 0; at + 2 <= size;) {
        size_t left = size - at - 2, step = (size_t)data[at] << 8 | data[at + 1];

        step = step < left ? step : left;
        take(&assembly, &pieces, data + at + 2, step);
        at += 2 + step;
    }
    assembly_done(&assembly);
    strbuf_done(&pieces);
    return 0;
}
