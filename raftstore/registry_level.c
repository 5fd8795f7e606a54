/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/registry_level.h"

#include <assert.h>

#include "base/cleanup.h"

/* 0 is whatever does not say its level. */
static const struct feature_level levels[] = {
    [0] = {"2.0.0", ""},
    [1] = {"2.1.0", "settings other than voters (fleetctl set); promote, demote and leave; and that a "
                    "removed machine stays out"},
};

_Static_assert(ARRAY_SIZE(levels) == FEATURE_LEVEL + 1, "each level has its row");

const struct feature_level *level_row(unsigned level)
{
    assert(level <= FEATURE_LEVEL);
    return &levels[level];
}

/* Who shall vote, and who is to go: an older version would forget it. */
static unsigned level_of_changes(const Fleet__ChangeMachines *command)
{
    for (size_t i = 0; i < command->n_changes; i++)
        if (command->changes[i]->vote != FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED ||
            command->changes[i]->leaving != FLEET__LEAVING__LEAVING_UNCHANGED)
            return 1;
    return 0;
}

/* No default: whoever adds a command is to say here which level it needs. */
unsigned level_of_command(const Fleet__Command *command)
{
    switch (command->body_case) {
    case FLEET__COMMAND__BODY_CREATE_CLUSTER:
    case FLEET__COMMAND__BODY_CHANGE_UNITS:
    case FLEET__COMMAND__BODY_SCHEDULE:
    case FLEET__COMMAND__BODY_REGISTER_MACHINE:
    case FLEET__COMMAND__BODY_REMOVE_MACHINE:
    case FLEET__COMMAND__BODY_CHANGE_METADATA:
    case FLEET__COMMAND__BODY_SET_LEASE:
    case FLEET__COMMAND__BODY_SET_LEVEL: return 0;
    case FLEET__COMMAND__BODY_CHANGE_MACHINES: return level_of_changes(command->change_machines);
    case FLEET__COMMAND__BODY_CHANGE_SETTINGS: return command->change_settings->n_changes > 0 ? 1 : 0;
    case FLEET__COMMAND__BODY_ROTATE_AUTHORITY:
    case FLEET__COMMAND__BODY_ADD_JOIN_TOKEN:
    case FLEET__COMMAND__BODY_REVOKE_JOIN_TOKEN:
    case FLEET__COMMAND__BODY_ADD_CLIENT:
    case FLEET__COMMAND__BODY_REVOKE_CLIENT: return 1;
    case FLEET__COMMAND__BODY__NOT_SET:
    case _FLEET__COMMAND__BODY__CASE_IS_INT_SIZE: break;
    }
    return 0; /* Nobody knows it, and it is refused. */
}
