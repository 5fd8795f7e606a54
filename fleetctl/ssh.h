/* SPDX-License-Identifier: Apache-2.0 */
/* How the user's own ssh(1) is called: its agent, configuration and known hosts apply, and the options of the
 * first fleet come on top. Words only: running it is tunnel.h's and verb-ssh.c's.
 *
 * No host name, path or user name, wherever it comes from, is ever read by ssh as an option, or by a shell as
 * more than one word: what could be is refused, or quoted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "fleetctl/options.h"

/* Appends "ssh", its options, those of the NULL-ended list 'extra', and the host to 'argv'. A command may
 * follow behind a "--": behind the host, ssh looks for options again. 'destination' is [user@]host[:port], or
 * an IPv6 address, in brackets if a port follows. -EINVAL: a part of it is not fit to be passed on. */
int ssh_add_words(const struct options *o, const char *const *extra, const char *destination,
                  struct strlist *argv, struct err *err);

/* The option "ProxyCommand=..." by which ssh reaches a host from the one that --tunnel names. The caller owns
 * *ret. Errors as above. */
int ssh_proxy_option(const struct options *o, char **ret, struct err *err);

/* 's' as one word of a POSIX shell; as it is where it needs no quotes. The caller owns it. */
char *ssh_quote(const char *s);
