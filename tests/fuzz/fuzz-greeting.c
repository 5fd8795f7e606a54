/* SPDX-License-Identifier: Apache-2.0 */
/* The first words on a connection, heard by either side: the first byte says by which (1: this side has
 * dialled, and hears a Welcome), for what, and whether the other side has shown a certificate (2). Whatever
 * they are: the connection is open, or refused or ended with a reason; it is open only to who is meant, is of
 * this cluster and is who its certificate says; and nobody proves anything by chance. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/times.h"
#include "raftstore/conn.h"
#include "raftstore/proof.h"
#include "tests/fuzz/authority.h"
#include "tests/fuzz/fuzz.h"

#define DIALLED     1u
#define CERTIFIED   2u
#define PURPOSE_BIT 4u /* From here on: the purpose. */

#define MACHINE   "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define SERVER_ID 7u

static struct {
    bool open, ended, accepted, later;
    struct pki_name name; /* That the other side has shown; kind PKI_NOBODY: none. */
} saw;

/* ---- the rest of the connection ---- */

void conn_move(struct conn *conn, enum conn_state to)
{
    assert(to == CONN_OPEN && !saw.open && !saw.ended);
    conn->state = to;
    saw.open = true;
}

void conn_uncount(struct conn *conn)
{
}

void conn_shut(struct conn *conn, const char *reason)
{
    assert(!saw.open && !saw.ended && reason[0] != '\0');
    conn->state = CONN_CLOSED;
    saw.ended = true;
}

void conn_close(struct conn *conn, const char *reason)
{
    conn_shut(conn, reason);
}

void conn_queue_frame(struct conn *conn, const void *bytes, size_t size)
{
    Fleet__Welcome *welcome = fleet__welcome__unpack(NULL, size, bytes);

    assert(!conn->dialled && welcome != NULL);
    assert(welcome->accepted || welcome->reason[0] != '\0');
    fleet__welcome__free_unpacked(welcome, NULL);
}

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    return saw.name.kind != PKI_NOBODY ? &saw.name : NULL;
}

void port_log_stranger(struct port *port, const char *peer, const char *what)
{
    assert(what[0] != '\0');
}

/* ---- its owner ---- */

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    assert(welcome->accepted && (conn->to_server_id == 0 || welcome->server_id == conn->to_server_id));
    assert(saw.name.kind == PKI_NOBODY || strcmp(welcome->machine_id, saw.name.id) == 0);
}

static const struct conn_callbacks callbacks = {.on_open = on_open};

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    assert(saw.name.kind == PKI_NOBODY || strcmp(hello->machine_id, saw.name.id) == 0);
    assert(hello->purpose == FLEET__PURPOSE__PURPOSE_JOIN ||
           memcmp(hello->cluster_id.data, FUZZ_CLUSTER, sizeof conn->port->identity.cluster_id) == 0);
    assert(hello->to_server_id == 0 || hello->to_server_id == SERVER_ID);
    saw.accepted = true;
    if (hello->server_id == 0)
        return err_set(err, -EAGAIN, "this host does not lead");
    *ret = &callbacks;
    return 0;
}

static void on_later_history(const struct cluster_history *history, const char *machine_id, void *data)
{
    assert(saw.name.kind == PKI_NOBODY || strcmp(machine_id, saw.name.id) == 0);
    assert(history->recoveries >= 1);
    saw.later = true;
}

static int check_server(const struct conn *conn, uint64_t server_id, struct err *err, void *data)
{
    return server_id % 2 == 1 ? 0 : err_set(err, -EACCES, "not known to keep the data");
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

/* ---- proofs ---- */

static void check_proof(const Fleet__Proof *proof)
{
    static const uint8_t text[PROOF_TEXT_SIZE];
    struct pki_blob others[PROOF_AUTHORITIES_MAX], root = fuzz_authority()->certificate;
    struct pki_info by;
    size_t count = 0;

    if (proof == NULL)
        return;
    for (; count < proof->n_authorities && count < PROOF_AUTHORITIES_MAX; count++)
        others[count] =
            (struct pki_blob){.data = proof->authorities[count].data, .size = proof->authorities[count].len};
    assert(pki_verify_proof(proof->signature.data, proof->signature.len, text, sizeof text, others, count,
                            &root, 1, wall_ms(), &by, NULL) < 0);
}

static void check_proofs(bool is_welcome, const uint8_t *bytes, size_t size)
{
    Fleet__Welcome *welcome = is_welcome ? fleet__welcome__unpack(NULL, size, bytes) : NULL;
    Fleet__Hello *hello = is_welcome ? NULL : fleet__hello__unpack(NULL, size, bytes);

    if (welcome != NULL) {
        check_proof(welcome->proof);
        fleet__welcome__free_unpacked(welcome, NULL);
    }
    if (hello != NULL) {
        check_proof(hello->proof);
        fleet__hello__free_unpacked(hello, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uv_loop_t loop;
    static struct port port;
    struct conn conn = {.port = &port, .state = CONN_GREETING, .callbacks = &callbacks};

    if (size == 0)
        return 0;
    log_set_sink(no_log);
    memset(&saw, 0, sizeof saw);
    if ((data[0] & CERTIFIED) != 0)
        saw.name = (struct pki_name){.kind = PKI_MACHINE, .id = MACHINE};
    port.identity = (struct port_identity){.has_cluster = true,
                                           .server_id = SERVER_ID,
                                           .level = 1,
                                           .level_needed = 1,
                                           .machine_id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                           .history = {.recoveries = 1, .id = {1}}};
    memcpy(port.identity.cluster_id, FUZZ_CLUSTER, sizeof port.identity.cluster_id);
    port.callbacks = (struct port_callbacks){
        .on_accept = on_accept, .on_later_history = on_later_history, .check_server = check_server};
    uv_loop_init(&loop);
    uv_timer_init(&loop, &conn.timer);
    conn.dialled = (data[0] & DIALLED) != 0;
    conn.purpose = data[0] / PURPOSE_BIT;
    if (conn.dialled) {
        conn.to_server_id = data[0] / PURPOSE_BIT % 2 == 0 ? SERVER_ID + 1 : 0;
        conn_take_welcome(&conn, data + 1, size - 1);
    } else {
        conn_take_hello(&conn, data + 1, size - 1);
    }
    assert(saw.open != saw.ended && !conn.peer_proved);
    assert(conn.dialled || !saw.open || saw.accepted);
    check_proofs(conn.dialled, data + 1, size - 1);
    if (conn.refusal != NULL)
        fleet__welcome__free_unpacked(conn.refusal, NULL);
    uv_close((uv_handle_t *)&conn.timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return 0;
}
