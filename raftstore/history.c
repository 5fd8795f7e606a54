/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/history.h"

#include <string.h>

bool history_equal(const struct cluster_history *a, const struct cluster_history *b)
{
    return a->recoveries == b->recoveries && memcmp(a->id, b->id, sizeof a->id) == 0;
}

bool history_read(uint64_t recoveries, const ProtobufCBinaryData *id, struct cluster_history *ret)
{
    struct cluster_history history = {.recoveries = recoveries};

    if (id->len != (recoveries > 0 ? sizeof history.id : 0))
        return false;
    if (id->len > 0)
        memcpy(history.id, id->data, id->len);
    *ret = history;
    return true;
}

ProtobufCBinaryData history_id(const struct cluster_history *history)
{
    return (ProtobufCBinaryData){.len = history->recoveries > 0 ? sizeof history->id : 0,
                                 .data = (uint8_t *)history->id};
}
