/* SPDX-License-Identifier: Apache-2.0 */
/* Backup files: what was written is read; whatever is not just that is refused, with a reason. */
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
#include <unistd.h>

#include <cmocka.h>

#include "backup/file.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

static char directory[] = "/tmp/fleet-backup-XXXXXX";
static char path[64];

static const struct backup_header example = {
    .cluster = "0123456789abcdef0123456789abcdef",
    .made = "2026-07-29T12:00:03Z",
    .version = "0.1",
    .host = "web1",
    .changes = UINT64_MAX,
    .units = 3,
    .contents = 2,
    .machines = 1,
    .size = 1000,
};

static void put(const void *bytes, size_t size)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, bytes, size), 0);
}

static char *get(size_t *ret_size)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    char *bytes = xmalloc(1u << 20);

    assert_non_null(file);
    *ret_size = fread(bytes, 1, 1u << 20, file);
    return bytes;
}

static void write_example(void)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct backup_writer writer;
    uint8_t data[1000];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    assert_int_equal(backup_begin(&writer, fd, &example), 0);
    assert_int_equal(backup_add(&writer, data, 400), 0);
    assert_int_equal(backup_add(&writer, data + 400, 600), 0);
    assert_int_equal(backup_end(&writer), 0);
}

static void assert_refused(int code, const char *text)
{
    struct backup_header header = {.units = 77};
    uint8_t *data = NULL;
    struct err err = {0};

    assert_int_equal(backup_read(path, &header, &data, &err), code);
    assert_non_null(strstr(err.text, path));
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" says nothing of \"%s\"", err.text, text);
    assert_null(data); /* Only touched on success. */
    assert_int_equal(header.units, 77);
}

static void test_reads_what_was_written(void **state)
{
    _cleanup_(freep) uint8_t *data = NULL;
    struct backup_header header;
    struct err err = {0};

    write_example();
    assert_int_equal(backup_read(path, &header, NULL, &err), 0);
    assert_int_equal(backup_read(path, &header, &data, &err), 0);
    assert_memory_equal(&header, &example, sizeof header);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(data[i], (uint8_t)(i * 7));
}

static void test_wrong_use(void **state)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct backup_header header = example;
    struct backup_writer writer;

    header.size = 3;
    assert_int_equal(backup_begin(&writer, fd, &header), 0);
    assert_int_equal(backup_add(&writer, "ab", 2), 0);
    assert_int_equal(backup_end(&writer), -ENODATA);
    assert_int_equal(backup_add(&writer, "cd", 2), -EFBIG);
    assert_int_equal(backup_add(&writer, "c", 1), 0);
    assert_int_equal(backup_end(&writer), 0);
    header.size = BACKUP_SIZE_MAX + 1;
    assert_int_equal(backup_begin(&writer, fd, &header), -EFBIG);
    header.size = 3;
    strcpy(header.host, "two\nunits: 0");
    assert_int_equal(backup_begin(&writer, fd, &header), -EINVAL);
}

/* Every single wrong bit, everything that is missing at the end, everything that was added. */
static void test_damage(void **state)
{
    _cleanup_(freep) char *bytes = NULL, *damaged = NULL;
    struct backup_header header;
    size_t size;

    write_example();
    bytes = get(&size);
    damaged = xmalloc(size + 1);
    for (size_t i = 0; i < size; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            struct err err = {0};

            memcpy(damaged, bytes, size);
            damaged[i] ^= (char)(1u << bit);
            put(damaged, size);
            assert_true(backup_read(path, &header, NULL, &err) < 0);
            assert_true(err.text[0] != '\0');
        }
    for (size_t i = 0; i < size; i++) {
        put(bytes, i);
        assert_true(backup_read(path, &header, NULL, NULL) < 0);
    }
    memcpy(damaged, bytes, size);
    damaged[size] = '\n';
    put(damaged, size + 1);
    assert_refused(-EBADMSG, "something follows");
    memset(damaged, 0, size);
    put(damaged, size);
    assert_refused(-EBADMSG, "no backup");
}

static void test_others(void **state)
{
    static const struct {
        const char *bytes, *text;
        int code;
    } cases[] = {
        {"", "no backup", -EBADMSG},
        {"[Service]\nExecStart=/bin/true\n", "no backup", -EBADMSG},
        {"fleet-backup x\n", "no backup", -EBADMSG},
        {"fleet-backup 1\n\n", "not whole", -EBADMSG},
        {"fleet-backup 1\nunits: -1\n\n", "makes no sense", -EBADMSG},
        {"fleet-backup 1\nunits: 99999999999999999999999\n\n", "makes no sense", -EBADMSG},
        {"fleet-backup 1\ncluster\n\n", "makes no sense", -EBADMSG},
        {"fleet-backup 1\ncluster: a\nmade: b\nversion: c\nhost: d\nchanges: 1\nunits: 1\ncontents: 1\n"
         "machines: 1\nsize: 1073741825\n\n",
         "the limit is 1073741824", -EFBIG},
        {"fleet-backup 1\ncluster: a\nmade: b\nversion: c\nhost: d\nchanges: 1\nunits: 1\ncontents: 1\n"
         "machines: 1\nsize: 1073741824\n\n",
         "ends too early", -EBADMSG}, /* Not that much memory is taken for it. */
        {"fleet-backup 2\nnew: x\nversion: 77.7\n\nsomething else", "use fleet 77.7 or later",
         -EPROTONOSUPPORT},
        {"fleet-backup 2\n\n", "use fleet that version or later", -EPROTONOSUPPORT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put(cases[i].bytes, strlen(cases[i].bytes));
        assert_refused(cases[i].code, cases[i].text);
    }
    unlink(path);
    assert_refused(-ENOENT, "cannot open");
    strcpy(path, directory);
    assert_refused(-EIO, "cannot read");
    snprintf(path, sizeof path, "%s/file", directory);
}

static int set_up(void **state)
{
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/file", directory);
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
        cmocka_unit_test(test_reads_what_was_written),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_others),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
