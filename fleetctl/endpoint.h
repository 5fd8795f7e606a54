/* SPDX-License-Identifier: Apache-2.0 */
/* Where fleetd is, as --endpoint says it (fleet-behaviour.md §1.3): a Unix socket, or HTTP with or without
 * TLS, below a base path. Text only: nothing is opened or resolved here. */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct endpoint {
    char *socket;    /* Path of the Unix socket; NULL: TCP. */
    char *base;      /* "http://host:port/base/": what a request's path is appended to. */
    char *host_port; /* "host:port" or "[address]:port", for ssh -W; NULL for a Unix socket. */
    char *where;     /* As a person would name it. */
    bool tls;
};

/* 'text' is unix:///path, file:///path, http://host[:port][/base] or https://...; of a comma list the first
 * is used, with a warning on stderr. -EINVAL and the first fleet's texts for what is none of these;
 * endpoint_done() in either case. */
int endpoint_parse(const char *text, struct endpoint *ret, struct err *err);
void endpoint_done(struct endpoint *e);
