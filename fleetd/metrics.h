/* SPDX-License-Identifier: Apache-2.0 */
/* What this host tells a monitoring system at GET /metrics, in Prometheus' text format 0.0.4. Pure: numbers
 * in, text out. The first fleet's series keep their names (fleet-behaviour.md §4.8) and count what their
 * names say. No series has a label whose values grow with the cluster: no unit names, no machine ids. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftstore/store.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4"

/* A placement takes a unit away, gives it to a machine, or both. */
enum metrics_task {
    METRICS_TASK_UNSCHEDULE,
    METRICS_TASK_SCHEDULE,
    METRICS_TASK_COUNT,
};

enum metrics_failure {
    METRICS_FAILURE_AWAY,     /* A unit had to leave a machine that is lost, or no member any more. */
    METRICS_FAILURE_RUN,      /* A decision did not get into the registry. */
    METRICS_FAILURE_SCHEDULE, /* A unit lost its place, and fitted nowhere else. */
    METRICS_FAILURE_COUNT,
};

/* What the leader has done, since this daemon began. All zero is a valid beginning. */
struct metrics_engine {
    uint64_t leader_since_ms; /* Since 1970; 0: this host does not lead. */
    uint64_t decisions;
    uint64_t tasks[METRICS_TASK_COUNT], task_failures[METRICS_TASK_COUNT];
    uint64_t failures[METRICS_FAILURE_COUNT];
};

/* Counts one placement of a decision. */
void metrics_count_placement(struct metrics_engine *engine, bool leaves, bool arrives, bool machine_away);
/* It was not carried out: the store, or the registry, has refused it. */
void metrics_count_failed(struct metrics_engine *engine, size_t left, size_t arrived);

enum metrics_machine {
    METRICS_READY,
    METRICS_SUSPECTED,
    METRICS_HUNG,
    METRICS_MISSING,
    METRICS_LOST,
    METRICS_JOINING,
    METRICS_MACHINE_COUNT
};

/* systemd's active states; METRICS_OTHER for words that it may learn yet. */
enum metrics_active {
    METRICS_ACTIVE,
    METRICS_RELOADING,
    METRICS_INACTIVE,
    METRICS_FAILED,
    METRICS_ACTIVATING,
    METRICS_DEACTIVATING,
    METRICS_OTHER,
    METRICS_ACTIVE_COUNT,
};

enum metrics_active metrics_active_from_string(const char *word);

/* Of this process; whatever cannot be found out stays 0. */
struct metrics_process {
    double cpu_s, started_s; /* Used; since 1970. */
    uint64_t resident_bytes, virtual_bytes, open_fds, max_fds;
};

struct metrics_code {
    unsigned status;
    uint64_t count;
};

struct metrics {
    const char *version;
    bool member, leads, session, systemd; /* Of a cluster; the cluster; open; reachable. */
    uint64_t certificate_ends_s;          /* Since 1970; 0: this host has none. */
    uint64_t term, applied;
    uint64_t machines_registered;
    uint64_t machines[METRICS_MACHINE_COUNT]; /* Known to the leader only. */
    uint64_t machines_cordoned, machines_draining;
    uint64_t units[UNIT_STATE_COUNT];     /* By desired state. */
    uint64_t units_unplaced;              /* That want a machine and have none. */
    uint64_t local[METRICS_ACTIVE_COUNT]; /* Units on this host, by what systemd says. */
    uint64_t connections;
    const struct metrics_code *codes; /* Answers over HTTP, by status. */
    size_t code_count;
    struct metrics_engine engine;
    struct store_stats store; /* Without limits: this host has no store. */
    struct metrics_process process;
};

/* The whole text; owned by the caller. */
char *metrics_print(const struct metrics *metrics);
