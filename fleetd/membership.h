/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this host belongs to a cluster, and how it comes to: by founding one, or by joining one. Both by
 * the configuration (bootstrap, join), which is then tried until it works, or by hand (POST /init, POST /join
 * on this host's own socket), which ends with an answer that says what came of it.
 *
 *      WAITING --found--> MEMBER
 *         |  ^------ refused, too late (by hand)
 *         '--join--> JOINING --admitted--> MEMBER
 *
 * Whoever asked by hand is answered when the host is in: when its session to the leader is open. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "fleetd/http.h"

struct daemon;
struct membership;

/* Once, at the start: takes up where this host was. */
int membership_start(struct daemon *daemon, struct err *err);
/* The configuration was read again; 'changed' are the keys with new values. */
void membership_reconsider(struct daemon *daemon, const struct strlist *changed);

/* What this host is asked about itself: takes the request, and answers it now or later, or returns false. */
bool membership_request(struct daemon *daemon, struct http_request *request);
void membership_gone(struct daemon *daemon, struct http_request *request); /* Nobody waits for it any more. */

void membership_arrived(struct daemon *daemon); /* The session to the leader is open. */
void membership_tick(struct daemon *daemon);    /* Once a second. */

unsigned membership_voters(const struct daemon *daemon); /* Of the cluster that this host founds. */

/* For the status line: "joining a cluster: ..." or why not; "" of a member. */
void membership_describe(const struct daemon *daemon, char *to, size_t size);

/* Ends what is under way; 'done' may come from inside this call. */
void membership_close(struct daemon *daemon, void (*done)(void *data), void *data);
void membership_free(struct membership *membership);
