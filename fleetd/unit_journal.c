/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/unit_journal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/journal_entry.h"
#include "raftstore/limits.h"

#define ANSWER_OVERHEAD (HOST_CURSOR_MAX * 2 + 256) /* What surrounds the entries. */
#define ENTRIES_A_CHECK 32                          /* How often it is looked whether to go on. */

/* What a person is shown of an entry, and what tells it from others. The message first: it is to fit. */
static const char *const shown_fields[] = {
    "MESSAGE",  "PRIORITY",      "SYSLOG_IDENTIFIER", "_COMM",
    "_PID",     "SYSLOG_PID",    "_HOSTNAME",         "_MACHINE_ID",
    "_BOOT_ID", "_SYSTEMD_UNIT", "INVOCATION_ID",     "_SYSTEMD_INVOCATION_ID",
};

struct reading {
    const struct unit_journal_query *query;
    sd_journal *journal;
    json_t *entries;
    size_t room; /* For further entries. */
    char *cursor;
    bool more, full;
};

static void journal_closep(sd_journal **journal)
{
    sd_journal_close(*journal);
}

/* ---- what belongs to the unit ---- */

static int match(sd_journal *journal, const char *field, const char *value)
{
    _cleanup_(freep) char *text = xasprintf("%s=%s", field, value);

    return sd_journal_add_match(journal, text, 0);
}

/* As systemd's add_matches_for_unit(): said by its processes, by systemd about it, or by root's about it. */
static int match_unit(sd_journal *journal, const struct unit_journal_query *query)
{
    _cleanup_(freep) char *uid = xasprintf("%u", (unsigned)getuid());
    int r;

    if (query->user) {
        r = match(journal, "_SYSTEMD_USER_UNIT", query->unit);
        return r < 0 ? r : match(journal, "_UID", uid);
    }
    r = match(journal, "_SYSTEMD_UNIT", query->unit);
    if (r >= 0)
        r = sd_journal_add_disjunction(journal);
    if (r >= 0)
        r = match(journal, "_PID", "1");
    if (r >= 0)
        r = match(journal, "UNIT", query->unit);
    if (r >= 0)
        r = sd_journal_add_disjunction(journal);
    if (r >= 0)
        r = match(journal, "_UID", "0");
    if (r >= 0)
        r = match(journal, "OBJECT_SYSTEMD_UNIT", query->unit);
    return r;
}

/* ---- entries ---- */

static void add_fields(struct reading *reading, struct journal_entry *entry)
{
    const void *data;
    size_t size;

    for (size_t i = 0; i < ARRAY_SIZE(shown_fields); i++)
        if (sd_journal_get_data(reading->journal, shown_fields[i], &data, &size) >= 0)
            journal_entry_add(entry, data, size);
    if (!reading->query->all_fields)
        return;
    SD_JOURNAL_FOREACH_DATA(reading->journal, data, size)
    {
        bool shown = false;

        for (size_t i = 0; i < ARRAY_SIZE(shown_fields) && !shown; i++) {
            size_t name_size = strlen(shown_fields[i]);

            shown = size > name_size && memcmp(data, shown_fields[i], name_size) == 0 &&
                    ((const char *)data)[name_size] == '=';
        }
        if (!shown)
            journal_entry_add(entry, data, size);
    }
}

static void set_stamp(struct journal_entry *entry, const char *name, uint64_t usec)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)usec);
    journal_entry_set(entry, name, text);
}

/* Adds the entry where the journal stands, if there is room for it. */
static int add_entry(struct reading *reading)
{
    _cleanup_(freep) char *cursor = NULL;
    struct journal_entry entry;
    uint64_t usec;
    sd_id128_t boot;
    int r = sd_journal_get_cursor(reading->journal, &cursor);

    if (r < 0)
        return r;
    /* One entry always fits, so that whoever reads gets on. */
    journal_entry_init(&entry, json_array_size(reading->entries) == 0 ? reading->room / 4 * 3
                                                                      : HOST_ANSWER_MAX / 4 * 3);
    if (sd_journal_get_realtime_usec(reading->journal, &usec) >= 0)
        set_stamp(&entry, "__REALTIME_TIMESTAMP", usec);
    if (sd_journal_get_monotonic_usec(reading->journal, &usec, &boot) >= 0)
        set_stamp(&entry, "__MONOTONIC_TIMESTAMP", usec);
    journal_entry_set(&entry, "__CURSOR", cursor);
    add_fields(reading, &entry);
    if (entry.size + 1 > reading->room && json_array_size(reading->entries) > 0) {
        json_decref(entry.json);
        reading->more = reading->full = true;
        return 0;
    }
    json_array_append_new(reading->entries, entry.json);
    reading->room -= entry.size + 1 < reading->room ? entry.size + 1 : reading->room;
    free(reading->cursor);
    reading->cursor = TAKE_PTR(cursor);
    return 0;
}

static bool is_cancelled(const struct reading *reading)
{
    struct pollfd fd = {.fd = reading->query->cancel_fd, .events = POLLIN};

    return poll(&fd, 1, 0) > 0;
}

/* Reads on, from where the journal stands ('there': it stands on an entry to be taken). */
static int read_entries(struct reading *reading, bool there)
{
    int r = there ? 1 : sd_journal_next(reading->journal);

    for (size_t i = 1; r > 0; i++) {
        if (json_array_size(reading->entries) >= reading->query->lines) {
            reading->more = true;
            return 0;
        }
        r = add_entry(reading);
        if (r < 0 || reading->full)
            break;
        if (i % ENTRIES_A_CHECK == 0) {
            if (is_cancelled(reading))
                return -ECANCELED;
            if (now_ms() >= reading->query->give_up_ms) {
                reading->more = true;
                return 0;
            }
        }
        r = sd_journal_next(reading->journal);
    }
    return r < 0 ? r : 0;
}

/* ---- places ---- */

/* The end of the journal, whatever stands there; it need not be of the unit. */
static int note_end(struct reading *reading)
{
    int r;

    sd_journal_flush_matches(reading->journal);
    r = sd_journal_seek_tail(reading->journal);
    if (r >= 0)
        r = sd_journal_previous(reading->journal);
    if (r > 0)
        r = sd_journal_get_cursor(reading->journal, &reading->cursor);
    return r < 0 ? r : 0;
}

static int read_last(struct reading *reading)
{
    const size_t lines = reading->query->lines;
    int r = sd_journal_seek_tail(reading->journal);

    if (r >= 0)
        r = sd_journal_previous_skip(reading->journal, lines > 0 ? lines : 1);
    if (r < 0)
        return r;
    if (r == 0)
        return note_end(reading);
    if (lines == 0)
        return sd_journal_get_cursor(reading->journal, &reading->cursor);
    return read_entries(reading, true);
}

static int read_behind(struct reading *reading)
{
    const char *cursor = reading->query->cursor;
    int r = sd_journal_seek_cursor(reading->journal, cursor);

    reading->cursor = xstrdup(cursor);
    if (r >= 0)
        r = sd_journal_next(reading->journal);
    /* On the entry of the cursor itself, or, where that is not the unit's or gone, on the first behind it. */
    if (r > 0)
        r = sd_journal_test_cursor(reading->journal, cursor) > 0 ? read_entries(reading, false)
                                                                 : read_entries(reading, true);
    return r < 0 ? r : 0;
}

/* Until the journal has changed, or it is time. 0: it is time. */
static int wait_for_change(struct reading *reading)
{
    struct pollfd fds[2] = {{.fd = reading->query->cancel_fd, .events = POLLIN},
                            {.fd = sd_journal_get_fd(reading->journal), .events = POLLIN}};
    uint64_t now = now_ms();
    int r;

    if (fds[1].fd < 0)
        return fds[1].fd;
    if (now >= reading->query->until_ms)
        return 0;
    /* Where a file system does not tell of changes, sd-journal wants to look by itself. */
    uint64_t left = reading->query->until_ms - now;
    if (sd_journal_reliable_fd(reading->journal) == 0 && left > 1000)
        left = 1000;
    r = poll(fds, ARRAY_SIZE(fds), (int)left);
    if (r < 0 && errno != EINTR)
        return -errno;
    if (fds[0].revents != 0)
        return -ECANCELED;
    r = sd_journal_process(reading->journal);
    return r < 0 ? r : 1;
}

static int read_all(struct reading *reading)
{
    bool behind = reading->query->cursor[0] != '\0';
    /* The descriptor first: what comes while we read is then noticed. */
    int r = reading->query->until_ms > 0 ? sd_journal_get_fd(reading->journal) : 0;

    if (r >= 0)
        r = behind ? read_behind(reading) : read_last(reading);
    while (r >= 0 && behind && json_array_size(reading->entries) == 0) {
        r = wait_for_change(reading);
        if (r <= 0)
            break;
        r = read_entries(reading, false);
    }
    return r;
}

int unit_journal_read(const struct unit_journal_query *query, json_t **ret, struct err *err)
{
    _cleanup_(journal_closep) sd_journal *journal = NULL;
    struct reading reading = {.query = query, .room = query->max_bytes - ANSWER_OVERHEAD};
    int r = sd_journal_open(&journal, SD_JOURNAL_LOCAL_ONLY);

    if (r < 0)
        return err_set(err, r, "its journal cannot be opened: %s", strerror(-r));
    sd_journal_set_data_threshold(journal, JOURNAL_MESSAGE_MAX + sizeof "MESSAGE=");
    reading.journal = journal;
    reading.entries = json_array();
    r = match_unit(journal, query);
    if (r >= 0)
        r = read_all(&reading);
    if (r >= 0)
        *ret = json_pack("{s:O,s:s,s:b}", "entries", reading.entries, "cursor",
                         reading.cursor != NULL ? reading.cursor : "", "more", reading.more);
    json_decref(reading.entries);
    free(reading.cursor);
    if (r < 0)
        return err_set(err, r,
                       r == -EINVAL ? "\"%.100s\" is no place in its journal" : "its journal cannot be read",
                       query->cursor);
    return 0;
}
