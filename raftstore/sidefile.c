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
#include "base/file.h"
#include "base/hex.h"
#include "base/str.h"
#include "raftstore/digest.h"

#define FORMAT_VERSION 1
#define LINE_MAX_SIZE  256
#define ADVICE         "wipe it and let this host join again as a new server"

/* ---- Writing ---- */

static size_t format_line(const struct sidefile *file, char *line)
{
    char id[2 * SIDEFILE_CLUSTER_ID_SIZE + 1], sum[DIGEST_TEXT_SIZE];
    int n;

    id_to_hex(file->cluster_id, sizeof file->cluster_id, id);
    n = snprintf(line, LINE_MAX_SIZE,
                 "fleet-progress %d cluster=%s server=%016" PRIx64 " term=%" PRIu64 " committed=%" PRIu64,
                 FORMAT_VERSION, id, file->server_id, file->term, file->committed);
    digest_text(line, (size_t)n, sum);
    n += snprintf(line + n, LINE_MAX_SIZE - (size_t)n, " digest=%s\n", sum);
    return (size_t)n;
}

int sidefile_write(const char *directory, const struct sidefile *file, struct err *err)
{
    _cleanup_(closep) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char line[LINE_MAX_SIZE];
    int r = fd < 0 ? -errno : file_replace(fd, SIDEFILE_NAME, line, format_line(file, line), 0600);

    if (r < 0)
        return err_set(err, r, "cannot write %s/%s: %s", directory, SIDEFILE_NAME, strerror(-r));
    return 0;
}

/* ---- Reading ---- */

/* Whether the line is what somebody wrote who knows more than we do: its checksum is right. */
static bool is_sound(const char *line)
{
    const char *last = strstr(line, " digest=");
    char sum[DIGEST_TEXT_SIZE];

    if (last == NULL)
        return false;
    digest_text(line, (size_t)(last - line), sum);
    return str_has_prefix(last + strlen(" digest="), sum);
}

static int parse_line(const char *line, struct sidefile *ret)
{
    char id[2 * SIDEFILE_CLUSTER_ID_SIZE + 1], again[LINE_MAX_SIZE];
    struct sidefile file;
    unsigned version;

    if (sscanf(line, "fleet-progress %u ", &version) != 1)
        return -EBADMSG;
    if (version != FORMAT_VERSION)
        return is_sound(line) ? -EPROTONOSUPPORT : -EBADMSG;
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
    return strlen(line) == (size_t)n ? 0 : -EBADMSG; /* What was lost in a crash is often zeroes. */
}

int sidefile_read(const char *directory, struct sidefile *ret, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    char line[LINE_MAX_SIZE];
    int r = read_line(path, line);

    if (r < 0 && r != -EBADMSG)
        return err_set(err, r, "cannot read %s: %s", path, strerror(-r));
    if (r >= 0)
        r = parse_line(line, ret);
    if (r == -EPROTONOSUPPORT)
        return err_set(err, r,
                       "%s was written by a later version of fleetd than this one (" PACKAGE_VERSION
                       "), which does not know its format: install that version",
                       path);
    if (r < 0)
        return err_set(err, r, "%s is damaged: it is unknown how far the log in %s had come; %s", path,
                       directory, ADVICE);
    return 0;
}

/* Segments are set aside full of zeroes; the first entry brings a header (raft/uv.h). After a power cut the
 * newest entries, and of a young server all of them, are in such a file. */
static bool is_begun(int directory_fd, const char *name)
{
    static const uint8_t none[8];
    _cleanup_(closep) int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC);
    uint8_t head[sizeof none];

    return fd >= 0 && read(fd, head, sizeof head) == (ssize_t)sizeof head &&
           memcmp(head, none, sizeof none) != 0;
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
        /* Closed segments are FIRST-LAST. */
        else if (str_has_prefix(name, "snapshot-") || (name[0] >= '0' && name[0] <= '9') ||
                 (str_has_prefix(name, "open-") && is_begun(dirfd(dir), name)))
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
