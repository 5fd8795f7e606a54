/* SPDX-License-Identifier: Apache-2.0 */
/* Machines that are being shut down in order: what runs there leaves first, as from one that is drained
 * (drain.h), while the machine waits; it is told when it need not wait any longer. */
#include <config.h>

#include <stdlib.h>
#include <syslog.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"

/* How long nothing moves after a machine has said that it is being shut down: others that are shut down by
 * the same command say so meanwhile, and then nothing is moved from one to the next. Machines wait for 5 s in
 * all unless somebody has raised that, so it is a small part of it. */
#define GATHER_MS 300u

/* ---- what others ask ---- */

bool core_machine_shuts_down(const struct core *core, const char *machine_id)
{
    const struct host *host = host_find(core->hosts, machine_id);

    return host != NULL && host->shutdown != SHUTDOWN_NONE;
}

const char *core_left_because(const struct core *core, const struct registry_machine *machine)
{
    const struct host *host = host_find(core->hosts, machine->id);

    if (machine->availability == MACHINE_DRAINING)
        return "is being drained";
    return host != NULL && host->shutdown > SHUTDOWN_BEGUN && !core->shutdown_brake ? "is shutting down"
                                                                                    : NULL;
}

/* ---- who is shut down ---- */

void core_shutdown_set(struct core *core, struct host *host, bool begins)
{
    if (!begins)
        host->shutdown = SHUTDOWN_NONE;
    else if (host->shutdown == SHUTDOWN_READY)
        host->shutdown = SHUTDOWN_MOVING; /* It did not hear it, perhaps. */
    else if (host->shutdown == SHUTDOWN_NONE) {
        host->shutdown = SHUTDOWN_BEGUN;
        host->shutdown_ms = core->now_ms;
    }
    core_forget_plan(core);
}

/* One that is missing could take nothing over: what goes is most of those that are left. But one that went in
 * order, and is missing since, is one of those that go. */
static bool is_counted(const struct host *host)
{
    return host->state == MACHINE_MISSING ? host->shutdown != SHUTDOWN_NONE : host->state != MACHINE_LOST;
}

/* If most of the machines go, nobody means the others to run everything: what would be moved would be moved
 * again by the next one, and in the end all of it would be on the last. */
static bool is_everybody(const struct core *core, size_t *ret_down, size_t *ret_of)
{
    *ret_down = *ret_of = 0;
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (host->leaving || !is_counted(host))
            continue;
        (*ret_of)++;
        *ret_down += host->shutdown != SHUTDOWN_NONE;
    }
    return *ret_down > 1 && 2 * *ret_down > *ret_of;
}

static void look_for_brake(struct core *core, struct effects *out)
{
    size_t down, of;

    if (is_everybody(core, &down, &of) == core->shutdown_brake)
        return;
    core->shutdown_brake = !core->shutdown_brake;
    core_forget_plan(core);
    core->plan_wanted = true;
    if (core->shutdown_brake)
        effects_add_log(out, NEWS_SHUTDOWN, LOG_NOTICE, "", NULL, "",
                        "%zu of %zu machines are being shut down together: nothing is moved off them", down,
                        of);
}

void core_shutdown_look(struct core *core, struct effects *out)
{
    look_for_brake(core, out);
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (host->shutdown != SHUTDOWN_BEGUN || core->now_ms < host->shutdown_ms + GATHER_MS)
            continue;
        host->shutdown = SHUTDOWN_MOVING;
        core_forget_plan(core);
        core_mark_host(core, host);
    }
}

uint64_t core_shutdown_deadline_ms(const struct core *core)
{
    uint64_t deadline = UINT64_MAX;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->shutdown == SHUTDOWN_BEGUN && host->shutdown_ms + GATHER_MS < deadline)
            deadline = host->shutdown_ms + GATHER_MS;
    return deadline;
}

/* ---- who need not wait any longer ---- */

static bool has_failed(const struct core *core, const struct registry_unit *unit)
{
    const struct core_report *report = core_report(core, unit->target, unit->name);

    return report != NULL && report->generation >= unit->generation &&
           core_judge_report(unit->desired, report) == OUTCOME_FAILED;
}

/* Whether what the host has, or may have, of the unit is needed until another machine has it. */
static bool is_on_its_way(const struct core *core, const struct host *host, const char *name)
{
    const struct registry_unit *unit = registry_unit(core->registry, name);

    return unit != NULL && !unit->requirements->global && unit->desired != UNIT_STATE_INACTIVE &&
           unit->target[0] != '\0' && !streq(unit->target, host->id) &&
           !core_handover_is_through(core, unit) && !has_failed(core, unit);
}

static bool any_on_its_way(const struct core *core, const struct host *host)
{
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next)
        if (is_on_its_way(core, host, entry->unit))
            return true;
    for (const struct host_told *told = host->told; told != NULL; told = told->hh.next)
        if (is_on_its_way(core, host, told->unit))
            return true;
    return false;
}

static bool has_place_of_any(const struct core *core, const struct host *host)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        if (streq(units[i]->target, host->id))
            return true;
    return false;
}

static bool is_ready(const struct core *core, const struct host *host)
{
    /* What is being decided may be meant for it, from before. */
    if (any_on_its_way(core, host) || core->schedule_in_flight)
        return false;
    if (core->idle || core->shutdown_brake || !has_place_of_any(core, host))
        return true;
    return host->shutdown == SHUTDOWN_MOVING && !core->plan_wanted && !core_drain_goes_on(core, host->id);
}

static char *why_it_stays(const struct core *core, const struct registry_unit *unit)
{
    const struct drain *drain = core->idle || core->shutdown_brake ? NULL : core_drain(core);
    const char *why = drain != NULL ? core_pending_reason(drain->decision->plan, unit->name) : "";

    if (core->idle)
        return xstrdup("the leader has disable_engine set, and moves nothing");
    if (core->shutdown_brake)
        return xstrdup("most machines are being shut down together");
    return why[0] != '\0' ? xstrdup(why) : xstrdup("what it belongs to stays (MachineOf)");
}

static void say_who_stays(const struct core *core, const struct host *host, struct effects *out)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++) {
        _cleanup_(freep) char *why = NULL;

        if (streq(units[i]->target, host->id))
            why = why_it_stays(core, units[i]);
        else if (host_may_have(host, units[i]->name) && units[i]->handover && has_failed(core, units[i]))
            why = xasprintf("it failed on %s", core_hostname(core, units[i]->target));
        if (why != NULL)
            effects_add_log(out, NEWS_STAYS, LOG_WARNING, host->id, units[i]->name, why,
                            "%s stays on %s, which is shutting down: %s", units[i]->name,
                            core_hostname(core, host->id), why);
    }
}

void core_shutdown_answer(struct core *core, struct effects *out)
{
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if ((host->shutdown != SHUTDOWN_BEGUN && host->shutdown != SHUTDOWN_MOVING) ||
            host->session_id == 0 || host->state != MACHINE_READY || !is_ready(core, host))
            continue;
        host->shutdown = SHUTDOWN_READY;
        memcpy(effects_add(out, EFFECT_SHUTDOWN_READY)->machine_id, host->id, sizeof host->id);
        say_who_stays(core, host, out);
        core_mark_host(core, host); /* Nobody waits any more for what it stops. */
    }
}
