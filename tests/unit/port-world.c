/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
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
#include "raftstore/address.h"
#include "raftstore/frame.h"
#include "raftstore/greeting.h"
#include "tests/unit/port-world.h"

unsigned strangers_logged;
char stranger_text[512];
static struct fixture *current;

struct authority {
    struct pki_key *key;
    struct pki_blob certificate;
};

static struct authority authorities[CLUSTERS];

static void sink(int priority, const char *message, const char *const *fields)
{
    if (str_has_prefix(message, "connection from"))
        snprintf(stranger_text, sizeof(stranger_text), "%s", message);
    if (str_has_prefix(message, "connection from"))
        strangers_logged++;
}

void on_deadline(uv_timer_t *timer)
{
    ((struct fixture *)timer->data)->expired = true;
}

void on_port_closed(void *data)
{
    ((struct fixture *)data)->ports_closed++;
}

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct end *end = data;

    assert_true(welcome->accepted);
    end->opened++;
    end->proved = conn_peer_proved(conn);
    if (conn_peer_name(conn) != NULL)
        end->peer = *conn_peer_name(conn);
    if (end->close_on_open)
        conn_close(conn, "enough");
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct end *end = data;

    assert_int_equal(end->closed, 0);
    end->messages++;
    end->bytes += size;
    for (size_t i = 0; i < size; i++)
        end->sum = end->sum * 31 + bytes[i];
    if (end->echo)
        conn_send(conn, bytes, size);
    if (end->close_on_message) {
        conn_close(conn, "enough");
        assert_int_equal(end->closed, 0);
        assert_int_equal(conn_send(conn, "x", 1), -ENOTCONN);
    }
    if (end->port_close_on_message) {
        port_close(TAKE_PTR(current->server), on_port_closed, current);
        assert_int_equal(end->closed, 0);
    }
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct end *end = data;

    assert_ptr_equal(end->conn, conn);
    end->conn = NULL;
    end->closed++;
    snprintf(end->reason, sizeof(end->reason), "%s", reason);
    if (refusal != NULL) {
        end->refused = true;
        snprintf(end->leader, sizeof(end->leader), "%s", refusal->leader_address);
    }
}

static void on_drain(struct conn *conn, void *data)
{
    ((struct end *)data)->drained++;
}

const struct conn_callbacks end_callbacks = {
    .on_open = on_open, .on_message = on_message, .on_close = on_close, .on_drain = on_drain};

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct fixture *f = data;
    struct end *end = &f->accepted[f->accepted_count];

    assert_int_equal(conn_peer_server_id(conn), hello->server_id);
    assert_int_equal(conn_send(conn, "x", 1), -ENOTCONN);
    if (f->refuse != NULL) {
        if (f->refuse_leader != NULL)
            strcpy(leader_address, f->refuse_leader);
        return err_set(err, -EAGAIN, "%s", f->refuse);
    }
    end->conn = conn;
    end->proved = conn_peer_proved(conn);
    if (conn_peer_name(conn) != NULL)
        end->peer = *conn_peer_name(conn);
    f->accepted_count++;
    *ret = &end_callbacks;
    *ret_data = end;
    if (f->close_in_accept)
        conn_close(conn, "second thoughts");
    return 0;
}

struct port_identity identity_of(unsigned n)
{
    struct port_identity identity = {.has_cluster = true, .server_id = n};

    memset(identity.cluster_id, 7, sizeof(identity.cluster_id));
    snprintf(identity.machine_id, sizeof(identity.machine_id), "%032x", n);
    return identity;
}

static void on_later_history(const struct cluster_history *history, const char *machine_id, void *data)
{
    struct fixture *f = data;

    f->later_histories++;
    snprintf(f->later_machine, sizeof f->later_machine, "%s", machine_id);
}

/* ---- certificates ---- */

#define AUTHORITY_UNTIL_MS 4102444800000u /* 2100 */

static struct authority *authority_of(unsigned cluster)
{
    struct authority *authority = &authorities[cluster];
    const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE] = {7, 7, 7, 7, 7, 7, 7, 7,
                                                     7, 7, 7, 7, 7, 7, 7, 7 + (cluster == CLUSTER_OTHER)};

    if (authority->key == NULL) {
        assert_int_equal(pki_key_new(&authority->key, NULL), 0);
        assert_int_equal(
            pki_authority_new(cluster_id, authority->key, AUTHORITY_UNTIL_MS, &authority->certificate, NULL),
            0);
    }
    return authority;
}

const struct pki_blob *world_authority(unsigned cluster)
{
    return &authority_of(cluster)->certificate;
}

const struct pki_key *world_authority_key(unsigned cluster)
{
    return authority_of(cluster)->key;
}

struct tls_credentials *world_credentials(unsigned cluster, unsigned n, uint64_t not_after_ms)
{
    const struct authority *authority = authority_of(cluster);
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE}, .not_after_ms = not_after_ms};
    _cleanup_(pki_blob_done) struct pki_blob request = {0}, certificate = {0};
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    struct tls_credentials *credentials = NULL;
    struct err err = {0};
    struct pki_info info;

    assert_int_equal(pki_read(authority->certificate.data, authority->certificate.size, &info, NULL), 0);
    memcpy(subject.name.cluster_id, info.name.cluster_id, PKI_CLUSTER_ID_SIZE);
    snprintf(subject.name.id, sizeof(subject.name.id), "%032x", n);
    assert_int_equal(pki_key_new(&key, NULL), 0);
    assert_int_equal(pki_request_new(key, &request, NULL), 0);
    if (pki_sign(authority->certificate.data, authority->certificate.size, authority->key, request.data,
                 request.size, &subject, &certificate, NULL, &err) < 0 ||
        tls_credentials_new(key, &certificate, 1, &authority->certificate, 1, &credentials, &err) < 0)
        fail_msg("%s", err.text);
    return credentials;
}

void world_done(void)
{
    for (unsigned i = 0; i < CLUSTERS; i++) {
        pki_key_free(authorities[i].key);
        pki_blob_done(&authorities[i].certificate);
        authorities[i].key = NULL;
    }
}

void secure_port(struct port *port, unsigned cluster, unsigned n)
{
    struct tls_credentials *credentials = world_credentials(cluster, n, AUTHORITY_UNTIL_MS);

    port_set_credentials(port, credentials);
    tls_credentials_unref(credentials);
}

/* ---- ports ---- */

static bool prove(const void *text, size_t size, struct port_proof *ret, void *data)
{
    const struct authority *authority = authority_of(CLUSTER_OURS);
    struct fixture *f = data;
    bool by_server = ((const char *)text)[sizeof "fleet: has the authority's key"] == 'a';

    if (!(by_server ? f->server_proves : f->client_proves))
        return false;
    assert_int_equal(size, sizeof f->last_proof);
    if (by_server && f->gives_back)
        text = f->last_proof;
    assert_int_equal(pki_prove(authority->key, f->proves_otherwise != NULL ? f->proves_otherwise : text, size,
                               &ret->signature, NULL),
                     0);
    memmove(f->last_proof, text, size);
    return true;
}

static int check_server(const struct conn *conn, uint64_t server_id, struct err *err, void *data)
{
    struct fixture *f = data;

    f->servers_checked++;
    assert_int_equal(server_id, 1);
    return f->check_server < 0 ? err_set(err, f->check_server, "it is not that server") : 0;
}

struct port *add_port(struct fixture *f, unsigned n)
{
    const struct port_callbacks callbacks = {.on_accept = on_accept,
                                             .on_later_history = on_later_history,
                                             .prove = prove,
                                             .check_server = check_server};
    struct port_identity identity = identity_of(n);

    f->ports++;
    return port_new(&f->loop, &identity, &callbacks, f);
}

static unsigned count_descriptors(void)
{
    _cleanup_(closedirp) DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(dir) != NULL)
        count++;
    return count;
}

static struct fixture *setup_ports(void)
{
    struct fixture *f = NEW0(struct fixture);
    struct err err = {0};

    log_set_sink(sink);
    strangers_logged = 0;
    stranger_text[0] = '\0';
    uv_loop_init(&f->loop); /* The first one ever leaves some behind, which all share. */
    uv_loop_close(&f->loop);
    f->descriptors = count_descriptors();
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->deadline);
    f->deadline.data = f;
    f->server = add_port(f, 1);
    f->client = add_port(f, 2);
    if (port_listen(f->server, "127.0.0.1:0", &err) < 0)
        fail_msg("%s", err.text);
    current = f;
    return f;
}

int setup(void **state)
{
    *state = setup_ports();
    return 0;
}

int setup_secure(void **state)
{
    struct fixture *f = setup_ports();

    secure_port(f->server, CLUSTER_OURS, 1);
    secure_port(f->client, CLUSTER_OURS, 2);
    *state = f;
    return 0;
}

int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->server != NULL)
        port_close(f->server, on_port_closed, f);
    if (f->client != NULL)
        port_close(f->client, on_port_closed, f);
    WAIT(f, f->ports_closed == f->ports);
    for (size_t i = 0; i < f->accepted_count; i++)
        assert_int_equal(f->accepted[i].closed, 1);
    uv_close((uv_handle_t *)&f->deadline, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(count_descriptors(), f->descriptors);
    free(f);
    return 0;
}

void dial_to(struct fixture *f, struct end *end, const char *address, uint64_t to)
{
    end->conn = port_dial(f->client, address, FLEET__PURPOSE__PURPOSE_SESSION, to, &end_callbacks, end);
    assert_non_null(end->conn);
    assert_int_equal(end->closed, 0); /* Never at once. */
}

void dial(struct fixture *f, struct end *end)
{
    dial_to(f, end, port_listening(f->server), 1);
}

unsigned server_port(struct fixture *f)
{
    struct address address;

    assert_int_equal(address_parse(port_listening(f->server), &address, NULL), 0);
    return address.port;
}

/* ---- A raw peer ---- */

static void on_raw_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct raw *raw = handle->data;

    *buf = uv_buf_init(raw->inbox + raw->got, sizeof(raw->inbox) - raw->got);
}

static void on_raw_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct raw *raw = stream->data;

    if (size < 0) {
        raw->eof = true;
        uv_read_stop(stream);
    } else {
        raw->got += size;
    }
}

static void on_raw_connected(uv_connect_t *request, int status)
{
    struct raw *raw = request->handle->data;

    if (status == UV_ECANCELED)
        return;
    assert_int_equal(status, 0);
    raw->connected = true;
    if (!raw->no_reading)
        uv_read_start(request->handle, on_raw_alloc, on_raw_read);
}

void raw_connect(struct fixture *f, struct raw *raw)
{
    struct sockaddr_in address;

    uv_ip4_addr("127.0.0.1", server_port(f), &address);
    uv_tcp_init(&f->loop, &raw->tcp);
    raw->tcp.data = raw;
    uv_tcp_connect(&raw->connect, &raw->tcp, (struct sockaddr *)&address, on_raw_connected);
}

void raw_write(struct raw *raw, const void *bytes, size_t size)
{
    uv_buf_t buf = uv_buf_init((char *)bytes, size);
    int n = uv_try_write((uv_stream_t *)&raw->tcp, &buf, 1);

    assert_int_equal(n, size);
}

void raw_done(struct fixture *f, struct raw *raw)
{
    uv_close((uv_handle_t *)&raw->tcp, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

uint8_t *hello_frame(const struct port_identity *identity, Fleet__Purpose purpose, uint64_t to,
                     size_t *ret_size)
{
    size_t size;
    _cleanup_(freep) uint8_t *hello = greeting_pack_hello(identity, purpose, to, NULL, &size);
    uint8_t *frame = xmalloc(size + FRAME_HEADER_SIZE);

    frame_header_put(frame, size);
    memcpy(frame + FRAME_HEADER_SIZE, hello, size);
    *ret_size = size + FRAME_HEADER_SIZE;
    return frame;
}

/* Greets properly and waits for the answer. */
void raw_greet(struct fixture *f, struct raw *raw)
{
    struct port_identity identity = identity_of(9);
    size_t size;
    _cleanup_(freep) uint8_t *frame = hello_frame(&identity, FLEET__PURPOSE__PURPOSE_SESSION, 1, &size);

    raw_connect(f, raw);
    WAIT(f, raw->connected);
    raw_write(raw, frame, size);
    WAIT(f, f->accepted_count > 0);
}
