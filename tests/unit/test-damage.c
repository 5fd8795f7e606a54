/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged disks, file by file: whatever is done to one file of a store's directory, the store has all that
 * was acknowledged, or refuses to open, with a reason that names the place and says what to do. It never
 * opens with anything else, and never dies without a word.
 *
 * What a power cut leaves is damaged, not what an orderly end leaves: so there are segments of both kinds. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "deadline.h"
#include "raftstore/sidefile.h"
#include "store-node.h"
#include "under-valgrind.h"

#define UNITS          260u
#define FLIPS_PER_FILE 20u

/* How a store's attempt to open ended. */
enum ending {
    ENDED_RIGHT = 42, /* All is there, and it takes more. */
    ENDED_WRONG,      /* It opened with something else. */
    ENDED_REFUSED,    /* With a text, see the file "said". */
    ENDED_STUCK,      /* It opened and never led. */
};

struct world {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired, closed;
    char directory[64];
    struct node node;
    unsigned applied, others;
    uint64_t hash;
    unsigned right, refused;
};

static void sink(int priority, const char *message, const char *const *fields)
{
}

static void on_deadline(uv_timer_t *timer)
{
    ((struct world *)timer->data)->expired = true;
}

static bool wait_for(struct world *w, bool (*done)(struct world *w), uint64_t ms)
{
    w->expired = false;
    uv_timer_start(&w->deadline, on_deadline, ms, 0);
    while (!done(w) && !w->expired)
        uv_run(&w->loop, UV_RUN_ONCE);
    uv_timer_stop(&w->deadline);
    return done(w);
}

static bool leads(struct world *w)
{
    return w->node.leads;
}

static bool all_applied(struct world *w)
{
    return w->applied + w->others == UNITS;
}

static bool one_applied(struct world *w)
{
    return w->applied + w->others == 1;
}

static bool is_recorded(struct world *w)
{
    _cleanup_(freep) char *path = xasprintf("%s/raft", w->node.directory);
    struct sidefile file;

    /* Each write is an entry, and two more: the configuration and the barrier. */
    return sidefile_read(path, &file, NULL) >= 0 && file.committed >= UNITS + 2;
}

static void on_applied(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                       void *data)
{
    struct world *w = data;

    if (outcome == STORE_APPLIED)
        w->applied++;
    else
        w->others++;
}

static void begin(struct world *w, uint64_t id, const char *name, bool bootstrap)
{
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->deadline);
    w->deadline.data = w;
    w->node = (struct node){.loop = &w->loop, .id = id, .cluster = 7, .bootstrap = bootstrap};
    w->node.snapshot_log_bytes = 40000;
    snprintf(w->node.directory, sizeof w->node.directory, "%s/%s", w->directory, name);
    strcpy(w->node.address, "127.0.0.1:0");
    node_listen(&w->node);
}

static void copy(const char *from, const char *to)
{
    _cleanup_(freep) char *command =
        xasprintf("rm -rf '%s' && cp -r --sparse=always '%s' '%s'", to, from, to);

    assert_int_equal(system(command), 0);
}

/* ---- a directory as a power cut leaves it ---- */

/* In a process of its own: it ends as if by a power cut. */
static void make_disk(struct world *w, uint64_t id, const char *name)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        uint64_t hash;
        FILE *file;
        _cleanup_(freep) char *path = xasprintf("%s/%s.hash", w->directory, name);

        end_without_leaks();
        begin(w, id, name, true);
        if (node_open(&w->node, NULL) < 0 || !wait_for(w, leads, DEADLINE_MS))
            _exit(1);
        for (unsigned i = 0; i < UNITS; i++)
            node_propose(&w->node, i + (unsigned)id * 1000, 300, on_applied, w);
        if (!wait_for(w, all_applied, DEADLINE_MS) || w->others > 0 || !wait_for(w, is_recorded, DEADLINE_MS))
            _exit(2);
        hash = node_registry_hash(&w->node);
        file = fopen(path, "w");
        fprintf(file, "%llx", (unsigned long long)hash);
        fclose(file);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static uint64_t hash_of(struct world *w, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s.hash", w->directory, name);
    _cleanup_(fclosep) FILE *file = fopen(path, "r");
    unsigned long long hash = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llx", &hash), 1);
    return hash;
}

/* ---- trying ---- */

static enum ending try_to_open(struct world *w)
{
    _cleanup_(freep) char *path = xasprintf("%s/said", w->directory);
    struct err err = {0};

    begin(w, 1, "damaged", false);
    w->node.has_log = true;
    if (node_open(&w->node, &err) < 0) {
        FILE *file = fopen(path, "w");

        fputs(err.text, file);
        fclose(file);
        return ENDED_REFUSED;
    }
    if (!wait_for(w, leads, patient_ms(5000)))
        return ENDED_STUCK;
    if (node_registry_hash(&w->node) != w->hash)
        return ENDED_WRONG;
    w->applied = w->others = 0;
    node_propose(&w->node, 999999, 100, on_applied, w);
    return wait_for(w, one_applied, DEADLINE_MS) && w->applied == 1 ? ENDED_RIGHT : ENDED_STUCK;
}

static void read_said(struct world *w, char *to, size_t size)
{
    _cleanup_(freep) char *path = xasprintf("%s/said", w->directory);
    _cleanup_(fclosep) FILE *file = fopen(path, "r");

    to[0] = '\0';
    if (file != NULL)
        to[fread(to, 1, size - 1, file)] = '\0';
}

static void try_it(struct world *w, const char *what, const char *file)
{
    char said[1024];
    int status;
    _cleanup_(freep) char *words = xasprintf("%s/said", w->directory);
    bool refused;
    pid_t pid;

    unlink(words);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(words, O_WRONLY | O_CREAT | O_APPEND, 0600); /* Also for last words. */

        end_without_leaks();
        dup2(fd, STDERR_FILENO);
        _exit(try_to_open(w));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == ENDED_RIGHT) {
        w->right++;
        return;
    }
    read_said(w, said, sizeof said);
    /* libraft 0.15 frees twice what it has read of an open segment that is cut off: then it says so dying. */
    refused = WIFEXITED(status) ? WEXITSTATUS(status) == ENDED_REFUSED
                                : strstr(said, "fleetd died while it was reading") != NULL;
#ifdef __SANITIZE_ADDRESS__
    refused = refused || strstr(said, "double-free") != NULL; /* It notices before free() does. */
#endif
    if (!refused)
        fail_msg("%s of %s: %s %d (%s)", what, file, WIFEXITED(status) ? "ended with" : "killed by",
                 WIFEXITED(status) ? WEXITSTATUS(status) - ENDED_RIGHT : WTERMSIG(status), said);
    w->refused++;
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "%s of %s: %s\n", what, file, said);
#ifdef __SANITIZE_ADDRESS__
    if (strstr(said, "double-free") != NULL)
        return;
#endif
    if (strstr(said, w->directory) == NULL ||
        (strstr(said, "join") == NULL && strstr(said, "belongs to") == NULL))
        fail_msg("%s of %s is refused with a text that does not help: \"%s\"", what, file, said);
}

static void fresh_copy(struct world *w)
{
    _cleanup_(freep) char *from = xasprintf("%s/good", w->directory);
    _cleanup_(freep) char *to = xasprintf("%s/damaged", w->directory);

    copy(from, to);
}

static off_t size_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* Up to where there is anything: what is set aside behind it is zeroes, and damage there means nothing. */
static off_t used_size(const char *path)
{
    _cleanup_(freep) char *bytes = NULL;
    _cleanup_(fclosep) FILE *file = fopen(path, "r");
    off_t size = size_of(path);

    bytes = xmalloc((size_t)size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    while (size > 0 && bytes[size - 1] == '\0')
        size--;
    return size;
}

static void flip(const char *path, off_t at)
{
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= (uint8_t)(1u << (at % 8));
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void zero(const char *path)
{
    off_t size = size_of(path);

    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, size), 0);
}

/* ---- one file ---- */

static bool is_of_kind(const char *name, const char *kind)
{
    return str_has_prefix(name, kind) || (streq(kind, "0") && name[0] >= '0' && name[0] <= '9');
}

static void damage_file(struct world *w, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/damaged/raft/%s", w->directory, name);
    _cleanup_(freep) char *good = xasprintf("%s/good/raft/%s", w->directory, name);
    _cleanup_(freep) char *other = xasprintf("%s/other/raft/%s", w->directory, name);
    off_t used = used_size(good), size = size_of(good), step = used / FLIPS_PER_FILE + 1;

    for (off_t at = 0; at < used; at += step) {
        fresh_copy(w);
        flip(path, at);
        try_it(w, "a flipped bit", name);
    }
    for (unsigned i = 0; i < 4; i++) {
        const off_t sizes[] = {0, size / 2, used / 2, used - 1};

        fresh_copy(w);
        assert_int_equal(truncate(path, sizes[i] > 0 ? sizes[i] : 0), 0);
        try_it(w, "truncation", name);
    }
    fresh_copy(w);
    zero(path);
    try_it(w, "zeroes", name);
    fresh_copy(w);
    unlink(path);
    try_it(w, "removal", name);
    fresh_copy(w);
    /* A segment of another member of the cluster is the same, and one of another cluster is nothing that
     * comes into a directory by chance: it would be believed. */
    if (access(other, F_OK) == 0 && !is_of_kind(name, "0") && !is_of_kind(name, "open-")) {
        copy(other, path);
        try_it(w, "another host's", name);
    }
}

/* All files of a kind; at least one must be there. */
static void damage_kind(struct world *w, const char *kind)
{
    _cleanup_(freep) char *path = xasprintf("%s/good/raft", w->directory);
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;
    unsigned found = 0;

    w->right = w->refused = 0;
    while ((entry = readdir(dir)) != NULL)
        if (is_of_kind(entry->d_name, kind)) {
            damage_file(w, entry->d_name);
            found++;
        }
    assert_true(found > 0);
    printf("%u files %s*: %u damages refused, %u without harm\n", found, kind, w->refused, w->right);
}

static void test_undamaged(void **state)
{
    struct world *w = *state;

    fresh_copy(w);
    try_it(w, "nothing", "nothing");
    assert_int_equal(w->right, 1);
}

static void test_metadata(void **state)
{
    damage_kind(*state, "metadata");
}

static void test_snapshots(void **state)
{
    damage_kind(*state, "snapshot-");
}

static void test_closed_segments(void **state)
{
    damage_kind(*state, "0");
}

static void test_open_segments(void **state)
{
    damage_kind(*state, "open-");
}

static void test_progress(void **state)
{
    damage_kind(*state, "progress");
}

static void test_ballast(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *path = xasprintf("%s/damaged/raft/ballast", w->directory);

    fresh_copy(w);
    w->right = 0;
    unlink(path);
    try_it(w, "removal", "ballast");
    assert_int_equal(w->right, 1);
}

/* The whole log: gone, empty, or another host's. */
static void test_directory(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *path = xasprintf("%s/damaged/raft", w->directory);
    _cleanup_(freep) char *other = xasprintf("%s/other/raft", w->directory);

    w->refused = 0;
    fresh_copy(w);
    remove_directory(path);
    try_it(w, "removal", "raft");
    mkdir(path, 0700);
    try_it(w, "an empty one", "raft");
    copy(other, path);
    try_it(w, "another host's", "raft");
    assert_int_equal(w->refused, 3);
}

static int set_up(void **state)
{
    struct world *w = NEW0(struct world);

    log_set_sink(sink);
    make_test_directory(w->directory, sizeof w->directory);
    make_disk(w, 1, "good");
    make_disk(w, 2, "other");
    w->hash = hash_of(w, "good");
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    remove_directory(w->directory);
    free(w);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_undamaged),     cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_snapshots),     cmocka_unit_test(test_closed_segments),
        cmocka_unit_test(test_open_segments), cmocka_unit_test(test_progress),
        cmocka_unit_test(test_ballast),       cmocka_unit_test(test_directory),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
