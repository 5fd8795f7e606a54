/* SPDX-License-Identifier: Apache-2.0 */
/* Three lines: a method, a path with its query, and (to the end) a body of any bytes, for a cluster that has
 * a unit, a template and a machine. Whatever they are, the API answers once, with a status of HTTP, and with
 * JSON if it says so; a second try of the same request is answered alike; and what it proposes the registry
 * takes. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/api.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake-core.h"

#define QUERY_MAX 8

struct world {
    struct registry *registry;
    struct core core;
    unsigned answers, status;
    asks_done *asked; /* A question to the host that is open. */
    void *asked_data;
};

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
    return true;
}

static uint64_t world_now(void *data)
{
    return 1000;
}

static size_t world_servers(struct store_server *servers, size_t max, void *data)
{
    return 0;
}

static uint64_t world_leader(void *data)
{
    return 0;
}

static const struct voters_facts *world_voters(void *data)
{
    static const struct voters_facts facts = {.spread_by = "", .wanted = 5};

    return &facts;
}

static int world_hand_over(const uint64_t *server_ids, size_t count, struct err *err, void *data)
{
    return 0;
}

static void world_propose(const Fleet__Command *command, store_done *done, void *done_data, void *data)
{
    struct world *world = data;
    uint8_t *bytes;
    size_t size;
    int r = command_encode(command, &bytes, &size);

    assert(r == 0); /* Its size was checked. */
    done(STORE_APPLIED, registry_apply(world->registry, bytes, size), "", done_data);
    free(bytes);
}

static void world_barrier(store_done *done, void *done_data, void *data)
{
    done(STORE_APPLIED, NULL, "", done_data);
}

static void on_answer(const struct api_answer *answer, void *data)
{
    struct world *world = data;
    json_t *json;

    world->answers++;
    world->status = answer->status;
    assert(answer->status >= 200 && answer->status < 600 && answer->status != 500);
    if (answer->size == 0)
        return;
    assert(strcmp(answer->content_type, "application/json") == 0);
    json = json_loadb(answer->body, answer->size, 0, NULL);
    assert(json_is_object(json));
    json_decref(json);
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

/* Hosts are asked about a unit: the body of the input is what they answer. */
static uint64_t world_ask(const char *machine_id, Fleet__HostRequest *request, uint64_t timeout_ms,
                          asks_done *done, void *done_data, struct err *err, void *data)
{
    struct world *world = data;

    world->asked = done;
    world->asked_data = done_data;
    return 1;
}

static void world_ask_cancel(uint64_t id, void *data)
{
    ((struct world *)data)->asked = NULL;
}

static void host_answers(struct world *world, const Fleet__ApiRequest *message)
{
    Fleet__HostReply reply = FLEET__HOST_REPLY__INIT;
    asks_done *asked = TAKE_PTR(world->asked);

    reply.json = message->body;
    if (asked != NULL)
        asked(&reply, NULL, world->asked_data);
}

static bool world_secure(void *data)
{
    return false;
}

static const struct api_backend backend = {
    .registry = world_registry,
    .core = world_core,
    .leads = world_leads,
    .propose = world_propose,
    .barrier = world_barrier,
    .now_ms = world_now,
    .wall_ms = world_now,
    .secure = world_secure,
    .servers = world_servers,
    .leader_id = world_leader,
    .voters = world_voters,
    .hand_over = world_hand_over,
    .ask = world_ask,
    .ask_cancel = world_ask_cancel,
};

static void handle(struct world *world, struct api *api, const Fleet__ApiRequest *message)
{
    world->answers = 0;
    if (api_handle(api, message, NULL, on_answer, world) != 0) {
        assert(world->answers == 0);
        host_answers(world, message);
        api_unit_changed(api, "");
        api_tick(api, UINT64_MAX);
    }
    assert(world->answers == 1);
    assert(api_deadline_ms(api) == UINT64_MAX);
}

static void apply(struct registry *registry, Fleet__Command *command)
{
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    if (command_encode(command, &bytes, &size) < 0)
        abort();
    registry_apply(registry, bytes, size);
    free(bytes);
}

/* One machine, and one unit that it has. */
static void populate(struct registry *registry)
{
    static const char text[] = "[X-Fleet]\nGlobal=true\n";
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeUnits units = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    machine.machine_id = (char *)"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &machine;
    apply(registry, &command);
    change.name = (char *)"global.service";
    change.has_text = true;
    change.text = (ProtobufCBinaryData){.len = sizeof text - 1, .data = (uint8_t *)text};
    change.desired = FLEET__DESIRED_STATE__DESIRED_LAUNCHED;
    units.changes = list;
    units.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &units;
    apply(registry, &command);
}

static char *next_line(char **at)
{
    char *line = strsep(at, "\n");

    return line != NULL ? line : (char *)"";
}

static size_t read_query(char *path, Fleet__Label *labels, Fleet__Label **list)
{
    char *at = strchr(path, '?'), *pair;
    size_t count = 0;

    if (at != NULL)
        *at++ = '\0';
    while (count < QUERY_MAX && (pair = strsep(&at, "&")) != NULL) {
        fleet__label__init(&labels[count]);
        labels[count].key = strsep(&pair, "=");
        labels[count].value = pair != NULL ? pair : (char *)"";
        list[count] = &labels[count];
        count++;
    }
    return count;
}

static void put(struct world *world, struct api *api, const char *path, const char *body)
{
    Fleet__ApiRequest message = FLEET__API_REQUEST__INIT;

    message.method = (char *)"PUT";
    message.path = (char *)path;
    message.peer = (char *)"fuzz";
    message.content_type = (char *)"application/json";
    message.content_type_count = 1;
    message.body = (ProtobufCBinaryData){.len = strlen(body), .data = (uint8_t *)body};
    handle(world, api, &message);
    assert(world->status == 201);
}

static void add_machine(struct world *world)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    uint8_t *bytes;
    size_t size;
    int r;

    body.machine_id = (char *)"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    body.server_id = 1;
    command.format = COMMAND_FORMAT;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    r = command_encode(&command, &bytes, &size);
    assert(r == 0);
    r = registry_apply(world->registry, bytes, size)->status;
    assert(r == 0);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char unit[] =
        "{\"desiredState\":\"launched\",\"options\":[{\"section\":\"A\",\"name\":\"B\"}]}";
    static const char template[] = "{\"options\":[{\"section\":\"A\",\"name\":\"B\",\"value\":\"%i\"}]}";
    _cleanup_(freep) char *input = xmalloc(size + 1);
    struct world world = {.registry = registry_new(), .core.leads = true};
    struct api *api = api_new(&backend, &world, 2);
    Fleet__ApiRequest message = FLEET__API_REQUEST__INIT;
    Fleet__Label labels[QUERY_MAX], *list[QUERY_MAX];
    char *at = input;
    unsigned status;

    memcpy(input, data, size);
    input[size] = '\0';
    log_set_sink(no_log);
    world.core.registry = world.registry;
    add_machine(&world);
    put(&world, api, "/fleet/v1/units/old.service", unit);
    put(&world, api, "/fleet/v1/units/t@.service", template);
    populate(world.registry);
    message.method = next_line(&at);
    message.path = next_line(&at);
    message.query = list;
    message.n_query = read_query(message.path, labels, list);
    message.peer = (char *)"fuzz";
    message.content_type = (char *)"application/json";
    message.content_type_count = 1;
    message.user_agent = (char *)"google-api-go-client/0.5";
    message.body.data = (uint8_t *)(at != NULL ? at : input);
    message.body.len = at != NULL ? (size_t)(input + size - at) : 0;
    message.request_id = (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = (uint8_t *)"0123456789abcdef"};
    handle(&world, api, &message);
    status = world.status;
    handle(&world, api, &message);
    assert(status == world.status);
    api_free(api);
    registry_free(world.registry);
    return 0;
}
