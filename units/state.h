/* SPDX-License-Identifier: Apache-2.0 */
/* The words for what a user wants of a unit, and for what fleet has made of it (fleet-behaviour.md §3.2,
 * §3.8).
 *
 *   inactive   nobody's: stored, on no machine
 *   loaded     placed on a machine, its file known to systemd there, not started
 *   launched   placed, and systemd was asked to start it
 */
#pragma once

#include "base/err.h"

enum unit_state {
    UNIT_STATE_INACTIVE,
    UNIT_STATE_LOADED,
    UNIT_STATE_LAUNCHED,
    UNIT_STATE_COUNT,
};

/* "inactive", "loaded" or "launched": static. */
const char *unit_state_to_string(enum unit_state state);

/* -EINVAL, with the three allowed words in the text, for anything else. */
int unit_state_from_string(const char *text, enum unit_state *ret, struct err *err);
