/* SPDX-License-Identifier: Apache-2.0 */
/* Raises the cluster's feature level (raftstore/registry_level.h) once every host has a higher one. */
#include <config.h>

#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"

static void on_level_raised(enum store_outcome outcome, const struct registry_result *result,
                            const char *reason, void *data)
{
    struct daemon *daemon = data;

    daemon->level_busy = false; /* If it did not come through, it is tried again. */
    if (outcome != STORE_APPLIED)
        log_warn("The feature level was not raised: %s. Trying again", reason);
}

static unsigned lowest_level(const struct registry *registry)
{
    unsigned level = FEATURE_LEVEL;
    size_t count;
    const struct registry_machine *const *machines = registry_machines(registry, &count);

    for (size_t i = 0; i < count; i++)
        level = machines[i]->level < level ? machines[i]->level : level;
    return count > 0 ? level : 0;
}

void level_step(struct daemon *daemon)
{
    const struct registry *registry = store_registry(daemon->store);
    unsigned level = lowest_level(registry);
    Fleet__SetLevel body = FLEET__SET_LEVEL__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    if (level <= registry_level(registry) || daemon->level_busy)
        return;
    log_message(LOG_NOTICE, log_fields(MESSAGE_FEATURE_LEVEL),
                "All hosts have feature level %u (fleet %s or newer): the cluster has it from now on, and "
                "older versions are not let in any more. New with it: %s",
                level, level_row(level)->version, level_row(level)->features);
    body.level = level;
    command.if_term = store_term(daemon->store);
    command.body_case = FLEET__COMMAND__BODY_SET_LEVEL;
    command.set_level = &body;
    daemon->level_busy = true;
    store_propose(daemon->store, &command, on_level_raised, daemon);
}
