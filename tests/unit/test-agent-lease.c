/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of leases: what may be started when, and what was stopped by whom. The unit "x" of an agent
 * without a loop and without systemd. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetd/agent_internal.h"

#define LEASE_MS 60000u

struct world {
    struct agent agent;
    struct local_unit *unit;
    char file[64];
    uint64_t sequence;
};

static int set_up(void **state)
{
    struct world *w = NEW0(struct world);

    snprintf(w->file, sizeof w->file, "/tmp/test-agent-lease-%d", getpid());
    w->agent.closing = true; /* Nothing of it is on a loop. */
    w->agent.records.fd = -1;
    w->agent.batch = 5;
    agent_lease_init(&w->agent, w->file);
    w->unit = agent_unit_new(&w->agent, "x.service");
    w->unit->wish = AGENT_WISH_LAUNCHED;
    w->unit->stop_ms = 1000;
    w->unit->generation = w->unit->record.generation = w->unit->record.asked = 1;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    agent_unit_free(&w->agent, w->unit);
    strbuf_done(&w->agent.records.pending);
    agent_lease_done(&w->agent);
    unlink(w->file);
    free(w);
    return 0;
}

static void is_named(struct world *w)
{
    w->unit->named = ++w->agent.batch;
}

static uint64_t beats(struct world *w)
{
    agent_lease_sent(&w->agent, ++w->sequence);
    return w->sequence;
}

static void is_granted(struct world *w, uint64_t sequence)
{
    agent_lease_granted(&w->agent, sequence, LEASE_MS);
}

/* As if it were so much later. */
static void lease_ends(struct world *w)
{
    struct err err;

    lease_page_close(w->agent.lease.page);
    unlink(w->file);
    assert_int_equal(lease_page_open(w->file, true, &w->agent.lease.page, &err), 0);
}

static void state_is(struct world *w, const char *active)
{
    strcpy(w->unit->active_state, active);
    agent_lease_look(&w->agent, w->unit);
}

static bool may_start(struct world *w)
{
    agent_lease_look(&w->agent, w->unit);
    return !w->unit->no_lease;
}

static void test_only_a_lease_asked_for_after_it_was_named_starts_it(void **state)
{
    struct world *w = *state;
    uint64_t early = beats(w), late;

    is_named(w);
    assert_false(may_start(w));
    is_granted(w, early);
    assert_false(may_start(w));
    late = beats(w);
    assert_false(may_start(w));
    is_granted(w, late);
    assert_true(may_start(w));
}

static void test_another_session_has_to_name_it_again(void **state)
{
    struct world *w = *state;

    is_named(w);
    is_granted(w, beats(w));
    assert_true(may_start(w));
    agent_lease_session_lost(&w->agent);
    assert_false(may_start(w));
    is_granted(w, beats(w)); /* The leader leads, but has not said whose the unit is. */
    assert_false(may_start(w));
    is_named(w);
    is_granted(w, beats(w));
    assert_true(may_start(w));
}

static void test_an_answer_of_an_older_session_grants_nothing(void **state)
{
    struct world *w = *state;
    uint64_t old = beats(w);

    agent_lease_session_lost(&w->agent);
    is_named(w);
    is_granted(w, old);
    assert_int_equal(lease_page_until_ms(w->agent.lease.page), 0);
}

static void test_a_lease_counts_from_when_the_heartbeat_was_sent(void **state)
{
    struct world *w = *state;
    uint64_t before = now_ms(), sequence = beats(w), until;

    w->agent.lease.sent[sequence % AGENT_HEARTBEATS].sent_ms = before - 1000;
    is_granted(w, sequence);
    until = lease_page_until_ms(w->agent.lease.page);
    assert_int_equal(until, before - 1000 + LEASE_MS);
    sequence = beats(w); /* The answer was long on its way, or we stood still. */
    w->agent.lease.sent[sequence % AGENT_HEARTBEATS].sent_ms = before - LEASE_MS - 1;
    is_granted(w, sequence);
    assert_int_equal(lease_page_until_ms(w->agent.lease.page), until);
    sequence = beats(w); /* An earlier end is none. */
    agent_lease_granted(&w->agent, sequence, LEASE_MS / 2);
    assert_int_equal(lease_page_until_ms(w->agent.lease.page), until);
}

static void test_an_answer_to_nothing(void **state)
{
    struct world *w = *state;

    is_granted(w, 4711);
    beats(w);
    is_granted(w, w->sequence + AGENT_HEARTBEATS);
    assert_int_equal(lease_page_until_ms(w->agent.lease.page), 0);
}

static void runs_under_a_lease(struct world *w)
{
    is_named(w);
    is_granted(w, beats(w));
    agent_lease_keeper_is(&w->agent, "active");
    state_is(w, "active");
    assert_true(w->unit->record.kept);
    assert_false(w->unit->lapsed);
}

static void test_stopped_by_the_end_of_the_lease_it_is_started_again(void **state)
{
    struct world *w = *state;
    struct agent_facts facts;

    runs_under_a_lease(w);
    lease_ends(w);
    agent_lease_keeper_is(&w->agent, "failed");
    state_is(w, "deactivating");
    assert_false(w->unit->lapsed);
    state_is(w, "inactive");
    assert_true(w->unit->lapsed && w->unit->no_lease);
    assert_non_null(strstr(w->unit->error, "stopped: no contact to the leader"));
    agent_facts(w->unit, &facts);
    assert_false(facts.asked || facts.done);
    is_granted(w, beats(w));
    assert_true(may_start(w));
    assert_true(w->unit->lapsed);
    agent_lease_keeper_is(&w->agent, "active");
    state_is(w, "active");
    assert_false(w->unit->lapsed);
}

/* The new lease may come before systemd has said what the end of the old one has stopped. */
static void test_the_next_lease_comes_early(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    lease_ends(w);
    is_granted(w, beats(w));
    state_is(w, "inactive");
    assert_true(w->unit->lapsed);
    assert_true(may_start(w));
}

static void test_stopped_by_an_operator_it_stays_so(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    state_is(w, "inactive");
    assert_false(w->unit->lapsed || w->unit->record.kept);
    lease_ends(w);
    agent_lease_keeper_is(&w->agent, "failed");
    state_is(w, "inactive");
    assert_false(w->unit->lapsed);
}

static void test_fleetd_was_away_while_the_lease_ended(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    lease_ends(w);
    agent_lease_done(&w->agent);
    w->agent.lease = (struct agent_lease){0};
    agent_lease_init(&w->agent, w->file);
    state_is(w, "inactive");
    assert_true(w->unit->lapsed);
}

static void test_the_keeper_fails_while_the_lease_holds(void **state)
{
    struct world *w = *state;

    w->agent.closing = true;
    runs_under_a_lease(w);
    agent_lease_keeper_is(&w->agent, "failed");
    assert_int_equal(w->agent.lease.keeper, AGENT_KEEPER_FAILED);
}

/* Another unit was quicker: the keeper is there again, for that one. */
static void test_a_slow_unit_after_the_keeper_has_failed(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    w->agent.lease.keeper = AGENT_KEEPER_ENDED;
    state_is(w, "deactivating");
    agent_lease_keeper_is(&w->agent, "active");
    state_is(w, "inactive");
    assert_true(w->unit->lapsed);
}

static void fleetd_is_started_again(struct world *w)
{
    agent_lease_done(&w->agent);
    w->agent.lease = (struct agent_lease){0};
    agent_lease_init(&w->agent, w->file);
}

/* What has stopped the unit is not what was seen, but what systemd says of the keeper then. */
static void test_the_keeper_failed_while_fleetd_was_away(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    fleetd_is_started_again(w);
    agent_lease_keeper_found(&w->agent, "failed");
    assert_int_equal(w->agent.lease.keeper, AGENT_KEEPER_FAILED);
}

static void test_the_lease_ended_and_was_granted_before_fleetd_was_away(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    fleetd_is_started_again(w);
    agent_lease_keeper_found(&w->agent, "deactivating");
    state_is(w, "inactive");
    assert_true(w->unit->lapsed);
}

static void test_stopped_by_an_operator_while_fleetd_was_away(void **state)
{
    struct world *w = *state;

    runs_under_a_lease(w);
    fleetd_is_started_again(w);
    agent_lease_keeper_found(&w->agent, "inactive"); /* Nobody needs it any more. */
    state_is(w, "inactive");
    assert_false(w->unit->lapsed || w->unit->record.kept);
}

static void keep_report(const struct agent_report *report, void *data)
{
    *(struct agent_report *)data = *report;
}

static void test_what_is_not_known_is_not_said(void **state)
{
    struct world *w = *state;
    struct agent_report report;

    runs_under_a_lease(w);
    agent_report_unit(w->unit, false, keep_report, &report);
    assert_string_equal(report.active_state, "active");
    w->unit->known = false; /* The connection to systemd is lost. */
    agent_report_unit(w->unit, false, keep_report, &report);
    assert_string_equal(report.active_state, "");
}

static void test_stopped_by_the_end_of_the_lease_it_needs_none_any_more(void **state)
{
    struct world *w = *state;
    struct agent_facts facts;

    w->unit->record.launched = true;
    runs_under_a_lease(w);
    lease_ends(w);
    agent_lease_keeper_is(&w->agent, "failed");
    state_is(w, "inactive");
    assert_true(w->unit->lapsed);
    w->unit->stop_ms = 0; /* OnDisconnect=keep from now on. */
    agent_lease_look(&w->agent, w->unit);
    agent_facts(w->unit, &facts);
    assert_false(facts.asked || facts.done || facts.no_lease);
}

static void test_who_needs_none(void **state)
{
    struct world *w = *state;

    assert_true(agent_wants_lease(&w->agent));
    w->unit->stop_ms = 0;
    assert_false(agent_wants_lease(&w->agent));
    assert_true(may_start(w));
    w->unit->wish = AGENT_WISH_KEEP; /* Found on the host: its drop-in says what it needs. */
    w->unit->dropin.stop_ms = 1000;
    assert_true(agent_wants_lease(&w->agent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_a_lease_asked_for_after_it_was_named_starts_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_another_session_has_to_name_it_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_answer_of_an_older_session_grants_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_lease_counts_from_when_the_heartbeat_was_sent, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_answer_to_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stopped_by_the_end_of_the_lease_it_is_started_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_next_lease_comes_early, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stopped_by_an_operator_it_stays_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fleetd_was_away_while_the_lease_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_keeper_fails_while_the_lease_holds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_slow_unit_after_the_keeper_has_failed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_keeper_failed_while_fleetd_was_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_lease_ended_and_was_granted_before_fleetd_was_away, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_stopped_by_an_operator_while_fleetd_was_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_known_is_not_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stopped_by_the_end_of_the_lease_it_needs_none_any_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_who_needs_none, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
