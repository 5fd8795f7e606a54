/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are written whole. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Writes all of it, however many calls that takes. */
int file_write_all(int fd, const void *bytes, size_t size);

/* Makes a directory that all may read, whatever the umask, unless it is there. */
int file_make_directory(const char *path);

/* Replaces 'name' in an open directory: whatever happens when, the old content or the new one is there,
 * whole, and after a return of 0 it is the new one, also after a power cut. Writes through 'name'.new, and
 * leaves nothing behind where it fails. */
int file_replace(int directory_fd, const char *name, const void *bytes, size_t size, mode_t mode);
