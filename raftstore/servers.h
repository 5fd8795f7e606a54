/* SPDX-License-Identifier: Apache-2.0 */
/* The servers of the Raft configuration, as plain data. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum server_role { /* The numbers are libraft's. */
                   SERVER_REMOVED = -1,
                   SERVER_STANDBY = 0, /* Has the log, does not vote. */
                   SERVER_VOTER = 1,
                   SERVER_SPARE = 2, /* Only known. */
};

/* What somebody has decided about a machine's vote. */
enum vote_wish {
    VOTE_AUTOMATIC,
    VOTE_ALWAYS, /* Rather than others. */
    VOTE_NEVER,
};

struct store_server {
    uint64_t id;
    const char *address; /* Borrowed until the loop's next turn. */
    enum server_role role;
    /* What the leader knows of it; of itself all, of the others nothing if this host does not lead. */
    bool caught_up;     /* It has the log, but for what was written lately. */
    uint64_t silent_ms; /* Since it was heard last; UINT64_MAX: it was never heard. */
};
