/* SPDX-License-Identifier: Apache-2.0 */
/* The first words on a connection: who may speak to whom. Pure. */
#pragma once

#include "base/err.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/port.h"

/* Both return what goes into the frame (free()). 'proof' may be NULL. */
uint8_t *greeting_pack_hello(const struct port_identity *identity, Fleet__Purpose purpose,
                             uint64_t to_server_id, const Fleet__Proof *proof, size_t *ret_size);
/* 'ours': it goes to a member of our cluster. */
uint8_t *greeting_pack_welcome(const struct port_identity *identity, bool ours, bool accepted,
                               const char *reason, const char *leader_address, const Fleet__Proof *proof,
                               size_t *ret_size);

bool greeting_is_of_cluster(const struct port_identity *identity, const Fleet__Hello *hello);

/* Whether these, of a greeting by a member of our cluster, are of a later history than ours, or of another
 * one that is as late. */
bool greeting_shows_later(const struct port_identity *identity, uint64_t recoveries,
                          const ProtobufCBinaryData *id, struct cluster_history *ret);

/* Whether one who says this is to be listened to. -EBADMSG: not one of us, not worth an answer; -EPROTO:
 * another version; -EPERM: another cluster, or someone else is meant. */
int greeting_check_hello(const struct port_identity *identity, const Fleet__Hello *hello, struct err *err);

/* Whether one who says to be this machine has shown its certificate. 'name' NULL: there was none to show. */
int greeting_check_certificate(const struct pki_name *name, const char *machine_id, struct err *err);

/* Whether the one who answers is the one who was meant; 'to_server_id' 0: whoever answers. */
int greeting_check_welcome(const Fleet__Welcome *welcome, uint64_t to_server_id, struct err *err);

/* Whether one of this feature level and version may be heard for this purpose: a replica that does not
 * understand all that the others write must not vote. -EPROTO. */
int greeting_check_level(const struct port_identity *identity, Fleet__Purpose purpose, uint32_t level,
                         const char *version, struct err *err);
