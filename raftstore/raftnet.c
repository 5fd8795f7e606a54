/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <assert.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"

/* libraft hands its hooks nothing of ours but the raft_io. All on one thread. */
static struct raftnet *installed;

static struct raftnet *net_of(struct raft_io *io)
{
    struct raftnet *net;

    LL_FOREACH (installed, net) {
        if (net->io == io)
            return net;
    }
    assert(false);
    return NULL;
}

/* ---- The end ---- */

static void on_idle_closed(uv_handle_t *handle)
{
    struct raftnet *net = handle->data;

    net->idle_closed = true;
    LL_DELETE(installed, net);
    net->close_cb(net->io); /* May free us. */
}

void raftnet_maybe_closed(struct raftnet *net)
{
    if (net->closing && net->io_closed && net->links == NULL && net->inquiries == NULL &&
        net->completions == NULL && !uv_is_closing((uv_handle_t *)&net->idle))
        uv_close((uv_handle_t *)&net->idle, on_idle_closed);
}

/* ---- Send requests that are through ---- */

static void on_idle(uv_idle_t *idle)
{
    struct raftnet *net = idle->data;
    struct completion *completion, *due = TAKE_PTR(net->completions);

    net->completions_end = &net->completions;
    while ((completion = due) != NULL) {
        due = completion->next;
        completion->cb(completion->req, completion->status);
        free(completion);
    }
    if (net->completions == NULL)
        uv_idle_stop(idle);
    raftnet_maybe_closed(net);
}

void raftnet_complete(struct raftnet *net, struct raft_io_send *req, raft_io_send_cb cb, int status)
{
    struct completion *completion;

    if (cb == NULL)
        return; /* Nobody waits; and 'req' may be gone any time (raft_transfer). */
    completion = NEW0(struct completion);
    completion->req = req;
    completion->cb = cb;
    completion->status = status;
    *net->completions_end = completion;
    net->completions_end = &completion->next;
    uv_idle_start(&net->idle, on_idle);
}

/* ---- In place of raft_io's own ---- */

static int net_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                    raft_io_send_cb cb)
{
    struct raftnet *net = net_of(io);
    int r;

    req->cb = cb;
    if (message->type == RAFT_IO_APPEND_ENTRIES_RESULT || message->type == RAFT_IO_REQUEST_VOTE_RESULT) {
        raftnet_send_result(net, req, message, cb);
        return 0;
    }
    r = net->closing ? RAFT_CANCELED : raftnet_send_request(net, req, message, cb);
    if (r != 0 && !RAFT_COMPAT_SEND_MAY_FAIL) {
        raftnet_complete(net, req, cb, r);
        return 0;
    }
    return r;
}

static int net_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct raftnet *net = net_of(io);
    int r = net->io_start(io, msecs, tick, recv);

    if (r == 0)
        net->recv = recv;
    return r;
}

static void on_io_closed(struct raft_io *io)
{
    struct raftnet *net = net_of(io);

    net->io_closed = true;
    raftnet_maybe_closed(net);
}

static void net_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct raftnet *net = net_of(io);
    struct link *link;
    struct inquiry *inquiry;
    struct peer *peer;

    assert(!net->closing);
    net->closing = true;
    net->recv = NULL;
    net->close_cb = cb;
    DL_FOREACH (net->peers, peer) {
        raftnet_transfer_end(net, &peer->transfer, RAFT_CANCELED);
    }
    DL_FOREACH (net->links, link) {
        link->open = false;
        if (link->conn != NULL)
            conn_close(link->conn, "Raft is closing");
    }
    DL_FOREACH (net->inquiries, inquiry) {
        identify_cancel(inquiry->identify);
    }
    net->io_close(io, on_io_closed);
}

/* ---- What the owner asks for ---- */

struct raftnet *raftnet_new(uv_loop_t *loop, struct port *port, const struct raftnet_callbacks *callbacks,
                            void *data)
{
    struct raftnet *net = NEW0(struct raftnet);

    net->loop = loop;
    net->port = port;
    net->callbacks = *callbacks;
    net->data = data;
    net->completions_end = &net->completions;
    uv_idle_init(loop, &net->idle);
    net->idle.data = net;
    return net;
}

void raftnet_install(struct raftnet *net, struct raft_io *io)
{
    assert(net->io == NULL);
    net->io = io;
    net->io_start = io->start;
    net->io_close = io->close;
    io->send = net_send;
    io->start = net_start;
    io->close = net_close;
    LL_PREPEND(installed, net);
}

uint64_t raftnet_last_heard_ms(const struct raftnet *net, uint64_t server_id)
{
    const struct peer *peer = raftnet_peer_find(net, server_id);

    return peer != NULL ? peer->last_heard_ms : 0;
}

void raftnet_hang_up(struct raftnet *net, bool (*keep)(uint64_t server_id, void *data), void *data)
{
    struct peer *peer;

    DL_FOREACH (net->peers, peer) {
        if (!net->closing && peer->out != NULL && peer->out->open && !keep(peer->server_id, data))
            raftnet_peer_redial(net, peer, "nothing is to be said there any more");
    }
}

static void on_unused_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void raftnet_free(struct raftnet *net)
{
    struct peer *peer, *next;

    if (net == NULL)
        return;
    assert(net->links == NULL && net->inquiries == NULL && net->completions == NULL);
    DL_FOREACH_SAFE (net->peers, peer, next) {
        raftnet_peer_free(net, peer);
    }
    if (net->idle_closed) {
        free(net);
        return;
    }
    if (net->io != NULL)
        LL_DELETE(installed, net);
    uv_close((uv_handle_t *)&net->idle, on_unused_closed);
}
