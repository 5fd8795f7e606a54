/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/voters.h"

#include "base/str.h"

static const struct voters_machine *find_machine(const struct voters_machine *machines, size_t count,
                                                 uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (machines[i].server_id == id)
            return &machines[i];
    return NULL;
}

static const struct store_server *find_server(const struct store_server *servers, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (servers[i].id == id)
            return &servers[i];
    return NULL;
}

static bool is_elsewhere(const struct voters_machine *machine, const struct store_server *server)
{
    return machine->alive && !streq(machine->address, server->address);
}

/* A machine that lost its disk has come back under another id, or it has left; or it is at another address.
 */
static bool next_removal(const struct store_server *servers, size_t server_count,
                         const struct voters_machine *machines, size_t machine_count, uint64_t self,
                         struct voters_step *ret)
{
    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);

        if (servers[i].id == self || (machine != NULL && !is_elsewhere(machine, &servers[i])))
            continue;
        *ret = (struct voters_step){servers[i].id, servers[i].address, SERVER_REMOVED};
        return true;
    }
    return false;
}

/* How things are, counted. */
struct tally {
    size_t voters, standbys;
    size_t standbys_alive; /* Can be made voters now. */
    size_t standbys_here;  /* Not lost. */
    size_t others_here;    /* Machines that are not lost and neither voters nor standbys. */
};

static struct tally count(const struct store_server *servers, size_t server_count,
                          const struct voters_machine *machines, size_t machine_count)
{
    struct tally tally = {0};

    for (size_t i = 0; i < server_count; i++) {
        tally.voters += servers[i].role == SERVER_VOTER;
        tally.standbys += servers[i].role == SERVER_STANDBY;
    }
    for (size_t i = 0; i < machine_count; i++) {
        const struct store_server *server = find_server(servers, server_count, machines[i].server_id);

        if (server == NULL || server->role == SERVER_SPARE) {
            tally.others_here += !machines[i].lost;
        } else if (server->role == SERVER_STANDBY) {
            tally.standbys_alive += machines[i].alive;
            tally.standbys_here += !machines[i].lost;
        }
    }
    return tally;
}

/* The most voters that 'able' hosts make: an odd number, not more than wanted. */
static size_t goal_of(size_t able, size_t wanted)
{
    size_t goal = able < wanted ? able : wanted;

    return goal % 2 == 0 && goal > 0 ? goal - 1 : goal;
}

/* With 'leaders' only one that may lead. */
static bool find_voter(const struct store_server *servers, size_t server_count,
                       const struct voters_machine *machines, size_t machine_count, bool leaders,
                       struct voters_step *ret)
{
    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);

        if (servers[i].role != SERVER_STANDBY || machine == NULL || !machine->alive ||
            (leaders && machine->no_leader))
            continue;
        *ret = (struct voters_step){machine->server_id, machine->address, SERVER_VOTER};
        return true;
    }
    return false;
}

static bool next_voter(const struct store_server *servers, size_t server_count,
                       const struct voters_machine *machines, size_t machine_count, struct voters_step *ret)
{
    return find_voter(servers, server_count, machines, machine_count, true, ret) ||
           find_voter(servers, server_count, machines, machine_count, false, ret);
}

static bool find_standby(const struct store_server *servers, size_t server_count,
                         const struct voters_machine *machines, size_t machine_count, bool leaders,
                         struct voters_step *ret)
{
    for (size_t i = 0; i < machine_count; i++) {
        const struct store_server *server = find_server(servers, server_count, machines[i].server_id);

        if (!machines[i].alive || (leaders && machines[i].no_leader) ||
            (server != NULL && server->role != SERVER_SPARE))
            continue;
        *ret = (struct voters_step){machines[i].server_id, machines[i].address, SERVER_STANDBY};
        return true;
    }
    return false;
}

static bool next_standby(const struct store_server *servers, size_t server_count,
                         const struct voters_machine *machines, size_t machine_count, struct voters_step *ret)
{
    return find_standby(servers, server_count, machines, machine_count, true, ret) ||
           find_standby(servers, server_count, machines, machine_count, false, ret);
}

/* Whether there is a server of this role that may lead (or must not), 'here': and is not lost. */
static bool have(const struct store_server *servers, size_t server_count,
                 const struct voters_machine *machines, size_t machine_count, enum server_role role,
                 bool no_leader, bool here)
{
    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);

        if (servers[i].role == role && machine != NULL && machine->no_leader == no_leader &&
            (!here || !machine->lost))
            return true;
    }
    return false;
}

/* A voter that must not lead makes room for a host that may: that one becomes a standby, then a voter; then
 * there is a voter too many. */
static bool next_replacement(const struct store_server *servers, size_t server_count,
                             const struct voters_machine *machines, size_t machine_count,
                             struct voters_step *ret)
{
    if (!have(servers, server_count, machines, machine_count, SERVER_VOTER, true, false))
        return false;
    if (find_voter(servers, server_count, machines, machine_count, true, ret))
        return true;
    return !have(servers, server_count, machines, machine_count, SERVER_STANDBY, false, true) &&
           find_standby(servers, server_count, machines, machine_count, true, ret);
}

static bool waits_for_leader(const struct store_server *servers, size_t server_count,
                             const struct voters_machine *machines, size_t machine_count, uint64_t self)
{
    const struct voters_machine *own = find_machine(machines, machine_count, self);

    if (own == NULL || !own->no_leader)
        return false;
    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);

        if (servers[i].role == SERVER_VOTER && machine != NULL && machine->alive && !machine->no_leader)
            return true;
    }
    return false;
}

/* How well a server of this role can be done without: one that is lost, or at least silent; among voters
 * first of all one that must not lead. */
static int dispensable(const struct voters_machine *machine, enum server_role role)
{
    if (machine == NULL || machine->lost)
        return 2 + (role == SERVER_VOTER && machine != NULL && machine->no_leader ? 3 : 0);
    return !machine->alive + (machine->no_leader ? (role == SERVER_VOTER ? 3 : 1) : 0);
}

/* The one of this role that is missed least, the last of equals. */
static void step_down(const struct store_server *servers, size_t server_count,
                      const struct voters_machine *machines, size_t machine_count, uint64_t self,
                      enum server_role from, enum server_role to, struct voters_step *ret)
{
    int best = -1;

    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);
        int rank = dispensable(machine, from);

        if (servers[i].role != from || servers[i].id == self || rank < best)
            continue;
        best = rank;
        *ret = (struct voters_step){servers[i].id, servers[i].address, to};
    }
}

bool voters_next(const struct store_server *servers, size_t server_count,
                 const struct voters_machine *machines, size_t machine_count, unsigned wanted, uint64_t self,
                 struct voters_step *ret)
{
    size_t most = wanted + STANDBYS_WANTED;
    struct tally tally;
    bool surplus;

    if (next_removal(servers, server_count, machines, machine_count, self, ret))
        return true;
    if (waits_for_leader(servers, server_count, machines, machine_count, self))
        return false;
    tally = count(servers, server_count, machines, machine_count);
    /* A voter that is away still counts: it is not replaced for being away. */
    if (tally.voters < goal_of(tally.voters + tally.standbys_alive, wanted))
        return next_voter(servers, server_count, machines, machine_count, ret);
    /* Not as long as somebody might still call who makes the number odd by joining the voters. */
    surplus = tally.voters > 1 &&
              tally.voters > goal_of(tally.voters + tally.standbys_here + tally.others_here, wanted);
    if (!surplus && next_replacement(servers, server_count, machines, machine_count, ret))
        return true;
    if (tally.voters + tally.standbys_here < most &&
        next_standby(servers, server_count, machines, machine_count, ret))
        return true;
    if (surplus) {
        step_down(servers, server_count, machines, machine_count, self, SERVER_VOTER, SERVER_STANDBY, ret);
        return true;
    }
    if (tally.standbys > 0 && tally.voters + tally.standbys > most) {
        step_down(servers, server_count, machines, machine_count, self, SERVER_STANDBY, SERVER_REMOVED, ret);
        return true;
    }
    return false;
}
