/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/config_text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <ini.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/ini_limits.h"
#include "base/str.h"

/* Stands for ";" on the way through inih, which would take it for a comment. */
#define SEMICOLON '\x01'

#define BYTE_ORDER_MARK "\xef\xbb\xbf"

struct reader {
    const struct config_text_callbacks *callbacks;
    void *data;
    const char *at;        /* What is left of the text. */
    unsigned line;         /* Of 'at'. */
    unsigned logical_line; /* Where the line that inih has now began. */
    bool unheard;          /* inih has not yet made a pair of it. */
};

static void mistake(struct reader *reader, const char *what)
{
    reader->callbacks->on_mistake(reader->logical_line, what, reader->data);
}

static void strip_quotes(char *value)
{
    size_t size = strlen(value);

    if (size >= 2 && (*value == '"' || *value == '\'') && value[size - 1] == *value) {
        memmove(value, value + 1, size - 2);
        value[size - 2] = '\0';
    }
}

static int on_pair(void *data, const char *section, const char *name, const char *value)
{
    _cleanup_(freep) char *key = xstrdup(name), *text = xstrdup(value);
    struct reader *reader = data;

    reader->unheard = false;
    for (char *p = key; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    for (char *p = text; *p != '\0'; p++)
        if (*p == SEMICOLON)
            *p = ';';
    strip_quotes(text);
    reader->callbacks->on_pair(reader->logical_line, section, key, text, reader->data);
    return 1;
}

static bool is_comment(const char *line)
{
    return *line == '#' || *line == ';';
}

/* The next line of the text, trimmed; owned by the caller. */
static char *take_line(struct reader *reader)
{
    size_t size = strcspn(reader->at, "\n"), rest = size;
    const char *line = reader->at;

    while (rest > 0 && isspace((unsigned char)*line)) {
        line++;
        rest--;
    }
    while (rest > 0 && isspace((unsigned char)line[rest - 1]))
        rest--;
    reader->at += size + (reader->at[size] != '\0');
    reader->line++;
    return xstrndup(line, rest);
}

/* One line and those that a trailing "\" joins to it. */
static void take_logical_line(struct reader *reader, struct strbuf *out)
{
    bool more = true;

    reader->logical_line = reader->line;
    strbuf_add(out, "");
    while (more && *reader->at != '\0') {
        bool first = reader->line == reader->logical_line;
        _cleanup_(freep) char *line = take_line(reader);

        if (is_comment(line)) {
            if (first)
                return;
            continue;
        }
        more = str_has_suffix(line, "\\");
        strbuf_add_bytes(out, line, strlen(line) - more);
    }
}

/* Where the closing quote of a value is, if 'value' is a whole quoted value with at most a comment behind it.
 */
static char *end_of_quoted(char *value)
{
    char *end = *value == '"' || *value == '\'' ? strchr(value + 1, *value) : NULL;
    const char *rest = end != NULL ? end + 1 + strspn(end + 1, " \t") : NULL;

    return rest != NULL && (*rest == '\0' || is_comment(rest)) ? end : NULL;
}

/* Takes off what inih would read differently: comments, and ";" in quotes. */
static void normalise(char *line)
{
    char *value = strchr(line, '='), *end;

    if (value == NULL || *line == '[')
        return;
    value += 1 + strspn(value + 1, " \t");
    end = end_of_quoted(value);
    if (end == NULL) {
        value[strcspn(value, "#;")] = '\0';
        return;
    }
    end[1] = '\0';
    for (; value < end; value++)
        if (*value == ';')
            *value = SEMICOLON;
}

/* inih would take a colon for "=", and a ";" or "#" before it for a comment. */
static bool is_odd(const char *line)
{
    return *line != '[' && line[strcspn(line, "=:;#")] != '=';
}

static void report_unheard(struct reader *reader)
{
    if (reader->unheard)
        mistake(reader, "neither \"key = value\", a comment nor a [section]");
    reader->unheard = false;
}

/* inih's idea of fgets(): gives it one logical line after the other. */
static char *next_line(char *buffer, int size, void *stream)
{
    struct reader *reader = stream;

    report_unheard(reader);
    while (*reader->at != '\0') {
        struct strbuf line = {0};
        bool empty, fits;

        take_logical_line(reader, &line);
        empty = line.size == 0;
        if (!empty)
            normalise(line.text);
        fits = snprintf(buffer, (size_t)size, "%s\n", line.text) < size;
        reader->unheard = !empty && fits && !(*buffer == '[' && strchr(buffer, ']') != NULL);
        strbuf_done(&line);
        if (!fits)
            mistake(reader, "the line is too long");
        else if (!empty && !is_odd(buffer))
            return buffer;
        report_unheard(reader);
    }
    return NULL;
}

void config_text_parse(const char *text, size_t size, const struct config_text_callbacks *callbacks,
                       void *data)
{
    struct reader reader = {.callbacks = callbacks, .data = data, .at = text, .line = 1};

    ini_limits_lift(CONFIG_LINE_MAX);
    if (str_has_prefix(text, BYTE_ORDER_MARK))
        reader.at += strlen(BYTE_ORDER_MARK);
    if (ini_parse_stream(next_line, &reader, on_pair, &reader) == -2) /* The rest next_line() reports. */
        abort();                                                      /* Out of memory. */
    report_unheard(&reader);
    if (strlen(text) < size) {
        unsigned line = 1;

        for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
            line++;
        callbacks->on_mistake(line, "a NUL byte: all that follows", data);
    }
}
