/* SPDX-License-Identifier: Apache-2.0 */
/* The data of a RAFT_CHANGE entry, in libraft's own encoding, of which it keeps the decoder to itself, with
 * only assertions against reading past the end: a format byte (1), the number of servers, and for each its
 * id, its address with a NUL, and its role; numbers have 8 bytes, little endian. Zeroes may follow. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "raftstore/limits.h"

struct raftconf {
    struct raftconf_server {
        uint64_t id;
        const char *address; /* Borrowed from what was read. */
        int role;            /* RAFT_STANDBY, RAFT_VOTER or RAFT_SPARE. */
    } servers[RAFT_SERVERS_MAX];
    size_t count;
};

/* -EBADMSG: it is none, or has a server that could not be one: without an id, or an address that is none. */
int raftconf_read(const void *bytes, size_t size, struct raftconf *ret);
