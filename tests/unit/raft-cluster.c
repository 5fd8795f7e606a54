/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raft-cluster.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define NEVER_MS        1000000
#define PATIENCE_MS     20000
#define COMMAND_SIZE    8
#define IDLE_MS         100 /* Messages and writes under way have arrived by then. */
#define ELECTION_MS     1000
#define LATE_MS         2000 /* The fixture of 0.22 takes nothing longer. */
#define TICK_MS         100
#define INSTALL_WAIT_MS 30000

/* The fixture's own io functions; all servers have the same. */
static struct raft_io fixture_io;

/* What the fixture keeps of a server is its own business since 0.22: so there is one cluster at a time, and
 * its servers know their io. */
static struct cluster *current;

static struct cluster_server *server_of(struct raft_io *io)
{
    for (unsigned i = 0; i < current->count; i++)
        if (current->servers[i].io == io)
            return &current->servers[i];
    abort();
}

/* ---- The state machine: a string ---- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buffer, void **result)
{
    struct cluster_server *server = fsm->data;
    size_t size = strlen(server->applied);

    assert(size < CLUSTER_LETTERS_MAX);
    server->applied[size] = *(const char *)buffer->base;
    server->applied[size + 1] = '\0';
    *result = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *buffers[], unsigned *count)
{
    struct cluster_server *server = fsm->data;

    *buffers = raft_malloc(sizeof **buffers);
    (*buffers)[0].len = sizeof server->applied;
    (*buffers)[0].base = raft_malloc(sizeof server->applied);
    memcpy((*buffers)[0].base, server->applied, sizeof server->applied);
    *count = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buffer)
{
    struct cluster_server *server = fsm->data;

    if (server->fails_restore)
        return RAFT_MALFORMED;
    assert(buffer->len == sizeof server->applied);
    memcpy(server->applied, buffer->base, sizeof server->applied);
    raft_free(buffer->base);
    return 0;
}

/* ---- The state machine: the test's own ---- */

static int machine_apply(struct raft_fsm *fsm, const struct raft_buffer *buffer, void **result)
{
    struct cluster_server *server = fsm->data;

    current->kind->apply(server->machine, buffer->base, buffer->len);
    *result = NULL;
    return 0;
}

static int machine_snapshot(struct raft_fsm *fsm, struct raft_buffer *buffers[], unsigned *count)
{
    struct cluster_server *server = fsm->data;

    *buffers = raft_malloc(sizeof **buffers);
    current->kind->snapshot(server->machine, &(*buffers)[0].base, &(*buffers)[0].len);
    *count = 1;
    return 0;
}

static int machine_restore(struct raft_fsm *fsm, struct raft_buffer *buffer)
{
    struct cluster_server *server = fsm->data;

    if (!current->kind->restore(server->machine, buffer->base, buffer->len))
        return RAFT_MALFORMED;
    raft_free(buffer->base);
    return 0;
}

static void machine_renew(struct cluster *c, unsigned i)
{
    if (c->kind == NULL)
        return;
    if (c->servers[i].machine != NULL)
        c->kind->free(c->servers[i].machine);
    c->servers[i].machine = c->kind->make();
}

/* ---- Between the fixture's io and what sits on it ---- */

static int tap_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    server_of(io)->recv = recv;
    return fixture_io.start(io, ms, tick, recv);
}

static int tap_send(struct raft_io *io, struct raft_io_send *request, const struct raft_message *message,
                    raft_io_send_cb cb)
{
    struct cluster_server *server = server_of(io);

    server->sent_request = request;
    server->sent = *message;
    if (message->type == RAFT_IO_APPEND_ENTRIES_RESULT)
        server->ack = message->append_entries_result;
    else if (message->type == RAFT_IO_REQUEST_VOTE_RESULT)
        server->vote = message->request_vote_result;
    return fixture_io.send(io, request, message, cb);
}

/* The fixture truncates at once, although writes of what it truncates may still be under way, and completes
 * these in the order of their latencies. raft_uv does one after the other, and so do we. */
struct cluster_operation {
    struct raft_io *io;
    raft_index truncate; /* 0: an append. */
    struct raft_io_append *request;
    raft_io_append_cb cb;
    const struct raft_entry *entries;
    unsigned count;
    struct raft_io_append inner;
    struct cluster_operation *next;
};

static void disk_run(struct cluster_server *server);

/* The first operation is done. */
static void disk_complete(struct cluster_server *server, int status)
{
    struct cluster_operation *op = server->disk;

    server->disk = op->next;
    if (status == 0)
        server->disk_entries = op->truncate > 0 ? op->truncate - 1 : server->disk_entries + op->count;
    if (op->cb != NULL)
        op->cb(op->request, status);
    free(op);
    disk_run(server);
}

static void on_written(struct raft_io_append *inner, int status)
{
    struct cluster_operation *op = CONTAINER_OF(inner, struct cluster_operation, inner);
    struct cluster_server *server = server_of(op->io);

    op->inner.data = NULL;
    if (server->loses_writes) {
        status = RAFT_CANCELED;
        if (fixture_io.truncate(op->io, server->disk_entries + 1) != 0)
            abort();
    }
    disk_complete(server, status);
}

static void disk_run(struct cluster_server *server)
{
    struct cluster_operation *op = server->disk;
    int r;

    if (op == NULL || op->inner.data != NULL)
        return;
    if (server->is_gone)
        r = RAFT_CANCELED;
    else if (op->truncate > 0)
        while ((r = fixture_io.truncate(op->io, op->truncate)) != 0)
            continue; /* Faults here are not what we look for: raft_uv tells nobody of them. */
    else
        r = fixture_io.append(op->io, &op->inner, op->entries, op->count, on_written);
    if (r == 0 && op->truncate == 0)
        op->inner.data = op; /* Under way. */
    else
        disk_complete(server, r);
}

static void disk_add(struct raft_io *io, struct cluster_operation operation)
{
    struct cluster_server *server = server_of(io);
    struct cluster_operation **end = &server->disk, *op = xmemdup(&operation, sizeof operation);

    op->io = io;
    while (*end != NULL)
        end = &(*end)->next;
    *end = op;
    if (op == server->disk)
        disk_run(server);
}

static int tap_append(struct raft_io *io, struct raft_io_append *request, const struct raft_entry entries[],
                      unsigned count, raft_io_append_cb cb)
{
    struct cluster_server *server = server_of(io);

    if (server->catches_writes) {
        assert(server->caught_count < ARRAY_SIZE(server->caught));
        server->caught[server->caught_count++] = (struct cluster_write){.append = request, .append_cb = cb};
        return 0;
    }
    if (server->refuses_append) {
        server->refuses_append = false;
        return RAFT_IOERR;
    }
    disk_add(io,
             (struct cluster_operation){.request = request, .cb = cb, .entries = entries, .count = count});
    return 0;
}

static int tap_truncate(struct raft_io *io, raft_index index)
{
    disk_add(io, (struct cluster_operation){.truncate = index});
    return 0;
}

static int tap_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *request,
                            const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct cluster_server *server = server_of(io);

    server->snapshots++;
    for (unsigned i = 0; i < snapshot->configuration.n && i < CLUSTER_SERVERS_MAX; i++)
        server->snapshot_roles[i] = snapshot->configuration.servers[i].role;
    if (!server->catches_writes)
        return fixture_io.snapshot_put(io, trailing, request, snapshot, cb);
    assert(server->caught_count < ARRAY_SIZE(server->caught));
    server->caught[server->caught_count++] =
        (struct cluster_write){.put = request, .put_cb = cb, .put_buffers = snapshot->bufs};
    return 0;
}

void cluster_catch_writes(struct cluster *c, unsigned i)
{
    c->servers[i].catches_writes = true;
}

void cluster_answer_writes(struct cluster *c, unsigned i, int status)
{
    struct cluster_server *server = &c->servers[i];

    server->catches_writes = false;
    for (unsigned k = 0; k < server->caught_count; k++) {
        struct cluster_write *write = &server->caught[k];

        if (write->append != NULL) {
            write->append_cb(write->append, status);
            continue;
        }
        write->put_cb(write->put, status);
        if (RAFT_COMPAT_IS_015 && (status != 0 || server->fails_restore)) /* Which it forgets. */
            raft_free(write->put_buffers);
    }
    server->caught_count = 0;
}

/* As raft_uv does. */
static void tap_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct cluster_server *server = server_of(io);

    cluster_answer_writes(current, (unsigned)(server - current->servers), RAFT_CANCELED);
    fixture_io.close(io, cb); /* Calls back at once. */
    if (current->guarded)
        guard_done(&server->guard); /* The io may be gone before cluster_done() gets to it. */
}

/* ---- What the guard says ---- */

static void on_fatal(void *data, const char *what, int status)
{
    struct cluster_server *server = data;

    server->is_gone = true;
    server->fatals++;
    server->fatal = what;
    server->fatal_status = status;
}

static void on_role(void *data, int old_role, int new_role, raft_term term)
{
    struct cluster_server *server = data;

    assert(old_role == server->role && (new_role != old_role || term != server->role_term));
    server->role = new_role;
    server->role_term = term;
    server->role_changes++;
}

static void on_ready(void *data, raft_term term)
{
    struct cluster_server *server = data;

    assert(server->role == RAFT_LEADER && term == server->role_term);
    server->ready_term = term;
    server->readies++;
}

static void on_refused(void *data, raft_id from, enum guard_rule rule, const char *why)
{
    struct cluster_server *server = data;

    server->refusals++;
}

static void guard_server(struct cluster *c, unsigned i)
{
    static const struct guard_callbacks callbacks = {
        .on_fatal = on_fatal, .on_role = on_role, .on_ready = on_ready, .on_refused = on_refused};
    struct cluster_server *server = &c->servers[i];

    server->role = RAFT_UNAVAILABLE;
    server->role_term = 0;
    guard_init(&server->guard, cluster_raft(c, i), server->io, &callbacks, server);
    cluster_raft(c, i)->io = guard_io(&server->guard);
}

/* ---- Life ---- */

static void server_init(struct cluster *c, unsigned i)
{
    struct cluster_server *server = &c->servers[i];
    struct raft_io *io;

    server->fsm = (struct raft_fsm){
        .version = 1, .data = server, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    if (c->kind != NULL) {
        server->fsm.apply = machine_apply;
        server->fsm.snapshot = machine_snapshot;
        server->fsm.restore = machine_restore;
    }
    machine_renew(c, i);
    if (raft_fixture_grow(&c->fixture, &server->fsm) != 0)
        abort();
    server->io = io = cluster_raft(c, i)->io;
    fixture_io = *io;
    io->start = tap_start;
    io->append = tap_append;
    io->truncate = tap_truncate;
    io->snapshot_put = tap_snapshot_put;
    io->send = tap_send;
    io->close = tap_close;
    if (c->guarded)
        guard_server(c, i);
}

/* 'c' says already what is in it. */
static void start_all(struct cluster *c, unsigned voters)
{
    struct raft_configuration configuration;
    unsigned count = c->count;

    current = c;
    raft_fixture_initialize(&c->fixture);
    for (unsigned i = 0; i < count; i++)
        server_init(c, i);
    if (raft_fixture_configuration(&c->fixture, voters, &configuration) != 0 ||
        raft_fixture_bootstrap(&c->fixture, &configuration) != 0 || raft_fixture_start(&c->fixture) != 0)
        abort();
    raft_configuration_close(&configuration);
    for (unsigned i = 0; i < count; i++)
        c->servers[i].disk_entries = 1; /* The configuration. */
}

void cluster_init(struct cluster *c, unsigned count, bool guarded)
{
    cluster_init_voters(c, count, count, guarded);
}

void cluster_init_voters(struct cluster *c, unsigned count, unsigned voters, bool guarded)
{
    *c = (struct cluster){.count = count, .guarded = guarded};
    start_all(c, voters);
}

void cluster_init_with(struct cluster *c, unsigned count, const struct cluster_machine *kind)
{
    *c = (struct cluster){.count = count, .guarded = true, .kind = kind};
    start_all(c, count);
}

void cluster_done(struct cluster *c)
{
    raft_fixture_close(&c->fixture);
    for (unsigned i = 0; i < c->count; i++)
        if (c->servers[i].machine != NULL)
            c->kind->free(c->servers[i].machine);
}

struct raft *cluster_raft(struct cluster *c, unsigned i)
{
    return raft_fixture_get(&c->fixture, i);
}

raft_term cluster_term(struct cluster *c, unsigned i)
{
    return raft_compat_term(cluster_raft(c, i));
}

bool cluster_leads(struct cluster *c, unsigned i)
{
    return raft_fixture_alive(&c->fixture, i) && raft_state(cluster_raft(c, i)) == RAFT_LEADER;
}

int cluster_role(struct cluster *c, unsigned i, unsigned j)
{
    const struct raft_configuration *configuration = &cluster_raft(c, i)->configuration;

    for (unsigned k = 0; k < configuration->n; k++)
        if (configuration->servers[k].id == j + 1)
            return configuration->servers[k].role;
    return -1;
}

const char *cluster_applied(struct cluster *c, unsigned i)
{
    return c->servers[i].applied;
}

bool cluster_has_held(struct cluster *c, unsigned i, enum guard_rule rule)
{
    return !RAFT_COMPAT_IS_015 || cluster_fired(c, i, rule) > 0;
}

uint64_t cluster_fired(struct cluster *c, unsigned i, enum guard_rule rule)
{
    return c->guarded ? guard_fired(&c->servers[i].guard, rule) : 0;
}

/* ---- Network ---- */

void cluster_cut(struct cluster *c, unsigned i, unsigned j)
{
    raft_fixture_saturate(&c->fixture, i, j);
    raft_fixture_saturate(&c->fixture, j, i);
}

void cluster_heal(struct cluster *c, unsigned i, unsigned j)
{
    raft_fixture_desaturate(&c->fixture, i, j);
    raft_fixture_desaturate(&c->fixture, j, i);
}

void cluster_isolate(struct cluster *c, unsigned i)
{
    for (unsigned j = 0; j < c->count; j++)
        if (j != i)
            cluster_cut(c, i, j);
}

void cluster_kill(struct cluster *c, unsigned i)
{
    raft_fixture_kill(&c->fixture, i);
}

void cluster_revive(struct cluster *c, unsigned i)
{
    raft_fixture_revive(&c->fixture, i);
    cluster_isolate(c, i);
}

/* ---- Time ---- */

/* Nobody but the favourite may campaign. */
static void quieten(struct cluster *c)
{
    for (unsigned i = 0; i < c->count && !c->anybody; i++) {
        struct raft *raft = cluster_raft(c, i);
        unsigned timeout_ms = i == c->favourite ? ELECTION_MS : NEVER_MS;

        if (raft_state(raft) == RAFT_FOLLOWER)
            raft->follower_state.randomized_election_timeout = timeout_ms;
        else if (raft_state(raft) == RAFT_CANDIDATE)
            raft->candidate_state.randomized_election_timeout = timeout_ms;
    }
}

static void step(struct cluster *c)
{
    quieten(c);
    raft_fixture_step(&c->fixture);
}

void cluster_run(struct cluster *c, unsigned ms)
{
    raft_time end = raft_fixture_time(&c->fixture) + ms;

    while (raft_fixture_time(&c->fixture) < end)
        step(c);
}

void cluster_restart(struct cluster *c, unsigned i)
{
    struct raft *raft = cluster_raft(c, i);
    struct raft_tracer *tracer = raft->tracer;
    char address[16];
    raft_id id = raft->id;

    snprintf(address, sizeof address, "%s", raft->address);
    cluster_kill(c, i);
    cluster_run(c, IDLE_MS);
    while (c->servers[i].disk != NULL)
        step(c);
    raft_fixture_io_fault(&c->fixture, i, -1, 0); /* What was still to fail. */
    raft_close(raft, NULL);
    c->servers[i].applied[0] = '\0';
    machine_renew(c, i);
    c->servers[i].is_gone = false;
    if (raft_init(raft, c->servers[i].io, &c->servers[i].fsm, id, address) != 0)
        abort();
    raft->tracer = tracer;
    raft_set_election_timeout(raft, ELECTION_MS);
    raft_set_heartbeat_timeout(raft, TICK_MS);
    raft_set_install_snapshot_timeout(raft, INSTALL_WAIT_MS);
    raft_set_pre_vote(raft, c->asks_first);
    if (c->guarded)
        guard_server(c, i);
    if (raft_start(raft) != 0)
        abort();
    cluster_revive(c, i);
}

void cluster_crash(struct cluster *c, unsigned i)
{
    raft_fixture_io_fault(&c->fixture, i, -1, 0);
    c->servers[i].loses_writes = true;
    c->servers[i].is_gone = true;
    cluster_restart(c, i);
    c->servers[i].loses_writes = false;
}

/* 'condition' is an expression; it is evaluated before each step. */
#define RUN_UNTIL(c, condition)                                          \
    ({                                                                   \
        raft_time _end = raft_fixture_time(&(c)->fixture) + PATIENCE_MS; \
        while (!(condition) && raft_fixture_time(&(c)->fixture) < _end)  \
            step(c);                                                     \
        (condition);                                                     \
    })

bool cluster_run_until_state(struct cluster *c, unsigned i, int state)
{
    return RUN_UNTIL(c, (int)raft_state(cluster_raft(c, i)) == state);
}

bool cluster_run_until_applied(struct cluster *c, unsigned i, const char *letters)
{
    return RUN_UNTIL(c, strcmp(cluster_applied(c, i), letters) == 0);
}

static bool follows(struct cluster *c, unsigned i, unsigned leader)
{
    const char *address;
    raft_id id;

    raft_leader(cluster_raft(c, i), &id, &address);
    return raft_state(cluster_raft(c, i)) == RAFT_FOLLOWER && id == leader + 1 &&
           cluster_term(c, i) == cluster_term(c, leader);
}

bool cluster_run_until_follows(struct cluster *c, unsigned i, unsigned leader)
{
    return RUN_UNTIL(c, follows(c, i, leader));
}

bool cluster_run_until_term(struct cluster *c, unsigned i, raft_term term)
{
    return RUN_UNTIL(c, cluster_term(c, i) >= term);
}

bool cluster_elect(struct cluster *c, unsigned i)
{
    c->favourite = i;
    for (unsigned j = 0; j < c->count; j++) {
        struct raft *raft = cluster_raft(c, j);

        raft_fixture_set_randomized_election_timeout(&c->fixture, j, j == i ? ELECTION_MS : LATE_MS);
        if (raft_state(raft) == RAFT_FOLLOWER)
            raft->follower_state.current_leader.id = 0;
    }
    return cluster_run_until_state(c, i, RAFT_LEADER);
}

void cluster_not_on_022(void **state)
{
    skip();
}

/* ---- Commands and messages ---- */

static void on_changed(struct raft_change *request, int status)
{
    free(request);
}

int cluster_assign(struct cluster *c, unsigned i, unsigned j, int role)
{
    struct raft_change *request = NEW0(struct raft_change);
    int r = raft_assign(cluster_raft(c, i), request, j + 1, role, on_changed);

    if (r != 0)
        free(request);
    return r;
}

int cluster_remove(struct cluster *c, unsigned i, unsigned j)
{
    struct raft_change *request = NEW0(struct raft_change);
    int r = raft_remove(cluster_raft(c, i), request, j + 1, on_changed);

    if (r != 0)
        free(request);
    return r;
}

int cluster_transfer(struct cluster *c, unsigned i, unsigned j)
{
    return raft_transfer(cluster_raft(c, i), &c->servers[i].transfer, j + 1, NULL);
}

struct submission {
    struct raft_apply request;
    struct cluster_server *server;
    char letter;
};

static void on_applied(struct raft_apply *request, int status, void *result)
{
    struct submission *submission = CONTAINER_OF(request, struct submission, request);
    struct cluster_server *server = submission->server;

    server->applies_done++;
    server->apply_status = status;
    if (status == 0)
        server->acknowledged[strlen(server->acknowledged)] = submission->letter;
    free(submission);
}

int cluster_apply(struct cluster *c, unsigned i, char letter)
{
    char bytes[COMMAND_SIZE];

    memset(bytes, letter, sizeof bytes);
    return cluster_apply_command(c, i, letter, bytes, sizeof bytes);
}

int cluster_apply_command(struct cluster *c, unsigned i, char letter, const void *bytes, size_t size)
{
    struct submission *submission = NEW0(struct submission);
    struct raft_buffer buffer = {.base = raft_malloc(size), .len = size};
    int r;

    memcpy(buffer.base, bytes, size);
    submission->server = &c->servers[i];
    submission->letter = letter;
    r = raft_apply(cluster_raft(c, i), &submission->request, &buffer, 1, on_applied);
    if (r != 0) {
        raft_free(buffer.base);
        free(submission);
    }
    return r;
}

void cluster_receive(struct cluster *c, unsigned from, unsigned to, struct raft_message *message)
{
    message->server_id = from + 1;
    message->server_address = from < c->count ? cluster_raft(c, from)->address : "stranger";
    c->servers[to].recv(c->servers[to].io, message);
}

struct raft_message cluster_append_message(raft_term term, raft_index prev_index, raft_term prev_term,
                                           raft_index commit, size_t size)
{
    struct raft_message message = {.type = RAFT_IO_APPEND_ENTRIES};
    struct raft_entry *entry = raft_calloc(1, sizeof *entry);

    entry->term = term;
    entry->type = RAFT_COMMAND;
    entry->batch = raft_calloc(1, size + 1);
    entry->buf = (struct raft_buffer){.base = entry->batch, .len = size};
    message.append_entries = (struct raft_append_entries){.term = term,
                                                          .prev_log_index = prev_index,
                                                          .prev_log_term = prev_term,
                                                          .leader_commit = commit,
                                                          .entries = entry,
                                                          .n_entries = 1};
    return message;
}

struct raft_message cluster_snapshot_message(struct cluster *c, raft_term term, raft_index last_index,
                                             raft_term last_term, const char *letters)
{
    struct raft_message message = {.type = RAFT_IO_INSTALL_SNAPSHOT};
    struct raft_install_snapshot *snapshot = &message.install_snapshot;
    size_t size = sizeof c->servers[0].applied;

    snapshot->term = term;
    snapshot->last_index = last_index;
    snapshot->last_term = last_term;
    snapshot->conf_index = 1;
    snapshot->data.base = raft_calloc(1, size);
    snapshot->data.len = size;
    memcpy(snapshot->data.base, letters, strlen(letters));
    if (raft_fixture_configuration(&c->fixture, c->count, &snapshot->conf) != 0)
        abort();
    return message;
}

struct raft_message cluster_vote_message(raft_term term, unsigned candidate, raft_index last_index,
                                         raft_term last_term, bool disrupt)
{
    struct raft_message message = {.type = RAFT_IO_REQUEST_VOTE};

    message.request_vote = (struct raft_request_vote){.term = term,
                                                      .candidate_id = candidate + 1,
                                                      .last_log_index = last_index,
                                                      .last_log_term = last_term,
                                                      .disrupt_leader = disrupt};
    return message;
}
