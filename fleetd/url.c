/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/url.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Adds the decoded bytes to 'out'. In a query "+" is a blank; in a path an escaped slash stays escaped. */
static int unescape(const char *s, size_t size, bool query, struct strbuf *out, struct err *err)
{
    strbuf_add_bytes(out, "", 0);
    for (size_t i = 0; i < size; i++) {
        char c = s[i];

        if (c == '%') {
            int high = i + 2 < size ? hex_digit(s[i + 1]) : -1, low = high >= 0 ? hex_digit(s[i + 2]) : -1;

            if (low < 0)
                return err_set(err, -EINVAL, "bad percent escape in the URL");
            c = (char)(high * 16 + low);
            if (c == '\0')
                return err_set(err, -EINVAL, "NUL byte in the URL");
            if (c == '/' && !query) {
                strbuf_add_bytes(out, s + i, 3);
                i += 2;
                continue;
            }
            i += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        strbuf_add_bytes(out, &c, 1);
    }
    return 0;
}

/* An element of the path as it was written and as it is meant. */
struct element {
    const char *raw;
    size_t raw_size;
    char *text;
};

struct elements {
    struct element *items;
    size_t count, capacity;
};

static void elements_done(struct elements *e)
{
    for (size_t i = 0; i < e->count; i++)
        free(e->items[i].text);
    free(e->items);
}

/* Splits and cleans like Go's path.Clean: returns 1 if something had to be cleaned, 0 if not. */
static int split_path(const char *path, size_t size, struct elements *out, bool *trailing, struct err *err)
{
    bool unclean = false;

    *trailing = false;
    for (size_t at = 1; at <= size;) {
        const char *start = path + at, *slash = memchr(start, '/', size - at);
        size_t n = slash != NULL ? (size_t)(slash - start) : size - at;
        struct strbuf text = {0};
        int r = unescape(start, n, false, &text, err);

        if (r < 0) {
            strbuf_done(&text);
            return r;
        }
        at += n + 1;
        *trailing = false;
        if (text.size == 0 && slash == NULL) {
            *trailing = true; /* The path ended in a slash. */
            strbuf_done(&text);
        } else if (text.size == 0 || streq(text.text, ".")) {
            unclean = true;
            *trailing = slash == NULL;
            strbuf_done(&text);
        } else if (streq(text.text, "..")) {
            unclean = true;
            if (out->count > 0)
                free(out->items[--out->count].text);
            *trailing = slash == NULL;
            strbuf_done(&text);
        } else {
            GROW(out->items, out->capacity, out->count + 1);
            out->items[out->count++] = (struct element){start, n, strbuf_take(&text)};
        }
    }
    return unclean;
}

static void join_path(struct url *url, const struct elements *e, bool trailing)
{
    struct strbuf path = {0};

    for (size_t i = 0; i < e->count; i++) {
        strbuf_add(&path, "/");
        strbuf_add(&path, e->items[i].text);
    }
    if (trailing || e->count == 0)
        strbuf_add(&path, "/");
    url->path = strbuf_take(&path);
}

/* What goes into a header must not end it: control bytes, blanks and 8-bit bytes are escaped. */
static void add_header_safe(struct strbuf *b, const char *s, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c <= ' ' || c >= 0x7f)
            strbuf_addf(b, "%%%02X", c);
        else
            strbuf_add_bytes(b, s + i, 1);
    }
}

static void join_location(struct url *url, const struct elements *e, bool trailing, const char *query)
{
    struct strbuf location = {0};

    for (size_t i = 0; i < e->count; i++) {
        strbuf_add(&location, "/");
        add_header_safe(&location, e->items[i].raw, e->items[i].raw_size);
    }
    if (trailing || e->count == 0)
        strbuf_add(&location, "/");
    add_header_safe(&location, query, strlen(query)); /* Begins with its "?", or is empty. */
    url->location = strbuf_take(&location);
}

static int parse_query(struct url *url, const char *query, struct err *err)
{
    while (*query != '\0') {
        size_t size = strcspn(query, "&"), key_size = strcspn(query, "=&");
        struct strbuf key = {0}, value = {0};
        size_t value_at = key_size < size ? key_size + 1 : size;
        int r;

        r = unescape(query, key_size, true, &key, NULL);
        if (r >= 0)
            r = unescape(query + value_at, size - value_at, true, &value, NULL);
        if (r >= 0 && size > 0) {
            if (url->query_count == URL_QUERY_MAX) {
                strbuf_done(&key);
                strbuf_done(&value);
                return err_set(err, -E2BIG, "more than %u query parameters", URL_QUERY_MAX);
            }
            url->query = xrealloc(url->query, (url->query_count + 1) * sizeof *url->query);
            url->query[url->query_count++] = (struct url_query){strbuf_take(&key), strbuf_take(&value)};
        }
        strbuf_done(&key);
        strbuf_done(&value);
        query += size + (query[size] != '\0');
    }
    return 0;
}

static const char *skip_authority(const char *target)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        size_t n = strlen(schemes[i]);

        if (strncasecmp(target, schemes[i], n) == 0)
            return target + n + strcspn(target + n, "/?");
    }
    return target;
}

int url_parse(const char *target, struct url *ret, struct err *err)
{
    struct elements elements = {0};
    struct url url = {0};
    const char *query;
    bool trailing;
    size_t size;
    int r;

    target = skip_authority(target);
    if (*target != '/')
        return err_set(err, -EINVAL, "the URL has no path");
    size = strcspn(target, "?");
    query = target + size;
    r = split_path(target, size, &elements, &trailing, err);
    if (r >= 0) {
        join_path(&url, &elements, trailing);
        if (r > 0)
            join_location(&url, &elements, trailing, query);
        r = parse_query(&url, *query == '?' ? query + 1 : query, err);
    }
    elements_done(&elements);
    if (r < 0) {
        url_done(&url);
        return r;
    }
    *ret = url;
    return 0;
}

void url_done(struct url *url)
{
    for (size_t i = 0; i < url->query_count; i++) {
        free(url->query[i].key);
        free(url->query[i].value);
    }
    free(url->query);
    free(url->path);
    free(url->location);
    *url = (struct url){0};
}
