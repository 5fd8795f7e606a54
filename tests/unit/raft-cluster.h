/* SPDX-License-Identifier: Apache-2.0 */
/* A raft cluster in virtual time for tests, on libraft's own fixture, with the guard or bare. A test reads
 * like the transcript of a protocol run: cluster_elect(&c, 0); cluster_cut(&c, 0, 1); cluster_apply(&c, 0,
 * 'X').
 *
 * Servers are counted from 0 here; their raft ids are one higher. A command is a letter; what a server has
 * applied is a string of letters. Only the server that was elected last may campaign, so nothing happens by
 * chance. A message takes 15 ms, a write 10 ms, heartbeats come every 100 ms, T is 1000 ms. */
#pragma once

#include <stdbool.h>

#include <raft/fixture.h>

#include "raftstore/guard.h"

#define CLUSTER_SERVERS_MAX 5
#define CLUSTER_LETTERS_MAX 255

/* A write that was taken from the disk: see cluster_catch_writes(). */
struct cluster_write {
    struct raft_io_append *append;
    raft_io_append_cb append_cb;
    struct raft_io_snapshot_put *put;
    raft_io_snapshot_put_cb put_cb;
    struct raft_buffer *put_buffers;
};

struct cluster_operation;

/* A state machine of the test's own, in the place of the string of letters. */
struct cluster_machine {
    void *(*make)(void);
    void (*free)(void *machine);
    void (*apply)(void *machine, const void *bytes, size_t size);
    /* The caller frees *ret with raft_free(). */
    void (*snapshot)(void *machine, void **ret, size_t *ret_size);
    bool (*restore)(void *machine, const void *bytes, size_t size);
};

struct cluster_server {
    struct raft_fsm fsm;
    void *machine;      /* Of cluster.kind. */
    struct raft_io *io; /* The fixture's. */
    struct guard guard;
    raft_io_recv_cb recv; /* Of whoever sits on the fixture's io: raft or the guard. */
    char applied[CLUSTER_LETTERS_MAX + 1];
    bool fails_restore;

    struct cluster_operation *disk; /* What the disk has to do, in order; the first is under way. */
    size_t disk_entries;            /* How many entries it has. */
    bool loses_writes;              /* What is under way does not get there: see cluster_crash(). */

    unsigned snapshots;                      /* Which it has begun to write, and */
    int snapshot_roles[CLUSTER_SERVERS_MAX]; /* what the last one says of the members. */

    struct raft_transfer transfer;

    bool refuses_append; /* The next one fails at once. */
    bool catches_writes;
    struct cluster_write caught[8];
    unsigned caught_count;

    struct raft_io_send *sent_request;     /* What went to the network last, */
    struct raft_message sent;              /* (lasting for results and TimeoutNow) */
    struct raft_append_entries_result ack; /* and the last acknowledgement */
    struct raft_request_vote_result vote;  /* and vote. */

    char acknowledged[CLUSTER_LETTERS_MAX + 1]; /* Letters whose callback said 0. */
    unsigned applies_done;                      /* Callbacks of cluster_apply(). */
    int apply_status;                           /* Of the last. */

    bool is_gone;    /* After on_fatal: the process would be, so nothing more is written. */
    unsigned fatals; /* What the guard said. */
    const char *fatal;
    int fatal_status;
    unsigned refusals;
    raft_term ready_term;
    unsigned readies;
    int role;
    raft_term role_term;
    unsigned role_changes;
};

struct cluster {
    struct raft_fixture fixture;
    struct cluster_server servers[CLUSTER_SERVERS_MAX];
    unsigned count;
    bool guarded;
    const struct cluster_machine *kind; /* NULL: letters. */
    unsigned favourite;                 /* Who may campaign. */
    bool anybody;                       /* Everybody may. */
    bool asks_first;                    /* Who is started from now on has the pre-vote. */
};

/* All servers vote, are started, and nobody leads. */
void cluster_init(struct cluster *c, unsigned count, bool guarded);
/* Likewise, but only the first 'voters' of them vote; the others are standbys. */
void cluster_init_voters(struct cluster *c, unsigned count, unsigned voters, bool guarded);
/* Guarded, with another state machine. */
void cluster_init_with(struct cluster *c, unsigned count, const struct cluster_machine *kind);
void cluster_done(struct cluster *c);

struct raft *cluster_raft(struct cluster *c, unsigned i);
raft_term cluster_term(struct cluster *c, unsigned i);
bool cluster_leads(struct cluster *c, unsigned i);
/* The role of 'j' by what 'i' has; -1: it has none. */
int cluster_role(struct cluster *c, unsigned i, unsigned j);
const char *cluster_applied(struct cluster *c, unsigned i);
uint64_t cluster_fired(struct cluster *c, unsigned i, enum guard_rule rule);
/* Whether a rule has fired that only 0.15 needs; true on 0.22. */
bool cluster_has_held(struct cluster *c, unsigned i, enum guard_rule rule);

/* The network, in both directions. */
void cluster_cut(struct cluster *c, unsigned i, unsigned j);
void cluster_heal(struct cluster *c, unsigned i, unsigned j);
void cluster_isolate(struct cluster *c, unsigned i);

/* A killed server keeps its memory; its links stay cut after cluster_revive() until they are healed. */
void cluster_kill(struct cluster *c, unsigned i);
void cluster_revive(struct cluster *c, unsigned i);
/* Stops the server and starts it from what its disk has: also what is on the way to it now, or with
 * cluster_crash() what is there now. */
void cluster_restart(struct cluster *c, unsigned i);
void cluster_crash(struct cluster *c, unsigned i);

void cluster_run(struct cluster *c, unsigned ms);
/* Runs until 'i' has this state, has applied 'letters', or so; false if that takes more than 20 s. */
bool cluster_run_until_state(struct cluster *c, unsigned i, int state);
bool cluster_run_until_applied(struct cluster *c, unsigned i, const char *letters);
bool cluster_run_until_follows(struct cluster *c, unsigned i, unsigned leader);
bool cluster_run_until_term(struct cluster *c, unsigned i, raft_term term);

/* Makes everybody forget the leader and lets 'i' campaign, until it leads; false if it can not win. */
bool cluster_elect(struct cluster *c, unsigned i);
/* Asks leader 'i' to make server 'j' a voter, standby or so. The result is raft_assign()'s. */
int cluster_assign(struct cluster *c, unsigned i, unsigned j, int role);
/* Likewise to remove it. */
int cluster_remove(struct cluster *c, unsigned i, unsigned j);
/* Asks leader 'i' to hand over to 'j'. The result is raft_transfer()'s. */
int cluster_transfer(struct cluster *c, unsigned i, unsigned j);
/* Submits a letter to the leader. The result is raft_apply()'s. */
int cluster_apply(struct cluster *c, unsigned i, char letter);
/* Likewise a command of the test's own, of a multiple of 8 bytes; the letter stands for it in 'acknowledged'.
 */
int cluster_apply_command(struct cluster *c, unsigned i, char letter, const void *bytes, size_t size);

/* Lets 'to' receive 'message' as if 'from' had sent it, now. What it owns is given away. */
void cluster_receive(struct cluster *c, unsigned from, unsigned to, struct raft_message *message);
/* AppendEntries with one entry of 'size' bytes. */
struct raft_message cluster_append_message(raft_term term, raft_index prev_index, raft_term prev_term,
                                           raft_index commit, size_t size);

/* InstallSnapshot of a state machine that has applied 'letters'. */
struct raft_message cluster_snapshot_message(struct cluster *c, raft_term term, raft_index last_index,
                                             raft_term last_term, const char *letters);
struct raft_message cluster_vote_message(raft_term term, unsigned candidate, raft_index last_index,
                                         raft_term last_term, bool disrupt);

/* From now on the writes of 'i' do not reach its disk, until cluster_answer_writes() completes them with
 * 'status' (in order) and lets later ones pass. Closing the server cancels them. */
void cluster_catch_writes(struct cluster *c, unsigned i);
void cluster_answer_writes(struct cluster *c, unsigned i, int status);

/* Two cmocka tests of one scenario: guarded_NAME and bare_NAME. When a new libraft makes a bare one fail, the
 * hole is closed and the rule can go.
 *
 * TWINS_015: on 0.22 it is closed, and what the guard has to say is the same without its rule. There
 * bare_NAME is not run. */
#define TWINS(scenario)                                            \
    {"guarded: " #scenario, guarded_##scenario, NULL, NULL, NULL}, \
    {                                                              \
        "bare: " #scenario, bare_##scenario, NULL, NULL, NULL      \
    }

#define TWINS_015(scenario)                                        \
    {"guarded: " #scenario, guarded_##scenario, NULL, NULL, NULL}, \
        CLUSTER_ON_015("bare: " #scenario, bare_##scenario)

/* A test of 0.15 alone. */
#define CLUSTER_ON_015(name, function)                                             \
    {                                                                              \
        name, RAFT_COMPAT_IS_015 ? function : cluster_not_on_022, NULL, NULL, NULL \
    }
void cluster_not_on_022(void **state); /* Skips. */
