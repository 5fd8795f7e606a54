/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates that pki/ would not make: by hand, with GnuTLS, each thing as told. A failure ends the test.
 */
#pragma once

#include <gnutls/x509.h>

#include "pki/pki.h"

#define FORGE_SANS_MAX 40

struct forge_san {
    gnutls_x509_subject_alt_name_t type;
    const void *data;
    size_t size;
};

struct forge {
    struct forge_san sans[FORGE_SANS_MAX];
    size_t san_count;
    const char *purposes[6]; /* OIDs of extended key usage, up to the first NULL. */
    unsigned usage;
    bool ca;
    int levels; /* pathLenConstraint, -1: none. */
    uint64_t not_after_ms;
    gnutls_digest_algorithm_t digest;
    int version;
    bool without_ids, wrong_id, critical_unknown;
    const struct pki_key *key;     /* Of whom it is for. */
    const struct pki_blob *issuer; /* NULL: itself. */
    const struct pki_key *issuer_key;
};

/* Just as pki/ makes it: a machine's (or with 'ca' an authority's) of this URI. */
struct forge forge_machine(const char *uri, const struct pki_key *key, const struct pki_blob *issuer,
                           const struct pki_key *issuer_key);
struct forge forge_authority(const char *uri, const struct pki_key *key, const struct pki_blob *issuer,
                             const struct pki_key *issuer_key);
void forge_add_uri(struct forge *forge, const char *uri);
struct pki_blob forge_certificate(const struct forge *forge);

/* A key of another kind. */
struct pki_key *forge_key(gnutls_pk_algorithm_t algorithm, unsigned bits);
