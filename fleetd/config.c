/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include <ini.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "raftstore/limits.h"

/* Debian's inih has its limits as variables, upstream's as compile-time constants: take what is there. */
extern int ini_max_line __attribute__((weak));
extern bool ini_use_stack __attribute__((weak));
extern int ini_initial_alloc __attribute__((weak));

/* ---- values ---- */

static int parse_bool(const char *text, bool *ret, struct err *err)
{
    static const char *const yes[] = {"1", "t", "true", "y", "yes", "on"};
    static const char *const no[] = {"0", "f", "false", "n", "no", "off"};

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "\"%s\" is neither true nor false", text);
}

static int parse_number(const char *text, long min, long max, long *ret, struct err *err)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)*text))
        return err_set(err, -EINVAL, "\"%s\" is not a whole number", text);
    if (errno != 0 || value < min || value > max)
        return err_set(err, -ERANGE, "%s is not between %ld and %ld", text, min, max);
    *ret = value;
    return 0;
}

static bool is_host_name(const char *host, size_t size)
{
    if (size == 0 || size > 253 || host[0] == '-' || host[0] == '.')
        return false;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)host[i]) && host[i] != '-' && host[i] != '.' && host[i] != '_')
            return false;
    return true;
}

int config_check_address(const char *text, struct err *err)
{
    const char *colon = strrchr(text, ':');
    _cleanup_(freep) char *host = NULL;
    struct in6_addr ip;
    bool good;
    long port;

    if (colon == NULL || strlen(text) > ADDRESS_MAX)
        return err_set(err, -EINVAL, "\"%.*s\" is not host:port", (int)ADDRESS_MAX, text);
    if (*text == '[') {
        host = xstrndup(text + 1, (size_t)(colon - text) - 1);
        good = str_has_suffix(host, "]");
        if (good)
            host[strlen(host) - 1] = '\0';
        good = good && inet_pton(AF_INET6, host, &ip) == 1;
    } else {
        good = is_host_name(text, (size_t)(colon - text));
    }
    if (!good)
        return err_set(err, -EINVAL, "\"%s\" is not host:port or [IPv6]:port", text);
    if (!isdigit((unsigned char)colon[1]) || parse_number(colon + 1, 1, 65535, &port, NULL) < 0)
        return err_set(err, -EINVAL, "\"%s\" has no port between 1 and 65535", text);
    return 0;
}

static void replace(char **slot, const char *text)
{
    free(*slot);
    *slot = xstrdup(text);
}

/* ---- metadata ---- */

static void metadata_done(struct config *config)
{
    for (size_t i = 0; i < config->metadata_count; i++) {
        free(config->metadata[i].key);
        free(config->metadata[i].value);
    }
    free(config->metadata);
    config->metadata = NULL;
    config->metadata_count = 0;
}

static char *trimmed(const char *s, size_t size)
{
    while (size > 0 && isspace((unsigned char)*s)) {
        s++;
        size--;
    }
    while (size > 0 && isspace((unsigned char)s[size - 1]))
        size--;
    return xstrndup(s, size);
}

static struct config_label *metadata_find(struct config *config, const char *key)
{
    for (size_t i = 0; i < config->metadata_count; i++)
        if (streq(config->metadata[i].key, key))
            return &config->metadata[i];
    return NULL;
}

static int metadata_add(struct config *config, const char *item, size_t size, struct err *err)
{
    const char *equals = memchr(item, '=', size);
    _cleanup_(freep) char *key = NULL, *value = NULL;
    struct config_label *label;

    if (equals == NULL)
        return 0; /* Ignored, as in the first fleet. */
    key = trimmed(item, (size_t)(equals - item));
    value = trimmed(equals + 1, size - (size_t)(equals - item) - 1);
    if (*key == '\0')
        return err_set(err, -EINVAL, "metadata has an empty key");
    if (strlen(key) > LABEL_MAX || strlen(value) > LABEL_MAX)
        return err_set(err, -E2BIG,
                       "metadata \"%.32s...\": a key or value is longer than LABEL_MAX (%u bytes)", key,
                       LABEL_MAX);
    label = metadata_find(config, key);
    if (label != NULL) {
        replace(&label->value, value);
        return 0;
    }
    if (config->metadata_count == LABELS_PER_MACHINE_MAX)
        return err_set(err, -E2BIG, "metadata has more than LABELS_PER_MACHINE_MAX (%u) keys",
                       LABELS_PER_MACHINE_MAX);
    config->metadata = xrealloc(config->metadata, (config->metadata_count + 1) * sizeof *config->metadata);
    config->metadata[config->metadata_count++] = (struct config_label){TAKE_PTR(key), TAKE_PTR(value)};
    return 0;
}

static int set_metadata(struct config *config, void *slot, const char *text, struct err *err)
{
    struct config fresh = {0};

    while (*text != '\0') {
        size_t size = strcspn(text, ",");
        int r = metadata_add(&fresh, text, size, err);

        if (r < 0) {
            metadata_done(&fresh);
            return r;
        }
        text += size + (text[size] != '\0');
    }
    metadata_done(config);
    config->metadata = fresh.metadata;
    config->metadata_count = fresh.metadata_count;
    return 0;
}

/* ---- keys ---- */

static int set_bool(struct config *config, void *slot, const char *text, struct err *err)
{
    return parse_bool(text, slot, err);
}

static int set_string(struct config *config, void *slot, const char *text, struct err *err)
{
    replace(slot, text);
    return 0;
}

static int set_verbosity(struct config *config, void *slot, const char *text, struct err *err)
{
    long value;
    int r = parse_number(text, INT32_MIN, INT32_MAX, &value, err);

    if (r >= 0)
        config->verbosity = (int)value;
    return r;
}

static int set_token_limit(struct config *config, void *slot, const char *text, struct err *err)
{
    long value;
    int r = parse_number(text, 1, UINT16_MAX, &value, err); /* A page token has 16 bits for it. */

    if (r >= 0)
        config->token_limit = (unsigned)value;
    return r;
}

static int set_voters(struct config *config, void *slot, const char *text, struct err *err)
{
    long value;
    int r = parse_number(text, 1, 7, &value, err);

    if (r < 0)
        return r;
    if (value % 2 == 0)
        return err_set(err, -EINVAL, "%ld is none of 1, 3, 5 and 7", value);
    config->voters = (unsigned)value;
    return 0;
}

static int set_agent_ttl(struct config *config, void *slot, const char *text, struct err *err)
{
    uint64_t ms;
    int r = duration_parse(text, &ms, err);

    if (r < 0)
        return r;
    if (ms < CONFIG_AGENT_TTL_MIN_MS || ms > CONFIG_AGENT_TTL_MAX_MS)
        return err_set(err, -ERANGE, "%s is not between 2s and 1h", text);
    config->agent_ttl_ms = ms;
    return 0;
}

static int set_public_ip(struct config *config, void *slot, const char *text, struct err *err)
{
    struct in6_addr ip;

    if (*text != '\0' && inet_pton(AF_INET, text, &ip) != 1 && inet_pton(AF_INET6, text, &ip) != 1)
        return err_set(err, -EINVAL, "\"%s\" is not an IP address", text);
    replace(slot, text);
    return 0;
}

static int set_directory(struct config *config, void *slot, const char *text, struct err *err)
{
    size_t size = strlen(text);

    if (*text != '/')
        return err_set(err, -EINVAL, "\"%s\" is not an absolute path", text);
    while (size > 1 && text[size - 1] == '/')
        size--;
    free(*(char **)slot);
    *(char **)slot = xstrndup(text, size);
    return 0;
}

/* Empty means none. */
static int set_path(struct config *config, void *slot, const char *text, struct err *err)
{
    if (*text != '\0')
        return set_directory(config, slot, text, err);
    replace(slot, text);
    return 0;
}

static int set_listen(struct config *config, void *slot, const char *text, struct err *err)
{
    int r = config_check_address(text, err);

    if (r >= 0)
        replace(slot, text);
    return r;
}

static int set_address(struct config *config, void *slot, const char *text, struct err *err)
{
    if (*text != '\0')
        return set_listen(config, slot, text, err);
    replace(slot, text);
    return 0;
}

static int set_join(struct config *config, void *slot, const char *text, struct err *err)
{
    struct strlist fresh = {0};
    int r = 0;

    strlist_add_split(&fresh, text, ',');
    if (fresh.count > CONFIG_JOIN_MAX)
        r = err_set(err, -E2BIG, "more than CONFIG_JOIN_MAX (%u) addresses", CONFIG_JOIN_MAX);
    for (size_t i = 0; i < fresh.count && r >= 0; i++)
        r = config_check_address(fresh.items[i], err);
    if (r < 0) {
        strlist_done(&fresh);
        return r;
    }
    strlist_done(&config->join);
    config->join = fresh;
    return 0;
}

/* Every key, its default, and how a text becomes its value. 'offset' is where a setter that is told of a slot
 * stores. */
static const struct key {
    const char *name, *fallback;
    int (*set)(struct config *config, void *slot, const char *text, struct err *err);
    size_t offset;
} keys[] = {
    {"verbosity", "0", set_verbosity, 0},
    {"public_ip", "", set_public_ip, offsetof(struct config, public_ip)},
    {"metadata", "", set_metadata, 0},
    {"token_limit", "100", set_token_limit, 0},
    {"disable_engine", "false", set_bool, offsetof(struct config, disable_engine)},
    {"units_directory", "/run/fleet/units", set_directory, offsetof(struct config, units_directory)},
    {"systemd_user", "false", set_bool, offsetof(struct config, systemd_user)},
    {"agent_ttl", "10s", set_agent_ttl, 0},
    {"data_dir", "/var/lib/fleet", set_directory, offsetof(struct config, data_dir)},
    {"cluster_listen", "[::]:7390", set_listen, offsetof(struct config, cluster_listen)},
    {"cluster_address", "", set_address, offsetof(struct config, cluster_address)},
    {"bootstrap", "false", set_bool, offsetof(struct config, bootstrap)},
    {"join", "", set_join, 0},
    {"join_token", "", set_string, offsetof(struct config, join_token)},
    {"join_token_file", "", set_path, offsetof(struct config, join_token_file)},
    {"voters", "5", set_voters, 0},
    {"api_listen", "", set_address, offsetof(struct config, api_listen)},
    {"api_socket", "/run/fleet.sock", set_path, offsetof(struct config, api_socket)},
    {"api_socket_group", "fleet", set_string, offsetof(struct config, api_socket_group)},
    {"insecure", "false", set_bool, offsetof(struct config, insecure)},
};

/* Of the first fleet, without a meaning here. */
static const char *const old_keys[] = {
    "etcd_servers",  "etcd_username",   "etcd_password",        "etcd_keyfile",
    "etcd_certfile", "etcd_cafile",     "etcd_key_prefix",      "etcd_request_timeout",
    "enable_grpc",   "disable_watches", "authorized_keys_file", "engine_reconcile_interval",
    "verify_units",
};

/* Known, checked, and not acted on in this version: whoever sets one is told. */
static const char *const later_keys[] = {"disable_engine", "join_token", "join_token_file", "api_listen"};

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (streq(keys[i].name, name))
            return &keys[i];
    return NULL;
}

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (streq(names[i], name))
            return true;
    return false;
}

static int set_key(struct config *config, const struct key *key, const char *text, struct err *err)
{
    return key->set(config, (char *)config + key->offset, text, err);
}

void config_init(struct config *config)
{
    *config = (struct config){0};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (set_key(config, &keys[i], keys[i].fallback, NULL) < 0)
            abort(); /* Our own defaults are good. */
}

void config_done(struct config *config)
{
    char **const strings[] = {
        &config->public_ip,  &config->units_directory,  &config->data_dir,        &config->cluster_listen,
        &config->join_token, &config->cluster_address,  &config->join_token_file, &config->api_listen,
        &config->api_socket, &config->api_socket_group,
    };

    for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
        free(*strings[i]);
    metadata_done(config);
    strlist_done(&config->join);
    *config = (struct config){0};
}

/* ---- one file ---- */

/* Stands for ";" on the way through inih, which would take it for a comment. */
#define SEMICOLON '\x01'

struct loader {
    struct config *config;
    struct strlist old_seen; /* Keys of the first fleet that were warned about. */
    const char *file, *at;   /* What is left of the text. */
    unsigned line;           /* Of 'at'. */
    unsigned logical_line;   /* Where the line that inih has now began. */
    bool unheard;            /* inih has not yet made a key of it. */
};

__attribute__((format(printf, 2, 3))) static void warn(const struct loader *l, const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    if (l->logical_line > 0)
        log_warn("%s:%u: %s", l->file, l->logical_line, text);
    else
        log_warn("%s: %s", l->file, text);
}

static void set_named(struct loader *l, const char *name, const char *value)
{
    const struct key *key = find_key(name);
    struct err err = {0};
    int r;

    if (key == NULL && is_one_of(name, old_keys, ARRAY_SIZE(old_keys))) {
        if (!strlist_has(&l->old_seen, name))
            warn(l, "%s has no meaning any more: ignored (fleet needs no etcd; see fleet.conf(5))", name);
        if (!strlist_has(&l->old_seen, name))
            strlist_add(&l->old_seen, name);
        return;
    }
    if (key == NULL) {
        warn(l, "unknown key \"%s\": ignored", name);
        return;
    }
    r = set_key(l->config, key, value, &err);
    if (r < 0)
        warn(l, "%s: %s: ignored", name, err_text(&err, r));
    else if (!streq(value, key->fallback) && is_one_of(name, later_keys, ARRAY_SIZE(later_keys)))
        warn(l, "%s does nothing in this version yet", name);
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
    struct loader *l = data;

    l->unheard = false;
    for (char *p = key; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    for (char *p = text; *p != '\0'; p++)
        if (*p == SEMICOLON)
            *p = ';';
    strip_quotes(text);
    if (*section != '\0')
        warn(l, "\"%s\" is in the section [%s], only keys outside any section count: ignored", key, section);
    else
        set_named(l, key, text);
    return 1;
}

/* One line of the file and those that a trailing "\" joins to it, trimmed. */
static void take_logical_line(struct loader *l, struct strbuf *out)
{
    l->logical_line = l->line;
    strbuf_add(out, "");
    while (*l->at != '\0') {
        size_t size = strcspn(l->at, "\n");
        _cleanup_(freep) char *line = trimmed(l->at, size);
        bool more = str_has_suffix(line, "\\");

        l->at += size + (l->at[size] != '\0');
        l->line++;
        strbuf_add_bytes(out, line, strlen(line) - more);
        if (!more)
            break;
    }
}

/* Where the closing quote of a value is, if 'value' is a whole quoted value with at most a comment behind it.
 */
static char *end_of_quoted(char *value)
{
    char *end = *value == '"' || *value == '\'' ? strchr(value + 1, *value) : NULL;
    const char *rest = end != NULL ? end + 1 + strspn(end + 1, " \t") : NULL;

    return rest != NULL && (*rest == '\0' || *rest == '#' || *rest == ';') ? end : NULL;
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

static void report_unheard(struct loader *l)
{
    if (l->unheard)
        warn(l, "neither \"key = value\", a comment nor a [section]: ignored");
    l->unheard = false;
}

/* inih's idea of fgets(): gives it one logical line after the other. */
static char *next_line(char *buffer, int size, void *stream)
{
    struct loader *l = stream;

    report_unheard(l);
    while (*l->at != '\0') {
        struct strbuf line = {0};
        bool empty, fits;

        take_logical_line(l, &line);
        empty = line.size == 0 || *line.text == '#' || *line.text == ';';
        if (!empty)
            normalise(line.text);
        fits = snprintf(buffer, (size_t)size, "%s\n", line.text) < size;
        l->unheard = !empty && fits && !(*buffer == '[' && strchr(buffer, ']') != NULL);
        strbuf_done(&line);
        if (!fits)
            warn(l, "line is longer than %d bytes: ignored", size - 2);
        else if (!empty)
            return buffer;
    }
    return NULL;
}

static void parse_text(struct loader *l, const char *text)
{
    if (&ini_max_line != NULL && &ini_use_stack != NULL && &ini_initial_alloc != NULL) {
        ini_use_stack = false;
        ini_max_line = ini_initial_alloc = CONFIG_LINE_MAX;
    }
    l->at = text;
    l->line = 1;
    if (ini_parse_stream(next_line, l, on_pair, l) == -2) /* What it cannot read, next_line() reports. */
        abort();                                          /* Out of memory. */
    report_unheard(l);
    l->logical_line = 0;
}

/* -ENOENT and -EISDIR are told apart by the caller. */
static int read_text(const char *path, char **ret, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -errno, "cannot read %s: %m", path);
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%s is a directory, not a file", path);
    text = xmalloc(CONFIG_FILE_MAX + 2);
    while (size <= CONFIG_FILE_MAX && (n = read(fd, text + size, CONFIG_FILE_MAX + 1 - size)) != 0) {
        if (n < 0)
            return err_set(err, -errno, "cannot read %s: %m", path);
        size += (size_t)n;
    }
    if (size > CONFIG_FILE_MAX)
        return err_set(err, -EFBIG, "%s is larger than %u bytes", path, CONFIG_FILE_MAX);
    text[size] = '\0';
    *ret = TAKE_PTR(text);
    return 0;
}

static int load_file(struct loader *l, const char *path, struct err *err)
{
    _cleanup_(freep) char *text = NULL;
    int r = read_text(path, &text, err);

    if (r < 0)
        return r;
    l->file = path;
    parse_text(l, text);
    return 0;
}

/* ---- all of it ---- */

static int is_conf(const struct dirent *entry)
{
    return str_has_suffix(entry->d_name, ".conf") && entry->d_name[0] != '.';
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* Bytewise, whatever the locale is. */
}

/* A drop-in that cannot be read is logged, not fatal: nobody named it. */
static void load_dropins(struct loader *l, const char *file)
{
    _cleanup_(freep) char *dir = xasprintf("%s.d", file);
    struct dirent **names = NULL;
    int count = scandir(dir, &names, is_conf, compare_names);

    for (int i = 0; i < count; i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", dir, names[i]->d_name);
        struct err err = {0};
        int r = i < (int)CONFIG_DROPINS_MAX ? load_file(l, path, &err) : 0;

        if (i == (int)CONFIG_DROPINS_MAX)
            log_warn("%s: more than %u files: the rest is ignored", dir, CONFIG_DROPINS_MAX);
        if (r < 0)
            log_warn("%s: ignored", err_text(&err, r));
        free(names[i]);
    }
    free(names);
}

static void load_environment(struct loader *l)
{
    l->logical_line = 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys) + ARRAY_SIZE(old_keys); i++) {
        const char *name = i < ARRAY_SIZE(keys) ? keys[i].name : old_keys[i - ARRAY_SIZE(keys)];
        _cleanup_(freep) char *variable = xasprintf("FLEET_%s", name);
        const char *value;

        for (char *p = variable; *p != '\0'; p++)
            *p = (char)toupper((unsigned char)*p);
        value = getenv(variable); /* Counts also when empty. */
        l->file = variable;
        if (value != NULL)
            set_named(l, name, value);
    }
}

int config_load(const char *file, struct config *ret, struct err *err)
{
    struct config config;
    struct loader loader = {.config = &config};
    int r;

    config_init(&config);
    r = load_file(&loader, file != NULL ? file : CONFIG_FILE_DEFAULT, err);
    if (r == -ENOENT && file == NULL)
        r = 0;
    if (r >= 0) {
        load_dropins(&loader, file != NULL ? file : CONFIG_FILE_DEFAULT);
        load_environment(&loader);
    }
    strlist_done(&loader.old_seen);
    if (r < 0) {
        config_done(&config);
        return err_prefix(err, r, "unable to use the configuration");
    }
    *ret = config;
    return 0;
}

char *config_cluster_address(const struct config *config, const char *public_ip)
{
    const char *port = strrchr(config->cluster_listen, ':') + 1;

    if (*config->cluster_address != '\0')
        return xstrdup(config->cluster_address);
    if (*public_ip == '\0')
        return xstrdup("");
    return xasprintf(strchr(public_ip, ':') != NULL ? "[%s]:%s" : "%s:%s", public_ip, port);
}
