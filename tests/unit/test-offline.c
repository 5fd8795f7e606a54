/* SPDX-License-Identifier: Apache-2.0 */
/* Logs that nobody has open: what is read of them is all that was written; one that was made new is a store
 * like any other, with the data that went into it, under a new id. */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
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
#include "base/file.h"
#include "base/log.h"
#include "base/times.h"
#include "deadline.h"
#include "raftstore/log_view.h"
#include "raftstore/offline.h"
#include "store-node.h"
#include "under-valgrind.h"

struct world {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired;
    char directory[64];
    struct node one, two;
    unsigned closed, applied, others;
};

static void on_deadline(uv_timer_t *timer)
{
    ((struct world *)timer->data)->expired = true;
}

#define WAIT(w, condition)                                                     \
    do {                                                                       \
        (w)->expired = false;                                                  \
        uv_timer_start(&(w)->deadline, on_deadline, DEADLINE_MS, 0);           \
        while (!(condition) && !(w)->expired)                                  \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                   \
        uv_timer_stop(&(w)->deadline);                                         \
        if (!(condition))                                                      \
            fail_msg("never came true in %u ms: %s", DEADLINE_MS, #condition); \
    } while (0)

static void sink(int priority, const char *message, const char *const *fields)
{
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "%s\n", message);
}

static void prepare(struct world *w, struct node *node, uint64_t id)
{
    node->loop = &w->loop;
    node->id = id;
    node->cluster = 7;
    snprintf(node->directory, sizeof node->directory, "%s/%s", w->directory, node == &w->one ? "one" : "two");
    node_listen(node);
}

static int setup(void **state)
{
    struct world *w = NEW0(struct world);

    log_set_sink(sink);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->deadline);
    w->deadline.data = w;
    make_test_directory(w->directory, sizeof w->directory);
    prepare(w, &w->one, 1);
    w->one.bootstrap = true;
    *state = w;
    return 0;
}

static void on_closed(void *data)
{
    ((struct world *)data)->closed++;
}

static void close_node(struct world *w, struct node *node)
{
    unsigned before = w->closed;

    if (node->store != NULL) {
        node_close(node, on_closed, w);
        WAIT(w, w->closed > before);
    }
    node->store = NULL;
    if (node->port != NULL) {
        before = w->closed;
        port_close(node->port, on_closed, w);
        WAIT(w, w->closed > before);
    }
    node->port = NULL;
}

static int teardown(void **state)
{
    struct world *w = *state;
    int r;

    close_node(w, &w->two);
    close_node(w, &w->one);
    uv_close((uv_handle_t *)&w->deadline, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    remove_directory(w->directory);
    r = uv_loop_close(&w->loop);
    free(w);
    return r;
}

static void open_node(struct node *node)
{
    struct err err = {0};

    if (node_open(node, &err) < 0)
        fail_msg("%s", err.text);
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

/* Units number 'first' and so many more. */
static void write_units(struct world *w, struct node *node, unsigned first, unsigned count)
{
    w->applied = w->others = 0;
    for (unsigned i = 0; i < count; i++)
        node_propose(node, first + i, 200, on_applied, w);
    WAIT(w, w->applied + w->others == count);
    assert_int_equal(w->applied, count);
}

static int read_log(const struct node *node, struct offline_log *ret, struct err *err)
{
    const uint8_t cluster[CLUSTER_ID_SIZE] = {node->cluster};

    return offline_read(node->directory, cluster, node->id, ret, err);
}

static void assert_units(const struct registry *registry, unsigned count)
{
    assert_int_equal(registry_unit_count(registry), count);
    for (unsigned i = 0; i < count; i++) {
        char name[32];

        snprintf(name, sizeof name, "u%u.service", i);
        assert_non_null(registry_unit(registry, name));
    }
}

/* Begins a new history out of what the node's log holds; step 1 only. */
static uint64_t renew(const struct node *node, uint64_t server_id)
{
    struct offline_log log;
    struct offline_seed seed = {
        .cluster_id = {node->cluster}, .server_id = server_id, .address = node->address};
    struct err err = {0};
    uint64_t version;

    if (read_log(node, &log, &err) < 0)
        fail_msg("%s", err.text);
    registry_renew(log.registry, &(struct registry_renewal){
                                     .history = {1, {5}}, .machine_id = "none", .server_id = server_id});
    version = registry_version(log.registry);
    seed.registry = log.registry;
    seed.index = log.last_index;
    seed.term = log.term + 1;
    if (offline_write(node->directory, &seed, &err) < 0)
        fail_msg("%s", err.text);
    offline_log_done(&log);
    return version;
}

static void fill(struct world *w, unsigned count)
{
    open_node(&w->one);
    WAIT(w, w->one.leads);
    write_units(w, &w->one, 0, count);
    close_node(w, &w->one);
}

static void test_nothing_to_read(void **state)
{
    struct world *w = *state;
    struct offline_log log;
    struct err err = {0};
    char path[200];

    assert_int_equal(read_log(&w->one, &log, &err), -ENOENT);
    assert_int_equal(mkdir(w->one.directory, 0700), 0);
    assert_int_equal(read_log(&w->one, &log, &err), -ENOENT);
    snprintf(path, sizeof path, "%s/raft", w->one.directory);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(read_log(&w->one, &log, &err), -ENOENT);
}

/* With and without a snapshot, and with entries before and behind it. */
static void test_all_is_read(void **state)
{
    struct world *w = *state;
    struct offline_log log;
    struct err err = {0};
    _cleanup_(freep) char *snapshot = NULL;
    unsigned written = 0;
    uint64_t last = 0, now = wall_ms();

    w->one.snapshot_log_bytes = 30000;
    for (unsigned round = 0; round < 3; round++) {
        open_node(&w->one);
        WAIT(w, w->one.leads);
        write_units(w, &w->one, written, 100);
        written += 100;
        close_node(w, &w->one);
        w->one.leads = false;
        if (read_log(&w->one, &log, &err) < 0)
            fail_msg("%s", err.text);
        assert_units(log.registry, written);
        assert_int_equal(log.server_count, 1);
        assert_int_equal(log.servers[0].id, 1);
        assert_int_equal(log.servers[0].role, SERVER_VOTER);
        assert_string_equal(log.servers[0].address, w->one.address);
        assert_true(log.last_index > last && log.last_term == log.term);
        assert_in_range(log.newest_wall_ms, now - 1000, now + 60000);
        last = log.last_index;
        offline_log_done(&log);
        node_listen(&w->one);
    }
    snapshot = node_find_file(&w->one, "snapshot-");
    assert_non_null(snapshot);
}

/* A power cut of a young server: all that it has is in a segment that was never closed. So 'two' is then. */
static void make_an_open_segment(struct world *w)
{
    _cleanup_(freep) char *command = NULL;

    prepare(w, &w->two, 2);
    open_node(&w->one);
    WAIT(w, w->one.leads);
    open_node(&w->two);
    w->applied = w->others = 0;
    store_change_server(w->one.store, 2, w->two.address, SERVER_VOTER, on_applied, w);
    WAIT(w, w->applied + w->others > 0);
    write_units(w, &w->one, 0, 20);
    WAIT(w, registry_unit_count(store_registry(w->two.store)) == 20);
    command = xasprintf("cp -r %s %s/cut", w->two.directory, w->directory);
    assert_int_equal(system(command), 0);
    snprintf(w->two.directory, sizeof w->two.directory, "%s/cut", w->directory);
    assert_null(node_find_file(&w->two, "0"));
    assert_null(node_find_file(&w->two, "snapshot-"));
}

static void test_an_open_segment_is_read(void **state)
{
    struct world *w = *state;
    struct offline_log log;
    struct err err = {0};
    _cleanup_(freep) char *before = NULL, *after = NULL;

    make_an_open_segment(w);
    assert_true(store_directory_has_log(w->two.directory));
    before = directory_sum(w->two.directory);
    if (read_log(&w->two, &log, &err) < 0)
        fail_msg("%s", err.text);
    after = directory_sum(w->two.directory);
    assert_string_equal(before, after); /* It is open still. */
    assert_units(log.registry, 20);
    assert_int_equal(log.server_count, 2);
    offline_log_done(&log);
}

/* ---- what reading leaves ---- */

static bool is_empty(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            return false;
    return true;
}

/* In a process of its own, whose $TMPDIR is 'place'. Returns how it ended, as soon as nobody has its standard
 * output any more: whoever reads what fleetd says to the end waits for just that. */
static int in_a_process(void (*function)(struct world *w), struct world *w, const char *place)
{
    int ends[2], status;
    char byte;
    pid_t pid;

    assert_true(mkdir(place, 0700) == 0 || errno == EEXIST);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

        end_without_leaks();
        signal(SIGSEGV, SIG_DFL); /* cmocka would go on with the next test. */
        dup2(ends[1], STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
        setenv("TMPDIR", place, 1);
        function(w);
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void read_two(struct world *w)
{
    struct offline_log log;

    _exit(read_log(&w->two, &log, NULL) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* Where the last entry ends: what was set aside behind it is zeroes. */
static off_t used_size(const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    off_t size;
    char byte = '\0';

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    for (size = st.st_size; size > 0 && byte == '\0'; size--)
        assert_int_equal(pread(fd, &byte, 1, size - 1), 1);
    return size;
}

/* Of this libraft 0.15 dies: it frees twice what it has read. */
static void test_nothing_is_left_of_a_log_that_kills(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *place = xasprintf("%s/tmp", w->directory), *segment = NULL;
    int status;

    make_an_open_segment(w);
    close_node(w, &w->two); /* Nobody turns the loop from now on. */
    close_node(w, &w->one);
    assert_int_equal(in_a_process(read_two, w, place), 0);
    assert_true(is_empty(place));
    segment = node_find_file(&w->two, "open-");
    assert_non_null(segment);
    assert_int_equal(truncate(segment, used_size(segment) - 100), 0);
    status = in_a_process(read_two, w, place);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    assert_true(is_empty(place));
}

static struct log_view *view_of_one(struct world *w)
{
    _cleanup_(freep) char *log = xasprintf("%s/raft", w->one.directory);
    struct log_view *view;

    if (log_view_new(log, &view, NULL) < 0 || is_empty(getenv("TMPDIR")))
        _exit(EXIT_FAILURE);
    return view;
}

static void look(struct world *w)
{
    log_view_free(view_of_one(w));
    _exit(is_empty(getenv("TMPDIR")) ? EXIT_SUCCESS : EXIT_FAILURE);
}

static int signal_to_die_of;

static void look_and_die(struct world *w)
{
    bool all = signal_to_die_of == SIGINT || signal_to_die_of == SIGHUP; /* Of a terminal. */

    setpgid(0, 0);
    signal(signal_to_die_of, SIG_DFL); /* A shell's background job ignores some. */
    view_of_one(w);
    kill(all ? 0 : getpid(), signal_to_die_of);
}

static void test_nothing_is_left_by_who_is_killed(void **state)
{
    static const int signals[] = {SIGKILL, SIGABRT, SIGSEGV, SIGTERM, SIGINT, SIGHUP};
    struct world *w = *state;
    _cleanup_(freep) char *place = xasprintf("%s/tmp", w->directory);

    fill(w, 1);
    assert_int_equal(in_a_process(look, w, place), 0);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        int status;

        signal_to_die_of = signals[i];
        status = in_a_process(look_and_die, w, place);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != signals[i])
            fail_msg("signal %d: ended with status 0x%x", signals[i], (unsigned)status);
        assert_true(is_empty(place));
    }
}

static void test_not_ours(void **state)
{
    struct world *w = *state;
    struct offline_log log;
    struct err err = {0};

    fill(w, 1);
    w->one.id = 2;
    assert_int_equal(read_log(&w->one, &log, &err), -EXDEV);
    assert_non_null(strstr(err.text, "belongs to server"));
    w->one.id = 1;
    w->one.cluster = 8;
    assert_int_equal(read_log(&w->one, &log, &err), -EXDEV);
    assert_non_null(strstr(err.text, "belongs to cluster"));
}

/* The new log is a store: it leads alone, goes on, is there after a restart, and others get all of it. */
static void test_a_new_log_lives(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *aside = NULL;
    const uint8_t cluster[CLUSTER_ID_SIZE] = {7};
    struct err err = {0};
    uint64_t version;

    fill(w, 50);
    node_listen(&w->one);
    version = renew(&w->one, 77);
    w->one.id = 77;
    w->one.bootstrap = false;
    w->one.leads = false;
    close_node(w, &w->one);
    assert_int_equal(offline_finish(w->one.directory, cluster, 77, &aside, &err), 1);
    assert_non_null(aside);
    node_listen(&w->one);
    open_node(&w->one);
    assert_units(store_registry(w->one.store), 50);
    assert_int_equal(registry_version(store_registry(w->one.store)), version);
    WAIT(w, w->one.leads);
    write_units(w, &w->one, 50, 10);
    close_node(w, &w->one);
    w->one.leads = false;
    node_listen(&w->one);
    open_node(&w->one);
    WAIT(w, w->one.leads);
    assert_units(store_registry(w->one.store), 60);

    prepare(w, &w->two, 78);
    open_node(&w->two);
    w->applied = 0;
    store_change_server(w->one.store, 78, w->two.address, SERVER_VOTER, on_applied, w);
    WAIT(w, w->applied + w->others > 0);
    assert_int_equal(w->applied, 1);
    WAIT(w, registry_unit_count(store_registry(w->two.store)) == 60);
    assert_int_equal(node_registry_hash(&w->one), node_registry_hash(&w->two));
    assert_true(
        history_equal(registry_history(store_registry(w->two.store)), &(struct cluster_history){1, {5}}));
}

/* A power cut after any step: the old log holds until the member file says the new id, then the new one. */
static void test_a_power_cut_in_between(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *place = NULL, *away = NULL;

    fill(w, 5);
    node_listen(&w->one);
    renew(&w->one, 77);
    w->one.leads = false;
    open_node(&w->one); /* Step 2 was not taken: as ever. */
    WAIT(w, w->one.leads);
    write_units(w, &w->one, 5, 1);
    close_node(w, &w->one);

    node_listen(&w->one);
    renew(&w->one, 78); /* Another try takes the place of the first. */
    w->one.id = 78;
    w->one.bootstrap = w->one.leads = false;
    open_node(&w->one); /* Step 3 was not taken. */
    WAIT(w, w->one.leads);
    assert_units(store_registry(w->one.store), 6);
    close_node(w, &w->one);

    node_listen(&w->one);
    renew(&w->one, 79);
    w->one.id = 79;
    w->one.leads = false;
    place = xasprintf("%s/raft", w->one.directory);
    away = xasprintf("%s/raft.old2", w->one.directory);
    assert_int_equal(rename(place, away), 0); /* Step 4 was not. */
    open_node(&w->one);
    WAIT(w, w->one.leads);
    assert_units(store_registry(w->one.store), 6);
}

/* What an earlier version has written is read, gone on with, and written anew by and by. */
static void test_a_store_of_the_first_format(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *command =
        xasprintf("cp -r %s %s && chmod -R u+w %s", STORE_1, w->one.directory, w->one.directory);
    const struct registry_machine *machine;
    const struct registry_unit *unit;
    struct offline_log log;
    struct err err = {0};

    assert_int_equal(system(command), 0);
    if (read_log(&w->one, &log, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(log.last_index, 118);
    assert_int_equal(registry_unit_count(log.registry), 111);
    offline_log_done(&log);

    w->one.bootstrap = false;
    w->one.snapshot_log_bytes = 10000;
    open_node(&w->one);
    WAIT(w, w->one.leads);
    assert_int_equal(registry_version(store_registry(w->one.store)), 115);
    assert_int_equal(registry_setting_number(store_registry(w->one.store), SETTING_VOTERS), 5);
    assert_int_equal(registry_lease_ms(store_registry(w->one.store)), 9000);
    unit = registry_unit(store_registry(w->one.store), "placed.service");
    assert_string_equal(unit->target, "0123456789abcdef0123456789abcdef");
    assert_int_equal(unit->desired, UNIT_STATE_LAUNCHED);
    assert_true(unit->leased && unit->token > 0 && unit->stop_ms > 0);
    machine = registry_machine(store_registry(w->one.store), unit->target);
    assert_string_equal(machine->hostname, "host1");
    assert_true(machine->registered && !machine->awaited);
    assert_string_equal(machine->labels[0].value, "ssd");
    write_units(w, &w->one, 1000, 100);
    close_node(w, &w->one);

    w->one.leads = false;
    node_listen(&w->one);
    open_node(&w->one);
    WAIT(w, w->one.leads);
    assert_int_equal(registry_unit_count(store_registry(w->one.store)), 211);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_to_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_open_segment_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_left_of_a_log_that_kills, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_left_by_who_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_store_of_the_first_format, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_new_log_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_power_cut_in_between, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
