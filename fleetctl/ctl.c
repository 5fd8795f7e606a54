/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetctl/output.h"

#define LIST_ITEMS_MAX 10000000 /* Of one collection: a server that never ends its pages is wrong. */

void ctl_done(struct ctl *ctl)
{
    json_decref(ctl->machines);
    api_free(ctl->api);
    options_done(&ctl->options);
}

/* --- Reads --- */

static int read_now(struct ctl *ctl, const char *path, json_t **ret, struct err *err)
{
    _cleanup_(freep) char *stale_path = NULL;
    int r;

    if (ctl->stale)
        path = stale_path = xasprintf("%s%cstale=yes", path, strchr(path, '?') != NULL ? '&' : '?');
    r = api_call(ctl->api, "GET", path, NULL, 0, ret, err);
    if (r == 0 && *ret == NULL)
        return err_set(err, -EBADMSG, "fleetd answered GET /fleet/v1/%s with nothing", path);
    return r;
}

/* Whether to ask again for what this host knows. Only for a cluster without a leader: a host of no cluster
 * knows nothing, and its message says what to do. */
static bool turn_stale(struct ctl *ctl, int r, const struct err *err)
{
    if (r != -EAGAIN || ctl->stale || !str_has_prefix(err->text, "no leader"))
        return false;
    complain("WARNING: %s; what follows is what this host knows, and may be out of date", err->text);
    ctl->stale = true;
    return true;
}

int ctl_read(struct ctl *ctl, const char *path, json_t **ret, struct err *err)
{
    struct err first = {0};
    int r = read_now(ctl, path, ret, &first);

    if (turn_stale(ctl, r, &first))
        return read_now(ctl, path, ret, err);
    return r < 0 ? err_set(err, r, "%s", err_text(&first, r)) : 0;
}

static int read_pages(struct ctl *ctl, const char *resource, const char *key, json_t *items, struct err *err)
{
    _cleanup_(freep) char *token = xstrdup("");
    const char *next;
    int r;

    do {
        _cleanup_(freep) char *escaped = api_escape(token);
        _cleanup_(freep) char *path = token[0] == '\0'
                                          ? xstrdup(resource)
                                          : xasprintf("%s%snextPageToken=%s", resource,
                                                      strchr(resource, '?') != NULL ? "&" : "?", escaped);
        _cleanup_(json_decrefp) json_t *page = NULL;

        r = read_now(ctl, path, &page, err);
        if (r < 0)
            return r;
        if (json_object_get(page, key) != NULL && json_array_extend(items, json_object_get(page, key)) < 0)
            return err_set(err, -EBADMSG, "fleetd's answer to GET /fleet/v1/%s holds no list of %s", path,
                           key);
        next = api_text(page, "nextPageToken");
        if (next[0] != '\0' && streq(next, token))
            return err_set(err, -EBADMSG, "fleetd's pages of /fleet/v1/%s do not go on", resource);
        if (json_array_size(items) > LIST_ITEMS_MAX)
            return err_set(err, -EBADMSG, "fleetd's list /fleet/v1/%s has no end", resource);
        free(token);
        token = xstrdup(next);
    } while (token[0] != '\0');
    return 0;
}

int ctl_read_all(struct ctl *ctl, const char *resource, const char *key, bool may_be_stale, json_t **ret,
                 struct err *err)
{
    _cleanup_(json_decrefp) json_t *items = json_array();
    struct err first = {0};
    int r = read_pages(ctl, resource, key, items, &first);

    if (may_be_stale && turn_stale(ctl, r, &first)) {
        json_array_clear(items); /* Pages from before and after do not fit together. */
        r = read_pages(ctl, resource, key, items, &first);
    }
    if (r < 0)
        return err_set(err, r, "%s", err_text(&first, r));
    *ret = TAKE_PTR(items);
    return 0;
}

/* --- Machines --- */

char *ctl_legend(const struct ctl *ctl, const char *machine_id, const char *ip)
{
    const char *slash = ip[0] != '\0' ? "/" : "";

    if (ctl->options.full)
        return xasprintf("%s%s%s", machine_id, slash, ip);
    return xasprintf("%.8s...%s%s", machine_id, slash, ip);
}

const json_t *ctl_machine(struct ctl *ctl, const char *machine_id)
{
    if (ctl->machines == NULL) {
        _cleanup_(json_decrefp) json_t *list = NULL;
        const json_t *machine;
        size_t i;

        ctl->machines = json_object();
        /* Only addresses are missing if this fails; the list itself was read. */
        if (ctl_read_all(ctl, "machines?lost=yes", "machines", true, &list, NULL) == 0)
            json_array_foreach(list, i, machine)
                json_object_set(ctl->machines, api_text(machine, "id"), (json_t *)machine);
    }
    return json_object_get(ctl->machines, machine_id);
}

int ctl_fail(const struct err *err, int code, const char *format, ...)
{
    _cleanup_(freep) char *prefix = NULL;
    va_list ap;

    if (format != NULL) {
        va_start(ap, format);
        prefix = xvasprintf(format, ap);
        va_end(ap);
    }
    complain("%s%s%s", prefix != NULL ? prefix : "", prefix != NULL ? ": " : "", err_text(err, code));
    return CTL_EXIT_FAILED;
}
