/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/log_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
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

int log_view_new(const char *directory, char **ret, struct err *err)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *whole = realpath(directory, NULL); /* Links are relative to the view otherwise. */
    char *view;
    int r;

    if (whole == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    view = xasprintf("%s/fleet-log-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    if (mkdtemp(view) == NULL) {
        r = err_set(err, -errno, "cannot make %s, for reading %s: %s. TMPDIR says where else", view,
                    directory, strerror(errno));
        free(view);
        return r;
    }
    r = fill(view, whole, err);
    if (r < 0) {
        log_view_free(view);
        return r;
    }
    *ret = view;
    return 0;
}

/* It holds files and links only. */
void log_view_free(char *path)
{
    _cleanup_(closedirp) DIR *dir = path != NULL ? opendir(path) : NULL;
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    if (path != NULL)
        (void)rmdir(path);
    free(path);
}
