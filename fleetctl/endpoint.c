/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/endpoint.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetctl/output.h"

#define HOST_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

void endpoint_done(struct endpoint *e)
{
    free(e->socket);
    free(e->base);
    free(e->host_port);
    free(e->where);
    *e = (struct endpoint){0};
}

/* Resolves "%20". NULL: a broken escape, or a NUL. The caller owns the result. */
static char *unescape(const char *s)
{
    char *result = xmalloc(strlen(s) + 1), *out = result;

    while (*s != '\0') {
        char digits[3] = {s[0], s[0] == '%' ? s[1] : '\0', '\0'};

        if (*s != '%') {
            *out++ = *s++;
            continue;
        }
        if (digits[1] != '\0')
            memcpy(digits, s + 1, 2);
        if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]) ||
            streq(digits, "00")) {
            free(result);
            return NULL;
        }
        *out++ = (char)strtol(digits, NULL, 16);
        s += 3;
    }
    *out = '\0';
    return result;
}

/* 'rest' is what stands behind "unix:". */
static int parse_unix(const char *scheme, const char *rest, struct endpoint *e, struct err *err)
{
    const bool has_host = str_has_prefix(rest, "//");
    const char *host = has_host ? rest + 2 : rest, *path = has_host ? strchrnul(host, '/') : rest;

    if (path != host)
        return err_set(err, -EINVAL, "unable to connect to host \"%.*s\" with scheme \"%s\"",
                       (int)(path - host), host, scheme);
    if (*path != '/')
        return err_set(err, -EINVAL, "\"%s:%s\" has no path", scheme, rest);
    e->socket = unescape(path);
    if (e->socket == NULL)
        return err_set(err, -EINVAL, "\"%s\" has a '%%' that is no escape", path);
    e->base = xstrdup("http://domain-sock/"); /* The Host of the first fleet's client. */
    e->where = xstrdup(e->socket);
    return 0;
}

/* Is 'text' a port, or ""? */
static bool is_port(const char *text, size_t size)
{
    return size <= 5 && strspn(text, "0123456789") >= size && (size == 0 || atoi(text) <= 65535);
}

/* "host", "host:port", "[v6]" or "[v6]:port" at 'text', 'size' bytes of it. NULL: it is none. */
static char *parse_authority(const char *text, size_t size, const char *port)
{
    const bool bracket = text[0] == '[';
    const size_t host_size = bracket ? strcspn(text, "]/") + 1 : strspn(text, HOST_CHARACTERS);

    if (host_size == 0 || host_size > size || text[0] == '-')
        return NULL;
    if (bracket && (host_size < 4 || strspn(text + 1, "0123456789abcdefABCDEF:.") + 2 != host_size))
        return NULL;
    if (host_size < size && text[host_size] != ':')
        return NULL;
    if (host_size + 1 < size) {
        port = text + host_size + 1;
        if (!is_port(port, size - host_size - 1))
            return NULL;
        return xstrndup(text, size);
    }
    return xasprintf("%.*s:%s", (int)host_size, text, port);
}

static int parse_http(const char *scheme, const char *rest, struct endpoint *e, struct err *err)
{
    const size_t size = str_has_prefix(rest, "//") ? strcspn(rest + 2, "/?#") : 0;
    const char *path;

    e->tls = streq(scheme, "https");
    if (size == 0)
        return err_set(err, -EINVAL, "\"%s:%s\" has no host", scheme, rest);
    rest += 2;
    e->host_port = parse_authority(rest, size, e->tls ? "443" : "80");
    if (e->host_port == NULL)
        return err_set(err, -EINVAL, "\"%.*s\" is no host, or host:port", (int)size, rest);
    path = rest + size;
    if (strpbrk(path, "?#") != NULL)
        return err_set(err, -EINVAL, "\"%s://%s\": a base path has no '?' or '#'", scheme, rest);
    e->base = xasprintf("%s://%s%s%s", scheme, e->host_port, path, str_has_suffix(path, "/") ? "" : "/");
    e->where = xasprintf("%s://%s", scheme, rest);
    return 0;
}

int endpoint_parse(const char *text, struct endpoint *ret, struct err *err)
{
    _cleanup_(freep) char *first = xstrndup(text, strcspn(text, ",")), *scheme = NULL;
    size_t size;

    *ret = (struct endpoint){0};
    if (strlen(first) != strlen(text))
        complain("WARNING: multiple endpoints provided but only the first (%s) is used", first);
    size = strcspn(first, ":/");
    if (first[size] == ':' && first[size + 1] != '/')
        return err_set(err, -EINVAL,
                       "first path segment in URL cannot contain colon: \"%s\" (write for example http://%s)",
                       first, first);
    if (first[size] != ':' || size == 0)
        return err_set(
            err, -EINVAL,
            "URL scheme undefined: \"%s\" (write for example unix:///run/fleet.sock or http://host:49153)",
            first);
    scheme = xstrndup(first, size);
    for (char *p = scheme; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    if (streq(scheme, "unix") || streq(scheme, "file"))
        return parse_unix(scheme, first + size + 1, ret, err);
    if (streq(scheme, "http") || streq(scheme, "https"))
        return parse_http(scheme, first + size + 1, ret, err);
    return err_set(err, -EINVAL, "URL scheme \"%s\" is not supported (unix, file, http and https are)",
                   scheme);
}
