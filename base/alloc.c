/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

void *xmalloc(size_t size)
{
    return checked(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return checked(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xrealloc(void *p, size_t size)
{
    return checked(realloc(p, size > 0 ? size : 1));
}

char *xstrdup(const char *s)
{
    return s == NULL ? NULL : checked(strdup(s));
}

char *xstrndup(const char *s, size_t size)
{
    return checked(strndup(s, size));
}

void *xmemdup(const void *p, size_t size)
{
    void *copy = xmalloc(size);

    if (size > 0)
        memcpy(copy, p, size);
    return copy;
}

char *xvasprintf(const char *format, va_list ap)
{
    char *s;

    if (vasprintf(&s, format, ap) < 0)
        abort();
    return s;
}

char *xasprintf(const char *format, ...)
{
    va_list ap;
    char *s;

    va_start(ap, format);
    s = xvasprintf(format, ap);
    va_end(ap);
    return s;
}
