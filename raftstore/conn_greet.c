/* SPDX-License-Identifier: Apache-2.0 */
/* The first words of a connection, said and heard. What they mean: greeting.c. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "raftstore/conn.h"
#include "raftstore/greeting.h"
#include "raftstore/proof.h"

/* That we have the authority's key: NULL if we have not. 'proof' and 'own' are where it is put together; what
 * 'own' holds is freed by the caller. */
static const Fleet__Proof *conn_prove(struct conn *conn, Fleet__Proof *proof, struct port_proof *own)
{
    const struct port *port = conn->port;
    uint8_t text[PROOF_TEXT_SIZE];

    if (conn->tls == NULL || port->callbacks.prove == NULL ||
        proof_text(conn->tls, conn->dialled, text) < 0 ||
        !port->callbacks.prove(text, sizeof(text), own, port->data))
        return NULL;
    fleet__proof__init(proof);
    proof->signature = (ProtobufCBinaryData){.len = own->signature.size, .data = own->signature.data};
    proof->authorities = own->authorities;
    proof->n_authorities = own->authority_count;
    return proof;
}

static void conn_check_proof(struct conn *conn, const Fleet__Proof *proof)
{
    struct err err = {0};

    if (conn->tls == NULL || proof == NULL)
        return;
    conn->peer_proved = proof_check(proof, conn->tls, !conn->dialled, conn->credentials,
                                    conn->pinned ? conn->pin : NULL, wall_ms(), &conn->proved_by, &err) >= 0;
    if (!conn->peer_proved)
        log_debug("%s: %s", conn->peer, err.text);
}

void conn_send_hello(struct conn *conn)
{
    struct port_proof own = {0};
    Fleet__Proof proof;
    const Fleet__Proof *shown =
        conn->purpose == FLEET__PURPOSE__PURPOSE_RAFT ? conn_prove(conn, &proof, &own) : NULL;
    size_t size;
    _cleanup_(freep) uint8_t *bytes =
        greeting_pack_hello(&conn->port->identity, conn->purpose, conn->to_server_id, shown, &size);

    conn_queue_frame(conn, bytes, size);
    pki_blob_done(&own.signature);
}

static void conn_open(struct conn *conn)
{
    conn_move(conn, CONN_OPEN);
    conn_uncount(conn);
    uv_timer_stop(&conn->timer);
    conn->reader.limit =
        conn->purpose == FLEET__PURPOSE__PURPOSE_JOIN && !conn->dialled ? JOIN_FRAME_MAX : FRAME_MAX;
}

static void conn_send_welcome(struct conn *conn, bool accepted, const char *reason,
                              const char *leader_address)
{
    struct port_proof own = {0};
    Fleet__Proof proof;
    const Fleet__Proof *shown =
        accepted && conn->purpose != FLEET__PURPOSE__PURPOSE_IDENTIFY ? conn_prove(conn, &proof, &own) : NULL;
    size_t size;
    _cleanup_(freep) uint8_t *bytes = greeting_pack_welcome(&conn->port->identity, conn->is_ours, accepted,
                                                            reason, leader_address, shown, &size);

    conn_queue_frame(conn, bytes, size);
    pki_blob_done(&own.signature);
}

void conn_refuse(struct conn *conn, const char *text, const char *leader_address)
{
    log_debug("refused %s: %s", conn->peer, text);
    conn_send_welcome(conn, false, text, leader_address);
    conn_close(conn, text);
}

/* What was agreed upon in the handshake is what is said now. */
static int conn_check_hello_by_certificate(const struct conn *conn, const Fleet__Hello *hello,
                                           struct err *err)
{
    if (conn->tls != NULL && hello->purpose != conn->purpose)
        return err_set(err, -EPERM, "the greeting is for another purpose than the connection");
    return greeting_check_certificate(conn_peer_name(conn), hello->machine_id, err);
}

/* Before the peer hears anything: what follows from it may end this process, so it must be known who says it.
 */
static void conn_look_at_history(struct conn *conn, uint64_t recoveries, const ProtobufCBinaryData *id,
                                 const char *machine_id)
{
    const struct port *port = conn->port;
    struct cluster_history history;

    if ((conn->tls != NULL && conn_peer_name(conn) == NULL) ||
        greeting_check_certificate(conn_peer_name(conn), machine_id, NULL) < 0)
        return;
    if (port->callbacks.on_later_history != NULL &&
        greeting_shows_later(&port->identity, recoveries, id, &history))
        port->callbacks.on_later_history(&history, machine_id, port->data);
}

/* A peer has said Hello: hears whether it is welcome. */
void conn_take_hello(struct conn *conn, const uint8_t *bytes, size_t size)
{
    struct port *port = conn->port;
    const struct conn_callbacks *callbacks = NULL;
    char leader_address[ADDRESS_MAX + 1] = "";
    Fleet__Hello *hello = fleet__hello__unpack(NULL, size, bytes);
    struct err err = {0};
    void *data = NULL;
    int r;

    r = hello == NULL ? -EBADMSG : greeting_check_hello(&port->identity, hello, &err);
    conn->is_ours = r != -EBADMSG && greeting_is_of_cluster(&port->identity, hello);
    if (conn->is_ours)
        conn_look_at_history(conn, hello->recoveries, &hello->history, hello->machine_id);
    if (r == 0)
        r = conn_check_hello_by_certificate(conn, hello, &err);
    if (r == -EBADMSG) {
        port_log_stranger(port, conn->peer, "not a fleet daemon");
        conn_shut(conn, "not a fleet greeting");
    } else if (r < 0) {
        port_log_stranger(port, conn->peer, err_text(&err, r));
        conn_refuse(conn, err_text(&err, r), "");
    } else if (hello->purpose == FLEET__PURPOSE__PURPOSE_IDENTIFY) {
        conn_send_welcome(conn, true, "", ""); /* That is all. */
        conn_close(conn, "was told who is here");
    } else {
        conn->purpose = hello->purpose;
        conn->peer_server_id = hello->server_id;
        if (conn->purpose == FLEET__PURPOSE__PURPOSE_RAFT)
            conn_check_proof(conn, hello->proof);
        r = port->callbacks.on_accept(conn, hello, &callbacks, &data, leader_address, &err, port->data);
        leader_address[ADDRESS_MAX] = '\0';
        if (r == 0 && callbacks == NULL)
            r = err_set(&err, -EAGAIN, "not ready, try again");
        if (r == 0) { /* Also if the owner has closed it meanwhile: then on_close comes. */
            conn->callbacks = callbacks;
            conn->data = data;
        }
        if (r == 0 && conn->state == CONN_GREETING) {
            conn_send_welcome(conn, true, "", "");
            conn_open(conn);
            if (callbacks->on_accepted != NULL)
                callbacks->on_accepted(conn, data);
        } else if (conn->state == CONN_GREETING) {
            conn_refuse(conn, err_text(&err, r), leader_address);
        }
    }
    if (hello != NULL)
        fleet__hello__free_unpacked(hello, NULL);
}

static int conn_check_server(struct conn *conn, const Fleet__Welcome *welcome, struct err *err)
{
    const struct port *port = conn->port;

    conn_check_proof(conn, welcome->proof);
    if (conn->purpose != FLEET__PURPOSE__PURPOSE_RAFT || port->callbacks.check_server == NULL)
        return 0;
    return port->callbacks.check_server(conn, welcome->server_id, err, port->data);
}

void conn_take_welcome(struct conn *conn, const uint8_t *bytes, size_t size)
{
    Fleet__Welcome *welcome = fleet__welcome__unpack(NULL, size, bytes);
    struct err err = {0};

    if (welcome == NULL) {
        conn_shut(conn, "the other side is not a fleet daemon");
        return;
    }
    conn_look_at_history(conn, welcome->recoveries, &welcome->history, welcome->machine_id);
    if (greeting_check_certificate(conn_peer_name(conn), welcome->machine_id, &err) < 0) {
        conn_shut(conn, err.text);
    } else if (greeting_check_welcome(welcome, conn->to_server_id, &err) < 0) {
        if (!welcome->accepted)
            conn->refusal = TAKE_PTR(welcome);
        conn_shut(conn, err.text);
    } else if (greeting_check_level(&conn->port->identity, conn->purpose, welcome->level, welcome->version,
                                    &err) < 0) {
        port_log_stranger(conn->port, conn->peer, err.text);
        conn_shut(conn, err.text);
    } else if (conn_check_server(conn, welcome, &err) < 0) {
        conn_shut(conn, err.text);
    } else {
        conn->peer_server_id = welcome->server_id;
        conn_open(conn);
        if (conn->callbacks->on_open != NULL)
            conn->callbacks->on_open(conn, welcome, conn->data);
    }
    if (welcome != NULL)
        fleet__welcome__free_unpacked(welcome, NULL);
}
