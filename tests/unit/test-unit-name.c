/* SPDX-License-Identifier: Apache-2.0 */
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
#include "units/name.h"
#include "units/state.h"

#define X16  "xxxxxxxxxxxxxxxx"
#define X64  X16 X16 X16 X16
#define X240 X64 X64 X64 X16 X16 X16

/* fleet-behaviour.md §2.2: each rule, and that the rules before it come first. */
static void test_check_refuses_in_order(void **state)
{
    static const struct {
        const char *name, *text;
    } bad[] = {
        /* Rule 1. */
        {"", "unit name cannot be empty"},
        /* Rule 2. */
        {X240 "xxxxxxxxx.service", "unit name exceeds maximum length (256)"},
        {X240 X240 "!", "unit name exceeds maximum length (256)"},
        /* Rule 3. */
        {"foo", "unit name must contain \".\""},
        {" ", "unit name must contain \".\""},
        /* Rule 4. */
        {"foo.", "unit name cannot end in \".\""},
        {"@ .", "unit name cannot end in \".\""},
        /* Rule 5. */
        {"foo.bar", "invalid unit type: \"bar\""},
        {"foo.Service", "invalid unit type: \"Service\""},
        {"@ .services", "invalid unit type: \"services\""},
        {"foo.service ", "invalid unit type: \"service \""},
        {"foo.a\"b\n\x01\xff", "invalid unit type: \"a\\\"b\\n\\x01\\xff\""},
        {"foo.caf\xc3\xa9", "invalid unit type: \"caf\xc3\xa9\""},
        {"foo.a@b", "invalid unit type: \"a@b\""},
        /* Its fault: types that the agent cannot manage. */
        {"foo.busname", "invalid unit type: \"busname\" (systemd no longer has this type)"},
        {"foo.snapshot", "invalid unit type: \"snapshot\" (systemd no longer has this type)"},
        {"foo.scope", "invalid unit type: \"scope\" (systemd does not load this type from files)"},
        /* Rule 6. */
        {"foo@.mount", "invalid unit type for template: \"mount\""},
        {"@ x.slice", "invalid unit type for template: \"slice\""},
        {"a@b.device", "invalid unit type for template: \"device\""},
        {"a@b.swap", "invalid unit type for template: \"swap\""},
        {"a@b.automount", "invalid unit type for template: \"automount\""},
        /* Rule 7. */
        {"@foo bar.service", "invalid character ' ' in unit name"},
        {"a/b.service", "invalid character '/' in unit name"},
        {"a%i.service", "invalid character '%' in unit name"},
        {"a'.service", "invalid character '\\'' in unit name"},
        {"a\n.service", "invalid character '\\n' in unit name"},
        {"caf\xc3\xa9.service", "invalid character '\xc3\xa9' in unit name"},
        {"a\xc2\xa0.service", "invalid character '\\u00a0' in unit name"},
        {"a\xff.service", "invalid character '\xef\xbf\xbd' in unit name"},
        /* Rule 8. */
        {"@foo.service", "unit name cannot start in \"@\""},
        {"@.service", "unit name cannot start in \"@\""},
        {"fleetd.service", "unit name fleetd.service is taken by fleet itself"},
        {"fleet-lease.service", "unit name fleet-lease.service is taken by fleet itself"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = {0};

        assert_int_equal(unit_name_check(bad[i].name, &err), -EINVAL);
        assert_string_equal(err.text, bad[i].text);
        assert_int_equal(unit_name_check(bad[i].name, NULL), -EINVAL);
    }
}

/* §2.2 */
static void test_check_takes(void **state)
{
    static const char *const good[] = {
        "a.service",
        "a.socket",
        "a.timer",
        "a.path",
        "a.device",
        "a.mount",
        "a.automount",
        "a.swap",
        "a.target",
        "a.slice",
        "a@.service",
        "a@b.socket",
        "a@b.path",
        "a@b.target",
        "a@b@c.timer",
        "0:-_.\\@.service",
        ".service",
        "a..service",
        "-.mount",
        "a.b.service",
        "dev-a\\x2d.mount",
        X240 "xxxxxxxx.service",
        "foo.service.socket",
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct err err = {0};

        assert_int_equal(unit_name_check(good[i], &err), 0);
        assert_string_equal(err.text, "");
    }
}

/* What starting, stopping and replacing mean for a type. */
static void test_what_a_type_can(void **state)
{
    static const struct {
        const char *name;
        bool restarts, stops;
    } table[] = {
        {"a.service", true, true},   {"a.socket", true, true},       {"a.timer", true, true},
        {"a.path", true, true},      {"a.mount", true, true},        {"a.automount", true, true},
        {"a.swap", true, true},      {"a.target", false, true},      {"a.slice", false, true},
        {"a@b.target", false, true}, {"dev-a.device", false, false}, {"a.device.service", true, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(unit_name_restarts(table[i].name), table[i].restarts);
        assert_int_equal(unit_name_stops(table[i].name), table[i].stops);
    }
}

/* §2.1, and the specifiers of §2.4. */
static void test_split(void **state)
{
    static const struct {
        const char *name, *without_suffix, *prefix, *template, *instance;
        bool is_template, is_instance;
    } table[] = {
        {"foo.service", "foo", "foo", NULL, "", false, false},
        {"foo@.service", "foo@", "foo", NULL, "", true, false},
        {"foo@bar.service", "foo@bar", "foo", "foo@.service", "bar", false, true},
        {"foo@bar@baz.service", "foo@bar@baz", "foo", "foo@.service", "bar@baz", false, true},
        {"foo@bar.baz.service", "foo@bar.baz", "foo", "foo@.service", "bar.baz", false, true},
        {"a.b@c", "a", "a", NULL, "", false, false},
        {"@.service", "@", "", NULL, "", true, false},
        {"@@.service", "@@", "", "@.service", "@", false, true},
        {".service", "", "", NULL, "", false, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(freep) char *template = unit_name_template(table[i].name),
                              *all = unit_name_expand(table[i].name, "%n|%N|%p|%i"), *expected = NULL;
        struct strbuf b = {0};

        strbuf_addf(&b, "%s|%s|%s|%s", table[i].name, table[i].without_suffix, table[i].prefix,
                    table[i].instance);
        expected = strbuf_take(&b);
        assert_string_equal(all, expected);
        assert_int_equal(unit_name_is_template(table[i].name), table[i].is_template);
        assert_int_equal(unit_name_is_instance(table[i].name), table[i].is_instance);
        if (table[i].template == NULL)
            assert_null(template);
        else
            assert_string_equal(template, table[i].template);
    }
}

static void test_split_refuses_what_has_no_dot(void **state)
{
    struct unit_name_parts parts = {.name_size = 7};

    assert_int_equal(unit_name_split("", &parts), -EINVAL);
    assert_int_equal(unit_name_split("foo@bar", &parts), -EINVAL);
    assert_int_equal(parts.name_size, 7);
    assert_false(unit_name_is_template("foo@"));
    assert_false(unit_name_is_instance("foo@bar"));
    assert_null(unit_name_template("foo@bar"));
}

/* §1.4 */
static void test_mangle(void **state)
{
    static const struct {
        const char *arg, *path, *name;
    } table[] = {
        {"foo", "foo.service", "foo.service"},
        {"foo.service", "foo.service", "foo.service"},
        {"foo.conf", "foo.conf.service", "foo.conf.service"},
        {"sub/hello", "sub/hello.service", "hello.service"},
        {"/a/b/x.timer", "/a/b/x.timer", "x.timer"},
        {"./foo@1", "./foo@1.service", "foo@1.service"},
        {"foo/", "foo/.service", ".service"},
        {"", ".service", ".service"},
        {"service", "service.service", "service.service"},
        {"foo.Service", "foo.Service.service", "foo.Service.service"},
        /* Unlike the first fleet's: every type that the API takes is a type (§1.4). */
        {"foo.target", "foo.target", "foo.target"},
        {"x.slice", "x.slice", "x.slice"},
        {"x.swap", "x.swap", "x.swap"},
        /* So that the user reads why it is refused. */
        {"x.snapshot", "x.snapshot", "x.snapshot"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(freep) char *path = unit_name_mangle_path(table[i].arg),
                              *name = unit_name_mangle(table[i].arg);

        assert_string_equal(path, table[i].path);
        assert_string_equal(name, table[i].name);
    }
}

/* §2.4: plain replacement, in order, nothing else. */
static void test_expand(void **state)
{
    static const struct {
        const char *name, *text, *expanded;
    } table[] = {
        {"a@b.service", "", ""},
        {"a@b.service", "%", "%"},
        {"a@b.service", "x%", "x%"},
        {"a@b.service", "%h%H%m%%", "%h%H%m%%"},
        {"a@b.service", "%%i", "%b"}, /* No "%%". */
        {"a@b.service", "%i%i-%p", "bb-a"},
        {"a.service", "x-%i-y", "x--y"},
        {"a@.service", "%p@%i.service", "a@.service"},
        {"a@b\\x2dc.service", "%i", "b\\x2dc"}, /* Not unescaped. */
        {"p.service", "%%nx", "p.servicex"},    /* One pass after the other: "%p.servicex" lies between. */
        {"nodot", "%n%p", "%n%p"},
        {"%n%n.service", "%n", "%n"}, /* No unit's name: would grow with each pass. */
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(freep) char *s = unit_name_expand(table[i].name, table[i].text);

        assert_string_equal(s, table[i].expanded);
    }
}

static void test_state_words(void **state)
{
    static const char *const bad[] = {"", "Inactive", "launched ", "active", "load"};
    enum unit_state s = UNIT_STATE_LOADED;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = {0};

        assert_int_equal(unit_state_from_string(bad[i], &s, &err), -EINVAL);
        assert_non_null(strstr(err.text, "inactive, loaded or launched"));
        assert_int_equal(s, UNIT_STATE_LOADED);
    }
    for (int i = 0; i < UNIT_STATE_COUNT; i++) {
        assert_int_equal(unit_state_from_string(unit_state_to_string((enum unit_state)i), &s, NULL), 0);
        assert_int_equal(s, i);
    }
    assert_string_equal(unit_state_to_string(UNIT_STATE_INACTIVE), "inactive");
    assert_string_equal(unit_state_to_string(UNIT_STATE_LOADED), "loaded");
    assert_string_equal(unit_state_to_string(UNIT_STATE_LAUNCHED), "launched");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_refuses_in_order),
        cmocka_unit_test(test_check_takes),
        cmocka_unit_test(test_split_refuses_what_has_no_dot),
        cmocka_unit_test(test_what_a_type_can),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_mangle),
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_state_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
