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
#include "base/str.h"
#include "base/times.h"
#include "fleetd/front_private.h"
#include "fleetd/messages.h"

#define ACCEPTS_PER_TURN 32u /* Then what is open has its turn. */

static const struct tls_protocol protocols[] = {{"http/1.1", TLS_DEMAND_CERTIFICATE}};

/* ---- whom we do not let in ---- */

static void note_turned_away(struct front *front, const struct front_conn *conn, const char *why)
{
    _cleanup_(freep) char *peer = NULL, *reason = NULL, *left = NULL;
    uint64_t left_out;

    if (!audit_allows(&front->turned_away, now_ms(), &left_out))
        return;
    peer = xasprintf("FLEET_PEER=%s", conn->peer.text);
    reason = xasprintf("FLEET_REASON=%s", why);
    left = left_out > 0 ? xasprintf(" (%llu more before it were not written)", (unsigned long long)left_out)
                        : xstrdup("");
    log_message(LOG_NOTICE, log_fields(MESSAGE_API_TURNED_AWAY, peer, reason),
                "A client at %s was turned away from the remote API: %s%s", conn->peer.text, why, left);
}

/* Whoever speaks HTTP without TLS reads why it does not work. */
static void answer_plain(const struct front_conn *conn)
{
    static const char answer[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
        "This is the API of fleet over TLS: use https, with a client's certificate.\n";

    (void)send(conn->fd, answer, sizeof answer - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(conn->fd, SHUT_WR);
}

static void on_handshake(struct tls_result *result, void *data)
{
    struct front_conn *conn = data;

    conn->handshake = NULL;
    if (result->r < 0) {
        if (result->r == -EPROTONOSUPPORT && result->first_byte >= 'A' && result->first_byte <= 'Z')
            answer_plain(conn);
        note_turned_away(conn->front, conn, result->text);
        front_conn_close(conn);
        return;
    }
    conn->stream = TAKE_PTR(result->stream);
    conn->ends_wall_ms = result->peer->not_after_ms;
    access_from_certificate(result->peer, &conn->peer.caller);
    front_relay_begin(conn);
}

/* ---- counting ---- */

/* If as many of this network as may be have not shown a certificate, one of them goes, not who comes: that
 * may be somebody else behind the same address, and who means it is done in milliseconds. */
static void make_room(struct front *front, const struct origin *origin)
{
    struct front_conn *unknown[FRONT_HANDSHAKES_PER_ADDRESS_MAX], *conn;
    struct origin origins[FRONT_HANDSHAKES_PER_ADDRESS_MAX];
    size_t count = 0;

    DL_FOREACH (front->conns, conn)
        if (conn->state == FRONT_HANDSHAKE && origin_same_network(&conn->origin, origin)) {
            assert(count < ARRAY_SIZE(unknown));
            origins[count] = conn->origin;
            unknown[count++] = conn;
        }
    if (count < ARRAY_SIZE(unknown))
        return;
    conn = unknown[origin_of_crowd(origins, count)];
    note_turned_away(front, conn,
                     "there are too many connections of its address that have not shown a certificate");
    front_conn_close(conn);
}

/* Whether one more of this address may come; NULL: it may, otherwise why not. */
static const char *refusal(const struct front *front, const struct origin *origin)
{
    unsigned of_address = 0;
    const struct front_conn *conn;

    if (front->credentials == NULL)
        return "this host has no certificate yet";
    if (front->conn_count >= FRONT_CONNECTIONS_MAX)
        return "there are too many connections";
    DL_FOREACH (front->conns, conn)
        of_address += origin_same_network(&conn->origin, origin);
    return of_address >= FRONT_PER_ADDRESS_MAX ? "there are too many connections of its address" : NULL;
}

/* ---- accepting ---- */

static void take_in(struct front *front, int fd, const struct sockaddr_storage *from)
{
    struct front_conn *conn = NEW0(struct front_conn);
    struct tls_options options = {.credentials = front->credentials,
                                  .protocols = protocols,
                                  .protocol_count = ARRAY_SIZE(protocols),
                                  .protocol_optional = true,
                                  .take = TLS_TAKE_MACHINES | TLS_TAKE_CLIENTS,
                                  .timeout_ms = FRONT_HANDSHAKE_MS};
    const char *why;
    int r;

    conn->front = front;
    conn->fd = fd;
    conn->pair = -1;
    conn->origin = origin_of((const struct sockaddr *)from);
    conn->progress_ms = now_ms();
    peer_address_text(from, conn->peer.text);
    make_room(front, &conn->origin);
    why = refusal(front, &conn->origin);
    r = why == NULL
            ? tls_handshake_start(front->handshaker, fd, &options, on_handshake, conn, &conn->handshake)
            : 0;
    if (r < 0)
        why = strerror(-r);
    if (why != NULL) {
        note_turned_away(front, conn, why);
        close(fd);
        free(conn);
        return;
    }
    DL_APPEND(front->conns, conn);
    front->conn_count++;
    atomic_store(&front->shown, front->conn_count);
    front_sweep_start(front);
}

static void on_accept(uv_poll_t *poll, int status, int events)
{
    struct front_listener *listener = poll->data;

    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd = accept4(listener->fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            take_in(listener->front, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            uv_poll_stop(poll); /* It stays readable. */
            listener->paused = true;
            front_sweep_start(listener->front);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

void front_listener_resume(struct front_listener *listener)
{
    if (listener->paused)
        uv_poll_start(&listener->poll, UV_READABLE, on_accept);
    listener->paused = false;
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void front_listener_add(struct front *front, int fd)
{
    struct front_listener *listener = NEW0(struct front_listener);

    listener->front = front;
    listener->fd = fd;
    listener->poll.data = listener;
    if (uv_poll_init(&front->own, &listener->poll, fd) < 0) {
        log_error("The remote API cannot be served on a socket: it cannot be watched");
        close(fd);
        free(listener);
        return;
    }
    uv_poll_start(&listener->poll, UV_READABLE, on_accept);
    DL_APPEND(front->listeners, listener);
}

void front_listener_close(struct front_listener *listener)
{
    DL_DELETE(listener->front->listeners, listener);
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
    close(listener->fd);
}
