/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of a host's systemd, behind sd-bus. It outlives fleetd and goes with the host. Calls are
 * answered in order, jobs take their time. What a unit does is in its text: "Type=oneshot" finishes,
 * "ExecStart=/bin/false" fails, with a number behind it only on every third host.
 *
 * A unit with a drop-in is bound to the keeper: it is started with it, or not at all, and stopped when it
 * ends, within the time that the drop-in says. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-bus.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/agent_internal.h"
#include "fleetd/bus.h"
#include "tests/sim/sim-systemd.h"

#define SYSTEMD   "org.freedesktop.systemd1"
#define UNIT_PATH "/org/freedesktop/systemd1/unit"
#define JOB_PATH  "/org/freedesktop/systemd1/job/"

#define LONG_STOP_MS (3 * SIM_TTL_MS)

/* ---- units ---- */

struct sim_unit *sim_systemd_units(const struct sim_host *host)
{
    return host->systemd != NULL ? host->systemd->units : NULL;
}

struct sim_unit *sim_systemd_unit(const struct sim_host *host, const char *name)
{
    struct sim_unit *unit;

    LL_FOREACH (sim_systemd_units(host), unit)
        if (streq(unit->name, name))
            return unit;
    return NULL;
}

struct sim_unit *sim_systemd_get(struct systemd *systemd, const char *name)
{
    struct sim_unit *unit = sim_systemd_unit(systemd->host, name);

    if (unit != NULL)
        return unit;
    unit = NEW0(struct sim_unit);
    unit->name = xstrdup(name);
    LL_APPEND(systemd->units, unit);
    return unit;
}

void sim_systemd_boot(struct sim_host *host)
{
    host->systemd = NEW0(struct systemd);
    host->systemd->host = host;
}

void sim_systemd_off(struct sim_host *host)
{
    struct systemd *systemd = TAKE_PTR(host->systemd);
    struct sim_unit *unit, *next;

    LL_FOREACH_SAFE(systemd->units, unit, next)
    {
        free(unit->name);
        free(unit->text);
        free(unit);
    }
    free(systemd);
}

/* ---- the connection ---- */

struct sd_bus_slot {
    unsigned references;
    bool dead;
    sd_bus_message_handler_t handler;
    void *data;
    char *member; /* Of a match. */
    struct sd_bus_slot *prev, *next;
};

struct sd_bus {
    struct systemd *systemd;
    struct sd_bus_slot *matches;
};

struct bus {
    struct sim_host *host;
    const struct bus_callbacks *callbacks;
    void *data;
    sd_bus *sd; /* NULL: not connected. */
    uint64_t connection;
    bool failing, closing;
    uint64_t lost_ms;
    uint64_t away_until_ms; /* It cannot be had before. */
    void (*done)(void *data);
    void *done_data;
};

sd_bus_slot *sd_bus_slot_unref(sd_bus_slot *slot)
{
    if (slot == NULL)
        return NULL;
    slot->dead = true;
    if (--slot->references > 0)
        return NULL;
    free(slot->member);
    free(slot);
    return NULL;
}

int sd_bus_is_open(sd_bus *bus)
{
    return 1;
}

/* fleetd gets an answer (slot) or a signal (NULL). */
struct delivery {
    struct bus *bus;
    uint64_t connection;
    sd_bus_slot *slot;
    sd_bus_message *m;
    struct sim_unit *unit; /* An answer about it, or NULL. */
};

static void deliver_signal(struct bus *bus, sd_bus_message *m)
{
    struct sd_bus_slot *slot, *next;

    DL_FOREACH_SAFE (bus->sd->matches, slot, next)
        if (!slot->dead && streq(slot->member, m->member))
            slot->handler(m, slot->data, NULL);
}

static void on_delivery(void *data, bool lost)
{
    struct delivery *delivery = data;
    struct bus *bus = lost ? NULL : delivery->bus;

    if (!lost && delivery->unit != NULL)
        delivery->unit->restarted_in = 0;

    if (bus != NULL && !bus->closing && bus->sd != NULL && bus->connection == delivery->connection) {
        if (delivery->slot == NULL)
            deliver_signal(bus, delivery->m);
        else if (!delivery->slot->dead)
            delivery->slot->handler(delivery->m, delivery->slot->data, NULL);
    }
    if (delivery->slot != NULL && --delivery->slot->references == 0)
        free(delivery->slot);
    sd_bus_message_unref(delivery->m);
    free(delivery);
}

/* Takes 'm'; in order. */
static void post_answer(struct systemd *systemd, sd_bus_slot *slot, sd_bus_message *m, struct sim_unit *unit)
{
    struct delivery *delivery = NEW0(struct delivery);
    struct bus *bus = systemd->bus;

    if (bus == NULL || bus->sd == NULL || !systemd->host->running) {
        free(delivery);
        sd_bus_message_unref(m);
        if (slot != NULL && --slot->references == 0)
            free(slot);
        return;
    }
    if (systemd->busy_until_ms < sim.now_ms)
        systemd->busy_until_ms = sim.now_ms;
    *delivery = (struct delivery){bus, bus->connection, slot, m, unit};
    sim_after(systemd->busy_until_ms - sim.now_ms, SIM_FLEETD, systemd->host, on_delivery, delivery);
}

static void post(struct systemd *systemd, sd_bus_slot *slot, sd_bus_message *m)
{
    post_answer(systemd, slot, m, NULL);
}

/* ---- signals ---- */

static sd_bus_message *signal_new(const char *member)
{
    sd_bus_message *m = sim_message_new();

    m->member = xstrdup(member);
    return m;
}

static const char *active_word(enum sim_state state)
{
    static const char *const words[] = {"inactive", "activating", "active", "deactivating", "failed"};

    return words[state];
}

static const char *sub_word(enum sim_state state)
{
    static const char *const words[] = {"dead", "start", "running", "stop-sigterm", "failed"};

    return words[state];
}

void sim_systemd_signal(struct systemd *systemd, const char *name, enum sim_state state)
{
    sd_bus_message *m = signal_new("PropertiesChanged");

    m->path = xasprintf(UNIT_PATH "/%s", name);
    sim_message_add_text(m, SYSTEMD ".Unit");
    sim_message_add_text(m, "ActiveState");
    sim_message_add_text(m, active_word(state));
    sim_message_add_text(m, "SubState");
    sim_message_add_text(m, sub_word(state));
    post(systemd, NULL, m);
}

static void signal_job(struct systemd *systemd, const struct sim_unit *unit, uint32_t id, const char *result)
{
    sd_bus_message *m = signal_new("JobRemoved");
    _cleanup_(freep) char *path = xasprintf(JOB_PATH "%u", id);

    sim_message_add_number(m, id);
    sim_message_add_text(m, path);
    sim_message_add_text(m, unit->name);
    sim_message_add_text(m, result);
    post(systemd, NULL, m);
}

static void set_state(struct systemd *systemd, struct sim_unit *unit, enum sim_state state)
{
    if (unit->state == state)
        return;
    unit->state = state;
    sim_systemd_signal(systemd, unit->name, state);
}

/* ---- jobs ---- */

struct job_step {
    struct systemd *systemd;
    struct sim_unit *unit;
    uint32_t id;
};

static void after(struct systemd *systemd, struct sim_unit *unit, uint64_t ms, sim_event *event)
{
    struct job_step *step = NEW0(struct job_step);

    *step = (struct job_step){systemd, unit, unit->job_id};
    sim_after(ms, SIM_HOST, systemd->host, event, step);
}

bool sim_unit_is_bound(const struct sim_unit *unit)
{
    return unit->loaded_dropin.stop_ms > 0;
}

static void load(struct sim_unit *unit)
{
    memcpy(unit->loaded_hash, unit->hash, sizeof unit->loaded_hash);
    unit->loaded_stamp = unit->stamp;
    unit->loaded_dropin = unit->dropin;
    unit->under_lease = unit->under_lease && sim_unit_is_bound(unit); /* As it runs on. */
}

static void end_job(struct systemd *systemd, struct sim_unit *unit, const char *result)
{
    uint32_t id = unit->job_id;

    unit->job = SIM_JOB_NONE;
    unit->job_id = 0;
    unit->waits = false;
    if (id != 0)
        signal_job(systemd, unit, id, result);
}

static void end_process(struct systemd *systemd, struct sim_unit *unit, enum sim_state state)
{
    if (unit->running)
        sim_note(systemd->host, "    %s has ended", unit->name);
    unit->running = false;
    unit->kill_ms = 0;
    set_state(systemd, unit, state);
    if (sim_unit_is_bound(unit))
        sim_keeper_look(systemd);
}

static void fail_process(struct systemd *systemd, struct sim_unit *unit)
{
    sim_law_failed(systemd->host, unit);
    end_process(systemd, unit, SIM_FAILED);
}

/* Some units are named by others of the host (After=, say), which keeps them loaded, as they were. */
static bool is_pinned(const struct systemd *systemd, const struct sim_unit *unit)
{
    return ((unsigned)unit->name[1] + systemd->host->index) % 4 == 0;
}

static void unload(struct systemd *systemd, struct sim_unit *unit)
{
    sd_bus_message *m;

    if (is_pinned(systemd, unit) || unit->state != SIM_INACTIVE || unit->job != SIM_JOB_NONE ||
        unit->loaded_hash[0] == '\0')
        return;
    unit->loaded_hash[0] = '\0';
    unit->loaded_dropin = (struct agent_dropin){0};
    m = signal_new("UnitRemoved");
    sim_message_add_text(m, unit->name);
    sim_message_add_text(m, "/");
    post(systemd, NULL, m);
}

static void on_oneshot_done(void *data, bool lost)
{
    struct job_step *step = data;

    if (!lost && step->unit->job_id == step->id) {
        end_process(step->systemd, step->unit, SIM_INACTIVE);
        end_job(step->systemd, step->unit, "done");
        unload(step->systemd, step->unit);
    }
    free(step);
}

static bool fails_on(const struct sim_host *host, const char *text)
{
    const char *word = strstr(text, SIM_FALSE);

    return word != NULL && (word[strlen(SIM_FALSE)] != '-' ||
                            host->index % 3 == (unsigned)atoi(word + strlen(SIM_FALSE) + 1));
}

bool sim_text_runs_on(const struct sim_host *host, const char *text)
{
    return !fails_on(host, text) && strstr(text, "oneshot") == NULL;
}

static void begin_process(struct systemd *systemd, struct sim_unit *unit)
{
    const char *text = unit->text != NULL ? unit->text : "";

    unit->running = true;
    unit->meddled = false;
    unit->leased = strstr(text, SIM_STOPS) != NULL && unit->loaded_stamp == unit->stamp;
    memcpy(unit->running_hash, unit->starting_hash, sizeof unit->running_hash);
    sim_note(systemd->host, "    %s runs", unit->name);
    sim_law_started(systemd->host, unit);
    if (fails_on(systemd->host, text)) {
        fail_process(systemd, unit);
        end_job(systemd, unit, "failed");
    } else if (strstr(text, "oneshot") != NULL) {
        after(systemd, unit, 1 + sim_random(2000), on_oneshot_done);
    } else {
        set_state(systemd, unit, SIM_ACTIVE);
        end_job(systemd, unit, "done");
    }
}

static void on_started(void *data, bool lost)
{
    struct job_step *step = data;

    if (!lost && step->unit->job_id == step->id)
        begin_process(step->systemd, step->unit);
    free(step);
}

static void activate(struct systemd *systemd, struct sim_unit *unit, uint64_t ms)
{
    if (sim_unit_is_bound(unit) && systemd->keeper.state != SIM_ACTIVE) {
        unit->waits = true;
        sim_keeper_want(systemd);
        return;
    }
    unit->run++;
    unit->under_lease = sim_unit_is_bound(unit);
    memcpy(unit->starting_hash, unit->loaded_hash, sizeof unit->starting_hash);
    set_state(systemd, unit, SIM_ACTIVATING);
    after(systemd, unit, ms, on_started);
}

static void on_stopped(void *data, bool lost)
{
    struct job_step *step = data;
    struct systemd *systemd = step->systemd;
    struct sim_unit *unit = step->unit;

    if (!lost && unit->job_id == step->id) {
        end_process(systemd, unit, SIM_INACTIVE);
        if (unit->job == SIM_JOB_STOP) {
            end_job(systemd, unit, "done");
            unload(systemd, unit);
        } else {
            activate(systemd, unit, 1 + sim_random(500));
        }
    }
    free(step);
}

static uint64_t work_ms(void)
{
    return sim_random(4) == 0 ? 1 + sim_random(3000) : 1 + sim_random(100);
}

/* What is bound has only so long; what has been told to be down at a certain time is. */
static uint64_t stop_ms(const struct systemd *systemd, const struct sim_unit *unit)
{
    /* Some take longer than a host may be silent. */
    uint64_t ms = sim_random(16) == 0 ? sim_random(LONG_STOP_MS) : work_ms();

    if (sim_unit_is_bound(unit) && ms > sim_true_ms(systemd->host, unit->loaded_dropin.stop_ms))
        ms = sim_true_ms(systemd->host, unit->loaded_dropin.stop_ms);
    if (unit->kill_ms > 0 && sim.now_ms + ms > unit->kill_ms)
        ms = unit->kill_ms > sim.now_ms ? unit->kill_ms - sim.now_ms : 0;
    return ms;
}

/* Returns the id. A job takes the place of another. */
static uint32_t new_job(struct systemd *systemd, struct sim_unit *unit, int job)
{
    if (unit->job != SIM_JOB_NONE) {
        if (unit->job == (unsigned)job && job != SIM_JOB_RESTART)
            return unit->job_id; /* Merged. */
        end_job(systemd, unit, "canceled");
    }
    unit->job = job;
    unit->job_id = ++systemd->last_job;
    if (unit->loaded_hash[0] == '\0')
        load(unit);
    if (job == SIM_JOB_STOP ? unit->state == SIM_INACTIVE || unit->state == SIM_FAILED
                            : job == SIM_JOB_START && unit->state == SIM_ACTIVE) {
        uint32_t id = unit->job_id;

        end_job(systemd, unit, "done"); /* There is nothing to do. */
        return id;
    }
    if (unit->running || unit->state == SIM_DEACTIVATING) {
        set_state(systemd, unit, SIM_DEACTIVATING);
        after(systemd, unit, stop_ms(systemd, unit), on_stopped);
    } else if (job == SIM_JOB_STOP) {
        after(systemd, unit, 1, on_stopped);
    } else {
        activate(systemd, unit, work_ms());
    }
    return unit->job_id;
}

/* ---- the keeper and those that are bound to it ---- */

void sim_systemd_keeper_is(struct systemd *systemd, bool active)
{
    struct sim_unit *unit;

    LL_FOREACH (systemd->units, unit) {
        if (!unit->waits)
            continue;
        unit->waits = false;
        if (active)
            activate(systemd, unit, 1 + sim_random(100));
        else
            end_job(systemd, unit, "dependency");
    }
}

/* Some units do not want to stop: they are killed when their time is over. */
static void unbind(struct systemd *systemd, struct sim_unit *unit)
{
    uint64_t ms = sim_true_ms(systemd->host, unit->loaded_dropin.stop_ms) + sim_random(500);
    bool stubborn = sim_random(3) == 0;

    if (unit->job != SIM_JOB_STOP) {
        end_job(systemd, unit, "canceled");
        unit->job = SIM_JOB_STOP;
        unit->job_id = ++systemd->last_job;
    }
    if (unit->kill_ms == 0)
        unit->kill_ms = sim.now_ms + ms;
    sim_note(systemd->host, "    %s is stopped: the keeper has ended", unit->name);
    set_state(systemd, unit, SIM_DEACTIVATING);
    after(systemd, unit, unit->running && stubborn ? unit->kill_ms - sim.now_ms : stop_ms(systemd, unit),
          on_stopped);
}

void sim_systemd_unbind(struct systemd *systemd)
{
    struct sim_unit *unit;

    LL_FOREACH (systemd->units, unit)
        if (sim_unit_is_bound(unit) && unit->state != SIM_INACTIVE && unit->state != SIM_FAILED)
            unbind(systemd, unit);
}

void sim_systemd_meddle(struct sim_host *host, struct sim_unit *unit, bool dies)
{
    if (unit->state != SIM_ACTIVE || unit->job != SIM_JOB_NONE)
        return;
    sim_note(host, "%s %s", unit->name, dies ? "dies" : "is stopped by an operator");
    unit->meddled = true;
    if (dies)
        fail_process(host->systemd, unit);
    else
        new_job(host->systemd, unit, SIM_JOB_STOP);
}

/* ---- calls ---- */

/* Takes the message. */
static void fail(sd_bus_message *reply, const char *name, char *message)
{
    reply->failed = true;
    reply->error.name = xstrdup(name);
    reply->error.message = message;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static void call_job(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply, int job)
{
    struct sim_unit *unit = sim_systemd_unit(systemd->host, m->values[0].text);
    _cleanup_(freep) char *path = NULL;
    uint32_t id;
    bool is_there = unit != NULL && ((unit->text != NULL && unit->linked) || unit->loaded_hash[0] != '\0');

    if (!is_there) {
        fail(reply, SYSTEMD ".NoSuchUnit", xasprintf("Unit %s not found.", m->values[0].text));
        return;
    }
    /* The answer comes before the signals of what is done at once. */
    id = unit->job != SIM_JOB_NONE && unit->job == (unsigned)job && job != SIM_JOB_RESTART
             ? unit->job_id
             : systemd->last_job + 1;
    path = xasprintf(JOB_PATH "%u", id);
    sim_message_add_text(reply, path);
}

static void do_job(struct systemd *systemd, const sd_bus_message *m, int job)
{
    new_job(systemd, sim_systemd_unit(systemd->host, m->values[0].text), job);
}

static void call_list(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply)
{
    static const char *const jobs[] = {"", "start", "stop", "restart"};

    for (size_t i = 0; i < m->count; i++) {
        struct sim_unit *unit = sim_systemd_get(systemd, m->values[i].text);
        bool found = (unit->text != NULL && unit->linked) || unit->loaded_hash[0] != '\0';

        sim_message_add_text(reply, unit->name);
        sim_message_add_text(reply, "");
        sim_message_add_text(reply, found ? "loaded" : "not-found");
        sim_message_add_text(reply, active_word(unit->state));
        sim_message_add_text(reply, sub_word(unit->state));
        sim_message_add_text(reply, "");
        sim_message_add_text(reply, "/");
        sim_message_add_number(reply, unit->job_id);
        sim_message_add_text(reply, jobs[unit->job]);
        sim_message_add_text(reply, "/");
    }
}

static void call_files(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply, bool linked)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->values[i].type != 's')
            continue;
        if (sim_chance(60)) {
            fail(reply, "org.freedesktop.DBus.Error.LimitsExceeded",
                 xstrdup("it does not work at the moment"));
            return;
        }
        sim_systemd_get(systemd, base_name(m->values[i].text))->linked = linked;
    }
}

static void signal_reloading(struct systemd *systemd, bool begins)
{
    sd_bus_message *m = signal_new("Reloading");

    sim_message_add_number(m, begins);
    post(systemd, NULL, m);
}

static void call_reload(struct systemd *systemd)
{
    struct sim_unit *unit;

    signal_reloading(systemd, true);
    LL_FOREACH (systemd->units, unit)
        if (unit->loaded_hash[0] != '\0' && unit->text != NULL)
            load(unit);
    signal_reloading(systemd, false);
}

static bool needs_reload(const struct sim_unit *unit)
{
    return unit->loaded_hash[0] != '\0' &&
           (unit->loaded_stamp != unit->stamp || unit->loaded_dropin.token != unit->dropin.token ||
            unit->loaded_dropin.stop_ms != unit->dropin.stop_ms);
}

static void call_get(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply)
{
    struct sim_unit *unit;

    if (streq(m->values[1].text, "SystemState")) {
        sim_message_add_text(reply, systemd->host->shutdown == SIM_GOES_DOWN ? "stopping" : "running");
        return;
    }
    if (streq(m->values[1].text, "ActiveState")) {
        sim_message_add_text(reply, active_word(systemd->keeper.state));
        return;
    }
    unit = sim_systemd_get(systemd, base_name(m->path));
    if (streq(m->values[1].text, "NeedDaemonReload")) {
        sim_message_add_number(reply, needs_reload(unit));
    } else if (streq(m->values[1].text, "InvocationID")) {
        sim_message_add_number(reply, unit->run);
    } else {
        sim_message_add_text(reply, "");
        sim_message_add_text(reply, "");
    }
}

static void call_reset(struct systemd *systemd, struct sim_unit *unit)
{
    if (unit->state != SIM_FAILED)
        return;
    set_state(systemd, unit, SIM_INACTIVE);
    unload(systemd, unit);
}

struct call {
    struct systemd *systemd;
    uint64_t connection;
    sd_bus_slot *slot;
    sd_bus_message *m;
};

static void execute(struct systemd *systemd, const struct call *call)
{
    static const char *const questions[] = {"ListUnitsByNames", "Get", "Subscribe"};
    const sd_bus_message *m = call->m;
    sd_bus_message *reply = sim_message_new();
    int job = streq(m->member, "StartUnit")     ? SIM_JOB_START
              : streq(m->member, "StopUnit")    ? SIM_JOB_STOP
              : streq(m->member, "RestartUnit") ? SIM_JOB_RESTART
                                                : SIM_JOB_NONE;
    bool question = false;

    for (size_t i = 0; i < ARRAY_SIZE(questions); i++)
        question = question || streq(m->member, questions[i]);
    sim.doings += sim.calm && !question;
    if (job != SIM_JOB_NONE)
        call_job(systemd, m, reply, job);
    else if (streq(m->member, "ListUnitsByNames"))
        call_list(systemd, m, reply);
    else if (streq(m->member, "LinkUnitFiles") || streq(m->member, "EnableUnitFiles"))
        call_files(systemd, m, reply, true);
    else if (streq(m->member, "DisableUnitFiles"))
        call_files(systemd, m, reply, false);
    else if (streq(m->member, "Reload"))
        call_reload(systemd);
    else if (streq(m->member, "Get"))
        call_get(systemd, m, reply);
    else if (streq(m->member, "ResetFailedUnit"))
        call_reset(systemd, sim_systemd_get(systemd, m->values[0].text));
    job = reply->failed ? SIM_JOB_NONE : job;
    call->slot->references++;
    post_answer(systemd, call->slot, reply,
                job != SIM_JOB_NONE ? sim_systemd_get(systemd, m->values[0].text) : NULL);
    if (job != SIM_JOB_NONE)
        do_job(systemd, m, job);
}

/* At the moment when fleetd asks for it. */
static void check_call(struct systemd *systemd, const sd_bus_message *m)
{
    bool start = streq(m->member, "StartUnit"), restart = streq(m->member, "RestartUnit");
    struct sim_unit *unit;

    if (!start && !restart && !streq(m->member, "StopUnit"))
        return;
    unit = sim_systemd_get(systemd, m->values[0].text);
    sim_note(systemd->host, "    asks: %s %s", m->member, unit->name);
    if (!start)
        sim_law_stopping(systemd->host, unit, restart);
    if (start || restart)
        sim_law_starting(systemd->host, unit);
}

static void on_call(void *data, bool lost)
{
    struct call *call = data;

    if (!lost)
        execute(call->systemd, call);
    if (--call->slot->references == 0)
        free(call->slot);
    sd_bus_message_unref(call->m);
    free(call);
}

int sd_bus_call_async(sd_bus *bus, sd_bus_slot **slot, sd_bus_message *m, sd_bus_message_handler_t handler,
                      void *data, uint64_t usec)
{
    struct systemd *systemd = bus->systemd;
    struct call *call;

    *slot = NEW0(sd_bus_slot);
    **slot = (sd_bus_slot){.references = 1, .handler = handler, .data = data};
    if (sim_dies_here())
        return 0;
    check_call(systemd, m);
    (*slot)->references++;
    m->references++;
    call = NEW0(struct call);
    *call = (struct call){.systemd = systemd, .slot = *slot, .m = m};
    if (systemd->busy_until_ms < sim.now_ms)
        systemd->busy_until_ms = sim.now_ms;
    systemd->busy_until_ms += sim_random(4) == 0 ? sim_random(20) : 0;
    sim_after(systemd->busy_until_ms - sim.now_ms, SIM_HOST, systemd->host, on_call, call);
    return 0;
}

int sd_bus_add_match_async(sd_bus *bus, sd_bus_slot **slot, const char *match,
                           sd_bus_message_handler_t handler, sd_bus_message_handler_t installed, void *data)
{
    const char *member = strstr(match, "member='") + strlen("member='");

    *slot = NEW0(sd_bus_slot);
    **slot = (sd_bus_slot){.references = 1, .handler = handler, .data = data};
    (*slot)->member = xstrndup(member, strcspn(member, "'"));
    (*slot)->references++; /* The list's. */
    DL_APPEND(bus->matches, *slot);
    return 0;
}

/* ---- bus.h ---- */

static void disconnect(struct bus *bus)
{
    struct sd_bus_slot *slot, *next;

    if (bus->sd == NULL)
        return;
    DL_FOREACH_SAFE (bus->sd->matches, slot, next) {
        DL_DELETE(bus->sd->matches, slot);
        sd_bus_slot_unref(slot);
    }
    free(bus->sd);
    bus->sd = NULL;
    bus->connection++;
}

static void on_connect(void *data, bool lost)
{
    struct bus *bus = data;

    if (lost || bus->closing || bus->sd != NULL)
        return;
    if (bus->away_until_ms > sim.now_ms) {
        sim_after(bus->away_until_ms - sim.now_ms, SIM_FLEETD, bus->host, on_connect, bus);
        return;
    }
    bus->failing = false;
    if (bus->lost_ms > 0) {
        bus->host->bus_away_ms = sim.now_ms - bus->lost_ms;
        bus->host->bus_back_ms = sim.now_ms;
    }
    bus->sd = NEW0(sd_bus);
    bus->sd->systemd = bus->host->systemd;
    bus->host->systemd->bus = bus;
    bus->callbacks->on_open(bus->sd, true, bus->data);
}

struct bus *bus_new(uv_loop_t *loop, enum bus_kind kind, const struct bus_callbacks *callbacks, void *data)
{
    struct bus *bus = NEW0(struct bus);

    *bus = (struct bus){.host = loop->data, .callbacks = callbacks, .data = data};
    sim_after(1, SIM_FLEETD, bus->host, on_connect, bus);
    return bus;
}

void bus_proved(struct bus *bus)
{
}

static void on_failed(void *data, bool lost)
{
    struct bus *bus = data;

    if (lost || bus->closing || bus->sd == NULL)
        return;
    /* Its slots are looked at once more by agent_detach(): the connection goes after that. */
    bus->lost_ms = sim.now_ms;
    bus->callbacks->on_lost("the connection has broken", bus->data);
    disconnect(bus);
    sim_after(BUS_RETRY_MIN_MS + sim_random(500), SIM_FLEETD, bus->host, on_connect, bus);
}

void bus_fail(struct bus *bus, const char *why)
{
    if (bus->failing)
        return;
    bus->failing = true;
    sim_after(0, SIM_FLEETD, bus->host, on_failed, bus);
}

static void on_bus_closed(void *data)
{
    struct bus *bus = data;
    void (*done)(void *) = bus->done;
    void *done_data = bus->done_data;

    disconnect(bus);
    if (bus->host->systemd != NULL && bus->host->systemd->bus == bus)
        bus->host->systemd->bus = NULL;
    free(bus);
    done(done_data);
}

void bus_close(struct bus *bus, void (*done)(void *data), void *data)
{
    bus->closing = true;
    bus->done = done;
    bus->done_data = data;
    sim_defer(bus->host, on_bus_closed, bus);
}

void sim_systemd_lost(struct sim_host *host)
{
    if (host->systemd != NULL)
        host->systemd->bus = NULL;
}

void sim_systemd_hiccup(struct sim_host *host, uint64_t ms)
{
    if (host->systemd != NULL && host->systemd->bus != NULL && host->systemd->bus->sd != NULL) {
        sim_note(host, "the connection to systemd breaks");
        host->systemd->bus->away_until_ms = sim.now_ms + ms;
        bus_fail(host->systemd->bus, "");
    }
}

/* ---- agent_why.c: the journal has nothing to add ---- */

void agent_why_ask(struct agent *agent, struct local_unit *unit, uint64_t since_us)
{
}

void agent_why_drop(struct agent *agent)
{
}
