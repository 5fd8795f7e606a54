/* SPDX-License-Identifier: Apache-2.0 */
/* restart: what runs of the units is restarted, once on each machine that has it (fleet-behaviour.md §1.6.6,
 * but for its faults). A unit that is not stored is complained of, and the others are still done. */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/change.h"
#include "fleetctl/output.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

struct restart {
    struct ctl *ctl;
    struct strlist named;   /* What the arguments come to. */
    struct strlist matched; /* Those of them that only a pattern named. */
    struct strlist targets; /* Those of them that are restarted... */
    struct strlist loaded;  /* ...and of these, the ones that are only started. */
    struct strlist triggers;
    struct strlist notes; /* Lines for stderr, said with the outcome. */
    json_t *changes;
    json_t *before; /* Name -> the generation that the unit had. */
    int code;
};

static void plan_reset(struct restart *m)
{
    strlist_done(&m->targets);
    strlist_done(&m->loaded);
    strlist_done(&m->triggers);
    strlist_done(&m->notes);
    json_decref(m->changes);
    m->changes = json_array();
    json_decref(m->before);
    m->before = json_object();
    m->code = CTL_EXIT_DONE;
}

static void restart_done(struct restart *m)
{
    plan_reset(m);
    json_decref(m->changes);
    json_decref(m->before);
    strlist_done(&m->named);
    strlist_done(&m->matched);
}

static void plan_target(struct restart *m, const char *name, const json_t *unit)
{
    const bool global = stored_is_global(unit);

    strlist_add(&m->targets, name);
    json_object_set(m->before, name, json_object_get(unit, "generation"));
    json_array_append_new(m->changes, json_pack("{s:s, s:b}", "name", name, "restart", 1));
    if (streq(api_text(unit, "desiredState"), "loaded")) {
        strlist_add(&m->loaded, name);
        strlist_take(&m->notes, xasprintf("Unit(%s) already loaded, starting.", name));
    }
    if (global || m->ctl->options.no_block)
        strlist_take(&m->triggers, xasprintf("Triggered %sunit %s restart", global ? "global " : "", name));
}

static int plan_unit(struct restart *m, struct stored *stored, const char *name, struct err *err)
{
    const json_t *unit;
    int r = stored_get(stored, name, &unit, err);

    if (r < 0)
        return r;
    if (unit == NULL) {
        m->code = CTL_EXIT_NO_UNIT;
        strlist_take(&m->notes, xasprintf("Unit %s not found", name));
    } else if (!streq(api_text(unit, "desiredState"), "inactive")) {
        plan_target(m, name, unit);
    } else if (!strlist_has(&m->matched, name)) { /* A pattern means what can be restarted. */
        strlist_take(&m->notes, xasprintf("Unable to restart unit %s in state inactive", name));
    }
    return 0;
}

static int resolve(struct restart *m, const struct strlist *args, struct err *err)
{
    _cleanup_(stored_done) struct stored stored = {0};
    int r = stored_init(&stored, m->ctl, args->count, err);

    for (size_t i = 0; i < args->count && r == 0; i++) {
        const bool pattern = stored_is_pattern(args->items[i]);
        const size_t before = m->named.count;

        r = stored_resolve(&stored, args->items[i], &m->named, err);
        for (size_t j = before; j < m->named.count && pattern; j++)
            strlist_add(&m->matched, m->named.items[j]);
        if (r == 0 && m->named.count == before && pattern)
            complain("No unit matches %s", args->items[i]); /* As for systemctl, that is no failure. */
    }
    return r;
}

static int plan(struct restart *m, struct err *err)
{
    _cleanup_(stored_done) struct stored stored = {0};
    int r = stored_init(&stored, m->ctl, m->named.count, err);

    plan_reset(m);
    for (size_t i = 0; i < m->named.count && r == 0; i++)
        r = plan_unit(m, &stored, m->named.items[i], err);
    return r;
}

/* What is asked for twice is done twice: so nothing is repeated whose outcome is unknown. */
static int commit(struct restart *m, json_t *generations, struct err *err)
{
    int r;

    for (unsigned try = 1;; try++) {
        *err = (struct err){0};
        r = plan(m, err);
        if (r == 0)
            r = change_post(m->ctl->api, m->changes, generations, err);
        if (r == -EINPROGRESS || !change_try_again(r, try))
            return r;
    }
}

/* A leader of an older version takes the request, and finds nothing in it that it knows. */
static int check_taken(const struct restart *m, const json_t *generations, struct err *err)
{
    for (size_t i = 0; i < m->targets.count; i++) {
        const char *name = m->targets.items[i];

        if (json_integer_value(json_object_get(generations, name)) <=
            json_integer_value(json_object_get(m->before, name)))
            return err_set(err, -ENOTSUP,
                           "unit %s was not restarted: the fleetd that leads is too old for that, upgrade it",
                           name);
    }
    return 0;
}

static int follow(struct restart *m, const json_t *generations)
{
    struct strlist done = {0};
    int code;

    for (size_t i = 0; i < m->notes.count; i++)
        complain("%s", m->notes.items[i]);
    for (size_t i = 0; i < m->triggers.count; i++)
        printf("%s\n", m->triggers.items[i]);
    fflush(stdout);
    if (m->ctl->options.no_block)
        return m->code;
    code = wait_for_units(m->ctl, WAIT_RESTART, &m->targets, generations, &done);
    for (size_t i = 0; i < done.count; i++)
        if (!strlist_has(&m->loaded, done.items[i]))
            complain("Unit(%s) was restarted.", done.items[i]);
    strlist_done(&done);
    return code != CTL_EXIT_DONE ? code : m->code;
}

int verb_restart(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(restart_done) struct restart m = {.ctl = ctl};
    _cleanup_(json_decrefp) json_t *generations = json_object();
    struct err err = {0};
    int r = resolve(&m, args, &err);

    if (r == 0)
        r = commit(&m, generations, &err);
    if (r == 0)
        r = check_taken(&m, generations, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error restarting units");
    return follow(&m, generations);
}
