/* SPDX-License-Identifier: Apache-2.0 */
/* The core and machines that are cordoned or drained: what leaves them is handed over. */
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

static void test_a_cordoned_machine_keeps_what_it_has(void **state)
{
    struct world w;

    active_on_a(&w);
    is_set(&w, "a", CORDONED);
    user_starts(&w, "y.service");
    user_starts(&w, "z.service");
    user_starts(&w, "zz.service");
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_string_equal(placed_on(&w, "y.service"), "b");
    assert_string_equal(placed_on(&w, "z.service"), "c");
    assert_string_equal(placed_on(&w, "zz.service"), "b");
    user_submits(&w, "only-a.service", ON_A, LAUNCHED);
    assert_string_equal(outcome_of(&w, "only-a.service"), "unplaced");
    is_set(&w, "a", ACTIVE);
    assert_string_equal(placed_on(&w, "only-a.service"), "a");
    world_done(&w);
}

/* "x.service" runs on "a", which is then drained: it goes to "b". */
static void drained(struct world *w, const char *text)
{
    three_machines(w);
    user_submits(w, "x.service", text, LAUNCHED);
    reports(w, "a", "x.service", "active");
    world_forget(w);
    is_set(w, "a", DRAINING);
    assert_string_equal(placed_on(w, "x.service"), "b");
}

static void test_a_drained_unit_is_handed_over(void **state)
{
    struct world w;

    drained(&w, NULL);
    assert_true(is_handed_over(&w, "x.service"));
    assert_true(is_told(&w, "a", "x.service")); /* Both: it runs on. */
    assert_true(is_told(&w, "b", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    reports(&w, "b", "x.service", "activating");
    assert_true(is_told(&w, "a", "x.service"));
    reports(&w, "b", "x.service", "active");
    assert_false(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_string_equal(reason_of(&w, "x.service"), "host-a still stops it");
    lets_go(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    advance(&w, CORE_ENDS_MS);
    assert_false(is_handed_over(&w, "x.service"));
    world_forget(&w);
    advance(&w, 10 * TTL_MS);
    assert_int_equal(w.schedules, 0);
    is_set(&w, "a", ACTIVE); /* And nothing goes back. */
    assert_int_equal(w.schedules, 0);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_drained_unit_that_fails_elsewhere_runs_on(void **state)
{
    struct world w;

    drained(&w, NULL);
    fails(&w, "b", "x.service", "failed");
    advance(&w, 10 * TTL_MS);
    assert_true(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    assert_non_null(strstr(reason_of(&w, "x.service"), "host-a runs it on, for on host-b it failed"));
    world_done(&w);
}

static void test_the_new_machine_is_lost_meanwhile(void **state)
{
    struct world w;

    drained(&w, NULL);
    falls_silent(&w, "b");
    advance(&w, TTL_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_true(is_told(&w, "a", "x.service") && is_told(&w, "c", "x.service"));
    reports(&w, "c", "x.service", "active");
    assert_false(is_told(&w, "a", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_a_new_leader_goes_on_with_a_handover(void **state)
{
    struct world w;

    drained(&w, NULL);
    leads(&w);
    machine_calls(&w, "a");
    assert_true(is_told(&w, "a", "x.service"));
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_true(is_told(&w, "a", "x.service") && is_told(&w, "b", "x.service"));
    assert_false(is_told(&w, "c", "x.service"));
    reports(&w, "b", "x.service", "active");
    assert_false(is_told(&w, "a", "x.service"));
    leads(&w); /* And another one, while the old machine stops it. */
    machine_calls(&w, "b");
    machine_calls(&w, "a");
    machine_calls(&w, "c");
    assert_false(is_told(&w, "a", "x.service"));
    lets_go(&w, "a", "x.service");
    advance(&w, CORE_ENDS_MS);
    assert_false(is_handed_over(&w, "x.service"));
    world_done(&w);
}

/* The old machine has stopped it, but not removed yet: another leader must not let it begin there again. */
static void test_who_has_stopped_hands_nothing_over(void **state)
{
    struct world w;
    struct item *item;

    drained(&w, NULL);
    reports(&w, "b", "x.service", "active");
    assert_false(is_told(&w, "a", "x.service"));
    item = item_of(machine_of(&w, "a"), "x.service");
    item->launched = false;
    strcpy(item->active, "inactive");
    leads(&w);
    machine_calls(&w, "a");
    assert_false(is_told(&w, "a", "x.service"));
    machine_calls(&w, "b");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* The old machine has let go, which the registry does not know yet: a move is a move like any other. */
static void test_a_handover_that_is_through_is_over(void **state)
{
    struct world w;

    three_machines(&w);
    gets_metadata(&w, "a", "role", "web");
    gets_metadata(&w, "b", "role", "web");
    gets_metadata(&w, "c", "role", "web");
    user_submits(&w, "x.service", ON_WEB, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    is_set(&w, "a", DRAINING);
    reports(&w, "b", "x.service", "active");
    lets_go(&w, "a", "x.service");
    gets_metadata(&w, "b", "role", "db");
    assert_string_equal(placed_on(&w, "x.service"), "c");
    assert_false(is_handed_over(&w, "x.service"));
    assert_false(is_told(&w, "b", "x.service") || is_told(&w, "c", "x.service"));
    lets_go(&w, "b", "x.service");
    assert_true(is_told(&w, "c", "x.service"));
    world_done(&w);
}

/* Many that are through within a moment are noted together: each decision plans for everything. */
static void test_handovers_end_together(void **state)
{
    struct world w;

    three_machines(&w);
    is_set(&w, "b", CORDONED);
    is_set(&w, "c", CORDONED);
    for (unsigned i = 0; i < 30; i++) {
        _cleanup_(freep) char *name = xasprintf("u%u.service", i);

        user_starts(&w, name);
        reports(&w, "a", name, "active");
    }
    is_set(&w, "b", ACTIVE);
    is_set(&w, "a", DRAINING);
    for (unsigned i = 0; i < 30; i++)
        reports(&w, "b", (const char *)registry_units(w.registry, &(size_t){0})[i]->name, "active");
    world_forget(&w);
    for (unsigned i = 0; i < 30; i++)
        lets_go(&w, "a", machine_of(&w, "a")->items[0].unit);
    advance(&w, TTL_MS);
    assert_int_equal(w.schedules, 1);
    assert_int_equal(w.placements, 30);
    world_done(&w);
}

/* What it runs is not known yet: it can only be handed over when it has called. */
static void test_a_new_leader_goes_on_with_a_drain(void **state)
{
    struct world w;

    active_on_a(&w);
    leads(&w);
    is_set(&w, "a", DRAINING);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, TTL_MS / 4);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    machine_calls(&w, "a");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_true(is_handed_over(&w, "x.service"));
    assert_true(is_told(&w, "a", "x.service"));
    world_done(&w);
}

static void test_a_drained_machine_is_silent_for_a_moment(void **state)
{
    struct world w;

    running_on_a(&w);
    machine_hangs_up(&w, "a");
    is_set(&w, "a", DRAINING);
    advance(&w, 1000);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_non_null(strstr(reason_of(&w, "x.service"), "does not answer"));
    machine_calls(&w, "a");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_true(is_handed_over(&w, "x.service"));
    assert_true(is_told(&w, "a", "x.service"));
    world_done(&w);
}

static void test_a_stop_ends_a_handover(void **state)
{
    struct world w;

    drained(&w, NULL);
    user_stops(&w, "x.service");
    assert_false(is_told(&w, "a", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_false(is_told(&w, "a", "x.service"));
    world_done(&w);
}

static void test_new_content_ends_a_handover(void **state)
{
    struct world w;

    drained(&w, NULL);
    user_submits(&w, "x.service", PLAIN "Environment=A=B\n", LAUNCHED);
    assert_false(is_told(&w, "a", "x.service"));
    assert_false(is_handed_over(&w, "x.service"));
    world_done(&w);
}

/* There must never be two of it: the old one goes first. */
static void test_a_unit_that_conflicts_with_itself_is_stopped_first(void **state)
{
    struct world w;

    drained(&w, PLAIN "[X-Fleet]\nConflicts=x*\n");
    assert_false(is_handed_over(&w, "x.service"));
    assert_false(is_told(&w, "a", "x.service") || is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_what_does_not_run_needs_no_handover(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    fails(&w, "a", "x.service", "failed");
    is_set(&w, "a", DRAINING);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "a", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* It is about to be restarted where it is: it would begin there while it begins elsewhere. */
static void test_what_is_being_changed_waits_for_that(void **state)
{
    struct world w;

    running_on_a(&w);
    user_submits(&w, "x.service", PLAIN "Environment=A=B\n", LAUNCHED);
    is_set(&w, "a", DRAINING); /* "a" has not said yet that it runs the new content. */
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_true(is_handed_over(&w, "x.service"));
    assert_true(is_told(&w, "a", "x.service"));
    world_done(&w);
}

static void test_what_fits_nowhere_else_stays(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    is_set(&w, "a", DRAINING);
    advance(&w, 10 * TTL_MS);
    assert_true(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    assert_non_null(strstr(reason_of(&w, "x.service"), "fits on no other machine"));
    world_done(&w);
}

static void test_what_belongs_together_leaves_together(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "db.service", NULL, LAUNCHED);
    user_submits(&w, "log.service", PLAIN "[X-Fleet]\nMachineOf=db.service\n", LAUNCHED);
    reports(&w, "a", "db.service", "active");
    reports(&w, "a", "log.service", "active");
    is_set(&w, "a", DRAINING);
    assert_string_equal(placed_on(&w, "db.service"), "b");
    assert_string_equal(placed_on(&w, "log.service"), "b");
    assert_true(is_told(&w, "b", "db.service") && is_told(&w, "b", "log.service"));
    assert_true(is_told(&w, "a", "db.service") && is_told(&w, "a", "log.service"));
    world_done(&w);
}

static void test_nobody_is_left_behind(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "db.service", NULL, LAUNCHED);
    user_submits(&w, "log.service", ON_A "MachineOf=db.service\n", LAUNCHED);
    user_submits(&w, "log-log.service", PLAIN "[X-Fleet]\nMachineOf=db.service\n", LAUNCHED);
    for (const char *const *name =
             (const char *const[]){"db.service", "log.service", "log-log.service", NULL};
         *name != NULL; name++)
        reports(&w, "a", *name, "active");
    world_forget(&w);
    is_set(&w, "a", DRAINING);
    advance(&w, TTL_MS);
    assert_int_equal(w.schedules, 0);
    assert_non_null(strstr(reason_of(&w, "db.service"), "fits on no other machine"));
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cordoned_machine_keeps_what_it_has),
        cmocka_unit_test(test_a_drained_unit_is_handed_over),
        cmocka_unit_test(test_a_drained_unit_that_fails_elsewhere_runs_on),
        cmocka_unit_test(test_the_new_machine_is_lost_meanwhile),
        cmocka_unit_test(test_a_new_leader_goes_on_with_a_handover),
        cmocka_unit_test(test_a_new_leader_goes_on_with_a_drain),
        cmocka_unit_test(test_a_drained_machine_is_silent_for_a_moment),
        cmocka_unit_test(test_who_has_stopped_hands_nothing_over),
        cmocka_unit_test(test_a_handover_that_is_through_is_over),
        cmocka_unit_test(test_handovers_end_together),
        cmocka_unit_test(test_a_stop_ends_a_handover),
        cmocka_unit_test(test_new_content_ends_a_handover),
        cmocka_unit_test(test_a_unit_that_conflicts_with_itself_is_stopped_first),
        cmocka_unit_test(test_what_does_not_run_needs_no_handover),
        cmocka_unit_test(test_what_is_being_changed_waits_for_that),
        cmocka_unit_test(test_what_fits_nowhere_else_stays),
        cmocka_unit_test(test_what_belongs_together_leaves_together),
        cmocka_unit_test(test_nobody_is_left_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
