/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "constraints/cluster.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

void id_list_add(struct id_list *list, uint32_t id)
{
    GROW(list->items, list->capacity, list->count + 1);
    list->items[list->count++] = id;
}

static void pattern_list_add(struct pattern_list *list, struct pattern *pattern)
{
    GROW(list->items, list->capacity, list->count + 1);
    list->items[list->count++] = pattern;
}

/* --- Looking up --- */

/* The first unit whose name is not less than the first 'size' bytes of 'text'. */
static size_t first_unit_from(const struct cluster *c, const char *text, size_t size)
{
    size_t low = 0, high = c->unit_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strncmp(c->units[middle].facts->name, text, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t cluster_find_unit(const struct cluster *c, const char *name)
{
    size_t i = first_unit_from(c, name, strlen(name) + 1);

    return i < c->unit_count && streq(c->units[i].facts->name, name) ? (uint32_t)i : NONE;
}

static size_t first_machine_from(const struct cluster *c, const char *text)
{
    size_t low = 0, high = c->machine_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(c->machines[middle]->id, text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t cluster_find_machine(const struct cluster *c, const char *id)
{
    size_t i = first_machine_from(c, id);

    return i < c->machine_count && streq(c->machines[i]->id, id) ? (uint32_t)i : NONE;
}

/* --- Patterns --- */

static void match_pattern(struct cluster *c, struct pattern *p)
{
    size_t prefix_size = strcspn(p->text, "*?[\\");
    uint32_t unit;

    if (p->text[prefix_size] == '\0') {
        unit = cluster_find_unit(c, p->text);
        if (unit != NONE && c->units[unit].active)
            id_list_add(&p->matched, unit);
        return;
    }
    for (size_t i = first_unit_from(c, p->text, prefix_size); i < c->unit_count; i++) {
        const char *name = c->units[i].facts->name;

        if (strncmp(name, p->text, prefix_size) != 0)
            break;
        if (c->units[i].active && requirements_glob(p->text, name))
            id_list_add(&p->matched, (uint32_t)i);
    }
}

/* Adds the patterns of unit 'id', each text once. */
static struct pattern_list intern(struct cluster *c, struct pattern **table, const struct strlist *texts,
                                  uint32_t id)
{
    struct pattern_list list = {0};

    for (size_t i = 0; i < texts->count; i++) {
        struct pattern *p;

        HASH_FIND_STR(*table, texts->items[i], p);
        if (p == NULL) {
            p = NEW0(struct pattern);
            p->text = texts->items[i];
            p->index = (uint32_t)HASH_COUNT(*table);
            HASH_ADD_KEYPTR(hh, *table, p->text, strlen(p->text), p);
            match_pattern(c, p);
        }
        if (p->owners.count > 0 && p->owners.items[p->owners.count - 1] == id)
            continue; /* Said twice. */
        id_list_add(&p->owners, id);
        pattern_list_add(&list, p);
    }
    return list;
}

static void index_patterns(struct cluster *c)
{
    struct pattern *p, *next;

    for (uint32_t i = 0; i < c->unit_count; i++) {
        struct cluster_unit *unit = &c->units[i];

        if (!unit->active)
            continue;
        unit->conflicts = intern(c, &c->conflicts, &unit->facts->requirements->conflicts, i);
        if (!unit->global)
            unit->replaces = intern(c, &c->replaces, &unit->facts->requirements->replaces, i);
    }
    HASH_ITER (hh, c->conflicts, p, next) /* In the order of insertion. */
        for (size_t i = 0; i < p->matched.count; i++)
            pattern_list_add(&c->units[p->matched.items[i]].conflicted_by, p);
    HASH_ITER (hh, c->replaces, p, next) {
        size_t kept = 0;

        for (size_t i = 0; i < p->matched.count; i++) {
            if (c->units[p->matched.items[i]].global)
                continue;
            pattern_list_add(&c->units[p->matched.items[i]].replaced_by, p);
            p->matched.items[kept++] = p->matched.items[i];
        }
        p->matched.count = kept;
    }
}

/* --- Circles of Replaces. A unit drives away what it replaces, and what leaves takes its followers with it:
 * if that comes back to the unit itself, there would be no end to it, so within such a circle Replaces counts
 * for nothing. The circles are the strongly connected components of the graph unit -> pattern of Replaces ->
 * unit, unit -> follower, found by Tarjan's algorithm with a stack of its own. They are numbered as they are
 * completed, so whoever acts on another has a greater number. --- */

struct node {
    uint32_t number, low; /* 0: not seen. */
    uint32_t component;   /* NONE: not completed. */
    uint32_t next;        /* Edge to follow. */
};

struct tarjan {
    const struct cluster *c;
    struct pattern **patterns;
    struct node *nodes; /* Units, then patterns. */
    struct id_list path, open;
    uint32_t seen, components;
};

static uint32_t edge(const struct tarjan *t, uint32_t node, uint32_t i)
{
    if (node < t->c->unit_count) {
        const struct cluster_unit *unit = &t->c->units[node];

        if (i < unit->replaces.count)
            return (uint32_t)t->c->unit_count + unit->replaces.items[i]->index;
        i -= (uint32_t)unit->replaces.count;
        return i < unit->followers.count ? unit->followers.items[i] : NONE;
    } else {
        const struct id_list *list = &t->patterns[node - t->c->unit_count]->matched;

        return i < list->count ? list->items[i] : NONE;
    }
}

static void enter(struct tarjan *t, uint32_t node)
{
    t->nodes[node].number = t->nodes[node].low = ++t->seen;
    id_list_add(&t->path, node);
    id_list_add(&t->open, node);
}

static void leave(struct tarjan *t, uint32_t node)
{
    struct node *n = &t->nodes[node];
    uint32_t member;

    t->path.count--;
    if (t->path.count > 0) {
        struct node *parent = &t->nodes[t->path.items[t->path.count - 1]];

        parent->low = n->low < parent->low ? n->low : parent->low;
    }
    if (n->low != n->number)
        return;
    do {
        member = t->open.items[--t->open.count];
        t->nodes[member].component = t->components;
    } while (member != node);
    t->components++;
}

static void walk(struct tarjan *t, uint32_t start)
{
    enter(t, start);
    while (t->path.count > 0) {
        uint32_t node = t->path.items[t->path.count - 1], to = edge(t, node, t->nodes[node].next++);

        if (to == NONE)
            leave(t, node);
        else if (t->nodes[to].number == 0)
            enter(t, to);
        else if (t->nodes[to].component == NONE && t->nodes[to].number < t->nodes[node].low)
            t->nodes[node].low = t->nodes[to].number;
    }
}

static void find_circles(struct cluster *c)
{
    size_t pattern_count = HASH_COUNT(c->replaces), node_count = c->unit_count + pattern_count;
    struct tarjan t = {.c = c};
    struct pattern *p, *next;

    if (pattern_count == 0)
        return;
    t.patterns = xcalloc(pattern_count, sizeof(struct pattern *));
    t.nodes = xcalloc(node_count, sizeof *t.nodes);
    HASH_ITER (hh, c->replaces, p, next)
        t.patterns[p->index] = p;
    for (size_t i = 0; i < node_count; i++)
        t.nodes[i].component = NONE;
    for (uint32_t i = 0; i < c->unit_count; i++)
        if (t.nodes[i].number == 0)
            walk(&t, i);
    for (size_t i = 0; i < c->unit_count; i++)
        c->units[i].circle = t.nodes[i].component;
    free(t.patterns);
    free(t.nodes);
    free(t.path.items);
    free(t.open.items);
}

/* --- Life --- */

static int compare_machines(const void *a, const void *b)
{
    return strcmp((*(const struct plan_machine *const *)a)->id, (*(const struct plan_machine *const *)b)->id);
}

static int compare_units(const void *a, const void *b)
{
    return strcmp(((const struct cluster_unit *)a)->facts->name,
                  ((const struct cluster_unit *)b)->facts->name);
}

void cluster_init(struct cluster *c, const struct plan_facts *facts)
{
    assert(facts->unit_count < NONE / 2 && facts->machine_count < NONE);
    *c = (struct cluster){.machine_count = facts->machine_count, .unit_count = facts->unit_count};
    c->machines = xcalloc(c->machine_count, sizeof *c->machines);
    for (size_t i = 0; i < c->machine_count; i++)
        c->machines[i] = &facts->machines[i];
    qsort(c->machines, c->machine_count, sizeof *c->machines, compare_machines);
    for (size_t i = 1; i < c->machine_count; i++)
        assert(!streq(c->machines[i - 1]->id, c->machines[i]->id));

    c->units = xcalloc(c->unit_count, sizeof *c->units);
    for (size_t i = 0; i < c->unit_count; i++) {
        c->units[i].facts = &facts->units[i];
        c->units[i].active = facts->units[i].desired != UNIT_STATE_INACTIVE;
        c->units[i].global = facts->units[i].requirements->global;
    }
    qsort(c->units, c->unit_count, sizeof *c->units, compare_units);
    for (size_t i = 1; i < c->unit_count; i++)
        assert(!streq(c->units[i - 1].facts->name, c->units[i].facts->name));
    for (uint32_t i = 0; i < c->unit_count; i++)
        if (c->units[i].active && c->units[i].global) {
            c->units[i].global_index = (uint32_t)c->globals.count;
            id_list_add(&c->globals, i);
        }
    for (uint32_t i = 0; i < c->unit_count; i++) {
        const struct strlist *names = &c->units[i].facts->requirements->machine_of;

        for (size_t j = 0; j < names->count; j++) {
            uint32_t peer = cluster_find_unit(c, names->items[j]);

            id_list_add(&c->units[i].peers, peer);
            if (peer != NONE && c->units[i].active && c->units[peer].active)
                id_list_add(&c->units[peer].followers, i);
        }
    }
    index_patterns(c);
    find_circles(c);
}

static void free_patterns(struct pattern **table)
{
    struct pattern *p, *next;

    HASH_ITER (hh, *table, p, next) {
        HASH_DEL(*table, p);
        free(p->owners.items);
        free(p->matched.items);
        free(p);
    }
}

void cluster_done(struct cluster *c)
{
    for (size_t i = 0; i < c->unit_count; i++) {
        free(c->units[i].peers.items);
        free(c->units[i].followers.items);
        free(c->units[i].conflicts.items);
        free(c->units[i].conflicted_by.items);
        free(c->units[i].replaces.items);
        free(c->units[i].replaced_by.items);
    }
    free(c->units);
    free(c->machines);
    free(c->globals.items);
    free_patterns(&c->conflicts);
    free_patterns(&c->replaces);
    *c = (struct cluster){0};
}
