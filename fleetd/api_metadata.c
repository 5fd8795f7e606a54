/* SPDX-License-Identifier: Apache-2.0 */
/* PATCH /machines: changes of machines' metadata (fleet-behaviour.md §4.6). All operations are checked before
 * any is carried out, and they are carried out together. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

struct patch {
    json_t *body;
    Fleet__MetadataChange *changes; /* Strings are owned. */
    size_t count;
};

static void patch_done(struct patch *patch)
{
    for (size_t i = 0; i < patch->count; i++) {
        free(patch->changes[i].machine_id);
        free(patch->changes[i].key);
        free(patch->changes[i].value);
    }
    free(patch->changes);
    json_decref(patch->body);
}

/* ---- one operation ---- */

/* ^/([^/]+)/metadata/([A-Za-z0-9_.-]+)$ */
static int read_path(const char *path, Fleet__MetadataChange *change, struct err *err)
{
    static const char middle[] = "/metadata/",
                      allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t id_size = path[0] == '/' ? strcspn(path + 1, "/") : 0;
    const char *id = path + 1, *rest = id + id_size, *key = rest + sizeof middle - 1;

    if (id_size == 0 || !str_has_prefix(rest, middle) || key[0] == '\0' || key[strspn(key, allowed)] != '\0')
        return err_set(err, -EINVAL, "machine metadata path invalid");
    if (id_size >= MACHINE_ID_SIZE)
        return err_set(err, -EINVAL, "a machine id has at most %d characters", MACHINE_ID_SIZE - 1);
    if (strlen(key) > LABEL_MAX)
        return err_set(err, -E2BIG, "the metadata key is %zu bytes, the limit is %u", strlen(key), LABEL_MAX);
    change->machine_id = xstrndup(id, id_size);
    change->key = xstrdup(key);
    return 0;
}

/* The value, as documented a string, as the first fleet's code wanted it {"value": string}. */
static int read_value(const json_t *operation, const char **ret, struct err *err)
{
    const json_t *value = api_json_get(operation, "value");

    if (json_is_object(value))
        return api_json_get_string(value, "value", ret, err);
    return api_json_get_string(operation, "value", ret, err);
}

static int check_operation(const char *op, const char *path, const char *value, Fleet__MetadataChange *change,
                           struct err *err)
{
    int r;

    change->remove = streq(op, "remove");
    if (!change->remove && !streq(op, "add") && !streq(op, "replace"))
        return err_set(err, -EINVAL, "invalid op: expect add, remove, or replace");
    r = read_path(path, change, err);
    if (r < 0)
        return r;
    if (change->remove)
        value = "";
    else if (value[0] == '\0')
        return err_set(err, -EINVAL, "invalid value: add and replace require a value");
    if (strlen(value) > LABEL_MAX)
        return err_set(err, -E2BIG, "the metadata value is %zu bytes, the limit is %u", strlen(value),
                       LABEL_MAX);
    change->value = xstrdup(value);
    return 0;
}

/* Wrong types anywhere come before wrong words: the first fleet decoded all of the body first. */
static int read_operation(const json_t *operation, const char **op, const char **path, const char **value,
                          struct err *err)
{
    int r;

    *op = *path = *value = "";
    if (json_is_null(operation))
        return 0;
    if (!json_is_object(operation))
        return err_set(err, -EINVAL, "an operation must be an object");
    r = api_json_get_string(operation, "op", op, err);
    if (r >= 0)
        r = api_json_get_string(operation, "path", path, err);
    if (r >= 0)
        r = read_value(operation, value, err);
    return r;
}

/* ---- all of them ---- */

static int patch_decode(struct patch *patch, const Fleet__ApiRequest *message, struct err *err)
{
    const char *op, *path, *value;
    int r = api_json_parse(message->body.data, message->body.len, &patch->body, err);

    if (r < 0)
        return r;
    if (!json_is_array(patch->body) && !json_is_null(patch->body))
        return err_set(err, -EINVAL, "a JSON array of operations is expected");
    if (json_array_size(patch->body) > CHANGES_PER_COMMAND_MAX)
        return err_set(err, -E2BIG, "%zu operations are given, the limit for one request is %u",
                       json_array_size(patch->body), CHANGES_PER_COMMAND_MAX);
    for (size_t i = 0; i < json_array_size(patch->body); i++) {
        r = read_operation(json_array_get(patch->body, i), &op, &path, &value, err);
        if (r < 0)
            return err_prefix(err, r, "operation %zu", i + 1);
    }
    return 0;
}

static int patch_check(struct patch *patch, struct err *err)
{
    const char *op, *path, *value;

    patch->changes = xcalloc(json_array_size(patch->body), sizeof *patch->changes);
    for (size_t i = 0; i < json_array_size(patch->body); i++) {
        Fleet__MetadataChange *change = &patch->changes[patch->count++];
        int r;

        fleet__metadata_change__init(change);
        change->machine_id = change->key = change->value = NULL;
        r = read_operation(json_array_get(patch->body, i), &op, &path, &value, err);
        if (r >= 0)
            r = check_operation(op, path, value, change, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool has_changed_key(const struct registry_machine *machine, const char *key)
{
    for (size_t i = 0; machine != NULL && i < machine->changed_count; i++)
        if (streq(machine->changed[i].key, key))
            return true;
    return false;
}

/* Whether the registry has room for keys and machines that it does not know: anybody may name any machine,
 * and what is kept of that must have an end. */
static int patch_check_room(const struct patch *patch, const struct registry *registry, struct err *err)
{
    struct strlist added = {0}; /* "machine key", sorted: machines stand together. */
    size_t keys = 0, machines = registry_machine_count(registry);
    int r = 0;

    for (size_t i = 0; i < patch->count; i++)
        if (!has_changed_key(registry_machine(registry, patch->changes[i].machine_id), patch->changes[i].key))
            strlist_take(&added, xasprintf("%s/%s", patch->changes[i].machine_id, patch->changes[i].key));
    strlist_sort(&added);
    for (size_t i = 0; r == 0 && i < added.count; i++) {
        size_t id_size = strcspn(added.items[i], "/") + 1;
        _cleanup_(freep) char *id = xstrndup(added.items[i], id_size - 1);
        const struct registry_machine *machine = registry_machine(registry, id);

        if (i > 0 && streq(added.items[i - 1], added.items[i]))
            continue;
        if (i == 0 || strncmp(added.items[i - 1], added.items[i], id_size) != 0) {
            keys = machine != NULL ? machine->changed_count : 0;
            machines += machine == NULL;
        }
        if (++keys > LABELS_PER_MACHINE_MAX)
            r = err_set(err, -ENOSPC, "machine %s would have more than %u metadata keys", id,
                        LABELS_PER_MACHINE_MAX);
        else if (machines > MACHINES_MAX)
            r = err_set(err, -ENOSPC, "there would be metadata of more than %u machines", MACHINES_MAX);
    }
    strlist_done(&added);
    return r;
}

static void answer_done(struct api_request *request)
{
    api_answer(request, 204, CONTENT_TYPE_JSON, "", 0);
}

static void patch_applied(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        answer_done(request);
    else
        api_answer_refused(request, result);
}

static void patch_propose(struct patch *patch, struct api_request *request)
{
    _cleanup_(freep) Fleet__MetadataChange **list = xcalloc(patch->count, sizeof *list);
    Fleet__ChangeMetadata body = FLEET__CHANGE_METADATA__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    for (size_t i = 0; i < patch->count; i++)
        list[i] = &patch->changes[i];
    body.n_changes = patch->count;
    body.changes = list;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_METADATA;
    command.change_metadata = &body;
    api_propose(request, &command, patch_applied);
}

void api_machines_patch(struct api_request *request, const Fleet__ApiRequest *message)
{
    _cleanup_(patch_done) struct patch patch = {0};
    const struct registry_result *earlier = api_earlier(request);
    struct err err = {0};
    int r = patch_decode(&patch, message, &err);

    if (r >= 0)
        r = patch_check(&patch, &err);
    if (r >= 0 && earlier != NULL) {
        patch_applied(request, earlier);
        return;
    }
    if (r >= 0)
        r = patch_check_room(&patch, api_registry(request), &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    else if (patch.count == 0)
        answer_done(request);
    else
        patch_propose(&patch, request);
}
