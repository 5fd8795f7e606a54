/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "raftstore/limits.h"
#include "raftstore/registry_level.h"
#include "raftstore/settings.h"

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

void config_add_addresses(struct strlist *list, char *const *addresses, size_t count)
{
    for (size_t i = 0; i < count && list->count < RAFT_SERVERS_MAX; i++)
        if (config_check_address(addresses[i], NULL) >= 0)
            strlist_add(list, addresses[i]);
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
    uint64_t value;
    int r = settings_parse(SETTING_VOTERS, text, &value, err);

    if (r >= 0)
        config->voters = (unsigned)value;
    return r;
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

static int set_feature_level(struct config *config, void *slot, const char *text, struct err *err)
{
    long level = FEATURE_LEVEL;

    if (*text != '\0' && parse_number(text, 0, FEATURE_LEVEL, &level, err) < 0)
        return -EINVAL;
    config->feature_level = (unsigned)level;
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

/* An IP address, since names are not looked up here: "address:port", "[IPv6]:port", or either without a port.
 */
static int set_api_listen(struct config *config, void *slot, const char *text, struct err *err)
{
    _cleanup_(freep) char *whole = NULL;
    struct in6_addr ip;

    if (inet_pton(AF_INET6, text, &ip) == 1)
        whole = xasprintf("[%s]:%u", text, CONFIG_API_PORT);
    else if (inet_pton(AF_INET, text, &ip) == 1 || (*text == '[' && str_has_suffix(text, "]")))
        whole = xasprintf("%s:%u", text, CONFIG_API_PORT);
    else
        whole = xstrdup(text);
    if (*text != '\0') {
        _cleanup_(freep) char *host = xstrndup(whole, strcspn(whole, ":"));
        int r = config_check_address(whole, err);

        if (r < 0)
            return r;
        if (*whole != '[' && inet_pton(AF_INET, host, &ip) != 1)
            return err_set(err, -EINVAL,
                           "\"%s\" is a name: an IP address is needed (0.0.0.0 or [::] for all)", text);
    }
    replace(slot, whole);
    return 0;
}

static int set_others(struct config *config, void *slot, const char *text, struct err *err)
{
    if (!streq(text, "none") && !streq(text, "read"))
        return err_set(err, -EINVAL, "\"%s\" is neither none nor read", text);
    *(bool *)slot = streq(text, "read");
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

static int add_moved(struct config *config, const char *pair, struct err *err)
{
    const char *equals = strchr(pair, '=');
    _cleanup_(freep) char *from = NULL, *to = NULL;
    int r;

    if (equals == NULL)
        return err_set(err, -EINVAL, "\"%s\" is not OLD=NEW, two addresses", pair);
    from = trimmed(pair, (size_t)(equals - pair));
    to = trimmed(equals + 1, strlen(equals + 1));
    r = config_check_address(from, err);
    if (r >= 0)
        r = config_check_address(to, err);
    if (r < 0)
        return r;
    if (strlist_has(&config->moved_from, from))
        return err_set(err, -EINVAL, "%s has moved to two places", from);
    if (strlist_has(&config->moved_to, to))
        return err_set(err, -EINVAL, "two hosts have moved to %s", to);
    if (config->moved_from.count == CONFIG_MOVED_MAX)
        return err_set(err, -E2BIG, "more than CONFIG_MOVED_MAX (%u) pairs", CONFIG_MOVED_MAX);
    strlist_add(&config->moved_from, from);
    strlist_add(&config->moved_to, to);
    return 0;
}

static void moved_done(struct config *config)
{
    strlist_done(&config->moved_from);
    strlist_done(&config->moved_to);
}

static int set_moved(struct config *config, void *slot, const char *text, struct err *err)
{
    struct config fresh = {0};
    struct strlist pairs = {0};
    int r = 0;

    strlist_add_split(&pairs, text, ',');
    for (size_t i = 0; i < pairs.count && r >= 0; i++)
        r = add_moved(&fresh, pairs.items[i], err);
    strlist_done(&pairs);
    if (r < 0) {
        moved_done(&fresh);
        return r;
    }
    moved_done(config);
    config->moved_from = fresh.moved_from;
    config->moved_to = fresh.moved_to;
    return 0;
}

/* ---- keys, back as texts ---- */

static char *get_bool(const struct config *config, const void *slot)
{
    return xstrdup(*(const bool *)slot ? "true" : "false");
}

static char *get_string(const struct config *config, const void *slot)
{
    return xstrdup(*(char *const *)slot);
}

static char *get_verbosity(const struct config *config, const void *slot)
{
    return xasprintf("%d", config->verbosity);
}

static char *get_unsigned(const struct config *config, const void *slot)
{
    return xasprintf("%u", *(const unsigned *)slot);
}

/* The newest is no number to be kept: the next version has another one. */
static char *get_feature_level(const struct config *config, const void *slot)
{
    return config->feature_level == FEATURE_LEVEL ? xstrdup("")
                                                  : get_unsigned(config, &config->feature_level);
}

static char *get_agent_ttl(const struct config *config, const void *slot)
{
    uint64_t ms = config->agent_ttl_ms;

    return ms % 1000 == 0 ? xasprintf("%" PRIu64 "s", ms / 1000) : xasprintf("%" PRIu64 "ms", ms);
}

static char *get_metadata(const struct config *config, const void *slot)
{
    struct strbuf text = {0};

    for (size_t i = 0; i < config->metadata_count; i++)
        strbuf_addf(&text, "%s%s=%s", i > 0 ? "," : "", config->metadata[i].key, config->metadata[i].value);
    return strbuf_take(&text);
}

static char *get_others(const struct config *config, const void *slot)
{
    return xstrdup(*(const bool *)slot ? "read" : "none");
}

static char *get_join(const struct config *config, const void *slot)
{
    struct strbuf text = {0};

    for (size_t i = 0; i < config->join.count; i++)
        strbuf_addf(&text, "%s%s", i > 0 ? "," : "", config->join.items[i]);
    return strbuf_take(&text);
}

static char *get_moved(const struct config *config, const void *slot)
{
    struct strbuf text = {0};

    for (size_t i = 0; i < config->moved_from.count; i++)
        strbuf_addf(&text, "%s%s=%s", i > 0 ? "," : "", config->moved_from.items[i],
                    config->moved_to.items[i]);
    return strbuf_take(&text);
}

/* ---- all keys ---- */

/* 'offset' is where a setter or getter that is told of a slot looks. */
static const struct key {
    struct config_key info;
    int (*set)(struct config *config, void *slot, const char *text, struct err *err);
    char *(*get)(const struct config *config, const void *slot);
    size_t offset;
} keys[] = {
    {{"verbosity", "0", .live = true}, set_verbosity, get_verbosity, 0},
    {{"public_ip", "", .live = true}, set_public_ip, get_string, offsetof(struct config, public_ip)},
    {{"metadata", "", .live = true}, set_metadata, get_metadata, 0},
    {{"token_limit", "100", .live = true},
     set_token_limit,
     get_unsigned,
     offsetof(struct config, token_limit)},
    {{"disable_engine", "false", .live = true}, set_bool, get_bool, offsetof(struct config, disable_engine)},
    {{"drain_on_shutdown", "true", .live = true},
     set_bool,
     get_bool,
     offsetof(struct config, drain_on_shutdown)},
    {{"units_directory", "/run/fleet/units", .live = false},
     set_directory,
     get_string,
     offsetof(struct config, units_directory)},
    {{"systemd_user", "false", .live = false}, set_bool, get_bool, offsetof(struct config, systemd_user)},
    {{"agent_ttl", "10s", .live = true}, set_agent_ttl, get_agent_ttl, 0},
    {{"data_dir", "/var/lib/fleet", .live = false},
     set_directory,
     get_string,
     offsetof(struct config, data_dir)},
    {{"cluster_listen", "[::]:7390", .live = false},
     set_listen,
     get_string,
     offsetof(struct config, cluster_listen)},
    {{"cluster_address", "", .live = false},
     set_address,
     get_string,
     offsetof(struct config, cluster_address)},
    {{"cluster_moved", "", .live = false}, set_moved, get_moved, 0},
    {{"bootstrap", "false", .live = true}, set_bool, get_bool, offsetof(struct config, bootstrap)},
    {{"join", "", .live = true}, set_join, get_join, 0},
    {{"join_token", "", .live = true, .secret = true},
     set_string,
     get_string,
     offsetof(struct config, join_token)},
    {{"join_token_file", "", .live = true}, set_path, get_string, offsetof(struct config, join_token_file)},
    {{"voters", "5", .live = true}, set_voters, get_unsigned, offsetof(struct config, voters)},
    {{"api_listen", "", .live = true}, set_api_listen, get_string, offsetof(struct config, api_listen)},
    {{"api_socket", "/run/fleet.sock", .live = true},
     set_path,
     get_string,
     offsetof(struct config, api_socket)},
    {{"api_socket_group", "fleet", .live = true},
     set_string,
     get_string,
     offsetof(struct config, api_socket_group)},
    {{"api_socket_others", "none", .live = true},
     set_others,
     get_others,
     offsetof(struct config, api_socket_others)},
    {{"insecure", "false", .live = false}, set_bool, get_bool, offsetof(struct config, insecure)},
    {{"feature_level", "", .live = true}, set_feature_level, get_feature_level, 0},
};

/* Of the first fleet, without a meaning here. */
static const char *const old_keys[] = {
    "etcd_servers",  "etcd_username",   "etcd_password",        "etcd_keyfile",
    "etcd_certfile", "etcd_cafile",     "etcd_key_prefix",      "etcd_request_timeout",
    "enable_grpc",   "disable_watches", "authorized_keys_file", "engine_reconcile_interval",
    "verify_units",
};

const struct config_key *config_key(size_t index)
{
    return index < ARRAY_SIZE(keys) ? &keys[index].info : NULL;
}

const char *config_old_key(size_t index)
{
    return index < ARRAY_SIZE(old_keys) ? old_keys[index] : NULL;
}

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (streq(keys[i].info.name, name))
            return &keys[i];
    return NULL;
}

int config_set(struct config *config, const char *name, const char *text, struct err *err)
{
    const struct key *key = find_key(name);

    if (key == NULL)
        return err_set(err, -ENOENT, "unknown key \"%s\"", name);
    return key->set(config, (char *)config + key->offset, text, err);
}

char *config_get(const struct config *config, const char *name)
{
    const struct key *key = find_key(name);

    return key != NULL ? key->get(config, (const char *)config + key->offset) : NULL;
}

void config_init(struct config *config)
{
    *config = (struct config){0};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (config_set(config, keys[i].info.name, keys[i].info.fallback, NULL) < 0)
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
    moved_done(config);
    strlist_done(&config->join);
    *config = (struct config){0};
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
