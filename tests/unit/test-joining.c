/* SPDX-License-Identifier: Apache-2.0 */
/* A host joins, over loopback and with TLS: the joiner on one side, the gate on the other. What must not
 * happen: that anybody but the cluster that the token is for hears its secret. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/gate.h"
#include "fleetd/joiner.h"
#include "raftstore/limits.h"
#include "raftstore/tls_credentials.h"
#include "tests/unit/deadline.h"

#define ID        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define MEMBER_ID "00000000000000000000000000000001"
#define NOT_AFTER 4000000000000ull

enum { OURS, OTHER, CLUSTERS };

/* ---- clusters ---- */

static struct cluster {
    uint8_t id[PKI_CLUSTER_ID_SIZE];
    struct pki_key *key;
    struct pki_blob authority;
    struct join_token token;
} clusters[CLUSTERS];

static int group_setup(void **state)
{
    struct err err = {0};

    for (unsigned i = 0; i < CLUSTERS; i++) {
        memset(clusters[i].id, 'A' + (int)i, sizeof clusters[i].id);
        assert_int_equal(pki_key_new(&clusters[i].key, &err), 0);
        assert_int_equal(
            pki_authority_new(clusters[i].id, clusters[i].key, NOT_AFTER, &clusters[i].authority, &err), 0);
        assert_int_equal(
            join_token_new(clusters[i].authority.data, clusters[i].authority.size, &clusters[i].token, &err),
            0);
    }
    return 0;
}

static int group_teardown(void **state)
{
    for (unsigned i = 0; i < CLUSTERS; i++) {
        pki_key_free(clusters[i].key);
        pki_blob_done(&clusters[i].authority);
    }
    return 0;
}

static struct tls_credentials *member_of(const struct cluster *cluster)
{
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE, .id = MEMBER_ID}, .not_after_ms = NOT_AFTER};
    struct tls_credentials *credentials;
    struct pki_key *key;
    struct pki_blob request = {0}, certificate = {0};
    struct err err = {0};

    memcpy(subject.name.cluster_id, cluster->id, sizeof subject.name.cluster_id);
    assert_int_equal(pki_key_new(&key, &err), 0);
    assert_int_equal(pki_request_new(key, &request, &err), 0);
    assert_int_equal(pki_sign(cluster->authority.data, cluster->authority.size, cluster->key, request.data,
                              request.size, &subject, &certificate, NULL, &err),
                     0);
    assert_int_equal(tls_credentials_new(key, &certificate, 1, &cluster->authority, 1, &credentials, &err),
                     0);
    pki_blob_done(&certificate);
    pki_blob_done(&request);
    pki_key_free(key);
    return credentials;
}

/* ---- a world ---- */

/* A member that listens. */
struct member {
    struct world *world;
    struct port *port;
    struct gate *gate;
    const char *leader; /* It does not lead, and says who does. */
    unsigned hellos;    /* With which somebody wanted to join... */
    unsigned requests;  /* ...and who said what for. */
    uint8_t secret[64];
    size_t secret_size;
    char machine_id[40], peer[64];
    /* What it answers. */
    int refusal;                   /* A negative errno: with the text "no". */
    bool silent;                   /* Never, until admit_later(). */
    bool drop;                     /* Ends the connection instead, once. */
    const struct cluster *cluster; /* Whose authority's key it has; NULL: none. */
    void (*admit_done)(bool admitted, bool again, const char *why, void *data);
    void *admit_data;
};

struct world {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired;
    struct port *client;
    struct member members[2];
    unsigned member_count, ports, ports_closed;
    struct joiner *joiner;
    bool joiner_closed;
    /* What the joiner was given, and says. */
    const struct join_token *token; /* NULL: none yet. */
    struct pki_blob request;
    unsigned tokens_asked, admitted, troubles, finals;
    char trouble[512];
    Fleet__RegisterMachine machine;
    uint64_t server_ids[8];
    unsigned server_id_count;
    struct pki_info certificate;
    size_t root_count;
    int of_no_use; /* on_admitted() returns this. */
};

static void on_deadline(uv_timer_t *timer)
{
    ((struct world *)timer->data)->expired = true;
}

#define WAIT(w, condition)                                                     \
    do {                                                                       \
        (w)->expired = false;                                                  \
        uv_timer_start(&(w)->deadline, on_deadline, DEADLINE_MS, 0);           \
        while (!(condition) && !(w)->expired)                                  \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                   \
        uv_timer_stop(&(w)->deadline);                                         \
        if (!(condition))                                                      \
            fail_msg("never came true in %u ms: %s", DEADLINE_MS, #condition); \
    } while (0)

/* The gate's side. */

static int gate_check(const Fleet__JoinRequest *request, const char *peer, struct gate_pass *ret,
                      struct err *err, void *data)
{
    struct member *member = data;
    struct pki_subject subject = {.name = {.kind = PKI_MACHINE}, .not_after_ms = NOT_AFTER};
    int r = 0;

    member->requests++;
    assert_true(request->secret.len <= sizeof member->secret);
    if (request->secret.len > 0)
        memcpy(member->secret, request->secret.data, request->secret.len);
    member->secret_size = request->secret.len;
    snprintf(member->machine_id, sizeof member->machine_id, "%s", request->machine->machine_id);
    snprintf(member->peer, sizeof member->peer, "%s", peer);
    member->world->server_ids[member->world->server_id_count++] = request->machine->server_id;
    if (member->refusal < 0)
        return err_set(err, member->refusal, "no");
    strcpy(ret->token_id, "0123456789abcdef");
    if (request->secret.len == 0) /* In plain text. */
        return 0;
    memcpy(subject.name.cluster_id, clusters[OURS].id, sizeof subject.name.cluster_id);
    strcpy(subject.name.id, request->machine->machine_id);
    r = pki_sign(clusters[OURS].authority.data, clusters[OURS].authority.size, clusters[OURS].key,
                 request->certificate_request.data, request->certificate_request.len, &subject,
                 &ret->certificate, NULL, err);
    assert_int_equal(r, 0);
    return 0;
}

static void gate_admit(const Fleet__RegisterMachine *machine, const struct gate_pass *pass,
                       void (*done)(bool admitted, bool again, const char *why, void *done_data),
                       void *done_data, void *data)
{
    struct member *member = data;

    assert_string_equal(pass->token_id, "0123456789abcdef");
    member->admit_done = done;
    member->admit_data = done_data;
    if (member->drop) {
        member->drop = false;
        done(false, true, "leadership was lost", done_data);
    } else if (!member->silent) {
        done(true, false, "", done_data);
    }
}

static void gate_fill(Fleet__JoinReply *reply, void *data)
{
    static char *address[] = {(char *)"10.0.0.1:7390"};
    static ProtobufCBinaryData chain[1], roots[1];
    const struct pki_blob *authority = &clusters[OURS].authority;

    roots[0] = (ProtobufCBinaryData){.len = authority->size, .data = authority->data};
    reply->cluster_id = (ProtobufCBinaryData){.len = PKI_CLUSTER_ID_SIZE, .data = clusters[OURS].id};
    reply->members = address;
    reply->n_members = 1;
    reply->machines = 7;
    reply->chain = chain;
    reply->n_chain = 1;
    reply->roots = roots;
    reply->n_roots = 1;
}

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct member *member = data;

    assert_int_equal(hello->purpose, FLEET__PURPOSE__PURPOSE_JOIN);
    member->hellos++;
    if (member->leader != NULL) {
        strcpy(leader_address, member->leader);
        return err_set(err, -EAGAIN, "this host does not lead");
    }
    *ret = gate_accept(member->gate, conn, ret_data);
    return *ret != NULL ? 0 : err_set(err, -EAGAIN, "too many");
}

/* The joiner's side. */

static Fleet__RegisterMachine *joiner_machine(void *data)
{
    return &((struct world *)data)->machine;
}

static int joiner_token(struct join_token *ret, struct err *err, void *data)
{
    struct world *world = data;

    world->tokens_asked++;
    if (world->token == NULL)
        return err_set(err, -ENOENT, "there is no token yet");
    *ret = *world->token;
    return 0;
}

static const struct pki_blob *joiner_request(void *data)
{
    return &((struct world *)data)->request;
}

static int on_admitted(const Fleet__JoinReply *reply, struct err *err, void *data)
{
    struct world *world = data;

    if (world->of_no_use < 0)
        return err_set(err, world->of_no_use, "it is of no use");
    world->admitted++;
    assert_memory_equal(reply->cluster_id.data, clusters[OURS].id, PKI_CLUSTER_ID_SIZE);
    assert_int_equal(reply->machines, 7);
    assert_string_equal(reply->members[0], "10.0.0.1:7390");
    world->root_count = reply->n_roots;
    if (reply->chain[0].len > 0)
        assert_int_equal(pki_read(reply->chain[0].data, reply->chain[0].len, &world->certificate, err), 0);
    return 0;
}

static void on_trouble(const char *why, bool final, void *data)
{
    struct world *world = data;

    world->troubles++;
    world->finals += final;
    snprintf(world->trouble, sizeof world->trouble, "%s", why);
}

/* ---- set-up ---- */

static void no_log(int priority, const char *message, const char *const *fields)
{
}

/* As who keeps the data can. */
static bool prove(const void *text, size_t size, struct port_proof *ret, void *data)
{
    const struct cluster *cluster = ((struct member *)data)->cluster;

    if (cluster == NULL)
        return false;
    assert_int_equal(pki_prove(cluster->key, text, size, &ret->signature, NULL), 0);
    ret->authorities[ret->authority_count++] =
        (ProtobufCBinaryData){.len = cluster->authority.size, .data = cluster->authority.data};
    return true;
}

static struct member *add_member(struct world *world, const struct cluster *cluster)
{
    static const struct port_callbacks port_callbacks = {.on_accept = on_accept, .prove = prove};
    static const struct gate_callbacks gate_callbacks = {
        .check = gate_check, .admit = gate_admit, .fill = gate_fill};
    struct member *member = &world->members[world->member_count++];
    struct port_identity identity = {.has_cluster = true, .server_id = 1, .machine_id = MEMBER_ID};
    struct tls_credentials *credentials = cluster != NULL ? member_of(cluster) : NULL;
    struct err err = {0};

    memcpy(identity.cluster_id, cluster != NULL ? cluster->id : clusters[OURS].id,
           sizeof identity.cluster_id);
    member->world = world;
    member->cluster = cluster;
    member->gate = gate_new(&gate_callbacks, member);
    member->port = port_new(&world->loop, &identity, &port_callbacks, member);
    world->ports++;
    port_set_credentials(member->port, credentials);
    tls_credentials_unref(credentials);
    assert_int_equal(port_listen(member->port, "127.0.0.1:0", &err), 0);
    return member;
}

static void on_port_closed(void *data)
{
    ((struct world *)data)->ports_closed++;
}

static void on_joiner_closed(void *data)
{
    ((struct world *)data)->joiner_closed = true;
}

static int setup(void **state)
{
    static const struct port_callbacks nobody = {0};
    const struct port_identity identity = {.machine_id = ID};
    struct world *world = NEW0(struct world);
    struct pki_key *key;
    struct err err = {0};

    log_set_sink(no_log);
    uv_loop_init(&world->loop);
    uv_timer_init(&world->loop, &world->deadline);
    world->deadline.data = world;
    world->client = port_new(&world->loop, &identity, &nobody, world);
    world->ports = 1;
    assert_int_equal(pki_key_new(&key, &err), 0);
    assert_int_equal(pki_request_new(key, &world->request, &err), 0);
    pki_key_free(key);
    fleet__register_machine__init(&world->machine);
    world->machine.machine_id = (char *)ID;
    world->machine.server_id = 77;
    world->token = &clusters[OURS].token;
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    if (world->joiner != NULL) {
        joiner_close(world->joiner, on_joiner_closed, world);
        WAIT(world, world->joiner_closed);
    }
    port_close(world->client, on_port_closed, world);
    for (unsigned i = 0; i < world->member_count; i++)
        port_close(world->members[i].port, on_port_closed, world);
    WAIT(world, world->ports_closed == world->ports);
    for (unsigned i = 0; i < world->member_count; i++)
        gate_free(world->members[i].gate);
    uv_close((uv_handle_t *)&world->deadline, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    pki_blob_done(&world->request);
    free(world);
    return 0;
}

static void join(struct world *world, bool secure, const char *address, const char *second)
{
    struct joiner_callbacks callbacks = {
        .machine = joiner_machine, .on_admitted = on_admitted, .on_trouble = on_trouble};
    struct strlist addresses = {0};

    if (secure) {
        callbacks.token = joiner_token;
        callbacks.request = joiner_request;
    }
    strlist_add(&addresses, address);
    if (second != NULL)
        strlist_add(&addresses, second);
    world->joiner = joiner_new(&world->loop, world->client, &addresses, &callbacks, world);
    strlist_done(&addresses);
}

static const char *address_of(const struct member *member)
{
    return port_listening(member->port);
}

/* ---- what is to work ---- */

static void test_joins_by_token(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    join(world, true, address_of(member), NULL);
    WAIT(world, world->admitted == 1);
    assert_string_equal(world->certificate.name.id, ID);
    assert_int_equal(world->certificate.name.kind, PKI_MACHINE);
    assert_int_equal(world->root_count, 1);
    assert_int_equal(member->secret_size, JOIN_TOKEN_SECRET_SIZE);
    assert_memory_equal(member->secret, clusters[OURS].token.secret, JOIN_TOKEN_SECRET_SIZE);
    assert_string_equal(member->machine_id, ID);
    assert_true(str_has_prefix(member->peer, "127.0.0.1:"));
    assert_int_equal(world->troubles, 0);
}

static void test_joins_in_plain_text_without_a_token(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, NULL);

    join(world, false, address_of(member), NULL);
    WAIT(world, world->admitted == 1);
    assert_int_equal(member->secret_size, 0);
}

static void test_follows_the_word_of_a_member(void **state)
{
    struct world *world = *state;
    struct member *leader = add_member(world, &clusters[OURS]), *member = add_member(world, &clusters[OURS]);

    member->leader = address_of(leader);
    join(world, true, address_of(member), NULL);
    WAIT(world, world->admitted == 1);
    assert_int_equal(member->requests, 0);
    assert_int_equal(leader->requests, 1);
    assert_int_equal(world->troubles, 0);
}

static void test_tries_the_next_address(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    join(world, true, "127.0.0.1:1", address_of(member));
    WAIT(world, world->admitted == 1);
    assert_int_equal(world->troubles, 1);
    assert_true(str_has_prefix(world->trouble, "127.0.0.1:1: "));
    assert_int_equal(world->finals, 0);
}

static void test_waits_for_its_token(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    world->token = NULL;
    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 2);
    assert_string_equal(world->trouble, "there is no token yet");
    assert_int_equal(member->hellos, 0);
    world->token = &clusters[OURS].token;
    WAIT(world, world->admitted == 1);
}

/* The answer was lost: it asks again as the same server, and so is not counted twice. */
static void test_asks_again_as_the_same(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    member->drop = true;
    join(world, true, address_of(member), NULL);
    WAIT(world, world->admitted == 1);
    assert_int_equal(world->server_id_count, 2);
    assert_int_equal(world->server_ids[0], world->server_ids[1]);
    assert_int_equal(world->finals, 0);
    assert_non_null(strstr(world->trouble, "leadership was lost"));
}

/* ---- what is refused ---- */

static void test_is_told_why_not(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    member->refusal = -EACCES;
    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 1);
    assert_int_equal(world->finals, 1); /* The same tomorrow. */
    assert_true(str_has_prefix(world->trouble, address_of(member)));
    assert_non_null(strstr(world->trouble, ": no"));
}

static void test_refused_for_now(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    member->refusal = -EEXIST;
    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 2);
    assert_int_equal(world->finals, 0);
    member->refusal = 0;
    WAIT(world, world->admitted == 1);
}

static void test_what_is_issued_is_of_no_use(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    world->of_no_use = -EKEYEXPIRED;
    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 1);
    assert_int_equal(world->finals, 1);
    assert_non_null(strstr(world->trouble, "it is of no use"));
}

/* ---- who must not hear the secret ---- */

static void test_another_cluster_never_hears_the_secret(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OTHER]);

    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 1);
    assert_int_equal(world->finals, 1);
    assert_non_null(strstr(world->trouble, "it does not prove to be of the cluster that the token is for"));
    assert_int_equal(member->hellos, 0); /* It did not even hear who calls. */
    assert_int_equal(member->requests, 0);
}

static void test_plain_text_never_hears_the_secret(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, NULL);

    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles == 1);
    assert_int_equal(world->finals, 1);
    assert_int_equal(member->hellos, 0);
    assert_non_null(strstr(world->trouble, "insecure"));
}

/* A member of ours points to a host of others: the secret is no more for them than before. */
static void test_a_wrong_pointer_is_not_trusted(void **state)
{
    struct world *world = *state;
    struct member *other = add_member(world, &clusters[OTHER]), *member = add_member(world, &clusters[OURS]);

    member->leader = address_of(other);
    join(world, true, address_of(member), NULL);
    WAIT(world, world->troubles >= 1);
    assert_int_equal(other->hellos, 0);
    assert_int_equal(other->requests, 0);
}

/* The other way round: an insecure host at a secure member's. */
static void test_insecure_host_is_refused(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    join(world, false, address_of(member), NULL);
    WAIT(world, world->troubles == 1);
    assert_int_equal(member->requests, 0);
    assert_non_null(strstr(world->trouble, "insecure = true"));
}

/* ---- the gate's peace ---- */

static void knock(struct world *world, struct member *member, unsigned count, struct conn **conns,
                  const struct conn_callbacks *callbacks)
{
    for (unsigned i = 0; i < count; i++)
        conns[i] =
            port_dial_join(world->client, address_of(member), clusters[OURS].token.pin, callbacks, &conns[i]);
}

static unsigned opened, closed;
static char refusal_text[256];

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    opened++;
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    *(struct conn **)data = NULL;
    closed++;
    snprintf(refusal_text, sizeof refusal_text, "%s", reason);
}

static const struct conn_callbacks knocking = {
    .on_open = on_open, .on_message = on_message, .on_close = on_close};

static void test_visitors_are_bounded(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);
    static struct conn *conns[GATE_VISITORS_MAX], *late; /* They outlive the test. */

    opened = closed = 0;
    for (unsigned i = 0; i < GATE_VISITORS_MAX; i += 8) { /* Fewer than there may be handshakes. */
        knock(world, member, 8, &conns[i], &knocking);
        WAIT(world, opened == i + 8);
    }
    knock(world, member, 1, &late, &knocking);
    WAIT(world, closed == 1);
    assert_non_null(strstr(refusal_text, "too many"));
    conn_close(conns[0], "enough");
    WAIT(world, closed == 2);
    knock(world, member, 1, &late, &knocking);
    WAIT(world, opened == GATE_VISITORS_MAX + 1 || closed == 3);
    /* The member may have heard of the end of the first one only now. */
    if (closed == 3) {
        knock(world, member, 1, &late, &knocking);
        WAIT(world, opened == GATE_VISITORS_MAX + 1);
    }
}

static void test_nonsense_ends_the_connection(void **state)
{
    static const uint8_t nonsense[] = {0xff, 0xff, 0xff};
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);
    static struct conn *conn;
    uint8_t *large = xcalloc(1, JOIN_FRAME_MAX + 1);

    opened = closed = 0;
    knock(world, member, 1, &conn, &knocking);
    WAIT(world, opened == 1);
    conn_send(conn, nonsense, sizeof nonsense);
    WAIT(world, closed == 1);
    knock(world, member, 1, &conn, &knocking);
    WAIT(world, opened == 2);
    conn_send(conn, large,
              JOIN_FRAME_MAX + 1); /* As members may send it, but not who only wants to be one. */
    WAIT(world, closed == 2);
    assert_int_equal(member->requests, 0);
    free(large);
}

/* It is gone when the registration is through. */
static void test_visitor_that_has_gone(void **state)
{
    struct world *world = *state;
    struct member *member = add_member(world, &clusters[OURS]);

    member->silent = true;
    join(world, true, address_of(member), NULL);
    WAIT(world, member->admit_done != NULL);
    joiner_close(TAKE_PTR(world->joiner), on_joiner_closed, world);
    WAIT(world, world->joiner_closed);
    member->admit_done(true, false, "", member->admit_data);
    assert_int_equal(world->admitted, 0);
}

/* Any machine of the cluster can be dialled, and say that it leads; and one that runs units only is not to
 * learn what lets others in, nor to say whom a new host trusts. */
static void test_only_who_keeps_the_data_hears_the_secret(void **state)
{
    struct world *world = *state;
    struct member *liar = add_member(world, &clusters[OURS]), *leader = add_member(world, &clusters[OURS]);
    const struct cluster *keys[] = {NULL, &clusters[OTHER]};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        liar->cluster = keys[i];
        join(world, true, address_of(liar), NULL);
        WAIT(world, world->troubles > 0);
        assert_non_null(strstr(world->trouble, "it says that it leads, and does not prove that it has the"));
        joiner_close(TAKE_PTR(world->joiner), on_joiner_closed, world);
        WAIT(world, world->joiner_closed);
        world->joiner_closed = false;
        assert_int_equal(liar->requests, 0);
        world->troubles = 0;
    }
    join(world, true, address_of(liar), address_of(leader));
    WAIT(world, world->admitted == 1);
    assert_int_equal(liar->requests, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_joins_by_token),
        TEST(test_joins_in_plain_text_without_a_token),
        TEST(test_follows_the_word_of_a_member),
        TEST(test_tries_the_next_address),
        TEST(test_waits_for_its_token),
        TEST(test_asks_again_as_the_same),
        TEST(test_is_told_why_not),
        TEST(test_refused_for_now),
        TEST(test_what_is_issued_is_of_no_use),
        TEST(test_another_cluster_never_hears_the_secret),
        TEST(test_plain_text_never_hears_the_secret),
        TEST(test_only_who_keeps_the_data_hears_the_secret),
        TEST(test_a_wrong_pointer_is_not_trusted),
        TEST(test_insecure_host_is_refused),
        TEST(test_visitors_are_bounded),
        TEST(test_nonsense_ends_the_connection),
        TEST(test_visitor_that_has_gone),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
