/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* From now on inih takes lines of up to 'size' bytes, with their newline and a NUL, in the whole process. By
 * itself it cuts off what is behind the 200th, and takes the rest for another line. Debian's inih has its
 * limits as variables; where it has them from its compilation, they stay. */
void ini_limits_lift(size_t size);
