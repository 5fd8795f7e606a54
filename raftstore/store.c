/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/store.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <raft.h>
#include <raft/uv.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/times.h"
#include "raftstore/defer.h"
#include "raftstore/disk_watch.h"
#include "raftstore/guard.h"
#include "raftstore/limits.h"
#include "raftstore/raftnet.h"
#include "raftstore/sidefile.h"
#include "raftstore/store_text.h"

/* A planned failover costs 1.4 to 2 times this (libraft-notes §1.2); with 700 ms a new leader is there in
 * well under two seconds, and the loop's longest known stall (closing a log segment, 50 ms) is far from it.
 */
#define ELECTION_MS_DEFAULT     700u
#define HEARTBEATS_PER_ELECTION 5u

/* Snapshots are by size: when the log since the last one is worth it, whatever the number of entries
 * (libraft-notes §2.6). The trailing entries spare a host that was away for a reboot the whole snapshot. */
#define SNAPSHOT_THRESHOLD      4096u
#define SNAPSHOT_TRAILING       8192u
#define SNAPSHOT_LOG_BYTES_MAX  (16u * 1024 * 1024)
#define SNAPSHOT_TRAILING_SHORT 256u

#define CATCH_UP_ROUND_MS 60000u
#define TRANSFER_TRIES    3
#define CLOSE_MS          10000u
#define DISK_TURN_MS      1000u
#define DISK_IDLE_TURNS   10u

static_assert((int)SERVER_STANDBY == RAFT_STANDBY && (int)SERVER_VOTER == RAFT_VOTER &&
                  (int)SERVER_SPARE == RAFT_SPARE,
              "roles are libraft's");

struct proposal {
    struct store *store;
    struct raft_apply apply;
    uint8_t request_id[REQUEST_ID_SIZE];
    bool has_request_id;
    uint8_t *bytes; /* Until it is handed to raft. */
    size_t size;
    uint64_t term; /* In which it was proposed; it is void in any other. */
    store_done *done;
    void *data;
    /* How it ended. */
    enum store_outcome outcome;
    struct registry_result result;
    const char *reason;
    struct proposal *prev, *next;
};

struct barrier_wait {
    store_done *done;
    void *data;
    struct barrier_wait *prev, *next;
};

/* A change of the Raft configuration, in as many steps as it takes. */
struct server_change {
    struct raft_change request;
    uint64_t id;
    char *address;
    enum server_role role;
    store_done *done;
    void *data;
    bool active;
    int status;
};

struct store {
    uv_loop_t *loop;
    struct store_callbacks callbacks;
    void *data;
    struct raft raft;
    struct raft_io io; /* raft_uv: the disk. */
    struct raft_uv_transport transport;
    struct raft_fsm fsm;
    struct guard guard;
    struct raftnet *net;
    struct defer *defer;
    uv_check_t check;
    uv_timer_t timer; /* Side file while running, watchdog while closing. */
    struct registry *registry;
    struct registry_snapshot *snapshot; /* While raft writes it. */
    size_t log_bytes;                   /* Since the last snapshot. */

    struct proposal *queued; /* Not yet handed to raft: the window is full. */
    unsigned queued_count, in_flight;
    bool pumping;

    struct raft_barrier barrier;
    bool barrier_in_flight;
    struct barrier_wait *barrier_now, *barrier_next;
    int barrier_status;

    struct server_change change;
    struct raft_transfer transfer; /* libraft 0.15 may touch it after its callback (canonical/raft #396): it
                                      lives as long as we do. */
    int transfer_tries;
    bool transferring;

    /* As last told. */
    enum store_role role;
    uint64_t term, leader_id;
    char leader_address[ADDRESS_MAX + 1];
    bool leads;

    char *directory;
    struct sidefile side, side_next; /* As last written, and as it is being written. */
    enum disk_level disk_level;
    uint64_t disk_free;
    struct err disk_reason; /* Why writes are refused, unless the level is OK. */
    bool disk_busy;         /* 'disk_job' runs. */
    unsigned disk_turn;
    uv_work_t disk_job;
    int disk_status;
    char disk_error[ERR_TEXT_MAX];

    bool had_metadata, had_log; /* Before libraft started. */
    bool started, closing, raft_closed;
    unsigned handles;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- state machine ---- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct store *store = fsm->data;

    registry_apply(store->registry, buf->base, buf->len);
    *result = NULL;
    store->log_bytes += buf->len;
    if (store->log_bytes > SNAPSHOT_LOG_BYTES_MAX) {
        raft_set_snapshot_threshold(&store->raft, 1);
        raft_set_snapshot_trailing(&store->raft, SNAPSHOT_TRAILING_SHORT);
    }
    store->callbacks.on_change(store->data);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct store *store = fsm->data;

    if (store->snapshot != NULL)
        return RAFT_BUSY;
    store->snapshot = registry_snapshot_new(store->registry);
    *n_bufs = (unsigned)store->snapshot->count;
    *bufs = raft_malloc(*n_bufs * sizeof **bufs);
    if (*bufs == NULL)
        abort();
    for (unsigned i = 0; i < *n_bufs; i++) {
        (*bufs)[i].base = (void *)store->snapshot->pieces[i].base;
        (*bufs)[i].len = store->snapshot->pieces[i].size;
    }
    store->log_bytes = 0;
    raft_set_snapshot_threshold(&store->raft, SNAPSHOT_THRESHOLD);
    return 0;
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct store *store = fsm->data;

    raft_free(*bufs);
    *bufs = NULL;
    *n_bufs = 0;
    registry_snapshot_free(store->registry, store->snapshot);
    store->snapshot = NULL;
    raft_set_snapshot_trailing(&store->raft, SNAPSHOT_TRAILING);
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct store *store = fsm->data;
    struct err err = {0};
    int r = registry_restore(store->registry, buf->base, buf->len, &err);

    if (r < 0) {
        log_error("Cannot restore the snapshot: %s", err_text(&err, r));
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    store->log_bytes = 0;
    store->callbacks.on_change(store->data);
    return 0;
}

/* ---- proposals ---- */

static void proposal_finish(void *data)
{
    struct proposal *proposal = data;

    proposal->done(proposal->outcome, proposal->outcome == STORE_APPLIED ? &proposal->result : NULL,
                   proposal->reason, proposal->data);
    free(proposal->result.text);
    free(proposal->bytes);
    free(proposal);
}

static void proposal_end(struct store *store, struct proposal *proposal, enum store_outcome outcome,
                         const char *reason)
{
    proposal->outcome = outcome;
    proposal->reason = reason;
    defer_call(store->defer, proposal_finish, proposal);
}

static void pump_proposals(void *data);
static void transfer_away(void *data);
static void transfer_try(void *data);

static void on_applied(struct raft_apply *apply, int status, void *unused)
{
    struct proposal *proposal = apply->data;
    struct store *store = proposal->store;
    const struct registry_result *result;

    assert(store->in_flight > 0);
    store->in_flight--;
    if (status != 0) {
        /* No raft_*() call in here: raft may be in the middle of stepping down (libraft-notes §2.1). */
        proposal_end(store, proposal, STORE_UNKNOWN, store_raft_text(status));
        return;
    }
    result = proposal->has_request_id ? registry_request(store->registry, proposal->request_id) : NULL;
    if (result != NULL)
        proposal->result = *result;
    else
        proposal->result = (struct registry_result){.version = registry_version(store->registry)};
    proposal->result.text = xstrdup(proposal->result.text != NULL ? proposal->result.text : "");
    proposal_end(store, proposal, STORE_APPLIED, "");
    if (store->queued != NULL && !store->pumping) {
        store->pumping = true;
        defer_call(store->defer, pump_proposals, store);
    }
}

static void proposal_submit(struct store *store, struct proposal *proposal)
{
    struct raft_buffer buf = {.len = proposal->size};
    int r;

    if (store->disk_level != DISK_LEVEL_OK) {
        proposal_end(store, proposal, STORE_REFUSED, store->disk_reason.text);
        return;
    }
    if (!store_leads(store) || proposal->term != store_term(store)) {
        proposal_end(store, proposal, STORE_REFUSED, "this host does not lead (any more)");
        return;
    }
    buf.base = raft_malloc(proposal->size);
    if (buf.base == NULL)
        abort();
    memcpy(buf.base, proposal->bytes, proposal->size);
    store->in_flight++;
    r = raft_apply(&store->raft, &proposal->apply, &buf, 1, on_applied);
    if (r != 0) {
        store->in_flight--;
        raft_free(buf.base);
        proposal_end(store, proposal, STORE_REFUSED, store_raft_text(r));
    }
}

static void pump_proposals(void *data)
{
    struct store *store = data;

    store->pumping = false;
    while (store->queued != NULL && store->in_flight < PROPOSALS_IN_FLIGHT_MAX) {
        struct proposal *proposal = store->queued;

        DL_DELETE(store->queued, proposal);
        store->queued_count--;
        proposal_submit(store, proposal);
    }
}

void store_propose(struct store *store, const Fleet__Command *command, store_done *done, void *data)
{
    struct proposal *proposal = NEW0(struct proposal);
    Fleet__Command stamped = *command;

    proposal->store = store;
    proposal->apply.data = proposal;
    proposal->done = done;
    proposal->data = data;
    proposal->term = command->if_term != 0 ? command->if_term : store_term(store);
    proposal->has_request_id = command->request_id.len == REQUEST_ID_SIZE;
    if (proposal->has_request_id)
        memcpy(proposal->request_id, command->request_id.data, REQUEST_ID_SIZE);
    stamped.format = COMMAND_FORMAT;
    stamped.wall_ms = wall_ms();
    if (command_encode(&stamped, &proposal->bytes, &proposal->size) < 0) {
        proposal_end(store, proposal, STORE_REFUSED, "the request is larger than one command may be (1 MiB)");
        return;
    }
    if (store->closing || store->queued_count >= PROPOSALS_QUEUED_MAX) {
        proposal_end(store, proposal, STORE_REFUSED, "too many requests wait already");
        return;
    }
    DL_APPEND(store->queued, proposal);
    store->queued_count++;
    if (!store->pumping) {
        store->pumping = true;
        defer_call(store->defer, pump_proposals, store);
    }
}

/* ---- barriers ---- */

static void barrier_start(void *data);

static void barrier_finish(struct store *store, enum store_outcome outcome, const char *reason)
{
    struct barrier_wait *waits = store->barrier_now, *wait, *next;

    store->barrier_now = NULL;
    DL_FOREACH_SAFE (waits, wait, next) {
        wait->done(outcome, NULL, reason, wait->data);
        free(wait);
    }
}

static void barrier_through(void *data)
{
    struct store *store = data;

    if (store->barrier_status == 0)
        barrier_finish(store, STORE_APPLIED, "");
    else
        barrier_finish(store, STORE_REFUSED, store_raft_text(store->barrier_status));
    if (store->barrier_next != NULL)
        barrier_start(store);
}

static void on_barrier(struct raft_barrier *barrier, int status)
{
    struct store *store = barrier->data;

    store->barrier_in_flight = false;
    store->barrier_status = status;
    defer_call(store->defer, barrier_through, store);
}

static void barrier_start(void *data)
{
    struct store *store = data;
    int r = RAFT_NOTLEADER;

    if (store->barrier_in_flight || store->barrier_now != NULL || store->barrier_next == NULL)
        return;
    store->barrier_now = store->barrier_next;
    store->barrier_next = NULL;
    store->barrier.data = store;
    if (store_leads(store) && !store->closing)
        r = raft_barrier(&store->raft, &store->barrier, on_barrier);
    if (r == 0)
        store->barrier_in_flight = true;
    else
        barrier_finish(store, STORE_REFUSED, store_raft_text(r));
}

void store_barrier(struct store *store, store_done *done, void *data)
{
    struct barrier_wait *wait = NEW0(struct barrier_wait);

    wait->done = done;
    wait->data = data;
    if (store->barrier_next == NULL)
        defer_call(store->defer, barrier_start, store);
    DL_APPEND(store->barrier_next, wait);
}

/* ---- membership ---- */

static const struct raft_server *find_server(const struct store *store, uint64_t id)
{
    for (unsigned i = 0; i < store->raft.configuration.n; i++)
        if (store->raft.configuration.servers[i].id == id)
            return &store->raft.configuration.servers[i];
    return NULL;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    size_t count = 0;

    for (unsigned i = 0; i < store->raft.configuration.n && count < max; i++) {
        const struct raft_server *server = &store->raft.configuration.servers[i];

        servers[count++] = (struct store_server){
            .id = server->id, .address = server->address, .role = (enum server_role)server->role};
    }
    return count;
}

static void change_step(void *data);

static void change_end(struct store *store, enum store_outcome outcome, const char *reason)
{
    struct server_change change = store->change;

    store->change = (struct server_change){0};
    change.done(outcome, NULL, reason, change.data);
    free(change.address);
}

static void change_next(void *data)
{
    struct store *store = data;

    if (store->change.status != 0)
        change_end(store, STORE_UNKNOWN, store_raft_text(store->change.status));
    else
        change_step(store);
}

static void on_changed(struct raft_change *request, int status)
{
    struct store *store = request->data;

    store->change.status = status;
    defer_call(store->defer, change_next, store);
}

/* Does the next step towards the wanted role; each is one entry of the log (dissertation §4.1). */
static void change_step(void *data)
{
    struct store *store = data;
    struct server_change *change = &store->change;
    const struct raft_server *server = find_server(store, change->id);
    int r;

    change->request.data = store;
    if (!store_leads(store) || store->closing) {
        change_end(store, STORE_REFUSED, "this host does not lead (any more)");
        return;
    }
    if (server == NULL && change->role == SERVER_REMOVED) {
        change_end(store, STORE_APPLIED, "");
        return;
    }
    if (server != NULL && (int)change->role == server->role) {
        change_end(store, STORE_APPLIED, "");
        return;
    }
    if (server == NULL)
        r = raft_add(&store->raft, &change->request, change->id, change->address, on_changed);
    else if (change->role != SERVER_REMOVED)
        r = raft_assign(&store->raft, &change->request, change->id, (int)change->role, on_changed);
    else if (server->role ==
             RAFT_VOTER) /* One that is removed as a voter never learns it, and campaigns for ever. */
        r = raft_assign(&store->raft, &change->request, change->id, RAFT_STANDBY, on_changed);
    else
        r = raft_remove(&store->raft, &change->request, change->id, on_changed);
    if (r != 0)
        change_end(store, STORE_REFUSED, store_raft_text(r));
}

struct refusal {
    store_done *done;
    void *data;
};

static void refuse_busy(void *data)
{
    struct refusal *refusal = data;

    refusal->done(STORE_REFUSED, NULL, "another change of the members is under way", refusal->data);
    free(refusal);
}

void store_change_server(struct store *store, uint64_t id, const char *address, enum server_role role,
                         store_done *done, void *data)
{
    if (store->change.active) {
        struct refusal *refusal = NEW0(struct refusal);

        *refusal = (struct refusal){.done = done, .data = data};
        defer_call(store->defer, refuse_busy, refusal);
        return;
    }
    store->change = (struct server_change){
        .id = id, .address = xstrdup(address), .role = role, .done = done, .data = data, .active = true};
    defer_call(store->defer, change_step, store);
}

static int on_resolve(uint64_t server_id, char *address, void *data)
{
    const struct store *store = data;
    const struct raft_server *server = find_server(store, server_id);

    if (server == NULL || strlen(server->address) > ADDRESS_MAX)
        return -ENOENT;
    strcpy(address, server->address);
    return 0;
}

const struct conn_callbacks *store_accept(struct store *store, uint64_t server_id, void **ret_data)
{
    return raftnet_accept(store->net, server_id, ret_data);
}

/* ---- what the world is told ---- */

static enum store_role current_role(struct store *store, uint64_t leader_id)
{
    switch (raft_state(&store->raft)) {
    case RAFT_LEADER: return STORE_LEADER;
    case RAFT_CANDIDATE: return STORE_CANDIDATE;
    default: return leader_id != 0 ? STORE_FOLLOWER : STORE_IDLE;
    }
}

/* Runs once in every turn of the loop: raft has no callback for these. */
static void observe(struct store *store)
{
    const struct raft_server *server;
    const char *address = NULL;
    raft_id leader_id = 0;
    enum store_role role;
    uint64_t term;
    bool leads;

    if (!store->started || store->raft_closed)
        return;
    raft_leader(&store->raft, &leader_id, &address);
    role = current_role(store, leader_id);
    term = raft_compat_term(&store->raft);
    leads = guard_is_ready(&store->guard);

    if (store->leads && (!leads || term != store->term)) {
        store->leads = false;
        store->callbacks.on_yield(store->data);
    }
    if (role != store->role || term != store->term || leader_id != store->leader_id) {
        store->role = role;
        store->term = term;
        store->leader_id = leader_id;
        /* What the configuration says is where it listens; raft may only know where it called from. */
        server = find_server(store, leader_id);
        snprintf(store->leader_address, sizeof store->leader_address, "%s",
                 server != NULL ? server->address : "");
        store->callbacks.on_role(store->data);
    }
    if (leads && !store->leads && !store->closing) {
        store->leads = true;
        store->callbacks.on_lead(term, store->data);
    }
}

static void on_check(uv_check_t *check)
{
    struct store *store = check->data;

    if (!store->raft_closed)
        guard_observe(&store->guard);
    observe(store);
}

enum store_role store_role(const struct store *store)
{
    return store->role;
}

bool store_leads(const struct store *store)
{
    return store->started && !store->raft_closed && guard_is_ready(&store->guard);
}

uint64_t store_term(const struct store *store)
{
    return raft_compat_term((struct raft *)&store->raft);
}

uint64_t store_leader_id(const struct store *store)
{
    return store->leader_id;
}

const char *store_leader_address(const struct store *store)
{
    return store->leader_address;
}

const struct registry *store_registry(const struct store *store)
{
    return store->registry;
}

void store_changes_take(struct store *store, struct registry_changes *ret)
{
    registry_changes_take(store->registry, ret);
}

/* ---- guard ---- */

static void on_fatal(void *data, const char *what, int status)
{
    struct store *store = data;
    char why[512];

    snprintf(why, sizeof why, "%s%s%s%s%s", what, status != 0 ? ": " : "",
             status != 0 ? store_raft_text(status) : "", store->io.errmsg[0] != '\0' ? ": " : "",
             store->io.errmsg);
    store->callbacks.on_fatal(why, store->data);
}

static void on_role(void *data, int old_role, int new_role, raft_term term)
{
    observe(data);
}

static void on_refused(void *data, raft_id from, enum guard_rule rule, const char *why)
{
    log_warn("Refused a message of server %016llx: %s (%s)", from, why, guard_rule_name(rule));
}

/* ---- the disk ---- */

/* In a thread: what blocks. */
static void disk_work(uv_work_t *work)
{
    struct store *store = work->data;
    struct err err = {0};

    store->disk_status = sidefile_write(store->directory, &store->side_next, &err);
    if (store->disk_status >= 0)
        store->disk_status = disk_watch_free(store->directory, &store->disk_free, &err);
    snprintf(store->disk_error, sizeof store->disk_error, "%s", err.text);
}

static void disk_done(uv_work_t *work, int status)
{
    struct store *store = work->data;
    enum disk_level level = store->disk_level;

    store->disk_busy = false;
    if (store->disk_status < 0) {
        log_warn("Cannot look after the disk: %s", store->disk_error);
        return;
    }
    store->side = store->side_next;
    store->disk_level = disk_level_next(level, store->disk_free);
    if (store->disk_level == level)
        return;
    if (disk_level_reason(store->disk_level, store->disk_free, store->directory, &store->disk_reason) < 0)
        log_error("%s: writes are refused here until there is room again", store->disk_reason.text);
    else
        log_notice("There is room on the disk of %s again", store->directory);
    if (level == DISK_LEVEL_OK && store->leads)
        defer_call(store->defer, transfer_away, store);
}

/* Once a second while something happens, otherwise every few seconds. */
static void on_disk_timer(uv_timer_t *timer)
{
    struct store *store = timer->data;

    store->side_next = store->side;
    store->side_next.term = raft_compat_term(&store->raft);
    /* What is committed is never cut off again, so the index alone tells (last_term stays 0). A tail that is
     * not committed may go at any time, rightly, and must not keep this host from starting after a power cut.
     */
    if (raft_compat_durable_index(&store->raft) > store->side.last_index)
        store->side_next.last_index = raft_compat_durable_index(&store->raft);
    if (store->disk_busy ||
        (++store->disk_turn % DISK_IDLE_TURNS != 0 && store->side_next.term == store->side.term &&
         store->side_next.last_index == store->side.last_index))
        return;
    store->disk_busy = true;
    store->disk_job.data = store;
    uv_queue_work(store->loop, &store->disk_job, disk_work, disk_done);
}

/* A leader whose disk gets full hands over before it must stop. */
static void on_transferred_away(struct raft_transfer *transfer)
{
    struct store *store = transfer->data;

    store->transferring = false;
    if (store->closing)
        defer_call(store->defer, transfer_try, store);
}

static void transfer_away(void *data)
{
    struct store *store = data;

    if (store->closing || store->transferring || !store_leads(store))
        return;
    store->transfer.data = store;
    store->transferring = raft_transfer(&store->raft, &store->transfer, 0, on_transferred_away) == 0;
}

/* ---- life ---- */

static int make_directory(const char *path, struct err *err)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
    return 0;
}

static void set_tunables(struct store *store, unsigned election_ms)
{
    unsigned election = election_ms != 0 ? election_ms : ELECTION_MS_DEFAULT;

    raft_set_election_timeout(&store->raft, election);
    raft_set_heartbeat_timeout(&store->raft, election / HEARTBEATS_PER_ELECTION);
    raft_set_pre_vote(&store->raft, true);
    raft_set_snapshot_threshold(&store->raft, SNAPSHOT_THRESHOLD);
    raft_set_snapshot_trailing(&store->raft, SNAPSHOT_TRAILING);
    raft_set_max_catch_up_round_duration(&store->raft, CATCH_UP_ROUND_MS);
}

static int open_disk(struct store *store, struct err *err)
{
    int r;

    raftnet_null_transport(&store->transport);
    r = raft_uv_init(&store->io, store->loop, store->directory, &store->transport);
    if (r != 0)
        return err_set(err, -EIO, "cannot use %s: %s", store->directory, store_raft_text(r));
    /* Both are on by default: one forgets acknowledged entries after a bit flip, the other doubles memory
     * (libraft-notes §2.4, §2.8). */
    raft_uv_set_auto_recovery(&store->io, false);
    (void)raft_uv_set_snapshot_compression(&store->io, false);
    return 0;
}

static int start_raft(struct store *store, const struct store_config *config, struct err *err)
{
    static const struct guard_callbacks guard_callbacks = {
        .on_fatal = on_fatal, .on_role = on_role, .on_refused = on_refused};
    int r;

    raftnet_install(store->net, &store->io);
    guard_init(&store->guard, &store->raft, &store->io, &guard_callbacks, store);
    r = raft_init(&store->raft, guard_io(&store->guard), &store->fsm, config->server_id, config->address);
    if (r != 0)
        return err_set(err, -EIO, "cannot open the log in %s: %s (%s)", store->directory,
                       raft_errmsg(&store->raft), store_raft_text(r));
    set_tunables(store, config->election_ms);
    if (config->bootstrap) {
        struct raft_configuration configuration;

        raft_configuration_init(&configuration);
        r = raft_configuration_add(&configuration, config->server_id, config->address, RAFT_VOTER);
        if (r == 0)
            r = raft_bootstrap(&store->raft, &configuration);
        raft_configuration_close(&configuration);
        /* A crash right after the first time: it is done already. */
        if (r != 0 && r != RAFT_CANTBOOTSTRAP)
            return err_set(err, -EIO, "cannot start a cluster in %s: %s", store->directory,
                           store_raft_text(r));
    }
    r = raft_start(&store->raft);
    if (r != 0)
        return err_set(
            err, -EIO,
            "cannot load the log in %s: %s (%s). If the disk is damaged, move the directory away and join "
            "this host again",
            store->directory, raft_errmsg(&store->raft), store_raft_text(r));
    return 0;
}

/* Whether the log has come as far as it had when we last looked. */
static int check_progress(struct store *store, const struct store_config *config, struct err *err)
{
    struct sidefile_state state = {.server_id = config->server_id,
                                   .term = raft_compat_term(&store->raft),
                                   .last_index = raft_last_index(&store->raft),
                                   .has_metadata = store->had_metadata,
                                   .has_log = store->had_log};
    int r = sidefile_read(store->directory, &store->side, err);
    bool found = r >= 0;

    memcpy(state.cluster_id, config->cluster_id, CLUSTER_ID_SIZE);
    if (r < 0 && r != -ENOENT)
        return r;
    r = sidefile_check(found ? &store->side : NULL, &state, store->directory, err);
    if (r < 0)
        return r;
    memcpy(store->side.cluster_id, config->cluster_id, CLUSTER_ID_SIZE);
    store->side.server_id = config->server_id;
    return 0;
}

/* What is in the directory before libraft makes files of its own. */
static int look_first(struct store *store, struct err *err)
{
    struct sidefile_state state = {0};
    int r = sidefile_look(store->directory, &state, err);

    if (r < 0)
        return r;
    store->had_metadata = state.has_metadata;
    store->had_log = state.has_log;
    r = disk_watch_keep_ballast(store->directory, err);
    if (r < 0 && r != -ENOSPC)
        return r;
    return disk_watch_free(store->directory, &store->disk_free, err);
}

static void start_handles(struct store *store)
{
    uv_check_init(store->loop, &store->check);
    store->check.data = store;
    uv_check_start(&store->check, on_check);
    uv_unref((uv_handle_t *)&store->check);
    uv_timer_init(store->loop, &store->timer);
    store->timer.data = store;
    uv_timer_start(&store->timer, on_disk_timer, DISK_TURN_MS, DISK_TURN_MS);
    store->handles = 2;
}

int store_open(uv_loop_t *loop, struct port *port, const struct store_config *config,
               const struct store_callbacks *callbacks, void *data, struct store **ret, struct err *err)
{
    static const struct raftnet_callbacks net_callbacks = {.on_resolve = on_resolve};
    _cleanup_(freep) char *directory = NULL;
    struct store *store;
    int r;

    assert(config->server_id != 0);
    r = make_directory(config->directory, err);
    if (r < 0)
        return r;
    directory = xasprintf("%s/raft", config->directory);
    r = make_directory(directory, err);
    if (r < 0)
        return r;
    store = NEW0(struct store);
    store->loop = loop;
    store->callbacks = *callbacks;
    store->data = data;
    store->directory = TAKE_PTR(directory);
    store->registry = registry_new();
    store->fsm = (struct raft_fsm){.version = 2,
                                   .data = store,
                                   .apply = fsm_apply,
                                   .snapshot = fsm_snapshot,
                                   .restore = fsm_restore,
                                   .snapshot_finalize = fsm_snapshot_finalize};
    store->defer = defer_new(loop);
    store->net = raftnet_new(loop, port, &net_callbacks, store);
    r = look_first(store, err);
    if (r >= 0)
        r = open_disk(store, err);
    if (r >= 0)
        r = start_raft(store, config, err);
    if (r >= 0)
        r = check_progress(store, config, err);
    /* There is no way back into a clean loop from a half-open libraft 0.15: the caller ends the process. */
    if (r < 0)
        return r;
    start_handles(store);
    store->started = true;
    *ret = store;
    return 0;
}

static void store_free(struct store *store)
{
    free(store->directory);
    registry_snapshot_free(store->registry, store->snapshot);
    registry_free(store->registry);
    free(store);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct store *store = handle->data;
    void (*closed)(void *) = store->closed;
    void *closed_data = store->closed_data;

    if (--store->handles > 0)
        return;
    store_free(store);
    closed(closed_data);
}

/* Everything that waits is answered: whoever asked knows that it may ask another host. */
static void refuse_all(struct store *store)
{
    struct proposal *proposal, *next;

    DL_FOREACH_SAFE (store->queued, proposal, next) {
        DL_DELETE(store->queued, proposal);
        proposal_end(store, proposal, STORE_REFUSED, "fleetd is stopping");
    }
    store->queued_count = 0;
    barrier_start(store);
}

static void on_raft_closed(struct raft *raft)
{
    struct store *store = raft->data;

    store->raft_closed = true;
    raftnet_free(store->net);
    raft_uv_close(&store->io);
    guard_done(&store->guard);
    refuse_all(store);
    defer_close(store->defer);
    uv_close((uv_handle_t *)&store->check, on_handle_closed);
    uv_close((uv_handle_t *)&store->timer, on_handle_closed);
}

static void close_raft(void *data)
{
    struct store *store = data;

    store->raft.data = store;
    raft_close(&store->raft, on_raft_closed);
}

static void on_transferred(struct raft_transfer *transfer)
{
    struct store *store = transfer->data;

    defer_call(store->defer, raft_state(&store->raft) == RAFT_LEADER ? transfer_try : close_raft, store);
}

/* A hand-over takes milliseconds, a new election most of a second (libraft-notes §1.2). */
static void transfer_try(void *data)
{
    struct store *store = data;

    if (store->transferring)
        return; /* One is under way already, and calls us when it is done. */
    store->transfer.data = store;
    if (raft_state(&store->raft) != RAFT_LEADER || store->transfer_tries++ >= TRANSFER_TRIES ||
        raft_transfer(&store->raft, &store->transfer, 0, on_transferred) != 0)
        close_raft(store);
}

/* Several close-time bugs of libraft were fixed after 0.15 (libraft-notes §2.9); ending the process is always
 * safe for the data. */
static void on_close_watchdog(uv_timer_t *timer)
{
    struct store *store = timer->data;

    store->callbacks.on_fatal("libraft did not close in time", store->data);
}

void store_close(struct store *store, void (*done)(void *data), void *data)
{
    assert(!store->closing);
    store->closing = true;
    store->closed = done;
    store->closed_data = data;
    uv_timer_start(&store->timer, on_close_watchdog, CLOSE_MS, 0);
    defer_call(store->defer, transfer_try, store);
}
