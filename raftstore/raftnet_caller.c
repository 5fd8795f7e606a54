/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

#define WAITING_MAX (QUEUE_LIMIT + FRAME_MAX) /* Bytes of a caller of whom it is not known yet who it is. */

/* ---- What a caller has said ---- */

void raftnet_link_keep(struct link *link, const uint8_t *bytes, size_t size)
{
    struct waiting *waiting;

    if (link->waiting_size + size > WAITING_MAX) {
        raftnet_link_refuse_message(link, "it says too much before it is known who it is");
        return;
    }
    waiting = xmalloc(sizeof(*waiting) + size);
    waiting->size = size;
    memcpy(waiting->bytes, bytes, size);
    DL_APPEND(link->waiting, waiting);
    link->waiting_size += size;
}

void raftnet_link_forget_waiting(struct link *link)
{
    struct waiting *waiting, *next;

    DL_FOREACH_SAFE (link->waiting, waiting, next) {
        DL_DELETE(link->waiting, waiting);
        free(waiting);
    }
    link->waiting_size = 0;
}

/* ---- Whether it is heard ---- */

static bool is_older(const struct link *old, const struct link *link)
{
    if (link->trusted || memcmp(old->boot_id, link->boot_id, BOOT_ID_SIZE) == 0)
        return true;
    return !old->trusted && link->begun_ms - old->begun_ms >= DIAL_STALE_MS; /* They do not pile up. */
}

void raftnet_link_replaces(struct link *link)
{
    struct link *old;

    DL_FOREACH (link->net->links, old) {
        if (old == link || old->dialled || !old->open || old->server_id != link->server_id ||
            !is_older(old, link))
            continue;
        old->open = false;
        conn_close(old->conn, "replaced by a newer connection");
    }
}

/* It may be closed by what it has said. */
static void link_trust(struct link *link)
{
    link->trusted = true;
    raftnet_link_replaces(link);
    while (link->waiting != NULL && link->open) {
        struct waiting *waiting = link->waiting;

        DL_DELETE(link->waiting, waiting);
        if (link->net->recv != NULL)
            raftnet_link_hear(link, waiting->bytes, waiting->size);
        free(waiting);
    }
    raftnet_link_forget_waiting(link);
}

/* It may be a copy of a host that is only off at the moment, and nobody here can know: so it is said. */
static void link_trust_moved(struct link *link)
{
    log_notice("Server %016" PRIx64
               ", the only voter, calls from %s, and nobody is at %s, where it was: it is heard",
               link->server_id, conn_peer(link->conn), link->address);
    link_trust(link);
}

/* Where nobody is, nobody is told apart: it calls again. */
static void link_end(struct link *link, enum identify_result result)
{
    _cleanup_(freep) char *text = xasprintf(
        result == IDENTIFY_NOBODY ? "nobody answers at this server's address, %s"
                                  : "another host answers as this server at %s: was its disk copied?",
        link->address);

    link->open = false;
    raftnet_link_forget_waiting(link);
    if (result == IDENTIFY_NOBODY)
        conn_close(link->conn, text);
    else
        raftnet_link_refuse_message(link, text);
}

/* ---- Who is there ---- */

static void inquire(struct link *link);

/* Takes in who is there. What was asked before somebody called does not speak against it: it may have been
 * booted since. */
static void judge_callers(struct inquiry *inquiry, enum identify_result result, const uint8_t *boot_id)
{
    struct link *link, *next, *later = NULL;

    DL_FOREACH_SAFE (inquiry->net->links, link, next) {
        if (link->server_id != inquiry->server_id || link->dialled || !link->open || link->trusted)
            continue;
        if (!streq(link->address, inquiry->address))
            later = link;
        else if (result == IDENTIFY_OLD ||
                 (result == IDENTIFY_THERE && memcmp(link->boot_id, boot_id, BOOT_ID_SIZE) == 0))
            link_trust(link);
        else if (inquiry->begun_ms < link->begun_ms)
            later = link;
        else if (link->may_move && result != IDENTIFY_THERE)
            link_trust_moved(link);
        else
            link_end(link, result);
    }
    if (later != NULL && later->open)
        inquire(later);
}

static void on_identified(enum identify_result result, const uint8_t *boot_id, void *data)
{
    struct inquiry *inquiry = data;
    struct raftnet *net = inquiry->net;
    struct peer *peer = raftnet_peer_find(net, inquiry->server_id);
    bool current = peer != NULL && peer->inquiry == inquiry;

    if (current)
        peer->inquiry = NULL;
    DL_DELETE(net->inquiries, inquiry);
    if (current && net->recv != NULL)
        judge_callers(inquiry, result, boot_id);
    free(inquiry);
    raftnet_maybe_closed(net);
}

void raftnet_drop_stale_inquiry(struct raftnet *net, uint64_t server_id)
{
    struct peer *peer = raftnet_peer_find(net, server_id);
    struct inquiry *inquiry = peer != NULL ? peer->inquiry : NULL;

    if (inquiry == NULL || net_now(net) - inquiry->begun_ms < DIAL_STALE_MS)
        return;
    peer->inquiry = NULL;
    identify_cancel(inquiry->identify);
}

static void inquire(struct link *link)
{
    struct raftnet *net = link->net;
    struct peer *peer = raftnet_peer_get(net, link->server_id);
    struct inquiry *inquiry;

    if (peer->inquiry != NULL)
        return;
    inquiry = NEW0(struct inquiry);
    inquiry->net = net;
    inquiry->server_id = link->server_id;
    inquiry->begun_ms = net_now(net);
    strcpy(inquiry->address, link->address);
    DL_APPEND(net->inquiries, inquiry);
    peer->inquiry = inquiry;
    inquiry->identify =
        identify_start(net->port, inquiry->address, inquiry->server_id, NULL, on_identified, inquiry);
}

static int locate(const struct raftnet *net, uint64_t server_id, char *address, bool *ret_may_move)
{
    *ret_may_move = false;
    return net->callbacks.on_locate != NULL
               ? net->callbacks.on_locate(server_id, address, ret_may_move, net->data)
               : net->callbacks.on_resolve(server_id, address, net->data);
}

void raftnet_link_look(struct link *link)
{
    char address[ADDRESS_MAX + 1];
    bool may_move;

    if (link->dialled || locate(link->net, link->server_id, address, &may_move) < 0 ||
        (link->trusted && streq(link->address, address)))
        return;
    strcpy(link->address, address);
    link->may_move = may_move;
    link->trusted = false;
    inquire(link);
}
