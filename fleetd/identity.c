/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/identity.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#define HEX_DIGITS    32u
#define RUN_DIRECTORY "/run/fleet"
#define BOOT_ID_NAME  "boot-id"

int identity_read_machine_id(const char *path, char ret[IDENTITY_ID_SIZE], struct err *err)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    char text[128] = "", id[IDENTITY_ID_SIZE], *start = text;
    bool zero = true;
    size_t size;

    if (file == NULL)
        return err_set(err, -errno, "unable to determine local machine ID: %s: %m", path);
    size = fread(text, 1, sizeof text - 1, file);
    while (size > 0 && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    start += strspn(text, " \t\r\n");
    for (size_t i = 0; i < HEX_DIGITS; i++) {
        if (!isxdigit((unsigned char)start[i]))
            return err_set(err, -EINVAL, "unable to determine local machine ID: %s is not 32 hex digits",
                           path);
        id[i] = (char)tolower((unsigned char)start[i]);
        zero = zero && id[i] == '0';
    }
    if (start[HEX_DIGITS] != '\0' || zero)
        return err_set(err, -EINVAL, "unable to determine local machine ID: %s %s", path,
                       zero ? "is all zero" : "is not 32 hex digits");
    id[HEX_DIGITS] = '\0';
    memcpy(ret, id, sizeof id);
    return 0;
}

/* The interface of the first default route. */
static bool default_interface(const char *routes, char name[IF_NAMESIZE])
{
    _cleanup_(fclosep) FILE *file = fopen(routes, "re");
    char line[512];

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long destination, gateway, mask;
        unsigned flags;

        if (sscanf(line, "%15s %lx %lx %x %*s %*s %*s %lx", name, &destination, &gateway, &flags, &mask) ==
                5 &&
            destination == 0 && mask == 0 && (flags & RTF_UP) != 0 && (flags & RTF_REJECT) == 0)
            return true;
    }
    return false;
}

static bool is_global_unicast(struct in_addr in)
{
    uint32_t ip = ntohl(in.s_addr);

    return ip >> 24 != 0 && ip >> 24 != 127 && ip >> 16 != 0xa9fe && ip >> 28 < 0xe;
}

char *identity_detect_ip(const char *routes)
{
    char interface[IF_NAMESIZE] = "", text[INET_ADDRSTRLEN] = "";
    struct ifaddrs *all = NULL;

    if (!default_interface(routes, interface) || getifaddrs(&all) < 0)
        return xstrdup("");
    for (const struct ifaddrs *a = all; a != NULL && *text == '\0'; a = a->ifa_next) {
        struct sockaddr_in in;

        if (a->ifa_addr == NULL || a->ifa_addr->sa_family != AF_INET || !streq(a->ifa_name, interface))
            continue;
        memcpy(&in, a->ifa_addr, sizeof in);
        if (is_global_unicast(in.sin_addr))
            inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    }
    freeifaddrs(all);
    return xstrdup(text);
}

int identity_read_boot_id(const char *path, char ret[IDENTITY_ID_SIZE])
{
    _cleanup_(closep) int directory = -1;
    _cleanup_(freep) char *file = xasprintf("%s/" BOOT_ID_NAME, path);
    sd_id128_t fresh;
    int r;

    if (identity_read_machine_id(file, ret, NULL) >= 0)
        return 0;
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return -errno;
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    r = sd_id128_randomize(&fresh);
    if (r < 0)
        return r;
    sd_id128_to_string(fresh, ret);
    return file_replace(directory, BOOT_ID_NAME, ret, IDENTITY_ID_SIZE - 1, 0644);
}

/* The kernel's boot id is the same in all containers of a machine, and a service with ProtectKernelTunables=
 * sees it also in a container that has been given one of its own. What /run keeps belongs to one boot of one
 * host in any case. Where fleetd may not write there (run by hand, by a user), the kernel's has to do. */
static int read_boot_id(char ret[IDENTITY_ID_SIZE], struct err *err)
{
    sd_id128_t boot;
    int r;

    if (identity_read_boot_id(RUN_DIRECTORY, ret) >= 0)
        return 0;
    r = sd_id128_get_boot(&boot);
    if (r < 0)
        return err_set(err, r, "unable to read the boot ID: %s", strerror(-r));
    sd_id128_to_string(boot, ret);
    return 0;
}

int identity_read(const char *public_ip, struct identity *ret, struct err *err)
{
    struct identity identity = {0};
    char hostname[256] = "";
    int r;

    r = identity_read_machine_id("/etc/machine-id", identity.machine_id, err);
    if (r < 0)
        return r;
    r = read_boot_id(identity.boot_id, err);
    if (r < 0)
        return r;
    if (gethostname(hostname, sizeof hostname - 1) < 0 || *hostname == '\0')
        snprintf(hostname, sizeof hostname, "localhost");
    identity.hostname = xstrdup(hostname);
    identity.public_ip = *public_ip != '\0' ? xstrdup(public_ip) : identity_detect_ip("/proc/net/route");
    *ret = identity;
    return 0;
}

void identity_done(struct identity *identity)
{
    free(identity->hostname);
    free(identity->public_ip);
    *identity = (struct identity){0};
}
