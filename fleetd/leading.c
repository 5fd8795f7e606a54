/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"
#include "units/name.h"

#define SHARE_PIECE_BYTES (1024u * 1024)

static void ignore_outcome(enum store_outcome outcome, const struct registry_result *result,
                           const char *reason, void *data)
{
    if (outcome != STORE_APPLIED)
        log_warn("A change of the registry did not come through: %s", reason);
    else if (result->status < 0)
        log_warn("A change of the registry was refused: %s", result->text);
}

/* ---- carrying out what the core says ---- */

static void on_schedule_done(enum store_outcome outcome, const struct registry_result *result,
                             const char *reason, void *data);

/* Whose decision is under way: a leadership may have ended, and another begun, before its outcome is known.
 */
struct decision_ticket {
    struct daemon *daemon;
    uint64_t term;
    size_t left, arrived; /* Units that lose a place, and that get one. */
};

static bool is_away(const struct daemon *daemon, const char *machine_id)
{
    const struct registry_machine *machine = registry_machine(store_registry(daemon->store), machine_id);

    return machine == NULL || !machine->registered ||
           core_machine_state(daemon->core, machine_id) == MACHINE_LOST;
}

static void count_decision(struct daemon *daemon, const struct effect *effect, struct decision_ticket *ticket)
{
    daemon->engine.decisions++;
    for (size_t i = 0; i < effect->placement_count; i++) {
        const struct core_placement *placement = &effect->placements[i];
        bool leaves = placement->from[0] != '\0', arrives = placement->to[0] != '\0';

        if (streq(placement->from, placement->to))
            continue; /* Only what is known of its past. */
        metrics_count_placement(&daemon->engine, leaves, arrives, leaves && is_away(daemon, placement->from));
        ticket->left += leaves;
        ticket->arrived += arrives;
    }
}

static void do_schedule(struct daemon *daemon, const struct effect *effect)
{
    struct decision_ticket *ticket = NEW0(struct decision_ticket);
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__Schedule schedule = FLEET__SCHEDULE__INIT;
    size_t count = effect->placement_count;
    _cleanup_(freep) Fleet__Placement *placements = xcalloc(count, sizeof *placements);
    _cleanup_(freep) Fleet__Placement **list = xcalloc(count, sizeof *list);

    for (size_t i = 0; i < count; i++) {
        fleet__placement__init(&placements[i]);
        placements[i].unit = effect->placements[i].unit;
        placements[i].from = effect->placements[i].from;
        placements[i].to = effect->placements[i].to;
        placements[i].reason = effect->placements[i].reason;
        placements[i].if_generation = effect->placements[i].generation;
        placements[i].former_gone = effect->placements[i].former_gone;
        placements[i].handover = effect->placements[i].handover;
        placements[i].leased = effect->placements[i].leased;
        list[i] = &placements[i];
    }
    schedule.placements = list;
    schedule.n_placements = count;
    command.if_term = effect->term;
    command.body_case = FLEET__COMMAND__BODY_SCHEDULE;
    command.schedule = &schedule;
    *ticket = (struct decision_ticket){.daemon = daemon, .term = effect->term};
    count_decision(daemon, effect, ticket);
    store_propose(daemon->store, &command, on_schedule_done, ticket);
}

static void add_verdicts(Fleet__ChangeMachines *body, const struct strlist *ids, Fleet__Verdict verdict)
{
    for (size_t i = 0; i < ids->count; i++) {
        Fleet__MachineChange *change = NEW0(Fleet__MachineChange);

        fleet__machine_change__init(change);
        change->machine_id = xstrdup(ids->items[i]);
        change->verdict = verdict;
        body->changes[body->n_changes++] = change;
    }
}

static void do_verdict(struct daemon *daemon, const struct effect *effect)
{
    Fleet__Command *command = NEW0(Fleet__Command);
    Fleet__ChangeMachines *body = NEW0(Fleet__ChangeMachines);

    fleet__change_machines__init(body);
    body->changes = xcalloc(effect->names.count + effect->removed.count, sizeof(Fleet__MachineChange *));
    add_verdicts(body, &effect->names, FLEET__VERDICT__VERDICT_LOST);
    add_verdicts(body, &effect->removed, FLEET__VERDICT__VERDICT_BACK);
    fleet__command__init(command);
    command->if_term = effect->term;
    command->body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command->change_machines = body;
    store_propose(daemon->store, command, ignore_outcome, daemon);
    fleet__command__free_unpacked(command, NULL);
}

static Fleet__DesiredState wire_state(enum unit_state state)
{
    return state == UNIT_STATE_LAUNCHED ? FLEET__DESIRED_STATE__DESIRED_LAUNCHED
                                        : FLEET__DESIRED_STATE__DESIRED_LOADED;
}

/* Fills in a unit; its text only if the host does not have it. */
static void fill_share_unit(const struct daemon *daemon, const char *machine_id,
                            const struct registry_unit *unit, Fleet__ShareUnit *ret)
{
    const struct core_report *report = core_report(daemon->core, machine_id, unit->name);

    fleet__share_unit__init(ret);
    ret->name = unit->name;
    ret->hash = (char *)unit->content->hash;
    ret->desired = wire_state(unit->desired);
    /* A machine that only keeps it until it is active elsewhere is not to carry anything out anew. */
    ret->generation = !unit->requirements->global && !streq(unit->target, machine_id) && report != NULL
                          ? report->generation
                          : unit->generation;
    ret->token = unit->token;
    ret->restart = unit->restart;
    ret->stop_ms = unit->requirements->stop_ms;
    if (report == NULL || !streq(report->hash, unit->content->hash))
        ret->text =
            (ProtobufCBinaryData){.len = unit->content->text_size, .data = (uint8_t *)unit->content->text};
}

static bool send_share(struct daemon *daemon, const char *machine_id, Fleet__Share *share)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_SHARE;
    message.share = share;
    return downlink_send(daemon->downlink, machine_id, &message);
}

/* Sends a share in pieces; the host carries it out when the last one is there. */
static void do_share(struct daemon *daemon, const struct effect *effect)
{
    const struct registry *registry = store_registry(daemon->store);
    size_t count = effect->names.count, first = 0, bytes = 0, used = 0;
    _cleanup_(freep) Fleet__ShareUnit *units = xcalloc(count, sizeof *units);
    _cleanup_(freep) Fleet__ShareUnit **list = xcalloc(count, sizeof *list);
    Fleet__Share share = FLEET__SHARE__INIT;

    share.version = effect->share_number;
    share.complete = effect->complete;
    for (size_t i = 0; i < count; i++) {
        const struct registry_unit *unit = registry_unit(registry, effect->names.items[i]);

        if (unit == NULL)
            continue;
        if (bytes > SHARE_PIECE_BYTES) {
            share.units = list + first;
            share.n_units = used - first;
            share.more = true;
            if (!send_share(daemon, effect->machine_id, &share))
                return;
            first = used;
            bytes = 0;
        }
        fill_share_unit(daemon, effect->machine_id, unit, &units[used]);
        list[used] = &units[used];
        bytes += units[used].text.len + 2 * UNIT_NAME_MAX;
        used++;
    }
    share.units = list + first;
    share.n_units = used - first;
    share.more = false;
    share.removed = effect->removed.items;
    share.n_removed = effect->removed.count;
    send_share(daemon, effect->machine_id, &share);
}

static void do_shutdown_ready(struct daemon *daemon, const struct effect *effect)
{
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__ShutdownReady ready = FLEET__SHUTDOWN_READY__INIT;

    message.message_case = FLEET__SESSION_DOWN__MESSAGE_SHUTDOWN_READY;
    message.shutdown_ready = &ready;
    downlink_send(daemon->downlink, effect->machine_id, &message);
}

static void do_log(const struct daemon *daemon, const struct effect *effect)
{
    static const char *const ids[] = {
        [NEWS_PLACED] = MESSAGE_PLACED,
        [NEWS_UNPLACED] = MESSAGE_UNPLACED,
        [NEWS_UNIT_FAILS] = MESSAGE_UNIT_FAILS,
        [NEWS_MACHINE_LOST] = MESSAGE_MACHINE_LOST,
        [NEWS_MACHINE_BACK] = MESSAGE_MACHINE_BACK,
        [NEWS_MACHINE_MISSING] = MESSAGE_MACHINE_MISSING,
        [NEWS_DAEMON_SILENT] = MESSAGE_DAEMON_SILENT,
        [NEWS_BRAKE_ON] = MESSAGE_BRAKE_ON,
        [NEWS_BRAKE_OFF] = MESSAGE_BRAKE_OFF,
        [NEWS_SHUTDOWN] = MESSAGE_SHUTDOWN,
        [NEWS_STAYS] = MESSAGE_STAYS,
        [NEWS_REPORTS_REFUSED] = MESSAGE_REPORTS_REFUSED,
    };
    struct strlist fields = {0};

    strlist_add(&fields, ids[effect->news]);
    strlist_take(&fields, xasprintf("FLEET_TERM=%" PRIu64, store_term(daemon->store)));
    if (effect->names.count > 0)
        strlist_take(&fields, xasprintf("UNIT=%s", effect->names.items[0]));
    if (effect->machine_id[0] != '\0')
        strlist_take(&fields, xasprintf("FLEET_MACHINE=%s", effect->machine_id));
    if (effect->reason[0] != '\0')
        strlist_take(&fields, xasprintf("FLEET_REASON=%s", effect->reason));
    strlist_take(&fields, NULL); /* Ends them. */
    log_message(effect->priority, (const char *const *)fields.items, "%s", effect->text);
    strlist_done(&fields);
}

static void carry_out(struct daemon *daemon, struct effects *effects)
{
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *effect = &effects->items[i];

        switch (effect->kind) {
        case EFFECT_SCHEDULE: do_schedule(daemon, effect); break;
        case EFFECT_LEASE: lessor_set(daemon, effect); break;
        case EFFECT_SHARE: do_share(daemon, effect); break;
        case EFFECT_SETTLED:
            if (daemon->api != NULL) /* It goes before the store does. */
                api_unit_changed(daemon->api, effect->names.items[0]);
            break;
        case EFFECT_VERDICT: do_verdict(daemon, effect); break;
        case EFFECT_DROP:
            if (admission_is_out(daemon, effect->machine_id))
                downlink_dismiss(daemon->downlink, effect->machine_id);
            downlink_drop(daemon->downlink, effect->machine_id,
                          "the host was silent for too long, or is no member");
            break;
        case EFFECT_SHUTDOWN_READY: do_shutdown_ready(daemon, effect); break;
        case EFFECT_LOG: do_log(daemon, effect); break;
        }
    }
    effects_done(effects);
}

static void on_schedule_done(enum store_outcome outcome, const struct registry_result *result,
                             const char *reason, void *data)
{
    struct decision_ticket *ticket = data;
    struct daemon *daemon = ticket->daemon;
    struct effects effects = {0};

    if (outcome != STORE_APPLIED || result->status < 0)
        metrics_count_failed(&daemon->engine, ticket->left, ticket->arrived);
    leading_step(daemon); /* What the decision has changed comes first, then that it is through. */
    core_schedule_done(daemon->core, ticket->term, outcome == STORE_APPLIED, now_ms(), &effects);
    carry_out(daemon, &effects);
    free(ticket);
}

/* ---- life of a leadership ---- */

/* The founder's first command gives the cluster its identity. */
static void found_cluster(struct daemon *daemon)
{
    Fleet__Command command = FLEET__COMMAND__INIT;
    Fleet__CreateCluster create = FLEET__CREATE_CLUSTER__INIT;
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    struct pki_blob key = {0};
    struct err err = {0};

    create.cluster_id = (ProtobufCBinaryData){.len = CLUSTER_ID_SIZE, .data = daemon->member.cluster_id};
    create.voters = membership_voters(daemon);
    create.level = cluster_own_level(daemon);
    if (!daemon->config.insecure) {
        const struct pki_blob *certificate = &daemon->credentials.roots[0];
        int r = credentials_load_authority(&daemon->credentials, &key, &err);

        if (r < 0)
            daemon_fatal(daemon, err_text(&err, r));
        authority.certificate = (ProtobufCBinaryData){.len = certificate->size, .data = certificate->data};
        authority.private_key = (ProtobufCBinaryData){.len = key.size, .data = key.data};
        create.authority = &authority;
    }
    command.body_case = FLEET__COMMAND__BODY_CREATE_CLUSTER;
    command.create_cluster = &create;
    store_propose(daemon->store, &command, ignore_outcome, daemon);
    pki_blob_done(&key);
}

void leading_register(struct daemon *daemon, const Fleet__RegisterMachine *machine, store_done *done,
                      void *data)
{
    Fleet__Command command = FLEET__COMMAND__INIT;

    command.body_case = FLEET__COMMAND__BODY_REGISTER_MACHINE;
    command.register_machine = (Fleet__RegisterMachine *)machine;
    store_propose(daemon->store, &command, done, data);
}

void leading_start(struct daemon *daemon, uint64_t term)
{
    static const uint8_t none[CLUSTER_ID_SIZE];
    const struct registry *registry = store_registry(daemon->store);
    _cleanup_(freep) char *field = xasprintf("FLEET_TERM=%" PRIu64, term);
    struct effects effects = {0};

    log_message(LOG_NOTICE, log_fields(MESSAGE_LEADS, field), "This host leads now (term %" PRIu64 ")", term);
    daemon->engine.leader_since_ms = wall_ms();
    voting_begin(daemon->voting);
    strlist_done(&daemon->told);
    if (memcmp(registry_cluster_id(registry), none, sizeof none) == 0)
        found_cluster(daemon);
    core_lead(daemon->core, term, now_ms(), &effects);
    carry_out(daemon, &effects);
    leading_chores(daemon);
}

void leading_stop(struct daemon *daemon)
{
    log_message(LOG_NOTICE, log_fields(MESSAGE_YIELDS), "This host does not lead any more");
    daemon->engine.leader_since_ms = 0;
    core_yield(daemon->core);
    lessor_yield(daemon->lessor);
    hosting_report_all(daemon); /* From now on this is what is known here. */
    if (daemon->api != NULL)
        api_yield(daemon->api);
    downlink_drop_all(daemon->downlink, "this host does not lead any more");
}

void leading_step(struct daemon *daemon)
{
    struct registry_changes changes;
    struct effects effects = {0};

    if (!daemon->registry_changed || daemon->store == NULL)
        return;
    daemon->registry_changed = false;
    store_changes_take(daemon->store, &changes);
    cluster_forget_founding(daemon);
    port_set_level_needed(daemon->port, registry_level(store_registry(daemon->store)));
    core_registry_changed(daemon->core, &changes, now_ms(), &effects);
    registry_changes_done(&changes);
    carry_out(daemon, &effects);
    certifier_look(daemon->certifier);
}

void leading_tick(struct daemon *daemon)
{
    struct effects effects = {0};

    core_tick(daemon->core, now_ms(), &effects);
    carry_out(daemon, &effects);
}

/* Hosts that beat by an old, longer ttl would all be lost: they begin anew, and learn the new one. */
void leading_set_ttl(struct daemon *daemon)
{
    if (daemon->core == NULL || core_ttl_ms(daemon->core) == daemon->config.agent_ttl_ms)
        return;
    core_set_ttl(daemon->core, daemon->config.agent_ttl_ms, now_ms());
    downlink_drop_all(daemon->downlink, "agent_ttl has changed");
}

/* ---- silent hosts ---- */

static void on_answer(const char *machine_id, bool accepted, void *data)
{
    struct daemon *daemon = data;

    core_probed(daemon->core, machine_id, accepted, now_ms());
}

struct prober *leading_prober_new(struct daemon *daemon)
{
    return prober_new(daemon->loop, daemon->port, on_answer, daemon);
}

/* Those that the core wants to be asked after; all others are let go of, also when this host leads no more.
 */
void leading_probe(struct daemon *daemon)
{
    _cleanup_(freep) struct prober_target *targets = NULL;
    const struct registry_machine *const *machines = NULL;
    size_t count = 0, wanted = 0;

    if (core_leads(daemon->core)) {
        machines = registry_machines(store_registry(daemon->store), &count);
        targets = xcalloc(count, sizeof *targets);
    }
    for (size_t i = 0; i < count; i++)
        if (core_wants_probe(daemon->core, machines[i]->id))
            targets[wanted++] =
                (struct prober_target){machines[i]->id, machines[i]->cluster_address, machines[i]->server_id};
    prober_tick(daemon->prober, targets, wanted);
}

/* ---- settings ---- */

/* Whether the host may change what holds for the whole cluster. */
static bool may_set(const struct daemon *daemon, const char *machine_id)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX);

    return daemon->config.insecure ||
           api_host_role(store_registry(daemon->store), servers, count, machine_id) >= PKI_ROLE_ADMIN;
}

static void on_settings(const char *machine_id, const Fleet__ChangeSettings *settings, void *data)
{
    struct daemon *daemon = data;
    Fleet__ChangeSettings change = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;

    if (core_machine_leaves(daemon->core, machine_id))
        return;
    if (!may_set(daemon, machine_id)) {
        log_notice("Machine %s wants %u voters, but has no say in that (setting host_role)", machine_id,
                   settings->voters);
        return;
    }

    if (settings->voters == registry_setting_number(store_registry(daemon->store), SETTING_VOTERS))
        return;
    log_message(LOG_NOTICE, log_fields(MESSAGE_VOTERS), "The cluster is to have %u voters", settings->voters);
    change.voters = settings->voters; /* More than that is for the API to ask for. */
    command.body_case = FLEET__COMMAND__BODY_CHANGE_SETTINGS;
    command.change_settings = &change;
    store_propose(daemon->store, &command, ignore_outcome, daemon);
}

void leading_set_placing(struct daemon *daemon)
{
    struct effects effects = {0};

    if (daemon->core == NULL)
        return;
    core_set_placing(daemon->core, !daemon->config.disable_engine, now_ms(), &effects);
    carry_out(daemon, &effects);
}

/* A host that keeps no data hears of those who do when its session begins: also of those who come later, or
 * it would know nobody any more when the first ones are gone. */
static void tell_members(struct daemon *daemon)
{
    const struct strlist *peers = &daemon->member.peers;
    Fleet__Members members = FLEET__MEMBERS__INIT;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    size_t count;
    const struct registry_machine *const *machines = registry_machines(store_registry(daemon->store), &count);

    if (cluster_knows_peers(daemon, &daemon->told))
        return;
    strlist_done(&daemon->told);
    for (size_t i = 0; i < peers->count; i++)
        strlist_add(&daemon->told, peers->items[i]);
    members.addresses = peers->items;
    members.n_addresses = peers->count;
    message.message_case = FLEET__SESSION_DOWN__MESSAGE_MEMBERS;
    message.members = &members;
    for (size_t i = 0; i < count; i++)
        downlink_send(daemon->downlink, machines[i]->id, &message);
}

/* ---- once a second ---- */

void leading_chores(struct daemon *daemon)
{
    const struct registry_machine *self;

    if (daemon->store == NULL || daemon->stopping)
        return;
    cluster_learn_peers(daemon);
    gate_tick(daemon->gate);
    downlink_tick(daemon->downlink);
    certifier_tick(daemon->certifier);
    if (!store_leads(daemon->store))
        return;
    level_step(daemon);
    tell_members(daemon);
    self = registry_machine(store_registry(daemon->store), daemon->member.machine_id);
    if (self == NULL || !self->registered)
        leading_register(daemon, &daemon->machine, ignore_outcome, daemon);
    voting_step(daemon->voting);
}

/* ---- sessions ---- */

static bool labels_equal(const struct registry_machine *known, const Fleet__RegisterMachine *said)
{
    if (known->fixed_count != said->n_metadata)
        return false;
    for (size_t i = 0; i < said->n_metadata; i++) {
        bool found = false;

        for (size_t j = 0; j < known->fixed_count && !found; j++)
            found = streq(known->fixed[j].key, said->metadata[i]->key) &&
                    streq(known->fixed[j].value, said->metadata[i]->value);
        if (!found)
            return false;
    }
    return true;
}

static bool credentials_equal(const struct registry_machine *known, const Fleet__RegisterMachine *said)
{
    static const uint8_t none[FINGERPRINT_SIZE];
    const uint8_t *by = said->certified_by.len == FINGERPRINT_SIZE ? said->certified_by.data : none;

    if (known->root_count != said->n_roots || memcmp(known->certified_by, by, FINGERPRINT_SIZE) != 0)
        return false;
    for (size_t i = 0; i < said->n_roots; i++)
        if (said->roots[i].len != FINGERPRINT_SIZE ||
            memcmp(known->roots[i], said->roots[i].data, FINGERPRINT_SIZE) != 0)
            return false;
    return true;
}

static bool is_key_known(const struct registry_machine *known, const Fleet__RegisterMachine *said)
{
    return said->key.len != FINGERPRINT_SIZE || memcmp(known->key, said->key.data, FINGERPRINT_SIZE) == 0;
}

static bool machine_equals(const struct registry_machine *known, const Fleet__RegisterMachine *said)
{
    return known->registered && streq(known->hostname, said->hostname) &&
           streq(known->public_ip, said->public_ip) && streq(known->cluster_address, said->cluster_address) &&
           streq(known->boot_id, said->boot_id) && streq(known->version, said->version) &&
           known->server_id == said->server_id && known->disable_engine == said->disable_engine &&
           known->no_store == said->no_store && known->level == said->level && labels_equal(known, said) &&
           credentials_equal(known, said) && is_key_known(known, said);
}

/* A member may say anew where it is and what it is like, but not who it is. */
static void on_machine(const Fleet__RegisterMachine *machine, void *data)
{
    struct daemon *daemon = data;
    const struct registry_machine *known =
        registry_machine(store_registry(daemon->store), machine->machine_id);
    const struct pki_info *shown = downlink_peer_info(daemon->downlink, machine->machine_id);
    Fleet__RegisterMachine said = *machine;
    struct err err = {0};
    int r;

    said.key = (ProtobufCBinaryData){0};
    if (shown != NULL) /* By its session; it was compared then. */
        said.key = (ProtobufCBinaryData){.len = sizeof shown->key_id, .data = (uint8_t *)shown->key_id};
    if (known == NULL || !known->registered || known->server_id != machine->server_id ||
        machine_equals(known, &said))
        return;
    said.joins = false; /* That is ours to say. */
    said.join_token = (char *)protobuf_c_empty_string;
    r = admission_check_machine(daemon, machine, &err);
    if (r < 0)
        log_warn("Machine %s: %s", machine->machine_id, err_text(&err, r));
    else
        leading_register(daemon, &said, ignore_outcome, daemon);
}

static int on_opening(const Fleet__RegisterMachine *machine, struct err *err, void *data)
{
    struct daemon *daemon = data;
    const struct registry_machine *known =
        registry_machine(store_registry(daemon->store), machine->machine_id);
    bool own = streq(machine->machine_id, daemon->identity.machine_id);
    const char *boot = own ? daemon->identity.boot_id : known != NULL ? known->boot_id : "";
    int r = admission_check_level(daemon, machine, err);

    if (r < 0)
        return r;
    if (core_machine_leaves(daemon->core, machine->machine_id))
        return admission_check_leaving(daemon, machine, err);

    /* This host knows its own boot before the registry does. */
    if (known == NULL || boot[0] == '\0' || machine->boot_id[0] == '\0' || streq(boot, machine->boot_id))
        return 0;
    return admission_check_alone(daemon, known, err);
}

static Fleet__ConsensusPart part_of(const struct store_server *servers, size_t count, uint64_t server_id)
{
    for (size_t i = 0; i < count; i++)
        if (servers[i].id == server_id)
            return servers[i].role == SERVER_VOTER ? FLEET__CONSENSUS_PART__CONSENSUS_PART_VOTER
                                                   : FLEET__CONSENSUS_PART__CONSENSUS_PART_STANDBY;
    return FLEET__CONSENSUS_PART__CONSENSUS_PART_NONE;
}

static void on_session(const char *machine_id, uint64_t session_id, const Fleet__SessionOpen *open,
                       void *data)
{
    struct daemon *daemon = data;
    Fleet__SessionAccepted accepted = FLEET__SESSION_ACCEPTED__INIT;
    struct store_server servers[RAFT_SERVERS_MAX];
    char *members[RAFT_SERVERS_MAX];
    struct effects effects = {0};
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX);

    /* Whom to ask when this leader is lost: only who takes part in consensus is sure to hear of the next. */
    for (size_t i = 0; i < count; i++)
        members[i] = (char *)servers[i].address;
    accepted.part = part_of(servers, count, open->machine->server_id);
    accepted.term = store_term(daemon->store);
    accepted.ttl_ms = daemon->config.agent_ttl_ms;
    accepted.heartbeat_ms = daemon->config.agent_ttl_ms / HEARTBEATS_PER_TTL;
    accepted.moves_on_shutdown = true;
    accepted.members = members;
    accepted.n_members = count;
    accepted.recoveries = daemon->member.history.recoveries;
    accepted.history = history_id(&daemon->member.history);
    downlink_accepted(daemon->downlink, machine_id, &accepted);
    on_machine(open->machine, daemon);
    certifier_opened(daemon->certifier, machine_id, downlink_peer_info(daemon->downlink, machine_id));
    core_session_open(daemon->core, machine_id, session_id, open->reports, open->n_reports,
                      open->shutting_down, now_ms(), &effects);
    carry_out(daemon, &effects);
}

static void on_reports(const char *machine_id, uint64_t session_id, const Fleet__Reports *reports, void *data)
{
    struct daemon *daemon = data;
    struct effects effects = {0};

    core_session_report(daemon->core, machine_id, session_id, reports->reports, reports->n_reports, now_ms(),
                        &effects);
    carry_out(daemon, &effects);
}

static void on_heard(const char *machine_id, uint64_t session_id, void *data)
{
    struct daemon *daemon = data;

    core_session_heard(daemon->core, machine_id, session_id, now_ms());
}

static void on_shutdown(const char *machine_id, uint64_t session_id, bool begins, void *data)
{
    struct daemon *daemon = data;
    struct effects effects = {0};

    core_session_shutdown(daemon->core, machine_id, session_id, begins, now_ms(), &effects);
    carry_out(daemon, &effects);
}

struct goodbye {
    struct daemon *daemon;
    char machine_id[MACHINE_ID_SIZE];
};

static void on_goodbye_noted(enum store_outcome outcome, const struct registry_result *result,
                             const char *reason, void *data)
{
    struct goodbye *goodbye = data;
    Fleet__SessionDown message = FLEET__SESSION_DOWN__INIT;
    Fleet__Farewell farewell = FLEET__FAREWELL__INIT;

    if (outcome == STORE_APPLIED) {
        message.message_case = FLEET__SESSION_DOWN__MESSAGE_FAREWELL;
        message.farewell = &farewell;
        downlink_send(goodbye->daemon->downlink, goodbye->machine_id, &message);
    }
    free(goodbye);
}

/* For the core its session is over; it is no sign that the host is alive that it reads the answer. */
static void on_goodbye(const char *machine_id, uint64_t session_id, void *data)
{
    struct daemon *daemon = data;
    struct goodbye *goodbye = NEW0(struct goodbye);
    Fleet__MachineChange change = FLEET__MACHINE_CHANGE__INIT, *changes[] = {&change};
    Fleet__ChangeMachines body = FLEET__CHANGE_MACHINES__INIT;
    Fleet__Command command = FLEET__COMMAND__INIT;
    struct effects effects = {0};

    log_info("fleetd of machine %s is being stopped; its units run on", machine_id);
    core_session_closed(daemon->core, machine_id, session_id, now_ms(), &effects);
    carry_out(daemon, &effects);
    goodbye->daemon = daemon;
    snprintf(goodbye->machine_id, sizeof goodbye->machine_id, "%s", machine_id);
    change.machine_id = goodbye->machine_id;
    change.daemon = FLEET__DAEMON_STATE__DAEMON_STOPPED;
    body.changes = changes;
    body.n_changes = 1;
    command.body_case = FLEET__COMMAND__BODY_CHANGE_MACHINES;
    command.change_machines = &body;
    store_propose(daemon->store, &command, on_goodbye_noted, goodbye);
}

static void on_lease(const char *machine_id, uint64_t session_id, uint64_t sequence, bool urgent, void *data)
{
    struct daemon *daemon = data;

    lessor_ask(daemon->lessor, machine_id, session_id, sequence, urgent);
}

static void on_certificate_request(const char *machine_id, const Fleet__CertificateRequest *request,
                                   void *data)
{
    struct daemon *daemon = data;

    certifier_requested(daemon->certifier, machine_id, request);
}

static void on_closed(const char *machine_id, uint64_t session_id, void *data)
{
    struct daemon *daemon = data;
    struct effects effects = {0};

    if (downlink_peer_info(daemon->downlink, machine_id) == NULL) /* Otherwise there is a newer one. */
        certifier_closed(daemon->certifier, machine_id);
    core_session_closed(daemon->core, machine_id, session_id, now_ms(), &effects);
    carry_out(daemon, &effects);
}

static uint64_t on_api_request(const Fleet__ApiRequest *request, const char *machine_id, api_done *done,
                               void *done_data, void *data)
{
    struct daemon *daemon = data;

    /* While this host stops nothing is answered any more: the session is about to end, and says enough. */
    return daemon->api != NULL ? api_handle(daemon->api, request, machine_id, done, done_data) : 0;
}

static void on_api_cancel(uint64_t handle, void *data)
{
    struct daemon *daemon = data;

    if (daemon->api != NULL)
        api_cancel(daemon->api, handle);
}

struct downlink *leading_downlink_new(struct daemon *daemon)
{
    static const struct downlink_callbacks callbacks = {
        .on_opening = on_opening,
        .on_session = on_session,
        .on_reports = on_reports,
        .on_heard = on_heard,
        .on_lease = on_lease,
        .on_closed = on_closed,
        .on_goodbye = on_goodbye,
        .on_shutdown = on_shutdown,
        .on_certificate_request = on_certificate_request,
        .on_machine = on_machine,
        .on_settings = on_settings,
        .on_api_request = on_api_request,
        .on_api_cancel = on_api_cancel,
    };

    return downlink_new(daemon->loop, &callbacks, daemon);
}
