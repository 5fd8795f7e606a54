/* SPDX-License-Identifier: Apache-2.0 */
/* The certificates that the cluster has issued to clients: who, as what, until when. A part of the registry.
 * What is not here has no say, whoever signed it; so to be forgotten is as good as to be revoked, and those
 * that have expired are forgotten when room is needed or new ones come. Time is what the leader's command
 * says. */
#pragma once

#include "raftstore/registry.h"

#define CLIENT_NAME_BYTES   65u /* As pki/pki.h has them: PKI_ID_SIZE, PKI_SERIAL_SIZE. */
#define CLIENT_SERIAL_BYTES 41u

struct registry_client {
    char serial[CLIENT_SERIAL_BYTES];
    char name[CLIENT_NAME_BYTES];
    uint32_t role; /* enum pki_role */
    uint64_t issued_wall_ms, expires_wall_ms;
    bool revoked;
    uint8_t request_id[REQUEST_ID_SIZE]; /* Of the request that it was issued for... */
    uint8_t *certificate;                /* ...so that it can be answered once more: DER. */
    size_t certificate_size;
    UT_hash_handle hh;
};

/* NULL: there is none. */
const struct registry_client *registry_client(const struct registry *registry, const char *serial);
const struct registry_client *registry_client_of_request(const struct registry *registry,
                                                         const uint8_t request_id[REQUEST_ID_SIZE]);

/* Oldest first: this one, and from there by hh.next. */
const struct registry_client *registry_clients(const struct registry *registry);
