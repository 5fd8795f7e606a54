/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/gate.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"

#define REQUEST_MS 10000u /* For a visitor to say what it wants. */

struct gate {
    struct gate_callbacks callbacks;
    void *data;
    struct visitor *visitors;
    unsigned visitor_count;
};

struct visitor {
    struct gate *gate;
    struct conn *conn; /* NULL: it has gone. */
    uint64_t since_ms;
    bool busy; /* Its registration is under way. */
    struct gate_pass pass;
    struct visitor *prev, *next;
};

static void send_reply(struct visitor *visitor, const Fleet__JoinReply *reply)
{
    size_t size = fleet__join_reply__get_packed_size(reply);
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);

    fleet__join_reply__pack(reply, bytes);
    conn_send(visitor->conn, bytes, size);
}

static void refuse(struct visitor *visitor, bool again, const char *why)
{
    Fleet__JoinReply reply = FLEET__JOIN_REPLY__INIT;

    reply.reason = (char *)why;
    reply.retry = again;
    send_reply(visitor, &reply);
}

static void let_in(struct visitor *visitor)
{
    Fleet__JoinReply reply = FLEET__JOIN_REPLY__INIT;

    reply.accepted = true;
    visitor->gate->callbacks.fill(&reply, visitor->gate->data);
    if (reply.n_chain > 0)
        reply.chain[0] = (ProtobufCBinaryData){.len = visitor->pass.certificate.size,
                                               .data = visitor->pass.certificate.data};
    send_reply(visitor, &reply);
}

static void visitor_release(struct visitor *visitor)
{
    if (visitor->busy || visitor->conn != NULL)
        return;
    DL_DELETE(visitor->gate->visitors, visitor);
    visitor->gate->visitor_count--;
    pki_blob_done(&visitor->pass.certificate);
    free(visitor);
}

static void on_admit_done(bool admitted, bool again, const char *why, void *data)
{
    struct visitor *visitor = data;

    visitor->busy = false;
    if (visitor->conn != NULL && admitted)
        let_in(visitor);
    else if (visitor->conn != NULL)
        refuse(visitor, again, why);
    visitor_release(visitor);
}

static void on_request(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct visitor *visitor = data;
    struct gate *gate = visitor->gate;
    Fleet__JoinRequest *request = fleet__join_request__unpack(NULL, size, bytes);
    struct gate_pass pass = {0};
    struct err err = {0};
    int r;

    if (request == NULL || request->machine == NULL || visitor->busy) {
        conn_close(conn, "its request to join makes no sense");
    } else if ((r = gate->callbacks.check(request, conn_peer(conn), &pass, &err, gate->data)) < 0) {
        refuse(visitor, r == -EAGAIN || r == -EEXIST, err_text(&err, r));
    } else {
        pki_blob_done(&visitor->pass.certificate);
        visitor->pass = pass;
        visitor->busy = true;
        gate->callbacks.admit(request->machine, &visitor->pass, on_admit_done, visitor, gate->data);
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
    struct visitor *visitor;

    if (gate->visitor_count >= GATE_VISITORS_MAX)
        return NULL;
    gate->visitor_count++;
    visitor = NEW0(struct visitor);
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
        if (visitor->conn != NULL && !visitor->busy && now_ms() - visitor->since_ms > REQUEST_MS)
            conn_close(visitor->conn, "it has said nothing for too long");
}

void gate_free(struct gate *gate)
{
    assert(gate->visitors == NULL);
    free(gate);
}
