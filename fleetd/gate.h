/* SPDX-License-Identifier: Apache-2.0 */
/* How a host becomes a member, the leader's side: hears what it asks for, has it checked and registered, and
 * tells it what a member must know. The host's side: joiner.h. */
#pragma once

#include "base/err.h"
#include "pki/pki.h"
#include "raftstore/port.h"

/* Whoever is here has shown nothing yet that proves it: a flood of them is not to cost much memory. */
#define GATE_VISITORS_MAX 64u

struct gate;

/* What a host gets that was found fit to be let in. */
struct gate_pass {
    char token_id[JOIN_TOKEN_ID_SIZE]; /* What counts it; "": nothing. */
    struct pki_blob certificate;       /* Empty: the cluster is insecure. */
};

struct gate_callbacks {
    /* Whether this host may be let in, and with what: 0, or a negative errno with why not; -EAGAIN and
     * -EEXIST: not now, but perhaps soon. 'peer' is where it calls from. */
    int (*check)(const Fleet__JoinRequest *request, const char *peer, struct gate_pass *ret, struct err *err,
                 void *data);
    /* Registers it; 'done' says how it came out, with a text if it did not; 'again': it may try once more. */
    void (*admit)(const Fleet__RegisterMachine *machine, const struct gate_pass *pass,
                  void (*done)(bool admitted, bool again, const char *why, void *done_data), void *done_data,
                  void *data);
    /* Fills all of the answer that is the same for everybody; what it points to is kept until the next call.
     * The first place of 'chain' is left free where there is one. */
    void (*fill)(Fleet__JoinReply *reply, void *data);
};

struct gate *gate_new(const struct gate_callbacks *callbacks, void *data);
/* NULL: too many hosts join at this moment (GATE_VISITORS_MAX). */
const struct conn_callbacks *gate_accept(struct gate *gate, struct conn *conn, void **ret_data);
/* To be called every second or so: sends visitors away that say nothing. */
void gate_tick(struct gate *gate);
void gate_free(struct gate *gate); /* When all its connections have ended. */
