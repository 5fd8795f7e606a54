/* SPDX-License-Identifier: Apache-2.0 */
/* Against sockets of this machine that listen and never accept, as those of a frozen process, or are closed;
 * and against ports that live. */
#include <config.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetd/prober.h"
#include "tests/unit/deadline.h"

#define MACHINE "0123456789abcdef0123456789abcdef"
#define SERVER  7u

struct stage {
    uv_loop_t loop;
    struct port *port; /* Of who asks. */
    struct prober *prober;
    unsigned accepted, refused;
    bool closed;
};

static void on_answer(const char *machine_id, bool accepted, void *data)
{
    struct stage *stage = data;

    assert_string_equal(machine_id, MACHINE);
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

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    fail_msg("the question who is there is nobody else's business");
    return 0;
}

static void stage_init(struct stage *stage)
{
    static const struct port_callbacks callbacks = {.on_accept = on_accept};
    static const struct port_identity asking = {
        .has_cluster = true, .server_id = 1, .machine_id = "00000000000000000000000000000001"};

    *stage = (struct stage){0};
    assert_int_equal(uv_loop_init(&stage->loop), 0);
    stage->port = port_new(&stage->loop, &asking, &callbacks, NULL);
    stage->prober = prober_new(&stage->loop, stage->port, on_answer, stage);
}

static void dies(struct stage *stage, struct port *port)
{
    stage->closed = false;
    port_close(port, on_closed, stage);
    while (!stage->closed)
        uv_run(&stage->loop, UV_RUN_ONCE);
    stage->closed = false;
}

static void stage_done(struct stage *stage)
{
    prober_close(stage->prober, on_closed, stage);
    uv_run(&stage->loop, UV_RUN_DEFAULT);
    assert_true(stage->closed);
    dies(stage, stage->port);
    uv_run(&stage->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&stage->loop), 0);
}

/* A socket that listens; nobody accepts. */
static int listening_at(uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

/* On a port of its own. *address: "127.0.0.1:port", owned by the caller. */
static int listening(char **address)
{
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    int fd = listening_at(0);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    *address = xasprintf("127.0.0.1:%d", ntohs(at.sin_port));
    return fd;
}

static void tick(struct stage *stage, const char *address)
{
    const struct prober_target target = {MACHINE, address, SERVER};

    prober_tick(stage->prober, &target, 1);
    for (unsigned i = 0; i < 5; i++) {
        uv_run(&stage->loop, UV_RUN_NOWAIT);
        usleep(2000);
    }
}

/* Ticks, as often as the loop has nothing else to do, until so much was answered. */
static void tick_until(struct stage *stage, const char *address, const unsigned *count, unsigned wanted)
{
    uint64_t end_ms = now_ms() + DEADLINE_MS;

    while (*count < wanted) {
        assert_true(now_ms() < end_ms);
        tick(stage, address);
    }
}

/* For a second: long enough for what is not yet asked to be asked and answered. */
static void assert_no_more_accepted(struct stage *stage, const char *address)
{
    unsigned before = stage->accepted;

    for (unsigned i = 0; i < 100; i++)
        tick(stage, address);
    assert_int_equal(stage->accepted, before);
}

/* A fleetd that lives. */
static struct port *living(struct stage *stage, uint64_t server_id, const char *machine_id,
                           const char *address)
{
    static const struct port_callbacks callbacks = {.on_accept = on_accept};
    struct port_identity identity = {.has_cluster = true, .server_id = server_id};
    struct port *port;
    struct err err = {0};

    strcpy(identity.machine_id, machine_id);
    port = port_new(&stage->loop, &identity, &callbacks, NULL);
    if (port_listen(port, address, &err) < 0)
        fail_msg("%s", err.text);
    return port;
}

/* Many ticks, and still two connections: the backlog of a process that does not accept is short. */
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

/* Another machine that is as silent knows nothing of the connection, and a new one to it proves nothing. One
 * that speaks is believed, once it says that it is the machine. */
static void test_who_has_the_address_now_may_be_another_one(void **state)
{
    _cleanup_(freep) char *address = NULL;
    int fd = listening(&address);
    uint16_t number = (uint16_t)atoi(strchr(address, ':') + 1);
    struct port *port;
    struct stage stage;
    unsigned before;

    stage_init(&stage);
    tick_until(&stage, address, &stage.accepted, 2);
    close(fd);
    tick_until(&stage, address, &stage.refused, 1);
    fd = listening_at(number);
    assert_no_more_accepted(&stage, address);
    close(fd);
    port = living(&stage, SERVER + 1, MACHINE, address);
    assert_no_more_accepted(&stage, address);
    dies(&stage, port);
    port = living(&stage, SERVER, MACHINE, address);
    tick_until(&stage, address, &stage.accepted, stage.accepted + 3);
    dies(&stage, port);
    /* And when it was heard, and falls silent again, all begins anew. */
    fd = listening_at(number);
    prober_tick(stage.prober, NULL, 0);
    uv_run(&stage.loop, UV_RUN_NOWAIT);
    before = stage.accepted;
    tick_until(&stage, address, &stage.accepted, before + 3);
    close(fd);
    stage_done(&stage);
}

/* A living fleetd of another machine: what it accepts counts once, before it has said who it is. */
static void test_another_machine_from_the_first(void **state)
{
    _cleanup_(freep) char *address = NULL;
    struct port *port;
    struct stage stage;

    close(listening(&address));
    stage_init(&stage);
    port = living(&stage, SERVER + 1, MACHINE, address);
    tick_until(&stage, address, &stage.accepted, 1);
    assert_no_more_accepted(&stage, address);
    dies(&stage, port);
    stage_done(&stage);
}

/* One that says that it is that server has another certificate, and so another machine id. */
static void test_another_machine_that_says_to_be_the_server(void **state)
{
    _cleanup_(freep) char *address = NULL;
    struct port *port;
    struct stage stage;

    close(listening(&address));
    stage_init(&stage);
    port = living(&stage, SERVER, "ffffffffffffffffffffffffffffffff", address);
    tick_until(&stage, address, &stage.accepted, 1);
    assert_no_more_accepted(&stage, address);
    dies(&stage, port);
    stage_done(&stage);
}

/* What is no fleetd at all: it says something, or hangs up. */
static void test_no_fleetd(void **state)
{
    for (int speaks = 0; speaks < 2; speaks++) {
        _cleanup_(freep) char *address = NULL;
        _cleanup_(closep) int fd = listening(&address);
        struct stage stage;
        int peer;

        stage_init(&stage);
        tick_until(&stage, address, &stage.accepted, 1);
        peer = accept(fd, NULL, NULL);
        assert_true(peer >= 0);
        if (speaks)
            assert_true(send(peer, "SSH-2.0-OpenSSH\r\n", 17, MSG_NOSIGNAL) == 17);
        else
            close(peer);
        for (unsigned i = 0; i < 10; i++) /* It is read. */
            tick(&stage, address);
        assert_no_more_accepted(&stage, address);
        if (speaks)
            close(peer);
        stage_done(&stage);
    }
}

static void test_no_address(void **state)
{
    static const char *const addresses[] = {"", "no port:", "[::1", "name.invalid:7390", "127.0.0.1:99999"};
    struct stage stage;

    stage_init(&stage);
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        prober_tick(stage.prober, &(struct prober_target){MACHINE, addresses[i], SERVER}, 1);
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
        cmocka_unit_test(test_who_has_the_address_now_may_be_another_one),
        cmocka_unit_test(test_another_machine_from_the_first),
        cmocka_unit_test(test_another_machine_that_says_to_be_the_server),
        cmocka_unit_test(test_no_fleetd),
        cmocka_unit_test(test_no_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
