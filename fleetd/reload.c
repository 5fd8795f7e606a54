/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/daemon_private.h"
#include "fleetd/http_listen.h"
#include "fleetd/messages.h"

/* Files, the user data base and the kernel's routes are asked in a thread: any of them may take its time. */
struct reload {
    uv_work_t work;
    struct daemon *daemon;
    bool again; /* Another SIGHUP came: what was read may be older than that. */
    int status;
    struct err err;
    struct config config;
    int identity_status;
    struct err identity_err;
    struct identity identity;
    gid_t group;
};

static void read_all(uv_work_t *work)
{
    struct reload *reload = CONTAINER_OF(work, struct reload, work);

    reload->status = config_load_strict(reload->daemon->config_file, &reload->config, &reload->err);
    if (reload->status < 0)
        return;
    reload->identity_status =
        identity_read(reload->config.public_ip, &reload->identity, &reload->identity_err);
    reload->group = http_find_group(reload->config.api_socket_group);
}

/* ---- what has changed ---- */

static bool differs(const struct config *a, const struct config *b, const char *key)
{
    _cleanup_(freep) char *x = config_get(a, key), *y = config_get(b, key);

    return !streq(x, y);
}

static void keep(const struct config *from, struct config *to, const char *key)
{
    _cleanup_(freep) char *value = config_get(from, key);
    int r = config_set(to, key, value, NULL);

    if (r < 0)
        log_error("%s cannot keep its value: %s", key, strerror(-r));
}

/* What waits for the next start stays as it is, with a line for each. Returns the keys that are to be
 * applied. */
static void sort_out(struct daemon *daemon, struct config *fresh, struct strlist *changed)
{
    for (size_t i = 0; config_key(i) != NULL; i++) {
        const struct config_key *key = config_key(i);
        _cleanup_(freep) char *now = NULL, *then = NULL;

        if (!differs(&daemon->config, fresh, key->name))
            continue;
        if (key->live) {
            strlist_add(changed, key->name);
            continue;
        }
        now = config_get(&daemon->config, key->name);
        then = config_get(fresh, key->name);
        log_message(LOG_WARNING, log_fields(MESSAGE_NEEDS_RESTART),
                    "%s = %s takes effect when fleetd is restarted; until then it is \"%s\"", key->name, then,
                    now);
        keep(&daemon->config, fresh, key->name);
    }
}

/* ---- applying it ---- */

/* A place that cannot be had stays in the configuration as it was: the next reload tries again. */
static void apply_listeners(struct daemon *daemon, const struct config *before, gid_t group)
{
    struct config *config = &daemon->config;
    struct err err = {0};
    int r;

    /* Also where nothing has changed: somebody may have removed the file, or freed the address. */
    r = listeners_set_socket(daemon->listeners, config->api_socket, group, config->api_socket_others, &err);
    if (r < 0) {
        log_error("The API stays at \"%s\": %s", before->api_socket, err_text(&err, r));
        keep(before, config, "api_socket");
        keep(before, config, "api_socket_group");
        keep(before, config, "api_socket_others");
    }
    err = (struct err){0};
    r = listeners_set_address(daemon->listeners, config->api_listen, &err);
    if (r < 0) {
        log_error("The API's address stays \"%s\": %s", before->api_listen, err_text(&err, r));
        keep(before, config, "api_listen");
    }
}

static void report(const struct strlist *changed)
{
    struct strbuf names = {0};

    for (size_t i = 0; i < changed->count; i++)
        strbuf_addf(&names, "%s%s", i > 0 ? ", " : "", changed->items[i]);
    if (changed->count > 0)
        log_message(LOG_NOTICE, log_fields(MESSAGE_RELOADED), "The configuration was read again; changed: %s",
                    names.text);
    else
        log_message(LOG_NOTICE, log_fields(MESSAGE_RELOADED),
                    "The configuration was read again; nothing to change");
    strbuf_done(&names);
}

static void apply(struct daemon *daemon, struct reload *reload)
{
    struct config before = daemon->config;
    struct strlist changed = {0};

    sort_out(daemon, &reload->config, &changed);
    daemon->config = reload->config;
    reload->config = (struct config){0};
    log_set_debug(daemon->config.verbosity > 0);
    apply_listeners(daemon, &before, reload->group);
    if (strlist_has(&changed, "voters") && daemon->is_member)
        daemon->voters_to_tell = daemon->config.voters;
    hosting_describe(daemon); /* It borrows from the configuration. */
    if (reload->identity_status < 0)
        log_warn("Unable to refresh machine state: %s",
                 err_text(&reload->identity_err, reload->identity_status));
    else
        hosting_refresh(daemon, &reload->identity);
    hosting_announce(daemon);
    leading_set_ttl(daemon);
    leading_set_placing(daemon);
    going_down_configure(daemon->going_down);
    if (daemon->api != NULL)
        api_set_token_limit(daemon->api, daemon->config.token_limit);
    membership_reconsider(daemon, &changed);
    if (daemon->uplink != NULL)
        cluster_tell_members(daemon);
    daemon_update_status(daemon);
    report(&changed);
    strlist_done(&changed);
    config_done(&before);
}

/* ---- life of a reload ---- */

static void refuse(const char *why)
{
    _cleanup_(freep) char *reason = xasprintf("FLEET_REASON=%s", why);

    log_message(LOG_ERR, log_fields(MESSAGE_RELOAD_REFUSED, reason), "The configuration stays as it was: %s",
                why);
}

static void start(struct daemon *daemon);

static void on_read(uv_work_t *work, int status)
{
    struct reload *reload = CONTAINER_OF(work, struct reload, work);
    struct daemon *daemon = reload->daemon;
    bool read = status == 0 && reload->status >= 0, again = reload->again;

    daemon->reload = NULL;
    if (!daemon->stopping && !again && read)
        apply(daemon, reload);
    else if (!daemon->stopping && !again)
        refuse(err_text(&reload->err, reload->status));
    if (read) {
        config_done(&reload->config);
        if (reload->identity_status >= 0)
            identity_done(&reload->identity);
    }
    free(reload);
    if (daemon->stopping)
        return;
    if (again)
        start(daemon);
    else if (daemon->ready)
        sd_notify(0, "READY=1");
}

static void start(struct daemon *daemon)
{
    struct reload *reload = NEW0(struct reload);

    reload->daemon = daemon;
    daemon->reload = reload;
    uv_queue_work(daemon->loop, &reload->work, read_all, on_read);
}

void reload_begin(struct daemon *daemon)
{
    log_info("Reloading configuration from %s",
             daemon->config_file != NULL ? daemon->config_file : CONFIG_FILE_DEFAULT);
    if (daemon->ready) /* sd_notify(3): together, so that systemd knows which reload this is. */
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(uv_hrtime() / 1000));
    if (daemon->reload != NULL)
        daemon->reload->again = true;
    else
        start(daemon);
}

void reload_cancel(struct daemon *daemon)
{
    if (daemon->reload != NULL) /* Too late for one that has begun: on_read() drops it. */
        uv_cancel((uv_req_t *)&daemon->reload->work);
}
