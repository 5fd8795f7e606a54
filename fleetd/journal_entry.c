/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/journal_entry.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

#define NAME_MAX_SIZE 64 /* journald's own limit. */

void journal_entry_init(struct journal_entry *entry, size_t max)
{
    *entry = (struct journal_entry){.json = json_object(), .size = 2, .max = max};
}

/* systemd.journal-fields(7): capitals, digits and underscores. */
static char *read_name(const char *field, size_t size)
{
    const char *end = memchr(field, '=', size < NAME_MAX_SIZE + 1 ? size : NAME_MAX_SIZE + 1);
    char *name;

    if (end == NULL || end == field)
        return NULL;
    name = xstrndup(field, (size_t)(end - field));
    if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name) &&
        strlen(name) == (size_t)(end - field))
        return name;
    free(name);
    return NULL;
}

static bool has_controls(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if ((c < ' ' && c != '\t' && c != '\n') || c == 0x7f ||
            (c == 0xc2 && i + 1 < size && (unsigned char)text[i + 1] < 0xa0)) /* C1, as UTF-8. */
            return true;
    }
    return false;
}

/* NULL: no printable UTF-8. */
static json_t *text_json(const char *text, size_t size)
{
    return has_controls(text, size) ? NULL : json_stringn(text, size);
}

static json_t *bytes_json(const char *bytes, size_t size)
{
    json_t *array = json_array();

    for (size_t i = 0; i < size; i++)
        json_array_append_new(array, json_integer((unsigned char)bytes[i]));
    return array;
}

/* Its value, which takes at most 'room' bytes; *ret_size is an upper bound of what it takes. */
static json_t *value_json(const char *value, size_t size, size_t room, size_t *ret_size)
{
    json_t *json = NULL;

    *ret_size = 2 * size + 2; /* A tab, a newline, a quote and a backslash are two characters. */
    if (*ret_size <= room)
        json = text_json(value, size);
    if (json != NULL)
        return json;
    *ret_size = 4 * size + 2; /* "255," */
    if (*ret_size <= room)
        return bytes_json(value, size);
    *ret_size = strlen("null");
    return json_null();
}

/* Where 'size' bytes of UTF-8 may be cut, at or before 'max'. */
static size_t cut(const char *text, size_t size, size_t max)
{
    size_t at = size < max ? size : max;

    if (at == size)
        return at;
    while (at > 0 && max - at < 4 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return at;
}

/* Sets the field, or makes an array of it if it is there already. Takes over 'value'. */
static void put(struct journal_entry *entry, const char *name, json_t *value, bool again)
{
    json_t *old = json_object_get(entry->json, name), *list;

    if (!again) {
        json_object_set_new_nocheck(entry->json, name, value);
        return;
    }
    /* An array of integers is one value of bytes; any other array holds several values. */
    if (json_is_array(old) && !json_is_integer(json_array_get(old, 0))) {
        json_array_append_new(old, value);
        return;
    }
    list = json_array();
    json_array_append(list, old);
    json_array_append_new(list, value);
    json_object_set_new_nocheck(entry->json, name, list);
}

void journal_entry_add(struct journal_entry *entry, const void *field, size_t size)
{
    _cleanup_(freep) char *name = read_name(field, size);
    bool again = name != NULL && json_object_get(entry->json, name) != NULL;
    size_t name_size, value_size, room, taken;
    const char *value;
    json_t *json;

    if (name == NULL || (!again && json_object_size(entry->json) >= JOURNAL_ENTRY_FIELDS_MAX))
        return;
    name_size = strlen(name);
    value = (const char *)field + name_size + 1;
    value_size = size - name_size - 1;
    taken = entry->size + name_size + strlen("\"\":,[]");
    if (taken + strlen("null") > entry->max)
        return; /* Not even that it is missing can be said. */
    room = entry->max - taken;
    if (streq(name, "MESSAGE")) {
        size_t most = room / 4 - 1 < JOURNAL_MESSAGE_MAX ? room / 4 - 1 : JOURNAL_MESSAGE_MAX;

        value_size = cut(value, value_size, room >= 8 ? most : 0);
    } else if (value_size > JOURNAL_FIELD_MAX) {
        room = strlen("null");
    }
    json = value_json(value, value_size, room, &value_size);
    put(entry, name, json, again);
    entry->size = taken + value_size;
}

void journal_entry_set(struct journal_entry *entry, const char *name, const char *value)
{
    json_t *json = json_string(value);

    if (json == NULL)
        return;
    json_object_set_new(entry->json, name, json);
    entry->size += strlen(name) + 2 * strlen(value) + strlen("\"\":\"\",");
}
