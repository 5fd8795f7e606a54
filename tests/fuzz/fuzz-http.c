/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes on a connection, in two pieces (the first byte says how large the first one is), then its end.
 * Whatever they are: what the handler gets keeps the promises of fleetd/http.h, each request ends once,
 * answered or gone, and what comes back is HTTP. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/http.h"
#include "fleetd/url.h"
#include "raftstore/limits.h"
#include "tests/fuzz/fuzz.h"

#define WAITING_MAX 4  /* A connection has one request at a time. */
#define TURNS_MAX   50 /* Of the loop: more than a connection needs to end. */

static uv_loop_t loop;
static struct http_server *server;
static struct sockaddr_un address;
static socklen_t address_size = sizeof address;

static struct http_request *waiting[WAITING_MAX];
static size_t waiting_count;

/* ---- the handler ---- */

static void check_path(const char *path)
{
    assert(path[0] == '/');
    assert(strstr(path, "//") == NULL && strstr(path, "/./") == NULL && strstr(path, "/../") == NULL);
}

static void on_request(struct http_request *request, void *data)
{
    check_path(request->path);
    assert(request->method[0] != '\0' && request->peer[0] != '\0');
    assert(request->user_agent != NULL && request->body != NULL && request->owner == NULL);
    assert(request->query_count <= URL_QUERY_MAX && request->body_size <= API_BODY_MAX);
    assert((request->content_type_count > 0) == (request->content_type != NULL));
    for (size_t i = 0; i < request->query_count; i++)
        assert(request->query[i].key != NULL && request->query[i].value != NULL);
    if (!str_has_prefix(request->path, "/later")) {
        http_reply(request, 200, "text/plain", request->body, request->body_size);
        return;
    }
    assert(waiting_count < WAITING_MAX);
    waiting[waiting_count++] = request;
}

static void on_gone(struct http_request *request, void *data)
{
    size_t i = 0;

    while (i < waiting_count && waiting[i] != request)
        i++;
    assert(i < waiting_count); /* Not told before, and not answered. */
    waiting[i] = waiting[--waiting_count];
}

/* ---- the server ---- */

static void no_log(int priority, const char *message, const char *const *fields)
{
}

/* Its address is made up by the kernel, and leaves no file. */
static void start(void)
{
    static const struct http_callbacks callbacks = {on_request, on_gone};
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    log_set_sink(no_log);
    r = uv_loop_init(&loop);
    assert(r == 0);
    r = bind(fd, (struct sockaddr *)&any, offsetof(struct sockaddr_un, sun_path));
    assert(r == 0);
    r = listen(fd, 8);
    assert(r == 0);
    r = getsockname(fd, (struct sockaddr *)&address, &address_size);
    assert(r == 0);
    server = http_server_new(&loop, "fuzz", &callbacks, NULL);
    r = http_server_add(server, fd, NULL);
    assert(r == 0);
}

/* What waits is answered one turn later. */
static void turn(void)
{
    size_t late = waiting_count;

    uv_run(&loop, UV_RUN_NOWAIT);
    while (late-- > 0 && waiting_count > 0)
        http_reply(waiting[--waiting_count], 202, NULL, "", 0);
}

/* ---- the client ---- */

static void receive(int fd, struct strbuf *in, bool *eof)
{
    char buffer[4096];
    ssize_t n;

    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        strbuf_add_bytes(in, buffer, (size_t)n);
    *eof = n == 0 || errno != EAGAIN;
}

/* All of it fits into the socket's buffer. */
static void speak(int fd, const uint8_t *data, size_t size)
{
    if (size > 0 && send(fd, data, size, MSG_NOSIGNAL) < 0)
        assert(errno == EPIPE || errno == ECONNRESET);
    turn();
    turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t first = size > 0 && data[0] < size ? data[0] : 0;
    struct strbuf in = {0};
    bool eof = false;
    int fd, r;

    if (server == NULL)
        start();
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    r = connect(fd, (struct sockaddr *)&address, address_size);
    assert(r == 0);
    if (size > 0) {
        speak(fd, data + 1, first);
        speak(fd, data + 1 + first, size - 1 - first);
    }
    shutdown(fd, SHUT_WR);
    for (unsigned i = 0; i < TURNS_MAX && !eof; i++) {
        turn();
        receive(fd, &in, &eof);
    }
    close(fd);
    assert(in.size == 0 || str_has_prefix(in.text, "HTTP/1."));
    strbuf_done(&in);
    for (unsigned i = 0; i < TURNS_MAX && http_server_connections(server) > 0; i++)
        turn();
    assert(http_server_connections(server) == 0 && waiting_count == 0);
    return 0;
}
