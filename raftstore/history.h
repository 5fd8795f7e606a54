/* SPDX-License-Identifier: Apache-2.0 */
/* Which history of a cluster's data something belongs to. A cluster begins with none; each time its data are
 * made anew out of what one host has left of them (docs/RECOVERY.md) another one begins. Two copies of
 * different histories must never meet in one log. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#define HISTORY_ID_SIZE 16

struct cluster_history {
    uint64_t recoveries;         /* How often that was done... */
    uint8_t id[HISTORY_ID_SIZE]; /* ...and a number drawn the last time: it may have been done on two hosts.
                                    All zero: never. */
};

bool history_equal(const struct cluster_history *a, const struct cluster_history *b);

/* From fields of a message; false: they make no sense. */
bool history_read(uint64_t recoveries, const ProtobufCBinaryData *id, struct cluster_history *ret);

/* The id as a field of a message; borrowed from 'history'. */
ProtobufCBinaryData history_id(const struct cluster_history *history);
