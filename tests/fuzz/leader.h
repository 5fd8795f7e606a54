/* SPDX-License-Identifier: Apache-2.0 */
/* A leader of a secure cluster of two machines, A and B (this host), with a unit and a join token: the real
 * leading.c, admission.c, certifier.c, downlink.c, gate.c, the core, the API and the registry, without Raft,
 * a network or anything else that takes time. What it proposes is applied, in order, by fuzz_leader_settle().
 */
#pragma once

#include "fleetd/daemon_private.h"

#define FUZZ_MACHINE_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define FUZZ_MACHINE_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define FUZZ_SERVER_A  0xa1ull
#define FUZZ_SERVER_B  0xb2ull

struct fuzz_leader {
    struct daemon daemon;
    struct registry *registry;
    struct join_token token; /* Lets in. */
    struct pki_info info_a;  /* Of A's certificate. */
};

/* There is one at a time. */
struct fuzz_leader *fuzz_leader_begin(void);
void fuzz_leader_settle(void);
void fuzz_leader_end(void); /* Its connections have ended. */

/* A's request for a certificate, by the key that is known of it; borrowed. */
struct pki_blob fuzz_leader_request(void);
