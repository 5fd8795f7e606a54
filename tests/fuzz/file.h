/* SPDX-License-Identifier: Apache-2.0 */
/* The input of a fuzz target as a file that nobody else sees, for code that wants a path. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FUZZ_PATH_SIZE 64

/* Puts the path into 'path'; closing the returned descriptor removes the file. */
int fuzz_file_new(const uint8_t *data, size_t size, char path[static FUZZ_PATH_SIZE]);
