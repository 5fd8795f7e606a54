/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/options.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/str.h"

/* The name of an option without its one or two dashes, or NULL if 'arg' is none. "-" and "--" are none. */
static const char *option_name(const char *arg)
{
    if (arg[0] != '-' || arg[1] == '\0' || streq(arg, "--"))
        return NULL;
    return arg + (arg[1] == '-' ? 2 : 1);
}

/* The value of an option that needs one: what follows its '=', or the next argument. NULL: there is none. */
static const char *option_value(const char *name, const char *option, char **argv, int *i)
{
    const char *value = name[strlen(option)] == '=' ? name + strlen(option) + 1 : argv[++*i];

    return value != NULL && *value != '\0' ? value : NULL;
}

static bool is_option(const char *name, const char *option)
{
    return str_has_prefix(name, option) && (name[strlen(option)] == '\0' || name[strlen(option)] == '=');
}

static int set_action(struct options *options, enum options_action action, struct err *err)
{
    if (options->action != OPTIONS_RUN)
        return err_set(err, -EINVAL, "--recover-quorum and --restore cannot be given together");
    options->action = action;
    return 0;
}

static int parse_option(const char *name, char **argv, int *i, struct options *options, struct err *err)
{
    if (streq(name, "version")) {
        options->action = OPTIONS_VERSION;
    } else if (streq(name, "help") || streq(name, "h")) {
        options->action = OPTIONS_HELP;
    } else if (is_option(name, "config")) {
        options->config_file = option_value(name, "config", argv, i);
        if (options->config_file == NULL)
            return err_set(err, -EINVAL, "--config needs a file");
    } else if (is_option(name, "restore")) {
        options->backup = option_value(name, "restore", argv, i);
        if (options->backup == NULL)
            return err_set(err, -EINVAL, "--restore needs a file: one that fleetctl backup has made");
        return set_action(options, OPTIONS_RESTORE, err);
    } else if (streq(name, "recover-quorum")) {
        return set_action(options, OPTIONS_RECOVER, err);
    } else if (streq(name, "show")) {
        options->show = true;
    } else if (streq(name, "yes")) {
        options->yes = true;
    } else {
        return err_set(err, -EINVAL, "unknown option %s", argv[*i]);
    }
    return 0;
}

static int check_options(const struct options *options, struct err *err)
{
    if (options->action == OPTIONS_RUN && (options->show || options->yes))
        return err_set(err, -EINVAL, "--%s goes with --recover-quorum%s only", options->show ? "show" : "yes",
                       options->show ? " and --restore" : "");
    if (options->action == OPTIONS_RESTORE && options->yes)
        return err_set(err, -EINVAL, "--yes goes with --recover-quorum only");
    return 0;
}

int options_parse(int argc, char **argv, struct options *ret, struct err *err)
{
    struct options options = {.action = OPTIONS_RUN};
    bool ended = false; /* "--" was there. */

    for (int i = 1; i < argc && options.action != OPTIONS_VERSION && options.action != OPTIONS_HELP; i++) {
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
    if (check_options(&options, err) < 0)
        return -EINVAL;
    *ret = options;
    return 0;
}

void options_usage(FILE *stream, const char *argv0)
{
    fprintf(stream,
            "Usage: %s [--config FILE]\n"
            "       %s [--config FILE] --recover-quorum [--show|--yes]\n"
            "       %s [--config FILE] --restore FILE [--show]\n"
            "       %s --version\n"
            "\n"
            "The fleet daemon: joins this host's systemd into a cluster.\n"
            "\n"
            "  --config FILE  read FILE and FILE.d/*.conf instead of /etc/fleet/fleet.conf\n"
            "  --version      print the version and exit\n"
            "  -h, --help     print this and exit\n"
            "\n"
            "By hand, while fleetd is stopped:\n"
            "  --recover-quorum  a majority of the voters is gone for good: go on with what this\n"
            "                    host has of the data; asks first, unless --yes is given\n"
            "  --restore FILE    begin a new cluster with the data of a backup (fleetctl backup)\n"
            "  --show            with these: only print what there is, and change nothing\n"
            "\n"
            "See fleetd(8) and fleet.conf(5). The cluster is operated with fleetctl(1).\n",
            argv0, argv0, argv0, argv0);
}
