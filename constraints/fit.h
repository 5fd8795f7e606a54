/* SPDX-License-Identifier: Apache-2.0 */
/* What speaks against a unit on a machine, as far as it does not depend on what else is placed; and the words
 * for it. Internal to constraints/. */
#pragma once

#include "base/str.h"
#include "constraints/cluster.h"

enum fit {
    FIT_YES,
    FIT_LOST,
    FIT_LEFT, /* As if it were lost: it is being drained, or the like. */
    FIT_NOT_AVAILABLE,
    FIT_MACHINE_ID,
    FIT_METADATA,
    FIT_MACHINE_OF,
    FIT_CONFLICTS,
    FIT_REPLACES,
    FIT_COUNT,
};

/* For a summary: "MachineMetadata". Static. */
const char *fit_to_string(enum fit fit);

/* FIT_YES, FIT_MACHINE_ID or FIT_METADATA. 'placed': the unit is there already, so a machine that joins with
 * an id that begins alike does not take its place away. 'why', if not NULL, gets the words. */
enum fit fit_machine(const struct cluster *c, const struct requirements *r, uint32_t machine, bool placed,
                     struct strbuf *why);

/* Whether two units must not be together, by the patterns of either. */
bool fit_conflict(const struct plan_unit *a, const struct plan_unit *b);

/* Whether 'a' replaces 'b', and not 'b' also 'a'. Longer circles are not seen here. */
bool fit_replaces(const struct plan_unit *a, const struct plan_unit *b);

/* A machine as people see it: "2444264c..." */
char *fit_machine_name(const char *id);
