/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that are not answered at once: what the store may say, leadership lost, requests given up, waits.
 */
#include <config.h>

#include <stdio.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "tests/unit/api-world.h"

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

/* Their machine has left meanwhile: what was done is still done. */
static void test_repeated_after_the_machine_has_left(void **state)
{
    static const char ids[2][REQUEST_ID_SIZE] = {"1", "2"};
    struct world *world = *state;
    struct ask requests[] = {
        {.method = "POST",
         .path = V1 "/availability",
         .body = "{\"machines\":[\"" ID_A "\"],\"availability\":\"draining\"}",
         .request_id = ids[0]},
        {.method = "POST",
         .path = V1 "/confirm-lost",
         .body = "{\"machines\":[\"" ID_A "\"]}",
         .request_id = ids[1]},
    };
    unsigned status[2];

    add_machine(world, ID_A, "", "", 1);
    world->core.missing = ID_A;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        ask_raw(world, &requests[i]);
        status[i] = world->status;
        assert_in_range(status[i], 200, 204);
    }
    remove_machine(world, ID_A);
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        ask_raw(world, &requests[i]);
        assert_int_equal(world->status, status[i]);
    }
    requests[0].request_id = NULL;
    ask_raw(world, &requests[0]);
    assert_error(world, 404, "machine " ID_A " does not exist");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_store_outcomes),
        TEST(test_repeated),
        TEST(test_repeated_after_the_machine_has_left),
        TEST(test_no_leader),
        TEST(test_yield),
        TEST(test_cancel),
        TEST(test_wait_refused),
        TEST(test_wait),
        TEST(test_wait_deadline),
        TEST(test_wait_until),
        TEST(test_wait_generation),
        TEST(test_wait_flicker),
        TEST(test_wait_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
