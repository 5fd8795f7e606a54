/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of the pretended systemd, shared by its files only: sim-systemd.c (units, jobs, calls, the
 * connection), sim-message.c (sd-bus messages), sim-keeper.c (fleet-lease.service, and what it does to the
 * units that are bound to it), sim-tmpfs.c (files in /run). */
#pragma once

#include <systemd/sd-bus.h>

#include "tests/sim/sim.h"

/* ---- sim-message.c: values one after the other; containers are only in their readers' heads ---- */

struct sim_value {
    char type;
    char *text;
    uint32_t number;
};

struct sd_bus_message {
    unsigned references;
    char *member, *path, *property;
    struct sim_value *values;
    size_t count, capacity, next;
    sd_bus_error error;
    bool failed;
};

sd_bus_message *sim_message_new(void);
void sim_message_add_text(sd_bus_message *m, const char *text);
void sim_message_add_number(sd_bus_message *m, uint32_t number);

/* ---- sim-systemd.c ---- */

struct bus;

/* The service that holds the lease of this host: lease_keeper.c with systemd around it. */
struct sim_keeper {
    enum sim_state state;
    uint64_t round; /* Counts its starts: what was armed for an earlier one is void. */
    bool hung;      /* Its process stands still. */
};

struct systemd {
    struct sim_host *host;
    struct sim_unit *units;
    struct sim_keeper keeper;
    uint32_t last_job;
    uint64_t busy_until_ms; /* Answers and signals keep their order. */
    struct bus *bus;
};

struct sim_unit *sim_systemd_get(struct systemd *systemd, const char *name); /* Made if it is missing. */
void sim_systemd_signal(struct systemd *systemd, const char *name, enum sim_state state);
bool sim_unit_is_bound(const struct sim_unit *unit); /* To the keeper, as systemd has loaded it. */
/* The keeper has been started, or could not be: for those that wait for it. */
void sim_systemd_keeper_is(struct systemd *systemd, bool active);
/* The keeper ends: so does all that is bound to it. */
void sim_systemd_unbind(struct systemd *systemd);

/* ---- sim-keeper.c ---- */

void sim_keeper_want(struct systemd *systemd); /* Somebody waits for it: sim_systemd_keeper_is() answers. */
void sim_keeper_look(struct systemd *systemd); /* A unit that is bound to it has ended. */
