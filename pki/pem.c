/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "pki/private.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

#define PEM_HEADER "CERTIFICATE"

int pki_to_pem(const struct pki_blob *certificates, size_t count, struct pki_blob *ret, struct err *err)
{
    struct strbuf text = {0};

    for (size_t i = 0; i < count; i++) {
        gnutls_datum_t der = pki_datum(certificates[i].data, certificates[i].size), pem = {0};
        int r = gnutls_pem_base64_encode2(PEM_HEADER, &der, &pem);

        if (r < 0) {
            strbuf_done(&text);
            return pki_gnutls_error(r, "cannot write a certificate", err);
        }
        strbuf_add_bytes(&text, pem.data, pem.size);
        gnutls_free(pem.data);
    }
    ret->size = text.size;
    ret->data = (uint8_t *)strbuf_take(&text);
    return 0;
}

static int read_list(const void *pem, size_t size, gnutls_x509_crt_t *certificates, unsigned *count,
                     struct err *err)
{
    gnutls_datum_t datum = pki_datum(pem, size);
    int r = gnutls_x509_crt_list_import(certificates, count, &datum, GNUTLS_X509_FMT_PEM,
                                        GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);

    if (r == GNUTLS_E_SHORT_MEMORY_BUFFER)
        return err_set(err, -E2BIG, "too many certificates in one file");
    if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == 0)
        return err_set(err, -EBADMSG, "there is no certificate in it (PEM, \"BEGIN CERTIFICATE\")");
    if (r < 0)
        return err_set(err, -EBADMSG, "a certificate in it is damaged");
    *count = r;
    return 0;
}

int pki_from_pem(const void *pem, size_t size, struct pki_blob *ret, size_t max, size_t *ret_count,
                 struct err *err)
{
    gnutls_x509_crt_t certificates[PKI_CHAIN_MAX];
    struct pki_blob blobs[PKI_CHAIN_MAX] = {0};
    unsigned count = max < PKI_CHAIN_MAX ? max : PKI_CHAIN_MAX, exported = 0;
    int r;

    if (size > PKI_PEM_MAX)
        return err_set(err, -EBADMSG, "it has %zu bytes, the limit is %u", size, PKI_PEM_MAX);
    r = read_list(pem, size, certificates, &count, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < count; i++) {
        gnutls_datum_t der = {0};

        if (r >= 0)
            r = gnutls_x509_crt_export2(certificates[i], GNUTLS_X509_FMT_DER, &der);
        gnutls_x509_crt_deinit(certificates[i]);
        if (r < 0)
            continue;
        pki_blob_take(&der, &blobs[exported++]);
    }
    if (r < 0) {
        pki_blobs_done(blobs, exported);
        return pki_gnutls_error(r, "cannot read a certificate", err);
    }
    memcpy(ret, blobs, count * sizeof(blobs[0]));
    *ret_count = count;
    return 0;
}
