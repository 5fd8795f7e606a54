/* SPDX-License-Identifier: Apache-2.0 */
/* Where the servers are. The log says it; but one that has moved while it was off can only be taken out and
 * added anew by a leader, and there is none if it was the only voter, or if a majority has moved at once
 * (docs/RAFT.md §5). The only voter changes its own address itself. Of a majority nobody but a person can say
 * that those are the servers, and not copies of their disks. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "raftstore/store_private.h"

/* A server must be added for libraft to write the configuration down, and is taken out again. It is none:
 * this name leads nowhere (RFC 6761 §6.4). */
#define NOWHERE "moved.invalid:1"

/* ---- what somebody has said ---- */

static void add_moved(struct store *store, const struct raft_server *server, const struct store_move *move)
{
    store->moved[store->moved_count++] =
        (struct moved_server){.id = server->id, .from = xstrdup(move->from), .to = xstrdup(move->to)};
    log_notice("Server %016llx, which the log has at %s, is taken to be at %s: cluster_moved says so",
               server->id, move->from, move->to);
}

void store_place_start(struct store *store, const struct store_config *config)
{
    const struct raft_configuration *configuration = &store->raft.configuration;

    for (size_t i = 0; i < config->move_count; i++)
        for (unsigned j = 0; j < configuration->n; j++)
            if (streq(configuration->servers[j].address, config->moves[i].from) &&
                store->moved_count < RAFT_SERVERS_MAX)
                add_moved(store, &configuration->servers[j], &config->moves[i]);
    if (config->move_count > 0 && configuration->n > 0 && store->moved_count == 0)
        log_notice(
            "No server of the cluster is where cluster_moved says that one was, by this host's log: it "
            "can be taken out of fleet.conf where that is so on all voters");
}

void store_place_done(struct store *store)
{
    for (size_t i = 0; i < store->moved_count; i++) {
        free(store->moved[i].from);
        free(store->moved[i].to);
    }
}

const char *store_moved_to(const struct store *store, uint64_t server_id, const char *address)
{
    for (size_t i = 0; i < store->moved_count; i++)
        if (store->moved[i].id == server_id && streq(store->moved[i].from, address))
            return store->moved[i].to;
    return NULL;
}

/* ---- the only voter ---- */

/* Whether the configuration has this voter, and no other. */
static bool is_only_voter(const struct store *store, uint64_t server_id)
{
    const struct raft_server *server = store_find_server(store, server_id);

    if (server == NULL || server->role != RAFT_VOTER)
        return false;
    for (unsigned i = 0; i < store->raft.configuration.n; i++)
        if (store->raft.configuration.servers[i].role == RAFT_VOTER &&
            store->raft.configuration.servers[i].id != server_id)
            return false;
    return true;
}

const char *store_own_place(const struct store *store)
{
    const struct raft_server *self = store_find_server(store, store->server_id);

    return self != NULL ? self->address : "";
}

/* It is not where its log has it, and has not made sure yet that nobody else is there. */
static bool is_out_of_place(const struct store *store)
{
    return is_only_voter(store, store->server_id) && !streq(store_own_place(store), store->address);
}

/* ---- for raftnet ---- */

static int find_place(const struct store *store, uint64_t server_id, char *address)
{
    const struct raft_server *server = store_find_server(store, server_id);
    const char *moved;

    if (server == NULL || strlen(server->address) > ADDRESS_MAX)
        return -ENOENT;
    moved = store_moved_to(store, server_id, server->address);
    strcpy(address, moved != NULL ? moved : server->address);
    return 0;
}

int store_resolve(uint64_t server_id, char *address, void *data)
{
    const struct store *store = data;

    return is_out_of_place(store) ? -ENOENT : find_place(store, server_id, address);
}

/* A configuration without this server is history: of before it was added, or of after it was removed. It may
 * be that whoever leads now was elsewhere then; and a server without a part gives nobody its vote. */
int store_locate(uint64_t server_id, char *address, bool *ret_may_move, void *data)
{
    const struct store *store = data;

    if (store_find_server(store, store->server_id) == NULL)
        return -ENOENT;
    *ret_may_move = server_id != store->server_id && is_only_voter(store, server_id);
    return find_place(store, server_id, address);
}

/* ---- moving ---- */

struct moving {
    struct store *store;
    store_done *done;
    void *data;
    uint64_t helper_id;
    char *from;
};

static void end(struct moving *moving, enum store_outcome outcome, const char *reason)
{
    moving->done(outcome, NULL, reason, moving->data);
    free(moving->from);
    free(moving);
}

static void set_own_place(struct store *store, const char *address)
{
    if (store->raft_closed) /* libraft has freed the configuration. */
        return;
    if (raft_compat_set_address(&store->raft, store->server_id, address) == RAFT_NOMEM)
        abort();
}

static void on_removed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    end(data, outcome, reason);
}

static void on_added(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                     void *data)
{
    struct moving *moving = data;

    if (outcome == STORE_APPLIED) {
        store_change_server(moving->store, moving->helper_id, NOWHERE, SERVER_REMOVED, on_removed, moving);
        return;
    }
    if (outcome == STORE_REFUSED && moving->from != NULL) /* It is as it was, and will be tried again. */
        set_own_place(moving->store, moving->from);
    end(moving, outcome, reason);
}

/* Of no server: those are drawn. */
static uint64_t helper_id(const struct store *store)
{
    uint64_t id = store->server_id;

    do
        id = id % INT64_MAX + 1;
    while (store_find_server(store, id) != NULL);
    return id;
}

/* libraft refuses two servers at one address as well, but then loses what it has copied of them. */
static bool is_occupied(const struct store *store)
{
    const struct raft_configuration *configuration = &store->raft.configuration;

    for (unsigned i = 0; !store->raft_closed && i < configuration->n; i++)
        if (configuration->servers[i].id != store->server_id &&
            streq(configuration->servers[i].address, store->address))
            return true;
    return false;
}

/* The log gets it by an entry of its own, so that whoever follows learns it, and a start finds it; a helper
 * that a crash leaves behind is no machine's server, and is removed as such. */
void store_move_self(struct store *store, store_done *done, void *data)
{
    struct moving *moving;

    if (is_occupied(store)) {
        store_refuse_change(store, done, data, store_raft_text(RAFT_DUPLICATEADDRESS));
        return;
    }
    moving = NEW0(struct moving);
    *moving = (struct moving){.store = store, .done = done, .data = data, .helper_id = helper_id(store)};
    if (!store->change.active && !store->closing && store_leads(store) && is_out_of_place(store)) {
        moving->from = xstrdup(store_own_place(store));
        set_own_place(store, store->address);
    }
    store_change_server(store, moving->helper_id, NOWHERE, SERVER_SPARE, on_added, moving);
}
