/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/log_view.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#define PIECE_SIZE 65536u

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

static int copy_file(const char *path, const char *copy)
{
    _cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(closep) int to = -1;

    if (from < 0)
        return -errno;
    to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return to < 0 ? -errno : copy_bytes(from, to);
}

/* What libraft writes into in place, or may. */
static bool is_changed(const char *name)
{
    return str_has_prefix(name, "open-") || str_has_prefix(name, "metadata");
}

static int fill(const char *view, const char *directory, struct err *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(directory);
    const struct dirent *entry;

    if (dir == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name);
        _cleanup_(freep) char *here = xasprintf("%s/%s", view, name);
        int r;

        if (streq(name, ".") || streq(name, ".."))
            continue;
        if (is_changed(name))
            r = copy_file(path, here);
        else
            r = symlink(path, here) < 0 ? -errno : 0;
        if (r < 0)
            return err_set(
                err, r,
                "cannot read %s: %s. What may change of it is copied to %s first: is there room, and "
                "may it be written? TMPDIR says where else",
                path, strerror(-r), view);
    }
    return 0;
}

/* ---- clearing up ---- */

struct log_view {
    char *path;
    pid_t janitor;
    int alive; /* An end of a pipe: at the other one the janitor sees that it is closed, by us or by our end.
                */
};

/* It holds files and links only. */
static void clear(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)rmdir(path);
}

/* Keeps nothing else open: the lock of the data directory is not to outlive who has it. Not so the standard
 * streams: whoever has read what we say to the end finds nothing left. */
static void clear_at_the_end(const char *path, int end)
{
    char byte;

    if (end > STDERR_FILENO + 1)
        (void)close_range(STDERR_FILENO + 1, (unsigned)end - 1, 0);
    (void)close_range((unsigned)end + 1, UINT_MAX, 0);
    while (read(end, &byte, 1) < 0 && errno == EINTR)
        ;
    clear(path);
}

static int start_janitor(struct log_view *view)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    view->janitor = fork();
    if (view->janitor == 0) {
        clear_at_the_end(view->path, ends[0]);
        _exit(EXIT_SUCCESS);
    }
    close(ends[0]);
    if (view->janitor < 0) {
        int r = -errno;

        close(ends[1]);
        return r;
    }
    view->alive = ends[1];
    return 0;
}

/* With a janitor from the first moment on, which no signal but SIGKILL stops. */
static int make(struct log_view *view, const char *directory, struct err *err)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (mkdtemp(view->path) == NULL) {
        r = err_set(err, -errno, "cannot make %s, for reading %s: %s. TMPDIR says where else", view->path,
                    directory, strerror(errno));
    } else {
        r = start_janitor(view);
        if (r < 0) {
            err_set(err, r, "cannot begin the process that removes %s again: %s", view->path, strerror(-r));
            (void)rmdir(view->path);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

int log_view_new(const char *directory, struct log_view **ret, struct err *err)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *whole = realpath(directory, NULL); /* Links are relative to the view otherwise. */
    struct log_view *view;
    int r;

    if (whole == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    view = NEW0(struct log_view);
    view->path = xasprintf("%s/fleet-log-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    r = make(view, directory, err);
    if (r < 0) {
        free(view->path);
        free(view);
        return r;
    }
    r = fill(view->path, whole, err);
    if (r < 0) {
        log_view_free(view);
        return r;
    }
    *ret = view;
    return 0;
}

const char *log_view_path(const struct log_view *view)
{
    return view->path;
}

void log_view_free(struct log_view *view)
{
    if (view == NULL)
        return;
    close(view->alive);
    while (waitpid(view->janitor, NULL, 0) < 0 && errno == EINTR)
        ;
    clear(view->path); /* Where somebody has killed the janitor. */
    free(view->path);
    free(view);
}
