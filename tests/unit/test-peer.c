/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a Unix socket: real processes of other users and groups, which only root can
 * make. */
#include <config.h>

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/http_listen.h"
#include "fleetd/peer.h"

#define GROUP  4711 /* Nobody's, but for what the tests make. */
#define USER   4712
#define OTHERS 4713

static char dir[64], path[96];

static int setup(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/test-peer-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    snprintf(path, sizeof path, "%s/s", dir);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    rmdir(dir);
    return 0;
}

struct process {
    uid_t uid;
    gid_t gid;
    const gid_t *groups;
    size_t group_count;
};

/* Connects as that process; its exit status says whether it could. */
static pid_t start(const struct process *process)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    pid_t pid = fork();
    char byte;
    int fd;

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (setgroups(process->group_count, process->groups) < 0 || setgid(process->gid) < 0 ||
        setuid(process->uid) < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        _exit(1);
    while (read(fd, &byte, 1) > 0)
        continue;
    _exit(0);
}

/* What is seen of the process; false: it cannot connect. */
static bool see(int listening, const struct process *process, bool others_read, struct peer *ret)
{
    pid_t pid = start(process);
    int fd, status;

    do { /* It has connected, or ended. */
        fd = accept(listening, NULL, NULL);
        if (fd < 0 && waitpid(pid, &status, WNOHANG) == pid)
            return false;
        if (fd < 0)
            usleep(1000);
    } while (fd < 0);
    peer_read(fd, others_read, ret);
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return true;
}

static void assert_role(int listening, const struct process *process, bool others_read, enum pki_role role)
{
    char prefix[32];
    struct peer peer;

    assert_true(see(listening, process, others_read, &peer));
    assert_true(peer.is_unix);
    assert_int_equal(peer.caller.kind, ACCESS_LOCAL);
    assert_int_equal(peer.caller.uid, process->uid);
    assert_int_equal(peer.caller.role, role);
    snprintf(prefix, sizeof prefix, "uid %u pid ", process->uid);
    assert_true(str_has_prefix(peer.text, prefix));
}

static void test_roles(void **state)
{
    gid_t other[] = {OTHERS}, group[] = {OTHERS, GROUP}, many[1000];
    const struct process root = {0, 0, NULL, 0}, user = {USER, OTHERS, other, 1},
                         member = {USER, GROUP, NULL, 0}, also = {USER, OTHERS, group, 2},
                         busy = {USER, OTHERS, many, ARRAY_SIZE(many)},
                         stranger = {USER, OTHERS, many, ARRAY_SIZE(many) - 1};
    struct peer peer;
    int fd;

    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = 10000 + (gid_t)i;
    many[ARRAY_SIZE(many) - 1] = GROUP;
    fd = http_listen_unix(path, GROUP, false, NULL);
    assert_true(fd >= 0);
    assert_role(fd, &root, false, PKI_ROLE_ADMIN);
    assert_role(fd, &member, false, PKI_ROLE_ADMIN);
    assert_role(fd, &also, false, PKI_ROLE_ADMIN);
    assert_role(fd, &busy, false, PKI_ROLE_ADMIN);
    assert_false(see(fd, &user, false, &peer)); /* By the socket's mode. */
    assert_int_equal(http_unix_set_access(path, GROUP, true, NULL), 0);
    assert_role(fd, &user, true, PKI_ROLE_VIEWER);
    assert_role(fd, &stranger, true, PKI_ROLE_VIEWER);
    assert_role(fd, &also, true, PKI_ROLE_ADMIN);
    /* systemd may have made a socket that all may connect to (SocketMode=0666): that alone is no role. */
    assert_role(fd, &user, false, PKI_ROLE_NONE);
    /* A group that may not write is none. */
    assert_int_equal(chmod(path, 0606), 0);
    assert_role(fd, &user, false, PKI_ROLE_NONE);
    assert_false(see(fd, &member, false, &peer));
    /* The group has changed: so it is for whoever comes from now on. */
    assert_int_equal(http_unix_set_access(path, OTHERS, true, NULL), 0);
    assert_role(fd, &user, true, PKI_ROLE_ADMIN);
    assert_role(fd, &member, true, PKI_ROLE_VIEWER);
    close(fd);
}

static void test_mode(void **state)
{
    struct stat st;
    int fd = http_listen_unix(path, HTTP_NO_GROUP, true, NULL);

    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);
    assert_int_equal(http_unix_set_access(path, getegid(), false, NULL), 0);
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    close(fd);
}

/* Without a file there is no group; the user that we are is enough. */
static void test_pair(void **state)
{
    struct peer peer;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    peer_read(pair[0], false, &peer);
    assert_int_equal(peer.caller.kind, ACCESS_LOCAL);
    assert_int_equal(peer.caller.role, PKI_ROLE_ADMIN);
    close(pair[0]);
    close(pair[1]);
    peer_read(pair[0], false, &peer);
    assert_int_equal(peer.caller.kind, ACCESS_UNKNOWN);
    assert_string_equal(peer.text, "unknown peer");
}

static void test_tcp(void **state)
{
    int fd = http_listen_tcp("127.0.0.1:0", NULL), client = socket(AF_INET, SOCK_STREAM, 0), accepted;
    struct sockaddr_storage addr;
    socklen_t size = sizeof addr;
    struct peer peer;

    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &size), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&addr, size), 0);
    accepted = accept(fd, NULL, NULL);
    assert_true(accepted >= 0);
    peer_read(accepted, false, &peer);
    assert_false(peer.is_unix);
    assert_int_equal(peer.caller.kind, ACCESS_OPEN);
    assert_true(str_has_prefix(peer.text, "127.0.0.1:"));
    close(fd);
    close(client);
    close(accepted);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_roles), TEST(test_mode), TEST(test_pair), TEST(test_tcp)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
