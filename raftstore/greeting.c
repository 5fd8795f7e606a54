/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/greeting.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

uint8_t *greeting_pack_hello(const struct port_identity *identity, Fleet__Purpose purpose,
                             uint64_t to_server_id, const Fleet__Proof *proof, size_t *ret_size)
{
    Fleet__Hello hello = FLEET__HELLO__INIT;
    uint8_t *bytes;

    hello.protocol = PORT_PROTOCOL;
    hello.purpose = purpose;
    if (identity->has_cluster) {
        hello.cluster_id.data = (uint8_t *)identity->cluster_id;
        hello.cluster_id.len = sizeof(identity->cluster_id);
    }
    hello.server_id = purpose == FLEET__PURPOSE__PURPOSE_JOIN ? 0 : identity->server_id;
    hello.to_server_id = to_server_id;
    hello.machine_id = (char *)identity->machine_id;
    hello.boot_id.data = (uint8_t *)identity->boot_id;
    hello.boot_id.len = sizeof(identity->boot_id);
    hello.version = (char *)PACKAGE_VERSION;
    hello.level = identity->level;
    hello.recoveries = identity->history.recoveries;
    hello.history = history_id(&identity->history);
    hello.has_log = identity->has_log;
    hello.proof = (Fleet__Proof *)proof;

    bytes = xmalloc(fleet__hello__get_packed_size(&hello));
    *ret_size = fleet__hello__pack(&hello, bytes);
    return bytes;
}

uint8_t *greeting_pack_welcome(const struct port_identity *identity, bool ours, bool accepted,
                               const char *reason, const char *leader_address, const Fleet__Proof *proof,
                               size_t *ret_size)
{
    Fleet__Welcome welcome = FLEET__WELCOME__INIT;
    uint8_t *bytes;

    welcome.accepted = accepted;
    welcome.reason = (char *)reason;
    welcome.server_id = identity->server_id;
    welcome.machine_id = (char *)identity->machine_id;
    welcome.leader_address = (char *)leader_address;
    welcome.version = (char *)PACKAGE_VERSION;
    welcome.level = identity->level;
    welcome.boot_id.data = (uint8_t *)identity->boot_id;
    welcome.boot_id.len = sizeof(identity->boot_id);
    welcome.proof = (Fleet__Proof *)proof;
    if (ours) {
        welcome.recoveries = identity->history.recoveries;
        welcome.history = history_id(&identity->history);
    }

    bytes = xmalloc(fleet__welcome__get_packed_size(&welcome));
    *ret_size = fleet__welcome__pack(&welcome, bytes);
    return bytes;
}

static bool is_machine_id(const char *id)
{
    size_t n = 0;

    while (isdigit((unsigned char)id[n]) || (id[n] >= 'a' && id[n] <= 'f'))
        n++;
    return n == 32 && id[n] == '\0';
}

bool greeting_is_of_cluster(const struct port_identity *identity, const Fleet__Hello *hello)
{
    return identity->has_cluster && hello->cluster_id.len == sizeof(identity->cluster_id) &&
           memcmp(hello->cluster_id.data, identity->cluster_id, sizeof(identity->cluster_id)) == 0;
}

static int check_cluster(const struct port_identity *identity, const Fleet__Hello *hello, struct err *err)
{
    bool join = hello->purpose == FLEET__PURPOSE__PURPOSE_JOIN;

    if (join && hello->cluster_id.len == 0)
        return 0;
    if (!identity->has_cluster)
        return join ? 0 : err_set(err, -EPERM, "this host is in no cluster yet");
    if (!greeting_is_of_cluster(identity, hello))
        return err_set(err, -EPERM, "this host belongs to another cluster");
    return 0;
}

/* Logs of two histories must not meet. A host without a log has nothing that could: its session may begin,
 * and it takes up the later history (docs/RECOVERY.md). The text is for the one who dials. */
static int check_history(const struct port_identity *identity, const Fleet__Hello *hello, struct err *err)
{
    const uint64_t ours = identity->history.recoveries;
    struct cluster_history theirs;

    if (hello->purpose == FLEET__PURPOSE__PURPOSE_JOIN)
        return 0;
    if (!history_read(hello->recoveries, &hello->history, &theirs))
        return err_set(err, -EPERM, "a greeting whose history makes no sense");
    if (history_equal(&theirs, &identity->history))
        return 0;
    if (theirs.recoveries == ours)
        return err_set(err, -EPERM,
                       "the cluster was recovered twice, on two hosts, and what you have is not what this "
                       "host has: one of the two must be given up (docs/RECOVERY.md)");
    if (theirs.recoveries > ours)
        return err_set(err, -EPERM,
                       "this host's data are of before the cluster's recovery number %" PRIu64
                       ", in which you take part",
                       theirs.recoveries);
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_SESSION && !hello->has_log)
        return 0;
    return err_set(err, -EPERM,
                   "the cluster was recovered (number %" PRIu64
                   ") out of another host's data, and yours are of before that: move your data directory "
                   "away, and join again as a new host",
                   ours);
}

bool greeting_shows_later(const struct port_identity *identity, uint64_t recoveries,
                          const ProtobufCBinaryData *id, struct cluster_history *ret)
{
    struct cluster_history theirs;

    if (!identity->has_cluster || recoveries == 0 || !history_read(recoveries, id, &theirs) ||
        recoveries < identity->history.recoveries || history_equal(&theirs, &identity->history))
        return false;
    *ret = theirs;
    return true;
}

int greeting_check_hello(const struct port_identity *identity, const Fleet__Hello *hello, struct err *err)
{
    int r;

    if (hello->protocol == 0)
        return err_set(err, -EBADMSG, "not a fleet greeting");
    if (hello->protocol != PORT_PROTOCOL)
        return err_set(err, -EPROTO, "protocol %" PRIu32 " is not spoken here, only %u", hello->protocol,
                       PORT_PROTOCOL);
    if (!is_machine_id(hello->machine_id) || hello->boot_id.len != 16)
        return err_set(err, -EBADMSG, "a greeting without a proper machine and boot id");
    if (hello->purpose != FLEET__PURPOSE__PURPOSE_RAFT && hello->purpose != FLEET__PURPOSE__PURPOSE_SESSION &&
        hello->purpose != FLEET__PURPOSE__PURPOSE_JOIN && hello->purpose != FLEET__PURPOSE__PURPOSE_IDENTIFY)
        return err_set(err, -EPROTO, "purpose %d is not known here", (int)hello->purpose);
    r = check_cluster(identity, hello, err);
    if (r >= 0)
        r = check_history(identity, hello, err);
    if (r < 0)
        return r;
    if (hello->purpose == FLEET__PURPOSE__PURPOSE_RAFT && hello->server_id == 0)
        return err_set(err, -EPERM, "a Raft server without an id");
    if (hello->to_server_id != 0 && hello->to_server_id != identity->server_id)
        return err_set(err, -EPERM, "server %016" PRIx64 " is meant, this is %016" PRIx64,
                       hello->to_server_id, identity->server_id);
    return greeting_check_level(identity, hello->purpose, hello->level, hello->version, err);
}

int greeting_check_level(const struct port_identity *identity, Fleet__Purpose purpose, uint32_t level,
                         const char *version, struct err *err)
{
    if (purpose != FLEET__PURPOSE__PURPOSE_RAFT || level >= identity->level_needed)
        return 0;
    return err_set(err, -EPROTO,
                   "fleet %.32s there has feature level %" PRIu32 ", and the cluster is at %" PRIu32
                   ": upgrade it",
                   version, level, identity->level_needed);
}

int greeting_check_certificate(const struct pki_name *name, const char *machine_id, struct err *err)
{
    if (name == NULL || streq(name->id, machine_id))
        return 0;
    return err_set(err, -EPERM,
                   "the other side says that it is machine %s, but its certificate is for machine %s",
                   machine_id, name->id);
}

int greeting_check_welcome(const Fleet__Welcome *welcome, uint64_t to_server_id, struct err *err)
{
    if (!welcome->accepted)
        return err_set(err, -ECONNREFUSED, "refused: %s", welcome->reason);
    if (to_server_id != 0 && welcome->server_id != to_server_id)
        return err_set(err, -EPERM, "server %016" PRIx64 " answered instead of %016" PRIx64,
                       welcome->server_id, to_server_id);
    return 0;
}
