/* SPDX-License-Identifier: Apache-2.0 */
/* fleet-lease: keeps the units with OnDisconnect=stop of this host running as long as its lease holds, and no
 * longer (docs/leases.md). It is the main process of fleet-lease.service, to which those units are bound:
 *
 *      starts: a lease holds? --no--> fails, and with it the start of whatever wanted it
 *                  | yes
 *              sleeps until its end <--it was prolonged meanwhile--.
 *                  |_______________________________________________|
 *                  | it has ended
 *              says so to systemd, which stops all that is bound to it (BindsTo=);
 *              kills what is still there when its time to stop is over; fails
 *
 * It knows neither fleetd nor the leader: both may hang, be killed or be cut off. If it hangs or is killed
 * itself, systemd ends it (the watchdog follows the end of the lease), and so the units. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/lease_page.h"
#include "units/requirements.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define OBJECT  "/org/freedesktop/systemd1"
#define MANAGER SYSTEMD ".Manager"
#define UNIT    SYSTEMD ".Unit"
#define SELF    "fleet-lease.service"

#define WATCHDOG_SLACK_MS 1000u /* After the end of the lease: less than the leader's margin. */
#define KILL_AGAIN_MS     200u  /* A unit may start something while it is stopped (ExecStopPost=). */
#define CALL_TIMEOUT_MS   5000u

/* ---- while the lease holds ---- */

static void sleep_until(uint64_t ms)
{
    const struct timespec at = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* Returns when the lease has ended. */
static uint64_t keep(const struct lease_page *page)
{
    uint64_t until = lease_page_until_ms(page), now = now_ms();
    const char *ready = "READY=1\n";

    while (now < until) {
        sd_notifyf(0, "%sSTATUS=The lease holds\nWATCHDOG=1\nWATCHDOG_USEC=%" PRIu64, ready,
                   (until - now + WATCHDOG_SLACK_MS) * 1000);
        ready = "";
        sleep_until(until);
        until = lease_page_until_ms(page);
        now = now_ms();
    }
    return until;
}

/* ---- when it has ended ---- */

static char *path_of(const char *unit)
{
    char *path;

    if (sd_bus_path_encode(OBJECT "/unit", unit, &path) < 0)
        abort(); /* Out of memory. */
    return path;
}

static int open_systemd(sd_bus **ret)
{
    _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
    int r = sd_bus_new(&bus);

    if (r >= 0)
        r = sd_bus_set_address(bus, "unix:path=/run/systemd/private");
    if (r >= 0)
        r = sd_bus_start(bus);
    if (r >= 0)
        r = sd_bus_set_method_call_timeout(bus, CALL_TIMEOUT_MS * 1000);
    if (r >= 0)
        *ret = TAKE_PTR(bus);
    return r;
}

static bool is_up(sd_bus *bus, const char *unit)
{
    _cleanup_(freep) char *path = path_of(unit), *state = NULL;

    if (sd_bus_get_property_string(bus, SYSTEMD, path, UNIT, "ActiveState", NULL, &state) < 0)
        return false; /* systemd has forgotten it. */
    return !streq(state, "inactive") && !streq(state, "failed");
}

/* As the drop-in says, which fleetd has written (agent_dropin.c). */
static uint64_t stop_ms(sd_bus *bus, const char *unit)
{
    static const struct {
        const char *suffix, *interface, *property;
    } map[] = {
        {".service", SYSTEMD ".Service", "TimeoutStopUSec"},
        {".socket", SYSTEMD ".Socket", "TimeoutUSec"},
        {".mount", SYSTEMD ".Mount", "TimeoutUSec"},
        {".swap", SYSTEMD ".Swap", "TimeoutUSec"},
    };
    _cleanup_(freep) char *path = path_of(unit);
    uint64_t usec = 0;

    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (str_has_suffix(unit, map[i].suffix) &&
            sd_bus_get_property_trivial(bus, SYSTEMD, path, map[i].interface, map[i].property, NULL, 't',
                                        &usec) < 0)
            usec = 0;
    return usec / 1000 < REQUIREMENTS_STOP_MAX_MS ? usec / 1000 : REQUIREMENTS_STOP_MAX_MS;
}

static void kill_unit(sd_bus *bus, const char *unit)
{
    log_warn("%s has not stopped in time: it is killed", unit);
    sd_bus_call_method(bus, SYSTEMD, OBJECT, MANAGER, "KillUnit", NULL, NULL, "ssi", unit, "all", (int32_t)9);
}

static int on_signal(sd_bus_message *m, void *data, sd_bus_error *error)
{
    *(bool *)data = true; /* Whatever it says: everything is looked at again. */
    return 0;
}

/* Kills those whose time is over. Returns whether any is up still; *ret_next_ms: when to look again. */
static bool look(sd_bus *bus, char *const *units, uint64_t end_ms, uint64_t *ret_next_ms)
{
    uint64_t now = now_ms();
    bool up = false;

    *ret_next_ms = UINT64_MAX;
    for (size_t i = 0; units[i] != NULL; i++) {
        uint64_t kill_ms;

        if (!is_up(bus, units[i]))
            continue;
        up = true;
        kill_ms = end_ms + stop_ms(bus, units[i]);
        if (kill_ms <= now) {
            kill_unit(bus, units[i]);
            kill_ms = now + KILL_AGAIN_MS;
        }
        if (kill_ms < *ret_next_ms)
            *ret_next_ms = kill_ms;
    }
    return up;
}

static int see_to_it(uint64_t end_ms)
{
    _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
    _cleanup_(freep) char *path = path_of(SELF);
    char **units = NULL;
    bool changed = false;
    uint64_t next_ms;
    int r = open_systemd(&bus);

    if (r >= 0)
        r = sd_bus_match_signal(bus, NULL, NULL, NULL, "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                on_signal, &changed);
    if (r >= 0)
        r = sd_bus_call_method(bus, SYSTEMD, OBJECT, MANAGER, "Subscribe", NULL, NULL, "");
    if (r >= 0)
        r = sd_bus_get_property_strv(bus, SYSTEMD, path, UNIT, "BoundBy", NULL, &units);
    while (r >= 0 && look(bus, units, end_ms, &next_ms)) {
        uint64_t now = now_ms();

        changed = false; /* Since the look: what came during it was read, but not handled yet. */

        while ((r = sd_bus_process(bus, NULL)) > 0)
            ;
        if (r >= 0 && !changed)
            r = sd_bus_wait(bus, next_ms > now ? (next_ms - now) * 1000 : 0);
    }
    for (size_t i = 0; units != NULL && units[i] != NULL; i++)
        free(units[i]);
    free(units);
    return r;
}

int main(int argc, char **argv)
{
    struct lease_page *page;
    struct err err = {0};
    uint64_t end_ms;
    int r;

    if (argc > 2) {
        fprintf(stderr, "usage: %s [FILE]\n", argv[0]);
        return 2;
    }
    r = lease_page_open(argc == 2 ? argv[1] : LEASE_PAGE_FILE, false, &page, &err);
    if (r < 0 || now_ms() >= lease_page_until_ms(page)) {
        log_error("This host holds no lease: its leader is not reached, or fleetd does not run%s%s",
                  r < 0 ? ": " : "", r < 0 ? err_text(&err, r) : "");
        return EXIT_FAILURE;
    }
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0) /* A disk that hangs must not hold up the end. */
        log_warn("cannot lock memory: %s", strerror(errno));
    end_ms = keep(page);
    log_warn("The lease has ended: the leader was not reached. Units with OnDisconnect=stop are stopped");
    sd_notify(0, "STOPPING=1\nSTATUS=The lease has ended");
    r = see_to_it(end_ms);
    if (r < 0)
        log_error("cannot see to it that all units stop: %s", strerror(-r));
    lease_page_close(page);
    return EXIT_FAILURE; /* So that systemd shows what has happened. */
}
