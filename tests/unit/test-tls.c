/* SPDX-License-Identifier: Apache-2.0 */
/* The parts that TLS on the cluster port, and on any other server, is made of: credentials, handshakes,
 * records. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "raftstore/limits.h"
#include "raftstore/tls_alert.h"
#include "raftstore/tls_handshake.h"
#include "tests/unit/deadline.h"
#include "tests/unit/port-world.h"

#define HOUR_MS 3600000u

/* ---- credentials ---- */

struct identity {
    struct pki_key *key;
    struct pki_blob certificate;
};

static struct identity certify(unsigned cluster, enum pki_kind kind)
{
    struct pki_subject subject = {.name = {.kind = kind}, .not_after_ms = wall_ms() + HOUR_MS};
    const struct pki_blob *authority = world_authority(cluster);
    _cleanup_(pki_blob_done) struct pki_blob request = {0};
    struct identity identity = {0};
    struct pki_info info;
    struct err err = {0};

    assert_int_equal(pki_read(authority->data, authority->size, &info, NULL), 0);
    memcpy(subject.name.cluster_id, info.name.cluster_id, PKI_CLUSTER_ID_SIZE);
    strcpy(subject.name.id, kind == PKI_CLIENT ? "alice" : "0123456789abcdef0123456789abcdef");
    subject.name.role = kind == PKI_CLIENT ? PKI_ROLE_VIEWER : PKI_ROLE_NONE;
    assert_int_equal(pki_key_new(&identity.key, NULL), 0);
    assert_int_equal(pki_request_new(identity.key, &request, NULL), 0);
    if (pki_sign(authority->data, authority->size, world_authority_key(cluster), request.data, request.size,
                 &subject, &identity.certificate, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return identity;
}

static void identity_done(struct identity *identity)
{
    pki_key_free(identity->key);
    pki_blob_done(&identity->certificate);
}

static void test_bad_credentials(void **state)
{
    _cleanup_(identity_done) struct identity machine = certify(CLUSTER_OURS, PKI_MACHINE);
    _cleanup_(identity_done) struct identity client = certify(CLUSTER_OURS, PKI_CLIENT);
    const struct pki_blob *ours = world_authority(CLUSTER_OURS), *other = world_authority(CLUSTER_OTHER);
    struct pki_blob many[PKI_CHAIN_MAX + 1], junk = {.data = (uint8_t *)"junk", .size = 4};
    struct tls_credentials *credentials = NULL;
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = i == 0 ? machine.certificate : *ours;
#define REFUSED(expected, key, chain, chain_count, roots, root_count)                                     \
    assert_int_equal(tls_credentials_new(key, chain, chain_count, roots, root_count, &credentials, &err), \
                     expected);                                                                           \
    assert_true(err.text[0] != '\0')
    REFUSED(-EBADMSG, machine.key, NULL, 0, ours, 1);
    REFUSED(-EBADMSG, machine.key, &junk, 1, ours, 1);
    REFUSED(-EKEYREJECTED, client.key, &machine.certificate, 1, ours, 1);
    REFUSED(-EKEYREJECTED, client.key, &client.certificate, 1, ours, 1);
    REFUSED(-E2BIG, machine.key, &machine.certificate, 1, NULL, 0);
    REFUSED(-E2BIG, machine.key, &machine.certificate, 1, many, PKI_ROOTS_MAX + 1);
    REFUSED(-EKEYREJECTED, machine.key, &machine.certificate, 1, other, 1);
    REFUSED(-EKEYREJECTED, machine.key, &machine.certificate, 1, &machine.certificate, 1);
    REFUSED(-EBADMSG, machine.key, &machine.certificate, 1, &junk, 1);
    REFUSED(-E2BIG, machine.key, many, ARRAY_SIZE(many), ours, 1);
    many[1] = junk;
    REFUSED(-EBADMSG, machine.key, many, 2, ours, 1);
#undef REFUSED
    assert_null(credentials);
}

static void test_credentials(void **state)
{
    struct tls_credentials *credentials = world_credentials(CLUSTER_OURS, 5, wall_ms() + HOUR_MS), *nobody;
    const struct pki_blob *ours = world_authority(CLUSTER_OURS);
    size_t count;

    assert_ptr_equal(tls_credentials_ref(credentials), credentials);
    tls_credentials_unref(credentials);
    assert_string_equal(tls_credentials_own(credentials)->name.id, "00000000000000000000000000000005");
    assert_int_equal(tls_credentials_roots(credentials, &count)->size, ours->size);
    assert_int_equal(count, 1);
    nobody = tls_credentials_new_nobody();
    assert_null(tls_credentials_own(nobody));
    tls_credentials_unref(nobody);
    tls_credentials_unref(credentials);
    tls_credentials_unref(NULL);
}

/* ---- alerts ---- */

static void test_alerts(void **state)
{
    static const int errors[] = {-EKEYEXPIRED, -EKEYREJECTED, -EBADMSG, -EACCES, -EINVAL};
    uint8_t insecure[TLS_ALERT_RECORD_SIZE], no_cluster[TLS_ALERT_RECORD_SIZE];
    char text[256], other[256];

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(tls_alert_of_error(errors[i]), tls_alert_of_error(errors[k]));
    tls_alert_record(TLS_NO_TLS_INSECURE, insecure);
    tls_alert_record(TLS_NO_TLS_NO_CLUSTER, no_cluster);
    assert_memory_equal(insecure, no_cluster, TLS_ALERT_RECORD_SIZE - 1);
    tls_alert_text(insecure[6], text, sizeof(text));
    assert_non_null(strstr(text, "insecure = true"));
    tls_alert_text(no_cluster[6], other, sizeof(other));
    assert_string_equal(other, "the other side is in no cluster yet");
    for (int alert = 0; alert < 256; alert++) {
        tls_alert_text(alert, text, sizeof(text));
        assert_int_equal(strncmp(text, "the other side ", 15), 0);
    }
}

/* ---- handshakes ---- */

static const struct tls_protocol demands_all = {.name = "fleet-session/1", .demand = TLS_DEMAND_CERTIFICATE};
static const struct tls_protocol demands_nothing = {.name = "fleet-join/1", .demand = TLS_DEMAND_NOTHING};
static const struct tls_protocol if_any = {.name = "http/1.1", .demand = TLS_DEMAND_IF_ANY};

struct side {
    int fd;
    struct tls_handshake *handshake;
    bool done;
    int r;
    char text[512];
    struct tls_stream *stream;
    const struct tls_protocol *protocol;
    struct pki_info peer; /* name.kind PKI_NOBODY: none. */
};

struct pair {
    struct side server, client;
};

struct tls {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired, closed;
    struct tls_handshaker *handshaker;
    struct tls_credentials *server, *client;
};

static void on_shaken(struct tls_result *result, void *data)
{
    struct side *side = data;

    assert_false(side->done);
    side->done = true;
    side->handshake = NULL;
    side->r = result->r;
    snprintf(side->text, sizeof(side->text), "%s", result->text);
    assert_true((result->r == 0) == (result->stream != NULL));
    side->stream = TAKE_PTR(result->stream);
    side->protocol = result->protocol;
    if (result->peer != NULL)
        side->peer = *result->peer;
}

static int setup_tls(void **state)
{
    struct tls *tls = NEW0(struct tls);

    uv_loop_init(&tls->loop);
    uv_timer_init(&tls->loop, &tls->deadline);
    tls->deadline.data = tls;
    tls->handshaker = tls_handshaker_new(&tls->loop);
    tls->server = world_credentials(CLUSTER_OURS, 1, wall_ms() + HOUR_MS);
    tls->client = world_credentials(CLUSTER_OURS, 2, wall_ms() + HOUR_MS);
    *state = tls;
    return 0;
}

static void on_handshaker_closed(void *data)
{
    ((struct tls *)data)->closed = true;
}

static void on_tls_deadline(uv_timer_t *timer)
{
    ((struct tls *)timer->data)->expired = true;
}

#define AWAIT(tls, condition)                                              \
    do {                                                                   \
        (tls)->expired = false;                                            \
        uv_timer_start(&(tls)->deadline, on_tls_deadline, DEADLINE_MS, 0); \
        while (!(condition) && !(tls)->expired)                            \
            uv_run(&(tls)->loop, UV_RUN_ONCE);                             \
        uv_timer_stop(&(tls)->deadline);                                   \
        if (!(condition))                                                  \
            fail_msg("never came true: %s", #condition);                   \
    } while (0)

static int teardown_tls(void **state)
{
    struct tls *tls = *state;

    if (tls->handshaker != NULL)
        tls_handshaker_close(tls->handshaker, on_handshaker_closed, tls);
    AWAIT(tls, tls->closed);
    uv_close((uv_handle_t *)&tls->deadline, NULL);
    uv_run(&tls->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&tls->loop), 0);
    tls_credentials_unref(tls->server);
    tls_credentials_unref(tls->client);
    free(tls);
    return 0;
}

static struct tls_options options_of(struct tls *tls, bool client, const struct tls_protocol *protocol)
{
    return (struct tls_options){.client = client,
                                .credentials = client ? tls->client : tls->server,
                                .protocols = protocol,
                                .protocol_count = 1,
                                .take = TLS_TAKE_MACHINES,
                                .timeout_ms = patient_ms(10000)};
}

static void start(struct tls *tls, struct side *side, const struct tls_options *options)
{
    assert_int_equal(
        tls_handshake_start(tls->handshaker, side->fd, options, on_shaken, side, &side->handshake), 0);
    assert_false(side->done);
}

static void begin(struct tls *tls, struct pair *pair, const struct tls_options *server,
                  const struct tls_options *client)
{
    int fds[2];

    *pair = (struct pair){0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    pair->server.fd = fds[0];
    pair->client.fd = fds[1];
    start(tls, &pair->server, server);
    start(tls, &pair->client, client);
}

static void pair_done(struct pair *pair)
{
    tls_stream_free(pair->server.stream);
    tls_stream_free(pair->client.stream);
    close(pair->server.fd);
    close(pair->client.fd);
}

static void shake(struct tls *tls, struct pair *pair, const struct tls_options *server,
                  const struct tls_options *client)
{
    begin(tls, pair, server, client);
    AWAIT(tls, pair->server.done && pair->client.done);
}

static void test_handshake(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);
    struct pair pair;

    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, 0);
    assert_int_equal(pair.client.r, 0);
    assert_ptr_equal(pair.server.protocol, &demands_all);
    assert_string_equal(pair.server.peer.name.id, "00000000000000000000000000000002");
    assert_string_equal(pair.client.peer.name.id, "00000000000000000000000000000001");
    assert_int_equal(tls_handshaker_count(tls->handshaker), 0);
    pair_done(&pair);
}

static void test_what_is_demanded(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &if_any), client = options_of(tls, true, &if_any);
    struct tls_credentials *nobody = tls_credentials_new_nobody(), *other;
    struct pki_info root;
    struct pair pair;

    assert_int_equal(
        pki_read(world_authority(CLUSTER_OURS)->data, world_authority(CLUSTER_OURS)->size, &root, NULL), 0);
    other = world_credentials(CLUSTER_OTHER, 3, wall_ms() + HOUR_MS);

    shake(tls, &pair, &server, &client); /* If any: there is one. */
    assert_int_equal(pair.server.r, 0);
    assert_int_equal(pair.server.peer.name.kind, PKI_MACHINE);
    pair_done(&pair);

    client.credentials = nobody; /* There is none. */
    client.pinned = true;
    memcpy(client.pin, root.fingerprint, PKI_PIN_SIZE);
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, 0);
    assert_int_equal(pair.server.peer.name.kind, PKI_NOBODY);
    pair_done(&pair);

    client.credentials = other; /* One that does not hold: worse than none. */
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, -EKEYREJECTED);
    pair_done(&pair);

    server.protocols = client.protocols = &demands_nothing; /* It is not even asked for. */
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, 0);
    assert_int_equal(pair.server.peer.name.kind, PKI_NOBODY);
    pair_done(&pair);

    server.protocols = client.protocols = &demands_all;
    client.credentials = nobody;
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, -ENOKEY);
    pair_done(&pair);

    server.take = TLS_TAKE_CLIENTS;
    client.credentials = tls->client;
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, -EACCES);
    pair_done(&pair);
    server.take = TLS_TAKE_CLIENTS | TLS_TAKE_MACHINES;
    shake(tls, &pair, &server, &client);
    assert_int_equal(pair.server.r, 0);
    pair_done(&pair);

    tls_credentials_unref(nobody);
    tls_credentials_unref(other);
}

/* After a rotation: shown are the certificate, its authority certified by the one before, that one, and the
 * authority itself. Tokens of either time are for one of them, and hosts may trust either. */
static void test_all_authorities_are_shown(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_nothing),
                       client = options_of(tls, true, &demands_nothing);
    _cleanup_(identity_done) struct identity machine = certify(CLUSTER_OURS, PKI_MACHINE);
    const struct pki_blob *new = world_authority(CLUSTER_OURS);
    _cleanup_(pki_key_freep) struct pki_key *old_key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob old = {0}, cross = {0};
    struct tls_credentials *nobody = tls_credentials_new_nobody(), *rotated = NULL;
    struct pki_info infos[2];
    struct err err = {0};
    struct pair pair;

    assert_int_equal(pki_read(new->data, new->size, &infos[0], NULL), 0);
    assert_int_equal(pki_key_new(&old_key, NULL), 0);
    assert_int_equal(
        pki_authority_new(infos[0].name.cluster_id, old_key, wall_ms() + 2 * HOUR_MS, &old, NULL), 0);
    assert_int_equal(pki_authority_cross(new->data, new->size, old.data, old.size, old_key, &cross, NULL), 0);
    assert_int_equal(pki_read(old.data, old.size, &infos[1], NULL), 0);
    {
        const struct pki_blob chain[] = {machine.certificate, cross, old};

        if (tls_credentials_new(machine.key, chain, ARRAY_SIZE(chain), new, 1, &rotated, &err) < 0)
            fail_msg("%s", err.text);
    }
    server.credentials = rotated;
    client.credentials = nobody;
    client.pinned = true;
    for (size_t i = 0; i < ARRAY_SIZE(infos); i++) {
        memcpy(client.pin, infos[i].fingerprint, PKI_PIN_SIZE);
        shake(tls, &pair, &server, &client);
        if (pair.client.r < 0)
            fail_msg("%s authority: %s", i == 0 ? "new" : "old", pair.client.text);
        assert_string_equal(pair.client.peer.name.id, "0123456789abcdef0123456789abcdef");
        pair_done(&pair);
    }
    tls_credentials_unref(nobody);
    tls_credentials_unref(rotated);
}

static void test_time(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);
    struct side silent = {0}, alone = {0};
    int a[2], b[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, b), 0);
    server.timeout_ms = client.timeout_ms = 30;
    silent.fd = a[0];
    alone.fd = b[0];
    start(tls, &silent, &server);
    start(tls, &alone, &client);
    AWAIT(tls, silent.done && alone.done);
    assert_int_equal(silent.r, -ETIMEDOUT);
    assert_int_equal(alone.r, -ETIMEDOUT);
    for (unsigned i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void test_gone(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);
    struct side sides[2] = {0};
    int fds[2];

    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        sides[i].fd = fds[0];
        close(fds[1]);
        start(tls, &sides[i], i == 0 ? &server : &client);
    }
    AWAIT(tls, sides[0].done && sides[1].done);
    assert_int_equal(sides[0].r, -ECONNRESET);
    assert_true(sides[1].r == -EPIPE || sides[1].r == -ECONNRESET);
    close(sides[0].fd);
    close(sides[1].fd);
}

/* More than the limit: the oldest go, but none that we have begun ourselves. */
static void test_too_many(void **state)
{
    enum { MORE = 20 };
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);
    struct side *silent = xcalloc(TLS_HANDSHAKES_MAX + MORE, sizeof(*silent)), ours = {0};
    int fds[2], far[TLS_HANDSHAKES_MAX + MORE];
    unsigned dropped = 0;
    struct pair pair;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    ours.fd = fds[0];
    start(tls, &ours, &client);
    for (unsigned i = 0; i < TLS_HANDSHAKES_MAX + MORE; i++) {
        int both[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, both), 0);
        silent[i].fd = both[0];
        far[i] = both[1];
        start(tls, &silent[i], &server);
        if (i % 3 == 0) /* Some have begun, some have not. */
            uv_sleep(1);
        assert_true(tls_handshaker_count(tls->handshaker) <= TLS_HANDSHAKES_MAX);
    }
    begin(tls, &pair, &server, &client);
    AWAIT(tls, pair.server.done && pair.client.done);
    assert_int_equal(pair.server.r, 0);
    for (unsigned i = 0; i < TLS_HANDSHAKES_MAX + MORE; i++) {
        dropped += silent[i].done;
        assert_true(silent[i].done == (i < MORE + 3));
        if (silent[i].done)
            assert_int_equal(silent[i].r, -ENOBUFS);
        else
            tls_handshake_cancel(silent[i].handshake);
        close(silent[i].fd);
        close(far[i]);
    }
    assert_int_equal(dropped, MORE + 3);
    assert_false(ours.done);
    tls_handshake_cancel(ours.handshake);
    close(fds[0]);
    close(fds[1]);
    pair_done(&pair);
    assert_int_equal(tls_handshaker_count(tls->handshaker), 0);
    free(silent);
}

/* Cancelled, or all of it closed, at any time: nothing is heard of it any more, and nothing is left. */
static void test_cancelled_at_any_time(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);

    for (unsigned i = 0; i < 60; i++) {
        struct pair pair;

        begin(tls, &pair, &server, &client);
        for (unsigned k = 0; k < i / 10; k++)
            uv_run(&tls->loop, UV_RUN_NOWAIT);
        usleep(i % 10 * 200);
        if (pair.server.handshake != NULL)
            tls_handshake_cancel(pair.server.handshake);
        shutdown(pair.server.fd, SHUT_RDWR);
        if (pair.client.handshake != NULL && i % 2 == 0)
            tls_handshake_cancel(pair.client.handshake);
        else
            AWAIT(tls, pair.client.done);
        pair_done(&pair);
    }
}

static void test_closed_at_any_time(void **state)
{
    struct tls *tls = *state;
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);

    for (unsigned i = 0; i < 60; i++) {
        struct pair pair;

        begin(tls, &pair, &server, &client);
        for (unsigned k = 0; k < i / 10; k++)
            uv_run(&tls->loop, UV_RUN_NOWAIT);
        usleep(i % 10 * 200);
        tls->closed = false;
        tls_handshaker_close(tls->handshaker, on_handshaker_closed, tls);
        pair.server.done = pair.client.done = true; /* A callback would be noticed. */
        AWAIT(tls, tls->closed);
        pair_done(&pair);
        tls->handshaker = tls_handshaker_new(&tls->loop);
    }
    tls->closed = false;
}

/* ---- records ---- */

static void open_streams(struct tls *tls, struct pair *pair)
{
    struct tls_options server = options_of(tls, false, &demands_all),
                       client = options_of(tls, true, &demands_all);

    shake(tls, pair, &server, &client);
    assert_int_equal(pair->server.r, 0);
    assert_int_equal(pair->client.r, 0);
}

static void fill(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
}

/* What one writes the other reads, in whatever pieces it arrives and is fetched. */
static void test_records(void **state)
{
    static const size_t sizes[] = {0, 1, 100, TLS_RECORD_MAX - 1, TLS_RECORD_MAX, TLS_RECORD_MAX + 1, 100000};
    static const size_t steps[] = {1, 3, 5, 1000, 100000}, rooms[] = {1, 1000, 200000};
    struct tls *tls = *state;
    _cleanup_(freep) uint8_t *plain = xmalloc(100000), *got = xmalloc(200000);
    struct err err = {0};
    struct pair pair;

    fill(plain, 100000);
    open_streams(tls, &pair);
    assert_int_equal(tls_stream_read(pair.client.stream, got, 1, &err), -EAGAIN);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(steps) * ARRAY_SIZE(rooms); k++) {
            size_t step = steps[k % ARRAY_SIZE(steps)], room = rooms[k / ARRAY_SIZE(steps)], have = 0, size;
            _cleanup_(freep) uint8_t *wire = NULL;

            if (sizes[i] == 100000 && (step < 100 || room < 100))
                continue; /* Takes its time. */
            assert_int_equal(tls_stream_write(pair.server.stream, plain, sizes[i], i * 1000, &err), 0);
            assert_true(tls_stream_pending(pair.server.stream) >= sizes[i]);
            wire = tls_stream_take(pair.server.stream, &size);
            assert_int_equal(tls_stream_pending(pair.server.stream), 0);
            assert_true(size <= sizes[i] + (sizes[i] / TLS_RECORD_MAX + 1) * TLS_RECORD_OVERHEAD);
            for (size_t at = 0; at < size; at += step) {
                int r;

                tls_stream_feed(pair.client.stream, wire + at, size - at < step ? size - at : step);
                while ((r = tls_stream_read(pair.client.stream, got + have, room, &err)) > 0)
                    have += (size_t)r;
                assert_int_equal(r, -EAGAIN);
            }
            assert_int_equal(have, sizes[i]);
            assert_memory_equal(got, plain, have);
        }
    }
    pair_done(&pair);
}

static void test_end_of_records(void **state)
{
    struct tls *tls = *state;
    struct err err = {0};
    struct pair pair;
    uint8_t got[100];
    uint8_t *wire;
    size_t size;

    open_streams(tls, &pair);
    assert_int_equal(tls_stream_write(pair.server.stream, "bye", 3, 0, &err), 0);
    tls_stream_end(pair.server.stream);
    wire = tls_stream_take(pair.server.stream, &size);
    tls_stream_feed(pair.client.stream, wire, size);
    assert_int_equal(tls_stream_read(pair.client.stream, got, sizeof(got), &err), 3);
    assert_int_equal(tls_stream_read(pair.client.stream, got, sizeof(got), &err), 0);
    free(wire);
    pair_done(&pair);
}

/* One bit that is not as it was sent, anywhere; and a record that comes twice. */
static void test_altered_records(void **state)
{
    struct tls *tls = *state;
    uint8_t got[100];

    for (size_t at = 0; at < 30; at++) {
        struct err err = {0};
        struct pair pair;
        uint8_t *wire;
        size_t size;
        int r;

        open_streams(tls, &pair);
        assert_int_equal(tls_stream_write(pair.server.stream, "what I mean", 11, 0, &err), 0);
        wire = tls_stream_take(pair.server.stream, &size);
        if (at < size) {
            wire[at] ^= 0x80;
            tls_stream_feed(pair.client.stream, wire, size);
            r = tls_stream_read(pair.client.stream, got, sizeof(got), &err);
            assert_true(r == -EPROTO || r == -EAGAIN); /* -EAGAIN: a longer record than it was. */
        } else {
            tls_stream_feed(pair.client.stream, wire, size);
            assert_int_equal(tls_stream_read(pair.client.stream, got, sizeof(got), &err), 11);
            tls_stream_feed(pair.client.stream, wire, size);
            assert_int_equal(tls_stream_read(pair.client.stream, got, sizeof(got), &err), -EPROTO);
            assert_non_null(strstr(err.text, "altered on its way"));
        }
        free(wire);
        pair_done(&pair);
    }
}

static int end_world(void **state)
{
    world_done();
    return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup_tls, teardown_tls)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_credentials),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_alerts),
        T(test_handshake),
        T(test_what_is_demanded),
        T(test_all_authorities_are_shown),
        T(test_time),
        T(test_gone),
        T(test_too_many),
        T(test_cancelled_at_any_time),
        T(test_closed_at_any_time),
        T(test_records),
        T(test_end_of_records),
        T(test_altered_records),
    };

    return cmocka_run_group_tests(tests, NULL, end_world);
}
