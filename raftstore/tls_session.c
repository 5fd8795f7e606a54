/* SPDX-License-Identifier: Apache-2.0 */
/* A handshake as GnuTLS sees it: what is offered and demanded, whose certificates are taken, and what went
 * wrong. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/times.h"
#include "raftstore/tls_alert.h"
#include "raftstore/tls_handshake_private.h"

/* What we have certificates for, and nothing older. */
#define PRIORITY                                                                                           \
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:+GROUP-X25519:+GROUP-SECP256R1:" \
    "+SIGN-ECDSA-SECP256R1-SHA256:+CTYPE-X509"
#define HANDSHAKE_MESSAGE_MAX (PKI_CHAIN_MAX * (PKI_CERTIFICATE_MAX + 16u) + 1024u)

static int verify_chain(struct tls_handshake *handshake, const gnutls_datum_t *certificates, unsigned count,
                        struct err *err)
{
    const struct tls_options *options = &handshake->options;
    struct pki_blob chain[PKI_CHAIN_MAX];
    const struct pki_blob *roots;
    size_t root_count;
    int r;

    if (count > PKI_CHAIN_MAX)
        return err_set(err, -EKEYREJECTED, "there are %u certificates, the limit is %u", count,
                       PKI_CHAIN_MAX);
    for (unsigned i = 0; i < count; i++)
        chain[i] = (struct pki_blob){.data = certificates[i].data, .size = certificates[i].size};
    roots = tls_credentials_roots(options->credentials, &root_count);
    if (options->pinned)
        r = pki_verify_pinned(chain, count, options->pin, wall_ms(), &handshake->peer, NULL, err);
    else
        r = pki_verify(chain, count, roots, root_count, wall_ms(), &handshake->peer, err);
    if (r < 0)
        return r;
    if (handshake->peer.name.kind == PKI_MACHINE ? !(options->take & TLS_TAKE_MACHINES)
                                                 : !(options->take & TLS_TAKE_CLIENTS))
        return err_set(err, -EACCES, "the certificate is a %s's, which is not taken here",
                       handshake->peer.name.kind == PKI_MACHINE ? "machine" : "client");
    return 0;
}

static int on_verify(gnutls_session_t session)
{
    struct tls_handshake *handshake = gnutls_session_get_ptr(session);
    unsigned count = 0;
    const gnutls_datum_t *certificates = gnutls_certificate_get_peers(session, &count);
    int r;

    if (certificates == NULL || count == 0) {
        if (!handshake->options.client && handshake->protocol->demand != TLS_DEMAND_CERTIFICATE)
            return 0;
        r = err_set(&handshake->err, -ENOKEY, "shows no certificate");
        handshake->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
    } else {
        r = verify_chain(handshake, certificates, count, &handshake->err);
        handshake->alert = r == 0 ? -1 : tls_alert_of_error(r);
    }
    if (r < 0)
        err_prefix(&handshake->err, r, "the other side");
    handshake->r = r;
    handshake->verified = r == 0;
    return r < 0 ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

int tls_session_protocol(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    gnutls_datum_t name;

    if (gnutls_alpn_get_selected_protocol(handshake->session, &name) < 0) {
        if (options->client || !options->protocol_optional)
            return -EPROTO;
        handshake->protocol = &options->protocols[0];
        return 0;
    }
    for (size_t i = 0; i < options->protocol_count; i++)
        if (strlen(options->protocols[i].name) == name.size &&
            memcmp(options->protocols[i].name, name.data, name.size) == 0) {
            handshake->protocol = &options->protocols[i];
            return 0;
        }
    return -EPROTO;
}

/* A server has read what the client wants: so it knows what to demand. */
static int on_client_hello(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                           const gnutls_datum_t *message)
{
    static const gnutls_certificate_request_t requests[] = {
        [TLS_DEMAND_NOTHING] = GNUTLS_CERT_IGNORE,
        [TLS_DEMAND_IF_ANY] = GNUTLS_CERT_REQUEST,
        [TLS_DEMAND_CERTIFICATE] = GNUTLS_CERT_REQUIRE,
    };
    struct tls_handshake *handshake = gnutls_session_get_ptr(session);

    if (tls_session_protocol(handshake) < 0)
        return GNUTLS_E_NO_APPLICATION_PROTOCOL;
    gnutls_certificate_server_set_request(session, requests[handshake->protocol->demand]);
    return 0;
}

/* on_verify() may have set code and text already. */
int tls_session_translate(struct tls_handshake *handshake, int code, int saved_errno)
{
    struct err *err = &handshake->err;
    char text[256];

    switch (code) {
    case GNUTLS_E_CERTIFICATE_ERROR:
        if (handshake->r < 0)
            return handshake->r;
        break;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
    case GNUTLS_E_WARNING_ALERT_RECEIVED:
        tls_alert_text(gnutls_alert_get(handshake->session), text, sizeof(text));
        return err_set(err, -ECONNABORTED, "%s", text);
    case GNUTLS_E_PREMATURE_TERMINATION:
        return err_set(err, -ECONNRESET, "the other side closed the connection in the TLS handshake");
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
        if (saved_errno == 0)
            saved_errno = ECONNRESET;
        return err_set(err, -saved_errno, "in the TLS handshake: %s", strerror(saved_errno));
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
        handshake->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
        return err_set(err, -ENOKEY, "the other side shows no certificate");
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        handshake->alert = GNUTLS_A_NO_APPLICATION_PROTOCOL;
        return err_set(err, -EPROTO, "the other side asks for a protocol that is not offered here");
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
    case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
    case GNUTLS_E_UNEXPECTED_PACKET:
        if (handshake->options.client)
            return err_set(err, -EPROTONOSUPPORT, "the other side does not talk TLS 1.3 (%s)",
                           gnutls_strerror(code));
        handshake->alert = GNUTLS_A_PROTOCOL_VERSION;
        break;
    default: break;
    }
    if (handshake->alert < 0)
        handshake->alert = gnutls_error_to_alert(code, NULL);
    return err_set(err, -EPROTO, "the TLS handshake with the other side failed: %s", gnutls_strerror(code));
}

int tls_session_offer(gnutls_priority_t *ret)
{
    return gnutls_priority_init(ret, PRIORITY, NULL);
}

int tls_session_init(struct tls_handshake *handshake)
{
    const struct tls_options *options = &handshake->options;
    gnutls_datum_t names[8];
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
                     (options->client ? GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT : GNUTLS_SERVER);
    int r;

    assert(options->protocol_count > 0 && options->protocol_count <= ARRAY_SIZE(names));
    for (size_t i = 0; i < options->protocol_count; i++)
        names[i] = (gnutls_datum_t){.data = (unsigned char *)options->protocols[i].name,
                                    .size = strlen(options->protocols[i].name)};
    r = gnutls_init(&handshake->session, flags);
    if (r < 0)
        return r;
    r = gnutls_priority_set(handshake->session, handshake->handshaker->priority);
    if (r >= 0)
        r = gnutls_credentials_set(handshake->session, GNUTLS_CRD_CERTIFICATE,
                                   tls_credentials_gnutls(options->credentials));
    if (r >= 0)
        r = gnutls_alpn_set_protocols(handshake->session, names, options->protocol_count,
                                      GNUTLS_ALPN_MANDATORY | GNUTLS_ALPN_SERVER_PRECEDENCE);
    if (r < 0)
        return r;
    gnutls_session_set_ptr(handshake->session, handshake);
    gnutls_session_set_verify_function(handshake->session, on_verify);
    if (!options->client)
        gnutls_handshake_set_hook_function(handshake->session, GNUTLS_HANDSHAKE_CLIENT_HELLO,
                                           GNUTLS_HOOK_POST, on_client_hello);
    gnutls_handshake_set_max_packet_length(handshake->session, HANDSHAKE_MESSAGE_MAX);
    gnutls_handshake_set_timeout(handshake->session, GNUTLS_INDEFINITE_TIMEOUT); /* The timer is ours. */
    gnutls_transport_set_int(handshake->session, handshake->fd);
    return 0;
}
