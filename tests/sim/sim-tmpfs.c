/* SPDX-License-Identifier: Apache-2.0 */
/* The pretence of a host's /run, which fleetd leaves behind and a reboot clears: unit files and drop-ins
 * (agent_files.h, agent_dropin.h), the agent's records (agent_record.h), and the lease (lease_page.h). */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/agent_files.h"
#include "fleetd/agent_record.h"
#include "fleetd/lease_page.h"
#include "tests/sim/sim-systemd.h"
#include "units/requirements.h"

struct record {
    char *name;
    bool forgotten; /* Of a pending one. */
    struct agent_record record;
    struct record *next;
};

struct lease_page {
    uint64_t until_ms; /* By the host's clock. */
};

struct tmpfs {
    struct record *records;
    struct record *pending; /* Noted, and not flushed. */
    struct lease_page lease;
};

/* ---- life ---- */

static void free_record(struct record *record)
{
    free(record->name);
    free(record);
}

static void free_records(struct record **list)
{
    struct record *record, *next;

    LL_FOREACH_SAFE(*list, record, next)
    {
        free_record(record);
    }
    *list = NULL;
}

void sim_tmpfs_boot(struct sim_host *host)
{
    host->tmpfs = NEW0(struct tmpfs);
}

void sim_tmpfs_off(struct sim_host *host)
{
    free_records(&host->tmpfs->records);
    free_records(&host->tmpfs->pending);
    free(TAKE_PTR(host->tmpfs));
}

/* ---- unit files ---- */

int agent_files_open(const char *directory, int *ret, struct err *err)
{
    *ret = -1;
    return 0;
}

enum agent_install agent_files_install(const char *text, size_t size)
{
    return memmem(text, size, "[Install]", strlen("[Install]")) != NULL ? AGENT_INSTALL_SOME
                                                                        : AGENT_INSTALL_NONE;
}

bool agent_files_mean_the_same(int fd, const char *name, const char *text, size_t size)
{
    const struct sim_unit *unit = sim_systemd_unit(sim.current, name);
    struct unit_file *before = NULL, *now = NULL;
    bool same = unit != NULL && unit->text != NULL &&
                unit_file_parse(unit->text, strlen(unit->text), &before, NULL) >= 0 &&
                unit_file_parse(text, size, &now, NULL) >= 0 &&
                requirements_are_all_that_differs(before, now);

    unit_file_free(before);
    unit_file_free(now);
    return same;
}

bool agent_files_is(int fd, const char *name, const char *path)
{
    return true;
}

void agent_files_unlink(const char *links, const char *directory, const char *name)
{
}

int agent_files_scan(int fd, const char *directory,
                     void (*each)(const char *name, const char *hash, enum agent_install install, void *data),
                     void *data, struct err *err)
{
    struct sim_unit *unit;

    LL_FOREACH (sim_systemd_units(sim.current), unit)
        if (unit->text != NULL)
            each(unit->name, unit->hash, agent_files_install(unit->text, strlen(unit->text)), data);
    return 0;
}

int agent_files_write(int fd, const char *name, const char *text, size_t size, bool keep_time,
                      struct err *err)
{
    struct sim_unit *unit;

    if (sim_dies_here())
        return 0;
    if (sim.current->disk_full && sim_random(2) == 0)
        return err_set(err, -ENOSPC, "cannot write the unit file: %s", strerror(ENOSPC));
    unit = sim_systemd_get(sim.current->systemd, name);
    free(unit->text);
    unit->text = xstrndup(text, size);
    unit_hash(text, size, unit->hash);
    unit->stamp += !keep_time;
    unit->leased = unit->leased && strstr(unit->text, SIM_STOPS) != NULL;
    return 0;
}

int agent_files_remove(int fd, const char *name, struct err *err)
{
    struct sim_unit *unit = sim_systemd_unit(sim.current, name);

    if (unit == NULL || sim_dies_here())
        return 0;
    free(TAKE_PTR(unit->text));
    unit->hash[0] = '\0';
    unit->stamp++;
    return 0;
}

/* ---- drop-ins ---- */

struct agent_dropin agent_dropin_read(const char *directory, const char *unit)
{
    const struct sim_unit *known = sim_systemd_unit(sim.current, unit);

    return known != NULL ? known->dropin : (struct agent_dropin){0};
}

int agent_dropin_write(const char *directory, const char *unit, const struct agent_dropin *dropin,
                       struct err *err)
{
    if (sim_dies_here())
        return 0;
    if (sim.current->disk_full && sim_random(2) == 0)
        return err_set(err, -ENOSPC, "cannot write the drop-in: %s", strerror(ENOSPC));
    sim_systemd_get(sim.current->systemd, unit)->dropin = *dropin;
    return 0;
}

int agent_dropin_remove(const char *directory, const char *unit, struct err *err)
{
    if (!sim_dies_here())
        sim_systemd_get(sim.current->systemd, unit)->dropin = (struct agent_dropin){0};
    return 0;
}

/* ---- the lease ---- */

int lease_page_open(const char *path, bool write, struct lease_page **ret, struct err *err)
{
    *ret = &sim.current->tmpfs->lease;
    return 0;
}

void lease_page_close(struct lease_page *page)
{
}

uint64_t lease_page_until_ms(const struct lease_page *page)
{
    return page->until_ms;
}

void lease_page_prolong(struct lease_page *page, uint64_t until_ms)
{
    if (until_ms > page->until_ms && !sim_dies_here())
        page->until_ms = until_ms;
}

uint64_t sim_lease_end_ms(const struct sim_host *host)
{
    if (host->tmpfs == NULL || host->tmpfs->lease.until_ms == 0)
        return 0;
    return sim_true_ms(host, host->tmpfs->lease.until_ms - host->clock_base_ms);
}

/* ---- the agent's records ---- */

static struct record *find_record(struct record *list, const char *name)
{
    struct record *record;

    LL_FOREACH (list, record)
        if (streq(record->name, name))
            return record;
    return NULL;
}

void agent_records_open(struct agent_records *records, const char *path,
                        void (*each)(const char *name, const struct agent_record *record, void *data),
                        void *data)
{
    struct tmpfs *tmpfs = sim.current->tmpfs;
    struct record *record;

    *records = (struct agent_records){.fd = -1};
    free_records(&tmpfs->pending); /* An earlier fleetd's, which took them along. */
    LL_FOREACH (tmpfs->records, record)
        each(record->name, &record->record, data);
}

void agent_records_note(struct agent_records *records, const char *name, const struct agent_record *noted)
{
    struct tmpfs *tmpfs = sim.current->tmpfs;
    struct record *record = find_record(tmpfs->pending, name);

    if (record == NULL) {
        record = NEW0(struct record);
        record->name = xstrdup(name);
        LL_APPEND(tmpfs->pending, record);
    }
    record->forgotten = noted == NULL;
    record->record = noted != NULL ? *noted : (struct agent_record){0};
}

static void put_record(struct tmpfs *tmpfs, struct record *record)
{
    struct record *old = find_record(tmpfs->records, record->name);

    if (old != NULL) {
        LL_DELETE(tmpfs->records, old);
        free_record(old);
    }
    if (record->forgotten)
        free_record(record);
    else
        LL_APPEND(tmpfs->records, record);
}

void agent_records_flush(struct agent_records *records)
{
    struct tmpfs *tmpfs = sim.current->tmpfs;
    struct record *record, *next;

    if (tmpfs->pending == NULL)
        return;
    if (sim_dies_here()) {
        free_records(&tmpfs->pending);
        return;
    }
    LL_FOREACH_SAFE(tmpfs->pending, record, next)
    {
        LL_DELETE(tmpfs->pending, record);
        put_record(tmpfs, record);
    }
}

bool agent_records_is_long(const struct agent_records *records, size_t count)
{
    return false;
}

void agent_records_begin(struct agent_records *records)
{
}

void agent_records_end(struct agent_records *records)
{
}

void agent_records_done(struct agent_records *records)
{
}
