/* SPDX-License-Identifier: Apache-2.0 */
/* What the core says of units: their status, why, and reports of machines. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

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

    active_on_a(&w);
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

    active_on_a(&w);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_of_a_start),
        cmocka_unit_test(test_refused_content_is_not_active),
        cmocka_unit_test(test_status_of_a_restart),
        cmocka_unit_test(test_status_of_a_stop),
        cmocka_unit_test(test_status_says_why_nothing_fits),
        cmocka_unit_test(test_reports_come_in_order),
        cmocka_unit_test(test_a_destroy_is_told_at_once),
        cmocka_unit_test(test_a_state_ends_for_one_machine_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
