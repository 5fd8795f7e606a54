/* SPDX-License-Identifier: Apache-2.0 */
/* Who may be at the other end of a connection, by the registry. */
#include <config.h>

#include <errno.h>

#include "base/cleanup.h"
#include "fleetd/core/peers.h"
#include "tests/unit/cluster-world.h"

#define A        "0000000000000000000000000000000a"
#define B        "0000000000000000000000000000000b"
#define STRANGER "000000000000000000000000000000ff"

static const uint8_t key_a[FINGERPRINT_SIZE] = "key of A", key_b[FINGERPRINT_SIZE] = "key of B";
static const uint8_t none[FINGERPRINT_SIZE];

static void joins(struct registry *registry, const char *id, uint64_t server_id, const uint8_t *key)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.server_id = server_id;
    body.joins = true;
    if (key != NULL)
        body.key = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)key};
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    cluster_apply(registry, &command, 0);
}

static void is_removed(struct registry *registry, const char *id)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    cluster_apply(registry, &command, 0);
}

/* Who has the authority's key can sign a certificate for any name, but for nobody else's key. */
static void test_members_are_known_by_their_keys(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = cluster_new("root");

    assert_false(peers_is_member(registry, A, 1, key_a));
    joins(registry, A, 1, key_a);
    joins(registry, B, 2, NULL);
    assert_true(peers_is_member(registry, A, 1, key_a));
    assert_false(peers_is_member(registry, A, 1, key_b));
    assert_false(peers_is_member(registry, A, 3, key_a));
    assert_false(peers_is_member(registry, STRANGER, 1, key_a));
    assert_false(peers_is_member(registry, B, 2, key_b)); /* Nobody knows. */
    assert_false(peers_is_member(registry, B, 2, none));
    is_removed(registry, A);
    assert_false(peers_is_member(registry, A, 1, key_a));
}

static int check(const struct registry *registry, const char *id, uint64_t server_id, bool is_out,
                 uint64_t leader_id)
{
    return peers_check_server(registry, id, server_id, is_out, leader_id, NULL);
}

static void test_a_server_id_is_one_machines_for_ever(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = cluster_new("root");

    joins(registry, A, 1, key_a);
    joins(registry, B, 2, key_b);
    assert_int_equal(check(registry, A, 1, false, 2), 0);
    assert_int_equal(check(registry, A, 2, false, 2), -EACCES);
    assert_int_equal(check(registry, STRANGER, 1, false, 2), -EACCES);
    assert_int_equal(check(registry, STRANGER, 3, false, 2), 0); /* It may have joined since. */

    is_removed(registry, A);
    /* It may be what makes the majority that lets it go. */
    assert_int_equal(check(registry, A, 1, false, 2), 0);
    assert_int_equal(check(registry, A, 1, true, 2), -EACCES);
    assert_int_equal(check(registry, A, 1, true, 0), -EACCES);
    /* Nobody else is it, and it is no other server, as far as a host can know that hears of its cluster. */
    assert_int_equal(check(registry, STRANGER, 1, false, 0), -EACCES);
    assert_int_equal(check(registry, B, 1, false, 0), -EACCES);
    assert_int_equal(check(registry, A, 3, false, 2), -EACCES);
    assert_int_equal(check(registry, A, 3, true, 2), -EACCES);
    /* One that was away while it joined anew hears so from it, if from nobody else. */
    assert_int_equal(check(registry, A, 3, true, 0), 0);
    assert_int_equal(check(registry, A, 3, true, 3), 0);

    joins(registry, A, 3, key_a);
    assert_int_equal(check(registry, A, 3, false, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_are_known_by_their_keys),
        cmocka_unit_test(test_a_server_id_is_one_machines_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
