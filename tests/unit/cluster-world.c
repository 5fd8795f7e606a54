/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/cluster-world.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

void cluster_apply(struct registry *registry, Fleet__Command *command, uint64_t wall_ms)
{
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size;

    command->format = COMMAND_FORMAT;
    command->wall_ms = wall_ms;
    assert_int_equal(command_encode(command, &bytes, &size), 0);
    assert_string_equal(registry_apply(registry, bytes, size)->text, "");
}

ProtobufCBinaryData cluster_bytes(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
}

struct registry *cluster_new(const char *certificate)
{
    struct registry *registry = registry_new();
    Fleet__CreateCluster body = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    if (certificate != NULL) {
        authority.certificate = cluster_bytes(certificate);
        authority.private_key = cluster_bytes("key");
        body.authority = &authority;
    }
    body.cluster_id = cluster_bytes("0123456789abcdef");
    body.level = FEATURE_LEVEL_SECURE;
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &body;
    cluster_apply(registry, &command, 0);
    return registry;
}
