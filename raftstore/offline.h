/* SPDX-License-Identifier: Apache-2.0 */
/* A store's data directory while no fleetd runs on it: reading all that its log holds, and making a log that
 * begins a new history of the data, with this host as its only server (docs/RECOVERY.md).
 *
 * A new log takes the place of the old one in steps, of which each can be the last one before a power cut:
 *
 *      1. raft.new is written, whole and to the disk                   what was there holds
 *      2. the member file names the new log's server id                from here on the new log holds:
 *      3. raft, if there is one, is moved aside                        offline_finish() goes on with 3 and 4,
 *      4. raft.new becomes raft                                        also at the next start of a store
 *
 * All functions block. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "raftstore/limits.h"
#include "raftstore/registry.h"
#include "raftstore/servers.h"

#define OFFLINE_NEW_LOG "raft.new" /* In the data directory. */

/* All that a log holds; with nobody to ask, entries that may not be committed count, too: they may be. */
struct offline_log {
    uint64_t term; /* The latest that this server knew... */
    uint64_t last_index,
        last_term;           /* ...and its last entry: who has the greater term, then index, has more. */
    uint64_t newest_wall_ms; /* When the leader took the newest command, by its clock; 0: unknown. */
    struct registry *registry;
    struct store_server servers[RAFT_SERVERS_MAX]; /* The configuration; addresses owned. */
    size_t server_count;
};

/* Whether a new log holds, and is not in its place yet: step 2 was taken, step 4 was not. */
bool offline_is_unfinished(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE],
                           uint64_t server_id);

/* Reads the log of this server of this cluster, the one that holds, and changes nothing. -ENOENT: it keeps
 * none. -EXDEV, -ESTALE, -EBADMSG, ... and a text as of store_open(). */
int offline_read(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t server_id,
                 struct offline_log *ret, struct err *err);
void offline_log_done(struct offline_log *log);

struct offline_seed {
    uint8_t cluster_id[CLUSTER_ID_SIZE];
    uint64_t server_id;
    const char *address;  /* "host:port", as the others are to dial it. */
    uint64_t index, term; /* Of the state that the log begins with; at least 1. */
    struct registry *registry;
};

/* Step 1. A raft.new that is there is replaced: nothing refers to it. */
int offline_write(const char *data_dir, const struct offline_seed *seed, struct err *err);

/* Steps 3 and 4, if there is a raft.new and it is of this server: then 1 is returned. What was in its place
 * is moved to '*ret_aside' (NULL: there was nothing), which the caller frees. 0: there is nothing to do. */
int offline_finish(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t server_id,
                   char **ret_aside, struct err *err);
