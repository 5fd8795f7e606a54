/* SPDX-License-Identifier: Apache-2.0 */
/* libraft's messages as bytes and back. Pure. What arrives is checked so far that libraft, whose own
 * assertions are compiled out in Debian and whose parsers trust everybody, can be given it: limits, lengths,
 * counts, ids, the inside of configuration entries. Whether a message makes sense in its term is for Raft. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "raftstore/raft_compat.h"

#define RAFTWIRE_PIECE_SIZE                                                         \
    (1024u * 1024) /* Of a snapshot; and about what an AppendEntries frame carries. \
                    */

/* Which part of a snapshot install_snapshot.data is. */
struct raftwire_piece {
    uint64_t offset, size; /* 'size' of the whole. */
};

/* Encodes one frame (free()). An AppendEntries message carries the entries from index 'first' of its array
 * on, as many as fit, with prev_log_* set accordingly; a snapshot one piece from byte 'first'. Returns how
 * many entries or bytes those were, 0 for other messages. -EMSGSIZE: something in it is over a limit. */
int raftwire_encode(const struct raft_message *message, size_t first, uint8_t **ret, size_t *ret_size);

/* Decodes one frame into a message whose memory is laid out as libraft's own transport does it (and as
 * libraft frees it); server_id and server_address are left 0. -EBADMSG with a text: not one of ours; -ENOMSG:
 * of a kind that only a newer version knows. */
int raftwire_decode(const uint8_t *bytes, size_t size, struct raft_message *ret,
                    struct raftwire_piece *ret_piece, struct err *err);

void raftwire_message_done(struct raft_message *message); /* Frees what a decoded message owns. */
