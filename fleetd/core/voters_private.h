/* SPDX-License-Identifier: Apache-2.0 */
/* What voters.c has made of the facts, for the words of voters_say.c. */
#pragma once

#include "fleetd/core/voters.h"

/* A server, a machine, or both. */
struct seat {
    const struct voters_machine *machine; /* NULL: its host lost its disk, or left. */
    const struct store_server *server;    /* NULL: it has no part in consensus. */
    bool self, voter, standby;
    unsigned order; /* Among those that are to vote, from 1; 0: it is not to. */
    bool spare;     /* It is to be a standby beyond those. */
};

struct voters_view {
    const struct voters_facts *facts;
    struct seat *seats; /* Machines as they are listed, then servers of none. */
    size_t count;
    struct seat *chosen[VOTERS_MAX]; /* Who is to vote, in the order of choice. */
    size_t chosen_count;
    size_t goal;     /* How many they are. */
    size_t possible; /* How many might, if those that are silent would call. */
    size_t voters, answering;
};

/* The facts are borrowed for the life of the view; to be ended with voters_view_done(). */
void voters_view_init(struct voters_view *view, const struct voters_facts *facts);
void voters_view_done(struct voters_view *view);

static inline bool seat_is_barred(const struct seat *seat)
{
    return seat->machine == NULL || seat->machine->leaving || seat->machine->wish == VOTE_NEVER;
}

/* It will not be heard soon. */
static inline bool seat_is_dead(const struct seat *seat)
{
    return seat->machine == NULL || seat->machine->gone;
}

/* Of a voter. By its server alone: one that this leader has only not missed yet is none to rely on, one whose
 * machine was removed is, and so is one whose session has still to begin. */
static inline bool seat_answers(const struct seat *seat)
{
    return seat->self || seat->server->silent_ms < VOTERS_ANSWER_MS;
}

static inline bool seat_is_ready(const struct seat *seat)
{
    return seat->standby && seat->machine != NULL && seat->machine->alive && seat->machine->ready;
}

/* It votes, and is not to. */
static inline bool seat_drops_out(const struct seat *seat)
{
    return seat->voter && seat->order == 0;
}

static inline bool seat_joins(const struct seat *seat)
{
    return !seat->voter && seat->order != 0;
}

/* Its host is there, but not where the other servers look for it. */
bool seat_has_moved(const struct seat *seat);

const char *seat_name(const struct seat *seat);

/* This leader's; NULL: it has none. */
const struct seat *voters_self(const struct voters_view *view);

/* The server that the log has at this address, of another machine than 'seat' is; NULL: none. While it is
 * there, 'seat' can get no part at that address: libraft refuses two at one. */
const struct seat *voters_holder(const struct voters_view *view, const struct seat *seat);

/* Whether this voter may lose its vote now: those that are left have a majority that answers. */
bool voters_can_spare(const struct voters_view *view, const struct seat *seat);

/* Says in ret->why what the plan is part of. */
void voters_say(const struct voters_view *view, struct voters_plan *plan);
