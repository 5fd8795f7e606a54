/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/core/hosts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "units/name.h"

struct host *host_find(struct host *hosts, const char *id)
{
    struct host *host;

    HASH_FIND_STR(hosts, id, host);
    return host;
}

static int compare_hosts(const struct host *a, const struct host *b)
{
    return strcmp(a->id, b->id);
}

struct host *host_get(struct host **hosts, const char *id, uint64_t now_ms)
{
    struct host *host = host_find(*hosts, id);

    if (host != NULL)
        return host;
    host = NEW0(struct host);
    snprintf(host->id, sizeof host->id, "%s", id);
    host->state = MACHINE_EXPECTED;
    host->heard_ms = now_ms;
    HASH_ADD_INORDER(hh, *hosts, id, strlen(host->id), host, compare_hosts);
    return host;
}

static void report_done(struct core_report *report)
{
    free(report->load_state);
    free(report->active_state);
    free(report->sub_state);
    free(report->hash);
    free(report->result);
    free(report->error);
}

static void report_remove(struct host *host, struct host_report *entry)
{
    HASH_DEL(host->reports, entry);
    host->strange_count -= entry->strange;
    report_done(&entry->report);
    free(entry->unit);
    free(entry);
}

void host_forget_reports(struct host *host)
{
    while (host->reports != NULL)
        report_remove(host, host->reports);
}

static void set_leaves(struct host *host, struct host_told *told, bool leaves)
{
    host->leaving_count += leaves;
    host->leaving_count -= told->leaves;
    told->leaves = leaves;
}

static void told_remove(struct host *host, struct host_told *told)
{
    HASH_DEL(host->told, told);
    set_leaves(host, told, false);
    strlist_done(&told->conflicts);
    free(told->unit);
    free(told);
}

void host_forget_told(struct host *host)
{
    while (host->told != NULL)
        told_remove(host, host->told);
}

static struct host_told *told_find(const struct host *host, const char *unit)
{
    struct host_told *told;

    HASH_FIND_STR(host->told, unit, told);
    return told;
}

void host_find_again(struct host *host)
{
    strlist_done(&host->had);
    host->had = (struct strlist){0};
}

void host_lose(struct host *host)
{
    host_find_again(host);
    for (const struct host_report *entry = host->reports; entry != NULL; entry = entry->hh.next)
        strlist_add(&host->had, entry->unit);
    for (const struct host_told *told = host->told; told != NULL; told = told->hh.next)
        if (host_report(host, told->unit) == NULL)
            strlist_add(&host->had, told->unit);
    host_forget_reports(host);
    host_forget_told(host);
}

void host_remove(struct host **hosts, struct host *host)
{
    HASH_DEL(*hosts, host);
    host_forget_reports(host);
    host_forget_told(host);
    host_find_again(host);
    free(host);
}

static bool text_equals(const char *kept, const char *said, size_t max)
{
    return strncmp(kept, said, max) == 0; /* What was longer is kept without the rest. */
}

static bool report_equals(const struct core_report *report, const Fleet__UnitReport *message)
{
    return text_equals(report->load_state, message->load_state, REPORT_WORD_MAX) &&
           text_equals(report->active_state, message->active_state, REPORT_WORD_MAX) &&
           text_equals(report->sub_state, message->sub_state, REPORT_WORD_MAX) &&
           text_equals(report->hash, message->hash, REPORT_WORD_MAX) &&
           text_equals(report->result, message->result, REPORT_WORD_MAX) &&
           text_equals(report->error, message->error, REPORT_ERROR_MAX) &&
           report->generation == message->generation && report->asked == message->asked &&
           report->launched == message->launched;
}

static char *text_keep(const char *said, size_t max)
{
    return xstrndup(said, strnlen(said, max));
}

static void report_set(struct core_report *report, const Fleet__UnitReport *message)
{
    report_done(report);
    *report = (struct core_report){
        .load_state = text_keep(message->load_state, REPORT_WORD_MAX),
        .active_state = text_keep(message->active_state, REPORT_WORD_MAX),
        .sub_state = text_keep(message->sub_state, REPORT_WORD_MAX),
        .hash = text_keep(message->hash, REPORT_WORD_MAX),
        .result = text_keep(message->result, REPORT_WORD_MAX),
        .error = text_keep(message->error, REPORT_ERROR_MAX),
        .generation = message->generation,
        .asked = message->asked,
        .launched = message->launched,
    };
}

/* Nothing is left of the unit there. What it was told to have meanwhile it still is to have. */
static bool set_gone(struct host *host, const Fleet__UnitReport *message, struct host_report *entry)
{
    struct host_told *told = told_find(host, message->name);
    bool knew = told != NULL && (message->after_share == 0 || message->after_share > told->share);
    bool lets_go = knew && told->generation == 0;

    if (lets_go)
        told_remove(host, told);
    if (entry != NULL)
        report_remove(host, entry);
    return lets_go || entry != NULL;
}

static struct host_report *report_add(struct host *host, const char *unit, bool exists)
{
    struct host_report *entry;

    if (!exists && (host->strange_count >= REPORTS_STRANGE_MAX || unit_name_check(unit, NULL) < 0)) {
        host->refused_count++;
        return NULL;
    }
    entry = NEW0(struct host_report);
    entry->unit = xstrdup(unit);
    entry->strange = !exists;
    host->strange_count += entry->strange;
    HASH_ADD_KEYPTR(hh, host->reports, entry->unit, strlen(entry->unit), entry);
    return entry;
}

bool host_set_report(struct host *host, const Fleet__UnitReport *message, bool exists)
{
    struct host_report *entry;

    HASH_FIND_STR(host->reports, message->name, entry);
    if (message->gone)
        return set_gone(host, message, entry);
    if (entry != NULL && report_equals(&entry->report, message))
        return false;
    if (entry == NULL)
        entry = report_add(host, message->name, exists);
    if (entry == NULL)
        return false;
    report_set(&entry->report, message);
    return true;
}

uint64_t host_refused_reports(struct host *host, uint64_t now_ms)
{
    uint64_t count = host->refused_count;

    if (count == 0 || (host->refused_logged_ms != 0 && now_ms - host->refused_logged_ms < REPORTS_LOG_MS))
        return 0;
    host->refused_count = 0;
    host->refused_logged_ms = now_ms > 0 ? now_ms : 1;
    return count;
}

const struct core_report *host_report(const struct host *host, const char *unit)
{
    struct host_report *entry;

    HASH_FIND_STR(host->reports, unit, entry);
    return entry != NULL ? &entry->report : NULL;
}

bool host_may_have(const struct host *host, const char *unit)
{
    return host_report(host, unit) != NULL || told_find(host, unit) != NULL;
}

bool host_may_have_any(const struct host *host)
{
    return host->reports != NULL || host->told != NULL;
}

bool host_is_unknown(const struct host *host)
{
    return !host->called && host->state != MACHINE_LOST;
}

bool host_was_told(const struct host *host, const char *unit, uint64_t generation)
{
    const struct host_told *told = told_find(host, unit);

    return told != NULL && told->generation != 0 && (generation == 0 || told->generation == generation);
}

uint64_t host_told_generation(const struct host *host, const char *unit)
{
    const struct host_told *told = told_find(host, unit);

    return told != NULL ? told->generation : 0;
}

bool host_lets_go(const struct host *host, const char *unit)
{
    const struct host_told *told = told_find(host, unit);

    return told != NULL && told->generation == 0;
}

static struct host_told *told_get(struct host *host, const char *unit)
{
    struct host_told *told = told_find(host, unit);

    if (told != NULL)
        return told;
    told = NEW0(struct host_told);
    told->unit = xstrdup(unit);
    HASH_ADD_KEYPTR(hh, host->told, told->unit, strlen(told->unit), told);
    return told;
}

void host_tell(struct host *host, const char *unit, uint64_t generation, const struct strlist *conflicts)
{
    struct host_told *told = told_get(host, unit);

    assert(generation != 0);
    told->generation = generation;
    told->share = host->share_count + 1;
    set_leaves(host, told, false);
    strlist_done(&told->conflicts);
    for (size_t i = 0; i < conflicts->count; i++)
        strlist_add(&told->conflicts, conflicts->items[i]);
}

void host_untell(struct host *host, const char *unit)
{
    struct host_told *told = told_get(host, unit);

    told->generation = 0;
    set_leaves(host, told, true);
}

void host_hand_over(struct host *host, const char *unit)
{
    set_leaves(host, told_get(host, unit), true);
}

static bool any_matches(const struct strlist *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], name))
            return true;
    return false;
}

const char *host_leaves_conflict(const struct host *host, const char *name, const struct strlist *conflicts)
{
    if (host->leaving_count == 0)
        return NULL;
    for (const struct host_told *told = host->told; told != NULL; told = told->hh.next)
        if (told->leaves && !streq(told->unit, name) &&
            (any_matches(conflicts, told->unit) || any_matches(&told->conflicts, name)))
            return told->unit;
    return NULL;
}
