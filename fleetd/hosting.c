/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <systemd/sd-daemon.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/agent_dropin.h"
#include "fleetd/daemon_private.h"
#include "fleetd/http_listen.h"
#include "fleetd/lease_page.h"
#include "fleetd/messages.h"
#include "raftstore/limits.h"
#include "raftstore/registry_security.h"

#define SHARE_BYTES_MAX (512u * 1024 * 1024)

/* ---- who this host is ---- */

static void describe_credentials(struct daemon *daemon)
{
    struct credentials *credentials = &daemon->credentials;
    Fleet__RegisterMachine *machine = &daemon->machine;

    if (!credentials_complete(credentials))
        return;
    machine->n_roots = credentials->root_count;
    machine->roots = xcalloc(machine->n_roots, sizeof *machine->roots);
    for (size_t i = 0; i < machine->n_roots; i++)
        machine->roots[i] =
            (ProtobufCBinaryData){.len = PKI_FINGERPRINT_SIZE, .data = credentials->fingerprints[i]};
    machine->certified_by =
        (ProtobufCBinaryData){.len = sizeof credentials->info.issuer, .data = credentials->info.issuer};
}

void hosting_describe(struct daemon *daemon)
{
    Fleet__RegisterMachine *machine = &daemon->machine;

    for (size_t i = 0; i < machine->n_metadata; i++)
        free(machine->metadata[i]);
    free(machine->metadata);
    free(machine->roots);
    fleet__register_machine__init(machine);
    machine->machine_id = daemon->identity.machine_id;
    machine->boot_id = daemon->identity.boot_id;
    machine->hostname = daemon->identity.hostname;
    machine->public_ip = daemon->identity.public_ip;
    machine->cluster_address = daemon->cluster_address;
    machine->server_id = daemon->member.server_id;
    machine->version = (char *)PACKAGE_VERSION;
    machine->disable_engine = daemon->config.disable_engine;
    machine->level = cluster_own_level(daemon);
    machine->no_store = daemon->bystander;
    machine->n_metadata = daemon->config.metadata_count;
    machine->metadata = xcalloc(machine->n_metadata, sizeof *machine->metadata);
    for (size_t i = 0; i < machine->n_metadata; i++) {
        machine->metadata[i] = NEW0(Fleet__Label);
        fleet__label__init(machine->metadata[i]);
        machine->metadata[i]->key = daemon->config.metadata[i].key;
        machine->metadata[i]->value = daemon->config.metadata[i].value;
    }
    describe_credentials(daemon);
}

/* A changed id on the fly would be another machine with this one's units (fleet-behaviour.md §5.4 did that).
 */
static void check_machine_id(struct daemon *daemon, const char *now)
{
    const char *mine = daemon->identity.machine_id;
    const char *before = daemon->other_machine_id[0] != '\0' ? daemon->other_machine_id : mine;

    if (streq(now, before))
        return;
    snprintf(daemon->other_machine_id, sizeof daemon->other_machine_id, "%s", streq(now, mine) ? "" : now);
    if (!streq(now, mine))
        log_message(
            LOG_ERR, log_fields(MESSAGE_MACHINE_ID_CHANGED),
            "/etc/machine-id says %s now, but this host is %s in its cluster, and stays that while fleetd "
            "runs: put the old id back, or move %s away and join anew",
            now, mine, daemon->config.data_dir);
}

bool hosting_refresh(struct daemon *daemon, struct identity *fresh)
{
    struct identity *identity = &daemon->identity;
    bool changed =
        !streq(fresh->public_ip, identity->public_ip) || !streq(fresh->hostname, identity->hostname);

    check_machine_id(daemon, fresh->machine_id);
    if (changed) {
        log_notice("This host is %s now, public address \"%s\"%s", fresh->hostname, fresh->public_ip,
                   daemon->config.cluster_address[0] == '\0' && !streq(fresh->public_ip, identity->public_ip)
                       ? " (the other daemons go on dialling the old one until fleetd is restarted)"
                       : "");
        free(identity->hostname);
        free(identity->public_ip);
        identity->hostname = TAKE_PTR(fresh->hostname);
        identity->public_ip = TAKE_PTR(fresh->public_ip);
        hosting_describe(daemon);
    }
    identity_done(fresh);
    return changed;
}

static void tell_settings(struct daemon *daemon)
{
    Fleet__ChangeSettings settings = FLEET__CHANGE_SETTINGS__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    settings.voters = daemon->voters_to_tell;
    message.message_case = FLEET__SESSION_UP__MESSAGE_CHANGE_SETTINGS;
    message.change_settings = &settings;
    if (uplink_send(daemon->uplink, &message))
        daemon->voters_to_tell = 0;
}

void hosting_announce(struct daemon *daemon)
{
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    if (daemon->uplink == NULL)
        return;
    message.message_case = FLEET__SESSION_UP__MESSAGE_MACHINE;
    message.machine = &daemon->machine;
    uplink_send(daemon->uplink, &message);
    if (daemon->voters_to_tell != 0)
        tell_settings(daemon);
}

/* ---- reports ---- */

static Fleet__UnitReport *report_message(const struct agent_report *report)
{
    Fleet__UnitReport *message = NEW0(Fleet__UnitReport);

    fleet__unit_report__init(message);
    message->name = xstrdup(report->name);
    message->load_state = xstrdup(report->load_state);
    message->active_state = xstrdup(report->active_state);
    message->sub_state = xstrdup(report->sub_state);
    message->hash = xstrdup(report->hash);
    message->generation = report->generation;
    message->result = xstrdup(report->result);
    message->error = xstrdup(report->error);
    message->launched = report->launched;
    message->asked = report->asked;
    message->gone = report->gone;
    return message;
}

static void report_list_add(const struct agent_report *report, void *data)
{
    struct report_list *list = data;

    GROW(list->items, list->capacity, list->count + 1);
    list->items[list->count++] = report_message(report);
}

static void on_report(const struct agent_report *report, void *data)
{
    struct daemon *daemon = data;

    /* Several changes in one turn of the loop are one message. The newest report of a unit says all. */
    report_list_add(report, &daemon->reports);
    if (report->gone && daemon->uplink != NULL)
        daemon->reports.items[daemon->reports.count - 1]->after_share =
            1 + uplink_share_count(daemon->uplink);
}

static void reports_clear(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->reports.count; i++)
        fleet__unit_report__free_unpacked(daemon->reports.items[i], NULL);
    daemon->reports.count = 0;
}

void hosting_report_all(struct daemon *daemon)
{
    agent_each(daemon->agent, report_list_add, &daemon->reports);
}

void hosting_step(struct daemon *daemon)
{
    Fleet__Reports reports = FLEET__REPORTS__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    if (daemon->uplink != NULL)
        uplink_go_on(daemon->uplink); /* systemd may have said what runs here. */
    if (daemon->reports.count == 0)
        return;
    /* What has changed since the session was opened goes out when it is accepted. */
    if (daemon->uplink != NULL && uplink_is_opening(daemon->uplink))
        return;
    /* What the core knows of units goes with the store, when fleetd ends. */
    if (daemon->store != NULL && daemon->core != NULL)
        core_local_reports(daemon->core, daemon->identity.machine_id, daemon->reports.items,
                           daemon->reports.count);
    /* Without a session nothing is lost: the next one begins with everything. */
    if (daemon->uplink != NULL && uplink_is_open(daemon->uplink)) {
        reports.reports = daemon->reports.items;
        reports.n_reports = daemon->reports.count;
        message.message_case = FLEET__SESSION_UP__MESSAGE_REPORTS;
        message.reports = &reports;
        uplink_send(daemon->uplink, &message);
    }
    reports_clear(daemon);
}

static void on_bus(bool connected, const char *why, void *data)
{
    _cleanup_(freep) char *reason = xasprintf("FLEET_REASON=%s", why);

    if (!connected) /* The agent itself says when it is back. */
        log_message(
            LOG_ERR, log_fields(MESSAGE_SYSTEMD_LOST, reason),
            "No connection to systemd: %s. Units run on, but nothing can be changed here until it is back",
            why);
}

/* ---- session ---- */

static bool is_informed(void *data)
{
    struct daemon *daemon = data;

    return agent_is_informed(daemon->agent);
}

static Fleet__SessionOpen *on_open(void *data)
{
    struct daemon *daemon = data;
    Fleet__SessionOpen *open = NEW0(Fleet__SessionOpen);
    Fleet__RegisterMachine *machine;
    struct report_list list = {0};
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t size = fleet__register_machine__get_packed_size(&daemon->machine);

    fleet__session_open__init(open);
    bytes = xmalloc(size);
    fleet__register_machine__pack(&daemon->machine, bytes);
    machine = fleet__register_machine__unpack(NULL, size, bytes);
    if (getrandom(&open->session_id, sizeof open->session_id, 0) != (ssize_t)sizeof open->session_id)
        abort();
    open->session_id |= 1; /* 0 means none. */
    open->machine = machine;
    open->complete = true;
    open->answers = true;
    open->shutting_down = going_down_opening(daemon->going_down);
    agent_each(daemon->agent, report_list_add, &list);
    open->reports = list.items;
    open->n_reports = list.count;
    reports_clear(daemon);
    return open;
}

static void on_members(const Fleet__Members *members, void *data)
{
    struct strlist addresses = {0};

    config_add_addresses(&addresses, members->addresses, members->n_addresses);
    cluster_set_peers(data, &addresses);
    strlist_done(&addresses);
}

static int on_accepted(const Fleet__SessionAccepted *accepted, void *data)
{
    struct daemon *daemon = data;
    struct strlist members = {0};
    struct cluster_history history;

    if (!history_read(accepted->recoveries, &accepted->history, &history) ||
        !cluster_follow_history(daemon, &history))
        return -EXDEV;
    config_add_addresses(&members, accepted->members, accepted->n_members);
    cluster_set_peers(daemon, &members);
    strlist_done(&members);
    if (accepted->part == FLEET__CONSENSUS_PART__CONSENSUS_PART_NONE && daemon->store != NULL)
        store_retire(daemon->store);
    hosting_announce(daemon); /* It may have changed while the session was opening. */
    going_down_accepted(daemon->going_down, accepted->moves_on_shutdown);
    if (daemon->router != NULL) /* It ends before the session does. */
        router_connected(daemon->router);
    membership_arrived(daemon);
    daemon_update_status(daemon);
    return 0;
}

static void share_clear(struct share_buffer *share)
{
    for (size_t i = 0; i < share->count; i++)
        fleet__share__free_unpacked(share->pieces[i], NULL);
    free(share->pieces);
    *share = (struct share_buffer){0};
}

static int want_unit(const Fleet__ShareUnit *message, struct agent_unit *ret)
{
    if (message->desired != FLEET__DESIRED_STATE__DESIRED_LOADED &&
        message->desired != FLEET__DESIRED_STATE__DESIRED_LAUNCHED)
        return -EINVAL;
    *ret = (struct agent_unit){
        .name = message->name,
        .hash = message->hash,
        .text = message->text.len > 0 ? (const char *)message->text.data : NULL,
        .text_size = message->text.len,
        .desired = message->desired == FLEET__DESIRED_STATE__DESIRED_LAUNCHED ? UNIT_STATE_LAUNCHED
                                                                              : UNIT_STATE_LOADED,
        .generation = message->generation,
        .token = message->token,
        .restart = message->restart,
        .stop_ms = message->stop_ms,
    };
    return 0;
}

/* Hands a whole share to the agent in one call: what comes together is done together. */
static int carry_out_share(struct daemon *daemon, const struct share_buffer *share)
{
    _cleanup_(freep) struct agent_unit *wanted = NULL;
    _cleanup_(freep) const char **removed = NULL;
    size_t wanted_count = 0, removed_count = 0;
    bool complete = false;
    struct err err = {0};
    int r = 0;

    for (size_t i = 0; i < share->count; i++) {
        wanted_count += share->pieces[i]->n_units;
        removed_count += share->pieces[i]->n_removed;
        complete = complete || share->pieces[i]->complete;
    }
    wanted = xcalloc(wanted_count, sizeof *wanted);
    removed = xcalloc(removed_count, sizeof *removed);
    wanted_count = removed_count = 0;
    for (size_t i = 0; i < share->count && r >= 0; i++) {
        for (size_t j = 0; j < share->pieces[i]->n_units && r >= 0; j++)
            r = want_unit(share->pieces[i]->units[j], &wanted[wanted_count++]);
        for (size_t j = 0; j < share->pieces[i]->n_removed; j++)
            removed[removed_count++] = share->pieces[i]->removed[j];
    }
    if (r >= 0)
        r = agent_want(daemon->agent, wanted, wanted_count, removed, removed_count, complete, &err);
    if (r >= 0 && agent_wants_lease(daemon->agent) && daemon->uplink != NULL)
        uplink_beat(daemon->uplink); /* Nothing of it is started before the leader has answered this. */
    if (r < 0)
        log_warn("The leader's share cannot be carried out: %s. Asking for all of it again",
                 err_text(&err, r));
    return r;
}

static int on_share(const Fleet__Share *borrowed, void *data)
{
    struct daemon *daemon = data;
    struct share_buffer *share = &daemon->share;
    size_t size = fleet__share__get_packed_size(borrowed);
    _cleanup_(freep) uint8_t *bytes = xmalloc(size);
    int r;

    /* A copy, since the pieces must wait for the last one. */
    fleet__share__pack(borrowed, bytes);
    share->bytes += size;
    if (share->bytes > SHARE_BYTES_MAX)
        return -E2BIG;
    GROW(share->pieces, share->capacity, share->count + 1);
    share->pieces[share->count++] = fleet__share__unpack(NULL, size, bytes);
    if (borrowed->more)
        return 0;
    r = carry_out_share(daemon, share);
    share_clear(share);
    return r;
}

static void on_api_reply(const Fleet__ApiReply *reply, void *data)
{
    struct daemon *daemon = data;

    if (daemon->router != NULL)
        router_reply(daemon->router, reply);
}

static void on_host_request(const Fleet__HostRequest *request, void *data)
{
    struct daemon *daemon = data;

    if (!daemon->stopping)
        host_queries_begin(daemon->queries, request);
}

static void on_host_cancel(uint64_t id, void *data)
{
    struct daemon *daemon = data;

    host_queries_cancel(daemon->queries, id);
}

static void on_host_reply(const Fleet__HostReply *reply, void *data)
{
    struct daemon *daemon = data;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;

    message.message_case = FLEET__SESSION_UP__MESSAGE_HOST_REPLY;
    message.host_reply = (Fleet__HostReply *)reply;
    if (daemon->uplink != NULL)
        uplink_send(daemon->uplink, &message);
}

static bool on_beat(uint64_t sequence, void *data)
{
    struct daemon *daemon = data;

    if (!agent_wants_lease(daemon->agent))
        return false;
    agent_lease_sent(daemon->agent, sequence);
    return true;
}

static void on_lease(uint64_t sequence, uint64_t lease_ms, void *data)
{
    struct daemon *daemon = data;

    agent_lease_granted(daemon->agent, sequence, lease_ms);
}

static void on_lost(const char *why, void *data)
{
    struct daemon *daemon = data;

    log_info("The session to the leader has ended: %s. Units run on; looking for the leader", why);
    share_clear(&daemon->share);
    host_queries_cancel_all(daemon->queries);
    agent_lease_session_lost(daemon->agent);
    if (daemon->router != NULL)
        router_disconnected(daemon->router);
    farewell_answered(daemon);
    going_down_session_lost(daemon->going_down);
    daemon_update_status(daemon);
}

static void on_credentials(const Fleet__Credentials *message, void *data)
{
    renewal_told(data, message);
}

static void on_certificate(const Fleet__Certificate *message, void *data)
{
    renewal_issued(data, message);
}

static void on_removed(void *data)
{
    removal_heard(data);
}

static void on_farewell(void *data)
{
    farewell_answered(data);
}

static void on_shutdown_ready(void *data)
{
    struct daemon *daemon = data;

    going_down_ready(daemon->going_down);
}

/* Said again now and then for as long as it lasts: nothing is started here until a person has looked. */
static void on_refused(const char *why, void *data)
{
    struct daemon *daemon = data;
    uint64_t now = now_ms();

    if (daemon->refused_ms != 0 && now - daemon->refused_ms < REFUSED_LOG_MS)
        return;
    daemon->refused_ms = now;
    log_error("The leader refuses this host: %s", why);
    daemon_update_status(daemon);
}

struct uplink *hosting_uplink_new(struct daemon *daemon)
{
    static const struct uplink_callbacks callbacks = {
        .is_informed = is_informed,
        .on_open = on_open,
        .on_accepted = on_accepted,
        .on_members = on_members,
        .on_share = on_share,
        .on_beat = on_beat,
        .on_lease = on_lease,
        .on_api_reply = on_api_reply,
        .on_farewell = on_farewell,
        .on_shutdown_ready = on_shutdown_ready,
        .on_host_request = on_host_request,
        .on_host_cancel = on_host_cancel,
        .on_credentials = on_credentials,
        .on_certificate = on_certificate,
        .on_removed = on_removed,
        .on_lost = on_lost,
        .on_refused = on_refused,
    };

    return uplink_new(daemon->loop, daemon->port, &callbacks, daemon);
}

/* ---- API ---- */

static bool router_send(const Fleet__SessionUp *message, void *data)
{
    struct daemon *daemon = data;

    return daemon->uplink != NULL && uplink_send(daemon->uplink, message);
}

static const char *router_trouble(void *data)
{
    struct daemon *daemon = data;

    return daemon->uplink != NULL ? uplink_trouble(daemon->uplink) : "fleetd is starting";
}

static bool router_member(void *data)
{
    struct daemon *daemon = data;

    return daemon->is_member && !daemon->member.removed;
}

static uint64_t router_local(const Fleet__ApiRequest *request, api_done *done, void *done_data, void *data)
{
    static const char no_room[] = "{\"error\":{\"code\":503,\"message\":\"this host keeps no copy of the "
                                  "cluster's data at the moment, and knows nothing by itself\"}}";
    struct daemon *daemon = data;

    if (daemon->bystander) {
        done(&(struct api_answer){503, "application/json", no_room, sizeof no_room - 1}, done_data);
        return 0;
    }
    return api_handle(daemon->api, request, NULL, done, done_data);
}

static const char *role_word(const struct daemon *daemon)
{
    static const char *const words[] = {
        [STORE_IDLE] = "none",
        [STORE_FOLLOWER] = "follower",
        [STORE_CANDIDATE] = "candidate",
        [STORE_LEADER] = "leader",
    };

    return daemon->store != NULL ? words[store_role(daemon->store)] : "none";
}

char *hosting_status_json(struct daemon *daemon)
{
    const struct registry *registry = daemon->store != NULL ? store_registry(daemon->store) : NULL;
    char cluster[2 * CLUSTER_ID_SIZE + 1] = "";
    size_t units = 0, machines = 0;
    json_t *body;
    char *text;

    if (daemon->is_member)
        id_to_hex(daemon->member.cluster_id, CLUSTER_ID_SIZE, cluster);
    if (registry != NULL) {
        registry_units(registry, &units);
        registry_machines(registry, &machines);
    }
    body = json_pack(
        "{s:s,s:i,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:b,s:s}", "version", PACKAGE_VERSION,
        "featureLevel", (int)(registry != NULL ? registry_level(registry) : 0), "machineID",
        daemon->identity.machine_id, "hostname", daemon->identity.hostname, "cluster", cluster, "role",
        role_word(daemon), "leader", daemon->store != NULL ? store_leader_address(daemon->store) : "", "term",
        (json_int_t)(daemon->store != NULL ? store_term(daemon->store) : 0), "applied",
        (json_int_t)(registry != NULL ? registry_version(registry) : 0), "units", (json_int_t)units,
        "machines", (json_int_t)machines, "session", daemon->uplink != NULL && uplink_is_open(daemon->uplink),
        "systemd", agent_bus_connected(daemon->agent), "trouble",
        daemon->superseded != NULL ? daemon->superseded : router_trouble(daemon));
    text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(body);
    return text;
}

static int router_admit(const struct access_caller *caller, enum pki_role needed, bool here, struct err *err,
                        void *data)
{
    struct daemon *daemon = data;
    const struct registry *registry = daemon->store != NULL ? store_registry(daemon->store) : NULL;
    struct access_facts facts = {.secure = !daemon->config.insecure,
                                 .certificate = ACCESS_CERTIFICATE_UNCHECKED,
                                 .via = daemon->identity.hostname,
                                 .via_role = PKI_ROLE_ADMIN};

    if (registry != NULL && registry_is_secure(registry))
        facts.certificate = api_certificate(registry, caller, wall_ms());
    /* It may just have been made: the leader knows. */
    if (facts.certificate == ACCESS_CERTIFICATE_UNKNOWN && !here)
        facts.certificate = ACCESS_CERTIFICATE_UNCHECKED;
    return access_check(caller, &facts, needed, err);
}

static char *router_metrics(void *data)
{
    return observing_metrics(data);
}

static char *router_status(void *data)
{
    return hosting_status_json(data);
}

static void on_http_request(struct http_request *request, void *data)
{
    struct daemon *daemon = data;

    if (!membership_request(daemon, request))
        router_request(daemon->router, request);
}

static void on_http_gone(struct http_request *request, void *data)
{
    struct daemon *daemon = data;

    membership_gone(daemon, request);
    router_gone(daemon->router, request);
}

static int start_listeners(struct daemon *daemon, struct err *err)
{
    char **names = NULL;
    int r, count = sd_listen_fds_with_names(1, &names);

    if (count < 0)
        log_error("What systemd says of the sockets that it passed makes no sense: %s", strerror(-count));
    daemon->listeners = listeners_new(daemon->loop, daemon->http, daemon->config.insecure);
    listeners_take_passed(daemon->listeners, SD_LISTEN_FDS_START, count > 0 ? count : 0, names);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    r = listeners_set_socket(daemon->listeners, daemon->config.api_socket,
                             http_find_group(daemon->config.api_socket_group),
                             daemon->config.api_socket_others, err);
    return r < 0 ? r : listeners_set_address(daemon->listeners, daemon->config.api_listen, err);
}

int hosting_start(struct daemon *daemon, struct err *err)
{
    static const struct agent_callbacks agent_callbacks = {.on_report = on_report, .on_bus = on_bus};
    static const struct http_callbacks http_callbacks = {.on_request = on_http_request,
                                                         .on_gone = on_http_gone};
    static const struct router_callbacks router_callbacks = {
        .send = router_send,
        .trouble = router_trouble,
        .member = router_member,
        .admit = router_admit,
        .local = router_local,
        .status = router_status,
        .metrics = router_metrics,
    };
    const char *directory = daemon->config.units_directory; /* Without a slash at its end. */
    _cleanup_(freep) char *state_file =
        xasprintf("%.*s/" AGENT_STATE_NAME, (int)(strrchr(directory, '/') - directory), directory);
    struct agent_config agent_config = {
        .units_directory = daemon->config.units_directory,
        .state_file = state_file,
        .lease_file = daemon->config.systemd_user ? NULL : LEASE_PAGE_FILE,
        .dropin_directory = daemon->config.systemd_user ? NULL : AGENT_DROPIN_DIRECTORY,
        .user_bus = daemon->config.systemd_user,
    };
    int r = agent_new(daemon->loop, &agent_config, &agent_callbacks, daemon, &daemon->agent, err);

    if (r < 0)
        return r;
    daemon->going_down = going_down_new(daemon);
    daemon->queries = host_queries_new(daemon->loop, daemon->config.systemd_user, on_host_reply, daemon);
    daemon->router = router_new(daemon->loop, &router_callbacks, daemon);
    daemon->http = http_server_new(daemon->loop, "fleetd/" PACKAGE_VERSION, &http_callbacks, daemon);
    return start_listeners(daemon, err);
}
