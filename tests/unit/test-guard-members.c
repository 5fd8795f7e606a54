/* SPDX-License-Identifier: Apache-2.0 */
/* The guard where the members change, and where one votes alone: what test-guard-chaos found. Each also with
 * the bare library, which must go wrong. (More of the kind is in test-guard.) */
#include <config.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "raft-cluster.h"

static struct cluster c;

/* Whether the scenario ends the process, bare. */
static bool dies(void (*scenario)(bool guarded))
{
    const struct rlimit none = {0};
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) != NULL)
            scenario(false);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status != 0;
}

/* ---- The only voter ---- */

/* S1 alone votes, sends X to S2, and crashes before that is on its own disk. It leads again and writes Y, at
 * the same place. */
static void only_voter_crashes(bool guarded)
{
    cluster_init_voters(&c, 2, 1, guarded);
    c.anybody = true;
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 0);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 300);
    cluster_kill(&c, 0);
    cluster_answer_writes(&c, 0, 0); /* That is what it believes; it is not so. */
    cluster_restart(&c, 0);
    if (guarded)
        assert_int_equal(cluster_fired(&c, 0, GUARD_RULE_TERM_BEGUN), 1);
    cluster_run(&c, 300);
    cluster_apply(&c, 0, 'Y');
    cluster_run(&c, 100);
    cluster_heal(&c, 0, 1);
    cluster_run(&c, 3000);
    assert_string_equal(cluster_applied(&c, 0), "Y");
}

static void guarded_only_voter_crashes(void **state)
{
    only_voter_crashes(true);
    assert_string_equal(cluster_applied(&c, 1), "Y");
    cluster_done(&c);
}

static void bare_only_voter_crashes(void **state)
{
    only_voter_crashes(false);
    assert_string_equal(cluster_applied(&c, 1), "X"); /* Two histories. */
    cluster_done(&c);
}

/* S1 leads, and makes a standby of itself; S2 is the only voter now, and hears no more of S1, which goes on
 * leading until it has an answer. */
static void leader_leaves_alone(bool guarded)
{
    cluster_init(&c, 2, guarded);
    c.anybody = true;
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    assert_int_equal(cluster_assign(&c, 0, 0, RAFT_STANDBY), 0);
    while (cluster_leads(&c, 0) && cluster_role(&c, 1, 0) == RAFT_VOTER)
        cluster_run(&c, 1);
    cluster_cut(&c, 0, 1);
    assert_true(cluster_leads(&c, 0));
}

static void leader_leaves(bool guarded)
{
    leader_leaves_alone(guarded);
    assert_true(cluster_run_until_state(&c, 1, RAFT_LEADER));
}

static void guarded_leader_leaves(void **state)
{
    leader_leaves(true);
    assert_true(cluster_term(&c, 1) > cluster_term(&c, 0));
    assert_int_equal(raft_fixture_voted_for(&c.fixture, 1), 2);
    cluster_done(&c);
}

/* Two leaders of one term: the fixture aborts. */
static void bare_leader_leaves(void **state)
{
    assert_true(dies(leader_leaves));
}

/* Told to lead it would do so in the old term, too; it does by itself when it hears nothing more. */
static void test_only_voter_told(void **state)
{
    struct raft_message message = {.type = RAFT_IO_TIMEOUT_NOW};

    leader_leaves_alone(true);
    message.timeout_now.term = cluster_term(&c, 1);
    message.timeout_now.last_log_index = raft_last_index(cluster_raft(&c, 1));
    message.timeout_now.last_log_term = cluster_term(&c, 1);
    cluster_receive(&c, 0, 1, &message);
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_FOLLOWER);
    assert_int_equal(cluster_fired(&c, 1, GUARD_RULE_TIMEOUT_NOW_HELD), 1);
    assert_true(cluster_run_until_state(&c, 1, RAFT_LEADER));
    assert_true(cluster_term(&c, 1) > cluster_term(&c, 0));
    cluster_done(&c);
}

/* The term is on the disk before the server leads, and nobody else gets its vote in it. */
static void test_own_term(void **state)
{
    raft_term term;

    cluster_init_voters(&c, 2, 1, true);
    cluster_run(&c, 300);
    term = cluster_term(&c, 0);
    cluster_restart(&c, 0);
    assert_true(cluster_leads(&c, 0));
    assert_int_equal(cluster_term(&c, 0), term + 1);
    assert_int_equal(raft_fixture_voted_for(&c.fixture, 0), 1);
    cluster_done(&c);
}

/* ---- A change that is cut off the log ---- */

/* S1 leads, reaches nobody, and makes a standby of S3: that is on its disk only, and never committed. S2 is
 * elected. */
static void change_lost(void)
{
    cluster_isolate(&c, 0);
    assert_int_equal(cluster_assign(&c, 0, 2, RAFT_STANDBY), 0);
    cluster_run(&c, 100);
    assert_int_equal(cluster_role(&c, 0, 2), RAFT_STANDBY);
}

static void elect_other(void)
{
    assert_true(cluster_elect(&c, 1));
    cluster_apply(&c, 1, 'Y');
    cluster_run(&c, 300);
    cluster_heal(&c, 0, 1);
    cluster_heal(&c, 0, 2);
}

/* S1 has been restarted meanwhile, and raft takes what it finds for committed. */
static void change_lost_restart(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    change_lost();
    cluster_restart(&c, 0);
    assert_int_equal(cluster_role(&c, 0, 2), RAFT_STANDBY);
    elect_other();
    assert_true(cluster_run_until_applied(&c, 0, "Y"));
}

static void guarded_change_lost_restart(void **state)
{
    change_lost_restart(true);
    assert_int_equal(cluster_role(&c, 0, 2), RAFT_VOTER);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_MEMBERS_RESTORED));
    cluster_done(&c);
}

static void bare_change_lost_restart(void **state)
{
    change_lost_restart(false);
    assert_int_equal(cluster_role(&c, 0, 2), RAFT_STANDBY); /* Which nobody else has heard of. */
    cluster_done(&c);
}

/* The entry of the configuration before it is in a snapshot. */
static void change_lost_snapshot(bool guarded)
{
    cluster_init(&c, 3, guarded);
    raft_set_snapshot_threshold(cluster_raft(&c, 0), 3);
    raft_set_snapshot_trailing(cluster_raft(&c, 0), 1);
    assert_true(cluster_elect(&c, 0));
    for (const char *p = "ABCDEF"; *p != '\0'; p++) {
        cluster_apply(&c, 0, *p);
        cluster_run(&c, 300);
    }
    change_lost();
    elect_other();
    cluster_run(&c, 3000);
}

static void guarded_change_lost_snapshot(void **state)
{
    change_lost_snapshot(true);
    assert_string_equal(cluster_applied(&c, 0), "ABCDEFY");
    assert_int_equal(cluster_role(&c, 0, 2), RAFT_VOTER);
    cluster_done(&c);
}

static void bare_change_lost_snapshot(void **state)
{
    assert_true(dies(change_lost_snapshot));
}

/* ---- A change that is not committed, and a snapshot ---- */

/* S1 applies X when it has made a standby of S3 already, and takes a snapshot up to X. */
static void change_in_snapshot(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    raft_set_snapshot_threshold(cluster_raft(&c, 0), 1);
    raft_set_snapshot_trailing(cluster_raft(&c, 0), 100);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 15);
    raft_fixture_set_disk_latency(&c.fixture, 0, 300);
    assert_int_equal(cluster_assign(&c, 0, 2, RAFT_STANDBY), 0);
    assert_true(cluster_run_until_applied(&c, 0, "X"));
}

static void guarded_change_in_snapshot(void **state)
{
    change_in_snapshot(true);
    assert_true(c.servers[0].snapshots == 0 || c.servers[0].snapshot_roles[2] == RAFT_VOTER);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_SNAPSHOT_UNCOMMITTED));
    cluster_run(&c, 1000);
    cluster_apply(&c, 0, 'Y');
    cluster_run(&c, 1000);
    assert_true(c.servers[0].snapshots > 0); /* Once it is committed. */
    assert_int_equal(c.servers[0].snapshot_roles[2], RAFT_STANDBY);
    cluster_done(&c);
}

static void bare_change_in_snapshot(void **state)
{
    change_in_snapshot(false);
    assert_true(c.servers[0].snapshots > 0);
    assert_int_equal(c.servers[0].snapshot_roles[2], RAFT_STANDBY);
    cluster_done(&c);
}

/* S2 has a change that is not committed, and a snapshot of the leader takes its place. Then S2 leads, and is
 * to change something. */
static void change_and_install(bool guarded)
{
    struct raft_message message;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_cut(&c, 0, 2);
    assert_int_equal(cluster_assign(&c, 0, 2, RAFT_STANDBY), 0);
    while (cluster_role(&c, 1, 2) == RAFT_VOTER)
        cluster_run(&c, 1);
    cluster_kill(&c, 0);
    message = cluster_snapshot_message(&c, cluster_term(&c, 1) + 1, 10, cluster_term(&c, 1) + 1, "ABC");
    cluster_receive(&c, 2, 1, &message);
    cluster_run(&c, 300);
    assert_string_equal(cluster_applied(&c, 1), "ABC");
    assert_int_equal(cluster_role(&c, 1, 2), RAFT_VOTER);
    assert_true(cluster_elect(&c, 1));
}

static void guarded_change_and_install(void **state)
{
    change_and_install(true);
    assert_int_equal(cluster_assign(&c, 1, 0, RAFT_STANDBY), 0);
    cluster_done(&c);
}

static void bare_change_and_install(void **state)
{
    change_and_install(false);
    assert_int_equal(cluster_assign(&c, 1, 0, RAFT_STANDBY), RAFT_CANTCHANGE); /* For ever. */
    cluster_done(&c);
}

/* ---- Pre-vote ---- */

/* S2 is terms ahead, S1 has the longer log: it is S1 that must lead. */
static void pre_vote_behind(bool guarded)
{
    cluster_init(&c, 2, guarded);
    c.anybody = true;
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    raft_set_pre_vote(cluster_raft(&c, 0), true);
    cluster_cut(&c, 0, 1);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 8000);
    assert_true(cluster_term(&c, 1) > cluster_term(&c, 0) + 1);
    c.asks_first = true;
    cluster_restart(&c, 1);
    cluster_heal(&c, 0, 1);
}

static void guarded_pre_vote_behind(void **state)
{
    pre_vote_behind(true);
    assert_true(cluster_run_until_state(&c, 0, RAFT_LEADER));
    assert_true(cluster_fired(&c, 1, GUARD_RULE_TERM_TOLD) > 0);
    assert_true(cluster_run_until_applied(&c, 1, "X"));
    cluster_done(&c);
}

static void bare_pre_vote_behind(void **state)
{
    pre_vote_behind(false);
    assert_false(cluster_run_until_state(&c, 0, RAFT_LEADER));
    cluster_done(&c);
}

/* S1 leads, makes a standby of S4 (or of S3, of three), which would be the only other one that has it, and is
 * lost for good. The others, a majority, must be able to elect somebody. */
static void demotion_reaches_one(unsigned count)
{
    unsigned demoted = count - 1;

    cluster_init(&c, count, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    for (unsigned i = 1; i < demoted; i++)
        cluster_cut(&c, 0, i);
    assert_int_equal(cluster_assign(&c, 0, demoted, RAFT_STANDBY), 0);
    cluster_run(&c, 600);
    assert_int_equal(cluster_role(&c, demoted, demoted), RAFT_VOTER);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_CHANGE_HELD));
    cluster_kill(&c, 0);
    assert_true(cluster_elect(&c, 1));
    cluster_apply(&c, 1, 'X');
    assert_true(cluster_run_until_applied(&c, demoted, "X"));
    cluster_done(&c);
}

static void test_demotion_reaches_one_of_four(void **state)
{
    demotion_reaches_one(4);
}

static void test_demotion_reaches_one_of_three(void **state)
{
    demotion_reaches_one(3);
}

/* Once it is committed, who is demoted hears it, too. */
static void test_demotion_arrives(void **state)
{
    cluster_init(&c, 3, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    assert_int_equal(cluster_assign(&c, 0, 2, RAFT_STANDBY), 0);
    cluster_apply(&c, 0, 'X');
    assert_true(cluster_run_until_applied(&c, 2, "X"));
    assert_int_equal(cluster_role(&c, 2, 2), RAFT_STANDBY);
    cluster_done(&c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TWINS(only_voter_crashes),
        cmocka_unit_test(test_demotion_reaches_one_of_four),
        cmocka_unit_test(test_demotion_reaches_one_of_three),
        cmocka_unit_test(test_demotion_arrives),
        TWINS(leader_leaves),
        cmocka_unit_test(test_only_voter_told),
        cmocka_unit_test(test_own_term),
        TWINS_015(change_lost_restart),
        TWINS_015(change_lost_snapshot),
        TWINS_015(change_in_snapshot),
        TWINS_015(change_and_install),
        TWINS(pre_vote_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
