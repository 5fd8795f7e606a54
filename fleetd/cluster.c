/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "fleetd/patience.h"
#include "raftstore/limits.h"
#include "raftstore/registry_security.h"

/* ---- store ---- */

static void on_change(void *data)
{
    struct daemon *daemon = data;

    daemon->registry_changed = true;
    if (daemon->core != NULL) /* Not yet while the store opens and loads its snapshot. */
        core_registry_touched(daemon->core);
}

static void on_role(void *data)
{
    struct daemon *daemon = data;

    if (daemon->uplink == NULL) /* Stopping. */
        return;
    if (store_role(daemon->store) == STORE_LEADER)
        uplink_set_leader(daemon->uplink, daemon->cluster_address, store_term(daemon->store));
    else
        uplink_set_leader(daemon->uplink, store_leader_address(daemon->store), store_term(daemon->store));
    daemon_update_status(daemon);
}

static void on_lead(uint64_t term, void *data)
{
    leading_start(data, term);
    daemon_update_status(data);
}

static void on_yield(void *data)
{
    leading_stop(data);
}

static void on_fatal(const char *why, void *data)
{
    daemon_fatal(data, why);
}

/* ---- connections from other hosts ---- */

/* Raft knows best; a host that has no part in it knows whom its own session is to. */
static const char *leader_hint(const struct daemon *daemon)
{
    const char *address = store_leader_address(daemon->store);

    return address[0] == '\0' && daemon->uplink != NULL ? uplink_leader(daemon->uplink) : address;
}

static int accept_session(struct daemon *daemon, struct conn *conn, const Fleet__Hello *hello,
                          const struct conn_callbacks **ret, void **ret_data, struct err *err)
{
    const struct registry_machine *machine =
        registry_machine(store_registry(daemon->store), hello->machine_id);

    if (admission_is_out(daemon, hello->machine_id)) {
        *ret = downlink_accept_removed();
        return 0;
    }
    if (registry_removed(store_registry(daemon->store), hello->machine_id) != NULL)
        return err_set(err, -EAGAIN, "machine %s is being removed", hello->machine_id);
    if (machine == NULL || !machine->registered || machine->server_id != hello->server_id)
        return err_set(err, -EACCES, "machine %s is no member of this cluster (any more)", hello->machine_id);
    *ret = downlink_accept(daemon->downlink, conn, machine->id, ret_data);
    return 0;
}

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct daemon *daemon = data;
    int r;

    if (daemon->store == NULL)
        return err_set(err, -EAGAIN, "this host %s",
                       daemon->bystander ? "has no room on its disk" : "belongs to no cluster yet");
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_RAFT) {
        r = admission_check_peer(daemon, hello, err);
        if (r < 0)
            return r;
        *ret = store_accept(daemon->store, hello, ret_data);
        return *ret != NULL ? 0 : err_set(err, -EACCES, "this server is not wanted");
    }
    if (daemon->stopping) /* Consensus goes on until leadership is handed over. */
        return err_set(err, -EAGAIN, "fleetd is stopping there");
    if (!store_leads(daemon->store)) {
        strncpy(leader_address, leader_hint(daemon), ADDRESS_MAX);
        return err_set(err, -EAGAIN, "this host does not lead");
    }
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_SESSION)
        return accept_session(daemon, conn, hello, ret, ret_data, err);
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_JOIN) {
        *ret = gate_accept(daemon->gate, conn, ret_data);
        return *ret != NULL ? 0 : err_set(err, -EAGAIN, "many hosts join at this moment: try again");
    }
    return err_set(err, -ENOTSUP, "this version does not know what the connection is for");
}

/* In a secure cluster nobody is older than that, whatever is held back. */
unsigned cluster_own_level(const struct daemon *daemon)
{
    unsigned level = daemon->config.feature_level;

    return !daemon->config.insecure && level < FEATURE_LEVEL_SECURE ? FEATURE_LEVEL_SECURE : level;
}

static struct port_identity port_identity(const struct daemon *daemon)
{
    struct port_identity identity = {
        .has_cluster = daemon->is_member, .server_id = daemon->member.server_id, .level = FEATURE_LEVEL};

    memcpy(identity.cluster_id, daemon->member.cluster_id, sizeof identity.cluster_id);
    memcpy(identity.machine_id, daemon->identity.machine_id, sizeof identity.machine_id);
    id_from_hex(daemon->identity.boot_id, identity.boot_id, sizeof identity.boot_id);
    return identity;
}

/* ---- API backend ---- */

static const struct registry *backend_registry(void *data)
{
    struct daemon *daemon = data;

    return store_registry(daemon->store);
}

static const struct core *backend_core(void *data)
{
    struct daemon *daemon = data;

    return daemon->core;
}

static bool backend_leads(void *data)
{
    struct daemon *daemon = data;

    return store_leads(daemon->store);
}

static void backend_propose(const Fleet__Command *command, store_done *done, void *done_data, void *data)
{
    struct daemon *daemon = data;

    store_propose(daemon->store, command, done, done_data);
}

static void backend_barrier(store_done *done, void *done_data, void *data)
{
    struct daemon *daemon = data;

    store_barrier(daemon->store, done, done_data);
}

static uint64_t backend_now_ms(void *data)
{
    return now_ms();
}

static uint64_t backend_wall_ms(void *data)
{
    return wall_ms();
}

static void backend_hand_over(void *data)
{
    leading_hand_over(data);
}

static size_t backend_servers(struct store_server *servers, size_t max, void *data)
{
    struct daemon *daemon = data;

    return store_servers(daemon->store, servers, max);
}

static uint64_t backend_leader_id(void *data)
{
    struct daemon *daemon = data;

    return store_leader_id(daemon->store);
}

static uint64_t backend_ask(const char *machine_id, Fleet__HostRequest *request, uint64_t timeout_ms,
                            asks_done *done, void *done_data, struct err *err, void *data)
{
    struct daemon *daemon = data;

    return downlink_ask(daemon->downlink, machine_id, request, timeout_ms, done, done_data, err);
}

static void backend_ask_cancel(uint64_t id, void *data)
{
    struct daemon *daemon = data;

    downlink_ask_cancel(daemon->downlink, id);
}

/* ---- membership ---- */

static bool lists_equal(const struct strlist *a, const struct strlist *b)
{
    for (size_t i = 0; i < a->count; i++)
        if (!strlist_has(b, a->items[i]))
            return false;
    return a->count == b->count;
}

void cluster_set_peers(struct daemon *daemon, const struct strlist *addresses)
{
    struct strlist *peers = &daemon->member.peers;
    struct err err = {0};
    int r;

    if (addresses->count == 0 || lists_equal(peers, addresses))
        return;
    strlist_done(peers);
    for (size_t i = 0; i < addresses->count; i++)
        strlist_add(peers, addresses->items[i]);
    uplink_set_members(daemon->uplink, peers);
    r = member_save(daemon->config.data_dir, &daemon->member, &err);
    if (r < 0) /* They still hold for as long as this daemon lives. */
        log_warn("%s", err_text(&err, r));
}

void cluster_learn_peers(struct daemon *daemon)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX);
    struct strlist addresses = {0};

    for (size_t i = 0; i < count; i++)
        strlist_add(&addresses, servers[i].address);
    cluster_set_peers(daemon, &addresses);
    strlist_done(&addresses);
}

/* Once the cluster exists, its founder is a member like the others: if it should lose its log, it must not
 * begin a second history under the same name. */
void cluster_forget_founding(struct daemon *daemon)
{
    static const uint8_t none[CLUSTER_ID_SIZE];
    struct err err = {0};
    int r;

    if (!daemon->member.founder ||
        memcmp(registry_cluster_id(store_registry(daemon->store)), none, sizeof none) == 0)
        return;
    credentials_forget_authority(&daemon->credentials); /* The registry has it. */
    daemon->member.founder = false;
    r = member_save(daemon->config.data_dir, &daemon->member, &err);
    if (r < 0) {
        daemon->member.founder = true;
        log_warn("%s", err_text(&err, r));
    }
}

/* Whoever ends for want of room, and is started again to end again, is taken for dead, and its units, which
 * run on, would be started a second time. */
static void stand_by(struct daemon *daemon, const struct err *why)
{
    daemon->bystander = true;
    log_error("%s. Until then this host keeps no copy of the cluster's data; its units run on, and it goes "
              "on with them",
              why->text);
}

void cluster_look_for_room(struct daemon *daemon)
{
    if (!daemon->bystander || store_check_room(daemon->config.data_dir, NULL) < 0)
        return;
    log_notice("There is room on the disk again: fleetd starts anew, with its copy of the cluster's data");
    _exit(EXIT_SUCCESS); /* Restart=always. Nothing is half done: a bystander only carries out its share. */
}

int cluster_become_member(struct daemon *daemon, struct err *err)
{
    static const struct store_callbacks store_callbacks = {.on_change = on_change,
                                                           .on_role = on_role,
                                                           .on_lead = on_lead,
                                                           .on_yield = on_yield,
                                                           .on_fatal = on_fatal};
    static const struct api_backend api_backend = {
        .registry = backend_registry,
        .core = backend_core,
        .leads = backend_leads,
        .propose = backend_propose,
        .barrier = backend_barrier,
        .now_ms = backend_now_ms,
        .wall_ms = backend_wall_ms,
        .hand_over = backend_hand_over,
        .servers = backend_servers,
        .leader_id = backend_leader_id,
        .ask = backend_ask,
        .ask_cancel = backend_ask_cancel,
    };
    struct store_config config = {
        .directory = daemon->config.data_dir,
        .server_id = daemon->member.server_id,
        .address = daemon->cluster_address,
        .bootstrap = daemon->member.founder,
    };
    struct patience *patience;
    struct port_identity identity;
    int r;

    r = renewal_apply(daemon, err);
    if (r < 0)
        return r;
    memcpy(config.cluster_id, daemon->member.cluster_id, sizeof config.cluster_id);
    daemon->is_member = true;
    hosting_describe(daemon);
    identity = port_identity(daemon);
    port_set_identity(daemon->port, &identity);
    daemon->uplink = hosting_uplink_new(daemon);
    uplink_set_members(daemon->uplink, &daemon->member.peers);
    daemon->downlink = leading_downlink_new(daemon);
    daemon->lessor = lessor_new(daemon);
    daemon->certifier = certifier_new(daemon);
    daemon->gate = admission_gate_new(daemon);
    daemon->prober = leading_prober_new(daemon, &identity);
    if (store_check_room(config.directory, err) < 0) {
        stand_by(daemon, err);
        return 0;
    }
    patience = patience_new("opening the log", PATIENCE_STEP_MS);
    r = store_open(daemon->loop, daemon->port, &config, &store_callbacks, daemon, &daemon->store, err);
    patience_free(patience);
    if (r < 0)
        return r;
    daemon->core = core_new(store_registry(daemon->store), daemon->config.agent_ttl_ms);
    leading_set_placing(daemon);
    daemon->api = api_new(&api_backend, daemon, daemon->config.token_limit);
    hosting_report_all(daemon);
    return 0;
}

int cluster_start(struct daemon *daemon, struct err *err)
{
    static const struct port_callbacks callbacks = {.on_accept = on_accept};
    struct port_identity identity = port_identity(daemon);
    int r;

    daemon->port = port_new(daemon->loop, &identity, &callbacks, daemon);
    r = port_listen(daemon->port, daemon->config.cluster_listen, err);
    return r < 0 ? r : membership_start(daemon, err);
}
