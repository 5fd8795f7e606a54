/* SPDX-License-Identifier: Apache-2.0 */
/* The configurations that the log has, for the guard: the last one that may not be overwritten any more, and
 * those behind it. A server goes by the last one of its log, committed or not (dissertation §4.1), and raft
 * does not find it again in all cases when the log is cut (docs/RAFT.md §1). Passive: it hears what becomes
 * of the log, and answers. */
#pragma once

#include <stddef.h>

#include "raftstore/raft_compat.h"

struct guard_configuration {
    raft_index index; /* Of its entry. */
    struct raft_configuration configuration;
};

/* All zero: a log without any. */
struct guard_members {
    struct guard_configuration *items; /* Oldest first. */
    size_t count;
};

void guard_members_done(struct guard_members *members);

/* What raft starts with; 'snapshot' may be NULL. Forgets everything else. */
void guard_members_load(struct guard_members *members, const struct raft_snapshot *snapshot,
                        raft_index start_index, const struct raft_entry entries[], size_t count);
/* Entries that are appended from 'index' on. What stands before the last one up to 'commit_index' is
 * forgotten. */
void guard_members_append(struct guard_members *members, raft_index index, const struct raft_entry entries[],
                          size_t count, raft_index commit_index);
/* The entries from 'index' on are gone. */
void guard_members_truncate(struct guard_members *members, raft_index index);

/* The last one; NULL: there is none. */
const struct guard_configuration *guard_members_last(const struct guard_members *members);

/* The caller closes *ret. */
void guard_configuration_copy(const struct raft_configuration *from, struct raft_configuration *ret);
