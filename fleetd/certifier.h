/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's care for the hosts' certificates: tells each host at the beginning of its session, and after
 * each change, whom to trust; has it ask for a new certificate well before the old one ends, or when another
 * authority issues; signs it; and takes the rotation of the authority from step to step. All of it goes over
 * the sessions that there are: none is ended for it. By this host's clock only, which also writes the
 * certificates: those of the hosts do not matter. */
#pragma once

#include <stdint.h>

#include "pki/pki.h"
#include "raftstore/fleet.pb-c.h"

struct certifier;
struct daemon;

struct certifier *certifier_new(struct daemon *daemon);
void certifier_free(struct certifier *certifier);

/* A host's session has opened; 'shown' is the certificate by which it was proved, NULL: none (insecure). And
 * it ended. */
void certifier_opened(struct certifier *certifier, const char *machine_id, const struct pki_info *shown);
void certifier_closed(struct certifier *certifier, const char *machine_id);

void certifier_requested(struct certifier *certifier, const char *machine_id,
                         const Fleet__CertificateRequest *request);

void certifier_look(struct certifier *certifier); /* The registry's machines or authorities have changed. */
void certifier_tick(struct certifier *certifier); /* Once a second. */
