/* SPDX-License-Identifier: Apache-2.0 */
/* What a person runs by hand while fleetd is stopped (docs/RECOVERY.md): --recover-quorum, when a majority of
 * the voters is gone for good, and --restore, from a backup. Both make the data of one host the beginning of
 * a new history, with this host as the only voter; both print to stdout what they find and do. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "fleetd/config.h"

struct recovery {
    bool only_show; /* Print what there is, and change nothing. */
    bool confirmed; /* Do not ask. */
};

int recovery_of_quorum(const struct config *config, const struct recovery *how, struct err *err);
int recovery_from_backup(const struct config *config, const char *path, const struct recovery *how,
                         struct err *err);
