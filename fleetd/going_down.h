/* SPDX-License-Identifier: Apache-2.0 */
/* When this host is shut down or rebooted through systemd-logind, its units move first: the shutdown waits
 * (logind.h) while the leader, who is told, moves what fits elsewhere (fleetd/core/shutdown.c), until nothing
 * that can move is left, or the time is over that logind gives.
 *
 *      UP --logind: it begins--> WAITING --ready, no leader, time is over--> LET_GO
 *       ^------------------- logind: it was given up ------'------------------'
 *
 * Where logind gives no time, it is LET_GO at once.
 *
 * While it is not UP the leader gives this host nothing new. That is not stored: each session says it anew,
 * and a host that has been booted says nothing of the kind. A leader that is shut down itself leads on while
 * it waits, since nobody could move its units sooner; stopping, it hands leadership over as always. */
#pragma once

#include <stdbool.h>

struct daemon;
struct going_down;

/* Looks at daemon->config.drain_on_shutdown, as does going_down_configure(), when that may have changed. */
struct going_down *going_down_new(struct daemon *daemon);
void going_down_configure(struct going_down *down);

/* A session is about to open: what it is to say. */
bool going_down_opening(struct going_down *down);
/* It is open, and the leader moves units off hosts that are shut down, or is too old for that; it has ended;
 * and the leader says that nothing that can move is left here. */
void going_down_accepted(struct going_down *down, bool moves);
void going_down_session_lost(struct going_down *down);
void going_down_ready(struct going_down *down);

/* Lets go of everything; frees itself from the loop. */
void going_down_close(struct going_down *down);
