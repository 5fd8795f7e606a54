/* SPDX-License-Identifier: Apache-2.0 */
/* The store: the registry, replicated. libraft on libuv with its log and snapshots in a directory, behind the
 * guard (guard.h) that makes it safe, with its messages on the cluster port (raftnet.h).
 *
 * Laws:
 *  - An answer STORE_APPLIED means: on a majority's disks, and in this host's registry.
 *  - STORE_UNKNOWN means just that. The same request id may be proposed again, to any leader, and is applied
 * at most once.
 *  - What cannot be written stops the process (on_fatal) before anybody is told otherwise. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/port.h"
#include "raftstore/registry.h"
#include "raftstore/servers.h"

struct store;

enum store_outcome {
    STORE_APPLIED, /* 'result' says what it came to. */
    STORE_REFUSED, /* Certainly nothing was done: not the leader, too much in flight, no room on disk. */
    STORE_UNKNOWN, /* Leadership was lost before the answer. */
};

#define STORE_OUTCOMES (STORE_UNKNOWN + 1)

enum store_role {
    STORE_IDLE, /* Follows nobody (yet): not a server of the Raft configuration, or no leader is heard. */
    STORE_FOLLOWER,
    STORE_CANDIDATE,
    STORE_LEADER,
};

/* 'result' is NULL unless STORE_APPLIED, and borrowed for the call. 'reason' is for people. */
typedef void store_done(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                        void *data);

struct store_callbacks {
    void (*on_change)(void *data); /* The registry has changed: a command, or a snapshot. */
    void (*on_role)(void *data);   /* Role, term or known leader have changed: ask store_role() etc. */
    void (*on_lead)(
        uint64_t term,
        void *data); /* Leader, and the term's barrier is through: leader-only work may start... */
    void (*on_yield)(void *data);                  /* ...and must stop. */
    void (*on_fatal)(const char *why, void *data); /* The store can go on only as a new process, if at all.
                                                      Exit at once; when this returns the store does it. */
};

/* A person's word that the server which the log has at 'from' is at 'to' now. */
struct store_move {
    const char *from, *to;
};

struct store_config {
    const char *directory; /* Made if missing. */
    uint64_t server_id;    /* Never 0, never used twice. */
    uint8_t cluster_id[CLUSTER_ID_SIZE];
    const char *address;            /* What the others dial: "host:port". */
    const struct store_move *moves; /* Of servers of the configuration as it is at the start; each holds for
                                       as long as the log has that server there. */
    size_t move_count;              /* Up to RAFT_SERVERS_MAX. */
    struct cluster_history history; /* That the log must be of, if there is one... */
    bool has_log;                   /* ...as there must be. */
    bool bootstrap;       /* The first server of a new cluster. Later it is ignored; but once the log is lost
                             it is refused: never the same cluster twice. */
    unsigned election_ms; /* 0: the default. */
    uint64_t snapshot_log_bytes; /* A snapshot is taken after so much log; 0: 16 MiB. */
};

/* Whether the log in this directory, if there is one, has room to be opened and to go on for a while: -ENOSPC
 * and a text if not. Opened without, it could only fail, or end the process with its first writes. */
int store_check_room(const char *directory, struct err *err);

/* Whether there is a log in this directory: a segment or a snapshot. */
bool store_directory_has_log(const char *directory);

/* Opens the directory and starts Raft. A server that is in no configuration waits silently until a leader
 * adds it. No callback comes from inside this call. -EXDEV: the directory is another server's or cluster's;
 * -ESTALE: it went back in time; -EBADMSG: it is damaged; -ENOSPC; each with a text that says what to do.
 * After a failure the loop may be left with handles of libraft: end the process. */
int store_open(uv_loop_t *loop, struct port *port, const struct store_config *config,
               const struct store_callbacks *callbacks, void *data, struct store **ret, struct err *err);

/* Whether it has a log with anything in it. That never becomes false again. */
bool store_has_log(const struct store *store);

const struct registry *store_registry(const struct store *store);
void store_changes_take(struct store *store, struct registry_changes *ret);

/* Proposes a command; this host must lead. 'done' comes exactly once, never from inside this call. Commands
 * are applied in the order of proposing. */
void store_propose(struct store *store, const Fleet__Command *command, store_done *done, void *data);

/* 'done' with STORE_APPLIED (and no result) once everything that was acknowledged before this call, anywhere,
 * is in this host's registry and this host was still the leader then: what makes a read current. Calls made
 * together share one barrier. */
void store_barrier(struct store *store, store_done *done, void *data);

enum store_role store_role(const struct store *store);
bool store_leads(const struct store *store); /* Leader, and past its barrier. */
uint64_t store_term(const struct store *store);
uint64_t store_leader_id(const struct store *store);         /* 0: none is known. */
const char *store_leader_address(const struct store *store); /* "": none is known. */
size_t store_servers(const struct store *store, struct store_server *servers,
                     size_t max); /* The current configuration. */

/* What has become of the proposals of this host, and how long those that were applied took. */
#define STORE_LATENCY_BUCKETS 12

struct store_stats {
    uint64_t outcomes[STORE_OUTCOMES];
    const unsigned *latency_limits_us;           /* Of each bucket, inclusive. */
    uint64_t latency[STORE_LATENCY_BUCKETS + 1]; /* How many in each bucket; the last: more than that. */
    uint64_t latency_sum_us;
};

void store_stats(const struct store *store, struct store_stats *ret);

/* Callbacks for an incoming connection of PURPOSE_RAFT: for port_callbacks.on_accept. */
const struct conn_callbacks *store_accept(struct store *store, const Fleet__Hello *hello, void **ret_data);

/* One change of the configuration at a time (dissertation §4.1); this host must lead. 'role' as in struct
 * store_server, or -1 to remove. A server that is new is added first; one that is removed as a voter is made
 * a standby first. 'done' once, with STORE_APPLIED; STORE_REFUSED: the role was not given, but a new server
 * may have been added; or STORE_UNKNOWN. The leader cannot change itself. */
void store_change_server(struct store *store, uint64_t id, const char *address, enum server_role role,
                         store_done *done, void *data);

/* Where this server is for the others, by its own log: its address in the current configuration, "" if it is
 * in none. Borrowed until the loop's next turn. */
const char *store_own_place(const struct store *store);

/* Where a server is that the log has at 'address', as far as somebody has said (store_config.moves); NULL:
 * nobody has. */
const char *store_moved_to(const struct store *store, uint64_t server_id, const char *address);

/* Puts this server's own address into the configuration, in place of the one that the log has for it. For the
 * only voter: there is nobody else who could take it out and add it anew. As long as that has not been done,
 * it says nothing to the others. 'done' as of store_change_server(). */
void store_move_self(struct store *store, store_done *done, void *data);

/* The leader has said that this server has no part in consensus (any more): it asks nobody for votes, until
 * it hears from a leader's store again. */
void store_retire(struct store *store);

/* Gives leadership to one of these voters (their ids; not more than RAFT_SERVERS_MAX) if one can take it, and
 * goes on leading otherwise. Until that is known, new proposals are refused. */
void store_hand_over(struct store *store, const uint64_t *heirs, size_t count);

/* Gives leadership away if somebody can take it, then closes; 'done' comes last, and the store is freed then.
 */
void store_close(struct store *store, void (*done)(void *data), void *data);
