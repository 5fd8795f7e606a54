/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/raftwire.h"

#define SNAPSHOT_WINDOW (2u * 1024 * 1024) /* The part of QUEUE_LIMIT that snapshot pieces may take. */

void raftnet_transfer_end(struct raftnet *net, struct transfer *transfer, int status)
{
    if (transfer->req == NULL)
        return;
    raftnet_complete(net, transfer->req, transfer->cb, status);
    *transfer = (struct transfer){0};
}

static int transfer_send_piece(struct transfer *transfer, struct conn *conn)
{
    struct raft_message message = {.type = RAFT_IO_INSTALL_SNAPSHOT, .install_snapshot = transfer->args};
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;
    int n, r;

    n = raftwire_encode(&message, transfer->sent, &bytes, &size);
    if (n < 0)
        return n;
    r = conn_send(conn, bytes, size);
    if (r < 0)
        return r;
    transfer->sent += n;
    transfer->all_queued = transfer->sent == transfer->args.data.len;
    return 0;
}

void raftnet_transfer_pump(struct raftnet *net, struct peer *peer)
{
    struct transfer *transfer = &peer->transfer;
    int r = 0;

    while (r == 0 && transfer->req != NULL && !transfer->all_queued &&
           conn_queued(peer->out->conn) < SNAPSHOT_WINDOW)
        r = transfer_send_piece(transfer, peer->out->conn);
    if (r < 0) {
        log_warn("server %016" PRIx64 ": cannot send a snapshot: %s", peer->server_id, strerror(-r));
        raftnet_transfer_end(net, transfer, r == -EMSGSIZE ? RAFT_TOOBIG : RAFT_NOCONNECTION);
    }
}

void raftnet_transfer_start(struct raftnet *net, struct peer *peer, struct raft_io_send *req,
                            const struct raft_install_snapshot *args, raft_io_send_cb cb)
{
    struct transfer *transfer = &peer->transfer, old = *transfer;
    bool same = old.req != NULL && old.args.term == args->term && old.args.last_index == args->last_index &&
                old.args.last_term == args->last_term && old.args.data.len == args->data.len;

    raftnet_transfer_end(net, transfer, 0);
    *transfer = (struct transfer){.req = req, .cb = cb, .args = *args};
    if (same) {
        transfer->sent = old.sent;
        transfer->all_queued = old.all_queued;
    }
    raftnet_transfer_pump(net, peer);
}
