/* SPDX-License-Identifier: Apache-2.0 */
/* fleetctl: options, verb, connection, exit code. */
#include <config.h>

#include <locale.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fleetctl/ctl.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

static void sink_stderr(int priority, const char *message, const char *const *fields)
{
    complain("%s: %s", priority == LOG_DEBUG ? "DEBUG" : "WARNING", message);
}

static int usage(const struct verb *verb, const char *text)
{
    if (verb == NULL)
        complain("Error: %s", text);
    else
        complain("%s (usage: fleetctl %s [OPTION...] %s)", text, verb->name, verb->args);
    return CTL_EXIT_USAGE;
}

/* The options and arguments that 'verb' does not take. */
static int check_usage(const struct ctl *ctl, const struct verb *verb, size_t count)
{
    const unsigned wrong = ctl->options.used & ~(verb->options | OPTION_EVERYWHERE);

    if (wrong == OPTION_FORMAT && (verb->options & OPTION_OUTPUT) != 0) {
        complain("fleetctl %s: --output is text, json or json-pretty here", verb->name);
        return CTL_EXIT_USAGE;
    }
    if (wrong != 0) {
        complain("fleetctl %s: there is no option --%s", verb->name,
                 options_wrong(&ctl->options, verb->options | OPTION_EVERYWHERE));
        return CTL_EXIT_USAGE;
    }
    if (count < verb->args_min)
        return usage(verb, verb->missing != NULL ? verb->missing : "too few arguments");
    if (count > verb->args_max)
        return usage(verb, verb->missing != NULL ? verb->missing : "too many arguments");
    return CTL_EXIT_DONE;
}

static int run_verb(struct ctl *ctl, const struct verb *verb, const struct strlist *args)
{
    struct err err = {0};
    int r = check_usage(ctl, verb, args->count);

    if (r != CTL_EXIT_DONE)
        return r;
    if (!verb->offline) {
        r = api_new(&ctl->options, &ctl->api, &err);
        if (r < 0)
            return ctl_fail(&err, r, "Unable to initialize client");
    }
    return verb->run(ctl, args);
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    const struct strlist none = {0};
    const struct verb *verb;
    struct strlist args;
    struct err err = {0};

    if (options_parse(&ctl->options, argc, argv, &err) < 0)
        return usage(NULL, err.text);
    log_set_debug(ctl->options.debug);
    if (ctl->options.version)
        return verb_version(ctl, &none);
    if (ctl->options.args.count == 0)
        return verb_help(ctl, &none);
    if (ctl->options.help)
        return verb_help(ctl, &ctl->options.args);
    verb = verb_find(ctl->options.args.items[0], &err);
    if (verb == NULL)
        return usage(NULL, err.text);
    args = (struct strlist){.items = ctl->options.args.items + 1, .count = ctl->options.args.count - 1};
    return run_verb(ctl, verb, &args);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {0};
    int code;

    setlocale(LC_MESSAGES, ""); /* For strerror() only: numbers and order are the same everywhere. */
    output_prepare();
    log_set_sink(sink_stderr);
    code = run(&ctl, argc, argv);
    ctl_done(&ctl);
    if (!output_finish() && code == CTL_EXIT_DONE)
        code = CTL_EXIT_FAILED;
    return code;
}
