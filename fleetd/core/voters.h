/* SPDX-License-Identifier: Apache-2.0 */
/* Who of the hosts takes part in consensus. Pure: from how things are to the next single step (Raft changes
 * one server at a time, dissertation §4.1), or none.
 *
 * Laws:
 *  - A server id that is no registered machine's is removed: its host lost its disk, or left.
 *  - One whose host is there, but at another address, is removed too, and then added like any other: nobody's
 *    address is changed in place. Else one half of the servers could hear it at the old one, and the other
 * half a copy of it at the new one (docs/RAFT.md §5).
 *  - There are as many voters as wanted and an odd number of them, as far as there are hosts for it.
 *  - A host becomes a standby first, and a voter when that makes, or is on the way to, an odd number. An even
 *    number that nobody is left to mend upwards is mended downwards: two voters stand less than one.
 *  - One that must not lead (disable_engine) is given a vote only where there are not enough others, and
 * loses it to another one that is there: what is stored is kept by as many hosts as wanted, but decided by
 * the others. While such a host leads and a voter that may lead is there, nothing is done: that one is to
 * lead first.
 *  - Nobody is made a voter, or added, who is not alive. A voter is not replaced for being away; a standby is
 *    if it is lost, and there is another. The leader itself always votes.
 *  - There are at most STANDBYS_WANTED more than wanted, except while one takes the place of another.
 *  - While nothing else changes, every way ends, and no step undoes an earlier one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftstore/servers.h"

#define STANDBYS_WANTED 1u

struct voters_machine {
    uint64_t server_id;
    const char *address;
    bool no_leader;   /* It must not lead. */
    bool alive, lost; /* Neither: it is silent at the moment, or has not called this leader yet. */
};

struct voters_step {
    uint64_t server_id;
    const char *address;
    enum server_role role;
};

/* Returns whether there is a step to take. 'self' is the leader's own server id. Pointers in *ret are the
 * arguments' own. */
bool voters_next(const struct store_server *servers, size_t server_count,
                 const struct voters_machine *machines, size_t machine_count, unsigned wanted, uint64_t self,
                 struct voters_step *ret);
