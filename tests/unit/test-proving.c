/* SPDX-License-Identifier: Apache-2.0 */
/* Who may take part in consensus: one who has proved that it has the data; and without a proof (a new standby
 * has no data yet, and after a power cut of all nobody has applied any) only one that is known as a keeper,
 * and is a server of the configuration besides. And what this host proves itself by. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/authority.h"
#include "fleetd/daemon_private.h"
#include "tests/unit/cluster-world.h"

#define ID_A      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B      "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define SERVER_A  0xaull
#define SERVER_B  0xbull
#define STRANGE   0x5ull
#define NOW_MS    1800000000000ull
#define TEXT_SIZE 64u

static struct world {
    struct daemon daemon;
    struct registry *registry;
    struct store_server servers[2]; /* The configuration of the consensus. */
    size_t server_count;
    struct pki_name peer; /* Who calls, by its certificate... */
    bool tls, proved;     /* ...if it has one; and whether it has proved that it has the data. */
    unsigned complaints;
} w;

/* ---- what it touches ---- */

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    return w.tls ? &w.peer : NULL;
}

bool conn_peer_proved(const struct conn *conn)
{
    return w.proved;
}

const struct registry *store_registry(const struct store *store)
{
    assert_non_null(store);
    return w.registry;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    assert_non_null(store);
    assert_true(max >= w.server_count);
    memcpy(servers, w.servers, w.server_count * sizeof *servers);
    return w.server_count;
}

static void sink(int priority, const char *message, const char *const *fields)
{
    w.complaints++;
}

/* ---- the world: a cluster in which A and B are servers, seen by a third one ---- */

static ProtobufCBinaryData data_of(const struct pki_blob *blob)
{
    return (ProtobufCBinaryData){.len = blob->size, .data = blob->data};
}

static void found(void)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0}, encoded = {0};
    const uint8_t *cluster = (const uint8_t *)"0123456789abcdef";

    assert_int_equal(authority_found(cluster, NOW_MS, &key, &certificate, NULL), 0);
    assert_int_equal(pki_key_encode(key, &encoded, NULL), 0);
    authority.certificate = data_of(&certificate);
    authority.private_key = data_of(&encoded);
    body.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)cluster};
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    cluster_apply(w.registry, &command, NOW_MS);
}

static void rotate(Fleet__RotationStep step)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Authority next = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    bool begins = step == FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN;

    if (begins)
        assert_int_equal(authority_next(w.registry, NOW_MS, &next, NULL), 0);
    body.step = step;
    body.authority = begins ? &next : NULL;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    cluster_apply(w.registry, &command, NOW_MS);
    if (begins)
        authority_next_done(&next);
}

static void registers(const char *machine_id, uint64_t server_id)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)machine_id;
    body.server_id = server_id;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    cluster_apply(w.registry, &command, NOW_MS);
}

static int setup(void **state)
{
    w = (struct world){
        .servers = {{.id = SERVER_A, .role = SERVER_VOTER}, {.id = SERVER_B, .role = SERVER_VOTER}},
        .server_count = 2,
        .peer = {.kind = PKI_MACHINE, .id = ID_A},
        .tls = true};
    log_set_sink(sink);
    w.registry = registry_new();
    w.daemon.store = (struct store *)&w; /* Only looked at by the pretences. */
    return 0;
}

static int teardown(void **state)
{
    pki_key_free(w.daemon.proving_key);
    member_done(&w.daemon.member);
    registry_free(w.registry);
    log_set_sink(NULL);
    return 0;
}

/* ---- whom this host hears ---- */

static int speaks_as(uint64_t server_id)
{
    struct err err = {0};
    int r = proving_check_server(NULL, server_id, &err, &w.daemon);

    if (r < 0) {
        assert_int_equal(r, -EACCES);
        assert_non_null(strstr(err.text, w.peer.id));
        assert_non_null(strstr(err.text, "nor does it prove it"));
    }
    return r;
}

static void test_plain_text(void **state)
{
    w.tls = false;
    assert_int_equal(speaks_as(STRANGE), 0); /* "insecure": nobody proves anything. */
}

/* Its proof is enough: whoever has the data may know of a change of servers that this host has not heard of.
 */
static void test_a_proof_is_enough(void **state)
{
    w.proved = true;
    assert_int_equal(speaks_as(STRANGE), 0);
    w.daemon.store = NULL;
    assert_int_equal(speaks_as(STRANGE), 0);
}

static void test_a_known_keeper(void **state)
{
    strlist_add(&w.daemon.member.keepers, ID_A);
    assert_int_equal(speaks_as(SERVER_A), 0);
    registers(ID_A, STRANGE); /* What applies later does not matter to who was known before. */
    assert_int_equal(speaks_as(SERVER_A), 0);
}

/* A machine id is no secret: who is known as a keeper is so as one of the servers that there are. */
static void test_a_keeper_as_a_server_that_is_none(void **state)
{
    strlist_add(&w.daemon.member.keepers, ID_A);
    registers(ID_A, STRANGE);
    assert_int_equal(speaks_as(STRANGE), -EACCES);
    assert_int_equal(speaks_as(0), -EACCES);
    w.server_count = 0;
    assert_int_equal(speaks_as(SERVER_A), -EACCES);
}

/* Any host of the cluster has a certificate, and reads in "list-members" which servers there are. */
static void test_another_machine_as_a_server(void **state)
{
    strlist_add(&w.daemon.member.keepers, ID_B);
    assert_int_equal(speaks_as(SERVER_A), -EACCES);
    registers(ID_A, STRANGE);
    assert_int_equal(speaks_as(SERVER_A), -EACCES);
    assert_int_equal(speaks_as(SERVER_B), -EACCES);
}

/* The registry knows it as that server, and the list is not renewed yet. */
static void test_a_new_standby(void **state)
{
    strlist_add(&w.daemon.member.keepers, ID_B);
    registers(ID_A, SERVER_A);
    assert_int_equal(speaks_as(SERVER_A), 0);
    assert_int_equal(speaks_as(SERVER_B), -EACCES); /* That is somebody else. */
}

static void test_no_list_yet(void **state)
{
    assert_int_equal(speaks_as(SERVER_A), 0);
    assert_int_equal(speaks_as(STRANGE), -EACCES);
}

static void test_a_host_without_data_believes_nobody_unproved(void **state)
{
    strlist_add(&w.daemon.member.keepers, ID_A);
    w.daemon.store = NULL;
    assert_int_equal(speaks_as(SERVER_A), -EACCES);
}

/* ---- what this host proves itself by ---- */

static const uint8_t text[TEXT_SIZE] = "fleet: this is what both ends of one connection know";

/* Whether it signs, so that who trusts 'root' believes it, by what it shows. */
static bool proves_to(const struct pki_blob *root)
{
    _cleanup_(pki_blob_done) struct pki_blob signature = {0};
    struct port_proof proof = {0};
    struct pki_blob others[3];
    struct pki_info by;

    assert_true(proving_sign(text, sizeof text, &proof, &w.daemon));
    assert_true(proof.authority_count <= 3);
    signature = proof.signature;
    for (size_t i = 0; i < proof.authority_count; i++)
        others[i] = (struct pki_blob){.data = proof.authorities[i].data, .size = proof.authorities[i].len};
    return pki_verify_proof(signature.data, signature.size, text, sizeof text, others, proof.authority_count,
                            root, 1, NOW_MS, &by, NULL) == 0;
}

static struct pki_blob root_of_today(void)
{
    const struct registry_authority *issuing = &registry_authorities(w.registry)->issuing;

    return (struct pki_blob){.data = xmemdup(issuing->certificate, issuing->certificate_size),
                             .size = issuing->certificate_size};
}

static void test_who_has_no_key_proves_nothing(void **state)
{
    struct port_proof proof = {0};

    assert_false(proving_sign(text, sizeof text, &proof, &w.daemon)); /* The registry is not filled yet. */
    w.daemon.store = NULL;
    assert_false(proving_sign(text, sizeof text, &proof, &w.daemon));
    assert_null(proof.signature.data);
    assert_int_equal(w.complaints, 0);
}

/* With the new authority's key as soon as that issues; who trusts only the old one follows what is shown. */
static void test_a_proof_over_a_rotation(void **state)
{
    _cleanup_(pki_blob_done) struct pki_blob first = {0}, second = {0};
    const struct pki_key *key;

    found();
    first = root_of_today();
    assert_true(proves_to(&first));
    key = w.daemon.proving_key;
    assert_true(proves_to(&first));
    assert_ptr_equal(w.daemon.proving_key, key); /* It was not taken out once more. */
    rotate(FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN);
    assert_true(proves_to(&first));
    rotate(FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE);
    second = root_of_today();
    assert_true(proves_to(&second));
    assert_true(proves_to(&first));
    rotate(FLEET__ROTATION_STEP__ROTATION_STEP_FINISH);
    assert_true(proves_to(&second));
    assert_int_equal(w.complaints, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plain_text),
        TEST(test_a_proof_is_enough),
        TEST(test_a_known_keeper),
        TEST(test_a_keeper_as_a_server_that_is_none),
        TEST(test_another_machine_as_a_server),
        TEST(test_a_new_standby),
        TEST(test_no_list_yet),
        TEST(test_a_host_without_data_believes_nobody_unproved),
        TEST(test_who_has_no_key_proves_nothing),
        TEST(test_a_proof_over_a_rotation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
