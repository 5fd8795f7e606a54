/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share; nobody else includes this.
 *
 *      store.c          opening and closing, and what the world is told
 *      store_fsm.c      the registry as libraft's state machine; when a snapshot is due
 *      store_propose.c  proposals and barriers
 *      store_members.c  the Raft configuration, and handing leadership over
 *      store_place.c    where servers are, also those that have moved
 *      store_disk.c     the side file, the free space, what a start needs to know about the directory
 *
 * libraft calls back from deep inside itself. Such a callback only notes what happened; whoever asked hears
 * of it through store->defer, in order, when raft is in the middle of nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <raft.h>
#include <raft/uv.h>
#include <uv.h>

#include "base/err.h"
#include "raftstore/defer.h"
#include "raftstore/disk_watch.h"
#include "raftstore/guard.h"
#include "raftstore/limits.h"
#include "raftstore/raftnet.h"
#include "raftstore/sidefile.h"
#include "raftstore/store.h"
#include "raftstore/store_text.h"

#define HANDOVER_TRIES_MAX 3u

struct proposal;
struct barrier_wait;

/* A change of the Raft configuration, in as many steps as it takes. */
struct server_change {
    struct raft_change request;
    uint64_t id;
    char *address;
    enum server_role role;
    store_done *done;
    void *data;
    bool active;
    unsigned steps; /* That are committed. */
    int status;     /* Of the last one. */
    /* One that is to be removed must have the log up to here first, if it can before the deadline. */
    bool waits;
    raft_index wait_index;
    uint64_t wait_from_ms;
};

/* Giving leadership away. As long as it is wanted no new proposal is taken. */
struct handover {
    bool wanted, in_flight;
    struct raft_transfer request; /* libraft 0.15 may touch it after its callback (canonical/raft #396): it
                                     lives as long as we do. */
    bool waits;                   /* For the heir's log, since... */
    uint64_t wait_from_ms;
    raft_id tried[HANDOVER_TRIES_MAX];
    unsigned tries;
    raft_id heirs[RAFT_SERVERS_MAX]; /* Who may have it; none named: any voter. */
    size_t heir_count;
};

/* Of whom somebody has said that it has moved. */
struct moved_server {
    uint64_t id;
    char *from, *to;
};

/* What is done in a thread, because it blocks; what else is in here is the thread's while it is busy. */
struct store_disk_job {
    uv_work_t work;
    bool busy;
    int status;
    struct err error;
    bool complained;
};

#define STORE_LOG_DIRECTORY "raft" /* In the data directory. */

struct store_disk {
    enum disk_level level;
    struct err reason;     /* Why writes are refused, unless the level is OK. */
    uint64_t next_away_ms; /* When leadership may be given away again for it. */
    bool had_metadata, had_log;
    unsigned turn;

    /* Two jobs: on a disk in trouble fsync() may take very long, and then above all the free space must be
     * known. */
    struct store_disk_job look;
    uint64_t free_bytes;
    struct store_disk_job record;
    struct sidefile writing, written;
    bool is_last;
};

struct store {
    uv_loop_t *loop;
    struct store_callbacks callbacks;
    void *data;
    struct raft raft;
    struct raft_io io; /* raft_uv: the disk. */
    struct raft_uv_transport transport;
    struct raft_fsm fsm;
    struct guard guard;
    struct raftnet *net;
    struct defer *defer;
    uv_check_t check;
    uv_timer_t timer; /* The disk's while running, watchdog while closing. */
    char *directory;  /* raft's. */
    uint64_t server_id;
    char *address; /* Where the others are to dial this server. */
    unsigned election_ms;
    struct moved_server moved[RAFT_SERVERS_MAX];
    size_t moved_count;

    struct registry *registry;
    struct registry_snapshot *snapshot; /* While raft writes it. */
    uint64_t snapshot_log_bytes;        /* A snapshot is due after that much, */
    uint64_t log_bytes;                 /* and there is this much since the last, */
    unsigned log_entries;               /* in so many commands. */
    struct err restore_error;
    int restore_status;
    const struct store_config *opening; /* Only while it opens: for whom the directory must be right... */
    int load_status;                    /* ...and whether it is: with an errno, and why not. */
    struct err load_error;
    bool changed_early; /* Before store_open() had returned. */

    struct proposal *queued; /* Not yet handed to raft: the window is full. */
    unsigned queued_count, in_flight;
    struct store_stats stats;
    bool pumping;

    struct raft_barrier barrier;
    bool barrier_in_flight;
    struct barrier_wait *barrier_now, *barrier_next;
    int barrier_status;

    struct server_change change;
    struct handover handover;
    uint64_t hang_up_ms; /* When connections that serve no purpose were looked for last. */
    struct store_disk disk;

    /* As last told. */
    enum store_role role;
    uint64_t term, leader_id;
    char leader_address[ADDRESS_MAX + 1];
    bool leads;
    uint64_t refused_told_ms; /* When a refused message was last told, */
    unsigned refused_untold;  /* and how many were not. */

    bool started, closing, raft_closed;
    unsigned handles;
    void (*closed)(void *data);
    void *closed_data;
};

/* Does not return, whatever the owner does: nothing half done may be told to anybody, or be finished. */
void store_fatal(struct store *store, const char *why) __attribute__((noreturn));

/* ---- store_fsm.c ---- */

void store_fsm_init(struct store *store);
/* After raft_init(). */
void store_fsm_start(struct store *store);

/* ---- store_propose.c ---- */

/* Answers everything that waits outside of raft, now that nothing may be proposed: it may be asked again
 * elsewhere. */
void store_refuse_queued(struct store *store);
/* Nothing of ours is on its way through raft. */
bool store_is_idle(const struct store *store);

/* ---- store_place.c ---- */

/* After raft_start(): whom of the configuration's servers the moves are about. */
void store_place_start(struct store *store, const struct store_config *config);
void store_place_done(struct store *store);
int store_resolve(uint64_t server_id, char *address, void *data);                    /* on_resolve... */
int store_locate(uint64_t server_id, char *address, bool *ret_may_move, void *data); /* ...and on_locate. */

/* ---- store_members.c ---- */

/* NULL: no such server, or raft is closed. */
const struct raft_server *store_find_server(const struct store *store, uint64_t id);
/* Tells 'done', in a later turn of the loop. */
void store_refuse_change(struct store *store, store_done *done, void *data, const char *reason);
/* In every turn of the loop. */
void store_members_turn(struct store *store);
/* Gives leadership to a voter that answers, if there is one and we have it; when closing, closes raft then.
 */
void store_handover_begin(struct store *store);
/* A defer_fn: to be deferred when the store has become idle. */
void store_handover_step(void *data);
/* For store_members.c, in store.c: what follows the handover. */
void store_close_raft(struct store *store);

/* ---- store_disk.c ---- */

/* Before libraft touches the directory: makes it, looks what is there and whose it is. */
int store_disk_prepare(struct store *store, const struct store_config *config, struct err *err);
/* After raft_start(): whether the log has come as far as it had when we last looked. */
int store_disk_check(struct store *store, const struct store_config *config, raft_term term,
                     raft_index last_index, struct err *err);
/* What went wrong with the directory when raft_init() or so failed, as a negative errno, for a person. */
int store_disk_error(struct store *store, int status, struct err *err);
void store_disk_start(struct store *store);
/* While the disk is low, leadership is somebody else's. */
void store_disk_yield_lead(struct store *store);
/* After raft is closed: waits for the thread, writes the side file for the last time, calls store_finish().
 */
void store_disk_close(struct store *store);
void store_finish(struct store *store);
