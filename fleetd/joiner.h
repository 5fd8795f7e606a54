/* SPDX-License-Identifier: Apache-2.0 */
/* How a host becomes a member, its side: asks one member after the other until the leader lets it in,
 * following their word on who leads. With a token it first makes sure that the other side is the cluster that
 * the token is for (its authority's fingerprint is in it), and only then shows the token's secret. The
 * leader's side: gate.h. */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "base/str.h"
#include "pki/pki.h"
#include "raftstore/port.h"

struct joiner;

struct joiner_callbacks {
    Fleet__RegisterMachine *(*machine)(void *data); /* Who we are; borrowed until the next call. */
    /* The token, before each attempt: it may have changed. A negative errno with a text: there is none yet.
     * NULL: the cluster is insecure. */
    int (*token)(struct join_token *ret, struct err *err, void *data);
    const struct pki_blob *(*request)(void *data); /* For a certificate; borrowed until the next call. */
    /* This host is let in. A negative errno with a text: it can make nothing of that. May close the joiner.
     */
    int (*on_admitted)(const Fleet__JoinReply *reply, struct err *err, void *data);
    /* It goes on trying; for the status line and the journal. 'final': the same will be the answer until
     * somebody changes something. May close the joiner. */
    void (*on_trouble)(const char *why, bool final, void *data);
};

/* At least one address. 'callbacks' are copied. */
struct joiner *joiner_new(uv_loop_t *loop, struct port *port, const struct strlist *addresses,
                          const struct joiner_callbacks *callbacks, void *data);
void joiner_close(struct joiner *joiner, void (*done)(void *data), void *data);
