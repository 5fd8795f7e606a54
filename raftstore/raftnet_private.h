/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of raftnet share; nobody else includes this.
 *
 *      raftnet.c           in place of raft_io's own start, send and close; opening and closing
 *      raftnet_send.c      one message on its way out
 *      raftnet_snapshot.c  a snapshot on its way out, in pieces
 *      raftnet_peer.c      the table of servers; when one is dialled, and when it is given up
 *      raftnet_link.c      one connection, either way: how it begins, what arrives on it, how it ends
 *      raftnet_caller.c    who calls: a caller is heard when it is known that it is the server
 *      raftnet_null.c      the transport that libraft is given in place of its own
 *
 * All on one thread. A link lives until its connection has called on_close, also when it was given up; so a
 * peer points to the link that it has dialled, and a link finds its peer by the server's id, which may have
 * another link by then. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <raft.h>
#include <raft/uv.h>
#include <uv.h>

#include "raftstore/assembly.h"
#include "raftstore/identify.h"
#include "raftstore/limits.h"
#include "raftstore/raftnet.h"

#define QUEUE_LIMIT (4u * 1024 * 1024) /* Bytes that wait for a peer before requests to it are dropped. */

/* A dial that has taken so long is to a host that was not there. */
#define DIAL_STALE_MS 500u

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

/* uv_now(), but never 0, which says "not" in the fields above. */
static inline uint64_t net_now(const struct raftnet *net)
{
    uint64_t now = uv_now(net->loop);

    return now > 0 ? now : 1;
}

/* ---- raftnet.c ---- */

/* Calls 'cb', if there is one, with libraft's 'status' in the next turn of the loop. */
void raftnet_complete(struct raftnet *net, struct raft_io_send *req, raft_io_send_cb cb, int status);
/* To be called by whatever has ended, as its last act: where it was the last one, closing goes on. */
void raftnet_maybe_closed(struct raftnet *net);

/* ---- raftnet_send.c ---- */

/* Back on the connection that the request came in on, or else on our own. Never fails at once (raftnet.h). */
void raftnet_send_result(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
                         raft_io_send_cb cb);
/* 0: 'cb' comes, once. RAFT_NOCONNECTION: it does not. */
int raftnet_send_request(struct raftnet *net, struct raft_io_send *req, const struct raft_message *message,
                         raft_io_send_cb cb);

/* ---- raftnet_snapshot.c ---- */

/* Begins to send 'args', which stays libraft's until 'cb'; peer->out is open.
 *
 * libraft sends a snapshot again if the first try takes longer than its timeout. If it is the same one, the
 * transfer goes on, out of the new request's memory; the old request is through either way (status 0 changes
 * nothing in libraft, a failure would abort the new one). */
void raftnet_transfer_start(struct raftnet *net, struct peer *peer, struct raft_io_send *req,
                            const struct raft_install_snapshot *args, raft_io_send_cb cb);
/* Queues the next pieces, so many that heartbeats between them do not wait long. peer->out is open. */
void raftnet_transfer_pump(struct raftnet *net, struct peer *peer);
/* Tells libraft its 'status', if there is a transfer. */
void raftnet_transfer_end(struct raftnet *net, struct transfer *transfer, int status);

/* ---- raftnet_peer.c ---- */

/* NULL: nothing is known of it. */
struct peer *raftnet_peer_find(const struct raftnet *net, uint64_t server_id);
/* Makes it known, if it is not. Valid until another server's is asked for: that may forget one without a
 * connection. */
struct peer *raftnet_peer_get(struct raftnet *net, uint64_t server_id);
void raftnet_peer_free(struct raftnet *net, struct peer *peer); /* Nothing of it is under way. */
/* An open connection to the peer, NULL if there is none (yet); dials one, if it is time. */
struct conn *raftnet_peer_conn(struct raftnet *net, struct peer *peer, const char *address);
/* A dialled connection is gone: what waited for it is told, and the next one waits a little. */
void raftnet_peer_lost(struct raftnet *net, struct peer *peer, const char *reason);
/* Gives a dialled connection up; the next message dials anew, without a pause. */
void raftnet_peer_redial(struct raftnet *net, struct peer *peer, const char *reason);

/* ---- raftnet_link.c ---- */

/* Makes peer->out, unless there is one or its pause is not over. */
void raftnet_peer_dial(struct raftnet *net, struct peer *peer, const char *address);
/* What has arrived from a server that is heard goes to libraft. It may end the link. */
void raftnet_link_hear(struct link *link, const uint8_t *bytes, size_t size);
/* Ends the link, and says so in the journal, but not too often. */
void raftnet_link_refuse_message(struct link *link, const char *text);

/* ---- raftnet_caller.c ---- */

/* Compares a caller with where its server is, as that may have changed; where it is not known yet that it is
 * the server, asks. One that is in no configuration of ours has no address that it could be compared with
 * (see the top of raftnet.h). */
void raftnet_link_look(struct link *link);
/* Older calls of the server are over. One that is not known to be the server ends only its own. */
void raftnet_link_replaces(struct link *link);
/* What a caller says before it is known who it is: copied, up to a limit; beyond it the link ends. */
void raftnet_link_keep(struct link *link, const uint8_t *bytes, size_t size);
void raftnet_link_forget_waiting(struct link *link);
/* One that was begun when the host was not there may be waiting for nothing: it has called meanwhile. */
void raftnet_drop_stale_inquiry(struct raftnet *net, uint64_t server_id);
