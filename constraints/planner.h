/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster while it is planned: where every unit is now. planner_run() leaves it as it will be once the
 * plan is carried out; plan.c then reads off what has changed and says why. Internal to constraints/. */
#pragma once

#include "constraints/cluster.h"
#include "constraints/fit.h"

struct place {
    uint32_t machine; /* Now; NONE. */
    uint32_t origin;  /* At first, if that machine is still there and not lost; NONE. */
    uint32_t order;   /* Counts placements. */
    size_t load;      /* Of the machine before that. */
    unsigned tries;
    char *cause; /* Why it is not where the facts have it; NULL. */
    /* Notes of one walk. */
    uint64_t seen_tick;
    uint32_t parent;
    enum { PLACE_NEW, PLACE_OPEN, PLACE_DONE } visit;
    bool near_circle; /* Its peers, or theirs, lead into a circle of MachineOf. */
};

struct room { /* What is on a machine. */
    struct id_list units;
    size_t global_count;
};

struct mark { /* Valid where 'tick' is the planner's: what stands against the unit at hand on a machine. */
    uint64_t tick;
    enum fit fit;
    uint32_t culprit;
};

struct planner {
    struct cluster cluster;
    struct place *places; /* Of the units. */
    struct room *rooms;   /* Of the machines. */
    bool *applies;        /* [global_index * machine_count + machine] */
    struct mark *marks;   /* Of the machines. */
    uint64_t tick;
    uint32_t order;
    bool displaced; /* In this round, a placed unit had to leave. */
};

struct planner *planner_new(const struct plan_facts *facts);
void planner_free(struct planner *p);

void planner_run(struct planner *p);

/* Active units on a machine, global ones included. */
size_t planner_load(const struct planner *p, uint32_t machine);

/* Whether unit 'peer' (or NONE) is on the machine, or applies to it. */
bool planner_has(const struct planner *p, uint32_t peer, uint32_t machine);

/* What speaks against placing 'unit', which is on no machine, on each. Valid until the next call of either;
 * planner_fit() takes it as it stands after planner_mark(). */
void planner_mark(struct planner *p, uint32_t unit);
enum fit planner_fit(const struct planner *p, uint32_t unit, uint32_t machine);
