/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of plans over many random clusters, each checked by an oracle that compares every unit with
 * every other; questions with no good answer; and how long a large plan takes. What the rules mean in each
 * case stands in tests/golden. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "constraints/plan.h"

#define UNITS_MAX    40
#define MACHINES_MAX 8

static uint64_t seed_count = 3000; /* More on the command line: test-plan 1000000 */

/* --- A random cluster --- */

struct sample {
    struct plan_facts facts;
    struct plan_machine machines[MACHINES_MAX];
    struct plan_label labels[MACHINES_MAX][2];
    struct plan_unit units[UNITS_MAX];
    struct requirements *requirements[UNITS_MAX];
    char ids[MACHINES_MAX][16], names[UNITS_MAX][32];
    uint64_t seed, random;
};

static unsigned draw(struct sample *s, unsigned below)
{
    s->random ^= s->random << 13; /* xorshift64 */
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (unsigned)(s->random >> 33) % below;
}

static const char *draw_of(struct sample *s, const char *const *words, unsigned count)
{
    return words[draw(s, count)];
}

static void make_machines(struct sample *s)
{
    static const char *const values[] = {"1", "2", "3"};

    s->facts.machine_count = draw(s, MACHINES_MAX + 1);
    for (unsigned i = 0; i < s->facts.machine_count; i++) {
        unsigned state = draw(s, 8);

        snprintf(s->ids[i], sizeof s->ids[i], "%08xaa", (i + 1) * 0x11111111u);
        s->labels[i][0] = (struct plan_label){"a", draw_of(s, values, 2)};
        s->labels[i][1] = (struct plan_label){"b", draw_of(s, values, 3)};
        s->machines[i] = (struct plan_machine){.id = s->ids[i],
                                               .labels = s->labels[i],
                                               .label_count = draw(s, 3),
                                               .available = state > 1,
                                               .lost = state == 0};
    }
}

static void add_requirement(struct sample *s, struct unit_file *file, unsigned unit_count)
{
    static const char *const metadata[] = {"a=1", "\"a=1\" \"a=2\"", "b=1", "\"b=2\" \"b=3\"",
                                           "\"a=1\" \"b=1\""};
    static const char *const patterns[] = {"web@*", "u1*", "*1.service", "*[3-5].service", "u?.service"};
    const char *const name = s->names[draw(s, unit_count)];
    const char *const pattern = draw(s, 2) == 0 ? name : draw_of(s, patterns, ARRAY_SIZE(patterns));

    switch (draw(s, 8)) {
    case 0:
        unit_file_add(file, "X-Fleet", "MachineMetadata", draw_of(s, metadata, ARRAY_SIZE(metadata)));
        break;
    case 1:
    case 2: unit_file_add(file, "X-Fleet", "MachineOf", name); break;
    case 3: unit_file_add(file, "X-Fleet", "Conflicts", pattern); break;
    case 4:
    case 5: unit_file_add(file, "X-Fleet", s->seed % 3 == 0 ? "Conflicts" : "Replaces", pattern); break;
    case 6: unit_file_add(file, "X-Fleet", "Global", "yes"); break;
    case 7: unit_file_add(file, "X-Fleet", "MachineID", s->ids[draw(s, MACHINES_MAX)]); break;
    }
}

static struct requirements *make_requirements(struct sample *s, unsigned unit, unsigned unit_count)
{
    _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
    struct requirements *r;

    for (unsigned i = draw(s, 4); i > 1; i--)
        add_requirement(s, file, unit_count);
    r = requirements_new(file, s->names[unit]);
    if (requirements_check(r, NULL) == 0)
        return r;
    requirements_free(r);
    return NEW0(struct requirements);
}

static void make_sample(struct sample *s, uint64_t seed)
{
    unsigned count;

    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->random = seed * 0x9e3779b97f4a7c15u + 1;
    s->facts.machines = s->machines;
    s->facts.units = s->units;
    for (int i = 0; i < 10; i++)
        draw(s, 2);
    for (unsigned i = 0; i < MACHINES_MAX; i++)
        snprintf(s->ids[i], sizeof s->ids[i], "%08xaa", (i + 1) * 0x11111111u);
    make_machines(s);
    count = draw(s, UNITS_MAX + 1);
    s->facts.unit_count = count;
    for (unsigned i = 0; i < count; i++)
        snprintf(s->names[i], sizeof s->names[i], draw(s, 2) == 0 ? "u%u.service" : "web@%u.service", i);
    for (unsigned i = 0; i < count; i++) {
        unsigned where = draw(s, MACHINES_MAX * 2);

        s->requirements[i] = make_requirements(s, i, count);
        s->units[i] = (struct plan_unit){
            .name = s->names[i],
            .requirements = s->requirements[i],
            .desired = draw(s, 6) == 0 ? UNIT_STATE_INACTIVE : (enum unit_state)(1 + draw(s, 2)),
            .target = where < MACHINES_MAX ? s->ids[where] : NULL, /* Known or not. */
        };
    }
}

static void free_sample(struct sample *s)
{
    for (size_t i = 0; i < UNITS_MAX; i++)
        requirements_free(s->requirements[i]);
}

/* --- The oracle --- */

static void dump_list(const char *option, const struct strlist *values)
{
    for (size_t i = 0; i < values->count; i++)
        print_message("  %s=%s\n", option, values->items[i]);
}

/* As an input of tests/golden, near enough. */
static void dump(const struct sample *s)
{
    for (size_t i = 0; i < s->facts.machine_count; i++) {
        const struct plan_machine *m = &s->machines[i];

        print_message("machine %s - %s", m->id, m->available ? "up" : m->lost ? "lost" : "held");
        for (size_t j = 0; j < m->label_count; j++)
            print_message(" %s=%s", m->labels[j].key, m->labels[j].value);
        print_message("\n");
    }
    for (size_t i = 0; i < s->facts.unit_count; i++) {
        const struct plan_unit *unit = &s->units[i];
        const struct requirements *r = unit->requirements;

        print_message("unit %s %s %s\n", unit->name, unit_state_to_string(unit->desired),
                      unit->target != NULL ? unit->target : "-");
        if (r->has_machine_id)
            print_message("  MachineID=%s\n", r->machine_id);
        dump_list("MachineOf", &r->machine_of);
        dump_list("Conflicts", &r->conflicts);
        dump_list("Replaces", &r->replaces);
        for (size_t j = 0; j < r->metadata_count; j++)
            for (size_t k = 0; k < r->metadata[j].values.count; k++)
                print_message("  MachineMetadata=%s=%s\n", r->metadata[j].key,
                              r->metadata[j].values.items[k]);
        if (r->global)
            print_message("  Global=yes\n");
    }
}

static void check(const struct sample *s, bool condition, const char *text, int line)
{
    if (condition)
        return;
    dump(s);
    fail_msg("line %d, seed %llu: %s", line, (unsigned long long)s->seed, text);
}

#define CHECK(s, condition) check((s), (condition), #condition, __LINE__)

static const struct plan_machine *machine_of(const struct sample *s, const char *id)
{
    for (size_t i = 0; id != NULL && i < s->facts.machine_count; i++)
        if (streq(s->machines[i].id, id))
            return &s->machines[i];
    return NULL;
}

static bool label_fits(const struct plan_machine *m, const struct requirements_metadata *wanted)
{
    for (size_t i = 0; i < m->label_count; i++)
        if (streq(m->labels[i].key, wanted->key))
            return strlist_has(&wanted->values, m->labels[i].value);
    return false;
}

static bool machine_fits(const struct plan_machine *m, const struct requirements *r)
{
    if (r->has_machine_id && !streq(r->machine_id, m->id))
        return false;
    for (size_t i = 0; i < r->metadata_count; i++)
        if (!label_fits(m, &r->metadata[i]))
            return false;
    return true;
}

static bool matches(const struct strlist *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], name))
            return true;
    return false;
}

static bool conflict(const struct plan_unit *a, const struct plan_unit *b)
{
    return a != b &&
           (matches(&a->requirements->conflicts, b->name) || matches(&b->requirements->conflicts, a->name));
}

static bool is_active(const struct plan_unit *unit)
{
    return unit->desired != UNIT_STATE_INACTIVE;
}

static bool replaces(const struct plan_unit *a, const struct plan_unit *b)
{
    return a != b && is_active(a) && is_active(b) && !a->requirements->global && !b->requirements->global &&
           matches(&a->requirements->replaces, b->name);
}

static bool follows(const struct plan_unit *a, const struct plan_unit *b)
{
    return is_active(a) && is_active(b) && strlist_has(&a->requirements->machine_of, b->name);
}

/* reaches[a][b]: 'a' drives 'b' away, be it through others. */
static void close_replaces(const struct sample *s, bool reaches[UNITS_MAX][UNITS_MAX])
{
    size_t n = s->facts.unit_count;

    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < n; b++)
            reaches[a][b] = replaces(&s->units[a], &s->units[b]) || follows(&s->units[b], &s->units[a]);
    for (size_t via = 0; via < n; via++)
        for (size_t a = 0; a < n; a++)
            for (size_t b = 0; b < n; b++)
                reaches[a][b] = reaches[a][b] || (reaches[a][via] && reaches[via][b]);
}

static bool on(const struct sample *s, const struct plan *plan, const char *name,
               const struct plan_machine *m)
{
    for (size_t i = 0; i < s->facts.unit_count; i++)
        if (streq(s->units[i].name, name))
            return s->units[i].requirements->global
                       ? plan_global_wanted(plan, name, m->id, NULL)
                       : s->units[i].target != NULL && streq(s->units[i].target, m->id);
    return false;
}

/* 's' is after the plan. */
static void check_placed(const struct sample *s, const struct plan *plan, const struct plan_unit *unit)
{
    const struct plan_machine *m = machine_of(s, unit->target);

    CHECK(s, is_active(unit) && !unit->requirements->global);
    CHECK(s, m != NULL && !m->lost);
    CHECK(s, machine_fits(m, unit->requirements));
    for (size_t i = 0; i < unit->requirements->machine_of.count; i++)
        CHECK(s, on(s, plan, unit->requirements->machine_of.items[i], m));
    for (size_t i = 0; i < s->facts.unit_count; i++)
        if (conflict(unit, &s->units[i]))
            CHECK(s, !on(s, plan, s->units[i].name, m));
}

static void check_replaces(const struct sample *s)
{
    static bool reaches[UNITS_MAX][UNITS_MAX];

    close_replaces(s, reaches);
    for (size_t a = 0; a < s->facts.unit_count; a++)
        for (size_t b = 0; b < s->facts.unit_count; b++)
            if (replaces(&s->units[a], &s->units[b]) && !reaches[b][a] && s->units[a].target != NULL &&
                s->units[b].target != NULL)
                CHECK(s, !streq(s->units[a].target, s->units[b].target));
}

static void check_unplaced(const struct sample *s, const struct plan *plan, const struct plan_unit *unit)
{
    _cleanup_(plan_explanation_freep) struct plan_explanation *e = NULL;
    bool said = false;

    if (!is_active(unit) || unit->requirements->global)
        return;
    e = plan_explain(plan, unit->name);
    CHECK(s, e != NULL && e->count == s->facts.machine_count);
    for (size_t i = 0; i < e->count; i++)
        CHECK(s, e->verdicts[i].text != NULL);
    for (size_t i = 0; i < plan->pending_count; i++)
        said = said || streq(plan->pending[i].unit, unit->name);
    CHECK(s, said);
}

static void check_global(const struct sample *s, const struct plan *plan, const struct plan_unit *global)
{
    for (size_t i = 0; i < s->facts.machine_count; i++) {
        const struct plan_machine *m = &s->machines[i];
        _cleanup_(freep) char *reason = NULL;
        bool clash = false;

        if (!plan_global_wanted(plan, global->name, m->id, &reason)) {
            CHECK(s, reason != NULL);
            continue;
        }
        for (size_t j = 0; j < s->facts.unit_count; j++)
            clash = clash || (conflict(global, &s->units[j]) && on(s, plan, s->units[j].name, m));
        CHECK(s, !clash && is_active(global) && !m->lost && machine_fits(m, global->requirements));
    }
}

/* Carries out the plan and checks each change on the way. */
static void carry_out(struct sample *s, const struct plan *plan)
{
    for (size_t i = 0; i < plan->change_count; i++) {
        const struct plan_change *c = &plan->changes[i];
        struct plan_unit *unit = NULL;

        for (size_t j = 0; j < s->facts.unit_count; j++)
            if (streq(s->units[j].name, c->unit))
                unit = &s->units[j];
        CHECK(s, unit != NULL && c->reason[0] != '\0');
        CHECK(s, c->from == unit->target && (c->from != NULL || c->to != NULL));
        CHECK(s, c->to == NULL || machine_of(s, c->to)->available);
        CHECK(s, c->to == NULL || c->from == NULL || !streq(c->from, c->to));
        unit->target = c->to;
    }
}

static bool any_replaces(const struct sample *s)
{
    for (size_t i = 0; i < s->facts.unit_count; i++)
        if (s->units[i].requirements->replaces.count > 0)
            return true;
    return false;
}

/* Whoever left a living machine could not have stayed there, as it is now. (Where units are replaced, one may
 * have made way for another that then had to leave itself.) */
static void check_moved(const struct sample *before, const struct sample *after, const struct plan *plan)
{
    for (size_t i = 0; i < before->facts.unit_count; i++) {
        const struct plan_machine *m = machine_of(before, before->units[i].target);
        _cleanup_(plan_explanation_freep) struct plan_explanation *e = NULL;

        if (m == NULL || m->lost || before->units[i].target == after->units[i].target ||
            !is_active(&before->units[i]) || before->units[i].requirements->global)
            continue;
        e = plan_explain(plan, before->units[i].name);
        for (size_t j = 0; j < e->count; j++)
            if (streq(e->verdicts[j].machine, m->id))
                CHECK(before, e->verdicts[j].text != NULL);
    }
}

static void shuffle(struct sample *s)
{
    for (size_t i = s->facts.unit_count; i > 1; i--) {
        size_t j = draw(s, (unsigned)i);
        struct plan_unit unit = s->units[i - 1];

        s->units[i - 1] = s->units[j];
        s->units[j] = unit;
    }
    for (size_t i = s->facts.machine_count; i > 1; i--) {
        size_t j = draw(s, (unsigned)i);
        struct plan_machine m = s->machines[i - 1];

        s->machines[i - 1] = s->machines[j];
        s->machines[j] = m;
    }
}

static void check_same(const struct sample *s, const struct plan *a, const struct plan *b)
{
    CHECK(s, a->change_count == b->change_count && a->pending_count == b->pending_count);
    for (size_t i = 0; i < a->change_count; i++) {
        CHECK(s, streq(a->changes[i].unit, b->changes[i].unit) && a->changes[i].to == b->changes[i].to);
        CHECK(s, streq(a->changes[i].reason, b->changes[i].reason));
    }
    for (size_t i = 0; i < a->pending_count; i++)
        CHECK(s, streq(a->pending[i].reason, b->pending[i].reason));
}

/* Everything that must hold once a plan was carried out. */
static void check_settled(const struct sample *s)
{
    struct plan *plan = plan_new(&s->facts);

    CHECK(s, plan->change_count == 0);
    for (size_t i = 0; i < s->facts.unit_count; i++) {
        if (s->units[i].target != NULL)
            check_placed(s, plan, &s->units[i]);
        else
            check_unplaced(s, plan, &s->units[i]);
        if (s->units[i].requirements->global)
            check_global(s, plan, &s->units[i]);
    }
    check_replaces(s);
    plan_free(plan);
}

/* --- Inactive units --- */

/* Without the inactive units that have no place, the same units go to the same machines. */
static void check_inactive_mean_nothing(const struct sample *s, const struct plan *plan)
{
    static struct plan_unit units[UNITS_MAX];
    struct plan_facts facts = s->facts;
    struct plan *without;

    facts.units = units;
    facts.unit_count = 0;
    for (size_t i = 0; i < s->facts.unit_count; i++)
        if (is_active(&s->units[i]) || s->units[i].target != NULL)
            units[facts.unit_count++] = s->units[i];
    without = plan_new(&facts);
    CHECK(s, without->change_count == plan->change_count);
    for (size_t i = 0; i < plan->change_count; i++)
        CHECK(s, streq(plan->changes[i].unit, without->changes[i].unit) &&
                     plan->changes[i].to == without->changes[i].to);
    plan_free(without);
}

/* --- A cluster that changes, step by step --- */

static void change_machine(struct sample *s)
{
    static const char *const values[] = {"1", "2", "3"};
    size_t i = s->facts.machine_count > 0 ? draw(s, (unsigned)s->facts.machine_count) : MACHINES_MAX;

    if (i == MACHINES_MAX)
        return;
    switch (draw(s, 3)) {
    case 0: s->machines[i].label_count = draw(s, 3); break;
    case 1: s->labels[i][draw(s, 2)].value = draw_of(s, values, 3); break;
    default:
        s->machines[i].lost = draw(s, 4) == 0;
        s->machines[i].available = !s->machines[i].lost && draw(s, 4) > 0;
    }
}

/* A user starts, stops or unloads a unit, or gives it other content. */
static void change_unit(struct sample *s)
{
    size_t i = s->facts.unit_count > 0 ? draw(s, (unsigned)s->facts.unit_count) : UNITS_MAX;

    if (i == UNITS_MAX)
        return;
    if (draw(s, 3) > 0) {
        s->units[i].desired = (enum unit_state)draw(s, UNIT_STATE_COUNT);
        return;
    }
    requirements_free(s->requirements[i]);
    s->units[i].requirements = s->requirements[i] =
        make_requirements(s, (unsigned)i, (unsigned)s->facts.unit_count);
}

/* A unit that asks for nothing, and of which nobody asks anything. */
static bool is_plain(const struct sample *s, const struct plan_unit *unit)
{
    const struct requirements *r = unit->requirements;

    if (r->global || r->has_machine_id || r->machine_of.count + r->metadata_count > 0)
        return false;
    for (size_t i = 0; i < s->facts.unit_count; i++)
        if (conflict(unit, &s->units[i]) || replaces(&s->units[i], unit))
            return false;
    return true;
}

/* Such a unit stays as long as it is wanted and its machine is not lost, whatever happens around it. */
static void check_plain_stay(const struct sample *before, const struct sample *after)
{
    for (size_t i = 0; i < before->facts.unit_count; i++) {
        const struct plan_machine *m = machine_of(before, before->units[i].target);

        if (m != NULL && !m->lost && is_active(&before->units[i]) && is_plain(before, &before->units[i]))
            CHECK(before, after->units[i].target == before->units[i].target);
    }
}

static void keep(struct sample *copy, const struct sample *s)
{
    *copy = *s;
    copy->facts.machines = copy->machines;
    copy->facts.units = copy->units;
}

static void test_changing_clusters(void **state)
{
    static struct sample s, before;
    size_t moved = 0, stayed = 0;

    for (uint64_t seed = 1; seed <= seed_count / 5; seed++) {
        make_sample(&s, seed);
        for (int step = 0; step < 20; step++) {
            struct plan *plan;

            if (draw(&s, 2) == 0)
                change_machine(&s);
            else
                change_unit(&s);
            keep(&before, &s);
            plan = plan_new(&s.facts);
            check_inactive_mean_nothing(&s, plan);
            carry_out(&s, plan);
            if (step > 0)
                *(plan->change_count > 0 ? &moved : &stayed) += 1;
            if (!any_replaces(&s))
                check_moved(&before, &s, plan);
            check_plain_stay(&before, &s);
            plan_free(plan);
            check_settled(&s);
        }
        free_sample(&s);
    }
    print_message("%zu of %zu changes moved something\n", moved, moved + stayed);
    assert_true(moved > seed_count / 5 && stayed > seed_count / 5);
}

static void test_random_clusters(void **state)
{
    static struct sample s, before;
    size_t changes = 0, pending = 0;

    for (uint64_t seed = 1; seed <= seed_count; seed++) {
        struct plan *plan, *other;

        make_sample(&s, seed);
        plan = plan_new(&s.facts);
        shuffle(&s);
        other = plan_new(&s.facts);
        check_same(&s, plan, other);
        plan_free(other); /* Looked into the order before the shuffle no more. */
        plan_free(plan);

        plan = plan_new(&s.facts);
        before = s;
        before.facts.machines = before.machines;
        before.facts.units = before.units;
        changes += plan->change_count;
        pending += plan->pending_count;
        carry_out(&s, plan);
        if (!any_replaces(&s))
            check_moved(&before, &s, plan);
        plan_free(plan);

        check_settled(&s);
        free_sample(&s);
    }
    print_message("%zu changes, %zu pending in %llu clusters\n", changes, pending,
                  (unsigned long long)seed_count);
    assert_true(changes > seed_count && pending > seed_count); /* The samples are worth something. */
}

/* --- Questions with no good answer --- */

static void test_unknown_names(void **state)
{
    static struct requirements none, global = {.global = true};
    struct plan_machine machines[] = {{.id = "aaaaaaaaaa", .available = true}};
    struct plan_unit units[] = {
        {.name = "g.service", .requirements = &global, .desired = UNIT_STATE_LAUNCHED},
        {.name = "h.service", .requirements = &global, .desired = UNIT_STATE_INACTIVE},
        {.name = "u.service", .requirements = &none, .desired = UNIT_STATE_LAUNCHED},
    };
    static const struct {
        const char *unit, *machine, *reason;
    } table[] = {
        {"x.service", "aaaaaaaaaa", "there is no such unit"},
        {"u.service", "aaaaaaaaaa", "the unit is not global"},
        {"h.service", "aaaaaaaaaa", "desired state is inactive"},
        {"g.service", "bbbbbbbbbb", "there is no such machine"},
    };
    struct plan_facts facts = {machines, 1, units, 3};
    _cleanup_(plan_freep) struct plan *plan = plan_new(&facts);

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(freep) char *reason = NULL;

        assert_false(plan_global_wanted(plan, table[i].unit, table[i].machine, &reason));
        assert_string_equal(reason, table[i].reason);
        assert_false(plan_global_wanted(plan, table[i].unit, table[i].machine, NULL));
    }
    assert_true(plan_global_wanted(plan, "g.service", "aaaaaaaaaa", NULL));
    assert_null(plan_explain(plan, "x.service"));
    plan_explanation_free(NULL);
    plan_free(NULL);
}

/* --- Speed --- */

static void time_plan(const char *what, const char *option, const char *value, size_t machine_count,
                      size_t unit_count, size_t new_count)
{
    struct plan_machine *machines = xcalloc(machine_count, sizeof *machines);
    struct plan_unit *units = xcalloc(unit_count, sizeof *units);
    struct plan_facts facts = {machines, machine_count, units, unit_count};
    struct plan_label labels[] = {{"region", "eu"}, {"zone", "1"}};
    struct plan *plan;
    clock_t start;

    for (size_t i = 0; i < machine_count; i++)
        machines[i] = (struct plan_machine){.id = xasprintf("%08zxaabbccdd", i * 7919),
                                            .labels = labels,
                                            .label_count = 2,
                                            .available = true};
    for (size_t i = 0; i < unit_count; i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
        char *name = xasprintf("app%zu@%zu.service", i % 100, i / 100);

        unit_file_add(file, "X-Fleet", "MachineMetadata", "region=eu");
        unit_file_add(file, "X-Fleet", option, value);
        units[i] =
            (struct plan_unit){.name = name,
                               .requirements = requirements_new(file, name),
                               .desired = UNIT_STATE_LAUNCHED,
                               .target = i < unit_count - new_count ? machines[i % machine_count].id : NULL};
    }
    start = clock();
    plan = plan_new(&facts);
    print_message("%s: %zu machines, %zu units, %zu new: %zu changes, %zu pending in %ld ms\n", what,
                  machine_count, unit_count, new_count, plan->change_count, plan->pending_count,
                  (long)((clock() - start) * 1000 / CLOCKS_PER_SEC));
    assert_true(plan->change_count + plan->pending_count >= new_count);
    plan_free(plan);
    for (size_t i = 0; i < machine_count; i++)
        free((char *)machines[i].id);
    for (size_t i = 0; i < unit_count; i++) {
        requirements_free((struct requirements *)units[i].requirements);
        free((char *)units[i].name);
    }
    free(machines);
    free(units);
}

/* How long it takes to plan a chain of MachineOf whose head fits nowhere, or moves and takes all of it along.
 */
static double time_chain(size_t count, bool placed, bool backwards)
{
    struct plan_label label = {"a", "1"};
    struct plan_machine machines[] = {
        {.id = "aaaaaaaaaa", .available = true},
        {.id = "bbbbbbbbbb", .available = true, .labels = &label, .label_count = 1}};
    struct plan_unit *units = xcalloc(count, sizeof *units);
    struct plan_facts facts = {machines, 2, units, count};
    struct plan *plan;
    clock_t start, end;

    for (size_t i = 0; i < count; i++) {
        _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
        _cleanup_(freep) char *peer = xasprintf("u%06zu.service", backwards ? count - i + 1 : i - 1);

        units[i].name = xasprintf("u%06zu.service", backwards ? count - i : i);
        if (i == 0)
            unit_file_add(file, "X-Fleet", "MachineMetadata", placed ? "a=1" : "a=2");
        else
            unit_file_add(file, "X-Fleet", "MachineOf", peer);
        units[i].requirements = requirements_new(file, units[i].name);
        units[i].desired = UNIT_STATE_LAUNCHED;
        units[i].target = placed ? machines[0].id : NULL;
    }
    start = clock();
    plan = plan_new(&facts);
    end = clock();
    assert_int_equal(placed ? plan->change_count : plan->pending_count, count);
    plan_free(plan);
    for (size_t i = 0; i < count; i++) {
        requirements_free((struct requirements *)units[i].requirements);
        free((char *)units[i].name);
    }
    free(units);
    return (double)(end - start) / CLOCKS_PER_SEC;
}

static double best_time(size_t count, bool placed, bool backwards)
{
    double best = time_chain(count, placed, backwards);

    for (int i = 0; i < 3; i++) {
        double again = time_chain(count, placed, backwards);

        best = again < best ? again : best;
    }
    return best;
}

/* Four times as many units may take somewhat more than four times as long, but not sixteen times. */
static void test_long_chains(void **state)
{
    for (int i = 0; i < 4; i++) {
        double one = best_time(5000, i & 1, i & 2), four = best_time(20000, i & 1, i & 2);

        print_message("chains of 5000 and 20000: %.1f and %.1f ms\n", one * 1000, four * 1000);
        assert_true(four < 10 * one);
    }
}

static void test_large_clusters(void **state)
{
    time_plan("plain", "Unknown", "", 1000, 10000, 1000);
    time_plan("instances keep apart", "Conflicts", "%p@*.service", 1000, 10000, 1000);
    time_plan("pattern of its own each", "Conflicts", "x-%i-%p-*", 1000, 10000, 1000);
    time_plan("all keep apart", "Conflicts", "app*", 1000, 2000, 1000);
    time_plan("few machines", "Conflicts", "%p@*.service", 3, 10000, 1000);
    time_plan("replacing", "Replaces", "%p@1?.service", 1000, 10000, 1000);
    time_plan("nothing fits", "MachineMetadata", "zone=2", 1000, 10000, 1000);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_names),     cmocka_unit_test(test_random_clusters),
        cmocka_unit_test(test_changing_clusters), cmocka_unit_test(test_large_clusters),
        cmocka_unit_test(test_long_chains),
    };

    if (argc > 1)
        seed_count = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
