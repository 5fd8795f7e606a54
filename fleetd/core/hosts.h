/* SPDX-License-Identifier: Apache-2.0 */
/* What the leader knows of each machine that the registry does not: whether it is alive, what it reports, and
 * what it was told. Part of the core. */
#pragma once

#include <uthash.h>

#include "fleetd/core/core.h"

/* What is kept of a host's reports, whatever it says: it may be in the wrong hands. */
#define REPORT_WORD_MAX  64u   /* Bytes of a state, a hash or a result: systemd's words are shorter. */
#define REPORT_ERROR_MAX 4096u /* Bytes of what went wrong. What is longer is cut. */
/* Units of which one host may report something though the registry has none of that name when it is reported
 * first: what was destroyed while the host was away. */
#define REPORTS_STRANGE_MAX 4096u
#define REPORTS_LOG_MS      60000u /* How often it is said of one host that its reports are not taken. */

struct host_report {
    char *unit;
    bool strange; /* Counted in the host's 'strange_count'. */
    struct core_report report;
    UT_hash_handle hh;
};

/* What the machine was told of a unit, as long as it may have something of it. */
struct host_told {
    char *unit;
    struct strlist conflicts; /* Its Conflicts= then; it may have been destroyed since. */
    uint64_t generation; /* Of the unit when the machine was told; 0: to let go of it, and it has not said
                            yet that it has. */
    uint64_t share;      /* The one in which it was last told to have it. */
    bool leaves;         /* It is to be let go of, now or when another machine has taken over. */
    UT_hash_handle hh;
};

/* What a machine says of its own end, in each of its sessions anew:
 *
 *      NONE --it is being shut down--> BEGUN --others may say so, too--> MOVING --nothing more can--> READY
 *        ^------- given up, or it calls without saying so ----------------'----------------------------'
 *
 * From BEGUN on it gets nothing new, from MOVING on what fits elsewhere leaves. READY: it was told that it
 * need not wait any longer. */
enum host_shutdown {
    SHUTDOWN_NONE,
    SHUTDOWN_BEGUN,
    SHUTDOWN_MOVING,
    SHUTDOWN_READY,
};

struct host {
    char id[MACHINE_ID_SIZE];
    enum machine_state state;
    uint64_t session_id; /* 0: it has no session. */
    uint64_t heard_ms;   /* When it was last heard, or when this leader began. */
    bool called;         /* It has told this leader what it has. */
    uint64_t
        lease_until_ms; /* No lease that it may hold ends later, by this host's clock; 0: it never had any. */
    bool history;       /* LOST, but long ago, or not by this leader alone: the brake does not count it. */
    enum machine_state verdict; /* LOST or READY: what was proposed last to the registry, and when. */
    uint64_t verdict_ms;
    bool answers;         /* Its kernel did, on fleetd's port, while fleetd was silent... */
    uint64_t answered_ms; /* ...and when it did last. */
    uint64_t give_up_ms;  /* MISSING: lost then if it has not called, for the brake is off; 0: it is on. */
    uint64_t awaited_ms;  /* The first end of a lease that something here waits for; 0: nothing does. */
    bool leaving;         /* It is registered no more: forgotten as soon as it has nothing, or is lost. */
    enum host_shutdown shutdown;
    uint64_t shutdown_ms; /* When it began. */
    struct host_report *reports;
    size_t strange_count;       /* Of them, those of units that were in no registry. */
    uint64_t refused_count;     /* Reports that were not taken, since it was last said... */
    uint64_t refused_logged_ms; /* ...and when that was; 0: never. */
    struct host_told *told;
    uint64_t share_count; /* Sent in this session. */
    size_t leaving_count; /* Of them, those that leave. */
    bool kept_waiting;    /* A unit waits for one that conflicts with it to be stopped here. */
    struct strlist had;   /* Units that it had, or may have had, when it was lost; empty while it is not.
                             Complete   only if it had called. */
    UT_hash_handle hh;
};

/* Iterating over hosts goes by id. */
struct host *host_find(struct host *hosts, const char *id);
struct host *host_get(struct host **hosts, const char *id,
                      uint64_t now_ms); /* Made EXPECTED if it is missing. */
void host_remove(struct host **hosts, struct host *host);

/* Takes over what a host says of a unit. Returns whether it differs from what it said before. That it is gone
 * counts only if the host knew all that it was told: else it may still be about to begin. 'exists': the
 * registry has a unit of that name. What is no unit's name, or one strange unit too many
 * (REPORTS_STRANGE_MAX), is not taken, and counted. */
bool host_set_report(struct host *host, const Fleet__UnitReport *message, bool exists);
/* How many reports are to be told of that were not taken; 0: none, or it was said a moment ago. */
uint64_t host_refused_reports(struct host *host, uint64_t now_ms);
const struct core_report *host_report(const struct host *host, const char *unit);
void host_forget_reports(struct host *host);

/* Whether it reports the unit, or was told to have it and has not said that it has nothing (any more). */
bool host_may_have(const struct host *host, const char *unit);
bool host_may_have_any(const struct host *host);

/* Whether nobody knows what it has: it has not called this leader, and was not given up. */
bool host_is_unknown(const struct host *host);

/* Whether the host was told this generation of the unit (0: any), and not told otherwise since. */
bool host_was_told(const struct host *host, const char *unit, uint64_t generation);
uint64_t host_told_generation(const struct host *host, const char *unit); /* 0: it was not told. */
/* In the share that is being made. 'conflicts' are copied. */
void host_tell(struct host *host, const char *unit, uint64_t generation, const struct strlist *conflicts);
void host_untell(struct host *host, const char *unit); /* It lets go of the unit, until it says "gone". */
/* What it was told stays, but is to be let go of soon; until it is told a newer generation. */
void host_hand_over(struct host *host, const char *unit);
bool host_lets_go(const struct host *host, const char *unit);

/* A unit that leaves the host, and that must not run beside the unit 'name' with these Conflicts; NULL: none.
 */
const char *host_leaves_conflict(const struct host *host, const char *name, const struct strlist *conflicts);
void host_forget_told(struct host *host);

/* It is lost: what it has is only remembered; and it is back. */
void host_lose(struct host *host);
void host_find_again(struct host *host);
