/* SPDX-License-Identifier: Apache-2.0 */
/* The disk watch: sees a full disk coming. A replica that can not write stops (guard.h), and a leader that
 * stops costs the cluster an election; so well before that it gives leadership away and refuses new writes.
 *
 * Two parts. The ballast is a file of real blocks in the data directory that nothing else uses: with it freed
 * by hand, a host whose disk is full can be started and repaired. It is never released by itself, that would
 * only put off the same end. The level is a pure decision about the free space, with some distance between
 * falling and rising, so that a disk at the border does not make leadership wander.
 *
 *     OK --- below LOW ---> LOW --- below CRITICAL ---> CRITICAL
 *        <-- LOW + slack --     <-- CRITICAL + slack --
 *
 * The functions that touch the disk block: call them in a thread. */
#pragma once

#include <stdint.h>

#include "base/err.h"

#define DISK_WATCH_MIB           (UINT64_C(1) << 20)
#define DISK_WATCH_BALLAST_NAME  "ballast"
#define DISK_WATCH_BALLAST_BYTES (32 * DISK_WATCH_MIB)
/* raft keeps three segments of 8 MiB ahead, and a snapshot wants room beside the last one. */
#define DISK_WATCH_LOW_BYTES      (64 * DISK_WATCH_MIB)
#define DISK_WATCH_CRITICAL_BYTES (16 * DISK_WATCH_MIB)
#define DISK_WATCH_SLACK_BYTES    (16 * DISK_WATCH_MIB)

enum disk_level {
    DISK_LEVEL_OK,
    DISK_LEVEL_LOW,      /* Transfer leadership away, refuse new writes; go on replicating. */
    DISK_LEVEL_CRITICAL, /* As LOW; the next segment may not fit: tell the administrator loudly. */
};

const char *disk_level_name(enum disk_level level);

/* The level after 'free_bytes' were seen at 'level'. Pure. */
enum disk_level disk_level_next(enum disk_level level, uint64_t free_bytes);

/* Why writes are refused at this level, for a person: "only 41 MiB are free in DIR". 'err' is set. Returns 0
 * at DISK_LEVEL_OK and -ENOSPC at the others. */
int disk_level_reason(enum disk_level level, uint64_t free_bytes, const char *directory, struct err *err);

/* What an unprivileged writer could still write in 'directory'. */
int disk_watch_free(const char *directory, uint64_t *ret_bytes, struct err *err);

/* Makes the ballast as big as it must be, if it is not. -ENOSPC: there is no room for it; go on without. */
int disk_watch_keep_ballast(const char *directory, struct err *err);
