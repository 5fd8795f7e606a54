/* SPDX-License-Identifier: Apache-2.0 */
/* The questions that the leader has put to hosts through their sessions, until they are answered, cancelled,
 * too late, or their session ends: one of these happens to each. It knows sessions only as what its owner
 * (downlink.c) calls them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "raftstore/fleet.pb-c.h"

struct asks;

/* Comes once for every question that was not cancelled. 'reply' (borrowed) is NULL if there is none, and
 * 'why' says why: "it did not answer within 10 s". */
typedef void asks_done(const Fleet__HostReply *reply, const char *why, void *data);

/* Sends a message down a session; false: it has ended, or is about to. */
typedef bool asks_send(void *session, const Fleet__SessionDown *message);

struct asks *asks_new(asks_send *send);
void asks_free(struct asks *asks); /* Nothing must be open any more. */

/* Asks; fills in request->id, and returns it for asks_cancel(). 0 and a text: it cannot be asked, and 'done'
 * does not come. 'done' never comes from inside this call. */
uint64_t asks_begin(struct asks *asks, void *session, Fleet__HostRequest *request, uint64_t now_ms,
                    uint64_t timeout_ms, asks_done *done, void *data, struct err *err);

/* Nobody waits for the answer any more: 'done' does not come, and the host is told. */
void asks_cancel(struct asks *asks, uint64_t id);

void asks_reply(struct asks *asks, void *session, const Fleet__HostReply *reply);
void asks_session_ended(struct asks *asks, void *session);
void asks_tick(struct asks *asks, uint64_t now_ms); /* Ends what is late. */
