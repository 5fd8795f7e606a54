/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of fleet-lease.service (lease_keeper.c, data/fleet-lease.service): it is started by what is
 * bound to it, sleeps until the lease ends, and takes all that is bound to it along. It needs no fleetd. If
 * it is killed systemd does the same; if it hangs its watchdog, which follows the end of the lease, kills it.
 */
#include <config.h>

#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"
#include "fleetd/agent_lease.h"
#include "tests/sim/sim-systemd.h"

#define WATCHDOG_SLACK_MS 1000u /* As in lease_keeper.c. */

struct step {
    struct systemd *systemd;
    uint64_t round;
};

static void after(struct systemd *systemd, uint64_t ms, sim_event *event)
{
    struct step *step = NEW0(struct step);

    *step = (struct step){systemd, systemd->keeper.round};
    sim_after(ms, SIM_HOST, systemd->host, event, step);
}

static void set_state(struct systemd *systemd, enum sim_state state)
{
    systemd->keeper.state = state;
    sim_systemd_signal(systemd, AGENT_KEEPER_UNIT, state);
}

static bool has_any(const struct systemd *systemd, bool (*is)(const struct sim_unit *unit))
{
    const struct sim_unit *unit;

    LL_FOREACH (systemd->units, unit)
        if (sim_unit_is_bound(unit) && is(unit))
            return true;
    return false;
}

static bool is_up(const struct sim_unit *unit)
{
    return unit->state != SIM_INACTIVE && unit->state != SIM_FAILED;
}

static bool needs_it(const struct sim_unit *unit)
{
    return is_up(unit) || unit->job == SIM_JOB_START || unit->job == SIM_JOB_RESTART;
}

static bool waits(const struct sim_unit *unit)
{
    return unit->waits;
}

static uint64_t left_ms(const struct systemd *systemd)
{
    uint64_t end_ms = sim_lease_end_ms(systemd->host);

    return end_ms > sim.now_ms ? end_ms - sim.now_ms : 0;
}

void sim_keeper_look(struct systemd *systemd)
{
    if (systemd->keeper.state == SIM_ACTIVE && !has_any(systemd, needs_it))
        set_state(systemd, SIM_INACTIVE); /* StopWhenUnneeded= */
    if (systemd->keeper.state != SIM_DEACTIVATING || has_any(systemd, is_up))
        return;
    set_state(systemd, SIM_FAILED);
    if (has_any(systemd, waits))
        sim_keeper_want(systemd);
}

/* It goes last, having seen to it that all are down; or first, if it is 'killed'. */
static void end(struct systemd *systemd, bool killed)
{
    systemd->keeper.round++;
    systemd->keeper.hung = false;
    set_state(systemd, killed ? SIM_FAILED : SIM_DEACTIVATING);
    sim_systemd_unbind(systemd);
    sim_keeper_look(systemd);
}

static bool is_void(const struct step *step, bool lost)
{
    return lost || step->round != step->systemd->keeper.round || step->systemd->keeper.state != SIM_ACTIVE;
}

static void on_watchdog(void *data, bool lost)
{
    struct step *step = data;

    if (!is_void(step, lost)) {
        sim_note(step->systemd->host, "the keeper's watchdog has ended it");
        end(step->systemd, true);
    }
    free(step);
}

static void on_time(void *data, bool lost)
{
    struct step *step = data;
    struct systemd *systemd = step->systemd;

    if (is_void(step, lost)) {
        free(step);
        return;
    }
    if (systemd->keeper.hung) {
        after(systemd, sim_true_ms(systemd->host, WATCHDOG_SLACK_MS), on_watchdog);
    } else if (left_ms(systemd) > 0) {
        after(systemd, left_ms(systemd), on_time);
    } else {
        sim_note(systemd->host, "the lease has ended");
        end(systemd, false);
    }
    free(step);
}

static void on_start(void *data, bool lost)
{
    struct step *step = data;
    struct systemd *systemd = step->systemd;

    if (!lost && step->round == systemd->keeper.round) {
        bool holds = left_ms(systemd) > 0;

        set_state(systemd, holds ? SIM_ACTIVE : SIM_FAILED);
        if (holds)
            after(systemd, left_ms(systemd), on_time);
        sim_systemd_keeper_is(systemd, holds);
        if (holds)
            sim_keeper_look(systemd); /* Nobody may want it any more. */
    }
    free(step);
}

void sim_keeper_want(struct systemd *systemd)
{
    if (systemd->keeper.state == SIM_ACTIVATING || systemd->keeper.state == SIM_DEACTIVATING)
        return; /* It is being started; or will be, when it has ended. */
    systemd->keeper.round++;
    systemd->keeper.hung = false;
    set_state(systemd, SIM_ACTIVATING);
    after(systemd, 1 + sim_random(20), on_start);
}

void sim_keeper_kill(struct sim_host *host)
{
    if (host->systemd == NULL || host->systemd->keeper.state != SIM_ACTIVE)
        return;
    sim_note(host, "the keeper is killed");
    end(host->systemd, true);
}

void sim_keeper_hang(struct sim_host *host)
{
    if (host->systemd == NULL || host->systemd->keeper.state != SIM_ACTIVE)
        return;
    sim_note(host, "the keeper hangs");
    host->systemd->keeper.hung = true;
}
