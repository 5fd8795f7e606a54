/* SPDX-License-Identifier: Apache-2.0 */
/* The store, a process for each server: kill -9, and full disks. Every server is a child that does what it is
 * told over a socket and tells what happens; the test is the client of the cluster, and keeps the books:
 * which commands were acknowledged, which are in doubt.
 *
 * The full disk is a small file system on a loop device, mounted where nobody else sees it. It takes root. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "deadline.h"
#include "raftstore/disk_watch.h"
#include "store-node.h"
#include "under-valgrind.h"

#define SERVERS_MAX  3u
#define COMMANDS_MAX 4096u
#define TEXT_MAX     400
/* What is under way at once must fit the sockets in both directions, or the two wait for each other. */
#define ASKED_MAX    64u
#define BARRIERS_MAX 4u

/* ---- what is said between the test and a server ---- */

enum word {
    SAY_OPEN, /* 'number': whether it founds the cluster. */
    SAY_PROPOSE,
    SAY_BARRIER, /* 'number' comes back. */
    SAY_CHANGE,  /* 'id', 'text': address, 'role'. */
    SAY_LOOK,
    SAY_CLOSE,
    TELL_ADDRESS,
    TELL_LEADS, /* 'number': whether. */
    TELL_PROPOSED,
    TELL_BARRIER,
    TELL_CHANGED,
    TELL_LOOK, /* 'id': hash of the registry; 'number': units; 'size': version. */
    TELL_FATAL,
};

struct message {
    enum word word;
    unsigned number;
    uint64_t id;
    size_t size;
    int role;
    enum store_outcome outcome;
    int status; /* Of the command. */
    char text[TEXT_MAX];
};

/* ---- a server: in the child ---- */

struct child {
    uv_loop_t loop;
    uv_poll_t poll;
    int fd;
    struct node node;
};

static struct child the_child;

static void tell(const struct message *message)
{
    struct pollfd fd = {.fd = the_child.fd, .events = POLLOUT};

    /* libuv has made it non-blocking, and the test may be slow to listen. */
    while (send(the_child.fd, message, sizeof *message, MSG_NOSIGNAL) != sizeof *message)
        if (errno != EAGAIN || poll(&fd, 1, (int)DEADLINE_MS) <= 0) {
            fprintf(stderr, "server %u cannot tell: %s\n", (unsigned)the_child.node.id, strerror(errno));
            _exit(3);
        }
}

static void on_proposed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                        void *data)
{
    struct message message = {.word = TELL_PROPOSED,
                              .number = (unsigned)(uintptr_t)data,
                              .outcome = outcome,
                              .status = result != NULL ? result->status : 0};

    snprintf(message.text, sizeof message.text, "%s", reason);
    tell(&message);
}

static void on_barrier(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    tell(&(struct message){.word = TELL_BARRIER,
                           .number = (unsigned)(uintptr_t)data,
                           .outcome = outcome,
                           .size = registry_unit_count(store_registry(the_child.node.store))});
}

static void on_changed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct message message = {.word = TELL_CHANGED, .outcome = outcome};

    snprintf(message.text, sizeof message.text, "%s", reason);
    tell(&message);
}

static void on_event(struct node *node)
{
    tell(&(struct message){.word = TELL_LEADS, .number = node->leads});
}

static void on_fatal(struct node *node, const char *why)
{
    struct message message = {.word = TELL_FATAL};

    snprintf(message.text, sizeof message.text, "%s", why);
    tell(&message); /* And returns: the store must end the process all the same. */
}

static void on_closed(void *data)
{
    _exit(0);
}

static void obey(const struct message *message)
{
    struct node *node = &the_child.node;
    struct message answer = {.word = TELL_FATAL};
    struct err err = {0};

    switch (message->word) {
    case SAY_OPEN:
        node->bootstrap = message->number;
        if (node_open(node, &err) < 0) {
            snprintf(answer.text, sizeof answer.text, "%.*s", TEXT_MAX - 1, err.text);
            tell(&answer);
            _exit(2);
        }
        break;
    case SAY_PROPOSE:
        node_propose(node, message->number, message->size, on_proposed, (void *)(uintptr_t)message->number);
        break;
    case SAY_BARRIER: store_barrier(node->store, on_barrier, (void *)(uintptr_t)message->number); break;
    case SAY_CHANGE:
        store_change_server(node->store, message->id, message->text, (enum server_role)message->role,
                            on_changed, NULL);
        break;
    case SAY_LOOK:
        tell(&(struct message){.word = TELL_LOOK,
                               .id = node_registry_hash(node),
                               .number = (unsigned)registry_unit_count(store_registry(node->store)),
                               .size = registry_version(store_registry(node->store))});
        break;
    case SAY_CLOSE: node_close(node, on_closed, NULL); break;
    default: abort();
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct message message;

    while (recv(the_child.fd, &message, sizeof message, MSG_DONTWAIT) == sizeof message)
        obey(&message);
}

static void run_child(int fd, uint64_t id, const char *directory, const char *address)
{
    struct child *child = &the_child;
    struct message message = {.word = TELL_ADDRESS};

    end_without_leaks();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child->fd = fd;
    uv_loop_init(&child->loop);
    child->node = (struct node){.loop = &child->loop,
                                .id = id,
                                .cluster = 7,
                                .snapshot_log_bytes = 4 * DISK_WATCH_MIB,
                                .on_event = on_event,
                                .on_fatal = on_fatal};
    snprintf(child->node.directory, sizeof child->node.directory, "%s", directory);
    snprintf(child->node.address, sizeof child->node.address, "%s", address);
    node_listen(&child->node);
    snprintf(message.text, sizeof message.text, "%s", child->node.address);
    tell(&message);
    uv_poll_init(&child->loop, &child->poll, fd);
    uv_poll_start(&child->poll, UV_READABLE, on_readable);
    uv_run(&child->loop, UV_RUN_DEFAULT);
    _exit(4);
}

/* ---- the cluster: in the test ---- */

enum book { FREE, ASKED, ACKNOWLEDGED, IN_DOUBT, REFUSED };

struct server {
    pid_t pid; /* 0: not running. */
    int fd;
    char directory[160], address[ADDRESS_MAX + 1];
    bool leads, looked;
    unsigned units;
    uint64_t hash, version;
    char fatal[TEXT_MAX];
};

struct cluster {
    char directory[64];
    struct server servers[SERVERS_MAX];
    unsigned count;
    bool mounted; /* The first server's directory. */
    enum book books[COMMANDS_MAX];
    uint8_t asked_of[COMMANDS_MAX];
    unsigned asked, acknowledged, refused, stale_reads, bad_status, barriers, changed;
    struct message last; /* The last refusal, or change. */
};

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Whoever is gone leaves what it was asked in doubt. */
static void server_gone(struct cluster *c, struct server *s)
{
    int status;

    waitpid(s->pid, &status, 0);
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "server %d ended: exit %d, signal %d\n", (int)(s - c->servers) + 1,
                WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_VALGRIND);
    close(s->fd);
    s->pid = 0;
    s->leads = false;
    for (unsigned i = 0; i < COMMANDS_MAX; i++)
        if (c->books[i] == ASKED && &c->servers[c->asked_of[i]] == s)
            c->books[i] = IN_DOUBT, c->asked--;
}

static void proposed(struct cluster *c, const struct message *m)
{
    enum book *book = &c->books[m->number];

    if (*book != ASKED)
        return;
    c->asked--;
    switch (m->outcome) {
    case STORE_APPLIED:
        *book = ACKNOWLEDGED;
        c->acknowledged++;
        c->bad_status += m->status != 0;
        break;
    case STORE_REFUSED:
        *book = REFUSED;
        c->refused++;
        c->last = *m;
        break;
    case STORE_UNKNOWN: *book = IN_DOUBT; break;
    }
}

static void handle(struct cluster *c, struct server *s, const struct message *m)
{
    switch (m->word) {
    case TELL_ADDRESS: memcpy(s->address, m->text, sizeof s->address); break;
    case TELL_LEADS: s->leads = m->number; break;
    case TELL_PROPOSED: proposed(c, m); break;
    case TELL_BARRIER:
        c->barriers++;
        c->stale_reads += m->outcome == STORE_APPLIED && m->size < m->number;
        break;
    case TELL_CHANGED:
        c->changed++;
        c->last = *m;
        break;
    case TELL_LOOK:
        s->looked = true;
        s->units = m->number;
        s->hash = m->id;
        s->version = m->size;
        break;
    case TELL_FATAL:
        memcpy(s->fatal, m->text, sizeof s->fatal);
        if (getenv("VERBOSE") != NULL)
            fprintf(stderr, "server %d: %s\n", (int)(s - c->servers) + 1, s->fatal);
        break;
    default: abort();
    }
}

/* Waits up to 'ms' for anything to be told, and takes it in. */
static void listen_to_servers(struct cluster *c, int ms)
{
    struct pollfd fds[SERVERS_MAX];
    struct message m;

    for (unsigned i = 0; i < c->count; i++)
        fds[i] = (struct pollfd){.fd = c->servers[i].pid != 0 ? c->servers[i].fd : -1, .events = POLLIN};
    if (poll(fds, c->count, ms) <= 0)
        return;
    for (unsigned i = 0; i < c->count; i++) {
        struct server *s = &c->servers[i];
        ssize_t n;

        if (fds[i].revents == 0)
            continue;
        while ((n = recv(s->fd, &m, sizeof m, MSG_DONTWAIT)) == sizeof m)
            handle(c, s, &m);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            server_gone(c, s);
    }
}

#define WAIT(c, condition)                                                     \
    do {                                                                       \
        uint64_t _until = now_ms() + DEADLINE_MS;                              \
        while (!(condition) && now_ms() < _until)                              \
            listen_to_servers((c), 50);                                        \
        if (!(condition))                                                      \
            fail_msg("never came true in %u ms: %s", DEADLINE_MS, #condition); \
    } while (0)

static void say(struct server *s, const struct message *message)
{
    if (s->pid != 0)
        (void)!send(s->fd, message, sizeof *message, MSG_NOSIGNAL);
}

static void server_start(struct cluster *c, struct server *s, bool found)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        /* The parent's ends must be nobody else's, or a death does not show. */
        for (unsigned i = 0; i < c->count; i++)
            if (&c->servers[i] != s && c->servers[i].pid != 0)
                close(c->servers[i].fd);
        close(fds[0]);
        run_child(fds[1], (uint64_t)(s - c->servers) + 1, s->directory, s->address);
    }
    close(fds[1]);
    s->fd = fds[0];
    s->leads = false;
    s->fatal[0] = '\0';
    say(s, &(struct message){.word = SAY_OPEN, .number = found});
    WAIT(c, s->address[0] != '\0');
}

static void send_kill(const struct server *s)
{
    if (s->pid <= 0) /* kill(0) would be meant for the test and whoever started it. */
        fail_msg("a server was gone already: %s", s->fatal);
    kill(s->pid, SIGKILL);
}

static void server_kill(struct cluster *c, struct server *s)
{
    send_kill(s);
    WAIT(c, s->pid == 0);
}

static struct server *leader(struct cluster *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->servers[i].pid != 0 && c->servers[i].leads)
            return &c->servers[i];
    return NULL;
}

static void change(struct cluster *c, struct server *s, enum server_role role)
{
    struct message message = {.word = SAY_CHANGE, .id = (uint64_t)(s - c->servers) + 1, .role = (int)role};
    unsigned before = c->changed;

    memcpy(message.text, s->address, sizeof s->address);
    say(leader(c), &message);
    WAIT(c, c->changed > before);
    if (c->last.outcome != STORE_APPLIED)
        fail_msg("%s", c->last.text);
}

static void ask(struct cluster *c, struct server *s, unsigned number, size_t size)
{
    assert_true(number < COMMANDS_MAX);
    c->books[number] = ASKED;
    c->asked_of[number] = (uint8_t)(s - c->servers);
    c->asked++;
    say(s, &(struct message){.word = SAY_PROPOSE, .number = number, .size = size});
}

/* Asks again whatever was not acknowledged, until everything up to 'count' is. */
static void insist(struct cluster *c, unsigned count, size_t size)
{
    uint64_t until = now_ms() + DEADLINE_MS;
    bool open = true;

    while (open && now_ms() < until) {
        struct server *s = leader(c);

        open = false;
        for (unsigned i = 0; i < count; i++) {
            open = open || c->books[i] != ACKNOWLEDGED;
            if (s != NULL && c->asked < ASKED_MAX / 2 && c->books[i] != ACKNOWLEDGED && c->books[i] != ASKED)
                ask(c, s, i, size);
        }
        if (open)
            listen_to_servers(c, 20);
    }
    if (open)
        fail_msg("not all of %u commands came through: %u are asked, the last refusal was \"%s\", %s leads",
                 count, c->asked, c->last.text, leader(c) != NULL ? leader(c)->address : "nobody");
}

static bool all_look_alike(struct cluster *c, unsigned units)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->servers[i].units != units || c->servers[i].hash != c->servers[0].hash)
            return false;
    return true;
}

/* Nothing is missing, nothing is there twice, and everybody has the same. */
static void assert_equal_everywhere(struct cluster *c, unsigned units)
{
    uint64_t until = now_ms() + DEADLINE_MS;

    do {
        for (unsigned i = 0; i < c->count; i++) {
            struct server *s = &c->servers[i];

            s->looked = false;
            say(s, &(struct message){.word = SAY_LOOK});
            WAIT(c, s->looked || s->pid == 0);
            if (s->pid == 0)
                fail_msg("server %u is gone: %s", i + 1, s->fatal);
        }
    } while (!all_look_alike(c, units) && now_ms() < until);
    if (!all_look_alike(c, units)) {
        for (unsigned i = 0; i < c->count; i++)
            print_error("server %u: %u units, version %llu, hash %016llx\n", i + 1, c->servers[i].units,
                        (unsigned long long)c->servers[i].version, (unsigned long long)c->servers[i].hash);
        fail_msg("not all have the same %u units", units);
    }
    for (unsigned i = 0; i < c->count; i++)
        assert_int_equal(c->servers[i].version, units);
    assert_int_equal(c->bad_status, 0);
    assert_int_equal(c->stale_reads, 0);
}

static void sink(int priority, const char *message, const char *const *fields)
{
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "[%d] %s\n", (int)getpid(), message);
}

static int setup(void **state)
{
    struct cluster *c = NEW0(struct cluster);

    log_set_sink(sink);
    make_test_directory(c->directory, sizeof c->directory);
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        snprintf(c->servers[i].directory, sizeof c->servers[i].directory, "%s/%u", c->directory, i + 1);
    *state = c;
    return 0;
}

static void found_three(struct cluster *c)
{
    for (c->count = 1; c->count <= 3; c->count++) {
        struct server *s = &c->servers[c->count - 1];

        server_start(c, s, c->count == 1);
        if (c->count > 1) {
            change(c, s, SERVER_STANDBY);
            change(c, s, SERVER_VOTER);
        }
        WAIT(c, leader(c) != NULL);
    }
    c->count = 3;
}

static int teardown(void **state)
{
    struct cluster *c = *state;

    for (unsigned i = 0; i < c->count; i++) {
        if (c->servers[i].pid <= 0)
            continue;
        send_kill(&c->servers[i]);
        server_gone(c, &c->servers[i]);
    }
    if (c->mounted)
        umount2(c->servers[0].directory, MNT_DETACH);
    remove_directory(c->directory);
    free(c);
    return 0;
}

/* ---- kill -9 ---- */

/* Proposes up to command 'until' of the leader, with reads in between, as long as it lives. */
static void write_until(struct cluster *c, unsigned *next, unsigned until)
{
    struct server *s = leader(c);
    unsigned barriers = c->barriers;

    assert_non_null(s);
    while (*next < until && s->pid != 0) {
        while (*next < until && c->asked < ASKED_MAX)
            ask(c, s, (*next)++, NODE_TEXT_SMALL);
        if (barriers - c->barriers < BARRIERS_MAX) {
            say(s, &(struct message){.word = SAY_BARRIER, .number = c->acknowledged});
            barriers++;
        }
        listen_to_servers(c, 1);
    }
}

static void test_leader_is_killed_while_it_writes(void **state)
{
    struct cluster *c = *state;
    unsigned next = 0, in_doubt = 0;

    found_three(c);
    for (unsigned round = 1; round <= 3; round++) {
        struct server *dead = leader(c);

        write_until(c, &next, 300 * round);
        server_kill(c, dead);
        for (unsigned i = 0; i < next; i++)
            in_doubt += c->books[i] == IN_DOUBT;
        WAIT(c, leader(c) != NULL);
        insist(c, next, NODE_TEXT_SMALL);
        server_start(c, dead, dead == &c->servers[0]);
        assert_equal_everywhere(c, next);
        WAIT(c, leader(c) != NULL);
    }
    assert_true(in_doubt > 0);
}

static void test_all_are_killed_while_they_write(void **state)
{
    struct cluster *c = *state;
    unsigned next = 0;

    found_three(c);
    write_until(c, &next, 500);
    for (unsigned i = 0; i < 3; i++)
        send_kill(&c->servers[i]);
    WAIT(c, c->servers[0].pid == 0 && c->servers[1].pid == 0 && c->servers[2].pid == 0);
    for (unsigned i = 0; i < 3; i++)
        server_start(c, &c->servers[i], i == 0);
    WAIT(c, leader(c) != NULL);
    insist(c, next, NODE_TEXT_SMALL);
    assert_equal_everywhere(c, next);
}

/* ---- full disks ---- */

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
    _cleanup_(freep) char *command = NULL;
    va_list ap;

    va_start(ap, format);
    command = xvasprintf(format, ap);
    va_end(ap);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

/* What is mounted from now on is ours alone. In a chroot, "/" need not be a mount point: then the test's
 * directory is made one. */
static int mount_for_ourselves(const char *directory)
{
    if (unshare(CLONE_NEWNS) < 0)
        return -errno;
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0)
        return 0;
    if (errno != EINVAL || mount(directory, directory, "none", MS_BIND, NULL) < 0 ||
        mount("none", directory, "none", MS_PRIVATE, NULL) < 0)
        return -errno;
    return 0;
}

/* The first server's directory gets a file system of its own, of 256 MiB. */
static void give_small_disk(struct cluster *c)
{
    const char *directory = c->servers[0].directory;
    int r;

    if (geteuid() != 0)
        fail_msg("this test mounts a small file system, and so needs root");
    r = mount_for_ourselves(c->directory);
    if (r < 0)
        fail_msg("no mount namespace of our own: %s", strerror(-r));
    run("mkdir %s && truncate -s 256M %s.image && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -m 0 %s.image",
        directory, directory, directory);
    run("mount -o loop %s.image %s", directory, directory);
    c->mounted = true;
}

/* Leaves only 'mib' free, or as little as there is. */
static void fill_disk(const struct server *s, uint64_t mib)
{
    _cleanup_(freep) char *path = xasprintf("%s/filler", s->directory);
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    uint64_t available, size = 0;

    assert_true(fd >= 0);
    assert_int_equal(disk_watch_free(s->directory, &available, NULL), 0);
    size = (uint64_t)lseek(fd, 0, SEEK_END);
    available = available > mib * DISK_WATCH_MIB ? available - mib * DISK_WATCH_MIB : 0;
    for (uint64_t step = available; step >= 4096; step /= 2)
        while (available >= step && posix_fallocate(fd, (off_t)size, (off_t)step) == 0) {
            size += step;
            available -= step;
        }
}

static void free_disk(const struct server *s)
{
    _cleanup_(freep) char *path = xasprintf("%s/filler", s->directory);

    assert_int_equal(unlink(path), 0);
}

/* Something must go on, or the disk is looked at seldom. */
static void ask_one(struct cluster *c, struct server *s, unsigned *next)
{
    unsigned number = (*next)++;

    ask(c, s, number, NODE_TEXT_SMALL);
    WAIT(c, c->books[number] != ASKED);
    listen_to_servers(c, 10); /* Not more than the books have room for. */
}

/* With nobody to hand over to it refuses, with the reason, and goes on when there is room again. */
static void test_low_disk_of_one(void **state)
{
    struct cluster *c = *state;
    struct server *s = &c->servers[0];
    uint64_t until;
    unsigned next = 0;

    give_small_disk(c);
    c->count = 1;
    server_start(c, s, true);
    WAIT(c, leader(c) == s);
    write_until(c, &next, 100);
    fill_disk(s, 40);
    until = now_ms() + DEADLINE_MS;
    while (c->refused == 0 && now_ms() < until)
        ask_one(c, s, &next);
    assert_non_null(strstr(c->last.text, "MiB are free in"));

    free_disk(s);
    insist(c, next, NODE_TEXT_SMALL);
    assert_equal_everywhere(c, next);

    /* So it is from the first moment on, if it starts like that. */
    say(s, &(struct message){.word = SAY_CLOSE});
    WAIT(c, s->pid == 0);
    fill_disk(s, 40);
    server_start(c, s, true);
    WAIT(c, leader(c) == s);
    ask_one(c, s, &next);
    assert_int_equal(c->books[next - 1], REFUSED);
    free_disk(s);
    insist(c, next, NODE_TEXT_SMALL);
}

static void test_full_disk_of_three(void **state)
{
    struct cluster *c = *state;
    struct server *small = &c->servers[0];
    uint64_t until;
    unsigned next = 0;

    give_small_disk(c);
    found_three(c);
    assert_ptr_equal(leader(c), small);
    write_until(c, &next, 100);

    /* The leader's disk gets low: somebody else takes over, and it follows. */
    fill_disk(small, 40);
    until = now_ms() + DEADLINE_MS;
    while (small->leads && now_ms() < until)
        ask_one(c, small, &next);
    WAIT(c, leader(c) != NULL && leader(c) != small);
    insist(c, next, NODE_TEXT_SMALL);
    assert_equal_everywhere(c, next);

    /* Full to the last byte, and more is written than was laid out in advance: it stops and says why, and
     * after that has everything again. */
    fill_disk(small, 0);
    until = now_ms() + DEADLINE_MS;
    while (small->pid != 0 && now_ms() < until)
        if (leader(c) != NULL)
            insist(c, ++next, 512 * 1024);
        else
            listen_to_servers(c, 50);
    assert_int_equal(small->pid, 0);
    assert_non_null(strstr(small->fatal, "no space"));
    WAIT(c, leader(c) != NULL);
    insist(c, next, 512 * 1024);
    free_disk(small);
    server_start(c, small, true);
    assert_equal_everywhere(c, next);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_leader_is_killed_while_it_writes),
        TEST(test_all_are_killed_while_they_write),
        TEST(test_low_disk_of_one),
        TEST(test_full_disk_of_three),
    };

    if (getenv("FILTER") != NULL)
        cmocka_set_test_filter(getenv("FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
