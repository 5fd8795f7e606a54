/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/tunnel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetctl/ssh.h"

#define PROCESSES_MAX 4    /* One at a time is used; one before it may still be about. */
#define END_MS        2000 /* How long ssh has to end by itself, and again after SIGTERM. */

#define SSH_FAILED   255 /* ssh(1) */
#define NO_SUCH_FILE 127 /* The shell there. */

extern char **environ;

struct tunnel {
    char *host;
    struct strlist argv;
    bool forwards;        /* fleetctl fd-forward runs there. */
    int listener, handle; /* The handle is what 'path' names. */
    char *path;
    pid_t processes[PROCESSES_MAX]; /* The oldest first. */
    size_t process_count;
    char *trouble; /* Of the last that ended. */
};

/* Listens on a socket without a name: nobody else can find it, and nothing is left behind, however we end. It
 * cannot be an abstract one: libcurl (as of 7.88) makes a new connection to such for every request. */
static int listen_unseen(struct tunnel *t, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char folder[] = P_tmpdir "/fleetctl-XXXXXX";
    int r = 0;

    if (mkdtemp(folder) == NULL)
        return err_set(err, -errno, "%s: %s", folder, strerror(errno));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    t->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (t->listener < 0 || bind(t->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(t->listener, PROCESSES_MAX) < 0 ||
        (t->handle = open(address.sun_path, O_PATH | O_CLOEXEC)) < 0)
        r = err_set(err, -errno, "%s: %s", address.sun_path, strerror(errno));
    unlink(address.sun_path);
    rmdir(folder);
    t->path = xasprintf("/proc/self/fd/%d", t->handle);
    return r;
}

int tunnel_new(const struct options *o, const struct endpoint *endpoint, struct tunnel **ret, struct err *err)
{
    /* Settings of the user's for a login that would get into the way: a terminal, forwardings, a command. */
    const char *const words[] = {"-T",
                                 "-o",
                                 "ClearAllForwardings=yes",
                                 "-o",
                                 "RemoteCommand=none",
                                 endpoint->socket == NULL ? "-W" : NULL,
                                 endpoint->host_port,
                                 NULL};
    _cleanup_(tunnel_freep) struct tunnel *t = NEW0(struct tunnel);
    int r;

    t->listener = t->handle = -1;
    t->host = xstrdup(o->tunnel);
    t->forwards = endpoint->socket != NULL;
    r = ssh_add_words(o, words, o->tunnel, &t->argv, err);
    if (r < 0)
        return err_prefix(err, r, "--tunnel");
    if (t->forwards) {
        _cleanup_(freep) char *path = ssh_quote(endpoint->socket);

        strlist_add(&t->argv, "--");
        strlist_take(&t->argv, xasprintf("fleetctl fd-forward %s", path));
    }
    strlist_take(&t->argv, NULL); /* For exec. */
    r = listen_unseen(t, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

const char *tunnel_path(const struct tunnel *t)
{
    return t->path;
}

/* --- Ending --- */

/* Whether the process has ended by then. */
static bool ends_within(int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int r;

    do
        r = poll(&p, 1, timeout_ms);
    while (r < 0 && errno == EINTR);
    return r > 0;
}

/* Waits for the process; false if it had to be told to end, which says nothing of how it fared. */
static bool reap(pid_t pid, int *ret_status)
{
    _cleanup_(closep) int pidfd = pidfd_open(pid, 0);
    bool by_itself = pidfd >= 0 && ends_within(pidfd, END_MS);

    if (!by_itself) {
        kill(pid, SIGTERM);
        if (pidfd < 0 || !ends_within(pidfd, END_MS))
            kill(pid, SIGKILL);
    }
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    return by_itself;
}

static char *describe(const struct tunnel *t, int status)
{
    if (WIFSIGNALED(status))
        return xasprintf("ssh to %s was ended by signal %d", t->host, WTERMSIG(status));
    if (WEXITSTATUS(status) == 0)
        return NULL;
    if (WEXITSTATUS(status) == SSH_FAILED)
        return xasprintf("ssh to %s failed", t->host);
    if (t->forwards && WEXITSTATUS(status) == NO_SUCH_FILE)
        return xasprintf("there is no fleetctl on %s", t->host);
    if (t->forwards)
        return xasprintf("fleetctl fd-forward on %s failed", t->host);
    return xasprintf("ssh to %s ended with exit status %d", t->host, WEXITSTATUS(status));
}

/* With its connection closed, it has seen the end of its input. */
static void reap_oldest(struct tunnel *t)
{
    const pid_t pid = t->processes[0];
    int status = 0;

    free(t->trouble);
    t->trouble = reap(pid, &status) ? describe(t, status) : NULL;
    memmove(t->processes, t->processes + 1, --t->process_count * sizeof *t->processes);
}

/* --- Starting --- */

/* Starts ssh with 'fd' as its stdin and stdout, and signals as a program expects them. */
static int spawn(struct tunnel *t, int fd, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    int r;

    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, fd, STDOUT_FILENO);
    /* curl's sockets do not close on exec; ssh with our end of its connection would never see it end. */
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    r = posix_spawnp(ret, t->argv.items[0], &files, &attributes, t->argv.items, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return -r;
}

static void log_words(const struct tunnel *t)
{
    _cleanup_(strbuf_done) struct strbuf line = {0};

    for (size_t i = 0; t->argv.items[i] != NULL; i++)
        strbuf_addf(&line, "%s[%s]", i > 0 ? " " : "", t->argv.items[i]);
    log_debug("runs %s", line.text);
}

int tunnel_serve(struct tunnel *t, struct err *err)
{
    for (;;) {
        _cleanup_(closep) int fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
        int r;

        if (fd < 0)
            return 0;
        if (t->process_count == PROCESSES_MAX)
            reap_oldest(t);
        log_words(t);
        r = spawn(t, fd, &t->processes[t->process_count]);
        if (r < 0)
            return err_set(err, -ENOTCONN, "cannot run ssh: %s", strerror(-r));
        t->process_count++;
    }
}

const char *tunnel_trouble(struct tunnel *t)
{
    while (t->process_count > 0)
        reap_oldest(t);
    return t->trouble;
}

void tunnel_free(struct tunnel *t)
{
    if (t == NULL)
        return;
    while (t->process_count > 0)
        reap_oldest(t);
    closep(&t->listener);
    closep(&t->handle);
    free(t->path);
    strlist_done(&t->argv);
    free(t->host);
    free(t->trouble);
    free(t);
}
