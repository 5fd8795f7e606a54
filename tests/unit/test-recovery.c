/* SPDX-License-Identifier: Apache-2.0 */
/* What a person runs by hand while fleetd is stopped: looking changes nothing, and says what is the matter
 * with this host's data; an interrupted recovery is finished; and what a backup says holds from the first
 * minute. Each run is a process of its own, as it is in life. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backup/file.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/credentials.h"
#include "fleetd/identity.h"
#include "fleetd/member.h"
#include "fleetd/recovery.h"
#include "raftstore/offline.h"
#include "tests/unit/cluster-world.h"
#include "tests/unit/store-node.h"

#define MACHINE "0123456789abcdef0123456789abcdef"
#define HOUR_MS (3600u * 1000)

static const uint8_t cluster[CLUSTER_ID_SIZE] = {7};

static struct {
    char directory[64];
    char *data_dir, *backup;
    struct config config;
    char said[8192]; /* By the last run: stdout, then the error. */
} w;

/* ---- instead of this machine's ---- */

int identity_read(const char *public_ip, struct identity *ret, struct err *err)
{
    *ret = (struct identity){
        .machine_id = MACHINE, .hostname = xstrdup("here"), .public_ip = xstrdup("10.0.0.1")};
    return 0;
}

void identity_done(struct identity *identity)
{
    free(identity->hostname);
    free(identity->public_ip);
    *identity = (struct identity){0};
}

/* ---- world ---- */

static int setup(void **state)
{
    make_test_directory(w.directory, sizeof w.directory);
    w.data_dir = xasprintf("%s/data", w.directory);
    w.backup = xasprintf("%s/backup", w.directory);
    config_init(&w.config);
    free(w.config.data_dir);
    w.config.data_dir = xstrdup(w.data_dir);
    return 0;
}

static int teardown(void **state)
{
    remove_directory(w.directory);
    config_done(&w.config);
    free(w.data_dir);
    free(w.backup);
    return 0;
}

static int run_here(const struct recovery *how, const char *backup)
{
    struct err err = {0};
    int r = backup != NULL ? recovery_from_backup(&w.config, backup, how, &err)
                           : recovery_of_quorum(&w.config, how, &err);

    if (r < 0)
        printf("%s\n", err_text(&err, r));
    fflush(stdout);
    return -r;
}

static int run(const struct recovery *how, const char *backup)
{
    _cleanup_(freep) char *path = xasprintf("%s/said", w.directory);
    _cleanup_(fclosep) FILE *file = fopen(path, "w+e");
    pid_t pid;
    int status;

    assert_non_null(file);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        dup2(fileno(file), STDOUT_FILENO);
        _exit(run_here(how, backup));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    rewind(file);
    w.said[fread(w.said, 1, sizeof w.said - 1, file)] = '\0';
    return -WEXITSTATUS(status);
}

static int show(void)
{
    return run(&(struct recovery){.only_show = true}, NULL);
}

static int recover(void)
{
    return run(&(struct recovery){.confirmed = true}, NULL);
}

static void assert_says(const char *text)
{
    if (strstr(w.said, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, w.said);
}

/* A host that is the only voter of its cluster. */
static void become_member(void)
{
    _cleanup_(freep) char *command =
        xasprintf("cp -r %s %s && chmod -R u+w %s", STORE_1, w.data_dir, w.data_dir);
    struct member member = {.server_id = 1, .machine_id = MACHINE, .has_log = true};
    struct err err = {0};

    memcpy(member.cluster_id, cluster, sizeof cluster);
    assert_int_equal(system(command), 0);
    assert_int_equal(member_save(w.data_dir, &member, &err), 0);
}

/* Steps 1 and (with 'holds') 2 of offline.h, and then there was a power cut. */
static void begin_recovery(uint64_t server_id, bool holds)
{
    struct member member;
    struct offline_log log;
    struct offline_seed seed = {.server_id = server_id, .address = "10.0.0.1:7390"};
    struct err err = {0};

    assert_int_equal(member_load(w.data_dir, &member, &err), 0);
    assert_int_equal(offline_read(w.data_dir, cluster, member.server_id, &log, &err), 0);
    memcpy(seed.cluster_id, cluster, sizeof cluster);
    seed.index = log.last_index;
    seed.term = log.term + 1;
    seed.registry = log.registry;
    assert_int_equal(offline_write(w.data_dir, &seed, &err), 0);
    offline_log_done(&log);
    member.server_id = server_id;
    if (holds)
        assert_int_equal(member_save(w.data_dir, &member, &err), 0);
    member_done(&member);
}

static void assert_looking_changes_nothing(const char *data_dir)
{
    _cleanup_(freep) char *before = directory_sum(data_dir), *after = NULL;

    assert_int_equal(show(), 0);
    after = directory_sum(data_dir);
    assert_string_equal(before, after);
}

/* ---- --recover-quorum ---- */

static void test_nothing_there(void **state)
{
    assert_int_equal(show(), -ENOENT);
    assert_says("belongs to no cluster");
    assert_int_not_equal(access(w.data_dir, F_OK), 0); /* It was not made, either. */
    assert_int_equal(recover(), -ENOENT);
}

/* The log is from when this test was written: nobody wants to count the seconds since then. */
static void assert_says_how_long_ago(void)
{
    const char *begin = strchr(strstr(w.said, "Newest change:"), '(');
    const char *end = begin != NULL ? strstr(begin, " ago, if the clocks are right)\n") : NULL;
    _cleanup_(freep) char *said = NULL, *right = NULL;
    uint64_t ms;

    assert_non_null(end);
    said = strndup(begin + 1, (size_t)(end - begin - 1));
    assert_int_equal(duration_parse(said, &ms, NULL), 0);
    right = duration_format(ms);
    assert_string_equal(said, right);
    assert_true(ms >= HOUR_MS && ms % 1000 == 0);
}

static void test_looking(void **state)
{
    become_member();
    assert_looking_changes_nothing(w.data_dir);
    assert_says("111 units");
    assert_says("term 1, index 118");
    assert_says("there is nothing to recover");
    assert_says_how_long_ago();
    assert_int_equal(recover(), -EALREADY);
}

static void test_looking_at_an_interrupted_recovery(void **state)
{
    _cleanup_(freep) char *aside = NULL;

    become_member();
    aside = xasprintf("%s/raft.old1", w.data_dir);
    begin_recovery(77, false);
    assert_looking_changes_nothing(w.data_dir);
    assert_null(strstr(w.said, "INTERRUPTED")); /* It has come to nothing. */
    assert_says("term 1, index 118");

    begin_recovery(78, true);
    assert_looking_changes_nothing(w.data_dir);
    assert_says("INTERRUPTED:");
    assert_says("systemctl start fleetd");
    assert_says("term 2, index 118"); /* The new log is what holds. */
    assert_int_not_equal(access(aside, F_OK), 0);

    assert_int_equal(recover(), 0);
    assert_says("was interrupted is finished. The old log is in ");
    assert_int_equal(access(aside, F_OK), 0);
    assert_looking_changes_nothing(w.data_dir);
    assert_null(strstr(w.said, "INTERRUPTED"));
    assert_says("there is nothing to recover");
}

static void test_looking_at_a_superseded_host(void **state)
{
    struct err err = {0};

    become_member();
    assert_int_equal(member_supersede(w.data_dir, "the cluster went on without it. Move it away", &err), 0);
    assert_looking_changes_nothing(w.data_dir);
    assert_says(
        "SUPERSEDED:     do not recover from this host: the cluster went on without it. Move it away");
    assert_int_equal(recover(), -EPERM);
    assert_says("are not to be used");
}

/* That there is no place to read the log in does not mean that there is no log: whoever believes that
 * restores a backup, and loses what is newer. */
static void test_looking_without_a_place_for_it(void **state)
{
    const char *before = getenv("TMPDIR");
    _cleanup_(freep) char *kept = before != NULL ? xstrdup(before) : NULL;
    _cleanup_(freep) char *nowhere = xasprintf("%s/none", w.directory);

    become_member();
    assert_int_equal(setenv("TMPDIR", nowhere, 1), 0);
    assert_int_equal(show(), -EIO);
    assert_says("No such file or directory. TMPDIR says where else");
    assert_null(strstr(w.said, "keeps no copy"));
    assert_int_equal(kept != NULL ? setenv("TMPDIR", kept, 1) : unsetenv("TMPDIR"), 0);
    assert_int_equal(show(), 0);
}

/* ---- --restore ---- */

/* A registry in which somebody has said how long certificates hold. */
static struct registry *new_cluster(const char *lifetime)
{
    struct registry *registry = registry_new();
    Fleet__CreateCluster create = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Setting setting = FLEET__SETTING__INIT, *settings[] = {&setting};
    Fleet__ChangeSettings change = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    create.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)cluster};
    create.voters = 3;
    create.level = 1;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &create;
    cluster_apply(registry, &command, 1000);
    setting.name = (char *)"certificate_lifetime";
    setting.value = (char *)lifetime;
    change.changes = settings;
    change.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &change;
    cluster_apply(registry, &command, 1000);
    return registry;
}

static void back_up(struct registry *registry)
{
    struct registry_snapshot *taken = registry_snapshot_new(registry);
    struct backup_header header = {
        .cluster = "07000000000000000000000000000000", .made = "2026-07-29T12:00:03Z", .version = "2.1.0"};
    struct backup_writer writer;
    _cleanup_(closep) int fd = open(w.backup, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    for (size_t i = 0; i < taken->count; i++)
        header.size += taken->pieces[i].size;
    assert_int_equal(backup_begin(&writer, fd, &header), 0);
    for (size_t i = 0; i < taken->count; i++)
        assert_int_equal(backup_add(&writer, taken->pieces[i].base, taken->pieces[i].size), 0);
    assert_int_equal(backup_end(&writer), 0);
    registry_snapshot_free(registry, taken);
}

/* The first certificate holds for as long as the cluster's setting says, like all that follow. */
static void test_a_restored_host_is_certified_as_the_settings_say(void **state)
{
    struct registry *registry = new_cluster("2h");
    struct credentials credentials;
    struct err err = {0};
    uint64_t now = wall_ms();

    back_up(registry);
    registry_free(registry);
    assert_int_equal(run(&(struct recovery){.only_show = true}, w.backup), 0);
    assert_int_not_equal(access(w.data_dir, F_OK), 0);
    assert_int_equal(run(&(struct recovery){0}, w.backup), 0);
    assert_says("is the only member of the new cluster");
    assert_int_equal(credentials_load(w.data_dir, &credentials, &err), 0);
    assert_true(credentials_complete(&credentials));
    assert_in_range(credentials.info.not_after_ms, now + 2 * HOUR_MS - 5000, now + 2 * HOUR_MS + 60000);
    credentials_done(&credentials);
}

/* A host that could not be the one to restore it on: what it is, and has, is not looked at. */
static void test_a_backup_is_shown_anywhere(void **state)
{
    _cleanup_(freep) char *member = xasprintf("%s/member", w.data_dir);
    struct registry *registry = new_cluster("2h");

    back_up(registry);
    registry_free(registry);
    become_member();
    assert_int_equal(truncate(member, 1), 0);
    assert_int_equal(run(&(struct recovery){.only_show = true}, w.backup), 0);
    assert_says("07000000000000000000000000000000");
    assert_null(strstr(w.said, w.data_dir));
    assert_int_not_equal(run(&(struct recovery){0}, w.backup), 0);
    assert_says(w.data_dir);
    assert_int_equal(run(&(struct recovery){.only_show = true}, member), -EBADMSG);
    assert_says("is no backup");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_there),
        TEST(test_looking),
        TEST(test_looking_at_an_interrupted_recovery),
        TEST(test_looking_at_a_superseded_host),
        TEST(test_looking_without_a_place_for_it),
        TEST(test_a_backup_is_shown_anywhere),
        TEST(test_a_restored_host_is_certified_as_the_settings_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
