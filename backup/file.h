/* SPDX-License-Identifier: Apache-2.0 */
/* The file that a backup is (docs/RECOVERY.md): some lines for people and for a first look, an empty line,
 * the cluster's data as the daemons know them, and a line with the SHA-256 of everything before it.
 *
 *      fleet-backup 1
 *      cluster: 0123456789abcdef0123456789abcdef
 *      made: 2026-07-29T12:00:03Z
 *      version: 0.1
 *      host: web1
 *      changes: 1200
 *      units: 100
 *      contents: 12
 *      machines: 3
 *      size: 34567
 *
 *      ...
 *      sha256: 6b86b273...
 *
 * What the data mean is no concern of this file: fleetctl writes and checks what it cannot read. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <nettle/sha2.h>

#include "base/err.h"

#define BACKUP_FORMAT   1u
#define BACKUP_SIZE_MAX (UINT64_C(1024) * 1024 * 1024) /* Bytes of data: as many as a snapshot may have. */
#define BACKUP_TEXT_MAX 256u                           /* Bytes of one text of the header, and a NUL. */

struct backup_header {
    char cluster[BACKUP_TEXT_MAX], made[BACKUP_TEXT_MAX], version[BACKUP_TEXT_MAX], host[BACKUP_TEXT_MAX];
    uint64_t changes, units, contents, machines;
    uint64_t size; /* Of the data. */
};

/* A file that is being written, to a descriptor that is borrowed. */
struct backup_writer {
    int fd;
    struct sha256_ctx sum;
    uint64_t left; /* Bytes of data that are still to come. */
};

/* Each returns 0 or a negative errno. Texts with a line's end in them are refused: -EINVAL. */
int backup_begin(struct backup_writer *writer, int fd, const struct backup_header *header);
int backup_add(struct backup_writer *writer, const void *bytes,
               uint64_t size);                /* -EFBIG: more than announced. */
int backup_end(struct backup_writer *writer); /* -ENODATA: less. */

/* Reads the whole file, and compares its checksum. 'ret_data' (NULL: it is only checked) are the data, to be
 * freed. -EBADMSG: it is damaged, cut off, or no backup; -EPROTONOSUPPORT: a later version wrote it; each
 * with a text that names the file. */
int backup_read(const char *path, struct backup_header *ret, uint8_t **ret_data, struct err *err);
