/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/identify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

struct identify {
    struct conn *conn;
    uint64_t server_id;
    char machine_id[sizeof(((struct port_identity *)NULL)->machine_id)]; /* "": any. */
    enum identify_result result;
    uint8_t boot_id[BOOT_ID_SIZE];
    void (*done)(enum identify_result result, const uint8_t *boot_id, void *data);
    void *data;
};

static void take_welcome(struct identify *identify, const Fleet__Welcome *welcome)
{
    if (welcome->server_id != identify->server_id ||
        (identify->machine_id[0] != '\0' && !streq(welcome->machine_id, identify->machine_id))) {
        identify->result = IDENTIFY_OTHER;
    } else if (welcome->boot_id.len != BOOT_ID_SIZE) {
        identify->result = IDENTIFY_OLD;
    } else {
        identify->result = IDENTIFY_THERE;
        memcpy(identify->boot_id, welcome->boot_id.data, BOOT_ID_SIZE);
    }
}

static void on_open(struct conn *conn, const Fleet__Welcome *welcome, void *data)
{
    take_welcome(data, welcome);
    conn_close(conn, "it is known who is there");
}

static void on_message(struct conn *conn, const uint8_t *bytes, size_t size, void *data)
{
}

/* One that refuses us says who it is, too: it may be too old for the question, or mean another server. */
static void on_close(struct conn *conn, const char *reason, const Fleet__Welcome *refusal, void *data)
{
    struct identify *identify = data;

    if (refusal != NULL && identify->result == IDENTIFY_NOBODY)
        take_welcome(identify, refusal);
    identify->done(identify->result, identify->result == IDENTIFY_THERE ? identify->boot_id : NULL,
                   identify->data);
    free(identify);
}

struct identify *identify_start(struct port *port, const char *address, uint64_t server_id,
                                const char *machine_id,
                                void (*done)(enum identify_result result, const uint8_t *boot_id, void *data),
                                void *data)
{
    static const struct conn_callbacks callbacks = {
        .on_open = on_open, .on_message = on_message, .on_close = on_close};
    struct identify *identify = NEW0(struct identify);

    identify->server_id = server_id;
    if (machine_id != NULL)
        snprintf(identify->machine_id, sizeof identify->machine_id, "%s", machine_id);
    identify->result = IDENTIFY_NOBODY;
    identify->done = done;
    identify->data = data;
    identify->conn =
        port_dial(port, address, FLEET__PURPOSE__PURPOSE_IDENTIFY, server_id, &callbacks, identify);
    return identify;
}

void identify_cancel(struct identify *identify)
{
    conn_close(identify->conn, "nobody wants to know any more");
}
