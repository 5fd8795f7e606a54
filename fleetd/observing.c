/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers what this host tells a monitoring system. Each host answers for itself, also without a cluster or a
 * leader, and nothing is waited for. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"

/* ---- the process ---- */

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void read_memory(struct metrics_process *process)
{
    _cleanup_(fclosep) FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long size, resident, page = (unsigned long long)sysconf(_SC_PAGESIZE);

    if (f == NULL || fscanf(f, "%llu %llu", &size, &resident) != 2)
        return;
    process->virtual_bytes = size * page;
    process->resident_bytes = resident * page;
}

/* Field 22 of proc(5)'s stat, in ticks since the machine was started. */
static void read_start(struct metrics_process *process)
{
    _cleanup_(fclosep) FILE *f = fopen("/proc/self/stat", "re");
    unsigned long long ticks, per_second = (unsigned long long)sysconf(_SC_CLK_TCK);

    if (f == NULL ||
        fscanf(f,
               "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
               "%*d %*d %llu",
               &ticks) != 1)
        return;
    process->started_s = (double)(wall_ms() - now_ms()) / 1000 + (double)ticks / (double)per_second;
}

static void count_fds(struct metrics_process *process)
{
    _cleanup_(closedirp) DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        process->open_fds += entry->d_name[0] != '.';
    if (process->open_fds > 0)
        process->open_fds--; /* 'dir' itself. */
}

static void observe_process(struct metrics_process *process)
{
    struct rusage usage;
    struct rlimit limit;

    if (getrusage(RUSAGE_SELF, &usage) == 0)
        process->cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        process->max_fds = limit.rlim_cur;
    read_memory(process);
    read_start(process);
    count_fds(process);
}

/* ---- the cluster ---- */

static void count_local(const struct agent_report *report, void *data)
{
    struct metrics *metrics = data;

    metrics->local[metrics_active_from_string(report->active_state)]++;
}

static enum metrics_machine machine_kind(enum machine_state state)
{
    switch (state) {
    case MACHINE_EXPECTED: return METRICS_JOINING;
    case MACHINE_READY: return METRICS_READY;
    case MACHINE_SUSPECTED: return METRICS_SUSPECTED;
    case MACHINE_HUNG: return METRICS_HUNG;
    case MACHINE_MISSING: return METRICS_MISSING;
    case MACHINE_LOST: break;
    }
    return METRICS_LOST;
}

static void observe_cluster(const struct daemon *daemon, struct metrics *metrics)
{
    const struct registry *registry = store_registry(daemon->store);
    size_t machine_count, unit_count;
    const struct registry_machine *const *machines = registry_machines(registry, &machine_count);
    const struct registry_unit *const *units = registry_units(registry, &unit_count);

    metrics->leads = store_leads(daemon->store);
    metrics->term = store_term(daemon->store);
    metrics->applied = registry_version(registry);
    metrics->machines_registered = machine_count;
    for (size_t i = 0; i < unit_count; i++) {
        metrics->units[units[i]->desired]++;
        metrics->units_unplaced += units[i]->desired != UNIT_STATE_INACTIVE && units[i]->target[0] == '\0' &&
                                   !units[i]->requirements->global;
    }
    for (size_t i = 0; i < machine_count; i++) {
        metrics->machines_cordoned += machines[i]->availability == MACHINE_CORDONED;
        metrics->machines_draining += machines[i]->availability == MACHINE_DRAINING;
        if (metrics->leads)
            metrics->machines[machine_kind(core_machine_state(daemon->core, machines[i]->id))]++;
    }
    store_stats(daemon->store, &metrics->store);
}

char *observing_metrics(struct daemon *daemon)
{
    struct metrics_code codes[HTTP_STATUSES];
    struct metrics metrics = {
        .version = PACKAGE_VERSION,
        .member = daemon->is_member,
        .session = daemon->uplink != NULL && uplink_is_open(daemon->uplink),
        .certificate_ends_s = daemon->credentials.info.not_after_ms / 1000,
        .systemd = agent_bus_connected(daemon->agent),
        .connections = http_server_connections(daemon->http),
        .codes = codes,
        .engine = daemon->engine,
    };

    for (unsigned status = 0; status < HTTP_STATUSES; status++) {
        uint64_t count = http_server_answered(daemon->http, status);

        if (count > 0)
            codes[metrics.code_count++] = (struct metrics_code){status, count};
    }
    agent_each(daemon->agent, count_local, &metrics);
    if (daemon->store != NULL && daemon->core != NULL)
        observe_cluster(daemon, &metrics);
    observe_process(&metrics.process);
    return metrics_print(&metrics);
}
