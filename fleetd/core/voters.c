/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/voters.h"

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

/* A machine that lost its disk has come back under another id, or it has left. */
static bool next_removal(const struct store_server *servers, size_t server_count,
                         const struct voters_machine *machines, size_t machine_count, uint64_t self,
                         struct voters_step *ret)
{
    for (size_t i = 0; i < server_count; i++) {
        if (servers[i].id == self || find_machine(machines, machine_count, servers[i].id) != NULL)
            continue;
        *ret = (struct voters_step){servers[i].id, servers[i].address, SERVER_REMOVED};
        return true;
    }
    return false;
}

bool voters_next(const struct store_server *servers, size_t server_count,
                 const struct voters_machine *machines, size_t machine_count, unsigned wanted, uint64_t self,
                 struct voters_step *ret)
{
    size_t voters = 0, able = 0, standbys = 0, goal;

    if (next_removal(servers, server_count, machines, machine_count, self, ret))
        return true;

    for (size_t i = 0; i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);
        bool voter = servers[i].role == SERVER_VOTER;

        voters += voter;
        standbys += servers[i].role == SERVER_STANDBY;
        /* A voter that is away still counts: it is not replaced for being away. */
        able += voter || (servers[i].role == SERVER_STANDBY && machine != NULL && machine->alive);
    }

    goal = able < wanted ? able : wanted;
    if (goal % 2 == 0 && goal > 0)
        goal--;
    for (size_t i = 0; voters < goal && i < server_count; i++) {
        const struct voters_machine *machine = find_machine(machines, machine_count, servers[i].id);

        if (servers[i].role != SERVER_STANDBY || machine == NULL || !machine->alive)
            continue;
        *ret = (struct voters_step){machine->server_id, machine->address, SERVER_VOTER};
        return true;
    }

    for (size_t i = 0; i < machine_count; i++) {
        const struct store_server *server = find_server(servers, server_count, machines[i].server_id);

        if (!machines[i].alive || (server != NULL && server->role != SERVER_SPARE) ||
            voters + standbys >= wanted + STANDBYS_WANTED)
            continue;
        *ret = (struct voters_step){machines[i].server_id, machines[i].address, SERVER_STANDBY};
        return true;
    }
    return false;
}
