/* SPDX-License-Identifier: Apache-2.0 */
/* What the registry's two sources share: commands (registry.c) and snapshots (registry_snapshot.c). */
#pragma once

#include <arpa/inet.h>
#include <string.h>

#include "raftstore/registry.h"

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
    uint64_t stop_ms; /* This and the next two: as of struct registry_unit. */
    bool leased;
    uint64_t leased_since;
    UT_hash_handle hh;
};

struct registry {
    uint8_t cluster_id[CLUSTER_ID_SIZE];
    struct cluster_history history;
    uint64_t version;
    unsigned voters;
    uint64_t lease_ms;
    struct registry_content *contents;
    struct registry_unit *units;
    struct registry_machine *machines;
    struct request *requests;  /* Oldest first: uthash keeps the order of insertion. */
    struct departed *departed; /* Oldest first. */
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

enum unit_state registry_state_of(Fleet__DesiredState desired);
Fleet__DesiredState registry_desired_of(enum unit_state state);
enum machine_availability registry_availability_of(Fleet__Availability availability);

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
void registry_clear(
    struct registry *registry); /* Frees what it holds; contents go with their last reference. */
