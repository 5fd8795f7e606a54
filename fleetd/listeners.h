/* SPDX-License-Identifier: Apache-2.0 */
/* Where the API is offered, and what a reload makes of that: the sockets that systemd passed (socket
 * activation), the Unix socket of 'api_socket', and the address of 'api_listen'.
 *
 *  - Passed sockets are all served, any number, Unix or TCP, for as long as the daemon runs. Of what cannot
 * be served (no listening stream socket; TCP, where TLS would be needed) one line in the journal says why.
 *  - 'api_socket' is opened besides, unless one of the passed sockets is that very file, under whatever name.
 *  - TCP is for a laboratory ('insecure') until there is TLS: refused otherwise.
 *  - What is taken away accepts nobody new; connections that were made over it live on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "fleetd/http.h"

struct listeners;

/* 'server' is borrowed, and is closed first. */
struct listeners *listeners_new(struct http_server *server, bool insecure);
void listeners_free(struct listeners *listeners); /* Socket files stay: the next start replaces them. */

/* Serves descriptors 'first' to 'first' + 'count' - 1, which it owns from now on, also those that it cannot
 * serve. 'names' are systemd's names for them (FileDescriptorName=). */
void listeners_take_passed(struct listeners *listeners, int first, int count, char *const *names);

/* From now on this Unix socket and no other ("": none), given to 'group' (http_find_group()), and open to
 * 'others' for reading. One whose file somebody has removed is made again. On failure the old one stays. */
int listeners_set_socket(struct listeners *listeners, const char *path, gid_t group, bool others,
                         struct err *err);

/* From now on this address and no other ("": none). -EPERM: TLS would be needed. On failure the old one
 * stays. */
int listeners_set_address(struct listeners *listeners, const char *address, struct err *err);

/* Where the API is offered, as texts, in a defined order: 'each' is called for every place. */
void listeners_each(const struct listeners *listeners, void (*each)(const char *place, void *data),
                    void *data);
