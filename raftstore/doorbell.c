/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/doorbell.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct doorbell *doorbell = poll->data;
    uint64_t rings;

    if (read(doorbell->fd, &rings, sizeof(rings)) == sizeof(rings))
        doorbell->on_ring(doorbell->data);
}

int doorbell_init(struct doorbell *doorbell, uv_loop_t *loop, void (*on_ring)(void *data), void *data)
{
    int r;

    *doorbell = (struct doorbell){.on_ring = on_ring, .data = data};
    doorbell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (doorbell->fd < 0)
        return -errno;
    r = uv_poll_init(loop, &doorbell->poll, doorbell->fd);
    if (r < 0) {
        close(doorbell->fd);
        return r;
    }
    doorbell->poll.data = doorbell;
    return uv_poll_start(&doorbell->poll, UV_READABLE, on_readable);
}

void doorbell_ring(struct doorbell *doorbell)
{
    const uint64_t one = 1;
    ssize_t n;

    do { /* EAGAIN: it has been rung 2^64 times; it will be heard. */
        n = write(doorbell->fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct doorbell *doorbell = handle->data;

    if (doorbell->on_closed != NULL)
        doorbell->on_closed(doorbell->data);
}

void doorbell_close(struct doorbell *doorbell, void (*on_closed)(void *data))
{
    doorbell->on_closed = on_closed;
    uv_poll_stop(&doorbell->poll);
    uv_close((uv_handle_t *)&doorbell->poll, on_poll_closed);
    close(doorbell->fd);
    doorbell->fd = -1;
}
