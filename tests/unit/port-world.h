/* SPDX-License-Identifier: Apache-2.0 */
/* Two ports on one loop, and raw sockets that know no manners: what the tests of the cluster port share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "pki/pki.h"
#include "raftstore/port.h"
#include "raftstore/tls_credentials.h"
#include "tests/unit/deadline.h"

/* One side of a connection, as its owner sees it. */
struct end {
    struct conn *conn; /* NULL once closed. */
    unsigned opened, messages, closed, drained;
    size_t bytes;
    uint32_t sum;
    char reason[512], leader[262];
    struct pki_name peer; /* On opening, or accepting. */
    bool proved;          /* Likewise. */
    bool refused, close_on_open, close_on_message, echo, port_close_on_message;
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t deadline;
    bool expired;
    struct port *server, *client;
    unsigned ports_closed, ports, descriptors;
    struct end accepted[256];
    size_t accepted_count;
    const char *refuse, *refuse_leader;
    bool close_in_accept;
    struct pki_name joiner; /* Of on_accept, with PURPOSE_JOIN. */
    /* Who has the key of our authority, and shows it: a port's callback (proof.h). */
    bool server_proves, client_proves;
    const void *proves_otherwise; /* A text that is signed instead of the right one... */
    uint8_t last_proof[64];       /* ...and the right one of the last proof. */
    bool gives_back;              /* The server signs what the client has signed. */
    int check_server;             /* What is answered to that: 0, or a negative errno. */
    unsigned servers_checked;
    unsigned later_histories;
    char later_machine[40];
};

/* Messages that begin with "connection from": how many, and the last one. */
extern unsigned strangers_logged;
extern char stranger_text[512];

void on_deadline(uv_timer_t *timer);

#define WAIT(f, condition)                                                     \
    do {                                                                       \
        (f)->expired = false;                                                  \
        uv_timer_start(&(f)->deadline, on_deadline, DEADLINE_MS, 0);           \
        while (!(condition) && !(f)->expired)                                  \
            uv_run(&(f)->loop, UV_RUN_ONCE);                                   \
        uv_timer_stop(&(f)->deadline);                                         \
        if (!(condition))                                                      \
            fail_msg("never came true in %u ms: %s", DEADLINE_MS, #condition); \
    } while (0)

/* ---- a cluster's certificates, made when first wanted, for all tests of a program ---- */

/* The last one is our own, after its authority was replaced by another. */
enum { CLUSTER_OURS, CLUSTER_OTHER, CLUSTER_ROTATED, CLUSTERS };

/* The machine id of port 'n' is n as 32 hex digits. Borrowed. */
const struct pki_blob *world_authority(unsigned cluster);
const struct pki_key *world_authority_key(unsigned cluster);
struct tls_credentials *world_credentials(unsigned cluster, unsigned n, uint64_t not_after_ms);
void world_done(void);

/* ---- ports ---- */

struct port_identity identity_of(unsigned n);
struct port *add_port(struct fixture *f, unsigned n);
void secure_port(struct port *port, unsigned cluster, unsigned n); /* With good credentials. */
int setup(void **state);                                           /* Server 1, client 2, in plain text... */
int setup_secure(void **state);                                    /* ...or with TLS. */
int teardown(void **state);
void on_port_closed(void *data);
extern const struct conn_callbacks end_callbacks;
void dial_to(struct fixture *f, struct end *end, const char *address, uint64_t to);
void dial(struct fixture *f, struct end *end);
unsigned server_port(struct fixture *f);

/* ---- A raw peer ---- */

struct raw {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    bool connected, eof, no_reading;
    size_t got;
    char inbox[8192];
};

void raw_connect(struct fixture *f, struct raw *raw);
void raw_write(struct raw *raw, const void *bytes, size_t size);
void raw_done(struct fixture *f, struct raw *raw);
uint8_t *hello_frame(const struct port_identity *identity, Fleet__Purpose purpose, uint64_t to,
                     size_t *ret_size);
void raw_greet(struct fixture *f, struct raw *raw); /* Greets properly and waits for the answer. */
