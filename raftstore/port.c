/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/port.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "raftstore/conn.h"

#define LISTEN_BACKLOG  128
#define STRANGER_LOG_MS 10000u /* At most one line about strangers in this time. */

/* The last one out frees the port. */
void port_unref(struct port *port)
{
    void (*done)(void *) = port->done;
    void *data = port->done_data;

    assert(port->refs > 0);
    if (--port->refs > 0)
        return;
    assert(port->closing && port->conns == NULL && port->handshakes == 0);
    tls_credentials_unref(port->credentials);
    free(port);
    if (done != NULL)
        done(data);
}

void port_format_peer(const struct sockaddr *address, char peer[PORT_PEER_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;

    if (address->sa_family == AF_INET) {
        uv_ip4_name(in, host, sizeof(host));
        snprintf(peer, PORT_PEER_MAX, "%s:%u", host, ntohs(in->sin_port));
    } else if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        uv_inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof(host));
        snprintf(peer, PORT_PEER_MAX, "%s:%u", host, ntohs(in6->sin6_port));
    } else {
        uv_ip6_name(in6, host, sizeof(host));
        snprintf(peer, PORT_PEER_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
    }
}

/* One line in ten seconds, whatever knocks: the journal is not the stranger's to fill. */
void port_log_stranger(struct port *port, const char *peer, const char *what)
{
    uint64_t now = uv_now(port->loop);

    if (port->stranger_log_ms != 0 && now - port->stranger_log_ms < STRANGER_LOG_MS) {
        port->strangers_unlogged++;
        return;
    }
    if (port->strangers_unlogged > 0)
        log_notice("connection from %s: %s (and %u more since the last such message)", peer, what,
                   port->strangers_unlogged);
    else
        log_notice("connection from %s: %s", peer, what);
    port->stranger_log_ms = now > 0 ? now : 1;
    port->strangers_unlogged = 0;
}

static void on_awake(uv_idle_t *handle)
{
}

static void on_flush(uv_prepare_t *handle)
{
    struct port *port = handle->data;
    struct conn *conn;

    while ((conn = port->dirty) != NULL) {
        port->dirty = conn->next_dirty;
        conn->dirty = false;
        conn_flush(conn);
    }
    uv_prepare_stop(handle);
    uv_idle_stop(&port->awake);
}

void port_mark_dirty(struct port *port, struct conn *conn)
{
    if (conn->dirty || port->closing)
        return;
    conn->dirty = true;
    conn->next_dirty = port->dirty;
    port->dirty = conn;
    uv_prepare_start(&port->flush, on_flush);
    /* From inside another prepare callback that is too late for this turn: the loop must not sleep in it. */
    uv_idle_start(&port->awake, on_awake);
}

static void on_handshaker_closed(void *data)
{
    port_unref(data);
}

/* The thread is there from the first time that it is wanted until the port is closed. */
static void port_want_handshaker(struct port *port)
{
    if (port->handshaker != NULL || port->closing)
        return;
    port->handshaker = tls_handshaker_new(port->loop);
    port->refs++;
}

struct port *port_new(uv_loop_t *loop, const struct port_identity *identity,
                      const struct port_callbacks *callbacks, void *data)
{
    struct port *port = NEW0(struct port);

    signal(SIGPIPE, SIG_IGN);
    port->loop = loop;
    port->identity = *identity;
    port->callbacks = *callbacks;
    port->data = data;
    port->greeting_ms = PORT_GREETING_MS;
    port->refs = 2;
    uv_prepare_init(loop, &port->flush);
    uv_idle_init(loop, &port->awake);
    port->flush.data = port->awake.data = port;
    return port;
}

void port_set_identity(struct port *port, const struct port_identity *identity)
{
    port->identity = *identity;
}

void port_set_level_needed(struct port *port, uint32_t level)
{
    port->identity.level_needed = level;
}

void port_set_credentials(struct port *port, struct tls_credentials *credentials)
{
    struct tls_credentials *before = port->credentials;

    if (credentials != NULL) {
        port_want_handshaker(port);
        tls_credentials_ref(credentials);
    }
    port->credentials = credentials;
    tls_credentials_unref(before);
}

void port_set_greeting_ms(struct port *port, uint64_t ms)
{
    port->greeting_ms = ms;
}

const char *port_listening(const struct port *port)
{
    return port->listening;
}

/* Too many peers that are not known yet: one of the place that has most of them goes (base/origin.h), the one
 * that has been silent longest, for one that means it says Hello at once. */
static void drop_of_crowd(struct port *port)
{
    struct conn *unknown[HANDSHAKES_MAX], *conn, *worst;
    struct origin origins[HANDSHAKES_MAX];
    unsigned count = 0;

    DL_FOREACH (port->conns, conn) {
        if (conn->counted && conn->state != CONN_CLOSED && count < ARRAY_SIZE(unknown)) {
            origins[count] = conn->origin;
            unknown[count++] = conn;
        }
    }
    if (count == 0)
        return;
    worst = unknown[origin_of_crowd(origins, count)];
    port_log_stranger(port, worst->peer, "dropped, too many connections have not said who they are");
    conn_shut(worst, "too many unfinished greetings");
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = stream->data;
    struct port *port = listener->port;

    if (status < 0) {
        port_log_stranger(port, "the network", uv_strerror(status));
        return;
    }
    if (port->closing)
        return;
    if (port->handshakes >= HANDSHAKES_MAX)
        drop_of_crowd(port);
    conn_start_accepted(conn_new(port, false), stream);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    struct port *port = listener->port;

    LL_DELETE(port->listeners, listener);
    free(listener);
    port_unref(port);
}

static int listener_open(struct listener *listener, const struct sockaddr *address)
{
    int r = uv_tcp_bind(&listener->tcp, address, 0); /* 0 also means: IPv4 too, if it is [::]. */

    if (r < 0)
        return r;
    return uv_listen((uv_stream_t *)&listener->tcp, LISTEN_BACKLOG, on_connection);
}

static int listen_on(struct port *port, const struct sockaddr *address)
{
    struct listener *listener = NEW0(struct listener);
    struct sockaddr_storage bound;
    int r, size = sizeof(bound);

    listener->port = port;
    listener->tcp.data = listener;
    r = uv_tcp_init(port->loop, &listener->tcp);
    if (r < 0) {
        free(listener);
        return r;
    }
    port->refs++;
    LL_PREPEND(port->listeners, listener);
    r = listener_open(listener, address);
    if (r < 0)
        uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
    else if (port->listening[0] == '\0' &&
             uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&bound, &size) == 0)
        port_format_peer((struct sockaddr *)&bound, port->listening);
    return r;
}

int port_listen(struct port *port, const char *text, struct err *err)
{
    struct address address;
    struct sockaddr_storage sockaddr;
    const char *host;
    int r;

    assert(!port->closing);
    r = address_parse(text, &address, err);
    if (r < 0)
        return err_prefix(err, r, "cannot listen");
    host = address.host[0] != '\0' ? address.host : "::";
    if (uv_ip4_addr(host, address.port, (struct sockaddr_in *)&sockaddr) < 0 &&
        uv_ip6_addr(host, address.port, (struct sockaddr_in6 *)&sockaddr) < 0)
        return err_set(err, -EINVAL, "cannot listen on \"%s\": not an IP address", text);

    r = listen_on(port, (struct sockaddr *)&sockaddr);
    if ((r == UV_EAFNOSUPPORT || r == UV_EADDRNOTAVAIL) && streq(host, "::")) {
        uv_ip4_addr("0.0.0.0", address.port, (struct sockaddr_in *)&sockaddr); /* A kernel without IPv6. */
        r = listen_on(port, (struct sockaddr *)&sockaddr);
    }
    if (r < 0)
        return err_set(err, r, "cannot listen on %s: %s", text, uv_strerror(r));
    return 0;
}

struct conn *port_dial(struct port *port, const char *address, Fleet__Purpose purpose, uint64_t to_server_id,
                       const struct conn_callbacks *callbacks, void *data)
{
    struct conn *conn = conn_new(port, true);

    conn->callbacks = callbacks;
    conn->data = data;
    conn->purpose = purpose;
    conn->to_server_id = to_server_id;
    if (port->closing)
        conn_shut(conn, "shutting down");
    else if (!port->identity.has_cluster && purpose != FLEET__PURPOSE__PURPOSE_JOIN)
        conn_shut(conn, "this host is in no cluster yet");
    else
        conn_start_dial(conn, address);
    return conn;
}

struct conn *port_dial_join(struct port *port, const char *address, const uint8_t pin[PKI_PIN_SIZE],
                            const struct conn_callbacks *callbacks, void *data)
{
    struct conn *conn = conn_new(port, true);

    conn->callbacks = callbacks;
    conn->data = data;
    conn->purpose = FLEET__PURPOSE__PURPOSE_JOIN;
    tls_credentials_unref(conn->credentials);
    conn->credentials = tls_credentials_new_nobody();
    conn->pinned = true;
    memcpy(conn->pin, pin, PKI_PIN_SIZE);
    port_want_handshaker(port);
    if (port->closing)
        conn_shut(conn, "shutting down");
    else
        conn_start_dial(conn, address);
    return conn;
}

static void on_handle_closed(uv_handle_t *handle)
{
    port_unref(handle->data);
}

void port_end(struct port *port, const char *(*unwanted)(const struct conn *conn, void *data), void *data)
{
    struct conn *conn, *next;

    DL_FOREACH_SAFE (port->conns, conn, next) {
        const char *why = conn->state == CONN_OPEN ? unwanted(conn, data) : NULL;

        if (why != NULL)
            conn_close(conn, why);
    }
}

void port_close(struct port *port, void (*done)(void *data), void *data)
{
    struct conn *conn;
    struct listener *listener;

    assert(!port->closing);
    port->closing = true;
    port->done = done;
    port->done_data = data;
    DL_FOREACH (port->conns, conn) {
        conn_shut(conn, "shutting down");
    }
    LL_FOREACH (port->listeners, listener) {
        if (!uv_is_closing((uv_handle_t *)&listener->tcp))
            uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
    }
    if (port->handshaker != NULL)
        tls_handshaker_close(port->handshaker, on_handshaker_closed, port);
    uv_close((uv_handle_t *)&port->flush, on_handle_closed);
    uv_close((uv_handle_t *)&port->awake, on_handle_closed);
}
