/* SPDX-License-Identifier: Apache-2.0 */
/* A host of which only systemd, the disk and the other hosts are missing: bytes of a client go through the
 * real HTTP server and router, as encoded messages to the real API (the world of api-world.h), and back. */
#pragma once

#include "tests/unit/api-world.h"

#include <uv.h>

#include "fleetd/router.h"

#define WIRE_HOST         ID_A /* Which passes the requests on. */
#define WIRE_REQUESTS_MAX 64

struct wire_message {
    uint8_t *bytes;
    size_t size;
    struct wire_message *prev, *next;
};

struct wire_request {
    uint64_t id, handle;
};

struct wire {
    struct world *world;
    uv_loop_t loop;
    struct http_server *http;
    struct router *router;
    bool member, connected;         /* This host belongs to a cluster; it has a session to its leader. */
    struct wire_message *up, *down; /* On their way to the leader and back. */
    struct wire_request waiting[WIRE_REQUESTS_MAX];
    size_t waiting_count;
    unsigned forged_status; /* The leader answers this; 0: as it should. */
    bool http_closed, router_closed;
    char dir[64], path[96];
};

/* What came back on one connection until it was closed. */
struct wire_answer {
    char *bytes; /* Ends in a NUL that 'size' does not count. */
    size_t size;
    unsigned status; /* Of the first answer; 0: there is none. */
    const char *head, *body;
};

int wire_setup(void **state);
int wire_teardown(void **state);

/* The session to the leader begins, or ends. */
void wire_connect(struct wire *wire, bool connected);

/* Sends these bytes on a connection of their own, then nothing more, and reads until the server has closed
 * it. The caller ends the answer with wire_answer_done(). */
struct wire_answer wire_exchange(struct wire *wire, const char *bytes, size_t size);
void wire_answer_done(struct wire_answer *answer);

/* The value of a header of the first answer, or NULL. Owned by the caller. */
char *wire_header(const struct wire_answer *answer, const char *name);

/* The bytes of a request written shortly: "PUT /x\nContent-Type: y\n\nbody" gets its version, a Host, a
 * Content-Length where there is a body, and CRLFs. Every "@" of the first line that follows a blank is
 * replaced by 'prefix'. Owned by the caller. */
char *wire_request(const char *request, const char *prefix);

#define WIRE_TEST(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
