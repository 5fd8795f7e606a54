/* SPDX-License-Identifier: Apache-2.0 */
/* Where the API is offered, and what a reload makes of that: the sockets that systemd passed (socket
 * activation), the Unix socket of 'api_socket', and the address of 'api_listen'.
 *
 *  - Passed sockets are all served, any number, Unix or TCP, for as long as the daemon runs. Of what cannot
 * be served (no listening stream socket) one line in the journal says why.
 *  - 'api_socket' is opened besides, unless one of the passed sockets is that very file, under whatever name.
 *  - TCP is with TLS (front.h), by the credentials that this host has; without where it is 'insecure', for a
 * laboratory.
 *  - What is taken away accepts nobody new; connections that were made over it live on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "fleetd/http.h"
#include "raftstore/tls_credentials.h"

struct listeners;

/* 'server' is borrowed; before it is closed: listeners_end(). */
struct listeners *listeners_new(uv_loop_t *loop, struct http_server *server, bool insecure);

/* By which this host proves itself on TCP from now on. A reference is taken. */
void listeners_set_credentials(struct listeners *listeners, struct tls_credentials *credentials);

/* Nobody comes any more, and the server is not touched again. Then, when it is closed: the end. Socket files
 * stay: the next start replaces them. */
void listeners_end(struct listeners *listeners);
void listeners_close(struct listeners *listeners, void (*done)(void *data), void *data);

/* Serves descriptors 'first' to 'first' + 'count' - 1, which it owns from now on, also those that it cannot
 * serve. 'names' are systemd's names for them (FileDescriptorName=). */
void listeners_take_passed(struct listeners *listeners, int first, int count, char *const *names);

/* From now on this Unix socket and no other ("": none), given to 'group' (http_find_group()), and open to
 * 'others' for reading. One whose file somebody has removed is made again. On failure the old one stays. */
int listeners_set_socket(struct listeners *listeners, const char *path, gid_t group, bool others,
                         struct err *err);

/* From now on this address and no other ("": none). On failure the old one stays. */
int listeners_set_address(struct listeners *listeners, const char *address, struct err *err);

/* Where the API is offered, as texts, in a defined order: 'each' is called for every place. */
void listeners_each(const struct listeners *listeners, void (*each)(const char *place, void *data),
                    void *data);
