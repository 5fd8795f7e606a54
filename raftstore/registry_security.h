/* SPDX-License-Identifier: Apache-2.0 */
/* Who may become a member, as the cluster has agreed: the authority that signs certificates, join tokens, and
 * the machines that were removed. A part of the registry, and as deterministic: it knows no cryptography but
 * SHA-256; whether a certificate holds, or a secret is right, the leader finds out before it proposes
 * anything.
 *
 * The authority is rotated in steps, so that at each moment every host trusts whoever has signed the
 * certificate of any other one:
 *
 *      STEADY --BEGIN--> SPREADING (the next is trusted, too) --ISSUE--> REISSUING (the old one still is)
 * --FINISH--> STEADY
 *                            '--CANCEL--> STEADY
 *
 * A token is valid until it expires, is used up or is revoked. Then it is still known for a while, so that
 * whoever comes with it hears why it does not work. Time is what the leader's command says. */
#pragma once

#include "raftstore/registry.h"

#define JOIN_TOKEN_KEPT_MS (7ull * 24 * 3600 * 1000) /* After it has expired. */

struct registry_authority {
    uint8_t *certificate, *private_key, *cross; /* DER; NULL: none. See message Authority. */
    size_t certificate_size, private_key_size, cross_size;
    uint8_t fingerprint[FINGERPRINT_SIZE];
};

enum registry_rotation { ROTATION_STEADY, ROTATION_SPREADING, ROTATION_REISSUING };

struct registry_authorities {
    struct registry_authority issuing; /* No certificate: the cluster is insecure. */
    struct registry_authority next;    /* SPREADING */
    struct registry_authority old;     /* The one before, if there was one; without its private key. */
    bool old_trusted;                  /* REISSUING */
    uint64_t since_wall_ms;            /* Of the last step of a rotation; 0: there was none. */
};

struct registry_join_token {
    char id[JOIN_TOKEN_ID_BYTES];
    uint8_t digest[FINGERPRINT_SIZE]; /* SHA-256 of the secret. */
    uint64_t made_wall_ms, expires_wall_ms;
    unsigned uses, used; /* uses 0: any number. */
    bool revoked;
    uint8_t authority[FINGERPRINT_SIZE]; /* Whose pin is in the token. */
    UT_hash_handle hh;
};

struct registry_removed {
    char machine_id[MACHINE_ID_SIZE];
    char *hostname;
    char *boot_id; /* Of the boot that called last, "" unknown. */
    uint64_t server_id;
    uint64_t wall_ms;
    UT_hash_handle hh;
};

const struct registry_authorities *registry_authorities(const struct registry *registry);
enum registry_rotation registry_rotation(const struct registry_authorities *authorities);
bool registry_is_secure(const struct registry *registry); /* It has an authority. */

/* Whose pin goes into tokens that are made now: one that every member can prove to be certified by. */
const struct registry_authority *registry_pinned_authority(const struct registry *registry);

/* Whether it is known with which key the machine has joined. */
bool registry_has_key(const struct registry_machine *machine);

/* Whether a host with this key (SHA-256 of it) may be the machine: no other key is known for its server id.
 * NULL: the machine is not known. */
bool registry_key_fits(const struct registry_machine *machine, uint64_t server_id, const uint8_t *key,
                       size_t size);

/* Whether the machine trusts this authority, by its own account. */
bool registry_machine_trusts(const struct registry_machine *machine,
                             const uint8_t fingerprint[FINGERPRINT_SIZE]);

const struct registry_join_token *registry_join_token(const struct registry *registry, const char *id);
/* Oldest first: this one, and from there by hh.next. NULL: there is none. */
const struct registry_join_token *registry_join_tokens(const struct registry *registry);

/* Whether the token lets this machine in at that time: 0, or -EACCES with why not. A machine that it has let
 * in before is not counted again, as long as it is the same server: its answer may have been lost. */
int registry_check_join_token(const struct registry *registry, const char *id, const char *machine_id,
                              uint64_t server_id, uint64_t wall_ms, struct err *err);

/* The machine was removed, and has not joined anew since; NULL: it was not. */
const struct registry_removed *registry_removed(const struct registry *registry, const char *machine_id);
/* Likewise, by the server that it was. */
const struct registry_removed *registry_removed_server(const struct registry *registry, uint64_t server_id);
