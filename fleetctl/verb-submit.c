/* SPDX-License-Identifier: Apache-2.0 */
/* submit, load, start. All units of one command are one transaction; then it is waited for. */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "fleetctl/change.h"
#include "fleetctl/creation.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

static const struct action {
    const char *verb, *failure;
    enum wait_for wait;
} actions[] = {
    [UNIT_STATE_INACTIVE] = {"submit", "Error creating units", WAIT_START /* Not waited for. */},
    [UNIT_STATE_LOADED] = {"load", "Error loading units", WAIT_LOAD},
    [UNIT_STATE_LAUNCHED] = {"start", "Error starting units", WAIT_START},
};

/* Plans and sends, again where others changed the same units meanwhile. */
static int commit(struct creation *c, json_t *generations)
{
    struct err err = {0};
    int r;

    for (unsigned try = 1;; try++) {
        err = (struct err){0};
        r = creation_plan(c, &err);
        if (r < 0) {
            ctl_fail(&err, r, "Error creating units");
            return r == -ENXIO ? CTL_EXIT_NO_UNIT : CTL_EXIT_FAILED;
        }
        r = change_post(c->ctl->api, c->changes, generations, &err);
        if (!change_try_again(r, try))
            break;
    }
    for (size_t i = 0; i < c->notes.count; i++)
        complain("%s", c->notes.items[i]);
    if (r < 0)
        return ctl_fail(&err, r, "%s", actions[c->desired].failure);
    for (size_t i = 0; i < c->news.count; i++)
        printf("%s\n", c->news.items[i]);
    return CTL_EXIT_DONE;
}

static void say_submitted(const struct creation *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->items[i].created)
            printf("Unit %s inactive\n", c->items[i].name);
}

static int follow(struct creation *c, const json_t *generations)
{
    const struct action *action = &actions[c->desired];
    struct strlist names = {0};
    int code;

    for (size_t i = 0; i < c->count; i++) {
        const struct creation_item *item = &c->items[i];

        if (c->ctl->options.no_block || item->global)
            printf("Triggered %sunit %s %s\n", item->global ? "global " : "", item->name, action->verb);
        strlist_add(&names, item->name);
    }
    fflush(stdout);
    code = c->ctl->options.no_block ? CTL_EXIT_DONE
                                    : wait_for_units(c->ctl, action->wait, &names, generations, NULL);
    strlist_done(&names);
    return code;
}

static int create(struct ctl *ctl, const struct strlist *args, enum unit_state desired)
{
    _cleanup_(creation_done) struct creation c = {.ctl = ctl, .desired = desired};
    _cleanup_(json_decrefp) json_t *generations = json_object();
    int code;

    if (creation_read(&c, args) < 0)
        return CTL_EXIT_FAILED;
    code = commit(&c, generations);
    if (code != CTL_EXIT_DONE)
        return code;
    if (desired != UNIT_STATE_INACTIVE)
        return follow(&c, generations);
    say_submitted(&c);
    return CTL_EXIT_DONE;
}

int verb_submit(struct ctl *ctl, const struct strlist *args)
{
    return create(ctl, args, UNIT_STATE_INACTIVE);
}

int verb_load(struct ctl *ctl, const struct strlist *args)
{
    return create(ctl, args, UNIT_STATE_LOADED);
}

int verb_start(struct ctl *ctl, const struct strlist *args)
{
    return create(ctl, args, UNIT_STATE_LAUNCHED);
}
