/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/api-world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

static const struct registry *world_registry(void *data)
{
    return ((struct world *)data)->registry;
}

static const struct core *world_core(void *data)
{
    return &((struct world *)data)->core;
}

static bool world_leads(void *data)
{
    return ((struct world *)data)->leads;
}

static uint64_t world_now(void *data)
{
    return ((struct world *)data)->now_ms;
}

static uint64_t world_wall(void *data)
{
    return world_wall_ms(data);
}

static bool world_secure(void *data)
{
    return ((struct world *)data)->secure;
}

static size_t world_servers(struct store_server *servers, size_t max, void *data)
{
    const struct world *world = data;

    assert_true(max >= 4);
    servers[0] = (struct store_server){.id = 1, .address = "10.0.0.1:7390", .role = SERVER_VOTER};
    servers[1] = (struct store_server){.id = 9, .address = "10.0.0.9:7390", .role = SERVER_STANDBY};
    if (!world->two_voters)
        return 2;
    servers[2] = (struct store_server){.id = 2, .address = "10.0.0.2:7390", .role = SERVER_VOTER};
    if (!world->silent_voter)
        return 3;
    servers[3] = (struct store_server){
        .id = 3, .address = "10.0.0.3:7390", .role = SERVER_VOTER, .silent_ms = UINT64_MAX};
    return 4;
}

static uint64_t world_leader(void *data)
{
    return ((struct world *)data)->no_leader ? 0 : 1;
}

/* All are there; those with a server take part as world_servers() says. */
static const struct voters_facts *world_voters(void *data)
{
    struct world *world = data;
    size_t count;
    const struct registry_machine *const *machines = registry_machines(world->registry, &count);

    if (!world->leads)
        return NULL;
    world->facts = (struct voters_facts){.servers = world->servers,
                                         .server_count = world_servers(world->servers, 8, world),
                                         .machines = world->voters,
                                         .machine_count = count,
                                         .wanted = 3,
                                         .self = 1,
                                         .spread_by = "",
                                         .grace_ms = 300000};
    assert_true(count <= ARRAY_SIZE(world->voters));
    for (size_t i = 0; i < count; i++)
        world->voters[i] = (struct voters_machine){.server_id = machines[i]->server_id,
                                                   .address = machines[i]->cluster_address,
                                                   .name = machines[i]->hostname,
                                                   .value = "",
                                                   .wish = machines[i]->vote,
                                                   .leaving = machines[i]->leaving,
                                                   .no_leader = machines[i]->disable_engine,
                                                   .alive = true};
    return &world->facts;
}

static int world_hand_over(const uint64_t *server_ids, size_t count, struct err *err, void *data)
{
    struct world *world = data;

    assert_true(count <= ARRAY_SIZE(world->heirs));
    memcpy(world->heirs, server_ids, count * sizeof *server_ids);
    world->heir_count = count;
    world->hand_overs++;
    return 0;
}

static void world_keep(struct world *world, store_done *done, void *done_data, uint8_t *bytes, size_t size)
{
    assert_true(world->kept_count < 8);
    world->kept[world->kept_count++] =
        (struct kept){.done = done, .data = done_data, .bytes = bytes, .size = size};
}

static void world_propose(const Fleet__Command *command, store_done *done, void *done_data, void *data)
{
    struct world *world = data;
    const struct registry_result *result;
    Fleet__Command stamped = *command;
    uint8_t *bytes;
    size_t size;

    world->proposals++;
    assert_int_equal(command->wall_ms, 0);
    stamped.wall_ms = world_wall_ms(world);
    assert_int_equal(command_encode(&stamped, &bytes, &size), 0);
    if (world->mood == MOOD_WAIT) {
        world_keep(world, done, done_data, bytes, size);
        return;
    }
    result = world->mood != MOOD_REFUSE ? registry_apply(world->registry, bytes, size) : NULL;
    free(bytes);
    if (world->mood == MOOD_APPLY)
        done(STORE_APPLIED, result, "", done_data);
    else if (world->mood == MOOD_LOSE)
        done(STORE_UNKNOWN, NULL, "leadership was lost", done_data);
    else
        done(STORE_REFUSED, NULL, "too much is in flight", done_data);
}

static void world_barrier(store_done *done, void *done_data, void *data)
{
    struct world *world = data;

    world->barriers++;
    if (world->mood == MOOD_WAIT)
        world_keep(world, done, done_data, NULL, 0);
    else
        done(world->mood == MOOD_REFUSE ? STORE_REFUSED : STORE_APPLIED, NULL, "no majority answers",
             done_data);
}

static uint64_t world_ask(const char *machine_id, Fleet__HostRequest *request, uint64_t timeout_ms,
                          asks_done *done, void *done_data, struct err *err, void *data)
{
    struct world *world = data;
    struct asked_host *asked = &world->asked[world->asked_count];

    if (world->mute != NULL && streq(world->mute, machine_id)) {
        err_set(err, -ENOTSUP, "its fleetd is too old to be asked: upgrade it");
        return 0;
    }
    assert_true(world->asked_count < ARRAY_SIZE(world->asked));
    *asked = (struct asked_host){.id = ++world->asked_last,
                                 .request = *request,
                                 .timeout_ms = timeout_ms,
                                 .done = done,
                                 .data = done_data};
    snprintf(asked->machine_id, sizeof asked->machine_id, "%s", machine_id);
    snprintf(asked->unit, sizeof asked->unit, "%s", request->unit);
    snprintf(asked->cursor, sizeof asked->cursor, "%s", request->cursor);
    world->asked_count++;
    return asked->id;
}

static struct asked_host take_asked(struct world *world, size_t i)
{
    struct asked_host asked = world->asked[i];

    memmove(&world->asked[i], &world->asked[i + 1], (world->asked_count - i - 1) * sizeof asked);
    world->asked_count--;
    return asked;
}

static void world_ask_cancel(uint64_t id, void *data)
{
    struct world *world = data;

    for (size_t i = 0; i < world->asked_count; i++)
        if (world->asked[i].id == id) {
            take_asked(world, i);
            world->asks_cancelled++;
            return;
        }
    fail_msg("question %d is not open", (int)id);
}

void host_answers(struct world *world, const char *json, const char *why)
{
    Fleet__HostReply reply = FLEET__HOST_REPLY__INIT;
    struct asked_host asked;

    assert_true(world->asked_count > 0);
    asked = take_asked(world, 0);
    if (json != NULL)
        reply.json = (ProtobufCBinaryData){.len = strlen(json), .data = (uint8_t *)json};
    asked.done(json != NULL ? &reply : NULL, why, asked.data);
}

void world_resume(struct world *world)
{
    size_t count = world->kept_count;

    world->kept_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct kept *kept = &world->kept[i];

        kept->done(STORE_APPLIED,
                   kept->bytes != NULL ? registry_apply(world->registry, kept->bytes, kept->size) : NULL, "",
                   kept->data);
        free(kept->bytes);
    }
}

static void on_answer(const struct api_answer *answer, void *data)
{
    struct world *world = data;

    world->answers++;
    world->status = answer->status;
    snprintf(world->content_type, sizeof world->content_type, "%s",
             answer->content_type != NULL ? answer->content_type : "none");
    free(world->body);
    world->body = xstrndup(answer->size > 0 ? answer->body : "", answer->size);
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

static const struct api_backend backend = {
    .registry = world_registry,
    .core = world_core,
    .leads = world_leads,
    .propose = world_propose,
    .barrier = world_barrier,
    .now_ms = world_now,
    .wall_ms = world_wall,
    .secure = world_secure,
    .servers = world_servers,
    .leader_id = world_leader,
    .voters = world_voters,
    .hand_over = world_hand_over,
    .ask = world_ask,
    .ask_cancel = world_ask_cancel,
};

int world_setup(void **state)
{
    struct world *world = NEW0(struct world);

    log_set_sink(no_log);
    world->registry = registry_new();
    world->core.registry = world->registry;
    world->core.leads = world->leads = true;
    world->now_ms = 1000;
    world->api = api_new(&backend, world, 100);
    *state = world;
    return 0;
}

int world_teardown(void **state)
{
    struct world *world = *state;

    api_free(world->api);
    for (size_t i = 0; i < world->kept_count; i++) {
        world->kept[i].done(STORE_UNKNOWN, NULL, "closed", world->kept[i].data);
        free(world->kept[i].bytes);
    }
    registry_free(world->registry);
    free(world->body);
    free(world);
    return 0;
}

/* ---- asking ---- */

uint64_t ask_raw(struct world *world, const struct ask *ask)
{
    Fleet__ApiRequest message = FLEET__API_REQUEST__INIT;
    Fleet__Label labels[8], *list[8];
    Fleet__Caller caller;
    _cleanup_(freep) char *query = xstrdup(ask->query != NULL ? ask->query : "");
    char *at = query, *pair;

    message.method = (char *)ask->method;
    message.path = (char *)ask->path;
    message.peer = (char *)"test";
    message.query = list;
    while ((pair = strsep(&at, "&")) != NULL && *pair != '\0') {
        char *value = strchr(pair, '=');
        Fleet__Label *label = &labels[message.n_query];

        fleet__label__init(label);
        *value = '\0';
        label->key = pair;
        label->value = value + 1;
        list[message.n_query++] = label;
    }
    if (ask->body != NULL)
        message.body = (ProtobufCBinaryData){.len = strlen(ask->body), .data = (uint8_t *)ask->body};
    if (ask->content_type != NULL)
        message.content_type = (char *)ask->content_type;
    message.content_type_count = ask->content_type_count;
    if (ask->request_id != NULL)
        message.request_id =
            (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = (uint8_t *)ask->request_id};
    if (ask->caller != NULL) {
        access_to_wire(ask->caller, &caller);
        message.caller = &caller;
    }
    return api_handle(world->api, &message, ask->via, on_answer, world);
}

void ask(struct world *world, const char *method, const char *path, const char *body)
{
    unsigned before = world->answers;

    assert_int_equal(ask_raw(world, &(struct ask){.method = method,
                                                  .path = path,
                                                  .body = body,
                                                  .content_type = "application/json",
                                                  .content_type_count = 1}),
                     0);
    assert_int_equal(world->answers, before + 1);
}

void assert_error(struct world *world, unsigned status, const char *message)
{
    _cleanup_(freep) char *start = xasprintf("{\"error\":{\"code\":%u,\"message\":\"%s", status, message);

    if (world->status != status || !str_has_prefix(world->body, start))
        fail_msg("wanted %u %s, got %u %s", status, start, world->status, world->body);
    assert_string_equal(world->content_type, "application/json");
}

void assert_get(struct world *world, const char *path, const char *query, const char *body)
{
    assert_int_equal(ask_raw(world, &(struct ask){.method = "GET", .path = path, .query = query}), 0);
    assert_string_equal(world->body, body);
    assert_int_equal(world->status, 200);
}

void assert_has(struct world *world, const char *piece)
{
    if (strstr(world->body, piece) == NULL)
        fail_msg("no %s in %s", piece, world->body);
}

void assert_lacks(struct world *world, const char *piece)
{
    if (strstr(world->body, piece) != NULL)
        fail_msg("%s in %s", piece, world->body);
}

void put(struct world *world, const char *name, const char *body, unsigned status)
{
    _cleanup_(freep) char *path = xasprintf(V1 "/units/%s", name);

    ask(world, "PUT", path, body);
    if (world->status != status)
        fail_msg("PUT %s %s: wanted %u, got %u %s", name, body, status, world->status, world->body);
}

static void apply(struct world *world, Fleet__Command *command)
{
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_int_equal(registry_apply(world->registry, bytes, size)->status, 0);
    free(bytes);
}

void set_setting(struct world *world, const char *name, const char *value)
{
    Fleet__Setting setting = FLEET__SETTING__INIT, *list[] = {&setting};
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    setting.name = (char *)name;
    setting.value = (char *)value;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &body;
    apply(world, &command);
}

void add_machine(struct world *world, const char *id, const char *hostname, const char *ip,
                 uint64_t server_id)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.hostname = (char *)hostname;
    body.public_ip = (char *)ip;
    body.server_id = server_id;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    apply(world, &command);
}

void remove_machine(struct world *world, const char *id)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    apply(world, &command);
}

void place(struct world *world, const char *unit, const char *machine_id)
{
    Fleet__Placement placement = FLEET__PLACEMENT__INIT, *list[] = {&placement};
    Fleet__Schedule body = FLEET__SCHEDULE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    placement.unit = (char *)unit;
    placement.to = (char *)machine_id;
    placement.reason = (char *)"least loaded";
    placement.if_generation = registry_unit(world->registry, unit)->generation;
    body.n_placements = 1;
    body.placements = list;
    command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    command.schedule = &body;
    apply(world, &command);
}
