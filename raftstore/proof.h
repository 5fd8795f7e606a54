/* SPDX-License-Identifier: Apache-2.0 */
/* Who may lead. A machine's certificate says who somebody is, not what it may do; and whoever is believed to
 * be the leader tells hosts what to run. What those who keep the data have, and nobody else, is the private
 * key of the cluster's authority, which is a part of the data. So one proves by it that it is one of them: it
 * signs a number that only the two ends of this very TLS session know, and on which end it is. Such a proof
 * is of no use on another connection or to another host, needs no clock and no list of who may, and cannot be
 * outdated. */
#pragma once

#include "base/err.h"
#include "pki/pki.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/tls_credentials.h"
#include "raftstore/tls_stream.h"

#define PROOF_TEXT_SIZE       64u
#define PROOF_AUTHORITIES_MAX 3u

/* What is signed. */
int proof_text(const struct tls_stream *tls, bool by_dialler, uint8_t ret[PROOF_TEXT_SIZE]);

/* Whether the other end has proved it, to one who trusts the roots of 'credentials'; if they have none
 * ('pinned'), the authority in the proof whose fingerprint begins with 'pin'. 'ret' is of the one whose
 * key it was. -EKEYREJECTED, -EKEYEXPIRED. */
int proof_check(const Fleet__Proof *proof, const struct tls_stream *tls, bool by_dialler,
                const struct tls_credentials *credentials, const uint8_t *pin, uint64_t now_ms,
                struct pki_info *ret, struct err *err);
