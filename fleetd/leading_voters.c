/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's hand on the voters: tells core/voters.h how things are, and carries out the steps that it
 * says, one at a time. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/core/voters.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"

/* A server whose store was heard within so long takes part: it answers several times a second. */
#define IN_TOUCH_MS 3000u

/* One that was added has so long to be heard for the first time: it may not be able to be reached where it
 * says. */
#define BEGIN_MS 30000u

/* A leadership that nobody takes, although somebody could, is offered again after so long: while it is
 * offered, nothing can be changed. */
#define GIVE_AWAY_MS 3000u

/* This host is asked once a second. If it was not for longer than this, it stood still, and nobody else. */
#define STANDSTILL_MS 3000u

/* Since when this leader has waited for a server's word. */
struct voting_wait {
    uint64_t server_id, since_ms;
};

struct voting {
    struct daemon *daemon;
    bool busy; /* A change of the Raft configuration is under way. */
    struct relocation *relocation;
    uint64_t offered_ms; /* When leadership was offered last, 0: never. */
    uint64_t looked_ms;  /* When voting_step() looked last. */
    struct voting_wait waits[RAFT_SERVERS_MAX];
    size_t wait_count;

    /* How things are. */
    struct voters_facts facts;
    struct store_server servers[RAFT_SERVERS_MAX];
    struct voters_machine *machines;
    char *spread_by;
};

/* ---- how long nothing was heard ---- */

static uint64_t waiting_since(struct voting *voting, uint64_t server_id, uint64_t now)
{
    for (size_t i = 0; i < voting->wait_count; i++)
        if (voting->waits[i].server_id == server_id)
            return voting->waits[i].since_ms;
    if (voting->wait_count < RAFT_SERVERS_MAX)
        voting->waits[voting->wait_count++] = (struct voting_wait){server_id, now};
    return now;
}

static const struct store_server *find_server(const struct voting *voting, uint64_t id)
{
    for (size_t i = 0; i < voting->facts.server_count; i++)
        if (voting->servers[i].id == id && voting->servers[i].role != SERVER_SPARE)
            return &voting->servers[i];
    return NULL;
}

/* Whoever has a part no more is waited for anew if it gets one again. */
static void forget_waits(struct voting *voting)
{
    size_t kept = 0;

    for (size_t i = 0; i < voting->wait_count; i++)
        if (find_server(voting, voting->waits[i].server_id) != NULL)
            voting->waits[kept++] = voting->waits[i];
    voting->wait_count = kept;
}

/* Of a server's store, by this leader at most since it began, or gave it a part. */
static uint64_t store_silent_ms(struct voting *voting, const struct store_server *server, uint64_t now)
{
    uint64_t waited_ms;

    if (server == NULL || server->id == voting->facts.self)
        return 0;
    waited_ms = now - waiting_since(voting, server->id, now);
    return server->silent_ms < waited_ms ? server->silent_ms : waited_ms;
}

/* ---- how things are ---- */

static const char *value_of(const struct registry_machine *machine, const char *key)
{
    for (size_t i = 0; i < machine->label_count; i++)
        if (streq(machine->labels[i].key, key))
            return machine->labels[i].value;
    return "";
}

static void describe(struct voting *voting, const struct registry_machine *machine, uint64_t now,
                     struct voters_machine *ret)
{
    const struct core *core = voting->daemon->core;
    const struct store_server *server = find_server(voting, machine->server_id);
    enum machine_state state = core_machine_state(core, machine->id);
    uint64_t silent_ms = store_silent_ms(voting, server, now);
    uint64_t patience_ms = server != NULL && server->role == SERVER_VOTER ? IN_TOUCH_MS : BEGIN_MS;

    *ret = (struct voters_machine){
        .server_id = machine->server_id,
        .address = machine->cluster_address,
        .name = machine->hostname[0] != '\0' ? machine->hostname : machine->id,
        .value = voting->spread_by[0] != '\0' ? value_of(machine, voting->spread_by) : "",
        .wish = machine->vote,
        .leaving = machine->leaving,
        .no_leader = machine->disable_engine,
        .alive = state == MACHINE_READY && silent_ms < patience_ms && !machine->no_store,
        .present = state == MACHINE_READY,
        .lost = state == MACHINE_LOST || (machine->no_store && server == NULL),
        .away_ms = state == MACHINE_READY ? silent_ms : core_machine_silent_ms(core, machine->id, now),
    };
    ret->ready = ret->alive && server != NULL && server->caught_up && silent_ms < IN_TOUCH_MS;
    /* Whom the brake holds, or who has not called this leader yet, is waited for. */
    ret->gone = !ret->alive && state != MACHINE_MISSING && state != MACHINE_EXPECTED &&
                ret->away_ms >= voting->facts.grace_ms;
}

const struct voters_facts *voting_facts(struct voting *voting)
{
    struct daemon *daemon = voting->daemon;
    struct voters_facts *facts = &voting->facts;
    const struct registry *registry;
    const struct registry_machine *const *machines;
    uint64_t now = now_ms();

    if (daemon->store == NULL || !store_leads(daemon->store))
        return NULL;
    registry = store_registry(daemon->store);
    machines = registry_machines(registry, &facts->machine_count);
    free(voting->machines);
    free(voting->spread_by);
    voting->machines = xcalloc(facts->machine_count, sizeof *voting->machines);
    voting->spread_by = registry_setting_text(registry, SETTING_VOTERS_SPREAD_BY);
    facts->server_count = store_servers(daemon->store, voting->servers, RAFT_SERVERS_MAX);
    facts->servers = voting->servers;
    facts->machines = voting->machines;
    facts->wanted = (unsigned)registry_setting_number(registry, SETTING_VOTERS);
    facts->self = daemon->member.server_id;
    facts->spread_by = voting->spread_by;
    facts->grace_ms = registry_setting_number(registry, SETTING_VOTERS_GRACE);
    forget_waits(voting);
    for (size_t i = 0; i < facts->machine_count; i++)
        describe(voting, machines[i], now, &voting->machines[i]);
    return facts;
}

/* ---- steps ---- */

static void on_changed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct voting *voting = data;

    voting->busy = false;
    if (outcome != STORE_APPLIED) {
        log_warn("A change of the voters did not come through (%s); trying again", reason);
    } else if (!voting->daemon->stopping) {
        /* Within a second this host may have no part any more, and would know nobody to ask. */
        cluster_learn_peers(voting->daemon);
        voting_step(voting); /* The next one, if there is one, without waiting for the clock. */
    }
}

static const char *what_becomes(enum server_role role)
{
    switch (role) {
    case SERVER_VOTER: return "becomes a voter";
    case SERVER_STANDBY: return "becomes a standby for the voters";
    default: return "leaves the consensus";
    }
}

static void change(struct voting *voting, const struct voters_plan *plan)
{
    _cleanup_(freep) char *reason = xasprintf("FLEET_REASON=%s", plan->why);

    log_message(LOG_INFO, log_fields(MESSAGE_VOTERS, reason), "%s %s: %s", plan->address,
                what_becomes(plan->role), plan->why);
    voting->busy = true;
    store_change_server(voting->daemon->store, plan->server_id, plan->address, plan->role, on_changed,
                        voting);
}

static void on_moved(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                     void *data)
{
    struct voting *voting = data;
    const char *address = voting->daemon->cluster_address;
    _cleanup_(freep) char *why = xasprintf("FLEET_REASON=moved to %s", address);

    if (outcome == STORE_APPLIED)
        log_message(LOG_NOTICE, log_fields(MESSAGE_VOTERS, why),
                    "This host, the only voter, has moved to %s: the log says so now", address);
    on_changed(outcome, result, reason, data);
}

static void move_self(struct voting *voting)
{
    struct store *store = voting->daemon->store;

    /* A copy with its machine id may have registered another address for it: this host is in its place. */
    if (streq(store_own_place(store), voting->daemon->cluster_address) ||
        !relocation_look(voting->relocation, store_own_place(store)))
        return;
    voting->busy = true;
    store_move_self(store, on_moved, voting);
}

static void offer(struct voting *voting, const struct voters_plan *plan)
{
    struct err err = {0};
    int r = voting_hand_over(voting, plan->heirs, plan->heir_count, &err);

    if (r >= 0)
        log_info("This host hands leadership over: %s", plan->why);
}

void voting_step(struct voting *voting)
{
    struct daemon *daemon = voting->daemon;
    const struct voters_facts *facts;
    struct voters_plan plan;
    uint64_t now = now_ms();

    if (voting->looked_ms != 0 && now - voting->looked_ms > STANDSTILL_MS)
        voting->wait_count = 0;
    voting->looked_ms = now;
    if (voting->busy || daemon->store == NULL || !store_leads(daemon->store))
        return;
    facts = voting_facts(voting);
    voters_plan(facts, &plan);
    switch (plan.act) {
    case VOTERS_CHANGE: change(voting, &plan); break;
    case VOTERS_HAND_OVER: offer(voting, &plan); break;
    case VOTERS_MOVE_SELF: move_self(voting); break;
    default: break;
    }
}

int voting_hand_over(struct voting *voting, const uint64_t *server_ids, size_t count, struct err *err)
{
    uint64_t now = now_ms();

    if (voting->busy)
        return err_set(err, -EBUSY, "a change of the voters is under way: try again in a moment");
    if (voting->offered_ms != 0 && now - voting->offered_ms < GIVE_AWAY_MS)
        return err_set(err, -EBUSY,
                       "leadership has just been offered, and nobody took it: try again in a moment");
    voting->offered_ms = now;
    store_hand_over(voting->daemon->store, server_ids, count);
    return 0;
}

/* ---- life ---- */

struct voting *voting_new(struct daemon *daemon)
{
    struct voting *voting = NEW0(struct voting);

    voting->daemon = daemon;
    voting->spread_by = xstrdup("");
    voting->relocation = relocation_new(daemon);
    return voting;
}

void voting_free(struct voting *voting)
{
    if (voting == NULL)
        return;
    relocation_free(voting->relocation);
    free(voting->machines);
    free(voting->spread_by);
    free(voting);
}

void voting_begin(struct voting *voting)
{
    voting->offered_ms = 0;
    voting->looked_ms = 0;
    voting->wait_count = 0;
}
