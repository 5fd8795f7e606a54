/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's work costs in a large cluster. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "fleetd/core/core_private.h"
#include "tests/unit/core-world.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_large_plan_is_carried_out_in_pieces),
        cmocka_unit_test(test_what_it_costs),
        cmocka_unit_test(test_what_failures_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
