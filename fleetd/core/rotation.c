/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/rotation.h"

#include <string.h>

#define SLACK_MS 60000u /* Clocks of leaders differ a little. */

bool rotation_certificate_due(uint64_t not_after_ms, const uint8_t certified_by[FINGERPRINT_SIZE],
                              const uint8_t issuing_key[FINGERPRINT_SIZE], uint64_t lifetime_ms,
                              uint64_t now_ms)
{
    uint64_t left_ms = not_after_ms > now_ms ? not_after_ms - now_ms : 0;

    return left_ms < lifetime_ms - lifetime_ms / 3 || left_ms > lifetime_ms + lifetime_ms / 3 + SLACK_MS ||
           memcmp(certified_by, issuing_key, FINGERPRINT_SIZE) != 0;
}

bool rotation_awaits(const struct registry_authorities *authorities,
                     const uint8_t issuing_key[FINGERPRINT_SIZE], const struct registry_machine *machine)
{
    switch (registry_rotation(authorities)) {
    case ROTATION_SPREADING: return !registry_machine_trusts(machine, authorities->next.fingerprint);
    case ROTATION_REISSUING: return memcmp(machine->certified_by, issuing_key, FINGERPRINT_SIZE) != 0;
    case ROTATION_STEADY: break;
    }
    return false;
}

enum rotation_step rotation_next(const struct registry *registry, const uint8_t issuing_key[FINGERPRINT_SIZE])
{
    const struct registry_authorities *authorities = registry_authorities(registry);
    enum registry_rotation now = registry_rotation(authorities);
    size_t count;
    const struct registry_machine *const *machines = registry_machines(registry, &count);

    if (now == ROTATION_STEADY)
        return ROTATION_STEP_NONE;
    for (size_t i = 0; i < count; i++)
        if (rotation_awaits(authorities, issuing_key, machines[i]))
            return ROTATION_STEP_NONE;
    return now == ROTATION_SPREADING ? ROTATION_STEP_ISSUE : ROTATION_STEP_FINISH;
}
