/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "store-node.h"

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "raftstore/port.h"

/* ---- port ---- */

static int on_accept(struct conn *conn, const Fleet__Hello *hello, const struct conn_callbacks **ret,
                     void **ret_data, char *leader_address, struct err *err, void *data)
{
    struct node *node = data;

    *ret = node->store != NULL ? store_accept(node->store, hello, ret_data) : NULL;
    return *ret != NULL ? 0 : err_set(err, -EAGAIN, "not running");
}

void node_listen(struct node *node)
{
    static const struct port_callbacks callbacks = {.on_accept = on_accept};
    struct port_identity identity = {
        .has_cluster = true, .server_id = node->id, .cluster_id = {node->cluster}, .boot_id = {node->boot}};
    struct err err = {0};

    snprintf(identity.machine_id, sizeof identity.machine_id, "%032x", (unsigned)node->id);
    node->port = port_new(node->loop, &identity, &callbacks, node);
    if (port_listen(node->port, node->address[0] != '\0' ? node->address : "127.0.0.1:0", &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    strcpy(node->address, port_listening(node->port));
}

/* ---- store ---- */

static void on_change(void *data)
{
    struct node *node = data;

    node->changes++;
    node->early_changes += node->opening;
}

static void tell(struct node *node)
{
    if (node->on_event != NULL)
        node->on_event(node);
}

static void on_role(void *data)
{
    tell(data);
}

static void on_lead(uint64_t term, void *data)
{
    struct node *node = data;

    assert(!node->leads);
    node->leads = true;
    node->leads_count++;
    tell(node);
}

static void on_yield(void *data)
{
    struct node *node = data;

    assert(node->leads);
    node->leads = false;
    tell(node);
}

static void on_fatal(const char *why, void *data)
{
    struct node *node = data;

    if (node->on_fatal != NULL)
        node->on_fatal(node, why);
    else
        fprintf(stderr, "server %u: %s\n", (unsigned)node->id, why);
}

int node_open(struct node *node, struct err *err)
{
    static const struct store_callbacks callbacks = {.on_change = on_change,
                                                     .on_role = on_role,
                                                     .on_lead = on_lead,
                                                     .on_yield = on_yield,
                                                     .on_fatal = on_fatal};
    struct store_config config = {.directory = node->directory,
                                  .server_id = node->id,
                                  .cluster_id = {node->cluster},
                                  .address = node->address,
                                  .bootstrap = node->bootstrap,
                                  .moves = node->moves,
                                  .move_count = node->move_count,
                                  .has_log = node->has_log,
                                  .election_ms =
                                      node->election_ms != 0 ? node->election_ms : NODE_ELECTION_MS,
                                  .snapshot_log_bytes = node->snapshot_log_bytes};
    int r;

    node->opening = true;
    r = store_open(node->loop, node->port, &config, &callbacks, node, &node->store, err);
    node->opening = false;
    return r;
}

void node_close(struct node *node, void (*done)(void *data), void *data)
{
    store_close(node->store, done, data);
}

void node_propose(struct node *node, unsigned number, size_t text_size, store_done *done, void *data)
{
    Fleet__UnitChange change = FLEET__UNIT_CHANGE__INIT, *changes[] = {&change};
    Fleet__ChangeUnits units = FLEET__CHANGE_UNITS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    _cleanup_(freep) char *name = xasprintf("u%u.service", number);
    _cleanup_(freep) char *text = xmalloc(text_size + 1);
    uint8_t id[REQUEST_ID_SIZE] = {0};

    memset(text, 'x', text_size);
    memcpy(text, "[Service]\nExecStart=/bin/true\n#", 31);
    snprintf(text + 31, text_size - 31, "%u", number);
    text[text_size - 1] = '\n';
    memcpy(id, &number, sizeof number);
    change.name = name;
    change.text = (ProtobufCBinaryData){.len = text_size, .data = (uint8_t *)text};
    change.has_text = true;
    change.if_absent = true;
    change.desired = FLEET__DESIRED_STATE__DESIRED_INACTIVE;
    units.changes = changes;
    units.n_changes = 1;
    command.request_id = (ProtobufCBinaryData){.len = sizeof id, .data = id};
    command.body_case = FLEET__COMMAND__BODY_CHANGE_UNITS;
    command.change_units = &units;
    store_propose(node->store, &command, done, data);
}

/* ---- looking ---- */

void node_registry(const struct node *node, uint8_t **ret, size_t *ret_size)
{
    struct registry *registry = (struct registry *)store_registry(node->store);
    struct registry_snapshot *snapshot = registry_snapshot_new(registry);
    size_t size = 0;

    for (size_t i = 0; i < snapshot->count; i++)
        size += snapshot->pieces[i].size;
    *ret = xmalloc(size);
    *ret_size = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        memcpy(*ret + *ret_size, snapshot->pieces[i].base, snapshot->pieces[i].size);
        *ret_size += snapshot->pieces[i].size;
    }
    registry_snapshot_free(registry, snapshot);
}

/* FNV-1a. */
uint64_t node_registry_hash(const struct node *node)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    node_registry(node, &bytes, &size);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

char *node_find_file(const struct node *node, const char *prefix)
{
    _cleanup_(freep) char *path = xasprintf("%s/raft", node->directory);
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            return xasprintf("%s/%s", path, entry->d_name);
    return NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void remove_directory(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void node_wipe(const struct node *node)
{
    remove_directory(node->directory);
}

void make_test_directory(char *path, size_t size)
{
    snprintf(path, size, "/var/tmp/fleet-store-XXXXXX"); /* /tmp may be in memory. */
    if (mkdtemp(path) == NULL)
        abort();
}

char *directory_sum(const char *path)
{
    _cleanup_(freep) char *command = xasprintf("cd %s && find . -printf '%%P %%m %%s %%T@\\n' | sort && "
                                               "find . -type f -exec sha256sum {} + | sort",
                                               path);
    _cleanup_(strbuf_done) struct strbuf sum = {0};
    FILE *from = popen(command, "re");
    char piece[4096];
    size_t n;

    while (from != NULL && (n = fread(piece, 1, sizeof piece, from)) > 0)
        strbuf_add_bytes(&sum, piece, n);
    if (from == NULL || pclose(from) != 0)
        abort();
    return strbuf_take(&sum);
}
