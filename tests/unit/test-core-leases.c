/* SPDX-License-Identifier: Apache-2.0 */
/* The core and units under a lease: nobody else is given one before the lease has ended. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "tests/unit/core-world.h"

#define LEASE_MS (TTL_MS - TTL_MS / 10)
/* Of another host's clock, which may be slower than the leader's by a tenth. */
#define ELSEWHERE(ms) ((ms) + (ms) / 10)

/* x.service runs on a, and a has just been granted a lease. */
static void a_leased_unit(struct world *w, const char *text)
{
    three_machines(w);
    user_submits(w, "x.service", text, LAUNCHED);
    assert_string_equal(placed_on(w, "x.service"), "a");
    reports(w, "a", "x.service", "active");
    advance(w, BEAT_MS);
    is_heard(w, "a");
    assert_int_equal(machine_of(w, "a")->lease_until_ms, w->now_ms + LEASE_MS);
}

static bool is_told_another(struct world *w, const char *unit)
{
    return is_told(w, "b", unit) || is_told(w, "c", unit);
}

/* Not before; and then at once. */
static void assert_moves_after(struct world *w, uint64_t ms)
{
    advance(w, ms - 1);
    assert_false(is_told_another(w, "x.service"));
    advance(w, 1);
    assert_true(is_told_another(w, "x.service"));
    assert_string_not_equal(placed_on(w, "x.service"), "a");
}

static void test_a_leased_unit_moves_when_its_lease_has_ended(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    falls_silent(&w, "a");
    assert_moves_after(&w, ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS);
    world_done(&w);
}

static void test_status_says_how_long_a_lease_is_waited_for(void **state)
{
    struct world w;

    a_leased_unit(&w, PLAIN STOP);
    falls_silent(&w, "a");
    advance(&w, TTL_MS);
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_string_equal(reason_of(&w, "x.service"), "host-a is lost, and may run it for another 13 s");
    world_done(&w);
}

static void test_a_new_leader_waits_for_leases_it_did_not_grant(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_moves_after(&w, ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS);
    world_done(&w);
}

static void test_a_longer_lease_is_waited_for_after_the_ttl_was_shortened(void **state)
{
    for (int new_leader = 0; new_leader < 2; new_leader++) {
        struct world w;

        a_leased_unit(&w, STOP_3S);
        core_set_ttl(w.core, 3 * TTL_MS, w.now_ms);
        advance(&w, 1); /* The longer lease is written down before it is granted. */
        assert_int_equal(registry_lease_ms(w.registry), 3 * LEASE_MS);
        is_heard(&w, "a");
        assert_int_equal(machine_of(&w, "a")->lease_until_ms, w.now_ms + 3 * LEASE_MS);
        falls_silent(&w, "a");
        core_set_ttl(w.core, TTL_MS, w.now_ms);
        if (new_leader) {
            leads(&w);
            machine_calls(&w, "b");
            machine_calls(&w, "c");
        }
        assert_int_equal(registry_lease_ms(w.registry), 3 * LEASE_MS);
        assert_moves_after(&w, ELSEWHERE(3 * LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS);
        assert_int_equal(registry_lease_ms(w.registry), LEASE_MS); /* No longer one holds any more. */
        world_done(&w);
    }
}

static void test_what_may_run_counts_and_not_what_is_wanted(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    user_submits(&w, "x.service", PLAIN "TimeoutStopSec=60\n" STOP, LAUNCHED);
    is_heard(&w, "a");
    falls_silent(&w, "a");
    user_submits(&w, "x.service", STOP_3S, LAUNCHED); /* a may have carried out the one in between. */
    assert_moves_after(&w, ELSEWHERE(LEASE_MS + 60000) + CORE_LEASE_MARGIN_MS);
    world_done(&w);
}

static void test_the_same_name_again_while_the_first_may_run(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    falls_silent(&w, "a");
    advance(&w, TTL_MS);
    user_destroys(&w, "x.service");
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    assert_moves_after(&w, ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS - TTL_MS);
    world_done(&w);
}

static void test_a_removed_machine_may_run_what_it_had(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    falls_silent(&w, "a");
    is_removed(&w, "a");
    assert_moves_after(&w, ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS);
    world_done(&w);
}

/* Where fleetd hangs everything else runs on and stays; but nobody prolongs the lease. */
static void test_a_leased_unit_leaves_a_machine_that_hangs(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    user_submits(&w, "kept.service", ON_A, LAUNCHED);
    falls_silent(&w, "a");
    for (unsigned ms = 0; ms < ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS - 500; ms += 500) {
        advance(&w, 500);
        core_probed(w.core, machine_of(&w, "a")->id, true, w.now_ms);
        assert_false(is_told_another(&w, "x.service"));
    }
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_string_not_equal(placed_on(&w, "x.service"), "a");
    advance(&w, 500);
    assert_true(is_told_another(&w, "x.service"));
    assert_string_equal(placed_on(&w, "kept.service"), "a");
    machine_calls(&w, "a"); /* It has something left of it, but does not get it back. */
    assert_false(is_told(&w, "a", "x.service"));
    assert_true(is_told_another(&w, "x.service"));
    world_done(&w);
}

static void test_a_leased_unit_leaves_a_machine_that_hangs_from_the_first(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance_probing(&w, "a", true, ELSEWHERE(LEASE_MS + 3000) + CORE_LEASE_MARGIN_MS - 1);
    assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
    assert_false(is_told_another(&w, "x.service"));
    advance_probing(&w, "a", true, 1);
    assert_true(is_told_another(&w, "x.service"));
    world_done(&w);
}

/* Far longer than any lease, the time to stop, and the margin. */
#define LONG_MS (10 * TTL_MS)

static void assert_stays_on_a(struct world *w)
{
    advance_probing(w, "a", true, LONG_MS);
    assert_int_equal(state_of(w, "a"), MACHINE_HUNG);
    assert_string_equal(placed_on(w, "x.service"), "a");
    assert_false(is_told_another(w, "x.service"));
    assert_string_equal(reason_of(w, "x.service"),
                        "fleetd does not answer on host-a, though the machine does: what runs there runs on");
}

static void assert_leaves_a(struct world *w)
{
    advance_probing(w, "a", true, LONG_MS);
    assert_int_equal(state_of(w, "a"), MACHINE_HUNG);
    assert_true(is_told_another(w, "x.service"));
}

/* What runs where fleetd hangs is not what has been submitted meanwhile. */
static void test_what_hangs_without_a_lease_stays(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    advance_probing(&w, "a", true, TTL_MS);
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    assert_stays_on_a(&w);
    machine_calls(&w, "a"); /* It carries it out, and hangs again. */
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    assert_leaves_a(&w);
    world_done(&w);
}

/* Told it has been; but it may have hung before it started anything anew. */
static void test_what_was_told_only_is_not_under_a_lease(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    assert_true(is_told(&w, "a", "x.service"));
    falls_silent(&w, "a");
    assert_stays_on_a(&w);
    world_done(&w);
}

static void test_what_systemd_refuses_gives_no_lease(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    refuses(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    assert_stays_on_a(&w);
    world_done(&w);
}

static void test_what_never_reported_is_under_its_lease(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    assert_true(is_told(&w, "a", "x.service"));
    falls_silent(&w, "a");
    assert_leaves_a(&w);
    world_done(&w);
}

/* A new leader, which it has not called, knows from the registry alone whether what it runs has a lease. */
static void test_a_new_leader_knows_who_runs_without_a_lease(void **state)
{
    static const struct {
        const char *texts[4];
        bool again; /* Destroyed before the last one. */
        bool stays;
    } table[] = {
        {{PLAIN, STOP_3S}, .again = false, .stays = true},
        {{PLAIN, STOP_3S, PLAIN STOP}, .again = false, .stays = true},
        {{STOP_3S, PLAIN, STOP_3S}, .again = false, .stays = true},
        {{STOP_3S, PLAIN STOP}, .again = false, .stays = false},
        {{PLAIN, STOP_3S}, .again = true, .stays = true},
        {{STOP_3S, PLAIN STOP}, .again = true, .stays = false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct world w;

        three_machines(&w);
        for (size_t j = 0; table[i].texts[j] != NULL; j++) {
            if (table[i].again && table[i].texts[j + 1] == NULL)
                user_destroys(&w, "x.service");
            user_submits(&w, "x.service", table[i].texts[j], LAUNCHED);
            if (j == 0)
                falls_silent(&w, "a");
        }
        leads(&w);
        machine_calls(&w, "b");
        machine_calls(&w, "c");
        advance_probing(&w, "a", true, LONG_MS);
        assert_int_equal(state_of(&w, "a"), MACHINE_HUNG);
        assert_int_equal(is_told_another(&w, "x.service"), !table[i].stays);
        world_done(&w);
    }
}

static void test_a_lease_survives_a_change_of_leader(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    leads(&w);
    machine_calls(&w, "a"); /* It runs there: nobody else is waited for. */
    assert_true(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_stopped_by_its_lease_it_is_started_like_a_new_one(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    is_stopped_by_its_lease(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    lets_go(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_string_equal(reason_of(&w, "x.service"),
                        "host-c has not called the leader yet, and may run it for another 16 s");
    machine_calls(&w, "c");
    assert_true(is_told(&w, "a", "x.service"));
    world_done(&w);
}

static void test_a_drained_unit_with_a_lease_stops_first(void **state)
{
    struct world w;

    a_leased_unit(&w, STOP_3S);
    assert_false(core_may_hand_over(w.core, registry_unit(w.registry, "x.service")));
    world_done(&w);
}

static void test_who_gets_no_lease(void **state)
{
    struct world w;
    struct machine *a;

    three_machines(&w);
    a = machine_of(&w, "a");
    assert_int_equal(core_lease_grant(w.core, a->id, a->session, w.now_ms), 0); /* Nobody needs one. */
    w.refuse_lease = true;
    user_submits(&w, "x.service", STOP_3S, LAUNCHED);
    assert_int_equal(core_lease_grant(w.core, a->id, a->session, w.now_ms), 0); /* Not written down. */
    advance(&w, CORE_RETRY_MS);
    assert_int_equal(core_lease_grant(w.core, a->id, a->session, w.now_ms), LEASE_MS);
    assert_int_equal(core_lease_grant(w.core, a->id, a->session + 100, w.now_ms), 0);
    assert_int_equal(core_lease_grant(w.core, a->id, 0, w.now_ms), 0);
    falls_silent(&w, "a");
    advance(&w, TTL_MS);
    assert_int_equal(core_lease_grant(w.core, a->id, 1, w.now_ms), 0);
    core_yield(w.core);
    assert_int_equal(core_lease_grant(w.core, a->id, a->session, w.now_ms), 0);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_leased_unit_moves_when_its_lease_has_ended),
        cmocka_unit_test(test_status_says_how_long_a_lease_is_waited_for),
        cmocka_unit_test(test_a_new_leader_waits_for_leases_it_did_not_grant),
        cmocka_unit_test(test_a_longer_lease_is_waited_for_after_the_ttl_was_shortened),
        cmocka_unit_test(test_what_may_run_counts_and_not_what_is_wanted),
        cmocka_unit_test(test_the_same_name_again_while_the_first_may_run),
        cmocka_unit_test(test_a_removed_machine_may_run_what_it_had),
        cmocka_unit_test(test_a_leased_unit_leaves_a_machine_that_hangs),
        cmocka_unit_test(test_a_leased_unit_leaves_a_machine_that_hangs_from_the_first),
        cmocka_unit_test(test_what_hangs_without_a_lease_stays),
        cmocka_unit_test(test_what_was_told_only_is_not_under_a_lease),
        cmocka_unit_test(test_what_systemd_refuses_gives_no_lease),
        cmocka_unit_test(test_what_never_reported_is_under_its_lease),
        cmocka_unit_test(test_a_new_leader_knows_who_runs_without_a_lease),
        cmocka_unit_test(test_a_lease_survives_a_change_of_leader),
        cmocka_unit_test(test_stopped_by_its_lease_it_is_started_like_a_new_one),
        cmocka_unit_test(test_who_gets_no_lease),
        cmocka_unit_test(test_a_drained_unit_with_a_lease_stops_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
