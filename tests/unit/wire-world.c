/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/wire-world.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/times.h"
#include "fleetd/http_listen.h"
#include "fleetd/metrics.h"
#include "tests/unit/deadline.h"

#define TURNS_BEFORE_END 4

/* ---- the way to the leader and back ---- */

static void message_add(struct wire_message **list, uint8_t *bytes, size_t size)
{
    struct wire_message *message = NEW0(struct wire_message);

    message->bytes = bytes;
    message->size = size;
    DL_APPEND(*list, message);
}

static void message_free(struct wire_message **list, struct wire_message *message)
{
    DL_DELETE(*list, message);
    free(message->bytes);
    free(message);
}

struct reply_ticket {
    struct wire *wire;
    uint64_t id;
};

static void on_answer(const struct api_answer *answer, void *data)
{
    struct reply_ticket *ticket = data;
    Fleet__ApiReply reply = FLEET__API_REPLY__INIT;
    uint8_t *bytes;
    size_t size;

    reply.id = ticket->id;
    reply.status = ticket->wire->forged_status != 0 ? ticket->wire->forged_status : answer->status;
    reply.content_type = (char *)(answer->content_type != NULL ? answer->content_type : "");
    reply.body = (ProtobufCBinaryData){.len = answer->size, .data = (uint8_t *)answer->body};
    size = fleet__api_reply__get_packed_size(&reply);
    bytes = xmalloc(size);
    fleet__api_reply__pack(&reply, bytes);
    message_add(&ticket->wire->down, bytes, size);
    free(ticket);
}

static void deliver_up(struct wire *wire, const Fleet__SessionUp *up)
{
    struct reply_ticket *ticket;
    uint64_t handle;

    if (up->message_case == FLEET__SESSION_UP__MESSAGE_API_CANCEL) {
        for (size_t i = 0; i < wire->waiting_count; i++)
            if (wire->waiting[i].id == up->api_cancel->id)
                api_cancel(wire->world->api, wire->waiting[i].handle);
        return;
    }
    assert_int_equal(up->message_case, FLEET__SESSION_UP__MESSAGE_API_REQUEST);
    ticket = NEW0(struct reply_ticket);
    *ticket = (struct reply_ticket){wire, up->api_request->id};
    handle = api_handle(wire->world->api, up->api_request, WIRE_HOST, on_answer, ticket);
    if (handle == 0)
        return;
    assert_true(wire->waiting_count < WIRE_REQUESTS_MAX);
    wire->waiting[wire->waiting_count++] = (struct wire_request){up->api_request->id, handle};
}

static void deliver(struct wire *wire)
{
    struct wire_message *message, *next;

    DL_FOREACH_SAFE (wire->up, message, next) {
        Fleet__SessionUp *up = fleet__session_up__unpack(NULL, message->size, message->bytes);

        assert_non_null(up);
        message_free(&wire->up, message);
        deliver_up(wire, up);
        fleet__session_up__free_unpacked(up, NULL);
    }
    DL_FOREACH_SAFE (wire->down, message, next) {
        Fleet__ApiReply *reply = fleet__api_reply__unpack(NULL, message->size, message->bytes);

        assert_non_null(reply);
        message_free(&wire->down, message);
        router_reply(wire->router, reply);
        fleet__api_reply__free_unpacked(reply, NULL);
    }
}

static void turn(struct wire *wire)
{
    uv_run(&wire->loop, UV_RUN_NOWAIT);
    deliver(wire);
    if (wire->up == NULL && wire->down == NULL)
        poll(NULL, 0, 1);
}

/* ---- what the router asks for ---- */

static bool on_send(const Fleet__SessionUp *message, void *data)
{
    struct wire *wire = data;
    size_t size = fleet__session_up__get_packed_size(message);
    uint8_t *bytes;

    if (!wire->connected)
        return false;
    bytes = xmalloc(size);
    fleet__session_up__pack(message, bytes);
    message_add(&wire->up, bytes, size);
    return true;
}

static const char *on_trouble(void *data)
{
    return "it is being elected";
}

static bool on_member(void *data)
{
    return ((struct wire *)data)->member;
}

static int on_admit(const struct access_caller *caller, enum pki_role needed, bool here, struct err *err,
                    void *data)
{
    const struct access_facts facts = {.secure = ((struct wire *)data)->world->secure,
                                       .certificate = ACCESS_CERTIFICATE_UNCHECKED,
                                       .via = "",
                                       .via_role = PKI_ROLE_ADMIN};

    return access_check(caller, &facts, needed, err);
}

static uint64_t on_local(const Fleet__ApiRequest *request, api_done *done, void *done_data, void *data)
{
    return api_handle(((struct wire *)data)->world->api, request, NULL, done, done_data);
}

static char *on_status(void *data)
{
    return xstrdup("{}");
}

static char *on_metrics(void *data)
{
    return metrics_print(&(struct metrics){.version = "9.9"});
}

static void on_request(struct http_request *request, void *data)
{
    router_request(((struct wire *)data)->router, request);
}

static void on_gone(struct http_request *request, void *data)
{
    router_gone(((struct wire *)data)->router, request);
}

/* ---- life ---- */

int wire_setup(void **state)
{
    static const struct http_callbacks http_callbacks = {on_request, on_gone};
    static const struct router_callbacks router_callbacks = {
        .send = on_send,
        .trouble = on_trouble,
        .member = on_member,
        .admit = on_admit,
        .local = on_local,
        .status = on_status,
        .metrics = on_metrics,
    };
    struct wire *wire = NEW0(struct wire);
    void *world;
    int fd;

    world_setup(&world);
    wire->world = world;
    wire->member = wire->connected = true;
    snprintf(wire->dir, sizeof wire->dir, "/tmp/test-wire-XXXXXX");
    assert_non_null(mkdtemp(wire->dir));
    snprintf(wire->path, sizeof wire->path, "%s/s", wire->dir);
    assert_int_equal(uv_loop_init(&wire->loop), 0);
    wire->router = router_new(&wire->loop, &router_callbacks, wire);
    wire->http = http_server_new(&wire->loop, "fleetd/9.9", &http_callbacks, wire);
    fd = http_listen_unix(wire->path, HTTP_NO_GROUP, false, NULL);
    assert_true(fd >= 0);
    assert_int_equal(http_server_add(wire->http, fd, NULL), 0);
    *state = wire;
    return 0;
}

static void on_router_closed(void *data)
{
    ((struct wire *)data)->router_closed = true;
}

static void on_http_closed(void *data)
{
    struct wire *wire = data;

    wire->http_closed = true;
    router_close(wire->router, on_router_closed, wire);
}

int wire_teardown(void **state)
{
    struct wire *wire = *state;
    void *world = wire->world;

    http_server_close(wire->http, on_http_closed, wire);
    uv_run(&wire->loop, UV_RUN_DEFAULT); /* Ends by itself: nothing is left. */
    assert_true(wire->http_closed && wire->router_closed);
    assert_int_equal(uv_loop_close(&wire->loop), 0);
    world_teardown(&world);
    while (wire->up != NULL)
        message_free(&wire->up, wire->up);
    while (wire->down != NULL)
        message_free(&wire->down, wire->down);
    unlink(wire->path);
    rmdir(wire->dir);
    free(wire);
    return 0;
}

void wire_connect(struct wire *wire, bool connected)
{
    wire->connected = connected;
    if (connected)
        router_connected(wire->router);
    else
        router_disconnected(wire->router);
}

/* ---- the client ---- */

static int dial(const struct wire *wire)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", wire->path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* Sends what fits. */
static void send_some(int fd, const char **bytes, size_t *size)
{
    ssize_t n = *size > 0 ? send(fd, *bytes, *size, MSG_NOSIGNAL) : 0;

    if (n < 0 && errno != EAGAIN)
        *size = 0; /* The server has had enough. */
    if (n <= 0)
        return;
    *bytes += n;
    *size -= (size_t)n;
}

struct wire_answer wire_exchange(struct wire *wire, const char *bytes, size_t size)
{
    struct wire_answer answer = {0};
    struct strbuf in = {0};
    uint64_t deadline = now_ms() + DEADLINE_MS;
    int fd = dial(wire), turns = 0;
    char buffer[65536];
    ssize_t n;

    for (;;) {
        send_some(fd, &bytes, &size);
        n = recv(fd, buffer, sizeof buffer, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
        if (n > 0)
            strbuf_add_bytes(&in, buffer, (size_t)n);
        else
            turn(wire);
        /* Not at once: libmicrohttpd overlooks an end that comes together with the last bytes of a request
         * that is not complete, until its timeout. */
        if (size == 0 && ++turns == TURNS_BEFORE_END)
            shutdown(fd, SHUT_WR);
        if (now_ms() > deadline)
            fail_msg("no end of the answer: %s, %zu bytes unsent", in.text != NULL ? in.text : "nothing",
                     size);
    }
    close(fd);
    turn(wire);
    answer.size = in.size;
    answer.head = answer.bytes = strbuf_take(&in);
    answer.body = strstr(answer.bytes, "\r\n\r\n");
    answer.body = answer.body != NULL ? answer.body + 4 : "";
    if (sscanf(answer.bytes, "HTTP/1.1 %u ", &answer.status) != 1)
        answer.status = 0;
    return answer;
}

void wire_answer_done(struct wire_answer *answer)
{
    free(answer->bytes);
}

char *wire_header(const struct wire_answer *answer, const char *name)
{
    const char *line = strstr(answer->head, "\r\n");

    while (line != NULL && line + 4 <= answer->body) {
        size_t size = strcspn(line += 2, ":\r");

        if (size == strlen(name) && strncasecmp(line, name, size) == 0 && line[size] == ':') {
            line += size + 1;
            line += strspn(line, " ");
            return xstrndup(line, strcspn(line, "\r"));
        }
        line = strstr(line, "\r\n");
    }
    return NULL;
}

char *wire_request(const char *request, const char *prefix)
{
    const char *body = strstr(request, "\n\n");
    struct strbuf out = {0};
    const char *at = request;

    for (; *at != '\0' && *at != '\n'; at++)
        if (*at == '@' && at > request && at[-1] == ' ')
            strbuf_add(&out, prefix);
        else
            strbuf_add_bytes(&out, at, 1);
    strbuf_add(&out, " HTTP/1.1\r\nHost: x\r\n");
    while (*at == '\n' && at != body) {
        size_t size = strcspn(++at, "\n");

        if (size > 0) {
            strbuf_add_bytes(&out, at, size);
            strbuf_add(&out, "\r\n");
        }
        at += size;
    }
    if (body != NULL)
        strbuf_addf(&out, "Content-Length: %zu\r\n", strlen(body + 2));
    strbuf_add(&out, "\r\n");
    strbuf_add(&out, body != NULL ? body + 2 : "");
    return strbuf_take(&out);
}
