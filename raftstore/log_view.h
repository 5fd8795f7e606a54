/* SPDX-License-Identifier: Apache-2.0 */
/* A log's directory for one who only reads it. libraft cannot read one and leave it as it is: it closes
 * segments that a power cut has left open, renames them, and cuts off what was set aside behind the last
 * entry (raft's src/uv_segment.c, uvSegmentLoadOpen). So it is given another directory, with links to the
 * files that nobody changes (closed segments, snapshots) and copies of the others: three segments of 8 MiB at
 * most, and mostly holes. The directory is in $TMPDIR, or /tmp. */
#pragma once

#include "base/err.h"

/* Makes one of 'directory', and says where it is. log_view_free() removes it, and frees the path. All block.
 */
int log_view_new(const char *directory, char **ret, struct err *err);
void log_view_free(char *path);
