/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/metrics.h"

#include "base/cleanup.h"
#include "base/str.h"

static const char *const task_words[METRICS_TASK_COUNT] = {
    [METRICS_TASK_UNSCHEDULE] = "unscheduleunit",
    [METRICS_TASK_SCHEDULE] = "attemptscheduleunit",
};

static const char *const failure_words[METRICS_FAILURE_COUNT] = {
    [METRICS_FAILURE_AWAY] = "machine_away",
    [METRICS_FAILURE_RUN] = "run",
    [METRICS_FAILURE_SCHEDULE] = "schedule",
};

static const char *const machine_words[METRICS_MACHINE_COUNT] = {
    [METRICS_READY] = "ready",     [METRICS_SUSPECTED] = "suspected", [METRICS_HUNG] = "hung",
    [METRICS_MISSING] = "missing", [METRICS_LOST] = "lost",           [METRICS_JOINING] = "joining",
};

static const char *const active_words[METRICS_ACTIVE_COUNT] = {
    [METRICS_ACTIVE] = "active", [METRICS_RELOADING] = "reloading",   [METRICS_INACTIVE] = "inactive",
    [METRICS_FAILED] = "failed", [METRICS_ACTIVATING] = "activating", [METRICS_DEACTIVATING] = "deactivating",
    [METRICS_OTHER] = "other",
};

static const char *const outcome_words[STORE_OUTCOMES] = {
    [STORE_APPLIED] = "applied",
    [STORE_REFUSED] = "refused",
    [STORE_UNKNOWN] = "unknown",
};

/* ---- counting ---- */

void metrics_count_placement(struct metrics_engine *engine, bool leaves, bool arrives, bool machine_away)
{
    engine->tasks[METRICS_TASK_UNSCHEDULE] += leaves;
    engine->tasks[METRICS_TASK_SCHEDULE] += arrives;
    engine->failures[METRICS_FAILURE_AWAY] += leaves && machine_away;
    engine->failures[METRICS_FAILURE_SCHEDULE] += !arrives;
}

void metrics_count_failed(struct metrics_engine *engine, size_t left, size_t arrived)
{
    engine->failures[METRICS_FAILURE_RUN]++;
    engine->task_failures[METRICS_TASK_UNSCHEDULE] += left;
    engine->task_failures[METRICS_TASK_SCHEDULE] += arrived;
}

enum metrics_active metrics_active_from_string(const char *word)
{
    for (unsigned i = 0; i < METRICS_OTHER; i++)
        if (streq(active_words[i], word))
            return i;
    return METRICS_OTHER;
}

/* ---- writing ---- */

static void add_family(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_single(struct strbuf *out, const char *name, const char *type, const char *help,
                       uint64_t value)
{
    add_family(out, name, type, help);
    strbuf_addf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void add_seconds(struct strbuf *out, const char *name, const char *type, const char *help,
                        double value)
{
    add_family(out, name, type, help);
    strbuf_addf(out, "%s %.3f\n", name, value);
}

/* One sample for each word. */
static void add_by(struct strbuf *out, const char *name, const char *type, const char *help,
                   const char *label, const char *const *words, const uint64_t *values, size_t count)
{
    add_family(out, name, type, help);
    for (size_t i = 0; i < count; i++)
        strbuf_addf(out, "%s{%s=\"%s\"} %llu\n", name, label, words[i], (unsigned long long)values[i]);
}

/* ---- the families ---- */

static void add_engine(struct strbuf *out, const struct metrics_engine *engine)
{
    add_seconds(out, "fleet_engine_leader_start_time", "gauge",
                "When this host became leader, in seconds since 1970; 0 while it does not lead.",
                (double)engine->leader_since_ms / 1000);
    add_by(out, "fleet_engine_task_count_total", "counter", "What the leader has decided about units.",
           "type", task_words, engine->tasks, METRICS_TASK_COUNT);
    add_by(out, "fleet_engine_task_failure_count_total", "counter",
           "Of these, what did not get into the registry; it is decided anew.", "type", task_words,
           engine->task_failures, METRICS_TASK_COUNT);
    add_single(out, "fleet_engine_reconcile_count_total", "counter",
               "Decisions of the leader: each is one change of the schedule.", engine->decisions);
    add_by(
        out, "fleet_engine_reconcile_failure_count_total", "counter",
        "Units that had to leave a lost machine, decisions that came to nothing, units left without a place.",
        "type", failure_words, engine->failures, METRICS_FAILURE_COUNT);
}

static void add_cluster(struct strbuf *out, const struct metrics *m)
{
    static const char *const states[UNIT_STATE_COUNT] = {
        [UNIT_STATE_INACTIVE] = "inactive",
        [UNIT_STATE_LOADED] = "loaded",
        [UNIT_STATE_LAUNCHED] = "launched",
    };

    add_single(out, "fleet_member", "gauge", "Whether this host belongs to a cluster.", m->member);
    add_single(out, "fleet_leader", "gauge", "Whether this host leads the cluster.", m->leads);
    add_single(out, "fleet_session_open", "gauge", "Whether this host has a session to the leader.",
               m->session);
    if (m->certificate_ends_s != 0)
        add_single(out, "fleet_certificate_expiry_seconds", "gauge",
                   "When this host's certificate ends, since 1970.", m->certificate_ends_s);
    add_single(out, "fleet_raft_term", "gauge", "The term of the consensus.", m->term);
    add_single(out, "fleet_registry_version", "gauge", "How many changes this host's registry has seen.",
               m->applied);
    add_single(out, "fleet_machines_registered", "gauge", "Machines of the cluster.", m->machines_registered);
    add_single(out, "fleet_machines_cordoned", "gauge", "Machines that get no new units.",
               m->machines_cordoned);
    add_single(out, "fleet_machines_draining", "gauge", "Machines that units leave.", m->machines_draining);
    if (m->leads)
        add_by(out, "fleet_machines", "gauge", "Machines by state. Known to the leader, and told only there.",
               "state", machine_words, m->machines, METRICS_MACHINE_COUNT);
    add_by(out, "fleet_units", "gauge", "Units of the cluster by desired state.", "desired", states, m->units,
           UNIT_STATE_COUNT);
    add_single(out, "fleet_units_unplaced", "gauge", "Units that want a machine and have none.",
               m->units_unplaced);
    add_by(out, "fleet_local_units", "gauge", "Units on this host by what its systemd says of them.",
           "active", active_words, m->local, METRICS_ACTIVE_COUNT);
    add_single(out, "fleet_systemd_connected", "gauge", "Whether this host's systemd can be reached.",
               m->systemd);
}

static void add_http(struct strbuf *out, const struct metrics *m)
{
    add_family(out, "fleet_api_requests_total", "counter", "Requests answered by this host, by HTTP status.");
    for (size_t i = 0; i < m->code_count; i++)
        strbuf_addf(out, "fleet_api_requests_total{code=\"%u\"} %llu\n", m->codes[i].status,
                    (unsigned long long)m->codes[i].count);
    add_single(out, "fleet_api_connections", "gauge", "Open connections of clients.", m->connections);
}

static void add_store(struct strbuf *out, const struct store_stats *stats)
{
    static const char name[] = "fleet_raft_commit_duration_seconds";
    uint64_t below = 0;

    add_by(out, "fleet_raft_proposals_total", "counter", "Changes that this host has proposed as the leader.",
           "outcome", outcome_words, stats->outcomes, STORE_OUTCOMES);
    add_family(out, name, "histogram",
               "From a change's proposal until it is on a majority's disks and applied here.");
    for (size_t i = 0; i < STORE_LATENCY_BUCKETS; i++) {
        below += stats->latency[i];
        strbuf_addf(out, "%s_bucket{le=\"%g\"} %llu\n", name, stats->latency_limits_us[i] / 1e6,
                    (unsigned long long)below);
    }
    below += stats->latency[STORE_LATENCY_BUCKETS];
    strbuf_addf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
                (unsigned long long)below, name, (double)stats->latency_sum_us / 1e6, name,
                (unsigned long long)below);
}

/* As Prometheus' own client libraries name them. */
static void add_process(struct strbuf *out, const struct metrics_process *process)
{
    add_seconds(out, "process_cpu_seconds_total", "counter", "Processor time used, in seconds.",
                process->cpu_s);
    add_seconds(out, "process_start_time_seconds", "gauge", "When fleetd was started, in seconds since 1970.",
                process->started_s);
    add_single(out, "process_resident_memory_bytes", "gauge", "Memory in use.", process->resident_bytes);
    add_single(out, "process_virtual_memory_bytes", "gauge", "Address space in use.", process->virtual_bytes);
    add_single(out, "process_open_fds", "gauge", "Open file descriptors.", process->open_fds);
    add_single(out, "process_max_fds", "gauge", "The limit for them.", process->max_fds);
}

char *metrics_print(const struct metrics *metrics)
{
    struct strbuf out = {0};

    add_family(&out, "fleet_build_info", "gauge", "Always 1; the label tells the version.");
    strbuf_addf(&out, "fleet_build_info{version=\"%s\"} 1\n", metrics->version);
    add_cluster(&out, metrics);
    add_engine(&out, &metrics->engine);
    if (metrics->store.latency_limits_us != NULL)
        add_store(&out, &metrics->store);
    add_http(&out, metrics);
    add_process(&out, &metrics->process);
    return strbuf_take(&out);
}
