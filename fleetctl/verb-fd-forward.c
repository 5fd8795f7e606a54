/* SPDX-License-Identifier: Apache-2.0 */
/* fd-forward: stdin and stdout as a connection to a Unix socket: the far end of --tunnel, ours and that of
 * the first fleet's client (fleet-behaviour.md §1.3, §1.7). Each direction has its own buffer and its own
 * end: an end of input is passed on as such, and the answer to it still comes back. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

#define BUFFER_SIZE (64 * 1024)

struct stream {
    int in, out;
    char buffer[BUFFER_SIZE];
    size_t begin, end; /* What was read and is not written yet. */
    bool no_more_input, done;
};

static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(closep) int fd = -1;

    if (path[0] == '\0' || strlen(path) >= sizeof address.sun_path)
        return path[0] == '\0' ? -ENOENT : -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* Called when there is something to read, or the end of it: does not block. */
static int fill(struct stream *s)
{
    ssize_t n = read(s->in, s->buffer, BUFFER_SIZE);

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    s->begin = 0;
    s->end = (size_t)n;
    s->no_more_input = n == 0;
    return 0;
}

/* Called when there is room. What is no socket has room for PIPE_BUF bytes then, and blocks for more. */
static int drain(struct stream *s)
{
    const size_t size = s->end - s->begin;
    ssize_t n = send(s->out, s->buffer + s->begin, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno == ENOTSOCK)
        n = write(s->out, s->buffer + s->begin, size < PIPE_BUF ? size : PIPE_BUF);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    s->begin += (size_t)n;
    return 0;
}

static void pass_end_on(struct stream *s)
{
    _cleanup_(closep) int null = -1;

    s->done = true;
    if (shutdown(s->out, SHUT_WR) == 0 || errno != ENOTSOCK)
        return;
    null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* Not closed: stdout is still to be finished with. */
    if (null >= 0)
        dup2(null, s->out);
}

static bool is_empty(const struct stream *s)
{
    return s->begin == s->end;
}

/* One step of one direction. */
static int step(struct stream *s, short in_events, short out_events)
{
    int r = 0;

    if (is_empty(s) && !s->no_more_input && in_events != 0)
        r = fill(s);
    else if (!is_empty(s) && out_events != 0)
        r = drain(s);
    if (r == 0 && is_empty(s) && s->no_more_input && !s->done)
        pass_end_on(s);
    return r;
}

/* What to wait for. A descriptor of -1 is not looked at: one that has hung up would wake us for ever. */
static struct pollfd input_of(const struct stream *s)
{
    return (struct pollfd){.fd = is_empty(s) && !s->no_more_input ? s->in : -1, .events = POLLIN};
}

/* Looked at also when there is nothing to write: whether somebody still reads. */
static struct pollfd output_of(const struct stream *s)
{
    return (struct pollfd){.fd = s->done ? -1 : s->out, .events = is_empty(s) ? 0 : POLLOUT};
}

/* Nobody takes what this direction brings. */
static void give_up(struct stream *s)
{
    s->begin = s->end;
    s->no_more_input = s->done = true;
}

static int forward(struct stream *up, struct stream *down)
{
    while (!up->done || !down->done) {
        struct pollfd p[] = {input_of(up), output_of(up), input_of(down), output_of(down)};
        int r;

        if (poll(p, ARRAY_SIZE(p), -1) < 0) {
            if (errno != EINTR)
                return -errno;
            continue;
        }
        if ((p[3].revents & (POLLERR | POLLHUP)) != 0)
            return 0; /* Nobody is there any more to be told anything. */
        r = step(down, p[2].revents, p[3].revents);
        if (r < 0)
            return r == -EPIPE ? 0 : r;
        r = (p[1].revents & (POLLERR | POLLHUP)) != 0 ? -EPIPE : step(up, p[0].revents, p[1].revents);
        if (r == -EPIPE || r == -ECONNRESET)
            give_up(up); /* What the server said before is still to be delivered. */
        else if (r < 0)
            return r;
    }
    return 0;
}

int verb_fd_forward(struct ctl *ctl, const struct strlist *args)
{
    static struct stream up = {.in = STDIN_FILENO}, down = {.out = STDOUT_FILENO};
    _cleanup_(closep) int fd = dial(args->items[0]);
    int r;

    if (fd < 0) {
        complain("Failed dialing remote address: %s: %s", args->items[0], strerror(-fd));
        return CTL_EXIT_FAILED;
    }
    signal(SIGPIPE, SIG_IGN);
    up.out = down.in = fd;
    r = forward(&up, &down);
    if (r < 0) {
        complain("Encountered error during copy: %s", strerror(-r));
        return CTL_EXIT_FAILED;
    }
    return CTL_EXIT_DONE;
}
