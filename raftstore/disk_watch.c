/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/disk_watch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/cleanup.h"

const char *disk_level_name(enum disk_level level)
{
    static const char *const names[] = {
        [DISK_LEVEL_OK] = "ok", [DISK_LEVEL_LOW] = "low", [DISK_LEVEL_CRITICAL] = "critical"};

    assert((unsigned)level < ARRAY_SIZE(names));
    return names[level];
}

enum disk_level disk_level_next(enum disk_level level, uint64_t free_bytes)
{
    uint64_t low = DISK_WATCH_LOW_BYTES, critical = DISK_WATCH_CRITICAL_BYTES;

    if (level >= DISK_LEVEL_LOW)
        low += DISK_WATCH_SLACK_BYTES;
    if (level >= DISK_LEVEL_CRITICAL)
        critical += DISK_WATCH_SLACK_BYTES;

    if (free_bytes < critical)
        return DISK_LEVEL_CRITICAL;
    return free_bytes < low ? DISK_LEVEL_LOW : DISK_LEVEL_OK;
}

int disk_level_reason(enum disk_level level, uint64_t free_bytes, const char *directory, struct err *err)
{
    if (level == DISK_LEVEL_OK)
        return 0;
    return err_set(err, -ENOSPC, "only %" PRIu64 " MiB are free in %s", free_bytes / DISK_WATCH_MIB,
                   directory);
}

int disk_watch_free(const char *directory, uint64_t *ret_bytes, struct err *err)
{
    struct statvfs fs;

    if (statvfs(directory, &fs) < 0)
        return err_set(err, -errno, "cannot ask for the free space of %s: %s", directory, strerror(errno));
    *ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}

static int allocate(const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;
    int r;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_blocks * 512 >= DISK_WATCH_BALLAST_BYTES)
        return 0;
    r = posix_fallocate(fd, 0, (off_t)DISK_WATCH_BALLAST_BYTES);
    if (r != 0) {
        if (ftruncate(fd, 0) < 0) /* Half a ballast takes room and is of no use. */
            return -errno;
        return -r;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int disk_watch_keep_ballast(const char *directory, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, DISK_WATCH_BALLAST_NAME);
    int r = allocate(path);

    if (r < 0)
        return err_set(err, r, "cannot keep a ballast of %" PRIu64 " MiB in %s: %s",
                       DISK_WATCH_BALLAST_BYTES / DISK_WATCH_MIB, path, strerror(-r));
    return 0;
}
