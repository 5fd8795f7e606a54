/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "units/requirements.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/times.h"
#include "units/name.h"
#include "units/text.h"

#define SECTION "X-Fleet"

/* --- Reading --- */

enum kind {
    MACHINE_ID, /* Later ones lose: the order in the table is that of precedence. */
    CONDITION_MACHINE_ID,
    CONDITION_MACHINE_BOOT_ID,
    MACHINE_OF,
    METADATA,
    CONFLICTS,
    REPLACES,
    GLOBAL,
    FAILURE_BURST,
    FAILURE_INTERVAL,
    ON_DISCONNECT,
};

static const struct {
    const char *name;
    enum kind kind;
} known_options[] = {
    {"MachineID", MACHINE_ID},
    {"X-ConditionMachineID", CONDITION_MACHINE_ID},
    {"X-ConditionMachineBootID", CONDITION_MACHINE_BOOT_ID},
    {"MachineOf", MACHINE_OF},
    {"X-ConditionMachineOf", MACHINE_OF},
    {"MachineMetadata", METADATA},
    {"X-ConditionMachineMetadata", METADATA},
    {"Conflicts", CONFLICTS},
    {"X-Conflicts", CONFLICTS},
    {"Replaces", REPLACES},
    {"Global", GLOBAL},
    {"FailureLimitBurst", FAILURE_BURST},
    {"FailureLimitIntervalSec", FAILURE_INTERVAL},
    {"OnDisconnect", ON_DISCONNECT},
};

static bool find_kind(const char *option, enum kind *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(known_options); i++)
        if (streq(known_options[i].name, option)) {
            *ret = known_options[i].kind;
            return true;
        }
    return false;
}

struct reader {
    struct requirements *r;
    const char *name;          /* NULL: specifiers stay. */
    enum kind machine_id_kind; /* Of the one kept so far. */
    size_t size, value_count;  /* So far, against the limits. */
};

static bool count_value(struct reader *rd)
{
    if (rd->value_count++ >= REQUIREMENTS_VALUES_MAX)
        rd->r->too_large = true;
    return !rd->r->too_large;
}

static void add_metadata(struct reader *rd, const char *text)
{
    const char *equals = strchr(text, '=');
    struct requirements *r = rd->r;
    struct requirements_metadata *m;
    size_t key_size, i;

    if (equals == NULL || equals == text || equals[1] == '\0' || strchr(equals + 1, '=') != NULL)
        return; /* The first fleet ignored these without a word. */
    key_size = (size_t)(equals - text);
    for (i = 0; i < r->metadata_count; i++)
        if (strncmp(r->metadata[i].key, text, key_size) == 0 && r->metadata[i].key[key_size] == '\0')
            break;
    if (i == r->metadata_count) {
        GROW(r->metadata, r->metadata_capacity, r->metadata_count + 1);
        r->metadata[r->metadata_count++] = (struct requirements_metadata){.key = xstrndup(text, key_size)};
    }
    m = &r->metadata[i];
    if (!strlist_has(&m->values, equals + 1))
        strlist_add(&m->values, equals + 1);
}

static bool is_true(const char *text)
{
    static const char *const words[] = {"true", "yes", "1", "on", "t"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcasecmp(words[i], text) == 0)
            return true;
    return false;
}

static void set_wrong_limit(struct requirements *r, const char *option, const char *text)
{
    if (r->wrong_failure_limit == NULL)
        r->wrong_failure_limit = xasprintf("%s=%s", option, text);
}

/* The last one counts, but every one must make sense. */
static void set_failure_burst(struct requirements *r, const char *text)
{
    unsigned n = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9' && n <= FAILURE_BURST_MAX; p++)
        n = 10 * n + (unsigned)(*p - '0');
    if (p == text || *p != '\0' || n > FAILURE_BURST_MAX)
        set_wrong_limit(r, "FailureLimitBurst", text);
    r->has_failure_limit = true;
    r->failure_burst = n;
}

static void set_failure_interval(struct requirements *r, const char *text)
{
    uint64_t ms = 0;

    if (duration_parse(text, &ms, NULL) < 0 || ms == 0 || ms > FAILURE_INTERVAL_MAX_MS)
        set_wrong_limit(r, "FailureLimitIntervalSec", text);
    r->failure_interval_ms = ms;
}

/* The last one counts, but every one must make sense. */
static void set_on_disconnect(struct requirements *r, const char *text)
{
    const bool stop = streq(text, "stop");

    r->stop_ms = stop ? REQUIREMENTS_STOP_DEFAULT_MS : 0;
    if (!stop && !streq(text, "keep") && text[0] != '\0' && r->wrong_disconnect == NULL)
        r->wrong_disconnect = xstrdup(text);
}

static void add_machine_id(struct reader *rd, enum kind kind, const char *text)
{
    if (rd->r->has_machine_id && rd->machine_id_kind <= kind)
        return;
    free(rd->r->machine_id);
    rd->r->machine_id = xstrdup(text);
    rd->r->has_machine_id = true;
    rd->machine_id_kind = kind;
}

/* The words of 'text', split at white space. */
static void add_conflicts(struct reader *rd, const char *text)
{
    const char *end = text + strlen(text);

    while (text < end) {
        const char *start = text;
        size_t space;

        while ((space = text_space(text, end)) == 0 && text < end)
            text++;
        if (text > start) {
            if (!count_value(rd))
                return;
            strlist_take(&rd->r->conflicts, xstrndup(start, (size_t)(text - start)));
        }
        text += space;
    }
}

static void add_value(struct reader *rd, enum kind kind, const char *value)
{
    _cleanup_(freep) char *text = rd->name != NULL ? unit_name_expand(rd->name, value) : xstrdup(value);

    if (kind != CONFLICTS && !count_value(rd)) /* Those are counted by the word. */
        return;
    switch (kind) {
    case MACHINE_ID:
    case CONDITION_MACHINE_ID:
    case CONDITION_MACHINE_BOOT_ID: add_machine_id(rd, kind, text); break;
    case MACHINE_OF: strlist_add(&rd->r->machine_of, text); break;
    case METADATA: add_metadata(rd, text); break;
    case CONFLICTS: add_conflicts(rd, text); break;
    case REPLACES: strlist_add(&rd->r->replaces, text); break;
    case GLOBAL: rd->r->global = is_true(text); break; /* The last one counts. */
    case FAILURE_BURST: set_failure_burst(rd->r, text); break;
    case FAILURE_INTERVAL: set_failure_interval(rd->r, text); break;
    case ON_DISCONNECT: set_on_disconnect(rd->r, text); break;
    }
}

/* A value that begins and ends with '"' is several: '"' toggles quoting and is dropped, a space outside
 * quotes ends a value (§2.4). */
static void add_values(struct reader *rd, enum kind kind, const char *text)
{
    _cleanup_(strbuf_done) struct strbuf value = {0};
    size_t size = strlen(text);
    bool quoted = false;

    if (size == 0 || text[0] != '"' || text[size - 1] != '"') {
        add_value(rd, kind, text);
        return;
    }
    strbuf_add(&value, "");
    for (size_t i = 0; i < size && !rd->r->too_large; i++) {
        if (text[i] == '"') {
            quoted = !quoted;
        } else if (text[i] == ' ' && !quoted) {
            add_value(rd, kind, value.text);
            value.size = 0;
            strbuf_add(&value, "");
        } else {
            strbuf_add_bytes(&value, &text[i], 1);
        }
    }
    add_value(rd, kind, value.text);
}

/* What 'text' can become with all specifiers replaced. */
static size_t largest_size(const char *text)
{
    size_t size = strlen(text);

    for (const char *p = text; (p = strchr(p, '%')) != NULL; p++)
        size += UNIT_NAME_MAX;
    return size;
}

static bool is_stop_timeout(const struct unit_option *option)
{
    if (streq(option->section, "Service") && streq(option->name, "TimeoutStopSec"))
        return true;
    return streq(option->name, "TimeoutSec") &&
           (streq(option->section, "Service") || streq(option->section, "Socket") ||
            streq(option->section, "Mount") || streq(option->section, "Swap"));
}

/* How long the unit may take to stop: the last one counts, an empty one is the default (systemd.service(5)).
 */
static void read_stop_timeout(struct requirements *r, const struct unit_file *file)
{
    const char *text = "";

    if (r->stop_ms == 0)
        return;
    for (size_t i = 0; i < file->count; i++)
        if (is_stop_timeout(&file->options[i]))
            text = file->options[i].value;
    if (text[0] == '\0')
        return;
    /* For systemd 0 means without a limit, like "infinity". */
    if (duration_parse(text, &r->stop_ms, NULL) < 0 || r->stop_ms == 0 ||
        r->stop_ms > REQUIREMENTS_STOP_MAX_MS) {
        r->stop_ms = REQUIREMENTS_STOP_MAX_MS;
        r->wrong_stop_timeout = xstrdup(text);
    }
}

struct requirements *requirements_new(const struct unit_file *file, const char *name)
{
    struct reader rd = {.r = NEW0(struct requirements), .name = name};
    enum kind kind;

    for (size_t i = 0; i < file->count && !rd.r->too_large; i++) {
        const struct unit_option *option = &file->options[i];

        if (!streq(option->section, SECTION) || !find_kind(option->name, &kind))
            continue;
        rd.size += largest_size(option->value);
        if (rd.size > REQUIREMENTS_SIZE_MAX)
            rd.r->too_large = true;
        else
            add_values(&rd, kind, option->value);
    }
    read_stop_timeout(rd.r, file);
    return rd.r;
}

void requirements_free(struct requirements *r)
{
    if (r == NULL)
        return;
    free(r->machine_id);
    strlist_done(&r->machine_of);
    for (size_t i = 0; i < r->metadata_count; i++) {
        free(r->metadata[i].key);
        strlist_done(&r->metadata[i].values);
    }
    free(r->metadata);
    strlist_done(&r->conflicts);
    strlist_done(&r->replaces);
    free(r->wrong_failure_limit);
    free(r->wrong_disconnect);
    free(r->wrong_stop_timeout);
    free(r);
}

const char *requirements_next_unknown(const struct unit_file *file, size_t *position)
{
    enum kind kind;

    while (*position < file->count) {
        const struct unit_option *option = &file->options[(*position)++];

        if (streq(option->section, SECTION) && !find_kind(option->name, &kind))
            return option->name;
    }
    return NULL;
}

static char *text_for_systemd(const struct unit_file *file)
{
    _cleanup_(unit_file_freep) struct unit_file *rest = unit_file_new();

    for (size_t i = 0; i < file->count; i++)
        if (!streq(file->options[i].section, SECTION))
            unit_file_add(rest, file->options[i].section, file->options[i].name, file->options[i].value);
    return unit_file_serialize(rest, NULL);
}

bool requirements_are_all_that_differs(const struct unit_file *a, const struct unit_file *b)
{
    _cleanup_(freep) char *text_a = text_for_systemd(a), *text_b = text_for_systemd(b);

    return streq(text_a, text_b);
}

/* --- Combinations --- */

/* Refuses if one of 'patterns' matches 'peer'. */
static int check_peer(const char *peer, const struct strlist *patterns, const char *what, struct err *err)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], peer)) {
            _cleanup_(freep) char *quoted_peer = text_quote(peer), *quoted = text_quote(patterns->items[i]);

            return err_set(err, -EINVAL, "unresolvable requirements: peer %s matches %s %s", quoted_peer,
                           what, quoted);
        }
    return 0;
}

static int check_failure_limit(const struct requirements *r, struct err *err)
{
    _cleanup_(freep) char *quoted = NULL;

    if (r->wrong_failure_limit == NULL)
        return 0;
    quoted = text_quote(r->wrong_failure_limit);
    return err_set(err, -EINVAL,
                   "%s: FailureLimitBurst is a number up to %d, FailureLimitIntervalSec a time up to a day",
                   quoted, FAILURE_BURST_MAX);
}

static int check_peers(const struct requirements *r, const struct strlist *patterns, const char *what,
                       struct err *err)
{
    int code = 0;

    for (size_t i = 0; i < r->machine_of.count && code == 0; i++)
        code = check_peer(r->machine_of.items[i], patterns, what, err);
    return code;
}

static int check_on_disconnect(const struct requirements *r, struct err *err)
{
    _cleanup_(freep) char *quoted = NULL;

    if (r->wrong_disconnect != NULL) {
        quoted = text_quote(r->wrong_disconnect);
        return err_set(err, -EINVAL, "OnDisconnect must be keep or stop, not %s", quoted);
    }
    if (r->wrong_stop_timeout != NULL) {
        quoted = text_quote(r->wrong_stop_timeout);
        return err_set(
            err, -EINVAL,
            "OnDisconnect=stop needs a TimeoutStopSec of at most %d s, not %s: so long every start on"
            " another machine waits",
            REQUIREMENTS_STOP_MAX_MS / 1000, quoted);
    }
    return 0;
}

int requirements_check(const struct requirements *r, struct err *err)
{
    const bool peers = r->machine_of.count > 0, conflicts = r->conflicts.count > 0,
               replaces = r->replaces.count > 0;
    const struct {
        bool refused;
        const char *text;
    } rules[] = {
        {r->has_machine_id && peers, "MachineID cannot be used with Peers"},
        {r->has_machine_id && conflicts, "MachineID cannot be used with Conflicts"},
        {r->has_machine_id && r->global, "MachineID cannot be used with Global"},
        {r->has_machine_id && replaces, "MachineID cannot be used with Replaces"},
        {r->global && peers, "Global cannot be used with Peers"},
        {r->global && replaces, "Global cannot be used with Replaces"},
        {conflicts && replaces, "Conflicts cannot be used with Replaces"},
        {r->global && r->stop_ms > 0,
         "Global cannot be used with OnDisconnect=stop: all machines have their own"},
    };
    int code;

    if (r->too_large)
        return err_set(err, -E2BIG,
                       "the [" SECTION "] section is too large (at most %d values and %d bytes, with every %%"
                       " counted as %d)",
                       REQUIREMENTS_VALUES_MAX, REQUIREMENTS_SIZE_MAX, UNIT_NAME_MAX);
    code = check_peers(r, &r->conflicts, "conflict", err);
    if (code == 0)
        code = check_peers(r, &r->replaces, "replace", err);
    if (code < 0)
        return code;
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (rules[i].refused)
            return err_set(err, -EINVAL, "%s", rules[i].text);
    code = check_failure_limit(r, err);
    return code < 0 ? code : check_on_disconnect(r, err);
}

/* --- Globs: Go's path.Match, step by step, so that odd patterns mean the same. --- */

/* A character of a class, maybe escaped; moves *p behind it. False: malformed (a class ends in ']', so
 * something must follow, too). */
static bool class_char(const char **p, uint32_t *ret)
{
    size_t size;

    if (**p == '\0' || **p == '-' || **p == ']')
        return false;
    if (**p == '\\' && *++*p == '\0')
        return false;
    size = text_rune(*p, *p + strnlen(*p, 4), ret);
    if (*ret == 0xfffd && size == 1)
        return false;
    *p += size;
    return **p != '\0';
}

/* The class behind a '['; moves *p behind it. -1: malformed. Otherwise whether it has 'rune'. */
static int match_class(const char **p, uint32_t rune)
{
    bool negated = **p == '^', match = false;

    *p += negated;
    for (bool first = true; first || **p != ']'; first = false) {
        uint32_t low, high;

        if (!class_char(p, &low))
            return -1;
        high = low;
        if (**p == '-') {
            ++*p;
            if (!class_char(p, &high))
                return -1;
        }
        match = match || (low <= rune && rune <= high);
    }
    ++*p;
    return match != negated;
}

/* Matches the piece of pattern from 'p' to 'end', which has no star, with the start of 'name'. Returns where
 * the match ends, or NULL. */
static const char *match_piece(const char *p, const char *end, const char *name)
{
    while (p < end) {
        const char *name_end = name + strnlen(name, 4);
        uint32_t rune;
        size_t size;

        if (*name == '\0')
            return NULL;
        size = text_rune(name, name_end, &rune);
        if (*p == '[') {
            p++;
            if (match_class(&p, rune) != 1)
                return NULL;
        } else if (*p == '?') {
            if (*name == '/')
                return NULL;
            p++;
        } else {
            if (*p == '\\')
                p++;
            if (p == end || *p != *name)
                return NULL;
            p++;
            size = 1;
        }
        name += size;
    }
    return name;
}

/* The end of the piece at 'p': the next star outside a class. */
static const char *piece_end(const char *p)
{
    bool in_class = false;

    for (; *p != '\0' && (*p != '*' || in_class); p++) {
        if (*p == '\\' && p[1] != '\0')
            p++;
        else if (*p == '[')
            in_class = true;
        else if (*p == ']')
            in_class = false;
    }
    return p;
}

bool requirements_glob(const char *pattern, const char *name)
{
    while (*pattern != '\0') {
        const bool star = *pattern == '*';
        const char *end, *rest;

        pattern += strspn(pattern, "*");
        end = piece_end(pattern);
        if (star && end == pattern)
            return strchr(name, '/') == NULL;
        /* The leftmost place will do, but that the last piece must end where the name does. */
        for (;;) {
            rest = match_piece(pattern, end, name);
            if (rest != NULL && (*rest == '\0' || *end != '\0'))
                break;
            if (!star || *name == '\0' || *name == '/')
                return false;
            name++;
        }
        name = rest;
        pattern = end;
    }
    return *name == '\0';
}
