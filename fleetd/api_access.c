/* SPDX-License-Identifier: Apache-2.0 */
/* What the leader knows of who asks, and what it writes down of it. What that comes to: access.c. */
#include <config.h>

#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"
#include "raftstore/registry_clients.h"
#include "raftstore/registry_security.h"

_Static_assert(CLIENT_NAME_BYTES == PKI_ID_SIZE && CLIENT_SERIAL_BYTES == PKI_SERIAL_SIZE,
               "what a certificate says fits the registry");

enum access_certificate api_certificate(const struct registry *registry, const struct access_caller *caller,
                                        uint64_t wall_ms)
{
    const struct registry_client *client = registry_client(registry, caller->serial);

    if (client == NULL || !streq(client->name, caller->name) || client->role != (uint32_t)caller->role)
        return ACCESS_CERTIFICATE_UNKNOWN;
    if (client->revoked)
        return ACCESS_CERTIFICATE_REVOKED;
    return wall_ms >= client->expires_wall_ms ? ACCESS_CERTIFICATE_EXPIRED : ACCESS_CERTIFICATE_VALID;
}

enum pki_role api_host_role(const struct registry *registry, const struct store_server *servers, size_t count,
                            const char *machine_id)
{
    const struct registry_machine *machine = registry_machine(registry, machine_id);

    if (machine == NULL || !machine->registered)
        return PKI_ROLE_NONE;
    for (size_t i = 0; i < count; i++)
        if (servers[i].id == machine->server_id &&
            (servers[i].role == SERVER_VOTER || servers[i].role == SERVER_STANDBY))
            return PKI_ROLE_ADMIN;
    return (enum pki_role)registry_setting_number(registry, SETTING_HOST_ROLE);
}

static const char *host_name(const struct registry *registry, const char *machine_id)
{
    const struct registry_machine *machine = registry_machine(registry, machine_id);

    return machine != NULL && machine->registered ? machine->hostname : machine_id;
}

/* Its session may go on, for what it still has to stop. (The registry does not remember all.) */
static bool is_removed(const struct api *api, const struct registry *registry, const char *machine_id)
{
    const struct registry_machine *machine = registry_machine(registry, machine_id);

    if (machine != NULL && machine->registered)
        return false;
    return registry_removed(registry, machine_id) != NULL ||
           core_machine_leaves(api->backend.core(api->data), machine_id);
}

int api_admit(const struct api_request *request, enum pki_role needed, struct err *err)
{
    const struct api *api = request->api;
    const struct registry *registry = api_registry(request);
    struct access_facts facts = {
        .secure = api->backend.secure(api->data), .via = "", .via_role = PKI_ROLE_ADMIN};
    struct store_server servers[RAFT_SERVERS_MAX];

    if (request->via != NULL) {
        if (is_removed(api, registry, request->via))
            return err_set(err, -EACCES,
                           "this host was removed from the cluster: nothing is done for it any more");
        facts.via = host_name(registry, request->via);
        facts.via_role = api_host_role(
            registry, servers, api->backend.servers(servers, RAFT_SERVERS_MAX, api->data), request->via);
    }
    if (request->via == NULL && !registry_is_secure(registry))
        facts.certificate = ACCESS_CERTIFICATE_UNCHECKED; /* There is nothing in this registry. */
    else
        facts.certificate = api_certificate(registry, &request->caller, api->backend.wall_ms(api->data));
    return access_check(&request->caller, &facts, needed, err);
}

/* Who asked a host that was not the leader any more, or was it no longer when it was to be done, is asked for
 * by his host once more: that is not worth a line each time, and the host writes one if nothing comes of it.
 */
static bool goes_on_elsewhere(const struct api_request *request, unsigned status)
{
    return status == 503 && request->via != NULL;
}

void api_write_down(struct api_request *request, unsigned status)
{
    struct api *api = request->api;
    struct audit_event event = {
        .caller = &request->caller,
        .peer = request->peer,
        .via = request->via,
        .method = request->verb,
        .path = request->path,
        .request_id = request->has_request_id ? request->request_id : NULL,
        .status = status,
        .outcome = request->outcome != NULL ? request->outcome : "done",
    };

    if (status == 0)
        event.outcome = "under way; nobody waits for its outcome any more";
    if (status == 403)
        audit_refusal(&api->refusals, &event, api->backend.now_ms(api->data));
    else if (request->method != NULL && request->method->kind == API_CHANGE &&
             !goes_on_elsewhere(request, status))
        audit_change(&event);
}
