/* SPDX-License-Identifier: Apache-2.0 */
/* The only voter has another address: it takes it when nobody is at the old one any more, for as long as a
 * host needs that is only being started, or is there itself; and never where another host has been. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "raftstore/identify.h"

#define HERE      "10.0.0.9:7390"
#define OLD       "10.0.0.1:7390"
#define OLDER     "10.0.0.2:7390"
#define MACHINE   "0123456789abcdef0123456789abcdef"
#define BOOT      "00112233445566778899aabbccddeeff"
#define SERVER    0xaull
#define NOBODY_MS 10000u /* As in leading_place.c... */
#define STALE_MS  3000u
#define SAID_MS   60000u /* ...and so often it complains. */

static const uint8_t own_boot[BOOT_ID_SIZE] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                               0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const uint8_t other_boot[BOOT_ID_SIZE] = {1};

static struct world {
    struct daemon daemon;
    struct relocation *relocation;
    uint64_t now_ms;
    void (*done)(enum identify_result result, const uint8_t *boot_id,
                 void *data); /* Who is asked; NULL: nobody. */
    void *data;
    char asked[ADDRESS_MAX + 1];
    unsigned questions, complaints;
    char said[1024]; /* Last. */
} w;

/* ---- what it touches ---- */

uint64_t __wrap_now_ms(void);

uint64_t __wrap_now_ms(void)
{
    return w.now_ms;
}

struct identify *identify_start(struct port *port, const char *address, uint64_t server_id,
                                const char *machine_id,
                                void (*done)(enum identify_result result, const uint8_t *boot_id, void *data),
                                void *data)
{
    assert_null(w.done); /* One at a time. */
    assert_ptr_equal(port, w.daemon.port);
    assert_int_equal(server_id, SERVER);
    assert_string_equal(machine_id, MACHINE);
    snprintf(w.asked, sizeof w.asked, "%s", address);
    w.done = done;
    w.data = data;
    w.questions++;
    return (struct identify *)&w;
}

static void sink(int priority, const char *message, const char *const *fields)
{
    w.complaints++;
    snprintf(w.said, sizeof w.said, "%s", message);
}

/* ---- the world ---- */

static int setup(void **state)
{
    w = (struct world){.now_ms = 1000000};
    log_set_sink(sink);
    strcpy(w.daemon.identity.machine_id, MACHINE);
    strcpy(w.daemon.identity.boot_id, BOOT);
    w.daemon.member.server_id = SERVER;
    w.daemon.cluster_address = (char *)HERE;
    w.daemon.config.data_dir = (char *)"/the/data";
    w.daemon.port = (struct port *)&w;
    w.relocation = relocation_new(&w.daemon);
    return 0;
}

static int teardown(void **state)
{
    relocation_free(w.relocation);
    log_set_sink(NULL);
    return 0;
}

static bool look(const char *from)
{
    return relocation_look(w.relocation, from);
}

static void answers(enum identify_result result, const uint8_t *boot_id)
{
    void (*done)(enum identify_result result, const uint8_t *boot_id, void *data) = w.done;

    assert_non_null(done);
    w.done = NULL;
    done(result, boot_id, w.data);
}

/* Looks once a second for so long, with this answer every time. Whether it may move at the end; before that
 * it never may. */
static bool look_for(const char *from, uint64_t ms, enum identify_result result, const uint8_t *boot_id)
{
    uint64_t end_ms = w.now_ms + ms;

    while (w.now_ms < end_ms) {
        assert_false(look(from));
        if (w.done != NULL)
            answers(result, boot_id);
        w.now_ms += 1000;
    }
    return look(from);
}

/* ---- tests ---- */

static void test_it_asks_where_it_was(void **state)
{
    assert_false(look(OLD));
    assert_string_equal(w.asked, OLD);
    assert_false(look(OLD));
    assert_false(look(OLD));
    assert_int_equal(w.questions, 1); /* The first one is still under way. */
    answers(IDENTIFY_NOBODY, NULL);
    assert_false(look(OLD));
    assert_int_equal(w.questions, 2);
}

static void test_nobody_for_long_enough(void **state)
{
    assert_false(look_for(OLD, NOBODY_MS - 1000, IDENTIFY_NOBODY, NULL));
    answers(IDENTIFY_NOBODY, NULL);
    w.now_ms += 1000;
    assert_true(look(OLD));
    assert_int_equal(w.complaints, 0);
}

/* Its old address is another server's now: this one is not there. */
static void test_another_server_is_nobody(void **state)
{
    assert_true(look_for(OLD, NOBODY_MS, IDENTIFY_OTHER, NULL));
}

static void test_it_is_there_itself(void **state)
{
    assert_false(look(OLD));
    answers(IDENTIFY_THERE, own_boot);
    assert_true(look(OLD));
    assert_int_equal(w.complaints, 0);
}

/* A copy, or the original: nobody here can know. And who is only being rebooted is not there for a while. */
static void test_another_host_was_there(void **state)
{
    unsigned questions;

    assert_false(look(OLD));
    answers(IDENTIFY_THERE, other_boot);
    questions = w.questions;
    assert_false(look_for(OLD, SAID_MS - 1000, IDENTIFY_NOBODY, NULL));
    assert_int_equal(w.questions, questions);
    assert_int_equal(w.complaints, 1);
    assert_non_null(strstr(w.said, HERE));
    assert_non_null(strstr(w.said, OLD));
    assert_non_null(strstr(w.said, "/the/data"));
    w.now_ms += 1000;
    assert_false(look(OLD));
    assert_int_equal(w.complaints, 2); /* Who looks into the journal later finds it, too. */
}

/* It answers as this server, and does not say in which boot: it may be another host. */
static void test_an_older_version_is_there(void **state)
{
    assert_false(look(OLD));
    answers(IDENTIFY_OLD, NULL);
    assert_false(look_for(OLD, 2 * NOBODY_MS, IDENTIFY_NOBODY, NULL));
    assert_int_equal(w.complaints, 1);
}

static void test_another_host_comes_in_time(void **state)
{
    assert_false(look_for(OLD, NOBODY_MS - 1000, IDENTIFY_NOBODY, NULL));
    answers(IDENTIFY_THERE, other_boot);
    w.now_ms += 1000;
    assert_false(look(OLD));
    assert_false(look_for(OLD, 2 * NOBODY_MS, IDENTIFY_NOBODY, NULL));
}

/* It stood still, or did not lead: nobody knows who was there meanwhile. */
static void test_what_was_heard_long_ago_does_not_count(void **state)
{
    assert_false(look(OLD));
    answers(IDENTIFY_NOBODY, NULL);
    w.now_ms += NOBODY_MS;
    assert_false(look(OLD));
    answers(IDENTIFY_NOBODY, NULL);
    w.now_ms += STALE_MS; /* That is no standstill. */
    assert_true(look_for(OLD, NOBODY_MS - STALE_MS, IDENTIFY_NOBODY, NULL));
}

static void test_the_old_address_is_another_one(void **state)
{
    assert_false(look(OLD));
    answers(IDENTIFY_THERE, other_boot);
    assert_false(look(OLDER)); /* Nothing is known of that one. */
    assert_string_equal(w.asked, OLDER);
    answers(IDENTIFY_THERE, own_boot);
    assert_true(look(OLDER));
    assert_false(look(OLD));
    answers(IDENTIFY_NOBODY, NULL);
    assert_false(look(OLDER)); /* Nor is it any more. */
    answers(IDENTIFY_NOBODY, NULL);
    assert_true(look_for(OLDER, NOBODY_MS, IDENTIFY_NOBODY, NULL));
    assert_false(look_for(OLD, NOBODY_MS - 1000, IDENTIFY_NOBODY, NULL)); /* Nor for how long nobody was. */
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_asks_where_it_was),           TEST(test_nobody_for_long_enough),
        TEST(test_another_server_is_nobody),       TEST(test_it_is_there_itself),
        TEST(test_another_host_was_there),         TEST(test_an_older_version_is_there),
        TEST(test_another_host_comes_in_time),     TEST(test_what_was_heard_long_ago_does_not_count),
        TEST(test_the_old_address_is_another_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
