/* SPDX-License-Identifier: Apache-2.0 */
/* cordon, uncordon, drain, undrain, confirm-lost, remove-machine: what a person decides about machines. */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/change.h"
#include "fleetctl/machine.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

static char *legend_of(struct ctl *ctl, const char *id)
{
    const json_t *machine = ctl_machine(ctl, id);

    return ctl_legend(ctl, id, machine != NULL ? api_text(machine, "primaryIP") : "");
}

static void say_each(struct ctl *ctl, const json_t *ids, const char *what)
{
    const json_t *id;
    size_t i;

    json_array_foreach(ids, i, id)
    {
        _cleanup_(freep) char *legend = legend_of(ctl, json_string_value(id));

        printf("Machine %s %s\n", legend, what);
    }
    fflush(stdout);
}

/* Sets the machines' availability; *ret: the names of the units that are placed on them. */
static int set_availability(struct ctl *ctl, json_t *ids, const char *availability, struct strlist *ret)
{
    _cleanup_(json_decrefp) json_t *body =
        json_pack("{s:O, s:s}", "machines", ids, "availability", availability);
    _cleanup_(json_decrefp) json_t *reply = NULL;
    const json_t *name;
    struct err err = {0};
    size_t i;
    int r = api_call(ctl->api, "POST", "availability", body, 0, &reply, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error changing the machines' availability");
    json_array_foreach(json_object_get(reply, "units"), i, name)
        strlist_add(ret, json_string_value(name) != NULL ? json_string_value(name) : "");
    return CTL_EXIT_DONE;
}

static int change(struct ctl *ctl, const struct strlist *args, const char *availability, const char *what)
{
    _cleanup_(json_decrefp) json_t *ids = json_array();
    _cleanup_(strlist_done) struct strlist units = {0};
    int code = machine_read_ids(ctl, args, ids);

    if (code == CTL_EXIT_DONE)
        code = set_availability(ctl, ids, availability, &units);
    if (code == CTL_EXIT_DONE)
        say_each(ctl, ids, what);
    return code;
}

int verb_cordon(struct ctl *ctl, const struct strlist *args)
{
    return change(ctl, args, "cordoned", "cordoned");
}

int verb_uncordon(struct ctl *ctl, const struct strlist *args)
{
    return change(ctl, args, "active", "takes new units");
}

int verb_undrain(struct ctl *ctl, const struct strlist *args)
{
    return verb_uncordon(ctl, args);
}

int verb_drain(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *ids = json_array();
    _cleanup_(strlist_done) struct strlist units = {0};
    int code = machine_read_ids(ctl, args, ids);

    if (code == CTL_EXIT_DONE)
        code = set_availability(ctl, ids, "draining", &units);
    if (code != CTL_EXIT_DONE)
        return code;
    if (ctl->options.no_block) {
        say_each(ctl, ids, "is being drained");
        return CTL_EXIT_DONE;
    }
    code = units.count > 0 ? wait_until_elsewhere(ctl, &units, ids) : CTL_EXIT_DONE;
    if (code == CTL_EXIT_DONE)
        say_each(ctl, ids, "drained");
    return code;
}

int verb_confirm_lost(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *ids = json_array(), *body = NULL;
    struct err err = {0};
    int code = machine_read_ids(ctl, args, ids), r;

    if (code != CTL_EXIT_DONE)
        return code;
    body = json_pack("{s:O}", "machines", ids);
    r = api_call(ctl->api, "POST", "confirm-lost", body, 0, NULL, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error confirming that machines are lost");
    say_each(ctl, ids, "is lost: its units are placed on others");
    return CTL_EXIT_DONE;
}

/* One after the other: what stands in the way of one is no reason to keep the others. */
int verb_remove_machine(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *ids = json_array();
    const json_t *id;
    size_t i;
    int code = machine_read_ids(ctl, args, ids);

    if (code != CTL_EXIT_DONE)
        return code;
    json_array_foreach(ids, i, id)
    {
        _cleanup_(freep) char *legend = legend_of(ctl, json_string_value(id));
        _cleanup_(freep) char *path =
            xasprintf("machines/%s%s", json_string_value(id), ctl->options.force ? "?force=yes" : "");
        struct err err = {0};
        int r = api_call(ctl->api, "DELETE", path, NULL, 0, NULL, &err);

        if (r < 0) {
            code = ctl_fail(&err, r, "Error removing machine %s", legend);
            continue;
        }
        printf("Machine %s removed\n", legend);
        fflush(stdout);
    }
    return code;
}
