/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that are open, after something has changed: which of them would not be begun any more, and end.
 * After a rotation of the authority that is whoever shows the old one's certificate, but for members, by
 * their keys; and whoever has proved only the old one, and cannot do it anew. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/daemon_private.h"
#include "tests/unit/cluster-world.h"
#include "tests/unit/fake-core.h"

#define A        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define STRANGER "ffffffffffffffffffffffffffffffff"
#define SERVER_A 0xaull
#define SERVER_B 0xbull
#define STRANGE  0x5ull

static const uint8_t key_a[FINGERPRINT_SIZE] = "key of A", key_b[FINGERPRINT_SIZE] = "key of B";

/* A connection, as the port would tell of it. */
struct pretence {
    struct pki_info info;
    uint64_t server_id;
    Fleet__Purpose purpose;
    bool plain, trusted, proof_ended, dialled;
};

static struct world {
    struct daemon daemon;
    struct registry *registry;
    struct core core;
    struct gate_callbacks gate;
    struct store_server servers[2];
    size_t server_count;
    const struct pretence *open;
    const char *ended; /* Why it was; NULL: it was not. */
    unsigned looks, asked_for_proof;
    int proof;
    char said[1024];
} w;

/* ---- what it touches ---- */

static const struct pretence *of(const struct conn *conn)
{
    return (const struct pretence *)conn;
}

const struct pki_info *conn_peer_info(const struct conn *conn)
{
    return of(conn)->plain ? NULL : &of(conn)->info;
}

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    return of(conn)->plain ? NULL : &of(conn)->info.name;
}

Fleet__Purpose conn_purpose(const struct conn *conn)
{
    return of(conn)->purpose;
}

bool conn_is_dialled(const struct conn *conn)
{
    return of(conn)->dialled;
}

bool conn_peer_trusted(const struct conn *conn)
{
    return of(conn)->trusted;
}

bool conn_peer_proof_ended(const struct conn *conn)
{
    return of(conn)->proof_ended;
}

uint64_t conn_peer_server_id(const struct conn *conn)
{
    return of(conn)->server_id;
}

const char *conn_peer(const struct conn *conn)
{
    return "10.0.0.1:7390";
}

void port_end(struct port *port, const char *(*unwanted)(const struct conn *conn, void *data), void *data)
{
    w.looks++;
    w.ended = unwanted((const struct conn *)w.open, data);
}

int proving_check_server(const struct conn *conn, uint64_t server_id, struct err *err, void *data)
{
    assert_ptr_equal(conn, w.open);
    assert_int_equal(server_id, w.open->server_id);
    w.asked_for_proof++;
    return w.proof < 0 ? err_set(err, w.proof, "nor does it prove it") : 0;
}

const struct registry *store_registry(const struct store *store)
{
    return w.registry;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    memcpy(servers, w.servers, w.server_count * sizeof *servers);
    return w.server_count;
}

uint64_t store_leader_id(const struct store *store)
{
    return SERVER_B;
}

bool store_leads(const struct store *store)
{
    return true;
}

bool downlink_poke(struct downlink *downlink, const char *machine_id)
{
    abort();
}

struct gate *gate_new(const struct gate_callbacks *callbacks, void *data)
{
    w.gate = *callbacks;
    return NULL;
}

void leading_register(struct daemon *daemon, const Fleet__RegisterMachine *machine, store_done *done,
                      void *data)
{
    abort();
}

static void sink(int priority, const char *message, const char *const *fields)
{
    snprintf(w.said, sizeof w.said, "%s", message);
}

/* ---- the world: A and B are members and servers, seen by B, which leads ---- */

static void joins_in_boot(const char *id, uint64_t server_id, const uint8_t *key, const char *boot_id)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.server_id = server_id;
    body.boot_id = (char *)boot_id;
    body.joins = true;
    body.key = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)key};
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    cluster_apply(w.registry, &command, 1000);
}

static void joins(const char *id, uint64_t server_id, const uint8_t *key)
{
    joins_in_boot(id, server_id, key, "");
}

static void is_removed(const char *id)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    cluster_apply(w.registry, &command, 2000);
}

static int setup(void **state)
{
    w = (struct world){
        .servers = {{.id = SERVER_B, .role = SERVER_VOTER}, {.id = SERVER_A, .role = SERVER_VOTER}},
        .server_count = 2,
        .proof = -EACCES};
    log_set_sink(sink);
    w.registry = cluster_new("root");
    joins(A, SERVER_A, key_a);
    joins(B, SERVER_B, key_b);
    w.core.leads = true;
    w.daemon.core = &w.core;
    w.daemon.store = (struct store *)&w; /* Only looked at by the pretences. */
    return 0;
}

static int teardown(void **state)
{
    registry_free(w.registry);
    log_set_sink(NULL);
    return 0;
}

/* A's session, over which all is as it should be. */
static struct pretence session(void)
{
    struct pretence it = {.info.name = {.kind = PKI_MACHINE, .id = A},
                          .server_id = SERVER_A,
                          .purpose = FLEET__PURPOSE__PURPOSE_SESSION,
                          .trusted = true};

    memcpy(it.info.key_id, key_a, sizeof it.info.key_id);
    return it;
}

static bool goes_on(const struct pretence *it)
{
    w.open = it;
    w.said[0] = '\0';
    w.asked_for_proof = 0;
    admission_look(&w.daemon);
    return w.ended == NULL;
}

static void assert_ends(const struct pretence *it, const char *why)
{
    assert_false(goes_on(it));
    assert_string_equal(w.ended, "it would not be let in any more");
    if (strstr(w.said, why) == NULL || strstr(w.said, it->info.name.id) == NULL)
        fail_msg("said \"%s\"", w.said);
}

/* ---- whose certificate is of an authority that is not trusted any more ---- */

static void test_who_is_trusted_goes_on(void **state)
{
    struct pretence it = session();

    assert_true(goes_on(&it));
    assert_int_equal(w.asked_for_proof, 0); /* What it has proved holds. */
    strcpy(it.info.name.id, STRANGER);      /* It has been let in, and is not registered yet. */
    it.server_id = STRANGE;
    assert_true(goes_on(&it));
    assert_string_equal(w.said, "");
}

static void test_a_member_goes_on_by_its_key(void **state)
{
    struct pretence it = session();

    it.trusted = false;
    assert_true(goes_on(&it));
    it.purpose = FLEET__PURPOSE__PURPOSE_RAFT;
    assert_true(goes_on(&it));
}

/* Who has the old authority's key can sign a certificate for any name, and not for a member's key. */
static void test_nobody_else_does(void **state)
{
    struct pretence it = session();

    it.trusted = false;
    memcpy(it.info.key_id, key_b, sizeof it.info.key_id);
    assert_ends(&it, "is of an authority that is not trusted any more, and its key no member's");
    it = session();
    it.trusted = false;
    it.server_id = STRANGE;
    assert_ends(&it, "its key no member's");
    it = session();
    it.trusted = false;
    strcpy(it.info.name.id, STRANGER);
    assert_ends(&it, "its key no member's");
}

/* A host that keeps no data knows only by its session whom to trust: that goes on, and no other. */
static void test_a_host_without_data_keeps_its_session(void **state)
{
    struct pretence it = session();

    registry_free(w.registry);
    w.registry = cluster_new("root");
    it.trusted = false;
    it.proof_ended = true;
    assert_ends(&it, "its key no member's"); /* It was called. */
    it.dialled = true;
    assert_true(goes_on(&it));
    it.purpose = FLEET__PURPOSE__PURPOSE_RAFT;
    assert_ends(&it, "its key no member's");
    joins(B, SERVER_B, key_b);
    it.purpose = FLEET__PURPOSE__PURPOSE_SESSION;
    assert_ends(&it, "its key no member's");
}

/* ---- who has proved an authority that is not trusted any more ---- */

static void test_a_proof_that_has_ended_is_asked_for_again(void **state)
{
    struct pretence it = session();

    it.proof_ended = true;
    assert_ends(&it, "nor does it prove it");
    assert_int_equal(w.asked_for_proof, 1);
    w.proof = 0; /* It is known by other means. */
    assert_true(goes_on(&it));
    assert_int_equal(w.asked_for_proof, 1);
    it.trusted = false; /* A member, but that is not enough for a server. */
    w.proof = -EACCES;
    assert_ends(&it, "nor does it prove it");
}

/* ---- besides ---- */

static void test_who_is_not_looked_at(void **state)
{
    struct pretence it = session();

    it.trusted = false;
    it.server_id = STRANGE;
    it.purpose = FLEET__PURPOSE__PURPOSE_JOIN; /* It has no certificate that could count. */
    assert_true(goes_on(&it));
    it.purpose = FLEET__PURPOSE__PURPOSE_SESSION;
    it.plain = true; /* "insecure" */
    assert_true(goes_on(&it));
    assert_int_equal(w.looks, 2);
    w.daemon.store = NULL;
    admission_look(&w.daemon);
    assert_int_equal(w.looks, 2);
}

static void test_a_machine_that_was_removed(void **state)
{
    struct pretence it = session();

    is_removed(A);
    assert_true(goes_on(&it)); /* It may be what decides on its own leaving. */
    w.server_count = 1;
    assert_false(goes_on(&it));
    assert_string_equal(w.ended, "the machine was removed");
    assert_string_equal(w.said, ""); /* That is no trouble. */
}

/* Its units may still be stopping there: until they have, it may say so, and nothing else. */
static void test_a_removed_machine_that_is_waited_for(void **state)
{
    struct pretence it = session();

    is_removed(A);
    w.server_count = 1;
    w.core.leaving = A;
    assert_true(goes_on(&it));
    it.purpose = FLEET__PURPOSE__PURPOSE_RAFT;
    assert_false(goes_on(&it));
    it = session();
    it.dialled = true; /* It leads no more. */
    assert_false(goes_on(&it));
    it = session();
    w.core.leaving = B;
    assert_false(goes_on(&it));
}

/* ---- who speaks for a machine that was removed, and who takes its place ---- */

#define BOOT       "b0000000000000000000000000000001"
#define OTHER_BOOT "b0000000000000000000000000000002"

static int leaves_as(const char *boot_id, struct err *err)
{
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;

    machine.machine_id = (char *)A;
    machine.boot_id = (char *)boot_id;
    return admission_check_leaving(&w.daemon, &machine, err);
}

static void test_only_the_host_itself_says_what_it_has(void **state)
{
    struct err err = {0};

    w.core.leaving = A;
    assert_int_equal(leaves_as(BOOT, &err), 0); /* It was not removed. */
    joins_in_boot(A, SERVER_A, key_a, BOOT);
    is_removed(A);
    assert_int_equal(leaves_as(BOOT, &err), 0);
    assert_int_equal(leaves_as(OTHER_BOOT, &err), -EEXIST);
    assert_non_null(strstr(err.text, "was booted since, or has a copy of its disk"));
}

static int gate(const char *boot_id, uint64_t server_id, struct err *err)
{
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    Fleet__JoinRequest request = FLEET__JOIN_REQUEST__INIT;
    struct gate_pass pass = {0};

    machine.machine_id = (char *)A;
    machine.boot_id = (char *)boot_id;
    machine.server_id = server_id;
    machine.hostname = (char *)"a";
    machine.level = FEATURE_LEVEL;
    machine.cluster_address = (char *)"10.0.0.1:7390";
    request.machine = &machine;
    return w.gate.check(&request, "10.0.0.1:9", &pass, err, &w.daemon);
}

static void test_a_newcomer_waits_for_the_one_that_was_removed(void **state)
{
    struct err err = {0};

    registry_free(w.registry);
    w.registry = cluster_new(NULL); /* The secret is checked elsewhere. */
    admission_gate_new(&w.daemon);
    joins_in_boot(A, SERVER_A, key_a, BOOT);
    is_removed(A);
    w.core.leaving = A;
    assert_int_equal(gate(OTHER_BOOT, STRANGE, &err), -EEXIST); /* It tries again. */
    assert_non_null(strstr(err.text, "was removed, and may still be stopping units"));
    assert_int_equal(gate(BOOT, STRANGE, &err), 0); /* That host itself: it says what it has. */
    w.core.leaving = NULL;
    assert_int_equal(gate(OTHER_BOOT, STRANGE, &err), 0);
    w.core.leads = false; /* Who is waited for is not known yet. */
    assert_int_equal(gate(OTHER_BOOT, STRANGE, &err), -EAGAIN);
}

static void test_another_machine_as_a_server(void **state)
{
    struct pretence it = session();

    it.server_id = SERVER_B;
    assert_true(goes_on(&it)); /* A session is opened by what it says. */
    it.purpose = FLEET__PURPOSE__PURPOSE_RAFT;
    assert_ends(&it, "is that of machine " B);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_is_trusted_goes_on),
        TEST(test_a_member_goes_on_by_its_key),
        TEST(test_nobody_else_does),
        TEST(test_a_host_without_data_keeps_its_session),
        TEST(test_a_proof_that_has_ended_is_asked_for_again),
        TEST(test_who_is_not_looked_at),
        TEST(test_a_machine_that_was_removed),
        TEST(test_a_removed_machine_that_is_waited_for),
        TEST(test_only_the_host_itself_says_what_it_has),
        TEST(test_a_newcomer_waits_for_the_one_that_was_removed),
        TEST(test_another_machine_as_a_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
