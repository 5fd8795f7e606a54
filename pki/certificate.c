/* SPDX-License-Identifier: Apache-2.0 */
/* Making certificates. */
#include <config.h>

#include "pki/private.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <gnutls/crypto.h>

#include "base/hex.h"

#define SINCE_S          946684800     /* 2000-01-01T00:00:00Z */
#define UNTIL_S_MAX      253402300799u /* 9999-12-31T23:59:59Z: what a certificate can say. */
#define SERIAL_BYTES     16u
#define AUTHORITY_LEVELS 1 /* Under a root: one more authority, certified across. */
#define HOST_CHARS       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."

static int set_serial(gnutls_x509_crt_t certificate)
{
    uint8_t serial[SERIAL_BYTES];
    int r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

    if (r < 0)
        return r;
    serial[0] = (serial[0] & 0x7f) | 0x40; /* Positive, and always of this length. */
    return gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
}

static int set_times(gnutls_x509_crt_t certificate, uint64_t not_after_ms)
{
    int r = gnutls_x509_crt_set_activation_time(certificate, SINCE_S);

    return r < 0 ? r : gnutls_x509_crt_set_expiration_time(certificate, (time_t)(not_after_ms / 1000));
}

/* For people: what tools show of a certificate. */
static int set_subject(gnutls_x509_crt_t certificate, const struct pki_name *name)
{
    char text[PKI_URI_SIZE], cluster[2 * PKI_CLUSTER_ID_SIZE + 1];

    id_to_hex(name->cluster_id, PKI_CLUSTER_ID_SIZE, cluster);
    if (name->kind == PKI_AUTHORITY)
        snprintf(text, sizeof(text), "fleet cluster %s", cluster);
    else if (name->kind == PKI_MACHINE)
        snprintf(text, sizeof(text), "fleet machine %s", name->id);
    else
        snprintf(text, sizeof(text), "%s", name->id);
    return gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, text, strlen(text));
}

static int set_uri(gnutls_x509_crt_t certificate, const struct pki_name *name)
{
    char uri[PKI_URI_SIZE];

    pki_name_format(name, uri);
    return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_URI, uri, strlen(uri),
                                                GNUTLS_FSAN_SET);
}

static int set_host(gnutls_x509_crt_t certificate, const char *host)
{
    uint8_t address[16];

    if (inet_pton(AF_INET, host, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 4,
                                                    GNUTLS_FSAN_APPEND);
    if (inet_pton(AF_INET6, host, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 16,
                                                    GNUTLS_FSAN_APPEND);
    return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, host, strlen(host),
                                                GNUTLS_FSAN_APPEND);
}

static int set_use(gnutls_x509_crt_t certificate, enum pki_kind kind)
{
    int r = gnutls_x509_crt_set_basic_constraints(certificate, 0, -1);

    if (r >= 0)
        r = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (r >= 0)
        r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_CLIENT, 0);
    if (r >= 0 && kind == PKI_MACHINE)
        r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
    return r;
}

static int set_use_authority(gnutls_x509_crt_t certificate, int levels)
{
    int r = gnutls_x509_crt_set_basic_constraints(certificate, 1, levels);

    return r < 0 ? r
                 : gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
}

/* The key's own identifier; its key is set already. */
static int set_key_id(gnutls_x509_crt_t certificate)
{
    uint8_t id[PKI_KEY_ID_SIZE];
    size_t size = sizeof(id);
    int r = gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, id, &size);

    return r < 0 ? r : gnutls_x509_crt_set_subject_key_id(certificate, id, size);
}

static int set_issuer_id(gnutls_x509_crt_t certificate, gnutls_x509_crt_t issuer)
{
    uint8_t id[PKI_KEY_ID_SIZE];
    size_t size = sizeof(id);
    int r = gnutls_x509_crt_get_key_id(issuer, GNUTLS_KEYID_USE_SHA256, id, &size);

    return r < 0 ? r : gnutls_x509_crt_set_authority_key_id(certificate, id, size);
}

/* What every certificate has. */
static int begin(gnutls_x509_crt_t certificate, const struct pki_name *name, uint64_t not_after_ms)
{
    int r = gnutls_x509_crt_set_version(certificate, 3);

    if (r >= 0)
        r = set_serial(certificate);
    if (r >= 0)
        r = set_times(certificate, not_after_ms);
    if (r >= 0)
        r = set_subject(certificate, name);
    if (r >= 0)
        r = set_uri(certificate, name);
    if (r >= 0)
        r = set_key_id(certificate);
    return r;
}

/* Signs it, and reads it as everybody else will. */
static int finish(gnutls_x509_crt_t certificate, gnutls_x509_crt_t issuer, const struct pki_key *issuer_key,
                  struct pki_blob *ret, struct pki_info *ret_info, struct err *err)
{
    gnutls_datum_t der = {0};
    struct pki_info info;
    int r;

    r = set_issuer_id(certificate, issuer);
    if (r >= 0)
        r = gnutls_x509_crt_sign2(certificate, issuer, issuer_key->key, GNUTLS_DIG_SHA256, 0);
    if (r >= 0)
        r = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_DER, &der);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make a certificate", err);
    r = pki_read(der.data, der.size, &info, err);
    if (r < 0) {
        gnutls_free(der.data);
        return err_prefix(err, r, "the certificate that was made");
    }
    pki_blob_take(&der, ret);
    if (ret_info != NULL)
        *ret_info = info;
    return 0;
}

static int check_end(uint64_t not_after_ms, struct err *err)
{
    if (not_after_ms / 1000 <= SINCE_S || not_after_ms / 1000 > UNTIL_S_MAX)
        return err_set(err, -EINVAL, "a certificate cannot end at that time");
    return 0;
}

int pki_authority_new(const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const struct pki_key *key,
                      uint64_t not_after_ms, struct pki_blob *ret, struct err *err)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t certificate = NULL;
    struct pki_name name = {.kind = PKI_AUTHORITY};
    int r;

    r = check_end(not_after_ms, err);
    if (r < 0)
        return r;
    memcpy(name.cluster_id, cluster_id, PKI_CLUSTER_ID_SIZE);
    r = gnutls_x509_crt_init(&certificate);
    if (r >= 0)
        r = gnutls_x509_crt_set_key(certificate, key->key);
    if (r >= 0)
        r = begin(certificate, &name, not_after_ms);
    if (r >= 0)
        r = set_use_authority(certificate, AUTHORITY_LEVELS);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make the authority's certificate", err);
    return finish(certificate, certificate, key, ret, NULL, err);
}

/* An authority's certificate, and the key that must be its own. */
static int open_issuer(const void *der, size_t size, const struct pki_key *key, gnutls_x509_crt_t *ret,
                       struct pki_info *ret_info, struct err *err)
{
    int r = pki_certificate_open(der, size, ret, ret_info, err);

    if (r == 0 && ret_info->name.kind != PKI_AUTHORITY)
        r = err_set(err, -EKEYREJECTED, "not the certificate of an authority");
    if (r == 0)
        r = pki_key_fits(key, der, size, err);
    return r < 0 ? err_prefix(err, r, "the authority") : 0;
}

int pki_authority_cross(const void *subject, size_t subject_size, const void *issuer, size_t issuer_size,
                        const struct pki_key *issuer_key, struct pki_blob *ret, struct err *err)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t below = NULL, above = NULL, certificate = NULL;
    _cleanup_(pubkey_freep) gnutls_pubkey_t key = NULL;
    struct pki_info info, issuer_info;
    int r;

    r = open_issuer(issuer, issuer_size, issuer_key, &above, &issuer_info, err);
    if (r < 0)
        return r;
    r = pki_certificate_open(subject, subject_size, &below, &info, err);
    if (r < 0)
        return r;
    if (info.name.kind != PKI_AUTHORITY ||
        memcmp(info.name.cluster_id, issuer_info.name.cluster_id, PKI_CLUSTER_ID_SIZE) != 0)
        return err_set(err, -EKEYREJECTED, "not two authorities of one cluster");

    r = gnutls_pubkey_init(&key);
    if (r >= 0)
        r = gnutls_pubkey_import_x509(key, below, 0);
    if (r >= 0)
        r = gnutls_x509_crt_init(&certificate);
    if (r >= 0)
        r = gnutls_x509_crt_set_pubkey(certificate, key);
    if (r >= 0)
        r = begin(certificate, &info.name,
                  info.not_after_ms < issuer_info.not_after_ms ? info.not_after_ms
                                                               : issuer_info.not_after_ms);
    if (r >= 0)
        r = set_use_authority(certificate, 0);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make the authority's certificate", err);
    return finish(certificate, above, issuer_key, ret, NULL, err);
}

/* Whether there may be a certificate for this subject by an authority of this cluster. */
static int check_subject(const struct pki_subject *subject, const struct pki_name *authority, struct err *err)
{
    char uri[PKI_URI_SIZE];
    struct pki_name name;

    if (subject->name.kind != PKI_MACHINE && subject->name.kind != PKI_CLIENT)
        return err_set(err, -EINVAL, "only machines and clients are certified");
    pki_name_format(&subject->name, uri);
    if (pki_name_parse(uri, strlen(uri), &name) < 0)
        return err_set(err, -EINVAL, "\"%s\" is no name to certify", uri);
    if (memcmp(name.cluster_id, authority->cluster_id, PKI_CLUSTER_ID_SIZE) != 0)
        return err_set(err, -EINVAL, "%s is of another cluster", uri);
    if (subject->host_count > PKI_HOSTS_MAX)
        return err_set(err, -EINVAL, "%zu names of the host, the limit is %u", subject->host_count,
                       PKI_HOSTS_MAX);
    for (size_t i = 0; i < subject->host_count; i++) {
        const char *host = subject->hosts[i];
        size_t size = strnlen(host, PKI_HOST_MAX + 1);
        uint8_t address[16];

        if (size == 0 || size > PKI_HOST_MAX ||
            (strspn(host, HOST_CHARS) != size && inet_pton(AF_INET6, host, address) != 1))
            return err_set(err, -EINVAL, "\"%.*s\" is neither the name of a host nor its address",
                           (int)PKI_HOST_MAX, host);
    }
    return check_end(subject->not_after_ms, err);
}

int pki_sign(const void *authority, size_t authority_size, const struct pki_key *authority_key,
             const void *request, size_t request_size, const struct pki_subject *subject,
             struct pki_blob *ret, struct pki_info *ret_info, struct err *err)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t issuer = NULL, certificate = NULL;
    _cleanup_(request_freep) gnutls_x509_crq_t open = NULL;
    struct pki_info info;
    uint64_t until_ms = subject->not_after_ms;
    int r;

    r = open_issuer(authority, authority_size, authority_key, &issuer, &info, err);
    if (r == 0)
        r = check_subject(subject, &info.name, err);
    if (r == 0)
        r = pki_request_open(request, request_size, &open, err);
    if (r < 0)
        return r;
    if (until_ms > info.not_after_ms)
        until_ms = info.not_after_ms;

    r = gnutls_x509_crt_init(&certificate);
    if (r >= 0) { /* Nothing of the request but its key. */
        _cleanup_(pubkey_freep) gnutls_pubkey_t key = NULL;

        r = gnutls_pubkey_init(&key);
        if (r >= 0)
            r = gnutls_pubkey_import_x509_crq(key, open, 0);
        if (r >= 0)
            r = gnutls_x509_crt_set_pubkey(certificate, key);
    }
    if (r >= 0)
        r = begin(certificate, &subject->name, until_ms);
    for (size_t i = 0; i < subject->host_count && r >= 0; i++)
        r = set_host(certificate, subject->hosts[i]);
    if (r >= 0)
        r = set_use(certificate, subject->name.kind);
    if (r < 0)
        return pki_gnutls_error(r, "cannot make a certificate", err);
    return finish(certificate, issuer, authority_key, ret, ret_info, err);
}
