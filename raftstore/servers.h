/* SPDX-License-Identifier: Apache-2.0 */
/* The servers of the Raft configuration, as plain data. */
#pragma once

#include <stdint.h>

enum server_role { /* The numbers are libraft's. */
                   SERVER_REMOVED = -1,
                   SERVER_STANDBY = 0, /* Has the log, does not vote. */
                   SERVER_VOTER = 1,
                   SERVER_SPARE = 2, /* Only known. */
};

struct store_server {
    uint64_t id;
    const char *address; /* Borrowed until the loop's next turn. */
    enum server_role role;
};
