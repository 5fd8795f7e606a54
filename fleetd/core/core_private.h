/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's sources share. core.c steps, decide.c decides where units go, status.c answers questions.
 */
#pragma once

#include "constraints/plan.h"
#include "fleetd/core/core.h"
#include "fleetd/core/effects.h"
#include "fleetd/core/hosts.h"
#include "raftstore/limits.h"

/* How long a new leader lets hosts call before it places new units, so that the first who calls does not get
 * all of them. */
#define CORE_GATHER_MS 1000u

/* If nothing was put in for longer than this part of the ttl, it was this host that stood still, not the
 * others: a tick is asked for at least every half ttl after the latest input. */
#define CORE_STANDSTILL(ttl_ms) ((ttl_ms) / 2 + (ttl_ms) / 8)

/* A tick that comes so much too late tells of a standstill, too; what has arrived in it is read within so
 * long. */
#define CORE_LATE_MS 100u
#define CORE_READ_MS 500u

/* How long to wait before a decision that the store refused is made again. */
#define CORE_RETRY_MS 500u

/* How long the ends of handovers gather before the registry is told: nobody waits for that. */
#define CORE_ENDS_MS 1000u

/* What one Schedule command may hold, by estimate: the rest of a large plan is decided when that is through.
 */
#define CORE_SCHEDULE_BYTES (COMMAND_MAX / 2)

/* What a host may be late in stopping what its lease has kept: its keeper's and systemd's time to react,
 * under load. */
#define CORE_LEASE_MARGIN_MS 2000u

/* What this host counts at most while another one counts 'ms': clocks count the same time alike to a tenth
 * (docs/leases.md). */
static inline uint64_t core_elsewhere_ms(uint64_t ms)
{
    return ms + (ms + 9) / 10;
}

struct dirty {
    char *unit;
    const struct registry_unit *found; /* While shares are updated; NULL: no such unit. */
    UT_hash_handle hh;
};

/* A plan and the facts it was made from. Everything in the facts is borrowed from the registry. */
struct decision {
    struct plan_machine *machines;
    struct plan_label *labels;
    struct plan_unit *units;
    const char **avoided; /* Of all units, one behind the other. */
    struct plan_facts facts;
    struct plan *plan;
};

/* What leaves machines that are drained, or where it keeps failing. */
struct drain {
    struct decision *decision; /* Without them. */
    bool *leaves;              /* Which of its changes can be made. */
};

struct core {
    const struct registry *registry;
    uint64_t ttl_ms;
    bool leads;
    bool idle;       /* It leads, and places nothing. */
    uint64_t now_ms; /* Of the latest input. */
    uint64_t term;
    uint64_t gather_until_ms; /* Until then only a full house starts placing. */
    struct host *hosts;
    struct failing_unit *failing; /* In the order of their first failure. */
    size_t avoided_count;         /* Of their machines: those that are avoided. */
    uint64_t failures_due_ms;     /* No failure is to be forgotten before. */
    struct dirty *dirty;          /* Units whose shares and status must be looked at again. */
    struct decision *decision;    /* The present one; NULL: to be made when it is asked for. */
    struct drain *drain;  /* The same without the machines that are drained; NULL, too, if there are none. */
    bool plan_wanted;     /* Something that placement depends on has changed. */
    uint64_t ends_due_ms; /* Handovers are through: that is decided then; UINT64_MAX: none is. */
    uint64_t retry_ms;    /* A refused decision is not made again before. */
    bool noted_silent;    /* The registry says of some machine that it is lost, or its fleetd stopped. */
    bool braking;         /* Some machine is MISSING: it was said. */
    bool shutdown_brake;  /* Most machines are being shut down: nothing leaves them. */
    size_t awaited;       /* So many machines of a restored cluster are: likewise. */
    bool schedule_in_flight;  /* One decision at a time: the next one is made with its outcome known. */
    struct effects news;      /* Of that decision, for the journal when it has come true. */
    bool lease_wanted;        /* A unit needs leases. */
    bool lease_in_flight;     /* The longest lease is being written down. */
    uint64_t lease_due_ms;    /* Not before. */
    uint64_t longer_until_ms; /* Leases as long as the registry says may hold until then. */
};

/* ---- core.c ---- */

/* Its shares and its status are to be looked at again. */
void core_mark(struct core *core, const char *unit);

void core_set_host_state(struct core *core, struct host *host, enum machine_state state);
void core_drop_session(struct host *host, struct effects *out);
/* Everything that concerns the host is looked at again. */
void core_mark_host(struct core *core, const struct host *host);

/* Whether 'unit' may be given to 'machine_id' now (NULL), or which host must let go of it first. That may be
 * the machine's own, which is still about to stop what it had. */
const struct host *core_held_by(const struct core *core, const struct registry_unit *unit,
                                const char *machine_id);

/* lease.c. core_lease_end_ms(): when a unit that needs a lease has surely ended on a host that is not heard
 * any more; 0: now. */
bool core_needs_lease(const struct registry_unit *unit);
bool core_runs(const struct core_report *report); /* Or is about to. */
uint64_t core_lease_end_ms(const struct core *core, const struct host *host,
                           const struct registry_unit *unit);
/* Whether the unit does not run on where fleetd hangs, since nobody prolongs its lease there. One that may
 * run there without a lease does, whatever its content says by now. */
bool core_lease_ends(const struct host *host, const struct registry_unit *unit);
uint64_t core_lease_last_end_ms(const struct core *core, const struct host *host); /* Of any unit; 0: none. */
/* A unit that was changed from keep to stop. Its older copies know nothing of a lease: a host that was lost
 * before it carried the change out, or let go, may run one for ever. core_lost_with(): such a host; NULL:
 * none. core_stays_lost(): its place is one. core_becomes_leased(): nobody has such a copy any more, which
 * the registry is to know. */
const struct host *core_lost_with(const struct core *core, const struct registry_unit *unit,
                                  const struct host *except);
bool core_stays_lost(const struct core *core, const struct registry_unit *unit);
bool core_becomes_leased(const struct core *core, const struct registry_unit *unit);
/* Something of 'host' waits until a lease of 'holder' has ended, if that is what it waits for; and the first
 * end that anything waits for. */
void core_lease_await(const struct core *core, struct host *host, const struct host *holder,
                      const struct registry_unit *unit);
uint64_t core_lease_awaited_ms(const struct core *core);
void core_lease_lead(struct core *core);
void core_lease_look(struct core *core); /* The units have changed. */
void core_lease_decide(struct core *core, struct effects *out);
uint64_t core_lease_deadline_ms(const struct core *core);

/* What people call the machine, also one that was removed; its id where nobody knows. Borrowed. */
const char *core_hostname(const struct core *core, const char *machine_id);

/* Whether none of the machines that had the unit before its present one has anything of it any more; those
 * that are lost have, for they are not waited for. core_former_forgotten(): not those either. */
bool core_is_former(const struct registry_unit *unit, const struct host *host);
bool core_former_gone(const struct core *core, const struct registry_unit *unit);
bool core_former_forgotten(const struct core *core, const struct registry_unit *unit);

/* Which of its peers (MachineOf) a unit that is not on the host yet waits for; NULL: none. A follower is
 * given to its host with its peers or after them, so that what it requires of them is known to systemd there.
 */
const char *core_awaited_peer(const struct core *core, const struct host *host,
                              const struct registry_unit *unit);

/* What the host still stops, and the unit, which is not there yet, must not run beside; NULL: nothing. */
const char *core_awaited_conflict(const struct host *host, const struct registry_unit *unit);

/* ---- silence.c ---- */

/* Whether it was a machine of the cluster that this one was restored from, has not joined this one, and is
 * not given up: it may be off for good, or run all that it ran. */
bool core_is_awaited(const struct core *core, const struct host *host);

/* Suspects, misses and loses who has been silent for so long, and takes that back. */
void core_judge_silence(struct core *core, struct effects *out);
/* Likewise, when it is not the time for that: something else has happened, and what others have said may
 * still be to be read. Loses who was given up by a person, and lets go of the brake. */
void core_judge_given_up(struct core *core, struct effects *out);
/* Adds an EFFECT_VERDICT if the registry does not know who is lost, or back. */
void core_declare(struct core *core, struct effects *out);
uint64_t core_silence_deadline_ms(const struct core *core); /* When to judge again. */
/* How long ago somebody's silence was to be judged. */
uint64_t core_silence_late_ms(const struct core *core, uint64_t now_ms);

/* ---- decide.c ---- */

/* The plan for what is known now. Borrowed until anything changes. */
const struct plan *core_plan(const struct core *core);
void core_forget_plan(struct core *core);
/* 'drained': as if the machines that are drained were lost, and units that fail where they are were nowhere,
 * but for those that stay nevertheless: by unit, in the registry's order; NULL: none does. */
struct decision *core_decision_new(const struct core *core, bool drained, const bool *stays);
void core_decision_free(struct decision *decision);

/* Whether the registry is to be told of something of a unit that stays where it is: a handover is over,
 * nobody runs it without a lease any more, or its former machines need not be remembered. */
bool core_has_ended(const struct core *core, const struct registry_unit *unit);
/* Adds an EFFECT_SCHEDULE if the plan changes anything. Sets plan_wanted if that was not all of it. */
void core_decide(struct core *core, struct effects *out);
/* Ends a decision: adds an EFFECT_LOG for each of its placements that the registry has now. */
void core_decision_done(struct core *core, struct effects *out);

/* ---- drain.c ---- */

/* Borrowed until anything changes; NULL: no machine is drained, and none is avoided. */
const struct drain *core_drain(const struct core *core);
void core_drain_free(struct drain *drain);

/* ---- shutdown.c ---- */

/* What becomes of the machine, as in "is being drained", if what fits elsewhere leaves it; NULL: it stays. */
const char *core_left_because(const struct core *core, const struct registry_machine *machine);
/* The host has said whether it is being shut down. */
void core_shutdown_set(struct core *core, struct host *host, bool begins);
/* Before anything is decided: who is left now... */
void core_shutdown_look(struct core *core, struct effects *out);
uint64_t core_shutdown_deadline_ms(const struct core *core);
/* ...and after it: adds an EFFECT_SHUTDOWN_READY for who need not wait any longer. */
void core_shutdown_answer(struct core *core, struct effects *out);

/* ---- status.c ---- */

/* Why a unit gets no place by this plan, "" if it does. */
const char *core_pending_reason(const struct plan *plan, const char *unit);
/* What a host's report of the wanted generation comes to. */
enum unit_outcome core_judge_report(enum unit_state desired, const struct core_report *report);
