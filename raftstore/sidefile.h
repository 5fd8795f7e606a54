/* SPDX-License-Identifier: Apache-2.0 */
/* The side file: notices a log that went backwards.
 *
 * A replica that forgets what it acknowledged, or how it voted, breaks Raft for all: a committed entry is
 * lost, or a term gets two leaders. libraft can not notice it. A disk that was restored from a backup or a
 * virtual machine's snapshot, a segment that was cut off, metadata files that were deleted: it starts with
 * what it finds (docs/RAFT.md §6). So a small file next to raft's own remembers how far the log had
 * come; at the next start the log must have come as far.
 *
 * It is written about once a second and when the store closes, so it may lag behind: less than it says is
 * wrong, more is fine. What it is told must be on the disk already, and committed. A committed entry is never
 * cut off again, so its index alone tells; what is not committed a follower may rightly lose to a new leader,
 * and a power cut may take it, and neither must keep a host from starting. After raft_recover() the file must
 * be removed.
 *
 * The file is one line of text that ends in a checksum. It is replaced as a whole and fsync'ed. All functions
 * block: call them in a thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SIDEFILE_NAME            "progress"
#define SIDEFILE_CLUSTER_ID_SIZE 16

struct sidefile {
    uint8_t cluster_id[SIDEFILE_CLUSTER_ID_SIZE];
    uint64_t server_id;
    uint64_t term;      /* raft's current term. */
    uint64_t committed; /* Index of the last entry that is on the disk and committed. */
};

/* What the data directory holds, and what raft made of it. */
struct sidefile_state {
    uint8_t cluster_id[SIDEFILE_CLUSTER_ID_SIZE]; /* As configured or recorded elsewhere. */
    uint64_t server_id;
    uint64_t term;       /* These two as the disk has them, before anything is written because of them. */
    uint64_t last_index; /* 0: the log is empty. */
    bool has_metadata;   /* metadata1 or metadata2 exists. */
    bool has_log;        /* A segment with something in it, or a snapshot, exists. */
};

/* Replaces the side file in 'directory'. On failure the old one is still there. */
int sidefile_write(const char *directory, const struct sidefile *file, struct err *err);

/* -ENOENT: there is none (a new directory). -EBADMSG: it is damaged. -EPROTONOSUPPORT: a later fleet wrote
 * it. */
int sidefile_read(const char *directory, struct sidefile *ret, struct err *err);

/* Looks which of raft's files are in 'directory'; sets has_metadata and has_log and nothing else. */
int sidefile_look(const char *directory, struct sidefile_state *state, struct err *err);

/* Whether this server may take part, with 'file' as recorded, or NULL if there is none. Pure; 'directory' is
 * for the message. -ESTALE: no, and never again under this id: wipe and rejoin. -EXDEV: the directory belongs
 * to another cluster or server. */
int sidefile_check(const struct sidefile *file, const struct sidefile_state *state, const char *directory,
                   struct err *err);

/* The part of it that needs only the ids: -EXDEV, before libraft touches the directory. */
int sidefile_check_owner(const struct sidefile *file, const struct sidefile_state *state,
                         const char *directory, struct err *err);
