/* SPDX-License-Identifier: Apache-2.0 */
/* POST /confirm-lost: a person says that machines will not come back, so that the brake lets go of them
 * (fleetd/core/core.h). All of them, or none. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

static int check_machine(const struct api_request *request, const char *id, struct err *err)
{
    const struct registry_machine *machine = registry_machine(api_registry(request), id);

    if (machine == NULL || !machine->registered)
        return err_set(err, -ENOENT, "machine %s does not exist", id);
    if (core_machine_state(api_core(request), id) == MACHINE_READY)
        return err_set(err, -EEXIST, "machine %s (%s) is there and answers: it is not lost", id,
                       machine->hostname);
    return 0;
}

static int read_machines(const struct api_request *request, const json_t *body, Fleet__ChangeMachines *ret,
                         struct err *err)
{
    const json_t *ids;
    int r = api_json_get_array(body, "machines", &ids, err);

    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    if (json_array_size(ids) == 0)
        return err_set(err, -EINVAL, "no machines are given");
    if (json_array_size(ids) > MACHINES_MAX)
        return err_set(err, -E2BIG, "%zu machines are given, the limit is %u", json_array_size(ids),
                       MACHINES_MAX);
    ret->changes = xcalloc(json_array_size(ids), sizeof *ret->changes);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        Fleet__MachineChange *change;

        if (id == NULL)
            return err_set(err, -EINVAL, "unable to decode body: machine %zu is no string", i + 1);
        r = check_machine(request, id, err);
        if (r < 0)
            return r;
        change = ret->changes[ret->n_changes++] = NEW0(Fleet__MachineChange);
        fleet__machine_change__init(change);
        change->machine_id = (char *)id; /* The body's. */
        change->verdict = FLEET__VERDICT__VERDICT_LOST;
    }
    return 0;
}

static void changes_done(Fleet__ChangeMachines *changes)
{
    for (size_t i = 0; i < changes->n_changes; i++)
        free(changes->changes[i]);
    free(changes->changes);
}

static void confirmed(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        api_answer_empty(request, 204);
    else
        api_answer_refused(request, result);
}

void api_machines_confirm_lost(struct api_request *request, const Fleet__ApiRequest *message)
{
    _cleanup_(changes_done) Fleet__ChangeMachines changes = FLEET__CHANGE_MACHINES__INIT;
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const struct registry_result *earlier = api_earlier(request);
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct err err = {0};
    int r;

    if (earlier != NULL) {
        confirmed(request, earlier);
        return;
    }
    r = api_json_parse_object(message->body.data, message->body.len, &body, &err);
    if (r < 0)
        err_prefix(&err, r, "unable to decode body");
    else
        r = read_machines(request, body, &changes, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = &changes;
    api_propose(request, &command, confirmed);
}
