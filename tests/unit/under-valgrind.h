/* SPDX-License-Identifier: Apache-2.0 */
/* For tests that must know whether valgrind runs them; without its header they are built as ever. */
#pragma once

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_CLO_CHANGE(option)
#endif

/* What a process exits with in which valgrind has found something (tools/check). */
#define EXIT_VALGRIND 99

/* In a child process that is to end in the middle of its work, as a power cut ends it: what it still has is
 * no leak. All else that valgrind finds in it still becomes its exit code. */
static inline void end_without_leaks(void)
{
    VALGRIND_CLO_CHANGE("--leak-check=no");
}
