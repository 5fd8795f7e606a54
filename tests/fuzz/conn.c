/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "raftstore/limits.h"

struct conn {
    const struct conn_callbacks *callbacks;
    void *data;
    struct fuzz_conn_facts facts;
    char *reason; /* Not NULL: this side has closed. */
};

static struct fuzz_conn_facts next;
static struct conn *dialled;

void fuzz_conn_set(const struct fuzz_conn_facts *facts)
{
    next = *facts;
}

struct conn *fuzz_conn_accepted(void)
{
    struct conn *conn = NEW0(struct conn);

    conn->facts = next;
    return conn;
}

void fuzz_conn_begin(struct conn *conn, const struct conn_callbacks *callbacks, void *data)
{
    conn->callbacks = callbacks;
    conn->data = data;
    if (callbacks->on_accepted != NULL)
        callbacks->on_accepted(conn, data);
}

struct conn *fuzz_conn_dialled(void)
{
    return dialled;
}

void fuzz_conn_welcome(struct conn *conn, const Fleet__Welcome *welcome)
{
    conn->callbacks->on_open(conn, welcome, conn->data);
}

void fuzz_conn_says(struct conn *conn, const uint8_t *bytes, size_t size)
{
    if (conn->reason == NULL)
        conn->callbacks->on_message(conn, bytes, size, conn->data);
}

bool fuzz_conn_is_closed(const struct conn *conn)
{
    return conn->reason != NULL;
}

void fuzz_conn_speak(struct conn *conn, const uint8_t *data, size_t size,
                     void (*say)(struct conn *conn, const uint8_t *data, size_t size), void (*settle)(void))
{
    for (size_t at = 0; at + 2 <= size && !fuzz_conn_is_closed(conn);) {
        size_t left = size - at - 2, step = (size_t)data[at] << 8 | data[at + 1];

        step = step < left ? step : left;
        say(conn, data + at + 2, step);
        settle();
        at += 2 + step;
    }
}

void fuzz_conn_end(struct conn *conn, const Fleet__Welcome *refusal)
{
    if (conn == dialled)
        dialled = NULL;
    conn->callbacks->on_close(conn, conn->reason != NULL ? conn->reason : "the other side has closed",
                              refusal, conn->data);
    free(conn->reason);
    free(conn);
}

/* ---- instead of raftstore/ ---- */

int conn_send(struct conn *conn, const void *bytes, size_t size)
{
    if (conn->reason != NULL)
        return -ENOTCONN;
    assert(size <= FRAME_MAX);
    if (conn->facts.on_sent != NULL)
        conn->facts.on_sent(bytes, size);
    return 0;
}

void conn_close(struct conn *conn, const char *reason)
{
    assert(reason != NULL);
    if (conn->reason == NULL)
        conn->reason = xstrdup(reason);
}

const char *conn_peer(const struct conn *conn)
{
    return "192.0.2.1:50000";
}

const struct pki_info *conn_peer_info(const struct conn *conn)
{
    return conn->facts.info.name.kind != PKI_NOBODY ? &conn->facts.info : NULL;
}

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    const struct pki_info *info = conn_peer_info(conn);

    return info != NULL ? &info->name : NULL;
}

bool conn_peer_proved(const struct conn *conn)
{
    return conn->facts.proved;
}

bool conn_peer_trusted(const struct conn *conn)
{
    return true;
}

bool conn_peer_proof_ended(const struct conn *conn)
{
    return false;
}

Fleet__Purpose conn_purpose(const struct conn *conn)
{
    return FLEET__PURPOSE__PURPOSE_SESSION;
}

bool conn_is_dialled(const struct conn *conn)
{
    return conn == dialled;
}

uint64_t conn_peer_server_id(const struct conn *conn)
{
    return conn->facts.server_id;
}

int conn_handshake_error(const struct conn *conn)
{
    return 0;
}

struct conn *port_dial(struct port *port, const char *address, Fleet__Purpose purpose, uint64_t to_server_id,
                       const struct conn_callbacks *callbacks, void *data)
{
    assert(dialled == NULL && address[0] != '\0');
    dialled = fuzz_conn_accepted();
    dialled->callbacks = callbacks;
    dialled->data = data;
    return dialled;
}

struct conn *port_dial_join(struct port *port, const char *address, const uint8_t pin[PKI_PIN_SIZE],
                            const struct conn_callbacks *callbacks, void *data)
{
    return port_dial(port, address, FLEET__PURPOSE__PURPOSE_JOIN, 0, callbacks, data);
}

void port_end(struct port *port, const char *(*unwanted)(const struct conn *conn, void *data), void *data)
{
}

void port_set_level_needed(struct port *port, uint32_t level)
{
}

void port_set_credentials(struct port *port, struct tls_credentials *credentials)
{
}
