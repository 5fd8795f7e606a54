/* SPDX-License-Identifier: Apache-2.0 */
/* The core: its laws, as transcripts in virtual time; then by chance (seeded); then what it costs. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "fleetd/core/failing.h"
#include "tests/unit/core-world.h"
#include "units/name.h"

#define LOADED   FLEET__DESIRED_STATE__DESIRED_LOADED
#define LAUNCHED FLEET__DESIRED_STATE__DESIRED_LAUNCHED
#define INACTIVE FLEET__DESIRED_STATE__DESIRED_INACTIVE

#define ON_WEB      PLAIN "[X-Fleet]\nMachineMetadata=role=web\n"
#define GLOBAL      PLAIN "[X-Fleet]\nGlobal=true\n"
#define WEB_ALL     PLAIN "[X-Fleet]\nGlobal=true\nMachineMetadata=role=web\n"
#define OTHER       "[Service]\nExecStart=/bin/sleep 1\n"
#define ONLY_ON(id) PLAIN "[X-Fleet]\nMachineID=" id "\n"
#define ON_A        ONLY_ON("aaaaaaaa")
#define ON_B        ONLY_ON("bbbbbbbb")
#define ON_C        ONLY_ON("cccccccc")

#define DRAINING FLEET__AVAILABILITY__AVAILABILITY_DRAINING
#define CORDONED FLEET__AVAILABILITY__AVAILABILITY_CORDONED
#define ACTIVE   FLEET__AVAILABILITY__AVAILABILITY_ACTIVE

/* Machines a, b and c have called a leader. */
static void three_machines(struct world *w)
{
    world_init(w);
    registers(w, "a", NULL);
    registers(w, "b", NULL);
    registers(w, "c", NULL);
    leads(w);
    machine_calls(w, "a");
    machine_calls(w, "b");
    machine_calls(w, "c");
}

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

/* Of six machines, all with a unit, these fall silent. */
static void six_machines_without(struct world *w, const char *silent)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};

    world_init(w);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        registers(w, names[i], NULL);
    leads(w);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        machine_calls(w, names[i]);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *unit = xasprintf("on-%s.service", names[i]);

        user_starts(w, unit);
        reports(w, names[i], unit, "active");
    }
    advance(w, TTL_MS);
    for (; *silent != '\0'; silent++)
        falls_silent(w, (const char[]){*silent, '\0'});
    world_forget(w);
}

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

/* ---- leases ---- */

#define LEASE_MS (TTL_MS - TTL_MS / 10)
/* Of another host's clock, which may be slower than the leader's by a tenth. */
#define ELSEWHERE(ms) ((ms) + (ms) / 10)
#define STOP_3S       PLAIN "TimeoutStopSec=3\n" STOP

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

/* ---- sessions ---- */

static void test_a_session_is_replaced(void **state)
{
    struct world w;
    struct effects effects = {0};
    uint64_t older;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    older = machine_of(&w, "a")->session;
    machine_calls(&w, "a");
    world_forget(&w);
    core_session_closed(w.core, machine_of(&w, "a")->id, older, w.now_ms, &effects);
    assert_int_equal(effects.count, 0);
    assert_int_equal(state_of(&w, "a"), MACHINE_READY);
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_a_stale_session_is_not_listened_to(void **state)
{
    Fleet__UnitReport report = FLEET__UNIT_REPORT__INIT, *list[] = {&report};
    struct effects effects = {0};
    struct world w;
    uint64_t older;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    older = machine_of(&w, "a")->session;
    machine_calls(&w, "a");
    report.name = (char *)"x.service";
    report.gone = true;
    core_session_report(w.core, machine_of(&w, "a")->id, older, list, 1, w.now_ms, &effects);
    assert_int_equal(effects.count, 0);
    assert_non_null(core_report(w.core, machine_of(&w, "a")->id, "x.service"));
    falls_silent(&w, "a");
    for (unsigned i = 0; i < TTL_MS / BEAT_MS; i++) {
        advance(&w, BEAT_MS);
        core_session_heard(w.core, machine_of(&w, "a")->id, older, w.now_ms);
    }
    assert_int_equal(state_of(&w, "a"), MACHINE_LOST);
    world_done(&w);
}

/* ---- a host that says whatever it likes ---- */

/* Reports a unit of this name, and says whether the leader has a report of it then. */
static bool is_kept(struct world *w, const char *unit, const char *error, struct effects *effects)
{
    const struct machine *m = machine_of(w, "a");
    Fleet__UnitReport report = FLEET__UNIT_REPORT__INIT, *list[] = {&report};

    report.name = (char *)unit;
    report.error = (char *)error;
    report.launched = true;
    core_session_report(w->core, m->id, m->session, list, 1, w->now_ms, effects);
    return core_report(w->core, m->id, unit) != NULL;
}

static void has_nothing_of(struct world *w, const char *unit, struct effects *effects)
{
    const struct machine *m = machine_of(w, "a");
    Fleet__UnitReport report = FLEET__UNIT_REPORT__INIT, *list[] = {&report};

    report.name = (char *)unit;
    report.gone = true;
    core_session_report(w->core, m->id, m->session, list, 1, w->now_ms, effects);
}

static unsigned refusals_told(struct effects *effects)
{
    unsigned count = 0;

    for (size_t i = 0; i < effects->count; i++)
        count += effects->items[i].kind == EFFECT_LOG && effects->items[i].news == NEWS_REPORTS_REFUSED;
    effects_done(effects);
    *effects = (struct effects){0};
    return count;
}

static void test_units_that_do_not_exist_are_kept_up_to_a_limit(void **state)
{
    struct effects effects = {0};
    struct world w;

    three_machines(&w);
    for (unsigned i = 0; i < REPORTS_STRANGE_MAX; i++) {
        _cleanup_(freep) char *name = xasprintf("strange-%u.service", i);

        assert_true(is_kept(&w, name, "", &effects));
    }
    assert_int_equal(refusals_told(&effects), 0);
    for (unsigned i = 0; i < 10; i++) /* One line, however many there are. */
        assert_false(is_kept(&w, "one-too-many.service", "", &effects));
    assert_int_equal(refusals_told(&effects), 1);
    is_heard(&w, "a");
    advance(&w, REPORTS_LOG_MS);
    assert_false(is_kept(&w, "one-too-many.service", "", &effects));
    assert_int_equal(refusals_told(&effects), 1);
    /* What the cluster has is heard all the same, and what goes makes room. */
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    assert_true(is_kept(&w, "x.service", "", &effects));
    assert_int_equal(refusals_told(&effects), 0);
    has_nothing_of(&w, "strange-7.service", &effects);
    assert_true(is_kept(&w, "one-too-many.service", "", &effects));
    assert_false(is_kept(&w, "two-too-many.service", "", &effects));
    effects_done(&effects);
    /* Another session begins from nothing. */
    machine_calls(&w, "a");
    effects = (struct effects){0};
    assert_true(is_kept(&w, "two-too-many.service", "", &effects));
    effects_done(&effects);
    world_done(&w);
}

static void test_what_is_no_unit_is_not_kept(void **state)
{
    static const char *const names[] = {"", "x", "a b.service", "../x.service", "\xff\xfe.service"};
    char name[UNIT_NAME_MAX + 9], error[REPORT_ERROR_MAX + 100];
    struct effects effects = {0};
    struct world w;

    three_machines(&w);
    memset(name, 'x', sizeof name);
    strcpy(name + sizeof name - sizeof ".service", ".service");
    assert_false(is_kept(&w, name, "", &effects));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_false(is_kept(&w, names[i], "", &effects));
    assert_int_equal(refusals_told(&effects), 1);
    /* A text is cut; the same one again is nothing new. */
    memset(error, 'e', sizeof error);
    error[sizeof error - 1] = '\0';
    for (unsigned i = 0; i < 2; i++) {
        assert_true(is_kept(&w, "x.service", error, &effects));
        assert_int_equal(strlen(core_report(w.core, machine_of(&w, "a")->id, "x.service")->error),
                         REPORT_ERROR_MAX);
        assert_int_equal(effects.count > 0, i == 0);
        effects_done(&effects);
        effects = (struct effects){0};
    }
    world_done(&w);
}

static void test_who_cannot_be_taken_in_is_dropped(void **state)
{
    struct world w;

    three_machines(&w);
    world_forget(&w);
    machine_calls(&w, "f"); /* No member. */
    assert_int_equal(w.drops, 1);
    core_yield(w.core);
    machine_calls(&w, "a");
    assert_int_equal(w.drops, 2);
    world_done(&w);
}

static void test_a_short_break_moves_nothing(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", NULL, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    world_forget(&w);
    machine_hangs_up(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_SUSPECTED);
    advance(&w, TTL_MS - 1000);
    machine_calls(&w, "a");
    assert_int_equal(w.schedules, 0);
    assert_string_equal(placed_on(&w, "x.service"), "a");
    assert_true(is_told(&w, "a", "x.service"));
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

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

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

/* ---- a silent fleetd on a machine that is there ---- */

/* "x.service" runs on "a". */
static void running_on_a(struct world *w)
{
    three_machines(w);
    user_starts(w, "x.service");
    reports(w, "a", "x.service", "active");
    advance(w, TTL_MS);
    world_forget(w);
}

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

/* ---- units that keep failing ---- */

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

/* ---- cordon and drain ---- */

static void test_a_cordoned_machine_keeps_what_it_has(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
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

/* ---- decisions ---- */

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

/* ---- members come and go ---- */

static void test_registered_later(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "web.service", ON_WEB, LAUNCHED);
    user_submits(&w, "all.service", GLOBAL, LAUNCHED);
    assert_string_equal(outcome_of(&w, "web.service"), "unplaced");
    registers(&w, "d", "role=web");
    assert_int_equal(state_of(&w, "d"), MACHINE_EXPECTED);
    machine_calls(&w, "d");
    assert_string_equal(placed_on(&w, "web.service"), "d");
    assert_true(is_told(&w, "d", "web.service"));
    assert_true(is_told(&w, "d", "all.service"));
    world_done(&w);
}

static void test_a_dead_machine_is_removed(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    advance(&w, 2 * TTL_MS);
    assert_string_equal(outcome_of(&w, "x.service"), "unplaced");
    is_removed(&w, "a");
    assert_int_equal(state_of(&w, "a"), MACHINE_EXPECTED); /* Unknown. */
    user_submits(&w, "x.service", PLAIN, LAUNCHED);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_living_machine_is_removed(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    world_forget(&w);
    is_removed(&w, "a");
    assert_false(is_told(&w, "a", "x.service"));
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "b", "x.service")); /* a is no member, but runs it. */
    assert_int_equal(w.drops, 0);
    lets_go(&w, "a", "x.service");
    assert_int_equal(w.drops, 1); /* It has nothing any more: forgotten. */
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_removed_machine_falls_silent(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    falls_silent(&w, "a");
    is_removed(&w, "a");
    advance(&w, TTL_MS - 1);
    assert_false(is_told(&w, "b", "x.service"));
    advance(&w, 1);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_removed_just_before_the_leader_changed(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    w.hold = true;
    is_removed(&w, "a");
    leads(&w);
    w.hold = false;
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    advance(&w, TTL_MS - 1);
    assert_false(is_told(&w, "b", "x.service")); /* a cannot call any more, and may still run it. */
    advance(&w, 1);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* Its unit has been placed anew, but not been given to anybody yet. */
static void test_removed_and_moved_before_the_leader_changed(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    is_removed(&w, "a");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    leads(&w);
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    advance(&w, TTL_MS - 1);
    assert_false(is_told(&w, "b", "x.service"));
    advance(&w, 1);
    assert_true(is_told(&w, "b", "x.service"));
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

/* ---- status ---- */

static void test_status_of_a_start(void **state)
{
    struct world w;

    world_init(&w);
    registers(&w, "a", NULL);
    user_starts(&w, "x.service");
    leads(&w);
    assert_string_equal(outcome_of(&w, "x.service"), "unplaced"); /* Nobody is available yet. */
    machine_calls(&w, "a");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_string_equal(reason_of(&w, "x.service"), "host-a has just been told");
    reports(&w, "a", "x.service", "activating");
    assert_string_equal(reason_of(&w, "x.service"), "host-a is at it (activating/dead)");
    machine_hangs_up(&w, "a");
    user_submits(&w, "x.service", OTHER, LAUNCHED);
    assert_string_equal(reason_of(&w, "x.service"), "host-a does not answer at the moment");
    leads(&w);
    assert_string_equal(reason_of(&w, "x.service"), "host-a has not called the leader yet");
    machine_calls(&w, "a");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    reports(&w, "a", "x.service", "inactive");
    assert_string_equal(outcome_of(&w, "x.service"), "finished");
    fails(&w, "a", "x.service", "timeout");
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    assert_non_null(
        strstr(reason_of(&w, "x.service"), "\"timeout\" (see: journalctl -u x.service, on host-a)"));
    user_loads(&w, "x.service");
    reports(&w, "a", "x.service", "inactive");
    assert_string_equal(outcome_of(&w, "x.service"), "loaded");
    world_done(&w);
}

static void test_status_of_a_restart(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_forget(&w);
    user_restarts(&w, "x.service");
    assert_int_equal(w.shares, 1); /* Its host is told, and nobody else. */
    assert_int_equal(w.placements, 0);
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");

    /* A host that knows no restart says it is done. */
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_non_null(strstr(reason_of(&w, "x.service"), "host-a is too old to restart units"));
    fails(&w, "a", "x.service", "timeout");
    assert_string_equal(outcome_of(&w, "x.service"), "failed");

    item_of(machine_of(&w, "a"), "x.service")->asked = item_of(machine_of(&w, "a"), "x.service")->wanted;
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");

    /* A global one has been restarted when it has been everywhere. */
    user_submits(&w, "g.service", GLOBAL, LAUNCHED);
    for (const char *name = "abc"; *name != '\0'; name++)
        reports(&w, name, "g.service", "active");
    user_restarts(&w, "g.service");
    for (const char *name = "abc"; *name != '\0'; name++) {
        assert_string_equal(outcome_of(&w, "g.service"), "waiting");
        item_of(machine_of(&w, name), "g.service")->asked =
            item_of(machine_of(&w, name), "g.service")->wanted;
        reports(&w, name, "g.service", "active");
    }
    assert_string_equal(outcome_of(&w, "g.service"), "active");
    world_done(&w);
}

/* The process of the older content runs on: that is no success of the new one. */
static void test_refused_content_is_not_active(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    reports(&w, "a", "x.service", "active");
    user_submits(&w, "x.service", OTHER, LAUNCHED);
    refuses(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "failed");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(outcome_of(&w, "x.service"), "active");
    world_done(&w);
}

static void test_status_of_a_stop(void **state)
{
    struct world w;

    three_machines(&w);
    user_starts(&w, "x.service");
    user_destroys(&w, "x.service"); /* While it starts, nothing is reported yet. */
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    assert_string_equal(reason_of(&w, "x.service"), "host-a has not said yet whether it still has it");
    reports(&w, "a", "x.service", "deactivating");
    assert_string_equal(reason_of(&w, "x.service"), "being stopped on host-a (deactivating/dead)");
    lets_go(&w, "a", "x.service");
    assert_string_equal(outcome_of(&w, "x.service"), "gone");
    user_submits(&w, "y.service", PLAIN, INACTIVE);
    assert_string_equal(outcome_of(&w, "y.service"), "inactive");
    leads(&w);
    assert_string_equal(outcome_of(&w, "y.service"), "waiting"); /* Nobody has called yet. */
    advance(&w, TTL_MS);
    assert_string_equal(outcome_of(&w, "y.service"), "inactive");
    world_done(&w);
}

static void test_status_says_why_nothing_fits(void **state)
{
    struct world w;
    struct core_status *status;

    three_machines(&w);
    user_submits(&w, "x.service", ON_WEB, LAUNCHED);
    status = core_status_new(w.core, "x.service");
    assert_int_equal(status->outcome, OUTCOME_UNPLACED);
    assert_int_equal(status->machine_count, 3);
    assert_string_equal(status->machines[2].hostname, "host-c");
    assert_string_equal(status->machines[2].reason,
                        "MachineMetadata role=web not met (this machine has no role)");
    assert_string_equal(status->reason, "none of 3 machines will do (3 MachineMetadata)");
    core_status_free(status);
    user_submits(&w, "y.service", PLAIN "[X-Fleet]\nMachineOf=x.service\n", LAUNCHED);
    assert_string_equal(reason_of(&w, "y.service"), "MachineOf=x.service is on no machine itself");
    world_forget(&w);
    gets_metadata(&w, "c", "role", "web");
    assert_true(strlist_has(&w.settled, "x.service")); /* Who waits looks again. */
    assert_string_equal(outcome_of(&w, "x.service"), "waiting");
    world_done(&w);
}

static void count_row(const char *unit, const char *machine_id, const struct core_report *report, void *data)
{
    strbuf_addf(data, "%s@%.1s ", unit, machine_id);
}

static void test_reports_come_in_order(void **state)
{
    _cleanup_(strbuf_done) struct strbuf rows = {0};
    struct world w;

    world_init(&w);
    registers(&w, "c", NULL);
    registers(&w, "a", NULL);
    leads(&w);
    machine_calls(&w, "c");
    machine_calls(&w, "a");
    user_submits(&w, "z.service", GLOBAL, LAUNCHED);
    user_submits(&w, "b.service", GLOBAL, LAUNCHED);
    reports(&w, "c", "z.service", "active");
    reports(&w, "c", "b.service", "active");
    reports(&w, "a", "z.service", "active");
    core_reports_each(w.core, count_row, &rows);
    assert_string_equal(rows.text, "b.service@c z.service@a z.service@c ");
    world_done(&w);
}

/* The first fleet forgot the states of all machines when one of them had nothing more to say (§3.5). */
/* In the first fleet a host learned of it by its next look, up to 5 s later. */
static void test_a_destroy_is_told_at_once(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "g.service", GLOBAL, LAUNCHED);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "g.service", "active");
    reports(&w, "b", "g.service", "active");
    reports(&w, "a", "x.service", "active");
    assert_true(is_told(&w, "a", "x.service") && is_told(&w, "a", "g.service") &&
                is_told(&w, "b", "g.service"));
    user_destroys(&w, "x.service"); /* No time passes. */
    assert_false(is_told(&w, "a", "x.service"));
    user_destroys(&w, "g.service");
    assert_false(is_told(&w, "a", "g.service") || is_told(&w, "b", "g.service"));
    world_done(&w);
}

static void test_a_state_ends_for_one_machine_only(void **state)
{
    _cleanup_(strbuf_done) struct strbuf both = {0}, one = {0};
    struct world w;

    three_machines(&w);
    user_submits(&w, "g.service", GLOBAL, LAUNCHED);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    reports(&w, "a", "g.service", "active");
    reports(&w, "b", "g.service", "active");
    reports(&w, "a", "x.service", "active");
    core_reports_each(w.core, count_row, &both);
    assert_string_equal(both.text, "g.service@a g.service@b x.service@a ");
    user_destroys(&w, "g.service");
    lets_go(&w, "a", "g.service");
    core_reports_each(w.core, count_row, &one);
    assert_string_equal(one.text, "g.service@b x.service@a ");
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

/* ---- by chance ---- */

#define UNITS_ALL 8u

static void some_unit(struct world *w, char name[16])
{
    snprintf(name, 16, "u%llu.service", (unsigned long long)world_random(w, UNITS_ALL));
}

static const char *some_text(struct world *w)
{
    static const char *const texts[] = {PLAIN,
                                        OTHER,
                                        ON_WEB,
                                        ON_A,
                                        ON_B,
                                        ON_C,
                                        PLAIN STOP,
                                        STOP_3S,
                                        PLAIN "TimeoutStopSec=40\n" STOP,
                                        PLAIN "[X-Fleet]\nConflicts=u*\n",
                                        PLAIN "[X-Fleet]\nFailureLimitBurst=1\nFailureLimitIntervalSec=20s\n",
                                        OTHER "[X-Fleet]\nFailureLimitBurst=2\nFailureLimitIntervalSec=30s\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u0.service\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u1.service\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u2.service\nConflicts=u5.service\n",
                                        PLAIN "[X-Fleet]\nReplaces=u[0-3].service\n",
                                        PLAIN "[X-Fleet]\nGlobal=true\nConflicts=u[4-7].service\n",
                                        WEB_ALL,
                                        GLOBAL};

    return texts[world_random(w, ARRAY_SIZE(texts))];
}

static void something_of_a_user(struct world *w)
{
    char name[16];

    some_unit(w, name);
    switch (world_random(w, 7)) {
    case 5: cluster_sets(w, "failure_limit_burst", world_random(w, 2) == 0 ? "2" : NULL); break;
    case 0: user_submits(w, name, some_text(w), LAUNCHED); break;
    case 1: user_starts(w, name); break;
    case 2: user_stops(w, name); break;
    case 3: user_loads(w, name); break;
    case 4:
        if (registry_unit(w->registry, name) != NULL)
            user_destroys(w, name);
        break;
    default:
        gets_metadata(w, (const char[]){(char)('a' + world_random(w, MACHINES_ALL)), 0}, "role",
                      world_random(w, 2) == 0 ? "web" : "db");
    }
}

/* systemd does, by itself. */
static void restarts_something(struct world *w, const char *name)
{
    const struct machine *m = machine_of(w, name);
    const struct item *item = m->count > 0 ? &m->items[world_random(w, m->count)] : NULL;

    if (item == NULL || !streq(item->active, "active") || item->wanted == 0 ||
        item->wanted != item->carried_out)
        return;
    reports_sub(w, name, item->unit, "activating", "auto-restart");
    if (world_random(w, 2) == 0 && item_of(m, item->unit) != NULL)
        reports(w, name, item->unit, "active");
}

static void something_of_a_machine(struct world *w)
{
    char name[2] = {(char)('a' + world_random(w, MACHINES_ALL)), 0};
    struct machine *m = machine_of(w, name);
    const struct registry_machine *known = registry_machine(w->registry, m->id);
    bool member = known != NULL && known->registered;

    switch (world_random(w, 15)) {
    case 14:
        if (m->session != 0 && !m->off)
            is_shut_down(w, name, world_random(w, 3) > 0);
        break;
    case 10:
        if (member && m->session != 0) {
            is_stopped(w, name);
            m->beats = false;
            accepts_probes(w, name, false);
        }
        break;
    case 11: loses_power(w, name); break;
    case 12:
        falls_silent(w, name);
        if (!m->off)
            accepts_probes(w, name, world_random(w, 2) == 0);
        break;
    case 13:
        if (m->session != 0 && m->beats)
            restarts_something(w, name);
        break;
    case 8:
        if (member)
            is_set(w, name, (Fleet__Availability)(ACTIVE + world_random(w, 3)));
        break;
    case 9:
        if (member && world_random(w, 2) == 0)
            is_confirmed_lost(w, name);
        break;
    case 0:
        if (m->session != 0)
            machine_hangs_up(w, name);
        break;
    case 1: falls_silent(w, name); break;
    case 2:
        if (m->session != 0 && !m->off)
            is_heard(w, name);
        break;
    case 3:
        if (world_random(w, 4) == 0 && member)
            is_removed(w, name);
        break;
    case 4: registers(w, name, world_random(w, 2) == 0 ? "role=web" : NULL); break;
    default:
        if (member)
            machine_calls(w, name);
    }
}

static void something(struct world *w)
{
    switch (world_random(w, 20)) {
    case 0:
        if (world_random(w, 4) == 0)
            leads(w);
        break;
    case 1: w->refuse = (unsigned)world_random(w, 3); break;
    case 2:
        if (w->held == NULL)
            w->hold = true;
        break;
    case 3:
        if (w->held != NULL)
            held_is(w, world_random(w, 2) == 0);
        break;
    case 4:
        if (world_random(w, 4) == 0)
            stands_still(w, world_random(w, 3 * TTL_MS));
        break;
    case 5:
        if (world_random(w, 4) == 0)
            core_set_ttl(w->core, (1 + world_random(w, 3)) * TTL_MS, w->now_ms);
        break;
    case 6:
        if (world_random(w, 4) == 0)
            may_place(w, world_random(w, 2) == 0);
        break;
    default:
        if (world_random(w, 2) == 0)
            something_of_a_user(w);
        else
            something_of_a_machine(w);
    }
    advance(w, world_random(w, 8) == 0 ? world_random(w, 12000) : world_random(w, 800));
}

/* Faults end: everybody is there. */
static void calm_down(struct world *w)
{
    w->hold = false;
    w->refuse = 0;
    w->failing = 0;
    may_place(w, true);
    core_set_ttl(w->core, TTL_MS, w->now_ms);
    if (w->held != NULL)
        held_is(w, true);
    for (unsigned i = 0; i < MACHINES_ALL; i++) {
        char name[2] = {(char)('a' + i), 0};

        registers(w, name, i == 0 ? "role=web" : NULL);
        /* One may go on being drained: what fits elsewhere has left it in the end. */
        is_set(w, name, i == 2 && world_random(w, 2) == 0 ? DRAINING : ACTIVE);
        machine_of(w, name)->shuts_down = false;
        machine_calls(w, name);
    }
    advance(w, 6 * TTL_MS);
    for (unsigned i = 0; i < MACHINES_ALL; i++)
        is_mended(w, (const char[]){(char)('a' + i), 0});
}

static bool matches(const struct strlist *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], name))
            return true;
    return false;
}

/* Where everybody is placed in the end: peers together, those that conflict apart, by each one's own word. */
static void check_company(const struct world *w, const struct registry_unit *const *units, size_t count)
{
    for (size_t m = 0; m < MACHINES_ALL; m++)
        for (size_t i = 0; i < count; i++) {
            const struct requirements *r = units[i]->requirements;

            if (!core_machine_wants(w->core, w->machines[m].id, units[i]))
                continue;
            for (size_t j = 0; j < r->machine_of.count && !r->global; j++) {
                const struct registry_unit *peer = registry_unit(w->registry, r->machine_of.items[j]);

                if (peer == NULL || !core_machine_wants(w->core, w->machines[m].id, peer))
                    fail_msg("%s is on %.1s without %s", units[i]->name, w->machines[m].id,
                             r->machine_of.items[j]);
            }
            for (size_t j = 0; j < count; j++)
                if (j != i && core_machine_wants(w->core, w->machines[m].id, units[j]) &&
                    matches(&r->conflicts, units[j]->name))
                    fail_msg("%s is on %.1s beside %s", units[i]->name, w->machines[m].id, units[j]->name);
        }
}

static void check_settled(struct world *w)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(w->registry, &count);

    for (size_t i = 0; i < count; i++) {
        const char *outcome = outcome_of(w, units[i]->name);

        if (streq(outcome, "waiting") || streq(outcome, "failed"))
            fail_msg("%s: %s (%s)", units[i]->name, outcome, reason_of(w, units[i]->name));
        if (units[i]->handover || core_drain_move(w->core, units[i]->name) != NULL)
            fail_msg("%s has not left its old machine for good", units[i]->name);
    }
    assert_null(w->core->failing);
    check_company(w, units, count);
    for (size_t i = 0; i < MACHINES_ALL; i++)
        for (size_t j = 0; j < w->machines[i].count; j++) {
            const char *name = w->machines[i].items[j].unit;
            const struct registry_unit *unit = registry_unit(w->registry, name);

            if (unit == NULL || !core_machine_wants(w->core, w->machines[i].id, unit))
                fail_msg("%s is still on %.1s", name, w->machines[i].id);
        }
}

static char *run(uint64_t seed, unsigned steps)
{
    struct world w;
    char *text = NULL;
    size_t size;

    world_init(&w);
    w.chance = seed;
    w.slow = true;
    w.failing = (unsigned)world_random(&w, 5);
    w.transcript = open_memstream(&text, &size);
    registers(&w, "a", NULL);
    registers(&w, "b", NULL);
    registers(&w, "c", "role=web");
    leads(&w);
    cluster_sets(&w, "failure_limit_interval", "20s");
    for (unsigned i = 0; i < steps; i++)
        something(&w);
    calm_down(&w);
    for (unsigned i = 0; i < 360 && w.core->failing != NULL; i++) /* Until no failure counts any more. */
        advance(&w, TTL_MS);
    advance(&w, 6 * TTL_MS);
    check_settled(&w);
    world_forget(&w);
    advance(&w, 6 * TTL_MS);
    assert_int_equal(w.schedules + w.shares + w.drops + w.logs + w.settled.count, 0);
    fclose(w.transcript);
    world_done(&w);
    return text;
}

static void test_by_chance(void **state)
{
    const char *seed = getenv("FLEET_SEED"), *seeds = getenv("FLEET_SEEDS");
    uint64_t first = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    uint64_t last = seed != NULL ? first : seeds != NULL ? strtoull(seeds, NULL, 0) : 200;

    for (uint64_t i = first; i <= last; i++) {
        fprintf(stderr, "%sFLEET_SEED=%llu", i == first ? "" : "\r", (unsigned long long)i);
        free(run(i, 300));
    }
    fprintf(stderr, "\n");
}

static void test_a_seed_reproduces(void **state)
{
    _cleanup_(freep) char *one = run(4711, 300), *two = run(4711, 300);

    assert_true(strlen(one) > 1000);
    assert_string_equal(one, two);
}

/* ---- what it costs ---- */

struct costs {
    double start_s, report_s;
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void big_world(struct world *w, size_t machines, size_t units)
{
    char name[64];

    world_init(w);
    w->unchecked = true;
    for (size_t i = 0; i < machines; i++) {
        snprintf(name, sizeof name, "%032zx", i + 1);
        registers(w, name, NULL);
    }
    for (size_t i = 0; i < units; i++) {
        snprintf(name, sizeof name, "unit-%zu.service", i);
        user_starts(w, name);
    }
    leads(w);
    for (size_t i = 0; i < machines; i++) {
        snprintf(name, sizeof name, "%032zx", i + 1);
        stranger_calls(w, name, i + 1);
    }
}

static struct costs costs_of(size_t machines, size_t units)
{
    struct effects effects = {0};
    struct costs costs;
    struct world w;
    double begin;

    big_world(&w, machines, units);
    assert_int_equal(w.placements, units);
    for (size_t i = 0; i < units; i += units / 10) {
        char name[64];

        snprintf(name, sizeof name, "unit-%zu.service", i);
        assert_string_not_equal(registry_unit(w.registry, name)->target, "");
    }
    begin = seconds();
    for (int i = 0; i < 10; i++) {
        char name[64];

        snprintf(name, sizeof name, "late-%d.service", i);
        user_starts(&w, name);
        assert_string_not_equal(registry_unit(w.registry, name)->target, "");
    }
    costs.start_s = (seconds() - begin) / 10;
    begin = seconds();
    for (int i = 0; i < 100; i++) {
        Fleet__UnitReport report = FLEET__UNIT_REPORT__INIT, *list[] = {&report};

        report.name = (char *)"unit-0.service";
        report.active_state = (char *)(i % 2 == 0 ? "active" : "inactive");
        core_session_report(w.core, registry_unit(w.registry, "unit-0.service")->target, 1, list, 1, w.now_ms,
                            &effects);
        effects_done(&effects);
    }
    costs.report_s = (seconds() - begin) / 100;
    world_done(&w);
    return costs;
}

/* Ten times as much of everything may cost a start about ten times as much, and a report, which plans
 * nothing, as much as there are machines. Quadratic would be a hundred times. */
static void test_what_it_costs(void **state)
{
    struct costs small = costs_of(100, 1000), large = costs_of(1000, 10000);

    fprintf(stderr, "a start: %.2f ms and %.2f ms; a report: %.3f ms and %.3f ms\n", small.start_s * 1e3,
            large.start_s * 1e3, small.report_s * 1e3, large.report_s * 1e3);
    assert_true(large.start_s < 40 * small.start_s);
    assert_true(large.report_s < 40 * small.report_s + 1e-5);
}

/* What is reported of 'unit' where it is. */
static void says(struct world *w, const char *unit, const char *active, const char *sub)
{
    Fleet__UnitReport report = FLEET__UNIT_REPORT__INIT, *list[] = {&report};
    const struct registry_unit *known = registry_unit(w->registry, unit);
    struct effects effects = {0};

    report.name = (char *)unit;
    report.active_state = (char *)active;
    report.sub_state = (char *)sub;
    report.generation = known->generation;
    report.launched = true;
    core_session_report(w->core, known->target, strtoull(known->target, NULL, 16), list, 1, w->now_ms,
                        &effects);
    effects_done(&effects);
}

/* Seconds until all units of a cluster have failed once, and have been started again. */
static double costs_of_failures(size_t machines, size_t units, const char *burst)
{
    struct world w;
    double begin, passed;
    char name[64];

    big_world(&w, machines, units);
    cluster_sets(&w, "failure_limit_burst", burst);
    begin = seconds();
    for (size_t i = 0; i < units; i++) {
        snprintf(name, sizeof name, "unit-%zu.service", i);
        says(&w, name, "activating", "auto-restart");
        says(&w, name, "active", "running");
    }
    user_starts(&w, "late.service");
    passed = seconds() - begin;
    assert_string_not_equal(registry_unit(w.registry, "late.service")->target, "");
    world_done(&w);
    return passed;
}

/* Failures are counted at the cost of reports. */
static void test_what_failures_cost(void **state)
{
    double without = costs_of_failures(200, 10000, "0"), with = costs_of_failures(200, 10000, "5");

    fprintf(stderr, "20000 reports: %.0f ms; with failures counted: %.0f ms\n", without * 1e3, with * 1e3);
    assert_true(with < 4 * without);
}

static void test_a_large_plan_is_carried_out_in_pieces(void **state)
{
    struct world w;

    big_world(&w, 20, 10000); /* apply() asserts that each piece is a command. */
    assert_int_equal(w.placements, 10000);
    assert_true(w.schedules > 1);
    world_done(&w);
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_leader_that_must_not_place),
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
        cmocka_unit_test(test_a_session_is_replaced),
        cmocka_unit_test(test_a_stale_session_is_not_listened_to),
        cmocka_unit_test(test_units_that_do_not_exist_are_kept_up_to_a_limit),
        cmocka_unit_test(test_what_is_no_unit_is_not_kept),
        cmocka_unit_test(test_who_cannot_be_taken_in_is_dropped),
        cmocka_unit_test(test_a_short_break_moves_nothing),
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
        cmocka_unit_test(test_a_refused_decision_is_made_again),
        cmocka_unit_test(test_a_decision_is_said_once),
        cmocka_unit_test(test_one_decision_at_a_time),
        cmocka_unit_test(test_a_decision_of_an_older_term),
        cmocka_unit_test(test_a_leader_that_yields_says_nothing),
        cmocka_unit_test(test_registered_later),
        cmocka_unit_test(test_a_dead_machine_is_removed),
        cmocka_unit_test(test_a_living_machine_is_removed),
        cmocka_unit_test(test_a_removed_machine_falls_silent),
        cmocka_unit_test(test_removed_just_before_the_leader_changed),
        cmocka_unit_test(test_removed_and_moved_before_the_leader_changed),
        cmocka_unit_test(test_global_units_follow_metadata),
        cmocka_unit_test(test_placed_units_follow_metadata),
        cmocka_unit_test(test_global_status_counts),
        cmocka_unit_test(test_status_of_a_start),
        cmocka_unit_test(test_refused_content_is_not_active),
        cmocka_unit_test(test_status_of_a_restart),
        cmocka_unit_test(test_status_of_a_stop),
        cmocka_unit_test(test_status_says_why_nothing_fits),
        cmocka_unit_test(test_reports_come_in_order),
        cmocka_unit_test(test_a_destroy_is_told_at_once),
        cmocka_unit_test(test_a_state_ends_for_one_machine_only),
        cmocka_unit_test(test_order_of_arrival_does_not_matter),
        cmocka_unit_test(test_by_chance),
        cmocka_unit_test(test_a_seed_reproduces),
        cmocka_unit_test(test_a_large_plan_is_carried_out_in_pieces),
        cmocka_unit_test(test_what_it_costs),
        cmocka_unit_test(test_what_failures_cost),
    };

    if (getenv("FLEET_SEED") != NULL) /* Somebody looks into that one. */
        cmocka_set_test_filter("test_by_chance");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
