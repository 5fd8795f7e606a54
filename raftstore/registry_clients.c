/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/registry_clients.h"

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "raftstore/registry_private.h"

static struct registry_client *find(const struct registry *registry, const char *serial)
{
    struct registry_client *client;

    HASH_FIND_STR(registry->clients, serial, client);
    return client;
}

static void forget(struct registry *registry, struct registry_client *client)
{
    HASH_DEL(registry->clients, client);
    free(client->certificate);
    free(client);
}

/* Those that have expired; and if there is no room, those that were revoked. */
static void prune(struct registry *registry, uint64_t wall_ms)
{
    struct registry_client *client, *next;

    HASH_ITER (hh, registry->clients, client, next)
        if (wall_ms >= client->expires_wall_ms ||
            (client->revoked && HASH_COUNT(registry->clients) >= CLIENTS_MAX))
            forget(registry, client);
}

/* What a command or a snapshot has; -EINVAL: it makes no sense. */
static int check(const Fleet__ClientCertificate *message)
{
    return message != NULL && message->serial[0] != '\0' && strlen(message->serial) < CLIENT_SERIAL_BYTES &&
                   message->name[0] != '\0' && strlen(message->name) < CLIENT_NAME_BYTES &&
                   message->certificate.len > 0 && message->certificate.len <= CLIENT_CERTIFICATE_MAX
               ? 0
               : -EINVAL;
}

static struct registry_client *add(struct registry *registry, const Fleet__ClientCertificate *message)
{
    struct registry_client *client = NEW0(struct registry_client);

    strcpy(client->serial, message->serial);
    strcpy(client->name, message->name);
    client->role = message->role;
    client->expires_wall_ms = message->expires_wall_ms;
    client->certificate = (uint8_t *)xmemdup(message->certificate.data, message->certificate.len);
    client->certificate_size = message->certificate.len;
    HASH_ADD_STR(registry->clients, serial, client);
    return client;
}

int registry_apply_add_client(struct registry *registry, const Fleet__ClientCertificate *command,
                              const ProtobufCBinaryData *request_id, uint64_t wall_ms)
{
    struct registry_client *client;

    if (!registry_is_secure(registry))
        return registry_refuse(registry, -EINVAL, "%s",
                               "the cluster is insecure: nobody needs a certificate");
    if (check(command) < 0)
        return registry_refuse(registry, -EINVAL, "%s", "the client's certificate makes no sense");
    if (find(registry, command->serial) != NULL)
        return registry_refuse(registry, -EEXIST, "a certificate %s exists already", command->serial);
    prune(registry, wall_ms);
    if (HASH_COUNT(registry->clients) >= CLIENTS_MAX)
        return registry_refuse(
            registry, -E2BIG, "there are %u valid certificates of clients already: revoke some", CLIENTS_MAX);
    client = add(registry, command);
    client->issued_wall_ms = wall_ms;
    if (request_id->len == REQUEST_ID_SIZE)
        memcpy(client->request_id, request_id->data, REQUEST_ID_SIZE);
    registry->version++;
    return 0;
}

/* A serial number names one certificate, a name all that this client has. */
int registry_apply_revoke_client(struct registry *registry, const Fleet__RevokeClient *command)
{
    struct registry_client *client = find(registry, command->which);
    bool any = client != NULL;

    if (client != NULL) {
        client->revoked = true;
    } else {
        for (client = registry->clients; client != NULL; client = client->hh.next)
            if (streq(client->name, command->which))
                any = client->revoked = true;
    }
    if (!any)
        return registry_refuse(registry, -ENOENT, "no certificate of a client has the serial or the name %s",
                               command->which);
    registry->version++;
    return 0;
}

const struct registry_client *registry_client(const struct registry *registry, const char *serial)
{
    return find(registry, serial);
}

const struct registry_client *registry_client_of_request(const struct registry *registry,
                                                         const uint8_t request_id[REQUEST_ID_SIZE])
{
    const struct registry_client *client = registry->clients;

    while (client != NULL && memcmp(client->request_id, request_id, REQUEST_ID_SIZE) != 0)
        client = client->hh.next;
    return client;
}

const struct registry_client *registry_clients(const struct registry *registry)
{
    return registry->clients;
}

/* ---- snapshots ---- */

void registry_client_message(const struct registry_client *client, Fleet__ClientCertificate *ret)
{
    fleet__client_certificate__init(ret);
    ret->serial = (char *)client->serial;
    ret->name = (char *)client->name;
    ret->role = client->role;
    ret->expires_wall_ms = client->expires_wall_ms;
    ret->issued_wall_ms = client->issued_wall_ms;
    ret->revoked = client->revoked;
    ret->request_id = (ProtobufCBinaryData){.len = REQUEST_ID_SIZE, .data = (uint8_t *)client->request_id};
    ret->certificate = (ProtobufCBinaryData){.len = client->certificate_size, .data = client->certificate};
}

int registry_restore_client(struct registry *registry, const Fleet__ClientCertificate *message,
                            struct err *err)
{
    struct registry_client *client;

    if (check(message) < 0 || message->request_id.len != REQUEST_ID_SIZE ||
        find(registry, message->serial) != NULL)
        return err_set(err, -EBADMSG, "a client's certificate of the snapshot makes no sense");
    client = add(registry, message);
    client->issued_wall_ms = message->issued_wall_ms;
    client->revoked = message->revoked;
    memcpy(client->request_id, message->request_id.data, REQUEST_ID_SIZE);
    return 0;
}

void registry_clients_clear(struct registry *registry)
{
    while (registry->clients != NULL)
        forget(registry, registry->clients);
}
