/* SPDX-License-Identifier: Apache-2.0 */
/* TLS on a connection: before the greeting there is a handshake, in the handshaker's thread; and those who
 * talk TLS to one who does not, or the other way round, are told so in words that they understand. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/conn.h"
#include "raftstore/tls_alert.h"

#define TLS_FIRST_BYTE \
    0x16 /* Of a record that begins a handshake; no frame before the greeting is so long. */
#define NO_TLS "it talks no TLS: insecure = true must be set on all hosts of a cluster or on none"

static const struct tls_protocol protocols[] = {
    {.name = "fleet-raft/1", .demand = TLS_DEMAND_CERTIFICATE},
    {.name = "fleet-session/1", .demand = TLS_DEMAND_CERTIFICATE},
    {.name = "fleet-identify/1", .demand = TLS_DEMAND_CERTIFICATE},
    {.name = "fleet-join/1", .demand = TLS_DEMAND_NOTHING},
};
static const Fleet__Purpose purposes[] = {
    FLEET__PURPOSE__PURPOSE_RAFT,
    FLEET__PURPOSE__PURPOSE_SESSION,
    FLEET__PURPOSE__PURPOSE_IDENTIFY,
    FLEET__PURPOSE__PURPOSE_JOIN,
};

static const struct tls_protocol *protocol_of(Fleet__Purpose purpose)
{
    for (size_t i = 0; i < ARRAY_SIZE(purposes); i++)
        if (purposes[i] == purpose)
            return &protocols[i];
    return NULL;
}

static void conn_handshake_failed(struct conn *conn, const struct tls_result *result)
{
    conn->handshake_error = result->r;
    if (conn->dialled) {
        conn_shut(conn, result->text);
        return;
    }
    /* A frame's length begins with a zero: an "insecure" daemon, which awaits a Welcome in plain text. */
    if (result->r == -EPROTONOSUPPORT && result->first_byte == 0) {
        port_log_stranger(conn->port, conn->peer, NO_TLS);
        conn_move(conn, CONN_GREETING); /* Which the refusal ends. */
        if (conn_start_reading(conn) < 0)
            conn_shut(conn, NO_TLS);
        else
            conn_refuse(
                conn,
                "the host that was dialled demands TLS, and the one that dials talks none: insecure = true "
                "must be set on all hosts of a cluster or on none",
                "");
        return;
    }
    port_log_stranger(conn->port, conn->peer,
                      result->r == -EPROTONOSUPPORT ? "not a fleet daemon" : result->text);
    conn_shut(conn, result->text);
}

static void on_handshake(struct tls_result *result, void *data)
{
    struct conn *conn = data;
    int r;

    conn->handshake = NULL;
    if (result->r < 0) {
        conn_handshake_failed(conn, result);
        return;
    }
    conn->tls = TAKE_PTR(result->stream);
    if (result->peer != NULL)
        conn->peer_info = *result->peer;
    if (!conn->dialled)
        conn->purpose = purposes[result->protocol - protocols];
    conn_move(conn, CONN_GREETING);
    conn_start_timer(conn, conn->port->greeting_ms);
    r = conn_start_greeting(conn);
    if (r < 0)
        conn_shut(conn, uv_strerror(r));
    else
        conn_read_secure(conn, NULL, 0); /* What has arrived together with the handshake's end. */
}

int conn_start_handshake(struct conn *conn)
{
    struct tls_options options = {
        .client = conn->dialled,
        .credentials = conn->credentials,
        .protocols = protocols,
        .protocol_count = ARRAY_SIZE(protocols),
        .take = TLS_TAKE_MACHINES,
        .pinned = conn->pinned,
        .timeout_ms = conn->port->greeting_ms,
    };
    int fd, r;

    if (conn->dialled) {
        options.protocols = protocol_of(conn->purpose);
        options.protocol_count = 1;
        if (options.protocols == NULL)
            return UV_EINVAL;
    }
    memcpy(options.pin, conn->pin, sizeof(options.pin));
    r = uv_fileno((uv_handle_t *)&conn->tcp, &fd);
    if (r < 0)
        return r;
    return tls_handshake_start(conn->port->handshaker, fd, &options, on_handshake, conn, &conn->handshake);
}

bool conn_is_first_of_tls(const struct conn *conn, const uint8_t *bytes)
{
    return conn->state == CONN_GREETING && !conn->dialled && conn->reader.header_have == 0 &&
           conn->reader.frame == NULL && bytes[0] == TLS_FIRST_BYTE;
}

void conn_answer_tls(struct conn *conn)
{
    bool insecure = conn->port->identity.has_cluster;
    uint8_t record[TLS_ALERT_RECORD_SIZE];

    tls_alert_record(insecure ? TLS_NO_TLS_INSECURE : TLS_NO_TLS_NO_CLUSTER, record);
    port_log_stranger(
        conn->port, conn->peer,
        insecure ? "it talks TLS, and this host has insecure = true, which must be set on all hosts of a "
                   "cluster or on none"
                 : "it talks TLS, and this host is in no cluster yet");
    conn_queue_bytes(conn, record, sizeof(record));
    conn_close(conn, "it talks TLS, and this host does not");
}
