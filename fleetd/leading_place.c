/* SPDX-License-Identifier: Apache-2.0 */
/* The only voter has another address than its log says. Nobody else could take it out and add it anew, so it
 * changes the log itself (store_move_self()). But a copy of its disk finds just the same: so first it asks at
 * the old address. If it is not itself that answers there (one host may have several addresses), it asks for
 * as long as a host needs that is only being started. Once another host has answered as this server, one of
 * the two is a copy, and this one does not move any more before a person has started fleetd anew: the other
 * one may only be rebooting, and would lose its standbys, and with them its hosts, to a copy. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "raftstore/identify.h"
#include "raftstore/limits.h"

/* For so long nobody is at the old address. */
#define NOBODY_MS 10000u

/* What was heard longer ago counts no more: this host stood still, or did not lead. */
#define STALE_MS 3000u

#define COMPLAINT_MS 60000u

struct relocation {
    struct daemon *daemon;
    struct identify *identify;  /* Under way; NULL: none is. */
    char from[ADDRESS_MAX + 1]; /* The old address; "": none was asked about. */
    bool is_self;               /* This host itself answers there. */
    bool is_other;              /* Another host has answered there as this server. */
    uint64_t nobody_ms;         /* Since when this server was not found there; 0: it was, or nobody asked. */
    uint64_t answered_ms;       /* When that was last known. */
    uint64_t complaint_ms;      /* When the other one was told of last; 0: never. */
};

struct relocation *relocation_new(struct daemon *daemon)
{
    struct relocation *relocation = NEW0(struct relocation);

    relocation->daemon = daemon;
    return relocation;
}

void relocation_free(struct relocation *relocation)
{
    free(relocation); /* What was under way has ended with the port. */
}

static void complain(struct relocation *relocation)
{
    const struct daemon *daemon = relocation->daemon;
    uint64_t now = now_ms();

    if (relocation->complaint_ms != 0 && now - relocation->complaint_ms < COMPLAINT_MS)
        return;
    relocation->complaint_ms = now;
    log_error(
        "This host is at %s, but another host answers as the same server at %s, where its log has it, or has "
        "since fleetd was started: was the disk copied? Nobody can join this one. If this is the copy, stop "
        "fleetd here, move %s away, and let the host join; if that is the copy, switch it off, and restart "
        "fleetd here",
        daemon->cluster_address, relocation->from, daemon->config.data_dir);
}

static bool is_own_boot(const struct daemon *daemon, const uint8_t *boot_id)
{
    uint8_t own[BOOT_ID_SIZE];

    return id_from_hex(daemon->identity.boot_id, own, sizeof own) && memcmp(own, boot_id, sizeof own) == 0;
}

static void on_identified(enum identify_result result, const uint8_t *boot_id, void *data)
{
    struct relocation *relocation = data;

    relocation->identify = NULL;
    relocation->answered_ms = now_ms();
    relocation->is_self = result == IDENTIFY_THERE && is_own_boot(relocation->daemon, boot_id);
    if (result == IDENTIFY_NOBODY || result == IDENTIFY_OTHER) {
        if (relocation->nobody_ms == 0)
            relocation->nobody_ms = now_ms();
        return;
    }
    relocation->nobody_ms = 0;
    relocation->is_other = !relocation->is_self;
}

bool relocation_look(struct relocation *relocation, const char *from)
{
    struct daemon *daemon = relocation->daemon;

    if (relocation->identify != NULL)
        return false;
    if (!streq(relocation->from, from)) {
        snprintf(relocation->from, sizeof relocation->from, "%s", from);
        relocation->is_self = relocation->is_other = false;
        relocation->nobody_ms = 0;
    }
    if (relocation->is_other) {
        complain(relocation);
        return false;
    }
    if (now_ms() - relocation->answered_ms > STALE_MS)
        relocation->nobody_ms = 0;
    if (relocation->is_self || (relocation->nobody_ms != 0 && now_ms() - relocation->nobody_ms >= NOBODY_MS))
        return true;
    relocation->identify = identify_start(daemon->port, relocation->from, daemon->member.server_id,
                                          daemon->identity.machine_id, on_identified, relocation);
    return false;
}
