/* SPDX-License-Identifier: Apache-2.0 */
/* How a secure cluster begins: on one host, with an authority of its own and the first certificate by it. */
#pragma once

#include "fleetd/credentials.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/registry.h"

struct founding {
    const uint8_t *cluster_id;
    const char *machine_id;
    uint64_t lifetime_ms; /* Of the certificate. */
    uint64_t now_ms;      /* Wall clock. */
    bool keeps_key;       /* The authority's key stays in a file beside them, until the registry has it. */
};

/* Makes the authority, and this host's certificate by it, which the credentials take up, also on the disk.
 * '*ret' is for the registry: the caller frees it with founding_done(). */
int founding_begin(struct credentials *credentials, const struct founding *founding, Fleet__Authority *ret,
                   struct err *err);
void founding_done(Fleet__Authority *authority); /* Wipes it. */
