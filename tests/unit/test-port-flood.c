/* SPDX-License-Identifier: Apache-2.0 */
/* A crowd at the cluster port: thousands of connections that never become one of ours, from another thread,
 * while two daemons talk to each other as ever. */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "tests/unit/odd-client.h"
#include "tests/unit/port-world.h"
#include "tests/unit/under-valgrind.h"

#define CROWD      2000u
#define AT_A_TIME  200u
#define PINGS      2000u
#define MEMORY_MAX (8u * 1024 * 1024)

/* ---- the crowd ---- */

struct crowd {
    unsigned port;
    uint8_t hello[1024]; /* A whole ClientHello, as good as any. */
    size_t hello_size;
    int fds[AT_A_TIME]; /* The oldest goes when a new one comes. */
    atomic_uint came;
    atomic_bool done;
    uv_thread_t thread;
};

static ssize_t on_push(gnutls_transport_ptr_t ptr, const void *bytes, size_t size)
{
    struct crowd *crowd = ptr;

    assert_true(crowd->hello_size + size <= sizeof(crowd->hello));
    memcpy(crowd->hello + crowd->hello_size, bytes, size);
    crowd->hello_size += size;
    return (ssize_t)size;
}

static ssize_t on_pull(gnutls_transport_ptr_t ptr, void *to, size_t size)
{
    errno = EAGAIN;
    return -1;
}

static void learn_hello(struct crowd *crowd)
{
    const gnutls_datum_t protocol = {.data = (unsigned char *)"fleet-session/1", .size = 15};
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;

    gnutls_certificate_allocate_credentials(&credentials);
    gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
    gnutls_priority_set_direct(session, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_alpn_set_protocols(session, &protocol, 1, 0);
    gnutls_transport_set_ptr(session, crowd);
    gnutls_transport_set_push_function(session, on_push);
    gnutls_transport_set_pull_function(session, on_pull);
    assert_int_equal(gnutls_handshake(session), GNUTLS_E_AGAIN);
    assert_true(crowd->hello_size > 100);
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
}

static void say_something(struct crowd *crowd, int fd, unsigned n)
{
    static const char rubbish[] = "\x16\x03\x01\x40\0 and then nothing that makes sense";

    switch (n % 6) {
    case 0: break;                                                                    /* Silent. */
    case 1: (void)send(fd, crowd->hello, crowd->hello_size / 2, MSG_NOSIGNAL); break; /* Half a word. */
    case 2: (void)send(fd, crowd->hello, crowd->hello_size, MSG_NOSIGNAL); break; /* Has us work, and goes. */
    case 3: (void)send(fd, rubbish, sizeof(rubbish), MSG_NOSIGNAL); break;
    case 4: (void)send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL); break;
    case 5: (void)send(fd, "\0\0\0\x08rubbish!", 12, MSG_NOSIGNAL); break; /* Plain, in our frames. */
    }
}

static void run(void *data)
{
    struct crowd *crowd = data;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(crowd->port)},
                       own = {.sin_family = AF_INET};

    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    inet_pton(AF_INET, "127.0.0.2", &own.sin_addr); /* They all come from one place. */
    for (unsigned n = 0; n < CROWD; n++) {
        int *fd = &crowd->fds[n % AT_A_TIME];

        if (*fd >= 0)
            close(*fd);
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)bind(*fd, (struct sockaddr *)&own, sizeof(own));
        if (connect(*fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            say_something(crowd, *fd, n);
            atomic_fetch_add(&crowd->came, 1);
        }
    }
    for (unsigned i = 0; i < AT_A_TIME; i++)
        close(crowd->fds[i]);
    atomic_store(&crowd->done, true);
}

static void crowd_start(struct crowd *crowd, struct fixture *f)
{
    crowd->port = server_port(f);
    learn_hello(crowd);
    for (unsigned i = 0; i < AT_A_TIME; i++)
        crowd->fds[i] = -1;
    assert_int_equal(uv_thread_create(&crowd->thread, run, crowd), 0);
}

/* ---- the two who talk ---- */

struct latency {
    uint64_t *items_us;
    size_t count, capacity;
};

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t worst_us(struct latency *latency, unsigned of_hundred)
{
    qsort(latency->items_us, latency->count, sizeof(uint64_t), compare);
    return latency->items_us[(latency->count - 1) * of_hundred / 100];
}

static void ping(struct fixture *f, struct end *end, struct latency *latency)
{
    unsigned before = end->messages;
    uint64_t begin = uv_hrtime();

    assert_int_equal(conn_send(end->conn, "are you still there?", 20), 0);
    WAIT(f, end->messages > before);
    GROW(latency->items_us, latency->capacity, latency->count + 1);
    latency->items_us[latency->count++] = (uv_hrtime() - begin) / 1000;
}

static void test_crowd(void **state)
{
    struct fixture *f = *state;
    struct latency quiet = {0}, loud = {0};
    struct crowd *crowd = NEW0(struct crowd);
    struct end end = {0}, late = {0};
    size_t memory;

    dial(f, &end);
    WAIT(f, end.opened && f->accepted_count == 1);
    f->accepted[0].echo = true;
    for (unsigned i = 0; i < PINGS; i++)
        ping(f, &end, &quiet);
    GROW(loud.items_us, loud.capacity, 1000000u);
    memory = mallinfo2().uordblks;

    crowd_start(crowd, f);
    while (!atomic_load(&crowd->done)) {
        ping(f, &end, &loud);
        if (late.conn == NULL && late.opened == 0 && atomic_load(&crowd->came) > CROWD / 2)
            dial(f, &late); /* One of ours gets through it all. */
    }
    uv_thread_join(&crowd->thread);
    WAIT(f, late.opened || late.closed);
    assert_string_equal(late.reason, "");
    print_message("%zu pings among %u connections: half of them within %ju us (quiet %ju), 99 of 100 within "
                  "%ju us (%ju), "
                  "all within %ju us (%ju)\n",
                  loud.count, CROWD, (uintmax_t)worst_us(&loud, 50), (uintmax_t)worst_us(&quiet, 50),
                  (uintmax_t)worst_us(&loud, 99), (uintmax_t)worst_us(&quiet, 99),
                  (uintmax_t)worst_us(&loud, 100), (uintmax_t)worst_us(&quiet, 100));
    assert_true(loud.count > 50);
    if (!RUNNING_ON_VALGRIND) { /* Which lets one thread run at a time, and does not know which one gives way.
                                 */
        assert_true(worst_us(&loud, 50) < 10 * worst_us(&quiet, 50) + 5000);
        /* A tenth of the time after which a silent host is suspected: this machine may have other things to
         * do. */
        assert_true(worst_us(&loud, 100) < 50 * worst_us(&quiet, 100) + 500000);
    }
    assert_true(strangers_logged <= 2);
    assert_int_equal(f->accepted_count, 2);
    assert_true(mallinfo2().uordblks < memory + MEMORY_MAX);
    conn_close(end.conn, "done");
    conn_close(late.conn, "done");
    WAIT(f, end.closed && late.closed);
    free(quiet.items_us);
    free(loud.items_us);
    free(crowd);
}

/* ---- what a handshake takes of the loop's time ---- */

static uint64_t cpu_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The client's half is in a thread of its own, the server's in the port's: so the loop's part is small
 * against the rest. If the server's half were on the loop, it would be as much as the other. */
static void test_loop_time(void **state)
{
    enum { TIMES = 100 };
    struct fixture *f = *state;
    uint64_t loop_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID), all_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);

    for (unsigned i = 0; i < TIMES; i++) {
        struct odd_client odd = {
            .port = server_port(f), .protocol = "fleet-join/1", .bytes = "\0\0\0\0", .size = 4};

        odd_client_start(&odd, &f->loop);
        WAIT(f, odd.ended);
        odd_client_join(&odd);
        assert_true(odd.shaken);
    }
    loop_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID) - loop_ns;
    all_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - all_ns;
    print_message("a handshake takes %ju us, %ju us of them on the loop\n", (uintmax_t)all_ns / TIMES / 1000,
                  (uintmax_t)loop_ns / TIMES / 1000);
    assert_true(loop_ns * 3 < all_ns);
}

static int end_world(void **state)
{
    world_done();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_crowd, setup_secure, teardown),
        cmocka_unit_test_setup_teardown(test_loop_time, setup_secure, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, end_world);
}
