/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

/* ---- when it runs ---- */

void http_run(struct listener *l)
{
    struct http_server *server = l->server;
    bool full;

    server->run_depth++;
    do { /* Where the limit was met, room for the next one is noticed only by another run. */
        full = l->client_count >= HTTP_CONNECTIONS_MAX;
        l->resumed = false;
        MHD_run(l->daemon);
    } while (full && l->client_count < HTTP_CONNECTIONS_MAX);
    server->run_depth--;
    if (server->closing && !server->closed && server->run_depth == 0)
        http_close_now(server);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    http_run(poll->data);
}

static void on_timer(uv_timer_t *timer)
{
    http_run(timer->data);
}

void http_on_prepare(uv_prepare_t *prepare)
{
    struct http_server *server = prepare->data;
    struct listener *l, *next;

    DL_FOREACH_SAFE (server->listeners, l, next) {
        MHD_UNSIGNED_LONG_LONG timeout_ms;

        if (l->draining && l->client_count == 0)
            http_listener_close(l);
        else if (l->resumed)
            uv_timer_start(&l->timer, on_timer, 0, 0);
        else if (MHD_get_timeout(l->daemon, &timeout_ms) == MHD_YES)
            uv_timer_start(&l->timer, on_timer, timeout_ms, 0);
        else
            uv_timer_stop(&l->timer);
    }
}

/* ---- where it begins ---- */

__attribute__((format(printf, 2, 0))) static void on_mhd_log(void *cls, const char *format, va_list ap)
{
    _cleanup_(freep) char *text = NULL;

    if (!log_debug_on())
        return;
    text = xvasprintf(format, ap);
    text[strcspn(text, "\n")] = '\0';
    log_debug("HTTP: %s", text);
}

static struct MHD_Daemon *start_daemon(struct listener *l, int fd)
{
    struct MHD_OptionItem listening[] = {{MHD_OPTION_LISTEN_SOCKET, fd, NULL}, {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;

    if (fd < 0)
        flags |= MHD_USE_NO_LISTEN_SOCKET;
    /* The logger comes first: the options after it may have something to say. */
    return MHD_start_daemon(
        flags, 0, NULL, NULL, http_on_access, l, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
        MHD_OPTION_ARRAY, fd < 0 ? listening + 1 : listening, MHD_OPTION_CONNECTION_LIMIT,
        HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, l->server->timeout_s, MHD_OPTION_URI_LOG_CALLBACK, http_on_target, l,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, l, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection,
        l, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

struct listener *http_listener_new(struct http_server *server, int fd, struct err *err)
{
    struct listener *l = NEW0(struct listener);
    const union MHD_DaemonInfo *info;
    int r;

    l->server = server;
    l->fd = fd;
    l->timeout_ms = server->timeout_s * 1000ull;
    l->daemon = start_daemon(l, fd);
    if (l->daemon == NULL) {
        free(l);
        err_set(err, -EIO, "cannot start libmicrohttpd on descriptor %d", fd);
        return NULL;
    }
    info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    r = info != NULL ? uv_poll_init(server->loop, &l->poll, info->epoll_fd) : -ENOTSUP;
    if (r < 0) {
        if (fd >= 0)
            MHD_quiesce_daemon(l->daemon); /* The socket stays the caller's. */
        MHD_stop_daemon(l->daemon);
        free(l);
        err_set(err, r, "cannot watch libmicrohttpd: %s", uv_strerror(r));
        return NULL;
    }
    uv_timer_init(server->loop, &l->timer);
    l->poll.data = l->timer.data = l;
    server->handles += 2;
    uv_poll_start(&l->poll, UV_READABLE, on_poll);
    uv_timer_start(&l->timer, on_timer, 0,
                   0); /* The first run puts the socket into libmicrohttpd's epoll set. */
    DL_APPEND(server->listeners, l);
    return l;
}

/* ---- where it ends ---- */

static void on_listener_poll_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct http_server *server = l->server;
    struct adoption *adoption, *next;

    server->handles -= 2; /* The timer was closed before, so it is gone as well. */
    HASH_ITER (hh, l->adoptions, adoption, next)
        http_adoption_end(l, adoption);
    free(l);
    http_maybe_done(server);
}

static void on_listener_timer_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;

    uv_close((uv_handle_t *)&l->poll, on_listener_poll_closed);
}

void http_stop_accepting(struct listener *l)
{
    int fd;

    if (l->draining)
        return;
    l->draining = true;
    fd = MHD_quiesce_daemon(l->daemon);
    if (fd >= 0)
        close(fd);
    l->fd = -1;
}

void http_listener_close(struct listener *l)
{
    http_stop_accepting(l);
    DL_DELETE(l->server->listeners, l);
    /* Sends what fits; ends the requests that were abandoned. Bounded: a client may keep on asking. */
    l->server->run_depth++;
    for (int i = 0; i < 8; i++)
        MHD_run(l->daemon);
    l->server->run_depth--;
    uv_poll_stop(&l->poll);
    MHD_stop_daemon(l->daemon);
    l->daemon = NULL;
    assert(l->clients == NULL);
    uv_close((uv_handle_t *)&l->timer, on_listener_timer_closed);
}
