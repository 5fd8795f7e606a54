/* SPDX-License-Identifier: Apache-2.0 */
/* What small files of ours end in, so that damage by chance is noticed. */
#pragma once

#include <stddef.h>

#define DIGEST_TEXT_SIZE 33

/* The first half of the SHA-256 of 'bytes', in hex. */
void digest_text(const void *bytes, size_t size, char ret[DIGEST_TEXT_SIZE]);
