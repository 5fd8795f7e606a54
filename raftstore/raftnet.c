/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "raftstore/assembly.h"
#include "raftstore/identify.h"
#include "raftstore/limits.h"
#include "raftstore/raftwire.h"

#define QUEUE_LIMIT     (4u * 1024 * 1024) /* Bytes that wait for a peer before requests to it are dropped. */
#define SNAPSHOT_WINDOW (2u * 1024 * 1024) /* ...and the part of it that snapshot pieces may take. */
#define BACKOFF_MIN_MS  100u
#define BACKOFF_MAX_MS  1000u
#define BAD_LOG_MS      10000u

/* Every request of Raft is answered. A peer whose power was cut answers nothing, and TCP would go on asking
 * the dead connection for seconds, with growing pauses, when it is long back: so silence ends it. Longer than
 * a slow disk makes a healthy peer wait, and where it does not, nothing is lost but a connection. */
#define SILENCE_MS 1500u

/* A dial that has taken so long is to a host that was not there. */
#define DIAL_STALE_MS 500u
#define PEERS_MAX     (4 * RAFT_SERVERS_MAX)

#define WAITING_MAX (QUEUE_LIMIT + FRAME_MAX) /* Bytes of a caller of whom it is not known yet who it is. */

/* A message that is heard, or not, when it is known who it comes from. */
struct waiting {
    struct waiting *prev, *next;
    size_t size;
    uint8_t bytes[];
};

/* One connection, either way. */
struct link {
    struct link *prev, *next; /* In net->links. */
    struct raftnet *net;
    struct conn *conn;
    uint64_t server_id;
    uint64_t begun_ms, opened_ms;
    bool dialled, open;
    bool trusted;                  /* It is known that it is the server: always so of a dialled one. */
    bool may_move;                 /* It is, too, if nobody is where the server was. */
    uint8_t boot_id[BOOT_ID_SIZE]; /* Of who has called. */
    struct waiting *waiting;       /* What one that is not trusted yet has said. */
    size_t waiting_size;
    char address[ADDRESS_MAX + 1]; /* That was dialled, for libraft: where the peer is. */
    struct assembly assembly;
};

/* A snapshot on its way out. 'args' points into memory that is libraft's until the callback. */
struct transfer {
    struct raft_io_send *req; /* NULL: none. */
    raft_io_send_cb cb;
    struct raft_install_snapshot args;
    size_t sent;
    bool all_queued;
};

/* What is known of another server. */
struct peer {
    struct peer *prev, *next;
    uint64_t server_id;
    uint64_t last_heard_ms;
    struct link *out; /* Dialled, perhaps not open yet. */
    uint64_t backoff_ms, retry_ms;
    uint64_t asked_ms; /* Since when 'out' owes an answer; 0: it does not. */
    bool complained;
    uint8_t *held; /* One small frame that waits for 'out' to open: an election need not wait for its next
                      round. */
    size_t held_size;
    struct transfer transfer;
    struct inquiry *inquiry; /* Under way. */
};

/* Who is at the address of a server? */
struct inquiry {
    struct inquiry *prev, *next; /* In net->inquiries. */
    struct raftnet *net;
    struct identify *identify;
    uint64_t server_id, begun_ms;
    char address[ADDRESS_MAX + 1];
};

/* A send request whose callback is due in the next turn of the loop. */
struct completion {
    struct completion *next;
    struct raft_io_send *req;
    raft_io_send_cb cb;
    int status;
};

struct raftnet {
    struct raftnet *next; /* In 'installed'. */
    uv_loop_t *loop;
    struct port *port;
    struct raftnet_callbacks callbacks;
    void *data;

    struct raft_io *io;
    int (*io_start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
    void (*io_close)(struct raft_io *io, raft_io_close_cb cb);
    raft_io_recv_cb recv; /* NULL: not started, or closing. */

    struct peer *peers;
    unsigned peer_count;
    struct link *links;
    struct inquiry *inquiries;
    struct completion *completions, **completions_end;
    uv_idle_t idle; /* Active while there are completions. */
    uint64_t bad_log_ms;

    bool closing, io_closed, idle_closed;
    raft_io_close_cb close_cb;
};

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

static uint64_t net_now(const struct raftnet *net)
{
    uint64_t now = uv_now(net->loop);

    return now > 0 ? now : 1;
}

/* ---- The end ---- */

static void on_idle_closed(uv_handle_t *handle)
{
    struct raftnet *net = handle->data;

    net->idle_closed = true;
    LL_DELETE(installed, net);
    net->close_cb(net->io); /* May free us. */
}

static void net_maybe_closed(struct raftnet *net)
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
    net_maybe_closed(net);
}

static void complete(struct raftnet *net, struct raft_io_send *req, raft_io_send_cb cb, int status)
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

/* ---- Peers ---- */

static void peer_free(struct raftnet *net, struct peer *peer)
{
    assert(peer->out == NULL && peer->inquiry == NULL && peer->transfer.req == NULL);
    DL_DELETE(net->peers, peer);
    net->peer_count--;
    free(peer->held);
    free(peer);
}

static struct peer *peer_find(const struct raftnet *net, uint64_t server_id)
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
            peer_free(net, peer);
            return;
        }
    }
}

static struct peer *peer_get(struct raftnet *net, uint64_t server_id)
{
    struct peer *peer = peer_find(net, server_id);

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

/* ---- Snapshots out ---- */

static void transfer_end(struct raftnet *net, struct transfer *transfer, int status)
{
    if (transfer->req == NULL)
        return;
    complete(net, transfer->req, transfer->cb, status);
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

/* Queues the next pieces, so many that heartbeats between them do not wait long. */
static void transfer_pump(struct raftnet *net, struct peer *peer)
{
    struct transfer *transfer = &peer->transfer;
    int r = 0;

    while (r == 0 && transfer->req != NULL && !transfer->all_queued &&
           conn_queued(peer->out->conn) < SNAPSHOT_WINDOW)
        r = transfer_send_piece(transfer, peer->out->conn);
    if (r < 0) {
        log_warn("server %016" PRIx64 ": cannot send a snapshot: %s", peer->server_id, strerror(-r));
        transfer_end(net, transfer, r == -EMSGSIZE ? RAFT_TOOBIG : RAFT_NOCONNECTION);
    }
}

/* libraft sends a snapshot again if the first try takes longer than its timeout. If it is the same one, the
 * transfer goes on, out of the new request's memory; the old request is through either way (status 0 changes
 * nothing in libraft, a failure would abort the new one). */
static void transfer_start(struct raftnet *net, struct peer *peer, struct raft_io_send *req,
                           const struct raft_install_snapshot *args, raft_io_send_cb cb)
{
    struct transfer *transfer = &peer->transfer, old = *transfer;
    bool same = old.req != NULL && old.args.term == args->term && old.args.last_index == args->last_index &&
                old.args.last_term == args->last_term && old.args.data.len == args->data.len;

    transfer_end(net, transfer, 0);
    *transfer = (struct transfer){.req = req, .cb = cb, .args = *args};
    if (same) {
        transfer->sent = old.sent;
        transfer->all_queued = old.all_queued;
    }
    transfer_pump(net, peer);
}

/* ---- What arrives ---- */

static void link_refuse_message(struct link *link, const char *text)
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

static void link_hear(struct link *link, const uint8_t *bytes, size_t size)
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
        link_refuse_message(link, err.text);
        return;
    }
    peer_heard(peer_get(net, link->server_id), net_now(net));
    if (message.type == RAFT_IO_INSTALL_SNAPSHOT && !assembly_add(&link->assembly, &message, &piece))
        return;
    message.server_id = link->server_id;
    message.server_address = link->address;
    net->recv(net->io, &message);
}

/* ---- Who calls ---- */

static bool is_older(const struct link *old, const struct link *link)
{
    if (link->trusted || memcmp(old->boot_id, link->boot_id, BOOT_ID_SIZE) == 0)
        return true;
    return !old->trusted && link->begun_ms - old->begun_ms >= DIAL_STALE_MS; /* They do not pile up. */
}

/* Older calls of the server are over. One that is not known to be the server ends only its own. */
static void link_replaces(struct link *link)
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

static void link_forget_waiting(struct link *link)
{
    struct waiting *waiting, *next;

    DL_FOREACH_SAFE (link->waiting, waiting, next) {
        DL_DELETE(link->waiting, waiting);
        free(waiting);
    }
    link->waiting_size = 0;
}

/* It may be closed by what it has said. */
static void link_trust(struct link *link)
{
    link->trusted = true;
    link_replaces(link);
    while (link->waiting != NULL && link->open) {
        struct waiting *waiting = link->waiting;

        DL_DELETE(link->waiting, waiting);
        if (link->net->recv != NULL)
            link_hear(link, waiting->bytes, waiting->size);
        free(waiting);
    }
    link_forget_waiting(link);
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
    link_forget_waiting(link);
    if (result == IDENTIFY_NOBODY)
        conn_close(link->conn, text);
    else
        link_refuse_message(link, text);
}

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
    struct peer *peer = peer_find(net, inquiry->server_id);
    bool current = peer != NULL && peer->inquiry == inquiry;

    if (current)
        peer->inquiry = NULL;
    DL_DELETE(net->inquiries, inquiry);
    if (current && net->recv != NULL)
        judge_callers(inquiry, result, boot_id);
    free(inquiry);
    net_maybe_closed(net);
}

/* One that was begun when the host was not there may be waiting for nothing: it has called meanwhile. */
static void drop_stale_inquiry(struct raftnet *net, uint64_t server_id)
{
    struct peer *peer = peer_find(net, server_id);
    struct inquiry *inquiry = peer != NULL ? peer->inquiry : NULL;

    if (inquiry == NULL || net_now(net) - inquiry->begun_ms < DIAL_STALE_MS)
        return;
    peer->inquiry = NULL;
    identify_cancel(inquiry->identify);
}

static void inquire(struct link *link)
{
    struct raftnet *net = link->net;
    struct peer *peer = peer_get(net, link->server_id);
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

/* One that is in no configuration of ours has no address that it could be compared with (see the top of
 * raftnet.h).
 */
static void link_look(struct link *link)
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

static void link_keep(struct link *link, const uint8_t *bytes, size_t size)
{
    struct waiting *waiting;

    if (link->waiting_size + size > WAITING_MAX) {
        link_refuse_message(link, "it says too much before it is known who it is");
        return;
    }
    waiting = xmalloc(sizeof(*waiting) + size);
    waiting->size = size;
    memcpy(waiting->bytes, bytes, size);
    DL_APPEND(link->waiting, waiting);
    link->waiting_size += size;
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct link *link = data;

    if (link->net->recv == NULL)
        return;
    link_look(link);
    if (link->trusted)
        link_hear(link, bytes, size);
    else
        link_keep(link, bytes, size);
}

/* ---- Connections ---- */

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

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct link *link = data;
    struct peer *peer = peer_find(link->net, link->server_id);

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

/* A dialled connection is gone: what waited for it is told, and the next one waits a little. */
static void peer_lost(struct raftnet *net, struct peer *peer, const char *reason)
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
    transfer_end(net, &peer->transfer, net->closing ? RAFT_CANCELED : RAFT_NOCONNECTION);
}

/* Gives a dialled connection up; the next message dials anew, without a pause. */
static void peer_redial(struct raftnet *net, struct peer *peer, const char *reason)
{
    struct link *link = peer->out;

    peer_lost(net, peer, reason);
    link->open = false;
    peer->retry_ms = 0;
    conn_close(link->conn, reason);
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct link *link = data;
    struct raftnet *net = link->net;
    struct peer *peer = peer_find(net, link->server_id);

    if (peer != NULL && peer->out == link)
        peer_lost(net, peer, reason);
    log_debug("connection %s server %016" PRIx64 " has ended: %s", link->dialled ? "to" : "from",
              link->server_id, reason);
    DL_DELETE(net->links, link);
    assembly_done(&link->assembly);
    link_forget_waiting(link);
    free(link);
    net_maybe_closed(net);
}

static void on_drain(struct conn *conn, void *data)
{
    struct link *link = data;
    struct peer *peer = peer_find(link->net, link->server_id);

    if (peer == NULL || peer->out != link || peer->transfer.req == NULL)
        return;
    if (peer->transfer.all_queued)
        transfer_end(link->net, &peer->transfer, 0);
    else
        transfer_pump(link->net, peer);
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
    drop_stale_inquiry(net, link->server_id);
    link_look(link);
    link_replaces(link);
    /* It is there: what we dialled while it was not may be waiting for nothing. Not what was dialled just
     * now: two that dial each other at the same time would never meet. */
    peer = peer_find(net, link->server_id);
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

static void peer_dial(struct raftnet *net, struct peer *peer, const char *address)
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

/* ---- Sending ---- */

static int send_frame(struct conn *conn, const struct raft_message *message)
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;
    int r;

    r = raftwire_encode(message, 0, &bytes, &size);
    return r < 0 ? r : conn_send(conn, bytes, size);
}

/* Back on the connection that the request came in on, or else on our own. */
static void send_result(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
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
    complete(net, req, cb, r < 0 ? RAFT_NOCONNECTION : 0);
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

/* Whether the connection has owed an answer for too long. While a snapshot is on its way there is none to be
 * had. */
static bool peer_is_silent(const struct raftnet *net, const struct peer *peer)
{
    return peer->asked_ms != 0 && peer->transfer.req == NULL && net_now(net) - peer->asked_ms >= SILENCE_MS;
}

/* An open connection to the peer, NULL if there is none (yet). */
static struct conn *peer_conn(struct raftnet *net, struct peer *peer, const char *address)
{
    if (peer->out != NULL && !streq(peer->out->address, address))
        peer_redial(net, peer, "has moved to another address");
    else if (peer->out != NULL && peer->out->open && peer_is_silent(net, peer))
        peer_redial(net, peer, "does not answer");
    peer_dial(net, peer, address);
    return peer->out != NULL && peer->out->open ? peer->out->conn : NULL;
}

static int send_request(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
                        raft_io_send_cb cb)
{
    char address[ADDRESS_MAX + 1] = "";
    struct peer *peer;
    struct conn *conn;
    int r;

    if (message->server_id == 0 || net->callbacks.on_resolve(message->server_id, address, net->data) < 0)
        return RAFT_NOCONNECTION;
    peer = peer_get(net, message->server_id);
    conn = peer_conn(net, peer, address);
    if (conn == NULL) {
        r = hold(peer, message);
        if (r == 0)
            complete(net, req, cb, 0);
        return r;
    }
    if (conn_queued(conn) >= QUEUE_LIMIT)
        return RAFT_NOCONNECTION;
    if (peer->asked_ms == 0)
        peer->asked_ms = net_now(net);
    if (message->type == RAFT_IO_INSTALL_SNAPSHOT) {
        transfer_start(net, peer, req, &message->install_snapshot, cb);
        return 0;
    }
    r = message->type == RAFT_IO_APPEND_ENTRIES ? send_append_entries(conn, message)
                                                : send_frame(conn, message);
    complete(net, req, cb, r < 0 ? RAFT_NOCONNECTION : 0);
    return 0;
}

/* ---- In place of raft_io's own ---- */

static int net_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                    raft_io_send_cb cb)
{
    struct raftnet *net = net_of(io);
    int r;

    req->cb = cb;
    if (message->type == RAFT_IO_APPEND_ENTRIES_RESULT || message->type == RAFT_IO_REQUEST_VOTE_RESULT) {
        send_result(net, req, message, cb);
        return 0;
    }
    r = net->closing ? RAFT_CANCELED : send_request(net, req, message, cb);
    if (r != 0 && !RAFT_COMPAT_SEND_MAY_FAIL) {
        complete(net, req, cb, r);
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
    net_maybe_closed(net);
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
        transfer_end(net, &peer->transfer, RAFT_CANCELED);
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
    const struct peer *peer = peer_find(net, server_id);

    return peer != NULL ? peer->last_heard_ms : 0;
}

void raftnet_hang_up(struct raftnet *net, bool (*keep)(uint64_t server_id, void *data), void *data)
{
    struct peer *peer;

    DL_FOREACH (net->peers, peer) {
        if (!net->closing && peer->out != NULL && peer->out->open && !keep(peer->server_id, data))
            peer_redial(net, peer, "nothing is to be said there any more");
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
        peer_free(net, peer);
    }
    if (net->idle_closed) {
        free(net);
        return;
    }
    if (net->io != NULL)
        LL_DELETE(installed, net);
    uv_close((uv_handle_t *)&net->idle, on_unused_closed);
}

/* ---- A transport for raft_uv_init() that never connects nor accepts ---- */

static int null_init(struct raft_uv_transport *transport, raft_id id, const char *address)
{
    return 0;
}

static int null_listen(struct raft_uv_transport *transport, raft_uv_accept_cb cb)
{
    return 0;
}

static int null_connect(struct raft_uv_transport *transport, struct raft_uv_connect *req, raft_id id,
                        const char *address, raft_uv_connect_cb cb)
{
    return RAFT_NOCONNECTION;
}

static void null_close(struct raft_uv_transport *transport, raft_uv_transport_close_cb cb)
{
    cb(transport);
}

void raftnet_null_transport(struct raft_uv_transport *transport)
{
    *transport = (struct raft_uv_transport){
        .init = null_init, .listen = null_listen, .connect = null_connect, .close = null_close};
    raft_compat_set_transport_version(transport);
}
