/* SPDX-License-Identifier: Apache-2.0 */
/* The core's decisions: each is made once, said once, and made again if it was refused; or none is made. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

static void test_a_refused_decision_is_made_again(void **state)
{
    struct world w;

    three_machines(&w);
    world_forget(&w);
    w.refuse = 3;
    user_starts(&w, "x.service");
    assert_int_equal(w.schedules, 1);
    advance(&w, CORE_RETRY_MS - 1);
    assert_int_equal(w.schedules, 1);
    advance(&w, 1);
    assert_int_equal(w.schedules, 2);
    advance(&w, 10 * CORE_RETRY_MS);
    assert_int_equal(w.schedules, 4);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

/* However often it was refused: what is decided is said when it has come true. */
static void test_a_decision_is_said_once(void **state)
{
    struct world w;

    three_machines(&w);
    advance(&w, TTL_MS);
    world_forget(&w);
    w.refuse = 50;
    user_starts(&w, "x.service");
    advance(&w, 20000);
    assert_true(w.refuse < 15);
    assert_int_equal(w.logs, 0);
    w.refuse = 0;
    advance(&w, 1000);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_int_equal(w.logs, 1);
    w.hold = true;
    user_starts(&w, "y.service");
    user_stops(&w, "y.service"); /* Before it is through. */
    held_is(&w, true);
    assert_int_equal(w.logs, 1);
    world_done(&w);
}

static void test_one_decision_at_a_time(void **state)
{
    struct world w;

    three_machines(&w);
    world_forget(&w);
    w.hold = true;
    user_starts(&w, "x.service");
    user_starts(&w, "y.service");
    advance(&w, TTL_MS);
    assert_int_equal(w.schedules, 1);
    held_is(&w, true);
    assert_int_equal(w.schedules, 2);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_string_equal(placed_on(&w, "y.service"), "b");
    world_done(&w);
}

static void test_a_decision_of_an_older_term(void **state)
{
    struct effects effects = {0};
    struct world w;
    uint64_t older;

    three_machines(&w);
    w.hold = true;
    user_starts(&w, "x.service");
    older = w.term;
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_non_null(w.held);
    core_schedule_done(w.core, older, false, w.now_ms, &effects);
    assert_int_equal(effects.count, 0);
    advance(&w, TTL_MS); /* Asserts that there is no second one. */
    held_is(&w, true);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    world_done(&w);
}

static void test_a_leader_that_yields_says_nothing(void **state)
{
    struct effects effects = {0};
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    core_yield(w.core);
    world_forget(&w);
    user_starts(&w, "y.service");
    falls_silent(&w, "a");
    core_tick(w.core, w.now_ms + 10 * TTL_MS, &effects);
    assert_int_equal(effects.count, 0);
    assert_int_equal(core_deadline_ms(w.core), UINT64_MAX);
    assert_int_equal(w.schedules + w.shares + w.drops + w.logs, 0);
    world_done(&w);
}

/* ---- none at all ---- */

/* disable_engine: what is there stays there and is told, nothing is placed, and whoever waits knows why. */
static void test_a_leader_that_must_not_place(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "one.service");
    assert_string_equal(placed_on(&w, "one.service"), "a");
    reports(&w, "a", "one.service", "active");
    may_place(&w, false);
    world_forget(&w);
    user_starts(&w, "two.service");
    user_submits(&w, "all.service", GLOBAL, LAUNCHED); /* Placed by nobody: each machine's own. */
    advance(&w, 1000);
    assert_int_equal(w.schedules, 0);
    assert_string_equal(placed_on(&w, "two.service"), "");
    assert_string_equal(outcome_of(&w, "two.service"), "waiting");
    assert_non_null(strstr(reason_of(&w, "two.service"), "disable_engine"));
    assert_true(is_told(&w, "b", "all.service"));
    assert_string_equal(outcome_of(&w, "one.service"), "active");
    assert_true(core_deadline_ms(w.core) > w.now_ms); /* It does not go round in circles over it. */
    machine_hangs_up(&w, "a");
    advance(&w, TTL_MS + 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(&w, "one.service"), "a");
    assert_non_null(strstr(reason_of(&w, "one.service"), "disable_engine"));
    user_stops(&w, "two.service"); /* Users' own changes are none of its decisions. */
    assert_string_equal(outcome_of(&w, "two.service"), "inactive");
    user_starts(&w, "two.service");
    leads(&w); /* A new leadership does not change that. */
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, TTL_MS + 1);
    assert_int_equal(w.schedules, 0);
    may_place(&w, true);
    assert_int_equal(w.schedules, 1);
    assert_string_equal(placed_on(&w, "one.service"), "b");
    assert_string_equal(placed_on(&w, "two.service"), "c");
    world_done(&w);
}

/* ---- the same in, the same out ---- */

/* One registry however it came to be: a new leader does the same, byte for byte. */
static char *lead_from(bool backwards)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct world w;
    char *text = NULL;
    size_t size;

    world_init(&w);
    for (size_t i = 0; i < 4; i++)
        registers(&w, names[backwards ? 3 - i : i], NULL);
    for (size_t i = 0; i < 20; i++) {
        size_t number = backwards ? 19 - i : i;
        _cleanup_(freep) char *unit = xasprintf("u%02zu.service", number);

        user_submits(&w, unit, number % 5 == 0 ? GLOBAL : PLAIN, LAUNCHED);
    }
    w.transcript = open_memstream(&text, &size);
    leads(&w);
    for (size_t i = 0; i < 4; i++)
        machine_calls(&w, names[i]);
    falls_silent(&w, "b");
    advance(&w, 2 * TTL_MS);
    fclose(w.transcript);
    world_done(&w);
    return text;
}

static void test_order_of_arrival_does_not_matter(void **state)
{
    _cleanup_(freep) char *forwards = lead_from(false), *backwards = lead_from(true);

    assert_string_equal(forwards, backwards);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_leader_that_must_not_place),
        cmocka_unit_test(test_a_refused_decision_is_made_again),
        cmocka_unit_test(test_a_decision_is_said_once),
        cmocka_unit_test(test_one_decision_at_a_time),
        cmocka_unit_test(test_a_decision_of_an_older_term),
        cmocka_unit_test(test_a_leader_that_yields_says_nothing),
        cmocka_unit_test(test_order_of_arrival_does_not_matter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
