/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the HTTP server share; nobody else includes this.
 *
 *      http.c          the server: its settings, whom it serves, its end
 *      http_pump.c     one libmicrohttpd for each listening socket, run by our loop
 *      http_client.c   who is connected, and takes too long
 *      http_request.c  a request on its way in, from its first line to the handler
 *      http_answer.c   its answer, now or later, and whether somebody still waits for it
 *
 * Whatever holds a handle of libuv counts it in server->handles; the last one to be closed frees the server.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <microhttpd.h>
#include <uthash.h>
#include <uv.h>

#include "base/err.h"
#include "base/str.h"
#include "fleetd/http.h"
#include "fleetd/url.h"

struct listener;
struct client;

/* A request moves down this list only; those before ANSWERED may also jump to ANSWERED (refused by us). */
enum request_state {
    REQUEST_STARTED,  /* Its first line is here. */
    REQUEST_BODY,     /* Its headers are here, the body comes. */
    REQUEST_HANDED,   /* The handler has it; once on_request has returned, libmicrohttpd has it suspended. */
    REQUEST_ANSWERED, /* 'response' waits to be queued, or is queued. */
    REQUEST_GONE,     /* Nobody waits for an answer: the connection is to be closed. */
};

/* Waits for the hang-up of a suspended request's socket. Lives on until libuv has let go of it. */
struct watch {
    uv_poll_t poll;
    struct http_server *server;
    struct pending *pending; /* NULL once stopped. */
};

struct pending {
    struct http_request request;
    enum request_state state;
    bool in_handler; /* on_request() is on the stack. */
    bool too_large, too_many, raw_nul;
    struct client *client;
    struct MHD_Connection *connection;
    char *target, *content_type, *user_agent;
    uintptr_t target_at; /* Where libmicrohttpd has it; for has_raw_nul(). */
    struct url url;
    struct strbuf body;
    uint64_t body_size; /* Also counts what was swallowed. */
    struct watch *watch;
    struct MHD_Response *response;
    unsigned status;
    struct pending *prev, *next;
};

struct client {
    struct listener *listener;
    int fd;
    struct peer peer;
    uint64_t reading_since_ms; /* UINT64_MAX: it is not the client's turn. */
    struct client *prev, *next;
};

/* Who is behind a connection that libmicrohttpd was given. Version 0.9 makes the connection of it at
 * once, 1.0 in its next run. */
struct adoption {
    int fd;
    struct peer peer;
    UT_hash_handle hh;
};

struct listener {
    struct http_server *server;
    struct MHD_Daemon *daemon;
    int fd;                     /* -1: it listens to nobody (any more). */
    bool adopts;                /* Its connections come from http_server_adopt(). */
    struct adoption *adoptions; /* By descriptor; those that are no connection yet. */
    uv_poll_t poll;             /* libmicrohttpd's epoll descriptor. */
    uv_timer_t timer;           /* MHD_get_timeout(). */
    bool resumed;               /* MHD_run() is due, and MHD_get_timeout() does not know. */
    bool draining;              /* Accepts nobody any more; ends with its last client. */
    uint64_t timeout_ms;
    struct client *clients;
    unsigned client_count;
    struct listener *prev, *next;
};

struct http_server {
    uv_loop_t *loop;
    char *server_header;
    const struct http_callbacks *callbacks;
    void *data;
    unsigned timeout_s;
    bool others_read;
    uv_prepare_t prepare;
    uv_timer_t sweep; /* Looks for clients that are too slow; runs while there are clients. */
    struct listener *listeners;
    struct listener *adopted; /* One of them, for what others have accepted; NULL: there was nobody yet. */
    struct pending *pendings;
    size_t body_bytes;     /* Of all bodies that are held. */
    unsigned handles;      /* That libuv still holds. */
    unsigned client_count; /* Of all listeners. */
    uint64_t answered[HTTP_STATUSES];
    unsigned run_depth;   /* MHD_run() is on the stack. */
    bool closing, closed; /* Asked for; begun. */
    void (*on_done)(void *data);
    void *done_data;
};

static inline uint64_t server_now_ms(const struct http_server *server)
{
    return uv_now(server->loop);
}

/* ---- http.c ---- */

/* Ends everything: not while MHD_run() is on the stack. */
void http_close_now(struct http_server *server);
/* To be called by whatever has let go of a handle: where it was the last one, the server is freed. */
void http_maybe_done(struct http_server *server);

/* ---- http_pump.c ---- */

/* 'fd' < 0: for connections that others have accepted. It is the caller's where this fails: NULL. */
struct listener *http_listener_new(struct http_server *server, int fd, struct err *err);
/* Lets libmicrohttpd do what it can do now. That may close the server, and the listener with it. */
void http_run(struct listener *l);
/* Just before the loop sleeps: waits for exactly what libmicrohttpd wants now. */
void http_on_prepare(uv_prepare_t *prepare);
/* What has connected is served, who comes after that is refused by the kernel. */
void http_stop_accepting(struct listener *l);
/* Ends its connections as well. It is freed when libuv has let go of it. */
void http_listener_close(struct listener *l);

/* ---- http_client.c ---- */

/* Of MHD_OPTION_NOTIFY_CONNECTION: 'cls' is the listener, '*context' becomes the client. */
void http_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                        enum MHD_ConnectionNotificationCode code);
/* Says who is behind 'fd', before libmicrohttpd is given it. One that libmicrohttpd has dropped without a
 * word leaves its entry to the next one with its number. */
void http_adoption_begin(struct listener *l, int fd, const struct peer *peer);
void http_adoption_end(struct listener *l, struct adoption *adoption);

/* ---- http_request.c ---- */

/* Of MHD_OPTION_URI_LOG_CALLBACK. The request line is here; what this returns is *con_cls of
 * http_on_access(). */
void *http_on_target(void *cls, const char *target, struct MHD_Connection *connection);
/* Of MHD_start_daemon(). */
enum MHD_Result http_on_access(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *data, size_t *size,
                               void **con_cls);
/* Of MHD_OPTION_NOTIFY_COMPLETED: frees the request. */
void http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                       enum MHD_RequestTerminationCode code);

/* ---- http_answer.c ---- */

/* Makes the answer; copies. 'content_type' NULL: no such header. */
void http_set_response(struct pending *p, unsigned status, const char *content_type, const void *body,
                       size_t size);
/* Gives libmicrohttpd the answer that was made: what http_on_access() is to return. */
enum MHD_Result http_send_response(struct pending *p);
/* For one that is suspended: notices that its client goes away, and abandons it then. */
void http_watch_start(struct pending *p);
/* The request's answer is no longer wanted. Calls the handler last: it may do anything, also close the
 * server. */
void http_abandon(struct pending *p);
