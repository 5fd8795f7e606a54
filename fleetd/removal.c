/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/removal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"

static void on_uplink_closed(void *data)
{
}

static void stop_share(struct daemon *daemon)
{
    struct err err = {0};
    int r = agent_want(daemon->agent, NULL, 0, NULL, 0, true, &err);

    if (r < 0)
        log_error("Cannot stop what this host has of the cluster's units: %s", err_text(&err, r));
}

void removal_heard(struct daemon *daemon)
{
    struct err err = {0};
    int r;

    if (daemon->member.removed)
        return;
    daemon->member.removed = true;
    r = member_save(daemon->config.data_dir, &daemon->member, &err);
    if (r < 0) /* It will hear it again. */
        log_warn("%s", err_text(&err, r));
    log_message(LOG_WARNING, log_fields(MESSAGE_REMOVED),
                "This host was removed from its cluster: it stops what it has of the cluster's units");
    uplink_close(TAKE_PTR(daemon->uplink), on_uplink_closed, NULL);
    stop_share(daemon);
    daemon_update_status(daemon);
}

void removal_resume(struct daemon *daemon)
{
    log_warn(
        "This host was removed from its cluster: it goes on stopping what it has of the cluster's units");
    stop_share(daemon);
}

void removal_tick(struct daemon *daemon)
{
    struct err err = {0};
    int r;

    if (!daemon->member.removed || agent_unit_count(daemon->agent) > 0)
        return;
    r = member_forget(daemon->config.data_dir, &err);
    if (r < 0)
        daemon_fatal(daemon, err_text(&err, r));
    log_notice("This host belongs to no cluster any more: fleetd starts anew");
    _exit(EXIT_SUCCESS); /* Restart=always. Nothing is half done: there is nothing left to do. */
}

void removal_describe(const struct daemon *daemon, char *to, size_t size)
{
    snprintf(to, size, "removed from its cluster: %zu units are still to be stopped here",
             agent_unit_count(daemon->agent));
}
