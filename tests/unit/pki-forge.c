/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "pki/private.h"
#include "tests/unit/pki-forge.h"

#define MUST(call)                                          \
    do {                                                    \
        int _r = (call);                                    \
        if (_r < 0)                                         \
            fail_msg("%s: %s", #call, gnutls_strerror(_r)); \
    } while (0)

void forge_add_uri(struct forge *forge, const char *uri)
{
    forge->sans[forge->san_count++] =
        (struct forge_san){.type = GNUTLS_SAN_URI, .data = uri, .size = strlen(uri)};
}

struct forge forge_machine(const char *uri, const struct pki_key *key, const struct pki_blob *issuer,
                           const struct pki_key *issuer_key)
{
    struct forge forge = {
        .purposes = {GNUTLS_KP_TLS_WWW_CLIENT, GNUTLS_KP_TLS_WWW_SERVER},
        .usage = GNUTLS_KEY_DIGITAL_SIGNATURE,
        .levels = -1,
        .not_after_ms = 4102444800000, /* 2100 */
        .digest = GNUTLS_DIG_SHA256,
        .version = 3,
        .key = key,
        .issuer = issuer,
        .issuer_key = issuer_key,
    };

    forge_add_uri(&forge, uri);
    return forge;
}

struct forge forge_authority(const char *uri, const struct pki_key *key, const struct pki_blob *issuer,
                             const struct pki_key *issuer_key)
{
    struct forge forge = forge_machine(uri, key, issuer, issuer_key);

    forge.purposes[0] = forge.purposes[1] = NULL;
    forge.usage = GNUTLS_KEY_KEY_CERT_SIGN;
    forge.ca = true;
    return forge;
}

static void set_ids(gnutls_x509_crt_t crt, const struct pki_key *issuer_key, bool wrong)
{
    uint8_t id[PKI_KEY_ID_SIZE];
    size_t size = sizeof(id);

    MUST(gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, id, &size));
    id[0] ^= wrong;
    MUST(gnutls_x509_crt_set_subject_key_id(crt, id, size));
    size = sizeof(id);
    MUST(gnutls_x509_privkey_get_key_id(issuer_key->key, GNUTLS_KEYID_USE_SHA256, id, &size));
    MUST(gnutls_x509_crt_set_authority_key_id(crt, id, size));
}

static size_t put_length(uint8_t *to, size_t size)
{
    to[0] = 0x82;
    to[1] = size >> 8;
    to[2] = size;
    if (size > 255)
        return 3;
    to[0] = size > 127 ? 0x81 : size;
    to[1] = size;
    return size > 127 ? 2 : 1;
}

/* By hand (RFC 5280 §4.2.1.6): GnuTLS does not write a NUL. */
static void set_sans(gnutls_x509_crt_t crt, const struct forge *forge)
{
    static const uint8_t tags[] = {
        [GNUTLS_SAN_RFC822NAME] = 0x81, [GNUTLS_SAN_DNSNAME] = 0x82, [GNUTLS_SAN_URI] = 0x86};
    uint8_t names[4096], all[4096];
    size_t names_size = 0, all_size = 1;

    for (size_t i = 0; i < forge->san_count; i++) {
        const struct forge_san *san = &forge->sans[i];

        assert_true(names_size + san->size + 8 < sizeof(names));
        names[names_size++] = tags[san->type];
        names_size += put_length(names + names_size, san->size);
        memcpy(names + names_size, san->data, san->size);
        names_size += san->size;
    }
    all[0] = 0x30;
    all_size += put_length(all + 1, names_size);
    assert_true(all_size + names_size < sizeof(all));
    memcpy(all + all_size, names, names_size);
    MUST(gnutls_x509_crt_set_extension_by_oid(crt, "2.5.29.17", all, all_size + names_size, 0));
}

struct pki_blob forge_certificate(const struct forge *forge)
{
    _cleanup_(certificate_freep) gnutls_x509_crt_t crt = NULL, issuer = NULL;
    const struct pki_key *signer = forge->issuer_key != NULL ? forge->issuer_key : forge->key;
    gnutls_datum_t der = {0};
    struct pki_blob blob;

    MUST(gnutls_x509_crt_init(&crt));
    MUST(gnutls_x509_crt_set_version(crt, forge->version));
    MUST(gnutls_x509_crt_set_serial(crt, "\1\2\3", 3));
    MUST(gnutls_x509_crt_set_activation_time(crt, 946684800));
    MUST(gnutls_x509_crt_set_expiration_time(crt, forge->not_after_ms / 1000));
    MUST(gnutls_x509_crt_set_dn(crt, forge->ca ? "CN=an authority" : "CN=somebody", NULL));
    MUST(gnutls_x509_crt_set_key(crt, forge->key->key));
    if (forge->version == 3) {
        if (forge->san_count > 0)
            set_sans(crt, forge);
        for (size_t i = 0; i < ARRAY_SIZE(forge->purposes) && forge->purposes[i] != NULL; i++)
            MUST(gnutls_x509_crt_set_key_purpose_oid(crt, forge->purposes[i], 0));
        if (forge->usage != 0)
            MUST(gnutls_x509_crt_set_key_usage(crt, forge->usage));
        MUST(gnutls_x509_crt_set_basic_constraints(crt, forge->ca, forge->levels));
        if (!forge->without_ids)
            set_ids(crt, signer, forge->wrong_id);
        if (forge->critical_unknown)
            MUST(gnutls_x509_crt_set_extension_by_oid(crt, "1.2.3.4.5", "\5\0", 2, 1));
    }
    if (forge->issuer != NULL) {
        gnutls_datum_t datum = pki_datum(forge->issuer->data, forge->issuer->size);

        MUST(gnutls_x509_crt_init(&issuer));
        MUST(gnutls_x509_crt_import(issuer, &datum, GNUTLS_X509_FMT_DER));
    }
    MUST(gnutls_x509_crt_sign2(crt, issuer != NULL ? issuer : crt, signer->key, forge->digest, 0));
    MUST(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der));
    pki_blob_take(&der, &blob);
    return blob;
}

struct pki_key *forge_key(gnutls_pk_algorithm_t algorithm, unsigned bits)
{
    struct pki_key *key = NEW0(struct pki_key);

    MUST(gnutls_x509_privkey_init(&key->key));
    MUST(gnutls_x509_privkey_generate(key->key, algorithm, bits, 0));
    return key;
}
