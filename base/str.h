/* SPDX-License-Identifier: Apache-2.0 */
/* Strings: a growing buffer, and the few questions that the C library does not answer. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

bool str_has_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);

/* A growing string. All zero is a valid empty one; 'text' is NULL until something was added. */
struct strbuf {
    char *text; /* Ends in a NUL that 'size' does not count. */
    size_t size, capacity;
};

void strbuf_add(struct strbuf *b, const char *s);
void strbuf_add_bytes(struct strbuf *b, const void *bytes, size_t size);
void strbuf_addf(struct strbuf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *strbuf_take(struct strbuf *b); /* Never NULL; the buffer is empty afterwards. */
void strbuf_done(struct strbuf *b);

/* A list of owned strings, in order. All zero is a valid empty one. */
struct strlist {
    char **items;
    size_t count, capacity;
};

void strlist_add(struct strlist *l, const char *s); /* Copies. */
void strlist_take(struct strlist *l, char *s);      /* Takes ownership of 's'. */
bool strlist_has(const struct strlist *l, const char *s);
void strlist_remove(struct strlist *l, const char *s); /* Every 's' in it. */
void strlist_sort(struct strlist *l);                  /* Bytewise. */
void strlist_done(struct strlist *l);
/* Splits at every 'separator'; surrounding blanks are trimmed, empty parts left out. */
void strlist_add_split(struct strlist *l, const char *s, char separator);
