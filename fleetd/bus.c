/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/bus.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#define BUS_BURST 512 /* Messages handled before other handles of the loop get their turn. */
#define BUS_CALL_TIMEOUT_US \
    (120 * 1000000ull) /* A reload of a big host may take long, and holds up every other call. */

/* One connection: its handles go when it is lost, while the next one may be made already. */
struct pump {
    struct bus *bus; /* NULL: closing. */
    sd_bus *sd;
    uv_poll_t poll;
    uv_timer_t timer;
    uv_prepare_t prepare;
    int events;
    int open_handles;
};

struct bus {
    uv_loop_t *loop;
    enum bus_kind kind;
    bool closing;
    bool direct, proved; /* Of the last connection. */
    const struct bus_callbacks *callbacks;
    void *data;
    struct pump *pump; /* NULL: not connected. */
    uv_timer_t retry;
    uint64_t retry_ms;
    char *failed; /* Why the connection is to be given up. */
    bool lost_told;
    int parts; /* What has still to be closed: the retry timer and every pump. */
    void (*done)(void *data);
    void *done_data;
};

static void bus_part_closed(struct bus *bus)
{
    assert(bus->parts > 0);
    if (--bus->parts > 0 || !bus->closing)
        return;
    if (bus->done != NULL)
        bus->done(bus->done_data);
    free(bus->failed);
    free(bus);
}

static void on_pump_closed(uv_handle_t *handle)
{
    struct pump *pump = handle->data;

    if (--pump->open_handles > 0)
        return;
    sd_bus_unref(pump->sd);
    bus_part_closed(pump->bus);
    free(pump);
}

static void pump_close(struct pump *pump)
{
    uv_close((uv_handle_t *)&pump->poll, on_pump_closed); /* Before the descriptor goes. */
    uv_close((uv_handle_t *)&pump->timer, on_pump_closed);
    uv_close((uv_handle_t *)&pump->prepare, on_pump_closed);
    sd_bus_close(pump->sd);
}

static void on_retry(uv_timer_t *timer);

/* Gives up the connection, if there is one, and plans the next attempt. */
static void bus_lost(struct bus *bus, const char *why)
{
    struct pump *pump = TAKE_PTR(bus->pump);

    if (pump != NULL)
        pump_close(pump);
    uv_timer_start(&bus->retry, on_retry, bus->retry_ms, 0);
    bus->retry_ms = bus->retry_ms * 2 < BUS_RETRY_MAX_MS ? bus->retry_ms * 2 : BUS_RETRY_MAX_MS;
    if (!bus->lost_told) {
        bus->lost_told = true;
        bus->callbacks->on_lost(why, bus->data);
    }
}

static bool pump_failed(struct pump *pump)
{
    _cleanup_(freep) char *why = TAKE_PTR(pump->bus->failed);

    if (why == NULL)
        return false;
    bus_lost(pump->bus, why);
    return true;
}

static void pump_process(struct pump *pump)
{
    int r = 1;

    for (int i = 0; i < BUS_BURST && r > 0 && pump->bus->failed == NULL; i++)
        r = sd_bus_process(pump->sd, NULL);
    if (pump->bus->pump != pump) /* Closed by a callback. */
        return;
    if (!pump_failed(pump) && r < 0)
        bus_lost(pump->bus, strerror(-r));
}

static void on_timer(uv_timer_t *timer)
{
    pump_process(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    pump_process(poll->data);
}

static int pump_watch(struct pump *pump, int events)
{
    int uv_events = ((events & POLLIN) != 0 ? UV_READABLE : 0) | ((events & POLLOUT) != 0 ? UV_WRITABLE : 0);

    pump->events = events;
    return uv_events == 0 ? uv_poll_stop(&pump->poll) : uv_poll_start(&pump->poll, uv_events, on_poll);
}

/* Just before the loop sleeps: waits for exactly what the connection wants now. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct pump *pump = prepare->data;
    uint64_t until_us = UINT64_MAX, now_us = uv_hrtime() / 1000;
    int r, events;

    if (pump_failed(pump))
        return;
    events = sd_bus_get_events(pump->sd);
    r = events < 0 ? events : sd_bus_get_timeout(pump->sd, &until_us);
    if (r >= 0 && events != pump->events) /* uv_poll_start() registers the descriptor anew: only on change. */
        r = pump_watch(pump, events);
    if (r < 0) {
        bus_lost(pump->bus, strerror(-r));
        return;
    }
    if (until_us == UINT64_MAX)
        uv_timer_stop(&pump->timer);
    else /* Rounded up, or the loop spins through the last fraction of a millisecond. */
        uv_timer_start(&pump->timer, on_timer, until_us > now_us ? (until_us - now_us + 999) / 1000 : 0, 0);
}

/* Takes over 'sd'. */
static int pump_start(struct bus *bus, sd_bus *sd)
{
    struct pump *pump = NEW0(struct pump);
    int r;

    *pump = (struct pump){.bus = bus, .sd = sd, .open_handles = 3};
    r = uv_poll_init(bus->loop, &pump->poll, sd_bus_get_fd(sd));
    if (r < 0) {
        sd_bus_close_unref(sd);
        free(pump);
        return r;
    }
    uv_timer_init(bus->loop, &pump->timer);
    uv_prepare_init(bus->loop, &pump->prepare);
    pump->poll.data = pump->timer.data = pump->prepare.data = pump;
    uv_prepare_start(&pump->prepare, on_prepare);
    bus->pump = pump;
    bus->parts++;
    return 0;
}

static char *private_address(bool user)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (user)
        return runtime != NULL ? xasprintf("unix:path=%s/systemd/private", runtime) : NULL;
    return geteuid() == 0 ? xstrdup("unix:path=/run/systemd/private") : NULL;
}

static int open_private(bool user, sd_bus **ret)
{
    _cleanup_(sd_bus_unrefp) sd_bus *sd = NULL;
    _cleanup_(freep) char *address = private_address(user);
    int r;

    if (address == NULL)
        return -EACCES;
    r = sd_bus_new(&sd);
    if (r >= 0)
        r = sd_bus_set_address(sd, address);
    if (r >= 0)
        r = sd_bus_start(sd);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(sd);
    return 0;
}

static int open_shared(bool user, sd_bus **ret)
{
    return user ? sd_bus_open_user(ret) : sd_bus_open_system(ret);
}

int bus_open(bool user, sd_bus **ret)
{
    return open_private(user, ret) >= 0 ? 0 : open_shared(user, ret);
}

static void on_retry(uv_timer_t *timer)
{
    struct bus *bus = timer->data;
    bool user = bus->kind == BUS_SYSTEMD_USER;
    bool was_useless = bus->direct && !bus->proved; /* Connected, but nobody answered: try the other way. */
    sd_bus *sd = NULL;
    int r;

    free(TAKE_PTR(bus->failed));
    bus->proved = false;
    r = was_useless || bus->kind == BUS_SYSTEM ? -EAGAIN : open_private(user, &sd);
    bus->direct = r >= 0;
    if (r < 0)
        r = open_shared(user, &sd);
    if (r >= 0) {
        sd_bus_set_method_call_timeout(sd, BUS_CALL_TIMEOUT_US);
        r = pump_start(bus, sd);
    }
    if (r < 0) {
        bus_lost(bus, strerror(-r));
        return;
    }
    bus->lost_told = false;
    bus->callbacks->on_open(sd, bus->direct, bus->data);
}

struct bus *bus_new(uv_loop_t *loop, enum bus_kind kind, const struct bus_callbacks *callbacks, void *data)
{
    struct bus *bus = NEW0(struct bus);

    bus->loop = loop;
    bus->kind = kind;
    bus->callbacks = callbacks;
    bus->data = data;
    bus->retry_ms = BUS_RETRY_MIN_MS;
    bus->parts = 1;
    uv_timer_init(loop, &bus->retry);
    bus->retry.data = bus;
    uv_timer_start(&bus->retry, on_retry, 0, 0);
    return bus;
}

void bus_proved(struct bus *bus)
{
    bus->proved = true;
    bus->retry_ms = BUS_RETRY_MIN_MS;
}

void bus_fail(struct bus *bus, const char *why)
{
    if (bus->pump != NULL && bus->failed == NULL)
        bus->failed = xstrdup(why);
}

static void on_retry_closed(uv_handle_t *handle)
{
    bus_part_closed(handle->data);
}

void bus_close(struct bus *bus, void (*done)(void *data), void *data)
{
    struct pump *pump = TAKE_PTR(bus->pump);

    assert(!bus->closing);
    bus->closing = true;
    bus->done = done;
    bus->done_data = data;
    if (pump != NULL)
        pump_close(pump);
    uv_close((uv_handle_t *)&bus->retry, on_retry_closed);
}
