/* SPDX-License-Identifier: Apache-2.0 */
/* The store, several in one process and on one loop: what a cluster is for, and what must be refused. What
 * takes kill -9 or a full disk is in test-store-kill.c. */
#include <config.h>

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

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "deadline.h"
#include "raftstore/sidefile.h"
#include "store-node.h"
#include "under-valgrind.h"

#define NODES_MAX 5u
/* Up to five servers are one thread here: slow, they would not hear their leader in time. */
#define ELECTION_MS patient_ms(NODE_ELECTION_MS)

/* ---- a world: a loop, servers, a deadline ---- */

struct world {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired;
    char directory[64];
    struct node nodes[NODES_MAX];
    unsigned count, closed;
    /* What came of what was asked. */
    unsigned outcomes[3], bad_status, next_done;
    bool out_of_order;
    size_t seen; /* Units, when a barrier came through. */
    char reason[256];
};

/* One answer that is waited for by itself. */
struct answer {
    bool came;
    enum store_outcome outcome;
    char reason[256];
};

static struct world the_world;

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

static int setup(void **state)
{
    struct world *w = &the_world;

    memset(w, 0, sizeof *w);
    log_set_sink(sink);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->deadline);
    w->deadline.data = w;
    make_test_directory(w->directory, sizeof w->directory);
    *state = w;
    return 0;
}

static void on_closed(void *data)
{
    struct world *w = data;

    w->closed++;
}

static void world_close(struct world *w, struct node *node)
{
    unsigned before = w->closed;

    if (node->store == NULL)
        return;
    node_close(node, on_closed, w);
    WAIT(w, w->closed > before);
    node->store = NULL;
}

static int teardown(void **state)
{
    struct world *w = *state;

    for (unsigned i = w->count; i-- > 0;)
        world_close(w, &w->nodes[i]);
    for (unsigned i = 0; i < w->count; i++) {
        w->closed = 0;
        port_close(w->nodes[i].port, on_closed, w);
        WAIT(w, w->closed > 0);
    }
    uv_close((uv_handle_t *)&w->deadline, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    remove_directory(w->directory);
    return uv_loop_close(&w->loop);
}

static struct node *add_node(struct world *w)
{
    struct node *node = &w->nodes[w->count++];

    node->loop = &w->loop;
    node->id = w->count;
    node->bootstrap = w->count == 1;
    node->cluster = 7;
    node->election_ms = ELECTION_MS;
    snprintf(node->directory, sizeof node->directory, "%s/%u", w->directory, w->count);
    node_listen(node);
    return node;
}

static void open_node(struct node *node)
{
    struct err err = {0};

    if (node_open(node, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(node->early_changes, 0);
}

static struct node *leader(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->nodes[i].store != NULL && w->nodes[i].leads)
            return &w->nodes[i];
    return NULL;
}

/* ---- asking ---- */

static void on_answer(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                      void *data)
{
    struct answer *answer = data;

    assert_false(answer->came);
    answer->came = true;
    answer->outcome = outcome;
    snprintf(answer->reason, sizeof answer->reason, "%s", reason);
}

static void change(struct world *w, const struct node *node, enum server_role role)
{
    struct answer answer = {0};

    store_change_server(leader(w)->store, node->id, node->address, role, on_answer, &answer);
    assert_false(answer.came);
    WAIT(w, answer.came);
    if (answer.outcome != STORE_APPLIED)
        fail_msg("%s", answer.reason);
}

static void barrier(struct world *w)
{
    struct answer answer = {0};

    store_barrier(leader(w)->store, on_answer, &answer);
    WAIT(w, answer.came);
    assert_int_equal(answer.outcome, STORE_APPLIED);
}

static void on_proposed(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                        void *data)
{
    struct world *w = &the_world;

    w->outcomes[outcome]++;
    w->out_of_order |= (uintptr_t)data != w->next_done++;
    if (outcome == STORE_APPLIED)
        w->bad_status += result->status != 0;
    else
        snprintf(w->reason, sizeof w->reason, "%s", reason);
}

static unsigned answered(const struct world *w)
{
    return w->outcomes[STORE_APPLIED] + w->outcomes[STORE_REFUSED] + w->outcomes[STORE_UNKNOWN];
}

static void ask_many(struct world *w, struct node *node, unsigned first, unsigned count, size_t text_size)
{
    memset(w->outcomes, 0, sizeof w->outcomes);
    w->next_done = 0;
    w->out_of_order = false;
    for (unsigned i = 0; i < count; i++)
        node_propose(node, first + i, text_size, on_proposed, (void *)(uintptr_t)i);
    assert_int_equal(answered(w), 0);
}

static void propose_many(struct world *w, unsigned first, unsigned count, size_t text_size)
{
    ask_many(w, leader(w), first, count, text_size);
    WAIT(w, answered(w) == count);
    assert_int_equal(w->outcomes[STORE_APPLIED], count);
    assert_int_equal(w->bad_status, 0);
    assert_false(w->out_of_order);
}

static bool all_have(const struct world *w, size_t units)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->nodes[i].store != NULL && registry_unit_count(store_registry(w->nodes[i].store)) != units)
            return false;
    return true;
}

static void assert_equal_everywhere(struct world *w, size_t units)
{
    _cleanup_(freep) uint8_t *first = NULL;
    size_t first_size = 0;

    WAIT(w, all_have(w, units));
    for (unsigned i = 0; i < w->count; i++) {
        _cleanup_(freep) uint8_t *bytes = NULL;
        size_t size;

        if (w->nodes[i].store == NULL)
            continue;
        node_registry(&w->nodes[i], &bytes, &size);
        if (first == NULL) {
            first = TAKE_PTR(bytes);
            first_size = size;
            continue;
        }
        assert_int_equal(size, first_size);
        assert_memory_equal(bytes, first, size);
    }
}

static void found(struct world *w)
{
    open_node(add_node(w));
    WAIT(w, leader(w) != NULL);
}

static struct node *join(struct world *w, bool votes)
{
    struct node *node = add_node(w);

    open_node(node);
    change(w, node, SERVER_STANDBY);
    if (votes)
        change(w, node, SERVER_VOTER);
    return node;
}

static void found_three(struct world *w)
{
    found(w);
    join(w, true);
    join(w, true);
}

/* ---- a cluster ---- */

static void test_one_server(void **state)
{
    struct world *w = *state;
    struct node *node;
    struct answer answer = {0};

    found(w);
    node = &w->nodes[0];
    propose_many(w, 0, 1000, NODE_TEXT_SMALL);
    assert_int_equal(store_role(node->store), STORE_LEADER);
    assert_int_equal(store_leader_id(node->store), 1);
    assert_string_equal(store_leader_address(node->store), node->address);

    world_close(w, node);
    node->leads = false;
    node->changes = 0;
    open_node(node); /* Applies its whole log before it returns. */
    WAIT(w, leader(w) != NULL);
    assert_true(node->changes > 0);
    assert_int_equal(registry_unit_count(store_registry(node->store)), 1000);

    /* The same requests again: remembered, not repeated. */
    propose_many(w, 0, 1000, NODE_TEXT_SMALL);
    assert_int_equal(registry_version(store_registry(node->store)), 1000);

    for (enum server_role role = SERVER_STANDBY; role <= SERVER_REMOVED; role++)
        if (role != SERVER_VOTER) {
            answer.came = false;
            store_change_server(node->store, 1, node->address, role, on_answer, &answer);
            WAIT(w, answer.came);
            assert_int_equal(answer.outcome, STORE_REFUSED);
        }
}

static void test_three_servers(void **state)
{
    struct world *w = *state;
    struct store_server servers[NODES_MAX];
    struct node *old;
    struct answer answer = {0};
    uint64_t began;

    found_three(w);
    for (unsigned i = 0; i < 3; i++)
        WAIT(w, streq(store_leader_address(w->nodes[i].store), w->nodes[0].address));
    propose_many(w, 0, 1000, NODE_TEXT_SMALL);
    assert_equal_everywhere(w, 1000);

    /* Whoever follows refuses. */
    ask_many(w, &w->nodes[1], 5000, 1, NODE_TEXT_SMALL);
    store_barrier(w->nodes[1].store, on_answer, &answer);
    WAIT(w, answer.came && answered(w) == 1);
    assert_int_equal(w->outcomes[STORE_REFUSED], 1);
    assert_int_equal(answer.outcome, STORE_REFUSED);

    /* A leader that closes hands over, and leaves no outcome in doubt. */
    old = leader(w);
    ask_many(w, old, 1000, 200, NODE_TEXT_SMALL);
    WAIT(w, answered(w) > 0);
    began = uv_hrtime();
    world_close(w, old);
    assert_false(old->leads);
    WAIT(w, leader(w) != NULL);
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "closed and led again in %u ms\n", (unsigned)((uv_hrtime() - began) / 1000000));
    assert_int_equal(answered(w), 200);
    assert_int_equal(w->outcomes[STORE_UNKNOWN], 0);
    assert_true(w->outcomes[STORE_REFUSED] > 0);
    assert_equal_everywhere(w, 1000 + w->outcomes[STORE_APPLIED]);
    propose_many(w, 1000, 200, NODE_TEXT_SMALL); /* Of which some are there already. */
    open_node(old);
    assert_equal_everywhere(w, 1200);

    assert_int_equal(store_servers(leader(w)->store, servers, NODES_MAX), 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(servers[i].role, SERVER_VOTER);
}

/* Leadership goes to whom it is offered, and to nobody else. */
static void test_leadership_is_offered(void **state)
{
    struct world *w = *state;
    struct node *old;

    found_three(w);
    for (unsigned i = 0; i < 3; i++)
        WAIT(w, streq(store_leader_address(w->nodes[i].store), w->nodes[0].address));
    for (unsigned round = 0; round < 3; round++) {
        struct node *heir = &w->nodes[round == 0 ? 2 : round - 1];

        old = leader(w);
        assert_ptr_not_equal(old, heir);
        ask_many(w, old, 100 * round, 50, NODE_TEXT_SMALL);
        /* One that is still writing does not take it: it is offered again. */
        WAIT(w, (store_hand_over(old->store, &heir->id, 1), heir->leads && !old->leads));
        WAIT(w, answered(w) == 50);
        assert_int_equal(w->outcomes[STORE_UNKNOWN], 0);
        WAIT(w, streq(store_leader_address(old->store), heir->address));
    }

    /* Nobody there to take it: it goes on leading. */
    old = leader(w);
    world_close(w, &w->nodes[2]);
    store_hand_over(old->store, &w->nodes[2].id, 1);
    store_hand_over(w->nodes[0].store, &w->nodes[2].id, 1); /* Whoever does not lead has nothing to give. */
    do { /* While it is not known that nobody takes it, changes are refused. */
        ask_many(w, old, 1000, 1, NODE_TEXT_SMALL);
        WAIT(w, answered(w) == 1);
        assert_int_equal(w->outcomes[STORE_UNKNOWN], 0);
    } while (w->outcomes[STORE_APPLIED] == 0);
    assert_ptr_equal(leader(w), old);
    assert_equal_everywhere(w, registry_unit_count(store_registry(old->store)));
}

static void on_read(enum store_outcome outcome, const struct registry_result *result, const char *reason,
                    void *data)
{
    struct world *w = &the_world;

    assert_int_equal(outcome, STORE_APPLIED);
    w->seen = registry_unit_count(store_registry(leader(w)->store));
    assert_true(w->seen >= (uintptr_t)data);
    w->closed++;
}

/* A read behind a barrier sees at least what was acknowledged before it was asked for. */
static void test_barriers(void **state)
{
    struct world *w = *state;
    unsigned asked = 0;

    found_three(w);
    w->closed = 0;
    ask_many(w, leader(w), 0, 500, NODE_TEXT_SMALL);
    while (answered(w) < 500) {
        store_barrier(leader(w)->store, on_read, (void *)(uintptr_t)w->outcomes[STORE_APPLIED]);
        store_barrier(leader(w)->store, on_read, (void *)(uintptr_t)w->outcomes[STORE_APPLIED]);
        asked += 2;
        uv_run(&w->loop, UV_RUN_ONCE);
    }
    WAIT(w, w->closed == asked);
    barrier(w);
}

/* ---- what is new waits until all hosts know it ---- */

struct proposed {
    bool came;
    int status;
};

static void on_command_done(enum store_outcome outcome, const struct registry_result *result,
                            const char *reason, void *data)
{
    struct proposed *proposed = data;

    assert_int_equal(outcome, STORE_APPLIED);
    proposed->came = true;
    proposed->status = result->status;
}

static int propose_command(struct world *w, const Fleet__Command *command)
{
    struct proposed proposed = {0};

    store_propose(leader(w)->store, command, on_command_done, &proposed);
    assert_false(proposed.came);
    WAIT(w, proposed.came);
    return proposed.status;
}

/* An older follower would ignore the settings and count the change all the same; so it never sees one. */
static void test_new_commands_wait_for_all_hosts(void **state)
{
    struct world *w = *state;
    Fleet__Setting setting = FLEET__SETTING__INIT, *settings[] = {&setting};
    Fleet__ChangeSettings body = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__SetLevel level = FLEET__SET_LEVEL__INIT;
    Fleet__Command change = FLEET__COMMAND__INIT, raise = FLEET__COMMAND__INIT;
    const struct registry *registry;

    found(w);
    registry = store_registry(leader(w)->store);
    setting.name = (char *)"failure_limit_burst";
    setting.value = (char *)"3";
    body.changes = settings;
    body.n_changes = 1;
    change.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    change.change_settings = &body;
    assert_int_equal(propose_command(w, &change), -EPROTO);
    assert_int_equal(registry_version(registry), 0);
    assert_null(registry_setting(registry, setting.name));

    level.level = 1;
    raise.body_case = FLEET__COMMAND__BODY_SET_LEVEL;
    raise.set_level = &level;
    assert_int_equal(propose_command(w, &raise), 0);
    assert_int_equal(propose_command(w, &change), 0);
    assert_string_equal(registry_setting(registry, setting.name), "3");
}

/* A majority is gone: what is in flight is unknown, what waits is refused, nothing is left without answer. */
static void test_lost_majority(void **state)
{
    struct world *w = *state;
    struct answer answer = {0};
    struct node *node;

    found_three(w);
    node = leader(w);
    for (unsigned i = 0; i < 3; i++)
        if (&w->nodes[i] != node)
            world_close(w, &w->nodes[i]);
    ask_many(w, node, 0, 300, NODE_TEXT_SMALL);
    store_barrier(node->store, on_answer, &answer);
    WAIT(w, answered(w) == 300 && answer.came);
    assert_true(w->outcomes[STORE_UNKNOWN] > 0 && w->outcomes[STORE_UNKNOWN] <= PROPOSALS_IN_FLIGHT_MAX);
    assert_int_equal(w->outcomes[STORE_REFUSED], 300 - w->outcomes[STORE_UNKNOWN]);
    assert_int_equal(answer.outcome, STORE_REFUSED);
    assert_false(node->leads);
}

/* ---- members ---- */

static void test_server_is_removed_and_joins_anew(void **state)
{
    struct world *w = *state;
    struct store_server servers[NODES_MAX];
    struct node *gone, *anew;
    size_t n;

    found_three(w);
    propose_many(w, 0, 100, NODE_TEXT_SMALL);
    gone = &w->nodes[2];
    world_close(w, gone);
    node_wipe(gone);

    anew = join(w, false);
    change(w, gone, SERVER_REMOVED);
    change(w, anew, SERVER_VOTER);
    assert_int_equal(store_servers(leader(w)->store, servers, NODES_MAX), 3);
    assert_equal_everywhere(w, 100);

    /* One that is alive learns that it does not vote any more, and so keeps quiet. */
    change(w, anew, SERVER_REMOVED);
    n = store_servers(anew->store, servers, NODES_MAX);
    for (size_t i = 0; i < n; i++)
        assert_true(servers[i].id != anew->id || servers[i].role != SERVER_VOTER);
    propose_many(w, 100, 10, NODE_TEXT_SMALL);
}

static void test_bad_members_are_refused(void **state)
{
    static const struct {
        uint64_t id;
        const char *address;
    } cases[] = {{9, ""}, {9, "host:port"}, {9, ":7390"}, {0, "127.0.0.1:1"}, {9, "[::1"}};
    struct world *w = *state;
    struct answer first = {0}, second = {0};

    found(w);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct answer answer = {0};

        store_change_server(w->nodes[0].store, cases[i].id, cases[i].address, SERVER_STANDBY, on_answer,
                            &answer);
        WAIT(w, answer.came);
        assert_int_equal(answer.outcome, STORE_REFUSED);
        assert_true(answer.reason[0] != '\0');
    }
    store_change_server(w->nodes[0].store, 9, "127.0.0.1:1", SERVER_STANDBY, on_answer, &first);
    store_change_server(w->nodes[0].store, 8, "127.0.0.1:2", SERVER_STANDBY, on_answer, &second);
    WAIT(w, first.came && second.came);
    assert_int_equal(first.outcome, STORE_APPLIED);
    assert_int_equal(second.outcome, STORE_REFUSED);
}

static bool has_file(const struct node *node, const char *prefix)
{
    _cleanup_(freep) char *path = node_find_file(node, prefix);

    return path != NULL;
}

static void test_late_joiner_gets_the_snapshot(void **state)
{
    struct world *w = *state;
    struct node *node;

    node = add_node(w);
    node->snapshot_log_bytes = 1024 * 1024;
    open_node(node);
    WAIT(w, leader(w) != NULL);
    assert_false(has_file(node, "snapshot-"));
    propose_many(w, 0, 40, 64 * 1024);
    WAIT(w, has_file(node, "snapshot-"));

    node = join(w, true);
    assert_true(has_file(node, "snapshot-"));
    propose_many(w, 40, 10, NODE_TEXT_SMALL);
    assert_equal_everywhere(w, 50);

    world_close(w, node);
    open_node(node);
    propose_many(w, 50, 1, NODE_TEXT_SMALL);
    assert_equal_everywhere(w, 51);
}

/* ---- hosts that have moved ---- */

/* Closed, and with another address; the store is to be opened. */
static void move(struct world *w, struct node *node)
{
    unsigned before;

    world_close(w, node);
    before = w->closed;
    port_close(node->port, on_closed, w);
    WAIT(w, w->closed > before);
    node->address[0] = '\0';
    node->leads = false;
    node_listen(node);
}

static void move_self(struct world *w, const struct node *node)
{
    struct answer answer = {0};

    store_move_self(node->store, on_answer, &answer);
    WAIT(w, answer.came);
    if (answer.outcome != STORE_APPLIED)
        fail_msg("%s", answer.reason);
}

/* Turns the loop for some elections. */
static void pass_time(struct world *w)
{
    w->expired = false;
    uv_timer_start(&w->deadline, on_deadline, 4 * ELECTION_MS, 0);
    while (!w->expired)
        uv_run(&w->loop, UV_RUN_ONCE);
}

/* It keeps quiet until it is clear that it may move. Then its standby hears it, and one that gets the log
 * from its beginning, in many messages, of which the first ones have it where it was. */
static void test_the_only_voter_moves(void **state)
{
    struct world *w = *state;
    struct node *voter, *standby;

    found(w);
    standby = join(w, false);
    voter = leader(w);
    propose_many(w, 0, 3000, NODE_TEXT_SMALL);
    WAIT(w, all_have(w, 3000));

    move(w, voter);
    open_node(voter);
    WAIT(w, leader(w) != NULL);
    assert_string_not_equal(store_own_place(voter->store), voter->address);
    propose_many(w, 3000, 1, NODE_TEXT_SMALL);
    pass_time(w);
    assert_int_equal(registry_unit_count(store_registry(standby->store)), 3000);

    move_self(w, voter);
    assert_string_equal(store_own_place(voter->store), voter->address);
    WAIT(w, all_have(w, 3001));
    WAIT(w, strcmp(store_leader_address(standby->store), voter->address) == 0);
    join(w, true);
    assert_equal_everywhere(w, 3001);
    world_close(w, voter);
    voter->leads = false;
    open_node(voter);
    assert_string_equal(store_own_place(voter->store), voter->address);
}

/* It has the address now that its standby had: nothing can be at both, so that one is taken out first. */
static void test_the_only_voter_moves_to_where_its_standby_was(void **state)
{
    struct world *w = *state;
    struct node *voter, *standby;
    struct answer answer = {0};
    char place[ADDRESS_MAX + 1];
    unsigned before;

    found(w);
    standby = join(w, false);
    voter = leader(w);
    propose_many(w, 0, 10, NODE_TEXT_SMALL);
    WAIT(w, all_have(w, 10));
    strcpy(place, standby->address);
    move(w, standby);
    world_close(w, voter);
    before = w->closed;
    port_close(voter->port, on_closed, w);
    WAIT(w, w->closed > before);
    strcpy(voter->address, place);
    voter->leads = false;
    node_listen(voter);
    open_node(voter);
    WAIT(w, leader(w) != NULL);

    store_move_self(voter->store, on_answer, &answer);
    WAIT(w, answer.came);
    assert_int_equal(answer.outcome, STORE_REFUSED);
    assert_string_not_equal(store_own_place(voter->store), voter->address);
    change(w, standby, SERVER_REMOVED);
    move_self(w, voter);
    assert_string_equal(store_own_place(voter->store), place);
    open_node(standby);
    change(w, standby, SERVER_STANDBY);
    assert_equal_everywhere(w, 10);
}

static void copy_files(const struct node *from, const struct node *to)
{
    _cleanup_(freep) char *command =
        xasprintf("mkdir -p %s && cp -r %s/. %s", to->directory, from->directory, to->directory);

    assert_int_equal(system(command), 0);
}

/* A copy of the only voter is a second cluster, but it does not get the standby of the first one. */
static void test_a_copy_of_the_only_voter_gets_nobody(void **state)
{
    struct world *w = *state;
    struct node *voter, *standby, *copy;

    found(w);
    voter = leader(w);
    standby = join(w, false);
    propose_many(w, 0, 10, NODE_TEXT_SMALL);
    WAIT(w, all_have(w, 10));
    copy = add_node(w);
    copy->boot = 1;
    copy->id = voter->id;
    move(w, copy);
    copy_files(voter, copy);
    open_node(copy);
    WAIT(w, copy->leads);
    move_self(w, copy);
    node_propose(copy, 100, NODE_TEXT_SMALL, on_proposed, NULL);
    pass_time(w);
    assert_int_equal(registry_unit_count(store_registry(copy->store)), 11);
    assert_int_equal(registry_unit_count(store_registry(standby->store)), 10);
    w->next_done = 0;
    copy->leads = false;
    propose_many(w, 10, 1, NODE_TEXT_SMALL);
    WAIT(w, registry_unit_count(store_registry(standby->store)) == 11);
    copy->leads = true;
}

static void add_anew(struct world *w, const struct node *node)
{
    change(w, node, SERVER_REMOVED);
    change(w, node, SERVER_STANDBY);
    change(w, node, SERVER_VOTER);
}

/* Nobody knows the others, until a person says where they are. Then each can be taken out, and added anew;
 * and whoever joins hears a leader that was elsewhere when the log began. */
static void test_all_voters_have_moved(void **state)
{
    struct world *w = *state;
    char old[3][ADDRESS_MAX + 1];
    struct store_move moves[3];
    struct node *first;
    unsigned count = 180;

    found_three(w);
    /* More than is under way to a newcomer at one time; in pieces, for three servers are one thread, and the
     * leader is to be heard in between. */
    for (unsigned i = 0; i < count; i += 20)
        propose_many(w, i, 20, 64 * 1024);
    WAIT(w, all_have(w, count));
    for (unsigned i = 0; i < 3; i++)
        world_close(w, &w->nodes[i]);
    for (unsigned i = 0; i < 3; i++) {
        strcpy(old[i], w->nodes[i].address);
        move(w, &w->nodes[i]);
        open_node(&w->nodes[i]);
        moves[i] = (struct store_move){old[i], w->nodes[i].address};
    }
    pass_time(w);
    assert_null(leader(w));

    for (unsigned i = 0; i < 3; i++)
        world_close(w, &w->nodes[i]);
    for (unsigned i = 0; i < 3; i++) {
        w->nodes[i].moves = moves;
        w->nodes[i].move_count = 3;
        open_node(&w->nodes[i]);
    }
    WAIT(w, leader(w) != NULL);
    first = leader(w);
    for (unsigned i = 0; i < 3; i++) {
        const struct node *node = &w->nodes[i];

        assert_string_equal(store_moved_to(node->store, node->id, old[i]), node->address);
        if (node != first)
            add_anew(w, node);
        propose_many(w, count++, 1, NODE_TEXT_SMALL);
    }
    store_hand_over(first->store, &w->nodes[first == w->nodes].id, 1);
    WAIT(w, leader(w) == &w->nodes[first == w->nodes]);
    add_anew(w, first);
    join(w, true);
    propose_many(w, count++, 1, NODE_TEXT_SMALL);
    assert_equal_everywhere(w, count);
}

/* ---- closing ---- */

static void test_close_answers_everything(void **state)
{
    struct world *w = *state;
    struct answer answers[3] = {0}, late = {0};
    struct node *node;

    found_three(w);
    node = leader(w);
    ask_many(w, node, 0, 300, NODE_TEXT_SMALL);
    store_barrier(node->store, on_answer, &answers[0]);
    store_change_server(node->store, 77, "127.0.0.1:9", SERVER_STANDBY, on_answer, &answers[1]);
    node_close(node, on_closed, w);
    node_propose(node, 999, NODE_TEXT_SMALL, on_answer, &answers[2]);
    store_barrier(node->store, on_answer, &late);
    w->closed = 0;
    WAIT(w, w->closed == 1);
    node->store = NULL;
    assert_int_equal(answered(w), 300);
    assert_int_equal(answers[2].outcome, STORE_REFUSED);
    for (unsigned i = 0; i < 3; i++)
        assert_true(answers[i].came);
    assert_true(late.came);
}

/* The side file is written a last time. */
static void test_clean_close_remembers_all(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *path = NULL;
    struct sidefile file;

    found(w);
    propose_many(w, 0, 10, NODE_TEXT_SMALL);
    path = xasprintf("%s/raft", w->nodes[0].directory);
    world_close(w, &w->nodes[0]);
    assert_int_equal(sidefile_read(path, &file, NULL), 0);
    assert_int_equal(file.committed, 12); /* The configuration, the barrier, and these. */
    assert_int_equal(file.term, 2);       /* The only voter begins one. */
}

/* ---- what is refused at the start ---- */

/* In a child: after a failure the loop is not usable. It ends by a signal, so that no tool counts what is
 * left in its memory. Returns what store_open() did. */
static int try_open(struct node *node, struct err *err)
{
    struct {
        int r;
        struct err err;
    } answer = {0};
    int fds[2];
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uv_loop_t loop;

        end_without_leaks();
        uv_loop_init(&loop);
        node->loop = &loop;
        node->port = NULL;
        answer.r = node_open(node, &answer.err);
        if (write(fds[1], &answer, sizeof answer) == sizeof answer)
            raise(SIGKILL);
        _exit(1);
    }
    close(fds[1]);
    n = read(fds[0], &answer, sizeof answer);
    close(fds[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(n, sizeof answer);
    *err = answer.err;
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "%s\n", err->text);
    return answer.r;
}

static void assert_open_refused(struct node *node, int code, const char *text)
{
    struct err err = {0};

    assert_int_equal(try_open(node, &err), code);
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, err.text);
}

/* Three closed segments of the log, and a clean end. */
static struct node *make_log(struct world *w)
{
    struct node *node;

    found(w);
    node = &w->nodes[0];
    for (unsigned i = 0; i < 3; i++) {
        propose_many(w, 100 * i, 100, 1024);
        world_close(w, node);
        node->leads = false;
        if (i < 2) {
            open_node(node);
            WAIT(w, leader(w) != NULL);
        }
    }
    return node;
}

static void test_another_directory_is_refused(void **state)
{
    struct world *w = *state;
    struct node *node = make_log(w), other = *node;

    other.cluster = 8;
    assert_open_refused(&other, -EXDEV, "belongs to cluster 07");
    other = *node;
    other.id = 55;
    assert_open_refused(&other, -EXDEV, "belongs to server 0000000000000001, this is 0000000000000037");
    other = *node;
    strcpy(other.address, "nonsense:port");
    assert_open_refused(&other, -EINVAL, "the address of this server, \"nonsense:port\"");
    open_node(node); /* Nothing of that has harmed it. */
}

/* The record says that the log had come further than it has. */
static void record_more(const struct node *node, uint64_t terms, uint64_t entries)
{
    _cleanup_(freep) char *path = xasprintf("%s/raft", node->directory);
    struct sidefile file;

    assert_int_equal(sidefile_read(path, &file, NULL), 0);
    file.term += terms;
    file.committed += entries;
    assert_int_equal(sidefile_write(path, &file, NULL), 0);
}

static void test_log_behind_its_record_is_refused(void **state)
{
    struct node *node = make_log(*state);

    record_more(node, 0, 1);
    assert_open_refused(node, -ESTALE, "this disk went back in time; wipe it");
}

static void test_damaged_log_is_refused(void **state)
{
    struct world *w = *state;
    struct node *node = make_log(w);
    _cleanup_(freep) char *path = node_find_file(node, "0000000000000104-");
    _cleanup_(closep) int fd = -1;
    struct stat st;
    char byte;

    if (path == NULL)
        path = node_find_file(node, "00000000000001");
    assert_non_null(path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
    assert_open_refused(node, -EBADMSG, "is damaged");
}

static void test_cluster_is_not_founded_twice(void **state)
{
    struct world *w = *state;
    struct node *node = make_log(w);
    _cleanup_(freep) char *path = xasprintf("%s/raft", node->directory);

    remove_directory(path);
    assert_open_refused(node, -ESTALE, "has founded its cluster already");
}

/* The only voter begins a term when it starts. That must not make up for what the disk has lost, however
 * often it is tried. */
static void test_lost_term_stays_lost(void **state)
{
    struct node *node = make_log(*state);

    record_more(node, 1, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_open_refused(node, -ESTALE, "this disk went back in time; wipe it");
}

static void assert_refused_without_metadata(struct node *node)
{
    for (unsigned i = 1; i <= 2; i++) {
        _cleanup_(freep) char *path = xasprintf("%s/raft/metadata%u", node->directory, i);

        assert_int_equal(unlink(path), 0);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_open_refused(node, -ESTALE, "metadata");
}

static void test_lost_metadata_stay_lost(void **state)
{
    struct node *node = make_log(*state);

    node->bootstrap = false;
    assert_refused_without_metadata(node);
}

/* Who has founded its cluster says so at every start. */
static void test_lost_metadata_of_a_founder(void **state)
{
    assert_refused_without_metadata(make_log(*state));
}

static void test_lost_metadata_and_record(void **state)
{
    struct node *node = make_log(*state);
    _cleanup_(freep) char *path = xasprintf("%s/raft/progress", node->directory);

    assert_int_equal(unlink(path), 0);
    assert_refused_without_metadata(node);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_one_server),
        TEST(test_three_servers),
        TEST(test_leadership_is_offered),
        TEST(test_barriers),
        TEST(test_new_commands_wait_for_all_hosts),
        TEST(test_lost_majority),
        TEST(test_server_is_removed_and_joins_anew),
        TEST(test_bad_members_are_refused),
        TEST(test_late_joiner_gets_the_snapshot),
        TEST(test_the_only_voter_moves),
        TEST(test_the_only_voter_moves_to_where_its_standby_was),
        TEST(test_a_copy_of_the_only_voter_gets_nobody),
        TEST(test_all_voters_have_moved),
        TEST(test_close_answers_everything),
        TEST(test_clean_close_remembers_all),
        TEST(test_another_directory_is_refused),
        TEST(test_log_behind_its_record_is_refused),
        TEST(test_lost_term_stays_lost),
        TEST(test_lost_metadata_stay_lost),
        TEST(test_lost_metadata_of_a_founder),
        TEST(test_lost_metadata_and_record),
        TEST(test_damaged_log_is_refused),
        TEST(test_cluster_is_not_founded_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
