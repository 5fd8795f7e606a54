/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/renewal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/daemon_private.h"
#include "fleetd/messages.h"
#include "raftstore/tls_credentials.h"

int renewal_apply(struct daemon *daemon, struct err *err)
{
    _cleanup_(tls_credentials_unrefp) struct tls_credentials *credentials = NULL;
    const struct credentials *own = &daemon->credentials;
    int r;

    if (!credentials_complete(own))
        return 0;
    r = tls_credentials_new(own->key, own->chain, own->chain_count, own->roots, own->root_count, &credentials,
                            err);
    if (r < 0)
        return err_prefix(err, r, "%s", own->directory);
    port_set_credentials(daemon->port, credentials);
    listeners_set_credentials(daemon->listeners, credentials);
    return 0;
}

void renewal_use(struct daemon *daemon)
{
    struct err err = {0};
    int r = renewal_apply(daemon, &err);

    if (r < 0)
        log_error("The new certificate is of no use: %s", err_text(&err, r));
    hosting_describe(daemon);
    hosting_announce(daemon);
}

static void copy_blobs(const ProtobufCBinaryData *from, size_t count, struct pki_blob *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (struct pki_blob){.data = from[i].data, .size = from[i].len};
}

static void ask(struct daemon *daemon)
{
    Fleet__CertificateRequest body = FLEET__CERTIFICATE_REQUEST__INIT;
    Fleet__SessionUp message = FLEET__SESSION_UP__INIT;
    struct pki_blob request = {0};
    struct err err = {0};
    int r = credentials_request(&daemon->credentials, &request, &err);

    if (r < 0) {
        log_error("This host cannot ask for a new certificate: %s", err_text(&err, r));
        return;
    }
    body.request = (ProtobufCBinaryData){.len = request.size, .data = request.data};
    message.message_case = FLEET__SESSION_UP__MESSAGE_CERTIFICATE_REQUEST;
    message.certificate_request = &body;
    uplink_send(daemon->uplink, &message);
    pki_blob_done(&request);
}

void renewal_told(struct daemon *daemon, const Fleet__Credentials *message)
{
    struct pki_blob roots[PKI_ROOTS_MAX];
    struct err err = {0};
    int r;

    if (!credentials_complete(&daemon->credentials) || message->n_roots == 0 ||
        message->n_roots > PKI_ROOTS_MAX)
        return;
    copy_blobs(message->roots, message->n_roots, roots);
    r = credentials_trust(&daemon->credentials, roots, message->n_roots, &err);
    if (r < 0)
        log_error("Cannot keep whom to trust: %s", err_text(&err, r));
    else if (r > 0)
        renewal_use(daemon);
    if (message->renew)
        ask(daemon);
}

void renewal_issued(struct daemon *daemon, const Fleet__Certificate *message)
{
    struct pki_blob chain[PKI_CHAIN_MAX], roots[PKI_ROOTS_MAX];
    struct credentials_issued issued = {
        .chain = chain, .chain_count = message->n_chain, .roots = roots, .root_count = message->n_roots};
    struct err err = {0};
    int r;

    if (message->error[0] != '\0') {
        log_error("The leader gives this host no new certificate: %s", message->error);
        return;
    }
    if (message->n_chain > PKI_CHAIN_MAX || message->n_roots > PKI_ROOTS_MAX)
        return;
    copy_blobs(message->chain, message->n_chain, chain);
    copy_blobs(message->roots, message->n_roots, roots);
    r = credentials_take(&daemon->credentials, &issued, daemon->member.cluster_id,
                         daemon->identity.machine_id, wall_ms(), &err);
    if (r < 0) {
        log_error("The new certificate is not taken: %s", err_text(&err, r));
        return;
    }
    log_message(LOG_INFO, log_fields(MESSAGE_RENEWED), "This host has a new certificate");
    renewal_use(daemon);
}
