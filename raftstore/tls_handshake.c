/* SPDX-License-Identifier: Apache-2.0 */
/* Two halves. The owner's runs on the owner's loop; the thread's runs on 'own', on handshakes that were
 * handed to it. Between them: three lists under one lock, and an async handle in each direction.
 *
 *      owner                      thread
 *      start   -> submitted   ->  begin, step, step...
 *      report  <- finished    <-  finish (then lingers, if the peer is to hear why)
 *
 * Every handshake is reported exactly once, also those that were cancelled: so each half knows when it holds
 * the last reference. */
#include <config.h>

#include "raftstore/tls_handshake.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/times.h"
#include "raftstore/limits.h"
#include "raftstore/tls_alert.h"

/* What we have certificates for, and nothing older. */
#define PRIORITY                                                                                           \
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:+GROUP-X25519:+GROUP-SECP256R1:" \
    "+SIGN-ECDSA-SECP256R1-SHA256:+CTYPE-X509"
#define HANDSHAKE_MESSAGE_MAX (PKI_CHAIN_MAX * (PKI_CERTIFICATE_MAX + 16u) + 1024u)
#define LINGER_BYTES_MAX      (256u * 1024) /* Of one who goes on talking. */

struct tls_handshaker {
    uv_loop_t *loop; /* The owner's. */
    uv_async_t reports;
    struct tls_handshake *all; /* Not reported yet, oldest first; the owner's. */
    unsigned count;            /* Of those, not dropped yet. */
    bool closing;
    void (*done)(void *data);
    void *done_data;

    uv_mutex_t lock;
    struct tls_handshake *submitted, *finished;
    bool stop, ended;

    uv_thread_t thread;
    uv_loop_t own; /* The thread's, from here on. */
    uv_async_t wake;
    struct tls_handshake *active;
    char drain[4096];
};

struct tls_handshake {
    struct tls_handshaker *handshaker;
    atomic_uint refs; /* The owner's until it is reported, the thread's. */
    struct tls_options options;

    /* The owner's. */
    struct tls_handshake *prev, *next; /* In 'all'. */
    tls_handshake_callback *callback;  /* NULL: cancelled. */
    void *data;
    bool dropped;

    /* Under the lock. */
    struct tls_handshake *queue_prev, *queue_next; /* In 'submitted', then in 'finished'. */
    bool taken;                                    /* By the thread. */

    atomic_bool stop; /* The owner wants no more of it. */

    /* The thread's, until it is reported. */
    struct tls_handshake *active_prev, *active_next;
    int fd;
    gnutls_session_t session;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles;
    bool seen /* the first byte */, reported, lingers, closing, verified;
    int polled;
    size_t drained;
    int alert; /* What to send if it fails; -1: what GnuTLS thinks. */

    struct tls_stream *stream;
    const struct tls_protocol *protocol;
    struct pki_info peer;
    uint8_t first_byte;
    int r;
    struct err err;
};

static void handshake_unref(struct tls_handshake *handshake)
{
    if (atomic_fetch_sub(&handshake->refs, 1) > 1)
        return;
    assert(handshake->session == NULL && handshake->fd < 0);
    tls_stream_free(handshake->stream);
    tls_credentials_unref(handshake->options.credentials);
    free(handshake);
}

/* Either half; 'r' and what belongs to it are set. */
static void hand_back(struct tls_handshake *handshake)
{
    struct tls_handshaker *handshaker = handshake->handshaker;

    uv_mutex_lock(&handshaker->lock);
    DL_APPEND2(handshaker->finished, handshake, queue_prev, queue_next);
    uv_mutex_unlock(&handshaker->lock);
    uv_async_send(&handshaker->reports);
}

/* ---- the thread: certificates ---- */

static int verify_chain(struct tls_handshake *handshake, const gnutls_datum_t *certificates, unsigned count,
                        struct err *err)
{
    const struct tls_options *options = &handshake->options;
    struct pki_blob chain[PKI_CHAIN_MAX];
    const struct pki_blob *roots;
    size_t root_count;
    int r;

    if (count > PKI_CHAIN_MAX)
        return err_set(err, -EKEYREJECTED, "there are %u certificates, the limit is %u", count,
                       PKI_CHAIN_MAX);
    for (unsigned i = 0; i < count; i++)
        chain[i] = (struct pki_blob){.data = certificates[i].data, .size = certificates[i].size};
    roots = tls_credentials_roots(options->credentials, &root_count);
    if (options->pinned)
        r = pki_verify_pinned(chain, count, options->pin, wall_ms(), &handshake->peer, NULL, err);
    else
        r = pki_verify(chain, count, roots, root_count, wall_ms(), &handshake->peer, err);
    if (r < 0)
        return r;
    if (handshake->peer.name.kind == PKI_MACHINE ? !(options->take & TLS_TAKE_MACHINES)
                                                 : !(options->take & TLS_TAKE_CLIENTS))
        return err_set(err, -EACCES, "the certificate is a %s's, which is not taken here",
                       handshake->peer.name.kind == PKI_MACHINE ? "machine" : "client");
    return 0;
}

static int on_verify(gnutls_session_t session)
{
    struct tls_handshake *handshake = gnutls_session_get_ptr(session);
    unsigned count = 0;
    const gnutls_datum_t *certificates = gnutls_certificate_get_peers(session, &count);
    int r;

    if (certificates == NULL || count == 0) {
        if (!handshake->options.client && handshake->protocol->demand != TLS_DEMAND_CERTIFICATE)
            return 0;
        r = err_set(&handshake->err, -ENOKEY, "shows no certificate");
        handshake->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
    } else {
        r = verify_chain(handshake, certificates, count, &handshake->err);
        handshake->alert = r == 0 ? -1 : tls_alert_of_error(r);
    }
    if (r < 0)
        err_prefix(&handshake->err, r, "the other side");
    handshake->r = r;
    handshake->verified = r == 0;
    return r < 0 ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

static int find_protocol(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    gnutls_datum_t name;

    if (gnutls_alpn_get_selected_protocol(handshake->session, &name) < 0) {
        if (options->client || !options->protocol_optional)
            return -EPROTO;
        handshake->protocol = &options->protocols[0];
        return 0;
    }
    for (size_t i = 0; i < options->protocol_count; i++)
        if (strlen(options->protocols[i].name) == name.size &&
            memcmp(options->protocols[i].name, name.data, name.size) == 0) {
            handshake->protocol = &options->protocols[i];
            return 0;
        }
    return -EPROTO;
}

/* A server has read what the client wants: so it knows what to demand. */
static int on_client_hello(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                           const gnutls_datum_t *message)
{
    static const gnutls_certificate_request_t requests[] = {
        [TLS_DEMAND_NOTHING] = GNUTLS_CERT_IGNORE,
        [TLS_DEMAND_IF_ANY] = GNUTLS_CERT_REQUEST,
        [TLS_DEMAND_CERTIFICATE] = GNUTLS_CERT_REQUIRE,
    };
    struct tls_handshake *handshake = gnutls_session_get_ptr(session);

    if (find_protocol(handshake) < 0)
        return GNUTLS_E_NO_APPLICATION_PROTOCOL;
    gnutls_certificate_server_set_request(session, requests[handshake->protocol->demand]);
    return 0;
}

/* ---- the thread: the end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct tls_handshake *handshake = handle->data;

    if (--handshake->handles > 0)
        return;
    DL_DELETE2(handshake->handshaker->active, handshake, active_prev, active_next);
    handshake_unref(handshake);
}

/* The duplicate is closed at once: libuv has forgotten it when uv_poll_stop() returns. */
static void handshake_close(struct tls_handshake *handshake)
{
    if (handshake->closing)
        return;
    handshake->closing = true;
    uv_poll_stop(&handshake->poll);
    uv_close((uv_handle_t *)&handshake->poll, on_handle_closed);
    uv_close((uv_handle_t *)&handshake->timer, on_handle_closed);
    if (handshake->session != NULL)
        gnutls_deinit(handshake->session);
    handshake->session = NULL;
    close(handshake->fd);
    handshake->fd = -1;
}

/* From here on nothing of the result is the thread's any more. */
static void handshake_report(struct tls_handshake *handshake)
{
    if (handshake->reported)
        return;
    handshake->reported = true;
    hand_back(handshake);
}

static void on_timeout(uv_timer_t *timer);
static void on_ready(uv_poll_t *poll, int status, int events);

static void handshake_poll(struct tls_handshake *handshake, int events)
{
    if (handshake->polled == events)
        return;
    handshake->polled = events;
    if (uv_poll_start(&handshake->poll, events, on_ready) < 0)
        handshake_close(handshake);
}

/* The last thing we say must not be overtaken by a reset, which close() sends if something was not read. */
static void handshake_linger(struct tls_handshake *handshake)
{
    handshake->lingers = true;
    (void)shutdown(handshake->fd, SHUT_WR);
    uv_timer_start(&handshake->timer, on_timeout, TLS_LINGER_MS, 0);
    handshake_poll(handshake, UV_READABLE);
}

static void handshake_drain(struct tls_handshake *handshake)
{
    struct tls_handshaker *handshaker = handshake->handshaker;
    ssize_t n;

    do {
        n = recv(handshake->fd, handshaker->drain, sizeof(handshaker->drain), MSG_DONTWAIT);
        handshake->drained += n > 0 ? (size_t)n : 0;
    } while (n > 0 && handshake->drained < LINGER_BYTES_MAX);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    handshake_close(handshake);
}

static void handshake_fail(struct tls_handshake *handshake, int r)
{
    bool linger = handshake->alert >= 0;

    if (linger) /* If there is no room for the few bytes, nobody reads them anyway. */
        (void)gnutls_alert_send(handshake->session, GNUTLS_AL_FATAL,
                                (gnutls_alert_description_t)handshake->alert);
    handshake->r = r;
    handshake_report(handshake);
    if (linger)
        handshake_linger(handshake);
    else
        handshake_close(handshake);
}

static void on_timeout(uv_timer_t *timer)
{
    struct tls_handshake *handshake = timer->data;

    if (handshake->lingers) {
        handshake_close(handshake);
        return;
    }
    handshake->alert = -1;
    handshake_fail(handshake, err_set(&handshake->err, -ETIMEDOUT,
                                      "the other side did not finish the TLS handshake in time"));
}

/* What GnuTLS says, as our own code and text; on_verify() may have set both already. */
static int translate(struct tls_handshake *handshake, int code, int saved_errno)
{
    struct err *err = &handshake->err;
    char text[256];

    switch (code) {
    case GNUTLS_E_CERTIFICATE_ERROR:
        if (handshake->r < 0)
            return handshake->r;
        break;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
    case GNUTLS_E_WARNING_ALERT_RECEIVED:
        tls_alert_text(gnutls_alert_get(handshake->session), text, sizeof(text));
        return err_set(err, -ECONNABORTED, "%s", text);
    case GNUTLS_E_PREMATURE_TERMINATION:
        return err_set(err, -ECONNRESET, "the other side closed the connection in the TLS handshake");
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
        if (saved_errno == 0)
            saved_errno = ECONNRESET;
        return err_set(err, -saved_errno, "in the TLS handshake: %s", strerror(saved_errno));
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
        handshake->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
        return err_set(err, -ENOKEY, "the other side shows no certificate");
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        handshake->alert = GNUTLS_A_NO_APPLICATION_PROTOCOL;
        return err_set(err, -EPROTO, "the other side asks for a protocol that is not offered here");
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
    case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
    case GNUTLS_E_UNEXPECTED_PACKET:
        if (handshake->options.client)
            return err_set(err, -EPROTONOSUPPORT, "the other side does not talk TLS 1.3 (%s)",
                           gnutls_strerror(code));
        handshake->alert = GNUTLS_A_PROTOCOL_VERSION;
        break;
    default: break;
    }
    if (handshake->alert < 0)
        handshake->alert = gnutls_error_to_alert(code, NULL);
    return err_set(err, -EPROTO, "the TLS handshake with the other side failed: %s", gnutls_strerror(code));
}

/* ---- the thread: one after the other ---- */

static void handshake_succeed(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    bool must = options->client || handshake->protocol == NULL ||
                handshake->protocol->demand == TLS_DEMAND_CERTIFICATE;

    /* GnuTLS has seen to all of this; but everything hangs on it. */
    if (gnutls_protocol_get_version(handshake->session) != GNUTLS_TLS1_3 || find_protocol(handshake) < 0 ||
        (must && !handshake->verified)) {
        handshake->alert = GNUTLS_A_INTERNAL_ERROR;
        handshake_fail(handshake, err_set(&handshake->err, -EPROTO, "the other side is not who it must be"));
        return;
    }
    handshake->stream =
        tls_stream_new(TAKE_PTR(handshake->session), tls_credentials_ref(options->credentials));
    handshake->r = 0;
    handshake_close(handshake); /* First: from the report on the owner reads from the socket. */
    handshake_report(handshake);
}

/* What a client begins with: TLS, or something that is not for GnuTLS. Leaves it in the socket. */
static bool is_tls(struct tls_handshake *handshake)
{
    uint8_t byte;
    ssize_t n = recv(handshake->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n < 0) {
        n = errno;
        handshake_fail(handshake, err_set(&handshake->err, -(int)n, "%s", strerror((int)n)));
        return false;
    }
    if (n == 0) {
        handshake_fail(handshake,
                       err_set(&handshake->err, -ECONNRESET, "the other side went away without a word"));
        return false;
    }
    handshake->seen = true;
    handshake->first_byte = byte;
    if (byte == 0x16) /* "handshake", RFC 8446 §5.1 */
        return true;
    handshake_fail(handshake, err_set(&handshake->err, -EPROTONOSUPPORT, "the other side does not talk TLS"));
    return false;
}

static void handshake_step(struct tls_handshake *handshake)
{
    int code;

    if (!handshake->options.client && !handshake->seen && !is_tls(handshake))
        return;
    errno = 0;
    code = gnutls_handshake(handshake->session);
    if (code == GNUTLS_E_SUCCESS)
        handshake_succeed(handshake);
    else if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED)
        handshake_poll(handshake,
                       gnutls_record_get_direction(handshake->session) == 0 ? UV_READABLE : UV_WRITABLE);
    else
        handshake_fail(handshake, translate(handshake, code, errno));
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct tls_handshake *handshake = poll->data;

    if (handshake->closing)
        return;
    if (handshake->lingers)
        handshake_drain(handshake);
    else
        handshake_step(handshake); /* Also if status < 0: the socket says what it is. */
}

static int session_init(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    gnutls_datum_t names[8];
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
                     (options->client ? GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT : GNUTLS_SERVER);
    int r;

    assert(options->protocol_count > 0 && options->protocol_count <= ARRAY_SIZE(names));
    for (size_t i = 0; i < options->protocol_count; i++)
        names[i] = (gnutls_datum_t){.data = (unsigned char *)options->protocols[i].name,
                                    .size = strlen(options->protocols[i].name)};
    r = gnutls_init(&handshake->session, flags);
    if (r < 0)
        return r;
    r = gnutls_priority_set_direct(handshake->session, PRIORITY, NULL);
    if (r >= 0)
        r = gnutls_credentials_set(handshake->session, GNUTLS_CRD_CERTIFICATE,
                                   tls_credentials_gnutls(options->credentials));
    if (r >= 0)
        r = gnutls_alpn_set_protocols(handshake->session, names, options->protocol_count,
                                      GNUTLS_ALPN_MANDATORY | GNUTLS_ALPN_SERVER_PRECEDENCE);
    if (r < 0)
        return r;
    gnutls_session_set_ptr(handshake->session, handshake);
    gnutls_session_set_verify_function(handshake->session, on_verify);
    if (!options->client)
        gnutls_handshake_set_hook_function(handshake->session, GNUTLS_HANDSHAKE_CLIENT_HELLO,
                                           GNUTLS_HOOK_POST, on_client_hello);
    gnutls_handshake_set_max_packet_length(handshake->session, HANDSHAKE_MESSAGE_MAX);
    gnutls_handshake_set_timeout(handshake->session, GNUTLS_INDEFINITE_TIMEOUT); /* The timer is ours. */
    gnutls_transport_set_int(handshake->session, handshake->fd);
    return 0;
}

static void handshake_begin(struct tls_handshake *handshake)
{
    struct tls_handshaker *handshaker = handshake->handshaker;
    int r;

    DL_APPEND2(handshaker->active, handshake, active_prev, active_next);
    handshake->poll.data = handshake->timer.data = handshake;
    r = uv_poll_init(&handshaker->own, &handshake->poll, handshake->fd);
    if (r < 0) { /* Not a socket any more? */
        handshake->handles = 1;
        uv_timer_init(&handshaker->own, &handshake->timer);
        uv_close((uv_handle_t *)&handshake->timer, on_handle_closed);
        close(handshake->fd);
        handshake->fd = -1;
        handshake->closing = true;
        handshake->r = err_set(&handshake->err, r, "%s", uv_strerror(r));
        handshake_report(handshake);
        return;
    }
    uv_timer_init(&handshaker->own, &handshake->timer);
    handshake->handles = 2;
    r = session_init(handshake);
    if (r < 0) {
        handshake_fail(handshake,
                       err_set(&handshake->err, -EPROTO, "cannot begin TLS: %s", gnutls_strerror(r)));
        return;
    }
    uv_timer_start(&handshake->timer, on_timeout, handshake->options.timeout_ms, 0);
    handshake_poll(handshake, UV_READABLE);
    handshake_step(handshake);
}

static void handshake_stop(struct tls_handshake *handshake)
{
    if (!handshake->reported)
        handshake->r = err_set(&handshake->err, -ENOBUFS, "too many TLS handshakes that do not end");
    handshake_close(handshake);
    handshake_report(handshake);
}

static void on_wake(uv_async_t *wake)
{
    struct tls_handshaker *handshaker = wake->data;
    struct tls_handshake *submitted, *handshake, *next;
    bool stop;

    uv_mutex_lock(&handshaker->lock);
    submitted = handshaker->submitted;
    handshaker->submitted = NULL;
    for (handshake = submitted; handshake != NULL; handshake = handshake->queue_next)
        handshake->taken = true;
    stop = handshaker->stop;
    uv_mutex_unlock(&handshaker->lock);

    for (handshake = handshaker->active; handshake != NULL; handshake = handshake->active_next)
        if (stop || atomic_load(&handshake->stop))
            handshake_stop(handshake);
    for (handshake = submitted; handshake != NULL; handshake = next) {
        next = handshake->queue_next; /* It will be in another queue. */
        handshake_begin(handshake);
        if (stop || atomic_load(&handshake->stop))
            handshake_stop(handshake);
    }
    if (stop)
        uv_close((uv_handle_t *)&handshaker->wake, NULL);
}

static void run(void *data)
{
    struct tls_handshaker *handshaker = data;
    int r;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), TLS_THREAD_NICE); /* Linux: of this thread only. */
    uv_run(&handshaker->own, UV_RUN_DEFAULT); /* Until 'wake' and all others are closed. */
    r = uv_loop_close(&handshaker->own);
    assert(r == 0);
    uv_mutex_lock(&handshaker->lock);
    handshaker->ended = true;
    uv_mutex_unlock(&handshaker->lock);
    uv_async_send(&handshaker->reports);
}

/* ---- the owner ---- */

static void on_reports_closed(uv_handle_t *handle)
{
    struct tls_handshaker *handshaker = handle->data;
    void (*done)(void *) = handshaker->done;
    void *data = handshaker->done_data;

    uv_mutex_destroy(&handshaker->lock);
    free(handshaker);
    if (done != NULL)
        done(data);
}

static void uncount(struct tls_handshake *handshake)
{
    if (!handshake->dropped)
        handshake->handshaker->count--;
    handshake->dropped = true;
}

static void report(struct tls_handshake *handshake)
{
    struct tls_result result = {
        .r = handshake->r,
        .text = err_text(&handshake->err, handshake->r),
        .first_byte = handshake->first_byte,
        .stream = TAKE_PTR(handshake->stream),
        .protocol = handshake->protocol,
        .peer = handshake->verified ? &handshake->peer : NULL,
    };

    uncount(handshake);
    DL_DELETE(handshake->handshaker->all, handshake);
    if (handshake->callback != NULL)
        handshake->callback(&result, handshake->data);
    tls_stream_free(result.stream);
    handshake_unref(handshake);
}

static void on_reports(uv_async_t *async)
{
    struct tls_handshaker *handshaker = async->data;
    struct tls_handshake *finished, *next;
    bool ended;

    uv_mutex_lock(&handshaker->lock);
    finished = handshaker->finished;
    handshaker->finished = NULL;
    ended = handshaker->ended;
    uv_mutex_unlock(&handshaker->lock);

    for (; finished != NULL; finished = next) {
        next = finished->queue_next;
        if (handshaker->closing)
            finished->callback = NULL;
        report(finished);
    }
    if (ended && !uv_is_closing((uv_handle_t *)async)) {
        uv_thread_join(&handshaker->thread); /* It has nothing left to do. */
        uv_close((uv_handle_t *)async, on_reports_closed);
    }
}

struct tls_handshaker *tls_handshaker_new(uv_loop_t *loop)
{
    struct tls_handshaker *handshaker = NEW0(struct tls_handshaker);
    sigset_t all, before;
    int r;

    handshaker->loop = loop;
    r = uv_loop_init(&handshaker->own);
    if (r == 0)
        r = uv_mutex_init(&handshaker->lock);
    if (r == 0)
        r = uv_async_init(loop, &handshaker->reports, on_reports);
    if (r == 0)
        r = uv_async_init(&handshaker->own, &handshaker->wake, on_wake);
    handshaker->reports.data = handshaker->wake.data = handshaker;
    sigfillset(&all); /* Signals are the main loop's. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r == 0)
        r = uv_thread_create(&handshaker->thread, run, handshaker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        abort(); /* Neither memory nor descriptors for the very first things. */
    return handshaker;
}

void tls_handshaker_close(struct tls_handshaker *handshaker, void (*done)(void *data), void *data)
{
    assert(!handshaker->closing);
    handshaker->closing = true;
    handshaker->done = done;
    handshaker->done_data = data;
    uv_mutex_lock(&handshaker->lock);
    handshaker->stop = true;
    uv_mutex_unlock(&handshaker->lock);
    uv_async_send(&handshaker->wake);
}

unsigned tls_handshaker_count(const struct tls_handshaker *handshaker)
{
    return handshaker->count;
}

/* So that the thread, if it is far behind, holds no more of them than are counted. */
static void drop(struct tls_handshake *handshake)
{
    struct tls_handshaker *handshaker = handshake->handshaker;
    bool taken;

    uncount(handshake);
    atomic_store(&handshake->stop, true);
    uv_mutex_lock(&handshaker->lock);
    taken = handshake->taken;
    if (!taken)
        DL_DELETE2(handshaker->submitted, handshake, queue_prev, queue_next);
    handshake->taken = true;
    uv_mutex_unlock(&handshaker->lock);
    if (taken && !handshaker->closing) /* Otherwise the thread may have closed it; and all stop anyway. */
        uv_async_send(&handshaker->wake);
    if (taken)
        return;
    close(handshake->fd);
    handshake->fd = -1;
    handshake->r = err_set(&handshake->err, -ENOBUFS, "too many TLS handshakes that have not begun");
    hand_back(handshake);
    handshake_unref(handshake); /* The thread's. */
}

static void drop_oldest(struct tls_handshaker *handshaker)
{
    struct tls_handshake *handshake;

    DL_FOREACH (handshaker->all, handshake) {
        if (!handshake->options.client && !handshake->dropped) {
            drop(handshake);
            return;
        }
    }
}

int tls_handshake_start(struct tls_handshaker *handshaker, int fd, const struct tls_options *options,
                        tls_handshake_callback *callback, void *data, struct tls_handshake **ret)
{
    struct tls_handshake *handshake;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    assert(!handshaker->closing);
    if (copy < 0)
        return -errno;
    if (handshaker->count >= TLS_HANDSHAKES_MAX)
        drop_oldest(handshaker);
    handshake = NEW0(struct tls_handshake);
    handshake->handshaker = handshaker;
    atomic_init(&handshake->refs, 2);
    atomic_init(&handshake->stop, false);
    handshake->options = *options;
    tls_credentials_ref(options->credentials);
    handshake->callback = callback;
    handshake->data = data;
    handshake->fd = copy;
    handshake->alert = -1;
    handshaker->count++;
    DL_APPEND(handshaker->all, handshake);
    uv_mutex_lock(&handshaker->lock);
    DL_APPEND2(handshaker->submitted, handshake, queue_prev, queue_next);
    uv_mutex_unlock(&handshaker->lock);
    uv_async_send(&handshaker->wake);
    *ret = handshake;
    return 0;
}

void tls_handshake_cancel(struct tls_handshake *handshake)
{
    handshake->callback = NULL;
    if (!handshake->dropped)
        drop(handshake);
}
