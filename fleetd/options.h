/* SPDX-License-Identifier: Apache-2.0 */
/* fleetd's command line (fleet-behaviour.md §5.1; but every mistake of usage exits with 2). */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

enum options_action {
    OPTIONS_RUN,
    OPTIONS_VERSION, /* --version, -version, or the word "version". */
    OPTIONS_HELP,    /* --help, -help, -h. */
    OPTIONS_RECOVER, /* --recover-quorum */
    OPTIONS_RESTORE, /* --restore FILE */
};

struct options {
    enum options_action action;
    const char *config_file; /* Points into argv; NULL: the default one. */
    const char *backup;      /* Likewise, of --restore. */
    bool show, yes;          /* Of --recover-quorum and --restore. */
};

/* -EINVAL with a text for stderr: print it with options_usage() and exit with 2. */
int options_parse(int argc, char **argv, struct options *ret, struct err *err);

void options_usage(FILE *stream, const char *argv0);
