/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine says in its session to the leader: messages one after the other, each behind its size in two
 * bytes; a request for a certificate that is empty stands for the right one. The machine is a member, and may
 * be in anybody's hands. Whatever it says: the leader goes on, answers with messages that are some, believes
 * nothing of what it says of another machine, and issues certificates for this one only. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/fuzz/conn.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/leader.h"
#include "tests/fuzz/snapshot.h"

static void check_certificate(const Fleet__Certificate *certificate)
{
    struct pki_info info;
    int r;

    if (certificate->error[0] != '\0')
        return;
    assert(certificate->n_chain > 0 && certificate->n_roots > 0);
    r = pki_read(certificate->chain[0].data, certificate->chain[0].len, &info, NULL);
    assert(r == 0 && info.name.kind == PKI_MACHINE && strcmp(info.name.id, FUZZ_MACHINE_A) == 0);
}

static void check_sent(const uint8_t *bytes, size_t size)
{
    Fleet__SessionDown *message = fleet__session_down__unpack(NULL, size, bytes);

    assert(message != NULL && message->message_case != FLEET__SESSION_DOWN__MESSAGE__NOT_SET);
    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_CERTIFICATE)
        check_certificate(message->certificate);
    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_API_REPLY)
        assert(message->api_reply->status >= 200 && message->api_reply->status < 600);
    if (message->message_case == FLEET__SESSION_DOWN__MESSAGE_REFUSED)
        assert(message->refused[0] != '\0');
    fleet__session_down__free_unpacked(message, NULL);
}

static void say(struct conn *conn, const uint8_t *data, size_t size)
{
    Fleet__SessionUp *message = fleet__session_up__unpack(NULL, size, data);
    struct pki_blob right = fuzz_leader_request();
    _cleanup_(freep) uint8_t *bytes = NULL;

    if (message != NULL && message->message_case == FLEET__SESSION_UP__MESSAGE_CERTIFICATE_REQUEST &&
        message->certificate_request->request.len == 0) {
        free(message->certificate_request->request.data);
        message->certificate_request->request =
            (ProtobufCBinaryData){.len = right.size, .data = xmemdup(right.data, right.size)};
        size = fleet__session_up__get_packed_size(message);
        bytes = xmalloc(size);
        fleet__session_up__pack(message, bytes);
    }
    if (message != NULL)
        fleet__session_up__free_unpacked(message, NULL);
    fuzz_conn_says(conn, bytes != NULL ? bytes : data, size);
}

/* Only a command of a person, through the API, may change what another machine is. */
static void check_other_machine(const struct fuzz_leader *leader)
{
    const struct registry_machine *machine = registry_machine(leader->registry, FUZZ_MACHINE_B);

    assert(machine == NULL ||
           (machine->server_id == FUZZ_SERVER_B && strcmp(machine->hostname, "host-b") == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_leader *leader = fuzz_leader_begin();
    const struct conn_callbacks *callbacks;
    struct conn *conn;
    void *session;

    fuzz_conn_set(
        &(struct fuzz_conn_facts){.info = leader->info_a, .server_id = FUZZ_SERVER_A, .on_sent = check_sent});
    conn = fuzz_conn_accepted();
    callbacks = downlink_accept(leader->daemon.downlink, conn, FUZZ_MACHINE_A, &session);
    fuzz_conn_begin(conn, callbacks, session);
    fuzz_conn_speak(conn, data, size, say, fuzz_leader_settle);
    leading_chores(&leader->daemon);
    leading_tick(&leader->daemon);
    fuzz_leader_settle();
    check_other_machine(leader);
    fuzz_conn_end(conn, NULL);
    fuzz_leader_settle();
    fuzz_snapshot_round_trip(leader->registry);
    fuzz_leader_end();
    return 0;
}
