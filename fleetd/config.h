/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's configuration: /etc/fleet/fleet.conf, then its drop-ins fleet.conf.d/NAME.conf in the order of
 * their names, then the environment FLEET_<KEY>; the last one wins. A missing key, also after a reload, has
 * its default. The grammar is in config_text.h.
 *
 * At the start a mistake never stops the daemon: it is logged with file and line, and the value from before
 * (in the end, the default) stays; fatal is only what a person has named and we cannot read. A reload is
 * strict: a mistake in a file refuses it as a whole (config_load_strict()). An unknown key, one of the first
 * fleet without a meaning, and one inside a section are no mistakes: they are ignored with a warning. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define CONFIG_FILE_DEFAULT     "/etc/fleet/fleet.conf"
#define CONFIG_FILE_MAX         (1024u * 1024) /* Bytes of one file. */
#define CONFIG_DROPINS_MAX      256u
#define CONFIG_JOIN_MAX         64u /* Addresses in 'join'. */
#define CONFIG_MOVED_MAX        64u /* Pairs in 'cluster_moved'. */
#define CONFIG_AGENT_TTL_MIN_MS 2000u
#define CONFIG_AGENT_TTL_MAX_MS (3600u * 1000)
#define CONFIG_API_PORT         49153u /* Where 'api_listen' names none. */

struct config_label {
    char *key, *value;
};

/* Strings are never NULL. */
struct config {
    int verbosity;                 /* Above 0: debug messages. */
    char *public_ip;               /* An IP address, or "": to be detected (identity.h). */
    struct config_label *metadata; /* In the file's order; each key once. */
    size_t metadata_count;
    unsigned token_limit;   /* Page size of the API, 1 to 65535. */
    bool disable_engine;    /* This host never leads. */
    bool drain_on_shutdown; /* Units move to others before this host is shut down. */
    char *units_directory;
    bool systemd_user; /* The user's systemd instead of the system's. */
    uint64_t agent_ttl_ms;

    char *data_dir;
    char *cluster_listen;                /* "host:port" or "[v6]:port", as all addresses. */
    char *cluster_address;               /* "": see config_cluster_address(). */
    struct strlist moved_from, moved_to; /* 'cluster_moved': as many of the one as of the other. */
    bool bootstrap;
    struct strlist join;
    char *join_token, *join_token_file; /* "": none. */
    unsigned voters;                    /* 1, 3, 5 or 7. */
    char *api_listen;                   /* "": no remote API; else an IP address and a port. */
    char *api_socket;                   /* "": none. */
    char *api_socket_group;
    bool api_socket_others; /* Whoever is neither root nor in that group may read. */
    bool insecure;
    unsigned feature_level; /* That this host says it has: up to FEATURE_LEVEL. */
};

/* 'file' NULL: CONFIG_FILE_DEFAULT if it exists. Drop-ins are looked for in "<file>.d". Logs warnings. Fatal,
 * with a text: a named file that cannot be read, is a directory, or is too large. 'ret' is to be freed with
 * config_done(). */
int config_load(const char *file, struct config *ret, struct err *err);

/* The same for a reload; -EBADMSG, with the place of the first one: there are mistakes in a file. */
int config_load_strict(const char *file, struct config *ret, struct err *err);

/* One key, for whoever goes over all of them. */
struct config_key {
    const char *name, *fallback; /* Its default, as a text. */
    bool live;                   /* A reload applies it; the others wait for the next start. */
    bool secret;                 /* Its value is for nobody's eyes. */
};

const struct config_key *config_key(size_t index); /* NULL behind the last one. */
const char *config_old_key(size_t index);          /* Of the first fleet, without a meaning here; likewise. */

/* One value as a text. -ENOENT: there is no such key; any other error: the value stays as it is. */
int config_set(struct config *config, const char *name, const char *text, struct err *err);

/* The value as a text that config_set() understands; equal values have equal texts. NULL: there is no such
 * key. Owned by the caller. */
char *config_get(const struct config *config, const char *name);

/* All defaults, without any file or environment. */
void config_init(struct config *config);
void config_done(struct config *config);

/* What the other daemons dial: 'cluster_address', or else 'public_ip' (as detected) with the port of
 * 'cluster_listen';
 * "" if there is no address. Owned by the caller. */
char *config_cluster_address(const struct config *config, const char *public_ip);

/* Whether 'text' is "host:port" with a host name, an IPv4 address or an IPv6 address in brackets, and a port
 * of 1 to 65535; -EINVAL with a text that names it. */
int config_check_address(const char *text, struct err *err);

/* Adds addresses that another daemon has said. What is none, and what is beyond RAFT_SERVERS_MAX in all, is
 * left out: they are kept in a file that must be one. */
void config_add_addresses(struct strlist *list, char *const *addresses, size_t count);
