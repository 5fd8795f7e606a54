/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of a host's systemd, behind sd-bus, and of the tmpfs with unit files and the agent's records.
 * systemd outlives fleetd and goes with the host. Calls are answered in order, jobs take their time. What a
 * unit does is in its text: "Type=oneshot" finishes, "ExecStart=/bin/false" fails. */
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
#include "fleetd/agent_files.h"
#include "fleetd/agent_internal.h"
#include "fleetd/agent_record.h"
#include "fleetd/bus.h"
#include "tests/sim/sim.h"

#define SYSTEMD   "org.freedesktop.systemd1"
#define UNIT_PATH "/org/freedesktop/systemd1/unit"
#define JOB_PATH  "/org/freedesktop/systemd1/job/"

struct record {
    char *name;
    struct agent_record record;
    struct record *next;
};

struct systemd {
    struct sim_host *host;
    struct sim_unit *units;
    struct record *records; /* The agent's, in the same tmpfs. */
    uint32_t last_job;
    uint64_t busy_until_ms; /* Answers and signals keep their order. */
    struct bus *bus;
};

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

static struct sim_unit *get_unit(struct systemd *systemd, const char *name)
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
    struct record *record, *next_record;

    LL_FOREACH_SAFE(systemd->units, unit, next)
    {
        free(unit->name);
        free(unit->text);
        free(unit);
    }
    LL_FOREACH_SAFE(systemd->records, record, next_record)
    {
        free(record->name);
        free(record);
    }
    free(systemd);
}

/* ---- messages: values one after the other; containers are only in their readers' heads ---- */

struct value {
    char type;
    char *text;
    uint32_t number;
};

struct sd_bus_message {
    unsigned references;
    char *member, *path, *property;
    struct value *values;
    size_t count, capacity, next;
    sd_bus_error error;
    bool failed;
};

static sd_bus_message *message_new(void)
{
    sd_bus_message *m = NEW0(sd_bus_message);

    m->references = 1;
    return m;
}

sd_bus_message *sd_bus_message_unref(sd_bus_message *m)
{
    if (m == NULL || --m->references > 0)
        return NULL;
    for (size_t i = 0; i < m->count; i++)
        free(m->values[i].text);
    free(m->values);
    free(m->member);
    free(m->path);
    free((char *)m->error.name);
    free(m);
    return NULL;
}

static void add_value(sd_bus_message *m, char type, const char *text, uint32_t number)
{
    GROW(m->values, m->capacity, m->count + 1);
    m->values[m->count++] = (struct value){type, text != NULL ? xstrdup(text) : NULL, number};
}

static void add_text(sd_bus_message *m, const char *text)
{
    add_value(m, 's', text, 0);
}

static void add_number(sd_bus_message *m, uint32_t number)
{
    add_value(m, 'u', NULL, number);
}

int sd_bus_message_new_method_call(sd_bus *bus, sd_bus_message **ret, const char *destination,
                                   const char *path, const char *interface, const char *member)
{
    *ret = message_new();
    (*ret)->member = xstrdup(member);
    (*ret)->path = xstrdup(path);
    return 0;
}

int sd_bus_message_append(sd_bus_message *m, const char *types, ...)
{
    va_list ap;

    va_start(ap, types);
    for (const char *type = types; *type != '\0'; type++) {
        if (*type == 's' || *type == 'o')
            add_text(m, va_arg(ap, const char *));
        else
            add_number(m, va_arg(ap, uint32_t));
    }
    va_end(ap);
    return 0;
}

int sd_bus_message_open_container(sd_bus_message *m, char type, const char *contents)
{
    return 0;
}

int sd_bus_message_close_container(sd_bus_message *m)
{
    return 0;
}

static bool read_one(sd_bus_message *m, char type, void *to)
{
    struct value *value = &m->values[m->next++];

    if (type == 's' || type == 'o')
        *(const char **)to = value->text != NULL ? value->text : "";
    else
        *(uint32_t *)to = value->number;
    return true;
}

int sd_bus_message_read(sd_bus_message *m, const char *types, ...)
{
    va_list ap;
    int r = 1;

    va_start(ap, types);
    for (const char *type = types; *type != '\0' && r > 0; type++) {
        const char *inner = *type == 'v' ? va_arg(ap, const char *) : NULL;

        if (*type == '(' || *type == ')')
            continue;
        for (const char *each = inner != NULL ? inner : (const char[]){*type, '\0'}; *each != '\0' && r > 0;
             each++) {
            if (*each == '(' || *each == ')')
                continue;
            if (m->next >= m->count)
                r = 0;
            else
                read_one(m, *each, va_arg(ap, void *));
        }
    }
    va_end(ap);
    return r;
}

int sd_bus_message_read_array(sd_bus_message *m, char type, const void **ret, size_t *ret_size)
{
    static uint8_t id[16]; /* Read at once. */

    if (m->next >= m->count)
        return 0;
    memcpy(id, &m->values[m->next++].number, sizeof m->values->number);
    *ret = id;
    *ret_size = sizeof id;
    return 1;
}

int sd_bus_message_skip(sd_bus_message *m, const char *types)
{
    m->next++;
    return 1;
}

int sd_bus_message_enter_container(sd_bus_message *m, char type, const char *contents)
{
    return type == 'a' || m->next < m->count;
}

int sd_bus_message_exit_container(sd_bus_message *m)
{
    return 1;
}

const sd_bus_error *sd_bus_message_get_error(sd_bus_message *m)
{
    return m->failed ? &m->error : NULL;
}

const char *sd_bus_message_get_path(sd_bus_message *m)
{
    return m->path;
}

const char *sd_bus_message_get_sender(sd_bus_message *m)
{
    return ":1.0";
}

int sd_bus_error_get_errno(const sd_bus_error *error)
{
    return EIO;
}

int sd_bus_path_encode(const char *prefix, const char *external, char **ret)
{
    *ret = xasprintf("%s/%s", prefix, external);
    return 0;
}

int sd_bus_path_decode(const char *path, const char *prefix, char **ret)
{
    if (!str_has_prefix(path, prefix))
        return 0;
    *ret = xstrdup(path + strlen(prefix) + 1);
    return 1;
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
    sd_bus_message *m = message_new();

    m->member = xstrdup(member);
    return m;
}

static const char *active_word(const struct sim_unit *unit)
{
    static const char *const words[] = {"inactive", "activating", "active", "deactivating", "failed"};

    return words[unit->state];
}

static const char *sub_word(const struct sim_unit *unit)
{
    static const char *const words[] = {"dead", "start", "running", "stop-sigterm", "failed"};

    return words[unit->state];
}

static void signal_state(struct systemd *systemd, const struct sim_unit *unit)
{
    sd_bus_message *m = signal_new("PropertiesChanged");

    m->path = xasprintf(UNIT_PATH "/%s", unit->name);
    add_text(m, SYSTEMD ".Unit");
    add_text(m, "ActiveState");
    add_text(m, active_word(unit));
    add_text(m, "SubState");
    add_text(m, sub_word(unit));
    post(systemd, NULL, m);
}

static void signal_job(struct systemd *systemd, const struct sim_unit *unit, uint32_t id, const char *result)
{
    sd_bus_message *m = signal_new("JobRemoved");
    _cleanup_(freep) char *path = xasprintf(JOB_PATH "%u", id);

    add_number(m, id);
    add_text(m, path);
    add_text(m, unit->name);
    add_text(m, result);
    post(systemd, NULL, m);
}

static void set_state(struct systemd *systemd, struct sim_unit *unit, enum sim_state state)
{
    if (unit->state == state)
        return;
    unit->state = state;
    signal_state(systemd, unit);
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

static void end_job(struct systemd *systemd, struct sim_unit *unit, const char *result)
{
    uint32_t id = unit->job_id;

    unit->job = SIM_JOB_NONE;
    unit->job_id = 0;
    if (id != 0)
        signal_job(systemd, unit, id, result);
}

static void end_process(struct systemd *systemd, struct sim_unit *unit, enum sim_state state)
{
    if (unit->running)
        sim_note(systemd->host, "    %s has ended", unit->name);
    unit->running = false;
    set_state(systemd, unit, state);
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
    m = signal_new("UnitRemoved");
    add_text(m, unit->name);
    add_text(m, "/");
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

static void on_started(void *data, bool lost)
{
    struct job_step *step = data;
    struct systemd *systemd = step->systemd;
    struct sim_unit *unit = step->unit;

    if (!lost && unit->job_id == step->id) {
        const char *text = unit->text != NULL ? unit->text : "";

        unit->running = true;
        unit->meddled = false;
        memcpy(unit->running_hash, unit->starting_hash, sizeof unit->running_hash);
        sim_note(systemd->host, "    %s runs", unit->name);
        sim_law_started(systemd->host, unit);
        if (strstr(text, "/bin/false") != NULL) {
            end_process(systemd, unit, SIM_FAILED);
            end_job(systemd, unit, "failed");
        } else if (strstr(text, "oneshot") != NULL) {
            after(systemd, unit, 1 + sim_random(2000), on_oneshot_done);
        } else {
            set_state(systemd, unit, SIM_ACTIVE);
            end_job(systemd, unit, "done");
        }
    }
    free(step);
}

static void activate(struct systemd *systemd, struct sim_unit *unit, uint64_t ms)
{
    unit->run++;
    set_state(systemd, unit, SIM_ACTIVATING);
    memcpy(unit->starting_hash, unit->loaded_hash, sizeof unit->starting_hash);
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
        memcpy(unit->loaded_hash, unit->hash, sizeof unit->loaded_hash);
    if (job == SIM_JOB_STOP ? unit->state == SIM_INACTIVE || unit->state == SIM_FAILED
                            : job == SIM_JOB_START && unit->state == SIM_ACTIVE) {
        uint32_t id = unit->job_id;

        end_job(systemd, unit, "done"); /* There is nothing to do. */
        return id;
    }
    if (unit->running || unit->state == SIM_DEACTIVATING) {
        set_state(systemd, unit, SIM_DEACTIVATING);
        after(systemd, unit, work_ms(), on_stopped);
    } else if (job == SIM_JOB_STOP) {
        after(systemd, unit, 1, on_stopped);
    } else {
        activate(systemd, unit, work_ms());
    }
    return unit->job_id;
}

void sim_systemd_meddle(struct sim_host *host, struct sim_unit *unit, bool dies)
{
    if (unit->state != SIM_ACTIVE || unit->job != SIM_JOB_NONE)
        return;
    sim_note(host, "%s %s", unit->name, dies ? "dies" : "is stopped by an operator");
    unit->meddled = true;
    if (dies)
        end_process(host->systemd, unit, SIM_FAILED);
    else
        new_job(host->systemd, unit, SIM_JOB_STOP);
}

/* ---- calls ---- */

static void fail(sd_bus_message *reply, const char *name)
{
    reply->failed = true;
    reply->error.name = xstrdup(name);
    reply->error.message = "it does not work at the moment";
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
        fail(reply, SYSTEMD ".NoSuchUnit");
        return;
    }
    /* The answer comes before the signals of what is done at once. */
    id = unit->job != SIM_JOB_NONE && unit->job == (unsigned)job && job != SIM_JOB_RESTART
             ? unit->job_id
             : systemd->last_job + 1;
    path = xasprintf(JOB_PATH "%u", id);
    add_text(reply, path);
}

static void do_job(struct systemd *systemd, const sd_bus_message *m, int job)
{
    new_job(systemd, sim_systemd_unit(systemd->host, m->values[0].text), job);
}

static void call_list(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply)
{
    static const char *const jobs[] = {"", "start", "stop", "restart"};

    for (size_t i = 0; i < m->count; i++) {
        struct sim_unit *unit = get_unit(systemd, m->values[i].text);
        bool found = (unit->text != NULL && unit->linked) || unit->loaded_hash[0] != '\0';

        add_text(reply, unit->name);
        add_text(reply, "");
        add_text(reply, found ? "loaded" : "not-found");
        add_text(reply, active_word(unit));
        add_text(reply, sub_word(unit));
        add_text(reply, "");
        add_text(reply, "/");
        add_number(reply, unit->job_id);
        add_text(reply, jobs[unit->job]);
        add_text(reply, "/");
    }
}

static void call_files(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply, bool linked)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->values[i].type != 's')
            continue;
        if (sim_chance(60)) {
            fail(reply, "org.freedesktop.DBus.Error.LimitsExceeded");
            return;
        }
        get_unit(systemd, base_name(m->values[i].text))->linked = linked;
    }
}

static void signal_reloading(struct systemd *systemd, bool begins)
{
    sd_bus_message *m = signal_new("Reloading");

    add_number(m, begins);
    post(systemd, NULL, m);
}

static void call_reload(struct systemd *systemd)
{
    struct sim_unit *unit;

    signal_reloading(systemd, true);
    LL_FOREACH (systemd->units, unit)
        if (unit->loaded_hash[0] != '\0' && unit->text != NULL)
            memcpy(unit->loaded_hash, unit->hash, sizeof unit->loaded_hash);
    signal_reloading(systemd, false);
}

static void call_get(struct systemd *systemd, const sd_bus_message *m, sd_bus_message *reply)
{
    struct sim_unit *unit;

    if (streq(m->values[1].text, "SystemState")) {
        add_text(reply, systemd->host->shutdown == SIM_GOES_DOWN ? "stopping" : "running");
        return;
    }
    unit = get_unit(systemd, base_name(m->path));
    if (streq(m->values[1].text, "NeedDaemonReload")) {
        add_number(reply, unit->loaded_hash[0] != '\0' && !streq(unit->loaded_hash, unit->hash));
    } else if (streq(m->values[1].text, "InvocationID")) {
        add_number(reply, unit->run);
    } else {
        add_text(reply, "");
        add_text(reply, "");
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
    sd_bus_message *reply = message_new();
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
        call_reset(systemd, get_unit(systemd, m->values[0].text));
    job = reply->failed ? SIM_JOB_NONE : job;
    call->slot->references++;
    post_answer(systemd, call->slot, reply,
                job != SIM_JOB_NONE ? get_unit(systemd, m->values[0].text) : NULL);
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
    unit = get_unit(systemd, m->values[0].text);
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
    if (systemd->host->muted)
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
    bus->failing = false;
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

void sim_systemd_hiccup(struct sim_host *host)
{
    if (host->systemd != NULL && host->systemd->bus != NULL && host->systemd->bus->sd != NULL) {
        sim_note(host, "the connection to systemd breaks");
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

/* ---- agent_files.h ---- */

int agent_files_open(const char *directory, int *ret, struct err *err)
{
    *ret = -1;
    return 0;
}

enum agent_install agent_files_install(const char *text, size_t size)
{
    return memmem(text, size, "[Install]", strlen("[Install]")) != NULL ? AGENT_INSTALL_SOME
                                                                        : AGENT_INSTALL_NONE;
}

/* The menu's texts of one unit always differ in more than [X-Fleet]. */
bool agent_files_mean_the_same(int fd, const char *name, const char *text, size_t size)
{
    return false;
}

bool agent_files_is(int fd, const char *name, const char *path)
{
    return true;
}

void agent_files_unlink(const char *links, const char *directory, const char *name)
{
}

int agent_files_scan(int fd, const char *directory,
                     void (*each)(const char *name, const char *hash, enum agent_install install, void *data),
                     void *data, struct err *err)
{
    struct sim_unit *unit;

    LL_FOREACH (sim_systemd_units(sim.current), unit)
        if (unit->text != NULL)
            each(unit->name, unit->hash, agent_files_install(unit->text, strlen(unit->text)), data);
    return 0;
}

int agent_files_write(int fd, const char *name, const char *text, size_t size, bool keep_time,
                      struct err *err)
{
    struct sim_unit *unit;

    if (sim.current->muted)
        return 0;
    if (sim.current->disk_full && sim_random(2) == 0)
        return err_set(err, -ENOSPC, "cannot write the unit file: %s", strerror(ENOSPC));
    unit = get_unit(sim.current->systemd, name);
    free(unit->text);
    unit->text = xstrndup(text, size);
    unit_hash(text, size, unit->hash);
    return 0;
}

int agent_files_remove(int fd, const char *name, struct err *err)
{
    struct sim_unit *unit = sim_systemd_unit(sim.current, name);

    if (unit == NULL || sim.current->muted)
        return 0;
    free(TAKE_PTR(unit->text));
    unit->hash[0] = '\0';
    return 0;
}

/* ---- agent_dropin.h, lease_page.h: no unit of the menu needs a lease ---- */

struct agent_dropin agent_dropin_read(const char *directory, const char *unit)
{
    return (struct agent_dropin){0};
}

int agent_dropin_write(const char *directory, const char *unit, const struct agent_dropin *dropin,
                       struct err *err)
{
    return 0;
}

int agent_dropin_remove(const char *directory, const char *unit, struct err *err)
{
    return 0;
}

struct lease_page {
    uint64_t until_ms;
};

int lease_page_open(const char *path, bool write, struct lease_page **ret, struct err *err)
{
    *ret = NEW0(struct lease_page);
    return 0;
}

void lease_page_close(struct lease_page *page)
{
    free(page);
}

uint64_t lease_page_until_ms(const struct lease_page *page)
{
    return page->until_ms;
}

void lease_page_prolong(struct lease_page *page, uint64_t until_ms)
{
    page->until_ms = until_ms;
}

/* ---- agent_record.h: what is noted is there at once ---- */

void agent_records_open(struct agent_records *records, const char *path,
                        void (*each)(const char *name, const struct agent_record *record, void *data),
                        void *data)
{
    struct record *record;

    *records = (struct agent_records){.fd = -1};
    LL_FOREACH (sim.current->systemd->records, record)
        each(record->name, &record->record, data);
}

/* Flushed only at the end of a turn; but nothing can come between. */
void agent_records_note(struct agent_records *records, const char *name, const struct agent_record *noted)
{
    struct systemd *systemd = sim.current->systemd;
    struct record *record;

    if (sim.current->muted)
        return;
    LL_FOREACH (systemd->records, record)
        if (streq(record->name, name))
            break;
    if (noted == NULL) {
        if (record == NULL)
            return;
        LL_DELETE(systemd->records, record);
        free(record->name);
        free(record);
        return;
    }
    if (record == NULL) {
        record = NEW0(struct record);
        record->name = xstrdup(name);
        LL_APPEND(systemd->records, record);
    }
    record->record = *noted;
}

void agent_records_flush(struct agent_records *records)
{
}

bool agent_records_is_long(const struct agent_records *records, size_t count)
{
    return false;
}

void agent_records_begin(struct agent_records *records)
{
}

void agent_records_end(struct agent_records *records)
{
}

void agent_records_done(struct agent_records *records)
{
}
