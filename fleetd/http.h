/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server: libmicrohttpd on our loop, speaking to clients on Unix sockets and on TCP. It
 * knows nothing of units: it turns each request into a struct http_request, hands it to one function, and
 * sends what that answers, now or later.
 *
 * Everything is bounded: a body by API_BODY_MAX (413), all bodies together by HTTP_BODIES_MAX (503),
 * connections of each listening socket by HTTP_CONNECTIONS_MAX (the next one waits in the backlog; a flood of
 * one socket does not close another), as those that were adopted (there the next one is closed), headers by
 * HTTP_CONNECTION_MEMORY (431, 414), the time until a request has arrived, and of silence, by HTTP_TIMEOUT_S.
 * What waits for its answer has no limit here: the handler has its own deadline.
 *
 * Errors that are noticed before the handler is asked have the API's JSON entity, but for those of
 * libmicrohttpd itself (a broken request line or header, 431, 414: an HTML text, then the connection ends).
 *
 * A client that goes away while it waits is noticed at once: on a Unix socket by the hang-up of the socket (a
 * client that only shuts down its sending side still gets its answer), on TCP by its FIN, which may also be a
 * half close. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "fleetd/access.h"
#include "fleetd/peer.h"

#define HTTP_CONNECTIONS_MAX   512u /* Of each listening socket. */
#define HTTP_CONNECTION_MEMORY (32u * 1024)
#define HTTP_BODIES_MAX        (64u * 1024 * 1024)
#define HTTP_TIMEOUT_S         60u

struct http_server;

struct http_query {
    const char *key, *value; /* Decoded; value never NULL. */
};

/* A request, until http_reply() ends it or on_gone() was called. Owned by the server. */
struct http_request {
    const char *method;
    const char *path; /* Decoded, without the query; unclean paths have been answered already (301). */
    const struct http_query *query;
    size_t query_count;
    const char *content_type; /* The first one, or NULL. */
    unsigned content_type_count;
    const char *user_agent; /* "" if it is not said. */
    const void *body;
    size_t body_size;
    const char *peer; /* "uid 0 pid 412" of a Unix peer, or "address:port": for the journal. */
    const struct access_caller *caller;
    void *owner;  /* For the handler: the thing that works on this request. NULL at first. */
    bool unnamed; /* For the handler: the answer goes without the header "Server". */
};

struct http_callbacks {
    /* A request is complete. Answer with http_reply(), inside this call or later. */
    void (*on_request)(struct http_request *request, void *data);
    /* The client went away before the answer, or the server closes: forget the request now. Not called once
     * http_reply() was. */
    void (*on_gone)(struct http_request *request, void *data);
};

/* 'server_header' (copied) is the value of the header "Server", NULL for none. 'callbacks' are kept, not
 * copied. */
struct http_server *http_server_new(uv_loop_t *loop, const char *server_header,
                                    const struct http_callbacks *callbacks, void *data);

/* For the sockets that are added afterwards; HTTP_TIMEOUT_S by default. */
void http_server_set_timeout(struct http_server *server, unsigned seconds);

/* Whether whoever is no owner of a Unix socket (peer.h) may read. Of connections from now on; by default not.
 */
void http_server_set_others(struct http_server *server, bool read);

/* Serves a listening stream socket, which it owns from now on, also when this fails: made by
 * http_listen_unix() or http_listen_tcp(), or passed by systemd. */
int http_server_add(struct http_server *server, int fd, struct err *err);

/* Whether it is a listening stream socket; it does not block from now on. */
int http_check_listening(int fd, struct err *err);

/* Serves a connected stream socket that somebody else has accepted, and owns it from now on: one end of a
 * socket pair. 'peer' is who is behind it. Not to be called from inside on_request or on_gone. */
void http_server_adopt(struct http_server *server, int fd, const struct peer *peer);

/* Nobody new is accepted on the socket 'fd' that was added; it is closed. Connections that were made over it
 * live on. Not to be called from inside on_request or on_gone. */
void http_server_remove(struct http_server *server, int fd);

/* Sends the answer and ends the request. 'content_type' NULL: no such header. Copies. */
void http_reply(struct http_request *request, unsigned status, const char *content_type, const void *body,
                size_t size);

/* For whoever watches: how many requests were answered with this status (less than HTTP_STATUSES) so far, and
 * how many connections are open. */
#define HTTP_STATUSES 600u
uint64_t http_server_answered(const struct http_server *server, unsigned status);
unsigned http_server_connections(const struct http_server *server);

/* Stops accepting, calls on_gone for every request without an answer, sends the answers that fit the sockets'
 * buffers, ends what is open; 'done' comes when nothing is left on the loop, and the server is freed then.
 * May be called inside on_request; then it takes effect when that has returned. */
void http_server_close(struct http_server *server, void (*done)(void *data), void *data);
