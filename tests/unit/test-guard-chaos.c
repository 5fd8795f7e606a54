/* SPDX-License-Identifier: Apache-2.0 */
/* A guarded cluster of five under seeded chaos in virtual time: links cut in one direction or both, servers
 * killed, revived, restarted from their disks, slow disks, disks that fail. After every step all machines
 * have one history. Then the faults stop: everything that was acknowledged must be there, everywhere, and
 * soon. And bare, for some seed it is not so.
 *
 * A failure prints its seed; "test-guard-chaos SEED" runs that one alone, "test-guard-chaos FIRST LAST" many.
 */
#include <config.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "raft-cluster.h"

#define SERVERS       5
#define STEPS         300
#define SEEDS         60
#define FIRST_LETTER  '!'
#define LETTERS       90
#define DISK_SLOW_MS  80 /* Less than what cluster_restart() waits. */
#define RECOVERY_STEP 1000
#define RECOVERY_MAX  60

static struct cluster c;
static uint64_t random_state;
static unsigned letters;

/* xorshift64*: the same on every machine. */
static unsigned pick(unsigned count)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * UINT64_C(2685821657736338717)) >> 33) % count;
}

static void submit(void)
{
    for (unsigned i = 0; i < SERVERS; i++)
        if (cluster_leads(&c, i) && letters < LETTERS)
            cluster_apply(&c, i, (char)(FIRST_LETTER + letters++));
}

static void act_network(unsigned i, unsigned j)
{
    switch (pick(5)) {
    case 0: cluster_cut(&c, i, j); break;
    case 1: raft_fixture_saturate(&c.fixture, i, j); break;
    case 2: cluster_isolate(&c, i); break;
    default:
        for (unsigned k = 0; k < SERVERS; k++) {
            if (k != i && raft_fixture_alive(&c.fixture, i) && raft_fixture_alive(&c.fixture, k))
                cluster_heal(&c, i, k);
        }
        break;
    }
}

static void act_server(unsigned i)
{
    bool failed = c.servers[i].fatals > 0;

    c.servers[i].fatals = 0;
    switch (pick(5)) {
    case 0: cluster_kill(&c, i); break;
    case 1: raft_fixture_set_disk_latency(&c.fixture, i, 5 + pick(DISK_SLOW_MS - 5)); break;
    case 2:
        if (raft_fixture_alive(&c.fixture, i))
            raft_fixture_io_fault(&c.fixture, i, (int)pick(10), 1);
        break;
    default:
        if (failed || pick(2) == 0)
            cluster_restart(&c, i);
        else if (!raft_fixture_alive(&c.fixture, i))
            cluster_revive(&c, i);
        break;
    }
}

static void act(void)
{
    unsigned i = pick(SERVERS), j = (i + 1 + pick(SERVERS - 1)) % SERVERS;

    raft_fixture_set_randomized_election_timeout(&c.fixture, i, 1000 + pick(1000));
    switch (pick(8)) {
    case 0:
    case 1: act_network(i, j); break;
    case 2: act_server(i); break;
    default: submit(); break;
    }
    cluster_run(&c, 1 + pick(pick(4) == 0 ? 1500 : 100));
}

/* What any two have applied agrees as far as both go. */
static bool has_one_history(void)
{
    for (unsigned i = 1; i < SERVERS; i++) {
        for (unsigned j = 0; j < i; j++) {
            size_t a = strlen(cluster_applied(&c, i)), b = strlen(cluster_applied(&c, j));

            if (memcmp(cluster_applied(&c, i), cluster_applied(&c, j), a < b ? a : b) != 0)
                return false;
        }
    }
    return true;
}

static bool has_all_acknowledged(void)
{
    for (unsigned i = 0; i < SERVERS; i++)
        for (const char *p = c.servers[i].acknowledged; *p != '\0'; p++)
            for (unsigned j = 0; j < SERVERS; j++)
                if (strchr(cluster_applied(&c, j), *p) == NULL)
                    return false;
    return true;
}

static void stop_faults(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        raft_fixture_io_fault(&c.fixture, i, -1, 0);
        raft_fixture_set_disk_latency(&c.fixture, i, 10);
        raft_fixture_set_randomized_election_timeout(&c.fixture, i, 1000 + 200 * i);
        cluster_restart(&c, i);
    }
    for (unsigned i = 0; i < SERVERS; i++)
        for (unsigned j = 0; j < i; j++)
            cluster_heal(&c, i, j);
}

/* A letter that is written now reaches all. */
static bool recovers(void)
{
    unsigned everywhere = 0;

    stop_faults();
    for (unsigned k = 0; k < RECOVERY_MAX && everywhere < SERVERS; k++) {
        cluster_run(&c, RECOVERY_STEP);
        for (unsigned i = 0; i < SERVERS; i++)
            if (cluster_leads(&c, i))
                cluster_apply(&c, i, '~');
        everywhere = 0;
        for (unsigned i = 0; i < SERVERS; i++)
            everywhere += strchr(cluster_applied(&c, i), '~') != NULL;
    }
    return everywhere == SERVERS;
}

/* NULL, or what went wrong. */
static const char *run(uint64_t seed, bool guarded)
{
    const char *fault = NULL;

    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    letters = 0;
    cluster_init(&c, SERVERS, guarded);
    c.anybody = true;
    for (unsigned k = 0; k < STEPS && fault == NULL; k++) {
        act();
        if (!has_one_history())
            fault = "two histories";
    }
    if (fault == NULL && !recovers())
        fault = "no recovery";
    if (fault == NULL && !has_one_history())
        fault = "two histories after recovery";
    if (fault == NULL && !has_all_acknowledged())
        fault = "an acknowledged command is lost";
    cluster_done(&c);
    return fault;
}

static void guarded_chaos(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const char *fault = run(seed, true);

        if (fault != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, fault);
    }
}

/* In a child: the bare library may as well crash, or find two leaders. */
static void bare_chaos(void **state)
{
    unsigned faults = 0;

    for (uint64_t seed = 1; seed <= SEEDS && faults == 0; seed++) {
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
            signal(SIGABRT, SIG_DFL);
            signal(SIGSEGV, SIG_DFL);
            if (freopen("/dev/null", "w", stderr) == NULL)
                _exit(0);
            alarm(60);
            _exit(run(seed, false) != NULL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        faults += status != 0;
    }
    assert_true(faults > 0);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(guarded_chaos),
        cmocka_unit_test(bare_chaos),
    };
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    uint64_t last = argc > 2 ? strtoull(argv[2], NULL, 10) : first;
    int faults = 0;

    if (argc <= 1)
        return cmocka_run_group_tests(tests, NULL, NULL);
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *fault = run(seed, getenv("BARE") == NULL);

        if (fault == NULL)
            continue;
        faults++;
        printf("seed %llu: %s\n", (unsigned long long)seed, fault);
    }
    return faults > 0;
}
