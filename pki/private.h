/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of pki/ share. For nobody else. */
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "pki/pki.h"

struct pki_key {
    gnutls_x509_privkey_t key;
};

static inline void certificate_freep(gnutls_x509_crt_t *certificate)
{
    if (*certificate != NULL)
        gnutls_x509_crt_deinit(*certificate);
}

static inline void request_freep(gnutls_x509_crq_t *request)
{
    if (*request != NULL)
        gnutls_x509_crq_deinit(*request);
}

static inline void pubkey_freep(gnutls_pubkey_t *key)
{
    if (*key != NULL)
        gnutls_pubkey_deinit(*key);
}

static inline gnutls_datum_t pki_datum(const void *bytes, size_t size)
{
    return (gnutls_datum_t){.data = (unsigned char *)bytes, .size = size};
}

/* -EIO with what GnuTLS says of its own error code: for what fails on no one's account. */
int pki_gnutls_error(int code, const char *what, struct err *err);

/* Takes over what gnutls_*_export2() has allocated; wipes it there. */
void pki_blob_take(gnutls_datum_t *datum, struct pki_blob *ret);

/* Whether the public key is ECDSA on P-256. -EKEYREJECTED. */
int pki_check_key_kind(gnutls_pubkey_t key, struct err *err);

/* Parsed, and known to be of fleet's form: what pki_read() checks. Freed by certificate_freep(). */
int pki_certificate_open(const void *der, size_t size, gnutls_x509_crt_t *ret, struct pki_info *ret_info,
                         struct err *err);

/* Whether the one has certified the other, directly; when they end is not asked. */
bool pki_is_signed_by(gnutls_x509_crt_t certificate, gnutls_x509_crt_t authority);

/* Parsed, signed by its own key, and of the right kind. Freed by request_freep(). */
int pki_request_open(const void *der, size_t size, gnutls_x509_crq_t *ret, struct err *err);
