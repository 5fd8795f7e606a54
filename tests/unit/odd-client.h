/* SPDX-License-Identifier: Apache-2.0 */
/* A TLS client that does what a daemon never would, in a thread of its own: it blocks. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "pki/pki.h"

struct odd_client {
    unsigned port;             /* Of 127.0.0.1. */
    const char *priority;      /* NULL: TLS 1.3 as we like it. */
    const char *protocol;      /* ALPN, NULL: none. */
    const struct pki_key *key; /* NULL: no certificate. */
    const struct pki_blob *chain;
    size_t chain_count;
    const void *bytes; /* Sent when the handshake is done. */
    size_t size;
    bool raw;             /* 'bytes' go past TLS, as they are. */
    unsigned delay_ms;    /* Before them. */
    unsigned key_updates; /* So many before 'bytes', each asking the server for one, too. */
    bool no_reading;      /* Until 'may_read'. */

    /* What came of it. */
    bool shaken; /* For a client of TLS 1.3 that is before it has heard whether its certificate is taken. */
    int alert;   /* Received, or -1. */
    bool closed; /* The server has closed it in order, */
    size_t got;  /* and sent so much before. */
    uint8_t inbox[4096];

    atomic_bool may_read; /* Tells one with 'no_reading' to go on. */
    uv_thread_t thread;
    uv_async_t done; /* On the test's loop. */
    bool ended;
};

void odd_client_start(struct odd_client *odd, uv_loop_t *loop);
void odd_client_join(struct odd_client *odd); /* After 'ended'. */
