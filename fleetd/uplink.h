/* SPDX-License-Identifier: Apache-2.0 */
/* This host's session to the leader, whoever that is; also on the leader's own host. It finds the leader
 * (from Raft where this host takes part, otherwise by asking members, who answer or point further), says what
 * the host is and has, and then reports go up and the share comes down.
 *
 *      SEARCHING --dials--> GREETING --informed, SessionOpen--> OPENING --accepted--> OPEN
 *          ^-------------------- lost, refused, silent: again, soon -----------'
 *
 * A leader of an older term than that of one it has followed since fleetd started is not followed: it was
 * deposed, and does not know it yet.
 *
 * A session is given up when three heartbeats in a row were not answered, before the leader that does not
 * answer would take this host for lost. */
#pragma once

#include <stdbool.h>

#include <uv.h>

#include "base/str.h"
#include "raftstore/port.h"

struct uplink;

struct uplink_callbacks {
    /* Whether it is known what the host has. If not it is waited for, for a second: what a leader is told
     * first decides about what it lets the host keep. */
    bool (*is_informed)(void *data);
    /* Fill in what the host has (struct SessionOpen's machine, reports): allocated with plain malloc, freed
     * by the uplink with fleet__session_open__free_unpacked(). */
    Fleet__SessionOpen *(*on_open)(void *data);
    /* A negative return: this host must not follow that leader, and the session ends. */
    int (*on_accepted)(const Fleet__SessionAccepted *accepted, void *data);
    void (*on_members)(const Fleet__Members *members, void *data); /* They have changed. */
    /* The share. A negative return ends the session, so that it begins anew with all that the host has. */
    int (*on_share)(const Fleet__Share *share, void *data);
    /* A heartbeat is about to be sent: whether it is to ask for a lease. And the answer that grants one. */
    bool (*on_beat)(uint64_t sequence, void *data);
    void (*on_lease)(uint64_t sequence, uint64_t lease_ms, void *data);
    void (*on_api_reply)(const Fleet__ApiReply *reply, void *data);
    void (*on_farewell)(void *data);       /* The leader has noted a goodbye. */
    void (*on_shutdown_ready)(void *data); /* This host need not wait with its shutdown any longer. */
    /* The leader asks about a unit here, or does not want the answer any more. */
    void (*on_host_request)(const Fleet__HostRequest *request, void *data);
    void (*on_host_cancel)(uint64_t id, void *data);
    void (*on_credentials)(const Fleet__Credentials *message, void *data);
    void (*on_certificate)(const Fleet__Certificate *message, void *data);
    void (*on_removed)(void *data);               /* This host is no member any more. May close the uplink. */
    void (*on_lost)(const char *why, void *data); /* It was OPEN, and is not any more. */
    /* The leader does not want this host's session. It is tried again, twice a second. */
    void (*on_refused)(const char *why, void *data);
};

struct uplink *uplink_new(uv_loop_t *loop, struct port *port, const struct uplink_callbacks *callbacks,
                          void *data);

/* Where Raft says that the leader is, "" for unknown. A session to anybody else is given up; while nobody is
 * named, the session stays as it is, or members are asked. */
void uplink_set_leader(struct uplink *uplink, const char *address, uint64_t term);

/* Whom to ask when nobody says where the leader is. Copied. */
void uplink_set_members(struct uplink *uplink, const struct strlist *addresses);

/* How many shares of the present session have arrived whole. */
uint64_t uplink_share_count(const struct uplink *uplink);
/* Sends a heartbeat now, if it is open; what it asks for is waited for. */
void uplink_beat(struct uplink *uplink);

/* Something has changed that it may have waited for (is_informed). */
void uplink_go_on(struct uplink *uplink);

bool uplink_is_open(const struct uplink *uplink);
const char *
uplink_leader(const struct uplink *uplink); /* The address of the leader whose session is open, or "". */
bool uplink_is_opening(const struct uplink *uplink); /* What the host has was said, the answer is to come. */
const char *uplink_trouble(const struct uplink *uplink); /* Why it is not open, for people. */

/* Sends a message of an open session; false: it is not open, or the leader reads too slowly (the session then
 * ends). */
bool uplink_send(struct uplink *uplink, const Fleet__SessionUp *message);

void uplink_close(struct uplink *uplink, void (*done)(void *data), void *data);
