/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the sockets that the HTTP server listens on. All functions return a descriptor that the caller owns,
 * or a negative errno with a text. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define HTTP_NO_GROUP ((gid_t)-1)

/* Binds a Unix socket at 'path', mode 0660, or 0666 where 'others' may connect too, given to 'group'
 * (HTTP_NO_GROUP: ours), replacing a stale socket file but never one that somebody answers on (-EADDRINUSE),
 * nor a file of another kind (-EEXIST). The file stays when the descriptor is closed: the next start replaces
 * it. */
int http_listen_unix(const char *path, gid_t group, bool others, struct err *err);

/* Gives the socket file to another group and mode. Returns 0 or a negative errno. */
int http_unix_set_access(const char *path, gid_t group, bool others, struct err *err);

/* HTTP_NO_GROUP: 'name' is "", or there is no such group; then only root may speak to us. Asks the system's
 * data bases, and so may block. */
gid_t http_find_group(const char *name);

/* 'address' is "a.b.c.d:port" or "[v6]:port"; "[::]" is both families. -EADDRINUSE and -EADDRNOTAVAIL are for
 * the caller to tell apart. */
int http_listen_tcp(const char *address, struct err *err);
