/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/leader.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/api.h"
#include "raftstore/limits.h"
#include "tests/fuzz/authority.h"

#define SETTLE_MAX 1000u /* Proposals that follow from one another: more is a loop. */

#define UNIT "x.service"

struct proposal {
    uint8_t *bytes; /* NULL: a barrier. */
    size_t size;
    store_done *done;
    void *data;
    struct proposal *prev, *next;
};

static struct {
    struct pki_blob request_a;
    struct pki_info info_a;
} made; /* Once: keys take long. */

static struct fuzz_leader *leader;
static struct proposal *proposals;

/* ---- the store ---- */

const struct registry *store_registry(const struct store *store)
{
    return leader->registry;
}

void store_changes_take(struct store *store, struct registry_changes *ret)
{
    registry_changes_take(leader->registry, ret);
}

void store_propose(struct store *store, const Fleet__Command *command, store_done *done, void *data)
{
    struct proposal *proposal = NEW0(struct proposal);

    proposal->done = done;
    proposal->data = data;
    if (command != NULL) {
        Fleet__Command stamped = *command;
        int r;

        stamped.format = COMMAND_FORMAT;
        stamped.wall_ms = wall_ms();
        r = command_encode(&stamped, &proposal->bytes, &proposal->size);
        assert(r >= 0 || r == -E2BIG);
    }
    DL_APPEND(proposals, proposal);
}

void store_barrier(struct store *store, store_done *done, void *data)
{
    store_propose(store, NULL, done, data);
}

bool store_leads(const struct store *store)
{
    return true;
}

uint64_t store_term(const struct store *store)
{
    return 1;
}

uint64_t store_leader_id(const struct store *store)
{
    return FUZZ_SERVER_B;
}

size_t store_servers(const struct store *store, struct store_server *servers, size_t max)
{
    servers[0] = (struct store_server){.id = FUZZ_SERVER_B, .address = "10.0.0.2:7390", .role = SERVER_VOTER};
    return 1;
}

static void come_through(struct proposal *proposal)
{
    const struct registry_result *result = NULL;

    if (proposal->bytes != NULL) {
        result = registry_apply(leader->registry, proposal->bytes, proposal->size);
        assert(!registry_is_behind(leader->registry)); /* This version has said it. */
        leader->daemon.registry_changed = true;
    }
    proposal->done(STORE_APPLIED, result, "", proposal->data);
    free(proposal->bytes);
    free(proposal);
}

void fuzz_leader_settle(void)
{
    unsigned count = 0;

    leading_step(&leader->daemon);
    while (proposals != NULL) {
        struct proposal *first = proposals;

        DL_DELETE(proposals, first);
        come_through(first);
        leading_step(&leader->daemon);
        assert(++count < SETTLE_MAX);
    }
}

/* ---- what else there is of a daemon ---- */

void cluster_forget_founding(struct daemon *daemon)
{
}

bool cluster_knows_peers(const struct daemon *daemon, const struct strlist *addresses)
{
    return true;
}

void cluster_learn_peers(struct daemon *daemon)
{
}

unsigned cluster_own_level(const struct daemon *daemon)
{
    return FEATURE_LEVEL;
}

int credentials_load_authority(const struct credentials *credentials, struct pki_blob *ret, struct err *err)
{
    abort(); /* It was founded long ago. */
}

void daemon_fatal(struct daemon *daemon, const char *why)
{
    abort();
}

void hosting_report_all(struct daemon *daemon)
{
}

void lessor_ask(struct lessor *lessor, const char *machine_id, uint64_t session_id, uint64_t sequence,
                bool urgent)
{
    assert(strlen(machine_id) == MACHINE_ID_SIZE - 1 && session_id != 0);
}

void lessor_yield(struct lessor *lessor)
{
}

void lessor_set(struct daemon *daemon, const struct effect *effect)
{
}

void level_step(struct daemon *daemon)
{
}

unsigned membership_voters(const struct daemon *daemon)
{
    return 1;
}

struct prober *prober_new(uv_loop_t *loop, struct port *port,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data)
{
    return NULL;
}

void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count)
{
}

void voting_begin(struct voting *voting)
{
}

void voting_step(struct voting *voting)
{
}

/* ---- the API's ---- */

static const struct registry *backend_registry(void *data)
{
    return leader->registry;
}

static const struct core *backend_core(void *data)
{
    return leader->daemon.core;
}

static bool backend_true(void *data)
{
    return true;
}

static void backend_propose(const Fleet__Command *command, store_done *done, void *done_data, void *data)
{
    store_propose(NULL, command, done, done_data);
}

static void backend_barrier(store_done *done, void *done_data, void *data)
{
    store_barrier(NULL, done, done_data);
}

static uint64_t backend_now_ms(void *data)
{
    return now_ms();
}

static uint64_t backend_wall_ms(void *data)
{
    return wall_ms();
}

static size_t backend_servers(struct store_server *servers, size_t max, void *data)
{
    return store_servers(NULL, servers, max);
}

static uint64_t backend_leader_id(void *data)
{
    return FUZZ_SERVER_B;
}

static const struct voters_facts *backend_voters(void *data)
{
    static const struct voters_facts facts = {.spread_by = "", .wanted = 1};

    return &facts;
}

static int backend_hand_over(const uint64_t *server_ids, size_t count, struct err *err, void *data)
{
    return err_set(err, -EBUSY, "nobody else votes");
}

static uint64_t backend_ask(const char *machine_id, Fleet__HostRequest *request, uint64_t timeout_ms,
                            asks_done *done, void *done_data, struct err *err, void *data)
{
    return downlink_ask(leader->daemon.downlink, machine_id, request, timeout_ms, done, done_data, err);
}

static void backend_ask_cancel(uint64_t id, void *data)
{
    downlink_ask_cancel(leader->daemon.downlink, id);
}

static const struct api_backend backend = {
    .registry = backend_registry,
    .core = backend_core,
    .leads = backend_true,
    .propose = backend_propose,
    .barrier = backend_barrier,
    .now_ms = backend_now_ms,
    .wall_ms = backend_wall_ms,
    .secure = backend_true,
    .servers = backend_servers,
    .leader_id = backend_leader_id,
    .voters = backend_voters,
    .hand_over = backend_hand_over,
    .ask = backend_ask,
    .ask_cancel = backend_ask_cancel,
};

/* ---- the cluster ---- */

static void must(int r)
{
    if (r < 0)
        abort();
}

/* A's key, and its certificate by the cluster's authority. */
static void make_keys(void)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob certificate = {0};

    must(pki_key_new(&key, NULL));
    must(pki_request_new(key, &made.request_a, NULL));
    certificate = fuzz_authority_certify(FUZZ_MACHINE_A, &made.request_a);
    must(pki_read(certificate.data, certificate.size, &made.info_a, NULL));
}

struct pki_blob fuzz_leader_request(void)
{
    return made.request_a;
}

static void on_nothing(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    assert(result->status == 0);
}

static void propose(Fleet__Command *command)
{
    store_propose(NULL, command, on_nothing, NULL);
}

static void create_cluster(void)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    authority.certificate = (ProtobufCBinaryData){.len = fuzz_authority()->certificate.size,
                                                  .data = fuzz_authority()->certificate.data};
    authority.private_key = (ProtobufCBinaryData){.len = fuzz_authority()->encoded_key.size,
                                                  .data = fuzz_authority()->encoded_key.data};
    body.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)FUZZ_CLUSTER};
    body.voters = 1;
    body.level = FEATURE_LEVEL;
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    propose(&command);
}

static void register_machine(const char *id, const char *hostname, uint64_t server_id, const uint8_t *key)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.hostname = (char *)hostname;
    body.cluster_address = (char *)"10.0.0.1:7390";
    body.public_ip = (char *)"10.0.0.1";
    body.version = (char *)PACKAGE_VERSION;
    body.level = FEATURE_LEVEL;
    body.server_id = server_id;
    if (key != NULL)
        body.key = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)key};
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    propose(&command);
}

static void add_unit(void)
{
    static const char text[] = "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nMachineID=aaaaaaaa\n";
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.name = (char *)UNIT;
    change.has_text = true;
    change.text = (ProtobufCBinaryData){.len = sizeof text - 1, .data = (uint8_t *)text};
    change.desired = FLEET__DESIRED_STATE__DESIRED_LAUNCHED;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    propose(&command);
}

static void add_token(void)
{
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];
    char id[JOIN_TOKEN_ID_SIZE];
    Fleet__AddJoinToken body = FLEET__ADD_JOIN_TOKEN__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    must(join_token_new(fuzz_authority()->certificate.data, fuzz_authority()->certificate.size,
                        &leader->token, NULL));
    join_token_id(leader->token.secret, id);
    join_token_digest(leader->token.secret, digest);
    body.id = id;
    body.digest = (ProtobufCBinaryData){.len = sizeof digest, .data = digest};
    body.expires_wall_ms = wall_ms() + 3600000;
    command.body_case = FLEET__COMMAND__BODY_ADD_JOIN_TOKEN;
    command.add_join_token = &body;
    propose(&command);
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

struct fuzz_leader *fuzz_leader_begin(void)
{
    struct daemon *daemon;

    log_set_sink(no_log);
    if (made.request_a.data == NULL)
        make_keys();
    leader = NEW0(struct fuzz_leader);
    leader->registry = registry_new();
    leader->info_a = made.info_a;
    daemon = &leader->daemon;
    config_init(&daemon->config);
    daemon->store = (struct store *)leader; /* Only looked at by the pretences. */
    daemon->is_member = true;
    daemon->cluster_address = xstrdup("10.0.0.2:7390");
    daemon->member.server_id = FUZZ_SERVER_B;
    memcpy(daemon->member.cluster_id, FUZZ_CLUSTER, CLUSTER_ID_SIZE);
    strcpy(daemon->member.machine_id, FUZZ_MACHINE_B);
    strcpy(daemon->identity.machine_id, FUZZ_MACHINE_B);
    daemon->core = core_new(leader->registry, daemon->config.agent_ttl_ms);
    daemon->downlink = leading_downlink_new(daemon);
    daemon->gate = admission_gate_new(daemon);
    daemon->certifier = certifier_new(daemon);
    daemon->api = api_new(&backend, NULL, daemon->config.token_limit);
    create_cluster();
    register_machine(FUZZ_MACHINE_A, "host-a", FUZZ_SERVER_A, made.info_a.key_id);
    register_machine(FUZZ_MACHINE_B, "host-b", FUZZ_SERVER_B, NULL);
    add_unit();
    add_token();
    fuzz_leader_settle();
    leading_start(daemon, 1);
    fuzz_leader_settle();
    return leader;
}

void fuzz_leader_end(void)
{
    struct daemon *daemon = &leader->daemon;

    fuzz_leader_settle();
    api_free(TAKE_PTR(daemon->api));
    fuzz_leader_settle(); /* What is answered last may have asked for something. */
    gate_free(daemon->gate);
    downlink_free(daemon->downlink);
    certifier_free(daemon->certifier);
    core_free(daemon->core);
    strlist_done(&daemon->told);
    free(daemon->cluster_address);
    config_done(&daemon->config);
    registry_free(leader->registry);
    free(leader);
    leader = NULL;
}
