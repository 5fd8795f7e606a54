/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses a data directory: one process at a time, fleetd or one that repairs what a stopped fleetd has
 * left. */
#pragma once

#include "base/err.h"

/* Takes the directory for the rest of this process's life, and makes it if it is missing. -EBUSY, with a
 * text: somebody has it. */
int data_lock(const char *data_dir, struct err *err);
