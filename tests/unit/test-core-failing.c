/* SPDX-License-Identifier: Apache-2.0 */
/* The core and units that keep failing: when they are tried elsewhere, and when they come to rest. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/failing.h"
#include "tests/unit/core-world.h"

#define LIMITED(n) PLAIN "[X-Fleet]\nFailureLimitBurst=" #n "\nFailureLimitIntervalSec=1min\n"

/* systemd restarts it by itself. */
static void restarts(struct world *w, const char *machine, const char *unit)
{
    reports_sub(w, machine, unit, "activating", "auto-restart");
    reports(w, machine, unit, "active");
}

static void test_a_unit_that_keeps_failing_is_tried_elsewhere(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(3), LAUNCHED);
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    reports_sub(&w, "a", "x.service", "activating", "auto-restart");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_non_null(strstr(registry_unit(w.registry, "x.service")->reason,
                           "has failed 3 times within 1min on host-a (its FailureLimitBurst=3); "));
    lets_go(&w, "a", "x.service");
    reports(&w, "b", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    /* When "a" is avoided no more, nothing goes back. */
    world_forget(&w);
    advance(&w, 20 * TTL_MS);
    assert_int_equal(w.moves, 0);
    world_done(&w);
}

/* systemd says "failed" for a moment of what it restarts after a start that failed. */
static void test_failed_for_a_moment_is_not_for_good(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(3), LAUNCHED);
    for (unsigned i = 0; i < 2; i++) {
        start_fails(&w, "a", "x.service");
        assert_string_equal(outcome_of(&w, "x.service"), "waiting");
        assert_non_null(strstr(reason_of(&w, "x.service"), "about to show whether systemd starts it again"));
        advance(&w, FAILED_FOR_GOOD_MS / 2);
        reports_sub(&w, "a", "x.service", "activating", "auto-restart"); /* The same failure. */
        advance(&w, 5000);
        assert_string_equal(placed_on(&w, "x.service"), "a");
        reports_sub(&w, "a", "x.service", "activating", "start-pre");
    }
    start_fails(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_non_null(strstr(registry_unit(w.registry, "x.service")->reason, "has failed 3 times within 1min"));
    world_done(&w);
}

/* What fails at its very first start has not said before that it is through with anything. */
static void test_a_first_start_that_fails(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(1), LAUNCHED);
    start_fails(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_non_null(strstr(registry_unit(w.registry, "x.service")->reason,
                           "has failed on host-a (its FailureLimitBurst=1); "));
    world_done(&w);
}

/* And lies there. */
static void fails_for_good(struct world *w, const char *machine, const char *unit)
{
    start_fails(w, machine, unit);
    advance(w, FAILED_FOR_GOOD_MS);
}

static void test_failures_long_ago_do_not_count(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(2), LAUNCHED);
    reports(&w, "a", "x.service", "active");
    for (unsigned i = 0; i < 10; i++) {
        restarts(&w, "a", "x.service");
        advance(&w, 61000);
    }
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

static void test_what_failed_for_good_is_tried_on_each_machine(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(5), LAUNCHED);
    fails_for_good(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    lets_go(&w, "a", "x.service");
    advance(&w, 5000);
    fails_for_good(&w, "b", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "c");
    lets_go(&w, "b", "x.service");
    advance(&w, 5000);
    fails_for_good(&w, "c", "x.service");
    world_forget(&w);
    advance(&w, 1000);
    /* Everywhere: it stays where it is, for a while. */
    assert_int_equal(w.schedules, 0);
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    advance(&w, 50000); /* Until the first failure is history. */
    assert_int_equal(w.schedules, 1);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

/* It is said once, and not planned again for each time. */
static void test_what_fails_on_and_on_is_no_news(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A "FailureLimitBurst=2\n", LAUNCHED);
    reports(&w, "a", "x.service", "active");
    world_forget(&w);
    for (unsigned i = 0; i < 50; i++) {
        restarts(&w, "a", "x.service");
        advance(&w, 100);
    }
    assert_int_equal(w.logs, 1);
    assert_int_equal(w.schedules, 0);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

static void test_without_a_limit_a_failing_unit_stays(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    fails(&w, "a", "x.service", "failed");
    advance(&w, 10 * TTL_MS);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    assert_null(strstr(reason_of(&w, "x.service"), "no other machine"));
    world_done(&w);
}

static void test_the_clusters_limit(void **state)
{
    struct world w;

    three_machines(&w);
    cluster_sets(&w, "failure_limit_burst", "2");
    cluster_sets(&w, "failure_limit_interval", "30s");
    user_submits(&w, "x.service", NULL, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    advance(&w, 31000); /* The first is too long ago. */
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    lets_go(&w, "a", "x.service");
    reports(&w, "b", "x.service", "active");
    assert_non_null(
        strstr(reason_of(&w, "x.service"),
               "has failed 2 times within 30s on host-a (the cluster's failure_limit_burst=2); "));
    world_done(&w);
}

/* Whatever the unit says has precedence; what it leaves out is the cluster's. */
static void test_a_units_own_limit_and_the_clusters(void **state)
{
    struct world w;

    three_machines(&w);
    cluster_sets(&w, "failure_limit_burst", "1");
    user_submits(&w, "off.service", PLAIN "[X-Fleet]\nFailureLimitBurst=0\n", LAUNCHED);
    fails(&w, "a", "off.service", "failed");
    assert_string_equal(placed_on(&w, "off.service"), "a");
    user_submits(&w, "three.service", LIMITED(3), LAUNCHED);
    reports(&w, "b", "three.service", "active");
    restarts(&w, "b", "three.service");
    restarts(&w, "b", "three.service");
    assert_string_equal(placed_on(&w, "three.service"), "b");
    cluster_sets(&w, "failure_limit_burst", "2");
    user_submits(&w, "often.service", PLAIN "[X-Fleet]\nFailureLimitIntervalSec=5s\n", LAUNCHED);
    reports(&w, "c", "often.service", "active");
    for (unsigned i = 0; i < 3; i++) {
        restarts(&w, "c", "often.service");
        advance(&w, 6000);
    }
    assert_string_equal(placed_on(&w, "often.service"), "c");
    restarts(&w, "c", "often.service");
    restarts(&w, "c", "often.service");
    assert_string_not_equal(placed_on(&w, "often.service"), "c");
    assert_non_null(strstr(registry_unit(w.registry, "often.service")->reason,
                           "has failed 2 times within 5s on host-c (the cluster's failure_limit_burst=2)"));
    world_done(&w);
}

/* What has failed for good already is tried elsewhere as soon as there is a limit; and stays where it is when
 * there is none any more. */
static void test_a_limit_is_turned_on_and_off(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    fails(&w, "a", "x.service", "failed");
    user_submits(&w, "off.service", PLAIN "[X-Fleet]\nFailureLimitBurst=0\n", LAUNCHED);
    fails(&w, "b", "off.service", "failed");
    advance(&w, 3600000);
    world_forget(&w);
    cluster_sets(&w, "failure_limit_burst", "4");
    advance(&w, FAILED_FOR_GOOD_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_string_equal(placed_on(&w, "off.service"), "b");
    assert_int_equal(w.schedules, 1);
    assert_non_null(strstr(registry_unit(w.registry, "x.service")->reason,
                           "has failed on host-a, where systemd does not start it again (the cluster's "
                           "failure_limit_burst=4); "));
    lets_go(&w, "a", "x.service");
    fails_for_good(&w, "c", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    lets_go(&w, "c", "x.service");
    fails_for_good(&w, "b", "x.service"); /* Now on all. */
    world_forget(&w);
    cluster_sets(&w, "failure_limit_burst", NULL);
    advance(&w, 24 * 3600000);
    assert_int_equal(w.schedules, 0);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

/* Failures that were counted under another limit count under a lower one, with the next. */
static void test_a_limit_is_lowered(void **state)
{
    struct world w;

    three_machines(&w);
    cluster_sets(&w, "failure_limit_burst", "5");
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    restarts(&w, "a", "x.service");
    cluster_sets(&w, "failure_limit_burst", "2");
    assert_string_equal(placed_on(&w, "x.service"), "a"); /* It is active. */
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

/* How often a unit that fails wherever it comes is started within so long. */
static unsigned tries_within(struct world *w, const char *unit, uint64_t ms)
{
    unsigned tries = 0;

    for (uint64_t passed = 0; passed < ms;) {
        char here[2];
        const struct item *item;

        snprintf(here, sizeof here, "%s", placed_on(w, unit));
        for (const char *there = "abc"; *there != '\0'; there++) {
            char name[2] = {*there, '\0'};

            if (!streq(name, here) && item_of(machine_of(w, name), unit) != NULL)
                lets_go(w, name, unit);
        }
        item = item_of(machine_of(w, here), unit);
        if (item != NULL && !streq(item->active, "failed")) {
            fails(w, here, unit, "failed");
            tries++;
        } else {
            advance(w, 10000);
            passed += 10000;
        }
    }
    return tries;
}

/* It goes round ever more slowly: after one minute, two, four, and so on, up to a day. */
static void test_what_fails_everywhere_does_not_go_round_and_round(void **state)
{
    const uint64_t hour = 3600000;
    struct world w;

    three_machines(&w);
    cluster_sets(&w, "failure_limit_burst", "1");
    cluster_sets(&w, "failure_limit_interval", "1min");
    user_starts(&w, "x.service");
    assert_in_range(tries_within(&w, "x.service", hour), 3 * 3, 3 * 7);
    tries_within(&w, "x.service", 71 * hour);
    assert_in_range(tries_within(&w, "x.service", 48 * hour), 3, 3 * 3);
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    assert_non_null(
        strstr(reason_of(&w, "x.service"), "; no other machine fits on which it has not failed lately"));
    world_done(&w);
}

/* Who is to leave, but cannot, is in the way where it stays: if others were placed as if it was gone, they
 * would be sent back and forth without an end. */
static void test_who_cannot_leave_is_in_the_way(void **state)
{
    struct world w;

    three_machines(&w);
    is_set(&w, "c", CORDONED);
    cluster_sets(&w, "failure_limit_burst", "1");
    user_starts(&w, "y.service");
    start_fails(&w, "a", "y.service");
    lets_go(&w, "a", "y.service");
    start_fails(&w, "b", "y.service"); /* Now there is no other machine for it. */
    user_submits(&w, "x.service", PLAIN "[X-Fleet]\nConflicts=y.service\n", LAUNCHED);
    world_forget(&w);
    start_fails(&w, "a", "x.service");
    advance(&w, 5000);
    assert_int_equal(w.schedules, 0);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_string_equal(placed_on(&w, "y.service"), "b");
    is_set(&w, "c", ACTIVE);
    assert_true(streq(placed_on(&w, "x.service"), "c") != streq(placed_on(&w, "y.service"), "c"));
    assert_int_equal(w.schedules, 1);
    world_done(&w);
}

/* A leader that finds a unit failed, which would never say so again. */
static void test_a_new_leader_finds_a_unit_failed(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(2), LAUNCHED);
    user_starts(&w, "y.service");
    w.refuse = 1000; /* The old one did not get to move it. */
    fails(&w, "a", "x.service", "failed");
    fails(&w, "b", "y.service", "failed");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    w.refuse = 0;
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, FAILED_FOR_GOOD_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_string_equal(placed_on(&w, "y.service"), "b");
    world_done(&w);
}

static void test_somebody_has_mended_it(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", LIMITED(2), LAUNCHED);
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    user_submits(&w, "x.service", LIMITED(2) "# mended\n", LAUNCHED);
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    user_loads(&w, "x.service");
    reports(&w, "a", "x.service", "inactive");
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    restarts(&w, "a", "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

static void test_who_belongs_to_a_failing_unit_leaves_with_it(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "db.service", LIMITED(1), LAUNCHED);
    user_submits(&w, "log.service", PLAIN "[X-Fleet]\nMachineOf=db.service\nFailureLimitBurst=1\n", LAUNCHED);
    reports(&w, "a", "db.service", "active");
    reports(&w, "a", "log.service", "active");
    /* The follower alone cannot go anywhere... */
    fails(&w, "a", "log.service", "failed");
    assert_string_equal(placed_on(&w, "log.service"), "a");
    /* ...but with the one that it follows. */
    fails(&w, "a", "db.service", "failed");
    assert_string_equal(placed_on(&w, "db.service"), "b");
    assert_string_equal(placed_on(&w, "log.service"), "b");
    world_done(&w);
}

/* Each unit of a floor follows all three of the floor below: 3^20 ways lead down. */
static void test_a_high_pile_of_peers(void **state)
{
    _cleanup_(freep) char *text = xstrdup(LIMITED(1));
    struct world w;

    three_machines(&w);
    for (unsigned floor = 0; floor < 20; floor++) {
        for (unsigned i = 0; i < 3; i++) {
            _cleanup_(freep) char *name = xasprintf("u%u-%u.service", floor, i);

            user_submits(&w, name, text, LAUNCHED);
        }
        free(text);
        text = xasprintf(PLAIN "[X-Fleet]\nMachineOf=u%u-0.service u%u-1.service u%u-2.service\n", floor,
                         floor, floor);
    }
    user_submits(&w, "other.service", LIMITED(1), LAUNCHED);
    fails(&w, placed_on(&w, "other.service"), "other.service", "failed");
    advance(&w, TTL_MS);
    assert_string_equal(placed_on(&w, "u19-0.service"), placed_on(&w, "u0-0.service"));
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_unit_that_keeps_failing_is_tried_elsewhere),
        cmocka_unit_test(test_failed_for_a_moment_is_not_for_good),
        cmocka_unit_test(test_a_first_start_that_fails),
        cmocka_unit_test(test_failures_long_ago_do_not_count),
        cmocka_unit_test(test_what_failed_for_good_is_tried_on_each_machine),
        cmocka_unit_test(test_what_fails_on_and_on_is_no_news),
        cmocka_unit_test(test_without_a_limit_a_failing_unit_stays),
        cmocka_unit_test(test_the_clusters_limit),
        cmocka_unit_test(test_a_units_own_limit_and_the_clusters),
        cmocka_unit_test(test_a_limit_is_turned_on_and_off),
        cmocka_unit_test(test_a_limit_is_lowered),
        cmocka_unit_test(test_what_fails_everywhere_does_not_go_round_and_round),
        cmocka_unit_test(test_who_cannot_leave_is_in_the_way),
        cmocka_unit_test(test_a_new_leader_finds_a_unit_failed),
        cmocka_unit_test(test_somebody_has_mended_it),
        cmocka_unit_test(test_who_belongs_to_a_failing_unit_leaves_with_it),
        cmocka_unit_test(test_a_high_pile_of_peers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
