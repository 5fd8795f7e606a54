/* SPDX-License-Identifier: Apache-2.0 */
/* The core and who calls it: sessions, hosts that say whatever they like, members that come and go. */
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
#include "units/name.h"

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

    active_on_a(&w);
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

/* Its session breaks, or another host leads, while it is still stopping: it begins one anew, and is waited
 * for. */
static void test_a_removed_machine_calls_again(void **state)
{
    struct world w;
    const struct machine *a = &w.machines[0];

    active_on_a(&w);
    assert_false(core_machine_leaves(w.core, a->id));
    is_removed(&w, "a");
    for (unsigned i = 0; i < 2; i++) {
        if (i == 1) {
            leads(&w);
            machine_calls(&w, "b");
            machine_calls(&w, "c");
        }
        assert_true(core_machine_leaves(w.core, a->id));
        machine_calls(&w, "a");
        assert_int_equal(core_lease_grant(w.core, a->id, a->session, w.now_ms), 0);
        advance(&w, 3 * TTL_MS);
        assert_int_equal(w.drops, 0);
        assert_false(is_told(&w, "a", "x.service"));
        assert_string_equal(placed_on(&w, "x.service"), "b");
        assert_false(is_told(&w, "b", "x.service"));
        assert_non_null(strstr(reason_of(&w, "x.service"), ", which was removed, is still stopping it"));
    }
    lets_go(&w, "a", "x.service");
    assert_int_equal(w.drops, 1);
    assert_false(core_machine_leaves(w.core, a->id));
    assert_true(is_told(&w, "b", "x.service"));
    machine_calls(&w, "a"); /* It is nobody any more. */
    assert_int_equal(w.drops, 2);
    world_done(&w);
}

/* What it says of other units is nothing: neither in a report, nor when it calls again. */
static void test_a_removed_machine_holds_up_nothing_else(void **state)
{
    struct world w;
    struct machine *a = &w.machines[0];
    Fleet__UnitReport claims[] = {FLEET__UNIT_REPORT__INIT, FLEET__UNIT_REPORT__INIT},
                      *all[] = {claims, claims + 1};
    struct effects effects = {0};

    active_on_a(&w);
    is_removed(&w, "a");
    claims[0].name = (char *)"y.service";
    claims[1].name = (char *)"x.service";
    claims[0].active_state = claims[1].active_state = (char *)"deactivating";

    core_session_report(w.core, a->id, a->session, all, 1, w.now_ms, &effects);
    effects_done(&effects);
    user_submits(&w, "y.service", ON_C, LAUNCHED);
    assert_true(is_told(&w, "c", "y.service"));
    user_destroys(&w, "y.service");
    lets_go(&w, "c", "y.service");

    core_session_open(w.core, a->id, ++a->session, all, 2, false, w.now_ms, &effects);
    effects_done(&effects);
    assert_null(core_report(w.core, a->id, "y.service"));
    assert_non_null(core_report(w.core, a->id, "x.service"));
    user_submits(&w, "y.service", ON_C, LAUNCHED);
    assert_true(is_told(&w, "c", "y.service"));
    assert_false(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* What it still stops was destroyed, and is made anew when another host leads. */
static void test_a_removed_machine_stops_what_was_destroyed(void **state)
{
    struct world w;

    three_machines(&w);
    user_submits(&w, "x.service", ON_A, LAUNCHED);
    user_starts(&w, "v.service");
    reports(&w, "a", "x.service", "active");
    assert_string_equal(placed_on(&w, "v.service"), "b");
    user_submits(&w, "u.service", ON_A, LAUNCHED);
    reports(&w, "a", "u.service", "active");
    user_destroys(&w, "x.service");
    is_removed(&w, "a");
    leads(&w);
    machine_calls(&w, "a");
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    user_submits(&w, "x.service", ON_B, LAUNCHED);
    assert_string_equal(placed_on(&w, "x.service"), "b");
    assert_false(is_told(&w, "b", "x.service"));
    lets_go(&w, "a", "x.service");
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

static void test_a_removed_machine_falls_silent(void **state)
{
    struct world w;

    active_on_a(&w);
    falls_silent(&w, "a");
    is_removed(&w, "a");
    advance(&w, TTL_MS - 1);
    assert_false(is_told(&w, "b", "x.service"));
    advance(&w, 1);
    assert_true(is_told(&w, "b", "x.service"));
    assert_false(core_machine_leaves(w.core, w.machines[0].id)); /* It is not waited for any more. */
    world_done(&w);
}

static void test_removed_just_before_the_leader_changed(void **state)
{
    struct world w;

    active_on_a(&w);
    w.hold = true;
    is_removed(&w, "a");
    leads(&w);
    w.hold = false;
    machine_calls(&w, "b");
    machine_calls(&w, "c");
    assert_string_equal(placed_on(&w, "x.service"), "b");
    advance(&w, TTL_MS - 1);
    assert_false(is_told(&w, "b", "x.service")); /* a has not called yet, and may still run it. */
    advance(&w, 1);
    assert_true(is_told(&w, "b", "x.service"));
    world_done(&w);
}

/* Its unit has been placed anew, but not been given to anybody yet. */
static void test_removed_and_moved_before_the_leader_changed(void **state)
{
    struct world w;

    active_on_a(&w);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_session_is_replaced),
        cmocka_unit_test(test_a_stale_session_is_not_listened_to),
        cmocka_unit_test(test_units_that_do_not_exist_are_kept_up_to_a_limit),
        cmocka_unit_test(test_what_is_no_unit_is_not_kept),
        cmocka_unit_test(test_who_cannot_be_taken_in_is_dropped),
        cmocka_unit_test(test_a_short_break_moves_nothing),
        cmocka_unit_test(test_registered_later),
        cmocka_unit_test(test_a_dead_machine_is_removed),
        cmocka_unit_test(test_a_living_machine_is_removed),
        cmocka_unit_test(test_a_removed_machine_calls_again),
        cmocka_unit_test(test_a_removed_machine_holds_up_nothing_else),
        cmocka_unit_test(test_a_removed_machine_stops_what_was_destroyed),
        cmocka_unit_test(test_a_removed_machine_falls_silent),
        cmocka_unit_test(test_removed_just_before_the_leader_changed),
        cmocka_unit_test(test_removed_and_moved_before_the_leader_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
