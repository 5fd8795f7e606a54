/* SPDX-License-Identifier: Apache-2.0 */
/* Where log messages go: to the journal with all their fields, when stderr is connected to it
 * (systemd.exec(5), JOURNAL_STREAM), else to stderr with the level as a word in front. */
#pragma once

#include <stdbool.h>

/* Sets the process's log sink. */
void journal_open(void);

/* Whether stderr is the stream that 'journal_stream' ("device:inode", or NULL) names. */
bool journal_is_stderr(const char *journal_stream);
