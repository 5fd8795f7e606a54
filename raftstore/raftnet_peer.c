/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 1000u
#define PEERS_MAX      (4 * RAFT_SERVERS_MAX)

/* Every request of Raft is answered. A peer whose power was cut answers nothing, and TCP would go on asking
 * the dead connection for seconds, with growing pauses, when it is long back: so silence ends it. Longer than
 * a slow disk makes a healthy peer wait, and where it does not, nothing is lost but a connection. */
#define SILENCE_MS 1500u

/* ---- The table ---- */

void raftnet_peer_free(struct raftnet *net, struct peer *peer)
{
    assert(peer->out == NULL && peer->inquiry == NULL && peer->transfer.req == NULL);
    DL_DELETE(net->peers, peer);
    net->peer_count--;
    free(peer->held);
    free(peer);
}

struct peer *raftnet_peer_find(const struct raftnet *net, uint64_t server_id)
{
    struct peer *peer;

    DL_FOREACH (net->peers, peer) {
        if (peer->server_id == server_id)
            return peer;
    }
    return NULL;
}

/* Server ids come and go; the table does not grow for ever. */
static void peers_make_room(struct raftnet *net)
{
    struct peer *peer;

    DL_FOREACH (net->peers, peer) {
        if (peer->out == NULL && peer->inquiry == NULL) {
            raftnet_peer_free(net, peer);
            return;
        }
    }
}

struct peer *raftnet_peer_get(struct raftnet *net, uint64_t server_id)
{
    struct peer *peer = raftnet_peer_find(net, server_id);

    if (peer != NULL)
        return peer;
    if (net->peer_count >= PEERS_MAX)
        peers_make_room(net);
    peer = NEW0(struct peer);
    peer->server_id = server_id;
    DL_APPEND(net->peers, peer);
    net->peer_count++;
    return peer;
}

/* ---- Its connection ---- */

void raftnet_peer_lost(struct raftnet *net, struct peer *peer, const char *reason)
{
    struct link *link = TAKE_PTR(peer->out);
    uint64_t now = net_now(net);

    peer->asked_ms = 0;
    if (link->open && now - link->opened_ms >= BACKOFF_MAX_MS)
        peer->backoff_ms = 0;
    else if (!peer->complained && !net->closing) {
        log_notice("server %016" PRIx64 " at %s: %s", peer->server_id, link->address, reason);
        peer->complained = true;
    }
    peer->backoff_ms = peer->backoff_ms == 0 ? BACKOFF_MIN_MS : 2 * peer->backoff_ms;
    if (peer->backoff_ms > BACKOFF_MAX_MS)
        peer->backoff_ms = BACKOFF_MAX_MS;
    peer->retry_ms = now + peer->backoff_ms / 2 + uv_hrtime() / 1000 % (peer->backoff_ms / 2 + 1);
    free(peer->held);
    peer->held = NULL;
    raftnet_transfer_end(net, &peer->transfer, net->closing ? RAFT_CANCELED : RAFT_NOCONNECTION);
}

void raftnet_peer_redial(struct raftnet *net, struct peer *peer, const char *reason)
{
    struct link *link = peer->out;

    raftnet_peer_lost(net, peer, reason);
    link->open = false;
    peer->retry_ms = 0;
    conn_close(link->conn, reason);
}

/* Whether the connection has owed an answer for too long. While a snapshot is on its way there is none to be
 * had. */
static bool peer_is_silent(const struct raftnet *net, const struct peer *peer)
{
    return peer->asked_ms != 0 && peer->transfer.req == NULL && net_now(net) - peer->asked_ms >= SILENCE_MS;
}

struct conn *raftnet_peer_conn(struct raftnet *net, struct peer *peer, const char *address)
{
    if (peer->out != NULL && !streq(peer->out->address, address))
        raftnet_peer_redial(net, peer, "has moved to another address");
    else if (peer->out != NULL && peer->out->open && peer_is_silent(net, peer))
        raftnet_peer_redial(net, peer, "does not answer");
    raftnet_peer_dial(net, peer, address);
    return peer->out != NULL && peer->out->open ? peer->out->conn : NULL;
}
