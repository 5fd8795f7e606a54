/* SPDX-License-Identifier: Apache-2.0 */
/* The rest of a host, as fleetd sees it: its clients, who it is, its membership file, its clocks, randomness,
 * the service manager that started it, the journal. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-login.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "fleetd/http_listen.h"
#include "fleetd/identity.h"
#include "fleetd/listeners.h"
#include "fleetd/logind.h"
#include "fleetd/patience.h"
#include "tests/sim/sim.h"

#include "fleetd/host_query.h"

/* ---- clients ---- */

struct http_server {
    struct sim_host *host;
    const struct http_callbacks *callbacks;
    void *data;
    struct sim_request *open[64];
    size_t open_count;
    void (*done)(void *data);
    void *done_data;
};

struct http_server *http_server_new(uv_loop_t *loop, const char *server_header,
                                    const struct http_callbacks *callbacks, void *data)
{
    struct http_server *server = NEW0(struct http_server);

    *server = (struct http_server){.host = loop->data, .callbacks = callbacks, .data = data};
    server->host->http = server;
    return server;
}

int http_server_add(struct http_server *server, int fd, struct err *err)
{
    return 0;
}

/* Clients come by sim_http(), wherever the API is offered. */

struct listeners *listeners_new(uv_loop_t *loop, struct http_server *server, bool insecure)
{
    return NULL;
}

void listeners_set_credentials(struct listeners *listeners, struct tls_credentials *credentials)
{
}

void listeners_end(struct listeners *listeners)
{
}

void listeners_close(struct listeners *listeners, void (*done)(void *data), void *data)
{
    done(data);
}

void listeners_take_passed(struct listeners *listeners, int first, int count, char *const *names)
{
}

int listeners_set_socket(struct listeners *listeners, const char *path, gid_t group, bool others,
                         struct err *err)
{
    return 0;
}

int listeners_set_address(struct listeners *listeners, const char *address, struct err *err)
{
    return 0;
}

void listeners_each(const struct listeners *listeners, void (*each)(const char *place, void *data),
                    void *data)
{
}

gid_t http_find_group(const char *name)
{
    return HTTP_NO_GROUP;
}

/* ---- its end in order ---- */

#define WAIT_MS 5000u /* logind's own. */
#define STOP_MS 300u  /* systemd stops what still runs. */

struct logind {
    struct sim_host *host;
    struct logind_callbacks callbacks;
    void *data;
    bool told, lock;
};

static void tell(void *data)
{
    struct logind *logind = data;
    bool begins = logind->host->shutdown != SIM_UP;

    if (begins == logind->told)
        return;
    logind->told = begins;
    logind->callbacks.on_shutdown(begins, logind->lock ? WAIT_MS : 0, logind->data);
    if (!begins)
        logind->lock = true;
}

static void on_news(void *data, bool lost)
{
    struct sim_host *host = data;

    if (!lost && host->logind != NULL)
        sim_turn(host, tell, host->logind);
}

static void spread_news(struct sim_host *host)
{
    sim_after(1, SIM_FLEETD, host, on_news, host);
}

/* One that is started while the host is being shut down gets no lock. */
struct logind *logind_new(uv_loop_t *loop, const struct logind_callbacks *callbacks, void *data)
{
    struct logind *logind = NEW0(struct logind);
    struct sim_host *host = loop->data;

    *logind = (struct logind){.host = host, .callbacks = *callbacks, .data = data};
    logind->lock = host->shutdown == SIM_UP;
    host->logind = logind;
    spread_news(host);
    return logind;
}

static void on_off(void *data, bool lost)
{
    struct sim_host *host = data;

    if (lost)
        return;
    if (host->shutdown == SIM_GOES_DOWN) {
        sim_power_cut(host);
        return;
    }
    sim_fleetd_kill(host); /* Faults are over: it is to be there. */
    sim_fleetd_start(host);
}

static void on_wait_over(void *data, bool lost)
{
    struct sim_host *host = data;

    if (lost || host->shutdown != SIM_WAITS)
        return;
    if (host->gives_up) {
        sim_shutdown_give_up(host);
        return;
    }
    sim_note(host, "is shut down");
    host->shutdown = SIM_GOES_DOWN;
    sim_fleetd_stop(host);
    sim_after(STOP_MS, SIM_HOST, host, on_off, host);
}

void logind_let_go(struct logind *logind)
{
    if (!logind->lock)
        return;
    logind->lock = false;
    sim_after(1, SIM_HOST, logind->host, on_wait_over, logind->host);
}

void sim_shutdown(struct sim_host *host, bool gives_up)
{
    if (!host->powered || host->shutdown != SIM_UP)
        return;
    sim_note(host, "is to be shut down");
    host->shutdown = SIM_WAITS;
    host->gives_up = gives_up;
    sim_law_shut_down(host);
    spread_news(host);
    sim_after(host->logind != NULL && host->logind->lock ? WAIT_MS : 1, SIM_HOST, host, on_wait_over, host);
}

void sim_shutdown_give_up(struct sim_host *host)
{
    if (host->shutdown == SIM_UP)
        return;
    sim_note(host, "is not shut down");
    sim_law_shut_down(host);
    host->shutdown = SIM_UP;
    spread_news(host);
}

void logind_close(struct logind *logind, void (*done)(void *data), void *data)
{
    if (logind->host->logind == logind)
        logind->host->logind = NULL;
    free(logind);
    if (done != NULL)
        done(data);
}

/* ---- what is not in the menu: a dump, and a start that takes long ---- */

void dump_begin(struct daemon *daemon)
{
}

struct patience *patience_new(const char *what, uint64_t step_ms)
{
    return NULL;
}

void patience_free(struct patience *patience)
{
}

int sd_listen_fds_with_names(int unset_environment, char ***ret_names)
{
    return 0;
}

/* ---- requests ---- */

static void answer(struct sim_request *request, unsigned status)
{
    struct http_server *server = request->host->http;

    for (size_t i = 0; server != NULL && i < server->open_count; i++)
        if (server->open[i] == request)
            server->open[i] = server->open[--server->open_count];
    request->answered(request, status, request->data);
    free(request->path);
    free(request->body);
    free(request);
}

void http_reply(struct http_request *http, unsigned status, const char *content_type, const void *body,
                size_t size)
{
    struct sim_request *request = CONTAINER_OF(http, struct sim_request, request);

    if (status >= 400 && !request->host->muted)
        sim_note(request->host, "client: %u %.*s", status, size < 160 ? (int)size : 160, (const char *)body);
    answer(request, request->host->muted ? 0 : status);
}

uint64_t http_server_answered(const struct http_server *server, unsigned status)
{
    return 0;
}

unsigned http_server_connections(const struct http_server *server)
{
    return 0;
}

static void on_http_closed(void *data)
{
    struct http_server *server = data;
    void (*done)(void *) = server->done;
    void *done_data = server->done_data;

    server->host->http = NULL;
    free(server);
    done(done_data);
}

void http_server_close(struct http_server *server, void (*done)(void *data), void *data)
{
    server->done = done;
    server->done_data = data;
    while (server->open_count > 0) {
        struct sim_request *request = server->open[server->open_count - 1];

        server->callbacks->on_gone(&request->request, server->data);
        answer(request, 0);
    }
    sim_defer(server->host, on_http_closed, server);
}

/* ---- host_query.h: answers take their time, and some never come ---- */

struct host_queries {
    struct sim_host *host;
    host_queries_reply *reply;
    void *data;
    struct query *open;
    void (*done)(void *data);
    void *done_data;
};

struct query {
    struct host_queries *queries; /* NULL: nobody wants the answer any more. */
    uint64_t id;
    struct query *prev, *next;
};

struct host_queries *host_queries_new(uv_loop_t *loop, bool user, host_queries_reply *reply, void *data)
{
    struct host_queries *queries = NEW0(struct host_queries);

    *queries = (struct host_queries){.host = loop->data, .reply = reply, .data = data};
    return queries;
}

static void on_queried(void *data, bool lost)
{
    struct query *query = data;
    struct host_queries *queries = lost ? NULL : query->queries;
    Fleet__HostReply reply = FLEET__HOST_REPLY__INIT;

    if (queries != NULL) {
        DL_DELETE(queries->open, query);
        reply.id = query->id;
        reply.json = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)"{}"};
        queries->reply(&reply, queries->data);
    }
    free(query);
}

void host_queries_begin(struct host_queries *queries, const Fleet__HostRequest *request)
{
    struct query *query = NEW0(struct query);

    *query = (struct query){.queries = queries, .id = request->id};
    DL_APPEND(queries->open, query);
    sim_after(sim_chance(20) ? 60000 : sim_random(2000), SIM_FLEETD, queries->host, on_queried, query);
}

static void cancel(struct host_queries *queries, struct query *query)
{
    query->queries = NULL;
    DL_DELETE(queries->open, query);
}

void host_queries_cancel(struct host_queries *queries, uint64_t id)
{
    struct query *query, *next;

    DL_FOREACH_SAFE (queries->open, query, next)
        if (query->id == id)
            cancel(queries, query);
}

void host_queries_cancel_all(struct host_queries *queries)
{
    while (queries->open != NULL)
        cancel(queries, queries->open);
}

static void on_queries_closed(void *data)
{
    struct host_queries *queries = data;
    void (*done)(void *) = queries->done;
    void *done_data = queries->done_data;

    free(queries);
    done(done_data);
}

void host_queries_close(struct host_queries *queries, void (*done)(void *data), void *data)
{
    host_queries_cancel_all(queries);
    queries->done = done;
    queries->done_data = data;
    sim_defer(sim.current, on_queries_closed, queries);
}

size_t sim_http_open(const struct sim_host *host)
{
    return host->http != NULL ? host->http->open_count : 0;
}

static void begin(void *data)
{
    struct sim_request *request = data;
    struct http_server *server = request->host->http;

    server->callbacks->on_request(&request->request, server->data);
}

void sim_http(struct sim_host *host, const char *method, const char *path, const char *body,
              void (*answered)(struct sim_request *, unsigned status, void *data), void *data)
{
    static const struct access_caller root = {.kind = ACCESS_LOCAL, .role = PKI_ROLE_ADMIN};
    struct sim_request *request = NEW0(struct sim_request);
    char *query, *value;

    request->host = host;
    request->path = xstrdup(path);
    request->body = xstrdup(body != NULL ? body : "");
    request->answered = answered;
    request->data = data;
    request->request = (struct http_request){.method = method,
                                             .path = request->path,
                                             .content_type = "application/json",
                                             .content_type_count = 1,
                                             .body = request->body,
                                             .body_size = strlen(request->body),
                                             .user_agent = "",
                                             .peer = "uid 0",
                                             .caller = &root};
    query = strchr(request->path, '?'); /* At most one, which asks for nothing that must be decoded. */
    value = query != NULL ? strchr(query, '=') : NULL;
    if (value != NULL) {
        *query = *value = '\0';
        request->query = (struct http_query){query + 1, value + 1};
        request->request.query = &request->query;
        request->request.query_count = 1;
    }
    if (!sim_fleetd_acts(host) || host->stopping || host->http == NULL ||
        host->http->open_count == ARRAY_SIZE(host->http->open)) {
        answer(request, 503); /* Nobody has taken it. */
        return;
    }
    host->http->open[host->http->open_count++] = request;
    sim_turn(host, begin, request);
}

/* ---- identity and membership ---- */

int identity_read(const char *public_ip, struct identity *ret, struct err *err)
{
    const struct sim_host *host = sim.current;

    *ret = (struct identity){.hostname = xstrdup(host->name), .public_ip = xstrdup("10.0.0.1")};
    snprintf(ret->machine_id, sizeof ret->machine_id, "%s", host->machine_id);
    memcpy(ret->boot_id, host->boot_id, sizeof ret->boot_id);
    return 0;
}

void identity_done(struct identity *identity)
{
    free(identity->hostname);
    free(identity->public_ip);
    *identity = (struct identity){0};
}

static void copy_member(struct member *to, const struct member *from)
{
    *to = *from;
    to->peers = to->keepers = (struct strlist){0};
    for (size_t i = 0; i < from->peers.count; i++)
        strlist_add(&to->peers, from->peers.items[i]);
    for (size_t i = 0; i < from->keepers.count; i++)
        strlist_add(&to->keepers, from->keepers.items[i]);
}

void sim_member_copy(struct sim_host *host, const struct sim_host *original)
{
    host->has_member = original->has_member;
    if (original->has_member)
        copy_member(&host->member, &original->member);
}

int member_load(const char *data_dir, struct member *ret, struct err *err)
{
    if (!sim.current->has_member)
        return -ENOENT;
    copy_member(ret, &sim.current->member);
    return 0;
}

int member_save(const char *data_dir, const struct member *member, struct err *err)
{
    if (sim_dies_here())
        return 0;
    if (member->removed)
        sim_law_removed(sim.current, member);
    if (sim.current->has_member)
        member_done(&sim.current->member);
    copy_member(&sim.current->member, member);
    sim.current->has_member = true;
    return 0;
}

int member_forget(const char *data_dir, struct err *err)
{
    struct sim_host *host = sim.current;

    if (sim_dies_here())
        return 0;
    sim_note(host, "has forgotten that it was a member");
    if (host->has_member)
        member_done(&host->member);
    host->has_member = false;
    sim_consensus_forget(host);
    return 0;
}

bool member_is_superseded(const char *data_dir, char **ret)
{
    return false;
}

void member_clear_superseded(const char *data_dir)
{
}

int member_supersede(const char *data_dir, const char *why, struct err *err)
{
    return 0;
}

void member_draw_server_id(struct member *member)
{
    member->server_id = (sim_random(1u << 30) << 8 | sim.current->index) + 1;
}

void member_draw_cluster_id(struct member *member)
{
    memset(member->cluster_id, 'C', sizeof member->cluster_id);
}

/* Simulated clusters are insecure: nobody has a certificate, and nobody asks for one. */
int credentials_load(const char *data_dir, struct credentials *ret, struct err *err)
{
    *ret = (struct credentials){0};
    return 0;
}

void credentials_done(struct credentials *credentials)
{
}

bool credentials_complete(const struct credentials *credentials)
{
    return false;
}

bool credentials_ended(const struct credentials *credentials, uint64_t now_ms)
{
    return false;
}

int credentials_trust(struct credentials *credentials, const struct pki_blob *roots, size_t count,
                      struct err *err)
{
    abort();
}

void credentials_forget_authority(const struct credentials *credentials)
{
}

int credentials_request(struct credentials *credentials, struct pki_blob *ret, struct err *err)
{
    abort();
}

int credentials_take(struct credentials *credentials, const struct credentials_issued *issued,
                     const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE], const char *machine_id, uint64_t now_ms,
                     struct err *err)
{
    abort();
}

int credentials_save_authority(struct credentials *credentials, const struct pki_key *key, struct err *err)
{
    abort();
}

int credentials_load_authority(const struct credentials *credentials, struct pki_blob *ret, struct err *err)
{
    abort();
}

void member_done(struct member *member)
{
    strlist_done(&member->peers);
    strlist_done(&member->keepers);
}

/* ---- the configuration, when it is read again ---- */

int __wrap_config_load_strict(const char *file, struct config *ret, struct err *err);

int __wrap_config_load_strict(const char *file, struct config *ret, struct err *err)
{
    sim_config(sim.current, ret);
    return 0;
}

/* ---- clocks and chance: the linker puts these in the place of the real ones (--wrap) ---- */

uint64_t __wrap_now_ms(void);
uint64_t __wrap_wall_ms(void);
ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags);

uint64_t __wrap_now_ms(void)
{
    return sim.current != NULL ? sim_clock_ms(sim.current) : sim.now_ms;
}

uint64_t __wrap_wall_ms(void)
{
    return UINT64_C(1700000000000) + sim.now_ms +
           (uint64_t)(sim.current != NULL ? sim.current->wall_offset_ms : 0);
}

ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)to)[i] = (uint8_t)sim_random(256);
    return (ssize_t)size;
}

/* ---- systemd as fleetd's own manager ---- */

int sd_notify(int unset, const char *state)
{
    return 0;
}

int sd_notifyf(int unset, const char *format, ...)
{
    return 0;
}

int sd_watchdog_enabled(int unset, uint64_t *usec)
{
    return 0;
}

int sd_pid_get_unit(pid_t pid, char **ret)
{
    return -ENODATA;
}

int sd_pid_get_user_unit(pid_t pid, char **ret)
{
    return -ENODATA;
}

/* ---- the journal ---- */

void sim_log(int priority, const char *message, const char *const *fields)
{
    static const char machine[] = "FLEET_MACHINE=";
    bool lost, hung;

    if (sim.current != NULL && sim.current->muted)
        return;
    sim_note(sim.current, "%s", message);
    lost = strstr(message, " is lost: not heard for") != NULL;
    hung = strstr(message, ": fleetd does not answer there") != NULL ||
           strstr(message, ": fleetd was stopped there") != NULL;
    for (; (lost || hung) && fields != NULL && *fields != NULL; fields++)
        if (str_has_prefix(*fields, machine))
            (lost ? sim_law_lost : sim_law_hung)(sim.current, *fields + strlen(machine));
}
