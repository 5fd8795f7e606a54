/* SPDX-License-Identifier: Apache-2.0 */
/* How long this host's shutdown waits for its units to move, with a pretended logind and leader, on a real
 * loop. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "fleetd/logind.h"

/* ---- what it touches ---- */

struct logind {
    struct logind_callbacks callbacks;
    void *data;
};

static struct world {
    uv_loop_t loop;
    struct daemon daemon;
    struct going_down *down;
    struct logind *logind;
    bool session, lock;
    char told[16]; /* The leader: "+" for a shutdown that begins, "-" for one that does not. */
    char said[4096];
} w;

struct logind *logind_new(uv_loop_t *loop, const struct logind_callbacks *callbacks, void *data)
{
    assert_null(w.logind);
    w.logind = NEW0(struct logind);
    w.logind->callbacks = *callbacks;
    w.logind->data = data;
    w.lock = true;
    return w.logind;
}

void logind_let_go(struct logind *logind)
{
    assert_true(w.lock);
    w.lock = false;
}

void logind_close(struct logind *logind, void (*done)(void *data), void *data)
{
    assert_ptr_equal(logind, w.logind);
    w.logind = NULL;
    w.lock = false;
    free(logind);
    if (done != NULL)
        done(data);
}

bool uplink_is_open(const struct uplink *uplink)
{
    return w.session;
}

bool uplink_send(struct uplink *uplink, const Fleet__SessionUp *message)
{
    assert_true(w.session);
    assert_int_equal(message->message_case, FLEET__SESSION_UP__MESSAGE_SHUTDOWN);
    strcat(w.told, message->shutdown->begins ? "+" : "-");
    return true;
}

static void sink(int priority, const char *message, const char *const *fields)
{
    assert_true(priority > LOG_ERR);
    assert_true(strlen(w.said) + strlen(message) + 2 < sizeof w.said);
    strcat(strcat(w.said, message), "\n");
}

/* ---- the world ---- */

static int begin(void **state)
{
    memset(&w, 0, sizeof w);
    log_set_sink(sink);
    uv_loop_init(&w.loop);
    w.daemon.loop = &w.loop;
    w.daemon.uplink = (struct uplink *)&w; /* Only looked at by the pretences. */
    w.daemon.config.drain_on_shutdown = true;
    w.down = going_down_new(&w.daemon);
    return 0;
}

static int end(void **state)
{
    going_down_close(w.down);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w.loop), 0);
    log_set_sink(NULL);
    return 0;
}

static void on_end(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, NULL);
}

static void pass(uint64_t ms)
{
    uv_timer_t timer;

    uv_update_time(&w.loop);
    uv_timer_init(&w.loop, &timer);
    uv_timer_start(&timer, on_end, ms, 0);
    while (uv_is_active((uv_handle_t *)&timer))
        uv_run(&w.loop, UV_RUN_ONCE);
    uv_run(&w.loop, UV_RUN_NOWAIT);
}

static void opens(bool moves)
{
    strcat(w.told, going_down_opening(w.down) ? "(+)" : "(-)");
    w.session = true;
    going_down_accepted(w.down, moves);
}

static void closes(void)
{
    w.session = false;
    going_down_session_lost(w.down);
}

static void shutdown_begins(uint64_t wait_ms)
{
    w.logind->callbacks.on_shutdown(true, wait_ms, w.logind->data);
}

static void shutdown_is_given_up(void)
{
    w.lock = true; /* Taken anew. */
    w.logind->callbacks.on_shutdown(false, 5000, w.logind->data);
}

/* ---- tests ---- */

static void test_until_nothing_is_left(void **state)
{
    opens(true);
    shutdown_begins(60000);
    pass(50);
    assert_true(w.lock);
    assert_string_equal(w.told, "(-)+");
    going_down_ready(w.down);
    assert_false(w.lock);
    assert_non_null(strstr(w.said, "Nothing that can move is left here"));
    going_down_ready(w.down); /* Twice does no harm. */
}

static void test_until_the_time_is_over(void **state)
{
    opens(true);
    shutdown_begins(400);
    pass(150);
    assert_true(w.lock);
    pass(250); /* A little before logind would go on by itself. */
    assert_false(w.lock);
    assert_non_null(strstr(w.said, "Not everything that can move has moved"));
}

static void test_logind_does_not_wait(void **state)
{
    opens(true);
    shutdown_begins(0);
    assert_false(w.lock);
    assert_string_equal(w.told, "(-)+");
    assert_non_null(strstr(w.said, "gives no time to move units first"));
    assert_null(strstr(w.said, "can move")); /* Nobody knows whether anything could have. */
    assert_null(strstr(w.said, "the shutdown goes on, after"));
    going_down_ready(w.down); /* The leader is through; the host does not wait for it. */
    assert_null(strstr(w.said, "Nothing that can move"));
    shutdown_is_given_up();
    assert_string_equal(w.told, "(-)+-");
}

static void test_no_leader_is_not_waited_for(void **state)
{
    shutdown_begins(60000);
    assert_false(w.lock);
    assert_non_null(strstr(w.said, "No leader"));
}

static void test_no_cluster_is_not_waited_for(void **state)
{
    w.daemon.uplink = NULL;
    shutdown_begins(60000);
    assert_false(w.lock);
}

static void test_an_old_leader_is_not_waited_for(void **state)
{
    opens(false);
    shutdown_begins(60000);
    assert_false(w.lock);
    assert_non_null(strstr(w.said, "too old"));
}

static void test_a_lost_leader_is_waited_for_a_while(void **state)
{
    opens(true);
    shutdown_begins(60000);
    closes();
    pass(200);
    assert_true(w.lock);
    opens(true); /* The next one is told as it calls. */
    pass(2000);
    assert_true(w.lock);
    assert_string_equal(w.told, "(-)+(+)");
    closes();
    pass(2200);
    assert_false(w.lock);
    assert_non_null(strstr(w.said, "No leader"));
}

static void test_a_leader_lost_just_before(void **state)
{
    opens(true);
    closes();
    shutdown_begins(60000);
    assert_true(w.lock);
    opens(true);
    going_down_ready(w.down);
    assert_false(w.lock);
    assert_string_equal(w.told, "(-)(+)");
}

static void test_given_up(void **state)
{
    opens(true);
    shutdown_begins(400);
    going_down_ready(w.down);
    shutdown_is_given_up();
    pass(500);
    assert_true(w.lock);
    assert_string_equal(w.told, "(-)+-");
    shutdown_begins(60000);
    assert_true(w.lock);
    assert_string_equal(w.told, "(-)+-+");
    shutdown_is_given_up(); /* While it waits. */
    pass(50);
    assert_true(w.lock);
    assert_string_equal(w.told, "(-)+-+-");
}

static void test_given_up_while_a_session_opens(void **state)
{
    shutdown_begins(60000);
    strcat(w.told, going_down_opening(w.down) ? "(+)" : "(-)");
    shutdown_is_given_up();
    w.session = true;
    going_down_accepted(w.down, true);
    assert_string_equal(w.told, "(+)-");
}

static void test_switched_off_and_on(void **state)
{
    opens(true);
    shutdown_begins(60000);
    w.daemon.config.drain_on_shutdown = false;
    going_down_configure(w.down);
    assert_null(w.logind);
    assert_string_equal(w.told, "(-)+-");
    going_down_configure(w.down);
    w.daemon.config.drain_on_shutdown = true;
    going_down_configure(w.down);
    going_down_configure(w.down);
    assert_true(w.lock);
    shutdown_begins(60000);
    assert_true(w.lock);
    w.daemon.config.systemd_user = true; /* Who runs a user's units has nothing to say of the host. */
    going_down_configure(w.down);
    assert_null(w.logind);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_until_nothing_is_left),
        TEST(test_until_the_time_is_over),
        TEST(test_logind_does_not_wait),
        TEST(test_no_leader_is_not_waited_for),
        TEST(test_no_cluster_is_not_waited_for),
        TEST(test_an_old_leader_is_not_waited_for),
        TEST(test_a_lost_leader_is_waited_for_a_while),
        TEST(test_a_leader_lost_just_before),
        TEST(test_given_up),
        TEST(test_given_up_while_a_session_opens),
        TEST(test_switched_off_and_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
