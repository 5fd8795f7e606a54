/* SPDX-License-Identifier: Apache-2.0 */
/* This host was removed from its cluster, or has left it: stops what it has of the cluster's units, forgets
 * that it was a member, and is one that belongs to no cluster. What it hears so comes over a session that
 * proves the cluster; that a leader merely does not know it is no such word. Survives a crash at any point:
 * the member file says that it was removed until all is done.
 *
 *      heard --member file: removed--> STOPPING --nothing is left--> files removed --> fleetd starts anew */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct daemon;

void removal_heard(struct daemon *daemon);
void removal_resume(struct daemon *daemon); /* At the start, where the member file says so. */
void removal_tick(struct daemon *daemon);   /* Once a second. */
void removal_describe(const struct daemon *daemon, char *to, size_t size); /* For the status line. */
