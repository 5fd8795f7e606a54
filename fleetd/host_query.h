/* SPDX-License-Identifier: Apache-2.0 */
/* Answers the leader's questions about this host's units: what systemd says of one, and what its journal has.
 * Each is worked on by a thread of its own, since both may block, and a journal is waited for; libuv's few
 * threads are left to the store's disk.
 *
 * Bounded: HOST_QUESTIONS_MAX at a time (the next one is refused), the size of an answer by the question and
 * by HOST_ANSWER_MAX, the time by HOST_QUERY_MS (and what the question is to wait). */
#pragma once

#include <stdbool.h>

#include <uv.h>

#include "raftstore/fleet.pb-c.h"

#define HOST_QUERY_MS 5000u /* Less than the leader waits, so that it gets what there is. */

struct host_queries;

/* An answer, called from the loop; borrowed for the call. Never from inside a call of ours. */
typedef void host_queries_reply(const Fleet__HostReply *reply, void *data);

/* 'user': units are the user's manager's. */
struct host_queries *host_queries_new(uv_loop_t *loop, bool user, host_queries_reply *reply, void *data);

void host_queries_begin(struct host_queries *queries, const Fleet__HostRequest *request);
void host_queries_cancel(struct host_queries *queries, uint64_t id); /* No answer comes any more. */
void host_queries_cancel_all(struct host_queries *queries);          /* Whoever asked is gone. */

/* 'done' comes from the loop when all threads have ended, and it is freed then. */
void host_queries_close(struct host_queries *queries, void (*done)(void *data), void *data);
