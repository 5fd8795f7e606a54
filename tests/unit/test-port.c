/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster port over loopback, in plain text: two ports, or one and a raw socket that knows no manners.
 * What does not depend on that is asked again with TLS. */
#include <config.h>

#include <errno.h>
#include <netdb.h>
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
#include "base/str.h"
#include "raftstore/address.h"
#include "raftstore/frame.h"
#include "raftstore/greeting.h"
#include "raftstore/limits.h"
#include "tests/unit/port-world.h"
#include "tests/unit/under-valgrind.h"

/* ---- Tests ---- */

static void test_address(void **state)
{
    static const struct {
        const char *text, *host;
        int port;
    } good[] = {
        {"a.example", "a.example", 7390},
        {"a:1", "a", 1},
        {"192.0.2.1:65535", "192.0.2.1", 65535},
        {"[2001:db8::1]:80", "2001:db8::1", 80},
        {"[::1]", "::1", 7390},
        {"::1", "::1", 7390},
        {"[::]:0", "::", 0},
        {":7391", "", 7391},
        {"fe80::1%eth0", "fe80::1%eth0", 7390},
    };
    static const char *const bad[] = {"",         "a:",   "a:x",    "a:65536",   "a:-1",
                                      "a:123456", "[::1", "[::1]x", "[]:80",     "a b:1",
                                      "a/b",      "a@b",  "[::1]:", "\xc3\xa4:1"};
    struct address address;
    char longest[ADDRESS_MAX + 2];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(address_parse(good[i].text, &address, NULL), 0);
        assert_string_equal(address.host, good[i].host);
        assert_int_equal(address.port, good[i].port);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = {0};

        assert_int_equal(address_parse(bad[i], &address, &err), -EINVAL);
        assert_true(err.text[0] != '\0');
    }
    memset(longest, 'a', sizeof(longest));
    longest[ADDRESS_MAX + 1] = '\0';
    assert_int_equal(address_parse(longest, &address, NULL), -EINVAL);
    longest[ADDRESS_HOST_MAX + 1] = '\0';
    assert_int_equal(address_parse(longest, &address, NULL), -EINVAL);
    longest[ADDRESS_HOST_MAX] = '\0';
    assert_int_equal(address_parse(longest, &address, NULL), 0);
}

static void test_listen_refuses(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};

    assert_int_equal(port_listen(f->client, "no-such-name.example:1", &err), -EINVAL);
    assert_non_null(strstr(err.text, "not an IP address"));
    assert_int_equal(port_listen(f->client, port_listening(f->server), &err), -EADDRINUSE);
    assert_int_equal(port_listen(f->client, "192.0.2.1:0", &err), -EADDRNOTAVAIL);
    assert_string_equal(port_listening(f->client), "");
}

static void test_greeting_and_messages(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    dial(f, &end);
    assert_int_equal(conn_send(end.conn, "x", 1), -ENOTCONN);
    WAIT(f, end.opened && f->accepted_count == 1);
    assert_int_equal(conn_peer_server_id(end.conn), 1);
    assert_int_equal(conn_peer_server_id(f->accepted[0].conn), 2);
    assert_string_equal(conn_peer(end.conn), port_listening(f->server));
    f->accepted[0].echo = true;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(conn_send(end.conn, &i, sizeof(i)), 0);
    assert_int_equal(conn_queued(end.conn), 1000 * (sizeof(unsigned) + FRAME_HEADER_SIZE));
    assert_int_equal(conn_send(end.conn, NULL, 0), 0);
    WAIT(f, end.messages == 1001);
    assert_int_equal(conn_queued(end.conn), 0);
    assert_true(end.drained > 0);
    assert_int_equal(end.sum, f->accepted[0].sum);
    conn_close(end.conn, "done");
    assert_int_equal(end.closed, 0);
    WAIT(f, end.closed && f->accepted[0].closed);
    assert_string_equal(end.reason, "done");
    assert_string_equal(f->accepted[0].reason, "closed by the peer");
    assert_int_equal(strangers_logged, 0);
}

static void test_big_frames(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};
    _cleanup_(freep) uint8_t *bytes = xmalloc(FRAME_MAX + 1);

    for (size_t i = 0; i <= FRAME_MAX; i++)
        bytes[i] = i * 2654435761u >> 24;
    dial(f, &end);
    WAIT(f, end.opened);
    f->accepted[0].echo = true;
    assert_int_equal(conn_send(end.conn, bytes, FRAME_MAX + 1), -EMSGSIZE);
    for (size_t size = FRAME_MAX; size > FRAME_MAX - 3; size--)
        assert_int_equal(conn_send(end.conn, bytes, size), 0);
    WAIT(f, end.messages == 3);
    assert_int_equal(end.bytes, 3 * (size_t)FRAME_MAX - 3);
    assert_int_equal(end.sum, f->accepted[0].sum);
    conn_close(end.conn, "done");
    WAIT(f, end.closed);
}

/* What is queued at conn_close() still arrives. */
static void test_close_flushes(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};
    size_t size = RUNNING_ON_VALGRIND ? FRAME_MAX / 16 : FRAME_MAX; /* It must arrive in PORT_LINGER_MS. */
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, size);

    dial(f, &end);
    WAIT(f, end.opened);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(conn_send(end.conn, bytes, size), 0);
    conn_close(end.conn, "that was all");
    conn_close(end.conn, "again");
    WAIT(f, end.closed && f->accepted[0].closed);
    assert_int_equal(f->accepted[0].messages, 3);
    assert_string_equal(end.reason, "that was all");
}

static void test_bytewise(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {0};
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_RAFT, 1, &size);
    static const uint8_t stream[] = {0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 0, 0, 0, 1, 'c'};

    raw_connect(f, &raw);
    WAIT(f, raw.connected);
    for (size_t i = 0; i < size; i++) {
        raw_write(&raw, frame + i, 1);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    WAIT(f, f->accepted_count == 1 && raw.got > FRAME_HEADER_SIZE);
    for (size_t i = 0; i < sizeof(stream); i++) {
        raw_write(&raw, stream + i, 1);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    raw_write(&raw, stream, sizeof(stream)); /* And all at once. */
    WAIT(f, f->accepted[0].messages == 6);
    assert_int_equal(f->accepted[0].bytes, 6);
    raw_done(f, &raw);
}

/* The same stream cut at every place, through the pure reader. */
static int count_frame(const uint8_t *bytes, size_t size, void *data)
{
    struct end *end = data;

    end->messages++;
    end->bytes += size;
    for (size_t i = 0; i < size; i++)
        end->sum = end->sum * 31 + bytes[i];
    return 0;
}

static void test_frames_cut_anywhere(void **state)
{
    static const uint8_t stream[] = {0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 3, 6, 7, 8};

    for (size_t a = 0; a <= sizeof(stream); a++) {
        for (size_t b = a; b <= sizeof(stream); b++) {
            struct frame_reader reader = {.limit = 5};
            struct end end = {0}, whole = {0};

            assert_int_equal(frame_reader_feed(&reader, stream, a, count_frame, &end), 0);
            assert_int_equal(frame_reader_feed(&reader, stream + a, b - a, count_frame, &end), 0);
            assert_int_equal(frame_reader_feed(&reader, stream + b, sizeof(stream) - b, count_frame, &end),
                             0);
            assert_int_equal(end.messages, 3);
            assert_int_equal(end.bytes, 8);
            assert_int_equal(frame_reader_feed(&reader, stream, sizeof(stream), count_frame, &whole), 0);
            assert_int_equal(end.sum, whole.sum);
            reader.limit = 4;
            assert_int_equal(frame_reader_feed(&reader, stream, sizeof(stream), count_frame, &whole),
                             -EMSGSIZE);
            frame_reader_done(&reader);
        }
    }
}

static void test_strangers_are_cut_off(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } strangers[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27}, {"\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21},           {"\0\0\0\0", 4},
        {"\0\0\0\x04\xff\xff\xff\xff", 8},         {"\0\0\x10\x01", 4}, /* HELLO_FRAME_MAX + 1. */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        struct raw raw = {0};

        raw_connect(f, &raw);
        WAIT(f, raw.connected);
        raw_write(&raw, strangers[i].bytes, strangers[i].size);
        WAIT(f, raw.eof);
        assert_int_equal(raw.got, 0);
        raw_done(f, &raw);
    }
    assert_int_equal(f->accepted_count, 0);
    assert_int_equal(strangers_logged, 1);
}

static void test_frame_over_the_limit_ends_it(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {0};

    raw_greet(f, &raw);
    raw_write(&raw, "\0\x40\0\x01", 4); /* FRAME_MAX + 1 */
    WAIT(f, f->accepted[0].closed);
    assert_string_equal(f->accepted[0].reason, "a frame over the limit");
    raw_done(f, &raw);
}

static void test_silent_peer_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {0}, half = {0};

    port_set_greeting_ms(f->server, 50);
    raw_connect(f, &raw);
    raw_connect(f, &half);
    WAIT(f, raw.connected && half.connected);
    raw_write(&half, "\0\0\0\x20half", 8);
    WAIT(f, raw.eof && half.eof);
    raw_done(f, &raw);
    raw_done(f, &half);
}

static void on_silent_connection(uv_stream_t *stream, int status)
{
}

/* One accepts connections and says nothing: the backlog is enough for that. */
static void test_silent_server(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in address;
    int size = sizeof(address);
    struct end end = {0};
    uv_tcp_t silent;
    char text[64];

    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(&f->loop, &silent);
    uv_tcp_bind(&silent, (struct sockaddr *)&address, 0);
    assert_int_equal(uv_listen((uv_stream_t *)&silent, 8, on_silent_connection), 0);
    uv_tcp_getsockname(&silent, (struct sockaddr *)&address, &size);
    snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(address.sin_port));
    port_set_greeting_ms(f->client, 50);
    dial_to(f, &end, text, 0);
    WAIT(f, end.closed);
    assert_string_equal(end.reason, "no answer in time");
    uv_close((uv_handle_t *)&silent, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void test_flood_of_silent_connections(void **state)
{
    enum { FLOOD = 3 * HANDSHAKES_MAX };
    struct fixture *f = *state;
    struct raw *flood = xcalloc(FLOOD, sizeof(*flood));
    struct end end = {0};
    unsigned cut = 0;

    for (unsigned i = 0; i < FLOOD; i++)
        raw_connect(f, &flood[i]);
    dial(f, &end);
    WAIT(f, end.opened);
    for (unsigned i = 0; i < FLOOD; i++)
        WAIT(f, flood[i].connected);
    for (unsigned i = 0; i < FLOOD; i++)
        cut += flood[i].eof;
    assert_true(cut >= HANDSHAKES_MAX);
    assert_true(strangers_logged <= 1);
    for (unsigned i = 0; i < FLOOD; i++)
        uv_close((uv_handle_t *)&flood[i].tcp, NULL);
    conn_close(end.conn, "done");
    WAIT(f, end.closed);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    free(flood);
}

static void test_who_is_refused(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(2);
    struct end end = {0};

    dial_to(f, &end, port_listening(f->server), 42);
    WAIT(f, end.closed);
    assert_true(end.refused);
    assert_non_null(strstr(end.reason, "is meant"));

    end = (struct end){0};
    identity.cluster_id[3]++;
    port_set_identity(f->client, &identity);
    dial(f, &end);
    WAIT(f, end.closed);
    assert_string_equal(end.reason, "refused: this host belongs to another cluster");

    end = (struct end){0};
    identity.has_cluster = false;
    port_set_identity(f->client, &identity);
    dial(f, &end);
    WAIT(f, end.closed);
    assert_false(end.refused);
    assert_string_equal(end.reason, "this host is in no cluster yet");

    end = (struct end){0};
    end.conn = port_dial(f->client, port_listening(f->server), FLEET__PURPOSE__PURPOSE_JOIN, 0,
                         &end_callbacks, &end);
    WAIT(f, end.opened);
    conn_close(end.conn, "joined");
    WAIT(f, end.closed);

    end = (struct end){0};
    identity = identity_of(1);
    identity.has_cluster = false;
    port_set_identity(f->server, &identity);
    identity = identity_of(2);
    port_set_identity(f->client, &identity);
    dial(f, &end);
    WAIT(f, end.closed);
    assert_string_equal(end.reason, "refused: this host is in no cluster yet");
}

/* Who speaks with whom after a recovery. The later of the two is always heard of by the one that is behind.
 */
static void test_histories(void **state)
{
    static const Fleet__Purpose raft = FLEET__PURPOSE__PURPOSE_RAFT,
                                session = FLEET__PURPOSE__PURPOSE_SESSION,
                                join = FLEET__PURPOSE__PURPOSE_JOIN;
    static const struct {
        Fleet__Purpose purpose;
        struct cluster_history dials, answers;
        bool has_log;
        const char *refusal; /* NULL: they speak. */
        unsigned later;      /* Server id of the one that hears of a later one; 0: nobody. */
    } cases[] = {
        {raft, {0}, {0}, true, NULL, 0},
        {raft, {1, {7}}, {1, {7}}, true, NULL, 0},
        {raft, {0}, {1, {7}}, true, "move your data directory away", 2},
        {raft, {0}, {1, {7}}, false, "move your data directory away", 2},
        {raft, {1, {7}}, {0}, true, "this host's data are of before", 1},
        {raft, {2, {7}}, {1, {8}}, true, "this host's data are of before", 1},
        {raft, {1, {7}}, {1, {8}}, true, "recovered twice", 3}, /* Both: each is as late. */
        {session, {0}, {1, {7}}, true, "move your data directory away", 2},
        {session, {0}, {1, {7}}, false, NULL, 2},
        {session, {1, {7}}, {0}, false, "this host's data are of before", 1},
        {session, {1, {7}}, {1, {8}}, false, "recovered twice", 3},
        {session, {0, {7}}, {0}, false, NULL, 0}, /* The id of no recovery is nobody's. */
        {join, {0}, {1, {7}}, false, NULL, 2},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct port_identity client = identity_of(2), server = identity_of(1);
        struct end end = {0};

        client.history = cases[i].dials;
        client.has_log = cases[i].has_log;
        server.history = cases[i].answers;
        port_set_identity(f->client, &client);
        port_set_identity(f->server, &server);
        f->later_histories = 0;
        f->accepted_count = 0;
        end.conn = port_dial(f->client, port_listening(f->server), cases[i].purpose, 0, &end_callbacks, &end);
        WAIT(f, end.opened || end.closed);
        assert_int_equal(end.opened, cases[i].refusal == NULL);
        if (cases[i].refusal != NULL && strstr(end.reason, cases[i].refusal) == NULL)
            fail_msg("case %zu: %s", i, end.reason);
        assert_int_equal(f->later_histories, (cases[i].later & 1) + (cases[i].later >> 1));
        if (cases[i].later == 1)
            assert_string_equal(f->later_machine, client.machine_id);
        if (cases[i].later == 2)
            assert_string_equal(f->later_machine, server.machine_id);
        if (end.conn != NULL)
            conn_close(end.conn, "done");
        WAIT(f, end.closed && (f->accepted_count == 0 || f->accepted[0].closed));
        memset(&f->accepted[0], 0, sizeof f->accepted[0]);
    }
    f->accepted_count = 0;
}

/* Another cluster's recoveries mean nothing here: not in its greeting, and not in its answer to ours. */
static void test_histories_of_others(void **state)
{
    struct fixture *f = *state;
    struct port_identity client = identity_of(2), server = identity_of(1);
    struct end end = {0};

    client.cluster_id[0]++;
    server.history = (struct cluster_history){1, {7}};
    port_set_identity(f->client, &client);
    port_set_identity(f->server, &server);
    dial(f, &end);
    WAIT(f, end.closed);
    assert_int_equal(f->later_histories, 0);

    end = (struct end){0};
    client.history = (struct cluster_history){2, {7}};
    port_set_identity(f->client, &client);
    dial(f, &end);
    WAIT(f, end.closed);
    assert_int_equal(f->later_histories, 0);
}

static void test_other_protocol(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {0};
    Fleet__Hello hello = FLEET__HELLO__INIT;
    Fleet__Welcome *welcome;
    uint8_t frame[64];
    size_t size;

    hello.protocol = PORT_PROTOCOL + 1;
    size = fleet__hello__pack(&hello, frame + FRAME_HEADER_SIZE);
    frame_header_put(frame, size);
    raw_connect(f, &raw);
    WAIT(f, raw.connected);
    raw_write(&raw, frame, FRAME_HEADER_SIZE + size);
    WAIT(f, raw.eof);
    assert_true(raw.got > FRAME_HEADER_SIZE);
    welcome =
        fleet__welcome__unpack(NULL, raw.got - FRAME_HEADER_SIZE, (uint8_t *)raw.inbox + FRAME_HEADER_SIZE);
    assert_non_null(welcome);
    assert_false(welcome->accepted);
    assert_non_null(strstr(welcome->reason, "protocol 2"));
    fleet__welcome__free_unpacked(welcome, NULL);
    raw_done(f, &raw);
}

static void test_refused_with_leader(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    f->refuse = "not the leader";
    f->refuse_leader = "leader.example:7390";
    dial(f, &end);
    WAIT(f, end.closed);
    assert_int_equal(end.opened, 0);
    assert_true(end.refused);
    assert_string_equal(end.reason, "refused: not the leader");
    assert_string_equal(end.leader, "leader.example:7390");
}

static void test_slow_reader_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {.no_reading = true};
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, 1 << 20);
    struct conn *conn;
    int r = 0;

    raw_greet(f, &raw);
    conn = f->accepted[0].conn;
    for (unsigned i = 0; i < 64 && r == 0; i++) {
        r = conn_send(conn, bytes, 1 << 20);
        assert_true(conn_queued(conn) <= CONN_QUEUE_MAX);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(r, -ENOBUFS);
    WAIT(f, f->accepted[0].closed);
    assert_string_equal(f->accepted[0].reason, "the peer reads too slowly");
    raw_done(f, &raw);
}

/* A peer that does not read does not hold up a close for longer than PORT_LINGER_MS. */
static void test_lingering_ends(void **state)
{
    struct fixture *f = *state;
    struct raw raw = {.no_reading = true};
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, FRAME_MAX);

    raw_greet(f, &raw);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(conn_send(f->accepted[0].conn, bytes, FRAME_MAX), 0);
    conn_close(f->accepted[0].conn, "go");
    WAIT(f, f->accepted[0].closed);
    assert_string_equal(f->accepted[0].reason, "go");
    raw_done(f, &raw);
}

static void test_close_inside_callbacks(void **state)
{
    struct fixture *f = *state;
    struct end end = {.close_on_open = true}, second = {0}, third = {0};

    dial(f, &end);
    WAIT(f, end.closed && f->accepted[0].closed);
    assert_int_equal(end.opened, 1);

    dial(f, &second);
    WAIT(f, second.opened);
    f->accepted[1].close_on_message = true;
    for (unsigned i = 0; i < 10; i++)
        conn_send(second.conn, "xyz", 3);
    WAIT(f, second.closed && f->accepted[1].closed);
    assert_int_equal(f->accepted[1].messages, 1);

    f->close_in_accept = true;
    dial(f, &third);
    WAIT(f, third.closed && f->accepted[2].closed);
    assert_string_equal(f->accepted[2].reason, "second thoughts");
}

static void test_port_close_inside_message(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    dial(f, &end);
    WAIT(f, end.opened);
    f->accepted[0].port_close_on_message = true;
    conn_send(end.conn, "x", 1);
    conn_send(end.conn, "x", 1);
    WAIT(f, end.closed && f->accepted[0].closed && f->ports_closed == 1);
    assert_int_equal(f->accepted[0].messages, 1);
}

/* port_close() in every phase of a dial. */
static void test_port_close_at_any_time(void **state)
{
    struct fixture *f = *state;

    for (unsigned turns = 0; turns < 8; turns++) {
        struct end name = {0}, literal = {0};
        char text[64];

        snprintf(text, sizeof(text), "localhost:%u", server_port(f));
        dial_to(f, &name, text, 1);
        dial(f, &literal);
        for (unsigned i = 0; i < turns; i++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
        port_close(f->client, on_port_closed, f);
        WAIT(f, f->ports_closed == f->ports - 1);
        assert_int_equal(name.closed, 1);
        assert_int_equal(literal.closed, 1);
        f->client = add_port(f, 2);
    }
}

static void test_dial_fails_later(void **state)
{
    static const char *const bad[] = {"", ":1", "127.0.0.1:0", "a b", "127.0.0.1:1", "[::1]:1"};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct end end = {0};

        dial_to(f, &end, bad[i], 0);
        WAIT(f, end.closed);
        assert_int_equal(end.opened, 0);
        assert_true(end.reason[0] != '\0');
    }
}

static void dial_name(struct fixture *f, const char *name)
{
    struct end end = {0};
    char text[64];

    snprintf(text, sizeof(text), "%s:%u", name, server_port(f));
    dial_to(f, &end, text, 1);
    WAIT(f, end.opened || end.closed);
    assert_int_equal(end.opened, 1);
    conn_close(end.conn, "done");
    WAIT(f, end.closed);
}

static void test_name(void **state)
{
    struct addrinfo *found = NULL;

    /* A name to us, which the resolver knows without any file (inet_aton(3)). */
    dial_name(*state, "127.1");
    /* May be ::1 first, where nobody listens: the second address is tried. A small system has no /etc/hosts.
     */
    if (getaddrinfo("localhost", NULL, NULL, &found) == 0) {
        freeaddrinfo(found);
        dial_name(*state, "localhost");
    }
}

static void test_ipv6_and_both(void **state)
{
    struct fixture *f = *state;
    struct end v6 = {0}, v4 = {0};
    struct port *both = add_port(f, 3);
    struct address address;
    char text[64];

    assert_int_equal(port_listen(both, "[::]:0", NULL), 0);
    assert_int_equal(address_parse(port_listening(both), &address, NULL), 0);
    snprintf(text, sizeof(text), "127.0.0.1:%d", address.port);
    dial_to(f, &v4, text, 3);
    WAIT(f, v4.opened);
    assert_true(str_has_prefix(conn_peer(f->accepted[0].conn), "127.0.0.1:"));
    snprintf(text, sizeof(text), "[::1]:%d", address.port);
    dial_to(f, &v6, text, 3);
    WAIT(f, v6.opened || v6.closed);
    if (!v6.opened)
        print_message("no IPv6 here: %s\n", v6.reason);
    port_close(both, on_port_closed, f);
    WAIT(f, v4.closed && v6.closed);
}

static int end_world(void **state)
{
    world_done();
    return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SECURE(name)                                          \
    {                                                         \
#name " with TLS", name, setup_secure, teardown, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_frames_cut_anywhere),
        T(test_listen_refuses),
        T(test_greeting_and_messages),
        T(test_big_frames),
        T(test_close_flushes),
        T(test_bytewise),
        T(test_strangers_are_cut_off),
        T(test_frame_over_the_limit_ends_it),
        T(test_silent_peer_is_cut_off),
        T(test_silent_server),
        T(test_flood_of_silent_connections),
        T(test_who_is_refused),
        T(test_histories),
        T(test_histories_of_others),
        T(test_other_protocol),
        T(test_refused_with_leader),
        T(test_slow_reader_is_cut_off),
        T(test_lingering_ends),
        T(test_close_inside_callbacks),
        T(test_port_close_inside_message),
        T(test_port_close_at_any_time),
        T(test_dial_fails_later),
        T(test_name),
        T(test_ipv6_and_both),
        SECURE(test_greeting_and_messages),
        SECURE(test_big_frames),
        SECURE(test_silent_peer_is_cut_off),
        SECURE(test_flood_of_silent_connections),
        SECURE(test_refused_with_leader),
        SECURE(test_close_inside_callbacks),
        SECURE(test_port_close_inside_message),
        SECURE(test_port_close_at_any_time),
        SECURE(test_dial_fails_later),
        SECURE(test_name),
    };

    return cmocka_run_group_tests(tests, NULL, end_world);
}
