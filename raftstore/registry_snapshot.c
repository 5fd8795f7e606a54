/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "raftstore/registry.h"
#include "raftstore/registry_private.h"

/* ---- taking ---- */

static void add_record(struct strbuf *to, const Fleet__SnapshotRecord *record)
{
    size_t size;
    _cleanup_(freep) uint8_t *bytes = registry_pack_record(record, &size);

    strbuf_add_bytes(to, bytes, size);
}

static void add_unit(struct strbuf *to, const struct registry_unit *unit)
{
    Fleet__SnapshotUnit message = FLEET__SNAPSHOT_UNIT__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    message.name = unit->name;
    message.hash = (char *)unit->content->hash;
    message.desired = registry_desired_of(unit->desired);
    message.target = (char *)unit->target;
    message.former_targets = unit->former.items;
    message.n_former_targets = unit->former.count;
    message.handover = unit->handover;
    message.generation = unit->generation;
    message.token = unit->token;
    message.restart = unit->restart;
    message.stop_ms = unit->stop_ms;
    message.leased = unit->leased;
    message.leased_since = unit->leased_since;
    message.anywhere = unit->anywhere;
    message.reason = unit->reason;
    message.placed_wall_ms = unit->placed_wall_ms;
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_UNIT;
    record.unit = &message;
    add_record(to, &record);
}

static void add_machine(struct strbuf *to, const struct registry_machine *machine)
{
    static const Fleet__Availability availability[] = {
        [MACHINE_ACTIVE] = FLEET__AVAILABILITY__AVAILABILITY_ACTIVE,
        [MACHINE_CORDONED] = FLEET__AVAILABILITY__AVAILABILITY_CORDONED,
        [MACHINE_DRAINING] = FLEET__AVAILABILITY__AVAILABILITY_DRAINING,
    };
    static const uint8_t no_fingerprint[FINGERPRINT_SIZE];
    static const Fleet__VoteWish votes[] = {
        [VOTE_AUTOMATIC] = FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED,
        [VOTE_ALWAYS] = FLEET__VOTE_WISH__VOTE_WISH_ALWAYS,
        [VOTE_NEVER] = FLEET__VOTE_WISH__VOTE_WISH_NEVER,
    };
    Fleet__RegisterMachine registration = FLEET__REGISTER_MACHINE__INIT;
    Fleet__SnapshotMachine message = FLEET__SNAPSHOT_MACHINE__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;
    _cleanup_(freep) Fleet__Label *labels = xcalloc(machine->fixed_count, sizeof *labels);
    _cleanup_(freep) Fleet__Label **label_list = xcalloc(machine->fixed_count, sizeof *label_list);
    _cleanup_(freep) Fleet__MetadataChange *changes = xcalloc(machine->changed_count, sizeof *changes);
    _cleanup_(freep) Fleet__MetadataChange **change_list =
        xcalloc(machine->changed_count, sizeof *change_list);
    ProtobufCBinaryData roots[ROOTS_MAX];

    for (size_t i = 0; i < machine->root_count; i++)
        roots[i] = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)machine->roots[i]};
    for (size_t i = 0; i < machine->fixed_count; i++) {
        fleet__label__init(&labels[i]);
        labels[i].key = machine->fixed[i].key;
        labels[i].value = machine->fixed[i].value;
        label_list[i] = &labels[i];
    }
    for (size_t i = 0; i < machine->changed_count; i++) {
        fleet__metadata_change__init(&changes[i]);
        changes[i].key = machine->changed[i].key;
        if (machine->changed[i].value != NULL)
            changes[i].value = machine->changed[i].value;
        else
            changes[i].remove = true;
        change_list[i] = &changes[i];
    }
    registration.machine_id = (char *)machine->id;
    registration.hostname = machine->hostname;
    registration.public_ip = machine->public_ip;
    registration.cluster_address = machine->cluster_address;
    registration.boot_id = machine->boot_id;
    registration.version = machine->version;
    registration.server_id = machine->server_id;
    registration.disable_engine = machine->disable_engine;
    registration.level = machine->level;
    registration.no_store = machine->no_store;
    registration.metadata = label_list;
    registration.n_metadata = machine->fixed_count;
    registration.roots = roots;
    registration.n_roots = machine->root_count;
    if (registry_has_key(machine))
        registration.key = (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)machine->key};
    if (memcmp(machine->certified_by, no_fingerprint, FINGERPRINT_SIZE) != 0)
        registration.certified_by =
            (ProtobufCBinaryData){.len = FINGERPRINT_SIZE, .data = (uint8_t *)machine->certified_by};
    message.machine = &registration;
    message.join_token = (char *)machine->join_token;
    message.registered = machine->registered;
    message.changed_metadata = change_list;
    message.n_changed_metadata = machine->changed_count;
    message.joined_wall_ms = machine->joined_wall_ms;
    message.lost = machine->lost;
    message.lost_wall_ms = machine->lost_wall_ms;
    message.lost_confirmed = machine->lost_confirmed;
    message.availability = availability[machine->availability];
    message.daemon_stopped = machine->daemon_stopped;
    message.vote = votes[machine->vote];
    message.leaving = machine->leaving;
    message.awaited = machine->awaited;
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_MACHINE;
    record.machine = &message;
    add_record(to, &record);
}

static void add_request(struct strbuf *to, struct request *request)
{
    Fleet__SnapshotRequest message = FLEET__SNAPSHOT_REQUEST__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    message.request_id = (ProtobufCBinaryData){.len = sizeof request->id, .data = request->id};
    message.status = request->result.status;
    message.version = request->result.version;
    message.text = request->result.text;
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_REQUEST;
    record.request = &message;
    add_record(to, &record);
}

static void add_departed(struct strbuf *to, const struct departed *departed)
{
    Fleet__SnapshotDeparted message = FLEET__SNAPSHOT_DEPARTED__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    message.name = departed->name;
    message.machines = departed->machines.items;
    message.n_machines = departed->machines.count;
    message.stop_ms = departed->stop_ms;
    message.leased = departed->leased;
    message.leased_since = departed->leased_since;
    message.anywhere = departed->anywhere;
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_DEPARTED;
    record.departed = &message;
    add_record(to, &record);
}

static Fleet__Authority authority_message(const struct registry_authority *authority)
{
    Fleet__Authority message = FLEET__AUTHORITY__INIT;

    message.certificate =
        (ProtobufCBinaryData){.len = authority->certificate_size, .data = authority->certificate};
    message.private_key =
        (ProtobufCBinaryData){.len = authority->private_key_size, .data = authority->private_key};
    message.cross = (ProtobufCBinaryData){.len = authority->cross_size, .data = authority->cross};
    return message;
}

static void add_join_token(struct strbuf *to, struct registry_join_token *token)
{
    Fleet__SnapshotJoinToken message = FLEET__SNAPSHOT_JOIN_TOKEN__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    message.id = token->id;
    message.digest = (ProtobufCBinaryData){.len = sizeof token->digest, .data = token->digest};
    message.made_wall_ms = token->made_wall_ms;
    message.expires_wall_ms = token->expires_wall_ms;
    message.uses = token->uses;
    message.used = token->used;
    message.revoked = token->revoked;
    message.authority = (ProtobufCBinaryData){.len = sizeof token->authority, .data = token->authority};
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_JOIN_TOKEN;
    record.join_token = &message;
    add_record(to, &record);
}

static void add_removed(struct strbuf *to, struct registry_removed *removed)
{
    Fleet__SnapshotRemoved message = FLEET__SNAPSHOT_REMOVED__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    message.machine_id = removed->machine_id;
    message.hostname = removed->hostname;
    message.wall_ms = removed->wall_ms;
    message.server_id = removed->server_id;
    message.boot_id = removed->boot_id;
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_REMOVED;
    record.removed = &message;
    add_record(to, &record);
}

static void add_client(struct strbuf *to, const struct registry_client *client)
{
    Fleet__ClientCertificate message;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;

    registry_client_message(client, &message);
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_CLIENT;
    record.client = &message;
    add_record(to, &record);
}

/* Of the header, without its own checksum, and all that stands behind the contents. */
static void digest_all(Fleet__SnapshotHeader *header, const void *tail, size_t tail_size,
                       uint8_t ret[SHA256_DIGEST_SIZE])
{
    const ProtobufCBinaryData sum = header->sha256;
    size_t size;
    _cleanup_(freep) uint8_t *bytes = NULL;
    struct sha256_ctx ctx;

    header->sha256 = (ProtobufCBinaryData){0};
    size = fleet__snapshot_header__get_packed_size(header);
    bytes = xmalloc(size + 1);
    fleet__snapshot_header__pack(header, bytes);
    header->sha256 = sum;

    sha256_init(&ctx);
    sha256_update(&ctx, size, bytes);
    sha256_update(&ctx, tail_size, tail);
    sha256_digest(&ctx, SHA256_DIGEST_SIZE, ret);
}

/* All but the voters; the caller owns the array, and with it what it points to. */
static Fleet__Setting **make_settings(const struct registry *registry, size_t *ret_count)
{
    size_t count = registry->setting_count, used = 0;
    Fleet__Setting **list = xmalloc(count * (sizeof *list + sizeof **list) + 1);
    Fleet__Setting *settings = (Fleet__Setting *)(list + count);

    for (size_t i = 0; i < count; i++) {
        if (streq(registry->settings[i].name, settings_row(SETTING_VOTERS)->name))
            continue;
        list[used] = &settings[used];
        fleet__setting__init(list[used]);
        list[used]->name = registry->settings[i].name;
        list[used++]->value = registry->settings[i].value;
    }
    *ret_count = used;
    return list;
}

/* 0: nobody has said how many. */
static uint32_t set_voters(const struct registry *registry)
{
    if (registry_setting(registry, settings_row(SETTING_VOTERS)->name) == NULL)
        return 0;
    return (uint32_t)registry_setting_number(registry, SETTING_VOTERS);
}

static uint8_t *make_header(const struct registry *registry, bool for_backup, const struct strbuf *tail,
                            size_t *ret_size)
{
    _cleanup_(freep) Fleet__Setting **settings = NULL;
    const struct registry_authorities *known = &registry->authorities;
    Fleet__SnapshotHeader message = FLEET__SNAPSHOT_HEADER__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;
    Fleet__SnapshotAuthorities authorities = FLEET__SNAPSHOT_AUTHORITIES__INIT;
    Fleet__Authority issuing = authority_message(&known->issuing), next = authority_message(&known->next),
                     old = authority_message(&known->old);
    uint8_t sum[SHA256_DIGEST_SIZE];

    message.format = registry->level > 0 ? SNAPSHOT_FORMAT : 1;
    message.level = registry->level;
    message.cluster_id =
        (ProtobufCBinaryData){.len = sizeof registry->cluster_id, .data = (uint8_t *)registry->cluster_id};
    message.version = registry->version;
    message.voters = set_voters(registry);
    message.settings = settings = make_settings(registry, &message.n_settings);
    message.lease_ms = registry->lease_ms;
    message.recoveries = registry->history.recoveries;
    message.history = history_id(&registry->history);
    message.written_by = (char *)PACKAGE_VERSION;
    message.contents = HASH_COUNT(registry->contents);
    message.units = HASH_COUNT(registry->units);
    message.machines = HASH_COUNT(registry->machines);
    message.requests = for_backup ? 0 : HASH_COUNT(registry->requests);
    message.departed = HASH_COUNT(registry->departed);
    message.join_tokens = for_backup ? 0 : HASH_COUNT(registry->join_tokens);
    message.removed = for_backup ? 0 : HASH_COUNT(registry->removed);
    message.clients = for_backup ? 0 : HASH_COUNT(registry->clients);
    authorities.issuing = &issuing;
    authorities.next = known->next.certificate != NULL ? &next : NULL;
    authorities.old = known->old.certificate != NULL ? &old : NULL;
    authorities.old_trusted = known->old_trusted;
    authorities.since_wall_ms = known->since_wall_ms;
    message.authorities = registry_is_secure(registry) && !for_backup ? &authorities : NULL;
    digest_all(&message, tail->text, tail->size, sum);
    message.sha256 = (ProtobufCBinaryData){.len = sizeof sum, .data = sum};
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_HEADER;
    record.header = &message;
    return registry_pack_record(&record, ret_size);
}

static void add_piece(struct registry_snapshot *snapshot, const void *base, size_t size)
{
    GROW(snapshot->pieces, snapshot->capacity, snapshot->count + 1);
    snapshot->pieces[snapshot->count++] = (struct registry_piece){.base = base, .size = size};
}

/* What a backup is for stands in docs/RECOVERY.md: whatever gives power over this cluster (keys, secrets) is
 * left out of it, and comes here behind 'for_backup'. */
static struct registry_snapshot *snapshot_take(struct registry *registry, bool for_backup)
{
    struct registry_snapshot *snapshot = NEW0(struct registry_snapshot);
    struct strbuf tail = {0};
    size_t head_size, tail_size;

    for (struct registry_unit *unit = registry->units; unit != NULL; unit = unit->hh.next)
        add_unit(&tail, unit);
    for (struct registry_machine *machine = registry->machines; machine != NULL; machine = machine->hh.next)
        add_machine(&tail, machine);
    for (struct request *request = registry->requests; request != NULL && !for_backup;
         request = request->hh.next)
        add_request(&tail, request);
    for (struct departed *departed = registry->departed; departed != NULL; departed = departed->hh.next)
        add_departed(&tail, departed);
    for (struct registry_join_token *token = registry->join_tokens; token != NULL && !for_backup;
         token = token->hh.next)
        add_join_token(&tail, token);
    for (struct registry_removed *removed = registry->removed; removed != NULL && !for_backup;
         removed = removed->hh.next)
        add_removed(&tail, removed);
    for (struct registry_client *client = registry->clients; client != NULL && !for_backup;
         client = client->hh.next)
        add_client(&tail, client);
    tail_size = tail.size;
    snapshot->head = make_header(registry, for_backup, &tail, &head_size);
    snapshot->tail = (uint8_t *)strbuf_take(&tail);

    add_piece(snapshot, snapshot->head, head_size);
    snapshot->contents = xcalloc(HASH_COUNT(registry->contents), sizeof *snapshot->contents);
    for (struct registry_content *content = registry->contents; content != NULL; content = content->hh.next) {
        content->references++;
        snapshot->contents[snapshot->content_count++] = content;
        add_piece(snapshot, content->record, content->record_size);
    }
    if (tail_size > 0)
        add_piece(snapshot, snapshot->tail, tail_size);
    return snapshot;
}

struct registry_snapshot *registry_snapshot_new(struct registry *registry)
{
    return snapshot_take(registry, false);
}

struct registry_snapshot *registry_snapshot_for_backup(struct registry *registry)
{
    return snapshot_take(registry, true);
}

uint64_t registry_snapshot_size(const struct registry_snapshot *snapshot)
{
    uint64_t size = 0;

    for (size_t i = 0; i < snapshot->count; i++)
        size += snapshot->pieces[i].size;
    return size;
}

void registry_snapshot_free(struct registry *registry, struct registry_snapshot *snapshot)
{
    if (snapshot == NULL)
        return;
    for (size_t i = 0; i < snapshot->content_count; i++)
        registry_content_put(registry, snapshot->contents[i]);
    free(snapshot->contents);
    free(snapshot->pieces);
    free(snapshot->head);
    free(snapshot->tail);
    free(snapshot);
}

/* ---- restoring ---- */

struct reader {
    const uint8_t *at, *end;
    struct err *err;
};

static Fleet__SnapshotRecord *read_record(struct reader *reader, Fleet__SnapshotRecord__RecordCase expected)
{
    Fleet__SnapshotRecord *record;
    size_t size;

    if (reader->end - reader->at < 4 ||
        (size = get_be32(reader->at)) > (size_t)(reader->end - reader->at - 4)) {
        err_set(reader->err, -EBADMSG, "the snapshot ends too early");
        return NULL;
    }
    record = fleet__snapshot_record__unpack(NULL, size, reader->at + 4);
    if (record == NULL || record->record_case != expected) {
        err_set(reader->err, -EBADMSG, "a record of the snapshot does not decode");
        if (record != NULL)
            fleet__snapshot_record__free_unpacked(record, NULL);
        return NULL;
    }
    reader->at += 4 + size;
    return record;
}

static int restore_contents(struct registry *registry, struct reader *reader, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        Fleet__SnapshotRecord *record = read_record(reader, FLEET__SNAPSHOT_RECORD__RECORD_CONTENT);
        struct registry_content *content;

        if (record == NULL)
            return -EBADMSG;
        /* This reference is given back when all units are there: a content without a unit then goes away. */
        content = registry_content_get(registry, record->content->text.data, record->content->text.len);
        fleet__snapshot_record__free_unpacked(record, NULL);
        if (content->references > 1) {
            registry_content_put(registry, content);
            return err_set(reader->err, -EBADMSG, "a content is twice in the snapshot: it is damaged");
        }
    }
    return 0;
}

static int restore_unit(struct registry *registry, const Fleet__SnapshotUnit *message, struct err *err)
{
    struct registry_content *content;
    struct registry_unit *unit;

    HASH_FIND_STR(registry->contents, message->hash, content);
    if (content == NULL || registry_unit(registry, message->name) != NULL ||
        strlen(message->target) >= MACHINE_ID_SIZE)
        return err_set(err, -EBADMSG,
                       "unit %s of the snapshot makes no sense: its content is missing or damaged",
                       message->name);
    content->references++;
    unit = registry_unit_add(registry, message->name, content);
    unit->desired = registry_state_of(message->desired);
    strcpy(unit->target, message->target);
    for (size_t i = 0; i < message->n_former_targets; i++)
        strlist_add(&unit->former, message->former_targets[i]);
    unit->handover = message->handover;
    unit->generation = message->generation;
    unit->token = message->token;
    unit->restart = message->restart;
    unit->stop_ms = message->stop_ms;
    unit->leased = message->leased;
    unit->leased_since = message->leased_since;
    unit->anywhere = message->anywhere;
    unit->placed_wall_ms = message->placed_wall_ms;
    free(unit->reason);
    unit->reason = xstrdup(message->reason);
    return 0;
}

static int restore_machine(struct registry *registry, const Fleet__SnapshotMachine *message, struct err *err)
{
    struct registry_machine *machine;

    if (message->machine == NULL || strlen(message->machine->machine_id) >= MACHINE_ID_SIZE ||
        strlen(message->join_token) >= JOIN_TOKEN_ID_BYTES)
        return err_set(err, -EBADMSG, "a machine of the snapshot makes no sense");
    machine = registry_machine_get(registry, message->machine->machine_id);
    machine->registered = message->registered;
    strcpy(machine->join_token, message->join_token);
    machine->joined_wall_ms = message->joined_wall_ms;
    machine->lost = message->lost;
    machine->lost_wall_ms = message->lost_wall_ms;
    machine->lost_confirmed = message->lost_confirmed;
    machine->availability = registry_availability_of(message->availability);
    machine->daemon_stopped = message->daemon_stopped;
    machine->vote = registry_vote_of(message->vote);
    machine->leaving = message->leaving;
    machine->awaited = message->awaited;
    for (size_t i = 0; i < message->n_changed_metadata; i++) {
        Fleet__MetadataChange change = *message->changed_metadata[i];

        change.machine_id = message->machine->machine_id;
        registry_change_metadata(registry, &change);
    }
    registry_machine_set(machine, message->machine);
    if (message->machine->key.len == FINGERPRINT_SIZE)
        memcpy(machine->key, message->machine->key.data, FINGERPRINT_SIZE);
    return 0;
}

static int restore_request(struct registry *registry, const Fleet__SnapshotRequest *message, struct err *err)
{
    struct registry_result result = {
        .status = message->status, .version = message->version, .text = message->text};

    if (message->request_id.len != REQUEST_ID_SIZE)
        return err_set(err, -EBADMSG, "a request of the snapshot makes no sense");
    registry_request_remember(registry, message->request_id.data, &result);
    return 0;
}

static int restore_departed(struct registry *registry, const Fleet__SnapshotDeparted *message,
                            struct err *err)
{
    struct strlist machines = {0};
    struct departed *known, *departed;

    HASH_FIND_STR(registry->departed, message->name, known);
    if (known != NULL || registry_unit(registry, message->name) != NULL)
        return err_set(err, -EBADMSG, "unit %s of the snapshot is destroyed and is not", message->name);
    for (size_t i = 0; i < message->n_machines; i++)
        strlist_add(&machines, message->machines[i]);
    departed = registry_departed_remember(registry, message->name, &machines);
    departed->stop_ms = message->stop_ms;
    departed->leased = message->leased;
    departed->leased_since = message->leased_since;
    departed->anywhere = message->anywhere;
    return 0;
}

static int restore_join_token(struct registry *registry, const Fleet__SnapshotJoinToken *message,
                              struct err *err)
{
    struct registry_join_token *token;

    if (message->digest.len != FINGERPRINT_SIZE || message->authority.len != FINGERPRINT_SIZE ||
        HASH_COUNT(registry->join_tokens) >= JOIN_TOKENS_MAX ||
        strlen(message->id) != JOIN_TOKEN_ID_BYTES - 1 || registry_join_token(registry, message->id) != NULL)
        return err_set(err, -EBADMSG, "a join token of the snapshot makes no sense");
    token = registry_add_join_token(registry, message->id);
    memcpy(token->digest, message->digest.data, sizeof token->digest);
    memcpy(token->authority, message->authority.data, sizeof token->authority);
    token->made_wall_ms = message->made_wall_ms;
    token->expires_wall_ms = message->expires_wall_ms;
    token->uses = message->uses;
    token->used = message->used;
    token->revoked = message->revoked;
    return 0;
}

static int restore_removed(struct registry *registry, const Fleet__SnapshotRemoved *message, struct err *err)
{
    struct registry_removed removed = {.hostname = message->hostname,
                                       .boot_id = message->boot_id,
                                       .server_id = message->server_id,
                                       .wall_ms = message->wall_ms};

    if (message->machine_id[0] == '\0' || strlen(message->machine_id) >= MACHINE_ID_SIZE ||
        registry_removed(registry, message->machine_id) != NULL)
        return err_set(err, -EBADMSG, "a removed machine of the snapshot makes no sense");
    strcpy(removed.machine_id, message->machine_id);
    registry_remember_removed(registry, &removed);
    return 0;
}

static int restore_authorities(struct registry *registry, const Fleet__SnapshotAuthorities *message,
                               struct err *err)
{
    struct registry_authorities *authorities = &registry->authorities;

    if (message == NULL)
        return 0;
    if (registry_set_authority(&authorities->issuing, message->issuing) < 0 ||
        (message->next != NULL && registry_set_authority(&authorities->next, message->next) < 0) ||
        (message->old != NULL && registry_set_authority(&authorities->old, message->old) < 0) ||
        (message->old_trusted && (message->old == NULL || message->next != NULL)))
        return err_set(err, -EBADMSG, "the authority of the snapshot makes no sense");
    authorities->old_trusted = message->old_trusted;
    authorities->since_wall_ms = message->since_wall_ms;
    return 0;
}

static int restore_record(struct registry *registry, const Fleet__SnapshotRecord *record, struct err *err)
{
    switch (record->record_case) {
    case FLEET__SNAPSHOT_RECORD__RECORD_UNIT: return restore_unit(registry, record->unit, err);
    case FLEET__SNAPSHOT_RECORD__RECORD_MACHINE: return restore_machine(registry, record->machine, err);
    case FLEET__SNAPSHOT_RECORD__RECORD_DEPARTED: return restore_departed(registry, record->departed, err);
    case FLEET__SNAPSHOT_RECORD__RECORD_JOIN_TOKEN:
        return restore_join_token(registry, record->join_token, err);
    case FLEET__SNAPSHOT_RECORD__RECORD_REMOVED: return restore_removed(registry, record->removed, err);
    case FLEET__SNAPSHOT_RECORD__RECORD_CLIENT: return registry_restore_client(registry, record->client, err);
    default: return restore_request(registry, record->request, err);
    }
}

static int restore_records(struct registry *registry, struct reader *reader, uint64_t count,
                           Fleet__SnapshotRecord__RecordCase kind)
{
    for (uint64_t i = 0; i < count; i++) {
        Fleet__SnapshotRecord *record = read_record(reader, kind);
        int r;

        if (record == NULL)
            return -EBADMSG;
        r = restore_record(registry, record, reader->err);
        fleet__snapshot_record__free_unpacked(record, NULL);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_sum(Fleet__SnapshotHeader *header, const struct reader *reader, struct err *err)
{
    uint8_t sum[SHA256_DIGEST_SIZE];

    digest_all(header, reader->at, (size_t)(reader->end - reader->at), sum);
    if (header->sha256.len != sizeof sum || memcmp(sum, header->sha256.data, sizeof sum) != 0)
        return err_set(err, -EBADMSG, "the snapshot's checksum does not match: it is damaged");
    return 0;
}

static int restore_settings(struct registry *registry, const Fleet__SnapshotHeader *header, struct err *err)
{
    _cleanup_(freep) char *why = registry_settings_refusal(registry, header->settings, header->n_settings);

    if (why != NULL)
        return err_set(err, -EBADMSG, "the settings of the snapshot make no sense: %s", why);
    for (size_t i = 0; i < header->n_settings; i++)
        registry_setting_set(registry, header->settings[i]->name, header->settings[i]->value);
    registry_set_voters(registry, header->voters);
    return 0;
}

static int restore_all(struct registry *registry, Fleet__SnapshotHeader *header, struct reader *reader)
{
    int r;

    memcpy(registry->cluster_id, header->cluster_id.data, CLUSTER_ID_SIZE);
    registry->version = header->version;
    registry->level = header->level;
    registry->lease_ms = header->lease_ms;
    r = restore_settings(registry, header, reader->err);
    if (r >= 0)
        r = restore_contents(registry, reader, header->contents);
    if (r >= 0)
        r = check_sum(header, reader, reader->err);
    if (r >= 0)
        r = restore_records(registry, reader, header->units, FLEET__SNAPSHOT_RECORD__RECORD_UNIT);
    if (r >= 0)
        r = restore_records(registry, reader, header->machines, FLEET__SNAPSHOT_RECORD__RECORD_MACHINE);
    if (r >= 0)
        r = restore_records(registry, reader, header->requests, FLEET__SNAPSHOT_RECORD__RECORD_REQUEST);
    if (r >= 0)
        r = restore_records(registry, reader, header->departed, FLEET__SNAPSHOT_RECORD__RECORD_DEPARTED);
    if (r >= 0)
        r = restore_authorities(registry, header->authorities, reader->err);
    if (r >= 0)
        r = restore_records(registry, reader, header->join_tokens, FLEET__SNAPSHOT_RECORD__RECORD_JOIN_TOKEN);
    if (r >= 0)
        r = restore_records(registry, reader, header->removed, FLEET__SNAPSHOT_RECORD__RECORD_REMOVED);
    if (r >= 0)
        r = restore_records(registry, reader, header->clients, FLEET__SNAPSHOT_RECORD__RECORD_CLIENT);
    return r;
}

/* Gives back the references that restore_contents() took. */
static void release_contents(struct registry *registry)
{
    struct registry_content *content, *next;

    HASH_ITER (hh, registry->contents, content, next)
        registry_content_put(registry, content);
}

/* A format that this version does not know, and would have known had it written it itself: a wrong bit. */
static int check_format(const Fleet__SnapshotHeader *header, struct err *err)
{
    if (header->format > 0 && header->format <= SNAPSHOT_FORMAT) {
        if (header->level <= FEATURE_LEVEL)
            return 0;
        return err_set(err, -EPROTONOSUPPORT,
                       "the snapshot has feature level %u and was written by fleetd %s; this is "
                       "fleetd " PACKAGE_VERSION ", which knows level %u: install fleetd %s or later",
                       header->level, header->written_by, FEATURE_LEVEL, header->written_by);
    }
    if (header->format == 0 || header->written_by[0] == '\0' || streq(header->written_by, PACKAGE_VERSION))
        return err_set(err, -EBADMSG, "the snapshot's format, %u, makes no sense: it is damaged",
                       header->format);
    return err_set(err, -EPROTONOSUPPORT,
                   "the snapshot has format %u and was written by fleetd %s; this is fleetd " PACKAGE_VERSION
                   ", which knows format %u only: install fleetd %s or later",
                   header->format, header->written_by, SNAPSHOT_FORMAT, header->written_by);
}

int registry_restore(struct registry *registry, const void *bytes, size_t size, struct err *err)
{
    struct reader reader = {.at = bytes, .end = (const uint8_t *)bytes + size, .err = err};
    Fleet__SnapshotRecord *record = read_record(&reader, FLEET__SNAPSHOT_RECORD__RECORD_HEADER);
    struct registry *fresh;
    int r;

    if (record == NULL)
        return -EBADMSG;
    fresh = registry_new();
    r = check_format(record->header, err);
    if (r >= 0 && (record->header->cluster_id.len != CLUSTER_ID_SIZE ||
                   !history_read(record->header->recoveries, &record->header->history, &fresh->history)))
        r = err_set(err, -EBADMSG, "the snapshot's header makes no sense");
    if (r >= 0)
        r = restore_all(fresh, record->header, &reader);
    fleet__snapshot_record__free_unpacked(record, NULL);
    release_contents(fresh);
    if (r < 0) {
        registry_free(fresh);
        return r;
    }
    registry_clear(registry);
    *registry = *fresh;
    free(fresh);
    registry->changes.everything = true;
    return 0;
}
