/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the cluster port: what port.c (listening, accepting, counting) and conn*.c (one connection) share.
 * For nobody else.
 *
 *      from                 to
 *      RESOLVING            CONNECTING, CLOSED
 *      CONNECTING           HANDSHAKING (TLS), GREETING (plain), CLOSED
 *      HANDSHAKING          GREETING, CLOSED
 *      GREETING             OPEN, LINGERING (a refusal leaves), CLOSED
 *      OPEN                 LINGERING (queued bytes leave), CLOSED
 *      LINGERING            CLOSED
 *
 * In CLOSED the handles are being closed; when the last one is, on_close is called and the conn is freed
 * (after a resolver that cannot be cancelled has come back). */
#pragma once

#include <netdb.h>

#include "raftstore/address.h"
#include "raftstore/frame.h"
#include "raftstore/limits.h"
#include "raftstore/port.h"
#include "raftstore/tls_handshake.h"

#define PORT_PEER_MAX 64u /* Bytes of "[IPv6%scope]:port" and a NUL. */

enum conn_state {
    CONN_RESOLVING,
    CONN_CONNECTING,
    CONN_HANDSHAKING,
    CONN_GREETING,
    CONN_OPEN,
    CONN_LINGERING,
    CONN_CLOSED,
    CONN_STATES,
};

enum handle_state { HANDLE_NONE, HANDLE_OPEN, HANDLE_CLOSING };

/* Frames on their way out, packed one after the other. */
struct block {
    struct block *next;
    size_t size, capacity;
    size_t sent; /* By TLS, which takes them in pieces. */
    char bytes[];
};

struct conn {
    struct port *port;
    struct conn *prev, *next;               /* In port->conns. */
    struct conn *next_dirty;                /* In port->dirty. */
    const struct conn_callbacks *callbacks; /* NULL until accepted. */
    void *data;
    enum conn_state state;
    bool dialled, counted /* in port->handshakes */, dirty, shut, finished;
    bool is_ours; /* The one who dialled is of our cluster. */

    Fleet__Purpose purpose;
    uint64_t to_server_id, peer_server_id;
    char peer[ADDRESS_MAX + 1];
    char *reason;
    int handshake_error; /* conn_handshake_error() */
    Fleet__Welcome *refusal;

    uv_tcp_t tcp;
    enum handle_state tcp_state;
    uv_timer_t timer; /* Of what is going on: resolving, connecting, greeting, lingering. */
    enum handle_state timer_state;
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    uv_getaddrinfo_t resolve;
    bool resolving;
    struct addrinfo *addresses, *address; /* What the resolver gave, and the one to try next. */
    struct addrinfo literal;              /* Stands in for the resolver's if the host is an IP address. */
    struct sockaddr_storage literal_address;

    struct tls_credentials *credentials; /* NULL: plain. */
    bool pinned;
    uint8_t pin[PKI_PIN_SIZE];
    struct tls_handshake *handshake; /* While HANDSHAKING... */
    struct tls_stream *tls;          /* ...and after it. */
    bool tls_ended;
    bool peer_proved;          /* It has, in its greeting... */
    struct pki_info proved_by; /* ...by the key of this authority. */
    struct pki_info peer_info; /* name.kind PKI_NOBODY: of nobody. */

    struct frame_reader reader;

    struct block *queue, *queue_last; /* Not yet given to libuv... */
    struct block *writing;            /* ...and given to it, by one uv_write() at a time; */
    uint8_t *writing_records;         /* with TLS, what has become of them. */
    size_t queued;                    /* Bytes in 'queue'. */
    uv_write_t write;
};

struct listener {
    struct listener *next;
    struct port *port;
    uv_tcp_t tcp;
};

struct port {
    uv_loop_t *loop;
    struct port_identity identity;
    struct port_callbacks callbacks;
    void *data;
    uint64_t greeting_ms;
    struct tls_credentials *credentials; /* Of new connections. NULL: plain. */
    struct tls_handshaker *handshaker;   /* NULL: no TLS so far. */

    struct listener *listeners;
    char listening[PORT_PEER_MAX];
    struct conn *conns;
    unsigned handshakes; /* Accepted, peer not known yet. */

    uv_prepare_t flush; /* Runs just before the loop sleeps, while 'dirty' is not empty... */
    uv_idle_t awake;    /* ...and until then it does not. */
    struct conn *dirty;

    uint64_t stranger_log_ms;
    unsigned strangers_unlogged;

    unsigned refs; /* Connections, listeners, 'flush', 'awake', 'handshaker'. */
    bool closing;
    void (*done)(void *data);
    void *done_data;

    char inbox[64 * 1024];         /* Where reads land that belong to no started frame... */
    uint8_t plain[TLS_RECORD_MAX]; /* ...and what TLS makes of them. */
};

/* In port.c. */
void port_unref(struct port *port);
void port_mark_dirty(struct port *port, struct conn *conn);
void port_log_stranger(struct port *port, const char *peer, const char *what);
void port_format_peer(const struct sockaddr *address, char peer[PORT_PEER_MAX]);

/* In conn.c: how it begins and ends. */
struct conn *conn_new(struct port *port, bool dialled);
void conn_start_dial(struct conn *conn, const char *address);
void conn_start_accepted(struct conn *conn, uv_stream_t *listener);
int conn_start_greeting(struct conn *conn);
void conn_move(struct conn *conn, enum conn_state to);
void conn_start_timer(struct conn *conn, uint64_t ms);
void conn_uncount(struct conn *conn);                  /* It is known who that is. */
void conn_shut(struct conn *conn, const char *reason); /* At once, nothing is flushed. */

/* In conn_secure.c: TLS. */
int conn_start_handshake(struct conn *conn);
bool conn_is_first_of_tls(const struct conn *conn, const uint8_t *bytes); /* To one who talks none. */
void conn_answer_tls(struct conn *conn);

/* In conn_greet.c: the first words. */
void conn_send_hello(struct conn *conn);
void conn_take_hello(struct conn *conn, const uint8_t *bytes, size_t size);
void conn_take_welcome(struct conn *conn, const uint8_t *bytes, size_t size);
void conn_refuse(struct conn *conn, const char *text, const char *leader_address);

/* In conn_read.c. */
int conn_start_reading(struct conn *conn);
void conn_read_secure(struct conn *conn, const uint8_t *bytes, size_t size);

/* In conn_write.c. */
void conn_queue_frame(struct conn *conn, const void *bytes, size_t size);
void conn_queue_bytes(struct conn *conn, const void *bytes, size_t size); /* As they are, no frame. */
void conn_send_pending(struct conn *conn);
void conn_flush(struct conn *conn);
void conn_drop_queue(struct conn *conn);
