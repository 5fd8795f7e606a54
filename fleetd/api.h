/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP API (fleet-behaviour.md §4 and fleet-api(7)) as far as it is the leader's: requests come in from
 * this host's clients or through other hosts' sessions, are checked, become at most one command, and are
 * answered when it is applied. Reads are answered after a barrier, so that they are current. It knows nothing
 * of sockets. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fleetd/access.h"
#include "fleetd/asks.h"
#include "fleetd/core/core.h"
#include "fleetd/core/voters.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/store.h"

struct api;

/* What the API needs of the world: the store of this host in production, pure stand-ins in its unit test. */
struct api_backend {
    const struct registry *(*registry)(void *data);
    const struct core *(*core)(void *data);
    bool (*leads)(void *data);
    void (*propose)(const Fleet__Command *command, store_done *done, void *done_data, void *data);
    void (*barrier)(store_done *done, void *done_data, void *data);
    uint64_t (*now_ms)(void *data);
    uint64_t (*wall_ms)(void *data); /* The wall clock. */
    bool (*secure)(void *data);      /* Whether the cluster is one with an authority. */
    /* Extra facts about members for GET /members: as store_servers(); and who leads (server id). */
    size_t (*servers)(struct store_server *servers, size_t max, void *data);
    uint64_t (*leader_id)(void *data);
    /* How things are among the voters (core/voters.h), NULL if this host does not lead; borrowed for the
     * moment. And as voting_hand_over() of daemon_private.h. */
    const struct voters_facts *(*voters)(void *data);
    int (*hand_over)(const uint64_t *server_ids, size_t count, struct err *err, void *data);
    /* Asks a host about a unit: as asks_begin() and asks_cancel(). */
    uint64_t (*ask)(const char *machine_id, Fleet__HostRequest *request, uint64_t timeout_ms, asks_done *done,
                    void *done_data, struct err *err, void *data);
    void (*ask_cancel)(uint64_t id, void *data);
};

struct api_answer {
    unsigned status;          /* HTTP. */
    const char *content_type; /* NULL: no body. */
    const char *body;         /* Borrowed for the call. */
    size_t size;
};

typedef void api_done(const struct api_answer *answer, void *data);

struct api *api_new(const struct api_backend *backend, void *data, unsigned token_limit);
void api_free(struct api *api); /* Requests that are still open are answered 503 first. */
void api_set_token_limit(struct api *api, unsigned token_limit);

/* Works on a request; this host must lead, or the request must be one that may be answered from what this
 * host knows (stale=yes; then nothing is waited for). 'done' comes exactly once, possibly from inside this
 * call. Returns a handle for api_cancel(), 0 if 'done' came already. 'request' is borrowed for the call.
 * 'via' is the machine id of the host that has passed it on, by whose word its caller is who he is; NULL: it
 * came to this host, and is answered here. */
uint64_t api_handle(struct api *api, const Fleet__ApiRequest *request, const char *via, api_done *done,
                    void *data);

/* Nobody waits for the answer any more: 'done' does not come. What was proposed stays proposed. */
void api_cancel(struct api *api, uint64_t handle);

/* The core said EFFECT_SETTLED about 'unit' ("": any): looks at those who wait for it. */
void api_unit_changed(struct api *api, const char *unit);

/* Leadership was lost: everything open is answered with 503 (nothing done) or 504 (outcome unknown). */
void api_yield(struct api *api);

/* Ends waits whose deadline has passed; and when to call next (UINT64_MAX: never). */
void api_tick(struct api *api, uint64_t now_ms);
uint64_t api_deadline_ms(const struct api *api);

/* Whether any host answers this request by itself, inside api_handle(): there is no such path or method, it
 * asks for a description of the API, or for what the host knows (stale=yes). */
bool api_request_is_local(const Fleet__ApiRequest *request);

/* Whether this request changes something (and so needs the leader and a request id). */
bool api_request_changes(const Fleet__ApiRequest *request);

/* What the registry has of an ACCESS_CLIENT's certificate. */
enum access_certificate api_certificate(const struct registry *registry, const struct access_caller *caller,
                                        uint64_t wall_ms);

/* What a host may claim that somebody is (access.h): everything if it has the cluster's data. */
enum pki_role api_host_role(const struct registry *registry, const struct store_server *servers, size_t count,
                            const char *machine_id);

/* Whether it has a deadline of its own, and may take long. */
bool api_request_lasts(const Fleet__ApiRequest *request);
