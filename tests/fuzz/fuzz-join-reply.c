/* SPDX-License-Identifier: Apache-2.0 */
/* What a host that wants to join is answered. The first byte says what is put right in it, where it is an
 * answer at all: certificate and authorities (1), the cluster's id (2). Whatever it is: the host is a member
 * afterwards, by a certificate of its own, and with files that it can start from; or it is none, and says
 * why. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/membership.h"
#include "tests/fuzz/authority.h"
#include "tests/fuzz/conn.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/host.h"

#define RIGHT_CREDENTIALS 1u
#define RIGHT_CLUSTER     2u

static struct daemon host;
static unsigned requests;

/* ---- what else there is of a daemon ---- */

int cluster_become_member(struct daemon *daemon, struct err *err)
{
    daemon->is_member = true;
    return 0;
}

void daemon_update_status(struct daemon *daemon)
{
}

void daemon_fatal(struct daemon *daemon, const char *why)
{
    abort();
}

void hosting_describe(struct daemon *daemon)
{
    daemon->machine.machine_id = daemon->identity.machine_id;
    daemon->machine.server_id = daemon->member.server_id;
}

void removal_resume(struct daemon *daemon)
{
    abort();
}

void renewal_use(struct daemon *daemon)
{
    abort(); /* It is no member yet. */
}

bool router_admits(struct router *router, struct http_request *request, enum pki_role needed)
{
    abort();
}

void http_reply(struct http_request *request, unsigned status, const char *content_type, const void *body,
                size_t size)
{
    abort(); /* Nobody has asked. */
}

bool uplink_is_open(const struct uplink *uplink)
{
    return false;
}

const char *uplink_trouble(const struct uplink *uplink)
{
    return "";
}

/* ---- the leader ---- */

static void check_sent(const uint8_t *bytes, size_t size)
{
    Fleet__JoinRequest *request = fleet__join_request__unpack(NULL, size, bytes);

    assert(request != NULL && request->secret.len == JOIN_TOKEN_SECRET_SIZE);
    requests++;
    fleet__join_request__free_unpacked(request, NULL);
}

static void clear(ProtobufCBinaryData **list, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        free((*list)[i].data);
    free(*list);
    *list = NULL;
    *count = 0;
}

static void set_one(ProtobufCBinaryData **list, size_t *count, struct pki_blob owned)
{
    clear(list, count);
    *list = NEW0(ProtobufCBinaryData);
    **list = (ProtobufCBinaryData){.len = owned.size, .data = owned.data};
    *count = 1;
}

static void put_credentials(Fleet__JoinReply *reply)
{
    struct pki_blob root = fuzz_authority()->certificate;
    _cleanup_(pki_blob_done) struct pki_blob request = {0};

    if (credentials_request(&host.credentials, &request, NULL) < 0)
        abort();
    set_one(&reply->chain, &reply->n_chain, fuzz_authority_certify(FUZZ_HOST, &request));
    set_one(&reply->roots, &reply->n_roots,
            (struct pki_blob){.data = xmemdup(root.data, root.size), .size = root.size});
}

/* The input with what is to be right in it; NULL: it is none. */
static uint8_t *put_right(unsigned how, const uint8_t *data, size_t size, size_t *ret_size)
{
    Fleet__JoinReply *reply = fleet__join_reply__unpack(NULL, size, data);
    uint8_t *bytes;

    if (reply == NULL)
        return NULL;
    if ((how & RIGHT_CREDENTIALS) != 0)
        put_credentials(reply);
    if ((how & RIGHT_CLUSTER) != 0) {
        free(reply->cluster_id.data);
        reply->cluster_id =
            (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = xmemdup(FUZZ_CLUSTER, CLUSTER_ID_SIZE)};
    }
    *ret_size = fleet__join_reply__get_packed_size(reply);
    bytes = xmalloc(*ret_size);
    fleet__join_reply__pack(reply, bytes);
    fleet__join_reply__free_unpacked(reply, NULL);
    return bytes;
}

/* ---- the host ---- */

static void begin(void)
{
    const struct fuzz_authority *authority = fuzz_authority();
    struct join_token token;
    char text[JOIN_TOKEN_TEXT_SIZE];
    struct err err = {0};
    int r;

    fuzz_host_begin(&host);
    r = join_token_new(authority->certificate.data, authority->certificate.size, &token, &err);
    assert(r == 0);
    join_token_format(&token, text);
    free(host.config.join_token);
    host.config.join_token = xstrdup(text);
    strlist_add(&host.config.join, FUZZ_HOST_LEADER);
    requests = 0;
    r = membership_start(&host, &err);
    assert(r == 0 && !host.is_member);
}

static void on_nothing(void *data)
{
}

static void end(struct conn *conn)
{
    membership_close(&host, on_nothing, NULL);
    fuzz_conn_end(conn, NULL);
    fuzz_host_turn();
    membership_free(host.membership);
    fuzz_host_end(&host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) uint8_t *right = NULL;
    struct conn *conn;
    size_t right_size = 0;

    if (size == 0)
        return 0;
    begin();
    conn = fuzz_host_dials(check_sent);
    assert(requests == 1);
    right = put_right(data[0], data + 1, size - 1, &right_size);
    if (right != NULL)
        fuzz_conn_says(conn, right, right_size);
    else
        fuzz_conn_says(conn, data + 1, size - 1);
    assert(fuzz_conn_is_closed(conn)); /* In any case that was all. */
    assert(!host.is_member || credentials_complete(&host.credentials));
    fuzz_host_check(&host);
    end(conn);
    return 0;
}
