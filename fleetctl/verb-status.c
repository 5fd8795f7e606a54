/* SPDX-License-Identifier: Apache-2.0 */
/* status: what the systemd of every machine that has a unit says of it, in the layout of "systemctl status
 * -l"; through the API, without SSH. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/journal_line.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/stored.h"
#include "fleetctl/verbs.h"

/* ---- small things ---- */

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool has(const json_t *object, const char *key)
{
    return json_object_get(object, key) != NULL;
}

/* A copy that leads neither a terminal nor a script astray. The caller owns it. */
static char *plain_text(const char *text)
{
    char *copy = xstrdup(text);

    for (char *p = copy; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    return copy;
}

/* The text at 'key', likewise. */
static char *plain(const json_t *object, const char *key)
{
    return plain_text(api_text(object, key));
}

/* "1h 2min", from the two largest units of time. */
static char *age_text(uint64_t seconds)
{
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};

    for (size_t i = 0; i + 1 < ARRAY_SIZE(units); i++)
        if (seconds >= units[i].seconds)
            return xasprintf("%llu%s %llu%s", (unsigned long long)(seconds / units[i].seconds), units[i].name,
                             (unsigned long long)(seconds % units[i].seconds / units[i + 1].seconds),
                             units[i + 1].name);
    return xasprintf("%llus", (unsigned long long)seconds);
}

/* " since Thu 2026-11-26 14:10:41 UTC; 5s ago"; "" where the time is not known. */
static char *since_text(json_int_t usec)
{
    const time_t seconds = (time_t)(usec / 1000000), now = (time_t)(wall_ms() / 1000);
    _cleanup_(freep) char *age = NULL;
    struct tm tm = {0};
    char text[64];

    if (usec <= 0)
        return xstrdup("");
    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%a %Y-%m-%d %H:%M:%S %Z", &tm);
    if (now < seconds) /* Its clock is ahead of ours. */
        return xasprintf(" since %s", text);
    age = age_text((uint64_t)(now - seconds));
    return xasprintf(" since %s; %s ago", text, age);
}

static char *bytes_text(json_int_t bytes)
{
    static const char *const units[] = {"B", "K", "M", "G", "T"};
    double value = (double)bytes;
    size_t i = 0;

    while (value >= 1024 && i + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        i++;
    }
    return i == 0 ? xasprintf("%.0f%s", value, units[i]) : xasprintf("%.1f%s", value, units[i]);
}

static char *cpu_text(json_int_t nsec)
{
    if (nsec < 1000000000)
        return xasprintf("%lldms", (long long)(nsec / 1000000));
    return xasprintf("%.3fs", (double)nsec / 1e9);
}

/* ---- one machine ---- */

static void print_loaded(const json_t *unit)
{
    _cleanup_(freep) char *load = plain(unit, "loadState"), *path = plain(unit, "fragmentPath"),
                          *file = plain(unit, "unitFileState"), *error = plain(unit, "loadError");

    printf("     Loaded: %s", load[0] != '\0' ? load : "unknown");
    if (error[0] != '\0')
        printf(" (Reason: %s)", error);
    else if (path[0] != '\0')
        printf(" (%s%s%s)", path, file[0] != '\0' ? "; " : "", file);
    putchar('\n');
}

static void print_active(const json_t *unit)
{
    _cleanup_(freep) char *active = plain(unit, "activeState"), *sub = plain(unit, "subState"),
                          *result = plain(unit, "result");
    const bool up = streq(active, "active") || streq(active, "reloading");
    const char *stamp = up                            ? "activeEnterTimestamp"
                        : streq(active, "activating") ? "inactiveExitTimestamp"
                                                      : "inactiveEnterTimestamp";
    _cleanup_(freep) char *since =
        since_text(number_of(unit, streq(active, "deactivating") ? "activeExitTimestamp" : stamp));

    printf("     Active: %s", active[0] != '\0' ? active : "unknown");
    if (sub[0] != '\0' && !streq(sub, active))
        printf(" (%s)", sub);
    if (result[0] != '\0' && !streq(result, "success"))
        printf(" (Result: %s)", result);
    printf("%s\n", since);
}

static void print_list(const json_t *unit, const char *key, const char *label)
{
    const json_t *list = json_object_get(unit, key), *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        _cleanup_(freep) char *text = plain_text(json_is_string(item) ? json_string_value(item) : "");

        printf("%11s%c %s\n", i == 0 ? label : "", i == 0 ? ':' : ' ', text);
    }
}

/* How the main process ended, in wait(2)'s terms. */
static void print_end(const json_t *unit)
{
    const json_int_t code = number_of(unit, "execMainCode"), status = number_of(unit, "execMainStatus");

    if (number_of(unit, "execMainPID") <= 0 || code == 0)
        return;
    printf("    Process: %lld (code=%s, %s=%lld)\n", (long long)number_of(unit, "execMainPID"),
           code == 1   ? "exited"
           : code == 2 ? "killed"
           : code == 3 ? "dumped"
                       : "ended",
           code == 1 ? "status" : "signal", (long long)status);
}

static void print_use(const json_t *unit)
{
    if (has(unit, "tasks")) {
        printf("      Tasks: %lld", (long long)number_of(unit, "tasks"));
        if (has(unit, "tasksMax"))
            printf(" (limit: %lld)", (long long)number_of(unit, "tasksMax"));
        putchar('\n');
    }
    if (has(unit, "memory")) {
        _cleanup_(freep) char *text = bytes_text(number_of(unit, "memory"));

        printf("     Memory: %s\n", text);
    }
    if (has(unit, "cpuNSec")) {
        _cleanup_(freep) char *text = cpu_text(number_of(unit, "cpuNSec"));

        printf("        CPU: %s\n", text);
    }
}

static void print_processes(const json_t *machine, const json_t *unit)
{
    const json_t *list = json_object_get(machine, "processes"), *process;
    _cleanup_(freep) char *group = plain(unit, "controlGroup");
    const size_t count = json_array_size(list);
    size_t i;

    if (group[0] != '\0' && count > 0)
        printf("     CGroup: %s\n", group);
    json_array_foreach(list, i, process)
    {
        _cleanup_(freep) char *command = plain(process, "command");

        printf("             %s%lld %s\n", i + 1 < count || has(machine, "processesLeftOut") ? "├─" : "└─",
               (long long)number_of(process, "pid"), command);
    }
    if (has(machine, "processesLeftOut"))
        printf("             └─and %lld more\n", (long long)number_of(machine, "processesLeftOut"));
}

/* As systemctl's. */
static const char *dot_of(const char *active)
{
    static const struct {
        const char *active, *dot;
    } dots[] = {
        {"active", "●"}, {"activating", "●"}, {"deactivating", "●"}, {"reloading", "↻"}, {"failed", "×"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(dots); i++)
        if (streq(active, dots[i].active))
            return dots[i].dot;
    return "○";
}

static void print_head(struct ctl *ctl, const json_t *answer, const json_t *machine, const json_t *unit)
{
    _cleanup_(freep) char *name = plain(answer, "name"), *description = plain(unit, "description"),
                          *host = plain(machine, "hostname"), *error = plain(machine, "error");
    _cleanup_(freep) char *legend =
        ctl_legend(ctl, api_text(machine, "machineID"), api_text(machine, "machineIP"));

    printf("%s %s", dot_of(api_text(unit, "activeState")), name);
    if (description[0] != '\0')
        printf(" - %s", description);
    printf("\n    Machine: %s (%s)%s%s\n", legend, host, error[0] != '\0' ? ": " : "", error);
}

static void print_fleet(const json_t *answer, const json_t *machine)
{
    _cleanup_(freep) char *desired = plain(answer, "desiredState"), *reason = plain(answer, "reason"),
                          *error = plain(json_object_get(machine, "fleet"), "error");

    printf("      Fleet: %s%s%s%s\n", desired, reason[0] != '\0' ? " (" : "", reason,
           reason[0] != '\0' ? ")" : "");
    if (error[0] != '\0')
        printf("             %s\n", error);
}

static void print_journal(const json_t *machine)
{
    const json_t *journal = json_object_get(machine, "journal"), *entry;
    _cleanup_(freep) char *error = plain(machine, "journalError");
    size_t i;

    if (json_array_size(journal) > 0)
        putchar('\n');
    json_array_foreach(journal, i, entry) journal_line_print(entry, OUTPUT_SHORT);
    if (error[0] != '\0')
        complain("Warning: %s", error);
}

static void print_machine(struct ctl *ctl, const json_t *answer, const json_t *machine)
{
    const json_t *unit = json_object_get(machine, "unit");
    _cleanup_(freep) char *status = plain(unit, "statusText");

    print_head(ctl, answer, machine, unit);
    print_loaded(unit);
    print_list(unit, "dropInPaths", "Drop-In");
    print_active(unit);
    print_list(unit, "triggeredBy", "TriggeredBy");
    print_list(unit, "triggers", "Triggers");
    print_list(unit, "documentation", "Docs");
    print_fleet(answer, machine);
    print_end(unit);
    if (number_of(unit, "mainPID") > 0)
        printf("   Main PID: %lld\n", (long long)number_of(unit, "mainPID"));
    if (status[0] != '\0')
        printf("     Status: \"%s\"\n", status);
    print_use(unit);
    print_processes(machine, unit);
    print_journal(machine);
}

/* ---- one unit ---- */

/* As systemctl(1): 3 for what is not active. A machine that does not answer is a failure, if nothing worse.
 */
static int code_of(const json_t *answer)
{
    const json_t *machines = json_object_get(answer, "machines"), *machine;
    int code = json_array_size(machines) > 0 ? CTL_EXIT_DONE : CTL_EXIT_NOT_ACTIVE;
    size_t i;

    json_array_foreach(machines, i, machine)
    {
        const char *active = api_text(json_object_get(machine, "unit"), "activeState");
        const bool failed = api_text(machine, "error")[0] != '\0';

        if (!streq(active, "active") && !streq(active, "reloading"))
            code = CTL_EXIT_NOT_ACTIVE;
        else if (failed && code == CTL_EXIT_DONE)
            code = CTL_EXIT_FAILED;
    }
    return code;
}

static void print_unit(struct ctl *ctl, const json_t *answer)
{
    const json_t *machines = json_object_get(answer, "machines"), *machine;
    const char *name = api_text(answer, "name"), *reason = api_text(answer, "reason");
    size_t i;

    if (json_array_size(machines) == 0)
        complain("Unit %s does not appear to be loaded.%s%s", name, reason[0] != '\0' ? " " : "", reason);
    json_array_foreach(machines, i, machine)
    {
        if (i > 0)
            putchar('\n');
        print_machine(ctl, answer, machine);
    }
    if (has(answer, "machinesLeftOut"))
        printf("\nand %lld more machines\n", (long long)number_of(answer, "machinesLeftOut"));
}

/* Adds what is known of the unit to 'answers', or prints it. */
static int show_unit(struct ctl *ctl, const char *name, bool first, json_t *answers)
{
    _cleanup_(freep) char *escaped = api_escape(name),
                          *path = xasprintf("status/%s?lines=%d", escaped, ctl->options.lines);
    _cleanup_(json_decrefp) json_t *answer = NULL;
    struct err err = {0};
    int r = ctl_read(ctl, path, &answer, &err);

    if (!first && ctl->options.output == OUTPUT_TEXT)
        putchar('\n');
    if (r == -ENOENT && str_has_prefix(err.text, "unit ")) { /* Not a leader that does not know the path. */
        complain("Unit %s does not exist.", name);
        return CTL_EXIT_NO_UNIT;
    }
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving unit");
    if (ctl->options.output == OUTPUT_TEXT)
        print_unit(ctl, answer);
    else
        json_array_append(answers, answer);
    return code_of(answer);
}

static int resolve(struct ctl *ctl, const struct strlist *args, struct strlist *names)
{
    _cleanup_(stored_done) struct stored stored = {0};
    struct err err = {0};
    int r = stored_init(&stored, ctl, 0, &err);

    for (size_t i = 0; i < args->count && r == 0; i++) {
        const size_t before = names->count;

        r = stored_resolve(&stored, args->items[i], names, &err);
        if (r == 0 && names->count == before && stored_is_pattern(args->items[i]))
            complain("No unit matches %s", args->items[i]); /* As for systemctl, that is no failure. */
    }
    return r < 0 ? ctl_fail(&err, r, "Error retrieving unit") : CTL_EXIT_DONE;
}

int verb_status(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *answers = json_array();
    struct strlist names = {0};
    int code;

    if (ctl->options.lines < 0) {
        complain("--lines must not be negative");
        return CTL_EXIT_USAGE;
    }
    code = resolve(ctl, args, &names);
    for (size_t i = 0; i < names.count; i++) {
        int r = show_unit(ctl, names.items[i], i == 0, answers);

        code = r > code ? r : code;
    }
    if (ctl->options.output != OUTPUT_TEXT)
        listing_print_json(ctl, answers);
    strlist_done(&names);
    return code;
}
