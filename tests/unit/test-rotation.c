/* SPDX-License-Identifier: Apache-2.0 */
/* When certificates are renewed, and for whom a rotation of the authority waits. */
#include <config.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/rotation.h"
#include "tests/unit/cluster-world.h"

#define MIN 60000ull
#define DAY (24 * 60 * MIN)
#define NOW (20000 * DAY)

static const uint8_t key_a[FINGERPRINT_SIZE] = "key A", key_b[FINGERPRINT_SIZE] = "key B";

/* ---- renewal ---- */

static void test_when_a_certificate_is_due(void **state)
{
    static const struct {
        uint64_t left_ms, lifetime_ms;
        bool due;
    } cases[] = {
        {365 * DAY, 365 * DAY, false},
        {244 * DAY, 365 * DAY, false}, /* Not yet a third... */
        {243 * DAY, 365 * DAY, true},  /* ...is over. */
        {1, 365 * DAY, true},
        {0, 365 * DAY, true},
        {MIN, MIN, false},
        {41000, MIN, false},
        {39000, MIN, true},
        /* The lifetime was made shorter: an old one would hold for much longer. */
        {365 * DAY, 30 * DAY, true},
        {41 * DAY, 30 * DAY, true},
        {39 * DAY, 30 * DAY, false}, /* Made just before, or by a clock that is fast. */
        {2 * MIN, MIN, false},
        /* It was made longer. */
        {30 * DAY, 365 * DAY, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(
            rotation_certificate_due(NOW + cases[i].left_ms, key_a, key_a, cases[i].lifetime_ms, NOW),
            cases[i].due);
        /* By another authority than the one that issues now: at once. */
        assert_true(
            rotation_certificate_due(NOW + cases[i].left_ms, key_a, key_b, cases[i].lifetime_ms, NOW));
    }
    assert_true(rotation_certificate_due(NOW - 1, key_a, key_a, DAY, NOW));
}

/* ---- rotation ---- */

static void rotate(struct registry *registry, Fleet__RotationStep step)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    authority.certificate = cluster_bytes("root B");
    authority.private_key = cluster_bytes("key");
    authority.cross = cluster_bytes("B by A");
    body.step = step;
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    cluster_apply(registry, &command, 0);
}

static ProtobufCBinaryData fingerprint(const struct registry_authority *authority)
{
    return (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)authority->fingerprint};
}

/* A machine that trusts the present authority, and with 'both' the next one, too. */
static void say(struct registry *registry, const char *id, bool both, const uint8_t key[FINGERPRINT_SIZE])
{
    const struct registry_authorities *authorities = registry_authorities(registry);
    ProtobufCBinaryData roots[] = {fingerprint(&authorities->issuing), fingerprint(&authorities->next)};
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.server_id = 1;
    body.roots = roots;
    body.n_roots = both ? 2 : 1;
    body.certified_by = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)key};
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    cluster_apply(registry, &command, 0);
}

static bool awaits(const struct registry *registry, const char *id, const uint8_t key[FINGERPRINT_SIZE])
{
    return rotation_awaits(registry_authorities(registry), key, registry_machine(registry, id));
}

static void test_rotation_waits_for_everybody(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = cluster_new("root A");

    say(registry, "1", false, key_a);
    say(registry, "2", false, key_a);
    assert_int_equal(rotation_next(registry, key_a), ROTATION_STEP_NONE);
    assert_false(awaits(registry, "1", key_a));

    rotate(registry, FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN);
    assert_int_equal(rotation_next(registry, key_a), ROTATION_STEP_NONE);
    say(registry, "1", true, key_a);
    assert_false(awaits(registry, "1", key_a));
    assert_true(awaits(registry, "2", key_a));
    assert_int_equal(rotation_next(registry, key_a), ROTATION_STEP_NONE);
    say(registry, "2", true, key_a);
    assert_int_equal(rotation_next(registry, key_a), ROTATION_STEP_ISSUE);

    rotate(registry, FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE);
    assert_int_equal(rotation_next(registry, key_b), ROTATION_STEP_NONE);
    say(registry, "1", false, key_b);
    assert_true(awaits(registry, "2", key_b));
    assert_int_equal(rotation_next(registry, key_b), ROTATION_STEP_NONE);
    say(registry, "2", false, key_b);
    assert_int_equal(rotation_next(registry, key_b), ROTATION_STEP_FINISH);

    rotate(registry, FLEET__ROTATION_STEP__ROTATION_STEP_FINISH);
    assert_int_equal(rotation_next(registry, key_b), ROTATION_STEP_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when_a_certificate_is_due),
        cmocka_unit_test(test_rotation_waits_for_everybody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
