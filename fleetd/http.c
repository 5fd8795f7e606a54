/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"

struct http_server *http_server_new(uv_loop_t *loop, const char *server_header,
                                    const struct http_callbacks *callbacks, void *data)
{
    struct http_server *server = NEW0(struct http_server);

    server->loop = loop;
    server->server_header = xstrdup(server_header);
    server->callbacks = callbacks;
    server->data = data;
    server->timeout_s = HTTP_TIMEOUT_S;
    uv_prepare_init(loop, &server->prepare);
    uv_timer_init(loop, &server->sweep);
    server->prepare.data = server->sweep.data = server;
    server->handles = 2;
    uv_prepare_start(&server->prepare, http_on_prepare);
    return server;
}

void http_server_set_timeout(struct http_server *server, unsigned seconds)
{
    server->timeout_s = seconds;
}

void http_server_set_others(struct http_server *server, bool read)
{
    server->others_read = read;
}

uint64_t http_server_answered(const struct http_server *server, unsigned status)
{
    assert(status < HTTP_STATUSES);
    return server->answered[status];
}

unsigned http_server_connections(const struct http_server *server)
{
    return server->client_count;
}

/* ---- whom it serves ---- */

int http_check_listening(int fd, struct err *err)
{
    int listening = 0, type = 0;
    socklen_t size = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
        return err_set(err, -errno, "descriptor %d is not a socket", fd);
    size = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM || !listening)
        return err_set(err, -EINVAL, "descriptor %d is not a listening stream socket", fd);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_set(err, -errno, "descriptor %d: %m", fd);
    return 0;
}

int http_server_add(struct http_server *server, int fd, struct err *err)
{
    _cleanup_(closep) int owned = fd;
    int r;

    assert(!server->closing);
    r = http_check_listening(fd, err);
    if (r < 0)
        return r;
    if (http_listener_new(server, fd, err) == NULL)
        return -EIO;
    TAKE_FD(owned);
    return 0;
}

void http_server_adopt(struct http_server *server, int fd, const struct peer *peer)
{
    struct listener *l = server->adopted;
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX};

    assert(server->run_depth == 0);
    if (l == NULL && !server->closing)
        l = server->adopted = http_listener_new(server, -1, NULL);
    if (l == NULL) {
        close(fd);
        return;
    }
    l->adopts = true;
    http_adoption_begin(l, fd, peer);
    /* Where it is refused, libmicrohttpd has closed it. */
    (void)MHD_add_connection(l->daemon, fd, (struct sockaddr *)&nowhere, sizeof nowhere.sun_family);
    l->resumed = true;
}

void http_server_remove(struct http_server *server, int fd)
{
    struct listener *l;

    assert(!server->closing && server->run_depth == 0);
    DL_FOREACH (server->listeners, l)
        if (l->fd == fd)
            break;
    assert(l != NULL);
    http_run(l); /* Whoever has connected by now is not turned away. */
    if (!server->closing)
        http_stop_accepting(l);
}

/* ---- the end ---- */

void http_maybe_done(struct http_server *server)
{
    void (*on_done)(void *data) = server->on_done;
    void *data = server->done_data;

    if (!server->closed || server->handles > 0)
        return;
    free(server->server_header);
    free(server);
    if (on_done != NULL)
        on_done(data);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;

    server->handles--;
    http_maybe_done(server);
}

void http_close_now(struct http_server *server)
{
    struct listener *l, *next;
    struct pending *p;

    server->closed = true;
    uv_close((uv_handle_t *)&server->prepare, on_server_handle_closed);
    uv_close((uv_handle_t *)&server->sweep, on_server_handle_closed);
    DL_FOREACH (server->pendings, p) /* on_gone() may answer others, which frees none of them. */
        if (p->state == REQUEST_HANDED)
            http_abandon(p);
    DL_FOREACH_SAFE (server->listeners, l, next)
        http_listener_close(l);
    assert(server->pendings == NULL && server->body_bytes == 0);
}

void http_server_close(struct http_server *server, void (*done)(void *data), void *data)
{
    assert(!server->closing);
    server->closing = true;
    server->on_done = done;
    server->done_data = data;
    if (server->run_depth == 0)
        http_close_now(server); /* Otherwise http_run() does it. */
}
