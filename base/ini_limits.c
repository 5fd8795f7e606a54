/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/ini_limits.h"

#include <stdbool.h>

/* Debian's inih has its limits as variables, upstream's as compile-time constants: take what is there. */
extern int ini_max_line __attribute__((weak));
extern bool ini_use_stack __attribute__((weak));
extern int ini_initial_alloc __attribute__((weak));

void ini_limits_lift(size_t size)
{
    if (&ini_max_line == NULL || &ini_use_stack == NULL || &ini_initial_alloc == NULL)
        return;
    ini_use_stack = false;
    ini_max_line = ini_initial_alloc = (int)size;
}
