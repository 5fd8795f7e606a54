/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "constraints/planner.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* A plan ends whatever the units ask of each other. One round, and one try of a unit, is the rule; more come
 * from chains of Replaces and MachineOf across machines. */
#define ROUNDS_MAX 64
#define TRIES_MAX  16

static bool wants_place(const struct planner *p, uint32_t unit)
{
    return p->cluster.units[unit].active && !p->cluster.units[unit].global;
}

static bool is_pending(const struct planner *p, uint32_t unit)
{
    return wants_place(p, unit) && p->places[unit].machine == NONE;
}

static const char *unit_name(const struct planner *p, uint32_t unit)
{
    return p->cluster.units[unit].facts->name;
}

/* 'a' replaces 'b' through a pattern that both stand in, unless they are in a circle. */
static bool truly_replaces(const struct planner *p, uint32_t a, uint32_t b)
{
    return p->cluster.units[a].circle != p->cluster.units[b].circle;
}

size_t planner_load(const struct planner *p, uint32_t machine)
{
    return p->rooms[machine].units.count + p->rooms[machine].global_count;
}

bool planner_has(const struct planner *p, uint32_t peer, uint32_t machine)
{
    const struct cluster_unit *unit;

    if (peer == NONE)
        return false;
    unit = &p->cluster.units[peer];
    if (unit->global)
        return unit->active && p->applies[unit->global_index * p->cluster.machine_count + machine];
    return p->places[peer].machine == machine;
}

/* --- Settling a machine: who of those placed there may stay. Nothing here depends on other machines. --- */

/* Takes the unit off its machine; the room's list is swept later. Takes ownership of 'cause'. */
static void evict(struct planner *p, uint32_t unit, char *cause)
{
    struct place *place = &p->places[unit];

    assert(place->machine != NONE);
    if (place->machine == place->origin) {
        free(place->cause);
        place->cause = cause;
    } else {
        free(cause);
    }
    place->machine = NONE;
}

/* Removes the evicted from the list. Returns whether there were any. */
static bool sweep(struct planner *p, uint32_t machine)
{
    struct id_list *units = &p->rooms[machine].units;
    size_t kept = 0, before = units->count;

    for (size_t i = 0; i < before; i++)
        if (p->places[units->items[i]].machine == machine)
            units->items[kept++] = units->items[i];
    units->count = kept;
    return kept < before;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void sort_by_name(struct id_list *units)
{
    if (units->count > 1)
        qsort(units->items, units->count, sizeof *units->items, compare_ids);
}

static void evict_unfit(struct planner *p, uint32_t machine)
{
    const struct id_list *units = &p->rooms[machine].units;

    for (size_t i = 0; i < units->count; i++) {
        const struct requirements *r = p->cluster.units[units->items[i]].facts->requirements;
        struct strbuf why = {0};

        if (fit_machine(&p->cluster, r, machine, true, &why) != FIT_YES)
            evict(p, units->items[i], xasprintf("its machine does not fit any more: %s", why.text));
        strbuf_done(&why);
    }
    sweep(p, machine);
}

/* Evicts 'id' if a peer is missing there; then its followers may have to leave, too: it is added to 'gone'.
 */
static void evict_without_peer(struct planner *p, uint32_t id, uint32_t machine, struct id_list *gone)
{
    const struct cluster_unit *unit = &p->cluster.units[id];
    const struct strlist *names = &unit->facts->requirements->machine_of;

    for (size_t i = 0; i < unit->peers.count; i++)
        if (!planner_has(p, unit->peers.items[i], machine)) {
            evict(p, id, xasprintf("MachineOf=%s is not on the same machine any more", names->items[i]));
            id_list_add(gone, id);
            return;
        }
}

static bool evict_without_peers(struct planner *p, uint32_t machine)
{
    const struct id_list *units = &p->rooms[machine].units;
    struct id_list gone = {0};

    for (size_t i = 0; i < units->count; i++)
        evict_without_peer(p, units->items[i], machine, &gone);
    for (size_t i = 0; i < gone.count; i++) {
        const struct id_list *followers = &p->cluster.units[gone.items[i]].followers;

        for (size_t j = 0; j < followers->count; j++)
            if (p->places[followers->items[j]].machine == machine)
                evict_without_peer(p, followers->items[j], machine, &gone);
    }
    free(gone.items);
    return sweep(p, machine);
}

/* The set of units numbered 'tick' is kept in their patterns: a unit's conflicts with all of it are found in
 * as many steps as it has patterns. */
static void note_in_set(struct planner *p, uint32_t id)
{
    const struct cluster_unit *unit = &p->cluster.units[id];

    for (size_t i = 0; i < unit->conflicts.count; i++) {
        struct pattern *pattern = unit->conflicts.items[i];

        if (pattern->owner_tick != p->tick)
            pattern->owner = id;
        pattern->owner_tick = p->tick;
    }
    for (size_t i = 0; i < unit->conflicted_by.count; i++) {
        struct pattern *pattern = unit->conflicted_by.items[i];

        if (pattern->matched_tick != p->tick)
            pattern->match = id;
        pattern->matched_tick = p->tick;
    }
}

/* A unit of the set that conflicts with 'id', which is not in it; or NONE. */
static uint32_t find_conflict_in_set(const struct planner *p, uint32_t id)
{
    const struct cluster_unit *unit = &p->cluster.units[id];

    for (size_t i = 0; i < unit->conflicts.count; i++)
        if (unit->conflicts.items[i]->matched_tick == p->tick)
            return unit->conflicts.items[i]->match;
    for (size_t i = 0; i < unit->conflicted_by.count; i++)
        if (unit->conflicted_by.items[i]->owner_tick == p->tick)
            return unit->conflicted_by.items[i]->owner;
    return NONE;
}

static bool evict_conflicting(struct planner *p, uint32_t machine)
{
    const struct id_list *units = &p->rooms[machine].units;

    p->tick++;
    for (size_t i = 0; i < units->count; i++) {
        uint32_t culprit = find_conflict_in_set(p, units->items[i]);

        if (culprit != NONE)
            evict(p, units->items[i], xasprintf("conflicts with %s", unit_name(p, culprit)));
        else
            note_in_set(p, units->items[i]);
    }
    return sweep(p, machine);
}

struct ranked {
    uint32_t circle, id;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (x->circle != y->circle)
        return x->circle > y->circle ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The unit on the machine that replaces 'id', or NONE. */
static uint32_t find_replacer(const struct planner *p, uint32_t id, uint32_t machine)
{
    const struct pattern_list *patterns = &p->cluster.units[id].replaced_by;

    for (size_t i = 0; i < patterns->count; i++) {
        const struct id_list *owners = &patterns->items[i]->owners;

        for (size_t j = 0; j < owners->count; j++)
            if (p->places[owners->items[j]].machine == machine && truly_replaces(p, owners->items[j], id))
                return owners->items[j];
    }
    return NONE;
}

/* Whoever replaces is looked at before what it replaces: of a chain a, b, c only b must leave. */
static bool evict_replaced(struct planner *p, uint32_t machine)
{
    const struct id_list *units = &p->rooms[machine].units;
    _cleanup_(freep) struct ranked *ranked = xcalloc(units->count, sizeof *ranked);
    size_t count = 0;

    for (size_t i = 0; i < units->count; i++)
        if (p->cluster.units[units->items[i]].replaced_by.count > 0)
            ranked[count++] = (struct ranked){p->cluster.units[units->items[i]].circle, units->items[i]};
    if (count > 1)
        qsort(ranked, count, sizeof *ranked, compare_ranked);
    for (size_t i = 0; i < count; i++) {
        uint32_t culprit = find_replacer(p, ranked[i].id, machine);

        if (culprit != NONE)
            evict(p, ranked[i].id, xasprintf("replaced by %s", unit_name(p, culprit)));
    }
    return sweep(p, machine);
}

/* Which global units apply, given the placed ones. */
static void apply_globals(struct planner *p, uint32_t machine)
{
    struct room *room = &p->rooms[machine];

    p->tick++;
    room->global_count = 0;
    for (size_t i = 0; i < room->units.count; i++)
        note_in_set(p, room->units.items[i]);
    for (size_t i = 0; i < p->cluster.globals.count; i++) {
        uint32_t id = p->cluster.globals.items[i];
        const struct requirements *r = p->cluster.units[id].facts->requirements;
        bool applies = !p->cluster.machines[machine]->lost &&
                       fit_machine(&p->cluster, r, machine, false, NULL) == FIT_YES &&
                       find_conflict_in_set(p, id) == NONE;

        p->applies[i * p->cluster.machine_count + machine] = applies;
        room->global_count += applies;
        if (applies)
            note_in_set(p, id);
    }
}

static void settle(struct planner *p, uint32_t machine)
{
    sort_by_name(&p->rooms[machine].units);
    evict_unfit(p, machine);
    do {
        do
            apply_globals(p, machine);
        while (evict_without_peers(p, machine));
    } while (evict_conflicting(p, machine) || evict_replaced(p, machine));
}

/* --- Placing a unit --- */

static void mark_machine(struct planner *p, uint32_t machine, enum fit fit, uint32_t culprit)
{
    if (p->marks[machine].tick != p->tick)
        p->marks[machine] = (struct mark){p->tick, fit, culprit};
}

static void mark_where(struct planner *p, uint32_t other, enum fit fit)
{
    const struct cluster_unit *unit = &p->cluster.units[other];

    if (!unit->global) {
        if (p->places[other].machine != NONE)
            mark_machine(p, p->places[other].machine, fit, other);
        return;
    }
    for (uint32_t m = 0; m < p->cluster.machine_count; m++)
        if (planner_has(p, other, m))
            mark_machine(p, m, fit, other);
}

static void mark_all(struct planner *p, const struct id_list *others, uint32_t unit, enum fit fit)
{
    for (size_t i = 0; i < others->count; i++)
        if (others->items[i] != unit)
            mark_where(p, others->items[i], fit);
}

void planner_mark(struct planner *p, uint32_t id)
{
    const struct cluster_unit *unit = &p->cluster.units[id];

    p->tick++;
    for (size_t i = 0; i < unit->conflicts.count; i++)
        mark_all(p, &unit->conflicts.items[i]->matched, id, FIT_CONFLICTS);
    for (size_t i = 0; i < unit->conflicted_by.count; i++)
        mark_all(p, &unit->conflicted_by.items[i]->owners, id, FIT_CONFLICTS);
    for (size_t i = 0; i < unit->replaced_by.count; i++) {
        const struct id_list *owners = &unit->replaced_by.items[i]->owners;

        for (size_t j = 0; j < owners->count; j++)
            if (truly_replaces(p, owners->items[j], id))
                mark_where(p, owners->items[j], FIT_REPLACES);
    }
}

enum fit planner_fit(const struct planner *p, uint32_t id, uint32_t machine)
{
    const struct cluster_unit *unit = &p->cluster.units[id];
    const struct plan_machine *m = p->cluster.machines[machine];
    enum fit fit;

    if (m->lost)
        return m->left_because != NULL ? FIT_LEFT : FIT_LOST;
    if (!m->available && p->places[id].origin != machine)
        return FIT_NOT_AVAILABLE;
    fit = fit_machine(&p->cluster, unit->facts->requirements, machine, p->places[id].origin == machine, NULL);
    if (fit != FIT_YES)
        return fit;
    for (size_t i = 0; i < unit->peers.count; i++)
        if (!planner_has(p, unit->peers.items[i], machine))
            return FIT_MACHINE_OF;
    return p->marks[machine].tick == p->tick ? p->marks[machine].fit : FIT_YES;
}

static bool is_avoided(const struct planner *p, uint32_t id, uint32_t machine)
{
    const struct plan_unit *unit = p->cluster.units[id].facts;

    for (size_t i = 0; i < unit->avoided_count; i++)
        if (streq(unit->avoided[i], p->cluster.machines[machine]->id))
            return true;
    return false;
}

/* Its own machine if it fits there again, or else the least loaded that it need not avoid, or else the least
 * loaded; or NONE. */
static uint32_t choose_machine(const struct planner *p, uint32_t id)
{
    uint32_t best = NONE, origin = p->places[id].origin;
    size_t best_load = 0;
    bool best_avoided = false;

    if (origin != NONE && planner_fit(p, id, origin) == FIT_YES)
        return origin;
    for (uint32_t m = 0; m < p->cluster.machine_count; m++) { /* By id. */
        size_t load = planner_load(p, m);
        bool avoided = is_avoided(p, id, m);

        if ((best == NONE || avoided < best_avoided || (avoided == best_avoided && load < best_load)) &&
            planner_fit(p, id, m) == FIT_YES) {
            best = m;
            best_load = load;
            best_avoided = avoided;
        }
    }
    return best;
}

/* What 'id' replaces must leave the machine that it has come to, and their followers with them. */
static void displace(struct planner *p, uint32_t id)
{
    const struct pattern_list *patterns = &p->cluster.units[id].replaces;
    uint32_t machine = p->places[id].machine;
    bool any = false;

    for (size_t i = 0; i < patterns->count; i++) {
        const struct id_list *matched = &patterns->items[i]->matched;

        for (size_t j = 0; j < matched->count; j++)
            if (p->places[matched->items[j]].machine == machine && truly_replaces(p, id, matched->items[j])) {
                evict(p, matched->items[j], xasprintf("replaced by %s", unit_name(p, id)));
                any = true;
            }
    }
    if (!any)
        return;
    sweep(p, machine);
    p->displaced = true;
    settle(p, machine);
}

static void place_unit(struct planner *p, uint32_t id)
{
    struct place *place = &p->places[id];
    uint32_t machine;

    if (place->tries++ >= TRIES_MAX)
        return;
    planner_mark(p, id);
    machine = choose_machine(p, id);
    if (machine == NONE)
        return;
    place->load = planner_load(p, machine);
    place->machine = machine;
    place->order = ++p->order;
    id_list_add(&p->rooms[machine].units, id);
    displace(p, id);
}

/* --- The order of placing --- */

static void push_pending(const struct planner *p, struct id_list *stack, uint32_t id)
{
    if (id != NONE && is_pending(p, id) && p->places[id].visit == PLACE_NEW)
        id_list_add(stack, id);
}

/* What must be placed before 'id'; the first to come on top. */
static void push_needed(const struct planner *p, struct id_list *stack, uint32_t id)
{
    const struct cluster_unit *unit = &p->cluster.units[id];

    for (size_t i = unit->replaced_by.count; i-- > 0;) {
        const struct id_list *owners = &unit->replaced_by.items[i]->owners;

        for (size_t j = owners->count; j-- > 0;)
            if (truly_replaces(p, owners->items[j], id))
                push_pending(p, stack, owners->items[j]);
    }
    for (size_t i = unit->peers.count; i-- > 0;)
        push_pending(p, stack, unit->peers.items[i]);
}

/* Appends 'id' to 'order', behind everything that it needs. A circle of MachineOf, none of which can be
 * placed anyway, is cut somewhere. */
static void visit(struct planner *p, uint32_t id, struct id_list *stack, struct id_list *order)
{
    push_pending(p, stack, id);
    while (stack->count > 0) {
        uint32_t top = stack->items[stack->count - 1];
        struct place *place = &p->places[top];

        if (place->visit == PLACE_NEW) {
            place->visit = PLACE_OPEN;
            push_needed(p, stack, top);
            continue;
        }
        stack->count--;
        if (place->visit == PLACE_OPEN)
            id_list_add(order, top);
        place->visit = PLACE_DONE;
    }
}

/* 0: from a living machine, 1: from another, 2: new. */
static int urgency(const struct planner *p, uint32_t id)
{
    if (p->places[id].origin != NONE)
        return 0;
    return p->cluster.units[id].facts->target != NULL ? 1 : 2;
}

static void place_pending(struct planner *p)
{
    struct id_list stack = {0}, order = {0};

    for (uint32_t i = 0; i < p->cluster.unit_count; i++)
        p->places[i].visit = PLACE_NEW;
    for (int u = 0; u <= 2; u++)
        for (uint32_t i = 0; i < p->cluster.unit_count; i++)
            if (is_pending(p, i) && urgency(p, i) == u)
                visit(p, i, &stack, &order);
    for (size_t i = 0; i < order.count; i++)
        if (is_pending(p, order.items[i]))
            place_unit(p, order.items[i]);
    free(stack.items);
    free(order.items);
}

/* --- Life --- */

/* Puts every unit where the facts have it. */
static void put_units(struct planner *p)
{
    for (uint32_t i = 0; i < p->cluster.unit_count; i++) {
        const struct plan_unit *facts = p->cluster.units[i].facts;
        _cleanup_(freep) char *name = NULL;
        struct place *place = &p->places[i];
        uint32_t machine;

        place->machine = place->origin = NONE;
        if (facts->target == NULL)
            continue;
        name = fit_machine_name(facts->target);
        machine = cluster_find_machine(&p->cluster, facts->target);
        if (!p->cluster.units[i].active) {
            place->cause = xstrdup("desired state is inactive");
        } else if (p->cluster.units[i].global) {
            place->cause = xstrdup("a global unit has no place");
        } else if (machine == NONE) {
            place->cause = xasprintf("machine %s is unknown", name);
        } else if (p->cluster.machines[machine]->lost && !facts->pinned) {
            const char *why = p->cluster.machines[machine]->left_because;

            place->cause = xasprintf("machine %s %s", name, why != NULL ? why : "is lost");
        } else {
            place->machine = place->origin = machine;
            id_list_add(&p->rooms[machine].units, i);
        }
    }
}

struct planner *planner_new(const struct plan_facts *facts)
{
    struct planner *p = NEW0(struct planner);

    cluster_init(&p->cluster, facts);
    p->places = xcalloc(p->cluster.unit_count, sizeof *p->places);
    p->rooms = xcalloc(p->cluster.machine_count, sizeof *p->rooms);
    p->marks = xcalloc(p->cluster.machine_count, sizeof *p->marks);
    p->applies = xcalloc(p->cluster.globals.count * p->cluster.machine_count, sizeof *p->applies);
    put_units(p);
    return p;
}

void planner_free(struct planner *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->cluster.unit_count; i++)
        free(p->places[i].cause);
    for (size_t i = 0; i < p->cluster.machine_count; i++)
        free(p->rooms[i].units.items);
    free(p->places);
    free(p->rooms);
    free(p->marks);
    free(p->applies);
    cluster_done(&p->cluster);
    free(p);
}

/* A unit that is placed takes nothing from those placed before it, so one round decides; only where one was
 * displaced, what did not fit before may fit now. That ends: a unit is displaced only by what comes before it
 * in the order that find_circles() has made sure of. */
void planner_run(struct planner *p)
{
    for (uint32_t m = 0; m < p->cluster.machine_count; m++)
        settle(p, m);
    for (int round = 0; round < ROUNDS_MAX; round++) {
        p->displaced = false;
        place_pending(p);
        if (!p->displaced)
            break;
    }
    for (uint32_t m = 0; m < p->cluster.machine_count; m++)
        sort_by_name(&p->rooms[m].units);
}
