/* SPDX-License-Identifier: Apache-2.0 */
/* What a leader says in a host's session: messages one after the other, each behind its size in two bytes. A
 * Certificate without anything in it stands for the right one, Credentials without roots for those that there
 * are and one more. A leader is believed, but it may be of another version, or mad: whatever it says, the
 * host goes on, says things that are some, carries out no share that makes no sense, and what it keeps on its
 * disk lets it start again. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/bus.h"
#include "fleetd/http_listen.h"
#include "tests/fuzz/authority.h"
#include "tests/fuzz/conn.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/host.h"
#include "units/file.h"
#include "units/name.h"

static struct daemon host;
static char *units_directory, *state_file;
static unsigned queries; /* That are worked on. */

/* ---- what else there is of a daemon ---- */

/* Nobody is there: what is wanted waits. */
struct bus *bus_new(uv_loop_t *loop, enum bus_kind kind, const struct bus_callbacks *callbacks, void *data)
{
    return NULL;
}

void bus_proved(struct bus *bus)
{
}

void bus_fail(struct bus *bus, const char *why)
{
}

void bus_close(struct bus *bus, void (*done)(void *data), void *data)
{
    done(data);
}

bool __wrap_agent_is_informed(const struct agent *agent);
bool __wrap_agent_is_informed(const struct agent *agent)
{
    return true; /* That nothing runs here. */
}

bool cluster_follow_history(struct daemon *daemon, const struct cluster_history *history)
{
    return history_equal(history, &daemon->member.history);
}

unsigned cluster_own_level(const struct daemon *daemon)
{
    return FEATURE_LEVEL;
}

void cluster_set_peers(struct daemon *daemon, const struct strlist *addresses)
{
    struct err err = {0};
    int r;

    if (addresses->count == 0)
        return;
    strlist_done(&daemon->member.peers);
    for (size_t i = 0; i < addresses->count; i++)
        strlist_add(&daemon->member.peers, addresses->items[i]);
    uplink_set_members(daemon->uplink, &daemon->member.peers);
    r = member_save(daemon->config.data_dir, &daemon->member, &err);
    assert(r == 0);
}

void daemon_update_status(struct daemon *daemon)
{
    (void)uplink_trouble(daemon->uplink);
}

void farewell_answered(struct daemon *daemon)
{
}

bool going_down_opening(struct going_down *down)
{
    return false;
}

void going_down_accepted(struct going_down *down, bool moves)
{
}

void going_down_session_lost(struct going_down *down)
{
}

void going_down_ready(struct going_down *down)
{
}

void host_queries_begin(struct host_queries *all, const Fleet__HostRequest *request)
{
    assert(request->unit != NULL && request->cursor != NULL);
    queries++;
}

void host_queries_cancel(struct host_queries *all, uint64_t id)
{
}

void host_queries_cancel_all(struct host_queries *all)
{
    queries = 0;
}

void listeners_set_credentials(struct listeners *listeners, struct tls_credentials *credentials)
{
    assert(credentials != NULL);
}

void membership_arrived(struct daemon *daemon)
{
}

void removal_heard(struct daemon *daemon)
{
}

void http_reply(struct http_request *request, unsigned status, const char *content_type, const void *body,
                size_t size)
{
    assert(size == 0 || (body != NULL && content_type != NULL));
}

/* ---- what is not used here ---- */

#define NEVER(type, name, ...) \
    type name(__VA_ARGS__)     \
    {                          \
        abort();               \
    }

NEVER(struct going_down *, going_down_new, struct daemon *daemon)
NEVER(struct host_queries *, host_queries_new, uv_loop_t *loop, bool user, host_queries_reply *reply,
      void *data)
NEVER(gid_t, http_find_group, const char *name)
NEVER(struct http_server *, http_server_new, uv_loop_t *loop, const char *header,
      const struct http_callbacks *callbacks, void *data)
NEVER(struct listeners *, listeners_new, uv_loop_t *loop, struct http_server *server, bool insecure)
NEVER(int, listeners_set_address, struct listeners *listeners, const char *address, struct err *err)
NEVER(int, listeners_set_socket, struct listeners *listeners, const char *path, gid_t group, bool others,
      struct err *err)
NEVER(void, listeners_take_passed, struct listeners *listeners, int first, int count, char *const *names)
NEVER(bool, membership_request, struct daemon *daemon, struct http_request *request)
NEVER(void, membership_gone, struct daemon *daemon, struct http_request *request)
NEVER(char *, observing_metrics, struct daemon *daemon)
NEVER(const struct registry *, store_registry, const struct store *store)
NEVER(const char *, store_leader_address, const struct store *store)
NEVER(void, store_retire, struct store *store)
NEVER(enum store_role, store_role, const struct store *store)
NEVER(uint64_t, store_term, const struct store *store)

/* ---- the leader ---- */

static void check_sent(const uint8_t *bytes, size_t size)
{
    Fleet__SessionUp *message = fleet__session_up__unpack(NULL, size, bytes);

    assert(message != NULL && message->message_case != FLEET__SESSION_UP__MESSAGE__NOT_SET);
    fleet__session_up__free_unpacked(message, NULL);
}

static ProtobufCBinaryData *one(struct pki_blob blob)
{
    ProtobufCBinaryData *list = NEW0(ProtobufCBinaryData);

    *list = (ProtobufCBinaryData){.len = blob.size, .data = blob.data};
    return list;
}

static ProtobufCBinaryData *authorities(size_t count)
{
    struct pki_blob root = fuzz_authority()->certificate;
    ProtobufCBinaryData *list = xcalloc(count, sizeof *list);

    for (size_t i = 0; i < count; i++)
        list[i] = (ProtobufCBinaryData){.len = root.size, .data = xmemdup(root.data, root.size)};
    return list;
}

/* Whether there was something to put right. */
static bool put_right(Fleet__SessionDown *message)
{
    _cleanup_(pki_blob_done) struct pki_blob request = {0};

    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_CERTIFICATE &&
        message->certificate->error[0] == '\0' && message->certificate->n_chain == 0 &&
        message->certificate->n_roots == 0) {
        if (credentials_request(&host.credentials, &request, NULL) < 0)
            abort();
        message->certificate->chain = one(fuzz_authority_certify(FUZZ_HOST, &request));
        message->certificate->roots = authorities(1);
        message->certificate->n_chain = message->certificate->n_roots = 1;
        return true;
    }
    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_CREDENTIALS &&
        message->credentials->n_roots == 0) {
        message->credentials->roots = authorities(2);
        message->credentials->n_roots = 2;
        return true;
    }
    return false;
}

static void say(struct conn *conn, const uint8_t *data, size_t size)
{
    Fleet__SessionDown *message = fleet__session_down__unpack(NULL, size, data);
    _cleanup_(freep) uint8_t *bytes = NULL;

    if (message != NULL && put_right(message)) {
        size = fleet__session_down__get_packed_size(message);
        bytes = xmalloc(size);
        fleet__session_down__pack(message, bytes);
    }
    if (message != NULL)
        fleet__session_down__free_unpacked(message, NULL);
    fuzz_conn_says(conn, bytes != NULL ? bytes : data, size);
}

/* ---- the host ---- */

static void on_wanted(const char *name, enum unit_state desired, void *data)
{
    assert(unit_name_check(name, NULL) == 0 && !unit_name_is_template(name));
    assert(desired == UNIT_STATE_LAUNCHED || desired == UNIT_STATE_LOADED);
}

static void on_report(const struct agent_report *report, void *data)
{
}

static void on_bus(bool connected, const char *why, void *data)
{
}

static void begin(void)
{
    static const struct agent_callbacks callbacks = {.on_report = on_report, .on_bus = on_bus};
    struct agent_config config = {0};
    struct err err = {0};
    struct strlist leaders = {0};
    int r;

    fuzz_host_begin(&host);
    fuzz_host_certify(&host);
    units_directory = xasprintf("%s/units", host.config.data_dir);
    state_file = xasprintf("%s/agent.state", host.config.data_dir);
    config.units_directory = units_directory;
    config.state_file = state_file;
    r = agent_new(host.loop, &config, &callbacks, &host, &host.agent, &err);
    assert(r == 0);
    host.is_member = true;
    memcpy(host.member.cluster_id, FUZZ_CLUSTER, CLUSTER_ID_SIZE);
    strcpy(host.member.machine_id, FUZZ_HOST);
    host.member.server_id = 1;
    hosting_describe(&host);
    host.uplink = hosting_uplink_new(&host);
    strlist_add(&leaders, FUZZ_HOST_LEADER);
    uplink_set_members(host.uplink, &leaders);
    strlist_done(&leaders);
}

static void on_nothing(void *data)
{
}

static void end(void)
{
    uplink_close(host.uplink, on_nothing, NULL);
    if (fuzz_conn_dialled() != NULL)
        fuzz_conn_end(fuzz_conn_dialled(), NULL);
    agent_close(host.agent, on_nothing, NULL);
    fuzz_host_turn();
    for (size_t i = 0; i < host.share.count; i++) /* What was still to come is lost with its session. */
        fleet__share__free_unpacked(host.share.pieces[i], NULL);
    free(host.share.pieces);
    free(host.machine.metadata);
    free(host.machine.roots);
    unlink(state_file);
    rmdir(units_directory);
    free(units_directory);
    free(state_file);
    fuzz_host_end(&host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conn *conn;

    begin();
    conn = fuzz_host_dials(check_sent);
    fuzz_conn_speak(conn, data, size, say, fuzz_host_turn);
    agent_wanted_each(host.agent, on_wanted, NULL);
    fuzz_host_check(&host);
    end();
    return 0;
}
