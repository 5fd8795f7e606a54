/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/str.h"
#include "units/file.h"

#define TEXT(s) (s), sizeof(s) - 1

/* fleet-behaviour.md §8.1 (errors; the line in front is ours), and more of §2.3. */
static void test_parse_refuses(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *why;
    } bad[] = {
        {TEXT("[Unit] # c\nX=y\n"), "line 1: found garbage after section name : [35 32 99]"},
        {TEXT("[A]\n[B\nC]x\xff\n"), "line 3: found garbage after section name : [120 255]"},
        {TEXT("[A]\nx\n"), "line 2: unexpected newline encountered while parsing option name"},
        {TEXT("[A]\nx\r=1\n"), "line 2: unexpected newline encountered while parsing option name"},
        {TEXT("[A]\nx"), "line 2: EOF"},
        {TEXT("[A]\n\n  # c\n y"), "line 4: EOF"},
        {TEXT("[A\n"), "line 1: unable to find end of section"},
        {TEXT("[A]\nx=1\n["), "line 3: unable to find end of section"},
        {TEXT("\n#a\\\n[\nb[A\n"), "line 4: unable to find end of section"},
        {TEXT("[A]\nx=1\\\n# in continuation\n y\n"),
         "line 4: unexpected newline encountered while parsing option name"},
        {TEXT("[A]\nx=1\\\r\ny\n"), "line 3: unexpected newline encountered while parsing option name"},
        {TEXT("[A\0]\nx=1\n"), "line 1: NUL byte in section name"},
        {TEXT("[A]\nx\0=1\n"), "line 2: NUL byte in option name"},
        {TEXT("[A]\nx=1\\\n\0\n"), "line 2: NUL byte in value"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct unit_file *file = NULL;
        struct err err = {0};

        assert_int_equal(unit_file_parse(bad[i].text, bad[i].size, &file, &err), -EINVAL);
        assert_string_equal(err.text, bad[i].why);
        assert_null(file);
    }
}

/* Parses head, 'count' times 'c', tail. */
static int parse_long(const char *head, char c, size_t count, const char *tail, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(strbuf_done) struct strbuf b = {0};
    _cleanup_(freep) char *middle = xmalloc(count + 1);

    memset(middle, c, count);
    strbuf_add(&b, head);
    strbuf_add_bytes(&b, middle, count);
    strbuf_add(&b, tail);
    return unit_file_parse(b.text, b.size, &file, err);
}

/* §2.3: line length; the other limits are ours. */
static void test_parse_limits(void **state)
{
    static const char too_long[] = "line 2: line too long (max 2048 bytes)";
    _cleanup_(strbuf_done) struct strbuf many = {0};
    struct unit_file *file = NULL;
    struct err err = {0};

    assert_int_equal(parse_long("[A]\nx=", 'y', 2045, "\n", &err), 0);
    assert_int_equal(parse_long("[A]\nx=", 'y', 2045, "", &err), 0);
    assert_int_equal(parse_long("[A]\nx=", 'y', 2046, "\n", &err), -E2BIG);
    assert_string_equal(err.text, too_long);
    assert_int_equal(parse_long("[A]\nx=", 'y', 2046, "", &err), -E2BIG);
    assert_int_equal(parse_long("[A]\n#", 'y', 2047, "\n[", &err), -E2BIG); /* Limits come first. */
    assert_string_equal(err.text, too_long);
    assert_int_equal(parse_long("\n", '\0', 2048, "\n", &err), -E2BIG);
    assert_string_equal(err.text, too_long);
    assert_int_equal(parse_long("[", '\n', 2048, "]\nx=1\n", &err), -E2BIG);
    assert_string_equal(err.text, "line 1: section name too long (max 2048 bytes)");

    assert_int_equal(parse_long("", '\n', UNIT_FILE_SIZE_MAX, "", &err), 0);
    assert_int_equal(parse_long("", '\n', UNIT_FILE_SIZE_MAX + 1, "", &err), -E2BIG);
    assert_string_equal(err.text, "unit file is larger than 262144 bytes");

    strbuf_add(&many, "[A]\n");
    for (int i = 0; i < UNIT_FILE_OPTIONS_MAX; i++)
        strbuf_add(&many, "x=1\n");
    assert_int_equal(unit_file_parse(many.text, many.size, &file, &err), 0);
    assert_int_equal(file->count, UNIT_FILE_OPTIONS_MAX);
    assert_int_equal(unit_file_check(file, NULL), 0);
    unit_file_add(file, "A", "x", "1");
    assert_int_equal(unit_file_check(file, &err), -E2BIG);
    unit_file_free(TAKE_PTR(file));
    strbuf_add(&many, "x=1\n");
    assert_int_equal(unit_file_parse(many.text, many.size, &file, &err), -E2BIG);
    assert_string_equal(err.text, "line 4098: more than 4096 options");
}

/* fleet-behaviour.md §8.1, and more of §2.3. Hashes were made by the original where they are given. */
static void test_parse_serialize_hash(void **state)
{
    static const struct {
        const char *text, *serialized, *hash;
    } vectors[] = {
        {"", "", "da39a3e"},
        {"garbage\n", "", "da39a3e"},
        {"[Unit]\n", "", "da39a3e"},
        {"#[A]\nx=1\n", "", "da39a3e"},
        {"[Unit]\nA=b", "[Unit]\nA=b\n", "9936816"},
        {"[Unit]\nA = b  \n", "[Unit]\nA=b\n", "9936816"},
        {"[Unit]\nA=b\r\nC=d\r\n", "[Unit]\nA=b\nC=d\n", "8c6b00d"},
        {"[Unit]\nA=\n", "[Unit]\nA=\n", "f50ddd7"},
        {"[Unit]\nA=b \\\n  c\nD=e\n", "[Unit]\nA=b \\\n  c\nD=e\n", "4a2c5a6"},
        {"[Unit]\nA=b \\ \nD=e\n", "[Unit]\nA=b \\\nD=e\n", "85f12fb"},
        {"[Unit]\nA=b\\\n\nD=e\n", "[Unit]\nA=b\\\n\nD=e\n", "0c35906"},
        {"[Unit]\nA=b\\\n   \nD=e\n", "[Unit]\nA=b\\\n\nD=e\n", "0c35906"},
        {"[Unit]\nA=b\\", "[Unit]\nA=b\\\n", "382172a"},
        {"[Unit]\n# c \\\nfoo=bar\nX=y\n", "[Unit]\nX=y\n", "a42a44e"},
        {"[Unit]\n# c \\ \nfoo=bar\nX=y\n", "[Unit]\nX=y\n", "a42a44e"},
        {"[Unit]\n;c\nX=y\n", "[Unit]\nX=y\n", "a42a44e"},
        {"[Unit]  \nX=y\n", "[Unit]\nX=y\n", "a42a44e"},
        {"[A]\nx=1 # not comment\n", "[A]\nx=1 # not comment\n", "c787eab"},
        /* Before the first section. */
        {"\xef\xbb\xbf[A]\nx=1\n", "[A]\nx=1\n", NULL},
        {"junk [A]\nx=1\n", "[A]\nx=1\n", NULL},
        {"junk # [A]\n[B]\nx=1\n", "[B]\nx=1\n", NULL},
        {"# \\\n[A]\n[B]\nx=1\n", "[B]\nx=1\n", NULL},
        /* Sections. */
        {"[]\nx=1\n", "[]\nx=1\n", NULL},
        {"[A\nB]\nx=1\n", "[A\nB]\nx=1\n", NULL},
        {"[A]\nx=1\n[B]\ny=1\n[A]\nz=1\n[C]\n[b]\nq=\n", "[A]\nx=1\nz=1\n\n[B]\ny=1\n\n[b]\nq=\n", NULL},
        {" \t[A]\n \t\n  [B]\nx=1", "[B]\nx=1\n", NULL},
        /* Names and values. */
        {"[A]\n=1\n", "[A]\n=1\n", NULL},
        {"[A]\n x\ty = a=b \n", "[A]\nx\ty=a=b\n", NULL},
        {"[A]\nx=\"a\"  'b'\n", "[A]\nx=\"a\"  'b'\n", NULL},
        {"[A]\nx=\xff\xfe\n", "[A]\nx=\xff\xfe\n", NULL},
        {"[A]\n\xc2\xa0x\xe3\x80\x80=\xe2\x80\xa8y\xc2\x85\n", "[A]\nx=y\n", NULL},
        {"[A]\nx=\xa0y\x85\n", "[A]\nx=\xa0y\x85\n", NULL}, /* Not UTF-8, so no white space. */
        {"[A]\nx=a\\\n# b\\\n;c\n#d\n", "[A]\nx=a\\\n# b\\\n;c\n", NULL},
        {"[A]\nx=\\\n y\n", "[A]\nx=\\\n y\n", NULL},
        {"[A]\nx= \n\\=1\n", "[A]\nx=\n\\=1\n", NULL},
        {"[A]\nx=1\\\n", "[A]\nx=1\\\n\n", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = NULL;
        _cleanup_(freep) char *text = NULL;
        char hash[UNIT_HASH_SIZE];
        size_t size;

        assert_int_equal(unit_file_parse(vectors[i].text, strlen(vectors[i].text), &file, NULL), 0);
        text = unit_file_serialize(file, &size);
        assert_string_equal(text, vectors[i].serialized);
        assert_int_equal(size, strlen(text));
        unit_hash(text, size, hash);
        assert_int_equal(strlen(hash), 40);
        if (vectors[i].hash != NULL)
            assert_memory_equal(hash, vectors[i].hash, 7);
    }
}

/* §2.6: a value that ends in a backslash takes the next line in when it is read again. */
static void test_two_options_that_parse_again_as_one(void **state)
{
    static const struct {
        const char *text;
        size_t count, count_again;
    } table[] = {
        {"[Unit]\nA=b \\ \nD=e\n", 2, 1},
        {"[Unit]\nA=b\\ \nB=c\\ \nD=e\n", 3, 1},
        {"[Unit]\nA=b\\ \n[X]\nD=e\n", 2, 2}, /* An empty line lies between. */
        {"[Unit]\nA=b\\ \n[X]\nD=e\n[Unit]\nB=c\n", 3, 2},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = NULL, *again = NULL;
        _cleanup_(freep) char *first = NULL, *second = NULL;

        assert_int_equal(unit_file_parse(table[i].text, strlen(table[i].text), &file, NULL), 0);
        assert_int_equal(file->count, table[i].count);
        assert_int_equal(unit_file_check(file, NULL), 0);
        first = unit_file_serialize(file, NULL);
        assert_int_equal(unit_file_parse(first, strlen(first), &again, NULL), 0);
        assert_int_equal(again->count, table[i].count_again);
        assert_int_equal(unit_file_check(again, NULL), 0);
        second = unit_file_serialize(again, NULL);
        if (table[i].count_again == 1) /* Else the empty line is part of it now. */
            assert_string_equal(first, second);
    }
}

/* §2.3, its fault: what is sent as one option is stored as one option. */
static void test_check(void **state)
{
    static const struct {
        const char *section, *name, *value;
        int r;
        const char *why; /* Part of the text. */
    } table[] = {
        {"A", "x", "a\nFoo=b", -EINVAL, "newline that would end it"},
        {"A", "x", "a\n", 0, ""},
        {"A", "x", "a\\\n\nFoo=b", -EINVAL, "newline that would end it"},
        {"A", "x", "a\n[B]\ny=1", -EINVAL, "newline that would end it"},
        {"A", "x", "a\n#comment", -EINVAL, "newline that would end it"},
        {"A", "x", "a\ngarbage", -EINVAL, "line 3: unexpected newline"},
        {"A", "x=y", "a", -EINVAL, "in its name"},
        {"A", "x\ny", "a", -EINVAL, "unexpected newline"},
        {"A", "x=1\ny", "a", -EINVAL, "in its name"},
        {"A", "#x", "a", -EINVAL, "begins like"},
        {"A", " ;x", "a", -EINVAL, "begins like"},
        {"A", "[B]\nx", "a", -EINVAL, "in its name"},
        {"A]\n[B", "x", "a", -EINVAL, "\"]\""},
        {"A]", "x", "a", -EINVAL, "found garbage"},
        {"A", "x", "a\\", 0, ""}, /* Another option follows below. */
        {"A", "x", "a\\\nFoo=b\n", 0, ""},
        {"A", "x", "a\\\n\nFoo=b\\", -EINVAL, "newline that would end it"},
        {"A", "x", "a\\\n b", 0, ""},
        {"A", "x", "", 0, ""},
        {"A", "x", "  a  ", 0, ""},
        {"A", "", "a", 0, ""},
        {"", "x", "a", 0, ""},
        {"A B", "x", "a=b # c", 0, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
        struct err err = {0};

        unit_file_add(file, table[i].section, table[i].name, table[i].value);
        unit_file_add(file, table[i].section, "Last", "1");
        assert_int_equal(unit_file_check(file, &err), table[i].r);
        assert_non_null(strstr(err.text, table[i].why));
    }
}

static void test_check_without_options(void **state)
{
    _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
    _cleanup_(freep) char *text = unit_file_serialize(file, NULL);

    assert_string_equal(text, "");
    assert_int_equal(unit_file_check(file, NULL), 0);
    unit_file_free(NULL);
}

static void test_get(void **state)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;

    assert_int_equal(unit_file_parse(TEXT("[A]\nx=1\nX=2\n[B]\nx=3\n[A]\nx=4\n"), &file, NULL), 0);
    assert_string_equal(unit_file_get(file, "A", "x"), "1");
    assert_string_equal(unit_file_get(file, "A", "X"), "2");
    assert_string_equal(unit_file_get(file, "B", "x"), "3");
    assert_null(unit_file_get(file, "B", "X"));
    assert_null(unit_file_get(file, "C", "x"));
}

/* Each once took time that grows with the square of the size, in some parser somewhere. The test's own limit
 * is that of the test runner. */
static void test_hostile_sizes(void **state)
{
    static const char *const pieces[] = {"[",     "[]\n", "\\\n",     "[A]\nx=\\\n",
                                         "#\\\n", "x=\n", "\xc2\xa0", "[A]\n=\n"};

    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = NULL;
        _cleanup_(strbuf_done) struct strbuf b = {0};

        strbuf_add(&b, "[A]\nx=1\n");
        while (b.size + strlen(pieces[i]) <= UNIT_FILE_SIZE_MAX)
            strbuf_add(&b, pieces[i]);
        if (unit_file_parse(b.text, b.size, &file, NULL) == 0)
            unit_file_check(file, NULL);
    }
    for (int same = 0; same < 2; same++) {
        _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();

        for (int i = 0; i < UNIT_FILE_OPTIONS_MAX; i++) {
            _cleanup_(freep) char *section = xasprintf("%d", same ? i % 2 : i);

            unit_file_add(file, section, "x", "");
        }
        assert_int_equal(unit_file_check(file, NULL), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_limits),
        cmocka_unit_test(test_two_options_that_parse_again_as_one),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_check_without_options),
        cmocka_unit_test(test_parse_serialize_hash),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_hostile_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
