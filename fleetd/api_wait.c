/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/api_wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "raftstore/limits.h"
#include "units/name.h"

#define TIMEOUT_DEFAULT_MS 10000

enum until {
    UNTIL_SETTLED,
    UNTIL_PLACED,
    UNTIL_GONE,
    UNTIL_INACTIVE,
    UNTIL_COUNT,
};

static const char *const until_words[UNTIL_COUNT] = {
    [UNTIL_SETTLED] = "settled",
    [UNTIL_PLACED] = "placed",
    [UNTIL_GONE] = "gone",
    [UNTIL_INACTIVE] = "inactive",
};

/* One unit that one request waits for. */
struct entry {
    struct api_wait *wait;
    struct api_wait_name *name;
    uint64_t generation; /* What happened before it does not count. */
    bool settled;
    struct entry *prev, *next; /* Of the same name. */
};

/* All who wait for one unit. */
struct api_wait_name {
    char *name;
    struct entry *entries;
    UT_hash_handle hh;
};

struct api_wait {
    struct api_request *request;
    enum until until;
    uint64_t timeout_ms, deadline_ms;
    struct entry *entries;
    size_t count;
    size_t settled_count;
    bool started, ready;
    struct api_wait *prev, *next;             /* By deadline. */
    struct api_wait *ready_prev, *ready_next; /* If ready. */
};

/* ---- has it settled? ---- */

static bool is_until(enum until until, const struct core_status *status, bool global)
{
    switch (until) {
    case UNTIL_SETTLED: return status->outcome != OUTCOME_WAITING;
    case UNTIL_GONE: return status->outcome == OUTCOME_GONE;
    case UNTIL_INACTIVE: return status->outcome == OUTCOME_INACTIVE || status->outcome == OUTCOME_GONE;
    default: break;
    }
    /* A global unit is placed as soon as it is wanted. One that nobody wants is not placed by waiting. */
    return status->outcome != OUTCOME_WAITING || status->machine_id[0] != '\0' || global;
}

static bool entry_settles(const struct entry *entry, const struct core_status *status)
{
    const struct api_request *request = entry->wait->request;
    const struct registry_unit *unit = registry_unit(api_registry(request), entry->name->name);

    /* A unit that is no more has been destroyed since: that is newer than any generation of it. */
    if (unit != NULL && unit->generation < entry->generation)
        return false;
    return is_until(entry->wait->until, status, unit != NULL && unit->requirements->global);
}

static void wait_set_ready(struct api_wait *wait)
{
    struct api *api = wait->request->api;
    bool ready = wait->settled_count > 0;

    if (ready == wait->ready)
        return;
    wait->ready = ready;
    if (ready)
        DL_APPEND2(api->ready, wait, ready_prev, ready_next);
    else
        DL_DELETE2(api->ready, wait, ready_prev, ready_next);
}

/* Looks at a unit for all who wait for it. They are answered with the next tick, so that what one event
 * brings about is one answer. */
static void look_at(struct api *api, struct api_wait_name *name)
{
    const struct core *core = api->backend.core(api->data);
    _cleanup_(core_status_freep) struct core_status *status = core_status_new(core, name->name);

    for (struct entry *entry = name->entries; entry != NULL; entry = entry->next) {
        bool settled = entry_settles(entry, status);

        if (settled == entry->settled)
            continue;
        entry->settled = settled;
        entry->wait->settled_count += settled ? 1 : (size_t)-1;
        wait_set_ready(entry->wait);
    }
}

void api_wait_look(struct api *api, const char *unit)
{
    struct api_wait_name *name, *next;

    if (unit[0] != '\0') {
        HASH_FIND_STR(api->wait_names, unit, name);
        if (name != NULL)
            look_at(api, name);
        return;
    }
    HASH_ITER (hh, api->wait_names, name, next)
        look_at(api, name);
}

/* ---- answering ---- */

static json_t *machines_json(const struct core_status *status, size_t *room, size_t *ret_left_out)
{
    json_t *list = json_array();
    size_t i;

    for (i = 0; i<status->machine_count && * room> 0; i++, --*room) {
        json_t *json = json_object();

        api_json_set_text(json, "machineID", status->machines[i].machine_id);
        api_json_set_text(json, "hostname", status->machines[i].hostname);
        api_json_set_text(json, "reason", status->machines[i].reason);
        json_array_append_new(list, json);
    }
    *ret_left_out = status->machine_count - i;
    return list;
}

static json_t *entry_json(const struct entry *entry, size_t *room)
{
    const struct api_request *request = entry->wait->request;
    const struct registry *registry = api_registry(request);
    _cleanup_(core_status_freep) struct core_status *status =
        core_status_new(api_core(request), entry->name->name);
    const struct registry_machine *machine = registry_machine(registry, status->machine_id);
    const struct registry_unit *unit = registry_unit(registry, entry->name->name);
    json_t *json = json_object();
    size_t left_out;

    api_json_set_text(json, "name", entry->name->name);
    json_object_set_new(json, "settled", json_boolean(entry_settles(entry, status)));
    api_json_set_text(json, "state", unit_outcome_to_string(status->outcome));
    api_json_set_text(json, "activeState", status->active_state);
    api_json_set_text(json, "subState", status->sub_state);
    api_json_set_text(json, "machineID", status->machine_id);
    api_json_set_text(json, "machineIP", machine != NULL ? machine->public_ip : "");
    api_json_set_text(json, "hostname", machine != NULL ? machine->hostname : "");
    api_json_set_text(json, "reason", status->reason);
    api_json_set_array(json, "machines", machines_json(status, room, &left_out));
    if (left_out > 0)
        api_json_set_count(json, "machinesLeftOut", left_out);
    if (unit != NULL && unit->requirements->global) {
        api_json_set_count(json, "done", status->done_count);
        api_json_set_count(json, "wanted", status->wanted_count);
    }
    return json;
}

static void wait_answer(struct api_wait *wait, bool all)
{
    size_t room = API_WAIT_MACHINES_MAX;
    json_t *json = json_object(), *units = json_array();

    for (size_t i = 0; i < wait->count; i++)
        if (all || wait->entries[i].settled)
            json_array_append_new(units, entry_json(&wait->entries[i], &room));
    api_json_set_array(json, "units", units);
    api_answer_json(wait->request, json);
}

void api_wait_tick(struct api *api, uint64_t now_ms)
{
    while (api->ready != NULL)
        wait_answer(api->ready, false);
    while (api->waits != NULL && api->waits->deadline_ms <= now_ms)
        wait_answer(api->waits, true);
}

uint64_t api_wait_deadline_ms(const struct api *api)
{
    if (api->ready != NULL)
        return 0; /* Now. */
    return api->waits != NULL ? api->waits->deadline_ms : UINT64_MAX;
}

/* ---- waiting ---- */

static void entry_link(struct entry *entry, struct api *api, const char *unit)
{
    struct api_wait_name *name;

    HASH_FIND_STR(api->wait_names, unit, name);
    if (name == NULL) {
        name = NEW0(struct api_wait_name);
        name->name = xstrdup(unit);
        HASH_ADD_KEYPTR(hh, api->wait_names, name->name, strlen(name->name), name);
    }
    entry->name = name;
    DL_APPEND(name->entries, entry);
    api->waited_units++;
}

static void entry_unlink(struct entry *entry, struct api *api)
{
    struct api_wait_name *name = entry->name;

    DL_DELETE(name->entries, entry);
    api->waited_units--;
    if (name->entries != NULL)
        return;
    HASH_DEL(api->wait_names, name);
    free(name->name);
    free(name);
}

static void wait_free(void *data)
{
    struct api_wait *wait = data;
    struct api *api = wait->request->api;

    if (wait->ready)
        DL_DELETE2(api->ready, wait, ready_prev, ready_next);
    if (wait->started)
        DL_DELETE(api->waits, wait);
    for (size_t i = 0; i < wait->count; i++)
        entry_unlink(&wait->entries[i], api);
    free(wait->entries);
    free(wait);
}

static int compare_deadlines(const struct api_wait *a, const struct api_wait *b)
{
    return a->deadline_ms < b->deadline_ms ? -1 : a->deadline_ms > b->deadline_ms;
}

/* The registry is current: looks, and answers or goes on waiting. */
void api_wait_start(struct api_request *request)
{
    struct api *api = request->api;
    struct api_wait *wait = request->work;

    for (size_t i = 0; i < wait->count; i++)
        if (!wait->entries[i].settled)
            look_at(api, wait->entries[i].name);
    if (wait->settled_count > 0 || wait->timeout_ms == 0) {
        wait_answer(wait, wait->timeout_ms == 0);
        return;
    }
    wait->deadline_ms = api->backend.now_ms(api->data) + wait->timeout_ms;
    wait->started = true;
    DL_INSERT_INORDER(api->waits, wait, compare_deadlines);
}

/* ---- reading ---- */

static int read_until(const json_t *body, enum until *ret, struct err *err)
{
    const char *word;
    int r = api_json_get_string(body, "until", &word, err);

    if (r < 0)
        return r;
    if (word[0] == '\0') {
        *ret = UNTIL_SETTLED;
        return 0;
    }
    for (int i = 0; i < UNTIL_COUNT; i++)
        if (streq(word, until_words[i])) {
            *ret = (enum until)i;
            return 0;
        }
    return err_set(err, -EINVAL, "\"until\" is one of settled, placed, gone, inactive");
}

static int read_generation(const json_t *body, const char *unit, uint64_t *ret, struct err *err)
{
    const json_t *generations = api_json_get(body, "generations"), *value;

    *ret = 0;
    if (generations == NULL)
        return 0;
    if (!json_is_object(generations))
        return err_set(err, -EINVAL, "\"generations\" must be an object");
    value = json_object_get(generations, unit); /* Unit names have a case. */
    if (value == NULL || json_is_null(value))
        return 0;
    if (!api_json_is_count(value, ret))
        return err_set(err, -EINVAL, "unit %s: the generation must be a whole number", unit);
    return 0;
}

static int read_units(struct api_wait *wait, const json_t *body, struct err *err)
{
    struct api *api = wait->request->api;
    const json_t *units;
    int r = api_json_get_array(body, "units", &units, err);
    size_t count;

    if (r < 0)
        return r;
    count = json_array_size(units);
    if (count == 0)
        return err_set(err, -EINVAL, "no units are given");
    if (count > CHANGES_PER_COMMAND_MAX)
        return err_set(err, -E2BIG, "%zu units are given, the limit for one request is %u", count,
                       CHANGES_PER_COMMAND_MAX);
    wait->entries = xcalloc(count, sizeof *wait->entries);
    for (size_t i = 0; i < count; i++) {
        const char *unit = json_string_value(json_array_get(units, i));
        uint64_t generation;

        if (unit == NULL || unit[0] == '\0' || strlen(unit) > UNIT_NAME_MAX)
            return err_set(err, -EINVAL, "unit %zu: a name of at most %d bytes is expected", i + 1,
                           UNIT_NAME_MAX);
        r = read_generation(body, unit, &generation, err);
        if (r < 0)
            return r;
        wait->entries[i].wait = wait;
        wait->entries[i].generation = generation;
        entry_link(&wait->entries[i], api, unit);
        wait->count++;
    }
    return 0;
}

static int wait_read(struct api_wait *wait, const Fleet__ApiRequest *message, struct err *err)
{
    json_t *body;
    int r = api_json_parse_object(message->body.data, message->body.len, &body, err);

    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    r = read_until(body, &wait->until, err);
    if (r >= 0)
        r = api_json_get_count(body, "timeoutMs", TIMEOUT_DEFAULT_MS, &wait->timeout_ms, err);
    if (r >= 0)
        r = read_units(wait, body, err);
    json_decref(body);
    if (wait->timeout_ms > API_WAIT_MS_MAX)
        wait->timeout_ms = API_WAIT_MS_MAX;
    return r;
}

void api_wait_begin(struct api_request *request, const Fleet__ApiRequest *message)
{
    struct api_wait *wait = NEW0(struct api_wait);
    struct err err = {0};
    int r;

    wait->request = request;
    request->work = wait;
    request->work_free = wait_free;
    r = wait_read(wait, message, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    else if (request->api->waited_units > API_WAITED_UNITS_MAX)
        api_answer_error(request, 503, "too many units are waited for already, the limit is %u",
                         API_WAITED_UNITS_MAX);
}
