/* SPDX-License-Identifier: Apache-2.0 */
/* A host that is not where its log has it: what a person is told of it, and when; and whom a host asks for
 * the leader, which is more when it has found none for a while. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"

#define HERE      "10.0.0.9:7390"
#define OLD       "10.0.0.1:7390"
#define SECOND    "10.0.0.2:7390"
#define THIRD     "10.0.0.3:7390"
#define ELSEWHERE "10.0.0.4:7390"
#define NAMED     "one.example:7390"
#define SERVER    0xaull
#define APART_MS  10000u /* As in place.c... */
#define SAID_MS   60000u /* ...and so often it complains. */

static struct world {
    struct daemon daemon;
    uint64_t now_ms;
    const char *place, *moved_to; /* By the log, and by "cluster_moved". */
    struct store_server servers[4];
    size_t server_count;
    bool session;
    struct strlist asked; /* From now on. */
    unsigned told, lines;
    int priority;
    char said[2048]; /* Last. */
} w;

/* ---- what it touches ---- */

uint64_t __wrap_now_ms(void);

uint64_t __wrap_now_ms(void)
{
    return w.now_ms;
}

const char *store_own_place(const struct store *store)
{
    assert_non_null(store);
    return w.place;
}

const char *store_moved_to(const struct store *store, uint64_t server_id, const char *address)
{
    assert_int_equal(server_id, SERVER);
    assert_string_equal(address, w.place);
    return w.moved_to;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    assert_true(max >= w.server_count);
    memcpy(servers, w.servers, w.server_count * sizeof *servers);
    return w.server_count;
}

bool uplink_is_open(const struct uplink *uplink)
{
    assert_non_null(uplink);
    return w.session;
}

void uplink_set_members(struct uplink *uplink, const struct strlist *addresses)
{
    assert_non_null(uplink);
    strlist_done(&w.asked);
    for (size_t i = 0; i < addresses->count; i++)
        strlist_add(&w.asked, addresses->items[i]);
    w.told++;
}

static void sink(int priority, const char *message, const char *const *fields)
{
    w.lines++;
    w.priority = priority;
    snprintf(w.said, sizeof w.said, "%s", message);
}

/* ---- the world: one of three voters, in its place, with a session; one more host is a standby ---- */

static int setup(void **state)
{
    w = (struct world){.now_ms = 1000000,
                       .place = HERE,
                       .servers = {{.id = SERVER, .address = HERE, .role = SERVER_VOTER},
                                   {.id = 2, .address = SECOND, .role = SERVER_VOTER},
                                   {.id = 3, .address = THIRD, .role = SERVER_VOTER},
                                   {.id = 4, .address = ELSEWHERE, .role = SERVER_STANDBY}},
                       .server_count = 4,
                       .session = true};
    log_set_sink(sink);
    w.daemon.cluster_address = (char *)HERE;
    w.daemon.member.server_id = SERVER;
    w.daemon.store = (struct store *)&w; /* Only looked at by the pretences. */
    w.daemon.uplink = (struct uplink *)&w;
    strlist_add(&w.daemon.member.peers, SECOND);
    strlist_add(&w.daemon.member.peers, THIRD);
    strlist_add(&w.daemon.config.join, NAMED);
    return 0;
}

static int teardown(void **state)
{
    strlist_done(&w.daemon.member.peers);
    strlist_done(&w.daemon.config.join);
    strlist_done(&w.daemon.config.moved_from);
    strlist_done(&w.daemon.config.moved_to);
    strlist_done(&w.asked);
    log_set_sink(NULL);
    return 0;
}

static void moves(void)
{
    w.place = w.servers[0].address = OLD;
}

static void is_the_only_voter(void)
{
    w.servers[1] = w.servers[3];
    w.server_count = 2;
}

/* Once a second, for so long. */
static void pass(uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i += 1000) {
        w.now_ms += 1000;
        place_tick(&w.daemon);
    }
}

/* The session ends now, and for so long there is none. */
static void apart_for(uint64_t ms)
{
    w.session = false;
    place_tick(&w.daemon);
    pass(ms);
}

static void assert_asked(const char *const *addresses, size_t count)
{
    assert_int_equal(w.asked.count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(w.asked.items[i], addresses[i]);
}

#define ASSERT_ASKED(...)                            \
    assert_asked((const char *const[]){__VA_ARGS__}, \
                 sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void assert_says(const char *text)
{
    if (strstr(w.said, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, w.said);
}

/* ---- whom a host asks for the leader ---- */

static void test_who_was_the_cluster_is_asked(void **state)
{
    cluster_tell_members(&w.daemon);
    ASSERT_ASKED(SECOND, THIRD);
}

/* Where they were, too: not all may have moved so far. What is said of others is nothing to this host. */
static void test_where_they_have_moved_to(void **state)
{
    strlist_add(&w.daemon.config.moved_from, THIRD);
    strlist_add(&w.daemon.config.moved_to, ELSEWHERE);
    strlist_add(&w.daemon.config.moved_from, "10.0.0.7:7390");
    strlist_add(&w.daemon.config.moved_to, "10.0.0.8:7390");
    cluster_tell_members(&w.daemon);
    ASSERT_ASKED(SECOND, THIRD, ELSEWHERE);
}

static void test_nobody_is_asked_twice(void **state)
{
    strlist_add(&w.daemon.config.moved_from, THIRD);
    strlist_add(&w.daemon.config.moved_to, SECOND);
    strlist_add(&w.daemon.config.join, SECOND);
    w.daemon.asks_around = true;
    cluster_tell_members(&w.daemon);
    ASSERT_ASKED(SECOND, THIRD, NAMED);
}

static void test_a_host_that_was_removed_asks_nobody(void **state)
{
    w.daemon.uplink = NULL;
    cluster_tell_members(&w.daemon);
    apart_for(2 * APART_MS);
    assert_int_equal(w.told, 0);
    assert_int_equal(w.lines, 0);
}

static void test_whom_the_configuration_names_after_a_while(void **state)
{
    pass(2 * APART_MS);
    assert_int_equal(w.told, 0); /* There is a session. */
    apart_for(APART_MS - 1000);
    assert_int_equal(w.told, 0); /* It may be an election. */
    pass(1000);
    ASSERT_ASKED(SECOND, THIRD, NAMED);
    pass(SAID_MS);
    assert_int_equal(w.told, 1); /* That is known. */
    w.session = true;
    pass(1000);
    ASSERT_ASKED(SECOND, THIRD);
    apart_for(APART_MS - 1000);
    assert_int_equal(w.told, 2); /* It is counted anew. */
}

/* ---- not where its log has it ---- */

static void test_in_its_place(void **state)
{
    place_start(&w.daemon);
    apart_for(SAID_MS);
    assert_int_equal(w.lines, 0);
    assert_string_equal(place_trouble(&w.daemon), "");
}

static void test_no_log_has_it(void **state)
{
    w.place = "";
    place_start(&w.daemon);
    apart_for(SAID_MS);
    assert_string_equal(place_trouble(&w.daemon), "");
    w.daemon.store = NULL; /* Without room for its log. */
    place_start(&w.daemon);
    pass(SAID_MS);
    assert_string_equal(place_trouble(&w.daemon), "");
    assert_int_equal(w.lines, 0);
}

static void test_one_of_several_has_moved(void **state)
{
    moves();
    place_start(&w.daemon);
    assert_int_equal(w.lines, 1);
    assert_int_equal(w.priority, LOG_NOTICE);
    assert_says("is at " HERE " now, and its log has it at " OLD);
    assert_says("the leader will take it out");
    assert_non_null(strstr(place_trouble(&w.daemon), "see the journal"));
    pass(SAID_MS);
    assert_int_equal(w.lines, 1); /* As long as there is a leader, it will. */
}

static void test_the_only_one_has_moved(void **state)
{
    moves();
    is_the_only_voter();
    place_start(&w.daemon);
    assert_says("is at " HERE " now, and its log has it at " OLD);
    assert_null(strstr(w.said, "leader"));
    apart_for(SAID_MS);
    assert_int_equal(w.lines, 1); /* It leads soon, by itself. */
}

/* Only a person can say that. */
static void test_there_is_no_leader(void **state)
{
    moves();
    apart_for(APART_MS - 1000);
    assert_int_equal(w.lines, 0);
    pass(1000);
    assert_int_equal(w.lines, 1);
    assert_int_equal(w.priority, LOG_ERR);
    assert_says("(" OLD ", " SECOND ", " THIRD ")"); /* Voters, and no standby. */
    assert_says("cluster_moved = " OLD "=" HERE ",...");
    pass(SAID_MS - 1000);
    assert_int_equal(w.lines, 1);
    pass(1000);
    assert_int_equal(w.lines, 2);
}

static void test_a_person_has_said_it(void **state)
{
    moves();
    w.moved_to = HERE;
    place_start(&w.daemon);
    apart_for(SAID_MS);
    assert_int_equal(w.lines, 0);
    assert_string_equal(place_trouble(&w.daemon), "");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_was_the_cluster_is_asked),
        TEST(test_where_they_have_moved_to),
        TEST(test_nobody_is_asked_twice),
        TEST(test_a_host_that_was_removed_asks_nobody),
        TEST(test_whom_the_configuration_names_after_a_while),
        TEST(test_in_its_place),
        TEST(test_no_log_has_it),
        TEST(test_one_of_several_has_moved),
        TEST(test_the_only_one_has_moved),
        TEST(test_there_is_no_leader),
        TEST(test_a_person_has_said_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
