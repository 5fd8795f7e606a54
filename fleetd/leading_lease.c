/* SPDX-License-Identifier: Apache-2.0 */
/* The leader answers heartbeats that ask for a lease. A leader that was deposed and does not know it must
 * never prolong one, so each answer waits for a barrier of the store that began after the heartbeat arrived:
 * only who still leads gets through it. Heartbeats of many hosts share a barrier. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"

/* Barriers begin at least so far apart, as a part of the time between two heartbeats: each is a write to the
 * disks of a majority. */
#define BARRIERS_PER_HEARTBEAT 4u

struct lease_request {
    char machine_id[MACHINE_ID_SIZE];
    uint64_t session_id, sequence, heard_ms;
};

struct lessor {
    struct daemon *daemon;
    struct lease_request *asked; /* Since the last barrier began... */
    size_t asked_count, asked_capacity;
    struct lease_request *waiting; /* ...and for the one under way. */
    size_t waiting_count;
    bool urgent; /* Somebody who has asked cannot wait for the others. */
    bool in_flight;
    uint64_t begun_ms; /* The last one. */
    uint64_t round;    /* Grows with every leadership: a barrier of an older one grants nothing. */
    uint64_t barrier_round;
};

struct lessor *lessor_new(struct daemon *daemon)
{
    struct lessor *lessor = NEW0(struct lessor);

    lessor->daemon = daemon;
    return lessor;
}

void lessor_free(struct lessor *lessor)
{
    if (lessor == NULL)
        return;
    free(lessor->asked);
    free(lessor->waiting);
    free(lessor);
}

static void grant(struct daemon *daemon, const struct lease_request *request)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__Heartbeat answer = FLEET__HEARTBEAT__INIT;

    answer.sequence = request->sequence;
    answer.lease_ms =
        core_lease_grant(daemon->core, request->machine_id, request->session_id, request->heard_ms);
    if (answer.lease_ms == 0)
        return;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_HEARTBEAT;
    message.heartbeat = &answer;
    downlink_send(daemon->downlink, request->machine_id, &message);
}

static void on_barrier(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct lessor *lessor = data;

    lessor->in_flight = false;
    if (outcome == STORE_APPLIED && lessor->barrier_round == lessor->round)
        for (size_t i = 0; i < lessor->waiting_count; i++)
            grant(lessor->daemon, &lessor->waiting[i]);
    free(TAKE_PTR(lessor->waiting));
    lessor->waiting_count = 0;
}

uint64_t lessor_deadline_ms(const struct lessor *lessor)
{
    uint64_t apart_ms = lessor->daemon->config.agent_ttl_ms / HEARTBEATS_PER_TTL / BARRIERS_PER_HEARTBEAT;

    if (lessor->asked_count == 0 || lessor->in_flight)
        return UINT64_MAX;
    return lessor->urgent ? 0 : lessor->begun_ms + apart_ms;
}

void lessor_step(struct lessor *lessor)
{
    if (lessor_deadline_ms(lessor) > now_ms())
        return;
    lessor->waiting = TAKE_PTR(lessor->asked);
    lessor->waiting_count = lessor->asked_count;
    lessor->asked_count = lessor->asked_capacity = 0;
    lessor->urgent = false;
    lessor->in_flight = true;
    lessor->begun_ms = now_ms();
    lessor->barrier_round = lessor->round;
    store_barrier(lessor->daemon->store, on_barrier, lessor);
}

void lessor_ask(struct lessor *lessor, const char *machine_id, uint64_t session_id, uint64_t sequence,
                bool urgent)
{
    struct lease_request *request;

    lessor->urgent = lessor->urgent || urgent;
    GROW(lessor->asked, lessor->asked_capacity, lessor->asked_count + 1);
    request = &lessor->asked[lessor->asked_count++];
    *request = (struct lease_request){.session_id = session_id, .sequence = sequence, .heard_ms = now_ms()};
    memcpy(request->machine_id, machine_id, sizeof request->machine_id);
}

void lessor_yield(struct lessor *lessor)
{
    lessor->asked_count = 0;
    lessor->urgent = false;
    lessor->round++;
}

/* ---- the longest lease ---- */

struct lease_ticket {
    struct daemon *daemon;
    uint64_t term;
};

static void on_lease_set(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                         void *data)
{
    struct lease_ticket *ticket = data;

    leading_step(ticket->daemon);
    core_lease_done(ticket->daemon->core, ticket->term, outcome == STORE_APPLIED, now_ms());
    free(ticket);
}

void lessor_set(struct daemon *daemon, const struct effect *effect)
{
    struct lease_ticket *ticket = NEW0(struct lease_ticket);
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__SetLease lease = FLEET__SET_LEASE__INIT;

    lease.lease_ms = effect->lease_ms;
    command.if_term = effect->term;
    command.body_case = FLEET__COMMAND__BODY_SET_LEASE;
    command.set_lease = &lease;
    *ticket = (struct lease_ticket){daemon, effect->term};
    store_propose(daemon->store, &command, on_lease_set, ticket);
}
