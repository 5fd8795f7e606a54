/* SPDX-License-Identifier: Apache-2.0 */
/* Who may be at the other end of a connection, by what this host knows of the cluster: of one that has shown
 * a certificate, and while the connection goes on. This host may be far behind, and not know a machine that
 * has joined since, or joined anew; so only what can never be true (again) speaks against somebody. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "raftstore/registry_security.h"

/* Whether it is a member by its own key: the registry has this machine as this server, and this key of it.
 * Who has only an authority's key can sign any certificate, but for no member's key. */
bool peers_is_member(const struct registry *registry, const char *machine_id, uint64_t server_id,
                     const uint8_t key[FINGERPRINT_SIZE]);

/* Whether this machine may speak in consensus as this server. A server id is one machine's for ever, also of
 * one that was removed. 'is_out': it was removed, and has left the consensus. 'leader_id': the server that
 * this host follows, or itself where it leads; 0: nobody. A removed machine that says that it is another
 * server may have joined anew, and be the only one that could tell this host so; but not while this host
 * hears of the cluster from somebody else. -EACCES with a text. */
int peers_check_server(const struct registry *registry, const char *machine_id, uint64_t server_id,
                       bool is_out, uint64_t leader_id, struct err *err);
