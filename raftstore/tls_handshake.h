/* SPDX-License-Identifier: Apache-2.0 */
/* TLS handshakes, in a thread of their own: they are the expensive part of a connection (signatures,
 * certificates), and the part in which nobody knows yet who it is. So they never run on a daemon's loop,
 * their thread gives way to it (TLS_THREAD_NICE), and there are never more than TLS_HANDSHAKES_MAX of them:
 * then the oldest one that was not begun by us is dropped, for one that means it is done in milliseconds.
 *
 * The thread works on a duplicate of the socket's descriptor. While it does, the owner does not touch the
 * socket, but may close it. After it, the owner goes on with a tls_stream, which needs neither this thread
 * nor any other. A peer that is refused hears why, in a TLS alert (tls_alert.h); so that it does hear, the
 * duplicate stays open for up to TLS_LINGER_MS after the result is with the owner.
 *
 * TLS 1.3 only, ALPN, no tickets, no early data, no resumption; certificates as pki/ has them. Used by the
 * cluster port (port.c); another server can use it just so, with its own protocols and demands, on any libuv
 * loop. */
#pragma once

#include <uv.h>

#include "raftstore/tls_credentials.h"
#include "raftstore/tls_stream.h"

#define TLS_THREAD_NICE 5
#define TLS_LINGER_MS   1000u

struct tls_handshaker; /* The thread. */
struct tls_handshake;  /* One connection in it. */

/* What a server asks of one who uses a protocol. */
enum tls_demand {
    TLS_DEMAND_NOTHING, /* Certificates are not even asked for. */
    TLS_DEMAND_IF_ANY,  /* Need not show one; but one that is shown must hold. */
    TLS_DEMAND_CERTIFICATE,
};

/* By its ALPN name. */
struct tls_protocol {
    const char *name;
    enum tls_demand demand;
};

enum { TLS_TAKE_MACHINES = 1 << 0, TLS_TAKE_CLIENTS = 1 << 1 };

struct tls_options {
    bool client;
    struct tls_credentials *credentials; /* A reference is taken. A server's are never nobody's. */
    /* The server's in its order of preference; exactly one of a client. Kept, with their names, until the
     * result. */
    const struct tls_protocol *protocols;
    size_t protocol_count;
    bool protocol_optional; /* A server: one who names no protocol at all gets the first one. */
    unsigned take;          /* Whose certificates: TLS_TAKE_*. */
    bool pinned; /* A client: the server's authority is known by 'pin', not by the credentials' roots. */
    uint8_t pin[PKI_PIN_SIZE];
    uint64_t timeout_ms; /* For all of it. */
};

/* 'r': 0, or
 *   -EPROTONOSUPPORT   it talks no TLS (a server: 'first_byte' is what it began with; nothing was read of it)
 *   -EKEYEXPIRED       its certificate, or the authority's, has ended
 *   -EKEYREJECTED      its certificate is not taken: another cluster's, damaged...
 *   -EACCES            its certificate is of a kind that is not taken here
 *   -ENOKEY            it shows no certificate, and must
 *   -ECONNABORTED      it has refused us, 'text' says why
 *   -ETIMEDOUT, -ENOBUFS (dropped, TLS_HANDSHAKES_MAX), -ECONNRESET and what else a socket may return
 *   -EPROTO            anything else
 * 'text' is for people and says "the other side ...". */
struct tls_result {
    int r;
    const char *text;
    uint8_t first_byte;
    struct tls_stream *stream;           /* TAKE_PTR() it; what is left is freed. NULL if r < 0. */
    const struct tls_protocol *protocol; /* Which was agreed upon. */
    const struct pki_info *peer;         /* NULL: it has shown no certificate. */
};

/* Borrowed for the call. */
typedef void tls_handshake_callback(struct tls_result *result, void *data);

/* Results come on this loop. */
struct tls_handshaker *tls_handshaker_new(uv_loop_t *loop);

/* Ends what is under way, without a callback; 'done' when nothing is left. */
void tls_handshaker_close(struct tls_handshaker *handshaker, void (*done)(void *data), void *data);

/* Begins one on a connected, non-blocking socket. The callback comes exactly once, never at once, unless it
 * is cancelled. -errno (with nothing begun): no descriptor left. */
int tls_handshake_start(struct tls_handshaker *handshaker, int fd, const struct tls_options *options,
                        tls_handshake_callback *callback, void *data, struct tls_handshake **ret);

/* No callback any more; before it only. */
void tls_handshake_cancel(struct tls_handshake *handshake);

/* How many are under way and not dropped yet. */
unsigned tls_handshaker_count(const struct tls_handshaker *handshaker);
