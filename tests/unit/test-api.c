/* SPDX-License-Identifier: Apache-2.0 */
/* The API, from a raw request to a raw answer. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/base64.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "tests/unit/api-world.h"

/* ---- bad requests ---- */

static void test_paths(void **state)
{
    static const struct {
        const char *method, *path;
        unsigned status;
        const char *text;
    } cases[] = {
        {"GET", "/", 405, "\""},
        {"GET", "", 404, "\""},
        {"GET", V1, 405, "\""},
        {"PUT", "/v1-alpha", 405, "\""},
        {"GET", V1 "/", 404, "\""},
        {"GET", "/v1-alpha/", 404, "\""},
        {"GET", "/fleet/v2/units", 404, "\""},
        {"GET", "/fleet/v1x/units", 404, "\""},
        {"GET", "/fleet", 404, "\""},
        {"GET", V1 "/nothing", 404, "\""},
        {"GET", V1 "/unit", 404, "\""},
        {"GET", V1 "/machines/", 404, "\""},
        {"GET", V1 "/machines/x", 404, "\""},
        {"GET", V1 "/discovery/", 404, "\""},
        {"GET", V1 "/units/", 404, "\""},
        {"GET", V1 "/units/a.service/", 404, "\""},
        {"GET", V1 "/units/a/b", 404, "\""},
        {"GET", V1 "/state/", 404, "\""},
        {"GET", V1 "/wait/", 404, "\""},
        {"GET", V1 "/explain", 404, "\""},
        {"GET", V1 "/members/x", 404, "\""},
        {"HEAD", V1 "/units", 405, "only GET supported against this resource\""},
        {"DELETE", V1 "/units", 405, "only GET supported against this resource\""},
        {"POST", V1 "/machines", 405, "only GET and PATCH supported against this resource\""},
        {"POST", V1 "/units/x", 405, "only GET, PUT and DELETE supported against this resource\""},
        {"PUT", V1 "/state", 405, "only GET supported against this resource\""},
        {"PUT", V1 "/state/x", 405, "only GET supported against this resource\""},
        {"get", V1 "/state/x", 405, "only GET supported against this resource\""},
        {"POST", V1 "/discovery", 400, "only HTTP GET supported against this resource\""},
        {"GET", V1 "/wait", 405, "only POST supported against this resource\""},
        {"POST", V1 "/explain/x", 405, "only GET supported against this resource\""},
        {"PUT", V1 "/members", 405, "only GET and POST supported against this resource\""},
        {"GET", V1 "/leadership", 405, "only POST supported against this resource\""},
        {"POST", V1 "/settings", 405, "only GET and PATCH supported against this resource\""},
        {"GET", V1 "/settings/voters", 404, "\""},
        {"GET", V1 "/units/missing", 404, "unit does not exist\""},
        {"GET", "/v1-alpha/units/missing", 404, "unit does not exist\""},
        {"DELETE", V1 "/units/missing", 404, "unit does not exist\""},
        {"GET", V1 "/explain/missing", 404, "unit does not exist\""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(*state, cases[i].method, cases[i].path, NULL);
        assert_error(*state, cases[i].status, cases[i].text);
    }
}

static void test_put_refused(void **state)
{
    static const struct {
        const char *name, *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"a.service", "", 400, "unable to decode body: EOF\""},
        {"a.service", " \n", 400, "unable to decode body: EOF\""},
        {"a.service", "{", 400, "unable to decode body: line"},
        {"a.service", "[]", 400, "unable to decode body: "},
        {"a.service", "7", 400, "unable to decode body: "},
        {"a.service", "{\"name\":7}", 400, "unable to decode body: "},
        {"a.service", "{\"options\":{}}", 400, "unable to decode body: "},
        {"a.service", "{\"options\":[null]}", 400, "unable to decode body: option 1"},
        {"a.service", "{\"options\":[7]}", 400, "unable to decode body: option 1"},
        {"a.service", "{\"options\":[{\"name\":[]}]}", 400, "unable to decode body: option 1"},
        {"a.service", "{\"currentState\":1}", 400, "unable to decode body: "},
        {"a.service", "{\"name\":\"a\\u0000b\"}", 400, "unable to decode body: "},
        {"a.service", "{\"name\":\"\xff\"}", 400, "unable to decode body: "},
        {"a.service", "{\"name\":\"b.service\"}", 400,
         "name in URL \\\"a.service\\\" differs from unit name in request body \\\"b.service\\\"\""},
        {"a", "{}", 400, "unit name must contain \\\".\\\"\""},
        {"a.conf", "{}", 400, "invalid unit type: "},
        {"a.service", "{}", 409, "unit does not exist and options field empty\""},
        {"a.service", "null", 409, "unit does not exist and options field empty\""},
        {"a.service", "{\"options\":null}", 409, "unit does not exist and options field empty\""},
        {"a.service", "{\"options\":[],\"desiredState\":\"launched\"}", 409,
         "unit does not exist and options field empty\""},
        {"a.service", "{\"desiredState\":\"running\"," PLAIN "}", 400, ""},
        {"a.service", "{\"desiredState\":\"Launched\"," PLAIN "}", 400, ""},
        {"a@.service", "{\"desiredState\":\"launched\"," PLAIN "}", 400,
         "cannot activate template \\\"a@.service\\\"\""},
        {"a.service",
         "{\"options\":[" OPTION("X-Fleet", "MachineID", "x") "," OPTION("X-Fleet", "Conflicts", "y") "]}",
         400, "MachineID cannot be used with Conflicts\""},
        {"a.service", "{\"options\":[" OPTION("A", "B", "c\\nD=e") "]}", 400, ""},
        {"old.service", "{}", 409, "must provide DesiredState to update existing unit\""},
        {"old.service", "{" PLAIN "}", 409, "must provide DesiredState to update existing unit\""},
        {"old.service", "{\"desiredState\":\"bogus\"}", 400, ""},
        {"old.service", "{\"desiredState\":\"bogus\"," PLAIN "}", 400, ""},
        {"old@.service", "{\"desiredState\":\"loaded\"}", 400,
         "cannot activate template \\\"old@.service\\\"\""},
        {"old.service",
         "{\"options\":[" OPTION("X-Fleet", "MachineID", "x") "," OPTION("X-Fleet", "Global", "true") "]}",
         400, "MachineID cannot be used with Global\""},
    };
    struct world *world = *state;
    unsigned proposals;

    put(world, "old.service", "{" PLAIN "}", 201);
    put(world, "old@.service", "{" PLAIN "}", 201);
    proposals = world->proposals;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put(world, cases[i].name, cases[i].body, cases[i].status);
        assert_error(world, cases[i].status, cases[i].text);
    }
    assert_int_equal(world->proposals, proposals);
}

static void test_put_content_type(void **state)
{
    static const struct {
        const char *type;
        unsigned count;
        const char *text; /* NULL: accepted. */
    } cases[] = {
        {"", 0, "expected 1 Content-Type, got 0\""},
        {"application/json", 2, "expected 1 Content-Type, got 2\""},
        {"text/plain", 1, "only acceptable Content-Type is application/json\""},
        {"Application/JSON", 1, "only acceptable Content-Type is application/json\""},
        {"application/jsonx", 1, "only acceptable Content-Type is application/json\""},
        {"", 1, "only acceptable Content-Type is application/json\""},
        {"application/json", 1, NULL},
        {" application/json ; charset=utf-8", 1, NULL},
    };
    struct world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask_raw(world, &(struct ask){.method = "PUT",
                                     .path = V1 "/units/a.service",
                                     .body = "{\"desiredState\":\"loaded\"," PLAIN "}",
                                     .content_type = cases[i].type,
                                     .content_type_count = cases[i].count});
        if (cases[i].text != NULL)
            assert_error(world, 415, cases[i].text);
        else
            assert_in_range(world->status, 201, 204);
    }
}

static void test_limits(void **state)
{
    struct world *world = *state;
    struct strbuf body = {0};

    for (unsigned i = 0; i < 2000; i++)
        strbuf_add(&body, "[");
    put(world, "a.service", body.text, 400);
    for (unsigned i = 0; i < API_JSON_VALUES_MAX; i++)
        strbuf_add(&body, "[");
    put(world, "a.service", body.text, 413);
    for (unsigned i = 0; body.size <= API_BODY_MAX; i++)
        strbuf_add(&body, "                                                                              ");
    put(world, "a.service", body.text, 413);
    assert_error(world, 413, "the body is");
    strbuf_done(&body);

    strbuf_add(&body, "{\"options\":[");
    for (unsigned i = 0; i < UNIT_FILE_OPTIONS_MAX; i++)
        strbuf_add(&body, OPTION("A", "B", "c") ",");
    strbuf_add(&body, OPTION("A", "B", "c") "]}");
    put(world, "a.service", body.text, 413);
    assert_has(world, "the limit is 4096");
    strbuf_done(&body);

    strbuf_add(&body, "{\"options\":[");
    for (unsigned i = 0; i < 300; i++) {
        strbuf_add(&body, i > 0 ? "," : "");
        strbuf_add(&body, "{\"section\":\"A\",\"name\":\"B\",\"value\":\"");
        for (unsigned j = 0; j < 100; j++)
            strbuf_add(&body, "0123456789");
        strbuf_add(&body, "\"}");
    }
    strbuf_add(&body, "]}");
    put(world, "a.service", body.text, 413);
    assert_has(world, "the limit is 262144");
    strbuf_done(&body);
}

/* ---- one unit ---- */

static void test_put(void **state)
{
    struct world *world = *state;

    put(world, "a.service",
        "{\"NAME\":\"a.service\",\"Options\":[{\"SECTION\":\"Unit\",\"Name\":\"A\","
        "\"VALUE\":\"<b>\"}],\"unknown\":[1,{}]} trailing garbage",
        201);
    assert_string_equal(world->content_type, "none");
    assert_string_equal(world->body, "");
    assert_get(world, V1 "/units/a.service", NULL,
               "{\"currentState\":\"inactive\",\"desiredState\":\"inactive\",\"generation\":1,"
               "\"hash\":\"" /* printf '[Unit]\nA=<b>\n' | sha1sum */
               "f9f12cc218336e54598073e4936898e3f29ddef2\",\"name\":\"a.service\","
               "\"options\":[{\"name\":\"A\",\"section\":\"Unit\",\"value\":\"\\u003cb\\u003e\"}]}");
}

static void test_put_replaces(void **state)
{
    struct world *world = *state;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    put(world, "a.service", "{\"DESIREDstate\":\"loaded\"}", 204);
    assert_string_equal(world->content_type, "none");
    put(world, "a.service", "{\"desiredState\":\"loaded\"," PLAIN "}",
        204); /* Same content: only the state. */
    put(world, "a.service", "{\"options\":[" OPTION("A", "B", "c") "]}", 201);
    ask(world, "GET", V1 "/units/a.service", NULL);
    assert_has(world, "\"desiredState\":\"inactive\"");
    put(world, "a.service", "{\"desiredState\":\"launched\",\"options\":[" OPTION("A", "B", "d") "]}", 201);
    ask(world, "GET", V1 "/units/a.service", NULL);
    assert_has(world, "\"desiredState\":\"launched\"");
    ask(world, "DELETE", V1 "/units/a.service", NULL);
    assert_int_equal(world->status, 204);
    assert_string_equal(world->content_type, "none");
    ask(world, "DELETE", V1 "/units/a.service", NULL);
    assert_error(world, 404, "unit does not exist\"");
}

static void test_current_state(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "host-a", "10.0.0.1", 1);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    fake_core_status(&world->core, "a.service", OUTCOME_UNPLACED, "", "no machine fits");
    ask(world, "GET", V1 "/units/a.service", NULL);
    assert_has(world, "\"currentState\":\"inactive\"");
    assert_has(world, "\"reason\":\"no machine fits\"");
    place(world, "a.service", ID_A);
    ask(world, "GET", V1 "/units/a.service", NULL);
    assert_has(world, "\"currentState\":\"inactive\"");
    assert_has(world, "\"machineID\":\"" ID_A "\"");
    assert_has(world, "\"reason\":\"least loaded\"");
    fake_core_report(&world->core, "a.service", ID_A, "active", false);
    ask(world, "GET", V1 "/units", NULL);
    assert_has(world, "\"currentState\":\"loaded\"");
    world->core.reports[0].report.launched = true;
    ask(world, "GET", V1 "/units", NULL);
    assert_has(world, "\"currentState\":\"launched\"");
    world->core.lost = ID_A;
    ask(world, "GET", V1 "/units", NULL);
    assert_has(world, "\"currentState\":\"inactive\"");
}

static void test_global(void **state)
{
    struct world *world = *state;

    put(world, "g.service", "{\"options\":[" OPTION("X-Fleet", "Global", "yes") "]}", 201);
    ask(world, "GET", V1 "/units/g.service", NULL);
    assert_lacks(world, "currentState");
    ask(world, "GET", V1 "/units", NULL);
    assert_has(world, "\"currentState\":\"inactive\"");
}

/* A unit that is somewhere and becomes one of all machines has no target any more. */
static void test_becomes_global(void **state)
{
    struct world *world = *state;
    const struct registry_unit *unit;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    put(world, "b.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_A);
    place(world, "b.service", ID_A);
    put(world, "a.service",
        "{\"desiredState\":\"launched\",\"options\":[" OPTION("X-Fleet", "Global", "yes") "]}", 201);
    ask(world, "POST", V1 "/units",
        "{\"units\":[{\"name\":\"b.service\",\"options\":[" OPTION("X-Fleet", "Global", "yes") "]}]}");
    assert_int_equal(world->status, 200);
    for (const char *const *name = (const char *const[]){"a.service", "b.service", NULL}; *name != NULL;
         name++) {
        unit = registry_unit(world->registry, *name);
        assert_string_equal(unit->target, "");
        assert_true(strlist_has(&unit->former, ID_A));
        assert_int_equal(unit->desired, UNIT_STATE_LAUNCHED);
    }
}

/* ---- pages ---- */

static void test_tokens_refused(void **state)
{
    static const struct {
        const char *query, *text;
    } cases[] = {
        {"nextPageToken=ZAACAA==&nextPageToken=ZAACAA==", "too many values for page token\""},
        {"nextPageToken=", "EOF\""},
        {"nextPageToken=ZAA=", "unexpected EOF\""},
        {"nextPageToken=!", "illegal base64 data at input byte 0\""},
        {"nextPageToken=ZAACAA", "illegal base64 data at input byte 4\""},
        {"nextPageToken=ZAACAA=", "illegal base64 data at input byte 7\""},
        {"nextPageToken=ZAACAA==x", "illegal base64 data at input byte 8\""},
        {"nextPageToken=ZAA/AA==", "illegal base64 data at input byte 3\""},
        {"nextPageToken=Z", "illegal base64 data at input byte 0\""},
        {"nextPageToken==", "illegal base64 data at input byte 0\""},
        {"nextPageToken=AgACAA==", "token limit must be 100\""},
        {"nextPageToken=ZAAAAA==", "token page must be greater than zero\""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static const char *const paths[] = {V1 "/units", V1 "/machines", V1 "/state"};

        for (size_t j = 0; j < ARRAY_SIZE(paths); j++) {
            ask_raw(*state, &(struct ask){.method = "GET", .path = paths[j], .query = cases[i].query});
            assert_error(*state, 400, cases[i].text);
        }
    }
}

static void test_pages(void **state)
{
    struct world *world = *state;

    assert_get(world, V1 "/units", "alt=json", "{}");
    api_set_token_limit(world->api, 2);
    for (char c = 'd'; c >= 'a'; c--) {
        char name[] = "x.service";

        name[0] = c;
        put(world, name, "{" PLAIN "}", 201);
    }
    ask(world, "GET", V1 "/units", NULL);
    assert_true(str_has_prefix(world->body, "{\"nextPageToken\":\"AgACAA==\",\"units\":["));
    assert_has(world, "b.service");
    assert_lacks(world, "c.service");
    ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/units", .query = "nextPageToken=AgACAA=="});
    assert_has(world, "\"nextPageToken\":\"AgADAA==\""); /* A total of 4 gives an empty page at the end. */
    assert_has(world, "d.service");
    assert_lacks(world, "b.service");
    assert_get(world, V1 "/units", "nextPageToken=AgADAA==", "{}");
    assert_get(world, V1 "/units", "nextPageToken=AgD__w==", "{}");
    /* Page 32770 of 2 each begins at 65538, not at 2 as in 16 bits. */
    assert_get(world, V1 "/units", "nextPageToken=AgACgA==", "{}");
    /* Ours: any position in 64 bits. */
    assert_get(world, V1 "/units", "nextPageToken=AgAAAP__________", "{}");
    ask_raw(world,
            &(struct ask){.method = "GET", .path = V1 "/units", .query = "nextPageToken=AgAAAAMAAAAAAAAA"});
    assert_has(world, "d.service");
    assert_lacks(world, "c.service");
}

/* A page that would be too large for one answer ends early; nothing is left out or shown twice. */
static void test_large_pages(void **state)
{
    struct world *world = *state;
    struct strbuf body = {0};
    char token[64] = "";
    unsigned pages = 0, units = 0;

    strbuf_add(&body, "{\"options\":[");
    for (unsigned i = 0; i < 200; i++)
        strbuf_addf(&body, "%s{\"section\":\"A\",\"name\":\"B\",\"value\":\"%01000d\"}", i > 0 ? "," : "", 0);
    strbuf_add(&body, "]}");
    for (unsigned i = 0; i < 30; i++) {
        _cleanup_(freep) char *name = xasprintf("u%02u.service", i);

        put(world, name, body.text, 201);
    }
    strbuf_done(&body);
    do {
        _cleanup_(freep) char *query = token[0] != '\0' ? xasprintf("nextPageToken=%s", token) : NULL;
        const char *at;

        ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/units", .query = query});
        assert_int_equal(world->status, 200);
        assert_true(strlen(world->body) < FRAME_MAX);
        pages++;
        for (at = world->body; (at = strstr(at, "\"name\":\"u")) != NULL; at++, units++) {
            _cleanup_(freep) char *name = xasprintf("\"name\":\"u%02u.service\"", units);

            assert_true(str_has_prefix(at, name));
        }
        token[0] = '\0';
        at = strstr(world->body, "\"nextPageToken\":\"");
        if (at != NULL)
            sscanf(at, "\"nextPageToken\":\"%63[^\"]", token);
    } while (token[0] != '\0');
    assert_int_equal(units, 30);
    assert_in_range(pages, 3, 10);
}

/* ---- states, machines, members ---- */

static void test_state(void **state)
{
    struct world *world = *state;

    assert_get(world, V1 "/state", NULL, "{}");
    assert_get(world, V1 "/state/a.service", NULL, "{}");
    add_machine(world, ID_A, "host-a", "10.0.0.1", 1);
    add_machine(world, ID_B, "host-b", "10.0.0.2", 2);
    fake_core_report(&world->core, "a.service", ID_A, "active", true);
    fake_core_report(&world->core, "a.service", ID_B, "failed", true);
    fake_core_report(&world->core, "b.service", ID_B, "\xff\xc3\xa4", true);
    assert_get(world, V1 "/state", "machineID=" ID_A "&unitName=",
               "{\"states\":[{\"generation\":7,\"hash\":\"abc\",\"machineID\":\"" ID_A
               "\",\"name\":\"a.service\",\"result\":\"done\",\"systemdActiveState\":\"active\","
               "\"systemdLoadState\":\"loaded\",\"systemdSubState\":\"running\"}]}");
    ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/state", .query = "unitName=b.service"});
    assert_has(world, "\"systemdActiveState\":\"\xef\xbf\xbd\xc3\xa4\"");
    assert_lacks(world, "a.service");
    assert_get(world, V1 "/state", "unitName=b.service&machineID=" ID_A, "{}");
    ask(world, "GET", V1 "/state/a.service", NULL);
    assert_has(world, ID_A);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_B);
    ask(world, "GET", V1 "/state/a.service", NULL);
    assert_has(world, ID_B);
    world->core.lost = ID_B;
    ask(world, "GET", V1 "/state/a.service", NULL);
    assert_has(world, ID_A);
}

static void test_machines(void **state)
{
    struct world *world = *state;

    assert_get(world, V1 "/machines", NULL, "{}");
    add_machine(world, ID_B, "host-b", "", 2);
    add_machine(world, ID_A, "host-a", "10.0.0.1", 1);
    world->core.lost = ID_B;
    world->core.expected = ID_A;
    put(world, "g.service",
        "{\"desiredState\":\"launched\",\"options\":[" OPTION("X-Fleet", "Global", "yes") "]}", 201);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_A);
    assert_get(
        world, V1 "/machines", NULL,
        "{\"machines\":[{\"hostname\":\"host-a\",\"id\":\"" ID_A
        "\",\"primaryIP\":\"10.0.0.1\",\"state\":\"joining\",\"units\":2}]}"); /* As for the first fleet. */
    assert_get(world, V1 "/machines", "lost=yes",
               "{\"machines\":[{\"hostname\":\"host-a\",\"id\":\"" ID_A
               "\",\"primaryIP\":\"10.0.0.1\",\"state\":\"joining\",\"units\":2},"
               "{\"hostname\":\"host-b\",\"id\":\"" ID_B "\",\"state\":\"lost\",\"units\":1}]}");
    world->core.going = ID_B;
    world->core.lost = world->core.expected = NULL;
    assert_get(world, V1 "/machines", NULL,
               "{\"machines\":[{\"hostname\":\"host-a\",\"id\":\"" ID_A
               "\",\"primaryIP\":\"10.0.0.1\",\"state\":\"ready\",\"units\":2},"
               "{\"hostname\":\"host-b\",\"id\":\"" ID_B "\",\"state\":\"shutting-down\",\"units\":1}]}");
}

static void test_patch_refused(void **state)
{
    static const struct {
        const char *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"", 400, "EOF\""},
        {"{}", 400, ""},
        {"[7]", 400, "operation 1"},
        {"[null]", 400, "invalid op: expect add, remove, or replace\""},
        {"[{}]", 400, "invalid op: expect add, remove, or replace\""},
        {"[{\"op\":\"test\",\"path\":\"/m/metadata/k\"}]", 400,
         "invalid op: expect add, remove, or replace\""},
        {"[{\"op\":7}]", 400, "operation 1"},
        {"[{\"op\":\"add\",\"path\":\"\",\"value\":\"x\"}]", 400, "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"m/metadata/k\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"//metadata/k\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/a b\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/a/b\",\"value\":\"x\"}]", 400,
         "machine metadata path invalid\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/k\"}]", 400,
         "invalid value: add and replace require a value\""},
        {"[{\"op\":\"replace\",\"path\":\"/m/metadata/k\",\"value\":{}}]", 400,
         "invalid value: add and replace require a value\""},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/k\",\"value\":7}]", 400, "operation 1"},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/k\",\"value\":{\"value\":[]}}]", 400, "operation 1"},
        {"[{\"op\":\"add\",\"path\":\"/" ID_A "a/metadata/k\",\"value\":\"x\"}]", 400, "a machine id has"},
        {"[{\"op\":\"add\",\"path\":\"/m/metadata/k\",\"value\":\"x\"},{\"op\":\"no\"}]", 400, "invalid op"},
    };
    struct world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "PATCH", V1 "/machines", cases[i].body);
        assert_error(world, cases[i].status, cases[i].text);
    }
    assert_int_equal(world->proposals, 0);
}

/* ---- confirming that machines are lost ---- */

static void test_confirm_lost(void **state)
{
    static const struct {
        const char *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"7", 400, "unable to decode body"},
        {"{}", 400, "no machines are given"},
        {"{\"machines\":\"x\"}", 400, "unable to decode body"},
        {"{\"machines\":[7]}", 400, "unable to decode body: a machine is no string"},
        {"{\"machines\":[\"" ID_A "\",\"nobody\"]}", 404, "machine nobody does not exist"},
        {"{\"machines\":[\"" ID_A "\",\"" ID_B "\"]}", 409, "machine " ID_B " () is there and answers"},
    };
    struct world *world = *state;

    add_machine(world, ID_A, "", "", 1);
    add_machine(world, ID_B, "", "", 2);
    world->core.missing = ID_A;
    world->proposals = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "POST", V1 "/confirm-lost", cases[i].body);
        assert_error(world, cases[i].status, cases[i].text);
    }
    assert_int_equal(world->proposals, 0);
    ask(world, "GET", V1 "/machines", NULL);
    assert_null(strstr(world->body, ID_A));
    ask(world, "POST", V1 "/confirm-lost", "{\"machines\":[\"" ID_A "\"]}");
    assert_int_equal(world->status, 204);
    assert_true(registry_machine(world->registry, ID_A)->lost);
    assert_true(registry_machine(world->registry, ID_A)->lost_confirmed);
    assert_false(registry_machine(world->registry, ID_B)->lost);
    ask(world, "GET", V1 "/confirm-lost", NULL);
    assert_error(world, 405, "only POST");
}

static void test_availability(void **state)
{
    static const struct {
        const char *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"{\"availability\":\"active\"}", 400, "no machines are given"},
        {"{\"machines\":[\"" ID_A "\"]}", 400,
         "availability must be active, cordoned or draining, not \\\"\\\""},
        {"{\"machines\":[\"" ID_A "\"],\"availability\":7}", 400, "unable to decode body"},
        {"{\"machines\":[\"" ID_A "\"],\"availability\":\"Draining\"}", 400, "availability must be"},
        {"{\"machines\":[\"" ID_A "\",\"" ID_B "\"],\"availability\":\"active\"}", 404,
         "machine " ID_B " does not"},
    };
    struct world *world = *state;
    const struct registry_machine *machine;

    add_machine(world, ID_A, "", "", 1);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    put(world, "b.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "b.service", ID_A);
    machine = registry_machine(world->registry, ID_A);
    world->proposals = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "POST", V1 "/availability", cases[i].body);
        assert_error(world, cases[i].status, cases[i].text);
    }
    assert_int_equal(world->proposals, 0);
    ask(world, "POST", V1 "/availability", "{\"machines\":[\"" ID_A "\"],\"availability\":\"draining\"}");
    assert_int_equal(world->status, 200);
    assert_string_equal(world->body, "{\"units\":[\"b.service\"]}");
    assert_int_equal(machine->availability, MACHINE_DRAINING);
    ask(world, "GET", V1 "/machines", NULL);
    assert_non_null(strstr(world->body, "\"availability\":\"draining\""));
    ask(world, "POST", V1 "/availability", "{\"machines\":[\"" ID_A "\"],\"availability\":\"cordoned\"}");
    assert_int_equal(machine->availability, MACHINE_CORDONED);
    ask(world, "POST", V1 "/availability", "{\"machines\":[\"" ID_A "\"],\"availability\":\"active\"}");
    assert_int_equal(machine->availability, MACHINE_ACTIVE);
    ask(world, "GET", V1 "/machines", NULL);
    assert_null(strstr(world->body, "availability"));
}

static void test_settings_refused(void **state)
{
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"", "unable to decode body: EOF\""},
        {"[]", "unable to decode body: "},
        {"{}", "no settings are given\""},
        {"{\"settings\":null}", "no settings are given\""},
        {"{\"settings\":{}}", "no settings are given\""},
        {"{\"settings\":[\"voters\"]}", "unable to decode body: \\\"settings\\\" must be an object\""},
        {"{\"settings\":{\"voter\":3}}",
         "there is no setting \\\"voter\\\"; there are certificate_lifetime, "
         "failure_limit_burst, failure_limit_interval, host_role, voters, voters_grace "
         "and voters_spread_by\""},
        {"{\"settings\":{\"failure_limit_burst\":3,\"\":null}}", "there is no setting \\\"\\\"; there are"},
        {"{\"settings\":{\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\":"
         "1}}",
         "a setting's name has at most 64 bytes\""},
        {"{\"settings\":{\"voters\":4}}", "voters: 4 is none of 1, 3, 5 or 7\""},
        {"{\"settings\":{\"voters\":\"\"}}", "voters: \\\"\\\" is not a whole number\""},
        {"{\"settings\":{\"failure_limit_burst\":33}}", "failure_limit_burst: 33 is not within 0 to 32\""},
        {"{\"settings\":{\"failure_limit_burst\":-1}}",
         "failure_limit_burst: its value is a string, a whole number, "
         "or null for its default\""},
        {"{\"settings\":{\"failure_limit_burst\":true}}", "failure_limit_burst: its value is"},
        {"{\"settings\":{\"failure_limit_burst\":2.5}}", "failure_limit_burst: its value is"},
        {"{\"settings\":{\"failure_limit_interval\":0}}",
         "failure_limit_interval: 0 is not within 1ms to 1d\""},
        /* All of it, or nothing. */
        {"{\"settings\":{\"failure_limit_burst\":3,\"failure_limit_interval\":\"2d\"}}",
         "failure_limit_interval: 2d is not within 1ms to 1d\""},
    };
    struct world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "PATCH", V1 "/settings", cases[i].body);
        assert_error(world, 400, cases[i].text);
    }
    assert_int_equal(world->proposals, 0);
}

#define SETTINGS(burst, interval, voters)                                                                    \
    "{\"settings\":[{\"default\":\"365d\",\"limits\":\"1min to 3650d\",\"meaning\":\"How long a machine's "  \
    "certificate holds; it is "                                                                              \
    "renewed when a third of that is over\",\"name\":\"certificate_lifetime\",\"value\":\"365d\"},"          \
    "{\"default\":\"0\",\"limits\":\"0 to 32\",\"meaning\":\"After so many failures on one "                 \
    "machine a unit is tried elsewhere; 0: never\",\"name\":\"failure_limit_burst\",\"value\":\"" burst      \
    "\"},"                                                                                                   \
    "{\"default\":\"10min\",\"limits\":\"1ms to 1d\",\"meaning\":\"Within so long these failures must be\"," \
    "\"name\":\"failure_limit_interval\",\"value\":\"" interval                                              \
    "\"},{\"default\":\"admin\",\"limits\":\"none, viewer, operator or admin\",\"meaning\":\"What one may "  \
    "do "                                                                                                    \
    "through a host that does not hold the cluster's data\",\"name\":\"host_role\",\"value\":\"admin\""      \
    "},{\"default\":\"5\",\"limits\":\"1, 3, 5 "                                                             \
    "or 7\",\"meaning\":\"How many hosts vote, as far as there are so "                                      \
    "many\",\"name\":\"voters\",\"value\":\"" voters                                                         \
    "\"},{\"default\":\"5min\",\"limits\":\"1s to 30d\",\"meaning\":\"A voter that is away for so long is "  \
    "replaced by another host\",\"name\":\"voters_grace\",\"value\":\"5min\"},"                              \
    "{\"default\":\"\",\"limits\":\"0 to 1024 bytes without blanks\",\"meaning\":\"A metadata key: voters "  \
    "have as many different values of it as possible\",\"name\":\"voters_spread_by\",\"value\":\"\"}"

static void test_settings(void **state)
{
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1";
    static const char body[] =
        "{\"Settings\":{\"failure_limit_burst\":\"3\",\"failure_limit_interval\":90,\"voters\":3}}";
    struct world *world = *state;

    assert_get(world, V1 "/settings", NULL, SETTINGS("0", "10min", "5") "]}");
    /* Asked for twice, done once, answered alike. */
    for (unsigned i = 0; i < 2; i++) {
        ask_raw(world,
                &(struct ask){.method = "PATCH", .path = V1 "/settings", .body = body, .request_id = id});
        assert_int_equal(world->status, 200);
        assert_string_equal(world->body, SETTINGS("3", "1min 30s", "3") "]}");
    }
    assert_int_equal(world->proposals, 1);
    /* Only what is named is changed. */
    ask(world, "PATCH", V1 "/settings", "{\"settings\":{\"failure_limit_burst\":7}}");
    assert_string_equal(world->body, SETTINGS("7", "1min 30s", "3") "]}");
    assert_string_equal(registry_setting(world->registry, "failure_limit_burst"), "7");
    ask(world, "PATCH", V1 "/settings",
        "{\"settings\":{\"failure_limit_burst\":null,\"failure_limit_interval\":null,\"voters\":null}}");
    assert_string_equal(world->body, SETTINGS("0", "10min", "5") "]}");
    assert_null(registry_setting(world->registry, "failure_limit_burst"));
    ask(world, "PATCH", V1 "/settings", "{\"settings\":{\"voters_spread_by\":\"zone\"}}");
    assert_has(world, "\"name\":\"voters_spread_by\",\"value\":\"zone\"}");
    ask(world, "PATCH", V1 "/settings", "{\"settings\":{\"voters_spread_by\":null}}");
    assert_has(world, "\"name\":\"voters_spread_by\",\"value\":\"\"}");
    /* What a newer version has set is shown. */
    set_setting(world, "warp", "9");
    assert_get(
        world, V1 "/settings", NULL,
        SETTINGS("0", "10min", "5") ",{\"meaning\":\"(Set by a newer fleetd; it means nothing to this one)\","
                                    "\"name\":\"warp\",\"value\":\"9\"}]}");
    ask(world, "PATCH", V1 "/settings", "{\"settings\":{\"warp\":null}}");
    assert_error(world, 400, "there is no setting \\\"warp\\\"");
}

static void test_patch(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "", "", 1);
    ask_raw(world, &(struct ask){.method = "PATCH", .path = V1 "/machines", .body = "[]"});
    assert_int_equal(world->status, 204);
    assert_string_equal(world->content_type, "application/json");
    ask(world, "PATCH", V1 "/machines", "null");
    assert_int_equal(world->status, 204);
    assert_int_equal(world->proposals, 0);
    ask(world, "PATCH", V1 "/machines",
        "[{\"op\":\"add\",\"path\":\"/" ID_A "/metadata/a\",\"value\":\"1\"},"
        "{\"Op\":\"replace\",\"PATH\":\"/" ID_A "/metadata/b_.-\",\"Value\":{\"Value\":\"2\"}},"
        "{\"op\":\"add\",\"path\":\"/" ID_A "/metadata/gone\",\"value\":\"3\"},"
        "{\"op\":\"remove\",\"path\":\"/" ID_A "/metadata/gone\"},"
        "{\"op\":\"remove\",\"path\":\"/unknown/metadata/x\"}]");
    assert_int_equal(world->status, 204);
    assert_get(world, V1 "/machines", NULL,
               "{\"machines\":[{\"id\":\"" ID_A
               "\",\"metadata\":{\"a\":\"1\",\"b_.-\":\"2\"},\"state\":\"ready\",\"units\":0}]}");
}

/* Anybody may name any machine and key: there is an end to what is kept of that. */
static void test_patch_room(void **state)
{
    struct world *world = *state;
    unsigned machines = 0;

    for (unsigned i = 0; i <= LABELS_PER_MACHINE_MAX; i++) {
        _cleanup_(freep) char *body =
            xasprintf("[{\"op\":\"add\",\"path\":\"/" ID_A "/metadata/k%u\",\"value\":\"x\"}]", i);

        ask(world, "PATCH", V1 "/machines", body);
        assert_int_equal(world->status, i < LABELS_PER_MACHINE_MAX ? 204 : 507);
    }
    ask(world, "PATCH", V1 "/machines",
        "[{\"op\":\"add\",\"path\":\"/" ID_A "/metadata/k0\",\"value\":\"y\"}]"); /* A known one has room. */
    assert_int_equal(world->status, 204);
    while (world->status == 204 && machines <= MACHINES_MAX) {
        _cleanup_(freep) char *body =
            xasprintf("[{\"op\":\"remove\",\"path\":\"/m%u/metadata/k\"}]", machines++);

        ask(world, "PATCH", V1 "/machines", body);
    }
    assert_error(world, 507, "there would be metadata of more than 2000 machines");
    assert_int_equal(machines, MACHINES_MAX);
}

static void test_members(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "", "", 1);
    add_machine(world, ID_B, "two", "", 2);
    assert_get(
        world, V1 "/members", NULL,
        "{\"doing\":\"10.0.0.9:7390 needs no copy of the data any more\","
        "\"members\":[{\"leader\":true,\"machineID\":\"" ID_A
        "\",\"preference\":\"automatic\",\"role\":\"voter\",\"serverID\":\"0000000000000001\",\"state\":"
        "\"ready\"},{\"hostname\":\"two\",\"leader\":false,\"machineID\":\"" ID_B
        "\",\"preference\":\"automatic\",\"role\":\"host\",\"serverID\":\"0000000000000002\",\"state\":"
        "\"ready\"},{\"address\":\"10.0.0.9:7390\",\"leader\":false,\"role\":\"standby\","
        "\"serverID\":\"0000000000000009\"}],\"voters\":5}");

    /* Spread by a key. */
    set_setting(world, "voters_spread_by", "zone");
    ask(world, "PATCH", V1 "/machines",
        "[{\"op\":\"add\",\"path\":\"/" ID_B "/metadata/zone\",\"value\":\"b\"}]");
    ask(world, "GET", V1 "/members", NULL);
    assert_has(world, "\"spreadBy\":\"zone\"");
    assert_has(world, "\"state\":\"ready\",\"value\":\"b\"}");

    /* Without a leader: what this host knows, and what can be done. */
    world->leads = false;
    world->no_leader = world->two_voters = true;
    ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/members", .query = "stale=yes"});
    assert_has(world,
               "\"doing\":\"there is no leader: nothing can be changed until 2 of these 2 voters are up and "
               "reach each other: 10.0.0.1:7390, 10.0.0.2:7390. If they are gone for good, see VOTERS "
               "in fleetd(8); if they have other addresses now, CHANGED ADDRESSES\"");
}

#define VOTES(id, rest) "{\"machines\":[\"" id "\"]" rest "}"

static void test_votes(void **state)
{
    static const struct {
        const char *body;
        unsigned status;
        const char *why;
    } refused[] = {
        {"{", 400, "unable to decode body: "},
        {"{\"preference\":\"voter\"}", 400, "no machines are given"},
        {VOTES("nobody", ",\"preference\":\"voter\""), 404, "machine nobody does not exist"},
        {VOTES(ID_A, ""), 400, "neither preference nor leaving is given"},
        {VOTES(ID_A, ",\"preference\":\"always\""), 400,
         "preference must be automatic, voter or never, not \\\"always\\\""},
        {VOTES(ID_A, ",\"preference\":3"), 400, "unable to decode body: "},
        {VOTES(ID_A, ",\"leaving\":\"yes\""), 400, "unable to decode body: leaving is no boolean"},
        {"{\"machines\":[\"" ID_A "\",\"" ID_B "\"],\"preference\":\"never\"}", 409,
         "no other host could vote"},
    };
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1";
    struct world *world = *state;
    const struct registry_machine *b;

    add_machine(world, ID_A, "one", "", 1);
    add_machine(world, ID_B, "two", "", 2);
    b = registry_machine(world->registry, ID_B);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        ask(world, "POST", V1 "/members", refused[i].body);
        assert_error(world, refused[i].status, refused[i].why);
    }
    assert_int_equal(world->proposals, 0);
    for (unsigned i = 0; i < 2; i++) { /* Repeated: done once. */
        ask_raw(world, &(struct ask){.method = "POST",
                                     .path = V1 "/members",
                                     .body = VOTES(ID_B, ",\"preference\":\"voter\""),
                                     .request_id = id});
        assert_int_equal(world->status, 204);
    }
    assert_int_equal(world->proposals, 1);
    assert_true(b->vote == VOTE_ALWAYS && !b->leaving);
    ask(world, "POST", V1 "/members", VOTES(ID_B, ",\"leaving\":true"));
    assert_true(b->vote == VOTE_ALWAYS && b->leaving);
    ask(world, "GET", V1 "/members", NULL);
    assert_has(world,
               "\"leader\":false,\"leaving\":true,\"machineID\":\"" ID_B "\",\"preference\":\"voter\"");
    ask(world, "POST", V1 "/members", VOTES(ID_B, ",\"leaving\":false,\"preference\":\"automatic\""));
    assert_true(b->vote == VOTE_AUTOMATIC && !b->leaving);
}

static void test_leadership(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "one", "", 1);
    add_machine(world, ID_B, "two", "", 2);
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\"}");
    assert_error(world, 409, "no other voter is there that could lead");
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\",\"to\":\"" ID_B "\"}");
    assert_error(world, 409, "two cannot lead: it does not vote");
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\",\"to\":\"x\"}");
    assert_error(world, 404, "machine x does not exist");
    ask(world, "POST", V1 "/leadership", "{\"from\":1}");
    assert_error(world, 400, "unable to decode body");
    assert_int_equal(world->heir_count, 0);

    world->two_voters = true;
    /* It votes, and the cluster of two is to have one voter. */
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\",\"to\":\"" ID_B "\"}");
    assert_error(world, 409, "two cannot lead: it is about to lose its vote");
    add_machine(world, "cccccccccccccccccccccccccccccccc", "nine", "", 9);
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\",\"to\":\"" ID_B "\"}");
    assert_string_equal(world->body, "{\"leader\":\"" ID_A "\"}");
    assert_int_equal(world->heir_count, 1);
    assert_int_equal(world->heirs[0], 2);
    /* Whoever else leads has got it already. */
    world->heir_count = 0;
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_B "\"}");
    ask(world, "POST", V1 "/leadership", "{\"from\":\"" ID_A "\",\"to\":\"" ID_A "\"}");
    assert_int_equal(world->status, 200);
    assert_int_equal(world->heir_count, 0);
}

static void test_explain(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "host-a", "", 1);
    add_machine(world, ID_B, "host-b", "", 2);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_A);
    assert_get(world, V1 "/explain/a.service", NULL,
               "{\"machines\":[{\"hostname\":\"host-a\",\"machineID\":\"" ID_A
               "\",\"reason\":\"\",\"units\":1},{\"hostname\":\"host-b\",\"machineID\":\"" ID_B
               "\",\"reason\":\"too far\",\"units\":0}],\"name\":\"a.service\",\"reason\":\"least loaded\","
               "\"target\":\"" ID_A "\"}");
}

static void test_discovery(void **state)
{
    struct world *world = *state;

    world->leads = false;
    ask(world, "GET", "/v1-alpha/discovery", NULL);
    assert_int_equal(world->status, 200);
    assert_has(world, "\"servicePath\":\"fleet/v1/\"");
    assert_has(world, "\"UnitState\":{\"id\":\"UnitState\"");
    assert_has(world, "\"path\":\"state/{unitName}\"");
    assert_has(world, "\"machineID\":{\"required\":true,\"type\":\"string\"}");
}

/* ---- many units at once ---- */

static void test_batch_refused(void **state)
{
    static const struct {
        const char *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"", 400, "unable to decode body: EOF\""},
        {"[]", 400, "unable to decode body: "},
        {"{}", 400, "no units are given\""},
        {"{\"units\":7}", 400, "unable to decode body: "},
        {"{\"units\":[null]}", 400, "unable to decode body: unit 1: "},
        {"{\"units\":[{\"name\":\"a.service\",\"destroy\":\"yes\"}]}", 400,
         "unable to decode body: unit 1: "},
        {"{\"units\":[{}]}", 400, "unit : unit name cannot be empty\""},
        {"{\"units\":[{\"name\":\"new.service\"}]}", 404, "unit new.service: it does not exist"},
        {"{\"units\":[{\"name\":\"new@1.service\"}]}", 404,
         "unit new@1.service: it does not exist, and neither"},
        {"{\"units\":[{\"name\":\"new.service\",\"destroy\":true}]}", 404, "unit new.service: it does not"},
        {"{\"units\":[{\"name\":\"new.service\",\"options\":[null]}]}", 400, "unit new.service: option 1: "},
        {"{\"units\":[{\"name\":\"new.service\",\"desiredState\":\"up\"," PLAIN "}]}", 400,
         "unit new.service: "},
        {"{\"units\":[{\"name\":\"new@.service\",\"desiredState\":\"loaded\"," PLAIN "}]}", 400,
         "unit new@.service: cannot activate template"},
        {"{\"units\":[{\"name\":\"old.service\",\"ifAbsent\":true," PLAIN "}]}", 409,
         "unit old.service: it exists already\""},
        {"{\"units\":[{\"name\":\"old.service\",\"ifHash\":\"x\"," PLAIN "}]}", 409,
         "unit old.service: it has other content meanwhile"},
        {"{\"units\":[{\"name\":\"new.service\",\"ifHash\":\"x\"," PLAIN "}]}", 409,
         "unit new.service: it has other content meanwhile (hash none)\""},
        {"{\"units\":[{\"name\":\"old.service\",\"destroy\":true," PLAIN "}]}", 400,
         "unit old.service: it cannot"},
        {"{\"units\":[{\"name\":\"old.service\",\"restart\":true}]}", 400,
         "unit old.service: it is inactive"},
        {"{\"units\":[{\"name\":\"new.service\",\"restart\":true}]}", 404, "unit new.service: it does not"},
        {"{\"units\":[{\"name\":\"old.service\",\"restart\":1}]}", 400, "unable to decode body: unit 1: "},
        {"{\"units\":[{\"name\":\"old.service\",\"restart\":true,\"destroy\":true}]}", 400,
         "unit old.service: it cannot be destroyed and changed"},
        {"{\"units\":[{\"name\":\"old.service\",\"restart\":true," PLAIN "}]}", 400,
         "unit old.service: it cannot be restarted and changed"},
        {"{\"units\":[{\"name\":\"old.service\",\"restart\":true,\"desiredState\":\"loaded\"}]}", 400,
         "unit old.service: it cannot be restarted and changed"},
        {"{\"units\":[{\"name\":\"a.service\"," PLAIN "},{\"name\":\"a.service\"," PLAIN "}]}", 400,
         "unit a.service: it is named twice\""},
        {"{\"units\":[{\"name\":\"a.service\"," PLAIN "},{\"name\":\"b.service\"}]}", 404,
         "unit b.service: "},
        {"{\"units\":[{\"name\":\"t@.service\",\"destroy\":true},{\"name\":\"t@1.service\"}]}", 404,
         "unit t@1.service: "},
        {"{\"units\":[{\"name\":\"a.service\",\"options\":[" OPTION("X-Fleet", "MachineOf",
                                                                    "a.service") "]}]}",
         400, "unit a.service: unresolvable requirements: MachineOf goes in a circle"},
        {"{\"units\":[{\"name\":\"a.service\",\"options\":[" OPTION(
             "X-Fleet", "MachineOf",
             "b.service") "]},{\"name\":\"b.service\",\"options\":[" OPTION("X-Fleet", "MachineOf",
                                                                            "a.service") "]}]}",
         400, "unit a.service: unresolvable requirements: MachineOf goes in a circle"},
        {"{\"units\":[{\"name\":\"peer.service\",\"options\":[" OPTION("X-Fleet", "MachineOf",
                                                                       "follower.service") "]}]}",
         400, "unit peer.service: unresolvable requirements: MachineOf goes in a circle: peer.service"},
    };
    struct world *world = *state;
    unsigned proposals;

    put(world, "old.service", "{" PLAIN "}", 201);
    put(world, "t@.service", "{" PLAIN "}", 201);
    put(world, "follower.service", "{\"options\":[" OPTION("X-Fleet", "MachineOf", "peer.service") "]}", 201);
    proposals = world->proposals;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "POST", V1 "/units", cases[i].body);
        assert_error(world, cases[i].status, cases[i].text);
    }
    assert_int_equal(world->proposals, proposals);
}

static void test_batch(void **state)
{
    struct world *world = *state;

    put(world, "old.service", "{" PLAIN "}", 201);
    put(world, "gone.service", "{" PLAIN "}", 201);
    ask(world, "POST", V1 "/units",
        "{\"dryRun\":true,\"units\":[{\"name\":\"a.service\",\"desiredState\":\"launched\"," PLAIN "}]}");
    assert_int_equal(world->status, 200);
    assert_has(world, "\"created\":true,\"desiredState\":\"launched\"");
    assert_null(registry_unit(world->registry, "a.service"));
    ask(world, "POST", V1 "/units",
        "{\"units\":[{\"name\":\"t@1.service\",\"desiredState\":\"launched\"},"
        "{\"name\":\"t@.service\",\"options\":[" OPTION(
            "A", "B", "%i") "]},"
                            "{\"name\":\"old.service\",\"desiredState\":\"loaded\"},{\"name\":\"gone."
                            "service\",\"destroy\":true}]}");
    assert_string_equal(
        world->body, "{\"units\":[{\"created\":true,\"desiredState\":\"launched\",\"generation\":3,\"hash\":"
                     "\"bc5f0599d526e97ff51aa5cc83cfe3fa13a2da8b\",\"name\":\"t@1.service\"},"
                     "{\"created\":true,\"desiredState\":\"inactive\",\"generation\":3,\"hash\":"
                     "\"bc5f0599d526e97ff51aa5cc83cfe3fa13a2da8b\",\"name\":\"t@.service\"},"
                     "{\"created\":false,\"desiredState\":\"loaded\",\"generation\":3,\"hash\":"
                     "\"86943ac9f3754cb90f8dd38bf6da7b0cad074592\",\"name\":\"old.service\"},"
                     "{\"destroyed\":true,\"name\":\"gone.service\"}],\"version\":3}");
    assert_null(registry_unit(world->registry, "gone.service"));
    assert_non_null(registry_unit(world->registry, "t@1.service"));
}

static void test_restart(void **state)
{
    struct world *world = *state;
    const struct registry_unit *unit;

    put(world, "a.service", "{\"desiredState\":\"loaded\"," PLAIN "}", 201);
    unit = registry_unit(world->registry, "a.service");
    for (int i = 0; i < 2; i++) {
        uint64_t before = unit->generation;

        ask(world, "POST", V1 "/units", "{\"units\":[{\"name\":\"a.service\",\"restart\":true}]}");
        assert_int_equal(world->status, 200);
        assert_has(world, "\"desiredState\":\"launched\"");
        assert_true(unit->generation > before);
        assert_int_equal(unit->restart, unit->generation);
    }
    ask(world, "POST", V1 "/units",
        "{\"dryRun\":true,\"units\":[{\"name\":\"a.service\",\"restart\":true}]}");
    assert_int_equal(unit->restart, 3);
}

static void test_batch_limits(void **state)
{
    struct world *world = *state;
    struct strbuf body = {0};

    strbuf_add(&body, "{\"units\":[");
    for (unsigned i = 0; i <= CHANGES_PER_COMMAND_MAX; i++)
        strbuf_addf(&body, "%s{\"name\":\"u%u.service\"," PLAIN "}", i > 0 ? "," : "", i);
    strbuf_add(&body, "]}");
    ask(world, "POST", V1 "/units", body.text);
    assert_error(world, 413, "2001 units are given, the limit for one request is 2000\"");
    strbuf_done(&body);

    strbuf_add(&body, "{\"units\":[");
    for (unsigned i = 0; i < 1200; i++)
        strbuf_addf(&body,
                    "%s{\"name\":\"u%u.service\",\"options\":[{\"section\":\"A\",\"name\":\"B\",\"value\":\"%"
                    "01000d\"}]}",
                    i > 0 ? "," : "", i, 0);
    strbuf_add(&body, "]}");
    ask(world, "POST", V1 "/units", body.text);
    assert_error(world, 413, "the change is ");
    assert_int_equal(world->proposals, 0);
    strbuf_done(&body);
}

static void test_changes(void **state)
{
    static const struct {
        const char *method, *path;
        bool changes;
    } cases[] = {
        {"GET", V1 "/units", false},     {"POST", V1 "/units", true},     {"PUT", V1 "/units/a", true},
        {"DELETE", V1 "/units/a", true}, {"GET", V1 "/units/a", false},   {"PATCH", V1 "/machines", true},
        {"POST", V1 "/wait", false},     {"GET", V1 "/discovery", false}, {"PUT", "/v1-alpha/units/a", true},
        {"PUT", "/elsewhere", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Fleet__ApiRequest message = FLEET__API_REQUEST__INIT;

        message.method = (char *)cases[i].method;
        message.path = (char *)cases[i].path;
        assert_int_equal(api_request_changes(&message), cases[i].changes);
    }
}

/* ---- backups ---- */

static void text_of(struct world *world, const char *key, char *to, size_t size)
{
    _cleanup_(freep) char *start = xasprintf("\"%s\":\"", key);
    const char *at = strstr(world->body, start);

    assert_non_null(at);
    at += strlen(start);
    snprintf(to, size, "%.*s", (int)strcspn(at, "\""), at);
}

static uint64_t number_of(struct world *world, const char *key)
{
    _cleanup_(freep) char *start = xasprintf("\"%s\":", key);
    const char *at = strstr(world->body, start);

    assert_non_null(at);
    return strtoull(at + strlen(start), NULL, 10);
}

static void add_big_unit(struct world *world, unsigned number)
{
    _cleanup_(freep) char *name = xasprintf("big%u.service", number), *body = NULL;
    _cleanup_(freep) char *padding = xmalloc(2001);
    _cleanup_(strbuf_done) struct strbuf options = {0};

    memset(padding, 'a' + (int)number % 26, 2000);
    padding[2000] = '\0';
    for (unsigned i = 0; i < 60; i++)
        strbuf_addf(&options, "%s{\"section\":\"X\",\"name\":\"P%u\",\"value\":\"%s\"}", i > 0 ? "," : "", i,
                    padding);
    body = xasprintf("{\"desiredState\":\"inactive\",\"options\":[%s]}", options.text);
    put(world, name, body, 201);
}

/* Fetches the piece at the end of 'to', and adds it there. */
static void fetch_piece(struct world *world, const char *id, struct strbuf *to)
{
    _cleanup_(freep) char *path = xasprintf(V1 "/backup/%s", id), *query = xasprintf("offset=%zu", to->size);
    struct base64_decode_ctx base64;
    uint8_t *bytes;
    const char *data;
    size_t size;

    assert_int_equal(ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = query}), 0);
    assert_int_equal(world->status, 200);
    assert_int_equal(number_of(world, "offset"), to->size);
    data = strstr(world->body, "\"data\":\"") + 8;
    size = strcspn(data, "\"");
    bytes = xmalloc(BASE64_DECODE_LENGTH(size));
    base64_decode_init(&base64);
    assert_int_equal(base64_decode_update(&base64, &size, bytes, size, data), 1);
    assert_true(size > 0 && size <= API_BACKUP_PIECE_MAX);
    strbuf_add_bytes(to, bytes, size);
    free(bytes);
}

static void test_backup(void **state)
{
    struct world *world = *state;
    struct registry *copy = registry_new();
    struct strbuf all = {0};
    unsigned pieces = 0, barriers;
    char id[32];
    uint64_t size;

    add_machine(world, ID_A, "host-a", "10.0.0.1", 1);
    for (unsigned i = 0; i < 20; i++)
        add_big_unit(world, i);
    put(world, "a.service", "{\"desiredState\":\"loaded\"," PLAIN "}", 201);
    barriers = world->barriers;
    ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/backup", .query = "stale=yes"});
    assert_int_equal(world->barriers, barriers + 1); /* It is current, whatever is asked for. */
    assert_int_equal(world->status, 200);
    assert_has(world, "\"units\":21");
    assert_has(world, "\"contents\":21");
    assert_has(world, "\"machines\":1");
    assert_has(world, "\"host\":\"host-a\"");
    assert_has(world, "\"version\":\"" PACKAGE_VERSION "\"");
    size = number_of(world, "size");
    text_of(world, "id", id, sizeof id);
    while (all.size < size) {
        fetch_piece(world, id, &all);
        /* What happens meanwhile is not in it. */
        if (pieces++ == 0) {
            ask(world, "DELETE", V1 "/units/a.service", NULL);
            add_big_unit(world, 99);
        }
    }
    assert_int_equal(all.size, size);
    assert_true(pieces > 2);
    assert_int_equal(registry_restore(copy, all.text, all.size, NULL), 0);
    assert_int_equal(registry_unit_count(copy), 21);
    assert_non_null(registry_unit(copy, "a.service"));
    assert_null(registry_unit(copy, "big99.service"));
    registry_free(copy);
    strbuf_done(&all);
}

static void test_backup_ends(void **state)
{
    struct world *world = *state;
    struct strbuf piece = {0};
    char first[32], id[32];
    _cleanup_(freep) char *path = NULL;

    assert_int_equal(api_deadline_ms(world->api), UINT64_MAX);
    for (unsigned i = 0; i < API_BACKUPS_MAX; i++) {
        ask(world, "GET", V1 "/backup", NULL);
        assert_int_equal(world->status, 200);
        text_of(world, "id", i == 0 ? first : id, sizeof id);
    }
    ask(world, "GET", V1 "/backup", NULL);
    assert_error(world, 429, "4 backups are being fetched already");
    path = xasprintf(V1 "/backup/%s", first);
    ask(world, "GET", path, NULL);
    assert_error(world, 400, "offset must say");
    for (const char *const *query = (const char *const[]){"offset=-1", "offset=99999999", "offset=1x", NULL};
         *query != NULL; query++) {
        ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = *query});
        assert_error(world, 400, "offset must say");
    }

    /* One that was fetched makes room soon, one that nobody comes for later. */
    fetch_piece(world, first, &piece);
    strbuf_done(&piece);
    world->now_ms = api_deadline_ms(world->api);
    assert_true(world->now_ms < 1000 + API_BACKUP_IDLE_MS);
    api_tick(world->api, world->now_ms);
    ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = "offset=0"});
    assert_error(world, 404, "there is no such backup (any more)");
    world->now_ms = api_deadline_ms(world->api);
    assert_int_equal(world->now_ms, 1000 + API_BACKUP_IDLE_MS);
    api_tick(world->api, world->now_ms);
    assert_int_equal(api_deadline_ms(world->api), UINT64_MAX);

    ask(world, "GET", V1 "/backup", NULL);
    text_of(world, "id", id, sizeof id);
    api_yield(world->api); /* What the next leader knows may be something else. */
    free(path);
    path = xasprintf(V1 "/backup/%s", id);
    ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = "offset=0"});
    assert_error(world, 404, "there is no such backup (any more)");
    ask(world, "GET", V1 "/backup", NULL); /* And one is open when all ends. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_paths),
        TEST(test_put_refused),
        TEST(test_put_content_type),
        TEST(test_limits),
        TEST(test_put),
        TEST(test_put_replaces),
        TEST(test_current_state),
        TEST(test_global),
        TEST(test_becomes_global),
        TEST(test_tokens_refused),
        TEST(test_pages),
        TEST(test_large_pages),
        TEST(test_state),
        TEST(test_machines),
        TEST(test_patch_refused),
        TEST(test_confirm_lost),
        TEST(test_availability),
        TEST(test_patch),
        TEST(test_patch_room),
        TEST(test_members),
        TEST(test_votes),
        TEST(test_leadership),
        TEST(test_explain),
        TEST(test_discovery),
        TEST(test_batch_refused),
        TEST(test_batch),
        TEST(test_restart),
        TEST(test_batch_limits),
        TEST(test_changes),
        TEST(test_settings),
        TEST(test_settings_refused),
        TEST(test_backup),
        TEST(test_backup_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
