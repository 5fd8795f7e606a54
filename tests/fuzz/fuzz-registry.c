/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded commands, one after the other, as they stand in the log. Whatever they are: each is done or refused
 * with a text; a refused one changes nothing; another registry makes the same of them; a snapshot holds all
 * of it; and a leader can plan with what came of it, and say how each unit stands. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "fleetd/core/core.h"
#include "raftstore/limits.h"
#include "raftstore/registry.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/snapshot.h"

#define TTL_MS 10000u

/* The size of the command at 'bytes', with what pads it; of garbage, all that is left. */
static size_t command_size(const uint8_t *bytes, size_t left)
{
    size_t size;

    if (left < 4)
        return left;
    size = (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3];
    size = (4 + size + 7) / 8 * 8;
    return size < left ? size : left;
}

static void apply(struct registry *registry, struct registry *other, const uint8_t *bytes, size_t size)
{
    uint64_t version = registry_version(registry);
    const struct registry_result *result = registry_apply(registry, bytes, size), *again;

    assert(result->status <= 0 && (result->status == 0 || result->text[0] != '\0'));
    again = registry_apply(other, bytes, size);
    assert(again->status == result->status && streq(again->text, result->text));
    assert(registry_version(registry) >= version && registry_version(registry) == registry_version(other));
}

static void try_core(struct registry *registry)
{
    _cleanup_(core_freep) struct core *core = core_new(registry, TTL_MS);
    struct effects effects = {0};
    size_t unit_count, machine_count;
    const struct registry_machine *const *machines = registry_machines(registry, &machine_count);
    const struct registry_unit *const *units = registry_units(registry, &unit_count);

    core_lead(core, 1, 1000, &effects);
    for (size_t i = 0; i < machine_count; i++)
        core_session_open(core, machines[i]->id, i + 1, NULL, 0, false, 1000, &effects);
    core_tick(core, 1000 + TTL_MS / 2, &effects);
    for (size_t i = 0; i < unit_count; i++)
        core_status_free(core_status_new(core, units[i]->name));
    effects_done(&effects);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct registry *registry = registry_new(), *other = registry_new();

    for (size_t at = 0; at < size;) {
        size_t step = command_size(data + at, size - at);

        if (step > COMMAND_MAX)
            break; /* The log has no such entry. */
        apply(registry, other, data + at, step);
        at += step;
    }
    fuzz_same_snapshots(registry, other);
    fuzz_snapshot_round_trip(registry);
    try_core(registry);
    registry_free(registry);
    registry_free(other);
    return 0;
}
