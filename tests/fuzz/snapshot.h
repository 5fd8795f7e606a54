/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of registries, for the fuzz targets that make them. */
#pragma once

#include "raftstore/registry.h"

/* Both registries have the same snapshot. */
void fuzz_same_snapshots(struct registry *a, struct registry *b);

/* What its snapshot is restored to has the same snapshot. */
void fuzz_snapshot_round_trip(struct registry *registry);
