/* SPDX-License-Identifier: Apache-2.0 */
/* What the guard asks of a received message before raft may see it. libraft has its checks in assertions,
 * and Debian builds it without them; so whatever no correct peer sends must be recognised here. Pure: looks
 * at the message alone, not at the state of this server. */
#pragma once

#include <stdbool.h>

#include "raftstore/raft_compat.h"

/* raft reads entries as 64-bit words, and can not load one of another length again (canonical/raft cd3bd28).
 */
#define GUARD_ENTRY_ALIGN 8

bool guard_entry_is_aligned(const struct raft_entry *entry);

/* The term that the message carries, or 0 if its type is unknown. */
raft_term guard_message_term(const struct raft_message *message);

/* Says what is wrong with a message, or NULL. Lengths of entries are not looked at. */
const char *guard_message_fault(const struct raft_message *message);

/* Whether the message carries entries of which one is not aligned. */
bool guard_message_is_misaligned(const struct raft_message *message);

/* Frees what a received message owns, exactly as raft would: the entries and their batches of AppendEntries,
 * the configuration and the data of InstallSnapshot. Also for a transport that has to drop a message. */
void guard_message_drop(struct raft_message *message);
