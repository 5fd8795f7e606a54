/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon's sources share: daemon.c (its life), membership.c (how it comes into a cluster), cluster.c
 * (store and port), leading.c (what only the leader does), admission.c (whom it lets in), hosting.c (what
 * every host does: agent, session, API), observing.c (metrics), reload.c (SIGHUP), dump.c (SIGUSR1). */
#pragma once

#include <stdbool.h>

#include "fleetd/agent.h"
#include "fleetd/api.h"
#include "fleetd/audit.h"
#include "fleetd/certifier.h"
#include "fleetd/config.h"
#include "fleetd/core/core.h"
#include "fleetd/credentials.h"
#include "fleetd/daemon.h"
#include "fleetd/downlink.h"
#include "fleetd/farewell.h"
#include "fleetd/gate.h"
#include "fleetd/going_down.h"
#include "fleetd/host_query.h"
#include "fleetd/http.h"
#include "fleetd/identity.h"
#include "fleetd/joiner.h"
#include "fleetd/listeners.h"
#include "fleetd/member.h"
#include "fleetd/membership.h"
#include "fleetd/metrics.h"
#include "fleetd/prober.h"
#include "fleetd/removal.h"
#include "fleetd/renewal.h"
#include "fleetd/router.h"
#include "fleetd/uplink.h"
#include "raftstore/port.h"
#include "raftstore/store.h"

/* Beside the units directory, in the same memory: what was carried out is forgotten with the units. */
#define AGENT_STATE_NAME "agent.state"

/* A host says so much more often than the ttl that a lost packet or a short stall means nothing. */
#define HEARTBEATS_PER_TTL 5u

#define REFUSED_LOG_MS 60000u /* How often a refusal that goes on is said again. */

struct daemon {
    uv_loop_t *loop;
    struct config config;
    char *config_file;
    struct identity identity;
    char *cluster_address;
    Fleet__RegisterMachine machine; /* What this host says of itself; made by hosting_describe(). */

    bool is_member;
    /* There is no room on the disk, or its data are of an older history than its cluster's: this host does
     * without its copy of the data (store, core and api are NULL), and goes on as an agent. When there is
     * room, fleetd starts anew. */
    bool bystander;
    char *superseded;      /* Why its data are not used; NULL: they may be. */
    bool is_led;           /* Raft knows a leader, as last told. */
    uint64_t led_ms;       /* When this host's Raft was last led by somebody; 0: never. */
    uint64_t complaint_ms; /* When it was said last that somebody has data of a later history. */
    uint64_t apart_ms;     /* Since when there is no session to a leader; 0: there is one. */
    bool asks_around;      /* For so long that others are asked than those who were the cluster. */
    uint64_t place_ms;     /* When it was said last that nobody looks for this host where it is. */
    struct member member;

    struct port *port;
    struct membership *membership;
    struct pki_key *proving_key; /* The authority's, out of the registry; NULL: not needed so far... */
    uint8_t proving_for[FINGERPRINT_SIZE]; /* ...and whose it is. */
    struct credentials credentials;        /* Empty where "insecure = true" is set. */
    struct gate *gate;
    struct store *store;
    struct core *core;
    struct api *api;
    struct uplink *uplink;
    struct downlink *downlink;
    struct farewell *farewell; /* While it is said. */
    struct going_down *going_down;
    struct prober *prober; /* Asks after hosts that are silent, while this one leads. */
    struct lessor *lessor;
    struct certifier *certifier;
    struct voting *voting;
    struct router *router;
    struct agent *agent;
    struct host_queries *queries;
    struct http_server *http;
    struct listeners *listeners;

    uv_prepare_t prepare;    /* on_prepare(), once in every turn before the loop sleeps. */
    uv_timer_t timer;        /* The core's and the API's next deadline. */
    unsigned reads;          /* It has come, and so often what lies here was, or is, read first... */
    uint64_t reads_since_ms; /* ...the last time since then. */
    uv_timer_t chores;       /* Once a second: voters, watchdog, status. */
    uv_signal_t signals[4];
    struct reload *reload; /* While the configuration is read again. */
    struct dump *dump;     /* While the state is written to stdout. */

    bool registry_changed;
    struct audit_budget joins_refused;
    bool level_busy;        /* The feature level is being raised. */
    struct learnt_servers { /* Of whom this host has noted last that they take part in consensus... */
        uint64_t version;   /* ...with this version of the registry... */
        uint64_t ids[RAFT_SERVERS_MAX];
        size_t count; /* ...0: of nobody yet. */
    } learnt;
    struct strlist told;     /* Addresses that all hosts with a session know, while this host leads. */
    unsigned voters_to_tell; /* What the leader has yet to hear of this host's configuration; 0: nothing. */
    struct report_list {     /* What has changed since the last message to the leader. */
        Fleet__UnitReport **items;
        size_t count, capacity;
    } reports;
    struct share_buffer { /* A share that comes in pieces, until it is whole. */
        Fleet__Share **pieces;
        size_t count, capacity, bytes;
    } share;

    struct metrics_engine engine;

    unsigned turn; /* Of the chores. */
    uint64_t watchdog_ms,
        watchdog_sent_ms; /* How often systemd is to hear from us (0: never), and when it did. */
    char other_machine_id[IDENTITY_ID_SIZE]; /* What /etc/machine-id was changed to; "": it is as it was. */
    uint64_t refused_ms;         /* When it was said last that the leader does not want this host... */
    uint64_t clone_ms;           /* ...and when this leader said last that it refuses a second host... */
    char clone[MACHINE_ID_SIZE]; /* ...of this machine id. */
    char status[256];            /* As last told to systemd. */
    bool ready, stopping;
    int exit_code;
};

/* cluster.c */
int cluster_start(struct daemon *daemon, struct err *err);
/* Whom to ask for the leader from now on, also after a restart. */
void cluster_set_peers(struct daemon *daemon, const struct strlist *addresses);
void cluster_tell_members(struct daemon *daemon); /* The same, where what else is asked has changed. */
bool cluster_knows_peers(const struct daemon *daemon, const struct strlist *addresses); /* Just these. */
void cluster_learn_peers(
    struct daemon *daemon); /* Likewise, from the store, if this host has a part in it. */
void cluster_forget_founding(struct daemon *daemon);
unsigned cluster_own_level(const struct daemon *daemon); /* Feature level that this host says it has. */
void cluster_note_log(struct daemon *daemon); /* Once the store has a log, the member file says so. */
/* The leader's data are of this history. False: this host must not follow it. */
bool cluster_follow_history(struct daemon *daemon, const struct cluster_history *history);
void cluster_look_for_room(struct daemon *daemon); /* A bystander, once a second. */
/* This host is a member (daemon->member, daemon->credentials): its part of the store opens, and its session
 * to the leader begins. */
int cluster_become_member(struct daemon *daemon, struct err *err);

/* leading.c */
void leading_start(struct daemon *daemon, uint64_t term);
void leading_stop(struct daemon *daemon);
void leading_step(
    struct daemon *daemon); /* Gives what has changed to the core and carries out what it says. */
void leading_tick(struct daemon *daemon);        /* The core's deadline has come. */
void leading_set_ttl(struct daemon *daemon);     /* The configuration was read again. */
void leading_set_placing(struct daemon *daemon); /* Likewise. */
void leading_chores(struct daemon *daemon);
void leading_probe(struct daemon *daemon); /* Once a second. */
struct downlink *leading_downlink_new(struct daemon *daemon);
struct prober *leading_prober_new(struct daemon *daemon);
void leading_register(struct daemon *daemon, const Fleet__RegisterMachine *machine, store_done *done,
                      void *data);

/* admission.c */
struct gate *admission_gate_new(struct daemon *daemon);
/* Whether what a host says of itself makes sense. */
int admission_check_machine(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                            struct err *err);
/* Whether it knows all that the cluster uses (registry_level.h). */
int admission_check_level(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                          struct err *err);
/* Whether the machine was removed, and has nothing to do with the consensus any more: then it is told so.
 * Before, it may be what makes the majority that decides on its own leaving. */
bool admission_is_out(const struct daemon *daemon, const char *machine_id);
/* Once a second: ends connections that would not be let in any more, for the machine was removed, or an
 * authority is trusted no more. */
void admission_look(struct daemon *daemon);
/* Whether a host that wants to take part in the consensus may be who it says it is. */
int admission_check_peer(const struct daemon *daemon, const struct conn *conn, const Fleet__Hello *hello,
                         struct err *err);
/* Whether the one who calls has the key that is known of this machine, as long as it has this server id. */
int admission_check_key(const struct daemon *daemon, const struct conn *conn, const char *machine_id,
                        uint64_t server_id, struct err *err);
/* Whether no other host of that machine id is there: -EEXIST and a text. */
int admission_check_alone(struct daemon *daemon, const struct registry_machine *known, struct err *err);
/* Of a machine that was removed, and that core_machine_leaves(): whether this is the host that is waited for,
 * in the boot in which it was a member. */
int admission_check_leaving(const struct daemon *daemon, const Fleet__RegisterMachine *machine,
                            struct err *err);

/* proving.c: callbacks of the port, see there. */
bool proving_sign(const void *text, size_t size, struct port_proof *ret, void *data);
/* Whether the other side may speak as this server of the consensus. */
int proving_check_server(const struct conn *conn, uint64_t server_id, struct err *err, void *data);

/* leading_lease.c: answers to heartbeats that ask for a lease. */
struct lessor *lessor_new(struct daemon *daemon);
void lessor_free(struct lessor *lessor);
void lessor_ask(struct lessor *lessor, const char *machine_id, uint64_t session_id, uint64_t sequence,
                bool urgent);
void lessor_step(struct lessor *lessor); /* Once in a turn of the loop. */
uint64_t lessor_deadline_ms(const struct lessor *lessor);
void lessor_yield(struct lessor *lessor);                            /* This host does not lead any more. */
void lessor_set(struct daemon *daemon, const struct effect *effect); /* EFFECT_LEASE */

/* leading_level.c: raises the feature level when every host has a higher one; at the leader, once a second.
 */
void level_step(struct daemon *daemon);

/* leading_place.c: the only voter takes its new address. */
struct relocation *relocation_new(struct daemon *daemon);
void relocation_free(struct relocation *relocation);
/* Asks who is at 'from', where this server was, as often as it is called, until it is known that no other
 * host answers as this server there: true. */
bool relocation_look(struct relocation *relocation, const char *from);

/* leading_voters.c: who votes. */
struct voting *voting_new(struct daemon *daemon);
void voting_free(struct voting *voting);
void voting_begin(struct voting *voting); /* This host leads now. */
void voting_step(struct voting *voting);  /* Takes the next step, if there is one. */
/* How things are, for core/voters.h; NULL: this host does not lead. Borrowed until the next call, and until
 * the loop's next turn. */
const struct voters_facts *voting_facts(struct voting *voting);
/* Gives leadership to one of these servers, soon. -EBUSY: it cannot be tried now. */
int voting_hand_over(struct voting *voting, const uint64_t *server_ids, size_t count, struct err *err);

/* place.c: this host is not where its log has it. */
void place_start(struct daemon *daemon);
void place_tick(struct daemon *daemon);                 /* Once a second. */
const char *place_trouble(const struct daemon *daemon); /* For the status, behind that there is no leader. */

/* hosting.c */
void hosting_describe(struct daemon *daemon); /* Fills daemon->machine from configuration and identity. */
int hosting_start(struct daemon *daemon, struct err *err);
struct uplink *hosting_uplink_new(struct daemon *daemon);
void hosting_report_all(struct daemon *daemon); /* All that this host has counts as changed. */
void hosting_step(struct daemon *daemon);       /* Sends reports that have changed. */
void hosting_announce(struct daemon *daemon);   /* Tells the leader what this host is, after a change. */

/* observing.c */
char *observing_metrics(struct daemon *daemon); /* The body of GET /metrics; owned by the caller. */

/* Takes over what the host is now (and empties it); whether anything has changed that others are told of. The
 * machine id stays what it was at the start: this daemon's place in the cluster hangs on it. */
bool hosting_refresh(struct daemon *daemon, struct identity *fresh);
char *hosting_status_json(struct daemon *daemon); /* Owned by the caller. */

/* reload.c: reads the configuration again in a thread, then applies what has changed. While it is being read,
 * one more reload is remembered. */
void reload_begin(struct daemon *daemon);
void reload_cancel(struct daemon *daemon); /* The daemon stops: what was read is for nobody. */

/* dump.c: the daemon's state as one line of JSON on stdout, which a slow reader does not hold up the daemon
 * with. */
void dump_begin(struct daemon *daemon);

/* daemon.c */
void daemon_update_status(struct daemon *daemon);
void daemon_fatal(struct daemon *daemon, const char *why) __attribute__((noreturn));
