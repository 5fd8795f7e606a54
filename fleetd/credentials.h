/* SPDX-License-Identifier: Apache-2.0 */
/* What this host proves itself by, and whom it believes: its key, its certificate and what stands above it,
 * and the authorities that it trusts. Kept in <data_dir>/tls (0700):
 *
 *      host.key        the host's own, made here, never leaves it
 *      host.crt        its certificate, then those that prove it
 *      authority.crt   the authorities that are trusted now
 *      authority.key   only while a cluster is founded: until the registry has it
 *
 * Each file is replaced whole. The key stays the same for as long as the directory does, so that no moment of
 * a replacement leaves a certificate beside another key. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "pki/pki.h"

#define CREDENTIALS_DIR "tls"

struct credentials {
    char *directory;
    struct pki_key *key; /* NULL: none yet. */
    struct pki_blob chain[PKI_CHAIN_MAX], roots[PKI_ROOTS_MAX];
    size_t chain_count, root_count;                            /* 0: it has no certificate. */
    uint8_t fingerprints[PKI_ROOTS_MAX][PKI_FINGERPRINT_SIZE]; /* Of the roots. */
    struct pki_info info;                                      /* Of its certificate. */
};

/* What the directory holds; nothing, if it is not there. -EBADMSG and others, with a text: it is damaged. */
int credentials_load(const char *data_dir, struct credentials *ret, struct err *err);
void credentials_done(struct credentials *credentials);

bool credentials_complete(const struct credentials *credentials); /* A key, and a certificate for it... */
bool credentials_ended(const struct credentials *credentials, uint64_t now_ms); /* ...that holds no more. */

/* Makes directory and key if they are missing, and a request for a certificate. */
int credentials_request(struct credentials *credentials, struct pki_blob *ret, struct err *err);

struct credentials_issued {
    const struct pki_blob *chain, *roots; /* Own certificate first. */
    size_t chain_count, root_count;
};

/* Takes over what was issued, in memory and on the disk. Nothing is changed if it is not for this key and
 * this machine of this cluster, or does not hold now (wall clock): -EKEYREJECTED, -EKEYEXPIRED with a text.
 */
int credentials_take(struct credentials *credentials, const struct credentials_issued *issued,
                     const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const char *machine_id, uint64_t now_ms,
                     struct err *err);

/* Other authorities are trusted from now on. 1: it was so; 0: they are the same as before. -EBADMSG,
 * -EKEYREJECTED, with a text: what is given is none, and nothing has changed. A list that does
 * not have the one that has certified this host is taken, too: it is to ask for another certificate. */
int credentials_trust(struct credentials *credentials, const struct pki_blob *roots, size_t count,
                      struct err *err);

/* The key of the authority of a cluster that is being founded; 'ret' is PKCS#8. */
int credentials_save_authority(struct credentials *credentials, const struct pki_key *key, struct err *err);
int credentials_load_authority(const struct credentials *credentials, struct pki_blob *ret, struct err *err);
void credentials_forget_authority(const struct credentials *credentials);
