/* SPDX-License-Identifier: Apache-2.0 */
/* Who votes: every law, over every case of up to five hosts. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fleetd/core/voters.h"

#define HOSTS_MAX        16
#define CASES_HOSTS_MAX  5
#define BARRED_HOSTS_MAX 4 /* Every case of who must not lead, too; and of who has moved. */
#define STEPS_MAX        32

/* A host is a machine, a server, both or neither: its own id is its number, from 1. */
enum life { LIFE_NO_MACHINE, LIFE_ALIVE, LIFE_SILENT, LIFE_LOST, LIFE_COUNT };
enum part { PART_NONE, PART_VOTER, PART_STANDBY, PART_SPARE, PART_COUNT };

struct fleet {
    size_t count;
    enum life life[HOSTS_MAX];
    enum part part[HOSTS_MAX];
    bool no_leader[HOSTS_MAX];
    bool moved[HOSTS_MAX]; /* As a server it is still where it was before. */
    size_t leader;         /* A voter. */
};

static const enum server_role roles[] = {
    [PART_VOTER] = SERVER_VOTER, [PART_STANDBY] = SERVER_STANDBY, [PART_SPARE] = SERVER_SPARE};

static bool next(const struct fleet *f, unsigned wanted, struct voters_step *ret)
{
    struct store_server servers[HOSTS_MAX];
    struct voters_machine machines[HOSTS_MAX];
    size_t server_count = 0, machine_count = 0;

    for (size_t i = 0; i < f->count; i++) {
        if (f->part[i] != PART_NONE)
            servers[server_count++] =
                (struct store_server){i + 1, f->moved[i] ? "old" : "address", roles[f->part[i]]};
        if (f->life[i] != LIFE_NO_MACHINE)
            machines[machine_count++] = (struct voters_machine){
                i + 1, "address", f->no_leader[i], f->life[i] == LIFE_ALIVE, f->life[i] == LIFE_LOST};
    }
    return voters_next(servers, server_count, machines, machine_count, wanted, f->leader + 1, ret);
}

static void take(struct fleet *f, const struct voters_step *step)
{
    size_t i = (size_t)step->server_id - 1;

    assert_true(i < f->count);
    switch (step->role) {
    case SERVER_VOTER:
        assert_int_equal(f->part[i], PART_STANDBY); /* A standby first. */
        assert_int_equal(f->life[i], LIFE_ALIVE);
        f->part[i] = PART_VOTER;
        break;
    case SERVER_STANDBY:
        assert_true(f->part[i] == PART_VOTER ||
                    (f->life[i] == LIFE_ALIVE && (f->part[i] == PART_NONE || f->part[i] == PART_SPARE)));
        assert_true(i != f->leader);
        f->part[i] = PART_STANDBY;
        break;
    default:
        assert_true(f->part[i] != PART_NONE);
        assert_true(i != f->leader);
        assert_true(f->life[i] == LIFE_NO_MACHINE || f->part[i] == PART_STANDBY || f->moved[i]);
        f->part[i] = PART_NONE;
        f->moved[i] = false; /* Added again, it is added where it is. */
    }
}

static size_t count_part(const struct fleet *f, enum part part)
{
    size_t count = 0;

    for (size_t i = 0; i < f->count; i++)
        count += f->part[i] == part;
    return count;
}

static size_t count_life(const struct fleet *f, enum life life)
{
    size_t count = 0;

    for (size_t i = 0; i < f->count; i++)
        count += f->life[i] == life;
    return count;
}

/* What must hold when nothing is left to do. */
static void check_rest(const struct fleet *f, unsigned wanted)
{
    size_t voters = count_part(f, PART_VOTER), standbys = count_part(f, PART_STANDBY), able = voters;
    size_t silent = count_life(f, LIFE_SILENT);

    for (size_t i = 0; i < f->count; i++) {
        if (i == f->leader)
            continue;
        assert_false(f->life[i] == LIFE_NO_MACHINE && f->part[i] != PART_NONE);
        able += f->part[i] != PART_VOTER && f->life[i] == LIFE_ALIVE;
    }
    if (able > wanted)
        able = wanted;
    /* As many as there are hosts for (one that is silent is not yet replaced as a standby)... */
    assert_true(voters >= (able % 2 == 0 ? able - 1 : able) || silent > 0);
    assert_true(voters <= wanted);
    assert_true(voters % 2 == 1 || silent > 0); /* ...and odd, unless somebody may still call. */
    assert_true(voters + standbys <= wanted + STANDBYS_WANTED);
    for (size_t i = 0; i < f->count; i++) /* There is a living standby if there is a host for it. */
        assert_false(f->life[i] == LIFE_ALIVE && f->part[i] != PART_VOTER && f->part[i] != PART_STANDBY &&
                     voters + standbys < wanted + STANDBYS_WANTED);
}

/* The leader must not lead, and hands over to the first voter that may. */
static bool hand_over(struct fleet *f)
{
    if (!f->no_leader[f->leader] || f->life[f->leader] == LIFE_NO_MACHINE)
        return false;
    for (size_t i = 0; i < f->count; i++)
        if (f->part[i] == PART_VOTER && f->life[i] == LIFE_ALIVE && !f->no_leader[i]) {
            f->leader = i;
            return true;
        }
    return false;
}

/* Nobody who may lead is left out while one who must not has a vote (or while a silent one might still call).
 */
static void check_leaders(const struct fleet *f)
{
    bool barred = false;

    for (size_t i = 0; i < f->count; i++)
        barred = barred || (f->part[i] == PART_VOTER && f->no_leader[i] && f->life[i] != LIFE_NO_MACHINE);
    for (size_t i = 0; i < f->count && barred && count_life(f, LIFE_SILENT) == 0; i++)
        assert_false(f->life[i] == LIFE_ALIVE && !f->no_leader[i] && f->part[i] != PART_VOTER);
}

static void settles(struct fleet f, unsigned wanted)
{
    struct fleet seen[STEPS_MAX];
    struct voters_step step;
    size_t steps = 0, most = count_part(&f, PART_VOTER);

    if (most < wanted + 1)
        most = wanted + 1; /* One makes room for another. */

    for (;;) {
        if (hand_over(&f))
            continue;
        if (!next(&f, wanted, &step))
            break;
        for (size_t i = 0; i < steps; i++)
            if (memcmp(&seen[i], &f, sizeof f) == 0)
                fail_msg("goes in a circle");
        assert_true(steps < STEPS_MAX);
        seen[steps++] = f;
        take(&f, &step);
        assert_true(count_part(&f, PART_VOTER) <= most);
    }
    check_rest(&f, wanted);
    check_leaders(&f);
    for (size_t i = 0; i < f.count; i++) /* Nobody who is there is looked for elsewhere. */
        assert_false(f.moved[i] && i != f.leader && f.part[i] != PART_NONE && f.life[i] == LIFE_ALIVE);
}

static void test_every_case(void **state)
{
    static const unsigned wanted[] = {1, 3, 5, 7};

    for (size_t count = 1; count <= CASES_HOSTS_MAX; count++) {
        size_t cases = LIFE_COUNT;

        for (size_t i = 1; i < count; i++)
            cases *= LIFE_COUNT * PART_COUNT;
        for (size_t number = 0; number < cases; number++) {
            struct fleet f;
            size_t rest = number;

            memset(&f, 0, sizeof f);
            f.count = count;
            f.part[0] = PART_VOTER;
            f.life[0] = (enum life)(rest % LIFE_COUNT);
            rest /= LIFE_COUNT;
            for (size_t i = 1; i < count; i++) {
                f.life[i] = (enum life)(rest % LIFE_COUNT);
                rest /= LIFE_COUNT;
                f.part[i] = (enum part)(rest % PART_COUNT);
                rest /= PART_COUNT;
            }
            for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
                settles(f, wanted[i]);
            for (size_t moves = 1; moves < 1u << count && count <= BARRED_HOSTS_MAX; moves++) {
                for (size_t i = 0; i < count; i++)
                    f.moved[i] = (moves >> i & 1) != 0;
                for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
                    settles(f, wanted[i]);
            }
            memset(f.moved, 0, sizeof f.moved);
            for (size_t bars = 1; bars < 1u << count && count <= BARRED_HOSTS_MAX; bars++) {
                for (size_t i = 0; i < count; i++)
                    f.no_leader[i] = (bars >> i & 1) != 0;
                for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
                    settles(f, wanted[i]);
            }
        }
    }
}

/* A host that comes and goes changes nothing any more once it votes, and does not push anybody out. */
static void test_coming_and_going(void **state)
{
    struct fleet f = {.count = 4,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_STANDBY}};
    struct voters_step step;

    for (size_t i = 1; i < f.count; i++)
        for (enum life life = LIFE_ALIVE; life < LIFE_COUNT; life++) {
            f.life[i] = life;
            assert_false(next(&f, 3, &step));
            f.life[i] = LIFE_ALIVE;
            assert_false(next(&f, 3, &step));
        }
}

static void test_a_lost_standby_is_replaced(void **state)
{
    struct fleet f = {.count = 5,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_STANDBY, PART_NONE}};
    struct voters_step step;

    assert_false(next(&f, 3, &step));
    f.life[3] = LIFE_LOST;
    assert_true(next(&f, 3, &step));
    assert_int_equal(step.server_id, 5);
    assert_int_equal(step.role, SERVER_STANDBY);
    take(&f, &step);
    assert_true(next(&f, 3, &step));
    assert_int_equal(step.server_id, 4);
    assert_int_equal(step.role, SERVER_REMOVED);
    take(&f, &step);
    f.life[3] = LIFE_ALIVE;
    assert_false(next(&f, 3, &step));
}

/* Removed and then added, whatever it was; but not for as long as it is away. */
static void test_one_that_has_moved(void **state)
{
    static const struct voters_step steps[] = {
        {2, "old", SERVER_REMOVED}, {2, "address", SERVER_STANDBY}, {2, "address", SERVER_VOTER}};
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .moved = {true, true, false}};
    struct voters_step step;

    assert_false(next(&f, 3, &step)); /* Nor the leader, which cannot do it. */
    f.life[1] = LIFE_ALIVE;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_true(next(&f, 3, &step));
        assert_int_equal(step.server_id, steps[i].server_id);
        assert_string_equal(step.address, steps[i].address);
        assert_int_equal(step.role, steps[i].role);
        take(&f, &step);
    }
    assert_false(next(&f, 3, &step));
}

/* One that must not lead any more is replaced by one that may, and not by all of them. */
static void test_one_of_many_must_not_lead(void **state)
{
    struct fleet f = {.count = HOSTS_MAX};

    for (size_t i = 0; i < f.count; i++) {
        f.life[i] = LIFE_ALIVE;
        f.part[i] = i < 5 ? PART_VOTER : i == 5 ? PART_STANDBY : PART_NONE;
    }
    f.no_leader[3] = true;
    settles(f, 5);
    f.no_leader[3] = false;
    f.no_leader[0] = true; /* Who leads. */
    settles(f, 5);
    f.no_leader[1] = f.no_leader[2] = f.no_leader[3] = true;
    settles(f, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case),
        cmocka_unit_test(test_coming_and_going),
        cmocka_unit_test(test_a_lost_standby_is_replaced),
        cmocka_unit_test(test_one_that_has_moved),
        cmocka_unit_test(test_one_of_many_must_not_lead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
