/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/prober.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/str.h"
#include "raftstore/address.h"

/* Keep-alives, in seconds: after this much silence, how often, and how many may be lost (tcp(7)). */
#define KEEPALIVE_S       1
#define KEEPALIVES_LOST   3
#define ACKNOWLEDGED_MS   2500u /* The last one is no older than this: the peer is there. */
#define CONNECT_TICKS_MAX 3u    /* Then it is tried anew: a SYN that was lost is repeated ever more slowly. */

struct probe {
    struct prober *prober;
    struct probe *prev, *next;
    char *machine_id, *address;
    bool wanted, connected, closing, resolving;
    unsigned refs;  /* The handle, and the resolver, which cannot always be cancelled. */
    unsigned ticks; /* Since it began to connect. */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
};

struct prober {
    uv_loop_t *loop;
    void (*on_answer)(const char *machine_id, bool accepted, void *data);
    void *data;
    struct probe *probes;
    void (*done)(void *data);
    void *done_data;
    bool closing;
};

struct prober *prober_new(uv_loop_t *loop,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data)
{
    struct prober *prober = NEW0(struct prober);

    *prober = (struct prober){.loop = loop, .on_answer = on_answer, .data = data};
    return prober;
}

/* ---- the end of a probe ---- */

static void prober_finish(struct prober *prober)
{
    if (!prober->closing || prober->probes != NULL)
        return;
    prober->done(prober->done_data);
    free(prober);
}

static void probe_unref(struct probe *probe)
{
    struct prober *prober = probe->prober;

    if (--probe->refs > 0)
        return;
    DL_DELETE(prober->probes, probe);
    free(probe->machine_id);
    free(probe->address);
    free(probe);
    prober_finish(prober);
}

static void on_closed(uv_handle_t *handle)
{
    probe_unref(handle->data);
}

/* It ends in a later turn of the loop. */
static void probe_close(struct probe *probe)
{
    if (probe->closing)
        return;
    probe->closing = true;
    if (probe->resolving)
        uv_cancel((uv_req_t *)&probe->resolve);
    uv_close((uv_handle_t *)&probe->tcp, on_closed);
}

/* ---- connecting ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    static char nobody_reads[256];

    *ret = uv_buf_init(nobody_reads, sizeof nobody_reads);
}

/* Whatever it says, it is not asked for; only that it is over counts. */
static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    if (count < 0)
        probe_close(stream->data);
}

static void keep_alive(struct probe *probe)
{
    const int interval = KEEPALIVE_S, lost = KEEPALIVES_LOST;
    uv_os_fd_t fd;

    uv_tcp_keepalive(&probe->tcp, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&probe->tcp, &fd) < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &lost, sizeof lost);
}

static void tell(const struct probe *probe, bool accepted)
{
    probe->prober->on_answer(probe->machine_id, accepted, probe->prober->data);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct probe *probe = request->data;

    if (probe->closing)
        return;
    if (status == UV_ECONNREFUSED)
        tell(probe, false);
    if (status < 0 || uv_read_start((uv_stream_t *)&probe->tcp, on_alloc, on_read) < 0) {
        probe_close(probe);
        return;
    }
    keep_alive(probe);
    probe->connected = true;
    tell(probe, true);
}

static void connect_to(struct probe *probe, const struct sockaddr *address)
{
    if (uv_tcp_connect(&probe->connect, &probe->tcp, address, on_connected) < 0)
        probe_close(probe);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct probe *probe = request->data;

    probe->resolving = false;
    if (!probe->closing && status < 0)
        probe_close(probe);
    else if (!probe->closing)
        connect_to(probe, addresses->ai_addr);
    uv_freeaddrinfo(addresses);
    probe_unref(probe);
}

static void probe_resolve(struct probe *probe, const struct address *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char service[8];

    snprintf(service, sizeof service, "%d", address->port);
    if (uv_getaddrinfo(probe->prober->loop, &probe->resolve, on_resolved, address->host, service, &hints) <
        0) {
        probe_close(probe);
        return;
    }
    probe->resolving = true;
    probe->refs++;
}

static void probe_start(struct prober *prober, const struct prober_target *target)
{
    struct probe *probe = NEW0(struct probe);
    struct sockaddr_storage literal;
    struct address address;

    probe->prober = prober;
    probe->machine_id = xstrdup(target->machine_id);
    probe->address = xstrdup(target->address);
    probe->wanted = true;
    probe->refs = 1;
    uv_tcp_init(prober->loop, &probe->tcp);
    probe->tcp.data = probe->connect.data = probe->resolve.data = probe;
    DL_APPEND(prober->probes, probe);
    if (address_parse(target->address, &address, NULL) < 0)
        probe_close(probe);
    else if (uv_ip4_addr(address.host, address.port, (struct sockaddr_in *)&literal) == 0 ||
             uv_ip6_addr(address.host, address.port, (struct sockaddr_in6 *)&literal) == 0)
        connect_to(probe, (const struct sockaddr *)&literal);
    else
        probe_resolve(probe, &address);
}

/* ---- asking ---- */

/* How long ago the peer's kernel acknowledged anything; UINT32_MAX where this kernel does not say. */
static uint32_t acknowledged_ms(const struct probe *probe)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    uv_os_fd_t fd;

    if (uv_fileno((const uv_handle_t *)&probe->tcp, &fd) < 0 ||
        getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 || info.tcpi_state != TCP_ESTABLISHED)
        return UINT32_MAX;
    return info.tcpi_last_ack_recv;
}

static void probe_tick(struct probe *probe)
{
    if (probe->connected) {
        if (acknowledged_ms(probe) <= ACKNOWLEDGED_MS)
            tell(probe, true);
    } else if (++probe->ticks > CONNECT_TICKS_MAX) {
        probe_close(probe);
    }
}

static struct probe *find_probe(const struct prober *prober, const struct prober_target *target)
{
    struct probe *probe;

    DL_FOREACH (prober->probes, probe)
        if (!probe->closing && streq(probe->machine_id, target->machine_id) &&
            streq(probe->address, target->address))
            return probe;
    return NULL;
}

void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count)
{
    struct probe *probe;

    assert(!prober->closing);
    DL_FOREACH (prober->probes, probe)
        probe->wanted = false;
    for (size_t i = 0; i < count; i++) {
        probe = find_probe(prober, &targets[i]);
        if (probe == NULL) {
            probe_start(prober, &targets[i]);
            continue;
        }
        probe->wanted = true;
        probe_tick(probe);
    }
    DL_FOREACH (prober->probes, probe)
        if (!probe->wanted)
            probe_close(probe);
}

void prober_close(struct prober *prober, void (*done)(void *data), void *data)
{
    struct probe *probe, *next;

    prober->closing = true;
    prober->done = done;
    prober->done_data = data;
    DL_FOREACH_SAFE (prober->probes, probe, next)
        probe_close(probe);
    prober_finish(prober); /* At once, if there is none. */
}
