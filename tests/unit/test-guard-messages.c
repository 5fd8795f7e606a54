/* SPDX-License-Identifier: Apache-2.0 */
/* The guard against messages that no correct peer sends. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "raft-cluster.h"
#include "raftstore/guard_message.h"

#define SNAPSHOT_INDEX 10

static struct cluster c;

/* Each case is a change of a proper message; S3 receives it from S2 while S1 leads. */
enum fault {
    FAULT_NONE,
    FAULT_TYPE,
    FAULT_FROM_NOBODY,
    FAULT_FROM_ITSELF,
    FAULT_NO_TERM,
    FAULT_ENTRIES_MISSING,
    FAULT_INDEX_OVERFLOW,
    FAULT_PREV_TERM,
    FAULT_ENTRY_TYPE,
    FAULT_ENTRY_TERM,
    FAULT_ENTRY_NO_TERM,
    FAULT_ENTRY_DATA,
    FAULT_COUNT,
};

static struct raft_message faulty_append(enum fault fault)
{
    struct raft_message message =
        cluster_append_message(9, raft_last_index(cluster_raft(&c, 2)), cluster_term(&c, 2), 1, 8);
    struct raft_append_entries *append = &message.append_entries;
    struct raft_entry *entry = &append->entries[0];

    switch (fault) {
    case FAULT_NO_TERM: append->term = 0; break;
    case FAULT_ENTRIES_MISSING:
        raft_free(entry->batch);
        raft_free(append->entries);
        append->entries = NULL;
        break;
    case FAULT_INDEX_OVERFLOW: append->prev_log_index = UINT64_MAX - 1; break;
    case FAULT_PREV_TERM: append->prev_log_term = 10; break;
    case FAULT_ENTRY_TYPE: entry->type = 4; break;
    case FAULT_ENTRY_TERM: entry->term = 10; break;
    case FAULT_ENTRY_NO_TERM: entry->term = 0; break;
    case FAULT_ENTRY_DATA: entry->buf.base = NULL; break;
    case FAULT_TYPE:
        guard_message_drop(&message);
        message.type = 7;
        break;
    default: break;
    }
    return message;
}

static void guarded_malformed_append(void **state)
{
    for (enum fault fault = FAULT_NONE; fault < FAULT_COUNT; fault++) {
        struct raft_message message;
        raft_term term;

        cluster_init(&c, 3, true);
        assert_true(cluster_elect(&c, 0));
        cluster_run(&c, 300);
        message = faulty_append(fault);
        term = cluster_term(&c, 2);
        if (fault == FAULT_FROM_NOBODY)
            cluster_receive(&c, (unsigned)-1, 2, &message);
        else
            cluster_receive(&c, fault == FAULT_FROM_ITSELF ? 2 : 1, 2, &message);
        assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_MALFORMED), fault == FAULT_NONE ? 0 : 1);
        assert_int_equal(c.servers[2].refusals, fault == FAULT_NONE ? 0 : 1);
        assert_int_equal(cluster_term(&c, 2), fault == FAULT_NONE ? 9 : term);
        cluster_kill(&c, 2); /* In term 9; the others know nothing of it. */
        cluster_done(&c);
    }
}

static void guarded_malformed_snapshot(void **state)
{
    for (int fault = 0; fault < 7; fault++) {
        struct raft_message message;
        struct raft_install_snapshot *snapshot = &message.install_snapshot;

        cluster_init(&c, 3, true);
        message = cluster_snapshot_message(&c, 2, SNAPSHOT_INDEX, 1, "ABC");
        switch (fault) {
        case 1:
            raft_free(snapshot->data.base);
            snapshot->data.base = NULL;
            break;
        case 2: snapshot->data.len = 0; break;
        case 3: snapshot->last_index = 0; break;
        case 4: snapshot->last_term = 3; break;
        case 5:
            raft_configuration_close(&snapshot->conf);
            raft_configuration_init(&snapshot->conf);
            break;
        case 6: snapshot->conf_index = SNAPSHOT_INDEX + 1; break;
        }
        cluster_receive(&c, 1, 2, &message);
        cluster_run(&c, 60);
        assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_MALFORMED), fault == 0 ? 0 : 1);
        assert_string_equal(cluster_applied(&c, 2), fault == 0 ? "ABC" : "");
        cluster_done(&c);
    }
}

static void guarded_malformed_vote(void **state)
{
    struct raft_message message;

    cluster_init(&c, 3, true);
    message = cluster_vote_message(2, 0, 1, 1, false);
    cluster_receive(&c, 1, 2, &message); /* For another candidate than the sender. */
    message = cluster_vote_message(2, 1, 1, 2, false);
    cluster_receive(&c, 1, 2, &message); /* With a log of the term that only begins. */
    assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_MALFORMED), 2);
    assert_int_equal(cluster_term(&c, 2), 1);
    cluster_done(&c);
}

static void term_jump(bool guarded)
{
    struct raft_message message = cluster_vote_message(UINT64_C(1) << 40, 1, 1, 1, true);

    cluster_init(&c, 3, guarded);
    cluster_receive(&c, 1, 2, &message);
}

static void guarded_term_jump(void **state)
{
    struct raft_message message;

    term_jump(true);
    assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_TERM_JUMP), 1);
    assert_int_equal(cluster_term(&c, 2), 1);
    message = cluster_vote_message(1 + (UINT64_C(1) << 32), 1, 1, 1, true); /* Just not absurd. */
    cluster_receive(&c, 1, 2, &message);
    assert_int_equal(cluster_term(&c, 2), 1 + (UINT64_C(1) << 32));
    cluster_done(&c);
}

static void bare_term_jump(void **state)
{
    term_jump(false);
    assert_int_equal(cluster_term(&c, 2), UINT64_C(1) << 40);
    cluster_done(&c);
}

/* Whom S3 takes for the leader after S2 claimed to lead in S1's term. */
static raft_id second_leader(bool guarded)
{
    struct raft_message message = {.type = RAFT_IO_APPEND_ENTRIES};
    const char *address;
    raft_id id;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    message.append_entries.term = cluster_term(&c, 0);
    message.append_entries.prev_log_index = message.append_entries.prev_log_term = 1;
    cluster_receive(&c, 1, 2, &message);
    raft_leader(cluster_raft(&c, 2), &id, &address);
    return id;
}

static void guarded_second_leader(void **state)
{
    struct raft_message message = {.type = RAFT_IO_APPEND_ENTRIES};

    assert_int_equal(second_leader(true), 1);
    assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_TWO_LEADERS), 1);
    /* The leader itself hears of another one. (Bare, this writes through a wrong union member.) */
    message.append_entries.term = cluster_term(&c, 0);
    cluster_receive(&c, 1, 0, &message);
    assert_int_equal(cluster_fired(&c, 0, GUARD_RULE_TWO_LEADERS), 1);
    assert_true(cluster_leads(&c, 0));
    /* Of a later term it is a proper one. */
    message.append_entries.term++;
    message.append_entries.prev_log_index = message.append_entries.prev_log_term = 1;
    cluster_receive(&c, 1, 0, &message);
    assert_false(cluster_leads(&c, 0));
    cluster_done(&c);
}

static void bare_second_leader(void **state)
{
    assert_int_equal(second_leader(false), 2);
    cluster_done(&c);
}

/* A server that is not in the configuration asks for votes with the disrupt flag. */
static void stranger_vote(bool guarded)
{
    struct raft_message message;

    cluster_init(&c, 3, guarded);
    assert_true(cluster_elect(&c, 0));
    cluster_run(&c, 300);
    message = cluster_vote_message(cluster_term(&c, 2) + 1, 7, 100, cluster_term(&c, 2), true);
    cluster_receive(&c, 7, 2, &message);
    message = cluster_vote_message(cluster_term(&c, 0) + 1, 7, 100, cluster_term(&c, 0), true);
    cluster_receive(&c, 7, 0, &message);
}

static void guarded_stranger_vote(void **state)
{
    struct raft_message message;

    stranger_vote(true);
    assert_int_equal(cluster_fired(&c, 0, GUARD_RULE_STRANGER_VOTE), 1);
    assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_STRANGER_VOTE), 1);
    assert_true(cluster_leads(&c, 0));

    /* Without a leader it may be we who lag behind: then it gets its vote. */
    cluster_kill(&c, 0);
    cluster_raft(&c, 2)->follower_state.current_leader.id = 0;
    message = cluster_vote_message(cluster_term(&c, 2) + 1, 7, 100, cluster_term(&c, 2), false);
    cluster_receive(&c, 7, 2, &message);
    assert_true(c.servers[2].vote.vote_granted);
    cluster_done(&c);
}

static void bare_stranger_vote(void **state)
{
    stranger_vote(false);
    assert_false(cluster_leads(&c, 0));
    cluster_done(&c);
}

/* (What becomes of it at the next start is in test-guard-disk.c.) */
static void odd_entry(bool guarded)
{
    struct raft_message message = cluster_append_message(2, 1, 1, 1, 13);

    cluster_init(&c, 3, guarded);
    cluster_receive(&c, 1, 2, &message);
}

static void guarded_odd_entry(void **state)
{
    struct raft_message message = cluster_append_message(2, 1, 1, 1, 0);

    odd_entry(true);
    cluster_receive(&c, 1, 2, &message);
    assert_int_equal(cluster_fired(&c, 2, GUARD_RULE_ENTRY_LENGTH), 2);
    assert_int_equal(c.servers[2].refusals, 2);
    assert_int_equal(raft_last_index(cluster_raft(&c, 2)), 1);
    cluster_done(&c);
}

static void bare_odd_entry(void **state)
{
    odd_entry(false);
    assert_int_equal(raft_last_index(cluster_raft(&c, 2)), 2);
    cluster_done(&c);
}

/* A server that joins: it has no configuration, and must take what a leader sends. */
static void guarded_joining_server(void **state)
{
    struct raft_message message;

    cluster_init(&c, 3, true);
    raft_configuration_close(&cluster_raft(&c, 2)->configuration);
    raft_configuration_init(&cluster_raft(&c, 2)->configuration);
    message = cluster_append_message(5, 1, 1, 1, 8);
    cluster_receive(&c, 7, 2, &message);
    assert_int_equal(c.servers[2].refusals, 0);
    assert_int_equal(raft_last_index(cluster_raft(&c, 2)), 2);
    cluster_kill(&c, 2);
    cluster_done(&c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(guarded_malformed_append),
        cmocka_unit_test(guarded_malformed_snapshot),
        cmocka_unit_test(guarded_malformed_vote),
        TWINS(term_jump),
        TWINS(second_leader),
        TWINS(stranger_vote),
        TWINS(odd_entry),
        cmocka_unit_test(guarded_joining_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
