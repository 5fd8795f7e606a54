/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/registry_security.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "raftstore/registry_private.h"

/* ---- authority ---- */

static void wipe(uint8_t *bytes, size_t size)
{
    if (bytes != NULL)
        explicit_bzero(bytes, size);
    free(bytes);
}

void registry_authority_done(struct registry_authority *authority)
{
    free(authority->certificate);
    free(authority->cross);
    wipe(authority->private_key, authority->private_key_size);
    *authority = (struct registry_authority){0};
}

static void forget_private_key(struct registry_authority *authority)
{
    wipe(authority->private_key, authority->private_key_size);
    authority->private_key = NULL;
    authority->private_key_size = 0;
}

static void set_bytes(uint8_t **to, size_t *to_size, const ProtobufCBinaryData *from)
{
    *to = from->len > 0 ? (uint8_t *)xmemdup(from->data, from->len) : NULL;
    *to_size = from->len;
}

int registry_set_authority(struct registry_authority *authority, const Fleet__Authority *message)
{
    struct sha256_ctx ctx;

    if (message == NULL || message->certificate.len == 0 || message->certificate.len > AUTHORITY_MAX ||
        message->private_key.len > AUTHORITY_MAX || message->cross.len > AUTHORITY_MAX)
        return -EINVAL;
    registry_authority_done(authority);
    set_bytes(&authority->certificate, &authority->certificate_size, &message->certificate);
    set_bytes(&authority->private_key, &authority->private_key_size, &message->private_key);
    set_bytes(&authority->cross, &authority->cross_size, &message->cross);
    sha256_init(&ctx);
    sha256_update(&ctx, authority->certificate_size, authority->certificate);
    sha256_digest(&ctx, FINGERPRINT_SIZE, authority->fingerprint);
    return 0;
}

const struct registry_authorities *registry_authorities(const struct registry *registry)
{
    return &registry->authorities;
}

enum registry_rotation registry_rotation(const struct registry_authorities *authorities)
{
    if (authorities->next.certificate != NULL)
        return ROTATION_SPREADING;
    return authorities->old_trusted ? ROTATION_REISSUING : ROTATION_STEADY;
}

bool registry_is_secure(const struct registry *registry)
{
    return registry->authorities.issuing.certificate != NULL;
}

const struct registry_authority *registry_pinned_authority(const struct registry *registry)
{
    const struct registry_authorities *authorities = &registry->authorities;

    /* Who has no new certificate yet cannot prove the new authority; who has one can prove both. */
    return authorities->old_trusted ? &authorities->old : &authorities->issuing;
}

static int begin_rotation(struct registry *registry, const Fleet__Authority *authority)
{
    struct registry_authorities *authorities = &registry->authorities;

    if (registry_rotation(authorities) != ROTATION_STEADY)
        return registry_refuse(registry, -EEXIST, "%s", "the authority is being rotated already");
    if (authority == NULL || authority->private_key.len == 0 || authority->cross.len == 0 ||
        registry_set_authority(&authorities->next, authority) < 0)
        return registry_refuse(registry, -EINVAL, "%s", "the new authority makes no sense");
    return 0;
}

/* Tokens whose authority nobody can prove any more let nobody in. */
static void drop_unprovable_tokens(struct registry *registry)
{
    const struct registry_authorities *authorities = &registry->authorities;
    struct registry_join_token *token, *next;

    HASH_ITER (hh, registry->join_tokens, token, next)
        if (memcmp(token->authority, authorities->issuing.fingerprint, FINGERPRINT_SIZE) != 0 &&
            memcmp(token->authority, authorities->old.fingerprint, FINGERPRINT_SIZE) != 0) {
            HASH_DEL(registry->join_tokens, token);
            free(token);
        }
}

static void issue(struct registry *registry)
{
    struct registry_authorities *authorities = &registry->authorities;

    registry_authority_done(&authorities->old);
    authorities->old = authorities->issuing;
    forget_private_key(&authorities->old);
    authorities->issuing = authorities->next;
    authorities->next = (struct registry_authority){0};
    authorities->old_trusted = true;
    drop_unprovable_tokens(registry);
}

int registry_apply_rotate_authority(struct registry *registry, const Fleet__RotateAuthority *command,
                                    uint64_t wall_ms)
{
    struct registry_authorities *authorities = &registry->authorities;
    enum registry_rotation now = registry_rotation(authorities);
    int r = 0;

    if (!registry_is_secure(registry))
        return registry_refuse(registry, -EINVAL, "%s", "the cluster is insecure: it has no authority");
    switch (command->step) {
    case FLEET__ROTATION_STEP__ROTATION_STEP_BEGIN: r = begin_rotation(registry, command->authority); break;
    case FLEET__ROTATION_STEP__ROTATION_STEP_ISSUE:
        if (now != ROTATION_SPREADING)
            return registry_refuse(registry, -ESTALE, "%s", "there is no new authority that could issue");
        issue(registry);
        break;
    case FLEET__ROTATION_STEP__ROTATION_STEP_FINISH:
        if (now != ROTATION_REISSUING)
            return registry_refuse(registry, -ESTALE, "%s", "there is no old authority to forget");
        authorities->old_trusted = false;
        break;
    case FLEET__ROTATION_STEP__ROTATION_STEP_CANCEL:
        if (now != ROTATION_SPREADING)
            return registry_refuse(registry, -ESTALE, "%s",
                                   now == ROTATION_STEADY ? "the authority is not being rotated"
                                                          : "the new authority issues certificates already: "
                                                            "the rotation cannot be cancelled any more");
        registry_authority_done(&authorities->next);
        break;
    default:
        return registry_refuse(registry, -ENOTSUP, "%s",
                               "this version does not know that step of a rotation");
    }
    if (r < 0)
        return r;
    registry->version++;
    authorities->since_wall_ms = wall_ms;
    registry->changes.machines = true;
    return 0;
}

/* ---- join tokens ---- */

static struct registry_join_token *find_token(const struct registry *registry, const char *id)
{
    struct registry_join_token *token;

    HASH_FIND_STR(registry->join_tokens, id, token);
    return token;
}

static bool is_spent(const struct registry_join_token *token, uint64_t wall_ms)
{
    return token->revoked || wall_ms >= token->expires_wall_ms ||
           (token->uses != 0 && token->used >= token->uses);
}

/* Those that have long expired; and if there is no room, the oldest of those that let nobody in any more. */
static void prune_tokens(struct registry *registry, uint64_t wall_ms)
{
    struct registry_join_token *token, *next;

    HASH_ITER (hh, registry->join_tokens, token, next) {
        bool full = HASH_COUNT(registry->join_tokens) >= JOIN_TOKENS_MAX;

        if ((wall_ms > token->expires_wall_ms && wall_ms - token->expires_wall_ms > JOIN_TOKEN_KEPT_MS) ||
            (full && is_spent(token, wall_ms))) {
            HASH_DEL(registry->join_tokens, token);
            free(token);
        }
    }
}

struct registry_join_token *registry_add_join_token(struct registry *registry, const char *id)
{
    struct registry_join_token *token = NEW0(struct registry_join_token);

    assert(strlen(id) < sizeof token->id && find_token(registry, id) == NULL);
    strcpy(token->id, id);
    HASH_ADD_STR(registry->join_tokens, id, token);
    return token;
}

int registry_apply_add_join_token(struct registry *registry, const Fleet__AddJoinToken *command,
                                  uint64_t wall_ms)
{
    struct registry_join_token *token;

    if (!registry_is_secure(registry))
        return registry_refuse(registry, -EINVAL, "%s",
                               "the cluster is insecure: hosts join it without a token");
    if (command->digest.len != FINGERPRINT_SIZE || strlen(command->id) != JOIN_TOKEN_ID_BYTES - 1)
        return registry_refuse(registry, -EINVAL, "%s", "the join token makes no sense");
    if (find_token(registry, command->id) != NULL)
        return registry_refuse(registry, -EEXIST, "join token %s exists already", command->id);
    prune_tokens(registry, wall_ms);
    if (HASH_COUNT(registry->join_tokens) >= JOIN_TOKENS_MAX)
        return registry_refuse(registry, -E2BIG, "there are %u valid join tokens already: revoke some",
                               JOIN_TOKENS_MAX);
    token = registry_add_join_token(registry, command->id);
    memcpy(token->digest, command->digest.data, sizeof token->digest);
    token->made_wall_ms = wall_ms;
    token->expires_wall_ms = command->expires_wall_ms;
    token->uses = command->uses;
    memcpy(token->authority, registry_pinned_authority(registry)->fingerprint, sizeof token->authority);
    registry->version++;
    return 0;
}

int registry_apply_revoke_join_token(struct registry *registry, const Fleet__RevokeJoinToken *command,
                                     uint64_t wall_ms)
{
    struct registry_join_token *token = find_token(registry, command->id);

    if (token == NULL)
        return registry_refuse(registry, -ENOENT, "join token %s does not exist", command->id);
    token->revoked = true;
    prune_tokens(registry, wall_ms);
    registry->version++;
    return 0;
}

const struct registry_join_token *registry_join_token(const struct registry *registry, const char *id)
{
    return find_token(registry, id);
}

const struct registry_join_token *registry_join_tokens(const struct registry *registry)
{
    return registry->join_tokens;
}

int registry_check_join_token(const struct registry *registry, const char *id, const char *machine_id,
                              uint64_t server_id, uint64_t wall_ms, struct err *err)
{
    const struct registry_join_token *token = find_token(registry, id);
    const struct registry_machine *machine = registry_machine(registry, machine_id);
    const struct registry_removed *removed = registry_removed(registry, machine_id);
    bool again = machine != NULL && machine->registered && machine->server_id == server_id &&
                 streq(machine->join_token, id);

    if (token == NULL)
        return err_set(err, -EACCES, "the join token is not known here");
    if (token->revoked)
        return err_set(err, -EACCES, "the join token %s was revoked", id);
    if (wall_ms >= token->expires_wall_ms)
        return err_set(err, -EACCES, "the join token %s expired %" PRIu64 " s ago", id,
                       (wall_ms - token->expires_wall_ms) / 1000);
    if (removed != NULL && token->made_wall_ms <= removed->wall_ms)
        return err_set(err, -EACCES,
                       "machine %s was removed after the join token %s was made: it needs a new one",
                       machine_id, id);
    if (token->uses != 0 && token->used >= token->uses && !again)
        return err_set(err, -EACCES, "the join token %s is used up: it was for %u machine%s", id, token->uses,
                       token->uses == 1 ? "" : "s");
    return 0;
}

/* ---- machines ---- */

const struct registry_removed *registry_removed(const struct registry *registry, const char *machine_id)
{
    struct registry_removed *removed;

    HASH_FIND_STR(registry->removed, machine_id, removed);
    return removed;
}

const struct registry_removed *registry_removed_server(const struct registry *registry, uint64_t server_id)
{
    for (const struct registry_removed *removed = registry->removed; removed != NULL;
         removed = removed->hh.next)
        if (removed->server_id == server_id)
            return removed;
    return NULL;
}

static void removed_forget(struct registry *registry, struct registry_removed *removed)
{
    HASH_DEL(registry->removed, removed);
    free(removed->hostname);
    free(removed->boot_id);
    free(removed);
}

void registry_remember_removed(struct registry *registry, const struct registry_removed *what)
{
    struct registry_removed *removed;

    HASH_FIND_STR(registry->removed, what->machine_id, removed);
    if (removed != NULL)
        removed_forget(registry, removed);
    removed = xmemdup(what, sizeof *what);
    removed->hostname = xstrdup(what->hostname);
    removed->boot_id = xstrdup(what->boot_id);
    HASH_ADD_STR(registry->removed, machine_id, removed);
    if (HASH_COUNT(registry->removed) > REMOVED_REMEMBERED_MAX)
        removed_forget(registry, registry->removed);
}

int registry_check_join(struct registry *registry, const Fleet__RegisterMachine *command, uint64_t wall_ms)
{
    struct err err = {0};

    if (!command->joins) {
        /* What a host said of itself just before it was removed must not bring it back. */
        if (registry_removed(registry, command->machine_id) != NULL)
            return registry_refuse(registry, -EACCES, "machine %s was removed from the cluster",
                                   command->machine_id);
        return 0;
    }
    if (command->join_token[0] != '\0' &&
        registry_check_join_token(registry, command->join_token, command->machine_id, command->server_id,
                                  wall_ms, &err) < 0)
        return registry_refuse(registry, -EACCES, "%s", err.text);
    if (!registry_key_fits(registry_machine(registry, command->machine_id), command->server_id,
                           command->key.data, command->key.len))
        return registry_refuse(registry, -EACCES, "machine %s is a member with another key",
                               command->machine_id);
    return 0;
}

bool registry_has_key(const struct registry_machine *machine)
{
    static const uint8_t unknown[FINGERPRINT_SIZE];

    return memcmp(machine->key, unknown, FINGERPRINT_SIZE) != 0;
}

bool registry_key_fits(const struct registry_machine *machine, uint64_t server_id, const uint8_t *key,
                       size_t size)
{
    if (machine == NULL || !machine->registered || machine->server_id != server_id ||
        !registry_has_key(machine))
        return true;
    return size == FINGERPRINT_SIZE && memcmp(machine->key, key, FINGERPRINT_SIZE) == 0;
}

/* A key is a machine's for as long as it has its server id. */
static void note_key(struct registry_machine *machine, const Fleet__RegisterMachine *command)
{
    if (machine->server_id != command->server_id)
        memset(machine->key, 0, FINGERPRINT_SIZE);
    if (command->key.len == FINGERPRINT_SIZE && !registry_has_key(machine))
        memcpy(machine->key, command->key.data, FINGERPRINT_SIZE);
}

/* After the check, and before the machine is what the command says. */
void registry_note_join(struct registry *registry, struct registry_machine *machine,
                        const Fleet__RegisterMachine *command)
{
    struct registry_join_token *token = find_token(registry, command->join_token);
    struct registry_removed *removed;

    note_key(machine, command);
    if (!command->joins)
        return;
    HASH_FIND_STR(registry->removed, machine->id, removed);
    if (removed != NULL)
        removed_forget(registry, removed);
    if (token == NULL)
        return;
    if (machine->server_id != command->server_id || !streq(machine->join_token, token->id))
        token->used++;
    memcpy(machine->join_token, token->id, sizeof machine->join_token);
}

void registry_forget_credentials(struct registry_machine *machine)
{
    machine->join_token[0] = '\0';
    machine->root_count = 0;
    memset(machine->certified_by, 0, sizeof machine->certified_by);
    memset(machine->key, 0, sizeof machine->key);
}

void registry_set_credentials(struct registry_machine *machine, const Fleet__RegisterMachine *message)
{
    machine->root_count = 0;
    for (size_t i = 0; i < message->n_roots && machine->root_count < ROOTS_MAX; i++)
        if (message->roots[i].len == FINGERPRINT_SIZE)
            memcpy(machine->roots[machine->root_count++], message->roots[i].data, FINGERPRINT_SIZE);
    memset(machine->certified_by, 0, sizeof machine->certified_by);
    if (message->certified_by.len == FINGERPRINT_SIZE)
        memcpy(machine->certified_by, message->certified_by.data, FINGERPRINT_SIZE);
}

bool registry_machine_trusts(const struct registry_machine *machine,
                             const uint8_t fingerprint[FINGERPRINT_SIZE])
{
    for (size_t i = 0; i < machine->root_count; i++)
        if (memcmp(machine->roots[i], fingerprint, FINGERPRINT_SIZE) == 0)
            return true;
    return false;
}

/* ---- life ---- */

void registry_security_clear(struct registry *registry)
{
    struct registry_join_token *token, *next;

    registry_authority_done(&registry->authorities.issuing);
    registry_authority_done(&registry->authorities.next);
    registry_authority_done(&registry->authorities.old);
    registry->authorities = (struct registry_authorities){0};
    HASH_ITER (hh, registry->join_tokens, token, next) {
        HASH_DEL(registry->join_tokens, token);
        free(token);
    }
    while (registry->removed != NULL)
        removed_forget(registry, registry->removed);
}
