/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the cluster's settings, and how their values are read and written. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/config.h"
#include "raftstore/limits.h"
#include "raftstore/settings.h"

#define BURST    SETTING_FAILURE_LIMIT_BURST
#define INTERVAL SETTING_FAILURE_LIMIT_INTERVAL
#define VOTERS   SETTING_VOTERS
#define SPREAD   SETTING_VOTERS_SPREAD_BY

/* A value of the smallest or largest size; the caller owns it. */
static char *extreme(enum setting_id id, uint64_t value)
{
    struct strbuf text = {0};

    if (settings_row(id)->type != SETTING_TEXT)
        return settings_format(id, value);
    while (text.size < value)
        strbuf_add(&text, "x");
    return strbuf_take(&text);
}

/* What holds of every row, also of those to come. */
static void test_rows(void **state)
{
    for (enum setting_id id = 0; id < SETTING_COUNT; id++) {
        const struct setting *row = settings_row(id);
        _cleanup_(freep) char *text = settings_fallback(id), *min = extreme(id, row->min),
                              *max = extreme(id, row->max), *limits = settings_limits(id), *form = NULL;
        enum setting_id found;
        uint64_t value;

        assert_true(settings_find(row->name, &found));
        assert_int_equal(found, id);
        assert_in_range(strlen(row->name), 1, SETTING_NAME_MAX);
        assert_true(id == 0 || strcmp(settings_row(id - 1)->name, row->name) < 0);
        assert_true(row->meaning[0] != '\0' && limits[0] != '\0');
        assert_int_equal(settings_parse(id, text, &value, NULL), 0);
        assert_int_equal(value, row->fallback);
        assert_int_equal(settings_parse(id, min, &value, NULL), 0);
        assert_int_equal(value, row->min);
        assert_int_equal(settings_parse(id, max, &value, NULL), 0);
        assert_int_equal(value, row->max);
        assert_int_equal(settings_normalise(id, max, &form, NULL), 0);
        assert_string_equal(form, max);
    }
}

static void test_names(void **state)
{
    enum setting_id id = SETTING_COUNT;

    assert_false(settings_find("", &id));
    assert_false(settings_find("Voters", &id));
    assert_false(settings_find("voter", &id));
    assert_false(settings_find("voters2", &id));
    assert_int_equal(id, SETTING_COUNT);
}

static void test_refused(void **state)
{
    static const struct {
        enum setting_id id;
        const char *text, *why;
    } cases[] = {
        {BURST, "", "\"\" is not a whole number"},
        {BURST, "-1", "\"-1\" is not a whole number"},
        {BURST, "+1", "\"+1\" is not a whole number"},
        {BURST, " 1", "\" 1\" is not a whole number"},
        {BURST, "1x", "\"1x\" is not a whole number"},
        {BURST, "off", "\"off\" is not a whole number"},
        {BURST, "33", "33 is not within 0 to 32"},
        {BURST, "18446744073709551616", "18446744073709551616 is not within 0 to 32"},
        {BURST, "18446744073709551617000000000000000001",
         "18446744073709551617000000000000000001 is not within 0 to 32"},
        {VOTERS, "0", "0 is none of 1, 3, 5 or 7"},
        {VOTERS, "4", "4 is none of 1, 3, 5 or 7"},
        {VOTERS, "9", "9 is none of 1, 3, 5 or 7"},
        {SPREAD, "a zone", "it has blanks, or characters that nobody could see"},
        {SPREAD, "zone\n", "it has blanks, or characters that nobody could see"},
        {INTERVAL, "", "duration is empty"},
        {INTERVAL, "soon", "\"soon\" is not a duration (write for example 10s, 1min 30s, 500ms)"},
        {INTERVAL, "0", "0 is not within 1ms to 1d"},
        {INTERVAL, "25h", "25h is not within 1ms to 1d"},
        {INTERVAL, "999999h", "\"999999h\" is longer than a hundred years"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t value = 77;
        struct err err = {0};

        assert_int_equal(settings_parse(cases[i].id, cases[i].text, &value, &err), -EINVAL);
        assert_string_equal(err.text, cases[i].why);
        assert_int_equal(value, 77); /* Untouched. */
    }
}

/* However it is given, it is written in one form. */
static void test_forms(void **state)
{
    static const struct {
        enum setting_id id;
        const char *text;
        uint64_t value;
        const char *form;
    } cases[] = {
        {BURST, "0", 0, "0"},
        {BURST, "032", 32, "32"},
        {VOTERS, "7", 7, "7"},
        {INTERVAL, "600", 600000, "10min"},
        {INTERVAL, "90s", 90000, "1min 30s"},
        {INTERVAL, "1.5h", 5400000, "1h 30min"},
        {INTERVAL, "24h", 86400000, "1d"},
        {INTERVAL, "1ms", 1, "1ms"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *form = NULL;
        uint64_t value;

        assert_int_equal(settings_parse(cases[i].id, cases[i].text, &value, NULL), 0);
        assert_int_equal(value, cases[i].value);
        form = settings_format(cases[i].id, value);
        assert_string_equal(form, cases[i].form);
    }
}

/* A host that begins a cluster without a word of voters, and a setting that is reset, come to the same. */
static void test_the_default_of_the_file(void **state)
{
    struct config config = {0};

    config_init(&config);
    assert_int_equal(config.voters, settings_row(SETTING_VOTERS)->fallback);
    config_done(&config);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_the_default_of_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
