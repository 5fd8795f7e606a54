/* SPDX-License-Identifier: Apache-2.0 */
/* The core and a fleetd that is silent on a machine that is there: nothing moves. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

static void test_a_fleetd_that_hangs_moves_nothing(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    advance_probing(&w, "a", true, 100 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(w.schedules + w.verdicts, 0);
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_non_null(strstr(reason_of(&w, "x.service"), "fleetd does not answer on host-a"));
    user_starts(&w, "y.service"); /* Nothing new for it, though. */
    assert_string_equal(placed_on(&w, "y.service"), "b");

    world_forget(&w);
    machine_calls(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    assert_true(is_told(&w, "a", "x.service"));
    assert_int_equal(w.schedules, 0);
    world_done(&w);
}

static void test_a_hung_machine_that_dies_is_lost(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    advance_probing(&w, "a", true, 3 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

static void test_a_new_leader_meets_a_hung_machine(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance_probing(&w, "a", true, 3 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

/* It was told to let go of a unit, by the leader before this one, and has not called since: nobody knows
 * whether it has. */
static void test_a_hung_machine_keeps_what_it_may_have(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance_probing(&w, "a", true, 3 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_false(is_told(&w, "b", "x.service"));
    assert_string_equal(reason_of(&w, "x.service"), "host-a must let go of it first");
    user_stops(&w, "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    user_starts(&w, "x.service");
    machine_calls(&w, "a");
    assert_false(is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_missing_machine_keeps_what_it_may_have(void **state)
{
    struct world w;

    six_machines_without(&w, "abc");
    user_submits(&w, "on-a.service", ONLY_ON("dddddddd"), LAUNCHED);
    leads(&w);
    for (const char *const *name = (const char *const[]){"d", "e", "f", NULL}; *name != NULL; name++)
        machine_calls(&w, *name);
    advance(&w, 3 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_MISSING);
    assert_false(is_told(&w, "d", "on-a.service"));
    is_confirmed_lost(&w, "a");
    assert_true(is_told(&w, "d", "on-a.service"));
    world_done(&w);
}

/* Whoever does not listen hears no answer either. */
static void test_the_leader_stands_still_while_a_machine_hangs(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    advance_probing(&w, "a", true, 3 * TTL_MS);
    for (uint64_t ms = TTL_MS / 2; ms < 4 * TTL_MS; ms += TTL_MS / 4) {
        stands_still(&w, ms);
        assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
        advance_probing(&w, "a", true, 2 * TTL_MS);
    }
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(w.schedules + w.verdicts, 0);
    advance(&w, TTL_MS); /* But it is not excused for ever. */
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    world_done(&w);
}

/* advance() fails if the core wants to be called again and again. */
static void test_another_ttl_while_some_hang_and_are_missing(void **state)
{
    struct world w;

    six_machines_without(&w, "abcd");
    for (unsigned i = 0; i < 30; i++) {
        core_probed(w.core, machine_of(&w, "a")->id, true, w.now_ms);
        advance(&w, 1000);
    }
    machine_calls(&w, "d");
    machine_calls(&w, "c");
    falls_silent(&w, "c"); /* The brake is off: who is missing has a ttl to call. */
    advance(&w, 1000);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    core_set_ttl(w.core, 8 * TTL_MS, w.now_ms);
    advance(&w, 8 * TTL_MS - 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    assert_int_equal(w.schedules, 0);
    is_confirmed_lost(&w, "b"); /* Counts at once, whatever the ttl. */
    advance(&w, 1);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    world_done(&w);
}

/* It was taken for missing while its answers did not come through. */
static void test_a_missing_machine_answers_again(void **state)
{
    struct world w;

    six_machines_without(&w, "abc");
    advance(&w, 3 * TTL_MS);
    assert_int_equal(core_missing(w.core, NULL), 3);
    for (unsigned i = 0; i < 30; i++) {
        core_probed(w.core, machine_of(&w, "a")->id, true, w.now_ms);
        core_probed(w.core, machine_of(&w, "b")->id, true, w.now_ms);
        advance(&w, 1000);
    }
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "b"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "c"), MACHINE_LOST); /* One of four. */
    assert_string_equal(placed_on(&w, "on-a.service"), "a");
    world_done(&w);
}

/* Refused: fleetd is not there. A machine that has just been booted does that, too, and runs nothing. */
static void test_a_machine_without_fleetd_is_lost(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    advance_probing(&w, "a", false, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

static void test_a_fleetd_that_was_stopped_moves_nothing(void **state)
{
    struct world w;

    running_on_a(&w);
    is_stopped(&w, "a");
    advance_probing(&w, "a", false, 100 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    leads(&w); /* The next leader knows it, too. */
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance_probing(&w, "a", false, 100 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(w.schedules, 0);

    machine_calls(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    assert_false(registry_machine(w.registry, machine_of(&w, "a")->id)->daemon_stopped);
    assert_true(is_told(&w, "a", "x.service"));
    falls_silent(&w, "a"); /* This time it was not on purpose. */
    advance_probing(&w, "a", false, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    world_done(&w);
}

static void test_a_machine_that_dies_after_its_fleetd_was_stopped(void **state)
{
    struct world w;

    running_on_a(&w);
    is_stopped(&w, "a");
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(registry_machine(w.registry, machine_of(&w, "a")->id)->daemon_stopped);
    world_done(&w);
}

static void test_a_hung_machine_can_be_given_up(void **state)
{
    struct world w;

    running_on_a(&w);
    falls_silent(&w, "a");
    advance_probing(&w, "a", true, 3 * TTL_MS);
    is_confirmed_lost(&w, "a");
    advance_probing(&w, "a", true, 1000);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

/* It is there: the brake is for those who are not. */
static void test_a_hung_machine_does_not_count_for_the_brake(void **state)
{
    struct world w;

    six_machines_without(&w, "ab");
    for (unsigned i = 0; i < 30; i++) {
        core_probed(w.core, machine_of(&w, "a")->id, true, w.now_ms);
        core_probed(w.core, machine_of(&w, "b")->id, true, w.now_ms);
        advance(&w, 1000);
        if (i == 15)
            falls_silent(&w, "c");
    }
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "b"), MACHINE_HUNG);
    assert_int_equal(state_of(&w, "c"), MACHINE_LOST);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fleetd_that_hangs_moves_nothing),
        cmocka_unit_test(test_a_hung_machine_that_dies_is_lost),
        cmocka_unit_test(test_a_new_leader_meets_a_hung_machine),
        cmocka_unit_test(test_a_hung_machine_keeps_what_it_may_have),
        cmocka_unit_test(test_a_missing_machine_keeps_what_it_may_have),
        cmocka_unit_test(test_the_leader_stands_still_while_a_machine_hangs),
        cmocka_unit_test(test_another_ttl_while_some_hang_and_are_missing),
        cmocka_unit_test(test_a_missing_machine_answers_again),
        cmocka_unit_test(test_a_machine_without_fleetd_is_lost),
        cmocka_unit_test(test_a_fleetd_that_was_stopped_moves_nothing),
        cmocka_unit_test(test_a_machine_that_dies_after_its_fleetd_was_stopped),
        cmocka_unit_test(test_a_hung_machine_can_be_given_up),
        cmocka_unit_test(test_a_hung_machine_does_not_count_for_the_brake),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
