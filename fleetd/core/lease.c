/* SPDX-License-Identifier: Apache-2.0 */
/* Leases, as the leader sees them (docs/leases.md): how long the ones are that it grants, until when a host
 * may still run what asked for one, and when the longest lease of the cluster is to be written down anew. */
#include <config.h>

#include "fleetd/core/core_private.h"

/* The rest of the ttl is for the way of the heartbeat and for clocks that do not run alike. */
static uint64_t wanted_ms(const struct core *core)
{
    return core->ttl_ms - core->ttl_ms / 10;
}

uint64_t core_lease_grant(struct core *core, const char *machine_id, uint64_t session_id, uint64_t heard_ms)
{
    struct host *host = core->leads ? host_find(core->hosts, machine_id) : NULL;
    uint64_t known_ms = registry_lease_ms(core->registry);
    uint64_t lease_ms = wanted_ms(core) < known_ms ? wanted_ms(core) : known_ms;

    if (host == NULL || host->session_id != session_id || session_id == 0 || host->state == MACHINE_LOST ||
        host->leaving)
        return 0;
    if (lease_ms > 0 && heard_ms + core_elsewhere_ms(lease_ms) > host->lease_until_ms)
        host->lease_until_ms = heard_ms + core_elsewhere_ms(lease_ms);
    return lease_ms;
}

bool core_needs_lease(const struct registry_unit *unit)
{
    return unit->requirements->stop_ms > 0;
}

static uint64_t stop_ms(const struct registry_unit *unit)
{
    return unit->stop_ms > unit->requirements->stop_ms ? unit->stop_ms : unit->requirements->stop_ms;
}

uint64_t core_lease_end_ms(const struct core *core, const struct host *host, const struct registry_unit *unit)
{
    uint64_t end_ms = host->lease_until_ms + core_elsewhere_ms(stop_ms(unit)) + CORE_LEASE_MARGIN_MS;

    if (!core_needs_lease(unit) || host->lease_until_ms == 0 || core->now_ms >= end_ms)
        return 0;
    return end_ms;
}

/* Where a registry of an older version says nothing, it is so at least of the unit as it is now. */
static uint64_t leased_since(const struct registry_unit *unit)
{
    return unit->leased_since != 0 ? unit->leased_since : unit->generation;
}

static bool is_down(const struct core_report *report)
{
    return streq(report->active_state, "inactive") || streq(report->active_state, "failed");
}

/* Whether what the host runs of the unit, if anything, is surely under a lease. Its content may ask for one
 * only since the host was heard last: then what runs there is an older one. So it is where systemd has
 * refused the new one. */
static bool is_leased(const struct host *host, const struct registry_unit *unit)
{
    const struct core_report *report = host_report(host, unit->name);
    uint64_t told = host_told_generation(host, unit->name);

    if (report == NULL || report->generation == 0) /* Nothing is carried out yet, as far as we know. */
        return unit->leased && (told == 0 || told >= leased_since(unit));
    return report->generation >= leased_since(unit) &&
           (unit->leased || streq(report->result, "done") || is_down(report));
}

/* ---- copies without a lease: of an older content, which had OnDisconnect=keep ---- */

/* Whether a lost host may still run a copy for which it needs no lease. What it had is known if it had called
 * this leader; else it may be whatever was ever given to it, and not taken back. */
static bool may_run_loose(const struct core *core, const struct host *host, const struct registry_unit *unit)
{
    const struct registry_machine *machine = registry_machine(core->registry, host->id);

    if (host->state != MACHINE_LOST || unit->leased || unit->requirements->global || machine == NULL ||
        !machine->registered || machine->lost_confirmed)
        return false;
    return host->called ? strlist_has(&host->had, unit->name)
                        : streq(unit->target, host->id) || core_is_former(unit, host);
}

const struct host *core_lost_with(const struct core *core, const struct registry_unit *unit,
                                  const struct host *except)
{
    for (const struct host *host = core->hosts; host != NULL && core_needs_lease(unit); host = host->hh.next)
        if (host != except && may_run_loose(core, host, unit))
            return host;
    return NULL;
}

bool core_stays_lost(const struct core *core, const struct registry_unit *unit)
{
    const struct host *host = unit->target[0] != '\0' ? host_find(core->hosts, unit->target) : NULL;

    return host != NULL && core_needs_lease(unit) && may_run_loose(core, host, unit);
}

bool core_former_forgotten(const struct core *core, const struct registry_unit *unit)
{
    if (unit->former.count == 0 && !unit->anywhere)
        return true;
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (core_is_former(unit, host) && may_run_loose(core, host, unit))
            return false;
    return core_former_gone(core, unit);
}

/* Anybody who is heard and is to let go of it is waited for, too, wherever it comes from. */
static bool others_have_let_go(const struct core *core, const struct registry_unit *unit)
{
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (!streq(host->id, unit->target) && host->state != MACHINE_LOST && host_may_have(host, unit->name))
            return false;
    return core_lost_with(core, unit, NULL) == NULL && core_former_forgotten(core, unit);
}

bool core_becomes_leased(const struct core *core, const struct registry_unit *unit)
{
    const struct host *host = unit->target[0] != '\0' ? host_find(core->hosts, unit->target) : NULL;
    const struct core_report *report = host != NULL ? host_report(host, unit->name) : NULL;

    if (!core_needs_lease(unit) || unit->leased || unit->requirements->global || host == NULL ||
        host->state == MACHINE_LOST || !host->called)
        return false;
    if (host_may_have(host, unit->name) &&
        (report == NULL || report->generation == 0 || !is_leased(host, unit)))
        return false;
    return others_have_let_go(core, unit);
}

bool core_lease_ends(const struct host *host, const struct registry_unit *unit)
{
    return host->state == MACHINE_HUNG && core_needs_lease(unit) && is_leased(host, unit);
}

uint64_t core_lease_last_end_ms(const struct core *core, const struct host *host)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);
    uint64_t last_ms = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t end_ms = core_lease_end_ms(core, host, units[i]);

        if (end_ms > last_ms)
            last_ms = end_ms;
    }
    return last_ms;
}

void core_lease_await(const struct core *core, struct host *host, const struct host *holder,
                      const struct registry_unit *unit)
{
    uint64_t end_ms = core_lease_end_ms(core, holder, unit);

    if (end_ms != 0 && (host->awaited_ms == 0 || end_ms < host->awaited_ms))
        host->awaited_ms = end_ms;
}

uint64_t core_lease_awaited_ms(const struct core *core)
{
    uint64_t first_ms = UINT64_MAX;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->awaited_ms != 0 && host->awaited_ms < first_ms)
            first_ms = host->awaited_ms;
    return first_ms;
}

void core_lease_look(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    core->lease_wanted = false;
    for (size_t i = 0; i < count && !core->lease_wanted; i++)
        core->lease_wanted = core_needs_lease(units[i]) && units[i]->desired != UNIT_STATE_INACTIVE;
}

void core_lease_lead(struct core *core)
{
    uint64_t known_ms = registry_lease_ms(core->registry);

    core->lease_in_flight = false;
    core->lease_due_ms = core->now_ms;
    core->longer_until_ms = core->now_ms + core_elsewhere_ms(known_ms);
    for (struct host *host = core->hosts; host != NULL && known_ms > 0; host = host->hh.next)
        host->lease_until_ms = core->longer_until_ms;
    core_lease_look(core);
}

uint64_t core_lease_deadline_ms(const struct core *core)
{
    uint64_t known_ms = registry_lease_ms(core->registry);
    uint64_t due_ms = core->lease_due_ms;

    if (!core->lease_wanted || core->lease_in_flight || known_ms == wanted_ms(core))
        return UINT64_MAX;
    if (known_ms > wanted_ms(core) && core->longer_until_ms > due_ms)
        due_ms = core->longer_until_ms;
    return due_ms;
}

void core_lease_decide(struct core *core, struct effects *out)
{
    struct effect *effect;

    if (core_lease_deadline_ms(core) > core->now_ms)
        return;
    core->lease_in_flight = true;
    effect = effects_add(out, EFFECT_LEASE);
    effect->term = core->term;
    effect->lease_ms = wanted_ms(core);
}

void core_lease_done(struct core *core, uint64_t term, bool applied, uint64_t now_ms)
{
    if (!core->leads || term != core->term)
        return; /* Another leadership's. */
    core->lease_in_flight = false;
    if (!applied)
        core->lease_due_ms = now_ms + CORE_RETRY_MS;
}
