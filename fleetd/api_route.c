/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <string.h>

#include "base/cleanup.h"
#include "fleetd/api_private.h"

#define METHODS_MAX 3

struct route {
    const char *resource;
    bool item;        /* "resource/<name>". */
    unsigned refusal; /* Status and text for other methods. */
    const char *refusal_text;
    struct api_method methods[METHODS_MAX];
};

/* Everything there is (fleet-behaviour.md §4.3, fleet-api(7)), under both prefixes, and the role that each
 * needs: a viewer reads, an operator decides about units and where they run, an administrator also about who
 * belongs to the cluster, who may what, and what holds for all of it. The texts of what the
 * first fleet had are its own, also where a method came since. */
static const struct route routes[] = {
    {"discovery",
     false,
     400,
     "only HTTP GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_LOCAL, api_discovery_get, NULL}}},
    {"machines",
     false,
     405,
     "only GET and PATCH supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_machines_get},
      {"PATCH", PKI_ROLE_OPERATOR, API_CHANGE, api_machines_patch, NULL}}},
    {"machines",
     true,
     404, /* As in the first fleet, which had none. */
     "",
     {{"DELETE", PKI_ROLE_ADMIN, API_CHANGE, api_machine_delete, NULL}}},
    {"authority",
     false,
     405,
     "only GET and POST supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_authority_get},
      {"POST", PKI_ROLE_ADMIN, API_CHANGE, api_authority_post, NULL}}},
    {"join-tokens",
     false,
     405,
     "only GET and POST supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_join_tokens_get},
      {"POST", PKI_ROLE_ADMIN, API_CHANGE, api_join_tokens_post, NULL}}},
    {"join-tokens",
     true,
     405,
     "only DELETE supported against this resource",
     {{"DELETE", PKI_ROLE_ADMIN, API_CHANGE, api_join_token_delete, NULL}}},
    {"units",
     false,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_units_list},
      {"POST", PKI_ROLE_OPERATOR, API_CHANGE, api_units_post, NULL}}},
    {"units",
     true,
     405,
     "only GET, PUT and DELETE supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_unit_get},
      {"PUT", PKI_ROLE_OPERATOR, API_CHANGE, api_unit_put, NULL},
      {"DELETE", PKI_ROLE_OPERATOR, API_CHANGE, api_unit_delete, NULL}}},
    {"state",
     false,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_state_list}}},
    {"state",
     true,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_state_get}}},
    {"wait",
     false,
     405,
     "only POST supported against this resource",
     {{"POST", PKI_ROLE_VIEWER, API_WAIT, api_wait_begin, api_wait_start}}},
    {"status",
     true,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_WAIT, NULL, api_status_get}}},
    {"journal",
     true,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_WAIT, NULL, api_journal_get}}},
    {"explain",
     true,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_explain_get}}},
    {"availability",
     false,
     405,
     "only POST supported against this resource",
     {{"POST", PKI_ROLE_OPERATOR, API_CHANGE, api_machines_availability, NULL}}},
    {"confirm-lost",
     false,
     405,
     "only POST supported against this resource",
     {{"POST", PKI_ROLE_OPERATOR, API_CHANGE, api_machines_confirm_lost, NULL}}},
    {"backup",
     false,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_ADMIN, API_READ, api_backup_begin, api_backup_get}}},
    {"backup",
     true,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_ADMIN, API_READ, api_backup_piece, NULL}}},
    {"members",
     false,
     405,
     "only GET and POST supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_members_get},
      {"POST", PKI_ROLE_ADMIN, API_CHANGE, api_members_post, NULL}}},
    {"leadership",
     false,
     405,
     "only POST supported against this resource",
     {{"POST", PKI_ROLE_ADMIN, API_CHANGE, api_leadership_post, NULL}}},
    {"client-certificates",
     false,
     405,
     "only GET and POST supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_clients_get},
      {"POST", PKI_ROLE_ADMIN, API_CHANGE, api_clients_post, NULL}}},
    {"client-certificates",
     true,
     405,
     "only DELETE supported against this resource",
     {{"DELETE", PKI_ROLE_ADMIN, API_CHANGE, api_client_delete, NULL}}},
    {"level",
     false,
     405,
     "only GET supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_level_get}}},
    {"settings",
     false,
     405,
     "only GET and PATCH supported against this resource",
     {{"GET", PKI_ROLE_VIEWER, API_READ, NULL, api_settings_get},
      {"PATCH", PKI_ROLE_ADMIN, API_CHANGE, api_settings_patch, NULL}}},
};

/* What follows the prefix and its slash; "" for the prefix itself; NULL for another path. */
static const char *below_prefix(const char *path)
{
    static const char *const prefixes[] = {"/fleet/v1", "/v1-alpha"};

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        size_t size = strlen(prefixes[i]);

        if (strncmp(path, prefixes[i], size) != 0)
            continue;
        if (path[size] == '\0')
            return "";
        if (path[size] == '/' && path[size + 1] != '\0')
            return path + size + 1;
    }
    return NULL;
}

static const struct route *find_route(const char *rest, const char **ret_name)
{
    const char *slash = strchr(rest, '/');
    size_t size = slash != NULL ? (size_t)(slash - rest) : strlen(rest);
    bool item = slash != NULL;

    if (item && (slash[1] == '\0' || strchr(slash + 1, '/') != NULL))
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
        if (routes[i].item == item && strlen(routes[i].resource) == size &&
            strncmp(routes[i].resource, rest, size) == 0) {
            *ret_name = item ? slash + 1 : NULL;
            return &routes[i];
        }
    return NULL;
}

bool api_route_each(size_t index, struct api_route *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
        for (size_t j = 0; j < METHODS_MAX && routes[i].methods[j].name != NULL; j++)
            if (index-- == 0) {
                *ret = (struct api_route){routes[i].resource, routes[i].item, &routes[i].methods[j]};
                return true;
            }
    return false;
}

const struct api_method *api_route(const char *path, const char *method, const char **ret_name,
                                   unsigned *ret_status, const char **ret_text)
{
    const char *rest = below_prefix(path);
    const struct route *route;

    *ret_text = "";
    *ret_status = 405;
    if (streq(path, "/") || (rest != NULL && rest[0] == '\0'))
        return NULL;
    route = rest != NULL ? find_route(rest, ret_name) : NULL;
    if (route == NULL) {
        *ret_status = 404;
        return NULL;
    }
    for (size_t i = 0; i < METHODS_MAX && route->methods[i].name != NULL; i++)
        if (streq(route->methods[i].name, method))
            return &route->methods[i];
    *ret_status = route->refusal;
    *ret_text = route->refusal_text;
    return NULL;
}

static const struct api_method *method_of(const Fleet__ApiRequest *request)
{
    const char *name, *text;
    unsigned status;

    return api_route(request->path, request->method, &name, &status, &text);
}

static const char *first_value(const Fleet__ApiRequest *request, const char *key)
{
    for (size_t i = 0; i < request->n_query; i++)
        if (streq(request->query[i]->key, key))
            return request->query[i]->value;
    return "";
}

bool api_asks_stale(const struct api_method *method, const Fleet__ApiRequest *request)
{
    return (method->kind == API_READ || method->kind == API_WAIT) && method->begin == NULL &&
           streq(first_value(request, "stale"), "yes");
}

bool api_request_is_local(const Fleet__ApiRequest *request)
{
    const struct api_method *method = method_of(request);

    return method == NULL || method->kind == API_LOCAL || api_asks_stale(method, request);
}

bool api_request_changes(const Fleet__ApiRequest *request)
{
    const struct api_method *method = method_of(request);

    return method != NULL && method->kind == API_CHANGE;
}

bool api_request_lasts(const Fleet__ApiRequest *request)
{
    const struct api_method *method = method_of(request);

    return method != NULL && method->kind == API_WAIT;
}
