/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/origin.h"
#include "base/str.h"
#include "base/times.h"

static void test_duration_refuses(void **state)
{
    static const char *const bad[] = {"",   " ",    "x",    "s",     ".",         "-1s",
                                      "1x", "1s2y", "0x10", "1..5s", "999999999h"};
    uint64_t ms = 7;
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        err.text[0] = '\0';
        assert_true(duration_parse(bad[i], &ms, &err) < 0);
        assert_int_equal(ms, 7);
        assert_true(err.text[0] != '\0');
    }
}

static void test_duration_values(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"30s", 30000}, {"1m", 60000},       {"1.5h", 5400000},  {"300ms", 300}, {"1m30s", 90000},
        {"10", 10000},  {"1min 30s", 90000}, {" 2 h ", 7200000}, {"0", 0},       {"0.25s", 250},
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t ms;

        assert_int_equal(duration_parse(good[i].text, &ms, NULL), 0);
        assert_int_equal(ms, good[i].ms);
    }
}

static void test_duration_format(void **state)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, "0"},          {1, "1ms"},
        {1000, "1s"},      {90500, "1min 30s 500ms"},
        {600000, "10min"}, {5400000, "1h 30min"},
        {86400000, "1d"},  {8 * 86400000ull + 1, "8d 1ms"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *text = duration_format(cases[i].ms);
        uint64_t ms;

        assert_string_equal(text, cases[i].text);
        assert_int_equal(duration_parse(text, &ms, NULL), 0);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void test_err_prefix_keeps_the_cause(void **state)
{
    struct err err = {0};
    char longtext[2 * ERR_TEXT_MAX];

    assert_int_equal(err_set(&err, -EINVAL, "no %s", "sense"), -EINVAL);
    assert_int_equal(err_prefix(&err, -EINVAL, "line %d", 7), -EINVAL);
    assert_string_equal(err.text, "line 7: no sense");

    err = (struct err){0};
    err_prefix(&err, -ENOENT, "f");
    assert_string_equal(err.text, "f: No such file or directory");

    memset(longtext, 'x', sizeof longtext - 1);
    longtext[sizeof longtext - 1] = '\0';
    err_set(&err, -E2BIG, "%s", longtext);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_true(str_has_suffix(err.text, "..."));
}

static void test_strlist_split(void **state)
{
    struct strlist l = {0};

    strlist_add_split(&l, " b, a ,,c", ',');
    assert_int_equal(l.count, 3);
    assert_string_equal(l.items[0], "b");
    strlist_sort(&l);
    assert_string_equal(l.items[0], "a");
    assert_true(strlist_has(&l, "c"));
    assert_false(strlist_has(&l, ""));
    strlist_done(&l);
}

static void test_strlist_remove(void **state)
{
    struct strlist l = {0};

    strlist_remove(&l, "a");
    strlist_add_split(&l, "a,b,a,c", ',');
    strlist_remove(&l, "a");
    assert_int_equal(l.count, 2);
    assert_string_equal(l.items[0], "b");
    assert_string_equal(l.items[1], "c");
    strlist_remove(&l, "x");
    assert_int_equal(l.count, 2);
    strlist_done(&l);
}

static void assert_content(int directory, const char *name, const char *content)
{
    _cleanup_(closep) int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    char bytes[64] = "";

    assert_true(fd >= 0);
    assert_int_equal(read(fd, bytes, sizeof bytes), strlen(content));
    assert_memory_equal(bytes, content, strlen(content));
}

static void test_file_replace(void **state)
{
    char path[] = "/tmp/fleet-test-base.XXXXXX";
    _cleanup_(closep) int directory = -1;
    struct stat st;

    assert_non_null(mkdtemp(path));
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(directory >= 0);
    assert_int_equal(file_replace(directory, "f", "a longer one", 12, 0600), 0);
    assert_content(directory, "f", "a longer one");
    assert_int_equal(fstatat(directory, "f", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_replace(directory, "f", "short", 5, 0600), 0);
    assert_content(directory, "f", "short");

    /* Where it fails, the old one stays, and nothing is left behind: neither here... */
    assert_int_equal(mkdirat(directory, "d", 0700), 0);
    assert_int_equal(file_replace(directory, "d", "x", 1, 0600), -EISDIR);
    assert_int_equal(unlinkat(directory, "d", AT_REMOVEDIR), 0);
    /* ...nor where somebody has put a link in its way. */
    assert_int_equal(symlinkat("f", directory, "f.new"), 0);
    assert_int_equal(file_replace(directory, "f", "evil", 4, 0600), -ELOOP);
    assert_content(directory, "f", "short");

    assert_int_equal(unlinkat(directory, "f", 0), 0);
    assert_int_equal(rmdir(path), 0);
}

static struct origin origin(const char *text)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_in in = {.sin_family = AF_INET};

    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        return origin_of((const struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return origin_of((const struct sockaddr *)&in6);
}

static void test_origin(void **state)
{
    static const struct {
        const char *a, *b;
        bool same_network, same_address;
    } pairs[] = {
        {"10.0.0.1", "10.0.0.1", true, true},        {"10.0.0.1", "10.0.0.2", false, false},
        {"10.0.0.1", "::ffff:10.0.0.1", true, true}, {"10.0.0.1", "a00:1::", false, false},
        {"fd77::1", "fd77::1", true, true},          {"fd77::1", "fd77::2", true, false},
        {"fd77:0:0:1::1", "fd77::1", false, false},  {"0.0.0.0", "::", false, false},
        {"fd77::1:0:0:1", "fd77::1", true, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        struct origin a = origin(pairs[i].a), b = origin(pairs[i].b);

        assert_int_equal(origin_same_network(&a, &b), pairs[i].same_network);
        assert_int_equal(origin_same_network(&b, &a), pairs[i].same_network);
        assert_int_equal(origin_same_address(&a, &b), pairs[i].same_address);
    }
}

static void test_origin_of_crowd(void **state)
{
    static const struct {
        const char *what, *from[8];
        size_t goes;
    } crowds[] = {
        {"one", {"10.0.0.1"}, 0},
        {"all different: the oldest", {"10.0.0.1", "10.0.0.2", "fd77::1"}, 0},
        {"the address that comes often", {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.2"}, 1},
        {"as many of two: the oldest", {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.3", "10.0.0.2"}, 1},
        {"another address each time, but one network",
         {"10.0.0.1", "fd78::1", "10.0.0.1", "fd77::1", "fd77::2", "fd77::3"},
         3},
        {"in a network that others are of: who comes often",
         {"10.0.0.1", "fd77::1", "fd77::2", "fd77::3", "fd77::2", "10.0.0.1"},
         2},
        {"one from elsewhere is never older than that", {"fd78::1", "fd77::1", "fd77::2"}, 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(crowds); i++) {
        struct origin origins[8];
        size_t count = 0, goes;

        for (; count < ARRAY_SIZE(origins) && crowds[i].from[count] != NULL; count++)
            origins[count] = origin(crowds[i].from[count]);
        goes = origin_of_crowd(origins, count);
        if (goes != crowds[i].goes)
            fail_msg("%s: %zu instead of %zu", crowds[i].what, goes, crowds[i].goes);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration_refuses), cmocka_unit_test(test_duration_values),
        cmocka_unit_test(test_duration_format),  cmocka_unit_test(test_err_prefix_keeps_the_cause),
        cmocka_unit_test(test_strlist_split),    cmocka_unit_test(test_strlist_remove),
        cmocka_unit_test(test_file_replace),     cmocka_unit_test(test_origin),
        cmocka_unit_test(test_origin_of_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
