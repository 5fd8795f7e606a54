/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/authority.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/hmac.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/str.h"
#include "raftstore/limits.h"

/* ---- certificates ---- */

int authority_found(const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t now_ms, struct pki_key **ret_key,
                    struct pki_blob *ret, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r = pki_key_new(&key, err);

    if (r >= 0)
        r = pki_authority_new(cluster_id, key, now_ms + AUTHORITY_LIFETIME_MS, ret, err);
    if (r < 0)
        return err_prefix(err, r, "cannot make the cluster's authority");
    *ret_key = TAKE_PTR(key);
    return 0;
}

static void add_host(struct authority_hosts *hosts, const char *host)
{
    for (size_t i = 0; i < hosts->count; i++)
        if (streq(hosts->names[i], host))
            return;
    if (host[0] != '\0' && strlen(host) <= PKI_HOST_MAX)
        hosts->names[hosts->count++] = host;
}

/* "host:port" or "[address]:port". */
static char *host_of(const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t size = colon != NULL ? (size_t)(colon - address) : strlen(address);

    if (size >= 2 && address[0] == '[' && address[size - 1] == ']')
        return xstrndup(address + 1, size - 2);
    return xstrndup(address, size);
}

void authority_hosts(const Fleet__RegisterMachine *machine, struct authority_hosts *ret)
{
    *ret = (struct authority_hosts){.address = host_of(machine->cluster_address)};
    add_host(ret, machine->hostname);
    add_host(ret, machine->public_ip);
    add_host(ret, ret->address);
}

void authority_hosts_done(struct authority_hosts *hosts)
{
    free(hosts->address);
    *hosts = (struct authority_hosts){0};
}

int authority_certify(const struct registry *registry, const Fleet__RegisterMachine *machine,
                      const ProtobufCBinaryData *request, uint64_t now_ms, struct pki_blob *ret,
                      struct err *err)
{
    const struct registry_authority *authority = &registry_authorities(registry)->issuing;
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(authority_hosts_done) struct authority_hosts hosts = {0};
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE}, .hosts = hosts.names};
    int r;

    if (request->len == 0 || request->len > PKI_REQUEST_MAX)
        return err_set(err, -EINVAL, "a request for a certificate of %zu bytes makes no sense", request->len);
    assert(strlen(machine->machine_id) < sizeof subject.name.id);
    memcpy(subject.name.cluster_id, registry_cluster_id(registry), sizeof subject.name.cluster_id);
    strcpy(subject.name.id, machine->machine_id);
    authority_hosts(machine, &hosts);
    subject.host_count = hosts.count;
    subject.not_after_ms = now_ms + registry_setting_number(registry, SETTING_CERTIFICATE_LIFETIME);
    r = pki_key_decode(authority->private_key, authority->private_key_size, &key, err);
    if (r >= 0)
        r = pki_sign(authority->certificate, authority->certificate_size, key, request->data, request->len,
                     &subject, ret, NULL, err);
    return r;
}

static void add(ProtobufCBinaryData *list, size_t *count, const uint8_t *bytes, size_t size)
{
    if (bytes != NULL)
        list[(*count)++] = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)bytes};
}

void authority_bundle(const struct registry *registry, struct authority_bundle *ret)
{
    const struct registry_authorities *known = registry_authorities(registry);

    *ret = (struct authority_bundle){.chain_count = 1};
    /* Roots are shown anyway (tls_credentials.h). The old one, by this also when it is no root any more:
     * tokens of its time ask for it. */
    add(ret->chain, &ret->chain_count, known->issuing.cross, known->issuing.cross_size);
    add(ret->chain, &ret->chain_count, known->old.certificate, known->old.certificate_size);
    if (known->old_trusted)
        add(ret->roots, &ret->root_count, known->old.certificate, known->old.certificate_size);
    add(ret->roots, &ret->root_count, known->issuing.certificate, known->issuing.certificate_size);
    add(ret->roots, &ret->root_count, known->next.certificate, known->next.certificate_size);
}

/* ---- the next one ---- */

static ProtobufCBinaryData take_blob(struct pki_blob *blob)
{
    ProtobufCBinaryData data = {.len = blob->size, .data = blob->data};

    *blob = (struct pki_blob){0};
    return data;
}

static int make_next(const struct registry *registry, uint64_t now_ms, struct pki_blob *certificate,
                     struct pki_blob *private_key, struct pki_blob *cross, struct err *err)
{
    const struct registry_authority *issuing = &registry_authorities(registry)->issuing;
    _cleanup_(pki_key_freep) struct pki_key *key = NULL, *issuing_key = NULL;
    int r = authority_found(registry_cluster_id(registry), now_ms, &key, certificate, err);

    if (r >= 0)
        r = pki_key_encode(key, private_key, err);
    if (r >= 0)
        r = pki_key_decode(issuing->private_key, issuing->private_key_size, &issuing_key, err);
    if (r >= 0)
        r = pki_authority_cross(certificate->data, certificate->size, issuing->certificate,
                                issuing->certificate_size, issuing_key, cross, err);
    return r;
}

int authority_next(const struct registry *registry, uint64_t now_ms, Fleet__Authority *ret, struct err *err)
{
    struct pki_blob certificate = {0}, private_key = {0}, cross = {0};
    int r = make_next(registry, now_ms, &certificate, &private_key, &cross, err);

    if (r >= 0) {
        fleet__authority__init(ret);
        ret->certificate = take_blob(&certificate);
        ret->private_key = take_blob(&private_key);
        ret->cross = take_blob(&cross);
    }
    pki_blob_done(&certificate);
    pki_blob_done(&private_key);
    pki_blob_done(&cross);
    return r;
}

void authority_next_done(Fleet__Authority *authority)
{
    explicit_bzero(authority->private_key.data, authority->private_key.len);
    free(authority->private_key.data);
    free(authority->certificate.data);
    free(authority->cross.data);
}

/* ---- tokens ---- */

void authority_make_token(const struct registry *registry, const uint8_t request_id[REQUEST_ID_SIZE],
                          struct join_token *ret)
{
    static const char purpose[] = "fleet join token";
    const struct registry_authority *authority = &registry_authorities(registry)->issuing;
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct hmac_sha256_ctx ctx;

    hmac_sha256_set_key(&ctx, authority->private_key_size, authority->private_key);
    hmac_sha256_update(&ctx, sizeof purpose, (const uint8_t *)purpose);
    hmac_sha256_update(&ctx, REQUEST_ID_SIZE, request_id);
    hmac_sha256_digest(&ctx, sizeof digest, digest);
    memcpy(ret->secret, digest, sizeof ret->secret);
    memcpy(ret->pin, registry_pinned_authority(registry)->fingerprint, sizeof ret->pin);
    explicit_bzero(&ctx, sizeof ctx);
    explicit_bzero(digest, sizeof digest);
}
