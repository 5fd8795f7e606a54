/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on a connection whose TLS handshake is done, from one who has not got its keys. The first byte says
 * in what steps they arrive, the second how many good records come before. Nothing of it is ever taken for
 * the other side's. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "pki/pki.h"
#include "raftstore/tls_stream.h"
#include "tests/fuzz/fuzz.h"

#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3"

/* A wire between two sessions of one process, one direction. */
struct wire {
    uint8_t bytes[16384];
    size_t size;
};

struct end {
    gnutls_session_t session;
    struct wire *in, *out;
};

static ssize_t on_push(gnutls_transport_ptr_t ptr, const void *bytes, size_t size)
{
    struct wire *wire = ((struct end *)ptr)->out;

    assert(wire->size + size <= sizeof(wire->bytes));
    memcpy(wire->bytes + wire->size, bytes, size);
    wire->size += size;
    return (ssize_t)size;
}

static ssize_t on_pull(gnutls_transport_ptr_t ptr, void *bytes, size_t size)
{
    struct end *end = ptr;
    size_t n = size < end->in->size ? size : end->in->size;

    if (n == 0) {
        gnutls_transport_set_errno(end->session, EAGAIN);
        return -1;
    }
    memcpy(bytes, end->in->bytes, n);
    memmove(end->in->bytes, end->in->bytes + n, end->in->size - n);
    end->in->size -= n;
    return (ssize_t)n;
}

static struct tls_credentials *credentials(void)
{
    static struct tls_credentials *credentials;
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = "0123456789abcdef0123456789abcdef"},
                                  .not_after_ms = 4102444800000};
    _cleanup_(pki_blob_done) struct pki_blob authority = {0}, request = {0}, certificate = {0};
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r;

    if (credentials != NULL)
        return tls_credentials_ref(credentials);
    r = pki_key_new(&key, NULL);
    if (r == 0)
        r = pki_authority_new(subject.name.cluster_id, key, 4102444800000, &authority, NULL);
    if (r == 0)
        r = pki_request_new(key, &request, NULL);
    if (r == 0)
        r = pki_sign(authority.data, authority.size, key, request.data, request.size, &subject, &certificate,
                     NULL, NULL);
    if (r == 0)
        r = tls_credentials_new(key, &certificate, 1, &authority, 1, &credentials, NULL);
    assert(r == 0);
    return tls_credentials_ref(credentials);
}

static void end_init(struct end *end, unsigned flags, struct wire *in, struct wire *out)
{
    *end = (struct end){.in = in, .out = out};
    gnutls_init(&end->session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
    gnutls_priority_set_direct(end->session, PRIORITY, NULL);
    gnutls_credentials_set(end->session, GNUTLS_CRD_CERTIFICATE, tls_credentials_gnutls(credentials()));
    gnutls_handshake_set_timeout(end->session, GNUTLS_INDEFINITE_TIMEOUT);
    gnutls_transport_set_ptr(end->session, end);
    gnutls_transport_set_push_function(end->session, on_push);
    gnutls_transport_set_pull_function(end->session, on_pull);
}

static void shake(struct end *server, struct end *client)
{
    int r = GNUTLS_E_AGAIN, q = GNUTLS_E_AGAIN;

    while (r == GNUTLS_E_AGAIN || q == GNUTLS_E_AGAIN) {
        if (q == GNUTLS_E_AGAIN)
            q = gnutls_handshake(client->session);
        if (r == GNUTLS_E_AGAIN)
            r = gnutls_handshake(server->session);
    }
    assert(r == 0 && q == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wire up, down;
    struct end server, client;
    struct tls_stream *here, *there;
    uint8_t plain[TLS_RECORD_MAX];
    struct err err = {0};
    size_t good = 0;
    int r = -EAGAIN;

    if (size < 2)
        return 0;
    up.size = down.size = 0;
    end_init(&server, GNUTLS_SERVER, &up, &down);
    end_init(&client, GNUTLS_CLIENT, &down, &up);
    shake(&server, &client);
    here = tls_stream_new(server.session, credentials());
    there = tls_stream_new(client.session, credentials());

    for (unsigned i = 0; i < data[1] % 4u; i++) {
        size_t wire_size;
        uint8_t *wire;

        r = tls_stream_write(there, "a good one", 10, 0, &err);
        assert(r == 0);
        wire = tls_stream_take(there, &wire_size);
        tls_stream_feed(here, wire, wire_size);
        while ((r = tls_stream_read(here, plain, sizeof(plain), &err)) > 0)
            good += (size_t)r;
        assert(r == -EAGAIN && good == 10 * (i + 1));
        free(wire);
    }
    for (size_t at = 2, step = data[0] + 1u; at < size && r == -EAGAIN; at += step) {
        tls_stream_feed(here, data + at, size - at < step ? size - at : step);
        r = tls_stream_read(here, plain, sizeof(plain), &err);
    }
    assert(r == -EAGAIN || ((r == -EPROTO || r == -ECONNABORTED) && err.text[0] != '\0'));
    assert(tls_stream_pending(here) == 0);
    tls_stream_free(here);
    tls_stream_free(there);
    return 0;
}
