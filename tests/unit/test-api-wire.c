/* SPDX-License-Identifier: Apache-2.0 */
/* The API as bytes: what a client sends, and all that it gets back. Each row names the rule of
 * fleet-behaviour.md that it shows ("ours": where we differ on purpose, docs/COMPATIBILITY.md). */
#include <config.h>

#include "tests/unit/wire-world.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "raftstore/limits.h"

#define JSON_PUT(name)     "PUT @/units/" name "\nContent-Type: application/json\n\n"
#define ERR(code, message) "{\"error\":{\"code\":" #code ",\"message\":\"" message "\"}}"
struct row {
    const char *rule;
    const char *request; /* As wire_request(). */
    unsigned status;
    const char *body; /* NULL: none, and no Content-Type. "~x": has x in it. Otherwise: is exactly this. */
};

static const char *const prefixes[] = {V1, "/v1-alpha"};

static void fail_row(const struct row *row, const struct wire_answer *answer, const char *why)
{
    fail_msg("§%s: %s\n--- asked\n%s\n--- wanted\n%u %s\n--- got\n%s", row->rule, why, row->request,
             row->status, row->body != NULL ? row->body : "no body", answer->bytes);
}

/* Every answer: these headers, each once, and no other; of a live API always with "Server". */
static void check_head(const struct row *row, const struct wire_answer *answer)
{
    static const char *const known[] = {"Date",           "Server",   "Content-Type",
                                        "Content-Length", "Location", "Connection"};
    size_t seen[ARRAY_SIZE(known)] = {0};
    const char *line = strstr(answer->head, "\r\n");

    while (line != NULL && line + 4 < answer->body) {
        size_t size = strcspn(line += 2, ":\r"), i = 0;

        while (i < ARRAY_SIZE(known) && (strlen(known[i]) != size || strncasecmp(known[i], line, size) != 0))
            i++;
        if (i == ARRAY_SIZE(known) || seen[i]++ > 0)
            fail_row(row, answer, "a header too many");
        line = strstr(line, "\r\n");
    }
    if (seen[1] == 0)
        fail_row(row, answer, "no Server");
    if ((seen[2] > 0) != (row->body != NULL))
        fail_row(row, answer, "Content-Type");
}

static void check_row(struct wire *wire, const struct row *row, const char *prefix)
{
    _cleanup_(freep) char *request = wire_request(row->request, prefix);
    _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, request, strlen(request));
    _cleanup_(freep) char *type = wire_header(&answer, "Content-Type"),
                          *server = wire_header(&answer, "Server");

    if (answer.status != row->status)
        fail_row(row, &answer, "status");
    check_head(row, &answer);
    if (!streq(server, "fleetd/9.9") || (type != NULL && !streq(type, "application/json")))
        fail_row(row, &answer, "headers");
    if (row->body == NULL     ? answer.body[0] != '\0'
        : row->body[0] == '~' ? strstr(answer.body, row->body + 1) == NULL
                              : !streq(answer.body, row->body))
        fail_row(row, &answer, "body");
}

static void check_rows(struct wire *wire, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_row(wire, &rows[i], prefixes[i % 2]);
}

/* ---- §4.1, §4.3: paths and methods ---- */

static void test_paths_and_methods(void **state)
{
    static const struct row rows[] = {
        {"4.1", "GET /", 405, ERR(405, "")},
        {"4.1", "PUT /", 405, ERR(405, "")},
        {"4.1", "GET @", 405, ERR(405, "")},
        {"4.1", "DELETE @", 405, ERR(405, "")},
        {"4.1", "GET @/", 404, ERR(404, "")},
        {"4.1", "GET /fleet", 404, ERR(404, "")},
        {"4.1", "GET /fleet/v2/units", 404, ERR(404, "")},
        {"4.1", "GET @/machines/", 404, ERR(404, "")},
        {"4.1", "GET @/machines/x", 404, ERR(404, "")},
        {"4.1", "GET @/discovery/", 404, ERR(404, "")},
        {"4.1", "GET @/nothing", 404, ERR(404, "")},
        {"4.3", "GET @/units/", 404, ERR(404, "")},
        {"4.3", "GET @/units/a/", 404, ERR(404, "")},
        {"4.3", "GET @/units/a/b", 404, ERR(404, "")},
        {"4.3", "PUT @/units/a/b\n\n{}", 404, ERR(404, "")},
        {"4.1", "GET @/units/a%2Fb", 404, ERR(404, "")},
        {"4.3", "GET @/state/", 404, ERR(404, "")},
        {"4.3", "POST @/machines\n\n{}", 405, ERR(405, "only GET and PATCH supported against this resource")},
        {"4.3", "DELETE @/units", 405, ERR(405, "only GET supported against this resource")},
        {"4.3", "PATCH @/units/a", 405, ERR(405, "only GET, PUT and DELETE supported against this resource")},
        {"4.3", "PUT @/state\n\n{}", 405, ERR(405, "only GET supported against this resource")},
        {"4.3", "DELETE @/state/a", 405, ERR(405, "only GET supported against this resource")},
        {"4.3", "PUT @/discovery\n\n{}", 400, ERR(400, "only HTTP GET supported against this resource")},
        {"4.3", "FROBNICATE @/units", 405, ERR(405, "only GET supported against this resource")},
        {"4.3", "get @/units", 405, ERR(405, "only GET supported against this resource")},
        {"ours", "PUT @/status\n\n{}", 405, ERR(405, "only GET supported against this resource")},
        {"ours", "GET @/wait", 405, ERR(405, "only POST supported against this resource")},
        {"4.3", "GET @/machines", 200, "{}"},
        {"4.3", "GET @/units", 200, "{}"},
        {"4.3", "GET @/state", 200, "{}"},
        {"0.7", "GET @/state/missing.service", 200, "{}"},
        {"0.6", "GET @/units/missing.service", 404, ERR(404, "unit does not exist")},
        {"4.3", "DELETE @/units/missing.service", 404, ERR(404, "unit does not exist")},
        {"4.3", "GET @/units/no%20name", 404, ERR(404, "unit does not exist")},
        {"0.3", "GET @/units?alt=json&unknown=1&x", 200, "{}"},
        {"ours", "GET @/units?stale=yes", 200, "{\"applied\":0,\"stale\":true}"},
        {"ours", "GET @/units?stale=true&stale=yes", 200, "{}"},
        {"ours", "GET @/wait?stale=yes", 405, ERR(405, "only POST supported against this resource")},
        {"4.1", "GET /fleet%2Fv1%2Funits", 200, "{}"},
        {"4.1", "GET /%66leet/v1/un%69ts", 200, "{}"},
        {"0.4", "GET @/units\nAccept-Encoding: gzip\nUser-Agent: google-api-go-client/0.5", 200, "{}"},
        {"4.1", "GET @/units\nOrigin: http://evil.example\nIf-None-Match: *\nRange: bytes=0-1", 200, "{}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (size_t j = 0; j < ARRAY_SIZE(prefixes); j++)
            check_row(*state, &rows[i], prefixes[j]);
}

static void test_unclean_paths(void **state)
{
    static const struct {
        const char *target, *location;
    } cases[] = {
        {"//", "/"},
        {"/fleet//v1/units", "/fleet/v1/units"},
        {"/fleet/v1/./units", "/fleet/v1/units"},
        {"/fleet/v1/x/../units?alt=json", "/fleet/v1/units?alt=json"},
        {"/fleet/v1/units/../../../../etc/", "/etc/"},
        {"/fleet/v1//units/t%401.service", "/fleet/v1/units/t@1.service"},
        {"//evil.example/x", "/evil.example/x"},
        {"/a/..%0d%0aX-Evil:%20yes/b%0d%0aX-Evil:%20yes/..//", "/a/..%0D%0AX-Evil:%20yes/"},
    };
    struct wire *wire = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *request = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", cases[i].target);
        _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, request, strlen(request));
        _cleanup_(freep) char *location = wire_header(&answer, "Location");

        assert_int_equal(answer.status, 301);
        assert_string_equal(location, cases[i].location);
        assert_null(strstr(answer.bytes, "\r\nX-Evil"));
    }
}

/* HEAD is a method like others, but its answer has no body. */
static void test_head(void **state)
{
    static const struct {
        const char *path;
        unsigned status;
    } cases[] = {
        {"/", 405},        {V1 "/units", 405},     {V1 "/units/a.service", 405}, {V1 "/state", 405},
        {V1 "/none", 404}, {V1 "/discovery", 400}, {V1 "//units", 301},          {"/metrics", 200},
    };
    struct wire *wire = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *request = xasprintf("HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n", cases[i].path);
        _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, request, strlen(request));

        assert_int_equal(answer.status, cases[i].status);
        assert_string_equal(answer.body, "");
    }
}

/* ---- §4.4: entities ---- */

static void test_entities(void **state)
{
    static const struct row before[] = {
        {"4.4",
         JSON_PUT("a.service") "{\"options\":[{\"section\":\"Unit\",\"name\":\"X\",\"value\":\"<&>\"},"
                               "{\"section\":\"\",\"name\":\"\",\"value\":\"\"}]}",
         201, NULL},
        {"0.10", "GET @/units/a.service", 200,
         "~{\"currentState\":\"inactive\",\"desiredState\":\"inactive\","},
        {"4.4", "GET @/units/a.service", 200,
         "~\"name\":\"a.service\",\"options\":[{\"name\":\"X\",\"section\":\"Unit\",\"value\":"
         "\"\\u003c\\u0026\\u003e\"},{}]}"},
        {"4.4",
         JSON_PUT("g.service") "{\"desiredState\":\"launched\",\"options\":[" OPTION("X-Fleet", "Global",
                                                                                     "yes") "]}",
         201, NULL},
        {"4.4", "GET @/units/g.service", 200, "~{\"desiredState\":\"launched\",\"generation\":2,"},
        {"4.4", "GET @/units", 200,
         "~{\"currentState\":\"inactive\",\"desiredState\":\"launched\",\"generation\":2,"},
        {"4.5", JSON_PUT("a.service") "{\"desiredState\":\"launched\"}", 204, NULL},
        {"3.2", "GET @/units/a.service", 200,
         "~{\"currentState\":\"inactive\",\"desiredState\":\"launched\","},
    };
    static const struct row after[] = {
        {"4.4", "GET @/machines", 200,
         "{\"machines\":[{\"hostname\":\"a\",\"id\":\"" ID_A
         "\",\"primaryIP\":\"10.0.0.1\",\"state\":\"ready\",\"units\":2},{\"hostname\":\"b\",\"id\":\"" ID_B
         "\",\"state\":\"ready\",\"units\":1}]}"},
        {"3.2", "GET @/units/a.service", 200,
         "~{\"currentState\":\"launched\",\"desiredState\":\"launched\","},
        {"4.4", "GET @/units/a.service", 200, "~\"machineID\":\"" ID_A "\",\"name\":\"a.service\""},
        {"4.4", "GET @/state/a.service", 200,
         "{\"generation\":7,\"hash\":\"abc\",\"machineID\":\"" ID_A
         "\",\"name\":\"a.service\",\"result\":\"done\",\"systemdActiveState\":\"active\","
         "\"systemdLoadState\":\"loaded\",\"systemdSubState\":\"running\"}"},
        {"4.3", "GET @/state?machineID=&unitName=g.service&machineID=" ID_B, 200,
         "~{\"states\":[{\"generation\":7,\"hash\":\"abc\",\"machineID\":\"" ID_A
         "\",\"name\":\"g.service\""},
        {"4.3", "GET @/state?machineID=" ID_B "&unitName=g.service", 200, "~\"machineID\":\"" ID_B "\""},
        {"4.3", "GET @/state?machineID=" ID_B "&unitName=a.service", 200, "{}"},
        {"4.3", "GET @/state?unitName=*", 200, "{}"},
    };
    struct wire *wire = *state;
    struct core *core = &wire->world->core;

    check_rows(wire, before, ARRAY_SIZE(before));
    add_machine(wire->world, ID_A, "a", "10.0.0.1", 1);
    add_machine(wire->world, ID_B, "b", "", 2);
    place(wire->world, "a.service", ID_A);
    fake_core_report(core, "a.service", ID_A, "active", true);
    fake_core_report(core, "g.service", ID_A, "active", true);
    fake_core_report(core, "g.service", ID_B, "active", true);
    check_rows(wire, after, ARRAY_SIZE(after));
}

/* ---- §4.2: pages ---- */

static void test_pages(void **state)
{
    static const struct row rows[] = {
        {"4.2", "GET @/units", 200, "~{\"nextPageToken\":\"AgACAA==\",\"units\":[{"},
        {"4.2", "GET @/units?nextPageToken=AgACAA==", 200, "~{\"nextPageToken\":\"AgADAA==\",\"units\":[{"},
        {"4.2", "GET @/units?nextPageToken=AgACAA%3D%3D", 200,
         "~{\"nextPageToken\":\"AgADAA==\",\"units\":[{"},
        {"4.2", "GET @/units?nextPageToken=AgADAA==", 200, "{}"},
        {"4.2", "GET @/units?nextPageToken=AgD__w==", 200, "{}"},
        {"4.2", "GET @/units?nextPageToken=AgACAAAA", 200, "~{\"nextPageToken\":\"AgADAA==\",\"units\":[{"},
        {"4.2", "GET @/units?nextPageToken=a&nextPageToken=b", 400,
         ERR(400, "too many values for page token")},
        {"4.2", "GET @/machines?nextPageToken=", 400, ERR(400, "EOF")},
        {"4.2", "GET @/machines?nextPageToken=AgA=", 400, ERR(400, "unexpected EOF")},
        {"4.2", "GET @/state?nextPageToken=%21", 400, ERR(400, "illegal base64 data at input byte 0")},
        {"4.2", "GET @/state?nextPageToken=AgACAA", 400, ERR(400, "illegal base64 data at input byte 4")},
        {"4.2", "GET @/units?nextPageToken=ZAACAA==", 400, ERR(400, "token limit must be 2")},
        {"4.2", "GET @/units?nextPageToken=AgAAAA==", 400, ERR(400, "token page must be greater than zero")},
    };
    struct wire *wire = *state;

    for (char c = 'd'; c >= 'a'; c--) {
        char name[] = "x.service";

        name[0] = c;
        put(wire->world, name, "{" PLAIN "}", 201);
    }
    api_set_token_limit(wire->world->api, 2);
    check_rows(wire, rows, ARRAY_SIZE(rows));
}

/* ---- §4.5: PUT, in the order of its decisions ---- */

static void test_put(void **state)
{
    static const struct row rows[] = {
        /* 1. Content-Type comes first, whatever the body is. */
        {"4.5.1", "PUT @/units/b\n\nnonsense", 415, ERR(415, "expected 1 Content-Type, got 0")},
        {"4.5.1", "PUT @/units/b\nContent-Type: application/json\nContent-Type: application/json\n\n{}", 415,
         ERR(415, "expected 1 Content-Type, got 2")},
        {"4.5.1", "PUT @/units/b\nContent-Type: text/json\n\nnonsense", 415,
         ERR(415, "only acceptable Content-Type is application/json")},
        {"4.5.1", "PUT @/units/b\nContent-Type: Application/json\n\n{}", 415,
         ERR(415, "only acceptable Content-Type is application/json")},
        {"4.5.1", "PUT @/units/new.service\nContent-Type:  application/json ; charset=utf-8\n\n{}", 409,
         ERR(409, "unit does not exist and options field empty")},
        /* 2. Then the body, even if the name is wrong. */
        {"4.5.2", JSON_PUT("b") "", 400, ERR(400, "unable to decode body: EOF")},
        {"4.5.2", JSON_PUT("b") "{\"name\":\"c\"", 400, "~unable to decode body: "},
        {"4.5.2", JSON_PUT("b") "[]", 400, "~unable to decode body: "},
        {"4.5.2", JSON_PUT("b") "{\"desiredState\":1}", 400, "~unable to decode body: "},
        {"ours", JSON_PUT("b") "{\"options\":[null]}", 400, "~unable to decode body: option 1"},
        /* 3. Two names. */
        {"4.5.3", JSON_PUT("b") "{\"name\":\"c d\"}", 400,
         ERR(400, "name in URL \\\"b\\\" differs from unit name in request body \\\"c d\\\"")},
        /* 4. The name itself, before it is looked for. */
        {"4.5.4", JSON_PUT("b") "{}", 400, ERR(400, "unit name must contain \\\".\\\"")},
        {"4.5.4", JSON_PUT("b.") "{}", 400, ERR(400, "unit name cannot end in \\\".\\\"")},
        {"4.5.4", JSON_PUT("b.conf") "{}", 400, ERR(400, "invalid unit type: \\\"conf\\\"")},
        {"4.5.4", JSON_PUT("b@.mount") "{}", 400, ERR(400, "invalid unit type for template: \\\"mount\\\"")},
        {"4.5.4", JSON_PUT("a%20b.service") "{}", 400, ERR(400, "invalid character ' ' in unit name")},
        {"4.5.4", JSON_PUT("@b.service") "{}", 400, ERR(400, "unit name cannot start in \\\"@\\\"")},
        /* 6. A unit that is not there. */
        {"4.5.6", JSON_PUT("new.service") "{\"desiredState\":\"bogus\"}", 409,
         ERR(409, "unit does not exist and options field empty")},
        {"4.5.6", JSON_PUT("new.service") "{\"options\":[]}", 409,
         ERR(409, "unit does not exist and options field empty")},
        {"4.5.6",
         JSON_PUT("new.service") "{\"options\":[" OPTION("X-Fleet", "MachineID",
                                                         "x") "," OPTION("X-Fleet", "Conflicts", "y") "]}",
         400, ERR(400, "MachineID cannot be used with Conflicts")},
        {"ours", JSON_PUT("new.service") "{\"desiredState\":\"bogus\"," PLAIN "}", 400, "~bogus"},
        {"ours", JSON_PUT("new@.service") "{\"desiredState\":\"launched\"," PLAIN "}", 400,
         ERR(400, "cannot activate template \\\"new@.service\\\"")},
        {"ours", JSON_PUT("new.service") "{\"options\":[" OPTION("A", "B", "c\\nD=e") "]}", 400, "~newline"},
        {"ours", JSON_PUT("new.service") "{\"options\":[" OPTION("X-Fleet", "MachineOf", "new.service") "]}",
         400, "~MachineOf goes in a circle: new.service waits for new.service"},
        {"4.5.6", "GET @/units", 200, "{}"},
        {"4.5.6",
         JSON_PUT("new.service") "{\"name\":\"new.service\"," PLAIN ",\"currentState\":\"launched\","
                                 "\"machineID\":\"x\"}\n",
         201, NULL},
        {"4.5.6", "GET @/units/new.service", 200,
         "~{\"currentState\":\"inactive\",\"desiredState\":\"inactive\""},
        /* 7. Other content replaces. */
        {"4.5.7", JSON_PUT("new.service") "{\"options\":[" OPTION("A", "B", "c") "]}", 201, NULL},
        {"ours",
         JSON_PUT("new.service") "{\"options\":[" OPTION("X-Fleet", "MachineID",
                                                         "x") "," OPTION("X-Fleet", "Conflicts", "y") "]}",
         400, ERR(400, "MachineID cannot be used with Conflicts")},
        {"ours",
         JSON_PUT("new.service") "{\"desiredState\":\"bogus\",\"options\":[" OPTION("A", "B", "d") "]}", 400,
         "~bogus"},
        {"ours", JSON_PUT("peer.service") "{\"options\":[" OPTION("X-Fleet", "MachineOf", "new.service") "]}",
         201, NULL},
        {"ours", JSON_PUT("new.service") "{\"options\":[" OPTION("X-Fleet", "MachineOf", "peer.service") "]}",
         400, "~MachineOf goes in a circle: new.service waits for peer.service"},
        /* 8. Same content, or none, and no state. */
        {"4.5.8", JSON_PUT("new.service") "{\"options\":[" OPTION("A", "B", "c") "]}", 409,
         ERR(409, "must provide DesiredState to update existing unit")},
        {"4.5.8", JSON_PUT("new.service") "{}", 409,
         ERR(409, "must provide DesiredState to update existing unit")},
        {"4.5.8", JSON_PUT("new.service") "null", 409,
         ERR(409, "must provide DesiredState to update existing unit")},
        {"ours", JSON_PUT("new.service") "{\"desiredState\":\"Launched\"}", 400, "~Launched"},
        /* 9. Templates stay where they are. */
        {"4.5.9", JSON_PUT("t@.service") "{" PLAIN "}", 201, NULL},
        {"4.5.9", JSON_PUT("t@.service") "{\"desiredState\":\"loaded\"}", 400,
         ERR(400, "cannot activate template \\\"t@.service\\\"")},
        {"4.5.9", JSON_PUT("t@.service") "{\"desiredState\":\"inactive\"}", 204, NULL},
        /* 10. The state. */
        {"4.5.10", JSON_PUT("new.service") "{\"desiredState\":\"launched\"}", 204, NULL},
        {"4.5.10", JSON_PUT("new.service") "{\"desiredState\":\"launched\"}", 204, NULL},
        {"0.9", JSON_PUT("new.service") "{\"options\":[" OPTION("A", "B", "e") "]}", 201, NULL},
        {"0.9", "GET @/units/new.service", 200, "~\"desiredState\":\"inactive\""},
        {"4.5", "DELETE @/units/new.service", 204, NULL},
        {"4.5", "DELETE @/units/new.service", 404, ERR(404, "unit does not exist")},
        {"0.2", JSON_PUT("t%401%5Cx2d%3A.service") "{" PLAIN "}", 201, NULL},
        {"0.2", "GET @/units/t@1%5cx2d:.service", 200, "~\"name\":\"t@1\\\\x2d:.service\""},
    };

    check_rows(*state, rows, ARRAY_SIZE(rows));
}

/* Exactly 256 bytes are fine. */
static void test_name_length(void **state)
{
    for (int digits = 248; digits <= 249; digits++) {
        _cleanup_(freep) char *request =
            xasprintf("PUT @/units/%0*d.service\nContent-Type: application/json\n\n{}", digits, 0);
        struct row row = {"4.5.4", request, 409, ERR(409, "unit does not exist and options field empty")};

        if (digits > 248)
            row = (struct row){"4.5.4", request, 400, ERR(400, "unit name exceeds maximum length (256)")};
        check_row(*state, &row, V1);
    }
}

/* ---- §4.1: JSON as the first fleet read it ---- */

static void test_json(void **state)
{
    static const struct row rows[] = {
        {"4.1",
         JSON_PUT(
             "a.service") "{\"NAME\":\"a.service\",\"oPTIONS\":[{\"SECTION\":\"A\",\"Name\":\"B\",\"vAlUe\":"
                          "\"c\"}],\"DesiredState\":\"loaded\"}",
         201, NULL},
        {"4.1", "GET @/units/a.service", 200, "~\"desiredState\":\"loaded\""},
        {"4.1", JSON_PUT("a.service") "{\"desiredState\":\"bogus\",\"desiredSTATE\":\"inactive\"}", 204,
         NULL},
        {"4.1",
         JSON_PUT("a.service") "{\"desiredState\":\"bogus\",\"desiredState\":\"launched\"} {] trailing", 204,
         NULL},
        {"4.1", "GET @/units/a.service", 200, "~\"desiredState\":\"launched\""},
        {"4.1",
         JSON_PUT("a.service") "{\"desiredState\":\"loaded\",\"options\":null,\"name\":null,\"DesiredState\":"
                               "null}",
         204, NULL},
        {"4.1",
         JSON_PUT("a.service") "{\"desiredState\":\"loaded\",\"x\":{\"y\":[null,true,-1.5e3,{}]},\"z\":"
                               "99999999999999999999999999,\"max\":18446744073709551615}",
         204, NULL},
        {"4.1", JSON_PUT("a.service") "\r\n\t {\"desiredState\":\"loaded\"}", 204, NULL},
        {"4.1", JSON_PUT("a.service") "{\"desiredState\":\"\\u006coaded\"}", 204, NULL},
        {"4.1", JSON_PUT("a.service") "{'desiredState':'loaded'}", 400, "~unable to decode body: "},
        {"4.1", JSON_PUT("a.service") "{\"desiredState\":\"loaded\",}", 400, "~unable to decode body: "},
        {"4.1", JSON_PUT("a.service") "\"loaded\"", 400, "~unable to decode body: "},
        {"ours", JSON_PUT("a.service") "{\"desiredState\":\"\xff\"}", 400, "~unable to decode body: "},
        {"ours", JSON_PUT("a.service") "{\"desiredState\":\"\\ud800\"}", 400, "~unable to decode body: "},
        {"ours", JSON_PUT("a.service") "{\"name\":\"a\\u0000\"}", 400, "~unable to decode body: "},
        {"ours", "POST @/wait\n\n{\"units\":[\"a.service\"],\"timeoutMs\":0}", 200,
         "~\"name\":\"a.service\""},
        {"ours", "POST @/wait\n\n{\"units\":[\"a.service\"],\"timeoutMs\":1.5}", 400, "~whole number"},
        {"ours", "POST @/wait\n\n{\"units\":[\"a.service\"],\"timeoutMs\":-1}", 400, "~whole number"},
        {"ours", "POST @/wait\n\n{\"units\":[\"a.service\"],\"timeoutMs\":1e300}", 400, "~whole number"},
        {"ours", "POST @/wait\n\n{\"units\":[\"a.service\"],\"generations\":{\"a.service\":1e17}}", 400,
         "~whole number"},
    };

    check_rows(*state, rows, ARRAY_SIZE(rows));
}

/* ---- §4.6: PATCH ---- */

#define OP(op, path, value) "{\"op\":\"" op "\",\"path\":\"" path "\",\"value\":" value "}"
#define PATCH(body)         "PATCH @/machines\n\n" body
#define DONE                "" /* No body, but a Content-Type. */

static void test_patch(void **state)
{
    static const struct row rows[] = {
        {"4.6", PATCH(""), 400, ERR(400, "EOF")},
        {"4.6", PATCH("{}"), 400, "~\"code\":400"},
        {"4.6", PATCH("[]"), 204, DONE},
        {"4.6", PATCH("null"), 204, DONE},
        {"4.6", "PATCH @/machines\nContent-Type: text/plain\n\n[]", 204, DONE},
        {"4.6", PATCH("[{}]"), 400, ERR(400, "invalid op: expect add, remove, or replace")},
        {"4.6", PATCH("[" OP("move", "bad", "\"\"") "]"), 400,
         ERR(400, "invalid op: expect add, remove, or replace")},
        {"4.6", PATCH("[" OP("add", "/x/metadata/a b", "\"\"") "]"), 400,
         ERR(400, "machine metadata path invalid")},
        {"4.6", PATCH("[" OP("remove", "/x/y/metadata/a", "\"\"") "]"), 400,
         ERR(400, "machine metadata path invalid")},
        {"4.6", PATCH("[" OP("add", "/x/metadata/a", "\"\"") "]"), 400,
         ERR(400, "invalid value: add and replace require a value")},
        {"4.6", PATCH("[{\"op\":\"replace\",\"path\":\"/x/metadata/a\"}]"), 400,
         ERR(400, "invalid value: add and replace require a value")},
        /* All are looked at before any is carried out. */
        {"4.6", PATCH("[" OP("add", "/" ID_A "/metadata/a", "\"1\"") "," OP("nop", "", "\"\"") "]"), 400,
         ERR(400, "invalid op: expect add, remove, or replace")},
        {"4.6", "GET @/machines", 200, "~\"id\":\"" ID_A "\",\"state\""},
        /* Both forms of a value. */
        {"4.6",
         PATCH("[" OP("add", "/" ID_A "/metadata/a",
                      "\"1\"") "," OP("replace", "/" ID_A "/metadata/b",
                                      "{\"value\":\"2\"}") ","
                                                           "{\"op\":\"add\",\"path\":\"/" ID_A
                                                           "/metadata/c_.-0\",\"Value\":{\"Value\":\"3\"}}]"),
         204, DONE},
        {"4.6", "GET @/machines", 200, "~\"metadata\":{\"a\":\"1\",\"b\":\"2\",\"c_.-0\":\"3\"}"},
        {"4.6",
         PATCH("[" OP("remove", "/" ID_A "/metadata/b",
                      "null") "," OP("remove", "/unknown/metadata/b",
                                     "\"ignored\"") "," OP("add", "/" ID_A "/metadata/a", "\"9\"") "]"),
         204, DONE},
        {"4.6", "GET @/machines", 200, "~\"metadata\":{\"a\":\"9\",\"c_.-0\":\"3\"}"},
        {"4.6", "GET @/machines", 200,
         "~{\"machines\":[{\"id\":\"" ID_A "\""}, /* The unknown one is not listed. */
        {"4.6", PATCH("[" OP("add", "/" ID_A "/metadata/a", "7") "]"), 400, "~\"code\":400"},
    };
    struct wire *wire = *state;

    add_machine(wire->world, ID_A, "", "", 1);
    check_rows(wire, rows, ARRAY_SIZE(rows));
}

/* ---- §0: the first fleet's client, byte for byte as it speaks ---- */

#define GO_HEAD      "Host: domain-sock\r\nUser-Agent: google-api-go-client/0.5\r\n"
#define GO_GET(path) "GET /fleet/v1/" path "?alt=json HTTP/1.1\r\n" GO_HEAD "Accept-Encoding: gzip\r\n\r\n"
#define GO_DELETE(name) \
    "DELETE /fleet/v1/units/" name "?alt=json HTTP/1.1\r\n" GO_HEAD "Accept-Encoding: gzip\r\n\r\n"

static void go_asks(struct wire *wire, const char *bytes, unsigned status, const char *has)
{
    _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, bytes, strlen(bytes));

    if (answer.status != status || strstr(answer.bytes, has) == NULL)
        fail_msg("wanted %u and %s\n--- asked\n%s\n--- got\n%s", status, has, bytes, answer.bytes);
}

/* The body has a newline at its end. */
static void go_puts(struct wire *wire, const char *name, const char *body, unsigned status, const char *has)
{
    _cleanup_(freep) char *bytes = xasprintf(
        "PUT /fleet/v1/units/%s?alt=json HTTP/1.1\r\n" GO_HEAD
        "Content-Length: %zu\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n%s\n",
        name, strlen(body) + 1, body);

    go_asks(wire, bytes, status, has);
}

static void test_first_client(void **state)
{
    struct wire *wire = *state;
    struct core *core = &wire->world->core;

    add_machine(wire->world, ID_A, "a", "10.0.0.1", 1);
    /* submit */
    go_asks(wire, GO_GET("units/w%401.service"), 404, "\"message\":\"unit does not exist\"");
    go_puts(wire, "w%401.service",
            "{\"name\":\"w@1.service\",\"options\":[{\"name\":\"ExecStart\",\"section\":\"Service\","
            "\"value\":\""
            "/bin/sleep infinity \\u0026\"}]}",
            201, "Content-Length: 0\r\n");
    go_asks(wire, GO_GET("units/w%401.service"), 200, "\"currentState\":\"inactive\"");
    /* load, start */
    go_puts(wire, "w%401.service", "{\"desiredState\":\"loaded\",\"name\":\"w@1.service\"}", 204, "\r\n\r\n");
    go_asks(wire, GO_GET("units/w%401.service"), 200,
            "\"currentState\":\"inactive\",\"desiredState\":\"loaded\"");
    place(wire->world, "w@1.service", ID_A);
    go_asks(wire, GO_GET("state/w%401.service"), 200, "\r\n\r\n{}");
    fake_core_report(core, "w@1.service", ID_A, "active", false);
    go_asks(wire, GO_GET("units/w%401.service"), 200, "\"currentState\":\"loaded\"");
    go_puts(wire, "w%401.service", "{\"desiredState\":\"launched\",\"name\":\"w@1.service\"}", 204,
            "\r\n\r\n");
    core->reports[0].report.launched = true;
    go_asks(wire, GO_GET("units/w%401.service"), 200, "\"currentState\":\"launched\"");
    go_asks(wire, GO_GET("state/w%401.service"), 200,
            "\"systemdActiveState\":\"active\",\"systemdLoadState\":\"loaded\"");
    go_asks(wire, GO_GET("machines"), 200, "\"primaryIP\":\"10.0.0.1\"");
    /* destroy */
    go_asks(wire, GO_DELETE("w%401.service"), 204, "\r\n\r\n");
    go_asks(wire, GO_DELETE("w%401.service"), 404, "\"message\":\"unit does not exist\"");
}

/* Its restart waits for "launched" between stopping and starting (§1.6.6); everybody else sees what is. */
static void test_first_clients_restart(void **state)
{
    static const char stop[] = "{\"desiredState\":\"loaded\",\"name\":\"a.service\"}";
    static const struct row others_see_it_loaded = {"1.6.6", "GET @/units/a.service", 200,
                                                    "~\"currentState\":\"loaded\""};
    static const struct row other_stops = {"1.6.6", JSON_PUT("a.service") "{\"desiredState\":\"loaded\"}",
                                           204, NULL};
    static const struct row other_starts = {"1.6.6", JSON_PUT("a.service") "{\"desiredState\":\"launched\"}",
                                            204, NULL};
    struct wire *wire = *state;
    struct core *core = &wire->world->core;

    put(wire->world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(wire->world, "a.service", ID_A);
    fake_core_report(core, "a.service", ID_A, "active", true);
    go_puts(wire, "a.service", stop, 204, "");
    core->reports[0].report.launched = false;
    check_row(wire, &others_see_it_loaded, V1);
    go_asks(wire, GO_GET("units/a.service"), 200, "\"currentState\":\"launched\"");
    go_asks(wire, GO_GET("units/a.service"), 200,
            "\"currentState\":\"loaded\"");    /* What its stop waits for. */
    go_puts(wire, "a.service", stop, 204, ""); /* It was stopped already. */
    go_asks(wire, GO_GET("units/a.service"), 200, "\"currentState\":\"loaded\"");
    core->reports[0].report.launched = true;
    check_row(wire, &other_starts, V1);
    go_puts(wire, "a.service", stop, 204, "");
    core->reports[0].report.launched = false;
    wire->world->now_ms += 10000; /* It did not wait: what it asks later is another thing. */
    go_asks(wire, GO_GET("units/a.service"), 200, "\"currentState\":\"loaded\"");
    /* Somebody else's stop is none of that client's business, nor is what was changed in between. */
    core->reports[0].report.launched = true;
    check_row(wire, &other_starts, V1);
    check_row(wire, &other_stops, V1);
    core->reports[0].report.launched = false;
    go_asks(wire, GO_GET("units/a.service"), 200, "\"currentState\":\"loaded\"");
    core->reports[0].report.launched = true;
    check_row(wire, &other_starts, V1);
    go_puts(wire, "a.service", stop, 204, "");
    check_row(wire, &other_starts, V1);
    check_row(wire, &other_stops, V1);
    core->reports[0].report.launched = false;
    go_asks(wire, GO_GET("units/a.service"), 200, "\"currentState\":\"loaded\"");
}

/* ---- §4.1: no API ---- */

static void test_no_cluster(void **state)
{
    static const char *const asked[] = {
        "GET @/units", "GET @/nothing", "GET /", "GET @/discovery", "PUT @/units/a.service\n\nnonsense",
    };
    struct wire *wire = *state;

    wire->member = false;
    for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
        _cleanup_(freep) char *request = wire_request(asked[i], V1);
        _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, request, strlen(request));
        _cleanup_(freep) char *type = wire_header(&answer, "Content-Type");

        assert_int_equal(answer.status, 503);
        assert_true(
            str_has_prefix(answer.body, "{\"error\":{\"code\":503,\"message\":\"this host belongs to no"));
        assert_string_equal(type, "application/json");
        assert_null(wire_header(&answer, "Server"));
    }
    go_asks(wire, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, "\nfleet_member 0\n");
    go_asks(wire, "GET /v1-alpha/status HTTP/1.1\r\nHost: x\r\n\r\n", 200, "{}");
}

static void test_no_leader(void **state)
{
    static const struct row at_once[] = {
        {"ours", "GET @/units/a.service?stale=yes", 200, "~\"stale\":true"},
        {"ours", "GET @/discovery", 200, "~\"kind\":\"discovery#restDescription\""},
        {"4.1", "GET @/nothing", 404, ERR(404, "")},
        {"4.3", "POST @/state\n\n{}", 405, ERR(405, "only GET supported against this resource")},
    };
    static const struct row read = {"ours", "GET @/units", 503, ERR(503, "no leader: it is being elected")};
    struct wire *wire = *state;
    uint64_t begin;

    put(wire->world, "a.service", "{" PLAIN "}", 201);
    wire_connect(wire, false);
    wire->world->leads = wire->world->core.leads = false;
    begin = uv_hrtime();
    check_rows(wire, at_once, ARRAY_SIZE(at_once));
    assert_true(uv_hrtime() - begin < ROUTER_READ_MS * 1000000ull / 2);
    check_row(wire, &read, V1);
}

/* A leader that says no is asked again for a while; then its reason is the answer. */
static void test_leader_refuses(void **state)
{
    static const struct row refused = {"ours", JSON_PUT("a.service") "{" PLAIN "}", 503,
                                       ERR(503, "nothing was changed: too much is in flight")};
    static const struct row taken = {"ours", JSON_PUT("a.service") "{" PLAIN "}", 201, NULL};
    struct wire *wire = *state;

    wire->world->mood = MOOD_REFUSE;
    check_row(wire, &refused, V1);
    wire->world->mood = MOOD_APPLY;
    check_row(wire, &taken, V1);
}

/* Whatever a leader answers, its clients get an answer, and this host goes on. */
static void test_leader_talks_nonsense(void **state)
{
    static const unsigned nonsense[] = {1, 100, 199, 600, 4294967295u};
    struct wire *wire = *state;

    for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
        wire->forged_status = nonsense[i];
        check_row(wire, &(struct row){"ours", "GET @/units", 502, "~\"code\":502"}, V1);
    }
    wire->forged_status = 0;
    check_row(wire, &(struct row){"ours", "GET @/units", 200, "{}"}, V1);
}

/* ---- many requests on one connection ---- */

static void test_pipelining(void **state)
{
    static const char requests[] =
        "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
        "1\r\n{\r\n49;ext=1\r\n\"options\":[{\"section\":\"Service\",\"name\":\"ExecStart\",\"value\":\"/bin/"
        "true\"}]}"
        "\r\n0\r\nX-Trailer: y\r\n\r\n"
        "GET /v1-alpha/units/a.service HTTP/1.1\r\nHost: x\r\n\r\n"
        "GET //x HTTP/1.1\r\nHost: x\r\n\r\n"
        "DELETE /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\n\r\n"
        "GET /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\n\r\n";
    static const char *const order[] = {"HTTP/1.1 201 ", "HTTP/1.1 200 ", "\"value\":\"/bin/true\"",
                                        "HTTP/1.1 301 ", "HTTP/1.1 204 ", "HTTP/1.1 404 "};
    struct wire *wire = *state;
    _cleanup_(wire_answer_done) struct wire_answer answer =
        wire_exchange(wire, requests, sizeof requests - 1);
    const char *at = answer.bytes;

    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        at = strstr(at, order[i]);
        if (at == NULL)
            fail_msg("no %s in its place: %s", order[i], answer.bytes);
    }
}

/* ---- hostile bytes ---- */

static void assert_still_serves(struct wire *wire)
{
    check_row(wire, &(struct row){"hostile", "GET @/units", 200, "{}"}, V1);
}

/* No answer, or one that refuses; and never one that took half of it for a request. */
static void test_broken_framing(void **state)
{
#define HEAD "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
#define BODY "{" PLAIN "}"
    static const char *const cases[] = {
        HEAD "Content-Length: 7\r\nContent-Length: 74\r\n\r\n" BODY,
        HEAD "Content-Length: 74, 74\r\n\r\n" BODY,
        HEAD "Content-Length: +74\r\n\r\n" BODY,
        HEAD "Content-Length: 0x4a\r\n\r\n" BODY,
        HEAD "Content-Length: -74\r\n\r\n" BODY,
        HEAD "Content-Length: 18446744073709551690\r\n\r\n" BODY,
        HEAD "Content-Length: 1000\r\n\r\n" BODY, /* More than comes. */
        HEAD "Content-Length: 74\r\nTransfer-Encoding: chunked\r\n\r\n" BODY,
        HEAD "Transfer-Encoding: chunked\r\nContent-Length: 74\r\n\r\n0\r\n\r\n" BODY,
        HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: identity\r\n\r\n" BODY,
        HEAD "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n" BODY "\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n-1\r\n" BODY "\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n4a\r\n" BODY "xx\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" BODY "\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" BODY,
        HEAD "Content-Length : 74\r\n\r\n" BODY,
        HEAD " Content-Length: 74\r\n\r\n" BODY,
        "PUT /fleet/v1/units/a.service\r\n\r\n" BODY,
    };
    static const char sound[] = HEAD "Content-Length: 74\r\n\r\n" BODY;
    struct wire *wire = *state;
    struct wire_answer control;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(wire_answer_done) struct wire_answer answer =
            wire_exchange(wire, cases[i], strlen(cases[i]));

        if ((answer.size > 0 && (answer.status < 400 || answer.status == 500)) || wire->world->proposals > 0)
            fail_msg("case %zu: taken:\n%s\n--- got\n%s", i, cases[i], answer.bytes);
        assert_still_serves(wire);
    }
    control = wire_exchange(wire, sound, sizeof sound - 1);
    assert_int_equal(control.status, 201);
    wire_answer_done(&control);
}

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define MORE_MAX_MB 1024 /* It keeps what is freed, to see whether somebody uses it. */
#else
#define MORE_MAX_MB 128
#endif

/* The most memory that this process has had, in MiB. */
static long peak_mb(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss / 1024;
}

/* Large in one way or another. Each is refused, and none takes more than a small multiple of its size. */
static void test_large_input(void **state)
{
    long before_mb = peak_mb();
    enum { DEEP = 300000, KEYS = 100000 };
    struct wire *wire = *state;
    struct strbuf bodies[6] = {0};
    static const unsigned status[6] = {400, 400, 409, 413, 400, 413};

    for (unsigned i = 0; i < DEEP; i++)
        strbuf_add(&bodies[0], i % 2 == 0 ? "[" : "{\"a\":");
    strbuf_add(&bodies[1], "{\"desiredState\":");
    for (unsigned i = 0; i < DEEP; i++)
        strbuf_add(&bodies[1], "9");
    strbuf_add(&bodies[1], "}");
    strbuf_add(&bodies[2], "{\"name\":\"a.service\"");
    for (unsigned i = 0; i < KEYS; i++)
        strbuf_addf(&bodies[2], ",\"key%u\":%u", i, i);
    strbuf_add(&bodies[2], "}");
    strbuf_add(&bodies[3], "[");
    for (unsigned i = 0; i <= API_JSON_VALUES_MAX; i++)
        strbuf_add(&bodies[3], "0,");
    strbuf_add(&bodies[3], "0]");
    strbuf_add(&bodies[4], "{\"name\":\"");
    for (unsigned i = 0; i < DEEP; i++)
        strbuf_add(&bodies[4], "\\u20ac");
    strbuf_add(&bodies[4], "\"}");
    for (unsigned i = 0; i < 5 * DEEP; i++)
        strbuf_add(&bodies[5], "    ");
    strbuf_add(&bodies[5], "{}");
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
        _cleanup_(freep) char *request = xasprintf(JSON_PUT("a.service") "%s", bodies[i].text);
        _cleanup_(freep) char *bytes = wire_request(request, V1);
        _cleanup_(wire_answer_done) struct wire_answer answer = wire_exchange(wire, bytes, strlen(bytes));

        if (answer.status != status[i] || answer.size > 8192 * 512)
            fail_msg("case %zu: wanted %u, got %.300s", i, status[i], answer.bytes);
        strbuf_done(&bodies[i]);
    }
    assert_int_equal(wire->world->proposals, 0);
    assert_in_range(peak_mb() - before_mb, 0, MORE_MAX_MB);
    assert_still_serves(wire);
}

static void test_large_head(void **state)
{
    static const char *const starts[] = {"GET /", "GET /fleet/v1/units?",
                                         "GET /x HTTP/1.1\r\nHost: x\r\nX: ", "GET /x HTTP/1.1\r\nHost: "};
    struct wire *wire = *state;
    struct strbuf many = {0};
    struct wire_answer answer;

    for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
        struct strbuf request = {0};

        strbuf_add(&request, starts[i]);
        while (request.size < 4 * HTTP_CONNECTION_MEMORY)
            strbuf_add(&request, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        strbuf_add(&request, " HTTP/1.1\r\nHost: x\r\n\r\n");
        answer = wire_exchange(wire, request.text, request.size);
        assert_true(answer.size == 0 || answer.status == 414 || answer.status == 431 || answer.status == 400);
        wire_answer_done(&answer);
        strbuf_done(&request);
    }
    strbuf_add(&many, "GET /fleet/v1/units HTTP/1.1\r\nHost: x\r\n");
    for (unsigned i = 0; i < 5000; i++)
        strbuf_addf(&many, "X-%u: %u\r\n", i, i);
    strbuf_add(&many, "\r\n");
    answer = wire_exchange(wire, many.text, many.size);
    assert_true(answer.size == 0 || answer.status == 431);
    wire_answer_done(&answer);
    strbuf_done(&many);
    assert_still_serves(wire);
}

static void test_nul_bytes(void **state)
{
#define BYTES(text)           \
    {                         \
        text, sizeof text - 1 \
    }
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        BYTES("GET /fleet/v1/units\0/x HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /fleet/v1/units%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("GET /fleet/v1/un\0its HTTP/1.1\r\nHost: x\r\n\r\n"),
        BYTES("PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              "Content-Length: 8\r\n\r\n{\"a\0b\":1"),
        BYTES("PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              "Content-Length: 3\r\n\r\n\0{}"),
        BYTES("\0\0\0\0\0\0\0\0\r\n\r\n"),
    };
    struct wire *wire = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(wire_answer_done) struct wire_answer answer =
            wire_exchange(wire, cases[i].bytes, cases[i].size);

        if (answer.size > 0 && answer.status != 400)
            fail_msg("case %zu: got %s", i, answer.bytes);
    }
    assert_still_serves(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(test_broken_framing),
        WIRE_TEST(test_large_input),
        WIRE_TEST(test_large_head),
        WIRE_TEST(test_nul_bytes),
        WIRE_TEST(test_paths_and_methods),
        WIRE_TEST(test_unclean_paths),
        WIRE_TEST(test_head),
        WIRE_TEST(test_entities),
        WIRE_TEST(test_pages),
        WIRE_TEST(test_put),
        WIRE_TEST(test_name_length),
        WIRE_TEST(test_json),
        WIRE_TEST(test_patch),
        WIRE_TEST(test_first_client),
        WIRE_TEST(test_first_clients_restart),
        WIRE_TEST(test_no_cluster),
        WIRE_TEST(test_no_leader),
        WIRE_TEST(test_leader_refuses),
        WIRE_TEST(test_leader_talks_nonsense),
        WIRE_TEST(test_pipelining),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
