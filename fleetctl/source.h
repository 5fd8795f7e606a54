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

/* Reads, parses and checks the file as the server will: its grammar, and the rules of [X-Fleet]. The caller
 * owns *ret. -ENOENT: there is no such file; all else is wrong with it, with "path: line N: why". */
int source_read(const char *path, struct source **ret, struct err *err);
void source_free(struct source *s);
DEFINE_FREEP(struct source, source)

/* The file of the template 'template_name' in the folder of 'path'. The caller owns it. */
char *source_template_path(const char *path, const char *template_name);
