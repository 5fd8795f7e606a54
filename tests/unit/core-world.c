/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/core-world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/core/core_private.h"

#define TICKS_AT_ONCE_MAX 20u /* More at one point in time: a hot loop. */
#define DELAY_MS_MAX      400u
#define WORK_MS_MAX       3000u

static void carry_out(struct world *w, struct effects *effects);

/* ---- life ---- */

void world_init(struct world *w)
{
    *w = (struct world){.now_ms = 1000000};
    w->registry = registry_new();
    w->core = core_new(w->registry, TTL_MS);
    for (size_t i = 0; i < MACHINES_ALL; i++)
        memset(w->machines[i].id, 'a' + (int)i, MACHINE_ID_SIZE - 1);
}

static void mail_free(struct mail *mail)
{
    strlist_done(&mail->names);
    strlist_done(&mail->removed);
    free(mail->generations);
    free(mail->stop_ms);
    if (mail->report != NULL)
        fleet__unit_report__free_unpacked(mail->report, NULL);
    free(mail);
}

static void mail_lost(struct machine *m)
{
    struct mail *mail, *next;

    DL_FOREACH_SAFE (m->down, mail, next)
        mail_free(mail);
    DL_FOREACH_SAFE (m->up, mail, next)
        mail_free(mail);
    m->down = m->up = NULL;
}

static void item_remove(struct machine *m, struct item *item)
{
    size_t index = (size_t)(item - m->items);

    free(item->unit);
    memmove(item, item + 1, (m->count - index - 1) * sizeof *item);
    m->count--;
}

static void effect_free(struct effect *effect)
{
    struct effects one = {.items = effect, .count = 1, .capacity = 1};

    if (effect != NULL)
        effects_done(&one); /* Frees 'effect', too. */
}

void world_forget(struct world *w)
{
    w->schedules = w->shares = w->drops = w->logs = w->placements = w->moves = w->verdicts = w->leases = 0;
    strlist_done(&w->settled);
    w->settled = (struct strlist){0};
}

void world_done(struct world *w)
{
    for (size_t i = 0; i < MACHINES_ALL; i++) {
        struct machine *m = &w->machines[i];

        mail_lost(m);
        while (m->count > 0)
            item_remove(m, m->items);
        free(m->items);
    }
    effect_free(w->held);
    world_forget(w);
    core_free(w->core);
    registry_free(w->registry);
}

uint64_t world_random(struct world *w, uint64_t below)
{
    uint64_t x = w->chance += 0x9e3779b97f4a7c15u; /* splitmix64 */

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % below;
}

/* ---- machines ---- */

struct machine *machine_of(struct world *w, const char *name)
{
    assert_in_range(name[0], 'a', 'a' + (int)MACHINES_ALL - 1);
    return &w->machines[name[0] - 'a'];
}

static struct machine *machine_by_id(struct world *w, const char *id)
{
    return w->unchecked ? NULL : machine_of(w, id);
}

struct item *item_of(const struct machine *m, const char *unit)
{
    for (size_t i = 0; i < m->count; i++)
        if (streq(m->items[i].unit, unit))
            return &m->items[i];
    return NULL;
}

static struct item *item_get(struct machine *m, const char *unit)
{
    struct item *item = item_of(m, unit);

    if (item != NULL)
        return item;
    GROW(m->items, m->capacity, m->count + 1);
    item = &m->items[m->count++];
    *item = (struct item){.unit = xstrdup(unit), .active = "inactive"};
    return item;
}

/* Whether the machine has anything of the unit, or a share on its way says that it shall. */
static bool may_have(const struct machine *m, const char *unit)
{
    const struct mail *mail;

    DL_FOREACH (m->down, mail)
        if (strlist_has(&mail->names, unit))
            return true;
    return item_of(m, unit) != NULL;
}

static Fleet__UnitReport *report_new(const struct item *item, bool gone, uint64_t shares_taken)
{
    Fleet__UnitReport *report = NEW0(Fleet__UnitReport);

    fleet__unit_report__init(report);
    report->name = xstrdup(item->unit);
    report->load_state = xstrdup("loaded");
    report->active_state = xstrdup(item->active);
    report->sub_state = xstrdup(item->sub[0] != '\0'            ? item->sub
                                : streq(item->active, "active") ? "running"
                                                                : "dead");
    report->hash = xstrdup("");
    report->result = xstrdup(item->result);
    report->error = xstrdup("");
    report->generation = item->carried_out;
    report->asked = item->asked;
    report->launched = item->launched;
    report->gone = gone;
    report->after_share = gone ? 1 + shares_taken : 0;
    return report;
}

/* Takes ownership of 'report'. */
static void deliver_report(struct world *w, struct machine *m, Fleet__UnitReport *report)
{
    struct effects effects = {0};

    m->heard_ms = w->now_ms;
    core_session_report(w->core, m->id, m->session, &report, 1, w->now_ms, &effects);
    fleet__unit_report__free_unpacked(report, NULL);
    carry_out(w, &effects);
}

static void post(struct world *w, struct mail **box, struct mail *mail)
{
    mail->due_ms = w->now_ms + world_random(w, DELAY_MS_MAX);
    if (*box != NULL && (*box)->prev->due_ms > mail->due_ms)
        mail->due_ms = (*box)->prev->due_ms; /* In order. */
    DL_APPEND(*box, mail);
}

static void send_report(struct world *w, struct machine *m, const struct item *item, bool gone)
{
    struct mail *mail;

    if (m->session == 0)
        return;
    if (!w->slow) {
        deliver_report(w, m, report_new(item, gone, m->shares_taken));
        return;
    }
    mail = NEW0(struct mail);
    mail->report = report_new(item, gone, m->shares_taken);
    post(w, &m->up, mail);
}

/* ---- the agent ---- */

static void want(struct world *w, struct machine *m, const char *unit, uint64_t generation, uint64_t stop_ms)
{
    struct item *item = item_get(m, unit);

    item->wanted = generation;
    item->wants_loose = generation != 0 && stop_ms == 0;
    if (stop_ms > item->stop_ms) /* What runs may be an older content. */
        item->stop_ms = stop_ms;
    item->busy_until_ms = w->now_ms + world_random(w, WORK_MS_MAX);
}

static void take_share(struct world *w, struct machine *m, const struct mail *mail)
{
    assert_int_equal(mail->number, m->shares_taken + 1);
    m->shares_taken = mail->number;
    for (size_t i = 0; i < mail->removed.count; i++)
        if (item_of(m, mail->removed.items[i]) != NULL)
            want(w, m, mail->removed.items[i], 0, 0);
    for (size_t i = 0; i < mail->names.count; i++)
        want(w, m, mail->names.items[i], mail->generations[i], mail->stop_ms[i]);
    for (size_t i = 0; mail->complete && i < m->count; i++)
        if (!strlist_has(&mail->names, m->items[i].unit))
            want(w, m, m->items[i].unit, 0, 0);
}

static void carry_out_item(struct item *item)
{
    item->carried_out = item->wanted;
    item->loose = item->wants_loose;
    item->launched = true;
}

/* A pretend agent gets on with its work; true if it did something. */
static bool agent_works(struct world *w, struct machine *m)
{
    for (size_t i = 0; i < m->count; i++) {
        struct item *item = &m->items[i];

        if (item->busy_until_ms > w->now_ms || (item->wanted != 0 && item->wanted == item->carried_out))
            continue;
        carry_out_item(item);
        item->sub[0] = '\0';
        strcpy(item->active, w->failing > 0 && world_random(w, w->failing) == 0 ? "failed" : "active");
        strcpy(item->result, streq(item->active, "failed") ? "failed" : "done");
        send_report(w, m, item, item->wanted == 0);
        if (item->wanted == 0)
            item_remove(m, item);
        return true;
    }
    return false;
}

static bool mail_arrives(struct world *w, struct machine *m)
{
    struct mail *mail = m->down;

    if (mail != NULL && mail->due_ms <= w->now_ms) {
        DL_DELETE(m->down, mail);
        take_share(w, m, mail);
        mail_free(mail);
        return true;
    }
    mail = m->up;
    if (mail == NULL || mail->due_ms > w->now_ms)
        return false;
    DL_DELETE(m->up, mail);
    deliver_report(w, m, TAKE_PTR(mail->report));
    mail_free(mail);
    return true;
}

/* ---- carrying out ---- */

static void write_effect(struct world *w, const struct effect *effect)
{
    if (w->transcript == NULL)
        return;
    fprintf(w->transcript, "%llu %d %.4s %d %s", (unsigned long long)w->now_ms, (int)effect->kind,
            effect->machine_id, effect->complete, effect->text != NULL ? effect->text : "");
    for (size_t i = 0; i < effect->names.count; i++)
        fprintf(w->transcript, " +%s", effect->names.items[i]);
    for (size_t i = 0; i < effect->removed.count; i++)
        fprintf(w->transcript, " -%s", effect->removed.items[i]);
    for (size_t i = 0; i < effect->placement_count; i++)
        fprintf(w->transcript, " %s:%.4s>%.4s(%s)", effect->placements[i].unit, effect->placements[i].from,
                effect->placements[i].to, effect->placements[i].reason);
    fprintf(w->transcript, "\n");
}

/* Whether the machine runs the unit without a lease, or may begin to. */
static bool may_run_loose(const struct machine *m, const char *unit)
{
    const struct item *item = item_of(m, unit);
    const struct mail *mail;

    DL_FOREACH (m->down, mail)
        for (size_t i = 0; i < mail->names.count; i++)
            if (streq(mail->names.items[i], unit) && mail->stop_ms[i] == 0)
                return true;
    return item != NULL && (item->loose || item->wants_loose);
}

/* The law of OnDisconnect=stop: nobody may be given it while another one may still run it, heard or not, lost
 * or not; and who runs an older copy without a lease may do so for ever, unless a person knows better. */
static void check_leases(struct world *w, const struct machine *to, const struct registry_unit *unit)
{
    for (size_t i = 0; i < MACHINES_ALL; i++) {
        const struct machine *m = &w->machines[i];
        const struct item *item = item_of(m, unit->name);
        uint64_t stop_ms = item != NULL ? item->stop_ms : 0;

        if (m != to && stop_ms > 0 && w->now_ms < m->lease_until_ms + stop_ms)
            fail_msg("%llu: %s is given to %.1s while %.1s may run it until %llu",
                     (unsigned long long)w->now_ms, unit->name, to->id, m->id,
                     (unsigned long long)(m->lease_until_ms + stop_ms));
        if (m != to && !m->dead && may_run_loose(m, unit->name))
            fail_msg("%llu: %s is given to %.1s while %.1s may run it without a lease",
                     (unsigned long long)w->now_ms, unit->name, to->id, m->id);
    }
}

/* The law: who is given a unit anew is alone with it. What a host has that has not called this leader yet is
 * only known of the unit's former places; and a removed one is known only as long as it has a session, or
 * units that are still placed there. */
static void check_alone(struct world *w, const struct machine *to, const char *name)
{
    const struct registry_unit *unit = registry_unit(w->registry, name);

    if (unit->requirements->global || may_have(to, name))
        return;
    for (size_t i = 0; i < MACHINES_ALL; i++) {
        const struct machine *m = &w->machines[i];
        enum machine_state state = core_machine_state(w->core, m->id);

        if (m == to || !may_have(m, name) || state == MACHINE_LOST || m->given_up ||
            (state == MACHINE_HUNG && !may_run_loose(m, name)) || /* That is for check_leases(). */
            (m->called_term != w->term && !strlist_has(&unit->former, m->id)) ||
            host_find(w->core->hosts, m->id) == NULL || (unit->handover && strlist_has(&unit->former, m->id)))
            continue;
        fail_msg("%llu: %s is given to %.1s while %.1s (%s) may have it", (unsigned long long)w->now_ms, name,
                 to->id, m->id, machine_state_to_string(state));
    }
}

/* Whether more than 'steps' steps lead on from peer to peer: in a circle, where there are fewer units. */
static bool is_endless(const struct world *w, const char *name, size_t steps)
{
    const struct registry_unit *unit = registry_unit(w->registry, name);

    for (size_t i = 0; unit != NULL && i < unit->requirements->machine_of.count; i++)
        if (steps == 0 || is_endless(w, unit->requirements->machine_of.items[i], steps - 1))
            return true;
    return false;
}

/* The laws of company: who is given a unit anew has its peers, or is given them with it, and nothing that it
 * must not run beside is still being stopped there. */
static void check_company(struct world *w, const struct machine *to, const struct effect *share,
                          const char *name)
{
    const struct requirements *r = registry_unit(w->registry, name)->requirements;

    if (may_have(to, name))
        return;
    for (size_t i = 0; i < r->machine_of.count && !r->global; i++)
        if (!is_endless(w, name, registry_unit_count(w->registry)) && !may_have(to, r->machine_of.items[i]) &&
            !strlist_has(&share->names, r->machine_of.items[i]))
            fail_msg("%llu: %s is given to %.1s before %s", (unsigned long long)w->now_ms, name, to->id,
                     r->machine_of.items[i]);
    for (size_t i = 0; i < to->count; i++) {
        const struct registry_unit *other = registry_unit(w->registry, to->items[i].unit);

        if (other != NULL && core_machine_wants(w->core, to->id, other))
            continue; /* Two that are both wanted are the planner's business. */
        for (size_t j = 0; j < r->conflicts.count; j++)
            if (requirements_glob(r->conflicts.items[j], to->items[i].unit))
                fail_msg("%llu: %s is given to %.1s beside %s", (unsigned long long)w->now_ms, name, to->id,
                         to->items[i].unit);
    }
}

static void do_share(struct world *w, const struct effect *effect)
{
    struct machine *m = machine_by_id(w, effect->machine_id);
    struct mail *mail;

    w->shares++;
    if (m == NULL)
        return;
    assert_true(m->session != 0);
    if (m->off)
        return;
    mail = NEW0(struct mail);
    mail->complete = effect->complete;
    mail->number = effect->share_number;
    mail->generations = xcalloc(effect->names.count, sizeof *mail->generations);
    mail->stop_ms = xcalloc(effect->names.count, sizeof *mail->stop_ms);
    for (size_t i = 0; i < effect->names.count; i++) {
        const char *name = effect->names.items[i];

        assert_true(i == 0 || strcmp(effect->names.items[i - 1], name) < 0);
        check_alone(w, m, name);
        check_company(w, m, effect, name);
        if (core_needs_lease(registry_unit(w->registry, name)) && !may_have(m, name))
            check_leases(w, m, registry_unit(w->registry, name));
        strlist_add(&mail->names, name);
        mail->generations[i] = registry_unit(w->registry, name)->generation;
        mail->stop_ms[i] = registry_unit(w->registry, name)->requirements->stop_ms;
    }
    for (size_t i = 0; i < effect->removed.count; i++)
        strlist_add(&mail->removed, effect->removed.items[i]);
    if (w->slow) {
        post(w, &m->down, mail);
        return;
    }
    take_share(w, m, mail);
    mail_free(mail);
}

static void do_drop(struct world *w, const struct effect *effect)
{
    struct machine *m = machine_by_id(w, effect->machine_id);

    w->drops++;
    if (m == NULL)
        return;
    m->session = 0;
    mail_lost(m);
}

static void apply(struct world *w, Fleet__Command *command)
{
    struct registry_changes changes;
    struct effects effects = {0};
    uint8_t *bytes;
    size_t size;
    int status;

    command->format = COMMAND_FORMAT;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    status = registry_apply(w->registry, bytes, size)->status;
    if (status != -ESTALE || command->body_case != FLEET__COMMAND__BODY_SCHEDULE) /* It came too late. */
        assert_int_equal(status, 0);
    free(bytes);
    core_registry_touched(w->core);
    registry_changes_take(w->registry, &changes);
    core_registry_changed(w->core, &changes, w->now_ms, &effects);
    registry_changes_done(&changes);
    carry_out(w, &effects);
}

static void apply_schedule(struct world *w, const struct effect *effect)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__Schedule schedule = FLEET__SCHEDULE__INIT;
    size_t count = effect->placement_count;
    _cleanup_(freep) Fleet__Placement *items = xcalloc(count, sizeof *items);
    _cleanup_(freep) Fleet__Placement **list = xcalloc(count, sizeof *list);

    for (size_t i = 0; i < count; i++) {
        fleet__placement__init(&items[i]);
        items[i].unit = effect->placements[i].unit;
        items[i].from = effect->placements[i].from;
        items[i].to = effect->placements[i].to;
        items[i].reason = effect->placements[i].reason;
        items[i].if_generation = effect->placements[i].generation;
        items[i].former_gone = effect->placements[i].former_gone;
        items[i].handover = effect->placements[i].handover;
        items[i].leased = effect->placements[i].leased;
        list[i] = &items[i];
    }
    schedule.placements = list;
    schedule.n_placements = count;
    command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    command.schedule = &schedule;
    apply(w, &command);
}

static void change_machine(struct world *w, Fleet__MachineChange *change)
{
    Fleet__ChangeMachines body = FLEET__CHANGE_MACHINES__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.changes = &change;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = &body;
    apply(w, &command);
}

static void apply_verdicts(struct world *w, const struct strlist *ids, Fleet__Verdict verdict)
{
    for (size_t i = 0; i < ids->count; i++) {
        Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT;

        change.machine_id = ids->items[i];
        change.verdict = verdict;
        change_machine(w, &change);
    }
}

static void do_verdict(struct world *w, const struct effect *effect)
{
    w->verdicts++;
    assert_int_equal(effect->term, w->term);
    if (w->refuse_verdicts)
        return;
    apply_verdicts(w, &effect->names, FLEET__VERDICT__VERDICT_LOST);
    apply_verdicts(w, &effect->removed, FLEET__VERDICT__VERDICT_BACK);
}

static void do_lease(struct world *w, const struct effect *effect)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__SetLease body = FLEET__SET_LEASE__INIT;
    bool applied = !w->refuse_lease;

    w->leases++;
    assert_int_equal(effect->term, w->term);
    body.lease_ms = effect->lease_ms;
    command.body_case = FLEET__COMMAND__BODY_SET_LEASE;
    command.set_lease = &body;
    if (applied)
        apply(w, &command);
    w->refuse_lease = false;
    core_lease_done(w->core, effect->term, applied, w->now_ms);
}

static void schedule_ends(struct world *w, const struct effect *effect, bool applied)
{
    struct effects effects = {0};

    if (applied)
        apply_schedule(w, effect);
    core_schedule_done(w->core, effect->term, applied, w->now_ms, &effects);
    carry_out(w, &effects);
}

/* The law of shutdowns: nothing is moved onto a machine that has said that it is going. */
static void check_shutdowns(struct world *w, const struct effect *effect)
{
    for (size_t i = 0; i < effect->placement_count; i++)
        for (size_t j = 0; j < MACHINES_ALL; j++) {
            const struct machine *m = &w->machines[j];
            const struct core_placement *placement = &effect->placements[i];

            if (m->session != 0 && m->called_term == w->term && m->shuts_down &&
                streq(placement->to, m->id) && !streq(placement->from, m->id))
                fail_msg("%llu: %s goes to %.1s, which is being shut down", (unsigned long long)w->now_ms,
                         placement->unit, m->id);
        }
}

static void do_schedule(struct world *w, struct effect *effect)
{
    check_shutdowns(w, effect);
    w->schedules++;
    w->placements += (unsigned)effect->placement_count;
    for (size_t i = 0; i < effect->placement_count; i++)
        w->moves += !streq(effect->placements[i].from, effect->placements[i].to);
    assert_int_equal(effect->term, w->term);
    if (w->hold) {
        assert_null(w->held); /* One decision at a time. */
        w->held = xmemdup(effect, sizeof *effect);
        *effect = (struct effect){.kind = EFFECT_LOG};
    } else if (w->refuse > 0) {
        w->refuse--;
        schedule_ends(w, effect, false);
    } else {
        schedule_ends(w, effect, true);
    }
}

void held_is(struct world *w, bool applied)
{
    struct effect *effect = TAKE_PTR(w->held);

    assert_non_null(effect);
    w->hold = false;
    schedule_ends(w, effect, applied);
    effect_free(effect);
}

/* The laws of loss: nobody is lost who was heard within the ttl, or whose kernel has answered for so long,
 * unless a person has said so. */
static void check_lost(struct world *w)
{
    for (size_t i = 0; i < MACHINES_ALL; i++) {
        struct machine *m = &w->machines[i];
        const struct host *host = host_find(w->core->hosts, m->id);
        const struct registry_machine *known = registry_machine(w->registry, m->id);
        bool given_up = host == NULL || host->state == MACHINE_LOST;

        if (host != NULL && given_up && !m->given_up && known != NULL && known->registered && !known->lost &&
            (w->now_ms - m->heard_ms < TTL_MS ||
             (m->kernel == KERNEL_ACCEPTS && w->now_ms - m->kernel_since_ms >= TTL_MS)))
            fail_msg("%llu: %.1s is lost, though it is there", (unsigned long long)w->now_ms, m->id);
        m->given_up |= given_up;
    }
}

static void do_shutdown_ready(struct world *w, const struct effect *effect)
{
    struct machine *m = machine_of(w, (const char[]){effect->machine_id[0], '\0'});

    assert_true(m->shuts_down && m->session != 0);
    assert_false(m->ready); /* It is said once. */
    m->ready = true;
}

/* Decisions come last: the outcome of one is a later event. */
static void carry_out(struct world *w, struct effects *effects)
{
    check_lost(w);
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *effect = &effects->items[i];

        write_effect(w, effect);
        switch (effect->kind) {
        case EFFECT_SHARE: do_share(w, effect); break;
        case EFFECT_DROP: do_drop(w, effect); break;
        case EFFECT_SETTLED: strlist_add(&w->settled, effect->names.items[0]); break;
        case EFFECT_SHUTDOWN_READY: do_shutdown_ready(w, effect); break;
        case EFFECT_LOG: w->logs++; break;
        case EFFECT_LEASE:
        case EFFECT_SCHEDULE:
        case EFFECT_VERDICT: break;
        }
    }
    for (size_t i = 0; i < effects->count; i++) {
        if (effects->items[i].kind == EFFECT_VERDICT)
            do_verdict(w, &effects->items[i]);
        else if (effects->items[i].kind == EFFECT_SCHEDULE)
            do_schedule(w, &effects->items[i]);
        else if (effects->items[i].kind == EFFECT_LEASE)
            do_lease(w, &effects->items[i]);
    }
    effects_done(effects);
}

/* ---- what happens ---- */

void leads(struct world *w)
{
    struct effects effects = {0};

    effect_free(TAKE_PTR(w->held));
    for (size_t i = 0; i < MACHINES_ALL; i++) {
        w->machines[i].session = 0;
        w->machines[i].heard_ms = w->now_ms;
        mail_lost(&w->machines[i]);
    }
    core_lead(w->core, ++w->term, w->now_ms, &effects);
    carry_out(w, &effects);
}

void may_place(struct world *w, bool placing)
{
    struct effects effects = {0};

    core_set_placing(w->core, placing, w->now_ms, &effects);
    carry_out(w, &effects);
}

void registers(struct world *w, const char *name, const char *metadata)
{
    Fleet__Label label = FLEET__LABEL__INIT, *labels[] = {&label};
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    _cleanup_(freep) char *text = xstrdup(metadata), *host = xasprintf("host-%s", name);
    char id[MACHINE_ID_SIZE];

    if (w->unchecked)
        snprintf(id, sizeof id, "%s", name);
    else
        memcpy(id, machine_of(w, name)->id, sizeof id);
    if (text != NULL) {
        label.value = strchr(text, '=') + 1;
        label.value[-1] = '\0';
        label.key = text;
    }
    body.machine_id = id;
    body.hostname = host;
    body.server_id = 1 + (uint64_t)name[0];
    body.joins = true; /* It may have been removed before. */
    body.metadata = labels;
    body.n_metadata = text != NULL;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    apply(w, &command);
}

void is_removed(struct world *w, const char *name)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    machine_of(w, name)->dead = true;
    body.machine_id = machine_of(w, name)->id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    apply(w, &command);
}

void is_set(struct world *w, const char *name, Fleet__Availability availability)
{
    Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT;

    change.machine_id = machine_of(w, name)->id;
    change.availability = availability;
    change_machine(w, &change);
}

void is_stopped(struct world *w, const char *name)
{
    Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT;

    machine_hangs_up(w, name);
    change.machine_id = machine_of(w, name)->id;
    change.daemon = FLEET__DAEMON_STATE__DAEMON_STOPPED;
    change_machine(w, &change);
}

void advance_probing(struct world *w, const char *name, bool accepts, uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 1000) {
        if (core_wants_probe(w->core, machine_of(w, name)->id))
            core_probed(w->core, machine_of(w, name)->id, accepts, w->now_ms);
        advance(w, ms - passed < 1000 ? ms - passed : 1000);
    }
}

void accepts_probes(struct world *w, const char *name, bool accepts)
{
    struct machine *m = machine_of(w, name);

    m->kernel = accepts ? KERNEL_ACCEPTS : KERNEL_REFUSES;
    m->kernel_since_ms = w->now_ms;
}

void loses_power(struct world *w, const char *name)
{
    struct machine *m = machine_of(w, name);

    mail_lost(m);
    while (m->count > 0)
        item_remove(m, m->items);
    m->off = true;
    m->beats = false;
    m->kernel = KERNEL_SILENT;
}

void is_mended(struct world *w, const char *name)
{
    struct machine *m = machine_of(w, name);

    for (size_t i = 0; i < m->count; i++)
        if (!streq(m->items[i].active, "active"))
            m->items[i].carried_out = 0;
}

void is_restored(struct world *w, const char *name)
{
    registry_renew(w->registry,
                   &(struct registry_renewal){.machine_id = machine_of(w, name)->id,
                                              .server_id = 99,
                                              .cluster_id = (const uint8_t *)"restored cluster"});
}

void is_confirmed_lost(struct world *w, const char *name)
{
    Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT;

    change.machine_id = machine_of(w, name)->id;
    change.verdict = FLEET__VERDICT__VERDICT_LOST;
    change.confirmed = true;
    machine_of(w, name)->dead = true;
    change_machine(w, &change);
}

void gets_metadata(struct world *w, const char *name, const char *key, const char *value)
{
    Fleet__MetadataChange change = FLEET__METADATA_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeMetadata body = FLEET__CHANGE_METADATA__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.machine_id = machine_of(w, name)->id;
    change.key = (char *)key;
    change.value = (char *)value;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_METADATA;
    command.change_metadata = &body;
    apply(w, &command);
}

void machine_calls(struct world *w, const char *name)
{
    struct machine *m = machine_of(w, name);
    _cleanup_(freep) Fleet__UnitReport **list = xcalloc(m->count, sizeof *list);
    struct effects effects = {0};
    size_t count = m->count;

    mail_lost(m);
    m->off = m->given_up = m->dead = m->ready = false;
    m->kernel = KERNEL_SILENT;
    m->session = ++w->sessions;
    m->called_term = w->term;
    m->shares_taken = 0;
    m->beats = true;
    m->heard_ms = w->now_ms;
    for (size_t i = 0; i < count; i++)
        list[i] = report_new(&m->items[i], false, 0);
    core_session_open(w->core, m->id, m->session, list, count, m->shuts_down, w->now_ms, &effects);
    for (size_t i = 0; i < count; i++)
        fleet__unit_report__free_unpacked(list[i], NULL);
    carry_out(w, &effects);
}

void is_shut_down(struct world *w, const char *name, bool begins)
{
    struct machine *m = machine_of(w, name);
    struct effects effects = {0};

    m->shuts_down = begins;
    m->ready = false;
    m->heard_ms = w->now_ms;
    core_session_shutdown(w->core, m->id, m->session, begins, w->now_ms, &effects);
    carry_out(w, &effects);
}

void stranger_calls(struct world *w, const char *id, uint64_t session)
{
    struct effects effects = {0};

    core_session_open(w->core, id, session, NULL, 0, false, w->now_ms, &effects);
    carry_out(w, &effects);
}

void machine_hangs_up(struct world *w, const char *name)
{
    struct machine *m = machine_of(w, name);
    struct effects effects = {0};
    uint64_t session = m->session;

    m->session = 0;
    mail_lost(m);
    core_session_closed(w->core, m->id, session, w->now_ms, &effects);
    carry_out(w, &effects);
}

void falls_silent(struct world *w, const char *name)
{
    machine_of(w, name)->beats = false;
}

/* A heartbeat with which a lease is asked for; the store is quick. */
static void beat(struct world *w, struct machine *m)
{
    uint64_t lease_ms;

    m->heard_ms = w->now_ms;
    core_session_heard(w->core, m->id, m->session, w->now_ms);
    lease_ms = core_lease_grant(w->core, m->id, m->session, w->now_ms);
    if (lease_ms > 0 && w->now_ms + lease_ms > m->lease_until_ms)
        m->lease_until_ms = w->now_ms + lease_ms;
}

void is_heard(struct world *w, const char *name)
{
    struct machine *m = machine_of(w, name);

    m->beats = true;
    beat(w, m);
}

static struct item *carries_out(struct world *w, struct machine *m, const char *unit)
{
    struct item *item = item_of(m, unit);

    if (item == NULL)
        fail_msg("%.1s was not told to have %s", m->id, unit);
    carry_out_item(item);
    return item;
}

void reports(struct world *w, const char *name, const char *unit, const char *active)
{
    struct machine *m = machine_of(w, name);
    struct item *item = carries_out(w, m, unit);

    strcpy(item->active, active);
    strcpy(item->result, "done");
    item->sub[0] = '\0';
    send_report(w, m, item, false);
}

void reports_sub(struct world *w, const char *name, const char *unit, const char *active, const char *sub)
{
    struct machine *m = machine_of(w, name);
    struct item *item = carries_out(w, m, unit);

    strcpy(item->active, active);
    strcpy(item->sub, sub);
    strcpy(item->result, "done");
    send_report(w, m, item, false);
}

void fails(struct world *w, const char *name, const char *unit, const char *result)
{
    struct machine *m = machine_of(w, name);
    struct item *item = carries_out(w, m, unit);

    strcpy(item->active, "failed");
    item->sub[0] = '\0';
    strcpy(item->result, result);
    send_report(w, m, item, false);
}

void start_fails(struct world *w, const char *name, const char *unit)
{
    struct machine *m = machine_of(w, name);
    struct item *item = item_of(m, unit);

    item->launched = true;
    strcpy(item->active, "failed");
    send_report(w, m, item, false);
    fails(w, name, unit, "failed");
}

void refuses(struct world *w, const char *name, const char *unit, const char *active)
{
    struct machine *m = machine_of(w, name);
    bool loose =
        item_of(m, unit) != NULL && item_of(m, unit)->loose; /* That it is run of an older content. */
    struct item *item = carries_out(w, m, unit);

    item->loose = loose;
    strcpy(item->active, active);
    strcpy(item->result, "error");
    send_report(w, m, item, false);
}

void is_stopped_by_its_lease(struct world *w, const char *name, const char *unit)
{
    struct machine *m = machine_of(w, name);
    struct item *item = item_of(m, unit);

    item->carried_out = 0;
    strcpy(item->active, "inactive");
    send_report(w, m, item, false);
}

void lets_go(struct world *w, const char *name, const char *unit)
{
    struct machine *m = machine_of(w, name);
    struct item item = *item_of(m, unit);

    item.unit = xstrdup(unit);
    item_remove(m, item_of(m, unit));
    send_report(w, m, &item, true);
    free(item.unit);
}

static void user_changes(struct world *w, const char *unit, const char *text, Fleet__DesiredState desired,
                         bool destroy)
{
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    if (text == NULL && !destroy && registry_unit(w->registry, unit) == NULL)
        text = PLAIN;
    change.name = (char *)unit;
    change.has_text = text != NULL;
    if (text != NULL)
        change.text = (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
    change.desired = desired;
    change.destroy = destroy;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    apply(w, &command);
}

void cluster_sets(struct world *w, const char *setting, const char *value)
{
    Fleet__Setting change = FLEET__SETTING__INIT, *list[] = {&change};
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.name = (char *)setting;
    change.reset = value == NULL;
    if (value != NULL)
        change.value = (char *)value;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &body;
    apply(w, &command);
}

void let_go_before(struct world *w, const char *name, const char *unit, uint64_t shares)
{
    struct machine *m = machine_of(w, name);

    deliver_report(w, m, report_new(item_of(m, unit), true, shares));
}

void user_submits(struct world *w, const char *unit, const char *text, Fleet__DesiredState desired)
{
    user_changes(w, unit, text, desired, false);
}

void user_starts(struct world *w, const char *unit)
{
    user_changes(w, unit, NULL, FLEET__DESIRED_STATE__DESIRED_LAUNCHED, false);
}

void user_loads(struct world *w, const char *unit)
{
    user_changes(w, unit, NULL, FLEET__DESIRED_STATE__DESIRED_LOADED, false);
}

void user_restarts(struct world *w, const char *unit)
{
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.name = (char *)unit;
    change.restart = true;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    apply(w, &command);
}

void user_stops(struct world *w, const char *unit)
{
    user_changes(w, unit, NULL, FLEET__DESIRED_STATE__DESIRED_INACTIVE, false);
}

void user_destroys(struct world *w, const char *unit)
{
    user_changes(w, unit, NULL, FLEET__DESIRED_STATE__DESIRED_UNCHANGED, true);
}

/* ---- time ---- */

static void tick(struct world *w)
{
    struct effects effects = {0};

    core_tick(w->core, w->now_ms, &effects);
    carry_out(w, &effects);
}

static uint64_t probe_due_ms(const struct machine *m)
{
    return m->probed_ms + 1000;
}

/* All that is due at this moment. */
static void happen(struct world *w)
{
    unsigned ticks = 0;

    for (size_t i = 0; i < MACHINES_ALL; i++) {
        struct machine *m = &w->machines[i];

        if (m->session != 0 && m->beats && w->now_ms - m->heard_ms >= BEAT_MS)
            beat(w, m);
        if (m->kernel != KERNEL_SILENT && core_wants_probe(w->core, m->id) && probe_due_ms(m) <= w->now_ms) {
            m->probed_ms = w->now_ms;
            core_probed(w->core, m->id, m->kernel == KERNEL_ACCEPTS, w->now_ms);
        }
        while (w->slow && m->beats && (mail_arrives(w, m) || agent_works(w, m)))
            ;
    }
    while (core_deadline_ms(w->core) <= w->now_ms) {
        if (++ticks > TICKS_AT_ONCE_MAX)
            fail_msg("the core wants to be called again and again");
        tick(w);
    }
}

static uint64_t earliest(const struct world *w, uint64_t until)
{
    uint64_t when = core_deadline_ms(w->core) < until ? core_deadline_ms(w->core) : until;

    for (size_t i = 0; i < MACHINES_ALL; i++) {
        const struct machine *m = &w->machines[i];

        if (m->session != 0 && m->beats && m->heard_ms + BEAT_MS < when)
            when = m->heard_ms + BEAT_MS;
        if (m->kernel != KERNEL_SILENT && core_wants_probe(w->core, m->id) && probe_due_ms(m) < when)
            when = probe_due_ms(m);
        if (!w->slow || !m->beats)
            continue;
        if (m->down != NULL && m->down->due_ms < when)
            when = m->down->due_ms;
        if (m->up != NULL && m->up->due_ms < when)
            when = m->up->due_ms;
        for (size_t j = 0; j < m->count; j++)
            if (m->items[j].busy_until_ms > w->now_ms && m->items[j].busy_until_ms < when)
                when = m->items[j].busy_until_ms;
    }
    return when > w->now_ms ? when : w->now_ms;
}

void advance(struct world *w, uint64_t ms)
{
    uint64_t until = w->now_ms + ms;

    do {
        w->now_ms = earliest(w, until);
        happen(w);
    } while (w->now_ms < until);
}

void stands_still(struct world *w, uint64_t ms)
{
    w->now_ms += ms;
    tick(w); /* Timers are the first to run when it goes on. */
    happen(w);
}

/* ---- what has come of it ---- */

bool is_handed_over(struct world *w, const char *unit)
{
    return registry_unit(w->registry, unit)->handover;
}

bool is_told(struct world *w, const char *name, const char *unit)
{
    const struct item *item = item_of(machine_of(w, name), unit);

    return item != NULL && item->wanted != 0;
}

const char *placed_on(struct world *w, const char *unit)
{
    static char name[2];

    name[0] = registry_unit(w->registry, unit)->target[0];
    return name;
}

enum machine_state state_of(struct world *w, const char *name)
{
    return core_machine_state(w->core, machine_of(w, name)->id);
}

const char *outcome_of(struct world *w, const char *unit)
{
    _cleanup_(core_status_freep) struct core_status *status = core_status_new(w->core, unit);

    return unit_outcome_to_string(status->outcome);
}

const char *reason_of(struct world *w, const char *unit)
{
    static char reason[512];
    _cleanup_(core_status_freep) struct core_status *status = core_status_new(w->core, unit);

    snprintf(reason, sizeof reason, "%s", status->reason);
    return reason;
}

/* ---- where a test begins ---- */

void three_machines(struct world *w)
{
    world_init(w);
    registers(w, "a", NULL);
    registers(w, "b", NULL);
    registers(w, "c", NULL);
    leads(w);
    machine_calls(w, "a");
    machine_calls(w, "b");
    machine_calls(w, "c");
}

void active_on_a(struct world *w)
{
    three_machines(w);
    user_starts(w, "x.service");
    reports(w, "a", "x.service", "active");
}

void running_on_a(struct world *w)
{
    active_on_a(w);
    advance(w, TTL_MS);
    world_forget(w);
}

void six_machines_without(struct world *w, const char *silent)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};

    world_init(w);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        registers(w, names[i], NULL);
    leads(w);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        machine_calls(w, names[i]);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *unit = xasprintf("on-%s.service", names[i]);

        user_starts(w, unit);
        reports(w, names[i], unit, "active");
    }
    advance(w, TTL_MS);
    for (; *silent != '\0'; silent++)
        falls_silent(w, (const char[]){*silent, '\0'});
    world_forget(w);
}
