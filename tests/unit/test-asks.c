/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's questions to hosts: each ends once, one way or another. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/asks.h"
#include "raftstore/limits.h"

struct session {
    bool closed;
    unsigned requests, cancels;
    uint64_t cancelled; /* The last one. */
};

struct answer {
    unsigned count;
    char json[32], why[128];
    struct asks *asks; /* Cancels 'other' when it comes. */
    uint64_t other;
};

static bool on_send(void *data, const Fleet__SessionDown *message)
{
    struct session *session = data;

    if (session->closed)
        return false;
    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_HOST_CANCEL) {
        session->cancels++;
        session->cancelled = message->host_cancel->id;
    } else {
        assert_int_equal(message->message_case, FLEET__SESSION_DOWN__MESSAGE_HOST_REQUEST);
        session->requests++;
    }
    return true;
}

static void on_done(const Fleet__HostReply *reply, const char *why, void *data)
{
    struct answer *answer = data;

    answer->count++;
    if (reply != NULL)
        snprintf(answer->json, sizeof answer->json, "%.*s", (int)reply->json.len, (char *)reply->json.data);
    else
        snprintf(answer->why, sizeof answer->why, "%s", why);
    if (answer->other != 0)
        asks_cancel(answer->asks, answer->other);
}

static uint64_t ask(struct asks *asks, struct session *session, struct answer *answer)
{
    Fleet__HostRequest request = FLEET__HOST_REQUEST__INIT;

    request.unit = (char *)"a.service";
    return asks_begin(asks, session, &request, 1000, 5000, on_done, answer, NULL);
}

static void reply(struct asks *asks, struct session *session, uint64_t id, const char *json,
                  const char *error)
{
    Fleet__HostReply message = FLEET__HOST_REPLY__INIT;

    message.id = id;
    message.json = (ProtobufCBinaryData){.len = strlen(json), .data = (uint8_t *)json};
    message.error = (char *)error;
    asks_reply(asks, session, &message);
}

static void test_answers(void **state)
{
    struct asks *asks = asks_new(on_send);
    struct session a = {0}, b = {0};
    struct answer first = {0}, second = {0};
    uint64_t id_a = ask(asks, &a, &first), id_b = ask(asks, &b, &second);

    assert_true(id_a != 0 && id_b != 0 && id_a != id_b);
    assert_int_equal(a.requests + b.requests, 2);
    reply(asks, &b, id_a, "{}", ""); /* Not its question. */
    reply(asks, &a, 99, "{}", "");
    assert_int_equal(first.count, 0);
    reply(asks, &a, id_a, "{\"a\":1}", "");
    assert_string_equal(first.json, "{\"a\":1}");
    reply(asks, &b, id_b, "", "no journal");
    assert_string_equal(second.why, "no journal");
    reply(asks, &a, id_a, "{}", ""); /* Twice. */
    assert_int_equal(first.count, 1);
    assert_int_equal(second.count, 1);
    asks_free(asks);
}

static void test_ends_without_an_answer(void **state)
{
    struct asks *asks = asks_new(on_send);
    struct session a = {0}, b = {0};
    struct answer late = {0}, ended = {0}, cancelled = {0};
    uint64_t id;

    ask(asks, &a, &late);
    asks_tick(asks, 5999);
    assert_int_equal(late.count, 0);
    asks_tick(asks, 6000);
    assert_string_equal(late.why, "it did not answer within 5 s");
    assert_int_equal(a.cancels, 1);

    id = ask(asks, &a, &cancelled);
    asks_cancel(asks, id);
    assert_int_equal(a.cancelled, id);
    reply(asks, &a, id, "{}", "");
    assert_int_equal(cancelled.count, 0);

    ask(asks, &b, &ended);
    asks_session_ended(asks, &a);
    assert_int_equal(ended.count, 0);
    asks_session_ended(asks, &b);
    assert_string_equal(ended.why, "its session has just ended");
    asks_free(asks);
}

/* Whoever hears of one end may cancel others, also those that would be next. */
static void test_cancels_from_inside(void **state)
{
    struct asks *asks = asks_new(on_send);
    struct session a = {0};
    struct answer first = {.asks = asks}, second = {0}, third = {0};

    ask(asks, &a, &first);
    first.other = ask(asks, &a, &second);
    ask(asks, &a, &third);
    a.closed = true;
    asks_session_ended(asks, &a);
    assert_int_equal(first.count, 1);
    assert_int_equal(second.count, 0);
    assert_int_equal(third.count, 1);

    a.closed = false;
    first.other = 0;
    ask(asks, &a, &first);
    first.other = ask(asks, &a, &second);
    asks_tick(asks, 100000);
    assert_int_equal(first.count, 2);
    assert_int_equal(second.count, 0);
    asks_free(asks);
}

static void test_limits(void **state)
{
    struct asks *asks = asks_new(on_send);
    struct session a = {0}, b = {.closed = true};
    struct answer answers[HOST_QUESTIONS_MAX + 1] = {0};
    Fleet__HostRequest request = FLEET__HOST_REQUEST__INIT;
    struct err err = {0};

    for (size_t i = 0; i < HOST_QUESTIONS_MAX; i++)
        assert_true(ask(asks, &a, &answers[i]) != 0);
    assert_int_equal(asks_begin(asks, &a, &request, 0, 1, on_done, &answers[0], &err), 0);
    assert_true(str_has_prefix(err.text, "it works on 32 questions already"));
    err = (struct err){0};
    assert_int_equal(asks_begin(asks, &b, &request, 0, 1, on_done, &answers[0], &err), 0);
    assert_string_equal(err.text, "its session has just ended");
    asks_session_ended(asks, &a);
    for (size_t i = 0; i < HOST_QUESTIONS_MAX; i++)
        assert_int_equal(answers[i].count, 1);
    asks_free(asks);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_ends_without_an_answer),
        cmocka_unit_test(test_cancels_from_inside),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
