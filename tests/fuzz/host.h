/* SPDX-License-Identifier: Apache-2.0 */
/* This host, as far as it hears others, for the fuzz targets: a data directory with a key, credentials and a
 * member file, which are real. What it finds there afterwards must do for another start. */
#pragma once

#include "fleetd/daemon_private.h"

#define FUZZ_HOST        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define FUZZ_HOST_LEADER "10.0.0.2:7390"

/* Fills in what is the same for all: the loop, configuration and identity, with a data directory in which
 * there is only a key. */
void fuzz_host_begin(struct daemon *daemon);

/* Gives it a certificate, as one that has joined has. */
void fuzz_host_certify(struct daemon *daemon);

/* Another fleetd would start here: the files that it reads are whole, and say what this one has. */
void fuzz_host_check(const struct daemon *daemon);

/* Runs what is due on the loop. */
void fuzz_host_turn(void);

/* The connection that it dials, as it must within a few turns, to one who proves to be its leader and takes
 * it in. 'on_sent' as of struct fuzz_conn_facts. */
struct conn *fuzz_host_dials(void (*on_sent)(const uint8_t *bytes, size_t size));

/* Nothing is left on the loop. The directory is removed. */
void fuzz_host_end(struct daemon *daemon);
