/* SPDX-License-Identifier: Apache-2.0 */
/* stop, unload, destroy: what is stored is wanted less. A unit that is not stored is complained of, and the
 * others are still done. */
#include <config.h>

#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/change.h"
#include "fleetctl/output.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

static const struct action {
    const char *verb, *doing;
    const char *desired; /* NULL: it shall no longer be stored. */
    const char *past;    /* For "Successfully stopped units [...]."; NULL: each unit has its line. */
} actions[] = {
    [WAIT_STOP] = {"stop", "stopping", "loaded", "stopped"},
    [WAIT_UNLOAD] = {"unload", "unloading", "inactive", "unloaded"},
    [WAIT_DESTROY] = {"destroy", "destroying", NULL, NULL},
};

struct removal {
    struct ctl *ctl;
    enum wait_for what;
    struct strlist named;    /* What the arguments come to, at the first look. */
    struct strlist matched;  /* Those of them that only a pattern named. */
    struct strlist unknown;  /* Those of them that were not stored even then. */
    struct strlist targets;  /* Those of them to wait for. */
    struct strlist triggers; /* Lines of §1.6 for what is not, or cannot be, waited for. */
    json_t *changes;
    bool again; /* Not the first try: what is gone by now may be our own doing. */
    int code;   /* The worst so far, beside failures of the request itself. */
};

static void removal_done(struct removal *m)
{
    strlist_done(&m->named);
    strlist_done(&m->matched);
    strlist_done(&m->unknown);
    strlist_done(&m->targets);
    strlist_done(&m->triggers);
    json_decref(m->changes);
}

/* Not again at the next try, nor for what we may have done ourselves. */
static void refuse(struct removal *m, int code, const char *before, const char *name, const char *behind)
{
    if (m->code < code)
        m->code = code;
    if (!m->again)
        complain("%s%s%s", before, name, behind);
}

static void plan_change(struct removal *m, const json_t *unit)
{
    const struct action *action = &actions[m->what];
    const char *name = api_text(unit, "name");
    const bool global = stored_is_global(unit);

    strlist_add(&m->targets, name);
    if (action->desired == NULL) {
        json_array_append_new(m->changes, json_pack("{s:s, s:b}", "name", name, "destroy", 1));
        return;
    }
    if (global || m->ctl->options.no_block)
        strlist_take(&m->triggers,
                     xasprintf("Triggered %sunit %s %s", global ? "global " : "", name, action->verb));
    if (!streq(api_text(unit, "desiredState"), action->desired))
        json_array_append_new(m->changes,
                              json_pack("{s:s, s:s}", "name", name, "desiredState", action->desired));
}

static void plan_unknown(struct removal *m, const char *name)
{
    if (!m->again)
        strlist_add(&m->unknown, name);
    if (m->again && m->what == WAIT_DESTROY && !strlist_has(&m->unknown, name))
        strlist_add(&m->targets, name); /* Our own doing, or as good as. */
    else if (m->code < CTL_EXIT_NO_UNIT)
        m->code = CTL_EXIT_NO_UNIT;
}

/* In one line where there is nothing else to do, in the first fleet's words. */
static void say_unknown(const struct removal *m)
{
    _cleanup_(strbuf_done) struct strbuf names = {0};

    for (size_t i = 0; i < m->unknown.count; i++)
        if (m->unknown.count < m->named.count)
            complain("Unit %s not found", m->unknown.items[i]);
        else
            strbuf_addf(&names, " %s", m->unknown.items[i]);
    if (names.size > 0)
        complain("Units not found in registry:%s", names.text);
}

static int plan_unit(struct removal *m, struct stored *stored, const char *name, struct err *err)
{
    const json_t *unit;
    int r = stored_get(stored, name, &unit, err);

    if (r < 0)
        return r;
    if (unit == NULL)
        plan_unknown(m, name);
    else if (m->what != WAIT_STOP || !streq(api_text(unit, "desiredState"), "inactive"))
        plan_change(m, unit);
    else if (!strlist_has(&m->matched, name)) /* A pattern means what can be stopped. */
        refuse(m, CTL_EXIT_FAILED, "Unable to stop unit ", name, " in state inactive");
    return 0;
}

/* Names and patterns to units, once; the next try is about the same ones. */
static int resolve(struct removal *m, struct stored *stored, const struct strlist *args, struct err *err)
{
    for (size_t i = 0; i < args->count; i++) {
        const bool pattern = stored_is_pattern(args->items[i]);
        const size_t before = m->named.count;
        int r = stored_resolve(stored, args->items[i], &m->named, err);

        if (r < 0)
            return r;
        for (size_t j = before; j < m->named.count && pattern; j++)
            strlist_add(&m->matched, m->named.items[j]);
        if (m->named.count == before && pattern)
            complain("No unit matches %s", args->items[i]); /* As for systemctl, that is no failure. */
    }
    return 0;
}

static int plan(struct removal *m, const struct strlist *args, struct err *err)
{
    _cleanup_(stored_done) struct stored stored = {0};
    int r = stored_init(&stored, m->ctl, m->again ? m->named.count : args->count, err);

    strlist_done(&m->targets);
    strlist_done(&m->triggers);
    json_decref(m->changes);
    m->changes = json_array();
    if (r == 0 && !m->again)
        r = resolve(m, &stored, args, err);
    for (size_t i = 0; i < m->named.count && r == 0; i++)
        r = plan_unit(m, &stored, m->named.items[i], err);
    return r;
}

static int commit(struct removal *m, const struct strlist *args, json_t *generations, struct err *err)
{
    int r;

    for (unsigned try = 1;; try++) {
        *err = (struct err){0};
        m->again = try > 1;
        r = plan(m, args, err);
        if (r < 0)
            return r;
        if (!m->again)
            say_unknown(m);
        r = change_post(m->ctl->api, m->changes, generations, err);
        if (!change_try_again(r, try))
            return r;
    }
}

static void say_summary(const struct removal *m, const struct strlist *done)
{
    _cleanup_(strbuf_done) struct strbuf names = {0};

    if (actions[m->what].past == NULL || done->count == 0)
        return;
    strbuf_add(&names, "");
    for (size_t i = 0; i < done->count; i++)
        strbuf_addf(&names, "%s%s", i > 0 ? " " : "", done->items[i]);
    complain("Successfully %s units [%s].", actions[m->what].past, names.text);
}

static int follow(struct removal *m, const json_t *generations)
{
    struct strlist done = {0};
    int code;

    for (size_t i = 0; i < m->triggers.count; i++)
        printf("%s\n", m->triggers.items[i]);
    fflush(stdout);
    if (m->ctl->options.no_block) {
        for (size_t i = 0; i < m->targets.count && m->what == WAIT_DESTROY; i++)
            printf("Destroyed %s\n", m->targets.items[i]);
        return m->code;
    }
    code = wait_for_units(m->ctl, m->what, &m->targets, generations, &done);
    say_summary(m, &done);
    strlist_done(&done);
    return code != CTL_EXIT_DONE ? code : m->code;
}

static int take_down(struct ctl *ctl, const struct strlist *args, enum wait_for what)
{
    _cleanup_(removal_done) struct removal m = {.ctl = ctl, .what = what};
    _cleanup_(json_decrefp) json_t *generations = json_object();
    struct err err = {0};
    int r = commit(&m, args, generations, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error %s units", actions[what].doing);
    return follow(&m, generations);
}

int verb_stop(struct ctl *ctl, const struct strlist *args)
{
    return take_down(ctl, args, WAIT_STOP);
}

int verb_unload(struct ctl *ctl, const struct strlist *args)
{
    return take_down(ctl, args, WAIT_UNLOAD);
}

int verb_destroy(struct ctl *ctl, const struct strlist *args)
{
    return take_down(ctl, args, WAIT_DESTROY);
}
