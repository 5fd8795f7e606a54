/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/ssh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define ALNUM   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define HOST    ALNUM "._-"
#define ADDRESS "0123456789abcdefABCDEF:."
#define ZONE    ADDRESS HOST "%" /* fe80::1%eth0 */

/* --- Quoting --- */

char *ssh_quote(const char *s)
{
    struct strbuf b = {0};

    if (*s != '\0' && s[strspn(s, ALNUM "/._-:=@,+")] == '\0')
        return xstrdup(s);
    strbuf_add(&b, "'");
    for (; *s != '\0'; s++)
        if (*s == '\'')
            strbuf_add(&b, "'\\''");
        else
            strbuf_add_bytes(&b, s, 1);
    strbuf_add(&b, "'");
    return strbuf_take(&b);
}

/* ssh replaces %h and its like in some options. */
static char *double_percent(const char *s)
{
    struct strbuf b = {0};

    strbuf_add(&b, "");
    for (; *s != '\0'; s++)
        strbuf_add_bytes(&b, *s == '%' ? "%%" : s, *s == '%' ? 2 : 1);
    return strbuf_take(&b);
}

/* --- Parts of a destination --- */

static int check_user(const char *user, struct err *err)
{
    if (user[0] != '\0' && user[0] != '-' && user[strspn(user, ALNUM "._-+@\\")] == '\0')
        return 0;
    return err_set(err, -EINVAL, "\"%s\" is no user name for ssh", user);
}

static bool is_port(const char *text)
{
    const size_t size = strlen(text);

    return size > 0 && size <= 5 && strspn(text, "0123456789") == size && atoi(text) > 0 &&
           atoi(text) <= 65535;
}

/* Splits host[:port] in place; *ret_port is NULL where there is none. */
static bool split_host(char *text, const char **ret_host, const char **ret_port)
{
    char *colon = strchr(text, ':');

    *ret_port = NULL;
    *ret_host = text;
    if (text[0] == '[') {
        const size_t size = 1 + strspn(text + 1, ZONE);

        if (size < 3 || text[size] != ']' || (text[size + 1] != '\0' && text[size + 1] != ':'))
            return false;
        *ret_port = text[size + 1] == ':' ? text + size + 2 : NULL;
        text[size] = '\0';
        *ret_host = text + 1;
        return (*ret_host)[0] != '-' && (*ret_port == NULL || is_port(*ret_port));
    }
    if (colon != NULL && strchr(colon + 1, ':') != NULL) { /* A bare IPv6 address. */
        const size_t size = strspn(text, ADDRESS);

        return text[size] == '\0' || (text[size] == '%' && text[strspn(text, ZONE)] == '\0');
    }
    if (colon != NULL) {
        *colon = '\0';
        *ret_port = colon + 1;
    }
    return text[0] != '\0' && text[0] != '-' && text[strspn(text, HOST)] == '\0' &&
           (*ret_port == NULL || is_port(*ret_port));
}

/* --- Words --- */

static void add_option(struct strlist *argv, const char *option)
{
    strlist_add(argv, "-o");
    strlist_add(argv, option);
}

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static int add_known_hosts(const char *path, struct strlist *argv, struct err *err)
{
    _cleanup_(freep) char *doubled = double_percent(path), *option = NULL;

    /* ssh splits the value at blanks outside quotes, and looks for ${VARIABLE} everywhere. */
    for (const char *p = path; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || strchr("\"\\$", *p) != NULL)
            return err_set(err, -EINVAL, "--known-hosts-file: ssh cannot be given the path \"%s\"", path);
    option = xasprintf("UserKnownHostsFile=\"%s\"", doubled);
    add_option(argv, option);
    return 0;
}

static int add_settings(const struct options *o, struct strlist *argv, struct err *err)
{
    int r = 0;

    if (o->ssh_timeout_ms > 0) {
        _cleanup_(freep) char *option =
            xasprintf("ConnectTimeout=%llu", (unsigned long long)(o->ssh_timeout_ms + 999) / 1000);

        add_option(argv, option);
    }
    if (o->host_key_checking != TRISTATE_UNSET)
        add_option(argv, o->host_key_checking == TRISTATE_YES ? "StrictHostKeyChecking=ask"
                                                              : "StrictHostKeyChecking=no");
    if (given(o->known_hosts_file))
        r = add_known_hosts(o->known_hosts_file, argv, err);
    return r;
}

int ssh_add_words(const struct options *o, const char *const *extra, const char *destination,
                  struct strlist *argv, struct err *err)
{
    const char *at = strrchr(destination, '@'), *host, *port, *user;
    _cleanup_(freep) char *own_user = at != NULL ? xstrndup(destination, (size_t)(at - destination)) : NULL;
    _cleanup_(freep) char *rest = xstrdup(at != NULL ? at + 1 : destination);
    int r;

    user = own_user != NULL ? own_user : given(o->ssh_username) ? o->ssh_username : NULL;
    r = user != NULL ? check_user(user, err) : 0;
    if (r < 0)
        return r;
    if (!split_host(rest, &host, &port))
        return err_set(err, -EINVAL, "\"%s\" is no host, or host:port, for ssh", destination);
    strlist_add(argv, "ssh");
    r = add_settings(o, argv, err);
    if (r < 0)
        return r;
    if (port != NULL) {
        strlist_add(argv, "-p");
        strlist_add(argv, port);
    }
    if (user != NULL) {
        strlist_add(argv, "-l");
        strlist_add(argv, user);
    }
    for (; *extra != NULL; extra++)
        strlist_add(argv, *extra);
    strlist_add(argv, host);
    return 0;
}

/* A ProxyCommand, not ssh -J: that would not take our options along to the host of the tunnel. */
int ssh_proxy_option(const struct options *o, char **ret, struct err *err)
{
    static const char target[] = "[%h]:%p"; /* For ssh to fill in. */
    static const char *const forward[] = {"-W", target, NULL};
    _cleanup_(strbuf_done) struct strbuf option = {0};
    struct strlist words = {0};
    int r = ssh_add_words(o, forward, o->tunnel, &words, err);

    strbuf_add(&option, "ProxyCommand="); /* ssh itself puts "exec " before it. */
    for (size_t i = 0; i < words.count && r == 0; i++) {
        const char *word = words.items[i];
        _cleanup_(freep) char *doubled = streq(word, target) ? xstrdup(word) : double_percent(word);
        _cleanup_(freep) char *quoted = ssh_quote(doubled);

        strbuf_addf(&option, "%s%s", i > 0 ? " " : "", quoted);
    }
    strlist_done(&words);
    if (r < 0)
        return err_prefix(err, r, "--tunnel");
    *ret = strbuf_take(&option);
    return 0;
}
