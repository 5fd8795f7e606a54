/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for the leader's mind that answers what a test tells it to. */
#pragma once

#include "fleetd/core/core.h"

#define FAKE_ITEMS_MAX 64

struct fake_report {
    const char *unit, *machine_id;
    struct core_report report;
};

struct fake_status {
    const char *unit;
    enum unit_outcome outcome;
    const char *machine_id, *active, *sub, *reason;
    const char *machine, *machine_reason; /* One machine of the list, or NULL. */
};

struct core {
    bool leads;
    const struct registry *registry;
    struct fake_report reports[FAKE_ITEMS_MAX]; /* In order. */
    size_t report_count;
    struct fake_status statuses[FAKE_ITEMS_MAX]; /* Others: waiting, or gone where there is no such unit. */
    size_t status_count;
    const char *lost, *expected, *missing; /* A machine each; all others are ready. */
    const char *going;                     /* One that is being shut down. */
    const char *leaving;                   /* One that was removed, and is waited for. */
    const char *lost_had;                  /* A unit that the lost one had. */
    unsigned questions;                    /* How often a status was asked for. */
};

void fake_core_report(struct core *core, const char *unit, const char *machine_id, const char *active,
                      bool launched);
void fake_core_status(struct core *core, const char *unit, enum unit_outcome outcome, const char *machine_id,
                      const char *reason);
