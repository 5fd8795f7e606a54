/* SPDX-License-Identifier: Apache-2.0 */
/* The feature level: what all hosts of a cluster understand, so that two versions can work in one cluster
 * while it is upgraded (docs/UPGRADE.md). Pure.
 *
 * Replicas of different versions must come to the same registry. So a version that adds a kind of command, a
 * field that changes what a command comes to, or another meaning of one that there is, adds a level; each
 * host registers the level of its version, and the leader raises the cluster's when every host has it. Until
 * then the leader does not propose what belongs to it (store_propose()), and the registry goes by the old
 * meaning. The cluster's level never goes down: a host of a lower one is not let in any more.
 *
 * Rules for whoever adds a level N: FEATURE_LEVEL becomes N; a row in registry_level.c says which version
 * that is and what waits for it; level_of_command() says which commands. In fleet.proto, new fields of
 * SnapshotHeader have higher numbers than all that there are: an older version checks the snapshot's sum over
 * what it does not know, too, and finds that behind what it knows. */
#pragma once

#include "raftstore/fleet.pb-c.h"

#define FEATURE_LEVEL        1u /* Of this version. */
#define FEATURE_LEVEL_SECURE 1u /* Older hosts cannot be in a secure cluster, so it begins with this one. */

struct feature_level {
    const char *version;  /* The oldest of fleet that has it. */
    const char *features; /* What waits for it, for people. */
};

/* The row of a level up to FEATURE_LEVEL. Static. */
const struct feature_level *level_row(unsigned level);

/* The lowest level of a cluster in which a command may be proposed. */
unsigned level_of_command(const Fleet__Command *command);
