/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster's authority for the fuzz targets; made once, for keys take long. */
#pragma once

#include "pki/pki.h"

#define FUZZ_CLUSTER ((const uint8_t *)"0123456789abcdef")

struct fuzz_authority {
    struct pki_key *key;
    struct pki_blob certificate, encoded_key;
};

const struct fuzz_authority *fuzz_authority(void);

/* A certificate for a machine of the cluster, who asks for it by 'request' (PKCS#10). The caller frees it. */
struct pki_blob fuzz_authority_certify(const char *machine_id, const struct pki_blob *request);
