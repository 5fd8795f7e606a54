/* SPDX-License-Identifier: Apache-2.0 */
/* What the registry's sources share: commands (registry.c, registry_security.c, registry_clients.c), the
 * cluster's settings (registry_settings.c) and snapshots (registry_snapshot.c). */
#pragma once

#include <arpa/inet.h>
#include <string.h>

#include "raftstore/registry.h"
#include "raftstore/registry_clients.h"
#include "raftstore/registry_security.h"

struct request {
    uint8_t id[REQUEST_ID_SIZE];
    struct registry_result result;
    UT_hash_handle hh;
};

/* Where a destroyed unit was, and may still be: one of that name that is made later must not begin to run
 * elsewhere before. */
struct departed {
    char *name;
    struct strlist machines;
    bool anywhere; /* This and the next three: as of struct registry_unit. */
    uint64_t stop_ms;
    bool leased;
    uint64_t leased_since;
    UT_hash_handle hh;
};

struct registry {
    uint8_t cluster_id[CLUSTER_ID_SIZE];
    struct cluster_history history;
    uint64_t version;
    unsigned level;
    bool behind;
    struct registry_setting *settings; /* By name. */
    size_t setting_count, setting_capacity;
    uint64_t setting_numbers[SETTING_COUNT]; /* What they are, set or not. */
    uint64_t lease_ms;
    struct registry_content *contents;
    struct registry_unit *units;
    struct registry_machine *machines;
    struct request *requests;  /* Oldest first: uthash keeps the order of insertion. */
    struct departed *departed; /* Oldest first. */
    struct registry_authorities authorities;
    struct registry_join_token *join_tokens; /* Oldest first. */
    struct registry_removed *removed;        /* Oldest first. */
    struct registry_client *clients;         /* Oldest first. */
    struct registry_result last;
    struct registry_changes changes;
    const struct registry_unit **sorted_units; /* NULL: to be made when asked for. */
    const struct registry_machine **sorted_machines;
    size_t sorted_machine_count;
};

static inline void put_be32(uint8_t *to, size_t value)
{
    uint32_t be = htonl((uint32_t)value);

    memcpy(to, &be, sizeof be);
}

static inline size_t get_be32(const uint8_t *from)
{
    uint32_t be;

    memcpy(&be, from, sizeof be);
    return ntohl(be);
}

/* Says why a command is refused, and returns 'status'; nothing has been changed. */
int registry_refuse(struct registry *registry, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum unit_state registry_state_of(Fleet__DesiredState desired);
Fleet__DesiredState registry_desired_of(enum unit_state state);
enum machine_availability registry_availability_of(Fleet__Availability availability);
enum vote_wish registry_vote_of(Fleet__VoteWish vote);

/* One snapshot record with its length before it. The caller frees it. */
uint8_t *registry_pack_record(const Fleet__SnapshotRecord *record, size_t *ret_size);

/* A reference to the content with this text, made if there is none yet; and the end of a reference. */
struct registry_content *registry_content_get(struct registry *registry, const void *text, size_t size);
void registry_content_put(struct registry *registry, const struct registry_content *content);

/* Takes over the reference to 'content'. */
struct registry_unit *registry_unit_add(struct registry *registry, const char *name,
                                        struct registry_content *content);

struct registry_machine *registry_machine_get(struct registry *registry,
                                              const char *id); /* Made if it is missing. */
void registry_machines_changed(struct registry *registry);
void registry_machine_set(struct registry_machine *machine, const Fleet__RegisterMachine *message);
void registry_change_metadata(struct registry *registry, const Fleet__MetadataChange *change);
void registry_requests_forget(struct registry *registry);
void registry_request_remember(struct registry *registry, const void *id,
                               const struct registry_result *result);
/* Takes over what is in 'machines'. Borrowed, for the caller to fill in the rest; there is room for one at
 * least. */
struct departed *registry_departed_remember(struct registry *registry, const char *name,
                                            struct strlist *machines);
/* registry_settings.c. Why a list of settings cannot be kept, NULL: it can; the caller owns it. */
void registry_settings_init(struct registry *registry);
void registry_settings_done(struct registry *registry);
char *registry_settings_refusal(const struct registry *registry, Fleet__Setting *const *settings,
                                size_t count);
void registry_settings_change(struct registry *registry, const Fleet__ChangeSettings *command);
void registry_setting_set(struct registry *registry, const char *name, const char *value);
void registry_set_voters(struct registry *registry, uint32_t voters); /* 0: as they are. */

void registry_clear(
    struct registry *registry); /* Frees what it holds; contents go with their last reference. */

/* ---- registry_security.c ---- */

/* A machine is registered: whether it may be, if it joins; and that it has (by a token, which counts it). */
int registry_check_join(struct registry *registry, const Fleet__RegisterMachine *command, uint64_t wall_ms);
void registry_note_join(struct registry *registry, struct registry_machine *machine,
                        const Fleet__RegisterMachine *command);
void registry_forget_credentials(struct registry_machine *machine);
void registry_set_credentials(struct registry_machine *machine, const Fleet__RegisterMachine *message);
void registry_remember_removed(struct registry *registry, const struct registry_removed *what); /* A copy. */

/* An authority as a command or a snapshot has it. -EINVAL: it has no certificate, or is too large. */
int registry_set_authority(struct registry_authority *authority, const Fleet__Authority *message);
void registry_authority_done(struct registry_authority *authority);
/* There must be none of this id. */
struct registry_join_token *registry_add_join_token(struct registry *registry, const char *id);

int registry_apply_rotate_authority(struct registry *registry, const Fleet__RotateAuthority *command,
                                    uint64_t wall_ms);
int registry_apply_add_join_token(struct registry *registry, const Fleet__AddJoinToken *command,
                                  uint64_t wall_ms);
int registry_apply_revoke_join_token(struct registry *registry, const Fleet__RevokeJoinToken *command,
                                     uint64_t wall_ms);
/* The authority, the tokens, and who was removed. */
void registry_security_clear(struct registry *registry);

/* ---- registry_clients.c ---- */

int registry_apply_add_client(struct registry *registry, const Fleet__ClientCertificate *command,
                              const ProtobufCBinaryData *request_id, uint64_t wall_ms);
int registry_apply_revoke_client(struct registry *registry, const Fleet__RevokeClient *command);
void registry_client_message(const struct registry_client *client, Fleet__ClientCertificate *ret);
int registry_restore_client(struct registry *registry, const Fleet__ClientCertificate *message,
                            struct err *err);
void registry_clients_clear(struct registry *registry);
