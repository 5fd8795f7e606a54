/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's settings in the registry: those that somebody has set, as text, by name. Whether a
 * value makes sense was checked by the leader that proposed it (settings.h); here it only has to be small, so
 * that all versions keep the same. One that this version cannot read has its default here. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "raftstore/registry_private.h"

/* Where the setting is, or where it would stand. */
static size_t place_of(const struct registry *registry, const char *name)
{
    size_t i = 0;

    while (i < registry->setting_count && strcmp(registry->settings[i].name, name) < 0)
        i++;
    return i;
}

static bool is_at(const struct registry *registry, size_t i, const char *name)
{
    return i < registry->setting_count && streq(registry->settings[i].name, name);
}

static void set_number(struct registry *registry, const char *name, const char *value)
{
    enum setting_id id;

    if (!settings_find(name, &id))
        return;
    if (value == NULL || settings_parse(id, value, &registry->setting_numbers[id], NULL) < 0)
        registry->setting_numbers[id] = settings_row(id)->fallback;
}

static void reset(struct registry *registry, const char *name)
{
    size_t i = place_of(registry, name);

    set_number(registry, name, NULL);
    if (!is_at(registry, i, name))
        return;
    free(registry->settings[i].name);
    free(registry->settings[i].value);
    registry->setting_count--;
    memmove(&registry->settings[i], &registry->settings[i + 1],
            (registry->setting_count - i) * sizeof *registry->settings);
}

void registry_setting_set(struct registry *registry, const char *name, const char *value)
{
    size_t i = place_of(registry, name);

    set_number(registry, name, value);
    if (is_at(registry, i, name)) {
        free(registry->settings[i].value);
        registry->settings[i].value = xstrdup(value);
        return;
    }
    assert(registry->setting_count < SETTINGS_MAX);
    GROW(registry->settings, registry->setting_capacity, registry->setting_count + 1);
    memmove(&registry->settings[i + 1], &registry->settings[i],
            (registry->setting_count - i) * sizeof *registry->settings);
    registry->settings[i] = (struct registry_setting){.name = xstrdup(name), .value = xstrdup(value)};
    registry->setting_count++;
}

void registry_set_voters(struct registry *registry, uint32_t voters)
{
    _cleanup_(freep) char *value = xasprintf("%" PRIu32, voters);

    if (voters != 0)
        registry_setting_set(registry, settings_row(SETTING_VOTERS)->name, value);
}

char *registry_settings_refusal(const struct registry *registry, Fleet__Setting *const *settings,
                                size_t count)
{
    const char *voters = settings_row(SETTING_VOTERS)->name;
    size_t kept = registry->setting_count + (registry_setting(registry, voters) == NULL);

    for (size_t i = 0; i < count; i++) {
        const Fleet__Setting *setting = settings[i];

        if (setting->name[0] == '\0' || strlen(setting->name) > SETTING_NAME_MAX)
            return xasprintf("a setting's name has 1 to %u bytes", SETTING_NAME_MAX);
        if (streq(setting->name, voters))
            return xasprintf("%s have a place of their own", voters);
        if (strlen(setting->value) > SETTING_VALUE_MAX)
            return xasprintf("the value of setting %s is %zu bytes, the limit is %u", setting->name,
                             strlen(setting->value), SETTING_VALUE_MAX);
        kept += !setting->reset && registry_setting(registry, setting->name) == NULL;
    }
    return kept > SETTINGS_MAX ? xasprintf("there would be more than %u settings", SETTINGS_MAX) : NULL;
}

void registry_settings_change(struct registry *registry, const Fleet__ChangeSettings *command)
{
    for (size_t i = 0; i < command->n_changes; i++) {
        if (command->changes[i]->reset)
            reset(registry, command->changes[i]->name);
        else
            registry_setting_set(registry, command->changes[i]->name, command->changes[i]->value);
    }
    registry_set_voters(registry, command->voters);
    registry->changes.settings = true;
}

void registry_settings_init(struct registry *registry)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        registry->setting_numbers[i] = settings_row((enum setting_id)i)->fallback;
}

void registry_settings_done(struct registry *registry)
{
    for (size_t i = 0; i < registry->setting_count; i++) {
        free(registry->settings[i].name);
        free(registry->settings[i].value);
    }
    free(registry->settings);
}

/* ---- asking ---- */

uint64_t registry_setting_number(const struct registry *registry, enum setting_id id)
{
    assert(id < SETTING_COUNT);
    return registry->setting_numbers[id];
}

char *registry_setting_text(const struct registry *registry, enum setting_id id)
{
    const char *value = registry_setting(registry, settings_row(id)->name);
    char *text;

    return value != NULL && settings_normalise(id, value, &text, NULL) >= 0 ? text : settings_fallback(id);
}

const char *registry_setting(const struct registry *registry, const char *name)
{
    size_t i = place_of(registry, name);

    return is_at(registry, i, name) ? registry->settings[i].value : NULL;
}

const struct registry_setting *registry_settings(const struct registry *registry, size_t *ret_count)
{
    *ret_count = registry->setting_count;
    return registry->settings;
}
