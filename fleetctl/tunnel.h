/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to a fleetd that only another host can reach, by the user's own ssh (fleet-behaviour.md §1.3):
 * to a Unix socket through "fleetctl fd-forward SOCKET" there, to HTTP through "ssh -W".
 *
 * A tunnel is a Unix socket of our own, without a file, that only this process may connect to. Whenever it
 * has, one ssh is started whose stdin and stdout are the other end. What that says on stderr, and asks on the
 * terminal, reaches the user. It ends with its connection. */
#pragma once

#include "base/cleanup.h"
#include "base/err.h"
#include "fleetctl/endpoint.h"
#include "fleetctl/options.h"

struct tunnel;

/* -EINVAL: the host of the tunnel, or an option for ssh, is not fit to be passed on. The caller owns *ret. */
int tunnel_new(const struct options *o, const struct endpoint *endpoint, struct tunnel **ret,
               struct err *err);
/* Waits, not long, until every ssh has ended. All connections must be closed. */
void tunnel_free(struct tunnel *t);
DEFINE_FREEP(struct tunnel, tunnel)

/* The path of its socket. Borrowed. */
const char *tunnel_path(const struct tunnel *t);

/* Starts an ssh for each new connection. To be called after a connection was made; does not wait. -ENOTCONN
 * and a text if it cannot. */
int tunnel_serve(struct tunnel *t, struct err *err);

/* To be called when a connection broke, and is closed: why, if it was for ssh or what it ran: "ssh to HOST
 * failed", ... NULL: no such thing. Waits, not long, for ssh to end. Borrowed. */
const char *tunnel_trouble(struct tunnel *t);
