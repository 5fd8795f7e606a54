/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"

#define CHORES_MS      1000u
#define IDENTITY_TURNS 60u  /* Of the chores. */
#define TURN_MS        100u /* More than a turn of the loop takes. */
#define READS_MAX      3u

void daemon_fatal(struct daemon *daemon, const char *why)
{
    _cleanup_(freep) char *reason = xasprintf("FLEET_REASON=%s", why);

    log_message(LOG_CRIT, log_fields(MESSAGE_FATAL, reason), "fleetd must stop: %s. Units run on", why);
    sd_notifyf(0, "STATUS=Failed: %s", why);
    /* At once: nothing that is half done may be told to anybody, or be finished. */
    _exit(EXIT_FAILURE);
}

/* ---- status ---- */

static void describe_status(const struct daemon *daemon, char *to, size_t size)
{
    size_t units, machines;

    if (daemon->member.removed) {
        removal_describe(daemon, to, size);
        return;
    }
    if (!daemon->is_member) {
        membership_describe(daemon, to, size);
        return;
    }
    if (credentials_ended(&daemon->credentials, wall_ms()) && !uplink_is_open(daemon->uplink)) {
        snprintf(to, size,
                 "this host's certificate has ended (fleetctl join HOST:PORT --token-file FILE gives it a "
                 "new one); %zu "
                 "units here run on",
                 agent_unit_count(daemon->agent));
        return;
    }
    if (daemon->superseded != NULL) {
        snprintf(to, size,
                 "takes no part in its cluster, whose data were recovered elsewhere (see the journal); "
                 "%zu units here run on",
                 agent_unit_count(daemon->agent));
        return;
    }
    if (daemon->bystander) {
        snprintf(to, size, "no room on the disk: no copy of the cluster's data here; %zu units here run on%s",
                 agent_unit_count(daemon->agent),
                 uplink_is_open(daemon->uplink) ? "" : ", no session to a leader");
        return;
    }
    registry_units(store_registry(daemon->store), &units);
    registry_machines(store_registry(daemon->store), &machines);
    if (store_leads(daemon->store))
        snprintf(to, size, "leader, term %llu, %zu machines, %zu units, %zu here%s",
                 (unsigned long long)store_term(daemon->store), machines, units,
                 agent_unit_count(daemon->agent),
                 daemon->config.disable_engine ? "; places nothing (disable_engine)" : "");
    else if (uplink_is_open(daemon->uplink))
        snprintf(to, size, "follows %s, term %llu, %zu units here", store_leader_address(daemon->store),
                 (unsigned long long)store_term(daemon->store), agent_unit_count(daemon->agent));
    else
        snprintf(to, size, "no leader (%s%s); %zu units here run on", uplink_trouble(daemon->uplink),
                 place_trouble(daemon), agent_unit_count(daemon->agent));
}

void daemon_update_status(struct daemon *daemon)
{
    char status[sizeof daemon->status];

    if (daemon->stopping || (daemon->is_member && daemon->api == NULL && !daemon->bystander))
        return;
    describe_status(daemon, status, sizeof status);
    if (streq(status, daemon->status) && daemon->ready)
        return;
    strcpy(daemon->status, status);
    sd_notifyf(0, "%sSTATUS=%s", daemon->ready ? "" : "READY=1\n", status);
    daemon->ready = true;
}

/* ---- once in a turn of the loop ---- */

static void on_timer(uv_timer_t *timer);

static void arm_timer(struct daemon *daemon)
{
    uint64_t deadline = core_deadline_ms(daemon->core), api = api_deadline_ms(daemon->api), now;
    uint64_t lessor = lessor_deadline_ms(daemon->lessor);

    if (api < deadline)
        deadline = api;
    if (lessor < deadline)
        deadline = lessor;
    if (deadline == UINT64_MAX) {
        uv_timer_stop(&daemon->timer);
        return;
    }
    now = now_ms();
    if (deadline > now)
        daemon->reads = 0;
    uv_timer_start(&daemon->timer, on_timer, deadline > now ? deadline - now : 0, 0);
}

/* Timers run before anything is read: of a host that is about to be taken for silent something may lie here
 * already, if this one was busy, or stood still, for a moment. So the loop turns once more; and once more if
 * that was when it stood still. */
static void on_timer(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    uint64_t now = now_ms();

    if (daemon->reads == 0 || (daemon->reads < READS_MAX && now - daemon->reads_since_ms > TURN_MS)) {
        daemon->reads++;
        daemon->reads_since_ms = now;
        uv_timer_start(timer, on_timer, 0, 0);
        return;
    }
    daemon->reads = 0;
    leading_tick(daemon);
    api_tick(daemon->api, now_ms());
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct daemon *daemon = prepare->data;

    hosting_step(daemon); /* Also without a cluster: reports that nobody is to have must not pile up. */
    if (daemon->api == NULL || daemon->store == NULL)
        return;
    leading_step(daemon);
    if (daemon->stopping)
        return;
    lessor_step(daemon->lessor);
    arm_timer(daemon);
}

/* Addresses come and go with leases and cables (fleet-behaviour.md §5.4: once a minute). */
static void refresh_identity(struct daemon *daemon)
{
    struct identity fresh;
    struct err err = {0};
    int r = identity_read(daemon->config.public_ip, &fresh, &err);

    if (r < 0)
        log_warn("Unable to refresh machine state: %s", err_text(&err, r));
    else if (hosting_refresh(daemon, &fresh))
        hosting_announce(daemon);
}

static void on_chores(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;

    daemon->turn++;
    if (!daemon->stopping && daemon->turn % IDENTITY_TURNS == 0)
        refresh_identity(daemon);
    if (!daemon->stopping) {
        cluster_look_for_room(daemon);
        membership_tick(daemon);
        place_tick(daemon);
        removal_tick(daemon);
    }
    if (daemon->api != NULL && !daemon->stopping) {
        admission_look(daemon);
        leading_chores(daemon);
        leading_probe(daemon);
    }
    daemon_update_status(daemon);
    /* By the clock: a process that was frozen for a while must not wait for its next turn. */
    if (daemon->watchdog_ms > 0 && now_ms() - daemon->watchdog_sent_ms >= daemon->watchdog_ms) {
        sd_notify(0, "WATCHDOG=1");
        daemon->watchdog_sent_ms = now_ms();
    }
}

/* ---- end ---- */

static void on_agent_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->agent = NULL;
    if (daemon->api != NULL)
        api_free(TAKE_PTR(daemon->api)); /* Nobody can ask it any more, and the store owes it nothing. */
    going_down_close(TAKE_PTR(daemon->going_down));
    uv_close((uv_handle_t *)&daemon->prepare, NULL);
    uv_close((uv_handle_t *)&daemon->timer, NULL);
    uv_close((uv_handle_t *)&daemon->chores, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(daemon->signals); i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
}

static void on_queries_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->queries = NULL;
    agent_close(daemon->agent, on_agent_closed, daemon);
}

static void on_port_closed(void *data)
{
    struct daemon *daemon = data;

    host_queries_close(daemon->queries, on_queries_closed, daemon);
}

static void on_prober_closed(void *data)
{
    struct daemon *daemon = data;

    if (daemon->port != NULL)
        port_close(daemon->port, on_port_closed, daemon);
    else
        on_port_closed(daemon);
}

static void on_store_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->store = NULL;
    if (daemon->prober != NULL)
        prober_close(TAKE_PTR(daemon->prober), on_prober_closed, daemon);
    else
        on_prober_closed(daemon);
}

static void on_uplink_closed(void *data)
{
    struct daemon *daemon = data;

    if (daemon->core != NULL)
        core_yield(daemon->core); /* The registry goes with the store, and sessions end only after that. */
    if (daemon->store != NULL)
        store_close(daemon->store, on_store_closed, daemon);
    else
        on_store_closed(daemon);
}

static void on_membership_closed(void *data)
{
    struct daemon *daemon = data;

    if (daemon->uplink != NULL)
        uplink_close(TAKE_PTR(daemon->uplink), on_uplink_closed, daemon);
    else
        on_uplink_closed(daemon);
}

static void on_farewell(struct daemon *daemon)
{
    membership_close(daemon, on_membership_closed, daemon);
}

static void on_router_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->router = NULL;
    farewell_begin(daemon, on_farewell);
}

static void on_listeners_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->listeners = NULL;
    router_close(daemon->router, on_router_closed, daemon);
}

static void on_http_closed(void *data)
{
    struct daemon *daemon = data;

    daemon->http = NULL;
    listeners_close(daemon->listeners, on_listeners_closed, daemon);
}

/* Clients first, then the session (the leader is told that the units run on), then the store (which gives
 * leadership away), then what it speaks through. No unit is touched: leaving on purpose is another thing. */
static void stop(struct daemon *daemon)
{
    log_info("Gracefully shutting down; units run on");
    sd_notify(0, "STOPPING=1\nSTATUS=stopping");
    daemon->stopping = true;
    uv_timer_stop(&daemon->timer);
    reload_cancel(daemon);
    listeners_end(daemon->listeners);
    http_server_close(daemon->http, on_http_closed, daemon);
}

/* ---- signals ---- */

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;

    if (daemon->stopping)
        return;
    switch (number) {
    case SIGHUP: reload_begin(daemon); break;
    case SIGUSR1: dump_begin(daemon); break;
    default: stop(daemon);
    }
}

/* Until somebody looks after them they wait: the default action of SIGHUP and SIGUSR1 ends the process. */
static void mask_signals(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigprocmask(how, &set, NULL);
}

void daemon_block_signals(void)
{
    mask_signals(SIG_BLOCK);
}

static void watch_signals(struct daemon *daemon)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

    static_assert(ARRAY_SIZE(numbers) == ARRAY_SIZE(((struct daemon *)0)->signals), "one handle for each");
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        uv_signal_init(daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        uv_signal_start(&daemon->signals[i], on_signal, numbers[i]);
    }
    mask_signals(SIG_UNBLOCK);
}

/* ---- start ---- */

/* systemd wants to hear from us within WatchdogSec=; a third of it leaves room for a stall. 0: it does not.
 */
static uint64_t watchdog_ms(void)
{
    uint64_t usec;

    if (sd_watchdog_enabled(0, &usec) <= 0)
        return 0;
    return usec / 3000;
}

int daemon_start(uv_loop_t *loop, struct config *config, const char *config_file, struct daemon **ret,
                 struct err *err)
{
    struct daemon *daemon = NEW0(struct daemon);
    int r;

    daemon->loop = loop;
    daemon->config = *config;
    daemon->config_file = xstrdup(config_file);
    daemon->watchdog_ms = watchdog_ms();
    *config = (struct config){0};
    r = identity_read(daemon->config.public_ip, &daemon->identity, err);
    if (r < 0)
        return r;
    daemon->cluster_address = config_cluster_address(&daemon->config, daemon->identity.public_ip);
    if (daemon->cluster_address[0] == '\0')
        return err_set(err, -EADDRNOTAVAIL,
                       "this host has no address that others could reach: set cluster_address in fleet.conf");
    hosting_describe(daemon);
    uv_prepare_init(loop, &daemon->prepare);
    uv_timer_init(loop, &daemon->timer);
    uv_timer_init(loop, &daemon->chores);
    daemon->prepare.data = daemon->timer.data = daemon->chores.data = daemon;
    watch_signals(daemon);
    r = hosting_start(daemon, err);
    if (r >= 0)
        r = cluster_start(daemon, err);
    if (r < 0)
        return r;
    uv_prepare_start(&daemon->prepare, on_prepare);
    uv_timer_start(&daemon->chores, on_chores, 0, CHORES_MS);
    *ret = daemon;
    return 0;
}

void daemon_free(struct daemon *daemon)
{
    if (daemon->downlink != NULL)
        downlink_free(daemon->downlink);
    lessor_free(daemon->lessor);
    voting_free(daemon->voting);
    if (daemon->gate != NULL)
        gate_free(daemon->gate);
    core_free(daemon->core);
    for (size_t i = 0; i < daemon->machine.n_metadata; i++)
        free(daemon->machine.metadata[i]);
    free(daemon->machine.metadata);
    free(daemon->machine.roots);
    certifier_free(daemon->certifier);
    for (size_t i = 0; i < daemon->reports.count; i++)
        fleet__unit_report__free_unpacked(daemon->reports.items[i], NULL);
    free(daemon->reports.items);
    for (size_t i = 0; i < daemon->share.count; i++)
        fleet__share__free_unpacked(daemon->share.pieces[i], NULL);
    free(daemon->share.pieces);
    membership_free(daemon->membership);
    credentials_done(&daemon->credentials);
    pki_key_free(daemon->proving_key);
    member_done(&daemon->member);
    identity_done(&daemon->identity);
    config_done(&daemon->config);
    free(daemon->cluster_address);
    free(daemon->config_file);
    free(daemon->superseded);
    strlist_done(&daemon->told);
    free(daemon);
}
