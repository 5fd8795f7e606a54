/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/wait.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/output.h"

#define FIRST_NOTE_MS 3000
#define ROUND_MS      15000 /* One long poll; then changed reasons are told. The API allows 60000. */
#define TROUBLE_MS    30000 /* So long without an answer may pass: a new leader, fleetd being upgraded. */
#define PAUSE_MS      500   /* Between tries during such trouble. */
#define GATHER_MS     20    /* With many units: lets answers gather, or each costs a request. */
#define GATHER_UNITS  32
#define NOTES_MAX     5

static const struct goal {
    const char *until;  /* For the API. */
    const char *wanted; /* For messages. */
} goals[] = {
    [WAIT_START] = {"settled", "launched"},   [WAIT_LOAD] = {"settled", "loaded"},
    [WAIT_STOP] = {"settled", "loaded"},      [WAIT_UNLOAD] = {"inactive", "inactive"},
    [WAIT_DESTROY] = {"gone", "gone"},        [WAIT_ELSEWHERE] = {"settled", "elsewhere"},
    [WAIT_RESTART] = {"settled", "launched"},
};

struct waiter {
    struct ctl *ctl;
    enum wait_for what;
    const json_t *generations;
    const json_t *away; /* Machines to leave. */
    struct strlist *done;
    struct strlist left;              /* In the order of the command line. */
    size_t turn;                      /* Where in 'left' the next request begins, if it cannot hold all. */
    json_t *reasons;                  /* Name -> why it is not there yet, as told last. */
    uint64_t deadline_ms, trouble_ms; /* trouble_ms: since when there is no answer; 0: there is. */
    uint64_t next_note_ms;
    int interrupt_fd;
    int exit_code;
};

/* --- What became of a unit --- */

static bool is_away(const json_t *away, const char *machine_id)
{
    const json_t *id;
    size_t i;

    json_array_foreach(away, i, id) if (streq(json_string_value(id), machine_id)) return false;
    return true;
}

/* Whether a settled unit is as the command wants it. */
static bool is_good(const struct waiter *w, const json_t *unit)
{
    const enum wait_for what = w->what;
    const char *state = api_text(unit, "state"), *active = api_text(unit, "activeState");

    switch (what) {
    case WAIT_START:
    case WAIT_RESTART: return streq(state, "active") || streq(state, "finished");
    case WAIT_LOAD: return streq(state, "loaded");
    case WAIT_STOP: /* A unit that failed or has no machine is stopped as well as can be. */
        if (streq(state, "failed"))
            return streq(active, "failed") || streq(active, "inactive");
        return streq(state, "loaded") || streq(state, "inactive") || streq(state, "unplaced");
    case WAIT_UNLOAD: return streq(state, "inactive") || streq(state, "gone");
    case WAIT_DESTROY: return streq(state, "gone");
    case WAIT_ELSEWHERE: return is_away(w->away, api_text(unit, "machineID")) && !streq(state, "failed");
    }
    return false;
}

static json_int_t count_of(const json_t *unit, const char *key)
{
    return json_integer_value(json_object_get(unit, key));
}

/* Where it is: a machine; for a global unit "3/3 machines"; or "". */
static char *unit_legend(const struct waiter *w, const json_t *unit)
{
    const char *machine_id = api_text(unit, "machineID");

    if (machine_id[0] != '\0')
        return ctl_legend(w->ctl, machine_id, api_text(unit, "machineIP"));
    if (count_of(unit, "wanted") > 0)
        return xasprintf("%" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT " machines", count_of(unit, "done"),
                         count_of(unit, "wanted"));
    return xstrdup("");
}

static void say_good(const struct waiter *w, const json_t *unit)
{
    const char *name = api_text(unit, "name"), *word = goals[w->what].wanted;
    _cleanup_(freep) char *legend = unit_legend(w, unit);

    if (w->what == WAIT_DESTROY) {
        printf("Destroyed %s\n", name);
        return;
    }
    if ((w->what == WAIT_START || w->what == WAIT_RESTART) && streq(api_text(unit, "state"), "finished"))
        word = "finished";
    if (w->what == WAIT_ELSEWHERE)
        word = api_text(unit, "state");
    printf("Unit %s %s%s%s\n", name, word, legend[0] != '\0' ? " on " : "", legend);
}

/* "  node1 (1234abcd): why", for each machine that has something to say. */
static void say_machines(const json_t *unit)
{
    const json_t *machine;
    size_t i;

    json_array_foreach(json_object_get(unit, "machines"), i, machine)
    {
        const char *id = api_text(machine, "machineID"), *hostname = api_text(machine, "hostname");

        complain("  %s (%.8s): %s", hostname[0] != '\0' ? hostname : "-", id, api_text(machine, "reason"));
    }
    if (count_of(unit, "machinesLeftOut") > 0)
        complain("  and %" JSON_INTEGER_FORMAT " more machines (fleetctl explain %s)",
                 count_of(unit, "machinesLeftOut"), api_text(unit, "name"));
}

static void say_bad(const struct waiter *w, const json_t *unit)
{
    const char *name = api_text(unit, "name"), *state = api_text(unit, "state"),
               *reason = api_text(unit, "reason"), *hostname = api_text(unit, "hostname");
    _cleanup_(freep) char *legend =
        api_text(unit, "machineID")[0] != '\0' ? unit_legend(w, unit) : xstrdup("");

    if (streq(state, "unplaced"))
        complain("Unit %s fits on no machine%s%s", name, reason[0] != '\0' ? ": " : "", reason);
    else if (streq(state, "failed"))
        complain("Unit %s failed%s%s%s%s (see: journalctl -u %s%s%s)", name, legend[0] != '\0' ? " on " : "",
                 legend, reason[0] != '\0' ? ": " : "", reason, name, hostname[0] != '\0' ? " on " : "",
                 hostname);
    else if (w->what == WAIT_ELSEWHERE)
        complain("Unit %s stays on %s: %s", name, legend, reason);
    else
        complain("Unit %s is %s, not %s: somebody changed it meanwhile%s%s", name, state,
                 goals[w->what].wanted, reason[0] != '\0' ? ": " : "", reason);
    say_machines(unit);
}

static void take_settled(struct waiter *w, size_t i, const json_t *unit)
{
    if (is_good(w, unit)) {
        say_good(w, unit);
        if (w->done != NULL)
            strlist_add(w->done, w->left.items[i]);
    } else {
        say_bad(w, unit);
        w->exit_code = CTL_EXIT_FAILED;
    }
    free(w->left.items[i]);
    w->left.items[i] = NULL; /* Closed up by compact(). */
}

static void compact(struct strlist *l)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->count; i++)
        if (l->items[i] != NULL)
            l->items[kept++] = l->items[i];
    l->count = kept;
}

/* --- What is still missing --- */

/* Tells what it waits for: the units whose reason is not the one told last, up to a few. */
static void say_waiting(struct waiter *w, json_t *reasons)
{
    size_t told = 0, more = 0;
    const char *name;
    json_t *reason;

    json_object_foreach(reasons, name, reason)
    {
        const json_t *old = json_object_get(w->reasons, name);

        if (old != NULL && json_equal(old, reason))
            continue;
        json_object_set(w->reasons, name, reason);
        if (told == NOTES_MAX) {
            more++;
            continue;
        }
        told++;
        complain("Waiting for %s to be %s%s%s", name, goals[w->what].wanted,
                 json_string_length(reason) > 0 ? ": " : "", json_string_value(reason));
    }
    if (more > 0)
        complain("... and for %zu more units", more);
}

/* The units of the answer: the settled ones are done with, the others' reasons are remembered. Returns how
 * many were settled. */
static size_t take_answer(struct waiter *w, const json_t *reply)
{
    _cleanup_(json_decrefp) json_t *by_name = json_object(), *reasons = json_object();
    size_t i, settled = 0;
    json_t *unit;

    json_array_foreach(json_object_get(reply, "units"), i, unit)
        json_object_set(by_name, api_text(unit, "name"), unit);
    for (i = 0; i < w->left.count; i++) {
        unit = json_object_get(by_name, w->left.items[i]);
        if (unit != NULL && json_is_true(json_object_get(unit, "settled"))) {
            json_object_del(w->reasons, w->left.items[i]);
            take_settled(w, i, unit);
            settled++;
        } else if (unit != NULL) {
            json_object_set_new(reasons, w->left.items[i], json_string(api_text(unit, "reason")));
        }
    }
    compact(&w->left);
    fflush(stdout);
    if (now_ms() >= w->next_note_ms)
        say_waiting(w, reasons);
    return settled;
}

/* --- Rounds --- */

static uint64_t until_ms(uint64_t when_ms, uint64_t at_most_ms)
{
    const uint64_t now = now_ms();

    if (when_ms <= now)
        return 0;
    return when_ms - now < at_most_ms ? when_ms - now : at_most_ms;
}

static json_t *make_body(struct waiter *w, uint64_t timeout_ms)
{
    json_t *units = json_array(), *generations = json_object(), *body = json_object();
    const size_t count = w->left.count < WAIT_UNITS_MAX ? w->left.count : WAIT_UNITS_MAX;

    for (size_t i = 0; i < count; i++) {
        const char *name = w->left.items[(w->turn + i) % w->left.count];

        json_array_append_new(units, json_string(name));
        if (json_object_get(w->generations, name) != NULL)
            json_object_set(generations, name, json_object_get(w->generations, name));
    }
    json_object_set_new(body, "units", units);
    json_object_set_new(body, "until", json_string(goals[w->what].until));
    json_object_set_new(body, "timeoutMs", json_integer((json_int_t)timeout_ms));
    json_object_set_new(body, "generations", generations);
    return body;
}

/* Sleeps, unless interrupted. */
static int pause_ms(struct waiter *w, uint64_t ms)
{
    sigset_t set;
    const struct timespec ts = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    return sigtimedwait(&set, NULL, &ts) == SIGINT ? -EINTR : 0;
}

/* No answer came. A leader that changes and a daemon that restarts are no reason to give up at once. */
static int bear_trouble(struct waiter *w, int r, const struct err *err)
{
    const uint64_t now = now_ms();

    if (r != -EAGAIN && r != -ENOTCONN && r != -ETIMEDOUT && r != -EINPROGRESS)
        return r;
    if (w->trouble_ms == 0) {
        w->trouble_ms = now;
        complain("%s (the change itself is made; trying again for %d s to see what becomes of it)",
                 err_text(err, r), TROUBLE_MS / 1000);
    }
    if (now - w->trouble_ms >= TROUBLE_MS)
        return r;
    return pause_ms(w, PAUSE_MS);
}

static int wait_round(struct waiter *w, struct err *err)
{
    const uint64_t note_ms = until_ms(w->next_note_ms, ROUND_MS);
    const uint64_t timeout_ms = until_ms(w->deadline_ms, note_ms > 0 ? note_ms : ROUND_MS);
    _cleanup_(json_decrefp) json_t *body = make_body(w, timeout_ms), *reply = NULL;
    struct err why = {0};
    size_t settled;
    int r;

    r = api_call(w->ctl->api, "POST", "wait", body, timeout_ms, &reply, &why);
    if (r == -EINTR)
        return r;
    if (r < 0) {
        r = bear_trouble(w, r, &why);
        return r < 0 ? err_set(err, r, "%s", err_text(&why, r)) : 0;
    }
    w->trouble_ms = 0;
    settled = take_answer(w, reply);
    w->turn = w->left.count > 0 ? (w->turn + WAIT_UNITS_MAX) % w->left.count : 0;
    if (settled == 0 && until_ms(w->deadline_ms, 1) > 0)
        return pause_ms(w, GATHER_MS); /* Nor does a server that answers too early make us spin. */
    return settled > 0 && w->left.count > GATHER_UNITS ? pause_ms(w, GATHER_MS) : 0;
}

/* --- All of it --- */

static void say_rest(const struct waiter *w)
{
    complain("The change itself goes on: fleetctl list-units and list-unit-files show how far it is.");
}

static void say_timed_out(struct waiter *w)
{
    for (size_t i = 0; i < w->left.count; i++) {
        const char *reason = json_string_value(json_object_get(w->reasons, w->left.items[i]));

        complain("timed out waiting for unit %s to report state %s%s%s", w->left.items[i],
                 goals[w->what].wanted, reason != NULL && reason[0] != '\0' ? ": " : "",
                 reason != NULL ? reason : "");
    }
    say_rest(w);
}

static int wait_all(struct waiter *w)
{
    struct err err = {0};

    while (w->left.count > 0) {
        const bool last = until_ms(w->deadline_ms, 1) == 0;
        int r = wait_round(w, &err);

        if (r == -EINTR) {
            complain("Interrupted: no longer waiting for %zu unit%s (%s%s).", w->left.count,
                     w->left.count > 1 ? "s" : "", w->left.items[0], w->left.count > 1 ? ", ..." : "");
            say_rest(w);
            return CTL_EXIT_INTERRUPTED;
        }
        if (r < 0) {
            ctl_fail(&err, r, "Error waiting for units");
            say_rest(w);
            return CTL_EXIT_FAILED;
        }
        if (now_ms() >= w->next_note_ms)
            w->next_note_ms = now_ms() + ROUND_MS;
        if (last && w->left.count > 0) {
            say_timed_out(w);
            return CTL_EXIT_FAILED;
        }
    }
    return w->exit_code;
}

static uint64_t deadline_of(const struct options *o, uint64_t start_ms)
{
    if (o->deadline_ms > 0)
        return start_ms + o->deadline_ms;
    if (o->block_attempts < 0)
        return UINT64_MAX;
    return start_ms + (o->block_attempts > 0 ? (uint64_t)o->block_attempts * 2000 : WAIT_DEFAULT_MS);
}

/* Takes 'w' with what to wait for. */
static int wait_for(struct waiter w, const struct strlist *names)
{
    struct ctl *ctl = w.ctl;
    const uint64_t now = now_ms();
    sigset_t set, old;
    int code;

    w.reasons = json_object();
    w.deadline_ms = deadline_of(&ctl->options, now);
    w.next_note_ms = now + FIRST_NOTE_MS;
    for (size_t i = 0; i < names->count; i++)
        strlist_add(&w.left, names->items[i]);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, &old);
    w.interrupt_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    api_set_interrupt(ctl->api, w.interrupt_fd);
    code = wait_all(&w);
    api_set_interrupt(ctl->api, -1);
    closep(&w.interrupt_fd);
    if (code == CTL_EXIT_INTERRUPTED)
        pause_ms(&w, 0); /* Takes the signal, which would be delivered below. */
    sigprocmask(SIG_SETMASK, &old, NULL);
    strlist_done(&w.left);
    json_decref(w.reasons);
    return code;
}

int wait_for_units(struct ctl *ctl, enum wait_for what, const struct strlist *names,
                   const json_t *generations, struct strlist *done)
{
    return wait_for((struct waiter){.ctl = ctl, .what = what, .generations = generations, .done = done},
                    names);
}

int wait_until_elsewhere(struct ctl *ctl, const struct strlist *names, const json_t *away)
{
    return wait_for((struct waiter){.ctl = ctl, .what = WAIT_ELSEWHERE, .away = away}, names);
}
