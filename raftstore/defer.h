/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that are made later in the same loop turn, when nobody is in the middle of something: how a callback
 * from deep inside a library hands on what it noticed. In order; what is deferred by a deferred call comes in
 * the next turn. */
#pragma once

#include <uv.h>

struct defer;

typedef void defer_fn(void *data);

struct defer *defer_new(uv_loop_t *loop);
void defer_call(struct defer *defer, defer_fn *fn, void *data);

/* Makes what is still waiting happen now, then closes the handle; frees itself on the loop. Not from inside a
 * deferred call. */
void defer_close(struct defer *defer);
