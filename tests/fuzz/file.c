/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/file.h"

#include <assert.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int fuzz_file_new(const uint8_t *data, size_t size, char path[static FUZZ_PATH_SIZE])
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    ssize_t n = fd >= 0 ? pwrite(fd, data, size, 0) : -1;

    assert(n >= 0 && (size_t)n == size);
    snprintf(path, FUZZ_PATH_SIZE, "/proc/self/fd/%d", fd);
    return fd;
}
