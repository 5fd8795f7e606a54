/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/founding.h"

#include <assert.h>
#include <string.h>

#include "base/cleanup.h"
#include "fleetd/authority.h"

/* Its own certificate: it is a machine like the others. */
static int certify(struct credentials *credentials, const struct founding *founding,
                   const struct pki_key *authority_key, const struct pki_blob *authority, struct err *err)
{
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE},
                                  .not_after_ms = founding->now_ms + founding->lifetime_ms};
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0}, request = {0};
    struct credentials_issued issued = {
        .chain = &certificate, .chain_count = 1, .roots = authority, .root_count = 1};
    int r = credentials_request(credentials, &request, err);

    assert(strlen(founding->machine_id) < sizeof subject.name.id);
    memcpy(subject.name.cluster_id, founding->cluster_id, CLUSTER_ID_SIZE);
    strcpy(subject.name.id, founding->machine_id);
    if (r >= 0)
        r = pki_sign(authority->data, authority->size, authority_key, request.data, request.size, &subject,
                     &certificate, NULL, err);
    if (r >= 0)
        r = credentials_take(credentials, &issued, founding->cluster_id, founding->machine_id,
                             founding->now_ms, err);
    return r;
}

static ProtobufCBinaryData take_blob(struct pki_blob *blob)
{
    ProtobufCBinaryData data = {.len = blob->size, .data = blob->data};

    *blob = (struct pki_blob){0};
    return data;
}

int founding_begin(struct credentials *credentials, const struct founding *founding, Fleet__Authority *ret,
                   struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0}, encoded = {0};
    int r = authority_found(founding->cluster_id, founding->now_ms, &key, &certificate, err);

    if (r >= 0)
        r = pki_key_encode(key, &encoded, err);
    if (r >= 0 && founding->keeps_key)
        r = credentials_save_authority(credentials, key, err);
    if (r >= 0)
        r = certify(credentials, founding, key, &certificate, err);
    if (r < 0)
        return r;
    fleet__authority__init(ret);
    ret->certificate = take_blob(&certificate);
    ret->private_key = take_blob(&encoded);
    return 0;
}

void founding_done(Fleet__Authority *authority)
{
    struct pki_blob certificate = {authority->certificate.data, authority->certificate.len},
                    key = {authority->private_key.data, authority->private_key.len};

    pki_blob_done(&certificate);
    pki_blob_done(&key);
    fleet__authority__init(authority);
}
