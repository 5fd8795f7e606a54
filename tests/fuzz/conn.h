/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the cluster port of which only the callbacks are real: a fuzz target is the other side.
 * Stands in for raftstore/port.c and conn*.c, with their promises: nothing is heard after conn_close(), and
 * the end comes once, last, and never from inside a call. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pki/pki.h"
#include "raftstore/port.h"

struct fuzz_conn_facts {
    struct pki_info info; /* Of the other side's certificate; name.kind PKI_NOBODY: it has shown none. */
    bool proved;          /* conn_peer_proved() */
    uint64_t server_id;
    void (*on_sent)(const uint8_t *bytes, size_t size); /* What this side says. May be NULL. */
};

/* What connections that begin from now on are like; those that are there keep what they have. */
void fuzz_conn_set(const struct fuzz_conn_facts *facts);

/* One that somebody has dialled to this side, and that was accepted; 'callbacks' are what the accepting code
 * wants. */
struct conn *fuzz_conn_accepted(void);
void fuzz_conn_begin(struct conn *conn, const struct conn_callbacks *callbacks, void *data);

/* The one that this side has dialled last, and that has not ended; NULL: none. */
struct conn *fuzz_conn_dialled(void);

/* Who was dialled takes this side in. */
void fuzz_conn_welcome(struct conn *conn, const Fleet__Welcome *welcome);

/* The other side says something; without meaning once this side has closed. */
void fuzz_conn_says(struct conn *conn, const uint8_t *bytes, size_t size);
bool fuzz_conn_is_closed(const struct conn *conn); /* By this side. */

/* An input of messages, each behind its size in two bytes: 'say' is to say one, as it is or put right, and
 * 'settle' to do what is due then. The rest is dropped when this side closes. */
void fuzz_conn_speak(struct conn *conn, const uint8_t *data, size_t size,
                     void (*say)(struct conn *conn, const uint8_t *data, size_t size), void (*settle)(void));

/* It ends, and is freed. 'refusal' may be NULL. */
void fuzz_conn_end(struct conn *conn, const Fleet__Welcome *refusal);
