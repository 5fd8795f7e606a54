/* SPDX-License-Identifier: Apache-2.0 */
/* The discovery document of the first fleet (fleet-behaviour.md §4.7), for clients that generate themselves
 * from it. It never changes. */
#include <config.h>

#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"

/* ---- schemas ---- */

struct property {
    const char *name;
    const char *type; /* PLAIN, STATE or REQUIRED: a string; otherwise an array of that schema. */
};

#define PLAIN    "string"
#define STATE    "state" /* One of the three. */
#define REQUIRED "required"

static const struct schema {
    const char *id;
    struct property properties[6];
} schemas[] = {
    {"Machine", {{"id", PLAIN}, {"primaryIP", PLAIN}}},
    {"MachinePage", {{"machines", "Machine"}, {"nextPageToken", PLAIN}}},
    {"UnitOption", {{"section", PLAIN}, {"name", PLAIN}, {"value", PLAIN}}},
    {"Unit",
     {{"name", PLAIN},
      {"options", "UnitOption"},
      {"desiredState", STATE},
      {"currentState", STATE},
      {"machineID", REQUIRED}}},
    {"UnitPage", {{"units", "Unit"}, {"nextPageToken", PLAIN}}},
    {"UnitState",
     {{"name", PLAIN},
      {"hash", PLAIN},
      {"machineID", PLAIN},
      {"systemdLoadState", PLAIN},
      {"systemdActiveState", PLAIN},
      {"systemdSubState", PLAIN}}},
    {"UnitStatePage", {{"states", "UnitState"}, {"nextPageToken", PLAIN}}},
};

static json_t *property_json(const struct property *property)
{
    if (streq(property->type, PLAIN))
        return json_pack("{s:s}", "type", "string");
    if (streq(property->type, STATE))
        return json_pack("{s:s, s:[s, s, s]}", "type", "string", "enum", "inactive", "loaded", "launched");
    if (streq(property->type, REQUIRED))
        return json_pack("{s:s, s:b}", "type", "string", "required", 1);
    return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "$ref", property->type);
}

static json_t *schemas_json(void)
{
    json_t *all = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(schemas); i++) {
        json_t *properties = json_object();

        for (size_t j = 0; j < ARRAY_SIZE(schemas[i].properties); j++)
            if (schemas[i].properties[j].name != NULL)
                json_object_set_new(properties, schemas[i].properties[j].name,
                                    property_json(&schemas[i].properties[j]));
        if (streq(schemas[i].id, "Machine"))
            json_object_set_new(properties, "metadata",
                                json_pack("{s:s, s:{}, s:{s:s}}", "type", "object", "properties",
                                          "additionalProperties", "type", "string"));
        json_object_set_new(
            all, schemas[i].id,
            json_pack("{s:s, s:s, s:o}", "id", schemas[i].id, "type", "object", "properties", properties));
    }
    return all;
}

/* ---- methods ---- */

static const struct method {
    const char *resource, *name, *id, *http, *path, *description;
    const char *query[3]; /* Parameters. */
    const char *request, *response;
} methods[] = {
    {"Machines",
     "List",
     "fleet.Machine.List",
     "GET",
     "machines",
     "A page of the machines that are alive.",
     {"nextPageToken"},
     NULL,
     "MachinePage"},
    {"Units",
     "List",
     "fleet.Unit.List",
     "GET",
     "units",
     "A page of the units.",
     {"nextPageToken"},
     NULL,
     "UnitPage"},
    {"Units", "Get", "fleet.Unit.Get", "GET", "units/{unitName}", "One unit.", {NULL}, NULL, "Unit"},
    {"Units",
     "Delete",
     "fleet.Unit.Delete",
     "DELETE",
     "units/{unitName}",
     "Destroys a unit.",
     {NULL},
     NULL,
     NULL},
    {"Units",
     "Set",
     "fleet.Unit.Set",
     "PUT",
     "units/{unitName}",
     "Creates or replaces a unit, or changes its desired state.",
     {NULL},
     "Unit",
     NULL},
    {"UnitState",
     "Get",
     "fleet.UnitState.Get",
     "GET",
     "state/{unitName}",
     "What systemd says of a unit.",
     {NULL},
     NULL,
     "UnitState"},
    {"UnitState",
     "List",
     "fleet.UnitState.List",
     "GET",
     "state",
     "A page of what systemd says of units, each on each machine.",
     {"nextPageToken", "unitName", "machineID"},
     NULL,
     "UnitStatePage"},
};

static json_t *method_json(const struct method *method)
{
    json_t *parameters = json_object();
    json_t *json = json_pack("{s:s, s:s, s:s, s:s}", "id", method->id, "description", method->description,
                             "httpMethod", method->http, "path", method->path);

    for (size_t i = 0; i < ARRAY_SIZE(method->query); i++)
        if (method->query[i] != NULL)
            json_object_set_new(parameters, method->query[i],
                                json_pack("{s:s, s:s}", "type", "string", "location", "query"));
    if (method->query[0] == NULL) {
        json_object_set_new(
            parameters, "unitName",
            json_pack("{s:s, s:s, s:b}", "type", "string", "location", "path", "required", 1));
        json_object_set_new(json, "parameterOrder", json_pack("[s]", "unitName"));
    }
    json_object_set_new(json, "parameters", parameters);
    if (method->request != NULL)
        json_object_set_new(json, "request", json_pack("{s:s}", "$ref", method->request));
    if (method->response != NULL)
        json_object_set_new(json, "response", json_pack("{s:s}", "$ref", method->response));
    return json;
}

static json_t *resources_json(void)
{
    json_t *all = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        json_t *resource = json_object_get(all, methods[i].resource);

        if (resource == NULL) {
            json_object_set_new(all, methods[i].resource, json_pack("{s:{}}", "methods"));
            resource = json_object_get(all, methods[i].resource);
        }
        json_object_set_new(json_object_get(resource, "methods"), methods[i].name, method_json(&methods[i]));
    }
    return all;
}

void api_discovery_get(struct api_request *request, const Fleet__ApiRequest *message)
{
    static const char *const texts[][2] = {
        {"kind", "discovery#restDescription"},
        {"discoveryVersion", "v1"},
        {"id", "fleet:v1"},
        {"name", "schema"},
        {"version", "v1"},
        {"title", "fleet API"},
        {"description", ""},
        {"documentationLink", "http://github.com/coreos/fleet"},
        {"protocol", "rest"},
        {"baseUrl", "$ENDPOINT/fleet/v1/"},
        {"basePath", "/fleet/v1/"},
        {"rootUrl", "$ENDPOINT/"},
        {"servicePath", "fleet/v1/"},
        {"batchPath", "batch"},
    };
    json_t *document = json_pack("{s:{s:s, s:s}, s:[], s:{}, s:{}}", "icons", "x16", "", "x32", "", "labels",
                                 "parameters", "auth");

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        json_object_set_new(document, texts[i][0], json_string(texts[i][1]));
    json_object_set_new(document, "schemas", schemas_json());
    json_object_set_new(document, "resources", resources_json());
    api_answer_json(request, document);
}
