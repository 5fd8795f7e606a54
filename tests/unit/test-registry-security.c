/* SPDX-License-Identifier: Apache-2.0 */
/* Who may become a member, as the registry has it: the authority and its rotation, join tokens, removed
 * machines. */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "raftstore/registry_security.h"

#define ID_A    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ID_C    "cccccccccccccccccccccccccccccccc"
#define TOKEN_1 "1111111111111111"
#define TOKEN_2 "2222222222222222"
#define HOUR_MS (3600u * 1000)
#define NOW_MS  (1000ull * HOUR_MS)

/* Undoes registry_new(); for _cleanup_. */
static void registry_freep(struct registry **registry)
{
    registry_free(*registry);
}

/* ---- commands ---- */

static const struct registry_result *apply(struct registry *registry, Fleet__Command *command,
                                           uint64_t wall_ms)
{
    const struct registry_result *result;
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = wall_ms;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    result = registry_apply(registry, bytes, size);
    free(bytes);
    return result;
}

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
}

static Fleet__Authority authority_of(const char *certificate, const char *key, const char *cross)
{
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;

    authority.certificate = bytes_of(certificate);
    authority.private_key = bytes_of(key);
    authority.cross = bytes_of(cross);
    return authority;
}

static struct registry *new_cluster(const char *certificate)
{
    struct registry *registry = registry_new();
    Fleet__Authority authority = authority_of(certificate, "its key", "");
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.cluster_id = bytes_of("0123456789abcdef");
    body.voters = 5;
    body.level = FEATURE_LEVEL;
    body.authority = certificate[0] != '\0' ? &authority : NULL;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    assert_int_equal(apply(registry, &command, NOW_MS)->status, 0);
    return registry;
}

static int rotate(struct registry *registry, Fleet__RotationStep step, Fleet__Authority *authority)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.step = step;
    body.authority = authority;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    return apply(registry, &command, NOW_MS + 7)->status;
}

#define BEGIN  FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN
#define ISSUE  FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE
#define FINISH FLEET__ROTATION_STEP__ROTATION_STEP_FINISH
#define CANCEL FLEET__ROTATION_STEP__ROTATION_STEP_CANCEL

static int add_token(struct registry *registry, const char *id, uint64_t ttl_ms, unsigned uses,
                     uint64_t wall_ms)
{
    Fleet__AddJoinToken body = FLEET__ADD_JOIN_TOKEN__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.id = (char *)id;
    body.digest = bytes_of("digest digest digest digest dige");
    body.expires_wall_ms = wall_ms + ttl_ms;
    body.uses = uses;
    command.body_case = FLEET__COMMAND__BODY_ADD_JOIN_TOKEN;
    command.add_join_token = &body;
    return apply(registry, &command, wall_ms)->status;
}

static int revoke_token(struct registry *registry, const char *id, uint64_t wall_ms)
{
    Fleet__RevokeJoinToken body = FLEET__REVOKE_JOIN_TOKEN__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REVOKE_JOIN_TOKEN;
    command.revoke_join_token = &body;
    return apply(registry, &command, wall_ms)->status;
}

static int register_machine(struct registry *registry, const char *id, uint64_t server_id, bool joins,
                            const char *token, uint64_t wall_ms)
{
    ProtobufCBinaryData roots[] = {bytes_of("fingerprint fingerprint fingerpr"),
                                   bytes_of("FINGERPRINT FINGERPRINT FINGERPR"), bytes_of("too short")};
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    body.hostname = (char *)"host";
    body.server_id = server_id;
    body.joins = joins;
    body.join_token = (char *)token;
    body.roots = roots;
    body.n_roots = ARRAY_SIZE(roots);
    body.certified_by = roots[1];
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    return apply(registry, &command, wall_ms)->status;
}

static int join(struct registry *registry, const char *id, const char *token)
{
    return register_machine(registry, id, 1, true, token, NOW_MS);
}

static int remove_machine(struct registry *registry, const char *id)
{
    Fleet__RemoveMachine body = FLEET__REMOVE_MACHINE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.machine_id = (char *)id;
    command.body_case = FLEET__COMMAND__BODY_REMOVE_MACHINE;
    command.remove_machine = &body;
    return apply(registry, &command, NOW_MS + 3)->status;
}

/* ---- snapshots ---- */

static uint8_t *snapshot(struct registry *registry, size_t *ret_size)
{
    struct registry_snapshot *taken = registry_snapshot_new(registry);
    struct strbuf all = {0};

    for (size_t i = 0; i < taken->count; i++)
        strbuf_add_bytes(&all, taken->pieces[i].base, taken->pieces[i].size);
    registry_snapshot_free(registry, taken);
    *ret_size = all.size;
    return (uint8_t *)strbuf_take(&all);
}

/* What a snapshot of it brings back. It has the same snapshot again. */
static struct registry *restored(struct registry *registry)
{
    struct registry *fresh = registry_new();
    struct err err = {0};
    size_t size, again_size;
    _cleanup_(freep) uint8_t *bytes = snapshot(registry, &size), *again = NULL;

    assert_int_equal(registry_restore(fresh, bytes, size, &err), 0);
    again = snapshot(fresh, &again_size);
    assert_int_equal(size, again_size);
    assert_memory_equal(bytes, again, size);
    return fresh;
}

/* ---- authority ---- */

static void assert_authority(const struct registry_authority *authority, const char *certificate,
                             const char *key)
{
    assert_int_equal(authority->certificate_size, strlen(certificate));
    if (certificate[0] != '\0')
        assert_memory_equal(authority->certificate, certificate, strlen(certificate));
    assert_int_equal(authority->private_key_size, strlen(key));
    if (key[0] != '\0')
        assert_memory_equal(authority->private_key, key, strlen(key));
}

static void test_cluster_has_an_authority(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = restored(registry);
    /* printf 'root A' | sha256sum */
    static const uint8_t start[] = {0x8f, 0x3b, 0xe6, 0xec};

    assert_true(registry_is_secure(copy));
    assert_authority(&registry_authorities(copy)->issuing, "root A", "its key");
    assert_int_equal(registry_rotation(registry_authorities(copy)), ROTATION_STEADY);
    assert_ptr_equal(registry_pinned_authority(copy), &registry_authorities(copy)->issuing);
    assert_memory_equal(registry_authorities(copy)->issuing.fingerprint, start, sizeof start);
}

static void test_insecure_cluster_has_none(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster(""), *copy = restored(registry);
    Fleet__Authority next = authority_of("root B", "key B", "B by A");

    assert_false(registry_is_secure(copy));
    assert_int_equal(add_token(copy, TOKEN_1, HOUR_MS, 0, NOW_MS), -EINVAL);
    assert_int_equal(rotate(copy, BEGIN, &next), -EINVAL);
    assert_int_equal(join(copy, ID_A, ""), 0);
}

static void test_authority_must_make_sense(void **state)
{
    static char large[AUTHORITY_MAX + 2];
    _cleanup_(registry_freep) struct registry *registry = registry_new();
    Fleet__Authority authority = authority_of("", "key", "");
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    memset(large, 'x', AUTHORITY_MAX + 1);
    body.cluster_id = bytes_of("0123456789abcdef");
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    assert_int_equal(apply(registry, &command, 0)->status, -EINVAL);
    authority = authority_of(large, "key", "");
    assert_int_equal(apply(registry, &command, 0)->status, -EINVAL);
    authority = authority_of("root", large, "");
    assert_int_equal(apply(registry, &command, 0)->status, -EINVAL);
    assert_int_equal(registry_version(registry), 0);
    assert_false(registry_is_secure(registry));
}

static void test_rotation(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *spreading = NULL,
                                              *reissuing = NULL, *steady = NULL;
    Fleet__Authority next = authority_of("root B", "key B", "B by A"),
                     without = authority_of("root B", "key B", "");
    const struct registry_authorities *authorities;

    assert_int_equal(rotate(registry, ISSUE, NULL), -ESTALE);
    assert_int_equal(rotate(registry, FINISH, NULL), -ESTALE);
    assert_int_equal(rotate(registry, CANCEL, NULL), -ESTALE);
    assert_int_equal(rotate(registry, BEGIN, NULL), -EINVAL);
    assert_int_equal(rotate(registry, BEGIN, &without), -EINVAL);
    assert_int_equal(rotate(registry, FLEET__ROTATION_STEP__ROTATION_STEP_UNKNOWN, NULL), -ENOTSUP);
    assert_int_equal(rotate(registry, BEGIN, &next), 0);
    assert_int_equal(rotate(registry, BEGIN, &next), -EEXIST);

    spreading = restored(registry);
    authorities = registry_authorities(spreading);
    assert_int_equal(registry_rotation(authorities), ROTATION_SPREADING);
    assert_authority(&authorities->issuing, "root A", "its key");
    assert_authority(&authorities->next, "root B", "key B");
    assert_int_equal(authorities->since_wall_ms, NOW_MS + 7);
    assert_ptr_equal(registry_pinned_authority(spreading), &authorities->issuing);
    assert_int_equal(rotate(spreading, FINISH, NULL), -ESTALE);
    assert_int_equal(rotate(spreading, ISSUE, NULL), 0);

    reissuing = restored(spreading);
    authorities = registry_authorities(reissuing);
    assert_int_equal(registry_rotation(authorities), ROTATION_REISSUING);
    assert_authority(&authorities->issuing, "root B", "key B");
    assert_memory_equal(authorities->issuing.cross, "B by A", 6);
    assert_authority(&authorities->old, "root A", ""); /* It signs nothing any more. */
    assert_authority(&authorities->next, "", "");
    assert_ptr_equal(registry_pinned_authority(reissuing), &authorities->old);
    assert_int_equal(rotate(reissuing, ISSUE, NULL), -ESTALE);
    assert_int_equal(rotate(reissuing, CANCEL, NULL), -ESTALE);
    assert_int_equal(rotate(reissuing, BEGIN, &next), -EEXIST);
    assert_int_equal(rotate(reissuing, FINISH, NULL), 0);

    steady = restored(reissuing);
    authorities = registry_authorities(steady);
    assert_int_equal(registry_rotation(authorities), ROTATION_STEADY);
    assert_false(authorities->old_trusted);
    assert_authority(&authorities->old, "root A", ""); /* For those who still ask for it by an older token. */
    assert_ptr_equal(registry_pinned_authority(steady), &authorities->issuing);
}

static void test_rotation_is_cancelled(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;
    Fleet__Authority next = authority_of("root B", "key B", "B by A");

    assert_int_equal(rotate(registry, BEGIN, &next), 0);
    assert_int_equal(rotate(registry, CANCEL, NULL), 0);
    copy = restored(registry);
    assert_int_equal(registry_rotation(registry_authorities(copy)), ROTATION_STEADY);
    assert_authority(&registry_authorities(copy)->issuing, "root A", "its key");
}

/* Tokens go on over one rotation, since members can still prove the authority that they name, but not over
 * two. */
static void test_tokens_over_rotations(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A");
    Fleet__Authority b = authority_of("root B", "key B", "B by A"),
                     c = authority_of("root C", "key C", "C by B");

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(rotate(registry, BEGIN, &b), 0);
    assert_int_equal(rotate(registry, ISSUE, NULL), 0);
    assert_int_equal(rotate(registry, FINISH, NULL), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(add_token(registry, TOKEN_2, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(rotate(registry, BEGIN, &c), 0);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    assert_int_equal(rotate(registry, ISSUE, NULL), 0);
    assert_null(registry_join_token(registry, TOKEN_1));
    assert_int_equal(join(registry, ID_C, TOKEN_1), -EACCES);
    assert_int_equal(join(registry, ID_C, TOKEN_2), 0);
}

/* ---- join tokens ---- */

static const char *why_not(struct registry *registry, const char *token, uint64_t wall_ms)
{
    static struct err err;

    return registry_check_join_token(registry, token, ID_C, 1, wall_ms, &err) < 0 ? err.text : "";
}

static void test_token_lets_in(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;
    const struct registry_join_token *token;

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), -EEXIST);
    assert_int_equal(add_token(registry, "11", HOUR_MS, 0, NOW_MS), -EINVAL);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    copy = restored(registry);
    token = registry_join_token(copy, TOKEN_1);
    assert_int_equal(token->used, 2);
    assert_int_equal(token->made_wall_ms, NOW_MS);
    assert_int_equal(token->expires_wall_ms, NOW_MS + HOUR_MS);
    assert_memory_equal(token->digest, "digest digest digest digest dige", FINGERPRINT_SIZE);
    assert_string_equal(registry_machine(copy, ID_B)->join_token, TOKEN_1);
}

static void test_token_does_not_let_in(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A");

    assert_int_equal(join(registry, ID_A, TOKEN_1), -EACCES);
    assert_string_equal(why_not(registry, TOKEN_1, NOW_MS), "the join token is not known here");
    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_string_equal(why_not(registry, TOKEN_1, NOW_MS + HOUR_MS - 1), "");
    assert_int_equal(register_machine(registry, ID_A, 1, true, TOKEN_1, NOW_MS + HOUR_MS), -EACCES);
    assert_string_equal(why_not(registry, TOKEN_1, NOW_MS + HOUR_MS + 5000),
                        "the join token " TOKEN_1 " expired 5 s ago");
    assert_int_equal(revoke_token(registry, TOKEN_1, NOW_MS), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), -EACCES);
    assert_string_equal(why_not(registry, TOKEN_1, NOW_MS), "the join token " TOKEN_1 " was revoked");
    assert_int_equal(revoke_token(registry, TOKEN_2, NOW_MS), -ENOENT);
    assert_null(registry_machine(registry, ID_A));
    assert_int_equal(registry_join_token(registry, TOKEN_1)->used, 0);
}

static void test_token_is_counted(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A");

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 2, NOW_MS), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0); /* The answer was lost. */
    assert_int_equal(registry_join_token(registry, TOKEN_1)->used, 1);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    assert_int_equal(registry_join_token(registry, TOKEN_1)->used, 2);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    assert_int_equal(join(registry, ID_C, TOKEN_1), -EACCES);
    assert_string_equal(why_not(registry, TOKEN_1, NOW_MS),
                        "the join token " TOKEN_1 " is used up: it was for 2 machines");
    /* Another server of the same name is another one. */
    assert_int_equal(register_machine(registry, ID_A, 2, true, TOKEN_1, NOW_MS), -EACCES);
    assert_null(registry_machine(registry, ID_C));
}

static void add_many(struct registry *registry, unsigned first, unsigned count, uint64_t wall_ms,
                     int expected)
{
    for (unsigned i = first; i < first + count; i++) {
        char id[JOIN_TOKEN_ID_BYTES];

        snprintf(id, sizeof id, "%016x", i);
        assert_int_equal(add_token(registry, id, HOUR_MS, 1, wall_ms), expected);
    }
}

static size_t count_tokens(const struct registry *registry)
{
    size_t count = 0;

    for (const struct registry_join_token *token = registry_join_tokens(registry); token != NULL;
         token = token->hh.next)
        count++;
    return count;
}

static void test_tokens_are_bounded(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A");

    add_many(registry, 0, JOIN_TOKENS_MAX, NOW_MS, 0);
    add_many(registry, JOIN_TOKENS_MAX, 1, NOW_MS, -E2BIG);
    /* A spent one makes room, whichever it is; the valid ones stay. */
    assert_int_equal(revoke_token(registry, "0000000000000007", NOW_MS), 0);
    add_many(registry, JOIN_TOKENS_MAX, 1, NOW_MS, 0);
    add_many(registry, JOIN_TOKENS_MAX + 1, 1, NOW_MS, -E2BIG);
    assert_null(registry_join_token(registry, "0000000000000007"));
    assert_non_null(registry_join_token(registry, "0000000000000000"));
    assert_int_equal(join(registry, ID_A, "0000000000000005"), 0); /* It was for one. */
    add_many(registry, JOIN_TOKENS_MAX + 1, 1, NOW_MS, 0);
    assert_int_equal(count_tokens(registry), JOIN_TOKENS_MAX);
    /* Expired ones are known for as long as there is room, but not for ever. */
    add_many(registry, 10000, 1, NOW_MS + 2 * HOUR_MS, 0);
    assert_true(count_tokens(registry) > 1);
    add_many(registry, 10001, 1, NOW_MS + 2 * HOUR_MS + JOIN_TOKEN_KEPT_MS, 0);
    assert_int_equal(count_tokens(registry), 2);
}

/* ---- machines ---- */

static void test_removed_machine_stays_out(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(remove_machine(registry, ID_A), 0);
    assert_int_equal(remove_machine(registry, ID_A), -ENOENT);
    copy = restored(registry);
    assert_string_equal(registry_removed(copy, ID_A)->hostname, "host");
    assert_int_equal(registry_removed(copy, ID_A)->wall_ms, NOW_MS + 3);
    assert_null(registry_removed(copy, ID_B));
    /* What it said of itself before arrives late. */
    assert_int_equal(register_machine(copy, ID_A, 1, false, "", NOW_MS), -EACCES);
    assert_null(registry_machine(copy, ID_A));
    assert_int_equal(join(copy, ID_A, TOKEN_2), -EACCES);
    assert_non_null(registry_removed(copy, ID_A));
    /* What has let it in before does not do so again. */
    assert_int_equal(join(copy, ID_A, TOKEN_1), -EACCES);
    assert_int_equal(join(copy, ID_B, TOKEN_1), 0);
    assert_int_equal(add_token(copy, TOKEN_2, HOUR_MS, 0, NOW_MS + 4), 0);
    assert_int_equal(join(copy, ID_A, TOKEN_2), 0);
    assert_null(registry_removed(copy, ID_A));
    assert_int_equal(register_machine(copy, ID_A, 1, false, "", NOW_MS), 0);
    assert_string_equal(registry_machine(copy, ID_A)->join_token,
                        TOKEN_2); /* It tells of itself, not of this. */
}

static void test_removed_machines_are_bounded(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("");
    char id[MACHINE_ID_SIZE];

    for (unsigned i = 0; i < REMOVED_REMEMBERED_MAX + 2; i++) {
        snprintf(id, sizeof id, "%032x", i);
        assert_int_equal(join(registry, id, ""), 0);
        assert_int_equal(remove_machine(registry, id), 0);
    }
    assert_null(registry_removed(registry, "00000000000000000000000000000001"));
    assert_non_null(registry_removed(registry, "00000000000000000000000000000002"));
    assert_non_null(registry_removed(registry, id));
}

static int join_with_key(struct registry *registry, const char *id, uint64_t server_id, const char *key)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__RegisterMachine body = FLEET__REGISTER_MACHINE__INIT;

    body.machine_id = (char *)id;
    body.server_id = server_id;
    body.joins = true;
    body.key = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)key};
    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = &body;
    return apply(registry, &command, NOW_MS)->status;
}

/* Machine and server ids are no secrets: with a token alone nobody becomes a machine that is there. */
static void test_a_member_keeps_its_key(void **state)
{
    static const char first[] = "first first first first first 32",
                      other[] = "other other other other other 32";
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;

    assert_int_equal(join_with_key(registry, ID_A, 7, first), 0);
    assert_int_equal(join_with_key(registry, ID_A, 7, other), -EACCES);
    assert_int_equal(join_with_key(registry, ID_A, 7, first), 0); /* Again: its answer was lost. */
    copy = restored(registry);
    assert_int_equal(join_with_key(copy, ID_A, 7, other), -EACCES);
    assert_true(registry_key_fits(registry_machine(copy, ID_A), 7, (const uint8_t *)first, FINGERPRINT_SIZE));
    assert_false(
        registry_key_fits(registry_machine(copy, ID_A), 7, (const uint8_t *)other, FINGERPRINT_SIZE));
    /* As a new server it is a new host, and the old key is worth nothing any more. */
    assert_int_equal(join_with_key(copy, ID_A, 8, other), 0);
    assert_false(
        registry_key_fits(registry_machine(copy, ID_A), 8, (const uint8_t *)first, FINGERPRINT_SIZE));
}

static void test_credentials_of_a_machine(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;
    const struct registry_machine *machine;

    assert_int_equal(join(registry, ID_A, ""), 0);
    copy = restored(registry);
    machine = registry_machine(copy, ID_A);
    assert_int_equal(machine->root_count, 2); /* What is no fingerprint is left out. */
    assert_true(registry_machine_trusts(machine, (const uint8_t *)"FINGERPRINT FINGERPRINT FINGERPR"));
    assert_false(registry_machine_trusts(machine, (const uint8_t *)"fINGERPRINT FINGERPRINT FINGERPR"));
    assert_memory_equal(machine->certified_by, "FINGERPRINT FINGERPRINT FINGERPR", FINGERPRINT_SIZE);
}

/* Whoever has a backup has the units, but nothing that gives power over the cluster. */
static void test_backup_gives_no_power(void **state)
{
    static const char *const secrets[] = {"its key", "root A", "key B", "root B", "B by A", "digest digest"};
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *fresh = registry_new();
    Fleet__Authority next = authority_of("root B", "key B", "B by A");
    struct registry_snapshot *taken;
    struct strbuf all = {0};

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    assert_int_equal(remove_machine(registry, ID_B), 0);
    assert_int_equal(rotate(registry, BEGIN, &next), 0);
    taken = registry_snapshot_for_backup(registry);
    for (size_t i = 0; i < taken->count; i++)
        strbuf_add_bytes(&all, taken->pieces[i].base, taken->pieces[i].size);
    registry_snapshot_free(registry, taken);
    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
        if (memmem(all.text, all.size, secrets[i], strlen(secrets[i])) != NULL)
            fail_msg("a backup holds \"%s\"", secrets[i]);
    assert_int_equal(registry_restore(fresh, all.text, all.size, NULL), 0);
    assert_false(registry_is_secure(fresh));
    assert_null(registry_join_tokens(fresh));
    assert_null(registry_removed(fresh, ID_B));
    strbuf_done(&all);
}

static void test_restored_cluster_has_its_own_authority(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = NULL;
    Fleet__Authority next = authority_of("root B", "key B", "B by A"),
                     own = authority_of("root C", "key C", "");
    const struct registry_machine *machine;

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(join(registry, ID_A, TOKEN_1), 0);
    assert_int_equal(join(registry, ID_B, TOKEN_1), 0);
    assert_int_equal(remove_machine(registry, ID_B), 0);
    assert_int_equal(rotate(registry, BEGIN, &next), 0);
    assert_int_equal(rotate(registry, ISSUE, NULL), 0);
    registry_renew(registry, &(struct registry_renewal){.machine_id = ID_C,
                                                        .server_id = 7,
                                                        .cluster_id = (const uint8_t *)"fedcba9876543210",
                                                        .authority = &own});
    copy = restored(registry);
    assert_int_equal(registry_rotation(registry_authorities(copy)), ROTATION_STEADY);
    assert_authority(&registry_authorities(copy)->issuing, "root C", "key C");
    assert_authority(&registry_authorities(copy)->old, "", "");
    assert_null(registry_join_token(copy, TOKEN_1));
    assert_null(registry_removed(copy, ID_B)); /* It was removed from another cluster. */
    machine = registry_machine(copy, ID_A);
    assert_int_equal(machine->root_count, 0);
    assert_string_equal(machine->join_token, "");
}

/* Its checksum is right; what it says cannot be. */
static void test_senseless_snapshot(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *fresh = registry_new();
    struct registry_authorities *authorities = (struct registry_authorities *)registry_authorities(registry);
    _cleanup_(freep) uint8_t *bytes = NULL;
    struct err err = {0};
    size_t size;

    authorities->old_trusted = true; /* Without an old one. */
    bytes = snapshot(registry, &size);
    assert_int_equal(registry_restore(fresh, bytes, size, &err), -EBADMSG);
    assert_string_equal(err.text, "the authority of the snapshot makes no sense");
    assert_false(registry_is_secure(fresh));
}

static bool holds(const struct strbuf *all, const char *text)
{
    return memmem(all->text, all->size, text, strlen(text)) != NULL;
}

static bool is_stripped(const struct registry *registry)
{
    return !registry_is_secure(registry) && registry_authorities(registry)->next.certificate == NULL &&
           registry_authorities(registry)->old.certificate == NULL &&
           registry_join_tokens(registry) == NULL && registry_removed(registry, ID_B) == NULL;
}

/* Nobody gets power over the cluster by a backup of its data; and the new cluster that begins with it has an
 * authority of its own, and owes nothing to the old one. */
static void test_backup_and_the_cluster_that_begins_with_it(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A"), *copy = registry_new();
    Fleet__Authority next = authority_of("root B", "key B", "B by A"),
                     last = authority_of("root C", "key C", "C by B"),
                     own = authority_of("root of its own", "own key", "");
    struct registry_renewal renewal = {
        .machine_id = ID_C, .server_id = 9, .cluster_id = (const uint8_t *)"fedcba9876543210"};
    struct registry_snapshot *taken;
    struct strbuf all = {0};
    struct err err = {0};

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    assert_int_equal(register_machine(registry, ID_A, 1, true, TOKEN_1, NOW_MS), 0);
    assert_int_equal(register_machine(registry, ID_B, 2, true, TOKEN_1, NOW_MS), 0);
    assert_int_equal(remove_machine(registry, ID_B), 0);
    assert_int_equal(rotate(registry, BEGIN, &next), 0);
    assert_int_equal(rotate(registry, ISSUE, NULL), 0);
    assert_int_equal(rotate(registry, FINISH, NULL), 0);
    assert_int_equal(rotate(registry, BEGIN, &last), 0);

    taken = registry_snapshot_for_backup(registry);
    for (size_t i = 0; i < taken->count; i++)
        strbuf_add_bytes(&all, taken->pieces[i].base, taken->pieces[i].size);
    registry_snapshot_free(registry, taken);
    assert_false(holds(&all, "its key") || holds(&all, "key B") || holds(&all, "key C"));
    assert_false(holds(&all, "digest digest") || holds(&all, "root B") || holds(&all, ID_B));
    assert_true(holds(&all, ID_A));
    assert_int_equal(registry_restore(copy, all.text, all.size, &err), 0);
    strbuf_done(&all);
    assert_true(is_stripped(copy));

    /* Also out of one that was not stripped. */
    registry_renew(registry, &renewal);
    assert_true(is_stripped(registry));
    assert_int_equal(registry_rotation(registry_authorities(registry)), ROTATION_STEADY);
    assert_int_equal(registry_machine(registry, ID_A)->root_count, 0);
    assert_string_equal(registry_machine(registry, ID_A)->join_token, "");
    renewal.authority = &own;
    registry_renew(copy, &renewal);
    assert_authority(&registry_authorities(copy)->issuing, "root of its own", "own key");
    registry_free(registry);
    registry = restored(copy);
    assert_authority(&registry_authorities(registry)->issuing, "root of its own", "own key");
    assert_int_equal(add_token(registry, TOKEN_2, HOUR_MS, 1, NOW_MS), 0);
    assert_int_equal(register_machine(registry, ID_A, 7, true, TOKEN_2, NOW_MS), 0);
    assert_int_equal(register_machine(registry, ID_B, 8, true, TOKEN_2, NOW_MS),
                     -EACCES); /* It was for one. */
}

/* Whoever goes on after the loss of a majority is the same cluster. */
static void test_recovered_cluster_keeps_its_authority(void **state)
{
    _cleanup_(registry_freep) struct registry *registry = new_cluster("root A");
    struct registry_renewal renewal = {
        .history = {.recoveries = 1, .id = {1}}, .machine_id = ID_C, .server_id = 9};

    assert_int_equal(add_token(registry, TOKEN_1, HOUR_MS, 0, NOW_MS), 0);
    registry_renew(registry, &renewal);
    assert_authority(&registry_authorities(registry)->issuing, "root A", "its key");
    assert_int_equal(register_machine(registry, ID_A, 7, true, TOKEN_1, NOW_MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup_and_the_cluster_that_begins_with_it),
        cmocka_unit_test(test_recovered_cluster_keeps_its_authority),
        cmocka_unit_test(test_cluster_has_an_authority),
        cmocka_unit_test(test_insecure_cluster_has_none),
        cmocka_unit_test(test_authority_must_make_sense),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_rotation_is_cancelled),
        cmocka_unit_test(test_tokens_over_rotations),
        cmocka_unit_test(test_token_lets_in),
        cmocka_unit_test(test_token_does_not_let_in),
        cmocka_unit_test(test_token_is_counted),
        cmocka_unit_test(test_tokens_are_bounded),
        cmocka_unit_test(test_removed_machine_stays_out),
        cmocka_unit_test(test_removed_machines_are_bounded),
        cmocka_unit_test(test_a_member_keeps_its_key),
        cmocka_unit_test(test_credentials_of_a_machine),
        cmocka_unit_test(test_senseless_snapshot),
        cmocka_unit_test(test_backup_gives_no_power),
        cmocka_unit_test(test_restored_cluster_has_its_own_authority),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
