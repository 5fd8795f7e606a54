/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "units/name.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "units/text.h"

#define NAME_CHARS "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\@"

/* Every type that the first fleet's API took. One list for all: what is accepted here, the agent manages. */
static const struct unit_type {
    const char *suffix;
    bool templates;      /* May be a template or an instance (§2.2 rule 6). */
    const char *why_not; /* Known, but systemd cannot load it from a file. */
    bool does_nothing;   /* It only stands for other things: new content is in force without a restart. */
    bool cannot_stop;    /* systemd neither starts nor stops it, it only waits for it. */
} unit_types[] = {
    {".automount", false, NULL, false, false},
    {".busname", false, "systemd no longer has this type", false, false},
    {".device", false, NULL, true, true}, /* It comes and goes with the hardware. */
    {".mount", false, NULL, false, false},
    {".path", true, NULL, false, false},
    {".scope", false, "systemd does not load this type from files", false, false}, /* systemd.scope(5) */
    {".service", true, NULL, false, false},
    {".slice", false, NULL, true, false}, /* A restart would be one of all that is in it. */
    {".snapshot", false, "systemd no longer has this type", false, false},
    {".socket", true, NULL, false, false},
    {".swap", false, NULL, false, false},
    {".target", true, NULL, true, false}, /* A restart would be one of all that is part of it. */
    {".timer", true, NULL, false, false},
};

static const struct unit_type *find_type(const char *suffix)
{
    for (size_t i = 0; i < ARRAY_SIZE(unit_types); i++)
        if (streq(unit_types[i].suffix, suffix))
            return &unit_types[i];
    return NULL;
}

int unit_name_split(const char *name, struct unit_name_parts *ret)
{
    const char *dot = strrchr(name, '.'), *at;

    if (dot == NULL)
        return -EINVAL;
    at = memchr(name, '@', (size_t)(dot - name));
    *ret = (struct unit_name_parts){
        .prefix_size = (size_t)((at != NULL ? at : dot) - name),
        .name_size = (size_t)(dot - name),
        .has_at = at != NULL,
        .instance = at != NULL ? at + 1 : dot,
        .instance_size = at != NULL ? (size_t)(dot - at - 1) : 0,
        .suffix = dot,
    };
    return 0;
}

static const struct unit_type *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL ? find_type(dot) : NULL;
}

bool unit_name_restarts(const char *name)
{
    const struct unit_type *type = type_of(name);

    return type == NULL || !type->does_nothing;
}

bool unit_name_stops(const char *name)
{
    const struct unit_type *type = type_of(name);

    return type == NULL || !type->cannot_stop;
}

static int check_type(const char *name, const char *suffix, struct err *err)
{
    const struct unit_type *type = find_type(suffix);
    _cleanup_(freep) char *quoted = text_quote(suffix + 1);

    if (type == NULL)
        return err_set(err, -EINVAL, "invalid unit type: %s", quoted);
    if (type->why_not != NULL)
        return err_set(err, -EINVAL, "invalid unit type: %s (%s)", quoted, type->why_not);
    if (!type->templates && strchr(name, '@') != NULL)
        return err_set(err, -EINVAL, "invalid unit type for template: %s", quoted);
    return 0;
}

int unit_name_check(const char *name, struct err *err)
{
    struct unit_name_parts parts;
    size_t good;
    int r;

    if (name[0] == '\0')
        return err_set(err, -EINVAL, "unit name cannot be empty");
    if (strnlen(name, UNIT_NAME_MAX + 1) > UNIT_NAME_MAX)
        return err_set(err, -EINVAL, "unit name exceeds maximum length (%d)", UNIT_NAME_MAX);
    if (unit_name_split(name, &parts) < 0)
        return err_set(err, -EINVAL, "unit name must contain \".\"");
    if (parts.suffix[1] == '\0')
        return err_set(err, -EINVAL, "unit name cannot end in \".\"");
    r = check_type(name, parts.suffix, err);
    if (r < 0)
        return r;
    good = strspn(name, NAME_CHARS);
    if (good < parts.name_size) {
        _cleanup_(freep) char *quoted = text_quote_rune(name + good);

        return err_set(err, -EINVAL, "invalid character %s in unit name", quoted);
    }
    if (name[0] == '@')
        return err_set(err, -EINVAL, "unit name cannot start in \"@\"");
    if (streq(name, "fleetd.service") || streq(name, "fleet-lease.service"))
        return err_set(err, -EINVAL, "unit name %s is taken by fleet itself", name);
    return 0;
}

bool unit_name_is_template(const char *name)
{
    struct unit_name_parts parts;

    return unit_name_split(name, &parts) == 0 && parts.has_at && parts.instance_size == 0;
}

bool unit_name_is_instance(const char *name)
{
    struct unit_name_parts parts;

    return unit_name_split(name, &parts) == 0 && parts.has_at && parts.instance_size > 0;
}

char *unit_name_template(const char *name)
{
    struct unit_name_parts parts;

    if (unit_name_split(name, &parts) < 0 || !parts.has_at || parts.instance_size == 0)
        return NULL;
    return xasprintf("%.*s@%s", (int)parts.prefix_size, name, parts.suffix);
}

char *unit_name_mangle_path(const char *arg)
{
    for (size_t i = 0; i < ARRAY_SIZE(unit_types); i++)
        if (str_has_suffix(arg, unit_types[i].suffix))
            return xstrdup(arg);
    return xasprintf("%s.service", arg);
}

char *unit_name_mangle(const char *arg)
{
    /* It ends in a suffix now, so there is neither an empty path nor a trailing slash to think of. */
    _cleanup_(freep) char *path = unit_name_mangle_path(arg);
    const char *slash = strrchr(path, '/');

    return xstrdup(slash != NULL ? slash + 1 : path);
}

/* strings.Replace(text, from, to, -1), 'from' being two characters. Frees 'text'. */
static char *replace_all(char *text, const char *from, const char *to, size_t to_size)
{
    struct strbuf b = {0};
    const char *p = text, *hit;

    if (strstr(text, from) == NULL)
        return text;
    for (; (hit = strstr(p, from)) != NULL; p = hit + 2) {
        strbuf_add_bytes(&b, p, (size_t)(hit - p));
        strbuf_add_bytes(&b, to, to_size);
    }
    strbuf_add(&b, p);
    free(text);
    return strbuf_take(&b);
}

char *unit_name_expand(const char *name, const char *text)
{
    struct unit_name_parts parts;
    char *s = xstrdup(text);

    /* No valid name has a '%'; with one, each replacement below could feed the next and multiply the text. */
    if (strchr(name, '%') != NULL || unit_name_split(name, &parts) < 0)
        return s;
    s = replace_all(s, "%n", name, strlen(name));
    s = replace_all(s, "%N", name, parts.name_size);
    s = replace_all(s, "%p", name, parts.prefix_size);
    return replace_all(s, "%i", parts.instance, parts.instance_size);
}
