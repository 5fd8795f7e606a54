/* SPDX-License-Identifier: Apache-2.0 */
/* What a certificate says. Everything that a certificate of ours has is demanded, also by who only reads it:
 * so what passes here means one thing. */
#include <config.h>

#include "pki/private.h"

#include <errno.h>
#include <string.h>

#include <gnutls/crypto.h>

#include "base/hex.h"

#define SERIAL_MAX 20u /* Bytes, RFC 5280 §4.1.2.2. */
#define SAN_MAX \
    256u /* Bytes of one of our alternative names: the longest host name is longer than the URI. */
#define ALTERNATIVES_MAX (PKI_HOSTS_MAX + 1)
#define PURPOSES_MAX     4u

/* A certificate may carry host names and addresses too; but who it is for must be said once. */
static int read_name(gnutls_x509_crt_t certificate, struct pki_name *ret, struct err *err)
{
    unsigned names = 0;

    for (unsigned i = 0;; i++) {
        char san[SAN_MAX];
        size_t size = sizeof(san);
        int type = gnutls_x509_crt_get_subject_alt_name(certificate, i, san, &size, NULL);

        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (type < 0 || i >= ALTERNATIVES_MAX)
            return err_set(err, -EKEYREJECTED, "its alternative names are not those of a fleet certificate");
        if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_IPADDRESS)
            continue;
        if (type != GNUTLS_SAN_URI || pki_name_parse(san, size, ret) < 0)
            return err_set(err, -EKEYREJECTED, "it has an alternative name that is no fleet name");
        names++;
    }
    if (names == 0)
        return err_set(err, -EKEYREJECTED, "it has no fleet:// name");
    if (names > 1)
        return err_set(err, -EKEYREJECTED, "it has more than one fleet:// name");
    return 0;
}

/* What the key may be used for must be exactly what the kind of its owner asks for. */
static int check_use(gnutls_x509_crt_t certificate, enum pki_kind kind, struct err *err)
{
    bool authority = kind == PKI_AUTHORITY, client = false, server = false;
    unsigned usage = 0, want = authority ? GNUTLS_KEY_KEY_CERT_SIGN : GNUTLS_KEY_DIGITAL_SIGNATURE, ca = 0;
    int r;

    if (gnutls_x509_crt_get_basic_constraints(certificate, NULL, &ca, NULL) < 0 || (ca != 0) != authority)
        return err_set(err, -EKEYREJECTED, authority ? "it is not an authority's" : "it is an authority's");
    if (gnutls_x509_crt_get_key_usage(certificate, &usage, NULL) < 0 || (usage & want) == 0)
        return err_set(err, -EKEYREJECTED, "its key is meant for another use");

    for (unsigned i = 0;; i++) {
        char oid[64];
        size_t size = sizeof(oid);

        r = gnutls_x509_crt_get_key_purpose_oid(certificate, i, oid, &size, NULL);
        if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (r < 0 || i >= PURPOSES_MAX)
            return err_set(err, -EKEYREJECTED, "its extended key usage is not that of a fleet certificate");
        client = client || strcmp(oid, GNUTLS_KP_TLS_WWW_CLIENT) == 0;
        server = server || strcmp(oid, GNUTLS_KP_TLS_WWW_SERVER) == 0;
    }
    if (client != !authority || server != (kind == PKI_MACHINE))
        return err_set(err, -EKEYREJECTED, "its extended key usage does not fit its name");
    return 0;
}

static int read_key(gnutls_x509_crt_t certificate, struct pki_info *info, struct err *err)
{
    _cleanup_(pubkey_freep) gnutls_pubkey_t key = NULL;
    size_t key_size = sizeof(info->key_id), subject_size = PKI_KEY_ID_SIZE,
           issuer_size = sizeof(info->issuer);
    uint8_t subject[PKI_KEY_ID_SIZE];
    int r;

    if (gnutls_pubkey_init(&key) < 0 || gnutls_pubkey_import_x509(key, certificate, 0) < 0)
        return err_set(err, -EBADMSG, "its key is damaged");
    r = pki_check_key_kind(key, err);
    if (r < 0)
        return r;
    if (gnutls_x509_crt_get_signature_algorithm(certificate) != GNUTLS_SIGN_ECDSA_SHA256)
        return err_set(err, -EKEYREJECTED, "it is not signed with ECDSA and SHA-256");
    if (gnutls_pubkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, info->key_id, &key_size) < 0 ||
        key_size != PKI_KEY_ID_SIZE)
        return err_set(err, -EBADMSG, "its key is damaged");
    if (gnutls_x509_crt_get_subject_key_id(certificate, subject, &subject_size, NULL) < 0 ||
        subject_size != PKI_KEY_ID_SIZE || memcmp(subject, info->key_id, PKI_KEY_ID_SIZE) != 0 ||
        gnutls_x509_crt_get_authority_key_id(certificate, info->issuer, &issuer_size, NULL) < 0 ||
        issuer_size != PKI_KEY_ID_SIZE)
        return err_set(err, -EKEYREJECTED, "its key identifiers are not those of a fleet certificate");
    return 0;
}

static int read_rest(gnutls_x509_crt_t certificate, struct pki_info *info, struct err *err)
{
    uint8_t serial[SERIAL_MAX];
    size_t serial_size = sizeof(serial);
    time_t until = gnutls_x509_crt_get_expiration_time(certificate);

    if (gnutls_x509_crt_get_version(certificate) != 3)
        return err_set(err, -EKEYREJECTED, "it is not of version 3");
    if (until == (time_t)-1)
        return err_set(err, -EBADMSG, "when it ends cannot be read");
    if (gnutls_x509_crt_get_serial(certificate, serial, &serial_size) < 0 || serial_size == 0)
        return err_set(err, -EBADMSG, "its serial number is damaged");
    info->not_after_ms = until > 0 ? (uint64_t)until * 1000 : 0;
    id_to_hex(serial, serial_size, info->serial);
    return 0;
}

/* There is one way to write a certificate in DER. Another would mean the same and have another fingerprint;
 * GnuTLS takes it, but makes the fingerprint of what it would have written itself. */
static bool is_canonical(gnutls_x509_crt_t certificate, const uint8_t fingerprint[PKI_FINGERPRINT_SIZE])
{
    uint8_t own[PKI_FINGERPRINT_SIZE];
    size_t size = sizeof(own);

    return gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, own, &size) >= 0 &&
           memcmp(own, fingerprint, sizeof(own)) == 0;
}

int pki_certificate_open(const void *der, size_t size, gnutls_x509_crt_t *ret, struct pki_info *ret_info,
                         struct err *err)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t certificate = NULL;
    gnutls_datum_t datum = pki_datum(der, size);
    struct pki_info info = {0};
    int r;

    if (size > PKI_CERTIFICATE_MAX)
        return err_set(err, -EBADMSG, "the certificate has %zu bytes, the limit is %u", size,
                       PKI_CERTIFICATE_MAX);
    r = gnutls_x509_crt_init(&certificate);
    if (r < 0)
        return pki_gnutls_error(r, "cannot read a certificate", err);
    if (gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_DER) < 0 ||
        gnutls_hash_fast(GNUTLS_DIG_SHA256, der, size, info.fingerprint) < 0 ||
        !is_canonical(certificate, info.fingerprint))
        return err_set(err, -EBADMSG, "not a certificate, or a damaged one");

    r = read_rest(certificate, &info, err);
    if (r == 0)
        r = read_key(certificate, &info, err);
    if (r == 0)
        r = read_name(certificate, &info.name, err);
    if (r == 0)
        r = check_use(certificate, info.name.kind, err);
    if (r < 0)
        return err_prefix(err, r, "not a certificate of fleet");
    *ret = TAKE_PTR(certificate);
    *ret_info = info;
    return 0;
}

int pki_read(const void *der, size_t size, struct pki_info *ret, struct err *err)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t certificate = NULL;

    return pki_certificate_open(der, size, &certificate, ret, err);
}
