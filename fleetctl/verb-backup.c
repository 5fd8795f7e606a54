/* SPDX-License-Identifier: Apache-2.0 */
/* backup: the cluster's data into a file. The leader holds them still while they are fetched, piece by piece;
 * the file takes its place when it is whole, on the disk, and was read again. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nettle/base64.h>

#include "backup/file.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

/* When the leader changes in between it begins anew. */
#define TRIES_MAX 3u

static const char *unfinished; /* Removed if a signal ends the program. */

/* ---- fetching ---- */

static uint64_t count_of(const json_t *object, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(object, key));

    return n > 0 ? (uint64_t)n : 0;
}

static bool read_text(const json_t *answer, const char *key, char *to)
{
    const char *text = api_text(answer, key);

    snprintf(to, BACKUP_TEXT_MAX, "%s", text);
    return strlen(text) < BACKUP_TEXT_MAX && strpbrk(text, "\r\n") == NULL;
}

static int read_header(const json_t *answer, struct backup_header *ret, struct err *err)
{
    struct backup_header header = {.changes = count_of(answer, "changes"),
                                   .units = count_of(answer, "units"),
                                   .contents = count_of(answer, "contents"),
                                   .machines = count_of(answer, "machines"),
                                   .size = count_of(answer, "size")};
    bool ok = read_text(answer, "cluster", header.cluster) && read_text(answer, "made", header.made) &&
              read_text(answer, "version", header.version) && read_text(answer, "host", header.host);

    if (!ok || header.size == 0)
        return err_set(err, -EBADMSG, "the answer of fleetd makes no sense");
    if (header.size > BACKUP_SIZE_MAX)
        return err_set(err, -EFBIG, "the cluster's data are %" PRIu64 " bytes, the limit is %" PRIu64,
                       header.size, BACKUP_SIZE_MAX);
    *ret = header;
    return 0;
}

static int decode(const char *text, uint8_t *to, size_t *size)
{
    struct base64_decode_ctx base64;

    base64_decode_init(&base64);
    return base64_decode_update(&base64, size, to, strlen(text), text) == 1 &&
                   base64_decode_final(&base64) == 1
               ? 0
               : -EBADMSG;
}

/* The piece at 'offset' into the file. */
static int fetch_piece(struct ctl *ctl, const char *id, uint64_t offset, struct backup_writer *writer,
                       size_t *ret_size, struct err *err)
{
    _cleanup_(freep) char *escaped = api_escape(id),
                          *path = xasprintf("backup/%s?offset=%" PRIu64, escaped, offset);
    _cleanup_(json_decrefp) json_t *answer = NULL;
    _cleanup_(freep) uint8_t *bytes = NULL;
    const char *text;
    size_t size = 0;
    int r = api_call(ctl->api, "GET", path, NULL, 0, &answer, err);

    if (r < 0)
        return r;
    text = answer != NULL ? api_text(answer, "data") : "";
    bytes = xmalloc(BASE64_DECODE_LENGTH(strlen(text)) + 1);
    if (decode(text, bytes, &size) < 0 || size == 0 || count_of(answer, "offset") != offset)
        return err_set(err, -EBADMSG, "the answer of fleetd makes no sense");
    r = backup_add(writer, bytes, size);
    if (r == -EFBIG)
        return err_set(err, -EBADMSG, "fleetd sends more than it has said");
    if (r < 0)
        return err_set(err, r == -ENOENT ? -EIO : r, "cannot write: %s", strerror(-r));
    *ret_size = size;
    return 0;
}

/* All of it, to 'fd', from its present place on. -ENOENT: the leader has changed, and all is to be asked
 * anew. */
static int fetch(struct ctl *ctl, int fd, struct backup_header *ret, struct err *err)
{
    _cleanup_(json_decrefp) json_t *answer = NULL;
    struct backup_writer writer;
    int r = api_call(ctl->api, "GET", "backup", NULL, 0, &answer, err);

    if (r == -ENOENT)
        return err_set(err, -ENOTSUP, "the leader's fleetd is too old to make a backup: upgrade it");
    if (r >= 0)
        r = read_header(answer, ret, err);
    if (r < 0)
        return r;
    r = backup_begin(&writer, fd, ret);
    if (r < 0)
        return err_set(err, r, "cannot write: %s", strerror(-r));
    for (uint64_t offset = 0; offset < ret->size;) {
        size_t size = 0;

        r = fetch_piece(ctl, api_text(answer, "id"), offset, &writer, &size, err);
        if (r < 0)
            return r;
        offset += size;
    }
    r = backup_end(&writer);
    return r < 0 ? err_set(err, r, "cannot write: %s", strerror(-r)) : 0;
}

/* ---- files ---- */

static void on_signal(int number)
{
    if (unfinished != NULL)
        unlink(unfinished);
    signal(number, SIG_DFL);
    raise(number);
}

static void watch_signals(const char *path)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    unfinished = path;
    for (size_t i = 0; path != NULL && i < ARRAY_SIZE(numbers); i++)
        signal(numbers[i], on_signal);
}

static int check_target(const char *path, struct err *err)
{
    struct stat st;

    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s is no file; - is standard output", path);
    return 0;
}

static int fetch_again(struct ctl *ctl, int fd, struct backup_header *ret, struct err *err)
{
    int r = -ENOENT;

    for (unsigned i = 0; i < TRIES_MAX && r == -ENOENT; i++) {
        if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
            return err_set(err, -errno, "cannot write: %s", strerror(errno));
        r = fetch(ctl, fd, ret, err);
    }
    return r;
}

static int sync_parent(const char *path)
{
    _cleanup_(freep) char *copy = xstrdup(path);
    char *slash = strrchr(copy, '/');
    _cleanup_(closep) int fd = -1;

    if (slash != NULL)
        slash[slash == copy ? 1 : 0] = '\0';
    fd = open(slash != NULL ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Fills the new file, makes sure of it, and gives it its name. */
static int fill(struct ctl *ctl, int fd, const char *temporary, const char *path, struct backup_header *ret,
                struct err *err)
{
    int r = fetch_again(ctl, fd, ret, err);

    if (r >= 0 && fsync(fd) < 0)
        r = err_set(err, -errno, "cannot write: %s", strerror(errno));
    if (r >= 0)
        r = backup_read(temporary, ret, NULL, err);
    if (r >= 0 && rename(temporary, path) < 0)
        r = err_set(err, -errno, "cannot rename %s: %s", temporary, strerror(errno));
    if (r >= 0 && (r = sync_parent(path)) < 0)
        r = err_set(err, r, "cannot sync its directory: %s", strerror(-r));
    return r;
}

static int write_file(struct ctl *ctl, const char *path, struct backup_header *ret, struct err *err)
{
    _cleanup_(freep) char *temporary = xasprintf("%s.XXXXXX", path);
    _cleanup_(closep) int fd = -1;
    int r = check_target(path, err);

    if (r < 0)
        return r;
    fd = mkostemp(temporary, O_CLOEXEC); /* Mode 0600: units may well have secrets in them. */
    if (fd < 0)
        return err_set(err, -errno, "%s", strerror(errno));
    watch_signals(temporary);
    r = fill(ctl, fd, temporary, path, ret, err);
    if (r < 0)
        unlink(temporary);
    watch_signals(NULL);
    return r;
}

/* ---- the verb ---- */

static void print_header(FILE *stream, const char *what, const char *path, const struct backup_header *header)
{
    fprintf(stream,
            "%s %s: %" PRIu64 " units, %" PRIu64 " machines, as of %s (change %" PRIu64
            "), cluster %s, by %s "
            "(fleet %s)\n",
            path, what, header->units, header->machines, header->made, header->changes, header->cluster,
            header->host[0] != '\0' ? header->host : "its leader", header->version);
}

static int verify(const char *path)
{
    struct backup_header header;
    struct err err = {0};
    int r = backup_read(path, &header, NULL, &err);

    if (r < 0)
        return ctl_fail(&err, r, NULL);
    print_header(stdout, "is whole", path, &header);
    return CTL_EXIT_DONE;
}

int verb_backup(struct ctl *ctl, const struct strlist *args)
{
    const char *path = args->items[0];
    const bool to_stdout = streq(path, "-");
    struct backup_header header;
    struct err err = {0};
    int r;

    if (ctl->options.verify)
        return verify(path);
    if (to_stdout && isatty(STDOUT_FILENO)) {
        complain("fleetctl backup: a backup is no text: redirect standard output");
        return CTL_EXIT_USAGE;
    }
    r = to_stdout ? fetch(ctl, STDOUT_FILENO, &header, &err) : write_file(ctl, path, &header, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error making a backup in %s", to_stdout ? "standard output" : path);
    print_header(to_stdout ? stderr : stdout, "written", to_stdout ? "backup" : path, &header);
    return CTL_EXIT_DONE;
}
