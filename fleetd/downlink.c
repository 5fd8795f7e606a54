/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/downlink.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "raftstore/limits.h"

#define OPENING_MS                   10000u
#define API_REQUESTS_PER_SESSION_MAX 1024u

/* A request that a host has passed on. Lives until its answer, or until nobody waits for it any more. */
struct relayed {
    struct link *link; /* NULL: the session has ended. */
    uint64_t id;       /* The host's number for it. */
    uint64_t handle;   /* The API's; 0 while api_handle() runs. */
    bool answered;
    struct relayed *prev, *next;
};

struct link {
    struct downlink *downlink;
    struct conn *conn;
    char machine_id[MACHINE_ID_SIZE];
    uint64_t session_id; /* 0 until the host has said SessionOpen. */
    uint64_t since_ms;
    bool closing, answers; /* It understands questions. */
    struct relayed *relayed;
    unsigned relayed_count;
    struct link *prev, *next;
};

struct downlink {
    uv_loop_t *loop;
    struct downlink_callbacks callbacks;
    void *data;
    struct link *links;
    struct asks *asks;
};

static void link_close(struct link *link, const char *why)
{
    if (link->closing)
        return;
    link->closing = true;
    conn_close(link->conn, why);
}

static bool send_down(struct link *link, const Fleet__SessionDown *message)
{
    size_t size = fleet__session_down__get_packed_size(message);
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);

    fleet__session_down__pack(message, bytes);
    if (!link->closing && conn_send(link->conn, bytes, size) >= 0)
        return true;
    link_close(link, "it does not read what the leader sends");
    return false;
}

/* ---- API requests ---- */

static void on_answer(const struct api_answer *answer, void *data)
{
    struct relayed *relayed = data;
    Fleet__ApiReply reply = FLEET__API_REPLY__INIT;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    struct link *link = relayed->link;

    reply.id = relayed->id;
    reply.status = answer->status;
    reply.content_type = (char *)(answer->content_type != NULL ? answer->content_type : "");
    reply.body = (ProtobufCBinaryData){.len = answer->size, .data = (uint8_t *)answer->body};
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_API_REPLY;
    message.api_reply = &reply;
    send_down(link, &message);
    DL_DELETE(link->relayed, relayed);
    link->relayed_count--;
    relayed->answered = true;
    if (relayed->handle != 0)
        free(relayed);
}

static void on_api_request(struct link *link, const Fleet__ApiRequest *request)
{
    struct relayed *relayed;
    uint64_t handle;

    if (link->relayed_count >= API_REQUESTS_PER_SESSION_MAX) {
        link_close(link, "too many requests at once");
        return;
    }
    relayed = NEW0(struct relayed);
    relayed->link = link;
    relayed->id = request->id;
    DL_APPEND(link->relayed, relayed);
    link->relayed_count++;
    handle = link->downlink->callbacks.on_api_request(request, link->machine_id, on_answer, relayed,
                                                      link->downlink->data);
    if (relayed->answered)
        free(relayed);
    else
        relayed->handle = handle;
}

static void on_api_cancel(struct link *link, uint64_t id)
{
    struct relayed *relayed;

    DL_SEARCH_SCALAR(link->relayed, relayed, id, id);
    if (relayed == NULL)
        return;
    link->downlink->callbacks.on_api_cancel(relayed->handle, link->downlink->data);
    DL_DELETE(link->relayed, relayed);
    link->relayed_count--;
    free(relayed);
}

/* ---- questions ---- */

static bool send_to(void *session, const Fleet__SessionDown *message)
{
    return send_down(session, message);
}

/* ---- messages ---- */

static struct link *link_find(const struct downlink *downlink, const char *machine_id)
{
    struct link *link;

    DL_FOREACH (downlink->links, link)
        if (!link->closing && link->session_id != 0 && streq(link->machine_id, machine_id))
            return link;
    return NULL;
}

static void refuse(struct link *link, const char *why)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;

    if (link->closing)
        return;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_REFUSED;
    message.refused = (char *)why;
    send_down(link, &message);
    link_close(link, why);
}

static void on_session_open(struct link *link, const Fleet__SessionOpen *open)
{
    struct downlink *downlink = link->downlink;
    struct link *older = link_find(downlink, link->machine_id);
    struct err err = {0};
    int r;

    if (link->session_id != 0 || open->session_id == 0 || open->machine == NULL ||
        !streq(open->machine->machine_id, link->machine_id)) {
        link_close(link, "it opens its session wrongly");
        return;
    }
    r = downlink->callbacks.on_opening(open->machine, &err, downlink->data);
    if (r < 0) {
        refuse(link, err_text(&err, r));
        return;
    }
    if (older != NULL)
        link_close(older, "the host has opened a newer session");
    link->session_id = open->session_id;
    link->answers = open->answers;
    downlink->callbacks.on_session(link->machine_id, link->session_id, open, downlink->data);
}

static void on_heartbeat(struct link *link, const Fleet__Heartbeat *heartbeat)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__Heartbeat answer = *heartbeat;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_HEARTBEAT;
    message.heartbeat = &answer;
    send_down(link, &message);
    if (heartbeat->lease && !link->closing)
        link->downlink->callbacks.on_lease(link->machine_id, link->session_id, heartbeat->sequence,
                                           heartbeat->urgent, link->downlink->data);
}

static void dispatch(struct link *link, const Fleet__SessionUp *message)
{
    struct downlink *downlink = link->downlink;

    if (message->message_case == FLEET__SESSION_UP__MESSAGE_OPEN) {
        on_session_open(link, message->open);
        return;
    }
    if (link->session_id == 0) {
        link_close(link, "it must open its session first");
        return;
    }
    /* Whatever it says, it lives. */
    downlink->callbacks.on_heard(link->machine_id, link->session_id, downlink->data);
    switch (message->message_case) {
    case FLEET__SESSION_UP__MESSAGE_HEARTBEAT: on_heartbeat(link, message->heartbeat); break;
    case FLEET__SESSION_UP__MESSAGE_REPORTS:
        downlink->callbacks.on_reports(link->machine_id, link->session_id, message->reports, downlink->data);
        break;
    case FLEET__SESSION_UP__MESSAGE_API_REQUEST: on_api_request(link, message->api_request); break;
    case FLEET__SESSION_UP__MESSAGE_API_CANCEL: on_api_cancel(link, message->api_cancel->id); break;
    case FLEET__SESSION_UP__MESSAGE_HOST_REPLY: asks_reply(downlink->asks, link, message->host_reply); break;
    case FLEET__SESSION_UP__MESSAGE_CERTIFICATE_REQUEST:
        downlink->callbacks.on_certificate_request(link->machine_id, message->certificate_request,
                                                   downlink->data);
        break;
    case FLEET__SESSION_UP__MESSAGE_MACHINE:
        /* A host speaks for itself only. */
        if (streq(message->machine->machine_id, link->machine_id))
            downlink->callbacks.on_machine(message->machine, downlink->data);
        break;
    case FLEET__SESSION_UP__MESSAGE_CHANGE_SETTINGS:
        downlink->callbacks.on_settings(link->machine_id, message->change_settings, downlink->data);
        break;
    case FLEET__SESSION_UP__MESSAGE_GOODBYE:
        downlink->callbacks.on_goodbye(link->machine_id, link->session_id, downlink->data);
        break;
    case FLEET__SESSION_UP__MESSAGE_SHUTDOWN:
        downlink->callbacks.on_shutdown(link->machine_id, link->session_id, message->shutdown->begins,
                                        downlink->data);
        break;
    default: break; /* Something that a newer host knows. */
    }
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct link *link = data;
    Fleet__SessionUp *message;

    if (link->closing)
        return;
    message = fleet__session_up__unpack(NULL, size, bytes);
    if (message == NULL) {
        link_close(link, "its message does not decode");
        return;
    }
    dispatch(link, message);
    fleet__session_up__free_unpacked(message, NULL);
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct link *link = data;
    struct downlink *downlink = link->downlink;
    struct relayed *relayed, *next;

    link->closing = true; /* Nothing can be sent any more. */
    DL_FOREACH_SAFE (link->relayed, relayed, next) {
        downlink->callbacks.on_api_cancel(relayed->handle, downlink->data);
        free(relayed);
    }
    asks_session_ended(downlink->asks, link);
    DL_DELETE(downlink->links, link);
    if (link->session_id != 0) {
        log_debug("The session of %s has ended: %s", link->machine_id, reason);
        downlink->callbacks.on_closed(link->machine_id, link->session_id, downlink->data);
    }
    free(link);
}

static const struct conn_callbacks conn_callbacks = {.on_message = on_message, .on_close = on_close};

/* ---- machines that were removed ---- */

static void say_removed(struct conn *conn)
{
    Fleet__Removed removed = FLEET__REMOVED__INIT;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_REMOVED;
    message.removed = &removed;
    size = fleet__session_down__get_packed_size(&message);
    bytes = xmalloc(size);
    fleet__session_down__pack(&message, bytes);
    conn_send(conn, bytes, size);
}

static void on_removed_accepted(struct conn *conn, void *data)
{
    say_removed(conn);
    conn_close(conn, "the machine was removed");
}

static void on_removed_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
}

static void on_removed_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
}

const struct conn_callbacks *downlink_accept_removed(void)
{
    static const struct conn_callbacks callbacks = {
        .on_accepted = on_removed_accepted, .on_message = on_removed_message, .on_close = on_removed_close};

    return &callbacks;
}

/* ---- interface ---- */

struct downlink *downlink_new(uv_loop_t *loop, const struct downlink_callbacks *callbacks, void *data)
{
    struct downlink *downlink = NEW0(struct downlink);

    downlink->loop = loop;
    downlink->callbacks = *callbacks;
    downlink->data = data;
    downlink->asks = asks_new(send_to);
    return downlink;
}

/* Whoever has a machine's key could fill the leader with connections that say nothing; and a fleetd that was
 * started anew has no use for the older one. The open session of the machine, which may be another host's
 * with the same machine id, is not touched: see on_opening. */
static void drop_unopened(struct downlink *downlink, const char *machine_id)
{
    struct link *link;

    DL_FOREACH (downlink->links, link)
        if (link->session_id == 0 && streq(link->machine_id, machine_id))
            link_close(link, "the machine has called again, before it has opened its session");
}

const struct conn_callbacks *downlink_accept(struct downlink *downlink, struct conn *conn,
                                             const char *machine_id, void **ret_data)
{
    struct link *link;

    drop_unopened(downlink, machine_id);
    link = NEW0(struct link);
    link->downlink = downlink;
    link->conn = conn;
    link->since_ms = now_ms();
    snprintf(link->machine_id, sizeof link->machine_id, "%s", machine_id);
    DL_APPEND(downlink->links, link);
    *ret_data = link;
    return &conn_callbacks;
}

void downlink_accepted(struct downlink *downlink, const char *machine_id,
                       const Fleet__SessionAccepted *accepted)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_ACCEPTED;
    message.accepted = (Fleet__SessionAccepted *)accepted;
    downlink_send(downlink, machine_id, &message);
}

bool downlink_send(struct downlink *downlink, const char *machine_id, const Fleet__SessionDown *message)
{
    struct link *link = link_find(downlink, machine_id);

    return link != NULL && send_down(link, message);
}

uint64_t downlink_ask(struct downlink *downlink, const char *machine_id, Fleet__HostRequest *request,
                      uint64_t timeout_ms, asks_done *done, void *data, struct err *err)
{
    struct link *link = link_find(downlink, machine_id);

    if (link == NULL) {
        err_set(err, -ENOTCONN, "it has no session to the leader");
        return 0;
    }
    if (!link->answers) {
        err_set(err, -ENOTSUP, "its fleetd is too old to be asked: upgrade it");
        return 0;
    }
    return asks_begin(downlink->asks, link, request, now_ms(), timeout_ms, done, data, err);
}

void downlink_ask_cancel(struct downlink *downlink, uint64_t id)
{
    asks_cancel(downlink->asks, id);
}

bool downlink_poke(struct downlink *downlink, const char *machine_id)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__Heartbeat nothing = FLEET__HEARTBEAT__INIT;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_HEARTBEAT;
    message.heartbeat = &nothing;
    return downlink_send(downlink, machine_id, &message);
}

const struct pki_info *downlink_peer_info(const struct downlink *downlink, const char *machine_id)
{
    const struct link *link = link_find(downlink, machine_id);

    return link != NULL ? conn_peer_info(link->conn) : NULL;
}

void downlink_dismiss(struct downlink *downlink, const char *machine_id)
{
    struct link *link = link_find(downlink, machine_id);

    if (link == NULL || link->closing)
        return;
    say_removed(link->conn);
    link_close(link, "the machine was removed");
}

void downlink_drop(struct downlink *downlink, const char *machine_id, const char *why)
{
    struct link *link = link_find(downlink, machine_id);

    if (link != NULL)
        link_close(link, why);
}

void downlink_drop_all(struct downlink *downlink, const char *why)
{
    struct link *link;

    DL_FOREACH (downlink->links, link)
        link_close(link, why);
}

void downlink_tick(struct downlink *downlink)
{
    struct link *link;

    DL_FOREACH (downlink->links, link)
        if (link->session_id == 0 && now_ms() - link->since_ms > OPENING_MS)
            link_close(link, "it does not open its session");
    asks_tick(downlink->asks, now_ms());
}

void downlink_free(struct downlink *downlink)
{
    assert(downlink->links == NULL);
    asks_free(downlink->asks);
    free(downlink);
}
