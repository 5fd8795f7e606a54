/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/listing.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/output.h"

static const struct listing_field *find_field(const struct listing *l, const char *name, size_t size)
{
    for (size_t i = 0; i < l->field_count; i++)
        if (strlen(l->fields[i].name) == size && memcmp(l->fields[i].name, name, size) == 0)
            return &l->fields[i];
    return NULL;
}

static const char *chosen(const struct ctl *ctl, const struct listing *l)
{
    return ctl->options.fields != NULL ? ctl->options.fields : l->default_fields;
}

/* The next of the comma-separated fields at *p, which moves behind it; NULL at the end. */
static const struct listing_field *next_field(const struct listing *l, const char **p)
{
    const size_t size = strcspn(*p, ",");
    const struct listing_field *field = find_field(l, *p, size);

    *p += size;
    if (**p == ',')
        (*p)++;
    return field;
}

int listing_check(const struct ctl *ctl, const struct listing *l)
{
    const char *p = chosen(ctl, l);

    if (*p == '\0') {
        complain("Must define output format");
        return CTL_EXIT_USAGE;
    }
    if (str_has_suffix(p, ",")) {
        complain("Invalid key in output format: \"\"");
        return CTL_EXIT_USAGE;
    }
    while (*p != '\0') {
        const char *name = p;
        const int size = (int)strcspn(p, ",");

        if (next_field(l, &p) != NULL)
            continue;
        complain("Invalid key in output format: \"%.*s\"", size, name);
        return CTL_EXIT_USAGE;
    }
    return CTL_EXIT_DONE;
}

static void add_header(struct table *t, const char *name)
{
    _cleanup_(freep) char *header = xstrdup(name);

    for (char *p = header; *p != '\0'; p++)
        *p = (char)toupper((unsigned char)*p);
    table_add(t, header);
}

static void print_table(struct ctl *ctl, const struct listing *l, const json_t *entities)
{
    const struct listing_field *field;
    struct table t = {0};
    _cleanup_(freep) char *text = NULL;
    const json_t *entity;
    size_t i;

    for (const char *p = chosen(ctl, l); *p != '\0' && (field = next_field(l, &p)) != NULL; t.column_count++)
        if (!ctl->options.no_legend)
            add_header(&t, field->name);
    json_array_foreach(entities, i, entity) for (const char *p = chosen(ctl, l);
                                                 *p != '\0' && (field = next_field(l, &p)) != NULL;)
    {
        _cleanup_(freep) char *cell = field->cell(ctl, entity);

        table_add(&t, cell[0] != '\0' ? cell : "-");
    }
    text = table_render(&t);
    fputs(text, stdout);
    table_done(&t);
}

void listing_print_json(const struct ctl *ctl, const json_t *value)
{
    json_dumpf(value, stdout, ctl->options.output == OUTPUT_JSON_PRETTY ? JSON_INDENT(2) : JSON_COMPACT);
    putchar('\n');
}

int listing_print(struct ctl *ctl, const struct listing *l, const json_t *entities)
{
    _cleanup_(json_decrefp) json_t *array = NULL;
    const json_t *entity;
    size_t i;

    if (ctl->options.output == OUTPUT_TEXT) {
        print_table(ctl, l, entities);
        return CTL_EXIT_DONE;
    }
    array = json_array();
    json_array_foreach(entities, i, entity) json_array_append_new(array, l->to_json(ctl, entity));
    listing_print_json(ctl, array);
    return CTL_EXIT_DONE;
}

char *listing_legend(struct ctl *ctl, const char *machine_id)
{
    if (machine_id[0] == '\0')
        return xstrdup("");
    return ctl_legend(ctl, machine_id, api_text(ctl_machine(ctl, machine_id), "primaryIP"));
}

char *listing_moment(const json_t *entity, const char *key)
{
    json_int_t ms = json_integer_value(json_object_get(entity, key));
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[64];

    if (ms <= 0 || localtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        return xstrdup("");
    return xstrdup(text);
}

char *listing_number(const json_t *entity, const char *key)
{
    const json_t *number = json_object_get(entity, key);

    return json_is_integer(number) ? xasprintf("%" JSON_INTEGER_FORMAT, json_integer_value(number))
                                   : xstrdup("");
}
