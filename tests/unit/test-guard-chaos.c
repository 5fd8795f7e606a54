/* SPDX-License-Identifier: Apache-2.0 */
/* A guarded cluster of five under seeded chaos in virtual time: links cut in one direction or both, servers
 * killed, revived, restarted from their disks, slow disks, disks that fail. After every step all machines
 * have one history. Then the faults stop: everything that was acknowledged must be there, everywhere, and
 * soon. And bare, for some seed it is not so. Then the same with the registry as the state machine; and with
 * members that change: a few of the five vote at first, and the leader makes voters and standbys, removes
 * one, hands over, and servers lose what is on the way to their disks.
 *
 * A failure prints its seed; "test-guard-chaos SEED" runs that one alone, "test-guard-chaos FIRST LAST" many,
 * "test-guard-chaos registry ..." with the registry, "test-guard-chaos members ..." with changing members.
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

#include "base/alloc.h"
#include "base/cleanup.h"
#include "deadline.h"
#include "raft-cluster.h"
#include "raftstore/registry_private.h"

#define SERVERS       5
#define STEPS         300
#define SEEDS         60
#define TRIP_EVERY    8u
#define FIRST_LETTER  '!'
#define UNITS         9
#define LETTERS       90
#define DISK_SLOW_MS  80            /* Less than what cluster_restart() waits. */
#define REMOVED       (SERVERS - 1) /* The one that may be. */
#define RECOVERY_STEP 1000
#define RECOVERY_MAX  60

static struct cluster c;
static uint64_t random_state;
static unsigned letters;
static bool members;    /* They change, too. */
static bool is_removed; /* REMOVED was: nobody asks it any more. */

/* xorshift64*: the same on every machine. */
static unsigned pick(unsigned count)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * UINT64_C(2685821657736338717)) >> 33) % count;
}

/* ---- the registry as the state machine: each letter is a request ---- */

struct replica {
    struct registry *registry;
    bool trips; /* It goes through a snapshot now and then. */
};

static unsigned replicas;

static void *replica_make(void)
{
    struct replica *replica = NEW0(struct replica);

    replica->registry = registry_new();
    replica->trips = replicas++ % 2 == 0;
    return replica;
}

static void replica_free(void *machine)
{
    struct replica *replica = machine;

    registry_free(replica->registry);
    free(replica);
}

static struct registry *registry_of(unsigned i)
{
    return ((const struct replica *)c.servers[i].machine)->registry;
}

static void save(struct registry *registry, void **ret, size_t *ret_size)
{
    struct registry_snapshot *snapshot = registry_snapshot_new(registry);
    size_t size = 0;

    for (size_t i = 0; i < snapshot->count; i++)
        size += snapshot->pieces[i].size;
    *ret = raft_malloc(size);
    *ret_size = size;
    size = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        memcpy((char *)*ret + size, snapshot->pieces[i].base, snapshot->pieces[i].size);
        size += snapshot->pieces[i].size;
    }
    registry_snapshot_free(registry, snapshot);
}

static void replica_save(void *machine, void **ret, size_t *ret_size)
{
    save(((struct replica *)machine)->registry, ret, ret_size);
}

static bool replica_load(void *machine, const void *bytes, size_t size)
{
    return registry_restore(((struct replica *)machine)->registry, bytes, size, NULL) == 0;
}

static void replica_take(void *machine, const void *bytes, size_t size)
{
    struct replica *replica = machine;
    struct registry_changes changes;
    void *saved;

    registry_apply(replica->registry, bytes, size);
    registry_changes_take(replica->registry, &changes);
    registry_changes_done(&changes);
    if (!replica->trips || registry_version(replica->registry) % TRIP_EVERY != 0)
        return;
    replica_save(replica, &saved, &size);
    if (!replica_load(replica, saved, size))
        abort();
    raft_free(saved);
}

static const struct cluster_machine replica_kind = {replica_make, replica_free, replica_take, replica_save,
                                                    replica_load};

static void request_id(char letter, uint8_t id[REQUEST_ID_SIZE])
{
    memset(id, letter, REQUEST_ID_SIZE);
}

/* Of a test: everything in it is borrowed, or static. */
struct command {
    Fleet__Command command;
    Fleet__ChangeUnits units;
    Fleet__UnitChange change[2], *changes[2];
    char names[2][16], text[96];
    Fleet__RegisterMachine machine;
    char machine_id[MACHINE_ID_SIZE];
    Fleet__Schedule schedule;
    Fleet__Placement placement[UNITS], *placements[UNITS];
    Fleet__ChangeMetadata metadata;
    Fleet__MetadataChange label, *labels[1];
    Fleet__ChangeMachines machines;
    Fleet__MachineChange verdict, *verdicts[1];
    Fleet__SetLease lease;
    Fleet__ChangeSettings settings;
};

/* Two units are made, changed, restarted or destroyed together. */
static void change_units(struct command *it, char letter)
{
    fleet__change_units__init(&it->units);
    snprintf(it->text, sizeof it->text, "[Service]\nExecStart=/bin/echo %d\n%s", letter,
             letter % 3 == 0 ? "[X-Fleet]\nOnDisconnect=stop\n" : "");
    for (unsigned k = 0; k < 2; k++) {
        Fleet__UnitChange *change = it->changes[k] = &it->change[k];

        fleet__unit_change__init(change);
        snprintf(it->names[k], sizeof it->names[k], "u%u.service", ((unsigned)letter + 4 * k) % UNITS);
        change->name = it->names[k];
        change->destroy = letter % 5 == 4 && k == 0;
        change->restart = letter % 5 == 3;
        change->has_text = !change->destroy && !change->restart;
        if (change->has_text)
            change->text = (ProtobufCBinaryData){.len = strlen(it->text), .data = (uint8_t *)it->text};
        change->desired = FLEET__DESIRED_STATE__DESIRED_LAUNCHED;
    }
    it->units.changes = it->changes;
    it->units.n_changes = letter % 2 == 0 ? 2 : 1;
    it->command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    it->command.change_units = &it->units;
}

/* All units to one machine, from where the leader knows them to be. */
static void schedule_units(struct command *it, struct registry *registry)
{
    size_t count;
    const struct registry_unit *const *units = registry_units(registry, &count);

    fleet__schedule__init(&it->schedule);
    for (size_t k = 0; k < count; k++) {
        Fleet__Placement *placement = it->placements[k] = &it->placement[k];

        fleet__placement__init(placement);
        placement->unit = units[k]->name;
        placement->from = (char *)units[k]->target;
        placement->to = it->machine_id;
        placement->reason = (char *)"it is time";
        placement->if_generation = units[k]->generation;
        placement->former_gone = k % 2 == 0;
        placement->handover = k % 3 == 0;
    }
    it->schedule.placements = it->placements;
    it->schedule.n_placements = count;
    it->command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    it->command.schedule = &it->schedule;
}

static void register_machine(struct command *it)
{
    fleet__register_machine__init(&it->machine);
    it->machine.machine_id = it->machine_id;
    it->machine.hostname = (char *)"host";
    it->machine.cluster_address = (char *)"10.0.0.1:7390";
    it->machine.server_id = (uint64_t)it->machine_id[0];
    it->command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    it->command.register_machine = &it->machine;
}

static void change_metadata(struct command *it)
{
    fleet__metadata_change__init(&it->label);
    it->label.machine_id = it->machine_id;
    it->label.key = (char *)"role";
    it->label.value = it->text;
    it->labels[0] = &it->label;
    fleet__change_metadata__init(&it->metadata);
    it->metadata.changes = it->labels;
    it->metadata.n_changes = 1;
    it->command.body_case = FLEET__COMMAND__BODY_CHANGE_METADATA;
    it->command.change_metadata = &it->metadata;
}

static void judge_machine(struct command *it, char letter)
{
    fleet__machine_change__init(&it->verdict);
    it->verdict.machine_id = it->machine_id;
    it->verdict.verdict = letter % 2 == 0 ? FLEET__VERDICT__VERDICT_LOST : FLEET__VERDICT__VERDICT_BACK;
    it->verdict.availability = letter % 3 == 0 ? FLEET__AVAILABILITY__AVAILABILITY_DRAINING
                                               : FLEET__AVAILABILITY__AVAILABILITY_ACTIVE;
    it->verdicts[0] = &it->verdict;
    fleet__change_machines__init(&it->machines);
    it->machines.changes = it->verdicts;
    it->machines.n_changes = 1;
    it->command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    it->command.change_machines = &it->machines;
}

static void set_lease(struct command *it, char letter)
{
    fleet__set_lease__init(&it->lease);
    it->lease.lease_ms = 1000u * (unsigned)letter;
    it->command.body_case = FLEET__COMMAND__BODY_SET_LEASE;
    it->command.set_lease = &it->lease;
}

static void change_settings(struct command *it, char letter)
{
    fleet__change_settings__init(&it->settings);
    it->settings.voters = 1 + 2 * ((unsigned)letter % 4);
    it->command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    it->command.change_settings = &it->settings;
}

/* What a letter asks for is always the same, but for where units are. */
static void make_request(struct command *it, char letter, struct registry *registry)
{
    memset(it->machine_id, 'a' + letter % 3, sizeof it->machine_id - 1);
    it->machine_id[sizeof it->machine_id - 1] = '\0';
    switch (letter / 2 % 12) {
    case 0: register_machine(it); break;
    case 1:
    case 2:
    case 3: schedule_units(it, registry); break;
    case 4: change_metadata(it); break;
    case 5: judge_machine(it, letter); break;
    case 6: set_lease(it, letter); break;
    case 7: change_settings(it, letter); break;
    default: change_units(it, letter); break;
    }
}

static int submit_request(unsigned i, char letter)
{
    struct command request = {.text = "web"};
    uint8_t id[REQUEST_ID_SIZE], *bytes;
    size_t size;
    int r;

    request_id(letter, id);
    fleet__command__init(&request.command);
    request.command.format = COMMAND_FORMAT;
    request.command.request_id = (ProtobufCBinaryData){.len = sizeof id, .data = id};
    make_request(&request, letter, registry_of(i));
    if (command_encode(&request.command, &bytes, &size) < 0)
        abort();
    r = cluster_apply_command(&c, i, letter, bytes, size);
    free(bytes);
    return r;
}

static bool has_done(unsigned i, char letter)
{
    uint8_t id[REQUEST_ID_SIZE];

    if (c.kind == NULL)
        return strchr(cluster_applied(&c, i), letter) != NULL;
    request_id(letter, id);
    return registry_request(registry_of(i), id) != NULL;
}

/* What two have applied of the same version is the same, byte for byte. */
static bool registries_agree(unsigned i, unsigned j)
{
    struct registry *a = registry_of(i), *b = registry_of(j);
    void *x, *y;
    size_t x_size, y_size;
    bool same;

    /* A refused request changes no version, but is remembered. */
    if (registry_version(a) != registry_version(b) || HASH_COUNT(a->requests) != HASH_COUNT(b->requests))
        return true;
    save(a, &x, &x_size);
    save(b, &y, &y_size);
    same = x_size == y_size && memcmp(x, y, x_size) == 0;
    raft_free(x);
    raft_free(y);
    return same;
}

/* ---- chaos ---- */

static bool is_member(unsigned i)
{
    return i != REMOVED || !is_removed;
}

/* A client that has no answer asks again. */
static void submit(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        if (!cluster_leads(&c, i) || letters >= LETTERS)
            continue;
        if (c.kind == NULL)
            cluster_apply(&c, i, (char)(FIRST_LETTER + letters++));
        else if (letters > 0 && pick(4) == 0)
            submit_request(i, (char)(FIRST_LETTER + pick(letters)));
        else
            submit_request(i, (char)(FIRST_LETTER + letters++));
    }
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

    if (!is_member(i))
        return;
    c.servers[i].fatals = 0;
    if (members && pick(3) == 0) {
        cluster_crash(&c, i);
        return;
    }
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

/* Who leads makes voters and standbys of the others, and hands over now and then. (Never of itself: it must
 * have that on its disk before anybody else gets it, and if it is lost then, it has the longest log and does
 * not campaign.) raft refuses a change while another one is under way. A server is removed when it does not
 * vote and knows it, and then it is gone for ever. */
static void change_members(unsigned i, unsigned j)
{
    struct raft *leader = cluster_raft(&c, i);
    bool follows = raft_compat_match_index(leader, j + 1) >= raft_compat_commit_index(leader);

    if (pick(6) == 0)
        cluster_transfer(&c, i, j);
    else if (j == REMOVED && follows && cluster_role(&c, i, j) == RAFT_STANDBY && pick(8) == 0)
        cluster_remove(&c, i, j);
    else
        cluster_assign(&c, i, j, pick(2) == 0 ? RAFT_VOTER : RAFT_STANDBY);
}

static void act_members(unsigned j)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        if (i == j || !cluster_leads(&c, i) || !guard_is_ready(&c.servers[i].guard))
            continue;
        change_members(i, j);
        if (pick(4) != 0)
            continue;
        cluster_run(&c, 1 + pick(DISK_SLOW_MS)); /* Others may have it by then, but not its own disk. */
        cluster_crash(&c, i);
    }
}

/* Also if the leader that did it never heard of its success. */
static void note_removed(void)
{
    for (unsigned i = 0; i < SERVERS && members; i++)
        if (cluster_leads(&c, i) && guard_is_ready(&c.servers[i].guard) && cluster_role(&c, i, REMOVED) < 0 &&
            raft_compat_uncommitted_change(cluster_raft(&c, i)) == 0)
            is_removed = true;
    if (is_removed && raft_fixture_alive(&c.fixture, REMOVED))
        cluster_kill(&c, REMOVED);
}

static void act(void)
{
    unsigned i = pick(SERVERS), j = (i + 1 + pick(SERVERS - 1)) % SERVERS;

    note_removed();
    raft_fixture_set_randomized_election_timeout(&c.fixture, i, 1000 + pick(1000));
    if (members && pick(4) == 0)
        act_members(j);
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

            if (c.kind != NULL && !registries_agree(i, j))
                return false;
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
                if (is_member(j) && !has_done(j, *p))
                    return false;
    return true;
}

static void stop_faults(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        raft_fixture_io_fault(&c.fixture, i, -1, 0);
        raft_fixture_set_disk_latency(&c.fixture, i, 10);
        if (is_member(i))
            cluster_restart(&c, i);
    }
    for (unsigned i = 0; i < SERVERS; i++)
        for (unsigned j = 0; j < i; j++)
            if (is_member(i))
                cluster_heal(&c, i, j);
}

/* All know who votes. */
static bool has_one_configuration(void)
{
    for (unsigned i = 1; i < SERVERS; i++)
        for (unsigned k = 0; k < SERVERS; k++)
            if (is_member(i) && cluster_role(&c, i, k) != cluster_role(&c, 0, k))
                return false;
    return true;
}

/* A letter that is written now reaches all. */
static bool recovers(void)
{
    unsigned everywhere = 0;

    stop_faults();
    for (unsigned k = 0; k < RECOVERY_MAX && everywhere < SERVERS; k++) {
        for (unsigned i = 0; i < SERVERS; i++)
            raft_fixture_set_randomized_election_timeout(&c.fixture, i, 1000 + pick(1000));
        cluster_run(&c, RECOVERY_STEP);
        for (unsigned i = 0; i < SERVERS; i++)
            if (cluster_leads(&c, i) && c.kind == NULL)
                cluster_apply(&c, i, '~');
            else if (cluster_leads(&c, i))
                submit_request(i, '~');
        note_removed();
        everywhere = 0;
        for (unsigned i = 0; i < SERVERS; i++)
            everywhere += !is_member(i) || has_done(i, '~');
    }
    return everywhere == SERVERS;
}

/* NULL, or what went wrong; of a cluster that has just been made. */
static const char *run_cluster(uint64_t seed)
{
    const char *fault = NULL;

    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    letters = 0;
    is_removed = false;
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
    if (fault == NULL && !has_one_configuration())
        fault = "two configurations after recovery";
    if (fault == NULL && !has_all_acknowledged())
        fault = "an acknowledged command is lost";
    cluster_done(&c);
    return fault;
}

static const char *run(uint64_t seed, bool guarded)
{
    cluster_init(&c, SERVERS, guarded);
    return run_cluster(seed);
}

static const char *run_members(uint64_t seed)
{
    const char *fault;

    cluster_init_voters(&c, SERVERS, 1 + seed % 3, true);
    c.asks_first = seed % 2 == 0;
    members = true;
    fault = run_cluster(seed);
    members = false;
    return fault;
}

static const char *run_registry(uint64_t seed)
{
    cluster_init_with(&c, SERVERS, &replica_kind);
    return run_cluster(seed);
}

static void registry_chaos(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const char *fault = run_registry(seed);

        if (fault != NULL)
            fail_msg("seed %llu: %s; again: tests/unit/test-guard-chaos registry %llu",
                     (unsigned long long)seed, fault, (unsigned long long)seed);
    }
}

static void guarded_chaos(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const char *fault = run(seed, true);

        if (fault != NULL)
            fail_msg("seed %llu: %s; again: tests/unit/test-guard-chaos %llu", (unsigned long long)seed,
                     fault, (unsigned long long)seed);
    }
}

static void members_chaos(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const char *fault = run_members(seed);

        if (fault != NULL)
            fail_msg("seed %llu: %s; again: tests/unit/test-guard-chaos members %llu",
                     (unsigned long long)seed, fault, (unsigned long long)seed);
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
            alarm(patient_ms(60000) / 1000);
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
        cmocka_unit_test(members_chaos),
        cmocka_unit_test(bare_chaos),
        cmocka_unit_test(registry_chaos),
    };
    bool registry = argc > 1 && strcmp(argv[1], "registry") == 0;
    bool with_members = argc > 1 && strcmp(argv[1], "members") == 0;
    uint64_t first, last;
    int faults = 0;

    if (argc <= 1)
        return cmocka_run_group_tests(tests, NULL, NULL);
    argc -= registry || with_members;
    argv += registry || with_members;
    first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    last = argc > 2 ? strtoull(argv[2], NULL, 10) : first;
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *fault = registry       ? run_registry(seed)
                            : with_members ? run_members(seed)
                                           : run(seed, getenv("BARE") == NULL);

        if (fault == NULL)
            continue;
        faults++;
        printf("%sseed %llu: %s\n", registry ? "registry, " : "", (unsigned long long)seed, fault);
    }
    return faults > 0;
}
