/* SPDX-License-Identifier: Apache-2.0 */
/* The API, from a raw request to a raw answer: against a real registry, and a stand-in for the leader's mind.
 * The store is this test: a command is applied at once, or as a test says. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/api.h"
#include "raftstore/limits.h"
#include "tests/unit/fake-core.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define V1   "/fleet/v1"

/* ---- the world ---- */

enum store_mood {
    MOOD_APPLY,  /* At once. */
    MOOD_REFUSE, /* At once. */
    MOOD_LOSE,   /* Applied, but the answer is lost. */
    MOOD_WAIT,   /* Kept until world_resume(). */
};

struct kept {
    store_done *done;
    void *data;
    uint8_t *bytes; /* NULL: a barrier. */
    size_t size;
};

struct world {
    struct registry *registry;
    struct core core;
    struct api *api;
    bool leads;
    enum store_mood mood;
    uint64_t now_ms;
    unsigned barriers, proposals;
    struct kept kept[8];
    size_t kept_count;
    /* The last answer. */
    unsigned answers, status;
    char content_type[64];
    char *body;
};

static const struct registry *world_registry(void *data)
{
    return ((struct world *)data)->registry;
}

static const struct core *world_core(void *data)
{
    return &((struct world *)data)->core;
}

static bool world_leads(void *data)
{
    return ((struct world *)data)->leads;
}

static uint64_t world_now(void *data)
{
    return ((struct world *)data)->now_ms;
}

static size_t world_servers(struct store_server *servers, size_t max, void *data)
{
    assert_true(max >= 3);
    servers[0] = (struct store_server){.id = 1, .address = "10.0.0.1:7390", .role = 1};
    servers[1] = (struct store_server){.id = 9, .address = "10.0.0.9:7390", .role = 0};
    return 2;
}

static uint64_t world_leader(void *data)
{
    return 1;
}

static void world_keep(struct world *world, store_done *done, void *done_data, uint8_t *bytes, size_t size)
{
    assert_true(world->kept_count < 8);
    world->kept[world->kept_count++] =
        (struct kept){.done = done, .data = done_data, .bytes = bytes, .size = size};
}

static void world_propose(const Fleet__Command *command, store_done *done, void *done_data, void *data)
{
    struct world *world = data;
    const struct registry_result *result;
    uint8_t *bytes;
    size_t size;

    world->proposals++;
    assert_int_equal(command->wall_ms, 0);
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    if (world->mood == MOOD_WAIT) {
        world_keep(world, done, done_data, bytes, size);
        return;
    }
    result = world->mood != MOOD_REFUSE ? registry_apply(world->registry, bytes, size) : NULL;
    free(bytes);
    if (world->mood == MOOD_APPLY)
        done(STORE_APPLIED, result, "", done_data);
    else if (world->mood == MOOD_LOSE)
        done(STORE_UNKNOWN, NULL, "leadership was lost", done_data);
    else
        done(STORE_REFUSED, NULL, "too much is in flight", done_data);
}

static void world_barrier(store_done *done, void *done_data, void *data)
{
    struct world *world = data;

    world->barriers++;
    if (world->mood == MOOD_WAIT)
        world_keep(world, done, done_data, NULL, 0);
    else
        done(world->mood == MOOD_REFUSE ? STORE_REFUSED : STORE_APPLIED, NULL, "no majority answers",
             done_data);
}

/* The store answers what it has kept. */
static void world_resume(struct world *world)
{
    size_t count = world->kept_count;

    world->kept_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct kept *kept = &world->kept[i];

        kept->done(STORE_APPLIED,
                   kept->bytes != NULL ? registry_apply(world->registry, kept->bytes, kept->size) : NULL, "",
                   kept->data);
        free(kept->bytes);
    }
}

static void on_answer(const struct api_answer *answer, void *data)
{
    struct world *world = data;

    world->answers++;
    world->status = answer->status;
    snprintf(world->content_type, sizeof world->content_type, "%s",
             answer->content_type != NULL ? answer->content_type : "none");
    free(world->body);
    world->body = xstrndup(answer->size > 0 ? answer->body : "", answer->size);
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

static const struct api_backend backend = {
    .registry = world_registry,
    .core = world_core,
    .leads = world_leads,
    .propose = world_propose,
    .barrier = world_barrier,
    .now_ms = world_now,
    .servers = world_servers,
    .leader_id = world_leader,
};

static int world_setup(void **state)
{
    struct world *world = NEW0(struct world);

    log_set_sink(no_log);
    world->registry = registry_new();
    world->core.registry = world->registry;
    world->core.leads = world->leads = true;
    world->now_ms = 1000;
    world->api = api_new(&backend, world, 100);
    *state = world;
    return 0;
}

static int world_teardown(void **state)
{
    struct world *world = *state;

    api_free(world->api);
    for (size_t i = 0; i < world->kept_count; i++) {
        world->kept[i].done(STORE_UNKNOWN, NULL, "closed", world->kept[i].data);
        free(world->kept[i].bytes);
    }
    registry_free(world->registry);
    free(world->body);
    free(world);
    return 0;
}

/* ---- asking ---- */

struct ask {
    const char *method, *path, *query, *body; /* Query: "a=b&c=d", not escaped. */
    const char *content_type;
    unsigned content_type_count;
    const void *request_id;
};

static uint64_t ask_raw(struct world *world, const struct ask *ask)
{
    Fleet__ApiRequest message = FLEET__API_REQUEST__INIT;
    Fleet__Label labels[8], *list[8];
    _cleanup_(freep) char *query = xstrdup(ask->query != NULL ? ask->query : "");
    char *at = query, *pair;

    message.method = (char *)ask->method;
    message.path = (char *)ask->path;
    message.peer = (char *)"test";
    message.query = list;
    while ((pair = strsep(&at, "&")) != NULL && *pair != '\0') {
        char *value = strchr(pair, '=');
        Fleet__Label *label = &labels[message.n_query];

        fleet__label__init(label);
        *value = '\0';
        label->key = pair;
        label->value = value + 1;
        list[message.n_query++] = label;
    }
    if (ask->body != NULL)
        message.body = (ProtobufCBinaryData){.len = strlen(ask->body), .data = (uint8_t *)ask->body};
    if (ask->content_type != NULL)
        message.content_type = (char *)ask->content_type;
    message.content_type_count = ask->content_type_count;
    if (ask->request_id != NULL)
        message.request_id =
            (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = (uint8_t *)ask->request_id};
    return api_handle(world->api, &message, on_answer, world);
}

static void ask(struct world *world, const char *method, const char *path, const char *body)
{
    unsigned before = world->answers;

    assert_int_equal(ask_raw(world, &(struct ask){.method = method,
                                                  .path = path,
                                                  .body = body,
                                                  .content_type = "application/json",
                                                  .content_type_count = 1}),
                     0);
    assert_int_equal(world->answers, before + 1);
}

static void assert_error(struct world *world, unsigned status, const char *message)
{
    _cleanup_(freep) char *start = xasprintf("{\"error\":{\"code\":%u,\"message\":\"%s", status, message);

    if (world->status != status || !str_has_prefix(world->body, start))
        fail_msg("wanted %u %s, got %u %s", status, start, world->status, world->body);
    assert_string_equal(world->content_type, "application/json");
}

/* A GET, and the whole body of its answer. */
static void assert_get(struct world *world, const char *path, const char *query, const char *body)
{
    assert_int_equal(ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = query}), 0);
    assert_string_equal(world->body, body);
    assert_int_equal(world->status, 200);
}

static void assert_has(struct world *world, const char *piece)
{
    if (strstr(world->body, piece) == NULL)
        fail_msg("no %s in %s", piece, world->body);
}

static void assert_lacks(struct world *world, const char *piece)
{
    if (strstr(world->body, piece) != NULL)
        fail_msg("%s in %s", piece, world->body);
}

static void put(struct world *world, const char *name, const char *body, unsigned status)
{
    _cleanup_(freep) char *path = xasprintf(V1 "/units/%s", name);

    ask(world, "PUT", path, body);
    if (world->status != status)
        fail_msg("PUT %s %s: wanted %u, got %u %s", name, body, status, world->status, world->body);
}

#define OPTION(s, n, v) "{\"section\":\"" s "\",\"name\":\"" n "\",\"value\":\"" v "\"}"
#define PLAIN           "\"options\":[" OPTION("Service", "ExecStart", "/bin/true") "]"

static void apply(struct world *world, Fleet__Command *command)
{
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_int_equal(registry_apply(world->registry, bytes, size)->status, 0);
    free(bytes);
}

static void add_machine(struct world *world, const char *id, const char *hostname, const char *ip,
                        uint64_t server_id)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.hostname = (char *)hostname;
    body.public_ip = (char *)ip;
    body.server_id = server_id;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    apply(world, &command);
}

static void place(struct world *world, const char *unit, const char *machine_id)
{
    Fleet__Placement placement = FLEET__PLACEMENT__INIT, *list[] = {&placement};
    Fleet__Schedule body = FLEET__SCHEDULE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    placement.unit = (char *)unit;
    placement.to = (char *)machine_id;
    placement.reason = (char *)"least loaded";
    placement.if_generation = registry_unit(world->registry, unit)->generation;
    body.n_placements = 1;
    body.placements = list;
    command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    command.schedule = &body;
    apply(world, &command);
}

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
        {"POST", V1 "/members", 405, "only GET supported against this resource\""},
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
               "\"options\":[{\"name\":\"A\",\"section\":\"Unit\",\"value\":\"<b>\"}]}");
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
        assert_string_equal(unit->last_target, ID_A);
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
    assert_get(world, V1 "/machines", NULL,
               "{\"machines\":[{\"hostname\":\"host-a\",\"id\":\"" ID_A
               "\",\"primaryIP\":\"10.0.0.1\",\"state\":\"joining\",\"units\":2},"
               "{\"hostname\":\"host-b\",\"id\":\"" ID_B "\",\"state\":\"lost\",\"units\":1}]}");
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
    add_machine(world, ID_B, "", "", 2);
    assert_get(world, V1 "/members", NULL,
               "{\"members\":[{\"leader\":true,\"machineID\":\"" ID_A
               "\",\"role\":\"voter\",\"serverID\":\"0000000000000001\",\"state\":\"ready\"},"
               "{\"leader\":false,\"machineID\":\"" ID_B
               "\",\"role\":\"host\",\"serverID\":\"0000000000000002\",\"state\":\"ready\"},"
               "{\"address\":\"10.0.0.9:7390\",\"leader\":false,\"role\":\"standby\","
               "\"serverID\":\"0000000000000009\"}]}");
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

/* ---- the store's answers ---- */

static void test_store_outcomes(void **state)
{
    static const char id[REQUEST_ID_SIZE] = "0123456789abcde";
    struct world *world = *state;
    struct ask create = {.method = "PUT",
                         .path = V1 "/units/a.service",
                         .body = "{" PLAIN "}",
                         .content_type = "application/json",
                         .content_type_count = 1,
                         .request_id = id};

    world->mood = MOOD_REFUSE;
    ask_raw(world, &create);
    assert_error(world, 503, "nothing was changed: too much is in flight\"");
    ask(world, "GET", V1 "/units", NULL);
    assert_error(world, 503, "no leader: no majority answers\"");
    world->mood = MOOD_LOSE;
    ask_raw(world, &create);
    assert_error(world, 504, "outcome unknown: ");
    assert_has(world, "may be repeated");
    world->mood = MOOD_APPLY;
    ask_raw(world, &create); /* The same request again: done already, so not "exists already". */
    assert_int_equal(world->status, 201);
    assert_int_equal(world->proposals, 2 + 0);
    create.request_id = NULL;
    ask_raw(world, &create);
    assert_error(world, 409, "must provide DesiredState");
}

static void test_repeated(void **state)
{
    static const char ids[3][REQUEST_ID_SIZE] = {"1", "2", "3"};
    struct world *world = *state;
    struct ask requests[] = {
        {.method = "POST",
         .path = V1 "/units",
         .body = "{\"units\":[{\"name\":\"a.service\",\"ifAbsent\":true," PLAIN "}]}",
         .request_id = ids[0]},
        {.method = "PATCH",
         .path = V1 "/machines",
         .body = "[{\"op\":\"remove\",\"path\":\"/m/metadata/k\"}]",
         .request_id = ids[1]},
        {.method = "DELETE", .path = V1 "/units/a.service", .request_id = ids[2]},
    };
    unsigned status;

    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        ask_raw(world, &requests[i]);
        status = world->status;
        assert_in_range(status, 200, 204);
        ask_raw(world, &requests[i]);
        assert_int_equal(world->status, status);
    }
    assert_int_equal(world->proposals, 3);
}

static void test_no_leader(void **state)
{
    struct world *world = *state;

    put(world, "a.service", "{" PLAIN "}", 201);
    world->leads = world->core.leads = false;
    ask(world, "GET", V1 "/units", NULL);
    assert_error(world, 503, "no leader: ");
    ask(world, "DELETE", V1 "/units/a.service", NULL);
    assert_error(world, 503, "no leader: ");
    assert_get(world, V1 "/state", "stale=yes", "{\"applied\":1,\"stale\":true}");
    ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/units", .query = "stale=yes"});
    assert_true(str_has_prefix(world->body, "{\"applied\":1,\"stale\":true,\"units\":[{"));
    ask_raw(world, &(struct ask){.method = "DELETE", .path = V1 "/units/a.service", .query = "stale=yes"});
    assert_error(world, 503, "no leader: ");
    assert_int_equal(world->barriers, 0);
}

static uint64_t start_wait(struct world *world, const char *body)
{
    return ask_raw(world, &(struct ask){.method = "POST", .path = V1 "/wait", .body = body});
}

static void test_yield(void **state)
{
    struct world *world = *state;

    world->mood = MOOD_WAIT;
    assert_int_not_equal(ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/units"}), 0);
    assert_int_equal(world->answers, 0);
    api_yield(world->api);
    assert_int_equal(world->answers, 1);
    assert_error(world, 503, "no leader: ");
    assert_int_not_equal(ask_raw(world, &(struct ask){.method = "PUT",
                                                      .path = V1 "/units/a.service",
                                                      .body = "{" PLAIN "}",
                                                      .content_type = "application/json",
                                                      .content_type_count = 1}),
                         0);
    api_yield(world->api);
    assert_error(world, 504, "outcome unknown: ");
    world_resume(world); /* The store's late answers reach nobody. */
    assert_int_equal(world->answers, 2);
    assert_int_not_equal(start_wait(world, "{\"units\":[\"a.service\"]}"), 0);
    world_resume(world);
    api_yield(world->api);
    assert_int_equal(world->answers, 3);
    assert_error(world, 503, "no leader: ");
    assert_true(api_deadline_ms(world->api) == UINT64_MAX);
}

static void test_cancel(void **state)
{
    struct world *world = *state;
    uint64_t handle;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    world->answers = 0;
    world->mood = MOOD_WAIT;
    handle = ask_raw(world, &(struct ask){.method = "GET", .path = V1 "/units"});
    api_cancel(world->api, handle);
    api_cancel(world->api, handle);
    api_cancel(world->api, 12345);
    world_resume(world);
    assert_int_equal(world->answers, 0);
    handle = start_wait(world, "{\"units\":[\"a.service\"]}");
    world_resume(world);
    api_cancel(world->api, handle);
    api_unit_changed(world->api, "a.service");
    api_tick(world->api, UINT64_MAX);
    assert_int_equal(world->answers, 0);
    start_wait(world, "{\"units\":[\"a.service\"]}"); /* Left open: ended by api_free(). */
}

/* ---- waiting ---- */

static void test_wait_refused(void **state)
{
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"", "unable to decode body: EOF\""},
        {"{}", "no units are given\""},
        {"{\"units\":\"a.service\"}", "\\\"units\\\" must be an array\""},
        {"{\"units\":[7]}", "unit 1: "},
        {"{\"units\":[\"\"]}", "unit 1: "},
        {"{\"units\":[\"a.service\",null]}", "unit 2: "},
        {"{\"units\":[\"a.service\"],\"until\":\"later\"}", "\\\"until\\\" is one of "},
        {"{\"units\":[\"a.service\"],\"timeoutMs\":-1}", "\\\"timeoutMs\\\" must be a whole"},
        {"{\"units\":[\"a.service\"],\"timeoutMs\":1.5}", "\\\"timeoutMs\\\" must be a whole"},
        {"{\"units\":[\"a.service\"],\"generations\":[]}", "\\\"generations\\\" must be an object\""},
        {"{\"units\":[\"a.service\"],\"generations\":{\"a.service\":\"1\"}}",
         "unit a.service: the generation"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(*state, "POST", V1 "/wait", cases[i].body);
        assert_error(*state, 400, cases[i].text);
    }
}

static void test_wait(void **state)
{
    struct world *world = *state;

    add_machine(world, ID_A, "host-a", "10.0.0.1", 1);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    put(world, "b.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    put(world, "c.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    world->answers = 0;
    assert_int_not_equal(
        start_wait(world, "{\"units\":[\"a.service\",\"b.service\",\"c.service\"],\"timeoutMs\":5000}"), 0);
    assert_true(api_deadline_ms(world->api) == 6000);
    api_unit_changed(world->api, "other.service");
    api_unit_changed(world->api, "c.service");
    assert_true(api_deadline_ms(world->api) == 6000);

    /* Two settle with one event: one answer. */
    fake_core_status(&world->core, "a.service", OUTCOME_ACTIVE, ID_A, "");
    fake_core_status(&world->core, "b.service", OUTCOME_UNPLACED, "", "no machine fits");
    world->core.statuses[1].machine = ID_A;
    world->core.statuses[1].machine_reason = "too small";
    api_unit_changed(world->api, "a.service");
    api_unit_changed(world->api, "b.service");
    assert_int_equal(world->answers, 0);
    assert_true(api_deadline_ms(world->api) == 0);
    api_tick(world->api, 1001);
    assert_int_equal(world->answers, 1);
    assert_string_equal(world->body,
                        "{\"units\":[{\"hostname\":\"host-a\",\"machineID\":\"" ID_A
                        "\",\"machineIP\":\"10.0.0.1\",\"name\":\"a.service\",\"settled\":true,"
                        "\"state\":\"active\"},{\"machines\":[{\"machineID\":\"" ID_A
                        "\",\"reason\":\"too small\"}],\"name\":\"b.service\",\"reason\":\"no machine fits\","
                        "\"settled\":true,\"state\":\"unplaced\"}]}");
    assert_true(api_deadline_ms(world->api) == UINT64_MAX);
    assert_int_equal(start_wait(world, "{\"units\":[\"a.service\"]}"), 0); /* Settled already. */
}

static void test_wait_deadline(void **state)
{
    struct world *world = *state;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    fake_core_status(&world->core, "a.service", OUTCOME_WAITING, "", "starts");
    assert_int_equal(start_wait(world, "{\"units\":[\"a.service\"],\"timeoutMs\":0}"), 0);
    assert_string_equal(world->body, "{\"units\":[{\"name\":\"a.service\",\"reason\":\"starts\",\"settled\":"
                                     "false,\"state\":\"waiting\"}]}");
    world->answers = 0;
    start_wait(world, "{\"units\":[\"a.service\"],\"timeoutMs\":9000000}");
    assert_true(api_deadline_ms(world->api) == 1000 + API_WAIT_MS_MAX);
    start_wait(world, "{\"units\":[\"a.service\"]}");
    assert_true(api_deadline_ms(world->api) == 11000);
    api_tick(world->api, 10999);
    assert_int_equal(world->answers, 0);
    api_tick(world->api, 11000);
    assert_int_equal(world->answers, 1);
    assert_has(world, "\"settled\":false");
    api_tick(world->api, 61000);
    assert_int_equal(world->answers, 2);
}

static void test_wait_until(void **state)
{
    static const struct {
        const char *until;
        enum unit_outcome outcome;
        const char *machine_id;
        bool settled;
    } cases[] = {
        {"settled", OUTCOME_WAITING, ID_A, false}, {"settled", OUTCOME_ACTIVE, ID_A, true},
        {"settled", OUTCOME_FINISHED, ID_A, true}, {"settled", OUTCOME_LOADED, ID_A, true},
        {"settled", OUTCOME_FAILED, ID_A, true},   {"settled", OUTCOME_UNPLACED, "", true},
        {"settled", OUTCOME_INACTIVE, "", true},   {"settled", OUTCOME_GONE, "", true},
        {"placed", OUTCOME_WAITING, "", false},    {"placed", OUTCOME_WAITING, ID_A, true},
        {"placed", OUTCOME_UNPLACED, "", true},    {"placed", OUTCOME_ACTIVE, ID_A, true},
        {"gone", OUTCOME_INACTIVE, "", false},     {"gone", OUTCOME_ACTIVE, ID_A, false},
        {"gone", OUTCOME_GONE, "", true},          {"inactive", OUTCOME_LOADED, ID_A, false},
        {"inactive", OUTCOME_INACTIVE, "", true},  {"inactive", OUTCOME_GONE, "", true},
        {"inactive", OUTCOME_WAITING, "", false},
    };
    struct world *world = *state;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *body =
            xasprintf("{\"units\":[\"a.service\"],\"until\":\"%s\"}", cases[i].until);
        uint64_t handle;

        fake_core_status(&world->core, "a.service", cases[i].outcome, cases[i].machine_id, "");
        handle = start_wait(world, body);
        if ((handle == 0) != cases[i].settled)
            fail_msg("until %s, %s", cases[i].until, unit_outcome_to_string(cases[i].outcome));
        api_cancel(world->api, handle);
    }
}

static void test_wait_generation(void **state)
{
    struct world *world = *state;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    fake_core_status(&world->core, "a.service", OUTCOME_ACTIVE, ID_A, "");
    assert_int_equal(start_wait(world, "{\"units\":[\"a.service\"],\"generations\":{\"a.service\":1}}"), 0);
    world->answers = 0;
    assert_int_not_equal(
        start_wait(world, "{\"units\":[\"a.service\"],\"generations\":{\"a.service\":2,\"b\":null}}"), 0);
    api_unit_changed(world->api, "a.service");
    api_tick(world->api, 1000);
    assert_int_equal(world->answers, 0);
    put(world, "a.service", "{\"desiredState\":\"loaded\"}", 204);
    world->answers = 0;
    api_unit_changed(world->api, ""); /* Any. */
    api_tick(world->api, 1000);
    assert_int_equal(world->answers, 1);
}

/* What settles and unsettles within one event is not answered. */
static void test_wait_flicker(void **state)
{
    struct world *world = *state;

    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    start_wait(world, "{\"units\":[\"a.service\"]}");
    world->answers = 0;
    fake_core_status(&world->core, "a.service", OUTCOME_ACTIVE, ID_A, "");
    api_unit_changed(world->api, "a.service");
    fake_core_status(&world->core, "a.service", OUTCOME_WAITING, ID_A, "");
    api_unit_changed(world->api, "a.service");
    api_tick(world->api, 1001);
    assert_int_equal(world->answers, 0);
}

/* A change asks only about the unit that changed, once for all who wait for it. */
static void test_wait_cost(void **state)
{
    struct world *world = *state;
    struct strbuf body = {0};

    for (unsigned i = 0; i < 300; i++) {
        _cleanup_(freep) char *name = xasprintf("u%u.service", i);

        put(world, name, "{\"desiredState\":\"launched\"," PLAIN "}", 201);
        strbuf_addf(&body, "%s\"%s\"", i > 0 ? "," : "{\"units\":[", name);
    }
    strbuf_add(&body, "]}");
    for (unsigned i = 0; i < 3; i++)
        assert_int_not_equal(start_wait(world, body.text), 0);
    world->core.questions = 0;
    for (unsigned i = 0; i < 300; i++) {
        _cleanup_(freep) char *name = xasprintf("u%u.service", i);

        api_unit_changed(world->api, name);
    }
    assert_int_equal(world->core.questions, 300);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_paths),          TEST(test_put_refused),  TEST(test_put_content_type),
        TEST(test_limits),         TEST(test_put),          TEST(test_put_replaces),
        TEST(test_current_state),  TEST(test_global),       TEST(test_becomes_global),
        TEST(test_tokens_refused), TEST(test_pages),        TEST(test_large_pages),
        TEST(test_state),          TEST(test_machines),     TEST(test_patch_refused),
        TEST(test_patch),          TEST(test_patch_room),   TEST(test_members),
        TEST(test_explain),        TEST(test_discovery),    TEST(test_batch_refused),
        TEST(test_batch),          TEST(test_batch_limits), TEST(test_store_outcomes),
        TEST(test_repeated),       TEST(test_no_leader),    TEST(test_yield),
        TEST(test_cancel),         TEST(test_wait_refused), TEST(test_wait),
        TEST(test_wait_deadline),  TEST(test_wait_until),   TEST(test_wait_generation),
        TEST(test_wait_flicker),   TEST(test_wait_cost),    TEST(test_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
