/* SPDX-License-Identifier: Apache-2.0 */
/* A real server on Unix sockets (and one on loopback TCP), raw bytes from a client in the same thread: each
 * wait turns the loop until its condition holds, with a deadline. */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/http.h"
#include "fleetd/http_listen.h"
#include "raftstore/limits.h"
#include "tests/unit/deadline.h"

struct world {
    uv_loop_t loop;
    struct http_server *server; /* NULL once it was asked to close. */
    char dir[64], path[96];
    struct http_request *waiting[600];
    size_t waiting_count, gone_count, request_count;
    bool done, close_inside;
};

struct client {
    int fd;
    struct strbuf in;
    bool eof;
};

static void on_done(void *data)
{
    ((struct world *)data)->done = true;
}

/* "/later..." waits, everything else is told what was asked. */
static void on_request(struct http_request *request, void *data)
{
    struct world *w = data;
    _cleanup_(freep) char *text = NULL;
    struct strbuf query = {0};

    w->request_count++;
    if (w->close_inside)
        http_server_close(TAKE_PTR(w->server), on_done, w);
    if (str_has_prefix(request->path, "/later")) {
        assert_null(request->owner);
        request->owner = w;
        w->waiting[w->waiting_count++] = request;
        return;
    }
    if (streq(request->path, "/none")) {
        http_reply(request, 204, NULL, NULL, 0);
        return;
    }
    for (size_t i = 0; i < request->query_count; i++)
        strbuf_addf(&query, "%s=%s;", request->query[i].key, request->query[i].value);
    text = xasprintf("%s %s ?%s ct=%s/%u body=%zu:%.40s peer=%s", request->method, request->path,
                     query.text != NULL ? query.text : "",
                     request->content_type != NULL ? request->content_type : "-", request->content_type_count,
                     request->body_size, (const char *)request->body, request->peer);
    strbuf_done(&query);
    http_reply(request, 200, "text/plain", text, strlen(text));
}

static void on_gone(struct http_request *request, void *data)
{
    struct world *w = data;

    w->gone_count++;
    assert_ptr_equal(request->owner, w);
    for (size_t i = 0; i < w->waiting_count; i++)
        if (w->waiting[i] == request) {
            w->waiting[i] = w->waiting[--w->waiting_count];
            return;
        }
    fail_msg("gone twice");
}

static const struct http_callbacks callbacks = {on_request, on_gone};

static int setup(void **state)
{
    struct world *w = NEW0(struct world);
    int fd;

    snprintf(w->dir, sizeof w->dir, "/tmp/test-http-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/s", w->dir);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server = http_server_new(&w->loop, "fleetd/9.9", &callbacks, w);
    http_server_set_timeout(w->server, 2);
    fd = http_listen_unix(w->path, HTTP_NO_GROUP, false, NULL);
    assert_true(fd >= 0);
    assert_int_equal(http_server_add(w->server, fd, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    if (w->server != NULL)
        http_server_close(w->server, on_done, w);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* Ends by itself: nothing is left. */
    assert_true(w->done);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    unlink(w->path);
    rmdir(w->dir);
    free(w);
    return 0;
}

/* ---- the client ---- */

static void turn(struct world *w)
{
    uv_run(&w->loop, UV_RUN_NOWAIT);
    poll(NULL, 0, 1);
}

#define WAIT_FOR(w, condition)                           \
    do {                                                 \
        uint64_t _deadline = now_ms() + DEADLINE_MS;     \
        while (!(condition)) {                           \
            turn(w);                                     \
            if (now_ms() > _deadline)                    \
                fail_msg("in vain for: %s", #condition); \
        }                                                \
    } while (0)

static void client_open(struct client *c, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    *c = (struct client){0};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&addr, sizeof addr), 0);
}

static void client_close(struct client *c)
{
    close(c->fd);
    strbuf_done(&c->in);
}

static bool client_read(struct client *c)
{
    char buffer[65536];
    ssize_t n;

    while ((n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
        strbuf_add_bytes(&c->in, buffer, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        c->eof = true;
    return c->in.size > 0;
}

static void client_send_bytes(struct world *w, struct client *c, const char *data, size_t size)
{
    uint64_t deadline = now_ms() + DEADLINE_MS;

    while (size > 0) {
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        assert_true(now_ms() < deadline);
        if (n < 0) {
            if (errno != EAGAIN)
                return; /* The server has had enough. */
            turn(w);
            continue;
        }
        data += n;
        size -= (size_t)n;
    }
}

static void client_send(struct world *w, struct client *c, const char *text)
{
    client_send_bytes(w, c, text, strlen(text));
}

/* Whether a whole answer is at the start of what came in; its size. */
static size_t answer_size(struct client *c)
{
    const char *end, *length;

    client_read(c);
    end = c->in.text != NULL ? strstr(c->in.text, "\r\n\r\n") : NULL;
    if (end == NULL)
        return 0;
    length = strstr(c->in.text, "Content-Length: ");
    if (length == NULL || length > end)
        return (size_t)(end + 4 - c->in.text);
    if (c->in.size < (size_t)(end + 4 - c->in.text) + strtoul(length + 16, NULL, 10))
        return 0;
    return (size_t)(end + 4 - c->in.text) + strtoul(length + 16, NULL, 10);
}

/* Takes one answer off the front. Owned by the caller. */
static char *client_answer(struct world *w, struct client *c)
{
    struct strbuf rest = {0};
    char *answer;
    size_t size;

    WAIT_FOR(w, answer_size(c) > 0 || c->eof);
    size = answer_size(c);
    answer = xstrndup(c->in.text != NULL ? c->in.text : "", size);
    if (c->in.size > size)
        strbuf_add_bytes(&rest, c->in.text + size, c->in.size - size);
    strbuf_done(&c->in);
    c->in = rest;
    return answer;
}

static void expect(struct world *w, struct client *c, const char *status, const char *has)
{
    _cleanup_(freep) char *answer = client_answer(w, c);

    if (!str_has_prefix(answer, status) || strstr(answer, has) == NULL)
        fail_msg("wanted \"%s\" with \"%s\", got \"%s\"", status, has, answer);
}

/* ---- bad input ---- */

static void test_garbage_ends_the_connection(void **state)
{
    static const char *const garbage[] = {
        "\r\n\r\nnonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n", /* No Host. */
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "\x16\x03\x01\x02\x01\x01\x01\xfc\x03\x03\r\n\r\n", /* Somebody speaks TLS. */
    };
    struct world *w = *state;

    for (size_t i = 0; i < ARRAY_SIZE(garbage); i++) {
        struct client c;

        client_open(&c, w->path);
        client_send(w, &c, garbage[i]);
        WAIT_FOR(w, (client_read(&c), c.eof));
        if (c.in.size > 0 && !str_has_prefix(c.in.text, "HTTP/1.1 4") &&
            !str_has_prefix(c.in.text, "HTTP/1.1 5"))
            fail_msg("case %zu: %s", i, c.in.text);
        client_close(&c);
    }
    assert_int_equal(w->request_count, 0);
}

static void test_huge_header(void **state)
{
    struct world *w = *state;
    char *big = xmalloc(2 * HTTP_CONNECTION_MEMORY);
    struct client c;

    memset(big, 'a', 2 * HTTP_CONNECTION_MEMORY);
    client_open(&c, w->path);
    client_send(w, &c, "GET /x HTTP/1.1\r\nHost: x\r\nX-Big: ");
    client_send_bytes(w, &c, big, 2 * HTTP_CONNECTION_MEMORY);
    WAIT_FOR(w, (client_read(&c), c.eof));
    if (c.in.size > 0)
        assert_true(str_has_prefix(c.in.text, "HTTP/1.1 431"));
    client_close(&c);

    client_open(&c, w->path);
    client_send(w, &c, "GET /");
    client_send_bytes(w, &c, big, 2 * HTTP_CONNECTION_MEMORY);
    WAIT_FOR(w, (client_read(&c), c.eof));
    if (c.in.size > 0)
        assert_true(str_has_prefix(c.in.text, "HTTP/1.1 4"));
    client_close(&c);
    free(big);
    assert_int_equal(w->request_count, 0);
}

static void test_bad_targets(void **state)
{
    static const struct {
        const char *target, *status, *has;
    } cases[] = {
        {"/fleet/v1/units/a%00.service", "HTTP/1.1 400", "{\"error\":{\"code\":400,\"message\":\"NUL byte"},
        {"/%", "HTTP/1.1 400", "percent escape"},
        {"*", "HTTP/1.1 400", "no path"},
        {"/fleet//v1/./units/../units/t%401", "HTTP/1.1 301", "Location: /fleet/v1/units/t@1\r\n"},
        {"//evil.example/%2e%2e/x", "HTTP/1.1 301", "Location: /x\r\n"},
        {"/a/../b?c=d&e", "HTTP/1.1 301", "Location: /b?c=d&e\r\n"},
    };
    struct world *w = *state;
    struct client c;

    client_open(&c, w->path);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *request = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", cases[i].target);

        client_send(w, &c, request); /* On one connection: refusing ends none. */
        expect(w, &c, cases[i].status, cases[i].has);
    }
    client_close(&c);
    assert_int_equal(w->request_count, 0);
}

static void test_raw_nul_in_target(void **state)
{
    static const char request[] = "GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n";
    struct world *w = *state;
    _cleanup_(freep) char *answer = NULL;
    struct client c;

    client_open(&c, w->path);
    client_send_bytes(w, &c, request, sizeof request - 1);
    answer = client_answer(w, &c);
    if (c.eof && answer[0] == '\0') { /* libmicrohttpd 1.0 hangs up by itself. */
        client_close(&c);
        client_open(&c, w->path);
    } else if (!str_has_prefix(answer, "HTTP/1.1 400") || strstr(answer, "NUL byte") == NULL) {
        fail_msg("got \"%s\"", answer);
    }
    client_send(w, &c, "GET /a?b=c&d HTTP/1.1\r\nHost: x\r\n\r\n"); /* What is good stays good. */
    expect(w, &c, "HTTP/1.1 200", "GET /a ?b=c;d=;");
    client_close(&c);
}

static void send_body(struct world *w, struct client *c, size_t size, bool chunked)
{
    size_t piece_size = 1024 * 1024;
    char *piece = xmalloc(piece_size);

    memset(piece, 'b', piece_size);
    while (size > 0) {
        size_t n = size < piece_size ? size : piece_size;

        if (chunked) {
            _cleanup_(freep) char *head = xasprintf("%zx\r\n", n);

            client_send(w, c, head);
        }
        client_send_bytes(w, c, piece, n);
        if (chunked)
            client_send(w, c, "\r\n");
        size -= n;
    }
    if (chunked)
        client_send(w, c, "0\r\n\r\n");
    free(piece);
}

static void test_body_over_the_limit(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *head =
        xasprintf("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %u\r\n\r\n", API_BODY_MAX + 1);
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, head);
    send_body(w, &c, API_BODY_MAX + 1, false);
    expect(w, &c, "HTTP/1.1 413", "{\"error\":{\"code\":413,\"message\":\"the request body is larger");
    client_send(w, &c,
                "GET /still HTTP/1.1\r\nHost: x\r\n\r\n"); /* It was swallowed: the connection is good. */
    expect(w, &c, "HTTP/1.1 200", "GET /still");

    client_send(w, &c, "PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    send_body(w, &c, API_BODY_MAX + 5, true);
    expect(w, &c, "HTTP/1.1 413", "\"code\":413");
    client_close(&c);

    client_open(&c, w->path); /* One who asks first is told at once. */
    client_send(w, &c,
                "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n");
    expect(w, &c, "HTTP/1.1 413", "Server: fleetd/9.9\r\n");
    client_close(&c);

    client_open(&c, w->path); /* Too much even to swallow. */
    client_send(w, &c, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nbbb");
    expect(w, &c, "HTTP/1.1 413", "\"code\":413");
    client_close(&c);

    client_open(&c, w->path);
    client_send(w, &c, "PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    send_body(w, &c, 5 * (size_t)API_BODY_MAX, true);
    WAIT_FOR(w, (client_read(&c), c.eof));
    client_close(&c);
    assert_int_equal(w->request_count, 1);
}

static void test_all_bodies_together_are_bounded(void **state)
{
    enum { SIZE = API_BODY_MAX - 1, COUNT = HTTP_BODIES_MAX / SIZE + 1 };
    struct world *w = *state;
    struct client clients[COUNT];
    _cleanup_(freep) char *head =
        xasprintf("PUT /later HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", SIZE);
    _cleanup_(freep) char *other =
        xasprintf("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", SIZE);
    _cleanup_(freep) char *whole = xasprintf("body=%d:bbb", SIZE);
    unsigned refused = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        client_open(&clients[i], w->path);
        client_send(w, &clients[i], head);
        send_body(w, &clients[i], SIZE, false);
        WAIT_FOR(w, w->waiting_count + refused == i + 1 || (answer_size(&clients[i]) > 0 && ++refused));
    }
    assert_int_equal(refused, 1);
    expect(w, &clients[COUNT - 1], "HTTP/1.1 503", "\"code\":503");
    for (unsigned i = 0; i < COUNT; i++)
        client_close(&clients[i]);
    WAIT_FOR(w, w->waiting_count == 0);

    client_open(&clients[0], w->path); /* The room is back. */
    client_send(w, &clients[0], other);
    send_body(w, &clients[0], SIZE, false);
    expect(w, &clients[0], "HTTP/1.1 200", whole);
    client_close(&clients[0]);
}

static void test_slow_clients_are_cut_off(void **state)
{
    struct world *w = *state;
    uint64_t start = now_ms();
    struct client silent, dripping, line;

    client_open(&silent, w->path);
    client_open(&line, w->path);
    client_open(&dripping, w->path);
    client_send(w, &line, "GET /half");
    client_send(w, &dripping, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
    while (!dripping.eof) { /* Never silent, never done. */
        client_send(w, &dripping, "b");
        turn(w);
        client_read(&dripping);
        assert_true(now_ms() < start + DEADLINE_MS);
    }
    WAIT_FOR(w, (client_read(&silent), client_read(&line), silent.eof && line.eof));
    assert_true(now_ms() >= start + 1500);
    assert_int_equal(w->request_count, 0);
    client_close(&silent);
    client_close(&dripping);
    client_close(&line);
}

static void test_client_gone_while_it_sends(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nbbb");
    for (int i = 0; i < 5; i++)
        turn(w);
    client_close(&c);
    client_open(&c, w->path);
    client_send(w, &c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "GET /next");
    client_close(&c);
    assert_int_equal(w->request_count, 1);
}

static void test_client_gone_while_waiting(void **state)
{
    struct world *w = *state;
    struct client c, other;

    client_open(&c, w->path);
    client_open(&other, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\n"); /* Also pipelines. */
    client_send(w, &other, "GET /later/2 HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 2);
    client_close(&c);
    WAIT_FOR(w, w->gone_count == 1);
    assert_int_equal(w->waiting_count, 1);
    assert_string_equal(w->waiting[0]->path, "/later/2");
    http_reply(w->waiting[0], 200, NULL, "ok", 2);
    w->waiting_count = 0;
    expect(w, &other, "HTTP/1.1 200", "ok");
    client_close(&other);
    for (int i = 0; i < 5; i++)
        turn(w);
    assert_int_equal(w->gone_count, 1);
}

static void test_gone_after_the_answer_is_not_told(void **state)
{
    struct world *w = *state;
    size_t size = 8 * 1024 * 1024;
    char *big = xcalloc(1, size);
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    http_reply(w->waiting[0], 200, NULL, big, size); /* More than the socket holds. */
    w->waiting_count = 0;
    for (int i = 0; i < 5; i++)
        turn(w);
    client_close(&c);
    for (int i = 0; i < 20; i++)
        turn(w);
    assert_int_equal(w->gone_count, 0);
    free(big);
}

/* ---- normal life ---- */

static void test_request_is_passed_on(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *peer = xasprintf("peer=uid %u pid %d", getuid(), getpid());
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c,
                "PUT /fleet/v1/units/t%401%5C%3A.service?alt=json&x=%26 HTTP/1.1\r\n"
                "Host: domain-sock\r\nUser-Agent: google-api-go-client/0.5\r\nAccept-Encoding: gzip\r\n"
                "X-Unknown: 1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{}\n");
    expect(w, &c, "HTTP/1.1 200",
           "PUT /fleet/v1/units/t@1\\:.service ?alt=json;x=&; ct=application/json/1 body=3:{}\n");
    client_send(w, &c,
                "PATCH /a%2Fb HTTP/1.1\r\nHost: x\r\ncontent-type: a\r\nContent-Type: b\r\n"
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "PATCH /a/b ? ct=a/2 body=5:abcde");
    client_send(w, &c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", peer);
    client_send(w, &c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "Server: fleetd/9.9\r\n");
    client_send(w, &c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "Content-Type: text/plain\r\n");
    client_send(w, &c, "DELETE /none HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 204", "\r\n\r\n");
    assert_false(c.eof);
    client_close(&c);
    assert_int_equal(w->request_count, 6);
}

static void test_body_of_the_largest_size(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *head = xasprintf(
        "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %u\r\nExpect: 100-continue\r\n\r\n", API_BODY_MAX);
    _cleanup_(freep) char *whole = xasprintf("body=%u:bbb", API_BODY_MAX);
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, head);
    expect(w, &c, "HTTP/1.1 100", "");
    send_body(w, &c, API_BODY_MAX, false);
    expect(w, &c, "HTTP/1.1 200", whole);
    client_close(&c);
}

static void test_head_and_old_http(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    WAIT_FOR(w, (client_read(&c), c.eof));
    assert_true(str_has_prefix(c.in.text, "HTTP/1.1 200"));
    assert_true(str_has_suffix(c.in.text, "\r\n\r\n")); /* No body. */
    client_close(&c);
    client_open(&c, w->path);
    client_send(w, &c, "GET /x HTTP/1.0\r\n\r\n");
    expect(w, &c, "HTTP/1.", "GET /x");
    WAIT_FOR(w, (client_read(&c), c.eof));
    client_close(&c);
}

static void test_later_answers_in_any_order(void **state)
{
    struct world *w = *state;
    struct client c[3];

    for (int i = 0; i < 3; i++) {
        client_open(&c[i], w->path);
        client_send(w, &c[i], "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
        WAIT_FOR(w, w->waiting_count == (size_t)i + 1);
    }
    for (int i = 2; i >= 0; i--) {
        http_reply(w->waiting[i], 200 + (unsigned)i, "text/plain", "late", 4);
        w->waiting_count--;
        expect(w, &c[i], i == 2 ? "HTTP/1.1 202" : i == 1 ? "HTTP/1.1 201" : "HTTP/1.1 200", "late");
        client_send(w, &c[i], "GET /again HTTP/1.1\r\nHost: x\r\n\r\n"); /* The connection lives on. */
        expect(w, &c[i], "HTTP/1.1 200", "GET /again");
        client_close(&c[i]);
    }
    assert_int_equal(w->gone_count, 0);
}

static void test_waiting_outlives_the_timeout(void **state)
{
    struct world *w = *state;
    uint64_t until = now_ms() + 3500; /* The timeout is 2 s. */
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    WAIT_FOR(w, now_ms() > until);
    assert_int_equal(w->gone_count, 0);
    http_reply(w->waiting[0], 200, NULL, "late", 4);
    w->waiting_count = 0;
    expect(w, &c, "HTTP/1.1 200", "late");
    client_close(&c);
}

static void test_half_closed_client_gets_its_answer(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(c.fd, SHUT_WR);
    WAIT_FOR(w, w->waiting_count == 1);
    for (int i = 0; i < 20; i++)
        turn(w);
    assert_int_equal(w->gone_count, 0);
    http_reply(w->waiting[0], 200, NULL, "late", 4);
    w->waiting_count = 0;
    expect(w, &c, "HTTP/1.1 200", "late");
    client_close(&c);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, w->path);
    client_send(
        w, &c,
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n"
        "PUT /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /4 HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "GET /1");
    WAIT_FOR(w, w->waiting_count == 1);
    assert_int_equal(w->request_count, 2);
    http_reply(w->waiting[0], 200, NULL, "two", 3);
    w->waiting_count = 0;
    expect(w, &c, "HTTP/1.1 200", "two");
    expect(w, &c, "HTTP/1.1 200", "PUT /3 ? ct=-/0 body=2:hi");
    expect(w, &c, "HTTP/1.1 200", "GET /4");
    client_close(&c);
}

static void test_connections_are_bounded(void **state)
{
    enum { MORE = 5 };
    struct world *w = *state;
    struct client *c = xcalloc(HTTP_CONNECTIONS_MAX + MORE, sizeof *c);
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX + MORE; i++) {
        client_open(&c[i], w->path);
        client_send(w, &c[i], "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        if (i % 32 == 0)
            turn(w);
    }
    WAIT_FOR(w, w->waiting_count == HTTP_CONNECTIONS_MAX);
    for (int i = 0; i < 20; i++)
        turn(w);
    assert_int_equal(w->request_count, HTTP_CONNECTIONS_MAX);
    for (unsigned i = 0; i < MORE; i++) /* Whoever leaves makes room at once. */
        client_close(&c[i]);
    WAIT_FOR(w, w->request_count == HTTP_CONNECTIONS_MAX + MORE);
    assert_int_equal(w->gone_count, MORE);
    for (unsigned i = MORE; i < HTTP_CONNECTIONS_MAX + MORE; i++)
        client_close(&c[i]);
    WAIT_FOR(w, w->waiting_count == 0);
    free(c);
}

static void test_two_sockets(void **state)
{
    struct world *w = *state;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    struct client local, remote = {0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* As systemd passes it: blocking. */

    assert_int_equal(bind(fd, (struct sockaddr *)&addr, size), 0);
    assert_int_equal(listen(fd, 10), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &size), 0);
    assert_int_equal(http_server_add(w->server, fd, NULL), 0);
    remote.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(remote.fd, (struct sockaddr *)&addr, size), 0);
    client_open(&local, w->path);
    client_send(w, &remote, "GET /r HTTP/1.1\r\nHost: x\r\n\r\n");
    client_send(w, &local, "GET /l HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &remote, "HTTP/1.1 200", "peer=127.0.0.1:");
    expect(w, &local, "HTTP/1.1 200", "peer=uid ");
    client_send(w, &remote, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    client_close(&remote);
    WAIT_FOR(w, w->gone_count == 1);
    client_close(&local);
}

/* ---- opening and closing ---- */

static void test_add_refuses(void **state)
{
    struct world *w = *state;
    struct err err = {0};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_int_equal(http_server_add(w->server, fd, &err), -ENOTSOCK);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* It was ours, and is closed. */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(http_server_add(w->server, fd, &err), -EINVAL);
    assert_non_null(strstr(err.text, "not a listening"));
}

static void test_listen_unix(void **state)
{
    struct world *w = *state;
    struct err err = {0};
    struct stat st;
    char path[128];
    int fd;

    assert_int_equal(http_listen_unix(w->path, HTTP_NO_GROUP, false, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, w->path));
    snprintf(path, sizeof path, "%s/file", w->dir);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(http_listen_unix(path, HTTP_NO_GROUP, false, &err), -EEXIST);
    unlink(path);
    assert_int_equal(http_listen_unix("/nonexistent-dir/s", HTTP_NO_GROUP, false, &err), -ENOENT);
    assert_int_equal(http_listen_unix("", HTTP_NO_GROUP, false, &err), -ENAMETOOLONG);
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    assert_int_equal(http_listen_unix(path, HTTP_NO_GROUP, false, &err), -ENAMETOOLONG);

    snprintf(path, sizeof path, "%s/two", w->dir);
    fd = http_listen_unix(path, http_find_group("no-such-group-here"), false, NULL);
    assert_true(fd >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    close(fd);
    fd = http_listen_unix(path, http_find_group("root"), false, NULL); /* Stale now: replaced. */
    assert_true(fd >= 0);
    assert_int_equal(http_server_add(w->server, fd, NULL), 0);
    unlink(path);
}

/* A reload takes a socket away: who has connected is served on, also with further requests. */
static void test_remove_a_listener(void **state)
{
    struct world *w = *state;
    struct client waiting, idle, queued, late, other;
    char path[100];
    int fd;

    snprintf(path, sizeof path, "%s/two", w->dir);
    fd = http_listen_unix(path, HTTP_NO_GROUP, false, NULL);
    assert_int_equal(http_server_add(w->server, fd, NULL), 0);
    client_open(&waiting, path);
    client_open(&idle, path);
    client_send(w, &waiting, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    client_open(&queued, path); /* Nobody has accepted it yet. */
    http_server_remove(w->server, fd);
    assert_int_equal(fcntl(fd, F_GETFD), -1);

    late.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    {
        struct sockaddr_un addr = {.sun_family = AF_UNIX};

        snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
        assert_int_equal(connect(late.fd, (struct sockaddr *)&addr, sizeof addr), -1);
        assert_int_equal(errno, ECONNREFUSED);
        close(late.fd);
    }
    client_send(w, &queued, "GET /q HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &queued, "HTTP/1.1 200", "GET /q");
    client_send(w, &idle, "GET /i HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &idle, "HTTP/1.1 200", "GET /i");
    client_send(w, &idle, "GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &idle, "HTTP/1.1 200", "GET /again");
    http_reply(w->waiting[0], 200, NULL, "at last", 7);
    w->waiting_count = 0;
    expect(w, &waiting, "HTTP/1.1 200", "at last");
    client_open(&other, w->path); /* The other socket is not concerned. */
    client_send(w, &other, "GET /o HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &other, "HTTP/1.1 200", "GET /o");
    client_close(&waiting);
    client_close(&queued);
    for (int i = 0; i < 5; i++)
        turn(w);
    client_send(w, &idle, "GET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &idle, "HTTP/1.1 200", "GET /last");
    client_close(&idle); /* With the last one the listener ends, while the server goes on. */
    for (int i = 0; i < 5; i++)
        turn(w);
    client_send(w, &other, "GET /o2 HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &other, "HTTP/1.1 200", "GET /o2");
    client_close(&other);
    unlink(path);
}

static void test_close_with_a_removed_listener(void **state)
{
    struct world *w = *state;
    struct client waiting;
    char path[128];
    int fd;

    snprintf(path, sizeof path, "%s/two", w->dir);
    fd = http_listen_unix(path, HTTP_NO_GROUP, false, NULL);
    assert_int_equal(http_server_add(w->server, fd, NULL), 0);
    client_open(&waiting, path);
    client_send(w, &waiting, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    http_server_remove(w->server, fd);
    http_server_close(TAKE_PTR(w->server), on_done, w);
    assert_int_equal(w->gone_count, 1);
    WAIT_FOR(w, w->done);
    client_close(&waiting);
    unlink(path);
}

static void test_close_with_requests_outstanding(void **state)
{
    struct world *w = *state;
    struct client waiting, reading, idle, answered;

    client_open(&waiting, w->path);
    client_open(&reading, w->path);
    client_open(&idle, w->path);
    client_open(&answered, w->path);
    client_send(w, &answered, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->waiting_count == 1);
    client_send(w, &waiting, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    client_send(w, &reading, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc");
    WAIT_FOR(w, w->waiting_count == 2);
    http_reply(w->waiting[0], 200, NULL, "bye", 3);
    w->waiting[0] = w->waiting[--w->waiting_count];
    http_server_close(TAKE_PTR(w->server), on_done, w);
    assert_int_equal(w->gone_count, 1);
    WAIT_FOR(w, w->done);
    expect(w, &answered, "HTTP/1.1 200", "bye"); /* What was answered is sent. */
    client_read(&waiting);
    assert_true(waiting.eof && waiting.in.size == 0);
    client_close(&waiting);
    client_close(&reading);
    client_close(&idle);
    client_close(&answered);
}

/* What still comes in while the server closes is told so, by no API any more (fleet-behaviour.md §4.1). */
static void test_request_while_closing(void **state)
{
    static const char late[] = "GET /late HTTP/1.1\r\nHost: x\r\n\r\n";
    struct world *w = *state;
    _cleanup_(freep) char *answer = NULL;
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "GET /early HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(w, &c, "HTTP/1.1 200", "Server: fleetd/9.9\r\n");
    assert_int_equal(send(c.fd, late, sizeof late - 1, MSG_NOSIGNAL), sizeof late - 1);
    http_server_close(TAKE_PTR(w->server), on_done, w);
    answer = client_answer(w, &c);
    assert_true(str_has_prefix(answer, "HTTP/1.1 503 "));
    assert_non_null(strstr(answer, "{\"error\":{\"code\":503,\"message\":\"fleetd is shutting down\"}}"));
    assert_null(strstr(answer, "Server:"));
    assert_int_equal(w->request_count, 1);
    WAIT_FOR(w, w->done);
    client_close(&c);
}

static void test_close_inside_a_request(void **state)
{
    struct world *w = *state;
    struct client c, second;

    w->close_inside = true;
    client_open(&c, w->path);
    client_send(w, &c, "GET /bye HTTP/1.1\r\nHost: x\r\n\r\nGET /more HTTP/1.1\r\nHost: x\r\n\r\n");
    client_open(&second, w->path);
    expect(w, &c, "HTTP/1.1 200", "GET /bye");
    WAIT_FOR(w, w->done);
    assert_int_equal(w->request_count, 1);
    client_close(&c);
    client_close(&second);
}

static void test_close_inside_a_request_that_waits(void **state)
{
    struct world *w = *state;
    struct client c;

    w->close_inside = true;
    client_open(&c, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(w, w->done);
    assert_int_equal(w->gone_count, 1);
    client_close(&c);
}

static void test_idle_server_sleeps(void **state)
{
    struct world *w = *state;
    unsigned turns = 0;
    uint64_t until;
    struct client c;

    client_open(&c, w->path);
    client_send(w, &c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nmore");
    WAIT_FOR(w, w->waiting_count == 1);
    shutdown(c.fd, SHUT_WR);
    until = now_ms() + 400;
    while (now_ms() < until) { /* Only the sweep (2 s / 4) may wake it. */
        uv_run(&w->loop, UV_RUN_ONCE);
        turns++;
    }
    assert_true(turns < 10);
    client_close(&c);
    WAIT_FOR(w, w->gone_count == 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_garbage_ends_the_connection),
        TEST(test_huge_header),
        TEST(test_bad_targets),
        TEST(test_raw_nul_in_target),
        TEST(test_body_over_the_limit),
        TEST(test_all_bodies_together_are_bounded),
        TEST(test_slow_clients_are_cut_off),
        TEST(test_client_gone_while_it_sends),
        TEST(test_client_gone_while_waiting),
        TEST(test_gone_after_the_answer_is_not_told),
        TEST(test_request_is_passed_on),
        TEST(test_body_of_the_largest_size),
        TEST(test_head_and_old_http),
        TEST(test_later_answers_in_any_order),
        TEST(test_waiting_outlives_the_timeout),
        TEST(test_half_closed_client_gets_its_answer),
        TEST(test_pipelined_requests_are_answered_in_order),
        TEST(test_connections_are_bounded),
        TEST(test_two_sockets),
        TEST(test_add_refuses),
        TEST(test_listen_unix),
        TEST(test_remove_a_listener),
        TEST(test_close_with_a_removed_listener),
        TEST(test_close_with_requests_outstanding),
        TEST(test_request_while_closing),
        TEST(test_close_inside_a_request),
        TEST(test_close_inside_a_request_that_waits),
        TEST(test_idle_server_sleeps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
