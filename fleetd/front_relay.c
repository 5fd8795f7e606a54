/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/front_private.h"
#include "raftstore/tls_stream.h"

/* 'in' holds what one read can complete, a record that was begun before and those in this chunk, in a buffer
 * that grows by doubling; GnuTLS a record that is not whole; 'out' one chunk, encrypted. */
_Static_assert(2 * (FRONT_CHUNK + TLS_RECORD_MAX) + 2 * (TLS_RECORD_MAX + TLS_RECORD_OVERHEAD) <=
                   FRONT_BUFFERS_MAX,
               "what is on its way in one connection");

/* ---- the end ---- */

static void conn_free(struct front_conn *conn)
{
    assert(conn->handles == 0);
    tls_stream_free(conn->stream);
    free(conn->out.bytes);
    strbuf_done(&conn->in);
    free(conn);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct front_conn *conn = handle->data;

    if (--conn->handles == 0)
        conn_free(conn);
}

static void close_pair(struct front_conn *conn)
{
    if (conn->pair < 0)
        return;
    uv_close((uv_handle_t *)&conn->pair_poll, on_poll_closed);
    close(conn->pair);
    conn->pair = -1;
}

void front_conn_close(struct front_conn *conn)
{
    struct front *front = conn->front;

    if (conn->closing)
        return;
    conn->closing = true;
    DL_DELETE(front->conns, conn);
    front->conn_count--;
    atomic_store(&front->shown, front->conn_count);
    if (conn->handshake != NULL)
        tls_handshake_cancel(TAKE_PTR(conn->handshake));
    close_pair(conn);
    if (conn->state != FRONT_HANDSHAKE)
        uv_close((uv_handle_t *)&conn->poll, on_poll_closed);
    close(conn->fd);
    if (conn->handles == 0)
        conn_free(conn);
}

/* Nothing is left to send: the client reads it to its end, unless it goes on sending. */
static void linger(struct front_conn *conn)
{
    conn->state = FRONT_LINGER;
    conn->deadline_ms = now_ms() + 1000;
    shutdown(conn->fd, SHUT_WR);
}

static void finish(struct front_conn *conn)
{
    conn->state = FRONT_FINISH;
    conn->deadline_ms = now_ms() + FRONT_FINISH_MS;
    tls_stream_end(conn->stream);
}

/* ---- to the client ---- */

/* Returns false if the connection is closed. */
static bool send_out(struct front_conn *conn)
{
    for (;;) {
        ssize_t n;

        if (conn->out.sent == conn->out.size) {
            free(conn->out.bytes);
            conn->out.sent = conn->out.size = 0;
            conn->out.bytes = tls_stream_take(conn->stream, &conn->out.size);
            if (conn->out.bytes == NULL) {
                conn->out.size = 0;
                break;
            }
        }
        n = send(conn->fd, conn->out.bytes + conn->out.sent, conn->out.size - conn->out.sent,
                 MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n < 0) {
            front_conn_close(conn);
            return false;
        }
        conn->out.sent += (size_t)n;
        conn->progress_ms = now_ms();
    }
    if (conn->state == FRONT_FINISH)
        linger(conn);
    return true;
}

static bool has_out(const struct front_conn *conn)
{
    return conn->out.size > 0;
}

static bool read_pair(struct front_conn *conn)
{
    struct front *front = conn->front;
    ssize_t n = recv(conn->pair, front->plain, sizeof front->plain, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        close_pair(conn);
        finish(conn);
    } else if (tls_stream_write(conn->stream, front->plain, (size_t)n, 0, NULL) < 0) {
        front_conn_close(conn);
        return false;
    } else {
        conn->progress_ms = now_ms(); /* From now on it has something to take. */
    }
    return send_out(conn);
}

/* ---- from the client ---- */

static bool send_in(struct front_conn *conn)
{
    while (conn->in_sent < conn->in.size) {
        ssize_t n = send(conn->pair, conn->in.text + conn->in_sent, conn->in.size - conn->in_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n < 0) { /* The HTTP server has closed it. What it said before is still there to be read. */
            conn->in_sent = conn->in.size;
            break;
        }
        conn->in_sent += (size_t)n;
    }
    strbuf_done(&conn->in);
    conn->in_sent = 0;
    if (conn->client_ended) {
        front_conn_close(conn);
        return false;
    }
    return true;
}

static bool read_client(struct front_conn *conn)
{
    struct front *front = conn->front;
    ssize_t n = recv(conn->fd, front->wire, sizeof front->wire, MSG_DONTWAIT);
    struct err err = {0};
    int r = 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        conn->client_ended = true;
        return send_in(conn);
    }
    tls_stream_feed(conn->stream, front->wire, (size_t)n);
    while ((r = tls_stream_read(conn->stream, front->plain, sizeof front->plain, &err)) > 0)
        strbuf_add_bytes(&conn->in, front->plain, (size_t)r);
    if (r == 0) {
        conn->client_ended = true;
    } else if (r != -EAGAIN) {
        log_debug("The connection of %s to the remote API ends: %s", conn->peer.text, err_text(&err, r));
        front_conn_close(conn);
        return false;
    }
    return send_out(conn) && send_in(conn); /* Reading may have had something to say. */
}

/* Whatever the client still sends is for nobody. */
static void drain(struct front_conn *conn)
{
    ssize_t n = recv(conn->fd, conn->front->wire, sizeof conn->front->wire, MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        front_conn_close(conn);
}

/* ---- events ---- */

static void on_client(uv_poll_t *poll, int status, int events);
static void on_pair(uv_poll_t *poll, int status, int events);

static void watch(uv_poll_t *poll, int events, uv_poll_cb callback)
{
    if (events == 0)
        uv_poll_stop(poll);
    else
        uv_poll_start(poll, events, callback);
}

/* Waits for exactly what can go on: no side is read from while the other does not take what is there. */
static void arm(struct front_conn *conn)
{
    bool reads = conn->state == FRONT_LINGER ||
                 (conn->state == FRONT_RELAY && !conn->client_ended && conn->in.size == 0);

    watch(&conn->poll, (reads ? UV_READABLE : 0) | (has_out(conn) ? UV_WRITABLE : 0), on_client);
    if (conn->pair >= 0)
        watch(&conn->pair_poll, (has_out(conn) ? 0 : UV_READABLE) | (conn->in.size > 0 ? UV_WRITABLE : 0),
              on_pair);
}

static void on_client(uv_poll_t *poll, int status, int events)
{
    struct front_conn *conn = poll->data;

    if (conn->closing)
        return;
    if (conn->state == FRONT_LINGER) {
        drain(conn);
        return;
    }
    if (status < 0)
        events = UV_READABLE | UV_WRITABLE; /* The socket says what it is. */
    if ((events & UV_WRITABLE) != 0 && !send_out(conn))
        return;
    if ((events & UV_READABLE) != 0 && conn->state == FRONT_RELAY && !read_client(conn))
        return;
    arm(conn);
}

static void on_pair(uv_poll_t *poll, int status, int events)
{
    struct front_conn *conn = poll->data;

    if (conn->closing || conn->pair < 0)
        return;
    if (status < 0)
        events = UV_READABLE | UV_WRITABLE;
    if ((events & UV_WRITABLE) != 0 && !send_in(conn))
        return;
    if ((events & UV_READABLE) != 0 && !read_pair(conn))
        return;
    arm(conn);
}

void front_conn_sweep(struct front_conn *conn, uint64_t now, uint64_t wall)
{
    const char *why = NULL;

    if (conn->state == FRONT_HANDSHAKE)
        return; /* It has a time limit of its own. */
    if (conn->state != FRONT_RELAY && now >= conn->deadline_ms)
        why = "it does not take what is left";
    else if (has_out(conn) && now - conn->progress_ms >= FRONT_STALL_MS)
        why = "it does not read";
    else if (wall >= conn->ends_wall_ms)
        why = "its certificate has ended";
    if (why == NULL)
        return;
    log_debug("The connection of %s to the remote API is cut off: %s", conn->peer.text, why);
    front_conn_close(conn);
}

void front_relay_begin(struct front_conn *conn)
{
    struct front *front = conn->front;
    struct front_guest *guest = NEW0(struct front_guest);
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        log_warn("A client of the remote API is turned away: no socket is left (%m)");
        free(guest);
        front_conn_close(conn);
        return;
    }
    conn->state = FRONT_RELAY;
    conn->pair = pair[0];
    conn->poll.data = conn->pair_poll.data = conn;
    if (uv_poll_init(&front->own, &conn->poll, conn->fd) < 0 ||
        uv_poll_init(&front->own, &conn->pair_poll, conn->pair) < 0)
        abort(); /* Both are sockets; only memory can be missing. */
    conn->handles = 2;
    guest->fd = pair[1];
    guest->peer = conn->peer;
    front_report(front, guest);
    arm(conn);
}
