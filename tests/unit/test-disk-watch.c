/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/disk_watch.h"

#define MIB DISK_WATCH_MIB

static void test_level(void **state)
{
    static const struct {
        enum disk_level from;
        uint64_t free_bytes;
        enum disk_level to;
    } cases[] = {
        {DISK_LEVEL_OK, UINT64_MAX, DISK_LEVEL_OK},
        {DISK_LEVEL_OK, 64 * MIB, DISK_LEVEL_OK},
        {DISK_LEVEL_OK, 64 * MIB - 1, DISK_LEVEL_LOW},
        {DISK_LEVEL_OK, 16 * MIB - 1, DISK_LEVEL_CRITICAL},
        {DISK_LEVEL_OK, 0, DISK_LEVEL_CRITICAL},
        /* Slack: a disk at the border does not wander. */
        {DISK_LEVEL_LOW, 64 * MIB, DISK_LEVEL_LOW},
        {DISK_LEVEL_LOW, 80 * MIB - 1, DISK_LEVEL_LOW},
        {DISK_LEVEL_LOW, 80 * MIB, DISK_LEVEL_OK},
        {DISK_LEVEL_LOW, 16 * MIB, DISK_LEVEL_LOW},
        {DISK_LEVEL_LOW, 16 * MIB - 1, DISK_LEVEL_CRITICAL},
        {DISK_LEVEL_CRITICAL, 32 * MIB - 1, DISK_LEVEL_CRITICAL},
        {DISK_LEVEL_CRITICAL, 32 * MIB, DISK_LEVEL_LOW},
        {DISK_LEVEL_CRITICAL, 64 * MIB, DISK_LEVEL_LOW},
        {DISK_LEVEL_CRITICAL, 80 * MIB, DISK_LEVEL_OK},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_string_equal(disk_level_name(disk_level_next(cases[i].from, cases[i].free_bytes)),
                            disk_level_name(cases[i].to));
}

static void test_reason(void **state)
{
    struct err err = {0};

    assert_int_equal(disk_level_reason(DISK_LEVEL_OK, 0, "/d", &err), 0);
    assert_string_equal(err.text, "");
    assert_int_equal(disk_level_reason(DISK_LEVEL_LOW, 41 * MIB + 5, "/d", &err), -ENOSPC);
    assert_string_equal(err.text, "only 41 MiB are free in /d");
}

static void test_free_space(void **state)
{
    struct err err;
    uint64_t bytes = 7;

    assert_int_equal(disk_watch_free("/nonexistent", &bytes, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent"));
    assert_int_equal(bytes, 7);
    assert_int_equal(disk_watch_free("/", &bytes, &err), 0);
    assert_int_not_equal(bytes, 7);
}

static void test_ballast(void **state)
{
    char directory[] = "/tmp/fleet-disk-watch-XXXXXX";
    _cleanup_(freep) char *path = NULL;
    struct rlimit limit, small;
    struct err err;
    struct stat st;

    assert_int_equal(disk_watch_keep_ballast("/nonexistent", &err), -ENOENT);
    assert_non_null(mkdtemp(directory));
    path = xasprintf("%s/%s", directory, DISK_WATCH_BALLAST_NAME);

    /* No room (here: a limit): no half of a ballast is left. */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = MIB;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(disk_watch_keep_ballast(directory, &err), -EFBIG);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);

    /* Real blocks, and again if somebody has emptied it. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(disk_watch_keep_ballast(directory, NULL), 0);
        assert_int_equal(disk_watch_keep_ballast(directory, NULL), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_true((uint64_t)st.st_blocks * 512 >= DISK_WATCH_BALLAST_BYTES);
        assert_int_equal(st.st_size, DISK_WATCH_BALLAST_BYTES);
        assert_int_equal(truncate(path, 0), 0);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_reason),
        cmocka_unit_test(test_free_space),
        cmocka_unit_test(test_ballast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
