/* SPDX-License-Identifier: Apache-2.0 */
/* Asks who it is that answers at a server's address: that server, and in which boot of its host, or somebody
 * else. Two hosts may bear one server id, where a disk was copied; but only one of them is at the address
 * that the Raft configuration has for it. */
#pragma once

#include <stdint.h>

#include "raftstore/port.h"

#define BOOT_ID_SIZE 16

enum identify_result {
    IDENTIFY_THERE,  /* The server, in the boot that is told. */
    IDENTIFY_OLD,    /* The server, whose version does not say in which boot. */
    IDENTIFY_OTHER,  /* Somebody else. */
    IDENTIFY_NOBODY, /* Nobody answers; or it was cancelled. */
};

struct identify;

/* Whoever answers as another machine than 'machine_id' (NULL: it is not known which one the server is) is
 * somebody else; with TLS its certificate says so. 'done' comes exactly once, never from inside this call or
 * a conn_*() or port_*() call, and it is freed then. 'boot_id' is borrowed; NULL unless IDENTIFY_THERE. */
struct identify *identify_start(struct port *port, const char *address, uint64_t server_id,
                                const char *machine_id,
                                void (*done)(enum identify_result result, const uint8_t *boot_id, void *data),
                                void *data);
void identify_cancel(struct identify *identify);
