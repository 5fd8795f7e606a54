/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's insides, shared by its files only: agent.c (what is wanted, life), agent_unit.c (the
 * facts of units), agent_step.c (the one place that works), agent_systemd.c (calls to systemd),
 * agent_signals.c (what systemd tells by itself), agent_why.c (what it tells the journal only).
 *
 * One place works: the step, once per loop turn in which something has changed. It asks the plan what the
 * changed
 * ("dirty") units need, and starts it. Replies and signals only note facts and mark units dirty. A unit in a
 * call is busy and cannot be freed; a unit whose operation failed is busy until its pause ends. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-bus.h>
#include <uthash.h>
#include <utlist.h>
#include <uv.h>

#include "fleetd/agent.h"
#include "fleetd/agent_dropin.h"
#include "fleetd/agent_files.h"
#include "fleetd/agent_lease.h"
#include "fleetd/agent_record.h"
#include "fleetd/bus.h"
#include "fleetd/core/agent_plan.h"

#define AGENT_RETRY_MIN_MS 1000
#define AGENT_RETRY_MAX_MS 60000

/* Calls under way at a time: the system bus allows 128 outstanding replies, the private socket any number. */
#define AGENT_CALLS_BUS    100
#define AGENT_CALLS_DIRECT 4096

#define AGENT_STATE_SIZE 32 /* systemd's words for states. */

struct local_unit {
    char *name;
    UT_hash_handle hh;

    /* What is wanted. */
    enum agent_wish wish;
    char hash[UNIT_HASH_SIZE];
    char *text; /* Until it is written. */
    size_t text_size;
    uint64_t generation, token, stop_ms, batch, restart;
    uint64_t named; /* The batch that named it last. */

    /* What is on the host. */
    char file_hash[UNIT_HASH_SIZE]; /* "": no file. */
    enum agent_install install;     /* Of the file: whether it is to be, or was, enabled. */
    bool disable;                   /* An older content was enabled: to be undone before it is linked. */
    bool untried;                   /* What was carried out was so for older contents than the file's. */
    bool relabelled;                /* The wanted content differs from the file in [X-Fleet] only. */
    bool linked;
    bool fixed; /* systemd has refused to stop it, for good. */
    struct agent_dropin dropin;
    bool lapsed;   /* The end of the lease has stopped it: it is started when there is a new one. */
    bool ending;   /* It was still going down when its lease, or the keeper, had ended. */
    bool no_lease; /* It needs one, and must not be started now. */
    struct agent_record record;
    char *error;                   /* NULL: none. */
    bool explaining;               /* The journal is asked for its reason: the report waits... */
    bool explained;                /* ...and this is it. */
    uint64_t written_us, asked_us; /* When its file was written, and a start asked (CLOCK_MONOTONIC). */

    /* What systemd says. */
    bool known;
    char load_state[AGENT_STATE_SIZE], active_state[AGENT_STATE_SIZE], sub_state[AGENT_STATE_SIZE];
    enum agent_stale stale;
    enum agent_job job;
    uint32_t job_id;
    uint64_t job_generation; /* For which a start was asked. */
    bool signalled;          /* A change of state was signalled since. */

    /* Work. */
    bool busy, preparing, dirty, unreported;
    uint64_t retry_at_ms, retry_ms; /* 0: none. */
    struct local_unit *dirty_prev, *dirty_next;
    struct local_unit *unreported_prev, *unreported_next;
    struct local_unit *preparing_prev, *preparing_next;
};

struct agent_call;
struct agent_why;

struct agent {
    uv_loop_t *loop;
    const struct agent_callbacks *callbacks;
    void *data;
    char *directory, *links; /* Of the files, and where systemd links them; NULL: unknown. */
    char *own_unit;          /* That fleetd runs in; NULL: none. */
    int directory_fd;
    char *dropin_directory;
    struct agent_lease lease;
    struct agent_records records;
    struct local_unit *units; /* uthash by name. */
    struct local_unit *dirty, *unreported, *preparing;
    uint64_t batch;

    uv_idle_t idle;   /* Active while something is to be done in this loop turn. */
    uv_timer_t retry; /* For the first pause that ends. */
    bool closing;
    int open_parts;
    void (*done)(void *data);
    void *done_data;

    struct bus *bus;
    sd_bus *sd; /* NULL: not connected. */
    bool direct, attached, reloading;
    char *owner; /* systemd's unique name on a bus. */
    sd_bus_slot *matches[5];
    struct agent_call *calls;
    size_t call_count;
    struct agent_why *why; /* What the journal is to be asked next; NULL: nothing. */
    bool why_works;        /* It is being asked. */
    void (*stopping_answer)(bool stopping, void *data); /* Of agent_ask_stopping(). */
    void *stopping_data;
    bool linking, removing, checking,
        reload_asked; /* At most one such call at a time: what comes meanwhile gathers. */
};

/* agent_unit.c: the units, and what calls and signals tell of them. */
struct local_unit *agent_find(const struct agent *agent, const char *name);
struct local_unit *agent_unit_new(struct agent *agent, const char *name);
void agent_unit_free(struct agent *agent, struct local_unit *unit);
void agent_wake(struct agent *agent);
void agent_unit_touch(struct agent *agent, struct local_unit *unit);   /* Facts have changed: plan it anew. */
void agent_unit_clean(struct agent *agent, struct local_unit *unit);   /* It is planned. */
void agent_unit_changed(struct agent *agent, struct local_unit *unit); /* Its report has changed. */
void agent_unit_note(struct agent *agent, struct local_unit *unit);    /* Its record has changed. */
void agent_unit_busy(struct agent *agent, struct local_unit *unit, bool preparing);
void agent_unit_idle(struct agent *agent, struct local_unit *unit);
void agent_unit_set_error(struct agent *agent, struct local_unit *unit, const char *error); /* NULL: none. */
/* An operation failed: says so once, and pauses the unit. */
void agent_unit_fail(struct agent *agent, struct local_unit *unit, const char *verb, const char *why);
void agent_unit_proved(struct local_unit *unit); /* An operation succeeded: the next pause is a short one. */
/* 'generation' was carried out. */
void agent_unit_finish(struct agent *agent, struct local_unit *unit, uint64_t generation, const char *result);
/* systemd knows the content of the file now. */
void agent_unit_prepared(struct agent *agent, struct local_unit *unit);
/* Disabled: its file goes, unless it is wanted again. */
void agent_unit_removed(struct agent *agent, struct local_unit *unit);
bool agent_unit_has_load_error(const struct local_unit *unit);
bool agent_unit_needs_restart(const struct local_unit *unit); /* What runs of it, if anything, is outdated. */
/* Whether that is to be done now, and nothing before it: such as to write, and to load, what came meanwhile.
 */
bool agent_unit_restarts_now(const struct local_unit *unit);
void agent_facts(const struct local_unit *unit, struct agent_facts *ret);
void agent_unit_log(const struct local_unit *unit, int priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* agent_step.c */
void agent_on_idle(uv_idle_t *idle);
void agent_report_unit(const struct local_unit *unit, bool gone,
                       void (*each)(const struct agent_report *report, void *data), void *data);

/* agent.c */
void agent_attached(struct agent *agent);              /* systemd has answered. */
void agent_check_all(struct agent *agent);             /* What systemd said may not hold any more. */
void agent_lost(struct agent *agent, const char *why); /* Nothing that systemd said holds any more. */
void agent_part_closed(struct agent *agent);           /* Something of agent_close() has ended. */

/* agent_why.c: the journal. */
/* Adds to the unit's error what was said of it since 'since_us' (CLOCK_MONOTONIC). */
void agent_why_ask(struct agent *agent, struct local_unit *unit, uint64_t since_us);
void agent_why_drop(struct agent *agent); /* What was not asked yet. */

/* agent_systemd.c: calls. */
void agent_unit_set_state(struct agent *agent, struct local_unit *unit, char word[static AGENT_STATE_SIZE],
                          const char *value);
void agent_unit_set_inactive(struct agent *agent, struct local_unit *unit);
bool agent_calls_full(const struct agent *agent);
void agent_calls_drop(struct agent *agent);
void agent_call_subscribe(struct agent *agent);
void agent_call_keeper(struct agent *agent); /* Asks what has become of it. */
void agent_call_stop(struct agent *agent, struct local_unit *unit);
void agent_call_start(struct agent *agent, struct local_unit *unit);
void agent_call_ask(struct agent *agent, struct local_unit *unit);
void agent_call_link(struct agent *agent, struct local_unit **units, size_t count);
void agent_call_remove(struct agent *agent, struct local_unit **units, size_t count);
void agent_call_check(struct agent *agent, struct local_unit **units, size_t count);
void agent_call_reload(struct agent *agent, struct local_unit **units, size_t count);

/* agent_signals.c: the connection and systemd's signals. */
extern const struct bus_callbacks agent_bus_callbacks;
void agent_detach(struct agent *agent);
