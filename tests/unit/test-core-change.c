/* SPDX-License-Identifier: Apache-2.0 */
/* A unit that is changed from OnDisconnect=keep to stop: whoever has the older content may run it for ever,
 * and nobody else is given the unit before it has carried the change out, let go, or was confirmed as lost.
 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

#define STOPS PLAIN "TimeoutStopSec=3\n" STOP

/* Far longer than any lease, the time to stop, and the margin. */
#define LONG_MS (10 * TTL_MS)

/* x.service runs on a, which is not heard any more, and is then given OnDisconnect=stop. */
static void changed_while_a_is_away(struct world *w)
{
    three_machines(w);
    user_submits(w, "x.service", PLAIN, LAUNCHED);
    assert_string_equal(placed_on(w, "x.service"), "a");
    reports(w, "a", "x.service", "active");
    falls_silent(w, "a");
    user_submits(w, "x.service", STOPS, LAUNCHED);
}

static void another_leads(struct world *w)
{
    leads(w);
    machine_calls(w, "b");
    machine_calls(w, "c");
}

static bool is_told_another(struct world *w)
{
    return is_told(w, "b", "x.service") || is_told(w, "c", "x.service");
}

static bool is_leased(struct world *w)
{
    return registry_unit(w->registry, "x.service")->leased;
}

static void assert_stays(struct world *w)
{
    advance(w, LONG_MS);
    assert_int_equal(state_of(w, "a"), MACHINE_LOST);
    assert_string_equal(placed_on(w, "x.service"), "a");
    assert_false(is_told_another(w));
    assert_string_equal(outcome_of(w, "x.service"), "waiting");
    assert_string_equal(
        reason_of(w, "x.service"),
        "host-a was lost before it had carried out OnDisconnect=stop, and may run an older copy on: "
        "nothing is started until it is back, or you are sure that it is off (fleetctl confirm-lost "
        "host-a)");
}

static void assert_moves(struct world *w)
{
    advance(w, LONG_MS);
    assert_string_not_equal(placed_on(w, "x.service"), "a");
    assert_true(is_told_another(w));
}

static void test_a_lost_machine_keeps_what_it_did_not_change(void **state)
{
    struct world w;
    _cleanup_(freep) char *said = NULL;
    size_t size;

    changed_while_a_is_away(&w);
    user_submits(&w, "other.service", PLAIN, LAUNCHED); /* Nothing else is held up. */
    w.transcript = open_memstream(&said, &size);
    assert_stays(&w);
    fclose(w.transcript);
    w.transcript = NULL;
    assert_non_null(strstr(said, "placed on others, but for 1 that may run on there"));
    assert_string_not_equal(placed_on(&w, "other.service"), "");
    another_leads(&w); /* It has never heard of a. */
    assert_stays(&w);
    machine_calls(&w, "a");
    assert_true(is_told(&w, "a", "x.service"));
    assert_false(is_leased(&w));
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    advance(&w, TTL_MS);
    assert_true(is_leased(&w)); /* From now on it is like any other. */
    falls_silent(&w, "a");
    assert_moves(&w);
    world_done(&w);
}

static void test_a_change_that_was_carried_out_outlives_leaders(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", STOPS, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    advance(&w, TTL_MS);
    another_leads(&w);
    assert_moves(&w);
    world_done(&w);
}

/* It was told, and may have fallen before it did anything. */
static void test_told_is_not_done(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", STOPS, LAUNCHED);
    assert_true(is_told(&w, "a", "x.service"));
    falls_silent(&w, "a");
    assert_stays(&w);
    world_done(&w);
}

/* systemd refuses the new content: then an older one runs on; but where none does, all is well. */
static void test_what_systemd_refuses_is_not_done(void **state)
{
    for (int runs = 0; runs < 2; runs++) {
        struct world w;

        three_machines(&w);
        user_submits(&w, "x.service", PLAIN, LAUNCHED);
        reports(&w, "a", "x.service", "active");
        user_submits(&w, "x.service", STOPS, LAUNCHED);
        refuses(&w, "a", "x.service", runs ? "active" : "failed");
        advance(&w, TTL_MS);
        assert_int_equal(is_leased(&w), !runs);
        world_done(&w);
    }
}

static void test_a_person_knows_better(void **state)
{
    for (int new_leader = 0; new_leader < 2; new_leader++) {
        struct world w;

        changed_while_a_is_away(&w);
        assert_stays(&w);
        may_place(&w, !new_leader); /* So that another one has to know. */
        is_confirmed_lost(&w, "a");
        if (new_leader)
            another_leads(&w);
        may_place(&w, true);
        assert_moves(&w);
        /* It was not off, after all; and what a person has said of it holds no longer. */
        machine_calls(&w, "a");
        assert_false(registry_machine(w.registry, machine_of(&w, "a")->id)->lost_confirmed);
        world_done(&w);
    }
}

/* Somebody had it before it was moved, and went on with that when it was lost. */
static void test_a_former_machine_counts(void **state)
{
    for (int confirmed = 0; confirmed < 2; confirmed++) {
        struct world w;

        three_machines(&w);
        user_submits(&w, "x.service", PLAIN, LAUNCHED);
        reports(&w, "a", "x.service", "active");
        falls_silent(&w, "a");
        advance(&w, LONG_MS);
        assert_string_equal(placed_on(&w, "x.service"), "b");
        user_submits(&w, "x.service", STOPS, LAUNCHED);
        reports(&w, "b", "x.service", "active");
        advance(&w, TTL_MS);
        assert_false(is_leased(&w));
        assert_string_equal(outcome_of(&w, "x.service"), "active");
        assert_non_null(strstr(reason_of(&w, "x.service"), "but host-a was lost before it had carried out"));
        falls_silent(&w, "b");
        advance(&w, LONG_MS);
        assert_false(is_told(&w, "c", "x.service"));
        if (confirmed) {
            is_confirmed_lost(&w, "a");
            is_confirmed_lost(&w, "b");
        } else {
            machine_calls(&w, "a");
            assert_false(is_told(&w, "c", "x.service")); /* It has still to let go. */
            lets_go(&w, "a", "x.service");
            machine_calls(&w, "b");
            reports(&w, "b", "x.service", "active");
            advance(&w, TTL_MS);
            assert_true(is_leased(&w));
            falls_silent(&w, "b");
            advance(&w, LONG_MS);
        }
        assert_string_not_equal(placed_on(&w, "x.service"), "b");
        assert_true(is_told(&w, placed_on(&w, "x.service"), "x.service"));
        world_done(&w);
    }
}

/* Moved on from there once more, and under another leader: it is not forgotten that it was there. */
static void test_each_former_machine_counts(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    advance(&w, LONG_MS);
    reports(&w, "b", "x.service", "active");
    loses_power(&w, "b"); /* With b nothing is left of it: that comes back. */
    advance(&w, LONG_MS);
    assert_string_equal(placed_on(&w, "x.service"), "c");
    another_leads(&w);
    reports(&w, "c", "x.service", "active");
    user_submits(&w, "x.service", STOPS, LAUNCHED);
    reports(&w, "c", "x.service", "active");
    advance(&w, LONG_MS);
    assert_false(is_leased(&w));
    falls_silent(&w, "c");
    advance(&w, LONG_MS);
    assert_false(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_stopped_while_its_machine_is_away(void **state)
{
    for (int again = 0; again < 2; again++) {
        struct world w;

        changed_while_a_is_away(&w);
        advance(&w, LONG_MS);
        if (again)
            user_destroys(&w, "x.service"); /* Another one of the name is not given to anybody either. */
        else
            user_stops(&w, "x.service");
        another_leads(&w);
        advance(&w, LONG_MS);
        user_submits(&w, "x.service", STOPS, LAUNCHED);
        advance(&w, LONG_MS);
        assert_false(is_told_another(&w));
        assert_non_null(strstr(reason_of(&w, "x.service"), "host-a was lost before it had carried out"));
        machine_calls(&w, "a");
        if (is_told(&w, "a", "x.service"))
            reports(&w, "a", "x.service", "active");
        else
            lets_go(&w, "a", "x.service");
        assert_true(is_told(&w, placed_on(&w, "x.service"), "x.service"));
        world_done(&w);
    }
}

/* A global unit has no place, and may be on any machine. */
static void test_it_was_global(void **state)
{
    for (int again = 0; again < 2; again++) {
        struct world w;

        three_machines(&w);
        user_submits(&w, "x.service", GLOBAL, LAUNCHED);
        reports(&w, "a", "x.service", "active");
        reports(&w, "c", "x.service", "active");
        falls_silent(&w, "c");
        advance(&w, LONG_MS);
        if (again)
            user_destroys(&w, "x.service");
        leads(&w);
        machine_calls(&w, "a");
        machine_calls(&w, "b");
        user_submits(&w, "x.service", STOPS, LAUNCHED);
        lets_go(&w, "a", "x.service");
        lets_go(&w, "b", "x.service");
        advance(&w, LONG_MS);
        assert_string_equal(placed_on(&w, "x.service"), "a");
        assert_false(is_told(&w, "a", "x.service"));
        assert_false(is_leased(&w));
        is_confirmed_lost(&w, "c");
        assert_true(is_told(&w, "a", "x.service"));
        world_done(&w);
    }
}

/* A registry that an older version has written knows nothing of leases. */
static void forget_leases(struct world *w)
{
    struct registry_unit *unit = (struct registry_unit *)registry_unit(w->registry, "x.service");

    unit->leased = false;
    unit->leased_since = 0;
}

static void test_a_registry_of_an_older_version(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", STOPS, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    forget_leases(&w);
    another_leads(&w);
    advance_probing(&w, "a", true, LONG_MS); /* Its fleetd hangs, and has told this leader nothing. */
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_false(is_told_another(&w));
    advance(&w, LONG_MS);
    assert_stays(&w);
    machine_calls(&w, "a"); /* What it has it has carried out as it is: under a lease. */
    advance(&w, TTL_MS);
    assert_true(is_leased(&w));
    falls_silent(&w, "a");
    assert_moves(&w);
    world_done(&w);
}

/* Nothing of all that concerns a unit that never had OnDisconnect=keep on any machine. */
static void test_from_its_first_start_on(void **state)
{
    for (int new_leader = 0; new_leader < 2; new_leader++) {
        struct world w;

        three_machines(&w);
        user_submits(&w, "x.service", STOPS, LAUNCHED);
        assert_true(is_told(&w, "a", "x.service"));
        falls_silent(&w, "a");
        if (new_leader)
            another_leads(&w);
        assert_moves(&w);
        world_done(&w);
    }
}

/* When everybody has let go the registry need not remember who had it. */
static void test_former_machines_are_forgotten(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    advance(&w, LONG_MS);
    reports(&w, "b", "x.service", "active");
    advance(&w, LONG_MS);
    assert_int_equal(registry_unit(w.registry, "x.service")->former.count, 1);
    machine_calls(&w, "a");
    advance(&w, TTL_MS);
    assert_int_equal(registry_unit(w.registry, "x.service")->former.count, 1);
    world_forget(&w);
    lets_go(&w, "a", "x.service");
    advance(&w, TTL_MS);
    assert_int_equal(registry_unit(w.registry, "x.service")->former.count, 0);
    assert_int_equal(w.schedules, 1);
    assert_int_equal(w.moves, 0);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_machine_keeps_what_it_did_not_change),
        cmocka_unit_test(test_a_change_that_was_carried_out_outlives_leaders),
        cmocka_unit_test(test_told_is_not_done),
        cmocka_unit_test(test_what_systemd_refuses_is_not_done),
        cmocka_unit_test(test_a_person_knows_better),
        cmocka_unit_test(test_a_former_machine_counts),
        cmocka_unit_test(test_each_former_machine_counts),
        cmocka_unit_test(test_stopped_while_its_machine_is_away),
        cmocka_unit_test(test_it_was_global),
        cmocka_unit_test(test_a_registry_of_an_older_version),
        cmocka_unit_test(test_from_its_first_start_on),
        cmocka_unit_test(test_former_machines_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
