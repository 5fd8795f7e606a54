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

/* What a unit's [Install] section comes to (systemd.unit(5)). */
enum agent_install {
    AGENT_INSTALL_NONE,  /* It has none. */
    AGENT_INSTALL_EMPTY, /* It has one, but nothing in it by which systemd could enable the unit. */
    AGENT_INSTALL_SOME,
};

/* Calls 'each' for every unit's file. Leftovers of a write that was cut short are deleted, files that are no
 * unit of ours are left alone, with one warning for all. */
int agent_files_scan(int fd, const char *directory,
                     void (*each)(const char *name, const char *hash, enum agent_install install, void *data),
                     void *data, struct err *err);

/* With a later mtime than the file it replaces, or, with 'keep_time', with the same: systemd compares them to
 * see whether it needs a reload. */
int agent_files_write(int fd, const char *name, const char *text, size_t size, bool keep_time,
                      struct err *err);

/* Whether the unit's file and 'text' mean the same to systemd, and differ in [X-Fleet] only. False where
 * there is no file. */
bool agent_files_mean_the_same(int fd, const char *name, const char *text, size_t size);

/* Whether 'path' leads to the unit's file. */
bool agent_files_is(int fd, const char *name, const char *path);

/* A file that is not there is no error. */
int agent_files_remove(int fd, const char *name, struct err *err);

/* Removes what links to the unit's file in the units directory 'directory' from 'links', a part of systemd's
 * search path. DisableUnitFiles does so itself, but not for a unit that an administrator has masked. */
void agent_files_unlink(const char *links, const char *directory, const char *name);

enum agent_install agent_files_install(const char *text, size_t size);
