/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound ownership: a variable marked _cleanup_(f) is released by f when it goes out of scope, and
 * TAKE_PTR() hands its value to a new owner, visibly. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define TAKE_PTR(p)                \
    ({                             \
        __typeof__(p) *_pp = &(p); \
        __typeof__(p) _v = *_pp;   \
        *_pp = NULL;               \
        _v;                        \
    })

#define TAKE_FD(fd)        \
    ({                     \
        int *_pfd = &(fd); \
        int _v = *_pfd;    \
        *_pfd = -1;        \
        _v;                \
    })

/* Defines NAME_freep() for _cleanup_(NAME_freep) out of a NULL-safe NAME_free(). */
#define DEFINE_FREEP(type, name)              \
    static inline void name##_freep(type **p) \
    {                                         \
        name##_free(*p);                      \
    }

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void fclosep(FILE **f)
{
    if (*f != NULL)
        fclose(*f);
}

static inline void closedirp(DIR **d)
{
    if (*d != NULL)
        closedir(*d);
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The object that holds the member that 'ptr' points to. */
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
