/* SPDX-License-Identifier: Apache-2.0 */
/* journal: the entries of a unit, from every machine that has it, by time; through the API, without SSH. */
#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/journal_line.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "units/name.h"

#define ROUND_MS   25000 /* One wait for new entries; the API allows 30000. */
#define LAME_MS    2000  /* Likewise while a machine does not answer: it may be back soon. */
#define ANSWER_MS  15000 /* What the hosts may take beside that. */
#define TROUBLE_MS 30000 /* So long without an answer may pass: a new leader, fleetd being upgraded. */
#define PAUSE_MS   1000  /* Between tries while there is nobody to wait for. */
#define LINES_MAX  10000 /* Of one request. */

struct journal {
    struct ctl *ctl;
    const char *unit;
    char *cursor; /* Where to go on; "": at the beginning. */
    json_t *told; /* Machine id -> what is wrong with it, as told last. */
    json_t *held; /* Entries that are not printed yet. */
    size_t machines, reached;
    bool more;
};

static void journal_done(struct journal *j)
{
    free(j->cursor);
    json_decref(j->told);
    json_decref(j->held);
}

static char *make_path(const struct journal *j, size_t lines, uint64_t wait_ms)
{
    const enum output_mode mode = j->ctl->options.output;
    const bool all = mode == OUTPUT_JSON || mode == OUTPUT_JSON_PRETTY;
    _cleanup_(freep) char *name = api_escape(j->unit), *cursor = api_escape(j->cursor);

    return xasprintf("journal/%s?lines=%zu%s%s%s&waitMs=%llu", name, lines, all ? "&fields=all" : "",
                     cursor[0] != '\0' ? "&cursor=" : "", cursor, (unsigned long long)wait_ms);
}

/* Says once of each machine why it does not answer. */
static void note_machines(struct journal *j, const json_t *reply)
{
    const json_t *machine;
    size_t i;

    j->machines = j->reached = 0;
    json_array_foreach(json_object_get(reply, "machines"), i, machine)
    {
        const char *id = api_text(machine, "machineID"), *error = api_text(machine, "error");

        j->machines++;
        if (error[0] == '\0') {
            j->reached++;
            json_object_del(j->told, id);
            continue;
        }
        if (json_object_get(j->told, id) == NULL)
            complain("Machine %s (%.8s): %s", api_text(machine, "hostname"), id, error);
        json_object_set_new(j->told, id, json_true());
    }
}

static int read_round(struct journal *j, size_t lines, uint64_t wait_ms, struct err *err)
{
    _cleanup_(freep) char *path = make_path(j, lines, wait_ms);
    _cleanup_(json_decrefp) json_t *reply = NULL;
    json_t *entries;
    int r = api_call(j->ctl->api, "GET", path, NULL, wait_ms + ANSWER_MS, &reply, err);

    if (r < 0)
        return r;
    note_machines(j, reply);
    j->more = json_is_true(json_object_get(reply, "more"));
    entries = json_object_get(reply, "entries");
    if (entries != NULL)
        json_array_extend(j->held, entries);
    if (api_text(reply, "cursor")[0] != '\0') {
        free(j->cursor);
        j->cursor = xstrdup(api_text(reply, "cursor"));
    }
    return 0;
}

struct line {
    const json_t *entry;
    uint64_t usec;
    size_t order; /* What came at the same time stays in its order. */
};

static int compare_lines(const void *a, const void *b)
{
    const struct line *x = a, *y = b;

    if (x->usec != y->usec)
        return x->usec < y->usec ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* Prints what is held, the last 'most' entries of it, by time. */
static void print_held(struct journal *j, size_t most)
{
    const size_t count = json_array_size(j->held);
    _cleanup_(freep) struct line *lines = xcalloc(count, sizeof *lines);

    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(j->held, i);

        lines[i] = (struct line){entry, journal_line_usec(entry), i};
    }
    if (count > 1)
        qsort(lines, count, sizeof *lines, compare_lines);
    for (size_t i = count > most ? count - most : 0; i < count; i++)
        journal_line_print(lines[i].entry, j->ctl->options.output);
    json_array_clear(j->held);
    fflush(stdout);
}

/* The last lines; what does not fit one answer comes in the next ones. */
static int read_last(struct journal *j, size_t lines, struct err *err)
{
    int r = read_round(j, lines, 0, err);

    while (r == 0 && j->more && json_array_size(j->held) < lines * (j->machines > 0 ? j->machines : 1)) {
        const size_t before = json_array_size(j->held);

        r = read_round(j, lines, 0, err);
        if (r == 0 && json_array_size(j->held) == before)
            break;
    }
    return r;
}

static void pause_ms(uint64_t ms)
{
    const struct timespec ts = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&ts, NULL);
}

/* No answer came. A leader that changes and a daemon that restarts are no reason to give up at once. */
static bool is_borne(int r, const struct err *err, uint64_t *trouble_ms)
{
    if (r != -EAGAIN && r != -ENOTCONN && r != -ETIMEDOUT && r != -EINPROGRESS)
        return false;
    if (*trouble_ms == 0) {
        *trouble_ms = now_ms();
        complain("%s (trying again for %d s)", err_text(err, r), TROUBLE_MS / 1000);
    }
    if (now_ms() - *trouble_ms >= TROUBLE_MS)
        return false;
    pause_ms(PAUSE_MS);
    return true;
}

/* Until it is interrupted, or nobody reads what is printed. */
static int follow(struct journal *j, struct err *err)
{
    uint64_t trouble_ms = 0;

    while (ferror(stdout) == 0) {
        const uint64_t start = now_ms();
        struct err why = {0};
        bool idle;
        int r = read_round(j, LINES_MAX, j->reached < j->machines ? LAME_MS : ROUND_MS, &why);

        if (r < 0 && !is_borne(r, &why, &trouble_ms))
            return err_set(err, r, "%s", err_text(&why, r));
        if (r < 0)
            continue;
        trouble_ms = 0;
        /* Nobody waits for us: it is between two machines, those are lost, or a server answers too early. */
        idle = json_array_size(j->held) == 0 && now_ms() - start < PAUSE_MS;
        print_held(j, SIZE_MAX);
        if (idle)
            pause_ms(PAUSE_MS);
    }
    return 0;
}

/* Whether there is such a unit, and it is somewhere. */
static int check_unit(struct journal *j)
{
    _cleanup_(freep) char *escaped = api_escape(j->unit), *path = xasprintf("units/%s", escaped);
    _cleanup_(json_decrefp) json_t *unit = NULL;
    struct err err = {0};
    int r = api_call(j->ctl->api, "GET", path, NULL, 0, &unit, &err);

    if (r == -ENOENT) {
        complain("Unit %s does not exist.", j->unit);
        return CTL_EXIT_NO_UNIT;
    }
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving unit %s", j->unit);
    return CTL_EXIT_DONE;
}

int verb_journal(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(freep) char *name = unit_name_mangle(args->items[0]);
    _cleanup_(journal_done) struct journal j = {
        .ctl = ctl, .unit = name, .cursor = xstrdup(""), .told = json_object(), .held = json_array()};
    const size_t lines = ctl->options.lines < LINES_MAX ? (size_t)ctl->options.lines : LINES_MAX;
    struct err err = {0};
    int code = ctl->options.lines < 0 ? CTL_EXIT_USAGE : check_unit(&j), r;

    if (code == CTL_EXIT_USAGE)
        complain("--lines must not be negative");
    if (code != CTL_EXIT_DONE)
        return code;
    r = read_last(&j, lines, &err);
    if (r == 0 && j.machines == 0) {
        complain("Unit %s does not appear to be running.", name);
        return CTL_EXIT_FAILED;
    }
    if (r == 0) {
        print_held(&j, lines);
        if (ctl->options.follow)
            r = follow(&j, &err);
    }
    if (r < 0)
        return ctl_fail(&err, r, "Error reading the journal of unit %s", name);
    return j.reached < j.machines ? CTL_EXIT_FAILED : CTL_EXIT_DONE;
}
