/* SPDX-License-Identifier: Apache-2.0 */
/* DELETE /machines/ID: the machine is no member any more. Its fleetd is told so, stops what it has of the
 * cluster's units, and is let in again only with a new token. */
#include <config.h>

#include <errno.h>

#include "base/str.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

static size_t units_of(const struct api_request *request, const char *machine_id)
{
    struct api_load *load = api_load_new(api_registry(request), api_core(request));
    size_t count = api_load_of(load, machine_id);

    api_load_free(load);
    return count;
}

static size_t count_voters(struct api_request *request, uint64_t server_id, bool *ret_votes)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = request->api->backend.servers(servers, RAFT_SERVERS_MAX, request->api->data), voters = 0;

    *ret_votes = false;
    for (size_t i = 0; i < count; i++) {
        voters += servers[i].role == SERVER_VOTER;
        *ret_votes = *ret_votes || (servers[i].role == SERVER_VOTER && servers[i].id == server_id);
    }
    return voters;
}

/* What a person must decide first; 0: nothing. */
static int check_units(struct api_request *request, const struct registry_machine *machine, struct err *err)
{
    size_t count;

    if (streq(api_query(request, "force"), "yes") ||
        core_machine_state(api_core(request), machine->id) == MACHINE_LOST)
        return 0;
    count = units_of(request, machine->id);
    if (count == 0)
        return 0;
    return err_set(err, -EEXIST,
                   "machine %s (%s) has %zu unit%s: drain it first (fleetctl drain), or use --force, and "
                   "they are stopped "
                   "there before they are started elsewhere",
                   machine->id, machine->hostname, count, count == 1 ? "" : "s");
}

void api_machine_delete(struct api_request *request, const Fleet__ApiRequest *message)
{
    struct api *api = request->api;
    const struct registry_machine *machine = registry_machine(api_registry(request), request->name);
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    const struct voters_facts *facts;
    struct err err = {0};
    size_t voters;
    bool votes;
    int r;

    if (api_earlier(request) != NULL) {
        api_answer_done(request, api_earlier(request));
        return;
    }
    if (machine == NULL || !machine->registered) {
        api_answer_error(request, 404, "machine %s does not exist", request->name);
        return;
    }
    voters = count_voters(request, machine->server_id, &votes);
    r = check_units(request, machine, &err);
    if (r >= 0 && votes && voters == 1)
        r = err_set(&err, -EEXIST,
                    "machine %s (%s) is the only one that keeps the cluster's data: let another one join, "
                    "and wait until "
                    "it votes (fleetctl list-members)",
                    machine->id, machine->hostname);
    facts = api->backend.voters(api->data);
    if (r >= 0 && facts != NULL)
        r = voters_may_remove(facts, machine->server_id, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    if (machine->server_id == api->backend.leader_id(api->data)) {
        /* Whoever asked is taken to the next leader, which removes it. */
        r = api_hand_over(request, NULL, &err);
        if (r < 0)
            api_answer_failure(request, r, &err);
        else
            api_answer_error(request, 503, "the machine leads: leadership is being handed over first");
        return;
    }
    body.machine_id = request->name;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    api_propose(request, &command, api_answer_done);
}
