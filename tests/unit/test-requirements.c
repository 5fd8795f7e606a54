/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "units/name.h"
#include "units/requirements.h"

static struct requirements *read_requirements(const char *text, const char *name)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;

    assert_int_equal(unit_file_parse(text, strlen(text), &file, NULL), 0);
    return requirements_new(file, name);
}

/* "a|b|" */
static char *join(const struct strlist *l)
{
    struct strbuf b = {0};

    for (size_t i = 0; i < l->count; i++)
        strbuf_addf(&b, "%s|", l->items[i]);
    return strbuf_take(&b);
}

static void assert_list(const struct strlist *l, const char *expected)
{
    _cleanup_(freep) char *joined = join(l);

    assert_string_equal(joined, expected);
}

static void test_failure_limit(void **state)
{
    _cleanup_(requirements_freep) struct requirements *none =
        read_requirements("[X-Fleet]\nGlobal=no\n", NULL);
    _cleanup_(requirements_freep) struct requirements *r = read_requirements(
        "[X-Fleet]\nFailureLimitBurst=2\nFailureLimitIntervalSec=90\nFailureLimitBurst=5\n", "a.service");

    assert_false(none->has_failure_limit);
    assert_int_equal(none->failure_interval_ms, 0);
    assert_true(r->has_failure_limit);
    assert_int_equal(r->failure_burst, 5); /* The last one counts. */
    assert_int_equal(r->failure_interval_ms, 90000);
}

/* fleet-behaviour.md §2.5: rule 2, then each of rule 3, in order. */
static void test_check_refuses(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"MachineOf=a.service\nConflicts=b* a*\n",
         "unresolvable requirements: peer \"a.service\" matches conflict \"a*\""},
        {"MachineOf=a.service\nReplaces=a.service\n",
         "unresolvable requirements: peer \"a.service\" matches replace \"a.service\""},
        {"MachineOf=a.service\nReplaces=*\nConflicts=b\n", /* Before the combination of the two. */
         "unresolvable requirements: peer \"a.service\" matches replace \"*\""},
        {"MachineOf=b.service\nMachineOf=a.service\nReplaces=b*\nConflicts=a*\n", /* All conflicts first. */
         "unresolvable requirements: peer \"a.service\" matches conflict \"a*\""},
        {"MachineID=x\nMachineOf=a.service\nConflicts=*\n",
         "unresolvable requirements: peer \"a.service\" matches conflict \"*\""},
        {"MachineOf=a\\\\b\nConflicts=a\\\\\\\\b\n", NULL}, /* a\\b by its escaped pattern. */
        {"MachineID=x\nMachineOf=y\nConflicts=a\nGlobal=1\nReplaces=b\n",
         "MachineID cannot be used with Peers"},
        {"MachineID=x\nX-ConditionMachineOf=y\n", "MachineID cannot be used with Peers"},
        {"MachineID=x\nConflicts=a\nGlobal=1\nReplaces=b\n", "MachineID cannot be used with Conflicts"},
        {"MachineID=x\nGlobal=1\nReplaces=b\n", "MachineID cannot be used with Global"},
        {"MachineID=x\nReplaces=b\n", "MachineID cannot be used with Replaces"},
        {"Global=1\nReplaces=b\nMachineOf=y\n", "Global cannot be used with Peers"},
        {"Global=1\nReplaces=b\nConflicts=y\n", "Global cannot be used with Replaces"},
        {"Conflicts=y\nReplaces=b\n", "Conflicts cannot be used with Replaces"},
        {"OnDisconnect=Stop\n", "OnDisconnect must be keep or stop, not \"Stop\""},
        {"OnDisconnect=yes\nOnDisconnect=stop\n", "OnDisconnect must be keep or stop, not \"yes\""},
        {"Global=yes\nOnDisconnect=stop\n",
         "Global cannot be used with OnDisconnect=stop: all machines have their own"},
        {"OnDisconnect=stop\n[Service]\nTimeoutStopSec=infinity\n",
         "OnDisconnect=stop needs a TimeoutStopSec of at most 300 s, not \"infinity\": so long every start on"
         " another machine waits"},
        {"OnDisconnect=stop\n[Service]\nTimeoutStopSec=0\n", NULL}, /* For systemd: infinity. */
        {"OnDisconnect=stop\n[Service]\nTimeoutStopSec=301\n", NULL},
        {"OnDisconnect=stop\n[Socket]\nTimeoutSec=1h\n", NULL},
        {"X-ConditionMachineBootID=\nX-Conflicts=y\n", "MachineID cannot be used with Conflicts"},
        {"FailureLimitBurst=many\n", "\"FailureLimitBurst=many\": FailureLimitBurst is a number up to 32, "
                                     "FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitBurst=-1\n", "\"FailureLimitBurst=-1\": FailureLimitBurst is a number up to 32, "
                                   "FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitBurst=33\n", "\"FailureLimitBurst=33\": FailureLimitBurst is a number up to 32, "
                                   "FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitBurst=\n", "\"FailureLimitBurst=\": FailureLimitBurst is a number up to 32, "
                                 "FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitBurst=3 x\n", "\"FailureLimitBurst=3 x\": FailureLimitBurst is a number up to 32, "
                                    "FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitIntervalSec=0\n", "\"FailureLimitIntervalSec=0\": FailureLimitBurst is a number up to "
                                        "32, FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitIntervalSec=2d\n", "\"FailureLimitIntervalSec=2d\": FailureLimitBurst is a number up "
                                         "to 32, FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitIntervalSec=soon\n", "\"FailureLimitIntervalSec=soon\": FailureLimitBurst is a number "
                                           "up to 32, FailureLimitIntervalSec a time up to a day"},
        {"FailureLimitBurst=x\nFailureLimitBurst=3\n",
         "\"FailureLimitBurst=x\": FailureLimitBurst is a number up to 32, FailureLimitIntervalSec a time up "
         "to a day"},
        {"Conflicts=y\nReplaces=\n", "Conflicts cannot be used with Replaces"}, /* Empty counts... */
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        _cleanup_(requirements_freep) struct requirements *r = NULL;
        _cleanup_(freep) char *text = NULL;
        struct strbuf b = {0};
        struct err err = {0};

        strbuf_addf(&b, "[X-Fleet]\n%s", bad[i].text);
        text = strbuf_take(&b);
        r = read_requirements(text, NULL);
        assert_int_equal(requirements_check(r, &err), -EINVAL);
        if (bad[i].why != NULL)
            assert_string_equal(err.text, bad[i].why);
    }
}

/* §2.5: what is allowed together, and what is not detected. */
static void test_check_takes(void **state)
{
    static const char *const good[] = {
        "",
        "[X-Fleet]\nGlobal=1\nConflicts=a\nMachineMetadata=a=b\n",
        "[X-Fleet]\nMachineID=x\nMachineMetadata=a=b\nConflicts=\n", /* ...but an empty Conflicts is none. */
        "[X-Fleet]\nMachineOf=a\nConflicts=b\n",
        "[X-Fleet]\nX-ConditionMachineOf=a\nX-Conflicts=b\n",
        "[X-Fleet]\nMachineOf=a\nReplaces=b\n",
        "[X-Fleet]\nMachineID=x\nGlobal=no\n",
        "[X-Fleet]\nFailureLimitBurst=32\nFailureLimitIntervalSec=1h 30min\n",
        "[X-Fleet]\nFailureLimitBurst=0\nMachineOf=a\n",
        "[X-Fleet]\nMachineOf=a\nConflicts=[a\n", /* Malformed: matches nothing. */
        "[X-Fleet]\nMachineOf=%p@1.service\nConflicts=%p@2.service\n",
        "[x-fleet]\nMachineID=x\n[X-Fleet]\nConflicts=a\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        _cleanup_(requirements_freep) struct requirements *r = read_requirements(good[i], NULL);
        struct err err = {0};

        assert_int_equal(requirements_check(r, &err), 0);
        assert_string_equal(err.text, "");
    }
}

static void test_limits(void **state)
{
    static const struct {
        const char *line;
        int count;
        int r;
    } table[] = {
        {"Conflicts=a b c d\n", 256, 0},     {"Conflicts=a b c d\n", 257, -E2BIG},
        {"MachineOf=a\n", 1024, 0},          {"MachineOf=a\n", 1025, -E2BIG},
        {"MachineMetadata=a=%n\n", 126, 0},  {"MachineMetadata=a=%n\n", 127, -E2BIG},
        {"Replaces=12345678\n", 1024, 0},    {"MachineOf=\"a b\" \"c\"\n", 513, -E2BIG},
        {"Unknown=%n%n%n%n%n%n\n", 4000, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(requirements_freep) struct requirements *plain = NULL, *named = NULL;
        _cleanup_(strbuf_done) struct strbuf b = {0};
        struct err err = {0};

        strbuf_add(&b, "[X-Fleet]\n");
        for (int j = 0; j < table[i].count; j++)
            strbuf_add(&b, table[i].line);
        plain = read_requirements(b.text, NULL);
        named = read_requirements(b.text, "x.service");
        assert_int_equal(requirements_check(plain, &err), table[i].r);
        assert_int_equal(requirements_check(named, NULL), table[i].r);
        assert_true(table[i].r == 0 || strstr(err.text, "too large") != NULL);
    }
}

/* §8.1: X-Fleet multi-values, and more of §2.4. */
static void test_multi_values(void **state)
{
    static const struct {
        const char *value, *values;
    } vectors[] = {
        {"a b", "a b|"},
        {"\"a b\"", "a b|"},
        {"\"a\" \"b\"", "a|b|"},
        {"\"a=b\" \"c d=e\"", "a=b|c d=e|"},
        {"\"a\"\"b\"", "ab|"},
        {"\"a\"  \"b\"", "a||b|"},
        {"\"a", "\"a|"},
        {"a\"", "a\"|"},
        {"\"a\" b \"c\"", "a|b|c|"},
        {"\"\"", "|"},
        {"\"", "|"},
        {"", "|"},
        {"\"a\\\"b\"", "a\\b|"},
        {"\"a\"\t\"b\"", "a\tb|"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
        _cleanup_(requirements_freep) struct requirements *r = NULL;

        unit_file_add(file, "X-Fleet", "MachineOf", vectors[i].value);
        unit_file_add(file, "X-Fleet", "Replaces", vectors[i].value);
        r = requirements_new(file, NULL);
        assert_list(&r->machine_of, vectors[i].values);
        assert_list(&r->replaces, vectors[i].values);
    }
}

/* §2.4: Conflicts, X-Conflicts. */
static void test_conflicts_are_split_further(void **state)
{
    static const struct {
        const char *text, *values;
    } table[] = {
        {"Conflicts=a b\n", "a|b|"},
        {"Conflicts=\"a\" \"b c\"\n", "a|b|c|"},
        {"Conflicts=a\nX-Conflicts=b\nConflicts=\t c \n", "a|b|c|"},
        {"Conflicts=\n", ""},
        {"Conflicts=\"\"  \"\"\n", ""},
        {"Conflicts=a\xc2\xa0\xe2\x80\x80"
         "b\xa0\n",
         "a|b\xa0|"},
        {"Conflicts=a\\\n b\n", "a\\|b|"}, /* The backslash of a continuation is part of the value. */
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(requirements_freep) struct requirements *r = NULL;
        _cleanup_(freep) char *text = NULL;
        struct strbuf b = {0};

        strbuf_addf(&b, "[X-Fleet]\n%s", table[i].text);
        text = strbuf_take(&b);
        r = read_requirements(text, NULL);
        assert_list(&r->conflicts, table[i].values);
    }
}

/* §2.4: MachineMetadata, X-ConditionMachineMetadata. */
static void test_metadata(void **state)
{
    _cleanup_(requirements_freep) struct requirements *r =
        read_requirements("[X-Fleet]\nMachineMetadata=\"a=1\" \"b=2\"\nX-ConditionMachineMetadata=a=3\n"
                          "MachineMetadata=a=1\nMachineMetadata=x\nMachineMetadata=x=\nMachineMetadata==x\n"
                          "MachineMetadata=x=y=z\nMachineMetadata=c d=e f\nMachineMetadata=p=1 q=2\n"
                          "MachineMetadata=aa=%i\n",
                          "t@7.service");

    assert_int_equal(r->metadata_count, 4);
    assert_string_equal(r->metadata[0].key, "a");
    assert_list(&r->metadata[0].values, "1|3|");
    assert_string_equal(r->metadata[1].key, "b");
    assert_list(&r->metadata[1].values, "2|");
    assert_string_equal(r->metadata[2].key, "c d");
    assert_list(&r->metadata[2].values, "e f|");
    assert_string_equal(r->metadata[3].key, "aa");
    assert_list(&r->metadata[3].values, "7|");
}

/* §2.4: MachineID, X-ConditionMachineID, X-ConditionMachineBootID, in order of precedence. */
static void test_machine_id(void **state)
{
    static const struct {
        const char *text, *id;
    } table[] = {
        {"Bogus=1\n", NULL},
        {"MachineBootID=a\n", NULL},
        {"MachineID=\n", ""},
        {"MachineID=a\nMachineID=b\n", "a"},
        {"MachineID=\"a\" \"b\"\n", "a"},
        {"X-ConditionMachineID=a\nMachineID=b\n", "b"},
        {"X-ConditionMachineBootID=a\nX-ConditionMachineID=b\n", "b"},
        {"MachineID=a\nX-ConditionMachineID=b\n", "a"},
        {"X-ConditionMachineBootID=a\nX-ConditionMachineBootID=b\n", "a"},
        {"MachineID=%i\n", "7"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(requirements_freep) struct requirements *r = NULL;
        _cleanup_(freep) char *text = NULL;
        struct strbuf b = {0};

        strbuf_addf(&b, "[X-Fleet]\n%s", table[i].text);
        text = strbuf_take(&b);
        r = read_requirements(text, "t@7.service");
        assert_int_equal(r->has_machine_id, table[i].id != NULL);
        if (table[i].id != NULL)
            assert_string_equal(r->machine_id, table[i].id);
    }
}

/* §2.4: Global. */
static void test_global(void **state)
{
    static const struct {
        const char *text;
        bool global;
    } table[] = {
        {"Global=true\n", true},
        {"Global=YES\n", true},
        {"Global=1\n", true},
        {"Global=On\n", true},
        {"Global=t\n", true},
        {"Global=\n", false},
        {"Global=y\n", false},
        {"Global=0\n", false},
        {"Global=true\nGlobal=no\n", false},
        {"Global=no\nGlobal=true\n", true},
        {"global=true\n", false},
        {"Global=\"no\" \"yes\"\n", true},
        {"X-Global=true\n", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(requirements_freep) struct requirements *r = NULL;
        _cleanup_(freep) char *text = NULL;
        struct strbuf b = {0};

        strbuf_addf(&b, "[X-Fleet]\n%s", table[i].text);
        text = strbuf_take(&b);
        r = read_requirements(text, NULL);
        assert_int_equal(r->global, table[i].global);
    }
}

/* §2.4: in every value, but only for a named unit, and in no other section. */
static void test_specifiers(void **state)
{
    static const char text[] = "[Unit]\nX=%i\n[X-Fleet]\nMachineOf=\"%p-db@%i.service\" \"%n\"\n"
                               "Conflicts=%p@*.service\nReplaces=%N|%h|%%\n";
    _cleanup_(requirements_freep) struct requirements *named = read_requirements(text, "web@1.service"),
                                                      *plain = read_requirements(text, NULL),
                                                      *template = read_requirements(text, "web@.service");

    assert_list(&named->machine_of, "web-db@1.service|web@1.service|");
    assert_list(&named->conflicts, "web@*.service|");
    assert_list(&named->replaces, "web@1|%h|%%|");
    assert_list(&plain->machine_of, "%p-db@%i.service|%n|");
    assert_list(&plain->conflicts, "%p@*.service|");
    assert_list(&template->machine_of, "web-db@.service|web@.service|");
}

static void test_what_differs_for_systemd(void **state)
{
    static const struct {
        const char *a, *b;
        bool only_fleet;
    } table[] = {
        {"", "", true},
        {"[Service]\nA=1\n", "[Service]\nA=1\n", true},
        {"[Service]\nA=1\n", "[Service]\nA=1\n[X-Fleet]\nGlobal=1\n", true},
        {"[X-Fleet]\nGlobal=1\n[Service]\nA=1\n[X-Fleet]\nConflicts=a\n", "[Service]\nA=1\n", true},
        {"[Unit]\nD=1\n[X-Fleet]\nX=1\n[Service]\nA=1\n", "[Unit]\nD=1\n[Service]\nA=1\n", true},
        {"[Service]\nA=1\n", "[Service]\nA=2\n", false},
        {"[Service]\nA=1\nA=2\n", "[Service]\nA=2\nA=1\n", false},
        {"[Service]\nA=1\n", "[Unit]\nA=1\n", false},
        /* systemd ignores these, too; but they may be there to force a restart. */
        {"[X-Other]\nA=1\n", "[X-Other]\nA=2\n", false},
        {"[Service]\nX-Version=1\n", "[Service]\nX-Version=2\n", false},
        {"[x-fleet]\nA=1\n", "", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(unit_file_freep) struct unit_file *a = NULL, *b = NULL;

        assert_int_equal(unit_file_parse(table[i].a, strlen(table[i].a), &a, NULL), 0);
        assert_int_equal(unit_file_parse(table[i].b, strlen(table[i].b), &b, NULL), 0);
        assert_int_equal(requirements_are_all_that_differs(a, b), table[i].only_fleet);
        assert_int_equal(requirements_are_all_that_differs(b, a), table[i].only_fleet);
    }
}

/* §2.4: unknown names are no errors. */
static void test_unknown(void **state)
{
    static const char text[] =
        "[Unit]\nBogus=1\n[X-Fleet]\nMachineBootID=1\nGlobal=1\nX-Conflicts=a\nconflicts=b\n"
        "X-ConditionMachineOf=c\n";
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    size_t position = 0;

    assert_int_equal(unit_file_parse(text, strlen(text), &file, NULL), 0);
    assert_string_equal(requirements_next_unknown(file, &position), "MachineBootID");
    assert_string_equal(requirements_next_unknown(file, &position), "conflicts");
    assert_null(requirements_next_unknown(file, &position));
    assert_null(requirements_next_unknown(file, &position));
}

/* The cases of Go's own tests of path.Match, and some on unit names. */
static void test_glob(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } table[] = {
        /* Malformed patterns match nothing. */
        {"[]a]", "]", false},
        {"[-]", "-", false},
        {"[x-]", "x", false},
        {"[x-]", "-", false},
        {"[-x]", "x", false},
        {"[-x]", "a", false},
        {"[a-b-d]", "a", false},
        {"[", "a", false},
        {"[^", "a", false},
        {"[^bc", "a", false},
        {"a[", "a", false},
        {"a[", "ab", false},
        {"*[", "a", false},
        {"[]", "a", false},
        {"[^]", "a", false},
        {"[\xff]", "\xff", false},
        {"\\", "a", false},
        {"\\", "\\", false},
        {"a\\", "a", false},
        {"[\\]", "a", false},
        {"*x\\", "x", false},
        /* */
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"*", "", true},
        {"?", "", false},
        {"[a]", "", false},
        {"abc", "abc", true},
        {"*", "abc", true},
        {"*c", "abc", true},
        {"a*", "a", true},
        {"a*", "abc", true},
        {"a*", "ab/c", false},
        {"a*/b", "abc/b", true},
        {"a*/b", "a/c/b", false},
        {"a*b*c*d*e*/f", "axbxcxdxe/f", true},
        {"a*b*c*d*e*/f", "axbxcxdxexxx/f", true},
        {"a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false},
        {"a*b*c*d*e*/f", "axbxcxdxexxx/fff", false},
        {"a*b?c*x", "abxbbxdbxebxczzx", true},
        {"a*b?c*x", "abxbbxdbxebxczzy", false},
        {"ab[c]", "abc", true},
        {"ab[b-d]", "abc", true},
        {"ab[e-g]", "abc", false},
        {"ab[^c]", "abc", false},
        {"ab[^b-d]", "abc", false},
        {"ab[^e-g]", "abc", true},
        {"ab[!c]", "abc", true}, /* No negation: '!' or 'c'. */
        {"a\\*b", "a*b", true},
        {"a\\*b", "ab", false},
        {"a?b",
         "a\xe2\x98\xba"
         "b",
         true},
        {"a[^a]b",
         "a\xe2\x98\xba"
         "b",
         true},
        {"a???b",
         "a\xe2\x98\xba"
         "b",
         false},
        {"a[^a][^a][^a]b",
         "a\xe2\x98\xba"
         "b",
         false},
        {"[a-\xce\xb6]*", "\xce\xb1", true},
        {"*[a-\xce\xb6]", "A", false},
        {"a?b", "a/b", false},
        {"a*b", "a/b", false},
        {"a[/]b", "a/b", true},
        {"[\\]a]", "]", true},
        {"[\\-]", "-", true},
        {"[x\\-]", "x", true},
        {"[x\\-]", "-", true},
        {"[x\\-]", "z", false},
        {"[\\-x]", "x", true},
        {"[\\-x]", "-", true},
        {"[\\-x]", "a", false},
        {"[*]", "*", true},
        {"[a*]b", "ab", true},
        {"*x", "xxx", true},
        {"**c", "abc", true},
        {"*.service", "web@1.service", true},
        {"web@*.service", "web@.service", true},
        {"web@[1-3].service", "web@3.service", true},
        {"web@[1-3].service", "web@4.service", false},
        {"web.*", "web.socket", true},
        {"web", "web.service", false},
        {"WEB.service", "web.service", false},
        {"a\\x2db.mount", "a\\x2db.mount", false}, /* Names with '\' need "\\\\". */
        {"a\\\\x2db.mount", "a\\x2db.mount", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (requirements_glob(table[i].pattern, table[i].name) != table[i].matches)
            fail_msg("glob \"%s\" on \"%s\"", table[i].pattern, table[i].name);
}

static void test_on_disconnect(void **state)
{
    static const struct {
        const char *text;
        uint64_t stop_ms;
    } table[] = {
        {"[Service]\nTimeoutStopSec=3\n", 0},
        {"[X-Fleet]\nOnDisconnect=keep\n", 0},
        {"[X-Fleet]\nOnDisconnect=\n", 0},
        {"[X-Fleet]\nOnDisconnect=stop\n", REQUIREMENTS_STOP_DEFAULT_MS},
        {"[X-Fleet]\nOnDisconnect=stop\nOnDisconnect=keep\n", 0}, /* The last one counts. */
        {"[X-Fleet]\nOnDisconnect=stop\n[Service]\nTimeoutStopSec=1min 500ms\n", 60500},
        {"[X-Fleet]\nOnDisconnect=stop\n[Service]\nTimeoutStopSec=1\nTimeoutSec=2\n", 2000},
        {"[X-Fleet]\nOnDisconnect=stop\n[Service]\nTimeoutStopSec=1\nTimeoutStopSec=\n",
         REQUIREMENTS_STOP_DEFAULT_MS},
        {"[X-Fleet]\nOnDisconnect=stop\n[Unit]\nTimeoutStopSec=1\n", REQUIREMENTS_STOP_DEFAULT_MS},
        {"[X-Fleet]\nOnDisconnect=stop\n[Service]\nTimeoutStopSec=300\n", REQUIREMENTS_STOP_MAX_MS},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(requirements_freep) struct requirements *r = read_requirements(table[i].text, "a.service");

        assert_int_equal(requirements_check(r, NULL), 0);
        assert_int_equal(r->stop_ms, table[i].stop_ms);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure_limit),
        cmocka_unit_test(test_on_disconnect),
        cmocka_unit_test(test_check_refuses),
        cmocka_unit_test(test_check_takes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_multi_values),
        cmocka_unit_test(test_conflicts_are_split_further),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_machine_id),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_specifiers),
        cmocka_unit_test(test_what_differs_for_systemd),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_glob),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
