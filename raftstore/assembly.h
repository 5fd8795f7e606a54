/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot out of its pieces, which must arrive in order on one connection; anything else drops what was
 * there, and the sender begins again when Raft asks it to. Memory grows with what has arrived, not with what
 * was announced. Pure. */
#pragma once

#include <stdbool.h>

#include "raftstore/raftwire.h"

/* All zero is an empty one. */
struct assembly {
    struct raft_message message; /* type 0: nothing begun. Its data.len is what has arrived. */
    size_t capacity;
    uint64_t size;
};

/* Takes a decoded piece, and its memory. True: 'message' is the whole now, the caller's; else it is empty. */
bool assembly_add(struct assembly *assembly, struct raft_message *message,
                  const struct raftwire_piece *piece);

void assembly_done(struct assembly *assembly);
