/* SPDX-License-Identifier: Apache-2.0 */
/* Why systemd has refused a unit, or its start: over D-Bus it only says that it has, the reason ("Where=
 * setting doesn't match unit name") goes to the journal. So a unit's report waits for it, shortly.
 *
 * The journal is read by a thread: its files may be slow. One at a time does for all, because the threads of
 * the loop are not for us alone. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-id128.h>
#include <systemd/sd-journal.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/agent_internal.h"

/* What systemd has said before it answered us, journald has read at the latest then. */
#define WAIT_US UINT64_C(300000)

#define REASON_MAX 512 /* Bytes. */

struct question {
    char *unit, *error; /* The error to be explained. */
    uint64_t since_us;  /* CLOCK_MONOTONIC: older words are about something else. */
    char *reason;       /* The answer; NULL: none. */
};

struct agent_why {
    uv_work_t work;
    struct agent *agent;
    struct question *questions;
    size_t count, capacity;
};

static void why_free(struct agent_why *why)
{
    if (why == NULL)
        return;
    for (size_t i = 0; i < why->count; i++) {
        free(why->questions[i].unit);
        free(why->questions[i].error);
        free(why->questions[i].reason);
    }
    free(why->questions);
    free(why);
}

/* --- in the thread --- */

static char *read_field(sd_journal *journal, const char *field)
{
    const size_t name_size = strlen(field) + 1; /* With the '='. */
    const void *data;
    size_t size;

    if (sd_journal_get_data(journal, field, &data, &size) < 0 || size < name_size)
        return NULL;
    size -= name_size;
    return xstrndup((const char *)data + name_size, size < REASON_MAX ? size : REASON_MAX);
}

static bool has_field(sd_journal *journal, const char *field)
{
    const void *data;
    size_t size;

    return sd_journal_get_data(journal, field, &data, &size) >= 0;
}

enum rank { /* The least one explains best. */
            RANK_ERROR,
            RANK_EXIT, /* Of its process, and how. */
            RANK_WARNING,
            RANK_NONE,
};

static enum rank rank_entry(sd_journal *journal)
{
    _cleanup_(freep) char *priority = read_field(journal, "PRIORITY");

    if (priority == NULL || has_field(journal, "JOB_RESULT")) /* "Failed to start ...": that is known. */
        return RANK_NONE;
    if (priority[0] <= '3')
        return RANK_ERROR;
    if (has_field(journal, "EXIT_STATUS"))
        return RANK_EXIT;
    return priority[0] == '4' ? RANK_WARNING : RANK_NONE;
}

/* One line of plain characters: it may quote anything that is in the unit's file. */
static char *read_message(sd_journal *journal)
{
    char *text = read_field(journal, "MESSAGE");

    for (char *p = text; p != NULL && *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    return text;
}

/* Reads on to the end, or to an error; keeps the first entry of the best rank. */
static void read_entries(sd_journal *journal, struct question *q, enum rank *best)
{
    while (*best > RANK_ERROR && sd_journal_next(journal) > 0) {
        enum rank rank = rank_entry(journal);

        if (rank >= *best)
            continue;
        free(q->reason);
        q->reason = read_message(journal);
        *best = rank;
    }
}

static void answer(sd_journal *journal, struct question *q, uint64_t deadline_us)
{
    _cleanup_(freep) char *match = xasprintf("UNIT=%s", q->unit);
    enum rank best = RANK_NONE;
    sd_id128_t boot;
    uint64_t now_us;

    sd_journal_flush_matches(journal);
    if (sd_journal_add_match(journal, match, 0) < 0 || sd_journal_add_match(journal, "_UID=0", 0) < 0 ||
        sd_id128_get_boot(&boot) < 0 || sd_journal_seek_monotonic_usec(journal, boot, q->since_us) < 0)
        return;
    for (;;) {
        read_entries(journal, q, &best);
        now_us = uv_hrtime() / 1000;
        if (best < RANK_NONE || now_us >= deadline_us || sd_journal_wait(journal, deadline_us - now_us) < 0)
            return;
    }
}

static void on_work(uv_work_t *work)
{
    struct agent_why *why = work->data;
    uint64_t deadline_us = uv_hrtime() / 1000 + WAIT_US;
    sd_journal *journal;

    if (sd_journal_open(&journal, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM) < 0)
        return; /* Then without a reason. */
    for (size_t i = 0; i < why->count; i++)
        answer(journal, &why->questions[i], deadline_us);
    sd_journal_close(journal);
}

/* --- on the loop --- */

/* "a.mount: Where= ..." without the name, which whoever reads it knows. */
static const char *without_name(const char *reason, const char *unit)
{
    size_t size = strlen(unit);

    return strncmp(reason, unit, size) == 0 && str_has_prefix(reason + size, ": ") ? reason + size + 2
                                                                                   : reason;
}

static void explain(struct agent *agent, const struct question *q)
{
    struct local_unit *unit = agent_find(agent, q->unit);
    _cleanup_(freep) char *error = NULL;

    if (unit == NULL || !unit->explaining)
        return;
    unit->explaining = false;
    agent_unit_changed(agent, unit);
    if (q->reason == NULL || unit->error == NULL || strstr(unit->error, q->error) == NULL)
        return; /* Something else is to be said of it by now. */
    /* The sentence goes on. */
    error = xasprintf("%.*s: %s", (int)(strlen(unit->error) - str_has_suffix(unit->error, ".")), unit->error,
                      without_name(q->reason, q->unit));
    agent_unit_set_error(agent, unit, error);
    unit->explained = true;
}

static void start(struct agent *agent);

static void on_done(uv_work_t *work, int status)
{
    struct agent_why *why = work->data;
    struct agent *agent = why->agent;

    agent->why_works = false;
    for (size_t i = 0; i < why->count && !agent->closing; i++)
        explain(agent, &why->questions[i]);
    why_free(why);
    if (agent->closing)
        agent_part_closed(agent);
    else if (agent->why != NULL)
        start(agent);
}

static void start(struct agent *agent)
{
    struct agent_why *why = TAKE_PTR(agent->why);

    why->work.data = why;
    agent->why_works = true;
    if (uv_queue_work(agent->loop, &why->work, on_work, on_done) < 0)
        abort(); /* Only for a missing callback. */
}

void agent_why_ask(struct agent *agent, struct local_unit *unit, uint64_t since_us)
{
    struct agent_why *why = agent->why;

    if (unit->explaining || unit->explained || unit->error == NULL)
        return;
    if (why == NULL) {
        why = agent->why = NEW0(struct agent_why);
        why->agent = agent;
    }
    GROW(why->questions, why->capacity, why->count + 1);
    why->questions[why->count++] =
        (struct question){.unit = xstrdup(unit->name), .error = xstrdup(unit->error), .since_us = since_us};
    unit->explaining = true;
    if (!agent->why_works)
        start(agent);
}

void agent_why_drop(struct agent *agent)
{
    why_free(TAKE_PTR(agent->why));
}
