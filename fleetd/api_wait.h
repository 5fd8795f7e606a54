/* SPDX-License-Identifier: Apache-2.0 */
/* POST /wait: requests that are answered when some of the units that they name have settled, or at their
 * deadline. A change of a unit costs only those who wait for that unit. */
#pragma once

#include <stdint.h>

#include "fleetd/api_private.h"

void api_wait_look(struct api *api, const char *unit); /* "": at all. */
void api_wait_tick(struct api *api, uint64_t now_ms);
uint64_t api_wait_deadline_ms(const struct api *api);
