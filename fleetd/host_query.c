/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/host_query.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/api_json.h"
#include "fleetd/unit_journal.h"
#include "fleetd/unit_status.h"
#include "raftstore/limits.h"
#include "units/name.h"

/* Of which the leader asks for at least. */
#define ANSWER_MIN 8192u

/* One question. Its thread owns 'text' and 'err' until it has put it on the list of those that are done. */
struct host_query {
    struct host_queries *queries;
    Fleet__HostRequest *request;
    bool user;
    int cancel_fd; /* -1: not begun. */
    bool cancelled;
    pthread_t thread;
    char *text; /* NULL: 'err' says why. */
    size_t size;
    struct err err;
    struct host_query *prev, *next;
    struct host_query *done_next;
};

struct host_queries {
    uv_loop_t *loop;
    bool user;
    host_queries_reply *reply;
    void *data;
    uv_async_t async;
    struct host_query *running;
    unsigned count;
    pthread_mutex_t lock; /* Of... */
    struct host_query *done;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- in the thread ---- */

static size_t max_bytes(const Fleet__HostRequest *request)
{
    if (request->max_bytes < ANSWER_MIN)
        return ANSWER_MIN;
    return request->max_bytes < HOST_ANSWER_MAX ? request->max_bytes : HOST_ANSWER_MAX;
}

static int read_journal(const struct host_query *query, size_t max, json_t **ret, struct err *err)
{
    const Fleet__HostRequest *request = query->request;
    const uint64_t now = now_ms();
    const uint64_t wait_ms =
        request->wait_ms < API_JOURNAL_WAIT_MS_MAX ? request->wait_ms : API_JOURNAL_WAIT_MS_MAX;
    const struct unit_journal_query journal = {
        .unit = request->unit,
        .user = query->user,
        .lines = request->lines < API_JOURNAL_LINES_MAX ? request->lines : API_JOURNAL_LINES_MAX,
        .cursor = request->cursor,
        .until_ms = wait_ms > 0 ? now + wait_ms : 0,
        .give_up_ms = now + wait_ms + HOST_QUERY_MS,
        .max_bytes = max,
        .all_fields = request->all_fields,
        .cancel_fd = query->cancel_fd,
    };

    if (strlen(request->cursor) > HOST_CURSOR_MAX)
        return err_set(err, -EINVAL, "the place in the journal is longer than %u bytes", HOST_CURSOR_MAX);
    return unit_journal_read(&journal, ret, err);
}

/* What systemd says, and the last words. A journal that cannot be read does not hide the rest. */
static int read_status(const struct host_query *query, size_t max, json_t **ret, struct err *err)
{
    _cleanup_(api_json_decrefp) json_t *journal = NULL;
    struct err why = {0};
    int r = unit_status_read(query->request->unit, query->user, max / 2, ret, err);

    if (r < 0 || query->request->lines == 0)
        return r;
    r = read_journal(query, max / 2, &journal, &why);
    if (r == -ECANCELED) {
        json_decref(*ret);
        return r;
    }
    if (r < 0)
        api_json_set_text(*ret, "journalError", err_text(&why, r));
    else
        json_object_set(*ret, "journal", json_object_get(journal, "entries"));
    return 0;
}

static int answer(struct host_query *query)
{
    _cleanup_(api_json_decrefp) json_t *json = NULL;
    const size_t max = max_bytes(query->request);
    int r = unit_name_check(query->request->unit, &query->err);

    if (r < 0)
        return r;
    switch (query->request->question) {
    case FLEET__HOST_QUESTION__HOST_QUESTION_STATUS: r = read_status(query, max, &json, &query->err); break;
    case FLEET__HOST_QUESTION__HOST_QUESTION_JOURNAL: r = read_journal(query, max, &json, &query->err); break;
    default: return err_set(&query->err, -ENOTSUP, "its fleetd is too old for this question");
    }
    if (r < 0)
        return r;
    query->text = api_json_print(json, &query->size);
    if (query->size > max) {
        free(TAKE_PTR(query->text));
        return err_set(&query->err, -E2BIG, "its answer has %zu bytes, asked for were at most %zu",
                       query->size, max);
    }
    return 0;
}

static void *run(void *data)
{
    struct host_query *query = data;
    struct host_queries *queries = query->queries;
    int r = answer(query);

    if (r < 0 && query->err.text[0] == '\0')
        err_set(&query->err, r, "%s", err_text(&query->err, r));
    pthread_mutex_lock(&queries->lock);
    LL_PREPEND2(queries->done, query, done_next);
    pthread_mutex_unlock(&queries->lock);
    uv_async_send(&queries->async);
    return NULL;
}

/* ---- on the loop ---- */

static void query_free(struct host_query *query)
{
    fleet__host_request__free_unpacked(query->request, NULL);
    closep(&query->cancel_fd);
    free(query->text);
    free(query);
}

static void send_reply(struct host_query *query)
{
    Fleet__HostReply reply = FLEET__HOST_REPLY__INIT;

    reply.id = query->request->id;
    if (query->text != NULL)
        reply.json = (ProtobufCBinaryData){.len = query->size, .data = (uint8_t *)query->text};
    else
        reply.error = query->err.text;
    query->queries->reply(&reply, query->queries->data);
}

static void on_async_closed(uv_handle_t *handle)
{
    struct host_queries *queries = handle->data;
    void (*closed)(void *) = queries->closed;
    void *closed_data = queries->closed_data;

    pthread_mutex_destroy(&queries->lock);
    free(queries);
    closed(closed_data);
}

static void close_if_idle(struct host_queries *queries)
{
    if (queries->closing && queries->running == NULL && !uv_is_closing((uv_handle_t *)&queries->async))
        uv_close((uv_handle_t *)&queries->async, on_async_closed);
}

static void finish(struct host_query *query)
{
    struct host_queries *queries = query->queries;

    if (query->cancel_fd >= 0)
        pthread_join(query->thread, NULL);
    DL_DELETE(queries->running, query);
    queries->count--;
    if (!query->cancelled)
        send_reply(query);
    query_free(query);
}

static void on_async(uv_async_t *async)
{
    struct host_queries *queries = async->data;
    struct host_query *done, *query, *next;

    pthread_mutex_lock(&queries->lock);
    done = TAKE_PTR(queries->done);
    pthread_mutex_unlock(&queries->lock);
    LL_FOREACH_SAFE2(done, query, next, done_next)
    finish(query);
    close_if_idle(queries);
}

static int start(struct host_query *query)
{
    int r;

    query->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (query->cancel_fd < 0)
        return -errno;
    r = pthread_create(&query->thread, NULL, run, query);
    if (r != 0)
        closep(&query->cancel_fd);
    return -r;
}

/* Answers from the loop, not from inside the question. */
static void refuse(struct host_query *query, int r, const char *why)
{
    struct host_queries *queries = query->queries;

    query->cancel_fd = -1;
    err_set(&query->err, r, "%s", why);
    pthread_mutex_lock(&queries->lock);
    LL_PREPEND2(queries->done, query, done_next);
    pthread_mutex_unlock(&queries->lock);
    uv_async_send(&queries->async);
}

static Fleet__HostRequest *copy_request(const Fleet__HostRequest *request)
{
    size_t size = fleet__host_request__get_packed_size(request);
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);

    fleet__host_request__pack(request, bytes);
    return fleet__host_request__unpack(NULL, size, bytes);
}

void host_queries_begin(struct host_queries *queries, const Fleet__HostRequest *request)
{
    struct host_query *query = NEW0(struct host_query);
    int r;

    assert(!queries->closing);
    query->queries = queries;
    query->user = queries->user;
    query->cancel_fd = -1;
    query->request = copy_request(request);
    DL_APPEND(queries->running, query);
    if (++queries->count > HOST_QUESTIONS_MAX) {
        refuse(query, -EBUSY, "it works on as many questions as it may already: try again");
        return;
    }
    r = start(query);
    if (r < 0)
        refuse(query, r, "it cannot start a thread for the answer: too many processes?");
}

static void cancel(struct host_query *query)
{
    if (query->cancelled)
        return;
    query->cancelled = true;
    if (query->cancel_fd >= 0)
        eventfd_write(query->cancel_fd, 1);
}

void host_queries_cancel(struct host_queries *queries, uint64_t id)
{
    struct host_query *query;

    DL_FOREACH (queries->running, query)
        if (query->request->id == id)
            cancel(query);
}

void host_queries_cancel_all(struct host_queries *queries)
{
    struct host_query *query;

    DL_FOREACH (queries->running, query)
        cancel(query);
}

struct host_queries *host_queries_new(uv_loop_t *loop, bool user, host_queries_reply *reply, void *data)
{
    struct host_queries *queries = NEW0(struct host_queries);

    queries->loop = loop;
    queries->user = user;
    queries->reply = reply;
    queries->data = data;
    pthread_mutex_init(&queries->lock, NULL);
    uv_async_init(loop, &queries->async, on_async);
    queries->async.data = queries;
    return queries;
}

void host_queries_close(struct host_queries *queries, void (*done)(void *data), void *data)
{
    queries->closing = true;
    queries->closed = done;
    queries->closed_data = data;
    host_queries_cancel_all(queries);
    close_if_idle(queries);
}
