/* SPDX-License-Identifier: Apache-2.0 */
/* The feature level: when a cluster has which, and what older versions are spared. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/greeting.h"
#include "raftstore/registry.h"
#include "raftstore/registry_level.h"
#include "raftstore/registry_private.h"
#include "raftstore/registry_security.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* Undoes registry_new(); for _cleanup_. */
static void registry_freep(struct registry **registry)
{
    registry_free(*registry);
}

static int apply(struct registry *registry, Fleet__Command *command)
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = 1000;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    return registry_apply(registry, bytes, size)->status;
}

static struct registry *new_cluster(unsigned level, bool secure)
{
    struct registry *registry = registry_new();
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)"0123456789abcdef"};
    authority.certificate = (ProtobufCBinaryData){.len = 4, .data = (uint8_t *)"root"};
    authority.private_key = authority.certificate;
    body.voters = 3;
    body.level = level;
    body.authority = secure ? &authority : NULL;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    assert_int_equal(apply(registry, &command), 0);
    return registry;
}

static int set_level(struct registry *registry, unsigned level)
{
    Fleet__SetLevel body = FLEET__SET_LEVEL__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.level = level;
    command.body_case = FLEET__COMMAND__BODY_SET_LEVEL;
    command.set_level = &body;
    return apply(registry, &command);
}

static int register_machine(struct registry *registry, unsigned level)
{
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)ID_A;
    body.server_id = 7;
    body.level = level;
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    return apply(registry, &command);
}

static int remove_machine(struct registry *registry)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)ID_A;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    return apply(registry, &command);
}

static uint8_t *take_snapshot(struct registry *registry, size_t *ret_size)
{
    struct registry_snapshot *snapshot = registry_snapshot_new(registry);
    struct strbuf bytes = {0};

    for (size_t i = 0; i < snapshot->count; i++)
        strbuf_add_bytes(&bytes, snapshot->pieces[i].base, snapshot->pieces[i].size);
    registry_snapshot_free(registry, snapshot);
    *ret_size = bytes.size;
    return (uint8_t *)strbuf_take(&bytes);
}

static uint32_t format_of(const uint8_t *snapshot)
{
    Fleet__SnapshotRecord *record = fleet__snapshot_record__unpack(NULL, get_be32(snapshot), snapshot + 4);
    uint32_t format;

    assert_non_null(record);
    format = record->header->format;
    fleet__snapshot_record__free_unpacked(record, NULL);
    return format;
}

/* ---- what level a cluster has ---- */

static void test_level_of_a_cluster(void **state)
{
    _cleanup_(registry_freep) struct registry *old = new_cluster(0, false), *fresh = new_cluster(1, false),
                                              *secure = new_cluster(0, true);

    assert_int_equal(registry_level(old), 0);
    assert_int_equal(registry_level(fresh), 1);
    assert_int_equal(registry_level(secure), FEATURE_LEVEL_SECURE); /* No older host speaks TLS. */
    assert_int_equal(set_level(old, 1), 0);
    assert_int_equal(registry_level(old), 1);
    assert_int_equal(set_level(old, 0), 0); /* Never down. */
    assert_int_equal(registry_level(old), 1);
    assert_false(registry_is_behind(old));
}

static void test_too_new_for_this_version(void **state)
{
    static const uint8_t newer[] = {0, 0, 0, 3, 0xfa, 0x7f, 0x00, 0x00};   /* Field 2047, empty. */
    static const uint8_t unknown[] = {0, 0, 0, 4, 0xfa, 0x7f, 0x00, 0x07}; /* Cut off within another one. */
    _cleanup_(registry_freep) struct registry *registry = new_cluster(1, false),
                                              *other = new_cluster(1, false);

    assert_int_equal(registry_apply(registry, unknown, sizeof unknown)->status, -EBADMSG);
    assert_false(registry_is_behind(registry)); /* That is nonsense for everybody. */
    assert_int_equal(registry_apply(registry, newer, sizeof newer)->status, -ENOTSUP);
    assert_true(registry_is_behind(registry));
    assert_int_equal(set_level(other, FEATURE_LEVEL + 1), 0);
    assert_true(registry_is_behind(other));
}

static void test_snapshots(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster(0, false), *copy = registry_new();
    _cleanup_(freep) uint8_t *old = NULL, *fresh = NULL, *newer = NULL;
    size_t old_size, fresh_size, newer_size;
    struct err err = {0};

    assert_int_equal(register_machine(registry, 1), 0);
    old = take_snapshot(registry, &old_size);
    assert_int_equal(format_of(old), 1); /* That older versions read, too. */
    assert_int_equal(registry_restore(copy, old, old_size, &err), 0);
    assert_int_equal(registry_level(copy), 0);
    assert_int_equal(registry_machine(copy, ID_A)->level, 1);

    assert_int_equal(set_level(registry, 1), 0);
    fresh = take_snapshot(registry, &fresh_size);
    assert_int_equal(format_of(fresh), 2); /* And that they refuse. */
    assert_int_equal(registry_restore(copy, fresh, fresh_size, &err), 0);
    assert_int_equal(registry_level(copy), 1);

    assert_int_equal(set_level(registry, FEATURE_LEVEL + 1), 0);
    newer = take_snapshot(registry, &newer_size);
    assert_int_equal(registry_restore(copy, newer, newer_size, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.text, "which knows level"));
    assert_int_equal(registry_level(copy), 1);
}

/* ---- what people are told ---- */

/* The cells of a row of docs/UPGRADE.md's table, "| 1 | 2.1.0 | texts |"; false: the line is none. */
static bool read_row(char *line, char *cells[static 3])
{
    if (line[0] != '|' || line[1] != ' ' || line[2] < '0' || line[2] > '9')
        return false;
    line++;
    for (size_t i = 0; i < 3; i++) {
        char *cell = strsep(&line, "|"), *end;

        assert_non_null(line); /* There was a bar. */
        cells[i] = cell + strspn(cell, " ");
        for (end = strchr(cells[i], '\0'); end > cells[i] && end[-1] == ' '; end--)
            end[-1] = '\0';
    }
    return true;
}

/* The table of docs/UPGRADE.md and the one that fleetctl's texts are made of say the same, level for level.
 */
static void test_the_table_in_the_documentation(void **state)
{
    _cleanup_(fclosep) FILE *file = fopen(SOURCE_DIR "/docs/UPGRADE.md", "re");
    unsigned level = 0;
    char line[1000];

    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        char *cells[3];

        if (!read_row(line, cells))
            continue;
        assert_true(level <= FEATURE_LEVEL);
        assert_int_equal(strtoul(cells[0], NULL, 10), level);
        assert_string_equal(cells[1], level_row(level)->version);
        assert_string_equal(cells[2], level_row(level)->features);
        level++;
    }
    assert_int_equal(level, FEATURE_LEVEL + 1);
}

/* ---- what is spared older versions ---- */

/* They do not remember that a machine was removed, and would register it again where others refuse. */
static void test_removed_as_older_versions_do(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster(0, false);

    assert_int_equal(register_machine(registry, 0), 0);
    assert_int_equal(remove_machine(registry), 0);
    assert_null(registry_removed(registry, ID_A));
    assert_int_equal(register_machine(registry, 0), 0);
    assert_int_equal(set_level(registry, 1), 0);
    assert_int_equal(remove_machine(registry), 0);
    assert_non_null(registry_removed(registry, ID_A));
    assert_int_equal(register_machine(registry, 1), -EACCES);
}

static void test_commands_wait(void **state)
{
    Fleet__ChangeSettings settings = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &settings;
    settings.voters = 3;
    assert_int_equal(level_of_command(&command), 0); /* What the first version knew. */
    settings.n_changes = 1;
    assert_int_equal(level_of_command(&command), 1);
    command.body_case = FLEET__COMMAND__BODY_ADD_JOIN_TOKEN;
    assert_int_equal(level_of_command(&command), 1);
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    assert_int_equal(level_of_command(&command), 0);
}

/* ---- who is heard in consensus ---- */

static void test_peers(void **state)
{
    struct port_identity identity = {.level = 1, .level_needed = 1};
    struct err err = {0};

    assert_int_equal(greeting_check_level(&identity, FLEET__PURPOSE__PURPOSE_RAFT, 1, "2.1.0", &err), 0);
    assert_int_equal(greeting_check_level(&identity, FLEET__PURPOSE__PURPOSE_RAFT, 2, "2.2.0", &err), 0);
    assert_int_equal(greeting_check_level(&identity, FLEET__PURPOSE__PURPOSE_RAFT, 0, "2.0.0", &err),
                     -EPROTO);
    assert_string_equal(err.text,
                        "fleet 2.0.0 there has feature level 0, and the cluster is at 1: upgrade it");
    /* The leader answers it, with more words. */
    assert_int_equal(greeting_check_level(&identity, FLEET__PURPOSE__PURPOSE_SESSION, 0, "", &err), 0);
    identity.level_needed = 0;
    assert_int_equal(greeting_check_level(&identity, FLEET__PURPOSE__PURPOSE_RAFT, 0, "", &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level_of_a_cluster),
        cmocka_unit_test(test_too_new_for_this_version),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_removed_as_older_versions_do),
        cmocka_unit_test(test_commands_wait),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_the_table_in_the_documentation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
