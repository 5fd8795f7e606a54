/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/logind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/bus.h"

#define DRIVER  "org.freedesktop.DBus"
#define LOGIND  "org.freedesktop.login1"
#define OBJECT  "/org/freedesktop/login1"
#define MANAGER "org.freedesktop.login1.Manager"

struct logind {
    struct logind_callbacks callbacks;
    void *data;
    struct bus *bus;
    sd_bus *sd;        /* Of the present connection; NULL: none. */
    char *owner;       /* The name of logind's own connection; NULL: it is not there. */
    bool absence_told; /* Of this absence. */
    bool shuts_down;   /* As told. */
    uint64_t wait_ms;  /* logind's InhibitDelayMaxSec=. */
    int lock;          /* -1: not held. */
    void (*closed)(void *data);
    void *closed_data;
};

static void close_lock(struct logind *logind)
{
    if (logind->lock >= 0)
        close(logind->lock);
    logind->lock = -1;
}

static void set_shutdown(struct logind *logind, bool begins)
{
    if (begins == logind->shuts_down)
        return;
    logind->shuts_down = begins;
    logind->callbacks.on_shutdown(begins, logind->lock >= 0 ? logind->wait_ms : 0, logind->data);
}

static void is_absent(struct logind *logind, const char *why)
{
    free(TAKE_PTR(logind->owner));
    if (!logind->absence_told && !logind->shuts_down) /* Before the end of a host its own ends. */
        log_info("No systemd-logind here (%s): a shutdown of this host does not wait for units to move", why);
    logind->absence_told = true;
}

/* ---- calls ---- */

static const char *error_text(const sd_bus_error *error)
{
    return error->message != NULL ? error->message : error->name;
}

static bool is_from_logind(const struct logind *logind, sd_bus_message *m)
{
    const char *sender = sd_bus_message_get_sender(m);

    return logind->owner != NULL && sender != NULL && streq(sender, logind->owner);
}

/* To the connection that has the name, not to the name: whoever asks for that starts logind. */
static void call(struct logind *logind, const char *interface, const char *member,
                 sd_bus_message_handler_t reply, const char *types, const char *a, const char *b,
                 const char *c, const char *d)
{
    int r = sd_bus_call_method_async(logind->sd, NULL, logind->owner, OBJECT, interface, member, reply,
                                     logind, types, a, b, c, d);

    if (r < 0)
        bus_fail(logind->bus, strerror(-r));
}

static void get(struct logind *logind, const char *property, sd_bus_message_handler_t reply)
{
    call(logind, "org.freedesktop.DBus.Properties", "Get", reply, "ss", MANAGER, property, NULL, NULL);
}

static int on_preparing(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    int preparing;

    /* While logind was away it may have forgotten that it was about to shut the host down. */
    if (is_from_logind(logind, m) && sd_bus_message_read(m, "v", "b", &preparing) >= 0)
        set_shutdown(logind, preparing);
    return 0;
}

static int on_wait(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    uint64_t wait_us;

    if (is_from_logind(logind, m) && sd_bus_message_read(m, "v", "t", &wait_us) >= 0)
        logind->wait_ms = wait_us / 1000;
    return 0;
}

static int on_lock(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    const sd_bus_error *error = sd_bus_message_get_error(m);
    int fd, lock = -1;

    if (!is_from_logind(logind, m))
        return 0;
    if (error == NULL && sd_bus_message_read(m, "h", &fd) >= 0)
        lock = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* The message closes its own. */
    if (lock < 0) {
        log_info("systemd-logind will not wait for units to move when this host is shut down: %s",
                 error != NULL ? error_text(error) : strerror(errno));
        return 0;
    }
    close_lock(logind); /* One that an earlier logind gave us, and this one knows of, too. */
    logind->lock = lock;
    log_debug("When this host is shut down, systemd-logind waits for units to move, for at most %.1f s",
              (double)logind->wait_ms / 1000);
    return 0;
}

static void take_lock(struct logind *logind)
{
    call(logind, MANAGER, "Inhibit", on_lock, "ssss", "shutdown", "fleetd", "Units move to other hosts first",
         "delay");
}

/* ---- logind comes and goes ---- */

static void is_present(struct logind *logind, const char *owner)
{
    free(logind->owner);
    logind->owner = xstrdup(owner);
    logind->absence_told = false;
    get(logind, "PreparingForShutdown", on_preparing);
    get(logind, "InhibitDelayMaxUSec", on_wait);
    take_lock(logind);
}

static int on_owner(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    const sd_bus_error *error = sd_bus_message_get_error(m);
    const char *owner;

    if (logind->sd == NULL || sd_bus_is_open(logind->sd) <= 0) /* sd-bus has made it up. */
        return 0;
    bus_proved(logind->bus);
    if (error != NULL)
        is_absent(logind, error_text(error));
    else if (sd_bus_message_read(m, "s", &owner) >= 0)
        is_present(logind, owner);
    return 0;
}

static int on_owner_changed(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    const char *sender = sd_bus_message_get_sender(m), *name, *before, *now;

    if (sender == NULL || !streq(sender, DRIVER) || sd_bus_message_read(m, "sss", &name, &before, &now) < 0 ||
        !streq(name, LOGIND))
        return 0;
    if (now[0] != '\0')
        is_present(logind, now);
    else
        is_absent(logind, "it has ended");
    return 0;
}

static int on_prepare_for_shutdown(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct logind *logind = data;
    int begins;

    if (!is_from_logind(logind, m) || sd_bus_message_read(m, "b", &begins) < 0)
        return 0;
    set_shutdown(logind, begins);
    if (!begins && logind->lock < 0) /* For the next one. */
        take_lock(logind);
    return 0;
}

/* ---- the bus ---- */

static void on_open(sd_bus *sd, bool direct, void *data)
{
    struct logind *logind = data;
    int r;

    logind->sd = sd;
    r = sd_bus_add_match_async(sd, NULL,
                               "type='signal',sender='" DRIVER "',interface='" DRIVER
                               "',member='NameOwnerChanged',arg0='" LOGIND "'",
                               on_owner_changed, NULL, logind);
    if (r >= 0)
        r = sd_bus_match_signal_async(sd, NULL, LOGIND, OBJECT, MANAGER, "PrepareForShutdown",
                                      on_prepare_for_shutdown, NULL, logind);
    if (r >= 0)
        r = sd_bus_call_method_async(sd, NULL, DRIVER, "/org/freedesktop/DBus", DRIVER, "GetNameOwner",
                                     on_owner, logind, "s", LOGIND);
    if (r < 0)
        bus_fail(logind->bus, strerror(-r));
}

static void on_lost(const char *why, void *data)
{
    struct logind *logind = data;

    logind->sd = NULL;
    is_absent(logind, why);
}

static const struct bus_callbacks bus_callbacks = {.on_open = on_open, .on_lost = on_lost};

/* ---- interface ---- */

struct logind *logind_new(uv_loop_t *loop, const struct logind_callbacks *callbacks, void *data)
{
    struct logind *logind = NEW0(struct logind);

    logind->callbacks = *callbacks;
    logind->data = data;
    logind->lock = -1;
    logind->bus = bus_new(loop, BUS_SYSTEM, &bus_callbacks, logind);
    return logind;
}

void logind_let_go(struct logind *logind)
{
    close_lock(logind);
}

static void on_bus_closed(void *data)
{
    struct logind *logind = data;

    free(logind->owner);
    if (logind->closed != NULL)
        logind->closed(logind->closed_data);
    free(logind);
}

void logind_close(struct logind *logind, void (*done)(void *data), void *data)
{
    close_lock(logind);
    logind->closed = done;
    logind->closed_data = data;
    bus_close(logind->bus, on_bus_closed, logind);
}
