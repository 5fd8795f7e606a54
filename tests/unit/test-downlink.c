/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's side of sessions: how many connections of one machine there are. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/downlink.h"
#include "tests/unit/port-world.h"

/* A leader that takes everybody in, but a second host of a machine that has a session. */
struct leader {
    struct fixture *f;
    struct port *port;
    struct downlink *downlink;
    unsigned accepted, sessions, closed;
    uint64_t last; /* Session that was opened, ... */
    bool refuses;  /* ...and whether the next one is: -EEXIST. */
};

static int on_opening(const Fleet__RegisterMachine *machine, struct err *err, void *data)
{
    const struct leader *leader = data;

    return leader->refuses ? err_set(err, -EEXIST, "machine id is in use") : 0;
}

static void on_session(const char *machine_id, uint64_t session_id, const Fleet__SessionOpen *open,
                       void *data)
{
    struct leader *leader = data;

    leader->sessions++;
    leader->last = session_id;
}

static void on_heard(const char *machine_id, uint64_t session_id, void *data)
{
}

static void on_closed(const char *machine_id, uint64_t session_id, void *data)
{
    ((struct leader *)data)->closed++;
}

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct leader *leader = data;

    leader->accepted++;
    *ret = downlink_accept(leader->downlink, conn, hello->machine_id, ret_data);
    return 0;
}

static void leader_init(struct leader *leader, struct fixture *f)
{
    static const struct downlink_callbacks callbacks = {
        .on_opening = on_opening, .on_session = on_session, .on_heard = on_heard, .on_closed = on_closed};
    static const struct port_callbacks port_callbacks = {.on_accept = on_accept};
    struct port_identity identity = identity_of(1);

    *leader = (struct leader){.f = f};
    leader->downlink = downlink_new(&f->loop, &callbacks, leader);
    leader->port = port_new(&f->loop, &identity, &port_callbacks, leader);
    f->ports++;
    assert_int_equal(port_listen(leader->port, "127.0.0.1:0", NULL), 0);
}

static void leader_done(struct leader *leader, struct end *ends, size_t count)
{
    struct fixture *f = leader->f;
    unsigned before = f->ports_closed;

    port_close(leader->port, on_port_closed, f);
    WAIT(f, f->ports_closed == before + 1);
    for (size_t i = 0; i < count; i++)
        WAIT(f, ends[i].conn == NULL || ends[i].closed);
    downlink_free(leader->downlink);
}

static void call(struct leader *leader, struct port *from, struct end *end)
{
    unsigned before = leader->accepted;

    end->conn = port_dial(from, port_listening(leader->port), FLEET__PURPOSE__PURPOSE_SESSION, 1,
                          &end_callbacks, end);
    WAIT(leader->f, end->opened && leader->accepted == before + 1);
}

static void open_session(struct end *end, unsigned machine, uint64_t session_id)
{
    Fleet__RegisterMachine host = FLEET__REGISTER_MACHINE__INIT;
    Fleet__SessionOpen open = FLEET__SESSION_OPEN__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;
    struct port_identity identity = identity_of(machine);
    uint8_t bytes[512];
    size_t size;

    host.machine_id = identity.machine_id;
    open.session_id = session_id;
    open.machine = &host;
    message.message_case = FLEET__SESSION_UP__MESSAGE_OPEN;
    message.open = &open;
    size = fleet__session_up__pack(&message, bytes);
    assert_int_equal(conn_send(end->conn, bytes, size), 0);
}

/* However often a machine calls, one connection waits to be opened. */
static void test_a_newer_call_ends_the_one_before(void **state)
{
    struct fixture *f = *state;
    struct end ends[20] = {0}, other = {0};
    struct port *another = add_port(f, 3);
    struct leader leader;

    leader_init(&leader, f);
    call(&leader, another, &other);
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        call(&leader, f->client, &ends[i]);
        if (i > 0)
            WAIT(f, ends[i - 1].closed);
    }
    open_session(&ends[ARRAY_SIZE(ends) - 1], 2, 7);
    WAIT(f, leader.sessions == 1);
    assert_int_equal(leader.last, 7);
    assert_int_equal(leader.closed, 0); /* What was never opened is nobody's session. */
    /* Another machine's is its own. */
    open_session(&other, 3, 8);
    WAIT(f, leader.sessions == 2);
    assert_int_equal(leader.last, 8);
    assert_int_equal(ends[ARRAY_SIZE(ends) - 1].closed + other.closed, 0);
    port_close(another, on_port_closed, f);
    WAIT(f, other.closed);
    leader_done(&leader, ends, ARRAY_SIZE(ends));
}

/* Who only calls, be it a second host with the machine's id, ends no session; who may open one does. */
static void test_a_call_does_not_end_a_session(void **state)
{
    struct fixture *f = *state;
    struct end ends[4] = {0};
    struct leader leader;

    leader_init(&leader, f);
    call(&leader, f->client, &ends[0]);
    open_session(&ends[0], 2, 1);
    WAIT(f, leader.sessions == 1);
    call(&leader, f->client, &ends[1]);
    call(&leader, f->client, &ends[2]);
    WAIT(f, ends[1].closed);
    leader.refuses = true;
    open_session(&ends[2], 2, 2);
    WAIT(f, ends[2].closed);
    assert_int_equal(ends[0].closed, 0);
    assert_int_equal(leader.closed, 0);
    leader.refuses = false;
    call(&leader, f->client, &ends[3]);
    assert_int_equal(ends[0].closed, 0);
    open_session(&ends[3], 2, 3);
    WAIT(f, ends[0].closed && leader.closed == 1);
    assert_int_equal(leader.last, 3);
    leader_done(&leader, ends, ARRAY_SIZE(ends));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_newer_call_ends_the_one_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_call_does_not_end_a_session, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
