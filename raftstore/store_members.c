/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "raftstore/address.h"
#include "raftstore/store_private.h"

#define CAUGHT_UP_ENTRIES 256u

#define HANG_UP_MS 1000u

/* How long one that answers, and is removed, may take to get the log, in election timeouts; another one has
 * two. */
#define REMOVAL_ELECTIONS 20u

/* ---- the configuration ---- */

const struct raft_server *store_find_server(const struct store *store, uint64_t id)
{
    if (store->raft_closed) /* libraft has freed them, and left the pointer. */
        return NULL;
    return raft_compat_find_server(&store->raft.configuration, id);
}

/* What was written while a whole batch travels is no reason to call a server behind. */
static bool has_caught_up(const struct store *store, raft_id id)
{
    struct raft *raft = (struct raft *)&store->raft;

    raft_index match = raft_compat_match_index(raft, id);

    return match > 0 && match + CAUGHT_UP_ENTRIES >= raft_compat_commit_index(raft);
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    bool leads = store_leads(store);
    size_t count = 0;

    for (unsigned i = 0; !store->raft_closed && i < store->raft.configuration.n && count < max; i++) {
        const struct raft_server *server = &store->raft.configuration.servers[i];
        bool self = server->id == store->server_id;
        uint64_t heard_ms = raftnet_last_heard_ms(store->net, server->id);

        servers[count++] = (struct store_server){
            .id = server->id,
            .address = server->address,
            .role = (enum server_role)server->role,
            .caught_up = self || (leads && has_caught_up(store, server->id)),
            .silent_ms = self           ? 0
                         : heard_ms > 0 ? uv_now(store->loop) - heard_ms
                                        : UINT64_MAX,
        };
    }
    return count;
}

/* ---- changing it ---- */

static void change_end(struct store *store, enum store_outcome outcome, const char *reason)
{
    struct server_change change = store->change;

    store->change = (struct server_change){0};
    change.done(outcome, NULL, reason, change.data);
    free(change.address);
}

static void change_step(void *data);

static void change_next(void *data)
{
    struct store *store = data;
    struct server_change *change = &store->change;

    switch (change->status) {
    case 0:
        change->steps++;
        change_step(store);
        break;
    case RAFT_NOCONNECTION: /* libraft has given the promotion up before it wrote anything. */
        change_end(store, STORE_REFUSED, "the server does not catch up, or cannot be reached");
        break;
    default: change_end(store, STORE_UNKNOWN, store_raft_text(change->status)); break;
    }
}

static void on_changed(struct raft_change *request, int status)
{
    struct store *store = request->data;

    store->change.status = status;
    defer_call(store->defer, change_next, store);
}

/* One that is removed before it has heard that it does not vote any more does not learn it by itself, and
 * campaigns (docs/RAFT.md §5), until its session's leader tells it (store_retire()). So whoever follows the
 * log gets the time to hear it. */
static bool removal_must_wait(struct store *store, const struct raft_server *server)
{
    struct server_change *change = &store->change;
    uint64_t now = uv_now(store->loop), heard_ms = raftnet_last_heard_ms(store->net, server->id);
    uint64_t elections = heard_ms + store->election_ms >= now ? REMOVAL_ELECTIONS : 2;

    if (server->role == RAFT_SPARE)
        return false;
    if (change->wait_index == 0) {
        change->wait_index = raft_compat_commit_index(&store->raft);
        change->wait_from_ms = now;
    }
    return raft_compat_match_index(&store->raft, server->id) < change->wait_index &&
           now - change->wait_from_ms < elections * store->election_ms;
}

/* Submits the next step, which is one entry of the log (dissertation §4.1). -1: not yet. */
static int change_submit(struct store *store, const struct raft_server *server)
{
    struct server_change *change = &store->change;

    change->request.data = store;
    if (server == NULL)
        return raft_add(&store->raft, &change->request, change->id, change->address, on_changed);
    if (change->role != SERVER_REMOVED)
        return raft_assign(&store->raft, &change->request, change->id, (int)change->role, on_changed);
    if (server->role == RAFT_VOTER)
        return raft_assign(&store->raft, &change->request, change->id, RAFT_STANDBY, on_changed);
    change->waits = removal_must_wait(store, server);
    if (change->waits)
        return -1;
    return raft_remove(&store->raft, &change->request, change->id, on_changed);
}

static void change_step(void *data)
{
    struct store *store = data;
    struct server_change *change = &store->change;
    const struct raft_server *server = store_find_server(store, change->id);
    enum store_outcome no = change->steps > 0 ? STORE_UNKNOWN : STORE_REFUSED;
    int r;

    change->waits = false;
    if (!store_leads(store) || store->closing)
        change_end(store, no, store_raft_text(RAFT_NOTLEADER));
    else if (server == NULL ? change->role == SERVER_REMOVED : (int)change->role == server->role)
        change_end(store, STORE_APPLIED, "");
    /* What comes with that may be in our log alone: if we are lost then, we could not campaign any more, and
     * would give nobody else the vote that he needs (docs/RAFT.md §5). */
    else if (change->id == store->server_id)
        change_end(store, STORE_REFUSED, "a leader takes no vote from itself: another one must do it");
    else if (server == NULL && store->raft.configuration.n >= RAFT_SERVERS_MAX)
        change_end(store, STORE_REFUSED, "there are as many consensus servers as there may be (64)");
    else if ((r = change_submit(store, server)) > 0)
        change_end(store, no, store_raft_text(r));
}

/* Only voters say anything by themselves, and only to those that have a part. Who has none (any more) is to
 * cost nothing, not even a connection. */
static bool keeps_connection(uint64_t server_id, void *data)
{
    struct store *store = data;
    const struct raft_server *self = store_find_server(store, store->server_id),
                             *server = store_find_server(store, server_id);

    return self != NULL && self->role == RAFT_VOTER && !store->guard.retired && server != NULL &&
           server->role != RAFT_SPARE;
}

static void hang_up(struct store *store)
{
    uint64_t now = uv_now(store->loop);

    if (store->raft_closed || now - store->hang_up_ms < HANG_UP_MS)
        return;
    store->hang_up_ms = now;
    raftnet_hang_up(store->net, keeps_connection, store);
}

/* A leader that has stepped down need not know to whom before it closes: 0.22 calls back when it hears a new
 * leader, and without a majority it hears none (0.15 does after an election timeout). */
static bool handover_is_moot(const struct store *store)
{
    return store->closing && store->handover.in_flight &&
           raft_state((struct raft *)&store->raft) != RAFT_LEADER;
}

void store_members_turn(struct store *store)
{
    if (store->change.waits)
        change_step(store);
    if (store->handover.waits || handover_is_moot(store))
        store_handover_step(store);
    hang_up(store);
}

struct refusal {
    store_done *done;
    void *data;
    char *reason;
};

static void refuse_now(void *data)
{
    struct refusal *refusal = data;

    refusal->done(STORE_REFUSED, NULL, refusal->reason, refusal->data);
    free(refusal->reason);
    free(refusal);
}

void store_refuse_change(struct store *store, store_done *done, void *data, const char *reason)
{
    struct refusal *refusal = NEW0(struct refusal);

    *refusal = (struct refusal){.done = done, .data = data, .reason = xstrdup(reason)};
    defer_call(store->defer, refuse_now, refusal);
}

void store_change_server(struct store *store, uint64_t id, const char *address, enum server_role role,
                         store_done *done, void *data)
{
    struct err err = {0};
    struct address parsed;

    if (store->change.active) {
        store_refuse_change(store, done, data, store_raft_text(RAFT_CANTCHANGE));
        return;
    }
    /* What is in the log stays there: nobody could dial it, and who loads it would choke on it. */
    if (role != SERVER_REMOVED && (id == 0 || strlen(address) > ADDRESS_MAX ||
                                   address_parse(address, &parsed, &err) < 0 || parsed.host[0] == '\0')) {
        store_refuse_change(store, done, data,
                            err.text[0] != '\0' ? err.text : "that is no server's id and address");
        return;
    }
    store->change = (struct server_change){
        .id = id, .address = xstrdup(address), .role = role, .done = done, .data = data, .active = true};
    defer_call(store->defer, change_step, store);
}

void store_retire(struct store *store)
{
    if (!store->raft_closed && raft_state(&store->raft) != RAFT_LEADER)
        guard_retire(&store->guard);
}

/* ---- handing over ---- */

static bool was_tried(const struct handover *handover, raft_id id)
{
    for (unsigned i = 0; i < handover->tries; i++)
        if (handover->tried[i] == id)
            return true;
    return false;
}

static bool may_inherit(const struct handover *handover, raft_id id)
{
    for (size_t i = 0; i < handover->heir_count; i++)
        if (handover->heirs[i] == id)
            return true;
    return handover->heir_count == 0;
}

/* The voter that was heard last; libraft itself would take a dead one if its log is complete. 0: none. */
static raft_id choose_heir(const struct store *store)
{
    uint64_t now = uv_now(store->loop), latest = 0;
    raft_id heir = 0;

    for (unsigned i = 0; i < store->raft.configuration.n; i++) {
        const struct raft_server *server = &store->raft.configuration.servers[i];
        uint64_t heard = raftnet_last_heard_ms(store->net, server->id);

        if (server->id == store->server_id || server->role != RAFT_VOTER ||
            !may_inherit(&store->handover, server->id) || was_tried(&store->handover, server->id) ||
            heard + store->election_ms < now || heard <= latest)
            continue;
        latest = heard;
        heir = server->id;
    }
    return heir;
}

static void on_transferred(struct raft_transfer *transfer)
{
    struct store *store = transfer->data;

    store->handover.in_flight = false;
    defer_call(store->defer, store_handover_step, store);
}

/* libraft takes what it has sent for what the other one has, and so offers leadership to one that is still
 * writing, which must not take it (canonical/raft 64b0b8b). Nothing new is written meanwhile, so it is a
 * matter of moments. */
static bool handover_must_wait(struct store *store, raft_id heir)
{
    struct handover *handover = &store->handover;
    uint64_t now = uv_now(store->loop);

    if (raft_compat_match_index(&store->raft, heir) >= raft_last_index(&store->raft))
        return false;
    if (handover->wait_from_ms == 0)
        handover->wait_from_ms = now;
    return now - handover->wait_from_ms < store->election_ms;
}

static bool handover_submit(struct store *store)
{
    struct handover *handover = &store->handover;

    while (handover->tries < HANDOVER_TRIES_MAX) {
        raft_id heir = choose_heir(store);

        if (heir == 0)
            return false;
        handover->waits = handover_must_wait(store, heir);
        if (handover->waits)
            return true;
        handover->wait_from_ms = 0;
        handover->tried[handover->tries++] = heir;
        handover->request.data = store;
        handover->in_flight = true;
        if (raft_transfer(&store->raft, &handover->request, heir, on_transferred) == 0)
            return true;
        handover->in_flight = false;
    }
    return false;
}

/* What is under way is waited for: then its outcome is known. Without a majority that ends when libraft steps
 * down, after one election timeout. */
void store_handover_step(void *data)
{
    struct store *store = data;
    struct handover *handover = &store->handover;

    handover->waits = false;
    if (!handover->wanted || (handover->in_flight && !handover_is_moot(store)))
        return;
    if (raft_state(&store->raft) == RAFT_LEADER) {
        if (!store_is_idle(store))
            return;
        if (handover_submit(store))
            return;
        if (!store->closing)
            log_warn("Nobody has taken leadership over (%u offers): this host goes on leading",
                     handover->tries);
    }
    handover->wanted = false;
    handover->wait_from_ms = 0;
    handover->tries = 0;
    handover->heir_count = 0;
    if (store->closing)
        store_close_raft(store);
}

void store_hand_over(struct store *store, const uint64_t *heirs, size_t count)
{
    assert(count > 0 && count <= RAFT_SERVERS_MAX);
    if (store->handover.wanted || store->closing)
        return;
    for (size_t i = 0; i < count; i++)
        store->handover.heirs[i] = heirs[i];
    store->handover.heir_count = count;
    store->handover.wanted = true;
    defer_call(store->defer, store_handover_step, store);
    store_refuse_queued(store);
}

void store_handover_begin(struct store *store)
{
    store->handover.heir_count = 0;
    if (!store->handover.wanted) {
        store->handover.wanted = true;
        defer_call(store->defer, store_handover_step, store);
    }
    store_refuse_queued(store);
}
