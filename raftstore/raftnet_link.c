/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/raftwire.h"

#define BAD_LOG_MS 10000u

/* ---- What arrives ---- */

void raftnet_link_refuse_message(struct link *link, const char *text)
{
    struct raftnet *net = link->net;
    uint64_t now = net_now(net);

    if (net->bad_log_ms == 0 || now - net->bad_log_ms >= BAD_LOG_MS) {
        log_warn("server %016" PRIx64 " at %s: %s", link->server_id, conn_peer(link->conn), text);
        net->bad_log_ms = now;
    }
    conn_close(link->conn, text);
}

static void peer_heard(struct peer *peer, uint64_t now_ms)
{
    peer->last_heard_ms = now_ms;
    peer->asked_ms = 0;
}

void raftnet_link_hear(struct link *link, const uint8_t *bytes, size_t size)
{
    struct raftnet *net = link->net;
    struct raft_message message;
    struct raftwire_piece piece;
    struct err err = {0};
    int r;

    if (net->recv == NULL)
        return;
    r = raftwire_decode(bytes, size, &message, &piece, &err);
    if (r == -ENOMSG)
        return;
    if (r < 0) {
        raftnet_link_refuse_message(link, err.text);
        return;
    }
    peer_heard(raftnet_peer_get(net, link->server_id), net_now(net));
    if (message.type == RAFT_IO_INSTALL_SNAPSHOT && !assembly_add(&link->assembly, &message, &piece))
        return;
    message.server_id = link->server_id;
    message.server_address = link->address;
    net->recv(net->io, &message);
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct link *link = data;

    if (link->net->recv == NULL)
        return;
    raftnet_link_look(link);
    if (link->trusted)
        raftnet_link_hear(link, bytes, size);
    else
        raftnet_link_keep(link, bytes, size);
}

/* ---- What becomes of it ---- */

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct link *link = data;
    struct peer *peer = raftnet_peer_find(link->net, link->server_id);

    if (peer == NULL || peer->out != link)
        return; /* Given up meanwhile, conn_close() is under way. */
    link->open = true;
    link->opened_ms = net_now(link->net);
    if (peer->complained)
        log_info("server %016" PRIx64 " at %s can be reached again", peer->server_id, link->address);
    peer->complained = false;
    if (peer->held != NULL)
        conn_send(conn, peer->held, peer->held_size);
    free(peer->held);
    peer->held = NULL;
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct link *link = data;
    struct raftnet *net = link->net;
    struct peer *peer = raftnet_peer_find(net, link->server_id);

    if (peer != NULL && peer->out == link)
        raftnet_peer_lost(net, peer, reason);
    log_debug("connection %s server %016" PRIx64 " has ended: %s", link->dialled ? "to" : "from",
              link->server_id, reason);
    DL_DELETE(net->links, link);
    assembly_done(&link->assembly);
    raftnet_link_forget_waiting(link);
    free(link);
    raftnet_maybe_closed(net);
}

static void on_drain(struct conn *conn, void *data)
{
    struct link *link = data;
    struct peer *peer = raftnet_peer_find(link->net, link->server_id);

    if (peer == NULL || peer->out != link || peer->transfer.req == NULL)
        return;
    if (peer->transfer.all_queued)
        raftnet_transfer_end(link->net, &peer->transfer, 0);
    else
        raftnet_transfer_pump(link->net, peer);
}

/* An incoming one is open. */
static void on_accepted(struct conn *conn, void *data)
{
    struct link *link = data, *stale;
    struct raftnet *net = link->net;
    struct peer *peer;

    link->conn = conn;
    snprintf(link->address, sizeof(link->address), "%s", conn_peer(conn));
    link->trusted = true; /* For want of an address, unless it has one. */
    link->open = true;
    raftnet_drop_stale_inquiry(net, link->server_id);
    raftnet_link_look(link);
    raftnet_link_replaces(link);
    /* It is there: what we dialled while it was not may be waiting for nothing. Not what was dialled just
     * now: two that dial each other at the same time would never meet. */
    peer = raftnet_peer_find(net, link->server_id);
    if (peer != NULL && peer->out != NULL && !peer->out->open &&
        net_now(net) - peer->out->begun_ms >= DIAL_STALE_MS) {
        stale = TAKE_PTR(peer->out);
        peer->retry_ms = 0;
        conn_close(stale->conn, "the peer has called meanwhile");
    }
}

static const struct conn_callbacks link_callbacks = {.on_open = on_open,
                                                     .on_message = on_message,
                                                     .on_close = on_close,
                                                     .on_drain = on_drain,
                                                     .on_accepted = on_accepted};

/* ---- Where one begins ---- */

static struct link *link_new(struct raftnet *net, uint64_t server_id, bool dialled)
{
    struct link *link = NEW0(struct link);

    link->net = net;
    link->server_id = server_id;
    link->dialled = link->trusted = dialled;
    link->begun_ms = net_now(net);
    DL_APPEND(net->links, link);
    return link;
}

const struct conn_callbacks *raftnet_accept(struct raftnet *net, uint64_t server_id, const uint8_t *boot_id,
                                            void **ret_data)
{
    struct link *link;

    if (net->recv == NULL)
        return NULL;
    link = link_new(net, server_id, false);
    memcpy(link->boot_id, boot_id, BOOT_ID_SIZE);
    *ret_data = link;
    return &link_callbacks;
}

void raftnet_peer_dial(struct raftnet *net, struct peer *peer, const char *address)
{
    struct link *link;

    if (peer->out != NULL || net_now(net) < peer->retry_ms)
        return;
    link = link_new(net, peer->server_id, true);
    snprintf(link->address, sizeof(link->address), "%s", address);
    peer->out = link;
    link->conn =
        port_dial(net->port, address, FLEET__PURPOSE__PURPOSE_RAFT, peer->server_id, &link_callbacks, link);
}
