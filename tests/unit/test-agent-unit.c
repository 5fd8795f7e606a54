/* SPDX-License-Identifier: Apache-2.0 */
/* A restart takes two calls to systemd: which run is to end, and the restart. What has changed in between.
 * The unit "x" of an agent without a loop and without systemd. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "fleetd/agent_internal.h"

struct world {
    struct agent agent;
    struct local_unit *unit;
};

/* It runs an older content; the one of generation 2 is written and loaded. */
static int set_up(void **state)
{
    struct world *w = NEW0(struct world);

    w->agent.closing = true; /* Nothing of it is on a loop. */
    w->agent.records.fd = -1;
    w->unit = agent_unit_new(&w->agent, "x.service");
    w->unit->wish = AGENT_WISH_LAUNCHED;
    w->unit->generation = 2;
    w->unit->known = w->unit->linked = true;
    w->unit->stale = AGENT_STALE_NO;
    strcpy(w->unit->load_state, "loaded");
    strcpy(w->unit->active_state, "active");
    strcpy(w->unit->hash, "second");
    strcpy(w->unit->file_hash, "second");
    strcpy(w->unit->record.hash, "second");
    w->unit->record.generation = w->unit->record.asked = 1;
    w->unit->record.restart = true;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    agent_unit_free(&w->agent, w->unit);
    strbuf_done(&w->agent.records.pending);
    free(w);
    return 0;
}

static void test_nothing_has_changed(void **state)
{
    struct world *w = *state;

    assert_true(agent_unit_restarts_now(w->unit));
}

static void test_it_has_ended_by_itself(void **state)
{
    struct world *w = *state;

    strcpy(w->unit->active_state, "inactive");
    assert_true(agent_unit_restarts_now(w->unit));
}

static void test_other_content_has_come(void **state)
{
    struct world *w = *state;

    w->unit->generation = 3;
    strcpy(w->unit->hash, "third");
    assert_false(agent_unit_restarts_now(w->unit)); /* The file has the second yet... */
    strcpy(w->unit->file_hash, "third");
    w->unit->stale = AGENT_STALE_YES;
    assert_false(agent_unit_restarts_now(w->unit)); /* ...and so has systemd... */
    w->unit->stale = AGENT_STALE_NO;
    assert_true(agent_unit_restarts_now(w->unit)); /* ...but not any more. */
}

static void test_the_same_content_for_another_generation(void **state)
{
    struct world *w = *state;

    w->unit->generation = 3;
    assert_true(agent_unit_restarts_now(w->unit));
}

static void test_it_is_not_wanted_any_more(void **state)
{
    struct world *w = *state;

    w->unit->wish = AGENT_WISH_ABSENT;
    assert_false(agent_unit_restarts_now(w->unit));
    w->unit->wish = AGENT_WISH_LOADED;
    assert_false(agent_unit_restarts_now(w->unit));
}

static void test_its_lease_has_ended(void **state)
{
    struct world *w = *state;

    w->unit->no_lease = true;
    assert_false(agent_unit_restarts_now(w->unit));
}

static void test_it_is_outdated_no_more(void **state)
{
    struct world *w = *state;

    w->unit->record.restart = false;
    assert_false(agent_unit_restarts_now(w->unit));
}

/* It was not wanted here for a while: it was stopped, but not removed yet. */
static void test_what_we_have_stopped_is_started_again(void **state)
{
    struct world *w = *state;
    struct agent_facts facts;

    w->unit->generation = w->unit->record.generation = w->unit->record.asked = 2;
    w->unit->record.restart = false;
    strcpy(w->unit->record.result, "done");
    strcpy(w->unit->active_state, "inactive");
    w->unit->record.launched = true; /* An operator has stopped it. */
    agent_facts(w->unit, &facts);
    assert_int_equal(agent_plan_unit(&facts), AGENT_OP_NONE);
    w->unit->record.launched = false; /* We have. */
    agent_facts(w->unit, &facts);
    assert_int_equal(agent_plan_unit(&facts), AGENT_OP_START);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_has_changed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_has_ended_by_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_content_has_come, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_same_content_for_another_generation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_is_not_wanted_any_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_its_lease_has_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_is_outdated_no_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_we_have_stopped_is_started_again, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
