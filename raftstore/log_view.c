/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/log_view.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#define PIECE_SIZE 65536u

struct log_view {
    char *path;
    int directory; /* It, whatever its name stands for later; open, so that no other gets its inode. */
    pid_t janitor;
    int alive; /* At the other end of this socket the janitor hears that we are done, or sees that we have
                * ended. */
};

static bool is_empty(const uint8_t *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* What is zero stays a hole. */
static int copy_bytes(int from, int to)
{
    _cleanup_(freep) uint8_t *piece = xmalloc(PIECE_SIZE);
    off_t size = 0;
    ssize_t n;

    while ((n = read(from, piece, PIECE_SIZE)) > 0) {
        if (!is_empty(piece, (size_t)n)) {
            int r = lseek(to, size, SEEK_SET) < 0 ? -errno : file_write_all(to, piece, (size_t)n);

            if (r < 0)
                return r;
        }
        size += n;
    }
    return n < 0 || ftruncate(to, size) < 0 ? -errno : 0;
}

static int copy_file(const char *path, int directory, const char *name)
{
    _cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(closep) int to = -1;

    if (from < 0)
        return -errno;
    to = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return to < 0 ? -errno : copy_bytes(from, to);
}

/* What libraft writes into in place, or may. */
static bool is_changed(const char *name)
{
    return str_has_prefix(name, "open-") || str_has_prefix(name, "metadata");
}

static int fill(const struct log_view *view, const char *directory, struct err *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(directory);
    const struct dirent *entry;

    if (dir == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name);
        int r;

        if (streq(name, ".") || streq(name, ".."))
            continue;
        if (is_changed(name))
            r = copy_file(path, view->directory, name);
        else
            r = symlinkat(path, view->directory, name) < 0 ? -errno : 0;
        if (r < 0)
            return err_set(
                err, r,
                "cannot read %s: %s. What may change of it is copied to %s first: is there room, and "
                "may it be written? TMPDIR says where else",
                path, strerror(-r), view->path);
    }
    return 0;
}

/* ---- clearing up ---- */

/* Whether the path still leads to it. As long as it does, a sticky place such as /tmp lets nobody else take
 * the name away; as soon as it does not, the name is anybody's, for a link to anything. */
static bool is_in_place(const struct log_view *view)
{
    struct stat ours, named;

    return fstat(view->directory, &ours) == 0 && lstat(view->path, &named) == 0 &&
           ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

/* It holds files and links only. They are removed from the directory that was made, and from no other that
 * may be found under its name. rmdir() follows no link. */
static int clear(const struct log_view *view)
{
    int fd = openat(view->directory, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    if (dir == NULL) {
        int r = -errno;

        if (fd >= 0)
            close(fd);
        return r;
    }
    while ((entry = readdir(dir)) != NULL)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            (void)unlinkat(fd, entry->d_name, 0);
    if (!is_in_place(view))
        return -ENOENT;
    return rmdir(view->path) < 0 ? -errno : 0;
}

/* Keeps nothing else open: the lock of the data directory is not to outlive who has it. Not so the standard
 * streams: whoever has read what we say to the end finds nothing left. No close_range(), which Linux has
 * since 5.9: closefrom() manages without. */
static void close_others(const struct log_view *view, int end)
{
    int last = end > view->directory ? end : view->directory;

    if (last < STDERR_FILENO)
        last = STDERR_FILENO;
    for (int fd = STDERR_FILENO + 1; fd < last; fd++)
        if (fd != end && fd != view->directory)
            (void)close(fd);
    closefrom(last + 1);
}

/* Exits with 0 only where nothing is left. */
static _Noreturn void run_janitor(const struct log_view *view, int end)
{
    char byte;

    close_others(view, end);
    while (read(end, &byte, 1) < 0 && errno == EINTR)
        ;
    _exit(clear(view) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* A socket, not a pipe: writing to a janitor that somebody has killed is to raise no SIGPIPE. */
static int start_janitor(struct log_view *view)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    view->janitor = fork();
    if (view->janitor == 0)
        run_janitor(view, ends[0]);
    if (view->janitor < 0) {
        int r = -errno;

        close(ends[0]);
        close(ends[1]);
        return r;
    }
    close(ends[0]);
    view->alive = ends[1];
    return 0;
}

static int make_directory(struct log_view *view, const char *log, struct err *err)
{
    struct stat st;

    if (mkdtemp(view->path) == NULL)
        return err_set(err, -errno, "cannot make %s, for reading %s: %s. TMPDIR says where else", view->path,
                       log, strerror(errno));
    view->directory = open(view->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (view->directory < 0 || fstat(view->directory, &st) < 0) {
        int r = err_set(err, -errno, "cannot open %s, which was just made for reading %s: %s", view->path,
                        log, strerror(errno));

        (void)rmdir(view->path);
        return r;
    }
    if (st.st_uid != geteuid()) /* TMPDIR is where others may rename what is ours. */
        return err_set(err, -EPERM,
                       "%s, which was just made for reading %s, is another user's: let TMPDIR be a directory "
                       "that only you may write to, or a sticky one",
                       view->path, log);
    return 0;
}

/* With a janitor from the first moment on, which no signal but SIGKILL stops. */
static int make(struct log_view *view, const char *log, struct err *err)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    r = make_directory(view, log, err);
    if (r >= 0) {
        r = start_janitor(view);
        if (r < 0) {
            err_set(err, r, "cannot begin the process that removes %s again: %s", view->path, strerror(-r));
            (void)rmdir(view->path);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static void view_freep(struct log_view **view)
{
    if (*view == NULL)
        return;
    if ((*view)->directory >= 0)
        close((*view)->directory);
    free((*view)->path);
    free(*view);
}

int log_view_new(const char *directory, struct log_view **ret, struct err *err)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *whole = realpath(directory, NULL); /* Links are relative to the view otherwise. */
    _cleanup_(view_freep) struct log_view *view = NULL;
    int r;

    if (whole == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    view = NEW0(struct log_view);
    view->directory = -1;
    view->path = xasprintf("%s/fleet-log-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    r = make(view, directory, err);
    if (r < 0)
        return r;
    r = fill(view, whole, err);
    if (r < 0) {
        log_view_free(TAKE_PTR(view));
        return r;
    }
    *ret = TAKE_PTR(view);
    return 0;
}

const char *log_view_path(const struct log_view *view)
{
    return view->path;
}

/* The janitor is told, and does not only see its socket closed: a process that was forked from this one since
 * may have it open, too. */
static bool end_janitor(struct log_view *view)
{
    int status;
    pid_t pid;

    (void)send(view->alive, "", 1, MSG_NOSIGNAL);
    close(view->alive);
    do
        pid = waitpid(view->janitor, &status, 0);
    while (pid < 0 && errno == EINTR);
    return pid == view->janitor && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

void log_view_free(struct log_view *view)
{
    if (view == NULL)
        return;
    if (!end_janitor(view)) /* Somebody has killed it, or it could not. */
        (void)clear(view);
    view_freep(&view);
}
