/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/tls_stream.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "raftstore/tls_alert.h"

struct tls_stream {
    gnutls_session_t session;
    struct tls_credentials *credentials;
    const uint8_t *in; /* Borrowed. */
    size_t in_size;
    uint8_t *out;
    size_t out_size, out_capacity;
};

static ssize_t on_pull(gnutls_transport_ptr_t ptr, void *to, size_t size)
{
    struct tls_stream *stream = ptr;
    size_t n = size < stream->in_size ? size : stream->in_size;

    if (n == 0) {
        gnutls_transport_set_errno(stream->session, EAGAIN);
        return -1;
    }
    memcpy(to, stream->in, n);
    stream->in += n;
    stream->in_size -= n;
    return (ssize_t)n;
}

static ssize_t on_push(gnutls_transport_ptr_t ptr, const void *bytes, size_t size)
{
    struct tls_stream *stream = ptr;

    GROW(stream->out, stream->out_capacity, stream->out_size + size);
    memcpy(stream->out + stream->out_size, bytes, size);
    stream->out_size += size;
    return (ssize_t)size;
}

/* Only early data and DTLS ask; but then it must not look at a socket. */
static int on_pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
    return ((struct tls_stream *)ptr)->in_size > 0;
}

struct tls_stream *tls_stream_new(gnutls_session_t session, struct tls_credentials *credentials)
{
    struct tls_stream *stream = NEW0(struct tls_stream);

    stream->session = session;
    stream->credentials = credentials;
    gnutls_transport_set_ptr(session, stream);
    gnutls_transport_set_pull_function(session, on_pull);
    gnutls_transport_set_pull_timeout_function(session, on_pull_timeout);
    gnutls_transport_set_push_function(session, on_push);
    return stream;
}

void tls_stream_free(struct tls_stream *stream)
{
    if (stream == NULL)
        return;
    gnutls_deinit(stream->session);
    tls_credentials_unref(stream->credentials);
    free(stream->out);
    free(stream);
}

void tls_stream_feed(struct tls_stream *stream, const void *bytes, size_t size)
{
    stream->in = bytes;
    stream->in_size = size;
}

int tls_stream_read(struct tls_stream *stream, void *to, size_t size, struct err *err)
{
    char text[256];
    size_t before;
    ssize_t r;

    do { /* A record that is no data (KeyUpdate) ends a call, too. */
        before = stream->in_size;
        r = gnutls_record_recv(stream->session, to, size < INT_MAX ? size : INT_MAX);
    } while (r == GNUTLS_E_AGAIN && stream->in_size > 0 && stream->in_size < before);
    if (r >= 0)
        return (int)r;
    if (r == GNUTLS_E_AGAIN)
        return -EAGAIN;
    if (r == GNUTLS_E_FATAL_ALERT_RECEIVED || r == GNUTLS_E_WARNING_ALERT_RECEIVED) {
        tls_alert_text(gnutls_alert_get(stream->session), text, sizeof(text));
        return err_set(err, -ECONNABORTED, "%s", text);
    }
    return err_set(err, -EPROTO, "what came is not the other side's, or was altered on its way: %s",
                   gnutls_strerror((int)r));
}

int tls_stream_write(struct tls_stream *stream, const void *bytes, size_t size, size_t expect,
                     struct err *err)
{
    const uint8_t *at = bytes;
    size_t all = size + expect;

    GROW(stream->out, stream->out_capacity,
         stream->out_size + all + (all / TLS_RECORD_MAX + 1) * TLS_RECORD_OVERHEAD);
    while (size > 0) {
        ssize_t r = gnutls_record_send(stream->session, at, size < TLS_RECORD_MAX ? size : TLS_RECORD_MAX);

        if (r < 0) /* Not for want of room: on_push() takes everything. */
            return err_set(err, -EPROTO, "cannot encrypt: %s", gnutls_strerror((int)r));
        at += r;
        size -= (size_t)r;
    }
    return 0;
}

void tls_stream_end(struct tls_stream *stream)
{
    (void)gnutls_bye(stream->session, GNUTLS_SHUT_WR); /* on_push() takes everything. */
}

int tls_stream_binding(const struct tls_stream *stream, uint8_t ret[TLS_BINDING_SIZE])
{
    static const char label[] = "EXPORTER-fleet-proof";

    return gnutls_prf_rfc5705(stream->session, sizeof(label) - 1, label, 0, NULL, TLS_BINDING_SIZE,
                              (char *)ret) < 0
               ? -EIO
               : 0;
}

size_t tls_stream_pending(const struct tls_stream *stream)
{
    return stream->out_size;
}

uint8_t *tls_stream_take(struct tls_stream *stream, size_t *ret_size)
{
    uint8_t *bytes = stream->out;

    *ret_size = stream->out_size;
    if (stream->out_size == 0)
        return NULL;
    stream->out = NULL;
    stream->out_size = stream->out_capacity = 0;
    return bytes;
}
