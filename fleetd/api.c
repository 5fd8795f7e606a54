/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/api.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/api_backup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "fleetd/api_wait.h"
#include "raftstore/limits.h"

/* How the first fleet's client calls itself (fleet-behaviour.md §0.4). */
#define FIRST_FLEET_AGENT "google-api-go-client/"

/* What the store gives back with its answer. It outlives the request, and the API itself. */
struct api_ticket {
    struct api *api;             /* NULL: freed meanwhile. */
    struct api_request *request; /* NULL: gone meanwhile. */
    struct api_ticket *prev, *next;
};

/* ---- tickets ---- */

static struct api_ticket *ticket_new(struct api_request *request)
{
    struct api_ticket *ticket = NEW0(struct api_ticket);

    assert(request->ticket == NULL);
    ticket->api = request->api;
    ticket->request = request;
    request->ticket = ticket;
    DL_APPEND(request->api->tickets, ticket);
    return ticket;
}

/* Ends the ticket; returns its request, if that is still there. */
static struct api_request *ticket_redeem(struct api_ticket *ticket)
{
    struct api_request *request = ticket->request;

    if (ticket->api != NULL)
        DL_DELETE(ticket->api->tickets, ticket);
    if (request != NULL)
        request->ticket = NULL;
    free(ticket);
    return request;
}

/* ---- requests ---- */

static void request_free(struct api_request *request)
{
    strlist_done(&request->query);
    free(request->name);
    free(request->peer);
    free(request->verb);
    free(request->path);
    free(request->via);
    free(request->outcome);
    free(request);
}

/* Nothing of the API knows the request any more. */
static void request_unlink(struct api_request *request)
{
    HASH_DEL(request->api->requests, request);
    if (request->ticket != NULL)
        request->ticket->request = NULL;
    request->ticket = NULL;
    if (request->work_free != NULL)
        request->work_free(request->work);
    request->work_free = NULL;
}

static struct api_request *request_new(struct api *api, const Fleet__ApiRequest *message, const char *via,
                                       api_done *done, void *data)
{
    struct api_request *request = NEW0(struct api_request);

    request->api = api;
    request->handle = ++api->last_handle;
    request->done = done;
    request->done_data = data;
    access_from_wire(message->caller, &request->caller);
    request->via = xstrdup(via);
    request->peer = xstrdup(message->peer);
    request->verb = xstrdup(message->method);
    request->path = xstrdup(message->path);
    request->first_fleet = str_has_prefix(message->user_agent, FIRST_FLEET_AGENT);
    for (size_t i = 0; i < message->n_query; i++) {
        strlist_add(&request->query, message->query[i]->key);
        strlist_add(&request->query, message->query[i]->value);
    }
    request->has_request_id = message->request_id.len == REQUEST_ID_SIZE;
    if (request->has_request_id)
        memcpy(request->request_id, message->request_id.data, REQUEST_ID_SIZE);
    HASH_ADD(hh, api->requests, handle, sizeof request->handle, request);
    return request;
}

/* Handlers run between these two, so that a request may be answered in the midst of them. */
static void request_hold(struct api_request *request)
{
    assert(!request->held);
    request->held = true;
}

static void request_release(struct api_request *request)
{
    request->held = false;
    if (request->answered)
        request_free(request);
}

const struct registry *api_registry(const struct api_request *request)
{
    return request->api->backend.registry(request->api->data);
}

const struct core *api_core(const struct api_request *request)
{
    return request->api->backend.core(request->api->data);
}

const char *api_query(const struct api_request *request, const char *key)
{
    for (size_t i = 0; i + 1 < request->query.count; i += 2)
        if (streq(request->query.items[i], key))
            return request->query.items[i + 1];
    return "";
}

size_t api_query_count(const struct api_request *request, const char *key)
{
    size_t count = 0;

    for (size_t i = 0; i + 1 < request->query.count; i += 2)
        count += streq(request->query.items[i], key);
    return count;
}

/* ---- answers ---- */

void api_answer(struct api_request *request, unsigned status, const char *content_type, const char *body,
                size_t size)
{
    const struct api_answer answer = {
        .status = status, .content_type = content_type, .body = body, .size = size};

    assert(!request->answered);
    request->answered = true;
    api_write_down(request, status);
    request_unlink(request);
    request->done(&answer, request->done_data);
    if (!request->held)
        request_free(request);
}

void api_answer_empty(struct api_request *request, unsigned status)
{
    api_answer(request, status, NULL, NULL, 0);
}

static void answer_json(struct api_request *request, unsigned status, json_t *object)
{
    size_t size;
    _cleanup_(freep) char *text = api_json_print(object, &size);

    json_decref(object);
    api_answer(request, status, CONTENT_TYPE_JSON, text, size);
}

void api_answer_json(struct api_request *request, json_t *object)
{
    if (request->stale) {
        json_object_set_new(object, "stale", json_true());
        api_json_set_count(object, "applied", registry_version(api_registry(request)));
    }
    answer_json(request, 200, object);
}

void api_answer_error(struct api_request *request, unsigned status, const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    json_t *error = json_object(), *object = json_object();
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    free(request->outcome);
    request->outcome = xstrdup(text);
    api_json_set_count(error, "code", status);
    json_object_set_new(error, "message", api_json_text(text)); /* Also when it is empty. */
    json_object_set_new(object, "error", error);
    answer_json(request, status, object);
}

/* The one place where errnos become HTTP statuses. */
static unsigned status_of(int code)
{
    switch (code) {
    case -EINVAL: return 400;
    case -ENOENT: return 404;
    case -EBUSY:
    case -EEXIST:
    case -EPROTO: /* Not all hosts know it yet. */
    case -ESTALE: return 409;
    case -E2BIG:
    case -EMSGSIZE: return 413;
    case -ENOSPC: return 507;
    default: return 500;
    }
}

void api_answer_failure(struct api_request *request, int code, const struct err *err)
{
    api_answer_error(request, status_of(code), "%s", err_text(err, code));
}

void api_answer_refused(struct api_request *request, const struct registry_result *result)
{
    api_answer_error(request, status_of(result->status), "%s", result->text);
}

void api_answer_done(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        api_answer_empty(request, 204);
    else
        api_answer_refused(request, result);
}

int api_request_page(struct api_request *request, struct api_page *page)
{
    size_t tokens = api_query_count(request, "nextPageToken");
    struct err err = {0};
    int r;

    if (tokens > 1)
        r = err_set(&err, -EINVAL, "too many values for page token");
    else
        r = api_page_begin(page, tokens > 0 ? api_query(request, "nextPageToken") : NULL,
                           request->api->token_limit, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    return r;
}

/* ---- the store ---- */

const struct registry_result *api_earlier(const struct api_request *request)
{
    return request->has_request_id ? registry_request(api_registry(request), request->request_id) : NULL;
}

static void on_proposed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                        void *data)
{
    struct api_request *request = ticket_redeem(data);

    if (request == NULL)
        return;
    if (outcome == STORE_REFUSED) {
        api_answer_error(request, 503, "nothing was changed: %s", reason);
    } else if (outcome == STORE_UNKNOWN) {
        api_answer_error(request, 504, "outcome unknown: %s; the request may be repeated safely", reason);
    } else {
        bool was_held = request->held;

        request->held = true;
        request->applied(request, result);
        assert(request->answered);
        if (!was_held)
            request_release(request);
    }
}

void api_propose(struct api_request *request, Fleet__Command *command,
                 void (*applied)(struct api_request *request, const struct registry_result *result))
{
    size_t size;

    command->format = COMMAND_FORMAT;
    if (request->has_request_id)
        command->request_id = (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = request->request_id};
    size = (4 + fleet__command__get_packed_size(command) + 7) / 8 * 8 + COMMAND_STAMP_MAX;
    if (size > COMMAND_MAX) {
        api_answer_error(request, 413, "the change is %zu bytes, the limit for one request is %u: divide it",
                         size, COMMAND_MAX);
        return;
    }
    request->applied = applied;
    request->proposed = true;
    request->api->backend.propose(command, on_proposed, ticket_new(request), request->api->data);
}

static void on_barrier(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct api_request *request = ticket_redeem(data);
    bool was_held;

    if (request == NULL)
        return;
    if (outcome != STORE_APPLIED) {
        api_answer_error(request, 503, "no leader: %s", reason);
        return;
    }
    was_held = request->held;
    request->held = true;
    request->method->answer(request);
    if (!was_held)
        request_release(request);
}

/* ---- requests come and go ---- */

static void request_start(struct api_request *request, const Fleet__ApiRequest *message)
{
    struct api *api = request->api;
    const struct api_method *method = request->method;

    request->stale = api_asks_stale(method, message);
    if (method->kind != API_LOCAL && !request->stale && !api->backend.leads(api->data)) {
        api_answer_error(request, 503, "no leader: this host does not lead the cluster (any more)");
        return;
    }
    if (method->begin != NULL)
        method->begin(request, message);
    if (request->answered || (method->kind != API_READ && method->kind != API_WAIT))
        return;
    if (request->stale)
        method->answer(request);
    else
        api->backend.barrier(on_barrier, ticket_new(request), api->data);
}

static void request_route(struct api_request *request, const Fleet__ApiRequest *message)
{
    const char *name = NULL, *text;
    unsigned status;
    struct err err = {0};

    request->method = api_route(message->path, message->method, &name, &status, &text);
    request->name = xstrdup(name);
    if (api_admit(request, request->method != NULL ? request->method->needs : PKI_ROLE_VIEWER, &err) < 0)
        api_answer_error(request, 403, "%s", err.text);
    else if (request->method == NULL)
        api_answer_error(request, status, "%s", text);
    else if (message->body.len > API_BODY_MAX)
        api_answer_error(request, 413, "the body is %zu bytes, the limit is %u", message->body.len,
                         API_BODY_MAX);
    else if (request->api->closing)
        api_answer_error(request, 503, "no leader: fleetd is stopping");
    else if (HASH_COUNT(request->api->requests) > API_OPEN_MAX)
        api_answer_error(request, 503, "too many requests wait for their answer, the limit is %u",
                         API_OPEN_MAX);
    else
        request_start(request, message);
}

uint64_t api_handle(struct api *api, const Fleet__ApiRequest *message, const char *via, api_done *done,
                    void *data)
{
    struct api_request *request = request_new(api, message, via, done, data);
    uint64_t handle;

    request_hold(request);
    request_route(request, message);
    handle = request->answered ? 0 : request->handle;
    request_release(request);
    return handle;
}

void api_cancel(struct api *api, uint64_t handle)
{
    struct api_request *request;

    HASH_FIND(hh, api->requests, &handle, sizeof handle, request);
    if (request == NULL)
        return;
    if (request->proposed)
        api_write_down(request, 0);
    request_unlink(request);
    request_free(request);
}

void api_unit_changed(struct api *api, const char *unit)
{
    api_wait_look(api, unit);
    api_hosts_look(api, unit);
}

void api_yield(struct api *api)
{
    uint64_t last = api->last_handle; /* Those that come meanwhile are others. */

    api_backup_end_all(api);
    while (api->requests != NULL && api->requests->handle <= last) {
        struct api_request *request = api->requests;

        if (request->proposed)
            api_answer_error(request, 504,
                             "outcome unknown: leadership was lost; the request may be repeated safely");
        else
            api_answer_error(request, 503, "no leader: leadership was lost");
    }
}

void api_tick(struct api *api, uint64_t now_ms)
{
    api_wait_tick(api, now_ms);
    api_backup_tick(api, now_ms);
}

uint64_t api_deadline_ms(const struct api *api)
{
    uint64_t wait_ms = api_wait_deadline_ms(api), backup_ms = api_backup_deadline_ms(api);

    return wait_ms < backup_ms ? wait_ms : backup_ms;
}

/* ---- life ---- */

struct api *api_new(const struct api_backend *backend, void *data, unsigned token_limit)
{
    struct api *api = NEW0(struct api);

    api->backend = *backend;
    api->data = data;
    api_set_token_limit(api, token_limit);
    return api;
}

void api_set_token_limit(struct api *api, unsigned token_limit)
{
    if (token_limit == 0)
        token_limit = PAGE_LIMIT_DEFAULT;
    api->token_limit = token_limit < PAGE_LIMIT_MAX ? token_limit : PAGE_LIMIT_MAX;
}

void api_free(struct api *api)
{
    if (api == NULL)
        return;
    api->closing = true;
    while (api->requests != NULL)
        api_answer_error(api->requests, 503, "no leader: fleetd is stopping");
    for (struct api_ticket *ticket = api->tickets; ticket != NULL; ticket = ticket->next)
        ticket->api = NULL;
    api_backup_end_all(api);
    api_linger_free(api);
    free(api);
}
