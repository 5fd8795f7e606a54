/* SPDX-License-Identifier: Apache-2.0 */
/* help, version. */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

#define TAB_COLUMN     8
#define SUMMARY_COLUMN 28 /* A tab, 19 for the command, a blank. */

int verb_version(struct ctl *ctl, const struct strlist *args)
{
    printf("fleetctl version %s\n", PACKAGE_VERSION);
    return CTL_EXIT_DONE;
}

static void print_root(void)
{
    printf("NAME:\n\tfleetctl - control the units of a fleet cluster\n\n"
           "USAGE:\n\tfleetctl [OPTION...] COMMAND [ARGUMENT...]\n\n"
           "VERSION:\n\t%s\n\nCOMMANDS:\n",
           PACKAGE_VERSION);
    for (size_t i = 0; i < verb_count; i++) {
        printf("\t%-19s ", verbs[i].name);
        print_wrapped(verbs[i].summary, SUMMARY_COLUMN, SUMMARY_COLUMN);
    }
    printf("\nOPTIONS:\n");
    options_print_help(OPTION_GLOBAL);
    printf("\n\tfleetctl help COMMAND says more about a command, and has all options.\n"
           "\tEach of these has its environment variable: FLEETCTL_ENDPOINT, ...\n");
}

static void print_verb(const struct verb *verb)
{
    const size_t title_size = (size_t)printf("NAME:\n\tfleetctl %s - ", verb->name) - strlen("NAME:\n\t");

    print_wrapped(verb->summary, TAB_COLUMN + title_size, TAB_COLUMN);
    printf("\nUSAGE:\n\tfleetctl %s [OPTION...] %s\n\nDESCRIPTION:\n\t", verb->name, verb->args);
    print_wrapped(verb->detail != NULL ? verb->detail : verb->summary, TAB_COLUMN, TAB_COLUMN);
    printf("\n");
    if (verb->options != 0) {
        printf("OPTIONS:\n");
        options_print_help(verb->options);
        printf("\n");
    }
    printf("GLOBAL OPTIONS:\n");
    options_print_help(OPTION_EVERYWHERE);
}

int verb_help(struct ctl *ctl, const struct strlist *args)
{
    const struct verb *verb;
    struct err err = {0};

    if (args->count == 0) {
        print_root();
        return CTL_EXIT_DONE;
    }
    verb = verb_find(args->items[0], &err);
    if (verb == NULL) {
        complain("Unknown help topic [`%s`]. (fleetctl help lists the commands)", args->items[0]);
        return CTL_EXIT_USAGE;
    }
    print_verb(verb);
    return CTL_EXIT_DONE;
}
