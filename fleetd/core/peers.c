/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/peers.h"

#include <errno.h>
#include <inttypes.h>

#include "base/str.h"

bool peers_is_member(const struct registry *registry, const char *machine_id, uint64_t server_id,
                     const uint8_t key[FINGERPRINT_SIZE])
{
    const struct registry_machine *machine = registry_machine(registry, machine_id);

    return machine != NULL && machine->registered && machine->server_id == server_id &&
           registry_has_key(machine) && registry_key_fits(machine, server_id, key, FINGERPRINT_SIZE);
}

int peers_check_server(const struct registry *registry, const char *machine_id, uint64_t server_id,
                       bool is_out, uint64_t leader_id, struct err *err)
{
    const struct registry_removed *removed = registry_removed(registry, machine_id);
    const struct registry_removed *former = registry_removed_server(registry, server_id);
    size_t count;
    const struct registry_machine *const *machines = registry_machines(registry, &count);

    for (size_t i = 0; i < count; i++)
        if (machines[i]->server_id == server_id && !streq(machines[i]->id, machine_id))
            return err_set(err, -EACCES, "server id %016" PRIx64 " is that of machine %s", server_id,
                           machines[i]->id);
    if (former != NULL && !streq(former->machine_id, machine_id))
        return err_set(err, -EACCES, "server id %016" PRIx64 " is that of machine %s, which was removed",
                       server_id, former->machine_id);
    if (removed != NULL &&
        (removed->server_id == server_id ? is_out : leader_id != 0 && leader_id != server_id))
        return err_set(err, -EACCES, "machine %s was removed from the cluster", machine_id);
    return 0;
}
