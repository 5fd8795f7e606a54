/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/sim/sim.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#define BOOT_MS        3000u /* Between the power and fleetd. */
#define ADDRESS_PREFIX "10.0.0."
#define RESTART_MS     100u /* Between the end of fleetd and the next. */

struct sim sim;
uint64_t sim_total_ms, sim_total_host_ms;

static jmp_buf exits; /* While 'acts': from anywhere in fleetd to where its event began. */
static bool acts;

/* ---- the queue of events: a binary heap, by time, then by order of making ---- */

struct queued {
    uint64_t at_ms, order;
    enum sim_owner owner;
    struct sim_host *host;
    uint64_t life;
    sim_event *event;
    void *data;
};

static struct queued *queue;
static size_t queue_count, queue_capacity;
static uint64_t queue_order;

/* What was made for at once, in order: all of it is at 'sim.now_ms'. */
static struct queued *at_once;
static size_t at_once_first, at_once_count, at_once_capacity;

static bool is_before(const struct queued *a, const struct queued *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void queue_push(struct queued item)
{
    size_t i;

    GROW(queue, queue_capacity, queue_count + 1);
    for (i = queue_count++; i > 0 && is_before(&item, &queue[(i - 1) / 2]); i = (i - 1) / 2)
        queue[i] = queue[(i - 1) / 2];
    queue[i] = item;
}

static void push_at_once(struct queued item)
{
    if (at_once_first == at_once_count)
        at_once_first = at_once_count = 0;
    GROW(at_once, at_once_capacity, at_once_count + 1);
    at_once[at_once_count++] = item;
}

static struct queued queue_pop(void)
{
    struct queued first = queue[0], last = queue[--queue_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < queue_count) {
        if (child + 1 < queue_count && is_before(&queue[child + 1], &queue[child]))
            child++;
        if (!is_before(&queue[child], &last))
            break;
        queue[i] = queue[child];
        i = child;
    }
    queue[i] = last;
    return first;
}

static bool is_at_once_next(void)
{
    return at_once_first < at_once_count &&
           (queue_count == 0 || is_before(&at_once[at_once_first], &queue[0]));
}

/* The next one until 'ms', if there is one. */
static bool next_event(uint64_t ms, struct queued *ret)
{
    if (is_at_once_next())
        *ret = at_once[at_once_first++];
    else if (queue_count > 0 && queue[0].at_ms <= ms)
        *ret = queue_pop();
    else
        return false;
    return true;
}

/* ---- clocks ---- */

uint64_t sim_clock_ms(const struct sim_host *host)
{
    return host->clock_base_ms + sim.now_ms * host->clock_rate / 1000;
}

uint64_t sim_true_ms(const struct sim_host *host, uint64_t ms)
{
    return (ms * 1000 + host->clock_rate - 1) / host->clock_rate;
}

uint64_t sim_least_ms(const struct sim_host *host, uint64_t ms)
{
    return ms == 0 ? 0 : (ms - 1) * 1000 / host->clock_rate + 1;
}

static void begin_boot(struct sim_host *host)
{
    host->boots++;
    snprintf(host->boot_id, sizeof host->boot_id, "%016x%016llx", host->index + 1,
             (unsigned long long)host->boots);
}

static uint64_t life_of(enum sim_owner owner, const struct sim_host *host)
{
    return owner == SIM_FLEETD ? host->lives : owner == SIM_HOST ? host->boots : 0;
}

void sim_after(uint64_t ms, enum sim_owner owner, struct sim_host *host, sim_event *event, void *data)
{
    struct queued item = {.at_ms = sim.now_ms + ms,
                          .order = queue_order++,
                          .owner = owner,
                          .host = host,
                          .life = life_of(owner, host),
                          .event = event,
                          .data = data};

    if (ms == 0)
        push_at_once(item);
    else
        queue_push(item);
}

/* ---- chance ---- */

uint64_t sim_random(uint64_t below)
{
    uint64_t x = sim.chance += 0x9e3779b97f4a7c15u; /* splitmix64 */

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % below;
}

bool sim_chance(unsigned one_in)
{
    return !sim.calm && sim_random(one_in) == 0;
}

/* ---- the transcript ---- */

static void add_note(char *line)
{
    char **place = &sim.notes[sim.note_count++ % SIM_NOTES_MAX];

    for (const char *p = line; *p != '\0'; p++)
        sim.hash = (sim.hash ^ (uint8_t)*p) * 0x100000001b3u; /* FNV-1a */
    if (sim.talks)
        puts(line);
    free(*place);
    *place = line;
}

void sim_note(const struct sim_host *host, const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    add_note(xasprintf("%7llu.%03llu  %-4s %s", (unsigned long long)sim.now_ms / 1000,
                       (unsigned long long)sim.now_ms % 1000, host != NULL ? host->name : "", text));
}

void sim_fail(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(sim.fault, sizeof sim.fault, format, ap);
    va_end(ap);
    sim_note(sim.current, "BROKEN: %s", sim.fault);
    acts = false;
    longjmp(*sim.fails, 1);
}

/* ---- turns ---- */

struct sim_call {
    void (*call)(void *data);
    void *data;
    struct sim_call *next;
};

void sim_defer(struct sim_host *host, void (*call)(void *data), void *data)
{
    struct sim_call *deferred = NEW0(struct sim_call);

    *deferred = (struct sim_call){call, data, NULL};
    if (host->deferred == NULL)
        host->deferred = deferred;
    else
        host->deferred_last->next = deferred;
    host->deferred_last = deferred;
}

static bool run_deferred(struct sim_host *host)
{
    bool any = host->deferred != NULL;

    while (host->deferred != NULL) {
        struct sim_call *deferred = host->deferred;

        host->deferred = deferred->next;
        deferred->call(deferred->data);
        free(deferred);
    }
    return any;
}

void sim_turn(struct sim_host *host, void (*call)(void *data), void *data)
{
    struct sim_host *before = sim.current;

    sim.current = host;
    call(data);
    do
        sim_uv_turn(host);
    while (run_deferred(host));
    sim_uv_wake(host);
    sim.current = before;
}

static void on_restart(void *data, bool lost)
{
    if (!lost)
        sim_fleetd_start(data);
}

/* Once fleetd has closed everything. */
static void reap(struct sim_host *host)
{
    struct sim_host *before = sim.current;

    if (host->handles != NULL)
        return;
    sim.current = host;
    daemon_free(host->daemon);
    sim.current = before;
    host->daemon = NULL;
    host->store = NULL;
    host->running = false;
    host->lives++;
    sim_note(host, "fleetd is gone");
}

static void on_killed(void *data, bool lost);

void __wrap__exit(int status) __attribute__((noreturn));
void __real__exit(int status) __attribute__((noreturn));

/* fleetd ends here and now; or this program does. */
void __wrap__exit(int status)
{
    if (!acts)
        __real__exit(status);
    longjmp(exits, 1);
}

static void act(const struct queued *item)
{
    struct sim_host *host = item->host;

    sim.current = host;
    sim.unseen = false;
    acts = item->owner == SIM_FLEETD;
    if (!acts || setjmp(exits) == 0)
        item->event(item->data, false);
    else
        on_killed(host, false);
    acts = false;
    if (item->owner == SIM_FLEETD && !sim.unseen && host->running &&
        life_of(SIM_FLEETD, host) == item->life) {
        do
            sim_uv_turn(host);
        while (run_deferred(host));
        sim_uv_wake(host);
        if (host->stopping) {
            reap(host);
        } else if (host->handles == NULL) {
            reap(host); /* It has ended by itself: Restart=always. */
            sim_after(RESTART_MS, SIM_HOST, host, on_restart, host);
        }
    }
    sim.current = NULL;
}

static uint64_t frozen_until(const struct queued *item)
{
    uint64_t until = 0;

    if (item->owner != SIM_NOBODY)
        until = item->host->suspended_until_ms;
    if (item->owner == SIM_FLEETD && item->host->frozen_until_ms > until)
        until = item->host->frozen_until_ms;
    return until;
}

void sim_run_until(uint64_t ms)
{
    unsigned crowd = 0;
    struct queued item;

    while (next_event(ms, &item)) {
        crowd = item.at_ms == sim.now_ms ? crowd + 1 : 0;
        sim.now_ms = item.at_ms;
        if (crowd > SIM_EVENTS_AT_MAX)
            sim_fail("events without end at one point in time");
        if (item.life != life_of(item.owner, item.host)) {
            item.event(item.data, true);
        } else if (frozen_until(&item) > sim.now_ms) {
            item.at_ms = frozen_until(&item); /* It keeps its place in the order. */
            queue_push(item);
        } else {
            act(&item);
        }
    }
    sim.now_ms = ms;
}

/* ---- lives ---- */

bool sim_host_acts(const struct sim_host *host)
{
    return host->powered && host->suspended_until_ms <= sim.now_ms;
}

bool sim_fleetd_acts(const struct sim_host *host)
{
    return sim_host_acts(host) && host->running && !host->muted && host->frozen_until_ms <= sim.now_ms;
}

void sim_config(struct sim_host *host, struct config *config)
{
    host->read_ttl_ms = host->ttl_ms;
    config_init(config);
    config->insecure = true;
    config->agent_ttl_ms = host->ttl_ms;
    config->voters = host->voters;
    config->disable_engine = host->disable_engine;
    free(config->cluster_address);
    config->cluster_address = xstrdup(host->address);
    config->bootstrap = host->index == 0 && sim_truth_version() == 0;
    if (!config->bootstrap && !host->out)
        strlist_add(&config->join, sim.hosts[host->index == 0].address);
    /* That one may have left. */
    for (unsigned i = 1; sim.members_leave && !config->bootstrap && !host->out && i + 1 < sim.host_count; i++)
        if (i != host->index)
            strlist_add(&config->join, sim.hosts[i].address);
    if (host->role != NULL) {
        config->metadata = NEW0(struct config_label);
        config->metadata_count = 1;
        config->metadata[0] = (struct config_label){xstrdup("role"), xstrdup(host->role)};
    }
}

static void on_hangup(void *data, bool lost)
{
    const struct sim_host *host = data;

    if (!lost && !host->stopping)
        sim_uv_signal(data, SIGHUP);
}

void sim_config_read_again(struct sim_host *host)
{
    if (host->running)
        sim_after(0, SIM_FLEETD, host, on_hangup, host);
}

static void start(void *data)
{
    struct sim_host *host = data;
    struct config config;
    struct err err = {0};

    sim_config(host, &config);
    if (daemon_start(&host->loop, &config, NULL, &host->daemon, &err) < 0)
        sim_fail("fleetd does not start: %s", err.text);
}

void sim_fleetd_start(struct sim_host *host)
{
    if (!host->powered || host->running)
        return;
    sim_note(host, "fleetd starts");
    host->lives++;
    host->running = true;
    host->muted = host->stopping = false;
    host->dies_in = 0;
    host->frozen_until_ms = 0;
    host->wake_ms = UINT64_MAX;
    host->loop = (uv_loop_t){.data = host};
    sim_turn(host, start, host);
}

static void on_terminate(void *data)
{
    sim_uv_signal(data, SIGTERM);
}

void sim_fleetd_stop(struct sim_host *host)
{
    if (!host->running || host->stopping)
        return;
    sim_note(host, "SIGTERM");
    host->stopping = true;
    sim_turn(host, on_terminate, host);
    reap(host);
}

/* Deadlines that follow each other while fleetd ends. */
#define WAITS_MAX 8u

static void die(struct sim_host *host, bool silently)
{
    if (!host->running)
        return;
    host->muted = true;
    host->lives++; /* No event reaches it any more. */
    sim_net_died(host, silently);
    sim_consensus_died(host);
    sim_systemd_lost(host);
    host->stopping = true;
    sim_turn(host, on_terminate, host); /* Only memory is given back: it is muted. */
    for (unsigned i = 0; host->handles != NULL && i < WAITS_MAX; i++)
        sim_turn(host, sim_uv_end_waits, host);
    if (host->handles != NULL)
        sim_fail("fleetd has not closed everything");
    reap(host);
}

void sim_fleetd_kill(struct sim_host *host)
{
    if (!host->running)
        return;
    sim_note(host, "fleetd is killed");
    die(host, false);
}

static void on_killed(void *data, bool lost)
{
    struct sim_host *host = data;

    if (lost)
        return;
    die(host, false);
    sim_after(RESTART_MS, SIM_HOST, host, on_restart, host);
}

void sim_fleetd_kill_in(struct sim_host *host, unsigned count)
{
    if (host->running && !host->muted)
        host->dies_in = count;
}

bool sim_dies_here(void)
{
    struct sim_host *host = sim.current;

    if (host->muted || host->dies_in == 0 || --host->dies_in > 0)
        return host->muted;
    sim_note(host, "fleetd is killed in the middle of it");
    host->muted = true;
    sim_after(0, SIM_FLEETD, host, on_killed, host);
    return true;
}

void sim_power_cut(struct sim_host *host)
{
    if (!host->powered)
        return;
    sim_note(host, "power cut");
    die(host, true);
    host->powered = false;
    begin_boot(host); /* What belongs to the last one is lost. */
    host->suspended_until_ms = 0;
    sim_systemd_off(host);
    sim_tmpfs_off(host);
}

void sim_power_on(struct sim_host *host)
{
    if (host->powered)
        return;
    sim_note(host, "boots");
    host->powered = true;
    begin_boot(host);
    if (host->shutdown != SIM_UP)
        sim_law_shut_down(host);
    host->shutdown = SIM_UP;
    host->clock_base_ms = 10000 + sim_random(100000) - sim.now_ms * host->clock_rate / 1000; /* Anew. */
    sim_systemd_boot(host);
    sim_tmpfs_boot(host);
    sim_after(BOOT_MS, SIM_HOST, host, on_restart, host);
}

void sim_copy(struct sim_host *host, const struct sim_host *original, bool disk)
{
    if (host->powered || original->is_copy)
        return;
    host->is_copy = true;
    snprintf(host->machine_id, sizeof host->machine_id, "%s", original->machine_id);
    host->role = original->role;
    sim_note(host, "is a copy of the %s of %s", disk ? "disk" : "machine id", original->name);
    if (host->has_member)
        member_done(&host->member);
    host->has_member = false;
    if (disk) {
        sim_member_copy(host, original);
        sim_consensus_copy(host, original);
    }
    sim_power_on(host);
}

void sim_forget(struct sim_host *host)
{
    sim_note(host, "an operator has it join anew");
    die(host, false);
    member_done(&host->member);
    host->has_member = false;
    sim_consensus_forget(host);
}

struct sim_host *sim_host_by_id(const char *machine_id)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        if (!sim.hosts[i].is_copy && streq(sim.hosts[i].machine_id, machine_id))
            return &sim.hosts[i];
    return NULL;
}

struct sim_host *sim_host_by_address(const char *address)
{
    unsigned number = str_has_prefix(address, ADDRESS_PREFIX)
                          ? (unsigned)strtoul(address + strlen(ADDRESS_PREFIX), NULL, 10)
                          : 0;

    return number >= 1 && number <= sim.host_count && streq(sim.hosts[number - 1].address, address)
               ? &sim.hosts[number - 1]
               : NULL;
}

/* ---- beginning and end ---- */

void sim_begin(uint64_t seed, unsigned host_count, unsigned voters)
{
    bool talks = sim.talks;
    jmp_buf *fails = sim.fails;

    assert(host_count <= SIM_HOSTS_MAX);
    queue = NULL; /* After a run that has failed something is left, here and elsewhere: it is let lie. */
    queue_count = queue_capacity = queue_order = 0;
    at_once = NULL;
    at_once_first = at_once_count = at_once_capacity = 0;
    acts = false;
    sim = (struct sim){.seed = seed,
                       .chance = seed * 0x2545f4914f6cdd1du + 1,
                       .host_count = host_count,
                       .hash = 0xcbf29ce484222325u,
                       .talks = talks,
                       .fails = fails};
    for (unsigned i = 0; i < host_count; i++) {
        struct sim_host *host = &sim.hosts[i];

        host->index = i;
        /* Of two hosts one may count up to a tenth more than the other. */
        host->clock_rate = seed % 2 == 0 ? 1000 : 952 + sim_random(96);
        host->ttl_ms = host->read_ttl_ms = SIM_TTL_MS;
        host->voters = voters;
        snprintf(host->name, sizeof host->name, "h%02u", i);
        snprintf(host->machine_id, sizeof host->machine_id, "%08x%024x", 0xa0000000u + i * 0x10001u, i + 1);
        snprintf(host->address, sizeof host->address, ADDRESS_PREFIX "%u:7390", i + 1);
    }
    log_set_sink(sim_log);
    sim_net_begin();
    sim_consensus_begin();
    sim_laws_begin();
}

void sim_end(void)
{
    struct queued item;

    sim_total_ms += sim.now_ms;
    sim_total_host_ms += sim.now_ms * (sim.host_count - 1);
    for (unsigned i = 0; i < sim.host_count; i++) {
        sim_power_cut(&sim.hosts[i]);
        member_done(&sim.hosts[i].member);
        sim_uv_done(&sim.hosts[i]);
    }
    while (next_event(UINT64_MAX, &item))
        item.event(item.data, true);
    free(queue);
    free(at_once);
    queue = at_once = NULL;
    queue_capacity = at_once_capacity = 0;
    sim_laws_end();
    sim_consensus_end();
    sim_net_end();
    log_set_sink(NULL);
    for (size_t i = 0; i < SIM_NOTES_MAX; i++) {
        free(sim.notes[i]);
        sim.notes[i] = NULL;
    }
    sim.note_count = 0;
}
