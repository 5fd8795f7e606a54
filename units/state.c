/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "units/state.h"

#include <assert.h>
#include <errno.h>

#include "base/str.h"

static const char *const words[UNIT_STATE_COUNT] = {
    [UNIT_STATE_INACTIVE] = "inactive",
    [UNIT_STATE_LOADED] = "loaded",
    [UNIT_STATE_LAUNCHED] = "launched",
};

const char *unit_state_to_string(enum unit_state state)
{
    assert((unsigned)state < UNIT_STATE_COUNT);
    return words[state];
}

int unit_state_from_string(const char *text, enum unit_state *ret, struct err *err)
{
    for (int i = 0; i < UNIT_STATE_COUNT; i++)
        if (streq(text, words[i])) {
            *ret = (enum unit_state)i;
            return 0;
        }
    return err_set(err, -EINVAL, "\"%s\" is no unit state (use inactive, loaded or launched)", text);
}
