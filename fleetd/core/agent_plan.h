/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent does next with each unit: from what is wanted and what is on the host to operations. Pure.
 * The shell (fleetd/agent.c) gathers the facts, carries an operation out, and asks again when the facts have
 * changed; so a unit that is interrupted anywhere just goes on from the facts.
 *
 * The order of operations of one batch (what arrived together) is that of enum agent_op: all stops, then all
 * files written, one reload if one is needed, then all starts. A unit that waits for a stop or for a retry
 * holds up nobody: only units that are being prepared (written ... reloaded) hold back the reload and the
 * starts of their own and of later batches. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum agent_wish {
    AGENT_WISH_KEEP, /* Nothing is known of what is wanted: hands off. */
    AGENT_WISH_ABSENT,
    AGENT_WISH_LOADED,
    AGENT_WISH_LAUNCHED,
    AGENT_WISH_COUNT,
};

enum agent_file {
    AGENT_FILE_NONE,
    AGENT_FILE_OTHER, /* Another content than the wanted one. */
    AGENT_FILE_SAME,
    AGENT_FILE_COUNT,
};

/* systemd's ActiveState; "reloading" counts as active. */
enum agent_active {
    AGENT_ACTIVE_INACTIVE,
    AGENT_ACTIVE_FAILED,
    AGENT_ACTIVE_ACTIVE,
    AGENT_ACTIVE_ACTIVATING,
    AGENT_ACTIVE_DEACTIVATING,
    AGENT_ACTIVE_COUNT,
};

enum agent_job {
    AGENT_JOB_NONE,
    AGENT_JOB_START, /* Start or restart. */
    AGENT_JOB_STOP,
    AGENT_JOB_COUNT,
};

/* Whether systemd holds an older content than the file. */
enum agent_stale {
    AGENT_STALE_NO,
    AGENT_STALE_UNKNOWN,
    AGENT_STALE_YES,
    AGENT_STALE_COUNT,
};

struct agent_facts {
    enum agent_wish wish;
    enum agent_file file; /* For AGENT_WISH_ABSENT and _KEEP anything but _NONE means: there is a file. */
    enum agent_active active;
    enum agent_job job; /* That systemd has for it. */
    enum agent_stale stale;
    bool busy;         /* A call is under way, or it waits for a retry. */
    bool known;        /* What systemd says of it is known. */
    bool linked;       /* systemd's search path leads to the file. */
    bool restart;      /* A process of older content may run although the file is the wanted one. */
    bool asked;        /* systemd has accepted a start for the wanted generation. */
    bool done;         /* The wanted generation was carried out. */
    bool gentle;       /* A start is enough where others need a restart: target, slice, device. */
    bool fixed;        /* systemd cannot stop it: a device, or one that it never stops. */
    bool dropin_other; /* What stands beside the file is not what is wanted. */
    bool no_lease;     /* It must not be started now. */
};

enum agent_op {
    AGENT_OP_NONE,
    AGENT_OP_STOP,
    AGENT_OP_REMOVE,
    AGENT_OP_CHECK, /* Ask systemd for its states. */
    AGENT_OP_WRITE,
    AGENT_OP_LINK,
    AGENT_OP_ASK, /* Ask systemd whether it needs a reload. */
    AGENT_OP_RELOAD,
    AGENT_OP_HOLD, /* A reload or a start that waits for the preparation of others. */
    AGENT_OP_START,
    AGENT_OP_RESTART,
    AGENT_OP_SETTLE, /* All is as wanted: the generation is carried out. */
    AGENT_OP_FORGET, /* Nothing of it is left. */
    AGENT_OP_COUNT,
};

const char *agent_op_to_string(enum agent_op op);

/* There is something to stop: it is active, on its way there or back, or has a start job. */
bool agent_facts_up(const struct agent_facts *facts);

/* The next operation of one unit, for itself. */
enum agent_op agent_plan_unit(const struct agent_facts *facts);

struct agent_plan_item {
    const char *name; /* Borrowed. */
    void *data;       /* The caller's. */
    struct agent_facts facts;
    uint64_t batch;   /* What arrived together has the same number; later ones are greater. */
    enum agent_op op; /* The result. */
};

/* Fills in 'op' of all items, and sorts them: by operation, then by name. 'preparing' is the oldest batch
 * among units that are not among the items because a call prepares them right now, or UINT64_MAX. */
void agent_plan(struct agent_plan_item *items, size_t count, uint64_t preparing);
