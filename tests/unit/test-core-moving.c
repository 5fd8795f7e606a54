/* SPDX-License-Identifier: Apache-2.0 */
/* The core, when units move: they run once, and come with whom they belong to. And global units, which nobody
 * moves. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/core-world.h"

/* ---- moving ---- */

static void test_a_unit_moves_after_it_was_let_go(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "a", "x.service"));
    assert_false(is_told(&w, "b", "x.service"));
    assert_string_equal(reason_of(&w, "x.service"), "host-a must let go of it first");
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    reports(&w, "b", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_a_follower_comes_with_its_peers_or_after_them(void **state)
{
    struct world w;

    three_machines(&w);
    gets_metadata(&w, "a", "role", "web");
    user_submits(&w, "x.service", ON_WEB, LAUNCHED);
    user_submits(&w, "a-follower.service", PLAIN "[X-Fleet]\nMachineOf=x.service\n", LAUNCHED);
    user_submits(&w, "z.service", PLAIN "[X-Fleet]\nMachineOf=a-follower.service\n", LAUNCHED);
    reports(&w, "a", "x.service", "active");
    reports(&w, "a", "a-follower.service", "active");
    reports(&w, "a", "z.service", "active");
    gets_metadata(&w, "b", "role", "web");
    gets_metadata(&w, "a", "role", "db");
    assert_string_equal(placed_on(&w, "z.service"), "b");
    lets_go(&w, "a", "z.service");
    lets_go(&w, "a", "a-follower.service");
    assert_false(is_told(&w, "b", "a-follower.service"));
    assert_false(is_told(&w, "b", "z.service"));
    assert_string_equal(reason_of(&w, "z.service"),
                        "waits for a-follower.service to be on host-b first (MachineOf)");
    world_forget(&w);
    lets_go(&w, "a", "x.service"); /* Takes longest to stop. */
    assert_true(is_told(&w, "b", "x.service"));
    assert_true(is_told(&w, "b", "a-follower.service"));
    assert_true(is_told(&w, "b", "z.service"));
    assert_int_equal(w.shares, 1); /* Together, so that systemd orders them. */
    world_done(&w);
}

static void test_a_follower_stays_though_the_leader_changes(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    user_submits(&w, "a-follower.service", PLAIN "[X-Fleet]\nMachineOf=x.service\n", LOADED);
    reports(&w, "b", "x.service", "active");
    reports(&w, "b", "a-follower.service", "inactive");
    leads(&w);
    machine_calls(&w, "b");
    assert_true(is_told(&w, "b", "x.service"));
    assert_true(is_told(&w, "b", "a-follower.service"));
    world_done(&w);
}

static void test_gone_before_it_was_told_is_not_gone(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_stops(&w, "x.service");
    user_starts(&w, "x.service");
    machine_hangs_up(&w, "a");
    machine_calls(&w, "a"); /* It is still about to stop it, and is told to have it. */
    assert_true(is_told(&w, "a", "x.service"));
    user_stops(&w, "x.service");
    let_go_before(&w, "a", "x.service", 0); /* Crosses the share: what it was told, it will begin. */
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    lets_go(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "inactive");
    world_done(&w);
}

static void test_what_conflicts_is_stopped_first(void **state)
{
    struct world w;

    three_machines(&w);
    gets_metadata(&w, "a", "role", "web");
    user_submits(&w, "picky.service", ON_WEB "Conflicts=noisy.service\n", LAUNCHED);
    reports(&w, "a", "picky.service", "active");
    user_submits(&w, "noisy.service", ON_WEB, LAUNCHED);
    assert_string_equal(outcome_of(&w, "noisy.service"), "unplaced");
    user_destroys(&w, "picky.service"); /* And its Conflicts with it. */
    assert_string_equal(placed_on(&w, "noisy.service"), "a");
    assert_false(is_told(&w, "a", "noisy.service"));
    assert_string_equal(reason_of(&w, "noisy.service"),
                        "host-a is still stopping picky.service, which it conflicts with");
    lets_go(&w, "a", "picky.service");
    assert_true(is_told(&w, "a", "noisy.service"));

    /* The other way round, by the pattern of the one that comes; and a new leader does not forget. */
    reports(&w, "a", "noisy.service", "active");
    user_submits(&w, "z-picky.service", ON_WEB "Conflicts=n*\n", LAUNCHED);
    user_submits(&w, "noisy.service", OTHER "[X-Fleet]\nMachineMetadata=role=db\n", LAUNCHED);
    assert_string_equal(placed_on(&w, "z-picky.service"), "a");
    assert_false(is_told(&w, "a", "z-picky.service"));
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_false(is_told(&w, "a", "z-picky.service"));
    lets_go(&w, "a", "noisy.service");
    assert_true(is_told(&w, "a", "z-picky.service"));
    world_done(&w);
}

static void test_a_told_unit_counts_before_it_is_reported(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    assert_true(is_told(&w, "a", "x.service"));
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    assert_false(is_told(&w, "b", "x.service"));
    machine_hangs_up(&w, "a");
    advance(&w, 1000);
    assert_false(is_told(&w, "b", "x.service"));
    machine_calls(&w, "a"); /* With it: it was at it. */
    assert_false(is_told(&w, "a", "x.service"));
    assert_false(is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_stopped_and_started_at_once(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_stops(&w, "x.service");
    user_starts(&w, "x.service");
    assert_false(is_told(&w, "a", "x.service")); /* What it had is still about to stop. */
    assert_string_equal(reason_of(&w, "x.service"), "host-a is still stopping what it had");
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "a", "x.service"));
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_replaced_content_stays_where_it_is(void **state)
{
    struct world w;
    uint64_t generation;

    active_on_a(&w);
    world_forget(&w);
    generation = item_of(machine_of(&w, "a"), "x.service")->wanted;
    user_submits(&w, "x.service", OTHER, LAUNCHED);
    assert_int_equal(w.schedules, 0);
    assert_int_equal(w.shares, 1);
    assert_true(item_of(machine_of(&w, "a"), "x.service")->wanted > generation);
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_a_lost_machines_units_are_placed_anew_once(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    user_starts(&w, "y.service");
    user_starts(&w, "z.service");
    reports(&w, "a", "x.service", "active");
    reports(&w, "b", "y.service", "active");
    reports(&w, "c", "z.service", "active");
    world_forget(&w);
    falls_silent(&w, "a");
    advance(&w, TTL_MS - BEAT_MS);
    assert_int_equal(w.schedules, 0);
    advance(&w, 5 * TTL_MS);
    assert_int_equal(w.placements, 1);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_true(is_told(&w, "b", "x.service"));
    assert_string_equal(placed_on(&w, "y.service"), "b");
    assert_string_equal(placed_on(&w, "z.service"), "c");
    world_done(&w);
}

/* Its fleetd was killed before it could note that systemd has started it; and the machine that had the unit
 * before has not called the new leader. */
static void test_what_runs_is_kept_though_nobody_noted_its_start(void **state)
{
    struct world w;

    active_on_a(&w);
    falls_silent(&w, "a");
    advance(&w, TTL_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    reports(&w, "b", "x.service", "active");
    item_of(machine_of(&w, "b"), "x.service")->launched = false;
    leads(&w);
    machine_calls(&w, "b");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_lost_machine_comes_back(void **state)
{
    struct world w;

    active_on_a(&w);
    falls_silent(&w, "a");
    advance(&w, TTL_MS + BEAT_MS);
    reports(&w, "b", "x.service", "active");
    world_forget(&w);
    machine_calls(&w, "a"); /* It has run on. */
    assert_false(is_told(&w, "a", "x.service"));
    assert_true(is_told(&w, "b", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    lets_go(&w, "a", "x.service");
    advance(&w, TTL_MS);
    assert_int_equal(w.moves, 0);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

static void test_back_before_its_units_were_moved(void **state)
{
    struct world w;

    active_on_a(&w);
    falls_silent(&w, "a");
    w.hold = true;
    advance(&w, TTL_MS + BEAT_MS);
    machine_calls(&w, "a");
    assert_true(is_told(&w, "a", "x.service")); /* Nothing is decided yet: it keeps running. */
    held_is(&w, true);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_the_old_place_has_not_called_the_new_leader(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, TTL_MS / 2);
    assert_false(is_told(&w, "b", "x.service"));
    assert_string_equal(reason_of(&w, "x.service"), "host-a must let go of it first");
    advance(&w, TTL_MS / 2);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* Its last place is not the only one that may still have it. */
static void test_moved_twice_and_then_a_new_leader(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    user_submits(&w, "x.service", ON_C, LAUNCHED);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, TTL_MS / 2);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_false(is_told(&w, "c", "x.service"));
    assert_string_equal(reason_of(&w, "x.service"), "host-a must let go of it first");
    machine_calls(&w, "a");
    assert_false(is_told(&w, "c", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "c", "x.service"));
    world_done(&w);
}

static void test_who_has_let_go_is_not_waited_for(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    lets_go(&w, "a", "x.service");
    reports(&w, "b", "x.service", "active");
    user_submits(&w, "x.service", ON_C, LAUNCHED);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    lets_go(&w, "b", "x.service");
    assert_true(is_told(&w, "c", "x.service")); /* Without a word of "a". */
    world_done(&w);
}

/* ---- global units ---- */

static void test_global_units_follow_metadata(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "g.service", WEB_ALL, LAUNCHED);
    assert_false(is_told(&w, "a", "g.service"));
    gets_metadata(&w, "a", "role", "web");
    gets_metadata(&w, "b", "role", "web");
    assert_true(is_told(&w, "a", "g.service"));
    assert_true(is_told(&w, "b", "g.service"));
    assert_false(is_told(&w, "c", "g.service"));
    gets_metadata(&w, "a", "role", "db");
    assert_false(is_told(&w, "a", "g.service"));
    gets_metadata(&w, "a", "role", "web");
    assert_false(is_told(&w, "a", "g.service")); /* Once it has let go. */
    lets_go(&w, "a", "g.service");
    assert_true(is_told(&w, "a", "g.service"));
    world_done(&w);
}

static void test_placed_units_follow_metadata(void **state)
{
    struct world w;

    three_machines(&w);
    gets_metadata(&w, "a", "role", "web");
    user_submits(&w, "x.service", ON_WEB, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    gets_metadata(&w, "b", "role", "web");
    gets_metadata(&w, "a", "role", "db");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_global_status_counts(void **state)
{
    struct world w;
    struct core_status *status;

    three_machines(&w);
    user_submits(&w, "g.service", GLOBAL, LAUNCHED);
    reports(&w, "a", "g.service", "active");
    fails(&w, "b", "g.service", "timeout");
    status = core_status_new(w.core, "g.service");
    assert_int_equal(status->outcome, OUTCOME_WAITING);
    assert_int_equal(status->done_count, 1);
    assert_int_equal(status->wanted_count, 3);
    assert_string_equal(status->machine_id, "");
    core_status_free(status);
    reports(&w, "c", "g.service", "active");
    status = core_status_new(w.core, "g.service");
    assert_int_equal(status->outcome, OUTCOME_FAILED);
    assert_int_equal(status->machine_count, 1);
    assert_string_equal(status->machines[0].hostname, "host-b");
    assert_string_equal(status->reason, "failed on 1 of 3 machines");
    core_status_free(status);
    reports(&w, "b", "g.service", "active");
    assert_string_equal(outcome_of(&w, "g.service"), "active");
    falls_silent(&w, "b");
    advance(&w, 2 * TTL_MS);
    assert_string_equal(reason_of(&w, "g.service"), "on 2 machines");
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_unit_moves_after_it_was_let_go),
        cmocka_unit_test(test_a_follower_comes_with_its_peers_or_after_them),
        cmocka_unit_test(test_a_follower_stays_though_the_leader_changes),
        cmocka_unit_test(test_gone_before_it_was_told_is_not_gone),
        cmocka_unit_test(test_what_conflicts_is_stopped_first),
        cmocka_unit_test(test_a_told_unit_counts_before_it_is_reported),
        cmocka_unit_test(test_stopped_and_started_at_once),
        cmocka_unit_test(test_replaced_content_stays_where_it_is),
        cmocka_unit_test(test_a_lost_machines_units_are_placed_anew_once),
        cmocka_unit_test(test_what_runs_is_kept_though_nobody_noted_its_start),
        cmocka_unit_test(test_a_lost_machine_comes_back),
        cmocka_unit_test(test_back_before_its_units_were_moved),
        cmocka_unit_test(test_the_old_place_has_not_called_the_new_leader),
        cmocka_unit_test(test_moved_twice_and_then_a_new_leader),
        cmocka_unit_test(test_who_has_let_go_is_not_waited_for),
        cmocka_unit_test(test_global_units_follow_metadata),
        cmocka_unit_test(test_placed_units_follow_metadata),
        cmocka_unit_test(test_global_status_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
