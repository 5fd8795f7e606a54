/* SPDX-License-Identifier: Apache-2.0 */
/* GET /status/NAME and GET /journal/NAME: what hosts themselves say of a unit. The hosts that have it are
 * asked at once; the answer is put together when all have answered, or, for a journal that is followed, when
 * one of them has something new. A host that does not answer is named in the answer, with the reason. What
 * hosts say is not believed: sizes and types are checked, and everything else is only passed on.
 *
 * A place in the journals of several machines is "MACHINE:PLACE,MACHINE:PLACE...", each as sd-journal has it.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

#define ASK_MS        6000u /* What a host may take for its answer. */
#define STATUS_LINES  10
#define JOURNAL_LINES 10
#define ANSWER_MAX    (FRAME_MAX / 4 * 3) /* Of all of them, on its way to who asked. */
#define ANSWER_BYTES  (32u * 1024)        /* Of each host at least. */

struct asked {
    struct api_hosts *hosts;
    char machine_id[MACHINE_ID_SIZE];
    uint64_t id;      /* Of the question, 0: it is not open (any more). */
    const char *from; /* The place to go on from; "": none. Borrowed from 'cursors'. */
    json_t *answer;   /* NULL: none. */
    char *error;      /* Why there is none; NULL: none was wanted yet. */
};

/* One request. */
struct api_hosts {
    struct api_request *request;
    Fleet__HostQuestion question;
    struct asked *asked;
    size_t count, capacity, pending, left_out;
    struct strlist cursors; /* As they were given: machine id, place, machine id, place... */
    uint64_t lines, wait_ms;
    bool all_fields;
    bool asking;                   /* Answers that come meanwhile wait for the last question. */
    struct api_hosts *prev, *next; /* Of those that follow a journal: wait_ms > 0. */
};

static void hosts_free(void *data)
{
    struct api_hosts *hosts = data;
    struct api *api = hosts->request->api;

    if (hosts->wait_ms > 0)
        DL_DELETE(api->following, hosts);
    for (size_t i = 0; i < hosts->count; i++) {
        struct asked *asked = &hosts->asked[i];

        if (asked->id != 0)
            api->backend.ask_cancel(asked->id, api->data);
        json_decref(asked->answer);
        free(asked->error);
    }
    free(hosts->asked);
    strlist_done(&hosts->cursors);
    free(hosts);
}

/* ---- who has it ---- */

/* Also one that is lost and had it: it may run there still. */
static bool concerns(const struct api_request *request, const struct registry_unit *unit,
                     const char *machine_id)
{
    const struct core *core = api_core(request);

    if (core_machine_wants(core, machine_id, unit) || core_report(core, machine_id, unit->name) != NULL)
        return true;
    return core_machine_state(core, machine_id) == MACHINE_LOST && unit->desired != UNIT_STATE_INACTIVE &&
           (core_machine_had(core, machine_id, unit->name) || strlist_has(&unit->former, machine_id));
}

static const char *cursor_of(const struct api_hosts *hosts, const char *machine_id)
{
    for (size_t i = 0; i + 1 < hosts->cursors.count; i += 2)
        if (streq(hosts->cursors.items[i], machine_id))
            return hosts->cursors.items[i + 1];
    return "";
}

static bool is_meant(const struct api_hosts *hosts, const char *machine_id)
{
    const char *only = api_query(hosts->request, "machineID");

    return only[0] == '\0' || streq(only, machine_id);
}

static void add_hosts(struct api_hosts *hosts, const struct registry_unit *unit)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(hosts->request), &count);

    for (size_t i = 0; i < count; i++) {
        struct asked *asked;

        if (!is_meant(hosts, machines[i]->id) || !concerns(hosts->request, unit, machines[i]->id))
            continue;
        if (hosts->count >= API_HOSTS_ASKED_MAX) {
            hosts->left_out++;
            continue;
        }
        GROW(hosts->asked, hosts->capacity, hosts->count + 1);
        asked = &hosts->asked[hosts->count++];
        *asked = (struct asked){.hosts = hosts, .from = cursor_of(hosts, machines[i]->id)};
        memcpy(asked->machine_id, machines[i]->id, sizeof asked->machine_id);
    }
}

/* ---- asking ---- */

static void hosts_answer(struct api_hosts *hosts);

static bool has_entries(const struct asked *asked)
{
    return json_array_size(json_object_get(asked->answer, "entries")) > 0;
}

/* Whether the request can be answered: all have answered, or one has something new to somebody who waits for
 * it. A machine that is new to who follows tells its place at once. */
static bool is_complete(const struct api_hosts *hosts)
{
    for (size_t i = 0; i < hosts->count && hosts->wait_ms > 0; i++)
        if (has_entries(&hosts->asked[i]) ||
            (hosts->asked[i].answer != NULL && hosts->asked[i].from[0] == '\0'))
            return true;
    return hosts->pending == 0;
}

static void take_answer(struct asked *asked, const Fleet__HostReply *reply)
{
    json_error_t error = {0};

    if (reply->json.len > HOST_ANSWER_MAX) {
        asked->error =
            xasprintf("its answer has %zu bytes, the limit is %u", reply->json.len, HOST_ANSWER_MAX);
        return;
    }
    asked->answer = json_loadb((const char *)reply->json.data, reply->json.len, 0, &error);
    if (json_is_object(asked->answer))
        return;
    json_decref(asked->answer);
    asked->answer = NULL;
    asked->error =
        xasprintf("its answer makes no sense: %s", error.text[0] != '\0' ? error.text : "no object");
}

static void on_reply(const Fleet__HostReply *reply, const char *why, void *data)
{
    struct asked *asked = data;
    struct api_hosts *hosts = asked->hosts;

    asked->id = 0;
    hosts->pending--;
    if (reply != NULL)
        take_answer(asked, reply);
    else
        asked->error = xstrdup(why);
    /* Whoever follows learns at once that a machine is gone, and asks again for it. */
    if (!hosts->asking && (is_complete(hosts) || (hosts->wait_ms > 0 && asked->error != NULL)))
        hosts_answer(hosts);
}

static char *silence_text(const struct api_hosts *hosts, const char *machine_id, const char *word)
{
    const struct api *api = hosts->request->api;
    uint64_t silent_ms =
        core_machine_silent_ms(api_core(hosts->request), machine_id, api->backend.now_ms(api->data));

    return xasprintf("it does not answer: %s, nothing heard of it for %llu s", word,
                     (unsigned long long)silent_ms / 1000);
}

static void ask_host(struct asked *asked, const char *unit, uint32_t max_bytes)
{
    const struct api_hosts *hosts = asked->hosts;
    const struct api *api = hosts->request->api;
    enum machine_state state = core_machine_state(api_core(hosts->request), asked->machine_id);
    Fleet__HostRequest question = FLEET__HOST_REQUEST__INIT;
    struct err err = {0};

    if (state != MACHINE_READY) {
        asked->error = state == MACHINE_EXPECTED
                           ? xstrdup("it has not called this leader yet")
                           : silence_text(hosts, asked->machine_id, machine_state_to_string(state));
        return;
    }
    question.question = hosts->question;
    question.unit = (char *)unit;
    question.lines = (uint32_t)hosts->lines;
    /* Whoever follows a unit to another machine does not want all that it ever said there. */
    if (hosts->cursors.count > 0 && asked->from[0] == '\0' && hosts->lines > JOURNAL_LINES)
        question.lines = JOURNAL_LINES;
    question.cursor = (char *)asked->from;
    question.wait_ms = hosts->wait_ms;
    question.max_bytes = max_bytes;
    question.all_fields = hosts->all_fields;
    asked->id = api->backend.ask(asked->machine_id, &question, ASK_MS + hosts->wait_ms, on_reply, asked, &err,
                                 api->data);
    if (asked->id == 0)
        asked->error = xstrdup(err_text(&err, -EIO));
}

static void ask_hosts(struct api_hosts *hosts, const struct registry_unit *unit)
{
    size_t share = hosts->count > 0 ? API_HOSTS_ASKED_BYTES_MAX / hosts->count : 0;
    uint32_t max_bytes = share < HOST_ANSWER_MAX ? (uint32_t)share : HOST_ANSWER_MAX;

    _Static_assert(API_HOSTS_ASKED_BYTES_MAX / API_HOSTS_ASKED_MAX >= ANSWER_BYTES, "room for an answer");
    hosts->asking = true;
    for (size_t i = 0; i < hosts->count; i++) {
        ask_host(&hosts->asked[i], unit->name, max_bytes);
        hosts->pending += hosts->asked[i].id != 0;
    }
    hosts->asking = false;
    if (is_complete(hosts))
        hosts_answer(hosts);
}

/* ---- the answer about states ---- */

static json_t *report_json(const struct core_report *report)
{
    json_t *json = json_object();

    api_json_set_text(json, "result", report->result);
    api_json_set_text(json, "error", report->error);
    api_json_set_text(json, "hash", report->hash);
    api_json_set_count(json, "generation", report->generation);
    json_object_set_new(json, "launched", json_boolean(report->launched));
    return json;
}

/* What systemd says, or, where it was not heard, what the agent last reported of it. */
static json_t *unit_json(const struct asked *asked, const struct core_report *report)
{
    json_t *unit = json_object_get(asked->answer, "unit"), *json;

    if (json_is_object(unit))
        return json_incref(unit);
    json = json_object();
    if (report == NULL)
        return json;
    api_json_set_text(json, "loadState", report->load_state);
    api_json_set_text(json, "activeState", report->active_state);
    api_json_set_text(json, "subState", report->sub_state);
    return json;
}

static void copy_member(json_t *to, const struct asked *asked, const char *key)
{
    json_t *value = json_object_get(asked->answer, key);

    if (value != NULL)
        json_object_set(to, key, value);
}

static json_t *machine_json(const struct api_hosts *hosts, const struct asked *asked)
{
    const struct registry_machine *machine =
        registry_machine(api_registry(hosts->request), asked->machine_id);
    json_t *json = json_object();

    api_json_set_text(json, "machineID", asked->machine_id);
    api_json_set_text(json, "hostname", machine != NULL ? machine->hostname : "");
    api_json_set_text(json, "machineIP", machine != NULL ? machine->public_ip : "");
    if (machine != NULL)
        api_json_set_text(json, "machineState", api_machine_state(api_core(hosts->request), machine));
    api_json_set_text(json, "error", asked->error != NULL ? asked->error : "");
    return json;
}

static json_t *status_json(const struct api_hosts *hosts, const struct asked *asked)
{
    const struct core_report *report =
        core_report(api_core(hosts->request), asked->machine_id, hosts->request->name);
    json_t *json = machine_json(hosts, asked);

    json_object_set_new(json, "unit", unit_json(asked, report));
    if (report != NULL)
        json_object_set_new(json, "fleet", report_json(report));
    copy_member(json, asked, "processes");
    copy_member(json, asked, "processesLeftOut");
    copy_member(json, asked, "journal");
    copy_member(json, asked, "journalError");
    return json;
}

/* What the cluster has to say of the unit. */
static json_t *unit_head_json(const struct api_request *request, const struct registry_unit *unit)
{
    _cleanup_(core_status_freep) struct core_status *status =
        core_leads(api_core(request)) ? core_status_new(api_core(request), request->name) : NULL;
    json_t *json = json_object();

    api_json_set_text(json, "name", request->name);
    api_json_set_text(json, "desiredState", unit_state_to_string(unit->desired));
    api_json_set_text(json, "hash", unit->content->hash);
    api_json_set_text(json, "target", unit->target);
    json_object_set_new(json, "global", json_boolean(unit->requirements->global));
    if (status != NULL)
        api_json_set_text(json, "state", unit_outcome_to_string(status->outcome));
    api_json_set_text(json, "reason",
                      status != NULL && status->reason[0] != '\0' ? status->reason : unit->reason);
    return json;
}

static json_t *status_answer(const struct api_hosts *hosts, const struct registry_unit *unit)
{
    json_t *json = unit_head_json(hosts->request, unit), *machines = json_array();

    for (size_t i = 0; i < hosts->count; i++)
        json_array_append_new(machines, status_json(hosts, &hosts->asked[i]));
    api_json_set_array(json, "machines", machines);
    return json;
}

/* ---- the answer about journals ---- */

struct entry {
    json_t *json;
    uint64_t usec;
    size_t order; /* As the hosts had them: what was written at the same time stays so. */
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->usec != y->usec)
        return x->usec < y->usec ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static json_t *merge_entries(const struct api_hosts *hosts)
{
    _cleanup_(freep) struct entry *entries = NULL;
    size_t count = 0, capacity = 0, i;
    json_t *merged = json_array(), *entry;

    for (size_t h = 0; h < hosts->count; h++)
        json_array_foreach(json_object_get(hosts->asked[h].answer, "entries"), i, entry)
        {
            const char *usec = json_string_value(json_object_get(entry, "__REALTIME_TIMESTAMP"));

            if (!json_is_object(entry))
                continue;
            json_object_set_new(entry, "_MACHINE_ID", json_string(hosts->asked[h].machine_id));
            GROW(entries, capacity, count + 1);
            entries[count] = (struct entry){entry, usec != NULL ? strtoull(usec, NULL, 10) : 0, count};
            count++;
        }
    if (count > 1)
        qsort(entries, count, sizeof *entries, compare_entries);
    for (i = 0; i < count; i++)
        json_array_append(merged, entries[i].json);
    return merged;
}

/* Where each machine goes on: where it says, or, if it has not answered, where it was. */
static char *merge_cursors(const struct api_hosts *hosts)
{
    struct strbuf cursors = {0};

    for (size_t i = 0; i < hosts->count; i++) {
        const struct asked *asked = &hosts->asked[i];
        const char *place = json_string_value(json_object_get(asked->answer, "cursor"));

        if (place == NULL || strlen(place) > HOST_CURSOR_MAX || strchr(place, ',') != NULL)
            place = asked->from;
        if (place[0] != '\0')
            strbuf_addf(&cursors, "%s%s:%s", cursors.size > 0 ? "," : "", asked->machine_id, place);
    }
    return strbuf_take(&cursors);
}

static json_t *journal_answer(const struct api_hosts *hosts)
{
    _cleanup_(freep) char *cursor = merge_cursors(hosts);
    json_t *json = json_object(), *machines = json_array();
    bool more = false;

    for (size_t i = 0; i < hosts->count; i++) {
        more = more || json_is_true(json_object_get(hosts->asked[i].answer, "more"));
        json_array_append_new(machines, machine_json(hosts, &hosts->asked[i]));
    }
    api_json_set_text(json, "name", hosts->request->name);
    api_json_set_array(json, "entries", merge_entries(hosts));
    api_json_set_array(json, "machines", machines);
    api_json_set_text(json, "cursor", cursor);
    json_object_set_new(json, "more", json_boolean(more));
    return json;
}

/* ---- requests ---- */

static void hosts_answer(struct api_hosts *hosts)
{
    struct api_request *request = hosts->request;
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    json_t *json;

    if (unit == NULL) { /* Destroyed meanwhile. */
        api_answer_error(request, 404, "unit does not exist");
        return;
    }
    json = hosts->question == FLEET__HOST_QUESTION__HOST_QUESTION_STATUS ? status_answer(hosts, unit)
                                                                         : journal_answer(hosts);
    if (hosts->left_out > 0)
        api_json_set_count(json, "machinesLeftOut", hosts->left_out);
    if (api_json_size(json) > ANSWER_MAX) { /* Numbers may be written shorter than they are printed. */
        json_decref(json);
        api_answer_error(request, 413,
                         "the answers of the hosts are too large together: ask for one machineID");
        return;
    }
    api_answer_json(request, json);
}

static bool is_asked(const struct api_hosts *hosts, const char *machine_id)
{
    for (size_t i = 0; i < hosts->count; i++)
        if (streq(hosts->asked[i].machine_id, machine_id))
            return true;
    return false;
}

/* Whether a machine has it now, or had better be asked now, that was not. */
static bool is_somewhere_else(const struct api_hosts *hosts, const struct registry_unit *unit)
{
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(hosts->request), &count);

    for (size_t i = 0; i < count && hosts->left_out == 0; i++)
        if (concerns(hosts->request, unit, machines[i]->id) && !is_asked(hosts, machines[i]->id) &&
            is_meant(hosts, machines[i]->id))
            return true;
    return false;
}

void api_hosts_look(struct api *api, const char *unit)
{
    struct api_hosts *hosts, *next;

    DL_FOREACH_SAFE (api->following, hosts, next) {
        const struct registry_unit *found;

        if (unit[0] != '\0' && !streq(unit, hosts->request->name))
            continue;
        found = registry_unit(api_registry(hosts->request), hosts->request->name);
        if (found == NULL || is_somewhere_else(hosts, found))
            hosts_answer(hosts);
    }
}

/* A whole number from the query, at most 'max'. */
static int read_number(const struct api_request *request, const char *key, uint64_t otherwise, uint64_t max,
                       uint64_t *ret, struct err *err)
{
    const char *text = api_query(request, key);

    *ret = otherwise;
    if (text[0] == '\0')
        return 0;
    if (strlen(text) > 9 || strspn(text, "0123456789") != strlen(text))
        return err_set(err, -EINVAL, "\"%s\" must be a whole number, not \"%.40s\"", key, text);
    *ret = strtoull(text, NULL, 10);
    if (*ret > max)
        *ret = max;
    return 0;
}

static int read_cursors(struct api_hosts *hosts, struct err *err)
{
    struct strlist pairs = {0};
    int r = 0;

    strlist_add_split(&pairs, api_query(hosts->request, "cursor"), ',');
    for (size_t i = 0; i < pairs.count && r == 0; i++) {
        char *colon = strchr(pairs.items[i], ':');

        if (colon == NULL || colon - pairs.items[i] != MACHINE_ID_SIZE - 1 ||
            strlen(colon + 1) > HOST_CURSOR_MAX || i >= API_HOSTS_ASKED_MAX) {
            r = err_set(err, -EINVAL, "\"cursor\" is not one that this API has given");
            break;
        }
        *colon = '\0';
        strlist_add(&hosts->cursors, pairs.items[i]);
        strlist_add(&hosts->cursors, colon + 1);
    }
    strlist_done(&pairs);
    return r;
}

/* The request's unit, and what is known of the request. NULL: it has been answered. */
static const struct registry_unit *hosts_begin(struct api_request *request, Fleet__HostQuestion question,
                                               struct api_hosts **ret)
{
    const struct registry_unit *unit = registry_unit(api_registry(request), request->name);
    const char *only = api_query(request, "machineID");
    struct api_hosts *hosts;

    if (unit == NULL) {
        api_answer_error(request, 404, "unit does not exist");
        return NULL;
    }
    if (only[0] != '\0' && registry_machine(api_registry(request), only) == NULL) {
        api_answer_error(request, 404, "machine does not exist");
        return NULL;
    }
    hosts = NEW0(struct api_hosts);
    hosts->request = request;
    hosts->question = question;
    request->work = hosts;
    request->work_free = hosts_free;
    *ret = hosts;
    return unit;
}

void api_status_get(struct api_request *request)
{
    struct api_hosts *hosts;
    const struct registry_unit *unit =
        hosts_begin(request, FLEET__HOST_QUESTION__HOST_QUESTION_STATUS, &hosts);
    struct err err = {0};
    int r;

    if (unit == NULL)
        return;
    r = read_number(request, "lines", STATUS_LINES, API_JOURNAL_LINES_MAX, &hosts->lines, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    add_hosts(hosts, unit);
    if (request
            ->stale) /* Without the leader's sessions nobody can be asked: what was reported here must do. */
        hosts_answer(hosts);
    else
        ask_hosts(hosts, unit);
}

void api_journal_get(struct api_request *request)
{
    struct api_hosts *hosts;
    const struct registry_unit *unit =
        hosts_begin(request, FLEET__HOST_QUESTION__HOST_QUESTION_JOURNAL, &hosts);
    struct err err = {0};
    uint64_t wait_ms;
    int r;

    if (unit == NULL)
        return;
    r = read_number(request, "lines", JOURNAL_LINES, API_JOURNAL_LINES_MAX, &hosts->lines, &err);
    if (r >= 0)
        r = read_number(request, "waitMs", 0, API_JOURNAL_WAIT_MS_MAX, &wait_ms, &err);
    if (r >= 0)
        r = read_cursors(hosts, &err);
    if (r < 0) {
        api_answer_failure(request, r, &err);
        return;
    }
    if (request->stale) {
        api_answer_error(request, 503, "no leader: the journals of hosts are read through it");
        return;
    }
    hosts->wait_ms = wait_ms;
    if (wait_ms > 0)
        DL_APPEND(request->api->following, hosts);
    hosts->all_fields = streq(api_query(request, "fields"), "all");
    add_hosts(hosts, unit);
    ask_hosts(hosts, unit);
}
