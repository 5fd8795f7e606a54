/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of raftstore/store.h: the guarantees of Raft, as hostile as they allow, over real registries.
 *
 * There is one committed log. A leader of the newest term that reaches a majority of the voters appends to
 * it; what it had not yet committed when its leadership ends is UNKNOWN to whoever asked, and may be
 * committed after all by the next leader, from the front. An old leader goes on believing in itself until it
 * hears of a newer term, or has not reached a majority for ELECTION_MS. Only who has all committed entries on
 * its disk is elected. A follower hears of commits late, by replay or by snapshot; a restart begins with the
 * snapshot on its disk. Changes of the configuration count when they are committed.
 *
 * With 'sim.sparing' ticks and heartbeats that change nothing make no events, and no turn of fleetd's loop,
 * which has nothing of them; what can go wrong with them (frozen hosts, cut links, followers that lag) is as
 * without. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "tests/sim/sim.h"

#define ELECTION_MS    1000u
#define TICK_MS        200u
#define IDLE_TICK_MS   1000u /* Of who has no part in it. */
#define CATCH_UP_MS    5000u
#define VOTER_HEARD_MS 5000u
#define INSTALL_AFTER  8u /* Entries behind; then perhaps by snapshot. */

enum entry_kind { ENTRY_COMMAND, ENTRY_BARRIER, ENTRY_SERVER };

struct entry {
    enum entry_kind kind;
    uint64_t term;
    uint8_t *bytes;
    size_t size;
    struct seat *seat; /* ENTRY_SERVER: copied when it is committed. */
};

struct seat {
    uint64_t server_id;
    struct sim_host *host; /* At its address. */
    char address[ADDRESS_MAX + 1];
    enum server_role role;
    uint64_t heard_ms; /* By whoever leads. */
};

/* What a leader has not committed yet. */
struct proposal {
    struct entry entry;
    uint64_t ready_ms; /* On a majority's disks, if it is reached. */
    store_done *done;  /* NULL: nobody waits for it. */
    void *data;
    struct proposal *prev, *next;
};

/* How a proposal ended, on its way to who asked. */
struct outcome {
    enum store_outcome outcome;
    struct registry_result result;
    const char *reason;
    store_done *done;
    void *data;
};

struct disk {
    uint64_t persisted; /* Entries. */
    uint64_t snapshot_index;
    uint8_t *snapshot;
    size_t snapshot_size;
};

struct store {
    struct sim_host *host;
    uint64_t life;
    struct store_callbacks callbacks;
    void *data;
    uint64_t server_id;
    struct registry *registry;
    uint64_t applied, snapshot_every;

    enum store_role role;
    uint64_t term, leader_id;
    char leader_address[ADDRESS_MAX + 1];
    uint64_t heard_ms, timeout_ms;

    bool leads;            /* Past its barrier. */
    uint64_t quorum_ms;    /* When a leader last reached a majority. */
    struct proposal *tail; /* In order. */
    struct proposal *barriers;

    uint64_t heirs[RAFT_SERVERS_MAX]; /* Of the last store_hand_over(). */
    size_t heir_count;

    bool closing, finished;
    void (*closed)(void *data);
    void *closed_data;
};

static struct entry *entries;
static size_t entry_count, entry_capacity;
static struct seat seats[SIM_HOSTS_MAX + 1];
static size_t seat_count;
static uint64_t newest_term;
static struct store *newest;  /* The leader of that term; NULL: it is one no more. */
static uint64_t barrier_term; /* The newest whose barrier is committed: what is older is void. */
static struct proposal *orphans;
static bool orphans_at[SIM_HOSTS_MAX]; /* Who may have them. */

/* ---- beginning and end ---- */

static void free_proposals(struct proposal **list)
{
    struct proposal *proposal, *next;

    DL_FOREACH_SAFE (*list, proposal, next) {
        free(proposal->entry.bytes);
        free(proposal->entry.seat);
        free(proposal);
    }
    *list = NULL;
}

void sim_consensus_begin(void)
{
    entries = NULL;
    entry_count = entry_capacity = seat_count = 0;
    orphans = NULL;
    newest_term = barrier_term = 0;
    newest = NULL;
    for (unsigned i = 0; i < sim.host_count; i++)
        sim.hosts[i].disk = NEW0(struct disk);
}

void sim_consensus_end(void)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        free(sim.hosts[i].disk->snapshot);
        free(sim.hosts[i].disk);
    }
    for (size_t i = 0; i < entry_count; i++)
        free(entries[i].bytes);
    free(entries);
    entries = NULL;
    entry_count = entry_capacity = 0;
    free_proposals(&orphans);
}

/* ---- servers ---- */

static struct sim_host *host_of(const struct seat *seat)
{
    return seat->host;
}

static struct seat *find_seat(uint64_t server_id)
{
    for (size_t i = 0; i < seat_count; i++)
        if (seats[i].server_id == server_id)
            return &seats[i];
    return NULL;
}

static void set_seat(const struct seat *seat)
{
    struct seat *old = find_seat(seat->server_id);

    if (seat->role == SERVER_REMOVED) {
        if (old != NULL)
            memmove(old, old + 1, (size_t)(seats + --seat_count - old) * sizeof *old);
    } else if (old != NULL) {
        *old = *seat;
    } else {
        assert(seat_count < SIM_HOSTS_MAX);
        seats[seat_count++] = *seat;
    }
}

static size_t voter_count(void)
{
    size_t count = 0;

    for (size_t i = 0; i < seat_count; i++)
        count += seats[i].role == SERVER_VOTER;
    return count;
}

static bool is_open(const struct sim_host *host, uint64_t server_id)
{
    return host->store != NULL && host->store->server_id == server_id && !host->store->finished;
}

void sim_consensus_forget(struct sim_host *host)
{
    free(host->disk->snapshot);
    *host->disk = (struct disk){0};
}

/* A copied log is not what a majority relies on (docs/RAFT.md: never use one). */
void sim_consensus_copy(struct sim_host *host, const struct sim_host *original)
{
    struct disk *from = original->disk, *to = host->disk;

    free(to->snapshot);
    *to = *from;
    to->snapshot = from->snapshot != NULL ? xmemdup(from->snapshot, from->snapshot_size) : NULL;
}

/* Whether the server at that seat takes part, from where 'from' is. */
static bool takes_part(const struct sim_host *from, const struct seat *seat)
{
    const struct sim_host *host = host_of(seat);

    if (!is_open(host, seat->server_id) || host->disk_full || host->is_copy)
        return false;
    return host == from ? sim_fleetd_acts(host) : sim_reach(from, host);
}

/* ---- applying ---- */

static void save_snapshot(struct store *store)
{
    struct disk *disk = store->host->disk;
    struct registry_snapshot *snapshot = registry_snapshot_new(store->registry);
    size_t size = 0;

    for (size_t i = 0; i < snapshot->count; i++)
        size += snapshot->pieces[i].size;
    free(disk->snapshot);
    disk->snapshot = xmalloc(size + 1);
    disk->snapshot_size = size;
    size = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        memcpy(disk->snapshot + size, snapshot->pieces[i].base, snapshot->pieces[i].size);
        size += snapshot->pieces[i].size;
    }
    disk->snapshot_index = store->applied;
    registry_snapshot_free(store->registry, snapshot);
}

static const struct registry_result *apply_next(struct store *store)
{
    const struct entry *entry = &entries[store->applied++];
    const struct registry_result *result = NULL;

    sim.unseen = false;
    if (entry->kind == ENTRY_COMMAND) {
        result = registry_apply(store->registry, entry->bytes, entry->size);
        sim_law_applied(store->host, store->registry);
        store->callbacks.on_change(store->data);
    }
    return result;
}

static void apply_until(struct store *store, uint64_t index)
{
    struct disk *disk = store->host->disk;

    while (store->applied < index)
        apply_next(store);
    if (store->applied - disk->snapshot_index >= store->snapshot_every && !store->host->disk_full &&
        !store->host->muted)
        save_snapshot(store);
}

static void restore(struct store *store)
{
    struct disk *disk = store->host->disk;
    struct err err = {0};

    if (disk->snapshot == NULL)
        return;
    sim.unseen = false;
    if (registry_restore(store->registry, disk->snapshot, disk->snapshot_size, &err) < 0)
        sim_fail("the registry's own snapshot cannot be restored: %s", err.text);
    store->applied = disk->snapshot_index;
    sim_law_applied(store->host, store->registry);
    store->callbacks.on_change(store->data);
}

/* By what the leader sends instead of a log that it has not any more. */
static void install(struct store *store, struct store *leader)
{
    struct disk *from = leader->host->disk, *to = store->host->disk;

    save_snapshot(leader);
    free(to->snapshot);
    to->snapshot = xmemdup(from->snapshot, from->snapshot_size);
    to->snapshot_size = from->snapshot_size;
    to->snapshot_index = from->snapshot_index;
    sim_note(store->host, "installs the leader's snapshot of entry %llu",
             (unsigned long long)to->snapshot_index);
    restore(store);
}

/* ---- outcomes ---- */

static void tell_outcome(void *data)
{
    struct outcome *outcome = data;

    outcome->done(outcome->outcome, outcome->outcome == STORE_APPLIED ? &outcome->result : NULL,
                  outcome->reason, outcome->data);
    free(outcome->result.text);
    free(outcome);
}

static void finish(struct store *store, store_done *done, void *data, enum store_outcome outcome,
                   const struct registry_result *result, const char *reason)
{
    struct outcome *ended;

    if (done == NULL)
        return;
    sim.unseen = false;
    ended = NEW0(struct outcome);
    *ended = (struct outcome){.outcome = outcome, .reason = reason, .done = done, .data = data};
    if (result != NULL)
        ended->result = *result;
    ended->result.text = xstrdup(result != NULL ? result->text : "");
    sim_defer(store->host, tell_outcome, ended);
}

static void answer_barriers(struct store *store, enum store_outcome outcome, const char *reason)
{
    struct proposal *wait, *next;

    DL_FOREACH_SAFE (store->barriers, wait, next) {
        finish(store, wait->done, wait->data, outcome, NULL, reason);
        DL_DELETE(store->barriers, wait);
        free(wait);
    }
}

/* ---- leadership ---- */

static void set_role(struct store *store, enum store_role role, uint64_t term, const struct seat *leader)
{
    uint64_t leader_id = leader != NULL ? leader->server_id : 0;

    if (store->role == role && store->term == term && store->leader_id == leader_id)
        return;
    sim.unseen = false;
    store->role = role;
    store->term = term;
    store->leader_id = leader_id;
    snprintf(store->leader_address, sizeof store->leader_address, "%s",
             leader != NULL ? leader->address : "");
    store->callbacks.on_role(store->data);
}

static void step_down(struct store *store, uint64_t term, const struct seat *leader)
{
    struct proposal *proposal, *next;

    sim.unseen = false;
    sim_note(store->host, "raft: leads no more (term %llu)", (unsigned long long)store->term);
    if (newest == store)
        newest = NULL;
    if (store->tail != NULL && store->term > barrier_term)
        free_proposals(&orphans);
    DL_FOREACH_SAFE (store->tail, proposal, next) {
        DL_DELETE(store->tail, proposal);
        finish(store, proposal->done, proposal->data, STORE_UNKNOWN, NULL, "leadership was lost");
        proposal->done = NULL;
        if (proposal->entry.kind == ENTRY_COMMAND && store->term > barrier_term) {
            DL_APPEND(orphans, proposal);
        } else {
            free(proposal->entry.bytes);
            free(proposal->entry.seat);
            free(proposal);
        }
    }
    for (unsigned i = 0; i < sim.host_count; i++)
        orphans_at[i] = &sim.hosts[i] == store->host || sim_random(2) == 0;
    answer_barriers(store, STORE_REFUSED, "this host does not lead (any more)");
    if (store->leads) {
        store->leads = false;
        store->callbacks.on_yield(store->data);
    }
    store->heard_ms = sim.now_ms;
    set_role(store, leader != NULL ? STORE_FOLLOWER : STORE_IDLE, term, leader);
}

static void propose(struct store *store, struct entry entry, store_done *done, void *data);
static void on_tick(void *data, bool lost);

static void commit(struct store *store, struct proposal *proposal)
{
    const struct registry_result *result;

    sim.unseen = false;
    GROW(entries, entry_capacity, entry_count + 1);
    entries[entry_count++] = proposal->entry;
    if (proposal->entry.kind == ENTRY_COMMAND)
        sim_law_committed(proposal->entry.bytes, proposal->entry.size, store->term);
    for (size_t i = 0; i < seat_count; i++)
        if (takes_part(store->host, &seats[i]))
            host_of(&seats[i])->disk->persisted = entry_count;
    result = apply_next(store);
    if (proposal->entry.kind == ENTRY_SERVER) {
        set_seat(proposal->entry.seat);
        free(proposal->entry.seat);
        entries[entry_count - 1].seat = NULL;
    }
    finish(store, proposal->done, proposal->data, STORE_APPLIED, result, "");
    if (proposal->entry.kind == ENTRY_BARRIER) {
        free_proposals(&orphans); /* What the old term left can come back no more. */
        barrier_term = store->term;
        store->leads = true;
        store->host->leads_since_ms = sim.now_ms;
        store->callbacks.on_lead(store->term, store->data);
    }
    free(proposal);
}

static bool has_quorum(const struct store *store)
{
    size_t count = 0;

    for (size_t i = 0; i < seat_count; i++)
        count += seats[i].role == SERVER_VOTER && takes_part(store->host, &seats[i]);
    return 2 * count > voter_count();
}

static void finish_closing(struct store *store);

static void commit_ready(struct store *store)
{
    uint64_t life = store->life;

    if (newest != store || store->term != newest_term || !has_quorum(store))
        return;
    store->quorum_ms = sim.now_ms;
    while (store->tail != NULL && store->tail->ready_ms <= sim.now_ms && newest == store) {
        struct proposal *proposal = store->tail;

        DL_DELETE(store->tail, proposal);
        commit(store, proposal);
    }
    if (store->life != life || newest != store)
        return;
    answer_barriers(store, STORE_APPLIED, "");
    apply_until(store, store->applied); /* Perhaps it is time for a snapshot. */
    if (store->closing && store->tail == NULL)
        finish_closing(store);
}

static void on_ready(void *data, bool lost)
{
    struct sim_host *host = data;

    if (!lost && host->store != NULL && host->store->role == STORE_LEADER)
        commit_ready(host->store);
}

static void propose(struct store *store, struct entry entry, store_done *done, void *data)
{
    struct proposal *proposal = NEW0(struct proposal);
    uint64_t ms = 2 + sim_random(10) + store->host->disk_slow_ms;

    *proposal = (struct proposal){.entry = entry, .ready_ms = sim.now_ms + ms, .done = done, .data = data};
    if (store->tail != NULL && store->tail->prev->ready_ms > proposal->ready_ms)
        proposal->ready_ms = store->tail->prev->ready_ms;
    DL_APPEND(store->tail, proposal);
    sim_after(proposal->ready_ms - sim.now_ms, SIM_FLEETD, store->host, on_ready, store->host);
}

/* From the front, as many as chance wants of what the last leader had not committed. */
static void adopt_orphans(struct store *store)
{
    struct proposal *orphan, *next;

    if (!orphans_at[store->host->index])
        return;
    DL_FOREACH_SAFE (orphans, orphan, next) {
        if (sim_random(4) == 0)
            break;
        DL_DELETE(orphans, orphan);
        propose(store, orphan->entry, NULL, NULL);
        free(orphan);
    }
}

/* The same of a leader who does not know yet that its time is over. */
static void adopt_tail(struct store *store)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        const struct store *old = sim.hosts[i].store;
        const struct proposal *proposal;

        if (old == NULL || old == store || old->role != STORE_LEADER || old->term <= barrier_term ||
            sim_random(2) == 0)
            continue;
        DL_FOREACH (old->tail, proposal) {
            struct entry entry = proposal->entry;

            if (entry.kind == ENTRY_SERVER || sim_random(4) == 0)
                break;
            if (entry.kind == ENTRY_BARRIER)
                continue;
            entry.bytes = xmemdup(entry.bytes, entry.size);
            propose(store, entry, NULL, NULL);
        }
        return;
    }
}

static void lead(struct store *store)
{
    const struct seat *self = find_seat(store->server_id);

    newest_term++;
    newest = store;
    sim_note(store->host, "raft: elected (term %llu)", (unsigned long long)newest_term);
    store->quorum_ms = sim.now_ms;
    apply_until(store, entry_count);
    set_role(store, STORE_LEADER, newest_term, self);
    adopt_orphans(store);
    adopt_tail(store);
    propose(store, (struct entry){.kind = ENTRY_BARRIER, .term = newest_term}, NULL, NULL);
}

/* ---- heartbeats ---- */

struct beat {
    struct store *leader;
    uint64_t leader_life, term, index;
    struct seat from;
    struct sim_host *to;
};

static void on_beat(void *data, bool lost)
{
    struct beat *beat = data;
    struct store *store = beat->to->store;
    const struct sim_host *from = host_of(&beat->from);
    bool leader_lives = from->lives == beat->leader_life && from->store == beat->leader;

    if (!lost && store != NULL && !store->finished && beat->term >= store->term &&
        (store->role != STORE_LEADER || beat->term > store->term)) {
        if (store->role == STORE_LEADER)
            step_down(store, beat->term, &beat->from);
        store->heard_ms = sim.now_ms;
        if (leader_lives && beat->leader->applied > store->applied + INSTALL_AFTER && sim_random(3) == 0)
            install(store, beat->leader);
        apply_until(store, beat->index);
        set_role(store, STORE_FOLLOWER, beat->term, &beat->from);
    }
    free(beat);
}

/* It would change nothing there but when the leader was heard last. */
static bool says_nothing(const struct store *leader, const struct sim_host *to, uint64_t index)
{
    const struct store *store = to->store;

    return sim_fleetd_acts(to) && store->role == STORE_FOLLOWER && store->term == leader->term &&
           store->leader_id == leader->server_id && store->applied == index &&
           store->applied - to->disk->snapshot_index < store->snapshot_every;
}

static void send_beats(struct store *store)
{
    const struct seat *self = find_seat(store->server_id);

    for (size_t i = 0; self != NULL && i < seat_count; i++) {
        struct sim_host *host = host_of(&seats[i]);
        struct beat *beat;
        uint64_t index;

        if (&seats[i] == self || !is_open(host, seats[i].server_id) ||
            !sim_link_up(store->host->index, host->index))
            continue;
        if (newest == store && takes_part(store->host, &seats[i]))
            host->disk->persisted = entry_count;
        index = host->disk->persisted < store->applied ? host->disk->persisted : store->applied;
        if (sim.sparing && says_nothing(store, host, index)) {
            host->store->heard_ms = sim.now_ms;
            continue;
        }
        beat = NEW0(struct beat);
        *beat = (struct beat){.leader = store,
                              .leader_life = store->life,
                              .term = store->term,
                              .index = index,
                              .from = *self,
                              .to = host};
        sim_after(1 + sim_random(4), SIM_FLEETD, host, on_beat, beat);
    }
}

/* Whether somebody within reach knows of a newer term. */
static uint64_t newer_term(const struct store *store)
{
    for (size_t i = 0; i < seat_count; i++) {
        const struct sim_host *host = host_of(&seats[i]);

        if (takes_part(store->host, &seats[i]) && host->store->term > store->term)
            return host->store->term;
    }
    return 0;
}

static void lead_on(struct store *store)
{
    uint64_t newer = newer_term(store);

    if (newer > 0) {
        step_down(store, newer, NULL);
        return;
    }
    commit_ready(store);
    if (store->finished || store->role != STORE_LEADER)
        return;
    if (sim.now_ms - store->quorum_ms > ELECTION_MS)
        step_down(store, store->term, NULL);
    else
        send_beats(store);
}

/* ---- elections ---- */

static void draw_timeout(struct store *store)
{
    store->timeout_ms = ELECTION_MS + sim_random(ELECTION_MS);
}

/* With pre-vote: nobody votes who hears a leader, or knows more than the candidate. */
static bool votes_for(const struct seat *seat, const struct store *candidate)
{
    const struct sim_host *host = host_of(seat);

    if (seat->role != SERVER_VOTER || !takes_part(candidate->host, seat))
        return false;
    if (host->store == candidate)
        return true;
    return host->store->role != STORE_LEADER && sim.now_ms - host->store->heard_ms > ELECTION_MS &&
           host->disk->persisted <= candidate->host->disk->persisted;
}

static void campaign(struct store *store)
{
    size_t votes = 0;

    draw_timeout(store);
    store->heard_ms = sim.now_ms - ELECTION_MS - 1;
    for (size_t i = 0; i < seat_count; i++)
        votes += votes_for(&seats[i], store);
    if (2 * votes <= voter_count()) {
        set_role(store, STORE_CANDIDATE, store->term, NULL);
        return;
    }
    if (store->host->disk->persisted != entry_count)
        sim_fail("the model of Raft elects one that has not all");
    lead(store);
}

static void follow_on(struct store *store)
{
    const struct seat *self = find_seat(store->server_id);
    uint64_t silent_ms = sim.now_ms - store->heard_ms;

    if (self != NULL && self->role == SERVER_VOTER && !store->closing && !store->host->is_copy &&
        !store->host->disk_full && silent_ms > store->timeout_ms)
        campaign(store);
    else if (silent_ms > 2 * ELECTION_MS && store->role == STORE_FOLLOWER)
        set_role(store, STORE_IDLE, store->term, NULL);
}

/* When a store that hears its leader has something to do, if it should hear it no more. */
static uint64_t patience_ms(const struct store *store)
{
    uint64_t silent_ms = sim.now_ms - store->heard_ms;

    return store->role == STORE_FOLLOWER && silent_ms < store->timeout_ms ? store->timeout_ms - silent_ms : 0;
}

static void on_tick(void *data, bool lost)
{
    struct store *store = data;
    uint64_t ms;

    if (lost || store->finished)
        return;
    sim.unseen = sim.sparing;
    if (store->role == STORE_LEADER)
        lead_on(store);
    else
        follow_on(store);
    ms = find_seat(store->server_id) != NULL ? TICK_MS : IDLE_TICK_MS;
    if (!store->finished)
        sim_after((sim.sparing ? patience_ms(store) : 0) + ms / 2 + sim_random(ms), SIM_FLEETD, store->host,
                  on_tick, store);
}

/* ---- the interface ---- */

int store_open(uv_loop_t *loop, struct port *port, const struct store_config *config,
               const struct store_callbacks *callbacks, void *data, struct store **ret, struct err *err)
{
    struct store *store = NEW0(struct store);

    *store = (struct store){.host = loop->data,
                            .callbacks = *callbacks,
                            .data = data,
                            .server_id = config->server_id,
                            .registry = registry_new(),
                            .snapshot_every = 10 + sim_random(40),
                            .heard_ms = sim.now_ms};
    store->life = store->host->lives;
    store->host->store = store;
    draw_timeout(store);
    if (config->bootstrap && seat_count == 0 && entry_count == 0) {
        struct seat seat = {.server_id = config->server_id,
                            .host = sim_host_by_address(config->address),
                            .role = SERVER_VOTER};

        snprintf(seat.address, sizeof seat.address, "%s", config->address);
        set_seat(&seat);
        store->timeout_ms = 0; /* Alone: at once. */
        store->heard_ms = sim.now_ms - 2 * ELECTION_MS;
    }
    sim_after(1, SIM_FLEETD, store->host, on_tick, store);
    *ret = store;
    restore(store);
    return 0;
}

const struct registry *store_registry(const struct store *store)
{
    return store->registry;
}

void store_changes_take(struct store *store, struct registry_changes *ret)
{
    registry_changes_take(store->registry, ret);
}

void store_propose(struct store *store, const Fleet__Command *command, store_done *done, void *data)
{
    Fleet__Command stamped = *command;
    struct entry entry = {.kind = ENTRY_COMMAND, .term = store->term};
    const char *why = NULL;

    stamped.format = COMMAND_FORMAT;
    stamped.wall_ms = sim.now_ms + (uint64_t)store->host->wall_offset_ms;
    if (store->closing)
        why = "fleetd is stopping";
    else if (store->host->disk_full)
        why = "the disk is full";
    else if (!store->leads || (command->if_term != 0 && command->if_term != store->term))
        why = "this host does not lead (any more)";
    else if (sim_dies_here())
        why = "dead";
    else if (command_encode(&stamped, &entry.bytes, &entry.size) < 0)
        why = "the request is larger than one command may be (1 MiB)";
    if (why != NULL) {
        finish(store, done, data, STORE_REFUSED, NULL, why);
        return;
    }
    sim.doings += sim.calm;
    propose(store, entry, done, data);
}

void store_barrier(struct store *store, store_done *done, void *data)
{
    struct proposal *wait = NEW0(struct proposal);

    wait->done = done;
    wait->data = data;
    DL_APPEND(store->barriers, wait);
    if (store->role == STORE_LEADER)
        sim_after(1 + sim_random(5), SIM_FLEETD, store->host, on_ready, store->host);
    else
        answer_barriers(store, STORE_REFUSED, "this host does not lead (any more)");
}

enum store_role store_role(const struct store *store)
{
    return store->role;
}

bool store_leads(const struct store *store)
{
    return store->leads;
}

uint64_t store_term(const struct store *store)
{
    return store->term;
}

uint64_t store_leader_id(const struct store *store)
{
    return store->leader_id;
}

const char *store_leader_address(const struct store *store)
{
    return store->leader_address;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    size_t count = seat_count < max ? seat_count : max;

    for (size_t i = 0; i < count; i++) {
        bool here = store->leads && takes_part(store->host, &seats[i]);

        if (here)
            seats[i].heard_ms = sim.now_ms;
        servers[i] = (struct store_server){.id = seats[i].server_id,
                                           .address = seats[i].address,
                                           .role = seats[i].role,
                                           .caught_up = here,
                                           .silent_ms = sim.now_ms - seats[i].heard_ms};
    }
    return count;
}

void store_stats(const struct store *store, struct store_stats *ret)
{
    *ret = (struct store_stats){0};
}

/* Consensus does not use the pretended connections. */
const struct conn_callbacks *store_accept(struct store *store, const Fleet__Hello *hello, void **ret_data)
{
    return NULL;
}

struct refusal {
    struct sim_host *host;
    store_done *done;
    void *data;
};

static void on_not_caught_up(void *data, bool lost)
{
    struct refusal *refusal = data;

    if (!lost)
        refusal->done(STORE_REFUSED, NULL, "the server does not catch up, or cannot be reached",
                      refusal->data);
    free(refusal);
}

/* Law 10, when a vote is to be taken away. How long fleetd may believe in somebody who is not heard is a
 * matter of its own (leading_voters.c). */
static void check_votes_left(const struct store *store, uint64_t id)
{
    const struct seat *loses = find_seat(id);
    size_t left = 0, heard = 0;

    if (loses == NULL || loses->role != SERVER_VOTER)
        return;
    for (size_t i = 0; i < seat_count; i++) {
        if (seats[i].role != SERVER_VOTER || &seats[i] == loses)
            continue;
        left++;
        heard += sim.now_ms - seats[i].heard_ms <= VOTER_HEARD_MS || takes_part(store->host, &seats[i]);
    }
    if (left == 0)
        sim_fail("law 10: the last voter loses its vote");
    if (takes_part(store->host, loses) && 2 * heard <= left)
        sim_fail("law 10: %s loses its vote, and of the %zu that are left only %zu answer", loses->host->name,
                 left, heard);
}

void store_change_server(struct store *store, uint64_t id, const char *address, enum server_role role,
                         store_done *done, void *data)
{
    struct entry entry = {.kind = ENTRY_SERVER, .term = store->term};
    struct seat seat = {.server_id = id, .host = sim_host_by_address(address), .role = role};

    snprintf(seat.address, sizeof seat.address, "%s", address);
    sim.doings += sim.calm;
    if (!store->leads || store->closing) {
        finish(store, done, data, STORE_REFUSED, NULL, "this host does not lead (any more)");
    } else if (role == SERVER_VOTER && !takes_part(store->host, &seat)) {
        struct refusal *refusal = NEW0(struct refusal);

        *refusal = (struct refusal){store->host, done, data};
        sim_after(CATCH_UP_MS, SIM_FLEETD, store->host, on_not_caught_up, refusal);
    } else {
        sim_note(store->host, "raft: %s becomes %d", address, (int)role);
        if (role != SERVER_VOTER)
            check_votes_left(store, id);
        entry.seat = xmemdup(&seat, sizeof seat);
        propose(store, entry, done, data);
    }
}

/* No host gets another address there. */
const char *store_own_place(const struct store *store)
{
    const struct seat *self = find_seat(store->server_id);

    return self != NULL ? self->address : "";
}

const char *store_moved_to(const struct store *store, uint64_t server_id, const char *address)
{
    return NULL;
}

void store_move_self(struct store *store, store_done *done, void *data)
{
    finish(store, done, data, STORE_REFUSED, NULL, "no host moves");
}

/* ---- closing ---- */

static void on_closed(void *data)
{
    struct store *store = data;
    void (*closed)(void *) = store->closed;
    void *closed_data = store->closed_data;

    store->host->store = NULL;
    registry_free(store->registry);
    free(store);
    closed(closed_data);
}

static void on_hand_over(void *data, bool lost)
{
    struct sim_host *host = data;

    if (!lost && host->store != NULL && newest == NULL && host->store->role != STORE_LEADER)
        campaign(host->store);
}

/* As store_members.c does: whoever asks may name those that may take it. */
static bool may_inherit(const struct store *store, uint64_t server_id)
{
    for (size_t i = 0; i < store->heir_count; i++)
        if (store->heirs[i] == server_id)
            return true;
    return store->heir_count == 0;
}

/* NULL: nobody can take it. */
static struct sim_host *find_heir(const struct store *store)
{
    for (size_t i = 0; i < seat_count; i++)
        if (seats[i].role == SERVER_VOTER && host_of(&seats[i]) != store->host &&
            may_inherit(store, seats[i].server_id) && takes_part(store->host, &seats[i]))
            return host_of(&seats[i]);
    return NULL;
}

/* TimeoutNow: nobody holds on to the old leader. */
static void hand_over(struct sim_host *heir)
{
    for (size_t i = 0; i < seat_count; i++)
        if (host_of(&seats[i])->store != NULL)
            host_of(&seats[i])->store->heard_ms = sim.now_ms - ELECTION_MS - 1;
    sim_after(2, SIM_FLEETD, heir, on_hand_over, heir);
}

/* Who has no room stands by. */
int store_check_room(const char *directory, struct err *err)
{
    if (!sim.current->disk_full || sim_random(2) == 0)
        return 0;
    return err_set(err, -ENOSPC, "there is no room");
}

/* Whoever has no seat asks nobody for votes here anyway. */
void store_retire(struct store *store)
{
}

/* Nobody recovers a cluster there. */
bool store_has_log(const struct store *store)
{
    return false;
}

bool store_directory_has_log(const char *directory)
{
    return false;
}

static void give_leadership(void *data)
{
    struct sim_host *host = data;
    struct store *store = host->store;
    struct sim_host *heir;

    if (store == NULL || store->role != STORE_LEADER || store->closing)
        return;
    heir = find_heir(store);
    if (heir == NULL)
        return; /* It goes on leading. */
    step_down(store, store->term, NULL);
    hand_over(heir);
}

/* Never before it returns: whoever asks has something to say first. */
void store_hand_over(struct store *store, const uint64_t *heirs, size_t count)
{
    memcpy(store->heirs, heirs, count * sizeof *heirs);
    store->heir_count = count;
    sim_defer(store->host, give_leadership, store->host);
}

static void finish_closing(struct store *store)
{
    if (store->finished)
        return;
    sim.unseen = false;
    store->finished = true;
    if (store->role == STORE_LEADER) {
        struct sim_host *heir;

        store->heir_count = 0; /* Anybody. */
        heir = store->host->muted ? NULL : find_heir(store);
        step_down(store, store->term, NULL);
        if (heir != NULL)
            hand_over(heir);
    }
    answer_barriers(store, STORE_REFUSED, "fleetd is stopping");
    sim_defer(store->host, on_closed, store);
}

void store_close(struct store *store, void (*done)(void *data), void *data)
{
    store->closing = true;
    store->closed = done;
    store->closed_data = data;
    if (store->role != STORE_LEADER || store->tail == NULL || store->host->muted)
        finish_closing(store);
}

void sim_consensus_died(struct sim_host *host)
{
    if (host->store != NULL && host->store->closing)
        finish_closing(host->store);
}

/* ---- questions ---- */

struct sim_host *sim_leader(void)
{
    return newest != NULL && newest->leads ? newest->host : NULL;
}

uint64_t sim_leader_term(void)
{
    return newest_term;
}

bool sim_has_seat(const struct sim_host *host)
{
    for (size_t i = 0; i < seat_count; i++)
        if (host_of(&seats[i]) == host)
            return true;
    return false;
}

bool sim_votes(const struct sim_host *host)
{
    for (size_t i = 0; i < seat_count; i++)
        if (host_of(&seats[i]) == host && seats[i].role == SERVER_VOTER)
            return true;
    return false;
}

size_t sim_voters(void)
{
    return voter_count();
}

bool sim_is_leading(const struct sim_host *host)
{
    return host->store != NULL && host->store->leads;
}
