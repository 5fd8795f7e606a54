/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/unit_status.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/str.h"
#include "fleetd/api_json.h"
#include "fleetd/bus.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define OBJECT  "/org/freedesktop/systemd1"
#define MANAGER SYSTEMD ".Manager"

#define TEXT_MAX      512u /* Bytes of one text... */
#define LIST_MAX      8u   /* ...and texts of one list that are shown. */
#define PROCESSES_MAX 64u

/* What is shown, by the names that systemd and our API have for it (org.freedesktop.systemd1(5)). */
static const struct row {
    const char *property, *signature, *key;
} rows[] = {
    {"Id", "s", "id"},
    {"Description", "s", "description"},
    {"LoadState", "s", "loadState"},
    {"LoadError", "(ss)", "loadError"},
    {"ActiveState", "s", "activeState"},
    {"SubState", "s", "subState"},
    {"UnitFileState", "s", "unitFileState"},
    {"FragmentPath", "s", "fragmentPath"},
    {"DropInPaths", "as", "dropInPaths"},
    {"Documentation", "as", "documentation"},
    {"Triggers", "as", "triggers"},
    {"TriggeredBy", "as", "triggeredBy"},
    {"NeedDaemonReload", "b", "needDaemonReload"},
    {"InvocationID", "ay", "invocationID"},
    {"StateChangeTimestamp", "t", "stateChangeTimestamp"},
    {"ActiveEnterTimestamp", "t", "activeEnterTimestamp"},
    {"ActiveExitTimestamp", "t", "activeExitTimestamp"},
    {"InactiveEnterTimestamp", "t", "inactiveEnterTimestamp"},
    {"InactiveExitTimestamp", "t", "inactiveExitTimestamp"},
    {"Result", "s", "result"},
    {"MainPID", "u", "mainPID"},
    {"ControlPID", "u", "controlPID"},
    {"ExecMainPID", "u", "execMainPID"},
    {"ExecMainCode", "i", "execMainCode"},
    {"ExecMainStatus", "i", "execMainStatus"},
    {"ExecMainStartTimestamp", "t", "execMainStartTimestamp"},
    {"ExecMainExitTimestamp", "t", "execMainExitTimestamp"},
    {"StatusText", "s", "statusText"},
    {"NRestarts", "u", "restarts"},
    {"TasksCurrent", "t", "tasks"},
    {"TasksMax", "t", "tasksMax"},
    {"MemoryCurrent", "t", "memory"},
    {"CPUUsageNSec", "t", "cpuNSec"},
    {"ControlGroup", "s", "controlGroup"},
    {"NextElapseUSecRealtime", "t", "nextElapse"},
    {"NConnections", "u", "connections"},
    {"NAccepted", "u", "accepted"},
    {"Where", "s", "where"},
    {"What", "s", "what"},
};

/* ---- values ---- */

/* Cut to TEXT_MAX; D-Bus has made sure that it is UTF-8, and what the cut breaks is shown as U+FFFD. */
static json_t *text_json(const char *text)
{
    _cleanup_(freep) char *copy = xstrndup(text, TEXT_MAX);

    return api_json_text(copy);
}

static json_t *read_list(sd_bus_message *m)
{
    json_t *list = json_array();
    const char *text;

    if (sd_bus_message_enter_container(m, 'a', "s") < 0)
        return list;
    while (sd_bus_message_read(m, "s", &text) > 0)
        if (json_array_size(list) < LIST_MAX)
            json_array_append_new(list, text_json(text));
    sd_bus_message_exit_container(m);
    return list;
}

static json_t *read_id(sd_bus_message *m)
{
    const void *id;
    char hex[33];
    size_t size;

    if (sd_bus_message_read_array(m, 'y', &id, &size) < 0 || size != sizeof hex / 2)
        return NULL;
    id_to_hex(id, size, hex);
    return json_string(hex);
}

/* The value of a variant whose content is 'signature'. NULL: there is none. */
static json_t *read_value(sd_bus_message *m, const char *signature)
{
    const char *text, *more;
    uint64_t big;
    uint32_t number;
    int32_t integer;
    int truth;

    if (streq(signature, "as"))
        return read_list(m);
    if (streq(signature, "ay"))
        return read_id(m);
    switch (signature[0]) {
    case 's': return sd_bus_message_read(m, "s", &text) > 0 && text[0] != '\0' ? text_json(text) : NULL;
    case 'b': return sd_bus_message_read(m, "b", &truth) > 0 ? json_boolean(truth) : NULL;
    case 'u': return sd_bus_message_read(m, "u", &number) > 0 ? json_integer(number) : NULL;
    case 'i': return sd_bus_message_read(m, "i", &integer) > 0 ? json_integer(integer) : NULL;
    case 't': /* All ones: not set, or not known. */
        return sd_bus_message_read(m, "t", &big) > 0 && big <= INT64_MAX ? json_integer((json_int_t)big)
                                                                         : NULL;
    case '(':
        return sd_bus_message_read(m, "(ss)", &text, &more) > 0 && text[0] != '\0'
                   ? text_json(more[0] != '\0' ? more : text)
                   : NULL;
    default: return NULL;
    }
}

static const struct row *find_row(const char *property, const char *signature)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (streq(rows[i].property, property) && streq(rows[i].signature, signature))
            return &rows[i];
    return NULL;
}

static int read_property(sd_bus_message *m, json_t *unit)
{
    const char *property, *signature;
    const struct row *row;
    json_t *value;
    char type;
    int r = sd_bus_message_read(m, "s", &property);

    if (r >= 0)
        r = sd_bus_message_peek_type(m, &type, &signature);
    if (r < 0)
        return r;
    row = find_row(property, signature);
    if (row == NULL)
        return sd_bus_message_skip(m, "v");
    r = sd_bus_message_enter_container(m, 'v', signature);
    if (r < 0)
        return r;
    value = read_value(m, signature);
    if (value != NULL)
        json_object_set_new(unit, row->key, value);
    return sd_bus_message_exit_container(m);
}

/* ---- calls ---- */

static int call_failed(struct err *err, int r, const sd_bus_error *error)
{
    return err_set(err, r, "its systemd does not say: %s",
                   error->message != NULL && error->message[0] != '\0' ? error->message : strerror(-r));
}

static int read_interface(sd_bus *bus, const char *path, const char *interface, json_t *unit, struct err *err)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int r = sd_bus_call_method(bus, SYSTEMD, path, "org.freedesktop.DBus.Properties", "GetAll", &error, &m,
                               "s", interface);

    if (r < 0)
        return call_failed(err, r, &error);
    r = sd_bus_message_enter_container(m, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = read_property(m, unit);
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r < 0 ? err_set(err, r, "what its systemd says makes no sense") : 0;
}

/* "org.freedesktop.systemd1.Service" for "a.service". */
static char *interface_of(const char *unit)
{
    const char *dot = strrchr(unit, '.');

    if (dot == NULL || dot[1] == '\0')
        return NULL;
    return xasprintf(SYSTEMD ".%c%s", toupper((unsigned char)dot[1]), dot + 2);
}

/* A unit that has no processes of its own has no such list: that is no error. */
static void read_processes(sd_bus *bus, const char *unit, size_t max_bytes, json_t *answer)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    json_t *list = json_array();
    size_t left_out = 0, bytes = 0;
    const char *path, *command;
    uint32_t pid;

    if (sd_bus_call_method(bus, SYSTEMD, OBJECT, MANAGER, "GetUnitProcesses", NULL, &m, "s", unit) >= 0 &&
        sd_bus_message_enter_container(m, 'a', "(sus)") >= 0)
        while (sd_bus_message_read(m, "(sus)", &path, &pid, &command) > 0) {
            json_t *process;

            if (json_array_size(list) >= PROCESSES_MAX || bytes > max_bytes) {
                left_out++;
                continue;
            }
            process = json_object();
            json_object_set_new(process, "path", text_json(path));
            json_object_set_new(process, "pid", json_integer(pid));
            json_object_set_new(process, "command", text_json(command));
            bytes += api_json_size(process) + 1;
            json_array_append_new(list, process);
        }
    json_object_set_new(answer, "processes", list);
    if (left_out > 0)
        api_json_set_count(answer, "processesLeftOut", left_out);
}

static int read_unit(sd_bus *bus, const char *unit, json_t *properties, struct err *err)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(freep) char *interface = interface_of(unit);
    const char *path;
    int r = sd_bus_call_method(bus, SYSTEMD, OBJECT, MANAGER, "LoadUnit", &error, &m, "s", unit);

    if (r >= 0)
        r = sd_bus_message_read(m, "o", &path);
    if (r < 0)
        return call_failed(err, r, &error);
    r = read_interface(bus, path, SYSTEMD ".Unit", properties, err);
    if (r >= 0 && interface != NULL)
        r = read_interface(bus, path, interface, properties, err);
    return r;
}

int unit_status_read(const char *unit, bool user, size_t max_bytes, json_t **ret, struct err *err)
{
    _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
    _cleanup_(api_json_decrefp) json_t *answer = json_object();
    json_t *properties = json_object();
    int r = bus_open(user, &bus);

    json_object_set_new(answer, "unit", properties);
    if (r < 0)
        return err_set(err, r, "its systemd cannot be reached: %s", strerror(-r));
    sd_bus_set_method_call_timeout(bus, UNIT_STATUS_MS * 1000);
    r = read_unit(bus, unit, properties, err);
    if (r < 0)
        return r;
    read_processes(bus, unit, max_bytes / 2, answer);
    *ret = TAKE_PTR(answer);
    return 0;
}
