/* SPDX-License-Identifier: Apache-2.0 */
/* What a monitoring system reads, read as strictly as the format allows. */
#include <config.h>

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/metrics.h"

static const unsigned limits[STORE_LATENCY_BUCKETS] = {
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
};

/* ---- a reader of the text format 0.0.4 ---- */

struct reader {
    struct strlist families, series; /* Each once. */
    char name[128], type[16];        /* Of the family that is being read. */
    bool helped;
    double last_bucket, last_le; /* Of the histogram that is being read. */
};

static size_t name_size(const char *s)
{
    size_t size = 0;

    while (isalpha((unsigned char)s[size]) || s[size] == '_' || (size > 0 && isdigit((unsigned char)s[size])))
        size++;
    return size;
}

static void read_comment(struct reader *reader, const char *line)
{
    char kind[8], name[128], rest[256];

    assert_int_equal(sscanf(line, "# %7s %127s %255[^\n]", kind, name, rest), 3);
    assert_int_equal(name_size(name), strlen(name));
    if (streq(kind, "HELP")) {
        assert_false(strlist_has(&reader->families, name)); /* All of a family stands together. */
        strlist_add(&reader->families, name);
        strcpy(reader->name, name);
        reader->helped = true;
        reader->last_bucket = 0;
        reader->last_le = -1;
        assert_null(strchr(rest, '\\'));
        return;
    }
    assert_string_equal(kind, "TYPE");
    assert_true(reader->helped);
    reader->helped = false; /* Once, and before its samples. */
    assert_string_equal(name, reader->name);
    assert_true(streq(rest, "counter") || streq(rest, "gauge") || streq(rest, "histogram"));
    assert_true(!streq(rest, "counter") || str_has_suffix(name, "_total"));
    strcpy(reader->type, rest);
}

/* "{name="value",...}"; returns what follows. */
static const char *read_labels(const char *at)
{
    while (*at++ != '}') {
        size_t size = name_size(at);

        assert_true(size > 0 && at[size] == '=' && at[size + 1] == '"');
        at += size + 2;
        at += strcspn(at, "\"\\\n");
        assert_true(*at == '"' && (at[1] == ',' || at[1] == '}'));
        at++;
    }
    return at;
}

static void read_bucket(struct reader *reader, const char *series, double value)
{
    const char *le = strstr(series, "le=\"");
    double limit = strtod(le + 4, NULL);

    assert_true(limit > reader->last_le && value >= reader->last_bucket);
    reader->last_le = limit;
    reader->last_bucket = value;
}

static void read_sample(struct reader *reader, const char *line)
{
    size_t size = name_size(line);
    _cleanup_(freep) char *name = xstrndup(line, size), *series = NULL;
    const char *at = line[size] == '{' ? read_labels(line + size) : line + size;
    char *end;
    double value;

    series = xstrndup(line, (size_t)(at - line));
    assert_false(strlist_has(&reader->series, series));
    strlist_add(&reader->series, series);
    assert_int_equal(*at, ' ');
    value = strtod(at + 1, &end);
    assert_true(end > at + 1 && *end == '\0' && value >= 0);
    assert_false(reader->helped);
    if (!streq(reader->type, "histogram")) {
        assert_string_equal(name, reader->name);
        return;
    }
    assert_true(str_has_prefix(name, reader->name));
    if (str_has_suffix(name, "_bucket"))
        read_bucket(reader, series, value);
    else if (str_has_suffix(name, "_count"))
        assert_true(value == reader->last_bucket && reader->last_le > 1e300); /* As the bucket "+Inf". */
    else
        assert_true(str_has_suffix(name, "_sum"));
}

static void read_all(const char *text)
{
    _cleanup_(freep) char *copy = xstrdup(text);
    struct reader reader = {0};
    char *at = copy, *line;

    assert_true(str_has_suffix(text, "\n"));
    copy[strlen(copy) - 1] = '\0';
    while ((line = strsep(&at, "\n")) != NULL)
        if (line[0] == '#')
            read_comment(&reader, line);
        else
            read_sample(&reader, line);
    assert_true(reader.families.count > 10);
    strlist_done(&reader.families);
    strlist_done(&reader.series);
}

static void assert_line(const char *text, const char *line)
{
    _cleanup_(freep) char *whole = xasprintf("\n%s\n", line);

    if (strstr(text, whole) == NULL)
        fail_msg("no line \"%s\" in\n%s", line, text);
}

/* ---- tests ---- */

static void test_nothing_known(void **state)
{
    _cleanup_(freep) char *text = metrics_print(&(struct metrics){.version = "1.2.3"});

    read_all(text);
    assert_line(text, "fleet_build_info{version=\"1.2.3\"} 1");
    assert_line(text, "fleet_member 0");
    assert_line(text, "fleet_engine_leader_start_time 0.000");
    assert_null(strstr(text, "fleet_raft_commit")); /* There is no store. */
    assert_null(strstr(text, "fleet_machines{"));   /* Only the leader knows. */
}

static void test_all(void **state)
{
    static const struct metrics_code codes[] = {{200, 7}, {503, 18446744073709551615u}};
    struct metrics metrics = {
        .version = "1.2.3",
        .member = true,
        .leads = true,
        .term = 9,
        .applied = 1234567890123,
        .machines = {[METRICS_LOST] = 1, [METRICS_READY] = 2},
        .units = {[UNIT_STATE_LAUNCHED] = 5},
        .units_unplaced = 4,
        .machines_draining = 1,
        .local = {[METRICS_FAILED] = 1},
        .codes = codes,
        .code_count = 2,
        .engine.leader_since_ms = 1700000000500,
        .store = {.latency_limits_us = limits,
                  .outcomes = {[STORE_APPLIED] = 6},
                  .latency = {[0] = 1, [3] = 2, [STORE_LATENCY_BUCKETS] = 3},
                  .latency_sum_us = 20000001},
        .process.cpu_s = 1.5,
    };
    _cleanup_(freep) char *text = NULL;

    metrics_count_placement(&metrics.engine, false, true, false); /* A new one is placed, */
    metrics_count_placement(&metrics.engine, true, true, true);   /* one leaves a lost machine, */
    metrics_count_placement(&metrics.engine, true, false, false); /* and one fits nowhere any more. */
    metrics.engine.decisions = 2;
    metrics_count_failed(&metrics.engine, 2, 1);
    text = metrics_print(&metrics);
    read_all(text);
    assert_line(text, "fleet_engine_leader_start_time 1700000000.500");
    assert_line(text, "fleet_engine_reconcile_count_total 2");
    assert_line(text, "fleet_engine_task_count_total{type=\"unscheduleunit\"} 2");
    assert_line(text, "fleet_engine_task_count_total{type=\"attemptscheduleunit\"} 2");
    assert_line(text, "fleet_engine_task_failure_count_total{type=\"unscheduleunit\"} 2");
    assert_line(text, "fleet_engine_task_failure_count_total{type=\"attemptscheduleunit\"} 1");
    assert_line(text, "fleet_engine_reconcile_failure_count_total{type=\"machine_away\"} 1");
    assert_line(text, "fleet_engine_reconcile_failure_count_total{type=\"run\"} 1");
    assert_line(text, "fleet_engine_reconcile_failure_count_total{type=\"schedule\"} 1");
    assert_line(text, "fleet_registry_version 1234567890123");
    assert_line(text, "fleet_machines{state=\"lost\"} 1");
    assert_line(text, "fleet_units{desired=\"launched\"} 5");
    assert_line(text, "fleet_units_unplaced 4");
    assert_line(text, "fleet_machines_cordoned 0");
    assert_line(text, "fleet_machines_draining 1");
    assert_line(text, "fleet_local_units{active=\"failed\"} 1");
    assert_line(text, "fleet_api_requests_total{code=\"503\"} 18446744073709551615");
    assert_line(text, "fleet_raft_commit_duration_seconds_bucket{le=\"0.0025\"} 1");
    assert_line(text, "fleet_raft_commit_duration_seconds_bucket{le=\"0.01\"} 3");
    assert_line(text, "fleet_raft_commit_duration_seconds_bucket{le=\"+Inf\"} 6");
    assert_line(text, "fleet_raft_commit_duration_seconds_sum 20.000001");
    assert_line(text, "fleet_raft_commit_duration_seconds_count 6");
}

static void test_active_words(void **state)
{
    assert_int_equal(metrics_active_from_string("active"), METRICS_ACTIVE);
    assert_int_equal(metrics_active_from_string("deactivating"), METRICS_DEACTIVATING);
    assert_int_equal(metrics_active_from_string("other"), METRICS_OTHER);
    assert_int_equal(metrics_active_from_string("maintenance"), METRICS_OTHER);
    assert_int_equal(metrics_active_from_string(""), METRICS_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_active_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
