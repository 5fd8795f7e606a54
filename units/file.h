/* SPDX-License-Identifier: Apache-2.0 */
/* A unit file as the list of its options, by the grammar of the first fleet (fleet-behaviour.md §2.3, §2.6).
 * The serialised text is what is stored, hashed, shown by `fleetctl cat` and written on hosts.
 *
 * Not every list of options survives its own text: what is about to be stored goes through unit_file_check(),
 * wherever it came from. Text that passed it parses to the same options again, but for white space around a
 * value, and for a value that ends in a backslash: the next line becomes part of it. The first fleet took
 * those, too. */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"

#define UNIT_FILE_SIZE_MAX    (256 * 1024) /* Bytes of text. */
#define UNIT_FILE_LINE_MAX    2048 /* A physical line, and a section's name, has fewer bytes (§2.3). */
#define UNIT_FILE_OPTIONS_MAX 4096

#define UNIT_HASH_SIZE 41 /* 40 hex digits of SHA-1 and a NUL. */

struct unit_option {
    char *section, *name, *value; /* Owned; never NULL, may be "". */
};

struct unit_file {
    struct unit_option *options; /* In file order. */
    size_t count, capacity;
};

struct unit_file *unit_file_new(void);
void unit_file_free(struct unit_file *file);
DEFINE_FREEP(struct unit_file, unit_file)

/* Parses text as found in a file or sent by a client. The caller owns *ret. -EINVAL: it is no unit file, with
 * "line N: why"; -E2BIG: a limit was met. Text without any section gives zero options and 0. A NUL byte in
 * what would be kept is refused. Text outside UTF-8 is kept as it is. */
int unit_file_parse(const char *text, size_t size, struct unit_file **ret, struct err *err);

/* Appends an option; copies its strings. What the API sends arrives this way. */
void unit_file_add(struct unit_file *file, const char *section, const char *name, const char *value);

/* The text of §2.6: sections gathered under their first header. Never NULL, owned by the caller; *ret_size,
 * if not NULL, is its length. */
char *unit_file_serialize(const struct unit_file *file, size_t *ret_size);

/* Refuses options that do not survive their own text (white space around a name or value, and what follows a
 * backslash at the end, aside), such as a value with a newline that would smuggle in a second option (§2.3
 * fault), or names and sections with characters that end them: -EINVAL and a text. -E2BIG: a limit was met.
 */
int unit_file_check(const struct unit_file *file, struct err *err);

/* The first value of an option, or NULL. Borrowed. */
const char *unit_file_get(const struct unit_file *file, const char *section, const char *name);

/* SHA-1 of serialised text, in lower-case hex: the identity of a unit's content. */
void unit_hash(const char *text, size_t size, char ret[static UNIT_HASH_SIZE]);
