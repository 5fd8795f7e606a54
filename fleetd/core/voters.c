/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/voters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/core/voters_private.h"

/* ---- who is there ---- */

static const struct store_server *find_server(const struct voters_facts *facts, uint64_t id)
{
    for (size_t i = 0; i < facts->server_count; i++)
        if (facts->servers[i].id == id)
            return &facts->servers[i];
    return NULL;
}

static bool has_machine(const struct voters_facts *facts, uint64_t id)
{
    for (size_t i = 0; i < facts->machine_count; i++)
        if (facts->machines[i].server_id == id)
            return true;
    return false;
}

static void add_seat(struct voters_view *view, const struct voters_machine *machine,
                     const struct store_server *server)
{
    struct seat *seat = &view->seats[view->count++];

    seat->machine = machine;
    seat->server = server;
    seat->self = (machine != NULL ? machine->server_id : server->id) == view->facts->self;
    seat->voter = server != NULL && server->role == SERVER_VOTER;
    seat->standby = server != NULL && server->role == SERVER_STANDBY;
    view->voters += seat->voter;
    view->answering += seat->voter && seat_answers(seat);
}

const char *seat_name(const struct seat *seat)
{
    return seat->machine != NULL ? seat->machine->name : seat->server->address;
}

bool seat_has_moved(const struct seat *seat)
{
    /* Nobody hears its server, once it is not where the log has it; so that cannot be waited for. */
    return seat->server != NULL && seat->machine != NULL && seat->machine->present &&
           !streq(seat->server->address, seat->machine->address);
}

const struct seat *voters_holder(const struct voters_view *view, const struct seat *seat)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *other = &view->seats[i];

        if (other != seat && other->server != NULL && seat->machine != NULL &&
            streq(other->server->address, seat->machine->address))
            return other;
    }
    return NULL;
}

/* ---- who is to vote ---- */

static bool is_able(const struct seat *seat)
{
    return !seat_is_barred(seat) && !seat_is_dead(seat) && (seat->voter || seat->machine->alive);
}

static bool may_call(const struct seat *seat)
{
    return !seat_is_barred(seat) && !seat_is_dead(seat) && !seat->voter && !seat->machine->alive &&
           !seat->machine->lost;
}

/* The most voters that so many hosts make: an odd number, not more than wanted. */
static size_t goal_of(size_t able, size_t wanted)
{
    size_t goal = able < wanted ? able : wanted;

    return goal % 2 == 0 && goal > 0 ? goal - 1 : goal;
}

static unsigned count_value(const struct voters_view *view, const char *value)
{
    unsigned count = 0;

    for (size_t i = 0; i < view->chosen_count; i++)
        count += streq(view->chosen[i]->machine->value, value);
    return count;
}

static void choose(struct voters_view *view, struct seat *seat)
{
    view->chosen[view->chosen_count++] = seat;
    seat->order = (unsigned)view->chosen_count;
}

/* What is so stays so. */
static int rank_of(const struct seat *seat)
{
    if (seat->voter)
        return seat->self ? 0 : seat_answers(seat) ? 1 : 2;
    return seat->standby ? (seat_is_ready(seat) ? 3 : 4) : 5;
}

static int compare(int a, int b)
{
    return (a > b) - (a < b);
}

/* Negative: 'a' is the better one. The order of the list decides between equals. */
static int compare_voters(const struct voters_view *view, const struct seat *a, const struct seat *b)
{
    int r = compare(a->machine->no_leader, b->machine->no_leader);

    if (r == 0)
        r = compare(a->machine->wish != VOTE_ALWAYS, b->machine->wish != VOTE_ALWAYS);
    if (r == 0)
        r = compare((int)count_value(view, a->machine->value), (int)count_value(view, b->machine->value));
    return r != 0 ? r : compare(rank_of(a), rank_of(b));
}

/* A standby costs a copy of everything: one that is there stays. */
static int compare_standbys(const struct voters_view *view, const struct seat *a, const struct seat *b)
{
    int r = compare(a->machine->no_leader, b->machine->no_leader);

    if (r == 0)
        r = compare(!a->standby, !b->standby);
    return r != 0 ? r : compare_voters(view, a, b);
}

/* The voter whose vote is kept for want of another host, so that their number stays odd. */
static struct seat *find_filler(const struct voters_view *view)
{
    for (size_t i = 0; i < view->count; i++)
        if (view->seats[i].voter && !seat_is_barred(&view->seats[i]) && seat_is_dead(&view->seats[i]))
            return &view->seats[i];
    return NULL;
}

static void choose_voters(struct voters_view *view)
{
    size_t able = 0, silent = 0;
    size_t wanted = view->facts->wanted < VOTERS_MAX ? view->facts->wanted : VOTERS_MAX;
    struct seat *filler = find_filler(view);

    for (size_t i = 0; i < view->count; i++) {
        able += is_able(&view->seats[i]);
        silent += may_call(&view->seats[i]);
    }
    if (filler != NULL && able > 0 && able % 2 == 0 && able < wanted) {
        choose(view, filler); /* All that are able are chosen besides, so the order means nothing. */
        able++;
    }
    view->goal = goal_of(able, wanted);
    view->possible = goal_of(able + silent, wanted);
    while (view->chosen_count < view->goal) {
        struct seat *best = NULL;

        for (size_t i = 0; i < view->count; i++) {
            struct seat *seat = &view->seats[i];

            if (seat->order == 0 && is_able(seat) && (best == NULL || compare_voters(view, seat, best) < 0))
                best = seat;
        }
        choose(view, best);
    }
}

/* ---- who stands by ---- */

/* It may not be needed, but it is not known to be lost. */
static bool stands_by(const struct seat *seat)
{
    return seat->standby && seat->order == 0 && !seat_is_barred(seat) && !seat_is_dead(seat) &&
           !seat->machine->lost;
}

static void choose_standbys(struct voters_view *view)
{
    struct seat *best;

    for (unsigned n = 0; n < STANDBYS_WANTED; n++) {
        best = NULL;
        for (size_t i = 0; i < view->count; i++) {
            struct seat *seat = &view->seats[i];

            if (seat->order == 0 && !seat->spare && !seat->voter && (is_able(seat) || stands_by(seat)) &&
                (best == NULL || compare_standbys(view, seat, best) < 0))
                best = seat;
        }
        if (best != NULL)
            best->spare = true;
    }
}

void voters_view_init(struct voters_view *view, const struct voters_facts *facts)
{
    *view = (struct voters_view){.facts = facts};
    view->seats = xcalloc(facts->machine_count + facts->server_count, sizeof *view->seats);
    for (size_t i = 0; i < facts->machine_count; i++)
        add_seat(view, &facts->machines[i], find_server(facts, facts->machines[i].server_id));
    for (size_t i = 0; i < facts->server_count; i++)
        if (!has_machine(facts, facts->servers[i].id))
            add_seat(view, NULL, &facts->servers[i]);
    choose_voters(view);
    choose_standbys(view);
}

void voters_view_done(struct voters_view *view)
{
    free(view->seats);
}

/* ---- steps ---- */

static bool change(struct voters_plan *plan, const struct seat *seat, enum server_role role)
{
    plan->act = VOTERS_CHANGE;
    plan->server_id = seat->machine != NULL ? seat->machine->server_id : seat->server->id;
    plan->address = seat->machine != NULL ? seat->machine->address : seat->server->address;
    plan->role = role;
    return true;
}

/* One that is ready for its vote, the first of those chosen; *ret_count of them. */
static const struct seat *next_ready(const struct voters_view *view, size_t *ret_count)
{
    const struct seat *best = NULL;

    *ret_count = 0;
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (!seat_joins(seat) || !seat_is_ready(seat))
            continue;
        (*ret_count)++;
        if (best == NULL || seat->order < best->order)
            best = seat;
    }
    return best;
}

/* How well a voter can be done without. */
static int dispensable(const struct seat *seat)
{
    if (seat_is_dead(seat) && !seat_answers(seat))
        return 4;
    if (!seat_answers(seat))
        return 3;
    return seat_is_barred(seat) ? 2 : seat->machine->no_leader;
}

/* Another than the leader that votes and is not to: the one that is missed least, the last of equals. */
static const struct seat *next_dropout(const struct voters_view *view)
{
    const struct seat *best = NULL;

    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat_drops_out(seat) && !seat->self && (best == NULL || dispensable(seat) >= dispensable(best)))
            best = seat;
    }
    return best;
}

const struct seat *voters_self(const struct voters_view *view)
{
    for (size_t i = 0; i < view->count; i++)
        if (view->seats[i].self)
            return &view->seats[i];
    return NULL;
}

bool voters_can_spare(const struct voters_view *view, const struct seat *seat)
{
    size_t left = view->voters - 1;

    return view->answering - seat_answers(seat) >= left / 2 + 1;
}

/* So many voters are too many only until somebody calls who is silent now. */
static bool is_held(const struct voters_view *view, size_t voters)
{
    return voters > view->goal && voters <= view->possible;
}

/* It will not vote again, whoever calls. */
static bool is_out(const struct seat *seat)
{
    return seat_is_barred(seat) || seat_is_dead(seat);
}

/* Whether a vote too many can be taken away at once. */
static bool can_follow(const struct voters_view *view)
{
    bool dropouts = false, out = false;

    for (size_t i = 0; i < view->count; i++)
        if (seat_drops_out(&view->seats[i])) {
            dropouts = true;
            out = out || is_out(&view->seats[i]);
        }
    return out || (dropouts && !is_held(view, view->voters + 1));
}

static bool promote(const struct voters_view *view, struct voters_plan *plan)
{
    size_t ready;
    const struct seat *seat = next_ready(view, &ready);
    bool even = view->voters % 2 == 0;

    if (ready == 0)
        return false;
    /* Not into an even number, but with a next step that leads out of it. */
    if (even ? view->voters >= view->goal
             : view->voters > view->goal || (!can_follow(view) && (view->voters == view->goal || ready < 2)))
        return false;
    return change(plan, seat, SERVER_VOTER);
}

static bool demote(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *seat = next_dropout(view);
    bool even = view->voters % 2 == 0, held = is_held(view, view->voters);

    if (seat == NULL || !(even ? is_out(seat) || !held : view->voters > view->goal && !held) ||
        !voters_can_spare(view, seat))
        return false;
    return change(plan, seat, seat->machine != NULL ? SERVER_STANDBY : SERVER_REMOVED);
}

/* Where nobody is to vote, those who do go on. */
static bool goes_on_voting(const struct voters_view *view, const struct seat *seat)
{
    return seat->order != 0 || (view->goal == 0 && seat->machine != NULL);
}

/* Those that are there, and go on voting. */
static void add_heirs(const struct voters_view *view, bool no_leaders, struct voters_plan *plan)
{
    for (size_t i = 0; i < view->count && plan->heir_count < RAFT_SERVERS_MAX; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat->voter && !seat->self && goes_on_voting(view, seat) && seat->machine->alive &&
            seat->machine->no_leader == no_leaders)
            plan->heirs[plan->heir_count++] = seat->machine->server_id;
    }
}

static bool hand_over(struct voters_plan *plan)
{
    plan->act = plan->heir_count > 0 ? VOTERS_HAND_OVER : VOTERS_NOTHING;
    return plan->heir_count > 0;
}

/* This leader is not to vote: one of those that are goes on. */
static bool resign(const struct voters_view *view, const struct seat *self, struct voters_plan *plan)
{
    if (self == NULL || !seat_drops_out(self))
        return false;
    add_heirs(view, false, plan);
    if (plan->heir_count == 0)
        add_heirs(view, true, plan);
    return hand_over(plan);
}

/* All who are left are to leave, or not to vote: they stay as they are until others come, but for machines
 * that were removed. These would be waited for, could not join again, and might even lead. */
static bool dismiss_removed(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *best = NULL;
    size_t removed = 0;

    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat->voter && !seat->self && seat->machine == NULL &&
            (removed++ == 0 || dispensable(seat) >= dispensable(best)))
            best = seat;
    }
    if (best == NULL || (view->voters % 2 == 1 && removed < 2) || !voters_can_spare(view, best))
        return false;
    return change(plan, best, SERVER_REMOVED);
}

static bool voter_step(const struct voters_view *view, struct voters_plan *plan)
{
    if (view->goal == 0)
        return dismiss_removed(view, plan);
    return promote(view, plan) || demote(view, plan) || resign(view, voters_self(view), plan);
}

/* One that is to become a voter first, then the one beyond. */
static bool add_standby(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *best = NULL;

    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat->voter || seat->standby || !(seat->order != 0 || seat->spare) ||
            voters_holder(view, seat) != NULL)
            continue;
        if (best == NULL || (seat->order != 0 && (best->order == 0 || seat->order < best->order)))
            best = seat;
    }
    return best != NULL && change(plan, best, SERVER_STANDBY);
}

/* One that is silent stays until it is known what has become of it. */
static bool is_surplus(const struct seat *seat)
{
    return seat->server != NULL && !seat->voter && seat->order == 0 && !seat->spare &&
           (seat_is_barred(seat) || seat_is_dead(seat) || seat->machine->lost || seat->machine->alive);
}

static bool remove_standby(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *best = NULL;
    bool spare = false;

    for (size_t i = 0; i < view->count; i++)
        spare = spare || (view->seats[i].spare && view->seats[i].standby);
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        /* The last copy beyond the voters is kept, also of a host that is lost. */
        if (is_surplus(seat) && (spare || seat_is_barred(seat)))
            best = seat;
    }
    return best != NULL && change(plan, best, SERVER_REMOVED);
}

/* What is no machine's, and has no vote. */
static bool remove_stranger(const struct voters_view *view, struct voters_plan *plan)
{
    for (size_t i = 0; i < view->count; i++)
        if (view->seats[i].machine == NULL && !view->seats[i].voter)
            return change(plan, &view->seats[i], SERVER_REMOVED);
    return false;
}

/* One that is to be added has its address now, where the log has this one. */
static bool is_in_the_way(const struct voters_view *view, const struct seat *seat)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *other = &view->seats[i];

        if (other->server == NULL && other->machine->alive &&
            streq(other->machine->address, seat->server->address))
            return true;
    }
    return false;
}

static bool may_be_taken_out(const struct voters_view *view, const struct seat *seat)
{
    if (!seat->voter)
        return true;
    return voters_can_spare(view, seat) && (view->voters >= view->goal || is_in_the_way(view, seat));
}

/* It is added anew like any other. */
static bool remove_moved(const struct voters_view *view, struct voters_plan *plan)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat->self || !seat_has_moved(seat) || !may_be_taken_out(view, seat))
            continue;
        change(plan, seat, SERVER_REMOVED);
        plan->address = seat->server->address;
        return true;
    }
    return false;
}

static bool moves_itself(const struct voters_view *view, const struct seat *seat)
{
    return seat->self && seat->voter && view->voters == 1 && seat_has_moved(seat);
}

/* Whether this one waits for the address of 'seat', which will not be heard there any more. */
static bool waits_for_place(const struct voters_view *view, const struct seat *waiting,
                            const struct seat *seat)
{
    if (moves_itself(view, waiting))
        return true;
    if (waiting->server != NULL || !waiting->machine->alive || !is_out(seat))
        return false;
    if (!seat->voter)
        return waiting->order != 0 || waiting->spare;
    return waiting->order != 0 && !seat_answers(seat) && voters_can_spare(view, seat);
}

/* A host that is gone, and another one has got its address: in place of it, or by chance. */
static bool make_room(const struct voters_view *view, struct voters_plan *plan)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *waiting = &view->seats[i], *seat = voters_holder(view, waiting);

        if (seat == NULL || seat->self || !waits_for_place(view, waiting, seat))
            continue;
        change(plan, seat, SERVER_REMOVED);
        plan->address = seat->server->address;
        return true;
    }
    return false;
}

static bool move_self(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *self = voters_self(view);

    if (self == NULL || !moves_itself(view, self))
        return false;
    plan->act = VOTERS_MOVE_SELF;
    plan->server_id = self->machine->server_id;
    plan->address = self->machine->address;
    return true;
}

static void add_heirs_by_place(const struct voters_view *view, bool moved, struct voters_plan *plan)
{
    for (size_t i = 0; i < view->count && plan->heir_count < RAFT_SERVERS_MAX; i++) {
        const struct seat *seat = &view->seats[i];

        if (seat->voter && !seat->self && seat->order != 0 && seat->machine->alive &&
            seat_has_moved(seat) == moved)
            plan->heirs[plan->heir_count++] = seat->machine->server_id;
    }
}

/* Only another leader can take this one out and add it anew; rather one that is in its place itself. */
static bool give_way(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *self = voters_self(view);

    if (self == NULL || !self->voter || !seat_has_moved(self) || !may_be_taken_out(view, self))
        return false;
    add_heirs_by_place(view, false, plan);
    if (plan->heir_count == 0 && is_in_the_way(view, self))
        add_heirs_by_place(view, true, plan);
    return hand_over(plan);
}

/* This leader must not lead, and somebody else could. */
static bool waits_for_leader(const struct voters_view *view, struct voters_plan *plan)
{
    const struct seat *self = voters_self(view);

    if (self == NULL || self->machine == NULL || !self->machine->no_leader)
        return false;
    add_heirs(view, false, plan);
    return hand_over(plan);
}

void voters_plan(const struct voters_facts *facts, struct voters_plan *ret)
{
    struct voters_view view;

    *ret = (struct voters_plan){.act = VOTERS_NOTHING};
    voters_view_init(&view, facts);
    if (!has_machine(facts, facts->self)) {
        /* It has founded the cluster, alone, and is about to be registered; or it was removed, and elected
         * before it had lost its vote. */
        if (resign(&view, voters_self(&view), ret))
            voters_say(&view, ret);
        voters_view_done(&view);
        return;
    }
    if (!remove_stranger(&view, ret) && !make_room(&view, ret) && !move_self(&view, ret) &&
        !remove_moved(&view, ret) && !give_way(&view, ret) && !waits_for_leader(&view, ret) &&
        !voter_step(&view, ret) && !add_standby(&view, ret))
        remove_standby(&view, ret);
    voters_say(&view, ret);
    voters_view_done(&view);
}
