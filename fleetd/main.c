/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include <uv.h>

#include "base/log.h"
#include "fleetd/config.h"
#include "fleetd/daemon.h"
#include "fleetd/data_lock.h"
#include "fleetd/journal.h"
#include "fleetd/options.h"
#include "fleetd/recovery.h"

#define MMAP_THRESHOLD_BYTES (256 * 1024)

/* Does by hand what options say, and ends. */
static int repair(const struct options *options)
{
    const struct recovery how = {.only_show = options->show, .confirmed = options->yes};
    struct config config;
    struct err err = {0};
    int r = config_load(options->config_file, &config, &err);

    if (r < 0) {
        fprintf(stderr, "%s\n", err_text(&err, r));
        return EXIT_FAILURE;
    }
    r = options->action == OPTIONS_RESTORE ? recovery_from_backup(&config, options->backup, &how, &err)
                                           : recovery_of_quorum(&config, &how, &err);
    config_done(&config);
    if (r < 0)
        fprintf(stderr, "%s\n", err_text(&err, r));
    return r < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(const char *config_file)
{
    struct config config;
    struct daemon *daemon;
    struct err err = {0};
    static uv_loop_t loop; /* A start that has failed ends the process with whatever is open on it. */
    int r;

    daemon_block_signals();
    /* libraft reads whole segments of 8 MiB at the start. Left to itself glibc would take that for the usual
     * size of things from then on, and keep it. */
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
    journal_open();
    r = config_load(config_file, &config, &err);
    if (r < 0) {
        log_error("%s", err_text(&err, r));
        return EXIT_FAILURE;
    }
    log_set_debug(config.verbosity > 0);
    r = data_lock(config.data_dir, &err);
    if (r < 0) {
        log_error("fleetd cannot start: %s", err_text(&err, r));
        return EXIT_FAILURE;
    }
    uv_loop_init(&loop);
    r = daemon_start(&loop, &config, config_file, &daemon, &err);
    if (r < 0) {
        log_error("fleetd cannot start: %s", err_text(&err, r));
        return EXIT_FAILURE;
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    daemon_free(daemon);
    if (uv_loop_close(&loop) != 0)
        log_warn("Something was left open at the end");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};

    if (options_parse(argc, argv, &options, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        options_usage(stderr, argv[0]);
        return 2;
    }
    switch (options.action) {
    case OPTIONS_VERSION: printf("fleetd version %s\n", PACKAGE_VERSION); return EXIT_SUCCESS;
    case OPTIONS_HELP: options_usage(stdout, argv[0]); return EXIT_SUCCESS;
    case OPTIONS_RECOVER:
    case OPTIONS_RESTORE: return repair(&options);
    case OPTIONS_RUN: break;
    }
    return run(options.config_file);
}
