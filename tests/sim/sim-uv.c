/* SPDX-License-Identifier: Apache-2.0 */
/* As much of libuv as fleetd uses outside of its sockets, on the virtual clock. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/sim/sim.h"

#define ITERATIONS_MAX 1000u /* Of one turn, while something wants to go on at once. */

struct sim_handle {
    uv_handle_t *handle;
    uv_handle_type type;
    bool active;
    uint64_t repeat_ms;
    size_t place; /* Of an active timer in its host's 'dues'. */
    int signum;
    union {
        uv_timer_cb timer;
        uv_idle_cb idle;
        uv_prepare_cb prepare;
        uv_signal_cb signal;
    } cb;
    struct sim_handle *prev, *next;
};

/* Apart from their handles, for in every turn the first one is looked for. */
struct sim_due {
    uint64_t at_ms, order;
    struct sim_handle *timer;
};

static uint64_t timer_order;

static struct sim_handle *of(const void *handle)
{
    return ((const uv_handle_t *)handle)->u.reserved[0];
}

static struct sim_host *host_of(const uv_loop_t *loop)
{
    return loop->data;
}

static int init(uv_loop_t *loop, void *memory, uv_handle_type type)
{
    struct sim_handle *own = NEW0(struct sim_handle);
    struct sim_host *host = host_of(loop);
    uv_handle_t *handle = memory;

    own->handle = handle;
    own->type = type;
    handle->loop = loop;
    handle->type = type;
    handle->u.reserved[0] = own;
    DL_APPEND(host->handles, own);
    if (type == UV_IDLE)
        host->idle = own;
    else if (type == UV_PREPARE)
        host->prepare = own;
    return 0;
}

static void unset_due(struct sim_host *host, struct sim_handle *timer)
{
    if (!timer->active)
        return;
    timer->active = false;
    host->dues[timer->place] = host->dues[--host->due_count];
    host->dues[timer->place].timer->place = timer->place;
}

static void set_due(struct sim_host *host, struct sim_handle *timer, uint64_t ms)
{
    if (!timer->active) {
        GROW(host->dues, host->due_capacity, host->due_count + 1);
        timer->place = host->due_count++;
        timer->active = true;
    }
    host->dues[timer->place] = (struct sim_due){sim.now_ms + sim_true_ms(host, ms), timer_order++, timer};
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    return init(loop, timer, UV_TIMER);
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    struct sim_handle *own = of(timer);

    own->cb.timer = cb;
    own->repeat_ms = repeat;
    set_due(host_of(timer->loop), own, timeout);
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    unset_due(host_of(timer->loop), of(timer));
    return 0;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *timer)
{
    const struct sim_host *host = host_of(timer->loop);
    const struct sim_handle *own = of(timer);

    if (!own->active || host->dues[own->place].at_ms <= sim.now_ms)
        return 0;
    return (host->dues[own->place].at_ms - sim.now_ms) * host->clock_rate / 1000;
}

int uv_idle_init(uv_loop_t *loop, uv_idle_t *idle)
{
    return init(loop, idle, UV_IDLE);
}

int uv_idle_start(uv_idle_t *idle, uv_idle_cb cb)
{
    of(idle)->cb.idle = cb;
    of(idle)->active = true;
    return 0;
}

int uv_idle_stop(uv_idle_t *idle)
{
    of(idle)->active = false;
    return 0;
}

int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *prepare)
{
    return init(loop, prepare, UV_PREPARE);
}

int uv_prepare_start(uv_prepare_t *prepare, uv_prepare_cb cb)
{
    of(prepare)->cb.prepare = cb;
    of(prepare)->active = true;
    return 0;
}

int uv_signal_init(uv_loop_t *loop, uv_signal_t *handle)
{
    return init(loop, handle, UV_SIGNAL);
}

int uv_signal_start(uv_signal_t *handle, uv_signal_cb cb, int signum)
{
    of(handle)->cb.signal = cb;
    of(handle)->signum = signum;
    of(handle)->active = true;
    return 0;
}

int uv_is_active(const uv_handle_t *handle)
{
    return of(handle)->active;
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return sim_clock_ms(host_of(loop));
}

uint64_t uv_hrtime(void)
{
    return (sim.current != NULL ? sim_clock_ms(sim.current) : sim.now_ms) * 1000000;
}

/* ---- work in a thread ---- */

struct work {
    uv_work_t *work; /* NULL: cancelled. */
    uv_work_cb work_cb;
    uv_after_work_cb after_cb;
};

static void on_work(void *data, bool lost)
{
    struct work *own = data;

    if (!lost && own->work != NULL) {
        own->work_cb(own->work);
        own->after_cb(own->work, 0);
    }
    free(own);
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *work, uv_work_cb work_cb, uv_after_work_cb after_cb)
{
    struct work *own = NEW0(struct work);

    *own = (struct work){work, work_cb, after_cb};
    work->reserved[0] = own;
    work->after_work_cb = after_cb;
    sim_after(1 + sim_random(20), SIM_FLEETD, host_of(loop), on_work, own);
    return 0;
}

static void cancelled(void *data)
{
    uv_work_t *work = data;

    work->after_work_cb(work, UV_ECANCELED);
}

int uv_cancel(uv_req_t *req)
{
    struct work *own = req->reserved[0];

    sim_defer(sim.current, cancelled, TAKE_PTR(own->work));
    return 0;
}

static void closed(void *data)
{
    uv_handle_t *handle = data;

    handle->close_cb(handle);
}

void uv_close(uv_handle_t *handle, uv_close_cb cb)
{
    struct sim_host *host = host_of(handle->loop);
    struct sim_handle *own = of(handle);

    DL_DELETE(host->handles, own);
    if (own->type == UV_TIMER)
        unset_due(host, own);
    if (host->idle == own)
        host->idle = NULL;
    if (host->prepare == own)
        host->prepare = NULL;
    free(own);
    handle->u.reserved[0] = NULL;
    handle->close_cb = cb;
    if (cb != NULL)
        sim_defer(host, closed, handle);
}

void sim_uv_signal(struct sim_host *host, int number)
{
    struct sim_handle *own;

    DL_FOREACH (host->handles, own)
        if (own->type == UV_SIGNAL && own->active && own->signum == number) {
            own->cb.signal((uv_signal_t *)own->handle, number);
            return;
        }
}

static bool is_active(const struct sim_handle *own)
{
    return own != NULL && own->active;
}

/* fleetd has one handle of either kind. */
void sim_uv_turn(struct sim_host *host)
{
    unsigned iterations = 0;

    do {
        if (is_active(host->idle))
            host->idle->cb.idle((uv_idle_t *)host->idle->handle);
        if (is_active(host->prepare))
            host->prepare->cb.prepare((uv_prepare_t *)host->prepare->handle);
        if (++iterations > ITERATIONS_MAX)
            sim_fail("%s: the loop never sleeps", host->name);
    } while (is_active(host->idle));
}

static const struct sim_due *first_due(const struct sim_host *host)
{
    const struct sim_due *first = NULL;

    for (const struct sim_due *due = host->dues; due < host->dues + host->due_count; due++)
        if (first == NULL || due->at_ms < first->at_ms ||
            (due->at_ms == first->at_ms && due->order < first->order))
            first = due;
    return first;
}

struct wake {
    struct sim_host *host;
    uint64_t number;
};

/* Timers that are started from here with 0 are for the next turn. Only what was asked for last counts: after
 * a standstill several would come at once, and nothing would be read in between. */
static void on_wake(void *data, bool lost)
{
    struct wake *wake = data;
    struct sim_host *host = wake->host;
    uint64_t order = timer_order, number = wake->number;
    const struct sim_due *due;

    free(wake);
    if (lost || number != host->wake_number)
        return;
    host->wake_ms = UINT64_MAX;
    while ((due = first_due(host)) != NULL && due->at_ms <= sim.now_ms && due->order < order) {
        struct sim_handle *own = due->timer;

        if (own->repeat_ms > 0)
            set_due(host, own, own->repeat_ms);
        else
            unset_due(host, own);
        own->cb.timer((uv_timer_t *)own->handle);
    }
}

static struct sim_handle *timer_from_before(struct sim_host *host, uint64_t order)
{
    const struct sim_due *first = NULL;

    for (size_t i = 0; i < host->due_count; i++)
        if (host->dues[i].order < order && (first == NULL || host->dues[i].order < first->order))
            first = &host->dues[i];
    return first != NULL ? first->timer : NULL;
}

void sim_uv_end_waits(void *data)
{
    struct sim_host *host = data;
    uint64_t order = timer_order;
    struct sim_handle *own;

    while ((own = timer_from_before(host, order)) != NULL) {
        unset_due(host, own);
        own->cb.timer((uv_timer_t *)own->handle);
    }
}

void sim_uv_wake(struct sim_host *host)
{
    const struct sim_due *first = first_due(host);
    struct wake *wake;

    if (first == NULL || first->at_ms >= host->wake_ms)
        return;
    wake = NEW0(struct wake);
    *wake = (struct wake){host, ++host->wake_number};
    host->wake_ms = first->at_ms;
    sim_after(first->at_ms > sim.now_ms ? first->at_ms - sim.now_ms : 0, SIM_FLEETD, host, on_wake, wake);
}

void sim_uv_done(struct sim_host *host)
{
    free(host->dues);
    host->dues = NULL;
    host->due_count = host->due_capacity = 0;
}
