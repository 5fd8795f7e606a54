/* SPDX-License-Identifier: Apache-2.0 */
/* Against sockets of this machine that listen and never accept, as those of a frozen process, or are closed.
 */
#include <config.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetd/prober.h"

#define DEADLINE_MS 20000u

struct stage {
    uv_loop_t loop;
    struct prober *prober;
    unsigned accepted, refused;
    bool closed;
};

static void on_answer(const char *machine_id, bool accepted, void *data)
{
    struct stage *stage = data;

    assert_string_equal(machine_id, "m");
    if (accepted)
        stage->accepted++;
    else
        stage->refused++;
}

static void on_closed(void *data)
{
    struct stage *stage = data;

    stage->closed = true;
}

static void stage_init(struct stage *stage)
{
    *stage = (struct stage){0};
    assert_int_equal(uv_loop_init(&stage->loop), 0);
    stage->prober = prober_new(&stage->loop, on_answer, stage);
}

static void stage_done(struct stage *stage)
{
    prober_close(stage->prober, on_closed, stage);
    uv_run(&stage->loop, UV_RUN_DEFAULT);
    assert_true(stage->closed);
    assert_int_equal(uv_loop_close(&stage->loop), 0);
}

/* A socket that listens on a port of its own; nobody accepts. *address: "127.0.0.1:port", owned by the
 * caller. */
static int listening(char **address)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    *address = xasprintf("127.0.0.1:%d", ntohs(at.sin_port));
    return fd;
}

/* Ticks, as often as the loop has nothing else to do, until so much was answered. */
static void tick_until(struct stage *stage, const char *address, const unsigned *count, unsigned wanted)
{
    const struct prober_target target = {"m", address};
    uint64_t end_ms = now_ms() + DEADLINE_MS;

    while (*count < wanted) {
        assert_true(now_ms() < end_ms);
        prober_tick(stage->prober, &target, 1);
        for (unsigned i = 0; i < 5; i++) {
            uv_run(&stage->loop, UV_RUN_NOWAIT);
            usleep(2000);
        }
    }
}

/* Many ticks, and still one connection: the backlog of a process that does not accept is short. */
static void test_a_process_that_does_not_accept_is_there(void **state)
{
    _cleanup_(freep) char *address = NULL;
    _cleanup_(closep) int fd __attribute__((unused)) = listening(&address);
    struct stage stage;

    stage_init(&stage);
    tick_until(&stage, address, &stage.accepted, 50);
    assert_int_equal(stage.refused, 0);
    stage_done(&stage);
}

static void test_a_process_that_ends_is_noticed(void **state)
{
    _cleanup_(freep) char *address = NULL;
    int fd = listening(&address);
    struct stage stage;

    stage_init(&stage);
    tick_until(&stage, address, &stage.accepted, 2);
    close(fd); /* What it did not accept is reset. */
    tick_until(&stage, address, &stage.refused, 2);
    stage_done(&stage);
}

static void test_who_is_not_wanted_any_more_is_let_go(void **state)
{
    _cleanup_(freep) char *address = NULL;
    _cleanup_(closep) int fd __attribute__((unused)) = listening(&address);
    struct stage stage;

    stage_init(&stage);
    tick_until(&stage, address, &stage.accepted, 1);
    prober_tick(stage.prober, NULL, 0);
    uv_run(&stage.loop, UV_RUN_DEFAULT); /* Returns, for nothing is left. */
    tick_until(&stage, address, &stage.accepted, 2);
    stage_done(&stage);
}

static void test_no_address(void **state)
{
    static const char *const addresses[] = {"", "no port:", "[::1", "name.invalid:7390", "127.0.0.1:99999"};
    struct stage stage;

    stage_init(&stage);
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        prober_tick(stage.prober, &(struct prober_target){"m", addresses[i]}, 1);
        uv_run(&stage.loop, UV_RUN_NOWAIT);
    }
    stage_done(&stage); /* Also with a name that is still being resolved. */
    assert_int_equal(stage.accepted + stage.refused, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_process_that_does_not_accept_is_there),
        cmocka_unit_test(test_a_process_that_ends_is_noticed),
        cmocka_unit_test(test_who_is_not_wanted_any_more_is_let_go),
        cmocka_unit_test(test_no_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
