/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a connection without TLS, as the kernel says: of a Unix socket the user and the
 * groups of the process that has connected, of TCP an address.
 *
 * Who counts as an owner of a Unix socket is said by its file, as for any other: root and the user that
 * fleetd runs as, and the members of the file's group. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "fleetd/access.h"

#define PEER_TEXT_SIZE 128u

struct peer {
    bool is_unix;
    struct access_caller caller;
    char text[PEER_TEXT_SIZE]; /* "uid 0 pid 412" of a Unix peer, or "address:port": for the journal. */
};

/* Of a socket that was accepted. 'others_read': on a Unix socket, whoever is no owner may read. */
void peer_read(int fd, bool others_read, struct peer *ret);

struct sockaddr_storage;
void peer_address_text(const struct sockaddr_storage *address, char ret[PEER_TEXT_SIZE]);
