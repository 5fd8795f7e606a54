/* SPDX-License-Identifier: Apache-2.0 */
/* Whom to believe: chains, authorities that certify each other, ends, other clusters. */
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
#include "pki/private.h"
#include "tests/unit/pki-forge.h"

#define CLUSTER   "00112233445566778899aabbccddeeff"
#define MACHINE   "0123456789abcdef0123456789abcdef"
#define URI       "fleet://" CLUSTER "/machine/" MACHINE
#define AUTHORITY "fleet://" CLUSTER "/authority"
#define NOW       1800000000000u /* 2027 */
#define MS_2030   1893456000000u
#define MS_2031   1924992000000u
#define MS_2100   4102444800000u

static const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                        0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const uint8_t other_id[PKI_CLUSTER_ID_SIZE] = {1};

struct authority {
    struct pki_key *key;
    struct pki_blob certificate;
};

/* Authorities a, b, c of one cluster, in this order; x of another. What b_a says: b, certified by a. */
static struct authority a, b, c, x;
static struct pki_blob b_a, c_b, c_a;
static struct pki_key *machine_key;
static struct pki_blob by_a, by_b, by_c, by_x; /* A machine of each. */

static void make_authority(struct authority *authority, const uint8_t *id, uint64_t not_after_ms)
{
    assert_int_equal(pki_key_new(&authority->key, NULL), 0);
    assert_int_equal(pki_authority_new(id, authority->key, not_after_ms, &authority->certificate, NULL), 0);
}

static struct pki_blob cross(const struct authority *below, const struct authority *above)
{
    struct pki_blob blob = {0};
    struct err err = {0};

    if (pki_authority_cross(below->certificate.data, below->certificate.size, above->certificate.data,
                            above->certificate.size, above->key, &blob, &err) < 0)
        fail_msg("%s", err.text);
    return blob;
}

static struct pki_blob certify(const struct authority *by, const uint8_t *id, uint64_t not_after_ms)
{
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = MACHINE}, .not_after_ms = not_after_ms};
    _cleanup_(pki_blob_done) struct pki_blob request = {0};
    struct pki_blob blob = {0};
    struct err err = {0};

    memcpy(subject.name.cluster_id, id, PKI_CLUSTER_ID_SIZE);
    assert_int_equal(pki_request_new(machine_key, &request, NULL), 0);
    if (pki_sign(by->certificate.data, by->certificate.size, by->key, request.data, request.size, &subject,
                 &blob, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return blob;
}

static int make_world(void **state)
{
    assert_int_equal(pki_key_new(&machine_key, NULL), 0);
    make_authority(&a, cluster_id, MS_2031);
    make_authority(&b, cluster_id, MS_2100);
    make_authority(&c, cluster_id, MS_2100);
    make_authority(&x, other_id, MS_2100);
    b_a = cross(&b, &a);
    c_b = cross(&c, &b);
    c_a = cross(&c, &a);
    by_a = certify(&a, cluster_id, MS_2030);
    by_b = certify(&b, cluster_id, MS_2100);
    by_c = certify(&c, cluster_id, MS_2100);
    by_x = certify(&x, other_id, MS_2100);
    return 0;
}

static int end_world(void **state)
{
    struct pki_blob *blobs[] = {&b_a, &c_b, &c_a, &by_a, &by_b, &by_c, &by_x};
    struct authority *authorities[] = {&a, &b, &c, &x};

    for (size_t i = 0; i < ARRAY_SIZE(blobs); i++)
        pki_blob_done(blobs[i]);
    for (size_t i = 0; i < ARRAY_SIZE(authorities); i++) {
        pki_key_free(authorities[i]->key);
        pki_blob_done(&authorities[i]->certificate);
    }
    pki_key_free(machine_key);
    return 0;
}

#define CHAIN(...) \
    (const struct pki_blob[]){__VA_ARGS__}, ARRAY_SIZE(((const struct pki_blob[]){__VA_ARGS__}))

static void expect(int expected, const char *says, const struct pki_blob *chain, size_t chain_count,
                   const struct pki_blob *roots, size_t root_count, uint64_t now_ms)
{
    struct pki_info info = {0};
    struct err err = {0};
    int r = pki_verify(chain, chain_count, roots, root_count, now_ms, &info, &err);

    if (r != expected || strstr(err.text, says) == NULL)
        fail_msg("%d \"%s\" instead of %d \"%s\"", r, err.text, expected, says);
    if (r == 0)
        assert_string_equal(info.name.id, MACHINE);
    else
        assert_int_equal(info.name.kind, PKI_NOBODY); /* Untouched. */
}

static void test_no_chain(void **state)
{
    struct pki_blob many[PKI_CHAIN_MAX + 1], junk = {.data = (uint8_t *)"junk", .size = 4}, empty = {0};

    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = i == 0 ? by_a : a.certificate;
    expect(-EKEYREJECTED, "no certificate", NULL, 0, CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "limit is 8", many, ARRAY_SIZE(many), CHAIN(a.certificate), NOW);
    expect(0, "", many, ARRAY_SIZE(many) - 1, CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "damaged", CHAIN(junk), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "damaged", CHAIN(empty), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "damaged", CHAIN(by_a, junk), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "is an authority's", CHAIN(a.certificate), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "is an authority's", CHAIN(b_a), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "cannot have signed it", CHAIN(by_a, by_a), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "cannot have signed it", CHAIN(by_a, x.certificate), CHAIN(a.certificate), NOW);
}

/* Both who has signed it, and which root that leads to. */
static void test_the_root_is_told(void **state)
{
    struct pki_info info, first, second;

    assert_int_equal(pki_read(a.certificate.data, a.certificate.size, &first, NULL), 0);
    assert_int_equal(pki_read(b.certificate.data, b.certificate.size, &second, NULL), 0);
    assert_int_equal(pki_verify(CHAIN(by_a), CHAIN(b.certificate, a.certificate), NOW, &info, NULL), 0);
    assert_memory_equal(info.issuer, first.key_id, PKI_KEY_ID_SIZE);
    assert_memory_equal(info.root, first.key_id, PKI_KEY_ID_SIZE);
    assert_int_equal(pki_verify(CHAIN(by_b, b_a), CHAIN(a.certificate), NOW, &info, NULL), 0);
    assert_memory_equal(info.issuer, second.key_id, PKI_KEY_ID_SIZE);
    assert_memory_equal(info.root, first.key_id, PKI_KEY_ID_SIZE);
    assert_int_equal(pki_verify(CHAIN(by_b, b_a), CHAIN(b.certificate), NOW, &info, NULL), 0);
    assert_memory_equal(info.root, second.key_id, PKI_KEY_ID_SIZE);
}

static void test_bad_roots(void **state)
{
    struct pki_blob many[PKI_ROOTS_MAX + 1], junk = {.data = (uint8_t *)"junk", .size = 4};

    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = a.certificate;
    expect(-EINVAL, "trusts 0", CHAIN(by_a), NULL, 0, NOW);
    expect(-EINVAL, "1 to 4", CHAIN(by_a), many, ARRAY_SIZE(many), NOW);
    expect(-EINVAL, "trusts", CHAIN(by_a), CHAIN(junk), NOW);
    expect(-EINVAL, "not an authority's", CHAIN(by_a), CHAIN(by_a), NOW);
}

static void test_own_authority(void **state)
{
    expect(0, "", CHAIN(by_a), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_a), CHAIN(x.certificate, b.certificate, a.certificate), NOW);
    expect(0, "", CHAIN(by_a, a.certificate), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_a), CHAIN(a.certificate), 1); /* A clock that is back in 1970. */
    expect(-EKEYREJECTED, "not known here", CHAIN(by_b), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "not known here", CHAIN(by_b, b.certificate), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "another cluster, 01000000000000000000000000000000", CHAIN(by_x),
           CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "another cluster", CHAIN(by_x, x.certificate), CHAIN(a.certificate, b.certificate),
           NOW);
}

static void test_ends(void **state)
{
    expect(0, "", CHAIN(by_a), CHAIN(a.certificate), MS_2030 - 1);
    expect(-EKEYEXPIRED, "the certificate ended on 2030-01-01 00:00:00 UTC", CHAIN(by_a),
           CHAIN(a.certificate), MS_2030);
    expect(-EKEYEXPIRED, "the certificate ended on 2030-01-01", CHAIN(by_a), CHAIN(a.certificate),
           UINT64_MAX);
    expect(0, "", CHAIN(by_b, b_a), CHAIN(a.certificate), MS_2031 - 1);
    expect(-EKEYEXPIRED, "authority that signed the certificate ended on 2031-01-01", CHAIN(by_b, b_a),
           CHAIN(a.certificate), MS_2031);
    /* There is another way. */
    expect(0, "", CHAIN(by_b, b_a), CHAIN(a.certificate, b.certificate), MS_2031);
    expect(0, "", CHAIN(by_b, b_a), CHAIN(b.certificate), MS_2031);
}

static void test_cross_signed(void **state)
{
    expect(0, "", CHAIN(by_b, b_a), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_b, b.certificate, b_a), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_b, a.certificate, b_a, b.certificate), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_b, b_a), CHAIN(b.certificate), NOW); /* One that knows the new one already. */
    expect(0, "", CHAIN(by_a, b_a), CHAIN(a.certificate), NOW); /* One that has no new one yet. */
    expect(0, "", CHAIN(by_c, c_a), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_c, c_b, b_a, c_a), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "", CHAIN(by_b, b_a), CHAIN(x.certificate), NOW);
    expect(-EKEYREJECTED, "not known here", CHAIN(by_b, c_a), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "not known here", CHAIN(by_b, b_a), CHAIN(c.certificate), NOW);
}

/* c by b by a: b was certified for machines and clients only. */
static void test_path_length(void **state)
{
    expect(-EKEYREJECTED, "does not hold", CHAIN(by_c, c_b, b_a), CHAIN(a.certificate), NOW);
    expect(0, "", CHAIN(by_c, c_b), CHAIN(b.certificate), NOW);
}

static void test_cross_refused(void **state)
{
    struct pki_blob blob = {0};
    struct err err = {0};

    assert_int_equal(pki_authority_cross(x.certificate.data, x.certificate.size, a.certificate.data,
                                         a.certificate.size, a.key, &blob, &err),
                     -EKEYREJECTED);
    assert_string_equal(err.text, "not two authorities of one cluster");
    assert_int_equal(
        pki_authority_cross(by_b.data, by_b.size, a.certificate.data, a.certificate.size, a.key, &blob, &err),
        -EKEYREJECTED);
    assert_int_equal(pki_authority_cross(b.certificate.data, b.certificate.size, a.certificate.data,
                                         a.certificate.size, b.key, &blob, &err),
                     -EKEYREJECTED);
    assert_int_equal(pki_authority_cross(b.certificate.data, b.certificate.size, by_a.data, by_a.size,
                                         machine_key, &blob, &err),
                     -EKEYREJECTED);
    assert_int_equal(pki_authority_cross("x", 1, a.certificate.data, a.certificate.size, a.key, &blob, &err),
                     -EBADMSG);
    assert_null(blob.data);
}

/* ---- what an attacker might make ---- */

/* The owner of a machine's certificate signs with it. */
static void test_machine_as_authority(void **state)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    struct forge leaf, fake;
    _cleanup_(pki_blob_done) struct pki_blob by_machine = {0}, fake_authority = {0};

    assert_int_equal(pki_key_new(&key, NULL), 0);
    leaf = forge_machine(URI, key, &by_a, machine_key);
    by_machine = forge_certificate(&leaf);
    expect(-EKEYREJECTED, "cannot have signed it", CHAIN(by_machine, by_a), CHAIN(a.certificate), NOW);
    expect(-EKEYREJECTED, "not known here", CHAIN(by_machine), CHAIN(a.certificate), NOW);

    /* Its key in an authority's certificate that it has signed itself. */
    fake = forge_authority(AUTHORITY, machine_key, NULL, NULL);
    fake_authority = forge_certificate(&fake);
    expect(-EKEYREJECTED, "not known here", CHAIN(by_machine, fake_authority), CHAIN(a.certificate), NOW);
}

/* All names and identifiers as they should be, but another's signature. */
static void test_signature(void **state)
{
    struct pki_blob damaged = {.data = xmemdup(by_a.data, by_a.size), .size = by_a.size};
    unsigned taken = 0;

    for (size_t i = 0; i < damaged.size; i++) {
        struct pki_info info;
        struct err err = {0};

        damaged.data[i] ^= 1;
        if (pki_verify(&damaged, 1, &a.certificate, 1, NOW, &info, &err) != -EKEYREJECTED)
            taken++;
        assert_true(err.text[0] != '\0');
        damaged.data[i] ^= 1;
    }
    assert_int_equal(taken, 0);
    damaged.data[damaged.size - 1] ^= 1;
    expect(-EKEYREJECTED, "signature of the certificate is wrong", CHAIN(damaged), CHAIN(a.certificate), NOW);
    pki_blob_done(&damaged);
}

/* Its authority is trusted, but is another cluster's: its own says so. */
static void test_name_of_another_cluster(void **state)
{
    struct forge leaf = forge_machine(URI, machine_key, &x.certificate, x.key);
    _cleanup_(pki_blob_done) struct pki_blob blob = forge_certificate(&leaf);

    expect(-EKEYREJECTED, "another cluster", CHAIN(blob), CHAIN(x.certificate), NOW);
    expect(-EKEYREJECTED, "", CHAIN(blob), CHAIN(x.certificate, a.certificate), NOW);
}

static void test_unknown_critical_extension(void **state)
{
    struct forge leaf = forge_machine(URI, machine_key, &a.certificate, a.key);
    _cleanup_(pki_blob_done) struct pki_blob good = forge_certificate(&leaf), bad = {0};

    expect(0, "", CHAIN(good), CHAIN(a.certificate), NOW);
    leaf.critical_unknown = true;
    bad = forge_certificate(&leaf);
    expect(-EKEYREJECTED, "does not hold", CHAIN(bad), CHAIN(a.certificate), NOW);
}

/* ---- pinned ---- */

static void test_pinned(void **state)
{
    struct pki_info info, root;
    struct err err = {0};
    size_t place = 77;

    assert_int_equal(pki_read(a.certificate.data, a.certificate.size, &root, NULL), 0);
#define PINNED(...) pki_verify_pinned(CHAIN(__VA_ARGS__), root.fingerprint, NOW, &info, &place, &err)
    assert_int_equal(PINNED(by_a), -EKEYREJECTED);
    assert_non_null(strstr(err.text, "not among"));
    assert_int_equal(PINNED(by_x, x.certificate), -EKEYREJECTED);
    assert_int_equal(PINNED(by_b, b.certificate), -EKEYREJECTED);
    assert_int_equal(PINNED(by_b, b.certificate, a.certificate),
                     -EKEYREJECTED); /* Shown, but has not signed. */
    assert_int_equal(PINNED(by_x, a.certificate), -EKEYREJECTED);
    assert_int_equal(PINNED(a.certificate, a.certificate), -EKEYREJECTED);
    assert_int_equal(pki_verify_pinned(NULL, 0, root.fingerprint, NOW, &info, &place, &err), -EKEYREJECTED);
    assert_int_equal(place, 77);
    assert_int_equal(PINNED(by_a, b_a, a.certificate), 0);
    assert_int_equal(place, 2);
    assert_string_equal(info.name.id, MACHINE);
    assert_int_equal(PINNED(by_b, a.certificate, b_a), 0); /* A token of before the authority changed. */
    assert_int_equal(place, 1);
    root.fingerprint[PKI_PIN_SIZE - 1] ^= 1;
    assert_int_equal(PINNED(by_a, b_a, a.certificate), -EKEYREJECTED);
#undef PINNED
}

static void test_proofs(void **state)
{
    static const char text[] = "for this connection";
    _cleanup_(pki_blob_done) struct pki_blob by_a_key = {0}, by_b_key = {0}, by_c_key = {0}, by_x_key = {0};
    struct pki_info by, root;
    struct err err = {0};

#define VERIFY(proof, text, ...) \
    pki_verify_proof((proof).data, (proof).size, text, sizeof(text), __VA_ARGS__, &by, &err)
    assert_int_equal(pki_prove(a.key, text, sizeof(text), &by_a_key, &err), 0);
    assert_int_equal(pki_prove(b.key, text, sizeof(text), &by_b_key, &err), 0);
    assert_int_equal(pki_prove(c.key, text, sizeof(text), &by_c_key, &err), 0);
    assert_int_equal(pki_prove(x.key, text, sizeof(text), &by_x_key, &err), 0);
    assert_true(by_a_key.size <= PKI_PROOF_MAX);
    assert_int_equal(VERIFY(by_a_key, text, NULL, 0, CHAIN(a.certificate), NOW), 0);
    assert_int_equal(VERIFY(by_b_key, text, NULL, 0, CHAIN(a.certificate, b.certificate), NOW), 0);
    assert_int_equal(pki_read(b.certificate.data, b.certificate.size, &root, NULL), 0);
    assert_memory_equal(by.key_id, root.key_id, PKI_KEY_ID_SIZE);
    assert_memory_equal(by.root, root.key_id, PKI_KEY_ID_SIZE);
    /* By the word of the authority before. */
    assert_int_equal(VERIFY(by_b_key, text, CHAIN(b.certificate, b_a), CHAIN(a.certificate), NOW), 0);
    assert_memory_equal(by.key_id, root.key_id, PKI_KEY_ID_SIZE);
    assert_int_equal(pki_read(a.certificate.data, a.certificate.size, &root, NULL), 0);
    assert_memory_equal(by.root, root.key_id, PKI_KEY_ID_SIZE);
    assert_int_equal(VERIFY(by_b_key, text, CHAIN(b_a), CHAIN(a.certificate), MS_2031 - 1), 0);
    assert_int_equal(VERIFY(by_b_key, text, CHAIN(b_a), CHAIN(a.certificate), MS_2031), -EKEYEXPIRED);
    assert_int_equal(VERIFY(by_a_key, text, NULL, 0, CHAIN(a.certificate), MS_2031), -EKEYEXPIRED);
    /* Not by nobody's, nor by that of one who is no authority, nor for something else. */
    assert_int_equal(VERIFY(by_b_key, text, CHAIN(b.certificate), CHAIN(a.certificate), NOW), -EKEYREJECTED);
    assert_int_equal(VERIFY(by_c_key, text, CHAIN(c_b, b_a), CHAIN(a.certificate), NOW), -EKEYREJECTED);
    assert_int_equal(VERIFY(by_x_key, text, CHAIN(x.certificate), CHAIN(a.certificate), NOW), -EKEYREJECTED);
    assert_int_equal(VERIFY(by_a_key, "for ANOTHER connection", NULL, 0, CHAIN(a.certificate), NOW),
                     -EKEYREJECTED);
    pki_blob_done(&by_x_key);
    assert_int_equal(pki_prove(machine_key, text, sizeof(text), &by_x_key, &err), 0);
    assert_int_equal(VERIFY(by_x_key, text, CHAIN(by_a), CHAIN(a.certificate), NOW), -EKEYREJECTED);
    assert_int_equal(VERIFY(by_x_key, text, NULL, 0, CHAIN(by_a), NOW), -EKEYREJECTED);
    /* Nonsense. */
    for (size_t i = 0; i < by_a_key.size; i++) {
        by_a_key.data[i] ^= 1;
        assert_int_equal(VERIFY(by_a_key, text, NULL, 0, CHAIN(a.certificate), NOW), -EKEYREJECTED);
        by_a_key.data[i] ^= 1;
    }
    assert_int_equal(
        pki_verify_proof(NULL, 0, text, sizeof(text), NULL, 0, CHAIN(a.certificate), NOW, &by, &err),
        -EKEYREJECTED);
    assert_int_equal(VERIFY(by_a_key, text, NULL, 0, NULL, 0, NOW), -EINVAL);
#undef VERIFY
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proofs),
        cmocka_unit_test(test_no_chain),
        cmocka_unit_test(test_the_root_is_told),
        cmocka_unit_test(test_bad_roots),
        cmocka_unit_test(test_own_authority),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_cross_signed),
        cmocka_unit_test(test_path_length),
        cmocka_unit_test(test_cross_refused),
        cmocka_unit_test(test_machine_as_authority),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_name_of_another_cluster),
        cmocka_unit_test(test_unknown_critical_extension),
        cmocka_unit_test(test_pinned),
    };

    return cmocka_run_group_tests(tests, make_world, end_world);
}
