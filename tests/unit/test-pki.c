/* SPDX-License-Identifier: Apache-2.0 */
/* Names, keys, requests, what a certificate says, PEM, join tokens. Whom to believe: test-pki-verify.c. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "pki/private.h"
#include "tests/unit/pki-forge.h"

#define CLUSTER   "00112233445566778899aabbccddeeff"
#define MACHINE   "0123456789abcdef0123456789abcdef"
#define URI       "fleet://" CLUSTER "/machine/" MACHINE
#define AUTHORITY "fleet://" CLUSTER "/authority"
#define MS_2100   4102444800000u
#define MS_2050   2524608000000u /* GeneralizedTime from here on, RFC 5280 §4.1.2.5. */
#define X10       "xxxxxxxxxx"
#define X60       X10 X10 X10 X10 X10 X10

static const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                        0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

/* One authority and one machine's key for all tests. */
static struct pki_key *authority_key, *machine_key;
static struct pki_blob authority, request;

static int make_world(void **state)
{
    assert_int_equal(pki_key_new(&authority_key, NULL), 0);
    assert_int_equal(pki_key_new(&machine_key, NULL), 0);
    assert_int_equal(pki_authority_new(cluster_id, authority_key, MS_2100, &authority, NULL), 0);
    assert_int_equal(pki_request_new(machine_key, &request, NULL), 0);
    return 0;
}

static int end_world(void **state)
{
    pki_key_free(authority_key);
    pki_key_free(machine_key);
    pki_blob_done(&authority);
    pki_blob_done(&request);
    return 0;
}

static struct pki_subject machine(void)
{
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = MACHINE}, .not_after_ms = MS_2050};

    memcpy(subject.name.cluster_id, cluster_id, sizeof(cluster_id));
    return subject;
}

static struct pki_subject client(const char *id, enum pki_role role)
{
    struct pki_subject subject = machine();

    subject.name.kind = PKI_CLIENT;
    subject.name.role = role;
    snprintf(subject.name.id, sizeof(subject.name.id), "%s", id);
    return subject;
}

static int sign(const struct pki_subject *subject, struct pki_blob *ret, struct pki_info *info,
                struct err *err)
{
    return pki_sign(authority.data, authority.size, authority_key, request.data, request.size, subject, ret,
                    info, err);
}

/* ---- names ---- */

static void test_names_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "fleet://",
        "fleet://" CLUSTER,
        "fleet://" CLUSTER "/",
        "fleet://" CLUSTER "/machine",
        "fleet://" CLUSTER "/machine/",
        "fleet://" CLUSTER "/machine/" MACHINE "/",
        "fleet://" CLUSTER "/machine/" MACHINE "0",
        "fleet://" CLUSTER "/machine/0123456789ABCDEF0123456789abcdef",
        "fleet://" CLUSTER "/machine/0123456789abcdef0123456789abcde",
        "fleet://" CLUSTER "/machine/0123456789abcdef0123456789abcdeg",
        "fleet://" CLUSTER "/machine/%30123456789abcdef0123456789abcd",
        "fleet://00112233445566778899AABBCCDDEEFF/machine/" MACHINE,
        "fleet://00112233445566778899aabbccddeef/machine/" MACHINE,
        "fleet://" CLUSTER "0/machine/" MACHINE,
        "fleet:// 0112233445566778899aabbccddeeff/machine/" MACHINE,
        "fleet://0x112233445566778899aabbccddeeff/machine/" MACHINE,
        "fleet://" CLUSTER "//machine/" MACHINE,
        "fleet://" CLUSTER "/Machine/" MACHINE,
        "FLEET://" CLUSTER "/machine/" MACHINE,
        "https://" CLUSTER "/machine/" MACHINE,
        " fleet://" CLUSTER "/machine/" MACHINE,
        "fleet://" CLUSTER "/machine/" MACHINE " ",
        "fleet://" CLUSTER "/machine/" MACHINE "?role=admin",
        "fleet://" CLUSTER "/machine/" MACHINE "#x",
        "fleet://" CLUSTER "/authority/",
        "fleet://" CLUSTER "/authority/x",
        "fleet://" CLUSTER "/client/",
        "fleet://" CLUSTER "/client/a",
        "fleet://" CLUSTER "/client//admin",
        "fleet://" CLUSTER "/client/a/",
        "fleet://" CLUSTER "/client/a/none",
        "fleet://" CLUSTER "/client/a/Admin",
        "fleet://" CLUSTER "/client/a/root",
        "fleet://" CLUSTER "/client/a/admin/",
        "fleet://" CLUSTER "/client/a/viewer/admin",
        "fleet://" CLUSTER "/client/a/admin ",
        "fleet://" CLUSTER "/client/../admin",
        "fleet://" CLUSTER "/client/.hidden/admin",
        "fleet://" CLUSTER "/client/-v/admin",
        "fleet://" CLUSTER "/client/a b/admin",
        "fleet://" CLUSTER "/client/\xc3\xa4/admin",
        "fleet://" CLUSTER "/client/a\n/admin",
        "fleet://" CLUSTER "/client/" X60 "xxxxx/admin",
        "fleet://" CLUSTER "/client/" X60 X60 X60 "/admin",
        "fleet://" CLUSTER "/machine/" X60 X60 X60 X60 X60 X60,
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pki_name name = {.kind = PKI_NOBODY, .id = "untouched"};

        if (pki_name_parse(cases[i], strlen(cases[i]), &name) != -EINVAL)
            fail_msg("taken: \"%s\"", cases[i]);
        assert_string_equal(name.id, "untouched");
    }
}

static void test_name_with_nul(void **state)
{
    static const char inside[] = URI "\0/x", end[] = URI "\0";
    struct pki_name name;

    assert_int_equal(pki_name_parse(inside, sizeof(inside) - 1, &name), -EINVAL);
    assert_int_equal(pki_name_parse(end, sizeof(end) - 1, &name), -EINVAL);
    assert_int_equal(pki_name_parse(end, sizeof(end) - 2, &name), 0);
}

static void test_names_taken(void **state)
{
    static const struct {
        const char *uri, *id;
        enum pki_kind kind;
        enum pki_role role;
    } cases[] = {
        {AUTHORITY, "", PKI_AUTHORITY, PKI_ROLE_NONE},
        {URI, MACHINE, PKI_MACHINE, PKI_ROLE_NONE},
        {"fleet://" CLUSTER "/client/a/admin", "a", PKI_CLIENT, PKI_ROLE_ADMIN},
        {"fleet://" CLUSTER "/client/A-b_c.d@e9/viewer", "A-b_c.d@e9", PKI_CLIENT, PKI_ROLE_VIEWER},
        {"fleet://" CLUSTER "/client/" X60 "xxxx/operator", X60 "xxxx", PKI_CLIENT, PKI_ROLE_OPERATOR},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pki_name name;
        char uri[PKI_URI_SIZE];

        assert_int_equal(pki_name_parse(cases[i].uri, strlen(cases[i].uri), &name), 0);
        assert_int_equal(name.kind, cases[i].kind);
        assert_int_equal(name.role, cases[i].role);
        assert_string_equal(name.id, cases[i].id);
        assert_memory_equal(name.cluster_id, cluster_id, sizeof(cluster_id));
        pki_name_format(&name, uri);
        assert_string_equal(uri, cases[i].uri);
    }
}

static void test_roles(void **state)
{
    enum pki_role role;

    for (int i = PKI_ROLE_NONE; i <= PKI_ROLE_ADMIN; i++) {
        assert_int_equal(pki_role_parse(pki_role_name((enum pki_role)i), &role), 0);
        assert_int_equal(role, i);
    }
    assert_int_equal(pki_role_parse("", &role), -EINVAL);
    assert_int_equal(pki_role_parse("root", &role), -EINVAL);
    assert_true(PKI_ROLE_NONE < PKI_ROLE_VIEWER && PKI_ROLE_VIEWER < PKI_ROLE_OPERATOR &&
                PKI_ROLE_OPERATOR < PKI_ROLE_ADMIN);
}

/* ---- keys ---- */

static void test_bad_keys(void **state)
{
    _cleanup_(pki_key_freep) struct pki_key *rsa = forge_key(GNUTLS_PK_RSA, 2048);
    _cleanup_(pki_key_freep) struct pki_key *ed25519 = forge_key(GNUTLS_PK_EDDSA_ED25519, 256);
    _cleanup_(pki_key_freep) struct pki_key *p384 =
        forge_key(GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP384R1));
    const struct pki_key *others[] = {rsa, ed25519, p384};
    uint8_t zeros[PKI_KEY_MAX + 1] = {0};
    struct pki_key *key = NULL;
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        _cleanup_(pki_blob_done) struct pki_blob pem = {0}, der = {0};

        assert_int_equal(pki_key_to_pem(others[i], &pem, NULL), 0);
        assert_int_equal(pki_key_from_pem(pem.data, pem.size, &key, &err), -EBADMSG);
        assert_non_null(strstr(err.text, "P-256"));
        assert_int_equal(pki_key_encode(others[i], &der, NULL), 0);
        assert_int_equal(pki_key_decode(der.data, der.size, &key, NULL), -EBADMSG);
    }
    assert_int_equal(pki_key_decode(zeros, sizeof(zeros), &key, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "limit"));
    assert_int_equal(pki_key_decode(zeros, 10, &key, &err), -EBADMSG);
    assert_int_equal(pki_key_decode(NULL, 0, &key, &err), -EBADMSG);
    assert_int_equal(pki_key_from_pem("nothing", 7, &key, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "BEGIN PRIVATE KEY"));
    assert_int_equal(pki_key_from_pem(authority.data, authority.size, &key, &err), -EBADMSG);
    assert_null(key);
}

static void test_key_damaged_anywhere(void **state)
{
    _cleanup_(pki_blob_done) struct pki_blob der = {0};

    assert_int_equal(pki_key_encode(machine_key, &der, NULL), 0);
    for (size_t i = 0; i < der.size; i++) { /* What is still a key is one that fits itself. */
        _cleanup_(pki_key_freep) struct pki_key *key = NULL;
        struct err err = {0};
        int r;

        der.data[i] ^= 0x55;
        r = pki_key_decode(der.data, der.size, &key, &err);
        assert_true(r == 0 || (r == -EBADMSG && err.text[0] != '\0'));
        if (r == 0)
            assert_true(gnutls_x509_privkey_verify_params(key->key) == 0);
        der.data[i] ^= 0x55;
        assert_int_equal(pki_key_decode(der.data, i, &key, NULL), -EBADMSG);
    }
}

static void test_key_again(void **state)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL, *other = NULL;
    _cleanup_(pki_blob_done) struct pki_blob der = {0}, pem = {0}, again = {0}, certificate = {0};
    const struct pki_subject subject = machine();
    struct err err = {0};

    assert_int_equal(pki_key_encode(machine_key, &der, NULL), 0);
    assert_int_equal(pki_key_decode(der.data, der.size, &key, NULL), 0);
    assert_int_equal(pki_key_to_pem(key, &pem, NULL), 0);
    assert_non_null(strstr((char *)pem.data, "BEGIN PRIVATE KEY"));
    assert_int_equal(strlen((char *)pem.data), pem.size);
    assert_int_equal(pki_key_from_pem(pem.data, pem.size, &other, NULL), 0);
    assert_int_equal(pki_key_encode(other, &again, NULL), 0);
    assert_int_equal(again.size, der.size);
    assert_memory_equal(again.data, der.data, der.size);

    assert_int_equal(sign(&subject, &certificate, NULL, NULL), 0);
    assert_int_equal(pki_key_fits(other, certificate.data, certificate.size, NULL), 0);
    assert_int_equal(pki_key_fits(authority_key, certificate.data, certificate.size, &err), -EKEYREJECTED);
    assert_string_equal(err.text, "the certificate is not for this key");
    assert_int_equal(pki_key_fits(key, pem.data, pem.size, &err), -EBADMSG);
}

/* ---- requests and what is made of them ---- */

static void refuse_request(const void *bytes, size_t size, struct err *err)
{
    const struct pki_subject subject = machine();
    struct pki_blob certificate = {0};

    assert_int_equal(pki_sign(authority.data, authority.size, authority_key, bytes, size, &subject,
                              &certificate, NULL, err),
                     -EBADMSG);
    assert_null(certificate.data);
}

static void test_bad_requests(void **state)
{
    _cleanup_(pki_key_freep) struct pki_key *rsa = forge_key(GNUTLS_PK_RSA, 2048);
    _cleanup_(pki_blob_done) struct pki_blob of_rsa = {0}, damaged = {0};
    uint8_t zeros[PKI_REQUEST_MAX + 1] = {0};
    struct err err = {0};

    assert_int_equal(pki_request_new(rsa, &of_rsa, NULL), 0);
    refuse_request(of_rsa.data, of_rsa.size, &err);
    assert_non_null(strstr(err.text, "P-256"));
    refuse_request(zeros, sizeof(zeros), &err);
    assert_non_null(strstr(err.text, "limit"));
    refuse_request(zeros, 100, &err);
    refuse_request(NULL, 0, &err);
    refuse_request(authority.data, authority.size, &err);
    damaged = (struct pki_blob){.data = xmemdup(request.data, request.size), .size = request.size};
    for (size_t i = 0; i < damaged.size; i++) { /* The signature is over all of it. */
        damaged.data[i] ^= 0x10;
        refuse_request(damaged.data, damaged.size, &err);
        damaged.data[i] ^= 0x10;
        refuse_request(damaged.data, i, &err);
    }
    assert_non_null(strstr(err.text, "damaged"));
}

static void test_bad_subjects(void **state)
{
    static const char *const good_host[] = {"host.example"};
    static const char *const bad_hosts[] = {
        "",          "a b",   "h\xc3\xa4user", "a/b",
        "*.example", "[::1]", "fleet://x",     X60 X60 X60 X60 "xxxxxxxxxxxxxx"};
    const char *many[PKI_HOSTS_MAX + 1];
    struct pki_subject cases[] = {machine(),
                                  machine(),
                                  machine(),
                                  machine(),
                                  client("", PKI_ROLE_ADMIN),
                                  client("a/b", PKI_ROLE_ADMIN),
                                  client("a", PKI_ROLE_NONE),
                                  machine(),
                                  machine(),
                                  machine(),
                                  machine()};
    struct pki_blob certificate = {0};
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = good_host[0];
    cases[0].name.kind = PKI_NOBODY;
    cases[1].name.kind = PKI_AUTHORITY;
    cases[2].name.cluster_id[15] ^= 1;
    cases[3].name.id[31] = '\0';
    cases[7].not_after_ms = 0;
    cases[8].not_after_ms = 253402300800000; /* The year 10000. */
    cases[9].not_after_ms = UINT64_MAX;
    cases[10].hosts = many;
    cases[10].host_count = ARRAY_SIZE(many);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (sign(&cases[i], &certificate, NULL, &err) != -EINVAL)
            fail_msg("case %zu: %s", i, err.text);
        assert_true(err.text[0] != '\0');
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad_hosts); i++) {
        struct pki_subject subject = machine();

        subject.hosts = &bad_hosts[i];
        subject.host_count = 1;
        if (sign(&subject, &certificate, NULL, &err) != -EINVAL)
            fail_msg("host %zu: %s", i, err.text);
    }
    assert_null(certificate.data);
}

static void test_bad_signers(void **state)
{
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0};
    const struct pki_subject subject = machine();
    struct pki_blob none = {0};
    struct err err = {0};

    assert_int_equal(pki_sign(authority.data, authority.size, machine_key, request.data, request.size,
                              &subject, &none, NULL, &err),
                     -EKEYREJECTED);
    assert_int_equal(sign(&subject, &certificate, NULL, NULL), 0);
    assert_int_equal(pki_sign(certificate.data, certificate.size, machine_key, request.data, request.size,
                              &subject, &none, NULL, &err),
                     -EKEYREJECTED);
    assert_string_equal(err.text, "the authority: not the certificate of an authority");
    assert_int_equal(pki_sign("x", 1, machine_key, request.data, request.size, &subject, &none, NULL, &err),
                     -EBADMSG);
    assert_int_equal(pki_authority_new(cluster_id, machine_key, 5, &none, &err), -EINVAL);
    assert_null(none.data);
}

static void test_made(void **state)
{
    static const char *const hosts[] = {"host1", "host1.example.com", "192.0.2.7", "2001:db8::7"};
    struct pki_subject subjects[] = {machine(), client("alice", PKI_ROLE_OPERATOR), machine()};
    char serials[3][PKI_SERIAL_SIZE];
    struct pki_info above;

    assert_int_equal(pki_read(authority.data, authority.size, &above, NULL), 0);
    assert_int_equal(above.name.kind, PKI_AUTHORITY);
    assert_memory_equal(above.name.cluster_id, cluster_id, sizeof(cluster_id));
    assert_memory_equal(above.key_id, above.issuer, PKI_KEY_ID_SIZE);
    assert_true(above.not_after_ms == MS_2100);

    subjects[0].hosts = hosts;
    subjects[0].host_count = ARRAY_SIZE(hosts);
    subjects[2].not_after_ms = MS_2100 + 12345678; /* Cut. */
    for (size_t i = 0; i < ARRAY_SIZE(subjects); i++) {
        _cleanup_(pki_blob_done) struct pki_blob certificate = {0};
        struct pki_info made, info;
        struct err err = {0};

        if (sign(&subjects[i], &certificate, &made, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(pki_read(certificate.data, certificate.size, &info, NULL), 0);
        assert_memory_equal(&info, &made, sizeof(info));
        assert_int_equal(info.name.kind, subjects[i].name.kind);
        assert_int_equal(info.name.role, subjects[i].name.role);
        assert_string_equal(info.name.id, subjects[i].name.id);
        assert_true(info.not_after_ms == (i == 2 ? MS_2100 : MS_2050));
        assert_memory_equal(info.issuer, above.key_id, PKI_KEY_ID_SIZE);
        assert_int_equal(strlen(info.serial), 32);
        strcpy(serials[i], info.serial);
        assert_true(certificate.size < 1024);
    }
    assert_string_not_equal(serials[0], serials[1]);
    assert_string_not_equal(serials[1], serials[2]);
}

/* The certificate carries the host's names, as clients that know nothing of fleet check them. */
static void test_hosts_in_certificate(void **state)
{
    static const char *const hosts[] = {"host1.example.com", "192.0.2.7", "2001:db8::7"};
    _cleanup_(pki_blob_done) struct pki_blob blob = {0};
    _cleanup_(certificate_freep) gnutls_x509_crt_t certificate = NULL;
    struct pki_subject subject = machine();
    struct pki_info info;

    subject.hosts = hosts;
    subject.host_count = ARRAY_SIZE(hosts);
    assert_int_equal(sign(&subject, &blob, NULL, NULL), 0);
    assert_int_equal(pki_certificate_open(blob.data, blob.size, &certificate, &info, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
        assert_true(gnutls_x509_crt_check_hostname(certificate, hosts[i]));
    assert_false(gnutls_x509_crt_check_hostname(certificate, "host2.example.com"));
    assert_false(gnutls_x509_crt_check_hostname(certificate, "192.0.2.8"));
}

/* ---- what a certificate says ---- */

static void test_damaged_certificates(void **state)
{
    struct pki_blob copy = {.data = xmalloc(authority.size + 1), .size = authority.size};
    uint8_t zeros[PKI_CERTIFICATE_MAX + 1] = {0};
    struct pki_info info, good;
    struct err err = {0};

    memcpy(copy.data, authority.data, authority.size);
    copy.data[authority.size] = 0;
    assert_int_equal(pki_read(copy.data, copy.size, &good, NULL), 0);
    assert_int_equal(pki_read(copy.data, copy.size + 1, &info, &err), -EBADMSG); /* A tail. */
    assert_int_equal(pki_read(zeros, sizeof(zeros), &info, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "limit"));
    assert_int_equal(pki_read(zeros, 500, &info, &err), -EBADMSG);
    assert_int_equal(pki_read(NULL, 0, &info, &err), -EBADMSG);
    for (size_t i = 0; i < copy.size; i++) {
        int r;

        assert_int_equal(pki_read(copy.data, i, &info, NULL), -EBADMSG);
        copy.data[i] ^= 0x21;
        r = pki_read(copy.data, copy.size, &info, &err);
        assert_true(r == 0 || r == -EBADMSG || r == -EKEYREJECTED);
        if (r == 0) /* What is read of it is another's, then. */
            assert_memory_not_equal(info.fingerprint, good.fingerprint, PKI_FINGERPRINT_SIZE);
        copy.data[i] ^= 0x21;
    }
    pki_blob_done(&copy);
}

static void expect_foreign(const struct forge *forge, const char *says)
{
    _cleanup_(pki_blob_done) struct pki_blob blob = forge_certificate(forge);
    struct pki_info info;
    struct err err = {0};

    if (pki_read(blob.data, blob.size, &info, &err) != -EKEYREJECTED || strstr(err.text, says) == NULL)
        fail_msg("not \"%s\", but \"%s\"", says, err.text);
}

static struct forge good_machine(void)
{
    return forge_machine(URI, machine_key, &authority, authority_key);
}

/* What the forger makes without being told is taken: so it is each one thing that is refused below. */
static void test_forger(void **state)
{
    const struct forge forge = good_machine(), above = forge_authority(AUTHORITY, machine_key, NULL, NULL);
    _cleanup_(pki_blob_done) struct pki_blob blob = forge_certificate(&forge);
    _cleanup_(pki_blob_done) struct pki_blob above_blob = forge_certificate(&above);
    struct pki_info info;

    assert_int_equal(pki_read(blob.data, blob.size, &info, NULL), 0);
    assert_string_equal(info.name.id, MACHINE);
    assert_string_equal(info.serial, "010203");
    assert_int_equal(pki_read(above_blob.data, above_blob.size, &info, NULL), 0);
    assert_int_equal(info.name.kind, PKI_AUTHORITY);
}

static void test_foreign_names(void **state)
{
    static const char nul_uri[] = URI "\0.example";
    static const struct {
        gnutls_x509_subject_alt_name_t type;
        const char *data;
        size_t size;
        const char *says;
    } more[] = {
        {GNUTLS_SAN_URI, URI, sizeof(URI) - 1, "more than one"},
        {GNUTLS_SAN_URI, "fleet://" CLUSTER "/client/a/admin", sizeof(CLUSTER) + 22, "more than one"},
        {GNUTLS_SAN_URI, "https://example.com/", 20, "no fleet name"},
        {GNUTLS_SAN_URI, nul_uri, sizeof(nul_uri) - 1, "no fleet name"},
        {GNUTLS_SAN_RFC822NAME, "root@example.com", 16, "no fleet name"},
    };
    struct forge forge = good_machine();
    char long_uri[1000] = "fleet://" CLUSTER "/client/";

    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        forge = good_machine();
        forge.sans[forge.san_count++] =
            (struct forge_san){.type = more[i].type, .data = more[i].data, .size = more[i].size};
        expect_foreign(&forge, more[i].says);
    }

    forge.san_count = 0; /* A common name is no name. */
    expect_foreign(&forge, "no fleet:// name");
    forge.sans[0] = (struct forge_san){.type = GNUTLS_SAN_DNSNAME, .data = URI, .size = sizeof(URI) - 1};
    forge.san_count = 1;
    expect_foreign(&forge, "no fleet:// name");
    forge.sans[0] = (struct forge_san){.type = GNUTLS_SAN_URI, .data = nul_uri, .size = sizeof(nul_uri) - 1};
    expect_foreign(&forge, "no fleet name");
    memset(long_uri + strlen(long_uri), 'x', sizeof(long_uri) - 1 - strlen(long_uri));
    forge.sans[0] =
        (struct forge_san){.type = GNUTLS_SAN_URI, .data = long_uri, .size = sizeof(long_uri) - 1};
    expect_foreign(&forge, "alternative names");

    forge = good_machine();
    while (forge.san_count < FORGE_SANS_MAX)
        forge.sans[forge.san_count++] =
            (struct forge_san){.type = GNUTLS_SAN_DNSNAME, .data = "a.example", .size = 9};
    expect_foreign(&forge, "alternative names");
}

static void test_foreign_use(void **state)
{
    static const char client_uri[] = "fleet://" CLUSTER "/client/a/admin";
    struct forge forge;

    forge = good_machine();
    forge.purposes[1] = NULL;
    expect_foreign(&forge, "extended key usage");
    forge.purposes[0] = GNUTLS_KP_TLS_WWW_SERVER;
    expect_foreign(&forge, "extended key usage");
    forge.purposes[0] = NULL;
    expect_foreign(&forge, "extended key usage");
    forge.purposes[0] = GNUTLS_KP_ANY;
    expect_foreign(&forge, "extended key usage");
    for (size_t i = 0; i < ARRAY_SIZE(forge.purposes); i++)
        forge.purposes[i] = GNUTLS_KP_CODE_SIGNING;
    expect_foreign(&forge, "extended key usage");

    forge = good_machine(); /* Ends as a server's. */
    forge.san_count = 0;
    forge_add_uri(&forge, client_uri);
    expect_foreign(&forge, "extended key usage");
    forge.purposes[0] = NULL;
    expect_foreign(&forge, "extended key usage");

    forge = good_machine();
    forge.ca = true;
    expect_foreign(&forge, "is an authority's");
    forge = forge_authority(AUTHORITY, machine_key, NULL, NULL);
    forge.ca = false;
    expect_foreign(&forge, "not an authority's");
    forge = forge_authority(AUTHORITY, machine_key, NULL, NULL);
    forge.purposes[0] = GNUTLS_KP_TLS_WWW_CLIENT;
    expect_foreign(&forge, "extended key usage");

    forge = good_machine();
    forge.usage = GNUTLS_KEY_KEY_ENCIPHERMENT;
    expect_foreign(&forge, "another use");
    forge.usage = 0;
    expect_foreign(&forge, "another use");
    forge = forge_authority(AUTHORITY, machine_key, NULL, NULL);
    forge.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    expect_foreign(&forge, "another use");
}

static void test_foreign_form(void **state)
{
    _cleanup_(pki_key_freep) struct pki_key *rsa = forge_key(GNUTLS_PK_RSA, 2048);
    _cleanup_(pki_key_freep) struct pki_key *p384 =
        forge_key(GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP384R1));
    struct forge forge = forge_authority(AUTHORITY, rsa, NULL, NULL);
    _cleanup_(pki_blob_done) struct pki_blob by_rsa = forge_certificate(&forge), by_p384 = {0};

    forge = forge_authority(AUTHORITY, p384, NULL, NULL);
    forge.digest = GNUTLS_DIG_SHA384;
    by_p384 = forge_certificate(&forge);
    forge = good_machine();
    forge.key = rsa;
    expect_foreign(&forge, "P-256");
    forge.key = p384;
    expect_foreign(&forge, "P-256");
    forge = forge_machine(URI, machine_key, &by_rsa, rsa);
    expect_foreign(&forge, "SHA-256");
    forge = forge_machine(URI, machine_key, &by_p384, p384);
    forge.digest = GNUTLS_DIG_SHA384;
    expect_foreign(&forge, "SHA-256");
    forge = good_machine();
    forge.version = 1;
    expect_foreign(&forge, "version");
    forge = good_machine();
    forge.without_ids = true;
    expect_foreign(&forge, "key identifiers");
    forge = good_machine();
    forge.wrong_id = true;
    expect_foreign(&forge, "key identifiers");
}

/* ---- PEM ---- */

static void test_bad_pem(void **state)
{
    static const char *const cases[] = {
        "",
        "nothing of that kind\n",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    };
    _cleanup_(freep) char *huge = xcalloc(1, PKI_PEM_MAX + 1);
    struct pki_blob blobs[PKI_CHAIN_MAX] = {0};
    struct err err = {0};
    size_t count = 77;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (pki_from_pem(cases[i], strlen(cases[i]), blobs, PKI_CHAIN_MAX, &count, &err) != -EBADMSG)
            fail_msg("case %zu", i);
        assert_true(err.text[0] != '\0');
    }
    memset(huge, '\n', PKI_PEM_MAX);
    assert_int_equal(pki_from_pem(huge, PKI_PEM_MAX + 1, blobs, PKI_CHAIN_MAX, &count, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "limit"));
    assert_int_equal(count, 77);
}

static void test_pem(void **state)
{
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0}, pem = {0};
    const struct pki_subject subject = machine();
    struct pki_blob blobs[PKI_CHAIN_MAX] = {0};
    struct err err = {0};
    size_t count = 0;

    assert_int_equal(sign(&subject, &certificate, NULL, NULL), 0);
    assert_int_equal(pki_to_pem((struct pki_blob[]){certificate, authority, authority}, 3, &pem, NULL), 0);
    assert_int_equal(strlen((char *)pem.data), pem.size);
    assert_int_equal(pki_from_pem(pem.data, pem.size, blobs, 2, &count, &err), -E2BIG);
    assert_int_equal(pki_from_pem(pem.data, pem.size, blobs, PKI_CHAIN_MAX, &count, &err), 0);
    assert_int_equal(count, 3);
    assert_int_equal(blobs[0].size, certificate.size);
    assert_memory_equal(blobs[0].data, certificate.data, certificate.size);
    assert_int_equal(blobs[2].size, authority.size);
    assert_memory_equal(blobs[2].data, authority.data, authority.size);
    pki_blobs_done(blobs, count);
}

/* ---- tokens ---- */

static void test_bad_tokens(void **state)
{
    static const char *const cases[] = {
        "",
        " ",
        "fleet1.",
        "fleet2.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", /* Bits behind the last one. */
        "fleet1.AAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAA+AAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAA",
        "fleet1.AAAAAAAAAAAAAAAAAAAA\xc3\xa4zAAAAAAAAAAAAAAAAAAAA",
        "FLEET1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct join_token token;
        struct err err = {0};

        memset(&token, 7, sizeof(token));
        if (join_token_parse(cases[i], &token, &err) != -EINVAL)
            fail_msg("taken: \"%s\"", cases[i]);
        assert_non_null(strstr(err.text, "join token"));
        assert_null(strstr(err.text, "AAAA")); /* It is not repeated. */
        assert_int_equal(token.secret[0], 7);
    }
}

static void test_token(void **state)
{
    struct join_token token, again;
    char text[JOIN_TOKEN_TEXT_SIZE], id[JOIN_TOKEN_ID_SIZE];
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];
    _cleanup_(freep) char *padded = NULL;
    struct pki_info info;
    struct err err = {0};

    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(join_token_new(authority.data, authority.size, &token, NULL), 0);
        join_token_format(&token, text);
        assert_int_equal(strlen(text), 50);
        assert_true(str_has_prefix(text, "fleet1."));
        assert_int_equal(join_token_parse(text, &again, NULL), 0);
        assert_memory_equal(&again, &token, sizeof(token));
    }
    padded = xasprintf(" \t%s\r\n\n", text);
    memset(&again, 0, sizeof(again));
    assert_int_equal(join_token_parse(padded, &again, NULL), 0);
    assert_memory_equal(&again, &token, sizeof(token));

    assert_int_equal(pki_read(authority.data, authority.size, &info, NULL), 0);
    assert_memory_equal(token.pin, info.fingerprint, PKI_PIN_SIZE);
    assert_int_equal(join_token_new(request.data, request.size, &again, &err), -EBADMSG);

    /* SHA-256 of sixteen zero bytes, by sha256sum(1). */
    memset(&token, 0, sizeof(token));
    join_token_id(token.secret, id);
    assert_string_equal(id, "374708fff7719dd5");
    join_token_digest(token.secret, digest);
    assert_memory_equal(digest, "\x37\x47\x08\xff\xf7\x71\x9d\xd5\x97\x9e\xc8\x75\xd5\x6c\xd2\x28", 16);
    join_token_format(&token, text);
    assert_string_equal(text, "fleet1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_refused),
        cmocka_unit_test(test_name_with_nul),
        cmocka_unit_test(test_names_taken),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_key_damaged_anywhere),
        cmocka_unit_test(test_key_again),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_bad_subjects),
        cmocka_unit_test(test_bad_signers),
        cmocka_unit_test(test_made),
        cmocka_unit_test(test_hosts_in_certificate),
        cmocka_unit_test(test_damaged_certificates),
        cmocka_unit_test(test_forger),
        cmocka_unit_test(test_foreign_names),
        cmocka_unit_test(test_foreign_use),
        cmocka_unit_test(test_foreign_form),
        cmocka_unit_test(test_bad_pem),
        cmocka_unit_test(test_pem),
        cmocka_unit_test(test_bad_tokens),
        cmocka_unit_test(test_token),
    };

    return cmocka_run_group_tests(tests, make_world, end_world);
}
