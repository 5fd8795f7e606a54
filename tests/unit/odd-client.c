/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/unit/odd-client.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/cleanup.h"
#include "pki/private.h"
#include "tests/unit/deadline.h"

#define TIMEOUT_MS 10000

static void set_certificate(gnutls_certificate_credentials_t credentials, const struct odd_client *odd)
{
    gnutls_x509_crt_t chain[PKI_CHAIN_MAX];

    for (size_t i = 0; i < odd->chain_count; i++) {
        gnutls_datum_t der = {.data = odd->chain[i].data, .size = odd->chain[i].size};

        gnutls_x509_crt_init(&chain[i]);
        gnutls_x509_crt_import(chain[i], &der, GNUTLS_X509_FMT_DER);
    }
    gnutls_certificate_set_x509_key(credentials, chain, odd->chain_count, odd->key->key);
    for (size_t i = 0; i < odd->chain_count; i++)
        gnutls_x509_crt_deinit(chain[i]);
}

static void talk(struct odd_client *odd, gnutls_session_t session, int fd)
{
    ssize_t r;

    do {
        r = gnutls_handshake(session);
    } while (r < 0 && !gnutls_error_is_fatal((int)r));
    odd->shaken = r == 0;
    for (unsigned i = 0; i < odd->key_updates && r == 0; i++)
        r = gnutls_session_key_update(session, GNUTLS_KU_PEER);
    usleep(odd->delay_ms * 1000);
    if (r == 0 && odd->size > 0 && odd->raw)
        r = send(fd, odd->bytes, odd->size, MSG_NOSIGNAL);
    else if (r == 0 && odd->size > 0)
        r = gnutls_record_send(session, odd->bytes, odd->size);
    while (odd->no_reading && !atomic_load(&odd->may_read))
        usleep(1000);
    if (r >= 0) {
        do { /* What is too much is only counted; a KeyUpdate ends a call with GNUTLS_E_AGAIN. */
            uint8_t rest[16384];
            bool fits = odd->got < sizeof(odd->inbox);

            r = gnutls_record_recv(session, fits ? odd->inbox + odd->got : rest,
                                   fits ? sizeof(odd->inbox) - odd->got : sizeof(rest));
            odd->got += r > 0 ? (size_t)r : 0;
        } while (r > 0 || r == GNUTLS_E_AGAIN);
        odd->closed = r == 0;
    }
    if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
        odd->alert = gnutls_alert_get(session);
}

static void run(void *data)
{
    struct odd_client *odd = data;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(odd->port)};
    gnutls_datum_t protocol = {.data = (unsigned char *)odd->protocol};
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    gnutls_certificate_allocate_credentials(&credentials);
    if (odd->key != NULL)
        set_certificate(credentials, odd);
    gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL | GNUTLS_FORCE_CLIENT_CERT);
    gnutls_priority_set_direct(session,
                               odd->priority != NULL ? odd->priority : "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    if (odd->protocol != NULL) {
        protocol.size = strlen(odd->protocol);
        gnutls_alpn_set_protocols(session, &protocol, 1, 0);
    }
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, patient_ms(TIMEOUT_MS));
    gnutls_record_set_timeout(session, TIMEOUT_MS);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        talk(odd, session, fd);
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
    close(fd);
    uv_async_send(&odd->done);
}

static void on_done(uv_async_t *async)
{
    struct odd_client *odd = async->data;

    odd->ended = true;
    uv_close((uv_handle_t *)async, NULL);
}

void odd_client_start(struct odd_client *odd, uv_loop_t *loop)
{
    odd->alert = -1;
    odd->done.data = odd;
    assert_int_equal(uv_async_init(loop, &odd->done, on_done), 0);
    assert_int_equal(uv_thread_create(&odd->thread, run, odd), 0);
}

void odd_client_join(struct odd_client *odd)
{
    uv_thread_join(&odd->thread);
}
