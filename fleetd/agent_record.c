/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/agent_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "units/name.h"

#define HEADER "fleet-agent 1\n"

/* NAME HASH GENERATION ASKED LAUNCHED RESTART RESULT RESTARTING INVOCATION KEPT, or "NAME -" for a forgotten
 * one; '-' for an empty word. Lines of fleetd 2.0 end with RESULT. */
static void parse_line(char *line, void (*each)(const char *, const struct agent_record *, void *),
                       void *data)
{
    struct agent_record record = {0};
    char name[UNIT_NAME_MAX + 1], hash[UNIT_HASH_SIZE], result[AGENT_RESULT_SIZE], rest;
    char invocation[AGENT_INVOCATION_SIZE] = "-";
    char kept[8] = "0";
    int launched, restart, n;

    n = sscanf(line, "%256s %40s %" SCNu64 " %" SCNu64 " %d %d %31s %" SCNu64 " %32s %7s %c", name, hash,
               &record.generation, &record.asked, &launched, &restart, result, &record.restarting, invocation,
               kept, &rest);
    if (n == 2 && streq(hash, "-")) {
        each(name, NULL, data);
        return;
    }
    if ((n != 7 && n != 9 && n != 10) || (!streq(kept, "0") && !streq(kept, "1")))
        return;
    snprintf(record.hash, sizeof record.hash, "%s", streq(hash, "-") ? "" : hash);
    snprintf(record.result, sizeof record.result, "%s", streq(result, "-") ? "" : result);
    snprintf(record.invocation, sizeof record.invocation, "%s", streq(invocation, "-") ? "" : invocation);
    record.launched = launched != 0;
    record.restart = restart != 0;
    record.kept = streq(kept, "1");
    each(name, &record, data);
}

static void read_lines(struct agent_records *records,
                       void (*each)(const char *, const struct agent_record *, void *), void *data)
{
    _cleanup_(fclosep) FILE *f = fopen(records->path, "re");
    char line[512];

    if (f == NULL && errno != ENOENT)
        log_warn("cannot read %s, starting without it: %s", records->path, strerror(errno));
    if (f == NULL || fgets(line, sizeof line, f) == NULL || !streq(line, HEADER))
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        if (!str_has_suffix(line, "\n"))
            continue;
        records->lines++;
        parse_line(line, each, data);
    }
}

void agent_records_open(struct agent_records *records, const char *path,
                        void (*each)(const char *name, const struct agent_record *record, void *data),
                        void *data)
{
    *records = (struct agent_records){.path = xstrdup(path), .fd = -1};
    read_lines(records, each, data);
}

void agent_records_note(struct agent_records *records, const char *name, const struct agent_record *r)
{
    records->lines++;
    if (r == NULL) {
        strbuf_addf(&records->pending, "%s -\n", name);
        return;
    }
    strbuf_addf(&records->pending, "%s %s %" PRIu64 " %" PRIu64 " %d %d %s %" PRIu64 " %s %d\n", name,
                r->hash[0] != '\0' ? r->hash : "-", r->generation, r->asked, r->launched, r->restart,
                r->result[0] != '\0' ? r->result : "-", r->restarting,
                r->invocation[0] != '\0' ? r->invocation : "-", r->kept);
}

static void records_failed(struct agent_records *records, int error)
{
    log_warn("cannot write %s: %s; after a restart fleetd may start finished units once more", records->path,
             strerror(error));
    if (records->fd >= 0)
        close(records->fd);
    records->fd = -1;
    records->failed = true;
    records->lines = 0;
}

void agent_records_flush(struct agent_records *records)
{
    int r;

    if (records->pending.size == 0)
        return;
    r = records->fd < 0 ? 0 : file_write_all(records->fd, records->pending.text, records->pending.size);
    records->pending.size = 0;
    if (r < 0)
        records_failed(records, -r);
}

bool agent_records_is_long(const struct agent_records *records, size_t count)
{
    return (records->fd < 0 && !records->failed) || records->lines > 1000 + 4 * count;
}

void agent_records_begin(struct agent_records *records)
{
    records->pending.size = 0;
    records->lines = 0;
    strbuf_add(&records->pending, HEADER);
}

void agent_records_end(struct agent_records *records)
{
    _cleanup_(freep) char *temporary = xasprintf("%s.new", records->path);
    _cleanup_(closep) int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : file_write_all(fd, records->pending.text, records->pending.size);

    records->pending.size = 0;
    if (r >= 0 && rename(temporary, records->path) < 0)
        r = -errno;
    if (r < 0) {
        records_failed(records, -r);
        return;
    }
    if (records->fd >= 0)
        close(records->fd);
    records->fd = TAKE_FD(fd);
    records->failed = false;
}

void agent_records_done(struct agent_records *records)
{
    strbuf_done(&records->pending);
    if (records->fd >= 0)
        close(records->fd);
    free(records->path);
    records->fd = -1;
    records->path = NULL;
}
