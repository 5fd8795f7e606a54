/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/audit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/messages.h"
#include "raftstore/registry.h"

bool audit_allows(struct audit_budget *budget, uint64_t now_ms, uint64_t *ret_left_out)
{
    uint64_t from_ms = budget->full_ms > now_ms ? budget->full_ms : now_ms;

    if (from_ms - now_ms >= (uint64_t)AUDIT_REFUSALS_BURST * AUDIT_REFUSAL_MS) {
        budget->left_out++;
        return false;
    }
    budget->full_ms = from_ms + AUDIT_REFUSAL_MS;
    *ret_left_out = budget->left_out;
    budget->left_out = 0;
    return true;
}

/* In one line, and not longer than it is worth: paths are a stranger's. */
static char *tidy(const char *text)
{
    char *copy = xstrndup(text, AUDIT_TEXT_MAX);

    for (char *c = copy; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return copy;
}

static char *request_id_text(const uint8_t *id)
{
    struct strbuf text = {0};

    for (size_t i = 0; id != NULL && i < REQUEST_ID_SIZE; i++)
        strbuf_addf(&text, "%02x", id[i]);
    return strbuf_take(&text);
}

/* "client laptop (operator) from 10.0.0.7:41234", "uid 0 pid 412 (admin)". */
static char *who_text(const struct audit_event *event)
{
    _cleanup_(freep) char *who = access_describe(event->caller);
    const char *role = pki_role_name(event->caller->role);

    if (event->caller->kind == ACCESS_LOCAL)
        return xasprintf("%s (%s)", event->peer, role);
    return xasprintf("%s (%s) from %s", who, role, event->peer);
}

static void add_field(struct strlist *fields, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0')
        strlist_take(fields, xasprintf("%s=%s", name, value));
}

static void write_event(int priority, const char *message_id, const struct audit_event *event,
                        uint64_t left_out)
{
    _cleanup_(freep) char *who = access_describe(event->caller), *from = who_text(event),
                          *path = tidy(event->path), *method = tidy(event->method),
                          *request_id = request_id_text(event->request_id),
                          *status = xasprintf("%u", event->status), *left = NULL;
    struct strlist fields = {0};

    if (left_out > 0)
        left = xasprintf(" (%" PRIu64 " more refusals before this one were not written)", left_out);
    strlist_add(&fields, message_id);
    add_field(&fields, "FLEET_CALLER", who);
    add_field(&fields, "FLEET_ROLE", pki_role_name(event->caller->role));
    add_field(&fields, "FLEET_SERIAL", event->caller->serial);
    add_field(&fields, "FLEET_PEER", event->peer);
    add_field(&fields, "FLEET_MACHINE", event->via);
    add_field(&fields, "FLEET_METHOD", method);
    add_field(&fields, "FLEET_PATH", path);
    add_field(&fields, "FLEET_REQUEST_ID", request_id);
    add_field(&fields, "FLEET_STATUS", status);
    add_field(&fields, "FLEET_REASON", event->outcome);
    strlist_take(&fields, NULL); /* Ends them. */
    log_message(priority, (const char *const *)fields.items, "%s %s by %s%s%s: %s%s", method, path, from,
                event->via != NULL ? " through machine " : "", event->via != NULL ? event->via : "",
                event->outcome, left != NULL ? left : "");
    strlist_done(&fields);
}

void audit_change(const struct audit_event *event)
{
    write_event(LOG_INFO, MESSAGE_API_CHANGE, event, 0);
}

void audit_refusal(struct audit_budget *budget, const struct audit_event *event, uint64_t now_ms)
{
    uint64_t left_out;

    if (audit_allows(budget, now_ms, &left_out))
        write_event(LOG_NOTICE, MESSAGE_API_REFUSED, event, left_out);
}
