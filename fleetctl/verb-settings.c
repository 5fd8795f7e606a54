/* SPDX-License-Identifier: Apache-2.0 */
/* list-settings, set: what holds for the whole cluster. Which settings there are, and what they may be, only
 * the cluster knows. */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

LISTING_TEXT_CELL(cell_name, "name")
LISTING_TEXT_CELL(cell_value, "value")
LISTING_TEXT_CELL(cell_default, "default")
LISTING_TEXT_CELL(cell_limits, "limits")
LISTING_TEXT_CELL(cell_meaning, "meaning")

static json_t *setting_to_json(struct ctl *ctl, const json_t *entity)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", api_text(entity, "name"), "value",
                     api_text(entity, "value"), "default", api_text(entity, "default"), "limits",
                     api_text(entity, "limits"), "meaning", api_text(entity, "meaning"));
}

static const struct listing_field fields[] = {
    {"name", cell_name},     {"value", cell_value},     {"default", cell_default},
    {"limits", cell_limits}, {"meaning", cell_meaning},
};

static const struct listing settings = {fields, ARRAY_SIZE(fields), "name,value,default,meaning",
                                        setting_to_json};

/* A fleetd from before there were any answers so. */
static int fail(struct err *err, int code, const char *what)
{
    if (code == -ENOENT)
        err_set(err, code, "the fleetd that leads has no settings yet: upgrade it");
    return ctl_fail(err, code, "%s", what);
}

int verb_list_settings(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *list = NULL;
    struct err err = {0};
    int r = listing_check(ctl, &settings);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read_all(ctl, "settings", "settings", true, &list, &err);
    if (r < 0)
        return fail(&err, r, "Error retrieving the cluster's settings");
    return listing_print(ctl, &settings, list);
}

/* NAME=VALUE, or NAME= for the default. */
static int read_assignment(const char *arg, json_t *values)
{
    const char *equals = strchr(arg, '=');
    _cleanup_(freep) char *name = equals != NULL ? xstrndup(arg, (size_t)(equals - arg)) : NULL;
    json_t *value;

    if (name == NULL || name[0] == '\0') {
        complain("\"%s\" is no NAME=VALUE", arg);
        return CTL_EXIT_USAGE;
    }
    if (json_object_get(values, name) != NULL) {
        complain("%s is given twice", name);
        return CTL_EXIT_USAGE;
    }
    value = equals[1] == '\0' ? json_null() : json_string(equals + 1);
    if (value == NULL || json_object_set_new(values, name, value) < 0) {
        complain("A setting that is not UTF-8 is given");
        return CTL_EXIT_USAGE;
    }
    return CTL_EXIT_DONE;
}

static void say_each(const json_t *values, const json_t *reply)
{
    const json_t *setting;
    size_t i;

    json_array_foreach(json_object_get(reply, "settings"), i, setting)
    {
        const char *name = api_text(setting, "name");

        if (json_object_get(values, name) != NULL)
            printf("%s=%s\n", name, api_text(setting, "value"));
    }
    fflush(stdout);
}

int verb_set(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *values = json_object(), *body = NULL, *reply = NULL;
    struct err err = {0};
    int r;

    for (size_t i = 0; i < args->count; i++) {
        r = read_assignment(args->items[i], values);
        if (r != CTL_EXIT_DONE)
            return r;
    }
    body = json_pack("{s:O}", "settings", values);
    r = api_call(ctl->api, "PATCH", "settings", body, 0, &reply, &err);
    if (r < 0)
        return fail(&err, r, "Error changing the cluster's settings");
    say_each(values, reply);
    return CTL_EXIT_DONE;
}
