/* SPDX-License-Identifier: Apache-2.0 */
/* Who this host is: machine id, boot id, host name, public address. Read at the start; each call reads anew.
 */
#pragma once

#include "base/err.h"

#define IDENTITY_ID_SIZE 33u /* 32 hex digits and a NUL. */

struct identity {
    char machine_id[IDENTITY_ID_SIZE];
    char boot_id[IDENTITY_ID_SIZE]; /* Of this boot of this host or container; kept in /run/fleet. */
    char *hostname;
    char *public_ip; /* "" if none is known. */
};

/* 'public_ip': the option's value, "" to detect it. An error, with a text, only where the machine id is
 * missing or broken: without it there is no identity. */
int identity_read(const char *public_ip, struct identity *ret, struct err *err);
void identity_done(struct identity *identity);

/* The id that a directory keeps, made if it is missing; drawn if there is none, or what is there is no id. In
 * a directory of /run that is an id of this boot. */
int identity_read_boot_id(const char *path, char ret[IDENTITY_ID_SIZE]);

/* Reads a machine id file (machine-id(5)): 32 hex digits, blanks around them allowed, lower-cased; not all
 * zero. */
int identity_read_machine_id(const char *path, char ret[IDENTITY_ID_SIZE], struct err *err);

/* The first IPv4 address (global unicast: not loopback, link-local or multicast; private ones are fine) of
 * the interface of the first default route, "" if there is none. 'routes' is a file in the format of
 * /proc/net/route. Owned by the caller. */
char *identity_detect_ip(const char *routes);
