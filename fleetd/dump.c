/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "units/state.h"

#define DUMP_MS    5000u /* A reader of stdout that takes longer gets a part of it. */
#define DUMP_PIECE 4096u /* Not above PIPE_BUF: what poll() promises room for. */

struct dump {
    uv_work_t work;
    struct daemon *daemon;
    char *text;
    size_t size;
    int status;
};

/* ---- what is said: the members of the first fleet (fleet-behaviour.md §5.5), and "Fleet", which is ours
 * ---- */

static void add_target(const char *name, enum unit_state desired, void *data)
{
    json_object_set_new(data, name, json_string(unit_state_to_string(desired)));
}

static json_t *unit_state(const struct daemon *daemon, const char *name, const char *load, const char *active,
                          const char *sub, const char *hash)
{
    if (*load == '\0') /* systemd was not asked yet. */
        return json_null();
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "LoadState", load, "ActiveState", active, "SubState", sub,
                     "MachineID", daemon->identity.machine_id, "UnitHash", hash, "UnitName", name);
}

struct collection {
    const struct daemon *daemon;
    json_t *cache, *subscribed;
};

static void add_report(const struct agent_report *report, void *data)
{
    struct collection *to = data;

    json_object_set_new(to->cache, report->name,
                        unit_state(to->daemon, report->name, report->load_state, report->active_state,
                                   report->sub_state, report->hash));
    json_array_append_new(to->subscribed, json_string(report->name));
}

static json_t *to_publish(const struct daemon *daemon)
{
    json_t *object = json_object();

    for (size_t i = 0; i < daemon->reports.count; i++) {
        const Fleet__UnitReport *report = daemon->reports.items[i];

        json_object_set_new(object, report->name,
                            report->gone ? json_null()
                                         : unit_state(daemon, report->name, report->load_state,
                                                      report->active_state, report->sub_state, report->hash));
    }
    return object;
}

static json_t *configuration(const struct daemon *daemon)
{
    json_t *object = json_object();

    for (size_t i = 0; config_key(i) != NULL; i++) {
        _cleanup_(freep) char *value = config_get(&daemon->config, config_key(i)->name);
        bool hidden = config_key(i)->secret && *value != '\0';

        json_object_set_new(object, config_key(i)->name, json_string(hidden ? "(secret)" : value));
    }
    return object;
}

static void add_place(const char *place, void *data)
{
    json_array_append_new(data, json_string(place));
}

static char *describe(struct daemon *daemon)
{
    struct collection collection = {.daemon = daemon, .cache = json_object(), .subscribed = json_array()};
    _cleanup_(freep) char *status = hosting_status_json(daemon), *line = NULL;
    json_t *targets = json_object(), *places = json_array(), *root;

    agent_each(daemon->agent, add_report, &collection);
    agent_wanted_each(daemon->agent, add_target, targets);
    listeners_each(daemon->listeners, add_place, places);
    root = json_pack("{s:{s:{s:o}},s:{s:o,s:o},s:{s:o},s:{s:o,s:o,s:o,s:s}}", "Agent", "Cache",
                     "TargetStates", targets, "UnitStatePublisher", "Cache", collection.cache, "ToPublish",
                     to_publish(daemon), "UnitStateGenerator", "Subscribed", collection.subscribed, "Fleet",
                     "Status", json_loads(status, 0, NULL), "Config", configuration(daemon), "Listening",
                     places, "Summary", daemon->status);
    line = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return xasprintf("%s\n", line != NULL ? line : "{}");
}

/* ---- saying it: in a thread, since stdout may be a pipe that nobody reads ---- */

static int write_piece(const char *text, size_t size, uint64_t deadline_ms)
{
    struct pollfd poll_fd = {.fd = STDOUT_FILENO, .events = POLLOUT};
    uint64_t now = now_ms();
    ssize_t n;
    int r;

    if (now >= deadline_ms)
        return -ETIMEDOUT;
    r = poll(&poll_fd, 1, (int)(deadline_ms - now));
    if (r <= 0)
        return r < 0 && errno != EINTR ? -errno : 0;
    n = write(STDOUT_FILENO, text, size < DUMP_PIECE ? size : DUMP_PIECE);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    return (int)n;
}

static void write_all(uv_work_t *work)
{
    struct dump *dump = CONTAINER_OF(work, struct dump, work);
    uint64_t deadline_ms = now_ms() + DUMP_MS;
    size_t done = 0;

    while (done < dump->size && dump->status == 0) {
        int n = write_piece(dump->text + done, dump->size - done, deadline_ms);

        if (n < 0)
            dump->status = n;
        else
            done += (size_t)n;
    }
}

static void on_written(uv_work_t *work, int status)
{
    struct dump *dump = CONTAINER_OF(work, struct dump, work);

    if (dump->status < 0)
        log_warn("The state could not be written to stdout: %s", strerror(-dump->status));
    dump->daemon->dump = NULL;
    free(dump->text);
    free(dump);
}

void dump_begin(struct daemon *daemon)
{
    struct dump *dump;

    if (daemon->dump != NULL) {
        log_warn("The state is still being written to stdout: asking again changes nothing");
        return;
    }
    log_info("Dumping server state");
    dump = NEW0(struct dump);
    dump->daemon = daemon;
    dump->text = describe(daemon);
    dump->size = strlen(dump->text);
    daemon->dump = dump;
    uv_queue_work(daemon->loop, &dump->work, write_all, on_written);
}
