/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd tells by itself: ends of jobs, changes of state, reloads. A signal notes a fact of one of our
 * units, and nothing else; those of the host's other units are dropped after a look at their name. */
#include <config.h>

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/agent_internal.h"

#define SYSTEMD   "org.freedesktop.systemd1"
#define UNIT_PATH "/org/freedesktop/systemd1/unit"

/* On a bus anybody may send us a signal. */
static bool is_from_systemd(const struct agent *agent, sd_bus_message *m)
{
    const char *sender = sd_bus_message_get_sender(m);

    return agent->direct || (agent->owner != NULL && sender != NULL && streq(sender, agent->owner));
}

/* systemd's words for how a job ended (org.freedesktop.systemd1(5)), for people. */
static const char *result_text(const char *result)
{
    static const struct {
        const char *result, *text;
    } map[] = {
        {"canceled", " (it was stopped meanwhile)"},
        {"dependency", " (a unit that it requires did not start)"},
        {"timeout", " (it took too long)"},
        {"unsupported", " (systemd on this host does not support this type of unit)"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (streq(result, map[i].result))
            return map[i].text;
    return "";
}

static void start_job_removed(struct agent *agent, struct local_unit *unit, const char *result)
{
    _cleanup_(freep) char *error = NULL;

    if (!streq(result, "done")) {
        error = xasprintf("its start job ended with '%s'%s", result, result_text(result));
        agent_unit_log(unit, LOG_WARNING, "%s", error);
        agent_unit_set_error(agent, unit, error);
        if (result_text(result)[0] == '\0' || streq(result, "timeout"))
            agent_why_ask(agent, unit, unit->asked_us);
    }
    if (!unit->signalled) /* It was active already: nothing has told us its states. */
        unit->known = false;
    agent_unit_finish(agent, unit, unit->job_generation, result);
}

static int on_job_removed(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct agent *agent = data;
    const char *path, *name, *result;
    struct local_unit *unit;
    enum agent_job job;
    uint32_t id;

    if (!is_from_systemd(agent, m) || sd_bus_message_read(m, "uoss", &id, &path, &name, &result) < 0)
        return 0;
    unit = agent_find(agent, name);
    if (unit == NULL || unit->job == AGENT_JOB_NONE || unit->job_id != id)
        return 0;
    job = unit->job;
    unit->job = AGENT_JOB_NONE;
    unit->job_id = 0;
    if (unit->busy && streq(result, "canceled"))
        ; /* Our own next job has taken its place. */
    else if (job == AGENT_JOB_START)
        start_job_removed(agent, unit, result);
    else if (!streq(result, "done"))
        agent_unit_fail(agent, unit, "stop", result);
    agent_unit_touch(agent, unit);
    return 0;
}

/* What PropertiesChanged says of a unit's state: NULL for what it leaves out; valid as long as the message
 * is. Returns whether it could be read to its end. */
static bool read_states(sd_bus_message *m, const char **ret_active, const char **ret_sub)
{
    const char *name, *value;

    *ret_active = *ret_sub = NULL;
    if (sd_bus_message_skip(m, "s") < 0 || sd_bus_message_enter_container(m, 'a', "{sv}") < 0)
        return false;
    while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
        if (sd_bus_message_read(m, "s", &name) < 0)
            return false;
        if (streq(name, "ActiveState") && sd_bus_message_read(m, "v", "s", &value) >= 0)
            *ret_active = value;
        else if (streq(name, "SubState") && sd_bus_message_read(m, "v", "s", &value) >= 0)
            *ret_sub = value;
        else if (sd_bus_message_skip(m, "v") < 0)
            return false;
        if (sd_bus_message_exit_container(m) < 0)
            return false;
    }
    return true;
}

static int on_properties(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    _cleanup_(freep) char *name = NULL;
    struct agent *agent = data;
    struct local_unit *unit;
    const char *active, *sub;
    bool is_keeper, whole;

    if (!is_from_systemd(agent, m) || sd_bus_path_decode(sd_bus_message_get_path(m), UNIT_PATH, &name) <= 0)
        return 0;
    is_keeper = streq(name, AGENT_KEEPER_UNIT);
    unit = is_keeper ? NULL : agent_find(agent, name);
    if (!is_keeper && unit == NULL)
        return 0;
    whole = read_states(m, &active, &sub);
    if (is_keeper) {
        if (active != NULL)
            agent_lease_keeper_is(agent, active);
        return 0;
    }
    if (active != NULL)
        agent_unit_set_state(agent, unit, unit->active_state, active);
    if (sub != NULL)
        agent_unit_set_state(agent, unit, unit->sub_state, sub);
    if (whole)
        unit->signalled = true;
    agent_unit_touch(agent, unit);
    return 0;
}

/* systemd forgets units that are stopped; and all of them, for a moment, when it reloads. */
static int on_unit_removed(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct agent *agent = data;
    const char *name, *path;
    struct local_unit *unit;

    if (!is_from_systemd(agent, m) || agent->reloading || sd_bus_message_read(m, "so", &name, &path) < 0)
        return 0;
    unit = agent_find(agent, name);
    if (unit == NULL || !unit->known)
        return 0;
    agent_unit_set_inactive(agent, unit);
    agent_unit_touch(agent, unit);
    return 0;
}

/* After a reload, anybody's, units may be loaded otherwise than before: all are looked at, in one call. */
static int on_reloading(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct agent *agent = data;
    int reloading;

    if (!is_from_systemd(agent, m) || sd_bus_message_read(m, "b", &reloading) < 0)
        return 0;
    agent->reloading = reloading;
    if (!reloading)
        agent_check_all(agent);
    return 0;
}

/* On a bus: systemd has executed itself anew. */
static int on_owner_changed(sd_bus_message *m, void *data, sd_bus_error *ret_error)
{
    struct agent *agent = data;

    bus_fail(agent->bus, "systemd has left the bus");
    return 0;
}

static int match_all(struct agent *agent, sd_bus *sd)
{
    static const struct {
        const char *rule; /* A bus also gets the sender. */
        sd_bus_message_handler_t handler;
    } rules[] = {
        {"interface='" SYSTEMD ".Manager',member='JobRemoved'", on_job_removed},
        {"interface='" SYSTEMD ".Manager',member='UnitRemoved'", on_unit_removed},
        {"interface='" SYSTEMD ".Manager',member='Reloading'", on_reloading},
        {"interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path_namespace='" UNIT_PATH
         "',arg0='" SYSTEMD ".Unit'",
         on_properties},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rules) && r >= 0; i++) {
        _cleanup_(freep) char *rule =
            xasprintf("type='signal',%s%s", agent->direct ? "" : "sender='" SYSTEMD "',", rules[i].rule);

        r = sd_bus_add_match_async(sd, &agent->matches[i], rule, rules[i].handler, NULL, agent);
    }
    if (r >= 0 && !agent->direct)
        r = sd_bus_add_match_async(
            sd, &agent->matches[ARRAY_SIZE(rules)],
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
            "member='NameOwnerChanged',arg0='" SYSTEMD "'",
            on_owner_changed, NULL, agent);
    return r;
}

/* Matches first, then the subscription, then (agent_attached()) the states: no change can fall between them,
 * because a connection keeps its order. */
static void on_open(sd_bus *sd, bool direct, void *data)
{
    struct agent *agent = data;
    int r;

    agent->sd = sd;
    agent->direct = direct;
    r = match_all(agent, sd);
    if (r < 0) {
        bus_fail(agent->bus, strerror(-r));
        return;
    }
    agent_call_subscribe(agent);
}

void agent_detach(struct agent *agent)
{
    for (size_t i = 0; i < ARRAY_SIZE(agent->matches); i++)
        agent->matches[i] = sd_bus_slot_unref(agent->matches[i]);
    agent_calls_drop(agent);
    free(TAKE_PTR(agent->owner));
    agent->sd = NULL;
    agent->reloading = false;
}

static void on_lost(const char *why, void *data)
{
    agent_detach(data);
    agent_lost(data, why);
}

const struct bus_callbacks agent_bus_callbacks = {.on_open = on_open, .on_lost = on_lost};
