/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between libraft 0.15 (Debian 12, canonical/raft) and 0.22 (Debian 13, cowsql/raft), so that no
 * other file needs an #if for it. 0.15 has no version macro; 0.22 has RAFT_VERSION_NUMBER. (Some code is only
 * for one of them, and asks RAFT_COMPAT_IS_015.)
 *
 * Whoever looks into `struct raft` does it here and nowhere else. The questions that only make sense for a
 * hole of 0.15 answer "no" on 0.22. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <raft.h>

#ifdef RAFT_VERSION_NUMBER
#define RAFT_COMPAT_IS_015            0
#define RAFT_IO_APPEND_ENTRIES        RAFT_APPEND_ENTRIES
#define RAFT_IO_APPEND_ENTRIES_RESULT RAFT_APPEND_ENTRIES_RESULT
#define RAFT_IO_REQUEST_VOTE          RAFT_REQUEST_VOTE
#define RAFT_IO_REQUEST_VOTE_RESULT   RAFT_REQUEST_VOTE_RESULT
#define RAFT_IO_INSTALL_SNAPSHOT      RAFT_INSTALL_SNAPSHOT
#define RAFT_IO_TIMEOUT_NOW           RAFT_TIMEOUT_NOW
#else
#define RAFT_COMPAT_IS_015 1
#endif

/* Whether send() may fail at once. 0.22 leaves it at the first message that does: those to other peers in the
 * same turn are not sent, entries are freed twice in recvCb(), and raft_apply() returns the error although
 * the entry is in the log, so that the caller frees its data too. A callback with a status is all right. */
#define RAFT_COMPAT_SEND_MAY_FAIL RAFT_COMPAT_IS_015

/* 0.22: raft_uv_init() wants to know which struct raft_uv_transport it gets. (A macro: not everybody who
 * needs the rest has <raft/uv.h>.) */
#if RAFT_COMPAT_IS_015
#define raft_compat_set_transport_version(transport) ((void)(transport))
#else
#define raft_compat_set_transport_version(transport) ((void)((transport)->version = 1))
#endif

/* NULL: it is none of them. */
static inline struct raft_server *raft_compat_find_server(const struct raft_configuration *configuration,
                                                          raft_id id)
{
    for (unsigned i = 0; i < configuration->n; i++)
        if (configuration->servers[i].id == id)
            return &configuration->servers[i];
    return NULL;
}

/* Changes where a server is in the configuration that is in memory. The next entry that changes the
 * configuration, and the next snapshot, are made of it. For who decides alone: any other server's log has the
 * old one (store_move_self()). */
static inline int raft_compat_set_address(struct raft *raft, raft_id id, const char *address)
{
    struct raft_server *server = raft_compat_find_server(&raft->configuration, id);
    char *copy;

    if (server == NULL)
        return RAFT_NOTFOUND;
    copy = raft_malloc(strlen(address) + 1);
    if (copy == NULL)
        return RAFT_NOMEM;
    strcpy(copy, address);
    raft_free(server->address);
    server->address = copy;
    return 0;
}

/* 0.15: the entry of a change that raft would undo if it were cut off the log, or 0. It undoes it wrongly
 * (docs/RAFT.md §1): with 0 it leaves that to the guard. A leader takes no change while there is one. */
static inline raft_index raft_compat_uncommitted_change(const struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return raft->configuration_uncommitted_index;
#else
    (void)raft;
    return 0;
#endif
}

static inline void raft_compat_set_uncommitted_change(struct raft *raft, raft_index index)
{
#if RAFT_COMPAT_IS_015
    raft->configuration_uncommitted_index = index;
#else
    (void)raft, (void)index;
#endif
}

/* 0.15: of a follower: from now on it goes by this configuration, of that entry. Takes it over. */
static inline void raft_compat_set_configuration(struct raft *raft, struct raft_configuration *configuration,
                                                 raft_index index)
{
#if RAFT_COMPAT_IS_015
    raft_configuration_close(&raft->configuration);
    raft->configuration = *configuration;
    raft->configuration_index = index;
#else
    (void)raft, (void)index;
    raft_configuration_close(configuration);
#endif
}

/* What is on the disk already: a term of its own, and its vote for itself. */
static inline void raft_compat_set_own_term(struct raft *raft, raft_term term)
{
    raft->current_term = term;
    raft->voted_for = raft->id;
}

static inline raft_term raft_compat_term(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return raft->current_term;
#else
    return raft_current_term(raft);
#endif
}

static inline raft_index raft_compat_commit_index(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return raft->commit_index;
#else
    return raft_commit_index(raft);
#endif
}

/* The last entry that is committed and on our own disk: a leader may commit by what others have. */
static inline raft_index raft_compat_durable_index(struct raft *raft)
{
    return raft->commit_index < raft->last_stored ? raft->commit_index : raft->last_stored;
}

/* After raft_close() was called. 0.15 is RAFT_UNAVAILABLE then; 0.22 completes requests that are through
 * before it closes its io, still says that it leads, and must not be called any more: the result of
 * raft_barrier() and others would be an uninitialised variable. */
static inline bool raft_compat_is_closing(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return raft_state(raft) == RAFT_UNAVAILABLE;
#else
    return raft->legacy.closing;
#endif
}

/* Up to where the leader knows the log of server 'id' to be its own; 0: it does not know, or does not lead.
 */
static inline raft_index raft_compat_match_index(struct raft *raft, raft_id id)
{
    raft_index index = 0;
#if RAFT_COMPAT_IS_015
    const struct raft_server *server = raft_compat_find_server(&raft->configuration, id);

    if (raft_state(raft) == RAFT_LEADER && server != NULL)
        index = raft->leader_state.progress[server - raft->configuration.servers].match_index;
#else
    if (raft_match_index(raft, id, &index) != 0)
        index = 0;
#endif
    return index;
}

/* 0.15: how many entries were applied since the last snapshot that is on the disk. */
static inline unsigned raft_compat_behind_snapshot(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return (unsigned)(raft->last_applied - raft->log.snapshot.last_index);
#else
    (void)raft;
    return 0;
#endif
}

/* Whether this server leads or follows somebody: then raft refuses a vote that does not carry the disrupt
 * flag. (raft_leader() answers 0 during a transfer, so ask for the state first.) */
static inline bool raft_compat_has_leader(struct raft *raft)
{
    const char *address;
    raft_id id;

    if (raft_state(raft) == RAFT_LEADER)
        return true;
    raft_leader(raft, &id, &address);
    return raft_state(raft) == RAFT_FOLLOWER && id != 0;
}

/* Of a follower: whether it has heard nothing of its leader for as long as makes a voter campaign. */
static inline bool raft_compat_is_leader_silent(struct raft *raft, raft_time now)
{
    return now - raft->election_timer_start >= raft->follower_state.randomized_election_timeout;
}

/* Of a follower: as if it had heard no leader in this term yet. */
static inline void raft_compat_forget_leader(struct raft *raft)
{
    raft->follower_state.current_leader.id = 0;
    raft_free(raft->follower_state.current_leader.address);
    raft->follower_state.current_leader.address = NULL;
}

/* Whether our own disk has everything up to 'index'. */
static inline bool raft_compat_has_stored(struct raft *raft, raft_index index)
{
    return raft->last_stored >= index;
}

/* Whether the state machine has taken over the leader's snapshot up to 'index', which was just written.
 * Neither version tells: 0.15 just does not set last_stored, 0.22 goes on with an old state machine. */
static inline bool raft_compat_has_restored(struct raft *raft, raft_index index)
{
#if RAFT_COMPAT_IS_015
    (void)index;
    return raft->last_stored >= 1;
#else
    return raft_last_applied(raft) >= index;
#endif
}

/* Whether a snapshot of the leader is being written. Memory is already at the snapshot, the disk and the
 * state machine are not. For 0.15 the same test as the library's replicationInstallSnapshotBusy(). */
static inline bool raft_compat_is_installing(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    return raft->last_stored == 0 && raft->snapshot.put.data != NULL;
#else
    return raft->snapshot.installing;
#endif
}

/* 0.22: whether this server is taking a snapshot of its own. */
static inline bool raft_compat_is_taking_snapshot(struct raft *raft)
{
#if RAFT_COMPAT_IS_015
    (void)raft;
    return false;
#else
    return raft->legacy.snapshot_taking;
#endif
}

/* 0.15: whether 'candidate' would get our vote although somebody else has it, because we hand over to it. */
static inline bool raft_compat_would_vote_twice(struct raft *raft, const struct raft_request_vote *vote)
{
#if RAFT_COMPAT_IS_015
    return !vote->pre_vote && raft->transfer != NULL && raft->transfer->id == vote->candidate_id &&
           vote->term == raft->current_term && raft->voted_for != 0 && raft->voted_for != vote->candidate_id;
#else
    (void)raft, (void)vote;
    return false;
#endif
}

/* 0.15: lets the election timer of a follower begin anew. */
static inline void raft_compat_postpone_election(struct raft *raft, raft_time now)
{
#if RAFT_COMPAT_IS_015
    raft->election_timer_start = now;
#else
    (void)raft, (void)now;
#endif
}

/* The status with which to complete an append once raft_close() was called. On 0.15 raft has let go of its
 * requests by then, and a failure only leads it into logTruncate() of entries that may be gone: out of
 * bounds (canonical/raft #450, #466; fixed by 857e17e). With 0 it just releases the memory. */
static inline int raft_compat_append_status_at_close(int status)
{
#if RAFT_COMPAT_IS_015
    (void)status;
    return 0;
#else
    return status;
#endif
}

/* 0.22: raft reads from its io how much disk space is reserved for the log, whoever is behind that io. */
static inline void raft_compat_copy_capacity(struct raft_io *to, const struct raft_io *from)
{
#if RAFT_COMPAT_IS_015
    (void)to, (void)from;
#else
    to->capacity = from->capacity;
#endif
}

/* 0.22: with less reserved space than this (in KiB) a leader takes no entries: RAFT_NOSPACE. */
static inline void raft_compat_set_capacity_threshold(struct raft *raft, unsigned short kib)
{
#if RAFT_COMPAT_IS_015
    (void)raft, (void)kib;
#else
    raft_set_capacity_threshold(raft, kib);
#endif
}

/* How RequestVoteResult says whether it answers a pre-vote (RequestVoteResult.pre_vote of fleet.proto): the
 * values of 0.15's raft_tribool. */
enum raft_compat_pre_vote {
    RAFT_COMPAT_PRE_VOTE_UNKNOWN, /* From a version that did not say. Neither of ours sends it. */
    RAFT_COMPAT_PRE_VOTE_TRUE,
    RAFT_COMPAT_PRE_VOTE_FALSE,
};

static inline enum raft_compat_pre_vote
raft_compat_get_pre_vote(const struct raft_request_vote_result *result)
{
#if RAFT_COMPAT_IS_015
    return (enum raft_compat_pre_vote)result->pre_vote;
#else
    return result->pre_vote ? RAFT_COMPAT_PRE_VOTE_TRUE : RAFT_COMPAT_PRE_VOTE_FALSE;
#endif
}

/* 0.22 only looks at pre_vote from version 2 on; below that it would take a late pre-vote for a vote. */
static inline void raft_compat_set_pre_vote(struct raft_request_vote_result *result,
                                            enum raft_compat_pre_vote pre_vote)
{
#if RAFT_COMPAT_IS_015
    result->pre_vote = (raft_tribool)pre_vote;
#else
    result->pre_vote = pre_vote == RAFT_COMPAT_PRE_VOTE_TRUE;
    result->version = pre_vote == RAFT_COMPAT_PRE_VOTE_UNKNOWN ? 0 : 2;
#endif
}
