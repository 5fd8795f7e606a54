/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <microhttpd.h>
#include <uthash.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/url.h"
#include "raftstore/limits.h"

/* A body that is too large is swallowed up to this size, so that the client gets to read the 413. */
#define HTTP_SWALLOW_MAX (4ull * API_BODY_MAX)

_Static_assert(2 * HTTP_CONNECTION_MEMORY <= API_HEAD_MAX, "all that a head may hold fits, encoded");

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

/* ---- answers ---- */

static void set_response(struct pending *p, unsigned status, const char *content_type, const void *body,
                         size_t size)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, (void *)body, MHD_RESPMEM_MUST_COPY);
    const char *server_header = p->request.unnamed ? NULL : p->client->listener->server->server_header;

    if (response == NULL)
        abort(); /* Out of memory. */
    if (server_header != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_SERVER, server_header);
    if (content_type != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    assert(status < HTTP_STATUSES);
    p->client->listener->server->answered[status]++;
    p->response = response;
    p->status = status;
    p->state = REQUEST_ANSWERED;
}

/* Our own texts and decoder errors: nothing in them needs JSON escapes. */
static void set_error(struct pending *p, unsigned status, const char *message)
{
    _cleanup_(freep) char *body = xasprintf("{\"error\":{\"code\":%u,\"message\":\"%s\"}}", status, message);

    set_response(p, status, "application/json", body, strlen(body));
}

static enum MHD_Result send_response(struct pending *p)
{
    enum MHD_Result r;

    r = MHD_queue_response(p->connection, p->status, p->response);
    MHD_destroy_response(p->response);
    p->response = NULL;
    return r;
}

/* ---- waiting for an answer ---- */

static void maybe_done(struct http_server *server)
{
    void (*on_done)(void *data) = server->on_done;
    void *data = server->done_data;

    if (!server->closed || server->handles > 0)
        return;
    free(server->server_header);
    free(server);
    if (on_done != NULL)
        on_done(data);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;

    watch->server->handles--;
    maybe_done(watch->server);
    free(watch);
}

static void watch_stop(struct pending *p)
{
    struct watch *watch = TAKE_PTR(p->watch);

    if (watch == NULL)
        return;
    watch->pending = NULL;
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

/* on_access() is called once more, on the next run. */
static void resume(struct pending *p)
{
    p->client->listener->resumed = true;
    MHD_resume_connection(p->connection);
}

/* The request's answer is no longer wanted. Calls the handler last: it may do anything, also close the
 * server. */
static void abandon(struct pending *p)
{
    struct http_server *server = p->client->listener->server;

    assert(p->state == REQUEST_HANDED && !p->in_handler);
    watch_stop(p);
    p->state = REQUEST_GONE;
    resume(p); /* on_access() closes the connection. */
    server->callbacks->on_gone(&p->request, server->data);
}

static void on_watch(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;

    if (watch->pending != NULL)
        abandon(watch->pending);
}

/* libmicrohttpd takes a suspended connection out of its epoll set, and so does not see it end. On a Unix
 * socket EPOLLHUP means that the peer has closed; libuv always waits for it, and passes it on as any event
 * that was asked for. UV_PRIORITIZED (EPOLLPRI) never comes by itself, so neither a half close nor pipelined
 * data wakes us. A TCP socket has EPOLLHUP only after a reset; there the peer's FIN must do. */
static void watch_start(struct pending *p)
{
    struct http_server *server = p->client->listener->server;
    struct watch *watch = NEW0(struct watch);
    int events = UV_PRIORITIZED | (p->client->peer.is_unix ? 0 : UV_DISCONNECT);

    if (uv_poll_init(server->loop, &watch->poll, p->client->fd) < 0) {
        free(watch); /* Then it is noticed when the answer is sent. */
        return;
    }
    watch->poll.data = watch;
    watch->server = server;
    watch->pending = p;
    server->handles++;
    uv_poll_start(&watch->poll, events, on_watch);
    p->watch = watch;
}

void http_reply(struct http_request *request, unsigned status, const char *content_type, const void *body,
                size_t size)
{
    struct pending *p = CONTAINER_OF(request, struct pending, request);

    assert(p->state == REQUEST_HANDED);
    set_response(p, status, content_type, body, size);
    if (p->in_handler)
        return; /* on_access() sends it. */
    watch_stop(p);
    resume(p);
}

/* ---- requests coming in ---- */

static uint64_t server_now_ms(const struct http_server *server)
{
    return uv_now(server->loop);
}

static struct client *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info != NULL ? info->socket_context : NULL;
}

/* The request line is here; what this returns is *con_cls of on_access(). */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct pending *p = NEW0(struct pending);

    p->client = client_of(connection);
    p->connection = connection;
    /* As it came: what libmicrohttpd makes of "%00" and "%2F" is not ours. */
    p->target = xstrdup(target);
    p->target_at = (uintptr_t)target;
    p->client->reading_since_ms = server_now_ms(p->client->listener->server);
    DL_APPEND(p->client->listener->server->pendings, p);
    return p;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct pending *p = cls;

    if (value == NULL)
        value = "";
    if (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_TYPE) == 0 && p->request.content_type_count++ == 0)
        p->content_type = xstrdup(value);
    else if (strcasecmp(key, MHD_HTTP_HEADER_USER_AGENT) == 0 && p->user_agent == NULL)
        p->user_agent = xstrdup(value);
    return MHD_YES;
}

static uint64_t announced_size(struct MHD_Connection *connection)
{
    const char *text =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return text != NULL ? strtoull(text, NULL, 10) : 0; /* libmicrohttpd has checked it. */
}

/* libmicrohttpd 0.9.75 passes a NUL byte in the request line on, and so a target that is cut short there. It
 * keeps the whole line in one piece, "METHOD\0TARGET\0VERSION": if the version is not right behind the
 * target, there was one. Should a newer one keep them apart (it refuses the NUL by itself), the distance is
 * nothing that a buffer holds. */
static bool has_raw_nul(const struct pending *p, const char *version)
{
    uintptr_t behind = p->target_at + strlen(p->target) + 1, at = (uintptr_t)version;

    return at > behind && at - behind < HTTP_CONNECTION_MEMORY;
}

static void set_too_large(struct pending *p)
{
    _cleanup_(freep) char *text = xasprintf("the request body is larger than %u KiB", API_BODY_MAX / 1024);

    set_error(p, MHD_HTTP_CONTENT_TOO_LARGE, text);
}

/* The headers are here. */
static enum MHD_Result begin(struct pending *p, const char *method, const char *version)
{
    uint64_t size = announced_size(p->connection);

    p->state = REQUEST_BODY;
    p->request.method = method;
    p->raw_nul = has_raw_nul(p, version);
    MHD_get_connection_values(p->connection, MHD_HEADER_KIND, on_header, p);
    p->too_large = size > API_BODY_MAX;
    if (p->too_large &&
        (size > HTTP_SWALLOW_MAX ||
         MHD_lookup_connection_value(p->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT) != NULL)) {
        set_too_large(p);
        return send_response(p);
    }
    return MHD_YES;
}

static void drop_body(struct pending *p)
{
    p->client->listener->server->body_bytes -= p->body.size;
    strbuf_done(&p->body);
}

static enum MHD_Result add_body(struct pending *p, const char *data, size_t size)
{
    struct http_server *server = p->client->listener->server;

    p->body_size += size;
    if (p->body_size > HTTP_SWALLOW_MAX)
        return MHD_NO;
    if (p->body_size > API_BODY_MAX)
        p->too_large = true;
    else if (server->body_bytes + size > HTTP_BODIES_MAX)
        p->too_many = true;
    if (p->too_large || p->too_many) {
        drop_body(p);
        return MHD_YES;
    }
    server->body_bytes += size;
    strbuf_add_bytes(&p->body, data, size);
    return MHD_YES;
}

static void set_redirect(struct pending *p)
{
    set_response(p, MHD_HTTP_MOVED_PERMANENTLY, NULL, "", 0);
    MHD_add_response_header(p->response, MHD_HTTP_HEADER_LOCATION, p->url.location);
}

/* Answers what the handler need not see. */
static bool refuse(struct pending *p)
{
    struct err err = {0};
    int r = url_parse(p->target, &p->url, &err);

    p->request.unnamed = p->client->listener->server->closing; /* There is no API any more. */
    if (p->request.unnamed)
        set_error(p, MHD_HTTP_SERVICE_UNAVAILABLE, "fleetd is shutting down");
    else if (p->too_large)
        set_too_large(p);
    else if (p->too_many)
        set_error(p, MHD_HTTP_SERVICE_UNAVAILABLE, "too many large requests at once: try again");
    else if (p->raw_nul)
        set_error(p, MHD_HTTP_BAD_REQUEST, "NUL byte in the URL");
    else if (r < 0)
        set_error(p, MHD_HTTP_BAD_REQUEST, err_text(&err, r));
    else if (p->url.location != NULL)
        set_redirect(p);
    return p->state == REQUEST_ANSWERED;
}

static enum MHD_Result hand_over(struct pending *p)
{
    struct http_server *server = p->client->listener->server;

    p->client->reading_since_ms = UINT64_MAX;
    if (refuse(p))
        return send_response(p);
    p->request.path = p->url.path;
    p->request.query = (const struct http_query *)p->url.query;
    p->request.query_count = p->url.query_count;
    p->request.content_type = p->content_type;
    p->request.user_agent = p->user_agent != NULL ? p->user_agent : "";
    p->request.body = p->body.text != NULL ? p->body.text : "";
    p->request.body_size = p->body.size;
    p->request.peer = p->client->peer.text;
    p->request.caller = &p->client->peer.caller;
    p->state = REQUEST_HANDED;
    p->in_handler = true;
    server->callbacks->on_request(&p->request, server->data);
    p->in_handler = false;
    if (p->state == REQUEST_ANSWERED)
        return send_response(p);
    MHD_suspend_connection(p->connection);
    watch_start(p);
    return MHD_YES;
}

_Static_assert(sizeof(struct http_query) == sizeof(struct url_query), "one is shown as the other");
_Static_assert(offsetof(struct http_query, value) == offsetof(struct url_query, value), "likewise");

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data, size_t *size,
                                 void **con_cls)
{
    struct pending *p = *con_cls;
    enum MHD_Result r;

    if (p == NULL)
        return MHD_NO;
    switch (p->state) {
    case REQUEST_STARTED: return begin(p, method, version);
    case REQUEST_BODY:
        if (*size == 0)
            return hand_over(p);
        r = add_body(p, data, *size);
        *size = 0;
        return r;
    case REQUEST_HANDED: return MHD_YES; /* Cannot be: it is suspended. */
    case REQUEST_ANSWERED: return p->response != NULL ? send_response(p) : MHD_YES;
    case REQUEST_GONE: break;
    }
    return MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct pending *p = *con_cls;
    struct http_server *server;

    if (p == NULL)
        return;
    *con_cls = NULL;
    server = p->client->listener->server;
    assert(p->state != REQUEST_HANDED && p->watch == NULL);
    p->client->reading_since_ms = server_now_ms(server); /* Of the next request. */
    DL_DELETE(server->pendings, p);
    drop_body(p);
    if (p->response != NULL)
        MHD_destroy_response(p->response);
    url_done(&p->url);
    free(p->content_type);
    free(p->user_agent);
    free(p->target);
    free(p);
}

/* ---- connections ---- */

/* Ends clients that take longer than the timeout to send one whole request, however busy they look. */
static void on_sweep(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    uint64_t now = server_now_ms(server);
    struct listener *l;
    struct client *c;

    DL_FOREACH (server->listeners, l)
        DL_FOREACH (l->clients, c)
            if (c->reading_since_ms <= now && now - c->reading_since_ms > l->timeout_ms) {
                c->reading_since_ms = UINT64_MAX;
                shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees a hang-up. */
            }
}

static void adoption_end(struct listener *l, struct adoption *adoption)
{
    HASH_DEL(l->adoptions, adoption);
    free(adoption);
}

/* One that libmicrohttpd has dropped without a word leaves its entry to the next one with its number. */
static void adoption_begin(struct listener *l, int fd, const struct peer *peer)
{
    struct adoption *adoption;

    HASH_FIND_INT(l->adoptions, &fd, adoption);
    if (adoption == NULL) {
        adoption = NEW0(struct adoption);
        adoption->fd = fd;
        HASH_ADD_INT(l->adoptions, fd, adoption);
    }
    adoption->peer = *peer;
}

/* Of a socket pair the kernel would say that it is our own: who is behind it is known from here, or may
 * nothing. */
static void adopted_peer(struct listener *l, int fd, struct peer *ret)
{
    struct adoption *adoption;

    HASH_FIND_INT(l->adoptions, &fd, adoption);
    *ret = adoption != NULL ? adoption->peer : (struct peer){.text = "unknown peer"};
    ret->is_unix = true; /* So is the socket here; its end says when the client has gone. */
    if (adoption != NULL)
        adoption_end(l, adoption);
}

static void client_new(struct listener *l, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *client = NEW0(struct client);
    uint64_t sweep_ms = l->timeout_ms / 4;

    client->listener = l;
    client->fd = info->connect_fd;
    client->reading_since_ms = server_now_ms(l->server);
    if (l->adopts)
        adopted_peer(l, client->fd, &client->peer);
    else
        peer_read(client->fd, l->server->others_read, &client->peer);
    DL_APPEND(l->clients, client);
    l->client_count++;
    if (l->server->client_count++ == 0 && !l->server->closed)
        uv_timer_start(&l->server->sweep, on_sweep, sweep_ms, sweep_ms);
    *context = client;
}

static void client_free(struct client *client)
{
    struct listener *l = client->listener;

    DL_DELETE(l->clients, client);
    l->client_count--;
    if (--l->server->client_count == 0 && !l->server->closed)
        uv_timer_stop(&l->server->sweep);
    free(client);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        client_new(cls, connection, context);
    else if (*context != NULL)
        client_free(TAKE_PTR(*context));
}

__attribute__((format(printf, 2, 0))) static void on_mhd_log(void *cls, const char *format, va_list ap)
{
    _cleanup_(freep) char *text = NULL;

    if (!log_debug_on())
        return;
    text = xvasprintf(format, ap);
    text[strcspn(text, "\n")] = '\0';
    log_debug("HTTP: %s", text);
}

/* ---- the pump ---- */

static void close_now(struct http_server *server);
static void listener_close(struct listener *l);

static void run(struct listener *l)
{
    struct http_server *server = l->server;
    bool full;

    server->run_depth++;
    do { /* Where the limit was met, room for the next one is noticed only by another run. */
        full = l->client_count >= HTTP_CONNECTIONS_MAX;
        l->resumed = false;
        MHD_run(l->daemon);
    } while (full && l->client_count < HTTP_CONNECTIONS_MAX);
    server->run_depth--;
    if (server->closing && !server->closed && server->run_depth == 0)
        close_now(server);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    run(poll->data);
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

/* Just before the loop sleeps: waits for exactly what libmicrohttpd wants now. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct http_server *server = prepare->data;
    struct listener *l, *next;

    DL_FOREACH_SAFE (server->listeners, l, next) {
        MHD_UNSIGNED_LONG_LONG timeout_ms;

        if (l->draining && l->client_count == 0)
            listener_close(l);
        else if (l->resumed)
            uv_timer_start(&l->timer, on_timer, 0, 0);
        else if (MHD_get_timeout(l->daemon, &timeout_ms) == MHD_YES)
            uv_timer_start(&l->timer, on_timer, timeout_ms, 0);
        else
            uv_timer_stop(&l->timer);
    }
}

/* ---- opening and closing ---- */

struct http_server *http_server_new(uv_loop_t *loop, const char *server_header,
                                    const struct http_callbacks *callbacks, void *data)
{
    struct http_server *server = NEW0(struct http_server);

    server->loop = loop;
    server->server_header = xstrdup(server_header);
    server->callbacks = callbacks;
    server->data = data;
    server->timeout_s = HTTP_TIMEOUT_S;
    uv_prepare_init(loop, &server->prepare);
    uv_timer_init(loop, &server->sweep);
    server->prepare.data = server->sweep.data = server;
    server->handles = 2;
    uv_prepare_start(&server->prepare, on_prepare);
    return server;
}

void http_server_set_timeout(struct http_server *server, unsigned seconds)
{
    server->timeout_s = seconds;
}

void http_server_set_others(struct http_server *server, bool read)
{
    server->others_read = read;
}

uint64_t http_server_answered(const struct http_server *server, unsigned status)
{
    assert(status < HTTP_STATUSES);
    return server->answered[status];
}

unsigned http_server_connections(const struct http_server *server)
{
    return server->client_count;
}

int http_check_listening(int fd, struct err *err)
{
    int listening = 0, type = 0;
    socklen_t size = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
        return err_set(err, -errno, "descriptor %d is not a socket", fd);
    size = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM || !listening)
        return err_set(err, -EINVAL, "descriptor %d is not a listening stream socket", fd);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_set(err, -errno, "descriptor %d: %m", fd);
    return 0;
}

static struct MHD_Daemon *start_daemon(struct listener *l, int fd)
{
    struct MHD_OptionItem listening[] = {{MHD_OPTION_LISTEN_SOCKET, fd, NULL}, {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;

    if (fd < 0)
        flags |= MHD_USE_NO_LISTEN_SOCKET;
    /* The logger comes first: the options after it may have something to say. */
    return MHD_start_daemon(flags, 0, NULL, NULL, on_access, l, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
                            MHD_OPTION_ARRAY, fd < 0 ? listening + 1 : listening, MHD_OPTION_CONNECTION_LIMIT,
                            HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)HTTP_CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
                            l->server->timeout_s, MHD_OPTION_URI_LOG_CALLBACK, on_target, l,
                            MHD_OPTION_NOTIFY_COMPLETED, on_completed, l, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, l, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

/* 'fd' < 0: for connections that others have accepted. It is the caller's where this fails. */
static struct listener *listener_new(struct http_server *server, int fd, struct err *err)
{
    struct listener *l = NEW0(struct listener);
    const union MHD_DaemonInfo *info;
    int r;

    l->server = server;
    l->fd = fd;
    l->timeout_ms = server->timeout_s * 1000ull;
    l->daemon = start_daemon(l, fd);
    if (l->daemon == NULL) {
        free(l);
        err_set(err, -EIO, "cannot start libmicrohttpd on descriptor %d", fd);
        return NULL;
    }
    info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    r = info != NULL ? uv_poll_init(server->loop, &l->poll, info->epoll_fd) : -ENOTSUP;
    if (r < 0) {
        if (fd >= 0)
            MHD_quiesce_daemon(l->daemon); /* The socket stays the caller's. */
        MHD_stop_daemon(l->daemon);
        free(l);
        err_set(err, r, "cannot watch libmicrohttpd: %s", uv_strerror(r));
        return NULL;
    }
    uv_timer_init(server->loop, &l->timer);
    l->poll.data = l->timer.data = l;
    server->handles += 2;
    uv_poll_start(&l->poll, UV_READABLE, on_poll);
    uv_timer_start(&l->timer, on_timer, 0,
                   0); /* The first run puts the socket into libmicrohttpd's epoll set. */
    DL_APPEND(server->listeners, l);
    return l;
}

int http_server_add(struct http_server *server, int fd, struct err *err)
{
    _cleanup_(closep) int owned = fd;
    int r;

    assert(!server->closing);
    r = http_check_listening(fd, err);
    if (r < 0)
        return r;
    if (listener_new(server, fd, err) == NULL)
        return -EIO;
    TAKE_FD(owned);
    return 0;
}

void http_server_adopt(struct http_server *server, int fd, const struct peer *peer)
{
    struct listener *l = server->adopted;
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX};

    assert(server->run_depth == 0);
    if (l == NULL && !server->closing)
        l = server->adopted = listener_new(server, -1, NULL);
    if (l == NULL) {
        close(fd);
        return;
    }
    l->adopts = true;
    adoption_begin(l, fd, peer);
    /* Where it is refused, libmicrohttpd has closed it. */
    (void)MHD_add_connection(l->daemon, fd, (struct sockaddr *)&nowhere, sizeof nowhere.sun_family);
    l->resumed = true;
}

static void on_server_handle_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;

    server->handles--;
    maybe_done(server);
}

static void on_listener_poll_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct http_server *server = l->server;
    struct adoption *adoption, *next;

    server->handles -= 2; /* The timer was closed before, so it is gone as well. */
    HASH_ITER (hh, l->adoptions, adoption, next)
        adoption_end(l, adoption);
    free(l);
    maybe_done(server);
}

static void on_listener_timer_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;

    uv_close((uv_handle_t *)&l->poll, on_listener_poll_closed);
}

/* What has connected is served, who comes after that is refused by the kernel. */
static void stop_accepting(struct listener *l)
{
    int fd;

    if (l->draining)
        return;
    l->draining = true;
    fd = MHD_quiesce_daemon(l->daemon);
    if (fd >= 0)
        close(fd);
    l->fd = -1;
}

static void listener_close(struct listener *l)
{
    stop_accepting(l);
    DL_DELETE(l->server->listeners, l);
    /* Sends what fits; ends the requests that were abandoned. Bounded: a client may keep on asking. */
    l->server->run_depth++;
    for (int i = 0; i < 8; i++)
        MHD_run(l->daemon);
    l->server->run_depth--;
    uv_poll_stop(&l->poll);
    MHD_stop_daemon(l->daemon);
    l->daemon = NULL;
    assert(l->clients == NULL);
    uv_close((uv_handle_t *)&l->timer, on_listener_timer_closed);
}

void http_server_remove(struct http_server *server, int fd)
{
    struct listener *l;

    assert(!server->closing && server->run_depth == 0);
    DL_FOREACH (server->listeners, l)
        if (l->fd == fd)
            break;
    assert(l != NULL);
    run(l); /* Whoever has connected by now is not turned away. */
    if (!server->closing)
        stop_accepting(l);
}

static void close_now(struct http_server *server)
{
    struct listener *l, *next;
    struct pending *p;

    server->closed = true;
    uv_close((uv_handle_t *)&server->prepare, on_server_handle_closed);
    uv_close((uv_handle_t *)&server->sweep, on_server_handle_closed);
    DL_FOREACH (server->pendings, p) /* on_gone() may answer others, which frees none of them. */
        if (p->state == REQUEST_HANDED)
            abandon(p);
    DL_FOREACH_SAFE (server->listeners, l, next)
        listener_close(l);
    assert(server->pendings == NULL && server->body_bytes == 0);
}

void http_server_close(struct http_server *server, void (*done)(void *data), void *data)
{
    assert(!server->closing);
    server->closing = true;
    server->on_done = done;
    server->done_data = data;
    if (server->run_depth == 0)
        close_now(server); /* Otherwise run() does it. */
}
