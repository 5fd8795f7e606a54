/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "constraints/plan.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "constraints/planner.h"

/* --- What speaks against a unit on a machine, in words. Looked up pair by pair, so for a unit that is asked
 * about, not for planning. --- */

static uint32_t missing_peer(const struct planner *p, uint32_t id, uint32_t machine, const char **ret_name)
{
    const struct cluster_unit *unit = &p->cluster.units[id];

    for (uint32_t i = 0; i < unit->peers.count; i++)
        if (!planner_has(p, unit->peers.items[i], machine)) {
            *ret_name = unit->facts->requirements->machine_of.items[i];
            return i;
        }
    return NONE;
}

/* Says so if 'id' and 'other', which is on the machine, cannot be together. */
static bool say_clash(const struct planner *p, uint32_t id, uint32_t other, struct strbuf *why)
{
    const struct cluster_unit *a = &p->cluster.units[id], *b = &p->cluster.units[other];

    if (fit_conflict(a->facts, b->facts)) {
        strbuf_addf(why, "conflicts with %s", b->facts->name);
        return true;
    }
    if (a->global || b->global || !fit_replaces(b->facts, a->facts) ||
        (a->active && b->active && a->circle == b->circle))
        return false;
    strbuf_addf(why, "replaced by %s", b->facts->name);
    return true;
}

static bool say_clashes(const struct planner *p, uint32_t id, uint32_t machine, struct strbuf *why)
{
    const struct id_list *units = &p->rooms[machine].units, *globals = &p->cluster.globals;

    for (size_t i = 0; i < units->count; i++)
        if (say_clash(p, id, units->items[i], why))
            return true;
    for (size_t i = 0; i < globals->count; i++)
        if (planner_has(p, globals->items[i], machine) && say_clash(p, id, globals->items[i], why))
            return true;
    return false;
}

/* Owned by the caller; NULL: nothing. */
static char *verdict(const struct planner *p, uint32_t id, uint32_t machine)
{
    const struct cluster_unit *unit = &p->cluster.units[id];
    const struct plan_machine *m = p->cluster.machines[machine];
    struct strbuf why = {0};
    const char *peer;

    if (planner_has(p, id, machine))
        return NULL;
    if (m->lost)
        return xasprintf("the machine %s", m->left_because != NULL ? m->left_because : "is lost");
    if (!m->available && !unit->global)
        return xstrdup(m->unavailable != NULL ? m->unavailable : "the machine takes no new units now");
    if (fit_machine(&p->cluster, unit->facts->requirements, machine, false, &why) != FIT_YES)
        return strbuf_take(&why);
    if (!unit->global && missing_peer(p, id, machine, &peer) != NONE)
        strbuf_addf(&why, "MachineOf=%s is not on this machine", peer);
    else if (!say_clashes(p, id, machine, &why))
        return NULL;
    return strbuf_take(&why);
}

/* --- Why a unit is on no machine --- */

static void push_unseen_peers(const struct planner *p, uint32_t id, struct id_list *stack)
{
    const struct id_list *peers = &p->cluster.units[id].peers;

    for (size_t i = 0; i < peers->count; i++)
        if (peers->items[i] != NONE && p->places[peers->items[i]].visit == PLACE_NEW)
            id_list_add(stack, peers->items[i]);
}

/* Once all its peers were visited: one that is still open leads back to the unit. */
static bool is_near_circle(const struct planner *p, uint32_t id)
{
    const struct id_list *peers = &p->cluster.units[id].peers;

    for (size_t i = 0; i < peers->count; i++) {
        const struct place *peer = peers->items[i] != NONE ? &p->places[peers->items[i]] : NULL;

        if (peer != NULL && (peer->visit == PLACE_OPEN || peer->near_circle))
            return true;
    }
    return false;
}

/* Depth first from 'stack', over MachineOf. */
static void visit_peers(struct planner *p, struct id_list *stack)
{
    while (stack->count > 0) {
        uint32_t top = stack->items[stack->count - 1];
        struct place *place = &p->places[top];

        if (place->visit == PLACE_NEW) {
            place->visit = PLACE_OPEN;
            push_unseen_peers(p, top, stack);
            continue;
        }
        stack->count--;
        if (place->visit == PLACE_OPEN)
            place->near_circle = is_near_circle(p, top);
        place->visit = PLACE_DONE;
    }
}

/* Hardly ever there is a circle of MachineOf (the API refuses them), but chains may be long: so it is known
 * in one walk over everybody where to look for one. */
static void find_near_circles(struct planner *p)
{
    struct id_list stack = {0};

    for (uint32_t i = 0; i < p->cluster.unit_count; i++)
        p->places[i].visit = PLACE_NEW;
    for (uint32_t i = 0; i < p->cluster.unit_count; i++) {
        id_list_add(&stack, i);
        visit_peers(p, &stack);
    }
    free(stack.items);
}

/* The shortest way over MachineOf from 'id' back to itself, in the places' 'parent', its end in *ret. */
static bool find_circle(struct planner *p, uint32_t id, uint32_t *ret)
{
    struct id_list queue = {0};
    bool found = false;

    p->tick++;
    id_list_add(&queue, id);
    for (size_t i = 0; i < queue.count && !found; i++) {
        const struct id_list *peers = &p->cluster.units[queue.items[i]].peers;

        for (size_t j = 0; j < peers->count && !found; j++) {
            uint32_t peer = peers->items[j];

            if (peer == NONE || p->places[peer].seen_tick == p->tick)
                continue;
            p->places[peer].seen_tick = p->tick;
            p->places[peer].parent = queue.items[i];
            id_list_add(&queue, peer);
            found = peer == id;
        }
    }
    *ret = p->places[id].parent;
    free(queue.items);
    return found;
}

static char *circle_text(struct planner *p, uint32_t id, uint32_t end)
{
    struct strlist names = {0};
    struct strbuf b = {0};

    for (uint32_t at = end;; at = p->places[at].parent) {
        strlist_add(&names, p->cluster.units[at].facts->name);
        if (at == id)
            break;
    }
    strlist_sort(&names);
    if (names.count == 1) {
        strbuf_addf(&b, "MachineOf=%s is the unit itself", names.items[0]);
    } else {
        strbuf_add(&b, "MachineOf= of ");
        for (size_t i = 0; i < names.count; i++)
            strbuf_addf(&b, "%s%s", i == 0 ? "" : i + 1 == names.count ? " and " : ", ", names.items[i]);
        strbuf_add(&b, " form a circle");
    }
    strlist_done(&names);
    return strbuf_take(&b);
}

/* A peer that is nowhere is the reason, whatever the machines are like. NULL: there is none. */
static char *absent_peer_text(struct planner *p, uint32_t id)
{
    const struct cluster_unit *unit = &p->cluster.units[id];
    const struct strlist *names = &unit->facts->requirements->machine_of;
    uint32_t end;

    if (p->places[id].near_circle && find_circle(p, id, &end))
        return circle_text(p, id, end);
    for (size_t i = 0; i < unit->peers.count; i++) {
        uint32_t peer = unit->peers.items[i];

        if (peer == NONE)
            return xasprintf("MachineOf=%s does not exist", names->items[i]);
        if (!p->cluster.units[peer].active)
            return xasprintf("MachineOf=%s is inactive", names->items[i]);
        if (!p->cluster.units[peer].global && p->places[peer].machine == NONE)
            return xasprintf("MachineOf=%s is on no machine itself", names->items[i]);
    }
    return NULL;
}

/* "none of 3 machines will do (2 MachineMetadata, 1 Conflicts)" */
static char *pending_text(struct planner *p, uint32_t id)
{
    size_t counts[FIT_COUNT] = {0}, machine_count = p->cluster.machine_count;
    char *text = absent_peer_text(p, id);
    struct strbuf b = {0};

    if (text != NULL)
        return text;
    if (machine_count == 0)
        return xstrdup("there are no machines");
    if (machine_count == 1 && (text = verdict(p, id, 0)) != NULL) {
        strbuf_addf(&b, "the only machine does not fit: %s", text);
        free(text);
        return strbuf_take(&b);
    }
    planner_mark(p, id);
    for (uint32_t m = 0; m < machine_count; m++)
        counts[planner_fit(p, id, m)]++;
    strbuf_addf(&b, "none of %zu machines will do (", machine_count);
    for (int fit = FIT_YES, n = 0; fit < FIT_COUNT; fit++)
        if (counts[fit] > 0)
            strbuf_addf(&b, "%s%zu %s", n++ > 0 ? ", " : "", counts[fit], fit_to_string((enum fit)fit));
    strbuf_add(&b, ")");
    return strbuf_take(&b);
}

/* --- The plan --- */

static char *placed_text(const struct planner *p, uint32_t id)
{
    const struct requirements *r = p->cluster.units[id].facts->requirements;
    const struct place *place = &p->places[id];
    _cleanup_(freep) char *how = NULL;

    if (r->machine_of.count > 0)
        how = xasprintf("with %s", r->machine_of.items[0]);
    else if (r->has_machine_id)
        how = xasprintf("MachineID=%s", r->machine_id);
    else
        how = xasprintf("least loaded machine that fits (load %zu)", place->load);
    return place->cause != NULL ? xasprintf("%s; %s", place->cause, how) : TAKE_PTR(how);
}

/* Takes ownership of 'reason'. */
static void add_change(struct plan *plan, const struct plan_unit *unit, const char *to, char *reason)
{
    GROW(plan->changes, plan->change_capacity, plan->change_count + 1);
    plan->changes[plan->change_count++] = (struct plan_change){unit->name, unit->target, to, reason};
}

static void add_unplaced(struct plan *plan, uint32_t id)
{
    const struct cluster_unit *unit = &plan->planner->cluster.units[id];
    const char *cause = plan->planner->places[id].cause;
    char *text;

    if (!unit->active || unit->global) {
        if (unit->facts->target != NULL)
            add_change(plan, unit->facts, NULL, xstrdup(cause));
        return;
    }
    text = pending_text(plan->planner, id);
    if (unit->facts->target != NULL)
        add_change(plan, unit->facts, NULL, xasprintf("%s, and %s", cause, text));
    GROW(plan->pending, plan->pending_capacity, plan->pending_count + 1);
    plan->pending[plan->pending_count++] = (struct plan_pending){unit->facts->name, text};
}

struct placed {
    uint32_t order, id;
};

static int compare_placed(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    return (x->order > y->order) - (x->order < y->order);
}

static void add_placed(struct plan *plan)
{
    const struct planner *p = plan->planner;
    _cleanup_(freep) struct placed *placed = xcalloc(p->cluster.unit_count, sizeof *placed);
    size_t count = 0;

    for (uint32_t i = 0; i < p->cluster.unit_count; i++)
        if (p->places[i].machine != NONE && p->places[i].machine != p->places[i].origin)
            placed[count++] = (struct placed){p->places[i].order, i};
    if (count > 1)
        qsort(placed, count, sizeof *placed, compare_placed);
    for (size_t i = 0; i < count; i++)
        add_change(plan, p->cluster.units[placed[i].id].facts,
                   p->cluster.machines[p->places[placed[i].id].machine]->id, placed_text(p, placed[i].id));
}

struct plan *plan_new(const struct plan_facts *facts)
{
    struct plan *plan = NEW0(struct plan);

    plan->planner = planner_new(facts);
    planner_run(plan->planner);
    find_near_circles(plan->planner);
    for (uint32_t i = 0; i < plan->planner->cluster.unit_count; i++)
        if (plan->planner->places[i].machine == NONE)
            add_unplaced(plan, i);
    add_placed(plan);
    return plan;
}

void plan_free(struct plan *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; i < plan->change_count; i++)
        free(plan->changes[i].reason);
    for (size_t i = 0; i < plan->pending_count; i++)
        free(plan->pending[i].reason);
    free(plan->changes);
    free(plan->pending);
    planner_free(plan->planner);
    free(plan);
}

/* --- Questions --- */

static char *why_not_wanted(const struct planner *p, uint32_t unit, uint32_t machine)
{
    if (unit == NONE)
        return xstrdup("there is no such unit");
    if (!p->cluster.units[unit].global)
        return xstrdup("the unit is not global");
    if (!p->cluster.units[unit].active)
        return xstrdup("desired state is inactive");
    if (machine == NONE)
        return xstrdup("there is no such machine");
    return verdict(p, unit, machine);
}

bool plan_global_wanted(const struct plan *plan, const char *unit, const char *machine, char **ret_reason)
{
    const struct planner *p = plan->planner;
    uint32_t u = cluster_find_unit(&p->cluster, unit), m = cluster_find_machine(&p->cluster, machine);

    if (u != NONE && m != NONE && p->cluster.units[u].global && planner_has(p, u, m))
        return true;
    if (ret_reason != NULL)
        *ret_reason = why_not_wanted(p, u, m);
    return false;
}

const char *plan_follower(const struct plan *plan, const char *unit, size_t index)
{
    const struct cluster *c = &plan->planner->cluster;
    uint32_t id = cluster_find_unit(c, unit);

    if (id == NONE || index >= c->units[id].followers.count)
        return NULL;
    return c->units[c->units[id].followers.items[index]].facts->name;
}

bool plan_leads_into_circle(const struct plan *plan, const char *unit)
{
    uint32_t id = cluster_find_unit(&plan->planner->cluster, unit);

    return id != NONE && plan->planner->places[id].near_circle;
}

struct plan_explanation *plan_explain(const struct plan *plan, const char *unit)
{
    const struct planner *p = plan->planner;
    uint32_t id = cluster_find_unit(&p->cluster, unit);
    struct plan_explanation *e;

    if (id == NONE)
        return NULL;
    e = NEW0(struct plan_explanation);
    e->count = p->cluster.machine_count;
    e->verdicts = xcalloc(e->count, sizeof *e->verdicts);
    for (uint32_t m = 0; m < e->count; m++)
        e->verdicts[m] = (struct plan_verdict){
            .machine = p->cluster.machines[m]->id,
            .load = planner_load(p, m) - planner_has(p, id, m),
            .text = verdict(p, id, m),
        };
    return e;
}

void plan_explanation_free(struct plan_explanation *e)
{
    if (e == NULL)
        return;
    for (size_t i = 0; i < e->count; i++)
        free(e->verdicts[i].text);
    free(e->verdicts);
    free(e);
}
