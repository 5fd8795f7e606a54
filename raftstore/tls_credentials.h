/* SPDX-License-Identifier: Apache-2.0 */
/* What a host shows of itself, and whom it believes, in TLS: its key, the certificates that say whose key
 * that is, and the authorities (roots) that it trusts now. Never changes once made; whoever keeps it holds a
 * reference, in any thread. A host with a new certificate makes new ones, and what has begun with the old
 * ones goes on with them. */
#pragma once

#include <gnutls/gnutls.h>

#include "pki/pki.h"

struct tls_credentials;

/* The chain begins with a machine's own certificate. Also shown, behind it: the roots, so that one who joins
 * finds there the one that its token names. All is copied. -EKEYREJECTED: the key is not that certificate's,
 * or it is no machine's, or no root is an authority of its cluster; -EBADMSG: damaged; -E2BIG: more than
 * PKI_CHAIN_MAX. Whether the certificate has ended is not asked here: clocks go wrong, and come right again.
 */
int tls_credentials_new(const struct pki_key *key, const struct pki_blob *chain, size_t chain_count,
                        const struct pki_blob *roots, size_t root_count, struct tls_credentials **ret,
                        struct err *err);

/* Of one who has no certificate yet, and trusts no authority: for a client that knows a pin. */
struct tls_credentials *tls_credentials_new_nobody(void);

struct tls_credentials *tls_credentials_ref(struct tls_credentials *credentials);
void tls_credentials_unref(struct tls_credentials *credentials); /* NULL-safe. */

static inline void tls_credentials_unrefp(struct tls_credentials **credentials)
{
    tls_credentials_unref(*credentials);
}

/* What the own certificate says; NULL of nobody's. Both are valid as long as the reference. */
const struct pki_info *tls_credentials_own(const struct tls_credentials *credentials);
const struct pki_blob *tls_credentials_roots(const struct tls_credentials *credentials, size_t *ret_count);

/* Whether one that was verified before (pki_verify(), pki_verify_proof()), by these roots or others, is still
 * vouched for: a root of these has issued it, or is the one that it was found to lead to. (The one that
 * issued it need not have been a root then: an authority may vouch for the next.) */
bool tls_credentials_vouch(const struct tls_credentials *credentials, const struct pki_info *verified);

/* For tls_session.c. */
gnutls_certificate_credentials_t tls_credentials_gnutls(const struct tls_credentials *credentials);
