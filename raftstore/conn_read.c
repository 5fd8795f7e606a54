/* SPDX-License-Identifier: Apache-2.0 */
/* What arrives on a connection: bytes from the kernel, through TLS if there is any, to frames. */
#include <config.h>

#include <errno.h>

#include "raftstore/conn.h"

static int on_frame(const uint8_t *bytes, size_t size, void *data)
{
    struct conn *conn = data;

    if (conn->state == CONN_OPEN)
        conn->callbacks->on_message(conn, bytes, size, conn->data);
    else if (conn->state == CONN_GREETING && conn->dialled)
        conn_take_welcome(conn, bytes, size);
    else if (conn->state == CONN_GREETING)
        conn_take_hello(conn, bytes, size);
    return conn->state == CONN_OPEN ? 0 : -ECONNABORTED; /* Nothing more is wanted. */
}

static void conn_read_failed(struct conn *conn, int status)
{
    if (conn->state == CONN_GREETING && !conn->dialled)
        port_log_stranger(conn->port, conn->peer, "went away without a greeting");
    if (status != UV_EOF)
        conn_shut(conn, uv_strerror(status));
    else if (conn->state == CONN_GREETING)
        conn_shut(conn, "closed by the peer before the greeting");
    else
        conn_shut(conn, "closed by the peer");
}

static void conn_not_a_greeting(struct conn *conn)
{
    port_log_stranger(conn->port, conn->peer, "not a fleet daemon");
    conn_shut(conn, "not a fleet greeting");
}

/* The next plain bytes. */
static void conn_take_bytes(struct conn *conn, const uint8_t *bytes, size_t size)
{
    if (frame_reader_feed(&conn->reader, bytes, size, on_frame, conn) != -EMSGSIZE)
        return;
    if (conn->state == CONN_GREETING && conn->dialled)
        conn_shut(conn, "not a fleet greeting");
    else if (conn->state == CONN_GREETING)
        conn_not_a_greeting(conn);
    else
        conn_shut(conn, "a frame over the limit");
}

void conn_read_secure(struct conn *conn, const uint8_t *bytes, size_t size)
{
    struct port *port = conn->port;
    struct err err = {0};
    int r;

    tls_stream_feed(conn->tls, bytes, size);
    do {
        size_t room;
        uint8_t *place = frame_reader_place(&conn->reader, &room);

        if (place == NULL) {
            place = port->plain;
            room = sizeof(port->plain);
        }
        r = tls_stream_read(conn->tls, place, room, &err);
        if (r > 0)
            conn_take_bytes(conn, place, r);
    } while (r > 0 && (conn->state == CONN_GREETING || conn->state == CONN_OPEN));

    tls_stream_feed(conn->tls, NULL, 0);
    if (conn->state != CONN_GREETING && conn->state != CONN_OPEN)
        return;
    if (r == 0) {
        conn_read_failed(conn, UV_EOF);
    } else if (r != -EAGAIN) {
        if (conn->state == CONN_GREETING && !conn->dialled)
            port_log_stranger(port, conn->peer, err.text);
        conn_shut(conn, err.text);
    } else if (tls_stream_pending(conn->tls) > 0) {
        conn_send_pending(conn);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *conn = handle->data;
    size_t size;
    uint8_t *place = frame_reader_place(&conn->reader, &size);

    if (place != NULL && conn->state != CONN_LINGERING && conn->tls == NULL)
        *buf = uv_buf_init((char *)place, size);
    else
        *buf = uv_buf_init(conn->port->inbox, sizeof(conn->port->inbox));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct conn *conn = stream->data;
    const uint8_t *bytes = (const uint8_t *)buf->base;

    if (size < 0)
        conn_read_failed(conn, size);
    else if (size == 0 || conn->state == CONN_LINGERING || conn->state == CONN_CLOSED)
        return;
    else if (conn->tls != NULL)
        conn_read_secure(conn, bytes, size);
    else if (conn_is_first_of_tls(conn, bytes))
        conn_answer_tls(conn);
    else
        conn_take_bytes(conn, bytes, size);
}

int conn_start_reading(struct conn *conn)
{
    return uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
}
