/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/creation.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/output.h"
#include "units/name.h"
#include "units/requirements.h"

static void item_done(struct creation_item *item)
{
    free(item->name);
    free(item->path);
    free(item->template_name);
    free(item->template_path);
    source_free(item->local);
    source_free(item->local_template);
}

void creation_done(struct creation *c)
{
    for (size_t i = 0; i < c->count; i++)
        item_done(&c->items[i]);
    free(c->items);
    stored_done(&c->stored);
    json_decref(c->changes);
    strlist_done(&c->notes);
    strlist_done(&c->news);
}

static void __attribute__((format(printf, 2, 3))) say(struct strlist *lines, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    strlist_take(lines, xvasprintf(format, ap));
    va_end(ap);
}

/* --- What is on this computer --- */

static int read_source(const char *path, struct source **ret, struct err *err)
{
    _cleanup_(source_freep) struct source *source = NULL;
    int r = source_read(path, &source, err);

    if (r < 0)
        return r == -ENOENT ? 0 : err_prefix(err, r, "failed getting Unit(%s) from file", path);
    r = source_check(source, err);
    if (r < 0)
        return err_prefix(err, r, "%s", path);
    *ret = TAKE_PTR(source);
    return 0;
}

static int read_item(const struct creation *c, struct creation_item *item, struct err *err)
{
    int r = unit_name_check(item->name, err);

    if (r < 0)
        return err_prefix(err, r, "unit \"%s\"", item->name);
    if (c->desired != UNIT_STATE_INACTIVE && unit_name_is_template(item->name))
        return err_set(err, -EINVAL, "cannot activate template \"%s\"", item->name);
    r = read_source(item->path, &item->local, err);
    if (r < 0)
        return r;
    item->template_name = unit_name_template(item->name);
    if (item->template_name == NULL)
        return 0;
    item->template_path = source_template_path(item->path, item->template_name);
    /* Beside an instance's own file the template does not count, so it may be as broken as it likes. */
    return item->local != NULL ? 0 : read_source(item->template_path, &item->local_template, err);
}

static void warn_unknown(const struct creation_item *item)
{
    const struct source *source = item->local != NULL ? item->local : item->local_template;
    size_t position = 0;
    const char *option;

    while (source != NULL && (option = requirements_next_unknown(source->file, &position)) != NULL)
        complain("WARNING: Unit %s: unrecognized requirement in [X-Fleet] section: \"%s\"", item->name,
                 option);
}

static const struct creation_item *find_item(const struct creation *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (streq(c->items[i].name, name))
            return &c->items[i];
    return NULL;
}

/* Adds the unit that 'arg' names, unless it was named before. */
static int add_item(struct creation *c, const char *arg, struct err *err)
{
    struct creation_item item = {.path = unit_name_mangle_path(arg), .name = unit_name_mangle(arg)};
    const struct creation_item *same = find_item(c, item.name);
    int r = 0;

    if (same != NULL) {
        if (!streq(same->path, item.path))
            r = err_set(err, -EINVAL, "%s and %s are both unit %s", same->path, item.path, item.name);
        item_done(&item);
        return r;
    }
    GROW(c->items, c->capacity, c->count + 1);
    c->items[c->count++] = item;
    return read_item(c, &c->items[c->count - 1], err);
}

int creation_read(struct creation *c, const struct strlist *args)
{
    int result = 0;

    for (size_t i = 0; i < args->count; i++) {
        struct err err = {0};
        int r = add_item(c, args->items[i], &err);

        if (r < 0) {
            ctl_fail(&err, r, "Error creating units");
            result = -EINVAL;
        }
    }
    for (size_t i = 0; i < c->count && result == 0; i++)
        warn_unknown(&c->items[i]);
    return result;
}

/* --- What has to change --- */

static json_t *options_to_json(const struct unit_file *file)
{
    json_t *options = json_array();

    for (size_t i = 0; i < file->count; i++)
        json_array_append_new(options,
                              json_pack("{s:s, s:s, s:s}", "section", file->options[i].section, "name",
                                        file->options[i].name, "value", file->options[i].value));
    return options;
}

/* Adds a change for 'item'. NULL 'file': as it is stored, or, for a new instance, from the stored template.
 */
static json_t *add_change(struct creation *c, const struct creation_item *item, const struct unit_file *file)
{
    json_t *change = json_object();

    json_object_set_new(change, "name", json_string(item->name));
    json_object_set_new(change, "desiredState", json_string(unit_state_to_string(c->desired)));
    if (file != NULL)
        json_object_set_new(change, "options", options_to_json(file));
    json_array_append_new(c->changes, change);
    return change;
}

static bool file_is_global(const struct unit_file *file)
{
    _cleanup_(requirements_freep) struct requirements *r = requirements_new(file, NULL);

    return r->global;
}

/* The unit is not stored: its own file, the stored template, the local template, in this order. */
static int plan_new(struct creation *c, struct creation_item *item, struct err *err)
{
    const struct source *source = item->local;
    const json_t *template = NULL;
    char hash[UNIT_HASH_SIZE];
    int r;

    if (source == NULL && item->template_name != NULL) {
        r = stored_get(&c->stored, item->template_name, &template, err);
        if (r < 0)
            return err_prefix(err, r, "error retrieving Unit(%s) from Registry", item->template_name);
        if (template == NULL)
            source = item->local_template;
    }
    if (source == NULL && template == NULL && item->template_name != NULL)
        return err_set(
            err, -ENXIO,
            "failed getting Unit(%s) from template: unable to find template Unit(%s) in Registry or "
            "on filesystem",
            item->path, item->template_name);
    if (source == NULL && template == NULL)
        return err_set(err, -ENXIO, "unable to find Unit(%s) in Registry or on filesystem", item->name);

    item->created = true;
    item->global = source != NULL ? file_is_global(source->file) : stored_is_global(template);
    json_object_set_new(add_change(c, item, source != NULL ? source->file : NULL), "ifAbsent", json_true());
    if (template == NULL || item->local_template == NULL)
        return 0;
    stored_hash(template, hash);
    if (!streq(hash, item->local_template->hash))
        say(&c->notes,
            "WARNING: Unit %s in registry differs from local template unit file %s. Add --replace to "
            "override.",
            item->template_name, item->local_template->path);
    return 0;
}

/* Whether this verb may replace a unit in that state. */
static bool may_replace(const struct creation *c, const char *state_text)
{
    enum unit_state state;

    return unit_state_from_string(state_text, &state, NULL) < 0 || state <= c->desired;
}

static void plan_same(struct creation *c, struct creation_item *item, const json_t *unit)
{
    item->global = stored_is_global(unit);
    json_t *change;

    if (c->desired == UNIT_STATE_INACTIVE)
        return; /* submit leaves a stored unit as it is. */
    change = add_change(c, item, NULL);
    /* As systemctl has it: who says start wants it started, also where it failed or was stopped meanwhile. */
    if (c->desired == UNIT_STATE_LAUNCHED)
        json_object_set_new(change, "again", json_true());
}

/* --replace: the unit gets the content of its own file, the local template's, or the stored template's. */
static int plan_replace(struct creation *c, struct creation_item *item, const json_t *unit,
                        const char *old_hash, struct err *err)
{
    const struct source *source = item->local != NULL ? item->local : item->local_template;
    _cleanup_(unit_file_freep) struct unit_file *template_file = NULL;
    const json_t *template = NULL;
    char hash[UNIT_HASH_SIZE];
    int r;

    if (source == NULL && item->template_name != NULL) {
        r = stored_get(&c->stored, item->template_name, &template, err);
        if (r < 0)
            return err_prefix(err, r, "error retrieving Unit(%s) from Registry", item->template_name);
    }
    if (source == NULL && template == NULL)
        return err_set(err, -EINVAL, "there is nothing to replace Unit(%s) with: no local file %s",
                       item->name, item->path);
    if (source != NULL)
        memcpy(hash, source->hash, sizeof hash);
    else
        stored_hash(template, hash);
    if (streq(hash, old_hash)) {
        say(&c->news, "Found same Unit(%s) in Registry, nothing to do", item->name);
        plan_same(c, item, unit);
        return 0;
    }
    if (!may_replace(c, api_text(unit, "desiredState"))) {
        say(&c->notes, "Warning: can not replace Unit(%s) in state '%s', use the appropriate command",
            item->name, api_text(unit, "desiredState"));
        plan_same(c, item, unit);
        return 0;
    }
    if (source == NULL)
        template_file = stored_options(template);
    item->created = true;
    item->global = file_is_global(source != NULL ? source->file : template_file);
    json_object_set_new(add_change(c, item, source != NULL ? source->file : template_file), "ifHash",
                        json_string(old_hash));
    return 0;
}

static int plan_item(struct creation *c, struct creation_item *item, struct err *err)
{
    const struct source *source = item->local != NULL ? item->local : item->local_template;
    const json_t *unit;
    char hash[UNIT_HASH_SIZE];
    int r;

    item->created = false;
    r = stored_get(&c->stored, item->name, &unit, err);
    if (r < 0)
        return err_prefix(err, r, "error retrieving Unit(%s) from Registry", item->name);
    if (unit == NULL)
        return plan_new(c, item, err);
    stored_hash(unit, hash);
    if (c->ctl->options.replace)
        return plan_replace(c, item, unit, hash, err);
    if (source != NULL && !streq(source->hash, hash))
        say(&c->notes,
            "WARNING: Unit %s in registry differs from local %sunit file %s. Add --replace to override.",
            item->name, source == item->local ? "" : "template ", source->path);
    plan_same(c, item, unit);
    return 0;
}

int creation_plan(struct creation *c, struct err *err)
{
    int r;

    stored_done(&c->stored);
    strlist_done(&c->notes);
    strlist_done(&c->news);
    json_decref(c->changes);
    c->changes = json_array();
    r = stored_init(&c->stored, c->ctl, c->count, err);
    for (size_t i = 0; i < c->count && r == 0; i++)
        r = plan_item(c, &c->items[i], err);
    return r;
}
