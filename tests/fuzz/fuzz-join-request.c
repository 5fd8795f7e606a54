/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody says who wants to join, and of whom nobody knows anything. The first byte says what is put
 * right in it, where it is a request at all: its token's secret (1), its request for a certificate (2), the
 * machine id, to one that is a member (4). Whatever it is: nobody is let in without the secret, nobody gets a
 * certificate but for the machine that was registered, and nobody takes the place of a member. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/fuzz/authority.h"
#include "tests/fuzz/conn.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/leader.h"
#include "tests/fuzz/snapshot.h"

#define RIGHT_SECRET  1u
#define RIGHT_REQUEST 2u
#define A_MEMBER      4u

static struct {
    unsigned replies, accepted;
    char machine_id[MACHINE_ID_SIZE]; /* That the certificate is for. */
} got;

static void check_chain(const Fleet__JoinReply *reply)
{
    struct pki_blob authority = fuzz_authority()->certificate, chain[PKI_CHAIN_MAX];
    struct pki_info info;
    int r;

    assert(reply->n_chain > 0 && reply->n_chain <= PKI_CHAIN_MAX && reply->n_roots > 0);
    for (size_t i = 0; i < reply->n_chain; i++)
        chain[i] = (struct pki_blob){.data = reply->chain[i].data, .size = reply->chain[i].len};
    r = pki_verify(chain, reply->n_chain, &authority, 1, 0, &info, NULL);
    assert(r == 0 && info.name.kind == PKI_MACHINE);
    strcpy(got.machine_id, info.name.id);
}

static void check_reply(const uint8_t *bytes, size_t size)
{
    Fleet__JoinReply *reply = fleet__join_reply__unpack(NULL, size, bytes);

    assert(reply != NULL);
    got.replies++;
    if (reply->accepted) {
        got.accepted++;
        check_chain(reply);
    } else {
        assert(reply->reason[0] != '\0' && reply->n_chain == 0 && reply->n_roots == 0);
    }
    fleet__join_reply__free_unpacked(reply, NULL);
}

static void replace(ProtobufCBinaryData *bytes, const void *by, size_t size)
{
    free(bytes->data);
    *bytes = (ProtobufCBinaryData){.len = size, .data = xmemdup(by, size)};
}

/* The input with what is to be right in it; NULL: it is none. */
static uint8_t *put_right(struct fuzz_leader *leader, unsigned how, const uint8_t *data, size_t size,
                          size_t *ret_size)
{
    Fleet__JoinRequest *request = fleet__join_request__unpack(NULL, size, data);
    struct pki_blob csr = fuzz_leader_request();
    uint8_t *bytes;

    if (request == NULL)
        return NULL;
    if ((how & RIGHT_SECRET) != 0)
        replace(&request->secret, leader->token.secret, sizeof leader->token.secret);
    if ((how & RIGHT_REQUEST) != 0)
        replace(&request->certificate_request, csr.data, csr.size);
    if ((how & A_MEMBER) != 0 && request->machine != NULL) {
        if (request->machine->machine_id != protobuf_c_empty_string)
            free(request->machine->machine_id);
        request->machine->machine_id = xstrdup(FUZZ_MACHINE_A);
    }
    *ret_size = fleet__join_request__get_packed_size(request);
    bytes = xmalloc(*ret_size);
    fleet__join_request__pack(request, bytes);
    fleet__join_request__free_unpacked(request, NULL);
    return bytes;
}

static bool has_secret(const struct fuzz_leader *leader, const uint8_t *bytes, size_t size)
{
    Fleet__JoinRequest *request = fleet__join_request__unpack(NULL, size, bytes);
    bool has = request != NULL && request->secret.len == sizeof leader->token.secret &&
               memcmp(request->secret.data, leader->token.secret, sizeof leader->token.secret) == 0;

    if (request != NULL)
        fleet__join_request__free_unpacked(request, NULL);
    return has;
}

static void check_cluster(const struct fuzz_leader *leader, bool had_secret)
{
    const struct registry_machine *a = registry_machine(leader->registry, FUZZ_MACHINE_A);

    assert(got.replies <= 1);
    assert(got.accepted == 0 || had_secret);
    assert(got.accepted == 0 || registry_machine(leader->registry, got.machine_id)->registered);
    assert(a->server_id == FUZZ_SERVER_A && memcmp(a->key, leader->info_a.key_id, FINGERPRINT_SIZE) == 0);
    assert(registry_machine(leader->registry, FUZZ_MACHINE_B)->server_id == FUZZ_SERVER_B);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_leader *leader;
    const struct conn_callbacks *callbacks;
    _cleanup_(freep) uint8_t *right = NULL;
    struct conn *conn;
    void *visitor;
    size_t right_size;
    bool had_secret;

    if (size == 0)
        return 0;
    leader = fuzz_leader_begin();
    memset(&got, 0, sizeof got);
    right = put_right(leader, data[0], data + 1, size - 1, &right_size);
    if (right == NULL) {
        right = xmemdup(data + 1, size - 1);
        right_size = size - 1;
    }
    had_secret = has_secret(leader, right, right_size);
    fuzz_conn_set(&(struct fuzz_conn_facts){.on_sent = check_reply});
    conn = fuzz_conn_accepted();
    callbacks = gate_accept(leader->daemon.gate, conn, &visitor);
    fuzz_conn_begin(conn, callbacks, visitor);
    fuzz_conn_says(conn, right, right_size);
    fuzz_leader_settle();
    check_cluster(leader, had_secret);
    fuzz_conn_end(conn, NULL);
    fuzz_snapshot_round_trip(leader->registry);
    fuzz_leader_end();
    return 0;
}
