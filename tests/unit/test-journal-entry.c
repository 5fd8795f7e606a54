/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a journal as JSON: what a service writes may be anything. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/journal_entry.h"

#define FIELD(text) text, sizeof(text) - 1

static char *print(const struct journal_entry *entry)
{
    return json_dumps(entry->json, JSON_COMPACT | JSON_SORT_KEYS);
}

static const struct {
    const char *field;
    size_t size;
    const char *json;
} cases[] = {
    {FIELD("MESSAGE=hello"), "{\"MESSAGE\":\"hello\"}"},
    {FIELD("MESSAGE="), "{\"MESSAGE\":\"\"}"},
    {FIELD("MESSAGE=a=b\tc\nd\"\\"), "{\"MESSAGE\":\"a=b\\tc\\nd\\\"\\\\\"}"},
    {FIELD("MESSAGE=gr\xc3\xbc\xc3\x9f"), "{\"MESSAGE\":\"gr\xc3\xbc\xc3\x9f\"}"},
    {FIELD("MESSAGE=\x1b[31m"), "{\"MESSAGE\":[27,91,51,49,109]}"},
    {FIELD("MESSAGE=\xc2\x9b"), "{\"MESSAGE\":[194,155]}"}, /* CSI in one character. */
    {FIELD("MESSAGE=a\0b"), "{\"MESSAGE\":[97,0,98]}"},
    {FIELD("MESSAGE=\xff"), "{\"MESSAGE\":[255]}"},
    {FIELD("MESSAGE=\xed\xa0\x80"), "{\"MESSAGE\":[237,160,128]}"}, /* A surrogate. */
    {FIELD("MESSAGE=\x7f"), "{\"MESSAGE\":[127]}"},
    {FIELD("_PID=1"), "{\"_PID\":\"1\"}"},
    /* No fields. */
    {FIELD(""), "{}"},
    {FIELD("MESSAGE"), "{}"},
    {FIELD("=x"), "{}"},
    {FIELD("message=x"), "{}"},
    {FIELD("A\0B=x"), "{}"},
    {FIELD("A B=x"), "{}"},
    {FIELD("\xff\xfe=x"), "{}"},
    {FIELD("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=x"), "{}"},
};

static void test_fields(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        /* On the heap, without a NUL behind it: reading on would be noticed. */
        _cleanup_(freep) char *field = xmemdup(cases[i].field, cases[i].size), *text = NULL;
        struct journal_entry entry;

        journal_entry_init(&entry, 10000);
        journal_entry_add(&entry, field, cases[i].size);
        text = print(&entry);
        assert_string_equal(text, cases[i].json);
        assert_true(entry.size >= strlen(text));
        json_decref(entry.json);
    }
}

static void test_repeated(void **state)
{
    _cleanup_(freep) char *text = NULL;
    struct journal_entry entry;

    journal_entry_init(&entry, 10000);
    journal_entry_add(&entry, FIELD("A=1"));
    journal_entry_add(&entry, FIELD("A=2"));
    journal_entry_add(&entry, FIELD("A=3"));
    journal_entry_add(&entry, FIELD("B=\xff"));
    journal_entry_add(&entry, FIELD("B=x"));
    journal_entry_add(&entry, FIELD("B=\xfe"));
    text = print(&entry);
    assert_string_equal(text, "{\"A\":[\"1\",\"2\",\"3\"],\"B\":[[255],\"x\",[254]]}");
    assert_true(entry.size >= strlen(text));
    json_decref(entry.json);
}

static char *large(const char *name, const char *piece, size_t size, size_t *ret_size)
{
    struct strbuf b = {0};

    strbuf_add(&b, name);
    while (b.size < size)
        strbuf_add(&b, piece);
    *ret_size = b.size;
    return strbuf_take(&b);
}

static void test_large_fields(void **state)
{
    struct journal_entry entry;
    size_t size;
    _cleanup_(freep) char *message = large("MESSAGE=", "\xc3\xbc", 3 * JOURNAL_MESSAGE_MAX, &size),
                          *other = NULL;
    const char *text;

    journal_entry_init(&entry, 1 << 20);
    journal_entry_add(&entry, message, size);
    text = json_string_value(json_object_get(entry.json, "MESSAGE"));
    assert_non_null(text); /* Not cut in the midst of a character. */
    assert_in_range(strlen(text), JOURNAL_MESSAGE_MAX - 3, JOURNAL_MESSAGE_MAX);
    other = large("OTHER=", "x", JOURNAL_FIELD_MAX + 100, &size);
    journal_entry_add(&entry, other, size);
    assert_true(json_is_null(json_object_get(entry.json, "OTHER")));
    json_decref(entry.json);
}

/* Whatever comes, an entry is as small as it is to be, and its size is known. */
static void test_never_too_large(void **state)
{
    static const char *const pieces[] = {"x", "\n", "\"", "\x01", "\xff", "\xc3\xbc"};

    for (size_t max = 0; max < 3000; max += 7)
        for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
            size_t size, other_size;
            _cleanup_(freep) char *message = large("MESSAGE=", pieces[i], 5000, &size),
                                  *other = large("OTHER=", pieces[i], 300, &other_size), *text = NULL;
            struct journal_entry entry;

            journal_entry_init(&entry, max);
            journal_entry_add(&entry, message, size);
            for (int again = 0; again < 20; again++)
                journal_entry_add(&entry, other, other_size);
            text = print(&entry);
            assert_true(strlen(text) <= entry.size);
            assert_true(entry.size <= max || entry.size == 2);
            json_decref(entry.json);
        }
}

static void test_many_fields(void **state)
{
    struct journal_entry entry;

    journal_entry_init(&entry, 1 << 20);
    for (unsigned i = 0; i < 2 * JOURNAL_ENTRY_FIELDS_MAX; i++) {
        _cleanup_(freep) char *field = xasprintf("F%u=x", i);

        journal_entry_add(&entry, field, strlen(field));
    }
    assert_int_equal(json_object_size(entry.json), JOURNAL_ENTRY_FIELDS_MAX);
    json_decref(entry.json);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),       cmocka_unit_test(test_repeated),
        cmocka_unit_test(test_large_fields), cmocka_unit_test(test_never_too_large),
        cmocka_unit_test(test_many_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
