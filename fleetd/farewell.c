/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/farewell.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"

struct farewell {
    struct daemon *daemon;
    uv_timer_t timer;
    void (*done)(struct daemon *daemon);
};

static void on_timer_closed(uv_handle_t *handle)
{
    struct farewell *farewell = handle->data;
    struct daemon *daemon = farewell->daemon;
    void (*done)(struct daemon *) = farewell->done;

    free(farewell);
    done(daemon);
}

void farewell_answered(struct daemon *daemon)
{
    struct farewell *farewell = daemon->farewell;

    if (farewell == NULL)
        return;
    daemon->farewell = NULL;
    uv_close((uv_handle_t *)&farewell->timer, on_timer_closed);
}

static void on_timer(uv_timer_t *timer)
{
    struct farewell *farewell = timer->data;

    log_info("The leader does not answer in time; stopping without a goodbye");
    farewell_answered(farewell->daemon);
}

static void on_system_state(bool stopping, void *data)
{
    struct daemon *daemon = data;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;
    Fleet__Goodbye goodbye = FLEET__GOODBYE__INIT;

    if (daemon->farewell == NULL)
        return; /* Too late. */
    message.message_case = FLEET__SESSION_UP__MESSAGE_GOODBYE;
    message.goodbye = &goodbye;
    if (stopping || daemon->uplink == NULL || !uplink_send(daemon->uplink, &message))
        farewell_answered(daemon);
}

void farewell_begin(struct daemon *daemon, void (*done)(struct daemon *daemon))
{
    struct farewell *farewell;

    if (daemon->uplink == NULL || !uplink_is_open(daemon->uplink)) {
        done(daemon);
        return;
    }
    farewell = daemon->farewell = NEW0(struct farewell);
    farewell->daemon = daemon;
    farewell->done = done;
    uv_timer_init(daemon->loop, &farewell->timer);
    farewell->timer.data = farewell;
    uv_timer_start(&farewell->timer, on_timer, FAREWELL_MS, 0);
    agent_ask_stopping(daemon->agent, on_system_state, daemon);
}
