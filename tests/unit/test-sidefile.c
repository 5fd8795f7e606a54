/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/sidefile.h"

static char directory[] = "/tmp/fleet-sidefile-XXXXXX";

static const struct sidefile example = {
    .cluster_id = {0xde, 0xad, 0xbe, 0xef, [15] = 1},
    .server_id = 0x7f00000000000001,
    .term = 6,
    .committed = 1033,
};

static void put(const char *name, const char *text)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name);
    _cleanup_(fclosep) FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
}

static void drop(const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name);

    unlink(path);
}

static void test_reads_what_was_written(void **state)
{
    struct sidefile file, second = example;

    assert_int_equal(sidefile_read(directory, &file, NULL), -ENOENT);
    assert_int_equal(sidefile_write(directory, &example, NULL), 0);
    assert_int_equal(sidefile_read(directory, &file, NULL), 0);
    assert_memory_equal(&file, &example, sizeof file);

    second.committed = second.term = UINT64_MAX;
    assert_int_equal(sidefile_write(directory, &second, NULL), 0);
    assert_int_equal(sidefile_read(directory, &file, NULL), 0);
    assert_memory_equal(&file, &second, sizeof file);
    drop(SIDEFILE_NAME);
}

static void test_refuses_damage(void **state)
{
    static const struct {
        const char *text;
        int r;
    } cases[] = {
        {"", -EBADMSG},
        {"fleet-progress", -EBADMSG},
        {"fleet-progress 2 who knows\n", -EBADMSG},
        {"fleet-progress 2 who knows digest=a848aeee24fa75be34ed1c245f45286f\n", -EPROTONOSUPPORT},
        {"fleet-progress 1 cluster=zz server=1 term=1 committed=1 digest=00000000000000000000000000000000\n",
         -EBADMSG},
        {"fleet-progress 1 cluster=deadbeef000000000000000000000001 server=7f00000000000001 term=6 "
         "committed=1033 digest=00000000000000000000000000000000\n",
         -EBADMSG},
    };
    struct sidefile file = {.term = 77};
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put(SIDEFILE_NAME, cases[i].text);
        err.text[0] = '\0';
        assert_int_equal(sidefile_read(directory, &file, &err), cases[i].r);
        assert_true(err.text[0] != '\0');
        assert_int_equal(file.term, 77);
    }
    drop(SIDEFILE_NAME);
}

/* Every single wrong byte is noticed. */
static void test_notices_each_byte(void **state)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, SIDEFILE_NAME);
    struct sidefile file;
    struct stat st;
    int fd;

    assert_int_equal(sidefile_write(directory, &example, NULL), 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t i = 0; i < st.st_size; i++) {
        char byte, flipped;

        assert_int_equal(pread(fd, &byte, 1, i), 1);
        flipped = (char)(byte ^ 1);
        assert_int_equal(pwrite(fd, &flipped, 1, i), 1);
        assert_true(sidefile_read(directory, &file, NULL) < 0);
        assert_int_equal(pwrite(fd, &byte, 1, i), 1);
    }
    assert_int_equal(sidefile_read(directory, &file, NULL), 0);
    close(fd);
    drop(SIDEFILE_NAME);
}

static void test_failed_write_leaves_the_old_one(void **state)
{
    _cleanup_(freep) char *blocker = xasprintf("%s/%s.new", directory, SIDEFILE_NAME);
    struct sidefile file, second = example;
    struct err err;

    assert_int_equal(sidefile_write(directory, &example, NULL), 0);
    second.term++;
    assert_int_equal(mkdir(blocker, 0700), 0); /* Root is stopped by this as well. */
    assert_true(sidefile_write(directory, &second, &err) < 0);
    assert_non_null(strstr(err.text, directory));
    assert_int_equal(rmdir(blocker), 0);
    assert_int_equal(sidefile_read(directory, &file, NULL), 0);
    assert_memory_equal(&file, &example, sizeof file);
    drop(SIDEFILE_NAME);

    assert_int_equal(sidefile_write("/nonexistent", &example, &err), -ENOENT);
}

static void test_look(void **state)
{
    struct sidefile_state found = {0};

    assert_int_equal(sidefile_look("/nonexistent", &found, NULL), -ENOENT);
    assert_int_equal(sidefile_look(directory, &found, NULL), 0);
    assert_false(found.has_metadata || found.has_log);
    put("open-1", "");
    put("cluster", "");
    assert_int_equal(sidefile_look(directory, &found, NULL), 0);
    assert_false(found.has_metadata || found.has_log);
    put("open-2", "\001.......and an entry");
    assert_int_equal(sidefile_look(directory, &found, NULL), 0);
    assert_true(!found.has_metadata && found.has_log);
    drop("open-2");
    put("metadata2", "");
    put("0000000000000001-0000000000000004", "");
    assert_int_equal(sidefile_look(directory, &found, NULL), 0);
    assert_true(found.has_metadata && found.has_log);
    drop("open-1");
    drop("cluster");
    drop("metadata2");
    drop("0000000000000001-0000000000000004");
}

static struct sidefile_state good_state(void)
{
    struct sidefile_state state = {.server_id = example.server_id,
                                   .term = example.term,
                                   .last_index = example.committed,
                                   .has_metadata = true,
                                   .has_log = true};

    memcpy(state.cluster_id, example.cluster_id, sizeof state.cluster_id);
    return state;
}

static void test_check_accepts(void **state)
{
    struct sidefile fresh = example;
    struct sidefile_state ok = good_state(), empty = good_state();

    assert_int_equal(sidefile_check(&example, &ok, "D", NULL), 0);
    assert_int_equal(sidefile_check(NULL, &ok, "D", NULL), 0);
    ok.last_index++, ok.term++;
    assert_int_equal(sidefile_check(&example, &ok, "D", NULL), 0);

    /* A server that waits to be added. */
    empty.has_metadata = empty.has_log = false;
    empty.term = empty.last_index = 0;
    assert_int_equal(sidefile_check(NULL, &empty, "D", NULL), 0);
    fresh.term = fresh.committed = 0;
    assert_int_equal(sidefile_check(&fresh, &empty, "D", NULL), 0);
}

static void assert_refused(const struct sidefile *file, const struct sidefile_state *found, int code,
                           const char *text)
{
    struct err err = {0};

    assert_int_equal(sidefile_check(file, found, "/d", &err), code);
    assert_string_equal(err.text, text);
}

static void test_check_refuses(void **state)
{
    struct sidefile_state found = good_state();

    found.last_index = 812;
    assert_refused(&example, &found, -ESTALE,
                   "the log in /d ends at 812 but had reached 1033: this disk went back in time; wipe it and "
                   "let this host join again as a new server");

    found = good_state();
    found.term = 5;
    assert_refused(&example, &found, -ESTALE,
                   "the term in /d is 5 but had reached 6: this disk went back in time; wipe it and let this "
                   "host join again as a new server");

    found = good_state();
    found.has_metadata = false;
    assert_int_equal(sidefile_check(&example, &found, "/d", NULL), -ESTALE);
    assert_int_equal(sidefile_check(NULL, &found, "/d", NULL), -ESTALE);
    found.has_log = false;
    assert_refused(&example, &found, -ESTALE,
                   "/d has lost its term and vote (metadata1 and metadata2 are missing): this server might "
                   "vote twice; wipe it and let this host join again as a new server");

    found = good_state();
    found.server_id = 2;
    assert_refused(&example, &found, -EXDEV,
                   "/d belongs to server 7f00000000000001, this is 0000000000000002");
    found.cluster_id[0] = 0;
    assert_refused(&example, &found, -EXDEV,
                   "/d belongs to cluster deadbeef000000000000000000000001, not to "
                   "00adbeef000000000000000000000001");
}

static int set_up(void **state)
{
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    return rmdir(directory); /* Each test has cleaned up. */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_was_written),
        cmocka_unit_test(test_refuses_damage),
        cmocka_unit_test(test_notices_each_byte),
        cmocka_unit_test(test_failed_write_leaves_the_old_one),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_check_accepts),
        cmocka_unit_test(test_check_refuses),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
