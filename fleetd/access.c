/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/access.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

enum pki_role access_local_role(bool owner, bool others_read)
{
    if (owner)
        return PKI_ROLE_ADMIN;
    return others_read ? PKI_ROLE_VIEWER : PKI_ROLE_NONE;
}

void access_from_certificate(const struct pki_info *info, struct access_caller *ret)
{
    bool client = info->name.kind == PKI_CLIENT;

    *ret = (struct access_caller){
        .kind = client ? ACCESS_CLIENT : ACCESS_MACHINE,
        .role = client ? info->name.role : PKI_ROLE_NONE,
    };
    memcpy(ret->name, info->name.id, sizeof ret->name);
    memcpy(ret->serial, info->serial, sizeof ret->serial);
}

char *access_describe(const struct access_caller *caller)
{
    switch (caller->kind) {
    case ACCESS_LOCAL: return xasprintf("uid %u", caller->uid);
    case ACCESS_CLIENT: return xasprintf("client %s", caller->name);
    case ACCESS_MACHINE: return xasprintf("machine %s", caller->name);
    case ACCESS_OPEN: return xstrdup("somebody without TLS");
    case ACCESS_UNKNOWN: break;
    }
    return xstrdup("somebody");
}

/* ---- deciding ---- */

static int check_certificate(const struct access_caller *caller, const struct access_facts *facts,
                             struct err *err)
{
    const char *what = "";

    switch (facts->certificate) {
    case ACCESS_CERTIFICATE_VALID:
    case ACCESS_CERTIFICATE_UNCHECKED: return 0;
    case ACCESS_CERTIFICATE_REVOKED: what = "was revoked"; break;
    case ACCESS_CERTIFICATE_EXPIRED: what = "has expired"; break;
    case ACCESS_CERTIFICATE_UNKNOWN: what = "is not known to this cluster (any more)"; break;
    }
    return err_set(err, -EACCES,
                   "the certificate %s of client %s %s: \"fleetctl client-cert\" makes a new one",
                   caller->serial, caller->name, what);
}

/* Whether we know well enough who it is. */
static int check_identity(const struct access_caller *caller, const struct access_facts *facts,
                          struct err *err)
{
    switch (caller->kind) {
    case ACCESS_LOCAL: return 0;
    case ACCESS_CLIENT: return check_certificate(caller, facts, err);
    case ACCESS_MACHINE:
        return err_set(err, -EACCES,
                       "machine %s shows the certificate of a host, which has no say in the API: use a "
                       "client's (\"fleetctl client-cert\" makes one)",
                       caller->name);
    case ACCESS_OPEN:
        if (!facts->secure)
            return 0;
        return err_set(err, -EACCES, "without TLS nobody has a say in this cluster");
    case ACCESS_UNKNOWN: break;
    }
    if (!facts->secure)
        return 0;
    return err_set(err, -EACCES,
                   "host %s does not say who asks: its fleetd is of another version; upgrade it", facts->via);
}

static int refuse_role(const struct access_caller *caller, enum pki_role needed, struct err *err)
{
    _cleanup_(freep) char *who = access_describe(caller);

    if (caller->kind == ACCESS_LOCAL && caller->role == PKI_ROLE_NONE)
        return err_set(err, -EACCES,
                       "uid %u is neither root nor in the group that may use the API here "
                       "(api_socket_group in fleet.conf)",
                       caller->uid);
    return err_set(err, -EACCES, "this needs the role %s, and %s is %s", pki_role_name(needed), who,
                   pki_role_name(caller->role));
}

int access_check(const struct access_caller *caller, const struct access_facts *facts, enum pki_role needed,
                 struct err *err)
{
    int r = check_identity(caller, facts, err);

    assert(needed != PKI_ROLE_NONE);
    if (r < 0)
        return r;
    if (!facts->secure && caller->kind != ACCESS_LOCAL)
        return 0;
    if (caller->role < needed)
        return refuse_role(caller, needed, err);
    if (facts->secure && facts->via_role < needed)
        return err_set(err, -EACCES,
                       "this needs the role %s, and through host %s, which does not hold the cluster's data, "
                       "nobody is more than %s (setting host_role): ask a host that votes",
                       pki_role_name(needed), facts->via, pki_role_name(facts->via_role));
    return 0;
}

/* ---- on the wire ---- */

void access_to_wire(const struct access_caller *caller, Fleet__Caller *ret)
{
    static const Fleet__CallerKind kinds[] = {
        [ACCESS_UNKNOWN] = FLEET__CALLER_KIND__CALLER_UNKNOWN,
        [ACCESS_LOCAL] = FLEET__CALLER_KIND__CALLER_LOCAL,
        [ACCESS_CLIENT] = FLEET__CALLER_KIND__CALLER_CLIENT,
        [ACCESS_MACHINE] = FLEET__CALLER_KIND__CALLER_MACHINE,
        [ACCESS_OPEN] = FLEET__CALLER_KIND__CALLER_OPEN,
    };

    fleet__caller__init(ret);
    ret->kind = kinds[caller->kind];
    ret->uid = caller->uid;
    ret->name = (char *)caller->name;
    ret->serial = (char *)caller->serial;
    ret->role = caller->role;
}

static bool kind_of(Fleet__CallerKind kind, enum access_kind *ret)
{
    switch (kind) {
    case FLEET__CALLER_KIND__CALLER_LOCAL: *ret = ACCESS_LOCAL; return true;
    case FLEET__CALLER_KIND__CALLER_CLIENT: *ret = ACCESS_CLIENT; return true;
    case FLEET__CALLER_KIND__CALLER_MACHINE: *ret = ACCESS_MACHINE; return true;
    case FLEET__CALLER_KIND__CALLER_OPEN: *ret = ACCESS_OPEN; return true;
    default: return false;
    }
}

void access_from_wire(const Fleet__Caller *message, struct access_caller *ret)
{
    enum access_kind kind;

    *ret = (struct access_caller){0};
    if (message == NULL || !kind_of(message->kind, &kind) || strlen(message->name) >= sizeof ret->name ||
        strlen(message->serial) >= sizeof ret->serial || message->role > PKI_ROLE_ADMIN)
        return;
    ret->kind = kind;
    ret->uid = message->uid;
    strcpy(ret->name, message->name);
    strcpy(ret->serial, message->serial);
    ret->role = (enum pki_role)message->role;
}
