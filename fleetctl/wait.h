/* SPDX-License-Identifier: Apache-2.0 */
/* Waits until units are as a command wants them, by POST /wait, and says for each what became of it as soon
 * as that is known: good news on stdout, bad news with its reason on stderr. After three seconds it says what
 * it is still waiting for, and why. It ends at its deadline or with Ctrl-C; the work itself goes on. */
#pragma once

#include <jansson.h>

#include "base/str.h"
#include "fleetctl/ctl.h"

#define WAIT_DEFAULT_MS (10 * 60 * 1000) /* Well above systemd's own time-out for starting (90 s). */
#define WAIT_UNITS_MAX  1000             /* Of one request. */

enum wait_for {
    WAIT_START,
    WAIT_LOAD,
    WAIT_STOP,
    WAIT_UNLOAD,
    WAIT_DESTROY,
    WAIT_RESTART,
    WAIT_ELSEWHERE, /* wait_until_elsewhere()'s own. */
};

/* 'generations': name -> the generation that the change was given. Units that arrived are appended to 'done'
 * (NULL: not wanted). Returns an enum ctl_exit: done only if all arrived. */
int wait_for_units(struct ctl *ctl, enum wait_for what, const struct strlist *names,
                   const json_t *generations, struct strlist *done);

/* Waits until each of the units has settled on another machine than those with the ids 'away', or is to stay:
 * that is said with the reason, and CTL_EXIT_FAILED. */
int wait_until_elsewhere(struct ctl *ctl, const struct strlist *names, const json_t *away);
