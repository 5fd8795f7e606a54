/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/data_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* The directory itself is locked: that needs no room on its disk. The descriptor is meant to stay open. */
int data_lock(const char *data_dir, struct err *err)
{
    int fd;

    if (mkdir(data_dir, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot make %s: %s", data_dir, strerror(errno));
    fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s: %s", data_dir, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) >= 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(err, -EBUSY, "%s is in use by another fleetd: stop it first (systemctl stop fleetd)",
                       data_dir);
    return err_set(err, -errno, "cannot lock %s: %s", data_dir, strerror(errno));
}
