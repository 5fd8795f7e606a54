/* SPDX-License-Identifier: Apache-2.0 */
/* What to say if this process dies of a signal: libraft 0.15 reads most damaged files to an error, and some
 * to a double free (docs/RAFT.md §6). Whoever looks why fleetd does not start is to find more than that. */
#pragma once

/* From now on, until last_words_clear(): if SIGABRT, SIGBUS or SIGSEGV ends the process, 'text' and a line's
 * end are written to stderr first. Copied; one at a time. */
void last_words_set(const char *text);
void last_words_clear(void);
