/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "raftstore/raftwire.h"

static int send_frame(struct conn *conn, const struct raft_message *message)
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;
    int r;

    r = raftwire_encode(message, 0, &bytes, &size);
    return r < 0 ? r : conn_send(conn, bytes, size);
}

void raftnet_send_result(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
                         raft_io_send_cb cb)
{
    struct link *link, *found = NULL;
    int r = -ENOTCONN;

    DL_FOREACH (net->links, link) {
        if (link->server_id == message->server_id && link->open && link->trusted &&
            (found == NULL || found->dialled))
            found = link;
    }
    if (found != NULL && conn_queued(found->conn) < QUEUE_LIMIT)
        r = send_frame(found->conn, message);
    raftnet_complete(net, req, cb, r < 0 ? RAFT_NOCONNECTION : 0);
}

/* In as many frames as it takes and the queue has room for. If that is not all, the callback's status makes
 * libraft go back to what the follower is known to have. */
static int send_append_entries(struct conn *conn, const struct raft_message *message)
{
    size_t first = 0, size;
    int n, r;

    do {
        _cleanup_(freep) uint8_t *bytes = NULL;

        if (conn_queued(conn) >= QUEUE_LIMIT)
            return -ENOBUFS;
        n = raftwire_encode(message, first, &bytes, &size);
        if (n < 0)
            return n;
        r = conn_send(conn, bytes, size);
        if (r < 0)
            return r;
        first += n;
    } while (first < message->append_entries.n_entries);
    return 0;
}

/* While the connection is being made: an election's message waits for it, the newest one. */
static int hold(struct peer *peer, const struct raft_message *message)
{
    if (peer->out == NULL || (message->type != RAFT_IO_REQUEST_VOTE && message->type != RAFT_IO_TIMEOUT_NOW))
        return RAFT_NOCONNECTION;
    free(TAKE_PTR(peer->held));
    return raftwire_encode(message, 0, &peer->held, &peer->held_size) < 0 ? RAFT_NOCONNECTION : 0;
}

int raftnet_send_request(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
                         raft_io_send_cb cb)
{
    char address[ADDRESS_MAX + 1] = "";
    struct peer *peer;
    struct conn *conn;
    int r;

    if (message->server_id == 0 || net->callbacks.on_resolve(message->server_id, address, net->data) < 0)
        return RAFT_NOCONNECTION;
    peer = raftnet_peer_get(net, message->server_id);
    conn = raftnet_peer_conn(net, peer, address);
    if (conn == NULL) {
        r = hold(peer, message);
        if (r == 0)
            raftnet_complete(net, req, cb, 0);
        return r;
    }
    if (conn_queued(conn) >= QUEUE_LIMIT)
        return RAFT_NOCONNECTION;
    if (peer->asked_ms == 0)
        peer->asked_ms = net_now(net);
    if (message->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raftnet_transfer_start(net, peer, req, &message->install_snapshot, cb);
        return 0;
    }
    r = message->type == RAFT_IO_APPEND_ENTRIES ? send_append_entries(conn, message)
                                                : send_frame(conn, message);
    raftnet_complete(net, req, cb, r < 0 ? RAFT_NOCONNECTION : 0);
    return 0;
}
