/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/founding.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "fleetd/authority.h"

/* It is a machine like the others; only that nobody else is there yet to sign for it. */
static int certify_self(struct credentials *credentials, const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE],
                        const Fleet__RegisterMachine *machine, const struct pki_blob *authority,
                        const struct pki_key *authority_key, uint64_t now_ms, uint64_t lifetime_ms,
                        struct err *err)
{
    _cleanup_(authority_hosts_done) struct authority_hosts hosts = {0};
    struct pki_subject subject = {
        .name = {.kind = PKI_MACHINE}, .hosts = hosts.names, .not_after_ms = now_ms + lifetime_ms};
    struct pki_blob certificate = {0}, request = {0};
    struct credentials_issued issued = {
        .chain = &certificate, .chain_count = 1, .roots = authority, .root_count = 1};
    int r = credentials_request(credentials, &request, err);

    memcpy(subject.name.cluster_id, cluster_id, sizeof subject.name.cluster_id);
    snprintf(subject.name.id, sizeof subject.name.id, "%s", machine->machine_id);
    authority_hosts(machine, &hosts);
    subject.host_count = hosts.count;
    if (r >= 0)
        r = pki_sign(authority->data, authority->size, authority_key, request.data, request.size, &subject,
                     &certificate, NULL, err);
    if (r >= 0)
        r = credentials_take(credentials, &issued, cluster_id, machine->machine_id, now_ms, err);
    pki_blob_done(&request);
    pki_blob_done(&certificate);
    return r;
}

int founding_certify(struct credentials *credentials, const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE],
                     const Fleet__RegisterMachine *machine, uint64_t now_ms, uint64_t lifetime_ms,
                     struct pki_key **ret_key, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    struct pki_blob authority = {0};
    int r = authority_found(cluster_id, now_ms, &key, &authority, err);

    if (r >= 0)
        r = certify_self(credentials, cluster_id, machine, &authority, key, now_ms, lifetime_ms, err);
    pki_blob_done(&authority);
    if (r < 0)
        return r;
    *ret_key = TAKE_PTR(key);
    return 0;
}
