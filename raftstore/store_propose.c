/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/times.h"
#include "raftstore/store_private.h"

#define NOT_LEADING "this host does not lead (any more)"

struct proposal {
    struct store *store;
    struct raft_apply apply;
    uint8_t request_id[REQUEST_ID_SIZE];
    bool has_request_id;
    uint8_t *bytes; /* Until it is handed to raft. */
    size_t size;
    uint64_t term; /* In which it was proposed; it is void in any other. */
    uint64_t since_ns;
    store_done *done;
    void *data;
    /* How it ended. */
    enum store_outcome outcome;
    struct registry_result result;
    char *reason;
    struct proposal *prev, *next;
};

struct barrier_wait {
    store_done *done;
    void *data;
    struct barrier_wait *prev, *next;
};

/* ---- how they end ---- */

static const unsigned latency_limits_us[STORE_LATENCY_BUCKETS] = {
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
};

static void count_outcome(struct store *store, const struct proposal *proposal)
{
    struct store_stats *stats = &store->stats;
    uint64_t took_us = (uv_hrtime() - proposal->since_ns) / 1000;
    size_t bucket = 0;

    stats->outcomes[proposal->outcome]++;
    if (proposal->outcome != STORE_APPLIED)
        return;
    while (bucket < STORE_LATENCY_BUCKETS && took_us > latency_limits_us[bucket])
        bucket++;
    stats->latency[bucket]++;
    stats->latency_sum_us += took_us;
}

void store_stats(const struct store *store, struct store_stats *ret)
{
    *ret = store->stats;
    ret->latency_limits_us = latency_limits_us;
}

/* ---- proposals ---- */

static void proposal_finish(void *data)
{
    struct proposal *proposal = data;

    proposal->done(proposal->outcome, proposal->outcome == STORE_APPLIED ? &proposal->result : NULL,
                   proposal->reason, proposal->data);
    free(proposal->result.text);
    free(proposal->reason);
    free(proposal->bytes);
    free(proposal);
}

static void proposal_end(struct store *store, struct proposal *proposal, enum store_outcome outcome,
                         const char *reason)
{
    proposal->outcome = outcome;
    proposal->reason = xstrdup(reason);
    count_outcome(store, proposal);
    defer_call(store->defer, proposal_finish, proposal);
}

/* Why nothing may be proposed now, or NULL. */
static const char *refusal(const struct store *store)
{
    if (store->closing)
        return "fleetd is stopping";
    if (store->disk.level != DISK_LEVEL_OK)
        return store->disk.reason.text;
    if (!store_leads(store))
        return NOT_LEADING;
    return store->handover.wanted ? "leadership is being handed over" : NULL;
}

static void pump_proposals(void *data);

static void pump_soon(struct store *store)
{
    if (store->queued == NULL || store->pumping)
        return;
    store->pumping = true;
    defer_call(store->defer, pump_proposals, store);
}

/* raft holds one of ours less. */
static void release_one(struct store *store)
{
    pump_soon(store);
    if (store->handover.wanted && store_is_idle(store))
        defer_call(store->defer, store_handover_step, store);
}

static void on_applied(struct raft_apply *apply, int status, void *applied)
{
    struct proposal *proposal = apply->data;
    struct store *store = proposal->store;
    const struct registry_result *result = applied, *remembered = NULL;

    assert(store->in_flight > 0);
    store->in_flight--;
    /* No raft_*() call in here: raft may be in the middle of stepping down (docs/RAFT.md §2). */
    release_one(store);
    if (status != 0) {
        proposal_end(store, proposal, STORE_UNKNOWN, store_raft_text(status));
        return;
    }
    /* 0.22 calls back later than it applies: 'applied' may be another's by then, what is remembered is ours.
     */
    if (proposal->has_request_id)
        remembered = registry_request(store->registry, proposal->request_id);
    proposal->result = remembered != NULL ? *remembered : *result;
    proposal->result.text = xstrdup(proposal->result.text != NULL ? proposal->result.text : "");
    proposal_end(store, proposal, STORE_APPLIED, "");
}

static void proposal_submit(struct store *store, struct proposal *proposal)
{
    struct raft_buffer buf = {.len = proposal->size};
    const char *why = refusal(store);
    int r;

    if (why == NULL && proposal->term != store_term(store))
        why = NOT_LEADING;
    if (why != NULL) {
        proposal_end(store, proposal, STORE_REFUSED, why);
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

static struct proposal *proposal_new(struct store *store, const Fleet__Command *command, store_done *done,
                                     void *data)
{
    struct proposal *proposal = NEW0(struct proposal);

    proposal->store = store;
    proposal->apply.data = proposal;
    proposal->since_ns = uv_hrtime();
    proposal->done = done;
    proposal->data = data;
    proposal->term = command->if_term != 0 ? command->if_term : store_term(store);
    proposal->has_request_id = command->request_id.len == REQUEST_ID_SIZE;
    if (proposal->has_request_id)
        memcpy(proposal->request_id, command->request_id.data, REQUEST_ID_SIZE);
    return proposal;
}

/* What some host would not understand is refused as if the registry had done it. */
static bool must_wait(const struct store *store, const Fleet__Command *command, struct proposal *proposal)
{
    unsigned level = level_of_command(command);

    if (level <= registry_level(store->registry))
        return false;
    proposal->result.status = -EPROTO;
    proposal->result.version = registry_version(store->registry);
    proposal->result.text =
        xasprintf("this waits until all hosts of the cluster run fleet %s or newer (fleetctl list-machines "
                  "says which do not)",
                  level_row(level)->version);
    return true;
}

void store_propose(struct store *store, const Fleet__Command *command, store_done *done, void *data)
{
    struct proposal *proposal = proposal_new(store, command, done, data);
    Fleet__Command stamped = *command;
    const char *why = NULL;

    stamped.format = COMMAND_FORMAT;
    stamped.wall_ms = wall_ms();
    if (must_wait(store, command, proposal)) {
        proposal_end(store, proposal, STORE_APPLIED, "");
        return;
    }
    if (store->closing)
        why = refusal(store);
    else if (store->queued_count >= PROPOSALS_QUEUED_MAX)
        why = "too many requests wait already";
    else if (command_encode(&stamped, &proposal->bytes, &proposal->size) < 0)
        why = "the request is larger than one command may be (1 MiB)";
    if (why != NULL) {
        proposal_end(store, proposal, STORE_REFUSED, why);
        return;
    }
    DL_APPEND(store->queued, proposal);
    store->queued_count++;
    pump_soon(store);
}

/* ---- barriers ---- */

static void barrier_finish(struct store *store, enum store_outcome outcome, const char *reason)
{
    struct barrier_wait *waits = store->barrier_now, *wait, *next;

    store->barrier_now = NULL;
    DL_FOREACH_SAFE (waits, wait, next) {
        wait->done(outcome, NULL, reason, wait->data);
        free(wait);
    }
}

static void barrier_start(void *data);

static void barrier_through(void *data)
{
    struct store *store = data;

    if (store->barrier_status == 0)
        barrier_finish(store, STORE_APPLIED, "");
    else
        barrier_finish(store, STORE_REFUSED, store_raft_text(store->barrier_status));
    barrier_start(store);
}

static void on_barrier(struct raft_barrier *barrier, int status)
{
    struct store *store = barrier->data;

    store->barrier_in_flight = false;
    store->barrier_status = status;
    defer_call(store->defer, barrier_through, store);
    release_one(store);
}

/* One barrier at a time. Who asks while it is in flight waits for the next: an answer must come from after
 * the question (dissertation §6.4). */
static void barrier_start(void *data)
{
    struct store *store = data;
    int r = RAFT_NOTLEADER;

    if (store->barrier_in_flight || store->barrier_now != NULL || store->barrier_next == NULL)
        return;
    store->barrier_now = store->barrier_next;
    store->barrier_next = NULL;
    store->barrier.data = store;
    if (store_leads(store) && !store->closing && !store->handover.wanted) {
        store->barrier_in_flight = true;
        r = raft_barrier(&store->raft, &store->barrier, on_barrier);
    }
    if (r == 0)
        return;
    store->barrier_in_flight = false;
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

/* ---- both ---- */

bool store_is_idle(const struct store *store)
{
    return store->in_flight == 0 && !store->barrier_in_flight;
}

void store_refuse_queued(struct store *store)
{
    const char *why = refusal(store);
    struct proposal *proposal, *next;

    assert(why != NULL);
    DL_FOREACH_SAFE (store->queued, proposal, next) {
        DL_DELETE(store->queued, proposal);
        proposal_end(store, proposal, STORE_REFUSED, why);
    }
    store->queued_count = 0;
}
