/* SPDX-License-Identifier: Apache-2.0 */
/* A server for the tests of the store: a cluster port on loopback and a store, on a given loop; and a few
 * things to do with them. Commands are units: number N creates "uN.service", which must not exist yet, under
 * the request id N. So one that is applied twice shows. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "raftstore/limits.h"
#include "raftstore/store.h"

#define NODE_ELECTION_MS 500u
#define NODE_TEXT_SMALL  64u

struct node {
    uv_loop_t *loop;
    uint64_t id;
    char directory[160];
    char address[ADDRESS_MAX + 1]; /* Empty: node_listen() chooses one, and keeps it. */
    bool bootstrap, has_log;
    uint8_t cluster; /* First byte of the cluster's id... */
    uint8_t boot;    /* ...and of the boot id. */
    const struct store_move *moves;
    size_t move_count;
    uint64_t snapshot_log_bytes;
    unsigned election_ms; /* 0: NODE_ELECTION_MS. */
    struct port *port;
    struct store *store;
    /* What the store said. */
    bool leads;
    unsigned leads_count, changes, early_changes;
    bool opening;
    void (*on_event)(struct node *node); /* Role or lead has changed. May be NULL. */
    void (*on_fatal)(struct node *node, const char *why);
};

void node_listen(struct node *node);
int node_open(struct node *node, struct err *err);
/* Only the store; the port stays. */
void node_close(struct node *node, void (*done)(void *data), void *data);

void node_propose(struct node *node, unsigned number, size_t text_size, store_done *done, void *data);

/* All of the registry, to be compared. The caller frees *ret. */
void node_registry(const struct node *node, uint8_t **ret, size_t *ret_size);
uint64_t node_registry_hash(const struct node *node);

/* Whether a file in the node's raft directory begins with 'prefix'; its path then, to be freed. */
char *node_find_file(const struct node *node, const char *prefix);
void node_wipe(const struct node *node);

/* A directory on a real disk. */
void make_test_directory(char *path, size_t size);
void remove_directory(const char *path);
/* Names, contents, modes and times of all that is in it, for comparing. To be freed. */
char *directory_sum(const char *path);
