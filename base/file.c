/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"

int file_write_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return 0;
}

int file_make_directory(const char *path)
{
    if (mkdir(path, 0755) < 0)
        return errno == EEXIST ? 0 : -errno;
    return chmod(path, 0755) < 0 ? -errno : 0; /* The umask is for what nobody else is to read. */
}

static int write_synced(int directory_fd, const char *name, const void *bytes, size_t size, mode_t mode)
{
    _cleanup_(closep) int fd =
        openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    int r = fd < 0 ? -errno : file_write_all(fd, bytes, size);

    return r >= 0 && fsync(fd) < 0 ? -errno : r;
}

int file_replace(int directory_fd, const char *name, const void *bytes, size_t size, mode_t mode)
{
    _cleanup_(freep) char *temporary = xasprintf("%s.new", name);
    int r = write_synced(directory_fd, temporary, bytes, size, mode);

    if (r >= 0 && renameat(directory_fd, temporary, directory_fd, name) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(directory_fd, temporary, 0);
        return r;
    }
    return fsync(directory_fd) < 0 ? -errno : 0;
}
