/* SPDX-License-Identifier: Apache-2.0 */
/* A host's side of its session: which leader it follows. */
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
#include "fleetd/uplink.h"
#include "tests/unit/port-world.h"

/* A host that has nothing, and follows every history but when it 'declines'. */
struct host {
    struct fixture *f;
    struct uplink *uplink;
    unsigned followed, shares, closed;
    bool declines;
};

static bool is_informed(void *data)
{
    return true;
}

static Fleet__SessionOpen *on_session_opening(void *data)
{
    Fleet__SessionOpen *open = xmalloc(sizeof *open);

    fleet__session_open__init(open);
    open->session_id = 1;
    return open;
}

static int on_accepted(const Fleet__SessionAccepted *accepted, void *data)
{
    struct host *host = data;

    if (host->declines)
        return -EXDEV;
    host->followed++;
    return 0;
}

static int on_share(const Fleet__Share *share, void *data)
{
    ((struct host *)data)->shares++;
    return 0;
}

static bool on_beat(uint64_t sequence, void *data)
{
    return false;
}

static void on_lost(const char *why, void *data)
{
}

static void on_uplink_closed(void *data)
{
    ((struct host *)data)->closed++;
}

static void host_init(struct host *host, struct fixture *f)
{
    static const struct uplink_callbacks callbacks = {.is_informed = is_informed,
                                                      .on_open = on_session_opening,
                                                      .on_accepted = on_accepted,
                                                      .on_share = on_share,
                                                      .on_beat = on_beat,
                                                      .on_lost = on_lost};
    struct strlist members = {0};

    *host = (struct host){.f = f};
    host->uplink = uplink_new(&f->loop, f->client, &callbacks, host);
    strlist_add(&members, port_listening(f->server));
    uplink_set_members(host->uplink, &members);
    strlist_done(&members);
}

static void host_done(struct host *host)
{
    uplink_close(host->uplink, on_uplink_closed, host);
    WAIT(host->f, host->closed == 1);
}

static void send_down(struct end *end, const Fleet__SessionDown *message)
{
    uint8_t bytes[512];
    size_t size = fleet__session_down__pack(message, bytes);

    assert_int_equal(conn_send(end->conn, bytes, size), 0);
}

/* The host has called: whoever leads by this term takes it in, and tells it its share in the same breath. */
static struct end *take_in(struct host *host, uint64_t term, uint64_t recoveries)
{
    struct fixture *f = host->f;
    size_t count = f->accepted_count;
    struct end *end = &f->accepted[count > 0 && f->accepted[count - 1].closed == 0 ? count - 1 : count];
    Fleet__SessionAccepted accepted = FLEET__SESSION_ACCEPTED__INIT;
    Fleet__Share share = FLEET__SHARE__INIT;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;

    WAIT(f, end->messages == 1);
    accepted.term = term;
    accepted.recoveries = recoveries;
    accepted.heartbeat_ms = DEADLINE_MS;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_ACCEPTED;
    message.accepted = &accepted;
    send_down(end, &message);
    share.version = 1;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_SHARE;
    message.share = &share;
    send_down(end, &message);
    return end;
}

static void is_followed(struct host *host, uint64_t term, uint64_t recoveries)
{
    unsigned shares = host->shares;
    struct end *end = take_in(host, term, recoveries);

    WAIT(host->f, host->shares == shares + 1);
    assert_true(uplink_is_open(host->uplink));
    conn_close(end->conn, "enough");
    WAIT(host->f, end->closed == 1 && !uplink_is_open(host->uplink));
}

static void is_not_followed(struct host *host, uint64_t term, uint64_t recoveries)
{
    unsigned followed = host->followed, shares = host->shares;
    struct end *end = take_in(host, term, recoveries);

    WAIT(host->f, end->closed == 1);
    assert_int_equal(host->followed, followed);
    assert_int_equal(host->shares, shares);
}

/* It would have the host take up again what it has let go since, and others have. */
static void test_a_deposed_leader_is_not_followed(void **state)
{
    struct host host;

    host_init(&host, *state);
    is_followed(&host, 6, 0);
    is_followed(&host, 8, 0);
    is_not_followed(&host, 6, 0);
    is_not_followed(&host, 7, 0);
    is_followed(&host, 8, 0);
    is_followed(&host, 9, 0);
    host_done(&host);
}

static void test_terms_begin_anew_with_a_recovery(void **state)
{
    struct host host;

    host_init(&host, *state);
    is_followed(&host, 8, 0);
    host.declines = true; /* Another history: its terms say nothing. */
    is_not_followed(&host, 9, 1);
    is_not_followed(&host, 9, 0);
    host.declines = false;
    is_followed(&host, 8, 0);
    is_followed(&host, 2, 1);
    is_not_followed(&host, 1, 1);
    host_done(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_deposed_leader_is_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_terms_begin_anew_with_a_recovery, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
