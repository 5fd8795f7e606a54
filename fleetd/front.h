/* SPDX-License-Identifier: Apache-2.0 */
/* The remote API's front: accepts TCP, does TLS 1.3 with certificates on both sides, and hands plain bytes
 * on, with who is at the other end. In a thread with a loop of its own, so that neither what encrypts nor who
 * floods takes time from the daemon's; handshakes are in yet another (raftstore/tls_handshake.h).
 *
 *      client === TCP, TLS ===  front (thread)  --- socket pair, plain --- HTTP server (the daemon's loop)
 *
 * Nobody gets past it without a certificate of this cluster that holds, of a client or of a machine. What
 * they may do is decided behind it (access.h).
 *
 * Everything is bounded. Connections: FRONT_CONNECTIONS_MAX together, FRONT_PER_ADDRESS_MAX of one address
 * (of IPv6: of one /64 network); who comes beyond that is closed at once, and so cannot keep others out. Of
 * these, FRONT_HANDSHAKES_PER_ADDRESS_MAX may not have shown a certificate yet; for one more, the
 * oldest goes, in a network one of the address that has most (base/origin.h), so that a crowd does not keep
 * out who is behind the same address. Memory of one: FRONT_BUFFERS_MAX for what is on its way in either
 * direction, and what GnuTLS keeps; reading stops while the other side does not read. Time:
 * FRONT_HANDSHAKE_MS for the handshake; FRONT_STALL_MS in which the client takes nothing of what is there for
 * it; for all else the HTTP server has limits, and ends the connection. It also ends when the client's
 * certificate does. */
#pragma once

#include <stdbool.h>

#include <uv.h>

#include "base/err.h"
#include "fleetd/peer.h"
#include "raftstore/tls_credentials.h"

#define FRONT_CONNECTIONS_MAX            512u
#define FRONT_PER_ADDRESS_MAX            64u
#define FRONT_HANDSHAKES_PER_ADDRESS_MAX 16u
#define FRONT_HANDSHAKE_MS               10000u
#define FRONT_STALL_MS                   30000u
#define FRONT_FINISH_MS                  5000u /* To take what is left when the HTTP server has ended it. */
#define FRONT_CHUNK                      16384u
#define FRONT_BUFFERS_MAX                (7 * FRONT_CHUNK)

struct front;

/* 'fd' is the plain side of a new connection, to be owned; 'peer' is borrowed for the call. On the daemon's
 * loop. */
typedef void front_arrival(int fd, const struct peer *peer, void *data);

struct front *front_new(uv_loop_t *loop, front_arrival *on_arrival, void *data);

/* By which this host proves itself, and knows others, from now on; a reference is taken. What is open goes
 * on. Until there are any, whoever connects is closed. */
void front_set_credentials(struct front *front, struct tls_credentials *credentials);

/* Serves a listening TCP socket, which it owns from now on; and no longer: nobody is accepted from this call
 * on, and its address is free; connections that were made over it live on. */
void front_add(struct front *front, int fd);
void front_remove(struct front *front, int fd);

/* Ends everything; no arrival comes any more. 'done' when nothing is left; it is freed then. */
void front_close(struct front *front, void (*done)(void *data), void *data);

unsigned front_connections(const struct front *front); /* Open ones, handshakes included. */
