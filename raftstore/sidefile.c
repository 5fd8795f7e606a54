/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/sidefile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/str.h"

#define FORMAT_VERSION 1
#define LINE_MAX_SIZE  256
#define TEMPORARY_NAME SIDEFILE_NAME ".new"
#define ADVICE         "wipe it and let this host join again as a new server"

/* CRC-32 (ISO 3309, as in zlib), bit by bit: a line a second. */
static uint32_t crc32(const char *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

/* ---- Writing ---- */

static size_t format_line(const struct sidefile *file, char *line)
{
    char id[2 * SIDEFILE_CLUSTER_ID_SIZE + 1];
    int n;

    id_to_hex(file->cluster_id, sizeof file->cluster_id, id);
    n = snprintf(line, LINE_MAX_SIZE,
                 "fleet-progress %d cluster=%s server=%016" PRIx64 " term=%" PRIu64 " committed=%" PRIu64,
                 FORMAT_VERSION, id, file->server_id, file->term, file->committed);
    n += snprintf(line + n, LINE_MAX_SIZE - (size_t)n, " crc=%08" PRIx32 "\n", crc32(line, (size_t)n));
    return (size_t)n;
}

static int write_synced(int directory_fd, const char *name, const char *bytes, size_t size)
{
    _cleanup_(closep) int fd = openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = write(fd, bytes, size);
    if (n < 0)
        return -errno;
    if ((size_t)n < size)
        return -ENOSPC;
    return fsync(fd) < 0 ? -errno : 0;
}

/* Either the old line or the new one is there, whole, whatever happens when. */
static int replace(int directory_fd, const char *bytes, size_t size)
{
    int r = write_synced(directory_fd, TEMPORARY_NAME, bytes, size);

    if (r >= 0 && renameat(directory_fd, TEMPORARY_NAME, directory_fd, SIDEFILE_NAME) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(directory_fd, TEMPORARY_NAME, 0);
        return r;
    }
    return fsync(directory_fd) < 0 ? -errno : 0;
}

int sidefile_write(const char *directory, const struct sidefile *file, struct err *err)
{
    _cleanup_(closep) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char line[LINE_MAX_SIZE];
    int r = fd < 0 ? -errno : replace(fd, line, format_line(file, line));

    if (r < 0)
        return err_set(err, r, "cannot write %s/%s: %s", directory, SIDEFILE_NAME, strerror(-r));
    return 0;
}

/* ---- Reading ---- */

static int parse_line(const char *line, struct sidefile *ret)
{
    char id[2 * SIDEFILE_CLUSTER_ID_SIZE + 1], again[LINE_MAX_SIZE];
    struct sidefile file;
    unsigned version;

    if (sscanf(line, "fleet-progress %u ", &version) != 1)
        return -EBADMSG;
    if (version != FORMAT_VERSION)
        return -EPROTONOSUPPORT;
    if (sscanf(line, "fleet-progress %*u cluster=%32s server=%" SCNx64 " term=%" SCNu64 " committed=%" SCNu64,
               id, &file.server_id, &file.term, &file.committed) != 4 ||
        !id_from_hex(id, file.cluster_id, sizeof file.cluster_id))
        return -EBADMSG;
    /* There is one way to write it, checksum included. */
    format_line(&file, again);
    if (!streq(line, again))
        return -EBADMSG;
    *ret = file;
    return 0;
}

static int read_line(const char *path, char *line)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, line, LINE_MAX_SIZE - 1);
    if (n < 0)
        return -errno;
    line[n] = '\0';
    return 0;
}

int sidefile_read(const char *directory, struct sidefile *ret, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    char line[LINE_MAX_SIZE];
    int r = read_line(path, line);

    if (r < 0)
        return err_set(err, r, "cannot read %s: %s", path, strerror(-r));
    r = parse_line(line, ret);
    if (r == -EPROTONOSUPPORT)
        return err_set(err, r, "%s was written by a later version of fleet", path);
    if (r < 0)
        return err_set(err, r, "%s is damaged: it is unknown how far the log in %s had come; %s", path,
                       directory, ADVICE);
    return 0;
}

int sidefile_look(const char *directory, struct sidefile_state *state, struct err *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(directory);
    const struct dirent *entry;

    if (dir == NULL)
        return err_set(err, -errno, "cannot read %s: %s", directory, strerror(errno));
    state->has_metadata = state->has_log = false;
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;

        if (streq(name, "metadata1") || streq(name, "metadata2"))
            state->has_metadata = true;
        /* Closed segments are FIRST-LAST; open-N are preallocated, and mean nothing by themselves. */
        else if (str_has_prefix(name, "snapshot-") || (name[0] >= '0' && name[0] <= '9'))
            state->has_log = true;
    }
    return 0;
}

/* ---- Judging ---- */

int sidefile_check_owner(const struct sidefile *file, const struct sidefile_state *state,
                         const char *directory, struct err *err)
{
    char recorded[2 * SIDEFILE_CLUSTER_ID_SIZE + 1], ours[2 * SIDEFILE_CLUSTER_ID_SIZE + 1];

    if (memcmp(file->cluster_id, state->cluster_id, sizeof file->cluster_id) != 0) {
        id_to_hex(file->cluster_id, sizeof file->cluster_id, recorded);
        id_to_hex(state->cluster_id, sizeof state->cluster_id, ours);
        return err_set(err, -EXDEV, "%s belongs to cluster %s, not to %s", directory, recorded, ours);
    }
    if (file->server_id != state->server_id)
        return err_set(err, -EXDEV, "%s belongs to server %016" PRIx64 ", this is %016" PRIx64, directory,
                       file->server_id, state->server_id);
    return 0;
}

int sidefile_check(const struct sidefile *file, const struct sidefile_state *state, const char *directory,
                   struct err *err)
{
    int r = file != NULL ? sidefile_check_owner(file, state, directory, err) : 0;

    if (r < 0)
        return r;
    if (!state->has_metadata && (state->has_log || (file != NULL && file->term > 0)))
        return err_set(err, -ESTALE,
                       "%s has lost its term and vote (metadata1 and metadata2 are missing): this server "
                       "might vote twice; %s",
                       directory, ADVICE);
    if (file == NULL)
        return 0;
    if (state->term < file->term)
        return err_set(err, -ESTALE,
                       "the term in %s is %" PRIu64 " but had reached %" PRIu64
                       ": this disk went back in time; %s",
                       directory, state->term, file->term, ADVICE);
    if (state->last_index < file->committed)
        return err_set(err, -ESTALE,
                       "the log in %s ends at %" PRIu64 " but had reached %" PRIu64
                       ": this disk went back in time; %s",
                       directory, state->last_index, file->committed, ADVICE);
    return 0;
}
