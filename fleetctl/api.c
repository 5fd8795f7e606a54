/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/api.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetctl/output.h"

#define API_PREFIX "fleet/v1/"

struct api {
    CURL *easy;
    CURLM *multi; /* Only so that a wait can be interrupted. */
    struct curl_slist *headers;
    char *socket; /* NULL: TCP. */
    char *base;   /* "http://host:port/" */
    char *where;  /* The endpoint as a person would name it. */
    uint64_t timeout_ms;
    int interrupt_fd;
    struct strbuf reply; /* Of the call that runs. */
    bool reply_too_large;
    char error[CURL_ERROR_SIZE];
};

/* --- Endpoint --- */

static int parse_endpoint(struct api *api, const char *endpoint, struct err *err)
{
    const char *rest = strstr(endpoint, "://"), *path;
    size_t scheme_size;

    if (rest == NULL)
        return err_set(err, -EINVAL,
                       "URL scheme undefined: \"%s\" (write for example unix:///run/fleet.sock or "
                       "http://host:49153)",
                       endpoint);
    scheme_size = (size_t)(rest - endpoint);
    rest += 3;
    path = strchrnul(rest, '/');
    if (scheme_size == 4 && (strncmp(endpoint, "unix", 4) == 0 || strncmp(endpoint, "file", 4) == 0)) {
        if (path != rest)
            return err_set(err, -EINVAL, "unable to connect to host \"%.*s\" with scheme \"%.*s\"",
                           (int)(path - rest), rest, (int)scheme_size, endpoint);
        if (*path == '\0')
            return err_set(err, -EINVAL, "\"%s\" has no path", endpoint);
        api->socket = xstrdup(path);
        api->base = xstrdup("http://domain-sock/"); /* The Host of the first fleet's client. */
        api->where = xstrdup(path);
        return 0;
    }
    if (scheme_size != 4 || strncmp(endpoint, "http", 4) != 0)
        return err_set(err, -EINVAL, "URL scheme \"%.*s\" is not supported (unix, file and http are)",
                       (int)scheme_size, endpoint);
    if (path == rest)
        return err_set(err, -EINVAL, "\"%s\" has no host", endpoint);
    api->base = xasprintf("%s%s", endpoint, str_has_suffix(endpoint, "/") ? "" : "/");
    api->where = xstrdup(endpoint);
    return 0;
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

int api_new(const char *endpoint, uint64_t timeout_ms, struct api **ret, struct err *err)
{
    _cleanup_(api_freep) struct api *api = NEW0(struct api);
    _cleanup_(freep) char *first = xstrndup(endpoint, strcspn(endpoint, ","));
    int r;

    if (strlen(first) != strlen(endpoint))
        complain("WARNING: multiple endpoints provided but only the first (%s) is used", first);
    api->timeout_ms = timeout_ms;
    api->interrupt_fd = -1;
    r = parse_endpoint(api, first, err);
    if (r < 0)
        return r;
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
        curl_multi_cleanup(api->multi);
        curl_slist_free_all(api->headers);
        curl_global_cleanup();
    }
    strbuf_done(&api->reply);
    free(api->socket);
    free(api->base);
    free(api->where);
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
    const char *advice = api->socket != NULL ? "Is fleetd running? (systemctl status fleetd)"
                                             : "Is fleetd running there, and its api_listen set?";
    const char *why = api->error[0] != '\0' ? api->error : "no connection";
    long code = 0;

    curl_easy_getinfo(api->easy, CURLINFO_OS_ERRNO, &code);
    if (code != 0)
        why = strerror((int)code);
    if (code == EACCES || code == EPERM)
        advice = "Only root and the group of the socket may use it.";
    return err_set(err, -ENOTCONN, "cannot reach fleetd at %s: %s. %s", api->where, why, advice);
}

/* Turns what curl says into ours. 'sent': the request may have reached the server. */
static int transport_error(struct api *api, CURLcode code, const char *method, const char *path,
                           uint64_t timeout_ms, struct err *err)
{
    const char *unknown =
        is_write(method, path) ? "; the outcome is unknown, and it is safe to repeat the command" : "";

    if (api->reply_too_large)
        return err_set(err, -EBADMSG, "the answer of fleetd at %s is larger than %d MiB", api->where,
                       API_REPLY_MAX / 1024 / 1024);
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST: return no_connection(api, err);
    case CURLE_URL_MALFORMAT: return err_set(err, -EINVAL, "\"%s\" is not a URL: %s", api->where, api->error);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, -ETIMEDOUT, "no answer from fleetd at %s within %.1f s%s", api->where,
                       (double)timeout_ms / 1000, unknown);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_HTTP2:
        return err_set(err, -EBADMSG, "what answers at %s does not speak HTTP: %s", api->where, api->error);
    default:
        return err_set(err, -ENOTCONN,
                       "the connection to fleetd at %s broke before there was an answer (%s)%s", api->where,
                       api->error[0] != '\0' ? api->error : curl_easy_strerror(code), unknown);
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
                   api->where, method, path, status);
}

/* --- Calls --- */

static void set_request(struct api *api, const char *method, const char *url, const char *body,
                        uint64_t timeout_ms)
{
    CURL *easy = api->easy;

    curl_easy_reset(easy); /* Keeps the connection. */
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "fleetctl/" PACKAGE_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, api->headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, api->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_reply);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, api);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    if (api->socket != NULL)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, api->socket);
    if (body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body); /* Borrowed until the call ends. */
    }
    api->error[0] = '\0';
    api->reply_too_large = false;
    strbuf_done(&api->reply);
}

/* Like curl_easy_perform(), but ends with -EINTR when the interrupt comes. */
static int perform(struct api *api, CURLcode *ret)
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

    curl_easy_getinfo(api->easy, CURLINFO_RESPONSE_CODE, &status);
    log_debug("%s /" API_PREFIX "%s: %ld, %zu bytes", method, path, status, api->reply.size);
    if (api->reply.size > 0)
        reply = json_loadb(api->reply.text, api->reply.size, 0, NULL);
    if (status < 200 || status > 299)
        return status_error(api, status, reply, method, path, err);
    if (api->reply.size > 0 && !json_is_object(reply))
        return err_set(err, -EBADMSG,
                       "the answer of fleetd at %s to %s /" API_PREFIX "%s is not a JSON object", api->where,
                       method, path);
    if (ret != NULL)
        *ret = TAKE_PTR(reply);
    return 0;
}

int api_call(struct api *api, const char *method, const char *path, const json_t *body, uint64_t extra_ms,
             json_t **ret, struct err *err)
{
    _cleanup_(freep) char *url = xasprintf("%s" API_PREFIX "%s", api->base, path);
    _cleanup_(freep) char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    const uint64_t timeout_ms = api->timeout_ms + extra_ms, start = now_ms();
    CURLcode code;
    int r;

    set_request(api, method, url, text, timeout_ms);
    r = perform(api, &code);
    if (r == 0 && code != CURLE_OK)
        r = transport_error(api, code, method, path, timeout_ms, err);
    if (r == 0)
        r = take_reply(api, method, path, ret, err);
    log_debug("%s %s took %llu ms", method, url, (unsigned long long)(now_ms() - start));
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
