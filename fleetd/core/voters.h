/* SPDX-License-Identifier: Apache-2.0 */
/* Who of the hosts takes part in consensus. Pure: from how things are to the next single step (Raft changes
 * one server at a time, dissertation §4.1), or none, and why.
 *
 * First it is chosen who is to vote: an odd number, at most as many as wanted, of those that are able to.
 * Each next one is the best of the rest by, in this order:
 *   - it may lead (no disable_engine);
 *   - somebody wished it (promote);
 *   - its value of the metadata key that voters are spread by is rare among those chosen before it: so there
 *     are as many values as possible, and as evenly;
 *   - it leads, votes, is a standby: what is so stays so;
 *   - its place in the list (machine ids).
 * Then one step is taken on the way there.
 *
 * Laws:
 *  - A standby has caught up before it gets a vote. A new voter gets its vote before the old one loses its:
 *    no step lowers the number of losses that are survived, but for those that make the voters fewer.
 *  - The number of voters is even only between two steps that follow each other at once.
 *  - One that is able keeps its vote, and is not replaced for being away, until it is gone: away for longer
 *    than the grace time. Then another host takes its place; it votes again only if there is a place for it.
 *  - Without another host, votes of hosts that are gone are dropped in pairs: an odd number stays, and more
 *    losses are survived by it. A single one keeps its vote.
 *  - One that answers gives up its vote only if those that are left have a majority that answers. That holds
 *    for one whose machine was removed, too.
 *  - Nobody is made a voter, or added, who is not alive. What is no registered machine's is removed.
 *  - One whose host is there, but at another address, is removed, too, and then added like any other:
 *    nobody's address is changed in place. Else one half of the servers could hear it at the old one, and
 *    the other half a copy of it at the new one (docs/RAFT.md §5). One voter after the other: there are as
 *    many as are to be before the next one is taken out, but for one whose address another one is waiting
 *    for. A leader that has moved hands over, and is treated like the others by the next one. Only if it is
 *    the only voter its address is changed in place: there is nobody who could hear two of it.
 *  - There are no two servers at one address (libraft refuses it). Who has the address of a server that will
 *    not be heard any more waits until that one is taken out, which is done at once if it can be spared; who
 *    has that of any other gets no part, and is in nobody's way.
 *  - One that is not to vote (demote, it leaves the cluster) is no standby either. The leader hands over
 *    before it loses its vote. If it is the only one that could vote, it keeps it.
 *  - One that must not lead votes only where others are too few. While it leads and a voter that may lead is
 *    there, nothing is done: that one is to lead first.
 *  - A leader that is no machine of the cluster any more does nothing but hand over.
 *  - There is one standby beyond those that are to vote, if there is a host for it; it is replaced if it is
 *    lost.
 *  - While nothing else changes, every way ends, no step undoes an earlier one, and another leader among
 *    those that are to vote would change nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "raftstore/limits.h"
#include "raftstore/servers.h"

#define STANDBYS_WANTED  1u
#define VOTERS_MAX       7u
#define VOTERS_WHY_MAX   512
#define VOTERS_ANSWER_MS 3000u /* A server that was heard so lately answers. */

struct voters_machine {
    uint64_t server_id;
    const char *address, *name; /* The name is for people. */
    const char *value;          /* Of the key that voters are spread by; "": none. */
    enum vote_wish wish;
    bool leaving;     /* It is to have no part in consensus any more, for good. */
    bool no_leader;   /* It must not lead. */
    bool alive, lost; /* Neither: it is silent at the moment, or has not called this leader yet. */
    bool present;     /* Its fleetd is there, with or without a word from its server. */
    bool gone;        /* Away for longer than the grace time. */
    bool ready;       /* A standby that has caught up, and answers. */
    uint64_t away_ms; /* For people. */
};

struct voters_facts {
    const struct store_server *servers;
    size_t server_count;
    const struct voters_machine *machines; /* By machine id. */
    size_t machine_count;
    unsigned wanted;       /* How many are to vote, odd. */
    uint64_t self;         /* The leader's own server id. */
    const char *spread_by; /* "": by nothing. For people, as is: */
    uint64_t grace_ms;
};

enum voters_act {
    VOTERS_NOTHING,
    VOTERS_CHANGE,    /* Give 'server_id' this role. */
    VOTERS_HAND_OVER, /* Give leadership to one of 'heirs'. */
    VOTERS_MOVE_SELF, /* This leader, the only voter, takes its new address, 'address'. */
};

struct voters_plan {
    enum voters_act act;
    uint64_t server_id;
    const char *address;
    enum server_role role;
    uint64_t heirs[RAFT_SERVERS_MAX];
    size_t heir_count;
    char why[VOTERS_WHY_MAX]; /* What is under way, or waited for; "": nothing, all is as it should be. */
};

/* Pointers in *ret are the arguments' own. */
void voters_plan(const struct voters_facts *facts, struct voters_plan *ret);

/* Who could take over leadership: the machine with this server id, or (0) each voter that goes on voting and
 * may lead. Up to RAFT_SERVERS_MAX ids. -EBUSY with a text: nobody. */
int voters_heirs(const struct voters_facts *facts, uint64_t server_id, uint64_t *ret, size_t *ret_count,
                 struct err *err);

/* Whether these machines may be kept from voting at once, or be made to vote. -EBUSY: that would leave too
 * few, or there are too many; each with a text. */
int voters_may_demote(const struct voters_facts *facts, const uint64_t *server_ids, size_t count,
                      struct err *err);
int voters_may_promote(const struct voters_facts *facts, const uint64_t *server_ids, size_t count,
                       struct err *err);

/* Whether the machine with this server id may be removed, and so lose the vote that it may have: -EBUSY with
 * a text if it answers, and too few of the other voters do. */
int voters_may_remove(const struct voters_facts *facts, uint64_t server_id, struct err *err);
