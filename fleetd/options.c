/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/options.h"

#include <errno.h>
#include <stdbool.h>

#include "base/str.h"

/* The name of an option without its one or two dashes, or NULL if 'arg' is none. "-" and "--" are none. */
static const char *option_name(const char *arg)
{
    if (arg[0] != '-' || arg[1] == '\0' || streq(arg, "--"))
        return NULL;
    return arg + (arg[1] == '-' ? 2 : 1);
}

static int parse_option(const char *name, char **argv, int *i, struct options *options, struct err *err)
{
    if (streq(name, "version")) {
        options->action = OPTIONS_VERSION;
    } else if (streq(name, "help") || streq(name, "h")) {
        options->action = OPTIONS_HELP;
    } else if (streq(name, "config")) {
        options->config_file = argv[++*i];
    } else if (str_has_prefix(name, "config=")) {
        options->config_file = name + strlen("config=");
    } else {
        return err_set(err, -EINVAL, "unknown option %s", argv[*i]);
    }
    if (str_has_prefix(name, "config") && (options->config_file == NULL || *options->config_file == '\0'))
        return err_set(err, -EINVAL, "--config needs a file");
    return 0;
}

int options_parse(int argc, char **argv, struct options *ret, struct err *err)
{
    struct options options = {.action = OPTIONS_RUN};
    bool ended = false; /* "--" was there. */

    for (int i = 1; i < argc && options.action == OPTIONS_RUN; i++) {
        const char *name = ended ? NULL : option_name(argv[i]);
        int r = 0;

        if (!ended && streq(argv[i], "--"))
            ended = true;
        else if (name != NULL)
            r = parse_option(name, argv, &i, &options, err);
        else if (streq(argv[i], "version"))
            options.action = OPTIONS_VERSION;
        else
            r = err_set(err, -EINVAL, "%s takes no arguments. Did you mean to invoke fleetctl instead?",
                        argv[0]);
        if (r < 0)
            return r;
    }
    *ret = options;
    return 0;
}

void options_usage(FILE *stream, const char *argv0)
{
    fprintf(stream,
            "Usage: %s [--config FILE]\n"
            "       %s --version\n"
            "\n"
            "The fleet daemon: joins this host's systemd into a cluster.\n"
            "\n"
            "  --config FILE  read FILE and FILE.d/*.conf instead of /etc/fleet/fleet.conf\n"
            "  --version      print the version and exit\n"
            "  -h, --help     print this and exit\n"
            "\n"
            "See fleetd(8) and fleet.conf(5). The cluster is operated with fleetctl(1).\n",
            argv0, argv0);
}
