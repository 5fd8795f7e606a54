/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "units/file.h"

#include <errno.h>
#include <nettle/sha1.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "units/text.h"

struct unit_file *unit_file_new(void)
{
    return NEW0(struct unit_file);
}

void unit_file_free(struct unit_file *file)
{
    if (file == NULL)
        return;
    for (size_t i = 0; i < file->count; i++) {
        free(file->options[i].section);
        free(file->options[i].name);
        free(file->options[i].value);
    }
    free(file->options);
    free(file);
}

/* Takes ownership of the strings. */
static void take_option(struct unit_file *file, char *section, char *name, char *value)
{
    GROW(file->options, file->capacity, file->count + 1);
    file->options[file->count++] = (struct unit_option){section, name, value};
}

void unit_file_add(struct unit_file *file, const char *section, const char *name, const char *value)
{
    take_option(file, xstrdup(section), xstrdup(name), xstrdup(value));
}

/* --- Parsing. The functions read_*() follow the steps of the first fleet's lexer, oddities included (§2.3);
 * each moves 'p' behind what it read, and leaves 'line' where it stands, so that errors name the line where
 * the thing at fault begins. --- */

struct lexer {
    const char *p, *end;
    unsigned line; /* From 1. */
    struct unit_file *file;
    struct err *err;
};

struct span {
    const char *start, *end;
};

static int refuse(const struct lexer *lx, int code, const char *why)
{
    return err_set(lx->err, code, "line %u: %s", lx->line, why);
}

/* The limits, on everything, before anything is taken apart. */
static int check_lines(const struct lexer *lx)
{
    struct lexer at = *lx;
    const char *start = at.p;

    for (; at.p < at.end; at.p++) {
        if (*at.p == '\n' || *at.p == '\r')
            start = at.p + 1;
        else if (at.p - start >= UNIT_FILE_LINE_MAX - 1)
            return refuse(&at, -E2BIG, "line too long (max 2048 bytes)");
        at.line += *at.p == '\n';
    }
    return 0;
}

/* The rest of the line, without its newline. */
static struct span read_line(struct lexer *lx)
{
    struct span line = {lx->p, memchr(lx->p, '\n', (size_t)(lx->end - lx->p))};

    if (line.end == NULL) {
        line.end = lx->p = lx->end;
    } else {
        lx->p = line.end + 1;
        lx->line++;
    }
    return line;
}

/* The rest of a comment line, and further ones while it ends in a backslash. */
static void read_comment(struct lexer *lx)
{
    struct span line;

    do {
        line = read_line(lx);
        if (line.end > line.start && line.end[-1] == ' ')
            line.end--;
    } while (line.end > line.start && line.end[-1] == '\\');
}

/* Everything up to the first section's '['. False: there is none. */
static bool read_before_section(struct lexer *lx)
{
    while (lx->p < lx->end) {
        char c = *lx->p++;

        if (c == '[')
            return true;
        if (c == '#' || c == ';')
            read_comment(lx);
        else if (c == '\n')
            lx->line++;
    }
    return false;
}

static int refuse_garbage(const struct lexer *lx, struct span garbage)
{
    _cleanup_(strbuf_done) struct strbuf bytes = {0};

    for (const char *p = garbage.start; p < garbage.end; p++)
        strbuf_addf(&bytes, "%s%d", p > garbage.start ? " " : "", (unsigned char)*p);
    /* The first fleet meant to print the section's name before the colon, but never did. */
    return err_set(lx->err, -EINVAL, "line %u: found garbage after section name : [%s]", lx->line,
                   bytes.text);
}

/* From behind a '[' to the end of that line. Owned by the caller. */
static int read_section(struct lexer *lx, char **ret)
{
    struct span name = {lx->p, memchr(lx->p, ']', (size_t)(lx->end - lx->p))}, rest;
    struct lexer closed = *lx;

    if (name.end == NULL)
        return refuse(lx, -EINVAL, "unable to find end of section");
    if (name.end - name.start >= UNIT_FILE_LINE_MAX)
        return refuse(lx, -E2BIG, "section name too long (max 2048 bytes)");
    if (memchr(name.start, '\0', (size_t)(name.end - name.start)) != NULL)
        return refuse(lx, -EINVAL, "NUL byte in section name");
    for (const char *p = name.start; p < name.end; p++) /* It may span lines. */
        closed.line += *p == '\n';
    lx->line = closed.line;
    lx->p = name.end + 1;

    rest = read_line(lx);
    text_trim(&rest.start, &rest.end);
    if (rest.start < rest.end)
        return refuse_garbage(&closed, rest);
    free(*ret);
    *ret = xstrndup(name.start, (size_t)(name.end - name.start));
    return 0;
}

/* Up to and with the '='. Owned by the caller. */
static int read_name(struct lexer *lx, char **ret)
{
    struct span name = {lx->p, lx->p};

    while (name.end < lx->end && *name.end != '=' && *name.end != '\n' && *name.end != '\r')
        name.end++;
    if (name.end == lx->end)
        return refuse(lx, -EINVAL, "EOF");
    if (*name.end != '=')
        return refuse(lx, -EINVAL, "unexpected newline encountered while parsing option name");
    lx->p = name.end + 1;
    text_trim(&name.start, &name.end);
    if (memchr(name.start, '\0', (size_t)(name.end - name.start)) != NULL)
        return refuse(lx, -EINVAL, "NUL byte in option name");
    *ret = xstrndup(name.start, (size_t)(name.end - name.start));
    return 0;
}

static bool is_blank(struct span line)
{
    text_trim(&line.start, &line.end);
    return line.start == line.end;
}

/* The rest of the line, and further ones while each ends in a backslash and is not blank. Backslashes and the
 * newlines between the lines stay in the value, which is otherwise trimmed. Owned by the caller. */
static int read_value(struct lexer *lx, char **ret)
{
    struct span value = {lx->p, lx->p}, line;
    bool newline = false; /* 'value' ends in the newline after a backslash. */
    const struct lexer start = *lx;
    size_t size;
    char *s;

    for (;;) {
        line = read_line(lx);
        if (is_blank(line))
            break;
        value.end = line.end;
        newline = false;
        if (line.end[-1] != '\\')
            break;
        newline = line.end < lx->end;
        value.end = lx->p;
    }
    text_trim(&value.start, &value.end);
    size = (size_t)(value.end - value.start);
    if (memchr(value.start, '\0', size) != NULL)
        return refuse(&start, -EINVAL, "NUL byte in value");
    s = xmalloc(size + 2);
    memcpy(s, value.start, size);
    memcpy(s + size, newline ? "\n" : "", newline ? 2 : 1);
    *ret = s;
    return 0;
}

static int read_option(struct lexer *lx, const char *section)
{
    _cleanup_(freep) char *name = NULL, *value = NULL;
    int r;

    if (lx->file->count >= UNIT_FILE_OPTIONS_MAX)
        return err_set(lx->err, -E2BIG, "line %u: more than %d options", lx->line, UNIT_FILE_OPTIONS_MAX);
    r = read_name(lx, &name);
    if (r < 0)
        return r;
    r = read_value(lx, &value);
    if (r < 0)
        return r;
    take_option(lx->file, xstrdup(section), TAKE_PTR(name), TAKE_PTR(value));
    return 0;
}

/* Everything from behind the first '['. */
static int read_sections(struct lexer *lx)
{
    _cleanup_(freep) char *section = NULL;
    int r = read_section(lx, &section);

    while (r >= 0 && lx->p < lx->end) {
        size_t space = text_space(lx->p, lx->end);

        if (space > 0) {
            lx->line += *lx->p == '\n';
            lx->p += space;
        } else if (*lx->p == '[') {
            lx->p++;
            r = read_section(lx, &section);
        } else if (*lx->p == '#' || *lx->p == ';') {
            read_comment(lx);
        } else {
            r = read_option(lx, section);
        }
    }
    return r;
}

int unit_file_parse(const char *text, size_t size, struct unit_file **ret, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *file = unit_file_new();
    struct lexer lx = {.p = text, .end = text + size, .line = 1, .file = file, .err = err};
    int r;

    if (size > UNIT_FILE_SIZE_MAX)
        return err_set(err, -E2BIG, "unit file is larger than %d bytes", UNIT_FILE_SIZE_MAX);
    r = check_lines(&lx);
    if (r < 0)
        return r;
    if (read_before_section(&lx)) {
        r = read_sections(&lx);
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(file);
    return 0;
}

/* --- Serialising --- */

struct entry {
    const struct unit_option *option;
    size_t first; /* Index of the first option of the same section: sections in order of appearance. */
};

static int compare_sections(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int r = strcmp(x->option->section, y->option->section);

    return r != 0 ? r : (x->option > y->option) - (x->option < y->option);
}

static int compare_places(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return (x->option > y->option) - (x->option < y->option);
}

/* The options as they appear in the text. By sorting: no input makes that slow. Owned by the caller. */
static struct entry *gather_sections(const struct unit_file *file)
{
    struct entry *entries = xcalloc(file->count, sizeof *entries);

    if (file->count == 0)
        return entries;
    for (size_t i = 0; i < file->count; i++)
        entries[i].option = &file->options[i];
    qsort(entries, file->count, sizeof *entries, compare_sections);
    for (size_t i = 0; i < file->count; i++)
        entries[i].first = i > 0 && streq(entries[i].option->section, entries[i - 1].option->section)
                               ? entries[i - 1].first
                               : (size_t)(entries[i].option - file->options);
    qsort(entries, file->count, sizeof *entries, compare_places);
    return entries;
}

static char *serialize(const struct entry *entries, size_t count, size_t *ret_size)
{
    struct strbuf b = {0};

    for (size_t i = 0; i < count; i++) {
        const struct unit_option *option = entries[i].option;

        if (i == 0 || entries[i].first != entries[i - 1].first) {
            strbuf_add(&b, i > 0 ? "\n[" : "[");
            strbuf_add(&b, option->section);
            strbuf_add(&b, "]\n");
        }
        strbuf_add(&b, option->name);
        strbuf_add(&b, "=");
        strbuf_add(&b, option->value);
        strbuf_add(&b, "\n");
    }
    if (ret_size != NULL)
        *ret_size = b.size;
    return strbuf_take(&b);
}

char *unit_file_serialize(const struct unit_file *file, size_t *ret_size)
{
    _cleanup_(freep) struct entry *entries = gather_sections(file);

    return serialize(entries, file->count, ret_size);
}

static bool equal_trimmed(const char *a, const char *b)
{
    const char *a_end = a + strlen(a), *b_end = b + strlen(b);

    text_trim(&a, &a_end);
    text_trim(&b, &b_end);
    return a_end - a == b_end - b && memcmp(a, b, (size_t)(a_end - a)) == 0;
}

/* Whether the option of 'entries', with those behind it that its text goes on into (§2.6: a backslash at the
 * end of a line joins the next one), is 'again'. Moves *entry to the last of them. */
static bool reads_as(const struct entry **entry, const struct entry *end, const struct unit_option *again)
{
    const struct entry *first = *entry;
    _cleanup_(strbuf_done) struct strbuf value = {0};

    strbuf_add(&value, first->option->value);
    for (; str_has_suffix(value.text, "\\") && *entry + 1 < end && (*entry)[1].first == first->first;
         ++*entry)
        strbuf_addf(&value, "\n%s=%s", (*entry)[1].option->name, (*entry)[1].option->value);
    return streq(first->option->section, again->section) && equal_trimmed(first->option->name, again->name) &&
           equal_trimmed(value.text, again->value);
}

/* Why 'option' became something else in its text. */
static const char *why_changed(const struct unit_option *option)
{
    const char first = option->name[strspn(option->name, " \t")];

    if (strchr(option->section, ']') != NULL)
        return "the section has a \"]\" in its name";
    if (strpbrk(option->name, "=\r\n") != NULL)
        return "it has a \"=\" or a newline in its name";
    if (first == '[' || first == '#' || first == ';')
        return "its name begins like a section or a comment";
    return "its value has a newline that would end it";
}

static int refuse_option(const struct unit_option *option, struct err *err)
{
    return err_set(err, -EINVAL, "option \"%s\" of section \"%s\" cannot be written as one option: %s",
                   option->name, option->section, why_changed(option));
}

int unit_file_check(const struct unit_file *file, struct err *err)
{
    _cleanup_(unit_file_freep) struct unit_file *again = NULL;
    _cleanup_(freep) struct entry *entries = NULL;
    _cleanup_(freep) char *text = NULL;
    const struct entry *entry;
    size_t size, count = 0;
    int r;

    if (file->count > UNIT_FILE_OPTIONS_MAX)
        return err_set(err, -E2BIG, "unit file has %zu options, the limit is %d", file->count,
                       UNIT_FILE_OPTIONS_MAX);
    entries = gather_sections(file);
    text = serialize(entries, file->count, &size);
    r = unit_file_parse(text, size, &again, err);
    if (r < 0)
        return r;
    for (entry = entries; entry < entries + file->count; entry++) {
        const struct unit_option *option = entry->option;

        if (count >= again->count || !reads_as(&entry, entries + file->count, &again->options[count]))
            return refuse_option(option, err);
        count++;
    }
    return again->count > count ? refuse_option(entries[file->count - 1].option, err) : 0;
}

const char *unit_file_get(const struct unit_file *file, const char *section, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (streq(file->options[i].section, section) && streq(file->options[i].name, name))
            return file->options[i].value;
    return NULL;
}

void unit_hash(const char *text, size_t size, char ret[static UNIT_HASH_SIZE])
{
    uint8_t digest[SHA1_DIGEST_SIZE];
    struct sha1_ctx ctx;

    sha1_init(&ctx);
    sha1_update(&ctx, size, (const uint8_t *)text);
    sha1_digest(&ctx, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}
