/* SPDX-License-Identifier: Apache-2.0 */
/* The records of a TLS session whose handshake is done: bytes of the wire in, plain bytes out, and the other
 * way round. Touches no socket, and never waits; used by one thread at a time. Keys are changed when they
 * have been used enough (KeyUpdate), by itself; nothing else is negotiated any more. */
#pragma once

#include <gnutls/gnutls.h>

#include "base/err.h"
#include "raftstore/tls_credentials.h"

#define TLS_RECORD_MAX 16384u /* Plain bytes of one record (RFC 8446 §5.1). */
#define TLS_RECORD_OVERHEAD                                                         \
    64u /* What it is longer on the wire, at most: header, type, tag (22 as it is). \
         */

struct tls_stream;

/* Takes the session, and the reference to what it was made with. */
struct tls_stream *tls_stream_new(gnutls_session_t session, struct tls_credentials *credentials);
void tls_stream_free(struct tls_stream *stream); /* NULL-safe. */

/* Bytes from the wire, borrowed: until tls_stream_read() has returned something else than bytes, or the next
 * call. */
void tls_stream_feed(struct tls_stream *stream, const void *bytes, size_t size);

/* Plain bytes, at most INT_MAX: how many (> 0); 0: the other side has said that it sends no more; -EAGAIN:
 * feed more; -ECONNABORTED: the other side has ended it, with a reason; -EPROTO: what came is not of this
 * session, or altered on its way. After these two the stream is of no use. */
int tls_stream_read(struct tls_stream *stream, void *to, size_t size, struct err *err);

/* Encrypts; what comes of it is put behind tls_stream_pending(). 'expect' says how much more will be written
 * before it is taken, for one allocation instead of several; 0: nothing. */
int tls_stream_write(struct tls_stream *stream, const void *bytes, size_t size, size_t expect,
                     struct err *err);

/* A number that both ends of this session know, nobody else, and that no other session has (RFC 8446 §7.5).
 */
#define TLS_BINDING_SIZE 32u
int tls_stream_binding(const struct tls_stream *stream, uint8_t ret[TLS_BINDING_SIZE]);

/* Says that nothing more comes (close_notify). */
void tls_stream_end(struct tls_stream *stream);

/* Bytes for the wire, also such as reading has caused. */
size_t tls_stream_pending(const struct tls_stream *stream);

/* All of them: free(). NULL if there are none. */
uint8_t *tls_stream_take(struct tls_stream *stream, size_t *ret_size);
