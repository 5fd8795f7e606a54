/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's configuration: /etc/fleet/fleet.conf, then its drop-ins fleet.conf.d/NAME.conf in the order of
 * their names, then the environment FLEET_<KEY>; the last one wins. A missing key, also after a reload, has
 * its default.
 *
 * A mistake in a value never stops the daemon: it is logged with file and line, and the value from before (in
 * the end, the default) stays. Fatal is only what a person has named and we cannot read.
 *
 * Grammar (that of the first fleet, fleet-behaviour.md §5.2, mended): "key = value" lines outside any
 * section; lines that begin with "#" or ";" are comments; a trailing "\" joins the next line; key="value" and
 * key='value' keep blanks,
 * "#" and ";"; an unquoted value ends at the first "#" or ";". A comment may follow a quoted value. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define CONFIG_FILE_DEFAULT     "/etc/fleet/fleet.conf"
#define CONFIG_FILE_MAX         (1024u * 1024) /* Bytes of one file. */
#define CONFIG_LINE_MAX         (256u * 1024)  /* Bytes of one line, with those that "\" joins. */
#define CONFIG_DROPINS_MAX      256u
#define CONFIG_JOIN_MAX         64u /* Addresses in 'join'. */
#define CONFIG_AGENT_TTL_MIN_MS 2000u
#define CONFIG_AGENT_TTL_MAX_MS (3600u * 1000)

struct config_label {
    char *key, *value;
};

/* Strings are never NULL. */
struct config {
    int verbosity;                 /* Above 0: debug messages. */
    char *public_ip;               /* An IP address, or "": to be detected (identity.h). */
    struct config_label *metadata; /* In the file's order; each key once. */
    size_t metadata_count;
    unsigned token_limit; /* Page size of the API, 1 to 65535. */
    bool disable_engine;  /* This host never leads. */
    char *units_directory;
    bool systemd_user; /* The user's systemd instead of the system's. */
    uint64_t agent_ttl_ms;

    char *data_dir;
    char *cluster_listen;  /* "host:port" or "[v6]:port", as all addresses. */
    char *cluster_address; /* "": see config_cluster_address(). */
    bool bootstrap;
    struct strlist join;
    char *join_token, *join_token_file; /* "": none. */
    unsigned voters;                    /* 1, 3, 5 or 7. */
    char *api_listen;                   /* "": no remote API. */
    char *api_socket;                   /* "": none. */
    char *api_socket_group;
    bool insecure;
};

/* 'file' NULL: CONFIG_FILE_DEFAULT if it exists. Drop-ins are looked for in "<file>.d". Logs warnings. Fatal,
 * with a text: a named file that cannot be read, is a directory, or is too large. 'ret' is to be freed with
 * config_done(). */
int config_load(const char *file, struct config *ret, struct err *err);

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
