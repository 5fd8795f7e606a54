/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of leases (docs/leases.md): remembers when each heartbeat was sent, prolongs the lease by
 * what the leader grants for it, and decides which units with OnDisconnect=stop may be started, and which
 * were stopped by the end of the lease and have to be started again. Stopping is not done here: that is the
 * keeper's and systemd's. Part of the agent. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fleetd/lease_page.h"

#define AGENT_HEARTBEATS 64u /* Remembered: so many may be unanswered. */

#define AGENT_KEEPER_UNIT "fleet-lease.service"

struct agent;
struct local_unit;

enum agent_keeper {
    AGENT_KEEPER_WELL,
    AGENT_KEEPER_ENDED,  /* The lease has ended, and units with it: not started again yet. */
    AGENT_KEEPER_FAILED, /* It has failed while the lease held. */
};

struct agent_lease {
    struct lease_page *page; /* NULL: this agent keeps no units that need one, because of 'why'. */
    char *why;
    struct {
        uint64_t sequence, sent_ms;
        uint64_t batch; /* The last change of the share before it. */
    } sent[AGENT_HEARTBEATS];
    uint64_t granted_sent_ms; /* When the latest heartbeat that was granted a lease was sent; 0: none was. */
    uint64_t
        granted_batch; /* The leader still led when it had sent this change of the share; 0: not known... */
    uint64_t session_batch; /* ...in this session, which began behind this one. */
    enum agent_keeper keeper;
};

void agent_lease_init(struct agent *agent, const char *file);
void agent_lease_done(struct agent *agent);

/* Whether the unit, as it is wanted, or as it was found on the host, needs a lease. */
bool agent_lease_applies(const struct local_unit *unit);

/* Brings what is known of a lease into the unit's facts, before it is planned. */
void agent_lease_look(struct agent *agent, struct local_unit *unit);

/* The state of the keeper's unit, as systemd tells it. */
void agent_lease_keeper_is(struct agent *agent, const char *active_state);

/* Likewise, as it was found when systemd is heard (again): how it came to that was not. */
void agent_lease_keeper_found(struct agent *agent, const char *active_state);

/* Whether something was bound to the keeper when systemd was heard last. */
bool agent_lease_has_bound(const struct agent *agent);
