/* SPDX-License-Identifier: Apache-2.0 */
/* init, join: what a host that belongs to no cluster is told at its own socket. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

#define DEADLINE_MS    30000u
#define GRACE_MS       5000u /* fleetd itself says what was in the way at the deadline. */
#define TOKEN_FILE_MAX 4096u
#define TOKEN_PREFIX   "fleet1." /* As pki/token.c writes them. */
#define DEFAULT_PORT   "7390"

static uint64_t deadline_of(const struct ctl *ctl)
{
    return ctl->options.deadline_ms != 0 ? ctl->options.deadline_ms : DEADLINE_MS;
}

static const char *short_of(const struct ctl *ctl, const char *cluster, char shortened[12])
{
    snprintf(shortened, 12, "%.8s...", cluster);
    return ctl->options.full ? cluster : shortened;
}

/* ---- init ---- */

int verb_init(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *body = json_object(), *reply = NULL;
    char shortened[12];
    struct err err = {0};
    int r;

    if (ctl->options.voters != 0)
        json_object_set_new(body, "voters", json_integer(ctl->options.voters));
    r = api_call(ctl->api, "POST", "init", body, DEADLINE_MS + GRACE_MS, &reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error starting a cluster");
    printf("Started cluster %s; this host (%s) is its first machine\n",
           short_of(ctl, api_text(reply, "cluster"), shortened), api_text(reply, "machineID"));
    if (isatty(STDERR_FILENO))
        complain("To let others in: \"fleetctl join-token\" here, then \"fleetctl join\" there");
    return CTL_EXIT_DONE;
}

/* ---- join ---- */

/* "HOST" is "HOST:7390"; an IPv6 address stands in brackets. */
static char *with_port(const char *address)
{
    const char *bracket = strrchr(address, ']'), *colon = strrchr(address, ':');

    if (colon == NULL || (bracket != NULL && colon < bracket))
        return xasprintf("%s:" DEFAULT_PORT, address);
    return xstrdup(address);
}

/* Not on the command line, where everybody on this computer could read it. */
static int read_token(const char *path, char token[TOKEN_FILE_MAX], struct err *err)
{
    bool is_stdin = streq(path, "-");
    _cleanup_(closep) int fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    ssize_t got = fd < 0 ? -1 : 1;

    while (got > 0 && size < TOKEN_FILE_MAX - 1) {
        got = read(fd, token + size, TOKEN_FILE_MAX - 1 - size);
        size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        return err_set(err, -errno, "cannot read the token from %s: %s", is_stdin ? "standard input" : path,
                       strerror(errno));
    token[size] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
    if (token[0] == '\0')
        return err_set(err, -EINVAL, "there is no token in %s", is_stdin ? "standard input" : path);
    return 0;
}

int verb_join(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *body = json_object(), *addresses = json_array(), *reply = NULL;
    char token[TOKEN_FILE_MAX] = "", shortened[12];
    struct err err = {0};
    json_int_t machines;
    int r;

    if (ctl->options.token_file != NULL && str_has_prefix(ctl->options.token_file, TOKEN_PREFIX)) {
        complain("fleetctl join: --token-file wants a file, not the token: everybody on this computer can "
                 "read the command line");
        return CTL_EXIT_USAGE;
    }
    if (ctl->options.token_file != NULL) {
        r = read_token(ctl->options.token_file, token, &err);
        if (r < 0)
            return ctl_fail(&err, r, "Error joining");
    }
    for (size_t i = 0; i < args->count; i++) {
        _cleanup_(freep) char *address = with_port(args->items[i]);

        json_array_append_new(addresses, json_string(address));
    }
    json_object_set(body, "addresses", addresses);
    if (token[0] != '\0' && json_object_set_new(body, "token", json_string(token)) < 0) {
        complain("Error joining: the token is not even text");
        return CTL_EXIT_FAILED;
    }
    explicit_bzero(token, sizeof token);
    json_object_set_new(body, "timeoutMS", json_integer((json_int_t)deadline_of(ctl)));
    r = api_call(ctl->api, "POST", "join", body, deadline_of(ctl) + GRACE_MS, &reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error joining");
    machines = json_integer_value(json_object_get(reply, "machines"));
    printf("Joined cluster %s as machine %s; it has %d machine%s now\n",
           short_of(ctl, api_text(reply, "cluster"), shortened), api_text(reply, "machineID"), (int)machines,
           machines == 1 ? "" : "s");
    return CTL_EXIT_DONE;
}
