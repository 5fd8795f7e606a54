/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/url.h"

static void test_refused(void **state)
{
    static const struct {
        const char *target;
        const char *says;
    } cases[] = {
        {"", "no path"},      {"*", "no path"},           {"units", "no path"},
        {"?x=1", "no path"},  {"http://host", "no path"}, {"ftp://host/x", "no path"},
        {"/%", "escape"},     {"/%4", "escape"},          {"/a%4/b", "escape"},
        {"/a%/4b", "escape"}, {"/%zz", "escape"},         {"/%4g", "escape"},
        {"/%-1", "escape"},   {"/a%00b", "NUL"},          {"/%00", "NUL"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct url url = {.query_count = 77};
        struct err err = {0};

        assert_int_equal(url_parse(cases[i].target, &url, &err), -EINVAL);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_int_equal(url.query_count, 77); /* Untouched. */
    }
}

static void test_too_many_parameters(void **state)
{
    struct strbuf b = {0};
    struct err err = {0};
    struct url url;

    strbuf_add(&b, "/x?");
    for (unsigned i = 0; i < URL_QUERY_MAX; i++)
        strbuf_addf(&b, "&a%u=%u", i, i);
    assert_int_equal(url_parse(b.text, &url, &err), 0);
    assert_int_equal(url.query_count, URL_QUERY_MAX);
    assert_string_equal(url.query[URL_QUERY_MAX - 1].key, "a63");
    url_done(&url);
    strbuf_add(&b, "&one=more");
    assert_int_equal(url_parse(b.text, &url, &err), -E2BIG);
    strbuf_done(&b);
}

static void test_paths(void **state)
{
    static const struct {
        const char *target, *path, *location;
    } cases[] = {
        {"/", "/", NULL},
        {"/fleet/v1/units", "/fleet/v1/units", NULL},
        {"/fleet/v1/", "/fleet/v1/", NULL},
        {"/fleet/v1/units/t%401.service", "/fleet/v1/units/t@1.service", NULL},
        {"/a%5Cx2d%3A", "/a\\x2d:", NULL},
        {"/a+b", "/a+b", NULL},
        {"/a%20b%2520", "/a b%20", NULL},
        {"/u/a%2Fb", "/u/a/b", NULL},
        {"/fleet%2fv1/units", "/fleet/v1/units", NULL},
        {"/u/..%2f..%2fx", "/x", "/x"},
        {"/%2F/evil.example", "/evil.example", "/evil.example"},
        {"/./\\evil.example", "/\\evil.example", "/%5Cevil.example"},
        {"/./%3Fa%25b%23", "/?a%b#", "/%3Fa%25b%23"},
        {"/u/...", "/u/...", NULL},
        {"http://h:1/x", "/x", NULL},
        {"HTTPS://h/x", "/x", NULL},
        {"//", "/", "/"},
        {"///evil.example/x", "/evil.example/x", "/evil.example/x"},
        {"/fleet//v1/units", "/fleet/v1/units", "/fleet/v1/units"},
        {"/./x", "/x", "/x"},
        {"/x/.", "/x/", "/x/"},
        {"/x/..", "/", "/"},
        {"/../../x/", "/x/", "/x/"},
        {"/a/%2e%2E/t%401?q=/../", "/t@1", "/t@1?q=/../"},
        {"//x?a=b c\r\n\xc3", "/x", "/x?a=b%20c%0D%0A%C3"},
        {"/.//\xc3\xa9\x01", "/\xc3\xa9\x01", "/%C3%A9%01"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct url url;

        assert_int_equal(url_parse(cases[i].target, &url, NULL), 0);
        assert_string_equal(url.path, cases[i].path);
        if (cases[i].location == NULL)
            assert_null(url.location);
        else
            assert_string_equal(url.location, cases[i].location);
        url_done(&url);
    }
}

static void test_query(void **state)
{
    struct url url;

    assert_int_equal(url_parse("/s?alt=json&&unitName=a%40b+c&x&y=&bad=%zz&%6b=1=2?3&n=%00&=v", &url, NULL),
                     0);
    assert_int_equal(url.query_count, 6);
    assert_string_equal(url.query[0].key, "alt");
    assert_string_equal(url.query[0].value, "json");
    assert_string_equal(url.query[1].value, "a@b c");
    assert_string_equal(url.query[2].key, "x");
    assert_string_equal(url.query[2].value, "");
    assert_string_equal(url.query[3].key, "y");
    assert_string_equal(url.query[4].key, "k");
    assert_string_equal(url.query[4].value, "1=2?3");
    assert_string_equal(url.query[5].key, "");
    url_done(&url);
    url_done(&url); /* Empty by now. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many_parameters),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_query),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
