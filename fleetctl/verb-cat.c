/* SPDX-License-Identifier: Apache-2.0 */
/* cat, explain: about one stored unit. */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"
#include "units/name.h"

/* GETs "<resource>/<unit>". */
static int read_unit(struct ctl *ctl, const char *resource, const char *name, json_t **ret)
{
    _cleanup_(freep) char *escaped = api_escape(name), *path = xasprintf("%s/%s", resource, escaped);
    struct err err = {0};
    int r = ctl_read(ctl, path, ret, &err);

    if (r == -ENOENT) {
        complain("Unit %s not found", name);
        return CTL_EXIT_NO_UNIT;
    }
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving Unit %s", name);
    return CTL_EXIT_DONE;
}

int verb_cat(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(freep) char *name = unit_name_mangle(args->items[0]), *text = NULL;
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(json_decrefp) json_t *unit = NULL;
    size_t size;
    int code = read_unit(ctl, "units", name, &unit);

    if (code != CTL_EXIT_DONE)
        return code;
    file = stored_options(unit);
    text = unit_file_serialize(file, &size);
    fwrite(text, 1, size, stdout);
    return CTL_EXIT_DONE;
}

static void print_explanation(struct ctl *ctl, const char *name, const json_t *answer)
{
    const char *target = api_text(answer, "target"), *reason = api_text(answer, "reason");
    _cleanup_(freep) char *legend = listing_legend(ctl, target);
    struct table t = {.column_count = 4};
    _cleanup_(freep) char *text = NULL;
    const json_t *machine;
    size_t i;

    printf("%s is %s%s%s%s\n\n", name, legend[0] != '\0' ? "on " : "on no machine", legend,
           reason[0] != '\0' ? ": " : "", reason);
    table_add(&t, "MACHINE");
    table_add(&t, "HOSTNAME");
    table_add(&t, "UNITS");
    table_add(&t, "REASON");
    json_array_foreach(json_object_get(answer, "machines"), i, machine)
    {
        const char *id = api_text(machine, "machineID"), *why = api_text(machine, "reason");
        _cleanup_(freep) char *short_id = ctl_legend(ctl, id, ""), *units = listing_number(machine, "units");

        table_add(&t, short_id);
        table_add(&t, api_text(machine, "hostname")[0] != '\0' ? api_text(machine, "hostname") : "-");
        table_add(&t, units[0] != '\0' ? units : "-");
        table_add(&t, why[0] != '\0' ? why : streq(id, target) ? "runs here" : "would fit");
    }
    text = table_render(&t);
    fputs(text, stdout);
    table_done(&t);
}

int verb_explain(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(freep) char *name = unit_name_mangle(args->items[0]);
    _cleanup_(json_decrefp) json_t *answer = NULL;
    int code = read_unit(ctl, "explain", name, &answer);

    if (code != CTL_EXIT_DONE)
        return code;
    if (ctl->options.output != OUTPUT_TEXT)
        listing_print_json(ctl, answer);
    else
        print_explanation(ctl, name, answer);
    return CTL_EXIT_DONE;
}
