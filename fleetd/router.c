/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/router.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <jansson.h>
#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/audit.h"
#include "fleetd/metrics.h"
#include "raftstore/limits.h"
#include "raftstore/registry.h"

#define JSON_TYPE "application/json"
#define RETRY_MS  50u

/* How long a request is tried again that a leader has refused: long enough for the next one to be elected. */
#define REFUSED_MS 4000u

struct pending {
    uint64_t id;
    struct http_request *request;
    Fleet__ApiRequest message; /* Its pointers are the request's, or 'labels' and 'request_id'. */
    Fleet__Caller caller;
    Fleet__Label *labels, **label_list;
    uint8_t request_id[REQUEST_ID_SIZE];
    uint64_t deadline_ms; /* On the loop's clock. */
    bool lasting;         /* A wait: once it is with the leader, it takes as long as it takes. */
    bool sent;            /* To the present leader. */
    char *refusal;        /* The leader's answer when it sent us away, a JSON error; NULL: it did not. */
    bool uncertain;       /* It was sent to one that did not answer, and may have changed something. */
    UT_hash_handle hh;
};

struct router {
    uv_loop_t *loop;
    struct router_callbacks callbacks;
    void *data;
    struct pending *pending; /* In order of arrival. */
    uint64_t last_id;
    struct audit_budget refusals;
    uv_timer_t timer;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- answers ---- */

static void reply_error(struct http_request *request, unsigned status, const char *text)
{
    json_t *body = json_pack("{s:{s:i,s:s}}", "error", "code", (int)status, "message", text);
    _cleanup_(freep) char *dump = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);

    json_decref(body);
    http_reply(request, status, JSON_TYPE, dump, strlen(dump));
}

/* What this host has to tell the journal of a request; others the leader writes about. */
static struct audit_event event_of(const struct http_request *request, unsigned status, const char *outcome)
{
    return (struct audit_event){.caller = request->caller,
                                .peer = request->peer,
                                .method = request->method,
                                .path = request->path,
                                .status = status,
                                .outcome = outcome};
}

static void pending_free(struct router *router, struct pending *pending)
{
    HASH_DEL(router->pending, pending);
    pending->request->owner = NULL;
    free(pending->refusal);
    free(pending->labels);
    free(pending->label_list);
    free(pending);
}

static void pending_fail(struct router *router, struct pending *pending, const char *why)
{
    struct http_request *request = pending->request;
    bool uncertain = pending->uncertain;
    _cleanup_(freep) char *text = NULL, *refusal = TAKE_PTR(pending->refusal);

    if (pending->message.request_id.len > 0) {
        struct audit_event event =
            event_of(request, uncertain ? 504 : 503, uncertain ? "its outcome is not known here" : why);

        event.request_id = pending->request_id;
        audit_change(&event);
    }
    pending_free(router, pending);
    if (refusal != NULL && !uncertain) { /* It knows better than we do: its disk is full, say. */
        http_reply(request, 503, JSON_TYPE, refusal, strlen(refusal));
        return;
    }
    if (uncertain)
        text = xasprintf(
            "outcome unknown: the leader was lost before it answered (%s); the request may be repeated", why);
    else
        text = xasprintf("no leader: %s", why);
    reply_error(request, uncertain ? 504 : 503, text);
}

static const char *trouble(struct router *router)
{
    const char *why = router->callbacks.trouble(router->data);

    return why[0] != '\0' ? why : "it has just been lost";
}

/* ---- waiting ---- */

static void pending_send(struct router *router, struct pending *pending)
{
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    message.message_case = FLEET__SESSION_UP__MESSAGE_API_REQUEST;
    message.api_request = &pending->message;
    pending->sent = router->callbacks.send(&message, router->data);
}

static void on_timer(uv_timer_t *timer);

/* Looks at what waits in so many milliseconds, or before. */
static void look_in(struct router *router, uint64_t ms)
{
    if (!uv_is_active((uv_handle_t *)&router->timer) || uv_timer_get_due_in(&router->timer) > ms)
        uv_timer_start(&router->timer, on_timer, ms, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct router *router = timer->data;
    struct pending *pending, *next;
    uint64_t now = uv_now(router->loop), next_ms = UINT64_MAX;
    bool unsent = false;

    HASH_ITER (hh, router->pending, pending, next) {
        if (pending->sent && pending->lasting)
            continue;
        if (now >= pending->deadline_ms) {
            pending->uncertain = pending->uncertain || (pending->sent && pending->message.request_id.len > 0);
            pending_fail(router, pending,
                         pending->sent ? "the one there was does not answer" : trouble(router));
            continue;
        }
        if (!pending->sent)
            pending_send(router, pending);
        unsent = unsent || !pending->sent;
        if (pending->deadline_ms < next_ms)
            next_ms = pending->deadline_ms;
    }
    if (unsent)
        look_in(router, RETRY_MS);
    else if (next_ms != UINT64_MAX)
        look_in(router, next_ms - now);
}

static void wait_for_leader(struct router *router, struct pending *pending)
{
    pending->sent = false;
    if (pending->lasting) /* It may have gone on for long; now it needs a leader again. */
        pending->deadline_ms = uv_now(router->loop) + ROUTER_CHANGE_MS;
    look_in(router, RETRY_MS);
}

/* ---- requests ---- */

static void fill_message(struct pending *pending)
{
    struct http_request *request = pending->request;
    Fleet__ApiRequest *message = &pending->message;

    fleet__api_request__init(message);
    pending->labels = xcalloc(request->query_count, sizeof *pending->labels);
    pending->label_list = xcalloc(request->query_count, sizeof *pending->label_list);
    for (size_t i = 0; i < request->query_count; i++) {
        fleet__label__init(&pending->labels[i]);
        pending->labels[i].key = (char *)request->query[i].key;
        pending->labels[i].value = (char *)request->query[i].value;
        pending->label_list[i] = &pending->labels[i];
    }
    message->id = pending->id;
    message->method = (char *)request->method;
    message->path = (char *)request->path;
    message->query = pending->label_list;
    message->n_query = request->query_count;
    message->body = (ProtobufCBinaryData){.len = request->body_size, .data = (uint8_t *)request->body};
    message->content_type = (char *)(request->content_type != NULL ? request->content_type : "");
    message->content_type_count = request->content_type_count;
    message->peer = (char *)request->peer;
    message->user_agent = (char *)request->user_agent;
    access_to_wire(request->caller, &pending->caller);
    message->caller = &pending->caller;
    if (api_request_changes(message))
        message->request_id = (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = pending->request_id};
}

static struct pending *pending_new(struct router *router, struct http_request *request)
{
    struct pending *pending = NEW0(struct pending);

    pending->id = ++router->last_id;
    pending->request = request;
    request->owner = pending;
    if (getrandom(pending->request_id, sizeof pending->request_id, 0) != (ssize_t)sizeof pending->request_id)
        abort();
    fill_message(pending);
    pending->lasting = api_request_lasts(&pending->message);
    pending->deadline_ms =
        uv_now(router->loop) + (streq(request->method, "GET") ? ROUTER_READ_MS : ROUTER_CHANGE_MS);
    HASH_ADD(hh, router->pending, id, sizeof pending->id, pending);
    return pending;
}

struct local_answer {
    unsigned status;
    char *content_type;
    char *body;
    size_t size;
};

static void on_local_answer(const struct api_answer *answer, void *data)
{
    struct local_answer *copy = data;

    copy->status = answer->status;
    copy->content_type = xstrdup(answer->content_type);
    copy->body = xmemdup(answer->body, answer->size);
    copy->size = answer->size;
}

/* What this host knows, or any would say, at once: nothing is waited for, so the answer comes inside the
 * call. */
static void answer_here(struct router *router, struct pending *pending)
{
    struct http_request *request = pending->request;
    struct local_answer answer = {0};
    uint64_t handle = router->callbacks.local(&pending->message, on_local_answer, &answer, router->data);

    assert(handle == 0); /* 'answer' is only here. */
    pending_free(router, pending);
    http_reply(request, answer.status, answer.content_type, answer.body, answer.size);
    free(answer.content_type);
    free(answer.body);
}

static bool is_status(const struct http_request *request)
{
    return streq(request->path, "/fleet/v1/status") || streq(request->path, "/v1-alpha/status");
}

/* What a host tells of itself, whatever has become of the cluster. Returns false if it is something else. */
static bool answer_about_host(struct router *router, struct http_request *request)
{
    _cleanup_(freep) char *body = NULL;

    if (streq(request->path, "/metrics")) { /* By any method, as in the first fleet (§4.3). */
        body = router->callbacks.metrics(router->data);
        http_reply(request, 200, METRICS_CONTENT_TYPE, body, strlen(body));
    } else if (!is_status(request)) {
        return false;
    } else if (streq(request->method, "GET")) {
        body = router->callbacks.status(router->data);
        http_reply(request, 200, JSON_TYPE, body, strlen(body));
    } else {
        reply_error(request, 405, "only GET supported against this resource");
    }
    return true;
}

static bool is_about_host(const struct http_request *request)
{
    return streq(request->path, "/metrics") || is_status(request);
}

static bool refuse(struct router *router, struct http_request *request, enum pki_role needed, bool here)
{
    struct err err = {0};
    struct audit_event event;

    if (router->callbacks.admit(request->caller, needed, here, &err, router->data) >= 0)
        return false;
    event = event_of(request, 403, err.text);
    audit_refusal(&router->refusals, &event, uv_now(router->loop));
    reply_error(request, 403, err.text);
    return true;
}

bool router_admits(struct router *router, struct http_request *request, enum pki_role needed)
{
    return !refuse(router, request, needed, true);
}

void router_request(struct router *router, struct http_request *request)
{
    struct pending *pending;

    if (refuse(router, request, PKI_ROLE_VIEWER, is_about_host(request)))
        return;
    if (answer_about_host(router, request))
        return;
    if (!router->callbacks.member(router->data)) {
        request->unnamed = true; /* The API is not there (§4.1). */
        reply_error(
            request, 503,
            "this host belongs to no cluster yet: \"fleetctl init\" makes one, \"fleetctl join HOST:PORT "
            "--token-file FILE\" joins one");
        return;
    }
    pending = pending_new(router, request);
    if (api_request_is_local(&pending->message)) {
        answer_here(router, pending);
        return;
    }
    pending_send(router, pending);
    look_in(router, pending->sent ? ROUTER_READ_MS : RETRY_MS);
}

void router_gone(struct router *router, struct http_request *request)
{
    struct pending *pending = request->owner;
    Fleet__ApiCancel cancel = FLEET__API_CANCEL__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    if (pending == NULL)
        return;
    if (pending->sent) {
        cancel.id = pending->id;
        message.message_case = FLEET__SESSION_UP__MESSAGE_API_CANCEL;
        message.api_cancel = &cancel;
        router->callbacks.send(&message, router->data);
    }
    pending_free(router, pending);
}

static void retry(struct router *router, struct pending *pending, const Fleet__ApiReply *reply)
{
    uint64_t until_ms = uv_now(router->loop) + REFUSED_MS;

    pending->uncertain = pending->uncertain || reply->status == 504;
    if (reply->status == 503 && pending->refusal == NULL && until_ms < pending->deadline_ms)
        pending->deadline_ms = until_ms;
    free(pending->refusal);
    pending->refusal = reply->body.len > 0 ? xstrndup((const char *)reply->body.data, reply->body.len) : NULL;
    pending->sent = false;
    look_in(router, RETRY_MS);
}

void router_reply(struct router *router, const Fleet__ApiReply *reply)
{
    struct pending *pending;
    struct http_request *request;

    HASH_FIND(hh, router->pending, &reply->id, sizeof reply->id, pending);
    if (pending == NULL)
        return;
    if (pending->lasting && reply->status == 503) {
        wait_for_leader(router, pending);
        return;
    }
    /* It did not lead any more, or lost leadership over it: the next leader will know (the request id makes
     * it safe). */
    if ((reply->status == 503 || reply->status == 504) && uv_now(router->loop) < pending->deadline_ms) {
        retry(router, pending, reply);
        return;
    }
    request = pending->request;
    pending_free(router, pending);
    if (reply->status < 200 || reply->status > 599) {
        reply_error(request, 502, "the leader's answer makes no sense here: is its version a later one?");
        return;
    }
    http_reply(request, reply->status, reply->content_type[0] != '\0' ? reply->content_type : NULL,
               reply->body.data, reply->body.len);
}

void router_connected(struct router *router)
{
    on_timer(&router->timer);
}

void router_disconnected(struct router *router)
{
    struct pending *pending, *next;

    HASH_ITER (hh, router->pending, pending, next) {
        if (!pending->sent)
            continue;
        pending->uncertain = pending->uncertain || pending->message.request_id.len > 0;
        wait_for_leader(router, pending);
    }
}

/* ---- life ---- */

struct router *router_new(uv_loop_t *loop, const struct router_callbacks *callbacks, void *data)
{
    struct router *router = NEW0(struct router);

    router->loop = loop;
    router->callbacks = *callbacks;
    router->data = data;
    uv_timer_init(loop, &router->timer);
    router->timer.data = router;
    return router;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct router *router = handle->data;
    void (*closed)(void *) = router->closed;
    void *closed_data = router->closed_data;

    free(router);
    closed(closed_data);
}

void router_close(struct router *router, void (*done)(void *data), void *data)
{
    struct pending *pending, *next;

    router->closed = done;
    router->closed_data = data;
    HASH_ITER (hh, router->pending, pending, next)
        pending_fail(router, pending, "fleetd is stopping");
    uv_close((uv_handle_t *)&router->timer, on_timer_closed);
}
