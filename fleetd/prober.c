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
#include "raftstore/identify.h"

/* Keep-alives, in seconds: after this much silence, how often, and how many may be lost (tcp(7)): the most
 * that there may be, so that no trouble of the network ends what another machine would have ended. */
#define KEEPALIVE_S       1
#define KEEPALIVES_LOST   127
#define ACKNOWLEDGED_MS   2500u /* The last one is no older than this: the peer is there. */
#define CONNECT_TICKS_MAX 3u    /* Then it is tried anew: a SYN that was lost is repeated ever more slowly. */

/* A machine that is asked after. */
struct subject {
    struct subject *prev, *next;
    char *machine_id, *address;
    uint64_t server_id;
    bool wanted;
    bool doubtful;       /* What is at its address may be another machine, until it says otherwise. */
    struct probe *probe; /* These two: NULL: none is under way. */
    struct inquiry *inquiry;
};

/* Who is it that is there? */
struct inquiry {
    struct prober *prober;
    struct subject *subject; /* NULL: nobody wants to know any more. */
    struct identify *identify;
};

/* One connection. */
struct probe {
    struct prober *prober;
    struct probe *prev, *next;
    struct subject *subject; /* NULL: closing. */
    bool connected, resolving;
    unsigned refs;  /* The handle, and the resolver, which cannot always be cancelled. */
    unsigned ticks; /* Since it began to connect. */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
};

struct prober {
    uv_loop_t *loop;
    struct port *port;
    void (*on_answer)(const char *machine_id, bool accepted, void *data);
    void *data;
    struct subject *subjects;
    struct probe *probes; /* Also those that are closing. */
    unsigned inquiries;
    void (*done)(void *data);
    void *done_data;
    bool closing;
};

struct prober *prober_new(uv_loop_t *loop, struct port *port,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data)
{
    struct prober *prober = NEW0(struct prober);

    *prober = (struct prober){.loop = loop, .port = port, .on_answer = on_answer, .data = data};
    return prober;
}

/* ---- the end of a probe ---- */

static void prober_finish(struct prober *prober)
{
    if (!prober->closing || prober->probes != NULL || prober->inquiries > 0)
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
    if (probe->subject == NULL)
        return;
    probe->subject->probe = NULL;
    probe->subject = NULL;
    if (probe->resolving)
        uv_cancel((uv_req_t *)&probe->resolve);
    uv_close((uv_handle_t *)&probe->tcp, on_closed);
}

static void tell(const struct prober *prober, const struct subject *subject, bool accepted)
{
    prober->on_answer(subject->machine_id, accepted, prober->data);
}

/* ---- asking who it is ---- */

static void on_identified(enum identify_result result, const uint8_t *boot_id, void *data)
{
    struct inquiry *inquiry = data;
    struct prober *prober = inquiry->prober;
    struct subject *subject = inquiry->subject;

    if (subject != NULL) {
        subject->inquiry = NULL;
        if (result != IDENTIFY_NOBODY)
            subject->doubtful = result == IDENTIFY_OTHER;
        if (result != IDENTIFY_NOBODY && !subject->doubtful)
            tell(prober, subject, true);
    }
    prober->inquiries--;
    free(inquiry);
    prober_finish(prober);
}

static void inquire(struct prober *prober, struct subject *subject)
{
    if (subject->inquiry != NULL)
        return;
    subject->inquiry = NEW0(struct inquiry);
    *subject->inquiry = (struct inquiry){.prober = prober, .subject = subject};
    prober->inquiries++;
    subject->inquiry->identify = identify_start(prober->port, subject->address, subject->server_id,
                                                subject->machine_id, on_identified, subject->inquiry);
}

/* ---- connecting ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    static char nobody_reads[256];

    *ret = uv_buf_init(nobody_reads, sizeof nobody_reads);
}

/* It has ended, or something speaks that was not spoken to: no fleetd does. One that lives hangs up, too,
 * when nothing is said for long; but it says who it is when it is asked. */
static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct probe *probe = stream->data;

    if (count == 0 || probe->subject == NULL)
        return;
    probe->subject->doubtful = true;
    probe_close(probe);
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

static void on_connected(uv_connect_t *request, int status)
{
    struct probe *probe = request->data;

    if (probe->subject == NULL)
        return;
    if (status == UV_ECONNREFUSED)
        tell(probe->prober, probe->subject, false);
    if (status < 0 || uv_read_start((uv_stream_t *)&probe->tcp, on_alloc, on_read) < 0) {
        probe_close(probe);
        return;
    }
    keep_alive(probe);
    probe->connected = true;
    if (!probe->subject->doubtful)
        tell(probe->prober, probe->subject, true);
    inquire(probe->prober, probe->subject);
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
    if (probe->subject != NULL && status < 0)
        probe_close(probe);
    else if (probe->subject != NULL)
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

static void probe_start(struct prober *prober, struct subject *subject)
{
    struct probe *probe = NEW0(struct probe);
    struct sockaddr_storage literal;
    struct address address;

    probe->prober = prober;
    probe->subject = subject;
    probe->refs = 1;
    subject->probe = probe;
    uv_tcp_init(prober->loop, &probe->tcp);
    probe->tcp.data = probe->connect.data = probe->resolve.data = probe;
    DL_APPEND(prober->probes, probe);
    if (address_parse(subject->address, &address, NULL) < 0)
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
        if (!probe->subject->doubtful && acknowledged_ms(probe) <= ACKNOWLEDGED_MS)
            tell(probe->prober, probe->subject, true);
    } else if (++probe->ticks > CONNECT_TICKS_MAX) {
        probe_close(probe);
    }
}

static struct subject *find_subject(const struct prober *prober, const struct prober_target *target)
{
    struct subject *subject;

    DL_FOREACH (prober->subjects, subject)
        if (streq(subject->machine_id, target->machine_id) && streq(subject->address, target->address) &&
            subject->server_id == target->server_id)
            return subject;
    return NULL;
}

static struct subject *subject_new(struct prober *prober, const struct prober_target *target)
{
    struct subject *subject = NEW0(struct subject);

    subject->machine_id = xstrdup(target->machine_id);
    subject->address = xstrdup(target->address);
    subject->server_id = target->server_id;
    DL_APPEND(prober->subjects, subject);
    return subject;
}

static void let_go(struct prober *prober)
{
    struct subject *subject, *next;

    DL_FOREACH_SAFE (prober->subjects, subject, next) {
        if (subject->wanted)
            continue;
        if (subject->probe != NULL)
            probe_close(subject->probe);
        if (subject->inquiry != NULL) {
            identify_cancel(subject->inquiry->identify);
            subject->inquiry->subject = NULL;
        }
        DL_DELETE(prober->subjects, subject);
        free(subject->machine_id);
        free(subject->address);
        free(subject);
    }
}

void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count)
{
    struct subject *subject;

    assert(!prober->closing);
    DL_FOREACH (prober->subjects, subject)
        subject->wanted = false;
    for (size_t i = 0; i < count; i++) {
        subject = find_subject(prober, &targets[i]);
        if (subject == NULL)
            subject = subject_new(prober, &targets[i]);
        subject->wanted = true;
        if (subject->probe != NULL)
            probe_tick(subject->probe);
        else
            probe_start(prober, subject);
        if (subject->doubtful)
            inquire(prober, subject);
    }
    let_go(prober);
}

void prober_close(struct prober *prober, void (*done)(void *data), void *data)
{
    struct subject *subject;

    prober->closing = true;
    prober->done = done;
    prober->done_data = data;
    DL_FOREACH (prober->subjects, subject)
        subject->wanted = false;
    let_go(prober);
    prober_finish(prober); /* At once, if there is none. */
}
