/* SPDX-License-Identifier: Apache-2.0 */
/* Who may take part in consensus, and lead: this host's proof that it keeps the data, and what it demands of
 * others (raftstore/proof.h, docs/SECURITY.md). */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "raftstore/limits.h"
#include "raftstore/registry_security.h"

/* To take it out of the registry anew for each connection would be most of the work. */
static const struct pki_key *authority_key(struct daemon *daemon, const struct registry_authority *authority)
{
    struct err err = {0};

    if (daemon->proving_key != NULL &&
        memcmp(daemon->proving_for, authority->fingerprint, FINGERPRINT_SIZE) == 0)
        return daemon->proving_key;
    pki_key_free(TAKE_PTR(daemon->proving_key));
    if (authority->private_key == NULL)
        return NULL;
    if (pki_key_decode(authority->private_key, authority->private_key_size, &daemon->proving_key, &err) < 0) {
        log_error("The authority's key: %s", err.text);
        return NULL;
    }
    memcpy(daemon->proving_for, authority->fingerprint, FINGERPRINT_SIZE);
    return daemon->proving_key;
}

static void show(struct port_proof *proof, const uint8_t *certificate, size_t size)
{
    if (certificate != NULL)
        proof->authorities[proof->authority_count++] =
            (ProtobufCBinaryData){.len = size, .data = (uint8_t *)certificate};
}

bool proving_sign(const void *text, size_t size, struct port_proof *ret, void *data)
{
    struct daemon *daemon = data;
    const struct registry_authorities *known;
    const struct pki_key *key;
    struct err err = {0};

    if (daemon->store == NULL)
        return false;
    known = registry_authorities(store_registry(daemon->store));
    key = authority_key(daemon, &known->issuing);
    if (key == NULL)
        return false;
    if (pki_prove(key, text, size, &ret->signature, &err) < 0) {
        log_error("This host cannot prove that it keeps the data: %s", err.text);
        return false;
    }
    /* For those who know only the authority before this one; and for who joins, and knows a fingerprint. */
    show(ret, known->issuing.certificate, known->issuing.certificate_size);
    show(ret, known->issuing.cross, known->issuing.cross_size);
    show(ret, known->old.certificate, known->old.certificate_size);
    return true;
}

static bool is_server(const struct daemon *daemon, uint64_t server_id)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX);

    for (size_t i = 0; i < count; i++)
        if (servers[i].id == server_id)
            return true;
    return false;
}

/* Of one that cannot prove it: a new standby has no data yet, and after all hosts have lost their power
 * nobody has applied any, for nobody knows what is committed before there is a leader. */
static bool is_known_keeper(const struct daemon *daemon, const char *machine_id, uint64_t server_id)
{
    const struct registry_machine *machine = registry_machine(store_registry(daemon->store), machine_id);
    const struct member *member = &daemon->member;

    if (!is_server(daemon, server_id)) /* A machine id is no secret, and may be another host's by now. */
        return false;
    if (strlist_has(&member->keepers, machine_id))
        return true;
    /* No list yet: a power cut in the first second of its log. */
    return member->keepers.count == 0 || (machine != NULL && machine->server_id == server_id);
}

int proving_check_server(const struct conn *conn, uint64_t server_id, struct err *err, void *data)
{
    const struct daemon *daemon = data;
    const struct pki_name *name = conn_peer_name(conn);

    if (name == NULL || conn_peer_proved(conn)) /* Plain text: nobody proves anything. */
        return 0;
    if (daemon->store != NULL && is_known_keeper(daemon, name->id, server_id))
        return 0;
    return err_set(err, -EACCES,
                   "machine %s speaks as server %016llx of the consensus, but neither is it known as one of "
                   "those who keep the cluster's data, nor does it prove it",
                   name->id, (unsigned long long)server_id);
}
