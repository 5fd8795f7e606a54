/* SPDX-License-Identifier: Apache-2.0 */
/* Planned moves: what leaves a machine that is being drained or shut down (shutdown.c), or where it keeps
 * failing (failing.h); where it goes; and the handover of a unit from its old machine to its new one. Part of
 * the core.
 *
 *      runs on A --placed on B, handover--> A runs it, B starts it --active on B--> A stops it
 *                                                |
 *                                                \-- fails on B, or B is lost: A runs it on
 *
 * A unit is started on its new machine before it is stopped on the old one, unless it is not active on the
 * old one, or conflicts with itself (its Conflicts= matches its own name), or has OnDisconnect=stop: then the
 * old one lets go of it first, as in every other move. Units that belong together (MachineOf) leave together
 * or not at all; what fits nowhere else stays, and so does everything on a machine that does not answer,
 * until it does, and what is just being changed, until that is done. */
#pragma once

#include "fleetd/core/core_private.h"

/* Whether the unit is on a machine that is left: it is being drained, or shut down. */
bool core_is_drained(const struct core *core, const struct registry_unit *unit);

/* Whether the unit runs on its machine, which has not said yet that it has done all that is wanted of it. */
bool core_is_being_changed(const struct core *core, const struct registry_unit *unit);

/* Whether the unit keeps failing on its machine, or is placed by MachineOf with one that does. */
bool core_leaves_failing(const struct core *core, const struct registry_unit *unit);

/* Why a unit leaves its machine for that of a change of the plan without it. The caller owns it. */
char *core_leave_reason(const struct core *core, const struct registry_unit *unit,
                        const struct plan_change *change);

/* Where the plan without the draining machines puts a unit that is drained; NULL: it stays. Both borrowed
 * until anything changes. */
const struct plan_change *core_drain_move(const struct core *core, const char *unit);

/* Whether anything is about to leave the machine, or would if it were not just being changed. */
bool core_drain_goes_on(const struct core *core, const char *machine_id);

/* Whether the unit is to be started on its new machine before it is stopped where it is now. */
bool core_may_hand_over(const struct core *core, const struct registry_unit *unit);

/* Whether the host is to keep what it runs of a unit that is placed elsewhere already. */
bool core_hands_over(const struct core *core, const struct host *host, const struct registry_unit *unit);

/* Whether the new machine has it active: the old one is not needed any more. */
bool core_handover_is_through(const struct core *core, const struct registry_unit *unit);
