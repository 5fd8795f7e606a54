/* SPDX-License-Identifier: Apache-2.0 */
/* list-machines. */
#include <config.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

/* --- Machines --- */

static char *cell_machine(struct ctl *ctl, const json_t *entity)
{
    return ctl_legend(ctl, api_text(entity, "id"), "");
}

LISTING_TEXT_CELL(cell_ip, "primaryIP")
LISTING_TEXT_CELL(cell_hostname, "hostname")
LISTING_TEXT_CELL(cell_state, "state")
LISTING_TEXT_CELL(cell_address, "address")
LISTING_TEXT_CELL(cell_version, "version")

static char *cell_level(struct ctl *ctl, const json_t *entity)
{
    return listing_number(entity, "featureLevel");
}

static const char *availability_of(const json_t *entity)
{
    const char *word = api_text(entity, "availability");

    return word[0] != '\0' ? word : "active"; /* What is usual is left out. */
}

static char *cell_availability(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(availability_of(entity));
}

static char *cell_units(struct ctl *ctl, const json_t *entity)
{
    return listing_number(entity, "units");
}

static char *cell_metadata(struct ctl *ctl, const json_t *entity)
{
    json_t *metadata = json_object_get(entity, "metadata"), *value;
    struct strlist keys = {0};
    struct strbuf b = {0};
    const char *key;

    json_object_foreach(metadata, key, value) strlist_add(&keys, key);
    strlist_sort(&keys);
    for (size_t i = 0; i < keys.count; i++)
        strbuf_addf(&b, "%s%s=%s", i > 0 ? "," : "", keys.items[i], api_text(metadata, keys.items[i]));
    strlist_done(&keys);
    return strbuf_take(&b);
}

static json_t *machine_to_json(struct ctl *ctl, const json_t *entity)
{
    const json_t *metadata = json_object_get(entity, "metadata");

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "availability",
                     availability_of(entity), "machine", api_text(entity, "id"), "ip",
                     api_text(entity, "primaryIP"), "hostname", api_text(entity, "hostname"), "state",
                     api_text(entity, "state"), "address", api_text(entity, "address"), "version",
                     api_text(entity, "version"), "level",
                     json_integer_value(json_object_get(entity, "featureLevel")), "units",
                     json_integer_value(json_object_get(entity, "units")), "metadata",
                     json_is_object(metadata) ? json_deep_copy(metadata) : json_object());
}

static const struct listing_field machine_fields[] = {
    {"machine", cell_machine},   {"ip", cell_ip},           {"metadata", cell_metadata},
    {"hostname", cell_hostname}, {"state", cell_state},     {"address", cell_address},
    {"units", cell_units},       {"version", cell_version}, {"availability", cell_availability},
    {"level", cell_level},
};

static const struct listing machines = {machine_fields, ARRAY_SIZE(machine_fields), "machine,ip,metadata",
                                        machine_to_json};

/* The brake holds: that is news for whoever looks at machines, in whatever form. */
static void say_missing(const json_t *list)
{
    const json_t *machine;
    size_t missing = 0, i;

    json_array_foreach(list, i, machine) missing += streq(api_text(machine, "state"), "missing");
    if (missing > 0)
        complain(
            "WARNING: %zu of %zu machines are missing, all at once: their units are not started elsewhere "
            "until "
            "enough of them are back, or you say that they will not be (fleetctl confirm-lost MACHINE...)",
            missing, json_array_size(list));
}

static json_int_t level_of(const json_t *machine)
{
    return json_integer_value(json_object_get(machine, "featureLevel"));
}

/* While two versions work together, what is new in one waits for the hosts that have the other. */
static void say_waiting(struct ctl *ctl, const json_t *list)
{
    _cleanup_(json_decrefp) json_t *level = NULL;
    _cleanup_(strbuf_done) struct strbuf behind = {0};
    const json_t *machine, *row;
    json_int_t newest = 0;
    struct err err = {0};
    size_t i, count = 0;

    json_array_foreach(list, i, machine) newest = level_of(machine) > newest ? level_of(machine) : newest;
    json_array_foreach(list, i, machine) if (level_of(machine) < newest)
        strbuf_addf(&behind, "%s%s (%s)", count++ > 0 ? ", " : "", api_text(machine, "hostname"),
                    api_text(machine, "version"));
    if (count == 0 || ctl_read(ctl, "level", &level, &err) < 0) /* Who leads may be the old one. */
        return;
    json_array_foreach(json_object_get(level, "waits"), i, row)
        complain("What came with fleet %s waits until %s %s upgraded: %s", api_text(row, "version"),
                 behind.text, count == 1 ? "is" : "are", api_text(row, "features"));
}

/* Scripts take every line for a machine that is alive, as the first fleet listed them (§1.8); so one that is
 * lost is told to the person instead. Who asks for the state, or for JSON, which has it, gets all. */
static void take_out_lost(struct ctl *ctl, json_t *list)
{
    if (ctl->options.output != OUTPUT_TEXT ||
        (ctl->options.fields != NULL && strstr(ctl->options.fields, "state") != NULL))
        return;
    for (size_t i = json_array_size(list); i-- > 0;) {
        const json_t *machine = json_array_get(list, i);
        _cleanup_(freep) char *legend = ctl_legend(ctl, api_text(machine, "id"), "");

        if (!streq(api_text(machine, "state"), "lost") && !streq(api_text(machine, "state"), "missing"))
            continue;
        complain("Machine %s (%s) is %s and not listed; --fields=machine,hostname,state shows all", legend,
                 api_text(machine, "hostname"), api_text(machine, "state"));
        json_array_remove(list, i);
    }
}

int verb_list_machines(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *list = NULL;
    struct err err = {0};
    int r = listing_check(ctl, &machines);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read_all(ctl, "machines?lost=yes", "machines", true, &list, &err);
    if (r < 0) {
        complain("Error retrieving list of active machines from fleet API (%s)", err_text(&err, r));
        return CTL_EXIT_FAILED;
    }
    say_missing(list);
    say_waiting(ctl, list);
    take_out_lost(ctl, list);
    return listing_print(ctl, &machines, list);
}
