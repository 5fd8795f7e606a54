/* SPDX-License-Identifier: Apache-2.0 */
/* leave: takes this host out of its cluster, and waits until it has forgotten that it was a member. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/members.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "fleetctl/wait.h"

#define LOOK_MS   200u
#define RETIRE_MS (60 * 1000u) /* Others may have to get all of the data first. */
#define DEADLINE_MS \
    (2 * 60 * 1000u) /* For units to stop (systemd's own limit is 90 s), and fleetd to begin anew. */

/* Who this host is, by its own fleetd; "" for the cluster: it belongs to none. */
static int read_status(struct ctl *ctl, char **ret_cluster, char **ret_machine, struct err *err)
{
    _cleanup_(json_decrefp) json_t *status = NULL;
    int r = api_call(ctl->api, "GET", "status", NULL, 0, &status, err);

    if (r < 0)
        return r;
    *ret_cluster = xstrdup(api_text(status, "cluster"));
    *ret_machine = xstrdup(api_text(status, "machineID"));
    return 0;
}

/* Without any other machine there is no cluster. */
static int check_others(struct ctl *ctl)
{
    _cleanup_(json_decrefp) json_t *list = NULL;
    struct err err = {0};
    int r = ctl_read_all(ctl, "machines?lost=yes", "machines", false, &list, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error leaving the cluster");
    if (json_array_size(list) > 1)
        return CTL_EXIT_DONE;
    complain("This host is the only machine of its cluster, and keeps all of its data: nothing would be left "
             "of it. To give it "
             "up for good, stop fleetd and remove /var/lib/fleet");
    return CTL_EXIT_FAILED;
}

static int drain(struct ctl *ctl, const char *machine)
{
    _cleanup_(json_decrefp)
        json_t *ids = json_pack("[s]", machine),
               *body = json_pack("{s:O, s:s}", "machines", ids, "availability", "draining"), *reply = NULL;
    _cleanup_(strlist_done) struct strlist units = {0};
    const json_t *name;
    struct err err = {0};
    size_t i;
    int r = api_call(ctl->api, "POST", "availability", body, 0, &reply, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error draining this host");
    json_array_foreach(json_object_get(reply, "units"), i, name)
        strlist_add(&units, json_string_value(name) != NULL ? json_string_value(name) : "");
    return units.count > 0 ? wait_until_elsewhere(ctl, &units, ids) : CTL_EXIT_DONE;
}

/* fleetd is not there for a moment when it begins anew. */
static int wait_forgotten(struct ctl *ctl)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    uint64_t deadline = now_ms() + (ctl->options.deadline_ms != 0 ? ctl->options.deadline_ms : DEADLINE_MS);

    for (;;) {
        _cleanup_(freep) char *cluster = NULL, *machine = NULL;
        struct err err = {0};
        int r = read_status(ctl, &cluster, &machine, &err);

        if (r == 0 && cluster[0] == '\0')
            return CTL_EXIT_DONE;
        if (now_ms() >= deadline) {
            complain("The host was removed, but is not done with it yet: see systemctl status fleetd");
            return CTL_EXIT_FAILED;
        }
        nanosleep(&pause, NULL);
    }
}

int verb_leave(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(freep) char *cluster = NULL, *machine = NULL, *path = NULL;
    struct err err = {0};
    int code, r = read_status(ctl, &cluster, &machine, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error leaving the cluster");
    if (cluster[0] == '\0') {
        complain("This host belongs to no cluster");
        return CTL_EXIT_FAILED;
    }
    code = check_others(ctl);
    if (code != CTL_EXIT_DONE)
        return code;
    code = drain(ctl, machine);
    if (code != CTL_EXIT_DONE && !ctl->options.force) {
        complain("This host stays in the cluster, and gets no new units (fleetctl undrain); fleetctl leave "
                 "--force "
                 "leaves nevertheless");
        return code;
    }
    code = members_retire(ctl, machine, true, RETIRE_MS);
    if (code != CTL_EXIT_DONE) {
        members_retire(ctl, machine, false, 0);
        return code;
    }
    path = xasprintf("machines/%s?force=yes",
                     machine); /* What is left of its units is global, or was accepted. */
    r = api_call(ctl->api, "DELETE", path, NULL, 0, NULL, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error leaving the cluster");
    code = wait_forgotten(ctl);
    if (code == CTL_EXIT_DONE)
        printf("This host belongs to no cluster any more\n");
    return code;
}
