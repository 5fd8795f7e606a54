/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the kernels of silent machines whether they are there: by a TCP connection to fleetd's port, over
 * which nothing is said. A fleetd that hangs, or is frozen, does not accept it, but its kernel does, and
 * acknowledges keep-alives for as long as the process exists; so one connection to each machine is made and
 * kept (a new one each time would soon fill the backlog of a process that does not take them off it).
 *
 *      idle --wanted--> connecting --+--> refused: told, closed; tried again with the next tick
 *                                    \--> accepted, kept: told with each tick while acknowledgements come
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

struct prober_target {
    const char *machine_id, *address; /* "host:port" */
};

struct prober;

/* 'on_answer': the machine's kernel has 'accepted' a connection, or acknowledged something on it, a moment
 * ago; or it has refused one. Also from inside prober_tick(). */
struct prober *prober_new(uv_loop_t *loop,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data);

/* To be called about once a second with those that are to be asked now; others are let go of. */
void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count);

/* 'done' comes when nothing of it is left on the loop, and it is freed then. */
void prober_close(struct prober *prober, void (*done)(void *data), void *data);
