/* SPDX-License-Identifier: Apache-2.0 */
/* The few bytes in which one side of a TLS connection can say why it ends it (RFC 8446 §6), as sentences.
 * Which alert a daemon chooses for a reason and which sentence the other makes of it is decided here, in one
 * place. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What a host that talks no TLS answers to one that does: a whole record, before any key is agreed upon. */
#define TLS_ALERT_RECORD_SIZE 7u
enum tls_no_tls { TLS_NO_TLS_INSECURE, TLS_NO_TLS_NO_CLUSTER };
void tls_alert_record(enum tls_no_tls why, uint8_t ret[TLS_ALERT_RECORD_SIZE]);

/* The alert for what pki_verify() returned (a gnutls_alert_description_t). */
int tls_alert_of_error(int r);

/* What an alert of the other side means: "the other side ...". */
void tls_alert_text(int alert, char *text, size_t size);
