/* SPDX-License-Identifier: Apache-2.0 */
/* Go's notions of white space, quoting and characters: the first fleet was written in Go, and its rules and
 * messages rest on them (fleet-behaviour.md §2). Internal to units/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the UTF-8 character at 'p' ('p' < 'end'). Returns its size in bytes; a byte that begins no valid
 * character counts as one of size 1 and value U+FFFD. */
size_t text_rune(const char *p, const char *end, uint32_t *ret);

/* Bytes of the white-space character (unicode.IsSpace) that begins at 'p', or that ends just before 'end';
 * 0: it is another one, or there is none. */
size_t text_space(const char *p, const char *end);
size_t text_space_before(const char *p, const char *end);

/* Moves both ends inwards over white space (strings.TrimSpace). */
void text_trim(const char **p, const char **end);

/* As fmt's %q prints a string ("...") or, with text_quote_rune(), the first character ('x'). Owned by the
 * caller. Characters outside ASCII are taken for printable, but for controls and blanks. */
char *text_quote(const char *s);
char *text_quote_rune(const char *s);
