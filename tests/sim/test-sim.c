/* SPDX-License-Identifier: Apache-2.0 */
/* Whole clusters, by the hundred: see README.md here.
 *
 *      test-sim                the named seeds, a hundred hosts, then 200 seeds, as part of "make check"
 *      test-sim FIRST LAST     these seeds; stops at the first that fails
 *      test-sim SEED           one seed; if it fails, its transcript's end, and what it takes to fail
 *      test-sim -v SEED        one seed, with its whole transcript
 *      test-sim -s FIRST LAST  with a hash of each transcript: two builds that agree in them do the same
 *      test-sim -h HOURS ...   first of all: the same faults, spread over so many hours
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/sim/sim.h"

#define SEEDS_IN_CHECK 200u
#define HUNDRED_HOSTS  875u /* A seed that has so many. */
#define SHRINK_MAX     400u /* Runs. */
#define RUN_SECONDS    120u
#define HOUR_MS        3600000u

/* Seeds that have found something once, and what. */
static const struct {
    uint64_t seed;
    unsigned hours; /* That its deeds are spread over; 0: as it is. */
    const char *found;
} named[] = {
    {8, 0, "a restarted fleetd says of what runs that it does not, before systemd has answered"},
    {91, 0, "a leader takes a vote away and relies on one that it has not heard"},
    {186, 0, "a new leader does not wait for a machine that was removed and still runs what was moved"},
    {286, 0, "a removed machine crashes over news of other servers"},
    {521, 0, "a removed machine is elected before it has lost its vote, and leads for ever"},
    {567, 0, "what runs is stopped, for fleetd was killed before it could note its start"},
    {686, 0, "a leader that gives its vote to one that has just joined knows nobody any more"},
    {1107, 10, "a removed machine takes up what it has let go, for a leader that was deposed tells it to"},
    {1330, 0, "a machine that has stopped a unit is told to hand it over, and begins it anew"},
    {1659, 10, "a byte comes just when the silence has become a ttl, by a leader's clock that is fast"},
    {2369, 0, "a restart is forgotten, for a new [X-Fleet] came with it"},
    {4158, 0, "a unit that the keeper's death has stopped, while fleetd was away, stays down"},
    {4669, 0, "a unit that fleetd has stopped, and was killed, counts as stopped by an operator"},
    {6703, 0, "a unit that was not wanted for a moment is stopped, and is not started again"},
    {7443, 10, "a lease and the time to stop, by a slow clock, outlast what a fast one waits for"},
};

static void print_transcript(void)
{
    size_t first = sim.note_count > SIM_NOTES_MAX ? sim.note_count - SIM_NOTES_MAX : 0;

    for (size_t i = first; i < sim.note_count; i++)
        fprintf(stderr, "%s\n", sim.notes[i % SIM_NOTES_MAX]);
}

/* An assertion of the real code has failed. */
static void on_abort(int number)
{
    print_transcript();
    fprintf(stderr, "seed %llu: fleetd has aborted; again: tests/sim/test-sim %llu\n",
            (unsigned long long)sim.seed, (unsigned long long)sim.seed);
    signal(number, SIG_DFL);
    raise(number);
}

/* ---- shrinking: each try in a process of its own, for it may die ---- */

/* Which law, as an exit code. */
static int fault_code(void)
{
    return strncmp(sim.fault, "law ", 4) == 0 ? sim.fault[4] : 1;
}

/* How it ends, as waitpid() says; 0: it holds. */
static int outcome_with(uint64_t seed, const uint8_t *mask)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(0);
        alarm(RUN_SECONDS);
        _exit(sim_menu_run(seed, mask) ? 0 : fault_code());
    }
    return pid < 0 || waitpid(pid, &status, 0) != pid ? 0 : status;
}

/* Leaves out ever smaller pieces, as long as it fails in the same way without them. */
static void shrink(uint64_t seed, uint8_t *mask, size_t count)
{
    int outcome = outcome_with(seed, mask);
    _cleanup_(freep) uint8_t *tried = xmalloc(count);
    unsigned runs = 0;

    for (size_t piece = count / 2; piece > 0; piece /= 2)
        for (size_t from = 0; from < count && runs < SHRINK_MAX; from += piece) {
            size_t size = from + piece < count ? piece : count - from;

            if (memchr(mask + from, 1, size) == NULL)
                continue;
            memcpy(tried, mask, count);
            memset(tried + from, 0, size);
            runs++;
            if (outcome_with(seed, tried) == outcome)
                memcpy(mask, tried, count);
        }
}

static void explain(uint64_t seed)
{
    size_t count = sim_menu_plan(seed);
    _cleanup_(freep) uint8_t *mask = xmalloc(count);

    memset(mask, 1, count);
    fprintf(stderr, "looking for what it takes...\n");
    shrink(seed, mask, count);
    if (!sim_menu_run(seed, mask))
        print_transcript();
    fprintf(stderr, "\nseed %llu fails with these alone:\n", (unsigned long long)seed);
    sim_menu_plan(seed);
    for (size_t i = 0; i < count; i++) {
        _cleanup_(freep) char *text = mask[i] ? sim_menu_describe(i) : NULL;

        if (text != NULL)
            fprintf(stderr, "  %s\n", text);
    }
    fprintf(stderr, "%s\n", sim.fault);
}

/* ---- how much that was ---- */

static char *describe_time(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return xasprintf("%.1f virtual hours, %.1f of hosts; %.1f s of CPU time", (double)sim_total_ms / 3600000,
                     (double)sim_total_host_ms / 3600000,
                     (double)used.tv_sec + (double)used.tv_nsec / 1000000000);
}

static void print_time(void)
{
    _cleanup_(freep) char *text = describe_time();

    print_message("%s\n", text);
}

/* ---- as a test ---- */

static void run_hours_or_fail(uint64_t seed, unsigned hours)
{
    bool holds;

    sim_menu_stretch((uint64_t)hours * HOUR_MS);
    holds = sim_menu_run(seed, NULL);
    sim_menu_stretch(0);
    if (holds)
        return;
    print_transcript();
    fail_msg("seed %llu: %s; again: tests/sim/test-sim -h %u %llu", (unsigned long long)seed, sim.fault,
             hours, (unsigned long long)seed);
}

static void run_or_fail(uint64_t seed)
{
    run_hours_or_fail(seed, 0);
}

/* In less than sim_least_ms() no clock counts so many; in that time it does, at times. */
static void test_clocks(void **state)
{
    static const uint64_t spans_ms[] = {1, 4000, 8000, 9999, 10000, 20000};
    struct sim_host host = {.clock_base_ms = 12345};

    for (host.clock_rate = 952; host.clock_rate < 1048; host.clock_rate++)
        for (size_t i = 0; i < ARRAY_SIZE(spans_ms); i++) {
            uint64_t least_ms = sim_least_ms(&host, spans_ms[i]), most_ms = 0, most_before_ms = 0;

            for (uint64_t from_ms = 0; from_ms < 1000; from_ms++) {
                uint64_t first_ms, before_ms, last_ms;

                sim.now_ms = from_ms;
                first_ms = sim_clock_ms(&host);
                sim.now_ms = from_ms + least_ms - 1;
                before_ms = sim_clock_ms(&host) - first_ms;
                sim.now_ms = from_ms + least_ms;
                last_ms = sim_clock_ms(&host) - first_ms;
                most_ms = last_ms > most_ms ? last_ms : most_ms;
                most_before_ms = before_ms > most_before_ms ? before_ms : most_before_ms;
            }
            assert_true(most_ms >= spans_ms[i]);
            assert_true(most_before_ms < spans_ms[i]);
        }
}

static void test_named_seeds(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
        print_message("seed %llu: %s\n", (unsigned long long)named[i].seed, named[i].found);
        run_hours_or_fail(named[i].seed, named[i].hours);
    }
}

static void test_a_hundred_hosts(void **state)
{
    run_or_fail(HUNDRED_HOSTS);
    assert_int_equal(sim.host_count, 100 + 1); /* And a place for a copy. */
}

static void test_seeds(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS_IN_CHECK; seed++)
        run_or_fail(seed);
}

static void test_same_seed_same_run(void **state)
{
    static const uint64_t seeds[] = {7, 50};

    for (size_t i = 0; i < ARRAY_SIZE(seeds); i++) {
        uint64_t hash;

        run_or_fail(seeds[i]);
        hash = sim.hash;
        run_or_fail(seeds[i]);
        assert_true(hash == sim.hash);
        run_or_fail(seeds[i] + 1);
        assert_true(hash != sim.hash);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_named_seeds),
        cmocka_unit_test(test_same_seed_same_run),
        cmocka_unit_test(test_a_hundred_hosts),
        cmocka_unit_test(test_seeds),
    };
    bool talks, sums;
    _cleanup_(freep) char *time_text = NULL;
    uint64_t first, last, hours = 0;
    int r;

    if (argc > 2 && strcmp(argv[1], "-h") == 0) {
        hours = strtoull(argv[2], NULL, 10);
        sim_menu_stretch(hours * HOUR_MS);
        argc -= 2;
        argv += 2;
    }
    talks = argc > 1 && strcmp(argv[1], "-v") == 0;
    sums = argc > 1 && strcmp(argv[1], "-s") == 0;
    if (argc <= 1 + talks + sums) {
        r = cmocka_run_group_tests(tests, NULL, NULL);
        print_time();
        sim_menu_done();
        return r;
    }
    argv += talks + sums;
    argc -= talks + sums;
    first = strtoull(argv[1], NULL, 10);
    last = argc > 2 ? strtoull(argv[2], NULL, 10) : first;
    signal(SIGABRT, on_abort);
    sim.talks = talks;
    for (uint64_t seed = first; seed <= last; seed++) {
        bool holds = sim_menu_run(seed, NULL);

        if (sums)
            printf("%llu %016llx\n", (unsigned long long)seed, (unsigned long long)sim.hash);
        if (holds)
            continue;
        fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, sim.fault);
        sim.talks = false;
        if (argc == 2)
            explain(seed);
        return 1;
    }
    time_text = describe_time();
    printf("%llu seeds hold: %s\n", (unsigned long long)(last - first + 1), time_text);
    sim_menu_done();
    return 0;
}
