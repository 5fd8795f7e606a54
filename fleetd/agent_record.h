/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent must remember of its units when it is started again: the state file. It lies in a tmpfs on
 * purpose: after a reboot nothing was carried out. Losing it costs no unit: one that runs with the wanted
 * content is adopted anyway.
 *
 * (Lost between the writing of new content and the restart for it, the process of the older content runs on.)
 *
 * The file is a journal of lines, one per change, the last one of a name counts; a line that was cut short is
 * skipped. It is written anew, with one line per unit, when it has grown to several times its need. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "units/file.h"

#define AGENT_RESULT_SIZE     32
#define AGENT_INVOCATION_SIZE 33 /* 32 hex digits and a NUL. */

struct agent_record {
    char hash[UNIT_HASH_SIZE]; /* The content that systemd was made to know; "": none. */
    uint64_t generation;       /* The newest one carried out; 0: none. */
    uint64_t asked; /* The newest one for which systemd accepted a start, or it was found running; 0: none. */
    bool launched;  /* Asked to start, and not to stop since. */
    bool restart;   /* A process of an older content may run. */
    bool kept;      /* Up under a lease, when it was last seen before the lease ended. */
    char result[AGENT_RESULT_SIZE]; /* Of 'generation'; "": none. */
    uint64_t restarting;            /* A restart for this generation is, or was, about to be asked for... */
    char invocation[AGENT_INVOCATION_SIZE]; /* ...of this run of the unit (systemd's InvocationID), "": none.
                                             */
};

struct agent_records {
    char *path;
    int fd;      /* -1: not open for writing. */
    bool failed; /* It could not be written; tried again after many changes. */
    struct strbuf pending;
    size_t lines; /* In the file. */
};

/* Reads the file, calling 'each' for every line ('record' NULL: forgotten). Errors are logged, not returned:
 * the agent works without a memory. */
void agent_records_open(struct agent_records *records, const char *path,
                        void (*each)(const char *name, const struct agent_record *record, void *data),
                        void *data);

/* Notes a change; written by agent_records_flush(). NULL: the unit is forgotten. */
void agent_records_note(struct agent_records *records, const char *name, const struct agent_record *record);
void agent_records_flush(struct agent_records *records);

/* Whether the file is worth being written anew for 'count' units: then note them all between _begin() and
 * _end(). */
bool agent_records_is_long(const struct agent_records *records, size_t count);
void agent_records_begin(struct agent_records *records);
void agent_records_end(struct agent_records *records);

void agent_records_done(struct agent_records *records);
