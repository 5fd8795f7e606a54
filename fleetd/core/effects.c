/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/effects.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct effect *effects_add(struct effects *effects, enum effect_kind kind)
{
    struct effect *effect;

    GROW(effects->items, effects->capacity, effects->count + 1);
    effect = &effects->items[effects->count++];
    *effect = (struct effect){.kind = kind};
    return effect;
}

void effects_add_log(struct effects *effects, enum core_news news, int priority, const char *machine_id,
                     const char *unit, const char *reason, const char *format, ...)
{
    struct effect *effect = effects_add(effects, EFFECT_LOG);
    va_list ap;

    effect->priority = priority;
    effect->news = news;
    effect->reason = xstrdup(reason);
    snprintf(effect->machine_id, sizeof effect->machine_id, "%s", machine_id);
    if (unit != NULL)
        strlist_add(&effect->names, unit);
    va_start(ap, format);
    effect->text = xvasprintf(format, ap);
    va_end(ap);
}

void effects_done(struct effects *effects)
{
    for (size_t i = 0; i < effects->count; i++) {
        struct effect *effect = &effects->items[i];

        strlist_done(&effect->names);
        strlist_done(&effect->removed);
        for (size_t j = 0; j < effect->placement_count; j++) {
            free(effect->placements[j].unit);
            free(effect->placements[j].reason);
        }
        free(effect->placements);
        free(effect->text);
        free(effect->reason);
    }
    free(effects->items);
    *effects = (struct effects){0};
}
