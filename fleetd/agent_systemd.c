/* SPDX-License-Identifier: Apache-2.0 */
/* The calls to systemd (org.freedesktop.systemd1(5)) and its signals. All calls are asynchronous; a reply
 * only notes facts. A call for several units that fails is repeated for each of them alone, so that a bad one
 * hurts no other. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/agent_internal.h"
#include "units/name.h"

#define SYSTEMD  "org.freedesktop.systemd1"
#define OBJECT   "/org/freedesktop/systemd1"
#define MANAGER  "org.freedesktop.systemd1.Manager"
#define UNIT     "org.freedesktop.systemd1.Unit"
#define JOB_PATH "/org/freedesktop/systemd1/job/"

/* A call under way. 'reply' is called once, and never after the connection was lost. */
struct agent_call {
    struct agent *agent;
    sd_bus_slot *slot;
    void (*reply)(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error);
    struct local_unit **units; /* Busy meanwhile, but those of a call that waits for nothing. */
    size_t count;
    struct agent_call *prev, *next;
};

typedef void agent_reply(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error);

static void call_free(struct agent_call *call)
{
    DL_DELETE(call->agent->calls, call);
    call->agent->call_count--;
    sd_bus_slot_unref(call->slot);
    free(call->units);
    free(call);
}

static int on_reply(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct agent_call *call = data;
    struct agent *agent = call->agent;

    if (sd_bus_is_open(agent->sd) <= 0) { /* An answer that sd-bus made up: agent_detach() comes. */
        bus_fail(agent->bus, "systemd has closed the connection");
        return 0;
    }
    call->reply(call, m, sd_bus_message_get_error(m));
    call_free(call);
    agent_wake(agent);
    return 0;
}

bool agent_calls_full(const struct agent *agent)
{
    return agent->call_count >= (agent->direct ? AGENT_CALLS_DIRECT : AGENT_CALLS_BUS);
}

static sd_bus_message *new_call(struct agent *agent, const char *path, const char *interface,
                                const char *member)
{
    sd_bus_message *m = NULL;
    int r = sd_bus_message_new_method_call(agent->sd, &m, SYSTEMD, path, interface, member);

    if (r < 0)
        bus_fail(agent->bus, strerror(-r));
    return m;
}

/* Takes 'm' (NULL: nothing happens, the connection is being given up). */
static void send_call(struct agent *agent, sd_bus_message *m, agent_reply *reply,
                      struct local_unit *const *units, size_t count)
{
    struct agent_call *call;
    int r;

    if (m == NULL)
        return;
    call = NEW0(struct agent_call);
    *call = (struct agent_call){.agent = agent, .reply = reply, .count = count};
    call->units = xmemdup(units, count * sizeof *units);
    DL_APPEND(agent->calls, call);
    agent->call_count++;
    r = sd_bus_call_async(agent->sd, &call->slot, m, on_reply, call, 0);
    sd_bus_message_unref(m);
    if (r < 0)
        bus_fail(agent->bus, strerror(-r)); /* The call goes with the connection. */
}

static const char *error_text(const sd_bus_error *error)
{
    return error->message != NULL && error->message[0] != '\0' ? error->message : error->name;
}

/* Not the unit's fault: the same call may succeed later. */
static bool is_transient(const sd_bus_error *error)
{
    return !str_has_prefix(error->name, SYSTEMD ".");
}

static uint32_t job_id(const char *path)
{
    return str_has_prefix(path, JOB_PATH) ? (uint32_t)strtoul(path + strlen(JOB_PATH), NULL, 10) : 0;
}

void agent_unit_set_state(struct agent *agent, struct local_unit *unit, char word[static AGENT_STATE_SIZE],
                          const char *value)
{
    if (streq(word, value))
        return;
    snprintf(word, AGENT_STATE_SIZE, "%s", value);
    agent_unit_changed(agent, unit);
}

void agent_unit_set_inactive(struct agent *agent, struct local_unit *unit)
{
    agent_unit_set_state(agent, unit, unit->active_state, "inactive");
    agent_unit_set_state(agent, unit, unit->sub_state, "dead");
}

/* --- jobs --- */

/* A start was refused: what that says of the unit itself. */
static void note_refusal(struct agent *agent, struct local_unit *unit, const sd_bus_error *error)
{
    static const struct {
        const char *error, *load_state;
    } map[] = {
        {SYSTEMD ".NoSuchUnit", "not-found"},
        {SYSTEMD ".BadUnitSetting", "bad-setting"},
        {SYSTEMD ".LoadFailed", "error"},
        {SYSTEMD ".UnitMasked", "masked"},
    };
    /* The same errors come for a unit that this one requires. */
    bool own = strstr(error_text(error), unit->name) != NULL;
    const char *load_state = "loaded";

    for (size_t i = 0; own && i < ARRAY_SIZE(map); i++)
        if (streq(error->name, map[i].error))
            load_state = map[i].load_state;
    agent_unit_set_state(agent, unit, unit->load_state, load_state);
    if (streq(load_state, "not-found"))
        unit->linked = false;
}

/* Where D-Bus says what is wrong, but not why. */
static bool has_reason_elsewhere(const struct local_unit *unit)
{
    return streq(unit->load_state, "bad-setting") || streq(unit->load_state, "error");
}

static void note_asked(struct agent *agent, struct local_unit *unit)
{
    unit->untried = unit->untried && unit->job_generation != unit->generation;
    unit->record.asked = unit->job_generation;
    unit->record.launched = true;
    unit->record.restart = false;
    agent_unit_note(agent, unit);
    agent_unit_changed(agent, unit);
}

static void on_started(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    struct local_unit *unit = call->units[0];
    const char *path;

    agent_unit_idle(agent, unit);
    if (error != NULL) {
        if (!is_transient(error)) {
            note_refusal(agent, unit, error);
            agent_unit_finish(agent, unit, unit->job_generation, "error");
        }
        agent_unit_fail(agent, unit, "start", error_text(error));
        if (has_reason_elsewhere(unit))
            agent_why_ask(agent, unit, unit->written_us);
        return;
    }
    if (sd_bus_message_read(m, "o", &path) < 0)
        return;
    agent_unit_proved(unit);
    agent_unit_set_error(agent, unit, NULL);
    agent_unit_set_state(agent, unit, unit->load_state, "loaded");
    unit->job = AGENT_JOB_START;
    unit->job_id = job_id(path);
    note_asked(agent, unit);
}

static void send_start(struct agent *agent, struct local_unit *unit, bool restart)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, restart ? "RestartUnit" : "StartUnit");

    agent_unit_busy(agent, unit, false);
    unit->job_generation = unit->generation;
    unit->signalled = false;
    unit->asked_us = uv_hrtime() / 1000;
    agent_unit_log(unit, LOG_INFO, "%s (generation %" PRIu64 ")", restart ? "restarting" : "starting",
                   unit->generation);
    if (m != NULL)
        sd_bus_message_append(m, "ss", unit->name, "replace");
    send_call(agent, m, on_started, &unit, 1);
}

static void read_invocation(sd_bus_message *m, char ret[static AGENT_INVOCATION_SIZE])
{
    const void *id;
    size_t size;

    ret[0] = '\0';
    if (sd_bus_message_enter_container(m, 'v', "ay") > 0 &&
        sd_bus_message_read_array(m, 'y', &id, &size) >= 0 && size == AGENT_INVOCATION_SIZE / 2)
        id_to_hex(id, size, ret);
}

/* Which run of the unit there is: the one that a restart is to end. If we have asked for this restart before,
 * and were cut short before we knew whether it was accepted, another run means that it was; and while it is
 * the same one, systemd makes one restart of two. */
static void on_invocation(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    struct local_unit *unit = call->units[0];
    struct agent_record *record = &unit->record;
    char invocation[AGENT_INVOCATION_SIZE];

    agent_unit_idle(agent, unit);
    if (error != NULL) {
        agent_unit_fail(agent, unit, "restart", error_text(error));
        return;
    }
    if (!agent_unit_restarts_now(unit))
        return; /* Something else is wanted by now. */
    read_invocation(m, invocation);
    if (record->restarting == unit->generation && !streq(record->invocation, invocation)) {
        unit->job_generation = unit->generation;
        note_asked(agent, unit);
        return;
    }
    record->restarting = unit->generation;
    memcpy(record->invocation, invocation, sizeof invocation);
    agent_unit_note(agent, unit);
    agent_records_flush(&agent->records);
    send_start(agent, unit, true);
}

static void on_stopped(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    struct local_unit *unit = call->units[0];
    const char *path;

    agent_unit_idle(agent, unit);
    if (error != NULL && streq(error->name, SYSTEMD ".JobTypeNotApplicable")) {
        unit->fixed = true; /* Such as -.slice: systemd never stops it. So it is as stopped as can be. */
    } else if (error != NULL && !streq(error->name, SYSTEMD ".NoSuchUnit")) {
        agent_unit_fail(agent, unit, "stop", error_text(error));
        return;
    }
    agent_unit_proved(unit);
    unit->record.launched = false;
    unit->record.restart = false;
    agent_unit_note(agent, unit);
    agent_unit_changed(agent, unit);
    if (error != NULL) {
        if (!unit->fixed)
            agent_unit_set_inactive(agent, unit);
        unit->job = AGENT_JOB_NONE;
    } else if (sd_bus_message_read(m, "o", &path) >= 0) {
        unit->job = AGENT_JOB_STOP;
        unit->job_id = job_id(path);
    }
}

/* It is noted first whose stop it is: if we are cut short before the answer, it is not an operator's. */
void agent_call_stop(struct agent *agent, struct local_unit *unit)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, "StopUnit");

    agent_unit_busy(agent, unit, false);
    unit->record.launched = false;
    agent_unit_note(agent, unit);
    agent_records_flush(&agent->records);
    agent_unit_log(unit, LOG_INFO, "stopping");
    if (m != NULL)
        sd_bus_message_append(m, "ss", unit->name, "replace");
    send_call(agent, m, on_stopped, &unit, 1);
}

/* --- preparation: link, enable, ask, reload --- */

/* The paths of the units' files. */
static void append_paths(sd_bus_message *m, struct agent *agent, struct local_unit *const *units,
                         size_t count)
{
    sd_bus_message_open_container(m, 'a', "s");
    for (size_t i = 0; i < count; i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", agent->directory, units[i]->name);

        sd_bus_message_append(m, "s", path);
    }
    sd_bus_message_close_container(m);
}

static void append_names(sd_bus_message *m, struct local_unit *const *units, size_t count)
{
    sd_bus_message_open_container(m, 'a', "s");
    for (size_t i = 0; i < count; i++)
        sd_bus_message_append(m, "s", units[i]->name);
    sd_bus_message_close_container(m);
}

static void units_busy(struct agent *agent, struct local_unit *const *units, size_t count, bool preparing)
{
    for (size_t i = 0; i < count; i++)
        agent_unit_busy(agent, units[i], preparing);
}

static void unit_linked(struct agent *agent, struct local_unit *unit)
{
    unit->linked = true;
    agent_unit_idle(agent, unit);
    if (unit->stale == AGENT_STALE_NO)
        agent_unit_prepared(agent, unit);
}

static void send_link(struct agent *agent, struct local_unit *const *units, size_t count);
static void send_enable(struct agent *agent, struct local_unit *const *units, size_t count);

/* Sends each unit of a failed call again, alone; or fails the only one. */
static void retry_alone(struct agent_call *call, const char *verb, const sd_bus_error *error,
                        void (*send)(struct agent *, struct local_unit *const *, size_t))
{
    if (call->count == 1) {
        agent_unit_idle(call->agent, call->units[0]);
        agent_unit_fail(call->agent, call->units[0], verb, error_text(error));
        return;
    }
    for (size_t i = 0; i < call->count; i++)
        send(call->agent, &call->units[i], 1);
}

/* Without its link, or without being enabled, a unit is not even loaded. It is tried again, but whoever waits
 * for it is told. */
static void note_unprepared(struct agent *agent, struct local_unit *unit)
{
    if (streq(unit->hash, unit->file_hash)) /* Else there is something newer to try, at once. */
        agent_unit_finish(agent, unit, unit->generation, "error");
}

static void on_enabled(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    if (error != NULL) {
        if (call->count == 1)
            note_unprepared(call->agent, call->units[0]);
        retry_alone(call, "enable", error, send_enable);
        return;
    }
    for (size_t i = 0; i < call->count; i++) {
        call->units[i]->stale = AGENT_STALE_YES; /* Others depend on it now, which they learn by a reload. */
        unit_linked(call->agent, call->units[i]);
    }
}

static void send_enable(struct agent *agent, struct local_unit *const *units, size_t count)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, "EnableUnitFiles");

    if (m != NULL) {
        append_paths(m, agent, units, count);
        sd_bus_message_append(m, "bb", true, true);
    }
    send_call(agent, m, on_enabled, units, count);
}

/* As in the first fleet (fleet-behaviour.md §2.7): what is to be enabled must be something that can be. */
static void refuse_empty_install(struct agent *agent, struct local_unit *unit)
{
    agent_unit_idle(agent, unit);
    note_unprepared(agent, unit);
    agent_unit_fail(agent, unit, "enable",
                    "its [Install] section has none of WantedBy=, RequiredBy=, UpheldBy=, Alias= and Also=");
}

static void on_linked(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    _cleanup_(freep) struct local_unit **enable = xcalloc(call->count, sizeof *enable);
    size_t count = 0;

    call->agent->linking = false;
    if (error != NULL) {
        if (call->count == 1)
            note_unprepared(call->agent, call->units[0]);
        retry_alone(call, "link", error, send_link);
        return;
    }
    for (size_t i = 0; i < call->count; i++) {
        if (call->units[i]->install == AGENT_INSTALL_SOME)
            enable[count++] = call->units[i];
        else if (call->units[i]->install == AGENT_INSTALL_EMPTY)
            refuse_empty_install(call->agent, call->units[i]);
        else
            unit_linked(call->agent, call->units[i]);
    }
    if (count > 0)
        send_enable(call->agent, enable, count);
}

static void send_link(struct agent *agent, struct local_unit *const *units, size_t count)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, "LinkUnitFiles");

    if (m != NULL) {
        append_paths(m, agent, units, count);
        sd_bus_message_append(m, "bb", true, true);
    }
    send_call(agent, m, on_linked, units, count);
}

static void on_ignored(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
}

static void send_disable(struct agent *agent, agent_reply *reply, struct local_unit *const *units,
                         size_t count)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, "DisableUnitFiles");

    if (m != NULL) {
        append_names(m, units, count);
        sd_bus_message_append(m, "b", true);
    }
    send_call(agent, m, reply, units, count);
}

static void on_looked(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    if (error == NULL && call->units[0]->stale == AGENT_STALE_NO)
        call->units[0]->stale = AGENT_STALE_UNKNOWN;
}

/* A name that is new to us need not be new to systemd: a unit of the host, or one of ours that was removed,
 * and is remembered for as long as another unit names it. */
static void look_for_older(struct agent *agent, struct local_unit *unit)
{
    sd_bus_message *m;

    if (unit->stale != AGENT_STALE_NO)
        return;
    if (!agent->direct) { /* The bus would refuse that many calls at a time. */
        unit->stale = AGENT_STALE_UNKNOWN;
        return;
    }
    m = new_call(agent, OBJECT, MANAGER, "GetUnit");
    if (m != NULL)
        sd_bus_message_append(m, "s", unit->name);
    send_call(agent, m, on_looked, &unit, 1); /* Answered before the link is. */
}

void agent_call_link(struct agent *agent, struct local_unit **units, size_t count)
{
    _cleanup_(freep) struct local_unit **disable = xcalloc(count, sizeof *disable);
    size_t disable_count = 0;

    units_busy(agent, units, count, true);
    for (size_t i = 0; i < count; i++) {
        if (units[i]->disable)
            disable[disable_count++] = units[i];
        units[i]->disable = false;
        look_for_older(agent, units[i]);
    }
    if (disable_count > 0) /* Of the older content; systemd works through our calls in order. */
        send_disable(agent, on_ignored, disable, disable_count);
    agent->linking = true;
    send_link(agent, units, count);
}

static void on_asked(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct local_unit *unit = call->units[0];
    int stale = true;

    agent_unit_idle(call->agent, unit);
    if (error == NULL)
        sd_bus_message_read(m, "v", "b", &stale);
    unit->stale = stale ? AGENT_STALE_YES : AGENT_STALE_NO;
    if (!stale)
        agent_unit_prepared(call->agent, unit);
}

static sd_bus_message *new_get(struct agent *agent, const char *unit, const char *property)
{
    _cleanup_(freep) char *path = NULL;
    sd_bus_message *m;

    if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path) < 0)
        abort(); /* Out of memory. */
    m = new_call(agent, path, "org.freedesktop.DBus.Properties", "Get");
    if (m != NULL)
        sd_bus_message_append(m, "ss", UNIT, property);
    return m;
}

static void on_fragment(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    struct local_unit *unit = call->units[0];
    const char *path;

    if (error == NULL && sd_bus_message_read(m, "v", "s", &path) >= 0 && path[0] != '\0' &&
        !agent_files_is(agent->directory_fd, unit->name, path)) {
        /* It was loaded from another place, before ours took precedence; and what runs, if it does, is that.
         */
        agent_unit_idle(agent, unit);
        unit->stale = AGENT_STALE_YES;
        unit->known = false;
        unit->record.restart = true;
        agent_unit_note(agent, unit);
        return;
    }
    send_call(agent, new_get(agent, unit->name, "NeedDaemonReload"), on_asked, &unit, 1);
}

void agent_call_start(struct agent *agent, struct local_unit *unit)
{
    if (!agent_unit_needs_restart(unit) || !unit_name_restarts(unit->name)) {
        send_start(agent, unit, false);
        return;
    }
    agent_unit_busy(agent, unit, false);
    send_call(agent, new_get(agent, unit->name, "InvocationID"), on_invocation, &unit, 1);
}

void agent_call_ask(struct agent *agent, struct local_unit *unit)
{
    agent_unit_busy(agent, unit, true);
    send_call(agent, new_get(agent, unit->name, "FragmentPath"), on_fragment, &unit, 1);
}

static void on_reloaded(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;

    agent->reload_asked = false;
    for (size_t i = 0; i < call->count; i++) {
        agent_unit_idle(agent, call->units[i]);
        if (error != NULL) {
            agent_unit_fail(agent, call->units[i], "reload systemd for", error_text(error));
        } else {
            call->units[i]->stale = AGENT_STALE_NO;
            agent_unit_prepared(agent, call->units[i]);
        }
    }
}

void agent_call_reload(struct agent *agent, struct local_unit **units, size_t count)
{
    log_info("reloading systemd for %zu changed unit%s", count, count == 1 ? "" : "s");
    units_busy(agent, units, count, true);
    agent->reload_asked = true;
    send_call(agent, new_call(agent, OBJECT, MANAGER, "Reload"), on_reloaded, units, count);
}

/* --- removal --- */

static void send_remove(struct agent *agent, struct local_unit *const *units, size_t count);

static void on_forgotten(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    call->agent->removing = false;
    for (size_t i = 0; i < call->count; i++) {
        agent_unit_idle(call->agent, call->units[i]);
        if (error != NULL)
            agent_unit_log(call->units[i], LOG_WARNING, "systemd still depends on it: %s", error_text(error));
    }
}

/* As systemctl(1) does after a disable: the units that wanted this one are to forget it. */
static void send_forget(struct agent *agent, struct local_unit *const *units, size_t count)
{
    log_info("reloading systemd for %zu disabled unit%s", count, count == 1 ? "" : "s");
    units_busy(agent, units, count, false);
    agent->removing = true; /* What else is removed meanwhile shares the next reload. */
    send_call(agent, new_call(agent, OBJECT, MANAGER, "Reload"), on_forgotten, units, count);
}

static void on_disabled(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    _cleanup_(freep) struct local_unit **named = xcalloc(call->count, sizeof *named);
    size_t count = 0;
    /* Cut short between this call and the removal of the file, we ask again for what is disabled already. And
     * a name that systemd does not take (such as ".service") was never linked. */
    bool is_done = error != NULL && call->count == 1 &&
                   (streq(error->name, SYSTEMD ".NoSuchUnit") || sd_bus_error_get_errno(error) == ENOENT ||
                    (streq(error->name, SYSTEMD ".BadUnitSetting") && !call->units[0]->linked));

    call->agent->removing = false;
    if (error != NULL && !is_done) {
        retry_alone(call, "disable", error, send_remove);
        return;
    }
    for (size_t i = 0; i < call->count; i++) {
        bool enabled = call->units[i]->install == AGENT_INSTALL_SOME;

        agent_unit_idle(call->agent, call->units[i]);
        agent_unit_removed(call->agent, call->units[i]);
        if (enabled && call->units[i]->file_hash[0] == '\0')
            named[count++] = call->units[i];
    }
    if (count > 0)
        send_forget(call->agent, named, count);
}

static void send_remove(struct agent *agent, struct local_unit *const *units, size_t count)
{
    send_disable(agent, on_disabled, units, count);
}

void agent_call_remove(struct agent *agent, struct local_unit **units, size_t count)
{
    units_busy(agent, units, count, false);
    for (size_t i = 0; i < count; i++) {
        sd_bus_message *m;

        if (!streq(units[i]->active_state, "failed"))
            continue;
        m = new_call(agent, OBJECT, MANAGER, "ResetFailedUnit");
        if (m != NULL)
            sd_bus_message_append(m, "s", units[i]->name);
        send_call(agent, m, on_ignored, NULL, 0);
    }
    agent->removing = true;
    send_remove(agent, units, count);
}

/* --- states --- */

/* One row of ListUnitsByNames. */
struct unit_row {
    const char *id, *description, *load_state, *active_state, *sub_state, *following, *path, *job_type,
        *job_path;
    uint32_t job_id;
};

static int read_row(sd_bus_message *m, struct unit_row *row)
{
    return sd_bus_message_read(m, "(ssssssouso)", &row->id, &row->description, &row->load_state,
                               &row->active_state, &row->sub_state, &row->following, &row->path, &row->job_id,
                               &row->job_type, &row->job_path);
}

/* The unit has a load error: its text is for the report. */
static void on_load_error(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct local_unit *unit = call->units[0];
    _cleanup_(freep) char *words = NULL;
    const char *name, *text;

    agent_unit_idle(call->agent, unit);
    if (error != NULL || sd_bus_message_read(m, "v", "(ss)", &name, &text) < 0 || name[0] == '\0')
        return;
    if (text[0] == '\0')
        text = name;
    words = xstrndup(text, strlen(text) - 1); /* Without the full stop. */
    if (unit->error != NULL && strstr(unit->error, words) != NULL)
        return; /* It is known, and explained. */
    agent_unit_set_error(call->agent, unit, text);
    if (has_reason_elsewhere(unit))
        agent_why_ask(call->agent, unit, unit->written_us);
}

static void take_row(struct agent *agent, struct local_unit *unit, const struct unit_row *row)
{
    bool not_found = streq(row->load_state, "not-found");

    agent_unit_set_state(agent, unit, unit->load_state, row->load_state);
    agent_unit_set_state(agent, unit, unit->active_state, row->active_state);
    agent_unit_set_state(agent, unit, unit->sub_state, row->sub_state);
    unit->known = true;
    unit->job_id = row->job_id;
    unit->job = row->job_id == 0                        ? AGENT_JOB_NONE
                : streq(row->job_type, "stop")          ? AGENT_JOB_STOP
                : streq(row->job_type, "verify-active") ? AGENT_JOB_NONE
                                                        : AGENT_JOB_START;
    if (unit->job == AGENT_JOB_START)
        unit->job_generation = unit->record.asked;
    if (unit->record.hash[0] == '\0') /* Not remembered: as it looks. */
        unit->record.launched = unit->job == AGENT_JOB_START || streq(row->active_state, "active");
    agent_unit_changed(agent, unit);
    if (not_found && unit->linked && unit->file_hash[0] != '\0' && unit->wish > AGENT_WISH_ABSENT) {
        unit->linked = false; /* Somebody has removed the link, and had systemd reload. */
        if (!streq(row->active_state, "inactive") && !streq(row->active_state, "failed"))
            unit->stale = AGENT_STALE_YES; /* It is found again by the next load; but this one is in use. */
        agent_unit_fail(agent, unit, "find", "systemd does not find its file any more");
    } else if (!not_found && !streq(row->load_state, "loaded")) {
        agent_unit_busy(agent, unit, false);
        send_call(agent, new_get(agent, unit->name, "LoadError"), on_load_error, &unit, 1);
    }
}

static void send_check(struct agent *agent, struct local_unit *const *units, size_t count);

static void on_checked(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    struct unit_row row;

    agent->checking = false;
    if (error != NULL) {
        retry_alone(call, "ask for the state of", error, send_check);
        return;
    }
    for (size_t i = 0; i < call->count; i++)
        agent_unit_idle(agent, call->units[i]);
    if (sd_bus_message_enter_container(m, 'a', "(ssssssouso)") < 0)
        return;
    /* One row per name, in our order; its id is the unit's main name, which is not ours where ours is an
     * alias. */
    for (size_t i = 0; i < call->count && read_row(m, &row) > 0; i++)
        take_row(agent, call->units[i], &row);
}

static void send_check(struct agent *agent, struct local_unit *const *units, size_t count)
{
    sd_bus_message *m = new_call(agent, OBJECT, MANAGER, "ListUnitsByNames");

    if (m != NULL)
        append_names(m, units, count);
    send_call(agent, m, on_checked, units, count);
}

void agent_call_check(struct agent *agent, struct local_unit **units, size_t count)
{
    units_busy(agent, units, count, false);
    agent->checking = true;
    send_check(agent, units, count);
}

static void on_keeper(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    const char *state;

    if (error == NULL && sd_bus_message_read(m, "v", "s", &state) >= 0)
        agent_lease_keeper_found(call->agent, state);
}

void agent_call_keeper(struct agent *agent)
{
    send_call(agent, new_get(agent, AGENT_KEEPER_UNIT, "ActiveState"), on_keeper, NULL, 0);
}

/* --- the connection --- */

static void on_subscribed(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;

    if (error != NULL) {
        bus_fail(agent->bus, error_text(error));
        return;
    }
    if (!agent->direct)
        agent->owner = xstrdup(sd_bus_message_get_sender(m));
    bus_proved(agent->bus);
    agent_attached(agent);
}

void agent_call_subscribe(struct agent *agent)
{
    send_call(agent, new_call(agent, OBJECT, MANAGER, "Subscribe"), on_subscribed, NULL, 0);
}

void agent_calls_drop(struct agent *agent)
{
    while (agent->calls != NULL)
        call_free(agent->calls);
    agent->linking = agent->removing = agent->checking = agent->reload_asked = false;
}

/* --- the host itself --- */

static void on_system_state(struct agent_call *call, sd_bus_message *m, const sd_bus_error *error)
{
    struct agent *agent = call->agent;
    const char *state = "";

    if (error == NULL && sd_bus_message_read(m, "v", "s", &state) < 0)
        state = "";
    /* "degraded" and "maintenance" are ways to run, too (systemctl(1), is-system-running). */
    agent->stopping_answer(state[0] == '\0' || streq(state, "stopping"), agent->stopping_data);
}

void agent_ask_stopping(struct agent *agent, void (*answer)(bool stopping, void *data), void *data)
{
    struct local_unit *none = NULL;
    sd_bus_message *m;

    if (agent->sd == NULL) {
        answer(true, data);
        return;
    }
    agent->stopping_answer = answer;
    agent->stopping_data = data;
    m = new_call(agent, OBJECT, "org.freedesktop.DBus.Properties", "Get");
    if (m != NULL)
        sd_bus_message_append(m, "ss", MANAGER, "SystemState");
    send_call(agent, m, on_system_state, &none, 0);
}
