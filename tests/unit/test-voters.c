/* SPDX-License-Identifier: Apache-2.0 */
/* Who votes: every law, over every case of a few hosts. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "fleetd/core/voters.h"

#define HOSTS_MAX 6
#define STEPS_MAX 48

/* A host is a machine, a server, both or neither: its own id is its number, from 1. */
/* LEFT: its machine was removed, and its server still answers. */
enum life { LIFE_NO_MACHINE, LIFE_LEFT, LIFE_ALIVE, LIFE_SILENT, LIFE_LOST, LIFE_GONE, LIFE_COUNT };
enum part { PART_NONE, PART_VOTER, PART_STANDBY, PART_SPARE, PART_COUNT };
enum will { WILL_AUTOMATIC, WILL_ALWAYS, WILL_NEVER, WILL_LEAVE, WILL_COUNT };

struct fleet {
    size_t count;
    enum life life[HOSTS_MAX];
    enum part part[HOSTS_MAX];
    enum will will[HOSTS_MAX];
    bool no_leader[HOSTS_MAX];
    bool ready[HOSTS_MAX]; /* If it is a standby. */
    bool moved[HOSTS_MAX]; /* As a server it is still where it was before. */
    bool mute[HOSTS_MAX];  /* Its fleetd is there, its server not. */
    unsigned value[HOSTS_MAX];
    size_t leader; /* A voter. */
};

static const unsigned wanted_numbers[] = {1, 3, 5};

#define EACH_WANTED(i) for (size_t i = 0; i < sizeof wanted_numbers / sizeof wanted_numbers[0]; i++)

static const enum server_role roles[] = {
    [PART_VOTER] = SERVER_VOTER, [PART_STANDBY] = SERVER_STANDBY, [PART_SPARE] = SERVER_SPARE};

struct facts {
    struct store_server servers[HOSTS_MAX];
    struct voters_machine machines[HOSTS_MAX];
    struct voters_facts facts;
};

static void fill(const struct fleet *f, unsigned wanted, struct facts *ret)
{
    static const char *const names[HOSTS_MAX] = {"one", "two", "three", "four", "five", "six"};
    static const char *const values[] = {"", "a", "b", "c"};
    static const char *const places[HOSTS_MAX] = {"host", "host2", "host3", "host4", "host5", "host6"};

    ret->facts = (struct voters_facts){.servers = ret->servers,
                                       .machines = ret->machines,
                                       .wanted = wanted,
                                       .self = f->leader + 1,
                                       .spread_by = "zone",
                                       .grace_ms = 300000};
    for (size_t i = 0; i < f->count; i++) {
        if (f->part[i] != PART_NONE)
            ret->servers[ret->facts.server_count++] = (struct store_server){
                .id = i + 1,
                .address = f->moved[i] ? "old" : places[i],
                .role = roles[f->part[i]],
                .silent_ms = f->life[i] == LIFE_ALIVE || f->life[i] == LIFE_LEFT ? 0 : UINT64_MAX};
        if (f->life[i] == LIFE_NO_MACHINE || f->life[i] == LIFE_LEFT)
            continue;
        ret->machines[ret->facts.machine_count++] = (struct voters_machine){
            .server_id = i + 1,
            .address = places[i],
            .name = names[i],
            .value = values[f->value[i]],
            .wish = f->will[i] == WILL_ALWAYS  ? VOTE_ALWAYS
                    : f->will[i] == WILL_NEVER ? VOTE_NEVER
                                               : VOTE_AUTOMATIC,
            .leaving = f->will[i] == WILL_LEAVE,
            .no_leader = f->no_leader[i],
            .alive = f->life[i] == LIFE_ALIVE,
            .present = f->life[i] == LIFE_ALIVE || f->mute[i],
            .lost = f->life[i] == LIFE_LOST || f->life[i] == LIFE_GONE,
            .gone = f->life[i] == LIFE_GONE,
            .ready = f->ready[i],
            .away_ms = 200000,
        };
    }
}

static void plan(const struct fleet *f, unsigned wanted, struct voters_plan *ret)
{
    struct facts facts;

    fill(f, wanted, &facts);
    voters_plan(&facts.facts, ret);
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

/* How many more voters may be lost; negative: nobody can lead. */
static int survives(const struct fleet *f)
{
    int answering = 0;

    for (size_t i = 0; i < f->count; i++)
        answering += f->part[i] == PART_VOTER &&
                     (f->life[i] == LIFE_ALIVE || f->life[i] == LIFE_LEFT || i == f->leader);
    return answering - (int)(count_part(f, PART_VOTER) / 2 + 1);
}

static bool is_barred(const struct fleet *f, size_t i)
{
    return f->life[i] == LIFE_NO_MACHINE || f->life[i] == LIFE_LEFT || f->will[i] == WILL_NEVER ||
           f->will[i] == WILL_LEAVE;
}

/* ---- one step ---- */

static void take_change(struct fleet *f, const struct voters_plan *step, unsigned wanted)
{
    size_t i = (size_t)step->server_id - 1, voters = count_part(f, PART_VOTER);
    int before = survives(f);

    assert_true(i < f->count);
    assert_true(i != f->leader);
    switch (step->role) {
    case SERVER_VOTER:
        assert_int_equal(f->part[i], PART_STANDBY); /* A standby first, that has caught up. */
        assert_int_equal(f->life[i], LIFE_ALIVE);
        assert_true(f->ready[i] && !is_barred(f, i));
        f->part[i] = PART_VOTER;
        assert_true(voters <= wanted); /* At most one too many. */
        break;
    case SERVER_STANDBY:
        assert_true(f->part[i] == PART_VOTER || (f->life[i] == LIFE_ALIVE && !is_barred(f, i) &&
                                                 (f->part[i] == PART_NONE || f->part[i] == PART_SPARE)));
        f->ready[i] = f->part[i] == PART_VOTER;
        f->part[i] = PART_STANDBY;
        break;
    default:
        assert_true(f->part[i] != PART_NONE);
        assert_true(f->life[i] == LIFE_NO_MACHINE || f->life[i] == LIFE_LEFT || f->part[i] != PART_VOTER);
        f->part[i] = PART_NONE;
    }
    assert_true(survives(f) >= 0);
    /* Fewer losses are survived only where the voters become fewer, by one that answers. */
    if (survives(f) < before)
        assert_true(voters % 2 == 1 && ((step->role == SERVER_STANDBY && f->life[i] == LIFE_ALIVE) ||
                                        (step->role == SERVER_REMOVED && f->life[i] == LIFE_LEFT)));
}

static void take(struct fleet *f, const struct voters_plan *step, unsigned wanted, bool last_heir)
{
    if (step->act == VOTERS_CHANGE) {
        take_change(f, step, wanted);
        return;
    }
    assert_int_equal(step->act, VOTERS_HAND_OVER);
    assert_true(step->heir_count > 0);
    f->leader = (size_t)step->heirs[last_heir ? step->heir_count - 1 : 0] - 1;
    assert_int_equal(f->part[f->leader], PART_VOTER);
    assert_int_equal(f->life[f->leader], LIFE_ALIVE);
}

/* ---- at rest ---- */

/* What any choice of the voters is judged by, the smaller the better: as many values as possible, as evenly.
 */
static unsigned crowding(const struct fleet *f, unsigned set)
{
    unsigned counts[4] = {0}, sum = 0;

    for (size_t i = 0; i < f->count; i++)
        if (set >> i & 1)
            counts[f->value[i]]++;
    for (size_t i = 0; i < 4; i++)
        sum += counts[i] * counts[i];
    return sum;
}

/* There is no better set of as many of those that could vote as well as these. */
static void check_spread(const struct fleet *f)
{
    unsigned voters = 0, could = 0, best;

    for (size_t i = 0; i < HOSTS_MAX && i < f->count; i++) {
        voters |= (unsigned)(f->part[i] == PART_VOTER) << i;
        could |= (unsigned)(f->part[i] == PART_VOTER || (f->life[i] == LIFE_ALIVE && !is_barred(f, i))) << i;
    }
    best = crowding(f, voters);
    for (unsigned set = 0; set < 1u << f->count; set++)
        if ((set & ~could) == 0 && __builtin_popcount(set) == __builtin_popcount(voters))
            assert_true(crowding(f, set) >= best);
}

static void check_rest(const struct fleet *f, unsigned wanted)
{
    size_t voters = count_part(f, PART_VOTER), able = 0, gone = 0, outside = 0, spares = 0, silent = 0;

    for (size_t i = 0; i < f->count; i++) {
        bool votes = f->part[i] == PART_VOTER;

        silent += f->life[i] == LIFE_SILENT && !votes && !is_barred(f, i);
        able += !is_barred(f, i) && f->life[i] != LIFE_GONE && (votes || f->life[i] == LIFE_ALIVE);
        gone += votes && f->life[i] == LIFE_GONE;
        outside += !votes && f->life[i] == LIFE_ALIVE && !is_barred(f, i);
        spares += f->part[i] == PART_STANDBY && f->life[i] == LIFE_ALIVE;
    }
    if (able == 0 || count_life(f, LIFE_ALIVE) == 0)
        return; /* Nobody to go on with: all stays as it is. */
    for (size_t i = 0; i < f->count; i++)
        assert_true(!is_barred(f, i) || f->part[i] == PART_NONE || silent > 0 || survives(f) == 0);
    if (silent > 0)
        return;
    assert_true(survives(f) >= 0);
    if (able > wanted)
        able = wanted;
    assert_true(voters >= (able % 2 == 0 ? able - 1 : able));
    if (survives(f) > 0 || count_life(f, LIFE_LOST) + count_life(f, LIFE_SILENT) == 0) {
        assert_true(voters <= wanted);
        assert_int_equal(voters % 2, 1);
        assert_true(gone <= 1);
        assert_true(gone == 0 || outside == 0 || voters > able);
    }
    assert_true(spares >= (outside > 0 && count_life(f, LIFE_SILENT) == 0 ? STANDBYS_WANTED : 0));
    assert_true(count_part(f, PART_SPARE) == 0 || count_life(f, LIFE_SILENT) + count_life(f, LIFE_LOST) > 0 ||
                count_life(f, LIFE_GONE) > 0);
}

/* Who leads among those that vote makes no difference to who votes. */
static void check_leaders(const struct fleet *f, unsigned wanted)
{
    struct fleet other = *f;
    struct voters_plan step;

    for (other.leader = 0; other.leader < f->count; other.leader++)
        if (f->part[other.leader] == PART_VOTER && f->life[other.leader] == LIFE_ALIVE) {
            plan(&other, wanted, &step);
            assert_int_not_equal(step.act, VOTERS_CHANGE);
        }
}

/* Nobody who may lead is left out while one who must not has a vote (or while a silent one might still call).
 */
static void check_barred_leaders(const struct fleet *f)
{
    bool barred = false;

    for (size_t i = 0; i < f->count; i++)
        barred = barred || (f->part[i] == PART_VOTER && f->no_leader[i] && f->life[i] != LIFE_NO_MACHINE &&
                            f->life[i] != LIFE_LEFT);
    for (size_t i = 0; i < f->count && barred && count_life(f, LIFE_SILENT) == 0; i++)
        assert_false(f->life[i] == LIFE_ALIVE && !f->no_leader[i] && !is_barred(f, i) &&
                     f->part[i] != PART_VOTER && f->life[f->leader] != LIFE_NO_MACHINE &&
                     f->life[f->leader] != LIFE_LEFT);
}

/* The next standby catches up. */
static bool catch_up(struct fleet *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->part[i] == PART_STANDBY && f->life[i] == LIFE_ALIVE && !f->ready[i]) {
            f->ready[i] = true;
            return true;
        }
    return false;
}

static struct fleet settles(struct fleet f, unsigned wanted, bool last_heir)
{
    struct fleet seen[STEPS_MAX];
    struct voters_plan step;
    size_t steps = 0;
    bool made_even = false;

    for (;;) {
        size_t voters = count_part(&f, PART_VOTER);

        plan(&f, wanted, &step);
        if (step.act == VOTERS_NOTHING) {
            assert_false(made_even); /* It is even only between two steps. */
            if (!catch_up(&f))
                break;
            continue;
        }
        for (size_t i = 0; i < steps; i++)
            if (memcmp(&seen[i], &f, sizeof f) == 0)
                fail_msg("goes in a circle: %s", step.why);
        assert_true(steps < STEPS_MAX);
        seen[steps++] = f;
        take(&f, &step, wanted, last_heir);
        assert_true(step.why[0] != '\0');
        if (step.act == VOTERS_CHANGE && count_part(&f, PART_VOTER) == voters)
            assert_false(made_even);
        if (count_part(&f, PART_VOTER) != voters)
            made_even = voters % 2 == 1;
    }
    check_rest(&f, wanted);
    check_leaders(&f, wanted);
    check_barred_leaders(&f);
    return f;
}

/* ---- every case ---- */

/* Takes a digit off a number. */
static unsigned digit(size_t *number, unsigned base)
{
    unsigned value = (unsigned)(*number % base);

    *number /= base;
    return value;
}

/* Only a leader that has a majority can do anything. */
static void settle_case(const struct fleet *f)
{
    if (survives(f) < 0)
        return;
    EACH_WANTED(i)
    {
        settles(*f, wanted_numbers[i], false);
        settles(*f, wanted_numbers[i], true);
    }
}

static size_t power(size_t base, size_t exponent)
{
    size_t result = 1;

    while (exponent-- > 0)
        result *= base;
    return result;
}

/* The leader is the first; 'number' says what the others are. */
static void fill_lives(struct fleet *f, size_t count, unsigned parts, size_t *number)
{
    memset(f, 0, sizeof *f);
    f->count = count;
    f->part[0] = PART_VOTER;
    f->life[0] = LIFE_ALIVE;
    for (size_t i = 1; i < count; i++) {
        f->life[i] = (enum life)digit(number, LIFE_COUNT);
        f->part[i] = (enum part)digit(number, parts);
        f->ready[i] = true;
    }
}

static void test_every_life_and_part(void **state)
{
    for (size_t count = 1; count <= 5; count++) {
        unsigned parts = count < 5 ? PART_COUNT : PART_SPARE; /* Five without the rarest. */

        for (size_t number = 0, cases = power(LIFE_COUNT * parts, count - 1); number < cases; number++) {
            size_t rest = number;
            struct fleet f;

            fill_lives(&f, count, parts, &rest);
            settle_case(&f);
        }
    }
}

static void test_every_wish(void **state)
{
    for (size_t count = 1; count <= 3; count++)
        for (size_t number = 0,
                    cases = power(LIFE_COUNT * PART_COUNT, count - 1) * power(2 * WILL_COUNT, count);
             number < cases; number++) {
            size_t rest = number;
            struct fleet f;

            fill_lives(&f, count, PART_COUNT, &rest);
            for (size_t i = 0; i < count; i++) {
                f.will[i] = (enum will)digit(&rest, WILL_COUNT);
                f.no_leader[i] = digit(&rest, 2) == 1;
            }
            settle_case(&f);
        }
}

/* Five hosts of which each is there or gone, a voter or nothing. */
static void test_every_wish_of_five(void **state)
{
    for (size_t number = 0, cases = power(4, 4) * power(WILL_COUNT, 5); number < cases; number++) {
        size_t rest = number;
        struct fleet f = {.count = 5, .part = {PART_VOTER}, .life = {LIFE_ALIVE}};

        for (size_t i = 0; i < 5; i++) {
            f.will[i] = (enum will)digit(&rest, WILL_COUNT);
            if (i == 0)
                continue;
            f.life[i] = digit(&rest, 2) == 0 ? LIFE_ALIVE : LIFE_GONE;
            f.part[i] = digit(&rest, 2) == 0 ? PART_VOTER : PART_NONE;
        }
        settle_case(&f);
    }
}

static void test_every_spread(void **state)
{
    for (size_t count = 1; count <= HOSTS_MAX; count++) {
        unsigned lives = count < HOSTS_MAX ? 2 : 1;

        for (size_t number = 0, cases = power(3, count) * power(2 * lives, count - 1); number < cases;
             number++) {
            size_t rest = number;
            struct fleet f = {.count = count, .part = {PART_VOTER}, .life = {LIFE_ALIVE}};

            for (size_t i = 0; i < count; i++) {
                f.value[i] = digit(&rest, 3);
                if (i == 0)
                    continue;
                f.life[i] = digit(&rest, lives) == 0 ? LIFE_ALIVE : LIFE_LOST;
                f.part[i] = digit(&rest, 2) == 0 ? PART_VOTER : PART_NONE;
            }
            if (survives(&f) < 0)
                continue;
            EACH_WANTED(i)
            {
                struct fleet end = settles(f, wanted_numbers[i], number % 2 == 1);

                if (survives(&end) > 0 || count_life(&end, LIFE_LOST) == 0)
                    check_spread(&end);
            }
        }
    }
}

/* ---- stories ---- */

static void becomes(struct fleet *f, unsigned wanted, size_t host, enum server_role role)
{
    struct voters_plan step;

    plan(f, wanted, &step);
    assert_int_equal(step.act, VOTERS_CHANGE);
    assert_int_equal(step.server_id, host);
    assert_int_equal(step.role, role);
    take(f, &step, wanted, false);
}

static void says(const struct fleet *f, unsigned wanted, enum voters_act act, const char *why)
{
    struct voters_plan step;

    plan(f, wanted, &step);
    assert_string_equal(step.why, why);
    assert_int_equal(step.act, act);
}

/* Taken out and then added anew, whatever it was; but not for as long as it is away, or needed. */
static void test_one_that_has_moved(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .moved = {true, true, false}};
    struct voters_plan step;

    plan(&f, 3, &step);
    assert_int_equal(step.act, VOTERS_NOTHING); /* Nor the leader, as long as it is needed. */
    f.life[1] = LIFE_ALIVE;
    f.life[2] = LIFE_SILENT;
    plan(&f, 3, &step);
    assert_int_equal(step.act, VOTERS_NOTHING);
    f.life[2] = LIFE_ALIVE;
    says(&f, 3, VOTERS_CHANGE, "two has another address than before: it is taken out, and added anew");
    plan(&f, 3, &step);
    assert_int_equal(step.server_id, 2);
    assert_int_equal(step.role, SERVER_REMOVED);
    assert_string_equal(step.address, "old");
    f.part[1] = PART_NONE;
    f.moved[1] = false;
    becomes(&f, 3, 2, SERVER_STANDBY);
    f.ready[1] = true;
    becomes(&f, 3, 2, SERVER_VOTER);
    says(&f, 3, VOTERS_HAND_OVER,
         "this host has another address than before: the next leader takes it out, and adds it anew");
    f.leader = 1;
    says(&f, 3, VOTERS_CHANGE, "one has another address than before: it is taken out, and added anew");
}

/* It took its time: its server was not heard for long when it is back, and is not where it could be. */
static void test_one_that_has_moved_is_not_heard(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_SILENT},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .moved = {false, false, true}};

    says(&f, 3, VOTERS_NOTHING,
         "2 of 3 voters answer: if one more is lost, nothing can be changed until one is back");
    f.mute[2] = true;
    for (enum life life = LIFE_SILENT; life <= LIFE_GONE; life++) {
        struct voters_plan step;

        f.life[2] = life;
        plan(&f, 3, &step);
        assert_int_equal(step.act, VOTERS_CHANGE);
        assert_int_equal(step.server_id, 3);
        assert_int_equal(step.role, SERVER_REMOVED);
    }
}

/* Nobody else could do anything about the only voter; whatever else is to be done waits for it. */
static void test_the_only_voter_has_moved(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_STANDBY, PART_NONE},
                      .ready = {false, true, false},
                      .moved = {true, true, false}};
    struct voters_plan step;

    plan(&f, 3, &step);
    assert_int_equal(step.act, VOTERS_MOVE_SELF);
    assert_int_equal(step.server_id, 1);
    assert_string_equal(step.address, "host");
    says(&f, 3, VOTERS_MOVE_SELF,
         "this host, the only voter, has another address than before: it takes its place in the log when it "
         "is "
         "clear that no other host answers as it at the old one");
    f.moved[0] = false;
    plan(&f, 3, &step);
    assert_int_equal(step.server_id, 2);
    assert_int_equal(step.role, SERVER_REMOVED);
}

/* Whoever has moved, of however many: each is taken out once, and there are never fewer than all but one. */
static void each_moves_once(struct fleet f, unsigned voters)
{
    unsigned removed = 0, steps = 0, hand_overs = 0;
    struct voters_plan step;

    for (;;) {
        plan(&f, voters, &step);
        assert_int_not_equal(step.act, VOTERS_MOVE_SELF);
        assert_true(steps++ < STEPS_MAX);
        if (step.act == VOTERS_NOTHING && !catch_up(&f))
            break;
        hand_overs += step.act == VOTERS_HAND_OVER;
        if (step.act == VOTERS_CHANGE && step.role == SERVER_REMOVED) {
            size_t i = (size_t)step.server_id - 1;

            assert_true(f.moved[i] && i != f.leader);
            assert_int_equal(removed >> i & 1, 0);
            removed |= 1u << i;
            f.part[i] = PART_NONE;
            f.moved[i] = f.ready[i] = false;
        } else if (step.act != VOTERS_NOTHING) {
            take(&f, &step, voters, false);
        }
        assert_true(count_part(&f, PART_VOTER) >= voters - 1);
    }
    assert_int_equal(count_part(&f, PART_VOTER), voters);
    assert_true(hand_overs <= 1);
    for (size_t i = 0; i < f.count; i++)
        assert_false(f.moved[i]);
}

static void test_many_have_moved(void **state)
{
    for (unsigned voters = 3; voters <= 5; voters += 2)
        for (unsigned moved = 0; moved < 1u << (voters + 1); moved++)
            for (size_t leader = 0; leader < voters; leader++) {
                struct fleet f = {.count = voters + 1, .leader = leader};

                for (size_t i = 0; i < f.count; i++) {
                    f.part[i] = i < voters ? PART_VOTER : PART_STANDBY;
                    f.life[i] = LIFE_ALIVE;
                    f.ready[i] = i == voters;
                    f.moved[i] = moved >> i & 1;
                }
                each_moves_once(f, voters);
            }
}

/* Two have each other's address, or three go round: libraft knows no two servers at one address, so one that
 * is in the way is taken out although another one is out already; also if it leads. */
static void test_addresses_that_were_swapped(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_NONE, PART_VOTER}};
    struct facts facts = {0};
    struct voters_plan step;

    fill(&f, 3, &facts);
    facts.servers[0].address = "a";
    facts.servers[1].address = "c";
    facts.machines[0].address = "b";
    facts.machines[1].address = "c"; /* Where the log has the third. */
    facts.machines[2].address = "a";
    voters_plan(&facts.facts, &step);
    assert_int_equal(step.act, VOTERS_CHANGE);
    assert_int_equal(step.server_id, 3);
    assert_int_equal(step.role, SERVER_REMOVED);
    facts.machines[1].address = "a"; /* Where the log has the leader. */
    facts.machines[2].address = "c";
    voters_plan(&facts.facts, &step);
    assert_int_equal(step.act, VOTERS_HAND_OVER);
    assert_int_equal(step.heirs[0], 3);
    facts.machines[2].address = "d"; /* It has moved, too, and can take over nevertheless. */
    voters_plan(&facts.facts, &step);
    assert_int_equal(step.act, VOTERS_HAND_OVER);
    assert_int_equal(step.heirs[0], 3);
}

/* The only voter has got the address of a standby: that one cannot be there any more, and goes first. */
static void test_the_only_voter_has_moved_to_where_a_standby_was(void **state)
{
    struct fleet f = {.count = 2, .life = {LIFE_ALIVE, LIFE_SILENT}, .part = {PART_VOTER, PART_STANDBY}};
    struct facts facts = {0};
    struct voters_plan step;

    fill(&f, 3, &facts);
    facts.servers[0].address = "a";
    facts.machines[0].address = facts.machines[1].address = facts.servers[1].address = "b";
    for (int alive = 0; alive < 2; alive++) {
        facts.machines[1].alive = facts.machines[1].present = alive;
        voters_plan(&facts.facts, &step);
        assert_int_equal(step.act, VOTERS_CHANGE);
        assert_int_equal(step.server_id, 2);
        assert_int_equal(step.role, SERVER_REMOVED);
    }
    facts.facts.server_count = 1;
    voters_plan(&facts.facts, &step);
    assert_int_equal(step.act, VOTERS_MOVE_SELF);
}

/* A host that is gone is replaced by another one at its address, as new hardware often is. Where libraft has
 * a server it adds no other. */
static void test_a_host_at_the_address_of_one_that_is_gone(void **state)
{
    struct fleet f = {.count = 4,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_LOST, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_NONE}};
    struct facts facts = {0};
    struct voters_plan step;

    fill(&f, 3, &facts);
    facts.machines[3].address = "host3";
    voters_plan(&facts.facts, &step); /* It may come back. */
    assert_int_equal(step.act, VOTERS_NOTHING);
    assert_non_null(strstr(step.why, "four has the address of three, and gets no copy of the data before"));
    for (int left = 0; left < 2; left++) {
        f.life[2] = left ? LIFE_NO_MACHINE : LIFE_GONE;
        fill(&f, 3, &facts);
        facts.machines[facts.facts.machine_count - 1].address = "host3";
        voters_plan(&facts.facts, &step);
        assert_int_equal(step.act, VOTERS_CHANGE);
        assert_int_equal(step.server_id, 3);
        assert_int_equal(step.role, SERVER_REMOVED);
        facts.servers[1].silent_ms = UINT64_MAX; /* It is needed for a majority? Nobody is there for one. */
        voters_plan(&facts.facts, &step);
        assert_int_equal(step.act, VOTERS_NOTHING);
    }
    f.part[2] = PART_NONE;
    becomes(&f, 3, 4, SERVER_STANDBY);
    f.ready[3] = true;
    becomes(&f, 3, 4, SERVER_VOTER);
}

/* Who says that it is where a server is that answers gets no part, and is in nobody's way. */
static void test_an_address_that_is_in_use(void **state)
{
    struct fleet f = {.count = 4,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_NONE, PART_NONE, PART_NONE}};
    struct facts facts = {0};
    struct voters_plan step;

    fill(&f, 3, &facts);
    facts.machines[1].address = "host";
    voters_plan(&facts.facts, &step);
    assert_int_equal(step.act, VOTERS_CHANGE);
    assert_int_equal(step.server_id, 3);
    assert_int_equal(step.role, SERVER_STANDBY);
}

static void test_from_one_to_three(void **state)
{
    struct fleet f = {.count = 1, .life = {LIFE_ALIVE}, .part = {PART_VOTER}};

    says(&f, 5, VOTERS_NOTHING, "");
    f.count = 2;
    f.life[1] = LIFE_ALIVE;
    says(&f, 5, VOTERS_CHANGE, "two becomes a standby for the voters");
    becomes(&f, 5, 2, SERVER_STANDBY);
    f.ready[1] = true;
    says(&f, 5, VOTERS_NOTHING, "");
    f.count = 3;
    f.life[2] = LIFE_ALIVE;
    says(&f, 5, VOTERS_CHANGE, "from 1 to 3 voters: two gets its vote");
    becomes(&f, 5, 3, SERVER_STANDBY);
    says(&f, 5, VOTERS_NOTHING, "from 1 to 3 voters: two gets its vote"); /* With the third. */
    f.ready[2] = true;
    becomes(&f, 5, 2, SERVER_VOTER);
    becomes(&f, 5, 3, SERVER_VOTER);
    says(&f, 5, VOTERS_NOTHING, "");
}

static struct fleet three_and_a_standby(void)
{
    return (struct fleet){.count = 5,
                          .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                          .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_STANDBY, PART_NONE},
                          .ready = {false, false, false, true, false}};
}

static void test_a_lost_voter_is_replaced_after_the_grace_time(void **state)
{
    struct fleet f = three_and_a_standby();

    f.life[1] = LIFE_LOST;
    says(&f, 3, VOTERS_NOTHING,
         "two is away for 3 min: after 5 min another host gets its vote, if there is one; 2 of 3 voters "
         "answer: "
         "if one more is lost, nothing can be changed until one is back");
    f.life[1] = LIFE_GONE;
    f.ready[3] = false;
    becomes(&f, 3, 5, SERVER_STANDBY); /* The next standby, meanwhile. */
    says(&f, 3, VOTERS_NOTHING,
         "replacing two (away for 3 min) by four, which is catching up; 2 of 3 voters answer: if one more is "
         "lost, nothing can be changed until one is back");
    f.ready[3] = true;
    becomes(&f, 3, 4, SERVER_VOTER);
    becomes(&f, 3, 2, SERVER_STANDBY);
    becomes(&f, 3, 2, SERVER_REMOVED);
    says(&f, 3, VOTERS_NOTHING, "");
    f.life[1] = LIFE_ALIVE; /* It comes back, and there is no place for it. */
    says(&f, 3, VOTERS_NOTHING, "");
}

static void test_one_that_comes_back_keeps_its_vote(void **state)
{
    struct fleet f = three_and_a_standby();

    f.life[1] = LIFE_GONE;
    f.ready[3] = false;
    becomes(&f, 3, 5, SERVER_STANDBY);
    f.life[1] = LIFE_ALIVE;
    f.ready[3] = f.ready[4] = true;
    becomes(&f, 3, 5, SERVER_REMOVED);
    says(&f, 3, VOTERS_NOTHING, "");
}

static void test_one_that_is_only_silent_or_lost_for_a_while_is_not_replaced(void **state)
{
    struct fleet f = three_and_a_standby();
    struct voters_plan step;

    for (size_t i = 1; i < 3; i++)
        for (enum life life = LIFE_ALIVE; life < LIFE_GONE; life++) {
            f.life[i] = life;
            plan(&f, 3, &step);
            assert_int_equal(step.act, VOTERS_NOTHING);
            f.life[i] = LIFE_ALIVE;
        }
}

static void test_a_lost_standby_is_replaced(void **state)
{
    struct fleet f = three_and_a_standby();

    f.life[3] = LIFE_SILENT;
    says(&f, 3, VOTERS_NOTHING, "");
    f.life[3] = LIFE_LOST;
    becomes(&f, 3, 5, SERVER_STANDBY);
    becomes(&f, 3, 4, SERVER_REMOVED);
    f.life[3] = LIFE_ALIVE;
    f.ready[4] = true;
    says(&f, 3, VOTERS_NOTHING, "");
}

/* Two voters, as a new leader finds them: the third host may still call. */
static void test_two_voters_wait_for_the_third(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_SILENT},
                      .part = {PART_VOTER, PART_VOTER, PART_STANDBY}};

    says(&f, 3, VOTERS_NOTHING, "two keeps its vote until silent hosts have called or are lost");
    f.life[2] = LIFE_LOST;
    becomes(&f, 3, 2, SERVER_STANDBY);
}

static void test_the_last_copy_of_a_lost_host_is_kept(void **state)
{
    struct fleet f = {.count = 4,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_LOST},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_STANDBY}};

    says(&f, 3, VOTERS_NOTHING, "");
    f.life[3] = LIFE_NO_MACHINE;
    becomes(&f, 3, 4, SERVER_REMOVED);
}

static void test_a_vote_is_given_before_one_is_taken(void **state)
{
    struct fleet f = {.count = 6,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_GONE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_VOTER, PART_STANDBY, PART_STANDBY},
                      .ready = {false, false, false, false, true, true}};

    becomes(&f, 5, 5, SERVER_VOTER);
    becomes(&f, 5, 6, SERVER_VOTER);
    becomes(&f, 5, 4, SERVER_STANDBY);
}

/* What it would do otherwise is the next leader's. */
static void test_one_that_must_not_lead_hands_over_first(void **state)
{
    struct fleet f = three_and_a_standby();
    struct voters_plan step;

    f.no_leader[0] = true;
    f.life[4] = LIFE_NO_MACHINE;
    says(&f, 3, VOTERS_HAND_OVER,
         "replacing one (it must not lead: disable_engine) by four, which gets its vote");
    plan(&f, 3, &step);
    assert_int_equal(step.heir_count, 2);
    take(&f, &step, 3, false);
    assert_int_equal(f.leader, 1);
    becomes(&f, 3, 4, SERVER_VOTER);
    becomes(&f, 3, 1, SERVER_STANDBY);
}

/* Without another host. */
static void test_lost_voters_are_dropped_in_pairs(void **state)
{
    struct fleet f = {.count = 5,
                      .life = {LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE, LIFE_GONE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_VOTER, PART_VOTER}};

    says(&f, 5, VOTERS_NOTHING,
         "five is away for 3 min, and no other host could have its vote: add one, or take it out (fleetctl "
         "remove-machine)");
    f.life[3] = LIFE_GONE;
    becomes(&f, 5, 5, SERVER_STANDBY);
    becomes(&f, 5, 4, SERVER_STANDBY);
    assert_int_equal(survives(&f), 1);
    f.life[3] = LIFE_ALIVE; /* One alone would make them four. */
    f.ready[3] = true;
    f = settles(f, 5, false);
    assert_int_equal(count_part(&f, PART_VOTER), 3);
    f.life[4] = LIFE_ALIVE;
    f = settles(f, 5, false);
    assert_int_equal(count_part(&f, PART_VOTER), 5);
}

static void test_shrinking_spares_those_that_answer(void **state)
{
    struct fleet f = {.count = 5,
                      .life = {LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE, LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER, PART_VOTER, PART_VOTER}};

    becomes(&f, 3, 2, SERVER_STANDBY);
    becomes(&f, 3, 5, SERVER_STANDBY);
}

static void test_nobody_gives_up_a_vote_that_is_needed(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .will = {WILL_AUTOMATIC, WILL_ALWAYS, WILL_AUTOMATIC}};

    says(&f, 1, VOTERS_NOTHING,
         "one (there are to be 1) keeps its vote for now: those of the other voters that answer (1 of 2) "
         "would "
         "be no majority; 2 of 3 voters answer: if one more is lost, nothing can be changed until one is "
         "back");
    f.life[1] = LIFE_ALIVE;
    becomes(&f, 1, 3, SERVER_STANDBY);
}

/* One that does not answer goes first, so that the other one can. */
static void test_leaving_while_another_is_away(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_SILENT, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .will = {WILL_AUTOMATIC, WILL_AUTOMATIC, WILL_LEAVE}};

    becomes(&f, 3, 2, SERVER_STANDBY);
    becomes(&f, 3, 3, SERVER_STANDBY);
    becomes(&f, 3, 3, SERVER_REMOVED);
}

/* Two were removed, and the last one was told to leave: it keeps its vote, and they go. */
static void test_the_last_one_leaves(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_LEFT, LIFE_LEFT},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                      .will = {WILL_LEAVE}};

    f = settles(f, 3, false);
    assert_int_equal(f.leader, 0);
    assert_int_equal(f.part[0], PART_VOTER);
    assert_int_equal(f.part[1], PART_NONE);
    assert_int_equal(f.part[2], PART_NONE);

    f = (struct fleet){.count = 3,
                       .life = {LIFE_LEFT, LIFE_ALIVE, LIFE_ALIVE}, /* The leader was removed. */
                       .part = {PART_VOTER, PART_VOTER, PART_VOTER},
                       .will = {WILL_AUTOMATIC, WILL_LEAVE, WILL_NEVER}};
    f = settles(f, 3, false);
    assert_int_equal(f.leader, 1);
    assert_int_equal(count_part(&f, PART_VOTER), 3); /* Two of them would survive no more. */
}

static void test_leaving(void **state)
{
    struct fleet f = {.count = 2,
                      .life = {LIFE_ALIVE, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_STANDBY},
                      .will = {WILL_LEAVE},
                      .ready = {false, true}};
    struct voters_plan plan;
    struct facts facts;

    /* One of two: the other one gets its vote, then leadership, and is alone. */
    fill(&f, 5, &facts);
    voters_plan(&facts.facts, &plan);
    assert_string_equal(plan.why, "replacing one (it leaves the cluster) by two, which gets its vote");
    f = settles(f, 5, false);
    assert_int_equal(f.leader, 1);
    assert_int_equal(f.part[0], PART_NONE);
    assert_int_equal(f.part[1], PART_VOTER);

    /* The last one stays. */
    f.will[1] = WILL_LEAVE;
    f.life[0] = LIFE_NO_MACHINE;
    f = settles(f, 5, false);
    assert_int_equal(f.part[1], PART_VOTER);
}

static void test_leadership_goes_before_the_vote(void **state)
{
    struct fleet f = three_and_a_standby();
    struct voters_plan step;

    f.will[0] = WILL_NEVER;
    becomes(&f, 3, 4, SERVER_VOTER);
    says(&f, 3, VOTERS_HAND_OVER, "one hands leadership over (demoted)");
    plan(&f, 3, &step);
    take(&f, &step, 3, true);
    assert_int_equal(f.leader, 3);
    becomes(&f, 3, 1, SERVER_STANDBY);
    becomes(&f, 3, 5, SERVER_STANDBY);
    becomes(&f, 3, 1, SERVER_REMOVED);
}

static void test_spread(void **state)
{
    struct fleet f = three_and_a_standby();

    for (size_t i = 0; i < f.count; i++)
        f.value[i] = 1;
    says(&f, 3, VOTERS_NOTHING, "");
    f.value[4] = 2;
    becomes(&f, 3, 5, SERVER_STANDBY);
    says(&f, 3, VOTERS_NOTHING, "replacing three (spread by zone) by five, which is catching up");
    f.ready[4] = true;
    f = settles(f, 3, false);
    assert_int_equal(f.part[4], PART_VOTER);
    assert_int_equal(f.part[0], PART_VOTER);
    f.value[4] = 1; /* It does not go back for that. */
    says(&f, 3, VOTERS_NOTHING, "");
}

static void assert_refused(int r, const struct err *err, const char *why)
{
    assert_int_equal(r, -EBUSY);
    assert_non_null(strstr(err->text, why));
}

/* Two of three answer, and one of these was removed: without it the other could decide nothing. */
static void test_a_removed_machine_keeps_a_vote_that_is_needed(void **state)
{
    struct fleet f = {.count = 3,
                      .life = {LIFE_ALIVE, LIFE_LOST, LIFE_ALIVE},
                      .part = {PART_VOTER, PART_VOTER, PART_VOTER}};
    struct facts facts;
    struct err err = {0};

    fill(&f, 3, &facts);
    assert_refused(voters_may_remove(&facts.facts, 3, &err), &err,
                   "three votes, and of the 2 other voters only 1 answers");
    assert_int_equal(voters_may_remove(&facts.facts, 2, &err), 0);
    f.life[2] = LIFE_LEFT;
    becomes(&f, 3, 2, SERVER_STANDBY); /* First the one that does not answer. */
    becomes(&f, 3, 3, SERVER_REMOVED);
}

/* It was elected before it had lost its vote. */
static void test_a_removed_leader_hands_over(void **state)
{
    struct fleet f = three_and_a_standby();
    struct voters_plan step;

    f.life[0] = LIFE_LEFT;
    plan(&f, 3, &step);
    assert_int_equal(step.act, VOTERS_HAND_OVER);
    take(&f, &step, 3, false);
    assert_int_equal(f.leader, 1);
    becomes(&f, 3, 4, SERVER_VOTER);
    becomes(&f, 3, 1, SERVER_REMOVED);
}

static void test_wishes_that_are_refused(void **state)
{
    struct fleet f = three_and_a_standby();
    struct facts facts;
    struct err err = {0};
    const uint64_t all[] = {1, 2, 3, 4, 5};

    fill(&f, 3, &facts);
    assert_int_equal(voters_may_demote(&facts.facts, all, 2, &err), 0);
    assert_refused(voters_may_demote(&facts.facts, all, 3, &err), &err, "leave 1 voter of 3");
    assert_refused(voters_may_demote(&facts.facts, all, 5, &err), &err, "no other host could vote");
    assert_int_equal(voters_may_promote(&facts.facts, all + 2, 3, &err), 0);
    assert_refused(voters_may_promote(&facts.facts, all, 5, &err), &err,
                   "5 hosts would have to vote then, and the cluster is to have 3 voters");
    facts.machines[4].wish = VOTE_ALWAYS;
    assert_refused(voters_may_promote(&facts.facts, all, 3, &err), &err, "4 hosts would have to vote");
    facts.machines[0].no_leader = true;
    assert_refused(voters_may_promote(&facts.facts, all, 1, &err), &err, "one must not lead");
    facts.machines[1].alive = false;
    assert_refused(voters_may_promote(&facts.facts, all + 1, 1, &err), &err, "two is not there");
    facts.machines[2].leaving = true;
    assert_refused(voters_may_promote(&facts.facts, all + 2, 1, &err), &err, "three leaves");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_life_and_part),
        cmocka_unit_test(test_every_wish),
        cmocka_unit_test(test_every_wish_of_five),
        cmocka_unit_test(test_every_spread),
        cmocka_unit_test(test_one_that_has_moved),
        cmocka_unit_test(test_one_that_has_moved_is_not_heard),
        cmocka_unit_test(test_the_only_voter_has_moved),
        cmocka_unit_test(test_many_have_moved),
        cmocka_unit_test(test_addresses_that_were_swapped),
        cmocka_unit_test(test_the_only_voter_has_moved_to_where_a_standby_was),
        cmocka_unit_test(test_a_host_at_the_address_of_one_that_is_gone),
        cmocka_unit_test(test_an_address_that_is_in_use),
        cmocka_unit_test(test_from_one_to_three),
        cmocka_unit_test(test_a_lost_voter_is_replaced_after_the_grace_time),
        cmocka_unit_test(test_one_that_comes_back_keeps_its_vote),
        cmocka_unit_test(test_one_that_is_only_silent_or_lost_for_a_while_is_not_replaced),
        cmocka_unit_test(test_a_lost_standby_is_replaced),
        cmocka_unit_test(test_two_voters_wait_for_the_third),
        cmocka_unit_test(test_the_last_copy_of_a_lost_host_is_kept),
        cmocka_unit_test(test_a_vote_is_given_before_one_is_taken),
        cmocka_unit_test(test_one_that_must_not_lead_hands_over_first),
        cmocka_unit_test(test_lost_voters_are_dropped_in_pairs),
        cmocka_unit_test(test_shrinking_spares_those_that_answer),
        cmocka_unit_test(test_nobody_gives_up_a_vote_that_is_needed),
        cmocka_unit_test(test_leaving_while_another_is_away),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_the_last_one_leaves),
        cmocka_unit_test(test_leadership_goes_before_the_vote),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_a_removed_machine_keeps_a_vote_that_is_needed),
        cmocka_unit_test(test_a_removed_leader_hands_over),
        cmocka_unit_test(test_wishes_that_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
