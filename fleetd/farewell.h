/* SPDX-License-Identifier: Apache-2.0 */
/* When fleetd stops on purpose, and its host does not, it tells the leader, so that what runs here is left
 * alone for as long as this host is there (MACHINE_HUNG in fleetd/core/core.h): its units run on. Whoever
 * goes down with its host says nothing, and is lost like one that dies.
 *
 *      begin --> ask systemd whether it is stopping --no--> say goodbye to the leader --noted--> done
 *                  \-- yes, or no answer --> done            \-- no session, lost, FAREWELL_MS --> done */
#pragma once

struct daemon;

#define FAREWELL_MS 2000u /* For all of it: stopping is to be prompt. */

/* 'done' comes once, maybe from inside this call. */
void farewell_begin(struct daemon *daemon, void (*done)(struct daemon *daemon));

/* The leader has noted it, or the session to it has ended. */
void farewell_answered(struct daemon *daemon);
