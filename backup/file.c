/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "backup/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/str.h"

#define MAGIC       "fleet-backup "
#define HEAD_MAX    4096u
#define SUM_KEY     "sha256: "
#define TRAIL_SIZE  (sizeof SUM_KEY - 1 + 2 * SHA256_DIGEST_SIZE + 1)
#define CHUNK_BYTES (256u * 1024)

/* ---- the header's lines ---- */

struct field {
    const char *key;
    size_t offset;
    bool is_number;
};

#define FIELD(key, member, number)                          \
    {                                                       \
        key, offsetof(struct backup_header, member), number \
    }

static const struct field fields[] = {
    FIELD("cluster", cluster, false),  FIELD("made", made, false),        FIELD("version", version, false),
    FIELD("host", host, false),        FIELD("changes", changes, true),   FIELD("units", units, true),
    FIELD("contents", contents, true), FIELD("machines", machines, true), FIELD("size", size, true),
};

static void put_field(struct strbuf *to, const struct backup_header *header, const struct field *field)
{
    const char *place = (const char *)header + field->offset;

    if (field->is_number)
        strbuf_addf(to, "%s: %" PRIu64 "\n", field->key, *(const uint64_t *)place);
    else
        strbuf_addf(to, "%s: %s\n", field->key, place);
}

static bool take_value(struct backup_header *header, const struct field *field, const char *value)
{
    char *place = (char *)header + field->offset, *end;

    if (!field->is_number) {
        snprintf(place, BACKUP_TEXT_MAX, "%s", value);
        return strlen(value) < BACKUP_TEXT_MAX;
    }
    errno = 0;
    *(uint64_t *)place = strtoull(value, &end, 10);
    return value[0] >= '0' && value[0] <= '9' && *end == '\0' && errno == 0;
}

/* One line without its end; cuts it into key and value. Unknown keys are a later version's additions. */
static bool take_line(struct backup_header *header, char *line, unsigned *seen)
{
    char *colon = strstr(line, ": ");

    if (colon == NULL)
        return false;
    *colon = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (streq(fields[i].key, line)) {
            *seen |= 1u << i;
            return take_value(header, &fields[i], colon + 2);
        }
    return true;
}

/* ---- writing ---- */

static int put(struct backup_writer *writer, const void *bytes, size_t size)
{
    sha256_update(&writer->sum, size, bytes);
    return file_write_all(writer->fd, bytes, size);
}

int backup_begin(struct backup_writer *writer, int fd, const struct backup_header *header)
{
    _cleanup_(strbuf_done) struct strbuf text = {0};

    if (header->size > BACKUP_SIZE_MAX)
        return -EFBIG;
    strbuf_addf(&text, MAGIC "%u\n", BACKUP_FORMAT);
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (!fields[i].is_number && strpbrk((const char *)header + fields[i].offset, "\r\n") != NULL)
            return -EINVAL;
        put_field(&text, header, &fields[i]);
    }
    strbuf_add(&text, "\n");
    *writer = (struct backup_writer){.fd = fd, .left = header->size};
    sha256_init(&writer->sum);
    return put(writer, text.text, text.size);
}

int backup_add(struct backup_writer *writer, const void *bytes, uint64_t size)
{
    if (size > writer->left)
        return -EFBIG;
    writer->left -= size;
    return put(writer, bytes, size);
}

int backup_end(struct backup_writer *writer)
{
    uint8_t sum[SHA256_DIGEST_SIZE];
    char hex[2 * SHA256_DIGEST_SIZE + 1], line[TRAIL_SIZE + 1];

    if (writer->left > 0)
        return -ENODATA;
    sha256_digest(&writer->sum, sizeof sum, sum);
    id_to_hex(sum, sizeof sum, hex);
    snprintf(line, sizeof line, SUM_KEY "%s\n", hex);
    return file_write_all(writer->fd, line, TRAIL_SIZE);
}

/* ---- reading ---- */

struct reader {
    const char *path;
    FILE *file;
    struct sha256_ctx sum;
    struct err *err;
};

static int damaged(const struct reader *reader, const char *why)
{
    return err_set(reader->err, -EBADMSG, "%s is damaged: %s", reader->path, why);
}

/* What is at the end of the file instead of more of it. */
static int too_short(const struct reader *reader)
{
    if (ferror(reader->file))
        return err_set(reader->err, -EIO, "cannot read %s: %s", reader->path, strerror(errno));
    return damaged(reader, "it ends too early");
}

/* The next line, without its end. 1: there is one; 0: it is empty. */
static int read_line(struct reader *reader, char *line, size_t size, size_t *left)
{
    size_t n;

    if (fgets(line, (int)size, reader->file) == NULL)
        return too_short(reader);
    n = strlen(line);
    if (n == 0 || line[n - 1] != '\n' || n > *left)
        return feof(reader->file) ? too_short(reader)
                                  : damaged(reader, "a line of its header makes no sense");
    *left -= n;
    sha256_update(&reader->sum, n, (const uint8_t *)line);
    line[n - 1] = '\0';
    return n > 1;
}

static int read_format(struct reader *reader, size_t *left, unsigned *ret)
{
    char line[sizeof MAGIC + 16];

    /* Not through read_line(): any file may be named, and most are none of ours. */
    if (fgets(line, sizeof line, reader->file) == NULL || !str_has_prefix(line, MAGIC) ||
        sscanf(line + sizeof MAGIC - 1, "%u", ret) != 1 || *ret == 0)
        return ferror(reader->file)
                   ? too_short(reader)
                   : err_set(reader->err, -EBADMSG, "%s is no backup of fleet's", reader->path);
    *left -= strlen(line);
    sha256_update(&reader->sum, strlen(line), (const uint8_t *)line);
    return 0;
}

static int read_header(struct reader *reader, struct backup_header *header)
{
    char line[BACKUP_TEXT_MAX + 64];
    size_t left = HEAD_MAX;
    unsigned format, seen = 0;
    int r = read_format(reader, &left, &format);

    if (r < 0)
        return r;
    while ((r = read_line(reader, line, sizeof line, &left)) > 0)
        if (!take_line(header, line, &seen))
            return damaged(reader, "a line of its header makes no sense");
    if (format != BACKUP_FORMAT)
        return err_set(reader->err, -EPROTONOSUPPORT,
                       "%s has format %u and was written by fleet %s; this is fleet " PACKAGE_VERSION
                       ", which knows format %u: use fleet %s or later",
                       reader->path, format,
                       header->version[0] != '\0' ? header->version : "of a later version", BACKUP_FORMAT,
                       header->version[0] != '\0' ? header->version : "that version");
    if (r < 0)
        return r;
    if (seen != (1u << ARRAY_SIZE(fields)) - 1)
        return damaged(reader, "its header is not whole");
    if (header->size > BACKUP_SIZE_MAX)
        return err_set(reader->err, -EFBIG, "%s says that it holds %" PRIu64 " bytes, the limit is %" PRIu64,
                       reader->path, header->size, BACKUP_SIZE_MAX);
    return 0;
}

/* With no 'to' they are only summed up. */
static int read_data(struct reader *reader, uint64_t size, uint8_t *to)
{
    _cleanup_(freep) uint8_t *chunk = to == NULL ? xmalloc(CHUNK_BYTES) : NULL;

    while (size > 0) {
        size_t want = size < CHUNK_BYTES ? (size_t)size : CHUNK_BYTES;
        uint8_t *place = to != NULL ? to : chunk;

        if (fread(place, 1, want, reader->file) != want)
            return too_short(reader);
        sha256_update(&reader->sum, want, place);
        size -= want;
        if (to != NULL)
            to += want;
    }
    return 0;
}

static int read_trail(struct reader *reader)
{
    uint8_t sum[SHA256_DIGEST_SIZE];
    char hex[2 * SHA256_DIGEST_SIZE + 1], line[TRAIL_SIZE + 1], expected[TRAIL_SIZE + 1];

    if (fread(line, 1, TRAIL_SIZE, reader->file) != TRAIL_SIZE)
        return too_short(reader);
    sha256_digest(&reader->sum, sizeof sum, sum);
    id_to_hex(sum, sizeof sum, hex);
    snprintf(expected, sizeof expected, SUM_KEY "%s\n", hex);
    if (memcmp(line, expected, TRAIL_SIZE) != 0)
        return damaged(reader, "its checksum does not match");
    return fgetc(reader->file) == EOF ? 0 : damaged(reader, "something follows behind its end");
}

/* Whether the file can be as long as it says, before so much memory is taken. */
static bool is_long_enough(FILE *file, uint64_t size)
{
    long at = ftell(file), end;

    if (at < 0 || fseek(file, 0, SEEK_END) < 0)
        return false;
    end = ftell(file);
    return fseek(file, at, SEEK_SET) == 0 && end >= at && (uint64_t)(end - at) >= size;
}

int backup_read(const char *path, struct backup_header *ret, uint8_t **ret_data, struct err *err)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    _cleanup_(freep) uint8_t *data = NULL;
    struct reader reader = {.path = path, .file = file, .err = err};
    struct backup_header header = {0};
    int r;

    if (file == NULL)
        return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    sha256_init(&reader.sum);
    r = read_header(&reader, &header);
    if (r >= 0 && !is_long_enough(file, header.size))
        r = damaged(&reader, "it ends too early");
    if (r < 0)
        return r;
    if (ret_data != NULL)
        data = xmalloc((size_t)header.size + 1);
    r = read_data(&reader, header.size, data);
    if (r >= 0)
        r = read_trail(&reader);
    if (r < 0)
        return r;
    *ret = header;
    if (ret_data != NULL)
        *ret_data = TAKE_PTR(data);
    return 0;
}
