/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/joining.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "raftstore/limits.h"

#define JOIN_ANSWER_MS 10000u
#define JOIN_RETRY_MS  500u

/* ---- the host that joins ---- */

struct joiner {
    uv_loop_t *loop;
    struct port *port;
    struct joiner_callbacks callbacks;
    void *data;
    struct strlist addresses;
    size_t next;
    char leader[ADDRESS_MAX + 1], dialled[ADDRESS_MAX + 1];
    struct conn *conn;
    uv_timer_t timer;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

static void try_next(uv_timer_t *timer);

static void on_answer_late(uv_timer_t *timer)
{
    struct joiner *joiner = timer->data;

    conn_close(joiner->conn, "no answer in time");
}

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct joiner *joiner = data;
    Fleet__JoinRequest request = FLEET__JOIN_REQUEST__INIT;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    request.machine = joiner->callbacks.machine(joiner->data);
    size = fleet__join_request__get_packed_size(&request);
    bytes = xmalloc(size);
    fleet__join_request__pack(&request, bytes);
    conn_send(conn, bytes, size);
}

static void on_reply(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct joiner *joiner = data;
    Fleet__JoinReply *reply = fleet__join_reply__unpack(NULL, size, bytes);

    if (reply == NULL || joiner->closing) {
        conn_close(conn, "its answer does not decode");
    } else if (reply->accepted && reply->cluster_id.len == 16) {
        joiner->callbacks.on_admitted(reply, joiner->data);
    } else {
        conn_close(conn, reply->reason);
    }
    if (reply != NULL)
        fleet__join_reply__free_unpacked(reply, NULL);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct joiner *joiner = handle->data;
    void (*closed)(void *) = joiner->closed;
    void *closed_data = joiner->closed_data;

    strlist_done(&joiner->addresses);
    free(joiner);
    closed(closed_data);
}

static void on_joiner_conn_closed(struct conn *conn, const char *reason, const Fleet__Welcome *refusal,
                                  void *data)
{
    struct joiner *joiner = data;
    _cleanup_(freep) char *why = NULL;

    joiner->conn = NULL;
    if (joiner->closing) {
        uv_close((uv_handle_t *)&joiner->timer, on_timer_closed);
        return;
    }
    joiner->leader[0] = '\0';
    /* One that names itself leads, but not quite yet. */
    if (refusal != NULL && refusal->leader_address[0] != '\0' &&
        !streq(refusal->leader_address, joiner->dialled)) {
        snprintf(joiner->leader, sizeof joiner->leader, "%s", refusal->leader_address);
        uv_timer_start(&joiner->timer, try_next, 0, 0);
        return;
    }
    why = xasprintf("%s: %s", joiner->dialled, reason);
    joiner->callbacks.on_trouble(why, joiner->data);
    uv_timer_start(&joiner->timer, try_next, JOIN_RETRY_MS, 0);
}

static const struct conn_callbacks joiner_conn_callbacks = {
    .on_open = on_open, .on_message = on_reply, .on_close = on_joiner_conn_closed};

static void try_next(uv_timer_t *timer)
{
    struct joiner *joiner = timer->data;
    const char *address = joiner->leader;

    if (address[0] == '\0')
        address = joiner->addresses.items[joiner->next++ % joiner->addresses.count];
    snprintf(joiner->dialled, sizeof joiner->dialled, "%s", address);
    joiner->conn = port_dial(joiner->port, joiner->dialled, FLEET__PURPOSE__PURPOSE_JOIN, 0,
                             &joiner_conn_callbacks, joiner);
    uv_timer_start(&joiner->timer, on_answer_late, JOIN_ANSWER_MS, 0);
}

struct joiner *joiner_new(uv_loop_t *loop, struct port *port, const struct strlist *addresses,
                          const struct joiner_callbacks *callbacks, void *data)
{
    struct joiner *joiner = NEW0(struct joiner);

    assert(addresses->count > 0);
    joiner->loop = loop;
    joiner->port = port;
    joiner->callbacks = *callbacks;
    joiner->data = data;
    for (size_t i = 0; i < addresses->count; i++)
        strlist_add(&joiner->addresses, addresses->items[i]);
    uv_timer_init(loop, &joiner->timer);
    joiner->timer.data = joiner;
    uv_timer_start(&joiner->timer, try_next, 0, 0);
    return joiner;
}

void joiner_close(struct joiner *joiner, void (*done)(void *data), void *data)
{
    joiner->closing = true;
    joiner->closed = done;
    joiner->closed_data = data;
    uv_timer_stop(&joiner->timer);
    if (joiner->conn != NULL)
        conn_close(joiner->conn, "done");
    else
        uv_close((uv_handle_t *)&joiner->timer, on_timer_closed);
}

/* ---- the leader ---- */

struct gate {
    struct gate_callbacks callbacks;
    void *data;
    struct visitor *visitors;
};

struct visitor {
    struct gate *gate;
    struct conn *conn; /* NULL: it has gone. */
    uint64_t since_ms;
    bool busy; /* Its registration is under way. */
    struct visitor *prev, *next;
};

static void answer(struct visitor *visitor, bool accepted, const char *reason)
{
    Fleet__JoinReply reply = FLEET__JOIN_REPLY__INIT;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    reply.accepted = accepted;
    reply.reason = (char *)reason;
    if (accepted)
        visitor->gate->callbacks.fill(&reply, visitor->gate->data);
    size = fleet__join_reply__get_packed_size(&reply);
    bytes = xmalloc(size);
    fleet__join_reply__pack(&reply, bytes);
    conn_send(visitor->conn, bytes, size);
}

static void visitor_release(struct visitor *visitor)
{
    if (visitor->busy || visitor->conn != NULL)
        return;
    DL_DELETE(visitor->gate->visitors, visitor);
    free(visitor);
}

static void on_admit_done(bool admitted, const char *why, void *data)
{
    struct visitor *visitor = data;

    visitor->busy = false;
    if (visitor->conn != NULL)
        answer(visitor, admitted, why);
    visitor_release(visitor);
}

static void on_request(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct visitor *visitor = data;
    struct gate *gate = visitor->gate;
    Fleet__JoinRequest *request = fleet__join_request__unpack(NULL, size, bytes);
    struct err err = {0};
    int r;

    if (request == NULL || request->machine == NULL || visitor->busy) {
        conn_close(conn, "its request to join makes no sense");
    } else if ((r = gate->callbacks.check(request->machine, &err, gate->data)) < 0) {
        answer(visitor, false, err_text(&err, r));
    } else {
        visitor->busy = true;
        gate->callbacks.admit(request->machine, on_admit_done, visitor, gate->data);
    }
    if (request != NULL)
        fleet__join_request__free_unpacked(request, NULL);
}

static void on_visitor_gone(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct visitor *visitor = data;

    visitor->conn = NULL;
    visitor_release(visitor);
}

static const struct conn_callbacks visitor_callbacks = {.on_message = on_request,
                                                        .on_close = on_visitor_gone};

struct gate *gate_new(const struct gate_callbacks *callbacks, void *data)
{
    struct gate *gate = NEW0(struct gate);

    gate->callbacks = *callbacks;
    gate->data = data;
    return gate;
}

const struct conn_callbacks *gate_accept(struct gate *gate, struct conn *conn, void **ret_data)
{
    struct visitor *visitor = NEW0(struct visitor);

    visitor->gate = gate;
    visitor->conn = conn;
    visitor->since_ms = now_ms();
    DL_APPEND(gate->visitors, visitor);
    *ret_data = visitor;
    return &visitor_callbacks;
}

void gate_tick(struct gate *gate)
{
    struct visitor *visitor;

    DL_FOREACH (gate->visitors, visitor)
        if (visitor->conn != NULL && !visitor->busy && now_ms() - visitor->since_ms > JOIN_ANSWER_MS)
            conn_close(visitor->conn, "it has said nothing for too long");
}

void gate_free(struct gate *gate)
{
    assert(gate->visitors == NULL);
    free(gate);
}
