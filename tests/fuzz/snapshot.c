/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static void take(struct registry *registry, struct strbuf *ret)
{
    struct registry_snapshot *snapshot = registry_snapshot_new(registry);

    for (size_t i = 0; i < snapshot->count; i++)
        strbuf_add_bytes(ret, snapshot->pieces[i].base, snapshot->pieces[i].size);
    registry_snapshot_free(registry, snapshot);
}

void fuzz_same_snapshots(struct registry *a, struct registry *b)
{
    _cleanup_(strbuf_done) struct strbuf of_a = {0}, of_b = {0};

    take(a, &of_a);
    take(b, &of_b);
    assert(of_a.size == of_b.size && memcmp(of_a.text, of_b.text, of_a.size) == 0);
}

void fuzz_snapshot_round_trip(struct registry *registry)
{
    _cleanup_(strbuf_done) struct strbuf bytes = {0};
    struct registry *restored = registry_new();
    struct err err = {0};
    int r;

    take(registry, &bytes);
    r = registry_restore(restored, bytes.text, bytes.size, &err);
    assert(r == 0);
    fuzz_same_snapshots(registry, restored);
    registry_free(restored);
}
