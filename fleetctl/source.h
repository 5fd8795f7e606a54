/* SPDX-License-Identifier: Apache-2.0 */
/* Unit files on this computer's disk. */
#pragma once

#include "base/cleanup.h"
#include "base/err.h"
#include "units/file.h"

struct source {
    char *path;
    struct unit_file *file;
    char hash[UNIT_HASH_SIZE];
};

/* Reads and parses the file. The caller owns *ret. -ENOENT: there is no such file; for all else that is wrong
 * with it there is a text ("line N: why"). */
int source_read(const char *path, struct source **ret, struct err *err);

/* Whether the server will take it: the rules of [X-Fleet], and what JSON can carry. */
int source_check(const struct source *s, struct err *err);
void source_free(struct source *s);
DEFINE_FREEP(struct source, source)

/* The file of the template 'template_name' in the folder of 'path'. The caller owns it. */
char *source_template_path(const char *path, const char *template_name);
