/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/stored.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "units/name.h"
#include "units/requirements.h"

static int read_all(struct stored *s, struct err *err)
{
    _cleanup_(json_decrefp) json_t *list = NULL;
    json_t *unit;
    size_t i;
    int r;

    r = ctl_read_all(s->ctl, "units", "units", false, &list, err);
    if (r < 0)
        return r;
    json_object_clear(s->units);
    json_array_foreach(list, i, unit) json_object_set(s->units, api_text(unit, "name"), unit);
    s->complete = true;
    return 0;
}

int stored_init(struct stored *s, struct ctl *ctl, size_t expected, struct err *err)
{
    *s = (struct stored){.ctl = ctl, .units = json_object()};
    return expected > STORED_SINGLE_MAX ? read_all(s, err) : 0;
}

void stored_done(struct stored *s)
{
    json_decref(s->units);
    *s = (struct stored){0};
}

int stored_get(struct stored *s, const char *name, const json_t **ret, struct err *err)
{
    _cleanup_(freep) char *escaped = api_escape(name), *path = xasprintf("units/%s", escaped);
    json_t *unit = json_object_get(s->units, name);
    int r;

    if (unit == NULL && !s->complete) {
        r = api_call(s->ctl->api, "GET", path, NULL, 0, &unit, err);
        if (r < 0 && r != -ENOENT)
            return r;
        if (unit == NULL)
            unit = json_null();
        json_object_set_new_nocheck(s->units, name, unit);
    }
    *ret = json_is_object(unit) ? unit : NULL;
    return 0;
}

bool stored_is_pattern(const char *arg)
{
    return strpbrk(arg, "*?[") != NULL;
}

/* A backslash stands for itself: unit names have it ("a\x2db.service"), and systemctl reads it so. */
static bool matches(const char *pattern, const char *name)
{
    return fnmatch(pattern, name, FNM_NOESCAPE) == 0;
}

int stored_resolve(struct stored *s, const char *arg, struct strlist *names, struct err *err)
{
    struct strlist found = {0};
    const char *name;
    json_t *unit;
    int r;

    if (!stored_is_pattern(arg)) {
        strlist_take(&found, unit_name_mangle(arg));
    } else {
        r = s->complete ? 0 : read_all(s, err);
        if (r < 0)
            return r;
        json_object_foreach(s->units, name, unit) if (matches(arg, name)) strlist_add(&found, name);
        strlist_sort(&found);
    }
    for (size_t i = 0; i < found.count; i++)
        if (!strlist_has(names, found.items[i]))
            strlist_add(names, found.items[i]);
    strlist_done(&found);
    return 0;
}

bool stored_matches(const struct strlist *args, const char *name)
{
    for (size_t i = 0; i < args->count; i++) {
        _cleanup_(freep) char *mangled = unit_name_mangle(args->items[i]);

        if (stored_is_pattern(args->items[i]) ? matches(args->items[i], name) : streq(mangled, name))
            return true;
    }
    return args->count == 0;
}

struct unit_file *stored_options(const json_t *unit)
{
    struct unit_file *file = unit_file_new();
    const json_t *option;
    size_t i;

    json_array_foreach(json_object_get(unit, "options"), i, option)
        unit_file_add(file, api_text(option, "section"), api_text(option, "name"), api_text(option, "value"));
    return file;
}

void stored_hash(const json_t *unit, char ret[static UNIT_HASH_SIZE])
{
    const char *hash = api_text(unit, "hash");
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t size;

    if (strlen(hash) == UNIT_HASH_SIZE - 1) {
        memcpy(ret, hash, UNIT_HASH_SIZE);
        return;
    }
    file = stored_options(unit);
    text = unit_file_serialize(file, &size);
    unit_hash(text, size, ret);
}

bool stored_is_global(const json_t *unit)
{
    _cleanup_(unit_file_freep) struct unit_file *file = stored_options(unit);
    _cleanup_(requirements_freep) struct requirements *r = requirements_new(file, NULL);

    return r->global;
}
