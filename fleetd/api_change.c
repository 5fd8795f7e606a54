/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/api_change.h"

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "fleetd/api_json.h"
#include "raftstore/limits.h"
#include "units/name.h"

static int read_option(const json_t *option, struct unit_file *file, struct err *err)
{
    const char *section, *name, *value;
    int r;

    if (!json_is_object(option))
        return err_set(err, -EINVAL, "an option must be an object");
    r = api_json_get_string(option, "section", &section, err);
    if (r >= 0)
        r = api_json_get_string(option, "name", &name, err);
    if (r >= 0)
        r = api_json_get_string(option, "value", &value, err);
    if (r >= 0)
        unit_file_add(file, section, name, value);
    return r;
}

int api_change_read_options(const json_t *options, struct unit_file **ret, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();

    if (json_array_size(options) > UNIT_FILE_OPTIONS_MAX)
        return err_set(err, -E2BIG, "the unit has %zu options, the limit is %d", json_array_size(options),
                       UNIT_FILE_OPTIONS_MAX);
    for (size_t i = 0; i < json_array_size(options); i++) {
        int r = read_option(json_array_get(options, i), file, err);

        if (r < 0)
            return err_prefix(err, r, "option %zu", i + 1);
    }
    *ret = TAKE_PTR(file);
    return 0;
}

void api_text_set(struct api_text *text, const struct unit_file *file)
{
    api_text_done(text);
    text->text = unit_file_serialize(file, &text->size);
    unit_hash(text->text, text->size, text->hash);
}

void api_text_done(struct api_text *text)
{
    free(text->text);
    text->text = NULL;
}

int api_change_check_text(const struct unit_file *file, const struct api_text *text, struct err *err)
{
    _cleanup_(requirements_freep) struct requirements *requirements = NULL;
    int r;

    if (text->size > UNIT_FILE_SIZE_MAX)
        return err_set(err, -E2BIG, "the unit is %zu bytes, the limit is %d", text->size, UNIT_FILE_SIZE_MAX);
    r = unit_file_check(file, err);
    if (r < 0)
        return r;
    requirements = requirements_new(file, NULL);
    return requirements_check(requirements, err);
}

int api_change_check_state(const char *name, const char *word, Fleet__DesiredState *ret, struct err *err)
{
    static const Fleet__DesiredState states[UNIT_STATE_COUNT] = {
        [UNIT_STATE_INACTIVE] = FLEET__DESIRED_STATE__DESIRED_INACTIVE,
        [UNIT_STATE_LOADED] = FLEET__DESIRED_STATE__DESIRED_LOADED,
        [UNIT_STATE_LAUNCHED] = FLEET__DESIRED_STATE__DESIRED_LAUNCHED,
    };
    enum unit_state state;
    int r;

    if (word[0] == '\0') {
        *ret = FLEET__DESIRED_STATE__DESIRED_UNCHANGED;
        return 0;
    }
    r = unit_state_from_string(word, &state, err);
    if (r < 0)
        return r;
    if (state != UNIT_STATE_INACTIVE && unit_name_is_template(name))
        return err_set(err, -EINVAL, "cannot activate template \"%s\"", name);
    *ret = states[state];
    return 0;
}

int api_change_check_room(const struct registry *registry, size_t created, size_t destroyed, struct err *err)
{
    size_t count = registry_unit_count(registry);

    if (created > destroyed && count + created - destroyed > UNITS_MAX)
        return err_set(err, -ENOSPC, "the cluster has %zu units, the limit is %u: destroy some first", count,
                       UNITS_MAX);
    return 0;
}

bool api_change_becomes_global(const struct registry_unit *before, const struct requirements *after)
{
    return before != NULL && before->desired != UNIT_STATE_INACTIVE && !before->requirements->global &&
           after != NULL && after->global;
}
