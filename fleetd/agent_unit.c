/* SPDX-License-Identifier: Apache-2.0 */
/* The units that the agent knows: their facts, pauses and results. */
#include <config.h>

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/agent_files.h"
#include "fleetd/agent_internal.h"
#include "units/name.h"

/* --- units --- */

struct local_unit *agent_find(const struct agent *agent, const char *name)
{
    struct local_unit *unit;

    HASH_FIND_STR(agent->units, name, unit);
    return unit;
}

struct local_unit *agent_unit_new(struct agent *agent, const char *name)
{
    struct local_unit *unit = NEW0(struct local_unit);

    unit->name = xstrdup(name);
    unit->written_us = unit->asked_us = uv_hrtime() / 1000;
    unit->known = true; /* Nothing was ever made of it: systemd need not be asked. */
    snprintf(unit->active_state, sizeof unit->active_state, "inactive");
    snprintf(unit->sub_state, sizeof unit->sub_state, "dead");
    HASH_ADD_KEYPTR(hh, agent->units, unit->name, strlen(unit->name), unit);
    return unit;
}

void agent_unit_free(struct agent *agent, struct local_unit *unit)
{
    assert(!unit->busy || agent->closing);
    if (unit->dirty)
        DL_DELETE2(agent->dirty, unit, dirty_prev, dirty_next);
    if (unit->unreported)
        DL_DELETE2(agent->unreported, unit, unreported_prev, unreported_next);
    if (unit->preparing)
        DL_DELETE2(agent->preparing, unit, preparing_prev, preparing_next);
    HASH_DEL(agent->units, unit);
    free(unit->name);
    free(unit->text);
    free(unit->error);
    free(unit);
}

void agent_wake(struct agent *agent)
{
    if (!agent->closing)
        uv_idle_start(&agent->idle, agent_on_idle);
}

void agent_unit_touch(struct agent *agent, struct local_unit *unit)
{
    if (!unit->dirty) {
        unit->dirty = true;
        DL_APPEND2(agent->dirty, unit, dirty_prev, dirty_next);
    }
    agent_wake(agent);
}

void agent_unit_clean(struct agent *agent, struct local_unit *unit)
{
    if (unit->dirty)
        DL_DELETE2(agent->dirty, unit, dirty_prev, dirty_next);
    unit->dirty = false;
}

void agent_unit_changed(struct agent *agent, struct local_unit *unit)
{
    if (!unit->unreported) {
        unit->unreported = true;
        DL_APPEND2(agent->unreported, unit, unreported_prev, unreported_next);
    }
    agent_wake(agent);
}

void agent_unit_note(struct agent *agent, struct local_unit *unit)
{
    agent_records_note(&agent->records, unit->name, &unit->record);
    agent_wake(agent);
}

void agent_unit_log(const struct local_unit *unit, int priority, const char *format, ...)
{
    _cleanup_(freep) char *field = xasprintf("UNIT=%s", unit->name);
    _cleanup_(freep) char *message = NULL;
    va_list ap;

    va_start(ap, format);
    message = xvasprintf(format, ap);
    va_end(ap);
    log_message(priority, log_fields(field), "%s: %s", unit->name, message);
}

static void set_preparing(struct agent *agent, struct local_unit *unit, bool preparing)
{
    if (unit->preparing == preparing)
        return;
    unit->preparing = preparing;
    if (preparing)
        DL_APPEND2(agent->preparing, unit, preparing_prev, preparing_next);
    else
        DL_DELETE2(agent->preparing, unit, preparing_prev, preparing_next);
}

void agent_unit_busy(struct agent *agent, struct local_unit *unit, bool preparing)
{
    unit->busy = true;
    agent_unit_clean(agent, unit);
    set_preparing(agent, unit, preparing);
}

void agent_unit_idle(struct agent *agent, struct local_unit *unit)
{
    unit->busy = false;
    set_preparing(agent, unit, false);
    agent_unit_touch(agent, unit);
}

/* --- pauses and results --- */

static void on_retry(uv_timer_t *timer);

/* Wakes up when the first pause ends. */
static void retry_arm(struct agent *agent)
{
    uint64_t first = UINT64_MAX, now = uv_now(agent->loop);
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        if (unit->retry_at_ms != 0 && unit->retry_at_ms < first)
            first = unit->retry_at_ms;
    if (first == UINT64_MAX)
        uv_timer_stop(&agent->retry);
    else
        uv_timer_start(&agent->retry, on_retry, first > now ? first - now : 0, 0);
}

static void on_retry(uv_timer_t *timer)
{
    struct agent *agent = timer->data;
    uint64_t now = uv_now(agent->loop);
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp) {
        if (unit->retry_at_ms == 0 || unit->retry_at_ms > now)
            continue;
        unit->retry_at_ms = 0;
        agent_unit_touch(agent, unit);
    }
    retry_arm(agent);
}

void agent_unit_set_error(struct agent *agent, struct local_unit *unit, const char *error)
{
    if (error == NULL ? unit->error == NULL : unit->error != NULL && streq(unit->error, error))
        return;
    free(unit->error);
    unit->error = xstrdup(error);
    unit->explained = false;
    agent_unit_changed(agent, unit);
}

void agent_unit_fail(struct agent *agent, struct local_unit *unit, const char *verb, const char *why)
{
    _cleanup_(freep) char *error = xasprintf("cannot %s it: %s", verb, why);
    /* Its reason may stand behind it by now. */
    bool again = unit->error != NULL && strncmp(unit->error, error, strlen(error) - 1) == 0;

    if (!again)
        agent_unit_set_error(agent, unit, error);
    unit->retry_ms = unit->retry_ms == 0 ? AGENT_RETRY_MIN_MS : unit->retry_ms * 2;
    if (unit->retry_ms > AGENT_RETRY_MAX_MS)
        unit->retry_ms = AGENT_RETRY_MAX_MS;
    agent_unit_log(unit, again ? LOG_DEBUG : LOG_WARNING, "%s; it is tried again in %" PRIu64 " s", error,
                   unit->retry_ms / 1000);
    unit->retry_at_ms = uv_now(agent->loop) + unit->retry_ms;
    if (!uv_is_active((uv_handle_t *)&agent->retry) || uv_timer_get_due_in(&agent->retry) > unit->retry_ms)
        uv_timer_start(&agent->retry, on_retry, unit->retry_ms, 0);
}

void agent_unit_proved(struct local_unit *unit)
{
    unit->retry_at_ms = unit->retry_ms = 0;
}

void agent_unit_finish(struct agent *agent, struct local_unit *unit, uint64_t generation, const char *result)
{
    if (unit->record.generation == generation && streq(unit->record.result, result))
        return;
    unit->record.generation = generation;
    snprintf(unit->record.result, sizeof unit->record.result, "%s", result);
    agent_unit_note(agent, unit);
    agent_unit_changed(agent, unit);
}

void agent_unit_prepared(struct agent *agent, struct local_unit *unit)
{
    memcpy(unit->record.hash, unit->file_hash, sizeof unit->record.hash);
    agent_unit_note(agent, unit);
}

void agent_unit_removed(struct agent *agent, struct local_unit *unit)
{
    struct err err = {0};

    unit->linked = false;
    if (unit->wish !=
        AGENT_WISH_ABSENT) { /* Wanted again meanwhile: the file is still good, or will be replaced. */
        unit->stale = AGENT_STALE_UNKNOWN;
        return;
    }
    if (agent->links != NULL)
        agent_files_unlink(agent->links, agent->directory, unit->name);
    if ((unit->dropin.stop_ms > 0 && agent_dropin_remove(agent->dropin_directory, unit->name, &err) < 0) ||
        agent_files_remove(agent->directory_fd, unit->name, &err) < 0) {
        agent_unit_fail(agent, unit, "remove", err.text);
        return;
    }
    unit->file_hash[0] = '\0';
    unit->install = AGENT_INSTALL_NONE;
    agent_unit_set_error(agent, unit, NULL);
    unit->dropin = (struct agent_dropin){0};
    unit->record = (struct agent_record){0};
    agent_records_note(&agent->records, unit->name, NULL);
    agent_unit_log(unit, LOG_INFO, "removed");
}

/* --- facts --- */

static enum agent_active active_of(const char *word)
{
    static const struct {
        const char *word;
        enum agent_active active;
    } map[] = {
        {"inactive", AGENT_ACTIVE_INACTIVE},
        {"failed", AGENT_ACTIVE_FAILED},
        {"activating", AGENT_ACTIVE_ACTIVATING},
        {"deactivating", AGENT_ACTIVE_DEACTIVATING},
    };

    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (streq(word, map[i].word))
            return map[i].active;
    return AGENT_ACTIVE_ACTIVE; /* "active", "reloading", "maintenance", and what may come. */
}

bool agent_unit_has_load_error(const struct local_unit *unit)
{
    return unit->load_state[0] != '\0' && !streq(unit->load_state, "loaded");
}

/* A start that systemd refused is tried again; what is only to be loaded cannot get better by itself. And
 * what we have stopped ourselves, when it was not wanted here for a while, is to be started anew. */
static bool is_done(const struct local_unit *unit)
{
    return unit->record.generation == unit->generation && streq(unit->record.hash, unit->hash) &&
           (unit->wish == AGENT_WISH_LOADED ||
            (unit->record.launched && !streq(unit->record.result, "error")));
}

/* Of a unit of which nothing was ever carried out, as far as we remember, it is only known that it runs: it
 * is adopted as it is. */
bool agent_unit_needs_restart(const struct local_unit *unit)
{
    bool remembered = unit->record.generation != 0 || unit->record.asked != 0;

    return unit->record.restart || (remembered && unit->record.asked < unit->restart);
}

void agent_facts(const struct local_unit *unit, struct agent_facts *ret)
{
    *ret = (struct agent_facts){
        .wish = unit->wish,
        .file = unit->file_hash[0] == '\0'           ? AGENT_FILE_NONE
                : streq(unit->file_hash, unit->hash) ? AGENT_FILE_SAME
                                                     : AGENT_FILE_OTHER,
        .active = active_of(unit->active_state),
        .job = unit->job,
        .stale = unit->stale,
        .busy = unit->busy || unit->retry_at_ms != 0,
        .known = unit->known && (unit->wish != AGENT_WISH_LOADED || unit->load_state[0] != '\0'),
        .linked = unit->linked,
        .restart = agent_unit_needs_restart(unit),
        .gentle = !unit_name_restarts(unit->name),
        .fixed = unit->fixed || !unit_name_stops(unit->name),
        .asked = !unit->lapsed && unit->record.launched && unit->record.asked == unit->generation,
        .done = !unit->lapsed && is_done(unit),
        .dropin_other =
            unit->stop_ms != unit->dropin.stop_ms || (unit->stop_ms > 0 && unit->token != unit->dropin.token),
        .no_lease = unit->no_lease,
    };
}

bool agent_unit_restarts_now(const struct local_unit *unit)
{
    struct agent_facts facts;
    enum agent_op op;

    agent_facts(unit, &facts);
    op = agent_plan_unit(&facts);
    return facts.restart && (op == AGENT_OP_START || op == AGENT_OP_RESTART);
}
