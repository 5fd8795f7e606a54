/* SPDX-License-Identifier: Apache-2.0 */
/* Each rule of the guard, and where it can be shown the same run without the guard: the bare library must go
 * wrong there. When a new libraft makes such a "bare" test fail, the hole is closed and the rule can go. */
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

#include "base/str.h"
#include "deadline.h"
#include "raft-cluster.h"

static struct cluster c;

/* ---- Figure 8 of the Raft paper ---- */

/* S1..S5 are servers 0..4. Afterwards S1 has applied X, and the others go on without S1 and S2. */
static void figure_8(bool guarded)
{
    cluster_init(&c, 5, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);

    /* (a) S1 leads and reaches only S2. */
    for (unsigned j = 2; j < 5; j++) {
        cluster_cut(&c, 0, j);
        cluster_cut(&c, 1, j);
    }
    assert_int_equal(cluster_apply(&c, 0, 'X'), 0);
    cluster_run(&c, 120);

    /* (b) S1 crashes; S5 leads by the votes of S3 and S4, and writes Y, which reaches nobody. */
    cluster_kill(&c, 0);
    assert_true(cluster_elect(&c, 4));
    cluster_isolate(&c, 4);
    cluster_apply(&c, 4, 'Y');
    cluster_run(&c, 60);

    /* (c) S5 crashes; S1 leads again by S2 and S3, and replicates X. Its own disk is slow now, so what the
     * others say about X comes before anything of its new term is stored. */
    cluster_kill(&c, 4);
    cluster_revive(&c, 0);
    cluster_isolate(&c, 3);
    cluster_heal(&c, 0, 1);
    cluster_heal(&c, 0, 2);
    cluster_heal(&c, 1, 2);
    raft_fixture_set_disk_latency(&c.fixture, 0, 200);
    cluster_run_until_state(&c, 0, RAFT_FOLLOWER);
    assert_true(cluster_elect(&c, 0));
    assert_true(cluster_run_until_applied(&c, 0, "X"));

    /* (d) S1 and S2 crash as soon as X is applied on S1; the others elect whom they can, who writes Z. */
    cluster_kill(&c, 0);
    cluster_kill(&c, 1);
    cluster_revive(&c, 4);
    cluster_heal(&c, 2, 3);
    cluster_heal(&c, 2, 4);
    cluster_heal(&c, 3, 4);
    cluster_run_until_state(&c, 4, RAFT_FOLLOWER);
    if (cluster_elect(&c, 4))
        cluster_apply(&c, 4, 'Z');
    else if (cluster_elect(&c, 2))
        cluster_apply(&c, 2, 'Z');
    cluster_run(&c, 3000);
}

static void guarded_figure_8(void **state)
{
    figure_8(true);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_ACK_BEFORE_BARRIER));
    assert_string_equal(cluster_applied(&c, 0), "X");
    assert_string_equal(cluster_applied(&c, 2), "XZ");
    assert_string_equal(cluster_applied(&c, 3), "XZ");
    cluster_done(&c);
}

static void bare_figure_8(void **state)
{
    figure_8(false);
    assert_string_equal(cluster_applied(&c, 0), "X");  /* Committed, told to the client, */
    assert_string_equal(cluster_applied(&c, 2), "YZ"); /* and gone. */
    cluster_done(&c);
}

/* ---- Acknowledgements of what was never compared ---- */

static void unchecked_ack(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);

    /* S1 gets a tail that nobody else has; longer than what S2 will write as a leader. */
    cluster_isolate(&c, 0);
    for (const char *p = "WX"; *p != '\0'; p++) {
        cluster_apply(&c, 0, *p);
        cluster_run(&c, 60);
    }

    /* S2 leads by the vote of S3, which is cut off then. S1 comes back and follows S2. */
    assert_true(cluster_elect(&c, 1));
    cluster_run(&c, 5);
    cluster_cut(&c, 1, 2);
    cluster_heal(&c, 0, 1);
    assert_true(cluster_run_until_follows(&c, 0, 1));

    /* While S1's acknowledgement is on its way, S2 writes Y. */
    cluster_apply(&c, 1, 'Y');
}

static void guarded_unchecked_ack(void **state)
{
    unchecked_ack(true);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_ACK_CLIPPED));
    assert_string_equal(cluster_applied(&c, 1), "");
    assert_true(cluster_run_until_applied(&c, 1, "Y")); /* When S1 really has it. */
    assert_true(cluster_run_until_applied(&c, 0, "Y"));
    cluster_done(&c);
}

static void bare_unchecked_ack(void **state)
{
    unchecked_ack(false);
    assert_true(cluster_run_until_applied(&c, 1, "Y")); /* Committed with the help of S1, */
    cluster_kill(&c, 1);
    cluster_heal(&c, 0, 2);
    assert_true(cluster_elect(&c, 0));
    cluster_apply(&c, 0, 'Z');
    cluster_run(&c, 1500);
    assert_string_equal(cluster_applied(&c, 0), "WXZ"); /* which never had it. */
    cluster_done(&c);
}

/* ---- Acknowledgements of an old leader's entries to a new one ---- */

static void outdated_ack(bool guarded)
{
    cluster_init(&c, 5, guarded);
    assert_true(cluster_elect(&c, 1));
    cluster_run(&c, 300);

    /* S2's X reaches only S1, whose disk takes its time. */
    raft_fixture_set_disk_latency(&c.fixture, 0, 2000);
    for (unsigned j = 2; j < 5; j++)
        cluster_cut(&c, 1, j);
    cluster_apply(&c, 1, 'X');
    cluster_run(&c, 60);
    cluster_kill(&c, 1);

    /* S3 leads; S1 hears of it, and nothing more. */
    assert_true(cluster_elect(&c, 2));
    cluster_cut(&c, 2, 4);
    assert_true(cluster_run_until_follows(&c, 0, 2));
    raft_fixture_saturate(&c.fixture, 2, 0);
    cluster_apply(&c, 2, 'Y');
    cluster_run(&c, 1500);
}

static void guarded_outdated_ack(void **state)
{
    outdated_ack(true);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_ACK_OUTDATED));
    assert_string_equal(cluster_applied(&c, 2), ""); /* Only S3 and S4 have it. */
    cluster_done(&c);
}

static void bare_outdated_ack(void **state)
{
    outdated_ack(false);
    assert_string_equal(cluster_applied(&c, 2), "Y"); /* Committed by S3, S4, and S1's word for X. */
    cluster_kill(&c, 2);
    cluster_kill(&c, 3);
    cluster_revive(&c, 1);
    cluster_heal(&c, 0, 1);
    cluster_heal(&c, 0, 4);
    assert_true(cluster_elect(&c, 0));
    cluster_apply(&c, 0, 'Z');
    cluster_run(&c, 5000);
    assert_string_equal(cluster_applied(&c, 0), "XZ");
    cluster_done(&c);
}

/* ---- The leader's commit index ---- */

/* S1 has a tail that nobody else has; then a leader of a later term tells how far it has committed, in a
 * message that carries fewer entries than that (as raftnet.h does when they do not fit). */
static void commit_beyond_message(bool guarded)
{
    struct raft_message message = {.type = RAFT_IO_APPEND_ENTRIES};
    raft_index last;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    last = raft_last_index(cluster_raft(&c, 0));
    cluster_isolate(&c, 0);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 60);

    message.append_entries.term = cluster_term(&c, 0) + 1;
    message.append_entries.prev_log_index = last;
    message.append_entries.prev_log_term = last == 1 ? 1 : cluster_term(&c, 0);
    message.append_entries.leader_commit = last + 1;
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_commit_beyond_message(void **state)
{
    commit_beyond_message(true);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_COMMIT_CLIPPED));
    assert_string_equal(cluster_applied(&c, 0), "");
    cluster_done(&c);
}

static void bare_commit_beyond_message(void **state)
{
    commit_beyond_message(false);
    assert_string_equal(cluster_applied(&c, 0), "X"); /* The leader meant another entry. */
    cluster_done(&c);
}

/* ---- Disks that fail ---- */

/* The write of X fails on follower S2, later ones do not. */
static void failed_append_follower(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 1);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 60);
    cluster_answer_writes(&c, 1, RAFT_NOSPACE);
    cluster_run(&c, 300);
    cluster_apply(&c, 0, 'Y');
    cluster_run(&c, 300);
    assert_string_equal(cluster_applied(&c, 0), "XY");

    cluster_restart(&c, 1);
    cluster_heal(&c, 0, 1);
    cluster_heal(&c, 1, 2);
    cluster_run(&c, 500);
    cluster_apply(&c, 0, 'Z');
    cluster_run(&c, 500);
    assert_string_equal(cluster_applied(&c, 0), "XYZ");
}

static void guarded_failed_append_follower(void **state)
{
    failed_append_follower(true);
    assert_int_equal(c.servers[1].fatals, 1);
    assert_string_equal(c.servers[1].fatal, "cannot write to the log");
    assert_int_equal(c.servers[1].fatal_status, RAFT_NOSPACE);
    assert_string_equal(cluster_applied(&c, 1), "XYZ");
    cluster_done(&c);
}

static void bare_failed_append_follower(void **state)
{
    failed_append_follower(false);
    assert_string_not_equal(cluster_applied(&c, 1), "XYZ"); /* Skipped X, and knows nothing of it. */
    cluster_done(&c);
}

/* The write of X fails on the leader, after X was sent. */
static void failed_append_leader(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 0);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 20);
    cluster_answer_writes(&c, 0, RAFT_IOERR);
    cluster_apply(&c, 0, 'Y');
    cluster_run(&c, 500);
}

static void guarded_failed_append_leader(void **state)
{
    failed_append_leader(true);
    assert_int_equal(c.servers[0].fatals, 1);
    assert_int_equal(c.servers[0].applies_done, 0); /* The outcome is unknown, and so it is told. */
    assert_false(guard_is_ready(&c.servers[0].guard));
    assert_true(cluster_elect(&c, 1));
    assert_true(cluster_run_until_applied(&c, 1, "X"));
    assert_true(cluster_run_until_applied(&c, 2, "X"));
    cluster_done(&c); /* The completion that was held is released. */
    assert_int_equal(c.servers[0].applies_done, RAFT_COMPAT_IS_015 ? 1 : 2); /* 0.15 took no Y. */
    assert_int_equal(c.servers[0].apply_status, RAFT_LEADERSHIPLOST);
}

static void bare_failed_append_leader(void **state)
{
    failed_append_leader(false);
    assert_string_equal(cluster_applied(&c, 0), "Y"); /* Two entries with one index and term. */
    assert_string_equal(cluster_applied(&c, 1), "X");
    cluster_done(&c);
}

/* The disk refuses at once. */
static void refused_append(bool guarded)
{
    struct raft_message message;

    cluster_init(&c, 3, guarded);
    message = cluster_append_message(2, 1, 1, 1, 8);
    c.servers[0].refuses_append = true;
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_refused_append(void **state)
{
    refused_append(true);
    assert_int_equal(c.servers[0].fatals, 1);
    assert_int_equal(c.servers[0].fatal_status, RAFT_IOERR);
    cluster_done(&c);
}

/* The library is inert then, and the process does not notice. */
static void assert_inert(unsigned i)
{
    assert_int_equal(raft_state(cluster_raft(&c, i)), RAFT_UNAVAILABLE);
    cluster_done(&c);
}

static void bare_refused_append(void **state)
{
    refused_append(false);
    assert_inert(0);
}

static void failed_term(bool guarded)
{
    struct raft_message message = cluster_vote_message(2, 1, 1, 1, false);

    cluster_init(&c, 3, guarded);
    raft_fixture_io_fault(&c.fixture, 0, 0, 1);
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_failed_term(void **state)
{
    failed_term(true);
    assert_int_equal(c.servers[0].fatals, 1);
    assert_string_equal(c.servers[0].fatal, "cannot store the term");
    cluster_done(&c);
}

static void bare_failed_term(void **state)
{
    failed_term(false);
    assert_inert(0);
}

static void failed_vote(bool guarded)
{
    struct raft_message message = cluster_vote_message(2, 1, 1, 1, false);

    cluster_init(&c, 3, guarded);
    raft_fixture_io_fault(&c.fixture, 0, 1, 1);
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_failed_vote(void **state)
{
    failed_vote(true);
    assert_int_equal(c.servers[0].fatals, 1);
    assert_string_equal(c.servers[0].fatal, "cannot store the vote");
    cluster_done(&c);
}

static void bare_failed_vote(void **state)
{
    failed_vote(false);
    assert_inert(0);
}

/* What the guard can not see coming: here, a message that contradicts what is committed. (0.22 never gives
 * up, and frees this one's entries twice.) */
static void guarded_unavailable(void **state)
{
    struct raft_message message;

    cluster_init(&c, 3, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    message = cluster_append_message(cluster_term(&c, 0) + 1, 1, 2, 1, 8);
    cluster_receive(&c, 2, 1, &message);
    assert_int_equal(c.servers[1].fatals, 1);
    assert_string_equal(c.servers[1].fatal, "raft gave up");
    assert_int_equal(c.servers[1].role, RAFT_UNAVAILABLE);
    cluster_done(&c);
}

/* After on_fatal nothing comes in and nothing goes out. */
static void guarded_dead_is_deaf_and_mute(void **state)
{
    struct raft_message message;
    raft_term term;

    cluster_init(&c, 3, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 0);
    cluster_apply(&c, 0, 'X');
    cluster_apply(&c, 0, 'Y');
    cluster_answer_writes(&c, 0, RAFT_IOERR); /* Both fail. */
    term = cluster_term(&c, 0);
    memset(&c.servers[0].sent, 0, sizeof c.servers[0].sent);

    message = cluster_append_message(term + 1, 1, 1, 1, 8);
    cluster_receive(&c, 1, 0, &message);
    message = cluster_snapshot_message(&c, term + 1, 10, 1, "A");
    cluster_receive(&c, 1, 0, &message);
    assert_int_equal(cluster_apply(&c, 0, 'Z') == 0, !RAFT_COMPAT_IS_015); /* 0.22 never answers. */
    cluster_run(&c, 5000);
    assert_int_equal(cluster_term(&c, 0), term);
    assert_int_equal(c.servers[0].sent.type, 0);
    assert_int_equal(c.servers[0].fatals, 1);
    cluster_done(&c);
}

/* ---- Installing a snapshot ---- */

#define SNAPSHOT_INDEX 10

static void begin_install(bool guarded)
{
    struct raft_message message;

    cluster_init(&c, 3, guarded);
    message = cluster_snapshot_message(&c, 2, SNAPSHOT_INDEX, 1, "ABC");
    cluster_catch_writes(&c, 1);
    cluster_receive(&c, 0, 1, &message);
    assert_int_equal(c.servers[1].caught_count, 1);
}

/* The write of the snapshot fails; then the leader sends it again. */
static void failed_install(bool guarded)
{
    struct raft_message message;

    begin_install(guarded);
    cluster_answer_writes(&c, 1, RAFT_NOSPACE);
    message = cluster_snapshot_message(&c, 2, SNAPSHOT_INDEX, 1, "ABC");
    cluster_receive(&c, 0, 1, &message);
}

static void guarded_failed_install(void **state)
{
    failed_install(true);
    assert_int_equal(c.servers[1].fatals, 1);
    assert_string_equal(c.servers[1].fatal, "cannot write the leader's snapshot");
    assert_int_equal(c.servers[1].ack.last_log_index, 0);
    assert_int_equal(guard_stored(&c.servers[1].guard).index, 1);
    cluster_done(&c);
}

static void bare_failed_install(void **state)
{
    failed_install(false);
    assert_int_equal(c.servers[1].ack.rejected, 0); /* "I have it", */
    assert_int_equal(c.servers[1].ack.last_log_index, SNAPSHOT_INDEX);
    assert_string_equal(cluster_applied(&c, 1), ""); /* and has nothing. */
    cluster_done(&c);
}

static void failed_restore(bool guarded)
{
    struct raft_message message;

    begin_install(guarded);
    c.servers[1].fails_restore = true;
    cluster_answer_writes(&c, 1, 0);
    message = cluster_snapshot_message(&c, 2, SNAPSHOT_INDEX, 1, "ABC");
    cluster_receive(&c, 0, 1, &message);
}

static void guarded_failed_restore(void **state)
{
    failed_restore(true);
    assert_int_equal(c.servers[1].fatals, 1);
    assert_string_equal(c.servers[1].fatal, "cannot restore the leader's snapshot");
    cluster_done(&c);
}

static void bare_failed_restore(void **state)
{
    failed_restore(false);
    assert_int_equal(c.servers[1].ack.last_log_index, SNAPSHOT_INDEX);
    assert_string_equal(cluster_applied(&c, 1), "");
    cluster_done(&c);
}

static void vote_while_installing(bool guarded)
{
    struct raft_message message = cluster_vote_message(3, 2, SNAPSHOT_INDEX, 2, true);

    begin_install(guarded);
    cluster_receive(&c, 2, 1, &message);
}

static void guarded_vote_while_installing(void **state)
{
    vote_while_installing(true);
    assert_true(cluster_has_held(&c, 1, GUARD_RULE_VOTE_WHILE_INSTALLING));
    assert_false(c.servers[1].vote.vote_granted);
    cluster_answer_writes(&c, 1, 0);
    assert_string_equal(cluster_applied(&c, 1), "ABC");
    assert_int_equal(guard_stored(&c.servers[1].guard).index, SNAPSHOT_INDEX);
    cluster_done(&c);
}

static void bare_vote_while_installing(void **state)
{
    vote_while_installing(false);
    assert_true(c.servers[1].vote.vote_granted);
    cluster_answer_writes(&c, 1, 0);
    cluster_done(&c);
}

static void election_while_installing(bool guarded)
{
    begin_install(guarded);
    c.favourite = 1;
    cluster_isolate(&c, 1);
    cluster_run(&c, 3000);
}

static void guarded_election_while_installing(void **state)
{
    election_while_installing(true);
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_FOLLOWER);
    assert_true(cluster_has_held(&c, 1, GUARD_RULE_ELECTION_HELD));
    cluster_answer_writes(&c, 1, 0);
    assert_true(cluster_run_until_state(&c, 1, RAFT_CANDIDATE));
    cluster_done(&c);
}

static void bare_election_while_installing(void **state)
{
    election_while_installing(false);
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_CANDIDATE);
    cluster_done(&c);
}

/* ---- Campaigns with a log that is not on the disk ---- */

static void begin_slow_write(bool guarded)
{
    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 1);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 60);
    assert_int_equal(c.servers[1].caught_count, 1);
}

static void election_while_writing(bool guarded)
{
    begin_slow_write(guarded);
    c.favourite = 1;
    cluster_kill(&c, 0);
    cluster_run(&c, 3000);
}

static void guarded_election_while_writing(void **state)
{
    election_while_writing(true);
    assert_true(cluster_has_held(&c, 1, GUARD_RULE_ELECTION_HELD));
    assert_true(guard_is_writing(&c.servers[1].guard));
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_FOLLOWER);
    cluster_answer_writes(&c, 1, 0);
    assert_false(guard_is_writing(&c.servers[1].guard));
    assert_true(cluster_elect(&c, 1));
    cluster_done(&c);
}

static void bare_election_while_writing(void **state)
{
    election_while_writing(false);
    assert_int_not_equal(raft_state(cluster_raft(&c, 1)), RAFT_FOLLOWER);
    cluster_answer_writes(&c, 1, 0);
    cluster_done(&c);
}

static void timeout_now_while_writing(bool guarded)
{
    struct raft_message message = {.type = RAFT_IO_TIMEOUT_NOW};

    begin_slow_write(guarded);
    message.timeout_now.term = cluster_term(&c, 0);
    message.timeout_now.last_log_index = raft_last_index(cluster_raft(&c, 0));
    message.timeout_now.last_log_term = cluster_term(&c, 0);
    cluster_receive(&c, 0, 1, &message);
}

static void guarded_timeout_now_while_writing(void **state)
{
    timeout_now_while_writing(true);
    assert_true(cluster_has_held(&c, 1, GUARD_RULE_TIMEOUT_NOW_HELD));
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_FOLLOWER);
    cluster_done(&c);
}

static void bare_timeout_now_while_writing(void **state)
{
    timeout_now_while_writing(false);
    assert_int_equal(raft_state(cluster_raft(&c, 1)), RAFT_CANDIDATE);
    cluster_answer_writes(&c, 1, 0);
    cluster_done(&c);
}

/* ---- Leadership transfer ---- */

/* S1 hands over to S2, which does not hear of it yet; meanwhile S3 asks for a vote, and then S2. */
static void vote_for_transferee(bool guarded)
{
    static struct raft_transfer transfer;
    struct raft_message message;
    raft_index last;
    raft_term term;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    last = raft_last_index(cluster_raft(&c, 0));
    term = cluster_term(&c, 0);
    cluster_isolate(&c, 0);
    assert_int_equal(raft_transfer(cluster_raft(&c, 0), &transfer, 2, NULL), 0);

    message = cluster_vote_message(term + 1, 2, last, term, true);
    cluster_receive(&c, 2, 0, &message);
    assert_true(c.servers[0].vote.vote_granted);
    c.servers[0].vote.vote_granted = false;
    message = cluster_vote_message(term + 1, 1, last, term, true);
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_vote_for_transferee(void **state)
{
    vote_for_transferee(true);
    assert_true(cluster_has_held(&c, 0, GUARD_RULE_SECOND_VOTE));
    assert_false(c.servers[0].vote.vote_granted);
    assert_int_equal(raft_fixture_voted_for(&c.fixture, 0), 3);
    cluster_done(&c);
}

static void bare_vote_for_transferee(void **state)
{
    vote_for_transferee(false);
    assert_true(c.servers[0].vote.vote_granted); /* The second one in this term. */
    assert_int_equal(raft_fixture_voted_for(&c.fixture, 0), 2);
    cluster_done(&c);
}

/* Returns whether the request that goes to the network is a part of what the user may free. */
static bool transfer_lends_request(bool guarded)
{
    static struct raft_transfer transfer;
    bool lends;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    assert_int_equal(raft_transfer(cluster_raft(&c, 0), &transfer, 2, NULL), 0);
    assert_int_equal(c.servers[0].sent.type, RAFT_IO_TIMEOUT_NOW);
    lends = c.servers[0].sent_request == &transfer.send;
    c.favourite = 1;
    assert_true(cluster_run_until_state(&c, 1, RAFT_LEADER));
    cluster_run(&c, 1500);
    cluster_done(&c);
    return lends;
}

static void guarded_transfer(void **state)
{
    assert_false(transfer_lends_request(true));
}

static void bare_transfer(void **state)
{
    assert_true(transfer_lends_request(false));
}

/* ---- Answers that can not be sent ---- */

static void failed_answer(bool guarded)
{
    struct raft_message message = cluster_vote_message(2, 1, 1, 1, false);

    cluster_init(&c, 3, guarded);
    raft_fixture_io_fault(&c.fixture, 0, 2, 1); /* Term and vote, then the answer. */
    cluster_receive(&c, 1, 0, &message);
}

static void guarded_failed_answer(void **state)
{
    failed_answer(true);
    assert_int_equal(cluster_fired(&c, 0, GUARD_RULE_SEND_FAILED), 1);
    assert_int_equal(raft_state(cluster_raft(&c, 0)), RAFT_FOLLOWER);
    assert_int_equal(c.servers[0].fatals, 0);
    cluster_done(&c);
}

static void bare_failed_answer(void **state)
{
    failed_answer(false);
    assert_inert(0);
}

/* The entries of a message whose answer fails are freed once. (Bare, twice: undefined, so no twin.) */
static void guarded_failed_ack(void **state)
{
    struct raft_message message;

    cluster_init(&c, 3, true);
    message = cluster_append_message(2, 5, 1, 1, 8); /* There is no entry 5: rejected at once. */
    /* The term (and with it, on 0.22, the vote), then the answer. */
    raft_fixture_io_fault(&c.fixture, 0, RAFT_COMPAT_IS_015 ? 1 : 2, 1);
    cluster_receive(&c, 1, 0, &message);
    assert_int_equal(c.servers[0].ack.rejected, 5);
    assert_int_equal(cluster_fired(&c, 0, GUARD_RULE_SEND_FAILED), 1);
    assert_int_equal(raft_state(cluster_raft(&c, 0)), RAFT_FOLLOWER);
    cluster_done(&c);
}

/* ---- The start of leadership ---- */

static void guarded_roles_are_told(void **state)
{
    struct cluster_server *server = &c.servers[0];
    raft_term term;

    cluster_init(&c, 3, true);
    guard_observe(&server->guard); /* As after raft_start(). */
    assert_int_equal(server->role, RAFT_FOLLOWER);
    assert_true(cluster_elect(&c, 0));
    assert_int_equal(server->role, RAFT_LEADER);
    assert_false(guard_is_ready(&server->guard)); /* The barrier is on its way. */
    assert_int_equal(server->readies, 0);
    cluster_run(&c, 300);
    term = cluster_term(&c, 0);
    assert_true(guard_is_ready(&server->guard));
    assert_int_equal(server->ready_term, term);

    cluster_isolate(&c, 0);
    assert_true(cluster_run_until_state(&c, 0, RAFT_FOLLOWER));
    assert_int_equal(server->role, RAFT_FOLLOWER);
    assert_false(guard_is_ready(&server->guard));
    cluster_heal(&c, 0, 1);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    assert_int_equal(server->readies, 2);
    assert_true(server->ready_term > term);
    cluster_done(&c);
    assert_int_equal(server->role, RAFT_UNAVAILABLE);
}

/* While a transfer of an earlier leadership is pending, raft takes no barrier. */
static void guarded_barrier_is_retried(void **state)
{
    static struct raft_transfer transfer;
    struct cluster_server *server = &c.servers[0];

    cluster_init(&c, 3, true);
    c.favourite = 0;
    assert_true(cluster_run_until_state(&c, 0, RAFT_CANDIDATE));
    transfer = (struct raft_transfer){.id = 3, .start = raft_fixture_time(&c.fixture)};
    cluster_raft(&c, 0)->transfer = &transfer;
    assert_true(cluster_run_until_state(&c, 0, RAFT_LEADER));
    cluster_run(&c, 500);
    assert_true(cluster_fired(&c, 0, GUARD_RULE_BARRIER_RETRIED) > 1);
    assert_true(cluster_fired(&c, 0, GUARD_RULE_ACK_BEFORE_BARRIER) > 0);
    assert_false(guard_is_ready(&server->guard));
    cluster_run(&c, 1000); /* The transfer has ended. */
    assert_true(guard_is_ready(&server->guard));
    assert_int_equal(server->readies, 1);
    cluster_done(&c);
}

/* ---- What is on the disk ---- */

static void assert_stored(unsigned i, raft_index index, raft_term term)
{
    struct guard_position stored = guard_stored(&c.servers[i].guard);

    assert_int_equal(stored.index, index);
    assert_int_equal(stored.term, term);
}

static void guarded_stored_position(void **state)
{
    raft_index last;
    raft_term term;

    cluster_init(&c, 3, true);
    assert_stored(0, 1, 1); /* The bootstrap's configuration. */
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    term = cluster_term(&c, 0);
    cluster_catch_writes(&c, 1);
    cluster_apply(&c, 0, 'X');
    cluster_run(&c, 60);
    last = raft_last_index(cluster_raft(&c, 0));
    assert_stored(0, last, term);
    assert_stored(1, last - 1, term); /* Not before it is there. */
    cluster_answer_writes(&c, 1, 0);
    assert_stored(1, last, term);

    /* S1 gets a tail, and loses it to S3. */
    cluster_isolate(&c, 0);
    cluster_apply(&c, 0, 'Y');
    cluster_apply(&c, 0, 'Z');
    cluster_run(&c, 60);
    assert_stored(0, last + 2, term);
    assert_true(cluster_elect(&c, 2));
    cluster_heal(&c, 0, 2);
    assert_true(cluster_run_until_follows(&c, 0, 2));
    cluster_run(&c, 300);
    last = raft_last_index(cluster_raft(&c, 2)); /* Its barrier, and maybe one of 0.22's own. */
    assert_stored(0, last, cluster_term(&c, 2));

    cluster_restart(&c, 0);
    assert_stored(0, last, cluster_term(&c, 2));
    cluster_done(&c);
}

/* ---- Own mistakes, and the end: in a child process ---- */

static bool dies(void (*function)(void))
{
    static const struct rlimit none = {0, 0};
    bool survived;
    int fds[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        alarm(DEADLINE_MS / 1000); /* Running wild is dying. */
        function();
        _exit(write(fds[1], "", 1) != 1);
    }
    close(fds[1]);
    survived = read(fds[0], &byte, 1) == 1;
    close(fds[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return !survived;
}

static void apply_odd_command(void)
{
    struct raft_buffer buffer = {.base = raft_calloc(1, 16), .len = 13};
    static struct raft_apply request;

    cluster_init(&c, 3, c.guarded);
    cluster_elect(&c, 0);
    raft_apply(cluster_raft(&c, 0), &request, &buffer, 1, NULL);
}

static void guarded_odd_command(void **state)
{
    c.guarded = true;
    assert_true(dies(apply_odd_command));
}

static void bare_odd_command(void **state)
{
    c.guarded = false;
    assert_false(dies(apply_odd_command));
}

/* A leader closes while two writes are on their way; the disk answers that they were cancelled. */
static void close_while_writing(void)
{
    cluster_init(&c, 3, c.guarded);
    cluster_elect(&c, 0);
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 0);
    cluster_apply(&c, 0, 'X');
    cluster_apply(&c, 0, 'Y');
    cluster_done(&c);
}

static void guarded_close_while_writing(void **state)
{
    c.guarded = true;
    assert_false(dies(close_while_writing));
    close_while_writing();
    assert_int_equal(c.servers[0].applies_done, 2);
    assert_int_equal(c.servers[0].apply_status, RAFT_LEADERSHIPLOST);
}

static void bare_close_while_writing(void **state)
{
    c.guarded = false;
    assert_true(dies(close_while_writing));
}

/* One that was removed while it was away: it keeps quiet, until a leader has a part for it again. */
static void test_retired(void **state)
{
    cluster_init(&c, 3, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    guard_retire(&c.servers[1].guard);
    cluster_cut(&c, 0, 1);
    assert_false(cluster_elect(&c, 1));
    assert_true(cluster_fired(&c, 1, GUARD_RULE_RETIRED) > 0);
    assert_true(cluster_elect(&c, 0) || cluster_leads(&c, 0));

    cluster_heal(&c, 0, 1);
    assert_true(cluster_run_until_follows(&c, 1, 0));
    cluster_cut(&c, 0, 1);
    cluster_cut(&c, 0, 2);
    assert_true(cluster_elect(&c, 1));
    cluster_done(&c);
}

/* ---- Members that change while servers are lost ---- */

/* S1 alone votes, and makes a voter of S2, which does not hear of it. S1 gives up its lead then: it needs
 * S2's vote, which is no voter by its own log, and 'restarted' or still thinks that S1 leads. */
static void promotion_unheard(bool guarded, bool restarted)
{
    cluster_init_voters(&c, 2, 1, guarded);
    c.anybody = true;
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_cut(&c, 0, 1);
    assert_int_equal(cluster_assign(&c, 0, 1, RAFT_VOTER), 0);
    assert_true(cluster_run_until_state(&c, 0, RAFT_FOLLOWER));
    if (restarted)
        cluster_restart(&c, 1);
    cluster_heal(&c, 0, 1);
}

static void guarded_promotion_unheard(void **state)
{
    promotion_unheard(true, false);
    assert_true(cluster_run_until_state(&c, 0, RAFT_LEADER));
    assert_true(cluster_fired(&c, 1, GUARD_RULE_LEADER_FORGOTTEN) > 0);
    assert_true(cluster_fired(&c, 1, GUARD_RULE_VOTE_LENT) > 0);
    assert_int_equal(raft_fixture_voted_for(&c.fixture, 1), 1); /* As if it had always been a voter. */
    assert_true(cluster_run_until_follows(&c, 1, 0));
    cluster_apply(&c, 0, 'X');
    assert_true(cluster_run_until_applied(&c, 1, "X"));
    assert_int_equal(cluster_raft(&c, 1)->configuration.servers[1].role, RAFT_VOTER);
    cluster_done(&c);
}

static void bare_promotion_unheard(void **state)
{
    promotion_unheard(false, false);
    assert_false(cluster_run_until_state(&c, 0, RAFT_LEADER));
    cluster_done(&c);
}

static void guarded_promotion_unheard_restart(void **state)
{
    promotion_unheard(true, true);
    assert_true(cluster_run_until_state(&c, 0, RAFT_LEADER));
    assert_true(cluster_fired(&c, 1, GUARD_RULE_VOTE_LENT) > 0);
    cluster_done(&c);
}

static void bare_promotion_unheard_restart(void **state)
{
    promotion_unheard(false, true);
    assert_false(cluster_run_until_state(&c, 0, RAFT_LEADER));
    cluster_done(&c);
}

/* A vote that is lent is given once in a term, only to a log that is as long as ours, and leaves nothing
 * behind. */
static void test_lent_vote(void **state)
{
    struct raft_message message;
    raft_index last;
    raft_term term;

    cluster_init_voters(&c, 4, 3, true);
    c.anybody = true;
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_isolate(&c, 3);
    last = raft_last_index(cluster_raft(&c, 3));
    term = cluster_term(&c, 3);

    message = cluster_vote_message(term + 1, 1, last, term, false);
    cluster_receive(&c, 1, 3, &message);
    assert_false(c.servers[3].vote.vote_granted); /* It has a leader. */
    cluster_run(&c, 2500);
    assert_true(cluster_fired(&c, 3, GUARD_RULE_LEADER_FORGOTTEN) == 1);

    message = cluster_vote_message(term + 1, 1, last - 1, term, false);
    cluster_receive(&c, 1, 3, &message);
    assert_false(c.servers[3].vote.vote_granted);
    message = cluster_vote_message(term + 1, 1, last, term, false);
    cluster_receive(&c, 1, 3, &message);
    assert_true(c.servers[3].vote.vote_granted);
    message = cluster_vote_message(term + 1, 2, last, term, false);
    cluster_receive(&c, 2, 3, &message);
    assert_false(c.servers[3].vote.vote_granted);

    assert_int_equal(cluster_raft(&c, 3)->configuration.servers[3].role, RAFT_STANDBY);
    cluster_run(&c, 5000);
    assert_int_equal(raft_state(cluster_raft(&c, 3)), RAFT_FOLLOWER); /* It does not campaign. */
    cluster_done(&c);
}

/* S1 and S2 vote; S1 makes a standby of S2, and crashes before that is on its own disk. If S2 had it, it
 * would not campaign, nor vote for S1, whose log is shorter. */
static void demotion_not_written(bool guarded)
{
    cluster_init(&c, 2, guarded);
    c.anybody = true;
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    cluster_catch_writes(&c, 0);
    assert_int_equal(cluster_assign(&c, 0, 1, RAFT_STANDBY), 0);
    cluster_run(&c, 300);
    cluster_kill(&c, 0);
    cluster_answer_writes(&c, 0, 0); /* That is what it believes; it is not so. */
    cluster_restart(&c, 0);
    cluster_heal(&c, 0, 1);
    cluster_run(&c, 10000);
}

static void guarded_demotion_not_written(void **state)
{
    demotion_not_written(true);
    assert_true(cluster_leads(&c, 0) || cluster_leads(&c, 1));
    cluster_done(&c);
}

static void bare_demotion_not_written(void **state)
{
    demotion_not_written(false);
    assert_false(cluster_leads(&c, 0) || cluster_leads(&c, 1));
    cluster_done(&c);
}

/* What is held goes as soon as it is on the disk, and the follower has its heartbeats meanwhile. */
static void test_held_change(void **state)
{
    cluster_init(&c, 3, true);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    raft_fixture_set_disk_latency(&c.fixture, 0, 3000);
    c.anybody = true;
    assert_int_equal(cluster_assign(&c, 0, 1, RAFT_STANDBY), 0);
    cluster_run(&c, 2500);
    assert_true(cluster_fired(&c, 0, GUARD_RULE_CHANGE_HELD) > 0);
    assert_true(cluster_leads(&c, 0));
    assert_int_equal(cluster_raft(&c, 1)->configuration.servers[1].role, RAFT_VOTER);
    cluster_run(&c, 1500);
    assert_true(cluster_leads(&c, 0));
    assert_int_equal(cluster_raft(&c, 1)->configuration.servers[1].role, RAFT_STANDBY);
    cluster_done(&c);
}

static void test_rules_have_names(void **state)
{
    for (unsigned i = 0; i < GUARD_RULE_COUNT; i++)
        assert_non_null(guard_rule_name(i));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TWINS_015(figure_8),
        TWINS_015(unchecked_ack),
        TWINS_015(outdated_ack),
        TWINS_015(commit_beyond_message),
        TWINS_015(failed_append_follower),
        TWINS_015(failed_append_leader),
        TWINS_015(refused_append),
        TWINS_015(failed_term),
        TWINS_015(failed_vote),
        CLUSTER_ON_015("guarded_unavailable", guarded_unavailable),
        cmocka_unit_test(guarded_dead_is_deaf_and_mute),
        TWINS_015(failed_install),
        TWINS(failed_restore),
        TWINS_015(vote_while_installing),
        TWINS_015(election_while_installing),
        TWINS_015(election_while_writing),
        TWINS_015(timeout_now_while_writing),
        TWINS_015(vote_for_transferee),
        TWINS_015(transfer),
        TWINS_015(failed_answer),
        cmocka_unit_test(guarded_failed_ack),
        cmocka_unit_test(guarded_roles_are_told),
        CLUSTER_ON_015("guarded_barrier_is_retried", guarded_barrier_is_retried),
        cmocka_unit_test(guarded_stored_position),
        TWINS(odd_command),
        TWINS_015(close_while_writing),
        cmocka_unit_test(test_retired),
        TWINS(promotion_unheard),
        TWINS(promotion_unheard_restart),
        cmocka_unit_test(test_lent_vote),
        TWINS(demotion_not_written),
        cmocka_unit_test(test_held_change),
        cmocka_unit_test(test_rules_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
