/* SPDX-License-Identifier: Apache-2.0 */
/* The host's key, certificate and authorities on its disk; and what the leader makes of its authority:
 * certificates and what proves them, over a rotation, and join tokens. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/authority.h"
#include "fleetd/credentials.h"
#include "fleetd/founding.h"

#define ID_A    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define CLUSTER ((const uint8_t *)"0123456789abcdef")
#define NOW_MS  1800000000000ull
#define YEAR_MS (365ull * 24 * 3600 * 1000)

/* ---- a world: a cluster with an authority, and a host's directory ---- */

struct world {
    struct registry *registry;
    char directory[64];
    struct credentials credentials;
};

static void apply(struct world *world, Fleet__Command *command)
{
    const struct registry_result *result;
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = NOW_MS;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    result = registry_apply(world->registry, bytes, size);
    assert_string_equal(result->text, "");
    free(bytes);
}

static ProtobufCBinaryData data_of(const struct pki_blob *blob)
{
    return (ProtobufCBinaryData){.len = blob->size, .data = blob->data};
}

static void found(struct world *world)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct pki_key *key;
    struct pki_blob certificate = {0}, encoded = {0};
    struct err err = {0};

    assert_int_equal(authority_found(CLUSTER, NOW_MS, &key, &certificate, &err), 0);
    assert_int_equal(pki_key_encode(key, &encoded, &err), 0);
    authority.certificate = data_of(&certificate);
    authority.private_key = data_of(&encoded);
    body.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)CLUSTER};
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    apply(world, &command);
    pki_key_free(key);
    pki_blob_done(&certificate);
    pki_blob_done(&encoded);
}

static void rotate(struct world *world, Fleet__RotationStep step)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Authority next = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    bool begins = step == FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN;
    struct err err = {0};

    if (begins)
        assert_int_equal(authority_next(world->registry, NOW_MS, &next, &err), 0);
    body.step = step;
    body.authority = begins ? &next : NULL;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    apply(world, &command);
    if (begins)
        authority_next_done(&next);
}

static int setup(void **state)
{
    struct world *world = NEW0(struct world);
    struct err err = {0};

    strcpy(world->directory, "/tmp/test-credentials.XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    strcat(world->directory, "/fleet");
    world->registry = registry_new();
    found(world);
    assert_int_equal(credentials_load(world->directory, &world->credentials, &err), 0);
    *state = world;
    return 0;
}

static char *path_of(const struct world *world, const char *name)
{
    return xasprintf("%s/tls/%s", world->directory, name);
}

static int teardown(void **state)
{
    static const char *const names[] = {"host.key", "host.crt", "authority.crt", "authority.key", ""};
    struct world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *path = path_of(world, names[i]);

        if (names[i][0] != '\0')
            unlink(path);
        else
            rmdir(path);
    }
    rmdir(world->directory);
    *strrchr(world->directory, '/') = '\0';
    rmdir(world->directory);
    credentials_done(&world->credentials);
    registry_free(world->registry);
    free(world);
    return 0;
}

/* What a host gets for its request, as it arrives. */
struct issued {
    struct pki_blob certificate, chain[PKI_CHAIN_MAX], roots[PKI_ROOTS_MAX];
    struct credentials_issued list;
};

static void bundle(struct world *world, struct issued *ret)
{
    struct authority_bundle bundle;

    authority_bundle(world->registry, &bundle);
    for (size_t i = 1; i < bundle.chain_count; i++)
        ret->chain[i] = (struct pki_blob){.data = bundle.chain[i].data, .size = bundle.chain[i].len};
    for (size_t i = 0; i < bundle.root_count; i++)
        ret->roots[i] = (struct pki_blob){.data = bundle.roots[i].data, .size = bundle.roots[i].len};
    ret->chain[0] = ret->certificate;
    ret->list = (struct credentials_issued){.chain = ret->chain,
                                            .chain_count = bundle.chain_count,
                                            .roots = ret->roots,
                                            .root_count = bundle.root_count};
}

static int certify(struct world *world, const char *machine_id, struct issued *ret)
{
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    struct pki_blob request = {0};
    ProtobufCBinaryData data;
    struct err err = {0};
    int r;

    machine.machine_id = (char *)machine_id;
    machine.hostname = (char *)"node1";
    machine.public_ip = (char *)"10.0.0.1";
    machine.cluster_address = (char *)"[fd77::1]:7390";
    assert_int_equal(credentials_request(&world->credentials, &request, &err), 0);
    data = data_of(&request);
    *ret = (struct issued){0};
    r = authority_certify(world->registry, &machine, &data, NOW_MS, &ret->certificate, &err);
    pki_blob_done(&request);
    bundle(world, ret);
    return r;
}

static int take(struct world *world, const struct issued *issued, uint64_t now_ms, struct err *err)
{
    return credentials_take(&world->credentials, &issued->list, CLUSTER, ID_A, now_ms, err);
}

static void get_certificate(struct world *world)
{
    struct issued issued;
    struct err err = {0};

    assert_int_equal(certify(world, ID_A, &issued), 0);
    if (take(world, &issued, NOW_MS, &err) < 0)
        fail_msg("%s", err.text);
    pki_blob_done(&issued.certificate);
}

/* ---- files ---- */

static void test_nothing_there(void **state)
{
    struct world *world = *state;

    assert_false(credentials_complete(&world->credentials));
    assert_false(credentials_ended(&world->credentials, NOW_MS));
    assert_int_equal(access(world->directory, F_OK), -1); /* Looking makes nothing. */
}

static void assert_mode(const struct world *world, const char *name, mode_t mode)
{
    _cleanup_(freep) char *path = path_of(world, name);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
}

static void test_kept_on_the_disk(void **state)
{
    struct world *world = *state;
    struct credentials again = {0};
    struct err err = {0};

    get_certificate(world);
    assert_true(credentials_complete(&world->credentials));
    assert_int_equal(credentials_load(world->directory, &again, &err), 0);
    assert_true(credentials_complete(&again));
    assert_int_equal(again.chain_count, world->credentials.chain_count);
    assert_int_equal(again.root_count, 1);
    assert_string_equal(again.info.name.id, ID_A);
    assert_memory_equal(again.fingerprints[0], registry_authorities(world->registry)->issuing.fingerprint,
                        FINGERPRINT_SIZE);
    assert_memory_equal(&again.info, &world->credentials.info, sizeof again.info);
    credentials_done(&again);
    assert_mode(world, "", 0700);
    assert_mode(world, "host.key", 0600);
    assert_mode(world, "host.crt", 0600);
    assert_mode(world, "authority.crt", 0600);
}

/* A host that has asked, and never got an answer: the next one asks with the same key. */
static void test_key_without_a_certificate(void **state)
{
    struct world *world = *state;
    struct credentials again = {0};
    struct pki_blob first = {0}, second = {0};
    struct err err = {0};

    assert_int_equal(credentials_request(&world->credentials, &first, &err), 0);
    assert_int_equal(credentials_load(world->directory, &again, &err), 0);
    assert_false(credentials_complete(&again));
    assert_non_null(again.key);
    assert_int_equal(credentials_request(&again, &second, &err), 0);
    /* ECDSA signs the same with other numbers; what is signed is the same. */
    assert_memory_equal(first.data + 4, second.data + 4, 60);
    pki_blob_done(&first);
    pki_blob_done(&second);
    credentials_done(&again);
}

static void overwrite(const struct world *world, const char *name, const char *text)
{
    _cleanup_(freep) char *path = path_of(world, name);
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_damaged_files(void **state)
{
    static const char *const names[] = {"host.key", "host.crt", "authority.crt"};
    struct world *world = *state;
    char large[70000];

    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *const texts[] = {"", "nonsense\n",
                                     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", large};

        for (size_t j = 0; j < ARRAY_SIZE(texts); j++) {
            struct credentials again = {0};
            struct err err = {0};
            int r;

            get_certificate(world);
            overwrite(world, names[i], texts[j]);
            r = credentials_load(world->directory, &again, &err);
            /* What stands in authority.crt is looked at by who trusts it. */
            if (i == 2 && j == 2 && r == 0) {
                credentials_done(&again);
                continue;
            }
            assert_true(r < 0);
            assert_non_null(strstr(err.text, names[i]));
        }
        credentials_done(&world->credentials);
        assert_int_equal(credentials_load("/nonexistent", &world->credentials, NULL), 0);
        free(world->credentials.directory);
        world->credentials.directory = xasprintf("%s/tls", world->directory);
    }
}

static void test_another_ones_key(void **state)
{
    struct world *world = *state;
    struct credentials again = {0};
    struct pki_key *key;
    struct pki_blob pem = {0};
    struct err err = {0};

    get_certificate(world);
    assert_int_equal(pki_key_new(&key, &err), 0);
    assert_int_equal(pki_key_to_pem(key, &pem, &err), 0);
    overwrite(world, "host.key", (const char *)pem.data);
    assert_int_equal(credentials_load(world->directory, &again, &err), -EKEYREJECTED);
    assert_non_null(strstr(err.text, "host.crt"));
    pki_blob_done(&pem);
    pki_key_free(key);
}

/* ---- what is taken ---- */

static void test_only_what_fits_is_taken(void **state)
{
    struct world *world = *state;
    struct issued issued;
    struct err err = {0};

    assert_int_equal(certify(world, ID_B, &issued), 0);
    assert_int_equal(take(world, &issued, NOW_MS, &err), -EKEYREJECTED); /* Another machine's. */
    pki_blob_done(&issued.certificate);

    assert_int_equal(certify(world, ID_A, &issued), 0);
    assert_int_equal(credentials_take(&world->credentials, &issued.list, (const uint8_t *)"another cluster!",
                                      ID_A, NOW_MS, &err),
                     -EKEYREJECTED);
    assert_int_equal(take(world, &issued, NOW_MS + 2 * YEAR_MS, &err), -EKEYEXPIRED);
    assert_non_null(strstr(err.text, "by this host's clock"));
    issued.list.chain_count = 0;
    assert_int_equal(take(world, &issued, NOW_MS, &err), -EKEYREJECTED);
    issued.list.chain_count = PKI_CHAIN_MAX + 1;
    assert_int_equal(take(world, &issued, NOW_MS, &err), -EKEYREJECTED);
    issued.list.chain_count = 1;
    issued.list.root_count = 0;
    assert_int_equal(take(world, &issued, NOW_MS, &err), -EKEYREJECTED);
    issued.list.root_count = 1;
    assert_false(credentials_complete(&world->credentials));
    assert_int_equal(take(world, &issued, NOW_MS, &err), 0);
    assert_false(credentials_ended(&world->credentials, NOW_MS + YEAR_MS - 1000));
    assert_true(credentials_ended(&world->credentials, NOW_MS + YEAR_MS));
    pki_blob_done(&issued.certificate);
}

/* Signed by who is no authority of ours. */
static void test_foreign_authority_is_not_taken(void **state)
{
    struct world *world = *state, *other;
    void *other_state;
    struct issued foreign, ours;
    struct err err = {0};

    setup(&other_state);
    other = other_state;
    assert_int_equal(certify(world, ID_A, &ours), 0);
    assert_int_equal(certify(other, ID_A, &foreign), 0);
    foreign.list.roots = ours.list.roots;
    assert_int_equal(take(world, &foreign, NOW_MS, &err), -EKEYREJECTED);
    pki_blob_done(&foreign.certificate);
    pki_blob_done(&ours.certificate);
    teardown(&other_state);
}

static void test_trust(void **state)
{
    struct world *world = *state;
    struct credentials again = {0};
    struct issued issued = {0};
    struct err err = {0};

    get_certificate(world);
    bundle(world, &issued);
    assert_int_equal(credentials_trust(&world->credentials, issued.roots, issued.list.root_count, &err), 0);
    rotate(world, FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN);
    bundle(world, &issued);
    assert_int_equal(credentials_trust(&world->credentials, issued.roots, issued.list.root_count, &err), 1);
    assert_int_equal(credentials_trust(&world->credentials, issued.roots, issued.list.root_count, &err), 0);
    assert_int_equal(credentials_load(world->directory, &again, &err), 0);
    assert_int_equal(again.root_count, 2);
    assert_memory_equal(again.fingerprints[1], registry_authorities(world->registry)->next.fingerprint,
                        FINGERPRINT_SIZE);
    credentials_done(&again);
}

/* Kept, it would keep this host from starting again. */
static void test_trust_in_what_is_none(void **state)
{
    struct world *world = *state;
    struct pki_blob roots[] = {{0}, {.data = (uint8_t *)"nonsense", .size = 8}};
    struct credentials again = {0};
    struct issued issued = {0};
    struct err err = {0};

    get_certificate(world);
    bundle(world, &issued);
    roots[0] = issued.roots[0];
    assert_int_equal(credentials_trust(&world->credentials, roots, 2, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "authority 2 of 2"));
    assert_int_equal(world->credentials.root_count, 1);
    assert_int_equal(credentials_load(world->directory, &again, &err), 0);
    assert_int_equal(again.root_count, 1);
    credentials_done(&again);
}

/* ---- the authority ---- */

static void test_founders_authority_key(void **state)
{
    struct world *world = *state;
    struct pki_key *key;
    struct pki_blob encoded = {0}, loaded = {0};
    struct err err = {0};

    assert_int_equal(credentials_load_authority(&world->credentials, &loaded, &err), -ENOENT);
    assert_non_null(strstr(err.text, "authority.key"));
    assert_int_equal(pki_key_new(&key, &err), 0);
    assert_int_equal(pki_key_encode(key, &encoded, &err), 0);
    assert_int_equal(credentials_save_authority(&world->credentials, key, &err), 0);
    assert_mode(world, "authority.key", 0600);
    assert_int_equal(credentials_load_authority(&world->credentials, &loaded, &err), 0);
    assert_int_equal(loaded.size, encoded.size);
    assert_memory_equal(loaded.data, encoded.data, encoded.size);
    pki_blob_done(&loaded);
    credentials_forget_authority(&world->credentials);
    assert_int_equal(credentials_load_authority(&world->credentials, &loaded, &err), -ENOENT);
    pki_blob_done(&encoded);
    pki_key_free(key);
}

static void test_request_that_is_none(void **state)
{
    struct world *world = *state;
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    static uint8_t large[PKI_REQUEST_MAX + 1];
    ProtobufCBinaryData requests[] = {
        {0}, {.len = 3, .data = (uint8_t *)"abc"}, {.len = sizeof large, .data = large}};
    struct pki_blob certificate = {0};

    machine.machine_id = (char *)ID_A;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        struct err err = {0};

        assert_true(authority_certify(world->registry, &machine, &requests[i], NOW_MS, &certificate, &err) <
                    0);
        assert_true(err.text[0] != '\0');
        assert_null(certificate.data);
    }
}

/* Whether the host's certificate holds for one who trusts these roots. */
static bool holds(const struct world *world, const struct pki_blob *roots, size_t count)
{
    struct pki_info info;

    return pki_verify(world->credentials.chain, world->credentials.chain_count, roots, count, NOW_MS, &info,
                      NULL) >= 0;
}

/* At each step every host believes every other one, whether that has done the step already or not. */
static void test_everybody_is_believed_during_a_rotation(void **state)
{
    static const Fleet__RotationStep steps[] = {FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN,
                                                FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE,
                                                FLEET__ROTATION_STEP__ROTATION_STEP_FINISH};
    struct world *world = *state;
    struct issued before = {0}, after = {0};
    struct pki_blob roots[PKI_ROOTS_MAX];
    size_t root_count;

    get_certificate(world);
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        bundle(world, &before);
        root_count = before.list.root_count;
        for (size_t j = 0; j < root_count; j++)
            roots[j] = (struct pki_blob){.data = xmemdup(before.roots[j].data, before.roots[j].size),
                                         .size = before.roots[j].size};
        rotate(world, steps[i]);
        bundle(world, &after);
        /* The certificate from before, for one who has done the step; but for the last: then all have new
         * ones. */
        assert_true(holds(world, after.roots, after.list.root_count));
        get_certificate(world);
        assert_true(holds(world, after.roots, after.list.root_count));
        assert_true(holds(world, roots, root_count));
        pki_blobs_done(roots, root_count);
    }
    assert_int_equal(after.list.root_count, 1);
}

/* A token of before the rotation names the old authority: what members show still proves it, by the cross
 * certificate. */
static void test_old_tokens_are_answered_after_a_rotation(void **state)
{
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1";
    struct world *world = *state;
    struct join_token old, new;
    struct pki_blob shown[PKI_CHAIN_MAX];
    struct issued issued = {0};
    struct pki_info info;
    struct err err = {0};
    size_t count;

    authority_make_token(world->registry, id, &old);
    rotate(world, FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN);
    rotate(world, FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE);
    get_certificate(world); /* Hosts get theirs here; with the next step they only hear whom to trust. */
    rotate(world, FLEET__ROTATION_STEP__ROTATION_STEP_FINISH);
    bundle(world, &issued);
    assert_int_equal(credentials_trust(&world->credentials, issued.roots, issued.list.root_count, &err), 1);
    assert_int_equal(world->credentials.root_count, 1);
    authority_make_token(world->registry, id, &new);
    assert_memory_not_equal(old.pin, new.pin, sizeof old.pin);
    assert_memory_not_equal(old.secret, new.secret, sizeof old.secret);
    /* As tls_credentials.h shows them: the chain, and the roots behind it. */
    count = world->credentials.chain_count;
    memcpy(shown, world->credentials.chain, count * sizeof *shown);
    shown[count++] = world->credentials.roots[0];
    assert_int_equal(pki_verify_pinned(shown, count, new.pin, NOW_MS, &info, NULL, &err), 0);
    assert_int_equal(pki_verify_pinned(shown, count, old.pin, NOW_MS, &info, NULL, &err), 0);
    old.pin[0] ^= 1;
    assert_int_equal(pki_verify_pinned(shown, count, old.pin, NOW_MS, &info, NULL, &err), -EKEYREJECTED);
}

static void test_tokens_come_from_requests(void **state)
{
    struct world *world = *state;
    struct join_token first, again, other;

    authority_make_token(world->registry, (const uint8_t *)"request-number-1", &first);
    authority_make_token(world->registry, (const uint8_t *)"request-number-1", &again);
    authority_make_token(world->registry, (const uint8_t *)"request-number-2", &other);
    assert_memory_equal(&first, &again, sizeof first);
    assert_memory_not_equal(first.secret, other.secret, sizeof first.secret);
    assert_memory_equal(first.pin, other.pin, sizeof first.pin);
}

/* ---- the beginning of a cluster ---- */

static void test_founding(void **state)
{
    struct world *world = *state;
    const uint8_t *cluster = (const uint8_t *)"fedcba9876543210";
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    struct credentials loaded = {0};
    struct pki_info info;
    struct err err = {0};

    machine.machine_id = (char *)ID_B;
    machine.cluster_address = (char *)"10.0.0.2:7390";
    /* Again, too: what is there of an attempt that was given up, or of another cluster, is replaced. */
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_(pki_key_freep) struct pki_key *key = NULL;

        assert_int_equal(
            founding_certify(&world->credentials, cluster, &machine, NOW_MS, 7777000, &key, &err), 0);
        assert_int_equal(credentials_load(world->directory, &loaded, &err), 0);
        assert_true(credentials_complete(&loaded));
        assert_int_equal(loaded.root_count, 1);
        assert_int_equal(pki_key_fits(key, loaded.roots[0].data, loaded.roots[0].size, &err), 0);
        assert_int_equal(pki_verify(loaded.chain, loaded.chain_count, loaded.roots, 1, NOW_MS, &info, &err),
                         0);
        assert_int_equal(info.name.kind, PKI_MACHINE);
        assert_string_equal(info.name.id, ID_B);
        assert_int_equal(info.not_after_ms, NOW_MS + 7777000);
        assert_memory_equal(info.name.cluster_id, cluster, CLUSTER_ID_SIZE);
        credentials_done(&loaded);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_there),
        TEST(test_kept_on_the_disk),
        TEST(test_key_without_a_certificate),
        TEST(test_damaged_files),
        TEST(test_another_ones_key),
        TEST(test_only_what_fits_is_taken),
        TEST(test_foreign_authority_is_not_taken),
        TEST(test_trust),
        TEST(test_trust_in_what_is_none),
        TEST(test_founders_authority_key),
        TEST(test_request_that_is_none),
        TEST(test_everybody_is_believed_during_a_rotation),
        TEST(test_old_tokens_are_answered_after_a_rotation),
        TEST(test_tokens_come_from_requests),
        TEST(test_founding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
