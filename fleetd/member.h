/* SPDX-License-Identifier: Apache-2.0 */
/* Which cluster this host belongs to, and as what: a small file in the data directory, written once when the
 * host founds a cluster or is admitted to one. Without it the host belongs to none. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/str.h"
#include "raftstore/registry.h"

struct member {
    uint8_t cluster_id[CLUSTER_ID_SIZE];
    uint64_t server_id; /* Drawn when the data directory is made: never used twice (docs/RAFT.md §5). */
    char machine_id[MACHINE_ID_SIZE]; /* Of the host that the directory was made on. */
    bool removed;                     /* It was removed from its cluster, and is to stop what it has of it. */
    bool founder;                     /* It began the cluster: its log starts with itself. */
    struct cluster_history history;   /* Of the data that it follows. */
    bool has_log;                     /* It keeps a log: one that is empty has been lost. */
    struct strlist peers;             /* Whom to ask for the leader: addresses, as last heard from one. */
    struct strlist keepers; /* Machine ids of those who keep the data, if this host is one of them. */
};

/* -ENOENT: this host belongs to no cluster. -EBADMSG, with a text: the file is damaged. -EPROTONOSUPPORT: a
 * later version wrote it, in a format that is not known here. */
int member_load(const char *data_dir, struct member *ret, struct err *err);

/* Makes the directory if it is missing, writes the file whole or not at all, and to the disk. */
int member_save(const char *data_dir, const struct member *member, struct err *err);

/* Removes what makes this host a member, the file last: the log, its snapshots, whatever file there is beside
 * them. */
int member_forget(const char *data_dir, struct err *err);
/* Why this host takes no part in consensus any more although it keeps a log: its cluster goes on with data of
 * a later history. False: it may. Kept in a file of its own, so that a person who knows better can remove it.
 * The caller frees *ret. */
bool member_is_superseded(const char *data_dir, char **ret);
/* It belongs to another cluster now, or to none: whatever was said of its data before. */
void member_clear_superseded(const char *data_dir);
int member_supersede(const char *data_dir, const char *why, struct err *err);

void member_draw_server_id(struct member *member);
void member_draw_cluster_id(struct member *member);
void member_done(struct member *member);
