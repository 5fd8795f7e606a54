/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that cannot fail: out of memory aborts the process (systemd starts the daemon again and units
 * run on; a replica that failed to apply would have diverged anyway). So every size that comes from disk,
 * wire or a user must meet a named *_MAX before it gets here. All results are owned by the caller and freed
 * with free(). */
#pragma once

#include <stdarg.h>
#include <stddef.h>

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* Zeroed. */
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s); /* NULL gives NULL. */
char *xstrndup(const char *s, size_t size);
void *xmemdup(const void *p, size_t size); /* Never NULL, also for size 0. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *xvasprintf(const char *format, va_list ap) __attribute__((format(printf, 1, 0)));

#define NEW0(type) ((type *)xcalloc(1, sizeof(type)))

/* Makes room for 'need' items in the array 'items' of capacity 'capacity' (both lvalues). */
#define GROW(items, capacity, need)                                                         \
    do {                                                                                    \
        if ((size_t)(need) > (capacity)) {                                                  \
            (capacity) = (size_t)(need) > 2 * (capacity) ? (size_t)(need) : 2 * (capacity); \
            (items) = xrealloc((items), (capacity) * sizeof(*(items)));                     \
        }                                                                                   \
    } while (0)
