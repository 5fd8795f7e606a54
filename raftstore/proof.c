/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/proof.h"

#include <errno.h>
#include <string.h>

int proof_text(const struct tls_stream *tls, bool by_dialler, uint8_t ret[PROOF_TEXT_SIZE])
{
    static const char prefix[] = "fleet: has the authority's key"; /* With its NUL. */

    _Static_assert(sizeof(prefix) + 1 + TLS_BINDING_SIZE <= PROOF_TEXT_SIZE, "there must be room");
    memset(ret, 0, PROOF_TEXT_SIZE);
    memcpy(ret, prefix, sizeof(prefix));
    ret[sizeof(prefix)] = by_dialler ? 'd' : 'a'; /* Or one could be given its own proof back. */
    return tls_stream_binding(tls, ret + PROOF_TEXT_SIZE - TLS_BINDING_SIZE);
}

/* The authority that one who joins has heard of. */
static const struct pki_blob *find_pinned(const struct pki_blob *authorities, size_t count,
                                          const uint8_t *pin)
{
    struct pki_info info;

    for (size_t i = 0; i < count; i++)
        if (pki_read(authorities[i].data, authorities[i].size, &info, NULL) >= 0 &&
            memcmp(info.fingerprint, pin, PKI_PIN_SIZE) == 0)
            return &authorities[i];
    return NULL;
}

int proof_check(const Fleet__Proof *proof, const struct tls_stream *tls, bool by_dialler,
                const struct tls_credentials *credentials, const uint8_t *pin, uint64_t now_ms,
                struct pki_info *ret, struct err *err)
{
    struct pki_blob others[PROOF_AUTHORITIES_MAX];
    const struct pki_blob *roots;
    uint8_t text[PROOF_TEXT_SIZE];
    size_t root_count = 1;

    if (proof == NULL || proof->n_authorities > PROOF_AUTHORITIES_MAX)
        return err_set(err, -EKEYREJECTED, "it does not prove that it has the authority's key");
    for (size_t i = 0; i < proof->n_authorities; i++)
        others[i] = (struct pki_blob){.data = proof->authorities[i].data, .size = proof->authorities[i].len};
    roots = pin != NULL ? find_pinned(others, proof->n_authorities, pin)
                        : tls_credentials_roots(credentials, &root_count);
    if (roots == NULL)
        return err_set(err, -EKEYREJECTED, "it does not show the authority that is expected");
    if (proof_text(tls, by_dialler, text) < 0)
        return err_set(err, -EKEYREJECTED, "its proof cannot be checked");
    return pki_verify_proof(proof->signature.data, proof->signature.len, text, sizeof(text), others,
                            proof->n_authorities, roots, root_count, now_ms, ret, err);
}
