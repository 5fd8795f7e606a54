/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "pki/private.h"

#include <errno.h>

#define PEM_HEADER "CERTIFICATE REQUEST"

int pki_request_new(const struct pki_key *key, struct pki_blob *ret, struct err *err)
{
    _cleanup_(request_freep) gnutls_x509_crq_t request = NULL;
    gnutls_datum_t der = {0};
    int r;

    r = gnutls_x509_crq_init(&request);
    if (r >= 0)
        r = gnutls_x509_crq_set_version(request, 1);
    if (r >= 0)
        r = gnutls_x509_crq_set_key(request, key->key);
    if (r >= 0)
        r = gnutls_x509_crq_sign2(request, key->key, GNUTLS_DIG_SHA256, 0);
    if (r >= 0)
        r = gnutls_x509_crq_export2(request, GNUTLS_X509_FMT_DER, &der);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make a certificate request", err);
    pki_blob_take(&der, ret);
    return 0;
}

int pki_request_to_pem(const struct pki_blob *request, struct pki_blob *ret, struct err *err)
{
    gnutls_datum_t der = pki_datum(request->data, request->size), pem = {0};
    int r = gnutls_pem_base64_encode2(PEM_HEADER, &der, &pem);

    if (r < 0)
        return pki_gnutls_error(r, "cannot write a certificate request", err);
    pki_blob_take(&pem, ret);
    return 0;
}

int pki_request_from_pem(const void *pem, size_t size, struct pki_blob *ret, struct err *err)
{
    gnutls_datum_t datum = pki_datum(pem, size), der = {0};

    if (size > PKI_PEM_MAX)
        return err_set(err, -EBADMSG, "it has %zu bytes, the limit is %u", size, PKI_PEM_MAX);
    if (gnutls_pem_base64_decode2(PEM_HEADER, &datum, &der) < 0)
        return err_set(err, -EBADMSG,
                       "there is no certificate request in it (PEM, \"BEGIN CERTIFICATE REQUEST\")");
    pki_blob_take(&der, ret);
    return 0;
}

int pki_request_open(const void *der, size_t size, gnutls_x509_crq_t *ret, struct err *err)
{
    _cleanup_(request_freep) gnutls_x509_crq_t request = NULL;
    _cleanup_(pubkey_freep) gnutls_pubkey_t key = NULL;
    gnutls_datum_t datum = pki_datum(der, size);
    int r;

    if (size > PKI_REQUEST_MAX)
        return err_set(err, -EBADMSG, "the certificate request has %zu bytes, the limit is %u", size,
                       PKI_REQUEST_MAX);
    r = gnutls_x509_crq_init(&request);
    if (r < 0)
        return pki_gnutls_error(r, "cannot read a certificate request", err);
    if (gnutls_x509_crq_import(request, &datum, GNUTLS_X509_FMT_DER) < 0)
        return err_set(err, -EBADMSG, "not a certificate request, or a damaged one");
    if (gnutls_pubkey_init(&key) < 0 || gnutls_pubkey_import_x509_crq(key, request, 0) < 0)
        return err_set(err, -EBADMSG, "the certificate request's key is damaged");
    if (pki_check_key_kind(key, err) < 0)
        return err_prefix(err, -EBADMSG, "the certificate request");
    if (gnutls_x509_crq_verify(request, 0) < 0)
        return err_set(err, -EBADMSG, "the certificate request is not signed by its own key");
    *ret = TAKE_PTR(request);
    return 0;
}
