/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for clients: issued, listed, revoked. Who asks has made the key; what comes here is a request
 * (PKCS#10) that proves it, and what goes back is the certificate with the authorities by which the client
 * knows the cluster's hosts. A request that is repeated gets the same certificate again: the registry keeps
 * it. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"
#include "raftstore/registry_clients.h"
#include "raftstore/registry_security.h"

#define DAY_MS         (24ull * 3600 * 1000)
#define TTL_MS_DEFAULT (365 * DAY_MS)
#define TTL_MS_MAX     (3660 * DAY_MS) /* As long as an authority lives. */
#define TTL_MS_MIN     1000u

/* What is asked for. */
struct wish {
    struct pki_subject subject;
    struct pki_blob request;
};

static void wish_done(struct wish *wish)
{
    pki_blob_done(&wish->request);
}

static uint64_t wall(const struct api_request *request)
{
    return request->api->backend.wall_ms(request->api->data);
}

/* ---- showing ---- */

static json_t *client_json(const struct registry_client *client, uint64_t wall_ms)
{
    json_t *json = json_object();
    const char *state = client->revoked                      ? "revoked"
                        : wall_ms >= client->expires_wall_ms ? "expired"
                                                             : "valid";

    api_json_set_text(json, "serial", client->serial);
    api_json_set_text(json, "name", client->name);
    api_json_set_text(json, "role", pki_role_name((enum pki_role)client->role));
    api_json_set_text(json, "state", state);
    api_json_set_count(json, "issued", client->issued_wall_ms);
    api_json_set_count(json, "expires", client->expires_wall_ms);
    return json;
}

void api_clients_get(struct api_request *request)
{
    uint64_t now = wall(request);
    json_t *json = json_object(), *list = json_array();

    for (const struct registry_client *client = registry_clients(api_registry(request)); client != NULL;
         client = client->hh.next)
        json_array_append_new(list, client_json(client, now));
    api_json_set_array(json, "certificates", list);
    api_answer_json(request, json);
}

/* ---- issuing ---- */

static void add_authority(struct pki_blob *list, size_t *count, const struct registry_authority *authority)
{
    if (authority->certificate != NULL)
        list[(*count)++] =
            (struct pki_blob){.data = authority->certificate, .size = authority->certificate_size};
}

/* Whom the hosts' certificates may lead to, now or soon. */
static int authorities_pem(const struct registry *registry, struct pki_blob *ret, struct err *err)
{
    const struct registry_authorities *known = registry_authorities(registry);
    struct pki_blob list[PKI_ROOTS_MAX]; /* Borrowed. */
    size_t count = 0;

    add_authority(list, &count, &known->issuing);
    add_authority(list, &count, &known->next);
    if (known->old_trusted)
        add_authority(list, &count, &known->old);
    return pki_to_pem(list, count, ret, err);
}

static void answer_issued(struct api_request *request, const struct registry_client *client)
{
    struct pki_blob certificate = {.data = client->certificate, .size = client->certificate_size}, pem = {0},
                    authorities = {0};
    struct err err = {0};
    int r = pki_to_pem(&certificate, 1, &pem, &err);
    json_t *json;

    if (r >= 0)
        r = authorities_pem(api_registry(request), &authorities, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
    } else {
        json = client_json(client, wall(request));
        api_json_set_text(json, "certificate", (const char *)pem.data);
        api_json_set_text(json, "authorities", (const char *)authorities.data);
        api_answer_json(request, json);
    }
    pki_blob_done(&pem);
    pki_blob_done(&authorities);
}

static void answer_added(struct api_request *request, const struct registry_result *result)
{
    const struct registry_client *client =
        registry_client_of_request(api_registry(request), request->request_id);

    if (result->status < 0)
        api_answer_refused(request, result);
    else if (client == NULL) /* Of a repeated request. */
        api_answer_error(request, 409, "the certificate that was issued has been forgotten meanwhile");
    else
        answer_issued(request, client);
}

static void added(struct api_request *request, const struct registry_result *result)
{
    const struct registry_client *client =
        registry_client_of_request(api_registry(request), request->request_id);

    if (result->status == 0 && client != NULL)
        log_message(LOG_NOTICE, log_fields(MESSAGE_CLIENT_CERTIFIED),
                    "Client %s has a certificate now, with the role %s (serial %s)", client->name,
                    pki_role_name((enum pki_role)client->role), client->serial);
    answer_added(request, result);
}

static int read_ttl(const json_t *body, uint64_t now, uint64_t *ret_until_ms, struct err *err)
{
    uint64_t ttl_ms = TTL_MS_DEFAULT;
    const char *ttl;
    int r = api_json_get_string(body, "ttl", &ttl, err);

    if (r >= 0 && ttl[0] != '\0')
        r = duration_parse(ttl, &ttl_ms, err) < 0 ? err_prefix(err, -EINVAL, "ttl") : 0;
    if (r < 0)
        return r;
    if (ttl_ms < TTL_MS_MIN || ttl_ms > TTL_MS_MAX)
        return err_set(err, -EINVAL, "ttl: from 1s to 3660d");
    *ret_until_ms = now + ttl_ms;
    return 0;
}

static int read_wish(const struct api_request *request, const Fleet__ApiRequest *message, struct wish *ret,
                     struct err *err)
{
    struct pki_name *name = &ret->subject.name;
    _cleanup_(api_json_decrefp) json_t *body = NULL;
    const char *text, *role, *pem;
    int r = api_json_parse_object(message->body.data, message->body.len, &body, err);

    if (r >= 0)
        r = api_json_get_string(body, "name", &text, err);
    if (r >= 0)
        r = api_json_get_string(body, "role", &role, err);
    if (r >= 0)
        r = api_json_get_string(body, "request", &pem, err);
    if (r < 0)
        return err_prefix(err, r, "unable to decode body");
    r = pki_client_name_check(text, err);
    if (r < 0)
        return r;
    name->kind = PKI_CLIENT;
    memcpy(name->cluster_id, registry_cluster_id(api_registry(request)), sizeof name->cluster_id);
    strcpy(name->id, text);
    if (pki_role_parse(role, &name->role) < 0 || name->role == PKI_ROLE_NONE)
        return err_set(err, -EINVAL, "role must be admin, operator or viewer, not \"%.32s\"", role);
    r = read_ttl(body, wall(request), &ret->subject.not_after_ms, err);
    if (r >= 0)
        r = pki_request_from_pem(pem, strlen(pem), &ret->request, err);
    return r < 0 && r != -EINVAL ? err_prefix(err, -EINVAL, "request") : r;
}

static int sign(const struct registry *registry, const struct wish *wish, struct pki_blob *ret,
                struct pki_info *ret_info, struct err *err)
{
    const struct registry_authority *authority = &registry_authorities(registry)->issuing;
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r = pki_key_decode(authority->private_key, authority->private_key_size, &key, err);

    if (r >= 0)
        r = pki_sign(authority->certificate, authority->certificate_size, key, wish->request.data,
                     wish->request.size, &wish->subject, ret, ret_info, err);
    return r == -EBADMSG ? -EINVAL : r;
}

static void propose(struct api_request *request, const struct wish *wish, const struct pki_blob *certificate,
                    const struct pki_info *info)
{
    Fleet__ClientCertificate body = FLEET__CLIENT_CERTIFICATE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.serial = (char *)info->serial;
    body.name = (char *)wish->subject.name.id;
    body.role = wish->subject.name.role;
    body.expires_wall_ms = info->not_after_ms;
    body.certificate = (ProtobufCBinaryData){.len = certificate->size, .data = certificate->data};
    command.body_case = FLEET__COMMAND__BODY_ADD_CLIENT;
    command.add_client = &body;
    api_propose(request, &command, added);
}

void api_clients_post(struct api_request *request, const Fleet__ApiRequest *message)
{
    _cleanup_(wish_done) struct wish wish = {0};
    struct pki_blob certificate = {0};
    struct pki_info info;
    struct err err = {0};
    int r = 0;

    if (!request->has_request_id) {
        if (getrandom(request->request_id, REQUEST_ID_SIZE, 0) != (ssize_t)REQUEST_ID_SIZE)
            abort();
        request->has_request_id = true;
    }
    if (api_earlier(request) != NULL) {
        answer_added(request, api_earlier(request));
        return;
    }
    if (!registry_is_secure(api_registry(request)))
        r = err_set(&err, -EINVAL, "the cluster is insecure: nobody needs a certificate");
    if (r >= 0)
        r = read_wish(request, message, &wish, &err);
    if (r >= 0)
        r = sign(api_registry(request), &wish, &certificate, &info, &err);
    if (r < 0)
        api_answer_failure(request, r, &err);
    else
        propose(request, &wish, &certificate, &info);
    pki_blob_done(&certificate);
}

/* ---- revoking ---- */

static void revoked(struct api_request *request, const struct registry_result *result)
{
    if (result->status < 0) {
        api_answer_refused(request, result);
        return;
    }
    log_message(LOG_NOTICE, log_fields(MESSAGE_CLIENT_REVOKED), "What client certificate %s could do is over",
                request->name);
    api_answer_empty(request, 204);
}

void api_client_delete(struct api_request *request, const Fleet__ApiRequest *message)
{
    Fleet__RevokeClient body = FLEET__REVOKE_CLIENT__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.which = request->name;
    command.body_case = FLEET__COMMAND__BODY_REVOKE_CLIENT;
    command.revoke_client = &body;
    api_propose(request, &command, revoked);
}
