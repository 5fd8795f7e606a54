/* SPDX-License-Identifier: Apache-2.0 */
/* GET and PATCH /settings: the cluster's settings, by the table of raftstore/settings.h. All changes of a
 * request are checked before any is made, and they are made together. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"

/* ---- showing ---- */

static json_t *setting_json(const struct registry *registry, enum setting_id id)
{
    const struct setting *row = settings_row(id);
    _cleanup_(freep) char *value = registry_setting_text(registry, id), *fallback = settings_fallback(id),
                          *limits = settings_limits(id);
    json_t *json = json_object();

    api_json_set_text(json, "name", row->name);
    json_object_set_new(json, "value", api_json_text(value)); /* Also an empty one. */
    json_object_set_new(json, "default", api_json_text(fallback));
    api_json_set_text(json, "limits", limits);
    api_json_set_text(json, "meaning", row->meaning);
    return json;
}

/* What a newer version has set, too: it holds wherever such a one leads. */
static void add_unknown(const struct registry *registry, json_t *list)
{
    size_t count;
    const struct registry_setting *settings = registry_settings(registry, &count);
    enum setting_id id;

    for (size_t i = 0; i < count; i++) {
        json_t *json;

        if (settings_find(settings[i].name, &id))
            continue;
        json = json_object();
        api_json_set_text(json, "name", settings[i].name);
        api_json_set_text(json, "value", settings[i].value);
        api_json_set_text(json, "meaning", "(Set by a newer fleetd; it means nothing to this one)");
        json_array_append_new(list, json);
    }
}

void api_settings_get(struct api_request *request)
{
    const struct registry *registry = api_registry(request);
    json_t *json = json_object(), *list = json_array();

    for (size_t i = 0; i < SETTING_COUNT; i++)
        json_array_append_new(list, setting_json(registry, (enum setting_id)i));
    add_unknown(registry, list);
    api_json_set_array(json, "settings", list);
    api_answer_json(request, json);
}

/* ---- changing ---- */

/* What is asked for: 'given' by setting. */
struct change {
    bool given[SETTING_COUNT], reset[SETTING_COUNT];
    char *values[SETTING_COUNT];
};

static void change_free(void *data)
{
    struct change *change = data;

    for (size_t i = 0; i < SETTING_COUNT; i++)
        free(change->values[i]);
    free(change);
}

static int refuse_unknown(const char *name, struct err *err)
{
    struct strbuf known = {0};

    if (strlen(name) > SETTING_NAME_MAX)
        return err_set(err, -EINVAL, "a setting's name has at most %u bytes", SETTING_NAME_MAX);
    for (size_t i = 0; i < SETTING_COUNT; i++)
        strbuf_addf(&known, "%s%s",
                    i == 0                  ? ""
                    : i + 1 < SETTING_COUNT ? ", "
                                            : " and ",
                    settings_row((enum setting_id)i)->name);
    err_set(err, -EINVAL, "there is no setting \"%s\"; there are %s", name, known.text);
    strbuf_done(&known);
    return -EINVAL;
}

/* A string, a whole number, or null for the default. */
static int read_value(enum setting_id id, const json_t *json, struct change *change, struct err *err)
{
    _cleanup_(freep) char *number = NULL;
    const char *text = json_string_value(json);
    uint64_t count;
    int r = 0;

    if (text == NULL && api_json_is_count(json, &count))
        text = number = xasprintf("%" PRIu64, count);
    free(TAKE_PTR(change->values[id])); /* In JSON a key may be there twice. */
    if (json_is_null(json))
        change->values[id] = settings_fallback(id);
    else if (text == NULL)
        r = err_set(err, -EINVAL, "its value is a string, a whole number, or null for its default");
    else
        r = settings_normalise(id, text, &change->values[id], err);
    if (r < 0)
        return err_prefix(err, r, "%s", settings_row(id)->name);
    change->given[id] = true;
    change->reset[id] = json_is_null(json);
    return 0;
}

static int change_read(const Fleet__ApiRequest *message, struct change *change, struct err *err)
{
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    int r = api_json_parse_object(message->body.data, message->body.len, &body, err);
    json_t *settings, *value;
    enum setting_id id;
    const char *name;

    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    settings = api_json_get(body, "settings");
    if (settings != NULL && !json_is_object(settings))
        return err_set(err, -EINVAL, "unable to decode body: \"settings\" must be an object");
    if (json_object_size(settings) == 0)
        return err_set(err, -EINVAL, "no settings are given");
    json_object_foreach(settings, name, value)
    {
        if (!settings_find(name, &id))
            return refuse_unknown(name, err);
        r = read_value(id, value, change, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void log_change(const struct change *change)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (change->given[i])
            log_message(LOG_NOTICE, log_fields(MESSAGE_SETTING), "The cluster's %s is \"%s\" now",
                        settings_row((enum setting_id)i)->name, change->values[i]);
}

static void answer_changed(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        api_settings_get(request);
    else
        api_answer_refused(request, result);
}

static void change_applied(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        log_change(request->work);
    answer_changed(request, result);
}

static void change_propose(struct api_request *request, const struct change *change)
{
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__Setting settings[SETTING_COUNT], *list[SETTING_COUNT];

    for (size_t i = 0; i < SETTING_COUNT; i++) {
        Fleet__Setting *setting = &settings[body.n_changes];

        if (!change->given[i])
            continue;
        if (i == SETTING_VOTERS) { /* It has a field of its own, which older versions know. */
            body.voters = (uint32_t)strtoul(change->values[i], NULL, 10);
            continue;
        }
        fleet__setting__init(setting);
        setting->name = (char *)settings_row((enum setting_id)i)->name;
        setting->value = change->values[i];
        setting->reset = change->reset[i];
        list[body.n_changes++] = setting;
    }
    body.changes = list;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &body;
    api_propose(request, &command, change_applied);
}

void api_settings_patch(struct api_request *request, const Fleet__ApiRequest *message)
{
    const struct registry_result *earlier = api_earlier(request);
    struct change *change = NEW0(struct change);
    struct err err = {0};
    int r;

    request->work = change;
    request->work_free = change_free;
    r = change_read(message, change, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    else if (earlier != NULL)
        answer_changed(request, earlier);
    else
        change_propose(request, change);
}
