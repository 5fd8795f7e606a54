/* SPDX-License-Identifier: Apache-2.0 */
/* The member file: what was written is read, what was damaged is noticed, what an earlier version wrote is
 * understood, and a later one is named. */
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fleetd/member.h"
#include "raftstore/digest.h"
#include "raftstore/limits.h"

static char directory[] = "/tmp/fleet-member-XXXXXX";
static char path[64];

/* Longer than what inih reads of a line by itself. */
static const char *longest_address(void)
{
    static char text[ADDRESS_MAX + 1];

    for (size_t i = 0; i < ADDRESS_MAX - 6; i++)
        text[i] = i % 64 == 63 ? '.' : 'x';
    strcpy(text + ADDRESS_MAX - 6, ":7390");
    return text;
}

static void fill(struct member *member)
{
    *member = (struct member){.cluster_id = {0xde, 0xad, [15] = 1},
                              .server_id = 0x7f00000000000001,
                              .machine_id = "0123456789abcdef0123456789abcdef",
                              .history = {3, {9, 8, 7}},
                              .has_log = true};
    strlist_add(&member->peers, "10.0.0.1:7390");
    strlist_add(&member->peers, "[fd00::2]:7390");
    strlist_add(&member->peers, longest_address());
    strlist_add(&member->keepers, "fedcba9876543210fedcba9876543210");
}

static char *get(size_t *ret_size)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    char *bytes = xmalloc(1u << 17);

    assert_non_null(file);
    *ret_size = fread(bytes, 1, 1u << 17, file);
    return bytes;
}

static void put(const char *bytes, size_t size)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, bytes, size), 0);
}

static void assert_refused(int code, const char *text)
{
    struct member member;
    struct err err = {0};

    assert_int_equal(member_load(directory, &member, &err), code);
    if (strstr(err.text, text) == NULL || strstr(err.text, path) == NULL)
        fail_msg("\"%s\" says nothing of \"%s\"", err.text, text);
}

static void test_round_trip(void **state)
{
    struct member member, read;
    struct err err = {0};
    struct stat st;

    unlink(path);
    assert_int_equal(member_load(directory, &read, &err), -ENOENT);
    fill(&member);
    assert_int_equal(member_save(directory, &member, &err), 0);
    assert_int_equal(member_load(directory, &read, &err), 0);
    assert_memory_equal(read.cluster_id, member.cluster_id, sizeof read.cluster_id);
    assert_int_equal(read.server_id, member.server_id);
    assert_string_equal(read.machine_id, member.machine_id);
    assert_true(history_equal(&read.history, &member.history));
    assert_true(read.has_log && !read.founder);
    assert_int_equal(read.peers.count, 3);
    assert_string_equal(read.peers.items[1], "[fd00::2]:7390");
    assert_string_equal(read.peers.items[2], longest_address());
    assert_int_equal(read.keepers.count, 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    member_done(&read);
    member_done(&member);
}

/* Every wrong bit, and everything that is missing at the end. */
static void test_damage(void **state)
{
    _cleanup_(freep) char *bytes = NULL, *damaged = NULL;
    struct member member, read;
    size_t size;

    fill(&member);
    assert_int_equal(member_save(directory, &member, NULL), 0);
    member_done(&member);
    bytes = get(&size);
    damaged = xmalloc(size);
    for (size_t i = 0; i < size; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(damaged, bytes, size);
            damaged[i] ^= (char)(1u << bit);
            put(damaged, size);
            assert_int_equal(member_load(directory, &read, NULL), -EBADMSG);
        }
    for (size_t i = 0; i < size; i++) {
        put(bytes, i);
        assert_int_equal(member_load(directory, &read, NULL), -EBADMSG);
    }
    memset(damaged, 0, size);
    put(damaged, size);
    assert_refused(-EBADMSG, "it is no text. Move");
    damaged = xrealloc(damaged, 1u << 17);
    memset(damaged, 'x', 1u << 17);
    put(damaged, 1u << 17);
    assert_refused(-EBADMSG, "it is no text. Move");
}

static void test_other_versions(void **state)
{
    _cleanup_(strbuf_done) struct strbuf later = {0};
    char sum[DIGEST_TEXT_SIZE];
    struct member read;
    struct err err = {0};

    if (member_load(STORE_1, &read, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(read.server_id, 1);
    assert_int_equal(read.cluster_id[0], 7);
    assert_int_equal(read.peers.count, 2);
    assert_int_equal(read.history.recoveries, 0);
    assert_false(read.has_log);
    member_done(&read);

    strbuf_add(&later, "format = 2\nwritten_by = 77.7\nsomething = else\n");
    digest_text(later.text, later.size, sum);
    strbuf_addf(&later, "digest = %s\n", sum);
    put(later.text, later.size);
    assert_refused(-EPROTONOSUPPORT, "install fleetd 77.7 or later");
}

static void test_superseded(void **state)
{
    _cleanup_(freep) char *why = NULL;
    _cleanup_(freep) char *file = xasprintf("%s/superseded", directory);
    struct err err = {0};

    assert_false(member_is_superseded(directory, &why));
    assert_int_equal(member_supersede(directory, "the cluster was recovered elsewhere", &err), 0);
    assert_true(member_is_superseded(directory, &why));
    assert_string_equal(why, "the cluster was recovered elsewhere");
    free(why);
    assert_int_equal(truncate(file, 0), 0); /* What it says is for people; that it is there counts. */
    assert_true(member_is_superseded(directory, &why));
    member_clear_superseded(directory);
    assert_false(member_is_superseded(directory, &why));
}

static int set_up(void **state)
{
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/member", directory);
    return 0;
}

static int tear_down(void **state)
{
    unlink(path);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_superseded),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
