/* SPDX-License-Identifier: Apache-2.0 */
/* What is under way among the voters, and why, in words. And what is answered to people who wish something of
 * them. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/core/voters_private.h"

/* ---- pieces ---- */

static void say_time(struct strbuf *to, uint64_t ms)
{
    uint64_t s = ms / 1000;

    if (s < 120)
        strbuf_addf(to, "%" PRIu64 " s", s);
    else if (s < 2 * 3600)
        strbuf_addf(to, "%" PRIu64 " min", s / 60);
    else
        strbuf_addf(to, "%" PRIu64 " h", s / 3600);
}

/* The first voter that drops out and is so; NULL: none. */
static const struct seat *find_dropout(const struct voters_view *view, bool (*is_so)(const struct seat *seat))
{
    for (size_t i = 0; i < view->count; i++)
        if (seat_drops_out(&view->seats[i]) && is_so(&view->seats[i]))
            return &view->seats[i];
    return NULL;
}

static bool is_anyone(const struct seat *seat)
{
    return true;
}

static const struct seat *first_dropout(const struct voters_view *view)
{
    const struct seat *seat = find_dropout(view, seat_is_dead);

    if (seat == NULL)
        seat = find_dropout(view, seat_is_barred);
    return seat != NULL ? seat : find_dropout(view, is_anyone);
}

static const struct seat *first_joiner(const struct voters_view *view)
{
    const struct seat *best = NULL;

    for (size_t i = 0; i < view->count; i++)
        if (seat_joins(&view->seats[i]) && (best == NULL || view->seats[i].order < best->order))
            best = &view->seats[i];
    return best;
}

static void say_why_out(const struct voters_view *view, const struct seat *seat, struct strbuf *to)
{
    if (seat->machine == NULL) {
        strbuf_add(to, "no machine of the cluster any more");
    } else if (seat->machine->gone) {
        strbuf_add(to, "away for ");
        say_time(to, seat->machine->away_ms);
    } else if (seat->machine->leaving) {
        strbuf_add(to, "it leaves the cluster");
    } else if (seat->machine->wish == VOTE_NEVER) {
        strbuf_add(to, "demoted");
    } else if (seat->machine->no_leader) {
        strbuf_add(to, "it must not lead: disable_engine");
    } else if (view->voters > view->goal + (first_joiner(view) != NULL)) {
        strbuf_addf(to, "there are to be %zu", view->goal);
    } else if (view->facts->spread_by[0] != '\0') {
        strbuf_addf(to, "spread by %s", view->facts->spread_by);
    } else {
        strbuf_add(to, "others were promoted");
    }
}

static const char *stage_of(const struct seat *seat)
{
    if (!seat->standby)
        return "gets a copy of the data";
    return seat_is_ready(seat) ? "gets its vote" : "is catching up";
}

/* Whose role the plan changes; NULL: nobody's. */
static const struct seat *find_changed(const struct voters_view *view, const struct voters_plan *plan)
{
    for (size_t i = 0; plan->act == VOTERS_CHANGE && i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if ((seat->machine != NULL ? seat->machine->server_id : seat->server->id) == plan->server_id)
            return seat;
    }
    return NULL;
}

/* ---- what is under way ---- */

static bool say_replacement(const struct voters_view *view, struct strbuf *to)
{
    const struct seat *out = first_dropout(view), *in = first_joiner(view);

    if (out == NULL || in == NULL)
        return false;
    strbuf_addf(to, "replacing %s (", seat_name(out));
    say_why_out(view, out, to);
    strbuf_addf(to, ") by %s, which %s", seat_name(in), stage_of(in));
    return true;
}

static bool say_growth(const struct voters_view *view, struct strbuf *to)
{
    const struct seat *in = first_joiner(view);

    if (in == NULL)
        return false;
    strbuf_addf(to, "from %zu to %zu voters: %s %s", view->voters, view->goal, seat_name(in), stage_of(in));
    return true;
}

static bool say_loss(const struct voters_view *view, const struct voters_plan *plan, struct strbuf *to)
{
    const struct seat *out = find_changed(view, plan);

    if (out == NULL || !seat_drops_out(out))
        out = first_dropout(view);

    if (out == NULL)
        return false;
    if (view->goal == 0) {
        strbuf_addf(to, "%s keeps its vote (", seat_name(out));
        say_why_out(view, out, to);
        strbuf_add(to, "), since no other host could have it");
    } else if (plan->act == VOTERS_HAND_OVER) {
        strbuf_addf(to, "%s hands leadership over (", seat_name(out));
        say_why_out(view, out, to);
        strbuf_add(to, ")");
    } else if (plan->act == VOTERS_NOTHING && !voters_can_spare(view, out)) {
        strbuf_addf(to, "%s (", seat_name(out));
        say_why_out(view, out, to);
        strbuf_addf(
            to,
            ") keeps its vote for now: those of the other voters that answer (%zu of %zu) would be no "
            "majority",
            view->answering - 1, view->voters - 1);
    } else if (plan->act == VOTERS_NOTHING) {
        strbuf_addf(to, "%s keeps its vote until silent hosts have called or are lost", seat_name(out));
    } else {
        strbuf_addf(to, "%s loses its vote (", seat_name(out));
        say_why_out(view, out, to);
        strbuf_add(to, ")");
    }
    return true;
}

/* Voters that are away, and what will become of them. */
static void say_away(const struct voters_view *view, struct strbuf *to)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i];

        if (!seat->voter || seat->order == 0 || seat->self || !(seat->machine->lost || seat->machine->gone))
            continue;
        strbuf_addf(to, "%s%s is away for ", to->size > 0 ? "; " : "", seat_name(seat));
        say_time(to, seat->machine->away_ms);
        if (seat->machine->gone) {
            strbuf_add(to, ", and no other host could have its vote: add one, or take it out (fleetctl "
                           "remove-machine)");
        } else {
            strbuf_add(to, ": after ");
            say_time(to, view->facts->grace_ms);
            strbuf_add(to, " another host gets its vote, if there is one");
        }
    }
}

/* Who cannot be added, and why. */
static void say_taken(const struct voters_view *view, struct strbuf *to)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct seat *seat = &view->seats[i], *holder = voters_holder(view, seat);

        if (seat->server == NULL && (seat->order != 0 || seat->spare) && holder != NULL)
            strbuf_addf(to, "%s%s has the address of %s, and gets no copy of the data before that one is out",
                        to->size > 0 ? "; " : "", seat_name(seat), seat_name(holder));
    }
}

/* Once more, and nobody could decide anything. */
static void say_danger(const struct voters_view *view, struct strbuf *to)
{
    if (view->voters > 1 && view->answering < view->voters && view->answering <= view->voters / 2 + 1)
        strbuf_addf(
            to, "%s%zu of %zu voters answer: if one more is lost, nothing can be changed until one is back",
            to->size > 0 ? "; " : "", view->answering, view->voters);
}

void voters_say(const struct voters_view *view, struct voters_plan *plan)
{
    struct strbuf text = {0};
    const struct seat *changed = find_changed(view, plan), *self = voters_self(view);

    if (plan->act == VOTERS_MOVE_SELF)
        strbuf_add(&text,
                   "this host, the only voter, has another address than before: it takes its place in the "
                   "log when it is clear that no other host answers as it at the old one");
    else if (plan->act == VOTERS_HAND_OVER && self != NULL && seat_has_moved(self))
        strbuf_add(&text,
                   "this host has another address than before: the next leader takes it out, and adds it "
                   "anew");
    else if (changed != NULL && plan->role == SERVER_REMOVED && seat_has_moved(changed))
        strbuf_addf(&text, "%s has another address than before: it is taken out, and added anew",
                    seat_name(changed));
    else if (!say_replacement(view, &text) && !say_loss(view, plan, &text) && !say_growth(view, &text) &&
             plan->act == VOTERS_HAND_OVER)
        strbuf_add(&text, "leadership goes to a host that may lead (disable_engine)");
    if (text.size == 0 && changed != NULL)
        strbuf_addf(&text, "%s %s", seat_name(changed),
                    plan->role == SERVER_REMOVED ? "needs no copy of the data any more"
                                                 : "becomes a standby for the voters");
    say_away(view, &text);
    say_taken(view, &text);
    say_danger(view, &text);
    if (text.size > 0)
        snprintf(plan->why, sizeof plan->why, "%s", text.text);
    strbuf_done(&text);
}

/* ---- wishes ---- */

/* Why it could not lead; NULL: it could. */
static const char *unfit_to_lead(const struct seat *seat)
{
    if (!seat->voter)
        return "it does not vote (fleetctl promote)";
    if (seat->machine->no_leader)
        return "it must not lead (disable_engine in its fleet.conf)";
    if (seat->order == 0)
        return "it is about to lose its vote";
    return seat->machine->alive ? NULL : "it does not answer";
}

int voters_heirs(const struct voters_facts *facts, uint64_t server_id, uint64_t *ret, size_t *ret_count,
                 struct err *err)
{
    struct voters_view view;
    size_t count = 0;
    int r = server_id == 0 ? err_set(err, -EBUSY, "no other voter is there that could lead")
                           : err_set(err, -EBUSY, "it has no part in consensus");

    voters_view_init(&view, facts);
    for (size_t i = 0; i < view.count && count < RAFT_SERVERS_MAX; i++) {
        const struct seat *seat = &view.seats[i];
        const char *why = seat->machine != NULL ? unfit_to_lead(seat) : "it is no machine of the cluster";

        if (seat->machine == NULL || seat->self || (server_id != 0 && seat->machine->server_id != server_id))
            continue;
        if (why == NULL)
            ret[count++] = seat->machine->server_id;
        else if (server_id != 0)
            err_set(err, -EBUSY, "%s cannot lead: %s", seat_name(seat), why);
    }
    voters_view_done(&view);
    *ret_count = count;
    return count > 0 ? 0 : r;
}

static bool is_among(uint64_t id, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The machines as they would be if these were not to vote; the caller frees them. */
static struct voters_machine *without(const struct voters_facts *facts, const uint64_t *ids, size_t count)
{
    struct voters_machine *machines = xmemdup(facts->machines, facts->machine_count * sizeof *machines);

    for (size_t i = 0; i < facts->machine_count; i++)
        if (is_among(machines[i].server_id, ids, count))
            machines[i].wish = VOTE_NEVER;
    return machines;
}

int voters_may_demote(const struct voters_facts *facts, const uint64_t *server_ids, size_t count,
                      struct err *err)
{
    _cleanup_(freep) struct voters_machine *machines = without(facts, server_ids, count);
    struct voters_facts then_facts = *facts;
    struct voters_view now, then;
    int r = 0;

    then_facts.machines = machines;
    voters_view_init(&now, facts);
    voters_view_init(&then, &then_facts);
    if (then.goal == 0)
        r = err_set(err, -EBUSY, "no other host could vote: let one join first");
    else if (then.goal < now.goal)
        r = err_set(err, -EBUSY,
                    "that would leave %zu voter%s of %zu, and fewer losses of hosts would be survived: let "
                    "other hosts join first, or lower the number that is wanted (the setting voters)",
                    then.goal, then.goal == 1 ? "" : "s", now.goal);
    voters_view_done(&now);
    voters_view_done(&then);
    return r;
}

int voters_may_remove(const struct voters_facts *facts, uint64_t server_id, struct err *err)
{
    struct voters_view view;
    int r = 0;

    voters_view_init(&view, facts);
    for (size_t i = 0; i < view.count && r >= 0; i++) {
        const struct seat *seat = &view.seats[i];

        if (seat->voter && seat->server->id == server_id && !voters_can_spare(&view, seat))
            r = err_set(
                err, -EBUSY,
                "%s votes, and of the %zu other voters only %zu answer%s: without it nothing could be "
                "decided any more. Bring the others back first, or wait until they are replaced "
                "(fleetctl list-members)",
                seat_name(seat), view.voters - 1, view.answering - 1, view.answering - 1 == 1 ? "s" : "");
    }
    voters_view_done(&view);
    return r;
}

int voters_may_promote(const struct voters_facts *facts, const uint64_t *server_ids, size_t count,
                       struct err *err)
{
    size_t wished = 0;

    for (size_t i = 0; i < facts->machine_count; i++) {
        const struct voters_machine *machine = &facts->machines[i];
        bool named = is_among(machine->server_id, server_ids, count);

        wished += named || (machine->wish == VOTE_ALWAYS && !machine->leaving);
        if (named && machine->no_leader)
            return err_set(err, -EBUSY,
                           "%s must not lead (disable_engine in its fleet.conf), and so votes only where "
                           "others are too few",
                           machine->name);
        if (named && machine->leaving)
            return err_set(err, -EBUSY, "%s leaves the cluster", machine->name);
        if (named && !machine->alive)
            return err_set(err, -EBUSY, "%s is not there, or does not answer", machine->name);
    }
    if (wished > facts->wanted)
        return err_set(
            err, -EBUSY,
            "%zu hosts would have to vote then, and the cluster is to have %u voters: demote others "
            "or leave them to the cluster (promote --automatic), or raise the setting voters",
            wished, facts->wanted);
    return 0;
}
