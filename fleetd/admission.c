/* SPDX-License-Identifier: Apache-2.0 */
/* Who may be a member, as the leader judges it: hosts that join, and hosts that open a session. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/memops.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/authority.h"
#include "fleetd/core/peers.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"

#define RECONNECT_MS 3000u /* A fleetd that was killed is back by then. */

int admission_check_level(const struct daemon *daemon, const Fleet__RegisterMachine *machine, struct err *err)
{
    unsigned needed = registry_level(store_registry(daemon->store));

    if (machine->level >= needed)
        return 0;
    return err_set(err, -EPROTO,
                   "it says that it is fleet %.32s with feature level %u, and the cluster is at %u, which no "
                   "host may fall behind: fleet %s or newer is needed there%s",
                   machine->version, machine->level, needed,
                   needed <= FEATURE_LEVEL ? level_row(needed)->version : PACKAGE_VERSION,
                   machine->level < FEATURE_LEVEL && streq(machine->version, PACKAGE_VERSION)
                       ? ", without \"feature_level\" in fleet.conf"
                       : "");
}

int admission_check_machine(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                            struct err *err)
{
    if (strlen(machine->machine_id) != MACHINE_ID_SIZE - 1 ||
        strspn(machine->machine_id, "0123456789abcdef") != MACHINE_ID_SIZE - 1)
        return err_set(err, -EINVAL, "\"%.40s\" is no machine id", machine->machine_id);
    if (machine->server_id == 0 || strlen(machine->hostname) > LABEL_MAX ||
        strlen(machine->public_ip) > ADDRESS_MAX || strlen(machine->version) > LABEL_MAX ||
        config_check_address(machine->cluster_address, err) < 0)
        return err_prefix(err, -EINVAL, "what the host says of itself makes no sense");
    if (machine->boot_id[0] != '\0' && (strlen(machine->boot_id) != IDENTITY_ID_SIZE - 1 ||
                                        strspn(machine->boot_id, "0123456789abcdef") != IDENTITY_ID_SIZE - 1))
        return err_set(err, -EINVAL, "\"%.40s\" is no boot id", machine->boot_id);
    if (machine->n_metadata > LABELS_PER_MACHINE_MAX)
        return err_set(err, -E2BIG, "it has %zu metadata keys, the limit is %u", machine->n_metadata,
                       LABELS_PER_MACHINE_MAX);
    for (size_t i = 0; i < machine->n_metadata; i++)
        if (strlen(machine->metadata[i]->key) > LABEL_MAX || strlen(machine->metadata[i]->value) > LABEL_MAX)
            return err_set(err, -E2BIG, "a metadata key or value is longer than %u bytes", LABEL_MAX);
    return admission_check_level(daemon, machine, err);
}

/* One machine id, two hosts: whoever was there first stays, until it has been silent for half a ttl, or for
 * as long as a fleetd takes to come back if its connection is closed. That is how a host is taken in soon
 * that has lost its power and is up again: its kernel knows nothing of the connection that is still open
 * here. */
int admission_check_alone(struct daemon *daemon, const struct registry_machine *known, struct err *err)
{
    uint64_t now = now_ms(), silent_ms = core_machine_silent_ms(daemon->core, known->id, now);
    uint64_t half_ms = daemon->config.agent_ttl_ms / 2;
    bool connected = downlink_poke(daemon->downlink, known->id);
    uint64_t wanted_ms = connected || half_ms < RECONNECT_MS ? half_ms : RECONNECT_MS;
    int r;

    if (silent_ms >= wanted_ms)
        return 0;
    r = err_set(err, -EEXIST,
                "machine id %s is in use by %s (%s), heard %.1f s ago: was its disk or its /etc/machine-id "
                "copied? (see machine-id(5)) If it was rebooted, it is let in after %.1f s",
                known->id, known->hostname, known->public_ip, (double)silent_ms / 1000,
                (double)(wanted_ms - silent_ms) / 1000);
    if (!streq(daemon->clone, known->id) || now - daemon->clone_ms >= REFUSED_LOG_MS) {
        snprintf(daemon->clone, sizeof daemon->clone, "%s", known->id);
        daemon->clone_ms = now;
        log_warn("A host is refused: %s", err_text(err, r));
    }
    return r;
}

/* The very host, in the boot in which it was a member. */
static bool is_same_boot(const struct registry_removed *removed, const Fleet__RegisterMachine *machine)
{
    return machine->boot_id[0] != '\0' && streq(removed->boot_id, machine->boot_id);
}

int admission_check_leaving(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                            struct err *err)
{
    const struct registry_removed *removed =
        registry_removed(store_registry(daemon->store), machine->machine_id);

    if (removed == NULL || removed->boot_id[0] == '\0' || machine->boot_id[0] == '\0' ||
        is_same_boot(removed, machine))
        return 0;
    return err_set(
        err, -EEXIST,
        "machine %s (%s) was removed, and is awaited with what it still has to stop; this host was "
        "booted since, or has a copy of its disk, and cannot speak for it",
        machine->machine_id, removed->hostname);
}

bool admission_is_out(const struct daemon *daemon, const char *machine_id)
{
    const struct registry_removed *removed = registry_removed(store_registry(daemon->store), machine_id);
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count;

    if (removed == NULL)
        return false;
    count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX);
    for (size_t i = 0; i < count; i++)
        if (servers[i].id == removed->server_id)
            return false;
    return true;
}

/* ---- connections that are open ---- */

static bool is_of_removed(const struct daemon *daemon, const struct conn *conn, const struct pki_name *name)
{
    const struct registry_removed *removed = registry_removed(store_registry(daemon->store), name->id);

    return removed != NULL && removed->server_id == conn_peer_server_id(conn) &&
           admission_is_out(daemon, name->id);
}

/* What is to run elsewhere may still be stopping there. */
static bool is_to_report(const struct daemon *daemon, const struct conn *conn, const struct pki_name *name)
{
    return conn_purpose(conn) == FLEET__PURPOSE__PURPOSE_SESSION && !conn_is_dialled(conn) &&
           core_machine_leaves(daemon->core, name->id);
}

/* A host that keeps no data knows of the cluster what its session tells, also whom to trust: that the session
 * began with another certificate of the leader says nothing. */
static bool is_all_that_is_known(const struct daemon *daemon, const struct conn *conn)
{
    size_t count;

    registry_machines(store_registry(daemon->store), &count);
    return count == 0 && conn_is_dialled(conn) && conn_purpose(conn) == FLEET__PURPOSE__PURPOSE_SESSION;
}

/* Whom it would not be begun with any more: an authority is not trusted any more, whose key others may have.
 * Members have shown their old certificates, too; but by their own keys, which nobody can forge, and they
 * have new certificates for them. */
static int check_after_rotation(struct daemon *daemon, const struct conn *conn, struct err *err)
{
    const struct pki_info *info = conn_peer_info(conn);
    uint64_t server_id = conn_peer_server_id(conn);

    if (is_all_that_is_known(daemon, conn))
        return 0;
    if (!conn_peer_trusted(conn) &&
        !peers_is_member(store_registry(daemon->store), info->name.id, server_id, info->key_id))
        return err_set(err, -EACCES,
                       "its certificate is of an authority that is not trusted any more, and its key no "
                       "member's");
    return conn_peer_proof_ended(conn) ? proving_check_server(conn, server_id, err, daemon) : 0;
}

static int check_open(struct daemon *daemon, const struct conn *conn, struct err *err)
{
    const struct pki_name *name = conn_peer_name(conn);
    uint64_t server_id = conn_peer_server_id(conn);
    int r = check_after_rotation(daemon, conn, err);

    if (r >= 0 && conn_purpose(conn) == FLEET__PURPOSE__PURPOSE_RAFT)
        r = peers_check_server(store_registry(daemon->store), name->id, server_id,
                               admission_is_out(daemon, name->id), store_leader_id(daemon->store), err);
    return r;
}

static const char *why_not_open(const struct conn *conn, void *data)
{
    struct daemon *daemon = data;
    const struct pki_name *name = conn_peer_name(conn);
    struct err err = {0};
    int r;

    if (name == NULL || conn_purpose(conn) == FLEET__PURPOSE__PURPOSE_JOIN)
        return NULL;
    if (is_of_removed(daemon, conn, name) && !is_to_report(daemon, conn, name))
        return "the machine was removed";
    r = check_open(daemon, conn, &err);
    if (r >= 0)
        return NULL;
    log_warn("The connection with machine %s at %s is ended: %s", name->id, conn_peer(conn),
             err_text(&err, r));
    return "it would not be let in any more";
}

void admission_look(struct daemon *daemon)
{
    if (daemon->store != NULL)
        port_end(daemon->port, why_not_open, daemon);
}

/* ---- connections that begin ---- */

int admission_check_key(const struct daemon *daemon, const struct conn *conn, const char *machine_id,
                        uint64_t server_id, struct err *err)
{
    const struct pki_info *info = conn_peer_info(conn);

    if (info == NULL || /* Plain text. */
        registry_key_fits(registry_machine(store_registry(daemon->store), machine_id), server_id,
                          info->key_id, sizeof info->key_id))
        return 0;
    return err_set(
        err, -EACCES,
        "machine %s is a member of this cluster with another key: if this is that host, move its data "
        "directory away and let it join again",
        machine_id);
}

/* This host may be far behind, and not know a machine that has joined since, or joined anew: only what can
 * never be true again is refused. Server ids are never used twice. */
int admission_check_peer(const struct daemon *daemon, const struct conn *conn, const Fleet__Hello *hello,
                         struct err *err)
{
    int r =
        peers_check_server(store_registry(daemon->store), hello->machine_id, hello->server_id,
                           admission_is_out(daemon, hello->machine_id), store_leader_id(daemon->store), err);

    if (r < 0)
        return r;
    return admission_check_key(daemon, conn, hello->machine_id, hello->server_id, err);
}

/* ---- the token ---- */

/* The same words for a secret that is wrong and one that nobody knows: neither is to be learned from. */
static int check_secret(const struct registry *registry, const Fleet__JoinRequest *request,
                        uint64_t now_wall_ms, char ret_id[JOIN_TOKEN_ID_SIZE], struct err *err)
{
    const struct registry_join_token *token;
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];

    if (request->secret.len == 0)
        return err_set(err, -EACCES, "a join token is needed (fleetctl join-token, on a member)");
    if (request->secret.len != JOIN_TOKEN_SECRET_SIZE)
        return err_set(err, -EINVAL, "the join token has a wrong length");
    join_token_id(request->secret.data, ret_id);
    join_token_digest(request->secret.data, digest);
    token = registry_join_token(registry, ret_id);
    if (token == NULL || !memeql_sec(token->digest, digest, sizeof digest))
        return err_set(err, -EACCES, "the join token is not known here");
    return registry_check_join_token(registry, ret_id, request->machine->machine_id,
                                     request->machine->server_id, now_wall_ms, err);
}

/* ---- the gate ---- */

/* A host with the machine id of one that was removed: for the core they are the same, and what the one still
 * has to stop would be nowhere any more. But it may be that very host, which can say what it has. */
static int check_not_awaited(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                             struct err *err)
{
    const struct registry_removed *removed =
        registry_removed(store_registry(daemon->store), machine->machine_id);

    if (!core_leads(daemon->core)) /* It begins to in this turn of the loop, and knows nobody yet. */
        return err_set(err, -EAGAIN, "this host has only begun to lead");
    if (removed == NULL || !core_machine_awaited(daemon->core, machine->machine_id) ||
        is_same_boot(removed, machine))
        return 0;
    return err_set(
        err, -EEXIST,
        "machine %s (%s) was removed, and may still be stopping units of the cluster: a host with its "
        "machine id is let in when it has stopped them, or was silent for agent_ttl and until its leases "
        "have ended",
        machine->machine_id, removed->hostname);
}

static int check_place(struct daemon *daemon, const Fleet__RegisterMachine *machine, struct err *err)
{
    const struct registry *registry = store_registry(daemon->store);
    const struct registry_machine *known = registry_machine(registry, machine->machine_id), *const * machines;
    size_t count;
    int r;

    machines = registry_machines(registry, &count);
    if ((known == NULL || !known->registered) && count >= MACHINES_MAX)
        return err_set(err, -E2BIG, "the cluster has %zu machines, the limit is %u", count, MACHINES_MAX);
    r = known == NULL || !known->registered      ? check_not_awaited(daemon, machine, err)
        : known->server_id != machine->server_id ? admission_check_alone(daemon, known, err)
                                                 : 0;
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++)
        if (machines[i]->server_id == machine->server_id && !streq(machines[i]->id, machine->machine_id))
            return err_set(err, -EINVAL, "server id %016llx is in use: start fleetd anew there",
                           (unsigned long long)machine->server_id);
    return 0;
}

/* Ids are no secrets: whoever has a token could say that it is a machine that is there. */
static int check_same_key(const struct registry *registry, const Fleet__RegisterMachine *machine,
                          const struct pki_blob *certificate, struct err *err)
{
    struct pki_info info;
    int r = pki_read(certificate->data, certificate->size, &info, err);

    if (r >= 0 && !registry_key_fits(registry_machine(registry, machine->machine_id), machine->server_id,
                                     info.key_id, sizeof info.key_id))
        r = err_set(
            err, -EACCES,
            "machine %s is a member with another key: if this is that host, move its data directory away "
            "and let it join as a new one",
            machine->machine_id);
    return r;
}

static int check(struct daemon *daemon, const Fleet__JoinRequest *request, struct gate_pass *ret,
                 struct err *err)
{
    const struct registry *registry = store_registry(daemon->store);
    uint64_t now = wall_ms();
    int r;

    if (!store_leads(daemon->store))
        return err_set(err, -EAGAIN, "this host does not lead any more");
    if (registry_is_secure(registry)) { /* First of all: a stranger is told nothing else. */
        r = check_secret(registry, request, now, ret->token_id, err);
        if (r < 0)
            return r;
    }
    r = admission_check_machine(daemon, request->machine, err);
    if (r >= 0)
        r = check_place(daemon, request->machine, err);
    if (r >= 0 && registry_is_secure(registry))
        r = authority_certify(registry, request->machine, &request->certificate_request, now,
                              &ret->certificate, err);
    if (r >= 0 && ret->certificate.size > 0)
        r = check_same_key(registry, request->machine, &ret->certificate, err);
    if (r < 0)
        pki_blob_done(&ret->certificate); /* It is for nobody. */
    return r;
}

/* Whoever reaches the port can cause as many as they like. */
static void log_refused(struct daemon *daemon, const char *peer, const char *why)
{
    _cleanup_(freep) char *left = NULL;
    uint64_t left_out;

    if (!audit_allows(&daemon->joins_refused, now_ms(), &left_out))
        return;
    left = left_out > 0 ? xasprintf(" (%" PRIu64 " more before it were not written)", left_out) : xstrdup("");
    log_message(LOG_WARNING, log_fields(MESSAGE_JOIN_REFUSED), "A host at %s may not join: %s%s", peer, why,
                left);
}

static int gate_check(const Fleet__JoinRequest *request, const char *peer, struct gate_pass *ret,
                      struct err *err, void *data)
{
    struct daemon *daemon = data;
    int r = check(daemon, request, ret, err);

    if (r < 0 && r != -EAGAIN)
        log_refused(daemon, peer, err_text(err, r));
    return r;
}

struct admission {
    void (*done)(bool admitted, bool again, const char *why, void *data);
    void *data;
};

static void on_admitted(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                        void *data)
{
    struct admission *admission = data;
    bool applied = outcome == STORE_APPLIED;

    admission->done(applied && result->status == 0, !applied, applied ? result->text : reason,
                    admission->data);
    free(admission);
}

/* What the host will have with our answer: a rotation of the authority must not go on as if it had not. */
struct credentials_known {
    ProtobufCBinaryData roots[ROOTS_MAX];
    struct pki_info info;
};

static void know_credentials(struct daemon *daemon, const struct gate_pass *pass,
                             Fleet__RegisterMachine *joining, struct credentials_known *known)
{
    const struct registry_authorities *authorities = registry_authorities(store_registry(daemon->store));
    const struct registry_authority *trusted[] = {authorities->old_trusted ? &authorities->old : NULL,
                                                  &authorities->issuing, &authorities->next};

    joining->n_roots = 0;
    joining->certified_by = joining->key = (ProtobufCBinaryData){0};
    if (pass->certificate.size == 0 ||
        pki_read(pass->certificate.data, pass->certificate.size, &known->info, NULL) < 0)
        return;
    joining->roots = known->roots;
    for (size_t i = 0; i < ARRAY_SIZE(trusted); i++)
        if (trusted[i] != NULL && trusted[i]->certificate != NULL)
            known->roots[joining->n_roots++] =
                (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)trusted[i]->fingerprint};
    joining->certified_by =
        (ProtobufCBinaryData){.len = sizeof known->info.issuer, .data = known->info.issuer};
    joining->key = (ProtobufCBinaryData){.len = sizeof known->info.key_id, .data = known->info.key_id};
}

static void gate_admit(const Fleet__RegisterMachine *machine, const struct gate_pass *pass,
                       void (*done)(bool admitted, bool again, const char *why, void *done_data),
                       void *done_data, void *data)
{
    struct daemon *daemon = data;
    struct admission *admission = NEW0(struct admission);
    Fleet__RegisterMachine joining = *machine;
    struct credentials_known known;
    _cleanup_(freep) char *field = xasprintf("FLEET_MACHINE=%s", machine->machine_id);

    admission->done = done;
    admission->data = done_data;
    log_message(LOG_NOTICE, log_fields(MESSAGE_MACHINE_JOINS, field), "Machine %s (%s) joins from %s%s%s",
                machine->machine_id, machine->hostname, machine->cluster_address,
                pass->token_id[0] != '\0' ? ", with token " : "", pass->token_id);
    joining.joins = true;
    joining.join_token = (char *)pass->token_id;
    know_credentials(daemon, pass, &joining, &known);
    leading_register(daemon, &joining, on_admitted, admission);
}

static void gate_fill(Fleet__JoinReply *reply, void *data)
{
    static struct authority_bundle bundle; /* Until the next call. */
    struct daemon *daemon = data;
    const struct registry *registry = store_registry(daemon->store);
    size_t count;

    registry_machines(registry, &count);
    reply->cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = daemon->member.cluster_id};
    reply->members = &daemon->cluster_address;
    reply->n_members = 1;
    reply->machines = (uint32_t)count;
    reply->recoveries = daemon->member.history.recoveries;
    reply->history = history_id(&daemon->member.history);
    if (!registry_is_secure(registry))
        return;
    authority_bundle(registry, &bundle);
    reply->chain = bundle.chain;
    reply->n_chain = bundle.chain_count;
    reply->roots = bundle.roots;
    reply->n_roots = bundle.root_count;
}

struct gate *admission_gate_new(struct daemon *daemon)
{
    static const struct gate_callbacks callbacks = {
        .check = gate_check, .admit = gate_admit, .fill = gate_fill};

    return gate_new(&callbacks, daemon);
}
