/* SPDX-License-Identifier: Apache-2.0 */
/* Who belongs to the cluster, who of them votes, what is under way among these, and who leads. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

/* ---- the list ---- */

struct members {
    const struct api_request *request;
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t server_count;
    bool seen[RAFT_SERVERS_MAX];
    uint64_t leader;
    char *spread_by;
};

static const char *role_word(enum server_role role)
{
    switch (role) {
    case SERVER_VOTER: return "voter";
    case SERVER_STANDBY: return "standby";
    default: return "host";
    }
}

static const char *preference_word(enum vote_wish wish)
{
    static const char *const words[] = {
        [VOTE_AUTOMATIC] = "automatic", [VOTE_ALWAYS] = "voter", [VOTE_NEVER] = "never"};

    return words[wish];
}

static json_t *server_json(const struct members *members, uint64_t server_id, const char *address,
                           enum server_role role)
{
    json_t *json = json_object();
    char id[17] = "";

    if (server_id != 0)
        snprintf(id, sizeof id, "%016" PRIx64, server_id);
    api_json_set_text(json, "serverID", id);
    api_json_set_text(json, "address", address);
    api_json_set_text(json, "role", role_word(role));
    json_object_set_new(json, "leader", json_boolean(members->leader != 0 && server_id == members->leader));
    return json;
}

static enum server_role take_role(struct members *members, uint64_t server_id)
{
    for (size_t i = 0; i < members->server_count; i++)
        if (members->servers[i].id == server_id) {
            members->seen[i] = true;
            return members->servers[i].role;
        }
    return SERVER_REMOVED;
}

static const char *value_of(const struct registry_machine *machine, const char *key)
{
    for (size_t i = 0; i < machine->label_count; i++)
        if (streq(machine->labels[i].key, key))
            return machine->labels[i].value;
    return "";
}

static json_t *machine_json(struct members *members, const struct registry_machine *machine)
{
    json_t *json = server_json(members, machine->server_id, machine->cluster_address,
                               take_role(members, machine->server_id));

    api_json_set_text(json, "machineID", machine->id);
    api_json_set_text(json, "hostname", machine->hostname);
    api_json_set_text(json, "state", api_machine_state(api_core(members->request), machine));
    api_json_set_text(json, "preference", preference_word(machine->vote));
    if (members->spread_by[0] != '\0')
        api_json_set_text(json, "value", value_of(machine, members->spread_by));
    if (machine->leaving)
        json_object_set_new(json, "leaving", json_true());
    return json;
}

/* Without a leader nothing can be decided, and only people know whether it will be again. */
static void say_leaderless(const struct members *members, size_t voters, struct strbuf *to)
{
    const char *separator = "";

    strbuf_addf(to,
                "there is no leader: nothing can be changed until %zu of these %zu voters are up and reach "
                "each other: ",
                voters / 2 + 1, voters);
    for (size_t i = 0; i < members->server_count; i++)
        if (members->servers[i].role == SERVER_VOTER) {
            strbuf_addf(to, "%s%s", separator, members->servers[i].address);
            separator = ", ";
        }
    strbuf_add(
        to, ". If they are gone for good, see VOTERS in fleetd(8); if they have other addresses now, CHANGED "
            "ADDRESSES");
}

/* What is under way, or in the way. */
static void say(const struct members *members, json_t *json)
{
    const struct api *api = members->request->api;
    const struct voters_facts *facts = api->backend.voters(api->data);
    _cleanup_(strbuf_done) struct strbuf text = {0};
    struct voters_plan plan;
    size_t voters = 0;

    for (size_t i = 0; i < members->server_count; i++)
        voters += members->servers[i].role == SERVER_VOTER;
    if (facts != NULL) {
        voters_plan(facts, &plan);
        strbuf_add(&text, plan.why);
    } else if (members->leader == 0 && voters > 0) {
        say_leaderless(members, voters, &text);
    }
    if (text.size > 0)
        api_json_set_text(json, "doing", text.text);
}

/* Machines by id, then servers of no registered machine (just joining, or just gone). */
void api_members_get(struct api_request *request)
{
    struct api *api = request->api;
    struct members members = {.request = request, .leader = api->backend.leader_id(api->data)};
    const struct registry *registry = api_registry(request);
    size_t machine_count;
    const struct registry_machine *const *machines = registry_machines(registry, &machine_count);
    json_t *json = json_object(), *list = json_array();

    members.server_count = api->backend.servers(members.servers, RAFT_SERVERS_MAX, api->data);
    members.spread_by = registry_setting_text(registry, SETTING_VOTERS_SPREAD_BY);
    for (size_t i = 0; i < machine_count; i++)
        json_array_append_new(list, machine_json(&members, machines[i]));
    for (size_t i = 0; i < members.server_count; i++) {
        const struct store_server *server = &members.servers[i];

        if (!members.seen[i])
            json_array_append_new(list, server_json(&members, server->id, server->address, server->role));
    }
    api_json_set_array(json, "members", list);
    api_json_set_count(json, "voters", registry_setting_number(registry, SETTING_VOTERS));
    api_json_set_text(json, "spreadBy", members.spread_by);
    say(&members, json);
    free(members.spread_by);
    api_answer_json(request, json);
}

/* ---- leadership ---- */

static const struct registry_machine *machine_of_server(const struct api_request *request, uint64_t server_id)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &count);

    for (size_t i = 0; i < count; i++)
        if (machines[i]->server_id == server_id)
            return machines[i];
    return NULL;
}

/* From whom, and to whom; NULL: to any. */
static int read_transfer(const struct api_request *request, const json_t *body, const char **ret_from,
                         const struct registry_machine **ret_to, struct err *err)
{
    const char *to;
    int r = api_json_get_string(body, "from", ret_from, err);

    if (r >= 0)
        r = api_json_get_string(body, "to", &to, err);
    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    *ret_to = to[0] != '\0' ? registry_machine(api_registry(request), to) : NULL;
    if (to[0] != '\0' && (*ret_to == NULL || !(*ret_to)->registered))
        return err_set(err, -ENOENT, "machine %s does not exist", to);
    return 0;
}

int api_hand_over(const struct api_request *request, const struct registry_machine *to, struct err *err)
{
    const struct api *api = request->api;
    const struct voters_facts *facts = api->backend.voters(api->data);
    uint64_t heirs[RAFT_SERVERS_MAX];
    size_t count;
    int r;

    if (facts == NULL)
        return err_set(err, -EBUSY, "this host does not lead any more");
    r = voters_heirs(facts, to != NULL ? to->server_id : 0, heirs, &count, err);
    return r < 0 ? r : api->backend.hand_over(heirs, count, err, api->data);
}

/* It is answered when it begins: who leads then tells how it went. Only as long as it is the one that leads
 * whom the asker knows as leader: so it does no harm to repeat the request. */
void api_leadership_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    const struct registry_machine *to = NULL, *leader;
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const char *from = "";
    struct err err = {0};
    json_t *answer;
    int r = api_json_parse_object(message->body.data, message->body.len, &body, &err);

    leader = machine_of_server(request, request->api->backend.leader_id(request->api->data));
    r = r < 0 ? err_prefix(&err, r, "unable to decode body") : read_transfer(request, body, &from, &to, &err);
    if (r >= 0 && leader != NULL && streq(leader->id, from) && to != leader)
        r = api_hand_over(request, to, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    answer = json_object();
    api_json_set_text(answer, "leader", leader != NULL ? leader->id : "");
    api_answer_json(request, answer);
}
