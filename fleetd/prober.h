/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the kernels of silent machines whether they are there: by a TCP connection to fleetd's port. A fleetd
 * that hangs, or is frozen, does not accept it, but its kernel does, and acknowledges keep-alives for as long
 * as the process exists; so one connection to each machine is made and kept (a new one each time would soon
 * fill the backlog of a process that does not take them off it).
 *
 *      idle --wanted--> connecting --+--> refused: told, closed; tried again with the next tick
 *                                    \--> accepted, kept: told with each tick while acknowledgements come
 *
 * That somebody accepts proves only that the address is in use: the machine may be dead, and another one have
 * its address by now. Of a fleetd that hangs there is no better proof than that the same connection goes on,
 * for another machine knows nothing of it and resets it. So once it has ended, silence does not count any
 * more, until nobody wants to know any more: what is there must say that it is the machine (identify.h),
 * which its fleetd does if it lives. Whoever accepts is asked that, too; one that says that it is another one
 * does not count. What is left: one who takes over the address within the ttl of a machine that dies while
 * its fleetd hangs, listens on fleetd's port, and says nothing; and of a fleetd that was stopped nothing is
 * asked but that somebody refuses the connection. Then a person has to say that the machine is lost. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "raftstore/port.h"

struct prober_target {
    const char *machine_id, *address; /* "host:port" */
    uint64_t server_id;
};

struct prober;

/* 'on_answer': the machine's kernel has 'accepted' a connection, or acknowledged something on it, a moment
 * ago; or it has refused one. Also from inside prober_tick(). The port must outlive the prober. */
struct prober *prober_new(uv_loop_t *loop, struct port *port,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data);

/* To be called about once a second with those that are to be asked now; others are let go of. */
void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count);

/* 'done' comes when nothing of it is left on the loop, and it is freed then. */
void prober_close(struct prober *prober, void (*done)(void *data), void *data);
