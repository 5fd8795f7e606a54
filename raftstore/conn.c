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
#include "base/log.h"
#include "raftstore/greeting.h"

#define USER_TIMEOUT_MS  10000 /* Sent bytes that nobody acknowledges for so long: the peer is gone. */
#define KEEPALIVE_S      10
#define BLOCK_SIZE       (16u * 1024) /* Small frames share a block. */
#define BLOCKS_PER_WRITE 64u

static const bool moves[CONN_STATES][CONN_STATES] = {
    [CONN_RESOLVING] = {[CONN_CONNECTING] = true, [CONN_CLOSED] = true},
    [CONN_CONNECTING] = {[CONN_GREETING] = true, [CONN_CLOSED] = true},
    [CONN_GREETING] = {[CONN_OPEN] = true, [CONN_LINGERING] = true, [CONN_CLOSED] = true},
    [CONN_OPEN] = {[CONN_LINGERING] = true, [CONN_CLOSED] = true},
    [CONN_LINGERING] = {[CONN_CLOSED] = true},
};

static void conn_move(struct conn *conn, enum conn_state to)
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

static void conn_uncount(struct conn *conn)
{
    if (conn->counted)
        conn->port->handshakes--;
    conn->counted = false;
}

static void blocks_free(struct block *block)
{
    struct block *next;

    for (; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
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
    blocks_free(conn->queue); /* 'writing' belongs to libuv until on_written. */
    conn->queue = conn->queue_last = NULL;
    conn->queued = 0;
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
    case CONN_OPEN:
    case CONN_CLOSED:
    case CONN_STATES: assert(false); break;
    }
}

static void conn_start_timer(struct conn *conn, uint64_t ms)
{
    uv_timer_start(&conn->timer, on_timeout, ms, 0);
}

/* ---- Writing ---- */

size_t conn_queued(const struct conn *conn)
{
    return conn->queued +
           (conn->writing != NULL ? uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp) : 0);
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

static void on_written(uv_write_t *request, int status)
{
    struct conn *conn = request->data;

    blocks_free(conn->writing);
    conn->writing = NULL;
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

void conn_flush(struct conn *conn)
{
    uv_buf_t bufs[BLOCKS_PER_WRITE];
    unsigned n;
    int r;

    if (conn->writing != NULL || conn->state == CONN_CLOSED)
        return;
    if (conn->queue == NULL) {
        if (conn->state == CONN_LINGERING)
            conn_end_output(conn);
        return;
    }
    n = take_blocks(conn, bufs);
    conn->write.data = conn;
    r = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, bufs, n, on_written);
    if (r < 0) {
        blocks_free(conn->writing);
        conn->writing = NULL;
        conn_shut(conn, uv_strerror(r));
    }
}

static struct block *block_new(size_t need)
{
    size_t capacity = need > BLOCK_SIZE ? need : BLOCK_SIZE;
    struct block *block = xmalloc(sizeof(*block) + capacity);

    block->next = NULL;
    block->size = 0;
    block->capacity = capacity;
    return block;
}

static void conn_queue_frame(struct conn *conn, const void *bytes, size_t size)
{
    struct block *block = conn->queue_last;
    size_t need = FRAME_HEADER_SIZE + size;

    if (block == NULL || block->capacity - block->size < need) {
        block = block_new(need);
        if (conn->queue_last != NULL)
            conn->queue_last->next = block;
        else
            conn->queue = block;
        conn->queue_last = block;
    }
    frame_header_put((uint8_t *)block->bytes + block->size, size);
    if (size > 0)
        memcpy(block->bytes + block->size + FRAME_HEADER_SIZE, bytes, size);
    block->size += need;
    conn->queued += need;
    port_mark_dirty(conn->port, conn);
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

/* ---- The greeting ---- */

static void conn_open(struct conn *conn)
{
    conn_move(conn, CONN_OPEN);
    conn_uncount(conn);
    uv_timer_stop(&conn->timer);
    conn->reader.limit = FRAME_MAX;
}

static void conn_send_welcome(struct conn *conn, bool accepted, const char *reason,
                              const char *leader_address)
{
    size_t size;
    _cleanup_(freep) uint8_t *bytes =
        greeting_pack_welcome(&conn->port->identity, conn->is_ours, accepted, reason, leader_address, &size);

    conn_queue_frame(conn, bytes, size);
}

static void conn_refuse(struct conn *conn, const char *text, const char *leader_address)
{
    log_debug("refused %s: %s", conn->peer, text);
    conn_send_welcome(conn, false, text, leader_address);
    conn_close(conn, text);
}

/* Before the peer hears anything: what follows from it may end this process. */
static void conn_look_at_history(struct conn *conn, uint64_t recoveries, const ProtobufCBinaryData *id,
                                 const char *machine_id)
{
    const struct port *port = conn->port;
    struct cluster_history history;

    if (port->callbacks.on_later_history != NULL &&
        greeting_shows_later(&port->identity, recoveries, id, &history))
        port->callbacks.on_later_history(&history, machine_id, port->data);
}

/* A peer has said Hello: hears whether it is welcome. */
static void conn_take_hello(struct conn *conn, const uint8_t *bytes, size_t size)
{
    struct port *port = conn->port;
    const struct conn_callbacks *callbacks = NULL;
    char leader_address[ADDRESS_MAX + 1] = "";
    Fleet__Hello *hello = fleet__hello__unpack(NULL, size, bytes);
    struct err err = {0};
    void *data = NULL;
    int r;

    r = hello == NULL ? -EBADMSG : greeting_check_hello(&port->identity, hello, &err);
    conn->is_ours = r != -EBADMSG && greeting_is_of_cluster(&port->identity, hello);
    if (conn->is_ours)
        conn_look_at_history(conn, hello->recoveries, &hello->history, hello->machine_id);
    if (r == -EBADMSG) {
        port_log_stranger(port, conn->peer, "not a fleet daemon");
        conn_shut(conn, "not a fleet greeting");
    } else if (r < 0) {
        port_log_stranger(port, conn->peer, err_text(&err, r));
        conn_refuse(conn, err_text(&err, r), "");
    } else {
        conn->purpose = hello->purpose;
        conn->peer_server_id = hello->server_id;
        r = port->callbacks.on_accept(conn, hello, &callbacks, &data, leader_address, &err, port->data);
        leader_address[ADDRESS_MAX] = '\0';
        if (r == 0 && callbacks == NULL)
            r = err_set(&err, -EAGAIN, "not ready, try again");
        if (r == 0) { /* Also if the owner has closed it meanwhile: then on_close comes. */
            conn->callbacks = callbacks;
            conn->data = data;
        }
        if (r == 0 && conn->state == CONN_GREETING) {
            conn_send_welcome(conn, true, "", "");
            conn_open(conn);
            if (callbacks->on_accepted != NULL)
                callbacks->on_accepted(conn, data);
        } else if (conn->state == CONN_GREETING) {
            conn_refuse(conn, err_text(&err, r), leader_address);
        }
    }
    if (hello != NULL)
        fleet__hello__free_unpacked(hello, NULL);
}

static void conn_take_welcome(struct conn *conn, const uint8_t *bytes, size_t size)
{
    Fleet__Welcome *welcome = fleet__welcome__unpack(NULL, size, bytes);
    struct err err = {0};

    if (welcome == NULL) {
        conn_shut(conn, "the other side is not a fleet daemon");
        return;
    }
    conn_look_at_history(conn, welcome->recoveries, &welcome->history, welcome->machine_id);
    if (greeting_check_welcome(welcome, conn->to_server_id, &err) < 0) {
        if (!welcome->accepted)
            conn->refusal = TAKE_PTR(welcome);
        conn_shut(conn, err.text);
    } else {
        conn->peer_server_id = welcome->server_id;
        conn_open(conn);
        if (conn->callbacks->on_open != NULL)
            conn->callbacks->on_open(conn, welcome, conn->data);
    }
    if (welcome != NULL)
        fleet__welcome__free_unpacked(welcome, NULL);
}

/* ---- Reading ---- */

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

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *conn = handle->data;
    size_t size;
    uint8_t *place = frame_reader_place(&conn->reader, &size);

    if (place != NULL && conn->state != CONN_LINGERING)
        *buf = uv_buf_init((char *)place, size);
    else
        *buf = uv_buf_init(conn->port->inbox, sizeof(conn->port->inbox));
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

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct conn *conn = stream->data;

    if (size < 0) {
        conn_read_failed(conn, size);
        return;
    }
    if (size == 0 || conn->state == CONN_LINGERING || conn->state == CONN_CLOSED)
        return;
    if (frame_reader_feed(&conn->reader, (const uint8_t *)buf->base, size, on_frame, conn) != -EMSGSIZE)
        return;
    if (conn->state == CONN_GREETING && !conn->dialled)
        port_log_stranger(conn->port, conn->peer, "not a fleet daemon");
    conn_shut(conn, conn->state == CONN_GREETING ? "not a fleet greeting" : "a frame over the limit");
}

/* ---- The beginning ---- */

struct conn *conn_new(struct port *port, bool dialled)
{
    struct conn *conn = NEW0(struct conn);

    conn->port = port;
    conn->dialled = dialled;
    conn->state = dialled ? CONN_RESOLVING : CONN_GREETING;
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

static int conn_start_greeting(struct conn *conn)
{
    conn_set_options(conn);
    conn_start_timer(conn, conn->port->greeting_ms);
    return uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
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
        r = conn_start_greeting(conn);
    }
    if (r < 0)
        conn_shut(conn, uv_strerror(r));
}

static void conn_send_hello(struct conn *conn)
{
    size_t size;
    _cleanup_(freep) uint8_t *bytes =
        greeting_pack_hello(&conn->port->identity, conn->purpose, conn->to_server_id, &size);

    conn_queue_frame(conn, bytes, size);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct conn *conn = request->data;

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
    conn_move(conn, CONN_GREETING);
    if (conn_start_greeting(conn) < 0)
        conn_shut(conn, "cannot read from the connection");
    else
        conn_send_hello(conn);
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

const char *conn_peer(const struct conn *conn)
{
    return conn->peer;
}

uint64_t conn_peer_server_id(const struct conn *conn)
{
    return conn->peer_server_id;
}
