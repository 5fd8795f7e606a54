/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold, whatever happens. It looks at what is true (processes, committed commands, bytes that have
 * arrived), never at what fleetd believes, but for one thing: when a leader declares a host lost.
 *
 * A unit's name says what its text asks for: "p" nothing, "w" a machine of role web, "c" conflicts with every
 * other "c", "m" where p0.service is, "g" global, "s" OnDisconnect=stop (in most of its texts), "r" replaces
 * the "p" of its number, "f" fails on some hosts and is to be tried on others then, "t@web" and "t@db" a
 * machine of that role. So nothing here asks the planner.
 *
 * Laws at every step:
 *  1. One history: at one version, every registry is the same, also after snapshot and restore.
 *  2. What was acknowledged (2xx) is in the history; what was refused (503) is not, and never will be; what
 *     was repeated is there once.
 *  3. A host is lost only when no byte of its session has reached the leader's host for a full ttl (or had
 *     not, when the leader stood still), and that leader has led for as long. What a session carries after
 *     its goodbye does not count: fleetd says it when it has been told to stop; nor what a removed host says.
 *  4. A unit that is not global never begins to run while another host still runs it. Two exceptions.
 *     OnDisconnect=keep: one of the two was declared lost after it was last told to have the unit. Drain: the
 *     history hands the unit over from the one to the other. Where the one that begins was started for
 *     OnDisconnect=stop, a person must have confirmed that the other host is lost. Neither counts where both
 *     processes were started for OnDisconnect=stop; there it counts if one of the hosts stood still as a
 *     whole when its lease ended.
 *  5. fleetd starts only what was decided for its host, and stops or restarts a process only if the history
 *     has, since the generation for which it was started, a version that does not want it there, so; wants it
 *     restarted; or wants it under a lease that it has not; or has removed the host. What differs in
 *     [X-Fleet] only is the same. (One exception: a fleetd that was killed before systemd had answered asks
 *     for a restart once more.)
 *  6. A placed unit is moved only off a host that this term's leader has declared lost, that was removed, is
 *     being drained or shut down, or that its text does not allow any more; on which it has failed, if it
 *     asks for that; or, with OnDisconnect=stop, where fleetd has been silent for a ttl.
 *  7. No version places two conflicting units together, nor a unit away from what it must be with.
 *  8. Each process under a lease has a larger fencing token than those on other hosts before it.
 *  9. A copy of a host, of its disk or of its machine id, is taken in only when that one has been silent.
 *     (Then the two share one name, and laws 4 and 8 say nothing of what ran on either.)
 * 10. The last voter keeps its vote; and one that answers loses it only if a majority of those that are left
 *     answers.
 * 11. A host takes itself for removed only if the history has removed it, as that server; or a copy that had
 *     joined in its place.
 * And when faults are over: see sim_law_converged(). */
#include <config.h>

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/agent_internal.h"
#include "fleetd/daemon_private.h"
#include "raftstore/registry_security.h"
#include "tests/sim/sim.h"
#include "units/file.h"
#include "units/requirements.h"

#define PEER            "p0.service" /* Of all "m". */
#define BUS_PATIENCE_MS 900u
#define TTL_MS_MAX      20000u

/* ---- the history ---- */

struct version {
    uint64_t version, mark;
    bool exists, handover, stops; /* 'stops': its text says OnDisconnect=stop. */
    uint64_t restart;
    enum unit_state desired;
    char target[MACHINE_ID_SIZE], hash[UNIT_HASH_SIZE];
};

struct history {
    char *unit;
    struct version *versions;
    size_t count, capacity;
    uint64_t token;       /* The largest fencing token that a process of it was given... */
    unsigned token_index; /* ...and on which host. */
    UT_hash_handle hh;
};

struct content {
    char hash[UNIT_HASH_SIZE];
    struct unit_file *file;
    UT_hash_handle hh;
};

/* What a host was last told of a unit. */
struct told {
    char *key; /* Host and unit. */
    uint64_t at_ms;
    uint64_t failed_ms; /* When its process failed there last, 0: never. */
    UT_hash_handle hh;
};

struct asked {
    char *unit, *desired; /* 'desired' NULL: destroyed. */
    uint64_t mark, since_version;
};

struct mark {
    bool refused;
    unsigned applied;
};

struct removal {
    uint64_t server_id;
    UT_hash_handle hh;
};

/* With what came of it when it was in the log for the first time. */
struct request {
    uint8_t id[REQUEST_ID_SIZE];
    uint64_t version;
    UT_hash_handle hh;
};

static struct registry *truth;
static struct request *requests;
static struct removal *removals;
static struct history *histories;
static struct told *tellings;
static uint64_t *digests; /* By version; 0: not known yet. */
static size_t digest_capacity;
static struct asked *asked;
static size_t asked_count, asked_capacity;
static struct mark *marks;
static size_t mark_capacity;
static struct content *contents;
static bool doubled[SIM_HOSTS_MAX]; /* A copy was taken in, while it ran on. */
static uint64_t lost_ms[SIM_HOSTS_MAX], lost_term[SIM_HOSTS_MAX], hung_term[SIM_HOSTS_MAX];
static uint64_t removed_version[SIM_HOSTS_MAX];    /* In which it was removed last. */
static uint64_t metadata_version;                  /* Of the last change of metadata. */
static uint64_t drained_version[SIM_HOSTS_MAX];    /* The last one in which the host was drained, */
static uint64_t lacking_version[SIM_HOSTS_MAX][2]; /* and had not the role "web", "db". */

void sim_laws_begin(void)
{
    histories = NULL;
    tellings = NULL;
    requests = NULL;
    removals = NULL;
    contents = NULL;
    asked = NULL;
    marks = NULL;
    digests = NULL;
    asked_count = asked_capacity = mark_capacity = digest_capacity = 0;
    truth = registry_new();
    metadata_version = 0;
    memset(drained_version, 0, sizeof drained_version);
    memset(lacking_version, 0, sizeof lacking_version);
    memset(lost_ms, 0, sizeof lost_ms);
    memset(lost_term, 0, sizeof lost_term);
    memset(hung_term, 0, sizeof hung_term);
    memset(doubled, 0, sizeof doubled);
    memset(removed_version, 0, sizeof removed_version);
}

void sim_laws_end(void)
{
    struct history *history, *next_history;
    struct told *told, *next_told;
    struct request *request, *next_request;
    struct removal *removal, *next_removal;
    struct content *content, *next_content;

    HASH_ITER (hh, contents, content, next_content) {
        HASH_DEL(contents, content);
        unit_file_free(content->file);
        free(content);
    }
    HASH_ITER (hh, removals, removal, next_removal) {
        HASH_DEL(removals, removal);
        free(removal);
    }
    HASH_ITER (hh, requests, request, next_request) {
        HASH_DEL(requests, request);
        free(request);
    }
    HASH_ITER (hh, histories, history, next_history) {
        HASH_DEL(histories, history);
        free(history->unit);
        free(history->versions);
        free(history);
    }
    HASH_ITER (hh, tellings, told, next_told) {
        HASH_DEL(tellings, told);
        free(told->key);
        free(told);
    }
    for (size_t i = 0; i < asked_count; i++) {
        free(asked[i].unit);
        free(asked[i].desired);
    }
    free(asked);
    free(marks);
    free(digests);
    registry_free(truth);
}

const struct registry *sim_truth(void)
{
    return truth;
}

uint64_t sim_truth_version(void)
{
    return registry_version(truth);
}

static bool is_global(const char *unit)
{
    return unit[0] == 'g';
}

static struct history *history_of(const char *unit)
{
    struct history *history;

    HASH_FIND_STR(histories, unit, history);
    if (history != NULL)
        return history;
    history = NEW0(struct history);
    history->unit = xstrdup(unit);
    HASH_ADD_KEYPTR(hh, histories, history->unit, strlen(history->unit), history);
    return history;
}

/* The version that held at 'version', as an index; -1: before the first. */
static ssize_t index_at(const struct history *history, uint64_t version)
{
    ssize_t i = (ssize_t)history->count - 1;

    while (i >= 0 && history->versions[i].version > version)
        i--;
    return i;
}

static bool wants(const struct version *version, const char *unit, const struct sim_host *host)
{
    return version->exists && version->desired == UNIT_STATE_LAUNCHED &&
           (is_global(unit) || streq(version->target, host->machine_id));
}

static struct content *find_content(const char *hash)
{
    struct content *content;

    HASH_FIND_STR(contents, hash, content);
    return content;
}

static void note_content(const struct registry_unit *unit)
{
    struct content *content = find_content(unit->content->hash);

    if (content != NULL)
        return;
    content = NEW0(struct content);
    memcpy(content->hash, unit->content->hash, sizeof content->hash);
    if (unit_file_parse(unit->content->text, strlen(unit->content->text), &content->file, NULL) < 0)
        sim_fail("a content in the registry cannot be read");
    HASH_ADD_STR(contents, hash, content);
}

/* Nothing but [X-Fleet] differs. */
static bool means_the_same(const char *hash, const char *other)
{
    const struct content *a = find_content(hash), *b = find_content(other);

    return streq(hash, other) ||
           (a != NULL && b != NULL && requirements_are_all_that_differs(a->file, b->file));
}

/* ---- law 1 ---- */

static uint64_t digest_text(uint64_t digest, const char *text)
{
    do
        digest = (digest ^ (uint8_t)*text) * 0x100000001b3u;
    while (*text++ != '\0');
    return digest;
}

static uint64_t digest_of(struct registry *registry)
{
    size_t unit_count, machine_count;
    const struct registry_unit *const *units = registry_units(registry, &unit_count);
    const struct registry_machine *const *machines = registry_machines(registry, &machine_count);
    uint64_t digest = 0xcbf29ce484222325u;

    for (size_t i = 0; i < unit_count; i++) {
        digest = digest_text(digest, units[i]->name);
        digest = digest_text(digest, units[i]->content->hash);
        digest = digest_text(digest, units[i]->target);
        digest = digest_text(digest, units[i]->reason);
        for (size_t j = 0; j < units[i]->former.count; j++)
            digest = digest_text(digest, units[i]->former.items[j]);
        digest = (digest ^ units[i]->generation << 8 ^ units[i]->token << 32 ^ units[i]->desired) * 31;
    }
    for (size_t i = 0; i < machine_count; i++) {
        digest = digest_text(digest, machines[i]->id);
        digest = digest_text(digest, machines[i]->cluster_address);
        digest = (digest ^ machines[i]->server_id ^ (uint64_t)machines[i]->availability << 56 ^
                  (uint64_t)machines[i]->vote << 58 ^ (uint64_t)machines[i]->leaving << 60 ^
                  (uint64_t)machines[i]->registered << 61 ^ (uint64_t)machines[i]->lost << 62) *
                 31;
        for (size_t j = 0; j < machines[i]->label_count; j++) {
            digest = digest_text(digest, machines[i]->labels[j].key);
            digest = digest_text(digest, machines[i]->labels[j].value);
        }
    }
    return digest | 1;
}

void sim_law_applied(const struct sim_host *host, struct registry *registry)
{
    uint64_t version = registry_version(registry), digest = digest_of(registry);

    if (version >= digest_capacity) {
        size_t old = digest_capacity;

        GROW(digests, digest_capacity, version + 1);
        memset(digests + old, 0, (digest_capacity - old) * sizeof *digests);
    }
    if (digests[version] == 0)
        digests[version] = digest;
    else if (digests[version] != digest)
        sim_fail("law 1: %s has another registry at version %llu than others had",
                 host != NULL ? host->name : "the truth", (unsigned long long)version);
}

/* ---- law 2 ---- */

static struct mark *mark_of(uint64_t mark)
{
    size_t old = mark_capacity;

    if (mark >= mark_capacity) {
        GROW(marks, mark_capacity, mark + 1);
        memset(marks + old, 0, (mark_capacity - old) * sizeof *marks);
    }
    return &marks[mark];
}

static void check_mark(const struct history *history)
{
    const struct version *last = &history->versions[history->count - 1];

    if (last->mark == 0 || (history->count > 1 && last[-1].mark == last->mark))
        return;
    if (mark_of(last->mark)->refused)
        sim_fail("law 2: the change %llu of %s was refused, and is done all the same",
                 (unsigned long long)last->mark, history->unit);
    if (++mark_of(last->mark)->applied > 1)
        sim_fail("law 2: the change %llu of %s is done twice", (unsigned long long)last->mark, history->unit);
}

/* A request that is in the log twice changes something once. */
static void check_request(const Fleet__Command *command, const struct registry_result *result)
{
    struct request *request;

    if (command->request_id.len != REQUEST_ID_SIZE)
        return;
    HASH_FIND(hh, requests, command->request_id.data, REQUEST_ID_SIZE, request);
    if (request != NULL && result->version != request->version)
        sim_fail("law 2: a request that was repeated is carried out twice");
    if (request != NULL)
        return;
    request = NEW0(struct request);
    memcpy(request->id, command->request_id.data, REQUEST_ID_SIZE);
    request->version = result->version;
    HASH_ADD(hh, requests, id, REQUEST_ID_SIZE, request);
}

uint64_t sim_law_asked(const char *unit, uint64_t mark, const char *desired)
{
    GROW(asked, asked_capacity, asked_count + 1);
    asked[asked_count] = (struct asked){xstrdup(unit), xstrdup(desired), mark, registry_version(truth)};
    return asked_count++;
}

static bool says(const struct version *version, const struct asked *question)
{
    if (question->desired == NULL)
        return !version->exists;
    return version->exists && streq(unit_state_to_string(version->desired), question->desired) &&
           (question->mark == 0 || question->mark == version->mark);
}

void sim_law_answered(uint64_t ticket, unsigned status)
{
    const struct asked *question = &asked[ticket];
    const struct history *history = history_of(question->unit);
    ssize_t i = index_at(history, question->since_version);
    bool found = false;

    for (i = i < 0 ? 0 : i; i < (ssize_t)history->count; i++)
        found = found || says(&history->versions[i], question);
    if (status / 100 == 2 && !found)
        sim_fail("law 2: the change %llu of %s was acknowledged, and is not done",
                 (unsigned long long)question->mark, question->unit);
    if (status != 503 || question->mark == 0)
        return;
    mark_of(question->mark)->refused = true;
    if (mark_of(question->mark)->applied > 0)
        sim_fail("law 2: the change %llu of %s was done, and is refused all the same",
                 (unsigned long long)question->mark, question->unit);
}

/* ---- law 3 ---- */

/* It was removed, and booted since: it cannot say any more what it had. */
static bool is_another_boot(const struct sim_host *host)
{
    const struct registry_removed *removed = registry_removed(truth, host->machine_id);

    return removed != NULL && !streq(removed->boot_id, host->boot_id);
}

static struct sim_host *check_silence(struct sim_host *leader, const char *machine_id, const char *what)
{
    struct sim_host *host = sim_host_by_id(machine_id);
    uint64_t silent_ms, led_ms, ttl_ms;
    bool late;

    assert(host != NULL);
    silent_ms = sim.now_ms - sim_net_heard_ms(leader->index, host->index);
    led_ms = sim.now_ms - leader->leads_since_ms;
    /* It was silent for a ttl, and called again just now, or while the leader stood still: that is still to
     * be read. */
    late = sim_net_gap_ms(leader->index, host->index) == sim.now_ms;
    late = late || (sim_net_gap_ms(leader->index, host->index) >= leader->froze_ms &&
                    (leader->frozen_until_ms == sim.now_ms || leader->suspended_until_ms == sim.now_ms));
    late = late || is_another_boot(host);
    ttl_ms = sim_least_ms(leader, leader->read_ttl_ms);
    if ((silent_ms < ttl_ms && !late) || led_ms < ttl_ms)
        sim_fail("law 3: %s is declared %s, but it was heard %llu ms ago, and %s has led for %llu ms",
                 host->name, what, (unsigned long long)silent_ms, leader->name, (unsigned long long)led_ms);
    return host;
}

void sim_law_hung(struct sim_host *leader, const char *machine_id)
{
    hung_term[check_silence(leader, machine_id, "hung")->index] = store_term(leader->store);
}

void sim_law_lost(struct sim_host *leader, const char *machine_id)
{
    struct sim_host *host = check_silence(leader, machine_id, "lost");

    lost_ms[host->index] = sim.now_ms;
    lost_term[host->index] = store_term(leader->store);
}

/* ---- law 4 ---- */

static struct told *told_of(const struct sim_host *host, const char *unit)
{
    char key[300];
    struct told *told;

    snprintf(key, sizeof key, "%s/%s", host->machine_id, unit);
    HASH_FIND_STR(tellings, key, told);
    if (told != NULL)
        return told;
    told = NEW0(struct told);
    told->key = xstrdup(key);
    HASH_ADD_KEYPTR(hh, tellings, told->key, strlen(told->key), told);
    return told;
}

bool __real_downlink_send(struct downlink *downlink, const char *machine_id,
                          const Fleet__SessionDown *message);
bool __wrap_downlink_send(struct downlink *downlink, const char *machine_id,
                          const Fleet__SessionDown *message);

/* Looks over the shoulder of leading.c (--wrap): what each host is told. */
bool __wrap_downlink_send(struct downlink *downlink, const char *machine_id,
                          const Fleet__SessionDown *message)
{
    struct sim_host *host = sim_host_by_id(machine_id);

    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_SHARE && !sim.current->muted) {
        const Fleet__Share *share = message->share;
        _cleanup_(strbuf_done) struct strbuf text = {0};

        for (size_t i = 0; i < share->n_units; i++) {
            told_of(host, share->units[i]->name)->at_ms = sim.now_ms;
            strbuf_addf(&text, " +%s:%llu", share->units[i]->name,
                        (unsigned long long)share->units[i]->generation);
        }
        for (size_t i = 0; i < share->n_removed; i++)
            strbuf_addf(&text, " -%s", share->removed[i]);
        sim_note(sim.current, "to %s:%s%s", host->name, share->complete ? " all" : "",
                 text.text != NULL ? text.text : "");
    }
    return __real_downlink_send(downlink, machine_id, message);
}

static unsigned index_of(const struct sim_host *host)
{
    return sim_host_by_id(host->machine_id)->index;
}

static bool is_excused(const struct sim_host *host, const char *unit)
{
    uint64_t ms = lost_ms[index_of(host)];

    return ms > 0 && ms >= told_of(host, unit)->at_ms;
}

static bool was_target(const struct history *history, size_t before, const struct sim_host *host)
{
    for (size_t i = 0; i < before; i++)
        if (streq(history->versions[i].target, host->machine_id))
            return true;
    return false;
}

/* By any version since the other one's process was decided; perhaps by way of third ones. */
static bool is_handed_over(const struct sim_unit *twin, const struct sim_host *to,
                           const struct sim_host *from)
{
    const struct history *history = history_of(twin->name);

    for (size_t i = 0; i < history->count; i++)
        if (history->versions[i].version >= twin->since_generation && history->versions[i].handover &&
            streq(history->versions[i].target, to->machine_id) && was_target(history, i, from))
            return true;
    return false;
}

/* A host that stands still as a whole stops nothing meanwhile, and goes on where it was (docs/leases.md). */
static bool stood_still(const struct sim_host *host)
{
    return host->suspended_until_ms > 0 && host->suspended_until_ms >= sim_lease_end_ms(host);
}

/* A person has said that nothing runs there any more. */
static bool is_confirmed(const struct sim_host *host)
{
    const struct registry_machine *machine = registry_machine(truth, host->machine_id);

    return machine == NULL || machine->lost_confirmed;
}

static bool may_be_two(const struct sim_host *host, const struct sim_unit *unit, const struct sim_host *other,
                       const struct sim_unit *twin)
{
    if (index_of(host) == index_of(other) || doubled[index_of(host)] || doubled[index_of(other)])
        return true; /* A copy was taken for the other one, booted again (docs/leases.md: not covered). */
    if (unit->leased && twin->leased)
        return stood_still(host) || stood_still(other);
    /* It was "keep" when it began there; and where it runs already, it may take the change (docs/leases.md).
     */
    if (unit->leased && unit->job != SIM_JOB_RESTART && !is_confirmed(other))
        return is_handed_over(twin, host, other);
    return is_excused(host, unit->name) || is_excused(other, unit->name) || is_handed_over(twin, host, other);
}

static void check_alone(const struct sim_host *host, const struct sim_unit *unit)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        const struct sim_host *other = &sim.hosts[i];
        const struct sim_unit *twin;

        if (other == host || (twin = sim_systemd_unit(other, unit->name)) == NULL || !twin->running ||
            may_be_two(host, unit, other, twin))
            continue;
        sim_fail("law 4: %s begins to run on %s while it runs on %s%s", unit->name, host->name, other->name,
                 unit->leased && twin->leased ? ", and must never do that" : "");
    }
}

/* Who was placed later has the larger fencing token. */
static void check_token(const struct sim_host *host, const struct sim_unit *unit)
{
    struct history *history = history_of(unit->name);
    uint64_t token = unit->loaded_dropin.token;

    if ((token < history->token || (token == history->token && history->token_index != index_of(host))) &&
        !stood_still(host) && !doubled[index_of(host)] && !doubled[history->token_index])
        sim_fail("law 8: %s begins on %s with the token %llu, after it had %llu on %s", unit->name,
                 host->name, (unsigned long long)token, (unsigned long long)history->token,
                 sim.hosts[history->token_index].name);
    if (token < history->token)
        return;
    history->token = token;
    history->token_index = index_of(host);
}

void sim_law_failed(const struct sim_host *host, const struct sim_unit *unit)
{
    told_of(host, unit->name)->failed_ms = sim.now_ms;
}

/* ---- law 5 ---- */

/* For which generation fleetd asks now. */
void sim_law_starting(struct sim_host *host, struct sim_unit *unit)
{
    const struct local_unit *local = agent_find(host->daemon->agent, unit->name);
    const struct history *history = history_of(unit->name);
    ssize_t i;

    assert(local != NULL);
    unit->generation = local->job_generation;
    i = index_at(history, unit->generation);
    if (i < 0 || !wants(&history->versions[i], unit->name, host) ||
        !streq(history->versions[i].hash, unit->hash))
        sim_fail("law 5: %s starts %s, which generation %llu does not say", host->name, unit->name,
                 (unsigned long long)unit->generation);
}

void sim_law_started(struct sim_host *host, struct sim_unit *unit)
{
    unit->since_generation = unit->generation;
    if (!is_global(unit->name))
        check_alone(host, unit);
    if (unit->under_lease)
        check_token(host, unit);
}

/* A content that arrives while systemd is about to start an older one may be what is started. */
static bool is_of_its_generation(const struct history *history, const struct sim_unit *unit)
{
    ssize_t i = index_at(history, unit->since_generation);

    return i >= 0 && means_the_same(history->versions[i].hash, unit->running_hash);
}

/* Whether the version is at odds with the process that the host has. */
static bool ends_process(const struct version *version, const struct sim_host *host,
                         const struct sim_unit *unit)
{
    return !wants(version, unit->name, host) || !means_the_same(version->hash, unit->running_hash) ||
           version->restart > unit->since_generation || (version->stops && !unit->under_lease);
}

void sim_law_stopping(struct sim_host *host, struct sim_unit *unit, bool restart)
{
    const struct history *history = history_of(unit->name);

    bool repeats = restart && unit->restarted_in != 0 && unit->restarted_in != host->lives;

    unit->restarted_in = restart ? host->lives : 0; /* Until it is answered. */
    if (removed_version[index_of(host)] > unit->since_generation)
        return; /* It stops all that it had. */
    /* In doubt whether it runs, a host does not say so, and must let it go (docs/leases.md). */
    if (unit->leased && host->bus_away_ms > BUS_PATIENCE_MS && sim.now_ms - host->bus_back_ms < TTL_MS_MAX)
        return;
    if (!unit->running || unit->job == SIM_JOB_STOP || repeats || !is_of_its_generation(history, unit))
        return;
    for (size_t i = 0; i < history->count; i++)
        if (history->versions[i].version > unit->since_generation &&
            ends_process(&history->versions[i], host, unit))
            return;
    sim_fail("law 5: %s %s %s without a reason", host->name, restart ? "restarts" : "stops", unit->name);
}

/* ---- laws 6 and 7 ---- */

static bool has_role(const char *machine_id, const char *role)
{
    const struct registry_machine *machine = registry_machine(truth, machine_id);

    for (size_t i = 0; machine != NULL && i < machine->label_count; i++)
        if (streq(machine->labels[i].key, "role") && streq(machine->labels[i].value, role))
            return true;
    return false;
}

static bool stops(const struct registry_unit *unit)
{
    return strstr(unit->content->text, SIM_STOPS) != NULL;
}

/* A "p" is driven away by the "r" of its number; "": by nobody. */
static const char *replacer_name(const char *unit)
{
    static char name[] = "r0.service";

    name[1] = unit[1];
    return unit[0] == 'p' && strlen(unit) == strlen(name) ? name : "";
}

static const struct registry_unit *replacer_of(const char *unit)
{
    return registry_unit(truth, replacer_name(unit));
}

/* Two that are both nowhere, as when every host is cordoned or drained, are not together. */
static bool is_replaced(const char *unit, const char *machine_id)
{
    const struct registry_unit *replacer = replacer_of(unit);

    return machine_id[0] != '\0' && replacer != NULL && replacer->desired != UNIT_STATE_INACTIVE &&
           streq(replacer->target, machine_id);
}

/* The role that the text of a "w", or the name of a "t@web", asks for. */
static bool wants_db(const struct registry_unit *unit)
{
    return unit->name[0] == 't' ? strstr(unit->name, "@db.") != NULL
                                : strstr(unit->content->text, "role=db") != NULL;
}

static bool has_role_for(const char *machine_id, const struct registry_unit *unit)
{
    return has_role(machine_id, wants_db(unit) ? "db" : "web");
}

static const char *conflicting(const char *unit, const char *machine_id)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(truth, &count);

    for (size_t i = 0; i < count; i++)
        if (units[i]->name[0] == 'c' && !streq(units[i]->name, unit) && streq(units[i]->target, machine_id))
            return units[i]->name;
    return NULL;
}

static bool peer_is_on(const char *machine_id)
{
    const struct registry_unit *peer = registry_unit(truth, PEER);

    return peer != NULL && streq(peer->target, machine_id);
}

static bool is_asking_for_role(const struct registry_unit *unit)
{
    return unit->name[0] == 'w' || unit->name[0] == 't';
}

/* The replacer was there when that may have been decided. */
static bool was_replaced(const struct registry_unit *unit)
{
    const struct history *history = history_of(replacer_name(unit->name));

    if (is_replaced(unit->name, unit->target))
        return true;
    for (size_t i = 0; i + 1 < history->count; i++)
        if (history->versions[i].desired != UNIT_STATE_INACTIVE &&
            streq(history->versions[i].target, unit->target) &&
            history->versions[i + 1].version > unit->generation)
            return true;
    return false;
}

/* The replacer comes with the same decision. */
static bool brings_replacer(const Fleet__Schedule *schedule, const struct registry_unit *unit)
{
    const struct registry_unit *replacer = replacer_of(unit->name);

    for (size_t i = 0; replacer != NULL && i < schedule->n_placements; i++)
        if (streq(schedule->placements[i]->unit, replacer->name) &&
            streq(schedule->placements[i]->to, unit->target))
            return true;
    return false;
}

/* Before the command is applied. A reason that has gone away since it was decided is an excuse. */
static bool may_leave(const struct registry_unit *unit, const Fleet__Schedule *schedule, uint64_t term)
{
    const struct sim_host *host = sim_host_by_id(unit->target);

    if ((lost_term[host->index] == term && lost_ms[host->index] > 0) ||
        registry_machine(truth, unit->target) == NULL || removed_version[host->index] >= unit->generation ||
        drained_version[host->index] >= unit->generation || host->shutdown != SIM_UP)
        return true;
    if (stops(unit) && hung_term[host->index] == term)
        return true;
    if (unit->name[0] == 'f')
        return told_of(host, unit->name)->failed_ms > 0;
    if (unit->name[0] == 'p')
        return was_replaced(unit) || brings_replacer(schedule, unit);
    if (is_asking_for_role(unit))
        return lacking_version[host->index][wants_db(unit)] >= unit->generation;
    if (unit->name[0] == 'c')
        return conflicting(unit->name, unit->target) != NULL;
    return unit->name[0] == 'm';
}

static void check_schedule(const Fleet__Schedule *schedule, uint64_t term)
{
    for (size_t i = 0; i < schedule->n_placements; i++) {
        const Fleet__Placement *placement = schedule->placements[i];
        const struct registry_unit *unit = registry_unit(truth, placement->unit);

        sim_note(NULL, "    decided: %s %.8s > %.8s: %s", placement->unit, placement->from, placement->to,
                 placement->reason);
        if (unit == NULL || unit->generation != placement->if_generation || unit->target[0] == '\0' ||
            streq(unit->target, placement->to))
            continue;
        if (!may_leave(unit, schedule, term))
            sim_fail("law 6: %s is moved away from %s without a reason", unit->name,
                     sim_host_by_id(unit->target)->name);
    }
}

static void check_place(const struct registry_unit *unit)
{
    const char *other;

    if (unit->target[0] == '\0' || unit->desired == UNIT_STATE_INACTIVE)
        return;
    other = unit->name[0] == 'c' ? conflicting(unit->name, unit->target) : NULL;
    if (other != NULL)
        sim_fail("law 7: %s and %s are placed together", unit->name, other);
}

static bool has_changed(const char *unit, uint64_t since_version)
{
    const struct history *history = history_of(unit);

    return history->count > 0 && history->versions[history->count - 1].version > since_version;
}

static bool is_decided_with(const Fleet__Schedule *schedule, const char *unit)
{
    for (size_t i = 0; i < schedule->n_placements; i++)
        if (streq(schedule->placements[i]->unit, unit))
            return true;
    return false;
}

/* What has changed since it was decided, roles, members or the peer, the next decision sees to; unless it was
 * part of the same decision. */
static void check_new_place(const Fleet__Placement *placement, const Fleet__Schedule *schedule)
{
    const struct registry_unit *unit = registry_unit(truth, placement->unit);

    if (unit == NULL || placement->to[0] == '\0' || !streq(unit->target, placement->to) ||
        unit->generation != registry_version(truth))
        return;
    if (unit->name[0] == 'm' && !peer_is_on(unit->target) &&
        (is_decided_with(schedule, PEER) || !has_changed(PEER, placement->if_generation)))
        sim_fail("law 7: %s is placed apart from " PEER, unit->name);
    if (is_asking_for_role(unit) && !has_role_for(unit->target, unit) &&
        metadata_version < placement->if_generation &&
        removed_version[sim_host_by_id(unit->target)->index] < placement->if_generation)
        sim_fail("law 7: %s is placed where the role is another", unit->name);
}

void sim_law_shut_down(const struct sim_host *host)
{
    drained_version[host->index] = registry_version(truth);
}

/* ---- law 9 ---- */

/* The one who has booted as the registry says, and is on. */
static const struct sim_host *find_boot(const struct registry_machine *machine)
{
    for (unsigned i = 0; machine != NULL && i < sim.host_count; i++)
        if (sim.hosts[i].powered && streq(sim.hosts[i].boot_id, machine->boot_id))
            return &sim.hosts[i];
    return NULL;
}

/* Before it is applied. */
static void check_boot(const Fleet__RegisterMachine *machine)
{
    const struct sim_host *there = find_boot(registry_machine(truth, machine->machine_id));
    unsigned at = sim.current->index;

    if (there == NULL || streq(there->boot_id, machine->boot_id))
        return;
    doubled[index_of(there)] = true;
    sim_note(sim.current, "a copy of %s is taken in", index_of(there) == there->index ? there->name : "it");
    if (at != there->index && sim.now_ms - sim_net_heard_ms(at, there->index) < SIM_PAUSE_MS &&
        sim.now_ms - sim_net_pause_ms(at, there->index) > 10000)
        sim_fail("law 9: a copy of %s is taken in, though that is heard", there->name);
}

/* ---- law 11 ---- */

/* Before it is applied. */
static void note_removal(const Fleet__RemoveMachine *command)
{
    const struct registry_machine *machine = registry_machine(truth, command->machine_id);
    struct removal *removal;

    if (machine == NULL || !machine->registered)
        return;
    sim_note(sim_host_by_id(machine->id), "is a member no more");
    removed_version[sim_host_by_id(machine->id)->index] = registry_version(truth) + 1;
    HASH_FIND(hh, removals, &machine->server_id, sizeof machine->server_id, removal);
    if (removal != NULL)
        return;
    removal = NEW0(struct removal);
    removal->server_id = machine->server_id;
    HASH_ADD(hh, removals, server_id, sizeof removal->server_id, removal);
}

void sim_law_removed(const struct sim_host *host, const struct member *member)
{
    const struct registry_machine *machine = registry_machine(truth, host->machine_id);
    bool is_member = machine != NULL && machine->server_id == member->server_id;
    const struct removal *removal;

    HASH_FIND(hh, removals, &member->server_id, sizeof member->server_id, removal);
    /* A copy may have joined in its place, and been removed. */
    if (removal == NULL && (is_member || removed_version[index_of(host)] == 0))
        sim_fail("law 11: %s takes itself for removed, and was not", host->name);
}

/* ---- what is committed ---- */

static void note_machines(void)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        const struct registry_machine *machine = registry_machine(truth, sim.hosts[i].machine_id);

        if (machine != NULL && machine->availability == MACHINE_DRAINING)
            drained_version[i] = registry_version(truth);
        for (unsigned db = 0; db < 2; db++)
            if (!has_role(sim.hosts[i].machine_id, db ? "db" : "web"))
                lacking_version[i][db] = registry_version(truth);
    }
}

static void note_version(const char *name)
{
    const struct registry_unit *unit = registry_unit(truth, name);
    struct history *history = history_of(name);
    struct version *version;
    const char *mark;

    if (history->count > 0 && history->versions[history->count - 1].version == registry_version(truth))
        return; /* Named twice. */
    GROW(history->versions, history->capacity, history->count + 1);
    version = &history->versions[history->count++];
    *version = (struct version){.version = registry_version(truth), .exists = unit != NULL};
    if (unit != NULL) {
        version->desired = unit->desired;
        version->handover = unit->handover;
        version->stops = stops(unit);
        version->restart = unit->restart;
        note_content(unit);
        memcpy(version->target, unit->target, sizeof version->target);
        memcpy(version->hash, unit->content->hash, sizeof version->hash);
        mark = strstr(unit->content->text, "MARK=");
        version->mark = mark != NULL ? strtoull(mark + strlen("MARK="), NULL, 10) : 0;
        check_place(unit);
    }
    check_mark(history);
}

void sim_law_committed(const uint8_t *bytes, size_t size, uint64_t term)
{
    struct registry_changes changes;
    uint32_t length;
    Fleet__Command *command;

    memcpy(&length, bytes, sizeof length);
    command = fleet__command__unpack(NULL, ntohl(length), bytes + sizeof length);
    assert(command != NULL);
    if (command->body_case == FLEET__COMMAND__BODY_SCHEDULE)
        check_schedule(command->schedule, term);
    if (command->body_case == FLEET__COMMAND__BODY_REGISTER_MACHINE)
        check_boot(command->register_machine);
    if (command->body_case == FLEET__COMMAND__BODY_REMOVE_MACHINE)
        note_removal(command->remove_machine);
    check_request(command, registry_apply(truth, bytes, size));
    note_machines();
    sim_law_applied(NULL, truth);
    if (command->body_case == FLEET__COMMAND__BODY_CHANGE_METADATA)
        metadata_version = registry_version(truth);
    registry_changes_take(truth, &changes);
    for (size_t i = 0; i < changes.units.count; i++)
        note_version(changes.units.items[i]);
    registry_changes_done(&changes);
    if (command->body_case == FLEET__COMMAND__BODY_SCHEDULE)
        for (size_t i = 0; i < command->schedule->n_placements; i++)
            check_new_place(command->schedule->placements[i], command->schedule);
    fleet__command__free_unpacked(command, NULL);
}

/* ---- in the end ---- */

static char verdict[512];

#define UNLIKE(...) (snprintf(verdict, sizeof verdict, __VA_ARGS__), verdict)

/* Whether the host should have the unit, and how. */
static const char *check_unit_on(const struct registry_unit *unit, const struct sim_host *host)
{
    const struct sim_unit *there = sim_systemd_unit(host, unit->name);
    bool here = unit->desired != UNIT_STATE_INACTIVE &&
                (is_global(unit->name) || streq(unit->target, host->machine_id));
    bool runs;

    /* It fails where it is handed over to: then it is kept where it was. */
    if (!here && unit->handover && strlist_has(&unit->former, host->machine_id))
        return NULL;
    if (!here)
        return there != NULL && (there->text != NULL || there->running)
                   ? UNLIKE("%s is still on %s", unit->name, host->name)
                   : NULL;
    if (there == NULL || there->text == NULL || !streq(there->hash, unit->content->hash))
        return UNLIKE("%s is not on %s", unit->name, host->name);
    if (there->job != SIM_JOB_NONE)
        return UNLIKE("%s has a job on %s", unit->name, host->name);
    if (unit->desired == UNIT_STATE_LOADED)
        return there->running ? UNLIKE("%s still runs on %s", unit->name, host->name) : NULL;
    runs = sim_text_runs_on(host, there->text);
    if (there->running && !means_the_same(there->running_hash, unit->content->hash))
        return UNLIKE("%s runs an old content on %s", unit->name, host->name);
    if (there->running && unit->restart > there->since_generation)
        return UNLIKE("%s was not restarted on %s", unit->name, host->name);
    if (there->running && stops(unit) && !there->under_lease)
        return UNLIKE("%s runs without a lease on %s", unit->name, host->name);
    if (there->running != runs && !there->meddled)
        return UNLIKE("%s %s on %s", unit->name, runs ? "does not run" : "runs", host->name);
    return NULL;
}

/* How many machines take new units. */
static size_t open_count(void)
{
    size_t count, open = 0;
    const struct registry_machine *const *machines = registry_machines(truth, &count);

    for (size_t i = 0; i < count; i++)
        open += machines[i]->availability == MACHINE_ACTIVE;
    return open;
}

/* Whether nothing but a lack of machines can be in its way. */
static bool has_a_place(const struct registry_unit *unit)
{
    const struct registry_unit *replacer = replacer_of(unit->name);
    bool driven = replacer != NULL && replacer->desired != UNIT_STATE_INACTIVE;

    return strchr("prsf", unit->name[0]) != NULL && open_count() > (driven ? 1u : 0u);
}

/* Who may vote, at the end, when all are there. */
static bool may_vote(const struct sim_host *host)
{
    const struct registry_machine *machine = registry_machine(truth, host->machine_id);

    return machine != NULL && machine->vote != VOTE_NEVER && !machine->leaving;
}

/* People have said of all hosts but those that must not lead that they are not to vote. */
static bool nobody_places(const struct sim_host *leader)
{
    for (unsigned i = 0; i < sim.host_count; i++)
        if (!sim.hosts[i].is_copy && may_vote(&sim.hosts[i]) && !sim.hosts[i].disable_engine)
            return false;
    return leader->disable_engine;
}

static const char *check_unit(const struct sim_host *leader, const struct registry_unit *unit)
{
    _cleanup_(core_status_freep) struct core_status *status =
        core_status_new(leader->daemon->core, unit->name);
    const char *fault = NULL;

    if (status->outcome == OUTCOME_WAITING && nobody_places(leader))
        return NULL;
    if (status->outcome == OUTCOME_WAITING)
        return UNLIKE("%s is waiting: %s", unit->name, status->reason);
    if (unit->desired != UNIT_STATE_INACTIVE && unit->target[0] == '\0' && has_a_place(unit))
        return UNLIKE("%s is nowhere", unit->name);
    if (unit->desired != UNIT_STATE_INACTIVE && is_replaced(unit->name, unit->target))
        return UNLIKE("%s is where it is replaced", unit->name);
    for (unsigned i = 0; i < sim.host_count && fault == NULL; i++)
        fault = sim.hosts[i].is_copy ? NULL : check_unit_on(unit, &sim.hosts[i]);
    return fault;
}

static const char *check_leftovers(const struct sim_host *host)
{
    for (struct sim_unit *unit = sim_systemd_units(host); unit != NULL; unit = unit->next)
        if (registry_unit(truth, unit->name) == NULL && (unit->text != NULL || unit->running))
            return UNLIKE("%s is left over on %s", unit->name, host->name);
    return NULL;
}

/* A host that the leader does not know to be there, or NULL. */
static const struct sim_host *not_ready(const struct sim_host *leader, bool also_awaited)
{
    for (unsigned i = 0; i < sim.host_count; i++) {
        const struct sim_host *host = &sim.hosts[i];

        if (!host->is_copy && core_machine_state(leader->daemon->core, host->machine_id) != MACHINE_READY &&
            (also_awaited || !core_machine_awaited(leader->daemon->core, host->machine_id)))
            return host;
    }
    return NULL;
}

/* Who takes the place of one that was removed waits for its leases. */
bool sim_law_all_called(void)
{
    const struct sim_host *leader = sim_leader();

    return leader != NULL && not_ready(leader, false) == NULL;
}

static const char *check_voters(void)
{
    size_t able = 0, wanted = registry_setting_number(truth, SETTING_VOTERS);

    for (unsigned i = 0; i < sim.host_count; i++) {
        if (sim.hosts[i].is_copy)
            continue;
        able += may_vote(&sim.hosts[i]);
        if (sim_votes(&sim.hosts[i]) && !may_vote(&sim.hosts[i]) && sim_voters() > 1)
            return UNLIKE("%s votes, and is not to", sim.hosts[i].name);
    }
    if (able < wanted)
        wanted = able > 0 ? able - (able % 2 == 0) : 1;
    if (sim_voters() != wanted)
        return UNLIKE("there are %zu voters, not %zu", sim_voters(), wanted);
    return NULL;
}

const char *sim_law_converged(void)
{
    const struct sim_host *leader = sim_leader(), *host;
    const char *fault = NULL;
    size_t count;
    const struct registry_unit *const *units = registry_units(truth, &count);

    if (leader == NULL || !sim_fleetd_acts(leader))
        return "there is no leader";
    host = not_ready(leader, true);
    if (host != NULL)
        return UNLIKE("%s is %s", host->name,
                      machine_state_to_string(core_machine_state(leader->daemon->core, host->machine_id)));
    for (size_t i = 0; i < count && fault == NULL; i++)
        fault = check_unit(leader, units[i]);
    for (unsigned i = 0; i < sim.host_count && fault == NULL; i++)
        fault = check_leftovers(&sim.hosts[i]);
    return fault != NULL ? fault : check_voters();
}
