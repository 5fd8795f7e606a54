/* SPDX-License-Identifier: Apache-2.0 */
/* Wakes a loop from another thread. As uv_async_t does; but a loop that uv_async_send() wakes waits, busily,
 * until the sender has come back from waking it, and a sender that gives way to others (TLS_THREAD_NICE) may
 * come back late. */
#pragma once

#include <uv.h>

struct doorbell {
    int fd;
    uv_poll_t poll;
    void (*on_ring)(void *data);
    void (*on_closed)(void *data);
    void *data;
};

/* 'on_ring' is called on the loop, once for any number of rings since it was called last. Negative errno: no
 * descriptor or memory, nothing begun. */
int doorbell_init(struct doorbell *doorbell, uv_loop_t *loop, void (*on_ring)(void *data), void *data);

/* From any thread, until it is closed. What was written before it is seen by 'on_ring'. */
void doorbell_ring(struct doorbell *doorbell);

/* On the loop; 'on_closed' may be NULL. Nobody may ring any more. */
void doorbell_close(struct doorbell *doorbell, void (*on_closed)(void *data));
