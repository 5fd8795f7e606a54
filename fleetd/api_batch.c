/* SPDX-License-Identifier: Apache-2.0 */
/* POST /units: many changes in one transaction. Everything is checked, in the order of the request, against
 * the registry as the whole batch will leave it; the first fault refuses all of it, and names its unit. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_change.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"
#include "units/name.h"

struct item {
    const char *name, *state, *if_hash; /* Borrowed from the body. */
    const json_t *options;
    bool destroy, if_absent, restart, again;
    const struct registry_unit *before; /* Borrowed; only until the change is proposed. */
    bool created;
    Fleet__DesiredState desired;
    struct api_text text;              /* NULL text: the content stays as it is. */
    struct requirements *requirements; /* Of 'text'. */
    UT_hash_handle hh;
};

struct batch {
    const struct registry *registry;
    json_t *body;
    struct item *items;
    size_t count;
    struct item *by_name;
    bool dry_run;
};

static void batch_free(void *data)
{
    struct batch *batch = data;

    HASH_CLEAR(hh, batch->by_name);
    for (size_t i = 0; i < batch->count; i++) {
        api_text_done(&batch->items[i].text);
        requirements_free(batch->items[i].requirements);
    }
    free(batch->items);
    json_decref(batch->body);
    free(batch);
}

/* ---- reading ---- */

static int read_item(const json_t *json, struct item *item, struct err *err)
{
    int r;

    if (!json_is_object(json))
        return err_set(err, -EINVAL, "a unit must be an object");
    r = api_json_get_string(json, "name", &item->name, err);
    if (r >= 0)
        r = api_json_get_string(json, "desiredState", &item->state, err);
    if (r >= 0)
        r = api_json_get_string(json, "ifHash", &item->if_hash, err);
    if (r >= 0)
        r = api_json_get_array(json, "options", &item->options, err);
    if (r >= 0)
        r = api_json_get_bool(json, "destroy", &item->destroy, err);
    if (r >= 0)
        r = api_json_get_bool(json, "ifAbsent", &item->if_absent, err);
    if (r >= 0)
        r = api_json_get_bool(json, "restart", &item->restart, err);
    if (r >= 0)
        r = api_json_get_bool(json, "again", &item->again, err);
    return r;
}

static int read_items(struct batch *batch, const json_t *units, struct err *err)
{
    size_t count = json_array_size(units);

    if (count == 0)
        return err_set(err, -EINVAL, "no units are given");
    if (count > CHANGES_PER_COMMAND_MAX)
        return err_set(err, -E2BIG, "%zu units are given, the limit for one request is %u", count,
                       CHANGES_PER_COMMAND_MAX);
    batch->items = xcalloc(count, sizeof *batch->items);
    for (; batch->count < count; batch->count++) {
        struct item *item = &batch->items[batch->count], *twin;
        int r = read_item(json_array_get(units, batch->count), item, err);

        if (r < 0)
            return err_prefix(err, r, "unable to decode body: unit %zu", batch->count + 1);
        HASH_FIND_STR(batch->by_name, item->name, twin);
        if (twin != NULL)
            return err_set(err, -EINVAL, "unit %s: it is named twice", item->name);
        HASH_ADD_KEYPTR(hh, batch->by_name, item->name, strlen(item->name), item);
    }
    return 0;
}

static int batch_read(struct batch *batch, const Fleet__ApiRequest *message, struct err *err)
{
    const json_t *units;
    int r = api_json_parse_object(message->body.data, message->body.len, &batch->body, err);

    if (r >= 0)
        r = api_json_get_bool(batch->body, "dryRun", &batch->dry_run, err);
    if (r >= 0)
        r = api_json_get_array(batch->body, "units", &units, err);
    return r < 0 ? err_prefix(err, r, "unable to decode body") : read_items(batch, units, err);
}

/* ---- checking ---- */

static int check_conditions(const struct item *item, struct err *err)
{
    if (item->if_absent && item->before != NULL)
        return err_set(err, -EEXIST, "it exists already");
    if (item->if_hash[0] != '\0' &&
        (item->before == NULL || !streq(item->before->content->hash, item->if_hash)))
        return err_set(err, -ESTALE, "it has other content meanwhile (hash %s)",
                       item->before != NULL ? item->before->content->hash : "none");
    return 0;
}

static int check_destroy(const struct item *item, struct err *err)
{
    if (item->before == NULL)
        return err_set(err, -ENOENT, "it does not exist");
    if (item->state[0] != '\0' || json_array_size(item->options) > 0 || item->restart)
        return err_set(err, -EINVAL, "it cannot be destroyed and changed at once");
    return 0;
}

static int check_restart(struct item *item, struct err *err)
{
    if (item->state[0] != '\0' || json_array_size(item->options) > 0)
        return err_set(err, -EINVAL, "it cannot be restarted and changed at once");
    if (item->before == NULL)
        return err_set(err, -ENOENT, "it does not exist");
    if (item->before->desired == UNIT_STATE_INACTIVE)
        return err_set(err, -EINVAL, "it is inactive: it cannot be restarted");
    item->desired = FLEET__DESIRED_STATE__DESIRED_LAUNCHED;
    return 0;
}

/* The text that a template has after this batch, or NULL. */
static const char *template_text(struct batch *batch, const char *name, size_t *ret_size)
{
    const struct registry_unit *stored = registry_unit(batch->registry, name);
    struct item *item;

    HASH_FIND_STR(batch->by_name, name, item);
    if (item != NULL && item->destroy)
        return NULL;
    if (item != NULL && item->text.text != NULL) {
        *ret_size = item->text.size;
        return item->text.text;
    }
    if (stored == NULL)
        return NULL;
    *ret_size = stored->content->text_size;
    return stored->content->text;
}

/* An instance without options of its own takes over its template's text. */
static int instantiate(struct batch *batch, struct item *item, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(freep) char *template = unit_name_template(item->name);
    const char *text;
    size_t size;
    int r;

    if (template == NULL)
        return err_set(err, -ENOENT, "it does not exist, and no options are given");
    text = template_text(batch, template, &size);
    if (text == NULL)
        return err_set(err, -ENOENT, "it does not exist, and neither does its template %s", template);
    r = unit_file_parse(text, size, &file, err);
    if (r < 0)
        return err_prefix(err, r, "template %s", template);
    item->text.text = xmemdup(text, size);
    item->text.size = size;
    unit_hash(text, size, item->text.hash);
    item->requirements = requirements_new(file, item->name);
    return 0;
}

/* Only its options: what refers to other units of the batch comes when all have been read. */
static int check_options(struct item *item, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    int r;

    if (item->destroy || json_array_size(item->options) == 0)
        return 0;
    r = api_change_read_options(item->options, &file, err);
    if (r < 0)
        return r;
    api_text_set(&item->text, file);
    r = api_change_check_text(file, &item->text, err);
    if (r >= 0)
        item->requirements = requirements_new(file, item->name);
    return r;
}

static int check_item(struct batch *batch, struct item *item, struct err *err)
{
    int r;

    item->before = registry_unit(batch->registry, item->name);
    if (item->destroy)
        r = check_destroy(item, err);
    else
        r = unit_name_check(item->name, err);
    if (r >= 0)
        r = check_conditions(item, err);
    if (r < 0 || item->destroy)
        return r;
    if (item->restart)
        return check_restart(item, err);
    r = api_change_check_state(item->name, item->state, &item->desired, err);
    if (r < 0)
        return r;
    if (item->again && item->desired != FLEET__DESIRED_STATE__DESIRED_LAUNCHED)
        return err_set(err, -EINVAL, "\"again\" goes with the desired state launched");
    item->created = item->before == NULL;
    if (item->created && item->text.text == NULL)
        return instantiate(batch, item, err);
    return 0;
}

static const struct strlist *peers_of(const char *name, void *data)
{
    struct batch *batch = data;
    const struct registry_unit *unit = registry_unit(batch->registry, name);
    struct item *item;

    HASH_FIND_STR(batch->by_name, name, item);
    if (item != NULL && item->destroy)
        return NULL;
    if (item != NULL && item->requirements != NULL)
        return &item->requirements->machine_of;
    return unit != NULL ? &unit->requirements->machine_of : NULL;
}

static int check_peers(struct batch *batch, struct item *item, struct err *err)
{
    if (item->requirements == NULL || item->requirements->machine_of.count == 0 ||
        unit_name_is_template(item->name))
        return 0;
    return api_cycle_check(item->name, peers_of, batch, err);
}

static int batch_check(struct batch *batch, struct err *err)
{
    size_t created = 0, destroyed = 0;
    int r;

    for (size_t i = 0; i < batch->count; i++) {
        r = check_options(&batch->items[i], err);
        if (r < 0)
            return err_prefix(err, r, "unit %s", batch->items[i].name);
    }
    for (size_t i = 0; i < batch->count; i++) {
        r = check_item(batch, &batch->items[i], err);
        if (r < 0)
            return err_prefix(err, r, "unit %s", batch->items[i].name);
        created += batch->items[i].created;
        destroyed += batch->items[i].destroy;
    }
    for (size_t i = 0; i < batch->count; i++) {
        r = check_peers(batch, &batch->items[i], err);
        if (r < 0)
            return err_prefix(err, r, "unit %s", batch->items[i].name);
    }
    return api_change_check_room(batch->registry, created, destroyed, err);
}

/* ---- answering ---- */

static const char *state_word(const struct item *item, const struct registry_unit *unit)
{
    switch (item->desired) {
    case FLEET__DESIRED_STATE__DESIRED_LOADED: return unit_state_to_string(UNIT_STATE_LOADED);
    case FLEET__DESIRED_STATE__DESIRED_LAUNCHED: return unit_state_to_string(UNIT_STATE_LAUNCHED);
    case FLEET__DESIRED_STATE__DESIRED_INACTIVE: return unit_state_to_string(UNIT_STATE_INACTIVE);
    default: return unit_state_to_string(unit != NULL ? unit->desired : UNIT_STATE_INACTIVE);
    }
}

static json_t *item_json(const struct batch *batch, const struct item *item, bool repeated)
{
    const struct registry_unit *unit = registry_unit(batch->registry, item->name);
    json_t *json = json_object();

    api_json_set_text(json, "name", item->name);
    if (item->destroy) {
        json_object_set_new(json, "destroyed", json_true());
        return json;
    }
    if (item->text.text != NULL)
        api_json_set_text(json, "hash", item->text.hash);
    else if (unit != NULL)
        api_json_set_text(json, "hash", unit->content->hash);
    api_json_set_text(json, "desiredState", state_word(item, unit));
    if (unit != NULL)
        api_json_set_count(json, "generation", unit->generation);
    if (!repeated) /* Nobody remembers that. */
        json_object_set_new(json, "created", json_boolean(item->created));
    return json;
}

static void answer_units(struct api_request *request, const struct batch *batch, uint64_t version,
                         bool repeated)
{
    json_t *json = json_object(), *units = json_array();

    for (size_t i = 0; i < batch->count; i++)
        json_array_append_new(units, item_json(batch, &batch->items[i], repeated));
    api_json_set_count(json, "version", version);
    api_json_set_array(json, "units", units);
    api_answer_json(request, json);
}

static void batch_applied(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        answer_units(request, request->work, result->version, false);
    else
        api_answer_refused(request, result);
}

/* ---- proposing ---- */

static void fill_change(const struct item *item, Fleet__UnitChange *change)
{
    fleet__unit_change__init(change);
    change->name = (char *)item->name;
    change->destroy = item->destroy;
    change->restart = item->restart;
    change->again = item->again;
    change->desired = item->desired;
    change->if_absent = item->if_absent;
    change->if_hash = (char *)item->if_hash;
    if (item->text.text == NULL)
        return;
    change->has_text = true;
    change->text = (ProtobufCBinaryData){.len = item->text.size, .data = (uint8_t *)item->text.text};
}

/* Before the change of a unit that becomes global: see api_change_becomes_global(). */
static void fill_release(struct item *item, Fleet__UnitChange *release)
{
    fleet__unit_change__init(release);
    release->name = (char *)item->name;
    release->desired = FLEET__DESIRED_STATE__DESIRED_INACTIVE;
    if (item->desired == FLEET__DESIRED_STATE__DESIRED_UNCHANGED)
        item->desired = item->before->desired == UNIT_STATE_LOADED ? FLEET__DESIRED_STATE__DESIRED_LOADED
                                                                   : FLEET__DESIRED_STATE__DESIRED_LAUNCHED;
}

static void batch_propose(struct batch *batch, struct api_request *request)
{
    _cleanup_(freep) Fleet__UnitChange *changes = xcalloc(2 * batch->count, sizeof *changes);
    _cleanup_(freep) Fleet__UnitChange **list = xcalloc(2 * batch->count, sizeof *list);
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    size_t count = 0;

    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];

        if (api_change_becomes_global(item->before, item->requirements))
            fill_release(item, &changes[count++]);
        fill_change(item, &changes[count++]);
        item->before = NULL;
    }
    for (size_t i = 0; i < count; i++)
        list[i] = &changes[i];
    body.n_changes = count;
    body.changes = list;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    api_propose(request, &command, batch_applied);
}

static void answer_repeated(struct batch *batch, struct api_request *request,
                            const struct registry_result *earlier)
{
    if (earlier->status == 0)
        answer_units(request, batch, earlier->version, true);
    else
        api_answer_refused(request, earlier);
}

void api_units_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    const struct registry_result *earlier = api_earlier(request);
    struct batch *batch = NEW0(struct batch);
    struct err err = {0};
    int r;

    request->work = batch;
    request->work_free = batch_free;
    batch->registry = api_registry(request);
    r = batch_read(batch, message, &err);
    if (r >= 0 && earlier != NULL) {
        answer_repeated(batch, request, earlier);
        return;
    }
    if (r >= 0)
        r = batch_check(batch, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    else if (batch->dry_run)
        answer_units(request, batch, registry_version(batch->registry), false);
    else
        batch_propose(batch, request);
}
