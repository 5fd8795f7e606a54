/* SPDX-License-Identifier: Apache-2.0 */
/* Proofs that somebody has an authority's key. */
#include <config.h>

#include "pki/private.h"

#include <errno.h>
#include <string.h>

int pki_prove(const struct pki_key *authority_key, const void *text, size_t text_size, struct pki_blob *ret,
              struct err *err)
{
    gnutls_datum_t datum = pki_datum(text, text_size), signature = {0};
    gnutls_privkey_t key;
    int r = gnutls_privkey_init(&key);

    if (r < 0)
        return pki_gnutls_error(r, "cannot sign", err);
    r = gnutls_privkey_import_x509(key, authority_key->key, 0);
    if (r >= 0)
        r = gnutls_privkey_sign_data2(key, GNUTLS_SIGN_ECDSA_SHA256, 0, &datum, &signature);
    gnutls_privkey_deinit(key);
    if (r < 0)
        return pki_gnutls_error(r, "cannot sign", err);
    pki_blob_take(&signature, ret);
    return 0;
}

static bool has_signed(gnutls_x509_crt_t certificate, const gnutls_datum_t *text, const gnutls_datum_t *proof)
{
    _cleanup_(pubkey_freep) gnutls_pubkey_t key = NULL;

    return gnutls_pubkey_init(&key) >= 0 && gnutls_pubkey_import_x509(key, certificate, 0) >= 0 &&
           gnutls_pubkey_verify_data2(key, GNUTLS_SIGN_ECDSA_SHA256, 0, text, proof) >= 0;
}

/* Whether this one is certified by a root: which; and when the path ends. */
static bool is_certified(gnutls_x509_crt_t certificate, struct pki_info *info, const struct pki_blob *roots,
                         size_t root_count, uint64_t *ret_until_ms)
{
    for (size_t i = 0; i < root_count; i++) {
        _cleanup_(certificate_freep) gnutls_x509_crt_t root = NULL;
        struct pki_info root_info;

        if (pki_certificate_open(roots[i].data, roots[i].size, &root, &root_info, NULL) < 0 ||
            root_info.name.kind != PKI_AUTHORITY ||
            memcmp(root_info.name.cluster_id, info->name.cluster_id, PKI_CLUSTER_ID_SIZE) != 0 ||
            memcmp(root_info.key_id, info->issuer, PKI_KEY_ID_SIZE) != 0 ||
            !pki_is_signed_by(certificate, root))
            continue;
        *ret_until_ms =
            root_info.not_after_ms < info->not_after_ms ? root_info.not_after_ms : info->not_after_ms;
        memcpy(info->root, root_info.key_id, PKI_KEY_ID_SIZE);
        return true;
    }
    return false;
}

static int check_end(uint64_t until_ms, uint64_t now_ms, struct err *err)
{
    return now_ms < until_ms
               ? 0
               : err_set(err, -EKEYEXPIRED, "the authority by whose key it proves itself has ended");
}

int pki_verify_proof(const void *proof, size_t proof_size, const void *text, size_t text_size,
                     const struct pki_blob *others, size_t other_count, const struct pki_blob *roots,
                     size_t root_count, uint64_t now_ms, struct pki_info *ret, struct err *err)
{
    gnutls_datum_t signature = pki_datum(proof, proof_size), datum = pki_datum(text, text_size);
    size_t count = root_count + other_count;

    if (root_count == 0 || root_count > PKI_ROOTS_MAX)
        return err_set(err, -EINVAL, "this host trusts %zu authorities, which must be 1 to %u", root_count,
                       PKI_ROOTS_MAX);
    if (proof_size == 0 || proof_size > PKI_PROOF_MAX || other_count > PKI_CHAIN_MAX)
        return err_set(err, -EKEYREJECTED, "its proof that it has the authority's key makes no sense");
    for (size_t i = 0; i < count; i++) {
        const struct pki_blob *blob = i < root_count ? &roots[i] : &others[i - root_count];
        _cleanup_(certificate_freep) gnutls_x509_crt_t certificate = NULL;
        struct pki_info info;
        uint64_t until_ms;
        int r;

        if (pki_certificate_open(blob->data, blob->size, &certificate, &info, NULL) < 0 ||
            info.name.kind != PKI_AUTHORITY || !has_signed(certificate, &datum, &signature))
            continue;
        until_ms = info.not_after_ms;
        if (i < root_count)
            memcpy(info.root, info.key_id, PKI_KEY_ID_SIZE);
        else if (!is_certified(certificate, &info, roots, root_count, &until_ms))
            continue;
        r = check_end(until_ms, now_ms, err);
        if (r == 0)
            *ret = info;
        return r;
    }
    return err_set(err, -EKEYREJECTED, "it does not prove that it has the authority's key");
}
