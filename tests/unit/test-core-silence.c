/* SPDX-License-Identifier: Apache-2.0 */
/* The core and silent machines: who is lost, who is only missing (the brake), and what a leader that stood
 * still makes of it. Transcripts in virtual time. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

/* ---- machines ---- */

static void test_nobody_is_lost_before_the_ttl(void **state)
{
    struct world w;

    three_machines(&w);
    advance(&w, 1000);
    falls_silent(&w, "a");
    is_heard(&w, "a");
    falls_silent(&w, "a");
    advance(&w, TTL_MS / 2 - 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_SUSPECTED);
    advance(&w, TTL_MS / 2 - 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_SUSPECTED);
    assert_int_equal(w.drops, 0);
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_int_equal(w.drops, 1);
    machine_calls(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    world_done(&w);
}

static void test_who_is_heard_again_is_ready_again(void **state)
{
    struct world w;

    three_machines(&w);
    falls_silent(&w, "a");
    advance(&w, TTL_MS / 2 + 500);
    assert_int_equal(state_of(&w, "a"), MACHINE_SUSPECTED);
    is_heard(&w, "a");
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    world_done(&w);
}

static void test_a_new_leader_gives_everybody_a_ttl(void **state)
{
    struct world w;

    three_machines(&w);
    falls_silent(&w, "c");
    advance(&w, TTL_MS - 1);
    leads(&w);
    assert_int_equal(state_of(&w, "a"), MACHINE_EXPECTED);
    machine_calls(&w, "a");
    advance(&w, TTL_MS - 1);
    assert_int_equal(state_of(&w, "b"), MACHINE_EXPECTED);
    assert_int_equal(state_of(&w, "c"), MACHINE_EXPECTED);
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    machine_calls(&w, "b");
    assert_int_equal(state_of(&w, "b"), MACHINE_READY);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    advance(&w, TTL_MS - 1);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    advance(&w, 1);
    assert_int_equal(state_of(&w, "c"), MACHINE_LOST);
    world_done(&w);
}

static void test_nobody_calls_the_new_leader(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    leads(&w);
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_MISSING);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_int_equal(core_deadline_ms(w.core), UINT64_MAX);
    world_done(&w);
}

/* ---- the brake ---- */

static void test_a_third_lost_together_is_replaced(void **state)
{
    struct world w;

    six_machines_without(&w, "ab");
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    assert_string_not_equal(placed_on(&w, "on-a.service"), "a");
    assert_string_not_equal(placed_on(&w, "on-b.service"), "b");
    world_done(&w);
}

static void test_more_than_a_third_lost_together_is_not(void **state)
{
    size_t of;
    struct world w;

    six_machines_without(&w, "abc");
    advance(&w, 1000 * TTL_MS);
    for (const char *const *name = (const char *const[]){"a", "b", "c", NULL}; *name != NULL; name++) {
        assert_int_equal(state_of(&w, *name), MACHINE_MISSING);
        assert_int_equal(state_of(&w, "d"), MACHINE_READY);
    }
    assert_int_equal(w.schedules + w.verdicts, 0);
    assert_int_equal(core_missing(w.core, &of), 3);
    assert_int_equal(of, 6);
    assert_string_equal(outcome_of(&w, "on-a.service"), "waiting");
    assert_non_null(strstr(reason_of(&w, "on-a.service"), "missing"));
    user_starts(&w, "new.service"); /* What is new is placed on those who are there. */
    assert_string_equal(placed_on(&w, "new.service"), "d");
    world_done(&w);
}

/* Two machines' worth of units, restored on one of them: the other one may still run its own. It is neither
 * many that are silent nor more than one, and nothing is moved all the same, until it has joined. */
static void test_machines_of_a_restored_cluster_are_awaited(void **state)
{
    struct world w;

    world_init(&w);
    registers(&w, "a", NULL);
    registers(&w, "b", NULL);
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    user_starts(&w, "one.service");
    user_starts(&w, "two.service");
    assert_string_equal(placed_on(&w, "two.service"), "b");
    machine_hangs_up(&w, "b");

    is_restored(&w, "a");
    leads(&w);
    machine_calls(&w, "a");
    accepts_probes(&w, "b", true); /* It is still a part of the old cluster. */
    world_forget(&w);
    advance(&w, 1000 * TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    assert_int_equal(w.schedules + w.verdicts, 0);
    assert_non_null(strstr(reason_of(&w, "two.service"), "has not joined it"));
    user_starts(&w, "new.service");
    assert_string_equal(placed_on(&w, "new.service"), "a");

    registers(&w, "b", NULL); /* It joins, and keeps what it has. */
    machine_calls(&w, "b");
    advance(&w, 2 * TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_READY);
    assert_string_equal(placed_on(&w, "two.service"), "b");
    assert_true(is_told(&w, "b", "two.service"));
    assert_int_equal(w.schedules, 1);
    falls_silent(&w, "b"); /* From now on it is one like the others. */
    accepts_probes(&w, "b", false);
    advance(&w, 3 * TTL_MS);
    assert_string_equal(placed_on(&w, "two.service"), "a");
    world_done(&w);
}

static void test_an_awaited_machine_is_confirmed_lost(void **state)
{
    struct world w;

    world_init(&w);
    registers(&w, "a", NULL);
    registers(&w, "b", NULL);
    registers(&w, "c", NULL);
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    user_starts(&w, "one.service");
    user_starts(&w, "two.service");
    machine_hangs_up(&w, "b");
    is_restored(&w, "a");
    leads(&w);
    machine_calls(&w, "a");
    advance(&w, 5 * TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    is_confirmed_lost(&w, "b");
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    assert_string_equal(placed_on(&w, "two.service"), "a");
    world_done(&w);
}

/* Those that are awaited are not silent together with a machine that dies. */
static void test_awaited_machines_do_not_brake(void **state)
{
    struct world w;

    six_machines_without(&w, "");
    is_restored(&w, "a");
    leads(&w);
    machine_calls(&w, "a");
    for (const char *const *name = (const char *const[]){"b", "c", NULL}; *name != NULL; name++) {
        registers(&w, *name, NULL);
        machine_calls(&w, *name);
    }
    advance(&w, 2 * TTL_MS);
    falls_silent(&w, "b");
    advance(&w, 2 * TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    assert_string_not_equal(placed_on(&w, "on-b.service"), "b");
    assert_int_equal(state_of(&w, "d"), MACHINE_MISSING);
    assert_string_equal(placed_on(&w, "on-d.service"), "d");
    world_done(&w);
}

/* They fall silent one after the other, within a heartbeat or two: the first one is not given up before the
 * others are noticed. */
static void test_not_quite_at_the_same_time(void **state)
{
    struct world w;

    six_machines_without(&w, "a");
    advance(&w, TTL_MS / 4);
    falls_silent(&w, "b");
    advance(&w, TTL_MS / 4 - 1);
    falls_silent(&w, "c");
    advance(&w, 2 * TTL_MS);
    assert_int_equal(core_missing(w.core, NULL), 3);
    assert_int_equal(w.schedules, 0);
    world_done(&w);
}

/* Each is given up by itself as long as that is not too many within a minute; a third one is one too many. */
static void test_one_after_the_other(void **state)
{
    struct world w;

    six_machines_without(&w, "a");
    advance(&w, 2 * TTL_MS);
    falls_silent(&w, "b");
    advance(&w, 2 * TTL_MS);
    falls_silent(&w, "c");
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "c"), MACHINE_MISSING);
    assert_string_equal(placed_on(&w, "on-c.service"), "c");
    advance(&w, 5 * TTL_MS); /* Until the first ones' loss is history. */
    assert_int_equal(state_of(&w, "c"), MACHINE_LOST);
    assert_string_not_equal(placed_on(&w, "on-c.service"), "c");
    world_done(&w);
}

static void test_the_brake_is_released_when_they_return(void **state)
{
    struct world w;

    six_machines_without(&w, "abc");
    advance(&w, 3 * TTL_MS);
    machine_calls(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    /* Two of six are no more than a third; but where one comes from, others may follow. */
    assert_int_equal(core_missing(w.core, NULL), 2);
    advance(&w, TTL_MS - 1);
    machine_calls(&w, "c");
    advance(&w, 1);
    assert_int_equal(core_missing(w.core, NULL), 0);
    assert_int_equal(state_of(&w, "c"), MACHINE_READY);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "on-a.service"), "a");
    assert_string_equal(placed_on(&w, "on-c.service"), "c");
    assert_string_not_equal(placed_on(&w, "on-b.service"), "b");
    assert_true(registry_machine(w.registry, machine_of(&w, "b")->id)->lost);
    world_done(&w);
}

/* What it has nobody knows, for it has not called this leader: that is as long so as it is missing. */
static void test_a_missing_machine_may_still_run_it(void **state)
{
    struct world w;

    six_machines_without(&w, "");
    user_destroys(&w, "on-a.service"); /* Its machine does not hear of that. */
    leads(&w);
    for (const char *const *name = (const char *const[]){"d", "e", "f", NULL}; *name != NULL; name++)
        machine_calls(&w, *name);
    user_starts(&w, "on-a.service");
    advance(&w, 3 * TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_MISSING);
    assert_string_equal(placed_on(&w, "on-a.service"), "d");
    assert_false(is_told(&w, "d", "on-a.service"));
    is_confirmed_lost(&w, "a");
    assert_true(is_told(&w, "d", "on-a.service"));
    world_done(&w);
}

static void test_the_brake_is_released_by_a_person(void **state)
{
    struct world w;

    six_machines_without(&w, "abcd");
    advance(&w, 3 * TTL_MS);
    is_confirmed_lost(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_not_equal(placed_on(&w, "on-a.service"), "a");
    assert_int_equal(core_missing(w.core, NULL), 3); /* Of five. */
    assert_string_equal(placed_on(&w, "on-b.service"), "b");
    is_confirmed_lost(&w, "b");
    is_confirmed_lost(&w, "c");
    is_confirmed_lost(&w, "d");
    assert_int_equal(core_missing(w.core, NULL), 0);
    assert_string_not_equal(placed_on(&w, "on-d.service"), "d");
    world_done(&w);
}

/* Who is there cannot be talked away. */
static void test_a_machine_that_answers_is_not_lost(void **state)
{
    struct world w;

    six_machines_without(&w, "");
    is_confirmed_lost(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    assert_int_equal(w.verdicts, 1);
    assert_false(registry_machine(w.registry, machine_of(&w, "a")->id)->lost);
    assert_string_equal(placed_on(&w, "on-a.service"), "a");
    world_done(&w);
}

/* A new leader knows who was given up before it: that is not "together" with what happens now. */
static void test_a_new_leader_knows_who_was_lost(void **state)
{
    struct world w;

    six_machines_without(&w, "ab");
    advance(&w, 2 * TTL_MS);
    assert_int_equal(w.verdicts, 1);
    leads(&w);
    for (const char *const *name = (const char *const[]){"d", "e", "f", NULL}; *name != NULL; name++)
        machine_calls(&w, *name);
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "c"), MACHINE_LOST); /* The old leader: one of four. */
    assert_string_not_equal(placed_on(&w, "on-c.service"), "c");
    world_done(&w);
}

static void test_the_brake_outlives_a_leader(void **state)
{
    struct world w;

    six_machines_without(&w, "abc");
    advance(&w, 3 * TTL_MS);
    leads(&w);
    for (const char *const *name = (const char *const[]){"d", "e", "f", NULL}; *name != NULL; name++)
        machine_calls(&w, *name);
    advance(&w, 10 * TTL_MS);
    assert_int_equal(core_missing(w.core, NULL), 3);
    assert_int_equal(w.schedules, 0);
    world_done(&w);
}

static void test_a_verdict_that_gets_lost_is_proposed_again(void **state)
{
    struct world w;

    six_machines_without(&w, "a");
    w.refuse_verdicts = true;
    advance(&w, 2 * TTL_MS);
    assert_true(w.verdicts >= 2 && w.verdicts <= 4);
    w.refuse_verdicts = false;
    advance(&w, TTL_MS);
    assert_true(registry_machine(w.registry, machine_of(&w, "a")->id)->lost);
    machine_calls(&w, "a");
    assert_false(registry_machine(w.registry, machine_of(&w, "a")->id)->lost);
    world_forget(&w);
    advance(&w, 10 * TTL_MS);
    assert_int_equal(w.verdicts, 0);
    world_done(&w);
}

static void test_a_new_leader_gathers_before_it_places(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "one.service");
    leads(&w);
    user_starts(&w, "two.service");
    machine_calls(&w, "a");
    assert_string_equal(placed_on(&w, "two.service"), "");
    advance(&w, CORE_GATHER_MS - 1);
    assert_string_equal(placed_on(&w, "two.service"), "");
    advance(&w, 1);
    assert_string_equal(placed_on(&w, "two.service"), "a");
    leads(&w);
    machine_calls(&w, "a");
    user_starts(&w, "three.service");
    machine_calls(&w, "b");
    assert_string_equal(placed_on(&w, "three.service"), "");
    machine_calls(&w, "c"); /* A full house need not wait. */
    assert_string_not_equal(placed_on(&w, "three.service"), "");
    world_done(&w);
}

/* What it is told next is no reason to judge the others: what they have said is still to be read. */
static void test_what_comes_after_a_short_standstill_judges_nobody(void **state)
{
    struct world w;

    three_machines(&w);
    falls_silent(&w, "b");
    advance(&w, TTL_MS - 1000);
    assert_int_equal(state_of(&w, "b"), MACHINE_SUSPECTED);
    w.now_ms += 1500; /* It goes on, and no timer has run yet. */
    is_set(&w, "c", FLEET__AVAILABILITY__AVAILABILITY_CORDONED);
    assert_int_equal(state_of(&w, "b"), MACHINE_SUSPECTED);
    is_heard(&w, "b");
    advance(&w, 1);
    assert_int_equal(state_of(&w, "b"), MACHINE_READY);
    world_done(&w);
}

static void test_the_leader_stands_still(void **state)
{
    static const uint64_t standstills_ms[] = {5000, 6000, 7000, 9000, 10000, 15000, 60000, 3600000};

    for (size_t i = 0; i < ARRAY_SIZE(standstills_ms); i++) {
        struct world w;

        three_machines(&w);
        user_starts(&w, "x.service");
        advance(&w, 3 * BEAT_MS);
        world_forget(&w);
        stands_still(&w, standstills_ms[i]);
        advance(&w, 100);
        assert_int_equal(state_of(&w, "a"), MACHINE_READY);
        assert_int_equal(state_of(&w, "b"), MACHINE_READY);
        assert_int_equal(w.drops + w.schedules + w.shares, 0);
        falls_silent(&w, "b"); /* And it still notices who is. */
        advance(&w, TTL_MS);
        assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
        world_done(&w);
    }
}

/* Its timers run before anything is read; what came meanwhile counts. */
static void test_the_leader_stands_still_for_a_moment(void **state)
{
    struct world w;

    three_machines(&w);
    falls_silent(&w, "a");
    is_heard(&w, "a");
    falls_silent(&w, "a");
    advance(&w, TTL_MS - 1000);
    stands_still(&w, 2000);
    assert_int_equal(state_of(&w, "a"), MACHINE_SUSPECTED);
    is_heard(&w, "a");
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    falls_silent(&w, "a");
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    world_done(&w);
}

/* The time that missing machines have when the brake is off stands still, too. */
static void test_the_leader_stands_still_after_the_brake(void **state)
{
    struct world w;

    six_machines_without(&w, "abc");
    advance(&w, 2 * TTL_MS);
    machine_calls(&w, "a");
    stands_still(&w, 2 * TTL_MS);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    advance(&w, TTL_MS / 2);
    assert_int_equal(state_of(&w, "b"), MACHINE_MISSING);
    advance(&w, TTL_MS / 2);
    assert_int_equal(state_of(&w, "b"), MACHINE_LOST);
    world_done(&w);
}

static void test_another_ttl_begins_anew(void **state)
{
    struct world w;

    three_machines(&w);
    core_set_ttl(w.core, 10 * TTL_MS, w.now_ms);
    falls_silent(&w, "a");
    advance(&w, 2 * TTL_MS);
    core_set_ttl(w.core, TTL_MS, w.now_ms);
    advance(&w, 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    advance(&w, TTL_MS);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_lost_before_the_ttl),
        cmocka_unit_test(test_who_is_heard_again_is_ready_again),
        cmocka_unit_test(test_a_new_leader_gives_everybody_a_ttl),
        cmocka_unit_test(test_nobody_calls_the_new_leader),
        cmocka_unit_test(test_a_third_lost_together_is_replaced),
        cmocka_unit_test(test_more_than_a_third_lost_together_is_not),
        cmocka_unit_test(test_machines_of_a_restored_cluster_are_awaited),
        cmocka_unit_test(test_an_awaited_machine_is_confirmed_lost),
        cmocka_unit_test(test_awaited_machines_do_not_brake),
        cmocka_unit_test(test_not_quite_at_the_same_time),
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_the_brake_is_released_when_they_return),
        cmocka_unit_test(test_a_missing_machine_may_still_run_it),
        cmocka_unit_test(test_the_leader_stands_still_after_the_brake),
        cmocka_unit_test(test_the_brake_is_released_by_a_person),
        cmocka_unit_test(test_a_machine_that_answers_is_not_lost),
        cmocka_unit_test(test_a_new_leader_knows_who_was_lost),
        cmocka_unit_test(test_the_brake_outlives_a_leader),
        cmocka_unit_test(test_a_verdict_that_gets_lost_is_proposed_again),
        cmocka_unit_test(test_a_new_leader_gathers_before_it_places),
        cmocka_unit_test(test_the_leader_stands_still),
        cmocka_unit_test(test_what_comes_after_a_short_standstill_judges_nobody),
        cmocka_unit_test(test_the_leader_stands_still_for_a_moment),
        cmocka_unit_test(test_another_ttl_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
