/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/* The decision table. The first row that fits counts; '-' fits everything; "up" is: a start job, or, unless
 * systemd cannot stop it, active, activating, deactivating.
 *
 *   wish      file   facts                operation
 *   -         -      busy                 none (its call or pause ends, and it is asked for again)
 *   keep      none   -                    none
 *   keep      some   not known            check
 *   keep      some   -                    none
 *   absent    none   -                    forget
 *   absent    some   not known            check
 *   absent    some   stop job             none (its end is awaited)
 *   absent    some   up                   stop
 *   absent    some   -                    remove
 *   loaded    other  not known            check
 *   loaded    other  stop job             none
 *   loaded    other  up                   stop (by the content it was started with)
 *   launched  other  not known            check (is a restart needed?)
 *   any       other  -                    write
 *   any       none   -                    write
 *   launched  same   drop-in other, not up or restart  write (its file alone was written, or it has another token)
 *   any       same   not linked           link
 *   any       same   stale unknown        ask
 *   any       same   stale                reload
 *   any       same   not known            check
 *   loaded    same   done                 none (also if an operator has started it since)
 *   loaded    same   stop job             none
 *   loaded    same   up                   stop
 *   loaded    same   -                    settle
 *   launched  same   start job, asked     none
 *   launched  same   restart, up          restart (a start, if that is enough for its type)
 *   launched  same   done                 none (also if failed, finished, or stopped by an operator)
 *   launched  same   active, no job       settle (adopted)
 *   launched  same   asked, no job        settle (it has run: once per generation)
 *   launched  same   -                    start
 *   (a start or restart without the lease that it needs: none)
 */
/* clang-format on */
#include <config.h>

#include "fleetd/core/agent_plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *agent_op_to_string(enum agent_op op)
{
    static const char *const names[AGENT_OP_COUNT] = {
        [AGENT_OP_NONE] = "none",     [AGENT_OP_STOP] = "stop",       [AGENT_OP_REMOVE] = "remove",
        [AGENT_OP_CHECK] = "check",   [AGENT_OP_WRITE] = "write",     [AGENT_OP_LINK] = "link",
        [AGENT_OP_ASK] = "ask",       [AGENT_OP_RELOAD] = "reload",   [AGENT_OP_HOLD] = "hold",
        [AGENT_OP_START] = "start",   [AGENT_OP_RESTART] = "restart", [AGENT_OP_SETTLE] = "settle",
        [AGENT_OP_FORGET] = "forget",
    };

    assert(op < AGENT_OP_COUNT);
    return names[op];
}

bool agent_facts_up(const struct agent_facts *f)
{
    return f->job == AGENT_JOB_START ||
           (!f->fixed && f->active != AGENT_ACTIVE_INACTIVE && f->active != AGENT_ACTIVE_FAILED);
}

static enum agent_op plan_absent(const struct agent_facts *f)
{
    if (f->file == AGENT_FILE_NONE)
        return AGENT_OP_FORGET;
    if (!f->known)
        return AGENT_OP_CHECK;
    if (f->job == AGENT_JOB_STOP)
        return AGENT_OP_NONE;
    return agent_facts_up(f) ? AGENT_OP_STOP : AGENT_OP_REMOVE;
}

static enum agent_op plan_other(const struct agent_facts *f)
{
    if (!f->known)
        return AGENT_OP_CHECK;
    if (f->wish == AGENT_WISH_LOADED && f->job == AGENT_JOB_STOP)
        return AGENT_OP_NONE;
    if (f->wish == AGENT_WISH_LOADED && agent_facts_up(f))
        return AGENT_OP_STOP;
    return AGENT_OP_WRITE;
}

static enum agent_op plan_loaded(const struct agent_facts *f)
{
    if (f->done || f->job == AGENT_JOB_STOP)
        return AGENT_OP_NONE;
    return agent_facts_up(f) ? AGENT_OP_STOP : AGENT_OP_SETTLE;
}

static enum agent_op plan_launched(const struct agent_facts *f)
{
    if (f->job == AGENT_JOB_START && f->asked)
        return AGENT_OP_NONE;
    if (f->restart && agent_facts_up(f))
        return f->no_lease ? AGENT_OP_NONE : f->gentle ? AGENT_OP_START : AGENT_OP_RESTART;
    if (f->done)
        return AGENT_OP_NONE;
    if (f->job == AGENT_JOB_NONE && (f->active == AGENT_ACTIVE_ACTIVE || f->asked))
        return AGENT_OP_SETTLE;
    return f->no_lease ? AGENT_OP_NONE : AGENT_OP_START;
}

enum agent_op agent_plan_unit(const struct agent_facts *f)
{
    if (f->busy)
        return AGENT_OP_NONE;
    if (f->wish == AGENT_WISH_KEEP)
        return f->file != AGENT_FILE_NONE && !f->known ? AGENT_OP_CHECK : AGENT_OP_NONE;
    if (f->wish == AGENT_WISH_ABSENT)
        return plan_absent(f);
    if (f->file == AGENT_FILE_OTHER)
        return plan_other(f);
    if (f->file == AGENT_FILE_NONE)
        return AGENT_OP_WRITE;
    if (f->dropin_other && f->wish == AGENT_WISH_LAUNCHED && (!agent_facts_up(f) || f->restart))
        return AGENT_OP_WRITE;
    if (!f->linked)
        return AGENT_OP_LINK;
    if (f->stale == AGENT_STALE_UNKNOWN)
        return AGENT_OP_ASK;
    if (f->stale == AGENT_STALE_YES)
        return AGENT_OP_RELOAD;
    if (!f->known)
        return AGENT_OP_CHECK;
    return f->wish == AGENT_WISH_LOADED ? plan_loaded(f) : plan_launched(f);
}

static bool is_preparation(enum agent_op op)
{
    return op >= AGENT_OP_WRITE && op <= AGENT_OP_RELOAD;
}

static int compare_items(const void *a, const void *b)
{
    const struct agent_plan_item *x = a, *y = b;

    if (x->op != y->op)
        return x->op < y->op ? -1 : 1;
    return strcmp(x->name, y->name);
}

void agent_plan(struct agent_plan_item *items, size_t count, uint64_t preparing)
{
    uint64_t unready =
        preparing; /* The oldest batch of which some unit may still turn out to need a reload. */

    for (size_t i = 0; i < count; i++) {
        items[i].op = agent_plan_unit(&items[i].facts);
        if (is_preparation(items[i].op) && items[i].batch < preparing)
            preparing = items[i].batch;
        if (is_preparation(items[i].op) && items[i].op != AGENT_OP_RELOAD && items[i].batch < unready)
            unready = items[i].batch;
    }
    for (size_t i = 0; i < count; i++) {
        bool start = items[i].op == AGENT_OP_START || items[i].op == AGENT_OP_RESTART;

        if ((start && preparing <= items[i].batch) ||
            (items[i].op == AGENT_OP_RELOAD && unready <= items[i].batch))
            items[i].op = AGENT_OP_HOLD;
    }
    if (count > 1)
        qsort(items, count, sizeof *items, compare_items);
}
