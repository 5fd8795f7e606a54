/* SPDX-License-Identifier: Apache-2.0 */
/* Which unit goes on which machine, and why (fleet-behaviour.md §3.4, made deterministic and mended as
 * docs/COMPATIBILITY.md says). Pure: facts in, a plan out; no clock, no chance, no I/O. The same facts, in
 * whatever order they are given, always give the same plan, and planning again after a plan was carried out
 * gives an empty one.
 *
 * The rules. A unit is placed where it fits:
 *
 *   MachineID        the machine's id, its first 8 characters, another prefix that is no other machine's (or
 *                    was not when the unit was placed), or the host name
 *   MachineMetadata  of each key, one of the values; "hostname" and "machine-id" can be asked for, too
 *   MachineOf        every named unit is placed there (a global one: applies there)
 *   Conflicts        none of its patterns matches a unit there, nor one of theirs its own name
 *   Replaces         no unit there replaces it; units there that it replaces itself must leave, and with them
 *                    what follows them (MachineOf). Where that comes back to the unit itself, in a circle of
 *                    Replaces and MachineOf, these Replaces count for nothing
 *
 * and among those machines on one that it need not avoid, if there is one, and there on the least loaded one:
 * the fewest active units, global ones included; the smallest id if that is the same. A unit that still fits
 * stays where it is, whatever the load. Of two placed units that conflict the first by name stays. The order
 * otherwise: units that must leave a living machine, then those whose machine is lost or unknown, then new
 * ones; each by name, but after the units that they need (MachineOf) or that replace them. Inactive units
 * influence nothing.
 *
 * Global units have no place: each applies to every machine that is not lost, whose metadata fits, and where
 * nothing is that it conflicts with. Units placed there come before global ones, global ones go by name. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "units/requirements.h"
#include "units/state.h"

struct plan_label {
    const char *key, *value;
};

struct plan_machine {
    const char *id, *hostname;       /* 'hostname' may be NULL. */
    const struct plan_label *labels; /* Sorted by key. */
    size_t label_count;
    bool available;          /* May get new units: alive, not cordoned. */
    const char *unavailable; /* Why it may not, for people; NULL: it takes no new units now. */
    bool lost; /* Its units must be placed anew. Neither of the two: they stay, nothing new comes. */
    const char
        *left_because; /* With 'lost', where it is not: what becomes of it, as in "is being drained". */
};

struct plan_unit {
    const char *name;
    const struct requirements *requirements; /* Read with the unit's name. */
    enum unit_state desired;
    const char *const *avoided; /* Ids of machines that are only taken if no other fits; may be NULL. */
    size_t avoided_count;
    const char *target; /* Machine id, known or not; NULL: not placed. */
    bool pinned;        /* It stays there although the machine is lost. */
};

/* Names and ids are unique. */
struct plan_facts {
    const struct plan_machine *machines;
    size_t machine_count;
    const struct plan_unit *units;
    size_t unit_count;
};

struct plan_change {
    const char *unit, *from, *to; /* From the facts; NULL: no machine. */
    char *reason;
};

struct plan_pending {
    const char *unit;
    char *reason; /* A summary; plan_explain() has it for every machine. */
};

struct plan {
    struct plan_change *changes; /* First what loses its place (by name), then what gets one, as decided. */
    size_t change_count, change_capacity;
    struct plan_pending *pending; /* Units that want a machine and get none, by name. */
    size_t pending_count, pending_capacity;
    struct planner *planner; /* The cluster as it is once the plan is carried out. */
};

/* The facts are borrowed until the plan is freed. */
struct plan *plan_new(const struct plan_facts *facts);
void plan_free(struct plan *plan);
DEFINE_FREEP(struct plan, plan)

/* Whether the global unit shall run on the machine once the plan is carried out. If not, *ret_reason (may be
 * NULL) says why; owned by the caller. False, too, for units and machines that are not in the facts, and for
 * units that are not global. */
bool plan_global_wanted(const struct plan *plan, const char *unit, const char *machine, char **ret_reason);

/* The active units that have the active unit 'unit' in their MachineOf, by name; NULL after the last one. */
const char *plan_follower(const struct plan *plan, const char *unit, size_t index);

/* Whether the unit's peers (MachineOf), or theirs, go in a circle. Who of them is placed stays; who is not
 * never is. */
bool plan_leads_into_circle(const struct plan *plan, const char *unit);

/* What speaks against a unit on a machine once the plan is carried out, were the unit not there itself. */
struct plan_verdict {
    const char *machine; /* From the facts. */
    size_t load;         /* Other active units there. */
    char *text;          /* NULL: it fits. */
};

struct plan_explanation {
    struct plan_verdict *verdicts; /* By machine id. */
    size_t count;
};

/* Of every machine, also for inactive units ("if it were started"). NULL: no such unit in the facts. */
struct plan_explanation *plan_explain(const struct plan *plan, const char *unit);
void plan_explanation_free(struct plan_explanation *explanation);
DEFINE_FREEP(struct plan_explanation, plan_explanation)
