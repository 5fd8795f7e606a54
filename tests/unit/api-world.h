/* SPDX-License-Identifier: Apache-2.0 */
/* What the API needs of the world, for its tests: a real registry, a stand-in for the leader's mind, and a
 * store that applies a command at once, or as a test says. */
#pragma once

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/api.h"
#include "tests/unit/fake-core.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define V1   "/fleet/v1"

#define OPTION(s, n, v) "{\"section\":\"" s "\",\"name\":\"" n "\",\"value\":\"" v "\"}"
#define PLAIN           "\"options\":[" OPTION("Service", "ExecStart", "/bin/true") "]"

enum store_mood {
    MOOD_APPLY,  /* At once. */
    MOOD_REFUSE, /* At once. */
    MOOD_LOSE,   /* Applied, but the answer is lost. */
    MOOD_WAIT,   /* Kept until world_resume(). */
};

struct kept {
    store_done *done;
    void *data;
    uint8_t *bytes; /* NULL: a barrier. */
    size_t size;
};

/* A question to a host that is open. */
struct asked_host {
    uint64_t id;
    char machine_id[MACHINE_ID_SIZE], unit[64], cursor[64];
    Fleet__HostRequest request; /* Its numbers. */
    uint64_t timeout_ms;
    asks_done *done;
    void *data;
};

struct world {
    struct registry *registry;
    struct core core;
    struct api *api;
    bool leads;
    enum store_mood mood;
    uint64_t now_ms, booted_wall_ms; /* The wall clock when 'now_ms' was 0. */
    bool secure;
    unsigned barriers, proposals;
    struct kept kept[8];
    size_t kept_count;
    struct asked_host asked[128];
    size_t asked_count;
    uint64_t asked_last;
    unsigned asks_cancelled, hand_overs;
    const char *mute; /* A machine that cannot be asked. */
    /* How things are among the voters, made from the registry. */
    bool two_voters;   /* The server with id 2, too... */
    bool silent_voter; /* ...and besides one with id 3, which does not answer. */
    bool no_leader;
    struct voters_facts facts;
    struct store_server servers[8];
    struct voters_machine voters[8];
    uint64_t heirs[8]; /* Whom leadership was offered to last. */
    size_t heir_count;
    /* The last answer. */
    unsigned answers, status;
    char content_type[64];
    char *body;
};

static inline uint64_t world_wall_ms(const struct world *world)
{
    return world->booted_wall_ms + world->now_ms;
}

struct ask {
    const char *method, *path, *query, *body; /* Query: "a=b&c=d", not escaped. */
    const char *content_type;
    unsigned content_type_count;
    const void *request_id;
    const struct access_caller *caller; /* NULL: it is not said. */
    const char *via;
};

/* The oldest question that is open is answered: with 'json', or, where that is NULL, with 'why' there is no
 * answer.
 */
void host_answers(struct world *world, const char *json, const char *why);
/* The store answers what it has kept. */
void world_resume(struct world *world);
/* For cmocka_unit_test_setup_teardown(). */
int world_setup(void **state);
int world_teardown(void **state);
/* As api_handle(); the answer, if it came, is in the world. */
uint64_t ask_raw(struct world *world, const struct ask *ask);
/* A request that must be answered at once. */
void ask(struct world *world, const char *method, const char *path, const char *body);
/* The last answer is this error; its message begins so (with \" at its end: is so). */
void assert_error(struct world *world, unsigned status, const char *message);
/* A GET, and the whole body of its answer. */
void assert_get(struct world *world, const char *path, const char *query, const char *body);
/* Of the last answer. */
void assert_has(struct world *world, const char *piece);
void assert_lacks(struct world *world, const char *piece);
/* PUT of a unit, with the status that it must have. */
void put(struct world *world, const char *name, const char *body, unsigned status);
/* What hosts and the leader do besides. */
void add_machine(struct world *world, const char *id, const char *hostname, const char *ip,
                 uint64_t server_id);
void remove_machine(struct world *world, const char *id);
void set_setting(struct world *world, const char *name, const char *value);
void place(struct world *world, const char *unit, const char *machine_id);

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
