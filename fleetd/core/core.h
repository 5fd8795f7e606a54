/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's mind, as a pure machine: facts go in (who called, what hosts report, what the registry says,
 * what time it is), and what the world must do comes out as effects. It opens nothing, sends nothing and
 * reads no clock, so a simulator can run it by the million.
 *
 * It exists on every host and works only while this host leads: core_lead() starts it with an empty mind (who
 * is alive and what systemd reports is never stored), core_yield() empties it again.
 *
 * A machine, as the leader sees it:
 *
 *      EXPECTED --calls--> READY --session breaks--> SUSPECTED --ttl--> LOST
 *          |                                             |               ^
 *          \---one ttl after core_lead(), likewise--> MISSING, HUNG ----/
 *      READY <--calls-- any of them
 *
 * HUNG: fleetd is silent there, but the machine is not: its kernel still accepts connections to fleetd's
 * port, so the very process is there; or it refuses them, and fleetd was stopped on purpose. Its units run
 * on, then, and nothing is placed anew for it; for as long as it answers.
 *
 * MISSING is what LOST would be, while the brake holds: more than a third of the machines, and more than one,
 * have fallen silent together. That is the network, or the power of a room, rather than so many machines:
 * nothing is placed anew for it until enough of them have called again (the others then have one more ttl to
 * do so), or a person confirms that they are lost.
 *
 * Laws:
 *  - Nobody is lost before a full ttl has passed since it was last heard, or since this leader began.
 *  - Only units of a machine that is LOST are placed anew because of it.
 *  - A unit that moves is given to its new machine only when the old one has let go of it, or is LOST (but
 *    for planned moves, drain.h): a machine may have what it was told to have until it says that it has
 *    nothing of it, and is told to have it again only after that.
 *  - A unit is given to its machine with the units that it has in MachineOf, or after them, never before.
 *  - Nor before a unit that it conflicts with has been stopped there.
 *  - A unit with OnDisconnect=stop is given to a machine only when every other one has said that it has
 * nothing of it, or is LOST and its last lease has ended, and after that the unit's time to stop
 * (docs/leases.md).
 *  - A machine that is no member any more is told to have nothing, and forgotten when that is so, or LOST. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/registry.h"

enum machine_state {
    MACHINE_EXPECTED,
    MACHINE_READY,
    MACHINE_SUSPECTED,
    MACHINE_HUNG,
    MACHINE_MISSING,
    MACHINE_LOST,
};

/* "expected", "ready", "suspected", "hung", "missing", "lost" */
const char *machine_state_to_string(enum machine_state state);

/* What a host last reported of a unit. */
struct core_report {
    char *load_state, *active_state, *sub_state, *hash, *result, *error; /* Never NULL. */
    uint64_t generation;
    uint64_t asked; /* The newest generation for which it was started or found running; 0: too old to say. */
    bool launched;
};

/* What has become of a unit, seen against what is wanted. */
enum unit_outcome {
    OUTCOME_WAITING,  /* Not there yet: 'reason' says what it waits for. */
    OUTCOME_ACTIVE,   /* Launched, and active. */
    OUTCOME_FINISHED, /* Launched, and done: a oneshot. */
    OUTCOME_LOADED,   /* Loaded on its machine, as wanted. */
    OUTCOME_INACTIVE, /* On no machine, as wanted. */
    OUTCOME_FAILED,   /* Its machine has tried, and it failed: 'reason' says how. */
    OUTCOME_UNPLACED, /* No machine fits: 'machines' says why each does not. */
    OUTCOME_GONE,     /* No such unit, and no machine has anything of it. */
};

const char *unit_outcome_to_string(enum unit_outcome outcome); /* "waiting", "active", ... */

struct core_status_machine {
    char machine_id[MACHINE_ID_SIZE];
    char *hostname, *reason; /* Never NULL. */
};

struct core_status {
    enum unit_outcome outcome;
    char machine_id[MACHINE_ID_SIZE]; /* Where it is, "" for nowhere or (global units) everywhere. */
    char *active_state, *sub_state;   /* "" if nothing is reported. */
    char *reason;                     /* Never NULL. */
    struct core_status_machine
        *machines; /* Unplaced: every machine and why not. Global: where it has failed. */
    size_t machine_count;
    size_t done_count, wanted_count; /* Global units: n of m machines. Others: 0 or 1 of 1. */
};

enum effect_kind {
    EFFECT_SCHEDULE, /* Propose 'placements' as one Schedule command with if_term = 'term'; tell
                        core_schedule_done() the same term. */
    EFFECT_LEASE,    /* Propose 'lease_ms' as a SetLease command with if_term = 'term'; tell core_lease_done()
                        the same term. */
    EFFECT_SHARE,    /* Send 'machine_id' a share: units 'names' (by name), 'removed'. */
    EFFECT_SETTLED,  /* Something about unit names[0] has changed: look at its status again.  */
    EFFECT_VERDICT,  /* Propose that the machines 'names' are lost, and 'removed' are back, with if_term =
                        'term'.  The registry tells how that went. */
    EFFECT_DROP,     /* End the session of machine_id: it is lost, or no member, or was not taken in. */
    EFFECT_SHUTDOWN_READY, /* Tell machine_id that it need not wait with its shutdown any longer. */
    EFFECT_LOG, /* A decision that has come true, for the journal: 'text', about machine_id or names[0] where
                   they are set. */
};

/* What a decision that is logged is about. */
enum core_news {
    NEWS_PLACED,
    NEWS_UNPLACED,
    NEWS_UNIT_FAILS,
    NEWS_MACHINE_LOST,
    NEWS_MACHINE_BACK,
    NEWS_MACHINE_MISSING,
    NEWS_DAEMON_SILENT,
    NEWS_BRAKE_ON,
    NEWS_BRAKE_OFF,
    NEWS_SHUTDOWN,
    NEWS_STAYS,
    NEWS_REPORTS_REFUSED,
};

struct core_placement {
    char *unit, *reason;
    char from[MACHINE_ID_SIZE], to[MACHINE_ID_SIZE];
    uint64_t generation;
    bool handover;    /* The machines that have it keep it until it is active on 'to'. 'from' = 'to': not any
                         more. */
    bool former_gone; /* Nobody else has anything of it: the registry may forget where it was earlier. */
    bool leased;      /* 'from' = 'to': nobody runs it without a lease any more. */
};

struct effect {
    enum effect_kind kind;
    uint64_t term;
    char machine_id[MACHINE_ID_SIZE];
    uint64_t share_number; /* SHARE: the first of a session is 1. */
    bool complete;         /* SHARE: what is not named is not wanted. */
    struct strlist names, removed;
    struct core_placement *placements;
    size_t placement_count, placement_capacity;
    size_t bytes; /* That the placements take, by estimate. */
    uint64_t lease_ms;
    int priority; /* LOG: of the message... */
    enum core_news news;
    char *text, *reason; /* ...the whole of it, and why it is so ("": the text says all). */
};

struct effects {
    struct effect *items;
    size_t count, capacity;
};
void effects_done(struct effects *effects);

struct core;

/* 'registry' is borrowed for the core's life; it changes only between calls, and core_registry_changed() is
 * then called. */
struct core *core_new(const struct registry *registry, uint64_t ttl_ms);
void core_free(struct core *core);
DEFINE_FREEP(struct core, core)

/* Every machine has the whole new ttl from now on; sessions that go by the old one are for the caller to end.
 */
void core_set_ttl(struct core *core, uint64_t ttl_ms, uint64_t now_ms);
uint64_t core_ttl_ms(const struct core *core);

/* Whether it may place units (at first it may). While it may not, it does all else: hosts keep what they
 * have, and whoever waits for a place is told why there is none. */
void core_set_placing(struct core *core, bool placing, uint64_t now_ms, struct effects *out);
void core_lead(struct core *core, uint64_t term, uint64_t now_ms, struct effects *out);
void core_yield(struct core *core);
bool core_leads(const struct core *core);

/* A host's session begins: it reports everything it has, and whether it is being shut down. An older session
 * of the same machine has ended thereby. Where it is not taken in (this host does not lead, or it is no
 * member, nor does core_machine_leaves()): EFFECT_DROP. */
void core_session_open(struct core *core, const char *machine_id, uint64_t session_id,
                       Fleet__UnitReport *const *reports, size_t report_count, bool shuts_down,
                       uint64_t now_ms, struct effects *out);
void core_session_report(struct core *core, const char *machine_id, uint64_t session_id,
                         Fleet__UnitReport *const *reports, size_t report_count, uint64_t now_ms,
                         struct effects *out);
void core_session_heard(struct core *core, const char *machine_id, uint64_t session_id, uint64_t now_ms);
/* The machine is being shut down in order, and waits for EFFECT_SHUTDOWN_READY as long as it can; or it is
 * not any more ('begins' false). What fits elsewhere leaves it, as if it were drained. */
void core_session_shutdown(struct core *core, const char *machine_id, uint64_t session_id, bool begins,
                           uint64_t now_ms, struct effects *out);
void core_session_closed(struct core *core, const char *machine_id, uint64_t session_id, uint64_t now_ms,
                         struct effects *out);

/* Whether somebody should try how the machine's kernel answers on fleetd's port, about once a second... */
bool core_wants_probe(const struct core *core, const char *machine_id);
/* ...and what it did: 'accepted' or refused; nothing to be told if it did neither. */
void core_probed(struct core *core, const char *machine_id, bool accepted, uint64_t now_ms);

/* To be called at once when the registry has changed, before any question... */
void core_registry_touched(struct core *core);
/* ...and this when there is time to act on it; several changes may be acted on together. */
void core_registry_changed(struct core *core, const struct registry_changes *changes, uint64_t now_ms,
                           struct effects *out);
void core_schedule_done(struct core *core, uint64_t term, bool applied, uint64_t now_ms, struct effects *out);
/* Grants this session's machine a lease for a heartbeat that arrived at 'heard_ms', and returns its length,
 * counted from when the machine sent it; 0: none. To be called only after a barrier of the store that began
 * after 'heard_ms' has shown that this host led then. */
uint64_t core_lease_grant(struct core *core, const char *machine_id, uint64_t session_id, uint64_t heard_ms);
void core_lease_done(struct core *core, uint64_t term, bool applied, uint64_t now_ms);

void core_tick(struct core *core, uint64_t now_ms, struct effects *out);
uint64_t
core_deadline_ms(const struct core *core); /* When core_tick() wants to be called; UINT64_MAX: never. */

/* What this host's own agent says, for the time when this host does not lead: then it is all that is known of
 * the units' states. Means nothing while it leads. */
void core_local_reports(struct core *core, const char *machine_id, Fleet__UnitReport *const *reports,
                        size_t report_count);

/* ---- questions; they change nothing ---- */

enum machine_state core_machine_state(const struct core *core, const char *machine_id);

/* Whether it is registered no more, and may still run what is to run elsewhere: it is waited for until it has
 * reported that it has nothing, or is LOST. */
bool core_machine_leaves(const struct core *core, const char *machine_id);

/* Likewise, or a lease of it binds still: nobody else may be taken for it. */
bool core_machine_awaited(const struct core *core, const char *machine_id);

/* Whether it has said that it is being shut down, and has not called anew since. */
bool core_machine_shuts_down(const struct core *core, const char *machine_id);

/* How many machines are MISSING; 0: the brake is off. *ret_of (may be NULL): of how many. */
size_t core_missing(const struct core *core, size_t *ret_of);

/* For how long nothing was heard of it, by this leader at most since it began; 0 where that is not known. */
uint64_t core_machine_silent_ms(const struct core *core, const char *machine_id, uint64_t now_ms);

/* What 'machine_id' last reported of 'unit', or NULL. Borrowed until the next change. */
const struct core_report *core_report(const struct core *core, const char *machine_id, const char *unit);

/* Whether 'machine_id' is LOST, and had 'unit', or may have had it, when it was: it may run there still. */
bool core_machine_had(const struct core *core, const char *machine_id, const char *unit);

/* Calls 'each' for every report of every machine that is not LOST, by unit name, then machine id. */
void core_reports_each(const struct core *core,
                       void (*each)(const char *unit, const char *machine_id,
                                    const struct core_report *report, void *data),
                       void *data);

/* Whether the registered machine 'machine_id' should have 'unit' now: its target, or a global unit that
 * applies there. */
bool core_machine_wants(const struct core *core, const char *machine_id, const struct registry_unit *unit);

struct core_status *core_status_new(const struct core *core, const char *unit);
void core_status_free(struct core_status *status);
DEFINE_FREEP(struct core_status, core_status)

/* For each registered machine, by id, why 'unit' does not fit there ("" where it does). The caller ends the
 * array with core_explain_free(). */
struct core_status_machine *core_explain(const struct core *core, const struct registry_unit *unit,
                                         size_t *ret_count);
void core_explain_free(struct core_status_machine *machines, size_t count);
