/* SPDX-License-Identifier: Apache-2.0 */
/* The units directory: one file per unit, named like it, holding its serialised text and nothing else. It
 * lives in a tmpfs, so calls are short. A file is complete or not there: it is written under another name,
 * then renamed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "units/file.h"

/* Makes the directory (0755, also its parents) if needed. *ret is a descriptor that the caller closes. */
int agent_files_open(const char *directory, int *ret, struct err *err);

/* Calls 'each' for every unit's file; 'install': it has an [Install] section. Leftovers of a write that was
 * cut short are deleted, files that are no unit of ours are left alone, with one warning for all. */
int agent_files_scan(int fd, const char *directory,
                     void (*each)(const char *name, const char *hash, bool install, void *data), void *data,
                     struct err *err);

/* Always with a later mtime than the file it replaces: systemd compares them to see whether it needs a
 * reload. */
int agent_files_write(int fd, const char *name, const char *text, size_t size, struct err *err);

/* A file that is not there is no error. */
int agent_files_remove(int fd, const char *name, struct err *err);

/* Whether the text has an [Install] section with anything in it. */
bool agent_files_has_install(const char *text, size_t size);
