/* SPDX-License-Identifier: Apache-2.0 */
/* What fleetctl says to ssh: nothing that comes from outside may become an option, or a second word. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/ssh.h"

static const char *const none[] = {NULL};

/* The words that ssh gets for 'destination', each in brackets, or the error. */
static char *words(const struct options *o, const char *destination)
{
    struct strlist argv = {0};
    struct strbuf b = {0};
    struct err err = {0};

    if (ssh_add_words(o, none, destination, &argv, &err) < 0)
        strbuf_add(&b, err.text);
    else
        for (size_t i = 0; i < argv.count; i++)
            strbuf_addf(&b, "[%s]", argv.items[i]);
    strlist_done(&argv);
    return strbuf_take(&b);
}

static void test_destinations(void **state)
{
    static const struct {
        const char *destination, *words; /* NULL: refused. */
    } cases[] = {
        {"host", "[ssh][host]"},
        {"host:2222", "[ssh][-p][2222][host]"},
        {"10.0.0.1:22", "[ssh][-p][22][10.0.0.1]"},
        {"alice@host_1.example", "[ssh][-l][alice][host_1.example]"},
        {"[fd77::1]:2222", "[ssh][-p][2222][fd77::1]"},
        {"[fd77::1]", "[ssh][fd77::1]"},
        {"fd77::1", "[ssh][fd77::1]"},
        {"fe80::1%eth0", "[ssh][fe80::1%eth0]"},
        {"", NULL},
        {":22", NULL},
        {"host:", NULL},
        {"host:0", NULL},
        {"host:65536", NULL},
        {"host:22x", NULL},
        {"host:-1", NULL},
        {"[fd77::1", NULL},
        {"[]", NULL},
        {"[-x]:22", NULL},
        {"[fd77::1]x", NULL},
        {"-oProxyCommand=touch /tmp/x", NULL},
        {"-oProxyCommand", NULL},
        {"--", NULL},
        {"alice@-oProxyCommand", NULL},
        {"-l@host", NULL},
        {"@host", NULL},
        {"a b", NULL},
        {"a;b", NULL},
        {"a\nb", NULL},
        {"$(x)", NULL},
        {"`x`", NULL},
        {"host%h", NULL},
        {"a'b", NULL},
    };
    const struct options o = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *got = words(&o, cases[i].destination);

        if (cases[i].words != NULL)
            assert_string_equal(got, cases[i].words);
        else
            assert_non_null(strstr(got, " for ssh"));
    }
}

static void test_settings(void **state)
{
    struct options o = {.ssh_timeout_ms = 2500, .host_key_checking = TRISTATE_NO};
    char *got;

    o.ssh_username = (char *)"core";
    o.known_hosts_file = (char *)"/a b/100%h";
    got = words(&o, "host:5");
    assert_string_equal(got, "[ssh][-o][ConnectTimeout=3][-o][StrictHostKeyChecking=no]"
                             "[-o][UserKnownHostsFile=\"/a b/100%%h\"][-p][5][-l][core][host]");
    free(got);

    o = (struct options){.host_key_checking = TRISTATE_YES};
    got = words(&o, "host");
    assert_string_equal(got, "[ssh][-o][StrictHostKeyChecking=ask][host]");
    free(got);

    /* The user of the destination itself wins. */
    o = (struct options){.ssh_username = (char *)"core"};
    got = words(&o, "bob@host");
    assert_string_equal(got, "[ssh][-l][bob][host]");
    free(got);
}

static void test_settings_that_are_refused(void **state)
{
    static const char *const files[] = {"a\" ProxyCommand=x", "a\\", "${HOME}/x", "a\nb"};
    static const char *const users[] = {"-oProxyCommand=x", "a b", "a;b", "$(x)", "a\nb"};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        const struct options o = {.known_hosts_file = (char *)files[i]};
        _cleanup_(freep) char *got = words(&o, "host");

        assert_non_null(strstr(got, "ssh cannot be given the path"));
    }
    for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
        const struct options o = {.ssh_username = (char *)users[i]};
        _cleanup_(freep) char *got = words(&o, "host");

        assert_non_null(strstr(got, "is no user name for ssh"));
    }
}

static void test_extra_words_come_before_the_host(void **state)
{
    static const char *const extra[] = {"-t", NULL};
    const struct options o = {0};
    struct strlist argv = {0};

    assert_int_equal(ssh_add_words(&o, extra, "host", &argv, NULL), 0);
    assert_int_equal(argv.count, 3);
    assert_string_equal(argv.items[1], "-t");
    assert_string_equal(argv.items[2], "host");
    strlist_done(&argv);
}

static void test_proxy(void **state)
{
    struct options o = {.tunnel = (char *)"bob@gate:2222"};
    char *option = NULL;

    o.known_hosts_file = (char *)"/a b%h";
    assert_int_equal(ssh_proxy_option(&o, &option, NULL), 0);
    /* ssh itself turns each %% into %, and fills in the rest, before a shell reads it. */
    assert_string_equal(option, "ProxyCommand=ssh -o 'UserKnownHostsFile=\"/a b%%%%h\"' -p 2222 -l bob -W "
                                "'[%h]:%p' gate");
    free(option);
    o.tunnel = (char *)"gate;x";
    assert_int_equal(ssh_proxy_option(&o, &option, NULL), -EINVAL);
}

static void test_quote(void **state)
{
    static const struct {
        const char *word, *quoted;
    } cases[] = {
        {"/run/fleet.sock", "/run/fleet.sock"},
        {"", "''"},
        {"a b", "'a b'"},
        {"a'b", "'a'\\''b'"},
        {"$(x)", "'$(x)'"},
        {"a;b", "'a;b'"},
        {"~", "'~'"},
        {"*", "'*'"},
        {"a\nb", "'a\nb'"},
        {"!x", "'!x'"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *quoted = ssh_quote(cases[i].word);
        _cleanup_(freep) char *command = xasprintf("printf %%s %s", quoted);
        FILE *shell = popen(command, "r");
        char out[64] = "";
        size_t size = fread(out, 1, sizeof out - 1, shell);

        assert_int_equal(pclose(shell), 0);
        out[size] = '\0';
        assert_string_equal(quoted, cases[i].quoted);
        assert_string_equal(out, cases[i].word); /* What a shell makes of it. */
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_settings_that_are_refused),
        cmocka_unit_test(test_extra_words_come_before_the_host),
        cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_quote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
