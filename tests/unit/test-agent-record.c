/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's state file: what was noted is found again, whatever happened to the file. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/agent_record.h"

#define HASH "86943ac9f3754cb90f8dd38bf6da7b0cad074592"
#define RUN  "0123456789abcdef0123456789abcdef"

struct seen {
    char name[64];
    struct agent_record record;
    unsigned count, forgotten;
};

static void on_record(const char *name, const struct agent_record *record, void *data)
{
    struct seen *seen = data;

    seen->count++;
    if (record == NULL) {
        seen->forgotten++;
        return;
    }
    snprintf(seen->name, sizeof seen->name, "%s", name);
    seen->record = *record;
}

static struct seen read_file(const char *path)
{
    struct agent_records records;
    struct seen seen = {0};

    agent_records_open(&records, path, on_record, &seen);
    agent_records_done(&records);
    return seen;
}

static void write_file(const char *path, const char *text)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
}

static void test_records(void **state)
{
    const char *path = "test-agent-record.tmp";
    const struct agent_record record = {.hash = HASH,
                                        .generation = 7,
                                        .asked = 6,
                                        .launched = true,
                                        .result = "done",
                                        .restarting = 9,
                                        .invocation = RUN};
    struct agent_records records;
    struct seen seen = {0};

    unlink(path);
    agent_records_open(&records, path, on_record, &seen);
    agent_records_begin(&records);
    agent_records_note(&records, "a.service", &record);
    agent_records_end(&records);
    agent_records_note(&records, "b.service", NULL);
    agent_records_flush(&records);
    agent_records_done(&records);
    assert_int_equal(seen.count, 0);

    seen = read_file(path);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.forgotten, 1);
    assert_string_equal(seen.name, "a.service");
    assert_string_equal(seen.record.hash, record.hash);
    assert_int_equal(seen.record.generation, record.generation);
    assert_int_equal(seen.record.asked, record.asked);
    assert_true(seen.record.launched);
    assert_false(seen.record.restart);
    assert_string_equal(seen.record.result, record.result);
    assert_int_equal(seen.record.restarting, record.restarting);
    assert_string_equal(seen.record.invocation, record.invocation);
    unlink(path);
}

/* Before restarts were known, a line ended earlier. */
static void test_older_lines(void **state)
{
    const char *path = "test-agent-record.tmp";
    struct seen seen;

    write_file(path, "fleet-agent 1\na.service " HASH " 7 6 1 0 done\n");
    seen = read_file(path);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.record.asked, 6);
    assert_int_equal(seen.record.restarting, 0);
    assert_string_equal(seen.record.invocation, "");
    assert_string_equal(seen.record.result, "done");
    unlink(path);
}

static void test_damaged_lines(void **state)
{
    static const char *const lines[] = {"a.service", "a.service " HASH " 7 6 1 0",
                                        "a.service " HASH " 7 6 1 0 done 9",
                                        "a.service " HASH " 7 6 1 0 done 9 " RUN " more"};
    const char *path = "test-agent-record.tmp";

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        _cleanup_(freep) char *text = xasprintf("fleet-agent 1\n%s\n", lines[i]);

        write_file(path, text);
        assert_int_equal(read_file(path).count, 0);
    }
    write_file(path, "fleet-agent 1\na.service " HASH " 7 6 1 0 done 9 " RUN); /* Cut short. */
    assert_int_equal(read_file(path).count, 0);
    unlink(path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_older_lines),
        cmocka_unit_test(test_damaged_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
