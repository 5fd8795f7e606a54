/* SPDX-License-Identifier: Apache-2.0 */
/* A log's directory for one who only reads it. libraft cannot read one and leave it as it is: it closes
 * segments that a power cut has left open, renames them, and cuts off what was set aside behind the last
 * entry (raft's src/uv_segment.c, uvSegmentLoadOpen). So it is given another directory, with links to the
 * files that nobody changes (closed segments, snapshots) and copies of the others: three segments of 8 MiB at
 * most, and mostly holes. The directory is in $TMPDIR, or /tmp.
 *
 * What is copied may hold the authority's key, and libraft dies of some damaged segments (docs/RAFT.md §6):
 * so a process of its own, the janitor, waits until this one is done with it or has ended, however, and
 * removes it. Both work by the descriptor of the directory that was made, never by its name: once it is
 * removed anybody may put a link to another under that. */
#pragma once

#include "base/err.h"

struct log_view;

/* Makes one of 'directory', and begins its janitor. log_view_free() ends both; NULL is fine. All block. */
int log_view_new(const char *directory, struct log_view **ret, struct err *err);
const char *log_view_path(const struct log_view *view); /* Where it is. */
void log_view_free(struct log_view *view);
