/* SPDX-License-Identifier: Apache-2.0 */
/* A whole cluster in one process and in virtual time. Every host runs the real fleetd: daemon.c and all that
 * hangs on it (membership, leader, core, planner, API, router, sessions, agent) is linked as it is. Only what
 * touches the world is a pretence, put in at link time under the real names:
 *
 *      sim-uv.c         libuv: timers, idle and prepare handles on the virtual clock
 *      sim-net.c        raftstore/port.h: connections between hosts, over links that can be cut
 *      sim-consensus.c  raftstore/store.h: what Raft promises, and no more
 *      sim-systemd.c    systemd behind sd-bus (sim-message.c), with the keeper of its lease (sim-keeper.c)
 *      sim-tmpfs.c      what lies in /run: unit files, drop-ins, the agent's records, the lease
 *      sim-host.c       HTTP clients, identity, membership file, clocks, randomness, sd_notify()
 *
 * sim.c has the clock and the hosts' lives, sim-menu.c what happens to them, sim-laws.c what must hold.
 *
 * One event at a time: it belongs to a host's fleetd, to a host, or to nobody; it waits while its owner is
 * frozen, and is lost with it. The same seed gives the same run, byte for byte of its transcript. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/str.h"
#include "fleetd/agent_dropin.h"
#include "fleetd/config.h"
#include "fleetd/core/core.h"
#include "fleetd/daemon.h"
#include "fleetd/http.h"
#include "fleetd/member.h"
#include "raftstore/registry.h"
#include "raftstore/servers.h"
#include "raftstore/store.h"

#define SIM_HOSTS_MAX     101u /* One of them is only there as a copy. */
#define SIM_TTL_MS        10000u
#define SIM_PAUSE_MS      1900u  /* Less than half of any ttl, by any clock. */
#define SIM_NOTES_MAX     400u   /* Of the transcript's last lines, kept for a failure. */
#define SIM_EVENTS_AT_MAX 50000u /* At one point in time: more is a hot loop. */

struct sim_handle; /* Of libuv. */
struct sim_call;
struct sim_conn_list;
struct systemd;
struct tmpfs;
struct disk;

struct sim_host {
    unsigned index;
    char name[8];
    char machine_id[MACHINE_ID_SIZE];
    char address[32];
    const char *role;             /* Its metadata "role", NULL for none. */
    uint64_t ttl_ms, read_ttl_ms; /* Of its configuration, and as fleetd has read it. */
    unsigned voters;
    bool disable_engine;
    bool out; /* It is told to join nobody: it has left, or is about to. */

    bool is_copy;          /* It has the machine id of another one, while it is there. */
    bool powered, running; /* running: there is a fleetd... */
    bool muted;            /* ...which is dead already: nothing that it does is seen by anybody. */
    bool stopping;
    unsigned dies_in;                   /* The action of fleetd at which it is killed; 0: none. */
    uint64_t boots, lives;              /* What belongs to an earlier one is lost. */
    char boot_id[33];                   /* Of its present boot. */
    uint64_t frozen_until_ms, froze_ms; /* fleetd... */
    uint64_t suspended_until_ms;        /* ...and the whole host. */
    uint64_t clock_base_ms;             /* Of its monotonic clock: no two hosts have the same... */
    uint64_t clock_rate;                /* ...nor the same second: so many to 1000 true ones. */
    int64_t wall_offset_ms;
    enum { SIM_UP, SIM_WAITS, SIM_GOES_DOWN } shutdown;
    bool gives_up;                     /* In the end it is not shut down. */
    uint64_t bus_away_ms, bus_back_ms; /* How long fleetd was last without systemd, and until when. */
    bool disk_full;
    uint64_t disk_slow_ms;

    /* fleetd */
    uv_loop_t loop;
    struct daemon *daemon;
    struct sim_handle *handles;
    struct sim_handle *idle, *prepare; /* Of them, while there are such. */
    struct sim_due *dues;              /* Of its active timers. */
    size_t due_count, due_capacity;
    uint64_t wake_number;
    uint64_t wake_ms; /* For when an event stands that looks after its timers; UINT64_MAX: none. */
    struct sim_call *deferred, *deferred_last;
    struct http_server *http;
    struct port *port;
    struct store *store;   /* Borrowed from fleetd, while it has one. */
    struct logind *logind; /* Likewise. */
    uint64_t leads_since_ms;

    /* What a dead fleetd leaves behind. */
    struct member member;
    bool has_member;
    struct systemd *systemd;
    struct tmpfs *tmpfs;
    struct disk *disk; /* Consensus' part of the data directory. */
};

struct sim {
    uint64_t seed, now_ms, chance;
    unsigned host_count;
    struct sim_host hosts[SIM_HOSTS_MAX];
    struct sim_host *current; /* Whose event is being handled; NULL: nobody's. */
    bool members_leave;
    bool calm;         /* Faults are over. */
    bool sparing;      /* Consensus makes no events of ticks and heartbeats that change nothing. */
    bool unseen;       /* The event that is being handled has not reached fleetd: its loop need not turn. */
    uint64_t messages; /* Between hosts, but for heartbeats and their like. */
    uint64_t doings;   /* Calls to systemd but for questions, commands, decisions. */

    char *notes[SIM_NOTES_MAX];
    size_t note_count;
    uint64_t hash; /* Of the whole transcript. */
    bool talks;    /* The transcript goes to stdout. */
    jmp_buf *fails;
    char fault[512];
};

extern struct sim sim;

/* Of all runs together: virtual time, and that times the hosts that were there. */
extern uint64_t sim_total_ms, sim_total_host_ms;

/* ---- sim.c: the clock, chance, the transcript ---- */

enum sim_owner { SIM_NOBODY, SIM_HOST, SIM_FLEETD };

/* 'lost': the owner is gone; only memory is to be freed. */
typedef void sim_event(void *data, bool lost);

uint64_t sim_clock_ms(const struct sim_host *host);             /* Its monotonic clock. */
uint64_t sim_true_ms(const struct sim_host *host, uint64_t ms); /* How long that takes, rounded up. */
/* The least time in which its clock may count so many: it shows whole ones, so the first may be nearly over.
 */
uint64_t sim_least_ms(const struct sim_host *host, uint64_t ms);

void sim_after(uint64_t ms, enum sim_owner owner, struct sim_host *host, sim_event *event, void *data);
uint64_t sim_random(uint64_t below); /* 0 .. below - 1 */
bool sim_chance(unsigned one_in);    /* Never once faults are over. */
void sim_note(const struct sim_host *host, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A law is broken: the run ends here. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

void sim_begin(uint64_t seed, unsigned host_count, unsigned voters);
void sim_run_until(uint64_t ms);
void sim_end(void);

/* fleetd acts: 'call' and what it brings about in that turn of its loop. */
void sim_turn(struct sim_host *host, void (*call)(void *data), void *data);

/* For the end of the current turn, in order. */
void sim_defer(struct sim_host *host, void (*call)(void *data), void *data);

/* ---- sim.c: lives ---- */

void sim_fleetd_start(struct sim_host *host);
void sim_fleetd_stop(struct sim_host *host); /* SIGTERM; it takes its time. */
void sim_fleetd_kill(struct sim_host *host);
/* fleetd is killed in the middle of what it does: before the 'count'-th time that it acts upon the world. */
void sim_fleetd_kill_in(struct sim_host *host, unsigned count);
/* For each such action: true if fleetd is dead, and it is not to be done. */
bool sim_dies_here(void);
void sim_config(struct sim_host *host, struct config *config); /* What its file says. */
void sim_config_read_again(struct sim_host *host);             /* Who is frozen does so later. */
void sim_power_cut(struct sim_host *host);
/* Switches on a copy of 'original' in the place of 'host': of its machine id, or of all its disk. */
void sim_copy(struct sim_host *host, const struct sim_host *original, bool disk);
void sim_forget(struct sim_host *host);            /* An operator has it join anew. */
void sim_power_on(struct sim_host *host);          /* Boots; fleetd is started a little later. */
bool sim_fleetd_acts(const struct sim_host *host); /* Runs, and is not frozen. */
bool sim_host_acts(const struct sim_host *host);

struct sim_host *sim_host_by_id(const char *machine_id);   /* No copy; NULL: no such host. */
struct sim_host *sim_host_by_address(const char *address); /* Likewise. */

/* ---- sim-uv.c ---- */

void sim_uv_signal(struct sim_host *host, int number);
/* 'host' is dead already, and only gives its memory back: no time passes for it, so all its deadlines are
 * now. */
void sim_uv_end_waits(void *host);
void sim_uv_turn(struct sim_host *host); /* Idle and prepare handles, until there is peace. */
void sim_uv_wake(struct sim_host *host); /* Sees to it that the next timer is not missed. */
void sim_uv_done(struct sim_host *host); /* Memory. */

/* ---- sim-net.c ---- */

void sim_net_begin(void);
void sim_net_end(void);
void sim_link_set(unsigned from, unsigned to, bool up);
bool sim_link_up(unsigned from, unsigned to);
bool sim_reach(const struct sim_host *from, const struct sim_host *to); /* Both ways, and both act. */
void sim_link_heal_all(void);
void sim_net_set_delay(unsigned host, uint64_t ms); /* Of all that it sends; 0: as usual. */
void sim_net_set_loss(unsigned host, unsigned one_in);
void sim_net_died(struct sim_host *host, bool silently); /* Its connections. */
uint64_t sim_net_heard_ms(unsigned at, unsigned from);   /* When bytes of a session arrived last... */
uint64_t sim_net_gap_ms(unsigned at, unsigned from);     /* ...and when last after a silence of a ttl... */
uint64_t sim_net_pause_ms(unsigned at, unsigned from);   /* ...or of SIM_PAUSE_MS. */

/* ---- sim-consensus.c ---- */

void sim_consensus_begin(void);
void sim_consensus_end(void);
void sim_consensus_died(struct sim_host *host);
void sim_consensus_forget(struct sim_host *host);
void sim_consensus_copy(struct sim_host *host, const struct sim_host *original);
struct sim_host *sim_leader(void); /* Of the newest term, past its barrier; NULL: none. */
uint64_t sim_leader_term(void);
bool sim_is_leading(const struct sim_host *host); /* Believes so itself. */
bool sim_has_seat(const struct sim_host *host);   /* It takes part in consensus. */
size_t sim_voters(void);
bool sim_votes(const struct sim_host *host);

/* ---- sim-systemd.c ---- */

enum sim_state { SIM_INACTIVE, SIM_ACTIVATING, SIM_ACTIVE, SIM_DEACTIVATING, SIM_FAILED };

struct sim_unit {
    char *name;
    char *text; /* Its file, NULL: none. */
    char hash[UNIT_HASH_SIZE];
    char loaded_hash[UNIT_HASH_SIZE]; /* What systemd has read, "": it has not. */
    char starting_hash[UNIT_HASH_SIZE], running_hash[UNIT_HASH_SIZE];
    uint64_t stamp, loaded_stamp; /* Of the file, as systemd sees it. */
    struct agent_dropin dropin, loaded_dropin;
    bool linked;
    enum sim_state state;
    bool running;     /* It has a process... */
    bool under_lease; /* ...that was started bound to the keeper... */
    bool leased;      /* ...that is to be alone in the world: all its texts so far say OnDisconnect=stop. */
    bool waits;       /* Its job, for the keeper. */
    uint64_t kill_ms; /* It is down by then; 0: nobody says so. */
    uint64_t generation;       /* For which fleetd has asked last to start it... */
    uint64_t since_generation; /* ...and for which its process was started. */
    uint32_t run;              /* Counts how often it was started: its InvocationID. */
    uint64_t restarted_in; /* The life of fleetd that has asked to restart it, and was not answered; or 0. */
    bool meddled;          /* An operator has stopped it, or it has died by itself. */
    uint32_t job_id;
    enum { SIM_JOB_NONE, SIM_JOB_START, SIM_JOB_STOP, SIM_JOB_RESTART } job;
    struct sim_unit *next;
};

/* What a text says. */
#define SIM_STOPS "OnDisconnect=stop"
#define SIM_FALSE "/bin/false"
bool sim_text_runs_on(const struct sim_host *host, const char *text); /* Neither fails there nor finishes. */

void sim_systemd_boot(struct sim_host *host);
void sim_systemd_off(struct sim_host *host);
void sim_systemd_lost(struct sim_host *host); /* The daemon's connection to it. */
struct sim_unit *sim_systemd_units(const struct sim_host *host);
struct sim_unit *sim_systemd_unit(const struct sim_host *host, const char *name);
void sim_systemd_meddle(struct sim_host *host, struct sim_unit *unit, bool dies);
/* The connection breaks, and does not come back for so long. */
void sim_systemd_hiccup(struct sim_host *host, uint64_t ms);

/* ---- sim-keeper.c ---- */

void sim_keeper_kill(struct sim_host *host);
void sim_keeper_hang(struct sim_host *host); /* Its process is stopped by a signal, until it is killed. */

/* ---- sim-tmpfs.c ---- */

void sim_tmpfs_boot(struct sim_host *host);
void sim_tmpfs_off(struct sim_host *host);
uint64_t sim_lease_end_ms(const struct sim_host *host); /* In the simulation's time; 0: there was none. */

/* ---- sim-host.c ---- */

/* In order, through logind, which waits for fleetd; then its power is off. */
void sim_shutdown(struct sim_host *host, bool gives_up);
void sim_shutdown_give_up(struct sim_host *host);
void sim_member_copy(struct sim_host *host, const struct sim_host *original); /* The membership file. */

struct sim_request {
    struct http_request request;
    struct http_query query;
    struct sim_host *host;
    char *path, *body;
    void (*answered)(struct sim_request *request, unsigned status, void *data); /* 0: nobody has answered. */
    void *data;
};

/* A client of that host's fleetd; 'answered' comes once, and the request is freed then. */
void sim_http(struct sim_host *host, const char *method, const char *path, const char *body,
              void (*answered)(struct sim_request *, unsigned status, void *data), void *data);
size_t sim_http_open(const struct sim_host *host); /* Requests that are not answered yet. */
void sim_log(int priority, const char *message, const char *const *fields);

/* ---- sim-laws.c ---- */

void sim_laws_begin(void);
void sim_laws_end(void);
const struct registry *sim_truth(void);
uint64_t sim_truth_version(void);
void sim_law_committed(const uint8_t *bytes, size_t size, uint64_t term);
void sim_law_applied(const struct sim_host *host, struct registry *registry);
void sim_law_failed(const struct sim_host *host, const struct sim_unit *unit); /* Its process. */
void sim_law_started(struct sim_host *host, struct sim_unit *unit);
void sim_law_stopping(struct sim_host *host, struct sim_unit *unit, bool restart);
void sim_law_starting(struct sim_host *host, struct sim_unit *unit);
void sim_law_shut_down(const struct sim_host *host); /* It is, or was until now. */
void sim_law_lost(struct sim_host *leader, const char *machine_id);
void sim_law_hung(struct sim_host *leader, const char *machine_id);
/* A change of a user: it must be in the history after the answer 2xx, never after 503. */
uint64_t
sim_law_asked(const char *unit, uint64_t mark,
              const char *desired); /* 'mark' 0: none; 'desired' NULL: destroyed. Returns a ticket. */
void sim_law_answered(uint64_t ticket, unsigned status);
bool sim_law_all_called(void); /* Every host has its session. */
/* NULL: all is as it should be for ever; otherwise what is not, valid until the next call. */
const char *sim_law_converged(void);

/* A fleetd has noted that its host was removed. */
void sim_law_removed(const struct sim_host *host, const struct member *member);

/* ---- sim-members.c ---- */

/* Operators ask 'at' until it is done, or they give up. It stays out for 'out_ms', 0: it joins anew at once.
 */
void sim_member_leave(struct sim_host *host, bool force, uint64_t out_ms);
void sim_member_remove(struct sim_host *at, struct sim_host *host, bool force, uint64_t out_ms);
void sim_member_readmit(struct sim_host *host);
void sim_member_prefer(struct sim_host *at, const struct sim_host *about, const char *preference);
void sim_member_transfer(struct sim_host *at, const struct sim_host *to); /* NULL: to anybody. */

/* ---- sim-menu.c ---- */

struct sim_deed;

/* From now on the deeds of a seed are spread over so long; 0: as usual. */
void sim_menu_stretch(uint64_t ms);

/* What the seed has in store, as a list: "name(arguments)" with its time. */
size_t sim_menu_plan(uint64_t seed); /* Also sets how many hosts, and for how long. Returns how many deeds. */
void sim_menu_done(void);
/* The whole run: 'mask' (a byte for each deed, NULL: all) leaves out deeds that are 0. False: a law was
 * broken, and sim.fault says which. */
bool sim_menu_run(uint64_t seed, const uint8_t *mask);
char *sim_menu_describe(size_t deed); /* Owned by the caller. */
