/* SPDX-License-Identifier: Apache-2.0 */
/* list-units (what machines report) and list-unit-files (what is stored). */
#include <config.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"

#define HASH_SHORT 7

LISTING_TEXT_CELL(cell_name, "name")

static char *shorten_hash(const struct ctl *ctl, const char *hash)
{
    return xstrndup(hash, ctl->options.full ? strlen(hash) : strnlen(hash, HASH_SHORT));
}

/* Prints the items of 'resource' whose names the arguments mean. */
static int list(struct ctl *ctl, const struct listing *l, const struct strlist *args, const char *resource,
                const char *key)
{
    _cleanup_(json_decrefp) json_t *all = NULL, *wanted = json_array();
    struct err err = {0};
    json_t *entity;
    size_t i;
    int r = listing_check(ctl, l);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read_all(ctl, resource, key, true, &all, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving list of units from repository");
    json_array_foreach(all, i, entity) if (stored_matches(args, api_text(entity, "name")))
        json_array_append(wanted, entity);
    return listing_print(ctl, l, wanted);
}

/* --- list-units --- */

LISTING_TEXT_CELL(cell_load, "systemdLoadState")
LISTING_TEXT_CELL(cell_active, "systemdActiveState")
LISTING_TEXT_CELL(cell_sub, "systemdSubState")
LISTING_TEXT_CELL(cell_result, "result")
LISTING_TEXT_CELL(cell_error, "error")

static char *cell_machine(struct ctl *ctl, const json_t *entity)
{
    return listing_legend(ctl, api_text(entity, "machineID"));
}

static char *cell_state_hash(struct ctl *ctl, const json_t *entity)
{
    return shorten_hash(ctl, api_text(entity, "hash"));
}

static json_t *state_to_json(struct ctl *ctl, const json_t *entity)
{
    const json_t *machine = ctl_machine(ctl, api_text(entity, "machineID"));

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "unit", api_text(entity, "name"),
                     "load", api_text(entity, "systemdLoadState"), "active",
                     api_text(entity, "systemdActiveState"), "sub", api_text(entity, "systemdSubState"),
                     "machine", api_text(entity, "machineID"), "ip", api_text(machine, "primaryIP"),
                     "hostname", api_text(machine, "hostname"), "hash", api_text(entity, "hash"), "result",
                     api_text(entity, "result"), "error", api_text(entity, "error"));
}

static const struct listing_field state_fields[] = {
    {"unit", cell_name},       {"load", cell_load},       {"active", cell_active}, {"sub", cell_sub},
    {"machine", cell_machine}, {"hash", cell_state_hash}, {"result", cell_result}, {"error", cell_error},
};

static const struct listing states = {state_fields, ARRAY_SIZE(state_fields), "unit,machine,active,sub",
                                      state_to_json};

int verb_list_units(struct ctl *ctl, const struct strlist *args)
{
    return list(ctl, &states, args, "state", "states");
}

/* --- list-unit-files --- */

LISTING_TEXT_CELL(cell_desired, "desiredState")
LISTING_TEXT_CELL(cell_reason, "reason")

static char *cell_file_hash(struct ctl *ctl, const json_t *entity)
{
    char hash[UNIT_HASH_SIZE];

    stored_hash(entity, hash);
    return shorten_hash(ctl, hash);
}

static char *cell_state(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(stored_is_global(entity) ? "" : api_text(entity, "currentState"));
}

static char *cell_target(struct ctl *ctl, const json_t *entity)
{
    return stored_is_global(entity) ? xstrdup("global") : cell_machine(ctl, entity);
}

static char *cell_global(struct ctl *ctl, const json_t *entity)
{
    return xstrdup(stored_is_global(entity) ? "true" : "false");
}

static char *description(const json_t *entity)
{
    _cleanup_(unit_file_freep) struct unit_file *file = stored_options(entity);
    const char *text = unit_file_get(file, "Unit", "Description");

    return xstrdup(text != NULL ? text : "");
}

static char *cell_desc(struct ctl *ctl, const json_t *entity)
{
    return description(entity);
}

static json_t *file_to_json(struct ctl *ctl, const json_t *entity)
{
    const json_t *machine = ctl_machine(ctl, api_text(entity, "machineID"));
    _cleanup_(freep) char *desc = description(entity);
    char hash[UNIT_HASH_SIZE];

    stored_hash(entity, hash);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:s}", "unit", api_text(entity, "name"), "hash",
        hash, "dstate", api_text(entity, "desiredState"), "state", api_text(entity, "currentState"), "target",
        api_text(entity, "machineID"), "ip", api_text(machine, "primaryIP"), "hostname",
        api_text(machine, "hostname"), "global", stored_is_global(entity), "desc", desc, "generation",
        json_integer_value(json_object_get(entity, "generation")), "reason", api_text(entity, "reason"));
}

static const struct listing_field file_fields[] = {
    {"unit", cell_name},     {"hash", cell_file_hash}, {"dstate", cell_desired},
    {"state", cell_state},   {"target", cell_target},  {"tmachine", cell_target},
    {"global", cell_global}, {"desc", cell_desc},      {"reason", cell_reason},
};

static const struct listing files = {file_fields, ARRAY_SIZE(file_fields), "unit,hash,dstate,state,target",
                                     file_to_json};

int verb_list_unit_files(struct ctl *ctl, const struct strlist *args)
{
    if (ctl->options.fields != NULL && strstr(ctl->options.fields, "tmachine") != NULL)
        complain("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
    return list(ctl, &files, args, "units", "units");
}
