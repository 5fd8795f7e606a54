/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a cluster: deeds, drawn from the seed before anything runs, so that a run can be repeated
 * with some of them left out. Faults pass by themselves, before the end; then nothing more happens, and the
 * cluster must find its way into the wanted state, and be quiet there. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/daemon_private.h"
#include "tests/sim/sim.h"

#define WARM_UP_MS 12000u
#define PATIENCE_MS                                                                                          \
    180000u                  /* From the end of faults to the wanted state: a ttl, and pauses of up to 60 s. \
                              */
#define SESSIONS_MS   30000u /* From the end of faults until every host has found the leader. */
#define QUIET_MS      10000u
#define LEASE_MS_MAX  25000u
#define IDLE_MS       30000u
#define BIG_EVERY     25u /* So many small clusters to a big one. */
#define LEAVE_EVERY   5u  /* Of so many seeds one has members that leave. */
#define REPEATS_MAX   3u
#define VARIANT_COUNT 6u
#define SHUTDOWN_OF_8 7u /* Which eighth of the power cuts is none, but a shutdown in order. */

struct sim_deed {
    uint64_t at_ms, ms;
    const struct kind *kind;
    unsigned a, b, variant;
    uint64_t mask;
    char unit[24];
};

static const char *const some_units[] = {"p0", "p1", "p2", "p3", "w0",    "w1",  "c0", "c1",
                                         "c2", "m0", "m1", "g0", "s0",    "s1",  "s2", "s3",
                                         "r0", "r1", "f0", "f1", "t@web", "t@db"};

struct kind {
    const char *name;
    unsigned weight;
    void (*act)(const struct sim_deed *deed);
};

static struct sim_deed *deeds;
static size_t deed_count;
static uint64_t end_ms;
static uint64_t stretched_ms; /* The deeds are spread over so long; 0: over a minute or two. */
static uint64_t last_mark;

static struct sim_host *host_a(const struct sim_deed *deed)
{
    return &sim.hosts[deed->a];
}

/* ---- the network ---- */

static void restore_link(void *data, bool lost)
{
    size_t pair = (size_t)data;

    sim_link_set((unsigned)(pair / SIM_HOSTS_MAX), (unsigned)(pair % SIM_HOSTS_MAX), true);
}

static void cut(unsigned from, unsigned to, uint64_t ms)
{
    if (from == to)
        return;
    sim_link_set(from, to, false);
    sim_after(ms, SIM_NOBODY, NULL, restore_link, (void *)(size_t)(from * SIM_HOSTS_MAX + to));
}

static void one_way(const struct sim_deed *deed)
{
    cut(deed->a, deed->b, deed->ms);
}

static void cut_off(unsigned host, uint64_t ms)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        cut(host, i, ms);
        cut(i, host, ms);
    }
}

static void isolate(const struct sim_deed *deed)
{
    cut_off(deed->a, deed->ms);
}

static void deaf(const struct sim_deed *deed)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        cut(i, deed->a, deed->ms);
}

static void split(const struct sim_deed *deed)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        for (unsigned j = 0; j < sim.host_count; j++)
            if ((deed->mask >> (i % 64) & 1) != (deed->mask >> (j % 64) & 1))
                cut(i, j, deed->ms);
}

static void restore_net(void *data, bool lost)
{
    sim_net_set_delay((unsigned)(size_t)data, 0);
    sim_net_set_loss((unsigned)(size_t)data, 0);
}

static void delay(const struct sim_deed *deed)
{
    sim_net_set_delay(deed->a, 20u << deed->variant);
    sim_after(deed->ms, SIM_NOBODY, NULL, restore_net, (void *)(size_t)deed->a);
}

static void loss(const struct sim_deed *deed)
{
    sim_net_set_loss(deed->a, 2 + deed->variant);
    sim_after(deed->ms, SIM_NOBODY, NULL, restore_net, (void *)(size_t)deed->a);
}

/* ---- hosts ---- */

static void freeze_host(struct sim_host *host, uint64_t ms)
{
    if (!host->running || host->frozen_until_ms >= sim.now_ms + ms)
        return;
    if (sim_fleetd_acts(host))
        host->froze_ms = sim.now_ms;
    host->frozen_until_ms = sim.now_ms + ms;
}

static void freeze(const struct sim_deed *deed)
{
    freeze_host(host_a(deed), deed->ms);
}

static void suspend(const struct sim_deed *deed)
{
    struct sim_host *host = host_a(deed);

    if (!host->powered || host->suspended_until_ms >= sim.now_ms + deed->ms)
        return;
    if (sim_fleetd_acts(host))
        host->froze_ms = sim.now_ms;
    host->suspended_until_ms = sim.now_ms + deed->ms;
}

static void on_restart(void *data, bool lost)
{
    if (!lost)
        sim_fleetd_start(data);
}

static void kill_host(struct sim_host *host, uint64_t ms)
{
    sim_fleetd_kill(host);
    if (host->powered)
        sim_after(ms, SIM_HOST, host, on_restart, host);
}

static void die(const struct sim_deed *deed)
{
    kill_host(host_a(deed), deed->variant < 3 ? 100 : deed->ms);
}

static void on_terminated(void *data, bool lost)
{
    struct sim_host *host = data;

    if (lost)
        return;
    sim_fleetd_kill(host); /* systemd's patience has an end, too. */
    sim_fleetd_start(host);
}

static void die_within(const struct sim_deed *deed)
{
    sim_fleetd_kill_in(host_a(deed), 1 + (unsigned)(deed->mask % 30));
}

static void leader_dies_within(const struct sim_deed *deed)
{
    if (sim_leader() != NULL)
        sim_fleetd_kill_in(sim_leader(), 1 + (unsigned)(deed->mask % 30));
}

static void restart(const struct sim_deed *deed)
{
    struct sim_host *host = host_a(deed);

    if (!sim_fleetd_acts(host))
        return;
    sim_fleetd_stop(host);
    sim_after(500, SIM_HOST, host, on_terminated, host);
}

static void on_power(void *data, bool lost)
{
    sim_power_on(data);
}

/* Longer than logind waits, at least. */
static void shutdown_in_order(const struct sim_deed *deed)
{
    sim_shutdown(host_a(deed), deed->variant == 5);
    sim_after(6000 + deed->ms, SIM_NOBODY, NULL, on_power, host_a(deed));
}

static void power_cut(const struct sim_deed *deed)
{
    if (deed->mask % 8 == SHUTDOWN_OF_8) {
        shutdown_in_order(deed);
        return;
    }
    sim_power_cut(host_a(deed));
    sim_after(deed->variant < 2 ? 1000 : deed->ms, SIM_NOBODY, NULL, on_power, host_a(deed));
}

static void on_copy_ends(void *data, bool lost)
{
    sim_power_cut(data);
}

/* A copy has joined in its place: it is told that it is no member any more. */
static bool is_displaced(const struct sim_host *host)
{
    const struct registry_machine *machine = registry_machine(sim_truth(), host->machine_id);

    return host->has_member && machine != NULL && machine->server_id != host->member.server_id;
}

/* Two of three hosts that have lost their places are no fault to recover from, but two that an operator has
 * let happen: they join anew, and their data are gone. */
static bool is_any_displaced(void)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        if (is_displaced(&sim.hosts[i]))
            return true;
    return false;
}

/* The last host is there for that. */
static void copy(const struct sim_deed *deed)
{
    struct sim_host *host = &sim.hosts[sim.host_count - 1];

    if (host->powered || host == host_a(deed) || is_any_displaced())
        return;
    sim_copy(host, host_a(deed), deed->variant < 3);
    sim_after(deed->ms + 4000, SIM_NOBODY, NULL, on_copy_ends, host);
}

static void on_slow(void *data, bool lost)
{
    ((struct sim_host *)data)->disk_slow_ms = 0;
}

static void slow_disk(const struct sim_deed *deed)
{
    host_a(deed)->disk_slow_ms = 100u << deed->variant;
    sim_after(deed->ms, SIM_NOBODY, NULL, on_slow, host_a(deed));
}

static void on_room(void *data, bool lost)
{
    ((struct sim_host *)data)->disk_full = false;
}

static void full_disk(const struct sim_deed *deed)
{
    host_a(deed)->disk_full = true;
    sim_after(deed->ms, SIM_NOBODY, NULL, on_room, host_a(deed));
}

static void clock_jump(const struct sim_deed *deed)
{
    host_a(deed)->wall_offset_ms += deed->variant % 2 == 0 ? 3 * 3600 * 1000 : -26 * 3600 * 1000;
}

static void bus_breaks(const struct sim_deed *deed)
{
    sim_systemd_hiccup(host_a(deed), deed->variant < 4 ? 0 : deed->ms);
}

static struct sim_unit *some_running(const struct sim_deed *deed)
{
    for (struct sim_unit *unit = sim_systemd_units(host_a(deed)); unit != NULL; unit = unit->next)
        if (unit->running)
            return unit;
    return NULL;
}

static void operator_stops(const struct sim_deed *deed)
{
    if (some_running(deed) != NULL)
        sim_systemd_meddle(host_a(deed), some_running(deed), false);
}

static void unit_dies(const struct sim_deed *deed)
{
    if (some_running(deed) != NULL)
        sim_systemd_meddle(host_a(deed), some_running(deed), true);
}

/* ---- configurations ---- */

/* Of all hosts. */
static void change_ttl(const struct sim_deed *deed)
{
    static const uint64_t ttls_ms[VARIANT_COUNT] = {4000, 6000, 8000, 10000, 15000, 20000};

    sim_note(NULL, "agent_ttl = %llu ms", (unsigned long long)ttls_ms[deed->variant]);
    for (unsigned i = 0; i < sim.host_count; i++) {
        sim.hosts[i].ttl_ms = ttls_ms[deed->variant];
        sim_config_read_again(&sim.hosts[i]);
    }
}

static void change_voters(const struct sim_deed *deed)
{
    host_a(deed)->voters = deed->variant < 2 ? 3 : 5;
    sim_config_read_again(host_a(deed));
}

/* At most one at a time. */
static void disable_engine(const struct sim_deed *deed)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        bool disabled = i == deed->a && deed->variant < 4;

        if (sim.hosts[i].disable_engine == disabled)
            continue;
        sim.hosts[i].disable_engine = disabled;
        sim_config_read_again(&sim.hosts[i]);
    }
}

/* ---- leases ---- */

static void keeper_dies(const struct sim_deed *deed)
{
    sim_keeper_kill(host_a(deed));
}

static void keeper_hangs(const struct sim_deed *deed)
{
    sim_keeper_hang(host_a(deed));
    freeze_host(host_a(deed), deed->ms);
}

/* ---- the leader, whoever that is ---- */

static void leader_is_cut_off(const struct sim_deed *deed)
{
    if (sim_leader() != NULL)
        cut_off(sim_leader()->index, deed->ms);
}

static void leader_freezes(const struct sim_deed *deed)
{
    if (sim_leader() != NULL)
        freeze_host(sim_leader(), deed->ms);
}

static void leader_dies(const struct sim_deed *deed)
{
    if (sim_leader() != NULL)
        kill_host(sim_leader(), deed->variant < 3 ? 50 : deed->ms);
}

static void leader_is_slow(const struct sim_deed *deed)
{
    struct sim_host *leader = sim_leader();

    if (leader == NULL)
        return;
    leader->disk_slow_ms = 200u << deed->variant / 2;
    sim_after(deed->ms, SIM_NOBODY, NULL, on_slow, leader);
}

/* ---- users ---- */

struct wish {
    char unit[24];
    const char *state; /* NULL: destroy it. */
    bool text;
    unsigned variant, tries;
    uint64_t ticket;
};

static void ask(const struct wish *wish, unsigned host);

/* Half of the clients who are told "perhaps" ask again, of another host. */
static void on_answer(struct sim_request *request, unsigned status, void *data)
{
    struct wish *wish = data;

    sim_law_answered(wish->ticket, status);
    if ((status == 0 || status == 503 || status == 504) && wish->tries < REPEATS_MAX && sim_chance(2))
        ask(wish, (unsigned)sim_random(sim.host_count));
    free(wish);
}

static void add_option(struct strbuf *body, const char *section, const char *name, const char *value)
{
    strbuf_addf(body, "{\"section\":\"%s\",\"name\":\"%s\",\"value\":\"%s\"},", section, name, value);
}

/* Mostly to be stopped; and from 4 to 5 and back that is all that changes. */
static void add_disconnect(struct strbuf *body, unsigned variant)
{
    static const char *const times[VARIANT_COUNT] = {"3s", "8s", NULL, "1s", "5s", "5s"};

    add_option(body, "X-Fleet", "OnDisconnect", variant == 5 ? "keep" : "stop");
    if (times[variant] != NULL)
        add_option(body, "Service", "TimeoutStopSec", times[variant]);
}

static const char *program_of(const struct wish *wish)
{
    static const char *const flaky[VARIANT_COUNT] = {SIM_FALSE "-0", SIM_FALSE "-1", SIM_FALSE "-2",
                                                     SIM_FALSE,      SIM_FALSE "-0", SIM_FALSE "-0"};

    if (wish->unit[0] == 'f')
        return flaky[wish->variant];
    return wish->variant == 3 ? SIM_FALSE : "/bin/sleep inf";
}

/* The mark is a part of [X-Fleet] in some of the texts: then they mean the same to systemd. */
static void add_options(struct strbuf *body, const struct wish *wish, uint64_t mark)
{
    _cleanup_(freep) char *number = xasprintf("%llu", (unsigned long long)mark);
    _cleanup_(freep) char *environment = xasprintf("MARK=%s", number);
    /* What fails everywhere is tried again when it is over: in a long run that would be at any time. */
    const char *long_interval = stretched_ms > 0 ? "100h" : "10min";
    char replaced[] = "p0.service";

    strbuf_add(body, ",\"options\":[");
    switch (wish->unit[0]) {
    case 'w':
        add_option(body, "X-Fleet", "MachineMetadata", wish->variant < 4 ? "role=web" : "role=db");
        break;
    case 'c': add_option(body, "X-Fleet", "Conflicts", "c*"); break;
    case 'm': add_option(body, "X-Fleet", "MachineOf", "p0.service"); break;
    case 'g': add_option(body, "X-Fleet", "Global", "true"); break;
    case 's': add_disconnect(body, wish->variant); break;
    case 'r':
        replaced[1] = wish->unit[1];
        add_option(body, "X-Fleet", "Replaces", replaced);
        break;
    case 'f':
        add_option(body, "X-Fleet", "FailureLimitBurst", "1");
        add_option(body, "X-Fleet", "FailureLimitIntervalSec", wish->variant < 2 ? "20" : long_interval);
        break;
    case 't': add_option(body, "X-Fleet", "MachineMetadata", "role=%i"); break;
    default: break;
    }
    if (wish->variant == 1)
        add_option(body, "Service", "Type", "oneshot");
    if (wish->variant == 2)
        add_option(body, "Install", "WantedBy", "multi-user.target");
    if (wish->variant >= 4)
        add_option(body, "X-Fleet", "MARK", number);
    else
        add_option(body, "Service", "Environment", environment);
    strbuf_addf(body, "{\"section\":\"Service\",\"name\":\"ExecStart\",\"value\":\"%s\"}]", program_of(wish));
}

static void ask(const struct wish *original, unsigned host)
{
    _cleanup_(freep) char *path = xasprintf("/fleet/v1/units/%s", original->unit);
    _cleanup_(strbuf_done) struct strbuf body = {0};
    struct wish *wish = xmemdup(original, sizeof *original);
    uint64_t mark = wish->text ? ++last_mark : 0;

    wish->tries++;
    wish->ticket = sim_law_asked(wish->unit, mark, wish->state);
    sim_note(&sim.hosts[host], "client: %s %s%s", wish->state != NULL ? wish->state : "destroy", wish->unit,
             wish->text ? ", with text" : "");
    if (wish->state != NULL) {
        strbuf_addf(&body, "{\"desiredState\":\"%s\"", wish->state);
        if (wish->text)
            add_options(&body, wish, mark);
        strbuf_add(&body, "}");
    }
    sim_http(&sim.hosts[host], wish->state != NULL ? "PUT" : "DELETE", path, body.text, on_answer, wish);
}

static void user(const struct sim_deed *deed, const char *state, bool text)
{
    struct wish wish = {.state = state, .text = text, .variant = deed->variant};

    snprintf(wish.unit, sizeof wish.unit, "%s", deed->unit);
    ask(&wish, deed->a);
}

static void submit(const struct sim_deed *deed)
{
    user(deed, "launched", true);
}

static void start(const struct sim_deed *deed)
{
    user(deed, "launched", false);
}

static void stop(const struct sim_deed *deed)
{
    user(deed, "inactive", false);
}

static void load(const struct sim_deed *deed)
{
    user(deed, "loaded", deed->variant % 2 == 0);
}

static void destroy(const struct sim_deed *deed)
{
    user(deed, NULL, false);
}

static void destroy_and_submit(const struct sim_deed *deed)
{
    user(deed, NULL, false);
    user(deed, "launched", true);
}

static void burst(const struct sim_deed *deed)
{
    struct sim_deed one = *deed;

    for (unsigned i = 0; i < 8; i++) {
        snprintf(one.unit, sizeof one.unit, "p%u.service", i);
        user(&one, i % 4 == deed->variant ? "inactive" : "launched", i % 4 != deed->variant);
    }
}

static void restart_unit(const struct sim_deed *deed)
{
    _cleanup_(freep) char *body = xasprintf("{\"units\":[{\"name\":\"%s\",\"restart\":true}]}", deed->unit);
    struct wish *wish = NEW0(struct wish);

    wish->tries = REPEATS_MAX; /* Asked again it would be another restart. */
    wish->ticket = sim_law_asked(deed->unit, 0, "launched");
    sim_note(host_a(deed), "client: restart %s", deed->unit);
    sim_http(host_a(deed), "POST", "/fleet/v1/units", body, on_answer, wish);
}

static void on_patched(struct sim_request *request, unsigned status, void *data)
{
}

/* Questions, and waits: all have an end, which is looked at in the end. */
static void question(const struct sim_deed *deed)
{
    _cleanup_(freep) char *path = xasprintf("/fleet/v1/status/%s", deed->unit);

    sim_note(host_a(deed), "client: how is %s?", deed->unit);
    sim_http(host_a(deed), "GET", path, NULL, on_patched, NULL);
}

static void wait_for(const struct sim_deed *deed)
{
    static const char *const untils[VARIANT_COUNT] = {"settled",  "placed",  "gone",
                                                      "inactive", "settled", "gone"};
    _cleanup_(freep) char *body = xasprintf("{\"units\":[\"%s\"],\"until\":\"%s\",\"timeoutMs\":%d}",
                                            deed->unit, untils[deed->variant], 8000);

    sim_note(host_a(deed), "client: waits until %s is %s", deed->unit, untils[deed->variant]);
    sim_http(host_a(deed), "POST", "/fleet/v1/wait", body, on_patched, NULL);
}

static void metadata(const struct sim_deed *deed)
{
    const struct sim_host *about = &sim.hosts[deed->b];
    _cleanup_(freep) char *body =
        xasprintf("[{\"op\":\"add\",\"path\":\"/%s/metadata/role\",\"value\":\"%s\"}]", about->machine_id,
                  deed->variant < 3 ? "web" : "db");

    sim_note(about, "client: its role is %s", deed->variant < 3 ? "web" : "db");
    sim_http(host_a(deed), "PATCH", "/fleet/v1/machines", body, on_patched, NULL);
}

static void availability(const struct sim_deed *deed)
{
    static const char *const words[] = {"active", "active", "active", "cordoned", "draining", "draining"};
    _cleanup_(freep) char *body = xasprintf("{\"machines\":[\"%s\"],\"availability\":\"%s\"}",
                                            sim.hosts[deed->b].machine_id, words[deed->variant]);

    sim_note(&sim.hosts[deed->b], "client: it is %s", words[deed->variant]);
    sim_http(host_a(deed), "POST", "/fleet/v1/availability", body, on_patched, NULL);
}

static void confirm_lost(const struct sim_deed *deed)
{
    _cleanup_(freep) char *body = xasprintf("{\"machines\":[\"%s\"]}", sim.hosts[deed->b].machine_id);

    sim_note(&sim.hosts[deed->b], "client: it is lost");
    sim_http(host_a(deed), "POST", "/fleet/v1/confirm-lost", body, on_patched, NULL);
}

/* ---- members: in one of five seeds, and in all that are stretched ---- */

static uint64_t some_time_out(const struct sim_deed *deed)
{
    return deed->variant % 2 == 0 ? 0 : 2000 + 3 * deed->ms;
}

static void leave(const struct sim_deed *deed)
{
    sim_member_leave(host_a(deed), deed->variant < 3, some_time_out(deed));
}

static void remove_machine(const struct sim_deed *deed)
{
    sim_member_remove(host_a(deed), &sim.hosts[deed->b], deed->variant < 4, some_time_out(deed));
}

/* One that does not answer, which may be so because it is off, or because it is cut off. */
static void remove_silent(const struct sim_deed *deed)
{
    for (unsigned i = 0; i + 1 < sim.host_count; i++) {
        struct sim_host *host = &sim.hosts[(deed->b + i) % (sim.host_count - 1)];

        if (sim_leader() == NULL || host == sim_leader() || sim_reach(sim_leader(), host))
            continue;
        sim_member_remove(sim_leader(), host, deed->variant < 4, some_time_out(deed));
        return;
    }
}

static void remove_leader(const struct sim_deed *deed)
{
    if (sim_leader() != NULL)
        sim_member_remove(host_a(deed), sim_leader(), true, some_time_out(deed));
}

static void prefer(const struct sim_deed *deed)
{
    static const char *const words[VARIANT_COUNT] = {"voter", "voter",     "never",
                                                     "never", "automatic", "automatic"};

    sim_member_prefer(host_a(deed), &sim.hosts[deed->b], words[deed->variant]);
}

static void transfer(const struct sim_deed *deed)
{
    sim_member_transfer(host_a(deed), deed->variant < 3 ? &sim.hosts[deed->b] : NULL);
}

/* ---- the menu ---- */

static const struct kind kinds[] = {
    {"one-way", 6, one_way},
    {"isolate", 5, isolate},
    {"deaf", 3, deaf},
    {"split", 5, split},
    {"delay", 4, delay},
    {"loss", 4, loss},
    {"freeze", 5, freeze},
    {"suspend", 4, suspend},
    {"kill", 5, die},
    {"die-within", 4, die_within},
    {"leader-dies-within", 4, leader_dies_within},
    {"restart", 4, restart},
    {"power-cut", 5, power_cut},
    {"copy", 3, copy},
    {"slow-disk", 3, slow_disk},
    {"full-disk", 3, full_disk},
    {"clock-jump", 2, clock_jump},
    {"bus-breaks", 3, bus_breaks},
    {"operator-stops", 2, operator_stops},
    {"unit-dies", 2, unit_dies},
    {"leader-is-cut-off", 5, leader_is_cut_off},
    {"leader-freezes", 5, leader_freezes},
    {"leader-dies", 5, leader_dies},
    {"leader-is-slow", 6, leader_is_slow},
    {"submit", 20, submit},
    {"start", 9, start},
    {"stop", 8, stop},
    {"load", 4, load},
    {"destroy", 5, destroy},
    {"destroy-and-submit", 5, destroy_and_submit},
    {"burst", 3, burst},
    {"metadata", 5, metadata},
    {"availability", 5, availability},
    {"confirm-lost", 2, confirm_lost},
    {"restart-unit", 5, restart_unit},
    {"question", 3, question},
    {"wait", 4, wait_for},
    {"agent-ttl", 2, change_ttl},
    {"voters", 1, change_voters},
    {"disable-engine", 1, disable_engine},
    {"keeper-dies", 2, keeper_dies},
    {"keeper-hangs", 2, keeper_hangs},
};

static const struct kind member_kinds[] = {
    {"leave", 5, leave},
    {"remove-machine", 4, remove_machine},
    {"remove-silent", 3, remove_silent},
    {"remove-leader", 2, remove_leader},
    {"prefer", 5, prefer},
    {"transfer-leadership", 3, transfer},
};

static const struct kind *some_kind(const struct kind *menu, size_t count)
{
    unsigned sum = 0, drawn;

    for (size_t i = 0; i < count; i++)
        sum += menu[i].weight;
    drawn = (unsigned)sim_random(sum);
    for (size_t i = 0;; i++) {
        if (drawn < menu[i].weight)
            return &menu[i];
        drawn -= menu[i].weight;
    }
}

static uint64_t some_duration(uint64_t left_ms)
{
    static const uint64_t lengths[] = {300, 2000, 6000, 14000, 40000};
    uint64_t ms = 50 + sim_random(lengths[sim_random(ARRAY_SIZE(lengths))]);

    return ms < left_ms ? ms : left_ms;
}

static int compare_deeds(const void *x, const void *y)
{
    const struct sim_deed *a = x, *b = y;

    return a->at_ms != b->at_ms ? (a->at_ms < b->at_ms ? -1 : 1) : 0;
}

static void draw(struct sim_deed *deed, const struct kind *menu, size_t kind_count, unsigned host_count,
                 uint64_t span_ms)
{
    const char *unit = some_units[sim_random(ARRAY_SIZE(some_units))];

    deed->at_ms = WARM_UP_MS + sim_random(span_ms) * (stretched_ms > 0 ? stretched_ms / span_ms : 1);
    deed->kind = some_kind(menu, kind_count);
    deed->a = (unsigned)sim_random(host_count);
    deed->b = (unsigned)sim_random(host_count);
    deed->variant = (unsigned)sim_random(VARIANT_COUNT);
    deed->mask = sim_random(UINT64_MAX);
    deed->ms = some_duration(end_ms - deed->at_ms);
    if (host_count > 20 && sim_random(3) > 0)
        snprintf(deed->unit, sizeof deed->unit, "p%llu.service", (unsigned long long)sim_random(60));
    else
        snprintf(deed->unit, sizeof deed->unit, "%s.service", unit);
}

/* Without the place of copies. */
static unsigned hosts_of(uint64_t seed)
{
    return seed % BIG_EVERY == 0 ? 20 + (unsigned)(seed / BIG_EVERY * 37 % 81) : 3 + (unsigned)(seed % 7);
}

void sim_menu_stretch(uint64_t ms)
{
    stretched_ms = ms;
}

static bool members_leave(uint64_t seed)
{
    return seed % LEAVE_EVERY == 1 || stretched_ms > 0;
}

/* Drawn after all others, so that these are the same without them. */
static void add_departures(unsigned host_count, uint64_t span_ms)
{
    size_t count = 3 + sim_random(8);

    deeds = xrealloc(deeds, (deed_count + count) * sizeof *deeds);
    for (size_t i = deed_count; i < deed_count + count; i++)
        draw(&deeds[i], member_kinds, ARRAY_SIZE(member_kinds), host_count, span_ms);
    deed_count += count;
}

size_t sim_menu_plan(uint64_t seed)
{
    uint64_t span_ms = 30000;

    sim.chance = seed * 0x9e3779b97f4a7c15u;
    deed_count = 30 + sim_random(50);
    span_ms += sim_random(90000);
    end_ms = WARM_UP_MS + (stretched_ms > 0 ? stretched_ms : span_ms) + 1000;
    free(deeds);
    deeds = xcalloc(deed_count, sizeof *deeds);
    for (size_t i = 0; i < deed_count; i++)
        draw(&deeds[i], kinds, ARRAY_SIZE(kinds), hosts_of(seed), span_ms);
    if (members_leave(seed))
        add_departures(hosts_of(seed), span_ms);
    qsort(deeds, deed_count, sizeof *deeds, compare_deeds);
    return deed_count;
}

void sim_menu_done(void)
{
    free(deeds);
    deeds = NULL;
}

char *sim_menu_describe(size_t index)
{
    const struct sim_deed *deed = &deeds[index];

    return xasprintf("%3zu. %7.3f %s(h%02u, h%02u, %s, %u, %llu ms)", index, (double)deed->at_ms / 1000,
                     deed->kind->name, deed->a, deed->b, deed->unit, deed->variant,
                     (unsigned long long)deed->ms);
}

/* ---- the run ---- */

static void on_deed(void *data, bool lost)
{
    const struct sim_deed *deed = data;

    if (lost)
        return;
    sim_note(host_a(deed), "--- %s(h%02u, %s, %u, %llu ms)", deed->kind->name, deed->b, deed->unit,
             deed->variant, (unsigned long long)deed->ms);
    deed->kind->act(deed);
}

static void end_faults(void)
{
    sim_note(NULL, "--- faults are over");
    sim.calm = true;
    sim_link_heal_all();
    for (unsigned i = 0; i < sim.host_count; i++) {
        sim.hosts[i].dies_in = 0;
        sim.hosts[i].disk_full = false;
        sim.hosts[i].disk_slow_ms = 0;
        sim_shutdown_give_up(&sim.hosts[i]);
        if (sim.hosts[i].is_copy) {
            sim_power_cut(&sim.hosts[i]);
            continue;
        }
        sim_power_on(&sim.hosts[i]);
        sim_fleetd_start(&sim.hosts[i]);
        sim_member_readmit(&sim.hosts[i]);
    }
}

static void readmit_displaced(void)
{
    for (unsigned i = 0; i < sim.host_count - 1; i++)
        if (is_displaced(&sim.hosts[i])) {
            sim_forget(&sim.hosts[i]);
            sim_fleetd_start(&sim.hosts[i]);
        }
}

/* A wait that a new leader has to take over begins anew, but has an end. */
static void check_answers(void)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        if (sim_http_open(&sim.hosts[i]) > 0)
            sim_fail("somebody has asked %s, and was never answered", sim.hosts[i].name);
}

/* Until it is as wanted, and has been quiet for a while. */
static void demand_peace(void)
{
    uint64_t begin_ms = sim.now_ms, since_ms = begin_ms, until_ms = begin_ms + PATIENCE_MS;
    const char *fault = "";

    /* The longest lease is noted anew when all longer ones have ended. */
    while (sim.now_ms < until_ms &&
           (fault != NULL || sim.now_ms - since_ms < QUIET_MS || sim.now_ms - begin_ms < LEASE_MS_MAX)) {
        readmit_displaced();
        sim_run_until(sim.now_ms + 500);
        fault = sim_law_converged();
        if (sim.now_ms == begin_ms + SESSIONS_MS && !sim_law_all_called())
            sim_fail("after %u s some host has not found the leader: %s", SESSIONS_MS / 1000,
                     fault != NULL ? fault : "");
        if (fault != NULL || sim.messages + sim.doings > 0)
            since_ms = sim.now_ms;
        sim.messages = sim.doings = 0;
    }
    if (fault != NULL)
        sim_fail("it does not come to the wanted state: %s", fault);
    if (sim.now_ms >= until_ms)
        sim_fail("it does not come to rest");
    sim_note(NULL, "--- all is well");
    sim_run_until(sim.now_ms + IDLE_MS);
    if (sim.messages + sim.doings > 0)
        sim_fail("it is not idle: %llu messages, %llu doings", (unsigned long long)sim.messages,
                 (unsigned long long)sim.doings);
    check_answers();
    fault = sim_law_converged();
    if (fault != NULL)
        sim_fail("it leaves the wanted state again: %s", fault);
}

/* In every other seed lost voters are replaced before the faults stop: their power stays off for longer. */
static void shorten_grace(void *data, bool lost)
{
    if (!lost)
        sim_http(data, "PATCH", "/fleet/v1/settings", "{\"settings\":{\"voters_grace\":\"12s\"}}", on_patched,
                 NULL);
}

static void on_first_power(void *data, bool lost)
{
    if (!lost)
        sim_power_on(data);
}

bool sim_menu_run(uint64_t seed, const uint8_t *mask)
{
    jmp_buf fails;

    sim.fails = &fails;
    sim_menu_plan(seed);
    last_mark = 0;
    sim_begin(seed, hosts_of(seed) + 1, seed % 3 == 0 ? 5 : 3);
    sim.sparing = stretched_ms > 0;
    sim.members_leave = members_leave(seed);
    if (setjmp(fails) != 0)
        return false; /* What it had is not given back: it is broken anyway. */
    sim.hosts[sim.host_count - 1].is_copy = true;
    for (unsigned i = 0; i < sim.host_count - 1; i++) {
        sim.hosts[i].role = i % 3 == 1 ? "web" : NULL;
        sim_after(i == 0 ? 0 : sim_random(2000), SIM_NOBODY, NULL, on_first_power, &sim.hosts[i]);
    }
    if (seed % 2 == 1)
        sim_after(WARM_UP_MS / 2, SIM_NOBODY, &sim.hosts[0], shorten_grace, &sim.hosts[0]);
    for (size_t i = 0; i < deed_count; i++)
        if (mask == NULL || mask[i])
            sim_after(deeds[i].at_ms, SIM_NOBODY, host_a(&deeds[i]), on_deed, &deeds[i]);
    sim_run_until(end_ms);
    end_faults();
    demand_peace();
    sim_end();
    return true;
}
