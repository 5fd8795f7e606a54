/* SPDX-License-Identifier: Apache-2.0 */
/* What the API does about membership: join tokens, and machines that are removed. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetd/authority.h"
#include "pki/pki.h"
#include "raftstore/registry_security.h"
#include "tests/unit/api-world.h"

#define ID_C "cccccccccccccccccccccccccccccccc"

/* ---- a world ---- */

static void apply(struct world *world, Fleet__Command *command)
{
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = world->now_ms;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_int_equal(registry_apply(world->registry, bytes, size)->status, 0);
    free(bytes);
}

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
}

static void found(struct world *world)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    authority.certificate = bytes_of("root A");
    authority.private_key = bytes_of("the key");
    body.cluster_id = bytes_of("0123456789abcdef");
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    apply(world, &command);
}

static void rotate(struct world *world)
{
    Fleet__RotateAuthority body = FLEET__ROTATE_AUTHORITY__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    authority.certificate = bytes_of("root B");
    authority.private_key = bytes_of("another key");
    authority.cross = bytes_of("B by A");
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_ROTATE_AUTHORITY;
    command.rotate_authority = &body;
    body.step = FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN;
    apply(world, &command);
    body.step = FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE;
    apply(world, &command);
}

static const char *answered(const struct world *world, const char *key)
{
    static char text[128];
    json_t *json = json_loads(world->body, 0, NULL);
    const char *value = json_string_value(json_object_get(json, key));

    snprintf(text, sizeof text, "%s", value != NULL ? value : "");
    json_decref(json);
    return text;
}

/* ---- tokens ---- */

static void test_token_is_made(void **state)
{
    struct world *world = *state;
    struct join_token token;
    struct err err = {0};
    uint8_t digest[JOIN_TOKEN_DIGEST_SIZE];
    char id[JOIN_TOKEN_ID_SIZE];

    found(world);
    ask(world, "POST", V1 "/join-tokens", "{\"ttl\":\"2h\",\"uses\":3}");
    assert_int_equal(world->status, 200);
    assert_int_equal(join_token_parse(answered(world, "token"), &token, &err), 0);
    join_token_id(token.secret, id);
    join_token_digest(token.secret, digest);
    assert_string_equal(answered(world, "id"), id);
    assert_has(world, "\"expires\":7201000");
    assert_has(world, "\"uses\":3");
    assert_memory_equal(registry_join_token(world->registry, id)->digest, digest, sizeof digest);
    assert_memory_equal(token.pin, registry_authorities(world->registry)->issuing.fingerprint,
                        sizeof token.pin);

    /* An hour, for any number, if nothing is said; and another secret. */
    ask(world, "POST", V1 "/join-tokens", "{}");
    assert_has(world, "\"expires\":3601000");
    assert_lacks(world, "\"uses\":");
    assert_string_not_equal(answered(world, "id"), id);
}

/* The list is for everybody who may look; what lets hosts in is told only once, to who asked for it. */
static void test_tokens_are_listed_without_secrets(void **state)
{
    struct world *world = *state;
    char *token;

    found(world);
    assert_get(world, V1 "/join-tokens", NULL, "{}");
    ask(world, "POST", V1 "/join-tokens", "{\"ttl\":\"1ms\"}");
    token = xstrdup(answered(world, "token"));
    ask(world, "POST", V1 "/join-tokens", "{}");
    world->now_ms += 10;
    ask(world, "GET", V1 "/join-tokens", NULL);
    assert_has(world, "\"state\":\"expired\"");
    assert_has(world, "\"state\":\"valid\"");
    assert_lacks(world, "fleet1.");
    assert_lacks(world, token + strlen("fleet1."));
    assert_lacks(world, "digest");
    free(token);
}

static void test_token_is_revoked(void **state)
{
    struct world *world = *state;
    char path[64];

    found(world);
    ask(world, "POST", V1 "/join-tokens", "{}");
    snprintf(path, sizeof path, V1 "/join-tokens/%s", answered(world, "id"));
    ask(world, "DELETE", path, NULL);
    assert_int_equal(world->status, 204);
    ask(world, "GET", V1 "/join-tokens", NULL);
    assert_has(world, "\"state\":\"revoked\"");
    ask(world, "DELETE", V1 "/join-tokens/0123456789abcdef", NULL);
    assert_error(world, 404, "join token 0123456789abcdef does not exist");
}

/* The leader was lost before it answered; the same request makes the same token, once. */
static void test_repeated_request_makes_the_same_token(void **state)
{
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1",
                         other[REQUEST_ID_SIZE] = "request-number-2";
    struct world *world = *state;
    struct ask again = {.method = "POST", .path = V1 "/join-tokens", .body = "{}", .request_id = id};
    char *token;

    found(world);
    world->mood = MOOD_LOSE;
    ask_raw(world, &again);
    assert_int_equal(world->status, 504);
    world->mood = MOOD_APPLY;
    ask_raw(world, &again);
    assert_int_equal(world->status, 200);
    token = xstrdup(answered(world, "token"));
    ask_raw(world, &again);
    assert_string_equal(answered(world, "token"), token);
    again.request_id = other;
    ask_raw(world, &again);
    assert_string_not_equal(answered(world, "token"), token);
    assert_int_equal(world->proposals, 2);
    /* After a rotation nobody can tell it any more; it was made nevertheless. */
    rotate(world);
    again.request_id = id;
    ask_raw(world, &again);
    assert_error(world, 409, "the token was made, but cannot be told any more: make another one");
    free(token);
}

static void test_tokens_refused(void **state)
{
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"[]", "unable to decode body: "},
        {"{\"ttl\":5}", "unable to decode body: "},
        {"{\"ttl\":\"soon\"}", "ttl: "},
        {"{\"ttl\":\"0\"}", "ttl: from 1ms to 366d"},
        {"{\"ttl\":\"367d\"}", "ttl: from 1ms to 366d"},
        {"{\"uses\":-1}", "unable to decode body: "},
        {"{\"uses\":1000001}", "uses: at most 1000000"},
    };
    struct world *world = *state;

    ask(world, "POST", V1 "/join-tokens", "{}");
    assert_error(world, 400, "the cluster is insecure: hosts join it without a token");
    found(world);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(world, "POST", V1 "/join-tokens", cases[i].body);
        assert_error(world, 400, cases[i].text);
    }
    assert_int_equal(world->proposals, 0);
}

/* ---- removing machines ---- */

static void set_level(struct world *world, unsigned level)
{
    Fleet__SetLevel body = FLEET__SET_LEVEL__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    body.level = level;
    command.body_case = FLEET__COMMAND__BODY_SET_LEVEL;
    command.set_level = &body;
    apply(world, &command);
}

/* world_servers(): 1 votes and leads, 9 stands by. */
static void add_three(struct world *world)
{
    set_level(world, FEATURE_LEVEL);
    add_machine(world, ID_A, "host", "", 1);
    add_machine(world, ID_B, "host", "", 2);
    add_machine(world, ID_C, "host", "", 9);
}

static void test_machine_is_removed(void **state)
{
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1";
    struct world *world = *state;
    struct ask again = {.method = "DELETE", .path = V1 "/machines/" ID_B, .request_id = id};

    add_three(world);
    ask_raw(world, &again);
    assert_int_equal(world->status, 204);
    assert_null(registry_machine(world->registry, ID_B));
    assert_non_null(registry_removed(world->registry, ID_B));
    ask_raw(world, &again); /* Its answer was lost. */
    assert_int_equal(world->status, 204);
    ask(world, "DELETE", V1 "/machines/" ID_B, NULL);
    assert_error(world, 404, "machine " ID_B " does not exist");
    ask(world, "DELETE", V1 "/machines/" ID_C, NULL);
    assert_int_equal(world->status, 204);
}

static void test_machine_with_units_is_kept(void **state)
{
    struct world *world = *state;

    add_three(world);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_B);
    ask(world, "DELETE", V1 "/machines/" ID_B, NULL);
    assert_error(world, 409, "machine " ID_B " (host) has 1 unit: drain it first");
    assert_non_null(registry_machine(world->registry, ID_B));
    ask_raw(world, &(struct ask){.method = "DELETE", .path = V1 "/machines/" ID_B, .query = "force=yes"});
    assert_int_equal(world->status, 204);
}

static void test_lost_machine_with_units_is_removed(void **state)
{
    struct world *world = *state;

    add_three(world);
    put(world, "a.service", "{\"desiredState\":\"launched\"," PLAIN "}", 201);
    place(world, "a.service", ID_B);
    world->core.lost = ID_B;
    ask(world, "DELETE", V1 "/machines/" ID_B, NULL);
    assert_int_equal(world->status, 204);
}

/* Not even with force: there would be nobody left who knows anything. */
static void test_last_voter_is_kept(void **state)
{
    struct world *world = *state;

    add_three(world);
    ask_raw(world, &(struct ask){.method = "DELETE", .path = V1 "/machines/" ID_A, .query = "force=yes"});
    assert_error(world, 409, "machine " ID_A " (host) is the only one that keeps the cluster's data");
    assert_int_equal(world->hand_overs, 0);
}

/* Likewise: of three voters two answer, and one of these is to go. */
static void test_a_vote_that_is_needed_is_kept(void **state)
{
    struct world *world = *state;
    struct ask forced = {.method = "DELETE", .path = V1 "/machines/" ID_B, .query = "force=yes"};

    add_three(world);
    world->two_voters = world->silent_voter = true;
    ask_raw(world, &forced);
    assert_error(world, 409, "host votes, and of the 2 other voters only 1 answers");
    assert_non_null(registry_machine(world->registry, ID_B));
    world->silent_voter = false;
    ask_raw(world, &forced);
    assert_int_equal(world->status, 204);
}

static void test_leader_is_removed_by_the_next_one(void **state)
{
    struct world *world = *state;

    add_three(world);
    world->two_voters = true;
    ask(world, "DELETE", V1 "/machines/" ID_A, NULL);
    assert_error(world, 503, "the machine leads: leadership is being handed over first");
    assert_int_equal(world->hand_overs, 1);
    assert_non_null(registry_machine(world->registry, ID_A));
    ask(world, "DELETE", V1 "/machines/" ID_C, NULL);
    assert_int_equal(world->status, 204);
}

/* ---- the authority ---- */

static const uint8_t *const cluster = (const uint8_t *)"0123456789abcdef";

/* As found(), with an authority that is one. */
static void found_truly(struct world *world)
{
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct pki_key *key;
    struct pki_blob certificate = {0}, encoded = {0};
    struct err err = {0};

    world->now_ms = 1800000000000; /* Certificates hold since 2000. */
    assert_int_equal(authority_found(cluster, world->now_ms, &key, &certificate, &err), 0);
    assert_int_equal(pki_key_encode(key, &encoded, &err), 0);
    authority.certificate = (ProtobufCBinaryData){.len = certificate.size, .data = certificate.data};
    authority.private_key = (ProtobufCBinaryData){.len = encoded.size, .data = encoded.data};
    body.cluster_id = bytes_of("0123456789abcdef");
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    apply(world, &command);
    pki_key_free(key);
    pki_blob_done(&certificate);
    pki_blob_done(&encoded);
}

static void test_authority_is_rotated(void **state)
{
    struct world *world = *state;
    char *before;

    found_truly(world);
    add_machine(world, ID_A, "node1", "", 1);
    ask(world, "GET", V1 "/authority", NULL);
    assert_int_equal(world->status, 200);
    assert_string_equal(answered(world, "stage"), "steady");
    assert_int_equal(strlen(answered(world, "fingerprint")), 2 * FINGERPRINT_SIZE);
    assert_lacks(world, "waiting");
    before = xstrdup(answered(world, "fingerprint"));

    ask(world, "POST", V1 "/authority", "{\"action\":\"rotate\"}");
    assert_string_equal(answered(world, "stage"), "spreading");
    assert_has(world,
               "\"waiting\":[{\"hostname\":\"node1\",\"machineID\":\"" ID_A "\",\"state\":\"ready\"}]");
    assert_string_equal(answered(world, "fingerprint"), before);
    ask(world, "POST", V1 "/authority", "{\"action\":\"rotate\"}");
    assert_error(world, 409, "the authority is being rotated already");
    /* Nobody who is there is left behind... */
    ask(world, "POST", V1 "/authority", "{\"action\":\"force\"}");
    assert_error(world, 409, "machine " ID_A " (node1) is there");
    /* ...but who is not. */
    world->core.lost = ID_A;
    ask(world, "POST", V1 "/authority", "{\"action\":\"force\"}");
    assert_string_equal(answered(world, "stage"), "reissuing");
    assert_string_not_equal(answered(world, "fingerprint"), before);
    ask(world, "POST", V1 "/authority", "{\"action\":\"cancel\"}");
    assert_error(world, 409, "the new authority issues certificates already");
    ask(world, "POST", V1 "/authority", "{\"action\":\"force\"}");
    assert_string_equal(answered(world, "stage"), "steady");
    ask(world, "POST", V1 "/authority", "{\"action\":\"force\"}");
    assert_error(world, 409, "the authority is not being rotated");
    free(before);
}

static void test_rotation_is_cancelled(void **state)
{
    static const uint8_t id[REQUEST_ID_SIZE] = "request-number-1";
    struct world *world = *state;
    struct ask again = {
        .method = "POST", .path = V1 "/authority", .body = "{\"action\":\"rotate\"}", .request_id = id};

    found_truly(world);
    for (unsigned i = 0; i < 2; i++) { /* Its answer was lost: it is done once. */
        ask_raw(world, &again);
        assert_int_equal(world->status, 200);
    }
    assert_int_equal(world->proposals, 1);
    ask(world, "POST", V1 "/authority", "{\"action\":\"cancel\"}");
    assert_string_equal(answered(world, "stage"), "steady");
    ask(world, "POST", V1 "/authority", "{\"action\":\"cancel\"}");
    assert_error(world, 409, "the authority is not being rotated");
}

static void test_authority_refused(void **state)
{
    struct world *world = *state;

    ask(world, "GET", V1 "/authority", NULL);
    assert_error(world, 404, "the cluster is insecure: it has no authority");
    ask(world, "POST", V1 "/authority", "{\"action\":\"rotate\"}");
    assert_error(world, 400, "the cluster is insecure: it has no authority");
    found_truly(world);
    ask(world, "POST", V1 "/authority", "{\"action\":\"melt\"}");
    assert_error(world, 400, "action must be rotate, force or cancel, not \\\"melt\\\"");
    ask(world, "POST", V1 "/authority", "{}");
    assert_error(world, 400, "action must be");
    ask(world, "POST", V1 "/authority", "[]");
    assert_error(world, 400, "unable to decode body: ");
    assert_int_equal(world->proposals, 0);
}

/* Whatever is asked for: of the private key there is nothing in any answer. */
static void test_no_private_key_in_answers(void **state)
{
    static const char *const paths[] = {"/authority", "/machines",    "/members",
                                        "/settings",  "/join-tokens", "/units"};
    struct world *world = *state;

    found(world);
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        _cleanup_(freep) char *path = xasprintf(V1 "%s", paths[i]);

        ask(world, "GET", path, NULL);
        assert_lacks(world, "the key");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_token_is_made),
        TEST(test_tokens_are_listed_without_secrets),
        TEST(test_token_is_revoked),
        TEST(test_repeated_request_makes_the_same_token),
        TEST(test_tokens_refused),
        TEST(test_machine_is_removed),
        TEST(test_machine_with_units_is_kept),
        TEST(test_lost_machine_with_units_is_removed),
        TEST(test_last_voter_is_kept),
        TEST(test_a_vote_that_is_needed_is_kept),
        TEST(test_leader_is_removed_by_the_next_one),
        TEST(test_authority_is_rotated),
        TEST(test_rotation_is_cancelled),
        TEST(test_authority_refused),
        TEST(test_no_private_key_in_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
