/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what at the API. Pure: what is asked for, who asks and what the cluster knows of them go in, and
 * whether it is allowed comes out, with the reason if not. Which role a path needs is in the table of paths
 * (api_route.c); roles are ordered, each may what those before it may (pki.h).
 *
 * Who asks is found out by the host where the connection is, and told to the leader (message Caller), which
 * decides. It believes a host only so far: one that holds the cluster's data has the authority's key anyway,
 * and may say of anybody that he is an administrator; through any other host nobody is more than the setting
 * host_role says. So whoever breaks into such a host gets no further than that, whatever he makes up.
 *
 *      caller                                   role
 *      local: root, fleetd's own user,          admin
 *             a member of api_socket_group
 *      local: anybody else                      viewer with "api_socket_others = read", otherwise none
 *      a client's certificate                   the certificate's, if the registry knows it and it holds
 *      a host's certificate                     none
 *      TCP without TLS ("insecure = true")      admin; there are neither roles nor secrets then */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "pki/pki.h"
#include "raftstore/fleet.pb-c.h"

enum access_kind {
    ACCESS_UNKNOWN, /* An older version has passed it on. */
    ACCESS_LOCAL,   /* By a Unix socket of the host. */
    ACCESS_CLIENT,
    ACCESS_MACHINE,
    ACCESS_OPEN, /* TCP without TLS. */
};

struct access_caller {
    enum access_kind kind;
    uint32_t uid;                 /* ACCESS_LOCAL */
    char name[PKI_ID_SIZE];       /* Of a client; a machine's id. */
    char serial[PKI_SERIAL_SIZE]; /* Of their certificate. */
    enum pki_role role;           /* As the host says where the connection is. */
};

/* What the registry has of a client's certificate. */
enum access_certificate {
    ACCESS_CERTIFICATE_UNKNOWN, /* It has none such: another name, another role, or none of this serial. */
    ACCESS_CERTIFICATE_VALID,
    ACCESS_CERTIFICATE_REVOKED,
    ACCESS_CERTIFICATE_EXPIRED,
    ACCESS_CERTIFICATE_UNCHECKED, /* This host has no registry to look into. */
};

/* What whoever decides knows besides. */
struct access_facts {
    bool secure;                         /* The cluster has an authority. */
    enum access_certificate certificate; /* Of an ACCESS_CLIENT. */
    const char *via;                     /* The name of the host that has passed it on, for the reason. */
    enum pki_role via_role;              /* More than this that host may not claim for anybody. */
};

/* The role of a local caller: 'owner' is root, fleetd's own user, or a member of api_socket_group. */
enum pki_role access_local_role(bool owner, bool others_read);

/* A peer that has shown a certificate of this cluster. */
void access_from_certificate(const struct pki_info *info, struct access_caller *ret);

/* 0, or -EACCES with the reason. 'needed' is not PKI_ROLE_NONE. */
int access_check(const struct access_caller *caller, const struct access_facts *facts, enum pki_role needed,
                 struct err *err);

/* "uid 0", "client laptop": for people. The caller owns it. */
char *access_describe(const struct access_caller *caller);

/* On the wire. What does not make sense there is an ACCESS_UNKNOWN. 'ret' borrows from the caller. */
void access_to_wire(const struct access_caller *caller, Fleet__Caller *ret);
void access_from_wire(const Fleet__Caller *message, struct access_caller *ret);
