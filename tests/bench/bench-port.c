/* SPDX-License-Identifier: Apache-2.0 */
/* What TLS costs on the cluster port: throughput over loopback, plain and with TLS, and what a handshake
 * takes of the loop's own time. Both ends are in this process, on one loop; so a real daemon has twice as
 * much. For people to look at; nothing is asserted. */
#include <config.h>

#include <inttypes.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "tests/unit/port-world.h"

#define BYTES_PER_RUN ((size_t)1024 * 1024 * 1024)
#define IN_FLIGHT     ((size_t)8 * 1024 * 1024)
#define CONNECTIONS   500u
#define SESSIONS      200u

static uint64_t cpu_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t bytes_received;

static void on_bytes(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
    bytes_received += size;
}

static void on_end(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    *(unsigned *)data += 1;
}

static void on_begin(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    *(unsigned *)data += 1;
}

static const struct conn_callbacks callbacks = {
    .on_open = on_begin, .on_message = on_bytes, .on_close = on_end};
static unsigned accepted;

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    *ret = &callbacks;
    *ret_data = &accepted;
    return 0;
}

static struct port *server_of(uv_loop_t *loop)
{
    const struct port_callbacks port_callbacks = {.on_accept = on_accept};
    const struct port_identity identity = identity_of(1);
    struct port *port = port_new(loop, &identity, &port_callbacks, NULL);

    if (port_listen(port, "127.0.0.1:0", NULL) < 0)
        abort();
    return port;
}

static double throughput(struct port *server, struct port *client, uv_loop_t *loop, size_t frame)
{
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, frame);
    unsigned state = 0;
    size_t sent = 0;
    struct conn *conn =
        port_dial(client, port_listening(server), FLEET__PURPOSE__PURPOSE_SESSION, 1, &callbacks, &state);
    uint64_t begin;

    while (state == 0)
        uv_run(loop, UV_RUN_ONCE);
    bytes_received = 0;
    begin = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
    while (bytes_received < BYTES_PER_RUN) {
        for (size_t n = 0; n < 1000 && sent - bytes_received < IN_FLIGHT && sent < BYTES_PER_RUN; n++) {
            if (conn_send(conn, bytes, frame) < 0)
                abort();
            sent += frame;
        }
        uv_run(loop, UV_RUN_ONCE);
    }
    begin = cpu_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
    conn_close(conn, "done");
    while (state < 2)
        uv_run(loop, UV_RUN_ONCE);
    return (double)BYTES_PER_RUN * 1000 /
           (double)begin; /* MB/s of the processor's time: others may use it too. */
}

/* One after the other. Returns the loop's own time for each, both ends together, in microseconds. */
static double connect_many(struct port *server, struct port *client, uv_loop_t *loop, double *ret_all,
                           double *ret_ms)
{
    uint64_t wall = uv_hrtime(), own = cpu_ns(CLOCK_THREAD_CPUTIME_ID),
             all = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);

    for (unsigned i = 0; i < CONNECTIONS; i++) {
        unsigned state = 0;
        struct conn *conn =
            port_dial(client, port_listening(server), FLEET__PURPOSE__PURPOSE_SESSION, 1, &callbacks, &state);

        while (state == 0)
            uv_run(loop, UV_RUN_ONCE);
        conn_close(conn, "done");
        while (state < 2)
            uv_run(loop, UV_RUN_ONCE);
    }
    *ret_ms = (double)(uv_hrtime() - wall) / 1e6 / CONNECTIONS;
    *ret_all = (double)(cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - all) / 1e3 / CONNECTIONS;
    return (double)(cpu_ns(CLOCK_THREAD_CPUTIME_ID) - own) / 1e3 / CONNECTIONS;
}

static double memory_per_session(struct port *server, struct port *client, uv_loop_t *loop)
{
    struct conn *conns[SESSIONS];
    size_t before = mallinfo2().uordblks;
    unsigned state = 0;
    double each;

    for (unsigned i = 0; i < SESSIONS; i++) {
        conns[i] =
            port_dial(client, port_listening(server), FLEET__PURPOSE__PURPOSE_SESSION, 1, &callbacks, &state);
        while (state <= i)
            uv_run(loop, UV_RUN_ONCE);
    }
    each = (double)(mallinfo2().uordblks - before) / 2 / SESSIONS / 1024;
    for (unsigned i = 0; i < SESSIONS; i++)
        conn_close(conns[i], "done");
    while (state < 2 * SESSIONS)
        uv_run(loop, UV_RUN_ONCE);
    return each;
}

static void on_closed(void *data)
{
    *(unsigned *)data += 1;
}

int main(void)
{
    static const size_t frames[] = {FRAME_MAX, 64u * 1024, 1024, 100};
    double plain[ARRAY_SIZE(frames)] = {0};
    const struct port_callbacks port_callbacks = {.on_accept = on_accept};
    const struct port_identity identity = identity_of(2);

    for (unsigned secure = 0; secure < 2; secure++) {
        double all, ms, own;
        unsigned closed = 0;
        struct port *server, *client;
        uv_loop_t loop;

        mallopt(M_ARENA_MAX, 1); /* So that all of it is counted. */
        uv_loop_init(&loop);
        server = server_of(&loop);
        client = port_new(&loop, &identity, &port_callbacks, NULL);
        if (secure) {
            secure_port(server, CLUSTER_OURS, 1);
            secure_port(client, CLUSTER_OURS, 2);
        }
        printf("%s\n", secure ? "TLS" : "plain");
        for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
            double rate = throughput(server, client, &loop, frames[i]);

            if (secure)
                printf("  frames of %7zu bytes  %7.0f MB/s  %.2f of plain\n", frames[i], rate,
                       rate / plain[i]);
            else
                printf("  frames of %7zu bytes  %7.0f MB/s\n", frames[i], plain[i] = rate);
        }
        own = connect_many(server, client, &loop, &all, &ms);
        printf("  a connection           %7.3f ms, of the loop %.0f us (both ends), of the process %.0f us\n",
               ms, own, all);
        printf("  memory of an end       %7.1f KiB\n", memory_per_session(server, client, &loop));
        port_close(server, on_closed, &closed);
        port_close(client, on_closed, &closed);
        while (closed < 2)
            uv_run(&loop, UV_RUN_ONCE);
        uv_run(&loop, UV_RUN_DEFAULT);
        if (uv_loop_close(&loop) != 0)
            abort();
    }
    world_done();
    return 0;
}
