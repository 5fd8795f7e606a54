/* SPDX-License-Identifier: Apache-2.0 */
/* This host's certificate and those whom it trusts, renewed while it runs: by its session the leader says
 * whom to trust and when to ask for a new certificate (certifier.h). What is new holds for connections that
 * begin from then on, and is told to the cluster, which waits for it when the authority is rotated. */
#pragma once

#include "base/err.h"
#include "raftstore/fleet.pb-c.h"

struct daemon;

/* What this host proves itself by, for the cluster port; also at the start. */
int renewal_apply(struct daemon *daemon, struct err *err);

/* The same, and others are told what this host has now. */
void renewal_use(struct daemon *daemon);

void renewal_told(struct daemon *daemon, const Fleet__Credentials *message);
void renewal_issued(struct daemon *daemon, const Fleet__Certificate *message);
