/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/conn.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define USER_TIMEOUT_MS 10000 /* Sent bytes that nobody acknowledges for so long: the peer is gone. */
#define KEEPALIVE_S     10

static const bool moves[CONN_STATES][CONN_STATES] = {
    [CONN_RESOLVING] = {[CONN_CONNECTING] = true, [CONN_CLOSED] = true},
    [CONN_CONNECTING] = {[CONN_HANDSHAKING] = true, [CONN_GREETING] = true, [CONN_CLOSED] = true},
    [CONN_HANDSHAKING] = {[CONN_GREETING] = true, [CONN_CLOSED] = true},
    [CONN_GREETING] = {[CONN_OPEN] = true, [CONN_LINGERING] = true, [CONN_CLOSED] = true},
    [CONN_OPEN] = {[CONN_LINGERING] = true, [CONN_CLOSED] = true},
    [CONN_LINGERING] = {[CONN_CLOSED] = true},
};

void conn_move(struct conn *conn, enum conn_state to)
{
    assert(moves[conn->state][to]);
    conn->state = to;
}

/* ---- The end ---- */

static void conn_free(struct conn *conn)
{
    struct port *port = conn->port;

    if (conn->refusal != NULL)
        fleet__welcome__free_unpacked(conn->refusal, NULL);
    frame_reader_done(&conn->reader);
    tls_stream_free(conn->tls);
    tls_credentials_unref(conn->credentials);
    free(conn->reason);
    free(conn);
    port_unref(port);
}

/* All handles are closed: says so to the owner, once. */
static void conn_maybe_finish(struct conn *conn)
{
    if (conn->tcp_state != HANDLE_NONE || conn->timer_state != HANDLE_NONE || conn->finished)
        return;
    conn->finished = true;
    if (conn->callbacks != NULL)
        conn->callbacks->on_close(conn, conn->reason, conn->refusal, conn->data);
    DL_DELETE(conn->port->conns, conn);
    if (!conn->resolving)
        conn_free(conn);
}

static void conn_connect_next(struct conn *conn);

static void on_tcp_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;

    conn->tcp_state = HANDLE_NONE;
    if (conn->state == CONN_CLOSED)
        conn_maybe_finish(conn);
    else
        conn_connect_next(conn); /* One address has failed. */
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;

    conn->timer_state = HANDLE_NONE;
    conn_maybe_finish(conn);
}

static void conn_close_tcp(struct conn *conn)
{
    if (conn->tcp_state != HANDLE_OPEN)
        return;
    conn->tcp_state = HANDLE_CLOSING;
    uv_close((uv_handle_t *)&conn->tcp, on_tcp_closed);
}

void conn_uncount(struct conn *conn)
{
    if (conn->counted)
        conn->port->handshakes--;
    conn->counted = false;
}

void conn_shut(struct conn *conn, const char *reason)
{
    if (conn->state == CONN_CLOSED)
        return;
    conn_move(conn, CONN_CLOSED);
    if (conn->reason == NULL) /* A lingering one has its own already. */
        conn->reason = xstrdup(reason);
    conn_uncount(conn);
    if (conn->resolving)
        uv_cancel((uv_req_t *)&conn->resolve);
    conn_close_tcp(conn);
    conn->timer_state = HANDLE_CLOSING;
    uv_close((uv_handle_t *)&conn->timer, on_timer_closed);
    if (conn->handshake != NULL)
        tls_handshake_cancel(conn->handshake);
    conn->handshake = NULL;
    conn_drop_queue(conn);
    if (conn->dirty)
        LL_DELETE2(conn->port->dirty, conn, next_dirty);
    conn->dirty = false;
    if (conn->addresses != NULL)
        uv_freeaddrinfo(conn->addresses);
    conn->addresses = conn->address = NULL;
}

static void on_timeout(uv_timer_t *timer)
{
    struct conn *conn = timer->data;

    switch (conn->state) {
    case CONN_RESOLVING: conn_shut(conn, "the name was not resolved in time"); break;
    case CONN_CONNECTING: conn_close_tcp(conn); break; /* The next address, if any. */
    case CONN_GREETING:
        if (!conn->dialled)
            port_log_stranger(conn->port, conn->peer, "said nothing in time");
        conn_shut(conn, conn->dialled ? "no answer in time" : "no greeting in time");
        break;
    case CONN_LINGERING: conn_shut(conn, "lingered"); break;
    case CONN_HANDSHAKING:
    case CONN_OPEN:
    case CONN_CLOSED:
    case CONN_STATES: assert(false); break;
    }
}

void conn_start_timer(struct conn *conn, uint64_t ms)
{
    uv_timer_start(&conn->timer, on_timeout, ms, 0);
}

/* ---- The beginning ---- */

struct conn *conn_new(struct port *port, bool dialled)
{
    struct conn *conn = NEW0(struct conn);

    conn->port = port;
    conn->dialled = dialled;
    conn->state = dialled ? CONN_RESOLVING : port->credentials != NULL ? CONN_HANDSHAKING : CONN_GREETING;
    if (port->credentials != NULL)
        conn->credentials = tls_credentials_ref(port->credentials);
    conn->reader.limit = HELLO_FRAME_MAX;
    conn->tcp.data = conn->timer.data = conn->resolve.data = conn->connect.data = conn;
    uv_timer_init(port->loop, &conn->timer);
    conn->timer_state = HANDLE_OPEN;
    port->refs++;
    DL_APPEND(port->conns, conn);
    return conn;
}

static int conn_init_tcp(struct conn *conn)
{
    int r = uv_tcp_init(conn->port->loop, &conn->tcp);

    if (r == 0)
        conn->tcp_state = HANDLE_OPEN;
    return r;
}

/* A failure of these is no reason to give up. */
static void conn_set_options(struct conn *conn)
{
    unsigned user_timeout_ms = USER_TIMEOUT_MS;
    int fd, interval_s = 3;

    uv_tcp_nodelay(&conn->tcp, 1);
    uv_tcp_keepalive(&conn->tcp, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&conn->tcp, &fd) < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

static void conn_set_peer(struct conn *conn)
{
    struct sockaddr_storage address;
    int size = sizeof(address);

    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &size) == 0)
        port_format_peer((struct sockaddr *)&address, conn->peer);
}

/* There is a connection. In plain text the greeting is next. */
static int conn_start_talking(struct conn *conn)
{
    conn_set_options(conn);
    if (conn->credentials != NULL) {
        uv_timer_stop(&conn->timer); /* The handshake has its own. */
        return conn_start_handshake(conn);
    }
    conn_start_timer(conn, conn->port->greeting_ms);
    return conn_start_greeting(conn);
}

int conn_start_greeting(struct conn *conn)
{
    int r = conn_start_reading(conn);

    if (r == 0 && conn->dialled)
        conn_send_hello(conn);
    return r;
}

void conn_start_accepted(struct conn *conn, uv_stream_t *listener)
{
    int r = conn_init_tcp(conn);

    conn->counted = true;
    conn->port->handshakes++;
    if (r == 0)
        r = uv_accept(listener, (uv_stream_t *)&conn->tcp);
    if (r == 0) {
        conn_set_peer(conn);
        r = conn_start_talking(conn);
    }
    if (r < 0)
        conn_shut(conn, uv_strerror(r));
}

static void on_connected(uv_connect_t *request, int status)
{
    struct conn *conn = request->data;
    int r;

    if (conn->state == CONN_CLOSED || conn->tcp_state != HANDLE_OPEN)
        return;
    if (status < 0) {
        free(conn->reason);
        conn->reason = xstrdup(uv_strerror(status)); /* The last address's is the one that is told. */
        conn_close_tcp(conn);
        return;
    }
    free(conn->reason);
    conn->reason = NULL;
    conn_set_peer(conn);
    conn_move(conn, conn->credentials != NULL ? CONN_HANDSHAKING : CONN_GREETING);
    r = conn_start_talking(conn);
    if (r < 0)
        conn_shut(conn, uv_strerror(r));
}

/* Tries the next address; a handle can connect only once. */
static void conn_connect_next(struct conn *conn)
{
    struct addrinfo *address = conn->address;
    int r;

    if (address == NULL) {
        conn_shut(conn, "no address answered");
        return;
    }
    conn->address = address->ai_next;
    port_format_peer(address->ai_addr, conn->peer);
    conn_start_timer(conn, conn->port->greeting_ms);
    r = conn_init_tcp(conn);
    if (r == 0)
        r = uv_tcp_connect(&conn->connect, &conn->tcp, address->ai_addr, on_connected);
    if (r == 0)
        return;
    free(conn->reason);
    conn->reason = xstrdup(uv_strerror(r));
    if (conn->tcp_state == HANDLE_OPEN)
        conn_close_tcp(conn);
    else
        conn_shut(conn, uv_strerror(r));
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct conn *conn = request->data;

    conn->resolving = false;
    if (conn->state == CONN_CLOSED) {
        uv_freeaddrinfo(addresses);
        if (conn->finished)
            conn_free(conn);
        return;
    }
    if (status < 0) {
        conn_shut(conn, uv_strerror(status));
        return;
    }
    conn->addresses = conn->address = addresses;
    conn_move(conn, CONN_CONNECTING);
    conn_connect_next(conn);
}

static void conn_resolve(struct conn *conn, const struct address *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char service[8];
    int r;

    snprintf(service, sizeof(service), "%d", address->port);
    conn_start_timer(conn, conn->port->greeting_ms);
    r = uv_getaddrinfo(conn->port->loop, &conn->resolve, on_resolved, address->host, service, &hints);
    if (r < 0)
        conn_shut(conn, uv_strerror(r));
    else
        conn->resolving = true;
}

/* An IP address needs no resolver, which would take a turn in the thread pool that the disk works in. */
static bool parse_literal(const struct address *address, struct sockaddr_storage *ret)
{
    return uv_ip4_addr(address->host, address->port, (struct sockaddr_in *)ret) == 0 ||
           uv_ip6_addr(address->host, address->port, (struct sockaddr_in6 *)ret) == 0;
}

void conn_start_dial(struct conn *conn, const char *text)
{
    struct address address;
    struct err err = {0};
    int r;

    snprintf(conn->peer, sizeof(conn->peer), "%s", text);
    r = address_parse(text, &address, &err);
    if (r < 0 || address.host[0] == '\0' || address.port == 0) {
        conn_shut(conn, r < 0 ? err.text : "the address names no host or no port");
    } else if (parse_literal(&address, &conn->literal_address)) {
        conn->literal.ai_addr = (struct sockaddr *)&conn->literal_address;
        conn->address = &conn->literal;
        conn_move(conn, CONN_CONNECTING);
        conn_connect_next(conn);
    } else {
        conn_resolve(conn, &address);
    }
}

int conn_handshake_error(const struct conn *conn)
{
    return conn->handshake_error;
}

const char *conn_peer(const struct conn *conn)
{
    return conn->peer;
}

uint64_t conn_peer_server_id(const struct conn *conn)
{
    return conn->peer_server_id;
}

const struct pki_info *conn_peer_info(const struct conn *conn)
{
    return conn->peer_info.name.kind != PKI_NOBODY ? &conn->peer_info : NULL;
}

/* By whom the port trusts now: 'conn->credentials' are those that it began with. Who joins trusts a pin. */
static bool conn_vouches(const struct conn *conn, const struct pki_info *verified)
{
    return conn->pinned || conn->port->credentials == NULL ||
           tls_credentials_vouch(conn->port->credentials, verified);
}

bool conn_peer_trusted(const struct conn *conn)
{
    return conn->peer_info.name.kind == PKI_NOBODY || conn_vouches(conn, &conn->peer_info);
}

bool conn_peer_proved(const struct conn *conn)
{
    return conn->peer_proved && conn_vouches(conn, &conn->proved_by);
}

bool conn_peer_proof_ended(const struct conn *conn)
{
    return conn->peer_proved && !conn_peer_proved(conn);
}

Fleet__Purpose conn_purpose(const struct conn *conn)
{
    return conn->purpose;
}

bool conn_is_dialled(const struct conn *conn)
{
    return conn->dialled;
}

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    return conn->peer_info.name.kind != PKI_NOBODY ? &conn->peer_info.name : NULL;
}
