/* SPDX-License-Identifier: Apache-2.0 */
/* TLS on the cluster port: who gets through, and that those who do not hear why, on both sides. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "raftstore/frame.h"
#include "raftstore/limits.h"
#include "raftstore/tls_handshake.h"
#include "tests/unit/odd-client.h"
#include "tests/unit/port-world.h"

#define HOUR_MS 3600000u

static void dial_and_fail(struct fixture *f, struct end *end)
{
    *end = (struct end){0};
    dial(f, end);
    WAIT(f, end->closed);
    assert_int_equal(end->opened, 0);
}

static void finish(struct fixture *f, struct end *end)
{
    conn_close(end->conn, "done");
    WAIT(f, end->closed);
}

#define assert_says(text, part)                                 \
    do {                                                        \
        if (strstr(text, part) == NULL)                         \
            fail_msg("\"%s\" does not say \"%s\"", text, part); \
    } while (0)

/* What was logged of strangers: waits for it, says it, and forgets it. */
#define LOGGED(f, part)                    \
    do {                                   \
        WAIT(f, stranger_text[0] != '\0'); \
        assert_says(stranger_text, part);  \
        stranger_text[0] = '\0';           \
    } while (0)

/* Both ports new: so that the throttle of the log begins anew. */
static void renew_ports(struct fixture *f)
{
    port_close(f->server, on_port_closed, f);
    port_close(f->client, on_port_closed, f);
    WAIT(f, f->ports_closed == f->ports);
    f->server = add_port(f, 1);
    f->client = add_port(f, 2);
    assert_int_equal(port_listen(f->server, "127.0.0.1:0", NULL), 0);
    stranger_text[0] = '\0';
}

static void give(struct port *port, struct tls_credentials *credentials)
{
    port_set_credentials(port, credentials);
    tls_credentials_unref(credentials);
}

/* ---- who gets through ---- */

static void test_names_of_both(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    dial(f, &end);
    assert_null(conn_peer_name(end.conn));
    WAIT(f, end.opened && f->accepted_count == 1);
    assert_int_equal(end.peer.kind, PKI_MACHINE);
    assert_string_equal(end.peer.id, "00000000000000000000000000000001");
    assert_int_equal(f->accepted[0].peer.kind, PKI_MACHINE);
    assert_string_equal(f->accepted[0].peer.id, "00000000000000000000000000000002");
    assert_true(conn_peer_info(end.conn)->not_after_ms > wall_ms());
    assert_int_equal(strangers_logged, 0);
    finish(f, &end);
}

/* What has begun goes on with what it began with, also if that has ended since. */
static void test_new_credentials(void **state)
{
    struct fixture *f = *state;
    struct end first = {0}, second = {0};

    dial(f, &first);
    WAIT(f, first.opened && f->accepted_count == 1);
    f->accepted[0].echo = true;
    give(f->server, world_credentials(CLUSTER_OTHER, 1, wall_ms() + HOUR_MS));
    dial_and_fail(f, &second);
    assert_int_equal(conn_send(first.conn, "x", 1), 0);
    WAIT(f, first.messages == 1);

    give(f->client, world_credentials(CLUSTER_OTHER, 2, wall_ms() + HOUR_MS));
    second = (struct end){0};
    dial(f, &second);
    WAIT(f, second.opened);
    assert_int_equal(conn_send(first.conn, "x", 1), 0);
    WAIT(f, first.messages == 2);
    finish(f, &first);
    finish(f, &second);
}

static void test_end_while_connected(void **state)
{
    struct fixture *f = *state;
    struct end first = {0}, second = {0};
    uint64_t until_ms = wall_ms() / 1000 * 1000 + 2000;

    give(f->client, world_credentials(CLUSTER_OURS, 2, until_ms));
    dial(f, &first);
    WAIT(f, first.opened && f->accepted_count == 1);
    f->accepted[0].echo = true;
    while (wall_ms() < until_ms)
        uv_sleep(50);
    dial_and_fail(f, &second);
    assert_says(second.reason, "has ended");
    assert_int_equal(conn_send(first.conn, "x", 1), 0);
    WAIT(f, first.messages == 1);
    finish(f, &first);
}

/* ---- who does not ---- */

static void test_ended(void **state)
{
    struct fixture *f = *state;
    struct end end;

    give(f->client, world_credentials(CLUSTER_OURS, 2, 1609459200000));
    dial_and_fail(f, &end);
    assert_says(end.reason, "the other side says that a certificate has ended");
    LOGGED(f, "the other side: the certificate ended on 2021-01-01 00:00:00 UTC");

    renew_ports(f);
    secure_port(f->client, CLUSTER_OURS, 2);
    give(f->server, world_credentials(CLUSTER_OURS, 1, 1609459200000));
    dial_and_fail(f, &end);
    assert_says(end.reason, "the other side: the certificate ended on 2021-01-01 00:00:00 UTC");
    LOGGED(f, "the other side says that a certificate has ended");
}

static void test_another_cluster(void **state)
{
    struct fixture *f = *state;
    struct end end;

    give(f->client, world_credentials(CLUSTER_OTHER, 2, wall_ms() + HOUR_MS));
    dial_and_fail(f, &end); /* The one who dials sees the other's certificate first. */
    assert_says(end.reason,
                "the other side: the certificate is of another cluster, 07070707070707070707070707070707");
    LOGGED(f, "the other side does not know the authority of this host's certificate");
}

/* A client that does not care whom it talks to. */
static void test_another_clusters_client(void **state)
{
    struct fixture *f = *state;
    struct odd_client odd = {.port = server_port(f), .protocol = "fleet-session/1"};
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob request = {0}, certificate = {0};
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = "00000000000000000000000000000002"},
                                  .not_after_ms = wall_ms() + HOUR_MS};
    struct pki_info info;
    const struct pki_blob *authority = world_authority(CLUSTER_OTHER);

    assert_int_equal(pki_read(authority->data, authority->size, &info, NULL), 0);
    memcpy(subject.name.cluster_id, info.name.cluster_id, PKI_CLUSTER_ID_SIZE);
    assert_int_equal(pki_key_new(&key, NULL), 0);
    assert_int_equal(pki_request_new(key, &request, NULL), 0);
    assert_int_equal(pki_sign(authority->data, authority->size, world_authority_key(CLUSTER_OTHER),
                              request.data, request.size, &subject, &certificate, NULL, NULL),
                     0);
    odd.key = key;
    odd.chain = &certificate;
    odd.chain_count = 1;
    /* As a daemon sends its Hello: it has not heard yet that it is refused. One that is slow to write still
     * gets to read why. */
    odd.bytes = "\0\0\0\x01x";
    odd.size = 5;
    odd.delay_ms = TLS_LINGER_MS / 5;
    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    assert_int_equal(odd.alert, GNUTLS_A_UNKNOWN_CA);
    LOGGED(f, "the other side: the certificate is of another cluster, 07070707070707070707070707070708");
    assert_int_equal(f->accepted_count, 0);
}

static void test_no_certificate(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        struct odd_client odd = {.port = server_port(f),
                                 .protocol = i == 0 ? "fleet-session/1" : "fleet-raft/1"};

        odd_client_start(&odd, &f->loop);
        WAIT(f, odd.ended);
        odd_client_join(&odd);
        assert_int_equal(odd.alert, GNUTLS_A_CERTIFICATE_REQUIRED);
    }
    LOGGED(f, "the other side shows no certificate");
    assert_int_equal(f->accepted_count, 0);
}

/* A person's certificate is not a machine's. */
static void test_client_certificate(void **state)
{
    struct fixture *f = *state;
    struct odd_client odd = {.port = server_port(f), .protocol = "fleet-session/1"};
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob request = {0}, certificate = {0};
    struct pki_subject subject = {.name = {.kind = PKI_CLIENT, .id = "alice", .role = PKI_ROLE_ADMIN},
                                  .not_after_ms = wall_ms() + HOUR_MS};
    const struct pki_blob *authority = world_authority(CLUSTER_OURS);

    memset(subject.name.cluster_id, 7, sizeof(subject.name.cluster_id));
    assert_int_equal(pki_key_new(&key, NULL), 0);
    assert_int_equal(pki_request_new(key, &request, NULL), 0);
    assert_int_equal(pki_sign(authority->data, authority->size, world_authority_key(CLUSTER_OURS),
                              request.data, request.size, &subject, &certificate, NULL, NULL),
                     0);
    odd.key = key;
    odd.chain = &certificate;
    odd.chain_count = 1;
    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    assert_int_equal(odd.alert, GNUTLS_A_ACCESS_DENIED);
    LOGGED(f, "the certificate is a client's, which is not taken here");
}

static void test_odd_protocols(void **state)
{
    static const struct {
        const char *priority, *protocol;
        int alert;
        const char *logged;
    } cases[] = {
        {NULL, NULL, GNUTLS_A_NO_APPLICATION_PROTOCOL, "protocol that is not offered"},
        {NULL, "http/1.1", GNUTLS_A_NO_APPLICATION_PROTOCOL, "protocol that is not offered"},
        {NULL, "fleet-raft/2", GNUTLS_A_NO_APPLICATION_PROTOCOL, "protocol that is not offered"},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2", "fleet-join/1", GNUTLS_A_HANDSHAKE_FAILURE, "TLS handshake"},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3:-SIGN-ECDSA-SECP256R1-SHA256", "fleet-join/1",
         GNUTLS_A_HANDSHAKE_FAILURE, "TLS handshake"},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-FFDHE2048", "fleet-join/1",
         GNUTLS_A_HANDSHAKE_FAILURE, "TLS handshake"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct odd_client odd = {
            .port = server_port(f), .priority = cases[i].priority, .protocol = cases[i].protocol};

        odd_client_start(&odd, &f->loop);
        WAIT(f, odd.ended);
        odd_client_join(&odd);
        assert_false(odd.shaken);
        if (odd.alert != cases[i].alert)
            fail_msg("case %zu: alert %d", i, odd.alert);
        LOGGED(f, cases[i].logged);
        renew_ports(f);
        secure_port(f->server, CLUSTER_OURS, 1);
    }
    assert_int_equal(f->accepted_count, 0);
}

/* ---- one with TLS and one without ---- */

static void test_plain_meets_tls(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(1);
    struct end end;

    port_set_credentials(f->client, NULL);
    dial_and_fail(f, &end);
    assert_true(end.refused);
    assert_says(end.reason,
                "the host that was dialled demands TLS, and the one that dials talks none: insecure = true");
    LOGGED(f, "it talks no TLS: insecure = true must be set on all hosts of a cluster or on none");

    renew_ports(f);
    secure_port(f->client, CLUSTER_OURS, 2);
    dial_and_fail(f, &end);
    assert_says(end.reason, "the other side talks no TLS, and this host talks nothing else: insecure = true");
    LOGGED(f, "it talks TLS, and this host has insecure = true");

    renew_ports(f);
    identity.has_cluster = false;
    port_set_identity(f->server, &identity);
    secure_port(f->client, CLUSTER_OURS, 2);
    dial_and_fail(f, &end);
    assert_string_equal(end.reason, "the other side is in no cluster yet");
    LOGGED(f, "it talks TLS, and this host is in no cluster yet");
}

static void test_strangers(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        bool tls; /* By its first byte: it may get an alert. */
    } strangers[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, false},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21, false},
        {"\xff", 1, false},
        {"\x15\x03\x03\0\x02\x02\x28", 7, false}, /* An alert is no beginning. */
        {"\x17\x03\x03\0\x05hello", 10, false},
        {"\x16\x03\x01\0\x05\x01\0\0\x01\0", 10, true},
        {"\x16\x03\x01\0\x05hello", 10, true}, /* Far too long. */
        {"\x16\x03\x03\xff\xffrubbish", 12, true},
        {"\x16\x16\x16\x16\x16\x16\x16\x16", 8, true},
        {"\x16", 1, true},
    };
    struct fixture *f = *state;

    port_set_greeting_ms(f->server, 200);
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        struct raw raw = {0};

        raw_connect(f, &raw);
        WAIT(f, raw.connected);
        raw_write(&raw, strangers[i].bytes, strangers[i].size);
        WAIT(f, raw.eof);
        if (raw.got > (strangers[i].tls ? 7 : 0))
            fail_msg("stranger %zu got %zu bytes", i, raw.got);
        raw_done(f, &raw);
    }
    assert_int_equal(f->accepted_count, 0);
    assert_int_equal(strangers_logged, 1);
}

static void on_silent_connection(uv_stream_t *stream, int status)
{
}

static void test_silent_server_with_tls(void **state)
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
    port_set_greeting_ms(f->client, 500);
    dial_to(f, &end, text, 0);
    WAIT(f, end.closed);
    uv_close((uv_handle_t *)&silent, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_string_equal(end.reason, "the other side did not finish the TLS handshake in time");
}

/* ---- after the handshake ---- */

static void test_wrong_machine(void **state)
{
    struct fixture *f = *state;
    struct end end;

    secure_port(f->client, CLUSTER_OURS, 3);
    dial_and_fail(f, &end);
    assert_true(end.refused);
    assert_says(end.reason,
                "refused: the other side says that it is machine 00000000000000000000000000000002, but its "
                "certificate is for machine 00000000000000000000000000000003");
    LOGGED(f, "but its certificate is for machine 00000000000000000000000000000003");

    renew_ports(f);
    secure_port(f->server, CLUSTER_OURS, 4);
    secure_port(f->client, CLUSTER_OURS, 2);
    dial_and_fail(f, &end);
    assert_string_equal(end.reason,
                        "the other side says that it is machine 00000000000000000000000000000001, but its "
                        "certificate is for machine 00000000000000000000000000000004");
    /* The one that was dialled had taken it for good. */
    WAIT(f, f->accepted_count == 1 && f->accepted[0].closed);
}

/* Whose data are of a later history is heard only of who has proved to be that machine: what follows from it
 * may end the process. */
static void test_later_history_is_no_strangers_word(void **state)
{
    struct fixture *f = *state;
    struct port_identity client = identity_of(2), server = identity_of(1), joiner = identity_of(9);
    struct odd_client odd = {.port = server_port(f), .protocol = "fleet-join/1"};
    _cleanup_(freep) uint8_t *frame = NULL;
    struct end end = {0};

    /* The one that dials: proved, for another machine, and not at all. */
    client.history = (struct cluster_history){1, {7}};
    port_set_identity(f->client, &client);
    dial_and_fail(f, &end);
    assert_int_equal(f->later_histories, 1);
    assert_string_equal(f->later_machine, client.machine_id);
    secure_port(f->client, CLUSTER_OURS, 3);
    dial_and_fail(f, &end);
    assert_int_equal(f->later_histories, 1);
    joiner.history = client.history;
    frame = hello_frame(&joiner, FLEET__PURPOSE__PURPOSE_JOIN, 0, &odd.size);
    odd.bytes = frame;
    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    assert_true(odd.shaken && odd.got > FRAME_HEADER_SIZE);
    WAIT(f, f->accepted_count == 1 && f->accepted[0].closed);
    assert_int_equal(f->later_histories, 1);

    /* The one that answers. */
    client.history = (struct cluster_history){0};
    server.history = (struct cluster_history){2, {8}};
    port_set_identity(f->client, &client);
    port_set_identity(f->server, &server);
    secure_port(f->client, CLUSTER_OURS, 2);
    secure_port(f->server, CLUSTER_OURS, 4);
    end = (struct end){0};
    dial_and_fail(f, &end);
    assert_says(end.reason, "its certificate is for machine 00000000000000000000000000000004");
    assert_int_equal(f->later_histories, 1);
    secure_port(f->server, CLUSTER_OURS, 1);
    end = (struct end){0};
    dial(f, &end);
    WAIT(f, end.opened);
    assert_int_equal(f->later_histories, 2);
    assert_string_equal(f->later_machine, server.machine_id);
    finish(f, &end);
}

/* ---- who has the authority's key ---- */

static bool client_believes(struct fixture *f, Fleet__Purpose purpose)
{
    struct end end = {0};
    struct end *accepted = &f->accepted[f->accepted_count];

    end.conn = port_dial(f->client, port_listening(f->server), purpose, 1, &end_callbacks, &end);
    WAIT(f, end.opened && accepted->conn != NULL);
    finish(f, &end);
    WAIT(f, accepted->closed);
    return end.proved;
}

static void test_proof(void **state)
{
    struct fixture *f = *state;

    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_SESSION));
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    f->server_proves = f->client_proves = true;
    assert_true(client_believes(f, FLEET__PURPOSE__PURPOSE_SESSION));
    assert_false(f->accepted[2].proved); /* Of who wants a session nobody asks for it. */
    assert_true(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    assert_true(f->accepted[3].proved);
    f->server_proves = false;
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    assert_true(f->accepted[4].proved);
    assert_int_equal(f->servers_checked, 3);
    f->client_proves = false;
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    assert_false(f->accepted[5].proved);
}

/* A proof is for one connection, and for one of its ends: not to be kept, passed on, or given back. */
static void test_proof_is_of_no_use_elsewhere(void **state)
{
    struct fixture *f = *state;
    uint8_t text[sizeof f->last_proof], nothing[sizeof f->last_proof] = {0};

    f->server_proves = true;
    assert_true(client_believes(f, FLEET__PURPOSE__PURPOSE_SESSION));
    memcpy(text, f->last_proof, sizeof text);
    f->proves_otherwise = text;
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_SESSION));
    f->proves_otherwise = nothing;
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_SESSION));
    /* What the client has just signed on this very connection. */
    f->client_proves = true;
    f->proves_otherwise = NULL;
    assert_true(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    f->gives_back = true;
    assert_false(client_believes(f, FLEET__PURPOSE__PURPOSE_RAFT));
    assert_true(f->accepted[4].proved);
}

/* Consensus is spoken with nobody who may not be that server: not a word of it. */
static void test_server_that_is_none(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    f->check_server = -EACCES;
    end.conn = port_dial(f->client, port_listening(f->server), FLEET__PURPOSE__PURPOSE_RAFT, 1,
                         &end_callbacks, &end);
    WAIT(f, end.closed);
    assert_int_equal(end.opened, 0);
    assert_string_equal(end.reason, "it is not that server");
    WAIT(f, f->accepted_count == 1 && f->accepted[0].closed);
}

/* One who joins may not ask for more than that. */
static void test_other_purpose(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_SESSION, 1, &size);
    struct odd_client odd = {
        .port = server_port(f), .protocol = "fleet-join/1", .bytes = frame, .size = size};
    Fleet__Welcome *welcome;

    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    assert_true(odd.shaken && odd.closed && odd.got > FRAME_HEADER_SIZE);
    welcome = fleet__welcome__unpack(NULL, odd.got - FRAME_HEADER_SIZE, odd.inbox + FRAME_HEADER_SIZE);
    assert_non_null(welcome);
    assert_false(welcome->accepted);
    assert_string_equal(welcome->reason, "the greeting is for another purpose than the connection");
    fleet__welcome__free_unpacked(welcome, NULL);
    assert_int_equal(f->accepted_count, 0);
}

/* Bytes on the wire that are not of the session. */
static void test_altered(void **state)
{
    struct fixture *f = *state;
    struct odd_client odd = {.port = server_port(f),
                             .protocol = "fleet-join/1",
                             .bytes = "\x17\x03\x03\0\x14 twenty strange bytes",
                             .size = 26,
                             .raw = true};

    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    assert_true(odd.shaken && !odd.closed);
    assert_int_equal(f->accepted_count, 0);
    LOGGED(f, "altered on its way");
}

/* A session that was good, and then is not: only it ends. */
static void test_greets_and_goes(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = NULL;
    struct odd_client odd = {.port = server_port(f), .protocol = "fleet-join/1"};
    struct end end = {0};

    dial(f, &end);
    WAIT(f, end.opened && f->accepted_count == 1);
    f->accepted[0].echo = true;
    frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_JOIN, 0, &size);
    frame = xrealloc(frame, size + 4);
    memcpy(frame + size, "\xff\xff\xff\xff", 4);
    odd.bytes = frame;
    odd.size = size + 4;
    odd_client_start(&odd, &f->loop);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
    WAIT(f, f->accepted_count == 2 && f->accepted[1].closed);
    assert_string_equal(f->accepted[1].reason, "a frame over the limit");
    assert_int_equal(f->accepted[1].peer.kind, PKI_NOBODY);
    assert_int_equal(conn_send(end.conn, "x", 1), 0);
    WAIT(f, end.messages == 1);
    finish(f, &end);
}

/* A peer that asks for new keys, again and again: it gets them, and is heard with its own. */
static void test_new_keys(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_JOIN, 0, &size);
    struct odd_client odd = {
        .port = server_port(f), .protocol = "fleet-join/1", .bytes = frame, .size = size, .key_updates = 5};

    odd_client_start(&odd, &f->loop);
    WAIT(f, f->accepted_count == 1);
    assert_int_equal(conn_send(f->accepted[0].conn, "so it is you", 12), 0);
    conn_close(f->accepted[0].conn, "done");
    WAIT(f, odd.ended && f->accepted[0].closed);
    odd_client_join(&odd);
    assert_true(odd.closed);
    assert_memory_equal(odd.inbox + odd.got - 12, "so it is you", 12);
    assert_int_equal(f->accepted[0].messages, 0);
}

static void greet_and_not_read(struct fixture *f, struct odd_client *odd)
{
    odd_client_start(odd, &f->loop);
    WAIT(f, f->accepted_count == 1);
}

static void test_slow_reader_with_tls(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_JOIN, 0, &size);
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, 1 << 20);
    struct odd_client odd = {
        .port = server_port(f), .protocol = "fleet-join/1", .bytes = frame, .size = size, .no_reading = true};
    struct conn *conn;
    int r = 0;

    greet_and_not_read(f, &odd);
    conn = f->accepted[0].conn;
    for (unsigned i = 0; i < 64 && r == 0; i++) {
        r = conn_send(conn, bytes, 1 << 20);
        assert_true(conn_queued(conn) <= CONN_QUEUE_MAX);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(r, -ENOBUFS);
    WAIT(f, f->accepted[0].closed);
    assert_string_equal(f->accepted[0].reason, "the peer reads too slowly");
    atomic_store(&odd.may_read, true);
    WAIT(f, odd.ended);
    odd_client_join(&odd);
}

/* All that was queued, then the end of the session, then the end of the connection; but no longer than
 * PORT_LINGER_MS for one who does not read. */
static void test_lingering_with_tls(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_JOIN, 0, &size);
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, FRAME_MAX);

    for (unsigned reads = 0; reads < 2; reads++) {
        size_t each =
            reads ? FRAME_MAX / 16 : FRAME_MAX; /* What is sent in time, or what no kernel has room for. */
        struct odd_client odd = {.port = server_port(f),
                                 .protocol = "fleet-join/1",
                                 .bytes = frame,
                                 .size = size,
                                 .no_reading = true};

        f->accepted_count = 0;
        f->accepted[0] = (struct end){0};
        greet_and_not_read(f, &odd);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(conn_send(f->accepted[0].conn, bytes, each), 0);
        conn_close(f->accepted[0].conn, "go");
        if (reads)
            atomic_store(&odd.may_read, true);
        WAIT(f, f->accepted[0].closed);
        assert_string_equal(f->accepted[0].reason, "go");
        atomic_store(&odd.may_read, true);
        WAIT(f, odd.ended);
        odd_client_join(&odd);
        assert_true(odd.closed == (reads == 1));
        assert_true((odd.got > 3 * each) == (reads == 1));
    }
}

/* ---- joining ---- */

static void join(struct fixture *f, struct end *end, const uint8_t pin[PKI_PIN_SIZE])
{
    *end = (struct end){0};
    end->conn = port_dial_join(f->client, port_listening(f->server), pin, &end_callbacks, end);
    assert_int_equal(end->closed, 0);
    WAIT(f, end->opened || end->closed);
}

static void test_join(void **state)
{
    struct fixture *f = *state;
    struct port_identity identity = identity_of(2);
    const struct pki_blob *ours = world_authority(CLUSTER_OURS), *other = world_authority(CLUSTER_OTHER);
    struct pki_info info;
    struct end end;

    identity.has_cluster = false;
    port_set_identity(f->client, &identity);
    port_set_credentials(f->client, NULL);
    assert_int_equal(pki_read(ours->data, ours->size, &info, NULL), 0);
    join(f, &end, info.fingerprint);
    assert_int_equal(end.opened, 1);
    assert_string_equal(end.peer.id, "00000000000000000000000000000001");
    assert_int_equal(f->accepted[0].peer.kind, PKI_NOBODY);
    f->accepted[0].echo = true;
    assert_int_equal(conn_send(end.conn, "secret", 6), 0);
    WAIT(f, end.messages == 1);
    conn_close(end.conn, "joined");
    WAIT(f, end.closed && f->accepted[0].closed);
    assert_int_equal(strangers_logged, 0);

    info.fingerprint[PKI_PIN_SIZE - 1] ^= 1;
    join(f, &end, info.fingerprint);
    assert_int_equal(end.opened, 0);
    assert_says(end.reason, "the other side: the authority that is expected is not among the certificates");
    LOGGED(f, "does not know the authority of this host's certificate");
    assert_int_equal(pki_read(other->data, other->size, &info, NULL), 0);
    join(f, &end, info.fingerprint);
    assert_int_equal(end.opened, 0);

    /* One that talks no TLS is not told the secret either. */
    port_set_credentials(f->server, NULL);
    join(f, &end, info.fingerprint);
    assert_int_equal(end.opened, 0);
    assert_says(end.reason, "talks no TLS");
    assert_int_equal(f->accepted_count, 1);
}

static void test_join_of_ended(void **state)
{
    struct fixture *f = *state;
    const struct pki_blob *ours = world_authority(CLUSTER_OURS);
    struct pki_info info;
    struct end end;

    give(f->server, world_credentials(CLUSTER_OURS, 1, 1609459200000));
    assert_int_equal(pki_read(ours->data, ours->size, &info, NULL), 0);
    join(f, &end, info.fingerprint);
    assert_says(end.reason, "the other side: the certificate ended on 2021-01-01");
}

static const char *is_named(const struct conn *conn, void *data)
{
    return streq(conn_peer_name(conn)->id, data) ? "removed" : NULL;
}

/* Whom the port trusts now is what counts, not whom it trusted when the connection began. */
static void test_an_authority_is_trusted_no_more(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};
    struct conn *conn;

    f->client_proves = true;
    end.conn = port_dial(f->client, port_listening(f->server), FLEET__PURPOSE__PURPOSE_RAFT, 1,
                         &end_callbacks, &end);
    WAIT(f, end.opened && f->accepted_count == 1);
    conn = f->accepted[0].conn;
    assert_int_equal(conn_purpose(conn), FLEET__PURPOSE__PURPOSE_RAFT);
    assert_true(!conn_is_dialled(conn) && conn_is_dialled(end.conn));
    assert_true(conn_peer_trusted(conn) && conn_peer_proved(conn) && !conn_peer_proof_ended(conn));
    give(f->server, world_credentials(CLUSTER_ROTATED, 1, wall_ms() + HOUR_MS));
    assert_true(!conn_peer_trusted(conn) && !conn_peer_proved(conn) && conn_peer_proof_ended(conn));
    /* The other side has not heard of it yet, and was shown no proof. */
    assert_true(conn_peer_trusted(end.conn) && !conn_peer_proof_ended(end.conn));
    give(f->server, world_credentials(CLUSTER_OURS, 1, wall_ms() + HOUR_MS));
    assert_true(conn_peer_trusted(conn) && conn_peer_proved(conn) && !conn_peer_proof_ended(conn));
    port_set_credentials(f->server, NULL);
    assert_true(conn_peer_trusted(conn));
    finish(f, &end);
}

/* An authority that vouched for the next one did so for what that one has signed. */
static void test_who_is_vouched_for(void **state)
{
    static const struct {
        bool issued, leads;
    } cases[] = {{true, true}, {true, false}, {false, true}, {false, false}};
    struct tls_credentials *credentials = world_credentials(CLUSTER_OURS, 1, wall_ms() + HOUR_MS);
    const struct pki_blob *ours = world_authority(CLUSTER_OURS), *rotated = world_authority(CLUSTER_ROTATED);
    struct pki_info root, other;

    assert_int_equal(pki_read(ours->data, ours->size, &root, NULL), 0);
    assert_int_equal(pki_read(rotated->data, rotated->size, &other, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pki_info machine = {.name = {.kind = PKI_MACHINE}}, authority = {.name = root.name};
        const struct pki_info *by = cases[i].issued ? &root : &other;
        const struct pki_info *top = cases[i].leads ? &root : &other;

        memcpy(machine.issuer, by->key_id, PKI_KEY_ID_SIZE);
        memcpy(authority.key_id, by->key_id, PKI_KEY_ID_SIZE);
        memcpy(authority.issuer, root.key_id, PKI_KEY_ID_SIZE);
        memcpy(machine.root, top->key_id, PKI_KEY_ID_SIZE);
        memcpy(authority.root, top->key_id, PKI_KEY_ID_SIZE);
        assert_int_equal(tls_credentials_vouch(credentials, &machine), cases[i].issued || cases[i].leads);
        assert_int_equal(tls_credentials_vouch(credentials, &authority), cases[i].issued || cases[i].leads);
    }
    tls_credentials_unref(credentials);
}

/* Whoever is not a member any more: also what is open already ends. */
static void test_unwanted_are_ended(void **state)
{
    struct fixture *f = *state;
    struct end end = {0};

    dial(f, &end);
    WAIT(f, end.opened && f->accepted_count == 1);
    port_end(f->server, is_named, (char *)"00000000000000000000000000000001");
    f->accepted[0].echo = true;
    assert_int_equal(conn_send(end.conn, "x", 1), 0);
    WAIT(f, end.messages == 1);
    port_end(f->server, is_named, (char *)"00000000000000000000000000000002");
    WAIT(f, end.closed && f->accepted[0].closed);
    assert_string_equal(f->accepted[0].reason, "removed");
}

static int end_world(void **state)
{
    world_done();
    return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup_secure, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_names_of_both),
        T(test_new_credentials),
        T(test_end_while_connected),
        T(test_ended),
        T(test_another_cluster),
        T(test_another_clusters_client),
        T(test_no_certificate),
        T(test_client_certificate),
        T(test_odd_protocols),
        T(test_plain_meets_tls),
        T(test_strangers),
        T(test_silent_server_with_tls),
        T(test_wrong_machine),
        T(test_later_history_is_no_strangers_word),
        T(test_proof),
        T(test_proof_is_of_no_use_elsewhere),
        T(test_server_that_is_none),
        T(test_other_purpose),
        T(test_altered),
        T(test_greets_and_goes),
        T(test_new_keys),
        T(test_slow_reader_with_tls),
        T(test_lingering_with_tls),
        T(test_join),
        T(test_join_of_ended),
        T(test_unwanted_are_ended),
        T(test_an_authority_is_trusted_no_more),
        T(test_who_is_vouched_for),
    };

    return cmocka_run_group_tests(tests, NULL, end_world);
}
