/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/settings.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "raftstore/limits.h"
#include "units/requirements.h"

/* In the order of enum pki_role. */
static const char *const roles[] = {"none", "viewer", "operator", "admin"};
#define DAY_MS (24ull * 3600 * 1000)

static const struct setting rows[SETTING_COUNT] = {
    [SETTING_CERTIFICATE_LIFETIME] =
        {"certificate_lifetime", SETTING_DURATION, 365 * DAY_MS, 60000, 3650 * DAY_MS, false,
         "How long a machine's certificate holds; it is renewed when a third of that is over", NULL},
    [SETTING_FAILURE_LIMIT_BURST] =
        {"failure_limit_burst", SETTING_NUMBER, 0, 0, FAILURE_BURST_MAX, false,
         "After so many failures on one machine a unit is tried elsewhere; 0: never", NULL},
    [SETTING_FAILURE_LIMIT_INTERVAL] = {"failure_limit_interval", SETTING_DURATION, 600000, 1,
                                        FAILURE_INTERVAL_MAX_MS, false,
                                        "Within so long these failures must be", NULL},
    [SETTING_HOST_ROLE] = {"host_role", SETTING_WORD, ARRAY_SIZE(roles) - 1, 0, ARRAY_SIZE(roles) - 1, false,
                           "What one may do through a host that does not hold the cluster's data", roles},
    [SETTING_VOTERS] = {"voters", SETTING_NUMBER, 5, 1, SETTING_VOTERS_MAX, true,
                        "How many hosts vote, as far as there are so many", NULL},
    [SETTING_VOTERS_GRACE] = {"voters_grace", SETTING_DURATION, 300000, 1000, 30 * 86400000ull, false,
                              "A voter that is away for so long is replaced by another host", NULL},
    [SETTING_VOTERS_SPREAD_BY] = {"voters_spread_by", SETTING_TEXT, 0, 0, SETTING_VALUE_MAX, false,
                                  "A metadata key: voters have as many different values of it as possible",
                                  NULL},
};

const struct setting *settings_row(enum setting_id id)
{
    assert(id < SETTING_COUNT);
    return &rows[id];
}

bool settings_find(const char *name, enum setting_id *ret)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (streq(rows[i].name, name)) {
            *ret = (enum setting_id)i;
            return true;
        }
    return false;
}

/* Digits alone; what is too large for any setting is cut to UINT64_MAX. */
static bool read_number(const char *text, uint64_t *ret)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value > (UINT64_MAX - 9) / 10 ? UINT64_MAX : 10 * value + (uint64_t)(*text - '0');
    *ret = value;
    return *text == '\0';
}

static int parse_text(const struct setting *row, const char *text, uint64_t *ret, struct err *err)
{
    size_t size = strlen(text);

    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c <= ' ' || *c == 127)
            return err_set(err, -EINVAL, "it has blanks, or characters that nobody could see");
    if (size < row->min || size > row->max)
        return err_set(err, -EINVAL, "it has %zu bytes, and not %" PRIu64 " to %" PRIu64, size, row->min,
                       row->max);
    *ret = size;
    return 0;
}

static bool read_word(const struct setting *row, const char *text, uint64_t *ret)
{
    for (uint64_t i = row->min; i <= row->max; i++)
        if (streq(row->words[i], text)) {
            *ret = i;
            return true;
        }
    return false;
}

int settings_parse(enum setting_id id, const char *text, uint64_t *ret, struct err *err)
{
    const struct setting *row = settings_row(id);
    _cleanup_(freep) char *limits = NULL;
    uint64_t value;

    if (row->type == SETTING_TEXT)
        return parse_text(row, text, ret, err);
    if (row->type == SETTING_DURATION) {
        int r = duration_parse(text, &value, err);

        if (r < 0)
            return -EINVAL;
    } else if (row->type == SETTING_WORD) {
        limits = settings_limits(id);
        if (!read_word(row, text, ret))
            return err_set(err, -EINVAL, "\"%.64s\" is none of %s", text, limits);
        return 0;
    } else if (!read_number(text, &value)) {
        return err_set(err, -EINVAL, "\"%.64s\" is not a whole number", text);
    }
    limits = settings_limits(id);
    if (value < row->min || value > row->max || (row->odd && value % 2 == 0))
        return err_set(err, -EINVAL, "%.64s is %s %s", text, row->odd ? "none of" : "not within", limits);
    *ret = value;
    return 0;
}

int settings_normalise(enum setting_id id, const char *text, char **ret, struct err *err)
{
    uint64_t value;
    int r = settings_parse(id, text, &value, err);

    if (r >= 0)
        *ret = settings_row(id)->type == SETTING_TEXT ? xstrdup(text) : settings_format(id, value);
    return r;
}

char *settings_fallback(enum setting_id id)
{
    return settings_row(id)->type == SETTING_TEXT ? xstrdup("")
                                                  : settings_format(id, settings_row(id)->fallback);
}

char *settings_format(enum setting_id id, uint64_t value)
{
    const struct setting *row = settings_row(id);

    switch (row->type) {
    case SETTING_DURATION: return duration_format(value);
    case SETTING_WORD: return xstrdup(row->words[value]);
    case SETTING_TEXT:
    case SETTING_NUMBER: break;
    }
    return xasprintf("%" PRIu64, value);
}

char *settings_limits(enum setting_id id)
{
    const struct setting *row = settings_row(id);
    struct strbuf text = {0};

    if (row->odd || row->type == SETTING_WORD) {
        uint64_t step = row->odd ? 2 : 1;

        for (uint64_t value = row->min; value <= row->max; value += step) {
            _cleanup_(freep) char *one = settings_format(id, value);

            strbuf_addf(&text, "%s%s", value == row->min ? "" : value + step > row->max ? " or " : ", ", one);
        }
    } else if (row->type == SETTING_TEXT) {
        strbuf_addf(&text, "%" PRIu64 " to %" PRIu64 " bytes without blanks", row->min, row->max);
    } else {
        _cleanup_(freep) char *min = settings_format(id, row->min), *max = settings_format(id, row->max);

        strbuf_addf(&text, "%s to %s", min, max);
    }
    return strbuf_take(&text);
}
