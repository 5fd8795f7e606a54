/* SPDX-License-Identifier: Apache-2.0 */
/* A host that is not where its log has it, and what a person has to know of it. One of several voters is
 * taken out and added anew by the leader (core/voters.h), the only one moves by itself (leading_place.c). But
 * where more than half have moved at once there is no leader, and only a person can say that those are the
 * voters, and not copies of their disks (docs/RAFT.md §5). */
#include <config.h>

#include <stdio.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "raftstore/limits.h"

#define APART_MS     10000u /* Without a session for so long: it is more than an election. */
#define COMPLAINT_MS 60000u

/* Where the log has this host, if nobody has said that it has moved since; "": in its place, or none. */
static const char *old_place(const struct daemon *daemon)
{
    const char *place = daemon->store != NULL ? store_own_place(daemon->store) : "";

    if (*place == '\0' || streq(place, daemon->cluster_address) ||
        store_moved_to(daemon->store, daemon->member.server_id, place) != NULL)
        return "";
    return place;
}

/* 'names': where they are, by the log; NULL: that is not wanted. */
static size_t count_voters(const struct daemon *daemon, struct strbuf *names)
{
    struct store_server servers[RAFT_SERVERS_MAX];
    size_t count = store_servers(daemon->store, servers, RAFT_SERVERS_MAX), voters = 0;

    for (size_t i = 0; i < count; i++) {
        if (servers[i].role != SERVER_VOTER)
            continue;
        if (names != NULL)
            strbuf_addf(names, "%s%s", voters > 0 ? ", " : "", servers[i].address);
        voters++;
    }
    return voters;
}

void place_start(struct daemon *daemon)
{
    const char *place = old_place(daemon);

    if (*place == '\0')
        return;
    if (count_voters(daemon, NULL) > 1)
        log_notice(
            "This host is at %s now, and its log has it at %s: the leader will take it out of the consensus, "
            "and add it anew",
            daemon->cluster_address, place);
    else
        log_notice("This host is at %s now, and its log has it at %s", daemon->cluster_address, place);
}

static void complain(struct daemon *daemon)
{
    const char *place = old_place(daemon);
    struct strbuf names = {0};
    uint64_t now = now_ms();

    if (*place == '\0' || (daemon->place_ms != 0 && now - daemon->place_ms < COMPLAINT_MS))
        return;
    if (count_voters(daemon, &names) > 1) {
        daemon->place_ms = now;
        log_error(
            "There is no leader, and this host is at %s, where no other voter looks for it: its log has "
            "it at %s. If more than half of the voters (%s) have moved at once, they cannot know each "
            "other. Then say where they are: cluster_moved = %s=%s,... in fleet.conf, the same on all "
            "hosts, and restart fleetd on them (fleet.conf(5))",
            daemon->cluster_address, place, names.text, place, daemon->cluster_address);
    }
    strbuf_done(&names);
}

void place_tick(struct daemon *daemon)
{
    bool apart = daemon->uplink != NULL && !uplink_is_open(daemon->uplink);
    uint64_t now = now_ms();

    if (!apart)
        daemon->apart_ms = 0;
    else if (daemon->apart_ms == 0)
        daemon->apart_ms = now;
    apart = apart && now - daemon->apart_ms >= APART_MS;
    if (apart != daemon->asks_around) {
        daemon->asks_around = apart;
        cluster_tell_members(daemon);
    }
    if (apart)
        complain(daemon);
}

const char *place_trouble(const struct daemon *daemon)
{
    return *old_place(daemon) != '\0' ? "; it is not where the other voters look for it: see the journal"
                                      : "";
}
