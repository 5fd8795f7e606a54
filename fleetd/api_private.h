/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the API share: one request from its arrival to its answer.
 *
 *      api_handle() --route--> begin() --+--> api_answer()                       bad requests, discovery
 *                                        +--> api_propose() --> applied()        changes
 *                                        +--> barrier --> answer()               reads, waits
 *
 * A handler may answer at any of these places, once; while one of them runs, the request stays in memory. A
 * request that is gone (answered, cancelled) leaves only its ticket behind with the store, which then means
 * nothing to anybody. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <uthash.h>

#include "base/err.h"
#include "base/str.h"
#include "fleetd/api.h"
#include "fleetd/api_page.h"
#include "fleetd/audit.h"
#include "pki/pki.h"

#define CONTENT_TYPE_JSON "application/json"
#define API_LINGER_MAX    64u /* Restarts at once by the first fleet's client; older ones are forgotten. */

struct api_request;
struct api_ticket;
struct api_backup;
struct api_hosts;
struct api_wait;
struct api_wait_name;

enum api_kind {
    API_LOCAL,  /* Needs neither leader nor registry. begin() answers. */
    API_READ,   /* answer() is called when the registry is known to be current. begin() may be NULL. */
    API_WAIT,   /* As API_READ, but it has a deadline of its own, and may take long. */
    API_CHANGE, /* begin() proposes, or answers. */
};

struct api_method {
    const char *name;
    enum pki_role needs; /* Who may do it. */
    enum api_kind kind;
    void (*begin)(struct api_request *request, const Fleet__ApiRequest *message);
    void (*answer)(struct api_request *request);
};

struct api_request {
    struct api *api;
    uint64_t handle;
    const struct api_method *method;
    char *name;           /* The last element of an item's path, or NULL. */
    struct strlist query; /* Key, value, key, value... */
    bool stale;           /* Answer from what this host knows. */
    struct access_caller caller;
    char *via;                /* See api_handle(). */
    char *peer, *verb, *path; /* Who asked for what: for the journal... */
    char *outcome;            /* ...and why it came to nothing; NULL: it did not. */
    bool first_fleet;         /* From the first fleet's client. */
    bool halts;               /* That client stops a running unit: see api_linger.c. */
    uint8_t request_id[REQUEST_ID_SIZE];
    bool has_request_id;

    api_done *done;
    void *done_data;
    bool held, answered;
    struct api_ticket *ticket; /* While the store owes an answer. */
    bool proposed;
    void (*applied)(struct api_request *request, const struct registry_result *result);
    void *work; /* The handler's own, ended by... */
    void (*work_free)(void *work);
    UT_hash_handle hh;
};

struct api_linger {
    char *unit; /* NULL: free. */
    uint64_t generation, until_ms;
};

struct api {
    struct api_backend backend;
    void *data;
    unsigned token_limit;
    bool closing;
    uint64_t last_handle;
    struct api_request *requests; /* Open ones, oldest first: a hash by handle. */
    struct api_ticket *tickets;
    struct api_wait *waits; /* By deadline. */
    struct api_wait *ready; /* To be answered with the next tick. */
    struct api_wait_name *wait_names;
    size_t waited_units;
    struct audit_budget refusals;
    struct api_linger lingers[API_LINGER_MAX];
    unsigned next_linger;
    struct api_backup *backups;  /* API_BACKUPS_MAX of them, or NULL. */
    struct api_hosts *following; /* Requests that follow a journal. */
};

/* ---- api_route.c ---- */

/* The method that serves the request, or NULL: then *ret_status and *ret_text are the answer. *ret_name is
 * the item's name, borrowed from 'path', or NULL. */
const struct api_method *api_route(const char *path, const char *method, const char **ret_name,
                                   unsigned *ret_status, const char **ret_text);

/* Every path and method there is, by 'index' from 0; false behind the last one. */
struct api_route {
    const char *resource;
    bool item;
    const struct api_method *method;
};
bool api_route_each(size_t index, struct api_route *ret);

/* Whether a request for this method is content with what this host knows. */
bool api_asks_stale(const struct api_method *method, const Fleet__ApiRequest *request);

/* ---- api.c: answering, proposing ---- */

const struct registry *api_registry(const struct api_request *request);
const struct core *api_core(const struct api_request *request);

/* The first value of a query parameter; "" if there is none. */
const char *api_query(const struct api_request *request, const char *key);
size_t api_query_count(const struct api_request *request, const char *key);

void api_answer(struct api_request *request, unsigned status, const char *content_type, const char *body,
                size_t size);
void api_answer_empty(struct api_request *request, unsigned status);
void api_answer_json(struct api_request *request, json_t *object); /* 200; takes over 'object'. */
void api_answer_error(struct api_request *request, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The status for a negative errno of a check: 400, 404, 409, 413, 507 ... */
void api_answer_failure(struct api_request *request, int code, const struct err *err);

/* What this very request came to, if it was carried out before: it is then not checked again. */
const struct registry_result *api_earlier(const struct api_request *request);

/* Proposes 'command' as what the request changes. 'applied' is called with what the registry made of it, and
 * answers; refusals and unknown outcomes of the store are answered here. */
void api_propose(struct api_request *request, Fleet__Command *command,
                 void (*applied)(struct api_request *request, const struct registry_result *result));

/* Answers with the registry's refusal. */
void api_answer_refused(struct api_request *request, const struct registry_result *result);

/* For api_propose(): 204 if it was done, and the refusal if not. */
void api_answer_done(struct api_request *request, const struct registry_result *result);

/* Begins the page that the request asks for, or answers why not and returns a negative errno. */
int api_request_page(struct api_request *request, struct api_page *page);

/* ---- api_access.c ---- */

/* Whether the caller may do that, 0 or -EACCES with the reason. */
int api_admit(const struct api_request *request, enum pki_role needed, struct err *err);

/* It is answered with this status (0: it was not, since nobody waits for it any more): tells the journal what
 * belongs there. */
void api_write_down(struct api_request *request, unsigned status);

/* ---- api_linger.c: the first fleet's client restarts a unit ---- */

/* That client has just set 'unit' from launched to loaded. */
void api_linger_begin(struct api *api, const struct registry_unit *unit);

/* Whether that client, which asks for 'unit', is to see it launched once more. */
bool api_linger_end(struct api *api, const struct registry_unit *unit);

void api_linger_free(struct api *api);

/* ---- handlers ---- */

void api_backup_begin(struct api_request *request, const Fleet__ApiRequest *message);
void api_backup_get(struct api_request *request);
void api_backup_piece(struct api_request *request, const Fleet__ApiRequest *message);
void api_discovery_get(struct api_request *request, const Fleet__ApiRequest *message);
void api_machines_get(struct api_request *request);
void api_machines_availability(struct api_request *request, const Fleet__ApiRequest *message);
void api_machines_confirm_lost(struct api_request *request, const Fleet__ApiRequest *message);
void api_machines_patch(struct api_request *request, const Fleet__ApiRequest *message);
void api_clients_get(struct api_request *request);
void api_clients_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_client_delete(struct api_request *request, const Fleet__ApiRequest *message);
void api_authority_get(struct api_request *request);
void api_authority_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_machine_delete(struct api_request *request, const Fleet__ApiRequest *message);
void api_join_tokens_get(struct api_request *request);
void api_join_tokens_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_join_token_delete(struct api_request *request, const Fleet__ApiRequest *message);
void api_members_get(struct api_request *request);
void api_level_get(struct api_request *request);
void api_members_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_leadership_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_settings_get(struct api_request *request);
void api_settings_patch(struct api_request *request, const Fleet__ApiRequest *message);
void api_explain_get(struct api_request *request);
void api_state_list(struct api_request *request);
void api_state_get(struct api_request *request);
void api_units_list(struct api_request *request);
void api_units_post(struct api_request *request, const Fleet__ApiRequest *message);
void api_unit_get(struct api_request *request);
void api_unit_put(struct api_request *request, const Fleet__ApiRequest *message);
void api_unit_delete(struct api_request *request, const Fleet__ApiRequest *message);
void api_status_get(struct api_request *request);
void api_journal_get(struct api_request *request);
void api_wait_begin(struct api_request *request, const Fleet__ApiRequest *message);
void api_wait_start(struct api_request *request);

/* Something about 'unit' ("": any) has changed: whoever follows its journal may have to ask elsewhere. */
void api_hosts_look(struct api *api, const char *unit);

/* ---- shared by several handlers ---- */

/* Begins to hand leadership over, to this machine or (NULL) to any voter that can take it; -EEXIST and the
 * like, with a text, if there is none. */
int api_hand_over(const struct api_request *request, const struct registry_machine *to, struct err *err);

/* How many units each machine of 'ids' has: what is placed there, and global units that apply. */
struct api_load;
struct api_load *api_load_new(const struct registry *registry, const struct core *core);
size_t api_load_of(const struct api_load *load, const char *machine_id);
void api_load_free(struct api_load *load);
DEFINE_FREEP(struct api_load, api_load)

/* "ready", "suspected", "stopped", "hung", "missing", "lost", "joining"; "" where this host cannot know. */
const char *api_machine_state(const struct core *core, const struct registry_machine *machine);
const char *api_availability(const struct registry_machine *machine); /* "active", "cordoned", "draining" */
