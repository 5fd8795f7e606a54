/* SPDX-License-Identifier: Apache-2.0 */
/* The facts of a plan, indexed: machines by id, units by name, and for every pattern of Conflicts and
 * Replaces the active units that have it and those that it matches, so that nothing is compared pair by pair.
 * Constant once made, but for the planner's notes in the patterns. Internal to constraints/. */
#pragma once

#include <stdint.h>
#include <uthash.h>

#include "constraints/plan.h"

#define NONE UINT32_MAX

struct id_list { /* Of units or machines, by index. */
    uint32_t *items;
    size_t count, capacity;
};

void id_list_add(struct id_list *list, uint32_t id);

struct pattern {
    const char *text;
    uint32_t index;
    struct id_list owners, matched; /* Active units, by name. */
    /* The planner's notes: the unit that has the pattern, or is matched by it, in the set numbered 'tick'. */
    uint64_t owner_tick, matched_tick;
    uint32_t owner, match;
    UT_hash_handle hh;
};

struct pattern_list {
    struct pattern **items;
    size_t count, capacity;
};

struct cluster_unit {
    const struct plan_unit *facts;
    bool active, global;
    uint32_t global_index;    /* In 'globals'. */
    struct id_list peers;     /* MachineOf, in order; NONE where there is no such unit. */
    struct id_list followers; /* Active units that have this one, if it is active, in MachineOf. */
    struct pattern_list conflicts, conflicted_by; /* Its own patterns, and those that match it. */
    struct pattern_list replaces, replaced_by;    /* Never of global units. */
    uint32_t circle; /* Replaces counts only from a greater to a smaller number: see find_circles(). */
};

struct cluster {
    const struct plan_machine **machines; /* By id. */
    size_t machine_count;
    struct cluster_unit *units; /* By name. */
    size_t unit_count;
    struct id_list globals; /* The active ones, by name. */
    struct pattern *conflicts, *replaces;
};

void cluster_init(struct cluster *c, const struct plan_facts *facts);
void cluster_done(struct cluster *c);

/* Indices, or NONE. */
uint32_t cluster_find_machine(const struct cluster *c, const char *id);
uint32_t cluster_find_unit(const struct cluster *c, const char *name);
