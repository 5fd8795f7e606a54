/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/guard_message.h"

#include <stdint.h>

bool guard_entry_is_aligned(const struct raft_entry *entry)
{
    return entry->buf.len > 0 && entry->buf.len % GUARD_ENTRY_ALIGN == 0;
}

raft_term guard_message_term(const struct raft_message *message)
{
    switch (message->type) {
    case RAFT_IO_APPEND_ENTRIES: return message->append_entries.term;
    case RAFT_IO_APPEND_ENTRIES_RESULT: return message->append_entries_result.term;
    case RAFT_IO_REQUEST_VOTE: return message->request_vote.term;
    case RAFT_IO_REQUEST_VOTE_RESULT: return message->request_vote_result.term;
    case RAFT_IO_INSTALL_SNAPSHOT: return message->install_snapshot.term;
    case RAFT_IO_TIMEOUT_NOW: return message->timeout_now.term;
    default: return 0;
    }
}

/* (The terms may fall along the log: raft_recover() of 0.15 writes an entry of term 1.) */
static const char *entries_fault(const struct raft_append_entries *append)
{
    for (unsigned i = 0; i < append->n_entries; i++) {
        const struct raft_entry *entry = &append->entries[i];

        if (entry->type != RAFT_COMMAND && entry->type != RAFT_BARRIER && entry->type != RAFT_CHANGE)
            return "an entry has an unknown type";
        if (entry->term == 0 || entry->term > append->term)
            return "an entry is of no term or of a later one than its leader";
        if (entry->buf.base == NULL && entry->buf.len > 0)
            return "an entry has no data";
        if (entry->batch == NULL)
            return "an entry belongs to no batch";
    }
    return NULL;
}

static const char *append_fault(const struct raft_append_entries *append)
{
    if (append->n_entries > 0 && append->entries == NULL)
        return "AppendEntries announces entries and has none";
    if (append->prev_log_index > UINT64_MAX - 1 - append->n_entries)
        return "the index of AppendEntries overflows";
    if (append->prev_log_term > append->term)
        return "AppendEntries continues a log of a later term";
    return entries_fault(append);
}

static const char *snapshot_fault(const struct raft_install_snapshot *snapshot)
{
    if (snapshot->data.base == NULL || snapshot->data.len == 0)
        return "InstallSnapshot has no data";
    if (snapshot->last_index == 0 || snapshot->last_index == UINT64_MAX || snapshot->last_term == 0)
        return "InstallSnapshot has no index or no term";
    if (snapshot->last_term > snapshot->term)
        return "InstallSnapshot is of a later term than its leader";
    if (snapshot->conf.n == 0 || snapshot->conf.servers == NULL)
        return "InstallSnapshot has no configuration";
    if (snapshot->conf_index > snapshot->last_index)
        return "InstallSnapshot has a configuration that it does not cover";
    return NULL;
}

static const char *vote_fault(const struct raft_request_vote *vote, raft_id from)
{
    if (vote->candidate_id != from)
        return "RequestVote for somebody else";
    if (vote->last_log_term >= vote->term)
        return "RequestVote with a log of a later term";
    return NULL;
}

const char *guard_message_fault(const struct raft_message *message)
{
    if (message->type < RAFT_IO_APPEND_ENTRIES || message->type > RAFT_IO_TIMEOUT_NOW)
        return "a message of an unknown type";
    if (message->server_id == 0 || message->server_address == NULL)
        return "a message from nobody";
    if (guard_message_term(message) == 0)
        return "a message without a term";
    switch (message->type) {
    case RAFT_IO_APPEND_ENTRIES: return append_fault(&message->append_entries);
    case RAFT_IO_INSTALL_SNAPSHOT: return snapshot_fault(&message->install_snapshot);
    case RAFT_IO_REQUEST_VOTE: return vote_fault(&message->request_vote, message->server_id);
    default: return NULL;
    }
}

bool guard_message_is_misaligned(const struct raft_message *message)
{
    if (message->type != RAFT_IO_APPEND_ENTRIES)
        return false;
    for (unsigned i = 0; i < message->append_entries.n_entries; i++)
        if (!guard_entry_is_aligned(&message->append_entries.entries[i]))
            return true;
    return false;
}

/* As recv.c of libraft does; entries that arrived together share a batch, and stand together. */
static void entries_free(struct raft_entry *entries, unsigned count)
{
    void *batch = NULL;

    if (entries == NULL)
        return;
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].batch != batch) {
            batch = entries[i].batch;
            raft_free(batch);
        }
    }
    raft_free(entries);
}

void guard_message_drop(struct raft_message *message)
{
    switch (message->type) {
    case RAFT_IO_APPEND_ENTRIES:
        entries_free(message->append_entries.entries, message->append_entries.n_entries);
        break;
    case RAFT_IO_INSTALL_SNAPSHOT:
        raft_configuration_close(&message->install_snapshot.conf);
        raft_free(message->install_snapshot.data.base);
        break;
    default: break;
    }
}
