/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/uplink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/limits.h"

#define RETRY_MS_MIN          50u
#define RETRY_MS_MAX          1000u
#define REFUSED_MS            500u
#define NAMED_FAILURES_MAX    20u
#define DIALLING_MS           1000u /* A dead host answers nobody: do not wait long for one of several. */
#define INFORMED_MS           1000u /* For systemd's answer what runs here. */
#define OPENING_MS            3000u /* For the leader's answer to what this host has. */
#define HEARTBEAT_MS_MIN      100u
#define HEARTBEATS_MISSED_MAX 3u
#define UNPROVED_LOG_MS       60000u

enum uplink_state {
    UPLINK_SEARCHING,
    UPLINK_GREETING,
    UPLINK_OPENING,
    UPLINK_OPEN,
    UPLINK_CLOSED,
};

struct uplink {
    uv_loop_t *loop;
    struct port *port;
    struct uplink_callbacks callbacks;
    void *data;
    enum uplink_state state;
    struct conn *conn; /* NULL: none, or its on_close is still to come. */
    uv_timer_t timer;  /* SEARCHING: the next try. Otherwise: heartbeats and silence. */
    unsigned retry_ms;
    char leader[ADDRESS_MAX + 1];  /* As told by Raft or by a member; "" unknown. */
    char dialled[ADDRESS_MAX + 1]; /* Whom 'conn' is to. */
    uint64_t leader_term;
    unsigned failures; /* To reach the named leader, in a row. */
    bool greeted;      /* In GREETING: whoever was dialled has answered. */
    bool refused;      /* The session, by the leader: nobody else is to be asked, and not at once. */
    bool named;        /* 'leader' is what Raft says: then there is nobody else to ask. */
    struct strlist members;
    size_t next_member;
    uint64_t heartbeat_ms;
    uint64_t heard_ms; /* On the loop's clock. */
    uint64_t sequence, share_version;
    uint64_t followed_term, followed_recoveries; /* The latest leader's that this host has followed. */
    char trouble[256];
    uint64_t unproved_ms; /* When somebody was last said to be no leader; 0: never. */
    void (*closed)(void *data);
    void *closed_data;
};

static void search(struct uplink *uplink);

static void set_trouble(struct uplink *uplink, const char *why)
{
    snprintf(uplink->trouble, sizeof uplink->trouble, "%s", why);
}

static bool send_up(struct uplink *uplink, const Fleet__SessionUp *message)
{
    size_t size = fleet__session_up__get_packed_size(message);
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);

    fleet__session_up__pack(message, bytes);
    return conn_send(uplink->conn, bytes, size) >= 0;
}

/* ---- timer ---- */

static void on_timer(uv_timer_t *timer);

static void wait_ms(struct uplink *uplink, uint64_t ms)
{
    uv_timer_start(&uplink->timer, on_timer, ms, 0);
}

/* Gives the connection up; search() begins again when there is nothing left of it. */
static void give_up(struct uplink *uplink, const char *why)
{
    if (uplink->conn != NULL)
        conn_close(uplink->conn, why);
}

static void beat(struct uplink *uplink, bool urgent)
{
    Fleet__Heartbeat heartbeat = FLEET__HEARTBEAT__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    heartbeat.sequence = ++uplink->sequence;
    heartbeat.share_version = uplink->share_version;
    heartbeat.urgent = urgent;
    heartbeat.lease = uplink->callbacks.on_beat(heartbeat.sequence, uplink->data);
    message.message_case = FLEET__SESSION_UP__MESSAGE_HEARTBEAT;
    message.heartbeat = &heartbeat;
    if (!send_up(uplink, &message))
        give_up(uplink, "the leader does not read");
}

static void open_session(struct uplink *uplink)
{
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    uplink->share_version = 0;
    message.message_case = FLEET__SESSION_UP__MESSAGE_OPEN;
    message.open = uplink->callbacks.on_open(uplink->data);
    uplink->state = UPLINK_OPENING;
    wait_ms(uplink, OPENING_MS);
    if (!send_up(uplink, &message))
        give_up(uplink, "what this host has does not fit into a message");
    fleet__session_open__free_unpacked(message.open, NULL);
}

static void on_timer(uv_timer_t *timer)
{
    struct uplink *uplink = timer->data;

    switch (uplink->state) {
    case UPLINK_SEARCHING: search(uplink); break;
    case UPLINK_GREETING:
        if (uplink->greeted)
            open_session(uplink); /* With what is known. */
        else
            give_up(uplink, "no answer in time");
        break;
    case UPLINK_OPENING: give_up(uplink, "no answer in time"); break;
    case UPLINK_OPEN:
        if (uv_now(uplink->loop) - uplink->heard_ms > HEARTBEATS_MISSED_MAX * uplink->heartbeat_ms) {
            give_up(uplink, "the leader is silent");
            break;
        }
        beat(uplink, false);
        wait_ms(uplink, uplink->heartbeat_ms);
        break;
    case UPLINK_CLOSED: break;
    }
}

/* ---- messages ---- */

/* A certificate says which machine somebody is, not that it may lead; a leader has the data, and can prove
 * it. */
static bool is_leader(struct uplink *uplink, const struct conn *conn)
{
    const struct pki_name *name = conn_peer_name(conn);
    uint64_t now = uv_now(uplink->loop);

    if (name == NULL || conn_peer_proved(conn))
        return true;
    if (uplink->unproved_ms == 0 || now - uplink->unproved_ms >= UNPROVED_LOG_MS) {
        uplink->unproved_ms = now > 0 ? now : 1;
        log_error(
            "Machine %s at %s says that it leads, and does not prove that it has the cluster's data: it is "
            "not followed. Is that host in the wrong hands?",
            name->id, conn_peer(conn));
    }
    return false;
}

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    struct uplink *uplink = data;

    if (!is_leader(uplink, conn)) {
        give_up(uplink, "a host says that it leads, and does not prove that it has the cluster's data");
        return;
    }
    uplink->greeted = true;
    wait_ms(uplink, INFORMED_MS);
    uplink_go_on(uplink);
}

/* Somebody who was deposed and does not know it yet would have this host take up again what his successor,
 * who had it until now, has placed elsewhere since. Terms begin anew with a recovery. */
static bool is_deposed(const struct uplink *uplink, const Fleet__SessionAccepted *accepted)
{
    return accepted->recoveries == uplink->followed_recoveries && accepted->term < uplink->followed_term;
}

static void on_accepted(struct uplink *uplink, const Fleet__SessionAccepted *accepted)
{
    if (uplink->state != UPLINK_OPENING)
        return;
    if (is_deposed(uplink, accepted)) {
        give_up(uplink, "a leader that does not know yet that there is a newer one");
        return;
    }
    uplink->state = UPLINK_OPEN;
    uplink->retry_ms = RETRY_MS_MIN;
    uplink->heartbeat_ms =
        accepted->heartbeat_ms > HEARTBEAT_MS_MIN ? accepted->heartbeat_ms : HEARTBEAT_MS_MIN;
    set_trouble(uplink, "");
    wait_ms(uplink, uplink->heartbeat_ms);
    if (uplink->callbacks.on_accepted(accepted, uplink->data) < 0) {
        give_up(uplink, "the leader's data are not of the history that this host follows");
        return;
    }
    uplink->followed_term = accepted->term;
    uplink->followed_recoveries = accepted->recoveries;
}

static void on_share(struct uplink *uplink, const Fleet__Share *share)
{
    if (uplink->state != UPLINK_OPEN)
        return;
    if (!share->more)
        uplink->share_version = share->version;
    if (uplink->callbacks.on_share(share, uplink->data) < 0)
        give_up(uplink, "the share did not make sense");
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    struct uplink *uplink = data;
    Fleet__SessionDown *message = fleet__session_down__unpack(NULL, size, bytes);

    if (message == NULL) {
        give_up(uplink, "a message of the leader does not decode");
        return;
    }
    uplink->heard_ms = uv_now(uplink->loop);
    switch (message->message_case) {
    case FLEET__SESSION_DOWN__MESSAGE_ACCEPTED: on_accepted(uplink, message->accepted); break;
    case FLEET__SESSION_DOWN__MESSAGE_MEMBERS:
        if (uplink->state == UPLINK_OPEN)
            uplink->callbacks.on_members(message->members, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_SHARE: on_share(uplink, message->share); break;
    case FLEET__SESSION_DOWN__MESSAGE_API_REPLY:
        uplink->callbacks.on_api_reply(message->api_reply, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_FAREWELL: uplink->callbacks.on_farewell(uplink->data); break;
    case FLEET__SESSION_DOWN__MESSAGE_SHUTDOWN_READY:
        uplink->callbacks.on_shutdown_ready(uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_HOST_REQUEST:
        if (uplink->state == UPLINK_OPEN)
            uplink->callbacks.on_host_request(message->host_request, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_HOST_CANCEL:
        uplink->callbacks.on_host_cancel(message->host_cancel->id, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_HEARTBEAT:
        if (message->heartbeat->lease_ms > 0 && uplink->state == UPLINK_OPEN)
            uplink->callbacks.on_lease(message->heartbeat->sequence, message->heartbeat->lease_ms,
                                       uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_CREDENTIALS:
        uplink->callbacks.on_credentials(message->credentials, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_CERTIFICATE:
        uplink->callbacks.on_certificate(message->certificate, uplink->data);
        break;
    case FLEET__SESSION_DOWN__MESSAGE_REMOVED: uplink->callbacks.on_removed(uplink->data); break;
    case FLEET__SESSION_DOWN__MESSAGE_REFUSED:
        uplink->refused = true;
        give_up(uplink, message->refused);
        uplink->callbacks.on_refused(message->refused, uplink->data);
        break;
    default: break; /* Something that a newer leader knows. */
    }
    fleet__session_down__free_unpacked(message, NULL);
}

static void uplink_free(struct uplink *uplink)
{
    strlist_done(&uplink->members);
    free(uplink);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct uplink *uplink = handle->data;
    void (*closed)(void *) = uplink->closed;
    void *closed_data = uplink->closed_data;

    uplink_free(uplink);
    closed(closed_data);
}

static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct uplink *uplink = data;
    bool was_open = uplink->state == UPLINK_OPEN;

    uplink->conn = NULL;
    uplink->greeted = false;
    if (uplink->state == UPLINK_CLOSED) {
        uv_close((uv_handle_t *)&uplink->timer, on_timer_closed);
        return;
    }
    set_trouble(uplink, reason);
    uplink->state = UPLINK_SEARCHING;
    /* What Raft said may be outdated here: then somebody else knows better. */
    if (was_open || uplink->refused)
        uplink->failures = 0;
    else if (uplink->named && (++uplink->failures >= NAMED_FAILURES_MAX ||
                               (refusal != NULL && refusal->leader_address[0] != '\0' &&
                                !streq(refusal->leader_address, uplink->dialled))))
        uplink->named = false;
    if (!uplink->named && refusal != NULL && refusal->leader_address[0] != '\0' &&
        !streq(refusal->leader_address, uplink->dialled)) {
        snprintf(uplink->leader, sizeof uplink->leader, "%s", refusal->leader_address);
        uplink->retry_ms = RETRY_MS_MIN;
    } else if (uplink->named) {
        uplink->retry_ms = RETRY_MS_MIN; /* It has been elected, but is not through with it yet. */
    } else if (streq(uplink->leader, uplink->dialled)) {
        uplink->leader[0] = '\0'; /* Perhaps not any more: ask around. */
    }
    if (uplink->refused)
        uplink->retry_ms = REFUSED_MS;
    uplink->refused = false;
    wait_ms(uplink, uplink->retry_ms);
    uplink->retry_ms = 2 * uplink->retry_ms < RETRY_MS_MAX ? 2 * uplink->retry_ms : RETRY_MS_MAX;
    if (was_open)
        uplink->callbacks.on_lost(reason, uplink->data);
}

static const struct conn_callbacks conn_callbacks = {
    .on_open = on_open, .on_message = on_message, .on_close = on_close};

static void search(struct uplink *uplink)
{
    const char *address = uplink->leader;

    if (uplink->state != UPLINK_SEARCHING || uplink->conn != NULL)
        return;
    if (address[0] == '\0' && uplink->members.count > 0)
        address = uplink->members.items[uplink->next_member++ % uplink->members.count];
    if (address[0] == '\0') {
        set_trouble(uplink, "no member of the cluster is known");
        wait_ms(uplink, RETRY_MS_MAX);
        return;
    }
    snprintf(uplink->dialled, sizeof uplink->dialled, "%s", address);
    uplink->state = UPLINK_GREETING;
    uplink->conn =
        port_dial(uplink->port, address, FLEET__PURPOSE__PURPOSE_SESSION, 0, &conn_callbacks, uplink);
    wait_ms(uplink, DIALLING_MS);
}

/* ---- interface ---- */

struct uplink *uplink_new(uv_loop_t *loop, struct port *port, const struct uplink_callbacks *callbacks,
                          void *data)
{
    struct uplink *uplink = NEW0(struct uplink);

    uplink->loop = loop;
    uplink->port = port;
    uplink->callbacks = *callbacks;
    uplink->data = data;
    uplink->retry_ms = RETRY_MS_MIN;
    set_trouble(uplink, "looking for the leader");
    uv_timer_init(loop, &uplink->timer);
    uplink->timer.data = uplink;
    wait_ms(uplink, 0);
    return uplink;
}

void uplink_set_leader(struct uplink *uplink, const char *address, uint64_t term)
{
    if (uplink->state == UPLINK_CLOSED)
        return;
    if (address[0] == '\0') {
        uplink->named = false;
        return;
    }
    if (uplink->named && streq(uplink->leader, address) && uplink->leader_term == term)
        return;
    uplink->named = true;
    uplink->failures = 0;
    uplink->leader_term = term;
    snprintf(uplink->leader, sizeof uplink->leader, "%s", address);
    uplink->retry_ms = RETRY_MS_MIN;
    if (uplink->conn != NULL && !streq(uplink->dialled, address))
        give_up(uplink, "there is a new leader");
    else if (uplink->conn == NULL)
        wait_ms(uplink, 0);
}

void uplink_set_members(struct uplink *uplink, const struct strlist *addresses)
{
    strlist_done(&uplink->members);
    for (size_t i = 0; i < addresses->count; i++)
        strlist_add(&uplink->members, addresses->items[i]);
}

void uplink_beat(struct uplink *uplink)
{
    if (uplink->state == UPLINK_OPEN && uplink->conn != NULL)
        beat(uplink, true);
}

void uplink_go_on(struct uplink *uplink)
{
    if (uplink->state == UPLINK_GREETING && uplink->greeted && uplink->callbacks.is_informed(uplink->data))
        open_session(uplink);
}

bool uplink_is_opening(const struct uplink *uplink)
{
    return uplink->state == UPLINK_OPENING;
}

uint64_t uplink_share_count(const struct uplink *uplink)
{
    return uplink->share_version;
}

bool uplink_is_open(const struct uplink *uplink)
{
    return uplink->state == UPLINK_OPEN;
}

const char *uplink_leader(const struct uplink *uplink)
{
    return uplink->state == UPLINK_OPEN ? uplink->dialled : "";
}

const char *uplink_trouble(const struct uplink *uplink)
{
    return uplink->trouble;
}

bool uplink_send(struct uplink *uplink, const Fleet__SessionUp *message)
{
    if (uplink->state != UPLINK_OPEN || uplink->conn == NULL)
        return false;
    if (send_up(uplink, message))
        return true;
    give_up(uplink, "the leader does not read");
    return false;
}

void uplink_close(struct uplink *uplink, void (*done)(void *data), void *data)
{
    uplink->state = UPLINK_CLOSED;
    uplink->closed = done;
    uplink->closed_data = data;
    uv_timer_stop(&uplink->timer);
    if (uplink->conn != NULL)
        conn_close(uplink->conn, "fleetd is stopping");
    else
        uv_close((uv_handle_t *)&uplink->timer, on_timer_closed);
}
