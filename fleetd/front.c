/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/front.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/times.h"
#include "fleetd/front_private.h"

#define SWEEP_MS 1000u

/* ---- the thread ---- */

static void on_sweep(uv_timer_t *timer)
{
    struct front *front = timer->data;
    uint64_t now = now_ms(), wall = wall_ms();
    struct front_listener *listener;
    struct front_conn *conn, *next;

    DL_FOREACH (front->listeners, listener)
        front_listener_resume(listener);
    DL_FOREACH_SAFE (front->conns, conn, next)
        front_conn_sweep(conn, now, wall);
    if (front->conns == NULL) {
        uv_timer_stop(timer);
        front->sweeping = false;
    }
}

void front_sweep_start(struct front *front)
{
    if (!front->sweeping && !front->stopping)
        uv_timer_start(&front->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    front->sweeping = true;
}

static void on_handshaker_closed(void *data)
{
}

static void stop(struct front *front)
{
    struct front_conn *conn, *next_conn;
    struct front_listener *listener, *next_listener;

    front->stopping = true;
    DL_FOREACH_SAFE (front->listeners, listener, next_listener)
        front_listener_close(listener);
    DL_FOREACH_SAFE (front->conns, conn, next_conn)
        front_conn_close(conn);
    tls_handshaker_close(front->handshaker, on_handshaker_closed, front);
    uv_close((uv_handle_t *)&front->sweep, NULL);
    uv_close((uv_handle_t *)&front->wake, NULL);
}

static void carry_out(struct front *front, const struct front_command *command)
{
    struct front_listener *listener;

    switch (command->kind) {
    case FRONT_ADD: front_listener_add(front, command->fd); break;
    case FRONT_REMOVE:
        DL_SEARCH_SCALAR(front->listeners, listener, fd, command->fd);
        if (listener != NULL)
            front_listener_close(listener);
        break;
    case FRONT_CREDENTIALS:
        tls_credentials_unref(front->credentials);
        front->credentials = command->credentials;
        break;
    case FRONT_STOP: stop(front); break;
    }
}

static void on_wake(uv_async_t *wake)
{
    struct front *front = wake->data;
    struct front_command *commands, *command, *next;

    uv_mutex_lock(&front->lock);
    commands = front->commands;
    front->commands = NULL;
    uv_mutex_unlock(&front->lock);
    DL_FOREACH_SAFE (commands, command, next) {
        carry_out(front, command);
        free(command);
    }
}

static void run(void *data)
{
    struct front *front = data;
    int r;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), TLS_THREAD_NICE); /* Linux: of this thread only. */
    front->handshaker = tls_handshaker_new(&front->own);
    uv_run(&front->own, UV_RUN_DEFAULT); /* Until everything is closed. */
    r = uv_loop_close(&front->own);
    assert(r == 0);
    tls_credentials_unref(front->credentials);
    uv_mutex_lock(&front->lock);
    front->ended = true;
    uv_mutex_unlock(&front->lock);
    uv_async_send(&front->reports);
}

void front_report(struct front *front, struct front_guest *guest)
{
    uv_mutex_lock(&front->lock);
    DL_APPEND(front->guests, guest);
    uv_mutex_unlock(&front->lock);
    uv_async_send(&front->reports);
}

/* ---- the daemon's side ---- */

static void on_reports_closed(uv_handle_t *handle)
{
    struct front *front = handle->data;
    void (*done)(void *) = front->done;
    void *data = front->done_data;

    uv_mutex_destroy(&front->lock);
    free(front);
    if (done != NULL)
        done(data);
}

static void on_reports(uv_async_t *async)
{
    struct front *front = async->data;
    struct front_guest *guests, *guest, *next;
    bool ended;

    uv_mutex_lock(&front->lock);
    guests = front->guests;
    front->guests = NULL;
    ended = front->ended;
    uv_mutex_unlock(&front->lock);
    DL_FOREACH_SAFE (guests, guest, next) {
        if (front->closing)
            close(guest->fd);
        else
            front->on_arrival(guest->fd, &guest->peer, front->data);
        free(guest);
    }
    if (ended && !uv_is_closing((uv_handle_t *)async)) {
        uv_thread_join(&front->thread); /* It has nothing left to do. */
        uv_close((uv_handle_t *)async, on_reports_closed);
    }
}

static void command(struct front *front, struct front_command what)
{
    struct front_command *copy = xmemdup(&what, sizeof what);

    uv_mutex_lock(&front->lock);
    DL_APPEND(front->commands, copy);
    uv_mutex_unlock(&front->lock);
    uv_async_send(&front->wake);
}

struct front *front_new(uv_loop_t *loop, front_arrival *on_arrival, void *data)
{
    struct front *front = NEW0(struct front);
    sigset_t all, before;
    int r;

    front->loop = loop;
    front->on_arrival = on_arrival;
    front->data = data;
    atomic_init(&front->shown, 0);
    r = uv_loop_init(&front->own);
    if (r == 0)
        r = uv_mutex_init(&front->lock);
    if (r == 0)
        r = uv_async_init(loop, &front->reports, on_reports);
    if (r == 0)
        r = uv_async_init(&front->own, &front->wake, on_wake);
    if (r == 0)
        r = uv_timer_init(&front->own, &front->sweep);
    front->reports.data = front->wake.data = front->sweep.data = front;
    sigfillset(&all); /* Signals are the main loop's. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r == 0)
        r = uv_thread_create(&front->thread, run, front);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        abort(); /* Neither memory nor descriptors for the very first things. */
    return front;
}

void front_set_credentials(struct front *front, struct tls_credentials *credentials)
{
    command(front, (struct front_command){.kind = FRONT_CREDENTIALS,
                                          .credentials = tls_credentials_ref(credentials)});
}

void front_add(struct front *front, int fd)
{
    command(front, (struct front_command){.kind = FRONT_ADD, .fd = fd});
}

void front_remove(struct front *front, int fd)
{
    shutdown(fd, SHUT_RDWR); /* It is closed later, but does not listen any more. */
    command(front, (struct front_command){.kind = FRONT_REMOVE, .fd = fd});
}

void front_close(struct front *front, void (*done)(void *data), void *data)
{
    assert(!front->closing);
    front->closing = true;
    front->done = done;
    front->done_data = data;
    command(front, (struct front_command){.kind = FRONT_STOP});
}

unsigned front_connections(const struct front *front)
{
    return atomic_load(&front->shown);
}
