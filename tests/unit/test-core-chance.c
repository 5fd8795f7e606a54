/* SPDX-License-Identifier: Apache-2.0 */
/* The core by chance (seeded): after all that users and machines may do, everything settles, and by its laws.
 *
 * FLEET_SEED=N runs one seed, FLEET_SEEDS=N the first N. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetd/core/core_private.h"
#include "fleetd/core/drain.h"
#include "fleetd/core/failing.h"
#include "tests/unit/core-world.h"

#define UNITS_ALL 8u

static void some_unit(struct world *w, char name[16])
{
    snprintf(name, 16, "u%llu.service", (unsigned long long)world_random(w, UNITS_ALL));
}

static const char *some_text(struct world *w)
{
    static const char *const texts[] = {PLAIN,
                                        OTHER,
                                        ON_WEB,
                                        ON_A,
                                        ON_B,
                                        ON_C,
                                        PLAIN STOP,
                                        STOP_3S,
                                        PLAIN "TimeoutStopSec=40\n" STOP,
                                        PLAIN "[X-Fleet]\nConflicts=u*\n",
                                        PLAIN "[X-Fleet]\nFailureLimitBurst=1\nFailureLimitIntervalSec=20s\n",
                                        OTHER "[X-Fleet]\nFailureLimitBurst=2\nFailureLimitIntervalSec=30s\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u0.service\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u1.service\n",
                                        PLAIN "[X-Fleet]\nMachineOf=u2.service\nConflicts=u5.service\n",
                                        PLAIN "[X-Fleet]\nReplaces=u[0-3].service\n",
                                        PLAIN "[X-Fleet]\nGlobal=true\nConflicts=u[4-7].service\n",
                                        WEB_ALL,
                                        GLOBAL};

    return texts[world_random(w, ARRAY_SIZE(texts))];
}

static void something_of_a_user(struct world *w)
{
    char name[16];

    some_unit(w, name);
    switch (world_random(w, 7)) {
    case 5: cluster_sets(w, "failure_limit_burst", world_random(w, 2) == 0 ? "2" : NULL); break;
    case 0: user_submits(w, name, some_text(w), LAUNCHED); break;
    case 1: user_starts(w, name); break;
    case 2: user_stops(w, name); break;
    case 3: user_loads(w, name); break;
    case 4:
        if (registry_unit(w->registry, name) != NULL)
            user_destroys(w, name);
        break;
    default:
        gets_metadata(w, (const char[]){(char)('a' + world_random(w, MACHINES_ALL)), 0}, "role",
                      world_random(w, 2) == 0 ? "web" : "db");
    }
}

/* systemd does, by itself. */
static void restarts_something(struct world *w, const char *name)
{
    const struct machine *m = machine_of(w, name);
    const struct item *item = m->count > 0 ? &m->items[world_random(w, m->count)] : NULL;

    if (item == NULL || !streq(item->active, "active") || item->wanted == 0 ||
        item->wanted != item->carried_out)
        return;
    reports_sub(w, name, item->unit, "activating", "auto-restart");
    if (world_random(w, 2) == 0 && item_of(m, item->unit) != NULL)
        reports(w, name, item->unit, "active");
}

static void something_of_a_machine(struct world *w)
{
    char name[2] = {(char)('a' + world_random(w, MACHINES_ALL)), 0};
    struct machine *m = machine_of(w, name);
    const struct registry_machine *known = registry_machine(w->registry, m->id);
    bool member = known != NULL && known->registered;

    switch (world_random(w, 15)) {
    case 14:
        if (m->session != 0 && !m->off)
            is_shut_down(w, name, world_random(w, 3) > 0);
        break;
    case 10:
        if (member && m->session != 0) {
            is_stopped(w, name);
            m->beats = false;
            accepts_probes(w, name, false);
        }
        break;
    case 11: loses_power(w, name); break;
    case 12:
        falls_silent(w, name);
        if (!m->off)
            accepts_probes(w, name, world_random(w, 2) == 0);
        break;
    case 13:
        if (m->session != 0 && m->beats)
            restarts_something(w, name);
        break;
    case 8:
        if (member)
            is_set(w, name, (Fleet__Availability)(ACTIVE + world_random(w, 3)));
        break;
    case 9:
        if (member && world_random(w, 2) == 0)
            is_confirmed_lost(w, name);
        break;
    case 0:
        if (m->session != 0)
            machine_hangs_up(w, name);
        break;
    case 1: falls_silent(w, name); break;
    case 2:
        if (m->session != 0 && !m->off)
            is_heard(w, name);
        break;
    case 3:
        if (world_random(w, 4) == 0 && member)
            is_removed(w, name);
        break;
    case 4: registers(w, name, world_random(w, 2) == 0 ? "role=web" : NULL); break;
    default:
        if (member)
            machine_calls(w, name);
    }
}

static void something(struct world *w)
{
    switch (world_random(w, 20)) {
    case 0:
        if (world_random(w, 4) == 0)
            leads(w);
        break;
    case 1: w->refuse = (unsigned)world_random(w, 3); break;
    case 2:
        if (w->held == NULL)
            w->hold = true;
        break;
    case 3:
        if (w->held != NULL)
            held_is(w, world_random(w, 2) == 0);
        break;
    case 4:
        if (world_random(w, 4) == 0)
            stands_still(w, world_random(w, 3 * TTL_MS));
        break;
    case 5:
        if (world_random(w, 4) == 0)
            core_set_ttl(w->core, (1 + world_random(w, 3)) * TTL_MS, w->now_ms);
        break;
    case 6:
        if (world_random(w, 4) == 0)
            may_place(w, world_random(w, 2) == 0);
        break;
    default:
        if (world_random(w, 2) == 0)
            something_of_a_user(w);
        else
            something_of_a_machine(w);
    }
    advance(w, world_random(w, 8) == 0 ? world_random(w, 12000) : world_random(w, 800));
}

/* Faults end: everybody is there. */
static void calm_down(struct world *w)
{
    w->hold = false;
    w->refuse = 0;
    w->failing = 0;
    may_place(w, true);
    core_set_ttl(w->core, TTL_MS, w->now_ms);
    if (w->held != NULL)
        held_is(w, true);
    for (unsigned i = 0; i < MACHINES_ALL; i++) {
        char name[2] = {(char)('a' + i), 0};

        registers(w, name, i == 0 ? "role=web" : NULL);
        /* One may go on being drained: what fits elsewhere has left it in the end. */
        is_set(w, name, i == 2 && world_random(w, 2) == 0 ? DRAINING : ACTIVE);
        machine_of(w, name)->shuts_down = false;
        machine_calls(w, name);
    }
    advance(w, 6 * TTL_MS);
    for (unsigned i = 0; i < MACHINES_ALL; i++)
        is_mended(w, (const char[]){(char)('a' + i), 0});
}

static bool matches(const struct strlist *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], name))
            return true;
    return false;
}

/* Where everybody is placed in the end: peers together, those that conflict apart, by each one's own word. */
static void check_company(const struct world *w, const struct registry_unit *const *units, size_t count)
{
    for (size_t m = 0; m < MACHINES_ALL; m++)
        for (size_t i = 0; i < count; i++) {
            const struct requirements *r = units[i]->requirements;

            if (!core_machine_wants(w->core, w->machines[m].id, units[i]))
                continue;
            for (size_t j = 0; j < r->machine_of.count && !r->global; j++) {
                const struct registry_unit *peer = registry_unit(w->registry, r->machine_of.items[j]);

                if (peer == NULL || !core_machine_wants(w->core, w->machines[m].id, peer))
                    fail_msg("%s is on %.1s without %s", units[i]->name, w->machines[m].id,
                             r->machine_of.items[j]);
            }
            for (size_t j = 0; j < count; j++)
                if (j != i && core_machine_wants(w->core, w->machines[m].id, units[j]) &&
                    matches(&r->conflicts, units[j]->name))
                    fail_msg("%s is on %.1s beside %s", units[i]->name, w->machines[m].id, units[j]->name);
        }
}

static void check_settled(struct world *w)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(w->registry, &count);

    for (size_t i = 0; i < count; i++) {
        const char *outcome = outcome_of(w, units[i]->name);

        if (streq(outcome, "waiting") || streq(outcome, "failed"))
            fail_msg("%s: %s (%s)", units[i]->name, outcome, reason_of(w, units[i]->name));
        if (units[i]->handover || core_drain_move(w->core, units[i]->name) != NULL)
            fail_msg("%s has not left its old machine for good", units[i]->name);
    }
    assert_null(w->core->failing);
    check_company(w, units, count);
    for (size_t i = 0; i < MACHINES_ALL; i++)
        for (size_t j = 0; j < w->machines[i].count; j++) {
            const char *name = w->machines[i].items[j].unit;
            const struct registry_unit *unit = registry_unit(w->registry, name);

            if (unit == NULL || !core_machine_wants(w->core, w->machines[i].id, unit))
                fail_msg("%s is still on %.1s", name, w->machines[i].id);
        }
}

static char *run(uint64_t seed, unsigned steps)
{
    struct world w;
    char *text = NULL;
    size_t size;

    world_init(&w);
    w.chance = seed;
    w.slow = true;
    w.failing = (unsigned)world_random(&w, 5);
    w.transcript = open_memstream(&text, &size);
    registers(&w, "a", NULL);
    registers(&w, "b", NULL);
    registers(&w, "c", "role=web");
    leads(&w);
    cluster_sets(&w, "failure_limit_interval", "20s");
    for (unsigned i = 0; i < steps; i++)
        something(&w);
    calm_down(&w);
    for (unsigned i = 0; i < 360 && w.core->failing != NULL; i++) /* Until no failure counts any more. */
        advance(&w, TTL_MS);
    advance(&w, 6 * TTL_MS);
    check_settled(&w);
    world_forget(&w);
    advance(&w, 6 * TTL_MS);
    assert_int_equal(w.schedules + w.shares + w.drops + w.logs + w.settled.count, 0);
    fclose(w.transcript);
    world_done(&w);
    return text;
}

static void test_by_chance(void **state)
{
    const char *seed = getenv("FLEET_SEED"), *seeds = getenv("FLEET_SEEDS");
    uint64_t first = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    uint64_t last = seed != NULL ? first : seeds != NULL ? strtoull(seeds, NULL, 0) : 200;

    for (uint64_t i = first; i <= last; i++) {
        fprintf(stderr, "%sFLEET_SEED=%llu", i == first ? "" : "\r", (unsigned long long)i);
        free(run(i, 300));
    }
    fprintf(stderr, "\n");
}

static void test_a_seed_reproduces(void **state)
{
    _cleanup_(freep) char *one = run(4711, 300), *two = run(4711, 300);

    assert_true(strlen(one) > 1000);
    assert_string_equal(one, two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_chance),
        cmocka_unit_test(test_a_seed_reproduces),
    };

    if (getenv("FLEET_SEED") != NULL) /* Somebody looks into that one. */
        cmocka_set_test_filter("test_by_chance");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
