/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a backup: refused with a text, or just what would be written for what it holds. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backup/file.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/fuzz/file.h"
#include "tests/fuzz/fuzz.h"

static void write_again(const struct backup_header *header, const uint8_t *data)
{
    _cleanup_(closep) int fd = memfd_create("again", MFD_CLOEXEC);
    _cleanup_(freep) char *path = xasprintf("/proc/self/fd/%d", fd);
    _cleanup_(freep) uint8_t *read = NULL;
    struct backup_header second;
    struct backup_writer writer;

    assert(backup_begin(&writer, fd, header) == 0 && backup_add(&writer, data, header->size) == 0 &&
           backup_end(&writer) == 0);
    assert(backup_read(path, &second, &read, NULL) == 0);
    assert(second.units == header->units && strcmp(second.host, header->host) == 0);
    assert(memcmp(read, data, header->size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[FUZZ_PATH_SIZE];
    _cleanup_(closep) int fd = fuzz_file_new(data, size, path);
    _cleanup_(freep) uint8_t *held = NULL;
    struct backup_header header;
    struct err err = {0};

    assert(fd >= 0);
    if (backup_read(path, &header, &held, &err) < 0)
        assert(err.text[0] != '\0');
    else
        write_again(&header, held);
    return 0;
}
