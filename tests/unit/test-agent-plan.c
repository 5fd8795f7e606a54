/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "fleetd/core/agent_plan.h"

#define FACTS_COUNT \
    (AGENT_WISH_COUNT * AGENT_FILE_COUNT * AGENT_ACTIVE_COUNT * AGENT_JOB_COUNT * AGENT_STALE_COUNT * 1024)

/* Every combination there is, by number. */
static struct agent_facts facts_of(unsigned n)
{
    struct agent_facts f = {0};

#define TAKE(count)                \
    ({                             \
        unsigned _v = n % (count); \
        n /= (count);              \
        _v;                        \
    })
    f.wish = TAKE(AGENT_WISH_COUNT);
    f.file = TAKE(AGENT_FILE_COUNT);
    f.active = TAKE(AGENT_ACTIVE_COUNT);
    f.job = TAKE(AGENT_JOB_COUNT);
    f.stale = TAKE(AGENT_STALE_COUNT);
    f.busy = TAKE(2);
    f.known = TAKE(2);
    f.linked = TAKE(2);
    f.restart = TAKE(2);
    f.asked = TAKE(2);
    f.done = TAKE(2);
    f.gentle = TAKE(2);
    f.fixed = TAKE(2);
    f.dropin_other = TAKE(2);
    f.no_lease = TAKE(2);
#undef TAKE
    return f;
}

static void show(const struct agent_facts *f, enum agent_op op)
{
    fprintf(stderr,
            "wish %d file %d active %d job %d stale %d busy %d known %d linked %d restart %d asked %d done "
            "%d gentle %d fixed %d dropin_other %d no_lease %d: %s\n",
            f->wish, f->file, f->active, f->job, f->stale, f->busy, f->known, f->linked, f->restart, f->asked,
            f->done, f->gentle, f->fixed, f->dropin_other, f->no_lease, agent_op_to_string(op));
}

/* What the table of agent_plan.c promises, said the other way round: when an operation is allowed at all. */
static bool is_lawful(const struct agent_facts *f, enum agent_op op)
{
    bool wanted = f->wish == AGENT_WISH_LOADED || f->wish == AGENT_WISH_LAUNCHED;
    bool ready = wanted && f->file == AGENT_FILE_SAME && f->linked && f->stale == AGENT_STALE_NO && f->known;
    bool up = agent_facts_up(f), launch = ready && f->wish == AGENT_WISH_LAUNCHED;

    if (f->busy)
        return op == AGENT_OP_NONE;
    switch (op) {
    case AGENT_OP_NONE: return f->wish != AGENT_WISH_ABSENT || f->job == AGENT_JOB_STOP;
    case AGENT_OP_STOP:
        return up && f->known && f->file != AGENT_FILE_NONE && f->job != AGENT_JOB_STOP &&
               (f->wish == AGENT_WISH_ABSENT ||
                (f->wish == AGENT_WISH_LOADED && (!f->done || f->file == AGENT_FILE_OTHER)));
    case AGENT_OP_REMOVE:
        return f->wish == AGENT_WISH_ABSENT && f->file != AGENT_FILE_NONE && f->known && !up &&
               f->job == AGENT_JOB_NONE;
    case AGENT_OP_CHECK: return !f->known && f->file != AGENT_FILE_NONE;
    case AGENT_OP_WRITE: /* Beside a file that is right, only what is about to be started. */
        return wanted && (f->file != AGENT_FILE_SAME ||
                          (f->dropin_other && f->wish == AGENT_WISH_LAUNCHED && (!up || f->restart)));
    case AGENT_OP_LINK: return wanted && f->file == AGENT_FILE_SAME && !f->linked;
    case AGENT_OP_ASK: return wanted && f->file == AGENT_FILE_SAME && f->stale == AGENT_STALE_UNKNOWN;
    case AGENT_OP_RELOAD: return wanted && f->file == AGENT_FILE_SAME && f->stale == AGENT_STALE_YES;
    case AGENT_OP_START: /* Once per generation; never what runs already. */
        if (launch && f->restart && up)
            return f->gentle && !f->no_lease;
        return launch && !f->done && !f->no_lease && !(f->asked && f->job == AGENT_JOB_NONE) &&
               !(f->active == AGENT_ACTIVE_ACTIVE && f->job == AGENT_JOB_NONE);
    case AGENT_OP_RESTART: /* By the drop-in that binds it to its lease. */
        return launch && f->restart && up && !f->gentle && !f->no_lease && !f->dropin_other;
    case AGENT_OP_SETTLE: return ready && !f->done;
    case AGENT_OP_FORGET: return f->wish == AGENT_WISH_ABSENT && f->file == AGENT_FILE_NONE;
    default: return false;
    }
}

static void test_every_operation_is_lawful(void **state)
{
    for (unsigned n = 0; n < FACTS_COUNT; n++) {
        struct agent_facts f = facts_of(n);
        enum agent_op op = agent_plan_unit(&f);

        if (!is_lawful(&f, op))
            show(&f, op);
        assert_true(is_lawful(&f, op));
    }
}

/* What a well-behaved systemd makes of an operation. */
static void carry_out(struct agent_facts *f, enum agent_op op)
{
    switch (op) {
    case AGENT_OP_STOP: f->job = AGENT_JOB_STOP; break;
    case AGENT_OP_REMOVE:
        f->file = AGENT_FILE_NONE;
        f->linked = f->done = f->asked = f->restart = false;
        break;
    case AGENT_OP_CHECK: f->known = true; break;
    case AGENT_OP_WRITE:
        f->restart |= agent_facts_up(f) && !f->done;
        f->stale = f->file == AGENT_FILE_OTHER ? AGENT_STALE_UNKNOWN : AGENT_STALE_NO;
        f->file = AGENT_FILE_SAME;
        f->dropin_other = false;
        break;
    case AGENT_OP_LINK: f->linked = true; break;
    case AGENT_OP_ASK: f->stale = AGENT_STALE_YES; break;
    case AGENT_OP_RELOAD: f->stale = AGENT_STALE_NO; break;
    case AGENT_OP_START:
    case AGENT_OP_RESTART:
        f->job = AGENT_JOB_START;
        f->asked = true;
        f->restart = false;
        break;
    case AGENT_OP_SETTLE: f->done = true; break;
    default: break;
    }
}

/* A job ends. */
static void finish_job(struct agent_facts *f)
{
    if (f->job == AGENT_JOB_START && f->asked)
        f->done = true;
    f->active = f->job == AGENT_JOB_START ? AGENT_ACTIVE_ACTIVE : AGENT_ACTIVE_INACTIVE;
    f->job = AGENT_JOB_NONE;
}

static void assert_converged(const struct agent_facts *f)
{
    if (f->wish == AGENT_WISH_KEEP)
        return;
    if (f->wish == AGENT_WISH_ABSENT) {
        assert_int_equal(f->file, AGENT_FILE_NONE);
        return;
    }
    assert_int_equal(f->file, AGENT_FILE_SAME);
    assert_true(f->linked && f->done && f->known && f->stale == AGENT_STALE_NO);
    assert_false(f->wish == AGENT_WISH_LAUNCHED && f->restart && agent_facts_up(f));
}

/* From wherever it was interrupted, a unit gets to what is wanted, and then nothing is done any more. */
static void test_every_state_converges(void **state)
{
    for (unsigned n = 0; n < FACTS_COUNT; n++) {
        struct agent_facts f = facts_of(n);
        enum agent_op op = AGENT_OP_NONE;
        int steps = 0;

        f.busy = f.no_lease = false; /* There will be one. */
        for (; steps < 20; steps++) {
            op = agent_plan_unit(&f);
            if ((op == AGENT_OP_NONE && f.job == AGENT_JOB_NONE) || op == AGENT_OP_FORGET)
                break;
            if (op == AGENT_OP_NONE)
                finish_job(&f);
            else
                carry_out(&f, op);
        }
        if (steps == 20)
            show(&f, op);
        assert_true(steps < 20);
        assert_converged(&f);
    }
}

struct row {
    const char *what;
    struct agent_facts facts;
    enum agent_op op;
};

#define HERE         .file = AGENT_FILE_SAME, .known = true, .linked = true
#define RUNS         HERE, .active = AGENT_ACTIVE_ACTIVE
#define WANTED(word) .wish = AGENT_WISH_##word

static const struct row rows[] = {
    {"no share: nothing is touched", {WANTED(KEEP), RUNS}, AGENT_OP_NONE},
    {"no share: but reported", {WANTED(KEEP), .file = AGENT_FILE_OTHER}, AGENT_OP_CHECK},
    {"a new unit", {WANTED(LAUNCHED), .known = true}, AGENT_OP_WRITE},
    {"written", {WANTED(LAUNCHED), .file = AGENT_FILE_SAME, .known = true}, AGENT_OP_LINK},
    {"linked", {WANTED(LAUNCHED), HERE}, AGENT_OP_START},
    {"start asked", {WANTED(LAUNCHED), HERE, .asked = true, .job = AGENT_JOB_START}, AGENT_OP_NONE},
    {"adopted", {WANTED(LAUNCHED), RUNS}, AGENT_OP_SETTLE},
    {"adopted with its job",
     {WANTED(LAUNCHED), HERE, .asked = true, .active = AGENT_ACTIVE_ACTIVATING, .job = AGENT_JOB_START},
     AGENT_OP_NONE},
    {"state lost, starting",
     {WANTED(LAUNCHED), HERE, .active = AGENT_ACTIVE_ACTIVATING, .job = AGENT_JOB_START},
     AGENT_OP_START},
    {"stopped by an operator", {WANTED(LAUNCHED), HERE, .asked = true, .done = true}, AGENT_OP_NONE},
    {"failed", {WANTED(LAUNCHED), HERE, .active = AGENT_ACTIVE_FAILED, .done = true}, AGENT_OP_NONE},
    {"failed, a new generation", {WANTED(LAUNCHED), HERE, .active = AGENT_ACTIVE_FAILED}, AGENT_OP_START},
    {"a finished oneshot, its end unseen", {WANTED(LAUNCHED), HERE, .asked = true}, AGENT_OP_SETTLE},
    {"stopping, wanted again",
     {WANTED(LAUNCHED), HERE, .active = AGENT_ACTIVE_DEACTIVATING, .job = AGENT_JOB_STOP},
     AGENT_OP_START},
    {"new content, running",
     {WANTED(LAUNCHED), .file = AGENT_FILE_OTHER, .known = true, .linked = true,
      .active = AGENT_ACTIVE_ACTIVE},
     AGENT_OP_WRITE},
    {"new content, written",
     {WANTED(LAUNCHED), RUNS, .restart = true, .stale = AGENT_STALE_UNKNOWN},
     AGENT_OP_ASK},
    {"new content, reload needed",
     {WANTED(LAUNCHED), RUNS, .restart = true, .stale = AGENT_STALE_YES},
     AGENT_OP_RELOAD},
    {"new content, reloaded", {WANTED(LAUNCHED), RUNS, .restart = true}, AGENT_OP_RESTART},
    {"new content, had stopped", {WANTED(LAUNCHED), HERE, .restart = true}, AGENT_OP_START},
    {"a target's new content", {WANTED(LAUNCHED), RUNS, .restart = true, .gentle = true}, AGENT_OP_START},
    {"a device, plugged in", {WANTED(LAUNCHED), RUNS, .gentle = true, .fixed = true}, AGENT_OP_SETTLE},
    {"a device, awaited", {WANTED(LAUNCHED), HERE, .gentle = true, .fixed = true}, AGENT_OP_START},
    {"a device that is to be loaded, plugged in", {WANTED(LOADED), RUNS, .fixed = true}, AGENT_OP_SETTLE},
    {"a device that is not wanted, plugged in", {WANTED(ABSENT), RUNS, .fixed = true}, AGENT_OP_REMOVE},
    {"a device that is not wanted, awaited",
     {WANTED(ABSENT), HERE, .fixed = true, .job = AGENT_JOB_START},
     AGENT_OP_STOP},
    {"without its lease", {WANTED(LAUNCHED), HERE, .no_lease = true}, AGENT_OP_NONE},
    {"without its lease, runs", {WANTED(LAUNCHED), RUNS, .no_lease = true}, AGENT_OP_SETTLE},
    {"without its lease, new content",
     {WANTED(LAUNCHED), RUNS, .restart = true, .no_lease = true},
     AGENT_OP_NONE},
    {"another token", {WANTED(LAUNCHED), HERE, .dropin_other = true}, AGENT_OP_WRITE},
    {"another token, runs", {WANTED(LAUNCHED), RUNS, .done = true, .dropin_other = true}, AGENT_OP_NONE},
    {"another token, to be restarted",
     {WANTED(LAUNCHED), RUNS, .restart = true, .dropin_other = true},
     AGENT_OP_WRITE},
    {"to be loaded", {WANTED(LOADED), HERE}, AGENT_OP_SETTLE},
    {"to be loaded, runs", {WANTED(LOADED), RUNS}, AGENT_OP_STOP},
    {"loaded, started by an operator", {WANTED(LOADED), RUNS, .done = true}, AGENT_OP_NONE},
    {"loaded, new content, runs",
     {WANTED(LOADED), .file = AGENT_FILE_OTHER, .known = true, .active = AGENT_ACTIVE_ACTIVE, .done = true},
     AGENT_OP_STOP},
    {"not wanted, runs", {WANTED(ABSENT), RUNS}, AGENT_OP_STOP},
    {"not wanted, starting", {WANTED(ABSENT), HERE, .job = AGENT_JOB_START}, AGENT_OP_STOP},
    {"not wanted, stopping",
     {WANTED(ABSENT), HERE, .active = AGENT_ACTIVE_DEACTIVATING, .job = AGENT_JOB_STOP},
     AGENT_OP_NONE},
    {"not wanted, stopped", {WANTED(ABSENT), HERE}, AGENT_OP_REMOVE},
    {"not wanted, failed", {WANTED(ABSENT), HERE, .active = AGENT_ACTIVE_FAILED}, AGENT_OP_REMOVE},
    {"not wanted, removed", {WANTED(ABSENT)}, AGENT_OP_FORGET},
    {"not wanted, unknown after a restart", {WANTED(ABSENT), .file = AGENT_FILE_SAME}, AGENT_OP_CHECK},
};

static void test_rows(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        enum agent_op op = agent_plan_unit(&rows[i].facts);

        if (op != rows[i].op)
            fprintf(stderr, "%s: %s\n", rows[i].what, agent_op_to_string(op));
        assert_int_equal(op, rows[i].op);
    }
}

static void test_batch_is_ordered(void **state)
{
    struct agent_plan_item items[] = {
        {.name = "start-b", .facts = {WANTED(LAUNCHED), HERE}, .batch = 7},
        {.name = "start-a", .facts = {WANTED(LAUNCHED), HERE}, .batch = 7},
        {.name = "settle", .facts = {WANTED(LAUNCHED), RUNS}, .batch = 7},
        {.name = "remove", .facts = {WANTED(ABSENT), HERE}, .batch = 7},
        {.name = "stop", .facts = {WANTED(ABSENT), RUNS}, .batch = 7},
    };
    static const char *const order[] = {"stop", "remove", "start-a", "start-b", "settle"};

    agent_plan(items, ARRAY_SIZE(items), UINT64_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        assert_string_equal(items[i].name, order[i]);
}

/* Starts wait until what came with them, or before, is written, linked and reloaded; not for what came later.
 */
static void test_starts_wait_for_preparation(void **state)
{
    struct agent_plan_item items[] = {
        {.name = "later", .facts = {WANTED(LAUNCHED), HERE}, .batch = 3},
        {.name = "earlier", .facts = {WANTED(LAUNCHED), HERE}, .batch = 1},
        {.name = "same", .facts = {WANTED(LAUNCHED), RUNS, .restart = true}, .batch = 2},
        {.name = "written", .facts = {WANTED(LAUNCHED), .file = AGENT_FILE_NONE}, .batch = 2},
    };
    struct agent_plan_item alone = {.name = "alone", .facts = {WANTED(LAUNCHED), HERE}, .batch = 5};

    agent_plan(items, ARRAY_SIZE(items), UINT64_MAX);
    assert_int_equal(items[0].op, AGENT_OP_WRITE);
    assert_int_equal(items[1].op, AGENT_OP_HOLD);
    assert_int_equal(items[2].op, AGENT_OP_HOLD);
    assert_int_equal(items[3].op, AGENT_OP_START);
    assert_string_equal(items[3].name, "earlier");

    agent_plan(&alone, 1, 5); /* In a call. */
    assert_int_equal(alone.op, AGENT_OP_HOLD);
    agent_plan(&alone, 1, 6);
    assert_int_equal(alone.op, AGENT_OP_START);
    agent_plan(NULL, 0, UINT64_MAX);
}

/* One reload for all that came together: it waits until each is known to need it, or not to. */
static void test_reload_waits_for_what_came_with_it(void **state)
{
    struct agent_plan_item items[] = {
        {.name = "earlier", .facts = {WANTED(LAUNCHED), RUNS, .stale = AGENT_STALE_YES}, .batch = 1},
        {.name = "stale", .facts = {WANTED(LAUNCHED), RUNS, .stale = AGENT_STALE_YES}, .batch = 2},
        {.name = "unknown", .facts = {WANTED(LAUNCHED), RUNS, .stale = AGENT_STALE_UNKNOWN}, .batch = 2},
    };
    struct agent_plan_item alone = {
        .name = "alone", .facts = {WANTED(LAUNCHED), RUNS, .stale = AGENT_STALE_YES}, .batch = 5};

    agent_plan(items, ARRAY_SIZE(items), UINT64_MAX);
    assert_int_equal(items[0].op, AGENT_OP_ASK);
    assert_int_equal(items[1].op, AGENT_OP_RELOAD);
    assert_string_equal(items[1].name, "earlier");
    assert_int_equal(items[2].op, AGENT_OP_HOLD);

    agent_plan(&alone, 1, 5); /* Another one is in a call. */
    assert_int_equal(alone.op, AGENT_OP_HOLD);
    agent_plan(&alone, 1, 6);
    assert_int_equal(alone.op, AGENT_OP_RELOAD);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_is_lawful),
        cmocka_unit_test(test_every_state_converges),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_batch_is_ordered),
        cmocka_unit_test(test_starts_wait_for_preparation),
        cmocka_unit_test(test_reload_waits_for_what_came_with_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
