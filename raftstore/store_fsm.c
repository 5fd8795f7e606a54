/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <stdlib.h>

#include "base/log.h"
#include "raftstore/store_private.h"

/* Snapshots are by size: when the log since the last one is worth it, whatever the number of entries
 * (docs/RAFT.md §4). The trailing entries spare a host that was away for a reboot the whole snapshot; they
 * stay in memory, so of large ones only as many are kept as the log had since the last snapshot. */
#define THRESHOLD          4096u
#define TRAILING           8192u
#define LOG_BYTES_DEFAULT  (UINT64_C(16) * 1024 * 1024)
#define RETRY_AFTER_FAILED 1024u

static void changed(struct store *store)
{
    /* raft_start() restores the snapshot, and the log of a voter without others. */
    if (store->started)
        store->callbacks.on_change(store->data);
    else
        store->changed_early = true;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct store *store = fsm->data;

    *result = (void *)registry_apply(store->registry, buf->base, buf->len);
    if (registry_is_behind(store->registry))
        store_fatal(store, "the cluster's log has what this version of fleetd (" PACKAGE_VERSION
                           ") does not understand: upgrade it on this host, too");
    store->log_bytes += buf->len;
    store->log_entries++;
    if (store->log_bytes > store->snapshot_log_bytes && store->snapshot == NULL) {
        raft_set_snapshot_threshold(&store->raft, 1);
        raft_set_snapshot_trailing(&store->raft,
                                   store->log_entries < TRAILING ? store->log_entries : TRAILING);
    }
    changed(store);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct store *store = fsm->data;

    if (store->snapshot != NULL)
        return RAFT_BUSY;
    store->snapshot = registry_snapshot_new(store->registry);
    *n_bufs = (unsigned)store->snapshot->count;
    *bufs = raft_malloc(*n_bufs * sizeof **bufs);
    if (*bufs == NULL)
        abort();
    for (unsigned i = 0; i < *n_bufs; i++) {
        (*bufs)[i].base = (void *)store->snapshot->pieces[i].base;
        (*bufs)[i].len = store->snapshot->pieces[i].size;
    }
    store->log_bytes = 0;
    store->log_entries = 0;
    return 0;
}

/* Once for each fsm_snapshot(), whether it was written or not. */
static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct store *store = fsm->data;
    unsigned behind = raft_compat_behind_snapshot(&store->raft);

    raft_free(*bufs);
    *bufs = NULL;
    *n_bufs = 0;
    registry_snapshot_free(store->registry, store->snapshot);
    store->snapshot = NULL;
    /* After one that could not be written 0.15 would try again at every entry (docs/RAFT.md §4). */
    raft_set_snapshot_threshold(&store->raft, behind < THRESHOLD ? THRESHOLD : behind + RETRY_AFTER_FAILED);
    raft_set_snapshot_trailing(&store->raft, TRAILING);
    return 0;
}

/* libraft does not install a snapshot while it takes one, nor the other way round. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct store *store = fsm->data;
    int r = registry_restore(store->registry, buf->base, buf->len, &store->restore_error);

    store->restore_status = r;
    if (r < 0) {
        log_error("Cannot restore the snapshot: %s", err_text(&store->restore_error, r));
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    store->log_bytes = 0;
    store->log_entries = 0;
    changed(store);
    return 0;
}

void store_fsm_init(struct store *store)
{
    store->registry = registry_new();
    if (store->snapshot_log_bytes == 0)
        store->snapshot_log_bytes = LOG_BYTES_DEFAULT;
    store->fsm = (struct raft_fsm){.version = 2,
                                   .data = store,
                                   .apply = fsm_apply,
                                   .snapshot = fsm_snapshot,
                                   .restore = fsm_restore,
                                   .snapshot_finalize = fsm_snapshot_finalize};
}

void store_fsm_start(struct store *store)
{
    raft_set_snapshot_threshold(&store->raft, THRESHOLD);
    raft_set_snapshot_trailing(&store->raft, TRAILING);
}
