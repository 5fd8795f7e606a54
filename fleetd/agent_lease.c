/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/agent_lease.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/agent_internal.h"

void agent_lease_init(struct agent *agent, const char *file)
{
    struct agent_lease *lease = &agent->lease;
    struct err err = {0};
    int r;

    if (file == NULL) {
        lease->why = xstrdup("units with OnDisconnect=stop need the system's systemd");
        return;
    }
    r = lease_page_open(file, true, &lease->page, &err);
    if (r < 0) {
        log_error("%s: units with OnDisconnect=stop cannot run here", err_text(&err, r));
        lease->why = xstrdup(err_text(&err, r));
    } else if (now_ms() >= lease_page_until_ms(lease->page)) {
        lease->keeper = AGENT_KEEPER_ENDED;
    }
}

void agent_lease_done(struct agent *agent)
{
    lease_page_close(agent->lease.page);
    free(agent->lease.why);
}

bool agent_lease_applies(const struct local_unit *unit)
{
    return unit->wish == AGENT_WISH_KEEP ? unit->dropin.stop_ms > 0 : unit->stop_ms > 0;
}

static bool holds(const struct agent_lease *lease)
{
    return lease->page != NULL && now_ms() < lease_page_until_ms(lease->page);
}

/* The leader has named the unit in this session, and has led after that: what another one may have decided
 * meanwhile would have ended this lease first. */
static bool may_start(const struct agent_lease *lease, const struct local_unit *unit)
{
    return holds(lease) && unit->named > lease->session_batch && unit->named <= lease->granted_batch;
}

/* ---- units ---- */

static void set_kept(struct agent *agent, struct local_unit *unit, bool kept)
{
    if (unit->record.kept == kept)
        return;
    unit->record.kept = kept;
    agent_unit_note(agent, unit);
}

static void set_lapsed(struct agent *agent, struct local_unit *unit, bool lapsed)
{
    const struct agent_lease *lease = &agent->lease;
    _cleanup_(freep) char *error = NULL;

    if (unit->lapsed == lapsed)
        return;
    unit->lapsed = lapsed;
    agent_unit_changed(agent, unit);
    if (!lapsed)
        return;
    if (lease->keeper == AGENT_KEEPER_FAILED && holds(lease)) {
        agent_unit_fail(agent, unit, "keep", "fleet-lease.service has failed");
        return;
    }
    error = lease->granted_sent_ms == 0
                ? xstrdup("stopped: there was no contact to the leader, and the lease has ended")
                : xasprintf("stopped: no contact to the leader for %" PRIu64 " s, and the lease has ended",
                            (now_ms() - lease->granted_sent_ms) / 1000);
    agent_unit_log(unit, LOG_WARNING, "%s", error);
    agent_unit_set_error(agent, unit, error);
}

static bool has_ended(const struct agent_lease *lease)
{
    return lease->keeper != AGENT_KEEPER_WELL || !holds(lease);
}

/* A unit that was started and is down: its own end, an operator's stop, or that of the lease? */
static void look_at_down(struct agent *agent, struct local_unit *unit)
{
    if (unit->record.kept && !unit->lapsed && !unit->ending && !has_ended(&agent->lease))
        set_kept(agent, unit, false);
    set_lapsed(agent, unit, unit->record.kept);
}

void agent_lease_look(struct agent *agent, struct local_unit *unit)
{
    struct agent_facts facts;

    unit->no_lease = agent_lease_applies(unit) && !may_start(&agent->lease, unit);
    if (!agent_lease_applies(unit) || (unit->wish != AGENT_WISH_LAUNCHED && unit->wish != AGENT_WISH_KEEP)) {
        /* What the end of the lease has stopped, or is stopping, nobody has asked to stop: it is started
         * anew, now that it needs none. */
        if (unit->record.kept && !streq(unit->active_state, "active"))
            unit->record.launched = false;
        set_kept(agent, unit, false);
        set_lapsed(agent, unit, false);
        return;
    }
    agent_facts(unit, &facts);
    /* When it is down at last the keeper may be well again, for another unit that was quicker. */
    if (facts.known && facts.active == AGENT_ACTIVE_DEACTIVATING && has_ended(&agent->lease))
        unit->ending = true;
    if (!facts.known || facts.job == AGENT_JOB_STOP || facts.active == AGENT_ACTIVE_DEACTIVATING)
        return;
    if (agent_facts_up(&facts)) {
        unit->ending = false;
        set_kept(agent, unit, true);
        set_lapsed(agent, unit, false);
    } else {
        look_at_down(agent, unit);
    }
}

static void touch_all(struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        if (agent_lease_applies(unit) && (unit->no_lease || unit->lapsed))
            agent_unit_touch(agent, unit);
}

/* ---- the lease ---- */

void agent_lease_keeper_is(struct agent *agent, const char *active_state)
{
    if (streq(active_state, "active"))
        agent->lease.keeper = AGENT_KEEPER_WELL;
    else if (streq(active_state, "failed") && agent->lease.keeper == AGENT_KEEPER_WELL)
        agent->lease.keeper = holds(&agent->lease) ? AGENT_KEEPER_FAILED : AGENT_KEEPER_ENDED;
}

/* It does not end for long: it stays until all that is bound to it is down. */
void agent_lease_keeper_found(struct agent *agent, const char *active_state)
{
    if (streq(active_state, "deactivating") && agent->lease.keeper == AGENT_KEEPER_WELL)
        agent->lease.keeper = AGENT_KEEPER_ENDED;
    else
        agent_lease_keeper_is(agent, active_state);
}

bool agent_lease_has_bound(const struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        if (unit->dropin.stop_ms > 0)
            return true;
    return false;
}

bool agent_wants_lease(const struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        if (agent_lease_applies(unit) && unit->wish != AGENT_WISH_ABSENT)
            return true;
    return false;
}

void agent_lease_sent(struct agent *agent, uint64_t sequence)
{
    size_t i = sequence % AGENT_HEARTBEATS;

    agent->lease.sent[i].sequence = sequence;
    agent->lease.sent[i].sent_ms = now_ms();
    agent->lease.sent[i].batch = agent->batch;
}

void agent_lease_granted(struct agent *agent, uint64_t sequence, uint64_t lease_ms)
{
    struct agent_lease *lease = &agent->lease;
    size_t i = sequence % AGENT_HEARTBEATS;

    if (lease->page == NULL || lease->sent[i].sequence != sequence ||
        lease->sent[i].sent_ms + lease_ms <= now_ms())
        return;
    if (!holds(lease)) /* Whether the keeper has noticed, or not: what it has stopped is started again. */
        lease->keeper = AGENT_KEEPER_ENDED;
    lease_page_prolong(lease->page, lease->sent[i].sent_ms + lease_ms);
    if (lease->sent[i].sent_ms > lease->granted_sent_ms)
        lease->granted_sent_ms = lease->sent[i].sent_ms;
    if (lease->sent[i].batch > lease->granted_batch)
        lease->granted_batch = lease->sent[i].batch;
    touch_all(agent);
}

void agent_lease_session_lost(struct agent *agent)
{
    agent->lease.granted_batch = 0;
    agent->lease.session_batch = agent->batch;
    for (size_t i = 0; i < AGENT_HEARTBEATS; i++)
        agent->lease.sent[i].sequence = 0;
}
