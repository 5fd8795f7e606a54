/* SPDX-License-Identifier: Apache-2.0 */
/* The core, when machines are shut down in order: what leaves them first, when they need not wait any longer,
 * and what is left of it all when they are back. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

/* As in shutdown.c: so long others may say that they go, too. */
#define GATHER_MS 300u

static void some_machines(struct world *w, unsigned count)
{
    world_init(w);
    for (unsigned i = 0; i < count; i++)
        registers(w, (const char[]){(char)('a' + i), '\0'}, NULL);
    leads(w);
    for (unsigned i = 0; i < count; i++)
        machine_calls(w, (const char[]){(char)('a' + i), '\0'});
}

static void runs_on_a(struct world *w, const char *text)
{
    user_submits(w, "x.service", text, LAUNCHED);
    assert_string_equal(placed_on(w, "x.service"), "a");
    reports(w, "a", "x.service", "active");
}

static bool is_ready(struct world *w, const char *name)
{
    return machine_of(w, name)->ready;
}

/* "x.service" runs on "a" of three, which is then shut down: it is on its way to "b". */
static void leaves_a(struct world *w, const char *text)
{
    some_machines(w, 3);
    runs_on_a(w, text);
    is_shut_down(w, "a", true);
    advance(w, GATHER_MS - 1);
    assert_string_equal(placed_on(w, "x.service"), "a");
    advance(w, 1);
    assert_string_equal(placed_on(w, "x.service"), "b");
}

static void test_what_runs_there_is_handed_over_first(void **state)
{
    struct world w;

    leaves_a(&w, NULL);
    assert_true(is_handed_over(&w, "x.service"));
    assert_true(is_told(&w, "a", "x.service") && is_told(&w, "b", "x.service"));
    assert_non_null(strstr(registry_unit(w.registry, "x.service")->reason, "is shutting down"));
    reports(&w, "b", "x.service", "activating");
    assert_false(is_ready(&w, "a"));
    reports(&w, "b", "x.service", "active");
    assert_true(is_ready(&w, "a")); /* That it still runs here harms nobody. */
    assert_false(is_told(&w, "a", "x.service"));
    machine_hangs_up(&w, "a");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    assert_true(strlist_has(&w.settled, "x.service"));
    assert_non_null(strstr(reason_of(&w, "x.service"), "is shutting down"));
    world_done(&w);
}

static void test_what_may_not_run_twice_is_stopped_first(void **state)
{
    static const char *const texts[] = {PLAIN "[X-Fleet]\nConflicts=x*\n", PLAIN STOP};
    struct world w;

    for (size_t i = 0; i < 2; i++) {
        leaves_a(&w, texts[i]);
        assert_false(is_told(&w, "a", "x.service") || is_told(&w, "b", "x.service"));
        assert_false(is_ready(&w, "a"));
        lets_go(&w, "a", "x.service");
        assert_true(is_ready(&w, "a"));
        assert_true(is_told(&w, "b", "x.service"));
        world_done(&w);
    }
}

static void test_it_gets_nothing_new(void **state)
{
    struct world w;

    some_machines(&w, 3);
    is_shut_down(&w, "a", true);
    assert_true(is_ready(&w, "a")); /* It has nothing: at once. */
    user_starts(&w, "x.service");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    user_submits(&w, "y.service", ON_A, LAUNCHED);
    assert_string_equal(outcome_of(&w, "y.service"), "unplaced");
    world_done(&w);
}

static void test_what_fits_nowhere_stays_and_says_why(void **state)
{
    struct world w;
    _cleanup_(freep) char *text = NULL;
    size_t size;

    some_machines(&w, 3);
    runs_on_a(&w, ON_A);
    w.transcript = open_memstream(&text, &size);
    is_shut_down(&w, "a", true);
    assert_false(is_ready(&w, "a"));
    advance(&w, GATHER_MS);
    assert_true(is_ready(&w, "a"));
    assert_true(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    assert_non_null(strstr(reason_of(&w, "x.service"), "host-a is shutting down, but it fits on no other"));
    fclose(w.transcript);
    w.transcript = NULL;
    assert_non_null(strstr(text, "x.service stays on host-a, which is shutting down: "));
    assert_non_null(strstr(text, "MachineID"));
    world_done(&w);
}

static void test_who_belongs_to_what_stays_stays(void **state)
{
    struct world w;
    _cleanup_(freep) char *text = NULL;
    size_t size;

    some_machines(&w, 3);
    user_submits(&w, "db.service", NULL, LAUNCHED);
    user_submits(&w, "log.service", ON_A "MachineOf=db.service\n", LAUNCHED);
    reports(&w, "a", "db.service", "active");
    reports(&w, "a", "log.service", "active");
    w.transcript = open_memstream(&text, &size);
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    assert_true(is_ready(&w, "a"));
    assert_string_equal(placed_on(&w, "db.service"), "a");
    fclose(w.transcript);
    w.transcript = NULL;
    assert_non_null(strstr(text, "db.service stays on host-a, which is shutting down: what it belongs to"));
    world_done(&w);
}

static void test_what_fails_elsewhere_is_not_waited_for(void **state)
{
    struct world w;

    leaves_a(&w, NULL);
    fails(&w, "b", "x.service", "failed");
    assert_true(is_ready(&w, "a"));
    assert_true(is_told(&w, "a", "x.service")); /* To its end. */
    world_done(&w);
}

static void test_what_is_being_changed_is_waited_for(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    user_submits(&w, "x.service", PLAIN "Environment=A=B\n", LAUNCHED);
    is_shut_down(&w, "a", true);
    advance(&w, 2 * GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_false(is_ready(&w, "a"));
    reports(&w, "a", "x.service", "active");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    reports(&w, "b", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

static void test_a_decision_that_is_not_through_is_waited_for(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "a", true);
    w.hold = true;
    advance(&w, 2 * GATHER_MS);
    assert_false(is_ready(&w, "a"));
    held_is(&w, false); /* The store has refused it. */
    assert_false(is_ready(&w, "a"));
    advance(&w, CORE_RETRY_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_ready(&w, "a"));
    reports(&w, "b", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

/* The host was told, and has not said anything: it may begin any moment. */
static void test_what_it_was_just_told_is_waited_for(void **state)
{
    struct world w;

    some_machines(&w, 3);
    user_starts(&w, "x.service");
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_ready(&w, "a") || is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_ready(&w, "a") && is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_what_was_just_meant_for_it_is_waited_for(void **state)
{
    struct world w;

    some_machines(&w, 3);
    w.hold = true;
    user_starts(&w, "x.service"); /* For "a", when that is written down. */
    is_shut_down(&w, "a", true);
    assert_false(is_ready(&w, "a"));
    held_is(&w, true);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_false(is_ready(&w, "a"));
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

/* ---- it ends by itself ---- */

static void test_the_shutdown_is_given_up(void **state)
{
    struct world w;

    leaves_a(&w, NULL);
    reports(&w, "b", "x.service", "active");
    lets_go(&w, "a", "x.service");
    assert_true(is_ready(&w, "a"));
    is_shut_down(&w, "a", false);
    advance(&w, TTL_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b"); /* Nothing goes back. */
    user_submits(&w, "y.service", ON_A, LAUNCHED);
    assert_string_equal(placed_on(&w, "y.service"), "a");
    is_shut_down(&w, "a", true); /* And the next time it is as the first time. */
    assert_false(is_ready(&w, "a"));
    reports(&w, "a", "y.service", "active");
    advance(&w, GATHER_MS);
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

static void test_the_machine_is_back(void **state)
{
    struct world w;

    leaves_a(&w, NULL);
    reports(&w, "b", "x.service", "active");
    lets_go(&w, "a", "x.service");
    machine_hangs_up(&w, "a");
    assert_true(core_machine_shuts_down(w.core, machine_of(&w, "a")->id));
    advance(&w, TTL_MS / 4);
    machine_of(&w, "a")->shuts_down = false; /* It has been booted. */
    machine_calls(&w, "a");
    assert_false(core_machine_shuts_down(w.core, machine_of(&w, "a")->id));
    user_submits(&w, "y.service", ON_A, LAUNCHED);
    assert_string_equal(placed_on(&w, "y.service"), "a");
    world_done(&w);
}

static void test_what_a_person_has_decided_stays(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    is_set(&w, "a", CORDONED);
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    machine_of(&w, "a")->shuts_down = false;
    machine_calls(&w, "a");
    assert_int_equal(registry_machine(w.registry, machine_of(&w, "a")->id)->availability, MACHINE_CORDONED);
    user_submits(&w, "y.service", ON_A, LAUNCHED);
    assert_string_equal(outcome_of(&w, "y.service"), "unplaced");
    world_done(&w);
}

/* ---- leaders ---- */

static void test_a_new_leader_goes_on(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "a", true);
    leads(&w); /* Before anything was decided. */
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    machine_calls(&w, "a");
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    leads(&w); /* While it is handed over. */
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_true(is_told(&w, "a", "x.service"));
    assert_false(is_ready(&w, "a"));
    reports(&w, "b", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    leads(&w); /* It did not hear that, perhaps. */
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    machine_calls(&w, "a");
    advance(&w, GATHER_MS);
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

/* Where everything would fit is not known before the others have called. */
static void test_a_new_leader_decides_nothing_yet(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    machine_of(&w, "a")->shuts_down = true;
    leads(&w);
    machine_calls(&w, "a");
    advance(&w, 2 * GATHER_MS);
    assert_false(is_ready(&w, "a"));
    machine_calls(&w, "b");
    advance(&w, CORE_GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

static void test_a_session_begins_anew(void **state)
{
    struct world w;

    leaves_a(&w, NULL);
    reports(&w, "b", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    machine_calls(&w, "a"); /* Whatever was said in the old one may be lost. */
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

static void test_a_leader_that_places_nothing_keeps_nobody_waiting(void **state)
{
    struct world w;

    some_machines(&w, 3);
    runs_on_a(&w, NULL);
    may_place(&w, false);
    is_shut_down(&w, "a", true);
    assert_true(is_ready(&w, "a"));
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

/* ---- several ---- */

static void test_two_of_five_go_together(void **state)
{
    struct world w;

    some_machines(&w, 5);
    runs_on_a(&w, NULL);
    user_starts(&w, "y.service");
    reports(&w, "b", "y.service", "active");
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS - 1);
    is_shut_down(&w, "b", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c"); /* Never "b". */
    assert_string_equal(placed_on(&w, "y.service"), "d");
    reports(&w, "c", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    assert_false(is_ready(&w, "b"));
    reports(&w, "d", "y.service", "active");
    assert_true(is_ready(&w, "b"));
    world_done(&w);
}

static void test_a_target_that_goes_too(void **state)
{
    struct world w;

    some_machines(&w, 5);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    is_shut_down(&w, "b", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_true(is_told(&w, "a", "x.service")); /* It runs nowhere else yet. */
    assert_false(is_ready(&w, "a"));
    reports(&w, "c", "x.service", "active");
    assert_true(is_ready(&w, "a"));
    world_done(&w);
}

static void test_everybody_goes_and_nothing_moves(void **state)
{
    struct world w;

    some_machines(&w, 3);
    for (unsigned i = 0; i < 3; i++) {
        char unit[] = "x0.service", name[] = {(char)('a' + i), '\0'};

        unit[1] = (char)('0' + i);
        user_starts(&w, unit);
        assert_string_equal(placed_on(&w, unit), name);
        reports(&w, name, unit, "active");
    }
    world_forget(&w);
    is_shut_down(&w, "a", true);
    assert_false(is_ready(&w, "a"));
    advance(&w, GATHER_MS / 2);
    is_shut_down(&w, "b", true); /* That is most of them. */
    assert_true(is_ready(&w, "a") && is_ready(&w, "b"));
    is_shut_down(&w, "c", true);
    assert_true(is_ready(&w, "c"));
    advance(&w, TTL_MS);
    assert_int_equal(w.schedules, 0);
    world_done(&w);
}

/* One after the other, with time between them: what the first has given away is not passed on for ever. */
static void test_everybody_goes_one_by_one(void **state)
{
    struct world w;

    some_machines(&w, 5);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    reports(&w, "b", "x.service", "active");
    lets_go(&w, "a", "x.service");
    is_shut_down(&w, "b", true);
    advance(&w, GATHER_MS);
    reports(&w, "c", "x.service", "active");
    lets_go(&w, "b", "x.service");
    world_forget(&w);
    is_shut_down(&w, "c", true);
    advance(&w, GATHER_MS);
    assert_true(is_ready(&w, "c"));
    gets_metadata(&w, "d", "role", "web"); /* Something to think about. */
    assert_string_equal(placed_on(&w, "x.service"), "c");
    is_shut_down(&w, "a", false); /* Two of them: it has a place to go to. */
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

static void test_who_is_gone_does_not_count(void **state)
{
    struct world w;

    some_machines(&w, 5);
    is_shut_down(&w, "d", true);
    is_shut_down(&w, "e", true);
    loses_power(&w, "d");
    loses_power(&w, "e");
    advance(&w, TTL_MS);
    is_confirmed_lost(&w, "d");
    is_confirmed_lost(&w, "e");
    assert_int_equal(state_of(&w, "d"), MACHINE_LOST);
    assert_int_equal(state_of(&w, "e"), MACHINE_LOST);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "a", true);
    advance(&w, GATHER_MS);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    world_done(&w);
}

/* Of five, "d" and "e"; and a while later what has happened until then is forgotten. */
static void two_are_missing(struct world *w)
{
    loses_power(w, "d");
    loses_power(w, "e");
    advance(w, TTL_MS);
    assert_int_equal(state_of(w, "d"), MACHINE_MISSING);
    world_forget(w);
}

static void assert_nothing_leaves_a(struct world *w)
{
    advance(w, GATHER_MS);
    assert_int_equal(w->schedules, 0);
    assert_string_equal(placed_on(w, "x.service"), "a");
}

/* Nobody knows what has become of two of five: two of the other three are most of those that could go on. */
static void test_who_is_missing_does_not_count(void **state)
{
    struct world w;

    some_machines(&w, 5);
    runs_on_a(&w, NULL);
    two_are_missing(&w);
    is_shut_down(&w, "a", true);
    is_shut_down(&w, "b", true);
    assert_true(is_ready(&w, "a") && is_ready(&w, "b"));
    assert_nothing_leaves_a(&w);
    world_done(&w);
}

/* The first two of five are down already when the next one is told: that is most of them, too. */
static void test_who_went_in_order_counts_when_it_is_missing(void **state)
{
    struct world w;

    some_machines(&w, 5);
    runs_on_a(&w, NULL);
    is_shut_down(&w, "d", true);
    is_shut_down(&w, "e", true);
    two_are_missing(&w);
    is_shut_down(&w, "a", true);
    assert_true(is_ready(&w, "a"));
    assert_nothing_leaves_a(&w);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_runs_there_is_handed_over_first),
        cmocka_unit_test(test_what_may_not_run_twice_is_stopped_first),
        cmocka_unit_test(test_it_gets_nothing_new),
        cmocka_unit_test(test_what_fits_nowhere_stays_and_says_why),
        cmocka_unit_test(test_who_belongs_to_what_stays_stays),
        cmocka_unit_test(test_what_fails_elsewhere_is_not_waited_for),
        cmocka_unit_test(test_what_is_being_changed_is_waited_for),
        cmocka_unit_test(test_a_decision_that_is_not_through_is_waited_for),
        cmocka_unit_test(test_what_it_was_just_told_is_waited_for),
        cmocka_unit_test(test_what_was_just_meant_for_it_is_waited_for),
        cmocka_unit_test(test_the_shutdown_is_given_up),
        cmocka_unit_test(test_the_machine_is_back),
        cmocka_unit_test(test_what_a_person_has_decided_stays),
        cmocka_unit_test(test_a_new_leader_goes_on),
        cmocka_unit_test(test_a_new_leader_decides_nothing_yet),
        cmocka_unit_test(test_a_session_begins_anew),
        cmocka_unit_test(test_a_leader_that_places_nothing_keeps_nobody_waiting),
        cmocka_unit_test(test_two_of_five_go_together),
        cmocka_unit_test(test_a_target_that_goes_too),
        cmocka_unit_test(test_everybody_goes_and_nothing_moves),
        cmocka_unit_test(test_everybody_goes_one_by_one),
        cmocka_unit_test(test_who_is_gone_does_not_count),
        cmocka_unit_test(test_who_is_missing_does_not_count),
        cmocka_unit_test(test_who_went_in_order_counts_when_it_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
