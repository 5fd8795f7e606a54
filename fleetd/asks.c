/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/asks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"

struct ask {
    uint64_t id;
    void *session;
    uint64_t timeout_ms, deadline_ms;
    asks_done *done;
    void *data;
    UT_hash_handle hh;
};

struct asks {
    asks_send *send;
    uint64_t last_id;
    struct ask *open; /* Oldest first. */
};

struct asks *asks_new(asks_send *send)
{
    struct asks *asks = NEW0(struct asks);

    asks->send = send;
    return asks;
}

void asks_free(struct asks *asks)
{
    if (asks == NULL)
        return;
    assert(asks->open == NULL);
    free(asks);
}

static unsigned count_of(const struct asks *asks, const void *session)
{
    unsigned count = 0;

    for (const struct ask *ask = asks->open; ask != NULL; ask = ask->hh.next)
        count += ask->session == session;
    return count;
}

uint64_t asks_begin(struct asks *asks, void *session, Fleet__HostRequest *request, uint64_t now_ms,
                    uint64_t timeout_ms, asks_done *done, void *data, struct err *err)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    struct ask *ask;

    if (count_of(asks, session) >= HOST_QUESTIONS_MAX) {
        err_set(err, -EBUSY, "it works on %u questions already: try again", HOST_QUESTIONS_MAX);
        return 0;
    }
    request->id = asks->last_id + 1;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_HOST_REQUEST;
    message.host_request = request;
    if (!asks->send(session, &message)) {
        err_set(err, -ENOTCONN, "its session has just ended");
        return 0;
    }
    ask = NEW0(struct ask);
    *ask = (struct ask){.id = ++asks->last_id,
                        .session = session,
                        .timeout_ms = timeout_ms,
                        .deadline_ms = now_ms + timeout_ms,
                        .done = done,
                        .data = data};
    HASH_ADD(hh, asks->open, id, sizeof ask->id, ask);
    return ask->id;
}

static struct ask *find(const struct asks *asks, uint64_t id)
{
    struct ask *ask;

    HASH_FIND(hh, asks->open, &id, sizeof id, ask);
    return ask;
}

/* The last that is done with 'asks': the callee may ask or cancel anew. */
static void end(struct asks *asks, struct ask *borrowed, const Fleet__HostReply *reply, const char *why)
{
    struct ask ask = *borrowed;

    HASH_DEL(asks->open, borrowed);
    free(borrowed);
    ask.done(reply, why, ask.data);
}

static void tell_cancelled(struct asks *asks, const struct ask *ask)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__ApiCancel cancel = FLEET__API_CANCEL__INIT;

    cancel.id = ask->id;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_HOST_CANCEL;
    message.host_cancel = &cancel;
    asks->send(ask->session, &message);
}

void asks_cancel(struct asks *asks, uint64_t id)
{
    struct ask *ask = find(asks, id);

    if (ask == NULL)
        return;
    tell_cancelled(asks, ask);
    HASH_DEL(asks->open, ask);
    free(ask);
}

void asks_reply(struct asks *asks, void *session, const Fleet__HostReply *reply)
{
    struct ask *ask = find(asks, reply->id);

    if (ask == NULL || ask->session != session) /* Cancelled, late, or made up. */
        return;
    end(asks, ask, reply->error[0] == '\0' ? reply : NULL, reply->error);
}

void asks_session_ended(struct asks *asks, void *session)
{
    struct ask *ask = asks->open;

    while (ask != NULL)
        if (ask->session == session) {
            end(asks, ask, NULL, "its session has just ended");
            ask = asks->open; /* The callee may have changed what follows. */
        } else {
            ask = ask->hh.next;
        }
}

void asks_tick(struct asks *asks, uint64_t now_ms)
{
    struct ask *ask = asks->open;

    while (ask != NULL)
        if (ask->deadline_ms <= now_ms) {
            _cleanup_(freep) char *why =
                xasprintf("it did not answer within %llu s", (unsigned long long)ask->timeout_ms / 1000);

            tell_cancelled(asks, ask);
            end(asks, ask, NULL, why);
            ask = asks->open;
        } else {
            ask = ask->hh.next;
        }
}
