/* SPDX-License-Identifier: Apache-2.0 */
/* The aligner, to the byte (fleet-behaviour.md §1.8). */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetctl/output.h"

static void check(size_t columns, const char *const *cells, const char *expected)
{
    struct table t = {.column_count = columns};
    _cleanup_(freep) char *text = NULL;

    for (; *cells != NULL; cells++)
        table_add(&t, *cells);
    text = table_render(&t);
    table_done(&t);
    assert_string_equal(text, expected);
}

#define CELLS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_no_rows(void **state)
{
    struct table t = {.column_count = 3};
    _cleanup_(freep) char *text = table_render(&t);

    assert_string_equal(text, "");
    table_done(&t);
}

static void test_one_column_has_no_tabs(void **state)
{
    check(1, CELLS("UNIT", "a.service", "b"), "UNIT\na.service\nb\n");
}

/* A column is at least a character wider than its longest cell: 7 fit in one tab, 8 need two. */
static void test_width_is_rounded_up(void **state)
{
    check(2, CELLS("1234567", "x"), "1234567\tx\n");
    check(2, CELLS("12345678", "x"), "12345678\tx\n");
    check(2, CELLS("1234567", "x", "12345678", "y", "", "z"), "1234567\t\tx\n12345678\ty\n\t\tz\n");
    check(2, CELLS("123456789012345", "x", "1", "y"), "123456789012345\tx\n1\t\ty\n");
    check(2, CELLS("1234567890123456", "x", "1", "y"), "1234567890123456\tx\n1\t\t\ty\n");
}

static void test_the_last_column_is_not_filled(void **state)
{
    check(3, CELLS("a", "b", "a much longer cell", "c", "d", "e"), "a\tb\ta much longer cell\nc\td\te\n");
}

static void test_characters_count_not_bytes(void **state)
{
    check(2, CELLS("\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xc3\xa4\xc3\xb6\xc3\xbc", "x", "1", "y"),
          "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xc3\xa4\xc3\xb6\xc3\xbc\tx\n1\ty\n");
}

static void test_controls_become_blanks(void **state)
{
    check(2, CELLS("a\nb\tc", "\x1b[31m\x7f"), "a b c\t [31m \n");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_one_column_has_no_tabs),
        cmocka_unit_test(test_width_is_rounded_up),
        cmocka_unit_test(test_the_last_column_is_not_filled),
        cmocka_unit_test(test_characters_count_not_bytes),
        cmocka_unit_test(test_controls_become_blanks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
