/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/api.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetctl/certificates.h"
#include "fleetctl/endpoint.h"
#include "fleetctl/tunnel.h"

#define API_PREFIX "fleet/v1/"
#define LOGIN_MS   60000 /* More time for the first request through a tunnel: a person may have to type. */

struct api {
    CURL *easy;
    CURLM *multi; /* Only so that a wait can be interrupted. */
    struct curl_slist *headers;
    struct endpoint endpoint;
    struct certificates certificates; /* For https. */
    struct tunnel *tunnel;            /* NULL: none. */
    bool logged_in;                   /* Something came through the tunnel. */
    bool answered;                    /* There was an answer before. */
    const struct options *options;
    int interrupt_fd;
    struct strbuf reply; /* Of the call that runs. */
    bool reply_too_large;
    char error[CURL_ERROR_SIZE];
};

/* --- Set-up --- */

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static size_t on_reply(char *bytes, size_t size, size_t count, void *data)
{
    struct api *api = data;

    size *= count;
    if (size > API_REPLY_MAX - api->reply.size) {
        api->reply_too_large = true;
        return CURL_WRITEFUNC_ERROR;
    }
    strbuf_add_bytes(&api->reply, bytes, size);
    return size;
}

static void prepare_handles(struct api *api)
{
    static const char *const headers[] = {"Content-Type: application/json", "Accept: application/json",
                                          "Expect:"};

    curl_global_init(CURL_GLOBAL_DEFAULT);
    api->easy = curl_easy_init();
    api->multi = curl_multi_init();
    assert(api->easy != NULL && api->multi != NULL);
    for (size_t i = 0; i < ARRAY_SIZE(headers); i++)
        api->headers = curl_slist_append(api->headers, headers[i]);
}

int api_new(const struct options *o, struct api **ret, struct err *err)
{
    _cleanup_(api_freep) struct api *api = NEW0(struct api);
    int r;

    api->options = o;
    api->interrupt_fd = -1;
    api->certificates = (struct certificates){.fds = {-1, -1, -1}};
    if (!streq(o->driver, OPTIONS_DRIVER))
        return err_set(err, -EINVAL, "unrecognized driver \"%s\" (there is API only, the default)",
                       o->driver);
    r = endpoint_parse(o->endpoint, &api->endpoint, err);
    if (r == 0 && api->endpoint.tls)
        r = certificates_load(o, &api->certificates, err);
    if (r == 0 && given(o->tunnel))
        r = tunnel_new(o, &api->endpoint, &api->tunnel, err);
    if (r < 0)
        return r;
    if (api->tunnel != NULL) {
        char *where = xasprintf("%s through %s", api->endpoint.where, o->tunnel);

        free(api->endpoint.where);
        api->endpoint.where = where;
    }
    prepare_handles(api);
    *ret = TAKE_PTR(api);
    return 0;
}

void api_free(struct api *api)
{
    if (api == NULL)
        return;
    if (api->easy != NULL) {
        curl_easy_cleanup(api->easy);
        curl_multi_cleanup(api->multi); /* Closes the connection. */
        curl_slist_free_all(api->headers);
        curl_global_cleanup();
    }
    tunnel_free(api->tunnel);
    certificates_done(&api->certificates);
    strbuf_done(&api->reply);
    endpoint_done(&api->endpoint);
    free(api);
}

void api_set_interrupt(struct api *api, int fd)
{
    api->interrupt_fd = fd;
}

/* --- Errors --- */

static bool is_write(const char *method, const char *path)
{
    return !streq(method, "GET") && !streq(path, "wait");
}

static int no_connection(struct api *api, struct err *err)
{
    const char *advice = api->endpoint.socket != NULL ? "Is fleetd running? (systemctl status fleetd)"
                                                      : "Is fleetd running there, and its api_listen set?";
    const char *why = api->error[0] != '\0' ? api->error : "no connection";
    long code = 0;

    curl_easy_getinfo(api->easy, CURLINFO_OS_ERRNO, &code);
    if (code != 0)
        why = strerror((int)code);
    if (code == EACCES || code == EPERM)
        advice = "Only root and the group of the socket may use it.";
    return err_set(err, -ENOTCONN, "cannot reach fleetd at %s: %s. %s", api->endpoint.where, why, advice);
}

/* What breaks a connection says it on stderr itself, if ssh is in it: here is only what it came to. */
static int broken_connection(struct api *api, CURLcode code, const char *unknown, struct err *err)
{
    const char *why = api->tunnel != NULL ? tunnel_trouble(api->tunnel) : NULL;

    if (why != NULL && !api->logged_in)
        return err_set(err, -ENOTCONN, "cannot reach fleetd at %s: %s%s", api->endpoint.where, why, unknown);
    if (why == NULL)
        why = api->error[0] != '\0' ? api->error : curl_easy_strerror(code);
    return err_set(err, -ENOTCONN, "the connection to fleetd at %s broke before there was an answer (%s)%s",
                   api->endpoint.where, why, unknown);
}

/* Another cluster's, a name that is not in it, or somebody in between. */
static int not_trusted(struct api *api, struct err *err)
{
    const struct certificates *certificates = &api->certificates;

    if (certificates->authorities != NULL && !given(api->options->ca_file))
        return err_set(
            err, -ENOTCONN,
            "the certificate of %s is not to be trusted by the authorities in %s: %s. Is it a host "
            "of another cluster, or known to its cluster by another name?",
            api->endpoint.where, certificates->file, api->error);
    return err_set(err, -ENOTCONN,
                   "the certificate of %s is not to be trusted: %s (--ca-file says who signs it)",
                   api->endpoint.where, api->error);
}

/* In TLS 1.3 a server looks at our certificate when we are through with the handshake: what it thinks of it
 * comes instead of an answer. */
static int turned_away(struct api *api, struct err *err)
{
    const struct certificates *certificates = &api->certificates;

    if (certificates->file == NULL)
        return err_set(err, -ENOTCONN,
                       "fleetd at %s has ended the connection (%s): it wants to see a client's certificate. "
                       "--cert-file names one; an administrator makes one by \"fleetctl client-cert\"",
                       api->endpoint.where, api->error);
    return err_set(
        err, -ENOTCONN,
        "fleetd at %s has ended the connection (%s): it does not take the certificate in %s. Is it of "
        "another cluster? Its journal says why",
        api->endpoint.where, api->error, certificates->file);
}

/* It was closed while we were still saying who we are: the server has seen enough. */
static bool was_closed(struct api *api)
{
    long code = 0;

    curl_easy_getinfo(api->easy, CURLINFO_OS_ERRNO, &code);
    return code == EPIPE || code == ECONNRESET;
}

/* Turns what curl says into ours. */
static int transport_error(struct api *api, CURLcode code, const char *method, const char *path,
                           uint64_t timeout_ms, struct err *err)
{
    const char *where = api->endpoint.where;
    const char *unknown =
        is_write(method, path) ? "; the outcome is unknown, and it is safe to repeat the command" : "";

    if (api->reply_too_large)
        return err_set(err, -EBADMSG, "the answer of fleetd at %s is larger than %d MiB", where,
                       API_REPLY_MAX / 1024 / 1024);
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST: return no_connection(api, err);
    case CURLE_URL_MALFORMAT: return err_set(err, -EINVAL, "\"%s\" is not a URL: %s", where, api->error);
    case CURLE_PEER_FAILED_VERIFICATION: return not_trusted(api, err);
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CONNECT_ERROR:
        if (code == CURLE_SSL_CONNECT_ERROR && was_closed(api) && api->tunnel == NULL)
            return turned_away(api, err);
        return err_set(err, -ENOTCONN, "no TLS with %s: %s", where, api->error);
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        if (api->endpoint.tls && !api->answered && api->tunnel == NULL)
            return turned_away(api, err);
        return broken_connection(api, code, unknown, err);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, -ETIMEDOUT, "no answer from fleetd at %s within %.1f s%s", where,
                       (double)timeout_ms / 1000, unknown);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_HTTP2:
        return err_set(err, -EBADMSG, "what answers at %s does not speak HTTP: %s", where, api->error);
    default: return broken_connection(api, code, unknown, err);
    }
}

static int status_errno(long status)
{
    switch (status) {
    case 404: return -ENOENT;
    case 409: return -EEXIST;
    case 503: return -EAGAIN;
    case 504: return -EINPROGRESS;
    default: return status >= 400 && status < 500 ? -EINVAL : -EIO;
    }
}

static int status_error(struct api *api, long status, const json_t *reply, const char *method,
                        const char *path, struct err *err)
{
    const char *message = api_text(json_object_get(reply, "error"), "message");

    if (message[0] != '\0')
        return err_set(err, status_errno(status), "%s", message);
    return err_set(err, status_errno(status), "fleetd at %s answered %s /" API_PREFIX "%s with status %ld",
                   api->endpoint.where, method, path, status);
}

/* --- Calls --- */

static void set_way(struct api *api)
{
    const struct certificates *certificates = &api->certificates;
    CURL *easy = api->easy;

    if (api->tunnel != NULL)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, tunnel_path(api->tunnel));
    else if (api->endpoint.socket != NULL)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, api->endpoint.socket);
    if (certificates->authorities != NULL) { /* And no others: not those of the system. */
        curl_easy_setopt(easy, CURLOPT_CAINFO, certificates->authorities);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (certificates->certificate != NULL) {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, certificates->certificate);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, certificates->key);
    }
}

static void set_request(struct api *api, const char *method, const char *url, const char *body,
                        uint64_t timeout_ms)
{
    CURL *easy = api->easy;

    curl_easy_reset(easy); /* Keeps the connection. */
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "fleetctl/" PACKAGE_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, api->headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, api->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_reply);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, api);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    set_way(api);
    if (body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body); /* Borrowed until the call ends. */
    }
    api->error[0] = '\0';
    api->reply_too_large = false;
    strbuf_done(&api->reply);
}

/* Like curl_easy_perform(), but ends with -EINTR when the interrupt comes, or with what the tunnel says. */
static int perform(struct api *api, CURLcode *ret, struct err *err)
{
    struct curl_waitfd interrupt = {.fd = api->interrupt_fd, .events = CURL_WAIT_POLLIN};
    CURLMsg *message;
    int running = 1, left, r = 0;

    *ret = CURLE_OK;
    curl_multi_add_handle(api->multi, api->easy);
    while (r == 0) {
        interrupt.revents = 0;
        if (curl_multi_perform(api->multi, &running) != CURLM_OK || running == 0)
            break;
        if (api->tunnel != NULL)
            r = tunnel_serve(api->tunnel, err);
        if (r < 0)
            break;
        curl_multi_poll(api->multi, &interrupt, api->interrupt_fd >= 0, 1000, NULL);
        if (interrupt.revents != 0)
            r = -EINTR;
    }
    while ((message = curl_multi_info_read(api->multi, &left)) != NULL)
        if (message->msg == CURLMSG_DONE)
            *ret = message->data.result;
    curl_multi_remove_handle(api->multi, api->easy);
    return r;
}

static int take_reply(struct api *api, const char *method, const char *path, json_t **ret, struct err *err)
{
    _cleanup_(json_decrefp) json_t *reply = NULL;
    long status = 0;
    curl_off_t took_us = 0;

    curl_easy_getinfo(api->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(api->easy, CURLINFO_TOTAL_TIME_T, &took_us);
    log_debug("%s /" API_PREFIX "%s: %ld, %zu bytes, %lld ms", method, path, status, api->reply.size,
              (long long)took_us / 1000);
    if (api->reply.size > 0)
        reply = json_loadb(api->reply.text, api->reply.size, 0, NULL);
    if (status < 200 || status > 299)
        return status_error(api, status, reply, method, path, err);
    if (api->reply.size > 0 && !json_is_object(reply))
        return err_set(err, -EBADMSG,
                       "the answer of fleetd at %s to %s /" API_PREFIX "%s is not a JSON object",
                       api->endpoint.where, method, path);
    if (ret != NULL)
        *ret = TAKE_PTR(reply);
    return 0;
}

int api_call(struct api *api, const char *method, const char *path, const json_t *body, uint64_t extra_ms,
             json_t **ret, struct err *err)
{
    _cleanup_(freep) char *url = xasprintf("%s" API_PREFIX "%s", api->endpoint.base, path);
    _cleanup_(freep) char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    const uint64_t login_ms = api->tunnel != NULL && !api->logged_in ? LOGIN_MS : 0;
    const uint64_t timeout_ms = api->options->request_timeout_ms + extra_ms + login_ms;
    CURLcode code;
    int r;

    set_request(api, method, url, text, timeout_ms);
    r = perform(api, &code, err);
    if (r == 0 && code != CURLE_OK)
        r = transport_error(api, code, method, path, timeout_ms, err);
    if (r == 0) {
        api->logged_in = api->answered = true;
        r = take_reply(api, method, path, ret, err);
    }
    strbuf_done(&api->reply);
    return r;
}

char *api_escape(const char *s)
{
    static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~";
    struct strbuf b = {0};

    for (; *s != '\0'; s++)
        if (strchr(plain, *s) != NULL)
            strbuf_add_bytes(&b, s, 1);
        else
            strbuf_addf(&b, "%%%02X", (unsigned char)*s);
    return strbuf_take(&b);
}

const char *api_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}
