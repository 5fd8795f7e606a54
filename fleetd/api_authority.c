/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's authority: which one it is, and how far its rotation is; begins it, and what a person may
 * decide about it. Never anything of a private key. */
#include <config.h>

#include <errno.h>

#include "base/hex.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "fleetd/authority.h"
#include "fleetd/core/rotation.h"

/* ---- looking ---- */

static const char *stage_of(const struct registry_authorities *authorities)
{
    static const char *const words[] = {
        [ROTATION_STEADY] = "steady",
        [ROTATION_SPREADING] = "spreading",
        [ROTATION_REISSUING] = "reissuing",
    };

    return words[registry_rotation(authorities)];
}

static json_t *awaited_json(const struct api_request *request, const uint8_t issuing_key[FINGERPRINT_SIZE])
{
    const struct registry *registry = api_registry(request);
    json_t *list = json_array();
    size_t count;
    const struct registry_machine *const *machines = registry_machines(registry, &count);

    for (size_t i = 0; i < count; i++) {
        json_t *json;

        if (!rotation_awaits(registry_authorities(registry), issuing_key, machines[i]))
            continue;
        json = json_object();
        api_json_set_text(json, "machineID", machines[i]->id);
        api_json_set_text(json, "hostname", machines[i]->hostname);
        api_json_set_text(json, "state", api_machine_state(api_core(request), machines[i]));
        json_array_append_new(list, json);
    }
    return list;
}

static void describe(struct api_request *request)
{
    const struct registry_authorities *authorities = registry_authorities(api_registry(request));
    const struct registry_authority *issuing = &authorities->issuing;
    char fingerprint[2 * FINGERPRINT_SIZE + 1];
    struct pki_info info;
    struct err err = {0};
    json_t *json;
    int r;

    if (issuing->certificate == NULL) {
        api_answer_error(request, 404, "the cluster is insecure: it has no authority");
        return;
    }
    r = pki_read(issuing->certificate, issuing->certificate_size, &info, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    id_to_hex(issuing->fingerprint, FINGERPRINT_SIZE, fingerprint);
    json = json_object();
    api_json_set_text(json, "fingerprint", fingerprint);
    api_json_set_count(json, "expires", info.not_after_ms);
    api_json_set_text(json, "stage", stage_of(authorities));
    if (authorities->since_wall_ms != 0)
        api_json_set_count(json, "since", authorities->since_wall_ms);
    api_json_set_array(json, "waiting", awaited_json(request, info.key_id));
    api_answer_json(request, json);
}

void api_authority_get(struct api_request *request)
{
    describe(request);
}

/* ---- changing ---- */

static void changed(struct api_request *request, const struct registry_result *result)
{
    if (result->status == 0)
        describe(request);
    else
        api_answer_refused(request, result);
}

static void propose(struct api_request *request, Fleet__RotationStep step, Fleet__Authority *authority)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.step = step;
    body.authority = authority;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    api_propose(request, &command, changed);
}

static void begin(struct api_request *request)
{
    Fleet__Authority next;
    struct err err = {0};
    int r =
        authority_next(api_registry(request), request->api->backend.wall_ms(request->api->data), &next, &err);

    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    propose(request, FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN, &next);
    authority_next_done(&next);
}

/* One that is awaited and will have done its part in a moment. */
static const struct registry_machine *find_ready(const struct api_request *request)
{
    const struct registry *registry = api_registry(request);
    const struct registry_authority *issuing = &registry_authorities(registry)->issuing;
    size_t count;
    const struct registry_machine *const *machines = registry_machines(registry, &count);
    struct pki_info info;

    if (pki_read(issuing->certificate, issuing->certificate_size, &info, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (rotation_awaits(registry_authorities(registry), info.key_id, machines[i]) &&
            core_machine_state(api_core(request), machines[i]->id) == MACHINE_READY)
            return machines[i];
    return NULL;
}

/* Those who are away are left behind: they need a new token to come back. Nobody else is. */
static void force(struct api_request *request)
{
    enum registry_rotation now = registry_rotation(registry_authorities(api_registry(request)));
    const struct registry_machine *ready = find_ready(request);

    if (now == ROTATION_STEADY)
        api_answer_error(request, 409, "the authority is not being rotated");
    else if (ready != NULL)
        api_answer_error(request, 409, "machine %s (%s) is there, and is just doing its part: try again",
                         ready->id, ready->hostname);
    else
        propose(request,
                now == ROTATION_SPREADING ? FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE
                                          : FLEET__ROTATION_STEP__ROTATION_STEP_FINISH,
                NULL);
}

void api_authority_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const char *action;
    struct err err = {0};
    int r = api_json_parse_object(message->body.data, message->body.len, &body, &err);

    if (r >= 0)
        r = api_json_get_string(body, "action", &action, &err);
    if (r < 0) {
        err_prefix(&err, r, "unable to decode body");
        api_answer_failure(request, r, &err);
    } else if (!registry_is_secure(api_registry(request))) {
        api_answer_error(request, 400, "the cluster is insecure: it has no authority");
    } else if (api_earlier(request) != NULL) {
        changed(request, api_earlier(request));
    } else if (streq(action, "rotate")) {
        begin(request);
    } else if (streq(action, "force")) {
        force(request);
    } else if (streq(action, "cancel")) {
        propose(request, FLEET__ROTATION_STEP__ROTATION_STEP_CANCEL, NULL);
    } else {
        api_answer_error(request, 400, "action must be rotate, force or cancel, not \"%s\"", action);
    }
}
