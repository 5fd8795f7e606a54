/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/agent.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-login.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/agent_files.h"
#include "fleetd/agent_internal.h"
#include "units/name.h"

/* --- what is wanted --- */

static bool has_content(const struct local_unit *unit, const char *hash)
{
    return streq(unit->file_hash, hash) || (unit->text != NULL && streq(unit->hash, hash));
}

bool agent_has(const struct agent *agent, const char *name, const char *hash)
{
    const struct local_unit *unit = agent_find(agent, name);

    return unit != NULL && has_content(unit, hash);
}

/* What comes from outside becomes a file name and an argument for systemd. */
static int check_wanted(const struct agent *agent, const struct agent_unit *wanted, struct err *err)
{
    char hash[UNIT_HASH_SIZE];
    int r;

    r = unit_name_check(wanted->name, err);
    if (r < 0)
        return err_prefix(err, r, "unit %s", wanted->name);
    if (unit_name_is_template(wanted->name))
        return err_set(err, -EINVAL, "unit %s is a template: only its instances can be loaded", wanted->name);
    if (wanted->text == NULL)
        return agent_has(agent, wanted->name, wanted->hash)
                   ? 0
                   : err_set(err, -ENODATA, "the content of unit %s is not on this host", wanted->name);
    if (wanted->text_size > UNIT_FILE_SIZE_MAX)
        return err_set(err, -E2BIG, "unit %s is %zu bytes, the limit is %d", wanted->name, wanted->text_size,
                       UNIT_FILE_SIZE_MAX);
    unit_hash(wanted->text, wanted->text_size, hash);
    if (!streq(hash, wanted->hash))
        return err_set(err, -EINVAL, "the content of unit %s is not that of its hash", wanted->name);
    return 0;
}

static void want_absent(struct agent *agent, struct local_unit *unit)
{
    if (unit->wish == AGENT_WISH_ABSENT)
        return;
    unit->wish = AGENT_WISH_ABSENT;
    unit->batch = agent->batch;
    free(TAKE_PTR(unit->text));
    agent_unit_proved(unit); /* Another wish is tried at once. */
    agent_unit_touch(agent, unit);
    agent_unit_changed(agent, unit);
}

static enum agent_wish wish_of(enum unit_state desired)
{
    return desired == UNIT_STATE_LAUNCHED ? AGENT_WISH_LAUNCHED
           : desired == UNIT_STATE_LOADED ? AGENT_WISH_LOADED
                                          : AGENT_WISH_ABSENT;
}

static bool is_wanted_already(const struct local_unit *unit, const struct agent_unit *wanted)
{
    return unit->wish == wish_of(wanted->desired) && unit->generation == wanted->generation &&
           streq(unit->hash, wanted->hash);
}

static void want_content(struct local_unit *unit, const struct agent_unit *wanted)
{
    if (wanted->text != NULL && !has_content(unit, wanted->hash)) {
        free(unit->text);
        unit->text = xmemdup(wanted->text, wanted->text_size);
        unit->text_size = wanted->text_size;
    } else if (unit->text != NULL && !streq(unit->hash, wanted->hash)) {
        free(TAKE_PTR(unit->text));
    }
    memcpy(unit->hash, wanted->hash, sizeof unit->hash);
}

static void want_one(struct agent *agent, const struct agent_unit *wanted)
{
    struct local_unit *unit = agent_find(agent, wanted->name);

    if (unit == NULL)
        unit = agent_unit_new(agent, wanted->name);
    unit->token = wanted->token;
    unit->stop_ms = wanted->stop_ms;
    unit->named = agent->batch;
    if (wish_of(wanted->desired) == AGENT_WISH_ABSENT) {
        want_absent(agent, unit);
        return;
    }
    if (is_wanted_already(unit, wanted))
        return;
    want_content(unit, wanted);
    unit->wish = wish_of(wanted->desired);
    unit->generation = wanted->generation;
    unit->restart = wanted->restart;
    unit->batch = agent->batch;
    agent_unit_proved(unit); /* Another wish is tried at once. */
    agent_unit_touch(agent, unit);
    agent_unit_changed(agent, unit);
}

int agent_want(struct agent *agent, const struct agent_unit *wanted, size_t wanted_count,
               const char *const *removed, size_t removed_count, bool complete, struct err *err)
{
    struct local_unit *unit, *tmp;
    int r;

    assert(!agent->closing);
    for (size_t i = 0; i < wanted_count; i++) {
        r = check_wanted(agent, &wanted[i], err);
        if (r < 0)
            return r;
    }
    agent->batch++;
    for (size_t i = 0; i < removed_count; i++) {
        unit = agent_find(agent, removed[i]);
        if (unit != NULL)
            want_absent(agent, unit);
    }
    for (size_t i = 0; i < wanted_count; i++)
        want_one(agent, &wanted[i]);
    if (complete)
        HASH_ITER (hh, agent->units, unit, tmp)
            if (unit->named != agent->batch)
                want_absent(agent, unit);
    return 0;
}

/* --- what is known --- */

static int compare_names(const void *a, const void *b)
{
    const struct local_unit *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* All units by name; owned by the caller. */
static struct local_unit **sorted_units(const struct agent *agent, size_t *ret_count)
{
    size_t count = HASH_COUNT(agent->units), n = 0;
    struct local_unit **sorted = xcalloc(count, sizeof *sorted), *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        sorted[n++] = unit;
    if (count > 1)
        qsort(sorted, count, sizeof *sorted, compare_names);
    *ret_count = count;
    return sorted;
}

void agent_each(const struct agent *agent, void (*each)(const struct agent_report *report, void *data),
                void *data)
{
    size_t count;
    _cleanup_(freep) struct local_unit **sorted = sorted_units(agent, &count);

    for (size_t i = 0; i < count; i++)
        agent_report_unit(sorted[i], false, each, data);
}

void agent_wanted_each(const struct agent *agent,
                       void (*each)(const char *name, enum unit_state desired, void *data), void *data)
{
    size_t count;
    _cleanup_(freep) struct local_unit **sorted = sorted_units(agent, &count);

    for (size_t i = 0; i < count; i++) {
        if (sorted[i]->wish == AGENT_WISH_LAUNCHED)
            each(sorted[i]->name, UNIT_STATE_LAUNCHED, data);
        else if (sorted[i]->wish == AGENT_WISH_LOADED)
            each(sorted[i]->name, UNIT_STATE_LOADED, data);
    }
}

size_t agent_unit_count(const struct agent *agent)
{
    return HASH_COUNT(agent->units);
}

bool agent_is_informed(const struct agent *agent)
{
    struct local_unit *unit, *tmp;

    if (!agent->attached)
        return false;
    HASH_ITER (hh, agent->units, unit, tmp)
        if (!unit->known)
            return false;
    return true;
}

bool agent_bus_connected(const struct agent *agent)
{
    return agent->attached;
}

/* --- the connection --- */

void agent_check_all(struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp) {
        if (unit->file_hash[0] == '\0')
            continue; /* Nothing was made of it yet. */
        unit->known = false;
        agent_unit_touch(agent, unit);
    }
}

void agent_attached(struct agent *agent)
{
    agent->attached = true;
    if (agent_lease_has_bound(agent))
        agent_call_keeper(agent); /* Before the units: it says why they are down. */
    agent_check_all(agent);
    log_info("connected to systemd%s", agent->direct ? "" : " by the bus");
    agent->callbacks->on_bus(true, "", agent->data);
}

void agent_lost(struct agent *agent, const char *why)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp) {
        agent_unit_idle(agent, unit);
        unit->job = AGENT_JOB_NONE;
        unit->job_id = 0;
        if (unit->stale == AGENT_STALE_NO && unit->file_hash[0] != '\0' &&
            !streq(unit->record.hash, unit->file_hash))
            unit->stale = AGENT_STALE_UNKNOWN;
    }
    agent_check_all(agent);
    agent->attached = false;
    log_warn("no connection to systemd: %s; units are left as they are until it is back", why);
    agent->callbacks->on_bus(false, why, agent->data);
}

/* --- life --- */

static void on_record(const char *name, const struct agent_record *record, void *data)
{
    struct agent *agent = data;
    struct local_unit *unit = agent_find(agent, name);

    if (unit != NULL)
        unit->record = record != NULL ? *record : (struct agent_record){0};
}

static void on_file(const char *name, const char *hash, enum agent_install install, void *data)
{
    struct agent *agent = data;
    struct local_unit *unit = agent_unit_new(agent, name);

    unit->known = false;
    unit->install = install;
    memcpy(unit->file_hash, hash, sizeof unit->file_hash);
    if (agent->dropin_directory != NULL)
        unit->dropin = agent_dropin_read(agent->dropin_directory, name);
    agent_unit_changed(agent, unit);
}

/* What was cut short between the writing of a file and systemd's knowing it is gone on with from there. */
static void take_stock(struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp) {
        unit->linked = streq(unit->record.hash, unit->file_hash);
        unit->stale = unit->linked ? AGENT_STALE_NO : AGENT_STALE_UNKNOWN;
        unit->untried = !unit->linked;
        unit->disable = !unit->linked; /* The content before this one may have been enabled. */
    }
}

static void agent_free(struct agent *agent)
{
    struct local_unit *unit, *tmp;

    HASH_ITER (hh, agent->units, unit, tmp)
        agent_unit_free(agent, unit);
    agent_why_drop(agent);
    agent_records_done(&agent->records);
    agent_lease_done(agent);
    free(agent->dropin_directory);
    if (agent->directory_fd >= 0)
        close(agent->directory_fd);
    free(agent->directory);
    free(agent->links);
    free(agent->own_unit);
    free(agent);
}

/* The path as systemd writes it into its links. Owned by the caller. */
static char *without_slashes(const char *path)
{
    size_t size = strlen(path);

    while (size > 1 && path[size - 1] == '/')
        size--;
    return xstrndup(path, size);
}

/* Where LinkUnitFiles and EnableUnitFiles put their links (systemd.unit(5)). */
static char *links_directory(bool user)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (!user)
        return xstrdup("/run/systemd/system");
    return runtime != NULL ? xasprintf("%s/systemd/user", runtime) : NULL;
}

int agent_new(uv_loop_t *loop, const struct agent_config *config, const struct agent_callbacks *callbacks,
              void *data, struct agent **ret, struct err *err)
{
    struct agent *agent = NEW0(struct agent);
    int r;

    agent->loop = loop;
    agent->callbacks = callbacks;
    agent->data = data;
    agent->directory = without_slashes(config->units_directory);
    agent->links = links_directory(config->user_bus);
    if ((config->user_bus ? sd_pid_get_user_unit : sd_pid_get_unit)(0, &agent->own_unit) < 0)
        agent->own_unit = NULL;
    agent->dropin_directory = xstrdup(config->dropin_directory);
    agent->directory_fd = -1;
    agent->records.fd = -1;
    agent->closing = true; /* Nothing is on the loop yet. */
    r = agent_files_open(agent->directory, &agent->directory_fd, err);
    if (r >= 0)
        r = agent_files_scan(agent->directory_fd, agent->directory, on_file, agent, err);
    if (r < 0) {
        agent_free(agent);
        return r;
    }
    agent_records_open(&agent->records, config->state_file, on_record, agent);
    take_stock(agent);
    agent_lease_init(agent, config->lease_file);
    agent->closing = false;
    uv_idle_init(loop, &agent->idle);
    uv_timer_init(loop, &agent->retry);
    agent->idle.data = agent->retry.data = agent;
    agent->bus =
        bus_new(loop, config->user_bus ? BUS_SYSTEMD_USER : BUS_SYSTEMD, &agent_bus_callbacks, agent);
    agent_wake(agent);
    *ret = agent;
    return 0;
}

void agent_part_closed(struct agent *agent)
{
    void (*done)(void *data) = agent->done;
    void *data = agent->done_data;

    if (--agent->open_parts > 0)
        return;
    agent_free(agent);
    if (done != NULL)
        done(data);
}

static void on_handle_closed(uv_handle_t *handle)
{
    agent_part_closed(handle->data);
}

static void on_bus_closed(void *data)
{
    agent_part_closed(data);
}

void agent_close(struct agent *agent, void (*done)(void *data), void *data)
{
    assert(!agent->closing);
    agent->closing = true;
    agent->done = done;
    agent->done_data = data;
    agent->open_parts = 3 + agent->why_works;
    agent_records_flush(&agent->records);
    agent_detach(agent);
    uv_close((uv_handle_t *)&agent->idle, on_handle_closed);
    uv_close((uv_handle_t *)&agent->retry, on_handle_closed);
    bus_close(agent->bus, on_bus_closed, agent);
}
