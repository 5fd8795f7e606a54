/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
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

/* Adds the decoded bytes to 'out'. In a query "+" is a blank. */
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
            i += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        strbuf_add_bytes(out, &c, 1);
    }
    return 0;
}

static void drop_element(struct strbuf *path)
{
    while (path->size > 0 && path->text[--path->size] != '/')
        ;
}

/* Adds the decoded path without empty, "." and ".." elements to 'out', as Go's path.Clean does, but for one
 * slash at the end; returns whether there were any. */
static bool clean_path(const char *path, struct strbuf *out)
{
    bool unclean = false, trailing = false, last = false;

    while (!last) {
        size_t size = strcspn(++path, "/"); /* Behind a slash. */
        bool up = size == 2 && strncmp(path, "..", 2) == 0, here = size == 1 && *path == '.';

        last = path[size] == '\0';
        trailing = up || here || size == 0;
        unclean = unclean || up || here || (size == 0 && !last);
        if (up)
            drop_element(out);
        if (!trailing) {
            strbuf_add(out, "/");
            strbuf_add_bytes(out, path, size);
        }
        path += size;
    }
    if (trailing || out->size == 0)
        strbuf_add(out, "/");
    return unclean;
}

/* What goes into a header must not end it, and the path in it must not be taken for anything else. */
static void add_escaped(struct strbuf *b, const char *s, const char *plain)
{
    for (; *s != '\0'; s++)
        if (isalnum((unsigned char)*s) || strchr(plain, *s) != NULL)
            strbuf_add_bytes(b, s, 1);
        else
            strbuf_addf(b, "%%%02X", (unsigned char)*s);
}

static int parse_path(struct url *url, const char *path, size_t size, const char *query, struct err *err)
{
    struct strbuf decoded = {0}, clean = {0}, location = {0};
    int r = unescape(path, size, false, &decoded, err);

    if (r >= 0 && clean_path(decoded.text, &clean)) {
        add_escaped(&location, clean.text, "/-._~!$&'()*+,;=:@");
        add_escaped(&location, query, "/-._~!$&'()*+,;=:@?%\"<>[]\\^`{|}#"); /* As it came. */
        url->location = strbuf_take(&location);
    }
    if (r >= 0)
        url->path = strbuf_take(&clean);
    strbuf_done(&decoded);
    return r;
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
    struct url url = {0};
    const char *query;
    int r;

    target = skip_authority(target);
    if (*target != '/')
        return err_set(err, -EINVAL, "the URL has no path");
    query = strchrnul(target, '?');
    r = parse_path(&url, target, (size_t)(query - target), query, err);
    if (r >= 0)
        r = parse_query(&url, *query == '?' ? query + 1 : query, err);
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
