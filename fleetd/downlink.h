/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's side of the hosts' sessions: what hosts say goes into the core, what the core decides goes to
 * the hosts, API requests that hosts pass on are answered through the session they came by, and hosts are
 * asked about their units. Joining hosts are let in here, too. While this host does not lead there are no
 * sessions: who calls is told where the leader is. */
#pragma once

#include <stdbool.h>

#include <uv.h>

#include "fleetd/api.h"
#include "fleetd/asks.h"
#include "fleetd/core/core.h"
#include "raftstore/port.h"
#include "raftstore/store.h"

struct downlink;

struct downlink_callbacks {
    /* Whether the host may open a session: not if another host of the same machine id is there. A negative
     * return is told to the host, with 'err'. An open session of the same host is replaced. */
    int (*on_opening)(const Fleet__RegisterMachine *machine, struct err *err, void *data);
    /* A host's session has opened; its facts may differ from what the registry has. Reports, heartbeats, and
     * the end: all to go into the core. */
    void (*on_session)(const char *machine_id, uint64_t session_id, const Fleet__SessionOpen *open,
                       void *data);
    void (*on_reports)(const char *machine_id, uint64_t session_id, const Fleet__Reports *reports,
                       void *data);
    void (*on_heard)(const char *machine_id, uint64_t session_id, void *data);
    /* fleetd stops there, the host does not. The session stays until the host ends it. */
    void (*on_goodbye)(const char *machine_id, uint64_t session_id, void *data);
    /* The host is being shut down, and waits for what can move; or it is not any more. */
    void (*on_shutdown)(const char *machine_id, uint64_t session_id, bool begins, void *data);
    /* After on_heard: the heartbeat asks for a lease. */
    void (*on_lease)(const char *machine_id, uint64_t session_id, uint64_t sequence, bool urgent, void *data);
    void (*on_closed)(const char *machine_id, uint64_t session_id, void *data);
    void (*on_certificate_request)(const char *machine_id, const Fleet__CertificateRequest *request,
                                   void *data);
    void (*on_machine)(const Fleet__RegisterMachine *machine, void *data);
    void (*on_settings)(const char *machine_id, const Fleet__ChangeSettings *settings, void *data);
    /* As api_handle(); passed on by this machine. */
    uint64_t (*on_api_request)(const Fleet__ApiRequest *request, const char *machine_id, api_done *done,
                               void *done_data, void *data);
    void (*on_api_cancel)(uint64_t handle, void *data);
};

struct downlink *downlink_new(uv_loop_t *loop, const struct downlink_callbacks *callbacks, void *data);

/* Callbacks for an incoming session; the owner of the port has made sure that this host leads and that
 * 'machine_id' is a member. An older one of that machine that has not opened its session ends: there is at
 * most one such, and one open session, of a machine. */
const struct conn_callbacks *downlink_accept(struct downlink *downlink, struct conn *conn,
                                             const char *machine_id, void **ret_data);

/* Likewise for a machine that is no member any more: it is told so, and nothing else. */
const struct conn_callbacks *downlink_accept_removed(void);

/* What the host is told once its SessionOpen was taken in. */
void downlink_accepted(struct downlink *downlink, const char *machine_id,
                       const Fleet__SessionAccepted *accepted);

/* Sends (a piece of) a share; false: the host has no session (any more). */
bool downlink_send(struct downlink *downlink, const char *machine_id, const Fleet__SessionDown *message);

/* Asks a host about a unit, see asks_begin(). Errors beside those: it has no session, or its fleetd is too
 * old to be asked. */
uint64_t downlink_ask(struct downlink *downlink, const char *machine_id, Fleet__HostRequest *request,
                      uint64_t timeout_ms, asks_done *done, void *data, struct err *err);
void downlink_ask_cancel(struct downlink *downlink, uint64_t id);

/* Whether the host has a session. It is told something without meaning, so that the session ends soon if the
 * host has been booted since. */
bool downlink_poke(struct downlink *downlink, const char *machine_id);

/* What proves the host of an open session; NULL: nothing (insecure), or it has none. */
const struct pki_info *downlink_peer_info(const struct downlink *downlink, const char *machine_id);

/* Ends the session, and tells the host that it is no member any more. */
void downlink_dismiss(struct downlink *downlink, const char *machine_id);
void downlink_drop(struct downlink *downlink, const char *machine_id, const char *why);
void downlink_drop_all(struct downlink *downlink, const char *why);

/* To be called every second or so: sends hosts away that connect and say nothing, and ends questions that a
 * host has not answered in time. */
void downlink_tick(struct downlink *downlink);

/* When all its connections have ended. */
void downlink_free(struct downlink *downlink);
