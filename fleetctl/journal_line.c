/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/journal_line.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

uint64_t journal_line_usec(const json_t *entry)
{
    const char *text = json_string_value(json_object_get(entry, "__REALTIME_TIMESTAMP"));

    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

/* A field that is set several times: the first. */
static const json_t *first_of(const json_t *value)
{
    return json_is_array(value) && !json_is_integer(json_array_get(value, 0)) ? json_array_get(value, 0)
                                                                              : value;
}

/* Takes the escape sequences for colours and the like out (ECMA-48's CSI), as journalctl does. */
static size_t strip_colours(char *text, size_t size)
{
    size_t kept = 0, i = 0;

    while (i < size) {
        if (text[i] != '\033' || i + 1 >= size || text[i + 1] != '[') {
            text[kept++] = text[i++];
            continue;
        }
        for (i += 2; i < size && text[i] >= 0x20 && text[i] <= 0x3f; i++)
            ;
        i++; /* The final byte. */
    }
    return kept;
}

static bool is_printable(const char *text, size_t size)
{
    json_t *json = json_stringn(text, size); /* NULL: no UTF-8. */

    if (json == NULL)
        return false;
    json_decref(json);
    for (size_t i = 0; i < size; i++)
        if (((unsigned char)text[i] < ' ' && text[i] != '\t' && text[i] != '\n') || text[i] == 0x7f ||
            ((unsigned char)text[i] == 0xc2 && i + 1 < size && (unsigned char)text[i + 1] < 0xa0))
            return false;
    return true;
}

/* What is no text is described as journalctl does. */
static char *bytes_text(const json_t *bytes)
{
    const size_t count = json_array_size(bytes);
    _cleanup_(freep) char *text = xmalloc(count + 1);
    size_t size;

    for (size_t i = 0; i < count; i++)
        text[i] = (char)json_integer_value(json_array_get(bytes, i));
    size = strip_colours(text, count);
    text[size] = '\0';
    return is_printable(text, size) ? TAKE_PTR(text) : xasprintf("[%zuB blob data]", count);
}

/* A field as text. The caller owns it; NULL: there is none. */
static char *field_text(const json_t *entry, const char *name)
{
    const json_t *value = first_of(json_object_get(entry, name));

    if (json_is_array(value))
        return bytes_text(value);
    if (json_is_null(value))
        return xstrdup("[too large]");
    if (!json_is_string(value))
        return NULL;
    if (!is_printable(json_string_value(value), json_string_length(value)))
        return xasprintf("[%zuB blob data]", json_string_length(value));
    return xstrdup(json_string_value(value));
}

static void print_time(const json_t *entry, enum output_mode mode)
{
    const uint64_t usec = journal_line_usec(entry);
    const time_t seconds = (time_t)(usec / 1000000);
    const unsigned rest = (unsigned)(usec % 1000000);
    struct tm tm = {0};
    char text[64];

    if (mode == OUTPUT_SHORT_UNIX) {
        printf("%llu.%06u", (unsigned long long)seconds, rest);
        return;
    }
    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, mode == OUTPUT_SHORT_ISO ? "%Y-%m-%dT%H:%M:%S%z" : "%b %d %H:%M:%S", &tm);
    fputs(text, stdout);
    if (mode == OUTPUT_SHORT_PRECISE)
        printf(".%06u", rest);
}

/* The message; further lines are indented, so that nobody takes them for entries. */
static void print_message(const char *message, int indent)
{
    for (; *message != '\0'; message++) {
        putchar(*message);
        if (*message == '\n')
            printf("%*s", indent, "");
    }
    putchar('\n');
}

static void print_short(const json_t *entry, enum output_mode mode)
{
    _cleanup_(freep) char *host = field_text(entry, "_HOSTNAME"),
                          *name = field_text(entry, "SYSLOG_IDENTIFIER"), *pid = field_text(entry, "_PID"),
                          *message = field_text(entry, "MESSAGE");

    if (name == NULL)
        name = field_text(entry, "_COMM");
    if (pid == NULL)
        pid = field_text(entry, "SYSLOG_PID");
    print_time(entry, mode);
    printf(" %s %s", host != NULL ? host : "-", name != NULL ? name : "unknown");
    if (pid != NULL)
        printf("[%s]", pid);
    fputs(": ", stdout);
    print_message(message != NULL ? message : "", 4);
}

static void print_json(const json_t *entry, size_t flags)
{
    _cleanup_(freep) char *text = json_dumps(entry, flags | JSON_SORT_KEYS);

    if (text != NULL)
        puts(text);
}

void journal_line_print(const json_t *entry, enum output_mode mode)
{
    _cleanup_(freep) char *message = NULL;

    switch (mode) {
    case OUTPUT_JSON: print_json(entry, JSON_COMPACT); break;
    case OUTPUT_JSON_PRETTY: print_json(entry, JSON_INDENT(4)); break;
    case OUTPUT_CAT:
        message = field_text(entry, "MESSAGE");
        if (message != NULL)
            print_message(message, 0);
        break;
    case OUTPUT_TEXT:
    case OUTPUT_SHORT:
    case OUTPUT_SHORT_ISO:
    case OUTPUT_SHORT_PRECISE:
    case OUTPUT_SHORT_UNIX: print_short(entry, mode); break;
    }
}
