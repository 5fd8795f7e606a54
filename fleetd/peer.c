/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/peer.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define GROUPS_FEW 64u /* Most processes have fewer. */

static bool has(const gid_t *groups, size_t count, gid_t group)
{
    for (size_t i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return false;
}

/* The groups that the process had when it connected, besides its first one (SO_PEERGROUPS, Linux 4.13). */
static bool has_group(int fd, gid_t group)
{
    gid_t few[GROUPS_FEW];
    _cleanup_(freep) gid_t *many = NULL;
    socklen_t size = sizeof few;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &size) == 0)
        return has(few, size / sizeof *few, group);
    if (errno != ERANGE || size > NGROUPS_MAX * sizeof *many)
        return false;
    many = xmalloc(size);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &size) < 0)
        return false;
    return has(many, size / sizeof *many, group);
}

/* Whether the process is of the group of the socket's file: if the file's mode were against it, it would not
 * be here. Without a file (an abstract socket) there is no group. */
static bool is_of_group(int fd, gid_t primary)
{
    struct sockaddr_un addr = {0};
    socklen_t size = sizeof addr - 1; /* So that a path ends in a NUL. */
    struct stat st;

    if (getsockname(fd, (struct sockaddr *)&addr, &size) < 0 || addr.sun_path[0] != '/' ||
        stat(addr.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    return primary == st.st_gid || has_group(fd, st.st_gid);
}

static void read_unix(int fd, bool others_read, struct peer *ret)
{
    struct ucred cred;
    socklen_t size = sizeof cred;
    bool owner;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
        return;
    owner = cred.uid == 0 || cred.uid == geteuid() || is_of_group(fd, cred.gid);
    ret->caller.kind = ACCESS_LOCAL;
    ret->caller.uid = cred.uid;
    ret->caller.role = access_local_role(owner, others_read);
    snprintf(ret->text, sizeof ret->text, "uid %u pid %d", cred.uid, cred.pid);
}

void peer_address_text(const struct sockaddr_storage *address, char ret[PEER_TEXT_SIZE])
{
    char host[64], port[16];

    if (getnameinfo((const struct sockaddr *)address, sizeof *address, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(ret, PEER_TEXT_SIZE, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

void peer_read(int fd, bool others_read, struct peer *ret)
{
    struct sockaddr_storage addr = {0};
    socklen_t size = sizeof addr;

    *ret = (struct peer){.text = "unknown peer"};
    if (getpeername(fd, (struct sockaddr *)&addr, &size) < 0)
        return;
    ret->is_unix = addr.ss_family == AF_UNIX;
    if (ret->is_unix) {
        read_unix(fd, others_read, ret);
        return;
    }
    ret->caller.kind = ACCESS_OPEN;
    ret->caller.role = PKI_ROLE_ADMIN;
    peer_address_text(&addr, ret->text);
}
