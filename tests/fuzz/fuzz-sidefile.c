/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the file that remembers how far the log had come: refused with a text, or exactly what would
 * be written for what it says. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/sidefile.h"
#include "tests/fuzz/fuzz.h"

#define KEPT_MAX 4096

static void put(const char *directory, const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = fd >= 0 ? write(fd, data, size) : -1;

    assert(n >= 0 && (size_t)n == size);
}

static size_t get(const char *directory, uint8_t kept[static KEPT_MAX])
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, kept, KEPT_MAX) : -1;

    assert(n >= 0);
    return (size_t)n;
}

static void try_in(const char *directory, const uint8_t *data, size_t size)
{
    uint8_t kept[KEPT_MAX];
    struct sidefile file;
    struct err err = {0};
    int r;

    put(directory, data, size);
    r = sidefile_read(directory, &file, &err);
    if (r < 0) {
        assert((r == -EBADMSG || r == -EPROTONOSUPPORT) && err.text[0] != '\0');
        return;
    }
    assert(sidefile_write(directory, &file, &err) == 0);
    assert(get(directory, kept) == size && memcmp(kept, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *directory = xasprintf("%s/fuzz-sidefile.XXXXXX", base != NULL ? base : "/tmp"),
                          *path = NULL;

    assert(mkdtemp(directory) != NULL);
    try_in(directory, data, size);
    path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    unlink(path);
    rmdir(directory);
    return 0;
}
