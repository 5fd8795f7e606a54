/* SPDX-License-Identifier: Apache-2.0 */
/* verify: whether fleet will take a unit file, without asking anybody, as systemd-analyze verify does for
 * systemd. (The first fleet's verb of this name checked signatures, and in the end only said that it no
 * longer did.) */
#include <config.h>

#include <errno.h>

#include "base/cleanup.h"
#include "fleetctl/output.h"
#include "fleetctl/source.h"
#include "fleetctl/verbs.h"
#include "units/name.h"
#include "units/requirements.h"

static int verify(const char *arg, struct err *err)
{
    _cleanup_(freep) char *path = unit_name_mangle_path(arg), *name = unit_name_mangle(arg);
    _cleanup_(source_freep) struct source *source = NULL;
    size_t position = 0;
    const char *option;
    int r = unit_name_check(name, err);

    if (r == 0)
        r = source_read(path, &source, err);
    if (r == 0)
        r = source_check(source, err);
    if (r < 0)
        return err_prefix(err, r, "%s", path);
    while ((option = requirements_next_unknown(source->file, &position)) != NULL)
        complain("WARNING: %s: unrecognized requirement in [X-Fleet] section: \"%s\"", path, option);
    return 0;
}

int verb_verify(struct ctl *ctl, const struct strlist *args)
{
    int code = CTL_EXIT_DONE;

    for (size_t i = 0; i < args->count; i++) {
        struct err err = {0};
        int r = verify(args->items[i], &err);

        if (r < 0)
            code = ctl_fail(&err, r, NULL);
    }
    return code;
}
