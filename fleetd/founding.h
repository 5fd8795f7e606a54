/* SPDX-License-Identifier: Apache-2.0 */
/* What a host makes when it begins a cluster, besides the data: the cluster's authority, and a certificate of
 * it for itself. Files only: no daemon is needed. */
#pragma once

#include "fleetd/credentials.h"
#include "raftstore/fleet.pb-c.h"

/* The authority of this new cluster. 'machine' is who this host is, and how others call it. The host's own
 * certificate, for 'lifetime_ms', is then in 'credentials', and on the disk. The key is the caller's to keep:
 * nobody else has it. */
int founding_certify(struct credentials *credentials, const uint8_t cluster_id[PKI_CLUSTER_ID_SIZE],
                     const Fleet__RegisterMachine *machine, uint64_t now_ms, uint64_t lifetime_ms,
                     struct pki_key **ret_key, struct err *err);
