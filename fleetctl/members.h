/* SPDX-License-Identifier: Apache-2.0 */
/* What other verbs need of the members. */
#pragma once

#include <stdint.h>

#include "fleetctl/ctl.h"

/* The machine is to have no part in the consensus any more, since it leaves the cluster; and waits until that
 * is so. With 'leaves' false that is taken back, and not waited for. Returns an enum ctl_exit. */
int members_retire(struct ctl *ctl, const char *machine_id, bool leaves, uint64_t wait_ms);
