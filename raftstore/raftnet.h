/* SPDX-License-Identifier: Apache-2.0 */
/* libraft's messages over our cluster port. libraft's own transport is not used: it has no TCP_NODELAY, knows
 * no names, trusts every stranger and dies of a 64-byte message (docs/RAFT.md §5). Instead raftnet takes the
 * place of raft_io.send, encodes each message itself, and hands what arrives, decoded and checked, to the
 * recv callback that libraft gave to raft_io.start. Raft allows every message to be lost, so raftnet drops
 * rather than queue without bound: a peer that is not connected, a queue over its limit, a frame that does
 * not decode.
 *
 * One connection per direction and pair of servers, opened when there is something to say, and again with a
 * growing pause while it fails. Requests go out on the connection that this server has dialled; results go
 * back on the one that their request came in on. So a server that is being added, whose configuration is
 * still empty, can answer a leader whose address it does not know.
 *
 * A message over a frame's size is cut: AppendEntries into several that follow each other, as a leader may
 * always send them (what a slow peer has no room for is dropped, and the send callback says so: libraft then
 * probes); a snapshot into pieces, of which only a few wait at any time.
 *
 * Who is listened to: of a server of the configuration only the host that answers at the address which the
 * configuration has for it, in that host's present boot (identify.h). A copy of its disk bears the same
 * server id; but where one server is two, both may vote in one term, and so elect two leaders. Who calls is
 * heard when it is known who is at that address, which takes one connection: the caller itself; otherwise it
 * is hung up. One may call from elsewhere, if nobody is where it was: the only voter, of whom nobody can tell
 * us where it is, but itself. (docs/RAFT.md §5.)
 *
 * Besides that every server that the owner of the port lets in, in the configuration or not.
 * Dissertation, section 4.1: a server must follow a leader, and vote for a candidate, that its own
 * configuration does not have (yet); a lagging voter that refuses its vote to a newer one can block both for
 * good. Removed servers are kept from disturbing by pre-vote, or by on_accept refusing those ids that are
 * known to be removed. */
#pragma once

#include <stdbool.h>

#include <raft/uv.h>
#include <uv.h>

#include "raftstore/port.h"
#include "raftstore/raft_compat.h"

struct raftnet;

struct raftnet_callbacks {
    /* Where a server of the current Raft configuration is; copies up to ADDRESS_MAX bytes and a NUL into
     * 'address'. -ENOENT: not (any more) a member: nothing is sent to it, but results. Asked for every
     * message. */
    int (*on_resolve)(uint64_t server_id, char *address, void *data);

    /* Where a server has to be to be heard: likewise. -ENOENT: anywhere, for want of an address. With
     * '*ret_may_move' (false before) also elsewhere, unless another host answers as this server at
     * 'address'. NULL: on_resolve tells. */
    int (*on_locate)(uint64_t server_id, char *address, bool *ret_may_move, void *data);
};

struct raftnet *raftnet_new(uv_loop_t *loop, struct port *port, const struct raftnet_callbacks *callbacks,
                            void *data);

/* Puts itself into 'io' in place of send, start (to learn recv) and close. Call after raft_uv_init() and
 * before the guard.
 *
 * What send() promises: RAFT_NOCONNECTION at once for a request that cannot leave; results never fail at
 * once, because libraft 0.15 frees a rejected AppendEntries twice if they do (recv_append_entries.c,
 * 'reply'). With libraft 0.22 nothing fails at once (RAFT_COMPAT_SEND_MAY_FAIL). Otherwise the callback comes
 * once, later: 0 (it is queued), RAFT_NOCONNECTION (not, or not all of it), RAFT_CANCELED (closing); for a
 * snapshot when its last piece is with the kernel. Without a callback (TimeoutNow) 'req' is not kept. */
void raftnet_install(struct raftnet *net, struct raft_io *io);

/* What the owner of the port calls from on_accept for PURPOSE_RAFT: callbacks for an incoming connection of
 * 'server_id', in the boot that its Hello tells (BOOT_ID_SIZE bytes; and then on_accept must return 0). An
 * older one of the same server is closed when it is known that this is the server. NULL: Raft is not running
 * (not started, or closing), refuse. */
const struct conn_callbacks *raftnet_accept(struct raftnet *net, uint64_t server_id, const uint8_t *boot_id,
                                            void **ret_data);

/* When a message of this server last arrived (uv_now() ms), 0 for never. */
uint64_t raftnet_last_heard_ms(const struct raftnet *net, uint64_t server_id);

/* Ends what was dialled to servers of which 'keep' says no: nothing is to be said to them any more. */
void raftnet_hang_up(struct raftnet *net, bool (*keep)(uint64_t server_id, void *data), void *data);

/* After raft_close() has called back (also inside that callback), or if raft_init() was never called.
 * NULL-safe. The port must outlive raft_close(). */
void raftnet_free(struct raftnet *net);

/* A struct raft_uv_transport that never connects nor accepts: raft_uv_init() wants one. */
void raftnet_null_transport(struct raft_uv_transport *transport);
