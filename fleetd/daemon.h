/* SPDX-License-Identifier: Apache-2.0 */
/* fleetd as a whole: owns the parts and carries facts between them. It decides nothing: the core does (what
 * runs where), the agent does (what to do on this host), Raft does (what is agreed). Callbacks only note what
 * happened; once in a turn of the loop, before it sleeps, on_prepare() gives it to the core and carries out
 * what the core answers.
 *
 *      HTTP -- router -- uplink ~~~ (the leader's) downlink -- api -- store -- libraft ~~~ other stores
 *                          |                          |          |
 *                        agent -- systemd            core <-- registry
 */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "fleetd/config.h"

struct daemon;

/* 'config' is taken over (and emptied); 'config_file' is read again on SIGHUP, NULL: the default one. Errors
 * are such that the daemon cannot do its work at all; nothing is cleaned up then: the process is to end. */
int daemon_start(uv_loop_t *loop, struct config *config, const char *config_file, struct daemon **ret,
                 struct err *err);

/* SIGHUP and SIGUSR1 wait until daemon_start() looks after them. To be called first of all. */
void daemon_block_signals(void);

/* Frees what is left after uv_run() has returned because everything has closed. */
void daemon_free(struct daemon *daemon);
