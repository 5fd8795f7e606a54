/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/guard.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/guard_message.h"

/* A term this far ahead of ours was not reached by elections. */
#define TERM_JUMP_MAX (UINT64_C(1) << 32)

/* An append on its way to the disk; takes the place of raft's own request. */
struct guard_append {
    struct guard *guard;
    struct raft_io_append *request;
    raft_io_append_cb cb;
    raft_term term;       /* Ours when it was submitted. */
    unsigned truncations; /* The same. */
    struct guard_position last;
    struct raft_io_append inner;
    struct guard_append *next; /* In guard->held. */
};

/* A snapshot of the leader on its way to the disk. */
struct guard_install {
    struct guard *guard;
    struct raft_io_snapshot_put *request;
    raft_io_snapshot_put_cb cb;
    struct guard_position last;
    struct raft_io_snapshot_put inner;
};

static const char *const rule_names[GUARD_RULE_COUNT] = {
    [GUARD_RULE_APPEND_FAILED] = "append-failed",
    [GUARD_RULE_METADATA_FAILED] = "metadata-failed",
    [GUARD_RULE_INSTALL_FAILED] = "install-failed",
    [GUARD_RULE_UNAVAILABLE] = "unavailable",
    [GUARD_RULE_BARRIER_RETRIED] = "barrier-retried",
    [GUARD_RULE_ACK_BEFORE_BARRIER] = "ack-before-barrier",
    [GUARD_RULE_COMMIT_CLIPPED] = "commit-clipped",
    [GUARD_RULE_ACK_CLIPPED] = "ack-clipped",
    [GUARD_RULE_ACK_OUTDATED] = "ack-outdated",
    [GUARD_RULE_TIMEOUT_NOW_HELD] = "timeout-now-held",
    [GUARD_RULE_VOTE_WHILE_INSTALLING] = "vote-while-installing",
    [GUARD_RULE_SECOND_VOTE] = "second-vote",
    [GUARD_RULE_ELECTION_HELD] = "election-held",
    [GUARD_RULE_TIMEOUT_NOW_SENT] = "timeout-now-sent",
    [GUARD_RULE_ENTRY_LENGTH] = "entry-length",
    [GUARD_RULE_MALFORMED] = "malformed",
    [GUARD_RULE_TERM_JUMP] = "term-jump",
    [GUARD_RULE_TWO_LEADERS] = "two-leaders",
    [GUARD_RULE_STRANGER_VOTE] = "stranger-vote",
    [GUARD_RULE_SNAPSHOT_COLLISION] = "snapshot-collision",
    [GUARD_RULE_RETIRED] = "retired",
    [GUARD_RULE_LEADER_FORGOTTEN] = "leader-forgotten",
    [GUARD_RULE_VOTE_LENT] = "vote-lent",
    [GUARD_RULE_CHANGE_HELD] = "change-held",
    [GUARD_RULE_TERM_TOLD] = "term-told",
    [GUARD_RULE_TERM_BEGUN] = "term-begun",
    [GUARD_RULE_MEMBERS_RESTORED] = "members-restored",
    [GUARD_RULE_SNAPSHOT_UNCOMMITTED] = "snapshot-uncommitted",
    [GUARD_RULE_SEND_FAILED] = "send-failed",
    [GUARD_RULE_SILENT_CLOSE] = "silent-close",
};

const char *guard_rule_name(enum guard_rule rule)
{
    assert((unsigned)rule < GUARD_RULE_COUNT);
    return rule_names[rule];
}

/* Whose inner io this is. (Not before raft_init().) */
static struct guard *guard_of(struct raft_io *inner)
{
    const struct raft *raft = inner->data;

    return CONTAINER_OF(raft->io, struct guard, io);
}

static bool fire(struct guard *guard, enum guard_rule rule)
{
    guard->fired[rule]++;
    return true;
}

/* Ends this server's part in the cluster. The first cause is the one that is told. */
static void die(struct guard *guard, enum guard_rule rule, const char *what, int status)
{
    fire(guard, rule);
    if (guard->dead || guard->closing)
        return;
    guard->dead = true;
    guard->callbacks.on_fatal(guard->data, what, status);
}

/* raft looks for the reason of a failure in the io that it knows. */
static int pass_error(struct guard *guard, int r)
{
    if (r != 0)
        memcpy(guard->io.errmsg, guard->inner->errmsg, sizeof guard->io.errmsg);
    return r;
}

/* The same for one that the process must end of. 0.22 frees things twice on its way out of a failed write, so
 * it hears of none: what follows goes nowhere. */
static int pass_fatal_error(struct guard *guard, int r)
{
    return RAFT_COMPAT_IS_015 ? pass_error(guard, r) : 0;
}

/* ---- The start of leadership ---- */

static void on_barrier(struct raft_barrier *barrier, int status)
{
    struct guard *guard = barrier->data;

    /* 0.15 calls from deep inside raft: note it only. */
    guard->barrier_in_flight = false;
    guard->barrier_through = status == 0;
    if (status != 0)
        guard->barrier_term = 0;
    /* 0.22 calls in a turn of the loop of which nobody else may take notice before the next tick. */
    if (!RAFT_COMPAT_IS_015 && status == 0 && !raft_compat_is_closing(guard->raft))
        guard_observe(guard);
}

/* An entry of the leader's own term at the head of everything that it will commit (dissertation §3.6.2 and
 * §6.4; 0.15 has none: canonical/raft 29bb302). Our caller tries again until raft takes it, which it does
 * not while a transfer that we began as an earlier leader is pending. */
static void submit_barrier(struct guard *guard)
{
    raft_term term = raft_compat_term(guard->raft);

    guard->barrier_through = false;
    guard->barrier.data = guard;
    if (raft_barrier(guard->raft, &guard->barrier, on_barrier) != 0) {
        fire(guard, GUARD_RULE_BARRIER_RETRIED);
        return;
    }
    guard->barrier_in_flight = true;
    guard->barrier_term = term;
    guard->barrier_index = guard->barrier.index;
}

static void observe_leader(struct guard *guard)
{
    /* We know one leader of this term: ourselves. See is_second_leader(). */
    guard->leader_id = guard->raft->id;
    guard->leader_term = guard->term;

    if (guard->barrier_term != guard->term && !guard->barrier_in_flight)
        submit_barrier(guard);
    if (guard_is_ready(guard) && guard->ready_term != guard->term) {
        guard->ready_term = guard->term;
        if (guard->callbacks.on_ready != NULL)
            guard->callbacks.on_ready(guard->data, guard->term);
    }
}

void guard_observe(struct guard *guard)
{
    int old = guard->role, role = guard->closing ? RAFT_UNAVAILABLE : (int)raft_state(guard->raft);
    raft_term term = raft_compat_term(guard->raft);

    raft_compat_copy_capacity(&guard->io, guard->inner);
    if (role != old || term != guard->term) {
        guard->role = role;
        guard->term = term;
        guard->callbacks.on_role(guard->data, old, role, term);
    }
    if (guard->dead || guard->closing)
        return;
    /* After an error inside raft the server is inert while the process lives (docs/RAFT.md §2). */
    if (role == RAFT_UNAVAILABLE && old != RAFT_UNAVAILABLE)
        die(guard, GUARD_RULE_UNAVAILABLE, "raft gave up", 0);
    if (role == RAFT_LEADER)
        observe_leader(guard);
}

bool guard_is_ready(const struct guard *guard)
{
    return !guard->dead && !guard->closing && raft_state(guard->raft) == RAFT_LEADER &&
           guard->barrier_through && guard->barrier_term == raft_compat_term(guard->raft);
}

void guard_retire(struct guard *guard)
{
    guard->retired = true;
}

bool guard_is_writing(const struct guard *guard)
{
    return guard->appends_in_flight > 0 || raft_compat_is_installing(guard->raft);
}

/* ---- Messages that come in ---- */

static bool refuse(struct guard *guard, const struct raft_message *message, enum guard_rule rule,
                   const char *why)
{
    if (guard->callbacks.on_refused != NULL)
        guard->callbacks.on_refused(guard->data, message->server_id, rule, why);
    return fire(guard, rule);
}

/* Election Safety (dissertation figure 3.2): a term has one leader. 0.15 relies on an assertion, and without
 * it a leader that gets AppendEntries of its own term writes into the wrong member of a union. */
static bool is_second_leader(struct guard *guard, const struct raft_message *message)
{
    raft_term term = guard_message_term(message);

    if (message->type != RAFT_IO_APPEND_ENTRIES && message->type != RAFT_IO_INSTALL_SNAPSHOT)
        return false;
    if (term < raft_compat_term(guard->raft))
        return false; /* raft refuses it, and tells the sender. */
    guard->retired = false;
    if (guard->leader_term == term)
        return guard->leader_id != message->server_id;
    guard->leader_id = message->server_id;
    guard->leader_term = term;
    return false;
}

/* Whether no correct peer sends this. */
static bool must_refuse(struct guard *guard, const struct raft_message *message)
{
    const char *fault = guard_message_fault(message);
    raft_term term = guard_message_term(message);

    if (fault != NULL)
        return refuse(guard, message, GUARD_RULE_MALFORMED, fault);
    if (message->server_id == guard->raft->id)
        return refuse(guard, message, GUARD_RULE_MALFORMED, "a message from this server itself");
    /* 0.15 stores such an entry and can not load it again: it and all after it are gone at the next start
     * (canonical/raft cd3bd28). */
    if (guard_message_is_misaligned(message))
        return refuse(guard, message, GUARD_RULE_ENTRY_LENGTH, "an entry whose length is no multiple of 8");
    /* One message would use up the terms of the whole cluster (docs/RAFT.md §1). */
    if (term > raft_compat_term(guard->raft) && term - raft_compat_term(guard->raft) > TERM_JUMP_MAX)
        return refuse(guard, message, GUARD_RULE_TERM_JUMP, "its term is absurdly far ahead of ours");
    if (is_second_leader(guard, message))
        return refuse(guard, message, GUARD_RULE_TWO_LEADERS, "there is another leader in this term");
    return false;
}

static bool is_voter(const struct raft_configuration *configuration, raft_id id)
{
    const struct raft_server *server = raft_compat_find_server(configuration, id);

    return server != NULL && server->role == RAFT_VOTER;
}

static bool is_only_voter(const struct raft_configuration *configuration, raft_id id)
{
    for (unsigned i = 0; i < configuration->n; i++)
        if (configuration->servers[i].role == RAFT_VOTER && configuration->servers[i].id != id)
            return false;
    return is_voter(configuration, id);
}

static bool must_drop_vote(struct guard *guard, const struct raft_request_vote *vote)
{
    /* The answer would rest on a log that is in memory only (canonical/raft #343, 2a38d3d, 05746af). */
    if (raft_compat_is_installing(guard->raft))
        return fire(guard, GUARD_RULE_VOTE_WHILE_INSTALLING);
    /* One vote per term (dissertation §3.4); 0.15 forgets that for the target of a transfer (cowsql
     * ad19f79a). */
    if (raft_compat_would_vote_twice(guard->raft, vote))
        return fire(guard, GUARD_RULE_SECOND_VOTE);
    /* A server that was removed must not disturb (dissertation §4.2.3). raft obeys the disrupt flag, whoever
     * sets it. We may be the one who lags behind in configuration: but then we have a leader all the same,
     * and once it is lost we vote for whoever asks. */
    if (guard->raft->configuration.n > 0 && raft_compat_has_leader(guard->raft) &&
        !is_voter(&guard->raft->configuration, vote->candidate_id))
        return fire(guard, GUARD_RULE_STRANGER_VOTE);
    return false;
}

/* Whether the message is a proper one that comes at a time when the library would go wrong. */
static bool must_drop(struct guard *guard, const struct raft_message *message)
{
    switch (message->type) {
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        /* Figure 8 of the Raft paper, dissertation §3.6.2: a leader commits only entries of its own term by
         * counting copies. 0.15 counts for any entry (canonical/raft #220, 524f735); but it asks for the
         * highest index on its own disk, so nothing can go wrong from the barrier's on. */
        if (RAFT_COMPAT_IS_015 && raft_state(guard->raft) == RAFT_LEADER &&
            (guard->barrier_term != raft_compat_term(guard->raft) ||
             !raft_compat_has_stored(guard->raft, guard->barrier_index)))
            return fire(guard, GUARD_RULE_ACK_BEFORE_BARRIER);
        return false;
    case RAFT_IO_REQUEST_VOTE: return must_drop_vote(guard, &message->request_vote);
    case RAFT_IO_TIMEOUT_NOW:
        /* A candidate's log must be on its disk (canonical/raft a54636b, 634cb11). */
        if (RAFT_COMPAT_IS_015 && guard_is_writing(guard))
            return fire(guard, GUARD_RULE_TIMEOUT_NOW_HELD);
        if (is_only_voter(&guard->raft->configuration, guard->raft->id)) /* See begin_term(). */
            return fire(guard, GUARD_RULE_TIMEOUT_NOW_HELD);
        return false;
    case RAFT_IO_INSTALL_SNAPSHOT:
        /* 0.22.1 reads through NULL in takeSnapshotCb() (docs/RAFT.md §1). */
        if (raft_compat_is_taking_snapshot(guard->raft))
            return fire(guard, GUARD_RULE_SNAPSHOT_COLLISION);
        return false;
    default: return false;
    }
}

/* Dissertation figure 3.1, AppendEntries: "set commitIndex = min(leaderCommit, index of last new entry)".
 * 0.15 takes its own last entry instead, which the leader may never have seen (cowsql 000eacf2). */
static void clip_commit(struct guard *guard, struct raft_append_entries *append)
{
    guard->vouched_index = append->prev_log_index + append->n_entries;
    guard->handling_append = true;
    if (append->leader_commit > guard->vouched_index) {
        fire(guard, GUARD_RULE_COMMIT_CLIPPED);
        append->leader_commit = guard->vouched_index;
    }
}

/* Dissertation §4.1: who asks for votes counts them by its own configuration, so whoever is asked answers,
 * also when it is no voter by its own log, which may be behind. raft refuses then (electionVote()), and so
 * leaves a cluster of one without a leader for ever that was growing to two: the first server has the
 * promotion on its disk and needs the vote of the second, which has not. So for this question it is a voter;
 * whether its term, its log and what it has promised allow the vote, raft decides as ever. (A server that its
 * own log does not even name is not asked: nobody is promoted before it has the entry that added it.) */
static void receive_vote_request(struct guard *guard, struct raft_message *message)
{
    struct raft_server *self = raft_compat_find_server(&guard->raft->configuration, guard->raft->id);
    bool lent = self != NULL && self->role != RAFT_VOTER && raft_state(guard->raft) == RAFT_FOLLOWER;
    int role = lent ? self->role : 0;

    if (lent) {
        fire(guard, GUARD_RULE_VOTE_LENT);
        self->role = RAFT_VOTER;
    }
    guard->recv(&guard->io, message);
    if (lent) {
        assert(self == raft_compat_find_server(&guard->raft->configuration, guard->raft->id));
        self->role = role;
    }
}

/* raft undoes a change that the new leader cuts off by taking the entry of the last committed one for the
 * last one: it does not for a change that was there when it started, which it takes for a committed one; one
 * that is in a snapshot has no entry any more, and it reads through NULL; and in between there may be one
 * that it does not know to be committed. So it is shown none, and guard_truncate() does it
 * (GUARD_RULE_MEMBERS_RESTORED). */
static void receive_append(struct guard *guard, struct raft_message *message)
{
    raft_index change = raft_compat_uncommitted_change(guard->raft);
    const struct guard_configuration *last;

    clip_commit(guard, &message->append_entries);
    raft_compat_set_uncommitted_change(guard->raft, 0);
    guard->recv(&guard->io, message);
    last = guard_members_last(&guard->members);
    if (last != NULL && change == last->index && change > raft_last_applied(guard->raft))
        raft_compat_set_uncommitted_change(guard->raft, change);
}

static void on_recv(struct raft_io *inner, struct raft_message *message)
{
    struct guard *guard = guard_of(inner);

    if (guard->dead || guard->closing || must_refuse(guard, message) || must_drop(guard, message)) {
        guard_message_drop(message);
        return;
    }
    raft_compat_copy_capacity(&guard->io, guard->inner);
    if (RAFT_COMPAT_IS_015 && message->type == RAFT_IO_APPEND_ENTRIES)
        receive_append(guard, message);
    else if (message->type == RAFT_IO_REQUEST_VOTE)
        receive_vote_request(guard, message);
    else
        guard->recv(&guard->io, message);
    guard->handling_append = false;
    guard_observe(guard);
}

/* Who votes forgets a leader that is silent when it campaigns. Who does not vote never does, and whoever has
 * a leader gives no vote (dissertation §4.2.3): the other half of GUARD_RULE_VOTE_LENT. */
static void forget_silent_leader(struct guard *guard, raft_time now)
{
    if (raft_state(guard->raft) != RAFT_FOLLOWER || !raft_compat_has_leader(guard->raft) ||
        is_voter(&guard->raft->configuration, guard->raft->id) || guard_is_writing(guard) ||
        !raft_compat_is_leader_silent(guard->raft, now))
        return;
    fire(guard, GUARD_RULE_LEADER_FORGOTTEN);
    raft_compat_forget_leader(guard->raft);
}

static int store_own_term(struct guard *guard, raft_term term)
{
    int r = guard->inner->set_term(guard->inner, term);

    return r != 0 ? r : guard->inner->set_vote(guard->inner, guard->raft->id);
}

/* A term has one leader, who makes its log (dissertation §3.4): same index and same term is the same entry.
 * raft makes the only voter a leader without an election, in the term that it finds: its own from before a
 * crash, in which others may have what it had sent and lost; or that of a leader who has made it the only
 * voter, and still leads. So it begins a term, and votes for itself, as in every election. */
static void begin_term(struct guard *guard, raft_time now)
{
    raft_term term = raft_compat_term(guard->raft) + 1;
    int r;

    if (raft_state(guard->raft) != RAFT_FOLLOWER || !raft_compat_is_leader_silent(guard->raft, now) ||
        !is_only_voter(&guard->raft->configuration, guard->raft->id))
        return;
    /* Then raft does not lead yet: 0.22 sees to it itself, for 0.15 its timer was put off. */
    if ((RAFT_COMPAT_IS_015 && (guard->retired || guard_is_writing(guard))) ||
        raft_compat_is_installing(guard->raft) ||
        !raft_compat_has_stored(guard->raft, raft_last_index(guard->raft)))
        return;
    fire(guard, GUARD_RULE_TERM_BEGUN);
    r = store_own_term(guard, term);
    if (r != 0)
        die(guard, GUARD_RULE_METADATA_FAILED, "cannot store the term", r);
    else
        raft_compat_set_own_term(guard->raft, term);
}

static void on_tick(struct raft_io *inner)
{
    struct guard *guard = guard_of(inner);

    if (guard->dead || guard->closing)
        return;
    forget_silent_leader(guard, inner->time(inner));
    /* 0.15 campaigns with entries that are not on its disk, or in the middle of installing a snapshot
     * (canonical/raft 634cb11, f65b6e7, 4fbd3c0). */
    if (RAFT_COMPAT_IS_015 && raft_state(guard->raft) == RAFT_FOLLOWER && guard_is_writing(guard)) {
        fire(guard, GUARD_RULE_ELECTION_HELD);
        raft_compat_postpone_election(guard->raft, inner->time(inner));
    }
    if (RAFT_COMPAT_IS_015 && raft_state(guard->raft) == RAFT_FOLLOWER && guard->retired) {
        fire(guard, GUARD_RULE_RETIRED);
        raft_compat_postpone_election(guard->raft, inner->time(inner));
    }
    begin_term(guard, inner->time(inner));
    if (guard->dead)
        return;
    raft_compat_copy_capacity(&guard->io, guard->inner);
    guard->tick(&guard->io);
    guard_observe(guard);
}

/* ---- Messages that go out ---- */

/* Makes a message that can not or must not be sent a lost one. For 0.15 any other failure than NOCONNECTION
 * of an answer is a reason to give up for good; and after a failed answer to AppendEntries recvMessage()
 * frees the entries for the second time, whatever the failure. So that one is said to be on its way; for
 * 0.22, every one (RAFT_COMPAT_SEND_MAY_FAIL). */
static int lose(struct guard *guard, struct raft_io_send *request, const struct raft_message *message,
                raft_io_send_cb cb)
{
    if (RAFT_COMPAT_SEND_MAY_FAIL &&
        (!guard->handling_append || message->type != RAFT_IO_APPEND_ENTRIES_RESULT))
        return RAFT_NOCONNECTION;
    cb(request, RAFT_NOCONNECTION); /* Frees the request; raft does not look at it again. */
    return 0;
}

static void on_timeout_now_sent(struct raft_io_send *request, int status)
{
    free(request);
}

/* 0.15 hands out the request inside the user's raft_transfer, which ends before the message is gone
 * (use after free: canonical/raft #396, c6cfe58). */
static int send_timeout_now(struct guard *guard, const struct raft_message *message)
{
    struct raft_io_send *request = NEW0(struct raft_io_send);
    int r = guard->inner->send(guard->inner, request, message, on_timeout_now_sent);

    fire(guard, GUARD_RULE_TIMEOUT_NOW_SENT);
    if (r != 0)
        free(request);
    return r;
}

/* An acknowledgement says "my log is the leader's, up to here". That holds for what this leader's message
 * showed, not for everything on our disk, which may be a tail that nobody else has (cowsql 66ed6afd,
 * 446f8d21: 0.15 says the latter). */
static void clip_ack(struct guard *guard, struct raft_append_entries_result *result)
{
    if (!guard->handling_append || result->rejected != 0 || result->last_log_index <= guard->vouched_index)
        return;
    fire(guard, GUARD_RULE_ACK_CLIPPED);
    result->last_log_index = guard->vouched_index;
}

/* Whoever has got a change of the members that nobody else has has the longest log, so it gives nobody its
 * vote; and if it is no voter by that change, raft does not let it campaign (against dissertation §4.2.2).
 * That must not happen to it when this leader is lost. So an uncommitted change goes to voters alone, and not
 * before it is on our own disk, which is all that is needed to commit it. What stands before it goes as ever.
 * (raft believes that all was sent: it takes two heartbeats until it sends the rest.) */
static void hold_change(struct guard *guard, raft_id to, struct raft_append_entries *append)
{
    bool votes = is_voter(&guard->raft->configuration, to);

    for (unsigned i = 0; i < append->n_entries; i++) {
        raft_index index = append->prev_log_index + 1 + i;

        if (append->entries[i].type != RAFT_CHANGE ||
            (raft_compat_has_stored(guard->raft, index) &&
             (votes || index <= raft_compat_commit_index(guard->raft))))
            continue;
        fire(guard, GUARD_RULE_CHANGE_HELD);
        append->n_entries = i;
    }
}

/* Dissertation figure 3.1, RequestVote: the answer says "currentTerm, for candidate to update itself". raft's
 * to a pre-vote says the term that was asked for, so that a candidate who is ahead takes it. But whoever is
 * two terms behind and has the longer log never learns that then: it is refused for its term, and refuses the
 * other for its log, and there is no leader for ever. */
static void tell_term(struct guard *guard, struct raft_request_vote_result *result)
{
    raft_term term = raft_compat_term(guard->raft);

    if (raft_compat_get_pre_vote(result) != RAFT_COMPAT_PRE_VOTE_TRUE || result->vote_granted ||
        result->term >= term)
        return;
    fire(guard, GUARD_RULE_TERM_TOLD);
    result->term = term;
}

static int guard_send(struct raft_io *io, struct raft_io_send *request, const struct raft_message *message,
                      raft_io_send_cb cb)
{
    struct guard *guard = io->impl;
    struct raft_message copy = *message;
    int r;

    if (guard->dead || guard->closing)
        return lose(guard, request, message, cb);
    if (message->server_id == 0 || message->server_address == NULL) { /* To a leader that is not known. */
        fire(guard, GUARD_RULE_SEND_FAILED);
        return lose(guard, request, message, cb);
    }
    if (message->type == RAFT_IO_REQUEST_VOTE && guard->retired) {
        fire(guard, GUARD_RULE_RETIRED);
        return lose(guard, request, message, cb);
    }
    if (message->type == RAFT_IO_APPEND_ENTRIES)
        hold_change(guard, message->server_id, &copy.append_entries);
    if (message->type == RAFT_IO_APPEND_ENTRIES_RESULT) {
        /* The term changed while the disk was writing: 0.15 tells the new leader what the old one sent
         * (canonical/raft 35479fc). The new leader's next message gets an answer of its own. */
        if (RAFT_COMPAT_IS_015 && guard->completing_old_append) {
            fire(guard, GUARD_RULE_ACK_OUTDATED);
            return lose(guard, request, message, cb);
        }
        clip_ack(guard, &copy.append_entries_result);
    }
    if (message->type == RAFT_IO_REQUEST_VOTE_RESULT)
        tell_term(guard, &copy.request_vote_result);
    if (message->type == RAFT_IO_TIMEOUT_NOW && cb == NULL)
        r = send_timeout_now(guard, &copy);
    else
        r = guard->inner->send(guard->inner, request, &copy, cb);
    if (r == 0)
        return 0;
    fire(guard, GUARD_RULE_SEND_FAILED);
    return lose(guard, request, message, cb);
}

/* ---- The disk ---- */

static void append_complete(struct guard_append *append, int status)
{
    struct guard *guard = append->guard;
    struct raft_io_append *request = append->request;
    raft_io_append_cb cb = append->cb;

    guard->completing_old_append = append->term != raft_compat_term(guard->raft);
    free(append);
    cb(request, status);
    guard->completing_old_append = false;
}

static void append_complete_at_close(struct guard_append *append, int status)
{
    if (raft_compat_append_status_at_close(status) != status)
        fire(append->guard, GUARD_RULE_SILENT_CLOSE);
    append_complete(append, raft_compat_append_status_at_close(status));
}

static void append_hold(struct guard_append *append)
{
    append->next = append->guard->held;
    append->guard->held = append;
}

static void on_appended(struct raft_io_append *inner, int status)
{
    struct guard_append *append = inner->data;
    struct guard *guard = append->guard;

    guard->appends_in_flight--;
    raft_compat_copy_capacity(&guard->io, guard->inner);
    if (guard->closing) {
        append_complete_at_close(append, status);
        return;
    }
    /* 0.15: a leader goes on with a truncated log (or crashes), a follower keeps entries in memory that never
     * reached its disk, and so skips them for ever (docs/RAFT.md §1; canonical/raft #450, #466: 0cac59c,
     * 23ed201, 857e17e, a5cef60). */
    if (status != 0)
        die(guard, GUARD_RULE_APPEND_FAILED, "cannot write to the log", status);
    if (guard->dead) {
        append_hold(append);
        return;
    }
    /* If the log was cut meanwhile it is not known what is left of these entries. */
    if (append->truncations == guard->truncations)
        guard->stored = append->last;
    append_complete(append, 0);
    guard_observe(guard);
}

static int guard_append(struct raft_io *io, struct raft_io_append *request, const struct raft_entry entries[],
                        unsigned count, raft_io_append_cb cb)
{
    struct guard *guard = io->impl;
    struct guard_append *append;
    int r;

    if (guard->dead && RAFT_COMPAT_IS_015)
        return RAFT_SHUTDOWN;
    /* What others sent was looked at in must_refuse(). */
    for (unsigned i = 0; i < count; i++)
        assert(guard_entry_is_aligned(&entries[i]) && "commands must be padded to a multiple of 8 bytes");

    append = NEW0(struct guard_append);
    append->guard = guard;
    append->request = request;
    append->cb = cb;
    append->term = raft_compat_term(guard->raft);
    append->truncations = guard->truncations;
    append->last =
        (struct guard_position){.index = guard->next_index + count - 1, .term = entries[count - 1].term};
    append->inner.data = append;
    if (guard->dead) {
        append_hold(append);
        return 0;
    }
    guard->appends_in_flight++;
    r = guard->inner->append(guard->inner, &append->inner, entries, count, on_appended);
    if (r == 0) {
        guard_members_append(&guard->members, guard->next_index, entries, count,
                             raft_compat_commit_index(guard->raft));
        guard->next_index += count;
        return 0;
    }
    guard->appends_in_flight--;
    if (RAFT_COMPAT_IS_015)
        free(append);
    else
        append_hold(append);
    die(guard, GUARD_RULE_APPEND_FAILED, "cannot write to the log", r);
    return pass_fatal_error(guard, r);
}

/* A server that can not remember its term or its vote may vote twice (dissertation §3.8). 0.15 turns inert;
 * 0.22 goes on, because the check is an assertion. */
static int guard_set_term(struct raft_io *io, raft_term term)
{
    struct guard *guard = io->impl;
    int r = guard->inner->set_term(guard->inner, term);

    if (r != 0)
        die(guard, GUARD_RULE_METADATA_FAILED, "cannot store the term", r);
    return 0; /* 0.15, too, frees what is none on its way out of a failed election. */
}

static int guard_set_vote(struct raft_io *io, raft_id id)
{
    struct guard *guard = io->impl;
    int r = guard->inner->set_vote(guard->inner, id);

    if (r != 0)
        die(guard, GUARD_RULE_METADATA_FAILED, "cannot store the vote", r);
    return 0; /* 0.15, too, frees what is none on its way out of a failed election. */
}

static void on_installed(struct raft_io_snapshot_put *inner, int status)
{
    struct guard_install *install = inner->data;
    struct guard *guard = install->guard;
    struct raft_io_snapshot_put *request = install->request;
    raft_io_snapshot_put_cb cb = install->cb;
    raft_index last = install->last.index;

    if (status == 0)
        guard->stored = install->last;
    raft_compat_set_uncommitted_change(guard->raft, 0); /* If there was one, it is gone; 0.15 forgets that. */
    free(install);
    raft_compat_copy_capacity(&guard->io, guard->inner);
    /* raft's log in memory already begins after the snapshot. If that is not on the disk, 0.15 goes on: it
     * tells the leader that it has the snapshot when that is sent again, and appends behind a gap. */
    if (status != 0)
        die(guard, GUARD_RULE_INSTALL_FAILED, "cannot write the leader's snapshot", status);
    cb(request, status);
    /* The same where the state machine could not read it. */
    if (status == 0 && !guard->dead && !guard->closing && !raft_compat_has_restored(guard->raft, last))
        die(guard, GUARD_RULE_INSTALL_FAILED, "cannot restore the leader's snapshot", 0);
    guard_observe(guard);
}

static bool has_change_after(const struct guard *guard, raft_index index)
{
    const struct guard_configuration *last = guard_members_last(&guard->members);

    return last != NULL && last->index > index;
}

static int guard_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *request,
                              const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct guard *guard = io->impl;
    struct guard_install *install;
    int r;

    /* Our own: if it fails, the log is just longer, until the next one is due. 0.15 writes the last change of
     * the members into it, which may be one that is never committed. */
    if (RAFT_COMPAT_IS_015 && trailing > 0 && has_change_after(guard, snapshot->index)) {
        fire(guard, GUARD_RULE_SNAPSHOT_UNCOMMITTED);
        cb(request, RAFT_BUSY);
        return 0;
    }
    if (trailing > 0)
        return pass_error(guard, guard->inner->snapshot_put(guard->inner, trailing, request, snapshot, cb));

    install = NEW0(struct guard_install);
    install->guard = guard;
    install->request = request;
    install->cb = cb;
    install->last = (struct guard_position){.index = snapshot->index, .term = snapshot->term};
    install->inner.data = install;
    r = guard->inner->snapshot_put(guard->inner, 0, &install->inner, snapshot, on_installed);
    if (r == 0) {
        guard->truncations++;
        guard->next_index = snapshot->index + 1;
        guard_members_load(&guard->members, snapshot, guard->next_index, NULL, 0);
        return 0;
    }
    free(install);
    die(guard, GUARD_RULE_INSTALL_FAILED, "cannot write the leader's snapshot", r);
    if (!RAFT_COMPAT_IS_015)
        cb(request, r); /* Frees the request. */
    return pass_fatal_error(guard, r);
}

/* See receive_append(). */
static void restore_members(struct guard *guard, raft_index index)
{
    const struct guard_configuration *last;
    struct raft_configuration copy;

    if (!has_change_after(guard, index - 1))
        return;
    guard_members_truncate(&guard->members, index);
    last = guard_members_last(&guard->members);
    if (!RAFT_COMPAT_IS_015 || last == NULL)
        return;
    guard_configuration_copy(&last->configuration, &copy);
    fire(guard, GUARD_RULE_MEMBERS_RESTORED);
    raft_compat_set_configuration(guard->raft, &copy, last->index);
}

static int guard_truncate(struct raft_io *io, raft_index index)
{
    struct guard *guard = io->impl;
    int r;

    if (index < guard->next_index) { /* 0.22 truncates before every append. */
        guard->truncations++;
        guard->next_index = index;
        restore_members(guard, index);
    }
    if (guard->stored.index >= index)
        guard->stored = (struct guard_position){.index = index - 1, .term = 0};
    r = guard->inner->truncate(guard->inner, index);
    if (r == 0 || RAFT_COMPAT_IS_015)
        return pass_error(guard, r); /* raft gives up, and we with it. */
    die(guard, GUARD_RULE_APPEND_FAILED, "cannot cut the log", r);
    return pass_fatal_error(guard, r);
}

static void drop_loaded(struct raft_snapshot *snapshot, struct raft_entry *entries, size_t count)
{
    struct raft_message log = {.type = RAFT_IO_APPEND_ENTRIES};

    log.append_entries.entries = entries;
    log.append_entries.n_entries = (unsigned)count;
    guard_message_drop(&log);
    if (snapshot == NULL)
        return;
    for (unsigned i = 0; i < snapshot->n_bufs; i++)
        raft_free(snapshot->bufs[i].base);
    raft_configuration_close(&snapshot->configuration);
    raft_free(snapshot->bufs);
    raft_free(snapshot);
}

/* raft_start() will make the only voter a leader: see begin_term(). */
static int begin_term_at_start(struct guard *guard, raft_term *term, raft_id *voted_for)
{
    const struct guard_configuration *last = guard_members_last(&guard->members);
    int r;

    if (last == NULL || !is_only_voter(&last->configuration, guard->raft->id))
        return 0;
    fire(guard, GUARD_RULE_TERM_BEGUN);
    r = store_own_term(guard, *term + 1);
    if (r != 0) {
        fire(guard, GUARD_RULE_METADATA_FAILED);
        return pass_error(guard, r);
    }
    (*term)++;
    *voted_for = guard->raft->id;
    return 0;
}

static int guard_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                      struct raft_snapshot **snapshot, raft_index *start_index, struct raft_entry *entries[],
                      size_t *count)
{
    struct guard *guard = io->impl;
    int r = guard->inner->load(guard->inner, term, voted_for, snapshot, start_index, entries, count);

    if (r != 0)
        return pass_error(guard, r);
    guard->stored = (struct guard_position){0};
    if (*count > 0)
        guard->stored =
            (struct guard_position){.index = *start_index + *count - 1, .term = (*entries)[*count - 1].term};
    else if (*snapshot != NULL)
        guard->stored = (struct guard_position){.index = (*snapshot)->index, .term = (*snapshot)->term};
    guard->next_index = guard->stored.index + 1;
    guard_members_load(&guard->members, *snapshot, *start_index, *entries, *count);
    if (guard->callbacks.on_loaded != NULL)
        r = guard->callbacks.on_loaded(guard->data, *term, guard->stored.index);
    if (r == 0)
        r = begin_term_at_start(guard, term, voted_for);
    if (r != 0)
        drop_loaded(*snapshot, *entries, *count);
    return r;
}

struct guard_position guard_stored(const struct guard *guard)
{
    return guard->stored;
}

/* ---- What is only passed on ---- */

static int guard_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *request,
                              raft_io_snapshot_get_cb cb)
{
    struct guard *guard = io->impl;

    return pass_error(guard, guard->inner->snapshot_get(guard->inner, request, cb));
}

static int guard_io_init(struct raft_io *io, raft_id id, const char *address)
{
    struct guard *guard = io->impl;

    return pass_error(guard, guard->inner->init(guard->inner, id, address));
}

static int guard_start(struct raft_io *io, unsigned tick_ms, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct guard *guard = io->impl;

    guard->tick = tick;
    guard->recv = recv;
    return pass_error(guard, guard->inner->start(guard->inner, tick_ms, on_tick, on_recv));
}

static int guard_bootstrap(struct raft_io *io, const struct raft_configuration *configuration)
{
    struct guard *guard = io->impl;

    return pass_error(guard, guard->inner->bootstrap(guard->inner, configuration));
}

static int guard_recover(struct raft_io *io, const struct raft_configuration *configuration)
{
    struct guard *guard = io->impl;

    return pass_error(guard, guard->inner->recover(guard->inner, configuration));
}

static raft_time guard_time(struct raft_io *io)
{
    struct guard *guard = io->impl;

    return guard->inner->time(guard->inner);
}

static int guard_random(struct raft_io *io, int min, int max)
{
    struct guard *guard = io->impl;

    return guard->inner->random(guard->inner, min, max);
}

static void on_closed(struct raft_io *inner)
{
    struct guard *guard = guard_of(inner);

    if (guard->closed != NULL)
        guard->closed(&guard->io);
}

static void guard_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct guard *guard = io->impl;

    guard->closing = true;
    guard->closed = cb;
    guard_observe(guard); /* raft can do nothing any more: whoever leads must hear it. */
    while (guard->held != NULL) {
        struct guard_append *append = guard->held;

        guard->held = append->next;
        append_complete_at_close(append, RAFT_CANCELED);
    }
    guard->inner->close(guard->inner, on_closed);
}

/* ---- The guard itself ---- */

void guard_init(struct guard *guard, struct raft *raft, struct raft_io *inner,
                const struct guard_callbacks *callbacks, void *data)
{
    assert(callbacks->on_fatal != NULL && callbacks->on_role != NULL);

    *guard = (struct guard){
        .inner = inner,
        .raft = raft,
        .callbacks = *callbacks,
        .data = data,
        .role = RAFT_UNAVAILABLE,
        .io =
            {
                /* Not 2: that is async_work, which only serves raft_fsm.snapshot_async (docs/RAFT.md §4). */
                .version = 1,
                .data = raft,
                .init = guard_io_init,
                .close = guard_close,
                .load = guard_load,
                .start = guard_start,
                .bootstrap = guard_bootstrap,
                .recover = guard_recover,
                .set_term = guard_set_term,
                .set_vote = guard_set_vote,
                .send = guard_send,
                .append = guard_append,
                .truncate = guard_truncate,
                .snapshot_put = guard_snapshot_put,
                .snapshot_get = guard_snapshot_get,
                .time = guard_time,
                .random = guard_random,
            },
    };
    guard->io.impl = guard;
    inner->data = raft;
}

void guard_done(struct guard *guard)
{
    if (guard == NULL || guard->inner == NULL)
        return;
    assert(guard->appends_in_flight == 0 && guard->held == NULL);
    guard_members_done(&guard->members);
    guard->inner->data = NULL;
    *guard = (struct guard){0};
}

struct raft_io *guard_io(struct guard *guard)
{
    return &guard->io;
}

uint64_t guard_fired(const struct guard *guard, enum guard_rule rule)
{
    assert((unsigned)rule < GUARD_RULE_COUNT);
    return guard->fired[rule];
}
