/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/authority.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/times.h"

#define LIFETIME_MS (24ull * 3600 * 1000)

const struct fuzz_authority *fuzz_authority(void)
{
    static struct fuzz_authority made;

    if (made.key == NULL &&
        (pki_key_new(&made.key, NULL) < 0 ||
         pki_authority_new(FUZZ_CLUSTER, made.key, wall_ms() + LIFETIME_MS, &made.certificate, NULL) < 0 ||
         pki_key_encode(made.key, &made.encoded_key, NULL) < 0))
        abort();
    return &made;
}

struct pki_blob fuzz_authority_certify(const char *machine_id, const struct pki_blob *request)
{
    const struct fuzz_authority *authority = fuzz_authority();
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE}, .not_after_ms = wall_ms() + LIFETIME_MS};
    struct pki_blob certificate = {0};

    snprintf(subject.name.id, sizeof subject.name.id, "%s", machine_id);
    memcpy(subject.name.cluster_id, FUZZ_CLUSTER, sizeof subject.name.cluster_id);
    if (pki_sign(authority->certificate.data, authority->certificate.size, authority->key, request->data,
                 request->size, &subject, &certificate, NULL, NULL) < 0)
        abort();
    return certificate;
}
