/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that works: plans what the dirty units need, starts it, writes the records, sends the
 * reports. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/agent_internal.h"

/* --- operations --- */

/* Whether a process of older content runs on when the file is written. */
static void note_restart(struct agent *agent, struct local_unit *unit)
{
    struct agent_facts facts;

    /* A process that no lease keeps has to be started anew when it needs one. */
    unit->relabelled =
        (unit->stop_ms == 0 || unit->dropin.stop_ms > 0) && unit->file_hash[0] != '\0' &&
        unit->text != NULL &&
        agent_files_mean_the_same(agent->directory_fd, unit->name, unit->text, unit->text_size);
    agent_facts(unit, &facts);
    if (unit->relabelled || !agent_facts_up(&facts) || streq(unit->record.hash, unit->hash))
        return;
    unit->record.restart = true;
    agent_unit_note(agent, unit);
}

/* The unit's file says something new. */
static void note_content(struct local_unit *unit)
{
    enum agent_install install = agent_files_install(unit->text, unit->text_size);
    bool loaded = unit->load_state[0] != '\0' && !streq(unit->load_state, "not-found");

    if (install != AGENT_INSTALL_NONE || unit->install != AGENT_INSTALL_NONE)
        unit->linked = false;
    unit->disable = unit->disable || unit->install == AGENT_INSTALL_SOME;
    unit->install = install;
    unit->untried = true;
    if (loaded || unit->file_hash[0] != '\0' || !streq(unit->active_state, "inactive"))
        unit->stale = AGENT_STALE_UNKNOWN;
    unit->load_state[0] = '\0';
}

/* Only [X-Fleet] is new, which is not systemd's: what was carried out for the content before holds for this
 * one, too. But a failed unit is started once more, like with any new generation; and a restart that was
 * asked for since is still to come. */
static void carry_over(struct agent *agent, struct local_unit *unit)
{
    if (unit->linked && unit->stale == AGENT_STALE_NO)
        memcpy(unit->record.hash, unit->hash, sizeof unit->record.hash);
    if (unit->wish == AGENT_WISH_LAUNCHED && unit->record.launched && !unit->untried &&
        !agent_unit_needs_restart(unit) && unit->record.asked == unit->record.generation &&
        streq(unit->record.result, "done") && !streq(unit->active_state, "failed"))
        unit->record.asked = unit->generation;
    agent_unit_note(agent, unit);
}

static bool has_file(const struct local_unit *unit)
{
    return streq(unit->file_hash, unit->hash);
}

/* What the unit needs beside its file, or nothing. */
static void write_dropin(struct agent *agent, struct local_unit *unit)
{
    const struct agent_dropin wanted = {.token = unit->stop_ms > 0 ? unit->token : 0,
                                        .stop_ms = unit->stop_ms};
    struct err err = {0};
    int r;

    if (wanted.stop_ms == 0 && unit->dropin.stop_ms == 0)
        return;
    if (agent->lease.page == NULL)
        r = err_set(&err, -ENOTSUP, "%s", agent->lease.why);
    else if (wanted.stop_ms == 0)
        r = agent_dropin_remove(agent->dropin_directory, unit->name, &err);
    else
        r = agent_dropin_write(agent->dropin_directory, unit->name, &wanted, &err);
    if (r < 0) {
        agent_unit_fail(agent, unit, "write", err_text(&err, r));
        return;
    }
    unit->dropin = wanted;
    unit->stale = AGENT_STALE_UNKNOWN; /* Something may have kept it loaded. */
}

static void write_one(struct agent *agent, struct local_unit *unit)
{
    struct err err = {0};

    if (has_file(unit)) {
        write_dropin(agent, unit);
        return;
    }
    if (unit->text == NULL) {
        agent_unit_fail(agent, unit, "write", "its content is missing");
        return;
    }
    if (agent->own_unit != NULL && streq(unit->name, agent->own_unit)) {
        agent_unit_finish(agent, unit, unit->generation, "error");
        agent_unit_fail(agent, unit, "write", "fleetd itself runs in the unit of this name");
        return;
    }
    if (agent_files_write(agent->directory_fd, unit->name, unit->text, unit->text_size, unit->relabelled,
                          &err) < 0) {
        agent_unit_finish(agent, unit, unit->generation, "error");
        agent_unit_fail(agent, unit, "write", err.text);
        return;
    }
    agent_unit_log(unit, LOG_DEBUG, "written");
    unit->written_us = uv_hrtime() / 1000;
    if (unit->relabelled)
        carry_over(agent, unit);
    else
        note_content(unit);
    memcpy(unit->file_hash, unit->hash, sizeof unit->file_hash);
    free(TAKE_PTR(unit->text));
    agent_unit_changed(agent, unit);
    write_dropin(agent, unit); /* Behind the file: so no drop-in is ever left without one. */
}

static void do_write(struct agent *agent, struct local_unit **units, size_t count)
{
    for (size_t i = 0; i < count; i++)
        note_restart(agent, units[i]);
    agent_records_flush(
        &agent->records); /* Before the files: a crash in between must not hide that a restart is due. */
    for (size_t i = 0; i < count; i++)
        write_one(agent, units[i]);
}

static void do_settle(struct agent *agent, struct local_unit *unit)
{
    const char *result = "done";

    agent_unit_proved(unit);
    unit->untried = false;
    unit->record.launched = unit->wish == AGENT_WISH_LAUNCHED;
    if (unit->wish == AGENT_WISH_LAUNCHED)
        unit->record.asked = unit->generation;
    memcpy(unit->record.hash, unit->file_hash, sizeof unit->record.hash);
    agent_unit_note(agent, unit);
    if (unit->wish == AGENT_WISH_LOADED)
        result = agent_unit_has_load_error(unit) ? "error" : "done";
    else if (streq(unit->active_state, "failed"))
        result = "failed";
    if (streq(result, "done"))
        agent_unit_set_error(agent, unit, NULL);
    agent_unit_finish(agent, unit, unit->generation, result);
}

void agent_report_unit(const struct local_unit *unit, bool gone,
                       void (*each)(const struct agent_report *, void *), void *data)
{
    /* What is told as running may be let run; and where there must be only one, only what is surely so. */
    bool doubtful = !unit->known && agent_lease_applies(unit);
    struct agent_report report = {
        .name = unit->name,
        .load_state = unit->load_state,
        .active_state = doubtful ? "" : unit->active_state,
        .sub_state = unit->sub_state,
        .hash = unit->file_hash,
        .generation = unit->lapsed ? 0 : unit->record.generation,
        .result = unit->record.result,
        .error = unit->error != NULL ? unit->error : "",
        .launched = unit->record.launched,
        .asked = unit->record.asked,
        .gone = gone,
    };

    each(&report, data);
}

/* Freed by reports_flush(), which may be the next to run. */
static void do_forget(struct agent *agent, struct local_unit *unit)
{
    agent_unit_changed(agent, unit);
}

/* Whether something was done at once, so that the facts have changed already. */
static bool execute_batch(struct agent *agent, enum agent_op op, struct local_unit **units, size_t count)
{
    switch (op) {
    case AGENT_OP_REMOVE:
        if (!agent->removing)
            agent_call_remove(agent, units, count);
        return false;
    case AGENT_OP_CHECK:
        if (!agent->checking)
            agent_call_check(agent, units, count);
        return false;
    case AGENT_OP_LINK:
        if (!agent->linking)
            agent_call_link(agent, units, count);
        return false;
    case AGENT_OP_RELOAD:
        if (!agent->reload_asked)
            agent_call_reload(agent, units, count);
        return false;
    case AGENT_OP_WRITE: do_write(agent, units, count); return true;
    default: return false;
    }
}

static bool execute_one(struct agent *agent, enum agent_op op, struct local_unit *unit)
{
    switch (op) {
    case AGENT_OP_NONE: agent_unit_clean(agent, unit); return false;
    case AGENT_OP_FORGET:
        agent_unit_clean(agent, unit);
        do_forget(agent, unit);
        return false;
    case AGENT_OP_SETTLE: do_settle(agent, unit); return true;
    default: break;
    }
    if (agent_calls_full(agent))
        return false; /* It stays dirty; an answer wakes us. */
    switch (op) {
    case AGENT_OP_STOP: agent_call_stop(agent, unit); break;
    case AGENT_OP_START:
    case AGENT_OP_RESTART: agent_call_start(agent, unit); break;
    case AGENT_OP_ASK: agent_call_ask(agent, unit); break;
    default: break;
    }
    return false;
}

static bool execute(struct agent *agent, const struct agent_plan_item *items, size_t count)
{
    _cleanup_(freep) struct local_unit **units = xcalloc(count, sizeof *units);
    bool progress = false;
    size_t run;

    for (size_t i = 0; i < count; i++)
        units[i] = items[i].data;
    for (size_t i = 0; i < count; i += run) {
        for (run = 1; i + run < count && items[i + run].op == items[i].op; run++)
            ;
        progress |= execute_batch(agent, items[i].op, units + i, run);
        for (size_t j = i; j < i + run; j++)
            progress |= execute_one(agent, items[j].op, units[j]);
    }
    return progress;
}

static bool step_once(struct agent *agent)
{
    _cleanup_(freep) struct agent_plan_item *items = NULL;
    uint64_t preparing = UINT64_MAX;
    size_t count = 0, capacity = 0;
    struct local_unit *unit;

    DL_FOREACH2(agent->dirty, unit, dirty_next)
    {
        GROW(items, capacity, count + 1);
        agent_lease_look(agent, unit);
        items[count] = (struct agent_plan_item){.name = unit->name, .data = unit, .batch = unit->batch};
        agent_facts(unit, &items[count++].facts);
    }
    DL_FOREACH2(agent->preparing, unit, preparing_next)
    if (unit->batch < preparing)
        preparing = unit->batch;
    if (count == 0)
        return false;
    agent_plan(items, count, preparing);
    return execute(agent, items, count);
}

/* --- reports --- */

static void records_flush(struct agent *agent)
{
    struct local_unit *unit, *tmp;

    if (!agent_records_is_long(&agent->records, HASH_COUNT(agent->units))) {
        agent_records_flush(&agent->records);
        return;
    }
    agent_records_begin(&agent->records);
    HASH_ITER (hh, agent->units, unit, tmp)
        if (unit->record.hash[0] != '\0' || unit->record.generation != 0)
            agent_records_note(&agent->records, unit->name, &unit->record);
    agent_records_end(&agent->records);
}

static bool is_gone(const struct local_unit *unit)
{
    return unit->wish == AGENT_WISH_ABSENT && unit->file_hash[0] == '\0' && !unit->busy &&
           unit->retry_at_ms == 0;
}

static void reports_flush(struct agent *agent)
{
    struct local_unit *unit, *next;

    for (unit = agent->unreported; unit != NULL && !agent->closing; unit = next) {
        bool gone = is_gone(unit);

        next = unit->unreported_next;
        if (!gone && (!unit->known || unit->explaining))
            continue; /* Its states, or its reason, are on their way. */
        DL_DELETE2(agent->unreported, unit, unreported_prev, unreported_next);
        unit->unreported = false;
        agent_report_unit(unit, gone, agent->callbacks->on_report, agent->data);
        next = agent->unreported; /* The callback may have changed what is wanted. */
        if (gone && is_gone(unit))
            agent_unit_free(agent, unit);
    }
}

void agent_on_idle(uv_idle_t *idle)
{
    struct agent *agent = idle->data;

    uv_idle_stop(idle);
    while (agent->attached && step_once(agent))
        ;
    records_flush(agent);
    reports_flush(agent);
}
