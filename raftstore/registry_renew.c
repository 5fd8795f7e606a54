/* SPDX-License-Identifier: Apache-2.0 */
/* Data that begin a new history: after the loss of a majority, or from a backup (docs/RECOVERY.md). */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "raftstore/registry_private.h"

/* What only held while it was a member of the cluster that is no more. Its metadata, and whether it is
 * cordoned, are decisions about the machine: they hold when it has joined, too. */
static void await_machine(struct registry_machine *machine)
{
    machine->awaited = machine->registered;
    machine->daemon_stopped = false;
    machine->server_id = 0;
    free(machine->boot_id);
    machine->boot_id = xstrdup("");
    registry_forget_credentials(machine);
}

static void begin_cluster(struct registry *registry, const uint8_t *cluster_id,
                          const Fleet__Authority *authority)
{
    memcpy(registry->cluster_id, cluster_id, CLUSTER_ID_SIZE);
    registry_requests_forget(registry);
    registry_security_clear(registry);
    if (authority != NULL && registry_set_authority(&registry->authorities.issuing, authority) < 0)
        abort(); /* It was made by us. */
    if (authority != NULL && registry->level < FEATURE_LEVEL_SECURE)
        registry->level = FEATURE_LEVEL_SECURE;
    for (struct registry_machine *machine = registry->machines; machine != NULL; machine = machine->hh.next)
        await_machine(machine);
}

/* It is there: whoever begins the history runs on it. */
static void begin_machine(struct registry_machine *machine, uint64_t server_id)
{
    machine->server_id = server_id;
    machine->awaited = false;
    machine->daemon_stopped = false;
}

void registry_renew(struct registry *registry, const struct registry_renewal *renewal)
{
    struct registry_machine *own;

    registry->version += REGISTRY_VERSION_LEAP;
    registry->history = renewal->history;
    if (renewal->cluster_id != NULL)
        begin_cluster(registry, renewal->cluster_id, renewal->authority);
    HASH_FIND_STR(registry->machines, renewal->machine_id, own);
    if (own != NULL)
        begin_machine(own, renewal->server_id);
    registry_machines_changed(registry);
    registry->changes.everything = true;
}
