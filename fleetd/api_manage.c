/* SPDX-License-Identifier: Apache-2.0 */
/* What people decide about machines: POST /availability (cordon, drain, and back), POST /confirm-lost, which
 * makes the brake let go of machines that will not come back (fleetd/core/core.h), and POST /members (who is
 * to vote: fleetd/core/voters.h). All machines of a request, or none. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

/* ---- reading ---- */

static void changes_free(void *data)
{
    Fleet__ChangeMachines *changes = data;

    fleet__change_machines__free_unpacked(changes, NULL);
}

/* Returns the id of a member, borrowed from 'json', or NULL with *r and 'err' set. Of a request that was
 * carried out before: it was a member then. */
static const char *read_id(const struct api_request *request, const json_t *json, int *r, struct err *err)
{
    const char *id = json_string_value(json);
    const struct registry_machine *machine = id != NULL ? registry_machine(api_registry(request), id) : NULL;

    *r = 0;
    if (id == NULL)
        *r = err_set(err, -EINVAL, "unable to decode body: a machine is no string");
    else if (api_earlier(request) == NULL && (machine == NULL || !machine->registered))
        *r = err_set(err, -ENOENT, "machine %s does not exist", id);
    return *r < 0 ? NULL : id;
}

static int read_machines(const struct api_request *request, const json_t *body,
                         Fleet__ChangeMachines *changes, struct err *err)
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
    changes->changes = xcalloc(json_array_size(ids), sizeof *changes->changes);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *id = read_id(request, json_array_get(ids, i), &r, err);
        Fleet__MachineChange *change;

        if (id == NULL)
            return r;
        change = changes->changes[changes->n_changes++] = NEW0(Fleet__MachineChange);
        fleet__machine_change__init(change);
        change->machine_id = xstrdup(id);
    }
    return 0;
}

/* ---- deciding ---- */

static int set_lost(const struct api_request *request, const json_t *body, Fleet__MachineChange *change,
                    struct err *err)
{
    if (core_machine_state(api_core(request), change->machine_id) == MACHINE_READY)
        return err_set(err, -EEXIST, "machine %s (%s) is there and answers: it is not lost",
                       change->machine_id,
                       registry_machine(api_registry(request), change->machine_id)->hostname);
    change->verdict = FLEET__VERDICT__VERDICT_LOST;
    change->confirmed = true;
    return 0;
}

const char *api_availability(const struct registry_machine *machine)
{
    static const char *const words[] = {
        [MACHINE_ACTIVE] = "active",
        [MACHINE_CORDONED] = "cordoned",
        [MACHINE_DRAINING] = "draining",
    };

    return words[machine->availability];
}

static int set_availability(const struct api_request *request, const json_t *body,
                            Fleet__MachineChange *change, struct err *err)
{
    static const struct {
        const char *word;
        Fleet__Availability value;
    } words[] = {
        {"active", FLEET__AVAILABILITY__AVAILABILITY_ACTIVE},
        {"cordoned", FLEET__AVAILABILITY__AVAILABILITY_CORDONED},
        {"draining", FLEET__AVAILABILITY__AVAILABILITY_DRAINING},
    };
    const char *word;
    int r = api_json_get_string(body, "availability", &word, err);

    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (streq(words[i].word, word)) {
            change->availability = words[i].value;
            return 0;
        }
    return err_set(err, -EINVAL, "availability must be active, cordoned or draining, not \"%s\"", word);
}

/* ---- votes ---- */

static int set_preference(const json_t *body, Fleet__MachineChange *change, struct err *err)
{
    static const struct {
        const char *word;
        Fleet__VoteWish value;
    } words[] = {
        {"", FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED},
        {"automatic", FLEET__VOTE_WISH__VOTE_WISH_AUTOMATIC},
        {"voter", FLEET__VOTE_WISH__VOTE_WISH_ALWAYS},
        {"never", FLEET__VOTE_WISH__VOTE_WISH_NEVER},
    };
    const char *word;
    int r = api_json_get_string(body, "preference", &word, err);

    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (streq(words[i].word, word)) {
            change->vote = words[i].value;
            return 0;
        }
    return err_set(err, -EINVAL, "preference must be automatic, voter or never, not \"%s\"", word);
}

static int set_vote(const struct api_request *request, const json_t *body, Fleet__MachineChange *change,
                    struct err *err)
{
    const json_t *leaving = api_json_get(body, "leaving");
    int r = set_preference(body, change, err);

    if (r < 0)
        return r;
    if (leaving != NULL && !json_is_boolean(leaving))
        return err_set(err, -EINVAL, "unable to decode body: leaving is no boolean");
    if (leaving != NULL)
        change->leaving = json_is_true(leaving) ? FLEET__LEAVING__LEAVING_YES : FLEET__LEAVING__LEAVING_NO;
    if (change->vote == FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED && leaving == NULL)
        return err_set(err, -EINVAL, "neither preference nor leaving is given");
    return 0;
}

/* All of them together: each alone might be fine. Who leaves is not refused here: it waits until it can. */
static int check_votes(const struct api_request *request, const Fleet__ChangeMachines *changes,
                       struct err *err)
{
    const struct voters_facts *facts = request->api->backend.voters(request->api->data);
    _cleanup_(freep) uint64_t *ids = xcalloc(changes->n_changes, sizeof *ids);

    if (facts == NULL)
        return err_set(err, -EBUSY, "this host does not lead any more");
    for (size_t i = 0; i < changes->n_changes; i++)
        ids[i] = registry_machine(api_registry(request), changes->changes[i]->machine_id)->server_id;
    switch (changes->changes[0]->vote) {
    case FLEET__VOTE_WISH__VOTE_WISH_ALWAYS: return voters_may_promote(facts, ids, changes->n_changes, err);
    case FLEET__VOTE_WISH__VOTE_WISH_NEVER: return voters_may_demote(facts, ids, changes->n_changes, err);
    default: return 0;
    }
}

static void decide(struct api_request *request, const Fleet__ApiRequest *message,
                   int (*set)(const struct api_request *request, const json_t *body,
                              Fleet__MachineChange *change, struct err *err),
                   int (*check)(const struct api_request *request, const Fleet__ChangeMachines *changes,
                                struct err *err),
                   void (*applied)(struct api_request *request, const struct registry_result *result))
{
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const struct registry_result *earlier = api_earlier(request);
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__ChangeMachines *changes = NEW0(Fleet__ChangeMachines);
    struct err err = {0};
    int r = api_json_parse_object(message->body.data, message->body.len, &body, &err);

    fleet__change_machines__init(changes);
    request->work = changes;
    request->work_free = changes_free;
    r = r < 0 ? err_prefix(&err, r, "unable to decode body") : read_machines(request, body, changes, &err);
    /* Repeated, it is not judged again: what it was decided on may have changed by it. */
    for (size_t i = 0; r >= 0 && earlier == NULL && i < changes->n_changes; i++)
        r = set(request, body, changes->changes[i], &err);
    if (r >= 0 && earlier == NULL && check != NULL)
        r = check(request, changes, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    if (earlier != NULL) {
        applied(request, earlier);
        return;
    }
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = changes;
    api_propose(request, &command, applied);
}

/* ---- requests ---- */

void api_machines_confirm_lost(struct api_request *request, const Fleet__ApiRequest *message)
{
    decide(request, message, set_lost, NULL, api_answer_done);
}

static bool is_of(const Fleet__ChangeMachines *changes, const char *machine_id)
{
    for (size_t i = 0; i < changes->n_changes; i++)
        if (streq(changes->changes[i]->machine_id, machine_id))
            return true;
    return false;
}

/* What is placed on the machines: for whoever wants to wait until it has left. */
static void made_available(struct api_request *request, const struct registry_result *result)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(api_registry(request), &count);
    json_t *answer, *names;

    if (result->status < 0) {
        api_answer_refused(request, result);
        return;
    }
    names = json_array();
    for (size_t i = 0; i < count; i++)
        if (units[i]->target[0] != '\0' && is_of(request->work, units[i]->target))
            json_array_append_new(names, api_json_text(units[i]->name));
    answer = json_object();
    api_json_set_array(answer, "units", names);
    api_answer_json(request, answer);
}

void api_machines_availability(struct api_request *request, const Fleet__ApiRequest *message)
{
    decide(request, message, set_availability, NULL, made_available);
}

void api_members_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    decide(request, message, set_vote, check_votes, api_answer_done);
}
