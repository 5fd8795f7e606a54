/* SPDX-License-Identifier: Apache-2.0 */
/* fleetctl's command line, environment, endpoints and verbs. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetctl/api.h"
#include "fleetctl/options.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"

#define WORDS_MAX 16

/* Parses "fleetctl" and the words of 'line'. */
static int parse(struct options *o, const char *line, struct err *err)
{
    struct strlist words = {0};
    char *argv[WORDS_MAX + 1] = {0};
    int r;

    strlist_add(&words, "fleetctl");
    strlist_add_split(&words, line, ' ');
    assert_true(words.count <= WORDS_MAX);
    for (size_t i = 0; i < words.count; i++)
        argv[i] = words.items[i];
    r = options_parse(o, (int)words.count, argv, err);
    strlist_done(&words);
    return r;
}

static void test_refuses(void **state)
{
    static const struct {
        const char *line, *text;
    } bad[] = {
        {"--bogus", "unknown option: --bogus"},
        {"list-units -x", "unknown option: -x"},
        {"list-units --fields", "option --fields needs a value"},
        {"--no-block=perhaps", "--no-block: \"perhaps\" is neither true nor false"},
        {"--block-attempts=2x", "--block-attempts: \"2x\" is not a number"},
        {"--block-attempts=99999999999", "--block-attempts: \"99999999999\" is not a number"},
        {"--request-timeout=0", "--request-timeout: \"0\" is out of range"},
        {"-o yaml", "--output: \"yaml\" is none of text, json, json-pretty"},
        {"--driver=etcd", "--driver: unrecognized driver \"etcd\" (there is only API)"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct options o;
        struct err err = {0};

        assert_true(parse(&o, bad[i].line, &err) < 0);
        assert_string_equal(err.text, bad[i].text);
        options_done(&o);
    }
}

static void test_options_and_arguments_mix(void **state)
{
    struct options o;

    assert_int_equal(parse(&o, "--endpoint unix:///a start x -l --block-attempts 3 y -- --z", NULL), 0);
    assert_string_equal(o.endpoint, "unix:///a");
    assert_true(o.full);
    assert_int_equal(o.block_attempts, 3);
    assert_int_equal(o.args.count, 4);
    assert_string_equal(o.args.items[0], "start");
    assert_string_equal(o.args.items[3], "--z");
    assert_int_equal(o.used, OPTION_GLOBAL | OPTION_FULL | OPTION_BLOCK_ATTEMPTS);
    options_done(&o);
}

/* The first fleet had --l but not -l; and values of switches only with '='. */
static void test_spellings(void **state)
{
    static const struct {
        const char *line;
        bool full;
    } good[] = {
        {"--l", true}, {"-l", true}, {"--full", true}, {"--full=1", true}, {"--full --full=F", false}};

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct options o;

        assert_int_equal(parse(&o, good[i].line, NULL), 0);
        assert_int_equal(o.full, good[i].full);
        options_done(&o);
    }
}

static void test_environment(void **state)
{
    struct options o;

    setenv("FLEETCTL_ENDPOINT", "unix:///env", 1);
    setenv("FLEETCTL_REQUEST_TIMEOUT", "2.5", 1);
    setenv("FLEETCTL_NO_LEGEND", "true", 1); /* Not a global option: not read. */
    assert_int_equal(parse(&o, "list-units", NULL), 0);
    assert_string_equal(o.endpoint, "unix:///env");
    assert_int_equal(o.request_timeout_ms, 2500);
    assert_false(o.no_legend);
    options_done(&o);

    assert_int_equal(parse(&o, "--endpoint=unix:///arg --request-timeout 1m", NULL), 0);
    assert_string_equal(o.endpoint, "unix:///arg");
    assert_int_equal(o.request_timeout_ms, 60000);
    options_done(&o);

    setenv("FLEETCTL_ENDPOINT", "", 1);
    setenv("FLEETCTL_REQUEST_TIMEOUT", "soon", 1); /* A warning, and the default. */
    assert_int_equal(parse(&o, "", NULL), 0);
    assert_string_equal(o.endpoint, OPTIONS_ENDPOINT_DEFAULT);
    assert_int_equal(o.request_timeout_ms, OPTIONS_REQUEST_TIMEOUT_DEFAULT);
    options_done(&o);
    unsetenv("FLEETCTL_ENDPOINT");
    unsetenv("FLEETCTL_REQUEST_TIMEOUT");
    unsetenv("FLEETCTL_NO_LEGEND");
}

static void test_verbs(void **state)
{
    struct err err;

    assert_string_equal(verb_find("dest", NULL)->name, "destroy");
    assert_string_equal(verb_find("sub", NULL)->name, "submit");
    assert_string_equal(verb_find("list-units", NULL)->name, "list-units");
    assert_null(verb_find("list-unit", &err));
    assert_string_equal(err.text, "\"list-unit\" is ambiguous: list-unit-files, list-units");
    assert_null(verb_find("nonsense", &err));
    assert_string_equal(err.text, "unknown command \"nonsense\" (fleetctl help lists them)");
}

static void test_verbs_are_sorted_and_whole(void **state)
{
    for (size_t i = 0; i < verb_count; i++) {
        assert_non_null(verbs[i].run);
        assert_true(verbs[i].args_min <= verbs[i].args_max);
        assert_true(i == 0 || strcmp(verbs[i - 1].name, verbs[i].name) < 0);
    }
}

static void test_endpoints(void **state)
{
    static const struct {
        const char *endpoint, *text; /* NULL: it is good. */
    } cases[] = {
        {"unix:///run/fleet.sock", NULL},
        {"file:///run/fleet.sock", NULL},
        {"http://host:49153", NULL},
        {"http://[::1]:49153/base/", NULL},
        {"unix://var/run/x", "unable to connect to host \"var\" with scheme \"unix\""},
        {"unix://", "\"unix://\" has no path"},
        {"http://", "\"http://\" has no host"},
        {"ftp://host", "URL scheme \"ftp\" is not supported (unix, file and http are)"},
        {"u:///run/fleet.sock", "URL scheme \"u\" is not supported (unix, file and http are)"},
        {"host:80", "URL scheme undefined: \"host:80\" (write for example unix:///run/fleet.sock or "
                    "http://host:49153)"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api *api = NULL;
        struct err err = {0};
        int r = api_new(cases[i].endpoint, 1000, &api, &err);

        assert_int_equal(r == 0, cases[i].text == NULL);
        assert_string_equal(err.text, cases[i].text != NULL ? cases[i].text : "");
        api_free(api);
    }
}

static void test_escape(void **state)
{
    _cleanup_(freep) char *escaped = api_escape("t@1:a\\x2db/%.service");

    assert_string_equal(escaped, "t%401%3Aa%5Cx2db%2F%25.service");
}

static void test_patterns(void **state)
{
    static const struct {
        const char *args, *name;
        bool match;
    } cases[] = {
        {"", "a.service", true},
        {"a", "a.service", true},
        {"a", "ab.service", false},
        {"b a", "a.service", true},
        {"web@*", "web@1.service", true},
        {"web@*", "web.service", false},
        {"*.timer", "a.service", false},
        {"[ab]*", "b.service", true},
        {"a\\x2d*", "a\\x2db.service", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct strlist args = {0};

        strlist_add_split(&args, cases[i].args, ' ');
        assert_int_equal(stored_matches(&args, cases[i].name), cases[i].match);
        strlist_done(&args);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses),   cmocka_unit_test(test_options_and_arguments_mix),
        cmocka_unit_test(test_spellings), cmocka_unit_test(test_environment),
        cmocka_unit_test(test_verbs),     cmocka_unit_test(test_verbs_are_sorted_and_whole),
        cmocka_unit_test(test_endpoints), cmocka_unit_test(test_escape),
        cmocka_unit_test(test_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
