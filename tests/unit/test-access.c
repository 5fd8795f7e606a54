/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what at the API: every path with every role, by every kind of caller and through every kind of
 * host; certificates of clients; and what the journal hears of it. */
#include "tests/unit/api-world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"
#include "raftstore/registry_clients.h"
#include "raftstore/registry_security.h"

#define CLUSTER "0123456789abcdef" /* 16 bytes. */
#define WALL_MS 1000000000000ull   /* September 2001. */
#define HOUR_MS (3600ull * 1000)
#define VIEWER  PKI_ROLE_VIEWER
#define ADMIN   PKI_ROLE_ADMIN
#define OPERATE PKI_ROLE_OPERATOR

/* Servers of the world (api-world.c): 1 votes, 9 stands by. */
#define VOTER   ID_A
#define STANDBY ID_B
#define WORKER  "cccccccccccccccccccccccccccccccc"

/* ---- a cluster with an authority ---- */

static void apply(struct world *world, Fleet__Command *command)
{
    uint8_t *bytes;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = world_wall_ms(world);
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_int_equal(registry_apply(world->registry, bytes, size)->status, 0);
    free(bytes);
}

static void found(struct world *world)
{
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct pki_blob certificate = {0}, private_key = {0};
    struct pki_key *key;

    assert_int_equal(pki_key_new(&key, NULL), 0);
    assert_int_equal(
        pki_authority_new((const uint8_t *)CLUSTER, key, WALL_MS + 100000 * HOUR_MS, &certificate, NULL), 0);
    assert_int_equal(pki_key_encode(key, &private_key, NULL), 0);
    authority.certificate = (ProtobufCBinaryData){.len = certificate.size, .data = certificate.data};
    authority.private_key = (ProtobufCBinaryData){.len = private_key.size, .data = private_key.data};
    body.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = (uint8_t *)CLUSTER};
    body.authority = &authority;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    apply(world, &command);
    pki_blob_done(&certificate);
    pki_blob_done(&private_key);
    pki_key_free(key);
}

static struct strlist lines, fields;

static void catch_log(int priority, const char *message, const char *const *list)
{
    strlist_add(&lines, message);
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        strlist_add(&fields, list[i]);
}

static void forget_log(void)
{
    strlist_done(&lines);
    strlist_done(&fields);
}

static int secure_setup(void **state)
{
    struct world *world;

    assert_int_equal(world_setup(state), 0);
    world = *state;
    world->secure = true;
    world->booted_wall_ms = WALL_MS - world->now_ms;
    found(world);
    add_machine(world, VOTER, "alpha", "10.0.0.1", 1);
    add_machine(world, STANDBY, "beta", "10.0.0.2", 9);
    add_machine(world, WORKER, "gamma", "10.0.0.3", 5);
    log_set_sink(catch_log);
    return 0;
}

static int secure_teardown(void **state)
{
    log_set_sink(NULL);
    forget_log();
    return world_teardown(state);
}

#define SECURE(name) cmocka_unit_test_setup_teardown(name, secure_setup, secure_teardown)

static struct access_caller local(enum pki_role role)
{
    return (struct access_caller){.kind = ACCESS_LOCAL, .uid = 1000, .role = role};
}

static struct access_caller client(const char *name, const char *serial, enum pki_role role)
{
    struct access_caller caller = {.kind = ACCESS_CLIENT, .role = role};

    snprintf(caller.name, sizeof caller.name, "%s", name);
    snprintf(caller.serial, sizeof caller.serial, "%s", serial);
    return caller;
}

static struct access_caller machine(const char *id)
{
    struct access_caller caller = {.kind = ACCESS_MACHINE, .role = ADMIN}; /* It may say what it likes. */

    snprintf(caller.name, sizeof caller.name, "%s", id);
    return caller;
}

/* The status, whatever it is; what is not answered at once counts as 200. */
static unsigned try_it(struct world *world, const struct access_caller *caller, const char *via,
                       const char *method, const char *path, const char *body)
{
    unsigned before = world->answers;
    uint64_t handle = ask_raw(world, &(struct ask){.method = method,
                                                   .path = path,
                                                   .body = body,
                                                   .content_type = "application/json",
                                                   .content_type_count = 1,
                                                   .caller = caller,
                                                   .via = via});

    if (world->answers > before)
        return world->status;
    api_cancel(world->api, handle);
    return 200;
}

/* ---- every path ---- */

/* All that there is, and who may. A path that is missing here fails the test: think about who may use it. */
static const struct {
    const char *method, *resource;
    bool item;
    enum pki_role needs;
} paths[] = {
    {"GET", "discovery", false, VIEWER},
    {"GET", "machines", false, VIEWER},
    {"PATCH", "machines", false, OPERATE},
    {"DELETE", "machines", true, ADMIN},
    {"GET", "authority", false, VIEWER},
    {"POST", "authority", false, ADMIN},
    {"GET", "join-tokens", false, VIEWER},
    {"POST", "join-tokens", false, ADMIN},
    {"DELETE", "join-tokens", true, ADMIN},
    {"GET", "units", false, VIEWER},
    {"POST", "units", false, OPERATE},
    {"GET", "units", true, VIEWER},
    {"PUT", "units", true, OPERATE},
    {"DELETE", "units", true, OPERATE},
    {"GET", "state", false, VIEWER},
    {"GET", "state", true, VIEWER},
    {"POST", "wait", false, VIEWER},
    {"GET", "status", true, VIEWER},
    {"GET", "journal", true, VIEWER},
    {"GET", "explain", true, VIEWER},
    {"POST", "availability", false, OPERATE},
    {"POST", "confirm-lost", false, OPERATE},
    {"GET", "backup", false, ADMIN},
    {"GET", "backup", true, ADMIN},
    {"GET", "members", false, VIEWER},
    {"POST", "members", false, ADMIN},
    {"POST", "leadership", false, ADMIN},
    {"GET", "client-certificates", false, VIEWER},
    {"POST", "client-certificates", false, ADMIN},
    {"DELETE", "client-certificates", true, ADMIN},
    {"GET", "level", false, VIEWER},
    {"GET", "settings", false, VIEWER},
    {"PATCH", "settings", false, ADMIN},
};

static enum pki_role needs_of(const struct api_route *route)
{
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        if (streq(paths[i].method, route->method->name) && streq(paths[i].resource, route->resource) &&
            paths[i].item == route->item)
            return paths[i].needs;
    fail_msg("%s /%s%s: who may?", route->method->name, route->resource, route->item ? "/x" : "");
    return PKI_ROLE_NONE;
}

static void test_every_path_has_its_role(void **state)
{
    struct api_route route;
    size_t count = 0;

    for (; api_route_each(count, &route); count++)
        assert_int_equal(route.method->needs, needs_of(&route));
    assert_int_equal(count, ARRAY_SIZE(paths));
}

/* Whoever changes something is no viewer. */
static void test_no_viewer_changes_anything(void **state)
{
    struct api_route route;

    for (size_t i = 0; api_route_each(i, &route); i++)
        assert_true(route.method->kind != API_CHANGE || route.method->needs > VIEWER);
}

static char *path_of(const struct api_route *route)
{
    return xasprintf(V1 "/%s%s", route->resource, route->item ? "/x.service" : "");
}

static void assert_allowed(struct world *world, const struct access_caller *caller, const char *via,
                           const struct api_route *route, bool allowed)
{
    _cleanup_(freep) char *path = path_of(route), *who = access_describe(caller);
    unsigned status = try_it(world, caller, via, route->method->name, path, "{}");

    if ((status != 403) != allowed)
        fail_msg("%s %s by %s (%s) through %s: %u", route->method->name, path, who,
                 pki_role_name(caller->role), via, status);
}

static void test_every_path_with_every_role(void **state)
{
    struct api_route route;

    for (size_t i = 0; api_route_each(i, &route); i++)
        for (enum pki_role role = PKI_ROLE_NONE; role <= PKI_ROLE_ADMIN; role++) {
            struct access_caller caller = local(role);

            assert_allowed(*state, &caller, VOTER, &route, role >= route.method->needs);
            assert_allowed(*state, &caller, STANDBY, &route, role >= route.method->needs);
            assert_allowed(*state, &caller, NULL, &route, role >= route.method->needs);
        }
}

/* Through a host without the data nobody is more than the setting says. */
static void test_every_path_through_every_host(void **state)
{
    static const char *const words[] = {"none", "viewer", "operator", "admin"};
    struct access_caller admin = local(ADMIN);
    struct api_route route;

    for (enum pki_role role = PKI_ROLE_NONE; role <= PKI_ROLE_ADMIN; role++) {
        set_setting(*state, "host_role", words[role]);
        for (size_t i = 0; api_route_each(i, &route); i++) {
            assert_allowed(*state, &admin, WORKER, &route, role >= route.method->needs);
            assert_allowed(*state, &admin, VOTER, &route, true);
            assert_allowed(*state, &admin, "dddddddddddddddddddddddddddddddd", &route, false);
        }
    }
}

static void test_hosts_and_strangers_have_no_say(void **state)
{
    struct access_caller callers[] = {
        machine(VOTER),
        machine(WORKER),
        client("laptop", "77", ADMIN), /* Whose certificate nobody has issued. */
        {.kind = ACCESS_OPEN, .role = ADMIN},
        {.kind = ACCESS_UNKNOWN, .role = ADMIN},
    };
    struct api_route route;

    for (size_t i = 0; api_route_each(i, &route); i++)
        for (size_t j = 0; j < ARRAY_SIZE(callers); j++)
            assert_allowed(*state, &callers[j], VOTER, &route, false);
}

/* Also of paths that are not there. */
static void test_nothing_is_said_to_those_without_a_role(void **state)
{
    struct access_caller nobody = local(PKI_ROLE_NONE), viewer = local(VIEWER);

    assert_int_equal(try_it(*state, &nobody, VOTER, "GET", V1 "/nothing", NULL), 403);
    assert_int_equal(try_it(*state, &viewer, VOTER, "GET", V1 "/nothing", NULL), 404);
    assert_int_equal(try_it(*state, &nobody, VOTER, "POST", V1 "/state", NULL), 403);
    assert_int_equal(try_it(*state, &viewer, VOTER, "POST", V1 "/state", NULL), 405);
}

/* Without an authority there are no roles but on Unix sockets. */
static void test_insecure_cluster(void **state)
{
    struct access_caller open = {.kind = ACCESS_OPEN, .role = ADMIN}, nobody = local(PKI_ROLE_NONE),
                         viewer = local(VIEWER), admin = local(ADMIN);
    struct world *world = *state;
    struct api_route route;

    world->secure = false;
    set_setting(world, "host_role", "none");
    for (size_t i = 0; api_route_each(i, &route); i++) {
        assert_allowed(world, &open, WORKER, &route, true);
        assert_allowed(world, &admin, WORKER, &route, true);
        assert_allowed(world, &viewer, WORKER, &route, route.method->needs == VIEWER);
        assert_allowed(world, &nobody, WORKER, &route, false);
    }
    assert_int_equal(try_it(world, NULL, WORKER, "GET", V1 "/units", NULL), 200); /* An older host. */
}

/* Its session goes on for what it still has to stop, and for nothing else. */
static void test_a_removed_machine_asks_for_nothing(void **state)
{
    struct access_caller admin = local(ADMIN);
    struct world *world = *state;
    struct api_route route;

    remove_machine(world, WORKER);
    for (unsigned secure = 0; secure < 2; secure++) {
        world->secure = secure != 0;
        for (size_t i = 0; api_route_each(i, &route); i++) {
            assert_allowed(world, &admin, WORKER, &route, false);
            assert_allowed(world, &admin, VOTER, &route, true);
        }
    }
}

/* ---- why not ---- */

static void test_reasons(void **state)
{
    struct access_caller caller = local(PKI_ROLE_NONE);
    struct world *world = *state;

    try_it(world, &caller, VOTER, "GET", V1 "/units", NULL);
    assert_error(world, 403,
                 "uid 1000 is neither root nor in the group that may use the API here (api_socket_group in "
                 "fleet.conf)\"");
    caller = local(VIEWER);
    try_it(world, &caller, VOTER, "PATCH", V1 "/settings", NULL);
    assert_error(world, 403, "this needs the role admin, and uid 1000 is viewer\"");
    caller = machine(WORKER);
    try_it(world, &caller, VOTER, "GET", V1 "/units", NULL);
    assert_error(world, 403,
                 "machine " WORKER " shows the certificate of a host, which has no say in the API");
    set_setting(world, "host_role", "viewer");
    caller = local(ADMIN);
    try_it(world, &caller, WORKER, "DELETE", V1 "/units/x.service", NULL);
    assert_error(world, 403,
                 "this needs the role operator, and through host gamma, which does not hold the cluster's "
                 "data, nobody is more than viewer (setting host_role): ask a host that votes\"");
    try_it(world, NULL, WORKER, "GET", V1 "/units", NULL);
    assert_error(world, 403,
                 "host gamma does not say who asks: its fleetd is of another version; upgrade it\"");
}

/* ---- certificates of clients ---- */

static char *request_pem(void)
{
    struct pki_blob request = {0}, pem = {0};
    struct pki_key *key;

    assert_int_equal(pki_key_new(&key, NULL), 0);
    assert_int_equal(pki_request_new(key, &request, NULL), 0);
    assert_int_equal(pki_request_to_pem(&request, &pem, NULL), 0);
    pki_key_free(key);
    pki_blob_done(&request);
    return (char *)pem.data;
}

static char *wish(const char *name, const char *role, const char *ttl, const char *pem)
{
    json_t *json = json_pack("{s:s,s:s,s:s,s:s}", "name", name, "role", role, "ttl", ttl, "request", pem);
    char *text = json_dumps(json, 0);

    json_decref(json);
    return text;
}

/* Returns the serial. */
static const char *issue(struct world *world, const char *name, const char *role, const char *ttl)
{
    static char serial[PKI_SERIAL_SIZE];
    struct access_caller admin = local(ADMIN);
    _cleanup_(freep) char *pem = request_pem(), *body = wish(name, role, ttl, pem);
    json_t *json;

    assert_int_equal(try_it(world, &admin, VOTER, "POST", V1 "/client-certificates", body), 200);
    json = json_loads(world->body, 0, NULL);
    snprintf(serial, sizeof serial, "%s", json_string_value(json_object_get(json, "serial")));
    json_decref(json);
    return serial;
}

static void test_a_certificate_is_issued(void **state)
{
    struct world *world = *state;
    const char *serial = issue(world, "laptop", "operator", "2h");
    json_t *json = json_loads(world->body, 0, NULL);
    const char *pem = json_string_value(json_object_get(json, "certificate")),
               *roots_pem = json_string_value(json_object_get(json, "authorities"));
    struct pki_blob chain[1], roots[PKI_ROOTS_MAX];
    size_t chain_count, root_count;
    struct pki_info info;

    assert_int_equal(pki_from_pem(pem, strlen(pem), chain, 1, &chain_count, NULL), 0);
    assert_int_equal(pki_from_pem(roots_pem, strlen(roots_pem), roots, PKI_ROOTS_MAX, &root_count, NULL), 0);
    assert_int_equal(root_count, 1);
    assert_int_equal(pki_verify(chain, 1, roots, 1, WALL_MS, &info, NULL), 0);
    assert_int_equal(info.name.kind, PKI_CLIENT);
    assert_int_equal(info.name.role, OPERATE);
    assert_string_equal(info.name.id, "laptop");
    assert_string_equal(info.serial, serial);
    assert_memory_equal(info.name.cluster_id, CLUSTER, CLUSTER_ID_SIZE);
    assert_int_equal(info.not_after_ms, WALL_MS + 2 * HOUR_MS);
    pki_blobs_done(chain, 1);
    pki_blobs_done(roots, 1);
    json_decref(json);
}

static void test_a_certificate_is_what_it_says(void **state)
{
    struct world *world = *state;
    const char *serial = issue(world, "laptop", "operator", "1h");
    struct access_caller caller = client("laptop", serial, OPERATE);

    assert_int_equal(try_it(world, &caller, VOTER, "GET", V1 "/units", NULL), 200);
    assert_int_equal(try_it(world, &caller, WORKER, "GET", V1 "/units", NULL), 200);
    assert_int_equal(try_it(world, &caller, VOTER, "DELETE", V1 "/units/x.service", NULL), 404);
    assert_int_equal(try_it(world, &caller, VOTER, "PATCH", V1 "/settings", "{}"), 403);
    assert_error(world, 403, "this needs the role admin, and client laptop is operator\"");
    set_setting(world, "host_role", "viewer");
    assert_int_equal(try_it(world, &caller, WORKER, "DELETE", V1 "/units/x.service", NULL), 403);
    /* A host that makes something up. */
    caller.role = ADMIN;
    assert_int_equal(try_it(world, &caller, VOTER, "GET", V1 "/units", NULL), 403);
    caller = client("desktop", serial, OPERATE);
    assert_int_equal(try_it(world, &caller, VOTER, "GET", V1 "/units", NULL), 403);
}

static void test_a_certificate_ends(void **state)
{
    struct world *world = *state;
    struct access_caller first = client("laptop", issue(world, "laptop", "viewer", "1h"), VIEWER),
                         second = client("laptop", issue(world, "laptop", "viewer", "2h"), VIEWER),
                         other = client("phone", issue(world, "phone", "viewer", "2h"), VIEWER),
                         admin = local(ADMIN);
    _cleanup_(freep) char *path = xasprintf(V1 "/client-certificates/%s", other.serial);

    world->booted_wall_ms += HOUR_MS - 1;
    assert_int_equal(try_it(world, &first, VOTER, "GET", V1 "/units", NULL), 200);
    world->booted_wall_ms++;
    assert_int_equal(try_it(world, &first, VOTER, "GET", V1 "/units", NULL), 403);
    assert_has(world, "of client laptop has expired");
    assert_int_equal(try_it(world, &second, VOTER, "GET", V1 "/units", NULL), 200);

    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", path, NULL), 204);
    assert_int_equal(try_it(world, &other, VOTER, "GET", V1 "/units", NULL), 403);
    assert_has(world, "of client phone was revoked");
    assert_int_equal(try_it(world, &second, VOTER, "GET", V1 "/units", NULL), 200);
    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", V1 "/client-certificates/laptop", NULL), 204);
    assert_int_equal(try_it(world, &second, VOTER, "GET", V1 "/units", NULL), 403);
    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", V1 "/client-certificates/nobody", NULL), 404);
}

static void test_certificates_are_listed(void **state)
{
    struct world *world = *state;
    struct access_caller viewer = local(VIEWER);
    _cleanup_(freep) char *first = xstrdup(issue(world, "laptop", "viewer", "1h")), *second = NULL,
                          *wanted = NULL;

    world->booted_wall_ms += HOUR_MS / 2;
    second = xstrdup(issue(world, "phone", "admin", "2h"));
    world->booted_wall_ms += HOUR_MS;
    try_it(world, &viewer, VOTER, "GET", V1 "/client-certificates", NULL);
    wanted =
        xasprintf("{\"certificates\":[{\"expires\":%llu,\"issued\":%llu,\"name\":\"laptop\",\"role\":"
                  "\"viewer\",\"serial\":\"%s\",\"state\":\"expired\"},{\"expires\":%llu,\"issued\":%llu,"
                  "\"name\":\"phone\",\"role\":\"admin\",\"serial\":\"%s\",\"state\":\"valid\"}]}",
                  WALL_MS + HOUR_MS, WALL_MS, first, WALL_MS + HOUR_MS / 2 + 2 * HOUR_MS,
                  WALL_MS + HOUR_MS / 2, second);
    assert_string_equal(world->body, wanted);
    assert_lacks(world, "BEGIN");
}

/* Its answer was lost: the same certificate again, not a second one. */
static void test_a_repeated_request(void **state)
{
    struct world *world = *state;
    struct access_caller admin = local(ADMIN);
    _cleanup_(freep) char *pem = request_pem(), *body = wish("laptop", "viewer", "1h", pem), *first = NULL;
    struct ask ask = {.method = "POST",
                      .path = V1 "/client-certificates",
                      .body = body,
                      .content_type = "application/json",
                      .content_type_count = 1,
                      .request_id = "repeat me please",
                      .caller = &admin,
                      .via = VOTER};

    ask_raw(world, &ask);
    assert_int_equal(world->status, 200);
    first = xstrdup(world->body);
    ask_raw(world, &ask);
    assert_string_equal(world->body, first);
    assert_int_equal(HASH_COUNT(registry_clients(world->registry)), 1);
}

static void test_bad_wishes(void **state)
{
    static const struct {
        const char *name, *role, *ttl, *why;
    } cases[] = {
        {"", "viewer", "1h", ""},
        {"-x", "viewer", "1h", ""},
        {"a b", "viewer", "1h", ""},
        {"a/admin", "viewer", "1h", ""},
        {"laptop", "", "1h", "role must be admin, operator or viewer, not \\\"\\\"\""},
        {"laptop", "none", "1h", "role must be admin, operator or viewer, not \\\"none\\\"\""},
        {"laptop", "root", "1h", "role must be admin, operator or viewer, not \\\"root\\\"\""},
        {"laptop", "viewer", "soon", "ttl: \\\"soon\\\" is not a duration"},
        {"laptop", "viewer", "0", "ttl: from 1s to 3660d\""},
        {"laptop", "viewer", "20000d", "ttl: from 1s to 3660d\""},
    };
    struct access_caller admin = local(ADMIN);
    struct world *world = *state;
    _cleanup_(freep) char *pem = request_pem();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *body = wish(cases[i].name, cases[i].role, cases[i].ttl, pem);

        try_it(world, &admin, VOTER, "POST", V1 "/client-certificates", body);
        assert_error(world, 400, cases[i].why);
    }
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(freep) char *body =
            wish("laptop", "viewer", "1h",
                 i == 0   ? ""
                 : i == 1 ? "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
                          : "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");

        try_it(world, &admin, VOTER, "POST", V1 "/client-certificates", body);
        assert_error(world, 400, "");
    }
    assert_null(registry_clients(world->registry));
}

/* ---- what the registry keeps ---- */

static int add(struct world *world, const char *serial, const char *name, uint64_t expires_ms)
{
    Fleet__ClientCertificate body = FLEET__CLIENT_CERTIFICATE__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    uint8_t *bytes;
    size_t size;
    int status;

    body.serial = (char *)serial;
    body.name = (char *)name;
    body.role = VIEWER;
    body.expires_wall_ms = expires_ms;
    body.certificate = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"DER"};
    command.wall_ms = world_wall_ms(world);
    command.body_case = FLEET__COMMAND__BODY_ADD_CLIENT;
    command.add_client = &body;
    assert_int_equal(command_encode(&command, &bytes, &size), 0);
    status = registry_apply(world->registry, bytes, size)->status;
    free(bytes);
    return status;
}

static void test_the_registry_keeps_few(void **state)
{
    struct world *world = *state;
    struct access_caller admin = local(ADMIN);
    char serial[CLIENT_SERIAL_BYTES];

    assert_int_equal(add(world, "", "x", WALL_MS + 1), -EINVAL);
    assert_int_equal(add(world, "01", "", WALL_MS + 1), -EINVAL);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        snprintf(serial, sizeof serial, "%04x", i);
        assert_int_equal(add(world, serial, i < 2 ? "two" : "many", WALL_MS + HOUR_MS + (i == 9 ? 1 : 0)), 0);
    }
    assert_int_equal(add(world, "0009", "again", WALL_MS + HOUR_MS), -EEXIST);
    assert_int_equal(add(world, "ffff", "x", WALL_MS + HOUR_MS), -E2BIG);
    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", V1 "/client-certificates/two", NULL), 204);
    assert_true(registry_client(world->registry, "0000")->revoked);
    assert_int_equal(add(world, "ffff", "x", WALL_MS + 2 * HOUR_MS), 0); /* In the place of a revoked one. */
    assert_int_equal(add(world, "fffe", "x", WALL_MS + 2 * HOUR_MS), 0);
    assert_int_equal(add(world, "fffd", "x", WALL_MS + 2 * HOUR_MS), -E2BIG);
    world->booted_wall_ms += HOUR_MS;
    assert_int_equal(add(world, "fffd", "x", WALL_MS + 2 * HOUR_MS), 0); /* All others have expired. */
    assert_int_equal(HASH_COUNT(registry_clients(world->registry)), 4);
    assert_non_null(registry_client(world->registry, "0009"));
}

static void test_snapshot(void **state)
{
    struct world *world = *state;
    struct registry *fresh = registry_new();
    struct access_caller admin = local(ADMIN);
    _cleanup_(freep) char *serial = xstrdup(issue(world, "laptop", "operator", "1h"));
    const struct registry_client *before = registry_client(world->registry, serial), *after;
    struct registry_snapshot *snapshot;
    struct strbuf bytes = {0};

    add(world, "01", "phone", WALL_MS + HOUR_MS);
    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", V1 "/client-certificates/01", NULL), 204);
    snapshot = registry_snapshot_new(world->registry);
    for (size_t i = 0; i < snapshot->count; i++)
        strbuf_add_bytes(&bytes, snapshot->pieces[i].base, snapshot->pieces[i].size);
    registry_snapshot_free(world->registry, snapshot);
    assert_int_equal(registry_restore(fresh, bytes.text, bytes.size, NULL), 0);
    after = registry_client(fresh, serial);
    assert_string_equal(after->name, "laptop");
    assert_int_equal(after->role, OPERATE);
    assert_int_equal(after->issued_wall_ms, WALL_MS);
    assert_int_equal(after->expires_wall_ms, WALL_MS + HOUR_MS);
    assert_int_equal(after->certificate_size, before->certificate_size);
    assert_memory_equal(after->certificate, before->certificate, before->certificate_size);
    assert_memory_equal(after->request_id, before->request_id, REQUEST_ID_SIZE);
    assert_false(after->revoked);
    assert_true(registry_client(fresh, "01")->revoked);
    strbuf_done(&bytes);
    registry_free(fresh);
    /* In another cluster they would be nobody's. */
    fresh = registry_new();
    snapshot = registry_snapshot_for_backup(world->registry);
    for (size_t i = 0; i < snapshot->count; i++)
        strbuf_add_bytes(&bytes, snapshot->pieces[i].base, snapshot->pieces[i].size);
    registry_snapshot_free(world->registry, snapshot);
    assert_int_equal(registry_restore(fresh, bytes.text, bytes.size, NULL), 0);
    assert_null(registry_clients(fresh));
    strbuf_done(&bytes);
    registry_free(fresh);
}

/* ---- the journal ---- */

static const char *field(const char *name)
{
    for (size_t i = 0; i < fields.count; i++)
        if (str_has_prefix(fields.items[i], name) && fields.items[i][strlen(name)] == '=')
            return fields.items[i] + strlen(name) + 1;
    return NULL;
}

static void test_a_change_is_written_down(void **state)
{
    struct world *world = *state;
    struct access_caller caller = client("laptop", issue(world, "laptop", "operator", "1h"), OPERATE);
    struct ask ask = {.method = "PUT",
                      .path = V1 "/units/x.service",
                      .body = "{\"desiredState\":\"inactive\"," PLAIN "}",
                      .content_type = "application/json",
                      .content_type_count = 1,
                      .request_id = "0123456789abcdef",
                      .caller = &caller,
                      .via = WORKER};

    forget_log();
    ask_raw(world, &ask);
    assert_int_equal(world->status, 201);
    assert_int_equal(lines.count, 1);
    assert_string_equal(lines.items[0], "PUT /fleet/v1/units/x.service by client laptop (operator) from test "
                                        "through machine " WORKER ": done");
    assert_string_equal(field("MESSAGE_ID"), "5e7330d110df4b119456ab505d4a1830");
    assert_string_equal(field("FLEET_CALLER"), "client laptop");
    assert_string_equal(field("FLEET_ROLE"), "operator");
    assert_string_equal(field("FLEET_SERIAL"), caller.serial);
    assert_string_equal(field("FLEET_PEER"), "test");
    assert_string_equal(field("FLEET_MACHINE"), WORKER);
    assert_string_equal(field("FLEET_METHOD"), "PUT");
    assert_string_equal(field("FLEET_PATH"), "/fleet/v1/units/x.service");
    assert_string_equal(field("FLEET_REQUEST_ID"), "30313233343536373839616263646566");
    assert_string_equal(field("FLEET_STATUS"), "201");
    assert_string_equal(field("FLEET_REASON"), "done");
}

static void test_a_refused_change_is_written_down(void **state)
{
    struct world *world = *state;
    struct access_caller admin = local(ADMIN);

    try_it(world, &admin, NULL, "DELETE", V1 "/units/x.service", NULL);
    assert_int_equal(lines.count, 1);
    assert_string_equal(lines.items[0],
                        "DELETE /fleet/v1/units/x.service by test (admin): unit does not exist");
    assert_string_equal(field("FLEET_STATUS"), "404");
    forget_log();
    try_it(world, &admin, NULL, "GET", V1 "/units", NULL); /* Reading is nobody's business. */
    assert_int_equal(lines.count, 0);
}

/* Its client has gone; the change may be made all the same. */
static void test_an_abandoned_change_is_written_down(void **state)
{
    struct world *world = *state;
    struct access_caller admin = local(ADMIN);

    world->mood = MOOD_WAIT;
    try_it(world, &admin, VOTER, "PUT", V1 "/units/x.service", "{\"desiredState\":\"inactive\"," PLAIN "}");
    assert_int_equal(lines.count, 1);
    assert_non_null(strstr(lines.items[0], "under way; nobody waits for its outcome any more"));
    world_resume(world);
}

/* Where a host asks again elsewhere, only what comes of it counts. */
static void test_what_goes_on_elsewhere_is_not_written_down(void **state)
{
    struct world *world = *state;
    struct access_caller admin = local(ADMIN);

    world->leads = false;
    assert_int_equal(try_it(world, &admin, VOTER, "DELETE", V1 "/units/x.service", NULL), 503);
    assert_int_equal(lines.count, 0);
}

static void test_a_refusal_is_written_down(void **state)
{
    struct world *world = *state;
    struct access_caller viewer = local(VIEWER);

    try_it(world, &viewer, VOTER, "DELETE", V1 "/units/x\n<0>forged", NULL);
    assert_int_equal(lines.count, 1);
    assert_string_equal(lines.items[0],
                        "DELETE /fleet/v1/units/x?<0>forged by test (viewer) through machine " VOTER
                        ": this needs the role operator, and uid 1000 is viewer");
    assert_string_equal(field("MESSAGE_ID"), "c9b6fdfacc3648fbbcdf8ba0f583f3a4");
    assert_string_equal(field("FLEET_STATUS"), "403");
    assert_string_equal(field("FLEET_PATH"), "/fleet/v1/units/x?<0>forged");
    assert_string_equal(field("FLEET_REASON"), "this needs the role operator, and uid 1000 is viewer");
}

static void test_refusals_do_not_drown_the_journal(void **state)
{
    struct world *world = *state;
    struct access_caller viewer = local(VIEWER), admin = local(ADMIN);

    for (unsigned i = 0; i < 10 * AUDIT_REFUSALS_BURST; i++)
        try_it(world, &viewer, VOTER, "DELETE", V1 "/units/x.service", NULL);
    assert_int_equal(lines.count, AUDIT_REFUSALS_BURST);
    try_it(world, &admin, VOTER, "DELETE", V1 "/units/x.service", NULL); /* What is done is always written. */
    assert_int_equal(lines.count, AUDIT_REFUSALS_BURST + 1);
    world->now_ms += AUDIT_REFUSAL_MS;
    try_it(world, &viewer, VOTER, "DELETE", V1 "/units/x.service", NULL);
    try_it(world, &viewer, VOTER, "DELETE", V1 "/units/x.service", NULL);
    assert_int_equal(lines.count, AUDIT_REFUSALS_BURST + 2);
    assert_non_null(
        strstr(lines.items[lines.count - 1], "(1800 more refusals before this one were not written)"));
    world->now_ms += (uint64_t)AUDIT_REFUSALS_BURST * AUDIT_REFUSAL_MS;
    forget_log();
    for (unsigned i = 0; i < 2 * AUDIT_REFUSALS_BURST; i++)
        try_it(world, &viewer, VOTER, "DELETE", V1 "/units/x.service", NULL);
    assert_int_equal(lines.count, AUDIT_REFUSALS_BURST);
}

/* ---- on the wire ---- */

static void test_wire(void **state)
{
    struct access_caller callers[] = {local(ADMIN),
                                      client("laptop", "0a", VIEWER),
                                      machine(WORKER),
                                      {.kind = ACCESS_OPEN, .role = ADMIN},
                                      {.kind = ACCESS_UNKNOWN}};
    char longest[PKI_ID_SIZE + 1] = "";
    struct access_caller back;
    Fleet__Caller message;

    for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
        access_to_wire(&callers[i], &message);
        access_from_wire(&message, &back);
        assert_memory_equal(&back, &callers[i], sizeof back);
    }
    memset(longest, 'x', PKI_ID_SIZE);
    access_to_wire(&callers[1], &message);
    message.name = longest;
    access_from_wire(&message, &back);
    assert_int_equal(back.kind, ACCESS_UNKNOWN);
    access_to_wire(&callers[1], &message);
    message.serial = longest;
    access_from_wire(&message, &back);
    assert_int_equal(back.kind, ACCESS_UNKNOWN);
    access_to_wire(&callers[1], &message);
    message.role = PKI_ROLE_ADMIN + 1;
    access_from_wire(&message, &back);
    assert_int_equal(back.kind, ACCESS_UNKNOWN);
    assert_int_equal(back.role, PKI_ROLE_NONE);
    access_to_wire(&callers[1], &message);
    message.kind = (Fleet__CallerKind)77; /* Of a later version. */
    access_from_wire(&message, &back);
    assert_int_equal(back.kind, ACCESS_UNKNOWN);
    access_from_wire(NULL, &back);
    assert_int_equal(back.kind, ACCESS_UNKNOWN);
}

static void test_local_roles(void **state)
{
    assert_int_equal(access_local_role(true, false), PKI_ROLE_ADMIN);
    assert_int_equal(access_local_role(true, true), PKI_ROLE_ADMIN);
    assert_int_equal(access_local_role(false, true), PKI_ROLE_VIEWER);
    assert_int_equal(access_local_role(false, false), PKI_ROLE_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_path_has_its_role),
        cmocka_unit_test(test_no_viewer_changes_anything),
        SECURE(test_every_path_with_every_role),
        SECURE(test_every_path_through_every_host),
        SECURE(test_hosts_and_strangers_have_no_say),
        SECURE(test_nothing_is_said_to_those_without_a_role),
        SECURE(test_insecure_cluster),
        SECURE(test_a_removed_machine_asks_for_nothing),
        SECURE(test_reasons),
        SECURE(test_a_certificate_is_issued),
        SECURE(test_a_certificate_is_what_it_says),
        SECURE(test_a_certificate_ends),
        SECURE(test_certificates_are_listed),
        SECURE(test_a_repeated_request),
        SECURE(test_bad_wishes),
        SECURE(test_the_registry_keeps_few),
        SECURE(test_snapshot),
        SECURE(test_a_change_is_written_down),
        SECURE(test_a_refused_change_is_written_down),
        SECURE(test_an_abandoned_change_is_written_down),
        SECURE(test_what_goes_on_elsewhere_is_not_written_down),
        SECURE(test_a_refusal_is_written_down),
        SECURE(test_refusals_do_not_drown_the_journal),
        cmocka_unit_test(test_wire),
        cmocka_unit_test(test_local_roles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
