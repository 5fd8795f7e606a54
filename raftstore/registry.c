/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/registry.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "raftstore/limits.h"
#include "raftstore/registry_private.h"

/* ---- small things ---- */

/* Copies an id that came from outside; one that does not fit names no machine, and is taken as none. */
static void copy_id(char to[MACHINE_ID_SIZE], const char *from)
{
    snprintf(to, MACHINE_ID_SIZE, "%s", strlen(from) < MACHINE_ID_SIZE ? from : "");
}

enum unit_state registry_state_of(Fleet__DesiredState desired)
{
    switch (desired) {
    case FLEET__DESIRED_STATE__DESIRED_LOADED: return UNIT_STATE_LOADED;
    case FLEET__DESIRED_STATE__DESIRED_LAUNCHED: return UNIT_STATE_LAUNCHED;
    default: return UNIT_STATE_INACTIVE;
    }
}

Fleet__DesiredState registry_desired_of(enum unit_state state)
{
    static const Fleet__DesiredState desired[UNIT_STATE_COUNT] = {
        [UNIT_STATE_INACTIVE] = FLEET__DESIRED_STATE__DESIRED_INACTIVE,
        [UNIT_STATE_LOADED] = FLEET__DESIRED_STATE__DESIRED_LOADED,
        [UNIT_STATE_LAUNCHED] = FLEET__DESIRED_STATE__DESIRED_LAUNCHED,
    };

    return desired[state];
}

/* One snapshot record with its length before it. The caller frees it. */
uint8_t *registry_pack_record(const Fleet__SnapshotRecord *record, size_t *ret_size)
{
    size_t size = fleet__snapshot_record__get_packed_size(record);
    uint8_t *bytes = xmalloc(4 + size);

    put_be32(bytes, size);
    fleet__snapshot_record__pack(record, bytes + 4);
    *ret_size = 4 + size;
    return bytes;
}

/* ---- contents ---- */

struct registry_content *registry_content_get(struct registry *registry, const void *text, size_t size)
{
    Fleet__SnapshotContent message = FLEET__SNAPSHOT_CONTENT__INIT;
    Fleet__SnapshotRecord record = FLEET__SNAPSHOT_RECORD__INIT;
    struct registry_content *content;
    char hash[UNIT_HASH_SIZE];
    char *copy;

    unit_hash(text, size, hash);
    HASH_FIND_STR(registry->contents, hash, content);
    if (content != NULL) {
        content->references++;
        return content;
    }

    content = NEW0(struct registry_content);
    memcpy(content->hash, hash, sizeof hash);
    content->references = 1;
    message.text = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)text};
    record.record_case = FLEET__SNAPSHOT_RECORD__RECORD_CONTENT;
    record.content = &message;
    content->record = registry_pack_record(&record, &content->record_size);
    copy = xmalloc(size + 1);
    if (size > 0) /* 'text' may be NULL then. */
        memcpy(copy, text, size);
    copy[size] = '\0';
    content->text = copy;
    content->text_size = size;
    HASH_ADD_STR(registry->contents, hash, content);
    return content;
}

void registry_content_put(struct registry *registry, const struct registry_content *borrowed)
{
    struct registry_content *content = (struct registry_content *)borrowed;

    assert(content->references > 0);
    if (--content->references > 0)
        return;
    if (!content->detached)
        HASH_DEL(registry->contents, content);
    free(content->record);
    free((char *)content->text);
    free(content);
}

/* ---- units ---- */

static void unit_set_requirements(struct registry_unit *unit)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;

    requirements_free(unit->requirements);
    /* The leader has checked the text before it proposed it. A newer leader may know a grammar that we do
     * not: then the unit has no requirements here, which matters only where decisions are made, and that is
     * at the leader. */
    if (unit_file_parse(unit->content->text, unit->content->text_size, &file, NULL) < 0)
        file = unit_file_new();
    unit->requirements = requirements_new(file, unit->name);
}

struct registry_unit *registry_unit_add(struct registry *registry, const char *name,
                                        struct registry_content *content)
{
    struct registry_unit *unit = NEW0(struct registry_unit);

    unit->name = xstrdup(name);
    unit->content = content;
    unit->reason = xstrdup("");
    unit_set_requirements(unit);
    unit->stop_ms = unit->requirements->stop_ms;
    HASH_ADD_KEYPTR(hh, registry->units, unit->name, strlen(unit->name), unit);
    free(registry->sorted_units);
    registry->sorted_units = NULL;
    return unit;
}

static void unit_remove(struct registry *registry, struct registry_unit *unit)
{
    HASH_DEL(registry->units, unit);
    free(registry->sorted_units);
    registry->sorted_units = NULL;
    registry_content_put(registry, unit->content);
    requirements_free(unit->requirements);
    strlist_done(&unit->former);
    free(unit->reason);
    free(unit->name);
    free(unit);
}

/* ---- destroyed units ---- */

bool registry_may_have_had(const struct registry *registry, const char *name, const char *machine_id)
{
    const struct registry_unit *unit = registry_unit(registry, name);
    const struct departed *departed;

    if (unit != NULL)
        return unit->anywhere || unit->requirements->global || streq(unit->target, machine_id) ||
               strlist_has(&unit->former, machine_id);
    HASH_FIND_STR(registry->departed, name, departed);
    return departed != NULL && (departed->anywhere || strlist_has(&departed->machines, machine_id));
}

static void departed_remove(struct registry *registry, struct departed *departed)
{
    HASH_DEL(registry->departed, departed);
    strlist_done(&departed->machines);
    free(departed->name);
    free(departed);
}

struct departed *registry_departed_remember(struct registry *registry, const char *name,
                                            struct strlist *machines)
{
    struct departed *departed = NEW0(struct departed);

    departed->name = xstrdup(name);
    departed->machines = *machines;
    *machines = (struct strlist){0};
    HASH_ADD_KEYPTR(hh, registry->departed, departed->name, strlen(departed->name), departed);
    if (HASH_COUNT(registry->departed) > DEPARTED_REMEMBERED_MAX)
        departed_remove(registry, registry->departed);
    return departed;
}

static void unit_destroy(struct registry *registry, struct registry_unit *unit)
{
    struct departed *departed;

    if (unit->target[0] != '\0')
        strlist_add(&unit->former, unit->target);
    if (unit->former.count > 0 || unit->anywhere || unit->requirements->global) {
        departed = registry_departed_remember(registry, unit->name, &unit->former);
        departed->stop_ms = unit->stop_ms;
        departed->anywhere = unit->anywhere || unit->requirements->global;
        departed->leased = unit->leased;
        departed->leased_since = unit->leased_since;
    }
    unit_remove(registry, unit);
}

/* After a change of its content or its place: whoever has it now may be given it. */
static void unit_note_lease(const struct registry *registry, struct registry_unit *unit)
{
    if (unit->requirements->stop_ms > 0) {
        if (unit->leased_since == 0)
            unit->leased_since = registry->version;
        return;
    }
    unit->leased_since = 0;
    if (unit->target[0] != '\0' || unit->requirements->global)
        unit->leased = false;
}

/* A unit that takes the name of a destroyed one begins where that one was. */
static void unit_inherit(struct registry *registry, struct registry_unit *unit)
{
    struct departed *departed;

    HASH_FIND_STR(registry->departed, unit->name, departed);
    if (departed == NULL)
        return;
    unit->former = departed->machines;
    departed->machines = (struct strlist){0};
    unit->anywhere = departed->anywhere;
    if (departed->stop_ms > unit->stop_ms)
        unit->stop_ms = departed->stop_ms;
    unit->leased = departed->leased;
    unit->leased_since = departed->leased_since;
    departed_remove(registry, departed);
}

/* ---- changes of units ---- */

int registry_refuse(struct registry *registry, int status, const char *format, ...)
{
    va_list ap;

    free(registry->last.text);
    va_start(ap, format);
    registry->last.text = xvasprintf(format, ap);
    va_end(ap);
    return status;
}

static int check_unit_change(struct registry *registry, const Fleet__UnitChange *change)
{
    const struct registry_unit *unit = registry_unit(registry, change->name);

    if (unit == NULL && (change->destroy || !change->has_text))
        return registry_refuse(registry, -ENOENT, "unit %s does not exist", change->name);
    if (unit != NULL && change->if_absent)
        return registry_refuse(registry, -EEXIST, "unit %s exists already", change->name);
    if (change->if_hash[0] != '\0' && (unit == NULL || !streq(unit->content->hash, change->if_hash)))
        return registry_refuse(registry, -ESTALE, "unit %s has other content meanwhile", change->name);
    if (change->restart && (unit == NULL || unit->desired == UNIT_STATE_INACTIVE))
        return registry_refuse(registry, -EINVAL, "unit %s is inactive: it cannot be restarted",
                               change->name);
    return 0;
}

static bool has_former(const struct registry_unit *unit)
{
    return unit->former.count > 0 || unit->anywhere;
}

/* As long as an older copy may run somewhere, its time to stop counts, too. */
static void unit_set_stop(struct registry_unit *unit)
{
    bool alone = unit->target[0] == '\0' && !has_former(unit);

    if (alone || unit->requirements->stop_ms > unit->stop_ms)
        unit->stop_ms = unit->requirements->stop_ms;
}

static void unit_set_target(struct registry_unit *unit, const char *target, const char *reason)
{
    if (unit->target[0] != '\0')
        strlist_add(&unit->former, unit->target);
    unit->handover = false;
    copy_id(unit->target, target);
    strlist_remove(&unit->former, unit->target);
    free(unit->reason);
    unit->reason = xstrdup(reason);
}

/* Sets the desired state; an inactive unit is nowhere. Returns whether anything changed. */
static bool unit_set_desired(struct registry_unit *unit, Fleet__DesiredState desired)
{
    enum unit_state state = registry_state_of(desired);

    if (desired == FLEET__DESIRED_STATE__DESIRED_UNCHANGED || state == unit->desired)
        return false;
    unit->desired = state;
    unit->handover = false;
    if (state != UNIT_STATE_LAUNCHED)
        unit->restart = 0; /* The next start is a fresh one anyway. */
    if (state == UNIT_STATE_INACTIVE)
        unit_set_target(unit, "", "");
    return true;
}

static bool unit_set_text(struct registry *registry, struct registry_unit *unit,
                          const ProtobufCBinaryData *text)
{
    struct registry_content *content = registry_content_get(registry, text->data, text->len);

    if (content == unit->content) {
        registry_content_put(registry, content);
        return false;
    }
    registry_content_put(registry, unit->content);
    unit->content = content;
    unit->handover = false; /* What its former machines run is not what is wanted any more. */
    unit->anywhere = unit->anywhere || unit->requirements->global;
    unit_set_requirements(unit);
    unit_set_stop(unit);
    unit_note_lease(registry, unit);
    return true;
}

static void change_unit(struct registry *registry, const Fleet__UnitChange *change)
{
    struct registry_unit *unit = (struct registry_unit *)registry_unit(registry, change->name);
    bool changed = false;

    if (change->destroy) {
        strlist_add(&registry->changes.units, unit->name);
        unit_destroy(registry, unit);
        return;
    }
    if (unit == NULL) {
        unit = registry_unit_add(registry, change->name,
                                 registry_content_get(registry, change->text.data, change->text.len));
        unit->leased = true;
        unit_inherit(registry, unit);
        unit_note_lease(registry, unit);
        changed = true;
    } else if (change->has_text) {
        changed = unit_set_text(registry, unit, &change->text);
    }
    if (unit_set_desired(unit, change->desired))
        changed = true;
    /* Another generation of the same: whoever runs it has carried it out already, the others start it. */
    if (change->again && unit->desired == UNIT_STATE_LAUNCHED)
        changed = true;
    if (change->restart) {
        unit_set_desired(unit, FLEET__DESIRED_STATE__DESIRED_LAUNCHED);
        unit->restart = registry->version;
        changed = true;
    }
    if (changed) {
        unit->generation = registry->version;
        strlist_add(&registry->changes.units, unit->name);
    }
}

static int apply_change_units(struct registry *registry, const Fleet__ChangeUnits *command)
{
    int r;

    for (size_t i = 0; i < command->n_changes; i++) {
        r = check_unit_change(registry, command->changes[i]);
        if (r < 0)
            return r;
    }
    registry->version++;
    /* A unit may be named twice: then each mention meets what the one before it has left. */
    for (size_t i = 0; i < command->n_changes; i++)
        if (check_unit_change(registry, command->changes[i]) == 0)
            change_unit(registry, command->changes[i]);
    return 0;
}

/* Whoever had an older content has carried out this one, or has nothing of it. */
static void unit_set_leased(struct registry_unit *unit)
{
    if (unit->requirements->stop_ms == 0)
        return;
    unit->leased = true;
    if (unit->leased_since == 0) /* A version that did not note it has placed it. */
        unit->leased_since = unit->generation;
}

static void place_unit(struct registry *registry, struct registry_unit *unit,
                       const Fleet__Placement *placement, uint64_t wall_ms)
{
    if (placement->former_gone) {
        unit->leased = unit->leased || (unit->target[0] == '\0' && has_former(unit));
        unit->anywhere = false;
        strlist_done(&unit->former);
    }
    unit_set_stop(unit);
    if (unit->target[0] != '\0' && streq(unit->target, placement->to)) {
        unit->handover = false; /* What is wanted of its machine is as before. */
        if (placement->leased)
            unit_set_leased(unit);
        return;
    }
    unit_set_target(unit, placement->to, placement->reason);
    unit->handover = placement->handover && unit->target[0] != '\0' && unit->former.count > 0;
    unit->generation = registry->version;
    unit_note_lease(registry, unit);
    if (unit->target[0] != '\0') {
        unit->token = registry->version;
        unit->placed_wall_ms = wall_ms;
    }
}

/* Decided about something that has changed since. */
static bool is_void(const struct registry_unit *unit, const Fleet__Placement *placement)
{
    return unit == NULL || unit->generation != placement->if_generation ||
           unit->desired == UNIT_STATE_INACTIVE || !streq(unit->target, placement->from);
}

/* The placements of a decision rest on each other (who makes room, who is followed): one that is void makes
 * all of them void, and the leader decides anew. */
static int apply_schedule(struct registry *registry, const Fleet__Schedule *command, uint64_t wall_ms)
{
    for (size_t i = 0; i < command->n_placements; i++)
        if (is_void(registry_unit(registry, command->placements[i]->unit), command->placements[i]))
            return registry_refuse(registry, -ESTALE,
                                   "unit %s has changed since it was decided where it goes",
                                   command->placements[i]->unit);
    registry->version++;
    for (size_t i = 0; i < command->n_placements; i++) {
        const Fleet__Placement *placement = command->placements[i];
        struct registry_unit *unit = (struct registry_unit *)registry_unit(registry, placement->unit);

        if (is_void(unit, placement)) /* It is named twice. */
            continue;
        place_unit(registry, unit, placement, wall_ms);
        strlist_add(&registry->changes.units, unit->name);
    }
    return 0;
}

/* ---- machines ---- */

static void labels_free(struct registry_label *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(labels[i].key);
        free(labels[i].value);
    }
    free(labels);
}

/* Sets a label in a list that is kept in key order. A NULL value is a value. */
static void label_set(struct registry_label **labels, size_t *count, const char *key, const char *value)
{
    size_t i = 0;

    while (i < *count && strcmp((*labels)[i].key, key) < 0)
        i++;
    if (i < *count && streq((*labels)[i].key, key)) {
        free((*labels)[i].value);
    } else {
        *labels = xrealloc(*labels, (*count + 1) * sizeof **labels);
        memmove(*labels + i + 1, *labels + i, (*count - i) * sizeof **labels);
        (*count)++;
        (*labels)[i].key = xstrdup(key);
    }
    (*labels)[i].value = xstrdup(value);
}

static void label_unset(struct registry_label **labels, size_t *count, const char *key)
{
    for (size_t i = 0; i < *count; i++) {
        if (!streq((*labels)[i].key, key))
            continue;
        free((*labels)[i].key);
        free((*labels)[i].value);
        memmove(*labels + i, *labels + i + 1, (*count - i - 1) * sizeof **labels);
        (*count)--;
        return;
    }
}

static void machine_merge_labels(struct registry_machine *machine)
{
    labels_free(machine->labels, machine->label_count);
    machine->labels = NULL;
    machine->label_count = 0;
    for (size_t i = 0; i < machine->fixed_count; i++)
        label_set(&machine->labels, &machine->label_count, machine->fixed[i].key, machine->fixed[i].value);
    for (size_t i = 0; i < machine->changed_count; i++) {
        if (machine->changed[i].value != NULL)
            label_set(&machine->labels, &machine->label_count, machine->changed[i].key,
                      machine->changed[i].value);
        else
            label_unset(&machine->labels, &machine->label_count, machine->changed[i].key);
    }
}

void registry_machines_changed(struct registry *registry)
{
    registry->changes.machines = true;
    free(registry->sorted_machines);
    registry->sorted_machines = NULL;
}

struct registry_machine *registry_machine_get(struct registry *registry, const char *id)
{
    struct registry_machine *machine;

    HASH_FIND_STR(registry->machines, id, machine);
    if (machine != NULL)
        return machine;
    machine = NEW0(struct registry_machine);
    copy_id(machine->id, id);
    machine->hostname = xstrdup("");
    machine->public_ip = xstrdup("");
    machine->cluster_address = xstrdup("");
    machine->boot_id = xstrdup("");
    machine->version = xstrdup("");
    HASH_ADD_STR(registry->machines, id, machine);
    return machine;
}

static void machine_remove(struct registry *registry, struct registry_machine *machine)
{
    HASH_DEL(registry->machines, machine);
    labels_free(machine->labels, machine->label_count);
    labels_free(machine->fixed, machine->fixed_count);
    labels_free(machine->changed, machine->changed_count);
    free(machine->hostname);
    free(machine->public_ip);
    free(machine->cluster_address);
    free(machine->boot_id);
    free(machine->version);
    free(machine);
}

static void set_string(char **to, const char *value)
{
    free(*to);
    *to = xstrdup(value);
}

void registry_machine_set(struct registry_machine *machine, const Fleet__RegisterMachine *message)
{
    set_string(&machine->hostname, message->hostname);
    set_string(&machine->public_ip, message->public_ip);
    set_string(&machine->cluster_address, message->cluster_address);
    set_string(&machine->boot_id, message->boot_id);
    set_string(&machine->version, message->version);
    machine->server_id = message->server_id;
    machine->disable_engine = message->disable_engine;
    machine->level = message->level;
    registry_set_credentials(machine, message);
    machine->no_store = message->no_store;
    labels_free(machine->fixed, machine->fixed_count);
    machine->fixed = NULL;
    machine->fixed_count = 0;
    for (size_t i = 0; i < message->n_metadata; i++)
        label_set(&machine->fixed, &machine->fixed_count, message->metadata[i]->key,
                  message->metadata[i]->value);
    machine_merge_labels(machine);
}

static int check_machine_id(struct registry *registry, const char *id)
{
    if (id[0] == '\0' || strlen(id) >= MACHINE_ID_SIZE)
        return registry_refuse(registry, -EINVAL, "\"%s\" is no machine id", id);
    return 0;
}

static int apply_register_machine(struct registry *registry, const Fleet__RegisterMachine *command,
                                  uint64_t wall_ms)
{
    struct registry_machine *machine;
    int r = check_machine_id(registry, command->machine_id);

    if (r >= 0)
        r = registry_check_join(registry, command, wall_ms);
    if (r < 0)
        return r;
    registry->version++;
    machine = registry_machine_get(registry, command->machine_id);
    registry_note_join(registry, machine, command);
    if (!machine->registered || machine->awaited) {
        machine->registered = true;
        machine->joined_wall_ms = wall_ms;
    }
    if (machine->server_id != command->server_id)
        machine->leaving = false; /* It has joined anew. */
    machine->awaited = false;
    registry_machine_set(machine, command);
    registry_machines_changed(registry);
    return 0;
}

static void remember_removed(struct registry *registry, const struct registry_machine *machine,
                             uint64_t wall_ms)
{
    struct registry_removed removed = {.hostname = machine->hostname,
                                       .boot_id = machine->boot_id,
                                       .server_id = machine->server_id,
                                       .wall_ms = wall_ms};

    memcpy(removed.machine_id, machine->id, sizeof removed.machine_id);
    registry_remember_removed(registry, &removed);
}

static int apply_remove_machine(struct registry *registry, const Fleet__RemoveMachine *command,
                                uint64_t wall_ms)
{
    struct registry_machine *machine;

    HASH_FIND_STR(registry->machines, command->machine_id, machine);
    if (machine == NULL || !machine->registered)
        return registry_refuse(registry, -ENOENT, "machine %s does not exist", command->machine_id);
    registry->version++;
    if (registry->level >= 1) /* Versions before that forget it, and let it register again. */
        remember_removed(registry, machine, wall_ms);
    machine_remove(registry, machine);
    registry_machines_changed(registry);
    return 0;
}

void registry_change_metadata(struct registry *registry, const Fleet__MetadataChange *change)
{
    struct registry_machine *machine = registry_machine_get(registry, change->machine_id);

    label_set(&machine->changed, &machine->changed_count, change->key, change->remove ? NULL : change->value);
    machine_merge_labels(machine);
}

static int apply_change_metadata(struct registry *registry, const Fleet__ChangeMetadata *command)
{
    for (size_t i = 0; i < command->n_changes; i++) {
        int r = check_machine_id(registry, command->changes[i]->machine_id);

        if (r < 0)
            return r;
    }
    registry->version++;
    for (size_t i = 0; i < command->n_changes; i++)
        registry_change_metadata(registry, command->changes[i]);
    registry_machines_changed(registry);
    return 0;
}

static int check_machine_change(struct registry *registry, const Fleet__MachineChange *change)
{
    const struct registry_machine *machine = registry_machine(registry, change->machine_id);

    if (machine == NULL || !machine->registered)
        return registry_refuse(registry, -ENOENT, "machine %s does not exist", change->machine_id);
    return 0;
}

enum machine_availability registry_availability_of(Fleet__Availability availability)
{
    switch (availability) {
    case FLEET__AVAILABILITY__AVAILABILITY_CORDONED: return MACHINE_CORDONED;
    case FLEET__AVAILABILITY__AVAILABILITY_DRAINING: return MACHINE_DRAINING;
    default: return MACHINE_ACTIVE;
    }
}

enum vote_wish registry_vote_of(Fleet__VoteWish vote)
{
    switch (vote) {
    case FLEET__VOTE_WISH__VOTE_WISH_ALWAYS: return VOTE_ALWAYS;
    case FLEET__VOTE_WISH__VOTE_WISH_NEVER: return VOTE_NEVER;
    default: return VOTE_AUTOMATIC;
    }
}

static void change_machine(struct registry *registry, const Fleet__MachineChange *change, uint64_t wall_ms)
{
    struct registry_machine *machine = registry_machine_get(registry, change->machine_id);
    bool lost = change->verdict == FLEET__VERDICT__VERDICT_LOST;

    if (change->availability != FLEET__AVAILABILITY__AVAILABILITY_UNCHANGED)
        machine->availability = registry_availability_of(change->availability);
    if (change->vote != FLEET__VOTE_WISH__VOTE_WISH_UNCHANGED)
        machine->vote = registry_vote_of(change->vote);
    if (change->leaving != FLEET__LEAVING__LEAVING_UNCHANGED)
        machine->leaving = change->leaving == FLEET__LEAVING__LEAVING_YES;
    if (change->daemon != FLEET__DAEMON_STATE__DAEMON_UNCHANGED)
        machine->daemon_stopped = change->daemon == FLEET__DAEMON_STATE__DAEMON_STOPPED;
    if (change->verdict != FLEET__VERDICT__VERDICT_UNCHANGED)
        machine->daemon_stopped = false; /* It has called again, or it is more than that. */
    if (change->verdict == FLEET__VERDICT__VERDICT_UNCHANGED)
        return;
    machine->lost_confirmed = lost && (change->confirmed || machine->lost_confirmed);
    if (lost == machine->lost)
        return;
    machine->lost = lost;
    machine->lost_wall_ms = lost ? wall_ms : 0;
}

static int apply_change_machines(struct registry *registry, const Fleet__ChangeMachines *command,
                                 uint64_t wall_ms)
{
    for (size_t i = 0; i < command->n_changes; i++) {
        int r = check_machine_change(registry, command->changes[i]);

        if (r < 0)
            return r;
    }
    registry->version++;
    for (size_t i = 0; i < command->n_changes; i++)
        change_machine(registry, command->changes[i], wall_ms);
    registry_machines_changed(registry);
    return 0;
}

/* ---- commands ---- */

static void set_level(struct registry *registry, unsigned level)
{
    if (level > registry->level)
        registry->level = level;
    registry->behind = registry->behind || level > FEATURE_LEVEL;
}

static int apply_create_cluster(struct registry *registry, const Fleet__CreateCluster *command)
{
    static const uint8_t none[CLUSTER_ID_SIZE];

    if (command->cluster_id.len != CLUSTER_ID_SIZE || memcmp(registry->cluster_id, none, sizeof none) != 0)
        return registry_refuse(registry, -EEXIST, "%s", "the cluster exists already");
    if (command->authority != NULL &&
        registry_set_authority(&registry->authorities.issuing, command->authority) < 0)
        return registry_refuse(registry, -EINVAL, "%s", "the cluster's authority makes no sense");
    registry->version++;
    memcpy(registry->cluster_id, command->cluster_id.data, CLUSTER_ID_SIZE);
    registry_set_voters(registry, command->voters);
    set_level(registry, command->level);
    if (command->authority != NULL)
        set_level(registry, FEATURE_LEVEL_SECURE);
    return 0;
}

static int apply_change_settings(struct registry *registry, const Fleet__ChangeSettings *command)
{
    _cleanup_(freep) char *why = NULL;

    if (command->voters > SETTING_VOTERS_MAX || (command->voters != 0 && command->voters % 2 == 0))
        return registry_refuse(registry, -EINVAL, "%u voters: 1, 3, 5 or 7", command->voters);
    why = registry_settings_refusal(registry, command->changes, command->n_changes);
    if (why != NULL)
        return registry_refuse(registry, -EINVAL, "%s", why);
    registry->version++;
    registry_settings_change(registry, command);
    return 0;
}

static int apply_set_lease(struct registry *registry, const Fleet__SetLease *command)
{
    registry->version++;
    registry->lease_ms = command->lease_ms;
    return 0;
}

static int apply_set_level(struct registry *registry, const Fleet__SetLevel *command)
{
    registry->version++;
    set_level(registry, command->level);
    registry->changes.machines = true;
    return 0;
}

static int apply_body(struct registry *registry, const Fleet__Command *command)
{
    switch (command->body_case) {
    case FLEET__COMMAND__BODY_CREATE_CLUSTER: return apply_create_cluster(registry, command->create_cluster);
    case FLEET__COMMAND__BODY_CHANGE_UNITS: return apply_change_units(registry, command->change_units);
    case FLEET__COMMAND__BODY_SCHEDULE: return apply_schedule(registry, command->schedule, command->wall_ms);
    case FLEET__COMMAND__BODY_REGISTER_MACHINE:
        return apply_register_machine(registry, command->register_machine, command->wall_ms);
    case FLEET__COMMAND__BODY_REMOVE_MACHINE:
        return apply_remove_machine(registry, command->remove_machine, command->wall_ms);
    case FLEET__COMMAND__BODY_CHANGE_METADATA:
        return apply_change_metadata(registry, command->change_metadata);
    case FLEET__COMMAND__BODY_CHANGE_MACHINES:
        return apply_change_machines(registry, command->change_machines, command->wall_ms);
    case FLEET__COMMAND__BODY_CHANGE_SETTINGS:
        return apply_change_settings(registry, command->change_settings);
    case FLEET__COMMAND__BODY_SET_LEASE: return apply_set_lease(registry, command->set_lease);
    case FLEET__COMMAND__BODY_SET_LEVEL: return apply_set_level(registry, command->set_level);
    case FLEET__COMMAND__BODY_ROTATE_AUTHORITY:
        return registry_apply_rotate_authority(registry, command->rotate_authority, command->wall_ms);
    case FLEET__COMMAND__BODY_ADD_JOIN_TOKEN:
        return registry_apply_add_join_token(registry, command->add_join_token, command->wall_ms);
    case FLEET__COMMAND__BODY_REVOKE_JOIN_TOKEN:
        return registry_apply_revoke_join_token(registry, command->revoke_join_token, command->wall_ms);
    case FLEET__COMMAND__BODY_ADD_CLIENT:
        return registry_apply_add_client(registry, command->add_client, &command->request_id,
                                         command->wall_ms);
    case FLEET__COMMAND__BODY_REVOKE_CLIENT:
        return registry_apply_revoke_client(registry, command->revoke_client);
    default:
        /* No leader proposes what some host does not know: this host is not meant to be in this cluster. */
        registry->behind = true;
        return registry_refuse(registry, -ENOTSUP, "%s", "this version does not know that command");
    }
}

void registry_request_remember(struct registry *registry, const void *id,
                               const struct registry_result *result)
{
    struct request *request = NEW0(struct request);

    memcpy(request->id, id, REQUEST_ID_SIZE);
    request->result = *result;
    request->result.text = xstrdup(result->text);
    HASH_ADD(hh, registry->requests, id, REQUEST_ID_SIZE, request);
    if (HASH_COUNT(registry->requests) > REQUESTS_REMEMBERED_MAX) {
        struct request *oldest = registry->requests;

        HASH_DEL(registry->requests, oldest);
        free(oldest->result.text);
        free(oldest);
    }
}

void registry_requests_forget(struct registry *registry)
{
    while (registry->requests != NULL) {
        struct request *request = registry->requests;

        HASH_DEL(registry->requests, request);
        free(request->result.text);
        free(request);
    }
}

const struct registry_result *registry_request(const struct registry *registry, const void *request_id)
{
    struct request *request;

    HASH_FIND(hh, registry->requests, request_id, REQUEST_ID_SIZE, request);
    return request != NULL ? &request->result : NULL;
}

static Fleet__Command *command_decode(const uint8_t *bytes, size_t size)
{
    if (size < 4 || get_be32(bytes) > size - 4)
        return NULL;
    return fleet__command__unpack(NULL, get_be32(bytes), bytes + 4);
}

const struct registry_result *registry_apply(struct registry *registry, const void *bytes, size_t size)
{
    Fleet__Command *command = command_decode(bytes, size);
    const struct registry_result *earlier;
    bool has_id;

    set_string(&registry->last.text, "");
    if (command == NULL) {
        registry->last.status = registry_refuse(registry, -EBADMSG, "%s", "the command does not decode");
        registry->last.version = registry->version;
        return &registry->last;
    }
    has_id = command->request_id.len == REQUEST_ID_SIZE;
    earlier = has_id ? registry_request(registry, command->request_id.data) : NULL;
    if (earlier == NULL) {
        registry->last.status = apply_body(registry, command);
        registry->last.version = registry->version;
        if (has_id)
            registry_request_remember(registry, command->request_id.data, &registry->last);
    }
    fleet__command__free_unpacked(command, NULL);
    return earlier != NULL ? earlier : &registry->last;
}

int command_encode(const Fleet__Command *command, uint8_t **ret, size_t *ret_size)
{
    size_t size = fleet__command__get_packed_size(command), padded = (4 + size + 7) / 8 * 8;
    uint8_t *bytes;

    if (padded > COMMAND_MAX)
        return -EMSGSIZE;
    bytes = xcalloc(1, padded);
    put_be32(bytes, size);
    fleet__command__pack(command, bytes + 4);
    *ret = bytes;
    *ret_size = padded;
    return 0;
}

uint64_t command_wall_ms(const void *bytes, size_t size)
{
    Fleet__Command *command = command_decode(bytes, size);
    uint64_t wall_ms = command != NULL ? command->wall_ms : 0;

    if (command != NULL)
        fleet__command__free_unpacked(command, NULL);
    return wall_ms;
}

/* ---- asking ---- */

const uint8_t *registry_cluster_id(const struct registry *registry)
{
    return registry->cluster_id;
}

const struct cluster_history *registry_history(const struct registry *registry)
{
    return &registry->history;
}

uint64_t registry_version(const struct registry *registry)
{
    return registry->version;
}

unsigned registry_level(const struct registry *registry)
{
    return registry->level;
}

bool registry_is_behind(const struct registry *registry)
{
    return registry->behind;
}

uint64_t registry_lease_ms(const struct registry *registry)
{
    return registry->lease_ms;
}

const struct registry_unit *registry_unit(const struct registry *registry, const char *name)
{
    struct registry_unit *unit;

    HASH_FIND_STR(registry->units, name, unit);
    return unit;
}

const struct registry_machine *registry_machine(const struct registry *registry, const char *id)
{
    struct registry_machine *machine;

    HASH_FIND_STR(registry->machines, id, machine);
    return machine;
}

size_t registry_unit_count(const struct registry *registry)
{
    return HASH_COUNT(registry->units);
}

size_t registry_machine_count(const struct registry *registry)
{
    return HASH_COUNT(registry->machines);
}

static int compare_units(const void *a, const void *b)
{
    return strcmp((*(const struct registry_unit *const *)a)->name,
                  (*(const struct registry_unit *const *)b)->name);
}

static int compare_machines(const void *a, const void *b)
{
    return strcmp((*(const struct registry_machine *const *)a)->id,
                  (*(const struct registry_machine *const *)b)->id);
}

const struct registry_unit *const *registry_units(const struct registry *borrowed, size_t *ret_count)
{
    struct registry *registry = (struct registry *)borrowed; /* The sorted list is only a cache. */
    size_t count = HASH_COUNT(registry->units), i = 0;

    if (registry->sorted_units == NULL) {
        registry->sorted_units = xcalloc(count, sizeof *registry->sorted_units);
        for (struct registry_unit *unit = registry->units; unit != NULL; unit = unit->hh.next)
            registry->sorted_units[i++] = unit;
        qsort(registry->sorted_units, count, sizeof *registry->sorted_units, compare_units);
    }
    *ret_count = count;
    return registry->sorted_units;
}

const struct registry_machine *const *registry_machines(const struct registry *borrowed, size_t *ret_count)
{
    struct registry *registry = (struct registry *)borrowed;
    size_t count = 0;

    if (registry->sorted_machines == NULL) {
        registry->sorted_machines =
            xcalloc(HASH_COUNT(registry->machines), sizeof *registry->sorted_machines);
        for (struct registry_machine *machine = registry->machines; machine != NULL;
             machine = machine->hh.next)
            if (machine->registered)
                registry->sorted_machines[count++] = machine;
        qsort(registry->sorted_machines, count, sizeof *registry->sorted_machines, compare_machines);
        registry->sorted_machine_count = count;
    }
    *ret_count = registry->sorted_machine_count;
    return registry->sorted_machines;
}

void registry_changes_take(struct registry *registry, struct registry_changes *ret)
{
    *ret = registry->changes;
    registry->changes = (struct registry_changes){0};
}

void registry_changes_done(struct registry_changes *changes)
{
    strlist_done(&changes->units);
}

/* ---- life ---- */

struct registry *registry_new(void)
{
    struct registry *registry = NEW0(struct registry);

    registry->last.text = xstrdup("");
    registry_settings_init(registry);
    return registry;
}

void registry_clear(struct registry *registry)
{
    while (registry->units != NULL)
        unit_remove(registry, registry->units);
    while (registry->machines != NULL)
        machine_remove(registry, registry->machines);
    while (registry->departed != NULL)
        departed_remove(registry, registry->departed);
    registry_security_clear(registry);
    registry_clients_clear(registry);
    registry_requests_forget(registry);
    /* What is left is held by a snapshot in progress. */
    for (struct registry_content *content = registry->contents, *next; content != NULL; content = next) {
        next = content->hh.next;
        HASH_DEL(registry->contents, content);
        content->detached = true;
    }
    registry_settings_done(registry);
    free(registry->sorted_units);
    free(registry->sorted_machines);
    free(registry->last.text);
    registry_changes_done(&registry->changes);
}

void registry_free(struct registry *registry)
{
    if (registry == NULL)
        return;
    registry_clear(registry);
    assert(registry->contents == NULL);
    free(registry);
}
