/* SPDX-License-Identifier: Apache-2.0 */
/* The thread of the handshakes. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "raftstore/tls_handshake_private.h"

#define TLS_FIRST_BYTE   0x16          /* Of a record that begins a handshake, RFC 8446 §5.1. */
#define LINGER_BYTES_MAX (256u * 1024) /* Of one who goes on talking. */

/* ---- the end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct tls_handshake *handshake = handle->data;

    if (--handshake->handles > 0)
        return;
    DL_DELETE2(handshake->handshaker->active, handshake, active_prev, active_next);
    tls_handshake_unref(handshake);
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
    tls_handshake_hand_back(handshake);
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

/* ---- one after the other ---- */

static void handshake_succeed(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    bool must = options->client || handshake->protocol == NULL ||
                handshake->protocol->demand == TLS_DEMAND_CERTIFICATE;

    /* GnuTLS has seen to all of this; but everything hangs on it. */
    if (gnutls_protocol_get_version(handshake->session) != GNUTLS_TLS1_3 ||
        tls_session_protocol(handshake) < 0 || (must && !handshake->verified)) {
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
    handshake->first_byte = byte;
    if (byte == TLS_FIRST_BYTE)
        return true;
    handshake_fail(handshake, err_set(&handshake->err, -EPROTONOSUPPORT, "the other side does not talk TLS"));
    return false;
}

/* For a server only now that TLS is talked: who is silent, or talks something else, costs no session. */
static bool has_session(struct tls_handshake *handshake)
{
    int r;

    if (handshake->session != NULL)
        return true;
    if (!handshake->options.client && !is_tls(handshake))
        return false;
    r = tls_session_init(handshake);
    if (r < 0)
        handshake_fail(handshake,
                       err_set(&handshake->err, -EPROTO, "cannot begin TLS: %s", gnutls_strerror(r)));
    return r >= 0;
}

static void handshake_step(struct tls_handshake *handshake)
{
    int code;

    if (!has_session(handshake))
        return;
    errno = 0;
    code = gnutls_handshake(handshake->session);
    if (code == GNUTLS_E_SUCCESS)
        handshake_succeed(handshake);
    else if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED)
        handshake_poll(handshake,
                       gnutls_record_get_direction(handshake->session) == 0 ? UV_READABLE : UV_WRITABLE);
    else
        handshake_fail(handshake, tls_session_translate(handshake, code, errno));
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

void tls_thread_on_wake(void *data)
{
    struct tls_handshaker *handshaker = data;
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
        doorbell_close(&handshaker->wake, NULL);
}

void tls_thread_run(void *data)
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
    doorbell_ring(&handshaker->reports);
}
