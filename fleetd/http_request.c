/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "raftstore/limits.h"

/* A body that is too large is swallowed up to this size, so that the client gets to read the 413. */
#define HTTP_SWALLOW_MAX (4ull * API_BODY_MAX)

_Static_assert(2 * HTTP_CONNECTION_MEMORY <= API_HEAD_MAX, "all that a head may hold fits, encoded");

/* ---- answers of our own ---- */

/* Our own texts and decoder errors: nothing in them needs JSON escapes. */
static void set_error(struct pending *p, unsigned status, const char *message)
{
    _cleanup_(freep) char *body = xasprintf("{\"error\":{\"code\":%u,\"message\":\"%s\"}}", status, message);

    http_set_response(p, status, "application/json", body, strlen(body));
}

static void set_too_large(struct pending *p)
{
    _cleanup_(freep) char *text = xasprintf("the request body is larger than %u KiB", API_BODY_MAX / 1024);

    set_error(p, MHD_HTTP_CONTENT_TOO_LARGE, text);
}

static void set_redirect(struct pending *p)
{
    http_set_response(p, MHD_HTTP_MOVED_PERMANENTLY, NULL, "", 0);
    MHD_add_response_header(p->response, MHD_HTTP_HEADER_LOCATION, p->url.location);
}

/* ---- its head ---- */

static struct client *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info != NULL ? info->socket_context : NULL;
}

void *http_on_target(void *cls, const char *target, struct MHD_Connection *connection)
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
        return http_send_response(p);
    }
    return MHD_YES;
}

/* ---- its body ---- */

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

/* ---- the handler ---- */

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
        return http_send_response(p);
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
        return http_send_response(p);
    MHD_suspend_connection(p->connection);
    http_watch_start(p);
    return MHD_YES;
}

_Static_assert(sizeof(struct http_query) == sizeof(struct url_query), "one is shown as the other");
_Static_assert(offsetof(struct http_query, value) == offsetof(struct url_query, value), "likewise");

enum MHD_Result http_on_access(void *cls, struct MHD_Connection *connection, const char *url,
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
    case REQUEST_ANSWERED: return p->response != NULL ? http_send_response(p) : MHD_YES;
    case REQUEST_GONE: break;
    }
    return MHD_NO;
}

void http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
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
