/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "pki/private.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

void pki_blob_done(struct pki_blob *blob)
{
    if (blob->data != NULL)
        explicit_bzero(blob->data, blob->size);
    free(blob->data);
    *blob = (struct pki_blob){0};
}

void pki_blobs_done(struct pki_blob *blobs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pki_blob_done(&blobs[i]);
}

void pki_blob_take(gnutls_datum_t *datum, struct pki_blob *ret)
{
    ret->data = xmalloc(datum->size + 1);
    memcpy(ret->data, datum->data, datum->size);
    ret->data[datum->size] = '\0'; /* For those that are text. */
    ret->size = datum->size;
    gnutls_memset(datum->data, 0, datum->size);
    gnutls_free(datum->data);
    *datum = (gnutls_datum_t){0};
}

int pki_gnutls_error(int code, const char *what, struct err *err)
{
    return err_set(err, -EIO, "%s: %s", what, gnutls_strerror(code));
}

int pki_check_key_kind(gnutls_pubkey_t key, struct err *err)
{
    gnutls_ecc_curve_t curve;

    if (gnutls_pubkey_get_pk_algorithm(key, NULL) != GNUTLS_PK_ECDSA ||
        gnutls_pubkey_export_ecc_raw2(key, &curve, NULL, NULL, 0) < 0 || curve != GNUTLS_ECC_CURVE_SECP256R1)
        return err_set(err, -EKEYREJECTED, "its key is not ECDSA on P-256");
    return 0;
}

static struct pki_key *key_alloc(void)
{
    struct pki_key *key = NEW0(struct pki_key);

    if (gnutls_x509_privkey_init(&key->key) < 0)
        abort(); /* Out of memory. */
    return key;
}

void pki_key_free(struct pki_key *key)
{
    if (key == NULL)
        return;
    gnutls_x509_privkey_deinit(key->key); /* Which overwrites the secret numbers. */
    free(key);
}

int pki_key_new(struct pki_key **ret, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = key_alloc();
    int r;

    r = gnutls_x509_privkey_generate(key->key, GNUTLS_PK_ECDSA,
                                     GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make a key", err);
    *ret = TAKE_PTR(key);
    return 0;
}

static int key_export(const struct pki_key *key, gnutls_x509_crt_fmt_t format, struct pki_blob *ret,
                      struct err *err)
{
    gnutls_datum_t bytes = {0};
    int r = gnutls_x509_privkey_export2_pkcs8(key->key, format, NULL, GNUTLS_PKCS_PLAIN, &bytes);

    if (r < 0)
        return pki_gnutls_error(r, "cannot write a key", err);
    pki_blob_take(&bytes, ret);
    return 0;
}

int pki_key_encode(const struct pki_key *key, struct pki_blob *ret, struct err *err)
{
    return key_export(key, GNUTLS_X509_FMT_DER, ret, err);
}

int pki_key_to_pem(const struct pki_key *key, struct pki_blob *ret, struct err *err)
{
    return key_export(key, GNUTLS_X509_FMT_PEM, ret, err);
}

/* That the point is the secret number's, too: a key that was put together wrongly would sign rubbish. */
static int key_check(const struct pki_key *key, struct err *err)
{
    gnutls_ecc_curve_t curve;
    gnutls_datum_t x = {0}, y = {0}, k = {0};

    if (gnutls_x509_privkey_export_ecc_raw(key->key, &curve, &x, &y, &k) < 0)
        return err_set(err, -EBADMSG, "the key is not ECDSA on P-256");
    gnutls_memset(k.data, 0, k.size);
    gnutls_free(x.data);
    gnutls_free(y.data);
    gnutls_free(k.data);
    if (curve != GNUTLS_ECC_CURVE_SECP256R1)
        return err_set(err, -EBADMSG, "the key is not ECDSA on P-256");
    if (gnutls_x509_privkey_verify_params(key->key) < 0)
        return err_set(err, -EBADMSG, "the key is damaged");
    return 0;
}

static int key_import(const void *bytes, size_t size, gnutls_x509_crt_fmt_t format, struct pki_key **ret,
                      struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = key_alloc();
    gnutls_datum_t datum = pki_datum(bytes, size);
    int r;

    r = gnutls_x509_privkey_import_pkcs8(key->key, &datum, format, NULL, GNUTLS_PKCS_PLAIN);
    if (r == GNUTLS_E_DECRYPTION_FAILED)
        return err_set(err, -EBADMSG, "the key is encrypted; it must be a plain one");
    if (r < 0)
        return err_set(err, -EBADMSG, "not a private key (PKCS#8%s)",
                       format == GNUTLS_X509_FMT_PEM ? ", \"BEGIN PRIVATE KEY\"" : "");
    r = key_check(key, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(key);
    return 0;
}

int pki_key_decode(const void *der, size_t size, struct pki_key **ret, struct err *err)
{
    if (size > PKI_KEY_MAX)
        return err_set(err, -EBADMSG, "the key has %zu bytes, the limit is %u", size, PKI_KEY_MAX);
    return key_import(der, size, GNUTLS_X509_FMT_DER, ret, err);
}

int pki_key_from_pem(const void *pem, size_t size, struct pki_key **ret, struct err *err)
{
    if (size > PKI_PEM_MAX)
        return err_set(err, -EBADMSG, "the key file has %zu bytes, the limit is %u", size, PKI_PEM_MAX);
    return key_import(pem, size, GNUTLS_X509_FMT_PEM, ret, err);
}

int pki_key_fits(const struct pki_key *key, const void *certificate, size_t size, struct err *err)
{
    uint8_t id[PKI_KEY_ID_SIZE];
    size_t id_size = sizeof(id);
    struct pki_info info;
    int r;

    r = pki_read(certificate, size, &info, err);
    if (r < 0)
        return r;
    r = gnutls_x509_privkey_get_key_id(key->key, GNUTLS_KEYID_USE_SHA256, id, &id_size);
    if (r < 0)
        return pki_gnutls_error(r, "cannot read a key", err);
    if (memcmp(id, info.key_id, sizeof(id)) != 0)
        return err_set(err, -EKEYREJECTED, "the certificate is not for this key");
    return 0;
}
