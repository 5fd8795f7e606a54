/* SPDX-License-Identifier: Apache-2.0 */
/* The remote API's front, with real sockets and real TLS on loopback: who gets through it and who does not,
 * that it carries everything, and that nobody keeps others out. */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/audit.h"
#include "fleetd/front.h"
#include "fleetd/http.h"
#include "fleetd/http_listen.h"
#include "pki/private.h"
#include "tests/unit/deadline.h"

#define HOUR_MS (3600ull * 1000)
#define GET     "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
#define LARGE   (3u * 1024 * 1024)

/* ---- certificates ---- */

enum { OURS, OTHER, AUTHORITIES }; /* Of one cluster id each. */

static struct authority {
    uint8_t cluster_id[PKI_CLUSTER_ID_SIZE];
    struct pki_key *key;
    struct pki_blob certificate;
} authorities[AUTHORITIES];

struct certificate {
    struct pki_key *key;
    struct pki_blob der;
    struct pki_info info;
};

static void certificate_done(struct certificate *certificate)
{
    pki_key_free(certificate->key);
    pki_blob_done(&certificate->der);
}

static void make_authorities(void)
{
    for (size_t i = 0; i < AUTHORITIES; i++) {
        memset(authorities[i].cluster_id, 'a' + (int)i, PKI_CLUSTER_ID_SIZE);
        assert_int_equal(pki_key_new(&authorities[i].key, NULL), 0);
        assert_int_equal(pki_authority_new(authorities[i].cluster_id, authorities[i].key,
                                           wall_ms() + 1000 * HOUR_MS, &authorities[i].certificate, NULL),
                         0);
    }
}

static struct certificate make(unsigned authority, enum pki_kind kind, const char *id, enum pki_role role,
                               uint64_t not_after_ms)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    struct authority *a = &authorities[authority];
    struct pki_subject subject = {.name = {.kind = kind, .role = role},
                                  .hosts = kind == PKI_MACHINE ? hosts : NULL,
                                  .host_count = kind == PKI_MACHINE ? ARRAY_SIZE(hosts) : 0,
                                  .not_after_ms = not_after_ms};
    struct certificate made = {0};
    struct pki_blob request = {0};

    memcpy(subject.name.cluster_id, a->cluster_id, PKI_CLUSTER_ID_SIZE);
    snprintf(subject.name.id, sizeof subject.name.id, "%s", id);
    assert_int_equal(pki_key_new(&made.key, NULL), 0);
    assert_int_equal(pki_request_new(made.key, &request, NULL), 0);
    assert_int_equal(pki_sign(a->certificate.data, a->certificate.size, a->key, request.data, request.size,
                              &subject, &made.der, &made.info, NULL),
                     0);
    pki_blob_done(&request);
    return made;
}

static struct certificate client_certificate(const char *name, enum pki_role role)
{
    return make(OURS, PKI_CLIENT, name, role, wall_ms() + HOUR_MS);
}

static struct tls_credentials *host_credentials(unsigned authority)
{
    struct certificate own =
        make(authority, PKI_MACHINE, "00000000000000000000000000000001", PKI_ROLE_NONE, wall_ms() + HOUR_MS);
    struct tls_credentials *credentials;

    assert_int_equal(
        tls_credentials_new(own.key, &own.der, 1, &authorities[authority].certificate, 1, &credentials, NULL),
        0);
    certificate_done(&own);
    return credentials;
}

/* ---- the server ---- */

struct world {
    uv_loop_t loop;
    struct http_server *server;
    struct front *front;
    unsigned port;
    struct http_request *waiting;
    unsigned requests, gone;
    char why[256]; /* The last client that was not served has ended. */
    bool done;
};

static struct strlist logged;

static void catch_log(int priority, const char *message, const char *const *fields)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    pthread_mutex_lock(&lock);
    strlist_add(&logged, message);
    pthread_mutex_unlock(&lock);
}

/* Says who asks; /large: much of it; /wait: not yet. */
static void on_request(struct http_request *request, void *data)
{
    struct world *w = data;
    _cleanup_(freep) char *who = access_describe(request->caller), *text = NULL;

    w->requests++;
    if (streq(request->path, "/wait")) {
        w->waiting = request;
        return;
    }
    if (streq(request->path, "/large")) {
        text = xcalloc(1, LARGE);
        memset(text, 'x', LARGE);
        http_reply(request, 200, "text/plain", text, LARGE);
        return;
    }
    text = xasprintf("%s is %s, %s, at %s, sends %zu", who, pki_role_name(request->caller->role),
                     request->caller->serial, request->peer, request->body_size);
    http_reply(request, 200, "text/plain", text, strlen(text));
}

static void on_gone(struct http_request *request, void *data)
{
    struct world *w = data;

    assert_ptr_equal(request, w->waiting);
    w->waiting = NULL;
    w->gone++;
}

static const struct http_callbacks callbacks = {on_request, on_gone};

static void on_arrival(int fd, const struct peer *peer, void *data)
{
    http_server_adopt(((struct world *)data)->server, fd, peer);
}

static int setup_without(void **state)
{
    struct world *w = NEW0(struct world);
    struct sockaddr_in addr;
    socklen_t size = sizeof addr;
    int fd;

    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server = http_server_new(&w->loop, NULL, &callbacks, w);
    http_server_set_timeout(w->server, patient_ms(2000) / 1000);
    w->front = front_new(&w->loop, on_arrival, w);
    fd = http_listen_tcp("127.0.0.1:0", NULL);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &size), 0);
    w->port = ntohs(addr.sin_port);
    front_add(w->front, fd);
    log_set_sink(catch_log);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    struct tls_credentials *credentials = host_credentials(OURS);

    setup_without(state);
    front_set_credentials(((struct world *)*state)->front, credentials);
    tls_credentials_unref(credentials);
    return 0;
}

static void on_front_closed(void *data)
{
    ((struct world *)data)->done = true;
}

static void on_http_closed(void *data)
{
    struct world *w = data;

    front_close(w->front, on_front_closed, w);
}

static int teardown(void **state)
{
    struct world *w = *state;

    http_server_close(w->server, on_http_closed, w);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* Ends by itself: nothing is left. */
    assert_true(w->done);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    log_set_sink(NULL);
    strlist_done(&logged);
    free(w);
    return 0;
}

static bool was_logged(const char *piece)
{
    for (size_t i = 0; i < logged.count; i++)
        if (strstr(logged.items[i], piece) != NULL)
            return true;
    return false;
}

/* ---- clients ---- */

struct client {
    int fd;
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session; /* NULL: no TLS. */
    const char *out;
    size_t out_size, sent;
    bool shaken, ended, deaf; /* 'deaf': does not read. */
    int alert;
    const char *why; /* It has ended. */
    struct strbuf in;
};

static int dial(struct world *w, const char *source)
{
    struct sockaddr_in from = {.sin_family = AF_INET},
                       to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;

    inet_pton(AF_INET, source, &from.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static struct client *client_new(struct world *w, const struct certificate *certificate, const char *source,
                                 const char *out)
{
    struct client *c = NEW0(struct client);
    gnutls_datum_t protocol = {.data = (unsigned char *)"http/1.1", .size = 8};
    gnutls_x509_crt_t crt;

    c->fd = dial(w, source);
    c->alert = -1;
    c->out = out;
    c->out_size = strlen(out);
    gnutls_certificate_allocate_credentials(&c->credentials);
    if (certificate != NULL) {
        gnutls_datum_t der = {.data = certificate->der.data, .size = certificate->der.size};

        gnutls_x509_crt_init(&crt);
        gnutls_x509_crt_import(crt, &der, GNUTLS_X509_FMT_DER);
        gnutls_certificate_set_x509_key(c->credentials, &crt, 1, certificate->key->key);
        gnutls_x509_crt_deinit(crt);
    }
    gnutls_init(&c->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL | GNUTLS_NONBLOCK | GNUTLS_FORCE_CLIENT_CERT);
    gnutls_set_default_priority(c->session);
    gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials);
    gnutls_alpn_set_protocols(c->session, &protocol, 1, 0);
    gnutls_transport_set_int(c->session, c->fd);
    return c;
}

static void client_free(struct client *c)
{
    if (c->session != NULL) {
        gnutls_deinit(c->session);
        gnutls_certificate_free_credentials(c->credentials);
    }
    close(c->fd);
    strbuf_done(&c->in);
    free(c);
}

static void client_end(struct client *c, ssize_t r)
{
    if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
        return;
    c->ended = true;
    c->why = r == 0 ? "in order" : gnutls_strerror((int)r);
    if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
        c->alert = gnutls_alert_get(c->session);
}

static void client_step(struct client *c)
{
    char piece[4096];
    ssize_t r = 0;

    if (c->ended)
        return;
    if (!c->shaken) {
        r = gnutls_handshake(c->session);
        c->shaken = r == 0;
        if (r < 0)
            client_end(c, r);
        return;
    }
    while (c->sent < c->out_size && r >= 0) {
        size_t left = c->out_size - c->sent;

        r = gnutls_record_send(c->session, c->out + c->sent, left < 16384 ? left : 16384);
        c->sent += r > 0 ? (size_t)r : 0;
    }
    if (r < 0)
        client_end(c, r);
    while (!c->ended && !c->deaf) {
        r = gnutls_record_recv(c->session, piece, sizeof piece);
        if (r > 0) {
            strbuf_add_bytes(&c->in, piece, (size_t)r);
            continue;
        }
        client_end(c, r);
        return;
    }
}

/* One turn of everybody; 'c' may be NULL. */
static void turn(struct world *w, struct client *c)
{
    uv_run(&w->loop, UV_RUN_NOWAIT);
    if (c != NULL)
        client_step(c);
    usleep(500);
}

#define UNTIL(w, c, condition)                               \
    do {                                                     \
        uint64_t until_ms = now_ms() + DEADLINE_MS;          \
        while (!(condition)) {                               \
            if (now_ms() > until_ms)                         \
                fail_msg("never came true: %s", #condition); \
            turn((w), (c));                                  \
        }                                                    \
    } while (0)

static bool answered(const struct client *c)
{
    return c->in.text != NULL && strstr(c->in.text, "\r\n\r\n") != NULL;
}

/* The body of an answer. */
static const char *body_of(const struct client *c)
{
    return strstr(c->in.text, "\r\n\r\n") + 4;
}

static bool is_served(struct world *w, const struct certificate *certificate, const char *source)
{
    struct client *c = client_new(w, certificate, source, GET);
    bool served;

    UNTIL(w, c, answered(c) || c->ended);
    served = answered(c);
    if (!served)
        snprintf(w->why, sizeof w->why, "%s, alert %d", c->why, c->alert);
    client_free(c);
    return served;
}

static void assert_served(struct world *w, const struct certificate *certificate, const char *source)
{
    if (!is_served(w, certificate, source))
        fail_msg("not served at %s: it has ended (%s); logged last: %s", source, w->why,
                 logged.count > 0 ? logged.items[logged.count - 1] : "nothing");
}

static void assert_alert(struct world *w, const struct certificate *certificate, int alert, const char *why)
{
    struct client *c = client_new(w, certificate, "127.0.0.1", GET);

    UNTIL(w, c, c->ended);
    assert_int_equal(c->alert, alert);
    assert_null(c->in.text);
    UNTIL(w, NULL, was_logged(why));
    assert_int_equal(w->requests, 0);
    client_free(c);
}

/* ---- who gets through ---- */

static void test_a_client_is_known(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_OPERATOR);
    struct world *w = *state;
    struct client *c = client_new(w, &laptop, "127.0.0.1", GET GET);
    _cleanup_(freep) char *wanted =
        xasprintf("client laptop is operator, %s, at 127.0.0.1:", laptop.info.serial);

    UNTIL(w, c, w->requests == 2 && answered(c));
    assert_true(str_has_prefix(body_of(c), wanted));
    assert_int_equal(gnutls_protocol_get_version(c->session), GNUTLS_TLS1_3);
    assert_int_equal(front_connections(w->front), 1);
    client_free(c);
    UNTIL(w, NULL, front_connections(w->front) == 0 && http_server_connections(w->server) == 0);
}

/* It comes so far, to hear that it has no say. */
static void test_a_machine_is_known(void **state)
{
    _cleanup_(certificate_done) struct certificate machine =
        make(OURS, PKI_MACHINE, "0123456789abcdef0123456789abcdef", PKI_ROLE_NONE, wall_ms() + HOUR_MS);
    struct world *w = *state;
    struct client *c = client_new(w, &machine, "127.0.0.1", GET);

    UNTIL(w, c, answered(c));
    assert_true(str_has_prefix(body_of(c), "machine 0123456789abcdef0123456789abcdef is none, "));
    client_free(c);
}

static void test_who_is_turned_away(void **state)
{
    _cleanup_(certificate_done) struct certificate expired =
        make(OURS, PKI_CLIENT, "old", PKI_ROLE_ADMIN, wall_ms() - 1000);
    _cleanup_(certificate_done) struct certificate foreign =
        make(OTHER, PKI_CLIENT, "foreign", PKI_ROLE_ADMIN, wall_ms() + HOUR_MS);

    assert_alert(*state, NULL, GNUTLS_A_CERTIFICATE_REQUIRED, "shows no certificate");
    assert_alert(*state, &expired, GNUTLS_A_CERTIFICATE_EXPIRED, "the certificate ended on");
    assert_alert(*state, &foreign, GNUTLS_A_UNKNOWN_CA, "the certificate is of another cluster");
}

/* The right names, signed by an authority that somebody has made up. */
static void test_a_forged_authority(void **state)
{
    struct authority real = authorities[OURS];
    struct certificate forged;
    struct world *w = *state;
    struct client *c;

    assert_int_equal(pki_key_new(&authorities[OURS].key, NULL), 0);
    assert_int_equal(pki_authority_new(real.cluster_id, authorities[OURS].key, wall_ms() + HOUR_MS,
                                       &authorities[OURS].certificate, NULL),
                     0);
    forged = client_certificate("laptop", PKI_ROLE_ADMIN);
    c = client_new(w, &forged, "127.0.0.1", GET);
    UNTIL(w, c, c->ended);
    assert_true(c->alert >= 0);
    assert_int_equal(w->requests, 0);
    client_free(c);
    certificate_done(&forged);
    pki_key_free(authorities[OURS].key);
    pki_blob_done(&authorities[OURS].certificate);
    authorities[OURS] = real;
}

/* What a socket without TLS gets back, until it is closed. */
static char *talk_plain(struct world *w, const char *bytes, size_t size)
{
    struct strbuf in = {0};
    int fd = dial(w, "127.0.0.1");
    uint64_t until_ms = now_ms() + DEADLINE_MS;
    char piece[512];
    ssize_t n;

    send(fd, bytes, size, MSG_NOSIGNAL);
    do {
        assert_true(now_ms() < until_ms);
        turn(w, NULL);
        n = recv(fd, piece, sizeof piece, 0);
        if (n > 0)
            strbuf_add_bytes(&in, piece, (size_t)n);
    } while (n > 0 || (n < 0 && errno == EAGAIN));
    close(fd);
    return strbuf_take(&in);
}

static void test_without_tls(void **state)
{
    static const char garbage[] = "\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff and so on and so on and so on";
    struct world *w = *state;
    _cleanup_(freep) char *http = talk_plain(w, GET, strlen(GET)), *noise = talk_plain(w, "\x80\x01\x02", 3),
                          *almost = talk_plain(w, garbage, sizeof garbage);

    assert_true(str_has_prefix(http, "HTTP/1.1 400 Bad Request\r\n"));
    assert_non_null(strstr(http, "use https"));
    assert_string_equal(noise, "");
    assert_null(strstr(almost, "HTTP"));
    assert_int_equal(w->requests, 0);
    UNTIL(w, NULL, front_connections(w->front) == 0);
}

static void test_without_credentials(void **state)
{
    struct tls_credentials *credentials = host_credentials(OURS);
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    _cleanup_(freep) char *nothing = talk_plain(w, "", 0);

    assert_string_equal(nothing, "");
    assert_true(was_logged("this host has no certificate yet"));
    front_set_credentials(w->front, credentials);
    tls_credentials_unref(credentials);
    assert_served(w, &laptop, "127.0.0.1");
}

/* Without a restart; what is open goes on. */
static void test_new_credentials(void **state)
{
    struct tls_credentials *credentials = host_credentials(OTHER);
    _cleanup_(certificate_done) struct certificate ours = client_certificate("laptop", PKI_ROLE_VIEWER);
    _cleanup_(certificate_done) struct certificate other =
        make(OTHER, PKI_CLIENT, "laptop", PKI_ROLE_VIEWER, wall_ms() + HOUR_MS);
    struct world *w = *state;
    struct client *old = client_new(w, &ours, "127.0.0.1", GET), *late;

    UNTIL(w, old, answered(old));
    front_set_credentials(w->front, credentials);
    tls_credentials_unref(credentials);
    assert_served(w, &other, "127.0.0.1");
    late = client_new(w, &ours, "127.0.0.1", GET);
    UNTIL(w, late, late->ended);
    strbuf_done(&old->in);
    old->sent = 0;
    UNTIL(w, old, answered(old));
    client_free(old);
    client_free(late);
}

static void test_its_certificate_ends(void **state)
{
    _cleanup_(certificate_done) struct certificate brief =
        make(OURS, PKI_CLIENT, "brief", PKI_ROLE_VIEWER, wall_ms() + 1500);
    struct world *w = *state;
    struct client *c = client_new(w, &brief, "127.0.0.1", "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");

    UNTIL(w, c, w->waiting != NULL);
    UNTIL(w, c, c->ended);
    UNTIL(w, NULL, w->gone == 1);
    assert_true(wall_ms() >= brief.info.not_after_ms);
    client_free(c);
}

/* ---- what it carries ---- */

static void test_large_both_ways(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    _cleanup_(freep) char *body = xcalloc(1, LARGE + 1), *put = NULL;
    struct world *w = *state;
    struct client *c;

    memset(body, 'y', LARGE);
    put = xasprintf("PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: %u\r\n\r\n%sGET /large HTTP/1.1\r\nHost: "
                    "x\r\nConnection: close\r\n\r\n",
                    LARGE, body);
    c = client_new(w, &laptop, "127.0.0.1", put);
    UNTIL(w, c, c->ended);
    assert_non_null(strstr(c->in.text, ", sends 3145728"));
    assert_true(c->in.size > LARGE);
    assert_string_equal(c->in.text + c->in.size - 5, "xxxxx");
    assert_int_equal(c->alert, -1); /* It was ended in order. */
    client_free(c);
    UNTIL(w, NULL, front_connections(w->front) == 0);
}

static void test_a_client_goes_away(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;

    for (unsigned i = 1; i <= 2; i++) {
        struct client *c = client_new(w, &laptop, "127.0.0.1", "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");

        UNTIL(w, c, w->waiting != NULL);
        if (i == 1)
            gnutls_bye(c->session, GNUTLS_SHUT_WR); /* Politely, or not. */
        client_free(c);
        UNTIL(w, NULL, w->gone == i);
        assert_null(w->waiting);
    }
    UNTIL(w, NULL, front_connections(w->front) == 0 && http_server_connections(w->server) == 0);
}

/* It has shown its certificate, and says nothing: the HTTP server's limit ends it. */
static void test_a_silent_client(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    struct client *silent = client_new(w, &laptop, "127.0.0.1", ""),
                  *half = client_new(w, &laptop, "127.0.0.1", "GET /a HTTP/1.1\r\nHo");

    UNTIL(w, silent, silent->ended);
    UNTIL(w, half, half->ended);
    assert_int_equal(w->requests, 0);
    client_free(silent);
    client_free(half);
}

/* One that does not read what it has asked for keeps nobody else waiting, and little in memory. */
static void test_a_deaf_client(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    struct client *deaf = client_new(w, &laptop, "127.0.0.1", "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");

    deaf->deaf = true;
    UNTIL(w, deaf, w->requests == 1);
    for (unsigned i = 0; i < 50; i++)
        assert_served(w, &laptop, "127.0.0.1");
    deaf->deaf = false;
    UNTIL(w, deaf, deaf->ended || deaf->in.size > LARGE);
    client_free(deaf);
}

/* ---- limits ---- */

static bool is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void test_silent_connections_of_one_address(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    int fds[3 * FRONT_HANDSHAKES_PER_ADDRESS_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = dial(w, "127.0.0.2");
        if (i == FRONT_HANDSHAKES_PER_ADDRESS_MAX / 2)
            UNTIL(w, NULL, front_connections(w->front) == i + 1);
    }
    UNTIL(w, NULL, was_logged("too many connections of its address that have not shown a certificate"));
    for (size_t i = 0; i < 2 * FRONT_HANDSHAKES_PER_ADDRESS_MAX; i++)
        UNTIL(w, NULL, is_closed(fds[i])); /* Those that came first. */
    for (size_t i = 2 * FRONT_HANDSHAKES_PER_ADDRESS_MAX; i < ARRAY_SIZE(fds); i++)
        assert_false(is_closed(fds[i]));
    assert_int_equal(front_connections(w->front), FRONT_HANDSHAKES_PER_ADDRESS_MAX);
    assert_served(w, &laptop, "127.0.0.1"); /* Nobody else is concerned... */
    assert_false(is_closed(fds[2 * FRONT_HANDSHAKES_PER_ADDRESS_MAX]));
    assert_served(w, &laptop, "127.0.0.2"); /* ...and nobody behind the same address. */
    UNTIL(w, NULL, is_closed(fds[2 * FRONT_HANDSHAKES_PER_ADDRESS_MAX]));
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close(fds[i]);
}

static void test_connections_of_one_address(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    struct client *clients[FRONT_PER_ADDRESS_MAX], *late;

    /* The first is not idle for too long when the last has come. */
    http_server_set_timeout(w->server, DEADLINE_MS / 1000);
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = client_new(w, &laptop, "127.0.0.2", GET);
        UNTIL(w, clients[i], answered(clients[i]));
    }
    late = client_new(w, &laptop, "127.0.0.2", GET);
    UNTIL(w, late, late->ended);
    assert_true(was_logged("too many connections of its address"));
    client_free(late);
    assert_served(w, &laptop, "127.0.0.1");
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
        client_free(clients[i]);
    UNTIL(w, NULL, front_connections(w->front) == 0);
}

/* However many come and go: the next one is served, and the journal is not full of them. */
static void test_a_flood(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;

    for (unsigned i = 0; i < 2000; i++) {
        int fd = dial(w, "127.0.0.3");

        if (i % 2 == 0)
            send(fd, "\x16\x03\x01 garbage garbage", 19, MSG_NOSIGNAL);
        close(fd);
        if (i % 50 == 0)
            assert_served(w, &laptop, "127.0.0.1");
    }
    /* That no connection is there does not mean that none waits to be accepted, and of one address only so
     * many are at a time. */
    for (unsigned tries = 0; !is_served(w, &laptop, "127.0.0.3"); tries++)
        if (tries == 2000 / FRONT_HANDSHAKES_PER_ADDRESS_MAX)
            fail_msg("whoever shares the flood's address is never served: it has ended (%s)", w->why);
    assert_true(logged.count <= 2 * AUDIT_REFUSALS_BURST);
}

/* ---- the end ---- */

static void test_it_ends_with_open_connections(void **state)
{
    _cleanup_(certificate_done) struct certificate laptop = client_certificate("laptop", PKI_ROLE_VIEWER);
    struct world *w = *state;
    struct client *waiting = client_new(w, &laptop, "127.0.0.1", "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"),
                  *idle = client_new(w, &laptop, "127.0.0.1", GET);
    int silent = dial(w, "127.0.0.1");

    UNTIL(w, waiting, w->waiting != NULL);
    UNTIL(w, idle, answered(idle));
    assert_int_equal(teardown(state), 0);
    client_free(waiting);
    client_free(idle);
    close(silent);
    assert_int_equal(setup(state), 0); /* For the common end. */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static int group_setup(void **state)
{
    make_authorities();
    return 0;
}

static int group_teardown(void **state)
{
    for (size_t i = 0; i < AUTHORITIES; i++) {
        pki_key_free(authorities[i].key);
        pki_blob_done(&authorities[i].certificate);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_client_is_known),
        TEST(test_a_machine_is_known),
        TEST(test_who_is_turned_away),
        TEST(test_a_forged_authority),
        TEST(test_without_tls),
        cmocka_unit_test_setup_teardown(test_without_credentials, setup_without, teardown),
        TEST(test_new_credentials),
        TEST(test_its_certificate_ends),
        TEST(test_large_both_ways),
        TEST(test_a_client_goes_away),
        TEST(test_a_silent_client),
        TEST(test_a_deaf_client),
        TEST(test_silent_connections_of_one_address),
        TEST(test_connections_of_one_address),
        TEST(test_a_flood),
        TEST(test_it_ends_with_open_connections),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
