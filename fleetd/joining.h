/* SPDX-License-Identifier: Apache-2.0 */
/* How a host becomes a member. Its side (joiner): asks one member after the other until one admits it,
 * following their word on who leads. The leader's side (gate): has the host registered, then tells it the
 * cluster's id. */
#pragma once

#include <uv.h>

#include "base/str.h"
#include "raftstore/port.h"

/* ---- the host that joins ---- */

struct joiner;

struct joiner_callbacks {
    Fleet__RegisterMachine *(*machine)(void *data); /* Who we are; borrowed until the next call. */
    void (*on_admitted)(const Fleet__JoinReply *reply, void *data);
    void (*on_trouble)(const char *why,
                       void *data); /* It goes on trying; for the status line and the journal. */
};

struct joiner *joiner_new(uv_loop_t *loop, struct port *port, const struct strlist *addresses,
                          const struct joiner_callbacks *callbacks, void *data);
void joiner_close(struct joiner *joiner, void (*done)(void *data), void *data);

/* ---- the leader ---- */

struct gate;

struct gate_callbacks {
    /* Whether this machine may be registered: 0, or a negative errno with why not. */
    int (*check)(const Fleet__RegisterMachine *machine, struct err *err, void *data);
    /* Registers it; 'done' says how it came out, with a text if it did not. */
    void (*admit)(const Fleet__RegisterMachine *machine,
                  void (*done)(bool admitted, const char *why, void *done_data), void *done_data, void *data);
    /* Fills cluster_id and members of the answer; what it points to is kept until the next call. */
    void (*fill)(Fleet__JoinReply *reply, void *data);
};

struct gate *gate_new(const struct gate_callbacks *callbacks, void *data);
const struct conn_callbacks *gate_accept(struct gate *gate, struct conn *conn, void **ret_data);
/* To be called every second or so: sends visitors away that say nothing. */
void gate_tick(struct gate *gate);
void gate_free(struct gate *gate); /* When all its connections have ended. */
