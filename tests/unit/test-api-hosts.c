/* SPDX-License-Identifier: Apache-2.0 */
/* GET /status/NAME and GET /journal/NAME: who is asked what, and what is made of their answers. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "tests/unit/api-world.h"

#define ID_C       "cccccccccccccccccccccccccccccccc"
#define GLOBAL     "\"options\":[" OPTION("X-Fleet", "Global", "true") "," OPTION("A", "B", "c") "]"
#define LAUNCHED   "\"desiredState\":\"launched\""
#define ENTRY(t)   "{\"__REALTIME_TIMESTAMP\":\"" #t "\",\"MESSAGE\":\"m" #t "\"}"
#define UNIT(text) "{\"unit\":{\"activeState\":\"" text "\"},\"processes\":[],\"journal\":[]}"

static uint64_t get(struct world *world, const char *path, const char *query)
{
    return ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = query});
}

/* Three machines; g.service is everywhere, a.service on A, idle.service nowhere. */
static void populate(struct world *world)
{
    add_machine(world, ID_A, "node1", "10.0.0.1", 1);
    add_machine(world, ID_B, "node2", "10.0.0.2", 2);
    add_machine(world, ID_C, "node3", "10.0.0.3", 3);
    put(world, "g.service", "{" LAUNCHED "," GLOBAL "}", 201);
    put(world, "a.service", "{" LAUNCHED "," PLAIN "}", 201);
    put(world, "idle.service", "{" PLAIN "}", 201);
    place(world, "a.service", ID_A);
}

static void test_refused(void **state)
{
    static const struct {
        const char *path, *query;
        unsigned status;
        const char *text;
    } cases[] = {
        {V1 "/status/nosuch.service", "", 404, "unit does not exist\""},
        {V1 "/journal/nosuch.service", "", 404, "unit does not exist\""},
        {V1 "/status/a.service", "machineID=x", 404, "machine does not exist\""},
        {V1 "/status/a.service", "lines=-1", 400, "\\\"lines\\\" must be a whole number"},
        {V1 "/journal/a.service", "lines=ten", 400, "\\\"lines\\\" must be a whole number"},
        {V1 "/journal/a.service", "lines=99999999999999999999", 400, "\\\"lines\\\" must be a whole number"},
        {V1 "/journal/a.service", "waitMs=1s", 400, "\\\"waitMs\\\" must be a whole number"},
        {V1 "/journal/a.service", "cursor=x", 400, "\\\"cursor\\\" is not one that this API has given"},
        {V1 "/journal/a.service", "cursor=" ID_A, 400, "\\\"cursor\\\" is not one that this API has given"},
        {V1 "/journal/a.service", "cursor=:" ID_A, 400, "\\\"cursor\\\" is not one that this API has given"},
        {V1 "/journal/a.service", "stale=yes", 503, "no leader"},
    };
    struct world *world = *state;

    populate(world);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(get(world, cases[i].path, cases[i].query), 0);
        assert_error(world, cases[i].status, cases[i].text);
    }
    ask(world, "POST", V1 "/status/a.service", "{}");
    assert_error(world, 405, "only GET supported");
    assert_int_equal(world->asked_last, 0);
    world->leads = false;
    assert_int_equal(get(world, V1 "/status/a.service", ""), 0);
    assert_error(world, 503, "no leader");
}

static void test_status(void **state)
{
    struct world *world = *state;

    populate(world);
    fake_core_report(&world->core, "a.service", ID_A, "active", true);
    assert_true(get(world, V1 "/status/a.service", "lines=3") != 0);
    assert_int_equal(world->asked_count, 1);
    assert_string_equal(world->asked[0].machine_id, ID_A);
    assert_string_equal(world->asked[0].unit, "a.service");
    assert_int_equal(world->asked[0].request.question, FLEET__HOST_QUESTION__HOST_QUESTION_STATUS);
    assert_int_equal(world->asked[0].request.lines, 3);
    assert_int_equal(world->asked[0].request.max_bytes, HOST_ANSWER_MAX);
    host_answers(world,
                 "{\"unit\":{\"activeState\":\"active\",\"mainPID\":7},\"processes\":[{\"pid\":7}],"
                 "\"journal\":[],\"secret\":1}",
                 NULL);
    assert_int_equal(world->status, 200);
    assert_has(world, "\"machines\":[{\"fleet\":{\"generation\":7,\"hash\":\"abc\",\"launched\":true,"
                      "\"result\":\"done\"},\"hostname\":\"node1\",\"journal\":[],\"machineID\":\"" ID_A
                      "\",\"machineIP\":\"10.0.0.1\",\"machineState\":\"ready\",\"processes\":[{\"pid\":7}],"
                      "\"unit\":{\"activeState\":\"active\",\"mainPID\":7}}]");
    assert_has(world, "\"name\":\"a.service\"");
    assert_has(world, "\"desiredState\":\"launched\"");
    assert_lacks(world, "secret");

    /* Nobody has it: nobody is asked. */
    assert_int_equal(get(world, V1 "/status/idle.service", ""), 0);
    assert_lacks(world, "machines");
    assert_has(world, "\"desiredState\":\"inactive\"");
}

static void test_those_who_do_not_answer(void **state)
{
    struct world *world = *state;

    populate(world);
    fake_core_report(&world->core, "g.service", ID_B, "active", true);
    world->core.lost = ID_C;
    world->core.lost_had = "g.service";
    world->mute = ID_B;
    assert_true(get(world, V1 "/status/g.service", "") != 0);
    assert_int_equal(world->asked_count, 1);
    host_answers(world, NULL, "it did not answer within 6 s");
    assert_has(world, "{\"error\":\"it did not answer within 6 s\",\"hostname\":\"node1\"");
    /* What is known of it is said nevertheless. */
    assert_has(world, "\"error\":\"its fleetd is too old to be asked: upgrade it\"");
    assert_has(world,
               "\"unit\":{\"activeState\":\"active\",\"loadState\":\"loaded\",\"subState\":\"running\"}");
    assert_has(world,
               "\"error\":\"it does not answer: lost, nothing heard of it for 34 s\",\"hostname\":\"node3\"");

    /* All are as good as gone: the answer comes at once. */
    world->core.expected = ID_A;
    assert_int_equal(get(world, V1 "/journal/g.service", "waitMs=9000"), 0);
    assert_has(world, "\"error\":\"it has not called this leader yet\"");
    assert_lacks(world, "entries");
}

static void test_answers_that_make_no_sense(void **state)
{
    static const char *const answers[] = {"",
                                          "7",
                                          "{",
                                          "{\"unit\":7}",
                                          "{\"unit\":[],\"journal\":7}",
                                          "{\"entries\":{},\"cursor\":7,\"more\":\"x\"}",
                                          "{\"entries\":[7,null,{\"__REALTIME_TIMESTAMP\":{}}]}"};
    struct world *world = *state;

    populate(world);
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        assert_true(get(world, V1 "/status/a.service", "") != 0);
        host_answers(world, answers[i], NULL);
        assert_int_equal(world->status, 200);
        assert_true(get(world, V1 "/journal/a.service", "") != 0);
        host_answers(world, answers[i], NULL);
        assert_int_equal(world->status, 200);
    }
    assert_true(get(world, V1 "/status/a.service", "") != 0);
    host_answers(world, "{", NULL);
    assert_has(world, "\"error\":\"its answer makes no sense: ");
}

static void test_too_large(void **state)
{
    struct world *world = *state;
    _cleanup_(freep) char *large = xmalloc(HOST_ANSWER_MAX + 10);

    populate(world);
    memset(large, ' ', HOST_ANSWER_MAX + 9);
    large[HOST_ANSWER_MAX + 9] = '\0';
    assert_true(get(world, V1 "/status/a.service", "") != 0);
    host_answers(world, large, NULL);
    assert_has(world, "\"error\":\"its answer has 262153 bytes, the limit is 262144\"");
}

/* Many machines: their answers fit one message together. */
static void test_many_machines(void **state)
{
    struct world *world = *state;

    populate(world);
    for (unsigned i = 0; i < 100; i++) {
        char id[MACHINE_ID_SIZE];

        snprintf(id, sizeof id, "%032x", i);
        add_machine(world, id, "node", "10.1.0.1", 100 + i);
    }
    assert_true(get(world, V1 "/status/g.service", "") != 0);
    assert_int_equal(world->asked_count, API_HOSTS_ASKED_MAX);
    assert_true(world->asked[0].request.max_bytes * API_HOSTS_ASKED_MAX <= API_HOSTS_ASKED_BYTES_MAX);
    while (world->asked_count > 0)
        host_answers(world, UNIT("active"), NULL);
    assert_int_equal(world->status, 200);
    assert_has(world, "\"machinesLeftOut\":39,");
    assert_true(get(world, V1 "/status/g.service", "machineID=" ID_C) != 0);
    assert_int_equal(world->asked_count, 1);
    host_answers(world, UNIT("active"), NULL);
    assert_lacks(world, "machinesLeftOut");
}

static void test_journal(void **state)
{
    struct world *world = *state;

    populate(world);
    assert_true(get(world, V1 "/journal/g.service", "lines=5&fields=all") != 0);
    assert_int_equal(world->asked_count, 3);
    assert_int_equal(world->asked[0].request.question, FLEET__HOST_QUESTION__HOST_QUESTION_JOURNAL);
    assert_true(world->asked[0].request.all_fields);
    host_answers(world, "{\"entries\":[" ENTRY(20) "," ENTRY(40) "],\"cursor\":\"s=1;i=2\",\"more\":false}",
                 NULL);
    host_answers(world,
                 "{\"entries\":[" ENTRY(10) "," ENTRY(30) "," ENTRY(40) "],\"cursor\":\"s=b\",\"more\":true}",
                 NULL);
    assert_int_equal(world->answers, 3); /* Only those of populate(). */
    host_answers(world, NULL, "its session has just ended");
    /* By time, and with the machine. */
    assert_has(world,
               "\"cursor\":\"" ID_A ":s=1;i=2," ID_B
               ":s=b\",\"entries\":[{\"MESSAGE\":\"m10\",\"_MACHINE_ID\":\"" ID_B
               "\",\"__REALTIME_TIMESTAMP\":\"10\"},{\"MESSAGE\":\"m20\",\"_MACHINE_ID\":\"" ID_A "\"");
    assert_has(world,
               "\"MESSAGE\":\"m40\",\"_MACHINE_ID\":\"" ID_A
               "\",\"__REALTIME_TIMESTAMP\":\"40\"},{\"MESSAGE\":\"m40\",\"_MACHINE_ID\":\"" ID_B "\"");
    assert_has(world, "\"error\":\"its session has just ended\",\"hostname\":\"node3\"");
    assert_has(world, "\"more\":true,");
}

static void test_follow(void **state)
{
    struct world *world = *state;

    populate(world);
    assert_true(get(world, V1 "/journal/g.service",
                    "waitMs=99999&lines=100&cursor=" ID_A ":here," ID_B ":there") != 0);
    assert_int_equal(world->asked_count, 3);
    assert_string_equal(world->asked[0].cursor, "here");
    assert_string_equal(world->asked[1].cursor, "there");
    assert_string_equal(world->asked[2].cursor, "");
    assert_int_equal(world->asked[0].request.wait_ms, API_JOURNAL_WAIT_MS_MAX);
    assert_true(world->asked[0].timeout_ms > API_JOURNAL_WAIT_MS_MAX);
    assert_int_equal(world->asked[0].request.lines, 100);
    assert_int_equal(world->asked[2].request.lines, 10); /* New to who follows. */

    /* One that has nothing new ends nothing; the first that has ends all, and the others stay where they
     * were. */
    host_answers(world, "{\"entries\":[],\"cursor\":\"here\"}", NULL);
    assert_int_equal(world->answers, 3);
    host_answers(world, "{\"entries\":[" ENTRY(10) "],\"cursor\":\"further\"}", NULL);
    assert_int_equal(world->answers, 4);
    assert_int_equal(world->asks_cancelled, 1);
    assert_has(world, "\"cursor\":\"" ID_A ":here," ID_B ":further\",");

    /* One that is new says where it is. */
    assert_true(get(world, V1 "/journal/g.service", "waitMs=9000&cursor=" ID_B ":there") != 0);
    host_answers(world, "{\"entries\":[],\"cursor\":\"a\"}", NULL);
    assert_has(world, "\"cursor\":\"" ID_A ":a," ID_B ":there\",");
    assert_int_equal(world->asked_count, 0);

    /* A place that could not be given back is not taken. */
    assert_true(get(world, V1 "/journal/a.service", "cursor=" ID_A ":here") != 0);
    host_answers(world, "{\"entries\":[],\"cursor\":\"x," ID_B ":y\"}", NULL);
    assert_has(world, "\"cursor\":\"" ID_A ":here\",");
}

/* A machine that is gone, and a unit that is somewhere else now, are no reason to wait. */
static void test_follow_elsewhere(void **state)
{
    struct world *world = *state;

    populate(world);
    assert_true(get(world, V1 "/journal/g.service", "waitMs=9000&cursor=" ID_A ":a," ID_B ":b," ID_C ":c") !=
                0);
    host_answers(world, NULL, "its session has just ended");
    assert_has(world, "\"error\":\"its session has just ended\",\"hostname\":\"node1\"");
    assert_has(world, "\"cursor\":\"" ID_A ":a," ID_B ":b," ID_C ":c\",");
    assert_int_equal(world->asked_count, 0);

    assert_true(get(world, V1 "/journal/a.service", "waitMs=9000&cursor=" ID_A ":a") != 0);
    api_unit_changed(world->api, "a.service");
    api_unit_changed(world->api, "");
    assert_int_equal(world->asked_count, 1);
    fake_core_report(&world->core, "a.service", ID_B, "active", true);
    api_unit_changed(world->api, "g.service");
    assert_int_equal(world->asked_count, 1);
    api_unit_changed(world->api, "a.service");
    assert_int_equal(world->asked_count, 0);
    assert_has(world, "\"cursor\":\"" ID_A ":a\",");

    /* Who asks for one machine does not care. */
    assert_true(get(world, V1 "/journal/a.service", "waitMs=9000&machineID=" ID_A "&cursor=" ID_A ":a") != 0);
    api_unit_changed(world->api, "a.service");
    assert_int_equal(world->asked_count, 1);
    ask(world, "DELETE", V1 "/units/a.service", NULL);
    api_unit_changed(world->api, "a.service");
    assert_error(world, 404, "unit does not exist");
    assert_int_equal(world->asked_count, 0);
}

static void test_ends_early(void **state)
{
    struct world *world = *state;
    uint64_t handle;

    populate(world);
    handle = get(world, V1 "/status/g.service", "");
    assert_int_equal(world->asked_count, 3);
    api_cancel(world->api, handle);
    assert_int_equal(world->asked_count, 0);
    assert_int_equal(world->asks_cancelled, 3);

    assert_true(get(world, V1 "/status/g.service", "") != 0);
    api_yield(world->api);
    assert_error(world, 503, "no leader");
    assert_int_equal(world->asked_count, 0);

    assert_true(get(world, V1 "/status/a.service", "") != 0);
    ask(world, "DELETE", V1 "/units/a.service", NULL);
    host_answers(world, UNIT("active"), NULL);
    assert_error(world, 404, "unit does not exist");
}

/* Without a leader: what this host has heard itself. */
static void test_stale(void **state)
{
    struct world *world = *state;

    populate(world);
    fake_core_report(&world->core, "a.service", ID_A, "failed", true);
    world->leads = world->core.leads = false;
    assert_int_equal(get(world, V1 "/status/a.service", "stale=yes"), 0);
    assert_int_equal(world->status, 200);
    assert_has(world, "\"unit\":{\"activeState\":\"failed\"");
    assert_has(world, "\"stale\":true");
    assert_int_equal(world->asked_last, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_refused),
        TEST(test_status),
        TEST(test_those_who_do_not_answer),
        TEST(test_answers_that_make_no_sense),
        TEST(test_too_large),
        TEST(test_many_machines),
        TEST(test_journal),
        TEST(test_follow),
        TEST(test_follow_elsewhere),
        TEST(test_ends_early),
        TEST(test_stale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
