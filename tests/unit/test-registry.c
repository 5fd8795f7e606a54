/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: what each command does, what it must not do, and that a snapshot is all of it. */
#include <config.h>

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "raftstore/registry.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ID_C "cccccccccccccccccccccccccccccccc"

/* Undoes registry_new(); for _cleanup_. */
static void registry_freep(struct registry **registry)
{
    registry_free(*registry);
}

/* ---- commands ---- */

static const struct registry_result *apply(struct registry *registry, Fleet__Command *command)
{
    const struct registry_result *result;
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_int_equal(size % 8, 0);
    result = registry_apply(registry, bytes, size);
    free(bytes);
    return result;
}

struct change {
    const char *name, *text; /* NULL text: none. */
    Fleet__DesiredState desired;
    bool destroy, again, if_absent, restart;
    const char *if_hash;
};

#define INACTIVE FLEET__DESIRED_STATE__DESIRED_INACTIVE
#define LOADED   FLEET__DESIRED_STATE__DESIRED_LOADED
#define LAUNCHED FLEET__DESIRED_STATE__DESIRED_LAUNCHED

#define PLAIN "[Service]\nExecStart=/bin/true\n"
#define OTHER "[Service]\nExecStart=/bin/false\n"

static const struct registry_result *change_units(struct registry *registry, const char *request_id,
                                                  const struct change *changes, size_t count)
{
    Fleet__UnitChange items[4], *list[4];
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    assert_true(count <= 4);
    for (size_t i = 0; i < count; i++) {
        fleet__unit_change__init(&items[i]);
        items[i].name = (char *)changes[i].name;
        items[i].has_text = changes[i].text != NULL;
        if (changes[i].text != NULL)
            items[i].text =
                (ProtobufCBinaryData){.len = strlen(changes[i].text), .data = (uint8_t *)changes[i].text};
        items[i].desired = changes[i].desired;
        items[i].destroy = changes[i].destroy;
        items[i].again = changes[i].again;
        items[i].if_absent = changes[i].if_absent;
        items[i].restart = changes[i].restart;
        if (changes[i].if_hash != NULL)
            items[i].if_hash = (char *)changes[i].if_hash;
        list[i] = &items[i];
    }
    body.n_changes = count;
    body.changes = list;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    if (request_id != NULL)
        command.request_id = (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = (uint8_t *)request_id};
    return apply(registry, &command);
}

static int change_unit(struct registry *registry, const struct change *change)
{
    return change_units(registry, NULL, change, 1)->status;
}

struct placement {
    const char *unit, *from, *to;
    uint64_t generation;
    bool former_gone, leased;
};

/* One decision. Returns what it comes to. */
static int schedule(struct registry *registry, const struct placement *placements, size_t count)
{
    Fleet__Placement items[4], *list[4];
    Fleet__Schedule body = FLEET__SCHEDULE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    assert_true(count <= 4);
    for (size_t i = 0; i < count; i++) {
        fleet__placement__init(&items[i]);
        items[i].unit = (char *)placements[i].unit;
        items[i].from = (char *)placements[i].from;
        items[i].to = (char *)placements[i].to;
        items[i].reason = (char *)"a reason";
        items[i].if_generation = placements[i].generation;
        items[i].former_gone = placements[i].former_gone;
        items[i].leased = placements[i].leased;
        list[i] = &items[i];
    }
    body.n_placements = count;
    body.placements = list;
    command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    command.schedule = &body;
    command.wall_ms = 1234;
    return apply(registry, &command)->status;
}

static int place_at(struct registry *registry, const char *unit, const char *from, const char *to,
                    uint64_t generation)
{
    return schedule(registry, &(struct placement){unit, from, to, generation, false, false}, 1);
}

static void place(struct registry *registry, const char *unit, const char *to)
{
    const struct registry_unit *found = registry_unit(registry, unit);

    assert_int_equal(place_at(registry, unit, found->target, to, found->generation), 0);
}

/* The same by a leader that knows that no former machine has anything of it. */
static void place_clean(struct registry *registry, const char *unit, const char *to)
{
    const struct registry_unit *found = registry_unit(registry, unit);

    assert_int_equal(
        schedule(registry, &(struct placement){unit, found->target, to, found->generation, true, false}, 1),
        0);
}

/* Its former machines are these, in this order; NULL ends them. */
static void assert_former(const struct registry_unit *unit, ...)
{
    const char *id;
    size_t i = 0;
    va_list ap;

    va_start(ap, unit);
    while ((id = va_arg(ap, const char *)) != NULL) {
        assert_true(i < unit->former.count);
        assert_string_equal(unit->former.items[i++], id);
    }
    va_end(ap);
    assert_int_equal(i, unit->former.count);
}

static int register_machine(struct registry *registry, const char *id, const char *key, const char *value)
{
    Fleet__Label label = FLEET__LABEL__INIT, *labels[] = {&label};
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    label.key = (char *)key;
    label.value = (char *)value;
    body.machine_id = (char *)id;
    body.hostname = (char *)"host";
    body.public_ip = (char *)"10.0.0.1";
    body.cluster_address = (char *)"10.0.0.1:7390";
    body.version = (char *)"2.0";
    body.server_id = 77;
    body.disable_engine = body.no_store =
        streq(id, ID_B); /* So that a snapshot that forgets it is noticed. */
    body.metadata = labels;
    body.n_metadata = key != NULL;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    command.wall_ms = 99;
    return apply(registry, &command)->status;
}

static int remove_machine(struct registry *registry, const char *id)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    return apply(registry, &command)->status;
}

static int change_metadata(struct registry *registry, const char *id, const char *key, const char *value)
{
    Fleet__MetadataChange change = FLEET__METADATA_CHANGE__INIT, *changes[] = {&change};
    Fleet__ChangeMetadata body = FLEET__CHANGE_METADATA__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.machine_id = (char *)id;
    change.key = (char *)key;
    change.remove = value == NULL;
    if (value != NULL)
        change.value = (char *)value;
    body.n_changes = 1;
    body.changes = changes;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_METADATA;
    command.change_metadata = &body;
    return apply(registry, &command)->status;
}

static int create_cluster(struct registry *registry, const char *id, size_t size)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.cluster_id = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)id};
    body.voters = 5;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    return apply(registry, &command)->status;
}

/* ---- snapshots ---- */

static uint8_t *snapshot(struct registry *registry, size_t *ret_size)
{
    struct registry_snapshot *taken = registry_snapshot_new(registry);
    struct strbuf all = {0};

    for (size_t i = 0; i < taken->count; i++)
        strbuf_add_bytes(&all, taken->pieces[i].base, taken->pieces[i].size);
    registry_snapshot_free(registry, taken);
    *ret_size = all.size;
    return (uint8_t *)strbuf_take(&all);
}

static bool same(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a_size == b_size && memcmp(a, b, a_size) == 0;
}

/* What a command must not change is looked at through this. */
static void assert_same(struct registry *registry, const uint8_t *before, size_t before_size)
{
    size_t size;
    _cleanup_(freep) uint8_t *after = snapshot(registry, &size);

    assert_true(same(after, size, before, before_size));
}

static struct registry *full_registry(void)
{
    struct registry *registry = registry_new();

    assert_int_equal(create_cluster(registry, "0123456789abcdef", CLUSTER_ID_SIZE), 0);
    register_machine(registry, ID_A, "role", "web");
    register_machine(registry, ID_B, NULL, NULL);
    change_metadata(registry, ID_A, "role", NULL);
    change_metadata(registry, ID_A, "disk", "ssd");
    change_metadata(registry, "unregistered", "k", "v");
    change_units(registry, "request-number-1",
                 &(struct change){.name = "a.service", .text = PLAIN, .desired = LAUNCHED}, 1);
    change_units(registry, "request-number-2",
                 &(struct change){.name = "a.service", .text = PLAIN, .if_absent = true}, 1);
    change_unit(registry, &(struct change){.name = "b.service", .text = PLAIN, .desired = LOADED});
    change_unit(registry, &(struct change){.name = "t@.service", .text = OTHER});
    change_unit(registry, &(struct change){.name = "empty.service", .text = ""});
    place(registry, "a.service", ID_A);
    place(registry, "b.service", ID_A);
    place(registry, "b.service", ID_B);
    change_unit(registry, &(struct change){.name = "departed.service", .text = PLAIN, .desired = LOADED});
    place(registry, "departed.service", ID_A);
    change_unit(registry, &(struct change){.name = "departed.service", .destroy = true});
    change_unit(registry, &(struct change){.name = "r.service", .text = PLAIN, .desired = LAUNCHED});
    change_unit(registry, &(struct change){.name = "r.service", .restart = true});
    return registry;
}

/* ---- bad commands ---- */

static void test_garbage(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"", 0},
        {"\0\0\0", 3},
        {"\xff\xff\xff\xff", 4},
        {"\0\0\0\x09"
         "12345678",
         12},
        {"\0\0\0\x04\xff\xff\xff\xff", 8},
        {"\0\0\0\0\0\0\0\0", 8}, /* No body. */
    };
    size_t size;
    _cleanup_(freep) uint8_t *before = snapshot(registry, &size);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct registry_result *result = registry_apply(registry, cases[i].bytes, cases[i].size);

        assert_true(result->status < 0);
        assert_true(result->text[0] != '\0');
    }
    assert_same(registry, before, size);
}

static void test_refused_leaves_no_trace(void **state)
{
    static const struct {
        struct change changes[2];
        size_t count;
        int status;
    } cases[] = {
        {{{.name = "new.service"}}, 1, -ENOENT},
        {{{.name = "new.service", .destroy = true}}, 1, -ENOENT},
        {{{.name = "new.service", .desired = LAUNCHED}}, 1, -ENOENT},
        {{{.name = "a.service", .text = OTHER, .if_absent = true}}, 1, -EEXIST},
        {{{.name = "a.service", .text = OTHER, .if_hash = "x"}}, 1, -ESTALE},
        {{{.name = "new.service", .text = OTHER, .if_hash = "x"}}, 1, -ESTALE},
        {{{.name = "a.service", .text = OTHER}, {.name = "gone.service"}}, 2, -ENOENT},
        {{{.name = "new.service", .text = OTHER}, {.name = "a.service", .if_absent = true, .text = OTHER}},
         2,
         -EEXIST},
        {{{.name = "a.service", .destroy = true}, {.name = "gone.service", .destroy = true}}, 2, -ENOENT},
    };
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    struct registry_changes changes;
    size_t size;
    _cleanup_(freep) uint8_t *before = snapshot(registry, &size);

    registry_changes_take(registry, &changes);
    registry_changes_done(&changes);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct registry_result *result = change_units(registry, NULL, cases[i].changes, cases[i].count);

        assert_int_equal(result->status, cases[i].status);
        assert_non_null(strstr(result->text, ".service"));
    }
    assert_int_equal(create_cluster(registry, "another-cluster!", CLUSTER_ID_SIZE), -EEXIST);
    assert_int_equal(register_machine(registry, "", NULL, NULL), -EINVAL);
    assert_int_equal(register_machine(registry, ID_A "a", NULL, NULL), -EINVAL);
    assert_int_equal(remove_machine(registry, "nobody"), -ENOENT);
    assert_int_equal(remove_machine(registry, "unregistered"), -ENOENT);
    assert_int_equal(change_metadata(registry, ID_A "a", "k", "v"), -EINVAL);
    assert_same(registry, before, size);
    registry_changes_take(registry, &changes);
    assert_int_equal(changes.units.count, 0);
    assert_false(changes.machines);
}

static void test_cluster(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();

    assert_true(create_cluster(registry, "short", 5) < 0);
    assert_int_equal(registry_version(registry), 0);
    assert_int_equal(create_cluster(registry, "0123456789abcdef", CLUSTER_ID_SIZE), 0);
    assert_memory_equal(registry_cluster_id(registry), "0123456789abcdef", CLUSTER_ID_SIZE);
    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 5);
}

static int change_settings(struct registry *registry, unsigned voters)
{
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.voters = voters;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &body;
    return apply(registry, &command)->status;
}

/* A NULL value: the default again. */
static int set(struct registry *registry, const char *name, const char *value)
{
    Fleet__Setting setting = FLEET__SETTING__INIT, *changes[] = {&setting};
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    setting.name = (char *)name;
    setting.reset = value == NULL;
    if (value != NULL)
        setting.value = (char *)value;
    body.n_changes = 1;
    body.changes = changes;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &body;
    return apply(registry, &command)->status;
}

static void test_voters(void **state)
{
    static const unsigned good[] = {1, 3, 5, 7}, bad[] = {2, 4, 6, 8, 9, 4000000000u};
    _cleanup_(registry_freep) struct registry *registry = registry_new();

    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 5);
    assert_int_equal(create_cluster(registry, "0123456789abcdef", CLUSTER_ID_SIZE), 0);
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t version = registry_version(registry);

        assert_int_equal(change_settings(registry, good[i]), 0);
        assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), good[i]);
        assert_int_equal(registry_version(registry), version + 1);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t version = registry_version(registry);

        assert_int_equal(change_settings(registry, bad[i]), -EINVAL);
        assert_int_equal(registry_version(registry), version);
    }
    assert_int_equal(change_settings(registry, 0), 0); /* Unchanged. */
    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 7);
}

static void test_settings(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    struct registry_changes changes;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size, count;

    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_BURST), 0);
    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_INTERVAL), 600000);
    assert_null(registry_setting(registry, "failure_limit_burst"));
    registry_changes_take(registry, &changes);
    registry_changes_done(&changes);
    assert_int_equal(set(registry, "failure_limit_interval", "1min"), 0);
    assert_int_equal(set(registry, "failure_limit_burst", "2"), 0);
    assert_int_equal(set(registry, "failure_limit_burst", "3"), 0);
    registry_changes_take(registry, &changes);
    assert_true(changes.settings);
    registry_changes_done(&changes);
    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_BURST), 3);
    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_INTERVAL), 60000);
    assert_string_equal(registry_setting(registry, "failure_limit_burst"), "3");

    /* Of a newer version: kept, also in snapshots. A value that is beyond us: the default. */
    assert_int_equal(set(registry, "a_new_one", "whatever"), 0);
    assert_int_equal(set(registry, "failure_limit_interval", "2d"), 0);
    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_INTERVAL), 600000);
    assert_string_equal(registry_settings(registry, &count)[0].name, "a_new_one");
    assert_int_equal(count, 4); /* With the voters. */
    bytes = snapshot(registry, &size);
    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_same(copy, bytes, size);
    assert_string_equal(registry_setting(copy, "a_new_one"), "whatever");
    assert_string_equal(registry_setting(copy, "failure_limit_interval"), "2d");
    assert_int_equal(registry_setting_number(copy, SETTING_FAILURE_LIMIT_BURST), 3);
    assert_int_equal(registry_setting_number(copy, SETTING_VOTERS), 5);

    assert_int_equal(set(copy, "failure_limit_burst", NULL), 0);
    assert_int_equal(set(copy, "failure_limit_burst", NULL), 0);
    assert_int_equal(set(copy, "a_new_one", NULL), 0);
    assert_null(registry_setting(copy, "a_new_one"));
    assert_int_equal(registry_setting_number(copy, SETTING_FAILURE_LIMIT_BURST), 0);
}

static void test_settings_are_limited(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    char name[SETTING_NAME_MAX + 2], value[SETTING_VALUE_MAX + 2];
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size, count;

    memset(name, 'n', sizeof name);
    memset(value, 'v', sizeof value);
    name[sizeof name - 1] = value[sizeof value - 1] = '\0';
    assert_int_equal(set(registry, name, "1"), -EINVAL);
    assert_int_equal(set(registry, "x", value), -EINVAL);
    assert_int_equal(set(registry, "", "1"), -EINVAL);
    assert_int_equal(set(registry, "voters", "3"), -EINVAL);
    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 5);
    value[SETTING_VALUE_MAX] = '\0';
    for (unsigned i = 1; i < SETTINGS_MAX; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(set(registry, name, value), 0);
    }
    assert_int_equal(set(registry, "one_more", "1"), -EINVAL);
    assert_int_equal(set(registry, "s1", "another"), 0);
    registry_settings(registry, &count);
    assert_int_equal(count, SETTINGS_MAX);
    bytes = snapshot(registry, &size);
    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_same(copy, bytes, size);
    assert_int_equal(set(registry, "s1", NULL), 0);
    assert_int_equal(set(registry, "one_more", "1"), 0);
}

/* One that a version without settings made, but for voters. */
static void test_an_old_snapshot(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    _cleanup_(fclosep) FILE *file = fopen(SOURCE_DIR "/tests/fuzz/corpus/snapshot/again", "re");
    uint8_t bytes[4096];
    size_t size;

    assert_non_null(file);
    size = fread(bytes, 1, sizeof bytes, file);
    assert_in_range(size, 1, sizeof bytes - 1);
    assert_int_equal(set(registry, "failure_limit_burst", "9"), 0);
    assert_int_equal(registry_restore(registry, bytes, size, NULL), 0);
    assert_int_equal(registry_setting_number(registry, SETTING_FAILURE_LIMIT_BURST), 0);
    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 3);
}

static void test_encode_limit(void **state)
{
    _cleanup_(freep) char *text = xcalloc(1, COMMAND_MAX);
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *changes[] = {&change};
    Fleet__ChangeUnits body = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    uint8_t *bytes = NULL;
    size_t size;

    change.text = (ProtobufCBinaryData){.len = COMMAND_MAX, .data = (uint8_t *)text};
    body.n_changes = 1;
    body.changes = changes;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &body;
    assert_int_equal(command_encode(&command, &bytes, &size), -EMSGSIZE);
    assert_null(bytes);
}

/* ---- units ---- */

static void test_units(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    const struct registry_unit *const *units;
    const struct registry_unit *unit;
    size_t count;

    assert_int_equal(change_unit(registry, &(struct change){.name = "b.service", .text = PLAIN}), 0);
    assert_int_equal(change_unit(registry, &(struct change){.name = "a.service", .text = PLAIN}), 0);
    units = registry_units(registry, &count);
    assert_int_equal(count, 2);
    assert_int_equal(registry_unit_count(registry), 2);
    assert_string_equal(units[0]->name, "a.service");
    assert_ptr_equal(units[0]->content, units[1]->content);
    assert_int_equal(units[0]->content->references, 2);
    unit = registry_unit(registry, "a.service");
    assert_int_equal(unit->desired, UNIT_STATE_INACTIVE);
    assert_int_equal(unit->generation, 2);
    assert_int_equal(unit->token, 0);

    change_unit(registry,
                &(struct change){.name = "a.service", .text = OTHER, .if_hash = unit->content->hash});
    assert_string_equal(unit->content->text, OTHER);
    assert_int_equal(unit->generation, 3);
    assert_int_equal(registry_unit(registry, "b.service")->content->references, 1);
    change_unit(registry, &(struct change){.name = "a.service", .destroy = true});
    assert_null(registry_unit(registry, "a.service"));
    assert_int_equal(registry_unit_count(registry), 1);
}

/* Each mention of a unit meets what the one before it has left. */
static void test_named_twice(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    static const struct change changes[] = {{.name = "a.service", .destroy = true},
                                            {.name = "a.service", .desired = LOADED},
                                            {.name = "a.service", .text = OTHER}};

    assert_int_equal(change_units(registry, NULL, changes, 3)->status, 0);
    assert_string_equal(registry_unit(registry, "a.service")->content->text, OTHER);
    assert_int_equal(registry_unit(registry, "a.service")->desired, UNIT_STATE_INACTIVE);
}

static void test_generation_and_token(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit = registry_unit(registry, "a.service");
    uint64_t generation = unit->generation, token = unit->token;

    assert_int_equal(unit->placed_wall_ms, 1234);
    assert_int_equal(token, generation); /* Placing was the last change. */

    /* What changes nothing leaves both. */
    change_unit(registry, &(struct change){.name = "a.service", .text = PLAIN, .desired = LAUNCHED});
    change_unit(registry, &(struct change){.name = "a.service"});
    assert_int_equal(unit->generation, generation);

    change_unit(registry, &(struct change){.name = "a.service", .desired = LOADED});
    assert_true(unit->generation > generation);
    assert_int_equal(unit->token, token);
    assert_string_equal(unit->target, ID_A);

    generation = unit->generation;
    place(registry, "a.service", ID_B);
    assert_true(unit->generation > generation);
    assert_true(unit->token > token);
    assert_int_equal(unit->token, unit->generation);
    assert_string_equal(unit->target, ID_B);
    assert_former(unit, ID_A, NULL);

    /* Nowhere is no placement. */
    token = unit->token;
    generation = unit->generation;
    place(registry, "a.service", "");
    assert_true(unit->generation > generation);
    assert_int_equal(unit->token, token);
    assert_string_equal(unit->target, "");
    assert_former(unit, ID_A, ID_B, NULL);
}

static void test_former_targets(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit = registry_unit(registry, "a.service");

    place(registry, "a.service", ID_B);
    place(registry, "a.service", ID_C);
    assert_former(unit, ID_A, ID_B, NULL);
    place(registry, "a.service", ID_A); /* Where it is now it is not "before". */
    assert_former(unit, ID_B, ID_C, NULL);
    /* The leader knows that the others have let go of it; of the one that it leaves now nobody can know. */
    place_clean(registry, "a.service", ID_B);
    assert_former(unit, ID_A, NULL);
    place_clean(registry, "a.service", ID_C);
    assert_former(unit, ID_B, NULL);
    change_unit(registry, &(struct change){.name = "a.service", .desired = INACTIVE});
    assert_former(unit, ID_B, ID_C, NULL);
}

static void test_started_again(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit = registry_unit(registry, "a.service");
    uint64_t before = unit->generation;

    assert_int_equal(change_unit(registry, &(struct change){.name = "a.service", .desired = LAUNCHED}), 0);
    assert_int_equal(unit->generation, before);
    assert_int_equal(
        change_unit(registry, &(struct change){.name = "a.service", .desired = LAUNCHED, .again = true}), 0);
    assert_true(unit->generation > before);
    assert_string_equal(unit->target, ID_A);
    assert_int_equal(unit->restart, 0); /* What runs of it runs on. */
    before = registry_unit(registry, "b.service")->generation;
    change_unit(registry, &(struct change){.name = "b.service", .again = true}); /* It is loaded. */
    assert_int_equal(registry_unit(registry, "b.service")->generation, before);
}

static void test_restart(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit = registry_unit(registry, "a.service");
    uint64_t before = unit->generation, restart;

    assert_int_equal(unit->restart, 0);
    assert_int_equal(change_unit(registry, &(struct change){.name = "t@.service", .restart = true}), -EINVAL);
    assert_int_equal(change_unit(registry, &(struct change){.name = "nosuch.service", .restart = true}),
                     -ENOENT);
    assert_int_equal(
        change_unit(registry, &(struct change){.name = "a.service", .restart = true, .desired = INACTIVE}),
        0);
    assert_int_equal(unit->desired, UNIT_STATE_LAUNCHED); /* The restart is what was asked for last. */

    place(registry, "a.service", ID_A);
    assert_int_equal(change_unit(registry, &(struct change){.name = "a.service", .restart = true}), 0);
    restart = unit->restart;
    assert_true(restart > before);
    assert_int_equal(unit->generation, restart);
    assert_string_equal(unit->target, ID_A);

    /* What comes later does not ask for it again, nor forget it. */
    place(registry, "a.service", ID_B);
    change_unit(registry, &(struct change){.name = "a.service", .text = OTHER});
    assert_true(unit->generation > restart);
    assert_int_equal(unit->restart, restart);

    /* But what has been stopped since is started afresh anyway. */
    change_unit(registry, &(struct change){.name = "a.service", .desired = LOADED});
    assert_int_equal(unit->restart, 0);
    change_unit(registry,
                &(struct change){.name = "a.service", .restart = true}); /* A loaded one is started. */
    assert_int_equal(unit->desired, UNIT_STATE_LAUNCHED);
    assert_int_equal(unit->restart, unit->generation);
}

static void test_inactive_is_nowhere(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit = registry_unit(registry, "a.service");

    change_unit(registry, &(struct change){.name = "a.service", .desired = INACTIVE});
    assert_string_equal(unit->target, "");
    assert_former(unit, ID_A, NULL);
    assert_string_equal(unit->reason, "");
    assert_int_equal(place_at(registry, "a.service", "", ID_B, unit->generation), -ESTALE); /* Too late. */
    assert_string_equal(unit->target, "");
}

/* Decided about something that has changed since; and what was decided with it falls as well. */
static void test_void_placements(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *a = registry_unit(registry, "a.service");
    const struct registry_unit *b = registry_unit(registry, "b.service");
    const struct placement cases[][2] = {
        {{"b.service", ID_B, ID_A, b->generation, false, false}, {"gone.service", "", ID_A, 1, false, false}},
        {{"b.service", ID_B, ID_A, b->generation, false, false},
         {"a.service", "", ID_B, a->generation, false, false}}, /* Elsewhere. */
        {{"b.service", ID_B, ID_A, b->generation, false, false},
         {"a.service", ID_A, ID_B, a->generation - 1, false, false}},
        {{"b.service", ID_B, ID_A, b->generation, false, false},
         {"t@.service", "", ID_A, registry_unit(registry, "t@.service")->generation, false, false}},
    };
    size_t size;
    _cleanup_(freep) uint8_t *before = snapshot(registry, &size);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(schedule(registry, cases[i], 2), -ESTALE);
    assert_same(registry, before, size);
    assert_int_equal(schedule(registry, &cases[0][0], 1), 0);
    assert_string_equal(b->target, ID_A);
}

/* A unit of the name of a destroyed one: whoever had that one may have it still. */
static void test_destroyed_units_are_remembered(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_unit *unit;
    char name[32];

    change_unit(registry, &(struct change){.name = "b.service", .destroy = true});
    change_unit(registry, &(struct change){.name = "b.service", .text = OTHER, .desired = LAUNCHED});
    unit = registry_unit(registry, "b.service");
    assert_former(unit, ID_A, ID_B, NULL);
    place_clean(registry, "b.service", ID_C); /* The leader knows better. */
    assert_former(unit, NULL);
    change_unit(registry, &(struct change){.name = "b.service", .destroy = true});
    /* Not for ever. */
    for (unsigned i = 0; i < DEPARTED_REMEMBERED_MAX; i++) {
        snprintf(name, sizeof name, "u%u.service", i);
        change_unit(registry, &(struct change){.name = name, .text = PLAIN, .desired = LAUNCHED});
        place(registry, name, ID_A);
        change_unit(registry, &(struct change){.name = name, .destroy = true});
    }
    change_unit(registry, &(struct change){.name = "b.service", .text = PLAIN});
    assert_former(registry_unit(registry, "b.service"), NULL);
    change_unit(registry, &(struct change){.name = name, .text = PLAIN});
    assert_former(registry_unit(registry, name), ID_A, NULL);
}

static void set_lease(struct registry *registry, uint64_t lease_ms)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__SetLease lease = FLEET__SET_LEASE__INIT;

    lease.lease_ms = lease_ms;
    command.body_case = FLEET__COMMAND__BODY_SET_LEASE;
    command.set_lease = &lease;
    assert_int_equal(apply(registry, &command)->status, 0);
}

#define STOP(seconds) \
    "[X-Fleet]\nOnDisconnect=stop\n[Service]\nExecStart=/bin/a\nTimeoutStopSec=" seconds "\n"

static uint64_t stop_ms(const struct registry *registry, const char *name)
{
    return registry_unit(registry, name)->stop_ms;
}

/* What counts is the longest time to stop of any content that may still run somewhere. */
static void test_leases(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    assert_int_equal(registry_lease_ms(registry), 0);
    set_lease(registry, 9000);
    change_unit(registry, &(struct change){.name = "l.service", .text = STOP("5"), .desired = LAUNCHED});
    assert_int_equal(stop_ms(registry, "l.service"), 5000);
    change_unit(registry, &(struct change){.name = "l.service", .text = STOP("3")}); /* It was nowhere yet. */
    assert_int_equal(stop_ms(registry, "l.service"), 3000);
    place(registry, "l.service", ID_A);
    change_unit(registry, &(struct change){.name = "l.service", .text = STOP("7")});
    change_unit(registry, &(struct change){.name = "l.service", .text = STOP("2")});
    assert_int_equal(stop_ms(registry, "l.service"), 7000);
    change_unit(registry, &(struct change){.name = "l.service", .destroy = true});
    bytes = snapshot(registry, &size);
    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_int_equal(registry_lease_ms(copy), 9000);
    change_unit(copy, &(struct change){.name = "l.service", .text = STOP("1"), .desired = LAUNCHED});
    assert_int_equal(stop_ms(copy, "l.service"), 7000);
    place(copy, "l.service", ID_B);
    assert_int_equal(stop_ms(copy, "l.service"), 7000);
    change_unit(copy, &(struct change){.name = "l.service", .desired = INACTIVE});
    change_unit(copy, &(struct change){.name = "l.service", .desired = LAUNCHED});
    place_clean(copy, "l.service", ID_C); /* Nothing runs any more. */
    assert_int_equal(stop_ms(copy, "l.service"), 1000);
}

static void assert_leased(const struct registry *registry, bool leased, uint64_t since)
{
    const struct registry_unit *unit = registry_unit(registry, "l.service");

    assert_int_equal(unit->leased, leased);
    assert_int_equal(unit->leased_since, since);
}

static void take_over(struct registry *from, struct registry *to)
{
    size_t size;
    _cleanup_(freep) uint8_t *bytes = snapshot(from, &size);

    assert_int_equal(registry_restore(to, bytes, size, NULL), 0);
}

/* Whether what may still run anywhere is under a lease, and since when what is carried out is. */
static void test_who_runs_under_a_lease(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    const struct change keep = {.name = "l.service", .text = PLAIN, .desired = LAUNCHED},
                        stop = {.name = "l.service", .text = STOP("5"), .desired = LAUNCHED},
                        other = {.name = "l.service", .text = STOP("7"), .desired = LAUNCHED},
                        destroy = {.name = "l.service", .destroy = true};
    uint64_t since;

    change_unit(registry, &keep);
    assert_leased(registry, true, 0);
    change_unit(registry, &stop); /* It was nowhere yet. */
    since = registry_version(registry);
    assert_leased(registry, true, since);
    place(registry, "l.service", ID_A);
    change_unit(registry, &other);
    assert_leased(registry, true, since);
    change_unit(registry, &destroy);
    take_over(registry, copy);
    change_unit(copy, &stop);
    assert_leased(copy, true, since);
    place(copy, "l.service", ID_B);
    assert_leased(copy, true, since);
    change_unit(copy, &keep);
    assert_leased(copy, false, 0);
    change_unit(copy, &stop);
    since = registry_version(copy);
    assert_leased(copy, false, since);
    change_unit(copy, &destroy);
    take_over(copy, registry);
    change_unit(registry, &stop); /* Somebody may still run the one in between. */
    assert_leased(registry, false, since);
    place(registry, "l.service", ID_A);
    assert_leased(registry, false, since);
    take_over(registry, copy);
    assert_leased(copy, false, since);
    change_unit(copy, &(struct change){.name = "l.service", .desired = INACTIVE});
    change_unit(copy, &(struct change){.name = "l.service", .desired = LAUNCHED});
    place_clean(copy, "l.service", ID_C); /* Nothing runs any more. */
    assert_leased(copy, true, since);
    change_unit(copy, &keep);
    change_unit(copy, &destroy);
    change_unit(copy, &stop);
    assert_leased(copy, false, registry_version(copy));
    change_unit(copy, &(struct change){.name = "g.service", .text = PLAIN "[X-Fleet]\nGlobal=true\n"});
    change_unit(copy, &(struct change){.name = "g.service", .text = STOP("5"), .desired = LAUNCHED});
    place(copy, "g.service", ID_A); /* Everybody may have had it. */
    assert_false(registry_unit(copy, "g.service")->leased);
}

static void says_leased(struct registry *registry, bool former_gone)
{
    const struct registry_unit *unit = registry_unit(registry, "l.service");

    assert_int_equal(schedule(registry,
                              &(struct placement){"l.service", unit->target, unit->target, unit->generation,
                                                  former_gone, true},
                              1),
                     0);
}

/* The leader has heard from all of them. Nothing moves, and nothing is done anew. */
static void test_everybody_runs_it_under_a_lease_by_now(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    const struct change keep = {.name = "l.service", .text = PLAIN, .desired = LAUNCHED},
                        stop = {.name = "l.service", .text = STOP("5"), .desired = LAUNCHED};
    const struct registry_unit *unit;
    uint64_t generation, token;

    change_unit(registry, &keep);
    place(registry, "l.service", ID_A);
    place(registry, "l.service", ID_B);
    says_leased(registry, false); /* It has OnDisconnect=keep: that makes no sense. */
    assert_leased(registry, false, 0);
    change_unit(registry, &stop);
    unit = registry_unit(registry, "l.service");
    generation = unit->generation;
    token = unit->token;
    says_leased(registry, true);
    assert_leased(registry, true, generation);
    assert_former(unit, NULL);
    assert_int_equal(unit->generation, generation);
    assert_int_equal(unit->token, token);
    assert_string_equal(unit->target, ID_B);
    take_over(registry, copy);
    assert_leased(copy, true, generation);
}

static void test_what_was_global_may_be_anywhere(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    const struct change global = {.name = "l.service", .text = PLAIN "[X-Fleet]\nGlobal=true\n"},
                        stop = {.name = "l.service", .text = STOP("5"), .desired = LAUNCHED},
                        destroy = {.name = "l.service", .destroy = true};

    change_unit(registry, &global);
    assert_false(registry_unit(registry, "l.service")->anywhere);
    change_unit(registry, &stop);
    assert_true(registry_unit(registry, "l.service")->anywhere);
    place(registry, "l.service", ID_A);
    take_over(registry, copy);
    assert_true(registry_unit(copy, "l.service")->anywhere);
    change_unit(copy, &destroy);
    take_over(copy, registry);
    change_unit(registry, &stop);
    assert_true(registry_unit(registry, "l.service")->anywhere);
    place_clean(registry, "l.service", ID_B); /* The leader knows better. */
    assert_false(registry_unit(registry, "l.service")->anywhere);
    assert_true(registry_unit(registry, "l.service")->leased);
    change_unit(registry, &destroy);
    change_unit(registry, &global);
    change_unit(registry, &destroy);
    change_unit(registry, &stop);
    assert_true(registry_unit(registry, "l.service")->anywhere);
}

static void test_changes(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    struct registry_changes changes;

    registry_changes_take(registry, &changes);
    assert_true(changes.machines);
    registry_changes_done(&changes);
    change_unit(registry, &(struct change){.name = "a.service", .text = PLAIN});
    change_unit(registry, &(struct change){.name = "b.service", .text = OTHER});
    change_unit(registry, &(struct change){.name = "t@.service", .destroy = true});
    registry_changes_take(registry, &changes);
    assert_int_equal(changes.units.count, 2);
    assert_string_equal(changes.units.items[0], "b.service");
    assert_string_equal(changes.units.items[1], "t@.service");
    assert_false(changes.machines || changes.everything);
    registry_changes_done(&changes);
}

/* ---- requests ---- */

static void test_requests(void **state)
{
    static const char id[REQUEST_ID_SIZE + 1] = "a request is one";
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    const struct change create = {.name = "a.service", .text = PLAIN, .if_absent = true};
    const struct registry_result *result = change_units(registry, id, &create, 1);
    uint64_t version = registry_version(registry);

    assert_int_equal(result->status, 0);
    assert_int_equal(result->version, version);
    result = change_units(registry, id, &create, 1);
    assert_int_equal(result->status, 0);
    assert_int_equal(result->version, version);
    assert_int_equal(registry_version(registry), version);
    assert_int_equal(registry_request(registry, id)->version, version);
    /* A refusal is remembered, too: what was told once stays true. */
    assert_int_equal(change_units(registry, "another request.", &create, 1)->status, -EEXIST);
    change_unit(registry, &(struct change){.name = "a.service", .destroy = true});
    result = change_units(registry, "another request.", &create, 1);
    assert_int_equal(result->status, -EEXIST);
    assert_string_equal(result->text, "unit a.service exists already");
    assert_null(registry_unit(registry, "a.service"));
    assert_null(registry_request(registry, "never heard of it"));
}

static void test_requests_are_forgotten(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();

    for (unsigned i = 0; i <= REQUESTS_REMEMBERED_MAX; i++) {
        char id[REQUEST_ID_SIZE + 1];

        snprintf(id, sizeof id, "request %08u", i);
        change_units(registry, id, &(struct change){.name = "a.service", .text = PLAIN}, 1);
    }
    assert_null(registry_request(registry, "request 00000000"));
    assert_non_null(registry_request(registry, "request 00000001"));
    assert_non_null(registry_request(registry, "request 00004096"));
}

/* ---- machines ---- */

static void test_machines(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    const struct registry_machine *machine;
    size_t count;

    change_metadata(registry, ID_B, "later", "yes");
    registry_machines(registry, &count);
    assert_int_equal(count, 0);
    assert_int_equal(registry_machine_count(registry), 1);

    assert_int_equal(register_machine(registry, ID_B, "role", "web"), 0);
    assert_int_equal(register_machine(registry, ID_A, NULL, NULL), 0);
    machine = registry_machines(registry, &count)[1];
    assert_int_equal(count, 2);
    assert_string_equal(machine->id, ID_B);
    assert_int_equal(machine->joined_wall_ms, 99);
    assert_int_equal(machine->label_count, 2);
    assert_string_equal(machine->labels[0].key, "later");
    assert_string_equal(machine->labels[1].value, "web");

    change_metadata(registry, ID_B, "role", "db"); /* Overrides... */
    assert_string_equal(machine->labels[1].value, "db");
    change_metadata(registry, ID_B, "role", NULL); /* ...and hides what the configuration says... */
    assert_int_equal(machine->label_count, 1);
    register_machine(registry, ID_B, "role", "web"); /* ...also when the host says it again. */
    assert_int_equal(machine->label_count, 1);

    assert_int_equal(remove_machine(registry, ID_B), 0);
    assert_null(registry_machine(registry, ID_B));
    registry_machines(registry, &count);
    assert_int_equal(count, 1);
}

static int judge(struct registry *registry, const char *id, Fleet__Verdict verdict, bool confirmed)
{
    Fleet__MachineChange first = FLEET__MACHINE_CHANGE__INIT, second = FLEET__MACHINE_CHANGE__INIT;
    Fleet__MachineChange *list[] = {&first, &second};
    Fleet__ChangeMachines body = FLEET__CHANGE_MACHINES__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    first.machine_id = (char *)ID_A;
    second.machine_id = (char *)id;
    first.verdict = second.verdict = verdict;
    second.confirmed = confirmed;
    body.changes = list;
    body.n_changes = ARRAY_SIZE(list);
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = &body;
    command.wall_ms = 4321;
    return apply(registry, &command)->status;
}

static int judge_machine(struct registry *registry, const char *id, Fleet__Verdict verdict)
{
    return judge(registry, id, verdict, false);
}

/* What a person has said holds until the machine is back, whatever the leader says besides. */
static void test_confirmed(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    const struct registry_machine *a = registry_machine(registry, ID_A),
                                  *b = registry_machine(registry, ID_B);

    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_LOST);
    assert_false(b->lost_confirmed);
    judge(registry, ID_B, FLEET__VERDICT__VERDICT_LOST, true); /* It is lost already. */
    assert_true(b->lost_confirmed);
    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_LOST);
    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_UNCHANGED);
    assert_true(b->lost_confirmed);
    assert_false(a->lost_confirmed);
    take_over(registry, copy);
    assert_true(registry_machine(copy, ID_B)->lost_confirmed);
    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_BACK);
    assert_false(b->lost_confirmed);
    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_LOST);
    assert_false(b->lost_confirmed);
}

static void test_verdicts(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    const struct registry_machine *a = registry_machine(registry, ID_A),
                                  *b = registry_machine(registry, ID_B);
    uint64_t version = registry_version(registry);

    assert_int_equal(judge_machine(registry, ID_C, FLEET__VERDICT__VERDICT_LOST), -ENOENT);
    assert_false(a->lost); /* Wholly or not at all. */
    assert_int_equal(registry_version(registry), version);
    assert_int_equal(judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_LOST), 0);
    assert_true(a->lost && b->lost);
    assert_int_equal(b->lost_wall_ms, 4321);
    register_machine(registry, ID_B, NULL, NULL); /* Says what it is like, not that it was heard. */
    assert_int_equal(judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_UNCHANGED), 0);
    assert_true(b->lost);
    assert_int_equal(judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_BACK), 0);
    assert_false(a->lost || b->lost);
}

static int wish(struct registry *registry, const char *id, Fleet__VoteWish vote, Fleet__Leaving leaving)
{
    Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT, *list[] = {&change};
    Fleet__ChangeMachines body = FLEET__CHANGE_MACHINES__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    change.machine_id = (char *)id;
    change.vote = vote;
    change.leaving = leaving;
    body.changes = list;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = &body;
    return apply(registry, &command)->status;
}

static void test_wishes(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry(), *copy = registry_new();
    const struct registry_machine *a = registry_machine(registry, ID_A),
                                  *b = registry_machine(registry, ID_B);
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    assert_int_equal(wish(registry, ID_A, FLEET__VOTE_WISH__VOTE_WISH_ALWAYS, FLEET__LEAVING__LEAVING_YES),
                     0);
    assert_int_equal(
        wish(registry, ID_B, FLEET__VOTE_WISH__VOTE_WISH_NEVER, FLEET__LEAVING__LEAVING_UNCHANGED), 0);
    assert_true(a->vote == VOTE_ALWAYS && a->leaving && b->vote == VOTE_NEVER && !b->leaving);
    assert_int_equal(
        wish(registry, ID_B, FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED, FLEET__LEAVING__LEAVING_UNCHANGED), 0);
    assert_true(b->vote == VOTE_NEVER);
    bytes = snapshot(registry, &size);
    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_true(registry_machine(copy, ID_A)->vote == VOTE_ALWAYS && registry_machine(copy, ID_A)->leaving);
    assert_true(registry_machine(copy, ID_B)->vote == VOTE_NEVER && registry_machine(copy, ID_B)->no_store);

    assert_int_equal(wish(registry, ID_A, FLEET__VOTE_WISH__VOTE_WISH_AUTOMATIC, FLEET__LEAVING__LEAVING_NO),
                     0);
    assert_true(a->vote == VOTE_AUTOMATIC && !a->leaving);
    /* It leaves until it joins anew, with another server id; not by calling. */
    assert_int_equal(wish(registry, ID_A, FLEET__VOTE_WISH__VOTE_WISH_NEVER, FLEET__LEAVING__LEAVING_YES), 0);
    register_machine(registry, ID_A, NULL, NULL);
    assert_true(a->leaving);
    ((struct registry_machine *)a)->server_id = 5;
    register_machine(registry, ID_A, NULL, NULL);
    assert_true(!a->leaving && a->vote == VOTE_NEVER);
}

/* ---- snapshots ---- */

static void test_snapshot_round_trip(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    _cleanup_(registry_freep) struct registry *copy = full_registry(); /* What it had is replaced. */
    size_t size;
    _cleanup_(freep) uint8_t *bytes = NULL;
    struct registry_changes changes;
    const struct registry_unit *unit;

    judge_machine(registry, ID_B, FLEET__VERDICT__VERDICT_LOST);
    bytes = snapshot(registry, &size);
    change_unit(copy, &(struct change){.name = "extra.service", .text = PLAIN});
    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_same(copy, bytes, size);
    assert_null(registry_unit(copy, "extra.service"));
    registry_changes_take(copy, &changes);
    assert_true(changes.everything);
    registry_changes_done(&changes);
    unit = registry_unit(copy, "b.service");
    assert_int_equal(unit->desired, UNIT_STATE_LOADED);
    assert_string_equal(unit->target, ID_B);
    assert_former(unit, ID_A, NULL);
    assert_int_equal(unit->placed_wall_ms, 1234);
    assert_true(registry_unit(copy, "r.service")->restart > 0);
    assert_int_equal(registry_unit(copy, "r.service")->restart,
                     registry_unit(registry, "r.service")->restart);
    assert_int_equal(registry_request(copy, "request-number-2")->status, -EEXIST);
    assert_int_equal(registry_machine(copy, ID_A)->label_count, 1);
    assert_true(registry_machine(copy, ID_B)->lost);
    assert_int_equal(registry_machine(copy, ID_B)->lost_wall_ms, 4321);

    /* From there on, both go the same way. */
    change_unit(registry, &(struct change){.name = "departed.service", .text = PLAIN});
    change_unit(copy, &(struct change){.name = "departed.service", .text = PLAIN});
    assert_former(registry_unit(copy, "departed.service"), ID_A, NULL);
    place(registry, "a.service", ID_B);
    place(copy, "a.service", ID_B);
    free(bytes);
    bytes = snapshot(registry, &size);
    assert_same(copy, bytes, size);
}

static void test_empty_snapshot(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    _cleanup_(registry_freep) struct registry *copy = full_registry();
    size_t size;
    _cleanup_(freep) uint8_t *bytes = snapshot(registry, &size);

    assert_int_equal(registry_restore(copy, bytes, size, NULL), 0);
    assert_int_equal(registry_unit_count(copy), 0);
    assert_same(copy, bytes, size);
}

/* A snapshot stays as it is while the registry changes, is replaced, and even ends. */
static void test_snapshot_is_frozen(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    size_t size, at = 0;
    _cleanup_(freep) uint8_t *bytes = snapshot(registry, &size);
    struct registry_snapshot *taken = registry_snapshot_new(registry);

    change_unit(registry, &(struct change){.name = "a.service", .destroy = true});
    change_unit(registry, &(struct change){.name = "b.service", .text = OTHER});
    change_unit(registry, &(struct change){.name = "c.service", .text = PLAIN}); /* Its content comes back. */
    assert_int_equal(registry_restore(registry, bytes, size, NULL), 0);
    for (size_t i = 0; i < taken->count; i++) {
        assert_memory_equal(taken->pieces[i].base, bytes + at, taken->pieces[i].size);
        at += taken->pieces[i].size;
    }
    assert_int_equal(at, size);
    registry_snapshot_free(registry, taken);
    assert_same(registry, bytes, size);
}

/* Restores a damaged copy; it is refused and changes nothing, or it means the same. */
static void try_damaged(struct registry *registry, const uint8_t *damaged, size_t damaged_size,
                        const uint8_t *bytes, size_t size)
{
    _cleanup_(freep) uint8_t *exact =
        xmemdup(damaged, damaged_size); /* So that reading too far is noticed. */
    struct err err = {0};
    int r = registry_restore(registry, exact, damaged_size, &err);

    if (r < 0) {
        assert_int_equal(r, -EBADMSG);
        assert_true(err.text[0] != '\0');
    }
    assert_same(registry, bytes, size);
}

static void test_damaged_snapshots(void **state)
{
    static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x10};
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    size_t size;
    _cleanup_(freep) uint8_t *bytes = snapshot(registry, &size), *damaged = xmalloc(size + 8);

    for (size_t i = 0; i < size; i++)
        for (size_t j = 0; j < ARRAY_SIZE(flips); j++) {
            memcpy(damaged, bytes, size);
            damaged[i] ^= flips[j];
            try_damaged(registry, damaged, size, bytes, size);
        }
    for (size_t i = 0; i < size; i++)
        try_damaged(registry, bytes, i, bytes, size);
    memcpy(damaged, bytes, size);
    memset(damaged + size, 0, 8);
    assert_int_equal(registry_restore(registry, damaged, size + 8, NULL), -EBADMSG);
    assert_same(registry, bytes, size);
}

/* A snapshot of a later version says which one is needed; a wrong bit is no later version. */
static void test_later_format(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    Fleet__SnapshotHeader header = FLEET__SNAPSHOT_HEADER__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;
    uint8_t bytes[256], id[CLUSTER_ID_SIZE] = {1};
    struct err err = {0};
    uint32_t size;

    header.format = SNAPSHOT_FORMAT + 1;
    header.cluster_id = (ProtobufCBinaryData){.len = sizeof id, .data = id};
    header.written_by = (char *)"77.7";
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_HEADER;
    record.header = &header;
    size = (uint32_t)fleet__snapshot_record__pack(&record, bytes + 4);
    memcpy(bytes, (uint8_t[]){0, 0, 0, (uint8_t)size}, 4);
    assert_int_equal(registry_restore(registry, bytes, size + 4, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.text, "install fleetd 77.7 or later"));

    header.written_by = (char *)PACKAGE_VERSION;
    size = (uint32_t)fleet__snapshot_record__pack(&record, bytes + 4);
    memcpy(bytes, (uint8_t[]){0, 0, 0, (uint8_t)size}, 4);
    assert_int_equal(registry_restore(registry, bytes, size + 4, &err), -EBADMSG);
}

/* ---- a new history ---- */

static const struct cluster_history second = {.recoveries = 1, .id = {7, 8, 9}};

static void round_trip(struct registry **registry)
{
    size_t size;
    _cleanup_(freep) uint8_t *bytes = snapshot(*registry, &size);

    registry_free(*registry);
    *registry = registry_new();
    assert_int_equal(registry_restore(*registry, bytes, size, NULL), 0);
}

/* After the loss of a majority: everything is as it was, but no number is used twice. */
static void test_recovered(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    uint64_t version = registry_version(registry);
    const struct registry_unit *unit;

    registry_renew(registry, &(struct registry_renewal){second, ID_A, 4711, NULL, NULL});
    round_trip(&registry);
    assert_true(history_equal(registry_history(registry), &second));
    assert_int_equal(registry_version(registry), version + REGISTRY_VERSION_LEAP);
    assert_memory_equal(registry_cluster_id(registry), "0123456789abcdef", CLUSTER_ID_SIZE);
    unit = registry_unit(registry, "b.service");
    assert_string_equal(unit->target, ID_B);
    assert_former(unit, ID_A, NULL);
    assert_true(unit->generation <= version); /* Nobody is to carry it out again. */
    assert_int_equal(registry_request(registry, "request-number-2")->status, -EEXIST);
    assert_int_equal(registry_machine(registry, ID_A)->server_id, 4711);
    assert_int_equal(registry_machine(registry, ID_B)->server_id, 77);
    assert_false(registry_machine(registry, ID_B)->awaited);

    assert_int_equal(change_unit(registry, &(struct change){.name = "a.service", .restart = true}), 0);
    assert_int_equal(registry_unit(registry, "a.service")->generation, version + REGISTRY_VERSION_LEAP + 1);
}

/* From a backup: another cluster, whose machines have not joined yet, but will find what they had. */
static void test_restored(void **state)
{
    static const char fresh[] = "fedcba9876543210";
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    uint64_t version = registry_version(registry);
    const struct registry_machine *machine;

    judge_machine(registry, ID_C, FLEET__VERDICT__VERDICT_LOST);
    version = registry_version(registry);
    registry_renew(registry, &(struct registry_renewal){{0}, ID_A, 4711, (const uint8_t *)fresh, NULL});
    round_trip(&registry);
    assert_memory_equal(registry_cluster_id(registry), fresh, CLUSTER_ID_SIZE);
    assert_int_equal(registry_version(registry), version + REGISTRY_VERSION_LEAP);
    assert_int_equal(registry_setting_number(registry, SETTING_VOTERS), 5);
    assert_null(registry_request(registry, "request-number-2"));
    assert_string_equal(registry_unit(registry, "b.service")->target, ID_B);
    assert_int_equal(registry_unit(registry, "b.service")->desired, UNIT_STATE_LOADED);
    assert_int_equal(registry_machine(registry, ID_A)->server_id, 4711);
    assert_false(registry_machine(registry, ID_A)->awaited);
    machine = registry_machine(registry, ID_B);
    assert_true(machine->awaited && machine->registered);
    assert_int_equal(machine->server_id, 0); /* Whoever has the old one is no member. */
    assert_string_equal(machine->boot_id, "");

    assert_int_equal(register_machine(registry, ID_B, NULL, NULL), 0);
    assert_false(machine->awaited);
    assert_int_equal(machine->joined_wall_ms, 99);
}

/* What stands in a backup, and what does not. */
static void test_backup(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = full_registry();
    _cleanup_(registry_freep) struct registry *copy = registry_new();
    struct registry_snapshot *taken = registry_snapshot_for_backup(registry);
    struct strbuf all = {0};

    for (size_t i = 0; i < taken->count; i++)
        strbuf_add_bytes(&all, taken->pieces[i].base, taken->pieces[i].size);
    assert_int_equal(registry_snapshot_size(taken), all.size);
    registry_snapshot_free(registry, taken);
    assert_int_equal(registry_restore(copy, all.text, all.size, NULL), 0);
    strbuf_done(&all);
    assert_int_equal(registry_unit_count(copy), registry_unit_count(registry));
    assert_int_equal(registry_machine_count(copy), registry_machine_count(registry));
    assert_int_equal(registry_version(copy), registry_version(registry));
    assert_non_null(registry_request(registry, "request-number-2"));
    assert_null(registry_request(copy, "request-number-2"));
}

/* ---- growth ---- */

/* Design promise 9: what is created and destroyed again leaves nothing. */
static void test_no_growth(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    struct registry_changes changes;
    size_t before_size, size;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t used = 0;

    change_unit(registry, &(struct change){.name = "stays.service", .text = PLAIN});
    for (unsigned i = 0; i < 100000; i++) {
        char text[64], name[32];

        if (i == 10000)
            used = mallinfo2().uordblks;
        snprintf(text, sizeof text, "[Service]\nExecStart=/bin/echo %u\n", i);
        snprintf(name, sizeof name, "u%u.service", i);
        assert_int_equal(
            change_unit(registry, &(struct change){.name = name, .text = text, .desired = LAUNCHED}), 0);
        assert_int_equal(change_unit(registry, &(struct change){.name = name, .destroy = true}), 0);
        registry_changes_take(registry, &changes);
        registry_changes_done(&changes);
    }
    assert_true(mallinfo2().uordblks <= used + 64 * 1024);
    bytes = snapshot(registry, &size);
    free(bytes);
    registry_free(registry);
    registry = registry_new();
    change_unit(registry, &(struct change){.name = "stays.service", .text = PLAIN});
    bytes = snapshot(registry, &before_size);
    assert_in_range(size, before_size, before_size + 8); /* The version takes more digits. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_refused_leaves_no_trace),
        cmocka_unit_test(test_cluster),
        cmocka_unit_test(test_voters),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_settings_are_limited),
        cmocka_unit_test(test_an_old_snapshot),
        cmocka_unit_test(test_encode_limit),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_named_twice),
        cmocka_unit_test(test_generation_and_token),
        cmocka_unit_test(test_former_targets),
        cmocka_unit_test(test_started_again),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_inactive_is_nowhere),
        cmocka_unit_test(test_void_placements),
        cmocka_unit_test(test_destroyed_units_are_remembered),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_who_runs_under_a_lease),
        cmocka_unit_test(test_everybody_runs_it_under_a_lease_by_now),
        cmocka_unit_test(test_what_was_global_may_be_anywhere),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_requests_are_forgotten),
        cmocka_unit_test(test_machines),
        cmocka_unit_test(test_confirmed),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_snapshot_round_trip),
        cmocka_unit_test(test_empty_snapshot),
        cmocka_unit_test(test_snapshot_is_frozen),
        cmocka_unit_test(test_damaged_snapshots),
        cmocka_unit_test(test_later_format),
        cmocka_unit_test(test_recovered),
        cmocka_unit_test(test_restored),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_no_growth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
