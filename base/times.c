/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/times.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

#define DURATION_MAX_MS (100ull * 366 * 24 * 3600 * 1000)

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t now_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

uint64_t wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

static const struct {
    const char *name;
    double ms;
} duration_units[] = {
    {"us", 0.001},         {"usec", 0.001},        {"ms", 1},         {"msec", 1},       {"s", 1000},
    {"sec", 1000},         {"second", 1000},       {"seconds", 1000}, {"m", 60e3},       {"min", 60e3},
    {"minute", 60e3},      {"minutes", 60e3},      {"h", 3600e3},     {"hr", 3600e3},    {"hour", 3600e3},
    {"hours", 3600e3},     {"d", 86400e3},         {"day", 86400e3},  {"days", 86400e3}, {"w", 7 * 86400e3},
    {"week", 7 * 86400e3}, {"weeks", 7 * 86400e3},
};

static double unit_ms(const char *name, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(duration_units); i++)
        if (strlen(duration_units[i].name) == size && memcmp(duration_units[i].name, name, size) == 0)
            return duration_units[i].ms;
    return -1;
}

/* Digits with at most one point; moves *p behind them. By hand because strtod() obeys the locale and takes
 * more forms ("inf", "0x1p3") than a duration has. */
static int read_number(const char **p, double *ret)
{
    double value = 0, scale = 1;
    const char *start = *p;
    bool point = false;

    for (; isdigit((unsigned char)**p) || (**p == '.' && !point); (*p)++) {
        if (**p == '.') {
            point = true;
            continue;
        }
        value = value * 10 + (**p - '0');
        if (point)
            scale *= 10;
    }
    if (*p == start || (*p == start + 1 && point))
        return -EINVAL;
    *ret = value / scale;
    return 0;
}

int duration_parse(const char *text, uint64_t *ret_ms, struct err *err)
{
    const char *p = text + strspn(text, " \t");
    double total = 0;

    if (*p == '\0')
        return err_set(err, -EINVAL, "duration is empty");
    while (*p != '\0') {
        double value, ms;
        size_t size;

        if (read_number(&p, &value) < 0)
            return err_set(err, -EINVAL, "\"%s\" is not a duration (write for example 10s, 1min 30s, 500ms)",
                           text);
        p += strspn(p, " \t");
        for (size = 0; isalpha((unsigned char)p[size]); size++)
            ;
        ms =
            size == 0 && *p == '\0' ? 1000 : unit_ms(p, size); /* Only a last number may go without a unit. */
        if (ms < 0)
            return err_set(err, -EINVAL, "\"%s\" in \"%s\" does not begin with a unit of time", p, text);
        total += value * ms;
        if (total > DURATION_MAX_MS)
            return err_set(err, -ERANGE, "\"%s\" is longer than a hundred years", text);
        p += size;
        p += strspn(p, " \t");
    }
    *ret_ms = (uint64_t)(total + 0.5);
    return 0;
}

char *duration_format(uint64_t ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } parts[] = {{"d", 86400000}, {"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}};
    struct strbuf text = {0};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        if (ms >= parts[i].ms)
            strbuf_addf(&text, "%s%" PRIu64 "%s", text.size > 0 ? " " : "", ms / parts[i].ms, parts[i].name);
        ms %= parts[i].ms;
    }
    return text.size > 0 ? strbuf_take(&text) : xstrdup("0");
}
