/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: what the cluster has agreed on, as a deterministic state machine. It holds the units (name,
 * content, desired state, where they are placed and why), the contents by hash, the machines with their
 * metadata, the cluster's settings, the requests that were answered lately, where units were that have been
 * destroyed lately, and who may become a member (registry_security.h). Commands change it, one at a time,
 * wholly or not at all; a snapshot is all of it. It reads no clock, no random number and no file: the same
 * commands give the same registry on every host.
 *
 * Not in it: who is alive, and what systemd reports. That a machine was given up is in it: that is a
 * decision, and the next leader must know that it was made.
 *
 * Invariants (asserted):
 *  - a unit's content exists; a content is kept exactly as long as a unit has it;
 *  - an inactive unit and a global unit have no target; a template is inactive;
 *  - a unit that is being handed over has a target and a former machine;
 *  - generation grows with every change of a unit's content, desired state or target, and is never used
 * twice;
 *  - token grows with every placement;
 *  - a unit's target is not among its former machines, and none of these is named twice;
 *  - only a launched unit has a restart. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"
#include "raftstore/fleet.pb-c.h"
#include "raftstore/history.h"
#include "raftstore/limits.h"
#include "raftstore/registry_level.h"
#include "raftstore/servers.h"
#include "raftstore/settings.h"
#include "units/file.h"
#include "units/requirements.h"
#include "units/state.h"

#define COMMAND_FORMAT      1u
#define SNAPSHOT_FORMAT     2u /* 1 where the cluster has feature level 0: what older versions can read. */
#define CLUSTER_ID_SIZE     16
#define REQUEST_ID_SIZE     16
#define MACHINE_ID_SIZE     33 /* 32 hex digits and a NUL. */
#define FINGERPRINT_SIZE    32 /* SHA-256 of a certificate. */
#define JOIN_TOKEN_ID_BYTES 17 /* 16 hex digits and a NUL. */

/* A unit's text, shared by the units that have the same. Immutable. */
struct registry_content {
    char hash[UNIT_HASH_SIZE];
    const char *text; /* Serialised unit file, NUL-terminated; points into 'record'. */
    size_t text_size;
    unsigned references;
    bool detached;   /* The registry has been replaced; only a snapshot in progress still holds it. */
    uint8_t *record; /* The content as it stands in a snapshot, with its length before it. */
    size_t record_size;
    UT_hash_handle hh;
};

struct registry_unit {
    char *name;
    const struct registry_content *content;
    struct requirements *requirements;
    enum unit_state desired;
    char target[MACHINE_ID_SIZE]; /* "": nowhere. */
    struct strlist former;        /* Where it was before, and may still be: a machine must let go of it before
                                     another one gets it. The leader knows which ones have; a new leader waits
                                     for them to call. One that is lost may still run it. */
    bool anywhere;                /* It was global before: so each machine is one of the former ones. */
    bool handover;    /* A planned move: former machines keep what they run until it is active at its
                         target. Ends when they have let go. */
    uint64_t stop_ms; /* The longest that a copy which may still run may take to stop when its lease ends: the
                         content may have changed since it was started. 0: none has OnDisconnect=stop. */
    bool leased;      /* Every copy that may still run, if any, is under a lease: all that was ever given to a
                         machine that may have it had OnDisconnect=stop. False when nobody knows, as after a
                         snapshot of a version that did not note it. */
    uint64_t leased_since; /* Whoever has carried out this generation or a later one runs it under a lease; 0:
                              the content has OnDisconnect=keep, or nobody knows. */
    uint64_t generation, token;
    uint64_t restart; /* The generation of the last restart that was asked for, 0: none. Whatever was started
                         for an older one is restarted. */
    char *reason;     /* Why it is where it is; never NULL. */
    uint64_t placed_wall_ms;
    UT_hash_handle hh;
};

struct registry_label {
    char *key, *value;
};

enum machine_availability {
    MACHINE_ACTIVE,
    MACHINE_CORDONED, /* Gets no new units; what is there stays. */
    MACHINE_DRAINING, /* Gets no new units, and what fits elsewhere leaves. */
};

struct registry_machine {
    char id[MACHINE_ID_SIZE];
    bool registered; /* Otherwise only metadata was set for it: it is not listed. */
    char *hostname, *public_ip, *cluster_address, *version; /* Never NULL. */
    char *boot_id; /* Of the boot that called last, "" unknown: tells a host from one with a copy of its disk.
                    */
    uint64_t server_id;
    bool disable_engine;
    unsigned level; /* Its feature level. */
    bool no_store;  /* It has no room for a copy of the data. */
    enum vote_wish vote;
    bool leaving; /* It is about to be removed: it is to have no part in consensus. */
    uint64_t joined_wall_ms;
    bool lost; /* It was given up, and has not called since. Not "it does not answer": that nobody stores. */
    uint64_t lost_wall_ms;
    bool lost_confirmed; /* A person has said so: nothing runs there any more. Until it has called. */
    enum machine_availability availability;
    bool daemon_stopped; /* Its fleetd was stopped on purpose, and has not called since; its units run on. */
    bool awaited; /* It was a machine of the cluster that this one was restored from, and has not joined this
                     one yet. It may run what it ran there. */
    struct registry_label *labels; /* What holds now: static ones, overridden by changed ones; by key. */
    size_t label_count;
    struct registry_label *fixed; /* From its configuration, by key. */
    size_t fixed_count;
    struct registry_label *changed; /* By the API, by key; a NULL value hides a static key. */
    size_t changed_count;
    char join_token[JOIN_TOKEN_ID_BYTES]; /* The id of what let it in; "": it needed none, or before there
                                             were any. */
    uint8_t roots[ROOTS_MAX][FINGERPRINT_SIZE]; /* The authorities that it trusts, by its own account. */
    size_t root_count;
    /* SHA-256 of the key that signed its certificate; zeroes: none. */
    uint8_t certified_by[FINGERPRINT_SIZE];
    /* SHA-256 of its own key, for as long as it has this server id; zeroes: unknown. */
    uint8_t key[FINGERPRINT_SIZE];
    UT_hash_handle hh;
};

/* A setting of the cluster that somebody has set. */
struct registry_setting {
    char *name, *value; /* As settings_format() writes it, if a version that knows it has set it. */
};

/* What a command came to. 'status' 0: done; a negative errno: refused, nothing was changed. */
struct registry_result {
    int status;
    uint64_t version; /* Of the registry after it. */
    char *text;       /* Why it was refused; "" otherwise. */
};

/* What has changed since the last registry_changes_take(). */
struct registry_changes {
    struct strlist units; /* Names; changed, created or destroyed; may repeat. */
    bool machines;
    bool settings;   /* Of the cluster. */
    bool everything; /* A snapshot was restored. */
};

struct registry;

struct registry *registry_new(void);
void registry_free(struct registry *registry);

/* Applies an encoded command. The result is borrowed: valid until the next command. Never fails: bytes that
 * make no sense are refused alike on every host. */
const struct registry_result *registry_apply(struct registry *registry, const void *bytes, size_t size);

/* Encodes a command for the log: a length before it, zeroes after it up to a multiple of 8 (libraft 0.15
 * loses entries of other lengths). -EMSGSIZE over COMMAND_MAX. The caller frees *ret. */
int command_encode(const Fleet__Command *command, uint8_t **ret, size_t *ret_size);

/* When the leader took an encoded command, by its wall clock: for people; 0: unknown. */
uint64_t command_wall_ms(const void *bytes, size_t size);

const uint8_t *
registry_cluster_id(const struct registry *registry); /* CLUSTER_ID_SIZE bytes, zero if there is none. */
const struct cluster_history *registry_history(const struct registry *registry);
uint64_t registry_version(const struct registry *registry);

unsigned registry_level(const struct registry *registry); /* The cluster's feature level. */
/* A command was applied that this version does not know, or not wholly: from now on this registry is not what
 * the others' is, and must not be used. Never in a cluster whose hosts have its level. */
bool registry_is_behind(const struct registry *registry);

/* What a setting is now: a number, or a duration in milliseconds; of any type, its one form. The caller owns
 * the text. */
uint64_t registry_setting_number(const struct registry *registry, enum setting_id id);
char *registry_setting_text(const struct registry *registry, enum setting_id id);
/* What was set, also by a version that knows more settings than this one; NULL: it has its default. And all
 * of that, by name. Borrowed until the next command. */
const char *registry_setting(const struct registry *registry, const char *name);
const struct registry_setting *registry_settings(const struct registry *registry, size_t *ret_count);

uint64_t registry_lease_ms(const struct registry *registry); /* No longer lease was ever granted that may
                                                                still hold; 0: none at all. */

const struct registry_unit *registry_unit(const struct registry *registry, const char *name);
const struct registry_machine *registry_machine(const struct registry *registry,
                                                const char *id); /* Registered or not. */

/* Whether the machine may ever have been given a unit of this name and not have said that it is gone: one
 * that there is, or one that was destroyed, as far as that is remembered. */
bool registry_may_have_had(const struct registry *registry, const char *unit, const char *machine_id);

size_t registry_unit_count(const struct registry *registry);
size_t registry_machine_count(const struct registry *registry); /* Registered or not. */

/* In name order, and by id: only registered ones. Arrays valid until the next command. */
const struct registry_unit *const *registry_units(const struct registry *registry, size_t *ret_count);
const struct registry_machine *const *registry_machines(const struct registry *registry, size_t *ret_count);

/* What a remembered request came to, or NULL. Borrowed until the next command. */
const struct registry_result *registry_request(const struct registry *registry, const void *request_id);

void registry_changes_take(struct registry *registry,
                           struct registry_changes *ret); /* The caller ends it with... */
void registry_changes_done(struct registry_changes *changes);

/* A snapshot as a list of pieces that stay as they are while the registry goes on. */
struct registry_piece {
    const void *base;
    size_t size;
};
struct registry_snapshot {
    struct registry_piece *pieces;
    size_t count, capacity;
    uint8_t *head, *tail;               /* Pieces made for this snapshot; the ones between are contents... */
    struct registry_content **contents; /* ...held by a reference each. */
    size_t content_count;
};
struct registry_snapshot *registry_snapshot_new(struct registry *registry);
void registry_snapshot_free(struct registry *registry, struct registry_snapshot *snapshot);

/* Replaces everything by what a snapshot holds. -EBADMSG with a text: it is damaged; -EPROTONOSUPPORT: a
 * later version wrote it, in a format that is not known here. Nothing was changed then. */
int registry_restore(struct registry *registry, const void *bytes, size_t size, struct err *err);

/* ---- registry_renew.c: data that begin a new history ---- */

/* By so much 'version' leaps: more than whatever may be missing can have used up, so no generation and no
 * token is ever given twice. */
#define REGISTRY_VERSION_LEAP (UINT64_C(1) << 32)

struct registry_renewal {
    struct cluster_history history; /* What begins. */
    const char *machine_id; /* The host that it begins on, and its new id as a server: as the only one. */
    uint64_t server_id;
    const uint8_t *cluster_id; /* Of a new cluster, for which these data were restored from a backup; NULL: it
                                  is the same cluster as ever. */
    const Fleet__Authority *authority; /* Of the new cluster; NULL: it is insecure. */
};

/* Makes what the registry holds the beginning of a new history. Units, contents, desired states, places,
 * tokens, settings and what is known of machines stay. In a new cluster the machines of the old one are
 * awaited; nobody there is a member before it has joined, and nobody's requests are remembered. What the old
 * cluster's authority has signed, and its join tokens, mean nothing in the new one. */
void registry_renew(struct registry *registry, const struct registry_renewal *renewal);

/* As registry_snapshot_new(), without what is of no use in another cluster: the requests, and whatever gives
 * power over this one. */
struct registry_snapshot *registry_snapshot_for_backup(struct registry *registry);

/* Bytes of all pieces together. */
uint64_t registry_snapshot_size(const struct registry_snapshot *snapshot);
