/* SPDX-License-Identifier: Apache-2.0 */
/* What hosts report of units. */
#include <config.h>

#include "fleetd/api_json.h"
#include "fleetd/api_private.h"

static json_t *state_json(const char *unit, const char *machine_id, const struct core_report *report)
{
    json_t *json = json_object();

    api_json_set_text(json, "name", unit);
    api_json_set_text(json, "machineID", machine_id);
    api_json_set_text(json, "hash", report->hash);
    api_json_set_text(json, "systemdLoadState", report->load_state);
    api_json_set_text(json, "systemdActiveState", report->active_state);
    api_json_set_text(json, "systemdSubState", report->sub_state);
    api_json_set_count(json, "generation", report->generation);
    api_json_set_text(json, "result", report->result);
    api_json_set_text(json, "error", report->error);
    return json;
}

struct listing {
    struct api_page page;
    const char *machine_id, *unit; /* Filters; "": none. */
    uint64_t count;                /* That pass the filters, so far. */
};

static void list_report(const char *unit, const char *machine_id, const struct core_report *report,
                        void *data)
{
    struct listing *listing = data;

    if ((listing->machine_id[0] != '\0' && !streq(listing->machine_id, machine_id)) ||
        (listing->unit[0] != '\0' && !streq(listing->unit, unit)))
        return;
    if (api_page_wants(&listing->page, listing->count))
        api_page_add(&listing->page, state_json(unit, machine_id, report));
    listing->count++;
}

/* Whether somebody's reports are still to come: this host does not lead, or has led only for a moment. */
static bool is_incomplete(const struct api_request *request)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &count);

    for (size_t i = 0; i < count; i++)
        if (core_machine_state(api_core(request), machines[i]->id) == MACHINE_EXPECTED)
            return true;
    return !core_leads(api_core(request));
}

/* Where units were placed is known anyhow; a state that was not reported is unknown, which is better said
 * than left out. */
static void list_known(const struct api_request *request, struct listing *listing)
{
    static const struct core_report unknown = {.load_state = (char *)"unknown",
                                               .active_state = (char *)"unknown",
                                               .sub_state = (char *)"unknown",
                                               .hash = (char *)"",
                                               .result = (char *)"",
                                               .error = (char *)""};
    const struct core *core = api_core(request);
    size_t unit_count, machine_count;
    const struct registry_unit *const *units = registry_units(api_registry(request), &unit_count);
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &machine_count);

    for (size_t i = 0; i < unit_count; i++) {
        for (size_t j = 0; j < machine_count; j++) {
            const struct core_report *report = core_report(core, machines[j]->id, units[i]->name);

            if (report == NULL && streq(units[i]->target, machines[j]->id) &&
                (!core_leads(core) || core_machine_state(core, machines[j]->id) == MACHINE_EXPECTED))
                report = &unknown;
            if (report != NULL)
                list_report(units[i]->name, machines[j]->id, report, listing);
        }
    }
}

void api_state_list(struct api_request *request)
{
    struct listing listing = {
        .machine_id = api_query(request, "machineID"),
        .unit = api_query(request, "unitName"),
    };

    if (api_request_page(request, &listing.page) < 0)
        return;
    if (is_incomplete(request))
        list_known(request, &listing);
    else
        core_reports_each(api_core(request), list_report, &listing);
    api_answer_json(request, api_page_end(&listing.page, "states", listing.count));
}

static const struct core_report *report_of(const struct core *core, const char *machine_id, const char *unit)
{
    return core_machine_state(core, machine_id) != MACHINE_LOST ? core_report(core, machine_id, unit) : NULL;
}

/* The report of the machine where the unit should be, or else of the first that has one. */
void api_state_get(struct api_request *request)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    const char *machine_id = unit != NULL ? unit->target : "";
    const struct core *core = api_core(request);
    const struct core_report *report =
        machine_id[0] != '\0' ? report_of(core, machine_id, request->name) : NULL;
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &count);

    for (size_t i = 0; report == NULL && i < count; i++) {
        machine_id = machines[i]->id;
        report = report_of(core, machine_id, request->name);
    }
    /* Not 404 where nothing is reported (yet): the first fleet's client crashes on it (§0.7). */
    api_answer_json(request, report != NULL ? state_json(request->name, machine_id, report) : json_object());
}
