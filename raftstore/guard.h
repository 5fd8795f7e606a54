/* SPDX-License-Identifier: Apache-2.0 */
/* The guard: a thin layer over `struct raft_io`, between libraft and its disk and network.
 *
 * libraft 0.15 as Debian ships it loses or diverges committed data in several ways (docs/RAFT.md §1).
 * Each known hole shows at this border, either as a message that should not have been handled or sent, or as
 * a failed write that should not have been survived. So the guard turns each into one of two things that are
 * always legal in Raft: a lost message (whoever sent it sends again), or a server that stopped. It is no
 * second implementation of Raft: whether to vote, to lead and to commit is raft's to say. But where raft
 * leaves out a step of the protocol the guard does that: a server that does not vote by its own configuration
 * forgets a silent leader and is asked for its vote all the same (GUARD_RULE_LEADER_FORGOTTEN,
 * ..._VOTE_LENT), the only voter begins a term before it leads (..._TERM_BEGUN), a refused pre-vote tells the
 * term
 * (..._TERM_TOLD), and when a change of the members is cut off the log, what is left of the log says who they
 * are (..._MEMBERS_RESTORED). Everything runs on raft's loop thread.
 *
 *        raft  --- append, set_term, set_vote, send, ... --->  guard  --->  inner io (raft_uv, fixture, ours)
 *              <-- recv, tick, completions ------------------         <---
 *
 * The guard has a `struct raft_io` of its own: raft_init() gets guard_io(), and only the guard knows the
 * inner one. inner->data is the struct raft, as raft_init() would have set it: 0.22's raft_uv completes
 * requests through it. inner->impl stays the backend's, so raft_uv_set_*() and raft_uv_close() are called on
 * the inner io. Order:
 *
 *     raft_uv_init(&inner), raft_uv_set_...(&inner)    guard_init(&guard, &raft, &inner, ...)
 *     raft_init(&raft, guard_io(&guard), ...)          raft_start(&raft), guard_observe(&guard)
 *     ...  raft_close(&raft, cb); in cb: raft_uv_close(&inner), guard_done(&guard)
 *
 * (The fixture calls raft_init() itself; there, set raft->io = guard_io(&guard) before raft_fixture_start().)
 *
 * Invariants:
 * - raft never learns of a failed write of the log, the term or the vote: on_fatal comes first.
 * - After on_fatal the guard is deaf and mute: nothing from the network or the clock reaches raft, nothing
 *   that raft does leaves the machine, completions wait for raft_close(). Still, exit in on_fatal, at once:
 *   raft_uv does not stop at a failed write, and what it has in its queues must not follow a gap.
 * - As long as this server leads, no acknowledgement reaches raft before the term's own barrier is on our
 *   disk, so nothing of an older term can be committed by counting copies of it.
 *
 * Do not set a snapshot trailing of 0: that is how the guard knows a snapshot of the leader from our own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "raftstore/guard_members.h"
#include "raftstore/raft_compat.h"

/* What the guard can do about something; guard.c says at each why. */
enum guard_rule {
    GUARD_RULE_APPEND_FAILED,         /* Stopped: the log could not be written. */
    GUARD_RULE_METADATA_FAILED,       /* Stopped: term or vote could not be written. */
    GUARD_RULE_INSTALL_FAILED,        /* Stopped: the leader's snapshot could not be written or restored. */
    GUARD_RULE_UNAVAILABLE,           /* Stopped: raft gave up. */
    GUARD_RULE_BARRIER_RETRIED,       /* The term's barrier could not be submitted, and will be again. */
    GUARD_RULE_ACK_BEFORE_BARRIER,    /* Dropped: acknowledgement before the barrier was stored. */
    GUARD_RULE_COMMIT_CLIPPED,        /* Leader's commit index cut to what its message vouches for. */
    GUARD_RULE_ACK_CLIPPED,           /* Our acknowledgement cut to what the leader vouched for. */
    GUARD_RULE_ACK_OUTDATED,          /* Not sent: acknowledges to a new leader what an old one sent. */
    GUARD_RULE_TIMEOUT_NOW_HELD,      /* Dropped: told to campaign, but our log is not on the disk yet, or we
                                         are the only voter: see GUARD_RULE_TERM_BEGUN. */
    GUARD_RULE_VOTE_WHILE_INSTALLING, /* Dropped: asked for a vote while installing a snapshot. */
    GUARD_RULE_SECOND_VOTE,           /* Dropped: would have voted twice in a term. */
    GUARD_RULE_ELECTION_HELD,         /* Did not campaign: our log is not on the disk yet. */
    GUARD_RULE_TIMEOUT_NOW_SENT,      /* TimeoutNow was sent with a request of our own. */
    GUARD_RULE_ENTRY_LENGTH,          /* Refused: entries that raft could not load again. */
    GUARD_RULE_MALFORMED,             /* Refused: a message that no raft sends. */
    GUARD_RULE_TERM_JUMP,             /* Refused: a term absurdly far ahead of ours. */
    GUARD_RULE_TWO_LEADERS,           /* Refused: a second leader in one term. */
    GUARD_RULE_STRANGER_VOTE, /* Dropped: a vote for a server that is no voter, while we have a leader. */
    GUARD_RULE_SNAPSHOT_COLLISION,   /* Dropped: InstallSnapshot while taking a snapshot (0.22). */
    GUARD_RULE_RETIRED,              /* Did not campaign, or ask for votes: see guard_retire(). */
    GUARD_RULE_LEADER_FORGOTTEN,     /* Does not vote, and has forgotten a leader that is silent. */
    GUARD_RULE_VOTE_LENT,            /* Asked for a vote, and answers, though no voter by its own log. */
    GUARD_RULE_CHANGE_HELD,          /* Not sent yet: a change of the members, see hold_change(). */
    GUARD_RULE_TERM_TOLD,            /* Who asked for a pre-vote in an old term hears ours. */
    GUARD_RULE_TERM_BEGUN,           /* The only voter leads in a term of its own. */
    GUARD_RULE_MEMBERS_RESTORED,     /* A change was cut off the log: back to what is left of it. */
    GUARD_RULE_SNAPSHOT_UNCOMMITTED, /* Own snapshot not written: it has a change that is not committed. */
    GUARD_RULE_SEND_FAILED,          /* A message that could not be sent was made a lost one. */
    GUARD_RULE_SILENT_CLOSE,         /* A write that failed while closing was completed without status. */
    GUARD_RULE_COUNT,
};

/* A name for metrics and messages, like "ack-before-barrier". */
const char *guard_rule_name(enum guard_rule rule);

/* All are called on the loop thread. on_role and on_ready come after raft has finished what it was doing, so
 * raft_* may be called in them; in on_fatal and on_refused it may not. on_refused and on_ready may be NULL.
 */
struct guard_callbacks {
    /* The process must exit, here and now; 'what' is a person's explanation and static, 'status' a RAFT_*
     * code, or 0. Once.
     */
    void (*on_fatal)(void *data, const char *what, int status);
    /* State (RAFT_FOLLOWER, ...) or term changed. Losing and regaining the lead in another term is one. */
    void (*on_role)(void *data, int old_role, int new_role, raft_term term);
    /* This server leads 'term' and everything older is applied: leader-only work may start. */
    void (*on_ready)(void *data, raft_term term);
    /* In raft_start(): what the disk has, its term and last index, before anything is written because of it
     * and raft acts by it. Not 0: raft_start() ends with that. May be NULL. */
    int (*on_loaded)(void *data, raft_term term, raft_index last_index);
    /* 'from' sent what no correct peer sends; 'why' is static. For the log, rate-limited by the receiver. */
    void (*on_refused)(void *data, raft_id from, enum guard_rule rule, const char *why);
};

/* A place in the log: index and term of an entry. */
struct guard_position {
    raft_index index;
    raft_term term;
};

struct guard_append;

/* Private but for tests; in the header so that owners can embed it. It must not move. */
struct guard {
    struct raft_io io;
    struct raft_io *inner;
    struct raft *raft;
    struct guard_callbacks callbacks;
    void *data;

    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb closed;

    int role; /* As last told by on_role. */
    raft_term term;

    struct raft_barrier barrier;
    raft_term barrier_term;   /* Term in which 'barrier' was submitted, or 0. */
    raft_index barrier_index; /* Its entry. */
    bool barrier_in_flight;
    bool barrier_through; /* Committed and applied. */
    raft_term ready_term; /* As last told by on_ready. */

    raft_id leader_id; /* Whom we know as leader of leader_term; maybe ourselves. */
    raft_term leader_term;
    bool retired; /* See guard_retire(). */

    unsigned appends_in_flight;
    struct guard_append *held;  /* Completions for raft_close(), newest first. */
    bool handling_append;       /* Inside raft's handling of AppendEntries. */
    raft_index vouched_index;   /* Highest index that message says anything about. */
    bool completing_old_append; /* Inside the completion of an append of an older term. */
    bool dead;                  /* on_fatal was called. */
    bool closing;

    raft_index next_index;        /* Of the next append. */
    unsigned truncations;         /* How often the log was cut since the start. */
    struct guard_members members; /* What the log says of them. */
    struct guard_position stored; /* See guard_stored(). */

    uint64_t fired[GUARD_RULE_COUNT];
};

/* 'raft' and 'inner' are borrowed until guard_done(); 'raft' may still be uninitialised. */
void guard_init(struct guard *guard, struct raft *raft, struct raft_io *inner,
                const struct guard_callbacks *callbacks, void *data);
/* Once raft is closed (or was never started). NULL does nothing. */
void guard_done(struct guard *guard);

/* What raft_init() gets instead of the inner io. */
struct raft_io *guard_io(struct guard *guard);

/* Notices what raft_* calls outside of messages, ticks and completions have changed. Call it after
 * raft_start() (a single voter leads at once), and wherever a tick's delay would be felt. */
void guard_observe(struct guard *guard);

/* Whether this server leads and the barrier of its term is through: everything that was ever committed is
 * applied here. Leader-only work requires it, and must carry the term all the same. */
bool guard_is_ready(const struct guard *guard);

/* The others go on without this server, as its owner has learned: it was removed while it was away, and would
 * campaign for ever (docs/RAFT.md §5). It keeps quiet, until it hears a leader again. To keep quiet is always
 * legal in Raft, so nothing is lost if that was a mistake but one that could have led. */
void guard_retire(struct guard *guard);

/* Whether log entries are on their way to the disk (a leadership transfer to us would be refused). */
bool guard_is_writing(const struct guard *guard);

/* How far the log on the disk goes, for sidefile.h: after raft_start() what was found, later never more than
 * what is there. Compare the term first. (A follower's log may lose a tail of an older term to a new leader,
 * so the index alone may fall; between the loss and the next write the term is said to be 0.) */
struct guard_position guard_stored(const struct guard *guard);

/* How often a rule has fired. */
uint64_t guard_fired(const struct guard *guard, enum guard_rule rule);
