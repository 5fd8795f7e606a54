/* SPDX-License-Identifier: Apache-2.0 */
/* The agent: makes this host's systemd run the host's share of the schedule, and reports what systemd says.
 * Every host has one. It knows no cluster: it gets the share as a list of wanted units, and works towards it
 * for as long as it lives; no share, no change.
 *
 * Laws:
 *  - It touches only units whose file it has written to the units directory itself.
 *  - Losing the share's source, stopping, crashing or starting of fleetd touches no unit: a unit found with
 * the wanted content and running is adopted as it is (same main PID).
 *  - A unit is stopped only because a share that is complete and current does not want it (any more), or
 * wants it loaded but not launched, or with other content.
 *  - What arrives together is done together: all stops, then all files written, one reload only if systemd
 * says that it needs one, then all starts, in systemd's own order (it orders jobs of one batch).
 *  - New content restarts what runs, once; but not where it differs in [X-Fleet] only, nor a target or slice.
 *  - An error stays with its unit, is reported there, and is tried again with a growing pause.
 *  - States come by D-Bus signals; nothing is polled.
 *  - A restart is carried out once, also if fleetd is killed in the midst of it: before it asks, the agent
 * notes which invocation is to end, and afterwards asks again only while that one is still there.
 *  - A unit with OnDisconnect=stop is started only under a lease, runs no longer than that, whatever becomes
 * of us, and is started again when there is a new one (agent_lease.h, docs/leases.md).
 *  - An operator's systemctl stop of a unit is reported, not fought: a unit is started once per generation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "units/file.h"
#include "units/state.h"

struct agent;

/* One unit of this host's share. Strings are copied by agent_*(). */
struct agent_unit {
    const char *name;
    const char *hash; /* 40 hex digits of 'text'. */
    const char *text; /* Serialised; NULL where the agent has the content of 'hash' for this name already. */
    size_t text_size;
    enum unit_state desired; /* Loaded or launched. */
    uint64_t generation;     /* Grows with every change of what is wanted of this unit. */
    uint64_t token;          /* Fencing token: grows with every placement. */
    uint64_t restart; /* What was started for an older generation than this is restarted, once; 0: nothing. */
    uint64_t stop_ms; /* OnDisconnect=stop: so long it may take to stop. 0: OnDisconnect=keep. */
};

/* What the host knows of one unit. Borrowed for the call. */
struct agent_report {
    const char *name;
    const char *load_state, *active_state, *sub_state; /* systemd's words. */
    const char *hash;                                  /* Of the file on this host, "" if unknown. */
    uint64_t generation; /* The newest wanted one that is fully carried out (start job finished, or failed for
                            good)... */
    const char *result;  /* ...and how: "done", or systemd's job result ("failed", "timeout", "dependency",
                            ...), or "error". */
    const char *error;   /* For people; "" if nothing is wrong. */
    bool launched;       /* systemd was asked to start it, and not to stop it since. */
    uint64_t asked;      /* The newest wanted one for which it was started, or found running. */
    bool gone;           /* Nothing of it is left on this host: the last report of this unit. */
};

struct agent_callbacks {
    /* A unit's report has changed. Called from the loop, never from inside agent_*(). */
    void (*on_report)(const struct agent_report *report, void *data);
    /* The connection to systemd came or went; while it is gone nothing can be changed (it is tried again). */
    void (*on_bus)(bool connected, const char *why, void *data);
};

struct agent_config {
    const char *units_directory; /* "/run/fleet/units": made 0755 if missing. */
    const char *state_file; /* "/run/fleet/agent.state": which generation was carried out for which content;
                               lost at reboot on purpose. */
    const char *lease_file; /* LEASE_PAGE_FILE; NULL: no units with OnDisconnect=stop here. */
    const char *dropin_directory; /* AGENT_DROPIN_DIRECTORY; only with a lease_file. */
    bool user_bus; /* systemd_user of the first fleet: the user's manager instead of the system's. */
};

/* Connects to systemd (system bus, or its private socket where there is no bus and we are root), takes stock
 * of the units directory, subscribes. A bus that cannot be reached is no error: it is tried again. Errors:
 * the units directory cannot be made or read. */
int agent_new(uv_loop_t *loop, const struct agent_config *config, const struct agent_callbacks *callbacks,
              void *data, struct agent **ret, struct err *err);

/* The share changes: 'wanted' are new or changed, 'removed' are names no longer wanted. 'complete': units not
 * named in 'wanted' are not wanted either (the agent then removes what it finds beyond them). Several calls
 * in one loop turn are carried out together. -ENODATA with a text: a unit came without its text and the agent
 * does not have it (nothing of this call is taken over). -EINVAL, -E2BIG likewise: a name that is none or a
 * template's, a content that is not that of its hash, or too big. */
int agent_want(struct agent *agent, const struct agent_unit *wanted, size_t wanted_count,
               const char *const *removed, size_t removed_count, bool complete, struct err *err);

/* Whether the content of 'hash' is on this host for this unit (so that it need not be sent again). */
bool agent_has(const struct agent *agent, const char *name, const char *hash);

/* Calls 'each' for every unit the agent knows, in name order. */
void agent_each(const struct agent *agent, void (*each)(const struct agent_report *report, void *data),
                void *data);

/* Calls 'each' for every unit of the share, in name order. */
void agent_wanted_each(const struct agent *agent,
                       void (*each)(const char *name, enum unit_state desired, void *data), void *data);

/* Asks systemd whether the host is going down; true also where it cannot be asked. 'answer' comes once,
 * unless the connection to systemd breaks, and may come from inside this call; one question at a time. */
void agent_ask_stopping(struct agent *agent, void (*answer)(bool stopping, void *data), void *data);

/* Whether heartbeats should ask for a lease. Each one that does is noted just before it is sent; an answer
 * that grants one is noted, too; and so is the end of the session to the leader. */
bool agent_wants_lease(const struct agent *agent);
void agent_lease_sent(struct agent *agent, uint64_t sequence);
void agent_lease_granted(struct agent *agent, uint64_t sequence, uint64_t lease_ms);
void agent_lease_session_lost(struct agent *agent);

size_t agent_unit_count(const struct agent *agent);
/* Whether systemd has said of all units that may be on the host how they are. */
bool agent_is_informed(const struct agent *agent);
bool agent_bus_connected(const struct agent *agent);

/* Ends the connection; units run on. 'done' comes when nothing of it is left on the loop, and it is freed
 * then. */
void agent_close(struct agent *agent, void (*done)(void *data), void *data);
