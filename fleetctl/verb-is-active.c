/* SPDX-License-Identifier: Apache-2.0 */
/* is-active, is-failed: for scripts. A word per unit on stdout, and an exit status as systemctl(1) has it. */
#include <config.h>

#include <stdio.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"

struct question {
    struct ctl *ctl;
    struct stored stored;
    struct strlist names;
    json_t *states; /* Name -> the gravest of its states. */
};

static void question_done(struct question *q)
{
    stored_done(&q->stored);
    strlist_done(&q->names);
    json_decref(q->states);
}

/* How grave a state is: of a unit on several machines, the gravest is what it is. */
static int gravity(const char *state)
{
    static const char *const order[] = {"active",       "reloading", "activating",
                                        "deactivating", "inactive",  "failed"};

    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        if (streq(order[i], state))
            return (int)i;
    return ARRAY_SIZE(order);
}

/* Asks for what machines report: of one unit, or, with NULL, of all. */
static int read_states(struct question *q, const char *name, struct err *err)
{
    _cleanup_(freep) char *escaped = name != NULL ? api_escape(name) : NULL;
    _cleanup_(freep) char *path = name != NULL ? xasprintf("state?unitName=%s", escaped) : xstrdup("state");
    _cleanup_(json_decrefp) json_t *list = NULL;
    const json_t *state;
    size_t i;
    int r = ctl_read_all(q->ctl, path, "states", true, &list, err);

    if (r < 0)
        return r;
    json_array_foreach(list, i, state)
    {
        const char *unit = api_text(state, "name"), *word = api_text(state, "systemdActiveState");
        const json_t *old = json_object_get(q->states, unit);

        if (word[0] != '\0' && (old == NULL || gravity(word) > gravity(json_string_value(old))))
            json_object_set(q->states, unit, json_object_get(state, "systemdActiveState"));
    }
    return 0;
}

static int ask(struct question *q, const struct strlist *args, struct err *err)
{
    int r = stored_init(&q->stored, q->ctl, args->count, err);

    q->states = json_object();
    for (size_t i = 0; i < args->count && r == 0; i++)
        r = stored_resolve(&q->stored, args->items[i], &q->names, err);
    if (r == 0 && q->names.count > STORED_SINGLE_MAX)
        return read_states(q, NULL, err);
    for (size_t i = 0; i < q->names.count && r == 0; i++)
        r = read_states(q, q->names.items[i], err);
    return r;
}

static bool is_active(const char *state)
{
    return streq(state, "active") || streq(state, "reloading");
}

static bool is_failed(const char *state)
{
    return streq(state, "failed");
}

/* Done if one unit is so; otherwise 'no', or 4 if none of them exists. */
static int check(struct ctl *ctl, const struct strlist *args, bool (*is_so)(const char *), int no)
{
    _cleanup_(question_done) struct question q = {.ctl = ctl};
    bool yes = false, exists = false;
    struct err err = {0};
    int r = ask(&q, args, &err);

    for (size_t i = 0; i < q.names.count && r == 0; i++) {
        const char *name = q.names.items[i], *state = api_text(q.states, name);
        const json_t *unit;

        r = stored_get(&q.stored, name, &unit, &err);
        if (r < 0)
            break;
        if (unit == NULL || state[0] == '\0')
            state = "inactive"; /* No machine has it. */
        exists |= unit != NULL;
        yes |= unit != NULL && is_so(state);
        if (!ctl->options.quiet)
            printf("%s\n", state);
    }
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving list of units from repository");
    return yes ? CTL_EXIT_DONE : exists ? no : CTL_EXIT_NO_UNIT;
}

int verb_is_active(struct ctl *ctl, const struct strlist *args)
{
    return check(ctl, args, is_active, CTL_EXIT_NOT_ACTIVE);
}

int verb_is_failed(struct ctl *ctl, const struct strlist *args)
{
    return check(ctl, args, is_failed, CTL_EXIT_FAILED);
}
