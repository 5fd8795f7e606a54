/* SPDX-License-Identifier: Apache-2.0 */
/* How the core says what the world must do: see struct effect in core.h. Only the core adds effects. */
#pragma once

#include "fleetd/core/core.h"

struct effect *effects_add(struct effects *effects,
                           enum effect_kind kind); /* Borrowed until the next one is added. */

/* A decision for the journal, about a machine ("": none) and a unit (NULL: none), with its reason (""). */
void effects_add_log(struct effects *effects, enum core_news news, int priority, const char *machine_id,
                     const char *unit, const char *reason, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
