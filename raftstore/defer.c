/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/defer.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"

struct call {
    defer_fn *fn;
    void *data;
    struct call *prev, *next;
};

struct defer {
    uv_idle_t idle; /* Active while calls wait: then the loop does not sleep. */
    struct call *calls;
    bool running;
};

static void run(struct defer *defer)
{
    struct call *calls = defer->calls, *call, *next;

    defer->calls = NULL;
    defer->running = true;
    DL_FOREACH_SAFE (calls, call, next) {
        call->fn(call->data);
        free(call);
    }
    defer->running = false;
}

static void on_idle(uv_idle_t *idle)
{
    struct defer *defer = idle->data;

    run(defer);
    if (defer->calls == NULL)
        uv_idle_stop(idle);
}

struct defer *defer_new(uv_loop_t *loop)
{
    struct defer *defer = NEW0(struct defer);

    uv_idle_init(loop, &defer->idle);
    defer->idle.data = defer;
    return defer;
}

void defer_call(struct defer *defer, defer_fn *fn, void *data)
{
    struct call *call = NEW0(struct call);

    call->fn = fn;
    call->data = data;
    DL_APPEND(defer->calls, call);
    uv_idle_start(&defer->idle, on_idle);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void defer_close(struct defer *defer)
{
    assert(!defer->running); /* What is left of the turn would come after its owner's end. */
    while (defer->calls != NULL)
        run(defer);
    uv_close((uv_handle_t *)&defer->idle, on_closed);
}
