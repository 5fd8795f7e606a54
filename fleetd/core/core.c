/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/alloc.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "fleetd/core/failing.h"

/* ---- what must be looked at again ---- */

void core_mark(struct core *core, const char *unit)
{
    struct dirty *dirty;

    HASH_FIND_STR(core->dirty, unit, dirty);
    if (dirty != NULL)
        return;
    dirty = NEW0(struct dirty);
    dirty->unit = xstrdup(unit);
    HASH_ADD_KEYPTR(hh, core->dirty, dirty->unit, strlen(dirty->unit), dirty);
}

static void mark_globals(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (units[i]->requirements->global)
            core_mark(core, units[i]->name);
}

/* Units that have no place although they want one: what is told of them names the machines. */
static void mark_unplaced(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (units[i]->desired != UNIT_STATE_INACTIVE && units[i]->target[0] == '\0')
            core_mark(core, units[i]->name);
}

/* Units that wait for a machine that was lost: a person may have confirmed that. */
static void mark_kept_by_lost(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (core_needs_lease(units[i]) && !units[i]->leased)
            core_mark(core, units[i]->name);
}

/* All that a host has or may have. */
static void mark_held(struct core *core, const struct host *host)
{
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next)
        core_mark(core, entry->unit);
    for (const struct host_told *told = host->told; told != NULL; told = told->hh.next)
        core_mark(core, told->unit);
}

/* What is to be on a host and was not given to it yet. */
static void mark_waiting(struct core *core, struct host *host)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    host->kept_waiting = false;
    for (size_t i = 0; i < count; i++)
        if (!host_was_told(host, units[i]->name, 0) && core_machine_wants(core, host->id, units[i]))
            core_mark(core, units[i]->name);
}

/* Everything that concerns a host whose standing has changed: its own units, and what it has. */
void core_mark_host(struct core *core, const struct host *host)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (units[i]->requirements->global || streq(units[i]->target, host->id) ||
            core_is_former(units[i], host) || core_needs_lease(units[i]))
            core_mark(core, units[i]->name);
    mark_held(core, host);
    core->plan_wanted = true;
}

static void mark_all(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        core_mark(core, units[i]->name);
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        mark_held(core, host);
    core->plan_wanted = true;
}

static void dirty_clear(struct core *core)
{
    while (core->dirty != NULL) {
        struct dirty *dirty = core->dirty;

        HASH_DEL(core->dirty, dirty);
        free(dirty->unit);
        free(dirty);
    }
}

/* ---- shares ---- */

bool core_runs(const struct core_report *report)
{
    return streq(report->active_state, "active") || streq(report->active_state, "activating") ||
           streq(report->active_state, "reloading");
}

/* Whether a host of which nothing is known (any more) may run a unit under a lease that has not surely ended.
 */
static bool may_run_unheard(const struct core *core, const struct host *host,
                            const struct registry_unit *unit)
{
    return (host->state == MACHINE_LOST || host->state == MACHINE_HUNG || !host->called) &&
           core_lease_end_ms(core, host, unit) != 0;
}

/* Who may run, unheard, what there must never be two of. It need not be known as a place of this unit:
 * another one of the same name may have been destroyed while its machine was not heard. */
static const struct host *held_by_lease(const struct core *core, const struct registry_unit *unit,
                                        const struct host *target)
{
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host != target && may_run_unheard(core, host, unit))
            return host;
    return NULL;
}

const struct host *core_held_by(const struct core *core, const struct registry_unit *unit,
                                const char *machine_id)
{
    const struct core_report *own;
    const struct host *target = host_find(core->hosts, machine_id), *holder;

    if (target != NULL && host_lets_go(target, unit->name))
        return target;
    if (unit->requirements->global)
        return NULL;
    /* It runs there already, though its fleetd may have been cut short before it could note that: nothing
     * begins, so nothing can be doubled by it. What a lease has stopped begins. */
    own = target != NULL ? host_report(target, unit->name) : NULL;
    if (own != NULL && (core_runs(own) || (own->launched && !core_needs_lease(unit))))
        return NULL;
    holder = held_by_lease(core, unit, target);
    if (holder == NULL)
        holder = core_lost_with(core, unit, target);
    if (holder != NULL)
        return holder;
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->state != MACHINE_LOST && !streq(host->id, machine_id) && host_may_have(host, unit->name) &&
            !core_hands_over(core, host, unit) && !core_lease_ends(host, unit))
            return host;
    if (unit->handover)
        return NULL; /* Whoever it was may have it. */
    /* One that has not called since this leader began may still have it. */
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (core_is_former(unit, host) && host_is_unknown(host) && !streq(host->id, machine_id) &&
            !core_lease_ends(host, unit))
            return host;
    return NULL;
}

bool core_is_former(const struct registry_unit *unit, const struct host *host)
{
    return (unit->anywhere && !streq(unit->target, host->id)) || strlist_has(&unit->former, host->id);
}

bool core_former_gone(const struct core *core, const struct registry_unit *unit)
{
    if (unit->former.count == 0 && !unit->anywhere)
        return true;
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (!core_is_former(unit, host))
            continue;
        if (host->state != MACHINE_LOST && (host_is_unknown(host) || host_may_have(host, unit->name)))
            return false;
        if (may_run_unheard(core, host, unit))
            return false;
    }
    return true;
}

const char *core_awaited_peer(const struct core *core, const struct host *host,
                              const struct registry_unit *unit)
{
    const struct strlist *peers = &unit->requirements->machine_of;

    if (peers->count == 0 || unit->requirements->global || host_report(host, unit->name) != NULL)
        return NULL;
    if (plan_leads_into_circle(core_plan(core), unit->name))
        return NULL; /* There would be no end to it. */
    for (size_t i = 0; i < peers->count; i++)
        if (!host_was_told(host, peers->items[i], 0))
            return peers->items[i];
    return NULL;
}

const char *core_awaited_conflict(const struct host *host, const struct registry_unit *unit)
{
    /* It is there already: whatever harm there is, waiting would not undo it. */
    if (host_report(host, unit->name) != NULL)
        return NULL;
    return host_leaves_conflict(host, unit->name, &unit->requirements->conflicts);
}

/* What this host should have of the unit, if nothing is in the way, as a generation; 0: nothing. */
static uint64_t due(const struct core *core, const struct host *host, const struct registry_unit *unit)
{
    if (unit == NULL || host->leaving)
        return 0;
    /* As it was told to have it, if it was told by this leader. */
    if (core_hands_over(core, host, unit))
        return host_was_told(host, unit->name, 0) ? host_told_generation(host, unit->name) : unit->generation;
    return core_machine_wants(core, host->id, unit) ? unit->generation : 0;
}

/* First what a host is to have no more: what comes may have to wait for it. */
static void take_away(const struct core *core, struct host *host, const char *name,
                      const struct registry_unit *unit, struct effect *share)
{
    if (!host_was_told(host, name, 0))
        return;
    if (due(core, host, unit) == 0) {
        host_untell(host, name);
        strlist_add(&share->removed, name);
    } else if (core_hands_over(core, host, unit)) {
        host_hand_over(host, name);
    }
}

static bool must_wait(const struct core *core, struct host *host, const struct registry_unit *unit)
{
    const struct host *holder = core_held_by(core, unit, host->id);

    if (holder != NULL)
        core_lease_await(core, host, holder, unit);
    if (holder != NULL || core_awaited_peer(core, host, unit) != NULL)
        return true;
    if (core_awaited_conflict(host, unit) == NULL)
        return false;
    host->kept_waiting = true;
    return true;
}

static void give(const struct core *core, struct host *host, const struct registry_unit *unit,
                 struct effect *share)
{
    uint64_t generation = due(core, host, unit);

    if (generation == 0 || host_was_told(host, unit->name, generation))
        return;
    /* What was given once is not taken back for a doubt. */
    if (!host_was_told(host, unit->name, 0) && !core_hands_over(core, host, unit) &&
        must_wait(core, host, unit))
        return;
    host_tell(host, unit->name, generation, &unit->requirements->conflicts);
    strlist_add(&share->names, unit->name);
}

/* What is reported and leaves the host: before what comes, which may have to wait for it. */
static void give_what_leaves(const struct core *core, struct host *host, struct effect *share)
{
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next) {
        const struct registry_unit *unit = registry_unit(core->registry, entry->unit);

        if (due(core, host, unit) == 0) {
            host_untell(host, entry->unit);
        } else if (core_hands_over(core, host, unit)) {
            give(core, host, unit, share);
            host_hand_over(host, entry->unit);
        }
    }
}

/* What is in the share brings those along that have waited for it, and so on. */
static void add_followers(struct core *core, struct host *host, struct effect *share)
{
    for (size_t i = 0; i < share->names.count; i++) {
        const char *follower;

        for (size_t j = 0; (follower = plan_follower(core_plan(core), share->names.items[i], j)) != NULL; j++)
            give(core, host, registry_unit(core->registry, follower), share);
    }
    strlist_sort(&share->names);
}

static int compare_dirty(const struct dirty *a, const struct dirty *b)
{
    return strcmp(a->unit, b->unit);
}

/* To each host, by id, what has changed for it, by name. */
static void update_shares(struct core *core, struct effects *out)
{
    HASH_SORT(core->dirty, compare_dirty);
    for (struct dirty *dirty = core->dirty; dirty != NULL; dirty = dirty->hh.next)
        dirty->found = registry_unit(core->registry, dirty->unit);
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        struct effect share = {.kind = EFFECT_SHARE};

        if (host->session_id == 0)
            continue;
        for (const struct dirty *dirty = core->dirty; dirty != NULL; dirty = dirty->hh.next)
            take_away(core, host, dirty->unit, dirty->found, &share);
        for (const struct dirty *dirty = core->dirty; dirty != NULL; dirty = dirty->hh.next)
            give(core, host, dirty->found, &share);
        add_followers(core, host, &share);
        if (share.names.count + share.removed.count == 0)
            continue;
        memcpy(share.machine_id, host->id, sizeof share.machine_id);
        share.share_number = ++host->share_count;
        *effects_add(out, EFFECT_SHARE) = share;
    }
}

/* The first share of a session: all of it, so that the host can let go of what is not named. */
static void send_whole_share(struct core *core, struct host *host, struct effects *out)
{
    struct effect *share = effects_add(out, EFFECT_SHARE);
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    share->complete = true;
    memcpy(share->machine_id, host->id, sizeof share->machine_id);
    host_forget_told(host);
    host->share_count = 0;
    give_what_leaves(core, host, share);
    for (size_t i = 0; i < count; i++)
        give(core, host, units[i], share);
    add_followers(core, host, share);
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next)
        if (!host_was_told(host, entry->unit, 0))
            host_untell(host, entry->unit);
    share->share_number = ++host->share_count;
}

void core_drop_session(struct host *host, struct effects *out)
{
    if (host->session_id == 0)
        return;
    memcpy(effects_add(out, EFFECT_DROP)->machine_id, host->id, sizeof host->id);
    host->session_id = 0;
}

/* Hosts that are registered no more are forgotten as soon as they cannot have anything. */
static void forget_leaving(struct core *core, struct effects *out)
{
    struct host *host, *next;

    HASH_ITER (hh, core->hosts, host, next) {
        bool empty = !host_is_unknown(host) && !host_may_have_any(host);

        if (!host->leaving || !(empty || host->state == MACHINE_LOST))
            continue;
        if (host->state == MACHINE_LOST && core_lease_last_end_ms(core, host) != 0)
            continue;
        core_drop_session(host, out);
        host_remove(&core->hosts, host);
    }
}

/* When the next of those that are lost can be forgotten. */
static uint64_t forget_due_ms(const struct core *core)
{
    uint64_t due_ms = UINT64_MAX, end_ms;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->leaving && host->state == MACHINE_LOST &&
            (end_ms = core_lease_last_end_ms(core, host)) < due_ms)
            due_ms = end_ms;
    return due_ms;
}

/* From when on something may be placed. */
static uint64_t decision_due_ms(const struct core *core)
{
    bool full_house = true;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        full_house = full_house && (host->leaving || host->state != MACHINE_EXPECTED);
    return full_house || core->retry_ms > core->gather_until_ms ? core->retry_ms : core->gather_until_ms;
}

/* Ends every input: decides what has become possible, tells hosts what has changed for them, and whoever
 * waits. */
static void settle(struct core *core, uint64_t now_ms, struct effects *out)
{
    if (!core->leads) {
        dirty_clear(core);
        return;
    }
    if (core->braking || core->awaited > 0) /* Whoever has called may have ended it. */
        core_judge_given_up(core, out);
    core_shutdown_look(core, out);
    core_declare(core, out);
    core_judge_failures(core, out);
    if (now_ms >= core->ends_due_ms) {
        core->ends_due_ms = UINT64_MAX;
        core->plan_wanted = true;
    }
    if (core->plan_wanted && !core->idle && !core->schedule_in_flight && now_ms >= decision_due_ms(core)) {
        core->plan_wanted = false;
        core_decide(core, out);
    }
    core_lease_decide(core, out);
    update_shares(core, out);
    core_shutdown_answer(core, out);
    forget_leaving(core, out);
    for (const struct dirty *dirty = core->dirty; dirty != NULL; dirty = dirty->hh.next)
        strlist_add(&effects_add(out, EFFECT_SETTLED)->names, dirty->unit);
    dirty_clear(core);
}

/* ---- life ---- */

struct core *core_new(const struct registry *registry, uint64_t ttl_ms)
{
    struct core *core = NEW0(struct core);

    core->registry = registry;
    core->ttl_ms = ttl_ms;
    core->failures_due_ms = UINT64_MAX;
    core->ends_due_ms = UINT64_MAX;
    return core;
}

void core_yield(struct core *core)
{
    core->leads = false;
    core->schedule_in_flight = false;
    core->plan_wanted = false;
    core->ends_due_ms = UINT64_MAX;
    core->braking = core->shutdown_brake = false;
    core->awaited = 0;
    while (core->hosts != NULL)
        host_remove(&core->hosts, core->hosts);
    core_forget_all_failures(core);
    effects_done(&core->news);
    core_forget_plan(core);
    dirty_clear(core);
}

void core_free(struct core *core)
{
    if (core == NULL)
        return;
    core_yield(core);
    free(core);
}

void core_set_ttl(struct core *core, uint64_t ttl_ms, uint64_t now_ms)
{
    if (core->ttl_ms == ttl_ms)
        return;
    core->ttl_ms = ttl_ms;
    core->now_ms = now_ms;
    core->longer_until_ms = now_ms + core_elsewhere_ms(registry_lease_ms(core->registry));
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next)
        host->heard_ms = now_ms;
}

uint64_t core_ttl_ms(const struct core *core)
{
    return core->ttl_ms;
}

bool core_leads(const struct core *core)
{
    return core->leads;
}

bool core_machine_leaves(const struct core *core, const char *machine_id)
{
    return core_machine_awaited(core, machine_id) &&
           host_find(core->hosts, machine_id)->state != MACHINE_LOST;
}

bool core_machine_awaited(const struct core *core, const char *machine_id)
{
    const struct host *host = core->leads ? host_find(core->hosts, machine_id) : NULL;

    return host != NULL && host->leaving;
}

static void expect_machines(struct core *core, uint64_t now_ms)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        host_get(&core->hosts, machines[i]->id, now_ms);
    core_forget_plan(core);
    core->noted_silent = false;
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        const struct registry_machine *machine = registry_machine(core->registry, host->id);
        bool leaving = machine == NULL || !machine->registered;

        if (machine != NULL && (machine->lost || machine->daemon_stopped))
            core->noted_silent = true;
        if (leaving == host->leaving)
            continue;
        host->leaving = leaving;
        core_mark_host(core, host);
    }
}

/* A machine may have been removed just before its units were moved, or before it has stopped what has been
 * moved since: it is waited for like any other. */
static void expect_targets(struct core *core, uint64_t now_ms)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (units[i]->target[0] != '\0')
            host_get(&core->hosts, units[i]->target, now_ms);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < units[i]->former.count; j++)
            host_get(&core->hosts, units[i]->former.items[j], now_ms);
}

void core_lead(struct core *core, uint64_t term, uint64_t now_ms, struct effects *out)
{
    core_yield(core);
    core->leads = true;
    core->term = term;
    core->retry_ms = now_ms;
    core->now_ms = now_ms;
    core->gather_until_ms = now_ms + CORE_GATHER_MS;
    expect_targets(core, now_ms);
    expect_machines(core, now_ms);
    core_lease_lead(core);
    mark_all(core);
    settle(core, now_ms, out);
}

static uint64_t later(const struct core *core, uint64_t when_ms, uint64_t ms)
{
    return when_ms + ms < core->now_ms ? when_ms + ms : core->now_ms;
}

/* So much of their silence is not theirs. What was found of it before stays as it is. */
static void excuse_silence(struct core *core, uint64_t ms)
{
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (host->state == MACHINE_MISSING && host->give_up_ms > 0)
            host->give_up_ms += ms;
        else if (host->state != MACHINE_MISSING && host->state != MACHINE_LOST)
            host->heard_ms = later(core, host->heard_ms, ms);
        if (host->answers)
            host->answered_ms = later(core, host->answered_ms, ms);
    }
}

/* Takes the time in. After a standstill of our own (a frozen process, a suspended host) nobody is silent yet:
 * what they said meanwhile has still to be read. A shorter one shows only where a timer is late: they run
 * before anything is read. */
static void advance(struct core *core, uint64_t now_ms, uint64_t late_ms)
{
    uint64_t gap_ms = now_ms > core->now_ms ? now_ms - core->now_ms : 0;

    core->now_ms = now_ms;
    if (gap_ms > CORE_STANDSTILL(core->ttl_ms))
        excuse_silence(core, gap_ms);
    else if (late_ms > CORE_LATE_MS)
        excuse_silence(core, late_ms + CORE_READ_MS);
}

/* ---- machines ---- */

void core_set_host_state(struct core *core, struct host *host, enum machine_state state)
{
    if (host->state == state)
        return;
    host->state = state;
    core_forget_plan(core);
    core_mark_host(core, host);
}

/* The host says that the unit fails, which is new. */
static void take_failure(struct core *core, const struct host *host, const struct registry_unit *unit,
                         struct effects *out)
{
    const struct core_report *report = host_report(host, unit->name);

    if (unit->desired == UNIT_STATE_LAUNCHED && streq(unit->target, host->id) &&
        report->generation >= unit->generation)
        core_note_failure(core, unit, report, out);
}

/* Units on the host that had failed for good before a limit was there, or this leader was: they will not say
 * so again. */
static void find_failures(struct core *core, const struct host *host, struct effects *out)
{
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next) {
        const struct registry_unit *unit = registry_unit(core->registry, entry->unit);

        if (unit != NULL && core_has_failed(&entry->report) && core_avoids(core, unit, host->id) == NULL)
            take_failure(core, host, unit, out);
    }
}

/* Who was removed is asked for what it had, and for nothing else: whatever it says of other units must not
 * hold them up. */
static bool may_speak_of(const struct core *core, const struct host *host, const char *name)
{
    return !host->leaving || host_may_have(host, name) ||
           registry_may_have_had(core->registry, name, host->id);
}

static bool set_report(const struct core *core, struct host *host, const Fleet__UnitReport *message)
{
    return host_set_report(host, message, registry_unit(core->registry, message->name) != NULL);
}

/* No honest host says so much; its journal, and this one, are where to look. */
static void say_refused_reports(const struct core *core, struct host *host, struct effects *out)
{
    uint64_t count = host_refused_reports(host, core->now_ms);

    if (count > 0)
        effects_add_log(out, NEWS_REPORTS_REFUSED, LOG_WARNING, host->id, NULL, "",
                        "Machine %s (%s) reports of units that the cluster does not have, more than %u or by "
                        "names that are none: %" PRIu64 " reports are left out. Is it in the wrong hands?",
                        host->id, core_hostname(core, host->id), REPORTS_STRANGE_MAX, count);
}

/* The reports that count: by what is known of the host before they do. The caller frees the list alone. */
static Fleet__UnitReport **heed(const struct core *core, const struct host *host,
                                Fleet__UnitReport *const *reports, size_t count, size_t *ret_count)
{
    Fleet__UnitReport **heeded = xcalloc(count, sizeof *heeded);

    *ret_count = 0;
    for (size_t i = 0; i < count; i++)
        if (may_speak_of(core, host, reports[i]->name))
            heeded[(*ret_count)++] = reports[i];
    return heeded;
}

void core_session_open(struct core *core, const char *machine_id, uint64_t session_id,
                       Fleet__UnitReport *const *reports, size_t report_count, bool shuts_down,
                       uint64_t now_ms, struct effects *out)
{
    const struct registry_machine *machine = registry_machine(core->registry, machine_id);
    _cleanup_(freep) Fleet__UnitReport **heeded = NULL;
    size_t heeded_count;
    struct host *host;

    assert(session_id != 0);
    if (!core->leads ||
        ((machine == NULL || !machine->registered) && !core_machine_leaves(core, machine_id))) {
        struct effect *drop = effects_add(out, EFFECT_DROP);

        snprintf(drop->machine_id, sizeof drop->machine_id, "%s", machine_id);
        return;
    }
    advance(core, now_ms, 0);
    host = host_get(&core->hosts, machine_id, now_ms);
    if (host->state == MACHINE_LOST)
        effects_add_log(out, NEWS_MACHINE_BACK, LOG_NOTICE, machine_id, NULL, "", "Machine %s (%s) is back",
                        machine_id, core_hostname(core, machine_id));
    host->session_id = session_id;
    host->called = true;
    host->heard_ms = now_ms;
    mark_held(core, host);
    heeded = heed(core, host, reports, report_count, &heeded_count);
    host_forget_reports(host);
    host_find_again(host);
    for (size_t i = 0; i < heeded_count; i++)
        set_report(core, host, heeded[i]);
    say_refused_reports(core, host, out);
    core_shutdown_set(core, host, shuts_down);
    core_set_host_state(core, host, MACHINE_READY);
    core_mark_host(core, host);
    find_failures(core, host, out);
    send_whole_share(core, host, out);
    settle(core, now_ms, out);
}

void core_local_reports(struct core *core, const char *machine_id, Fleet__UnitReport *const *reports,
                        size_t report_count)
{
    struct host *host;

    if (core->leads)
        return;
    host = host_get(&core->hosts, machine_id, 0);
    for (size_t i = 0; i < report_count; i++)
        set_report(core, host, reports[i]);
}

static struct host *host_of_session(struct core *core, const char *machine_id, uint64_t session_id)
{
    struct host *host = core->leads ? host_find(core->hosts, machine_id) : NULL;

    return host != NULL && host->session_id == session_id ? host : NULL;
}

/* Whether the unit is to leave the host when it is not being changed there any more. */
static bool is_held_up(const struct core *core, const struct host *host, const char *name)
{
    const struct registry_unit *unit = registry_unit(core->registry, name);

    return unit != NULL && streq(unit->target, host->id) &&
           (core_is_drained(core, unit) || core_leaves_failing(core, unit)) &&
           core_is_being_changed(core, unit);
}

/* 'was_failing', 'was_changing': by its report before. */
static void take_report(struct core *core, const struct host *host, const char *name, bool was_failing,
                        bool was_changing, struct effects *out)
{
    const struct registry_unit *unit = registry_unit(core->registry, name);
    const struct core_report *report = host_report(host, name);

    core_mark(core, name);
    if (was_changing && !core_is_being_changed(core, unit)) { /* It may have waited for that to leave. */
        core_forget_plan(core);
        core->plan_wanted = true;
    }
    if (unit != NULL && report != NULL && !was_failing && core_is_failing(report))
        take_failure(core, host, unit, out);
    if (unit != NULL && core->ends_due_ms == UINT64_MAX && core_has_ended(core, unit))
        core->ends_due_ms = core->now_ms + CORE_ENDS_MS;
}

void core_session_report(struct core *core, const char *machine_id, uint64_t session_id,
                         Fleet__UnitReport *const *reports, size_t report_count, uint64_t now_ms,
                         struct effects *out)
{
    struct host *host = host_of_session(core, machine_id, session_id);

    if (host == NULL)
        return;
    advance(core, now_ms, 0);
    host->heard_ms = now_ms;
    for (size_t i = 0; i < report_count; i++) {
        const struct core_report *before = host_report(host, reports[i]->name);
        /* A start that fails is told before it is told to be through: then, with the wanted generation, it
         * counts. */
        bool was_failing =
            before != NULL && core_is_failing(before) && before->generation == reports[i]->generation;
        bool was_changing = is_held_up(core, host, reports[i]->name);

        if (!may_speak_of(core, host, reports[i]->name) || !set_report(core, host, reports[i]))
            continue;
        take_report(core, host, reports[i]->name, was_failing, was_changing, out);
        if (reports[i]->gone && host->kept_waiting)
            mark_waiting(core, host);
    }
    say_refused_reports(core, host, out);
    settle(core, now_ms, out);
}

void core_session_heard(struct core *core, const char *machine_id, uint64_t session_id, uint64_t now_ms)
{
    struct host *host = host_of_session(core, machine_id, session_id);

    if (host == NULL)
        return;
    advance(core, now_ms, 0);
    host->heard_ms = now_ms;
}

void core_session_shutdown(struct core *core, const char *machine_id, uint64_t session_id, bool begins,
                           uint64_t now_ms, struct effects *out)
{
    struct host *host = host_of_session(core, machine_id, session_id);

    if (host == NULL)
        return;
    advance(core, now_ms, 0);
    host->heard_ms = now_ms;
    if (begins != (host->shutdown != SHUTDOWN_NONE))
        effects_add_log(out, NEWS_SHUTDOWN, LOG_NOTICE, host->id, NULL, "",
                        begins ? "Machine %s (%s) is being shut down: what can move goes to others"
                               : "Machine %s (%s) is not being shut down after all: it takes units again",
                        host->id, core_hostname(core, host->id));
    core_shutdown_set(core, host, begins);
    core_mark_host(core, host);
    mark_unplaced(core);
    settle(core, now_ms, out);
}

void core_session_closed(struct core *core, const char *machine_id, uint64_t session_id, uint64_t now_ms,
                         struct effects *out)
{
    struct host *host = host_of_session(core, machine_id, session_id);

    if (host == NULL)
        return;
    advance(core, now_ms, 0);
    host->session_id = 0; /* What it was told it may have, until it says what it has. */
    core_set_host_state(core, host, MACHINE_SUSPECTED);
    settle(core, now_ms, out);
}

/* ---- placing ---- */

void core_set_placing(struct core *core, bool placing, uint64_t now_ms, struct effects *out)
{
    if (core->idle == !placing)
        return;
    core->idle = !placing;
    if (!core->leads)
        return;
    advance(core, now_ms, 0);
    mark_all(core);
    settle(core, now_ms, out);
}

/* ---- time ---- */

/* A lease has ended that somebody waited for. */
static void mark_leased(struct core *core)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (struct host *host = core->hosts; host != NULL; host = host->hh.next)
        host->awaited_ms = 0; /* Who still waits says so when it is looked at. */
    for (size_t i = 0; i < count; i++)
        if (core_needs_lease(units[i]))
            core_mark(core, units[i]->name);
}

void core_tick(struct core *core, uint64_t now_ms, struct effects *out)
{
    if (!core->leads)
        return;
    advance(core, now_ms, core_silence_late_ms(core, now_ms));
    core_judge_silence(core, out);
    if (now_ms >= core_lease_awaited_ms(core))
        mark_leased(core);
    settle(core, now_ms, out);
}

uint64_t core_deadline_ms(const struct core *core)
{
    uint64_t deadline, decision;

    if (!core->leads)
        return UINT64_MAX;
    deadline = core_silence_deadline_ms(core);
    if (core_shutdown_deadline_ms(core) < deadline)
        deadline = core_shutdown_deadline_ms(core);
    if (core_failures_deadline_ms(core) < deadline)
        deadline = core_failures_deadline_ms(core);
    if (core->ends_due_ms < deadline)
        deadline = core->ends_due_ms;
    decision =
        core->plan_wanted && !core->idle && !core->schedule_in_flight ? decision_due_ms(core) : UINT64_MAX;
    if (decision < deadline)
        deadline = decision;
    if (core_lease_deadline_ms(core) < deadline)
        deadline = core_lease_deadline_ms(core);
    if (forget_due_ms(core) < deadline)
        deadline = forget_due_ms(core);
    return core_lease_awaited_ms(core) < deadline ? core_lease_awaited_ms(core) : deadline;
}

/* ---- the registry ---- */

void core_registry_touched(struct core *core)
{
    core_forget_plan(core);
}

/* Of the cluster. What it knows of failures so far is judged by what holds now. */
static void settings_changed(struct core *core, struct effects *out)
{
    core_forget_unlimited(core);
    core_forget_plan(core);
    mark_all(core);
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->session_id != 0)
            find_failures(core, host, out);
}

void core_registry_changed(struct core *core, const struct registry_changes *changes, uint64_t now_ms,
                           struct effects *out)
{
    if (!core->leads)
        return;
    advance(core, now_ms, 0);
    if (changes->everything || changes->machines) {
        expect_machines(core, now_ms);
        mark_globals(core);
        mark_unplaced(core);
        mark_kept_by_lost(core);
        core->plan_wanted = true;
        core_judge_given_up(core, out);
    }
    if (changes->everything)
        mark_all(core);
    if (changes->everything || changes->settings)
        settings_changed(core, out);
    if (changes->everything || changes->units.count > 0) {
        core_lease_look(core);
        core_review_failures(core);
    }
    for (size_t i = 0; i < changes->units.count; i++)
        core_mark(core, changes->units.items[i]);
    if (changes->units.count > 0) {
        mark_globals(core); /* Their conflicts are with what is placed. */
        core->plan_wanted = true;
    }
    settle(core, now_ms, out);
}

void core_schedule_done(struct core *core, uint64_t term, bool applied, uint64_t now_ms, struct effects *out)
{
    if (!core->leads || term != core->term)
        return; /* Another leadership's. */
    advance(core, now_ms, 0);
    core_decision_done(core, out);
    if (!applied) {
        core->plan_wanted = true;
        core->retry_ms = now_ms + CORE_RETRY_MS;
    }
    settle(core, now_ms, out);
}
