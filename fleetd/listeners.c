/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/front.h"
#include "fleetd/http_listen.h"
#include "fleetd/messages.h"

struct listeners {
    uv_loop_t *loop;
    struct http_server *server; /* NULL: it is being closed. */
    bool insecure;
    struct front *front;                 /* For TCP with TLS; NULL: nobody has wanted that yet. */
    struct tls_credentials *credentials; /* NULL: none yet. */
    void (*done)(void *data);
    void *done_data;
    struct strlist passed; /* The places of the passed sockets: a path, or "address:port". */

    char *path; /* Our own Unix socket; "": none, or it is a passed one. */
    int path_fd;
    dev_t path_device; /* By which its file is known again. */
    ino_t path_inode;

    char *address; /* "": none. */
    int address_fd;
};

struct listeners *listeners_new(uv_loop_t *loop, struct http_server *server, bool insecure)
{
    struct listeners *l = NEW0(struct listeners);

    l->loop = loop;
    l->server = server;
    l->insecure = insecure;
    l->path = xstrdup("");
    l->address = xstrdup("");
    l->path_fd = l->address_fd = -1;
    return l;
}

void listeners_end(struct listeners *l)
{
    l->server = NULL;
}

static void on_front_closed(void *data)
{
    struct listeners *l = data;
    void (*done)(void *) = l->done;
    void *done_data = l->done_data;

    tls_credentials_unref(l->credentials);
    strlist_done(&l->passed);
    free(l->path);
    free(l->address);
    free(l);
    done(done_data);
}

void listeners_close(struct listeners *l, void (*done)(void *data), void *data)
{
    l->server = NULL;
    l->done = done;
    l->done_data = data;
    if (l->front != NULL)
        front_close(l->front, on_front_closed, l);
    else
        on_front_closed(l);
}

/* ---- TCP sockets: with TLS through the front, without straight to the server ---- */

static void on_arrival(int fd, const struct peer *peer, void *data)
{
    struct listeners *l = data;

    if (l->server != NULL)
        http_server_adopt(l->server, fd, peer);
    else
        close(fd);
}

void listeners_set_credentials(struct listeners *l, struct tls_credentials *credentials)
{
    tls_credentials_unref(l->credentials);
    l->credentials = tls_credentials_ref(credentials);
    if (l->front != NULL)
        front_set_credentials(l->front, credentials);
}

/* Owns 'fd', also when this fails. */
static int tcp_add(struct listeners *l, int fd, struct err *err)
{
    if (l->insecure)
        return http_server_add(l->server, fd, err);
    if (l->front == NULL) {
        l->front = front_new(l->loop, on_arrival, l);
        if (l->credentials != NULL)
            front_set_credentials(l->front, l->credentials);
    }
    front_add(l->front, fd);
    return 0;
}

static void tcp_remove(struct listeners *l, int fd)
{
    if (l->insecure)
        http_server_remove(l->server, fd);
    else
        front_remove(l->front, fd);
}

/* ---- sockets from systemd ---- */

/* Where a socket is bound, as a text; NULL: it is no socket, or of a family that is not ours. */
static char *place_of(int fd, bool *ret_tcp)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage storage;
    } addr = {0};
    socklen_t size = sizeof addr;
    char host[INET6_ADDRSTRLEN];

    if (getsockname(fd, &addr.any, &size) < 0)
        return NULL;
    *ret_tcp = addr.any.sa_family != AF_UNIX;
    switch (addr.any.sa_family) {
    case AF_UNIX:
        if (size <= offsetof(struct sockaddr_un, sun_path))
            return xstrdup("an unnamed Unix socket");
        return addr.un.sun_path[0] == '\0'
                   ? xasprintf("@%.*s", (int)(size - offsetof(struct sockaddr_un, sun_path) - 1),
                               addr.un.sun_path + 1)
                   : xstrndup(addr.un.sun_path, size - offsetof(struct sockaddr_un, sun_path));
    case AF_INET:
        inet_ntop(AF_INET, &addr.in.sin_addr, host, sizeof host);
        return xasprintf("%s:%u", host, ntohs(addr.in.sin_port));
    case AF_INET6:
        inet_ntop(AF_INET6, &addr.in6.sin6_addr, host, sizeof host);
        return xasprintf("[%s]:%u", host, ntohs(addr.in6.sin6_port));
    default: return NULL;
    }
}

static int take_passed(struct listeners *l, int fd, struct err *err)
{
    _cleanup_(closep) int owned = fd;
    _cleanup_(freep) char *place = NULL;
    bool tcp = false;
    int r;

    place = place_of(fd, &tcp);
    if (place == NULL)
        return err_set(err, -ENOTSOCK, "it is neither a Unix nor a TCP socket");
    if (tcp) {
        r = http_check_listening(fd, err);
        if (r >= 0)
            r = tcp_add(l, TAKE_FD(owned), err);
    } else {
        r = http_server_add(l->server, TAKE_FD(owned), err);
    }
    if (r < 0)
        return err_prefix(err, r, "%s", place);
    strlist_add(&l->passed, place);
    return 0;
}

static void log_left_out(const char *name, const char *why)
{
    _cleanup_(freep) char *reason = xasprintf("FLEET_REASON=%s", why);

    log_message(LOG_ERR, log_fields(MESSAGE_SOCKET_LEFT_OUT, reason),
                "The socket \"%s\" that systemd passed cannot serve the API and is left out: %s", name, why);
}

void listeners_take_passed(struct listeners *l, int first, int count, char *const *names)
{
    for (int i = 0; i < count; i++) {
        struct err err = {0};
        int r = take_passed(l, first + i, &err);

        if (r < 0)
            log_left_out(names[i], err_text(&err, r));
        else
            log_info("The API is at %s, by systemd's socket \"%s\"", l->passed.items[l->passed.count - 1],
                     names[i]);
    }
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return streq(a, b) ||
           (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static bool is_passed(const struct listeners *l, const char *path)
{
    for (size_t i = 0; i < l->passed.count; i++)
        if (*l->passed.items[i] == '/' && is_same_file(l->passed.items[i], path))
            return true;
    return false;
}

/* ---- the Unix socket ---- */

/* Whether 'path' leads to the socket that we have bound. */
static bool is_ours(const struct listeners *l, const char *path)
{
    struct stat st;

    return l->path_fd >= 0 && stat(path, &st) == 0 && st.st_dev == l->path_device &&
           st.st_ino == l->path_inode;
}

static void remove_socket(struct listeners *l)
{
    if (l->path_fd < 0)
        return;
    http_server_remove(l->server, l->path_fd);
    if (is_ours(l, l->path))
        unlink(l->path);
    l->path_fd = -1;
}

static int add_socket(struct listeners *l, const char *path, gid_t group, bool others, struct err *err)
{
    struct stat st;
    int r, fd = http_listen_unix(path, group, others, err);

    if (fd < 0)
        return fd;
    r = lstat(path, &st) < 0 ? err_set(err, -errno, "%s: %m", path) : 0;
    if (r < 0) {
        close(fd);
        return r;
    }
    r = http_server_add(l->server, fd, err);
    if (r < 0)
        return r;
    remove_socket(l);
    l->path_fd = fd;
    l->path_device = st.st_dev;
    l->path_inode = st.st_ino;
    return 0;
}

int listeners_set_socket(struct listeners *l, const char *path, gid_t group, bool others, struct err *err)
{
    bool none = *path == '\0' || is_passed(l, path);
    int r = 0;

    if (none)
        remove_socket(l);
    else if (is_ours(l, path))
        /* No such group, or none any more: what is root's is not left to the old one. */
        r = http_unix_set_access(path, group != HTTP_NO_GROUP ? group : getegid(), others, err);
    else
        r = add_socket(l, path, group, others, err);
    if (r < 0)
        return err_prefix(err, r, "api_socket");
    http_server_set_others(l->server, others);
    free(l->path);
    l->path = xstrdup(none ? "" : path);
    return 0;
}

/* ---- TCP ---- */

static int add_address(struct listeners *l, const char *address, int *ret, struct err *err)
{
    int r, fd = http_listen_tcp(address, err);

    if (fd < 0)
        return fd;
    r = tcp_add(l, fd, err);
    if (r < 0)
        return r;
    *ret = fd;
    return 0;
}

static void remove_address(struct listeners *l)
{
    if (l->address_fd >= 0)
        tcp_remove(l, l->address_fd);
    l->address_fd = -1;
}

/* The old address may be what stands in the way of the new one (0.0.0.0 and one of this host's): then it has
 * to go first, and comes back if that was not it. */
static int replace_address(struct listeners *l, const char *address, int *ret, struct err *err)
{
    int r = add_address(l, address, ret, err);

    if (r != -EADDRINUSE || l->address_fd < 0) {
        if (r >= 0)
            remove_address(l);
        return r;
    }
    remove_address(l);
    r = add_address(l, address, ret, err);
    if (r < 0 && add_address(l, l->address, &l->address_fd, NULL) < 0)
        log_error("The API cannot go back to %s either: it is not offered over TCP", l->address);
    return r;
}

int listeners_set_address(struct listeners *l, const char *address, struct err *err)
{
    int r = 0, fd = -1;

    if (*address == '\0') {
        remove_address(l);
    } else if (l->address_fd < 0 || !streq(address, l->address)) {
        r = replace_address(l, address, &fd, err);
        if (r >= 0)
            l->address_fd = fd;
    }
    if (r < 0)
        return err_prefix(err, r, "api_listen");
    free(l->address);
    l->address = xstrdup(address);
    return 0;
}

/* ---- questions ---- */

void listeners_each(const struct listeners *l, void (*each)(const char *place, void *data), void *data)
{
    for (size_t i = 0; i < l->passed.count; i++)
        each(l->passed.items[i], data);
    if (l->path_fd >= 0)
        each(l->path, data);
    if (l->address_fd >= 0)
        each(l->address, data);
}
