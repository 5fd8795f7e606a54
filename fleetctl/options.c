/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/output.h"

/* getopt_long() returns this plus the row, so that rows need no number of their own. */
#define ROW_BASE 1000

#define HELP_COLUMN 35 /* A tab, 26 for the option, a blank. */

enum kind {
    BOOL, /* Takes a value only with '='. */
    TEXT,
    INT,
    SECONDS,
    MODE, /* enum output_mode */
    TRISTATE,
    PORT,
    IGNORED_BOOL,
    IGNORED_TEXT, /* Meant something to the first fleet's etcd only: warned of. */
};

static const struct row {
    const char *name; /* Several rows may set the same field. */
    char letter;
    enum kind kind;
    unsigned bit;
    size_t offset;
    const char *value, *help; /* NULL help: not shown. */
} rows[] = {
#define FIELD(f) offsetof(struct options, f)
    {"full", 'l', BOOL, OPTION_FULL, FIELD(full), NULL, "show machine ids and hashes in full"},
    {"l", 0, BOOL, OPTION_FULL, FIELD(full), NULL, NULL},
    {"no-legend", 0, BOOL, OPTION_NO_LEGEND, FIELD(no_legend), NULL, "do not print the header line"},
    {"fields", 0, TEXT, OPTION_FIELDS, FIELD(fields), "A,B,...", "columns to print"},
    {"output", 'o', MODE, OPTION_OUTPUT, FIELD(output), "FORMAT", "text, json or json-pretty"},
    {"output", 0, MODE, OPTION_FORMAT, FIELD(output), "FORMAT",
     "short, short-iso, short-precise, short-unix, cat, json or json-pretty"},
    {"lines", 'n', INT, OPTION_LINES, FIELD(lines), "N", "how many journal lines (default 10)"},
    {"follow", 'f', BOOL, OPTION_FOLLOW, FIELD(follow), NULL, "go on with what is written from now on"},
    {"f", 0, BOOL, OPTION_FOLLOW, FIELD(follow), NULL, NULL},
    {"sudo", 0, IGNORED_BOOL, OPTION_SUDO, 0, NULL, NULL},
    {"no-block", 0, BOOL, OPTION_NO_BLOCK, FIELD(no_block), NULL, "do not wait until it is done"},
    {"block-attempts", 0, INT, OPTION_BLOCK_ATTEMPTS, FIELD(block_attempts), "N",
     "wait at most 2N seconds (0: 10 minutes; negative: without limit)"},
    {"automatic", 0, BOOL, OPTION_AUTOMATIC, FIELD(automatic), NULL,
     "leave it to the cluster again whether they vote"},
    {"deadline", 0, SECONDS, OPTION_DEADLINE, FIELD(deadline_ms), "TIME", "wait at most so long"},
    {"replace", 0, BOOL, OPTION_REPLACE, FIELD(replace), NULL,
     "replace stored units that differ from the local files"},
    {"sign", 0, IGNORED_BOOL, OPTION_SIGN, 0, NULL, NULL},
    {"machine", 0, TEXT, OPTION_MACHINE, FIELD(machine), "MACHINE", "this machine (id or host name)"},
    {"unit", 0, TEXT, OPTION_UNIT, FIELD(unit), "UNIT", "the machine that has this unit"},
    {"forward-agent", 'A', BOOL, OPTION_FORWARD_AGENT, FIELD(forward_agent), NULL,
     "let the machine use this computer's ssh agent"},
    {"A", 0, BOOL, OPTION_FORWARD_AGENT, FIELD(forward_agent), NULL, NULL},
    {"ssh-port", 0, PORT, OPTION_SSH_PORT, FIELD(ssh_port), "PORT", "where sshd listens (default 22)"},
    {"role", 0, TEXT, OPTION_CLIENT_CERT, FIELD(role), "ROLE", "admin, operator or viewer"},
    {"file", 0, TEXT, OPTION_CLIENT_CERT, FIELD(file), "FILE",
     "where to write it (default NAME.pem; -: stdout)"},
    {"ttl", 0, TEXT, OPTION_TTL, FIELD(ttl), "TIME",
     "how long it is valid (default 1h for a join token, 365d for a client)"},
    {"uses", 0, INT, OPTION_JOIN_TOKEN, FIELD(uses), "N", "how many hosts it lets in (default: any number)"},
    {"list", 0, BOOL, OPTION_JOIN_TOKEN, FIELD(list), NULL, "list the tokens that there are"},
    {"revoke", 0, TEXT, OPTION_JOIN_TOKEN, FIELD(revoke), "ID", "let nobody in by this token any more"},
    {"token-file", 0, TEXT, OPTION_JOIN, FIELD(token_file), "FILE",
     "where the join token is; -: standard input"},
    {"voters", 0, INT, OPTION_INIT, FIELD(voters), "N", "how many hosts are to vote: 1, 3, 5 or 7"},
    {"status", 0, BOOL, OPTION_ROTATE, FIELD(show_status), NULL, "only show how far the rotation is"},
    {"cancel", 0, BOOL, OPTION_ROTATE, FIELD(cancel), NULL,
     "end the rotation, if no certificate was issued yet"},
    {"force", 0, BOOL, OPTION_FORCE, FIELD(force), NULL, "whatever is still in the way of it"},
    {"quiet", 'q', BOOL, OPTION_QUIET, FIELD(quiet), NULL, "print nothing, only set the exit status"},
    {"verify", 0, BOOL, OPTION_VERIFY, FIELD(verify), NULL,
     "make no backup, but check that the file is a whole one"},
    {"endpoint", 0, TEXT, OPTION_GLOBAL, FIELD(endpoint), "URL",
     "where fleetd is: unix://, http://, https://"},
    {"tunnel", 0, TEXT, OPTION_GLOBAL, FIELD(tunnel), "HOST[:PORT]", "reach fleetd by ssh through this host"},
    {"request-timeout", 0, SECONDS, OPTION_GLOBAL, FIELD(request_timeout_ms), "TIME",
     "how long one request may take (10s)"},
    {"ca-file", 0, TEXT, OPTION_REMOTE, FIELD(ca_file), "FILE", "https: who signs servers' certificates"},
    {"cert-file", 0, TEXT, OPTION_REMOTE, FIELD(cert_file), "FILE", "https: our certificate"},
    {"key-file", 0, TEXT, OPTION_REMOTE, FIELD(key_file), "FILE", "https: its private key"},
    {"ssh-username", 0, TEXT, OPTION_REMOTE, FIELD(ssh_username), "NAME", "log in by ssh as this user"},
    {"ssh-timeout", 0, SECONDS, OPTION_REMOTE, FIELD(ssh_timeout_ms), "TIME",
     "how long connecting by ssh may take"},
    {"strict-host-key-checking", 0, TRISTATE, OPTION_REMOTE, FIELD(host_key_checking), NULL,
     "false: take any host key"},
    {"known-hosts-file", 0, TEXT, OPTION_REMOTE, FIELD(known_hosts_file), "FILE", "host keys that ssh knows"},
    {"debug", 0, BOOL, OPTION_GLOBAL, FIELD(debug), NULL, "print every request on stderr"},
    {"driver", 0, TEXT, OPTION_REMOTE, FIELD(driver), "API", NULL},
    {"etcd-cafile", 0, TEXT, OPTION_REMOTE, FIELD(ca_file), "FILE", NULL},
    {"etcd-certfile", 0, TEXT, OPTION_REMOTE, FIELD(cert_file), "FILE", NULL},
    {"etcd-keyfile", 0, TEXT, OPTION_REMOTE, FIELD(key_file), "FILE", NULL},
    {"etcd-key-prefix", 0, IGNORED_TEXT, OPTION_REMOTE, 0, "PREFIX", NULL},
    {"experimental-api", 0, IGNORED_BOOL, OPTION_REMOTE, 0, NULL, NULL},
    {"help", 'h', BOOL, OPTION_GLOBAL, FIELD(help), NULL, "print help"},
    {"h", 0, BOOL, OPTION_GLOBAL, FIELD(help), NULL, NULL},
    {"version", 'v', BOOL, OPTION_GLOBAL, FIELD(version), NULL, "print the version"},
#undef FIELD
};

static bool takes_value(const struct row *row)
{
    return row->kind != BOOL && row->kind != TRISTATE && row->kind != IGNORED_BOOL;
}

static int parse_bool(const char *text, bool *ret, struct err *err)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True", "yes"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False", "no"};

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (text == NULL || streq(text, yes[i])) {
            *ret = true;
            return 0;
        }
        if (streq(text, no[i])) {
            *ret = false;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "\"%s\" is neither true nor false", text);
}

static int parse_int(const char *text, int *ret, struct err *err)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n > INT_MAX || n < INT_MIN)
        return err_set(err, -EINVAL, "\"%s\" is not a number", text);
    *ret = (int)n;
    return 0;
}

static int parse_port(const char *text, int *ret, struct err *err)
{
    int port, r = parse_int(text, &port, err);

    if (r < 0)
        return r;
    if (port < 1 || port > 65535)
        return err_set(err, -EINVAL, "\"%s\" is no port", text);
    *ret = port;
    return 0;
}

static int parse_seconds(const char *text, uint64_t *ret_ms, struct err *err)
{
    uint64_t ms;
    int r = duration_parse(text, &ms, err);

    if (r < 0)
        return r;
    if (ms == 0 || ms > INT_MAX)
        return err_set(err, -EINVAL, "\"%s\" is out of range", text);
    *ret_ms = ms;
    return 0;
}

static int parse_mode(const char *text, enum output_mode *ret, struct err *err)
{
    static const char *const words[] = {
        [OUTPUT_TEXT] = "text",
        [OUTPUT_JSON] = "json",
        [OUTPUT_JSON_PRETTY] = "json-pretty",
        [OUTPUT_SHORT] = "short",
        [OUTPUT_SHORT_ISO] = "short-iso",
        [OUTPUT_SHORT_PRECISE] = "short-precise",
        [OUTPUT_SHORT_UNIX] = "short-unix",
        [OUTPUT_CAT] = "cat",
    };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (streq(words[i], text)) {
            *ret = (enum output_mode)i;
            return 0;
        }
    return err_set(err, -EINVAL,
                   "\"%s\" is none of text, json, json-pretty, nor of a journal's short, short-iso, "
                   "short-precise, short-unix, cat",
                   text);
}

static int set_value(struct options *o, const struct row *row, const char *value, struct err *err)
{
    void *field = (char *)o + row->offset;
    bool yes;
    int r;

    if (row->kind == TEXT && str_has_prefix(row->name, "etcd-"))
        complain("WARNING: --%s is deprecated, write --%.*s-file", row->name,
                 (int)(strlen(row->name) - strlen("etcd-file")), row->name + strlen("etcd-"));
    switch (row->kind) {
    case BOOL: return parse_bool(value, field, err);
    case TRISTATE:
        r = parse_bool(value, &yes, err);
        if (r == 0)
            *(enum tristate *)field = yes ? TRISTATE_YES : TRISTATE_NO;
        return r;
    case PORT: return parse_port(value, field, err);
    case IGNORED_BOOL: return parse_bool(value, &yes, err);
    case IGNORED_TEXT:
        complain("WARNING: --%s means nothing any more: fleetd keeps its own data, without etcd", row->name);
        return 0;
    case INT: return parse_int(value, field, err);
    case SECONDS: return parse_seconds(value, field, err);
    case MODE: return parse_mode(value, field, err);
    case TEXT:
        free(*(char **)field);
        *(char **)field = xstrdup(value);
        return 0;
    }
    return -EINVAL;
}

/* FLEETCTL_REQUEST_TIMEOUT for request-timeout. */
static char *variable_name(const char *option)
{
    char *name = xasprintf("FLEETCTL_%s", option);

    for (char *p = name; *p != '\0'; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return name;
}

/* --help and --version ask for something instead. */
static bool is_setting(const struct row *row)
{
    return row->offset != offsetof(struct options, help) && row->offset != offsetof(struct options, version);
}

static void read_environment(struct options *o)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(freep) char *variable = variable_name(rows[i].name);
        const char *value = getenv(variable);
        struct err err = {0};
        int r;

        if ((rows[i].bit & OPTION_EVERYWHERE) == 0 || !is_setting(&rows[i]) || value == NULL ||
            value[0] == '\0')
            continue;
        r = set_value(o, &rows[i], value, &err);
        if (r < 0)
            complain("WARNING: %s is ignored: %s", variable, err_text(&err, r));
    }
}

/* What getopt_long() did not like, told by what it left behind. */
static int refuse(int c, char **argv, struct err *err)
{
    const char *arg = argv[optind - 1];

    if (c == ':')
        return err_set(err, -EINVAL, "flag needs an argument: %s", arg);
    if (optopt != 0 && optopt < ROW_BASE)
        return err_set(err, -EINVAL, "unknown shorthand flag: '%c'", optopt);
    return err_set(err, -EINVAL, "unknown flag: %.*s", (int)strcspn(arg, "="), arg);
}

static const struct row *find_row(int c)
{
    if (c >= ROW_BASE)
        return &rows[c - ROW_BASE];
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].letter == c)
            return &rows[i];
    return NULL;
}

static int read_command_line(struct options *o, int argc, char **argv, struct err *err)
{
    struct option table[ARRAY_SIZE(rows) + 1] = {0};
    int c, r;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        table[i] = (struct option){.name = rows[i].name,
                                   .has_arg = takes_value(&rows[i]) ? required_argument : optional_argument,
                                   .val = ROW_BASE + (int)i};
    optind = 0; /* Starts anew: the tests parse many times. */
    while ((c = getopt_long(argc, argv, ":Afhln:o:qv", table, NULL)) != -1) {
        const struct row *row = c == '?' || c == ':' ? NULL : find_row(c);

        if (row == NULL)
            return refuse(c, argv, err);
        r = set_value(o, row, optarg, err);
        if (r < 0)
            return err_prefix(err, r, "--%s", row->name);
        o->given[row - rows] = true;
        o->used |= row->kind == MODE && o->output > OUTPUT_JSON_PRETTY ? OPTION_FORMAT : row->bit;
    }
    while (optind < argc)
        strlist_add(&o->args, argv[optind++]);
    return 0;
}

int options_parse(struct options *o, int argc, char **argv, struct err *err)
{
    *o = (struct options){
        .endpoint = xstrdup(OPTIONS_ENDPOINT_DEFAULT),
        .driver = xstrdup(OPTIONS_DRIVER),
        .request_timeout_ms = OPTIONS_REQUEST_TIMEOUT_DEFAULT,
        .lines = OPTIONS_LINES_DEFAULT,
    };
    read_environment(o);
    return read_command_line(o, argc, argv, err);
}

void options_done(struct options *o)
{
    char *const texts[] = {
        o->endpoint, o->fields,       o->driver,           o->tunnel,    o->ca_file, o->cert_file,
        o->key_file, o->ssh_username, o->known_hosts_file, o->machine,   o->unit,    o->role,
        o->ttl,      o->file,         o->revoke,           o->token_file};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        free(texts[i]);
    strlist_done(&o->args);
    *o = (struct options){0};
}

void options_print_help(unsigned bits)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        char letter[] = {'-', row->letter, ',', ' ', '\0'};
        _cleanup_(freep) char *name = NULL;

        if ((row->bit & bits) == 0 || row->help == NULL ||
            (row->bit == OPTION_OUTPUT && (bits & OPTION_FORMAT) != 0)) /* Said once. */
            continue;
        name = xasprintf("%s--%s%s%s", row->letter != 0 ? letter : "", row->name,
                         row->value != NULL ? "=" : "", row->value != NULL ? row->value : "");
        printf("\t%-26s ", name);
        print_wrapped(row->help, HELP_COLUMN, HELP_COLUMN);
    }
}

const char *options_wrong(const struct options *o, unsigned allowed)
{
    static_assert(ARRAY_SIZE(rows) <= OPTIONS_ROWS_MAX, "a place for each");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (o->given[i] && (rows[i].bit & allowed) == 0)
            return rows[i].name;
    return NULL;
}
