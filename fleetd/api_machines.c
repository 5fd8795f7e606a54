/* SPDX-License-Identifier: Apache-2.0 */
/* The machines, and why a unit does or does not fit on each. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"

/* ---- how much a machine has ---- */

struct load_machine {
    char id[MACHINE_ID_SIZE];
    size_t count;
    UT_hash_handle hh;
};

struct api_load {
    struct load_machine *machines; /* An array... */
    struct load_machine *by_id;    /* ...and a hash over it. */
};

static void count_global(struct api_load *load, size_t machine_count, const struct core *core,
                         const struct registry_unit *unit)
{
    for (size_t i = 0; i < machine_count; i++)
        load->machines[i].count += core_machine_wants(core, load->machines[i].id, unit);
}

struct api_load *api_load_new(const struct registry *registry, const struct core *core)
{
    struct api_load *load = NEW0(struct api_load);
    size_t machine_count, unit_count;
    const struct registry_machine *const *machines = registry_machines(registry, &machine_count);
    const struct registry_unit *const *units = registry_units(registry, &unit_count);
    struct load_machine *machine;

    load->machines = xcalloc(machine_count, sizeof *load->machines);
    for (size_t i = 0; i < machine_count; i++) {
        machine = &load->machines[i];
        memcpy(machine->id, machines[i]->id, sizeof machine->id);
        HASH_ADD_STR(load->by_id, id, machine);
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (units[i]->requirements->global) {
            count_global(load, machine_count, core, units[i]);
            continue;
        }
        HASH_FIND_STR(load->by_id, units[i]->target, machine);
        if (machine != NULL)
            machine->count++;
    }
    return load;
}

size_t api_load_of(const struct api_load *load, const char *machine_id)
{
    struct load_machine *machine;

    HASH_FIND_STR(load->by_id, machine_id, machine);
    return machine != NULL ? machine->count : 0;
}

void api_load_free(struct api_load *load)
{
    if (load == NULL)
        return;
    HASH_CLEAR(hh, load->by_id);
    free(load->machines);
    free(load);
}

/* ---- the list ---- */

const char *api_machine_state(const struct core *core, const struct registry_machine *machine)
{
    enum machine_state state;

    if (!core_leads(core))
        return "";
    state = core_machine_state(core, machine->id);
    if (state != MACHINE_LOST && state != MACHINE_READY && machine->daemon_stopped)
        return "stopped"; /* fleetd there; more is to be said of it only if the machine goes, too. */
    if ((state == MACHINE_READY || state == MACHINE_SUSPECTED) && core_machine_shuts_down(core, machine->id))
        return "shutting-down";
    /* What the leader expects to call is, for a user, on its way. */
    return state == MACHINE_EXPECTED ? "joining" : machine_state_to_string(state);
}

static json_t *machine_json(const struct core *core, const struct api_load *load,
                            const struct registry_machine *machine)
{
    json_t *json = json_object(), *metadata = json_object();

    for (size_t i = 0; i < machine->label_count; i++)
        if (json_object_set_new(metadata, machine->labels[i].key, api_json_text(machine->labels[i].value)) <
            0)
            continue; /* A key that is not UTF-8 cannot be shown. */
    if (json_object_size(metadata) > 0)
        json_object_set_new(json, "metadata", metadata);
    else
        json_decref(metadata);
    api_json_set_text(json, "id", machine->id);
    api_json_set_text(json, "primaryIP", machine->public_ip);
    api_json_set_text(json, "hostname", machine->hostname);
    api_json_set_text(json, "address", machine->cluster_address);
    api_json_set_text(json, "version", machine->version);
    if (machine->level > 0)
        api_json_set_count(json, "featureLevel", machine->level);
    api_json_set_text(json, "state", api_machine_state(core, machine));
    if (machine->availability != MACHINE_ACTIVE)
        api_json_set_text(json, "availability", api_availability(machine));
    api_json_set_count(json, "units", api_load_of(load, machine->id));
    return json;
}

/* Clients of the first fleet know only machines that are alive: those that are lost, or would be but for the
 * brake, are listed for who asks for them. */
static const struct registry_machine **listed_machines(const struct api_request *request, size_t *ret_count)
{
    size_t count, listed = 0;
    const struct registry_machine *const *all = registry_machines(api_registry(request), &count);
    const struct registry_machine **machines = xcalloc(count, sizeof *machines);
    bool lost_too = streq(api_query(request, "lost"), "yes");

    for (size_t i = 0; i < count; i++)
        if (lost_too || core_machine_state(api_core(request), all[i]->id) < MACHINE_MISSING)
            machines[listed++] = all[i];
    *ret_count = listed;
    return machines;
}

void api_machines_get(struct api_request *request)
{
    _cleanup_(api_load_freep) struct api_load *load = NULL;
    _cleanup_(freep) const struct registry_machine **machines = NULL;
    struct api_page page;
    size_t count;

    if (api_request_page(request, &page) < 0)
        return;
    load = api_load_new(api_registry(request), api_core(request));
    machines = listed_machines(request, &count);
    for (uint64_t i = page.first; i < count && api_page_wants(&page, i); i++)
        api_page_add(&page, machine_json(api_core(request), load, machines[i]));
    api_answer_json(request, api_page_end(&page, "machines", count));
}

/* ---- explaining ---- */

static json_t *explanation_json(const struct core *core, const struct api_load *load,
                                const struct registry_unit *unit)
{
    json_t *list = json_array();
    size_t count;
    struct core_status_machine *machines = core_explain(core, unit, &count);

    for (size_t i = 0; i < count; i++) {
        json_t *json = json_object();

        api_json_set_text(json, "machineID", machines[i].machine_id);
        api_json_set_text(json, "hostname", machines[i].hostname);
        api_json_set_count(json, "units", api_load_of(load, machines[i].machine_id));
        json_object_set_new(json, "reason", api_json_text(machines[i].reason)); /* "": it fits. */
        json_array_append_new(list, json);
    }
    core_explain_free(machines, count);
    return list;
}

void api_explain_get(struct api_request *request)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    _cleanup_(api_load_freep) struct api_load *load = NULL;
    _cleanup_(core_status_freep) struct core_status *status = NULL;
    const struct core *core = api_core(request);
    json_t *json;

    if (unit == NULL) {
        api_answer_error(request, 404, "unit does not exist");
        return;
    }
    load = api_load_new(api_registry(request), core);
    if (core_leads(core))
        status = core_status_new(core, unit->name);
    json = json_object();
    api_json_set_text(json, "name", unit->name);
    api_json_set_text(json, "target", unit->target);
    api_json_set_text(json, "reason",
                      status != NULL && status->reason[0] != '\0' ? status->reason : unit->reason);
    api_json_set_array(json, "machines", explanation_json(core, load, unit));
    api_answer_json(request, json);
}
