/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/membership.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/api_json.h"
#include "fleetd/audit.h"
#include "fleetd/daemon_private.h"
#include "fleetd/founding.h"
#include "raftstore/limits.h"

#define TOKEN_FILE_MAX 4096u
#define BY_HAND_MS     30000u
#define BY_HAND_MS_MAX 600000u
#define TROUBLE_LOG_MS 60000u /* How often the same trouble is said again. */

/* What somebody asked for at this host's socket. */
struct by_hand {
    struct http_request *request; /* Until it is answered; NULL: nobody waits. */
    uint64_t deadline_ms;
    struct join_token token;
    bool joined; /* By joining; otherwise it founded. */
};

struct membership {
    struct joiner *joiner; /* JOINING */
    struct pki_blob request;
    bool manual; /* The joiner works by hand. */
    struct by_hand by_hand;
    unsigned voters;   /* Of the cluster that is founded; 0: as configured. */
    unsigned machines; /* In the cluster that was joined, then. */
    char trouble[512];
    uint64_t trouble_ms; /* When it was logged. */
};

static void forget_by_hand(struct membership *membership)
{
    explicit_bzero(membership->by_hand.token.secret, sizeof membership->by_hand.token.secret);
    membership->by_hand = (struct by_hand){0};
}

/* ---- answers ---- */

static void reply_json(struct http_request *request, unsigned status, json_t *body)
{
    size_t size;
    _cleanup_(freep) char *text = api_json_print(body, &size);

    json_decref(body);
    http_reply(request, status, "application/json", text, size);
}

static void reply_error(struct http_request *request, unsigned status, const char *text)
{
    reply_json(request, status,
               json_pack("{s:{s:i,s:o}}", "error", "code", (int)status, "message", api_json_text(text)));
}

static void answer_failure(struct membership *membership, unsigned status, const char *text)
{
    struct http_request *request = TAKE_PTR(membership->by_hand.request);

    forget_by_hand(membership);
    if (request != NULL)
        reply_error(request, status, text);
}

void membership_arrived(struct daemon *daemon)
{
    struct membership *membership = daemon->membership;
    struct http_request *request = TAKE_PTR(membership->by_hand.request);
    char cluster[2 * CLUSTER_ID_SIZE + 1];

    forget_by_hand(membership);
    if (request == NULL)
        return;
    id_to_hex(daemon->member.cluster_id, CLUSTER_ID_SIZE, cluster);
    reply_json(request, 200,
               json_pack("{s:s,s:s,s:i}", "cluster", cluster, "machineID", daemon->identity.machine_id,
                         "machines", (int)(membership->machines > 0 ? membership->machines : 1)));
}

/* ---- founding ---- */

static int found_authority(struct daemon *daemon, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r = founding_certify(&daemon->credentials, daemon->member.cluster_id, &daemon->machine, wall_ms(),
                             settings_row(SETTING_CERTIFICATE_LIFETIME)->fallback, &key, err);

    /* Before the member file: with that file this host goes on founding after a crash. */
    return r < 0 ? r : credentials_save_authority(&daemon->credentials, key, err);
}

static int found(struct daemon *daemon, const char *why, struct err *err)
{
    int r = 0;

    member_clear_superseded(daemon->config.data_dir);
    member_draw_cluster_id(&daemon->member);
    member_draw_server_id(&daemon->member);
    strcpy(daemon->member.machine_id, daemon->identity.machine_id);
    daemon->member.founder = true;
    hosting_describe(daemon);
    if (!daemon->config.insecure)
        r = found_authority(daemon, err);
    if (r >= 0)
        r = member_save(daemon->config.data_dir, &daemon->member, err);
    if (r < 0) {
        member_done(&daemon->member);
        daemon->member = (struct member){0};
        return r;
    }
    log_notice("Starting a new cluster (%s)", why);
    return cluster_become_member(daemon, err);
}

/* ---- joining ---- */

static void on_joiner_gone(void *data)
{
}

static void stop_joining(struct membership *membership)
{
    if (membership->joiner != NULL)
        joiner_close(TAKE_PTR(membership->joiner), on_joiner_gone, NULL);
    pki_blob_done(&membership->request);
}

static Fleet__RegisterMachine *joiner_machine(void *data)
{
    struct daemon *daemon = data;

    return &daemon->machine;
}

static const struct pki_blob *joiner_request(void *data)
{
    struct daemon *daemon = data;

    return &daemon->membership->request;
}

static int read_token_file(const char *path, char *text, size_t size, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

    if (got < 0)
        return err_set(err, -errno, "join_token_file: cannot read %s: %s", path, strerror(errno));
    text[got] = '\0';
    return 0;
}

static int joiner_token(struct join_token *ret, struct err *err, void *data)
{
    struct daemon *daemon = data;
    const struct config *config = &daemon->config;
    char text[TOKEN_FILE_MAX];
    int r;

    if (daemon->membership->manual) {
        *ret = daemon->membership->by_hand.token;
        return 0;
    }
    if (config->join_token[0] != '\0') {
        r = join_token_parse(config->join_token, ret, err);
        return r < 0 ? err_prefix(err, r, "join_token") : 0;
    }
    if (config->join_token_file[0] == '\0')
        return err_set(err, -ENOENT,
                       "join is set, but neither join_token nor join_token_file (fleetctl join-token, on "
                       "a member, makes one)");
    r = read_token_file(config->join_token_file, text, sizeof text, err);
    if (r >= 0) {
        r = join_token_parse(text, ret, err);
        if (r < 0)
            err_prefix(err, r, "join_token_file: %s", config->join_token_file);
    }
    explicit_bzero(text, sizeof text);
    return r;
}

static void copy_blobs(const ProtobufCBinaryData *from, size_t count, struct pki_blob *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (struct pki_blob){.data = from[i].data, .size = from[i].len};
}

/* What the leader has issued. The reply comes from who has proved to be the cluster that the token is for. */
static int take_credentials(struct daemon *daemon, const Fleet__JoinReply *reply, struct err *err)
{
    struct pki_blob chain[PKI_CHAIN_MAX], roots[PKI_ROOTS_MAX];
    struct credentials_issued issued = {
        .chain = chain, .chain_count = reply->n_chain, .roots = roots, .root_count = reply->n_roots};

    if (daemon->config.insecure)
        return reply->n_chain == 0 ? 0 : err_set(err, -EKEYREJECTED, "it is secure, and this host is not");
    if (reply->n_chain > PKI_CHAIN_MAX || reply->n_roots > PKI_ROOTS_MAX)
        return err_set(err, -EKEYREJECTED, "it has issued too many certificates");
    copy_blobs(reply->chain, reply->n_chain, chain);
    copy_blobs(reply->roots, reply->n_roots, roots);
    return credentials_take(&daemon->credentials, &issued, reply->cluster_id.data,
                            daemon->identity.machine_id, wall_ms(), err);
}

static void give_up(struct daemon *daemon);

/* A member whose certificate had ended: it goes on as who it was. */
static void joined_again(struct daemon *daemon)
{
    log_notice("This host has a new certificate by a join token, and goes on as the machine that it was");
    stop_joining(daemon->membership);
    daemon->membership->manual = false;
    renewal_use(daemon);
}

static int on_admitted(const Fleet__JoinReply *reply, struct err *err, void *data)
{
    struct daemon *daemon = data;
    struct membership *membership = daemon->membership;
    int r;

    if (daemon->is_member && memcmp(daemon->member.cluster_id, reply->cluster_id.data, CLUSTER_ID_SIZE) != 0)
        return err_set(err, -EXDEV, "it is of another cluster than the one that this host is a machine of");
    r = take_credentials(daemon, reply, err);
    if (r < 0)
        return err_prefix(err, r, "what the cluster has issued is of no use");
    membership->machines = reply->machines;
    if (daemon->is_member) {
        joined_again(daemon);
        return 0;
    }
    memcpy(daemon->member.cluster_id, reply->cluster_id.data, CLUSTER_ID_SIZE);
    if (!history_read(reply->recoveries, &reply->history, &daemon->member.history))
        return err_set(err, -EBADMSG, "its answer to the request to join makes no sense");
    member_clear_superseded(daemon->config.data_dir);
    config_add_addresses(&daemon->member.peers, reply->members, reply->n_members);
    if (daemon->member.peers.count == 0)
        return err_set(err, -EBADMSG, "its answer names no member of the cluster");
    r = member_save(daemon->config.data_dir, &daemon->member, err);
    if (r < 0)
        daemon_fatal(daemon, err_text(err, r));
    log_notice("Joined the cluster");
    membership->trouble[0] = '\0';
    stop_joining(membership);
    r = cluster_become_member(daemon, err);
    if (r < 0)
        daemon_fatal(daemon, err_text(err, r));
    daemon_update_status(daemon);
    return 0;
}

static void on_trouble(const char *why, bool final, void *data)
{
    struct daemon *daemon = data;
    struct membership *membership = daemon->membership;
    uint64_t now = now_ms();
    bool known = streq(membership->trouble, why);

    snprintf(membership->trouble, sizeof membership->trouble, "%s", why);
    if (membership->manual && final) {
        log_warn("Cannot join: %s", why);
        answer_failure(membership, 403, why);
        give_up(daemon);
    } else if (!known || now - membership->trouble_ms >= TROUBLE_LOG_MS) {
        membership->trouble_ms = now;
        log_warn("Cannot join yet: %s. Trying again", why);
    }
    daemon_update_status(daemon);
}

static int start_joining(struct daemon *daemon, const struct strlist *addresses, bool manual, struct err *err)
{
    struct membership *membership = daemon->membership;
    struct joiner_callbacks callbacks = {
        .machine = joiner_machine, .on_admitted = on_admitted, .on_trouble = on_trouble};
    int r;

    if (!daemon->config.insecure) {
        callbacks.token = joiner_token;
        callbacks.request = joiner_request;
        r = credentials_request(&daemon->credentials, &membership->request, err);
        if (r < 0)
            return r;
    }
    /* The same in all attempts of this process: an answer that was lost is then given once more. */
    if (daemon->member.server_id == 0)
        member_draw_server_id(&daemon->member);
    strcpy(daemon->member.machine_id, daemon->identity.machine_id);
    hosting_describe(daemon);
    membership->manual = manual;
    membership->trouble[0] = '\0';
    membership->joiner = joiner_new(daemon->loop, daemon->port, addresses, &callbacks, daemon);
    return 0;
}

/* ---- by configuration ---- */

static int begin(struct daemon *daemon, struct err *err)
{
    if (daemon->config.bootstrap)
        return found(daemon, "bootstrap = true", err);
    if (daemon->config.join.count > 0)
        return start_joining(daemon, &daemon->config.join, false, err);
    return 0;
}

void membership_reconsider(struct daemon *daemon, const struct strlist *changed)
{
    struct membership *membership = daemon->membership;
    struct err err = {0};
    int r;

    if (daemon->is_member || membership->manual ||
        (!strlist_has(changed, "bootstrap") && !strlist_has(changed, "join")))
        return;
    stop_joining(membership);
    r = begin(daemon, &err);
    if (r < 0)
        daemon_fatal(daemon, err_text(&err, r));
    daemon_update_status(daemon);
}

/* Mixing the two would be worse than either: what one side sends in clear, the other must not act on. */
static int check_mode(struct daemon *daemon, struct err *err)
{
    bool certified = credentials_complete(&daemon->credentials);
    const char *data_dir = daemon->config.data_dir;

    if (daemon->config.insecure && certified)
        return err_set(err, -EPERM,
                       "%s is of a secure cluster (it has a certificate), but \"insecure = true\" is set: "
                       "take that out of "
                       "the configuration, here and wherever else it is",
                       data_dir);
    if (!daemon->config.insecure && !certified)
        return err_set(err, -EPERM,
                       "%s is of a cluster that was made with \"insecure = true\", and has no certificate. "
                       "To go on as it "
                       "is, set that again; to become secure, see \"FROM INSECURE TO SECURE\" in fleetd(8)",
                       data_dir);
    return 0;
}

int membership_start(struct daemon *daemon, struct err *err)
{
    int r;

    daemon->membership = NEW0(struct membership);
    r = credentials_load(daemon->config.data_dir, &daemon->credentials, err);
    if (r < 0)
        return r;
    r = member_load(daemon->config.data_dir, &daemon->member, err);
    if (r == -ENOENT)
        return begin(daemon, err);
    if (r >= 0 && !streq(daemon->member.machine_id, daemon->identity.machine_id))
        return err_set(
            err, -EXDEV,
            "%s belongs to machine %s, but this one is %s: was the disk copied? Move the directory away "
            "and join this host again",
            daemon->config.data_dir, daemon->member.machine_id, daemon->identity.machine_id);
    if (r >= 0)
        r = check_mode(daemon, err);
    if (r < 0)
        return r;
    if (!daemon->member.removed)
        return cluster_become_member(daemon, err);
    removal_resume(daemon);
    return 0;
}

/* ---- by hand ---- */

static bool takes(const struct http_request *request, const char *name)
{
    const char *path = request->path;

    if (str_has_prefix(path, "/fleet/v1/"))
        path += strlen("/fleet/v1/");
    else if (str_has_prefix(path, "/v1-alpha/"))
        path += strlen("/v1-alpha/");
    return streq(path, name);
}

/* One that has lost touch because its certificate has ended, or its authority is trusted no more. */
static bool may_join_again(const struct daemon *daemon, const struct http_request *request)
{
    return takes(request, "join") && !daemon->config.insecure && !uplink_is_open(daemon->uplink);
}

/* Whether this host may change its membership now; answers otherwise. */
static bool may_change(struct daemon *daemon, struct http_request *request)
{
    char cluster[2 * CLUSTER_ID_SIZE + 1];
    _cleanup_(freep) char *text = NULL;

    if (!streq(request->method, "POST")) {
        reply_error(request, 405, "only POST supported against this resource");
    } else if (request->caller->kind != ACCESS_LOCAL) {
        reply_error(request, 403, "a host founds or joins a cluster only if it is told so on its own socket");
    } else if (daemon->member.removed) {
        reply_error(
            request, 409,
            "this host was removed from its cluster, and still stops what it has of it: try again soon");
    } else if (daemon->is_member && !may_join_again(daemon, request)) {
        id_to_hex(daemon->member.cluster_id, CLUSTER_ID_SIZE, cluster);
        text = xasprintf("this host is a member of cluster %s already", cluster);
        reply_error(request, 409, text);
    } else if (daemon->stopping) {
        reply_error(request, 503, "fleetd is stopping");
    } else if (daemon->membership->by_hand.request != NULL) {
        reply_error(request, 409, "somebody else has this host join a cluster already");
    } else {
        return true;
    }
    return false;
}

static int read_init(const json_t *body, unsigned *ret_voters, struct err *err)
{
    uint64_t voters;
    int r = api_json_get_count(body, "voters", 0, &voters, err);

    if (r >= 0 && voters != 0 && (voters > SETTING_VOTERS_MAX || voters % 2 == 0))
        r = err_set(err, -EINVAL, "voters: 1, 3, 5 or 7");
    if (r >= 0)
        *ret_voters = (unsigned)voters;
    return r;
}

static void on_init(struct daemon *daemon, struct http_request *request, const json_t *body)
{
    struct membership *membership = daemon->membership;
    struct err err = {0};
    int r = read_init(body, &membership->voters, &err);

    if (r < 0) {
        reply_error(request, 400, err_text(&err, r));
        return;
    }
    stop_joining(membership); /* A person has the last word. */
    membership->by_hand.request = request;
    membership->by_hand.deadline_ms = now_ms() + BY_HAND_MS;
    r = found(daemon, "by hand", &err);
    if (r < 0 && daemon->is_member)
        daemon_fatal(daemon, err_text(&err, r));
    if (r < 0)
        answer_failure(membership, 500, err_text(&err, r));
    daemon_update_status(daemon);
}

static int read_addresses(const json_t *body, struct strlist *ret, struct err *err)
{
    const json_t *list;
    int r = api_json_get_array(body, "addresses", &list, err);

    if (r < 0)
        return r;
    if (json_array_size(list) == 0 || json_array_size(list) > CONFIG_JOIN_MAX)
        return err_set(err, -EINVAL, "%zu addresses are given: 1 to %u are needed", json_array_size(list),
                       CONFIG_JOIN_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *address = json_string_value(json_array_get(list, i));

        if (address == NULL)
            return err_set(err, -EINVAL, "an address is no string");
        r = config_check_address(address, err);
        if (r < 0)
            return r;
        strlist_add(ret, address);
    }
    return 0;
}

static int read_join(const struct daemon *daemon, const json_t *body, struct strlist *ret_addresses,
                     struct by_hand *ret, struct err *err)
{
    const char *token;
    uint64_t timeout_ms;
    int r = read_addresses(body, ret_addresses, err);

    if (r >= 0)
        r = api_json_get_string(body, "token", &token, err);
    if (r >= 0)
        r = api_json_get_count(body, "timeoutMS", BY_HAND_MS, &timeout_ms, err);
    if (r < 0)
        return r;
    if (daemon->config.insecure && token[0] != '\0')
        return err_set(
            err, -EINVAL,
            "a token is given, but \"insecure = true\" is set in this host's fleet.conf: take it out");
    if (!daemon->config.insecure) {
        if (token[0] == '\0')
            return err_set(err, -EINVAL, "a join token is needed (fleetctl join-token, on a member)");
        r = join_token_parse(token, &ret->token, err);
        if (r < 0)
            return r;
    }
    ret->deadline_ms = now_ms() + (timeout_ms < BY_HAND_MS_MAX ? timeout_ms : BY_HAND_MS_MAX);
    return 0;
}

static void on_join(struct daemon *daemon, struct http_request *request, const json_t *body)
{
    struct membership *membership = daemon->membership;
    struct strlist addresses = {0};
    struct by_hand by_hand = {.request = request, .joined = true};
    struct err err = {0};
    int r = read_join(daemon, body, &addresses, &by_hand, &err);

    if (r < 0) {
        reply_error(request, 400, err_text(&err, r));
    } else {
        stop_joining(membership);
        membership->by_hand = by_hand;
        r = start_joining(daemon, &addresses, true, &err);
        if (r < 0)
            answer_failure(membership, 500, err_text(&err, r));
    }
    explicit_bzero(&by_hand, sizeof by_hand);
    strlist_done(&addresses);
    daemon_update_status(daemon);
}

bool membership_request(struct daemon *daemon, struct http_request *request)
{
    static const struct {
        const char *name;
        void (*begin)(struct daemon *daemon, struct http_request *request, const json_t *body);
    } kinds[] = {{"init", on_init}, {"join", on_join}};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        _cleanup_(api_json_decrefp) json_t *body = NULL;
        struct err err = {0};
        int r;

        if (!takes(request, kinds[i].name))
            continue;
        if (!router_admits(daemon->router, request, PKI_ROLE_ADMIN) || !may_change(daemon, request))
            return true;
        r = api_json_parse_object(request->body, request->body_size, &body, &err);
        if (r < 0) {
            err_prefix(&err, r, "unable to decode body");
            reply_error(request, 400, err_text(&err, r));
        } else {
            audit_change(&(struct audit_event){.caller = request->caller,
                                               .peer = request->peer,
                                               .method = request->method,
                                               .path = request->path,
                                               .outcome = "begun"});
            kinds[i].begin(daemon, request, body);
        }
        return true;
    }
    return false;
}

/* What was given up by hand is not tried any longer; what the configuration says is. */
static void give_up(struct daemon *daemon)
{
    struct membership *membership = daemon->membership;
    struct err err = {0};
    int r;

    if (!membership->manual)
        return;
    stop_joining(membership);
    membership->manual = false;
    r = daemon->is_member ? 0 : begin(daemon, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    daemon_update_status(daemon);
}

void membership_gone(struct daemon *daemon, struct http_request *request)
{
    struct membership *membership = daemon->membership;

    if (membership->by_hand.request != request)
        return;
    forget_by_hand(membership);
    if (!daemon->stopping)
        give_up(daemon);
}

/* By the configuration, if that has a token that still lets it in. */
static void join_again_if_ended(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    struct err err = {0};

    if (!daemon->is_member || daemon->member.removed || daemon->membership->joiner != NULL ||
        !credentials_ended(&daemon->credentials, wall_ms()) || config->join.count == 0 ||
        (config->join_token[0] == '\0' && config->join_token_file[0] == '\0'))
        return;
    if (start_joining(daemon, &config->join, false, &err) < 0)
        log_warn("%s", err.text);
}

void membership_tick(struct daemon *daemon)
{
    struct membership *membership = daemon->membership;
    const struct by_hand *by_hand = &membership->by_hand;
    /* One that was removed has no uplink. */
    const char *trouble = membership->joiner == NULL && daemon->uplink != NULL
                              ? uplink_trouble(daemon->uplink)
                              : membership->trouble;
    _cleanup_(freep) char *text = NULL;

    join_again_if_ended(daemon);
    if (by_hand->request == NULL || now_ms() < by_hand->deadline_ms)
        return;
    if (daemon->is_member && membership->joiner == NULL)
        text = xasprintf("this host is a member now, but has no session to a leader yet: %s", trouble);
    else
        text = xasprintf("no answer that could be used in time%s%s",
                         trouble[0] != '\0' ? "; the last trouble: " : "", trouble);
    answer_failure(membership, 504, text);
    give_up(daemon);
}

/* ---- status, end ---- */

unsigned membership_voters(const struct daemon *daemon)
{
    return daemon->membership->voters != 0 ? daemon->membership->voters : daemon->config.voters;
}

void membership_describe(const struct daemon *daemon, char *to, size_t size)
{
    const struct membership *membership = daemon->membership;

    if (membership->joiner == NULL)
        snprintf(to, size,
                 "waiting: this host belongs to no cluster (fleetctl init makes one, fleetctl join HOST:PORT "
                 "--token-file FILE joins one)");
    else
        snprintf(to, size, "joining a cluster%s%s", membership->trouble[0] != '\0' ? ": " : "",
                 membership->trouble);
}

void membership_close(struct daemon *daemon, void (*done)(void *data), void *data)
{
    struct membership *membership = daemon->membership;

    pki_blob_done(&membership->request);
    if (membership->joiner != NULL)
        joiner_close(TAKE_PTR(membership->joiner), done, data);
    else
        done(data);
}

void membership_free(struct membership *membership)
{
    if (membership == NULL)
        return;
    pki_blob_done(&membership->request);
    forget_by_hand(membership);
    free(membership);
}
