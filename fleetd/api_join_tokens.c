/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens: made (the only time that anybody sees one), listed without what would let anybody in, revoked.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/times.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "fleetd/authority.h"
#include "raftstore/registry_security.h"

#define TTL_MS_DEFAULT (3600ull * 1000)
#define TTL_MS_MAX     (366ull * 24 * 3600 * 1000)
#define USES_MAX       1000000u

/* ---- one token ---- */

static const char *state_of(const struct registry_join_token *token, uint64_t wall_ms)
{
    if (token->revoked)
        return "revoked";
    if (wall_ms >= token->expires_wall_ms)
        return "expired";
    return token->uses != 0 && token->used >= token->uses ? "used up" : "valid";
}

static json_t *token_json(const struct registry_join_token *token, uint64_t wall_ms)
{
    json_t *json = json_object();

    api_json_set_text(json, "id", token->id);
    api_json_set_text(json, "state", state_of(token, wall_ms));
    api_json_set_count(json, "created", token->made_wall_ms);
    api_json_set_count(json, "expires", token->expires_wall_ms);
    if (token->uses != 0)
        api_json_set_count(json, "uses", token->uses);
    api_json_set_count(json, "used", token->used);
    return json;
}

/* ---- making one ---- */

static void token_free(void *data)
{
    explicit_bzero(data, sizeof(struct join_token));
    free(data);
}

static void added(struct api_request *request, const struct registry_result *result)
{
    const struct join_token *token = request->work;
    const struct registry_join_token *known;
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];
    char id[JOIN_TOKEN_ID_SIZE], text[JOIN_TOKEN_TEXT_SIZE];
    json_t *json;

    if (result->status < 0) {
        api_answer_refused(request, result);
        return;
    }
    join_token_id(token->secret, id);
    join_token_digest(token->secret, digest);
    known = registry_join_token(api_registry(request), id);
    if (known == NULL || memcmp(known->digest, digest, sizeof digest) != 0) {
        /* Only where the request is repeated after the authority was rotated. */
        api_answer_error(request, 409, "the token was made, but cannot be told any more: make another one");
        return;
    }
    join_token_format(token, text);
    json = token_json(known, request->api->backend.wall_ms(request->api->data));
    api_json_set_text(json, "token", text);
    explicit_bzero(text, sizeof text);
    api_answer_json(request, json);
}

static int read_wish(const struct api_request *request, const Fleet__ApiRequest *message,
                     Fleet__AddJoinToken *ret, struct err *err)
{
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const char *ttl;
    uint64_t ttl_ms = TTL_MS_DEFAULT, uses;
    int r = api_json_parse_object(message->body.data, message->body.len, &body, err);

    if (r >= 0)
        r = api_json_get_string(body, "ttl", &ttl, err);
    if (r >= 0)
        r = api_json_get_count(body, "uses", 0, &uses, err);
    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    if (ttl[0] != '\0')
        r = duration_parse(ttl, &ttl_ms, err);
    if (r < 0)
        return err_prefix(err, -EINVAL, "ttl");
    if (ttl_ms == 0 || ttl_ms > TTL_MS_MAX)
        return err_set(err, -EINVAL, "ttl: from 1ms to 366d");
    if (uses > USES_MAX)
        return err_set(err, -EINVAL, "uses: at most %u", USES_MAX);
    ret->expires_wall_ms = request->api->backend.wall_ms(request->api->data) + ttl_ms;
    ret->uses = (uint32_t)uses;
    return 0;
}

void api_join_tokens_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    Fleet__AddJoinToken body = FLEET__ADD_JOIN_TOKEN__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct join_token *token;
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];
    char id[JOIN_TOKEN_ID_SIZE];
    struct err err = {0};
    int r = read_wish(request, message, &body, &err);

    if (r >= 0 && !registry_is_secure(api_registry(request)))
        r = err_set(&err, -EINVAL, "the cluster is insecure: hosts join it without a token");
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    if (!request->has_request_id) {
        if (getrandom(request->request_id, sizeof request->request_id, 0) !=
            (ssize_t)sizeof request->request_id)
            abort();
        request->has_request_id = true;
    }
    request->work = token = NEW0(struct join_token);
    request->work_free = token_free;
    authority_make_token(api_registry(request), request->request_id, token);
    if (api_earlier(request) != NULL) {
        added(request, api_earlier(request));
        return;
    }
    join_token_id(token->secret, id);
    join_token_digest(token->secret, digest);
    body.id = id;
    body.digest = (ProtobufCBinaryData){.len = sizeof digest, .data = digest};
    command.body_case = FLEET__COMMAND__BODY_ADD_JOIN_TOKEN;
    command.add_join_token = &body;
    api_propose(request, &command, added);
}

/* ---- listing, revoking ---- */

void api_join_tokens_get(struct api_request *request)
{
    uint64_t now = request->api->backend.wall_ms(request->api->data);
    json_t *json = json_object(), *tokens = json_array();

    for (const struct registry_join_token *token = registry_join_tokens(api_registry(request)); token != NULL;
         token = token->hh.next)
        json_array_append_new(tokens, token_json(token, now));
    api_json_set_array(json, "tokens", tokens);
    api_answer_json(request, json);
}

void api_join_token_delete(struct api_request *request, const Fleet__ApiRequest *message)
{
    Fleet__RevokeJoinToken body = FLEET__REVOKE_JOIN_TOKEN__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.id = request->name;
    command.body_case = FLEET__COMMAND__BODY_REVOKE_JOIN_TOKEN;
    command.revoke_join_token = &body;
    api_propose(request, &command, api_answer_done);
}
