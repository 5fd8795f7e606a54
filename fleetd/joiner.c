/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/joiner.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"

#define DIAL_MS        3000u  /* A dead host answers nobody: do not wait long for one of several. */
#define ANSWER_MS      10000u /* It writes to a majority's disks first. */
#define RETRY_MS       500u
#define RETRY_FINAL_MS 5000u

struct joiner {
    uv_loop_t *loop;
    struct port *port;
    struct joiner_callbacks callbacks;
    void *data;
    struct strlist addresses;
    size_t next;
    char leader[ADDRESS_MAX + 1], dialled[ADDRESS_MAX + 1];
    struct join_token token; /* Of this attempt, until its secret was shown. */
    struct conn *conn;
    uv_timer_t timer; /* The next attempt, or the end of patience with this one. */
    bool refused;     /* By the leader, which we have told about already. */
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

static void try_next(uv_timer_t *timer);

static void wait_ms(struct joiner *joiner, uint64_t ms)
{
    uv_timer_start(&joiner->timer, try_next, ms, 0);
}

static void forget_token(struct joiner *joiner)
{
    explicit_bzero(joiner->token.secret, sizeof joiner->token.secret);
}

/* The last thing that an attempt does: the callback may close the joiner. */
static void fail(struct joiner *joiner, bool final, const char *why)
{
    _cleanup_(freep) char *text =
        joiner->dialled[0] != '\0' ? xasprintf("%s: %s", joiner->dialled, why) : xstrdup(why);

    wait_ms(joiner, final ? RETRY_FINAL_MS : RETRY_MS);
    joiner->callbacks.on_trouble(text, final, joiner->data);
}

/* ---- the connection ---- */

static void on_late(uv_timer_t *timer)
{
    struct joiner *joiner = timer->data;

    conn_close(joiner->conn, "no answer in time");
}

/* The other side is known to be a machine of the cluster that the token is for. If it does not only say that
 * it leads, it is told the secret, and believed. */
static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct joiner *joiner = data;
    Fleet__JoinRequest request = FLEET__JOIN_REQUEST__INIT;
    uint8_t *bytes;
    size_t size;

    if (joiner->callbacks.token != NULL && !conn_peer_proved(conn)) {
        conn_close(conn, "it says that it leads, and does not prove that it has the cluster's data");
        return;
    }
    request.machine = joiner->callbacks.machine(joiner->data);
    if (joiner->callbacks.token != NULL) {
        const struct pki_blob *wanted = joiner->callbacks.request(joiner->data);

        request.secret =
            (ProtobufCBinaryData){.len = sizeof joiner->token.secret, .data = joiner->token.secret};
        request.certificate_request = (ProtobufCBinaryData){.len = wanted->size, .data = wanted->data};
    }
    size = fleet__join_request__get_packed_size(&request);
    bytes = xmalloc(size);
    fleet__join_request__pack(&request, bytes);
    forget_token(joiner);
    uv_timer_start(&joiner->timer, on_late, ANSWER_MS, 0);
    conn_send(conn, bytes, size);
    explicit_bzero(bytes, size);
    free(bytes);
}

static void on_reply(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct joiner *joiner = data;
    Fleet__JoinReply *reply = fleet__join_reply__unpack(NULL, size, bytes);
    struct err err = {0};
    int r;

    if (reply == NULL || (reply->accepted && reply->cluster_id.len != PKI_CLUSTER_ID_SIZE)) {
        conn_close(conn, "its answer makes no sense");
    } else if (reply->accepted) {
        r = joiner->callbacks.on_admitted(reply, &err, joiner->data);
        if (r < 0) {
            joiner->refused = true;
            conn_close(conn, err_text(&err, r));
        }
    } else {
        joiner->refused = !reply->retry;
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
    forget_token(joiner);
    free(joiner);
    closed(closed_data);
}

/* The other side is not who the token is for, or not what we could talk to: it will not be in a moment
 * either. */
static bool is_final(int handshake_error)
{
    return handshake_error == -EKEYREJECTED || handshake_error == -EKEYEXPIRED ||
           handshake_error == -EACCES || handshake_error == -EPROTONOSUPPORT ||
           handshake_error == -ECONNABORTED;
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct joiner *joiner = data;
    _cleanup_(freep) char *why = NULL;

    joiner->conn = NULL;
    forget_token(joiner);
    if (joiner->closing) {
        uv_close((uv_handle_t *)&joiner->timer, on_timer_closed);
        return;
    }
    joiner->leader[0] = '\0';
    /* One that names itself leads, but not quite yet. */
    if (refusal != NULL && refusal->leader_address[0] != '\0' &&
        !streq(refusal->leader_address, joiner->dialled)) {
        snprintf(joiner->leader, sizeof joiner->leader, "%s", refusal->leader_address);
        wait_ms(joiner, 0);
        return;
    }
    if (conn_handshake_error(conn) == -EKEYREJECTED)
        why = xasprintf("it does not prove to be of the cluster that the token is for (%s)", reason);
    fail(joiner, joiner->refused || is_final(conn_handshake_error(conn)), why != NULL ? why : reason);
}

static const struct conn_callbacks conn_callbacks = {
    .on_open = on_open, .on_message = on_reply, .on_close = on_close};

static void try_next(uv_timer_t *timer)
{
    struct joiner *joiner = timer->data;
    const char *address = joiner->leader;
    struct err err = {0};
    int r;

    joiner->refused = false;
    joiner->dialled[0] = '\0';
    if (joiner->callbacks.token != NULL) {
        r = joiner->callbacks.token(&joiner->token, &err, joiner->data);
        if (r < 0) {
            fail(joiner, false, err_text(&err, r));
            return;
        }
    }
    if (address[0] == '\0')
        address = joiner->addresses.items[joiner->next++ % joiner->addresses.count];
    snprintf(joiner->dialled, sizeof joiner->dialled, "%s", address);
    joiner->conn =
        joiner->callbacks.token != NULL
            ? port_dial_join(joiner->port, joiner->dialled, joiner->token.pin, &conn_callbacks, joiner)
            : port_dial(joiner->port, joiner->dialled, FLEET__PURPOSE__PURPOSE_JOIN, 0, &conn_callbacks,
                        joiner);
    uv_timer_start(&joiner->timer, on_late, DIAL_MS, 0);
}

/* ---- life ---- */

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
    wait_ms(joiner, 0);
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
