/* SPDX-License-Identifier: Apache-2.0 */
/* fleetctl's command line, environment, endpoints and verbs. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/api.h"
#include "fleetctl/endpoint.h"
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
        {"--bogus", "unknown flag: --bogus"},
        {"list-units --bogus=x=y", "unknown flag: --bogus"},
        {"list-units -x", "unknown shorthand flag: 'x'"},
        {"list-units --fields", "flag needs an argument: --fields"},
        {"--no-block=perhaps", "--no-block: \"perhaps\" is neither true nor false"},
        {"--block-attempts=2x", "--block-attempts: \"2x\" is not a number"},
        {"--block-attempts=99999999999", "--block-attempts: \"99999999999\" is not a number"},
        {"--request-timeout=0", "--request-timeout: \"0\" is out of range"},
        {"-o yaml", "--output: \"yaml\" is none of text, json, json-pretty, nor of a journal's short, "
                    "short-iso, short-precise, short-unix, cat"},
        {"-bogus x", "unknown shorthand flag: 'b'"},
        {"ssh --ssh-port=0", "--ssh-port: \"0\" is no port"},
        {"ssh --ssh-port=65536", "--ssh-port: \"65536\" is no port"},
        {"--strict-host-key-checking=ask", "--strict-host-key-checking: \"ask\" is neither true nor false"},
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

/* The formats of a journal are an option of their own, although it is written the same. */
static void test_journal_options(void **state)
{
    static const struct {
        const char *line;
        enum output_mode output;
        unsigned used;
        int lines;
        bool follow;
    } good[] = {
        {"", OUTPUT_TEXT, 0, 10, false},
        {"-n 5 -f", OUTPUT_TEXT, OPTION_LINES | OPTION_FOLLOW, 5, true},
        {"-n5 --f", OUTPUT_TEXT, OPTION_LINES | OPTION_FOLLOW, 5, true},
        {"--lines=0 --follow=true", OUTPUT_TEXT, OPTION_LINES | OPTION_FOLLOW, 0, true},
        {"-o json", OUTPUT_JSON, OPTION_OUTPUT, 10, false},
        {"-o short", OUTPUT_SHORT, OPTION_FORMAT, 10, false},
        {"--output=cat", OUTPUT_CAT, OPTION_FORMAT, 10, false},
        {"--output short-iso", OUTPUT_SHORT_ISO, OPTION_FORMAT, 10, false},
        {"--sudo --sudo=false --ssh-port 2222", OUTPUT_TEXT, OPTION_SUDO | OPTION_SSH_PORT, 10, false},
    };
    struct options o;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(parse(&o, good[i].line, NULL), 0);
        assert_int_equal(o.output, good[i].output);
        assert_int_equal(o.used, good[i].used);
        assert_int_equal(o.lines, good[i].lines);
        assert_int_equal(o.follow, good[i].follow);
        options_done(&o);
    }
    assert_true(parse(&o, "--ssh-port=x", NULL) < 0);
    options_done(&o);
}

/* The first fleet had --l but not -l; and values of switches only with '='. */
static void test_spellings(void **state)
{
    static const struct {
        const char *line;
        bool full;
    } good[] = {
        {"--l", true},           {"-l", true},
        {"--full", true},        {"--full=1", true},
        {"--full=t", true},      {"--full=T", true},
        {"--full=TRUE", true},   {"--full=true", true},
        {"--full=True", true},   {"--l=0", false},
        {"--full=f", false},     {"--full --full=F", false},
        {"--full=FALSE", false}, {"--full=false", false},
        {"--full=False", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct options o;

        assert_int_equal(parse(&o, good[i].line, NULL), 0);
        assert_int_equal(o.full, good[i].full);
        options_done(&o);
    }
}

/* §1.2: -A and --A, --h: the short forms of the first fleet were long options of one letter. */
static void test_short_forms(void **state)
{
    static const char *const lines[] = {"-A", "--A", "--forward-agent"}, *const helps[] = {"-h", "--h",
                                                                                           "--help"};

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct options o;

        assert_int_equal(parse(&o, lines[i], NULL), 0);
        assert_true(o.forward_agent);
        options_done(&o);
        assert_int_equal(parse(&o, helps[i], NULL), 0);
        assert_true(o.help);
        options_done(&o);
    }
}

#define TEXT_FIELD(f) offsetof(struct options, f)

/* §1.2: every global flag, on the command line as --x=v and --x v, and in the environment. */
static void test_global_texts(void **state)
{
    static const struct {
        const char *option, *variable;
        size_t offset;
    } flags[] = {
        {"--endpoint", "FLEETCTL_ENDPOINT", TEXT_FIELD(endpoint)},
        {"--driver", "FLEETCTL_DRIVER", TEXT_FIELD(driver)},
        {"--tunnel", "FLEETCTL_TUNNEL", TEXT_FIELD(tunnel)},
        {"--ssh-username", "FLEETCTL_SSH_USERNAME", TEXT_FIELD(ssh_username)},
        {"--known-hosts-file", "FLEETCTL_KNOWN_HOSTS_FILE", TEXT_FIELD(known_hosts_file)},
        {"--key-file", "FLEETCTL_KEY_FILE", TEXT_FIELD(key_file)},
        {"--cert-file", "FLEETCTL_CERT_FILE", TEXT_FIELD(cert_file)},
        {"--ca-file", "FLEETCTL_CA_FILE", TEXT_FIELD(ca_file)},
        {"--etcd-keyfile", "FLEETCTL_ETCD_KEYFILE", TEXT_FIELD(key_file)},
        {"--etcd-certfile", "FLEETCTL_ETCD_CERTFILE", TEXT_FIELD(cert_file)},
        {"--etcd-cafile", "FLEETCTL_ETCD_CAFILE", TEXT_FIELD(ca_file)},
    };

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        _cleanup_(freep) char *joined = xasprintf("%s=one", flags[i].option);
        _cleanup_(freep) char *apart = xasprintf("verb %s two arg", flags[i].option);
        struct options o;

        setenv(flags[i].variable, "zero", 1);
        assert_int_equal(parse(&o, "verb", NULL), 0);
        assert_string_equal(*(char **)((char *)&o + flags[i].offset), "zero");
        options_done(&o);
        assert_int_equal(parse(&o, joined, NULL), 0);
        assert_string_equal(*(char **)((char *)&o + flags[i].offset), "one");
        options_done(&o);
        assert_int_equal(parse(&o, apart, NULL), 0);
        assert_string_equal(*(char **)((char *)&o + flags[i].offset), "two");
        assert_int_equal(o.args.count, 2);
        options_done(&o);

        setenv(flags[i].variable, "", 1); /* Empty is unset. */
        assert_int_equal(parse(&o, "verb", NULL), 0);
        assert_true(*(char **)((char *)&o + flags[i].offset) == NULL ||
                    !streq(*(char **)((char *)&o + flags[i].offset), ""));
        options_done(&o);
        unsetenv(flags[i].variable);
    }
}

static void test_environment_of_other_kinds(void **state)
{
    struct options o;

    setenv("FLEETCTL_DEBUG", "true", 1);
    setenv("FLEETCTL_STRICT_HOST_KEY_CHECKING", "false", 1);
    setenv("FLEETCTL_SSH_TIMEOUT", "2.5", 1);
    setenv("FLEETCTL_ETCD_KEY_PREFIX", "/x", 1);     /* Accepted, with a warning. */
    setenv("FLEETCTL_EXPERIMENTAL_API", "false", 1); /* Accepted. */
    setenv("FLEETCTL_HELP", "true", 1);              /* No settings. */
    setenv("FLEETCTL_H", "true", 1);
    setenv("FLEETCTL_VERSION", "true", 1);
    assert_int_equal(parse(&o, "list-units", NULL), 0);
    assert_true(o.debug);
    assert_int_equal(o.host_key_checking, TRISTATE_NO);
    assert_int_equal(o.ssh_timeout_ms, 2500);
    assert_false(o.help);
    assert_false(o.version);
    options_done(&o);
    assert_int_equal(parse(&o, "--debug=false --strict-host-key-checking", NULL), 0);
    assert_false(o.debug);
    assert_int_equal(o.host_key_checking, TRISTATE_YES);
    options_done(&o);
    setenv("FLEETCTL_DEBUG", "perhaps", 1); /* A warning, and the default. */
    assert_int_equal(parse(&o, "", NULL), 0);
    assert_false(o.debug);
    options_done(&o);
    unsetenv("FLEETCTL_DEBUG");
    unsetenv("FLEETCTL_STRICT_HOST_KEY_CHECKING");
    unsetenv("FLEETCTL_SSH_TIMEOUT");
    unsetenv("FLEETCTL_ETCD_KEY_PREFIX");
    unsetenv("FLEETCTL_EXPERIMENTAL_API");
    unsetenv("FLEETCTL_HELP");
    unsetenv("FLEETCTL_H");
    unsetenv("FLEETCTL_VERSION");
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
    assert_string_equal(verb_find("list-m", NULL)->name, "list-machines"); /* As before there were members. */
    assert_string_equal(verb_find("list-me", NULL)->name, "list-members");
    assert_null(verb_find("d", NULL)); /* Rather not destroy: it may be that drain is meant. */
    assert_null(verb_find("list-unit", &err));
    assert_string_equal(err.text, "unknown command \"list-unit\" for \"fleetctl\" (did you mean one of "
                                  "list-unit-files, list-units?)");
    assert_null(verb_find("nonsense", &err));
    assert_string_equal(err.text, "unknown command \"nonsense\" for \"fleetctl\" (fleetctl help lists them)");
}

static void test_verbs_are_sorted_and_whole(void **state)
{
    for (size_t i = 0; i < verb_count; i++) {
        assert_non_null(verbs[i].run);
        assert_true(verbs[i].args_min <= verbs[i].args_max);
        assert_true(i == 0 || strcmp(verbs[i - 1].name, verbs[i].name) < 0);
    }
}

/* §1.3 */
static void test_endpoints(void **state)
{
    static const struct {
        const char *text, *socket, *base, *host_port; /* Either 'base' ... */
        const char *error;                            /* ... or this. */
    } cases[] = {
        {"unix:///run/fleet.sock", "/run/fleet.sock", "http://domain-sock/", NULL, NULL},
        {"file:///run/fleet.sock", "/run/fleet.sock", "http://domain-sock/", NULL, NULL},
        {"UNIX:/run/fleet.sock", "/run/fleet.sock", "http://domain-sock/", NULL, NULL},
        {"unix:///run/a%20b%2f", "/run/a b/", "http://domain-sock/", NULL, NULL},
        {"unix:///a,http://b,x", "/a", "http://domain-sock/", NULL, NULL},
        {"http://host", NULL, "http://host:80/", "host:80", NULL},
        {"http://host:49153", NULL, "http://host:49153/", "host:49153", NULL},
        {"http://host:/", NULL, "http://host:80/", "host:80", NULL},
        {"https://host/base", NULL, "https://host:443/base/", "host:443", NULL},
        {"http://[::1]:49153/base/", NULL, "http://[::1]:49153/base/", "[::1]:49153", NULL},
        {"https://[fe80::1]", NULL, "https://[fe80::1]:443/", "[fe80::1]:443", NULL},
        {"", NULL, NULL, NULL, "URL scheme undefined"},
        {"/run/fleet.sock", NULL, NULL, NULL, "URL scheme undefined"},
        {"://host", NULL, NULL, NULL, "URL scheme undefined"},
        {"127.0.0.1:49153", NULL, NULL, NULL, "first path segment in URL cannot contain colon"},
        {"host:80", NULL, NULL, NULL, "first path segment in URL cannot contain colon"},
        {"unix://var/run/x", NULL, NULL, NULL, "unable to connect to host \"var\" with scheme \"unix\""},
        {"file://var/run/x", NULL, NULL, NULL, "unable to connect to host \"var\" with scheme \"file\""},
        {"unix://", NULL, NULL, NULL, "\"unix://\" has no path"},
        {"unix:///run/%zz", NULL, NULL, NULL, "\"/run/%zz\" has a '%' that is no escape"},
        {"unix:///run/%", NULL, NULL, NULL, "\"/run/%\" has a '%' that is no escape"},
        {"unix:///run/%2", NULL, NULL, NULL, "\"/run/%2\" has a '%' that is no escape"},
        {"unix:///run/%00", NULL, NULL, NULL, "\"/run/%00\" has a '%' that is no escape"},
        {"http://", NULL, NULL, NULL, "\"http://\" has no host"},
        {"http:/path", NULL, NULL, NULL, "\"http:/path\" has no host"},
        {"http://-oProxyCommand=x", NULL, NULL, NULL, "\"-oProxyCommand=x\" is no host, or host:port"},
        {"http://a b", NULL, NULL, NULL, "\"a b\" is no host, or host:port"},
        {"http://user@host", NULL, NULL, NULL, "\"user@host\" is no host, or host:port"},
        {"http://host:65536", NULL, NULL, NULL, "\"host:65536\" is no host, or host:port"},
        {"http://host:8x", NULL, NULL, NULL, "\"host:8x\" is no host, or host:port"},
        {"http://[::1", NULL, NULL, NULL, "\"[::1\" is no host, or host:port"},
        {"http://[x]", NULL, NULL, NULL, "\"[x]\" is no host, or host:port"},
        {"http://host?x", NULL, NULL, NULL, "\"http://host?x\": a base path has no '?' or '#'"},
        {"ftp://host", NULL, NULL, NULL, "URL scheme \"ftp\" is not supported"},
        {"u:///run/fleet.sock", NULL, NULL, NULL, "URL scheme \"u\" is not supported"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct endpoint e;
        struct err err = {0};
        int r = endpoint_parse(cases[i].text, &e, &err);

        if (cases[i].error != NULL) {
            assert_int_equal(r, -EINVAL);
            assert_memory_equal(err.text, cases[i].error, strlen(cases[i].error));
        } else {
            assert_int_equal(r, 0);
            assert_string_equal(e.base, cases[i].base);
            assert_string_equal(e.socket != NULL ? e.socket : "-",
                                cases[i].socket != NULL ? cases[i].socket : "-");
            assert_string_equal(e.host_port != NULL ? e.host_port : "-",
                                cases[i].host_port != NULL ? cases[i].host_port : "-");
            assert_int_equal(e.tls, strncmp(cases[i].base, "https", 5) == 0);
        }
        endpoint_done(&e);
    }
}

/* What makes no sense is said before anybody is asked. */
static void test_clients_that_cannot_be(void **state)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"--driver=etcd", "unrecognized driver \"etcd\" (there is API only, the default)"},
        {"--driver=foo", "unrecognized driver \"foo\" (there is API only, the default)"},
        {"--driver=api", "unrecognized driver \"api\" (there is API only, the default)"},
        {"--endpoint=https://h --ca-file=/nonexistent", "--ca-file: /nonexistent: No such file or directory"},
        {"--endpoint=https://h --cert-file=/dev/null",
         "/dev/null holds no private key: --key-file must be given too"},
        {"--endpoint=https://h --key-file=/dev/null", "--key-file needs --cert-file"},
        {"--tunnel=-oProxyCommand=x", "--tunnel: \"-oProxyCommand=x\" is no host, or host:port, for ssh"},
        {"--tunnel=h --ssh-username=-x", "--tunnel: \"-x\" is no user name for ssh"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct options o;
        struct api *api = NULL;
        struct err err = {0};

        assert_int_equal(parse(&o, cases[i].line, NULL), 0);
        assert_true(api_new(&o, &api, &err) < 0);
        assert_null(api);
        assert_string_equal(err.text, cases[i].text);
        options_done(&o);
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
        cmocka_unit_test(test_refuses),         cmocka_unit_test(test_options_and_arguments_mix),
        cmocka_unit_test(test_journal_options), cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_short_forms),     cmocka_unit_test(test_global_texts),
        cmocka_unit_test(test_environment),     cmocka_unit_test(test_environment_of_other_kinds),
        cmocka_unit_test(test_verbs),           cmocka_unit_test(test_verbs_are_sorted_and_whole),
        cmocka_unit_test(test_endpoints),       cmocka_unit_test(test_clients_that_cannot_be),
        cmocka_unit_test(test_escape),          cmocka_unit_test(test_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
