/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/going_down.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "fleetd/logind.h"
#include "fleetd/messages.h"

/* We are done so much sooner than logind would go on by itself, but for a short wait a quarter of it. */
#define MARGIN_MS 250u

/* A lost leader is followed by another within so long, or there is none: then nothing is to be waited for. */
#define LEADERLESS_MS 2000u

enum state {
    STATE_UP,
    STATE_WAITING,
    STATE_LET_GO,
};

struct going_down {
    struct daemon *daemon;
    struct logind *logind; /* NULL: it is not wanted. */
    enum state state;
    bool told;  /* The leader, in this session, that it is not UP. */
    bool moves; /* The leader knows what to do then. */
    uv_timer_t timer;
    uint64_t began_ms, wait_ms;
    uint64_t lost_ms; /* When the last session ended; 0: there was none. */
};

static bool has_session(const struct going_down *down)
{
    return down->daemon->uplink != NULL && uplink_is_open(down->daemon->uplink);
}

/* ---- the leader ---- */

static void tell(struct going_down *down)
{
    bool begins = down->state != STATE_UP;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;
    Fleet__HostShutdown shutdown = FLEET__HOST_SHUTDOWN__INIT;

    if (down->told == begins || !has_session(down))
        return;
    shutdown.begins = begins;
    message.message_case = FLEET__SESSION_UP__MESSAGE_SHUTDOWN;
    message.shutdown = &shutdown;
    if (uplink_send(down->daemon->uplink, &message))
        down->told = begins;
}

/* ---- waiting ---- */

static void let_go(struct going_down *down, int priority, const char *why)
{
    if (down->state != STATE_WAITING)
        return;
    down->state = STATE_LET_GO;
    uv_timer_stop(&down->timer);
    log_message(priority, NULL, "%s: the shutdown goes on, after %.1f s", why,
                (double)(now_ms() - down->began_ms) / 1000);
    logind_let_go(down->logind);
}

static void on_timer(uv_timer_t *timer);

/* Goes by what is known now: waits on, or does not. */
static void look(struct going_down *down)
{
    uint64_t now = now_ms(), until = down->began_ms + down->wait_ms,
             leaderless = down->lost_ms + LEADERLESS_MS;

    if (down->state != STATE_WAITING)
        return;
    if (has_session(down) && !down->moves) {
        let_go(down, LOG_INFO, "The leader is too old to move units before a shutdown");
    } else if (!has_session(down) && now >= leaderless) {
        let_go(down, LOG_INFO, "No leader is there to move units");
    } else if (now >= until) {
        let_go(down, LOG_WARNING,
               "Not everything that can move has moved in the time that systemd-logind gives "
               "(InhibitDelayMaxSec= in logind.conf(5))");
    } else {
        if (!has_session(down) && leaderless < until)
            until = leaderless;
        uv_timer_start(&down->timer, on_timer, until - now, 0);
    }
}

static void on_timer(uv_timer_t *timer)
{
    look(timer->data);
}

/* All that is left is to say so: to the leader, who moves what it can meanwhile, and to people. */
static void begin_at_once(struct going_down *down)
{
    log_message(LOG_NOTICE, log_fields(MESSAGE_GOES_DOWN),
                "This host is being shut down at once: systemd-logind gives no time to move units first "
                "(InhibitDelayMaxSec= in logind.conf(5), or it gave fleetd no lock). What runs here is "
                "stopped with the host");
    down->state = STATE_LET_GO;
    tell(down);
    logind_let_go(down->logind);
}

static void begin(struct going_down *down, uint64_t wait_ms)
{
    uint64_t margin_ms = wait_ms / 4 < MARGIN_MS ? wait_ms / 4 : MARGIN_MS;

    if (wait_ms == 0) {
        begin_at_once(down);
        return;
    }
    log_message(LOG_NOTICE, log_fields(MESSAGE_GOES_DOWN),
                "This host is being shut down: what can move goes to others first, for at most %.1f s",
                (double)wait_ms / 1000);
    down->state = STATE_WAITING;
    down->began_ms = now_ms();
    down->wait_ms = wait_ms - margin_ms;
    tell(down);
    look(down);
}

static void give_up(struct going_down *down)
{
    if (down->state == STATE_UP)
        return;
    down->state = STATE_UP;
    uv_timer_stop(&down->timer);
    tell(down);
}

/* ---- logind ---- */

static void on_shutdown(bool begins, uint64_t wait_ms, void *data)
{
    struct going_down *down = data;

    if (begins) {
        begin(down, wait_ms);
        return;
    }
    log_notice("This host is not being shut down after all: it takes units again");
    give_up(down);
}

void going_down_configure(struct going_down *down)
{
    static const struct logind_callbacks callbacks = {.on_shutdown = on_shutdown};
    const struct config *config = &down->daemon->config;
    bool wanted = config->drain_on_shutdown && !config->systemd_user; /* A user's units go with the user. */

    if (wanted && down->logind == NULL)
        down->logind = logind_new(down->daemon->loop, &callbacks, down);
    if (wanted || down->logind == NULL)
        return;
    logind_close(TAKE_PTR(down->logind), NULL, NULL);
    give_up(down);
}

/* ---- sessions ---- */

bool going_down_opening(struct going_down *down)
{
    down->told = down->state != STATE_UP;
    return down->told;
}

void going_down_accepted(struct going_down *down, bool moves)
{
    down->moves = moves;
    tell(down); /* It may have changed while the session was opening. */
    look(down);
}

void going_down_session_lost(struct going_down *down)
{
    down->lost_ms = now_ms();
    look(down);
}

void going_down_ready(struct going_down *down)
{
    let_go(down, LOG_INFO, "Nothing that can move is left here");
}

/* ---- life ---- */

struct going_down *going_down_new(struct daemon *daemon)
{
    struct going_down *down = NEW0(struct going_down);

    down->daemon = daemon;
    uv_timer_init(daemon->loop, &down->timer);
    down->timer.data = down;
    going_down_configure(down);
    return down;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_logind_closed(void *data)
{
    struct going_down *down = data;

    uv_close((uv_handle_t *)&down->timer, on_timer_closed);
}

void going_down_close(struct going_down *down)
{
    if (down->logind != NULL)
        logind_close(TAKE_PTR(down->logind), on_logind_closed, down);
    else
        on_logind_closed(down);
}
