/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"

bool str_has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

void strbuf_add_bytes(struct strbuf *b, const void *bytes, size_t size)
{
    GROW(b->text, b->capacity, b->size + size + 1);
    if (size > 0)
        memcpy(b->text + b->size, bytes, size);
    b->size += size;
    b->text[b->size] = '\0';
}

void strbuf_add(struct strbuf *b, const char *s)
{
    strbuf_add_bytes(b, s, strlen(s));
}

void strbuf_addf(struct strbuf *b, const char *format, ...)
{
    _cleanup_(freep) char *s = NULL;
    va_list ap;

    va_start(ap, format);
    s = xvasprintf(format, ap);
    va_end(ap);
    strbuf_add(b, s);
}

char *strbuf_take(struct strbuf *b)
{
    char *s = b->text != NULL ? b->text : xstrdup("");

    *b = (struct strbuf){0};
    return s;
}

void strbuf_done(struct strbuf *b)
{
    free(b->text);
    *b = (struct strbuf){0};
}

void strlist_take(struct strlist *l, char *s)
{
    GROW(l->items, l->capacity, l->count + 1);
    l->items[l->count++] = s;
}

void strlist_add(struct strlist *l, const char *s)
{
    strlist_take(l, xstrdup(s));
}

bool strlist_has(const struct strlist *l, const char *s)
{
    for (size_t i = 0; i < l->count; i++)
        if (streq(l->items[i], s))
            return true;
    return false;
}

void strlist_remove(struct strlist *l, const char *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->count; i++) {
        if (streq(l->items[i], s))
            free(l->items[i]);
        else
            l->items[kept++] = l->items[i];
    }
    l->count = kept;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void strlist_sort(struct strlist *l)
{
    if (l->count > 1)
        qsort(l->items, l->count, sizeof *l->items, compare_strings);
}

void strlist_done(struct strlist *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct strlist){0};
}

void strlist_add_split(struct strlist *l, const char *s, char separator)
{
    while (*s != '\0') {
        const char *end = strchrnul(s, separator), *next = *end != '\0' ? end + 1 : end;

        while (s < end && (*s == ' ' || *s == '\t'))
            s++;
        while (end > s && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        if (end > s)
            strlist_take(l, xstrndup(s, (size_t)(end - s)));
        s = next;
    }
}
