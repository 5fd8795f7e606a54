/* SPDX-License-Identifier: Apache-2.0 */
/* A small world for the core: a real registry, a real core, machines with pretend agents, and a clock that
 * only advance() moves. What the core asks for is carried out at once and checked: shares are sent only where
 * there is a session, and a unit is given to a machine only while no other may have it. */
#pragma once

#include <stdio.h>

#include "base/str.h"
#include "fleetd/core/core.h"

#define TTL_MS       10000u
#define BEAT_MS      2000u
#define MACHINES_ALL 6u

/* A unit on a machine, as its agent sees it. */
struct item {
    char *unit;
    uint64_t wanted, carried_out;         /* Generations; 'wanted' 0: to be removed. */
    char active[16], sub[16], result[16]; /* "" sub: the usual one. */
    uint64_t stop_ms;                     /* 0: OnDisconnect=keep. */
    bool loose, wants_loose;              /* What runs, and what shall, has no lease. */
    bool launched;
    uint64_t asked;         /* As in its report; by a machine that cannot say so: 0. */
    uint64_t busy_until_ms; /* An agent that works by itself is done with it then. */
};

/* A message between a machine and the leader, on its way. */
struct mail {
    struct strlist names, removed; /* Down: a share... */
    uint64_t *generations, *stop_ms, number;
    bool complete;
    Fleet__UnitReport *report; /* ...up: a report. */
    uint64_t due_ms;
    struct mail *prev, *next;
};

struct machine {
    char id[MACHINE_ID_SIZE];
    uint64_t session;      /* 0: none. */
    uint64_t shares_taken; /* In it. */
    uint64_t called_term;  /* The latest leader that it has called. */
    bool beats;            /* It is heard as long as it has a session. */
    bool given_up;         /* A leader took it for lost, or forgot it, and it has not called since. */
    bool dead;             /* A person has said so, or removed it, and it has not called since. */
    bool shuts_down;       /* It says so. */
    bool ready;            /* It was told that it need not wait with that. */
    bool off;              /* It has lost power: what is sent there arrives nowhere. */
    uint64_t heard_ms, lease_until_ms;
    enum {
        KERNEL_SILENT,
        KERNEL_ACCEPTS,
        KERNEL_REFUSES
    } kernel; /* What it does with probes, once a second. */
    uint64_t probed_ms, kernel_since_ms;
    struct item *items;
    size_t count, capacity;
    struct mail *down, *up;
};

struct world {
    struct registry *registry;
    struct core *core;
    uint64_t now_ms, term, sessions;
    struct machine machines[MACHINES_ALL];
    bool slow;            /* Mail and agents take their time, by chance. */
    unsigned failing;     /* One start of so many fails, where agents work by themselves; 0: none. */
    bool unchecked;       /* Many machines that are none of 'machines'. */
    unsigned refuse;      /* So many of the next schedules are refused. */
    bool hold;            /* The outcome of a schedule stays open... */
    struct effect *held;  /* ...of this one. */
    bool refuse_lease;    /* The next longest lease is refused. */
    bool refuse_verdicts; /* They get lost on their way to the registry. */
    unsigned schedules, shares, drops, logs, placements, moves, verdicts, leases;
    struct strlist settled; /* Since world_forget(). */
    FILE *transcript;       /* All effects as text; may be NULL. */
    uint64_t chance;        /* State of the generator. */
};

#define PLAIN       "[Service]\nExecStart=/bin/sleep inf\n"
#define STOP        "[X-Fleet]\nOnDisconnect=stop\n" /* Behind another text. */
#define STOP_3S     PLAIN "TimeoutStopSec=3\n" STOP
#define ON_WEB      PLAIN "[X-Fleet]\nMachineMetadata=role=web\n"
#define GLOBAL      PLAIN "[X-Fleet]\nGlobal=true\n"
#define WEB_ALL     PLAIN "[X-Fleet]\nGlobal=true\nMachineMetadata=role=web\n"
#define OTHER       "[Service]\nExecStart=/bin/sleep 1\n"
#define ONLY_ON(id) PLAIN "[X-Fleet]\nMachineID=" id "\n"
#define ON_A        ONLY_ON("aaaaaaaa")
#define ON_B        ONLY_ON("bbbbbbbb")
#define ON_C        ONLY_ON("cccccccc")

#define LOADED   FLEET__DESIRED_STATE__DESIRED_LOADED
#define LAUNCHED FLEET__DESIRED_STATE__DESIRED_LAUNCHED
#define INACTIVE FLEET__DESIRED_STATE__DESIRED_INACTIVE

#define DRAINING FLEET__AVAILABILITY__AVAILABILITY_DRAINING
#define CORDONED FLEET__AVAILABILITY__AVAILABILITY_CORDONED
#define ACTIVE   FLEET__AVAILABILITY__AVAILABILITY_ACTIVE

void world_init(struct world *w);
void world_done(struct world *w);
void world_forget(struct world *w); /* Counts from here. */
uint64_t world_random(struct world *w, uint64_t below);

struct machine *machine_of(struct world *w, const char *name);
struct item *item_of(const struct machine *m, const char *unit);

/* ---- what happens ---- */

void leads(struct world *w); /* A new leader, with an empty mind. */
void may_place(struct world *w, bool placing);
void registers(struct world *w, const char *name, const char *metadata); /* "role=web"; NULL: none. */
void is_removed(struct world *w, const char *name);
/* The registry is restored from a backup, on this machine: the others are of the old cluster. */
void is_restored(struct world *w, const char *name);
void is_confirmed_lost(struct world *w, const char *name); /* By a person. */
void is_set(struct world *w, const char *name, Fleet__Availability availability);
void is_stopped(struct world *w, const char *name); /* Its fleetd, on purpose: it says goodbye. */
/* It says so, in its session; or that it is not any more. */
void is_shut_down(struct world *w, const char *name, bool begins);
/* Time passes, and about once a second the machine's kernel accepts, or refuses, connections to fleetd's
 * port. */
void advance_probing(struct world *w, const char *name, bool accepts, uint64_t ms);
void gets_metadata(struct world *w, const char *name, const char *key, const char *value);
void accepts_probes(struct world *w, const char *name,
                    bool accepts); /* Its kernel, though fleetd is silent. */
void loses_power(struct world *w, const char *name);
void is_mended(struct world *w, const char *name); /* What has failed there is started again. */
void machine_calls(struct world *w, const char *name);
void stranger_calls(struct world *w, const char *id, uint64_t session); /* Of an unchecked world. */
void machine_hangs_up(struct world *w, const char *name);
void falls_silent(struct world *w, const char *name); /* Its session stays; nothing is heard. */
void is_heard(struct world *w, const char *name);
void reports(struct world *w, const char *name, const char *unit, const char *active);
void reports_sub(struct world *w, const char *name, const char *unit, const char *active, const char *sub);
void fails(struct world *w, const char *name, const char *unit, const char *result);
/* A start fails as an agent tells it: first the state, then that it is through with that. */
void start_fails(struct world *w, const char *name, const char *unit);
/* systemd refuses the content; 'active': what becomes, or was left, of an older one. */
void refuses(struct world *w, const char *name, const char *unit, const char *active);
void is_stopped_by_its_lease(struct world *w, const char *name, const char *unit);
void lets_go(struct world *w, const char *name, const char *unit);
/* That it has nothing of the unit, said when it had taken only so many shares: the others were on their way.
 */
void let_go_before(struct world *w, const char *name, const char *unit, uint64_t shares);
void user_submits(struct world *w, const char *unit, const char *text, Fleet__DesiredState desired);
void user_starts(struct world *w, const char *unit); /* PLAIN, where it is new. */
void user_loads(struct world *w, const char *unit);
void user_restarts(struct world *w, const char *unit);
void user_stops(struct world *w, const char *unit);
void user_destroys(struct world *w, const char *unit);
void cluster_sets(struct world *w, const char *setting, const char *value); /* NULL: the default. */
void advance(struct world *w, uint64_t ms);
void stands_still(struct world *w, uint64_t ms); /* The leader: nothing is read, no timer runs. */
void held_is(struct world *w, bool applied);

/* ---- what has come of it ---- */

bool is_handed_over(struct world *w, const char *unit); /* By the registry. */
bool is_told(struct world *w, const char *name, const char *unit);
const char *placed_on(struct world *w, const char *unit); /* "a", or "". */
enum machine_state state_of(struct world *w, const char *name);
const char *outcome_of(struct world *w, const char *unit);
const char *reason_of(struct world *w, const char *unit); /* Valid until the next call. */

/* ---- where a test begins ---- */

/* Machines a, b and c have called a leader. */
void three_machines(struct world *w);
/* "x.service" runs on "a" of three, as it has just reported. */
void active_on_a(struct world *w);
/* Likewise, for a ttl; and nothing is counted of how that came. */
void running_on_a(struct world *w);
/* Of six machines, all with a unit, these fall silent. */
void six_machines_without(struct world *w, const char *silent);
