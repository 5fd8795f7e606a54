/* SPDX-License-Identifier: Apache-2.0 */
/* Who is silent, for how long, and what that makes of it: suspected, missing or lost. */
#include <config.h>

#include <stdlib.h>
#include <syslog.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"

/* How long a machine that was given up counts as lost together with the next ones. */
#define BRAKE_WINDOW_MS(ttl_ms) (6 * (ttl_ms))

/* How long it counts that a machine's kernel has answered: some tries may fail. */
#define ANSWER_MS(ttl_ms) ((ttl_ms) / 2 + 2000u)

/* How long to wait for a verdict to be in the registry before it is proposed again. */
#define VERDICT_RETRY_MS 5000u

static const struct registry_machine *member_of(const struct core *core, const struct host *host)
{
    const struct registry_machine *machine = registry_machine(core->registry, host->id);

    return machine != NULL && machine->registered && !host->leaving ? machine : NULL;
}

static uint64_t silent_ms(const struct core *core, const struct host *host)
{
    return core->now_ms - host->heard_ms;
}

/* Whether the machine itself is there although its fleetd says nothing. */
static bool still_answers(const struct core *core, const struct host *host)
{
    return host->answers && core->now_ms < host->answered_ms + ANSWER_MS(core->ttl_ms);
}

/* Whether nobody waits for it any more: it is no member, or somebody has decided that it is lost. */
static bool is_given_up(const struct core *core, const struct host *host)
{
    const struct registry_machine *machine = member_of(core, host);

    return machine == NULL || machine->lost;
}

bool core_is_awaited(const struct core *core, const struct host *host)
{
    const struct registry_machine *machine = member_of(core, host);

    return machine != NULL && machine->awaited && !machine->lost;
}

/* ---- the brake ---- */

/* Given up by this leader, by itself, not long ago. */
static bool lost_lately(const struct host *host)
{
    return host->state == MACHINE_LOST && !host->history;
}

/* Machines that were given up earlier are neither part of the cluster nor of what has happened to it now, and
 * those that have not joined yet are no part of it either. */
static void count_silent(const struct core *core, size_t *ret_silent, size_t *ret_of)
{
    *ret_silent = *ret_of = 0;
    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        const struct registry_machine *machine = member_of(core, host);
        bool lately = lost_lately(host);

        if (machine == NULL || core_is_awaited(core, host) ||
            ((machine->lost || host->state == MACHINE_LOST) && !lately))
            continue;
        (*ret_of)++;
        *ret_silent += lately || (silent_ms(core, host) >= core->ttl_ms / 2 && !still_answers(core, host));
    }
}

static bool brake_holds(const struct core *core)
{
    size_t silent, of;

    count_silent(core, &silent, &of);
    return silent > 1 && 3 * silent > of;
}

size_t core_missing(const struct core *core, size_t *ret_of)
{
    size_t missing = 0, silent, of;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        missing += host->state == MACHINE_MISSING;
    count_silent(core, &silent, &of);
    if (ret_of != NULL)
        *ret_of = of;
    return missing;
}

static size_t count_awaited(const struct core *core)
{
    size_t count = 0;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next)
        count += host->state == MACHINE_MISSING && core_is_awaited(core, host);
    return count;
}

static void log_brake(struct core *core, struct effects *out)
{
    size_t of, missing = core_missing(core, &of), awaited = count_awaited(core);

    if (awaited > 0 && awaited != core->awaited)
        effects_add_log(
            out, NEWS_BRAKE_ON, LOG_NOTICE, "", NULL, "",
            "%zu machines of the cluster that this one was restored from have not joined it: their units "
            "are not placed anew, until they do, or somebody confirms that they are lost (fleetctl "
            "confirm-lost)",
            awaited);
    core->awaited = awaited;
    missing -= awaited;
    if ((missing > 0) == core->braking)
        return;
    core->braking = missing > 0;
    if (core->braking)
        effects_add_log(
            out, NEWS_BRAKE_ON, LOG_CRIT, "", NULL, "",
            "%zu of %zu machines have fallen silent together: their units are not placed anew, until "
            "enough of them are back, or somebody confirms that they are lost (fleetctl confirm-lost)",
            missing, of);
    else
        effects_add_log(out, NEWS_BRAKE_OFF, LOG_NOTICE, "", NULL, "",
                        "No machine is missing any more: units are placed as usual");
}

/* ---- judging ---- */

/* How many units stay on a lost host. */
static size_t count_staying(const struct core *core, const struct host *host)
{
    size_t count, staying = 0;
    const struct registry_unit *const *units = registry_units(core->registry, &count);

    for (size_t i = 0; i < count; i++)
        staying += streq(units[i]->target, host->id) && core_stays_lost(core, units[i]);
    return staying;
}

static void lose(struct core *core, struct host *host, struct effects *out)
{
    const struct registry_machine *machine = registry_machine(core->registry, host->id);
    _cleanup_(freep) char *but = NULL;
    size_t staying;

    host->history = machine != NULL && machine->lost;
    core_set_host_state(core, host, MACHINE_LOST);
    host_lose(host);
    staying = count_staying(core, host);
    if (staying > 0)
        but = xasprintf(", but for %zu that may run on there (fleetctl explain says why)", staying);
    effects_add_log(out, NEWS_MACHINE_LOST, LOG_WARNING, host->id, NULL, "",
                    "Machine %s (%s) is lost: not heard for %.1f s. Its units are placed on others%s",
                    host->id, core_hostname(core, host->id), (double)silent_ms(core, host) / 1000,
                    but != NULL ? but : "");
    core_drop_session(host, out);
}

static void miss(struct core *core, struct host *host, struct effects *out)
{
    host->give_up_ms = 0;
    if (host->state == MACHINE_MISSING)
        return;
    if (!core_is_awaited(core, host)) /* Else all of them are told of at once. */
        effects_add_log(out, NEWS_MACHINE_MISSING, LOG_WARNING, host->id, NULL, "",
                        "Machine %s (%s) is missing, together with others: not heard for %.1f s", host->id,
                        core_hostname(core, host->id), (double)silent_ms(core, host) / 1000);
    core_set_host_state(core, host, MACHINE_MISSING);
    core_drop_session(host, out);
}

static void hang(struct core *core, struct host *host, struct effects *out)
{
    const struct registry_machine *machine = registry_machine(core->registry, host->id);

    if (host->state == MACHINE_HUNG)
        return;
    effects_add_log(
        out, NEWS_DAEMON_SILENT, LOG_WARNING, host->id, NULL, "",
        machine != NULL && machine->daemon_stopped
            ? "Machine %s (%s): fleetd was stopped there. Its units run on and stay"
            : "Machine %s (%s): fleetd does not answer there, but the machine does. Its units run on and "
              "stay",
        host->id, core_hostname(core, host->id));
    core_set_host_state(core, host, MACHINE_HUNG);
    core_drop_session(host, out);
}

/* The brake does not hold it any more, for others have called again: then so may it, and has a ttl for that.
 */
static bool may_still_call(const struct core *core, struct host *host)
{
    if (host->state != MACHINE_MISSING)
        return false;
    if (host->give_up_ms == 0)
        host->give_up_ms = core->now_ms + core->ttl_ms;
    return core->now_ms < host->give_up_ms;
}

static void judge(struct core *core, struct host *host, bool braking, struct effects *out)
{
    bool given_up = is_given_up(core, host);

    if (silent_ms(core, host) >= core->ttl_ms) {
        if (!given_up && still_answers(core, host))
            hang(core, host, out);
        else if (!given_up && (braking || core_is_awaited(core, host)))
            miss(core, host, out);
        else if (given_up || !may_still_call(core, host))
            lose(core, host, out);
    } else if (host->state == MACHINE_READY && silent_ms(core, host) >= core->ttl_ms / 2) {
        core_set_host_state(core, host, MACHINE_SUSPECTED);
    } else if (host->state == MACHINE_SUSPECTED && host->session_id != 0 &&
               silent_ms(core, host) < core->ttl_ms / 2) {
        core_set_host_state(core, host, MACHINE_READY);
    }
}

/* Who has been given up by a person is lost at once; and when the brake lets go, whoever is missing has a ttl
 * to call. */
static void judge_given_up(struct core *core, struct host *host, bool braking, struct effects *out)
{
    if (silent_ms(core, host) < core->ttl_ms)
        return;
    if (is_given_up(core, host))
        lose(core, host, out);
    else if (!braking)
        may_still_call(core, host);
}

void core_judge_given_up(struct core *core, struct effects *out)
{
    bool braking = brake_holds(core);

    for (struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->state != MACHINE_LOST)
            judge_given_up(core, host, braking, out);
    log_brake(core, out);
}

void core_judge_silence(struct core *core, struct effects *out)
{
    bool braking;

    for (struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (lost_lately(host) && silent_ms(core, host) >= BRAKE_WINDOW_MS(core->ttl_ms))
            host->history = true;
    braking = brake_holds(core); /* Once for all: those that fall silent together are judged alike. */
    for (struct host *host = core->hosts; host != NULL; host = host->hh.next)
        if (host->state != MACHINE_LOST)
            judge(core, host, braking, out);
    log_brake(core, out);
}

bool core_wants_probe(const struct core *core, const char *machine_id)
{
    const struct host *host = core->leads ? host_find(core->hosts, machine_id) : NULL;

    /* One that is awaited may well be there, as a part of another cluster. */
    return host != NULL && host->state != MACHINE_LOST && silent_ms(core, host) >= core->ttl_ms / 2 &&
           !core_is_awaited(core, host);
}

void core_probed(struct core *core, const char *machine_id, bool accepted, uint64_t now_ms)
{
    const struct registry_machine *machine = registry_machine(core->registry, machine_id);
    struct host *host = core->leads ? host_find(core->hosts, machine_id) : NULL;

    /* Refused by a machine whose fleetd was not stopped: that may be one that has just been booted, and runs
     * nothing. */
    if (host == NULL || host->state == MACHINE_LOST ||
        !(accepted || (machine != NULL && machine->daemon_stopped)))
        return;
    host->answers = true;
    host->answered_ms = now_ms;
}

/* ---- verdicts ---- */

/* Whether the registry does not know yet what has become of the host. */
static bool verdict_due(const struct core *core, const struct host *host)
{
    const struct registry_machine *machine = member_of(core, host);

    return machine != NULL && ((host->state == MACHINE_LOST && !machine->lost) ||
                               (host->state == MACHINE_READY && (machine->lost || machine->daemon_stopped)));
}

/* This is asked for in every turn of the loop, of every host: where nobody is noted as silent, none of those
 * that are READY has to be looked up for it. */
static bool may_be_due(const struct core *core, const struct host *host)
{
    return host->state == MACHINE_LOST || (host->state == MACHINE_READY && core->noted_silent);
}

static uint64_t verdict_retry_ms(const struct host *host)
{
    return host->verdict == host->state ? host->verdict_ms + VERDICT_RETRY_MS : 0;
}

void core_declare(struct core *core, struct effects *out)
{
    struct effect effect = {.kind = EFFECT_VERDICT, .term = core->term};

    for (struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        if (!verdict_due(core, host) || core->now_ms < verdict_retry_ms(host))
            continue;
        host->verdict = host->state;
        host->verdict_ms = core->now_ms;
        strlist_add(host->state == MACHINE_LOST ? &effect.names : &effect.removed, host->id);
    }
    if (effect.names.count + effect.removed.count > 0)
        *effects_add(out, EFFECT_VERDICT) = effect;
}

/* ---- time ---- */

/* When a host that has been silent for a ttl is something else than it is now, for all that is known;
 * UINT64_MAX: when others have called. */
static uint64_t verdict_deadline_ms(const struct core *core, const struct host *host)
{
    if (is_given_up(core, host))
        return 0;
    if (host->state == MACHINE_HUNG)
        return host->answered_ms + ANSWER_MS(core->ttl_ms);
    if (host->state == MACHINE_MISSING && !still_answers(core, host))
        return host->give_up_ms > 0 ? host->give_up_ms : UINT64_MAX;
    return 0;
}

/* When a host's state is to change if it is not heard. */
static uint64_t silence_deadline_ms(const struct core *core, const struct host *host)
{
    uint64_t half_ms = host->heard_ms + core->ttl_ms / 2, full_ms = host->heard_ms + core->ttl_ms;
    uint64_t latest_ms = core->now_ms + core->ttl_ms / 2, verdict_ms;

    if (host->state == MACHINE_READY)
        return half_ms;
    if (host->state == MACHINE_LOST) /* From then on it does not count for the brake. */
        return core->braking && lost_lately(host) ? host->heard_ms + BRAKE_WINDOW_MS(core->ttl_ms)
                                                  : UINT64_MAX;
    if (host->state == MACHINE_SUSPECTED && host->session_id != 0 && core->now_ms < half_ms)
        return core->now_ms; /* It was heard again: at once. */
    verdict_ms = verdict_deadline_ms(core, host);
    if (verdict_ms == UINT64_MAX)
        return UINT64_MAX;
    if (verdict_ms < full_ms)
        verdict_ms = full_ms;
    /* Not before long: without any input a standstill of this host could not be told from theirs. */
    return verdict_ms < latest_ms ? verdict_ms : latest_ms;
}

uint64_t core_silence_late_ms(const struct core *core, uint64_t now_ms)
{
    uint64_t first_ms = now_ms;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        bool counts =
            host->state != MACHINE_LOST && host->state != MACHINE_MISSING && !is_given_up(core, host);

        if (counts && silence_deadline_ms(core, host) < first_ms)
            first_ms = silence_deadline_ms(core, host);
    }
    return now_ms - first_ms;
}

uint64_t core_silence_deadline_ms(const struct core *core)
{
    uint64_t deadline = UINT64_MAX;

    for (const struct host *host = core->hosts; host != NULL; host = host->hh.next) {
        uint64_t when = silence_deadline_ms(core, host);

        if (may_be_due(core, host) && verdict_due(core, host) && verdict_retry_ms(host) < when)
            when = verdict_retry_ms(host);
        if (when < deadline)
            deadline = when;
    }
    return deadline;
}
