/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftwire.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/address.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/limits.h"
#include "raftstore/raftconf.h"

#define ENTRY_OVERHEAD 32u /* Bytes of an encoded entry beside its data, at most. */
#define FRAME_OVERHEAD 128u

/* ---- Encoding ---- */

static int pack(const Fleet__RaftFrame *frame, uint8_t **ret, size_t *ret_size)
{
    size_t size = fleet__raft_frame__get_packed_size(frame);

    if (size > FRAME_MAX)
        return -EMSGSIZE;
    *ret = xmalloc(size);
    *ret_size = fleet__raft_frame__pack(frame, *ret);
    return 0;
}

/* How many entries from 'first' on go into one frame. */
static unsigned entries_that_fit(const struct raft_append_entries *m, size_t first)
{
    size_t size = 0;
    unsigned n = 0;

    for (size_t i = first; i < m->n_entries && n < RAFT_ENTRIES_PER_MESSAGE_MAX; i++, n++) {
        size += m->entries[i].buf.len + ENTRY_OVERHEAD;
        if (n > 0 && size > RAFTWIRE_PIECE_SIZE)
            break;
    }
    return n;
}

static int encode_append_entries(const struct raft_append_entries *m, size_t first, uint8_t **ret,
                                 size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__AppendEntries append = FLEET__APPEND_ENTRIES__INIT;
    unsigned n = entries_that_fit(m, first);
    _cleanup_(freep) Fleet__RaftEntry *entries = xcalloc(n, sizeof(*entries));
    _cleanup_(freep) Fleet__RaftEntry **pointers = xcalloc(n, sizeof(*pointers));
    int r;

    for (unsigned i = 0; i < n; i++) {
        const struct raft_entry *from = &m->entries[first + i];

        if (from->buf.len > FRAME_MAX - ENTRY_OVERHEAD - FRAME_OVERHEAD)
            return -EMSGSIZE;
        fleet__raft_entry__init(&entries[i]);
        entries[i].term = from->term;
        entries[i].type = from->type;
        entries[i].data.data = from->buf.base;
        entries[i].data.len = from->buf.len;
        pointers[i] = &entries[i];
    }
    append.term = m->term;
    append.prev_log_index = m->prev_log_index + first;
    append.prev_log_term = first > 0 ? m->entries[first - 1].term : m->prev_log_term;
    append.leader_commit = m->leader_commit;
    append.n_entries = n;
    append.entries = pointers;
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_APPEND_ENTRIES;
    frame.append_entries = &append;
    r = pack(&frame, ret, ret_size);
    return r < 0 ? r : (int)n;
}

static int encode_snapshot(const struct raft_install_snapshot *m, size_t first, uint8_t **ret,
                           size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__InstallSnapshotPiece piece = FLEET__INSTALL_SNAPSHOT_PIECE__INIT;
    Fleet__RaftServer servers[RAFT_SERVERS_MAX], *pointers[RAFT_SERVERS_MAX];
    size_t rest = m->data.len - first;
    int r;

    if (m->conf.n > RAFT_SERVERS_MAX || m->data.len > SNAPSHOT_MAX)
        return -EMSGSIZE;
    for (unsigned i = 0; i < m->conf.n; i++) {
        fleet__raft_server__init(&servers[i]);
        servers[i].id = m->conf.servers[i].id;
        servers[i].address = m->conf.servers[i].address;
        servers[i].role = m->conf.servers[i].role;
        pointers[i] = &servers[i];
    }
    piece.term = m->term;
    piece.last_index = m->last_index;
    piece.last_term = m->last_term;
    piece.n_configuration = m->conf.n;
    piece.configuration = pointers;
    piece.configuration_index = m->conf_index;
    piece.size = m->data.len;
    piece.offset = first;
    piece.data.len = rest < RAFTWIRE_PIECE_SIZE ? rest : RAFTWIRE_PIECE_SIZE;
    piece.data.data = (uint8_t *)m->data.base + first;
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_INSTALL_SNAPSHOT;
    frame.install_snapshot = &piece;
    r = pack(&frame, ret, ret_size);
    return r < 0 ? r : (int)piece.data.len;
}

static int encode_vote(const struct raft_request_vote *m, uint8_t **ret, size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__RequestVote vote = FLEET__REQUEST_VOTE__INIT;

    vote.term = m->term;
    vote.candidate_id = m->candidate_id;
    vote.last_log_index = m->last_log_index;
    vote.last_log_term = m->last_log_term;
    vote.disrupt_leader = m->disrupt_leader;
    vote.pre_vote = m->pre_vote;
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE;
    frame.request_vote = &vote;
    return pack(&frame, ret, ret_size);
}

static int encode_vote_result(const struct raft_request_vote_result *m, uint8_t **ret, size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__RequestVoteResult result = FLEET__REQUEST_VOTE_RESULT__INIT;

    result.term = m->term;
    result.vote_granted = m->vote_granted;
    result.pre_vote = raft_compat_get_pre_vote(m);
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE_RESULT;
    frame.request_vote_result = &result;
    return pack(&frame, ret, ret_size);
}

static int encode_append_result(const struct raft_append_entries_result *m, uint8_t **ret, size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__AppendEntriesResult result = FLEET__APPEND_ENTRIES_RESULT__INIT;

    result.term = m->term;
    result.rejected = m->rejected;
    result.last_log_index = m->last_log_index;
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_APPEND_ENTRIES_RESULT;
    frame.append_entries_result = &result;
    return pack(&frame, ret, ret_size);
}

static int encode_timeout_now(const struct raft_timeout_now *m, uint8_t **ret, size_t *ret_size)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__TimeoutNow now = FLEET__TIMEOUT_NOW__INIT;

    now.term = m->term;
    now.last_log_index = m->last_log_index;
    now.last_log_term = m->last_log_term;
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_TIMEOUT_NOW;
    frame.timeout_now = &now;
    return pack(&frame, ret, ret_size);
}

int raftwire_encode(const struct raft_message *message, size_t first, uint8_t **ret, size_t *ret_size)
{
    switch (message->type) {
    case RAFT_IO_REQUEST_VOTE: return encode_vote(&message->request_vote, ret, ret_size);
    case RAFT_IO_REQUEST_VOTE_RESULT: return encode_vote_result(&message->request_vote_result, ret, ret_size);
    case RAFT_IO_APPEND_ENTRIES: return encode_append_entries(&message->append_entries, first, ret, ret_size);
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        return encode_append_result(&message->append_entries_result, ret, ret_size);
    case RAFT_IO_INSTALL_SNAPSHOT: return encode_snapshot(&message->install_snapshot, first, ret, ret_size);
    case RAFT_IO_TIMEOUT_NOW: return encode_timeout_now(&message->timeout_now, ret, ret_size);
    default: return -EINVAL;
    }
}

/* ---- Decoding ---- */

/* protobuf-c takes some hundred bytes for a repeated message of two: a frame may only cost so many times its
 * size. */
struct budget {
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;

    if (size > budget->left)
        return NULL;
    budget->left -= size;
    return xmalloc(size);
}

static void budget_free(void *data, void *p)
{
    free(p);
}

/* libraft's memory; aborts like ours when there is none. */
static void *raft_xmalloc(size_t size)
{
    void *p = raft_malloc(size > 0 ? size : 1);

    if (p == NULL)
        abort();
    return p;
}

static int check_entry(const Fleet__RaftEntry *entry, uint64_t term, struct err *err)
{
    struct raftconf configuration;

    if (entry->type != RAFT_COMMAND && entry->type != RAFT_BARRIER && entry->type != RAFT_CHANGE)
        return err_set(err, -EBADMSG, "an entry of unknown type %" PRIu32, entry->type);
    if (entry->data.len == 0 || entry->data.len % 8 != 0)
        return err_set(err, -EBADMSG, "an entry of %zu bytes, not a multiple of 8", entry->data.len);
    if (entry->term == 0 || entry->term > term)
        return err_set(err, -EBADMSG, "an entry of term %" PRIu64 " in a message of term %" PRIu64,
                       entry->term, term);
    if (entry->type == RAFT_CHANGE && raftconf_read(entry->data.data, entry->data.len, &configuration) < 0)
        return err_set(err, -EBADMSG, "a configuration entry that is damaged");
    return 0;
}

/* All entries' data in one allocation, which every entry names as its batch: so libraft frees it. */
static void build_entries(const Fleet__AppendEntries *from, size_t size, struct raft_append_entries *to)
{
    uint8_t *batch = raft_xmalloc(size), *cursor = batch;

    to->entries = raft_xmalloc(from->n_entries * sizeof(*to->entries));
    to->n_entries = from->n_entries;
    for (size_t i = 0; i < from->n_entries; i++) {
        const Fleet__RaftEntry *entry = from->entries[i];

        to->entries[i] = (struct raft_entry){.term = entry->term, .type = entry->type, .batch = batch};
        to->entries[i].buf.base = cursor;
        to->entries[i].buf.len = entry->data.len;
        memcpy(cursor, entry->data.data, entry->data.len);
        cursor += entry->data.len;
    }
}

static int decode_append_entries(const Fleet__AppendEntries *from, struct raft_append_entries *to,
                                 struct err *err)
{
    size_t size = 0;
    int r;

    if (from->n_entries > RAFT_ENTRIES_PER_MESSAGE_MAX)
        return err_set(err, -EBADMSG, "%zu entries in a message, the limit is %u", from->n_entries,
                       RAFT_ENTRIES_PER_MESSAGE_MAX);
    if (from->prev_log_index >= UINT64_MAX - from->n_entries)
        return err_set(err, -EBADMSG, "an index of %" PRIu64, from->prev_log_index);
    for (size_t i = 0; i < from->n_entries; i++) {
        r = check_entry(from->entries[i], from->term, err);
        if (r < 0)
            return r;
        size += from->entries[i]->data.len;
    }
    *to = (struct raft_append_entries){.term = from->term,
                                       .prev_log_index = from->prev_log_index,
                                       .prev_log_term = from->prev_log_term,
                                       .leader_commit = from->leader_commit};
    if (from->n_entries > 0)
        build_entries(from, size, to);
    return 0;
}

static int decode_configuration(const Fleet__InstallSnapshotPiece *from, struct raft_configuration *to,
                                struct err *err)
{
    struct address address;

    if (from->n_configuration == 0 || from->n_configuration > RAFT_SERVERS_MAX)
        return err_set(err, -EBADMSG, "a configuration of %zu servers, the limit is %u",
                       from->n_configuration, RAFT_SERVERS_MAX);
    for (size_t i = 0; i < from->n_configuration; i++) {
        const Fleet__RaftServer *server = from->configuration[i];

        if (server->id == 0 || server->role > RAFT_SPARE || address_parse(server->address, &address, err) < 0)
            return err_set(err, -EBADMSG,
                           "a configuration with a server that has no proper id, role or address");
        if (raft_configuration_add(to, server->id, server->address, server->role) != 0)
            return err_set(err, -EBADMSG, "a configuration that has a server twice");
    }
    return 0;
}

static int decode_snapshot(const Fleet__InstallSnapshotPiece *from, struct raft_install_snapshot *to,
                           struct raftwire_piece *piece, struct err *err)
{
    int r;

    if (from->size > SNAPSHOT_MAX)
        return err_set(err, -EBADMSG, "a snapshot of %" PRIu64 " bytes, the limit is %u", from->size,
                       SNAPSHOT_MAX);
    if (from->offset > from->size || from->data.len > from->size - from->offset ||
        (from->data.len == 0 && from->size > 0))
        return err_set(err, -EBADMSG, "a piece of a snapshot that lies outside of it");
    if (from->last_index == 0 || from->last_term == 0 || from->last_term > from->term ||
        from->configuration_index > from->last_index)
        return err_set(err, -EBADMSG, "a snapshot of index %" PRIu64 ", term %" PRIu64, from->last_index,
                       from->last_term);

    *to = (struct raft_install_snapshot){.term = from->term,
                                         .last_index = from->last_index,
                                         .last_term = from->last_term,
                                         .conf_index = from->configuration_index};
    raft_configuration_init(&to->conf);
    r = decode_configuration(from, &to->conf, err);
    if (r < 0) {
        raft_configuration_close(&to->conf);
        return r;
    }
    to->data.len = from->data.len;
    to->data.base = raft_xmalloc(from->data.len);
    if (from->data.len > 0)
        memcpy(to->data.base, from->data.data, from->data.len);
    *piece = (struct raftwire_piece){.offset = from->offset, .size = from->size};
    return 0;
}

static int decode_vote(const Fleet__RequestVote *from, struct raft_request_vote *to, struct err *err)
{
    if (from->candidate_id == 0)
        return err_set(err, -EBADMSG, "a candidate without an id");
    *to = (struct raft_request_vote){.term = from->term,
                                     .candidate_id = from->candidate_id,
                                     .last_log_index = from->last_log_index,
                                     .last_log_term = from->last_log_term,
                                     .disrupt_leader = from->disrupt_leader,
                                     .pre_vote = from->pre_vote};
    return 0;
}

static int decode_vote_result(const Fleet__RequestVoteResult *from, struct raft_request_vote_result *to,
                              struct err *err)
{
    if (from->pre_vote > RAFT_COMPAT_PRE_VOTE_FALSE)
        return err_set(err, -EBADMSG, "a vote that is neither a pre-vote nor not one");
    *to = (struct raft_request_vote_result){.term = from->term, .vote_granted = from->vote_granted};
    raft_compat_set_pre_vote(to, (enum raft_compat_pre_vote)from->pre_vote);
    return 0;
}

static int decode_frame(const Fleet__RaftFrame *frame, struct raft_message *ret, struct raftwire_piece *piece,
                        struct err *err)
{
    switch (frame->message_case) {
    case FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE:
        ret->type = RAFT_IO_REQUEST_VOTE;
        return decode_vote(frame->request_vote, &ret->request_vote, err);
    case FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE_RESULT:
        ret->type = RAFT_IO_REQUEST_VOTE_RESULT;
        return decode_vote_result(frame->request_vote_result, &ret->request_vote_result, err);
    case FLEET__RAFT_FRAME__MESSAGE_APPEND_ENTRIES:
        ret->type = RAFT_IO_APPEND_ENTRIES;
        return decode_append_entries(frame->append_entries, &ret->append_entries, err);
    case FLEET__RAFT_FRAME__MESSAGE_APPEND_ENTRIES_RESULT:
        ret->type = RAFT_IO_APPEND_ENTRIES_RESULT;
        ret->append_entries_result = (struct raft_append_entries_result){
            .term = frame->append_entries_result->term,
            .rejected = frame->append_entries_result->rejected,
            .last_log_index = frame->append_entries_result->last_log_index};
        return 0;
    case FLEET__RAFT_FRAME__MESSAGE_INSTALL_SNAPSHOT:
        ret->type = RAFT_IO_INSTALL_SNAPSHOT;
        return decode_snapshot(frame->install_snapshot, &ret->install_snapshot, piece, err);
    case FLEET__RAFT_FRAME__MESSAGE_TIMEOUT_NOW:
        ret->type = RAFT_IO_TIMEOUT_NOW;
        ret->timeout_now = (struct raft_timeout_now){.term = frame->timeout_now->term,
                                                     .last_log_index = frame->timeout_now->last_log_index,
                                                     .last_log_term = frame->timeout_now->last_log_term};
        return 0;
    default: return err_set(err, -ENOMSG, "a message of a kind that is not known here");
    }
}

int raftwire_decode(const uint8_t *bytes, size_t size, struct raft_message *ret,
                    struct raftwire_piece *ret_piece, struct err *err)
{
    struct budget budget = {.left = 2 * size + 512 * 1024};
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    struct raft_message message = {0};
    struct raftwire_piece piece = {0};
    Fleet__RaftFrame *frame;
    int r;

    if (size > FRAME_MAX)
        return err_set(err, -EBADMSG, "a frame of %zu bytes, the limit is %u", size, FRAME_MAX);
    frame = fleet__raft_frame__unpack(&allocator, size, bytes);
    if (frame == NULL)
        return err_set(err, -EBADMSG, "not a Raft message");
    r = decode_frame(frame, &message, &piece, err);
    fleet__raft_frame__free_unpacked(frame, &allocator);
    if (r < 0)
        return r;
    *ret = message;
    *ret_piece = piece;
    return 0;
}

void raftwire_message_done(struct raft_message *message)
{
    if (message->type == RAFT_IO_APPEND_ENTRIES && message->append_entries.entries != NULL) {
        raft_free(message->append_entries.entries[0].batch);
        raft_free(message->append_entries.entries);
    } else if (message->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raft_configuration_close(&message->install_snapshot.conf);
        raft_free(message->install_snapshot.data.base);
    }
    message->type = 0;
}
