/* SPDX-License-Identifier: Apache-2.0 */
/* Takes API requests of this host's clients to the leader, and the answers back. A request without a leader
 * waits a little for one; one whose leader is lost goes to the next one, and with it its request id, so that
 * what it changes is changed once. Reads with stale=yes, /status, /metrics, and what
 * needs no leader (errors in paths and methods, the description of the API) are answered here. So is who may
 * not even read (access.h); of everybody else the leader hears who he is, and decides. */
#pragma once

#include <uv.h>

#include "fleetd/api.h"
#include "fleetd/http.h"
#include "raftstore/fleet.pb-c.h"

/* How long a request may take, from its arrival: then it is answered 503, or 504 where its outcome is
 * unknown. Whoever only reads is better served soon by what this host knows (stale=yes). A wait has its own
 * deadline, and goes on for as long as there is a leader. */
#define ROUTER_CHANGE_MS 8000u
#define ROUTER_READ_MS   3000u

struct router;

struct router_callbacks {
    bool (*send)(const Fleet__SessionUp *message, void *data); /* To the leader; false: no session. */
    const char *(*trouble)(void *data);                        /* Why there is none. */
    bool (*member)(void *data);                                /* Whether this host belongs to a cluster. */
    /* Whether this caller may do what needs that role, as far as this host knows; 'here': what is to be
     * answered here, and so nobody else will look. -EACCES with the reason. */
    int (*admit)(const struct access_caller *caller, enum pki_role needed, bool here, struct err *err,
                 void *data);
    /* Answers from what this host knows, as api_handle(). */
    uint64_t (*local)(const Fleet__ApiRequest *request, api_done *done, void *done_data, void *data);
    char *(*status)(void *data);  /* The body of GET /status; owned by the caller. */
    char *(*metrics)(void *data); /* Likewise of /metrics. */
};

struct router *router_new(uv_loop_t *loop, const struct router_callbacks *callbacks, void *data);

/* Whether the caller may do what needs that role, and is answered by this host itself. Otherwise it is
 * answered, and written down. */
bool router_admits(struct router *router, struct http_request *request, enum pki_role needed);

void router_request(struct router *router, struct http_request *request);
void router_gone(struct router *router, struct http_request *request);
void router_reply(struct router *router, const Fleet__ApiReply *reply);
void router_connected(struct router *router);    /* The session is open: what waits goes out. */
void router_disconnected(struct router *router); /* What was sent and not answered waits again. */

/* Answers everything 503, closes its timer; 'done' comes last, and it is freed then. */
void router_close(struct router *router, void (*done)(void *data), void *data);
