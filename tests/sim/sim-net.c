/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of raftstore/port.h: streams between hosts. Each direction of each pair of hosts is a link
 * that can be cut. As TCP does, a stream neither loses nor reorders what it carries: over a bad link it is
 * late, and after USER_TIMEOUT_MS of nothing it breaks, for the sender only. Whoever dies with its kernel
 * running resets its streams; whoever loses its power says nothing. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/prober.h"
#include "pki/pki.h"
#include "raftstore/limits.h"
#include "raftstore/port.h"
#include "tests/sim/sim.h"

#define USER_TIMEOUT_MS 10000u
#define DIAL_TIMEOUT_MS 5000u
#define RESEND_MS_MIN   200u
#define RESEND_MS_MAX   3200u

enum frame_kind { FRAME_HELLO, FRAME_WELCOME, FRAME_REFUSAL, FRAME_DATA, FRAME_END };

struct frame {
    enum frame_kind kind;
    uint8_t *bytes;
    size_t size;
    char *text;   /* END, REFUSAL: why; */
    char *leader; /* REFUSAL: its address. */
    uint64_t due_ms;
    struct conn *to;
    struct frame *next;
};

struct conn {
    struct sim_host *host;
    uint64_t life;
    struct port *port;
    struct conn *peer;   /* NULL: it does not know us (any more). */
    struct sim_host *at; /* The other side's. */
    const struct conn_callbacks *callbacks;
    void *data;
    bool dialled, open, closing, closed, left; /* 'left': its goodbye has arrived. */
    Fleet__Purpose purpose;
    char *reason;
    Fleet__Welcome *refusal;
    struct frame *out, *out_last; /* What is on its way to the peer. */
    bool busy;                    /* An event stands for the first of them. */
    uint64_t stalled_ms, resend_ms;
    struct conn *next; /* In 'conns'. */
};

struct port {
    struct sim_host *host;
    struct port_identity identity;
    struct port_callbacks callbacks;
    void *data;
    bool listening;
    void (*done)(void *data);
    void *done_data;
};

static struct conn *conns; /* All that ever were: they are freed at the end. */
static bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
static uint64_t delays_ms[SIM_HOSTS_MAX];
static unsigned losses[SIM_HOSTS_MAX];
static uint64_t heard_ms[SIM_HOSTS_MAX][SIM_HOSTS_MAX], gap_ms[SIM_HOSTS_MAX][SIM_HOSTS_MAX],
    pause_ms[SIM_HOSTS_MAX][SIM_HOSTS_MAX];

/* ---- links ---- */

void sim_link_set(unsigned from, unsigned to, bool up)
{
    if (from != to)
        cut[from][to] = !up;
}

bool sim_link_up(unsigned from, unsigned to)
{
    return !cut[from][to];
}

void sim_link_heal_all(void)
{
    memset(cut, 0, sizeof cut);
    memset(delays_ms, 0, sizeof delays_ms);
    memset(losses, 0, sizeof losses);
}

bool sim_reach(const struct sim_host *from, const struct sim_host *to)
{
    return sim_fleetd_acts(from) && sim_fleetd_acts(to) && sim_link_up(from->index, to->index) &&
           sim_link_up(to->index, from->index);
}

void sim_net_set_delay(unsigned host, uint64_t ms)
{
    delays_ms[host] = ms;
}

void sim_net_set_loss(unsigned host, unsigned one_in)
{
    losses[host] = one_in;
}

uint64_t sim_net_heard_ms(unsigned at, unsigned from)
{
    return heard_ms[at][from];
}

uint64_t sim_net_gap_ms(unsigned at, unsigned from)
{
    return gap_ms[at][from];
}

uint64_t sim_net_pause_ms(unsigned at, unsigned from)
{
    return pause_ms[at][from];
}

void sim_net_begin(void)
{
    conns = NULL;
    sim_link_heal_all();
    memset(heard_ms, 0, sizeof heard_ms);
    memset(gap_ms, 0, sizeof gap_ms);
    memset(pause_ms, 0, sizeof pause_ms);
}

/* ---- ends ---- */

static void free_frame(struct frame *frame)
{
    free(frame->bytes);
    free(frame->text);
    free(frame->leader);
    free(frame);
}

static void drop_out(struct conn *conn)
{
    while (conn->out != NULL) {
        struct frame *frame = conn->out;

        conn->out = frame->next;
        free_frame(frame);
    }
}

void sim_net_end(void)
{
    while (conns != NULL) {
        struct conn *conn = conns;

        conns = conn->next;
        drop_out(conn);
        free(conn->reason);
        if (conn->refusal != NULL)
            fleet__welcome__free_unpacked(conn->refusal, NULL);
        free(conn);
    }
}

static void tell_closed(void *data)
{
    struct conn *conn = data;

    if (conn->closed)
        return;
    conn->closed = true;
    conn->open = false;
    if (conn->callbacks != NULL)
        conn->callbacks->on_close(conn, conn->reason, conn->refusal, conn->data);
}

/* This side is through with it; its owner hears so at the end of the turn. */
static void end(struct conn *conn, const char *reason)
{
    if (conn->closing)
        return;
    conn->closing = true;
    conn->reason = xstrdup(reason);
    sim_defer(conn->host, tell_closed, conn);
}

static void on_broken(void *data, bool lost)
{
    if (!lost)
        end(data, "the connection has broken");
}

/* The kernel on 'conn's own host finds out, and tells fleetd. */
static void break_later(struct conn *conn, uint64_t ms)
{
    if (!conn->closing && conn->host->lives == conn->life)
        sim_after(ms, SIM_FLEETD, conn->host, on_broken, conn);
}

/* ---- streams ---- */

static void pump(struct conn *conn, uint64_t ms);
static void on_frame(void *data, bool lost);

static uint64_t latency_ms(const struct conn *conn)
{
    unsigned from = conn->host->index, loss = losses[from];
    uint64_t ms = conn->host == conn->at ? 0 : 1 + sim_random(3);

    if (conn->host == conn->at)
        return ms;
    if (delays_ms[from] > 0)
        ms += sim_random(delays_ms[from]);
    for (uint64_t again = RESEND_MS_MIN; loss > 0 && sim_random(loss) == 0 && again < RESEND_MS_MAX;
         again *= 2)
        ms += again;
    return ms;
}

static void stall(struct conn *conn)
{
    if (conn->stalled_ms == 0) {
        conn->stalled_ms = sim.now_ms;
        conn->resend_ms = RESEND_MS_MIN;
    }
    if (sim.now_ms - conn->stalled_ms < USER_TIMEOUT_MS) {
        pump(conn, conn->resend_ms);
        conn->resend_ms = 2 * conn->resend_ms < RESEND_MS_MAX ? 2 * conn->resend_ms : RESEND_MS_MAX;
        return;
    }
    drop_out(conn);
    if (conn->peer != NULL)
        conn->peer->peer = NULL; /* It does not know yet. */
    conn->peer = NULL;
    break_later(conn, 0);
}

static void note_heard(unsigned at, unsigned from)
{
    uint64_t silent_ms = sim.now_ms - heard_ms[at][from];

    if (silent_ms >= sim_least_ms(&sim.hosts[at], sim.hosts[at].read_ttl_ms))
        gap_ms[at][from] = sim.now_ms;
    if (silent_ms >= SIM_PAUSE_MS)
        pause_ms[at][from] = sim.now_ms;
    heard_ms[at][from] = sim.now_ms;
}

/* Whether the one who says something is the boot that the registry knows. Another one is refused until that
 * one has been silent for long: whatever it says until then is nobody's sign of life. */
static bool is_known_boot(const struct conn *conn)
{
    const struct store *store = conn->at->store;
    const struct registry_machine *machine =
        store != NULL ? registry_machine(store_registry(store), conn->host->machine_id) : NULL;

    return machine == NULL || machine->boot_id[0] == '\0' || streq(machine->boot_id, conn->host->boot_id);
}

/* Which message of a session it is: its bytes begin with the number of the one member that is set. */
static uint32_t kind_of(const uint8_t *bytes, size_t size)
{
    uint32_t tag = 0;
    unsigned shift = 0;

    for (size_t i = 0; i < size && shift < 32; i++, shift += 7) {
        tag |= (uint32_t)(bytes[i] & 0x7f) << shift;
        if (bytes[i] < 0x80)
            break;
    }
    return tag >> 3;
}

/* What comes behind a goodbye is no sign of life any more. */
static void note_session(struct conn *conn, const struct frame *frame)
{
    if (conn->left)
        return;
    note_heard(conn->at->index, conn->host->index);
    conn->left = kind_of(frame->bytes, frame->size) == FLEET__SESSION_UP__MESSAGE_GOODBYE;
}

/* The first frame arrives, if it can. */
static void on_due(void *data, bool lost)
{
    struct conn *conn = data;
    struct frame *frame = conn->out;

    conn->busy = false;
    if (frame == NULL || lost)
        return;
    if (!sim_link_up(conn->host->index, conn->at->index) || !sim_host_acts(conn->at)) {
        stall(conn);
        return;
    }
    conn->stalled_ms = 0;
    conn->out = frame->next;
    if (conn->peer == NULL || conn->peer->life != conn->at->lives) {
        free_frame(frame); /* A reset comes back. */
        drop_out(conn);
        break_later(conn, 1);
        return;
    }
    if (conn->dialled && conn->purpose == FLEET__PURPOSE__PURPOSE_SESSION && frame->kind == FRAME_DATA &&
        !conn->peer->closing && is_known_boot(conn))
        note_session(conn, frame);
    frame->to = conn->peer;
    sim_after(0, SIM_FLEETD, conn->at, on_frame, frame);
    if (conn->out != NULL)
        pump(conn, conn->out->due_ms > sim.now_ms ? conn->out->due_ms - sim.now_ms : 0);
}

static void pump(struct conn *conn, uint64_t ms)
{
    if (conn->busy)
        return;
    conn->busy = true;
    sim_after(ms, SIM_NOBODY, NULL, on_due, conn);
}

static void put(struct conn *conn, struct frame frame)
{
    struct frame *copy = xmemdup(&frame, sizeof frame);

    copy->due_ms = sim.now_ms + latency_ms(conn);
    if (conn->out == NULL)
        conn->out = copy;
    else
        conn->out_last->next = copy;
    conn->out_last = copy;
    pump(conn, copy->due_ms - sim.now_ms);
}

static struct conn *conn_new(struct sim_host *host, struct sim_host *at)
{
    struct conn *conn = NEW0(struct conn);

    conn->host = host;
    conn->life = host->lives;
    conn->at = at;
    conn->port = host->port;
    conn->next = conns;
    conns = conn;
    return conn;
}

/* ---- greeting ---- */

static void hello(struct conn *dialled)
{
    Fleet__Hello message = FLEET__HELLO__INIT;
    struct port *port = dialled->at->port;
    const struct port_identity *identity = &dialled->port->identity;
    struct conn *conn;
    struct frame answer = {.kind = FRAME_WELCOME};
    char leader[ADDRESS_MAX + 1] = "";
    struct err err = {0};
    int r = 0;

    conn = conn_new(dialled->at, dialled->host);
    conn->peer = dialled;
    conn->purpose = dialled->purpose;
    dialled->peer = conn;
    message.protocol = PORT_PROTOCOL;
    message.purpose = dialled->purpose;
    message.cluster_id.data = (uint8_t *)identity->cluster_id;
    message.cluster_id.len = identity->has_cluster ? sizeof identity->cluster_id : 0;
    message.server_id = identity->server_id;
    message.machine_id = (char *)identity->machine_id;
    message.boot_id.data = (uint8_t *)identity->boot_id;
    message.boot_id.len = sizeof identity->boot_id;
    if (dialled->purpose != FLEET__PURPOSE__PURPOSE_JOIN &&
        (!port->identity.has_cluster ||
         memcmp(identity->cluster_id, port->identity.cluster_id, sizeof identity->cluster_id) != 0))
        r = err_set(&err, -EACCES, "this is another cluster");
    if (r >= 0)
        r = port->callbacks.on_accept(conn, &message, &conn->callbacks, &conn->data, leader, &err,
                                      port->data);
    if (r < 0) {
        answer.kind = FRAME_REFUSAL;
        answer.text = xstrdup(err_text(&err, r));
        answer.leader = xstrdup(leader);
        conn->callbacks = NULL;
        conn->closing = conn->closed = true;
    }
    conn->open = r >= 0;
    put(conn, answer);
    if (conn->open && conn->callbacks->on_accepted != NULL)
        conn->callbacks->on_accepted(conn, conn->data);
}

static void welcome(struct conn *conn, const struct frame *frame)
{
    Fleet__Welcome message = FLEET__WELCOME__INIT;

    message.accepted = frame->kind == FRAME_WELCOME;
    message.server_id = conn->at->port != NULL ? conn->at->port->identity.server_id : 0;
    message.machine_id = conn->at->machine_id;
    if (frame->kind == FRAME_WELCOME) {
        conn->open = true;
        conn->callbacks->on_open(conn, &message, conn->data);
        return;
    }
    conn->refusal = NEW0(Fleet__Welcome);
    fleet__welcome__init(conn->refusal);
    conn->refusal->reason = xstrdup(frame->text);
    conn->refusal->leader_address = xstrdup(frame->leader);
    conn->refusal->machine_id = xstrdup(message.machine_id);
    conn->refusal->version = xstrdup("");
    end(conn, frame->text);
}

/* What arrives is handled by fleetd. */
static void on_frame(void *data, bool lost)
{
    struct frame *frame = data;
    struct conn *conn = frame->to;

    if (!lost && !conn->closing) {
        switch (frame->kind) {
        case FRAME_HELLO: break; /* Goes by on_arrival(). */
        case FRAME_WELCOME:
        case FRAME_REFUSAL: welcome(conn, frame); break;
        case FRAME_DATA:
            if (conn->open)
                conn->callbacks->on_message(conn, frame->bytes, frame->size, conn->data);
            break;
        case FRAME_END:
            conn->peer = NULL;
            end(conn, frame->text);
            break;
        }
    }
    free_frame(frame);
}

static void on_hello(void *data, bool lost)
{
    struct conn *conn = data;

    if (lost)
        break_later(conn, 1);
    else if (!conn->closing)
        hello(conn);
}

static void on_dial_timeout(void *data, bool lost)
{
    struct conn *conn = data;

    if (!lost && !conn->open)
        end(conn, "no answer");
}

/* A packet to a host that has no fleetd, or none that is ready, is answered by its kernel. */
static void on_arrival(void *data, bool lost)
{
    struct conn *conn = data;

    if (lost || conn->closing || !sim_link_up(conn->host->index, conn->at->index) || !sim_host_acts(conn->at))
        return;
    if (!conn->at->running || conn->at->muted || conn->at->port == NULL || !conn->at->port->listening) {
        if (sim_link_up(conn->at->index, conn->host->index))
            break_later(conn, 1);
        return;
    }
    sim_after(0, SIM_FLEETD, conn->at, on_hello, conn);
}

/* ---- the interface ---- */

struct port *port_new(uv_loop_t *loop, const struct port_identity *identity,
                      const struct port_callbacks *callbacks, void *data)
{
    struct port *port = NEW0(struct port);

    *port = (struct port){.host = loop->data, .identity = *identity, .callbacks = *callbacks, .data = data};
    port->host->port = port;
    return port;
}

void port_set_identity(struct port *port, const struct port_identity *identity)
{
    port->identity = *identity;
}

/* All hosts are of one version here. */
void port_set_level_needed(struct port *port, uint32_t level)
{
    port->identity.level_needed = level;
}

int port_listen(struct port *port, const char *address, struct err *err)
{
    port->listening = true;
    return 0;
}

struct conn *port_dial(struct port *port, const char *address, Fleet__Purpose purpose, uint64_t to_server_id,
                       const struct conn_callbacks *callbacks, void *data)
{
    struct sim_host *at = sim_host_by_address(address);
    struct conn *conn = conn_new(port->host, at);

    assert(at != NULL);
    conn->callbacks = callbacks;
    conn->data = data;
    conn->dialled = true;
    conn->purpose = purpose;
    sim_after(DIAL_TIMEOUT_MS, SIM_FLEETD, port->host, on_dial_timeout, conn);
    sim_after(latency_ms(conn), SIM_NOBODY, NULL, on_arrival, conn);
    return conn;
}

int conn_handshake_error(const struct conn *conn)
{
    return 0;
}

const char *conn_peer(const struct conn *conn)
{
    return conn->at->name;
}

uint64_t conn_peer_server_id(const struct conn *conn)
{
    return 0;
}

/* Of nobody it is known by a certificate who he is. */
void port_end(struct port *port, const char *(*unwanted)(const struct conn *conn, void *data), void *data)
{
}

/* The wire is not of interest here, so nobody encrypts: all hosts are as with insecure = true. */
void port_set_credentials(struct port *port, struct tls_credentials *credentials)
{
}

struct conn *port_dial_join(struct port *port, const char *address, const uint8_t pin[PKI_PIN_SIZE],
                            const struct conn_callbacks *callbacks, void *data)
{
    return port_dial(port, address, FLEET__PURPOSE__PURPOSE_JOIN, 0, callbacks, data);
}

const struct pki_name *conn_peer_name(const struct conn *conn)
{
    return NULL;
}

bool conn_peer_proved(const struct conn *conn)
{
    return false;
}

const struct pki_info *conn_peer_info(const struct conn *conn)
{
    return NULL;
}

bool conn_peer_trusted(const struct conn *conn)
{
    return true;
}

bool conn_peer_proof_ended(const struct conn *conn)
{
    return false;
}

Fleet__Purpose conn_purpose(const struct conn *conn)
{
    return FLEET__PURPOSE__PURPOSE_UNKNOWN;
}

bool conn_is_dialled(const struct conn *conn)
{
    return false;
}

static void on_port_closed(void *data)
{
    struct port *port = data;
    void (*done)(void *) = port->done;
    void *done_data = port->done_data;

    port->host->port = NULL;
    free(port);
    done(done_data);
}

void port_close(struct port *port, void (*done)(void *data), void *data)
{
    port->listening = false;
    port->done = done;
    port->done_data = data;
    for (struct conn *conn = conns; conn != NULL; conn = conn->next)
        if (conn->port == port && conn->life == port->host->lives)
            conn_close(conn, "fleetd is stopping");
    for (struct conn *conn = conns; port->host->muted && conn != NULL; conn = conn->next)
        if (conn->port == port && !conn->closing)
            end(conn, "dead");
    sim_defer(port->host, on_port_closed, port);
}

/* Heartbeats and their like are not counted: an idle cluster has nothing else. */
static bool is_heartbeat(const struct conn *conn, const void *bytes, size_t size)
{
    uint32_t heartbeat = conn->dialled ? (uint32_t)FLEET__SESSION_UP__MESSAGE_HEARTBEAT
                                       : (uint32_t)FLEET__SESSION_DOWN__MESSAGE_HEARTBEAT;

    return conn->purpose == FLEET__PURPOSE__PURPOSE_SESSION && kind_of(bytes, size) == heartbeat;
}

int conn_send(struct conn *conn, const void *bytes, size_t size)
{
    if (!conn->open || conn->closing)
        return -ENOTCONN;
    if (size > FRAME_MAX)
        return -EMSGSIZE;
    if (sim_dies_here())
        return 0;
    if (sim.calm && !is_heartbeat(conn, bytes, size))
        sim.messages++;
    put(conn, (struct frame){.kind = FRAME_DATA, .bytes = xmemdup(bytes, size), .size = size});
    return 0;
}

void conn_close(struct conn *conn, const char *reason)
{
    if (conn->closing)
        return;
    if (!conn->host->muted && conn->open)
        put(conn, (struct frame){.kind = FRAME_END, .text = xstrdup("closed by the other side")});
    end(conn, reason);
}

void sim_net_died(struct sim_host *host, bool silently)
{
    for (struct conn *conn = conns; conn != NULL; conn = conn->next) {
        if (conn->host != host || conn->closed || conn->port != host->port)
            continue;
        drop_out(conn);
        if (!silently && conn->open && conn->peer != NULL)
            put(conn, (struct frame){.kind = FRAME_END, .text = xstrdup("reset by the other side")});
    }
}

/* ---- prober.h: kernels answer while fleetd is frozen, and refuse when there is none ---- */

struct prober {
    struct sim_host *host;
    void (*on_answer)(const char *machine_id, bool accepted, void *data);
    void *data;
    bool closing;
    void (*done)(void *data);
    void *done_data;
};

struct answer {
    struct prober *prober;
    const struct sim_host *from;
    bool accepted;
};

struct prober *prober_new(uv_loop_t *loop, struct port *port,
                          void (*on_answer)(const char *machine_id, bool accepted, void *data), void *data)
{
    struct prober *prober = NEW0(struct prober);

    *prober = (struct prober){.host = loop->data, .on_answer = on_answer, .data = data};
    return prober;
}

static void on_kernel(void *data, bool lost)
{
    struct answer *answer = data;

    if (!lost && !answer->prober->closing)
        answer->prober->on_answer(answer->from->machine_id, answer->accepted, answer->prober->data);
    free(answer);
}

void prober_tick(struct prober *prober, const struct prober_target *targets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct sim_host *host = sim_host_by_address(targets[i].address);
        struct answer *answer;

        if (host == NULL || !sim_host_acts(host) || !sim_link_up(prober->host->index, host->index) ||
            !sim_link_up(host->index, prober->host->index))
            continue;
        answer = NEW0(struct answer);
        *answer = (struct answer){prober, host, host->running};
        sim_after(2 + sim_random(5), SIM_FLEETD, prober->host, on_kernel, answer);
    }
}

static void on_prober_closed(void *data)
{
    struct prober *prober = data;
    void (*done)(void *) = prober->done;
    void *done_data = prober->done_data;

    free(prober);
    done(done_data);
}

void prober_close(struct prober *prober, void (*done)(void *data), void *data)
{
    prober->closing = true;
    prober->done = done;
    prober->done_data = data;
    sim_defer(prober->host, on_prober_closed, prober);
}
