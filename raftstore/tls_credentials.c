/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/tls_credentials.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/abstract.h>

#include "base/alloc.h"

struct tls_credentials {
    atomic_uint refs;
    gnutls_certificate_credentials_t gnutls;
    struct pki_info own; /* name.kind PKI_NOBODY: nobody's. */
    struct pki_blob roots[PKI_ROOTS_MAX];
    uint8_t root_keys[PKI_ROOTS_MAX][PKI_KEY_ID_SIZE];
    size_t root_count;
};

/* In this order: several ways may lead up from the first, so GnuTLS must not take them for one. */
struct shown {
    gnutls_pcert_st items[PKI_CHAIN_MAX];
    unsigned count;
};

static void shown_done(struct shown *shown)
{
    for (unsigned i = 0; i < shown->count; i++)
        gnutls_pcert_deinit(&shown->items[i]);
}

static int shown_add(struct shown *shown, const struct pki_blob *blob, struct err *err)
{
    const gnutls_datum_t der = {.data = blob->data, .size = blob->size};
    int r;

    if (shown->count == PKI_CHAIN_MAX)
        return err_set(err, -E2BIG, "more than %u certificates", PKI_CHAIN_MAX);
    r = gnutls_pcert_import_x509_raw(&shown->items[shown->count], &der, GNUTLS_X509_FMT_DER, 0);
    if (r < 0)
        return err_set(err, -EBADMSG, "a certificate is damaged: %s", gnutls_strerror(r));
    shown->count++;
    return 0;
}

static bool has_blob(const struct pki_blob *blobs, size_t count, const struct pki_blob *blob)
{
    for (size_t i = 0; i < count; i++)
        if (blobs[i].size == blob->size && memcmp(blobs[i].data, blob->data, blob->size) == 0)
            return true;
    return false;
}

static int set_key(struct tls_credentials *credentials, const struct pki_key *key, struct shown *shown,
                   struct err *err)
{
    _cleanup_(pki_blob_done) struct pki_blob der = {0};
    gnutls_privkey_t own;
    gnutls_datum_t datum;
    int r;

    r = pki_key_encode(key, &der, err);
    if (r < 0)
        return r;
    datum = (gnutls_datum_t){.data = der.data, .size = der.size};
    if (gnutls_privkey_init(&own) < 0)
        abort(); /* Out of memory. */
    r = gnutls_privkey_import_x509_raw(own, &datum, GNUTLS_X509_FMT_DER, NULL, GNUTLS_PKCS_PLAIN);
    if (r >= 0)
        r = gnutls_certificate_set_key(credentials->gnutls, NULL, 0, shown->items, (int)shown->count, own);
    if (r < 0) {
        gnutls_privkey_deinit(own);
        return err_set(err, -EBADMSG, "the key and the certificate are of no use: %s", gnutls_strerror(r));
    }
    shown->count = 0; /* They are the credentials' own now, and so is the key. */
    return 0;
}

static int set_roots(struct tls_credentials *credentials, const struct pki_blob *roots, size_t count,
                     struct err *err)
{
    if (count == 0 || count > PKI_ROOTS_MAX)
        return err_set(err, -E2BIG, "%zu authorities are to be trusted, which must be 1 to %u", count,
                       PKI_ROOTS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct pki_info info;
        int r = pki_read(roots[i].data, roots[i].size, &info, err);

        if (r == 0 &&
            (info.name.kind != PKI_AUTHORITY ||
             memcmp(info.name.cluster_id, credentials->own.name.cluster_id, PKI_CLUSTER_ID_SIZE) != 0))
            r = err_set(err, -EKEYREJECTED, "not an authority of this host's cluster");
        if (r < 0)
            return err_prefix(err, r, "an authority that is to be trusted");
        credentials->roots[i] =
            (struct pki_blob){.data = xmemdup(roots[i].data, roots[i].size), .size = roots[i].size};
        memcpy(credentials->root_keys[credentials->root_count], info.key_id, PKI_KEY_ID_SIZE);
        credentials->root_count++;
    }
    return 0;
}

static struct tls_credentials *credentials_alloc(void)
{
    struct tls_credentials *credentials = NEW0(struct tls_credentials);

    atomic_init(&credentials->refs, 1);
    if (gnutls_certificate_allocate_credentials(&credentials->gnutls) < 0)
        abort(); /* Out of memory. */
    return credentials;
}

int tls_credentials_new(const struct pki_key *key, const struct pki_blob *chain, size_t chain_count,
                        const struct pki_blob *roots, size_t root_count, struct tls_credentials **ret,
                        struct err *err)
{
    _cleanup_(tls_credentials_unrefp) struct tls_credentials *credentials = credentials_alloc();
    _cleanup_(shown_done) struct shown shown = {0};
    int r;

    if (chain_count == 0)
        return err_set(err, -EBADMSG, "there is no certificate");
    r = pki_read(chain[0].data, chain[0].size, &credentials->own, err);
    if (r == 0 && credentials->own.name.kind != PKI_MACHINE)
        r = err_set(err, -EKEYREJECTED, "the certificate is not a machine's");
    if (r == 0)
        r = pki_key_fits(key, chain[0].data, chain[0].size, err);
    if (r == 0)
        r = set_roots(credentials, roots, root_count, err);
    for (size_t i = 0; i < chain_count && r == 0; i++)
        r = shown_add(&shown, &chain[i], err);
    for (size_t i = 0; i < root_count && r == 0; i++)
        if (!has_blob(chain, chain_count, &roots[i]))
            r = shown_add(&shown, &roots[i], err);
    if (r == 0)
        r = set_key(credentials, key, &shown, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(credentials);
    return 0;
}

struct tls_credentials *tls_credentials_new_nobody(void)
{
    return credentials_alloc();
}

struct tls_credentials *tls_credentials_ref(struct tls_credentials *credentials)
{
    atomic_fetch_add(&credentials->refs, 1);
    return credentials;
}

void tls_credentials_unref(struct tls_credentials *credentials)
{
    if (credentials == NULL || atomic_fetch_sub(&credentials->refs, 1) > 1)
        return;
    gnutls_certificate_free_credentials(credentials->gnutls);
    pki_blobs_done(credentials->roots, credentials->root_count);
    free(credentials);
}

const struct pki_info *tls_credentials_own(const struct tls_credentials *credentials)
{
    return credentials->own.name.kind != PKI_NOBODY ? &credentials->own : NULL;
}

const struct pki_blob *tls_credentials_roots(const struct tls_credentials *credentials, size_t *ret_count)
{
    *ret_count = credentials->root_count;
    return credentials->roots;
}

bool tls_credentials_vouch(const struct tls_credentials *credentials, const struct pki_info *verified)
{
    const uint8_t *by = verified->name.kind == PKI_AUTHORITY ? verified->key_id : verified->issuer;

    for (size_t i = 0; i < credentials->root_count; i++)
        if (memcmp(credentials->root_keys[i], by, PKI_KEY_ID_SIZE) == 0 ||
            memcmp(credentials->root_keys[i], verified->root, PKI_KEY_ID_SIZE) == 0)
            return true;
    return false;
}

gnutls_certificate_credentials_t tls_credentials_gnutls(const struct tls_credentials *credentials)
{
    return credentials->gnutls;
}
