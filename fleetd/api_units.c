/* SPDX-License-Identifier: Apache-2.0 */
/* One unit, and the list of them. */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_change.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "units/name.h"

/* ---- reading ---- */

static json_t *options_json(const struct registry_unit *unit)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    json_t *options = json_array();

    if (unit_file_parse(unit->content->text, unit->content->text_size, &file, NULL) < 0)
        return options;
    for (size_t i = 0; i < file->count; i++) {
        json_t *option = json_object();

        api_json_set_text(option, "section", file->options[i].section);
        api_json_set_text(option, "name", file->options[i].name);
        api_json_set_text(option, "value", file->options[i].value);
        json_array_append_new(options, option);
    }
    return options;
}

/* What fleet has made of the unit, in the first fleet's words (§3.2). */
static enum unit_state current_state(const struct core *core, const struct registry_unit *unit)
{
    const struct core_report *report;

    if (unit->target[0] == '\0' || core_machine_state(core, unit->target) == MACHINE_LOST)
        return UNIT_STATE_INACTIVE;
    report = core_report(core, unit->target, unit->name);
    if (report == NULL)
        return UNIT_STATE_INACTIVE;
    return report->launched ? UNIT_STATE_LAUNCHED : UNIT_STATE_LOADED;
}

/* Why it is where it is, or why it is nowhere, which only the leader knows. */
static void set_reason(json_t *json, const struct core *core, const struct registry_unit *unit)
{
    bool waits =
        unit->desired != UNIT_STATE_INACTIVE && unit->target[0] == '\0' && !unit->requirements->global;
    _cleanup_(core_status_freep) struct core_status *status =
        waits && core_leads(core) ? core_status_new(core, unit->name) : NULL;

    api_json_set_text(json, "reason",
                      status != NULL && status->reason[0] != '\0' ? status->reason : unit->reason);
}

static json_t *unit_json(const struct core *core, const struct registry_unit *unit)
{
    json_t *json = json_object();

    api_json_set_text(json, "name", unit->name);
    api_json_set_text(json, "desiredState", unit_state_to_string(unit->desired));
    /* Only the leader knows what other hosts have made of it, and a new one only when they have called. */
    if (unit->target[0] == '\0' || core_report(core, unit->target, unit->name) != NULL ||
        (core_leads(core) && core_machine_state(core, unit->target) != MACHINE_EXPECTED))
        api_json_set_text(json, "currentState", unit_state_to_string(current_state(core, unit)));
    api_json_set_text(json, "machineID", unit->target);
    api_json_set_text(json, "hash", unit->content->hash);
    api_json_set_count(json, "generation", unit->generation);
    api_json_set_array(json, "options", options_json(unit));
    set_reason(json, core, unit);
    return json;
}

void api_units_list(struct api_request *request)
{
    const struct registry_unit *const *units;
    struct api_page page;
    size_t count;

    if (api_request_page(request, &page) < 0)
        return;
    units = registry_units(api_registry(request), &count);
    for (uint64_t i = page.first; i < count && api_page_wants(&page, i); i++)
        api_page_add(&page, unit_json(api_core(request), units[i]));
    api_answer_json(request, api_page_end(&page, "units", count));
}

void api_unit_get(struct api_request *request)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    json_t *json;

    if (unit == NULL) {
        api_answer_error(request, 404, "unit does not exist");
        return;
    }
    json = unit_json(api_core(request), unit);
    if (unit->requirements->global) /* A client of the first fleet finds no currentState here (§4.4). */
        json_object_del(json, "currentState");
    else if (request->first_fleet && api_linger_end(request->api, unit))
        api_json_set_text(json, "currentState", unit_state_to_string(UNIT_STATE_LAUNCHED));
    api_answer_json(request, json);
}

/* ---- destroying ---- */

static void destroyed(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        api_answer_empty(request, 204);
    else if (result->status == -ENOENT)
        api_answer_error(request, 404, "unit does not exist");
    else
        api_answer_refused(request, result);
}

/* 'release': its target is taken away before. */
static void propose_change(struct api_request *request, Fleet__UnitChange *change, bool release,
                           void (*applied)(struct api_request *request, const struct registry_result *result))
{
    Fleet__UnitChange released = FLEET__UNIT_CHANGE__INIT;
    Fleet__UnitChange *changes[] = {&released, change};
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change->name = released.name = request->name;
    released.desired = FLEET__DESIRED_STATE__DESIRED_INACTIVE;
    body.n_changes = release ? 2 : 1;
    body.changes = release ? changes : changes + 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    api_propose(request, &command, applied);
}

void api_unit_delete(struct api_request *request, const Fleet__ApiRequest *message)
{
    const struct registry_result *earlier = api_earlier(request);
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT;

    change.destroy = true;
    if (earlier != NULL)
        destroyed(request, earlier);
    else if (registry_unit(api_registry(request), request->name) == NULL)
        api_answer_error(request, 404, "unit does not exist");
    else
        propose_change(request, &change, false, destroyed);
}

/* ---- putting ---- */

#define TEXT_ABSENT "unit does not exist and options field empty"

/* A PUT body, understood but not yet compared with what is there. */
struct put {
    json_t *body;
    const char *state; /* "": not said. Borrowed from 'body'. */
    struct unit_file *file;
    struct api_text text;
};

static void put_done(struct put *put)
{
    json_decref(put->body);
    unit_file_free(put->file);
    api_text_done(&put->text);
}

static void put_created(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        api_answer_empty(request, 201);
    else
        api_answer_refused(request, result);
}

static void put_updated(struct api_request *request, const struct registry_result *result)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);

    if (result->status == 0 && request->halts && unit != NULL)
        api_linger_begin(request->api, unit);
    if (result->status == 0)
        api_answer_empty(request, 204);
    else if (result->status == -ENOENT)
        api_answer_error(request, 409, TEXT_ABSENT);
    else
        api_answer_refused(request, result);
}

/* Step 1 of §4.5. */
static bool content_type_fits(struct api_request *request, const Fleet__ApiRequest *message)
{
    const char *type = message->content_type + strspn(message->content_type, " \t");
    size_t size = strcspn(type, ";");

    while (size > 0 && strchr(" \t", type[size - 1]) != NULL)
        size--;
    if (message->content_type_count != 1)
        api_answer_error(request, 415, "expected 1 Content-Type, got %u", message->content_type_count);
    else if (size != strlen(CONTENT_TYPE_JSON) || strncmp(type, CONTENT_TYPE_JSON, size) != 0)
        api_answer_error(request, 415, "only acceptable Content-Type is " CONTENT_TYPE_JSON);
    else
        return true;
    return false;
}

/* Step 2. */
static int put_decode(struct put *put, const Fleet__ApiRequest *message, const char **ret_name,
                      struct err *err)
{
    static const char *const ignored[] = {"currentState", "machineID"}; /* But they have a type. */
    const json_t *options;
    const char *unused;
    int r = api_json_parse_object(message->body.data, message->body.len, &put->body, err);

    if (r >= 0)
        r = api_json_get_string(put->body, "name", ret_name, err);
    if (r >= 0)
        r = api_json_get_string(put->body, "desiredState", &put->state, err);
    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(ignored); i++)
        r = api_json_get_string(put->body, ignored[i], &unused, err);
    if (r >= 0)
        r = api_json_get_array(put->body, "options", &options, err);
    if (r >= 0)
        r = api_change_read_options(options, &put->file, err);
    if (r >= 0)
        api_text_set(&put->text, put->file);
    return r < 0 ? err_prefix(err, r, "unable to decode body") : 0;
}

/* Steps 2 to 4. Answers if it returns false. */
static bool put_read(struct put *put, struct api_request *request, const Fleet__ApiRequest *message)
{
    const char *name = "";
    struct err err = {0};
    int r = put_decode(put, message, &name, &err);

    if (r >= 0 && name[0] != '\0' && !streq(name, request->name))
        r = err_set(&err, -EINVAL, "name in URL \"%s\" differs from unit name in request body \"%s\"",
                    request->name, name);
    if (r >= 0)
        r = unit_name_check(request->name, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    return r >= 0;
}

/* The registry as it will be with the unit that is put. */
struct put_peers {
    const struct registry *registry;
    const char *name;
    const struct requirements *requirements; /* Of that unit. */
};

static const struct strlist *peers_of(const char *name, void *data)
{
    const struct put_peers *peers = data;
    const struct registry_unit *unit;

    if (streq(name, peers->name))
        return &peers->requirements->machine_of;
    unit = registry_unit(peers->registry, name);
    return unit != NULL ? &unit->requirements->machine_of : NULL;
}

static int put_check_peers(const struct api_request *request, const struct requirements *requirements,
                           struct err *err)
{
    struct put_peers peers = {api_registry(request), request->name, requirements};

    if (requirements->machine_of.count == 0 || unit_name_is_template(request->name))
        return 0;
    return api_cycle_check(request->name, peers_of, &peers, err);
}

/* Creates, or replaces: the state is inactive where none is said. */
static void put_create(struct put *put, struct api_request *request, const struct registry_unit *before)
{
    _cleanup_(requirements_freep) struct requirements *requirements =
        requirements_new(put->file, request->name);
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT;
    struct err err = {0};
    int r = api_change_check_text(put->file, &put->text, &err);

    if (r >= 0)
        r = put_check_peers(request, requirements, &err);
    if (r >= 0)
        r = api_change_check_state(request->name, put->state, &change.desired, &err);
    if (r >= 0)
        r = api_change_check_room(api_registry(request), before == NULL, 0, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    if (change.desired == FLEET__DESIRED_STATE__DESIRED_UNCHANGED)
        change.desired = FLEET__DESIRED_STATE__DESIRED_INACTIVE;
    change.has_text = true;
    change.text = (ProtobufCBinaryData){.len = put->text.size, .data = (uint8_t *)put->text.text};
    propose_change(request, &change, api_change_becomes_global(before, requirements), put_created);
}

static bool halts(const struct api_request *request, const struct registry_unit *unit,
                  Fleet__DesiredState desired)
{
    return request->first_fleet && desired == FLEET__DESIRED_STATE__DESIRED_LOADED &&
           unit->desired == UNIT_STATE_LAUNCHED && !unit->requirements->global &&
           current_state(api_core(request), unit) == UNIT_STATE_LAUNCHED;
}

/* Steps 8 to 10. */
static void put_update(struct put *put, struct api_request *request, const struct registry_unit *unit)
{
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT;
    struct err err = {0};
    int r;

    if (put->state[0] == '\0') {
        api_answer_error(request, 409, "must provide DesiredState to update existing unit");
        return;
    }
    r = api_change_check_state(request->name, put->state, &change.desired, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    request->halts = halts(request, unit, change.desired);
    propose_change(request, &change, false, put_updated);
}

/* Steps 5 to 7. */
static void put_decide(struct put *put, struct api_request *request)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    const struct registry_result *earlier = api_earlier(request);
    bool has_options = put->file->count > 0;

    if (earlier != NULL && has_options)
        put_created(request, earlier);
    else if (earlier != NULL)
        put_updated(request, earlier);
    else if (unit == NULL && !has_options)
        api_answer_error(request, 409, TEXT_ABSENT);
    else if (unit == NULL || (has_options && !streq(unit->content->hash, put->text.hash)))
        put_create(put, request, unit);
    else
        put_update(put, request, unit);
}

void api_unit_put(struct api_request *request, const Fleet__ApiRequest *message)
{
    _cleanup_(put_done) struct put put = {0};

    if (content_type_fits(request, message) && put_read(&put, request, message))
        put_decide(&put, request);
}
