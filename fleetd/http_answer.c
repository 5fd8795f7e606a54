/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_private.h"

#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"

void http_set_response(struct pending *p, unsigned status, const char *content_type, const void *body,
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

enum MHD_Result http_send_response(struct pending *p)
{
    enum MHD_Result r;

    r = MHD_queue_response(p->connection, p->status, p->response);
    MHD_destroy_response(p->response);
    p->response = NULL;
    return r;
}

/* ---- waiting for one ---- */

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;

    watch->server->handles--;
    http_maybe_done(watch->server);
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

/* http_on_access() is called once more, on the next run. */
static void resume(struct pending *p)
{
    p->client->listener->resumed = true;
    MHD_resume_connection(p->connection);
}

void http_abandon(struct pending *p)
{
    struct http_server *server = p->client->listener->server;

    assert(p->state == REQUEST_HANDED && !p->in_handler);
    watch_stop(p);
    p->state = REQUEST_GONE;
    resume(p); /* http_on_access() closes the connection. */
    server->callbacks->on_gone(&p->request, server->data);
}

static void on_watch(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;

    if (watch->pending != NULL)
        http_abandon(watch->pending);
}

/* libmicrohttpd takes a suspended connection out of its epoll set, and so does not see it end. On a Unix
 * socket EPOLLHUP means that the peer has closed; libuv always waits for it, and passes it on as any event
 * that was asked for. UV_PRIORITIZED (EPOLLPRI) never comes by itself, so neither a half close nor pipelined
 * data wakes us. A TCP socket has EPOLLHUP only after a reset; there the peer's FIN must do. */
void http_watch_start(struct pending *p)
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
    http_set_response(p, status, content_type, body, size);
    if (p->in_handler)
        return; /* http_on_access() sends it. */
    watch_stop(p);
    resume(p);
}
