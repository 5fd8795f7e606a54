/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/store.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/address.h"
#include "raftstore/last_words.h"
#include "raftstore/store_private.h"

/* A planned failover costs 1.4 to 2 times this (docs/RAFT.md §3); with 700 ms a new leader is there in
 * well under two seconds, and the loop's longest known stall (closing a log segment, 50 ms) is far from it.
 */
#define ELECTION_MS_DEFAULT     700u
#define HEARTBEATS_PER_ELECTION 5u

/* Only a standby that has nearly all gets a vote, and meanwhile nothing else can be changed. */
#define CATCH_UP_ROUND_MS 10000u
#define CLOSE_MS          10000u
#define REFUSED_TOLD_MS   10000u

static_assert((int)SERVER_STANDBY == RAFT_STANDBY && (int)SERVER_VOTER == RAFT_VOTER &&
                  (int)SERVER_SPARE == RAFT_SPARE,
              "roles are libraft's");

const struct registry *store_registry(const struct store *store)
{
    return store->registry;
}

bool store_has_log(const struct store *store)
{
    return store->started && !store->raft_closed && raft_last_index((struct raft *)&store->raft) > 0;
}

void store_changes_take(struct store *store, struct registry_changes *ret)
{
    registry_changes_take(store->registry, ret);
}

/* ---- network ---- */

const struct conn_callbacks *store_accept(struct store *store, const Fleet__Hello *hello, void **ret_data)
{
    return store->raft_closed ? NULL
                              : raftnet_accept(store->net, hello->server_id, hello->boot_id.data, ret_data);
}

/* ---- what the world is told ---- */

static enum store_role current_role(struct store *store, uint64_t leader_id)
{
    switch (raft_state(&store->raft)) {
    case RAFT_LEADER: return STORE_LEADER;
    case RAFT_CANDIDATE: return STORE_CANDIDATE;
    default: return leader_id != 0 ? STORE_FOLLOWER : STORE_IDLE;
    }
}

/* Tells what is different from what was last told. raft has no callback for these, so this is asked once in
 * every turn of the loop. */
static void observe(struct store *store)
{
    const struct raft_server *server;
    const char *address = NULL, *moved;
    raft_id leader_id = 0;
    enum store_role role;
    uint64_t term;
    bool leads;

    if (!store->started || store->raft_closed)
        return;
    raft_leader(&store->raft, &leader_id, &address);
    role = current_role(store, leader_id);
    term = raft_compat_term(&store->raft);
    leads = guard_is_ready(&store->guard);
    /* What the configuration says is where it listens; raft may only know where it called from. A new server
     * hears its leader before it has a configuration. */
    server = store_find_server(store, leader_id);
    address = server != NULL && strlen(server->address) <= ADDRESS_MAX ? server->address : "";
    moved = store_moved_to(store, leader_id, address);
    if (moved != NULL)
        address = moved;

    if (store->leads && (!leads || term != store->term)) {
        store->leads = false;
        store->callbacks.on_yield(store->data);
    }
    if (role != store->role || term != store->term || leader_id != store->leader_id ||
        strcmp(address, store->leader_address) != 0) {
        store->role = role;
        store->term = term;
        store->leader_id = leader_id;
        strcpy(store->leader_address, address);
        store->callbacks.on_role(store->data);
    }
    if (leads && !store->leads && !store->closing) {
        store->leads = true;
        store->callbacks.on_lead(term, store->data);
        store_disk_yield_lead(store);
    }
}

static void on_check(uv_check_t *check)
{
    struct store *store = check->data;

    if (store->raft_closed)
        return;
    guard_observe(&store->guard);
    observe(store);
    store_members_turn(store);
}

enum store_role store_role(const struct store *store)
{
    return store->role;
}

bool store_leads(const struct store *store)
{
    return store->started && !store->raft_closed && guard_is_ready(&store->guard);
}

uint64_t store_term(const struct store *store)
{
    return raft_compat_term((struct raft *)&store->raft);
}

uint64_t store_leader_id(const struct store *store)
{
    return store->leader_id;
}

const char *store_leader_address(const struct store *store)
{
    return store->leader_address;
}

/* ---- guard ---- */

void store_fatal(struct store *store, const char *why)
{
    store->callbacks.on_fatal(why, store->data);
    _exit(EXIT_FAILURE);
}

static void on_fatal(void *data, const char *what, int status)
{
    struct store *store = data;
    char why[1024];

    snprintf(why, sizeof why, "%s in %s%s%s%s%s", what, store->directory, status != 0 ? ": " : "",
             status != 0 ? store_raft_text(status) : "", store->io.errmsg[0] != '\0' ? ": " : "",
             store->io.errmsg);
    store_fatal(store, why);
}

static void on_role(void *data, int old_role, int new_role, raft_term term)
{
    /* observe() sees it in this turn of the loop. */
}

/* A directory that must not be used is not to be written to either: with a term of our own in it the next
 * start would find nothing wrong any more. */
static int on_loaded(void *data, raft_term term, raft_index last_index)
{
    struct store *store = data;

    store->load_status = store_disk_check(store, store->opening, term, last_index, &store->load_error);
    return store->load_status < 0 ? RAFT_INVALID : 0;
}

static void on_refused(void *data, raft_id from, enum guard_rule rule, const char *why)
{
    struct store *store = data;
    uint64_t now = uv_now(store->loop);

    if (store->refused_told_ms != 0 && now - store->refused_told_ms < REFUSED_TOLD_MS) {
        store->refused_untold++;
        return;
    }
    log_warn("Refused a message of server %016llx: %s (%s; %u others since the last such line)", from, why,
             guard_rule_name(rule), store->refused_untold);
    store->refused_told_ms = now;
    store->refused_untold = 0;
}

/* ---- opening ---- */

static void set_tunables(struct store *store)
{
    raft_set_election_timeout(&store->raft, store->election_ms);
    raft_set_heartbeat_timeout(&store->raft, store->election_ms / HEARTBEATS_PER_ELECTION);
    raft_set_pre_vote(&store->raft, true);
    raft_set_max_catch_up_round_duration(&store->raft, CATCH_UP_ROUND_MS);
}

static int open_raft(struct store *store, const struct store_config *config)
{
    static const struct guard_callbacks guard_callbacks = {
        .on_fatal = on_fatal, .on_role = on_role, .on_loaded = on_loaded, .on_refused = on_refused};
    int r;

    raftnet_null_transport(&store->transport);
    r = raft_uv_init(&store->io, store->loop, store->directory, &store->transport);
    if (r != 0)
        return r;
    /* Both are on by default: one forgets acknowledged entries after a bit flip, the other doubles memory
     * (docs/RAFT.md §4, §6). */
    raft_uv_set_auto_recovery(&store->io, false);
    (void)raft_uv_set_snapshot_compression(&store->io, false);
    raftnet_install(store->net, &store->io);
    guard_init(&store->guard, &store->raft, &store->io, &guard_callbacks, store);
    r = raft_init(&store->raft, guard_io(&store->guard), &store->fsm, config->server_id, config->address);
    if (r == 0) {
        set_tunables(store);
        store_fsm_start(store);
    }
    return r;
}

static int bootstrap(struct store *store, const struct store_config *config)
{
    struct raft_configuration configuration;
    int r;

    raft_configuration_init(&configuration);
    r = raft_configuration_add(&configuration, config->server_id, config->address, RAFT_VOTER);
    if (r == 0)
        r = raft_bootstrap(&store->raft, &configuration);
    raft_configuration_close(&configuration);
    return r == RAFT_CANTBOOTSTRAP ? 0 : r; /* It is done already. */
}

static int start_raft(struct store *store, const struct store_config *config, struct err *err)
{
    _cleanup_(freep) char *words =
        xasprintf("fleetd died while it was reading the log in %s: that is damaged; if the cluster has other "
                  "voters, wipe it and let this host join again as a new server",
                  store->directory);
    int r;

    store->opening = config;
    last_words_set(words);
    r = open_raft(store, config);

    /* It would write a term into a directory that has lost its own. */
    if (r == 0 && config->bootstrap && !store->disk.had_log)
        r = bootstrap(store, config);
    if (r == 0)
        r = raft_start(&store->raft);
    last_words_clear();
    store->opening = NULL;
    if (store->load_status < 0)
        return err_set(err, store->load_status, "%s", store->load_error.text);
    return r == 0 ? 0 : store_disk_error(store, r, err);
}

static void start_handles(struct store *store)
{
    uv_check_init(store->loop, &store->check);
    store->check.data = store;
    uv_check_start(&store->check, on_check);
    uv_unref((uv_handle_t *)&store->check);
    uv_timer_init(store->loop, &store->timer);
    store->timer.data = store;
    store->handles = 2;
}

static void tell_early_changes(void *data)
{
    struct store *store = data;

    store->callbacks.on_change(store->data);
}

static struct store *store_new(uv_loop_t *loop, const struct store_config *config,
                               const struct store_callbacks *callbacks, void *data)
{
    struct store *store = NEW0(struct store);

    store->loop = loop;
    store->callbacks = *callbacks;
    store->data = data;
    store->directory = xasprintf("%s/" STORE_LOG_DIRECTORY, config->directory);
    store->server_id = config->server_id;
    store->address = xstrdup(config->address);
    store->election_ms = config->election_ms != 0 ? config->election_ms : ELECTION_MS_DEFAULT;
    store->snapshot_log_bytes = config->snapshot_log_bytes;
    store_fsm_init(store);
    return store;
}

static void store_free(struct store *store)
{
    free(store->directory);
    free(store->address);
    store_place_done(store);
    registry_snapshot_free(store->registry, store->snapshot);
    registry_free(store->registry);
    free(store);
}

/* The log knows whose it is, too. One without a cluster's first command is not asked. */
static int check_registry(const struct store *store, const struct store_config *config, struct err *err)
{
    static const uint8_t none[CLUSTER_ID_SIZE];
    const uint8_t *id = registry_cluster_id(store->registry);

    if (memcmp(id, none, sizeof none) == 0)
        return 0;
    if (memcmp(id, config->cluster_id, sizeof none) != 0)
        return err_set(err, -EXDEV,
                       "the log in %s is another cluster's; move %s away and join this host again",
                       store->directory, config->directory);
    if (!history_equal(registry_history(store->registry), &config->history))
        return err_set(err, -EXDEV,
                       "the log in %s is not of the history that this host follows (recovery %llu instead of "
                       "%llu); move %s away and join this host again",
                       store->directory, (unsigned long long)registry_history(store->registry)->recoveries,
                       (unsigned long long)config->history.recoveries, config->directory);
    return 0;
}

static int check_address(const char *text, struct err *err)
{
    struct address address;
    int r = address_parse(text, &address, err);

    if (r >= 0 && (address.host[0] == '\0' || strlen(text) > ADDRESS_MAX))
        r = err_set(err, -EINVAL, "it names no host that others could dial");
    return r < 0 ? err_prefix(err, r, "the address of this server, \"%s\"", text) : 0;
}

int store_open(uv_loop_t *loop, struct port *port, const struct store_config *config,
               const struct store_callbacks *callbacks, void *data, struct store **ret, struct err *err)
{
    static const struct raftnet_callbacks net_callbacks = {.on_resolve = store_resolve,
                                                           .on_locate = store_locate};
    struct store *store;
    int r = check_address(config->address, err);

    assert(config->server_id != 0);
    if (r < 0)
        return r;
    store = store_new(loop, config, callbacks, data);
    r = store_disk_prepare(store, config, err);
    if (r < 0) {
        store_free(store);
        return r;
    }
    store->defer = defer_new(loop);
    store->net = raftnet_new(loop, port, &net_callbacks, store);
    r = start_raft(store, config, err);
    if (r >= 0)
        r = check_registry(store, config, err);
    /* There is no way back into a clean loop from a half-open libraft 0.15: the caller ends the process. */
    if (r < 0)
        return r;
    store_place_start(store, config);
    start_handles(store);
    store_disk_start(store);
    store->started = true;
    if (store->changed_early)
        defer_call(store->defer, tell_early_changes, store);
    *ret = store;
    return 0;
}

/* ---- closing ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct store *store = handle->data;
    void (*closed)(void *) = store->closed;
    void *closed_data = store->closed_data;

    if (--store->handles > 0)
        return;
    /* Up to here whoever still asks something is answered. */
    store_refuse_queued(store);
    defer_close(store->defer);
    store_free(store);
    closed(closed_data);
}

void store_finish(struct store *store)
{
    uv_close((uv_handle_t *)&store->check, on_handle_closed);
    uv_close((uv_handle_t *)&store->timer, on_handle_closed);
}

static void on_raft_closed(struct raft *raft)
{
    struct store *store = raft->data;

    store->raft_closed = true;
    raftnet_free(store->net);
    raft_uv_close(&store->io);
    guard_done(&store->guard);
    store_disk_close(store);
}

void store_close_raft(struct store *store)
{
    store->raft.data = store;
    raft_close(&store->raft, on_raft_closed);
    observe(store); /* Whoever led must hear that it is over. */
}

/* Several close-time bugs of libraft were fixed after 0.15 (docs/RAFT.md §7); ending the process is always
 * safe for the data. */
static void on_close_watchdog(uv_timer_t *timer)
{
    store_fatal(timer->data, "libraft did not close in time");
}

/* A hand-over takes milliseconds, a new election most of a second (docs/RAFT.md §3). */
void store_close(struct store *store, void (*done)(void *data), void *data)
{
    assert(!store->closing);
    store->closing = true;
    store->closed = done;
    store->closed_data = data;
    uv_timer_start(&store->timer, on_close_watchdog, CLOSE_MS, 0);
    store_handover_begin(store);
}
