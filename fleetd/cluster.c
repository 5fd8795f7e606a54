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

/* No leader for so long is more than an election. */
#define LEADERLESS_MS        10000u
#define HISTORY_COMPLAINT_MS 60000u

static struct port_identity port_identity(const struct daemon *daemon);

/* What it says of itself has changed. */
static void set_port_identity(struct daemon *daemon)
{
    struct port_identity identity = port_identity(daemon);

    port_set_identity(daemon->port, &identity);
}

/* ---- store ---- */

static void on_change(void *data)
{
    struct daemon *daemon = data;

    daemon->registry_changed = true;
    if (daemon->core == NULL) /* Not yet while the store opens and loads its snapshot. */
        return;
    cluster_note_log(daemon);
    core_registry_touched(daemon->core);
}

static void on_role(void *data)
{
    struct daemon *daemon = data;

    if (daemon->uplink == NULL) /* Stopping. */
        return;
    /* When there is one, and when there is none any more. */
    if (daemon->is_led || store_leader_id(daemon->store) != 0)
        daemon->led_ms = now_ms();
    daemon->is_led = store_leader_id(daemon->store) != 0;
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

/* ---- histories ---- */

void cluster_note_log(struct daemon *daemon)
{
    struct err err = {0};
    int r;

    if (daemon->member.has_log || !store_has_log(daemon->store))
        return;
    daemon->member.has_log = true;
    set_port_identity(daemon);
    r = member_save(daemon->config.data_dir, &daemon->member, &err);
    if (r < 0) {
        daemon->member.has_log = false; /* Again, with the next change. */
        log_warn("%s", err_text(&err, r));
    }
}

bool cluster_follow_history(struct daemon *daemon, const struct cluster_history *history)
{
    struct member *member = &daemon->member;
    struct err err = {0};
    int r;

    if (history_equal(history, &member->history))
        return true;
    if (history->recoveries <= member->history.recoveries || daemon->superseded != NULL ||
        (daemon->store != NULL ? store_has_log(daemon->store)
                               : store_directory_has_log(daemon->config.data_dir)))
        return false;
    log_notice(
        "The cluster was recovered (number %llu) out of one host's data; this host has none of its own, "
        "and follows",
        (unsigned long long)history->recoveries);
    member->history = *history;
    set_port_identity(daemon);
    r = member_save(daemon->config.data_dir, member, &err);
    if (r < 0) /* After a restart it is told again. */
        log_warn("%s", err_text(&err, r));
    return true;
}

/* Whether 'machine_id' is one of those who keep the data, for all that we know: only they can know better. A
 * registry that is not filled yet, for want of a leader, knows nothing; the member file does. */
static bool keeps_data(const struct daemon *daemon, const char *machine_id)
{
    return daemon->member.keepers.count == 0 || strlist_has(&daemon->member.keepers, machine_id);
}

static bool was_led_lately(const struct daemon *daemon)
{
    return daemon->is_led || store_leader_id(daemon->store) != 0 ||
           (daemon->led_ms != 0 && now_ms() - daemon->led_ms < LEADERLESS_MS);
}

/* Somebody's data are of a later history than ours: our cluster was given up while this host was away, and
 * with others that were away it could make a second one out of it. As long as our own has a leader, though,
 * it is the other one that should not be: then a person has to decide. */
static void on_later_history(const struct cluster_history *history, const char *machine_id, void *data)
{
    struct daemon *daemon = data;
    _cleanup_(freep) char *why = NULL;
    struct err err = {0};
    bool led;
    int r;

    if (daemon->store == NULL || !store_has_log(daemon->store))
        return;
    led = was_led_lately(daemon);
    if (led || !keeps_data(daemon, machine_id)) {
        if (daemon->complaint_ms != 0 && now_ms() - daemon->complaint_ms < HISTORY_COMPLAINT_MS)
            return;
        daemon->complaint_ms = now_ms();
        log_error("Machine %s has data of the cluster's recovery number %llu, this host of number %llu, %s. "
                  "They do not speak with each other; one of the two must be given up (docs/RECOVERY.md)",
                  machine_id, (unsigned long long)history->recoveries,
                  (unsigned long long)daemon->member.history.recoveries,
                  led ? "and here there is a leader" : "and that machine kept no data before");
        return;
    }
    why = xasprintf(
        "the cluster was recovered (number %llu) out of another host's data, as machine %s says, and "
        "this host's are of before that. Move %s away, and join this host again; or, if the recovery "
        "was the mistake, remove %s/superseded and restart fleetd",
        (unsigned long long)history->recoveries, machine_id, daemon->config.data_dir,
        daemon->config.data_dir);
    r = member_supersede(daemon->config.data_dir, why, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    log_error("This host takes no part in consensus any more: %s. Its units run on", why);
    _exit(EXIT_SUCCESS); /* Restart=always: it starts anew, without its copy of the data. */
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
    const struct registry_removed *removed =
        registry_removed(store_registry(daemon->store), hello->machine_id);
    int r;

    if (removed != NULL && removed->server_id == hello->server_id &&
        core_machine_leaves(daemon->core, hello->machine_id)) { /* To report what it still has. */
        *ret = downlink_accept(daemon->downlink, conn, hello->machine_id, ret_data);
        return 0;
    }
    if (admission_is_out(daemon, hello->machine_id)) {
        *ret = downlink_accept_removed();
        return 0;
    }
    if (removed != NULL)
        return err_set(err, -EAGAIN, "machine %s is being removed", hello->machine_id);
    if (machine == NULL || !machine->registered || machine->server_id != hello->server_id)
        return err_set(err, -EACCES, "machine %s is no member of this cluster (any more)", hello->machine_id);
    r = admission_check_key(daemon, conn, hello->machine_id, hello->server_id, err);
    if (r < 0)
        return r;
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
                       daemon->superseded != NULL ? "keeps data of before the cluster's recovery"
                       : daemon->bystander        ? "has no room on its disk"
                                                  : "belongs to no cluster yet");
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_RAFT) {
        r = admission_check_peer(daemon, conn, hello, err);
        if (r >= 0)
            r = proving_check_server(conn, hello->server_id, err, daemon);
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
        .has_cluster = daemon->is_member,
        .server_id = daemon->member.server_id,
        .history = daemon->member.history,
        .level = FEATURE_LEVEL,
        .has_log = daemon->member.has_log ||
                   (daemon->store == NULL && store_directory_has_log(daemon->config.data_dir))};

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

static bool backend_secure(void *data)
{
    struct daemon *daemon = data;

    return !daemon->config.insecure;
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

static const struct voters_facts *backend_voters(void *data)
{
    struct daemon *daemon = data;

    return voting_facts(daemon->voting);
}

static int backend_hand_over(const uint64_t *server_ids, size_t count, struct err *err, void *data)
{
    struct daemon *daemon = data;

    return voting_hand_over(daemon->voting, server_ids, count, err);
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

bool cluster_knows_peers(const struct daemon *daemon, const struct strlist *addresses)
{
    return lists_equal(&daemon->member.peers, addresses);
}

static void save_member(struct daemon *daemon)
{
    struct err err = {0};
    int r = member_save(daemon->config.data_dir, &daemon->member, &err);

    if (r < 0) /* It still holds for as long as this daemon lives. */
        log_warn("%s", err_text(&err, r));
}

static bool set_list(struct strlist *list, const struct strlist *to)
{
    if (to->count == 0 || lists_equal(list, to))
        return false;
    strlist_done(list);
    for (size_t i = 0; i < to->count; i++)
        strlist_add(list, to->items[i]);
    return true;
}

static void add_once(struct strlist *list, const char *item)
{
    if (!strlist_has(list, item))
        strlist_add(list, item);
}

/* Also where they have moved to; and after a while whom the configuration names: where all have got other
 * addresses while this host was off, it may be all that is left. Whoever answers proves that it leads. */
void cluster_tell_members(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    struct strlist asked = {0};

    if (daemon->uplink == NULL)
        return; /* It was removed. */
    for (size_t i = 0; i < daemon->member.peers.count; i++)
        add_once(&asked, daemon->member.peers.items[i]);
    for (size_t i = 0; i < config->moved_to.count; i++)
        if (strlist_has(&daemon->member.peers, config->moved_from.items[i]))
            add_once(&asked, config->moved_to.items[i]);
    for (size_t i = 0; i < config->join.count && daemon->asks_around; i++)
        add_once(&asked, config->join.items[i]);
    uplink_set_members(daemon->uplink, &asked);
    strlist_done(&asked);
}

void cluster_set_peers(struct daemon *daemon, const struct strlist *addresses)
{
    if (!set_list(&daemon->member.peers, addresses))
        return;
    cluster_tell_members(daemon);
    save_member(daemon);
}

/* Whether all that is to be learnt of these servers was, from the same registry. */
static bool are_learnt(const struct daemon *daemon, const struct store_server *servers, size_t count)
{
    const struct learnt_servers *learnt = &daemon->learnt;

    if (count == 0 || learnt->count != count || daemon->member.peers.count != count ||
        daemon->member.keepers.count == 0 ||
        learnt->version != registry_version(store_registry(daemon->store)))
        return false;
    for (size_t i = 0; i < count; i++)
        if (learnt->ids[i] != servers[i].id || !strlist_has(&daemon->member.peers, servers[i].address))
            return false;
    return true;
}

/* Who has a part in consensus no more knows only who had one then. */
void cluster_learn_peers(struct daemon *daemon)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX), machine_count;
    const struct registry_machine *const *machines;
    struct strlist addresses = {0}, keepers = {0};

    if (store_role(daemon->store) != STORE_LEADER && store_role(daemon->store) != STORE_FOLLOWER)
        return;
    if (are_learnt(daemon, servers, count))
        return; /* It is looked at every second, and nothing has changed in most of them. */
    daemon->learnt.version = registry_version(store_registry(daemon->store));
    daemon->learnt.count = count;
    for (size_t i = 0; i < count; i++)
        daemon->learnt.ids[i] = servers[i].id;
    machines = registry_machines(store_registry(daemon->store), &machine_count);
    for (size_t i = 0; i < count; i++)
        strlist_add(&addresses, servers[i].address);
    for (size_t i = 0; i < machine_count; i++)
        for (size_t j = 0; j < count; j++)
            if (machines[i]->server_id == servers[j].id)
                strlist_add(&keepers, machines[i]->id);
    cluster_set_peers(daemon, &addresses);
    /* Of some it is not known (yet) which machine they are: the entries are not applied so far. */
    for (size_t i = 0; i < daemon->member.keepers.count && keepers.count < count; i++)
        if (!strlist_has(&keepers, daemon->member.keepers.items[i]))
            strlist_add(&keepers, daemon->member.keepers.items[i]);
    if (set_list(&daemon->member.keepers, &keepers))
        save_member(daemon);
    strlist_done(&addresses);
    strlist_done(&keepers);
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
    hosting_describe(daemon);
    log_error("%s. Until then this host keeps no copy of the cluster's data; its units run on, and it goes "
              "on with them",
              why->text);
}

/* It has nothing to say, but its units run on: whoever asks after this host finds it there. */
static bool is_superseded(struct daemon *daemon)
{
    if (!member_is_superseded(daemon->config.data_dir, &daemon->superseded))
        return false;
    daemon->bystander = true;
    log_error("This host takes no part in its cluster: %s. Its units run on", daemon->superseded);
    return true;
}

void cluster_look_for_room(struct daemon *daemon)
{
    if (!daemon->bystander || daemon->superseded != NULL ||
        store_check_room(daemon->config.data_dir, NULL) < 0)
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
        .secure = backend_secure,
        .servers = backend_servers,
        .leader_id = backend_leader_id,
        .voters = backend_voters,
        .hand_over = backend_hand_over,
        .ask = backend_ask,
        .ask_cancel = backend_ask_cancel,
    };
    struct store_move moves[CONFIG_MOVED_MAX];
    struct store_config config = {
        .directory = daemon->config.data_dir,
        .server_id = daemon->member.server_id,
        .address = daemon->cluster_address,
        .history = daemon->member.history,
        .has_log = daemon->member.has_log,
        .bootstrap = daemon->member.founder,
        .moves = moves,
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
    cluster_tell_members(daemon);
    daemon->downlink = leading_downlink_new(daemon);
    daemon->lessor = lessor_new(daemon);
    daemon->certifier = certifier_new(daemon);
    daemon->gate = admission_gate_new(daemon);
    daemon->voting = voting_new(daemon);
    daemon->prober = leading_prober_new(daemon);
    if (is_superseded(daemon))
        return 0;
    if (store_check_room(config.directory, err) < 0) {
        stand_by(daemon, err);
        return 0;
    }
    for (size_t i = 0; i < daemon->config.moved_from.count; i++)
        moves[config.move_count++] =
            (struct store_move){daemon->config.moved_from.items[i], daemon->config.moved_to.items[i]};
    patience = patience_new("opening the log", PATIENCE_STEP_MS);
    r = store_open(daemon->loop, daemon->port, &config, &store_callbacks, daemon, &daemon->store, err);
    patience_free(patience);
    if (r < 0)
        return r;
    place_start(daemon);
    daemon->core = core_new(store_registry(daemon->store), daemon->config.agent_ttl_ms);
    leading_set_placing(daemon);
    daemon->api = api_new(&api_backend, daemon, daemon->config.token_limit);
    cluster_note_log(daemon);
    hosting_report_all(daemon);
    return 0;
}

int cluster_start(struct daemon *daemon, struct err *err)
{
    static const struct port_callbacks callbacks = {.on_accept = on_accept,
                                                    .on_later_history = on_later_history,
                                                    .prove = proving_sign,
                                                    .check_server = proving_check_server};
    struct port_identity identity = port_identity(daemon);
    int r;

    daemon->port = port_new(daemon->loop, &identity, &callbacks, daemon);
    r = port_listen(daemon->port, daemon->config.cluster_listen, err);
    return r < 0 ? r : membership_start(daemon, err);
}
