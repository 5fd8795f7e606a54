/* SPDX-License-Identifier: Apache-2.0 */
/* What fleetctl shows of itself over https, and whom it believes: files of PEM, as the options or
 * CERTIFICATES_DEFAULT name them. One file may hold all: key, certificate, and behind it the authorities of
 * the cluster; that is what "fleetctl client-cert" writes. What is wrong with a certificate of fleet is said
 * here, before anybody is asked: TLS itself says little. */
#pragma once

#include "base/err.h"
#include "fleetctl/options.h"

/* Below $XDG_CONFIG_HOME, or else ~/.config. Used if it is there and no other is named. */
#define CERTIFICATES_DEFAULT "fleet/client.pem"

/* Paths for curl, NULL where there is nothing. What was picked out of a file is in memory, by a path that
 * holds for this process only, and as long as this does. */
struct certificates {
    char *file; /* As a person knows it: where the certificate comes from. NULL: there is none. */
    char *certificate, *key, *authorities;
    int fds[3];
};

/* -EINVAL with a text: a file cannot be read or does not fit the others, or the certificate has ended.
 * certificates_done() in either case. */
int certificates_load(const struct options *o, struct certificates *ret, struct err *err);
void certificates_done(struct certificates *certificates);

/* CERTIFICATES_DEFAULT as a path; NULL: there is no home. The caller owns it. */
char *certificates_default_path(void);
