/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/certifier.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/authority.h"
#include "fleetd/core/rotation.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"

#define AGAIN_MS 10000u /* A host that was told to renew, and did not, is told again. */

/* What a host with a session proves itself by. */
struct holder {
    char machine_id[MACHINE_ID_SIZE];
    uint64_t not_after_ms;
    uint8_t certified_by[FINGERPRINT_SIZE];
    uint64_t told_ms; /* When it was told to renew; 0: not since its certificate. */
    UT_hash_handle hh;
};

struct certifier {
    struct daemon *daemon;
    struct holder *holders;
    uint8_t issuing[FINGERPRINT_SIZE]; /* Of which authority 'issuing_key' is. */
    uint8_t issuing_key[FINGERPRINT_SIZE];
    uint64_t told_since_ms; /* Which step of a rotation the hosts were told of. */
    enum registry_rotation told_rotation;
    bool stepping; /* A step is under way. */
};

static struct holder *find(const struct certifier *certifier, const char *machine_id)
{
    struct holder *holder;

    HASH_FIND_STR(certifier->holders, machine_id, holder);
    return holder;
}

static const struct registry *registry_of(const struct certifier *certifier)
{
    return store_registry(certifier->daemon->store);
}

/* The key of the authority that issues now; false: the cluster is insecure. */
static bool know_issuing_key(struct certifier *certifier)
{
    const struct registry_authority *issuing = &registry_authorities(registry_of(certifier))->issuing;
    struct pki_info info;
    struct err err = {0};
    int r;

    if (issuing->certificate == NULL)
        return false;
    if (memcmp(certifier->issuing, issuing->fingerprint, FINGERPRINT_SIZE) == 0)
        return true;
    r = pki_read(issuing->certificate, issuing->certificate_size, &info, &err);
    if (r < 0) {
        log_error("The cluster's authority makes no sense: %s", err_text(&err, r));
        return false;
    }
    memcpy(certifier->issuing, issuing->fingerprint, FINGERPRINT_SIZE);
    memcpy(certifier->issuing_key, info.key_id, FINGERPRINT_SIZE);
    return true;
}

/* ---- telling hosts ---- */

static bool is_due(const struct certifier *certifier, const struct holder *holder)
{
    return rotation_certificate_due(
        holder->not_after_ms, holder->certified_by, certifier->issuing_key,
        registry_setting_number(registry_of(certifier), SETTING_CERTIFICATE_LIFETIME), wall_ms());
}

static void tell(struct certifier *certifier, struct holder *holder)
{
    Fleet__Credentials credentials = FLEET__CREDENTIALS__INIT;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    struct authority_bundle bundle;

    authority_bundle(registry_of(certifier), &bundle);
    credentials.roots = bundle.roots;
    credentials.n_roots = bundle.root_count;
    credentials.renew = is_due(certifier, holder);
    if (credentials.renew)
        holder->told_ms = now_ms();
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_CREDENTIALS;
    message.credentials = &credentials;
    downlink_send(certifier->daemon->downlink, holder->machine_id, &message);
}

void certifier_opened(struct certifier *certifier, const char *machine_id, const struct pki_info *shown)
{
    struct holder *holder;

    if (shown == NULL || !know_issuing_key(certifier))
        return;
    holder = find(certifier, machine_id);
    if (holder == NULL) {
        holder = NEW0(struct holder);
        snprintf(holder->machine_id, sizeof holder->machine_id, "%s", machine_id);
        HASH_ADD_STR(certifier->holders, machine_id, holder);
    }
    holder->not_after_ms = shown->not_after_ms;
    memcpy(holder->certified_by, shown->issuer, FINGERPRINT_SIZE);
    tell(certifier, holder);
}

static void forget(struct certifier *certifier, struct holder *holder)
{
    HASH_DEL(certifier->holders, holder);
    free(holder);
}

void certifier_closed(struct certifier *certifier, const char *machine_id)
{
    struct holder *holder = find(certifier, machine_id);

    if (holder != NULL)
        forget(certifier, holder);
}

/* ---- signing ---- */

static void answer(struct certifier *certifier, const char *machine_id, Fleet__Certificate *certificate)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_CERTIFICATE;
    message.certificate = certificate;
    downlink_send(certifier->daemon->downlink, machine_id, &message);
}

/* For the machine as the registry knows it: a host says nothing of itself here. */
static int sign(struct certifier *certifier, const struct registry_machine *machine,
                const Fleet__CertificateRequest *request, struct pki_blob *ret, struct err *err)
{
    Fleet__RegisterMachine described = FLEET__REGISTER_MACHINE__INIT;

    described.machine_id = (char *)machine->id;
    described.hostname = machine->hostname;
    described.public_ip = machine->public_ip;
    described.cluster_address = machine->cluster_address;
    return authority_certify(registry_of(certifier), &described, &request->request, wall_ms(), ret, err);
}

void certifier_requested(struct certifier *certifier, const char *machine_id,
                         const Fleet__CertificateRequest *request)
{
    const struct registry_machine *machine = registry_machine(registry_of(certifier), machine_id);
    struct holder *holder = find(certifier, machine_id);
    Fleet__Certificate certificate = FLEET__CERTIFICATE__INIT;
    struct authority_bundle bundle;
    _cleanup_(pki_blob_done) struct pki_blob signature = {0};
    struct pki_info info;
    struct err err = {0};
    int r;

    if (holder == NULL || machine == NULL || !machine->registered)
        return; /* It was removed a moment ago. */
    r = sign(certifier, machine, request, &signature, &err);
    if (r >= 0)
        r = pki_read(signature.data, signature.size, &info, &err);
    if (r >= 0 && !registry_key_fits(machine, machine->server_id, info.key_id, sizeof info.key_id))
        r = err_set(&err, -EACCES, "it asks for one for another key than the one that it joined with");
    if (r < 0) {
        log_warn("Machine %s gets no new certificate: %s", machine_id, err_text(&err, r));
        certificate.error = (char *)err_text(&err, r);
        answer(certifier, machine_id, &certificate);
        return;
    }
    authority_bundle(registry_of(certifier), &bundle);
    bundle.chain[0] = (ProtobufCBinaryData){.len = signature.size, .data = signature.data};
    certificate.chain = bundle.chain;
    certificate.n_chain = bundle.chain_count;
    certificate.roots = bundle.roots;
    certificate.n_roots = bundle.root_count;
    holder->not_after_ms = info.not_after_ms;
    holder->told_ms = 0;
    memcpy(holder->certified_by, info.issuer, FINGERPRINT_SIZE);
    log_debug("Machine %s gets a new certificate", machine_id);
    answer(certifier, machine_id, &certificate);
}

/* ---- rotation ---- */

static void on_stepped(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct daemon *daemon = data;

    if (daemon->certifier == NULL)
        return;
    daemon->certifier->stepping = false;
    if (outcome != STORE_APPLIED)
        log_warn("A step of the rotation of the authority did not come through: %s; trying again", reason);
}

static void step(struct certifier *certifier, enum rotation_step next)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__RotateAuthority rotate = FLEET__ROTATE_AUTHORITY__INIT;
    bool issues = next == ROTATION_STEP_ISSUE;

    log_message(
        LOG_NOTICE, log_fields(MESSAGE_ROTATION),
        issues ? "All machines trust the new authority: from now on it issues certificates"
               : "All machines have certificates of the new authority: the old one is not trusted any more");
    rotate.step =
        issues ? FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE : FLEET__ROTATION_STEP__ROTATION_STEP_FINISH;
    command.if_term = store_term(certifier->daemon->store);
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &rotate;
    certifier->stepping = true;
    store_propose(certifier->daemon->store, &command, on_stepped, certifier->daemon);
}

void certifier_look(struct certifier *certifier)
{
    const struct registry_authorities *authorities;
    enum rotation_step next;

    if (!store_leads(certifier->daemon->store) || !know_issuing_key(certifier))
        return;
    authorities = registry_authorities(registry_of(certifier));
    if (authorities->since_wall_ms != certifier->told_since_ms ||
        registry_rotation(authorities) != certifier->told_rotation) {
        certifier->told_since_ms = authorities->since_wall_ms;
        certifier->told_rotation = registry_rotation(authorities);
        for (struct holder *holder = certifier->holders; holder != NULL; holder = holder->hh.next)
            tell(certifier, holder);
    }
    next = rotation_next(registry_of(certifier), certifier->issuing_key);
    if (next != ROTATION_STEP_NONE && !certifier->stepping)
        step(certifier, next);
}

void certifier_tick(struct certifier *certifier)
{
    uint64_t now = now_ms();

    certifier_look(certifier);
    if (!know_issuing_key(certifier))
        return;
    for (struct holder *holder = certifier->holders; holder != NULL; holder = holder->hh.next)
        if (is_due(certifier, holder) && (holder->told_ms == 0 || now - holder->told_ms >= AGAIN_MS))
            tell(certifier, holder);
}

/* ---- life ---- */

struct certifier *certifier_new(struct daemon *daemon)
{
    struct certifier *certifier = NEW0(struct certifier);

    certifier->daemon = daemon;
    return certifier;
}

void certifier_free(struct certifier *certifier)
{
    if (certifier == NULL)
        return;
    while (certifier->holders != NULL)
        forget(certifier, certifier->holders);
    free(certifier);
}
