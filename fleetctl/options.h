/* SPDX-License-Identifier: Apache-2.0 */
/* The options of fleetctl: one table for all verbs, from the command line and, for the global ones, from the
 * environment (FLEETCTL_ENDPOINT, ...; the command line wins, an empty variable counts as unset). Options and
 * arguments may be mixed, before and after the verb; "--" ends the options. Which verb takes which option is
 * written in the table of verbs (verbs.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define OPTIONS_ENDPOINT_DEFAULT        "unix:///run/fleet.sock"
#define OPTIONS_DRIVER                  "API" /* What is left of the first fleet's choice. */
#define OPTIONS_REQUEST_TIMEOUT_DEFAULT 10000 /* ms */
#define OPTIONS_LINES_DEFAULT           10
#define OPTIONS_ROWS_MAX                80

/* Bits for struct verb's 'options' and struct options' 'used'. */
enum option_bit {
    OPTION_FULL = 1 << 0,
    OPTION_NO_LEGEND = 1 << 1,
    OPTION_FIELDS = 1 << 2,
    OPTION_OUTPUT = 1 << 3,
    OPTION_NO_BLOCK = 1 << 4,
    OPTION_BLOCK_ATTEMPTS = 1 << 5,
    OPTION_REPLACE = 1 << 6,
    OPTION_SIGN = 1 << 7, /* Means nothing; scripts for the first fleet pass it. */
    OPTION_GLOBAL = 1 << 8,
    OPTION_JOIN_TOKEN = 1 << 9, /* What only join-token takes... */
    OPTION_JOIN = 1 << 10,      /* ...only join... */
    OPTION_INIT = 1 << 11,      /* ...only init. */
    OPTION_FORCE = 1 << 12,
    OPTION_ROTATE = 1 << 13,      /* Only rotate-authority. */
    OPTION_CLIENT_CERT = 1 << 14, /* Only client-cert. */
    OPTION_TTL = 1 << 15,
    OPTION_LINES = 1 << 16,
    OPTION_FOLLOW = 1 << 17,
    OPTION_FORMAT = 1 << 18, /* --output with one of journalctl's formats. */
    OPTION_SUDO = 1 << 19,   /* Means nothing: nothing is run on a host. */
    OPTION_AUTOMATIC = 1 << 20,
    OPTION_VERIFY = 1 << 29,
    OPTION_DEADLINE = 1 << 30,
    OPTION_MACHINE = 1 << 22,
    OPTION_UNIT = 1 << 23,
    OPTION_FORWARD_AGENT = 1 << 24,
    OPTION_SSH_PORT = 1 << 25,
    OPTION_QUIET = 1 << 26,
    OPTION_REMOTE = 1 << 27,                           /* Those global ones that the short help leaves out. */
    OPTION_EVERYWHERE = OPTION_GLOBAL | OPTION_REMOTE, /* Taken by every verb. */
};

enum tristate {
    TRISTATE_UNSET,
    TRISTATE_NO,
    TRISTATE_YES,
};

enum output_mode {
    OUTPUT_TEXT,
    OUTPUT_JSON,
    OUTPUT_JSON_PRETTY,
    OUTPUT_SHORT, /* From here on: of a journal. */
    OUTPUT_SHORT_ISO,
    OUTPUT_SHORT_PRECISE,
    OUTPUT_SHORT_UNIX,
    OUTPUT_CAT,
};

struct options {
    char *endpoint;
    char *fields; /* NULL: the verb's default. */
    char *driver;
    char *tunnel;                          /* NULL or "": none. */
    char *ca_file, *cert_file, *key_file;  /* NULL or "": none. */
    char *ssh_username, *known_hosts_file; /* NULL or "": what ssh's own configuration says. */
    enum tristate host_key_checking;
    uint64_t ssh_timeout_ms; /* 0: what ssh's own configuration says. */
    int ssh_port;            /* 0: likewise. */
    char *machine, *unit;    /* NULL: not given. */
    enum output_mode output;
    bool automatic;
    bool full, no_legend, no_block, replace, follow, debug, help, version, forward_agent, quiet, verify;
    int lines;          /* Of a journal. */
    int block_attempts; /* 0: the default deadline; negative: none; N: 2N seconds (fleet-behaviour.md §1.6.1).
                         */
    char *ttl, *revoke, *token_file, *role, *file; /* NULL: not given. */
    int uses, voters;                              /* 0: not given. */
    bool list, force, show_status, cancel;
    uint64_t request_timeout_ms;
    uint64_t deadline_ms;         /* 0: by block_attempts. */
    unsigned used;                /* Which of enum option_bit the command line had. */
    bool given[OPTIONS_ROWS_MAX]; /* Likewise, of the rows of the table. */
    struct strlist args;          /* The verb and its arguments, in order. */
};

/* Fills 'o' with defaults, then the environment, then the command line. -EINVAL and a text for the first
 * thing that is wrong; what the environment gets wrong is a warning on stderr only. options_done() in either
 * case. */
int options_parse(struct options *o, int argc, char **argv, struct err *err);
void options_done(struct options *o);

/* Prints the options of a verb that takes the set 'bits', one line each, indented by a tab, to stdout. */
void options_print_help(unsigned bits);

/* The name of the first option of the command line that is not in the set 'allowed', for messages, or NULL.
 */
const char *options_wrong(const struct options *o, unsigned allowed);
