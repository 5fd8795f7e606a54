/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_private.h"

#include <stdlib.h>
#include <sys/socket.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"

/* ---- adopted connections ---- */

void http_adoption_end(struct listener *l, struct adoption *adoption)
{
    HASH_DEL(l->adoptions, adoption);
    free(adoption);
}

void http_adoption_begin(struct listener *l, int fd, const struct peer *peer)
{
    struct adoption *adoption;

    HASH_FIND_INT(l->adoptions, &fd, adoption);
    if (adoption == NULL) {
        adoption = NEW0(struct adoption);
        adoption->fd = fd;
        HASH_ADD_INT(l->adoptions, fd, adoption);
    }
    adoption->peer = *peer;
}

/* Of a socket pair the kernel would say that it is our own: who is behind it is known from here, or may
 * nothing. */
static void adopted_peer(struct listener *l, int fd, struct peer *ret)
{
    struct adoption *adoption;

    HASH_FIND_INT(l->adoptions, &fd, adoption);
    *ret = adoption != NULL ? adoption->peer : (struct peer){.text = "unknown peer"};
    ret->is_unix = true; /* So is the socket here; its end says when the client has gone. */
    if (adoption != NULL)
        http_adoption_end(l, adoption);
}

/* ---- clients ---- */

/* Ends clients that take longer than the timeout to send one whole request, however busy they look. */
static void on_sweep(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    uint64_t now = server_now_ms(server);
    struct listener *l;
    struct client *c;

    DL_FOREACH (server->listeners, l)
        DL_FOREACH (l->clients, c)
            if (c->reading_since_ms <= now && now - c->reading_since_ms > l->timeout_ms) {
                c->reading_since_ms = UINT64_MAX;
                shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees a hang-up. */
            }
}

static void client_new(struct listener *l, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *client = NEW0(struct client);
    uint64_t sweep_ms = l->timeout_ms / 4;

    client->listener = l;
    client->fd = info->connect_fd;
    client->reading_since_ms = server_now_ms(l->server);
    if (l->adopts)
        adopted_peer(l, client->fd, &client->peer);
    else
        peer_read(client->fd, l->server->others_read, &client->peer);
    DL_APPEND(l->clients, client);
    l->client_count++;
    if (l->server->client_count++ == 0 && !l->server->closed)
        uv_timer_start(&l->server->sweep, on_sweep, sweep_ms, sweep_ms);
    *context = client;
}

static void client_free(struct client *client)
{
    struct listener *l = client->listener;

    DL_DELETE(l->clients, client);
    l->client_count--;
    if (--l->server->client_count == 0 && !l->server->closed)
        uv_timer_stop(&l->server->sweep);
    free(client);
}

void http_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                        enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        client_new(cls, connection, context);
    else if (*context != NULL)
        client_free(TAKE_PTR(*context));
}
