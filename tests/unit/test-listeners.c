/* SPDX-License-Identifier: Apache-2.0 */
/* Which sockets the API is offered on: at the start, with sockets from systemd, and after a reload. */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/http.h"
#include "fleetd/http_listen.h"
#include "fleetd/listeners.h"
#include "tests/unit/deadline.h"

static struct strlist logged;

struct world {
    uv_loop_t loop;
    struct http_server *server;
    struct listeners *listeners;
    char dir[64], one[96], two[96];
    unsigned requests;
    bool done;
};

static void catch_log(int priority, const char *message, const char *const *fields)
{
    strlist_add(&logged, message);
}

static void on_request(struct http_request *request, void *data)
{
    struct world *w = data;

    w->requests++;
    http_reply(request, 200, "text/plain", "here", 4);
}

static void on_gone(struct http_request *request, void *data)
{
}

static const struct http_callbacks callbacks = {on_request, on_gone};

static void on_done(void *data)
{
    ((struct world *)data)->done = true;
}

static void on_http_done(void *data)
{
    listeners_close(((struct world *)data)->listeners, on_done, data);
}

static int setup_with(void **state, bool insecure)
{
    struct world *w = NEW0(struct world);

    snprintf(w->dir, sizeof w->dir, "/tmp/test-listeners-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->one, sizeof w->one, "%s/one", w->dir);
    snprintf(w->two, sizeof w->two, "%s/two", w->dir);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server = http_server_new(&w->loop, NULL, &callbacks, w);
    w->listeners = listeners_new(&w->loop, w->server, insecure);
    log_set_sink(catch_log);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, true);
}

static int setup_secure(void **state)
{
    return setup_with(state, false);
}

static int teardown(void **state)
{
    struct world *w = *state;

    log_set_sink(NULL);
    strlist_done(&logged);
    listeners_end(w->listeners);
    http_server_close(w->server, on_http_done, w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->done);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    unlink(w->one);
    unlink(w->two);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

/* ---- clients ---- */

static int dial(const void *addr, socklen_t size)
{
    int family = ((const struct sockaddr *)addr)->sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (connect(fd, addr, size) == 0)
        return fd;
    close(fd);
    return -errno;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    return dial(&addr, sizeof addr);
}

static int dial_tcp(unsigned port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};

    return dial(&addr, sizeof addr);
}

/* Asks over an open connection, and whether there is an answer. */
static void assert_answers(struct world *w, int fd)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    uint64_t deadline = now_ms() + DEADLINE_MS;
    char answer[512];
    ssize_t n = -1;

    assert_true(fd >= 0);
    assert_int_equal(send(fd, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    while (n < 0) {
        uv_run(&w->loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 1);
        n = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
        assert_true(now_ms() < deadline);
    }
    assert_true(n > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0);
}

static void assert_served(struct world *w, int fd)
{
    assert_answers(w, fd);
    close(fd);
}

/* A port that no address of this machine uses. It lies below those that the kernel hands out by itself
 * (ip_local_port_range): one of these may be taken, on any address, between the asking and the use. */
static unsigned free_port(void)
{
    enum { FIRST = 10000, COUNT = 20000 };
    static unsigned next;

    if (next == 0)
        next = (unsigned)getpid() * 7;
    for (unsigned tries = 0; tries < COUNT; tries++) {
        unsigned port = FIRST + next++ % COUNT;
        struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), both = 0,
            r = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both);

        assert_int_equal(r, 0);
        r = bind(fd, (struct sockaddr *)&addr, sizeof addr);
        close(fd);
        if (r == 0)
            return port;
    }
    fail_msg("no port is free");
    return 0;
}

static bool was_logged(const char *part)
{
    for (size_t i = 0; i < logged.count; i++)
        if (strstr(logged.items[i], part) != NULL)
            return true;
    return false;
}

static void add_place(const char *place, void *data)
{
    strlist_add(data, place);
}

static void assert_places(const struct world *w, const char *places)
{
    struct strlist list = {0};
    struct strbuf text = {0};

    listeners_each(w->listeners, add_place, &list);
    strbuf_add(&text, "");
    for (size_t i = 0; i < list.count; i++)
        strbuf_addf(&text, "%s ", list.items[i]);
    assert_string_equal(text.text, places);
    strlist_done(&list);
    strbuf_done(&text);
}

/* ---- the Unix socket ---- */

static void test_the_socket_moves(void **state)
{
    struct world *w = *state;
    struct stat st;
    int old;

    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    old = dial_unix(w->one);
    assert_answers(w, old);
    assert_int_equal(listeners_set_socket(w->listeners, w->two, HTTP_NO_GROUP, false, NULL), 0);
    assert_served(w, dial_unix(w->two));
    assert_int_equal(dial_unix(w->one), -ENOENT); /* No file that nobody answers on is left. */
    assert_answers(w, old);                       /* Who was connected still is. */
    assert_int_equal(listeners_set_socket(w->listeners, "", HTTP_NO_GROUP, false, NULL), 0);
    assert_int_equal(stat(w->two, &st), -1);
    assert_places(w, "");
    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    assert_served(w, dial_unix(w->one));
    assert_answers(w, old);
    close(old);
}

static void test_the_same_again_keeps_the_socket(void **state)
{
    struct world *w = *state;
    struct stat before, after;

    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    assert_int_equal(stat(w->one, &before), 0);
    assert_int_equal(listeners_set_socket(w->listeners, w->one, getegid(), false, NULL), 0);
    assert_int_equal(stat(w->one, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(after.st_gid, getegid());
    assert_int_equal(after.st_mode & 07777, 0660);
    assert_served(w, dial_unix(w->one));
}

static void test_a_socket_that_cannot_be_leaves_the_old_one(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *places = xasprintf("%s ", w->one);
    struct err err = {0};

    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    assert_int_equal(listeners_set_socket(w->listeners, "/nonexistent-dir/s", HTTP_NO_GROUP, false, &err),
                     -ENOENT);
    assert_true(str_has_prefix(err.text, "api_socket: cannot bind /nonexistent-dir/s"));
    assert_served(w, dial_unix(w->one));
    assert_places(w, places);
}

static void test_a_removed_file_is_made_again(void **state)
{
    struct world *w = *state;
    int old;

    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    old = dial_unix(w->one);
    assert_int_equal(unlink(w->one), 0);
    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    assert_served(w, dial_unix(w->one));
    assert_answers(w, old);
    close(old);
}

static void test_a_file_that_is_not_ours_any_more_stays(void **state)
{
    struct world *w = *state;
    struct stat st;

    assert_int_equal(listeners_set_socket(w->listeners, w->one, HTTP_NO_GROUP, false, NULL), 0);
    assert_int_equal(unlink(w->one), 0);
    close(open(w->one, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(listeners_set_socket(w->listeners, "", HTTP_NO_GROUP, false, NULL), 0);
    assert_int_equal(stat(w->one, &st), 0);
}

/* ---- TCP ---- */

static void test_the_address_moves(void **state)
{
    struct world *w = *state;
    unsigned port = free_port();
    _cleanup_(freep) char *one = xasprintf("127.0.0.1:%u", port), *all = xasprintf("0.0.0.0:%u", port),
                          *both = xasprintf("[::]:%u", port), *places = xasprintf("%s ", all);
    int old;

    assert_int_equal(listeners_set_address(w->listeners, one, NULL), 0);
    old = dial_tcp(port);
    assert_answers(w, old);
    /* The old one stands in its way. */
    assert_int_equal(listeners_set_address(w->listeners, all, NULL), 0);
    assert_places(w, places);
    assert_served(w, dial_tcp(port));
    assert_answers(w, old);
    assert_int_equal(listeners_set_address(w->listeners, both, NULL), 0);
    assert_served(w, dial_tcp(port));
    assert_int_equal(listeners_set_address(w->listeners, "", NULL), 0);
    assert_int_equal(dial_tcp(port), -ECONNREFUSED);
    assert_answers(w, old);
    close(old);
}

static void test_an_address_that_cannot_be_leaves_the_old_one(void **state)
{
    struct world *w = *state;
    unsigned port = free_port();
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    int foreign = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    _cleanup_(freep) char *one = xasprintf("127.0.0.1:%u", port), *taken = NULL;
    struct err err = {0};

    assert_int_equal(bind(foreign, (struct sockaddr *)&addr, size), 0);
    assert_int_equal(listen(foreign, 1), 0);
    assert_int_equal(getsockname(foreign, (struct sockaddr *)&addr, &size), 0);
    taken = xasprintf("127.0.0.1:%u", ntohs(addr.sin_port));
    assert_int_equal(listeners_set_address(w->listeners, one, NULL), 0);
    assert_int_equal(listeners_set_address(w->listeners, "192.0.2.1:1", &err), -EADDRNOTAVAIL);
    assert_true(str_has_prefix(err.text, "api_listen: cannot listen on 192.0.2.1:1"));
    assert_served(w, dial_tcp(port));
    assert_int_equal(listeners_set_address(w->listeners, taken, &err), -EADDRINUSE);
    assert_served(w, dial_tcp(port));
    close(foreign);
}

/* TLS itself is test-front's. A host without a certificate says nothing to anybody. */
static void assert_mute(struct world *w, int fd)
{
    char byte;

    assert_true(fd >= 0);
    assert_int_equal(send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    assert_int_equal(w->requests, 0);
    close(fd);
}

static void test_tcp_is_with_tls(void **state)
{
    struct world *w = *state;
    unsigned first = free_port(), second = free_port();
    _cleanup_(freep) char *one = xasprintf("127.0.0.1:%u", first), *two = xasprintf("127.0.0.1:%u", second),
                          *places = xasprintf("%s ", one);

    assert_int_equal(listeners_set_address(w->listeners, one, NULL), 0);
    assert_places(w, places);
    assert_mute(w, dial_tcp(first));
    assert_int_equal(listeners_set_address(w->listeners, two, NULL), 0);
    assert_int_equal(dial_tcp(first), -ECONNREFUSED);
    assert_mute(w, dial_tcp(second));
    assert_int_equal(listeners_set_address(w->listeners, one, NULL), 0); /* It is free again. */
    assert_int_equal(listeners_set_address(w->listeners, "", NULL), 0);
    assert_int_equal(dial_tcp(first), -ECONNREFUSED);
    assert_places(w, "");
}

/* ---- sockets from systemd ---- */

/* Three descriptors in a row, as systemd passes them: a Unix socket at 'path', one over TCP, and 'foreign'.
 */
static int pass(const char *path, int foreign, unsigned *ret_port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int local = http_listen_unix(path, HTTP_NO_GROUP, false, NULL);
    int first = 200;

    assert_int_equal(bind(tcp, (struct sockaddr *)&addr, size), 0);
    assert_int_equal(listen(tcp, 5), 0);
    assert_int_equal(getsockname(tcp, (struct sockaddr *)&addr, &size), 0);
    *ret_port = ntohs(addr.sin_port);
    assert_int_equal(dup2(local, first), first);
    assert_int_equal(dup2(tcp, first + 1), first + 1);
    assert_int_equal(dup2(foreign, first + 2), first + 2);
    close(local);
    close(tcp);
    close(foreign);
    return first;
}

static char *const names[] = {(char *)"fleetd.socket", (char *)"remote", (char *)"odd"};

static void test_passed_sockets(void **state)
{
    struct world *w = *state;
    unsigned port;
    int first = pass(w->one, open("/dev/null", O_RDONLY | O_CLOEXEC), &port);
    _cleanup_(freep) char *places = xasprintf("%s 127.0.0.1:%u %s ", w->one, port, w->two);

    listeners_take_passed(w->listeners, first, 3, names);
    assert_served(w, dial_unix(w->one));
    assert_served(w, dial_tcp(port));
    assert_true(
        was_logged("The socket \"odd\" that systemd passed cannot serve the API and is left out: it is "
                   "neither a Unix nor a TCP socket"));
    assert_int_equal(fcntl(first + 2, F_GETFD), -1);
    assert_int_equal(logged.count, 3);
    /* Besides them, our own. */
    assert_int_equal(listeners_set_socket(w->listeners, w->two, HTTP_NO_GROUP, false, NULL), 0);
    assert_served(w, dial_unix(w->two));
    assert_places(w, places);
}

static void test_a_passed_socket_is_not_opened_twice(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *link = xasprintf("%s/link", w->dir),
                          *roundabout = xasprintf("%s/link/one", w->dir);
    unsigned port;
    int first = pass(w->one, open("/dev/null", O_RDONLY | O_CLOEXEC), &port);
    struct stat before, after;

    listeners_take_passed(w->listeners, first, 3, names);
    assert_int_equal(stat(w->one, &before), 0);
    assert_int_equal(listeners_set_socket(w->listeners, w->one, getegid(), false, NULL), 0);
    assert_int_equal(symlink(w->dir, link), 0); /* As /var/run is /run. */
    assert_int_equal(listeners_set_socket(w->listeners, roundabout, getegid(), false, NULL), 0);
    assert_int_equal(stat(w->one, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_served(w, dial_unix(w->one));
    /* Taken out of the configuration it is still systemd's, and served. */
    assert_int_equal(listeners_set_socket(w->listeners, "", HTTP_NO_GROUP, false, NULL), 0);
    assert_served(w, dial_unix(roundabout));
    unlink(link);
}

static void test_passed_tcp_is_with_tls(void **state)
{
    struct world *w = *state;
    int datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned port;

    listeners_take_passed(w->listeners, pass(w->one, datagram, &port), 3, names);
    assert_mute(w, dial_tcp(port));
    assert_served(w, dial_unix(w->one));
    assert_true(was_logged("The socket \"odd\" that systemd passed cannot serve"));
}

#define TEST(f)   cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SECURE(f) cmocka_unit_test_setup_teardown(f, setup_secure, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_socket_moves),
        TEST(test_the_same_again_keeps_the_socket),
        TEST(test_a_socket_that_cannot_be_leaves_the_old_one),
        TEST(test_a_removed_file_is_made_again),
        TEST(test_a_file_that_is_not_ours_any_more_stays),
        TEST(test_the_address_moves),
        TEST(test_an_address_that_cannot_be_leaves_the_old_one),
        SECURE(test_tcp_is_with_tls),
        TEST(test_passed_sockets),
        TEST(test_a_passed_socket_is_not_opened_twice),
        SECURE(test_passed_tcp_is_with_tls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
