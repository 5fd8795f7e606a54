/* SPDX-License-Identifier: Apache-2.0 */
/* The view of a log is removed, and nothing else, by whoever of the two is left to do it: whatever became of
 * its name, of the janitor, and of processes that were forked. (What dies with a view: test-offline.c.) */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "deadline.h"
#include "raftstore/log_view.h"
#include "store-node.h"
#include "under-valgrind.h"

#define EXIT_SKIPPED 77

struct world {
    char directory[64];
    char *log, *place; /* What is viewed, and the $TMPDIR of the views. */
    char *victim;      /* A foreign directory, with a file. */
    char *moved;       /* Where a test moves a view to. */
};

static void write_file(const char *directory, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name);
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, "precious", 8), 0);
}

static char *make_directory(const struct world *w, const char *name)
{
    char *path = xasprintf("%s/%s", w->directory, name);

    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static int setup(void **state)
{
    struct world *w = NEW0(struct world);

    make_test_directory(w->directory, sizeof w->directory);
    w->log = make_directory(w, "raft");
    w->place = make_directory(w, "tmp");
    w->victim = make_directory(w, "victim");
    w->moved = xasprintf("%s/moved", w->directory);
    write_file(w->log, "metadata1");
    write_file(w->log, "open-1");
    write_file(w->log, "0000000000000001-0000000000000002");
    write_file(w->victim, "file");
    setenv("TMPDIR", w->place, 1);
    alarm(DEADLINE_MS / 1000); /* Whatever hangs is no success. */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    alarm(0);
    unsetenv("TMPDIR");
    remove_directory(w->directory);
    free(w->log);
    free(w->place);
    free(w->victim);
    free(w->moved);
    free(w);
    return 0;
}

static unsigned count(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;
    unsigned n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    return n;
}

static struct log_view *view_new(const struct world *w)
{
    struct log_view *view;
    struct err err = {0};

    if (log_view_new(w->log, &view, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(count(log_view_path(view)), 3);
    return view;
}

/* The only child of this process. It is left to be waited for. */
static void kill_janitor(void)
{
    _cleanup_(fclosep) FILE *children = fopen("/proc/thread-self/children", "re");
    siginfo_t info;
    int pid;

    if (children == NULL)
        skip(); /* A kernel without CONFIG_PROC_CHILDREN. */
    assert_int_equal(fscanf(children, "%d", &pid), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(info.si_code, CLD_KILLED);
}

/* ---- the name leads to something else ---- */

static const char *link_name, *link_target;
static volatile sig_atomic_t link_result;

static void on_child(int signal_number)
{
    int before = errno;

    link_result = symlink(link_target, link_name) < 0 ? -errno : 1;
    errno = before;
}

/* The janitor has removed it, its parent does not know yet: the name is anybody's. */
static void test_the_name_is_taken_after_the_janitor(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);
    _cleanup_(freep) char *name = xstrdup(log_view_path(view));

    link_name = name;
    link_target = w->victim;
    link_result = 0;
    signal(SIGCHLD, on_child);
    log_view_free(view);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(link_result, 1);
    assert_int_equal(count(w->victim), 1);
    assert_int_equal(unlink(name), 0); /* A link, still. */
    assert_int_equal(count(w->place), 0);
}

/* Puts a link in the view's place; what it holds is removed where it is. */
static void take_the_name(const struct world *w, const struct log_view *view)
{
    assert_int_equal(rename(log_view_path(view), w->moved), 0);
    assert_int_equal(symlink(w->victim, log_view_path(view)), 0);
}

static void test_the_name_is_taken_before(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);

    take_the_name(w, view);
    log_view_free(view);
    assert_int_equal(count(w->victim), 1);
    assert_int_equal(count(w->moved), 0);
    assert_int_equal(count(w->place), 1);
}

static void test_the_name_is_taken_and_the_janitor_killed(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);

    take_the_name(w, view);
    kill_janitor();
    log_view_free(view);
    assert_int_equal(count(w->victim), 1);
    assert_int_equal(count(w->moved), 0);
    assert_int_equal(count(w->place), 1);
}

/* No link, but a directory: that is nobody's to remove, either. */
static void test_the_name_is_another_directory(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);

    assert_int_equal(rename(log_view_path(view), w->moved), 0);
    assert_int_equal(mkdir(log_view_path(view), 0700), 0);
    log_view_free(view);
    assert_int_equal(count(w->moved), 0);
    assert_int_equal(count(w->place), 1);
}

/* ---- the processes ---- */

static void test_the_janitor_is_killed(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);

    kill_janitor();
    log_view_free(view); /* Of no SIGPIPE, too. */
    assert_int_equal(count(w->place), 0);
}

/* It has all descriptors that its parent had. */
static void test_a_forked_process_is_not_waited_for(void **state)
{
    struct world *w = *state;
    struct log_view *view = view_new(w);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        end_without_leaks();
        alarm(DEADLINE_MS / 1000 + 1); /* It is not to outlive a test that fails. */
        for (;;)
            pause();
    }
    log_view_free(view);
    assert_int_equal(count(w->place), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* As with Linux before 5.9. */
static bool take_close_range_away(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = ARRAY_SIZE(steps), .filter = steps};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/* Whether an open file is closed by all when we close it, though there is a view: exits with 0 then. 'fd' is
 * what it is moved to, above or below what the janitor needs. */
static _Noreturn void hold(const struct world *w, int fd)
{
    struct log_view *view;
    struct pollfd heard;
    int ends[2], r;

    if (pipe2(ends, O_CLOEXEC) < 0 || (fd >= 0 && (dup2(ends[1], fd) < 0 || close(ends[1]) < 0)) ||
        log_view_new(w->log, &view, NULL) < 0)
        _exit(EXIT_FAILURE);
    close(fd >= 0 ? fd : ends[1]);
    heard.fd = ends[0];
    heard.events = POLLIN;
    r = poll(&heard, 1, (int)DEADLINE_MS / 2);
    log_view_free(view);
    _exit(r == 1 && (heard.revents & POLLHUP) && count(w->place) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

static int status_of_hold(const struct world *w, int fd, bool old)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        end_without_leaks();
        if (old && !take_close_range_away())
            _exit(EXIT_SKIPPED);
        hold(w, fd);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Such as the lock of the data directory. */
static void test_the_janitor_holds_nothing(void **state)
{
    struct world *w = *state;

    assert_int_equal(status_of_hold(w, -1, false), 0);
    assert_int_equal(status_of_hold(w, 200, false), 0);
}

static void test_the_janitor_holds_nothing_on_an_old_kernel(void **state)
{
    struct world *w = *state;
    int status;

    if (RUNNING_ON_VALGRIND)
        skip(); /* It is a kernel of its own kind. */
    status = status_of_hold(w, -1, true);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED)
        skip(); /* No filters here. */
    assert_int_equal(status, 0);
    assert_int_equal(status_of_hold(w, 200, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_name_is_taken_after_the_janitor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_name_is_taken_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_name_is_taken_and_the_janitor_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_name_is_another_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_janitor_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_forked_process_is_not_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_janitor_holds_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_janitor_holds_nothing_on_an_old_kernel, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
