/* SPDX-License-Identifier: Apache-2.0 */
/* What the leader does with the cluster's authority, whose private key is in the registry: signs
 * certificates, says what stands behind them, makes the next authority, and makes join tokens. Nothing of it
 * is kept here. */
#pragma once

#include "pki/pki.h"
#include "raftstore/registry_security.h"

#define AUTHORITY_LIFETIME_MS (10ull * 365 * 24 * 3600 * 1000)

/* A new authority for a cluster; 'ret' is a self-signed certificate. */
int authority_found(const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t now_ms, struct pki_key **ret_key,
                    struct pki_blob *ret, struct err *err);

/* Signs a certificate for 'machine', as it describes itself, from its request (PKCS#10). -EINVAL and others,
 * with a text. 'now_ms': wall clock. */
int authority_certify(const struct registry *registry, const Fleet__RegisterMachine *machine,
                      const ProtobufCBinaryData *request, uint64_t now_ms, struct pki_blob *ret,
                      struct err *err);

/* The names and addresses that clients of the remote API may know a machine by; borrowed from the machine
 * and, the last one, owned. */
#define AUTHORITY_HOSTS_MAX 3u
struct authority_hosts {
    const char *names[AUTHORITY_HOSTS_MAX];
    size_t count;
    char *address;
};

void authority_hosts(const Fleet__RegisterMachine *machine, struct authority_hosts *ret);
void authority_hosts_done(struct authority_hosts *hosts);

/* What a machine gets beside its certificate; borrowed from the registry until its next command. */
struct authority_bundle {
    ProtobufCBinaryData chain[PKI_CHAIN_MAX]; /* The first place is for the machine's own. */
    ProtobufCBinaryData roots[PKI_ROOTS_MAX]; /* The newest last. */
    size_t chain_count, root_count;
};

void authority_bundle(const struct registry *registry, struct authority_bundle *ret);

/* The authority that is to follow the present one, certified by both. The caller wipes and frees what 'ret'
 * points to with authority_next_done(). */
int authority_next(const struct registry *registry, uint64_t now_ms, Fleet__Authority *ret, struct err *err);
void authority_next_done(Fleet__Authority *authority);

/* The token that this request makes: the same again if it is repeated, also by another leader, as long as the
 * authority is the same; and nobody can tell it without the authority's key. */
void authority_make_token(const struct registry *registry, const uint8_t request_id[REQUEST_ID_SIZE],
                          struct join_token *ret);
