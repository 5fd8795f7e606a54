/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "raftstore/tls_handshake_private.h"

void tls_handshake_unref(struct tls_handshake *handshake)
{
    if (atomic_fetch_sub(&handshake->refs, 1) > 1)
        return;
    assert(handshake->session == NULL && handshake->fd < 0);
    tls_stream_free(handshake->stream);
    tls_credentials_unref(handshake->options.credentials);
    free(handshake);
}

void tls_handshake_hand_back(struct tls_handshake *handshake)
{
    struct tls_handshaker *handshaker = handshake->handshaker;

    uv_mutex_lock(&handshaker->lock);
    DL_APPEND2(handshaker->finished, handshake, queue_prev, queue_next);
    uv_mutex_unlock(&handshaker->lock);
    doorbell_ring(&handshaker->reports);
}

static void on_reports_closed(void *data)
{
    struct tls_handshaker *handshaker = data;
    void (*done)(void *) = handshaker->done;
    void *done_data = handshaker->done_data;

    uv_mutex_destroy(&handshaker->lock);
    gnutls_priority_deinit(handshaker->priority); /* Sessions that go on have references. */
    free(handshaker);
    if (done != NULL)
        done(done_data);
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
    tls_handshake_unref(handshake);
}

static void on_reports(void *data)
{
    struct tls_handshaker *handshaker = data;
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
    if (ended) {
        uv_thread_join(&handshaker->thread); /* It has nothing left to do. */
        doorbell_close(&handshaker->reports, on_reports_closed);
    }
}

struct tls_handshaker *tls_handshaker_new(uv_loop_t *loop)
{
    struct tls_handshaker *handshaker = NEW0(struct tls_handshaker);
    sigset_t all, before;
    int r;

    handshaker->loop = loop;
    if (tls_session_offer(&handshaker->priority) < 0)
        abort(); /* Out of memory. */
    r = uv_loop_init(&handshaker->own);
    if (r == 0)
        r = uv_mutex_init(&handshaker->lock);
    if (r == 0)
        r = doorbell_init(&handshaker->reports, loop, on_reports, handshaker);
    if (r == 0)
        r = doorbell_init(&handshaker->wake, &handshaker->own, tls_thread_on_wake, handshaker);
    sigfillset(&all); /* Signals are the main loop's. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r == 0)
        r = uv_thread_create(&handshaker->thread, tls_thread_run, handshaker);
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
    doorbell_ring(&handshaker->wake); /* Under the lock: the thread that has seen 'stop' closes it. */
    uv_mutex_unlock(&handshaker->lock);
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
        doorbell_ring(&handshaker->wake);
    if (taken)
        return;
    close(handshake->fd);
    handshake->fd = -1;
    handshake->r = err_set(&handshake->err, -ENOBUFS, "too many TLS handshakes that have not begun");
    tls_handshake_hand_back(handshake);
    tls_handshake_unref(handshake); /* The thread's. */
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
    doorbell_ring(&handshaker->wake);
    *ret = handshake;
    return 0;
}

void tls_handshake_cancel(struct tls_handshake *handshake)
{
    handshake->callback = NULL;
    if (!handshake->dropped)
        drop(handshake);
}
