/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of a secure cluster, for tests of what is decided by it; and commands for it, which come
 * through. */
#pragma once

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raftstore/registry_security.h"

/* Undoes registry_new(); for _cleanup_. */
static inline void registry_freep(struct registry **registry)
{
    registry_free(*registry);
}

/* Fills in the command's format, and the time. */
void cluster_apply(struct registry *registry, Fleet__Command *command, uint64_t wall_ms);

ProtobufCBinaryData cluster_bytes(const char *text); /* Borrowed. */

/* A new one, whose authority's certificate is this text. Nobody has looked into it. NULL: an insecure one. */
struct registry *cluster_new(const char *authority);
