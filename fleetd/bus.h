/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to a service manager, or to the system bus, driven from the libuv loop, and made again with a
 * growing pause when it is lost.
 *
 * To the service manager, as root: we talk to systemd's private socket, like systemctl does: it needs no
 * message bus (which may be restarted, or absent), has no limit on outstanding replies (the bus allows 128),
 * and saves every message a hop. Otherwise, or where it does not answer, the system bus (or the user's)
 * serves. */
#pragma once

#include <stdbool.h>

#include <systemd/sd-bus.h>
#include <uv.h>

#include "base/err.h"

#define BUS_RETRY_MIN_MS 100
#define BUS_RETRY_MAX_MS 10000

struct bus;

enum bus_kind {
    BUS_SYSTEMD,      /* The system's service manager... */
    BUS_SYSTEMD_USER, /* ...or the user's. */
    BUS_SYSTEM,       /* The system bus, for others than these. */
};

struct bus_callbacks {
    /* A connection is open: calls may be queued on it. 'direct': to the manager itself, not to a message bus.
     */
    void (*on_open)(sd_bus *sd, bool direct, void *data);
    /* It is lost, or none can be had; it is tried again. Nothing of 'sd' may be used afterwards. Called once
     * per loss. */
    void (*on_lost)(const char *why, void *data);
};

/* Never calls back from inside; the first attempt is made by the loop. */
struct bus *bus_new(uv_loop_t *loop, enum bus_kind kind, const struct bus_callbacks *callbacks, void *data);

/* Opens a connection for another thread than the loop's, which may block. The caller owns *ret. */
int bus_open(bool user, sd_bus **ret);

/* The connection has proved good: the next loss is followed by a short pause again. */
void bus_proved(struct bus *bus);

/* Gives the connection up, as if it were lost; from anywhere, takes effect from the loop. */
void bus_fail(struct bus *bus, const char *why);

/* 'done' comes from the loop when nothing is left on it and 'bus' is freed. No other callback comes any more.
 */
void bus_close(struct bus *bus, void (*done)(void *data), void *data);
