/* SPDX-License-Identifier: Apache-2.0 */
/* What the front's sources share: front.c (the daemon's side, and the thread's life), front_accept.c (who is
 * let in), front_relay.c (one connection that was). All of this is the thread's, but for what is said to be
 * the daemon's, or under the lock. */
#pragma once

#include <stdatomic.h>

#include "base/origin.h"
#include "base/str.h"
#include "fleetd/audit.h"
#include "fleetd/front.h"
#include "raftstore/tls_handshake.h"

struct front_command {
    enum { FRONT_ADD, FRONT_REMOVE, FRONT_CREDENTIALS, FRONT_STOP } kind;
    int fd;
    struct tls_credentials *credentials;
    struct front_command *prev, *next;
};

struct front_guest { /* Let in, on the way to the daemon. */
    int fd;
    struct peer peer;
    struct front_guest *prev, *next;
};

struct front_listener {
    struct front *front;
    int fd;
    uv_poll_t poll;
    bool paused; /* No descriptors were left: until the next sweep. */
    struct front_listener *prev, *next;
};

/*      HANDSHAKE --> RELAY --the HTTP server ends it--> FINISH --sent--> LINGER --> closed
 *          '-----------+----- broken, refused, too slow, the client ends it ----------^      */
enum front_state { FRONT_HANDSHAKE, FRONT_RELAY, FRONT_FINISH, FRONT_LINGER };

struct front_conn {
    struct front *front;
    enum front_state state;
    bool closing;
    int fd, pair; /* The client's socket; our side of the socket pair, -1: not yet, or no more. */
    struct origin origin;
    struct peer peer;
    struct tls_handshake *handshake; /* HANDSHAKE */
    struct tls_stream *stream;       /* From RELAY on. */
    uint64_t ends_wall_ms;           /* The client's certificate. */
    uint64_t deadline_ms;            /* FINISH, LINGER: then it is cut off. */
    uint64_t progress_ms;            /* When something was sent to the client last. */
    uv_poll_t poll, pair_poll;
    unsigned handles;
    struct {
        uint8_t *bytes;
        size_t size, sent;
    } out;             /* For the client, encrypted. */
    struct strbuf in;  /* For the HTTP server, plain... */
    size_t in_sent;    /* ...of which so much was taken. */
    bool client_ended; /* It sends nothing any more. */
    struct front_conn *prev, *next;
};

struct front {
    /* The daemon's. */
    uv_loop_t *loop;
    uv_async_t reports;
    front_arrival *on_arrival;
    void *data;
    bool closing;
    void (*done)(void *data);
    void *done_data;

    uv_mutex_t lock;
    struct front_command *commands;
    struct front_guest *guests;
    bool ended;

    atomic_uint shown; /* How many connections there are. */

    uv_thread_t thread;
    uv_loop_t own;
    uv_async_t wake;
    uv_timer_t sweep;
    bool sweeping, stopping;
    struct tls_handshaker *handshaker;
    struct tls_credentials *credentials; /* NULL: none yet. */
    struct front_listener *listeners;
    struct front_conn *conns;
    unsigned conn_count;
    struct audit_budget turned_away;
    uint8_t wire[FRONT_CHUNK], plain[FRONT_CHUNK];
};

/* front.c */
void front_report(struct front *front, struct front_guest *guest);
void front_sweep_start(struct front *front);

/* front_accept.c */
void front_listener_add(struct front *front, int fd);
void front_listener_close(struct front_listener *listener);
void front_listener_resume(struct front_listener *listener);

/* front_relay.c. The connection has shown who it is. */
void front_relay_begin(struct front_conn *conn);
void front_conn_sweep(struct front_conn *conn, uint64_t now_ms, uint64_t wall_ms);
void front_conn_close(struct front_conn *conn); /* At once. It is freed later. */
