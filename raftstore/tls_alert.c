/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/tls_alert.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <gnutls/gnutls.h>

#include "base/cleanup.h"

/* No daemon has another use for these two. */
#define ALERT_INSECURE   GNUTLS_A_INSUFFICIENT_SECURITY
#define ALERT_NO_CLUSTER GNUTLS_A_CERTIFICATE_UNOBTAINABLE

static const struct {
    int alert;
    const char *text;
} texts[] = {
    {GNUTLS_A_CERTIFICATE_EXPIRED, "the other side says that a certificate has ended: this host's own, or "
                                   "its authority's; or its clock is wrong"},
    {GNUTLS_A_UNKNOWN_CA,
     "the other side does not know the authority of this host's certificate: it belongs to another cluster"},
    {GNUTLS_A_CERTIFICATE_REQUIRED, "the other side demands a certificate of its cluster, and this host has "
                                    "none: it must join with a token"},
    {GNUTLS_A_ACCESS_DENIED, "the other side does not take a certificate of this kind"},
    {GNUTLS_A_BAD_CERTIFICATE,
     "the other side says that this host's certificate is damaged or no fleet certificate"},
    {GNUTLS_A_DECRYPT_ERROR, "the other side says that a signature of this host is wrong"},
    {GNUTLS_A_NO_APPLICATION_PROTOCOL, "the other side does not offer this here: it is of another version, "
                                       "or not a fleet daemon's cluster port"},
    {GNUTLS_A_PROTOCOL_VERSION, "the other side does not talk TLS 1.3"},
    {ALERT_INSECURE, "the other side talks no TLS, and this host talks nothing else: insecure = true must be "
                     "set on all hosts of a "
                     "cluster or on none"},
    {ALERT_NO_CLUSTER, "the other side is in no cluster yet"},
};

void tls_alert_record(enum tls_no_tls why, uint8_t ret[TLS_ALERT_RECORD_SIZE])
{
    /* Alert, "TLS 1.2" as always in records, two bytes: fatal, and which. */
    const uint8_t record[TLS_ALERT_RECORD_SIZE] = {
        21, 3, 3, 0, 2, GNUTLS_AL_FATAL, why == TLS_NO_TLS_INSECURE ? ALERT_INSECURE : ALERT_NO_CLUSTER};

    memcpy(ret, record, sizeof(record));
}

int tls_alert_of_error(int r)
{
    switch (r) {
    case -EKEYEXPIRED: return GNUTLS_A_CERTIFICATE_EXPIRED;
    case -EKEYREJECTED: return GNUTLS_A_UNKNOWN_CA;
    case -EBADMSG: return GNUTLS_A_BAD_CERTIFICATE;
    case -EACCES: return GNUTLS_A_ACCESS_DENIED;
    default: return GNUTLS_A_INTERNAL_ERROR;
    }
}

void tls_alert_text(int alert, char *text, size_t size)
{
    const char *name;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].alert == alert) {
            snprintf(text, size, "%s", texts[i].text);
            return;
        }
    name = gnutls_alert_get_name((gnutls_alert_description_t)alert);
    snprintf(text, size, "the other side ended it with TLS alert %d (%s)", alert,
             name != NULL ? name : "unknown");
}
