/* SPDX-License-Identifier: Apache-2.0 */
/* What the halves of the handshaker share: tls_handshake.c, which runs on the owner's loop; tls_thread.c,
 * which runs on the thread's; and tls_session.c, which the thread uses to talk to GnuTLS. For nobody else.
 *
 * Between the halves are two queues under one lock, and a doorbell in each direction:
 *
 *      owner                      thread
 *      start   -> submitted   ->  begin, step, step...
 *      report  <- finished    <-  report (then lingers, if the peer is to hear why)
 *
 * Every handshake is handed back exactly once, also those that were cancelled: so each half knows when it
 * holds the last reference. */
#pragma once

#include <stdatomic.h>

#include "raftstore/doorbell.h"
#include "raftstore/tls_handshake.h"

struct tls_handshaker {
    uv_loop_t *loop; /* The owner's. */
    struct doorbell reports;
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
    struct doorbell wake;
    struct tls_handshake *active;
    gnutls_priority_t priority; /* What we offer and take; read once, not for each. */
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
    bool reported, lingers, closing, verified;
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

/* In tls_handshake.c, for both halves. */
void tls_handshake_unref(struct tls_handshake *handshake);
void tls_handshake_hand_back(struct tls_handshake *handshake); /* 'r' and what belongs to it are set. */

/* In tls_thread.c. */
void tls_thread_run(void *data);     /* Of uv_thread_create(): a tls_handshaker. */
void tls_thread_on_wake(void *data); /* Of the 'wake' bell. */

/* In tls_session.c. */
int tls_session_offer(gnutls_priority_t *ret); /* Their codes are GnuTLS's. */
int tls_session_init(struct tls_handshake *handshake);
/* Sets 'protocol' to what was agreed upon. -EPROTO: nothing. */
int tls_session_protocol(struct tls_handshake *handshake);
/* What GnuTLS's code means: returned, with a text in 'err', and the alert to send in 'alert' (-1: none). */
int tls_session_translate(struct tls_handshake *handshake, int code, int saved_errno);
