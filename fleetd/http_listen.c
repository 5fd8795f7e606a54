/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/http_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"

/* Removes a socket file that nobody answers on. */
static int remove_stale(const char *path, const struct sockaddr_un *addr, struct err *err)
{
    _cleanup_(closep) int fd = -1;
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %m", path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST, "%s exists and is not a socket", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "cannot make a Unix socket: %m");
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno != ECONNREFUSED)
        return err_set(err, -EADDRINUSE, "%s is in use: is another fleetd running?", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(err, -errno, "cannot remove the stale socket %s: %m", path);
    return 0;
}

int http_unix_set_access(const char *path, gid_t group, bool others, struct err *err)
{
    if (chown(path, (uid_t)-1, group) < 0)
        return err_set(err, -errno, "cannot give %s to the group %u: %m", path, (unsigned)group);
    if (chmod(path, others ? 0666 : 0660) < 0)
        return err_set(err, -errno, "cannot change the mode of %s: %m", path);
    return 0;
}

gid_t http_find_group(const char *name)
{
    struct group *found = *name != '\0' ? getgrnam(name) : NULL;

    return found != NULL ? found->gr_gid : HTTP_NO_GROUP;
}

int http_listen_unix(const char *path, gid_t group, bool others, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_(closep) int fd = -1;
    mode_t mask;
    int r;

    if (*path == '\0' || strlen(path) >= sizeof addr.sun_path)
        return err_set(err, -ENAMETOOLONG, "a Unix socket's path has 1 to %zu bytes: \"%s\"",
                       sizeof addr.sun_path - 1, path);
    memcpy(addr.sun_path, path, strlen(path));
    r = remove_stale(path, &addr, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "cannot make a Unix socket: %m");
    mask = umask(others ? 0111 : 0117); /* It must not be open to all even for a moment. */
    r = bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
    umask(mask);
    if (r < 0)
        return err_set(err, r, "cannot bind %s: %s", path, strerror(-r));
    r = group != HTTP_NO_GROUP ? http_unix_set_access(path, group, others, err) : 0;
    if (r < 0)
        return r;
    if (listen(fd, SOMAXCONN) < 0)
        return err_set(err, -errno, "cannot listen on %s: %m", path);
    return TAKE_FD(fd);
}

/* "a.b.c.d:port" or "[v6]:port", as config.c has checked it. */
static int parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size, struct err *err)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    struct sockaddr_in *in = (struct sockaddr_in *)ret;
    const char *colon = strrchr(text, ':');
    _cleanup_(freep) char *host = NULL;
    unsigned long port;

    if (colon == NULL || colon == text)
        return err_set(err, -EINVAL, "\"%s\" is not address:port", text);
    host = *text == '[' ? xstrndup(text + 1, (size_t)(colon - text) - 2)
                        : xstrndup(text, (size_t)(colon - text));
    port = strtoul(colon + 1, NULL, 10);
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *ret_size = sizeof *in;
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        *ret_size = sizeof *in6;
    } else {
        return err_set(err, -EINVAL, "\"%s\" is no IP address", host);
    }
    return 0;
}

int http_listen_tcp(const char *address, struct err *err)
{
    struct sockaddr_storage addr;
    _cleanup_(closep) int fd = -1;
    int on = 1, off = 0, r;
    socklen_t size = 0;

    r = parse_address(address, &addr, &size, err);
    if (r < 0)
        return r;
    fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "cannot make a socket for %s: %m", address);
    /* A restart is not kept out by connections that linger; "[::]" is both families, whatever the system's
     * default is. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&addr, size) < 0 || listen(fd, SOMAXCONN) < 0)
        return err_set(err, -errno, "cannot listen on %s: %m", address);
    return TAKE_FD(fd);
}
