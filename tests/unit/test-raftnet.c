/* SPDX-License-Identifier: Apache-2.0 */
/* The codec as tables; two raftnets under a pretend raft_io; then real libraft servers over loopback (without
 * the guard): election, replication, restart, a snapshot for a late one. */
#include <config.h>

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "raftstore/assembly.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/identify.h"
#include "raftstore/limits.h"
#include "raftstore/raftnet.h"
#include "raftstore/raftwire.h"
#include "tests/unit/deadline.h"

/* ---- Codec ---- */

static struct raft_message round_trip(const struct raft_message *message)
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    struct raft_message back;
    struct raftwire_piece piece;
    struct err err = {0};
    size_t size;

    assert_true(raftwire_encode(message, 0, &bytes, &size) >= 0);
    if (raftwire_decode(bytes, size, &back, &piece, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(back.type, message->type);
    return back;
}

static void test_small_messages(void **state)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE}, back;

    m.request_vote = (struct raft_request_vote){.term = UINT64_MAX,
                                                .candidate_id = 1ull << 63,
                                                .last_log_index = 3,
                                                .last_log_term = 4,
                                                .disrupt_leader = true,
                                                .pre_vote = true};
    back = round_trip(&m);
    assert_true(back.request_vote.term == UINT64_MAX && back.request_vote.candidate_id == 1ull << 63 &&
                back.request_vote.last_log_index == 3 && back.request_vote.last_log_term == 4 &&
                back.request_vote.disrupt_leader && back.request_vote.pre_vote);

    for (enum raft_compat_pre_vote pre_vote = RAFT_COMPAT_PRE_VOTE_TRUE;
         pre_vote <= RAFT_COMPAT_PRE_VOTE_FALSE; pre_vote++) {
        m = (struct raft_message){.type = RAFT_IO_REQUEST_VOTE_RESULT};
        m.request_vote_result = (struct raft_request_vote_result){.term = 7, .vote_granted = true};
        raft_compat_set_pre_vote(&m.request_vote_result, pre_vote);
        back = round_trip(&m);
        assert_true(back.request_vote_result.term == 7 && back.request_vote_result.vote_granted &&
                    raft_compat_get_pre_vote(&back.request_vote_result) == pre_vote);
    }

    m = (struct raft_message){.type = RAFT_IO_APPEND_ENTRIES_RESULT};
    m.append_entries_result =
        (struct raft_append_entries_result){.term = 5, .rejected = 6, .last_log_index = 7};
    back = round_trip(&m);
    assert_true(back.append_entries_result.term == 5 && back.append_entries_result.rejected == 6 &&
                back.append_entries_result.last_log_index == 7);

    m = (struct raft_message){.type = RAFT_IO_TIMEOUT_NOW};
    m.timeout_now = (struct raft_timeout_now){.term = 5, .last_log_index = 6, .last_log_term = 7};
    back = round_trip(&m);
    assert_true(back.timeout_now.term == 5 && back.timeout_now.last_log_index == 6 &&
                back.timeout_now.last_log_term == 7);
}

/* 'n' entries of 'size' bytes, terms 1 and 2, every entry's content its number. */
static struct raft_entry *make_entries(unsigned n, size_t size)
{
    struct raft_entry *entries = xcalloc(n, sizeof(*entries));

    for (unsigned i = 0; i < n; i++) {
        entries[i] = (struct raft_entry){.term = i < n / 2 ? 1 : 2, .type = RAFT_COMMAND};
        entries[i].buf.len = size;
        entries[i].buf.base = xcalloc(1, size);
        memcpy(entries[i].buf.base, &i, sizeof(i));
    }
    return entries;
}

static void free_entries(struct raft_entry *entries, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(entries[i].buf.base);
    free(entries);
}

static void test_append_entries_in_frames(void **state)
{
    static const struct {
        unsigned n;
        size_t size;
        unsigned frames;
    } cases[] = {{0, 0, 1}, {1, 8, 1}, {1024, 8, 1}, {1025, 8, 2}, {10, COMMAND_MAX, 10}, {40, 64 * 1024, 3}};

    for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
        struct raft_entry *entries = make_entries(cases[c].n, cases[c].size);
        struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};
        unsigned first = 0, frames = 0;

        m.append_entries = (struct raft_append_entries){.term = 9,
                                                        .prev_log_index = 100,
                                                        .prev_log_term = 1,
                                                        .leader_commit = 50,
                                                        .entries = entries,
                                                        .n_entries = cases[c].n};
        do {
            _cleanup_(freep) uint8_t *bytes = NULL;
            struct raft_message back;
            struct raftwire_piece piece;
            size_t size;
            int n = raftwire_encode(&m, first, &bytes, &size);

            assert_true(n >= 0 && (n > 0 || cases[c].n == 0));
            assert_true(size <= FRAME_MAX);
            assert_int_equal(raftwire_decode(bytes, size, &back, &piece, NULL), 0);
            assert_int_equal(back.append_entries.prev_log_index, 100 + first);
            assert_int_equal(back.append_entries.prev_log_term, first == 0 ? 1 : entries[first - 1].term);
            assert_int_equal(back.append_entries.n_entries, n);
            for (int i = 0; i < n; i++) {
                const struct raft_entry *entry = &back.append_entries.entries[i];

                assert_ptr_equal(entry->batch, back.append_entries.entries[0].buf.base);
                assert_int_equal(entry->term, entries[first + i].term);
                assert_int_equal(entry->buf.len, cases[c].size);
                assert_memory_equal(entry->buf.base, entries[first + i].buf.base, cases[c].size);
            }
            raftwire_message_done(&back);
            first += n;
            frames++;
        } while (first < cases[c].n);
        assert_int_equal(frames, cases[c].frames);
        free_entries(entries, cases[c].n);
    }
}

static void expect_bad(const Fleet__RaftFrame *frame, int expected)
{
    _cleanup_(freep) uint8_t *bytes = xmalloc(fleet__raft_frame__get_packed_size(frame));
    size_t size = fleet__raft_frame__pack(frame, bytes);
    struct raft_message message = {.type = 77};
    struct raftwire_piece piece;
    struct err err = {0};

    assert_int_equal(raftwire_decode(bytes, size, &message, &piece, &err), expected);
    assert_true(err.text[0] != '\0');
    assert_int_equal(message.type, 77);
}

static void test_bad_entries(void **state)
{
    static uint8_t empty[8] = {0}, no_configuration[16] = {1, 2},
                   long_configuration[16] = {1, 255, 255, 255, 255};
    /* Version 1, one server: id 1, address "a" but no end to it. */
    static uint8_t cut_address[24] = {1, 1, 0, 0, 0, 0,   0,   0,   0,   1,   0,   0,
                                      0, 0, 0, 0, 0, 'a', 'a', 'a', 'a', 'a', 'a', 'a'};
    static const struct {
        uint64_t term;
        uint32_t type;
        uint8_t *data;
        size_t size;
    } bad[] = {
        {1, 0, empty, 8},
        {1, 4, empty, 8},
        {1, RAFT_COMMAND + 65536, empty, 8},
        {1, RAFT_COMMAND, empty, 0},
        {1, RAFT_COMMAND, empty, 7},
        {0, RAFT_COMMAND, empty, 8},
        {6, RAFT_COMMAND, empty, 8},
        {1, RAFT_CHANGE, empty, 8},
        {1, RAFT_CHANGE, no_configuration, 16},
        {1, RAFT_CHANGE, long_configuration, 16},
        {1, RAFT_CHANGE, cut_address, 24},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
        Fleet__AppendEntries append = FLEET__APPEND_ENTRIES__INIT;
        Fleet__RaftEntry entry = FLEET__RAFT_ENTRY__INIT, *entries = &entry;

        entry.term = bad[i].term;
        entry.type = bad[i].type;
        entry.data.data = bad[i].data;
        entry.data.len = bad[i].size;
        append.term = 5;
        append.n_entries = 1;
        append.entries = &entries;
        frame.message_case = FLEET__RAFT_FRAME__MESSAGE_APPEND_ENTRIES;
        frame.append_entries = &append;
        expect_bad(&frame, -EBADMSG);
        append.prev_log_index = UINT64_MAX;
        expect_bad(&frame, -EBADMSG);
    }
}

/* Two bytes of frame for each empty entry must not buy a hundred bytes of memory each, two million times. */
static void test_many_empty_entries(void **state)
{
    size_t size = FRAME_MAX, n = size - 8;
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);
    struct raft_message message;
    struct raftwire_piece piece;

    bytes[0] = 3 << 3 | 2; /* append_entries, four bytes of length. */
    bytes[1] = (n & 0x7f) | 0x80;
    bytes[2] = (n >> 7 & 0x7f) | 0x80;
    bytes[3] = (n >> 14 & 0x7f) | 0x80;
    bytes[4] = n >> 21;
    for (size_t i = 0; i < n; i += 2) {
        bytes[5 + i] = 5 << 3 | 2;
        bytes[5 + i + 1] = 0;
    }
    assert_int_equal(raftwire_decode(bytes, 5 + n, &message, &piece, NULL), -EBADMSG);
    assert_int_equal(raftwire_decode(bytes, FRAME_MAX + 1, &message, &piece, NULL), -EBADMSG);
}

static void test_bad_pieces(void **state)
{
    static const struct {
        uint64_t size, offset, length, last_index, last_term, id;
        uint32_t role;
        const char *address;
        unsigned servers;
    } bad[] = {
        {SNAPSHOT_MAX + 1ull, 0, 8, 9, 1, 1, 1, "a:1", 1},
        {16, 17, 0, 9, 1, 1, 1, "a:1", 1},
        {16, 16, 8, 9, 1, 1, 1, "a:1", 1},
        {16, 9, 8, 9, 1, 1, 1, "a:1", 1},
        {16, UINT64_MAX, 8, 9, 1, 1, 1, "a:1", 1},
        {16, 0, 0, 9, 1, 1, 1, "a:1", 1},
        {16, 0, 8, 0, 1, 1, 1, "a:1", 1},
        {16, 0, 8, 9, 0, 1, 1, "a:1", 1},
        {16, 0, 8, 9, 6, 1, 1, "a:1", 1},
        {16, 0, 8, 9, 1, 0, 1, "a:1", 1},
        {16, 0, 8, 9, 1, 1, 3, "a:1", 1},
        {16, 0, 8, 9, 1, 1, 1, "", 1},
        {16, 0, 8, 9, 1, 1, 1, "a b", 1},
        {16, 0, 8, 9, 1, 1, 1, "a:1", 0},
        {16, 0, 8, 9, 1, 1, 1, "a:1", 2},
        {16, 0, 8, 9, 1, 1, 1, "a:1", RAFT_SERVERS_MAX + 1},
    };
    static uint8_t data[8];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
        Fleet__InstallSnapshotPiece piece = FLEET__INSTALL_SNAPSHOT_PIECE__INIT;
        Fleet__RaftServer server = FLEET__RAFT_SERVER__INIT, *servers[RAFT_SERVERS_MAX + 1];

        for (size_t k = 0; k < ARRAY_SIZE(servers); k++)
            servers[k] = &server;
        server.id = bad[i].id;
        server.role = bad[i].role;
        server.address = (char *)bad[i].address;
        piece.term = 5;
        piece.size = bad[i].size;
        piece.offset = bad[i].offset;
        piece.data.data = data;
        piece.data.len = bad[i].length;
        piece.last_index = bad[i].last_index;
        piece.last_term = bad[i].last_term;
        piece.n_configuration = bad[i].servers;
        piece.configuration = servers;
        frame.message_case = FLEET__RAFT_FRAME__MESSAGE_INSTALL_SNAPSHOT;
        frame.install_snapshot = &piece;
        expect_bad(&frame, -EBADMSG);
    }
}

static void test_bad_small_messages(void **state)
{
    Fleet__RaftFrame frame = FLEET__RAFT_FRAME__INIT;
    Fleet__RequestVote vote = FLEET__REQUEST_VOTE__INIT;
    Fleet__RequestVoteResult result = FLEET__REQUEST_VOTE_RESULT__INIT;
    struct raft_message message;
    struct raftwire_piece piece;

    expect_bad(&frame, -ENOMSG);
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE;
    frame.request_vote = &vote;
    expect_bad(&frame, -EBADMSG);
    frame.message_case = FLEET__RAFT_FRAME__MESSAGE_REQUEST_VOTE_RESULT;
    frame.request_vote_result = &result;
    result.pre_vote = 3;
    expect_bad(&frame, -EBADMSG);
    assert_int_equal(raftwire_decode((const uint8_t *)"\xff\xff", 2, &message, &piece, NULL), -EBADMSG);
}

static struct raft_message piece_message(uint64_t index, size_t size)
{
    struct raft_message m = {.type = RAFT_IO_INSTALL_SNAPSHOT};

    m.install_snapshot = (struct raft_install_snapshot){.term = 1, .last_index = index, .last_term = 1};
    m.install_snapshot.data.base = raft_calloc(1, size);
    m.install_snapshot.data.len = size;
    return m;
}

static bool add(struct assembly *assembly, uint64_t index, uint64_t offset, size_t length, uint64_t size,
                size_t expected)
{
    struct raft_message m = piece_message(index, length);
    bool whole = assembly_add(assembly, &m, &(struct raftwire_piece){.offset = offset, .size = size});

    if (whole)
        assert_int_equal(m.install_snapshot.data.len, expected);
    else
        assert_int_equal(m.type, 0);
    raftwire_message_done(&m);
    return whole;
}

static void test_pieces_out_of_order(void **state)
{
    struct assembly a = {0};

    assert_false(add(&a, 5, 8, 8, 16, 0)); /* Without a beginning. */
    assert_false(add(&a, 5, 0, 8, 24, 0));
    assert_false(add(&a, 5, 16, 8, 24, 0)); /* One is missing: all is dropped. */
    assert_false(add(&a, 5, 8, 8, 24, 0));
    assert_false(add(&a, 5, 0, 8, 24, 0));
    assert_false(add(&a, 6, 8, 8, 24, 0)); /* Of another snapshot. */
    assert_false(add(&a, 5, 0, 8, 24, 0));
    assert_false(add(&a, 5, 0, 8, 24, 0)); /* Begins again. */
    assert_false(add(&a, 5, 8, 8, 24, 0));
    assert_true(add(&a, 5, 16, 8, 24, 24));
    assert_true(add(&a, 5, 0, 8, 8, 8));
    assert_false(add(&a, 5, 0, 8, 24, 0));
    assembly_done(&a);
}

/* ---- A world: a loop, ports, a deadline ---- */

struct server {
    struct world *world;
    uint64_t id;
    uint8_t boot; /* All bytes of its boot id. */
    char address[ADDRESS_MAX + 1];
    struct port *port;
    struct raftnet *net;
    struct raft_io io;

    /* Under a pretend raft_io. */
    struct raft_message got; /* The last one, if its memory is kept. */
    unsigned received, calls;
    uint64_t entries, next_index, from;
    int status;
    char from_address[ADDRESS_MAX + 1];
    raft_io_close_cb pretend_close;
    uv_timer_t pretend_timer;

    /* Under a real one. */
    struct raft_uv_transport transport;
    struct raft_fsm fsm;
    struct raft raft;
    bool running, closed;
    char dir[64];
    uint64_t applied, sum, restored;
};

struct world {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired;
    unsigned ports_closed;
    struct server servers[5];
    unsigned count;
    bool strangers; /* Nobody is found by id. */
};

static struct world *the_world;

static void sink(int priority, const char *message, const char *const *fields)
{
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "%s\n", message);
}

static void on_deadline(uv_timer_t *timer)
{
    ((struct world *)timer->data)->expired = true;
}

#define WAIT(w, condition)                                                     \
    do {                                                                       \
        (w)->expired = false;                                                  \
        uv_timer_start(&(w)->deadline, on_deadline, DEADLINE_MS, 0);           \
        while (!(condition) && !(w)->expired)                                  \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                   \
        uv_timer_stop(&(w)->deadline);                                         \
        if (!(condition))                                                      \
            fail_msg("never came true in %u ms: %s", DEADLINE_MS, #condition); \
    } while (0)

static int on_resolve(uint64_t server_id, char *address, void *data)
{
    struct world *w = data;

    if (w->strangers)
        return -ENOENT;
    for (unsigned i = 0; i < w->count; i++) {
        if (w->servers[i].id == server_id) { /* The first one: those behind it are copies. */
            strcpy(address, w->servers[i].address);
            return 0;
        }
    }
    return -ENOENT;
}

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct server *s = data;

    assert_int_equal(hello->purpose, FLEET__PURPOSE__PURPOSE_RAFT);
    *ret = s->net != NULL ? raftnet_accept(s->net, hello->server_id, hello->boot_id.data, ret_data) : NULL;
    return 0;
}

static void server_open_port(struct server *s, const char *address)
{
    const struct port_callbacks callbacks = {.on_accept = on_accept};
    struct port_identity identity = {.has_cluster = true, .server_id = s->id};
    struct err err = {0};

    snprintf(identity.machine_id, sizeof(identity.machine_id), "%032x", (unsigned)s->id);
    memset(identity.boot_id, s->boot, sizeof(identity.boot_id));
    s->port = port_new(&s->world->loop, &identity, &callbacks, s);
    if (port_listen(s->port, address, &err) < 0)
        fail_msg("%s", err.text);
    strcpy(s->address, port_listening(s->port));
}

static void on_port_closed(void *data)
{
    ((struct world *)data)->ports_closed++;
}

static void server_close_port(struct server *s)
{
    struct world *w = s->world;
    unsigned before = w->ports_closed;

    port_close(TAKE_PTR(s->port), on_port_closed, w);
    WAIT(w, w->ports_closed > before);
}

static struct server *server_add(struct world *w)
{
    struct server *s = &w->servers[w->count++];

    s->world = w;
    s->id = w->count;
    server_open_port(s, "127.0.0.1:0");
    return s;
}

/* Of the same server id, in another boot: a host with a copy of its disk. */
static struct server *copy_of(struct server *original)
{
    struct server *s = &original->world->servers[original->world->count++];

    s->world = original->world;
    s->id = original->id;
    s->boot = original->boot + 1;
    server_open_port(s, "127.0.0.1:0");
    return s;
}

static int setup(void **state)
{
    struct world *w = NEW0(struct world);

    log_set_sink(sink);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->deadline);
    w->deadline.data = w;
    *state = the_world = w;
    return 0;
}

static void world_end(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->servers[i].port != NULL)
            server_close_port(&w->servers[i]);
    uv_close((uv_handle_t *)&w->deadline, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    free(w);
}

/* ---- Under a pretend raft_io ---- */

static struct server *server_of(struct raft_io *io)
{
    return CONTAINER_OF(io, struct server, io);
}

static int pretend_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    return 0;
}

static void on_pretend_closed(uv_handle_t *handle)
{
    struct server *s = CONTAINER_OF(handle, struct server, pretend_timer);

    s->pretend_close(&s->io);
}

static void pretend_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct server *s = server_of(io);

    s->pretend_close = cb;
    uv_timer_init(&s->world->loop, &s->pretend_timer);
    uv_close((uv_handle_t *)&s->pretend_timer, on_pretend_closed);
}

static void on_recv(struct raft_io *io, struct raft_message *message)
{
    struct server *s = server_of(io);

    s->received++;
    s->from = message->server_id;
    strcpy(s->from_address, message->server_address);
    if (message->type == RAFT_IO_APPEND_ENTRIES) {
        if (s->next_index == 0)
            s->next_index = message->append_entries.prev_log_index + 1;
        assert_int_equal(message->append_entries.prev_log_index + 1, s->next_index);
        s->next_index += message->append_entries.n_entries;
        s->entries += message->append_entries.n_entries;
    }
    if (message->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raftwire_message_done(&s->got);
        s->got = *message;
    } else {
        raftwire_message_done(message);
    }
}

static void pretend_open(struct server *s)
{
    const struct raftnet_callbacks callbacks = {.on_resolve = on_resolve};

    s->io.start = pretend_start;
    s->io.close = pretend_close;
    s->net = raftnet_new(&s->world->loop, s->port, &callbacks, s->world);
    raftnet_install(s->net, &s->io);
    s->closed = false;
    assert_int_equal(s->io.start(&s->io, 100, NULL, on_recv), 0);
}

static void on_closed(struct raft_io *io)
{
    struct server *s = server_of(io);

    raftnet_free(TAKE_PTR(s->net)); /* Allowed right here. */
    s->closed = true;
}

static void pretend_done(struct server *s)
{
    s->io.close(&s->io, on_closed);
    assert_false(s->closed);
    WAIT(s->world, s->closed);
    raftwire_message_done(&s->got);
}

static void on_sent(struct raft_io_send *req, int status)
{
    struct server *s = req->data;

    s->calls++;
    s->status = status;
}

static int send_to(struct server *s, struct server *to, struct raft_message *m, struct raft_io_send *req)
{
    unsigned calls = s->calls;
    int r;

    m->server_id = to->id;
    m->server_address = NULL; /* Not used: libraft 0.15 gives a stale pointer now and then. */
    req->data = s;
    r = s->io.send(&s->io, req, m, on_sent);
    assert_int_equal(s->calls, calls); /* Never from inside. */
    return r;
}

/* A request that does not get away: at once, or by its callback. */
static void assert_not_sent(struct server *s, struct server *to, struct raft_message *m,
                            struct raft_io_send *req)
{
    unsigned calls = s->calls;

    if (RAFT_COMPAT_SEND_MAY_FAIL) {
        assert_int_equal(send_to(s, to, m, req), RAFT_NOCONNECTION);
        return;
    }
    assert_int_equal(send_to(s, to, m, req), 0);
    WAIT(s->world, s->calls > calls);
    assert_int_equal(s->status, RAFT_NOCONNECTION);
}

static struct raft_message heartbeat_message(void)
{
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};

    m.append_entries.term = 3;
    return m;
}

/* Sends heartbeats until one arrives. */
static void connect_to(struct server *s, struct server *to)
{
    struct raft_message m = heartbeat_message();
    struct raft_io_send req;
    unsigned before = to->received;
    bool sent = false;
    int r;

    while (!sent) {
        s->calls = 0;
        r = send_to(s, to, &m, &req);
        uv_run(&s->world->loop, UV_RUN_NOWAIT);
        WAIT(s->world, r != 0 || s->calls > 0);
        sent = r == 0 && s->status == 0;
    }
    WAIT(s->world, to->received > before);
    to->next_index = 0;
}

static void test_connects_and_answers(void **state)
{
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w);
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};
    struct raft_io_send req;

    pretend_open(a);
    pretend_open(b);
    assert_int_equal(raftnet_last_heard_ms(b->net, 1), 0);

    m.request_vote.candidate_id = 1;
    assert_int_equal(send_to(a, b, &m, &req), 0); /* Waits for the connection. */
    WAIT(w, a->calls == 1 && b->received == 1);
    assert_int_equal(a->status, 0);
    assert_int_equal(b->from, 1);
    assert_string_equal(b->from_address, a->address);
    assert_true(raftnet_last_heard_ms(b->net, 1) > 0);

    m = (struct raft_message){.type = RAFT_IO_REQUEST_VOTE_RESULT};
    w->strangers = true; /* The answer finds its way without an address. */
    assert_int_equal(send_to(b, a, &m, &req), 0);
    WAIT(w, b->calls == 1 && a->received == 1);
    assert_int_equal(a->from, 2);

    m = heartbeat_message();
    assert_not_sent(a, b, &m, &req); /* A request does not. */
    pretend_done(a);

    m = (struct raft_message){.type = RAFT_IO_APPEND_ENTRIES_RESULT};
    for (unsigned i = 0; i < 10; i++) /* The end of the connection is noticed. */
        uv_run(&w->loop, UV_RUN_NOWAIT);
    assert_int_equal(send_to(b, a, &m, &req), 0);
    WAIT(w, b->calls == 2);
    assert_int_equal(b->status, RAFT_NOCONNECTION); /* Not at once, see raftnet.h. */
    pretend_done(b);
    world_end(w);
}

/* Turns the loop for so long. */
static void wait_ms(struct world *w, unsigned ms)
{
    uint64_t end = uv_hrtime() + ms * 1000000ull;

    while (uv_hrtime() < end) {
        w->expired = false;
        uv_timer_start(&w->deadline, on_deadline, 10, 0);
        uv_run(&w->loop, UV_RUN_ONCE);
    }
    uv_timer_stop(&w->deadline);
}

static void ask_for_vote(struct server *s, struct server *to, struct raft_io_send *req)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};

    m.request_vote.candidate_id = s->id;
    send_to(s, to, &m, req);
}

/* It asks for so long that every pause is over. Nobody hears it. */
static void assert_unheard(struct server *s, struct server *to)
{
    struct raft_io_send reqs[20];
    unsigned before = to->received;

    for (unsigned i = 0; i < ARRAY_SIZE(reqs); i++) {
        ask_for_vote(s, to, &reqs[i]);
        wait_ms(s->world, 100);
    }
    assert_int_equal(to->received, before);
}

/* Two hosts with one server id: the one at the server's address is the server. If that is away there is none.
 */
static void test_a_copy_is_not_heard(void **state)
{
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w), *copy = copy_of(a);
    struct raft_message answer = {.type = RAFT_IO_REQUEST_VOTE_RESULT};
    struct raft_io_send req, more;

    pretend_open(a);
    pretend_open(b);
    pretend_open(copy);
    assert_unheard(copy, b);
    ask_for_vote(a, b, &req);
    WAIT(w, b->received == 1);
    assert_int_equal(b->from, 1);
    assert_unheard(copy, b);
    ask_for_vote(a, b, &more); /* On the connection that it had: the copy has not ended it. */
    WAIT(w, b->received == 2);
    assert_int_equal(send_to(b, a, &answer, &req), 0); /* And the answers are the server's alone. */
    WAIT(w, a->received == 1);
    assert_int_equal(copy->received, 0);

    pretend_done(a);
    server_close_port(a);
    assert_unheard(copy, b);
    assert_int_equal(send_to(b, a, &answer, &req), 0);
    wait_ms(w, 100);
    assert_int_equal(copy->received, 0);
    pretend_done(b);
    pretend_done(copy);
    world_end(w);
}

/* The same host in a later boot, while the connections of the earlier one still seem to be there. */
static void test_a_server_that_was_booted_is_heard(void **state)
{
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w);
    struct raft_io_send req;
    unsigned before;

    pretend_open(a);
    pretend_open(b);
    ask_for_vote(a, b, &req);
    ask_for_vote(b, a, &req);
    WAIT(w, b->received == 1 && a->received == 1);
    pretend_done(a);
    server_close_port(a);
    a->boot++;
    server_open_port(a, a->address);
    pretend_open(a);
    before = b->received;
    ask_for_vote(a, b, &req);
    WAIT(w, b->received > before);
    pretend_done(a);
    pretend_done(b);
    world_end(w);
}

/* It is to be at another address by now: who speaks from the old one is not the server any more. */
static void test_a_server_that_has_moved(void **state)
{
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w), *moved = copy_of(a);
    char old[ADDRESS_MAX + 1];
    struct raft_io_send req;

    pretend_open(a);
    pretend_open(b);
    pretend_open(moved);
    ask_for_vote(a, b, &req);
    WAIT(w, b->received == 1);
    strcpy(old, a->address);
    strcpy(a->address, moved->address);
    assert_unheard(a, b);
    ask_for_vote(moved, b, &req);
    WAIT(w, b->received == 2);
    strcpy(a->address, old);
    pretend_done(a);
    pretend_done(b);
    pretend_done(moved);
    world_end(w);
}

static void test_append_entries_all_arrive(void **state)
{
    enum { N = 5000 };
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w);
    struct raft_entry *entries = make_entries(N, 512);
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};
    struct raft_io_send req, full;

    pretend_open(a);
    pretend_open(b);
    connect_to(a, b);
    a->calls = 0;
    m.append_entries = (struct raft_append_entries){
        .term = 9, .prev_log_index = 10, .prev_log_term = 1, .entries = entries, .n_entries = N};
    assert_int_equal(send_to(a, b, &m, &req), 0);
    WAIT(w, a->calls == 1 && b->entries == N);
    assert_int_equal(a->status, 0);
    free_entries(entries, N);

    /* More than the queue takes: a beginning arrives, and the sender hears that it was not all. */
    entries = make_entries(40, COMMAND_MAX);
    m.append_entries.entries = entries;
    m.append_entries.n_entries = 40;
    b->entries = b->next_index = 0;
    assert_int_equal(send_to(a, b, &m, &req), 0);
    assert_int_equal(send_to(a, b, &m, &full), RAFT_COMPAT_SEND_MAY_FAIL ? RAFT_NOCONNECTION : 0);
    WAIT(w, a->calls == (RAFT_COMPAT_SEND_MAY_FAIL ? 2 : 3));
    assert_int_equal(a->status, RAFT_NOCONNECTION);
    WAIT(w, b->entries >= 4);
    free_entries(entries, 40);
    pretend_done(a);
    assert_true(b->entries < 40);
    pretend_done(b);
    world_end(w);
}

static struct raft_message snapshot_message(struct raft_server *server, uint8_t *data, size_t size)
{
    struct raft_message m = {.type = RAFT_IO_INSTALL_SNAPSHOT};

    m.install_snapshot =
        (struct raft_install_snapshot){.term = 3, .last_index = 99, .last_term = 2, .conf_index = 1};
    m.install_snapshot.conf.servers = server;
    m.install_snapshot.conf.n = 1;
    m.install_snapshot.data.base = data;
    m.install_snapshot.data.len = size;
    return m;
}

static void test_snapshot_in_pieces(void **state)
{
    const size_t size = 10 * 1024 * 1024 + 8;
    struct world *w = *state;
    struct server *a = server_add(w), *b = server_add(w);
    struct raft_server server = {.id = 1, .address = (char *)"a.example:7390", .role = RAFT_VOTER};
    _cleanup_(freep) uint8_t *data = xmalloc(size);
    struct raft_message m = snapshot_message(&server, data, size), beat = heartbeat_message();
    struct raft_io_send req, again, beats[3];

    for (size_t i = 0; i < size; i++)
        data[i] = i * 2654435761u >> 24;
    pretend_open(a);
    pretend_open(b);
    connect_to(a, b);
    a->calls = b->received = 0;
    assert_int_equal(send_to(a, b, &m, &req), 0);
    for (size_t i = 0; i < ARRAY_SIZE(beats); i++)
        assert_int_equal(send_to(a, b, &beat, &beats[i]), 0); /* They pass between the pieces. */
    WAIT(w, a->calls == 3);
    assert_int_equal(b->got.type, 0);
    assert_int_equal(send_to(a, b, &m, &again), 0); /* Goes on where the first one is. */
    WAIT(w, a->calls == 5 && b->got.type != 0);
    assert_int_equal(a->status, 0);
    assert_int_equal(b->received, 4);
    assert_int_equal(b->got.install_snapshot.data.len, size);
    assert_memory_equal(b->got.install_snapshot.data.base, data, size);
    assert_int_equal(b->got.install_snapshot.conf.n, 1);
    assert_string_equal(b->got.install_snapshot.conf.servers[0].address, "a.example:7390");

    assert_int_equal(send_to(a, b, &m, &req), 0);
    pretend_done(a);
    assert_int_equal(a->calls, 6);
    assert_int_equal(a->status, RAFT_CANCELED);
    pretend_done(b);
    world_end(w);
}

static void test_unused(void **state)
{
    struct world *w = *state;
    static const uint8_t nobody[BOOT_ID_SIZE];
    struct server *a = server_add(w);
    const struct raftnet_callbacks callbacks = {.on_resolve = on_resolve};
    void *data;

    a->net = raftnet_new(&w->loop, a->port, &callbacks, w);
    assert_null(raftnet_accept(a->net, 7, nobody, &data));
    raftnet_free(TAKE_PTR(a->net));
    raftnet_free(NULL);
    world_end(w);
}

/* ---- Under libraft ---- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct server *s = fsm->data;
    uint64_t value;

    memcpy(&value, buf->base, sizeof(value));
    s->sum = s->sum * 31 + value;
    s->applied++;
    *result = NULL;
    return 0;
}

/* With three megabytes of ballast, so that it travels in pieces. */
#define SNAPSHOT_SIZE (3 * 1024 * 1024)

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct server *s = fsm->data;
    uint64_t *base = raft_calloc(1, SNAPSHOT_SIZE);

    base[0] = s->applied;
    base[1] = s->sum;
    *bufs = raft_malloc(sizeof(**bufs));
    (*bufs)[0].base = base;
    (*bufs)[0].len = SNAPSHOT_SIZE;
    *n_bufs = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct server *s = fsm->data;
    const uint64_t *base = buf->base;

    assert_int_equal(buf->len, SNAPSHOT_SIZE);
    s->applied = base[0];
    s->sum = base[1];
    s->restored++;
    raft_free(buf->base);
    return 0;
}

static void check(struct server *s, int rv)
{
    if (rv != 0)
        fail_msg("server %u: %s: %s", (unsigned)s->id, raft_strerror(rv), s->raft.errmsg);
}

static void server_start(struct server *s, bool bootstrap)
{
    const struct raftnet_callbacks callbacks = {.on_resolve = on_resolve};

    s->closed = false;
    s->applied = s->sum = 0;
    memset(&s->io, 0, sizeof(s->io));
    raftnet_null_transport(&s->transport);
    assert_int_equal(raft_uv_init(&s->io, &s->world->loop, s->dir, &s->transport), 0);
    s->net = raftnet_new(&s->world->loop, s->port, &callbacks, s->world);
    raftnet_install(s->net, &s->io);
    s->fsm = (struct raft_fsm){
        .version = 1, .data = s, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    check(s, raft_init(&s->raft, &s->io, &s->fsm, s->id, s->address));
    s->raft.data = s;
    raft_set_election_timeout(&s->raft, 1000);
    raft_set_heartbeat_timeout(&s->raft, 100);
    raft_set_pre_vote(&s->raft, true);
    raft_set_snapshot_threshold(&s->raft, 200);
    raft_set_snapshot_trailing(&s->raft, 20);
    raft_uv_set_snapshot_compression(&s->io, false);
    if (bootstrap) {
        struct raft_configuration configuration;

        raft_configuration_init(&configuration);
        for (unsigned i = 0; i < 3; i++)
            raft_configuration_add(&configuration, s->world->servers[i].id, s->world->servers[i].address,
                                   RAFT_VOTER);
        check(s, raft_bootstrap(&s->raft, &configuration));
        raft_configuration_close(&configuration);
    }
    check(s, raft_start(&s->raft));
    s->running = true;
}

static void on_raft_closed(struct raft *raft)
{
    struct server *s = raft->data;

    raftnet_free(TAKE_PTR(s->net));
    s->closed = true;
}

static void server_stop(struct server *s)
{
    raft_close(&s->raft, on_raft_closed);
    WAIT(s->world, s->closed);
    raft_uv_close(&s->io);
    s->running = false;
}

static struct server *leader_of(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->servers[i].running && raft_state(&w->servers[i].raft) == RAFT_LEADER)
            return &w->servers[i];
    return NULL;
}

static unsigned applies_done, applies_lost;

static void on_applied(struct raft_apply *req, int status, void *result)
{
    if (status == 0)
        applies_done++;
    else
        applies_lost++;
    free(req);
}

static void apply(struct server *leader, uint64_t value)
{
    struct raft_apply *req = NEW0(struct raft_apply);
    struct raft_buffer buf = {.len = 1024, .base = raft_calloc(1, 1024)};

    memcpy(buf.base, &value, sizeof(value));
    check(leader, raft_apply(&leader->raft, req, &buf, 1, on_applied));
}

/* 'n' entries, at most 64 at a time, all of them acknowledged. */
static void apply_many(struct world *w, unsigned n)
{
    unsigned sent = 0;

    applies_done = applies_lost = 0;
    while (applies_done < n) {
        struct server *leader;

        WAIT(w, (leader = leader_of(w)) != NULL);
        for (; sent < n && sent - applies_done < 64; sent++)
            apply(leader, sent + 1);
        WAIT(w, applies_done == sent || (sent < n && applies_done + 32 > sent));
        assert_int_equal(applies_lost, 0);
    }
}

static bool all_equal(struct world *w, uint64_t applied)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->servers[i].running &&
            (w->servers[i].applied != applied || w->servers[i].sum != w->servers[0].sum))
            return false;
    return true;
}

static void make_dir(struct server *s)
{
    snprintf(s->dir, sizeof(s->dir), "/tmp/test-raftnet.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static bool changed;

static void on_changed(struct raft_change *req, int status)
{
    if (status != 0)
        fail_msg("change: %s", raft_strerror(status));
    changed = true;
}

static void join(struct world *w, struct server *s)
{
    struct raft_change change = {0};
    struct server *leader = leader_of(w);

    changed = false;
    check(leader, raft_add(&leader->raft, &change, s->id, s->address, on_changed));
    WAIT(w, changed);
    changed = false;
    check(leader, raft_assign(&leader->raft, &change, s->id, RAFT_STANDBY, on_changed));
    WAIT(w, changed);
}

static void test_libraft(void **state)
{
    struct world *w = *state;
    struct server *follower, *late;

    for (unsigned i = 0; i < 3; i++)
        make_dir(server_add(w));
    for (unsigned i = 0; i < 3; i++)
        server_start(&w->servers[i], true);
    apply_many(w, 1000);
    WAIT(w, all_equal(w, 1000));

    /* One restarts, port and all, while the others go on. */
    follower = leader_of(w) == &w->servers[0] ? &w->servers[1] : &w->servers[0];
    server_stop(follower);
    server_close_port(follower);
    apply_many(w, 100);
    server_open_port(follower, follower->address);
    server_start(follower, false);
    WAIT(w, all_equal(w, 1100));

    /* A late one, with an empty directory, gets what is no longer in the log as a snapshot. */
    late = server_add(w);
    make_dir(late);
    server_start(late, false);
    join(w, late);
    WAIT(w, all_equal(w, 1100));
    assert_true(late->restored > 0);
    apply_many(w, 10);
    WAIT(w, all_equal(w, 1110));

    for (unsigned i = 0; i < w->count; i++) {
        server_stop(&w->servers[i]);
        nftw(w->servers[i].dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    world_end(w);
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_messages),
        cmocka_unit_test(test_append_entries_in_frames),
        cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_many_empty_entries),
        cmocka_unit_test(test_bad_pieces),
        cmocka_unit_test(test_bad_small_messages),
        cmocka_unit_test(test_pieces_out_of_order),
        T(test_unused),
        T(test_connects_and_answers),
        T(test_a_copy_is_not_heard),
        T(test_a_server_that_was_booted_is_heard),
        T(test_a_server_that_has_moved),
        T(test_append_entries_all_arrive),
        T(test_snapshot_in_pieces),
        T(test_libraft),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
