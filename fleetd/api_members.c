/* SPDX-License-Identifier: Apache-2.0 */
/* Who belongs to the cluster, and who of them votes. */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>

#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

/* The roles of struct store_server, which are libraft's (RAFT_STANDBY, RAFT_VOTER). */
enum {
    ROLE_STANDBY = 0,
    ROLE_VOTER = 1,
};

static const char *role_word(int role)
{
    switch (role) {
    case ROLE_VOTER: return "voter";
    case ROLE_STANDBY: return "standby";
    default: return "host";
    }
}

struct member {
    uint64_t server_id;
    const char *machine_id, *address, *state;
    int role;
    bool leader;
};

static json_t *member_json(const struct member *member)
{
    json_t *json = json_object();
    char id[17] = "";

    if (member->server_id != 0)
        snprintf(id, sizeof id, "%016" PRIx64, member->server_id);
    api_json_set_text(json, "machineID", member->machine_id);
    api_json_set_text(json, "serverID", id);
    api_json_set_text(json, "address", member->address);
    api_json_set_text(json, "role", role_word(member->role));
    api_json_set_text(json, "state", member->state);
    json_object_set_new(json, "leader", json_boolean(member->leader));
    return json;
}

static int take_role(const struct store_server *servers, size_t count, uint64_t server_id, bool *seen)
{
    for (size_t i = 0; i < count; i++)
        if (servers[i].id == server_id) {
            seen[i] = true;
            return servers[i].role;
        }
    return -1;
}

/* Machines by id, then servers of no registered machine (just joining, or just gone). */
void api_members_get(struct api_request *request)
{
    struct api *api = request->api;
    struct store_server servers[RAFT_SERVERS_MAX];
    bool seen[RAFT_SERVERS_MAX] = {false};
    size_t server_count = api->backend.servers(servers, RAFT_SERVERS_MAX, api->data), machine_count;
    uint64_t leader = api->backend.leader_id(api->data);
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &machine_count);
    json_t *json = json_object(), *members = json_array();

    for (size_t i = 0; i < machine_count; i++) {
        const struct member member = {
            .server_id = machines[i]->server_id,
            .machine_id = machines[i]->id,
            .address = machines[i]->cluster_address,
            .state = api_machine_state(api_core(request), machines[i]),
            .role = take_role(servers, server_count, machines[i]->server_id, seen),
            .leader = leader != 0 && machines[i]->server_id == leader,
        };

        json_array_append_new(members, member_json(&member));
    }
    for (size_t i = 0; i < server_count; i++) {
        const struct member member = {
            .server_id = servers[i].id,
            .machine_id = "",
            .address = servers[i].address,
            .state = "",
            .role = servers[i].role,
            .leader = servers[i].id == leader,
        };

        if (!seen[i])
            json_array_append_new(members, member_json(&member));
    }
    api_json_set_array(json, "members", members);
    api_answer_json(request, json);
}
