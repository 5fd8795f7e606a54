/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves on a connection: frames are queued, and all that was queued in one turn of the loop leaves
 * together, through TLS if there is any. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/conn.h"

#define BLOCK_SIZE       (16u * 1024) /* Small frames share a block; one fills a TLS record. */
#define BLOCKS_PER_WRITE 64u
#define TLS_FLUSH_SIZE   (256u * 1024)
#define TLS_PENDING_MAX  (64u * 1024)

static void blocks_free(struct block *block)
{
    struct block *next;

    for (; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
}

void conn_drop_queue(struct conn *conn)
{
    blocks_free(conn->queue); /* What is being written belongs to libuv until on_written. */
    conn->queue = conn->queue_last = NULL;
    conn->queued = 0;
}

static bool is_writing(const struct conn *conn)
{
    return conn->writing != NULL || conn->writing_records != NULL;
}

size_t conn_queued(const struct conn *conn)
{
    return conn->queued +
           (is_writing(conn) ? uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp) : 0);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct conn *conn = request->data;

    if (status < 0)
        conn_shut(conn, "lingered");
}

/* The last byte is with the kernel. A close() now could turn into a reset that overtakes it; so say that
 * nothing more comes, and wait, a while, for the peer to close. */
static void conn_end_output(struct conn *conn)
{
    if (conn->shut)
        return;
    conn->shut = true;
    conn->shutdown.data = conn;
    if (uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown) < 0)
        conn_shut(conn, "lingered");
}

static void conn_written(struct conn *conn)
{
    blocks_free(conn->writing);
    conn->writing = NULL;
    free(conn->writing_records);
    conn->writing_records = NULL;
}

static void on_written(uv_write_t *request, int status)
{
    struct conn *conn = request->data;

    conn_written(conn);
    if (conn->state == CONN_CLOSED)
        return;
    if (status < 0) {
        conn_shut(conn, uv_strerror(status));
        return;
    }
    conn_flush(conn);
    if (conn->state == CONN_OPEN && conn_queued(conn) == 0 && conn->callbacks->on_drain != NULL)
        conn->callbacks->on_drain(conn, conn->data);
}

/* Takes up to BLOCKS_PER_WRITE blocks off the queue. */
static unsigned take_blocks(struct conn *conn, uv_buf_t bufs[BLOCKS_PER_WRITE])
{
    struct block *block, *last = NULL;
    unsigned n = 0;

    conn->writing = conn->queue;
    for (block = conn->queue; block != NULL && n < BLOCKS_PER_WRITE; block = block->next) {
        bufs[n++] = uv_buf_init(block->bytes, block->size);
        conn->queued -= block->size;
        last = block;
    }
    last->next = NULL;
    conn->queue = block;
    if (block == NULL)
        conn->queue_last = NULL;
    return n;
}

/* Takes up to TLS_FLUSH_SIZE bytes off the queue, encrypted: not more than the kernel is likely to take at
 * once, and what the loop does in a fraction of a millisecond. */
static int take_records(struct conn *conn, uv_buf_t *buf, struct err *err)
{
    size_t left = conn->queued < TLS_FLUSH_SIZE ? conn->queued : TLS_FLUSH_SIZE, size;
    int r = 0;

    while (left > 0 && r == 0) {
        struct block *block = conn->queue;
        size_t n = block->size - block->sent < left ? block->size - block->sent : left;

        left -= n;
        r = tls_stream_write(conn->tls, block->bytes + block->sent, n, left, err);
        block->sent += n;
        conn->queued -= n;
        if (block->sent < block->size)
            continue;
        conn->queue = block->next;
        if (conn->queue == NULL)
            conn->queue_last = NULL;
        free(block);
    }
    if (conn->queue == NULL && conn->state == CONN_LINGERING && !conn->tls_ended) {
        conn->tls_ended = true;
        tls_stream_end(conn->tls);
    }
    conn->writing_records = tls_stream_take(conn->tls, &size);
    *buf = uv_buf_init((char *)conn->writing_records, size);
    return r;
}

static unsigned take_output(struct conn *conn, uv_buf_t bufs[BLOCKS_PER_WRITE], struct err *err)
{
    if (conn->tls != NULL && take_records(conn, &bufs[0], err) == 0)
        return conn->writing_records != NULL ? 1 : 0;
    return conn->tls == NULL && conn->queue != NULL ? take_blocks(conn, bufs) : 0;
}

void conn_flush(struct conn *conn)
{
    uv_buf_t bufs[BLOCKS_PER_WRITE];
    struct err err = {0};
    unsigned n;
    int r;

    if (is_writing(conn) || conn->state == CONN_CLOSED)
        return;
    n = take_output(conn, bufs, &err);
    if (err.text[0] != '\0') {
        conn_written(conn);
        conn_shut(conn, err.text);
        return;
    }
    if (n == 0) {
        if (conn->state == CONN_LINGERING)
            conn_end_output(conn);
        return;
    }
    conn->write.data = conn;
    r = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, bufs, n, on_written);
    if (r < 0) {
        conn_written(conn);
        conn_shut(conn, uv_strerror(r));
    }
}

/* Records that reading has caused (KeyUpdate). GnuTLS lets a peer ask for a few per second; one that does,
 * and reads nothing, is not to fill our memory. */
void conn_send_pending(struct conn *conn)
{
    if (tls_stream_pending(conn->tls) > TLS_PENDING_MAX)
        conn_shut(conn, "the peer reads too slowly");
    else
        port_mark_dirty(conn->port, conn);
}

static struct block *block_new(size_t need)
{
    size_t capacity = need > BLOCK_SIZE ? need : BLOCK_SIZE;
    struct block *block = xmalloc(sizeof(*block) + capacity);

    block->next = NULL;
    block->size = block->sent = 0;
    block->capacity = capacity;
    return block;
}

/* Room for 'size' bytes behind what is queued. */
static uint8_t *conn_queue_room(struct conn *conn, size_t size)
{
    struct block *block = conn->queue_last;
    uint8_t *room;

    if (block == NULL || block->capacity - block->size < size) {
        block = block_new(size);
        if (conn->queue_last != NULL)
            conn->queue_last->next = block;
        else
            conn->queue = block;
        conn->queue_last = block;
    }
    room = (uint8_t *)block->bytes + block->size;
    block->size += size;
    conn->queued += size;
    port_mark_dirty(conn->port, conn);
    return room;
}

void conn_queue_frame(struct conn *conn, const void *bytes, size_t size)
{
    uint8_t *room = conn_queue_room(conn, FRAME_HEADER_SIZE + size);

    frame_header_put(room, size);
    if (size > 0)
        memcpy(room + FRAME_HEADER_SIZE, bytes, size);
}

void conn_queue_bytes(struct conn *conn, const void *bytes, size_t size)
{
    memcpy(conn_queue_room(conn, size), bytes, size);
}

int conn_send(struct conn *conn, const void *bytes, size_t size)
{
    if (conn->state != CONN_OPEN)
        return -ENOTCONN;
    if (size > FRAME_MAX)
        return -EMSGSIZE;
    if (conn_queued(conn) + FRAME_HEADER_SIZE + size > CONN_QUEUE_MAX) {
        conn_shut(conn, "the peer reads too slowly");
        return -ENOBUFS;
    }
    conn_queue_frame(conn, bytes, size);
    return 0;
}

void conn_close(struct conn *conn, const char *reason)
{
    if (conn->state == CONN_LINGERING || conn->state == CONN_CLOSED)
        return;
    if (conn_queued(conn) == 0 ||
        (conn->state != CONN_OPEN && (conn->state != CONN_GREETING || conn->dialled))) {
        conn_shut(conn, reason);
        return;
    }
    conn->reason = xstrdup(reason);
    conn_move(conn, CONN_LINGERING);
    conn_start_timer(conn, PORT_LINGER_MS);
    port_mark_dirty(conn->port, conn);
}
